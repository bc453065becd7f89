package task

import (
	"slices"

	"village/protocol/dataset"
	"village/protocol/record"
)

// Enrolled is an enrolment with who signed it and where to find it.
type Enrolled struct {
	CID    record.CID
	Author record.NodeID
	Enrolment
}

// Roster is the set of enrolments that a task trains with, in peer-ID order. It
// fixes the weights and the scaling for good.
type Roster struct {
	CID     record.CID // of its RosterContent
	Members []Enrolled
	Scaling dataset.Scaling
}

// RosterOf makes the roster of enrolments that were checked by [EnrolmentOf].
// Every node that holds the same enrolments gets the same bits.
func RosterOf(t Task, enrolments []Enrolled) (Roster, error) {
	r := Roster{Members: slices.Clone(enrolments)}
	slices.SortFunc(r.Members, func(a, b Enrolled) int { return a.Author.Compare(b.Author) })
	moments := make([]dataset.Moments, len(r.Members))
	for i, m := range r.Members {
		moments[i] = m.Moments
	}
	b, err := record.Encode(ContentOf(r.Members))
	if err != nil {
		return Roster{}, err
	}
	r.CID = record.CIDOf(b)
	if t.Parent != nil {
		r.Scaling = t.Parent.Scaling
		return r, nil
	}
	merged, err := dataset.Merge(moments)
	if err != nil {
		return Roster{}, err
	}
	r.Scaling = merged.Scaling()
	return r, nil
}

// Index is the place of a node in the roster, or -1.
func (r Roster) Index(id record.NodeID) int {
	i, found := slices.BinarySearchFunc(r.Members, id, func(m Enrolled, id record.NodeID) int { return m.Author.Compare(id) })
	if !found {
		return -1
	}
	return i
}

// ContentOf is what is decided on as the roster of the enrolments.
func ContentOf(enrolments []Enrolled) RosterContent {
	cids := make([]record.CID, len(enrolments))
	for i, e := range enrolments {
		cids[i] = e.CID
	}
	SortCIDs(cids)
	return RosterContent{Enrolments: cids}
}
