package learn

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"village/protocol/dataset"
)

func TestAloneIsTuned(t *testing.T) {
	for _, s := range []Spec{{Kind: Logistic, Inputs: 30, Classes: 2}, {Kind: Softmax, Inputs: 20, Classes: 4}} {
		for _, n := range []int{60, 1200} {
			_, all := random(s, n+500, 5, .3, .1)
			data, test := slice(all, 0, n), slice(all, n, n+500)
			spec, params, err := s.Alone(data, 1, nil)
			if err != nil || !spec.Equal(s) {
				t.Fatal(spec, err)
			}
			got := spec.Loss(params, test, 0)
			for _, fixed := range []float64{1e-6, 3} {
				if n > 1000 && fixed < 1 {
					continue // so many rows need no penalty
				}
				bad, _, err := s.Train(s.Init(1), data, Training{Steps: 400, Rate: .3, L2: fixed})
				if err != nil {
					t.Fatal(err)
				}
				if loss := s.Loss(bad, test, 0); !(got < loss) {
					t.Errorf("%v, %d rows: loss %v, with a penalty of %v it is %v", s, n, got, fixed, loss)
				}
			}
			again, same, err := s.Alone(data, 1, nil)
			if err != nil || !again.Equal(spec) || !slices.Equal(same, params) {
				t.Errorf("%v, %d rows: not repeatable", s, n)
			}
		}
	}
}

// The family that the rows ask for is chosen.
func TestAloneChoosesTheFamily(t *testing.T) {
	for _, classes := range []int{0, 3} {
		s := Spec{Kind: MLP, Inputs: 2, Classes: classes, Hidden: []int{16}}
		curved, straight := numbers(s, 400, 1), numbers(s, 400, 1)
		for i := range 400 {
			a, b := curved.X[2*i], curved.X[2*i+1]
			switch classes {
			case 0:
				curved.T[i] = math.Sin(2*a) * b
				straight.T[i] = a - b + straight.T[i]
			default:
				curved.Y[i], straight.Y[i] = 0, 0
				if a*b > 0 {
					curved.Y[i] = classes - 1
				}
				if a+b+.8*float64(i%5-2) > 0 {
					straight.Y[i] = classes - 1
				}
			}
		}
		if spec, _, err := s.Alone(curved, 1, nil); err != nil || !spec.Equal(s) {
			t.Errorf("%d classes, no straight line: %v, %v", classes, spec, err)
		}
		want := map[int]Kind{0: Linear, 3: Softmax}[classes]
		if spec, _, err := s.Alone(straight, 1, nil); err != nil || spec.Kind != want || spec.Check() != nil {
			t.Errorf("%d classes, a straight line: %v, %v", classes, spec, err)
		}
	}
}

// Few rows, one class, constant columns: a clear outcome.
func TestAloneOnLittle(t *testing.T) {
	for _, s := range every {
		for _, n := range []int{1, 2, 3, 30} {
			data := numbers(s, n, 1)
			for i := range data.Y {
				data.Y[i] = s.Classes - 1
			}
			for i := 0; i < len(data.X); i += s.Inputs {
				data.X[i] = 0
			}
			spec, params, err := s.Alone(data, 1, nil)
			if err != nil || len(params) != spec.Params() || !allFinite(params) {
				t.Fatalf("%v, %d rows: %v %v %v", s, n, spec, params, err)
			}
			if s.Classes == 0 || n < 7 {
				continue
			}
			p := spec.Predict(params, numbers(s, 50, 2))
			for row := range slices.Chunk(p, s.Classes) {
				if p := row[s.Classes-1]; p < .5 || p > 1-1e-5 && s.Kind != MLP {
					t.Fatalf("%v, %d rows of one class: probabilities %v", s, n, row)
				}
			}
		}
	}
}

// Every row is held out once, or a quarter of them, and trained on else.
func TestAloneDivides(t *testing.T) {
	for _, n := range []int{10, 11, 14, 999, 1000, 1003} {
		data := dataset.Samples{N: n, D: 1}
		for i := range n {
			data.X, data.T = append(data.X, float64(i)), append(data.T, float64(i))
		}
		l := local{all: shuffled(data, 3)}
		l.divide()
		if slices.IsSorted(l.all.X) {
			t.Errorf("%d rows are in order", n)
		}
		var held []float64
		for _, p := range l.parts {
			held = append(held, p.held.X...)
			both := slices.Concat(p.train.X, p.held.X)
			slices.Sort(both)
			if !slices.Equal(both, data.X) || !slices.Equal(p.train.X, p.train.T) || !slices.Equal(p.held.X, p.held.T) || p.train.N != len(p.train.X) || p.held.N != len(p.held.X) {
				t.Fatalf("%d rows: a part of %v and %v", n, p.train, p.held)
			}
		}
		slices.Sort(held)
		if len(held) != l.held || len(slices.Compact(held)) != l.held || n < foldRows && l.held != n || n >= foldRows && l.held != n/4 {
			t.Errorf("%d rows: %d held out", n, len(held))
		}
	}
}

func BenchmarkAlone(b *testing.B) {
	for _, c := range []struct {
		spec Spec
		rows int
	}{
		{Spec{Kind: Logistic, Inputs: 30, Classes: 2}, 350},
		{Spec{Kind: Logistic, Inputs: 50, Classes: 2}, 12_000},
		{Spec{Kind: Softmax, Inputs: 16, Classes: 10}, 7494},
		{Spec{Kind: Softmax, Inputs: 64, Classes: 10}, 1400},
		{Spec{Kind: MLP, Inputs: 30, Classes: 2, Hidden: []int{32}}, 30},
		{Spec{Kind: MLP, Inputs: 30, Classes: 2, Hidden: []int{32}}, 350},
		{Spec{Kind: MLP, Inputs: 16, Classes: 10, Hidden: []int{64}}, 7494},
	} {
		b.Run(fmt.Sprintf("%s-%dx%d", c.spec.Kind, c.rows, c.spec.Inputs), func(b *testing.B) {
			simple := Spec{Kind: Softmax, Inputs: c.spec.Inputs, Classes: c.spec.Classes}
			_, data := random(simple, c.rows, 1, .5, .1)
			for b.Loop() {
				if _, _, err := c.spec.Alone(data, 1, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
