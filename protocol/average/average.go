// Package average takes the weighted mean of vectors that do not change while
// it is taken, without a coordinator.
// [Scatter] divides long vectors, so that each node sends less than two of them
// in all, and installs the mean only if every part of it is of the same
// contributions. It counts in integers (see [Shape]), which lose nothing to
// rounding when they are added, and whose sum is the same in any order.
package average

import (
	"errors"
	"fmt"
	"math"
	"math/bits"

	"village/protocol/mixing"
)

// Errors of this package. What comes from others is refused with them, and
// changes nothing.
var (
	ErrNode         = errors.New("no such node")
	ErrLength       = errors.New("vector has another length than was agreed")
	ErrBound        = errors.New("value is beyond the bounds that were agreed")
	ErrContributors = errors.New("parts of the mean are of different contributions")
)

// Shape is what all nodes must agree on before they start.
//
// Numbers are 64-bit integers with a fixed point. A weight n counts as n * 2^F
// and a parameter x as round(n * x/X * 2^F), where X is Bound, W is Weight, each
// rounded up to a power of two, and F = 62 - log2(W). A weighted parameter thus
// has 62 - log2(W*X) fractional bits, and nothing that is a sum of shares of
// contributions leaves the range of an int64. The mean is off by at most
// Nodes/2 units, X * 2^-F / Weight each, and by the rounding to a float64.
type Shape struct {
	Nodes  int     // how many take part; their places are 0 to Nodes-1
	Length int     // parameters of each vector
	Weight uint64  // largest total weight of all contributions
	Bound  float64 // largest magnitude of a parameter
}

// Bounds of a [Shape].
const (
	MaxLength = 1 << 30  // parameters of a vector
	maxBound  = 1 << 500 // far from where float64 ends, so that scaling is exact
)

// Check refuses a shape that cannot be.
func (s Shape) Check() error {
	switch {
	case s.Nodes < 1 || s.Nodes > mixing.MaxNodes:
		return fmt.Errorf("an averaging has from 1 to %d nodes, not %d", mixing.MaxNodes, s.Nodes)
	case s.Length < 1 || s.Length > MaxLength:
		return fmt.Errorf("a vector has from 1 to %d parameters, not %d", MaxLength, s.Length)
	case s.Weight < 1 || s.Weight > mixing.MaxWeight:
		return fmt.Errorf("the total weight is from 1 to %d, not %d", uint64(mixing.MaxWeight), s.Weight)
	case !(s.Bound >= 1/float64(maxBound) && s.Bound <= maxBound):
		return fmt.Errorf("the bound of a parameter is a number from 2^-500 to 2^500, not %g", s.Bound)
	}
	return nil
}

// Point is F.
func (s Shape) Point() int { return 62 - bits.Len64(s.Weight-1) }

// Limit is the largest total weight, at most 2^62.
func (s Shape) Limit() int64 { return int64(s.Weight << s.Point()) }

// exponent is log2(X).
func (s Shape) exponent() int {
	f, e := math.Frexp(s.Bound)
	if f == .5 {
		e--
	}
	return e
}

// Contribution returns the integers of a weight, at [0], and the vector.
func (s Shape) Contribution(weight uint64, x []float64) ([]int64, error) {
	if weight < 1 || weight > s.Weight {
		return nil, fmt.Errorf("%w: weight %d of at most %d", ErrBound, weight, s.Weight)
	}
	if len(x) != s.Length {
		return nil, fmt.Errorf("%w: %d parameters, not %d", ErrLength, len(x), s.Length)
	}
	q := make([]int64, 1+len(x))
	q[0] = int64(weight << s.Point())
	point, exponent := s.Point(), s.exponent()
	for i, v := range x {
		if !(math.Abs(v) <= s.Bound) { // written so that NaN fails too
			return nil, fmt.Errorf("%w: parameter %d is %g", ErrBound, i, v)
		}
		q[1+i] = int64(math.RoundToEven(math.Ldexp(float64(weight)*math.Ldexp(v, -exponent), point)))
	}
	return q, nil
}

// Divide returns the parameters of integer sums over an integer weight above 0.
func (s Shape) Divide(sums []int64, weight int64) []float64 {
	mean, exponent := make([]float64, len(sums)), s.exponent()
	for i, q := range sums {
		mean[i] = math.Ldexp(float64(q)/float64(weight), exponent)
	}
	return mean
}
