package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"village/protocol/member"
	"village/protocol/record"
	"village/protocol/task"
	"village/storage"
)

// retry is how long the daemon waits before it tries again what its own disk
// refused.
const retry = 5 * time.Second

// run is a task at this node. It belongs to the loop.
type run struct {
	id       record.CID
	proposer record.NodeID
	task     task.Task
	member   *member.Member
	site     *member.Site // nil where the node has not enrolled
	working  sync.Mutex   // held while the site works
	wake     *time.Timer
	size     int64      // of the sealed model's artifact, in bytes
	report   record.CID // the results as an artifact, once they are complete
	err      string     // why the task does not move here
}

// restore builds the machines from the store's records, before the network is
// there to change them.
func (n *Node) restore() {
	for _, r := range n.store.Records(record.KindTask) {
		t, err := task.TaskOf(r)
		if err != nil {
			n.fail(fmt.Errorf("the store holds task %s, which this program refuses: %w", r.CID, err))
			continue
		}
		n.tasks[r.CID] = t
	}
	for _, r := range n.store.Records(record.KindTask) {
		t, ok := n.tasks[r.CID]
		if !ok {
			continue
		}
		run := n.open(r, t)
		var records []member.Received
		for _, cid := range n.store.Group(r.CID.String()) {
			held, err := n.store.Record(cid)
			if err != nil {
				n.fail(fmt.Errorf("cannot read record %s: %w", cid, err))
				continue
			}
			content, err := n.decode(held)
			if err != nil {
				n.fail(fmt.Errorf("the store holds record %s, which this program refuses: %w", cid, err))
				continue
			}
			records = append(records, member.Received{CID: cid, Author: held.Author, Number: held.Number, Body: content})
		}
		run.member.Restore(n.now(), records)
		if e, enrolled := run.member.Enrolment(n.home.ID); enrolled {
			site, err := n.site(run.id, t, e.Manifest)
			if err != nil {
				run.err = err.Error()
				n.fail(fmt.Errorf("task %q: %w", t.Name, err))
			}
			run.site = site
		}
	}
}

// resume sets the restored machines going.
func (n *Node) resume() {
	n.post(func() {
		for _, run := range n.runs {
			n.step(run, member.Tick{})
		}
	})
}

// open begins to follow a task.
func (n *Node) open(r record.Record, t task.Task) *run {
	if run := n.runs[r.CID]; run != nil {
		return run
	}
	run := &run{id: r.CID, proposer: r.Author, task: t, member: member.New(n.home.ID, r.CID, t)}
	n.runs[r.CID] = run
	return run
}

// step gives a machine an event and performs what it asks for.
func (n *Node) step(run *run, e member.Event) {
	for _, effect := range run.member.Step(n.now(), e) {
		n.perform(run, effect)
	}
	n.notify()
}

func (n *Node) perform(run *run, effect member.Effect) {
	switch e := effect.(type) {
	case member.Publish:
		n.publish(run, e)
	case member.Train:
		n.background(run, func() (member.Event, error) {
			params, err := run.site.Train(e)
			return member.Trained{Round: e.Round, Params: params}, err
		})
	case member.Seal:
		n.seal(run, e)
	case member.Evaluate:
		n.background(run, func() (member.Event, error) {
			evaluation, err := run.site.Evaluate(e)
			return member.Evaluated{Evaluation: evaluation}, err
		})
	case member.Wake:
		if run.wake != nil {
			run.wake.Stop()
		}
		run.wake = n.later(e.At-n.now(), func() { n.step(run, member.Tick{}) })
	}
}

// publish signs a record of the own, makes it durable, tells the machine, and
// only then sends it: so the node never signs two records for one place.
func (n *Node) publish(run *run, e member.Publish) {
	again := func(err error) {
		n.fail(fmt.Errorf("task %q: cannot store the own %s: %w", run.task.Name, e.Kind, err))
		n.later(retry, func() { n.publish(run, e) })
	}
	body := e.Body
	if u, ok := body.(task.Update); ok {
		u, err := task.NewUpdate(u, run.task.Spec())
		if err != nil {
			n.halt(run, err)
			return
		}
		body = u
	}
	r, err := record.Sign(n.home.Key, n.home.Config().Federation, e.Kind, run.id.String(), e.Number, body)
	if err != nil {
		n.halt(run, err)
		return
	}
	// What peers would refuse does not stand here either: they would blame this
	// node for it, and its machine could not work with it.
	if _, err := n.decode(r); err != nil {
		n.halt(run, err)
		return
	}
	outcome, err := n.store.PutRecord(r)
	if err != nil {
		again(err)
		return
	}
	if outcome == storage.Equivocation || outcome == storage.Old {
		// The store knows an own record that the machine did not: it was
		// restored from a backup, or two daemons share one key.
		n.halt(run, fmt.Errorf("another %s %d is signed with this node's key; is a copy of this home in use?", e.Kind, e.Number))
		return
	}
	if err := n.network.Publish(r); err != nil {
		n.log.Warn("gossip refused a record; peers will pull it", "error", err)
	}
	n.step(run, member.Received{CID: r.CID, Author: r.Author, Number: r.Number, Body: body})
}

// halt says why a task does not move here. Only a restart tries again.
func (n *Node) halt(run *run, err error) {
	run.err = err.Error()
	n.fail(fmt.Errorf("task %q: %w", run.task.Name, err))
	n.notify()
}

// background runs long work outside of the loop and steps the machine with
// what comes out.
func (n *Node) background(run *run, work func() (member.Event, error)) {
	if run.site == nil {
		return // run.err says why the rows are not there
	}
	n.waiting.Add(1)
	go func() {
		defer n.waiting.Done()
		select {
		case n.work <- struct{}{}:
		case <-n.quit.Done():
			return
		}
		run.working.Lock()
		event, err := work()
		run.working.Unlock()
		<-n.work
		n.post(func() {
			if err != nil {
				n.halt(run, err)
				return
			}
			n.step(run, event)
		})
	}()
}

// seal stores the model as an artifact.
func (n *Node) seal(run *run, e member.Seal) {
	b, err := e.Model.Marshal()
	if err == nil {
		var cid record.CID
		if cid, run.size, err = n.store.AddArtifact(n.quit, bytes.NewReader(b)); err == nil {
			n.step(run, member.Sealed{Model: cid})
			return
		}
	}
	n.fail(fmt.Errorf("task %q: cannot store the model: %w", run.task.Name, err))
	n.later(retry, func() { n.seal(run, e) })
}

// results returns the report of a run that has a model, and stores it as an
// artifact once it is complete.
func (n *Node) results(ctx context.Context, run *run) (task.Results, record.CID, error) {
	results, err := run.member.Results()
	if err != nil || len(results.Missing) > 0 || run.report.Defined() {
		return results, run.report, err
	}
	b, err := json.Marshal(results)
	if err != nil {
		return results, record.CID{}, err
	}
	run.report, _, err = n.store.AddArtifact(ctx, bytes.NewReader(b))
	return results, run.report, err
}

// later has the loop do something after a while.
func (n *Node) later(d time.Duration, do func()) *time.Timer {
	return time.AfterFunc(max(d, 0), func() { n.post(do) })
}
