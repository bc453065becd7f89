package tasks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"village/node/api"
	"village/node/exchange"
	"village/node/models"
	"village/node/records"
	"village/protocol/agree"
	"village/protocol/member"
	"village/protocol/member/drive"
	"village/protocol/record"
	"village/protocol/task"
	"village/storage"
)

// run is a task at this node. Its goroutine alone touches it, but for what the
// fields before the driver say.
type run struct {
	tasks    *Tasks
	id       record.CID
	proposer record.NodeID
	task     task.Task
	queue    chan func(*run)                 // what the goroutine does next
	behind   chan struct{}                   // holds one where a record found the queue full
	working  sync.Mutex                      // held while the site works
	seen     atomic.Pointer[api.TaskSummary] // as of the newest event

	drive.Driver[own]
	site     *member.Site // nil where the node has not enrolled
	timer    *time.Timer  // of the newest Wake
	sealed   bool         // the final set is decided on
	size     int64        // of the sealed model's artifact, in bytes
	vectors  map[record.NodeID][]*vector
	most     int64      // bytes of its model's inputs
	followed int64      // bytes of Tasks.followed that are this task's
	unasked  record.CID // the sealed model's inputs, until somebody asks for them
	stored   []byte     // the report as it was last stored
	result   record.CID // the artifact of stored
	err      string     // why the task does not move here
}

// own is an own record with its body as the machine takes it in.
type own struct {
	record.Record
	body any
	held *exchange.Held // the vector that it announces, if it does
}

func newRun(t *Tasks, r record.Record, tk task.Task) *run {
	run := &run{
		tasks: t, id: r.CID, proposer: r.Author, task: tk, most: tk.MaxInputs(),
		queue: make(chan func(*run), 256), behind: make(chan struct{}, 1), vectors: map[record.NodeID][]*vector{},
	}
	run.Driver = drive.New(member.New(t.Home.ID, r.CID, tk), drive.Performer[own](run))
	run.describe()
	return run
}

// live does one thing after another until the node closes.
func (r *run) live() {
	for {
		select {
		case do := <-r.queue:
			do(r)
		case <-r.behind:
			r.read()
		case <-r.tasks.quit.Done():
			return
		}
	}
}

// post hands something to the goroutine, and waits while its queue is full.
func (r *run) post(do func(*run)) {
	select {
	case r.queue <- do:
	case <-r.tasks.quit.Done():
	}
}

// ask has the goroutine do something and waits until it is done.
func (r *run) ask(ctx context.Context, do func()) error {
	done := make(chan struct{})
	r.post(func(*run) { do(); close(done) })
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-r.tasks.quit.Done():
		return errStopping
	}
}

// later has the goroutine do something after a while.
func (r *run) later(d time.Duration, do func(*run)) *time.Timer {
	return time.AfterFunc(max(d, 0), func() { r.post(do) })
}

// restore gives the new machine the task's records from the store, and the rows
// that the node has enrolled with.
func (r *run) restore() {
	r.read()
	t := r.tasks
	if e, enrolled := r.Enrolment(t.Home.ID); enrolled {
		site, parent, err := r.rows(e.Manifest, func(cid record.CID) (task.Model, error) { return t.Models.Stored(t.quit, cid) })
		if err != nil {
			r.halt(err)
		}
		r.enter(site, parent)
	}
}

// read gives the machine the task's records from the store; those that it has
// already change nothing.
func (r *run) read() {
	t := r.tasks
	for _, cid := range t.Store.Group(r.id.String()) {
		held, err := t.Store.Record(cid)
		if errors.Is(err, storage.ErrNotFound) {
			continue // a newer one has come in between
		}
		if err != nil {
			t.Log.Fail(fmt.Errorf("cannot read record %s: %w", cid, err))
			continue
		}
		content, err := t.Book.Decode(held)
		if err != nil {
			t.Log.Fail(fmt.Errorf("the store holds record %s, which this program refuses: %w", cid, err))
			continue
		}
		other, second, proven := t.Store.Contradicts(cid)
		if proven {
			r.receive(held, member.Equivocation{Kind: held.Kind, Records: [2]record.CID{cid, other}})
		}
		if !second || held.Kind == record.KindEnrolment { // see records.Book
			r.receive(held, content)
		}
	}
	r.moved()
}

// enter gives the run the rows that it works with, and the machine the model that
// the task goes on from.
func (r *run) enter(site *member.Site, parent *task.Model) {
	if r.site = site; parent != nil {
		r.From(parent.Params)
	}
}

// rows reads the rows of an own dataset for the task, and the model that the task
// goes on from, nil where it goes on from none.
func (r *run) rows(manifest record.CID, model func(record.CID) (task.Model, error)) (*member.Site, *task.Model, error) {
	var parent *task.Model
	if r.task.Parent != nil {
		m, err := model(r.task.Parent.Model)
		if err == nil {
			err = models.CheckParent(r.task, m)
		}
		if err != nil {
			return nil, nil, err
		}
		parent = &m
	}
	m, table, err := r.tasks.Datasets.Table(manifest)
	if err != nil {
		return nil, nil, err
	}
	site, err := member.NewSite(r.tasks.Home.ID, r.id, r.task, table, m.SplitColumn(), parent)
	return site, parent, err
}

// resume sets the restored machine going.
func (r *run) resume() {
	if r.Resumed() {
		return
	}
	r.Resume(r.tasks.now())
	r.moved()
}

// deliver hands a record from another goroutine to the run's, and never waits: a
// record that finds the queue full is in the store, and read from there.
func (r *run) deliver(rec record.Record, content any) {
	select {
	case r.queue <- func(r *run) { r.receive(rec, content); r.moved() }:
	default:
		select {
		case r.behind <- struct{}{}:
		default:
		}
	}
}

// receive takes in a record of the task; the caller calls moved, which sees to the
// parameters that do not ride inside an update.
func (r *run) receive(rec record.Record, content any) {
	if u, ok := content.(task.Update); ok && u.Params == nil {
		r.announced(&vector{record: rec, update: u})
		return
	}
	r.Step(r.tasks.now(), received(rec, content))
}

func received(r record.Record, content any) member.Received {
	return member.Received{CID: r.CID, Author: r.Author, Number: r.Number, Body: content}
}

// step gives the machine an event, and sees to what has changed.
func (r *run) step(e member.Event) {
	r.Step(r.tasks.now(), e)
	r.moved()
}

// moved tells those concerned that the machine may have moved.
func (r *run) moved() {
	r.close()
	r.tend()
	if r.Disputed() && r.err == "" {
		r.halt(errors.New("this node recomputes another model from the sealed updates than the quorum has signed; keep the evidence and ask for help"))
	}
	r.tell()
}

// tell describes the task anew to those who ask, and wakes those who watch.
func (r *run) tell() {
	r.describe()
	r.tasks.notify()
}

func (r *run) describe() {
	s := r.summary()
	r.seen.Store(&s)
}

// close keeps further updates out of the store once the final set is decided on.
func (r *run) close() {
	if !r.sealed && r.Content().Model.Defined() {
		r.sealed = true
		r.tasks.Book.Close(r.id)
	}
}

// halt says why the task does not move here. Only a restart tries again.
func (r *run) halt(err error) {
	r.err = err.Error()
	r.tasks.Log.Fail(fmt.Errorf("task %q: %w", r.task.Name, err))
	r.tell()
}

// Sign makes the record that the machine asks for. With Store, Received, Send,
// Start and Wake it makes the run a [drive.Performer].
func (r *run) Sign(effect member.Effect) (own, bool) {
	r.watch(effect)
	switch e := effect.(type) {
	case member.Publish:
		if u, ok := e.Body.(task.Update); ok {
			return r.signUpdate(e.Number, u)
		}
		return r.sign(e.Kind, r.id.String(), e.Number, e.Body)
	case member.Cast:
		switch e.Vote.Phase {
		case agree.Proposal:
			proof, ok := r.bytes("propose", e.Topic, e.Vote.Proof)
			if !ok {
				return own{}, false
			}
			return r.sign(record.KindProposal, e.Topic.Subject(r.id), e.Vote.Ballot, task.Proposal{Content: e.Vote.Content, Valid: e.Vote.Valid, Proof: proof})
		case agree.Prevote:
			return r.sign(record.KindPrevote, e.Topic.Subject(r.id), e.Vote.Ballot, task.Vote{Value: e.Vote.Value.Bytes()})
		default:
			return r.sign(record.KindPrecommit, e.Topic.Subject(r.id), e.Vote.Ballot, task.Vote{Value: e.Vote.Value.Bytes()})
		}
	case member.Certify:
		precommits, ok := r.bytes("certify", e.Topic, e.Precommits)
		if !ok {
			return own{}, false
		}
		return r.sign(record.KindSeal, e.Topic.Subject(r.id), 0, task.Seal{Content: e.Content, Precommits: precommits})
	}
	panic(fmt.Sprintf("tasks: no record is made of a %T", effect))
}

// watch tells whoever watches of an effect.
func (r *run) watch(e member.Effect) {
	if r.tasks.Watch != nil {
		r.tasks.Watch(r.id, e)
	}
}

// bytes reads the records that a proposal or a certificate is made of.
func (r *run) bytes(verb string, topic task.Topic, cids []record.CID) ([][]byte, bool) {
	list, err := r.tasks.Book.Bytes(cids)
	if err != nil {
		r.tasks.Log.Fail(fmt.Errorf("task %q: cannot %s the %s: %w", r.task.Name, verb, topic, err))
	}
	return list, err == nil
}

// sign signs a record. What peers would refuse does not stand here either: they
// would blame this node for it, and its machine could not work with it.
func (r *run) sign(kind record.Kind, subject string, number uint64, body any) (own, bool) {
	rec, content, err := r.tasks.Book.Sign(kind, subject, number, body)
	if err != nil {
		if kind == record.KindUpdate && !errors.Is(err, records.ErrLost) {
			err = fmt.Errorf("the training has diverged; propose the task again with a lower --learning-rate: %w", err)
		}
		r.halt(err)
	}
	return own{Record: rec, body: content}, err == nil
}

// Store makes an own record durable.
func (r *run) Store(o own) drive.Outcome {
	outcome, err := r.tasks.Store.PutRecord(o.Record)
	switch {
	case err != nil:
		r.tasks.Log.Fail(fmt.Errorf("task %q: cannot store the own %s: %w", r.task.Name, o.Kind, err))
		return drive.Failed
	case outcome == storage.Equivocation || outcome == storage.Old:
		// The store knows an own record that the machine did not: it was
		// restored from a backup, or two daemons share one key.
		r.halt(fmt.Errorf("another %s %d is signed with this node's key; is a copy of this home in use?", o.Kind, o.Number))
		if o.held != nil {
			o.held.Release()
		}
		return drive.Refused
	}
	if o.held != nil {
		r.announced(&vector{record: o.Record, update: o.body.(task.Update), held: o.held, given: true})
	}
	return drive.Stored
}

// Received is an own record as the machine takes it in.
func (r *run) Received(o own) member.Received { return received(o.Record, o.body) }

// Send gossips an own record.
func (r *run) Send(o own) {
	r.close() // before what the machine asks for next
	r.tasks.Book.Send(o.Record)
}

// Wake sets the timer of the next tick.
func (r *run) Wake(at time.Duration) {
	r.watch(member.Wake{At: at})
	if r.timer != nil {
		r.timer.Stop()
	}
	r.timer = r.later(at-r.tasks.now(), func(r *run) { r.step(member.Tick{}) })
}

// Start starts long work.
func (r *run) Start(effect member.Effect) {
	r.watch(effect)
	r.close()
	switch e := effect.(type) {
	case member.Train:
		r.background(e.Round, func(progress func() error) (member.Event, error) {
			return r.site.Train(e, until(r.task.RoundTime, progress))
		})
	case member.Evaluate:
		r.background(e.Model.Round, func(progress func() error) (member.Event, error) {
			evaluation, err := r.site.Evaluate(e, progress)
			return member.Evaluated{Evaluation: evaluation}, err
		})
	case member.Make:
		r.make(e)
	case member.Fetch:
		r.unasked = e.Inputs
		if r.works() {
			r.asked()
		}
	}
}

// report returns the results of a task that has a model, and stores them as an
// artifact once nobody is waited for; a later evaluation makes a new version.
func (r *run) report(ctx context.Context) (task.Results, record.CID, error) {
	results, err := r.Results()
	if err != nil || r.Stage() != member.Done {
		return results, record.CID{}, err
	}
	b, err := json.Marshal(results)
	if err != nil {
		return results, record.CID{}, err
	}
	if !bytes.Equal(b, r.stored) {
		if r.result, _, err = r.tasks.Models.Add(ctx, b); err == nil {
			r.stored = b
		}
	}
	return results, r.result, err
}

// summary describes the task in a line.
func (r *run) summary() api.TaskSummary {
	self := r.tasks.Home.ID
	model, _ := r.Model()
	_, joined := r.Enrolment(self)
	undecided, quorum := r.undecided()
	return api.TaskSummary{
		Undecided: undecided, Quorum: quorum, Voters: len(r.task.Nodes),
		CID: r.id, Name: r.task.Name, Proposer: r.proposer,
		Named: r.task.Named(self), Joined: joined,
		Stage: string(r.Stage()), Round: r.Round(), Rounds: r.task.Rounds,
		WaitingFor: r.WaitingFor(), ModelCID: model, Error: r.err,
	}
}

// undecided names the nodes that have to speak before a decision, and how many
// are needed. Where so many are silent that there will be none, it is these.
func (r *run) undecided() (missing []record.NodeID, quorum int) {
	missing = []record.NodeID{}
	if due, quorum := r.Undecided(); quorum > 0 {
		return append(missing, due...), quorum
	}
	if stage := r.Stage(); stage != member.Training && stage != member.Sealing {
		return missing, 0
	}
	for _, id := range r.task.Nodes {
		if _, enrolled := r.Enrolment(id); !enrolled || r.IsSilent(id) {
			missing = append(missing, id)
		}
	}
	quorum = agree.Quorum(len(r.task.Nodes))
	if len(r.task.Nodes)-len(missing) >= quorum {
		return []record.NodeID{}, 0
	}
	return missing, quorum
}
