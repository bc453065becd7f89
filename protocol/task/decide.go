package task

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"village/protocol/agree"
	"village/protocol/record"
)

// Topic is what the named nodes decide on by quorum in the course of a task.
type Topic string

// The topics.
const (
	TopicRoster Topic = "roster" // with which enrolments training starts: RosterContent
	TopicFinal  Topic = "final"  // of which updates the model is made: FinalContent
)

// TopicOfRung is the topic of the end of a rung of a search, counted from 0: which
// candidates go on: RungContent.
func TopicOfRung(rung int) Topic { return Topic("rung" + strconv.Itoa(rung+1)) }

// Rung returns the rung that a topic is of, if any.
func (topic Topic) Rung(t Task) (rung int, ok bool) {
	for i := range t.rungs() {
		if topic == TopicOfRung(i) {
			return i, true
		}
	}
	return 0, false
}

// Subject is the subject of the records of a decision.
func (topic Topic) Subject(id record.CID) string { return id.String() + "/" + string(topic) }

// Proposal is the payload of a proposal record.
type Proposal struct {
	Content []byte   `cbor:"content"`
	Valid   uint64   `cbor:"valid"` // see agree.Vote
	Proof   [][]byte `cbor:"proof"` // prevote records
}

// Vote is the payload of a prevote and of a precommit record: the bytes of the
// CID of a proposal's content, or none.
type Vote struct {
	Value []byte `cbor:"value"`
}

// Seal is the payload of a seal record: what was decided, and the precommit
// records of a quorum that prove it.
type Seal struct {
	Content    []byte   `cbor:"content"`
	Precommits [][]byte `cbor:"precommits"`
}

// RosterContent is what is decided on as the roster: CIDs of enrolments, sorted
// by their bytes.
type RosterContent struct {
	Enrolments []record.CID `cbor:"enrolments"`
}

// FinalContent is what is decided on as the final set: the updates that make the
// model, why each other named node is left out, and what they come to.
type FinalContent struct {
	Round  uint64     `cbor:"round" json:"round"` // the last round
	Roster record.CID `cbor:"roster" json:"roster"`
	Parts  []Part     `cbor:"parts" json:"parts"` // in peer-ID order
	Out    []Out      `cbor:"out" json:"out"`     // in peer-ID order
	// Inputs is the artifact that holds the records of the parts: what anyone
	// needs to recompute the model. See [Inputs].
	Inputs record.CID `cbor:"inputs" json:"inputs"`
	Model  record.CID `cbor:"model" json:"model"`
	// Chosen is the candidate that a search has come to, and Ends how.
	Chosen int       `cbor:"chosen,omitempty" json:"chosen,omitempty"`
	Ends   []RungEnd `cbor:"ends,omitempty" json:"ends,omitempty"`
}

// RungContent is what is decided on at the end of a rung: whose losses count, and
// what follows from them.
type RungContent struct {
	Roster  record.CID   `cbor:"roster"`
	Updates []record.CID `cbor:"updates"` // of the rung's last round, in peer-ID order of their authors
	End     RungEnd      `cbor:"end"`
}

// RungEnd is how a rung ended.
type RungEnd struct {
	Nodes  int       `cbor:"nodes" json:"nodes"`   // whose losses count
	Losses []float64 `cbor:"losses" json:"losses"` // of the candidates that the rung began with, in their order
	Kept   []int     `cbor:"kept" json:"kept"`     // of them, those that go on
}

// What a quorum has signed is what honest nodes have judged good, if few enough of
// them are hostile. Who only follows a task cannot know, and looks before it goes
// by it.

// Check refuses a roster that is none.
func (c RosterContent) Check(t Task) error {
	if len(c.Enrolments) == 0 || len(c.Enrolments) > len(t.Nodes) {
		return fmt.Errorf("a roster of %d enrolments of %d nodes", len(c.Enrolments), len(t.Nodes))
	}
	for i := 1; i < len(c.Enrolments); i++ {
		if c.Enrolments[i].KeyString() <= c.Enrolments[i-1].KeyString() {
			return errors.New("a roster's enrolments are sorted and named once")
		}
	}
	return nil
}

// Check refuses an end of a rung, counted from 0, that began with these candidates
// and cannot have ended so.
func (c RungContent) Check(t Task, rung int, kept []int) error { return c.End.check(t, rung, kept) }

// Check refuses a final set that is not of the task, or makes no model.
func (c FinalContent) Check(t Task) error {
	if err := c.checkChoice(t); err != nil {
		return err
	}
	if err := c.covers(t.Nodes); err != nil {
		return err
	}
	if len(c.Parts) == 0 {
		return errNoParts
	}
	for _, p := range c.Parts {
		if p.Weight == 0 || p.Weight > MaxRows {
			return fmt.Errorf("weight %d of %s", p.Weight, p.Node)
		}
	}
	return nil
}

var errNoParts = errors.New("a model is made of one update at least")

// Part is one update of a final set.
type Part struct {
	Node      record.NodeID `cbor:"node" json:"node"`
	Enrolment record.CID    `cbor:"enrolment" json:"enrolment"`
	Update    record.CID    `cbor:"update" json:"update"`
	Round     uint64        `cbor:"round" json:"round"`
	Weight    uint64        `cbor:"weight" json:"weight"`
}

// Out is a named node that is not in the final set.
type Out struct {
	Node  record.NodeID `cbor:"node" json:"node"`
	Round uint64        `cbor:"round" json:"round"` // of its newest update, 0 without one
	Why   Why           `cbor:"why" json:"why"`
}

// Why is the reason for which a node is not in the final set.
type Why string

// The reasons.
const (
	Absent Why = "absent" // it did not enrol
	Left   Why = "left"   // it left the task
	Silent Why = "silent" // a quorum had waited for it and heard nothing
	// It has signed two records for one place: nobody knows what others were told.
	Equivocated Why = "equivocated"
)

// Recent is how many rounds before the last one an update of a node that has
// fallen silent may be, to be in the final set: one in ten, at least one.
func (t Task) Recent() uint64 { return max(1, t.Rounds/10) }

// BallotSeed makes the tasks' first proposers differ.
func BallotSeed(id record.CID) uint64 {
	seed := uint64(0)
	for _, b := range id.Hash()[2:10] {
		seed = seed<<8 | uint64(b)
	}
	return seed
}

// maxDecision is the size in bytes that no proposal and no seal of a task reaches:
// of each node it names a few CIDs and holds one vote, of each rung of a search a few
// numbers a candidate.
func (t Task) maxDecision() int {
	n := 4<<10 + len(t.Nodes)<<10
	if t.Search != nil {
		n += len(t.Search.Rungs) * (256 + 32*len(t.Search.Candidates))
	}
	return n
}

// VoteOf reads a proposal, prevote or precommit record and checks it against its
// task: a proposal's proof is then a quorum of valid prevotes.
func VoteOf(r record.Record, id record.CID, t Task) (Topic, agree.Vote, error) {
	topic, err := topicOf(r, id, t)
	if err == nil && r.Number >= record.MaxBallots {
		err = fmt.Errorf("ballot %d", r.Number)
	}
	if err != nil {
		return "", agree.Vote{}, fmt.Errorf("%w: %s: %w", ErrInvalid, r.Kind, err)
	}
	v := agree.Vote{CID: r.CID, Author: r.Author, Ballot: r.Number}
	switch r.Kind {
	case record.KindProposal:
		if agree.Proposer(t.Nodes, BallotSeed(id), r.Number) != r.Author || len(r.Payload) > t.maxDecision() {
			return "", agree.Vote{}, fmt.Errorf("%w: a proposal of %d bytes in another's turn, or with more than %d", ErrInvalid, len(r.Payload), t.maxDecision())
		}
		var p Proposal
		if err := decode(r, r.Kind, &p); err != nil {
			return "", agree.Vote{}, err
		}
		v.Phase, v.Value, v.Content, v.Valid = agree.Proposal, record.CIDOf(p.Content), p.Content, p.Valid
		if v.Proof, err = certificate(p.Proof, r, record.KindPrevote, v.Value, t); err == nil && (p.Valid > r.Number || (p.Valid > 0) != (len(p.Proof) > 0)) {
			err = errors.New("proof and ballot do not fit")
		}
		for _, b := range p.Proof {
			if prevote, e := record.Open(b, r.Federation); e != nil || prevote.Number != p.Valid-1 {
				err = errors.Join(err, errors.New("a prevote of another ballot"))
			}
		}
	case record.KindPrevote, record.KindPrecommit:
		v.Phase = agree.Prevote
		if r.Kind == record.KindPrecommit {
			v.Phase = agree.Precommit
		}
		v.Value, err = valueOf(r)
	default:
		err = errors.New("not a vote")
	}
	if err != nil {
		return "", agree.Vote{}, fmt.Errorf("%w: %s: %w", ErrInvalid, r.Kind, err)
	}
	return topic, v, nil
}

// SealOf reads a seal record and checks its certificate: precommits of a quorum
// of the task's nodes, in one ballot, for the content. It returns the content.
func SealOf(r record.Record, id record.CID, t Task) (Topic, Seal, error) {
	var s Seal
	topic, err := topicOf(r, id, t)
	if err == nil && (r.Number != 0 || len(r.Payload) > t.maxDecision()) {
		err = fmt.Errorf("number %d, %d bytes", r.Number, len(r.Payload))
	}
	if err == nil {
		err = decode(r, record.KindSeal, &s)
	}
	if err == nil {
		_, err = certificate(s.Precommits, r, record.KindPrecommit, record.CIDOf(s.Content), t)
	}
	if err == nil && len(s.Precommits) == 0 {
		err = errors.New("no precommits")
	}
	if err == nil {
		var content any = &RungContent{}
		switch topic {
		case TopicRoster:
			content = &RosterContent{}
		case TopicFinal:
			content = &FinalContent{}
		}
		err = record.Decode(s.Content, content)
	}
	if err != nil {
		return "", Seal{}, fmt.Errorf("%w: seal: %w", ErrInvalid, err)
	}
	return topic, s, nil
}

// SameDecision says whether two seals certify one content. Their authors gathered
// other precommits for it, which contradicts nothing.
func SameDecision(a, b record.Record) bool {
	var one, other Seal
	return a.Kind == record.KindSeal && b.Kind == record.KindSeal &&
		record.Decode(a.Payload, &one) == nil && record.Decode(b.Payload, &other) == nil &&
		bytes.Equal(one.Content, other.Content)
}

// topicOf checks the subject and author of a record of a decision.
func topicOf(r record.Record, id record.CID, t Task) (Topic, error) {
	name, topic, _ := strings.Cut(r.Subject, "/")
	_, isRung := Topic(topic).Rung(t)
	switch {
	case name != id.String():
		return "", errors.New("subject names another task")
	case Topic(topic) != TopicRoster && Topic(topic) != TopicFinal && !isRung:
		return "", fmt.Errorf("topic %q", topic)
	case !t.Named(r.Author) && r.Kind != record.KindSeal:
		return "", ErrForeign
	}
	return Topic(topic), nil
}

func valueOf(r record.Record) (record.CID, error) {
	var v Vote
	if err := decode(r, r.Kind, &v); err != nil || len(v.Value) == 0 {
		return record.CID{}, err
	}
	value, err := record.CastCID(v.Value)
	if err == nil && value.Prefix() != record.CIDOf(nil).Prefix() {
		err = errors.New("no content has such a CID")
	}
	if err != nil {
		return record.CID{}, err
	}
	return value, nil
}

// certificate checks that the records are votes of one kind for a value in one
// ballot of the decision that r is of, by a quorum of the task's nodes, and
// returns their CIDs. No records are an empty certificate.
func certificate(votes [][]byte, r record.Record, kind record.Kind, value record.CID, t Task) ([]record.CID, error) {
	if len(votes) == 0 {
		return nil, nil
	}
	if len(votes) < agree.Quorum(len(t.Nodes)) || len(votes) > len(t.Nodes) {
		return nil, fmt.Errorf("%d votes of %d nodes are no quorum", len(votes), len(t.Nodes))
	}
	var cids []record.CID
	var ballot uint64
	authors := map[record.NodeID]bool{}
	for i, b := range votes {
		vote, err := record.Open(b, r.Federation)
		if err != nil {
			return nil, fmt.Errorf("vote %d: %w", i+1, err)
		}
		if i == 0 {
			ballot = vote.Number
		}
		voted, err := valueOf(vote)
		switch {
		case err != nil:
			return nil, fmt.Errorf("vote %d: %w", i+1, err)
		case vote.Kind != kind || vote.Subject != r.Subject || vote.Number != ballot || voted != value:
			return nil, fmt.Errorf("vote %d is for something else", i+1)
		case !t.Named(vote.Author) || authors[vote.Author]:
			return nil, fmt.Errorf("vote %d is not of a node of its own", i+1)
		}
		authors[vote.Author] = true
		cids = append(cids, vote.CID)
	}
	return cids, nil
}

// SortCIDs sorts by the bytes of the CIDs.
func SortCIDs(cids []record.CID) {
	slices.SortFunc(cids, func(a, b record.CID) int { return strings.Compare(a.KeyString(), b.KeyString()) })
}
