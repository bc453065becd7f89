package member

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

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

func theRoster(t testing.TB) task.Roster {
	t.Helper()
	var parts []task.Enrolled
	for i := range nodes {
		r := enrolled(i)
		parts = append(parts, task.Enrolled{CID: r.CID, Author: r.Author, Enrolment: r.Body.(task.Enrolment)})
	}
	r, err := task.RosterOf(parts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// vector are the parameters that node i publishes for a round, where a test
// does not say otherwise.
func vector(i int, round uint64) []float64 {
	return []float64{float64(i) + float64(round)/8, -float64(round) / 3}
}

// updated is the update of node i for a round.
func updated(t testing.TB, i int, round uint64) Received {
	roster := theRoster(t)
	return Received{CID: name("update", i, round), Author: nodes[i], Number: round, Body: task.Update{
		Task: taskID, Roster: roster.CID, Weight: roster.Weight(i), Params: vector(i, round),
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

// started is node i's machine with all the enrolments, training round 1.
func started(t testing.TB, i int, tk task.Task) *Member {
	t.Helper()
	m := New(nodes[i], taskID, tk)
	var effects []Effect
	for j := range nodes {
		effects = m.Step(0, enrolled(j))
	}
	if train := only[Train](t, effects); train.Round != 1 || !reflect.DeepEqual(train.From, Start(taskID, tk)) {
		t.Fatalf("begins with round %d from %v", train.Round, train.From)
	}
	return m
}

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
		if err := s.Add(theRoster(t).Weight(i), vector(i, round)); err != nil {
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
	none(t, m.Step(0, enrolled(0)))
	if m.Stage() != Enrolling || !slices.Equal(m.WaitingFor(), nodes[2:]) {
		t.Errorf("%s, waits for %v", m.Stage(), m.WaitingFor())
	}
	train := only[Train](t, m.Step(0, enrolled(2)))
	if train.Round != 1 || train.Roster.CID != theRoster(t).CID || !slices.Equal(train.From, Start(taskID, tk)) {
		t.Errorf("train %+v", train)
	}
	if m.Stage() != Training || m.Round() != 0 {
		t.Errorf("%s, round %d", m.Stage(), m.Round())
	}
	// While the local steps run, nothing else is begun.
	none(t, m.Step(time.Second, updated(t, 0, 1)))
	none(t, m.Step(time.Hour, Tick{}))
	none(t, m.Step(time.Hour, updated(t, 2, 1)))
	publish = only[Publish](t, m.Step(time.Hour, Trained{Round: 1, Params: vector(1, 1)}))
	u := publish.Body.(task.Update)
	if publish.Kind != record.KindUpdate || publish.Number != 1 || u.Task != taskID || u.Roster != theRoster(t).CID || u.Weight != 20 || u.Settled || !slices.Equal(u.Params, vector(1, 1)) {
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
	only[Publish](t, m.Step(time.Hour, Trained{Round: 2, Params: vector(1, 2)}))
	none(t, m.Step(time.Hour, updated(t, 1, 2)))
	none(t, m.Step(time.Hour, updated(t, 0, 2)))
	if m.Stage() != Sealing || !slices.Equal(m.WaitingFor(), nodes[2:]) {
		t.Errorf("%s, waits for %v", m.Stage(), m.WaitingFor())
	}
	none(t, m.Step(1000*time.Hour, Tick{})) // nobody is passed over at the end
	seal := only[Seal](t, m.Step(1000*time.Hour, updated(t, 2, 2)))
	if !slices.Equal(seal.Model.Params, mean(t, 2, 2, 2)) || seal.Model.Round != 2 || seal.Model.Roster != theRoster(t).CID ||
		!reflect.DeepEqual(seal.Model.Scaling, theRoster(t).Scaling) || seal.Model.Parts[2] != (task.Part{Node: nodes[2], Update: name("update", 2, 2), Weight: 30}) {
		t.Errorf("sealed %+v", seal.Model)
	}
	none(t, m.Step(1000*time.Hour, Tick{})) // once
	none(t, m.Step(1000*time.Hour, Trained{Round: 3, Params: vector(1, 3)}))
}

func evaluated(i int, model record.CID) Received {
	spec := learn.Spec{Kind: learn.Logistic, Inputs: 1, Classes: 2}
	c := spec.Count([]float64{1, 0}, dataset.Samples{N: 2, D: 1, X: []float64{1, -1}, Y: []int{1, 0}})
	return Received{CID: name("evaluation", i, model), Author: nodes[i], Body: task.Evaluation{Task: taskID, Model: model, Local: c, Federated: c}}
}

func TestEvaluation(t *testing.T) {
	tk := newTask(1)
	m := started(t, 0, tk)
	model := name("model")
	// Those of others may come before the model.
	none(t, m.Step(0, evaluated(1, model)))
	none(t, m.Step(0, updated(t, 1, 1)))
	none(t, m.Step(0, updated(t, 2, 1)))
	only[Publish](t, m.Step(0, Trained{Round: 1, Params: vector(0, 1)}))
	seal := only[Seal](t, m.Step(0, updated(t, 0, 1)))
	if m.Stage() != Evaluating {
		t.Errorf("%s", m.Stage())
	}
	evaluate := only[Evaluate](t, m.Step(0, Sealed{Model: model}))
	if evaluate.CID != model || !reflect.DeepEqual(evaluate.Model, seal.Model) {
		t.Errorf("evaluate %+v", evaluate)
	}
	none(t, m.Step(0, Tick{})) // is under way
	none(t, m.Step(0, evaluated(2, name("another model"))))
	publish := only[Publish](t, m.Step(0, Evaluated{Evaluation: evaluated(0, model).Body.(task.Evaluation)}))
	if publish.Kind != record.KindEvaluation || publish.Number != 0 || publish.Body.(task.Evaluation).Model != model {
		t.Errorf("published %+v", publish)
	}
	none(t, m.Step(0, evaluated(0, model)))
	none(t, m.Step(0, Evaluated{Evaluation: evaluated(0, model).Body.(task.Evaluation)}))
	none(t, m.Step(0, Tick{}))
	if m.Stage() != Evaluating || !slices.Equal(m.WaitingFor(), nodes[2:]) || !m.HasEvaluated(nodes[0]) || m.HasEvaluated(stranger) {
		t.Errorf("%s, waits for %v", m.Stage(), m.WaitingFor())
	}
	results, err := m.Results()
	if err != nil || len(results.Nodes) != 2 || !slices.Equal(results.Missing, nodes[2:]) || results.AllRows.Federated.Rows != 4 || results.Rounds != 1 {
		t.Errorf("results %+v, %v", results, err)
	}
	none(t, m.Step(0, evaluated(2, model))) // too late: the first one counts
	if !slices.Equal(m.WaitingFor(), nodes[2:]) {
		t.Errorf("waits for %v", m.WaitingFor())
	}

	m = New(nodes[0], taskID, tk)
	m.Restore(0, []Received{enrolled(0), enrolled(1), enrolled(2), updated(t, 0, 1), updated(t, 1, 1), updated(t, 2, 1), evaluated(0, model), evaluated(1, model), evaluated(2, model)})
	only[Seal](t, m.Step(0, Tick{}))
	none(t, m.Step(0, Sealed{Model: model})) // was evaluated before the restart
	if m.Stage() != Done || len(m.WaitingFor()) != 0 {
		t.Errorf("%s, waits for %v", m.Stage(), m.WaitingFor())
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
		none(t, m.Step(0, e))
		if m.RoundOf(nodes[1]) != 0 || m.RoundOf(stranger) != 0 || m.roster.CID != theRoster(t).CID {
			t.Errorf("%s counts", name)
		}
	}
	none(t, m.Step(0, updated(t, 1, 1)))
	if m.RoundOf(nodes[1]) != 1 {
		t.Fatal("the right one does not count")
	}
	// Another one for the same round does not replace it, nor an older one a newer.
	none(t, m.Step(0, edited(updated(t, 1, 1), func(u *task.Update) { u.Params = []float64{7, 7} })))
	none(t, m.Step(0, updated(t, 1, 3)))
	none(t, m.Step(0, updated(t, 1, 2)))
	none(t, m.Step(0, updated(t, 1, 2)))
	none(t, m.Step(0, updated(t, 1, 1)))
	var rounds []uint64
	for _, u := range m.seats[1].updates {
		rounds = append(rounds, u.round)
	}
	if !slices.Equal(rounds, []uint64{3, 2}) || m.seats[1].at(1) != nil {
		t.Errorf("held are %v", rounds)
	}

	// Before there is a roster, the first enrolment of each counts.
	m = New(nodes[0], taskID, newTask(5))
	none(t, m.Step(0, enrolled(1)))
	none(t, m.Step(0, another))
	none(t, m.Step(0, Received{CID: another.CID, Author: stranger, Body: another.Body}))
	none(t, m.Step(0, enrolled(0)))
	if train := only[Train](t, m.Step(0, enrolled(2))); train.Roster.CID != theRoster(t).CID {
		t.Error("a second enrolment counts")
	}
	if e, ok := m.Enrolment(nodes[1]); !ok || e.CID != enrolled(1).CID {
		t.Errorf("enrolment %+v", e)
	}
	if _, ok := m.Enrolment(stranger); ok {
		t.Error("a stranger is enrolled")
	}
}

func TestTheSameRoundIsMixedNotTheNewest(t *testing.T) {
	m := started(t, 0, newTask(5))
	none(t, m.Step(0, updated(t, 1, 2))) // overtakes
	none(t, m.Step(0, updated(t, 1, 1)))
	none(t, m.Step(0, updated(t, 2, 1)))
	only[Publish](t, m.Step(0, Trained{Round: 1, Params: vector(0, 1)}))
	train := only[Train](t, m.Step(0, updated(t, 0, 1)))
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
	if len(m.early) > 2*len(nodes) {
		t.Errorf("%d updates are held", len(m.early))
	}
	none(t, m.Step(0, enrolled(0)))
	none(t, m.Step(0, enrolled(1)))
	m.Step(0, enrolled(2))
	if m.RoundOf(nodes[1]) != 500 || m.RoundOf(nodes[2]) != 1 || m.early != nil {
		t.Errorf("rounds %d and %d", m.RoundOf(nodes[1]), m.RoundOf(nodes[2]))
	}
}

func TestTrainedForAnOldRound(t *testing.T) {
	m := started(t, 0, newTask(9))
	// The own update of a former life comes back from a peer.
	none(t, m.Step(0, updated(t, 1, 1)))
	none(t, m.Step(0, updated(t, 2, 1)))
	train := only[Train](t, m.Step(0, updated(t, 0, 1)))
	if train.Round != 2 {
		t.Fatalf("round %d", train.Round)
	}
	none(t, m.Step(0, Trained{Round: 1, Params: vector(0, 1)}))
	none(t, m.Step(0, Trained{Round: 0}))
	none(t, m.Step(0, Tick{}))
	only[Publish](t, m.Step(0, Trained{Round: 2, Params: vector(0, 2)}))
}

func TestTheSilentArePassedOver(t *testing.T) {
	m := started(t, 0, newTask(9))
	only[Publish](t, m.Step(time.Second, Trained{Round: 1, Params: vector(0, 1)}))
	wake := only[Wake](t, m.Step(time.Second, updated(t, 0, 1)))
	if wake.At != time.Second+firstPatience {
		t.Errorf("wake at %v", wake.At)
	}
	if got := only[Wake](t, m.Step(2*time.Second, updated(t, 1, 1))); got != wake {
		t.Errorf("wake at %v", got.At)
	}
	if got := only[Wake](t, m.Step(wake.At-1, Tick{})); got != wake {
		t.Errorf("wake at %v", got.At)
	}
	train := only[Train](t, m.Step(wake.At, Tick{}))
	if train.Round != 2 || !slices.Equal(train.From, mean(t, 1, 1, 0)) {
		t.Errorf("round %d from %v, want %v", train.Round, train.From, mean(t, 1, 1, 0))
	}
	// Its next update counts from then on, though it is old.
	none(t, m.Step(wake.At, updated(t, 2, 1)))
	none(t, m.Step(wake.At, updated(t, 1, 2)))
	only[Publish](t, m.Step(wake.At, Trained{Round: 2, Params: vector(0, 2)}))
	later := only[Wake](t, m.Step(wake.At, updated(t, 0, 2))).At
	if later != wake.At+firstPatience<<1 {
		t.Errorf("who was wrongly held silent is given until %v, not %v", later, wake.At+firstPatience<<1)
	}
	train = only[Train](t, m.Step(later, Tick{}))
	if !slices.Equal(train.From, mean(t, 2, 2, 1)) {
		t.Errorf("from %v, want %v", train.From, mean(t, 2, 2, 1))
	}
}

func TestALaggardJumps(t *testing.T) {
	m := started(t, 0, newTask(9))
	none(t, m.Step(0, updated(t, 1, 5)))
	none(t, m.Step(0, updated(t, 2, 4)))
	only[Publish](t, m.Step(0, Trained{Round: 1, Params: vector(0, 1)}))
	train := only[Train](t, m.Step(0, updated(t, 0, 1)))
	if train.Round != 5 || !slices.Equal(train.From, mean(t, 1, 5, 4)) {
		t.Errorf("round %d from %v", train.Round, train.From)
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
		m.Restore(0, []Received{enrolled(0), enrolled(1), enrolled(2), updated(t, 0, 2), own, edited(updated(t, 1, 3), settled), updated(t, 2, 2)})
		effects := m.Step(1000*time.Hour, Tick{})
		if !rest {
			if train := only[Train](t, effects); train.Round != 4 {
				t.Errorf("round %d", train.Round)
			}
			continue
		}
		none(t, effects)
		// The awaited update was the last.
		seal := only[Seal](t, m.Step(1000*time.Hour, edited(updated(t, 2, 3), settled)))
		if seal.Model.Round != 3 || !slices.Equal(seal.Model.Params, mean(t, 3, 3, 3)) {
			t.Errorf("sealed round %d", seal.Model.Round)
		}
		// It was not: so the others go on, and with them this node.
		m = New(nodes[0], taskID, tk)
		m.Restore(0, []Received{enrolled(0), enrolled(1), enrolled(2), own, edited(updated(t, 1, 3), settled)})
		none(t, m.Step(1000*time.Hour, Tick{}))
		if train := only[Train](t, m.Step(1000*time.Hour, updated(t, 2, 3))); train.Round != 4 {
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
			m.Step(0, edited(updated(t, i, round), func(u *task.Update) { u.Params = params }))
		}
		publish := only[Publish](t, m.Step(0, Trained{Round: round, Params: params}))
		u := publish.Body.(task.Update)
		m.Step(0, Received{CID: name("own", round), Author: nodes[0], Number: round, Body: u})
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
	for i := range nodes {
		none(t, m.Step(0, enrolled(i)))
	}
	none(t, m.Step(0, updated(t, 0, 1)))
	none(t, m.Step(time.Hour, Tick{}))
	none(t, m.Step(time.Hour, Trained{Round: 1, Params: vector(0, 1)}))
	if m.Stage() != Training || m.Round() != 1 || !slices.Equal(m.WaitingFor(), nodes[1:]) {
		t.Errorf("%s, round %d, waits for %v", m.Stage(), m.Round(), m.WaitingFor())
	}
	none(t, m.Step(time.Hour, updated(t, 2, 2)))
	none(t, m.Step(time.Hour, updated(t, 1, 2)))
	seal := only[Seal](t, m.Step(time.Hour, updated(t, 0, 2)))
	if !slices.Equal(seal.Model.Params, mean(t, 2, 2, 2)) {
		t.Errorf("sealed %v", seal.Model.Params)
	}
	model := name("model")
	none(t, m.Step(time.Hour, Sealed{Model: model}))
	for i := range nodes {
		none(t, m.Step(time.Hour, evaluated(i, model)))
	}
	if m.Stage() != Done {
		t.Errorf("%s", m.Stage())
	}
}

// site is a simulated node: a store, and what the machine asked for.
type site struct {
	machine *Member
	held    []Received
	training,
	dead bool
	round  uint64
	from   []float64
	wakeAt time.Duration
}

// history runs nodes over a network that delivers in any order, or hardly ever,
// with restarts, and returns every record that was signed. It fails where two
// models are sealed, a node signs twice for one round, or a round follows the
// last.
func history(t rapid.TB, tk task.Task, rng *rand.Rand) []Received {
	t.Helper()
	var log []Received
	sites := make([]*site, len(nodes))
	var sealed *task.Model
	now := time.Duration(0)
	var step func(i int, e Event)
	hold := func(i int, r Received) {
		s := sites[i]
		same := func(h Received) bool { return h.Author == r.Author && reflect.TypeOf(h.Body) == reflect.TypeOf(r.Body) }
		if slices.ContainsFunc(s.held, func(h Received) bool { return same(h) && h.Number == r.Number }) {
			return
		}
		s.held = append(s.held, r)
		if _, ok := r.Body.(task.Update); ok {
			var rounds []uint64
			for _, h := range s.held {
				if same(h) {
					rounds = append(rounds, h.Number)
				}
			}
			if len(rounds) > 2 {
				s.held = slices.DeleteFunc(s.held, func(h Received) bool { return same(h) && h.Number == slices.Min(rounds) })
			}
		}
		step(i, r)
	}
	step = func(i int, e Event) {
		s := sites[i]
		for _, effect := range s.machine.Step(now, e) {
			switch e := effect.(type) {
			case Publish:
				r := Received{CID: name(e.Kind, i, e.Number, e.Body), Author: nodes[i], Number: e.Number, Body: e.Body}
				if e.Kind == record.KindUpdate {
					if e.Number > tk.Rounds || sealed != nil && e.Number > sealed.Round {
						t.Fatalf("node %d signs round %d after the last", i, e.Number)
					}
					for _, l := range log {
						if _, ok := l.Body.(task.Update); ok && l.Author == r.Author && l.Number == r.Number {
							t.Fatalf("node %d signs round %d twice", i, e.Number)
						}
					}
				}
				log = append(log, r)
				hold(i, r)
			case Train:
				if s.training {
					t.Fatalf("node %d is asked to train twice at once", i)
				}
				s.training, s.round, s.from = true, e.Round, e.From
			case Seal:
				if sealed != nil && !reflect.DeepEqual(*sealed, e.Model) {
					t.Fatalf("node %d seals another model", i)
				}
				sealed = &e.Model
				step(i, Sealed{Model: name("model", fmt.Sprint(e.Model.Params))})
			case Evaluate:
				step(i, Evaluated{Evaluation: evaluated(i, e.CID).Body.(task.Evaluation)})
			case Wake:
				s.wakeAt = e.At
			}
		}
	}
	for i := range nodes {
		sites[i] = &site{machine: New(nodes[i], taskID, tk)}
	}
	for range 100_000 {
		i, j := rng.IntN(len(nodes)), rng.IntN(len(nodes))
		s := sites[i]
		now += time.Duration(rng.ExpFloat64() * float64(time.Second))
		switch rng.IntN(8) {
		case 0:
			step(i, Enrol{Enrolment: enrolled(i).Body.(task.Enrolment)})
		case 1, 2:
			if s.training {
				s.training = false
				params := make([]float64, len(s.from))
				for k, x := range s.from {
					params[k] = x + (float64(i*(k+1))-x)/2
				}
				step(i, Trained{Round: s.round, Params: params})
			}
		case 3:
			if s.wakeAt != 0 {
				now, s.wakeAt = max(now, s.wakeAt), 0
				step(i, Tick{})
			}
		case 4:
			if rng.IntN(10) == 0 { // a restart, in another order of records
				held := slices.Clone(s.held)
				rng.Shuffle(len(held), func(a, b int) { held[a], held[b] = held[b], held[a] })
				s.machine, s.training, s.wakeAt = New(nodes[i], taskID, tk), false, 0
				s.machine.Restore(now, held)
				step(i, Tick{})
			}
		default:
			if n := len(sites[j].held); i != j && n > 0 {
				hold(i, sites[j].held[rng.IntN(n)])
			}
		}
		if !slices.ContainsFunc(sites, func(s *site) bool { return s.machine.Stage() != Done }) {
			return log
		}
	}
	for i, s := range sites {
		t.Errorf("node %d: %s, round %d, waits for %v", i, s.machine.Stage(), s.machine.Round(), s.machine.WaitingFor())
	}
	t.Fatal("the run does not end")
	return nil
}

// view is all that a machine tells.
func view(t rapid.TB, m *Member) string {
	cid, model := m.Model()
	s := fmt.Sprint(m.Stage(), " round ", m.Round(), " waits for ", m.WaitingFor(), " model ", cid)
	if model != nil {
		s += fmt.Sprintf(" %b of round %d", model.Params, model.Round)
		results, err := m.Results()
		if err != nil {
			t.Fatal(err)
		}
		s += fmt.Sprint(results.Missing)
	}
	for _, id := range append(slices.Clone(nodes), stranger) {
		s += fmt.Sprint(" ", m.RoundOf(id), m.HasEvaluated(id))
	}
	return s
}

// feed gives a machine an event and stores what it seals.
func feed(m *Member, now time.Duration, e Event) {
	for _, effect := range m.Step(now, e) {
		if seal, ok := effect.(Seal); ok {
			feed(m, now, Sealed{Model: name("model", fmt.Sprint(seal.Model.Params))})
		}
	}
}

func TestTheStateIsAFunctionOfTheRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tk := newTask(uint64(rapid.IntRange(1, 12).Draw(t, "rounds")))
		if rapid.Bool().Draw(t, "ends early") {
			tk.Rounds, tk.Tolerance = 60, .01
		}
		log := history(t, tk, rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "history"), 0)))
		records := rapid.Permutation(log).Draw(t, "order")
		records = records[:rapid.IntRange(0, len(log)).Draw(t, "held")]
		if rapid.Bool().Draw(t, "all") {
			records = rapid.Permutation(log).Draw(t, "order of all")
		}
		self := append(slices.Clone(nodes), stranger)[rapid.IntRange(0, 3).Draw(t, "self")]

		live := New(self, taskID, tk)
		now := time.Duration(0)
		for _, r := range records {
			now += time.Duration(rapid.IntRange(0, 1000).Draw(t, "pause")) * 100 * time.Millisecond
			for range rapid.IntRange(1, 2).Draw(t, "copies") {
				feed(live, now, r)
			}
			if rapid.Bool().Draw(t, "tick") {
				feed(live, now, Tick{})
			}
		}
		restored := New(self, taskID, tk)
		restored.Restore(now, rapid.Permutation(records).Draw(t, "order in the store"))
		feed(restored, now, Tick{})
		if a, b := view(t, live), view(t, restored); a != b {
			t.Fatalf("live:     %s\nrestored: %s", a, b)
		}
	})
}

func TestPace(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		name  string
		heard []time.Duration // at these times, having been waited for since the one before
		from  time.Duration   // waited for since
		want  time.Duration   // silent at
	}{
		{"never heard", nil, 0, 30 * s},
		{"never heard, waited for later", nil, 10 * s, 40 * s},
		{"heard once, soon", []time.Duration{s}, 0, s + 5*s},
		{"heard once, after 20 s", []time.Duration{20 * s}, 0, 20*s + 80*s},
		{"waited for after it was heard", []time.Duration{20 * s}, 50 * s, 50*s + 80*s},
		{"slow once, then fast", []time.Duration{20 * s, 21 * s}, 0, 21*s + 4*20*s*7/8},
		{"silent once: twice the patience, the pause is not learnt", []time.Duration{30 * s}, 0, 30*s + 60*s},
		{"silent, then in time: the doubt goes", []time.Duration{30 * s, 32 * s}, 0, 32*s + 8*s},
		{"silent again and again", []time.Duration{30 * s, 90 * s, 210 * s}, 0, 210*s + 240*s},
	} {
		var p pace
		p.start(0)
		since := time.Duration(0)
		for _, at := range c.heard {
			p.heard(at, since)
			since = at
		}
		if got := p.silentAt(c.from); got != c.want {
			t.Errorf("%s: silent at %v, want %v", c.name, got, c.want)
		}
	}
	// However often it was silent, its patience stays finite and grows no more.
	var p pace
	last := time.Duration(0)
	for range 100 {
		last = p.silentAt(0)
		p.heard(last, 0)
	}
	if got := p.silentAt(0) - last; got != firstPatience<<maxDoubt {
		t.Errorf("patience %v", got)
	}
	// A fast node that was slow once is fast again after a while.
	p = pace{}
	p.heard(29*s, 0)
	for i := range 100 {
		p.heard(29*s+time.Duration(i+1)*10*time.Millisecond, 0)
	}
	if got := p.silentAt(0) - p.last; got != leastPatience {
		t.Errorf("patience %v", got)
	}
}

func TestDistance(t *testing.T) {
	if d := distance([]float64{1, -2, 3}, []float64{1, 2, 2.5}); d != 4 || distance(nil, nil) != 0 || math.IsNaN(d) {
		t.Errorf("distance %g", d)
	}
}
