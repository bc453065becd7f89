// Package mixing says who counts with what weight when nodes mix their
// parameters, and does the sum so that every machine gets the same bits.
package mixing

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
)

// Bounds of a [Sum]: with parameters below 2^30, weights of 2^32 in total and 64
// fractional bits, a sum stays below 2^126.
const (
	MaxParameter = 1 << 30 // largest magnitude of a parameter
	MaxWeight    = 1 << 32 // largest total weight
	fraction     = 64      // fractional bits of a fixed-point parameter
)

// Errors of [Sum.Add].
var (
	ErrShape  = errors.New("vector has another length than the sum")
	ErrRange  = errors.New("parameter is not finite or too large")
	ErrWeight = errors.New("weight is zero or the total too large")
)

// Sum is the exact weighted sum of parameter vectors: each parameter is rounded
// once to a multiple of 2^-64, and then added as a 128-bit integer. The sum is
// therefore the same in any order and on any machine.
type Sum struct {
	hi     []int64
	lo     []uint64
	weight uint64
}

// NewSum returns an empty sum of vectors with n parameters.
func NewSum(n int) *Sum { return &Sum{hi: make([]int64, n), lo: make([]uint64, n)} }

// Weight is the total weight added so far.
func (s *Sum) Weight() uint64 { return s.weight }

// Add adds weight times v. On an error the sum is unchanged.
func (s *Sum) Add(weight uint64, v []float64) error {
	if len(v) != len(s.hi) {
		return fmt.Errorf("%w: %d parameters, not %d", ErrShape, len(v), len(s.hi))
	}
	if weight == 0 || weight > MaxWeight-s.weight {
		return fmt.Errorf("%w: %d", ErrWeight, weight)
	}
	for i, x := range v {
		if !(math.Abs(x) < MaxParameter) { // written so that NaN fails too
			return fmt.Errorf("%w: parameter %d is %g", ErrRange, i, x)
		}
	}
	s.weight += weight
	for i, x := range v {
		qhi, qlo := fixed(math.Abs(x))
		hi, lo := bits.Mul64(qlo, weight)
		hi += qhi * weight
		if x < 0 {
			var borrow uint64
			lo, borrow = bits.Sub64(0, lo, 0)
			hi, _ = bits.Sub64(0, hi, borrow)
		}
		var carry uint64
		s.lo[i], carry = bits.Add64(s.lo[i], lo, 0)
		h, _ := bits.Add64(uint64(s.hi[i]), hi, carry)
		s.hi[i] = int64(h)
	}
	return nil
}

// fixed returns round(x * 2^64), ties to even, for 0 <= x < MaxParameter.
func fixed(x float64) (hi, lo uint64) {
	b := math.Float64bits(x)
	exponent := int(b >> 52)
	mantissa := b & (1<<52 - 1)
	if exponent == 0 {
		return 0, 0 // subnormal: below 2^-1022
	}
	mantissa |= 1 << 52
	shift := exponent - 1075 + fraction // x = mantissa * 2^(exponent-1075)
	switch {
	case shift >= 64: // not reached below MaxParameter
		return mantissa << (shift - 64), 0
	case shift > 0:
		return mantissa >> (64 - shift), mantissa << shift
	case shift == 0:
		return 0, mantissa
	case shift < -54:
		return 0, 0
	}
	drop := uint(-shift)
	q, rest, half := mantissa>>drop, mantissa&(1<<drop-1), uint64(1)<<(drop-1)
	if rest > half || rest == half && q&1 == 1 {
		q++
	}
	return 0, q
}

// Mean returns the sum over its total weight, each parameter rounded once to
// the nearest float64, ties to even. It returns nil for an empty sum.
func (s *Sum) Mean() []float64 {
	if s.weight == 0 {
		return nil
	}
	mean := make([]float64, len(s.hi))
	for i := range mean {
		mean[i] = quotient(s.hi[i], s.lo[i], s.weight)
	}
	return mean
}

// quotient returns (hi:lo) * 2^-64 / weight as the nearest float64.
func quotient(hi int64, lo, weight uint64) float64 {
	negative := hi < 0
	h := uint64(hi)
	if negative {
		var borrow uint64
		lo, borrow = bits.Sub64(0, lo, 0)
		h, _ = bits.Sub64(0, h, borrow)
	}
	// Long division to 128 bits beyond the fixed point, so that the smallest
	// mean, 2^-96, still has all its digits. w[0] is the integer part.
	var w [4]uint64
	var r uint64
	w[0], r = h/weight, h%weight
	w[1], r = bits.Div64(r, lo, weight)
	w[2], r = bits.Div64(r, 0, weight)
	w[3], r = bits.Div64(r, 0, weight)
	// The 64 bits from the leading one on, and whether anything is below them.
	word := 0
	for word < 3 && w[word] == 0 {
		word++
	}
	top := w[word]
	if top == 0 {
		return 0
	}
	lead := bits.LeadingZeros64(top)
	exponent := -64*word - lead // of the window's lowest bit
	sticky := r != 0
	top <<= lead
	for i := word + 1; i < len(w); i++ {
		if i == word+1 {
			top |= w[i] >> (64 - lead) // a shift by 64 gives 0
			sticky = sticky || w[i]<<lead != 0
		} else {
			sticky = sticky || w[i] != 0
		}
	}
	m, rest := top>>11, top&(1<<11-1)
	const half = 1 << 10
	if rest > half || rest == half && (sticky || m&1 == 1) {
		m++
	}
	x := math.Ldexp(float64(m), exponent+11)
	if negative {
		return -x
	}
	return x
}
