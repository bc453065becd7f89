package dataset

import (
	"math/big"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestCanonical(t *testing.T) {
	for _, c := range []struct{ cell, want string }{
		{"1", "1"}, {"1.0", "1"}, {"1e0", "1"}, {"+1", "1"}, {"1.", "1"}, {"10E-1", "1"}, {".5", "0.5"}, {"-.50", "-0.5"},
		{"0", "0"}, {"-0", "0"}, {"0.000", "0"}, {"0e9999", "0"}, {"-1.50", "-1.5"}, {"120", "120"}, {"1.2e2", "120"},
		{"0.000001", "0.000001"}, {"0.0000001", "1e-7"}, {"1e22", "1e22"}, {"1e20", "100000000000000000000"},
		{"12345678901234567890.5", "12345678901234567890.5"}, {"1e-400", "1e-400"},
	} {
		if got, ok := decimal(c.cell); got != c.want || !ok {
			t.Errorf("decimal(%q) = %q, %v, want %q", c.cell, got, ok, c.want)
		}
	}
	for _, cell := range []string{
		"", "+", "-", ".", "e1", "1e", "1e+", "01", "-01", "00", "00.5", "0x10", "1_000", "inf", "-Inf", "nan", "1,5", "1 ", " 1",
		"1e101", "1e-999", "1e99999999", "1e309", "--1", "1.2.3", "1e1.5", "١", strings.Repeat("9", 41),
	} {
		if text, ok := decimal(cell); ok {
			t.Errorf("decimal(%q) = %q, want a text cell", cell, text)
		}
		if got := canonical(cell); got != cell {
			t.Errorf("canonical(%q) = %q, want the cell itself", cell, got)
		}
	}
}

// Two numbers have one spelling exactly when they are the same rational number,
// and the spelling is its own and has the same value.
func TestCanonicalIsExact(t *testing.T) {
	spelling := rapid.StringMatching(`[+-]?(0|[1-9][0-9]{0,12})?(\.[0-9]{0,12})?([eE][+-]?[0-9]{1,2})?`).Filter(func(s string) bool {
		_, ok := decimal(s)
		return ok
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := spelling.Draw(t, "a"), spelling.Draw(t, "b")
		if rapid.Bool().Draw(t, "related") {
			// The same digits, the point moved and the exponent with it.
			b = strings.Replace(a, ".", "", 1)
		}
		x, okA := new(big.Rat).SetString(a)
		y, okB := new(big.Rat).SetString(b)
		if _, ok := decimal(b); !okA || !okB || !ok {
			t.Skip()
		}
		ca, cb := canonical(a), canonical(b)
		if (ca == cb) != (x.Cmp(y) == 0) {
			t.Fatalf("%q -> %q and %q -> %q, but the numbers compare %d", a, ca, b, cb, x.Cmp(y))
		}
		if canonical(ca) != ca {
			t.Fatalf("canonical(%q) = %q, not its own spelling", ca, canonical(ca))
		}
		before, _ := number(a)
		after, ok := number(ca)
		if !ok || before != after {
			t.Fatalf("%q is %v, %q is %v", a, before, ca, after)
		}
	})
}

func TestSortLevels(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"10 9 -1 2.5", "-1 2.5 9 10"},
		{"10 9 a", "10 9 a"},
		{"yes no", "no yes"},
		{"02 10 9", "02 10 9"}, // a code among them: bytewise
	} {
		got := strings.Fields(c.in)
		sortLevels(got)
		if !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("sortLevels(%s) = %v, want %s", c.in, got, c.want)
		}
	}
}
