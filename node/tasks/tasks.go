// Package tasks runs the tasks that a node knows. Each has a goroutine of its
// own, which alone touches the machine of the task and performs what it asks for,
// so that one report, one large vector or one slow disk stalls no other task.
package tasks

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"village/node/api"
	"village/node/datasets"
	"village/node/exchange"
	"village/node/home"
	"village/node/log"
	"village/node/models"
	"village/node/records"
	"village/protocol/member"
	"village/protocol/record"
	"village/protocol/task"
	"village/storage"
)

// errStopping is why a question gets no answer.
var errStopping = errors.New("the daemon is stopping")

// Config is what the tasks need of the rest of a node.
type Config struct {
	Home     *home.Home
	Store    *storage.Store
	Log      *log.Log
	Book     *records.Book
	Datasets *datasets.Datasets
	Models   *models.Models
	Exchange *exchange.Exchange
	// Watch, if set, is told of everything that the machine of a task asks for,
	// before it is done: one at a time for a task, and it must not call back.
	Watch func(task record.CID, effect member.Effect)
}

// Tasks are the tasks of a node.
type Tasks struct {
	Config
	started  time.Time
	beacons  atomic.Uint64   // number of the last one
	work     chan struct{}   // a place for each piece of training at a time
	fetching chan struct{}   // a place for whoever fetches a model's inputs
	followed atomic.Int64    // see maxFollowed
	quit     context.Context // ends all work
	waiting  sync.WaitGroup  // goroutines of all runs

	mu      sync.Mutex
	resumed bool
	runs    map[record.CID]*run
	changed chan struct{} // closed and replaced when a task has moved
}

// New restores the tasks from the store, which nothing must change meanwhile. They
// act once [Tasks.Resume] was called, and end when ctx does.
func New(ctx context.Context, c Config) *Tasks {
	t := &Tasks{
		Config: c, quit: ctx, started: time.Now(), work: make(chan struct{}, max(1, runtime.NumCPU()-1)), fetching: make(chan struct{}, 1),
		runs: map[record.CID]*run{}, changed: make(chan struct{}),
	}
	t.beacons.Store(t.starts() << 32)
	for _, r := range c.Store.Records(record.KindTask) {
		if tk, ok := c.Book.Task(r.CID); ok {
			t.add(r, tk).post((*run).restore)
		}
	}
	for _, run := range t.ordered() {
		run.ask(ctx, func() {}) // behind its restore
	}
	if !c.Store.Unsure(c.Home.ID) { // else a vector may be that of a record which comes back
		if err := c.Store.Vectors().Sweep(c.Exchange.Needs); err != nil {
			c.Log.Fail(fmt.Errorf("cannot delete the chunks of old vectors: %w", err))
		}
	}
	return t
}

// starts counts the starts of this node, this one included, so that its beacons are
// numbered alike whatever the clock says. Earlier versions numbered by the clock, and
// came to less than the first number here.
func (t *Tasks) starts() uint64 {
	const key, before = "starts", 1 << 9
	n := uint64(before)
	if b, err := t.Store.Private(key); err == nil && len(b) == 8 {
		n = binary.BigEndian.Uint64(b)
	}
	if err := t.Store.PutPrivate(key, binary.BigEndian.AppendUint64(nil, n+1)); err != nil {
		t.Log.Fail(fmt.Errorf("cannot count this start: %w", err))
	}
	return n + 1
}

// Resume has the tasks act, those that are here and those that come.
func (t *Tasks) Resume() {
	t.mu.Lock()
	t.resumed = true
	t.mu.Unlock()
	for _, r := range t.ordered() {
		r.post((*run).resume)
	}
}

// Resumed says whether the tasks act, and do not only listen.
func (t *Tasks) Resumed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.resumed
}

// Wait returns when all work has ended. Nothing may be delivered any more.
func (t *Tasks) Wait() { t.waiting.Wait() }

// Deliver takes in a record that is durable, with its decoded body.
func (t *Tasks) Deliver(r record.Record, content any) {
	if tk, ok := content.(task.Task); ok {
		if added := t.add(r, tk); t.Resumed() {
			added.post((*run).resume)
		}
		t.notify()
		return
	}
	id, err := record.ParseCID(r.Group())
	if err != nil {
		return // it belongs to no task
	}
	if run := t.run(id); run != nil {
		run.deliver(r, content)
	}
}

// add begins to follow a task.
func (t *Tasks) add(r record.Record, tk task.Task) *run {
	t.mu.Lock()
	defer t.mu.Unlock()
	if known := t.runs[r.CID]; known != nil {
		return known
	}
	run := newRun(t, r, tk)
	t.runs[r.CID] = run
	t.spawn(run.live)
	return run
}

// run returns the run of a task, or nil.
func (t *Tasks) run(id record.CID) *run {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.runs[id]
}

// ordered returns the runs by age.
func (t *Tasks) ordered() []*run {
	t.mu.Lock()
	runs := make([]*run, 0, len(t.runs))
	for _, run := range t.runs {
		runs = append(runs, run)
	}
	t.mu.Unlock()
	slices.SortFunc(runs, func(a, b *run) int {
		if a.task.Created != b.task.Created {
			return int(int64(a.task.Created) - int64(b.task.Created))
		}
		return strings.Compare(a.id.KeyString(), b.id.KeyString())
	})
	return runs
}

// spawn starts a goroutine that Wait waits for.
func (t *Tasks) spawn(do func()) {
	t.waiting.Add(1)
	go func() {
		defer t.waiting.Done()
		do()
	}()
}

// now is the time that the machines see: monotonic, from the daemon's start.
func (t *Tasks) now() time.Duration { return time.Since(t.started) }

// notify wakes everyone who watches a task.
func (t *Tasks) notify() {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.changed)
	t.changed = make(chan struct{})
}

// Changed is closed when a task has moved.
func (t *Tasks) Changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

// unknown is the error of a question about a task that is not here.
func unknown(id record.CID) error {
	return api.Fail(api.CodeFailed, "village task list", "no task %s is known here", id)
}

// Follow has look see the machine of a task, at once where the task is known here
// and then after everything that has moved it, until look has seen enough. Look
// must be quick, and neither change the machine nor call the node. It fails where
// the task cannot move here, ctx ends or the node closes.
func (t *Tasks) Follow(ctx context.Context, id record.CID, look func(*member.Member) (enough bool)) error {
	for {
		changed := t.Changed()
		enough, halted := false, ""
		if run := t.run(id); run != nil {
			if err := run.ask(ctx, func() { enough, halted = look(run.Member), run.err }); err != nil {
				return err
			}
		}
		switch {
		case enough:
			return nil
		case halted != "":
			return errors.New(halted)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-t.quit.Done():
			return errStopping
		}
	}
}

// ofModel returns the run that has sealed a model, and the model.
func (t *Tasks) ofModel(ctx context.Context, cid record.CID) (*run, *task.Model, error) {
	for _, run := range t.ordered() {
		if cid.Defined() && run.seen.Load().ModelCID == cid {
			var m *task.Model
			err := run.ask(ctx, func() { _, m = run.Model() })
			return run, m, err
		}
	}
	return nil, nil, api.Fail(api.CodeFailed, "village model list",
		"no task whose records are here has made model %s; ask a node that took part in its task", cid)
}

// AwaitCertificate waits for the certificate of a model that was decided on here:
// the nodes take turns in making it, so that it may come after the model.
func (t *Tasks) AwaitCertificate(ctx context.Context, model record.CID) {
	run, _, err := t.ofModel(ctx, model)
	if err != nil {
		return // it is of a task that is not known here
	}
	ctx, cancel := context.WithTimeout(ctx, retry)
	defer cancel()
	t.Follow(ctx, run.id, (*member.Member).Certified)
}

// Report is what a task has come to.
type Report struct {
	task.Results
	Artifact record.CID // that it is stored as, undefined while evaluations are waited for
	Task     task.Task
	Model    task.Model
	Datasets map[record.CID]bool // manifests that the nodes of the model have enrolled with
}

// Report returns the report of a model's task.
func (t *Tasks) Report(ctx context.Context, model record.CID) (Report, error) {
	run, m, err := t.ofModel(ctx, model)
	if err != nil {
		return Report{}, err
	}
	report := Report{Task: run.task, Model: *m, Datasets: map[record.CID]bool{}}
	askErr := run.ask(ctx, func() {
		report.Results, report.Artifact, err = run.report(ctx)
		for _, p := range m.Parts {
			if e, ok := run.Enrolment(p.Node); ok {
				report.Datasets[e.Manifest] = true
			}
		}
	})
	return report, errors.Join(askErr, err)
}

// Own is a model with the part that this node has for itself, fitted to its rows.
func (t *Tasks) Own(ctx context.Context, cid record.CID, m task.Model) (task.Model, error) {
	run, _, err := t.ofModel(ctx, cid)
	if err != nil {
		return m, err
	}
	var site *member.Site
	if err := run.ask(ctx, func() { site = run.site }); err != nil {
		return m, err
	}
	if site == nil {
		return m, errors.New("this node has no rows in the model's task")
	}
	run.working.Lock()
	defer run.working.Unlock()
	return site.Own(m, ctx.Err)
}

// Sealed names the models of the tasks.
func (t *Tasks) Sealed() (cids []record.CID) {
	for _, s := range t.List() {
		if s.ModelCID.Defined() {
			cids = append(cids, s.ModelCID)
		}
	}
	return cids
}

// ListModels describes the models of the tasks.
func (t *Tasks) ListModels(ctx context.Context) ([]api.ModelSummary, error) {
	list := []api.ModelSummary{}
	for _, run := range t.ordered() {
		if !run.seen.Load().ModelCID.Defined() {
			continue
		}
		if err := run.ask(ctx, func() {
			cid, m := run.Model()
			s := api.ModelSummary{CID: cid, Task: run.id, Name: run.task.Name, Model: m.Spec.Kind, Bytes: uint64(run.size)}
			if m.Parent != nil {
				s.Parent = *m.Parent
				if res, _, err := run.report(ctx); err == nil {
					s.Promoted = res.Promoted
				}
			}
			list = append(list, s)
		}); err != nil {
			return list, err
		}
	}
	return list, nil
}
