package task

import (
	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/record"
)

// New returns a task with the default model and training for an encoding.
func New(name string, e dataset.Encoding, nodes []record.NodeID) Task {
	t := Task{Name: name, Encoding: e, Nodes: nodes, Settings: Defaults()}
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

// SearchAmong has the nodes choose among n candidates drawn from a space.
func (t *Task) SearchAmong(s Space, n int) {
	candidates := s.Filled(t.Encoding).Draw(n, *t)
	t.Search = &Search{Candidates: candidates, Rungs: Halving(len(candidates), t.Rounds)}
}
