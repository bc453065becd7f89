package agree

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"village/protocol/record"
)

func TestQuorum(t *testing.T) {
	for n, want := range map[int][2]int{1: {0, 1}, 2: {0, 2}, 3: {0, 2}, 4: {1, 3}, 7: {2, 5}, 8: {2, 6}, 10: {3, 7}, 50: {16, 34}} {
		if f, q := Faults(n), Quorum(n); f != want[0] || q != want[1] {
			t.Errorf("%d members: %d faults, quorum %d; want %d, %d", n, f, q, want[0], want[1])
		}
	}
	for n := 1; n <= 200; n++ {
		f, q := Faults(n), Quorum(n)
		if 2*q-n <= f {
			t.Errorf("%d members: two quorums of %d may share only liars", n, q)
		}
		if q > n-f {
			t.Errorf("%d members: %d honest ones are no quorum of %d", n, n-f, q)
		}
	}
}

// world runs members on a virtual clock over a network that loses, repeats,
// delays and cuts. Everything that a member holds survives its crash.
type world struct {
	rng     *rand.Rand
	ids     []record.NodeID
	nodes   []*node
	now     time.Duration
	events  []event
	loss    float64
	apart   func(now time.Duration, a, b int) bool
	verdict func(node int, content []byte) Verdict
	sent    int
}

type node struct {
	m       *Machine
	held    []Vote // durable
	lies    bool
	up      bool
	life    int
	ready   time.Duration // when it would propose
	decided string
}

type event struct {
	at time.Duration
	do func()
}

func newWorld(seed uint64, n int) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 99))}
	for i := range n {
		w.ids = append(w.ids, record.NodeID{byte(i + 1)})
	}
	for i := range n {
		w.nodes = append(w.nodes, &node{m: New(w.ids[i], w.ids, seed), up: true})
	}
	return w
}

func (w *world) after(d time.Duration, do func()) {
	w.events = append(w.events, event{w.now + d, do})
}

func (w *world) run(until time.Duration, stop func() bool) {
	for len(w.events) > 0 && !stop() {
		next := 0
		for i := range w.events {
			if w.events[i].at < w.events[next].at {
				next = i
			}
		}
		e := w.events[next]
		w.events = slices.Delete(w.events, next, next+1)
		if e.at > until {
			return
		}
		w.now = e.at
		e.do()
	}
}

func (w *world) app(i int) Application {
	return Application{
		Propose: func() ([]byte, bool) {
			return fmt.Appendf(nil, "value of %d", i), w.now >= w.nodes[i].ready
		},
		Judge: func(content []byte) Verdict {
			if w.verdict != nil {
				return w.verdict(i, content)
			}
			return Good
		},
	}
}

func (w *world) advance(i int) {
	n := w.nodes[i]
	if !n.up {
		return
	}
	for more := true; more; {
		votes, wake := n.m.Advance(w.now, w.app(i))
		for _, v := range votes {
			w.say(i, v)
		}
		if wake > 0 {
			life := n.life
			w.after(wake-w.now, func() {
				if n.life == life {
					w.advance(i)
				}
			})
		}
		more = len(votes) > 0
	}
	if _, content, ok := n.m.Decided(); ok {
		n.decided = string(content)
	}
}

// say makes an own vote durable, holds it, and sends it. A liar tells half of
// the others something else.
func (w *world) say(i int, v Vote) {
	n := w.nodes[i]
	n.held = append(n.held, v)
	n.m.Take(v)
	other := v
	if n.lies {
		other.Content = []byte("a lie")
		other.Value = record.CIDOf(other.Content)
		if v.Phase != Proposal && w.rng.IntN(2) == 0 {
			other.Value = record.CID{}
		}
	}
	for j := range w.nodes {
		if j != i {
			if n.lies && j%2 == 0 {
				w.send(i, j, other)
			} else {
				w.send(i, j, v)
			}
		}
	}
}

func (w *world) send(from, to int, v Vote) {
	w.sent++
	if w.rng.Float64() < w.loss || w.apart != nil && w.apart(w.now, from, to) {
		return
	}
	copies := 1 + w.rng.IntN(2)
	for range copies {
		w.after(time.Duration(w.rng.IntN(400))*time.Millisecond, func() {
			n := w.nodes[to]
			if !n.up {
				return
			}
			held := slices.ContainsFunc(n.held, func(h Vote) bool {
				return h.Author == v.Author && h.Phase == v.Phase && h.Ballot == v.Ballot
			})
			if held {
				return
			}
			n.held = append(n.held, v)
			n.m.Take(v)
			w.advance(to)
		})
	}
}

// heal has a member ask another for what it lacks, again and again.
func (w *world) heal(i int) {
	w.after(time.Second+time.Duration(w.rng.IntN(1000))*time.Millisecond, func() {
		w.heal(i)
		j := w.rng.IntN(len(w.nodes))
		if j == i || !w.nodes[i].up || !w.nodes[j].up || w.apart != nil && w.apart(w.now, i, j) {
			return
		}
		for _, v := range slices.Clone(w.nodes[j].held) {
			w.send(j, i, v)
		}
		if value, content, ok := w.nodes[j].m.Decided(); ok && !w.nodes[j].lies {
			w.nodes[i].m.Adopt(value, content)
			w.advance(i)
		}
	})
}

func (w *world) crash(i int) {
	w.after(time.Duration(w.rng.IntN(20000))*time.Millisecond, func() {
		n := w.nodes[i]
		n.up = false
		n.life++
		w.after(time.Duration(w.rng.IntN(5000))*time.Millisecond, func() {
			n.up = true
			n.m = New(w.ids[i], w.ids, 0)
			n.m.first = w.nodes[(i+1)%len(w.nodes)].m.first
			for _, v := range n.held {
				n.m.Take(v)
			}
			w.advance(i)
		})
	})
}

func (w *world) start() {
	for i := range w.nodes {
		n := w.nodes[i]
		n.ready = time.Duration(w.rng.IntN(3000)) * time.Millisecond
		w.after(n.ready, func() { w.advance(i) })
		w.heal(i)
	}
}

// settled tells whether every honest member has decided, and fails where two
// have decided on different values.
func (w *world) settled(t *testing.T, seed uint64) bool {
	all, first := true, ""
	for _, n := range w.nodes {
		switch {
		case n.lies:
		case n.decided == "":
			all = false
		case first == "":
			first = n.decided
		case n.decided != first:
			t.Fatalf("seed %d: decided on %q and on %q", seed, first, n.decided)
		}
	}
	return all
}

func TestDecisionUnderFaults(t *testing.T) {
	seeds := uint64(400)
	if testing.Short() {
		seeds = 60
	}
	for seed := range seeds {
		sizes := []int{1, 2, 3, 4, 7, 10}
		w := newWorld(seed, sizes[seed%uint64(len(sizes))])
		n := len(w.nodes)
		w.loss = float64(seed%4) / 10
		for i := range Faults(n) {
			w.nodes[(int(seed)+3*i)%n].lies = seed%3 != 0
		}
		side := w.rng.IntN(1 << n)
		heals := time.Duration(w.rng.IntN(40)) * time.Second
		w.apart = func(now time.Duration, a, b int) bool {
			return now < heals && (side>>a)&1 != (side>>b)&1
		}
		w.start()
		if seed%2 == 1 {
			for i := range w.nodes {
				w.crash(i)
			}
		}
		w.run(time.Hour, func() bool { return w.settled(t, seed) })
		if !w.settled(t, seed) {
			t.Fatalf("seed %d: no decision among %d members after %v", seed, n, w.now)
		}
	}
}

func TestNoDecisionWithoutAQuorum(t *testing.T) {
	w := newWorld(5, 8)
	w.apart = func(_ time.Duration, a, b int) bool { return (a < 4) != (b < 4) }
	w.start()
	w.run(10*time.Minute, func() bool { return false })
	for i, n := range w.nodes {
		if n.decided != "" {
			t.Errorf("member %d of a half decided on %q", i, n.decided)
		}
		if b, _ := n.m.Ballot(); b > 1 {
			t.Errorf("member %d went through %d ballots without a quorum", i, b)
		}
	}
}

func TestADecisionIsOfAValueThatAQuorumFoundGood(t *testing.T) {
	for seed := range uint64(50) {
		w := newWorld(seed, 4)
		bad := fmt.Sprintf("value of %d", seed%4)
		w.verdict = func(node int, content []byte) Verdict {
			if string(content) == bad {
				return Bad
			}
			return Good
		}
		w.start()
		w.run(time.Hour, func() bool { return w.settled(t, seed) })
		if !w.settled(t, seed) || w.nodes[0].decided == bad {
			t.Errorf("seed %d: decided on %q", seed, w.nodes[0].decided)
		}
	}
}

func TestPendingWaitsAndTheDeadProposerIsPassedOver(t *testing.T) {
	w := newWorld(3, 4)
	dead := slices.Index(w.ids, w.nodes[0].m.Proposer(0))
	w.nodes[dead].up = false
	w.nodes[dead].decided = "dead"
	missing := map[int]time.Duration{0: time.Second, 1: 2 * time.Second, 2: 3 * time.Second, 3: 2 * time.Second}
	w.verdict = func(node int, _ []byte) Verdict {
		if w.now < missing[node] {
			return Pending
		}
		return Good
	}
	w.start()
	decided := func() bool {
		for i, n := range w.nodes {
			if i != dead && n.decided == "" {
				return false
			}
		}
		return true
	}
	w.run(time.Hour, decided)
	if !decided() || w.now > time.Minute {
		t.Errorf("decided: %v, after %v", decided(), w.now)
	}
}

// TestTheLockHolds is the case that the lock is there for: one member has seen
// a quorum of precommits that the others have not.
func TestTheLockHolds(t *testing.T) {
	ids := []record.NodeID{{1}, {2}, {3}, {4}}
	a, b := []byte("a"), []byte("b")
	va, vb := record.CIDOf(a), record.CIDOf(b)
	m := New(ids[0], ids, 1) // member 2 proposes in ballot 0, member 3 in ballot 1
	app := Application{
		Propose: func() ([]byte, bool) { return a, true },
		Judge:   func([]byte) Verdict { return Good },
	}
	step := func(now time.Duration) (said []Vote) {
		for {
			votes, _ := m.Advance(now, app)
			if len(votes) == 0 {
				return said
			}
			for _, v := range votes {
				m.Take(v)
			}
			said = append(said, votes...)
		}
	}
	m.Take(Vote{Author: ids[1], Phase: Proposal, Value: va, Content: a})
	if said := step(0); len(said) != 1 || said[0].Phase != Prevote || said[0].Value != va {
		t.Fatalf("said %v", said)
	}
	m.Take(Vote{Author: ids[1], Phase: Prevote, Value: va})
	m.Take(Vote{Author: ids[2], Phase: Prevote, Value: va})
	if said := step(0); len(said) != 1 || said[0].Phase != Precommit || said[0].Value != va {
		t.Fatalf("with a quorum of prevotes said %v", said)
	}
	// The others precommit nothing, and the next proposer names another value.
	m.Take(Vote{Author: ids[1], Phase: Precommit})
	m.Take(Vote{Author: ids[2], Phase: Precommit})
	step(0)
	step(time.Minute)
	m.Take(Vote{Author: ids[2], Phase: Proposal, Ballot: 1, Value: vb, Content: b})
	said := step(time.Minute)
	if len(said) != 1 || said[0].Phase != Prevote || said[0].Ballot != 1 || said[0].Value.Defined() {
		t.Fatalf("locked on a, it said %v on b", said)
	}
	// Restored from what it said, it is locked all the same.
	again := New(ids[0], ids, 1)
	again.Take(Vote{Author: ids[0], Phase: Precommit, Value: va})
	again.Take(Vote{Author: ids[1], Phase: Precommit})
	again.Take(Vote{Author: ids[2], Phase: Precommit})
	m = again
	step(time.Minute)
	step(2 * time.Minute)
	m.Take(Vote{Author: ids[2], Phase: Proposal, Ballot: 1, Value: vb, Content: b})
	if said := step(2 * time.Minute); len(said) != 1 || said[0].Value.Defined() {
		t.Fatalf("restored and locked on a, it said %v on b", said)
	}
}

// TestJudgedInOrder: what an application does to judge, a run must be able to
// repeat, so the newest value that won prevotes is judged first, and older ones
// only where it is bad.
func TestJudgedInOrder(t *testing.T) {
	ids := []record.NodeID{{1}, {2}, {3}, {4}}
	const last = 9
	for range 20 {
		m := New(ids[0], ids, 0)
		for ballot := range uint64(last + 1) {
			content := fmt.Appendf(nil, "%d", ballot)
			value := record.CIDOf(content)
			m.Take(Vote{Author: m.Proposer(ballot), Phase: Proposal, Ballot: ballot, Value: value, Content: content})
			for _, id := range ids[1:] {
				m.Take(Vote{Author: id, Phase: Prevote, Ballot: ballot, Value: value})
			}
		}
		var judged []string
		m.Advance(0, Application{
			Propose: func() ([]byte, bool) { return []byte("own"), true },
			Judge: func(content []byte) Verdict {
				judged = append(judged, string(content))
				if string(content) == "7" {
					return Good
				}
				return Bad
			},
		})
		// Then comes that of the ballot which the machine is in.
		if want := []string{"9", "8", "7", "9"}; !slices.Equal(judged, want) {
			t.Fatalf("judged %v, want %v", judged, want)
		}
	}
}

// Of a ballot the proposal of its proposer alone counts, whoever was first: else
// every member could put its own value before the others, and a liar many.
func TestOnlyTheProposerProposes(t *testing.T) {
	ids := []record.NodeID{{1}, {2}, {3}, {4}}
	m := New(ids[0], ids, 1)
	app := Application{
		Propose: func() ([]byte, bool) { return []byte("own"), true },
		Judge:   func([]byte) Verdict { return Good },
	}
	proposal := func(author record.NodeID, content string) Vote {
		return Vote{Author: author, Phase: Proposal, Value: record.CIDOf([]byte(content)), Content: []byte(content)}
	}
	for _, id := range ids {
		if id != m.Proposer(0) {
			m.Take(proposal(id, "usurped"))
		}
	}
	if said, _ := m.Advance(0, app); len(said) != 0 {
		t.Fatalf("on what others than the proposer propose it said %v", said)
	}
	m.Take(proposal(m.Proposer(0), "due"))
	if said, _ := m.Advance(0, app); len(said) != 1 || said[0].Phase != Prevote || said[0].Value != record.CIDOf([]byte("due")) {
		t.Errorf("on the proposer's value it said %v", said)
	}
}

// One honest member in a later ballot is enough to follow, and Faults liars are
// not: f+1 members beyond the own ballot have one honest among them.
func TestSkippingToALaterBallot(t *testing.T) {
	for _, c := range []struct {
		members int
		reached map[int]uint64 // member: the ballot it has spoken in
		want    uint64
	}{
		{4, map[int]uint64{1: 5}, 0},
		{4, map[int]uint64{1: 5, 2: 3}, 3},
		{4, map[int]uint64{1: 5, 2: 3, 3: 4}, 4},
		{7, map[int]uint64{1: 5, 2: 5}, 0},
		{7, map[int]uint64{1: 5, 2: 4, 3: 2}, 2},
		{3, map[int]uint64{1: 9}, 9}, // nobody may lie
	} {
		for phase := Proposal; phase <= Precommit; phase++ {
			var ids []record.NodeID
			for i := range c.members {
				ids = append(ids, record.NodeID{byte(i + 1)})
			}
			m := New(ids[0], ids, 0)
			value := record.CIDOf([]byte("v"))
			for i, ballot := range c.reached {
				v := Vote{Author: ids[i], Phase: phase, Ballot: ballot, Value: value, Content: []byte("v")}
				if phase == Proposal {
					m.first = (i + c.members - int(ballot)%c.members) % c.members // whose turn it then is
				}
				m.Take(v)
				m.Take(v) // again is no more
			}
			m.Advance(0, Application{
				Propose: func() ([]byte, bool) { return []byte("own"), true },
				Judge:   func([]byte) Verdict { return Pending },
			})
			if got, _ := m.Ballot(); got != c.want {
				t.Errorf("%d members, spoke in %v of phase %d: in ballot %d, want %d", c.members, c.reached, phase, got, c.want)
			}
		}
	}
}
