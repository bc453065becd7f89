package member

import (
	"fmt"
	"math"
	"slices"
	"time"

	"village/protocol/mixing"
	"village/protocol/record"
	"village/protocol/task"
)

// seat is what is held of one roster member's updates, and how long it takes.
type seat struct {
	updates []update // at most two, newest first
	pace    pace
}

type update struct {
	cid     record.CID
	round   uint64
	settled bool
	params  []float64
}

// round is that of the newest update, 0 without one.
func (s *seat) round() uint64 {
	if len(s.updates) == 0 {
		return 0
	}
	return s.updates[0].round
}

// at returns the update of a round, or nil.
func (s *seat) at(round uint64) *update {
	for i := range s.updates {
		if s.updates[i].round == round {
			return &s.updates[i]
		}
	}
	return nil
}

// training is the node's own local work.
type training struct {
	busy    bool          // from Train until the update is back as a record
	mix     []float64     // what the newest Train started from
	settled bool          // whether that had come to rest
	since   time.Duration // when the own newest update was held
}

// takeUpdate holds an update that was trained with this roster, if it is among
// its author's two newest.
func (m *Member) takeUpdate(now time.Duration, r Received, body task.Update) {
	i := m.roster.Index(r.Author)
	if i < 0 || body.Roster != m.roster.CID || body.Weight != m.roster.Weight(i) {
		return
	}
	s := &m.seats[i]
	at := 0
	for at < len(s.updates) && s.updates[at].round > r.Number {
		at++
	}
	if at == 2 || at < len(s.updates) && s.updates[at].round == r.Number {
		return
	}
	s.updates = slices.Insert(s.updates, at, update{cid: r.CID, round: r.Number, settled: body.Settled, params: body.Params})
	s.updates = s.updates[:min(len(s.updates), 2)]
	if at == 0 {
		s.pace.heard(now, m.training.since)
		if i == m.own {
			m.training.busy = false
			m.training.since = now
		}
	}
}

// train starts the next round once the update of the own round is held of
// everyone who is not silent. A node that is two rounds or more behind jumps to
// the highest.
func (m *Member) train(now time.Duration) []Effect {
	if m.own < 0 || m.training.busy {
		return nil
	}
	round := m.Round()
	if round == m.task.Rounds {
		return nil
	}
	next, highest := round+1, round
	for i := range m.seats {
		highest = max(highest, m.seats[i].round())
	}
	if highest > next {
		next = highest
	} else if round > 0 {
		// A node whose mix has settled may have run its last round. It does not
		// pass over the silent then, so that no node ever passes the last round.
		mayBeLast := m.seats[m.own].updates[0].settled && highest == round
		wake := time.Duration(math.MaxInt64)
		waits := false
		for i := range m.seats {
			s := &m.seats[i]
			if s.at(round) != nil {
				continue
			}
			if silent := s.pace.silentAt(m.training.since); mayBeLast || now < silent {
				waits = true
				wake = min(wake, max(silent, now))
			}
		}
		if waits && mayBeLast {
			return nil
		}
		if waits {
			return []Effect{Wake{At: wake}}
		}
	}
	mix := m.mix(next - 1)
	m.training.settled = m.training.mix != nil && round > 0 && distance(mix, m.training.mix) <= m.task.Tolerance && m.task.Tolerance > 0
	m.training.mix, m.training.busy = mix, true
	return []Effect{Train{Round: next, From: mix, Roster: m.roster}}
}

// mix returns the weighted mean of every author's update of the round where it
// is held, else of its newest one; for round 0 the task's start.
func (m *Member) mix(round uint64) []float64 {
	if round == 0 {
		return Start(m.id, m.task)
	}
	sum := mixing.NewSum(m.task.Spec().Params())
	for i := range m.seats {
		s := &m.seats[i]
		u := s.at(round)
		if u == nil && len(s.updates) > 0 {
			u = &s.updates[0]
		}
		if u != nil {
			m.add(sum, i, u)
		}
	}
	return sum.Mean()
}

func (m *Member) add(sum *mixing.Sum, i int, u *update) {
	if err := sum.Add(m.roster.Weight(i), u.params); err != nil {
		// Checked by task.UpdateOf, and the weight by task.EnrolmentOf.
		panic(fmt.Sprintf("member: checked update cannot be added: %v", err))
	}
}

// update is the record of a finished round.
func (m *Member) update(e Trained) Publish {
	return Publish{Kind: record.KindUpdate, Number: e.Round, Body: task.Update{
		Task: m.id, Roster: m.roster.CID, Weight: m.roster.Weight(m.own),
		Settled: m.training.settled, Params: e.Params,
	}}
}

// finalSet returns the model once every member's update of the last round is
// held, else nil. The last round is the task's last, or the first in which
// every member had settled.
func (m *Member) finalSet() *task.Model {
	candidates := m.seats[0].updates
	for c := len(candidates) - 1; c >= 0; c-- {
		if round := candidates[c].round; m.isLast(round) {
			return m.modelOf(round)
		}
	}
	return nil
}

func (m *Member) isLast(round uint64) bool {
	settled := true
	for i := range m.seats {
		u := m.seats[i].at(round)
		if u == nil {
			return false
		}
		settled = settled && u.settled
	}
	return settled || round == m.task.Rounds
}

func (m *Member) modelOf(round uint64) *task.Model {
	spec := m.task.Spec()
	sum := mixing.NewSum(spec.Params())
	parts := make([]task.Part, len(m.seats))
	for i := range m.seats {
		u := m.seats[i].at(round)
		m.add(sum, i, u)
		parts[i] = task.Part{Node: m.roster.Members[i].Author, Update: u.cid, Weight: m.roster.Weight(i)}
	}
	return &task.Model{
		Task: m.id, Name: m.task.Name, Round: round, Roster: m.roster.CID,
		Encoding: m.task.Encoding, Scaling: m.roster.Scaling, Spec: spec, Parts: parts, Params: sum.Mean(),
	}
}

// distance is the largest difference of two vectors' parameters.
func distance(a, b []float64) float64 {
	d := 0.0
	for i := range a {
		d = max(d, math.Abs(a[i]-b[i]))
	}
	return d
}
