package task

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"village/protocol/agree"
	"village/protocol/record"
)

// voters are the keys of four nodes that a task names, in peer-ID order, and of
// one that it does not. Three of the four are a quorum.
var voters = func() (keys []ed25519.PrivateKey) {
	for i := range byte(5) {
		keys = append(keys, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{10 + i}, ed25519.SeedSize)))
	}
	slices.SortFunc(keys[:4], func(a, b ed25519.PrivateKey) int { return idOf(a).Compare(idOf(b)) })
	return keys
}()

func votedTask(t testing.TB) (Task, record.CID) {
	tk := good()
	tk.Nodes = nil
	for _, key := range voters[:4] {
		tk.Nodes = append(tk.Nodes, idOf(key))
	}
	return tk, taskRecord(t, tk).CID
}

// contents are what is decided on in these tests, by topic.
func contents(t testing.TB) map[Topic][]byte {
	tk, _ := votedTask(t)
	some := record.CIDOf([]byte("some"))
	list := map[Topic][]byte{}
	for topic, content := range map[Topic]any{
		TopicRoster: RosterContent{Enrolments: []record.CID{some}},
		TopicFinal: FinalContent{
			Round: 3, Roster: some, Inputs: some, Model: some,
			Parts: []Part{{Node: tk.Nodes[0], Enrolment: some, Update: some, Round: 3, Weight: 7}},
			Out:   []Out{{Node: tk.Nodes[1], Round: 1, Why: Silent}},
		},
	} {
		b, err := record.Encode(content)
		if err != nil {
			t.Fatal(err)
		}
		list[topic] = b
	}
	return list
}

// ballots are votes of these voters, as the bytes of records.
func ballots(t testing.TB, kind record.Kind, subject string, ballot uint64, value []byte, by ...int) (list [][]byte) {
	for _, i := range by {
		list = append(list, sign(t, voters[i], kind, subject, ballot, Vote{Value: value}).Bytes)
	}
	return list
}

// fault is a list of votes that is no certificate.
type fault struct {
	name  string
	votes [][]byte
	want  string // part of the error
}

// faults are such lists in the place of a quorum of votes for a value.
func faults(t testing.TB, kind record.Kind, id record.CID, topic Topic, ballot uint64, value []byte) []fault {
	subject := topic.Subject(id)
	good := ballots(t, kind, subject, ballot, value, 0, 1, 2)
	other := map[Topic]Topic{TopicRoster: TopicFinal, TopicFinal: TopicRoster}[topic]
	otherKind := map[record.Kind]record.Kind{record.KindPrevote: record.KindPrecommit, record.KindPrecommit: record.KindPrevote}[kind]
	// with has another vote in the place of the second.
	with := func(votes ...[]byte) [][]byte { return [][]byte{good[0], votes[0], good[2]} }
	foreign, err := record.Sign(voters[1], "another", kind, subject, ballot, Vote{Value: value})
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good[1])
	flipped[len(flipped)-30] ^= 1
	// A vote with another's name above it: what a liar can make of its own.
	renamed := bytes.Replace(ballots(t, kind, subject, ballot, value, 0)[0], voters[0].Public().(ed25519.PublicKey), voters[1].Public().(ed25519.PublicKey), 1)
	capitals, _ := id.StringOfBase('B')
	return []fault{
		{"too few", good[:2], "2 votes of 4 nodes are no quorum"},
		{"one", good[:1], "1 votes of 4 nodes are no quorum"},
		{"more than there are nodes", append(slices.Clone(good), good[0], good[1]), "no quorum"},
		{"one of them twice", with(good[0]), "vote 2 is not of a node of its own"},
		{"a node that votes twice", append(slices.Clone(good), ballots(t, kind, subject, ballot, value, 1)...), "vote 4 is not of a node of its own"},
		{"a node that is not named", with(ballots(t, kind, subject, ballot, value, 4)...), "vote 2 is not of a node of its own"},
		{"a flipped bit", with(flipped), "vote 2: " + record.ErrSignature.Error()},
		{"another's name", with(renamed), "vote 2: " + record.ErrSignature.Error()},
		{"cut", with(good[1][:len(good[1])-1]), "vote 2: " + record.ErrMalformed.Error()},
		{"nothing", with(nil), "vote 2: " + record.ErrMalformed.Error()},
		{"too large", with(make([]byte, record.MaxBytes+1)), "vote 2: " + record.ErrTooLarge.Error()},
		{"another federation", with(foreign.Bytes), "vote 2: " + record.ErrFederation.Error()},
		{"another ballot", with(ballots(t, kind, subject, ballot+1, value, 1)...), "vote 2 is for something else"},
		{"another topic", with(ballots(t, kind, other.Subject(id), ballot, value, 1)...), "vote 2 is for something else"},
		{"another task", with(ballots(t, kind, topic.Subject(record.CIDOf(nil)), ballot, value, 1)...), "vote 2 is for something else"},
		{"the task in capitals", with(ballots(t, kind, capitals+"/"+string(topic), ballot, value, 1)...), "vote 2 is for something else"},
		{"another kind of vote", with(ballots(t, otherKind, subject, ballot, value, 1)...), "vote 2 is for something else"},
		{"another value", with(ballots(t, kind, subject, ballot, record.CIDOf([]byte("another")).Bytes(), 1)...), "vote 2 is for something else"},
		{"a vote for none", with(ballots(t, kind, subject, ballot, nil, 1)...), "vote 2 is for something else"},
		{"a vote for no CID", with(ballots(t, kind, subject, ballot, []byte("x"), 1)...), "vote 2: "},
		{"a vote for another spelling", with(ballots(t, kind, subject, ballot, value[2:], 1)...), "vote 2: "},
		{"no vote", with(sign(t, voters[1], kind, subject, ballot, "x").Bytes), "vote 2: "},
		{"all for another value", ballots(t, kind, subject, ballot, record.CIDOf([]byte("another")).Bytes(), 0, 1, 2), "vote 1 is for something else"},
		{"all for none", ballots(t, kind, subject, ballot, nil, 0, 1, 2), "vote 1 is for something else"},
	}
}

// places are subjects and authors that no record of a decision has.
func places(t testing.TB, id record.CID) map[string]string {
	capitals, _ := id.StringOfBase('B')
	name := id.String()
	return map[string]string{
		"another task": record.CIDOf(nil).String() + "/final", "the task in capitals": capitals + "/final", "no task": "/final",
		"no subject": "", "no topic": name, "an empty topic": name + "/", "an unknown topic": name + "/model",
		"a topic in capitals": name + "/Final", "a topic of the topic": name + "/final/x", "two strokes": name + "//final",
		"a topic and a space": name + "/final ", "the topic alone": "final",
	}
}

// inTurn is the key of the node that proposes in a ballot.
func inTurn(tk Task, id record.CID, ballot uint64) ed25519.PrivateKey {
	return voters[slices.IndexFunc(voters, func(k ed25519.PrivateKey) bool {
		return idOf(k) == agree.Proposer(tk.Nodes, BallotSeed(id), ballot)
	})]
}

func TestVoteOf(t *testing.T) {
	tk, id := votedTask(t)
	for topic, content := range contents(t) {
		subject, value := topic.Subject(id), record.CIDOf(content)
		proof := ballots(t, record.KindPrevote, subject, 4, value.Bytes(), 3, 0, 1)
		var proofCIDs []record.CID
		for _, b := range proof {
			proofCIDs = append(proofCIDs, record.CIDOf(b))
		}
		last := uint64(record.MaxBallots - 1)
		for _, c := range []struct {
			kind    record.Kind
			ballot  uint64
			payload any
			want    agree.Vote
		}{
			{record.KindProposal, 0, Proposal{Content: content}, agree.Vote{Phase: agree.Proposal, Value: value, Content: content}},
			{record.KindProposal, last, Proposal{Content: content}, agree.Vote{Phase: agree.Proposal, Value: value, Content: content}},
			{record.KindProposal, 5, Proposal{Content: content, Valid: 5, Proof: proof}, agree.Vote{Phase: agree.Proposal, Value: value, Content: content, Valid: 5, Proof: proofCIDs}},
			{record.KindProposal, 9, Proposal{Content: content, Valid: 5, Proof: proof}, agree.Vote{Phase: agree.Proposal, Value: value, Content: content, Valid: 5, Proof: proofCIDs}},
			{record.KindPrevote, 0, Vote{Value: value.Bytes()}, agree.Vote{Phase: agree.Prevote, Value: value}},
			{record.KindPrevote, last, Vote{}, agree.Vote{Phase: agree.Prevote}},
			{record.KindPrecommit, 1, Vote{Value: value.Bytes()}, agree.Vote{Phase: agree.Precommit, Value: value}},
			{record.KindPrecommit, 1, Vote{}, agree.Vote{Phase: agree.Precommit}},
		} {
			author := inTurn(tk, id, c.ballot)
			r := sign(t, author, c.kind, subject, c.ballot, c.payload)
			got, v, err := VoteOf(r, id, tk)
			c.want.CID, c.want.Author, c.want.Ballot = r.CID, idOf(author), c.ballot
			if err != nil || got != topic || v.CID != c.want.CID || v.Author != c.want.Author || v.Phase != c.want.Phase || v.Ballot != c.want.Ballot ||
				v.Value != c.want.Value || !bytes.Equal(v.Content, c.want.Content) || v.Valid != c.want.Valid || !slices.Equal(v.Proof, c.want.Proof) {
				t.Errorf("%s %d came back as %s %+v, %v", c.kind, c.ballot, got, v, err)
			}
		}
	}
}

func TestVoteOfRefuses(t *testing.T) {
	tk, id := votedTask(t)
	content := contents(t)[TopicFinal]
	subject, value := TopicFinal.Subject(id), record.CIDOf(content)
	author := inTurn(tk, id, 7)
	good := map[record.Kind]any{
		record.KindProposal: Proposal{Content: content}, record.KindPrevote: Vote{Value: value.Bytes()}, record.KindPrecommit: Vote{Value: value.Bytes()},
	}
	refuse := func(name string, r record.Record, foreign bool) {
		t.Helper()
		topic, v, err := VoteOf(r, id, tk)
		refused(t, string(r.Kind)+", "+name, err, foreign)
		if topic != "" || v.Author != (record.NodeID{}) {
			t.Errorf("%s, %s: a vote on the %s by %s", r.Kind, name, topic, v.Author)
		}
	}
	for kind, payload := range good {
		if _, _, err := VoteOf(sign(t, author, kind, subject, 7, payload), id, tk); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		for name, place := range places(t, id) {
			refuse(name, sign(t, author, kind, place, 7, payload), false)
		}
		refuse("a node that is not named", sign(t, voters[4], kind, subject, 7, payload), true)
		refuse("a ballot too high", sign(t, author, kind, subject, record.MaxBallots, payload), false)
		refuse("the highest ballot", sign(t, author, kind, subject, math.MaxUint64, payload), false)
		refuse("a payload of text", sign(t, author, kind, subject, 7, "x"), false)
		refuse("an unknown field", withField(t, sign(t, author, kind, subject, 7, payload)), false)
		refuse("the payload of a seal", sign(t, author, kind, subject, 7, Seal{Content: content}), false)
	}
	refuse("a proposal in another's turn", sign(t, author, record.KindProposal, subject, 8, good[record.KindProposal]), false)
	refuse("a proposal larger than any", sign(t, author, record.KindProposal, subject, 7, Proposal{Content: make([]byte, tk.maxDecision())}), false)
	for _, kind := range []record.Kind{record.KindSeal, record.KindUpdate, record.KindLeave, record.KindTask, "later"} {
		refuse("not a vote", sign(t, author, kind, subject, 7, Vote{Value: value.Bytes()}), false)
	}
	refuse("a vote as proposal", sign(t, author, record.KindProposal, subject, 7, Vote{Value: value.Bytes()}), false)

	// A value is the CID of a content, in the one way that there is to write it.
	raw := cid.NewCidV1(cid.Raw, value.Hash())
	unhashed, err := cid.V1Builder{Codec: cid.DagCBOR, MhType: 0}.Sum(content)
	if err != nil {
		t.Fatal(err)
	}
	b := value.Bytes()
	for name, value := range map[string][]byte{
		"text": []byte(value.String()), "a byte less": b[:len(b)-1], "a byte more": append(slices.Clone(b), 0), "one byte": {1}, "a zero": {0},
		"version 0": b[2:], "a long version": append([]byte{0x81, 0}, b[1:]...), "a long codec": append([]byte{1, 0xf1, 0}, b[2:]...),
		"another codec": raw.Bytes(), "the content itself": unhashed.Bytes(), "a link": append([]byte{0}, b...),
		"another hash": append([]byte{1, 0x71, 0x13}, b[3:]...), "a shorter hash": append([]byte{1, 0x71, 0x12, 0x1f}, b[4:35]...),
		"a hash without end": {1, 0x71, 0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
	} {
		for _, kind := range []record.Kind{record.KindPrevote, record.KindPrecommit} {
			refuse("a value: "+name, sign(t, author, kind, subject, 7, Vote{Value: value}), false)
		}
	}

	proof := ballots(t, record.KindPrevote, subject, 3, value.Bytes(), 0, 1, 2)
	propose := func(valid uint64, proof [][]byte) record.Record {
		return sign(t, author, record.KindProposal, subject, 7, Proposal{Content: content, Valid: valid, Proof: proof})
	}
	if _, _, err := VoteOf(propose(4, proof), id, tk); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]record.Record{
		"a ballot without proof":        propose(4, nil),
		"a proof without ballot":        propose(0, proof),
		"a proof of an earlier ballot":  propose(5, proof),
		"a proof of a later ballot":     propose(3, proof),
		"a ballot that has not been":    propose(8, ballots(t, record.KindPrevote, subject, 7, value.Bytes(), 0, 1, 2)),
		"the highest ballot":            propose(math.MaxUint64, ballots(t, record.KindPrevote, subject, math.MaxUint64-1, value.Bytes(), 0, 1, 2)),
		"the ballot before the first":   propose(0, ballots(t, record.KindPrevote, subject, math.MaxUint64, value.Bytes(), 0, 1, 2)),
		"a proof of another's contents": sign(t, author, record.KindProposal, subject, 7, Proposal{Content: append(slices.Clone(content), 0), Valid: 4, Proof: proof}),
	} {
		refuse(name, r, false)
	}
	for _, f := range faults(t, record.KindPrevote, id, TopicFinal, 3, value.Bytes()) {
		if size(f.votes) > record.MaxBytes {
			continue // is no record
		}
		r := propose(4, f.votes)
		refuse("a proof with "+f.name, r, false)
		if _, _, err := VoteOf(r, id, tk); err == nil || !strings.Contains(err.Error(), f.want) {
			t.Errorf("a proof with %s: %v, want %q", f.name, err, f.want)
		}
	}
}

func size(votes [][]byte) (n int) {
	for _, v := range votes {
		n += len(v)
	}
	return n
}

func TestSealOf(t *testing.T) {
	tk, id := votedTask(t)
	for topic, content := range contents(t) {
		for _, by := range [][]int{{0, 1, 2}, {3, 1, 0}, {0, 1, 2, 3}} {
			s := Seal{Content: content, Precommits: ballots(t, record.KindPrecommit, topic.Subject(id), 6, record.CIDOf(content).Bytes(), by...)}
			// The certificate proves itself, so that anyone may pass it on.
			for _, author := range []int{0, 4} {
				got, back, err := SealOf(sign(t, voters[author], record.KindSeal, topic.Subject(id), 0, s), id, tk)
				if err != nil || got != topic || !bytes.Equal(back.Content, content) || len(back.Precommits) != len(by) {
					t.Errorf("%s by %v came back as %s %+v, %v", topic, by, got, back, err)
				}
			}
		}
	}
}

func TestSealOfRefuses(t *testing.T) {
	tk, id := votedTask(t)
	for topic, content := range contents(t) {
		value := record.CIDOf(content).Bytes()
		subject := topic.Subject(id)
		good := Seal{Content: content, Precommits: ballots(t, record.KindPrecommit, subject, 6, value, 0, 1, 2)}
		refuse := func(name string, r record.Record) {
			t.Helper()
			got, s, err := SealOf(r, id, tk)
			refused(t, string(topic)+", "+name, err, false)
			if got != "" || s.Content != nil {
				t.Errorf("%s, %s: a seal of the %s", topic, name, got)
			}
		}
		seal := func(s Seal) record.Record { return sign(t, voters[0], record.KindSeal, subject, 0, s) }
		for name, place := range places(t, id) {
			refuse(name, sign(t, voters[0], record.KindSeal, place, 0, good))
		}
		refuse("a number", sign(t, voters[0], record.KindSeal, subject, 1, good))
		refuse("the highest number", sign(t, voters[0], record.KindSeal, subject, math.MaxUint64, good))
		refuse("another kind", sign(t, voters[0], record.KindProposal, subject, 0, good))
		refuse("an unknown field", withField(t, seal(good)))
		refuse("no precommits", seal(Seal{Content: content}))
		refuse("a vote", sign(t, voters[0], record.KindSeal, subject, 0, Vote{Value: value}))
		for _, f := range faults(t, record.KindPrecommit, id, topic, 6, value) {
			if size(f.votes) > record.MaxBytes {
				continue // is no record
			}
			r := seal(Seal{Content: content, Precommits: f.votes})
			refuse("a certificate with "+f.name, r)
			if _, _, err := SealOf(r, id, tk); err == nil || !strings.Contains(err.Error(), f.want) {
				t.Errorf("%s, a certificate with %s: %v, want %q", topic, f.name, err, f.want)
			}
		}
		// Even a quorum decides on nothing but a content of the topic.
		other := contents(t)[map[Topic]Topic{TopicRoster: TopicFinal, TopicFinal: TopicRoster}[topic]]
		for name, content := range map[string][]byte{
			"nothing": nil, "text": []byte("\x61x"), "an empty map": {0xa0}, "garbage": {0xff}, "that of the other topic": other,
			"a trailing byte": append(slices.Clone(content), 0), "an unknown field": append([]byte{content[0] + 1, 0x61, 'a', 1}, content[1:]...),
		} {
			refuse("a content: "+name, seal(Seal{Content: content, Precommits: ballots(t, record.KindPrecommit, subject, 6, record.CIDOf(content).Bytes(), 0, 1, 2)}))
		}
	}
}

func TestLeaveOf(t *testing.T) {
	tk, id := good(), taskID(t)
	subject := id.String()
	if got, err := LeaveOf(sign(t, keys[1], record.KindLeave, subject, 0, Leave{Task: id}), tk); err != nil || got.Task != id {
		t.Errorf("%+v, %v", got, err)
	}
	capitals, _ := id.StringOfBase('B')
	for name, r := range map[string]record.Record{
		"another kind":            sign(t, keys[1], record.KindBeacon, subject, 0, Leave{Task: id}),
		"another task":            sign(t, keys[1], record.KindLeave, record.CIDOf(nil).String(), 0, Leave{Task: id}),
		"another task inside":     sign(t, keys[1], record.KindLeave, subject, 0, Leave{Task: record.CIDOf(nil)}),
		"the subject in capitals": sign(t, keys[1], record.KindLeave, capitals, 0, Leave{Task: id}),
		"the subject of a vote":   sign(t, keys[1], record.KindLeave, subject+"/final", 0, Leave{Task: id}),
		"a number":                sign(t, keys[1], record.KindLeave, subject, 1, Leave{Task: id}),
		"a beacon's payload":      sign(t, keys[1], record.KindLeave, subject, 0, Beacon{Task: id}),
		"text":                    sign(t, keys[1], record.KindLeave, subject, 0, "x"),
		"an unknown field":        withField(t, sign(t, keys[1], record.KindLeave, subject, 0, Leave{Task: id})),
	} {
		_, err := LeaveOf(r, tk)
		refused(t, name, err, false)
	}
	_, err := LeaveOf(sign(t, keys[3], record.KindLeave, subject, 0, Leave{Task: id}), tk)
	refused(t, "a node that is not named", err, true)
}

func TestBeaconOf(t *testing.T) {
	tk, id := good(), taskID(t)
	subject := id.String()
	for _, b := range []Beacon{{Task: id}, {Task: id, Round: tk.Rounds}} {
		for _, number := range []uint64{0, 1, math.MaxUint64} {
			if got, err := BeaconOf(sign(t, keys[1], record.KindBeacon, subject, number, b), tk); err != nil || got != b {
				t.Errorf("%+v, %v", got, err)
			}
		}
	}
	for name, r := range map[string]record.Record{
		"another kind":            sign(t, keys[1], record.KindLeave, subject, 0, Beacon{Task: id}),
		"another task":            sign(t, keys[1], record.KindBeacon, record.CIDOf(nil).String(), 0, Beacon{Task: id}),
		"another task inside":     sign(t, keys[1], record.KindBeacon, subject, 0, Beacon{Task: record.CIDOf(nil)}),
		"a round too many":        sign(t, keys[1], record.KindBeacon, subject, 0, Beacon{Task: id, Round: tk.Rounds + 1}),
		"the highest round":       sign(t, keys[1], record.KindBeacon, subject, 0, Beacon{Task: id, Round: math.MaxUint64}),
		"the payload of an end":   sign(t, keys[1], record.KindBeacon, subject, 0, Leave{Task: id}),
		"text":                    sign(t, keys[1], record.KindBeacon, subject, 0, "x"),
		"an unknown field":        withField(t, sign(t, keys[1], record.KindBeacon, subject, 0, Beacon{Task: id})),
		"the subject of a vote":   sign(t, keys[1], record.KindBeacon, subject+"/final", 0, Beacon{Task: id}),
		"the subject of no thing": sign(t, keys[1], record.KindBeacon, "", 0, Beacon{Task: id}),
	} {
		_, err := BeaconOf(r, tk)
		refused(t, name, err, false)
	}
	_, err := BeaconOf(sign(t, keys[3], record.KindBeacon, subject, 0, Beacon{Task: id}), tk)
	refused(t, "a node that is not named", err, true)
}

func TestRecent(t *testing.T) {
	for rounds, want := range map[uint64]uint64{1: 1, 9: 1, 19: 1, 20: 2, 100: 10, MaxRounds: MaxRounds / 10} {
		if got := (Task{Settings: Settings{Rounds: rounds}}).Recent(); got != want {
			t.Errorf("of %d rounds %d are recent, want %d", rounds, got, want)
		}
	}
}

func TestTasksHaveOtherFirstProposers(t *testing.T) {
	first := map[uint64]int{}
	for i := range byte(200) {
		first[BallotSeed(record.CIDOf([]byte{i}))%4]++
	}
	for i := range uint64(4) {
		if first[i] < 25 {
			t.Errorf("node %d is the first of %d in 200 tasks", i, first[i])
		}
	}
}

// FuzzRecords gives any payload to the readers of all kinds: none panics, and
// what passes is what it seems to be.
func FuzzRecords(f *testing.F) {
	tk, id := votedTask(f)
	kinds := []record.Kind{
		record.KindTask, record.KindEnrolment, record.KindUpdate, record.KindEvaluation, record.KindLeave, record.KindBeacon,
		record.KindProposal, record.KindPrevote, record.KindPrecommit, record.KindSeal,
	}
	add := func(kind record.Kind, topic Topic, number uint64, payload any) {
		b, err := record.Encode(payload)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(slices.Index(kinds, kind)), string(topic), uint8(0), number, b)
	}
	for topic, content := range contents(f) {
		value := record.CIDOf(content).Bytes()
		subject := topic.Subject(id)
		proof := ballots(f, record.KindPrevote, subject, 1, value, 0, 1, 2)
		precommits := ballots(f, record.KindPrecommit, subject, 1, value, 1, 2, 3)
		add(record.KindProposal, topic, 0, Proposal{Content: content})
		add(record.KindProposal, topic, 2, Proposal{Content: content, Valid: 2, Proof: proof})
		add(record.KindProposal, topic, 2, Proposal{Content: content, Valid: 2, Proof: precommits})
		add(record.KindPrevote, topic, 1, Vote{Value: value})
		add(record.KindPrecommit, topic, 1, Vote{})
		add(record.KindSeal, topic, 0, Seal{Content: content, Precommits: precommits})
		add(record.KindSeal, topic, 0, Seal{Content: content, Precommits: precommits[:2]})
		add(record.KindSeal, topic, 0, Seal{Content: content, Precommits: append(precommits[:2:2], precommits[1])})
	}
	add(record.KindTask, "", 0, tk)
	add(record.KindLeave, "", 0, Leave{Task: id})
	add(record.KindBeacon, "", 9, Beacon{Task: id, Round: 1})
	e := enrolment(f, 10)
	e.Task = id
	add(record.KindEnrolment, "", 0, e)
	u := update(f, []float64{1, 2, 3, 4})
	u.Task = id
	add(record.KindUpdate, "", 1, u)
	add(record.KindEvaluation, "", 0, Evaluation{Task: id, Model: id, Local: counts("1 yes"), Federated: counts("1 no")})
	f.Fuzz(func(t *testing.T, kind uint8, topic string, author uint8, number uint64, payload []byte) {
		subject := id.String()
		if topic != "" {
			subject += "/" + topic
		}
		r := record.Record{
			Slot:       record.Slot{Kind: kinds[int(kind)%len(kinds)], Subject: subject, Author: idOf(voters[int(author)%len(voters)])},
			Federation: fed, Number: number, Payload: payload, CID: id,
		}
		if r.Kind == record.KindTask {
			sum := record.CIDOf(payload).Hash()
			r.Subject = strings.TrimPrefix(sum.HexString(), "1220")
		}
		var back any
		var err error
		switch r.Kind {
		case record.KindTask:
			var got Task
			if got, err = TaskOf(r); err == nil && got.Check() != nil {
				t.Fatalf("a task that does not pass: %v", got.Check())
			}
			back = got
		case record.KindEnrolment:
			back, err = EnrolmentOf(r, tk)
		case record.KindUpdate:
			var got Update
			if got, err = UpdateOf(r, tk); err == nil && (len(got.Params) != tk.SpecOf(0).Params() || got.Weight == 0 || got.Previous >= number) {
				t.Fatalf("update %+v", got)
			}
			back = got
		case record.KindEvaluation:
			back, err = EvaluationOf(r, tk)
		case record.KindLeave:
			back, err = LeaveOf(r, tk)
		case record.KindBeacon:
			back, err = BeaconOf(r, tk)
		case record.KindSeal:
			var got Seal
			if _, got, err = SealOf(r, id, tk); err == nil {
				certified(t, got.Precommits, record.KindPrecommit, r, record.CIDOf(got.Content))
			}
			back = got
		default:
			var v agree.Vote
			if _, v, err = VoteOf(r, id, tk); err == nil {
				if v.Author != r.Author || v.Ballot != number || number >= record.MaxBallots || v.Valid > number {
					t.Fatalf("vote %+v of %s %d", v, r.Author, number)
				}
				if r.Kind == record.KindProposal {
					var p Proposal
					if err := record.Decode(payload, &p); err != nil || record.CIDOf(p.Content) != v.Value || len(p.Proof) != len(v.Proof) {
						t.Fatalf("proposal %+v, %v", p, err)
					}
					if v.Valid > 0 {
						certified(t, p.Proof, record.KindPrevote, r, v.Value)
					}
					back = p
				} else {
					back = Vote{Value: v.Value.Bytes()}
				}
			}
		}
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if !tk.Named(r.Author) && r.Kind != record.KindTask && r.Kind != record.KindSeal {
			t.Fatalf("a %s of a node that is not named", r.Kind)
		}
		if again, err := record.Encode(back); err != nil || !bytes.Equal(again, payload) {
			t.Fatalf("%x is written as %x, %v", payload, again, err)
		}
	})
}

// certified fails unless a quorum of the named nodes has signed for the value.
func certified(t *testing.T, votes [][]byte, kind record.Kind, r record.Record, value record.CID) {
	t.Helper()
	authors := map[record.NodeID]bool{}
	for _, b := range votes {
		vote, err := record.Open(b, fed)
		var v Vote
		if err != nil || vote.Kind != kind || vote.Subject != r.Subject || record.Decode(vote.Payload, &v) != nil || !bytes.Equal(v.Value, value.Bytes()) {
			t.Fatalf("vote %+v counts for %s, %v", vote, value, err)
		}
		for _, key := range voters[:4] {
			if idOf(key) == vote.Author {
				authors[vote.Author] = true
			}
		}
	}
	if len(authors) < 3 {
		t.Fatalf("%d nodes are a quorum of four", len(authors))
	}
}
