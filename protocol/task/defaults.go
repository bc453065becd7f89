package task

import (
	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/mixing"
	"village/protocol/record"
)

// New returns a task with the default model and training for an encoding. Local
// steps times learning rate stay at 1: more makes the local drift between
// unequal nodes visible in the ranking (ROC-AUC).
func New(name string, e dataset.Encoding, nodes []record.NodeID) Task {
	t := Task{
		Name: name, Encoding: e, Nodes: nodes,
		Rounds: 100, LocalSteps: 5, LearningRate: 0.2, L2: 0.001, Mixing: mixing.All,
	}
	t.Model = Regression(e)
	return t
}

// Regression is the convex model for a target.
func Regression(e dataset.Encoding) learn.Kind {
	switch len(e.Classes) {
	case 0:
		return learn.Linear
	case 2:
		return learn.Logistic
	}
	return learn.Softmax
}

// SetOuter chooses an outer rule, and its usual rate where that is 0.
func (t *Task) SetOuter(o learn.Outer, rate float64) {
	if rate == 0 {
		switch o {
		case learn.Nesterov:
			rate = 0.7
		case learn.OuterAdam, learn.OuterYogi:
			rate = 0.1
		}
	}
	t.Outer, t.OuterRate = o, rate
}

// SearchAmong has the nodes choose among n candidates drawn from a space.
func (t *Task) SearchAmong(s Space, n int) {
	candidates := s.Filled(t.Encoding).Draw(n, *t)
	t.Search = &Search{Candidates: candidates, Rungs: Halving(len(candidates), t.Rounds)}
}
