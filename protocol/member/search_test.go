package member

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"village/protocol/agree"
	"village/protocol/mixing"
	"village/protocol/record"
	"village/protocol/task"
)

// searched is the update of node i for a round of searching, with these candidates.
func searched(t testing.TB, i int, round uint64, kept ...int) Received {
	t.Helper()
	tk := searching()
	u := task.Update{Task: taskID, Roster: theRoster(t).CID, Weight: weight(i), Previous: round - 1, Kept: kept, Params: make([]float64, tk.Length(kept))}
	for k, s := range tk.States(kept, u.Params) {
		for j := range s.Params { // of which none depends on what else is kept
			s.Params[j] = float64(kept[k]) + float64(i)/8 + float64(round)/64 + float64(j)/512
		}
		copy(s.Start, s.Params)
	}
	for _, r := range tk.Search.Rungs {
		if r.Round == round {
			for _, c := range kept {
				u.Losses = append(u.Losses, []float64{3, 1, 2}[c])
			}
			u.Rows = uint64(2 + i)
		}
	}
	return Received{CID: name("update", i, round, kept), Author: nodes[i], Number: round, Body: u}
}

// mixed is what a round starts from that these updates go into, of these candidates.
func mixed(t testing.TB, kept []int, updates ...Received) []float64 {
	t.Helper()
	tk := searching()
	sum := mixing.NewSum(tk.Length(kept))
	for _, r := range updates {
		u := r.Body.(task.Update)
		params, ok := tk.Project(u.Params, u.Kept, kept)
		if !ok {
			t.Fatalf("%v out of %v", kept, u.Kept)
		}
		if err := sum.Add(u.Weight, params); err != nil {
			t.Fatal(err)
		}
	}
	return sum.Mean()
}

// rungEnd is how a rung ends by these updates.
func rungEnd(t testing.TB, rung int, kept []int, updates ...Received) task.RungContent {
	t.Helper()
	c := task.RungContent{Roster: theRoster(t).CID}
	var list []task.Update
	for _, r := range updates {
		c.Updates = append(c.Updates, r.CID)
		list = append(list, r.Body.(task.Update))
	}
	c.End = searching().End(rung, kept, list)
	return c
}

// climbed is the proof of it.
func climbed(t testing.TB, rung int, kept []int, updates ...Received) Received {
	return certificate(t, task.TopicOfRung(rung), rungEnd(t, rung, kept, updates...))
}

var three = []int{0, 1, 2}

// at is node 0's machine once it holds what it needs to train, and these.
func at(t testing.TB, records ...Received) *Member {
	t.Helper()
	m := New(nodes[0], taskID, searching())
	m.Restore(second, append([]Received{opened(t, 0, 1, 2), enrolled(0), enrolled(1), enrolled(2)}, records...))
	m.adopt(second)
	return m
}

// all are everyone's updates of a round.
func all(t testing.TB, round uint64, kept ...int) (list []Received) {
	for i := range nodes {
		list = append(list, searched(t, i, round, kept...))
	}
	return list
}

func TestARungEnds(t *testing.T) {
	tk := searching()
	m := started(t, 0, tk)
	for round := uint64(1); round <= 3; round++ {
		none(t, m.Step(second, searched(t, 1, round, three...)))
		none(t, m.Step(second, searched(t, 2, round, three...)))
		u := only[Publish](t, m.Step(second, Trained{Round: round, Kept: three, Params: make([]float64, tk.Length(three)), Losses: []float64{3, 1, 2}, Rows: 2})).Body.(task.Update)
		if !slices.Equal(u.Kept, three) || !slices.Equal(u.Losses, []float64{3, 1, 2}) || u.Rows != 2 {
			t.Errorf("published %+v", u)
		}
		effects := m.Step(second, searched(t, 0, round, three...))
		if round < 3 {
			train := only[Train](t, effects)
			if train.Round != round+1 || !slices.Equal(train.Kept, three) || !slices.Equal(train.From, mixed(t, three, all(t, round, three...)...)) ||
				!slices.Equal(train.Own, searched(t, 0, round, three...).Body.(task.Update).Params) {
				t.Fatalf("trains %+v", train)
			}
		} else if len(of[Train](effects)) > 0 {
			t.Fatal("begins round 4 before the rung has ended")
		}
	}
	// Waiting changes nothing.
	for now := second; now < time.Minute; now += second {
		if train := of[Train](m.Step(now, Tick{})); len(train) > 0 {
			t.Fatalf("begins round %d before the rung has ended", train[0].Round)
		}
	}
	if missing, quorum := m.Undecided(); len(missing) == 0 || quorum != agree.Quorum(len(nodes)) || m.Stage() != Training {
		t.Errorf("%s: a quorum of %d lacks %v", m.Stage(), quorum, missing)
	}
	// The losses are 3, 1 and 2, a perceptron's the smallest by far.
	end := rungEnd(t, 0, three, all(t, 3, three...)...)
	if !slices.Equal(end.End.Kept, []int{1, 2}) || end.End.Nodes != 3 {
		t.Fatalf("%+v", end)
	}
	train := only[Train](t, m.Step(time.Minute, certificate(t, task.TopicOfRung(0), end)))
	if train.Round != 4 || !slices.Equal(train.Kept, []int{1, 2}) || !slices.Equal(m.Kept(), train.Kept) ||
		!slices.Equal(train.From, mixed(t, train.Kept, all(t, 3, three...)...)) {
		t.Errorf("goes on with round %d and candidates %v from %v", train.Round, train.Kept, train.From)
	}
	own := searched(t, 0, 3, three...).Body.(task.Update)
	if want, _ := tk.Project(own.Params, three, train.Kept); !slices.Equal(train.Own, want) {
		t.Errorf("its own newest is %v, want %v", train.Own, want)
	}
}

// Somebody who follows, and holds all votes but no proof of what they decided, has
// taken up every decision after one event: nothing else may come.
func TestAFollowerTakesUpAllDecisions(t *testing.T) {
	records := []Received{opened(t, 0, 1, 2), enrolled(0), enrolled(1), enrolled(2)}
	kept := three
	for rung, r := range searching().Search.Rungs {
		updates := all(t, r.Round, kept...)
		end := rungEnd(t, rung, kept, updates...)
		content, err := record.Encode(end)
		if err != nil {
			t.Fatal(err)
		}
		topic := task.TopicOfRung(rung)
		proposer := agree.New(stranger, nodes, task.BallotSeed(taskID)).Proposer(0)
		records = append(records, updates...)
		for _, phase := range []agree.Phase{agree.Proposal, agree.Prevote, agree.Precommit} {
			records = append(records, votes(topic, phase, proposer, content)...)
		}
		kept = end.End.Kept
	}
	m := New(stranger, taskID, searching())
	m.Restore(second, records)
	m.Step(second, Tick{})
	if !slices.Equal(m.Kept(), kept) {
		t.Errorf("candidates %v are in the search after one event, want %v", m.Kept(), kept)
	}
}

// A rung's end is proposed by whoever is at its last round, once it holds everyone's
// losses of it who is not silent.
func TestWhenARungIsProposed(t *testing.T) {
	other := func(i int, kept ...int) Received { return searched(t, i, 3, kept...) }
	for name, c := range map[string]struct {
		held []Received
		at   time.Duration
		want []Received // whose losses count; none: it is not proposed
	}{
		"all":                         {all(t, 3, three...), second, all(t, 3, three...)},
		"one on its way":              {all(t, 3, three...)[:2], never - 1, nil},
		"one that is silent":          {all(t, 3, three...)[:2], never, all(t, 3, three...)[:2]},
		"one that has left":           {append(all(t, 3, three...), left(1)), second, []Received{other(0, three...), other(2, three...)}},
		"the node itself is behind":   {append(all(t, 3, three...)[1:], searched(t, 0, 2, three...)), time.Hour, nil},
		"too few":                     {all(t, 3, three...)[:1], time.Hour, nil},
		"one of other candidates":     {append(all(t, 3, three...)[:2], other(2, 0, 2)), second, nil},
		"and who is silent":           {append(all(t, 3, three...)[:2], other(2, 0, 2)), never, all(t, 3, three...)[:2]},
		"one that is further":         {append(all(t, 3, three...), searched(t, 2, 4, 1, 2)), second, all(t, 3, three...)},
		"one that has left rounds":    {append(all(t, 3, three...)[:2], searched(t, 2, 4, 1, 2)), second, nil},
		"one a round further for all": {append(all(t, 3, three...)[:2], searched(t, 2, 4, three...)), second, nil},
	} {
		m := at(t, c.held...)
		m.rounds.busy = false
		app := func(now time.Duration) agree.Application { return m.rungApplication(now, 0) }
		app(second).Propose() // whom it waits for from now on
		content, ok := app(c.at).Propose()
		if ok != (c.want != nil) {
			t.Errorf("%s: proposed is %v", name, ok)
		} else if ok {
			if want := m.encode(rungEnd(t, 0, three, c.want...)); string(content) != string(want) {
				t.Errorf("%s: proposes %q, want %q", name, content, want)
			}
			// It finds it good itself.
			if verdict := app(c.at).Judge(content); verdict != agree.Good {
				t.Errorf("%s: verdict %d on its own", name, verdict)
			}
		}
	}
}

func TestJudgingARung(t *testing.T) {
	good := func() task.RungContent { return rungEnd(t, 0, three, all(t, 3, three...)...) }
	without := func(i int) task.RungContent {
		return rungEnd(t, 0, three, slices.Delete(all(t, 3, three...), i, i+1)...)
	}
	change := func(edit func(*task.RungContent)) task.RungContent {
		c := good()
		edit(&c)
		return c
	}
	const bad, pending, fine = agree.Bad, agree.Pending, agree.Good
	held := all(t, 3, three...)
	behind := append(held[1:3:3], searched(t, 0, 2, three...))
	for _, c := range []struct {
		name    string
		held    []Received
		content task.RungContent
		live    agree.Verdict // while node 2 may give a sign
		silent  agree.Verdict // once it has given none
	}{
		{"all", held, good(), fine, fine},
		{"a live node left out", held, without(2), pending, fine},
		{"one that is not here", held[:2], good(), pending, pending},
		{"one left out that is not here", held[:2], without(2), pending, fine},
		{"the node itself is left out", held, without(0), pending, pending},
		{"the node is behind", behind, good(), pending, pending},
		{"one alone", held, rungEnd(t, 0, three, held[0]), pending, pending},
		{"nobody", held, change(func(c *task.RungContent) { c.Updates = nil }), bad, bad},
		{"one twice", held, change(func(c *task.RungContent) { c.Updates[1] = c.Updates[0] }), pending, pending},
		{"more than there are", held, change(func(c *task.RungContent) { c.Updates = append(c.Updates, name(1)) }), bad, bad},
		{"another order", held, change(func(c *task.RungContent) { slices.Reverse(c.Updates) }), pending, pending},
		{"another update", held, change(func(c *task.RungContent) { c.Updates[1] = name("another") }), pending, pending},
		{"another roster", held, change(func(c *task.RungContent) { c.Roster = name("another") }), bad, bad},
		{"another loss", held, change(func(c *task.RungContent) { c.End.Losses[1] += 1e-12 }), bad, bad},
		{"others kept", held, change(func(c *task.RungContent) { c.End.Kept = []int{0, 2} }), bad, bad},
		{"all kept", held, change(func(c *task.RungContent) { c.End.Kept = three }), bad, bad},
		{"none kept", held, change(func(c *task.RungContent) { c.End.Kept = nil }), bad, bad},
		{"what there is not", held, change(func(c *task.RungContent) { c.End.Kept = []int{1, 99} }), bad, bad},
		{"other nodes counted", held, change(func(c *task.RungContent) { c.End.Nodes = 2 }), bad, bad},
	} {
		m := at(t, c.held...)
		m.rounds.busy = false
		content := m.encode(c.content)
		if got := m.rungApplication(second, 0).Judge(content); got != c.live {
			t.Errorf("%s: %d, want %d", c.name, got, c.live)
		}
		if got := m.rungApplication(time.Hour, 0).Judge(content); got != c.silent {
			t.Errorf("%s, and node 2 silent: %d, want %d", c.name, got, c.silent)
		}
	}
	m := at(t, held...)
	for name, content := range map[string][]byte{"garbage": []byte("a lie"), "nothing": nil, "a byte more": append(m.encode(good()), 0)} {
		if got := m.rungApplication(second, 0).Judge(content); got != bad {
			t.Errorf("%s: %d", name, got)
		}
	}
}

// Nobody goes beyond a rung, however far ahead somebody claims to be.
func TestNobodyJumpsOverARung(t *testing.T) {
	for _, ahead := range []uint64{3, 4, 9, 19} {
		m := at(t, searched(t, 0, 1, three...), searched(t, 1, 1, three...), searched(t, 2, ahead, three...))
		train := of[Train](m.Step(second, Tick{}))
		for now := second; len(train) == 0 && now < time.Hour; now += second {
			train = of[Train](m.Step(now, Tick{}))
		}
		if len(train) != 1 || train[0].Round > 3 || train[0].Round < 2 || !slices.Equal(train[0].Kept, three) {
			t.Errorf("one claims to be at round %d: trains %+v", ahead, train)
		}
	}
}

// Updates of those who know already how a rung has ended wait until it is known here.
func TestUpdatesFromBeyondARungWait(t *testing.T) {
	held := append(all(t, 3, three...), searched(t, 1, 4, 1, 2), searched(t, 2, 4, 1, 2))
	end := climbed(t, 0, three, all(t, 3, three...)...)
	for i := range 20 {
		m := at(t)
		order := slices.Clone(held)
		for k := range order { // some of the orders in which they may come
			j := (k*7 + i*3) % len(order)
			order[k], order[j] = order[j], order[k]
		}
		m.Restore(second, order)
		m.rounds.busy = false
		if train := of[Train](m.Step(second, Tick{})); len(train) > 0 || m.RoundOf(nodes[1]) > 3 {
			t.Fatalf("order %d: trains %v, node 1 is at round %d", i, train, m.RoundOf(nodes[1]))
		}
		train := only[Train](t, m.Step(second, end))
		if train.Round != 4 || !slices.Equal(train.Kept, []int{1, 2}) || m.RoundOf(nodes[1]) != 4 || m.RoundOf(nodes[2]) != 4 {
			t.Errorf("order %d: trains round %d of %v, the others are at %d and %d", i, train.Round, train.Kept, m.RoundOf(nodes[1]), m.RoundOf(nodes[2]))
		}
		if want := mixed(t, train.Kept, all(t, 3, three...)...); !slices.Equal(train.From, want) {
			t.Errorf("order %d: from %v, want %v", i, train.From, want)
		}
	}
}

// A node that has lost how a rung ended signs nothing that it may have signed before.
func TestAStoreThatLacksTheEndOfARung(t *testing.T) {
	end := climbed(t, 0, three, all(t, 3, three...)...)
	m := at(t, searched(t, 0, 5, 1, 2), searched(t, 0, 4, 1, 2), searched(t, 1, 1, three...), searched(t, 2, 1, three...))
	for now := second; now < time.Hour; now += time.Minute {
		if train := of[Train](m.Step(now, Tick{})); len(train) > 0 {
			t.Fatalf("begins round %d, and has ended round 5", train[0].Round)
		}
	}
	m.Step(time.Hour, end)
	if train := only[Train](t, m.Step(2*time.Hour, Tick{})); train.Round != 6 || !slices.Equal(train.Kept, []int{1, 2}) {
		t.Errorf("goes on with round %d of %v", train.Round, train.Kept)
	}
}

// A node that was cut off while a rung ended goes on with what is left, and what it
// was at counts for that.
func TestCutOffDuringARung(t *testing.T) {
	tk := searching()
	m := at(t, searched(t, 0, 1, three...), searched(t, 1, 1, three...), searched(t, 2, 1, three...))
	if train := only[Train](t, m.Step(second, Tick{})); train.Round != 2 {
		t.Fatalf("trains round %d", train.Round)
	}
	end := climbed(t, 0, three, searched(t, 1, 3, three...), searched(t, 2, 3, three...))
	none(t, m.Step(2*second, end)) // while it is at work
	if !slices.Equal(m.Kept(), []int{1, 2}) {
		t.Errorf("candidates %v are left", m.Kept())
	}
	for _, i := range []int{1, 2} {
		none(t, m.Step(2*second, searched(t, i, 4, 1, 2)))
	}
	publish := only[Publish](t, m.Step(2*second, Trained{Round: 2, Kept: three, Params: make([]float64, tk.Length(three))}))
	if u := publish.Body.(task.Update); !slices.Equal(u.Kept, three) || len(u.Params) != tk.Length(three) || u.Losses != nil {
		t.Errorf("publishes candidates %v with %d numbers", u.Kept, len(u.Params))
	}
	train := only[Train](t, m.Step(2*second, searched(t, 0, 2, three...)))
	if train.Round != 4 || !slices.Equal(train.Kept, []int{1, 2}) ||
		!slices.Equal(train.From, mixed(t, train.Kept, searched(t, 0, 2, three...), searched(t, 1, 4, 1, 2), searched(t, 2, 4, 1, 2))) {
		t.Errorf("goes on with round %d of %v", train.Round, train.Kept)
	}
	// Losses that it finds for a rung that has ended are nobody's any more.
	m = at(t, searched(t, 0, 2, three...), end, searched(t, 1, 3, three...), searched(t, 2, 3, three...))
	m.rounds.busy = false
	m.Step(second, Tick{})
	m.Step(second, searched(t, 0, 3, three...))
	if u := m.seats[0].at(3); u == nil || u.Losses != nil || !slices.Equal(u.Kept, []int{1, 2}) {
		t.Errorf("holds %+v", u)
	}
}

// What a hostile node tells of other candidates, or as losses, does not part the
// honest ones: they hold it alike, whenever it came.
func TestHostileUpdatesAreHeldAlike(t *testing.T) {
	tk := searching()
	ends := []Received{
		climbed(t, 0, three, all(t, 3, three...)...),
		climbed(t, 1, []int{1, 2}, all(t, 6, 1, 2)...),
	}
	for name, lie := range map[string]Received{
		"all candidates at the second rung": searched(t, 2, 6, three...),
		"others than are left":              searched(t, 2, 6, 0, 1),
		"one of them":                       searched(t, 2, 6, 2),
		"those that are left":               searched(t, 2, 6, 1, 2),
		"none of them":                      searched(t, 2, 6, 0),
		"far ahead":                         searched(t, 2, 17, three...),
	} {
		var seen []string
		records := []Received{ends[0], lie, searched(t, 0, 6, 1, 2), searched(t, 1, 6, 1, 2), searched(t, 2, 5, 1, 2)}
		for first := range records {
			order := append(slices.Clone(records[first:]), records[:first]...)
			m := at(t, order...)
			m.rounds.busy = false
			m.adopt(second)
			var held []string
			for _, s := range m.seats {
				for _, u := range s.updates {
					if !slices.Equal(u.Kept, m.kept) || len(u.Params) != tk.Length(m.kept) {
						t.Fatalf("%s: holds candidates %v with %d numbers, where %v are left", name, u.Kept, len(u.Params), m.kept)
					}
					held = append(held, fmt.Sprint(s.id[0], u.Round, u.Losses, u.Params))
				}
			}
			seen = append(seen, fmt.Sprint(held))
		}
		for _, s := range seen[1:] {
			if s != seen[0] {
				t.Errorf("%s: held as\n%s\nand as\n%s", name, seen[0], s)
			}
		}
	}
	// Losses of other candidates than are left are none, and nobody waits for better.
	wide := searched(t, 2, 6, three...)
	m := at(t, ends[0], searched(t, 0, 6, 1, 2), searched(t, 1, 6, 1, 2), wide)
	m.rounds.busy = false
	want := m.encode(rungEnd(t, 1, []int{1, 2}, searched(t, 0, 6, 1, 2), searched(t, 1, 6, 1, 2)))
	if content, ok := m.rungApplication(second, 1).Propose(); !ok || string(content) != string(want) {
		t.Errorf("proposes %q, want %q", content, want)
	}
	if verdict := m.rungApplication(second, 1).Judge(want); verdict != agree.Good {
		t.Errorf("verdict %d", verdict)
	}
	// A loss is the word of its author, and moves nothing but the mean.
	liar := searched(t, 2, 3, three...)
	u := liar.Body.(task.Update)
	u.Losses = []float64{0, task.MaxLoss, task.MaxLoss}
	liar.Body = u
	a := rungEnd(t, 0, three, searched(t, 0, 3, three...), searched(t, 1, 3, three...), liar)
	m = at(t, searched(t, 0, 3, three...), searched(t, 1, 3, three...), liar)
	m.rounds.busy = false
	if content, ok := m.rungApplication(second, 0).Propose(); !ok || string(content) != string(m.encode(a)) {
		t.Errorf("proposes %q", content)
	}
}

// A late node takes up how the rungs have ended before it trains.
func TestALateNodeJoinsASearch(t *testing.T) {
	m := New(nodes[2], taskID, searching())
	for _, r := range []Received{
		opened(t, 0, 1), enrolled(0), enrolled(1), climbed(t, 0, three, all(t, 3, three...)[:2]...),
		climbed(t, 1, []int{1, 2}, all(t, 6, 1, 2)[:2]...),
	} {
		c, ok := r.Body.(Certificate)
		if ok && c.Topic != task.TopicRoster { // of that roster
			var content task.RungContent
			decode(t, c.Content, &content)
			content.Roster = rosterOf(t, 0, 1).CID
			r = certificate(t, c.Topic, content)
		}
		m.Step(second, r)
	}
	if !slices.Equal(m.Kept(), []int{1}) {
		t.Fatalf("candidates %v are left", m.Kept())
	}
	for _, i := range []int{0, 1} {
		r := searched(t, i, 7, 1)
		u := r.Body.(task.Update)
		u.Roster = rosterOf(t, 0, 1).CID
		r.Body = u
		m.Step(second, r)
	}
	train := only[Train](t, m.Step(second, enrolled(2)))
	if train.Round != 7 || !slices.Equal(train.Kept, []int{1}) || !slices.Equal(train.From, mixed(t, []int{1}, searched(t, 0, 7, 1), searched(t, 1, 7, 1))) {
		t.Errorf("trains round %d of %v from %v", train.Round, train.Kept, train.From)
	}
	// Alone and from the start, it sets out from what is left of the first vector.
	tk := searching()
	m = New(nodes[2], taskID, tk)
	want, _ := tk.Project(tk.First(nil), three, []int{1})
	m.Restore(second, []Received{opened(t, 0, 1, 2), enrolled(0), enrolled(1), enrolled(2), climbed(t, 0, three, all(t, 3, three...)...), climbed(t, 1, []int{1, 2}, all(t, 6, 1, 2)...)})
	if train := only[Train](t, m.Step(second, Tick{})); train.Round != 1 || !slices.Equal(train.From, want) {
		t.Errorf("trains round %d from %v, want %v", train.Round, train.From, want)
	}
}

// The end of a search says how it went, and no other end is good.
func TestFinalSetsOfASearch(t *testing.T) {
	ends := []Received{climbed(t, 0, three, all(t, 3, three...)...), climbed(t, 1, []int{1, 2}, all(t, 6, 1, 2)...)}
	m := at(t, append(ends, all(t, 20, 1)...)...)
	m.rounds.busy = false
	m.adopt(second)
	got, ready := m.finalSet(second)
	if !ready || got.Chosen != 1 || len(got.Ends) != 2 || len(got.Parts) != 3 || !reflect.DeepEqual(got.Ends, m.ends) {
		t.Fatalf("%+v, %v", got, ready)
	}
	app := m.finalApplication(second)
	if _, ok := app.Propose(); ok {
		t.Fatal("proposed before the model is made")
	}
	made := only[Make](t, m.queue)
	want, _ := searching().Project(mixed(t, []int{1}, all(t, 20, 1)...), []int{1}, []int{1})
	if !slices.Equal(made.Model.Params, want) || made.Model.Candidate != 1 || !made.Model.Spec.Equal(searching().SpecOf(1)) {
		t.Errorf("makes %+v", made.Model)
	}
	m.noteModel(Made{Set: made.Set, Model: name("model"), Inputs: name("inputs")})
	got.Model, got.Inputs = name("model"), name("inputs")
	for what, c := range map[string]struct {
		edit func(*task.FinalContent)
		want agree.Verdict
	}{
		"as it is":       {func(*task.FinalContent) {}, agree.Good},
		"another choice": {func(c *task.FinalContent) { c.Chosen = 2 }, agree.Bad},
		"an end less":    {func(c *task.FinalContent) { c.Ends = c.Ends[:1] }, agree.Bad},
		"another loss": {func(c *task.FinalContent) {
			c.Ends = slices.Clone(c.Ends)
			c.Ends[0].Losses = []float64{1, 1, 1}
		}, agree.Bad},
		"others kept": {func(c *task.FinalContent) {
			c.Ends = slices.Clone(c.Ends)
			c.Ends[0].Kept = []int{0, 1}
		}, agree.Bad},
		"another model": {func(c *task.FinalContent) { c.Model = name("another") }, agree.Bad},
	} {
		content := got
		c.edit(&content)
		if verdict := app.Judge(m.encode(content)); verdict != c.want {
			t.Errorf("%s: %d, want %d", what, verdict, c.want)
		}
	}
	// Before the search has come to its end, nothing is.
	m = at(t, append(ends[:1:1], all(t, 20, 1, 2)...)...)
	m.rounds.busy = false
	m.adopt(second)
	if _, ready := m.finalSet(second); ready || m.finalApplication(second).Judge(m.encode(got)) != agree.Pending {
		t.Error("a final set before the last rung has ended")
	}
}

func decode(t testing.TB, b []byte, v any) {
	t.Helper()
	if err := record.Decode(b, v); err != nil {
		t.Fatal(err)
	}
}
