// Package drive performs what the machine of a task asks for, in the one order
// in which that is safe. The daemon and the simulator run the same [Driver] and
// plug in how a record is signed, stored and sent and how work is started, so
// that the simulator tests the order that the daemon has.
//
// This is the contract between a driver, its machine and whoever plugs in a
// [Performer]:
//
//  1. One goroutine at a time calls a driver. Whatever ends elsewhere (training,
//     a download, a timer) comes back to it as an event.
//  2. An own record is signed, made durable, given to the machine, and only then
//     sent. So a node never signs two records for one place, whenever it is
//     killed, and nobody hears of a state that its own machine does not have.
//  3. Of one event's effects, all are performed before the next event, in order:
//     records are signed and stored; training, downloads and the making of models
//     are only started.
//  4. The machine takes in its own records in the order in which they became
//     durable, before any event from outside. Each is sent when the machine has
//     taken it in.
//  5. A record that the disk refuses to store is stored, given to the machine and
//     sent once a later attempt succeeds, [Retry] apart. Nothing else waits for it.
//  6. Started work ends as one event ([member.Trained], [member.Made],
//     [member.Fetched], [member.Evaluated]), at any later time, or never if the
//     process dies: the machine that is made anew asks again.
//  7. The newest Wake wins: a [member.Tick] comes at that time or earlier.
//  8. After a start, the machine is new and is restored from the records in the
//     store. It signs nothing before [Driver.Resume], for which a node whose disk
//     may have lost an own record waits until peers have given it back.
package drive

import (
	"time"

	"village/protocol/member"
)

// Retry is the time between two attempts to store a record.
const Retry = 5 * time.Second

// Outcome is what became of an own record that was to be stored.
type Outcome int

// The outcomes.
const (
	// Stored: it is durable.
	Stored Outcome = iota
	// Failed: the disk has refused it, and may not the next time.
	Failed
	// Refused: it will never be stored, since another record stands in its place.
	Refused
)

// Performer is how a driver acts on the world. R is a signed record.
type Performer[R any] interface {
	// Sign makes the record that a member.Publish, member.Cast or member.Certify
	// asks for, or returns false where none can be made; it has then said why.
	Sign(member.Effect) (R, bool)
	// Store makes a record durable.
	Store(R) Outcome
	// Received is the record as the machine takes it in.
	Received(R) member.Received
	// Send gives a record to the others, as far as they can be reached.
	Send(R)
	// Start begins what a member.Train, member.Make, member.Fetch or
	// member.Evaluate asks for.
	Start(member.Effect)
	// Wake asks for a member.Tick at this time. A newer call replaces it.
	Wake(at time.Duration)
}

// Driver drives the machine that is embedded in it.
type Driver[R any] struct {
	*member.Member
	does    Performer[R]
	queue   []item[R]
	waiting []R // signed, but not stored yet
	retryAt time.Duration
	wakeAt  time.Duration // as last asked for, 0 = never
	resumed bool
	stopped bool
}

// item is an event that the machine has yet to take in. An own record is sent
// when it has.
type item[R any] struct {
	event  member.Event
	record R
	own    bool
}

// New returns the driver of a machine, which listens until [Driver.Resume].
func New[R any](m *member.Member, does Performer[R]) Driver[R] {
	return Driver[R]{Member: m, does: does}
}

// Resume lets the machine act on what it knows, from now on.
func (d *Driver[R]) Resume(now time.Duration) {
	d.resumed = true
	d.Step(now, member.Tick{})
}

// Resumed says whether the machine acts, and does not only listen.
func (d *Driver[R]) Resumed() bool { return d.resumed }

// Stop ends the driver for good, even in the middle of a Step: the process has
// died.
func (d *Driver[R]) Stop() { d.stopped = true }

// Step gives the machine an event and performs what it asks for. Time never runs
// backwards. Before Resume, records are held and everything else is dropped.
func (d *Driver[R]) Step(now time.Duration, e member.Event) {
	if !d.resumed {
		if r, ok := e.(member.Received); ok {
			d.Restore(now, []member.Received{r})
		}
		return
	}
	if len(d.waiting) > 0 && now >= d.retryAt {
		d.retry(now)
	}
	d.queue = append(d.queue, item[R]{event: e})
	for i := 0; i < len(d.queue) && !d.stopped; i++ {
		next := d.queue[i]
		effects := d.Member.Step(now, next.event)
		if next.own {
			d.does.Send(next.record)
		}
		for _, effect := range effects {
			if d.stopped {
				break
			}
			d.perform(now, effect)
		}
	}
	clear(d.queue)
	d.queue = d.queue[:0]
	if len(d.waiting) > 0 && (d.wakeAt <= now || d.wakeAt > d.retryAt) {
		d.wake(d.retryAt) // when the machine says again what it wants
	}
}

func (d *Driver[R]) perform(now time.Duration, effect member.Effect) {
	switch e := effect.(type) {
	case member.Publish, member.Cast, member.Certify:
		if r, ok := d.does.Sign(effect); ok {
			d.store(now, r)
		}
	case member.Wake:
		d.wake(e.At)
	default:
		d.does.Start(effect)
	}
}

// store makes an own record durable and puts it before the machine.
func (d *Driver[R]) store(now time.Duration, r R) {
	switch d.does.Store(r) {
	case Stored:
		d.queue = append(d.queue, item[R]{event: d.does.Received(r), record: r, own: true})
	case Failed:
		if len(d.waiting) == 0 {
			d.retryAt = now + Retry
		}
		d.waiting = append(d.waiting, r)
	}
}

// retry tries to store what the disk has refused before.
func (d *Driver[R]) retry(now time.Duration) {
	waiting := d.waiting
	d.waiting = nil
	for _, r := range waiting {
		d.store(now, r)
	}
}

// wake asks for a tick.
func (d *Driver[R]) wake(at time.Duration) {
	d.wakeAt = at
	d.does.Wake(at)
}
