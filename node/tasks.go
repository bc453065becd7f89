package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"village/protocol/agree"
	"village/protocol/learn"
	"village/protocol/member"
	"village/protocol/record"
	"village/protocol/task"
	"village/storage"
)

// retry is how long the daemon waits before it tries again what its own disk
// refused.
const retry = 5 * time.Second

// maxInputs is the size in bytes of the largest inputs of a model: an enrolment
// and an update of each of a task's nodes.
const maxInputs = task.MaxNodes * 2 * record.MaxBytes

// run is a task at this node. It belongs to the loop.
type run struct {
	id       record.CID
	proposer record.NodeID
	task     task.Task
	member   *member.Member
	site     *member.Site // nil where the node has not enrolled
	working  sync.Mutex   // held while the site works
	wake     *time.Timer
	size     int64                      // of the sealed model's artifact, in bytes
	sealed   bool                       // the final set is decided on
	vectors  map[record.NodeID][]vector // announced by each author's updates, newest first
	lacking  []*vector                  // announced, but not here when the daemon started
	results  []byte                     // as they were last stored
	report   record.CID                 // the artifact of results
	err      string                     // why the task does not move here
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
			if u, ok := content.(task.Update); ok {
				if content, ok = n.restoreVector(run, held, u); !ok {
					continue
				}
			}
			records = append(records, member.Received{CID: cid, Author: held.Author, Number: held.Number, Body: content})
		}
		run.member.Restore(n.now(), records)
		if e, enrolled := run.member.Enrolment(n.home.ID); enrolled {
			site, parent, err := n.site(n.quit, run.id, t, e.Manifest)
			if err != nil {
				run.err = err.Error()
				n.fail(fmt.Errorf("task %q: %w", t.Name, err))
			}
			if run.site = site; parent != nil {
				run.member.From(parent.Params)
			}
		}
	}
}

// resume sets the restored machines going.
func (n *Node) resume() {
	n.recovering = false
	for _, run := range n.runs {
		for _, v := range run.lacking {
			n.obtain(run, v)
		}
		run.lacking = nil
		n.step(run, member.Tick{})
	}
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
	if r, ok := e.(member.Received); ok && n.recovering {
		run.member.Restore(n.now(), []member.Received{r})
		return
	}
	effects := run.member.Step(n.now(), e)
	if !run.sealed && run.member.Content().Model.Defined() {
		run.sealed = true
		n.mu.Lock()
		n.final[run.id.String()] = true
		n.mu.Unlock()
	}
	for _, effect := range effects {
		n.perform(run, effect)
	}
	if run.member.Disputed() {
		n.halt(run, errors.New("this node recomputes another model from the sealed updates than the quorum has signed; keep the evidence and ask for help"))
	}
	n.notify()
}

func (n *Node) perform(run *run, effect member.Effect) {
	if n.observe != nil {
		n.observe(run.id, effect)
	}
	switch e := effect.(type) {
	case member.Publish:
		body, err := n.provide(run, e.Body)
		if err != nil {
			n.halt(run, err)
			return
		}
		n.publish(run, record.Slot{Kind: e.Kind, Subject: run.id.String()}, e.Number, body)
	case member.Cast:
		n.cast(run, e)
	case member.Certify:
		precommits, err := n.bytesOf(e.Precommits)
		if err != nil {
			n.fail(fmt.Errorf("task %q: cannot certify the %s: %w", run.task.Name, e.Topic, err))
			return
		}
		n.publish(run, record.Slot{Kind: record.KindSeal, Subject: e.Topic.Subject(run.id)}, 0, task.Seal{Content: e.Content, Precommits: precommits})
	case member.Train:
		n.background(run, e.Round, func(progress func() error) (member.Event, error) {
			return run.site.Train(e, until(run.task.RoundTime, progress))
		})
	case member.Make:
		n.make(run, e)
	case member.Fetch:
		n.fetch(run, e.Inputs)
	case member.Evaluate:
		n.background(run, e.Model.Round, func(progress func() error) (member.Event, error) {
			evaluation, err := run.site.Evaluate(e, progress)
			return member.Evaluated{Evaluation: evaluation}, err
		})
	case member.Wake:
		if run.wake != nil {
			run.wake.Stop()
		}
		run.wake = n.later(e.At-n.now(), func() { n.step(run, member.Tick{}) })
	}
}

// cast publishes a vote.
func (n *Node) cast(run *run, e member.Cast) {
	slot := record.Slot{Subject: e.Topic.Subject(run.id)}
	switch e.Vote.Phase {
	case agree.Proposal:
		proof, err := n.bytesOf(e.Vote.Proof)
		if err != nil {
			n.fail(fmt.Errorf("task %q: cannot propose the %s: %w", run.task.Name, e.Topic, err))
			return
		}
		slot.Kind = record.KindProposal
		n.publish(run, slot, e.Vote.Ballot, task.Proposal{Content: e.Vote.Content, Valid: e.Vote.Valid, Proof: proof})
		return
	case agree.Prevote:
		slot.Kind = record.KindPrevote
	default:
		slot.Kind = record.KindPrecommit
	}
	n.publish(run, slot, e.Vote.Ballot, task.Vote{Value: e.Vote.Value.Bytes()})
}

// bytesOf reads records from the store. Like all of a task's bodies, a list is
// never nil, which would be encoded in another way than an empty one.
func (n *Node) bytesOf(cids []record.CID) ([][]byte, error) {
	list := make([][]byte, 0, len(cids))
	for _, cid := range cids {
		r, err := n.store.Record(cid)
		if err != nil {
			return nil, fmt.Errorf("record %s: %w", cid, err)
		}
		list = append(list, r.Bytes)
	}
	return list, nil
}

// publish signs a record of the own, makes it durable, tells the machine, and
// only then sends it: so the node never signs two records for one place.
func (n *Node) publish(run *run, slot record.Slot, number uint64, body any) {
	r, err := record.Sign(n.home.Key, n.home.Config().Federation, slot.Kind, slot.Subject, number, body)
	if err != nil {
		n.halt(run, err)
		return
	}
	// What peers would refuse does not stand here either: they would blame this
	// node for it, and its machine could not work with it.
	content, err := n.decode(r)
	if err != nil {
		if slot.Kind == record.KindUpdate {
			err = fmt.Errorf("the training has diverged; propose the task again with a lower --learning-rate: %w", err)
		}
		n.halt(run, err)
		return
	}
	outcome, err := n.store.PutRecord(r)
	if err != nil {
		n.fail(fmt.Errorf("task %q: cannot store the own %s: %w", run.task.Name, slot.Kind, err))
		n.later(retry, func() { n.publish(run, slot, number, body) })
		return
	}
	if outcome == storage.Equivocation || outcome == storage.Old {
		// The store knows an own record that the machine did not: it was
		// restored from a backup, or two daemons share one key.
		n.halt(run, fmt.Errorf("another %s %d is signed with this node's key; is a copy of this home in use?", slot.Kind, number))
		return
	}
	if err := n.network.Publish(r); err != nil {
		n.log.Warn("gossip refused a record; peers will pull it", "error", err)
	}
	if u, ok := body.(task.Update); ok {
		content = u // with its parameters, which the record may only announce
		n.hold(run, r, u)
	}
	n.step(run, member.Received{CID: r.CID, Author: r.Author, Number: r.Number, Body: content})
}

// halt says why a task does not move here. Only a restart tries again.
func (n *Node) halt(run *run, err error) {
	run.err = err.Error()
	n.fail(fmt.Errorf("task %q: %w", run.task.Name, err))
	n.notify()
}

// background runs long work outside of the loop and steps the machine with
// what comes out. While the work gets on, or waits for its turn, beacons say so.
func (n *Node) background(run *run, round uint64, work func(progress func() error) (member.Event, error)) {
	if run.site == nil {
		return // run.err says why the rows are not there
	}
	var steps atomic.Uint64
	queued, done := make(chan struct{}), make(chan struct{})
	n.waiting.Add(2)
	go func() {
		defer n.waiting.Done()
		n.signal(run, round, &steps, queued, done)
	}()
	go func() {
		defer n.waiting.Done()
		defer close(done)
		select {
		case n.work <- struct{}{}:
		case <-n.quit.Done():
			return
		}
		close(queued)
		run.working.Lock()
		event, err := work(func() error {
			steps.Add(1)
			return n.quit.Err()
		})
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

// until makes progress end local steps after so many milliseconds, 0 = never.
func until(milliseconds uint64, progress func() error) func() error {
	if milliseconds == 0 {
		return progress
	}
	end := time.Now().Add(time.Duration(milliseconds) * time.Millisecond)
	return func() error {
		if err := progress(); err != nil {
			return err
		}
		if time.Now().After(end) {
			return learn.ErrEnough
		}
		return nil
	}
}

// signal sends a beacon every now and then, as long as work waits for its turn
// or makes steps.
func (n *Node) signal(run *run, round uint64, steps *atomic.Uint64, queued, done <-chan struct{}) {
	tick := time.NewTicker(member.BeaconInterval)
	defer tick.Stop()
	for before := uint64(0); ; {
		select {
		case <-tick.C:
		case <-done:
			return
		case <-n.quit.Done():
			return
		}
		select {
		case <-queued:
			now := steps.Load()
			if now == before {
				continue
			}
			before = now
		default:
		}
		r, err := record.Sign(n.home.Key, n.home.Config().Federation, record.KindBeacon, run.id.String(),
			uint64(time.Now().UnixMilli()), task.Beacon{Task: run.id, Round: round})
		if err == nil {
			err = n.network.Publish(r)
		}
		if err != nil {
			n.log.Warn("cannot send a beacon", "error", err)
		}
	}
}

// make stores a model and its inputs as artifacts.
func (n *Node) make(run *run, e member.Make) {
	made, err := n.made(run, e)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		// A newer update has taken the place of one of the set.
		n.later(retry/10, func() { n.step(run, member.Made{Set: e.Set}) })
	case err != nil:
		n.fail(fmt.Errorf("task %q: cannot store the model: %w", run.task.Name, err))
		n.later(retry, func() { n.make(run, e) })
	default:
		n.step(run, made)
	}
}

func (n *Node) made(run *run, e member.Make) (member.Made, error) {
	b, err := e.Model.Marshal()
	if err != nil {
		return member.Made{}, err
	}
	made := member.Made{Set: e.Set}
	made.Model, run.size, err = n.store.AddArtifact(n.quit, bytes.NewReader(b))
	if err != nil {
		return member.Made{}, err
	}
	// Where the inputs were fetched, this node's store need not hold them as
	// records.
	if made.Inputs = run.member.Content().Inputs; made.Inputs.Defined() {
		artifact, _, err := n.store.Artifact(n.quit, made.Inputs)
		if err == nil {
			return made, artifact.Close()
		}
	}
	in := task.Inputs{Roster: e.Roster}
	for _, p := range e.Model.Parts {
		vector, err := n.vectorOf(run, p.Update)
		if err != nil {
			return member.Made{}, err
		}
		if vector != nil { // it does not ride inside the update
			in.Vectors = append(in.Vectors, vector)
		}
	}
	proposed, err := n.store.Record(run.id)
	if err != nil {
		return member.Made{}, err
	}
	in.Task = proposed.Bytes
	if in.Enrolments, err = n.bytesOf(e.Enrolments); err != nil {
		return member.Made{}, err
	}
	updates := make([]record.CID, len(e.Model.Parts))
	for i, p := range e.Model.Parts {
		updates[i] = p.Update
	}
	if in.Updates, err = n.bytesOf(updates); err != nil {
		return member.Made{}, err
	}
	if b, err = record.Encode(in); err != nil {
		return member.Made{}, err
	}
	made.Inputs, _, err = n.store.AddArtifact(n.quit, bytes.NewReader(b))
	return made, err
}

// fetch brings the inputs of the decided model from peers, for as long as it
// takes.
func (n *Node) fetch(run *run, inputs record.CID) {
	n.waiting.Add(1)
	go func() {
		defer n.waiting.Done()
		updates, err := n.inputs(run, inputs)
		n.post(func() {
			if err != nil {
				n.fail(fmt.Errorf("task %q: the inputs of the sealed model are not here yet: %w", run.task.Name, err))
				n.later(retry, func() { n.fetch(run, inputs) })
				return
			}
			n.step(run, member.Fetched{Updates: updates})
		})
	}()
}

func (n *Node) inputs(run *run, cid record.CID) ([]member.Received, error) {
	if err := n.artifacts.Fetch(n.quit, cid, maxInputs); err != nil {
		return nil, err
	}
	in, err := n.readInputs(n.quit, cid)
	if err != nil {
		return nil, err
	}
	var updates []member.Received
	for i := range in.Updates {
		r, u, err := in.UpdateOf(i, n.home.Config().Federation, run.task)
		if err != nil {
			return nil, err
		}
		updates = append(updates, member.Received{CID: r.CID, Author: r.Author, Number: r.Number, Body: u})
	}
	return updates, nil
}

// readInputs reads the inputs of a model from the store.
func (n *Node) readInputs(ctx context.Context, cid record.CID) (task.Inputs, error) {
	var in task.Inputs
	artifact, size, err := n.store.Artifact(ctx, cid)
	if err != nil {
		return in, err
	}
	defer artifact.Close()
	if size > maxInputs {
		return in, fmt.Errorf("%s is too large for the inputs of a model", cid)
	}
	b, err := io.ReadAll(artifact)
	if err == nil {
		err = record.Decode(b, &in)
	}
	return in, err
}

// results returns the report of a run that has a model, and stores it as an
// artifact once nobody is waited for; a later evaluation makes a new version.
func (n *Node) results(ctx context.Context, run *run) (task.Results, record.CID, error) {
	results, err := run.member.Results()
	if err != nil || run.member.Stage() != member.Done {
		return results, record.CID{}, err
	}
	b, err := json.Marshal(results)
	if err != nil {
		return results, record.CID{}, err
	}
	if !bytes.Equal(b, run.results) {
		if run.report, _, err = n.store.AddArtifact(ctx, bytes.NewReader(b)); err == nil {
			run.results = b
		}
	}
	return results, run.report, err
}

// later has the loop do something after a while.
func (n *Node) later(d time.Duration, do func()) *time.Timer {
	return time.AfterFunc(max(d, 0), func() { n.post(do) })
}
