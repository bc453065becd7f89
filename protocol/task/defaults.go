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
		Name: name, Encoding: e, Nodes: nodes, Model: learn.Logistic,
		Rounds: 100, LocalSteps: 5, LearningRate: 0.2, L2: 0.001, Mixing: mixing.All,
	}
	if len(e.Classes) > 2 {
		t.Model = learn.Softmax
	}
	return t
}
