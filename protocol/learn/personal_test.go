package learn

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"village/protocol/dataset"
)

// every is a spec of each kind and target.
var every = slices.Concat(specs, nets, []Spec{{Kind: Linear, Inputs: 4}, {Kind: Softmax, Inputs: 40, Classes: 12}})

// The refitted part is a minimum, and nothing else has changed.
func TestFitIsAMinimum(t *testing.T) {
	for _, s := range every {
		for _, p := range []Part{NoPart, Bias, LastLayer} {
			params, data := started(s, 1), numbers(s, 60, 1)
			kept := slices.Clone(params)
			got, err := s.Fit(params, data, p, nil)
			if err != nil {
				t.Fatal(err)
			}
			from, to := s.Span(p)
			if !slices.Equal(params, kept) || from != to && (!slices.Equal(got[:from], params[:from]) || slices.Equal(got, params)) || p == NoPart && !slices.Equal(got, params) {
				t.Errorf("%v, part %q: what is not of the part was changed", s, p)
			}
			grad := make([]float64, len(params))
			if s.Kind == MLP {
				_, grad = textbook(s, got, data, 0)
			} else {
				s.Gradient(got, data, 0, grad)
			}
			tolerance := 2e-7
			if s.Kind == MLP { // the hidden layers' numbers have 32 bits
				tolerance = 1e-5
			}
			for i := from; i < to; i++ {
				if g := grad[i] + (got[i]-params[i])/60; math.Abs(g) > tolerance {
					t.Errorf("%v, part %q: derivative %v by parameter %d", s, p, g, i)
				}
			}
			again, err := s.Fit(params, data, p, nil)
			if err != nil || !slices.Equal(again, got) {
				t.Errorf("%v, part %q: another time another part", s, p)
			}
		}
	}
}

// A bias for each class, where the rows say nothing else: the prior is one row, so
// with many rows the probabilities are the frequencies.
func TestFitFindsTheFrequencies(t *testing.T) {
	s := Spec{Kind: Softmax, Inputs: 1, Classes: 3}
	data := dataset.Samples{N: 1000, D: 1, X: make([]float64, 1000), Y: make([]int, 1000)}
	for i := range data.Y {
		data.Y[i] = []int{0, 0, 0, 0, 0, 0, 1, 1, 1, 2}[i%10]
	}
	got, err := s.Fit(make([]float64, 6), data, Bias, nil)
	p := s.Predict(got, dataset.Samples{N: 1, D: 1, X: []float64{0}})
	if err != nil || !near(p, []float64{.6, .3, .1}, .002) {
		t.Errorf("probabilities %v (%v)", p, err)
	}
}

// Rows of one class move the part towards it, by an offset that stays small.
func TestFitOneClass(t *testing.T) {
	for _, s := range every {
		for _, p := range []Part{Bias, LastLayer} {
			for _, n := range []int{1, 30, 3000} {
				data := numbers(s, n, 1)
				for i := range data.Y {
					data.Y[i] = s.Classes - 1
				}
				params := started(s, 1)
				got, err := s.Fit(params, data, p, nil)
				if err != nil || !allFinite(got) {
					t.Fatalf("%v, part %q, %d rows: %v %v", s, p, n, got, err)
				}
				for i, x := range got {
					if math.Abs(x-params[i]) > 10 {
						t.Errorf("%v, part %q, %d rows: parameter %d moves by %v", s, p, n, i, x-params[i])
					}
				}
				if s.Classes > 0 && !(s.Loss(got, data, 0) < s.Loss(params, data, 0)) {
					t.Errorf("%v, part %q, %d rows: the loss rises", s, p, n)
				}
			}
		}
	}
}

// Whatever finite numbers come in, finite ones go out.
func TestFitIsFinite(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	huge := func(xs []float64) {
		for i := range xs {
			xs[i] = []float64{1, 0, 1e30, -1e30, 1e160, -1e160, math.MaxFloat64, -math.MaxFloat64}[r.IntN(8)]
		}
	}
	for _, s := range every {
		for range 20 {
			for _, p := range []Part{Bias, LastLayer} {
				params, data := started(s, 1), numbers(s, 5, 1)
				huge(params)
				if r.IntN(2) == 0 {
					huge(data.X)
				}
				if r.IntN(2) == 0 {
					huge(data.T)
				}
				if got, err := s.Fit(params, data, p, nil); err == nil && !allFinite(got) {
					t.Fatalf("%v, part %q: %v", s, p, got)
				}
			}
		}
		data := numbers(s, 5, 1)
		huge(data.X)
		huge(data.T)
		if spec, got, err := s.Alone(data, 1, nil); err == nil && (len(got) != spec.Params() || !allFinite(got)) {
			t.Fatalf("%v alone: %v", s, got)
		}
	}
}

func TestFitRefuses(t *testing.T) {
	s := specs[0]
	params, data := s.Init(1), numbers(s, 5, 1)
	bad := numbers(s, 5, 1)
	bad.X[3] = math.NaN()
	for name, fit := range map[string]func() ([]float64, error){
		"part":       func() ([]float64, error) { return s.Fit(params, data, "middle", nil) },
		"parameters": func() ([]float64, error) { return s.Fit(params[1:], data, Bias, nil) },
		"no rows":    func() ([]float64, error) { return s.Fit(params, dataset.Samples{D: s.Inputs}, Bias, nil) },
		"NaN":        func() ([]float64, error) { return s.Fit(params, bad, Bias, nil) },
		"NaN alone":  func() ([]float64, error) { _, p, err := s.Alone(bad, 1, nil); return p, err },
		"none alone": func() ([]float64, error) {
			_, p, err := s.Alone(dataset.Samples{D: s.Inputs}, 1, nil)
			return p, err
		},
	} {
		if got, err := fit(); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Long work says that it gets on, and its error is the end, even one that would
// only end a training early.
func TestFitAndAloneAreWatched(t *testing.T) {
	for _, s := range []Spec{{Kind: Softmax, Inputs: 300, Classes: 10}, {Kind: MLP, Inputs: 30, Classes: 3, Hidden: []int{300}}} {
		data := numbers(s, 4000, 1)
		for name, work := range map[string]func(func() error) error{
			"fit":   func(p func() error) error { _, err := s.Fit(s.Init(1), data, LastLayer, p); return err },
			"alone": func(p func() error) error { _, _, err := s.Alone(data, 1, p); return err },
			"curve": func(p func() error) error {
				if s.Kind != MLP {
					_, _, err := s.Alone(data, 1, p)
					return err
				}
				// A part that is held out takes most of the time.
				l := local{spec: s, all: data, parts: []part{{slice(data, 0, 50), data}}, held: data.N, beat: pulse{progress: p}}
				_, _, err := l.curve(0)
				return err
			},
		} {
			for _, end := range []error{ErrEnough, errors.New("other")} {
				for _, last := range []int{1, 7} {
					calls := 0
					err := work(func() error {
						if calls++; calls == last {
							return end
						}
						return nil
					})
					if !errors.Is(err, end) || calls != last {
						t.Errorf("%v, %s: %v after %d calls of %d", s, name, err, calls, last)
					}
				}
			}
		}
	}
}

// The derivatives that Newton's method goes by are those by differences.
func TestConvexDerivatives(t *testing.T) {
	for _, s := range slices.Concat(specs, []Spec{{Kind: Linear, Inputs: 4}}) {
		data := numbers(s, 20, 1)
		base := make([]float64, data.N*s.outputs())
		for i := range base {
			base[i] = math.Sin(float64(i))
		}
		c := convex{classes: s.Classes, outputs: s.outputs(), data: data, base: base, weights: .1, biases: .2, beat: new(pulse)}
		o := started(s, 1)
		n := len(o)
		c.row, c.z, c.grad, c.hessian = make([]float64, s.Inputs+1), make([]float64, c.outputs), make([]float64, n), make([]float64, n*n)
		at := func(i int, h float64) (float64, []float64) {
			o[i] += h
			value, err := c.evaluate(o)
			if err != nil {
				t.Fatal(err)
			}
			o[i] -= h
			return value, slices.Clone(c.grad)
		}
		_, grad := at(0, 0)
		hessian := slices.Clone(c.hessian)
		const h = 1e-5
		for i := range o {
			up, upGrad := at(i, h)
			down, downGrad := at(i, -h)
			if d := (up - down) / (2 * h); math.Abs(d-grad[i]) > 1e-8 {
				t.Errorf("%v: derivative %d is %v, by differences %v", s, i, grad[i], d)
			}
			for j := i; j < n; j++ {
				if d := (upGrad[j] - downGrad[j]) / (2 * h); math.Abs(d-hessian[i*n+j]) > 1e-8 {
					t.Errorf("%v: second derivative %d, %d is %v, by differences %v", s, i, j, hessian[i*n+j], d)
				}
			}
		}
	}
}

// Newton's method and L-BFGS come to the same optimum, that of training.
func TestConvexIsTheOptimum(t *testing.T) {
	for _, s := range slices.Concat(specs, []Spec{{Kind: Linear, Inputs: 4}}) {
		_, data := random(s, 200, 1, 1, .1)
		if s.Classes == 0 {
			data = numbers(s, 200, 1)
		}
		want, _, err := s.Train(s.Init(1), data, Training{Steps: 3000, Rate: .1, L2: .02, Optimizer: Momentum})
		if err != nil {
			t.Fatal(err)
		}
		for _, wide := range []int{s.Inputs, 300} {
			// Inputs that are always zero make it one for L-BFGS.
			x := make([]float64, 0, data.N*wide)
			for row := range slices.Chunk(data.X, s.Inputs) {
				x = append(append(x, row...), make([]float64, wide-s.Inputs)...)
			}
			rows := dataset.Samples{N: data.N, D: wide, X: x, Y: data.Y, T: data.T}
			c := convex{classes: s.Classes, outputs: s.outputs(), data: rows, weights: .02, biases: 1e-9, beat: new(pulse)}
			o := make([]float64, c.outputs*(wide+1))
			if err := c.minimise(o); err != nil {
				t.Fatal(err)
			}
			var got []float64
			for k := range c.outputs {
				got = append(got, o[k*(wide+1):k*(wide+1)+s.Inputs]...)
			}
			for k := range c.outputs {
				got = append(got, o[(k+1)*(wide+1)-1])
			}
			if !near(got, want, 1e-4) {
				t.Errorf("%v among %d inputs:\n%v, want\n%v", s, wide, got, want)
			}
		}
	}
}

func BenchmarkFit(b *testing.B) {
	for _, p := range []Part{Bias, LastLayer} {
		for _, n := range []int{100, 10_000} {
			b.Run(fmt.Sprintf("%s-%d", p, n), func(b *testing.B) {
				s := Spec{Kind: MLP, Inputs: 30, Classes: 2, Hidden: []int{32}}
				data := numbers(s, n, 1)
				for b.Loop() {
					if _, err := s.Fit(s.Init(1), data, p, nil); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
