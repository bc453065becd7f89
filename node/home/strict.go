package home

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/BurntSushi/toml"
)

// DecodeTOML reads a flat TOML document into the struct that v points to. Keys
// are the fields' toml tags, else their json tags, exactly. An error names the file, the line and,
// for an unknown key, the nearest valid one.
func DecodeTOML(data []byte, file string, v any) error {
	var keys map[string]toml.Primitive
	meta, err := toml.Decode(string(data), &keys)
	if err != nil {
		var bad toml.ParseError
		if errors.As(err, &bad) {
			return fmt.Errorf("%s, line %d: %s", file, bad.Position.Line, bad.Message)
		}
		return fmt.Errorf("%s: %s", file, strings.TrimPrefix(err.Error(), "toml: "))
	}
	fields := map[string]reflect.Value{}
	var valid []string
	s := reflect.ValueOf(v).Elem()
	for _, f := range reflect.VisibleFields(s.Type()) {
		if f.Anonymous {
			continue // its own fields are listed, too
		}
		name, _, _ := strings.Cut(cmp.Or(f.Tag.Get("toml"), f.Tag.Get("json")), ",")
		fields[name] = s.FieldByIndex(f.Index)
		valid = append(valid, name)
	}
	for _, key := range meta.Keys() {
		if len(key) > 1 {
			continue // part of a table, whose own key comes too
		}
		place := fmt.Sprintf("%s, line %d", file, line(meta, keys[key[0]]))
		field, ok := fields[key[0]]
		if !ok {
			hint := "valid keys are " + strings.Join(valid, ", ")
			if near := Nearest(strings.ToLower(key[0]), valid); near != "" {
				hint = fmt.Sprintf("did you mean %q?", near)
			}
			return fmt.Errorf("%s: unknown key %q; %s", place, key[0], hint)
		}
		if err := meta.PrimitiveDecode(keys[key[0]], field.Addr().Interface()); err != nil {
			why := "it must be " + describe(field.Type())
			var bad toml.ParseError
			if errors.As(err, &bad) {
				why = bad.Message
			}
			return fmt.Errorf("%s: the value of %q is wrong: %s", place, key[0], why)
		}
	}
	return nil
}

// describe says what a value of a config field's type looks like.
func describe(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return `a string, as "text"`
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return `a list of strings, as ["a", "b"]`
	case reflect.Uint64:
		return "a whole number from 0"
	default:
		return "a number"
	}
}

// locator fails to decode from any value. The error carries the value's place,
// which the TOML library tells in no other way.
type locator struct{}

func (*locator) UnmarshalTOML(any) error { return errors.New("here") }

func line(meta toml.MetaData, value toml.Primitive) int {
	var here toml.ParseError
	errors.As(meta.PrimitiveDecode(value, &locator{}), &here)
	return here.Position.Line
}
