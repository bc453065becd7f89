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
	L2    float64  // penalty: L2/2 times the squared norm of the weights, without the biases
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
	// Progress, if set, is called after each step. Its error ends the training.
	Progress func() error
	// Scratch, if set, is working space that trainings one after another share.
	Scratch *Scratch
}

// Optimizer is a rule of local steps.
type Optimizer string

// The optimizers.
const (
	SGD      Optimizer = ""         // plain gradient descent
	Momentum Optimizer = "momentum" // Polyak's, factor 0.9
	Adam     Optimizer = "adam"     // Kingma and Ba 2015: 0.9, 0.999, 1e-8
)

// ErrEnough is what Progress returns to end a training early, with what it has
// come to.
var ErrEnough = errors.New("enough steps")

// Scratch is working space. It holds nothing between trainings.
type Scratch struct {
	grad, out []float64
	order     []int
}

// sized returns a slice of length n in the space of one that is kept for reuse.
func sized[T any](kept *[]T, n int) []T {
	*kept = slices.Grow((*kept)[:0], n)[:n]
	return *kept
}

// ErrDiverged is the end of a training whose steps were too large.
var ErrDiverged = errors.New("a parameter is not finite")

func (t Training) check() error {
	switch {
	case t.Steps < 0:
		return errors.New("the number of steps is negative")
	case t.Batch < 0:
		return errors.New("the batch size is negative")
	case !(t.Rate > 0) || math.IsInf(t.Rate, 0):
		return errors.New("the learning rate is not a positive number")
	case !(t.L2 >= 0) || math.IsInf(t.L2, 0):
		return errors.New("the L2 penalty is not zero or a positive number")
	}
	return nil
}

// check refuses parameters and rows that do not fit the model.
func (s Spec) check(params []float64, data dataset.Samples) error {
	if err := s.Check(); err != nil {
		return err
	}
	switch {
	case len(params) != s.Params():
		return fmt.Errorf("%d parameters for a model of %d", len(params), s.Params())
	case data.D != s.Inputs:
		return fmt.Errorf("rows of %d numbers for a model of %d inputs", data.D, s.Inputs)
	case data.N < 1:
		return errors.New("there are no rows to train on")
	case len(data.X)/data.D != data.N || len(data.X)%data.D != 0 || len(data.Y) != data.N:
		return fmt.Errorf("%d numbers and %d classes are not %d rows", len(data.X), len(data.Y), data.N)
	}
	for _, y := range data.Y {
		if y < 0 || y >= s.Classes {
			return fmt.Errorf("class %d for a model of %d classes", y, s.Classes)
		}
	}
	if !allFinite(params) {
		return errNotFinite
	}
	return nil
}

// Train returns the parameters after gradient descent from params, which it
// leaves alone. With a Batch of less than all rows it walks through them in an
// order that is shuffled anew for each pass; the last batch of a pass may be
// smaller. It refuses arguments that do not fit, and ends with an error when a
// parameter is no longer finite.
func (s Spec) Train(params []float64, data dataset.Samples, t Training) ([]float64, error) {
	if err := cmp.Or(s.check(params, data), t.check()); err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	params = slices.Clone(params)
	work := t.Scratch
	if work == nil {
		work = new(Scratch)
	}
	grad, out := sized(&work.grad, len(params)), sized(&work.out, s.outputs())

	var order []int // of the rows; nil for the whole
	var stream *rand.ChaCha8
	if t.Batch > 0 && t.Batch < data.N {
		stream = rand.NewChaCha8(t.Seed)
		order = sized(&work.order, data.N)
		for i := range order {
			order[i] = i
		}
	}
	rest := order[:0]
	for step := range t.Steps {
		var batch []int
		if order != nil {
			if len(rest) == 0 {
				shuffle(order, stream)
				rest = order
			}
			n := min(t.Batch, len(rest))
			batch, rest = rest[:n], rest[n:]
		}
		s.gradient(params, data, batch, t.L2, grad, out)
		if !descend(params, grad, t.Rate) {
			return nil, fmt.Errorf("train: %w after step %d of %d: lower the learning rate (%g)", ErrDiverged, step+1, t.Steps, t.Rate)
		}
		if t.Progress != nil {
			if err := t.Progress(); err != nil {
				return nil, err
			}
		}
	}
	return params, nil
}

// shuffle is that of Fisher and Yates. A position is the upper half of a 64-bit
// output times the number of choices; with n rows its bias is below n/2^64.
func shuffle(order []int, stream *rand.ChaCha8) {
	for i := len(order) - 1; i > 0; i-- {
		j, _ := bits.Mul64(stream.Uint64(), uint64(i+1))
		order[i], order[j] = order[j], order[i]
	}
}

// descend takes one step and says whether all parameters are finite.
func descend(params, grad []float64, rate float64) bool {
	grad = grad[:len(params)]
	finite := true
	for i, g := range grad {
		p := params[i] - rate*g
		params[i] = p
		if p-p != 0 {
			finite = false
		}
	}
	return finite
}

// Loss returns the mean cross-entropy in nats over the rows plus the penalty
// l2/2·|weights|². Without rows it is the penalty. Params and data fit the
// spec, else it panics.
func (s Spec) Loss(params []float64, data dataset.Samples, l2 float64) float64 {
	out := make([]float64, s.outputs())
	sum := 0.0
	for i := range data.N {
		s.scores(params, data.X[i*s.Inputs:], out)
		if s.Kind == Logistic {
			// log(1+exp(-m)) of the margin m, without overflow.
			m := out[0]
			if data.Y[i] == 0 {
				m = -m
			}
			sum += max(-m, 0) + math.Log1p(math.Exp(-math.Abs(m)))
		} else {
			top := slices.Max(out)
			z := 0.0
			for _, v := range out {
				z += math.Exp(v - top)
			}
			sum += math.Log(z) + (top - out[data.Y[i]])
		}
	}
	weights := params[:s.outputs()*s.Inputs]
	loss := l2 / 2 * dot(weights, weights)
	if data.N > 0 {
		loss += sum / float64(data.N)
	}
	return loss
}

// Gradient puts the gradient of [Spec.Loss] into grad, which is as long as
// params.
func (s Spec) Gradient(params []float64, data dataset.Samples, l2 float64, grad []float64) {
	s.gradient(params, data, nil, l2, grad, make([]float64, s.outputs()))
}

// gradient is Gradient over some rows, nil meaning all. Out is working space,
// a number an output.
func (s Spec) gradient(params []float64, data dataset.Samples, rows []int, l2 float64, grad, out []float64) {
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
		// The derivative by a score is the probability less the truth.
		if s.Kind == Logistic {
			out[0] = sigmoid(out[0]) - float64(data.Y[i])
		} else {
			softmax(out)
			out[data.Y[i]]--
		}
		for c, r := range out {
			r *= share
			axpy(r, x, dw[c*d:c*d+d])
			db[c] += r
		}
	}
}

// Predict returns the probabilities of the classes, row-major with shape N x
// Classes. They are numbers in [0, 1] whatever the finite parameters and rows
// are. Params and data.X fit the spec, else it panics; data.Y is not read.
func (s Spec) Predict(params []float64, data dataset.Samples) []float64 {
	p := make([]float64, data.N*s.Classes)
	for i := range data.N {
		s.predict(params, data.X[i*s.Inputs:], p[i*s.Classes:(i+1)*s.Classes])
	}
	return p
}

// predict puts the probabilities of the classes for one row into p.
func (s Spec) predict(params, x, p []float64) {
	out := p[:s.outputs()]
	s.scores(params, x, out)
	for c, v := range out {
		// Finite parameters may give scores that overflow, or NaN where
		// the two infinities meet.
		if v != v {
			v = 0
		}
		out[c] = min(max(v, -math.MaxFloat64), math.MaxFloat64)
	}
	if s.Kind == Logistic {
		p[1] = sigmoid(out[0])
		p[0] = 1 - p[1]
	} else {
		softmax(out)
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
