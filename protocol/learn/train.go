package learn

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"

	"village/protocol/dataset"
)

// Training says how to take local steps.
type Training struct {
	Steps int      // gradient steps
	Rate  float64  // learning rate
	L2    float64  // penalty: L2/2 times the squared norm of the weights of all layers, without the biases
	Batch int      // rows a step; 0 means all
	Seed  [32]byte // keys the shuffling of the rows where Batch is less than all
	// Optimizer is how a step uses the gradient. Its moments start at zero.
	Optimizer Optimizer
	// Prox is FedProx's mu: Prox/2 times the squared distance from the
	// parameters that training starts from is added to the loss (Li et al. 2020).
	Prox float64
	// Shift, if set, is added to each gradient: SCAFFOLD's correction c - c_i
	// (Karimireddy et al. 2020).
	Shift []float64
	// Progress, if set, is called after each step, and now and then within a
	// long one. Its error ends the training; a step that is not done then does
	// not count.
	Progress func() error
	// Scratch, if set, is working space that trainings one after another share.
	Scratch *Scratch
}

// ErrEnough is what Progress returns to end a training early, with what it has
// come to.
var ErrEnough = errors.New("enough steps")

// Scratch is working space. It holds nothing between trainings.
type Scratch struct {
	grad, out, prediction []float64
	order                 []int
	moments               moments[float64]
	network               network
}

// sized returns a slice of length n in the space of one that is kept for reuse.
func sized[T any](kept *[]T, n int) []T {
	*kept = slices.Grow((*kept)[:0], n)[:n]
	return *kept
}

// ErrDiverged is the end of a training whose steps were too large.
var ErrDiverged = errors.New("a parameter is not finite")

func (t Training) check(params int) error {
	switch {
	case t.Steps < 0:
		return errors.New("the number of steps is negative")
	case t.Batch < 0:
		return errors.New("the batch size is negative")
	case !(t.Rate > 0) || math.IsInf(t.Rate, 0):
		return errors.New("the learning rate is not a positive number")
	case !(t.L2 >= 0) || math.IsInf(t.L2, 0):
		return errors.New("the L2 penalty is not zero or a positive number")
	case !(t.Prox >= 0) || math.IsInf(t.Prox, 0):
		return errors.New("prox is not zero or a positive number")
	case t.Shift != nil && len(t.Shift) != params:
		return fmt.Errorf("a shift of %d numbers for %d parameters", len(t.Shift), params)
	}
	return t.Optimizer.Check()
}

// check refuses parameters and rows that do not fit the model.
func (s Spec) check(params []float64, data dataset.Samples) error {
	if err := s.checkRows(data); err != nil {
		return err
	}
	if len(params) != s.Params() {
		return fmt.Errorf("%d parameters for a model of %d", len(params), s.Params())
	}
	if !allFinite(params) {
		return errNotFinite
	}
	return nil
}

// checkRows refuses a spec that is no model, and rows that do not fit it.
func (s Spec) checkRows(data dataset.Samples) error {
	if err := s.Check(); err != nil {
		return err
	}
	switch {
	case data.D != s.Inputs:
		return fmt.Errorf("rows of %d numbers for a model of %d inputs", data.D, s.Inputs)
	case data.N < 1:
		return errors.New("there are no rows to train on")
	case len(data.X)/data.D != data.N || len(data.X)%data.D != 0:
		return fmt.Errorf("%d numbers are not %d rows of %d", len(data.X), data.N, data.D)
	case s.Classes == 0 && len(data.T) != data.N, s.Classes > 0 && len(data.Y) != data.N:
		return fmt.Errorf("%d values and %d classes of the target for %d rows", len(data.T), len(data.Y), data.N)
	}
	if s.Classes > 0 {
		for _, y := range data.Y {
			if y < 0 || y >= s.Classes {
				return fmt.Errorf("class %d for a model of %d classes", y, s.Classes)
			}
		}
	}
	return nil
}

// Train returns the parameters after gradient descent from params, which it
// leaves alone, and the number of steps taken: all, unless Progress says
// [ErrEnough]. With a Batch of less than all rows it walks through them in an
// order that is shuffled anew for each pass; the last batch of a pass may be
// smaller. It refuses arguments that do not fit, and ends with an error when a
// parameter is no longer finite.
func (s Spec) Train(params []float64, data dataset.Samples, t Training) (out []float64, steps int, err error) {
	if err := cmp.Or(s.check(params, data), t.check(len(params))); err != nil {
		return nil, 0, fmt.Errorf("train: %w", err)
	}
	work := t.Scratch
	if work == nil {
		work = new(Scratch)
	}
	if s.Kind == MLP {
		return work.network.train(s, params, data, t, &work.order, t.Progress)
	}
	out = slices.Clone(params)
	grad, z := sized(&work.grad, len(params)), sized(&work.out, s.outputs())
	d := newDescent(t, params, t.Shift, &work.moments)
	steps, err = walk(data.N, t, &work.order, func(rows []int) (finite bool, err error) {
		s.gradient(out, &data, rows, t.L2, grad, z)
		return d.step(out, grad), nil
	})
	if err != nil {
		return nil, steps, err
	}
	return out, steps, nil
}

// walk makes steps with a batch of rows each, nil meaning all, and returns how many
// it has made. A step says whether the parameters are finite after it.
func walk(n int, t Training, kept *[]int, step func(rows []int) (finite bool, err error)) (int, error) {
	var order []int // of the rows; nil for the whole
	var stream *rand.ChaCha8
	if t.Batch > 0 && t.Batch < n {
		stream = rand.NewChaCha8(t.Seed)
		order = sized(kept, n)
		for i := range order {
			order[i] = i
		}
	}
	rest := order[:0]
	for done := 0; done < t.Steps; {
		var batch []int
		if order != nil {
			if len(rest) == 0 {
				shuffle(order, stream)
				rest = order
			}
			n := min(t.Batch, len(rest))
			batch, rest = rest[:n], rest[n:]
		}
		finite, err := step(batch)
		if err == nil {
			done++
			switch {
			case !finite:
				err = fmt.Errorf("train: %w after step %d of %d: lower the learning rate (%g)", ErrDiverged, done, t.Steps, t.Rate)
			case t.Progress != nil:
				err = t.Progress()
			}
		}
		if errors.Is(err, ErrEnough) {
			return done, nil
		}
		if err != nil {
			return done, err
		}
	}
	return t.Steps, nil
}

// shuffle is that of Fisher and Yates. A position is the upper half of a 64-bit
// output times the number of choices; with n rows its bias is below n/2^64.
func shuffle(order []int, stream *rand.ChaCha8) {
	for i := len(order) - 1; i > 0; i-- {
		j, _ := bits.Mul64(stream.Uint64(), uint64(i+1))
		order[i], order[j] = order[j], order[i]
	}
}

// Loss returns the mean loss over the rows plus the penalty l2/2·|weights|². The
// loss of a row is the cross-entropy in nats, or half the squared error of a
// numeric target. Without rows it is the penalty. Params and data fit the spec,
// else it panics.
func (s Spec) Loss(params []float64, data dataset.Samples, l2 float64) float64 {
	sum := 0.0
	s.scoreEach(params, data, new(Scratch), func(i int, z []float64) { sum += loss(s.Classes, &data, i, z) })
	penalty := 0.0
	for _, l := range s.layers() {
		weights, _ := split(l, params)
		penalty += dot(weights, weights)
	}
	mean := l2 / 2 * penalty
	if data.N > 0 {
		mean += sum / float64(data.N)
	}
	return mean
}

// loss returns that of a row with the scores z.
func loss(classes int, data *dataset.Samples, i int, z []float64) float64 {
	switch {
	case len(z) > 1:
		top := slices.Max(z)
		sum := 0.0
		for _, v := range z {
			sum += math.Exp(v - top)
		}
		return math.Log(sum) + (top - z[data.Y[i]])
	case classes == 0:
		e := z[0] - data.T[i]
		return e * e / 2
	default:
		// log(1+exp(-m)) of the margin m, without overflow.
		m := z[0]
		if data.Y[i] == 0 {
			m = -m
		}
		return max(-m, 0) + math.Log1p(math.Exp(-math.Abs(m)))
	}
}

// derive turns the scores of a row into the derivatives of its loss by them: what
// is predicted less the truth.
func derive(classes int, data *dataset.Samples, i int, z []float64) {
	switch {
	case len(z) > 1:
		softmax(z)
		z[data.Y[i]]--
	case classes == 0:
		z[0] -= data.T[i]
	default:
		z[0] = sigmoid(z[0]) - float64(data.Y[i])
	}
}

// Gradient puts the gradient of [Spec.Loss] into grad, which is as long as
// params.
func (s Spec) Gradient(params []float64, data dataset.Samples, l2 float64, grad []float64) {
	if s.Kind == MLP {
		new(network).gradientOf(s, params, data, l2, grad)
		return
	}
	s.gradient(params, &data, nil, l2, grad, make([]float64, s.outputs()))
}

// gradient is that of a regression over some rows, nil meaning all. Out is working
// space, a number an output.
func (s Spec) gradient(params []float64, data *dataset.Samples, rows []int, l2 float64, grad, out []float64) {
	d := s.Inputs
	weights := params[:len(out)*d]
	dw, db := grad[:len(out)*d], grad[len(out)*d:]
	for i, w := range weights {
		dw[i] = l2 * w
	}
	clear(db)
	n := len(rows)
	if rows == nil {
		n = data.N
	}
	share := 1 / float64(n)
	for k := range n {
		i := k
		if rows != nil {
			i = rows[k]
		}
		x := data.X[i*d : i*d+d]
		s.scores(params, x, out)
		derive(s.Classes, data, i, out)
		for c, r := range out {
			r *= share
			axpy(r, x, dw[c*d:c*d+d])
			db[c] += r
		}
	}
}

// Predict returns what the model says of each row, row-major with shape N x
// [Spec.Width]: the probabilities of the classes, numbers in [0, 1] whatever the
// finite parameters and rows are; or the value of a numeric target, a finite
// number. Params and data.X fit the spec, else it panics; data.Y and data.T are
// not read.
func (s Spec) Predict(params []float64, data dataset.Samples) []float64 {
	width := s.Width()
	all := make([]float64, data.N*width)
	s.predictEach(params, data, new(Scratch), func(i int, p []float64) { copy(all[i*width:], p) })
	return all
}

// predictEach calls do with what [Spec.Predict] says of each row, in order. P is
// that of the next row thereafter.
func (s Spec) predictEach(params []float64, data dataset.Samples, work *Scratch, do func(i int, p []float64)) {
	p := sized(&work.prediction, s.Width())
	s.scoreEach(params, data, work, func(i int, z []float64) {
		for c, v := range z {
			p[c] = bounded(v)
		}
		switch {
		case len(z) > 1:
			softmax(p)
		case s.Classes > 0:
			p[1] = sigmoid(p[0])
			p[0] = 1 - p[1]
		}
		do(i, p)
	})
}

// bounded returns a score that is finite: finite parameters may give one that
// overflows, or NaN where the two infinities meet.
func bounded(score float64) float64 {
	if score != score {
		return 0
	}
	return min(max(score, -math.MaxFloat64), math.MaxFloat64)
}

// scoreEach calls do with the scores of each row, in order. Z is do's to change.
func (s Spec) scoreEach(params []float64, data dataset.Samples, work *Scratch, do func(i int, z []float64)) {
	z := sized(&work.out, s.outputs())
	if s.Kind == MLP {
		work.network.scoreEach(s, params, data, z, do)
		return
	}
	for i := range data.N {
		s.scores(params, data.X[i*s.Inputs:], z)
		do(i, z)
	}
}

// scores puts weight·x + bias into out. X may be longer than a row.
func (s Spec) scores(params, x, out []float64) {
	d := s.Inputs
	bias := params[len(out)*d:]
	for c := range out {
		out[c] = dot(params[c*d:c*d+d], x[:d]) + bias[c]
	}
}

// sigmoid returns 1/(1+exp(-z)) without overflow.
func sigmoid(z float64) float64 {
	if z >= 0 {
		return 1 / (1 + math.Exp(-z))
	}
	e := math.Exp(z)
	return e / (1 + e)
}

// softmax turns scores into probabilities, without overflow because the largest
// exponent is 0.
func softmax(z []float64) {
	top := slices.Max(z)
	sum := 0.0
	for c, v := range z {
		z[c] = math.Exp(v - top)
		sum += z[c]
	}
	for c := range z {
		z[c] /= sum
	}
}

// dot returns the inner product in four partial sums, whose order depends on
// the length alone.
func dot(x, y []float64) float64 {
	y = y[:len(x)]
	var a, b, c, d float64
	for len(x) >= 4 && len(y) >= 4 {
		a += x[0] * y[0]
		b += x[1] * y[1]
		c += x[2] * y[2]
		d += x[3] * y[3]
		x, y = x[4:], y[4:]
	}
	for i, v := range x {
		a += v * y[i]
	}
	return (a + b) + (c + d)
}

// axpy adds r·x to y.
func axpy(r float64, x, y []float64) {
	y = y[:len(x)]
	for i, v := range x {
		y[i] += r * v
	}
}
