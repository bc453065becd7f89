package task

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"village/protocol/learn"
	"village/protocol/safetensors"
)

// An update's vector holds, for every candidate that is still in the search, or
// for the one model of a task without, the parameters that the round came to, and
// what else has to be averaged with them: where an outer rule needs it, the start of
// the round and the moments then; with Scaffold, the node's control variate. All of
// it is mixed alike, entry by entry.

// State is one candidate's share of a vector, of which it is a view. What the task
// does not need is nil.
type State struct {
	Params  []float64
	Start   []float64   // of the round
	Moments [][]float64 // of the outer rule, at the start of the round
	Control []float64   // SCAFFOLD's control variate, after the round
}

// Set makes the state what another of the same candidate is.
func (s State) Set(o State) {
	copy(s.Params, o.Params)
	copy(s.Start, o.Start)
	for i, m := range o.Moments {
		copy(s.Moments[i], m)
	}
	copy(s.Control, o.Control)
}

// Candidate returns the candidate of an index: of a task without a search, 0 is
// the task itself.
func (t Task) Candidate(i int) Candidate {
	if t.Search != nil {
		return t.Search.Candidates[i]
	}
	return t.Settings.Candidate
}

// Everyone is the list of all candidates.
func (t Task) Everyone() []int {
	n := 1
	if t.Search != nil {
		n = len(t.Search.Candidates)
	}
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// SpecOf is the shape of a candidate's model.
func (t Task) SpecOf(candidate int) learn.Spec {
	c := t.Candidate(candidate)
	return learn.Spec{Kind: c.Model, Inputs: t.Encoding.Width(), Classes: len(t.Encoding.Classes), Hidden: c.Hidden}
}

// blocks is how many vectors of the length of its parameters a candidate has.
func (t Task) blocks(candidate int) int {
	n := 1
	if moments := t.Candidate(candidate).Outer.Moments(); moments > 0 {
		n += 1 + moments
	}
	if t.Scaffold {
		n++
	}
	return n
}

// Length is that of the vector of some candidates.
func (t Task) Length(kept []int) int {
	n := 0
	for _, c := range kept {
		n += t.blocks(c) * t.SpecOf(c).Params()
	}
	return n
}

// States splits the vector of some candidates, in their order.
func (t Task) States(kept []int, vector []float64) []State {
	states := make([]State, len(kept))
	for i, c := range kept {
		size := t.SpecOf(c).Params()
		next := func() []float64 {
			block := vector[:size:size]
			vector = vector[size:]
			return block
		}
		s := &states[i]
		s.Params = next()
		if moments := t.Candidate(c).Outer.Moments(); moments > 0 {
			s.Start = next()
			for range moments {
				s.Moments = append(s.Moments, next())
			}
		}
		if t.Scaffold {
			s.Control = next()
		}
	}
	return states
}

// First is the vector that training starts from: of linear models zeros, of
// perceptrons what the task's seed says, or the parent's parameters.
func (t Task) First(parent []float64) []float64 {
	kept := t.Everyone()
	vector := make([]float64, t.Length(kept))
	for i, s := range t.States(kept, vector) {
		if parent != nil {
			copy(s.Params, parent)
		} else {
			copy(s.Params, t.SpecOf(i).Init(t.Seed+uint64(i)))
		}
		t.strip(i, s.Params)
		copy(s.Start, s.Params)
		for j, m := range s.Moments {
			if begin := t.Candidate(i).Outer.Begin(j); begin != 0 {
				for k := range m {
					m[k] = begin
				}
			}
		}
	}
	return vector
}

// strip clears the part that every node has for itself.
func (t Task) strip(candidate int, params []float64) {
	from, to := t.SpecOf(candidate).Span(t.Personal)
	clear(params[from:to])
}

// Project returns the vector of some candidates out of that of more, or false if
// it has not all of them.
func (t Task) Project(vector []float64, of, kept []int) ([]float64, bool) {
	if slices.Equal(of, kept) {
		return vector, true
	}
	out := make([]float64, 0, t.Length(kept))
	for _, c := range of {
		n := t.Length([]int{c})
		if len(kept) > 0 && kept[0] == c {
			out, kept = append(out, vector[:n]...), kept[1:]
		}
		vector = vector[n:]
	}
	return out, len(kept) == 0
}

// Advance turns a mix of vectors into what the next round starts from, in place:
// Params are then the averaged model's, where the outer rule takes it.
func (t Task) Advance(kept []int, mix []float64) []State {
	states := t.States(kept, mix)
	for i, c := range kept {
		if s := states[i]; s.Start != nil {
			candidate := t.Candidate(c)
			candidate.Outer.Advance(candidate.OuterRate, s.Params, s.Start, s.Moments)
			copy(s.Start, s.Params)
		}
	}
	return states
}

// tensors names the parts of a vector.
func (t Task) tensors(kept []int, vector []float64) []safetensors.Tensor {
	var tensors []safetensors.Tensor
	for i, s := range t.States(kept, vector) {
		prefix := ""
		if t.Search != nil {
			prefix = strconv.Itoa(kept[i]) + "/"
		}
		add := func(block string, values []float64) {
			if values == nil {
				return
			}
			for _, tensor := range t.SpecOf(kept[i]).Tensors(values) {
				tensor.Name = prefix + block + tensor.Name
				tensors = append(tensors, tensor)
			}
		}
		add("", s.Params)
		add("start/", s.Start)
		for j, m := range s.Moments {
			add("moment"+strconv.Itoa(j+1)+"/", m)
		}
		add("control/", s.Control)
	}
	return tensors
}

// header bounds how many bytes of a vector's file are not its numbers: a tensor
// takes about a hundred, for its name, shape and place.
func (t Task) header(kept []int) int {
	n := 64
	for _, c := range kept {
		n += 128 * 2 * (len(t.Candidate(c).Hidden) + 1) * t.blocks(c)
	}
	return n
}

// vector reads a vector and insists on the one way to write it, so that no two
// updates with the same parameters have other bytes.
func (t Task) vector(b []byte, kept []int) ([]float64, error) {
	vector := make([]float64, t.Length(kept))
	wanted := t.tensors(kept, vector)
	tensors, metadata, err := safetensors.Unmarshal(b, safetensors.Limits{Tensors: len(wanted), Dims: 2})
	if err != nil {
		return nil, err
	}
	if len(metadata) != 0 {
		return nil, errors.New("vector with metadata")
	}
	if len(tensors) != len(wanted) {
		return nil, fmt.Errorf("vector of %d tensors, the task has %d", len(tensors), len(wanted))
	}
	byName := make(map[string]safetensors.Tensor, len(tensors))
	for _, tensor := range tensors {
		byName[tensor.Name] = tensor
	}
	for _, w := range wanted {
		tensor, ok := byName[w.Name]
		if !ok || tensor.DType != w.DType || !slices.Equal(tensor.Shape, w.Shape) || len(tensor.F64) != len(w.F64) {
			return nil, fmt.Errorf("the tensor %s is missing or of another shape", w.Name)
		}
		copy(w.F64, tensor.F64)
	}
	again, err := safetensors.Marshal(wanted, nil)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(again, b) {
		return nil, errors.New("vector is not in canonical form")
	}
	return vector, nil
}

// checkKept refuses a list that is not some of the candidates in their order.
func (t Task) checkKept(kept []int) error {
	if t.Search == nil {
		if len(kept) != 0 {
			return errors.New("candidates in a task without a search")
		}
		return nil
	}
	if len(kept) == 0 {
		return errors.New("no candidate is left")
	}
	for i, c := range kept {
		if c < 0 || c >= len(t.Search.Candidates) || i > 0 && c <= kept[i-1] {
			return fmt.Errorf("candidates %v of %d", kept, len(t.Search.Candidates))
		}
	}
	return nil
}
