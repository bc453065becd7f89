package agree

import (
	"math"
	"slices"
	"testing"
	"time"

	"village/protocol/record"
)

// The tests of this file take the rules of the algorithm one by one, for runs
// under faults reach the right decision through many a wrong rule, only later.

var (
	four     = []record.NodeID{{1}, {2}, {3}, {4}}
	stranger = record.NodeID{9}
	a, b     = record.CIDOf([]byte("a")), record.CIDOf([]byte("b"))
	none     = record.CID{}
)

// bench is the first of four members, whose votes come back at once. Member
// 1 + (first + ballot) % 4 proposes.
type bench struct {
	*Machine
	t       *testing.T
	ready   bool // it would propose "a"
	verdict Verdict
	wake    time.Duration
}

func newBench(t *testing.T, first int) *bench {
	return &bench{Machine: New(four[0], four, uint64(first)), t: t, ready: true, verdict: Good}
}

func (x *bench) app() Application {
	return Application{
		Propose: func() ([]byte, bool) { return []byte("a"), x.ready },
		Judge:   func([]byte) Verdict { return x.verdict },
	}
}

// proposes takes a proposal of whose turn it is.
func (x *bench) proposes(ballot uint64, content string, valid uint64) {
	v := Vote{Author: x.Proposer(ballot), Phase: Proposal, Ballot: ballot, Value: record.CIDOf([]byte(content)), Content: []byte(content), Valid: valid}
	if valid > 0 {
		v.Proof = make([]record.CID, x.Quorum())
	}
	x.Take(v)
}

// vote takes votes of members, counted from 0; its CID tells whose it is.
func (x *bench) vote(phase Phase, ballot uint64, value record.CID, members ...int) {
	for _, i := range members {
		x.Take(Vote{CID: record.CIDOf([]byte{byte(i)}), Author: four[i], Phase: phase, Ballot: ballot, Value: value})
	}
}

// says checks what the machine says now, and gives it back.
func (x *bench) says(now time.Duration, want ...Vote) {
	x.t.Helper()
	var said []Vote
	for {
		var votes []Vote
		votes, x.wake = x.Advance(now, x.app())
		if len(votes) == 0 {
			break
		}
		for _, v := range votes {
			x.Take(v)
		}
		said = append(said, votes...)
	}
	same := func(got, want Vote) bool {
		return got.Author == four[0] && got.Phase == want.Phase && got.Ballot == want.Ballot && got.Value == want.Value && got.Valid == want.Valid
	}
	if !slices.EqualFunc(said, want, same) {
		x.t.Errorf("at %v it says %+v, want %+v", now, said, want)
	}
}

func TestTheProposerRotates(t *testing.T) {
	for _, c := range []struct {
		seed, ballot uint64
		want         int
	}{{0, 0, 0}, {0, 5, 2}, {7, 0, 1}, {7, 4, 2}, {math.MaxUint64, 0, 0}, {math.MaxUint64, 1, 1}, {1, math.MaxUint64, 1}, {2, 5e9, 1}} {
		members := four[:3]
		if got := New(four[0], members, c.seed).Proposer(c.ballot); got != members[c.want] {
			t.Errorf("seed %d, ballot %d: %v", c.seed, c.ballot, got[0])
		}
	}
}

func TestWhatIsNotTaken(t *testing.T) {
	proposal := func(edit func(*Vote)) func(*bench) {
		return func(x *bench) {
			v := Vote{Author: four[1], Phase: Proposal, Value: a, Content: []byte("a")}
			edit(&v)
			x.Take(v)
		}
	}
	for name, take := range map[string]func(*bench){
		"a proposal of no value":               proposal(func(v *Vote) { v.Value = none }),
		"one that won in its own ballot":       proposal(func(v *Vote) { v.Valid, v.Proof = 1, make([]record.CID, 3) }),
		"one of a lying proof":                 proposal(func(v *Vote) { v.Ballot, v.Author, v.Valid, v.Proof = 1, four[2], 1, make([]record.CID, 2) }),
		"of a ballot beyond the last":          proposal(func(v *Vote) { v.Ballot, v.Author = record.MaxBallots, four[1] }),
		"prevotes of a ballot beyond the last": func(x *bench) { x.vote(Prevote, record.MaxBallots, a, 1, 2, 3) },
	} {
		x := newBench(t, 1)
		take(x)
		x.says(0)
		if ballot, _ := x.Ballot(); ballot != 0 {
			t.Errorf("%s: it is in ballot %d", name, ballot)
		}
	}
	// Of two proposals the first counts.
	x := newBench(t, 1)
	x.proposes(0, "a", 0)
	x.proposes(0, "b", 0)
	x.says(0, Vote{Phase: Prevote, Value: a})
	// A stranger is none of a quorum.
	x = newBench(t, 1)
	x.proposes(0, "a", 0)
	x.vote(Precommit, 0, a, 1, 2)
	x.Take(Vote{Author: stranger, Phase: Precommit, Value: a})
	x.says(0, Vote{Phase: Prevote, Value: a})
	if _, _, ok := x.Decided(); ok {
		t.Error("decided with a stranger")
	}
}

func TestOnesThatOnlyFollow(t *testing.T) {
	m := New(stranger, four, 1)
	app := newBench(t, 1).app()
	m.Take(Vote{Author: four[1], Phase: Proposal, Value: a, Content: []byte("a")})
	if votes, wake := m.Advance(0, app); len(votes) != 0 || wake != 0 {
		t.Errorf("a stranger says %v", votes)
	}
	for _, id := range four[:3] {
		m.Take(Vote{Author: id, Phase: Precommit, Value: a})
	}
	m.Advance(0, app)
	if value, content, ok := m.Decided(); !ok || value != a || string(content) != "a" {
		t.Errorf("decided %v, %v, %q", ok, value, content)
	}
}

// A node that would rather wait takes no part; once it does, it goes on.
func TestTakingPart(t *testing.T) {
	x := newBench(t, 1)
	x.ready = false
	x.proposes(0, "a", 0)
	x.says(0)
	if _, started := x.Ballot(); started {
		t.Error("takes part though it would wait")
	}
	x = newBench(t, 1)
	x.says(0)
	if _, started := x.Ballot(); !started {
		t.Error("takes no part")
	}
	x.ready = false
	x.proposes(0, "a", 0)
	x.says(0, Vote{Phase: Prevote, Value: a})
	// What it has said binds it after a restart, whatever it would do now. It has
	// nothing to propose in its turn.
	x = newBench(t, 3)
	x.ready = false
	x.vote(Precommit, 0, none, 0)
	x.vote(Precommit, 0, none, 1, 2)
	x.says(0)
	if _, started := x.Ballot(); !started || x.wake != time.Second {
		t.Errorf("takes part: %v, wakes at %v", started, x.wake)
	}
	x.says(time.Second) // in its own ballot
	if ballot, _ := x.Ballot(); ballot != 1 || x.Proposer(1) != four[0] {
		t.Errorf("in ballot %d", ballot)
	}
}

// Votes that are not durable yet are not said again.
func TestNothingIsSaidTwice(t *testing.T) {
	x := newBench(t, 0)
	first, _ := x.Advance(0, x.app())
	again, _ := x.Advance(0, x.app())
	if len(first) != 1 || len(again) != 0 {
		t.Errorf("says %v, then %v", first, again)
	}
}

// A store gives votes back in any order.
func TestRestoredInAnyOrder(t *testing.T) {
	x := newBench(t, 0)
	x.vote(Prevote, 3, none, 0)
	x.vote(Precommit, 1, a, 0)
	x.vote(Precommit, 0, b, 0)
	x.vote(Precommit, 2, none, 0)
	if ballot, _ := x.Ballot(); ballot != 3 || x.step != Prevote {
		t.Errorf("in ballot %d, phase %d", ballot, x.step)
	}
	x.vote(Precommit, 3, none, 0)
	x.vote(Prevote, 3, none, 0)
	if x.step != Precommit {
		t.Errorf("in phase %d", x.step)
	}
	if want := (stance{ballot: 2, value: a}); x.locked.ballot != want.ballot || x.locked.value != want.value {
		t.Errorf("locked on %+v", x.locked)
	}
}

// Locked in ballot 1, which is noted as 2.
func TestWhatALockLetsPass(t *testing.T) {
	for _, c := range []struct {
		content string
		valid   uint64
		want    record.CID
	}{
		{"a", 0, a},    // its own value, whoever says so
		{"b", 0, none}, // another
		{"b", 1, none}, // another that won before the lock
		{"b", 3, b},    // another that won since
	} {
		x := newBench(t, 0)
		x.vote(Precommit, 1, a, 0)
		x.vote(Precommit, 1, none, 1, 2)
		x.says(0)
		x.says(time.Hour)
		x.vote(Precommit, 2, none, 1, 2, 3)
		x.says(2*time.Hour, Vote{Phase: Prevote, Ballot: 2})
		x.says(3 * time.Hour)
		x.proposes(3, c.content, c.valid)
		before, _ := x.Ballot()
		if before != 3 {
			t.Fatalf("in ballot %d", before)
		}
		x.says(3*time.Hour, Vote{Phase: Prevote, Ballot: 3, Value: c.want})
	}
}

func TestJudging(t *testing.T) {
	x := newBench(t, 1)
	x.verdict = Bad
	x.proposes(0, "a", 0)
	x.says(0, Vote{Phase: Prevote}) // at once
	x = newBench(t, 1)
	x.verdict = Pending
	x.proposes(0, "a", 0)
	x.says(0)
	x.says(firstTimeout - 1)
	x.verdict = Good
	x.says(firstTimeout-1, Vote{Phase: Prevote, Value: a})
	x = newBench(t, 1)
	x.verdict = Pending
	x.proposes(0, "a", 0)
	x.says(0)
	x.says(firstTimeout, Vote{Phase: Prevote})
}

func TestWaitingForPrevotes(t *testing.T) {
	// A quorum for none ends the wait.
	x := newBench(t, 1)
	x.verdict = Bad
	x.proposes(0, "a", 0)
	x.vote(Prevote, 0, none, 1, 2)
	x.says(0, Vote{Phase: Prevote}, Vote{Phase: Precommit})
	// One that is divided has it end in time.
	x = newBench(t, 1)
	x.proposes(0, "a", 0)
	x.vote(Prevote, 0, none, 1, 2)
	x.says(0, Vote{Phase: Prevote, Value: a})
	if x.wake != firstTimeout {
		t.Errorf("wakes at %v", x.wake)
	}
	x.says(firstTimeout, Vote{Phase: Precommit})
	// Without a quorum there is no end.
	x = newBench(t, 1)
	x.proposes(0, "a", 0)
	x.vote(Prevote, 0, none, 1)
	x.says(0, Vote{Phase: Prevote, Value: a})
	x.says(time.Hour)
	x.says(2 * time.Hour)
	if x.wake != 0 {
		t.Errorf("wakes at %v", x.wake)
	}
}

// Each phase has a time of its own, which doubles with the ballots, and a quorum
// that is at the end of the ballot ends the waits before.
func TestTimers(t *testing.T) {
	x := newBench(t, 1)
	x.says(0)
	if x.wake != firstTimeout {
		t.Errorf("waits for a proposal until %v", x.wake)
	}
	half := firstTimeout / 2
	x.vote(Precommit, 0, none, 1, 2)
	x.vote(Precommit, 0, a, 3)
	x.says(half)
	if ballot, _ := x.Ballot(); ballot != 0 || x.wake != half+firstTimeout {
		t.Errorf("in ballot %d until %v", ballot, x.wake)
	}
	x.says(half+1, Vote{Phase: Prevote})
	// It was waiting for ballot 0's proposal when the others went on.
	x = newBench(t, 2)
	x.says(0)
	x.vote(Prevote, 3, none, 1, 2)
	x.says(half)
	if ballot, _ := x.Ballot(); ballot != 3 || x.wake != half+8*firstTimeout {
		t.Errorf("in ballot %d until %v", ballot, x.wake)
	}
	x = newBench(t, 1)
	x.vote(Prevote, maxDoublings+5, none, 1, 2)
	x.says(0)
	if x.wake != firstTimeout<<maxDoublings {
		t.Errorf("in a late ballot until %v", x.wake)
	}
}

func TestTheLastBallot(t *testing.T) {
	const last = record.MaxBallots - 1
	x := newBench(t, 0)
	x.vote(Precommit, last, none, 0, 1, 2)
	x.says(0)
	x.says(1000 * time.Hour)
	if ballot, _ := x.Ballot(); ballot != last || x.wake != 0 {
		t.Errorf("in ballot %d until %v", ballot, x.wake)
	}
	x = newBench(t, 0)
	x.vote(Precommit, last-1, none, 0, 1, 2)
	x.says(0)
	x.says(1000 * time.Hour)
	if ballot, _ := x.Ballot(); ballot != last {
		t.Errorf("in ballot %d", ballot)
	}
}

func TestDecidedOnceTheContentIsKnown(t *testing.T) {
	x := newBench(t, 1)
	if got := x.Certificate(); got != nil {
		t.Errorf("certificate %v before a vote", got)
	}
	x.vote(Precommit, 0, none, 3)
	x.vote(Precommit, 0, a, 2, 1, 0)
	x.says(0)
	if _, _, ok := x.Decided(); ok || x.Certificate() != nil {
		t.Error("decided on what nobody has shown it")
	}
	x.proposes(0, "a", 0)
	x.says(0)
	value, content, ok := x.Decided()
	if !ok || value != a || string(content) != "a" {
		t.Errorf("decided: %v, %v, %q", ok, value, content)
	}
	// Those who voted for it, in the order of the members.
	var want []record.CID
	for i := range byte(3) {
		want = append(want, record.CIDOf([]byte{i}))
	}
	if got := x.Certificate(); !slices.Equal(got, want) {
		t.Errorf("certificate %v", got)
	}
	// What another node has proved, it cannot prove itself.
	x = newBench(t, 1)
	if x.Adopt(b, []byte("b")); x.Certificate() != nil {
		t.Errorf("certificate %v", x.Certificate())
	}
	x.Adopt(a, []byte("a"))
	x.vote(Precommit, 0, a, 1, 2, 3)
	x.says(0)
	if value, _, _ := x.Decided(); value != b || x.Certificate() != nil {
		t.Errorf("after %v it decides on %v", b, value)
	}
}

func TestMissing(t *testing.T) {
	x := newBench(t, 1)
	x.vote(Prevote, 0, none, 1)
	x.vote(Precommit, 0, none, 3)
	x.vote(Prevote, 1, none, 2) // of another ballot
	if got := x.Missing(); !slices.Equal(got, []record.NodeID{four[0], four[2]}) {
		t.Errorf("missing are %v", got)
	}
}

// What was good when it was locked may be impossible to judge later: here the
// records that it was about are gone. Whoever is locked on it proposes it again,
// also after a restart, and the others go by the prevotes it once won.
func TestALockOutlivesWhatItWasJudgedBy(t *testing.T) {
	x := newBench(t, 3) // which proposes in ballot 1
	locks := func() {
		x.proposes(0, "b", 0)
		x.vote(Prevote, 0, b, 1, 2)
	}
	locks()
	x.says(0, Vote{Phase: Prevote, Value: b}, Vote{Phase: Precommit, Value: b})
	x.vote(Precommit, 0, none, 1, 2)
	x.verdict = Pending
	x.says(0)
	again := []Vote{{Phase: Proposal, Ballot: 1, Value: b, Valid: 1}, {Phase: Prevote, Ballot: 1, Value: b}}
	x.says(time.Minute, again...)

	x = newBench(t, 3)
	x.verdict = Pending
	locks()
	x.vote(Prevote, 0, b, 0)
	x.vote(Precommit, 0, b, 0)
	x.vote(Precommit, 0, none, 1, 2)
	x.says(0)
	x.says(time.Minute, again...)

	for verdict, prevote := range map[Verdict]record.CID{Pending: b, Bad: none} {
		x = newBench(t, 2) // which sees neither proposal nor votes of ballot 0
		x.vote(Prevote, 1, b, 1, 2)
		x.verdict = verdict
		x.proposes(1, "b", 1)
		want := []Vote{{Phase: Prevote, Ballot: 1, Value: prevote}}
		if verdict == Pending {
			want = append(want, Vote{Phase: Precommit, Ballot: 1, Value: b})
		}
		x.says(0, want...)
	}
}
