package figure

import (
	"math"
	"strconv"
	"strings"
)

// Show writes a figure in a format, or [None] where it is undefined.
func Show(x *float64, format func(float64) string) string {
	if !Finite(x) {
		return None
	}
	return format(*x)
}

// Ratio writes an accuracy and the like with three digits after the point.
func Ratio(x float64) string {
	if math.Abs(x) >= 1000 { // R² of a model that is nowhere near
		return Quantity(x)
	}
	return fixed(x, 3)
}

// Quantity writes a number with a unit, in four digits that count.
func Quantity(x float64) string { return QuantityBeside(x)(x) }

// QuantityBeside writes numbers with as many digits after the point as the one
// that they stand beside.
func QuantityBeside(x float64) func(float64) string {
	a := math.Abs(x)
	if a != 0 && (a < 1e-3 || a >= 1e6) {
		return func(v float64) string { return minus(strconv.FormatFloat(v, 'g', 4, 64)) }
	}
	decimals := 3
	if a >= 1 {
		decimals = max(0, decimals-int(math.Log10(a)))
	}
	return func(v float64) string { return fixed(v, decimals) }
}

// Setting writes a number that somebody has chosen, such as a learning rate, as a
// flag takes it.
func Setting(x float64) string {
	return Show(&x, func(x float64) string { return strconv.FormatFloat(x, 'g', 4, 64) })
}

// Percent writes a share in percent, without the sign.
func Percent(share float64) string { return fixed(100*share, 1) }

// Points writes a difference of shares in percentage points, with its sign.
func Points(x float64) string { return Signed(Percent(x)) }

// Signed puts a sign before a formatted number that is not zero.
func Signed(s string) string {
	s = minus(s)
	switch {
	case strings.Trim(s, "−0.") == "":
		return strings.TrimPrefix(s, "−")
	case strings.HasPrefix(s, "−"):
		return s
	}
	return "+" + s
}

// SignDirection tells of a gain, as [Signed] has written it, whether it is one:
// up, down, or "".
func SignDirection(signed string) string {
	switch {
	case strings.HasPrefix(signed, "+"):
		return "up"
	case strings.HasPrefix(signed, "−"):
		return "down"
	}
	return ""
}

// Span joins the ends of an interval. A dash between numbers with a sign would be
// read as another sign.
func Span(from, to string) string {
	if strings.ContainsAny(from+to, "−+-") {
		return from + " to " + to
	}
	return from + "–" + to
}

// Count writes a whole number with commas.
func Count[T int | uint64 | float64](n T) string {
	s := strconv.FormatFloat(math.Abs(float64(n)), 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if n < 0 && s != "0" {
		s = "−" + s
	}
	return s
}

// Plural counts things.
func Plural[T int | uint64](n T, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return Count(n) + " " + thing + "s"
}

// Title begins a name with a capital letter.
func Title(name string) string { return strings.ToUpper(name[:1]) + name[1:] }

// Digits writes a number with three digits that count, or all before the point.
func Digits(x float64) string {
	switch a := math.Abs(x); {
	case a == 0 || a >= 99.95:
		return Count(x)
	case a >= 9.995:
		return fixed(x, 1)
	}
	return fixed(x, 2)
}

// Power writes a number that may be very small; 0 is exact.
func Power(x float64) string {
	switch a := math.Abs(x); {
	case a == 0:
		return "0"
	case a >= 0.001 && a < 1000:
		return strconv.FormatFloat(x, 'g', 3, 64)
	}
	return strings.NewReplacer("e-0", "e-", "e+0", "e+").Replace(strconv.FormatFloat(x, 'e', 1, 64))
}

// Unit is one of a list, from the largest to the smallest.
type Unit struct {
	Size float64
	Name string
}

// The units of sizes are decimal, as those of traffic are: 1 kB is 1,000 bytes.
var (
	ByteUnits = []Unit{{1e15, "PB"}, {1e12, "TB"}, {1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}, {1, "B"}}
	TimeUnits = []Unit{{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}, {1e-3, "ms"}}
)

// UnitFor is the largest unit that fits into x, rounded to three digits, else the
// smallest.
func UnitFor(units []Unit, x float64) Unit {
	for _, u := range units {
		if x >= 0.9995*u.Size {
			return u
		}
	}
	return units[len(units)-1]
}

// Bytes writes a size.
func Bytes(n uint64) string {
	u := UnitFor(ByteUnits, float64(n))
	if u.Size == 1 {
		return Count(n) + " " + u.Name
	}
	return Digits(float64(n)/u.Size) + " " + u.Name
}

// fixed writes a number with so many digits after the point.
func fixed(x float64, decimals int) string { return minus(strconv.FormatFloat(x, 'f', decimals, 64)) }

// minus replaces the hyphen that stands for a sign.
func minus(s string) string {
	if strings.HasPrefix(s, "-") {
		return "−" + s[1:]
	}
	return s
}
