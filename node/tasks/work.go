package tasks

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"village/node/models"
	"village/protocol/learn"
	"village/protocol/member"
	"village/protocol/record"
	"village/protocol/task"
	"village/storage"
)

// retry is how long a run waits before it tries again what the disk or the peers
// have refused.
const retry = 5 * time.Second

const (
	// fetchTurn is how long the inputs of one model are fetched before it is
	// another's turn; the next time it goes on from there.
	fetchTurn = time.Minute
	// maxRetry is the longest time between two attempts.
	maxRetry = 5 * time.Minute
)

// background works outside of the run's goroutine and steps the machine with what
// comes out. While the work gets on, or waits for its turn, beacons say so.
func (r *run) background(round uint64, work func(progress func() error) (member.Event, error)) {
	if r.site == nil {
		return // r.err says why the rows are not there
	}
	t := r.tasks
	var steps atomic.Uint64
	queued, done := make(chan struct{}), make(chan struct{})
	t.spawn(func() { r.signal(round, &steps, queued, done) })
	t.spawn(func() {
		defer close(done)
		select {
		case t.work <- struct{}{}:
		case <-t.quit.Done():
			return
		}
		close(queued)
		r.working.Lock()
		event, err := work(func() error {
			steps.Add(1)
			return t.quit.Err()
		})
		r.working.Unlock()
		<-t.work
		r.post(func(r *run) {
			if err != nil {
				r.halt(err)
				return
			}
			r.step(event)
		})
	})
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
func (r *run) signal(round uint64, steps *atomic.Uint64, queued, done <-chan struct{}) {
	tick := time.NewTicker(member.BeaconInterval)
	defer tick.Stop()
	for before := uint64(0); ; {
		select {
		case <-tick.C:
		case <-done:
			return
		case <-r.tasks.quit.Done():
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
		beacon, _, err := r.tasks.Book.Sign(record.KindBeacon, r.id.String(), r.tasks.beacons.Add(1), task.Beacon{Task: r.id, Round: round})
		if err != nil {
			r.tasks.Log.Warn("cannot sign a beacon", "error", err)
			continue
		}
		r.tasks.Book.Send(beacon)
	}
}

// make stores a model and its inputs as artifacts.
func (r *run) make(e member.Make) {
	inputs := r.Content().Inputs // may have been fetched, and not be here as records
	r.tasks.spawn(func() {
		made, size, err := r.made(e, inputs)
		r.post(func(r *run) {
			switch {
			case errors.Is(err, storage.ErrNotFound):
				// A newer update has taken the place of one of the set.
				r.later(retry/10, func(r *run) { r.step(member.Made{Set: e.Set}) })
			case err != nil:
				r.tasks.Log.Fail(fmt.Errorf("task %q: cannot store the model: %w", r.task.Name, err))
				r.later(retry, func(r *run) { r.make(e) })
			default:
				r.size = size
				r.step(made)
			}
		})
	})
}

// made stores what a member.Make asks for, outside of the run's goroutine.
func (r *run) made(e member.Make, inputs record.CID) (made member.Made, size int64, err error) {
	t := r.tasks
	made.Set = e.Set
	b, err := e.Model.Marshal()
	if err != nil {
		return made, 0, err
	}
	if made.Model, size, err = t.Models.Add(t.quit, b); err != nil {
		return made, 0, err
	}
	if inputs.Defined() && t.Models.Has(t.quit, inputs) {
		made.Inputs = inputs
		return made, size, nil
	}
	in := task.Inputs{Roster: e.Roster}
	updates := make([]record.CID, len(e.Model.Parts))
	for i, p := range e.Model.Parts {
		updates[i] = p.Update
	}
	if in.Updates, err = t.Book.Bytes(updates); err != nil {
		return made, 0, err
	}
	for _, b := range in.Updates {
		rec, err := record.Open(b, t.Book.Federation)
		if err != nil {
			return made, 0, err
		}
		u, err := task.UpdateOf(rec, r.task)
		if err != nil {
			return made, 0, err
		}
		if u.Size == 0 {
			continue // its vector rides inside
		}
		vector, err := whole(t.Store, announcementOf(u))
		if err != nil {
			return made, 0, errors.Join(storage.ErrNotFound, err)
		}
		in.Vectors = append(in.Vectors, vector)
	}
	if in.Enrolments, err = t.Book.Bytes(e.Enrolments); err != nil {
		return made, 0, err
	}
	proposed, err := t.Store.Record(r.id)
	if err != nil {
		return made, 0, err
	}
	in.Task = proposed.Bytes
	if b, err = record.Encode(in); err != nil {
		return made, 0, err
	}
	made.Inputs, _, err = t.Models.Add(t.quit, b)
	return made, size, err
}

// asked has the inputs of the decided model fetched, where they were not yet: this
// node works with them, or somebody wants to see the task.
func (r *run) asked() {
	if inputs := r.unasked; inputs.Defined() {
		r.unasked = record.CID{}
		r.fetch(inputs, retry)
	}
}

// fetch brings the inputs of the decided model from peers, for as long as it takes,
// but for those that are of no use: peers may have sealed anything. It is one task's
// turn at a time, so that the inputs of many do not fill the memory.
func (r *run) fetch(inputs record.CID, wait time.Duration) {
	t := r.tasks
	t.spawn(func() {
		select {
		case t.fetching <- struct{}{}:
		case <-t.quit.Done():
			return
		}
		ctx, cancel := context.WithTimeout(t.quit, fetchTurn)
		updates, err := r.inputs(ctx, inputs)
		cancel()
		<-t.fetching
		r.post(func(r *run) {
			switch {
			case errors.Is(err, models.ErrUseless):
				r.halt(fmt.Errorf("a model is sealed that nobody can recompute: %w", err))
			case err != nil:
				t.Log.Fail(fmt.Errorf("task %q: the inputs of the sealed model are not here yet: %w", r.task.Name, err))
				r.later(wait, func(r *run) { r.fetch(inputs, min(2*wait, maxRetry)) })
			default:
				r.step(member.Fetched{Updates: updates})
			}
		})
	})
}

func (r *run) inputs(ctx context.Context, cid record.CID) ([]member.Received, error) {
	in, err := r.tasks.Models.Inputs(ctx, cid, r.most)
	if err != nil {
		return nil, err
	}
	var updates []member.Received
	for i := range in.Updates {
		rec, u, err := in.UpdateOf(i, r.tasks.Book.Federation, r.task)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", models.ErrUseless, err)
		}
		updates = append(updates, received(rec, u))
	}
	return updates, nil
}
