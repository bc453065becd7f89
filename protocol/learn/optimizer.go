package learn

import (
	"fmt"
	"math"
)

// Optimizer is a rule of local steps.
type Optimizer string

// The optimizers.
const (
	SGD      Optimizer = ""         // plain gradient descent
	Momentum Optimizer = "momentum" // Polyak's, factor 0.9
	Adam     Optimizer = "adam"     // Kingma and Ba 2015: 0.9, 0.999, 1e-8
)

// Check refuses an optimizer that is none.
func (o Optimizer) Check() error {
	if o != SGD && o != Momentum && o != Adam {
		return fmt.Errorf("optimizer %q is not known: it is momentum or adam, or none for plain gradient descent", o)
	}
	return nil
}

const (
	keepFirst  = .9   // of the mean gradient, each step
	keepSecond = .999 // of the mean squared gradient
	epsilon    = 1e-8 // below the root of the latter
)

// descent takes the steps of a training, one after another.
type descent[F float] struct {
	rule       Optimizer
	rate, prox F
	start      []F // what Prox pulls to
	shift      []F // added to each gradient, if not nil
	moments[F]
	// What the moments still hold of their start at zero: 0.9^t and 0.999^t
	// after t steps.
	kept, keptSecond float64
}

// moments are running means of the gradient, and of its squares.
type moments[F float] struct{ first, second []F }

// newDescent returns the descent of t from the parameters start, which must not
// change, with the moments in a space that is kept for reuse.
func newDescent[F float](t Training, start, shift []F, space *moments[F]) descent[F] {
	d := descent[F]{rule: t.Optimizer, rate: F(t.Rate), prox: F(t.Prox), start: start, shift: shift, kept: 1, keptSecond: 1}
	if d.rule != SGD {
		d.first = sized(&space.first, len(start))
		clear(d.first)
	}
	if d.rule == Adam {
		d.second = sized(&space.second, len(start))
		clear(d.second)
	}
	return d
}

// step changes the parameters by their gradient, which it may change, too. It says
// whether all parameters are finite.
func (d *descent[F]) step(params, grad []F) bool {
	grad = grad[:len(params)]
	if d.prox != 0 {
		for i, from := range d.start {
			grad[i] += d.prox * (params[i] - from)
		}
	}
	for i, c := range d.shift {
		grad[i] += c
	}
	switch d.rule {
	case Momentum:
		first := d.first[:len(grad)]
		for i, g := range grad {
			first[i] = keepFirst*first[i] + g
		}
		return descend(params, first, d.rate)
	case Adam:
		d.kept *= keepFirst
		d.keptSecond *= keepSecond
		unbias, unbiasSecond := F(1/(1-d.kept)), F(1/(1-d.keptSecond))
		first, second := d.first[:len(grad)], d.second[:len(grad)]
		for i, g := range grad {
			m := keepFirst*first[i] + (1-keepFirst)*g
			v := keepSecond*second[i] + (1-keepSecond)*g*g
			first[i], second[i] = m, v
			grad[i] = unbias * m / (F(math.Sqrt(float64(unbiasSecond*v))) + epsilon)
		}
	}
	return descend(params, grad, d.rate)
}

// descend takes one step and says whether all parameters are finite.
func descend[F float](params, grad []F, rate F) bool {
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
