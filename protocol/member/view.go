package member

import (
	"village/protocol/record"
	"village/protocol/task"
)

// Stage is how far the task is at this node.
func (m *Member) Stage() Stage {
	switch {
	case !m.hasRoster():
		return Enrolling
	case !m.sealed() && m.own >= 0 && m.Round() == m.task.Rounds:
		return Sealing
	case !m.sealed():
		return Training
	}
	if model, _ := m.Model(); !model.Defined() || len(m.WaitingFor()) > 0 {
		return Evaluating
	}
	return Done
}

// Round is the node's own newest round; for a node that does not take part, the
// highest that it has seen.
func (m *Member) Round() uint64 {
	if m.own >= 0 && m.seats[m.own].enrolled != nil {
		return m.seats[m.own].round()
	}
	highest := uint64(0)
	for i := range m.seats {
		highest = max(highest, m.seats[i].round())
	}
	return highest
}

// WaitingFor names, in peer-ID order, the nodes whose next record the task
// waits for at this stage. Nobody waits for the silent as long as the others are
// a quorum. It is never nil.
func (m *Member) WaitingFor() []record.NodeID {
	waiting := []record.NodeID{}
	for i := range m.seats {
		s := &m.seats[i]
		waits := false
		switch {
		case !m.hasRoster():
			waits = s.enrolled == nil && !s.out()
		case !m.sealed():
			waits = m.rounds.awaits(i, max(m.Round(), 1)) && (m.now < s.pace.silentAt() || m.rounds.cutOff(m.now))
		default:
			waits = m.awaited(i) && m.now < s.pace.silentAt()
		}
		if waits {
			waiting = append(waiting, s.id)
		}
	}
	return waiting
}

// Undecided names the nodes that have to speak before what is due can be decided
// on by quorum, and how many are needed in all; nobody where nothing is due.
func (m *Member) Undecided() (missing []record.NodeID, quorum int) {
	d := &m.rosterVote
	if m.hasRoster() {
		d = &m.finalVote
		if m.climbing() {
			d = &m.rungVotes[len(m.ends)]
		}
	}
	if _, started := d.machine.Ballot(); !started || m.sealed() {
		return nil, 0
	}
	return d.machine.Missing(), d.machine.Quorum()
}

// Enrolment returns a node's enrolment.
func (m *Member) Enrolment(id record.NodeID) (task.Enrolled, bool) {
	if i := m.seatOf(id); i >= 0 && m.seats[i].enrolled != nil {
		return *m.seats[i].enrolled, true
	}
	return task.Enrolled{}, false
}

// RoundOf is the newest round held of a node.
func (m *Member) RoundOf(id record.NodeID) uint64 {
	if i := m.seatOf(id); i >= 0 {
		return m.seats[i].round()
	}
	return 0
}

// HasLeft tells whether a node has ended its part.
func (m *Member) HasLeft(id record.NodeID) bool {
	i := m.seatOf(id)
	return i >= 0 && m.seats[i].left
}

// Equivocated returns two records that prove that a node has signed both for one
// place, nil where none are known.
func (m *Member) Equivocated(id record.NodeID) []record.CID {
	if i := m.seatOf(id); i >= 0 {
		return m.seats[i].proof
	}
	return nil
}

// Roster is the CID of the roster, undefined before it is decided on.
func (m *Member) Roster() record.CID { return m.roster.CID }

// InRoster tells whether a node is in the roster; one that takes part without
// has joined late.
func (m *Member) InRoster(id record.NodeID) bool { return m.roster.Index(id) >= 0 }

// IsSilent tells whether the task goes on without waiting for a node.
func (m *Member) IsSilent(id record.NodeID) bool {
	i := m.seatOf(id)
	return i >= 0 && i != m.own && m.hasRoster() && m.now >= m.seats[i].pace.silentAt()
}

// HasEvaluated tells whether a node's evaluation is held.
func (m *Member) HasEvaluated(id record.NodeID) bool {
	i := m.seatOf(id)
	return i >= 0 && m.seats[i].evaluation != nil
}

// Kept are the candidates of a search that are still in it.
func (m *Member) Kept() []int { return m.kept }

// Model returns the sealed model and its CID; the CID is undefined before it is
// stored.
func (m *Member) Model() (record.CID, *task.Model) {
	if !m.sealed() || m.final == nil {
		return record.CID{}, nil
	}
	return m.made[m.set].Model, m.final
}

// Content is the final set that was decided on; its Model is undefined before.
func (m *Member) Content() task.FinalContent { return m.content }

// Disputed tells whether this node computes another model from the decided set
// than the quorum has signed, which must never be.
func (m *Member) Disputed() bool {
	made := m.made[m.set]
	return m.sealed() && made.Model.Defined() && made.Model != m.content.Model
}

// Results computes the results from the evaluations held so far. It may be
// called once the model has a CID.
func (m *Member) Results() (task.Results, error) {
	if m.results == nil {
		r, err := m.compute()
		if err != nil {
			return r, err
		}
		m.results = &r
	}
	return *m.results, nil
}

// compute computes the results, which takes a while: it draws rows anew.
func (m *Member) compute() (task.Results, error) {
	enrolled := map[record.NodeID]task.Enrolled{}
	evaluations := map[record.NodeID]task.Evaluation{}
	for i := range m.seats {
		if e := m.seats[i].enrolled; e != nil {
			enrolled[m.seats[i].id] = *e
		}
		if e := m.seats[i].evaluation; e != nil && m.seats[i].proof == nil {
			evaluations[m.seats[i].id] = *e
		}
	}
	r, err := task.ResultsOf(m.task, m.id, m.content, m.roster, enrolled, evaluations)
	for i := range r.Contributions {
		if c := &r.Contributions[i]; c.InFinal && m.Equivocated(c.PeerID) != nil {
			c.Why += "; its evaluation does not count: it has signed two records for one place"
		}
	}
	return r, err
}

// Certified says whether the proof of what the final decision was is known here.
func (m *Member) Certified() bool { return m.finalVote.certified }
