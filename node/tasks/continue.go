package tasks

import (
	"cmp"
	"context"
	"time"

	"village/node/api"
	"village/protocol/task"
)

// Continue publishes a task that goes on from a model.
func (t *Tasks) Continue(ctx context.Context, c api.Continue) (api.Proposed, error) {
	m, _, err := t.Models.Get(ctx, c.Model)
	if err != nil {
		return api.Proposed{}, err
	}
	next, known := t.Book.Task(m.Task)
	if !known {
		return api.Proposed{}, api.Fail(api.CodeFailed, "village task list", "the task %s that made the model is not known here", m.Task)
	}
	if next.Search != nil { // what was chosen goes on
		next = chosen(next, m)
	}
	next.Search, next.Parent = nil, &task.Parent{Model: c.Model, Scaling: m.Scaling}
	next.Created = uint64(time.Now().Unix())
	next.Name, next.Description = cmp.Or(c.Name, next.Name), cmp.Or(c.Description, next.Description)
	next.Rounds, next.LocalSteps = cmp.Or(c.Rounds, next.Rounds), cmp.Or(c.LocalSteps, next.LocalSteps)
	next.LearningRate = cmp.Or(c.LearningRate, next.LearningRate)
	if len(c.Nodes) > 0 {
		next.Nodes = distinct(c.Nodes)
	}
	if err := next.Check(); err != nil {
		return api.Proposed{}, api.Fail(api.CodeUsage, "village task continue --help", "%v", err)
	}
	return t.Propose(ctx, next)
}

// chosen is the task that a search has come down to with a model.
func chosen(t task.Task, m task.Model) task.Task {
	for i := range t.Search.Candidates { // a model may name one that is not
		if t.SpecOf(i).Equal(m.Spec) && i == m.Candidate {
			t.Settings.Candidate = t.Candidate(i)
		}
	}
	return t
}
