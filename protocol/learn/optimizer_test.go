package learn

import (
	"errors"
	"math"
	"slices"
	"testing"

	"village/protocol/dataset"
)

// One row x = 1 with target 0, so that the derivative by weight and bias is the
// score, weight + bias.
func TestOptimizersByHand(t *testing.T) {
	s := Spec{Kind: Linear, Inputs: 1}
	data := dataset.Samples{N: 1, D: 1, X: []float64{1}, T: []float64{0}}
	for name, c := range map[string]struct {
		training Training
		want     []float64 // of the weight after each step; the bias is the same
	}{
		"plain": {Training{Rate: .25}, []float64{.5, .25}},
		// m = 2, then .9·2 + 1 = 2.8
		"momentum": {Training{Rate: .25, Optimizer: Momentum}, []float64{.5, -.2}},
		// m/(1-.9) = 2, v/(1-.999) = 4: a step of rate·2/(2+1e-8); then the
		// gradient is 1.5: m = .9·.2+.1·1.5 = .33, over .19; v = .999·.004+.001·2.25
		// = .006246, over .001999.
		"adam": {Training{Rate: .25, Optimizer: Adam}, []float64{
			1 - .25*2/(2+1e-8), .75 - .25*(.33/.19)/math.Sqrt(.006246/.001999),
		}},
		// The second gradient is 1 and mu·(.5-1) = -1.
		"prox":  {Training{Rate: .25, Prox: 2}, []float64{.5, .5}},
		"shift": {Training{Rate: .25, Shift: []float64{-1, -1}}, []float64{.75, .625}},
	} {
		for i, want := range c.want {
			c.training.Steps = i + 1
			got, steps, err := s.Train([]float64{1, 1}, data, c.training)
			if err != nil || steps != i+1 || !near(got, []float64{want, want}, 1e-7) {
				t.Errorf("%s, step %d: %v, want %v (%d, %v)", name, i+1, got, want, steps, err)
			}
		}
	}
}

// A perceptron's optimizers are those of the regressions, in 32 bits.
func TestOptimizersOfAPerceptron(t *testing.T) {
	s := nets[1]
	data := numbers(s, 20, 1)
	start := started(s, 1)
	shift := make([]float64, len(start))
	for i := range shift {
		shift[i] = math.Sin(float64(i))
	}
	for _, o := range []Optimizer{SGD, Momentum, Adam} {
		training := Training{Steps: 5, Rate: .01, L2: .1, Optimizer: o, Prox: .5, Shift: shift}
		want := slices.Clone(start)
		d := newDescent(training, start, shift, new(moments[float64]))
		for range training.Steps {
			_, grad := textbook(s, want, data, training.L2)
			d.step(want, grad)
		}
		got, _, err := s.Train(start, data, training)
		if err != nil || !near(got, want, 1e-4) {
			t.Errorf("%q: %v\n%v, want\n%v", o, err, got, want)
		}
	}
}

// At a site's own optimum its gradient is 0. The shift that takes its gradient for
// that of the whole leads to the optimum of the whole, as SCAFFOLD has it.
func TestShiftLeadsToTheCommonOptimum(t *testing.T) {
	s := Spec{Kind: Linear, Inputs: 2}
	one, all := numbers(s, 30, 1), numbers(s, 30, 2)
	all.X, all.T, all.N = append(all.X, one.X...), append(all.T, one.T...), 60
	long := Training{Steps: 3000, Rate: .2, L2: .01}
	want, _, err := s.Train(make([]float64, 3), all, long)
	if err != nil {
		t.Fatal(err)
	}
	long.Shift = make([]float64, 3)
	s.Gradient(want, one, long.L2, long.Shift)
	for i := range long.Shift {
		long.Shift[i] *= -1
	}
	if got, _, err := s.Train([]float64{5, -5, 5}, one, long); err != nil || !near(got, want, 1e-9) {
		t.Errorf("%v, want %v (%v)", got, want, err)
	}
}

// A strong pull keeps the parameters near where they start, none lets them go.
func TestProxHolds(t *testing.T) {
	s := Spec{Kind: Logistic, Inputs: 4, Classes: 2}
	start, data := random(s, 50, 1, 3, 0)
	last := math.Inf(1)
	for _, mu := range []float64{0, .1, 1, 10} {
		got, _, err := s.Train(start, data, Training{Steps: 500, Rate: .05, L2: .5, Prox: mu})
		if err != nil {
			t.Fatal(err)
		}
		axpy(-1, start, got)
		distance := math.Sqrt(dot(got, got))
		if !(distance < last) || mu == 10 && distance > .25 {
			t.Errorf("mu %v: distance %v, with less pull %v", mu, distance, last)
		}
		last = distance
	}
}

func TestEnough(t *testing.T) {
	for _, s := range []Spec{specs[0], nets[0]} {
		data := numbers(s, 20, 1)
		calls := 0
		stop := func(end error) func() error {
			calls = 0
			return func() error {
				if calls++; calls == 3 {
					return end
				}
				return nil
			}
		}
		got, steps, err := s.Train(s.Init(1), data, Training{Steps: 10, Rate: .1, Progress: stop(ErrEnough)})
		want, all, _ := s.Train(s.Init(1), data, Training{Steps: 3, Rate: .1})
		if err != nil || steps != 3 || all != 3 || !slices.Equal(got, want) {
			t.Errorf("%v: %d steps, %v", s, steps, err)
		}
		other := errors.New("other")
		if got, _, err := s.Train(s.Init(1), data, Training{Steps: 10, Rate: .1, Progress: stop(other)}); got != nil || !errors.Is(err, other) || calls != 3 {
			t.Errorf("%v: another error: %v after %d", s, err, calls)
		}
	}
}
