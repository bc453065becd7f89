package node

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"village/node/api"
	"village/protocol/dataset"
	"village/protocol/record"
	"village/protocol/task"
)

// goOn publishes a task that goes on from a model.
func (n *Node) goOn(ctx context.Context, c api.Continue) (api.Proposed, error) {
	m, _, err := n.model(ctx, c.Model)
	if err != nil {
		return api.Proposed{}, err
	}
	n.mu.RLock()
	t, known := n.tasks[m.Task]
	n.mu.RUnlock()
	if !known {
		return api.Proposed{}, api.Fail(api.CodeFailed, "village task list", "the task %s that made the model is not known here", m.Task)
	}
	if t.Search != nil { // what was chosen goes on
		t = chosen(t, m)
	}
	t.Search, t.Parent = nil, &task.Parent{Model: c.Model, Scaling: m.Scaling}
	t.Created = uint64(time.Now().Unix())
	set(&t.Name, c.Name)
	set(&t.Description, c.Description)
	set(&t.Rounds, c.Rounds)
	set(&t.LocalSteps, c.LocalSteps)
	set(&t.LearningRate, c.LearningRate)
	if len(c.Nodes) > 0 {
		t.Nodes = ordered(c.Nodes)
	}
	if err := t.Check(); err != nil {
		return api.Proposed{}, api.Fail(api.CodeUsage, "village task continue --help", "%v", err)
	}
	return n.Propose(ctx, t)
}

// chosen is the task that a search has come down to with a model.
func chosen(t task.Task, m task.Model) task.Task {
	for i := range t.Search.Candidates {
		if t.SpecOf(i).Equal(m.Spec) && i == m.Candidate {
			c := t.Candidate(i)
			t.Model, t.Hidden, t.LocalSteps, t.LearningRate = c.Model, c.Hidden, c.LocalSteps, c.LearningRate
			t.L2, t.Optimizer, t.Outer, t.OuterRate = c.L2, c.Optimizer, c.Outer, c.OuterRate
		}
	}
	return t
}

// parent returns the model that a task goes on from, nil where it goes on from
// none.
func (n *Node) parent(ctx context.Context, t task.Task) (*task.Model, error) {
	if t.Parent == nil {
		return nil, nil
	}
	m, _, err := n.model(ctx, t.Parent.Model)
	if err != nil {
		return nil, err
	}
	of := func(e dataset.Encoding, s dataset.Scaling) []byte {
		b, _ := record.Encode([]any{e, s}) // was encoded before
		return b
	}
	if !m.Spec.Equal(t.SpecOf(0)) || !bytes.Equal(of(m.Encoding, m.Scaling), of(t.Encoding, t.Parent.Scaling)) {
		return nil, fmt.Errorf("the task goes on from model %s, but has another encoding, scaling or shape", t.Parent.Model)
	}
	return &m, nil
}

// lineage is the models that a model goes on from, newest first, as far as they are
// here.
func (n *Node) lineage(ctx context.Context, m task.Model) []record.CID {
	const most = 100
	var models []record.CID
	for m.Parent != nil && len(models) < most {
		models = append(models, *m.Parent)
		b, err := n.read(ctx, *m.Parent)
		if err != nil {
			break
		}
		if m, err = task.UnmarshalModel(b); err != nil {
			break
		}
	}
	return models
}
