package safetensors

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// entry is what the header says of one tensor.
type entry struct {
	name       string
	dtype      DType
	shape      []int
	begin, end uint64 // of the data that follows the header
}

// parseHeader reads the header. It knows the little JSON that a header may
// hold, and is stricter than encoding/json, which takes duplicate keys and
// repairs broken strings.
func parseHeader(b []byte, limit Limits) (entries []entry, metadata map[string]string, err error) {
	if !utf8.Valid(b) {
		return nil, nil, errors.New("it is not valid UTF-8")
	}
	if len(b) == 0 || b[0] != '{' {
		return nil, nil, errors.New("it does not start with an object")
	}
	p := &parser{b: b, limit: limit}
	names := make(map[string]bool)
	p.object(func(key string) {
		switch {
		case names[key]:
			p.failf("key %q occurs twice", key)
		case key == metadataKey:
			metadata = p.strings()
		case len(entries) == limit.Tensors:
			p.failf("it names more than %d tensors", limit.Tensors)
		default:
			entries = append(entries, p.entry(key))
		}
		names[key] = true
	})
	for p.err == nil && p.at < len(b) {
		if b[p.at] != ' ' {
			p.failf("something follows the object")
		}
		p.at++
	}
	return entries, metadata, p.err
}

// parser is a cursor over a header. After the first error it reads nothing more.
type parser struct {
	b     []byte
	at    int
	limit Limits
	err   error
}

func (p *parser) failf(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format+" (byte %d)", append(args, p.at)...)
	}
}

// peek skips white space and returns the next byte, 0 at the end.
func (p *parser) peek() byte {
	for p.at < len(p.b) {
		switch c := p.b[p.at]; c {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return c
		}
	}
	return 0
}

func (p *parser) expect(c byte) bool {
	if p.err == nil && p.peek() != c {
		p.failf("%q is missing", c)
	}
	if p.err != nil {
		return false
	}
	p.at++
	return true
}

// list reads items between two brackets.
func (p *parser) list(opening, closing byte, item func()) {
	if !p.expect(opening) {
		return
	}
	if p.peek() == closing {
		p.at++
		return
	}
	for {
		item()
		if p.err == nil && p.peek() == ',' {
			p.at++
			continue
		}
		p.expect(closing)
		return
	}
}

// object calls value for each key, to read its value.
func (p *parser) object(value func(key string)) {
	p.list('{', '}', func() {
		key := p.string()
		if p.expect(':') {
			value(key)
		}
	})
}

func (p *parser) entry(name string) entry {
	e := entry{name: name}
	var offsets []uint64
	seen := map[string]bool{}
	p.object(func(key string) {
		if seen[key] {
			p.failf("tensor %q: key %q occurs twice", name, key)
			return
		}
		seen[key] = true
		switch key {
		case "dtype":
			e.dtype = DType(p.string())
			if p.err == nil && e.dtype.size() == 0 {
				p.failf("tensor %q: element type %q is not known", name, e.dtype)
			}
		case "shape":
			for _, d := range p.numbers(p.limit.Dims) {
				if d > math.MaxInt {
					p.failf("tensor %q: a dimension is too large", name)
					return
				}
				e.shape = append(e.shape, int(d))
			}
		case "data_offsets":
			offsets = p.numbers(2)
		default:
			p.failf("tensor %q: key %q is not known", name, key)
		}
	})
	if p.err == nil && (len(seen) != 3 || len(offsets) != 2) {
		p.failf("tensor %q needs dtype, shape and two data_offsets", name)
	}
	if p.err == nil {
		e.begin, e.end = offsets[0], offsets[1]
	}
	return e
}

// strings reads a map of strings.
func (p *parser) strings() map[string]string {
	m := map[string]string{}
	p.object(func(key string) {
		if _, ok := m[key]; ok {
			p.failf("metadata key %q occurs twice", key)
			return
		}
		m[key] = p.string()
	})
	return m
}

// numbers reads an array of at most so many unsigned integers.
func (p *parser) numbers(most int) (ns []uint64) {
	p.list('[', ']', func() {
		if len(ns) == most {
			p.failf("an array is longer than %d", most)
			return
		}
		p.peek()
		start := p.at
		for p.at < len(p.b) && p.b[p.at]-'0' <= 9 {
			p.at++
		}
		digits := string(p.b[start:p.at])
		n, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || len(digits) > 1 && digits[0] == '0' {
			p.failf("a number is not an unsigned 64-bit integer")
			return
		}
		ns = append(ns, n)
	})
	return ns
}

// string reads a JSON string. The header as a whole is known to be valid UTF-8.
func (p *parser) string() string {
	if !p.expect('"') {
		return ""
	}
	var out []byte
	for p.at < len(p.b) {
		c := p.b[p.at]
		p.at++
		switch {
		case c == '"':
			return string(out)
		case c < ' ':
			p.failf("a string holds a bare control character")
			return ""
		case c == '\\':
			r, ok := p.escape()
			if !ok {
				p.failf("a string holds a broken escape")
				return ""
			}
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, c)
		}
	}
	p.failf("a string does not end")
	return ""
}

// escape reads what follows a backslash.
func (p *parser) escape() (r rune, ok bool) {
	if p.at == len(p.b) {
		return 0, false
	}
	c := p.b[p.at]
	p.at++
	switch c {
	case '"', '\\', '/':
		return rune(c), true
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	case 'n':
		return '\n', true
	case 'r':
		return '\r', true
	case 't':
		return '\t', true
	case 'u':
		r, ok = p.hex()
		if !ok || !utf16.IsSurrogate(r) {
			return r, ok
		}
		if p.at+2 > len(p.b) || p.b[p.at] != '\\' || p.b[p.at+1] != 'u' {
			return 0, false
		}
		p.at += 2
		low, ok := p.hex()
		r = utf16.DecodeRune(r, low)
		return r, ok && r != utf8.RuneError
	}
	return 0, false
}

// hex reads four hexadecimal digits.
func (p *parser) hex() (rune, bool) {
	if p.at+4 > len(p.b) {
		return 0, false
	}
	var r rune
	for _, c := range p.b[p.at : p.at+4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	p.at += 4
	return r, true
}

// appendString appends s as the reference writer (serde_json) quotes it: only
// what JSON demands is escaped. encoding/json escapes U+2028 and U+2029 too.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, `\b`...)
		case '\f':
			b = append(b, `\f`...)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		default:
			if c < ' ' {
				const digits = "0123456789abcdef"
				b = append(b, `\u00`...)
				b = append(b, digits[c>>4], digits[c&15])
			} else {
				b = append(b, c)
			}
		}
	}
	return append(b, '"')
}
