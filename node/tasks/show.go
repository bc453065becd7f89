package tasks

import (
	"context"

	"village/node/api"
	"village/protocol/record"
)

// List describes every task in a line, the oldest first. It waits for none.
func (t *Tasks) List() []api.TaskSummary {
	list := []api.TaskSummary{}
	for _, run := range t.ordered() {
		list = append(list, *run.seen.Load())
	}
	return list
}

// Show describes a task.
func (t *Tasks) Show(ctx context.Context, id record.CID, schema string) (api.ShownTask, error) {
	var answer api.ShownTask
	run := t.run(id)
	if run == nil {
		return answer, unknown(id)
	}
	err := run.ask(ctx, func() {
		run.asked()
		answer = run.shown(schema)
	})
	return answer, err
}

func (r *run) shown(schema string) api.ShownTask {
	t := r.task
	answer := api.ShownTask{
		Schema: schema, TaskSummary: r.summary(),
		Description: t.Description, Encoding: t.Encoding, Target: t.Encoding.Target, Features: []string{},
		Training: t.Training, Nodes: []api.TaskNode{}, RoundTime: float64(t.RoundTime) / 1000, Search: t.Search,
		Certified: r.Certified(),
	}
	for _, f := range t.Encoding.Features {
		answer.Features = append(answer.Features, f.String())
	}
	if t.Parent != nil {
		answer.Parent = t.Parent.Model
	}
	if t.Search != nil {
		answer.Kept = r.Kept()
	}
	var called map[record.NodeID]api.NamedNode // only where one is needed: manifests are many
	for _, id := range t.Nodes {
		e, enrolled := r.Enrolment(id)
		if !enrolled {
			if called == nil {
				called = r.tasks.Datasets.Names()
			}
			e.Nation, e.Node = called[id].Nation, called[id].Name
		}
		answer.Nodes = append(answer.Nodes, api.TaskNode{
			PeerID: id, Nation: e.Nation, Name: e.Node, Enrolled: enrolled, Dataset: e.Manifest,
			TrainRows: e.Moments.Count, Round: r.roundOf(id), Evaluated: r.HasEvaluated(id),
			Late: enrolled && r.Roster().Defined() && !r.InRoster(id),
			Left: r.HasLeft(id), Silent: r.IsSilent(id), Equivocated: r.Equivocated(id),
		})
	}
	return answer
}

// roundOf is the newest round of which there is an update of a node, be it in the
// machine or kept for others.
func (r *run) roundOf(id record.NodeID) uint64 {
	round := r.RoundOf(id)
	if list := r.vectors[id]; len(list) > 0 {
		round = max(round, list[0].record.Number)
	}
	return round
}
