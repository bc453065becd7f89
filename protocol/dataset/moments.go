package dataset

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// maxCount is the largest count of rows that moments may have.
const maxCount = 1 << 40

// The arithmetic here gives the same bits on every machine: an explicit
// conversion around each product keeps the compiler from fusing it with a sum.

// MomentsOf returns the moments of each column of s, in two passes.
func MomentsOf(s Samples) Moments {
	m := Moments{Count: uint64(s.N), Mean: make([]float64, s.D), M2: make([]float64, s.D)}
	if s.N == 0 {
		return m
	}
	n := float64(s.N)
	sum := make([]float64, s.D)
	first := s.X[:s.D] // as origin it makes the mean of a constant column exact
	for i := range s.N {
		for j, x := range s.X[i*s.D : (i+1)*s.D] {
			sum[j] += x - first[j]
		}
	}
	for j := range sum {
		m.Mean[j] = first[j] + sum[j]/n
		sum[j] = 0
	}
	for i := range s.N {
		for j, x := range s.X[i*s.D : (i+1)*s.D] {
			d := x - m.Mean[j]
			sum[j] += d
			m.M2[j] += float64(d * d)
		}
	}
	for j := range sum {
		m.Mean[j] += sum[j] / n // what rounding took from it
	}
	return m
}

// Check refuses moments that no rows of width columns can have.
func (m Moments) Check(width int) error {
	if m.Count == 0 || m.Count > maxCount {
		return fmt.Errorf("moments of %d rows; 1 to %d are allowed", m.Count, uint64(maxCount))
	}
	if len(m.Mean) != width || len(m.M2) != width {
		return fmt.Errorf("moments of %d means and %d deviations for %d columns", len(m.Mean), len(m.M2), width)
	}
	for j := range width {
		if math.IsNaN(m.Mean[j]) || math.IsInf(m.Mean[j], 0) {
			return fmt.Errorf("the mean of encoded column %d is not finite", j+1)
		}
		if !(m.M2[j] >= 0) || math.IsInf(m.M2[j], 0) {
			return fmt.Errorf("the squared deviations of encoded column %d are negative or not finite", j+1)
		}
	}
	return nil
}

// Merge returns the moments of all rows of the parts together, by the pairwise
// update of Chan, Golub and LeVeque in the order given: the same order gives
// the same bits.
func Merge(parts []Moments) (Moments, error) {
	if len(parts) == 0 {
		return Moments{}, errors.New("there are no moments to merge")
	}
	width := len(parts[0].Mean)
	all := Moments{Count: parts[0].Count, Mean: slices.Clone(parts[0].Mean), M2: slices.Clone(parts[0].M2)}
	if err := all.Check(width); err != nil {
		return Moments{}, fmt.Errorf("part 1: %w", err)
	}
	for i, p := range parts[1:] {
		if err := p.Check(width); err != nil {
			return Moments{}, fmt.Errorf("part %d: %w", i+2, err)
		}
		before := float64(all.Count)
		all.Count += p.Count
		share := float64(p.Count) / float64(all.Count)
		for j := range width {
			d := p.Mean[j] - all.Mean[j]
			all.Mean[j] += float64(d * share)
			all.M2[j] += p.M2[j] + float64(float64(d*d)*float64(before*share))
		}
		if err := all.Check(width); err != nil {
			return Moments{}, fmt.Errorf("parts 1 to %d together: %w", i+2, err)
		}
	}
	return all, nil
}

// Scaling returns the scaling to mean 0 and population standard deviation 1. A
// constant column is only centred.
func (m Moments) Scaling() Scaling {
	s := Scaling{Mean: slices.Clone(m.Mean), SD: make([]float64, len(m.Mean))}
	for j := range s.SD {
		s.SD[j] = math.Sqrt(m.M2[j] / float64(m.Count))
		if s.SD[j] == 0 {
			s.SD[j] = 1
		}
	}
	return s
}

// Apply scales x in place. It must have the columns that s was made for.
func (s Scaling) Apply(x Samples) {
	for i := range x.N {
		row := x.X[i*x.D : (i+1)*x.D]
		for j := range row {
			row[j] = (row[j] - s.Mean[j]) / s.SD[j]
		}
	}
}
