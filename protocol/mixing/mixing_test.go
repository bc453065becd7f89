package mixing

import (
	"errors"
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

// reference is the definition, in arbitrary precision: round each parameter to
// a multiple of 2^-64, add, divide, round once.
func reference(weights []uint64, values []float64) float64 {
	sum, total := new(big.Int), new(big.Int)
	for i, v := range values {
		f := new(big.Float).SetPrec(2000).SetFloat64(v)
		f.SetMantExp(f, 64)
		// To the nearest integer, ties to even.
		q, _ := new(big.Float).SetPrec(2000).Add(f, big.NewFloat(0)).Int(nil)
		rest := new(big.Float).SetPrec(2000).Sub(f, new(big.Float).SetPrec(2000).SetInt(q))
		c := new(big.Float).Abs(rest).Cmp(big.NewFloat(.5))
		if c > 0 || c == 0 && q.Bit(0) == 1 {
			q.Add(q, big.NewInt(int64(rest.Sign())))
		}
		n := new(big.Int).SetUint64(weights[i])
		sum.Add(sum, q.Mul(q, n))
		total.Add(total, n)
	}
	x, _ := new(big.Rat).SetFrac(sum, total.Lsh(total, 64)).Float64()
	return x
}

func TestMeanIsTheExactMeanRoundedOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "n")
		weights := make([]uint64, n)
		values := make([]float64, n)
		s := NewSum(1)
		for i := range n {
			weights[i] = rapid.Uint64Range(1, 1<<28).Draw(t, "weight")
			scale := rapid.IntRange(-70, 29).Draw(t, "scale")
			values[i] = math.Ldexp(rapid.Float64Range(-1, 1).Draw(t, "value"), scale)
			if err := s.Add(weights[i], values[i:i+1]); err != nil {
				t.Fatal(err)
			}
		}
		got, want := s.Mean()[0], reference(weights, values)
		if got != want {
			t.Fatalf("mean %g (%x), want %g (%x)", got, math.Float64bits(got), want, math.Float64bits(want))
		}
	})
}

// Halves of 2^-64 round to the even neighbour, so that the errors of many
// parameters do not add up to one side. Chance never draws one.
func TestHalvesRoundToEven(t *testing.T) {
	const half = 0x1p-65
	for halves, want := range map[float64]uint64{0: 0, 1: 0, 2: 1, 3: 2, 5: 2, 7: 4, 9: 4, 1 + 0x1p-40: 1, 3 - 0x1p-40: 1, 5 + 0x1p-40: 3, 7 - 0x1p-40: 3} {
		if hi, lo := fixed(halves * half); hi != 0 || lo != want {
			t.Errorf("%g halves are %d and %d, want %d", halves, hi, lo, want)
		}
		s := NewSum(2)
		if err := s.Add(1, []float64{halves * half, -halves * half}); err != nil {
			t.Fatal(err)
		}
		if mean := s.Mean(); mean[0] != math.Ldexp(float64(want), -64) || mean[1] != -mean[0] {
			t.Errorf("mean %g of %g halves, want %d steps", mean, halves, want)
		}
	}
}

// A mean is rounded once, ties to even, whatever bits are below: half of a float's
// last place exactly, a little more or less, and little that stands far below.
func TestMeansRoundToEven(t *testing.T) {
	for _, m := range []uint64{1 << 52, 1<<52 + 1, 1<<52 + 2, 1<<53 - 2, 1<<53 - 1, 0x1abcdef1234567, 0x1abcdef1234568} {
		for _, weight := range []uint64{1, 2, 3, 7, 10, 1<<31 - 1, MaxWeight - 1, MaxWeight} {
			for shift := range uint(40) {
				n := new(big.Int).SetUint64(2*m + 1) // halfway between m and m+1
				n.Lsh(n, shift).Mul(n, new(big.Int).SetUint64(weight))
				for _, delta := range []int64{-1, 0, 1} {
					for _, sign := range []int64{1, -1} {
						sum := new(big.Int).Add(n, big.NewInt(delta))
						if sum.BitLen() > 126 {
							continue
						}
						sum.Mul(sum, big.NewInt(sign))
						two := new(big.Int).And(sum, new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 128), big.NewInt(1)))
						lo := new(big.Int).And(two, new(big.Int).SetUint64(math.MaxUint64)).Uint64()
						hi := int64(new(big.Int).Rsh(two, 64).Uint64())
						want, _ := new(big.Rat).SetFrac(sum, new(big.Int).Lsh(new(big.Int).SetUint64(weight), 64)).Float64()
						if got := quotient(hi, lo, weight); got != want {
							t.Fatalf("%v / 2^64 / %d is %x, want %x", sum, weight, math.Float64bits(got), math.Float64bits(want))
						}
					}
				}
			}
		}
	}
	// The largest total weight is taken, and small sums keep all their digits.
	s := NewSum(1)
	if err := errors.Join(s.Add(MaxWeight-1, []float64{0}), s.Add(1, []float64{0x1p-64})); err != nil {
		t.Fatal(err)
	}
	if got := s.Mean()[0]; got != 0x1p-96 {
		t.Errorf("mean %g", got)
	}
	for _, weight := range []uint64{3, 5, 7, 11, 3_000_000_019, 4_000_000_007, 1<<32 - 5} {
		for lo := range uint64(300) {
			want, _ := new(big.Rat).SetFrac(new(big.Int).SetUint64(lo), new(big.Int).Lsh(new(big.Int).SetUint64(weight), 64)).Float64()
			if got := quotient(0, lo, weight); got != want {
				t.Fatalf("%d / 2^64 / %d is %g, want %g", lo, weight, got, want)
			}
		}
	}
}

func TestMeanDoesNotDependOnOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 8).Draw(t, "n")
		vectors := make([][]float64, n)
		for i := range vectors {
			vectors[i] = rapid.SliceOfN(rapid.Float64Range(-1e6, 1e6), 3, 3).Draw(t, "v")
		}
		forward, backward := NewSum(3), NewSum(3)
		for i := range n {
			if err := errors.Join(forward.Add(uint64(i+1), vectors[i]), backward.Add(uint64(n-i), vectors[n-1-i])); err != nil {
				t.Fatal(err)
			}
		}
		a, b := forward.Mean(), backward.Mean()
		for i := range a {
			if a[i] != b[i] {
				t.Fatalf("parameter %d: %g forward, %g backward", i, a[i], b[i])
			}
		}
	})
}

func TestMeanOfOneIsItself(t *testing.T) {
	v := []float64{0, 1, -1, 1.0 / 3, -math.Pi, 1e-9, 1<<30 - 1, math.Ldexp(1, -64)}
	s := NewSum(len(v))
	if err := s.Add(7, v); err != nil {
		t.Fatal(err)
	}
	for i, x := range s.Mean() {
		if math.Abs(x-v[i]) > math.Ldexp(1, -65) {
			t.Errorf("parameter %d: %g, want %g", i, x, v[i])
		}
	}
}

func TestAddRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		weight uint64
		v      []float64
		want   error
	}{
		"NaN":             {1, []float64{0, math.NaN()}, ErrRange},
		"Inf":             {1, []float64{math.Inf(-1), 0}, ErrRange},
		"too large":       {1, []float64{0, MaxParameter}, ErrRange},
		"no weight":       {0, []float64{0, 0}, ErrWeight},
		"too much weight": {MaxWeight - 2, []float64{0, 0}, ErrWeight},
		"other length":    {1, []float64{0}, ErrShape},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewSum(2)
			if err := s.Add(3, []float64{1, 2}); err != nil {
				t.Fatal(err)
			}
			if err := s.Add(c.weight, c.v); !errors.Is(err, c.want) {
				t.Fatalf("error %v, want %v", err, c.want)
			}
			if m := s.Mean(); m[0] != 1 || m[1] != 2 || s.Weight() != 3 {
				t.Fatalf("the refused vector changed the sum: %v", m)
			}
		})
	}
}

// BenchmarkAdd compares the exact sum with a plain float64 one of the same
// vector, in the same run.
func BenchmarkAdd(b *testing.B) {
	v := make([]float64, 1<<16)
	for i := range v {
		v[i] = math.Sin(float64(i))
	}
	b.Run("exact", func(b *testing.B) {
		b.SetBytes(int64(8 * len(v)))
		s := NewSum(len(v))
		for range b.N {
			s.weight = 0
			if err := s.Add(199, v); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("plain", func(b *testing.B) {
		b.SetBytes(int64(8 * len(v)))
		sum := make([]float64, len(v))
		for range b.N {
			for i, x := range v {
				sum[i] += 199 * x
			}
		}
	})
}
