package tasks

import (
	"context"

	"village/node/api"
	"village/protocol/member"
	"village/protocol/record"
	"village/protocol/task"
)

// FewestRows is how many rows a dataset needs before the node publishes
// statistics of them under a task: the mean of a few rows tells the rows.
const FewestRows = 10

// Join enrols in a task with an own dataset.
func (t *Tasks) Join(ctx context.Context, j api.Join) (api.Joined, error) {
	next := "village task show " + j.Task.String()
	run := t.run(j.Task)
	switch {
	case run == nil:
		return api.Joined{}, api.Fail(api.CodeFailed, "village task list", "task %s is not known here", j.Task)
	case !run.task.Named(t.Home.ID):
		return api.Joined{}, api.Fail(api.CodeDenied, next, "the task does not name this node")
	}
	cid, err := t.Datasets.Choose(run.task, j)
	if err != nil {
		return api.Joined{}, err
	}
	site, parent, err := run.rows(cid, func(cid record.CID) (task.Model, error) {
		m, _, err := t.Models.Get(ctx, cid)
		return m, err
	})
	if err != nil {
		return api.Joined{}, api.Fail(api.CodeFailed, "village dataset show "+cid.String(), "%v", err)
	}
	train, test := site.Rows()
	if train+test < FewestRows {
		return api.Joined{}, api.Fail(api.CodeDenied, "village dataset list --mine",
			"the dataset has %d rows; with fewer than %d, the statistics that a task publishes would tell the rows", train+test, FewestRows)
	}
	answer := api.Joined{Schema: "village.task.join/v1", Task: j.Task, Dataset: cid, TrainRows: uint64(train), TestRows: uint64(test)}
	var problem error
	err = run.ask(ctx, func() {
		_, twice := run.Enrolment(t.Home.ID)
		switch {
		case twice:
			problem = api.Fail(api.CodeFailed, next, "this node has joined the task already")
		case run.sealed || run.HasLeft(t.Home.ID):
			problem = api.Fail(api.CodeFailed, next, "the task is over for this node: its model is sealed, or the node has left it")
		case !run.Resumed():
			problem = api.Fail(api.CodeFailed, next, "the disk of this node has lost records, and peers are asked for them before anything is signed; try again in a minute")
		default:
			answer.CID, problem = run.enrol(site, parent, cid)
		}
	})
	if err == nil {
		err = problem
	}
	if err != nil {
		return api.Joined{}, err
	}
	return answer, nil
}

// enrol has the machine enrol with the rows of a site.
func (r *run) enrol(site *member.Site, parent *task.Model, manifest record.CID) (record.CID, error) {
	config := r.tasks.Home.Config()
	r.enter(site, parent)
	r.step(member.Enrol{Enrolment: site.Enrolment(manifest, config.Nation, config.Name)})
	if enrolled, ok := r.Enrolment(r.tasks.Home.ID); ok {
		return enrolled.CID, nil
	}
	why := r.err
	if last := r.tasks.Log.Last(); why == "" && last != "" {
		why = last + "; it is tried again"
	}
	return record.CID{}, api.Fail(api.CodeFailed, "village status", "the enrolment could not be stored: %s", why)
}

// Leave ends the node's part in a task for good.
func (t *Tasks) Leave(ctx context.Context, id record.CID) (api.Left, error) {
	next := "village task show " + id.String()
	answer := api.Left{Schema: "village.task.leave/v1", Task: id}
	run := t.run(id)
	switch {
	case run == nil:
		return answer, unknown(id)
	case !run.task.Named(t.Home.ID):
		return answer, api.Fail(api.CodeDenied, next, "the task does not name this node")
	}
	var problem error
	err := run.ask(ctx, func() {
		switch {
		case run.sealed:
			problem = api.Fail(api.CodeFailed, next, "the task's model is sealed; what this node gave to it cannot be taken back")
		case run.HasLeft(t.Home.ID):
			problem = api.Fail(api.CodeFailed, next, "this node has left the task already")
		default:
			if run.step(member.Leave{}); !run.HasLeft(t.Home.ID) {
				problem = api.Fail(api.CodeFailed, "village status", "the leave could not be stored")
			}
		}
	})
	if err == nil {
		err = problem
	}
	return answer, err
}
