package member

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"village/protocol/agree"
	"village/protocol/record"
	"village/protocol/task"
)

// proposes tells whether a machine takes part in deciding on the roster, and
// with which enrolments it would begin.
func proposes(t *testing.T, m *Member, now time.Duration) ([]record.CID, bool) {
	t.Helper()
	content, ok := m.rosterApplication(now).Propose()
	if !ok {
		return nil, false
	}
	var c task.RosterContent
	if err := record.Decode(content, &c); err != nil {
		t.Fatal(err)
	}
	return c.Enrolments, true
}

func TestTheRosterWaitsForThoseWhoMayCome(t *testing.T) {
	const no = time.Duration(0)
	for _, c := range []struct {
		name   string
		events map[time.Duration]Received
		want   time.Duration // when the machine takes part
		with   []int
	}{
		{"all", map[time.Duration]Received{1: enrolled(0), 2: enrolled(1), 3 * second: enrolled(2)}, 3 * second, []int{0, 1, 2}},
		{"one", map[time.Duration]Received{1: enrolled(0)}, no, nil},
		{"a quorum at once", map[time.Duration]Received{1: enrolled(2), 2: enrolled(1)}, 2 + 10*second, []int{1, 2}},
		{"a quorum at the beginning of time", map[time.Duration]Received{0: enrolled(2), 60 * second: enrolled(1)}, 60*second + 4*60*second - 4, []int{1, 2}},
		{"a quorum within a minute", map[time.Duration]Received{10 * second: enrolled(0), 70 * second: enrolled(1)}, 70*second + 4*60*second, []int{0, 1}},
		{"within two seconds", map[time.Duration]Received{10 * second: enrolled(0), 12 * second: enrolled(1)}, 22 * second, []int{0, 1}},
		{"the third in time", map[time.Duration]Received{1: enrolled(0), 2: enrolled(1), 9 * second: enrolled(2)}, 9 * second, []int{0, 1, 2}},
		{"the third leaves", map[time.Duration]Received{1: enrolled(0), 2: enrolled(1), 9 * second: left(2)}, 9 * second, []int{0, 1}},
		{"one of the three leaves", map[time.Duration]Received{1: enrolled(0), 2: left(0), 3: enrolled(1), 4 * second: enrolled(2)}, 4 * second, []int{1, 2}},
		{"two leave", map[time.Duration]Received{1: enrolled(0), 2: enrolled(1), 3: left(1), 4: left(2)}, no, nil},
		{"an enrolment twice", map[time.Duration]Received{1: enrolled(0), 2: enrolled(1), 9 * second: enrolled(1)}, 2 + 10*second, []int{0, 1}},
	} {
		m := New(nodes[0], taskID, newTask(2))
		var at []time.Duration
		for when := range c.events {
			at = append(at, when)
		}
		slices.Sort(at)
		started, wake := no, no
		try := func(now time.Duration, e Event) {
			effects := m.Step(now, e)
			if _, part := m.rosterVote.machine.Ballot(); part && started == no {
				started = now
			}
			wake = no
			if w := of[Wake](effects); len(w) > 0 {
				wake = w[0].At
			}
		}
		for _, when := range at {
			try(when, c.events[when])
		}
		for started == no && wake != no {
			try(wake-1, Tick{})
			if started == no {
				try(wake, Tick{})
			}
		}
		if started != c.want {
			t.Errorf("%s: takes part at %v, want %v", c.name, started, c.want)
		}
		with, ok := proposes(t, m, max(started, time.Hour))
		var want []record.CID
		for _, i := range c.with {
			want = append(want, enrolled(i).CID)
		}
		task.SortCIDs(want)
		if ok != (c.with != nil) || !slices.Equal(with, want) {
			t.Errorf("%s: would begin with %v, want %v", c.name, with, want)
		}
	}
}

// Who is late in hearing of the others does not keep them from beginning.
func TestRostersThatAreGood(t *testing.T) {
	m := New(nodes[0], taskID, newTask(2))
	m.Step(second, enrolled(0))
	m.Step(second, enrolled(1))
	if _, ready := proposes(t, m, second); ready {
		t.Fatal("would begin itself")
	}
	sorted := func(members ...int) []record.CID { return task.ContentOf(rosterOf(t, members...).Members).Enrolments }
	encoded := func(cids []record.CID) []byte { return m.encode(task.RosterContent{Enrolments: cids}) }
	reversed := sorted(0, 1)
	slices.Reverse(reversed)
	for name, c := range map[string]struct {
		content []byte
		want    agree.Verdict
	}{
		"a quorum":                  {encoded(sorted(0, 1)), agree.Good},
		"with one not heard of":     {encoded(sorted(0, 1, 2)), agree.Pending},
		"of one":                    {encoded(sorted(0)), agree.Bad},
		"of nobody":                 {encoded(nil), agree.Bad},
		"in another order":          {encoded(reversed), agree.Bad},
		"one twice":                 {encoded([]record.CID{enrolled(0).CID, enrolled(0).CID}), agree.Bad},
		"more than there are nodes": {encoded(append(sorted(0, 1, 2), name("zzz"))), agree.Bad},
		"a trailing byte":           {append(encoded(sorted(0, 1)), 0), agree.Bad},
		"garbage":                   {[]byte("a lie"), agree.Bad},
		"nothing":                   {nil, agree.Bad},
	} {
		if got := m.rosterApplication(second).Judge(c.content); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	m.Step(second, enrolled(2))
	if got := m.rosterApplication(second).Judge(encoded(sorted(0, 1, 2))); got != agree.Good {
		t.Errorf("all: %d", got)
	}
}

// table is node 0's machine at the end of 20 rounds, of which two are recent,
// with the newest rounds that it holds of all.
func table(t *testing.T, rounds ...uint64) *Member {
	t.Helper()
	m := New(nodes[0], taskID, newTask(20))
	held := []Received{opened(t, 0, 1, 2), enrolled(0), enrolled(1), enrolled(2)}
	for i, round := range rounds {
		if round > 0 {
			held = append(held, updated(t, i, round))
		}
		if round > 1 {
			held = append(held, updated(t, i, round-1))
		}
	}
	m.Restore(second, held)
	m.Step(second, Tick{})
	return m
}

// When those count as silent who have given no sign since the table was laid,
// and those who have never given one.
const (
	silence = second + leastPatience
	never   = second + firstPatience
)

func TestFinalSet(t *testing.T) {
	part := func(i int, round uint64) task.Part {
		return task.Part{Node: nodes[i], Enrolment: enrolled(i).CID, Update: updated(t, i, round).CID, Round: round, Weight: weight(i)}
	}
	for _, c := range []struct {
		name   string
		rounds []uint64
		gone   []int
		at     time.Duration
		parts  []task.Part // none: not ready
		out    []task.Out
	}{
		{name: "all at the end", rounds: []uint64{20, 20, 20}, at: second, parts: []task.Part{part(0, 20), part(1, 20), part(2, 20)}},
		{name: "one on its way", rounds: []uint64{20, 20, 19}, at: silence - 1},
		{name: "one that has just begun", rounds: []uint64{20, 20, 0}, at: never - 1},
		{name: "one silent, a round before", rounds: []uint64{20, 20, 19}, at: silence, parts: []task.Part{part(0, 20), part(1, 20), part(2, 19)}},
		{name: "one silent, as old as may be", rounds: []uint64{20, 18, 20}, at: silence, parts: []task.Part{part(0, 20), part(1, 18), part(2, 20)}},
		{name: "one silent for too long", rounds: []uint64{20, 17, 20}, at: silence, parts: []task.Part{part(0, 20), part(2, 20)}, out: []task.Out{{Node: nodes[1], Round: 17, Why: task.Silent}}},
		{name: "one that has never trained", rounds: []uint64{20, 20, 0}, at: never, parts: []task.Part{part(0, 20), part(1, 20)}, out: []task.Out{{Node: nodes[2], Why: task.Silent}}},
		{name: "two silent for too long", rounds: []uint64{20, 3, 4}, at: silence},
		{name: "all others silent", rounds: []uint64{20, 0, 0}, at: time.Hour},
		{name: "one has left before the end", rounds: []uint64{20, 20, 5}, gone: []int{2}, at: second, parts: []task.Part{part(0, 20), part(1, 20)}, out: []task.Out{{Node: nodes[2], Round: 5, Why: task.Left}}},
		{name: "one has left at the end", rounds: []uint64{20, 20, 20}, gone: []int{1}, at: second, parts: []task.Part{part(0, 20), part(2, 20)}, out: []task.Out{{Node: nodes[1], Round: 20, Why: task.Left}}},
		{name: "the node itself has left", rounds: []uint64{20, 20, 20}, gone: []int{0}, at: second, parts: []task.Part{part(1, 20), part(2, 20)}, out: []task.Out{{Node: nodes[0], Round: 20, Why: task.Left}}},
		{name: "two have left", rounds: []uint64{20, 20, 20}, gone: []int{0, 1}, at: second, parts: []task.Part{part(2, 20)}, out: []task.Out{{Node: nodes[0], Round: 20, Why: task.Left}, {Node: nodes[1], Round: 20, Why: task.Left}}},
		{name: "the node itself is behind", rounds: []uint64{19, 20, 20}, at: time.Hour},
		{name: "nobody has trained", rounds: []uint64{0, 0, 0}, at: time.Hour},
		{name: "before the last round", rounds: []uint64{19, 19, 19}, at: time.Hour},
	} {
		m := table(t, c.rounds...)
		for _, i := range c.gone {
			m.Step(second, left(i))
		}
		m.rounds.busy = false // a node that is behind trains on
		m.finalSet(second)    // whom it waits for from now on
		got, ready := m.finalSet(c.at)
		if ready != (c.parts != nil) {
			t.Errorf("%s: ready is %v", c.name, ready)
			continue
		}
		if !ready {
			continue
		}
		want := task.FinalContent{Round: 20, Roster: theRoster(t).CID, Parts: c.parts, Out: c.out}
		if c.out == nil {
			want.Out = []task.Out{}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, want)
		}
		// Every named node is in it once, and this node finds it good itself.
		if len(got.Parts)+len(got.Out) != len(nodes) || m.judge(c.at, got) != agree.Good {
			t.Errorf("%s: verdict %d on %+v", c.name, m.judge(c.at, got), got)
		}
	}
}

// proven is the proof that a node has signed two records of a kind for one place.
func proven(i int, kind record.Kind) Received {
	return Received{Author: nodes[i], Body: Equivocation{Kind: kind, Records: [2]record.CID{name("one"), name("other")}}}
}

// A node that has signed two updates for a round has told nobody knows whom what:
// it is left out, and nobody waits until all hold the same one. Two votes are for
// package agree to bear.
func TestEquivocatorsAreLeftOut(t *testing.T) {
	m := table(t, 20, 20, 20)
	with, _ := m.finalSet(second)
	m.Step(second, proven(1, record.KindPrevote))
	if got, _ := m.finalSet(second); len(got.Out) != 0 || m.Equivocated(nodes[1]) != nil {
		t.Errorf("for two votes: %+v", got)
	}
	without := with
	without.Parts = slices.Delete(slices.Clone(with.Parts), 1, 2)
	without.Out = []task.Out{{Node: nodes[1], Round: 20, Why: task.Equivocated}}
	if v := m.judge(second, without); v != agree.Pending {
		t.Errorf("%d of a set without one of which nothing is proven", v)
	}
	m.Step(second, proven(1, record.KindUpdate))
	if got, ready := m.finalSet(second); !ready || !reflect.DeepEqual(got, without) || m.judge(second, got) != agree.Good {
		t.Errorf("%+v, verdict %d", got, m.judge(second, got))
	}
	// Those who lack the proof may have decided on the node's update.
	if v := m.judge(second, with); v != agree.Pending || len(m.Equivocated(nodes[1])) != 2 {
		t.Errorf("%d of the set with it", v)
	}
}

// Of two enrolments the one counts that was decided on, if one was.
func TestTwoEnrolmentsOfOneNode(t *testing.T) {
	other := enrolled(2)
	body := other.Body.(task.Enrolment)
	body.Moments.Count++
	other.CID, other.Body = name("other enrolment"), body
	m := New(nodes[0], taskID, newTask(2))
	for _, e := range []Event{enrolled(0), enrolled(1), enrolled(2)} {
		m.Step(second, e)
	}
	good := m.encode(task.ContentOf(theRoster(t).Members))
	m.Step(second, proven(2, record.KindEnrolment))
	m.Step(second, other)
	if with, ok := proposes(t, m, second); !ok || len(with) != 2 {
		t.Errorf("would begin with %d", len(with))
	}
	if v := m.rosterApplication(second).Judge(good); v != agree.Pending {
		t.Errorf("%d of a roster with the equivocator", v)
	}
	members := slices.Clone(theRoster(t).Members)
	members[2].CID, members[2].Enrolment = other.CID, body
	m.Step(second, certificate(t, task.TopicRoster, task.ContentOf(members)))
	if e, _ := m.Enrolment(nodes[2]); !m.Roster().Defined() || e.CID != other.CID || m.seats[2].part {
		t.Errorf("with the roster %s stands %+v", m.Roster(), e)
	}
}

func TestJudge(t *testing.T) {
	good := func(rounds ...uint64) (c task.FinalContent) {
		c = final(t, 20, record.CID{})
		c.Inputs = record.CID{}
		for i, round := range rounds {
			c.Parts[i].Round, c.Parts[i].Update = round, updated(t, i, round).CID
		}
		return c
	}
	// without is the set without a node.
	without := func(i int, why task.Why) task.FinalContent {
		c := good(20, 20, 20)
		c.Parts = slices.Delete(c.Parts, i, i+1)
		c.Out = []task.Out{{Node: nodes[i], Why: why}}
		return c
	}
	change := func(edit func(*task.FinalContent)) task.FinalContent {
		c := good(20, 20, 20)
		edit(&c)
		return c
	}
	const bad, pending, fine = agree.Bad, agree.Pending, agree.Good
	all := []uint64{20, 20, 20}
	behind := []uint64{20, 20, 19}
	for _, c := range []struct {
		name    string
		held    []uint64
		content task.FinalContent
		live    agree.Verdict // while node 2 may still give a sign
		silent  agree.Verdict // once it has given none
		gone    agree.Verdict // once it has left
	}{
		{"all", all, good(20, 20, 20), fine, fine, fine},
		{"a live node left out as silent", behind, without(2, task.Silent), pending, fine, fine},
		{"a live node left out as absent", behind, without(2, task.Absent), pending, fine, fine},
		{"a live node left out as gone", behind, without(2, task.Left), pending, pending, fine},
		{"one at the end left out as silent", all, without(2, task.Silent), pending, fine, fine},
		{"an older update of a live node", behind, good(20, 20, 19), pending, fine, fine},
		{"an older update of one at the end", all, good(20, 20, 19), pending, fine, fine},
		{"the oldest that may be", []uint64{20, 20, 18}, good(20, 20, 18), pending, fine, fine},
		{"an older one", []uint64{20, 20, 17}, good(20, 20, 17), bad, bad, bad},
		{"left out for no known reason", behind, without(2, "slow"), bad, bad, bad},
		{"left out for no reason", behind, without(2, ""), bad, bad, bad},
		{"the node itself left out as silent", all, without(0, task.Silent), pending, pending, pending},
		{"the node itself left out as absent", all, without(0, task.Absent), pending, pending, pending},
		{"the node itself left out as gone", all, without(0, task.Left), pending, pending, pending},
		{"an older update of the node itself", all, good(19, 20, 20), pending, pending, pending},
		{"an update that is not here", behind, good(20, 20, 20), pending, pending, pending},
		{"an update that is no more", all, change(func(c *task.FinalContent) { c.Parts[1].Update = name("other") }), pending, pending, pending},
		{"another round than the update's", all, change(func(c *task.FinalContent) { c.Parts[2].Round = 19 }), bad, bad, bad},
		{"another weight", all, change(func(c *task.FinalContent) { c.Parts[1].Weight++ }), bad, bad, bad},
		{"another enrolment", all, change(func(c *task.FinalContent) { c.Parts[1].Enrolment = enrolled(0).CID }), bad, bad, bad},
		{"another node's update", all, change(func(c *task.FinalContent) { c.Parts[1].Update = c.Parts[0].Update }), pending, pending, pending},
		{"another roster", all, change(func(c *task.FinalContent) { c.Roster = rosterOf(t, 0, 1).CID }), bad, bad, bad},
		{"no round", all, change(func(c *task.FinalContent) { c.Round = 0 }), bad, bad, bad},
		{"a round too many", all, change(func(c *task.FinalContent) { c.Round = 21 }), bad, bad, bad},
		{"the highest round", all, change(func(c *task.FinalContent) { c.Round = 1<<64 - 1 }), bad, bad, bad},
		{"an update of no round", all, change(func(c *task.FinalContent) { c.Parts[1].Round = 0 }), bad, bad, bad},
		{"an update of a later round", all, change(func(c *task.FinalContent) { c.Parts[1].Round = 21 }), bad, bad, bad},
		{"an update of the highest round", all, change(func(c *task.FinalContent) { c.Parts[1].Round = 1<<64 - 1 }), bad, bad, bad},
		{"a node not accounted for", behind, change(func(c *task.FinalContent) { c.Parts = c.Parts[:2] }), bad, bad, bad},
		{"a node twice", all, change(func(c *task.FinalContent) { c.Parts[2] = c.Parts[1] }), bad, bad, bad},
		{"a node in and out", all, change(func(c *task.FinalContent) { c.Out = []task.Out{{Node: nodes[2], Why: task.Silent}} }), bad, bad, bad},
		{"in another order", all, change(func(c *task.FinalContent) { c.Parts[0], c.Parts[1] = c.Parts[1], c.Parts[0] }), bad, bad, bad},
		{"a stranger", behind, change(func(c *task.FinalContent) {
			c.Parts = c.Parts[:2]
			c.Out = []task.Out{{Node: stranger, Why: task.Silent}}
		}), bad, bad, bad},
		{"too few parts", all, change(func(c *task.FinalContent) {
			c.Parts = c.Parts[:1]
			c.Out = []task.Out{{Node: nodes[1], Why: task.Silent}, {Node: nodes[2], Why: task.Silent}}
		}), bad, bad, bad},
		{"no parts", all, change(func(c *task.FinalContent) { c.Parts = nil }), bad, bad, bad},
	} {
		m := table(t, c.held...)
		m.judge(second, c.content) // whom it waits for from now on
		if got := m.judge(silence-1, c.content); got != c.live {
			t.Errorf("%s: %d while the node is live, want %d", c.name, got, c.live)
		}
		if got := m.judge(silence, c.content); got != c.silent {
			t.Errorf("%s: %d once the node is silent, want %d", c.name, got, c.silent)
		}
		m.Step(silence, beacon(2))
		if got := m.judge(silence+second, c.content); got != c.live {
			t.Errorf("%s: %d once the node is heard again, want %d", c.name, got, c.live)
		}
		m.Step(silence+second, left(2))
		if got := m.judge(silence+second, c.content); got != c.gone {
			t.Errorf("%s: %d once the node has left, want %d", c.name, got, c.gone)
		}
	}
}

func TestJudgeOfAnEarlyEnd(t *testing.T) {
	tk := newTask(20)
	tk.Tolerance = .1
	c := final(t, 7, record.CID{})
	c.Inputs = record.CID{}
	for _, unsettled := range []int{-1, 0, 2} {
		m := New(nodes[0], taskID, tk)
		held := []Received{opened(t, 0, 1, 2), enrolled(0), enrolled(1), enrolled(2)}
		for i := range nodes {
			r := updated(t, i, 7)
			u := r.Body.(task.Update)
			u.Settled = i != unsettled
			r.Body = u
			held = append(held, r)
		}
		m.Restore(second, held)
		m.Step(second, Tick{})
		want := agree.Good
		if unsettled >= 0 {
			want = agree.Bad
		}
		if got := m.judge(second, c); got != want {
			t.Errorf("with node %d still moving: %d, want %d", unsettled, got, want)
		}
	}
}

// What a proposal comes to is recomputed before it is voted for.
func TestNoVoteWithoutRecomputing(t *testing.T) {
	m := table(t, 20, 20, 20)
	app := m.finalApplication(second)
	c := final(t, 20, name("model"))
	if got := app.Judge(m.encode(c)); got != agree.Pending {
		t.Errorf("%d before it is recomputed", got)
	}
	set := setOf(c)
	for what, made := range map[string]Made{
		"the model":  {Set: set, Model: name("another"), Inputs: c.Inputs},
		"the inputs": {Set: set, Model: c.Model, Inputs: name("others")},
	} {
		m.made[set] = made
		if got := app.Judge(m.encode(c)); got != agree.Bad {
			t.Errorf("%s is another: %d", what, got)
		}
	}
	m.made[set] = Made{Set: set, Model: c.Model, Inputs: c.Inputs}
	if got := app.Judge(m.encode(c)); got != agree.Good {
		t.Errorf("%d once it is recomputed", got)
	}
	for name, content := range map[string][]byte{
		"nothing": nil, "garbage": []byte("a lie"), "a trailing byte": append(m.encode(c), 0), "a roster": m.encode(task.ContentOf(theRoster(t).Members)),
	} {
		if got := app.Judge(content); got != agree.Bad {
			t.Errorf("%s: %d", name, got)
		}
	}
	// The name of a set is that of its updates and those left out, not of what it
	// comes to.
	for name, edit := range map[string]func(*task.FinalContent){
		"round":  func(c *task.FinalContent) { c.Round-- },
		"roster": func(c *task.FinalContent) { c.Roster = record.CIDOf(nil) },
		"parts":  func(c *task.FinalContent) { c.Parts = c.Parts[:2] },
		"out":    func(c *task.FinalContent) { c.Out = []task.Out{{Node: nodes[0], Why: task.Left}} },
	} {
		other := final(t, 20, record.CIDOf(nil))
		if edit(&other); setOf(other) == set {
			t.Errorf("sets of another %s have one name", name)
		}
	}
	if other := final(t, 20, record.CIDOf(nil)); setOf(other) != set {
		t.Error("one set has two names")
	}
}

func TestMadeInVainIsTriedAgain(t *testing.T) {
	m := table(t, 20, 20, 19)
	make := only[Make](t, m.Step(second, updated(t, 2, 20)))
	none(t, m.Step(second, Tick{}))
	again := only[Make](t, m.Step(2*second, Made{Set: make.Set}))
	if !reflect.DeepEqual(again, make) {
		t.Errorf("makes %+v, before %+v", again, make)
	}
	none(t, m.Step(2*second, Tick{}))
	effects := m.Step(2*second, Made{Set: make.Set, Model: name("model"), Inputs: name("inputs")})
	if len(of[Make](effects)) != 0 || len(effects) == 0 {
		t.Errorf("effects %+v", effects)
	}
	if missing, quorum := m.Undecided(); quorum != 2 || len(missing) == 0 {
		t.Errorf("a quorum of %d lacks %v", quorum, missing)
	}
	// Where this node is the first proposer it says what it has made.
	if m.finalVote.machine.Proposer(0) == nodes[0] {
		t.Fatal("the tests below want another proposer")
	}
	m = New(m.finalVote.machine.Proposer(0), taskID, newTask(20))
	held := []Received{opened(t, 0, 1, 2)}
	for i := range nodes {
		held = append(held, enrolled(i), updated(t, i, 20))
	}
	m.Restore(second, held)
	only[Make](t, m.Step(second, Tick{}))
	cast := of[Cast](m.Step(second, Made{Set: make.Set, Model: name("model"), Inputs: name("inputs")}))
	var c task.FinalContent
	if len(cast) != 1 || cast[0].Topic != task.TopicFinal || cast[0].Vote.Phase != agree.Proposal || record.Decode(cast[0].Vote.Content, &c) != nil || !reflect.DeepEqual(c, final(t, 20, name("model"))) {
		t.Errorf("cast %+v of %+v", cast, c)
	}
}

// votes are those of all nodes for a content in ballot 0.
func votes(topic task.Topic, phase agree.Phase, proposer record.NodeID, content []byte) (list []Received) {
	for i, id := range nodes {
		v := agree.Vote{CID: name(topic, phase, i), Author: id, Phase: phase, Value: record.CIDOf(content)}
		if phase == agree.Proposal {
			v.Content = content
			if id != proposer {
				continue
			}
		}
		list = append(list, Received{CID: v.CID, Author: id, Body: Ballot{Topic: topic, Vote: v}})
	}
	return list
}

// Whoever sees a quorum of precommits says so once, with them as proof.
func TestCertify(t *testing.T) {
	m := table(t, 20, 20, 20)
	content := m.encode(final(t, 20, name("model")))
	proposer := m.finalVote.machine.Proposer(0)
	m.Step(second, Made{Set: setOf(final(t, 20, name("model"))), Model: name("model"), Inputs: name("inputs")})
	m.Step(second, votes(task.TopicFinal, agree.Proposal, proposer, content)[0])
	precommits := votes(task.TopicFinal, agree.Precommit, proposer, content)
	if effects := m.Step(second, precommits[1]); len(of[Certify](effects)) != 0 || m.sealed() {
		t.Fatalf("effects %+v of one precommit", effects)
	}
	effects := m.Step(second, precommits[2])
	certify := of[Certify](effects)
	want := Certify{Topic: task.TopicFinal, Content: content, Precommits: []record.CID{precommits[1].CID, precommits[2].CID}}
	if len(certify) != 1 || !reflect.DeepEqual(certify[0], want) || m.Stage() != Evaluating || len(of[Evaluate](effects)) != 1 {
		t.Errorf("effects %+v", effects)
	}
	if effects := m.Step(second, precommits[0]); len(of[Certify](effects)) != 0 {
		t.Errorf("certified twice: %+v", effects)
	}
	// Of the roster too; there training begins at once.
	m = New(nodes[0], taskID, newTask(2))
	for i := range nodes {
		m.Step(second, enrolled(i))
	}
	content = m.encode(task.ContentOf(theRoster(t).Members))
	m.Step(second, votes(task.TopicRoster, agree.Proposal, proposer, content)[0])
	precommits = votes(task.TopicRoster, agree.Precommit, proposer, content)
	m.Step(second, precommits[0])
	effects = m.Step(second, precommits[1])
	if len(of[Certify](effects)) != 1 || len(of[Train](effects)) != 1 || m.Roster() != theRoster(t).CID {
		t.Errorf("effects %+v", effects)
	}
	// One who was told does not tell it again.
	m = New(nodes[0], taskID, newTask(2))
	for i := range nodes {
		m.Step(second, enrolled(i))
	}
	for _, r := range precommits {
		m.Step(second, r)
	}
	if effects := m.Step(second, opened(t, 0, 1, 2)); len(of[Certify](effects)) != 0 || len(of[Train](effects)) != 1 {
		t.Errorf("effects %+v", effects)
	}
}

func TestFetch(t *testing.T) {
	model := name("model")
	m := table(t, 20, 20, 17)
	fetch := only[Fetch](t, m.Step(second, certificate(t, task.TopicFinal, final(t, 20, model))))
	if fetch.Inputs != name("inputs") || m.Stage() != Evaluating {
		t.Errorf("%s, fetches %s", m.Stage(), fetch.Inputs)
	}
	if cid, model := m.Model(); cid.Defined() || model != nil {
		t.Errorf("model %s", cid)
	}
	none(t, m.Step(time.Hour, Tick{})) // once
	var updates []Received
	for i := range nodes {
		updates = append(updates, updated(t, i, 20))
	}
	make := only[Make](t, m.Step(time.Hour, Fetched{Updates: updates}))
	if !slices.Equal(make.Model.Params, mean(t, 20, 20, 20)) {
		t.Errorf("makes %v", make.Model.Params)
	}
	effects := m.Step(time.Hour, Made{Set: make.Set, Model: model, Inputs: name("inputs")})
	if evaluate := of[Evaluate](effects); len(evaluate) != 1 || evaluate[0].CID != model {
		t.Errorf("effects %+v", effects)
	}
	// It is not done before, even where it had made the model for its vote, and an
	// update of it has been overtaken since.
	m = table(t, 19, 19, 19)
	m.rounds.busy = false
	c := final(t, 19, model)
	m.modelOfSet(c)
	m.Step(second, Made{Set: setOf(c), Model: model, Inputs: name("inputs")})
	m.Step(second, updated(t, 2, 20))
	m.Step(second, edited(updated(t, 2, 21), func(u *task.Update) { u.Previous = 20 }))
	effects = m.Step(second, certificate(t, task.TopicFinal, c))
	for i := range nodes {
		m.Step(second, evaluated(i, model))
	}
	if fetch := of[Fetch](effects); len(fetch) != 1 || m.Stage() != Evaluating || len(m.WaitingFor()) != 0 {
		t.Errorf("%s, effects %+v", m.Stage(), effects)
	}
	m.Step(second, Fetched{Updates: []Received{updated(t, 2, 19)}})
	if cid, made := m.Model(); m.Stage() != Done || cid != model || !slices.Equal(made.Params, mean(t, 19, 19, 19)) {
		t.Errorf("%s, model %s", m.Stage(), cid)
	}
	// Where gossip is quicker than the fetch, its work is not needed.
	m = table(t, 20, 20, 17)
	only[Fetch](t, m.Step(second, certificate(t, task.TopicFinal, final(t, 20, model))))
	only[Make](t, m.Step(second, updated(t, 2, 20)))
	none(t, m.Step(second, Fetched{Updates: updates}))
}

func TestDisputed(t *testing.T) {
	m := table(t, 20, 20, 20)
	m.Step(second, certificate(t, task.TopicFinal, final(t, 20, name("model"))))
	if m.Disputed() {
		t.Error("disputed before it is recomputed")
	}
	m.Step(second, Made{Set: setOf(final(t, 20, name("model"))), Model: name("another"), Inputs: name("inputs")})
	if !m.Disputed() {
		t.Error("another model than the quorum has signed is not disputed")
	}
	if cid, _ := m.Model(); cid != name("another") || m.Content().Model != name("model") {
		t.Errorf("model %s, signed %s", cid, m.Content().Model)
	}
}

// lateUpdate is that of node i where the roster is of the first two alone.
func lateUpdate(t *testing.T, i int, round uint64) Received {
	return edited(updated(t, i, round), func(u *task.Update) { u.Roster = rosterOf(t, 0, 1).CID })
}

func TestALateJoinerContributesWithItsOwnWeight(t *testing.T) {
	// It trains with the scaling of the roster, from where the others are.
	late := New(nodes[2], taskID, newTask(20))
	none(t, late.Step(second, opened(t, 0, 1)))
	none(t, late.Step(second, enrolled(0)))
	none(t, late.Step(second, enrolled(1)))
	none(t, late.Step(second, lateUpdate(t, 0, 6)))
	none(t, late.Step(second, lateUpdate(t, 1, 6)))
	if late.InRoster(nodes[2]) || late.Stage() != Training || late.Round() != 6 {
		t.Errorf("%s, round %d", late.Stage(), late.Round())
	}
	only[Publish](t, late.Step(second, Enrol{Enrolment: enrolled(2).Body.(task.Enrolment)}))
	train := of[Train](late.Step(second, enrolled(2)))
	if len(train) != 1 || train[0].Round != 6 || train[0].Roster.CID != rosterOf(t, 0, 1).CID || !reflect.DeepEqual(train[0].Roster.Scaling, rosterOf(t, 0, 1).Scaling) || !slices.Equal(train[0].From, mean(t, 6, 6, 0)) {
		t.Fatalf("trains %+v", train)
	}
	publish := only[Publish](t, late.Step(second, Trained{Round: 6, Params: vector(2, 6)}))
	if u := publish.Body.(task.Update); u.Weight != weight(2) || u.Roster != rosterOf(t, 0, 1).CID || u.Previous != 0 {
		t.Errorf("published %+v", u)
	}

	// The others count it from its enrolment on, with its own rows.
	m := New(nodes[0], taskID, newTask(7))
	m.Restore(second, []Received{opened(t, 0, 1), enrolled(0), enrolled(1), lateUpdate(t, 0, 6), lateUpdate(t, 1, 6), lateUpdate(t, 2, 6)})
	if train := only[Train](t, m.Step(second, Tick{})); !slices.Equal(train.From, mean(t, 6, 6, 0)) {
		t.Errorf("from %v before it has enrolled", train.From)
	}
	none(t, m.Step(second, enrolled(2)))
	if m.RoundOf(nodes[2]) != 6 {
		t.Error("its early update is lost")
	}
	none(t, m.Step(second, lateUpdate(t, 1, 7)))
	none(t, m.Step(second, edited(lateUpdate(t, 2, 7), func(u *task.Update) { u.Weight++ })))
	if m.RoundOf(nodes[2]) != 6 {
		t.Error("another weight than it has enrolled counts")
	}
	only[Publish](t, m.Step(second, Trained{Round: 7, Params: vector(0, 7)}))
	only[Wake](t, m.Step(second, lateUpdate(t, 0, 7))) // it is waited for
	make := only[Make](t, m.Step(second, lateUpdate(t, 2, 7)))
	enrolments := []record.CID{enrolled(0).CID, enrolled(1).CID, enrolled(2).CID}
	task.SortCIDs(enrolments)
	if !slices.Equal(make.Model.Params, mean(t, 7, 7, 7)) || len(make.Model.Parts) != 3 || make.Model.Parts[2].Weight != weight(2) || make.Model.Parts[2].Enrolment != enrolled(2).CID ||
		!slices.Equal(make.Roster, task.ContentOf(rosterOf(t, 0, 1).Members).Enrolments) || !slices.Equal(make.Enrolments, enrolments) || m.InRoster(nodes[2]) {
		t.Errorf("makes %+v", make)
	}
	if !reflect.DeepEqual(make.Model.Scaling, rosterOf(t, 0, 1).Scaling) || make.Model.Roster != rosterOf(t, 0, 1).CID {
		t.Errorf("scaling %+v", make.Model.Scaling)
	}

	// One that does not come is named.
	m = New(nodes[0], taskID, newTask(7))
	m.Restore(second, []Received{opened(t, 0, 1), enrolled(0), enrolled(1), lateUpdate(t, 0, 7), lateUpdate(t, 1, 7)})
	make = only[Make](t, m.Step(second, Tick{}))
	if want := (task.Out{Node: nodes[2], Why: task.Absent}); len(make.Model.Out) != 1 || make.Model.Out[0] != want || len(make.Enrolments) != 2 {
		t.Errorf("makes %+v", make.Model)
	}
	// It is too late once the model is sealed.
	late = New(nodes[2], taskID, newTask(7))
	late.Step(second, opened(t, 0, 1))
	late.Step(second, certificate(t, task.TopicFinal, final(t, 7, name("model"))))
	late.Step(second, enrolled(0))
	late.Step(second, enrolled(1))
	if effects := late.Step(second, Enrol{Enrolment: enrolled(2).Body.(task.Enrolment)}); len(of[Publish](effects)) != 0 {
		t.Errorf("effects %+v", effects)
	}
}

func TestLeave(t *testing.T) {
	model := name("model")
	leave := func(stage Stage, m *Member, now time.Duration) {
		t.Helper()
		if m.Stage() != stage {
			t.Errorf("%s, want %s", m.Stage(), stage)
		}
		publish := only[Publish](t, m.Step(now, Leave{}))
		if publish.Kind != record.KindLeave || publish.Number != 0 || publish.Body != (task.Leave{Task: taskID}) {
			t.Errorf("published %+v", publish)
		}
		if m.HasLeft(nodes[0]) {
			t.Error("has left before that is durable")
		}
		if effects := m.Step(now, left(0)); len(of[Train](effects))+len(of[Publish](effects))+len(of[Evaluate](effects)) != 0 || !m.HasLeft(nodes[0]) {
			t.Errorf("%s: effects %+v", stage, effects)
		}
		if effects := m.Step(now, Leave{}); len(of[Publish](effects)) != 0 {
			t.Errorf("%s: leaves twice", stage)
		}
		if effects := m.Step(now, Enrol{Enrolment: enrolled(0).Body.(task.Enrolment)}); len(of[Publish](effects)) != 0 {
			t.Errorf("%s: comes back", stage)
		}
	}
	// ends checks that a node that has left follows to the end all the same.
	ends := func(m *Member, now time.Duration, round uint64) {
		t.Helper()
		for i := 1; i < 3; i++ {
			m.Step(now, updated(t, i, round-1))
			if effects := m.Step(now, updated(t, i, round)); len(of[Train](effects)) != 0 {
				t.Errorf("trains after it has left: %+v", effects)
			}
		}
		c := final(t, round, model)
		c.Parts = c.Parts[1:]
		c.Out = []task.Out{{Node: nodes[0], Round: m.RoundOf(nodes[0]), Why: task.Left}}
		m.Step(now, certificate(t, task.TopicFinal, c))
		if effects := m.Step(now, Made{Set: setOf(c), Model: model}); len(of[Evaluate](effects)) != 0 {
			t.Errorf("evaluates after it has left: %+v", effects)
		}
		m.Step(now, evaluated(1, model))
		m.Step(now, evaluated(2, model))
		if _, made := m.Model(); m.Stage() != Done || made == nil || !slices.Equal(made.Params, mean(t, 0, round, round)) {
			t.Errorf("%s", m.Stage())
		}
	}

	m := New(nodes[0], taskID, newTask(20))
	leave(Enrolling, m, second) // before it has enrolled
	m.Step(second, opened(t, 1, 2))
	m.Step(second, enrolled(1))
	m.Step(second, enrolled(2))
	if m.Stage() != Training || m.InRoster(nodes[0]) {
		t.Errorf("%s", m.Stage())
	}

	m = New(nodes[0], taskID, newTask(20))
	m.Step(second, enrolled(0))
	leave(Enrolling, m, second) // after it has enrolled
	m.Step(second, enrolled(1))
	m.Step(second, opened(t, 0, 1, 2)) // the others did not know
	none(t, m.Step(second, enrolled(2)))
	ends(m, second, 20)

	m = started(t, 0, newTask(20))
	leave(Training, m, second) // in the middle of a round, whose work is for nothing
	if effects := m.Step(second, Trained{Round: 1, Params: vector(0, 1)}); len(of[Publish](effects)) != 0 {
		t.Errorf("an update after it has left: %+v", effects)
	}
	ends(m, second, 20)

	m = table(t, 20, 20, 19)
	leave(Sealing, m, second)
	ends(m, second, 20)

	m = table(t, 20, 20, 20)
	m.Step(second, certificate(t, task.TopicFinal, final(t, 20, model)))
	m.Step(second, Made{Set: setOf(final(t, 20, model)), Model: model})
	m.Step(second, evaluated(1, model))
	leave(Evaluating, m, second) // it owes no evaluation any more
	m.Step(second, evaluated(2, model))
	if m.Stage() != Done {
		t.Errorf("%s, waits for %v", m.Stage(), m.WaitingFor())
	}
}

func TestTheOthersDoNotWaitForOneThatHasLeft(t *testing.T) {
	m := New(nodes[0], taskID, newTask(20))
	m.Step(second, left(2))
	if !slices.Equal(m.WaitingFor(), nodes[:2]) || !m.HasLeft(nodes[2]) || m.HasLeft(nodes[1]) || m.HasLeft(stranger) {
		t.Errorf("waits for %v", m.WaitingFor())
	}
	m = started(t, 0, newTask(20))
	none(t, m.Step(second, updated(t, 1, 1)))
	none(t, m.Step(second, updated(t, 2, 1)))
	none(t, m.Step(second, left(2)))
	only[Publish](t, m.Step(second, Trained{Round: 1, Params: vector(0, 1)}))
	if train := only[Train](t, m.Step(second, updated(t, 0, 1))); !slices.Equal(train.From, mean(t, 1, 1, 0)) {
		t.Errorf("from %v", train.From)
	}
	only[Publish](t, m.Step(second, Trained{Round: 2, Params: vector(0, 2)}))
	only[Wake](t, m.Step(second, updated(t, 0, 2)))
	if !slices.Equal(m.WaitingFor(), nodes[1:2]) {
		t.Errorf("waits for %v", m.WaitingFor())
	}
	only[Train](t, m.Step(second, updated(t, 1, 2)))

	model := name("model")
	m = table(t, 20, 20, 20)
	m.Step(second, certificate(t, task.TopicFinal, final(t, 20, model)))
	m.Step(second, Made{Set: setOf(final(t, 20, model)), Model: model})
	m.Step(second, evaluated(0, model))
	m.Step(second, evaluated(1, model))
	if m.Stage() != Evaluating {
		t.Errorf("%s", m.Stage())
	}
	if m.Step(second, left(2)); m.Stage() != Done {
		t.Errorf("%s, waits for %v", m.Stage(), m.WaitingFor())
	}
}

// A node does not vote on a set while it works on an update of its own.
func TestNoVoteInTheMiddleOfARound(t *testing.T) {
	m := started(t, 0, newTask(1))
	m.Step(second, updated(t, 1, 1))
	m.Step(second, updated(t, 2, 1))
	content := m.encode(func() task.FinalContent {
		c := final(t, 1, name("model"))
		c.Parts = c.Parts[1:]
		c.Out = []task.Out{{Node: nodes[0], Why: task.Silent}}
		return c
	}())
	proposer := m.finalVote.machine.Proposer(0)
	none(t, m.Step(time.Hour, votes(task.TopicFinal, agree.Proposal, proposer, content)[0]))
	for _, r := range votes(task.TopicFinal, agree.Prevote, proposer, content)[1:] {
		none(t, m.Step(time.Hour, r))
	}
	only[Publish](t, m.Step(time.Hour, Trained{Round: 1, Params: vector(0, 1)}))
}

// One certificate is enough for all: three nodes give it, and others only where
// it does not come.
func TestAFewNodesCertify(t *testing.T) {
	tk := newTask(5)
	tk.Nodes = nil
	for i := range 8 {
		tk.Nodes = append(tk.Nodes, record.NodeID{byte(i + 1)})
	}
	content := []byte("decided")
	decided := func(i int) *Member {
		m := New(tk.Nodes[i], taskID, tk)
		m.rosterVote.machine.Adopt(record.CIDOf(content), content)
		return m
	}
	at := map[time.Duration]int{}
	for i := range 8 {
		m := decided(i)
		effects := m.Step(second, Tick{})
		now := second
		for len(of[Certify](effects)) == 0 {
			now = only[Wake](t, effects).At
			effects = m.Step(now, Tick{})
		}
		at[now]++
		// Nor again.
		if again := of[Certify](m.Step(now+time.Hour, Tick{})); len(again) > 0 {
			t.Errorf("node %d certifies twice", i)
		}
		// Nor where the certificate of another has come.
		m = decided(i)
		m.Step(second/2, Received{CID: name("seal"), Author: tk.Nodes[(i+1)%8], Body: Certificate{Topic: task.TopicRoster, Content: content}})
		if late := of[Certify](m.Step(time.Hour, Tick{})); len(late) > 0 {
			t.Errorf("node %d certifies what is certified", i)
		}
	}
	if at[second] != 3 || at[2*second] != 3 || at[3*second] != 2 {
		t.Errorf("certificates at %v", at)
	}
}
