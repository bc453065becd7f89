// Package member is one node's part in one task, as a state machine without
// clock, network, disk or goroutine: events go in through [Member.Step], effects
// come out. The daemon performs the effects for real, the simulator on a virtual
// clock; both run this code.
//
// The state is a function of the records held and of the time. So a restart is
// nothing but [Member.Restore] with the records of the store, and a lost,
// repeated, late or reordered record can only delay, never bias.
package member

import (
	"fmt"
	"time"

	"village/protocol/record"
	"village/protocol/task"
)

// Event is something that happened.
type Event interface{ event() }

// Received is a record of the task, checked against it; the node's own ones come
// this way too, once they are durable. Body is a task.Enrolment, task.Update
// (Params set) or task.Evaluation.
type Received struct {
	CID    record.CID
	Author record.NodeID
	Number uint64
	Body   any
}

// Enrol is the operator's yes, with the statistics of the rows.
type Enrol struct{ Enrolment task.Enrolment }

// Trained is the end of a [Train].
type Trained struct {
	Round  uint64
	Params []float64
}

// Sealed is the end of a [Seal]: the CID of the stored model.
type Sealed struct{ Model record.CID }

// Evaluated is the end of an [Evaluate].
type Evaluated struct{ Evaluation task.Evaluation }

// Tick says that nothing happened but time.
type Tick struct{}

func (Received) event()  {}
func (Enrol) event()     {}
func (Trained) event()   {}
func (Sealed) event()    {}
func (Evaluated) event() {}
func (Tick) event()      {}

// Effect is something for the driver to do.
type Effect interface{ effect() }

// Publish asks to sign the record, make it durable, give it back as [Received],
// and only then send it. Body is a task.Enrolment, task.Update (Params set,
// Vector not) or task.Evaluation.
type Publish struct {
	Kind   record.Kind
	Number uint64
	Body   any
}

// Train asks for the local steps of a round from the mix, and for [Trained].
type Train struct {
	Round  uint64
	From   []float64
	Roster task.Roster
}

// Seal asks to store the model that the final set makes, and for [Sealed].
type Seal struct{ Model task.Model }

// Evaluate asks to count the model and the node's own one on the node's test
// rows, and for [Evaluated].
type Evaluate struct {
	CID   record.CID
	Model task.Model
}

// Wake asks for a [Tick] at this time at the latest.
type Wake struct{ At time.Duration }

func (Publish) effect()  {}
func (Train) effect()    {}
func (Seal) effect()     {}
func (Evaluate) effect() {}
func (Wake) effect()     {}

// Stage is how far a task is at this node.
type Stage string

// The stages, in order.
const (
	Enrolling  Stage = "enrolling"  // not every named node has enrolled
	Training   Stage = "training"   // rounds are run
	Sealing    Stage = "sealing"    // the own last round is done, updates of others are missing
	Evaluating Stage = "evaluating" // the model stands, evaluations are missing
	Done       Stage = "done"
)

// Member is one node's part in one task. A node that the task does not name
// has one too: it follows, and recomputes the model.
type Member struct {
	self record.NodeID
	id   record.CID
	task task.Task

	enrolments  map[record.NodeID]task.Enrolled
	early       []Received // updates that overtook the enrolments, two of an author
	roster      task.Roster
	seats       []seat // of the roster's members, in its order; nil before there is one
	own         int    // the seat of self, or -1
	training    training
	final       *task.Model
	model       record.CID // of final, once it is stored
	evaluating  bool       // an Evaluate was asked for
	evaluations map[record.NodeID]task.Evaluation
}

// New returns the part of node self in a task that was checked.
func New(self record.NodeID, id record.CID, t task.Task) *Member {
	return &Member{
		self: self, id: id, task: t, own: -1,
		enrolments:  map[record.NodeID]task.Enrolled{},
		evaluations: map[record.NodeID]task.Evaluation{},
	}
}

// Restore takes in the records that a store held, before the first Step, without
// acting on them. A Tick then sets the machine going.
func (m *Member) Restore(now time.Duration, records []Received) {
	for _, r := range records {
		m.take(now, r)
	}
}

// Step takes one event in and returns what is to be done, in order. Time never
// runs backwards.
func (m *Member) Step(now time.Duration, event Event) []Effect {
	switch e := event.(type) {
	case Received:
		m.take(now, e)
	case Enrol:
		if _, enrolled := m.enrolments[m.self]; !enrolled && m.task.Named(m.self) {
			return []Effect{Publish{Kind: record.KindEnrolment, Body: e.Enrolment}}
		}
	case Trained:
		if m.own >= 0 && m.final == nil && e.Round > m.Round() {
			return []Effect{m.update(e)}
		}
	case Sealed:
		m.model = e.Model
	case Evaluated:
		if _, published := m.evaluations[m.self]; !published {
			return []Effect{Publish{Kind: record.KindEvaluation, Body: e.Evaluation}}
		}
	}
	return m.advance(now)
}

// take holds a record. Of each author the enrolment and the evaluation that
// came first count, and the two newest updates.
func (m *Member) take(now time.Duration, r Received) {
	switch body := r.Body.(type) {
	case task.Enrolment:
		if _, held := m.enrolments[r.Author]; !held && m.task.Named(r.Author) {
			m.enrolments[r.Author] = task.Enrolled{CID: r.CID, Author: r.Author, Enrolment: body}
			m.openRoster(now)
		}
	case task.Update:
		if m.seats != nil {
			m.takeUpdate(now, r, body)
		} else if m.task.Named(r.Author) {
			m.takeEarly(r)
		}
	case task.Evaluation:
		if _, held := m.evaluations[r.Author]; !held {
			m.evaluations[r.Author] = body
		}
	}
}

// takeEarly holds an update, if it is among its author's two newest, until the
// roster tells what it is worth.
func (m *Member) takeEarly(r Received) {
	oldest, count := -1, 0
	for i, e := range m.early {
		if e.Author != r.Author {
			continue
		}
		if e.Number == r.Number {
			return
		}
		if count++; oldest < 0 || e.Number < m.early[oldest].Number {
			oldest = i
		}
	}
	if count < 2 {
		m.early = append(m.early, r)
	} else if r.Number > m.early[oldest].Number {
		m.early[oldest] = r
	}
}

// openRoster fixes the roster once every named node has enrolled.
func (m *Member) openRoster(now time.Duration) {
	if m.seats != nil || len(m.enrolments) < len(m.task.Nodes) {
		return
	}
	enrolled := make([]task.Enrolled, 0, len(m.task.Nodes))
	for _, id := range m.task.Nodes {
		enrolled = append(enrolled, m.enrolments[id])
	}
	roster, err := task.RosterOf(enrolled)
	if err != nil {
		// Every enrolment was checked against the task, so that they merge.
		panic(fmt.Sprintf("member: checked enrolments do not make a roster: %v", err))
	}
	m.roster, m.seats, m.own = roster, make([]seat, len(enrolled)), roster.Index(m.self)
	for i := range m.seats {
		m.seats[i].pace.start(now)
	}
	early := m.early
	m.early = nil
	for _, r := range early {
		m.take(now, r)
	}
}

// advance does what the state now allows.
func (m *Member) advance(now time.Duration) []Effect {
	switch {
	case m.seats == nil:
		return nil
	case m.final == nil:
		if m.final = m.finalSet(); m.final != nil {
			return []Effect{Seal{Model: *m.final}}
		}
		return m.train(now)
	}
	if _, evaluated := m.evaluations[m.self]; !m.model.Defined() || m.own < 0 || evaluated || m.evaluating {
		return nil
	}
	m.evaluating = true
	return []Effect{Evaluate{CID: m.model, Model: *m.final}}
}
