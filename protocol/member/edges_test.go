package member

import (
	"errors"
	"slices"
	"testing"
	"time"

	"village/protocol/agree"
	"village/protocol/learn"
	"village/protocol/mixing"
	"village/protocol/task"
)

// The tests of this file are of single conditions that whole histories pass by:
// what goes wrong without them is rare, or costs only time.

// machine is that of the first of n nodes under a rule, which all take part.
func machine(t *testing.T, rule string, n int, cfg RoundsConfig) *Rounds {
	t.Helper()
	graph, err := mixing.New(rule, n, 7)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Graph, cfg.Nodes, cfg.Rounds = graph, n, 100
	cfg.Start = func() []float64 { return []float64{0} }
	r := NewRounds(cfg)
	for _, p := range r.peers {
		p.part = true
	}
	return r
}

func at1(round uint64) *Update {
	return &Update{Round: round, Previous: round - 1, Weight: 1, Params: []float64{1}}
}

// Updates that say they have settled do not end a task that knows no tolerance.
func TestWithoutAToleranceNothingEndsEarly(t *testing.T) {
	m := New(nodes[0], taskID, newTask(20))
	held := []Received{opened(t, 0, 1, 2), enrolled(0), enrolled(1), enrolled(2)}
	for i := range nodes {
		held = append(held, edited(updated(t, i, 10), settled))
	}
	m.Restore(second, held)
	if train := of[Train](m.Step(second, Tick{})); len(train) != 1 || train[0].Round != 11 {
		t.Errorf("trains %+v", train)
	}
	if c, ready := m.finalSet(second); ready {
		t.Errorf("would end with %+v", c)
	}
	// Nor does the same mix twice make an update settled.
	for i := range nodes {
		if i > 0 {
			m.Step(second, edited(updated(t, i, 11), func(u *task.Update) { u.Params = vector(i, 10) }))
		}
	}
	m.Step(second, Trained{Round: 11, Params: vector(0, 10)})
	train := of[Train](m.Step(second, edited(updated(t, 0, 11), func(u *task.Update) { u.Params = vector(0, 10) })))
	if len(train) != 1 {
		t.Fatalf("trains %+v", train)
	}
	if u := only[Publish](t, m.Step(second, Trained{Round: 12, Params: vector(0, 12)})).Body.(task.Update); u.Settled {
		t.Error("settled, in a task without a tolerance")
	}
}

// One that has left early still helps the others to decide.
func TestOneThatHasLeftIsNotBehind(t *testing.T) {
	m := table(t, 5, 20, 20)
	m.Step(second, left(0))
	c, ready := m.finalSet(second)
	if !ready || len(c.Parts) != 2 || c.Out[0] != (task.Out{Node: nodes[0], Round: 5, Why: task.Left}) {
		t.Errorf("ready is %v, %+v", ready, c)
	}
}

// Judging waits for an enrolment that others have.
func TestJudgingWaitsForAnEnrolment(t *testing.T) {
	m := New(nodes[0], taskID, newTask(7))
	m.Restore(second, []Received{opened(t, 0, 1), enrolled(0), enrolled(1), lateUpdate(t, 0, 7), lateUpdate(t, 1, 7)})
	m.Step(second, Tick{})
	c := task.FinalContent{Round: 7, Roster: rosterOf(t, 0, 1).CID, Out: []task.Out{}}
	for i := range nodes {
		c.Parts = append(c.Parts, task.Part{Node: nodes[i], Enrolment: enrolled(i).CID, Update: lateUpdate(t, i, 7).CID, Round: 7, Weight: weight(i)})
	}
	if v := m.judge(second, c); v != agree.Pending {
		t.Errorf("verdict %d without the enrolment", v)
	}
	m.Step(second, enrolled(2))
	if v := m.judge(second, c); v != agree.Pending {
		t.Errorf("verdict %d without the update", v)
	}
	m.Step(second, lateUpdate(t, 2, 7))
	if v := m.judge(second, c); v != agree.Good {
		t.Errorf("verdict %d", v)
	}
}

// A round that ends after the model is decided on is nobody's.
func TestTrainedAfterTheSeal(t *testing.T) {
	m := started(t, 0, newTask(3))
	for i := 1; i < 3; i++ {
		m.Step(second, updated(t, i, 3))
	}
	c := final(t, 3, name("model"))
	m.Step(second, certificate(t, task.TopicFinal, c))
	if effects := m.Step(second, Trained{Round: 1, Params: vector(0, 1)}); len(of[Publish](effects)) != 0 {
		t.Errorf("effects %+v", effects)
	}
}

// Results are computed once, and anew when something has come that they tell.
func TestResultsFollowWhatComes(t *testing.T) {
	model := name("model")
	c := final(t, 1, model)
	c.Parts, c.Out = c.Parts[:2], []task.Out{{Node: nodes[2], Why: task.Absent}}
	c.Roster = rosterOf(t, 0, 1).CID
	for i := range c.Parts {
		c.Parts[i].Update = lateUpdate(t, i, 1).CID
	}
	m := New(nodes[0], taskID, newTask(1))
	m.Restore(second, []Received{
		certificate(t, task.TopicFinal, c), opened(t, 0, 1), enrolled(0), enrolled(1), lateUpdate(t, 0, 1), lateUpdate(t, 1, 1), evaluated(0, model),
	})
	make := only[Make](t, m.Step(second, Tick{}))
	m.Step(second, Made{Set: make.Set, Model: model, Inputs: name("inputs")})
	for i, e := range []Event{Tick{}, evaluated(1, model), enrolled(2)} {
		m.Step(second, e)
		r, err := m.Results()
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Nodes) != min(i+1, 2) || (r.Contributions[2].Nation == "HUN") != (i == 2) {
			t.Errorf("after event %d: %d evaluations, %+v", i+1, len(r.Nodes), r.Contributions[2])
		}
	}
}

func TestTheEarliestWakeCounts(t *testing.T) {
	m := New(nodes[0], taskID, newTask(3))
	for _, at := range []time.Duration{5, 3, 9, 3} {
		m.wakeAt(at)
	}
	if m.wake != 3 {
		t.Errorf("wakes at %v", m.wake)
	}
}

func TestNobodyWaitsForItself(t *testing.T) {
	m := started(t, 0, newTask(3))
	if got := m.WaitingFor(); !slices.Equal(got, nodes[1:]) {
		t.Errorf("waits for %v", got)
	}
}

func TestTakeTellsWhatIsNew(t *testing.T) {
	r := machine(t, "ring", 4, RoundsConfig{Own: 0})
	for _, c := range []struct {
		round uint64
		want  bool
	}{{3, true}, {3, false}, {5, true}, {5, false}, {4, true}, {3, false}, {2, false}, {6, true}} {
		if got := r.Take(1, 1, at1(c.round)); got != c.want {
			t.Errorf("round %d is new: %v", c.round, got)
		}
	}
}

// How long a round takes is learnt from rounds, and not from the time that a node
// takes until its first.
func TestTheFirstUpdateTellsNoPace(t *testing.T) {
	r := machine(t, "ring", 4, RoundsConfig{Own: 0})
	r.Take(time.Hour, 0, at1(1))
	if r.takes != 0 {
		t.Errorf("a round takes %v after the first", r.takes)
	}
	r.Take(time.Hour+second, 0, at1(2))
	if r.takes != second {
		t.Errorf("a round takes %v", r.takes)
	}
	// One that takes more than twice as long counts as twice.
	r.Take(time.Hour+4*second, 0, at1(3))
	if want := (3*second + 2*second) / 4; r.takes != want {
		t.Errorf("a round takes %v, want %v", r.takes, want)
	}
}

// Where no quorum is asked for, nobody is cut off, and rounds are as fast as may be.
func TestWithoutAQuorumNobodyIsCutOff(t *testing.T) {
	r := machine(t, mixing.All, 3, RoundsConfig{Own: 0, All: true})
	now := time.Duration(1)
	for round := uint64(1); round <= 4; round++ {
		if got, _, ok := r.Next(now); !ok || got != round {
			t.Fatalf("at %v begins %d, %v", now, got, ok)
		}
		now += 10 * second
		for i := range 3 {
			r.Take(now, i, at1(round))
		}
	}
}

// A neighbour of the next round that is there already is not forgotten; one whom
// the node does not meet soon is.
func TestWhoIsForgotten(t *testing.T) {
	r := machine(t, "random", 8, RoundsConfig{Own: 0})
	meets := func(round uint64) int { return r.cfg.Graph.Edges(round, 0, nil)[0].Node }
	own := uint64(1)
	for meets(own) == meets(own+1) {
		own++
	}
	soon, far := []int{meets(own), meets(own + 1)}, 1
	for slices.Contains(soon, far) {
		far++
	}
	for _, i := range append(soon, far) {
		r.Take(1, i, at1(own))
	}
	r.Take(2, 0, at1(own))
	var held []int
	r.Updates(func(from int, _ *Update) { held = append(held, from) })
	want := append(slices.Clone(soon), 0)
	if slices.Sort(want); !slices.Equal(held, want) {
		t.Errorf("holds updates of %v, want %v", held, want)
	}
}

// Where half of the others are, those who take no part do not say.
func TestWhereTheOthersAre(t *testing.T) {
	r := machine(t, mixing.All, 6, RoundsConfig{Own: 0, All: true})
	for i := range 6 {
		r.peers[i].part = i < 3
	}
	r.Take(1, 1, at1(40))
	r.Take(1, 2, at1(40))
	if got := r.reached(1); got != 40 {
		t.Errorf("two of two are at 40, and they have reached %d", got)
	}
	// Of two neighbours both have to be there.
	r = machine(t, "ring", 6, RoundsConfig{Own: 0})
	r.Take(1, 1, at1(40))
	r.Take(1, 5, at1(3))
	if got := r.reached(1); got != 3 {
		t.Errorf("one of two neighbours is at 40, and they have reached %d", got)
	}
}

// One that jumps to where half of the others are does not wait for the rest.
func TestAJumpDoesNotWait(t *testing.T) {
	m := started(t, 0, newTask(90))
	none(t, m.Step(second, updated(t, 1, 50)))
	none(t, m.Step(second, beacon(2)))
	only[Publish](t, m.Step(second, Trained{Round: 1, Params: vector(0, 1)}))
	train := of[Train](m.Step(second, updated(t, 0, 1)))
	if len(train) != 1 || train[0].Round != 50 {
		t.Errorf("trains %+v", train)
	}
}

// A simulation pulls what is owing.
func TestOwing(t *testing.T) {
	r := machine(t, "ring", 6, RoundsConfig{Own: 0})
	owing := func(want ...int) {
		t.Helper()
		if got := r.Owing(nil); !slices.Equal(got, want) {
			t.Errorf("owing are %v, want %v", got, want)
		}
	}
	owing() // before the first round
	r.Next(1)
	owing() // while it lasts
	r.Take(1, 0, at1(1))
	owing(1, 5)
	r.busy = true
	owing() // while the next one lasts
	r.busy = false
	r.Take(1, 5, at1(1))
	owing(1)
	r.Take(1, 1, at1(2)) // its round 1 was overtaken, and exists
	owing(1)
	r.Take(1, 1, at1(1))
	owing()
	r.cfg.Rounds = 1
	r.peers[1].updates = nil
	owing() // at the end
}

// A row whose target is missing is no row to train on.
func TestRowsWithoutATargetAreLeftOut(t *testing.T) {
	table := rows(1, 100)
	whole := newSite(t, 0, newTask(5), table)
	table.Rows = append(table.Rows, []string{"1", "", "train"}, []string{"1", "", "test"})
	s := newSite(t, 0, newTask(5), table)
	train, test := s.Rows()
	if a, b := whole.Rows(); train != a || test != b || s.LeftOut()["missing target"] != 2 {
		t.Errorf("%d and %d rows, %v", train, test, s.LeftOut())
	}
}

// Peers refuse an update with losses that none were due of.
func TestLossesAreToldOfASearchAlone(t *testing.T) {
	tk := newTask(5)
	tk.Scaffold = true
	s := newSite(t, 0, tk, rows(1, 60))
	out, err := s.Train(Train{Round: 1, From: tk.First(nil), Kept: everyone, Roster: sitesRoster(t, s)}, nil)
	if err != nil || out.Losses != nil || out.Rows != 0 || out.Kept != nil {
		t.Errorf("trained %+v, %v", out, err)
	}
}

// A candidate loses by diverging, and by nothing else; the last one cannot lose.
func TestWhatMakesACandidateLose(t *testing.T) {
	tk := choosing()
	tk.Search.Candidates[0].LearningRate, tk.Search.Candidates[0].L2 = 1e6, 1e6
	s := newSite(t, 0, tk, rows(1, 60))
	train := Train{Round: 1, From: tk.First(nil), Kept: three, Roster: sitesRoster(t, s)}
	stop := errors.New("stop")
	if _, err := s.Train(train, func() error { return stop }); !errors.Is(err, stop) {
		t.Errorf("stopped with %v", err)
	}
	if _, err := s.Train(train, nil); err != nil {
		t.Error(err)
	}
	train.Kept = []int{0}
	train.From, _ = tk.Project(train.From, three, train.Kept)
	if _, err := s.Train(train, nil); !errors.Is(err, learn.ErrDiverged) {
		t.Errorf("alone it ends with %v", err)
	}
}

// A candidate is judged as each node will use it: with a part of the node's own.
func TestLossesAreOfTheFittedModel(t *testing.T) {
	tk := choosing()
	tk.Personal = learn.Bias
	s := newSite(t, 0, tk, rows(1, 60))
	from := tk.First(nil)
	out, err := s.Train(Train{Round: tk.Search.Rungs[0].Round, From: from, Kept: three, Roster: sitesRoster(t, s)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec, params := tk.SpecOf(0), tk.States(three, from)[0].Params
	fitted, err := spec.Fit(params, s.fit, learn.Bias, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want, bare := spec.Loss(fitted, s.judge, 0), spec.Loss(params, s.judge, 0); out.Losses[0] != want || want == bare {
		t.Errorf("loss %v, want %v and not %v", out.Losses[0], want, bare)
	}
}

func TestEvaluationsTellGroupsApart(t *testing.T) {
	tk := newTask(5)
	tk.Encoding.Sensitive, tk.Encoding.Groups = "sex", []string{"f", "m"}
	table := rows(1, 60)
	table.Columns = append(table.Columns, "sex")
	for i := range table.Rows {
		table.Rows[i] = append(table.Rows[i], tk.Encoding.Groups[i/4%2])
	}
	s := newSite(t, 0, tk, table)
	e, err := s.Evaluate(Evaluate{Model: modelOf(tk, 5, sitesRoster(t, s).Scaling, 1, 0)}, nil)
	if err != nil || len(e.Federated.Groups) != 8 {
		t.Fatalf("groups %v, %v", e.Federated.Groups, err)
	}
	for cell, n := range e.Federated.Confusion {
		if f, m := e.Federated.Groups[cell], e.Federated.Groups[4+cell]; f+m != n || f > 8 || m > 8 {
			t.Errorf("of %d in cell %d, %d and %d", n, cell, f, m)
		}
	}
}

func TestNobodyIsSilentToItself(t *testing.T) {
	m := table(t, 5, 5, 5)
	for i := range m.seats {
		m.seats[i].pace.await(second)
	}
	m.Step(time.Hour, Tick{})
	if m.IsSilent(nodes[0]) || !m.IsSilent(nodes[1]) {
		t.Errorf("silent: itself %v, another %v", m.IsSilent(nodes[0]), m.IsSilent(nodes[1]))
	}
}

// A part cannot be of a later round than the last, nor of none.
func TestPartsOfNoRound(t *testing.T) {
	m := table(t, 20, 20, 20)
	for _, round := range []uint64{0, 20} {
		c := final(t, 19, name("model"))
		c.Parts[1].Round, c.Parts[1].Update = round, updated(t, 1, 20).CID
		if v := m.judge(second, c); v != agree.Bad {
			t.Errorf("verdict %d on a part of round %d in a set of round 19", v, round)
		}
	}
}

// Of a silent node an older update may count at an early end, settled or not.
func TestJudgeOfAnEarlyEndWithOneSilent(t *testing.T) {
	tk := newTask(20)
	tk.Tolerance = .1
	m := New(nodes[0], taskID, tk)
	m.Restore(second, []Received{
		opened(t, 0, 1, 2), enrolled(0), enrolled(1), enrolled(2),
		edited(updated(t, 0, 7), settled), edited(updated(t, 1, 7), settled), updated(t, 2, 6),
	})
	m.Step(second, Tick{})
	m.finalSet(second)
	c, ready := m.finalSet(silence)
	if !ready || c.Round != 7 || c.Parts[2].Round != 6 {
		t.Fatalf("ready is %v, %+v", ready, c)
	}
	if v := m.judge(silence, c); v != agree.Good {
		t.Errorf("verdict %d", v)
	}
}

// cutOff is the machine of the first of four nodes, of which one is waited for and
// the others silent at the time now.
func cutOff(t *testing.T) (r *Rounds, now time.Duration) {
	t.Helper()
	r = machine(t, mixing.All, 4, RoundsConfig{Own: 0, All: true, Fewest: func() int { return 3 }})
	r.Take(1, 0, at1(1))
	r.Take(second, 0, at1(2))
	for i := 1; i < 4; i++ {
		r.peers[i].pace.await(1)
	}
	now = 1 + firstPatience
	r.Beacon(now, 1)
	if !r.cutOff(now) {
		t.Fatal("not cut off")
	}
	return r, now
}

func TestWhoIsCutOffWaitsAndLearnsNoPace(t *testing.T) {
	r, now := cutOff(t)
	if round, _, ok := r.Next(now + second); ok {
		t.Errorf("begins round %d, though one that is not silent is awaited", round)
	}
	r, now = cutOff(t)
	before := r.takes
	if r.Take(now, 0, at1(3)); r.takes != before || before == 0 {
		t.Errorf("a round took %v, and takes %v by the wait for the others", before, r.takes)
	}
}

// Next wakes at the earliest time at which one of those who are awaited is silent.
func TestTheFirstToBeSilentWakes(t *testing.T) {
	for _, order := range [][]time.Duration{{1, 2}, {2, 1}} {
		r := machine(t, mixing.All, 3, RoundsConfig{Own: 0, All: true})
		for i, takes := range order {
			r.peers[i+1].pace.takes = takes * 10 * second
		}
		r.Take(1, 0, at1(1))
		if _, _, ok := r.Next(1); ok || r.Wake() != 1+slack*10*second {
			t.Errorf("begins: %v, wakes at %v", ok, r.Wake())
		}
	}
}

func TestWhoIsAwaited(t *testing.T) {
	for own, want := range map[int][]int{0: {1, 5}, -1: {0, 1, 2, 3, 4, 5}} {
		r := machine(t, "ring", 6, RoundsConfig{Own: own, All: true})
		var awaited []int
		for i := range 6 {
			if r.awaits(i, 1) {
				awaited = append(awaited, i)
			}
		}
		if !slices.Equal(awaited, want) {
			t.Errorf("node %d awaits %v, want %v", own, awaited, want)
		}
	}
}

func TestHowFarApartIsWell(t *testing.T) {
	for rule, want := range map[string]uint64{mixing.All: 1, "ring": 1, "base:1": 4, "random": 8} {
		if got := machine(t, rule, 8, RoundsConfig{Own: 0}).apart(); got != want {
			t.Errorf("%s: %d rounds apart, want %d", rule, got, want)
		}
	}
}

func TestWhatIsToldOfANode(t *testing.T) {
	m := New(nodes[2], taskID, newTask(3))
	if _, ok := m.Enrolment(nodes[0]); ok || m.IsSilent(nodes[0]) {
		t.Error("enrolled or silent before it has begun")
	}
	m.Step(second, enrolled(0))
	if e, ok := m.Enrolment(nodes[0]); !ok || e.CID != enrolled(0).CID {
		t.Errorf("enrolment %+v, %v", e, ok)
	}
	m.seats[0].pace.await(second)
	m.Step(time.Hour, Tick{})
	if m.IsSilent(nodes[0]) {
		t.Error("silent before the roster, when the task goes on for nobody")
	}
	if _, ok := m.Enrolment(stranger); ok || m.HasEvaluated(nodes[0]) || m.HasEvaluated(stranger) {
		t.Error("a stranger has enrolled, or somebody has evaluated")
	}
}

// The end of a rung waits for those who take part, and not for one that has never
// enrolled.
func TestARungDoesNotWaitForTheAbsent(t *testing.T) {
	m := New(nodes[0], taskID, searching())
	m.Restore(second, []Received{opened(t, 0, 1), enrolled(0), enrolled(1)})
	m.Step(second, Tick{})
	if m.dispensable(second, 1, 3) || !m.dispensable(second, 2, 3) {
		t.Errorf("waits for one that takes part: %v, for the absent: %v", !m.dispensable(second, 1, 3), !m.dispensable(second, 2, 3))
	}
}
