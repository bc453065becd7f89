package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"village/node/api"
	"village/protocol/agree"
	"village/protocol/record"
	"village/protocol/task"
	"village/storage"
)

// VerifyEvidence checks a sealed model from nothing but bytes: the certificate
// and every other signature, the weights against the enrolments, that the model
// recomputed from the updates is the model byte for byte, and that inputs and
// model are the artifacts that were signed. An error names what does not hold.
func VerifyEvidence(e api.Evidence) (api.Verified, error) {
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
	return describeVerified(e, in, v)
}

// describeVerified says what was checked.
func describeVerified(e api.Evidence, in task.Inputs, v task.Verified) (api.Verified, error) {
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

// evidence gathers, from the store and else from peers, what a model is checked
// from, and checks it.
func (n *Node) evidence(ctx context.Context, cid record.CID) (api.Evidence, api.Verified, error) {
	e := api.Evidence{Schema: "village.model.evidence/v1"}
	bad := func(next, format string, args ...any) (api.Evidence, api.Verified, error) {
		return api.Evidence{}, api.Verified{}, api.Fail(api.CodeFailed, next, format, args...)
	}
	m, b, err := n.model(ctx, cid)
	if err != nil {
		return api.Evidence{}, api.Verified{}, err
	}
	e.Model = b
	content, seal := n.certificate(m.Task)
	if seal == nil {
		return bad("village peer list", "no certificate of task %s, which %s is said to be the model of, is here; nodes that took part in the task have it", m.Task, cid)
	}
	e.Seal = seal
	if content.Model != cid {
		return bad("village model verify "+content.Model.String(), "%s is not the model that the nodes of its task have signed; that is %s", cid, content.Model)
	}
	in, err := n.readInputs(ctx, content.Inputs)
	if errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrDamaged) {
		if lack := n.artifacts.Fetch(ctx, content.Inputs, maxInputs); lack != nil {
			return bad("village peer list", "the records that model %s is recomputed from are not stored here in whole, and cannot be fetched: %v", cid, lack)
		}
		in, err = n.readInputs(ctx, content.Inputs)
	}
	if err == nil {
		e.Inputs, err = record.Encode(in)
	}
	var v api.Verified
	if err == nil {
		v, err = VerifyEvidence(e)
	}
	if err != nil {
		return bad("at another node: village model verify "+cid.String(), "model %s does not hold: %v", cid, err)
	}
	return e, v, nil
}

// certificate returns, of the seals held of a task's final set, the one that
// most nodes have signed, with what it says; nil where none is held.
func (n *Node) certificate(id record.CID) (content task.FinalContent, seal []byte) {
	most := 0
	for _, r := range n.store.Records(record.KindSeal) {
		var s task.Seal
		var c task.FinalContent
		if r.Subject != task.TopicFinal.Subject(id) || record.Decode(r.Payload, &s) != nil || record.Decode(s.Content, &c) != nil {
			continue
		}
		if len(s.Precommits) > most {
			most, content, seal = len(s.Precommits), c, r.Bytes
		}
	}
	return content, seal
}

func (n *Node) verifyModel(ctx context.Context, cid record.CID) (any, error) {
	_, v, err := n.evidence(ctx, cid)
	v.Schema = "village.model.verify/v1"
	return v, err
}

func (n *Node) modelEvidence(ctx context.Context, cid record.CID) (any, error) {
	e, _, err := n.evidence(ctx, cid)
	return e, err
}
