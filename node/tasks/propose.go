package tasks

import (
	"context"
	"slices"
	"time"

	"village/node/api"
	"village/protocol/dataset"
	"village/protocol/record"
	"village/protocol/task"
)

// Draft publishes the task that a proposal comes to.
func (t *Tasks) Draft(ctx context.Context, p api.Propose) (api.Proposed, error) {
	drafted, err := t.draft(p)
	if err != nil {
		return api.Proposed{}, err
	}
	return t.Propose(ctx, drafted)
}

// Propose publishes a task as it stands, and returns when a peer has stored it or
// none is there to do so.
func (t *Tasks) Propose(ctx context.Context, proposed task.Task) (api.Proposed, error) {
	subject, err := proposed.Subject()
	if err != nil {
		return api.Proposed{}, err
	}
	r, content, err := t.Book.Sign(record.KindTask, subject, 0, proposed)
	if err != nil {
		return api.Proposed{}, err
	}
	if err := t.Book.Announce(r, content); err != nil {
		return api.Proposed{}, err
	}
	answer := api.Proposed{Schema: "village.task.propose/v1", CID: r.CID, Name: proposed.Name, StoredBy: t.Book.Deliver(ctx, r)}
	if answer.StoredBy == 0 && (len(proposed.Nodes) > 1 || !proposed.Named(t.Home.ID)) {
		answer.Warning = "no peer has stored the task yet; keep this daemon running until one has connected"
	}
	return answer, nil
}

// draft fills in what a proposal leaves out, from the manifests of the nodes
// that it names.
func (t *Tasks) draft(p api.Propose) (task.Task, error) {
	const next = "village dataset list"
	if p.Target == "" || len(p.Nodes) == 0 {
		return task.Task{}, api.Fail(api.CodeUsage, "village task propose --help", "a task needs a target and the nodes that may take part")
	}
	columns, err := dataset.Needed(p.Features)
	if err != nil {
		return task.Task{}, api.Fail(api.CodeUsage, "village task propose --help", "%v", err)
	}
	if p.Sensitive != "" {
		columns = append(columns, p.Sensitive)
	}
	nodes := distinct(p.Nodes)
	manifests, err := t.Datasets.Newest(nodes, p.Target, columns)
	if err != nil {
		return task.Task{}, api.Fail(api.CodeFailed, next, "%v", err)
	}
	encoding, err := dataset.NewEncoding(p.Target, p.Features, p.Sensitive, manifests)
	if err != nil {
		return task.Task{}, api.Fail(api.CodeFailed, next, "%v", err)
	}
	d := task.New(p.Name, encoding, nodes)
	d.Description, d.Created = p.Description, uint64(time.Now().Unix())
	d.Settings = p.Settings.Over(d.Settings)
	if p.L2 != nil {
		d.L2 = *p.L2
	}
	if p.Seconds > 0 {
		d.RoundTime = uint64(max(1, 1000*p.Seconds/float64(d.Rounds)))
	}
	if p.Auto > 0 {
		d.SearchAmong(p.Search, p.Auto)
	}
	if err := d.Check(); err != nil {
		return task.Task{}, api.Fail(api.CodeUsage, "village task propose --help", "%v", err)
	}
	return d, nil
}

// distinct is each node once, in peer-ID order.
func distinct(nodes []record.NodeID) []record.NodeID {
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, record.NodeID.Compare)
	return slices.Compact(nodes)
}
