package learn

import (
	"fmt"
	"math"
)

// Outer is a rule by which the averaged change of a round becomes the next
// start: an optimizer whose gradient is that change (Reddi et al. 2021). Its
// moments travel with the parameters and are averaged alike, so that whoever mixes
// the same vectors goes on from the same start.
type Outer string

// The rules.
const (
	Plain     Outer = ""         // the change as it is: FedAvg
	Nesterov  Outer = "nesterov" // momentum 0.9
	OuterAdam Outer = "adam"     // FedAdam: 0.9, 0.99, 1e-3
	OuterYogi Outer = "yogi"     // FedYogi, as FedAdam
)

const (
	outerBeta1 = 0.9
	outerBeta2 = 0.99
	outerTau   = 1e-3
)

// Check refuses a rule that is not known.
func (o Outer) Check() error {
	switch o {
	case Plain, Nesterov, OuterAdam, OuterYogi:
		return nil
	}
	return fmt.Errorf("outer optimizer %.16q is not known: it is nesterov, adam or yogi", string(o))
}

// Moments is the number of moments that the rule keeps of each parameter.
func (o Outer) Moments() int {
	switch o {
	case Plain:
		return 0
	case Nesterov:
		return 1
	}
	return 2
}

// Begin is the value of a moment before the first round.
func (o Outer) Begin(moment int) float64 {
	if moment == 1 {
		return outerTau * outerTau
	}
	return 0
}

// Advance makes the start of the next round, in params: the averaged parameters
// that local steps came to, which change from those in start, where they set out.
// It takes moments to what they are after the round. The rule must keep some.
// Every operation is rounded by itself, so that all machines get the same bits.
func (o Outer) Advance(rate float64, params, start []float64, moments [][]float64) {
	m := moments[0]
	if o == Nesterov {
		for i, from := range start {
			change := params[i] - from
			m[i] = float64(outerBeta1*m[i]) + change
			params[i] = from + float64(rate*(float64(outerBeta1*m[i])+change))
		}
		return
	}
	v := moments[1]
	for i, from := range start {
		change := params[i] - from
		square := float64(change * change)
		m[i] = float64(outerBeta1*m[i]) + float64((1-outerBeta1)*change)
		if o == OuterAdam {
			v[i] = float64(outerBeta2*v[i]) + float64((1-outerBeta2)*square)
		} else if v[i] < square {
			v[i] += float64((1 - outerBeta2) * square)
		} else if v[i] > square {
			v[i] -= float64((1 - outerBeta2) * square)
		}
		params[i] = from + float64(rate*m[i])/(math.Sqrt(max(v[i], 0))+outerTau)
	}
}
