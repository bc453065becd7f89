package learn

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"village/protocol/dataset"
)

// Fit returns params with a part of them refitted to the rows, and the rest as it
// is. It is what a node does to a model that others have trained along. The change
// o of the part minimises the mean loss plus |o|²/2n: what was given counts as much
// as one row does, so that a node of few rows, or of one class, stays near it. No
// random choice is in it. Progress, which may be nil, is called now and then; its
// error ends the work.
func (s Spec) Fit(params []float64, data dataset.Samples, p Part, progress func() error) ([]float64, error) {
	if err := s.check(params, data); err != nil {
		return nil, fmt.Errorf("fit: %w", err)
	}
	if p != NoPart && p != Bias && p != LastLayer {
		return nil, fmt.Errorf("fit: a model has no part %q: it is bias or last-layer", p)
	}
	out := slices.Clone(params)
	if p == NoPart {
		return out, nil
	}
	if !finiteRows(data) {
		return nil, fmt.Errorf("fit: %w", errRows)
	}
	beat := pulse{progress: progress}
	rows, base, err := s.last(params, data, p == LastLayer, &beat)
	if err != nil {
		return nil, err
	}
	prior := 1 / float64(data.N)
	c := convex{classes: s.Classes, outputs: s.outputs(), data: rows, base: base, weights: prior, biases: prior, beat: &beat}
	offset := make([]float64, c.outputs*(rows.D+1))
	if err := c.minimise(offset); err != nil {
		return nil, err
	}
	from, _ := s.Span(p)
	for i, o := range c.tensor(offset) {
		// An offset is small beside the largest number, a parameter perhaps not.
		out[from+i] = min(max(out[from+i]+o, -math.MaxFloat64), math.MaxFloat64)
	}
	return out, nil
}

var errRows = errors.New("a number in the rows is not finite")

// finiteRows tells whether all numbers of the rows are finite.
func finiteRows(data dataset.Samples) bool { return allFinite(data.X) && allFinite(data.T) }

// last returns the rows that enter the last layer, or rows of no numbers where
// those are not asked for, and the layer's scores.
func (s Spec) last(params []float64, data dataset.Samples, inputs bool, beat *pulse) (rows dataset.Samples, scores []float64, err error) {
	outputs := s.outputs()
	scores = make([]float64, data.N*outputs)
	rows = dataset.Samples{N: data.N, Y: data.Y, T: data.T}
	if s.Kind != MLP {
		if inputs {
			rows = data
		}
		for i := range data.N {
			s.scores(params, data.X[i*s.Inputs:], scores[i*outputs:(i+1)*outputs])
			if err := beat.add(len(params)); err != nil {
				return rows, nil, err
			}
		}
	} else {
		n := new(network)
		n.resize(s, data.N)
		narrow(&n.params, params)
		width := s.Hidden[len(s.Hidden)-1]
		if inputs {
			rows.D, rows.X = width, make([]float64, data.N*width)
		}
		err = n.blocks(data, func(from, size int) error {
			widen(scores[from*outputs:], n.units[len(s.Hidden)][:size*outputs])
			if inputs {
				widen(rows.X[from*width:], n.units[len(s.Hidden)-1][:size*width])
			}
			return beat.add(size * len(params))
		})
		if err != nil {
			return rows, nil, err
		}
	}
	if inputs && !finiteRows(rows) {
		return rows, nil, fmt.Errorf("fit: %w: the model's parameters are too large for them", errRows)
	}
	for i, z := range scores {
		scores[i] = bounded(z)
	}
	return rows, scores, nil
}
