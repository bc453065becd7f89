package figure

import (
	"math"
	"strconv"
)

// Steps are the round numbers from lo to hi, about n of them, and how many digits
// after the point they have.
func Steps(lo, hi, n float64) (at []float64, decimals int) {
	rough := (hi - lo) / n
	if !(rough > 0) || math.IsInf(rough, 0) {
		return []float64{lo}, 0
	}
	step := math.Pow(10, math.Floor(math.Log10(rough)))
	for _, f := range []float64{1, 2, 5, 10} {
		if f*step >= rough*0.999 {
			step *= f
			break
		}
	}
	decimals = max(0, -int(math.Floor(math.Log10(step)+1e-9)))
	for i := math.Ceil(lo/step - 1e-9); i*step <= hi+step*1e-9 && float64(len(at)) < 4*n; i++ {
		at = append(at, i*step) // the count ends where numbers are too large to tell steps apart
	}
	return at, decimals
}

// Tick writes the number at a tick.
func Tick(x float64, decimals int) string {
	switch {
	case math.Abs(x) >= 1e9 || decimals > 6:
		return minus(strconv.FormatFloat(x, 'g', 3, 64))
	case decimals == 0 || x == 0:
		return Count(x)
	}
	return fixed(x, decimals)
}

// Scale maps the numbers from Lo to Hi to lengths.
type Scale struct{ Lo, Hi, From, To float64 }

// At is the length at a number; what is beyond an end is at that end.
func (s Scale) At(x float64) float64 {
	x = min(max(x, s.Lo), s.Hi)
	return s.From + (x-s.Lo)/(s.Hi-s.Lo)*(s.To-s.From)
}

// Around is a scale that holds numbers with a little room, at least least.
func Around(values []float64, least float64, from, to float64) Scale {
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		lo, hi = min(lo, v), max(hi, v)
	}
	if lo > hi {
		lo, hi = 0, 0
	}
	pad := max(0.04*(hi-lo), least/2, 1e-6*max(math.Abs(lo), math.Abs(hi)))
	if pad == 0 {
		pad = 1
	}
	return Scale{lo - pad, hi + pad, from, to}
}

// Ticks are round numbers on a scale, about n of them, or fewer where their labels
// would touch, and how many digits after the point they have.
func (s Scale) Ticks(n int) (at []float64, decimals int) {
	for ; ; n-- {
		at, decimals = Steps(s.Lo, s.Hi, float64(n))
		touch := false
		for i := 1; i < len(at); i++ {
			touch = touch || s.At(at[i])-s.At(at[i-1]) < TextWidth("+"+Tick(at[i], decimals))
		}
		if !touch || n <= 2 {
			return at, decimals
		}
	}
}
