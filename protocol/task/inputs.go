package task

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"village/protocol/mixing"
	"village/protocol/record"
)

// Inputs are the records that a model is recomputed from. Encoded, they are one
// artifact, the same at every node.
type Inputs struct {
	Task       []byte       `cbor:"task"`
	Roster     []record.CID `cbor:"roster"`     // of enrolments: the RosterContent
	Enrolments [][]byte     `cbor:"enrolments"` // of the roster, and of the parts that joined late; sorted by CID
	Updates    [][]byte     `cbor:"updates"`    // in the order of the parts
	Vectors    [][]byte     `cbor:"vectors"`    // that the updates announce, in their order; none where they ride inside
}

// MaxInputs is the size in bytes of the largest inputs that a model of the task can
// have. It follows from the task, so that nobody fetches more.
func (t Task) MaxInputs() int64 {
	const (
		around = 4 << 10 // of a record: what is around what is counted here, names and signature
		number = 9       // CBOR's largest
	)
	b, err := record.Encode(t)
	if err != nil {
		panic("task: a checked task is not encoded: " + err.Error())
	}
	all := t.Everyone()
	vector := 8*t.Length(all) + t.header(all)
	enrolment := around + 2*number*t.Columns()
	update := around + 2*number*len(all) + vector/ChunkSize*sha256.Size
	return int64(around + len(b) + len(t.Nodes)*(enrolment+update+vector))
}

// Vector returns the vector that update i announces, or nil.
func (in Inputs) Vector(i int) []byte {
	if i < len(in.Vectors) {
		return in.Vectors[i]
	}
	return nil
}

// UpdateOf reads update i of the inputs, with its parameters.
func (in Inputs) UpdateOf(i int, federation string, t Task) (record.Record, Update, error) {
	r, err := record.Open(in.Updates[i], federation)
	if err != nil {
		return r, Update{}, err
	}
	u, err := UpdateOf(r, t)
	if err == nil && u.Params == nil {
		u, err = u.Fill(in.Vector(i), t)
	}
	return r, u, err
}

// ModelOf makes the model of a final set of checked updates: the weighted mean,
// exact and rounded once, taken where the outer rule takes it. Params are those of
// the parts, in their order, of the chosen candidate.
func ModelOf(id record.CID, t Task, roster Roster, c FinalContent, params [][]float64) (Model, error) {
	if len(c.Parts) == 0 {
		return Model{}, errNoParts
	}
	kept := []int{c.Chosen}
	sum := mixing.NewSum(t.Length(kept))
	for i, p := range c.Parts {
		if err := sum.Add(p.Weight, params[i]); err != nil {
			return Model{}, fmt.Errorf("update of %s: %w", p.Node, err)
		}
	}
	m := Model{
		Task: id, Name: t.Name, Round: c.Round, Roster: roster.CID, Encoding: t.Encoding,
		Scaling: roster.Scaling, Spec: t.SpecOf(c.Chosen), Parts: c.Parts, Out: c.Out,
		Params: t.Advance(kept, sum.Mean())[0].Params, Personal: t.Personal, Candidate: c.Chosen,
	}
	if t.Parent != nil {
		m.Parent = &t.Parent.Model
	}
	return m, nil
}

// covers checks that a final set speaks of every named node once, in their order.
func (c FinalContent) covers(nodes []record.NodeID) error {
	parts, outs := c.Parts, c.Out
	for _, id := range nodes {
		switch {
		case len(parts) > 0 && parts[0].Node == id:
			parts = parts[1:]
		case len(outs) > 0 && outs[0].Node == id:
			outs = outs[1:]
		default:
			return fmt.Errorf("it does not say what became of %s", id)
		}
	}
	if len(parts)+len(outs) > 0 {
		return errors.New("it speaks of nodes that the task does not name")
	}
	return nil
}

// Verified is what [Verify] has found to hold.
type Verified struct {
	ID      record.CID // of the task
	Task    Task
	Content FinalContent
	Model   Model
	Signers int // nodes whose precommits the certificate holds
}

// Verify checks a sealed model from nothing but bytes: the certificate's
// signatures, that every record of the inputs is signed, well formed and the one
// that the certificate names, the weights against the enrolments, and that the
// model recomputed from the updates is, byte for byte, the model. An error names
// what does not hold. The caller has checked that the inputs and the model are
// the artifacts that content names, where it has them by CID.
func Verify(seal []byte, in Inputs, model []byte) (Verified, error) {
	var v Verified
	sealed, err := record.Open(seal, "")
	if err != nil {
		return v, fmt.Errorf("the seal: %w", err)
	}
	federation := sealed.Federation
	proposed, err := record.Open(in.Task, federation)
	if err == nil {
		v.ID = proposed.CID
		v.Task, err = TaskOf(proposed)
	}
	if err != nil {
		return v, fmt.Errorf("the task: %w", err)
	}
	topic, s, err := SealOf(sealed, v.ID, v.Task)
	if err == nil && topic != TopicFinal {
		err = fmt.Errorf("it is of the %s", topic)
	}
	if err == nil {
		err = record.Decode(s.Content, &v.Content)
	}
	if err != nil {
		return v, fmt.Errorf("the seal: %w", err)
	}
	if err := v.Content.checkChoice(v.Task); err != nil {
		return v, fmt.Errorf("the seal: %w", err)
	}
	v.Signers = len(s.Precommits)
	roster, late, err := in.enrolled(v, federation)
	if err != nil {
		return v, err
	}
	if len(in.Updates) != len(v.Content.Parts) {
		return v, fmt.Errorf("%d updates for %d parts", len(in.Updates), len(v.Content.Parts))
	}
	params := make([][]float64, len(in.Updates))
	for i, p := range v.Content.Parts {
		if params[i], err = in.part(i, p, late, v, federation); err != nil {
			return v, fmt.Errorf("the update of %s: %w", p.Node, err)
		}
	}
	if err := v.Content.covers(v.Task.Nodes); err != nil {
		return v, fmt.Errorf("the seal: %w", err)
	}
	if v.Model, err = ModelOf(v.ID, v.Task, roster, v.Content, params); err != nil {
		return v, err
	}
	again, err := v.Model.Marshal()
	if err != nil {
		return v, err
	}
	if !bytes.Equal(again, model) {
		return v, errors.New("the model is not what the updates come to")
	}
	return v, nil
}

// enrolled checks the enrolments and makes the roster of those that it names.
func (in Inputs) enrolled(v Verified, federation string) (Roster, map[record.CID]Enrolled, error) {
	all := map[record.CID]Enrolled{}
	for i, b := range in.Enrolments {
		r, err := record.Open(b, federation)
		if err != nil {
			return Roster{}, nil, fmt.Errorf("enrolment %d: %w", i+1, err)
		}
		e, err := EnrolmentOf(r, v.Task)
		if err == nil && e.Task != v.ID {
			err = errors.New("it is of another task")
		}
		if err != nil {
			return Roster{}, nil, fmt.Errorf("the enrolment of %s: %w", r.Author, err)
		}
		all[r.CID] = Enrolled{CID: r.CID, Author: r.Author, Enrolment: e}
	}
	var members []Enrolled
	for _, cid := range in.Roster {
		e, ok := all[cid]
		if !ok {
			return Roster{}, nil, fmt.Errorf("enrolment %s of the roster is missing", cid)
		}
		members = append(members, e)
	}
	roster, err := RosterOf(v.Task, members)
	if err == nil && roster.CID != v.Content.Roster {
		err = errors.New("the roster is not the one that was decided on")
	}
	return roster, all, err
}

func (in Inputs) part(i int, p Part, enrolled map[record.CID]Enrolled, v Verified, federation string) ([]float64, error) {
	r, u, err := in.UpdateOf(i, federation, v.Task)
	if err != nil {
		return nil, err
	}
	e, ok := enrolled[p.Enrolment]
	switch {
	case u.Task != v.ID || r.CID != p.Update || r.Author != p.Node || r.Number != p.Round:
		return nil, errors.New("it is not the one that was decided on")
	case !ok || e.Author != p.Node:
		return nil, errors.New("the node's enrolment is missing")
	case p.Weight != e.Moments.Count || u.Weight != p.Weight:
		return nil, fmt.Errorf("weight %d, in the update %d, but %d training rows were enrolled", p.Weight, u.Weight, e.Moments.Count)
	case u.Roster != v.Content.Roster:
		return nil, errors.New("it was trained with another roster")
	}
	params, ok := v.Task.Project(u.Params, v.Task.keptOf(u), []int{v.Content.Chosen})
	if !ok {
		return nil, errors.New("it lacks the candidate that was chosen")
	}
	return params, nil
}
