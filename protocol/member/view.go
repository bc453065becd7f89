package member

import (
	"village/protocol/record"
	"village/protocol/task"
)

// Stage is how far a task is at this node.
func (m *Member) Stage() Stage {
	switch {
	case m.seats == nil:
		return Enrolling
	case m.final == nil && m.own >= 0 && m.Round() == m.task.Rounds:
		return Sealing
	case m.final == nil:
		return Training
	case len(m.WaitingFor()) > 0 || !m.model.Defined():
		return Evaluating
	}
	return Done
}

// Round is the node's own newest round; for a node that does not take part, the
// highest that it has seen.
func (m *Member) Round() uint64 {
	if m.own >= 0 {
		return m.seats[m.own].round()
	}
	highest := uint64(0)
	for i := range m.seats {
		highest = max(highest, m.seats[i].round())
	}
	return highest
}

// WaitingFor names, in peer-ID order, the nodes whose next record the task
// waits for at this stage. It is never nil.
func (m *Member) WaitingFor() []record.NodeID {
	waiting := []record.NodeID{}
	switch {
	case m.seats == nil:
		for _, id := range m.task.Nodes {
			if _, enrolled := m.enrolments[id]; !enrolled {
				waiting = append(waiting, id)
			}
		}
	case m.final == nil:
		for i := range m.seats {
			if i != m.own && m.seats[i].at(m.Round()) == nil {
				waiting = append(waiting, m.roster.Members[i].Author)
			}
		}
	default:
		for _, seat := range m.roster.Members {
			if e, ok := m.evaluations[seat.Author]; !ok || m.model.Defined() && e.Model != m.model {
				waiting = append(waiting, seat.Author)
			}
		}
	}
	return waiting
}

// Enrolment returns a node's enrolment.
func (m *Member) Enrolment(id record.NodeID) (task.Enrolled, bool) {
	e, ok := m.enrolments[id]
	return e, ok
}

// RoundOf is the newest round held of a node.
func (m *Member) RoundOf(id record.NodeID) uint64 {
	if m.seats != nil {
		if i := m.roster.Index(id); i >= 0 {
			return m.seats[i].round()
		}
	}
	return 0
}

// HasEvaluated tells whether a node's evaluation is held.
func (m *Member) HasEvaluated(id record.NodeID) bool {
	_, ok := m.evaluations[id]
	return ok
}

// Model returns the sealed model and its CID; the CID is undefined before.
func (m *Member) Model() (record.CID, *task.Model) { return m.model, m.final }

// Results computes the results from the evaluations held so far. It may be
// called once the model has a CID.
func (m *Member) Results() (task.Results, error) {
	return task.ResultsOf(m.task, m.id, m.model, m.final.Round, m.roster, m.evaluations)
}
