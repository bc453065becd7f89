package member

import (
	"math"
	"slices"
	"time"

	"village/protocol/mixing"
	"village/protocol/record"
	"village/protocol/task"
)

// update is a held update.
type update struct {
	cid      record.CID
	round    uint64
	previous uint64 // round of the author's update before
	settled  bool
	params   []float64
}

func updateOf(r Received, u task.Update) update {
	return update{cid: r.CID, round: r.Number, previous: u.Previous, settled: u.Settled, params: u.Params}
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

// owes tells whether the update of a round is not held, but exists or will. An
// author keeps its two newest, so that one before these will not come any more.
func (s *seat) owes(round uint64) bool {
	if s.at(round) != nil {
		return false
	}
	return s.round() < round || s.updates[0].previous == round
}

// training is the node's own local work.
type training struct {
	busy    bool          // from Train until the update is back as a record
	mix     []float64     // what the newest Train started from
	settled bool          // whether that had come to rest
	since   time.Duration // when the own newest update was held
	takes   time.Duration // how long a round takes while a quorum takes part
}

// takeUpdate holds an update that was trained with this roster, if it is among
// its author's two newest.
func (m *Member) takeUpdate(now time.Duration, i int, r Received, body task.Update) {
	s := &m.seats[i]
	if body.Roster != m.roster.CID || body.Weight != s.enrolled.Moments.Count {
		return
	}
	at := 0
	for at < len(s.updates) && s.updates[at].round > r.Number {
		at++
	}
	if at == 2 || at < len(s.updates) && s.updates[at].round == r.Number {
		return
	}
	s.updates = slices.Insert(s.updates, at, updateOf(r, body))
	s.updates = s.updates[:min(len(s.updates), 2)]
	if at == 0 {
		s.pace.heard(now)
		if i == m.own {
			m.ownUpdate(now)
		}
	}
}

// ownUpdate notes that an own update is held, and how long the round took.
func (m *Member) ownUpdate(now time.Duration) {
	t := &m.training
	if took := now - t.since; t.since > 0 && !m.cutOff() {
		if t.takes == 0 {
			t.takes = took
		}
		// More than twice as long was a wait for one that fell silent.
		t.takes = (3*t.takes + min(took, 2*t.takes)) / 4
	}
	t.busy, t.since = false, now
}

// cutOff tells whether those who are not silent are no quorum. Training goes on
// then, but no faster than with the others, and not into the last rounds: a node
// that ran through them alone would give the model what it has learnt alone.
func (m *Member) cutOff() bool {
	heard := 0
	for i := range m.seats {
		if s := &m.seats[i]; s.takesPart() && (i == m.own || m.now < s.pace.silentAt()) {
			heard++
		}
	}
	return heard < m.fewestParts()
}

// reached is the round that half of the other nodes have reached. One node alone
// that is far ahead, because it was cut off, does not drag the others along.
func (m *Member) reached() uint64 {
	rounds := make([]uint64, 0, len(m.seats))
	for i := range m.seats {
		if i != m.own && m.seats[i].takesPart() {
			rounds = append(rounds, m.seats[i].round())
		}
	}
	if len(rounds) == 0 {
		return 0
	}
	slices.Sort(rounds)
	return rounds[len(rounds)/2]
}

// train starts the next round once the update of the own round is held of
// everyone who is not silent. A node that is two rounds or more behind half of
// the others jumps to where they are.
func (m *Member) train(now time.Duration) {
	if m.own < 0 || !m.seats[m.own].takesPart() || m.training.busy {
		return
	}
	round := m.Round()
	if _, last := m.finalSet(now); last || round == m.task.Rounds {
		return
	}
	next := round + 1
	if reached := m.reached(); reached > next {
		next = reached
	} else if round > 0 && !m.mayGoOn(now, round) {
		return
	}
	mix := m.mix(next - 1)
	t := &m.training
	t.settled = m.task.Tolerance > 0 && round > 0 && t.mix != nil && distance(mix, t.mix) <= m.task.Tolerance
	t.mix, t.busy = mix, true
	m.do(Train{Round: next, From: mix, Roster: m.roster})
}

// mayGoOn tells whether the round after the own one may begin.
func (m *Member) mayGoOn(now time.Duration, round uint64) bool {
	waits := false
	for i := range m.seats {
		s := &m.seats[i]
		if !s.takesPart() || !s.owes(round) {
			continue
		}
		if silent := s.pace.await(m.training.since); now < silent {
			waits = true
			m.wakeAt(silent)
		}
	}
	if waits || !m.cutOff() {
		return !waits
	}
	if round+m.task.Recent() >= m.task.Rounds {
		return false
	}
	at := m.training.since + m.training.takes
	if now < at {
		m.wakeAt(at)
	}
	return now >= at
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
		if u == nil || s.left {
			continue
		}
		if err := sum.Add(s.enrolled.Moments.Count, u.params); err != nil {
			// Checked by task.UpdateOf, and the weight by task.EnrolmentOf.
			panic("member: checked update cannot be added: " + err.Error())
		}
	}
	return sum.Mean()
}

// update is the record of a finished round.
func (m *Member) update(e Trained) Publish {
	return Publish{Kind: record.KindUpdate, Number: e.Round, Body: task.Update{
		Task: m.id, Roster: m.roster.CID, Weight: m.seats[m.own].enrolled.Moments.Count,
		Previous: m.Round(), Settled: m.training.settled, Params: e.Params,
	}}
}

// distance is the largest difference of two vectors' parameters.
func distance(a, b []float64) float64 {
	d := 0.0
	for i := range a {
		d = max(d, math.Abs(a[i]-b[i]))
	}
	return d
}
