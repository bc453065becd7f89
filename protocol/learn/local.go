package learn

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"village/protocol/dataset"
)

const (
	foldRows = 1000 // from so many rows on one part of a quarter is tried, below five folds
	folds    = 5
	tuneRows = 10 // below so many there is nothing to tune on: C is 1

	// netMargin is what a perceptron's loss has to be of the regression's at
	// most: with few rows the best of many tries is better by chance.
	netMargin = .98

	// biasPenalty times 1/n is the penalty of a regression's biases: too weak
	// to be seen, but with rows of one class alone they stay finite.
	biasPenalty = .01
)

// localC are the inverse strengths of the penalty that are tried, 1/(n·L2), as
// scikit-learn counts it, from the strongest on.
var localC = []float64{.01, .03, .1, .3, 1, 3, 10, 30, 100}

// localNets are the learning rates and inverse strengths that are tried for a
// perceptron; how many steps are best is seen on the way.
var localNets = []struct{ rate, c float64 }{{.001, 1}, {.001, 100}, {.005, 1}, {.005, 100}}

// Alone returns the best model that a node reaches on its own rows: the regression
// for the target, or, where s is a perceptron, a perceptron of the same layers
// if that is clearly better. Each is tuned by cross-validation on the rows, by the mean
// [Spec.Loss] of those held out, and then trained on all rows, the regression to
// its optimum. The seed decides on the parts and on the perceptron's start.
// Progress, which may be nil, is called now and then; its error ends the work.
func (s Spec) Alone(data dataset.Samples, seed uint64, progress func() error) (Spec, []float64, error) {
	if err := s.checkRows(data); err != nil {
		return Spec{}, nil, fmt.Errorf("alone: %w", err)
	}
	if !finiteRows(data) {
		return Spec{}, nil, fmt.Errorf("alone: %w", errRows)
	}
	l := local{spec: s, seed: seed, all: shuffled(data, seed), beat: pulse{progress: progress}}
	l.divide()
	best, params, bound, err := l.regression()
	if err != nil || s.Kind != MLP {
		return best, params, err
	}
	if net, err := l.perceptron(netMargin * bound); err != nil || net != nil {
		return s, net, err
	}
	return best, params, nil
}

// local is the search of [Spec.Alone].
type local struct {
	spec  Spec
	seed  uint64
	all   dataset.Samples // shuffled
	parts []part
	held  int // rows held out in all parts together
	beat  pulse
	work  Scratch // of training
	judge Scratch // of the rows held out
}

// part is a division of the rows into some to train on and others.
type part struct{ train, held dataset.Samples }

// key returns that of the random numbers for one of the uses of a seed.
func key(seed, use uint64) (key [32]byte) {
	binary.LittleEndian.PutUint64(key[:], seed)
	binary.LittleEndian.PutUint64(key[8:], use)
	return key
}

// The uses of a seed besides [Spec.Init], which is 0.
const (
	useParts = 1 + iota
	useBatches
)

// shuffled returns a copy of the rows in an order that is as good as any.
func shuffled(data dataset.Samples, seed uint64) dataset.Samples {
	order := make([]int, data.N)
	for i := range order {
		order[i] = i
	}
	shuffle(order, rand.NewChaCha8(key(seed, useParts)))
	to := dataset.Samples{N: data.N, D: data.D, X: make([]float64, 0, len(data.X))}
	for _, i := range order {
		to.X = append(to.X, data.X[i*data.D:(i+1)*data.D]...)
		if len(data.Y) > 0 {
			to.Y = append(to.Y, data.Y[i])
		}
		if len(data.T) > 0 {
			to.T = append(to.T, data.T[i])
		}
	}
	return to
}

// slice returns the rows from one to before another. They share memory.
func slice(data dataset.Samples, from, to int) dataset.Samples {
	s := dataset.Samples{N: to - from, D: data.D, X: data.X[from*data.D : to*data.D]}
	if len(data.Y) > 0 {
		s.Y = data.Y[from:to]
	}
	if len(data.T) > 0 {
		s.T = data.T[from:to]
	}
	return s
}

// divide makes the parts; a few rows have none.
func (l *local) divide() {
	n := l.all.N
	if n >= foldRows {
		l.parts, l.held = []part{{slice(l.all, n/4, n), slice(l.all, 0, n/4)}}, n/4
		return
	}
	if n < tuneRows {
		return
	}
	l.held = n
	for k := range min(folds, n) {
		count := min(folds, n)
		from, to := k*n/count, (k+1)*n/count
		a, b := slice(l.all, 0, from), slice(l.all, to, n)
		l.parts = append(l.parts, part{
			dataset.Samples{N: a.N + b.N, D: a.D, X: slices.Concat(a.X, b.X), Y: slices.Concat(a.Y, b.Y), T: slices.Concat(a.T, b.T)},
			slice(l.all, from, to),
		})
	}
}

// regression returns the tuned one, and its mean loss on rows held out.
func (l *local) regression() (s Spec, params []float64, held float64, err error) {
	s = Spec{Kind: Softmax, Inputs: l.spec.Inputs, Classes: l.spec.Classes}
	switch s.Classes {
	case 0:
		s.Kind = Linear
	case 2:
		s.Kind = Logistic
	}
	losses := make([]float64, len(localC))
	for _, p := range l.parts {
		o := make([]float64, s.Params())
		for i, c := range localC { // each starts where the one before ended
			params, err := l.optimum(s, p.train, c, o)
			if err != nil {
				return s, nil, 0, err
			}
			sum, err := l.loss(s, params, p.held)
			if err != nil {
				return s, nil, 0, err
			}
			losses[i] += sum / float64(l.held)
		}
	}
	best := lowest(losses)
	if len(l.parts) == 0 {
		best = slices.Index(localC, 1)
	}
	params, err = l.optimum(s, l.all, localC[best], make([]float64, s.Params()))
	return s, params, losses[best], err
}

// optimum moves o to the best regression on some rows and returns its parameters.
func (l *local) optimum(s Spec, data dataset.Samples, inverse float64, o []float64) ([]float64, error) {
	n := float64(data.N)
	c := convex{classes: s.Classes, outputs: s.outputs(), data: data, weights: 1 / (inverse * n), biases: biasPenalty / n, beat: &l.beat}
	if err := c.minimise(o); err != nil {
		return nil, err
	}
	return c.tensor(o), nil
}

// loss returns the sum over rows.
func (l *local) loss(s Spec, params []float64, data dataset.Samples) (sum float64, err error) {
	for from := 0; from < data.N && err == nil; from += blockRows {
		rows := slice(data, from, min(from+blockRows, data.N))
		s.scoreEach(params, rows, &l.judge, func(i int, z []float64) { sum += loss(s.Classes, &rows, i, z) })
		err = l.beat.add(rows.N * len(params))
	}
	return sum, err
}

// lowest returns the index of the first of the lowest numbers; NaN is the highest.
func lowest(xs []float64) int {
	best := 0
	for i, x := range xs {
		if x < xs[best] || xs[best] != xs[best] {
			best = i
		}
	}
	return best
}

// perceptron returns the tuned one, nil where its mean loss on rows held out is
// not below a bound.
func (l *local) perceptron(bound float64) ([]float64, error) {
	best, trained := -1, 0 // of localNets, and steps
	for i := range localNets {
		losses, steps, err := l.curve(i)
		if err != nil {
			return nil, err
		}
		for j, loss := range losses {
			if loss < bound {
				bound, best, trained = loss, i, steps[j]
			}
		}
	}
	if best < 0 {
		return nil, nil
	}
	// As often through all rows as it was through those of a part.
	trained = trained * passes(l.all.N) / passes(l.parts[0].train.N)
	return l.train(best, l.all, trained, nil)
}

// localBatch is the number of rows a step: few rows need many steps, while many
// small steps take longer.
func localBatch(n int) int { return min(max(32, n/100), 128) }

// passes returns the number of steps of a pass through n rows.
func passes(n int) int { b := localBatch(n); return (n + b - 1) / b }

// curve trains one of localNets on each part, and returns the mean loss on the
// rows held out after some numbers of steps, each half as many again as the one
// before: until it has risen twice on the first part, or the steps are as many as
// anybody needs.
func (l *local) curve(candidate int) (losses []float64, steps []int, err error) {
	if len(l.parts) == 0 {
		return nil, nil, nil
	}
	pass := passes(l.parts[0].train.N)
	for at := max(16, pass/2); at < max(2000, 50*pass); at += (at + 1) / 2 {
		steps = append(steps, at)
	}
	for k, p := range l.parts {
		sums, err := l.watch(candidate, p, steps, k == 0)
		if errors.Is(err, ErrDiverged) {
			return nil, nil, nil
		}
		if err != nil {
			return nil, nil, err
		}
		if k == 0 {
			steps, losses = steps[:len(sums)], make([]float64, len(sums))
		}
		for i, sum := range sums {
			losses[i] += sum / float64(l.held)
		}
	}
	return losses, steps, nil
}

// watch trains one of localNets on a part and returns the sums of the loss over the
// rows held out after the given numbers of steps, or up to where it has risen
// twice, if early.
func (l *local) watch(candidate int, p part, steps []int, early bool) (sums []float64, err error) {
	params, done := make([]float64, l.spec.Params()), 0
	_, err = l.train(candidate, p.train, steps[len(steps)-1], func() (enough bool, err error) {
		if done++; done < steps[len(sums)] {
			return false, nil
		}
		widen(params, l.work.network.params)
		sum, err := l.loss(l.spec, params, p.held)
		sums = append(sums, sum)
		return len(sums) == len(steps) || early && len(sums)-1 >= lowest(sums)+2, err
	})
	return sums, err
}

// train makes steps of one of localNets. After each it calls a function, if it is
// not nil, which may say that they are enough.
func (l *local) train(candidate int, data dataset.Samples, steps int, after func() (enough bool, err error)) ([]float64, error) {
	batch := min(localBatch(data.N), data.N)
	params := l.spec.Init(l.seed)
	var ended error // by progress, whatever it is: it ends not the steps alone
	beat := func() error {
		ended = l.beat.add(3 * len(params) * batch)
		return ended
	}
	out, _, err := l.work.network.train(l.spec, params, data, Training{
		Steps: steps, Rate: localNets[candidate].rate, L2: 1 / (localNets[candidate].c * float64(data.N)),
		Batch: batch, Seed: key(l.seed, useBatches), Optimizer: Adam,
		Progress: func() error {
			if beat() != nil || after == nil {
				return ended
			}
			enough, err := after()
			if ended = err; enough && err == nil {
				return ErrEnough
			}
			return err
		},
	}, &l.work.order, beat)
	return out, cmp.Or(ended, err)
}
