package demo

import (
	"fmt"

	"village/node/api"
	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/record"
	"village/protocol/task"
)

// longer is how many times a task's default steps the pooled model is trained,
// which takes it to its optimum: more steps move no parameter by 1e-8.
const longer = 20

// pooled is what a model of the same kind reaches that was trained on the rows
// of all hospitals in one place. Only the demo has them. Like the federated model
// it is evaluated where no node was lost.
type pooled struct {
	results     task.Results // all models are the pooled one
	tests       []int        // each hospital's test rows
	testRows    int          // those that it was evaluated on
	differences int          // test rows for which the federated model predicts another class
}

// pool trains the pooled model with the task's encoding and penalty, and sets
// the federated model beside it.
func pool(all []*hospital, shown api.ShownTask, federated task.Model) (pooled, error) {
	t := task.New(shown.Name, shown.Encoding, nil)
	t.Model, t.L2 = shown.Model, shown.L2
	spec := t.SpecOf(0)

	var training dataset.Table
	tests := make([]dataset.Table, len(all))
	enrolled := map[record.NodeID]task.Enrolled{}
	content := task.FinalContent{Round: shown.Rounds}
	for i, h := range all {
		train, test, err := h.divide(t.Encoding)
		if err != nil {
			return pooled{}, err
		}
		training.Columns = train.Columns
		training.Rows = append(training.Rows, train.Rows...)
		tests[i] = test
		enrolled[h.home.ID] = task.Enrolled{Author: h.home.ID}
		content.Parts = append(content.Parts, task.Part{Node: h.home.ID, Round: shown.Rounds})
	}
	samples, err := t.Encoding.Encode(training)
	if err != nil {
		return pooled{}, err
	}
	model := task.Model{Encoding: t.Encoding, Spec: spec, Scaling: dataset.MomentsOf(samples).Scaling()}
	model.Scaling.Apply(samples)
	steps := int(longer * t.Rounds * t.LocalSteps)
	model.Params, _, err = spec.Train(spec.Init(t.Seed), samples, learn.Training{Steps: steps, Rate: t.LearningRate, L2: t.L2})
	if err != nil {
		return pooled{}, fmt.Errorf("the pooled model: %w", err)
	}

	p := pooled{}
	evaluations := map[record.NodeID]task.Evaluation{}
	for i, h := range all {
		p.tests = append(p.tests, len(tests[i].Rows))
		if h.lost {
			continue
		}
		counts, err := count(model, tests[i])
		if err != nil {
			return pooled{}, err
		}
		evaluations[h.home.ID] = task.Evaluation{Local: counts, Federated: counts, Personal: counts}
		differ, err := differences(model, federated, tests[i])
		if err != nil {
			return pooled{}, err
		}
		p.testRows += p.tests[i]
		p.differences += differ
	}
	p.results, err = task.ResultsOf(t, record.CID{}, content, task.Roster{}, enrolled, evaluations)
	return p, err
}

// divide returns the hospital's rows for training and for tests.
func (h *hospital) divide(e dataset.Encoding) (train, test dataset.Table, err error) {
	cleaned, err := dataset.Clean(h.rows, options)
	if err == nil {
		train, test, err = e.Divide(cleaned.Table(), split, 0) // the split column decides, not a seed
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", h.name, err)
	}
	return train, test, err
}

// count sets a model's predictions for rows against their labels.
func count(m task.Model, rows dataset.Table) (learn.Counts, error) {
	samples, err := m.Encoding.Encode(rows)
	if err != nil {
		return learn.Counts{}, err
	}
	m.Scaling.Apply(samples)
	return m.Spec.Count(m.Params, samples), nil
}

// differences counts the rows for which two models predict different classes.
func differences(a, b task.Model, rows dataset.Table) (n int, err error) {
	pa, err := a.Predict(rows)
	if err != nil {
		return 0, err
	}
	pb, err := b.Predict(rows)
	if err != nil {
		return 0, err
	}
	for i := range pa {
		if a.Class(pa[i]) != b.Class(pb[i]) {
			n++
		}
	}
	return n, nil
}
