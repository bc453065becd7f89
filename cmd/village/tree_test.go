package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"village/node/api"
	"village/sim/study"
)

// TestCommandTree freezes the commands, their arguments and their flags.
func TestCommandTree(t *testing.T) {
	var b strings.Builder
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		path, _, _ := strings.Cut(c.UseLine(), " [flags]")
		fmt.Fprintln(&b, path)
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Shorthand != "" {
				t.Errorf("%s: -%s; flags have one name", path, f.Shorthand)
			}
			fmt.Fprintf(&b, "    --%s %s\n", f.Name, f.Value.Type())
		})
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(&app{}))
	golden(t, "commands.golden", b.String())
}

// TestEveryCommandIsExplained: a command has a short help, and its flags too.
func TestEveryCommandIsExplained(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short help %q", c.CommandPath(), c.Short)
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s: no help for --%s", c.CommandPath(), f.Name)
			}
		})
		if c.Args == nil {
			t.Errorf("%s accepts any arguments", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(&app{}))
}

// TestJSONShapes freezes the keys of every answer.
func TestJSONShapes(t *testing.T) {
	var b strings.Builder
	for _, v := range []any{
		api.Error{}, api.Version{}, api.Init{}, api.Ready{}, api.Identity{}, api.Status{}, api.Store{}, api.Peers{}, api.Members{},
		api.AddedDataset{}, api.Datasets{}, api.ShownDataset{}, api.Proposed{}, api.Tasks{}, api.ShownTask{}, api.Joined{},
		api.Models{}, api.ShownModel{}, api.Report{}, api.Exported{}, api.Verified{}, api.Predictions{},
		study.Result{}, api.SimList{}, api.SimAverage{},
	} {
		fmt.Fprintln(&b, reflect.TypeOf(v).Name())
		var lines []string
		keys(reflect.TypeOf(v), "", &lines)
		slices.Sort(lines)
		for _, l := range lines {
			fmt.Fprintln(&b, "    "+l)
		}
	}
	golden(t, "json.golden", b.String())
}

// keys lists the JSON keys of a type, those of its parts behind a dot.
func keys(t reflect.Type, path string, lines *[]string) {
	kind := t.Kind().String()
	switch name := t.Name(); {
	case name == "CID" || name == "NodeID":
		kind = name
	case t.Kind() == reflect.Pointer || t.Kind() == reflect.Map:
		keys(t.Elem(), path, lines)
		return
	case t.Kind() == reflect.Slice:
		keys(t.Elem(), path+"[]", lines)
		return
	case t.Kind() == reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			switch key, _, _ := strings.Cut(f.Tag.Get("json"), ","); {
			case f.Anonymous && key == "":
				keys(f.Type, path, lines)
			case path == "":
				keys(f.Type, key, lines)
			default:
				keys(f.Type, path+"."+key, lines)
			}
		}
		return
	}
	*lines = append(*lines, path+" "+kind)
}
