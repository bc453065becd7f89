package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"village/node/api"
	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/member"
	"village/protocol/record"
	"village/protocol/task"
)

// FewestRows is how many rows a dataset needs before the node publishes
// statistics of them under a task: the mean of a few rows tells the rows.
const FewestRows = 10

// propose publishes a task.
func (n *Node) propose(ctx context.Context, p api.Propose) (api.Proposed, error) {
	t, err := n.draft(p)
	if err != nil {
		return api.Proposed{}, err
	}
	return n.Propose(ctx, t)
}

// Propose publishes a task as it stands, and returns when a peer has stored it or
// none is there to do so.
func (n *Node) Propose(ctx context.Context, t task.Task) (api.Proposed, error) {
	subject, err := t.Subject()
	if err != nil {
		return api.Proposed{}, err
	}
	r, err := record.Sign(n.home.Key, n.home.Config().Federation, record.KindTask, subject, 0, t)
	if err != nil {
		return api.Proposed{}, err
	}
	if err := n.announce(r); err != nil {
		return api.Proposed{}, err
	}
	answer := api.Proposed{Schema: "village.task.propose/v1", CID: r.CID, Name: t.Name, StoredBy: n.network.Deliver(ctx, r)}
	if answer.StoredBy == 0 && (len(t.Nodes) > 1 || !t.Named(n.home.ID)) {
		answer.Warning = "no peer has stored the task yet; keep this daemon running until one has connected"
	}
	return answer, nil
}

// draft fills in what a proposal leaves out, from the manifests of the nodes
// that it names.
func (n *Node) draft(p api.Propose) (task.Task, error) {
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
	nodes := ordered(p.Nodes)
	var manifests []dataset.Manifest
	for _, id := range nodes {
		m, err := n.fitting(id, p.Target, columns)
		if err != nil {
			return task.Task{}, api.Fail(api.CodeFailed, next, "%v", err)
		}
		manifests = append(manifests, m)
	}
	encoding, err := dataset.NewEncoding(p.Target, p.Features, p.Sensitive, manifests)
	if err != nil {
		return task.Task{}, api.Fail(api.CodeFailed, next, "%v", err)
	}
	t := task.New(p.Name, encoding, nodes)
	t.Description, t.Created = p.Description, uint64(time.Now().Unix())
	t.Seed, t.Batch, t.Tolerance = p.Seed, p.Batch, p.Tolerance
	if p.Model != "" {
		t.Model = learn.Kind(p.Model)
	}
	set(&t.Rounds, p.Rounds)
	set(&t.LocalSteps, p.LocalSteps)
	set(&t.LearningRate, p.LearningRate)
	set(&t.Mixing, p.Mixing)
	if p.L2 != nil {
		t.L2 = *p.L2
	}
	if t.Hidden = p.Hidden; len(p.Hidden) > 0 && p.Model == "" {
		t.Model = learn.MLP
	}
	t.Optimizer, t.Prox, t.Scaffold = learn.Optimizer(p.Optimizer), p.Prox, p.Scaffold
	t.SetOuter(learn.Outer(p.Outer), p.OuterRate)
	t.Personal = learn.Part(p.Personal)
	if p.Seconds > 0 {
		t.RoundTime = uint64(max(1, 1000*p.Seconds/float64(t.Rounds)))
	}
	if p.Auto > 0 {
		t.SearchAmong(p.Search, p.Auto)
	}
	if err := t.Check(); err != nil {
		return task.Task{}, api.Fail(api.CodeUsage, "village task propose --help", "%v", err)
	}
	return t, nil
}

// ordered is each node once, in peer-ID order.
func ordered(nodes []record.NodeID) []record.NodeID {
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, record.NodeID.Compare)
	return slices.Compact(nodes)
}

func set[T comparable](to *T, v T) {
	var zero T
	if v != zero {
		*to = v
	}
}

// fitting finds the newest dataset of a node that has the target and columns.
func (n *Node) fitting(id record.NodeID, target string, columns []string) (dataset.Manifest, error) {
	var newest *dataset.Manifest
	var lack error
	for _, d := range n.datasets() {
		if d.PeerID != id {
			continue
		}
		if err := d.Lacks(target, columns); err != nil {
			if lack == nil || d.Target == target {
				lack = err
			}
		} else if newest == nil || d.Created >= newest.Created {
			m := d.Manifest
			newest = &m
		}
	}
	switch {
	case newest != nil:
		return *newest, nil
	case lack != nil:
		return dataset.Manifest{}, lack
	}
	return dataset.Manifest{}, fmt.Errorf("no dataset of node %s is known here; it may not have added one, or this node has not been connected to it", id)
}

// Join enrols in a task with an own dataset.
func (n *Node) Join(ctx context.Context, j api.Join) (api.Joined, error) {
	n.mu.RLock()
	t, known := n.tasks[j.Task]
	n.mu.RUnlock()
	if !known {
		return api.Joined{}, api.Fail(api.CodeFailed, "village task list", "task %s is not known here", j.Task)
	}
	if !t.Named(n.home.ID) {
		return api.Joined{}, api.Fail(api.CodeDenied, "village task show "+j.Task.String(), "the task does not name this node")
	}
	cid, err := n.chooseDataset(t, j)
	if err != nil {
		return api.Joined{}, err
	}
	site, parent, err := n.site(ctx, j.Task, t, cid)
	if err != nil {
		return api.Joined{}, api.Fail(api.CodeFailed, "village dataset show "+cid.String(), "%v", err)
	}
	train, test := site.Rows()
	if train+test < FewestRows {
		return api.Joined{}, api.Fail(api.CodeDenied, "village dataset list --mine",
			"the dataset has %d rows; with fewer than %d, the statistics that a task publishes would tell the rows", train+test, FewestRows)
	}
	config := n.home.Config()
	var enrolled task.Enrolled
	var ok, twice, late bool
	var why string
	if err := n.ask(ctx, func() {
		run := n.runs[j.Task]
		_, twice = run.member.Enrolment(n.home.ID)
		if late = run.sealed || run.member.HasLeft(n.home.ID); twice || late {
			return
		}
		run.site = site
		if parent != nil {
			run.member.From(parent.Params)
		}
		n.step(run, member.Enrol{Enrolment: site.Enrolment(cid, config.Nation, config.Name)})
		enrolled, ok = run.member.Enrolment(n.home.ID)
		why = run.err
		if text := n.lastError.Load(); why == "" && text != nil {
			why = *text + "; it is tried again"
		}
	}); err != nil {
		return api.Joined{}, err
	}
	switch {
	case twice:
		return api.Joined{}, api.Fail(api.CodeFailed, "village task show "+j.Task.String(), "this node has joined the task already")
	case late:
		return api.Joined{}, api.Fail(api.CodeFailed, "village task show "+j.Task.String(), "the task is over for this node: its model is sealed, or the node has left it")
	case !ok:
		return api.Joined{}, api.Fail(api.CodeFailed, "village status", "the enrolment could not be stored: %s", why)
	}
	return api.Joined{
		Schema: "village.task.join/v1", CID: enrolled.CID, Task: j.Task, Dataset: cid,
		TrainRows: uint64(train), TestRows: uint64(test),
	}, nil
}

// Leave ends the node's part in a task for good.
func (n *Node) Leave(ctx context.Context, id record.CID) (api.Left, error) {
	next := "village task show " + id.String()
	var problem error
	err := n.ask(ctx, func() {
		run := n.runs[id]
		switch {
		case run == nil:
			problem = api.Fail(api.CodeFailed, "village task list", "no task %s is known here", id)
		case !run.task.Named(n.home.ID):
			problem = api.Fail(api.CodeDenied, next, "the task does not name this node")
		case run.sealed:
			problem = api.Fail(api.CodeFailed, next, "the task's model is sealed; what this node gave to it cannot be taken back")
		case run.member.HasLeft(n.home.ID):
			problem = api.Fail(api.CodeFailed, next, "this node has left the task already")
		default:
			n.step(run, member.Leave{})
			if !run.member.HasLeft(n.home.ID) {
				problem = api.Fail(api.CodeFailed, "village status", "the leave could not be stored")
			}
		}
	})
	return api.Left{Schema: "village.task.leave/v1", Task: id}, errors.Join(err, problem)
}

// chooseDataset checks the dataset that was named for a task, or finds the only
// own one that fits.
func (n *Node) chooseDataset(t task.Task, j api.Join) (record.CID, error) {
	var fit []api.Dataset
	var lack error
	for _, d := range n.datasets() {
		if !d.Mine || j.Dataset.Defined() && d.CID != j.Dataset {
			continue
		}
		if err := d.Fits(t.Encoding); err != nil {
			if lack == nil || d.Target == t.Encoding.Target {
				lack = err
			}
		} else {
			fit = append(fit, d)
		}
	}
	const next = "village dataset list --mine"
	switch {
	case len(fit) == 1:
		return fit[0].CID, nil
	case len(fit) > 1:
		return record.CID{}, api.Fail(api.CodeUsage, fmt.Sprintf("village task join %s --dataset %s", j.Task, fit[0].CID),
			"%d own datasets fit the task; name the one to use", len(fit))
	case lack != nil:
		return record.CID{}, api.Fail(api.CodeFailed, next, "%v", lack)
	case j.Dataset.Defined():
		return record.CID{}, api.Fail(api.CodeFailed, next, "%s is not a dataset of this node", j.Dataset)
	}
	return record.CID{}, api.Fail(api.CodeFailed, "village dataset add FILE --name N --target "+t.Encoding.Target, "this node has no dataset")
}
