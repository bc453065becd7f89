package chart

import (
	"math"
	"strconv"
	"strings"
)

// The units are decimal: 1 kB is 1,000 bytes.
var byteUnits = []unit{{1e15, "PB"}, {1e12, "TB"}, {1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}, {1, "B"}}

var timeUnits = []unit{{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}, {1e-3, "ms"}}

type unit struct {
	size float64
	name string
}

// unitFor is the largest one that fits into v, else the smallest.
func unitFor(units []unit, v float64) unit {
	for _, u := range units {
		if v >= u.size {
			return u
		}
	}
	return units[len(units)-1]
}

// inUnitOf writes a mean and its deviation in the mean's unit.
func (s Stat) inUnitOf(units []unit) string {
	if s.N == 0 {
		return "–"
	}
	u := unitFor(units, s.Mean)
	return s.Format(func(v float64) string { return digits(v / u.size) }) + " " + u.name
}

// Bytes writes a mean of bytes and its deviation in the mean's unit.
func (s Stat) Bytes() string { return s.inUnitOf(byteUnits) }

// Seconds writes a mean of seconds and its deviation in the mean's unit.
func (s Stat) Seconds() string { return s.inUnitOf(timeUnits) }

// digits writes a number with three digits that count, or all before the point.
func digits(v float64) string {
	switch a := math.Abs(v); {
	case a == 0 || a >= 100:
		return count(v)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// count writes a whole number with commas.
func count(v float64) string {
	s := strconv.FormatFloat(math.Abs(v), 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if v < 0 && strings.Trim(s, "0,") != "" {
		s = "−" + s
	}
	return s
}

// Ratio writes an accuracy and the like with three digits after the point.
func Ratio(v float64) string {
	if math.Abs(v) >= 1000 { // R² of a model that is nowhere near
		return Quantity(v)
	}
	return minus(strconv.FormatFloat(v, 'f', 3, 64))
}

// Quantity writes a number with a unit, in four digits that count.
func Quantity(v float64) string { return QuantityBeside(v)(v) }

// QuantityBeside writes numbers with as many digits after the point as the one
// that they stand beside.
func QuantityBeside(beside float64) func(float64) string {
	a := math.Abs(beside)
	if a != 0 && (a < 1e-3 || a >= 1e6) {
		return func(v float64) string { return minus(strconv.FormatFloat(v, 'g', 4, 64)) }
	}
	decimals := 3
	if a >= 1 {
		decimals = max(0, decimals-int(math.Log10(a)))
	}
	return func(v float64) string { return minus(strconv.FormatFloat(v, 'f', decimals, 64)) }
}

// span joins the ends of an interval. A dash between numbers of which one has a
// sign would be read as another sign.
func span(from, to string) string {
	if strings.ContainsAny(from+to, "−+") {
		return from + " to " + to
	}
	return from + "–" + to
}

// minus replaces the hyphen that stands for a sign.
func minus(s string) string {
	if strings.HasPrefix(s, "-") {
		return "−" + s[1:]
	}
	return s
}

// signed writes a difference of accuracies in percentage points.
func signed(v float64) string { return sign(strconv.FormatFloat(math.Abs(100*v), 'f', 1, 64), v) }

// sign puts that of v before what is written of its size, unless that is zero.
func sign(s string, v float64) string {
	switch {
	case strings.Trim(s, "0.") == "":
		return s
	case v < 0:
		return "−" + s
	}
	return "+" + s
}

// power writes a number that may be very small; 0 is exact.
func power(v float64) string {
	switch a := math.Abs(v); {
	case a == 0:
		return "0"
	case a >= 0.001 && a < 1000:
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	s := strconv.FormatFloat(v, 'e', 1, 64)
	return strings.NewReplacer("e-0", "e-", "e+0", "e+").Replace(s)
}
