package member

import (
	"slices"
	"time"

	"village/protocol/agree"
	"village/protocol/record"
	"village/protocol/task"
)

// climbing tells whether rungs of a search have yet to end.
func (m *Member) climbing() bool { return len(m.ends) < len(m.rungVotes) }

// limit keeps the next round from beginning before the rung before it has ended.
func (m *Member) limit() {
	m.rounds.limit = 0
	if m.climbing() {
		m.rounds.limit = m.task.Search.Rungs[len(m.ends)].Round
	}
}

// vote casts the votes that are due at the end of a rung, or of the training.
func (m *Member) vote(now time.Duration) {
	if !m.climbing() {
		m.decide(now, &m.finalVote, m.finalApplication(now))
		m.adopt(now)
		return
	}
	rung := len(m.ends)
	m.decide(now, &m.rungVotes[rung], m.rungApplication(now, rung))
	if m.adoptRungs(now); len(m.ends) == rung {
		return
	}
	if m.train(now); !m.rounds.Busy() {
		m.vote(now) // a node that does not train has the next decision before it
	}
}

// adoptRungs takes up how rungs were decided to end.
func (m *Member) adoptRungs(now time.Duration) {
	for m.climbing() {
		_, content, ok := m.rungVotes[len(m.ends)].machine.Decided()
		if !ok {
			return
		}
		var c task.RungContent
		if record.Decode(content, &c) != nil || c.Check(m.task, len(m.ends), m.kept) != nil {
			return // no honest quorum has judged it good
		}
		m.ends, m.kept = append(m.ends, c.End), c.End.Kept
		m.limit()
		for i := range m.seats {
			for _, u := range m.seats[i].updates {
				m.narrow(u)
			}
			m.takeEarly(now, i)
		}
	}
}

// rungApplication decides which candidates go on after a rung: those that do best
// by the losses of everyone who is not silent.
func (m *Member) rungApplication(now time.Duration, rung int) agree.Application {
	of := m.task.Search.Rungs[rung]
	return agree.Application{
		Propose: func() ([]byte, bool) {
			if m.behind(of.Round) {
				return nil, false
			}
			c, ready := task.RungContent{Roster: m.roster.CID}, true
			for i := range m.seats {
				switch u := m.ended(i, of.Round); {
				case u != nil:
					c.Updates = append(c.Updates, u.CID)
				case !m.dispensable(now, i, of.Round):
					ready = false
				}
			}
			if !ready || len(c.Updates) < m.fewestParts() {
				return nil, false
			}
			c.End = m.end(rung, c.Updates)
			return m.encode(c), true
		},
		Judge: func(content []byte) agree.Verdict {
			var c task.RungContent
			if record.Decode(content, &c) != nil || c.Roster != m.roster.CID || len(c.Updates) == 0 || len(c.Updates) > len(m.seats) {
				return agree.Bad
			}
			if m.behind(of.Round) || len(c.Updates) < m.fewestParts() {
				return agree.Pending
			}
			verdict, named := agree.Good, c.Updates
			for i := range m.seats {
				if u := m.ended(i, of.Round); u != nil && len(named) > 0 && named[0] == u.CID {
					named = named[1:]
				} else if !m.dispensable(now, i, of.Round) {
					verdict = agree.Pending
				}
			}
			if len(named) > 0 {
				return agree.Pending // an update that is not here, or no update
			}
			if verdict == agree.Good && !sameEnd(c.End, m.end(rung, c.Updates)) {
				return agree.Bad
			}
			return verdict
		},
	}
}

// ended returns the update of a seat that ends a rung, nil where none is held.
func (m *Member) ended(i int, round uint64) *Update {
	if s := &m.seats[i]; s.part {
		if u := s.at(round); u != nil && u.Losses != nil {
			return u
		}
	}
	return nil
}

// dispensable tells whether the end of a rung need not wait for a node: it takes no
// part, is silent, or has given no losses that could be used.
func (m *Member) dispensable(now time.Duration, i int, round uint64) bool {
	s := &m.seats[i]
	return !s.part || s.at(round) != nil && s.at(round).Losses == nil || m.quiet(now, i)
}

// end computes how a rung ends by held updates.
func (m *Member) end(rung int, cids []record.CID) task.RungEnd {
	round := m.task.Search.Rungs[rung].Round
	updates := make([]task.Update, 0, len(cids))
	for i := range m.seats {
		if u := m.ended(i, round); u != nil && slices.Contains(cids, u.CID) {
			updates = append(updates, task.Update{Losses: u.Losses, Rows: u.Rows})
		}
	}
	return m.task.End(rung, m.kept, updates)
}

func sameEnd(a, b task.RungEnd) bool {
	return a.Nodes == b.Nodes && slices.Equal(a.Losses, b.Losses) && slices.Equal(a.Kept, b.Kept)
}
