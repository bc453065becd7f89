package dataset

import (
	"slices"
	"strconv"
	"strings"
)

const (
	// maxDigits is the most significant digits that a number may have.
	maxDigits = 40
	// A number is below 10^maxPoint, so that sums of squares stay finite, and
	// its first digit stands at most -minPoint places behind the point.
	maxPoint, minPoint = 100, -400
)

// canonical returns the one spelling of a cell, which depends on that cell
// alone: of a decimal number the shortest ("1.0", "+1" and "1e0" are "1"), of
// anything else the cell itself ("01" is a code).
func canonical(cell string) string {
	if text, ok := decimal(cell); ok {
		return text
	}
	return cell
}

// number returns the value of a decimal number.
func number(cell string) (float64, bool) {
	if _, ok := decimal(cell); !ok {
		return 0, false
	}
	v, err := strconv.ParseFloat(cell, 64)
	return v, err == nil
}

// decimal reads a decimal number, sign, fraction and exponent optional, and
// returns its canonical spelling. No digit is lost, so that long codes stay
// apart. A superfluous leading zero makes a code, not a number.
func decimal(cell string) (text string, ok bool) {
	rest, sign := cell, ""
	if rest != "" && (rest[0] == '+' || rest[0] == '-') {
		if rest[0] == '-' {
			sign = "-"
		}
		rest = rest[1:]
	}
	whole, rest := leadingDigits(rest)
	fraction, pointed := "", false
	if rest != "" && rest[0] == '.' {
		pointed = true
		fraction, rest = leadingDigits(rest[1:])
	}
	if whole == "" && fraction == "" || len(whole) > 1 && whole[0] == '0' {
		return "", false
	}
	if rest == "" && plain(cell[0] == '+', sign, whole, fraction, pointed) {
		return cell, true
	}
	exponent := 0
	if rest != "" {
		if rest[0] != 'e' && rest[0] != 'E' || len(rest) > 8 {
			return "", false
		}
		digits := rest[1:]
		if digits != "" && (digits[0] == '+' || digits[0] == '-') {
			digits = digits[1:]
		}
		if d, end := leadingDigits(digits); d == "" || end != "" {
			return "", false
		}
		exponent, _ = strconv.Atoi(rest[1:])
	}

	// The number is 0.digits * 10^point.
	digits, point := whole+fraction, len(whole)+exponent
	trimmed := strings.TrimLeft(digits, "0")
	point -= len(digits) - len(trimmed)
	digits = strings.TrimRight(trimmed, "0")
	switch {
	case digits == "":
		return "0", true
	case len(digits) > maxDigits || point > maxPoint || point < minPoint:
		return "", false
	case point > 21 || point <= -6:
		text = digits[:1]
		if len(digits) > 1 {
			text += "." + digits[1:]
		}
		text += "e" + strconv.Itoa(point-1)
	case point <= 0:
		text = "0." + strings.Repeat("0", -point) + digits
	case point < len(digits):
		text = digits[:point] + "." + digits[point:]
	default:
		text = digits + strings.Repeat("0", point-len(digits))
	}
	return sign + text, true
}

// plain says, without building anything, that most numbers are canonical as
// they stand. It may miss some, which then come out the same the long way.
func plain(plus bool, sign, whole, fraction string, pointed bool) bool {
	switch {
	case plus || whole == "" || len(whole)+len(fraction) > 20:
		return false
	case !pointed:
		return whole != "0" || sign == ""
	case fraction == "" || fraction[len(fraction)-1] == '0':
		return false
	}
	return whole != "0" || fraction[0] != '0'
}

func leadingDigits(s string) (digits, rest string) {
	i := 0
	for i < len(s) && '0' <= s[i] && s[i] <= '9' {
		i++
	}
	return s[:i], s[i:]
}

// sortLevels sorts levels by value when all are numbers, else by their bytes.
func sortLevels(levels []string) {
	slices.Sort(levels)
	values := make(map[string]float64, len(levels))
	for _, level := range levels {
		v, ok := number(level)
		if !ok {
			return
		}
		values[level] = v
	}
	slices.SortStableFunc(levels, func(a, b string) int {
		switch {
		case values[a] < values[b]:
			return -1
		case values[a] > values[b]:
			return 1
		}
		return 0
	})
}
