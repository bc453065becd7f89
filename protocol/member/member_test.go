package member

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/mixing"
	"village/protocol/record"
	"village/protocol/task"
)

var (
	nodes    = []record.NodeID{{1}, {2}, {3}} // named in the task
	stranger = record.NodeID{9}
	taskID   = record.CIDOf([]byte("task"))
)

// newTask is a task of two parameters.
func newTask(rounds uint64) task.Task {
	t := task.New("test", dataset.Encoding{
		Target: "y", Classes: []string{"no", "yes"}, Positive: "yes",
		Features: []dataset.FeatureSpec{{Name: "a", Kind: dataset.Numeric}},
	}, nodes)
	t.Rounds = rounds
	return t
}

// name is the CID that a record with these words has.
func name(words ...any) record.CID { return record.CIDOf([]byte(fmt.Sprint(words...))) }

// enrolled is the enrolment of node i, which has 10(i+1) rows.
func enrolled(i int) Received {
	return Received{CID: name("enrolment", i), Author: nodes[i], Body: task.Enrolment{
		Task: taskID, Nation: "HUN", Node: fmt.Sprint(i),
		Moments: dataset.Moments{Count: uint64(10 * (i + 1)), Mean: []float64{float64(i)}, M2: []float64{1}},
	}}
}

// rosterOf is the roster of these nodes.
func rosterOf(t testing.TB, members ...int) task.Roster {
	t.Helper()
	var parts []task.Enrolled
	for _, i := range members {
		r := enrolled(i)
		parts = append(parts, task.Enrolled{CID: r.CID, Author: r.Author, Enrolment: r.Body.(task.Enrolment)})
	}
	r, err := task.RosterOf(newTask(5), parts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func theRoster(t testing.TB) task.Roster { return rosterOf(t, 0, 1, 2) }

// weight is that of node i.
func weight(i int) uint64 { return enrolled(i).Body.(task.Enrolment).Moments.Count }

// certificate proves that something was decided on.
func certificate(t testing.TB, topic task.Topic, content any) Received {
	t.Helper()
	b, err := record.Encode(content)
	if err != nil {
		t.Fatal(err)
	}
	return Received{CID: name("seal", topic, record.CIDOf(b)), Author: nodes[0], Body: Certificate{Topic: topic, Content: b}}
}

// opened proves that the roster of these nodes was decided on.
func opened(t testing.TB, members ...int) Received {
	return certificate(t, task.TopicRoster, task.ContentOf(rosterOf(t, members...).Members))
}

// vector are the parameters that node i publishes for a round, where a test
// does not say otherwise.
func vector(i int, round uint64) []float64 {
	return []float64{float64(i) + float64(round)/8, -float64(round) / 3}
}

// updated is the update of node i for a round.
func updated(t testing.TB, i int, round uint64) Received {
	return Received{CID: name("update", i, round), Author: nodes[i], Number: round, Body: task.Update{
		Task: taskID, Roster: theRoster(t).CID, Weight: weight(i), Previous: round - 1, Params: vector(i, round),
	}}
}

// edited is r with another body.
func edited(r Received, edit func(*task.Update)) Received {
	u := r.Body.(task.Update)
	edit(&u)
	r.CID, r.Body = name(r.CID, u), u
	return r
}

func settled(u *task.Update) { u.Settled = true }

// left is the end of node i's part.
func left(i int) Received {
	return Received{CID: name("leave", i), Author: nodes[i], Body: task.Leave{Task: taskID}}
}

// beacon is a sign that node i is at work.
func beacon(i int) Received {
	return Received{Author: nodes[i], Body: task.Beacon{Task: taskID}}
}

// started is node i's machine with all the enrolments and the roster, training
// round 1 since 1 s.
func started(t testing.TB, i int, tk task.Task) *Member {
	t.Helper()
	m := New(nodes[i], taskID, tk)
	none(t, m.Step(second, opened(t, 0, 1, 2)))
	var effects []Effect
	for j := range nodes {
		effects = m.Step(second, enrolled(j))
	}
	if train := only[Train](t, effects); train.Round != 1 || !reflect.DeepEqual(train.From, tk.First(nil)) || !reflect.DeepEqual(train.Roster, theRoster(t)) {
		t.Fatalf("begins with round %d from %v", train.Round, train.From)
	}
	return m
}

const second = time.Second

// only is the one effect, which must be of this type.
func only[E Effect](t testing.TB, effects []Effect) (e E) {
	t.Helper()
	if len(effects) == 1 {
		if e, ok := effects[0].(E); ok {
			return e
		}
	}
	t.Fatalf("effects %+v, want one %T", effects, e)
	return e
}

// of are the effects of this type.
func of[E Effect](effects []Effect) (list []E) {
	for _, effect := range effects {
		if e, ok := effect.(E); ok {
			list = append(list, e)
		}
	}
	return list
}

func none(t testing.TB, effects []Effect) {
	t.Helper()
	if len(effects) != 0 {
		t.Fatalf("effects %+v, want none", effects)
	}
}

// mean is the weighted mean of the nodes' vectors for these rounds.
func mean(t testing.TB, rounds ...uint64) []float64 {
	t.Helper()
	s := mixing.NewSum(2)
	for i, round := range rounds {
		if round == 0 {
			continue
		}
		if err := s.Add(weight(i), vector(i, round)); err != nil {
			t.Fatal(err)
		}
	}
	return s.Mean()
}

func TestOneRound(t *testing.T) {
	tk := newTask(2)
	m := New(nodes[1], taskID, tk)
	publish := only[Publish](t, m.Step(0, Enrol{Enrolment: enrolled(1).Body.(task.Enrolment)}))
	if publish.Kind != record.KindEnrolment || publish.Number != 0 || !reflect.DeepEqual(publish.Body, enrolled(1).Body) {
		t.Errorf("published %+v", publish)
	}
	none(t, m.Step(0, enrolled(1)))
	none(t, m.Step(0, Enrol{Enrolment: enrolled(1).Body.(task.Enrolment)})) // once is enough
	only[Wake](t, m.Step(0, enrolled(0)))
	if m.Stage() != Enrolling || !slices.Equal(m.WaitingFor(), nodes[2:]) || m.Roster().Defined() {
		t.Errorf("%s, waits for %v", m.Stage(), m.WaitingFor())
	}
	if cast := of[Train](m.Step(0, enrolled(2))); len(cast) != 0 || m.Stage() != Enrolling || len(m.WaitingFor()) != 0 {
		t.Errorf("%s before a quorum has decided on the roster", m.Stage())
	}
	train := only[Train](t, m.Step(0, opened(t, 0, 1, 2)))
	if train.Round != 1 || train.Roster.CID != theRoster(t).CID || !slices.Equal(train.From, tk.First(nil)) {
		t.Errorf("train %+v", train)
	}
	if m.Stage() != Training || m.Round() != 0 || m.Roster() != theRoster(t).CID || !m.InRoster(nodes[2]) || m.InRoster(stranger) {
		t.Errorf("%s, round %d", m.Stage(), m.Round())
	}
	// While the local steps run, nothing else is begun.
	none(t, m.Step(time.Second, updated(t, 0, 1)))
	none(t, m.Step(time.Hour, Tick{}))
	none(t, m.Step(time.Hour, updated(t, 2, 1)))
	publish = only[Publish](t, m.Step(time.Hour, Trained{Round: 1, Params: vector(1, 1)}))
	u := publish.Body.(task.Update)
	if publish.Kind != record.KindUpdate || publish.Number != 1 || u.Task != taskID || u.Roster != theRoster(t).CID || u.Weight != 20 || u.Previous != 0 || u.Settled || !slices.Equal(u.Params, vector(1, 1)) {
		t.Errorf("published %+v", publish)
	}
	// The record is not durable yet, so that the round is not over.
	none(t, m.Step(time.Hour, Tick{}))
	if m.Round() != 0 {
		t.Errorf("round %d before the update is durable", m.Round())
	}
	train = only[Train](t, m.Step(time.Hour, updated(t, 1, 1)))
	if train.Round != 2 || !slices.Equal(train.From, mean(t, 1, 1, 1)) {
		t.Errorf("round %d from %v, want %v", train.Round, train.From, mean(t, 1, 1, 1))
	}
	// The last round: nothing is trained any more.
	publish = only[Publish](t, m.Step(time.Hour, Trained{Round: 2, Params: vector(1, 2)}))
	if u := publish.Body.(task.Update); u.Previous != 1 {
		t.Errorf("the update before was of round %d", u.Previous)
	}
	only[Wake](t, m.Step(time.Hour, updated(t, 1, 2)))
	only[Wake](t, m.Step(time.Hour, updated(t, 0, 2)))
	if m.Stage() != Sealing || !slices.Equal(m.WaitingFor(), nodes[2:]) {
		t.Errorf("%s, waits for %v", m.Stage(), m.WaitingFor())
	}
	make := only[Make](t, m.Step(time.Hour, updated(t, 2, 2)))
	part := task.Part{Node: nodes[2], Enrolment: enrolled(2).CID, Update: name("update", 2, 2), Round: 2, Weight: 30}
	if !slices.Equal(make.Model.Params, mean(t, 2, 2, 2)) || make.Model.Round != 2 || make.Model.Roster != theRoster(t).CID || make.Model.Task != taskID ||
		!reflect.DeepEqual(make.Model.Scaling, theRoster(t).Scaling) || len(make.Model.Parts) != 3 || make.Model.Parts[2] != part || len(make.Model.Out) != 0 {
		t.Errorf("makes %+v", make.Model)
	}
	none(t, m.Step(time.Hour, Tick{})) // once
	none(t, m.Step(time.Hour, Trained{Round: 3, Params: vector(1, 3)}))
}

func evaluated(i int, model record.CID) Received {
	spec := learn.Spec{Kind: learn.Logistic, Inputs: 1, Classes: 2}
	c := spec.Count([]float64{1, 0}, dataset.Samples{N: 2, D: 1, X: []float64{1, -1}, Y: []int{1, 0}})
	return Received{CID: name("evaluation", i, model), Author: nodes[i], Body: task.Evaluation{Task: taskID, Model: model, Local: c, Federated: c, Personal: c}}
}

// final is what is decided on where every node has trained to this round.
func final(t testing.TB, round uint64, model record.CID) task.FinalContent {
	c := task.FinalContent{Round: round, Roster: theRoster(t).CID, Parts: []task.Part{}, Out: []task.Out{}, Inputs: name("inputs"), Model: model}
	for i := range nodes {
		c.Parts = append(c.Parts, task.Part{Node: nodes[i], Enrolment: enrolled(i).CID, Update: updated(t, i, round).CID, Round: round, Weight: weight(i)})
	}
	return c
}

func TestEvaluation(t *testing.T) {
	tk := newTask(1)
	m := started(t, 0, tk)
	model := name("model")
	sealed := certificate(t, task.TopicFinal, final(t, 1, model))
	// Those of others may come before the model.
	none(t, m.Step(second, evaluated(1, model)))
	none(t, m.Step(second, updated(t, 1, 1)))
	none(t, m.Step(second, updated(t, 2, 1)))
	only[Publish](t, m.Step(second, Trained{Round: 1, Params: vector(0, 1)}))
	make := only[Make](t, m.Step(second, updated(t, 0, 1)))
	none(t, m.Step(second, sealed)) // is being made
	if m.Stage() != Evaluating || !reflect.DeepEqual(m.Content(), final(t, 1, model)) {
		t.Errorf("%s of %+v", m.Stage(), m.Content())
	}
	if cid, final := m.Model(); cid.Defined() || final == nil {
		t.Errorf("model %s before it is stored", cid)
	}
	effects := m.Step(second, Made{Set: make.Set, Model: model, Inputs: name("inputs")})
	evaluate := of[Evaluate](effects)
	if len(evaluate) != 1 || evaluate[0].CID != model || !reflect.DeepEqual(evaluate[0].Model, make.Model) || m.Disputed() {
		t.Errorf("effects %+v", effects)
	}
	if cid, final := m.Model(); cid != model || !reflect.DeepEqual(*final, make.Model) {
		t.Errorf("model %s, %+v", cid, final)
	}
	only[Wake](t, m.Step(second, Tick{})) // is under way
	only[Wake](t, m.Step(second, evaluated(2, name("another model"))))
	publish := only[Publish](t, m.Step(second, Evaluated{Evaluation: evaluated(0, model).Body.(task.Evaluation)}))
	if publish.Kind != record.KindEvaluation || publish.Number != 0 || publish.Body.(task.Evaluation).Model != model {
		t.Errorf("published %+v", publish)
	}
	none(t, m.Step(second, evaluated(0, model)))
	none(t, m.Step(second, Evaluated{Evaluation: evaluated(0, model).Body.(task.Evaluation)}))
	none(t, m.Step(second, Tick{}))
	if m.Stage() != Done || len(m.WaitingFor()) != 0 || !m.HasEvaluated(nodes[0]) || m.HasEvaluated(stranger) {
		t.Errorf("%s, waits for %v", m.Stage(), m.WaitingFor())
	}
	results, err := m.Results()
	if err != nil || len(results.Nodes) != 2 || !slices.Equal(results.Missing, nodes[2:]) || results.AllRows.Federated.Rows != 4 || results.Rounds != 1 || results.CID != model {
		t.Errorf("results %+v, %v", results, err)
	}
	none(t, m.Step(second, evaluated(2, model))) // too late: the first one counts
	if results, err := m.Results(); err != nil || !slices.Equal(results.Missing, nodes[2:]) {
		t.Errorf("missing %v, %v", results.Missing, err)
	}

	m = New(nodes[0], taskID, tk)
	m.Restore(second, []Received{sealed, opened(t, 0, 1, 2), enrolled(0), enrolled(1), enrolled(2), updated(t, 0, 1), updated(t, 1, 1), updated(t, 2, 1), evaluated(0, model), evaluated(1, model), evaluated(2, model)})
	again := only[Make](t, m.Step(second, Tick{}))
	if again.Set != make.Set || !reflect.DeepEqual(again, make) {
		t.Errorf("makes %+v after a restart, %+v before", again, make)
	}
	none(t, m.Step(second, Made{Set: again.Set, Model: model, Inputs: name("inputs")})) // was evaluated before the restart
	if m.Stage() != Done || len(m.WaitingFor()) != 0 {
		t.Errorf("%s, waits for %v", m.Stage(), m.WaitingFor())
	}
}

// A node that is silent after the seal is waited for once.
func TestEvaluationsAreWaitedFor(t *testing.T) {
	model := name("model")
	m := New(nodes[0], taskID, newTask(1))
	m.Restore(second, []Received{
		certificate(t, task.TopicFinal, final(t, 1, model)), opened(t, 0, 1, 2), enrolled(0), enrolled(1), enrolled(2),
		updated(t, 0, 1), updated(t, 1, 1), updated(t, 2, 1), evaluated(0, model), evaluated(1, model),
	})
	make := only[Make](t, m.Step(second, Tick{}))
	silent := only[Wake](t, m.Step(2*second, Made{Set: make.Set, Model: model, Inputs: name("inputs")})).At
	if silent != second+leastPatience || m.Stage() != Evaluating || !slices.Equal(m.WaitingFor(), nodes[2:]) {
		t.Errorf("%s, waits for %v until %v", m.Stage(), m.WaitingFor(), silent)
	}
	// As long as it says that it is at work, it is waited for.
	later := only[Wake](t, m.Step(silent-1, beacon(2))).At
	if later <= silent || m.Stage() != Evaluating {
		t.Errorf("%s, waits until %v", m.Stage(), later)
	}
	none(t, m.Step(later, Tick{}))
	if m.Stage() != Done || !m.IsSilent(nodes[2]) || m.IsSilent(nodes[0]) {
		t.Errorf("%s, waits for %v", m.Stage(), m.WaitingFor())
	}
	none(t, m.Step(later+time.Hour, evaluated(2, model)))
	if results, err := m.Results(); err != nil || len(results.Missing) != 0 || m.Stage() != Done {
		t.Errorf("missing %v, %v", results.Missing, err)
	}
}

func TestWhatDoesNotCount(t *testing.T) {
	m := started(t, 0, newTask(5))
	another := Received{CID: name("another"), Author: nodes[1], Body: task.Enrolment{Task: taskID, Moments: dataset.Moments{Count: 7, Mean: []float64{9}, M2: []float64{0}}}}
	for name, e := range map[string]Received{
		"another roster":                 edited(updated(t, 1, 1), func(u *task.Update) { u.Roster = another.CID }),
		"no roster":                      edited(updated(t, 1, 1), func(u *task.Update) { u.Roster = record.CID{} }),
		"too large a weight":             edited(updated(t, 1, 1), func(u *task.Update) { u.Weight++ }),
		"too small a weight":             edited(updated(t, 1, 1), func(u *task.Update) { u.Weight-- }),
		"a node that is not in the task": {CID: another.CID, Author: stranger, Number: 1, Body: updated(t, 1, 1).Body},
		"the weight of another node":     {CID: another.CID, Author: nodes[1], Number: 1, Body: updated(t, 2, 1).Body},
		"another enrolment":              another,
	} {
		none(t, m.Step(second, e))
		if m.RoundOf(nodes[1]) != 0 || m.RoundOf(stranger) != 0 || m.roster.CID != theRoster(t).CID {
			t.Errorf("%s counts", name)
		}
	}
	none(t, m.Step(second, updated(t, 1, 1)))
	if m.RoundOf(nodes[1]) != 1 {
		t.Fatal("the right one does not count")
	}
	// Another one for the same round does not replace it, nor an older one a newer.
	none(t, m.Step(second, edited(updated(t, 1, 1), func(u *task.Update) { u.Params = []float64{7, 7} })))
	if u := m.seats[1].at(1); u == nil || !slices.Equal(u.Params, vector(1, 1)) {
		t.Errorf("held for round 1 is %+v", u)
	}
	none(t, m.Step(second, updated(t, 1, 3)))
	none(t, m.Step(second, updated(t, 1, 2)))
	none(t, m.Step(second, updated(t, 1, 2)))
	none(t, m.Step(second, updated(t, 1, 1)))
	var rounds []uint64
	for _, u := range m.seats[1].updates {
		rounds = append(rounds, u.Round)
	}
	if !slices.Equal(rounds, []uint64{3, 2}) || m.seats[1].at(1) != nil {
		t.Errorf("held are %v", rounds)
	}

	// Before there is a roster, the first enrolment of each counts.
	m = New(nodes[0], taskID, newTask(5))
	m.Step(second, enrolled(1))
	m.Step(second, another)
	m.Step(second, Received{CID: another.CID, Author: stranger, Body: another.Body})
	m.Step(second, enrolled(0))
	m.Step(second, enrolled(2))
	if train := only[Train](t, m.Step(second, opened(t, 0, 1, 2))); train.Roster.CID != theRoster(t).CID {
		t.Error("a second enrolment counts")
	}
	if e, ok := m.Enrolment(nodes[1]); !ok || e.CID != enrolled(1).CID {
		t.Errorf("enrolment %+v", e)
	}
	if _, ok := m.Enrolment(stranger); ok {
		t.Error("a stranger is enrolled")
	}
	// A second certificate does not undo the first.
	m.Step(second, opened(t, 0, 1))
	if m.Roster() != theRoster(t).CID {
		t.Error("the roster has changed")
	}
}

func TestTheSameRoundIsMixedNotTheNewest(t *testing.T) {
	m := started(t, 0, newTask(5))
	none(t, m.Step(second, updated(t, 1, 2))) // overtakes
	none(t, m.Step(second, updated(t, 1, 1)))
	none(t, m.Step(second, updated(t, 2, 1)))
	only[Publish](t, m.Step(second, Trained{Round: 1, Params: vector(0, 1)}))
	train := only[Train](t, m.Step(second, updated(t, 0, 1)))
	if train.Round != 2 || !slices.Equal(train.From, mean(t, 1, 1, 1)) {
		t.Errorf("round %d from %v, want %v", train.Round, train.From, mean(t, 1, 1, 1))
	}
}

func TestEarlyUpdates(t *testing.T) {
	m := New(nodes[0], taskID, newTask(1000))
	// One node that floods costs the others nothing.
	for round := range uint64(500) {
		none(t, m.Step(0, updated(t, 1, round+1)))
		none(t, m.Step(0, Received{CID: name(round), Author: stranger, Number: round, Body: updated(t, 1, round+1).Body}))
	}
	none(t, m.Step(0, updated(t, 1, 3)))
	none(t, m.Step(0, updated(t, 1, 500)))
	none(t, m.Step(0, updated(t, 2, 1)))
	for i, s := range m.seats {
		if len(s.early) > 2 {
			t.Errorf("%d updates of node %d are held", len(s.early), i)
		}
	}
	none(t, m.Step(0, opened(t, 0, 1))) // node 2 comes late
	none(t, m.Step(0, enrolled(0)))
	m.Step(0, enrolled(1))
	if m.RoundOf(nodes[1]) != 0 || m.RoundOf(nodes[2]) != 0 {
		t.Error("updates of another roster count")
	}
	m = New(nodes[0], taskID, newTask(1000))
	m.Restore(0, []Received{updated(t, 1, 499), updated(t, 2, 1), updated(t, 1, 500), updated(t, 1, 3), enrolled(1), enrolled(0), opened(t, 0, 1, 2)})
	none(t, m.Step(0, Tick{})) // an enrolment of the roster is missing
	m.Step(0, enrolled(2))
	if m.RoundOf(nodes[1]) != 500 || m.seats[1].at(499) == nil || m.RoundOf(nodes[2]) != 1 || m.seats[1].early != nil {
		t.Errorf("rounds %d and %d", m.RoundOf(nodes[1]), m.RoundOf(nodes[2]))
	}
}

func TestTrainedForAnOldRound(t *testing.T) {
	m := started(t, 0, newTask(9))
	// The own update of a former life comes back from a peer.
	none(t, m.Step(second, updated(t, 1, 1)))
	none(t, m.Step(second, updated(t, 2, 1)))
	train := only[Train](t, m.Step(second, updated(t, 0, 1)))
	if train.Round != 2 {
		t.Fatalf("round %d", train.Round)
	}
	none(t, m.Step(second, Trained{Round: 1, Params: vector(0, 1)}))
	none(t, m.Step(second, Trained{Round: 0}))
	none(t, m.Step(second, Tick{}))
	only[Publish](t, m.Step(second, Trained{Round: 2, Params: vector(0, 2)}))
}

func TestTheSilentArePassedOver(t *testing.T) {
	m := started(t, 0, newTask(99))
	only[Publish](t, m.Step(2*second, Trained{Round: 1, Params: vector(0, 1)}))
	wake := only[Wake](t, m.Step(2*second, updated(t, 0, 1)))
	if wake.At != 2*second+firstPatience {
		t.Errorf("wake at %v", wake.At)
	}
	if got := only[Wake](t, m.Step(3*second, updated(t, 1, 1))); got != wake {
		t.Errorf("wake at %v", got.At)
	}
	if got := only[Wake](t, m.Step(wake.At-1, Tick{})); got != wake || !slices.Equal(m.WaitingFor(), nodes[2:]) || m.IsSilent(nodes[2]) {
		t.Errorf("wake at %v, waits for %v", got.At, m.WaitingFor())
	}
	train := only[Train](t, m.Step(wake.At, Tick{}))
	if train.Round != 2 || !slices.Equal(train.From, mean(t, 1, 1, 0)) || len(m.WaitingFor()) != 0 || !m.IsSilent(nodes[2]) || m.IsSilent(nodes[1]) || m.IsSilent(nodes[0]) || m.IsSilent(stranger) {
		t.Errorf("round %d from %v, want %v", train.Round, train.From, mean(t, 1, 1, 0))
	}
	// It costs one wait, not one in every round.
	now := wake.At
	for round := uint64(2); round < 5; round++ {
		now += second
		none(t, m.Step(now, updated(t, 1, round)))
		only[Publish](t, m.Step(now, Trained{Round: round, Params: vector(0, round)}))
		if train := only[Train](t, m.Step(now, updated(t, 0, round))); train.Round != round+1 || !slices.Equal(train.From, mean(t, round, round, 0)) {
			t.Fatalf("round %d from %v", train.Round, train.From)
		}
	}
	// Its next update counts from then on, though it is old, and it is waited
	// for again, twice as long.
	none(t, m.Step(now, updated(t, 2, 1)))
	none(t, m.Step(now, updated(t, 1, 5)))
	only[Publish](t, m.Step(now, Trained{Round: 5, Params: vector(0, 5)}))
	later := only[Wake](t, m.Step(now, updated(t, 0, 5))).At
	if later != now+firstPatience<<1 || !slices.Equal(m.WaitingFor(), nodes[2:]) {
		t.Errorf("who was wrongly held silent is given until %v, not %v", later, now+firstPatience<<1)
	}
	train = only[Train](t, m.Step(later, Tick{}))
	if !slices.Equal(train.From, mean(t, 5, 5, 1)) {
		t.Errorf("from %v, want %v", train.From, mean(t, 5, 5, 1))
	}
}

// A slow one that says that it is at work is waited for as long as it takes.
func TestBeacons(t *testing.T) {
	m := started(t, 0, newTask(9))
	none(t, m.Step(2*second, updated(t, 1, 1)))
	only[Publish](t, m.Step(2*second, Trained{Round: 1, Params: vector(0, 1)}))
	only[Wake](t, m.Step(2*second, updated(t, 0, 1)))
	now := 2 * second
	for range 10_000 {
		now += BeaconInterval
		if wake := only[Wake](t, m.Step(now, beacon(2))); wake.At <= now+leastPatience/2 {
			t.Fatalf("silent at %v after a beacon at %v", wake.At, now)
		}
	}
	if m.IsSilent(nodes[2]) || !slices.Equal(m.WaitingFor(), nodes[2:]) || m.Round() != 1 {
		t.Errorf("waits for %v", m.WaitingFor())
	}
	if train := only[Train](t, m.Step(now, updated(t, 2, 1))); !slices.Equal(train.From, mean(t, 1, 1, 1)) {
		t.Errorf("from %v", train.From)
	}
}

func TestALaggardJumps(t *testing.T) {
	m := started(t, 0, newTask(9))
	none(t, m.Step(second, updated(t, 1, 5)))
	none(t, m.Step(second, updated(t, 2, 4)))
	only[Publish](t, m.Step(second, Trained{Round: 1, Params: vector(0, 1)}))
	train := only[Train](t, m.Step(second, updated(t, 0, 1)))
	if train.Round != 5 || !slices.Equal(train.From, mean(t, 1, 5, 4)) {
		t.Errorf("round %d from %v", train.Round, train.From)
	}
	// The rounds between are left out for good, and its update says so.
	if u := only[Publish](t, m.Step(second, Trained{Round: 5, Params: vector(0, 5)})); u.Body.(task.Update).Previous != 1 {
		t.Errorf("published %+v", u)
	}
}

// One node that ran ahead while it was cut off does not take the others along.
func TestOneThatIsFarAheadIsNotFollowed(t *testing.T) {
	for ahead, want := range map[int]uint64{0: 2, 1: 2, 2: 40, 3: 40, 4: 40} {
		graph, err := mixing.New(mixing.All, 5, 1)
		if err != nil {
			t.Fatal(err)
		}
		r := NewRounds(RoundsConfig{Graph: graph, Nodes: 5, Own: 0, All: true})
		for i, p := range r.peers {
			p.part, p.updates = true, []*Update{{Round: 1}}
			if i > 0 && i <= ahead {
				p.updates[0].Round = 40
			}
		}
		if got := max(r.reached(1), 2); got != want {
			t.Errorf("%d of the four others are at round 40: goes on with round %d, want %d", ahead, got, want)
		}
	}
}

// A node that hears of no quorum trains on, but not faster than with the others,
// and not to the end.
func TestANodeThatIsCutOff(t *testing.T) {
	tk := newTask(20) // the last two rounds are not for one alone
	m := started(t, 0, tk)
	now := second
	var train Train
	for round := uint64(1); round <= 4; round++ {
		now += 7 * second
		none(t, m.Step(now, updated(t, 1, round)))
		none(t, m.Step(now, updated(t, 2, round)))
		only[Publish](t, m.Step(now, Trained{Round: round, Params: vector(0, round)}))
		train = only[Train](t, m.Step(now, updated(t, 0, round)))
	}
	for m.Round() < 18 {
		now += second
		only[Publish](t, m.Step(now, Trained{Round: train.Round, Params: vector(0, train.Round)}))
		effects := m.Step(now, updated(t, 0, train.Round))
		first, takes := m.Round() == 5, m.rounds.takes
		for len(of[Train](effects)) == 0 && m.Round() < 18 {
			now = only[Wake](t, effects).At
			effects = m.Step(now, Tick{})
		}
		if m.Round() == 18 {
			none(t, effects)
			break
		}
		if train = only[Train](t, effects); train.Round != m.Round()+1 {
			t.Fatalf("round %d after %d", train.Round, m.Round())
		}
		// First it waits until the others are silent.
		if waited := now - m.rounds.since; waited < 3*second || !first && waited != takes {
			t.Errorf("after round %d it waits %v, a round took %v", m.Round(), waited, takes)
		}
	}
	none(t, m.Step(now+time.Hour, Tick{}))
	if m.Round() != 18 || !slices.Equal(m.WaitingFor(), nodes[1:]) || m.Stage() != Training {
		t.Errorf("%s, round %d, waits for %v", m.Stage(), m.Round(), m.WaitingFor())
	}
	// Once one of the others is back, it goes on from where they are.
	now += 2 * time.Hour
	if train := only[Train](t, m.Step(now, updated(t, 1, 18))); train.Round != 19 {
		t.Errorf("round %d", train.Round)
	}
}

func TestASettledNodeDoesNotPassTheLastRound(t *testing.T) {
	tk := newTask(9)
	tk.Tolerance = .1
	for _, rest := range []bool{false, true} {
		m := New(nodes[0], taskID, tk)
		own := updated(t, 0, 3)
		if rest {
			own = edited(own, settled)
		}
		held := []Received{opened(t, 0, 1, 2), enrolled(0), enrolled(1), enrolled(2), updated(t, 0, 2), own, edited(updated(t, 1, 3), settled), updated(t, 2, 2)}
		m.Restore(second, held)
		silent := only[Wake](t, m.Step(second, Tick{})).At
		effects := m.Step(silent, Tick{})
		if !rest {
			if train := only[Train](t, effects); train.Round != 4 {
				t.Errorf("round %d", train.Round)
			}
			continue
		}
		// Who is silent, but was there until the round before, counts with that.
		if make := only[Make](t, effects); make.Model.Round != 3 || !slices.Equal(make.Model.Params, mean(t, 3, 3, 2)) {
			t.Errorf("makes round %d", make.Model.Round)
		}
		// The awaited update is the last.
		m = New(nodes[0], taskID, tk)
		m.Restore(second, held)
		only[Wake](t, m.Step(second, Tick{}))
		make := only[Make](t, m.Step(2*second, edited(updated(t, 2, 3), settled)))
		if make.Model.Round != 3 || !slices.Equal(make.Model.Params, mean(t, 3, 3, 3)) {
			t.Errorf("makes round %d", make.Model.Round)
		}
		// It is not: so the others go on, and with them this node.
		m = New(nodes[0], taskID, tk)
		m.Restore(second, held)
		only[Wake](t, m.Step(second, Tick{}))
		if train := only[Train](t, m.Step(2*second, updated(t, 2, 3))); train.Round != 4 {
			t.Errorf("round %d", train.Round)
		}
	}
}

func TestSettling(t *testing.T) {
	tk := newTask(9)
	tk.Tolerance = .2
	m := started(t, 0, tk)
	step := func(round uint64, params []float64) bool {
		for i := 1; i < 3; i++ {
			m.Step(second, edited(updated(t, i, round), func(u *task.Update) { u.Params = params }))
		}
		publish := only[Publish](t, m.Step(second, Trained{Round: round, Params: params}))
		u := publish.Body.(task.Update)
		m.Step(second, Received{CID: name("own", round), Author: nodes[0], Number: round, Body: u})
		return u.Settled
	}
	// An update is settled where the mix it was trained from is near the one before.
	for i, c := range []struct {
		to   float64 // what the nodes come to in this round
		want bool
	}{
		{1, false},    // from the start
		{1.5, false},  // from 1, after the start
		{1.65, false}, // from 1.5, after 1
		{3, true},     // from 1.65, after 1.5
		{3, false},    // from 3, after 1.65
		{3, true},     // from 3, after 3
	} {
		if got := step(uint64(i+1), []float64{c.to, 0}); got != c.want {
			t.Errorf("round %d: settled is %v", i+1, got)
		}
	}
}

func TestAnObserver(t *testing.T) {
	m := New(stranger, taskID, newTask(2))
	none(t, m.Step(0, Enrol{Enrolment: enrolled(0).Body.(task.Enrolment)}))
	none(t, m.Step(0, Leave{}))
	for i := range nodes {
		none(t, m.Step(0, enrolled(i)))
	}
	none(t, m.Step(0, opened(t, 0, 1, 2)))
	none(t, m.Step(0, updated(t, 0, 1)))
	none(t, m.Step(time.Hour, Tick{}))
	none(t, m.Step(time.Hour, Trained{Round: 1, Params: vector(0, 1)}))
	if m.Stage() != Training || m.Round() != 1 || !slices.Equal(m.WaitingFor(), nodes[1:]) {
		t.Errorf("%s, round %d, waits for %v", m.Stage(), m.Round(), m.WaitingFor())
	}
	none(t, m.Step(time.Hour, updated(t, 2, 2)))
	none(t, m.Step(time.Hour, updated(t, 1, 2)))
	none(t, m.Step(time.Hour, updated(t, 0, 2)))
	model := name("model")
	make := only[Make](t, m.Step(time.Hour, certificate(t, task.TopicFinal, final(t, 2, model))))
	if !slices.Equal(make.Model.Params, mean(t, 2, 2, 2)) {
		t.Errorf("makes %v", make.Model.Params)
	}
	if missing, quorum := m.Undecided(); len(missing) != 0 || quorum != 0 {
		t.Errorf("a quorum of %d lacks %v", quorum, missing)
	}
	only[Wake](t, m.Step(time.Hour, Made{Set: make.Set, Model: model}))
	for i := range nodes {
		if m.Stage() != Evaluating {
			t.Errorf("%s", m.Stage())
		}
		m.Step(time.Hour, evaluated(i, model))
	}
	if m.Stage() != Done {
		t.Errorf("%s", m.Stage())
	}
}

func TestOwes(t *testing.T) {
	for _, c := range []struct {
		held  [][2]uint64 // round and the round of the update before it, newest first
		round uint64
		want  bool
	}{
		{nil, 1, true},
		{nil, 9, true},
		{[][2]uint64{{1, 0}}, 1, false},
		{[][2]uint64{{1, 0}}, 2, true},
		{[][2]uint64{{3, 2}, {2, 1}}, 4, true},
		{[][2]uint64{{3, 2}, {2, 1}}, 3, false},
		{[][2]uint64{{3, 2}, {2, 1}}, 2, false},
		{[][2]uint64{{3, 2}, {2, 1}}, 1, false}, // its author does not keep it any more
		{[][2]uint64{{3, 2}}, 2, true},          // was overtaken
		{[][2]uint64{{3, 2}}, 1, false},
		{[][2]uint64{{7, 2}}, 2, true},
		{[][2]uint64{{7, 2}}, 3, false}, // left out
		{[][2]uint64{{7, 2}}, 6, false},
		{[][2]uint64{{7, 2}, {2, 1}}, 5, false},
		{[][2]uint64{{7, 2}, {2, 1}}, 8, true},
		{[][2]uint64{{5, 0}}, 1, false}, // its first
	} {
		var s peer
		for _, u := range c.held {
			s.updates = append(s.updates, &Update{Round: u[0], Previous: u[1]})
		}
		if got := s.owes(c.round); got != c.want {
			t.Errorf("holding %v, round %d is owed: %v, want %v", c.held, c.round, got, c.want)
		}
	}

	// Nobody waits for a round that its author has left out.
	m := started(t, 0, newTask(9))
	none(t, m.Step(second, edited(updated(t, 2, 2), func(u *task.Update) { u.Previous = 0 })))
	none(t, m.Step(second, updated(t, 1, 1)))
	only[Publish](t, m.Step(second, Trained{Round: 1, Params: vector(0, 1)}))
	if train := of[Train](m.Step(second, updated(t, 0, 1))); len(train) != 1 || train[0].Round != 2 {
		t.Errorf("trains %+v", train)
	}
	// But for one that is on its way.
	m = started(t, 0, newTask(9))
	none(t, m.Step(second, updated(t, 2, 2)))
	none(t, m.Step(second, updated(t, 1, 1)))
	only[Publish](t, m.Step(second, Trained{Round: 1, Params: vector(0, 1)}))
	only[Wake](t, m.Step(second, updated(t, 0, 1)))
	if !slices.Equal(m.WaitingFor(), nodes[2:]) {
		t.Errorf("waits for %v", m.WaitingFor())
	}
	if train := of[Train](m.Step(second, updated(t, 2, 1))); len(train) != 1 || !slices.Equal(train[0].From, mean(t, 1, 1, 1)) {
		t.Errorf("trains %+v", train)
	}
}

func TestPace(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		name  string
		heard []time.Duration // at these times, having been waited for since the one before
		from  time.Duration   // waited for since
		want  time.Duration   // silent at
	}{
		{"never heard", nil, 0, s + 10*s},
		{"never heard, waited for later", nil, 11 * s, 21 * s},
		{"heard once, soon", []time.Duration{s + s/10}, 0, s + s/10 + 3*s},
		{"heard once, after 9 s", []time.Duration{10 * s}, 0, 10*s + 36*s},
		{"waited for after it was heard", []time.Duration{10 * s}, 50 * s, 50*s + 36*s},
		{"slow once, then fast", []time.Duration{10 * s, 11 * s}, 0, 11*s + 4*9*s*7/8},
		{"silent once: twice the patience, the pause is not learnt", []time.Duration{11 * s}, 0, 11*s + 20*s},
		{"silent, then in time: the doubt goes", []time.Duration{11 * s, 13 * s}, 0, 13*s + 8*s},
		{"silent again and again", []time.Duration{11 * s, 31 * s, 71 * s}, 0, 71*s + 80*s},
	} {
		var p pace
		p.start(s)
		if got := p.silentAt(); got != math.MaxInt64 {
			t.Errorf("%s: silent at %v though nobody waits", c.name, got)
		}
		for _, at := range c.heard {
			p.await(0)
			p.heard(at)
		}
		if got := p.await(c.from); got != c.want || p.silentAt() != c.want {
			t.Errorf("%s: silent at %v, want %v", c.name, got, c.want)
		}
		// Once it is waited for, a later question does not move the end.
		if got := p.await(c.want + time.Hour); got != c.want {
			t.Errorf("%s: silent at %v, want %v still", c.name, got, c.want)
		}
	}
	// However often it was silent, its patience stays finite and grows no more.
	var p pace
	p.start(s)
	last := s
	for range 100 {
		last = p.await(last)
		p.heard(last)
	}
	if got := p.await(0) - last; got != firstPatience<<maxDoubt {
		t.Errorf("patience %v", got)
	}
	// A fast node that was slow once is fast again after a while.
	p = pace{}
	p.start(s)
	p.await(0)
	p.heard(9 * s)
	for i := range 100 {
		p.await(0)
		p.heard(9*s + time.Duration(i+1)*10*time.Millisecond)
	}
	if got := p.await(0) - p.last; got != leastPatience {
		t.Errorf("patience %v", got)
	}
	// What comes while nobody waits says nothing of how long it takes.
	p = pace{}
	p.start(s)
	p.heard(100 * s)
	if got := p.await(0); got != 103*s {
		t.Errorf("silent at %v", got)
	}
}

func TestDistance(t *testing.T) {
	if d := distance([]float64{1, -2, 3}, []float64{1, 2, 2.5}); d != 4 || distance(nil, nil) != 0 || math.IsNaN(d) {
		t.Errorf("distance %g", d)
	}
}
