// Package evidence checks a sealed model from nothing but bytes, whoever has kept
// them: a certificate that a quorum has signed, the records that the model is
// recomputed from, and the model. It writes and reads them as a directory.
package evidence

import (
	"bytes"
	"fmt"
	"slices"

	"village/node/api"
	"village/protocol/agree"
	"village/protocol/record"
	"village/protocol/task"
	"village/storage"
)

// MaxModel is the size in bytes of the largest model: its parameters as float64,
// and what describes them.
const MaxModel = 2*task.MaxVector + 64<<20

// Verify checks a sealed model from nothing but bytes: the certificate
// and every other signature, the weights against the enrolments, that the model
// recomputed from the updates is the model byte for byte, and that inputs and
// model are the artifacts that were signed. An error names what does not hold.
func Verify(e api.Evidence) (api.Verified, error) {
	var in task.Inputs
	if err := record.Decode(e.Inputs, &in); err != nil {
		return api.Verified{}, fmt.Errorf("the inputs: %w", err)
	}
	v, err := task.Verify(e.Seal, in, e.Model)
	if err != nil {
		return api.Verified{}, err
	}
	for _, artifact := range []struct {
		name   string
		bytes  []byte
		sealed record.CID
	}{{"inputs", e.Inputs, v.Content.Inputs}, {"model", e.Model, v.Content.Model}} {
		got, err := storage.ArtifactCID(bytes.NewReader(artifact.bytes))
		if err != nil {
			return api.Verified{}, err
		}
		if got != artifact.sealed {
			return api.Verified{}, fmt.Errorf("the %s: %s was signed, these bytes are %s", artifact.name, artifact.sealed, got)
		}
	}
	return describe(e, in, v)
}

// describe says what was checked.
func describe(e api.Evidence, in task.Inputs, v task.Verified) (api.Verified, error) {
	names := map[record.NodeID]api.NamedNode{}
	nodeOf := map[record.CID]record.NodeID{} // by enrolment
	for _, b := range in.Enrolments {
		r, err := record.Open(b, "")
		if err != nil {
			return api.Verified{}, err
		}
		enrolment, err := task.EnrolmentOf(r, v.Task)
		if err != nil {
			return api.Verified{}, err
		}
		names[r.Author] = api.NamedNode{PeerID: r.Author, Nation: enrolment.Nation, Name: enrolment.Node}
		nodeOf[r.CID] = r.Author
	}
	named := func(id record.NodeID) api.NamedNode {
		n := names[id]
		n.PeerID = id
		return n
	}
	r, err := record.Open(e.Seal, "")
	if err != nil {
		return api.Verified{}, err
	}
	_, seal, err := task.SealOf(r, v.ID, v.Task)
	if err != nil {
		return api.Verified{}, err
	}
	c := v.Content
	answer := api.Verified{
		CID: c.Model, Valid: true, Federation: r.Federation, Task: v.ID, Name: v.Task.Name,
		Named: len(v.Task.Nodes), Quorum: agree.Quorum(len(v.Task.Nodes)), Signers: []api.NamedNode{},
		RosterCID: c.Roster, Roster: []api.NamedNode{}, Round: c.Round, Parts: []api.VerifiedPart{}, Out: []api.VerifiedOut{},
		Inputs: c.Inputs, Model: v.Model.Spec.Kind, Parameters: len(v.Model.Params), Bytes: uint64(len(e.Model)),
	}
	for _, b := range seal.Precommits {
		vote, err := record.Open(b, r.Federation)
		if err != nil {
			return api.Verified{}, err
		}
		answer.Signers = append(answer.Signers, named(vote.Author))
	}
	for _, cid := range in.Roster {
		answer.Roster = append(answer.Roster, named(nodeOf[cid]))
	}
	for _, list := range [][]api.NamedNode{answer.Signers, answer.Roster} {
		slices.SortFunc(list, func(a, b api.NamedNode) int { return a.PeerID.Compare(b.PeerID) })
	}
	for _, p := range c.Parts {
		answer.Parts = append(answer.Parts, api.VerifiedPart{
			NamedNode: named(p.Node), Round: p.Round, Weight: p.Weight, Late: !slices.Contains(in.Roster, p.Enrolment),
		})
	}
	for _, o := range c.Out {
		answer.Out = append(answer.Out, api.VerifiedOut{NamedNode: named(o.Node), Round: o.Round, Why: o.Why})
	}
	return answer, nil
}
