package learn

import (
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"village/protocol/mixing"
)

// outers are the rules that keep moments.
var outers = []Outer{Nesterov, OuterAdam, OuterYogi}

func TestOuterCheck(t *testing.T) {
	for _, o := range append([]Outer{Plain}, outers...) {
		if err := o.Check(); err != nil {
			t.Errorf("%s: %v", o, err)
		}
	}
	for _, o := range []Outer{"sgd", "Adam", " ", Outer(strings.Repeat("x", 1e6))} {
		if err := o.Check(); err == nil || !strings.Contains(err.Error(), "nesterov") || len(err.Error()) > 200 {
			t.Errorf("%.20s: %v", o, err)
		}
	}
}

// begun are the moments of n parameters before the first round.
func begun(o Outer, n int) [][]float64 {
	moments := make([][]float64, o.Moments())
	for j := range moments {
		moments[j] = slices.Repeat([]float64{o.Begin(j)}, n)
	}
	return moments
}

// Two rounds of each rule, worked out with paper and pencil: from 1 the nodes come
// to 1.5, and from where that leads to by 0.25 less.
func TestOuterStepsByHand(t *testing.T) {
	for _, c := range []struct {
		rule    Outer
		moments [][2]float64 // after each round
		starts  [2]float64   // of the rounds after
	}{
		// m = 0.9 m + d, x + 0.7 (0.9 m + d): Sutskever et al. 2013, as PyTorch has it.
		{Nesterov, [][2]float64{{0.5, 0}, {0.2, 0}}, [2]float64{1 + 0.7*(0.9*0.5+0.5), 1.665 + 0.7*(0.9*0.2-0.25)}},
		// m = 0.9 m + 0.1 d, v = 0.99 v + 0.01 d², x + 0.7 m/(√v + 0.001): Reddi et al. 2021, algorithm 2.
		{OuterAdam, [][2]float64{{0.05, 0.99*1e-6 + 0.01*0.25}, {0.045 - 0.025, 0.99*(0.99*1e-6+0.01*0.25) + 0.01*0.0625}}, [2]float64{
			1 + 0.7*0.05/(math.Sqrt(0.99*1e-6+0.01*0.25)+0.001),
			1 + 0.7*0.05/(math.Sqrt(0.99*1e-6+0.01*0.25)+0.001) + 0.7*0.02/(math.Sqrt(0.99*(0.99*1e-6+0.01*0.25)+0.01*0.0625)+0.001),
		}},
		// v grows by 0.01 d² where it is below d², else it shrinks by as much.
		{OuterYogi, [][2]float64{{0.05, 1e-6 + 0.0025}, {0.02, 1e-6 + 0.0025 + 0.000625}}, [2]float64{
			1 + 0.7*0.05/(math.Sqrt(0.002501)+0.001),
			1 + 0.7*0.05/(math.Sqrt(0.002501)+0.001) + 0.7*0.02/(math.Sqrt(0.003126)+0.001),
		}},
	} {
		moments, start := begun(c.rule, 1), []float64{1}
		for round, change := range []float64{0.5, -0.25} {
			params := []float64{start[0] + change}
			c.rule.Advance(0.7, params, start, moments)
			if d := params[0] - c.starts[round]; math.Abs(d) > 1e-14 {
				t.Errorf("%s: round %d sets out from %g, by hand %g", c.rule, round+2, params[0], c.starts[round])
			}
			for j := range moments {
				if d := moments[j][0] - c.moments[round][j]; math.Abs(d) > 1e-16 {
					t.Errorf("%s: moment %d is %g after round %d, by hand %g", c.rule, j+1, moments[j][0], round+1, c.moments[round][j])
				}
			}
			start = params
		}
	}
	// Yogi's second moment shrinks by 0.01 d², too, and rests where it is d².
	for v, want := range map[float64]float64{1: 1 - 0.01*0.25, 0.25: 0.25, 0: 0.01 * 0.25} {
		moments := [][]float64{{0}, {v}}
		if OuterYogi.Advance(0.1, []float64{1.5}, []float64{1}, moments); moments[1][0] != want {
			t.Errorf("from %g, Yogi's second moment comes to %g, by hand %g", v, moments[1][0], want)
		}
	}
}

// Where the nodes come to nothing new, the parameters stay, to the last bit.
func TestNoChangeKeepsTheParameters(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rule := rapid.SampledFrom(outers).Draw(t, "rule")
		start := rapid.SliceOfN(rapid.Float64Range(-1e9, 1e9), 1, 5).Draw(t, "start")
		params, moments := slices.Clone(start), begun(rule, len(start))
		for range 3 {
			rule.Advance(rapid.Float64Range(1e-6, 1e3).Draw(t, "rate"), params, start, moments)
		}
		if !slices.Equal(params, start) {
			t.Fatalf("%s: %v from %v", rule, params, start)
		}
	})
}

// Whatever the nodes come to within their bounds, the start of the next round is
// finite: a mean of second moments is never below 0 by more than it is rounded by.
func TestOuterStepsAreFinite(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rule := rapid.SampledFrom(outers).Draw(t, "rule")
		any := rapid.Float64Range(-mixing.MaxParameter, mixing.MaxParameter)
		params, start := []float64{any.Draw(t, "params")}, []float64{any.Draw(t, "start")}
		moments := [][]float64{{any.Draw(t, "first")}, {any.Draw(t, "second")}}[:rule.Moments()]
		rule.Advance(rapid.Float64Range(1e-6, 1e3).Draw(t, "rate"), params, start, moments)
		for _, x := range slices.Concat(append(moments, params)...) {
			if math.IsNaN(x) || math.IsInf(x, 0) {
				t.Fatalf("%s: %v, moments %v", rule, params, moments)
			}
		}
	})
}

// Nodes that average all that their vectors hold, and then each take the step, come
// to the same start as a server that is told the changes alone: FedAvgM with
// Nesterov's momentum, FedAdam and FedYogi.
func TestNodesThatMixAreOneServer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rule := rapid.SampledFrom(outers).Draw(t, "rule")
		rate := rapid.SampledFrom([]float64{0.01, 0.1, 0.7, 1}).Draw(t, "rate")
		n := rapid.IntRange(1, 3).Draw(t, "parameters")
		weights := rapid.SliceOfN(rapid.Uint64Range(1, 1000), 1, 6).Draw(t, "weights")
		total := 0.0
		for _, w := range weights {
			total += float64(w)
		}
		change := rapid.Float64Range(-1, 1)

		x, m, v := make([]float64, n), make([]float64, n), slices.Repeat([]float64{1e-6}, n) // the server's
		start, moments := make([]float64, n), begun(rule, n)                                 // every node's
		for round := range rapid.IntRange(1, 8).Draw(t, "rounds") {
			sums := []*mixing.Sum{mixing.NewSum(n), mixing.NewSum(n)} // of parameters, of starts
			for range moments {
				sums = append(sums, mixing.NewSum(n))
			}
			delta := make([]float64, n)
			for _, w := range weights {
				params := make([]float64, n)
				for i := range params {
					d := change.Draw(t, "change")
					params[i], delta[i] = start[i]+d, delta[i]+float64(w)/total*d
				}
				for i, part := range append([][]float64{params, start}, moments...) {
					if err := sums[i].Add(w, part); err != nil {
						t.Fatal(err)
					}
				}
			}
			next := sums[0].Mean()
			for j := range moments {
				moments[j] = sums[2+j].Mean()
			}
			rule.Advance(rate, next, sums[1].Mean(), moments)
			start = next

			for i, d := range delta {
				switch rule {
				case Nesterov:
					m[i] = 0.9*m[i] + d
					x[i] += rate * (0.9*m[i] + d)
					continue
				case OuterAdam:
					v[i] = 0.99*v[i] + 0.01*d*d
				case OuterYogi:
					sign := 0.0
					if v[i] > d*d {
						sign = 1
					} else if v[i] < d*d {
						sign = -1
					}
					v[i] -= 0.01 * d * d * sign
				}
				m[i] = 0.9*m[i] + 0.1*d
				x[i] += rate * m[i] / (math.Sqrt(v[i]) + 1e-3)
			}
			for i := range x {
				if math.Abs(start[i]-x[i]) > 1e-9*(1+math.Abs(x[i])) {
					t.Fatalf("%s: round %d sets out from %v, the server's from %v", rule, round+2, start, x)
				}
			}
		}
	})
}
