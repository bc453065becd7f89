package tasks

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"village/node/exchange"
	"village/protocol/record"
	"village/protocol/task"
	"village/storage"
)

// vector is one that an update announces, because it is too large to ride
// inside.
type vector struct {
	record       record.Record
	update       task.Update
	announcement exchange.Announcement
	held         *exchange.Held  // nil until its author has enrolled and there is room for it
	given        bool            // the machine has it, or it is on its way there
	lacking      bool            // it was not here in whole when the daemon started
	ctx          context.Context // ends when a newer one has taken its place
	drop         context.CancelFunc
}

// maxFollowed is how many bytes the inputs of those tasks may have in all that name
// this node, which has not joined them: it votes in them, but whoever proposes a
// task must not be able to fill the memory of those that it names.
const maxFollowed = 32 << 20

// whole reads a vector of which every chunk is here.
func whole(s *storage.Store, a exchange.Announcement) ([]byte, error) {
	var b []byte
	for _, hash := range a.Chunks {
		chunk, err := s.Vectors().Chunk(hash)
		if err != nil {
			return nil, err
		}
		b = append(b, chunk...)
	}
	return b, nil
}

func announcementOf(u task.Update) exchange.Announcement {
	a := exchange.Announcement{Size: u.Size}
	for hash := range slices.Chunk(u.Chunks, 32) {
		a.Chunks = append(a.Chunks, [32]byte(hash))
	}
	return a
}

// signUpdate signs an own update with its parameters. A vector that does not ride
// inside is durable, and served, before the update is signed.
func (r *run) signUpdate(round uint64, u task.Update) (own, bool) {
	u, b, err := task.NewUpdate(u, r.task)
	var held *exchange.Held
	if err == nil && u.Size > 0 {
		held, err = r.tasks.Exchange.Provide(r.tasks.Home.ID, b)
	}
	if err != nil {
		r.halt(err)
		return own{}, false
	}
	o, ok := r.sign(record.KindUpdate, r.id.String(), round, u)
	o.body, o.held = u, held // with its parameters, which the record may only announce
	return o, ok
}

// announced notes a vector that an update announces. Of each author the two newest
// are kept, like the updates.
func (r *run) announced(v *vector) {
	list := r.vectors[v.record.Author]
	if slices.ContainsFunc(list, func(o *vector) bool { return o.record.CID == v.record.CID }) {
		return
	}
	v.announcement = announcementOf(v.update)
	v.ctx, v.drop = context.WithCancel(r.tasks.quit)
	list = append(list, v)
	slices.SortStableFunc(list, func(a, b *vector) int { return cmp.Compare(b.record.Number, a.record.Number) })
	for len(list) > record.KindUpdate.Keep() {
		list[len(list)-1].forget()
		list = list[:len(list)-1]
	}
	r.vectors[v.record.Author] = list
}

func (v *vector) forget() {
	v.drop()
	if v.held != nil {
		v.held.Release()
	}
}

// tend sees to the vectors of those who have enrolled: what this node works with
// goes to the machine, the rest is kept for others to fetch, as far as there is room.
// Once the model is made, its inputs hold what it was made of, and none is needed.
func (r *run) tend() {
	t := r.tasks
	if len(r.vectors) == 0 {
		return
	}
	works := r.works()
	if model, _ := r.Model(); r.sealed && (model.Defined() || !works) {
		for _, list := range r.vectors {
			for _, v := range list {
				v.forget()
			}
		}
		clear(r.vectors)
		return
	}
	for author, list := range r.vectors {
		if _, enrolled := r.Enrolment(author); !enrolled {
			continue
		}
		for _, v := range list {
			if v.given || v.held != nil && !works {
				continue
			}
			if v.held == nil {
				hold := t.Exchange.Relay
				if works {
					hold = t.Exchange.Hold
				}
				var err error
				if v.held, err = hold(author, v.announcement); err != nil {
					v.held = nil
					t.Log.Debug("a vector is not kept for others", "task", r.task.Name, "author", author, "error", err)
					continue
				}
			}
			switch {
			case r.Resumed():
				v.given = works
				r.obtain(v, works)
			case works && !v.lacking:
				u, err := v.read(t.Store, r.task)
				if v.given, v.lacking = err == nil, err != nil; v.given {
					r.Step(t.now(), received(v.record, u))
				}
			}
		}
	}
}

// works says whether this node works with the updates of the task: whether it has
// joined, or votes in it because it is named and there is room.
func (r *run) works() bool {
	t := r.tasks
	if _, joined := r.Enrolment(t.Home.ID); joined {
		t.followed.Add(-r.followed)
		r.followed = 0
		return true
	}
	if r.followed == 0 && r.task.Named(t.Home.ID) {
		size := 2 * r.most // two updates of each node
		if t.followed.Add(size) > maxFollowed {
			t.followed.Add(-size)
			return false
		}
		r.followed = size
	}
	return r.followed > 0
}

// obtain fetches a vector from whichever peers have its chunks, and gives the
// update to the machine if that works with it.
func (r *run) obtain(v *vector, works bool) {
	t := r.tasks
	t.spawn(func() {
		for v.ctx.Err() == nil {
			var b []byte
			var err error
			if works {
				b, err = v.held.Fetch(v.ctx)
			} else {
				err = v.held.FetchTo(v.ctx, nil)
			}
			if err == nil {
				if works {
					r.arrived(v, b)
				}
				return
			}
			t.Log.Info("a vector is not here yet", "task", r.task.Name, "author", v.record.Author, "round", v.record.Number, "error", err)
			select {
			case <-time.After(time.Second):
			case <-v.ctx.Done():
			}
		}
	})
}

func (r *run) arrived(v *vector, b []byte) {
	u, err := v.update.Fill(b, r.task)
	r.post(func(r *run) {
		if err != nil {
			r.tasks.Log.Fail(fmt.Errorf("task %q: the update of %s for round %d is of no use: %w", r.task.Name, v.record.Author, v.record.Number, err), "author", v.record.Author)
			return
		}
		r.step(received(v.record, u))
	})
}

// read reads an announced update's parameters from the store.
func (v *vector) read(s *storage.Store, t task.Task) (task.Update, error) {
	b, err := whole(s, v.announcement)
	if err != nil {
		return v.update, err
	}
	return v.update.Fill(b, t)
}
