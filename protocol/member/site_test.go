package member

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/record"
	"village/protocol/task"
)

// rows are n rows of a table whose column split says that every fourth is for
// testing; the class depends on a.
func rows(seed uint64, n int) dataset.Table {
	rng := rand.New(rand.NewPCG(seed, 2))
	t := dataset.Table{Columns: []string{"a", "y", "split"}}
	for i := range n {
		a, y, part := 50+10*rng.NormFloat64(), "no", "train"
		if a+10*rng.NormFloat64() > 55 {
			y = "yes"
		}
		if i%4 == 3 {
			part = "test"
		}
		t.Rows = append(t.Rows, []string{fmt.Sprintf("%.3f", a), y, part})
	}
	return t
}

// everyone is the one model of a task without a search.
var everyone = []int{0}

// params are what the local steps of a round come to, by which there is no more to
// say of a task without a search.
func params(t testing.TB, s *Site, e Train) []float64 {
	t.Helper()
	e.Kept = everyone
	got, err := s.Train(e, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Round != e.Round || got.Kept != nil || got.Losses != nil || got.Rows != 0 {
		t.Errorf("trained %+v", got)
	}
	return got.Params
}

// modelOf is a sealed model of a task.
func modelOf(tk task.Task, round uint64, scaling dataset.Scaling, params ...float64) task.Model {
	return task.Model{Round: round, Spec: tk.SpecOf(0), Params: params, Scaling: scaling}
}

func newSite(t testing.TB, i int, tk task.Task, table dataset.Table) *Site {
	t.Helper()
	s, err := NewSite(nodes[i], taskID, tk, table, "split", nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// columns parts the rows of a table by hand.
func columns(t testing.TB, table dataset.Table, part string) (s dataset.Samples) {
	t.Helper()
	s.D = 1
	for _, row := range table.Rows {
		if row[2] != part {
			continue
		}
		var a float64
		if _, err := fmt.Sscan(row[0], &a); err != nil {
			t.Fatal(err)
		}
		s.N++
		s.X = append(s.X, a)
		s.Y = append(s.Y, map[string]int{"no": 0, "yes": 1}[row[1]])
	}
	return s
}

// byHand scales samples to mean 0 and standard deviation 1 of some of them.
func byHand(s, of dataset.Samples) dataset.Samples {
	mean, variance := 0., 0.
	for _, x := range of.X {
		mean += x / float64(of.N)
	}
	for _, x := range of.X {
		variance += (x - mean) * (x - mean) / float64(of.N)
	}
	s.X = slices.Clone(s.X)
	for i := range s.X {
		s.X[i] = (s.X[i] - mean) / math.Sqrt(variance)
	}
	return s
}

func TestSiteEnrolment(t *testing.T) {
	table := rows(1, 100)
	s := newSite(t, 0, newTask(5), table)
	e := s.Enrolment(name("manifest"), "HUN", "Budapest")
	train := columns(t, table, "train")
	mean, m2 := 0., 0.
	for _, x := range train.X {
		mean += x / float64(train.N)
	}
	for _, x := range train.X {
		m2 += (x - mean) * (x - mean)
	}
	if e.Task != taskID || e.Manifest != name("manifest") || e.Nation != "HUN" || e.Node != "Budapest" || e.Moments.Count != 75 ||
		math.Abs(e.Moments.Mean[0]-mean) > 1e-12 || math.Abs(e.Moments.M2[0]-m2) > 1e-9 {
		t.Errorf("%+v, by hand %g, %g", e, mean, m2)
	}
	if train, test := s.Rows(); train != 75 || test != 25 {
		t.Errorf("%d and %d rows", train, test)
	}
	if err := task.CheckMoments(e.Moments, 1); err != nil {
		t.Error(err)
	}
}

func TestSiteRefuses(t *testing.T) {
	table := rows(1, 20)
	only := func(part string) dataset.Table {
		d := dataset.Table{Columns: table.Columns}
		for _, row := range table.Rows {
			d.Rows = append(d.Rows, []string{row[0], row[1], part})
		}
		return d
	}
	change := func(i int, cell string) dataset.Table {
		d := only("train")
		d.Rows[3][i] = cell
		return d
	}
	empty := only("train")
	for _, row := range empty.Rows {
		row[0] = ""
	}
	for name, d := range map[string]dataset.Table{
		"no rows":            {Columns: table.Columns},
		"no training rows":   only("test"),
		"an unknown class":   change(1, "maybe"),
		"no number":          change(0, "old"),
		"empty cells alone":  empty,
		"a third part":       change(2, "valid"),
		"a feature is not a": {Columns: []string{"b", "y", "split"}, Rows: table.Rows},
	} {
		if _, err := NewSite(nodes[0], taskID, newTask(5), d, "split", nil); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	// What becomes of a row with an empty cell is for the recipe to say.
	gap := newSite(t, 0, newTask(5), change(0, ""))
	if train, _ := gap.Rows(); train != 19 || !reflect.DeepEqual(gap.LeftOut(), map[string]int{"missing a": 1}) {
		t.Errorf("%d rows, without %v", train, gap.LeftOut())
	}
	// Without test rows a node can train; it says nothing of the model.
	s := newSite(t, 0, newTask(5), only("train"))
	e, err := s.Evaluate(Evaluate{CID: name("model"), Model: modelOf(newTask(5), 1, dataset.Scaling{Mean: []float64{50}, SD: []float64{10}}, 1, 0)}, nil)
	if err != nil || e.Local.Rows != 0 || e.Federated.Check(2, 0) != nil || e.Personal.Check(2, 0) != nil {
		t.Errorf("%+v, %v", e, err)
	}
}

// The largest rows that a dataset may have make a roster with any others.
func TestSitesOfHugeRowsMakeARoster(t *testing.T) {
	var parts []task.Enrolled
	for i, cell := range []string{"9.99e99", "-9.99e99", "1"} {
		table := rows(uint64(i), 20)
		for _, row := range table.Rows {
			row[0] = cell
		}
		table.Rows[0][0] = "-9e99"
		parts = append(parts, task.Enrolled{CID: name(i), Author: nodes[i], Enrolment: newSite(t, i, newTask(5), table).Enrolment(name(i), "HUN", "x")})
	}
	if _, err := task.RosterOf(newTask(5), parts); err != nil {
		t.Error(err)
	}
}

func TestSiteTrain(t *testing.T) {
	tk := newTask(5)
	tables := []dataset.Table{rows(1, 100), rows(2, 40), rows(3, 60)}
	var parts []task.Enrolled
	var all dataset.Samples
	for i, table := range tables {
		s := newSite(t, i, tk, table)
		parts = append(parts, task.Enrolled{CID: name(i), Author: nodes[i], Enrolment: s.Enrolment(name(i), "HUN", "x")})
		train := columns(t, table, "train")
		all.N, all.D, all.X = all.N+train.N, 1, append(all.X, train.X...)
	}
	roster, err := task.RosterOf(newTask(5), parts)
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, 1, tk, tables[1])
	from := []float64{.3, -.2}
	got := params(t, s, Train{Round: 1, From: from, Roster: roster})
	if !slices.Equal(from, []float64{.3, -.2}) {
		t.Fatal(from)
	}
	// Gradient descent by hand, under the scaling of all the nodes' rows.
	data := byHand(columns(t, tables[1], "train"), all)
	w, b := .3, -.2
	for range tk.LocalSteps {
		dw, db := tk.L2*w, 0.
		for i, x := range data.X {
			e := 1/(1+math.Exp(-w*x-b)) - float64(data.Y[i])
			dw += e * x / float64(data.N)
			db += e / float64(data.N)
		}
		w, b = w-tk.LearningRate*dw, b-tk.LearningRate*db
	}
	if math.Abs(got[0]-w) > 1e-12 || math.Abs(got[1]-b) > 1e-12 {
		t.Errorf("%v, by hand %g %g", got, w, b)
	}
	// The rows stay as they are, whatever scaling they are seen under.
	other := roster
	other.CID, other.Scaling = name("other"), dataset.Scaling{Mean: []float64{0}, SD: []float64{100}}
	if far := params(t, s, Train{Round: 1, From: from, Roster: other}); slices.Equal(far, got) {
		t.Errorf("another scaling comes to the same %v", far)
	}
	if again := params(t, s, Train{Round: 1, From: from, Roster: roster}); !slices.Equal(again, got) {
		t.Errorf("%v, then %v", got, again)
	}
}

func TestBatchesDifferByRoundAndNode(t *testing.T) {
	tk := newTask(5)
	tk.Batch = 3
	table := rows(1, 100)
	roster := task.Roster{CID: name("roster"), Scaling: dataset.Scaling{Mean: []float64{50}, SD: []float64{10}}}
	seen := map[string]string{}
	for i := range nodes {
		for round := range uint64(4) {
			for range 2 {
				got := fmt.Sprint(params(t, newSite(t, i, tk, table), Train{Round: round + 1, From: []float64{0, 0}, Roster: roster}))
				who := fmt.Sprint("node ", i, " round ", round+1)
				if before, ok := seen[got]; ok && before != who {
					t.Errorf("%s draws the batches of %s", who, before)
				}
				seen[got] = who
			}
		}
	}
	if len(seen) != 3*4 {
		t.Errorf("%d outcomes of 12: the same round is not repeatable", len(seen))
	}
	if seed(taskID) == seed(name("another task")) {
		t.Error("another task draws alike")
	}
}

func TestSiteEvaluate(t *testing.T) {
	tk := newTask(7)
	table := rows(4, 200)
	s := newSite(t, 2, tk, table)
	train, test := columns(t, table, "train"), columns(t, table, "test")
	model := modelOf(tk, 3, dataset.Scaling{Mean: []float64{20}, SD: []float64{3}}, 1.5, -.25)
	got, err := s.Evaluate(Evaluate{CID: name("model"), Model: model}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Alone: the best that the own rows give under their own scaling.
	spec, alone, err := tk.SpecOf(0).Alone(byHand(train, train), tk.Seed, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := spec.Count(alone, byHand(test, train)); !reflect.DeepEqual(got.Local, want) {
		t.Errorf("alone %+v, by hand %+v", got.Local.Confusion, want.Confusion)
	}
	shared := func(s dataset.Samples) dataset.Samples {
		s.X = slices.Clone(s.X)
		for i := range s.X {
			s.X[i] = (s.X[i] - 20) / 3
		}
		return s
	}
	if want := tk.SpecOf(0).Count(model.Params, shared(test)); !reflect.DeepEqual(got.Federated, want) {
		t.Errorf("federated %+v, by hand %+v", got.Federated.Confusion, want.Confusion)
	}
	// With a bias of its own: that which fits the own training rows best.
	fitted, err := tk.SpecOf(0).Fit(model.Params, shared(train), learn.Bias, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := tk.SpecOf(0).Count(fitted, shared(test)); !reflect.DeepEqual(got.Personal, want) || fitted[0] != 1.5 || reflect.DeepEqual(got.Personal, got.Federated) {
		t.Errorf("with its own part %+v, by hand %+v", got.Personal.Confusion, want.Confusion)
	}
	// Row by row, which model is right.
	better, worse := uint64(0), uint64(0)
	for i, y := range test.Y {
		x := byHand(test, train).X[i]
		local, federated := alone[0]*x+alone[1] > 0, 1.5*shared(test).X[i]-.25 > 0
		switch right := y == 1; {
		case local != right && federated == right:
			better++
		case local == right && federated != right:
			worse++
		}
	}
	if got.Better != better || got.Worse != worse || worse == 0 {
		t.Errorf("%d rows better and %d worse, by hand %d and %d", got.Better, got.Worse, better, worse)
	}
	if got.Model != name("model") || got.Task != taskID || got.Local.Rows != 50 || got.Parent != nil {
		t.Errorf("%+v", got)
	}
	// The federation's scaling does not touch what the node reaches alone.
	model.Scaling = dataset.Scaling{Mean: []float64{-1e6}, SD: []float64{1e-3}}
	again, err := s.Evaluate(Evaluate{CID: name("model"), Model: model}, nil)
	if err != nil || !reflect.DeepEqual(again.Local, got.Local) || reflect.DeepEqual(again.Federated, got.Federated) {
		t.Errorf("with another scaling of the model %+v, %v", again, err)
	}
}

func TestRowsOfOneClass(t *testing.T) {
	for name, edit := range map[string]func(*dataset.Table){
		"all positive":              func(d *dataset.Table) {},
		"all positive and constant": func(d *dataset.Table) { constant(d, "7") },
		"one row":                   func(d *dataset.Table) { d.Rows = d.Rows[:1] },
		"huge":                      func(d *dataset.Table) { constant(d, "9e99"); d.Rows[0][0] = "-9e99" },
	} {
		table := rows(5, 40)
		for _, row := range table.Rows {
			row[1] = "yes"
		}
		edit(&table)
		tk := newTask(5)
		tk.L2 = 0
		s := newSite(t, 0, tk, table)
		e := s.Enrolment(record.CIDOf(nil), "HUN", "x")
		roster, err := task.RosterOf(newTask(5), []task.Enrolled{{CID: record.CIDOf(nil), Author: nodes[0], Enrolment: e}})
		if err != nil {
			t.Fatal(err)
		}
		at := tk.First(nil)
		for round := range uint64(50) {
			at = params(t, s, Train{Round: round + 1, From: at, Roster: roster})
		}
		evaluation, err := s.Evaluate(Evaluate{Model: modelOf(tk, 50, roster.Scaling, at...)}, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for model, c := range map[string]learn.Counts{"federated": evaluation.Federated, "own part": evaluation.Personal, "alone": evaluation.Local} {
			report := c.Report([]string{"no", "yes"}, "yes")
			if c.Check(2, 0) != nil || report.ROCAUC != nil || report.Accuracy != nil && *report.Accuracy != 1 {
				t.Errorf("%s, %s: %+v", name, model, report)
			}
		}
	}
}

func constant(d *dataset.Table, cell string) {
	for _, row := range d.Rows {
		row[0] = cell
	}
}

// Parameters that no peer would take must not reach the machine, which relies
// on being able to mix them.
func TestParametersThatGrowTooLargeAreAnError(t *testing.T) {
	tk := newTask(5)
	tk.LearningRate, tk.L2, tk.LocalSteps = 1e6, 1e6, 1
	if err := tk.Check(); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, 0, tk, rows(1, 40))
	roster := task.Roster{CID: name("roster"), Scaling: s.moments.Scaling()}
	for _, steps := range []uint64{1, 100} { // finite, then not
		s.task.LocalSteps = steps
		if got, err := s.Train(Train{Round: 1, From: []float64{.01, 0}, Kept: everyone, Roster: roster}, nil); err == nil || !strings.Contains(err.Error(), "rate") {
			t.Errorf("%d steps: %+v, %v", steps, got, err)
		}
	}
}

// Work says now and then that it gets on, training after each step, and ends when
// it is told to.
func TestSiteWorkIsWatched(t *testing.T) {
	tk, table := wide(4000)
	s := newSite(t, 0, tk, table)
	roster := sitesRoster(t, s)
	enough := errors.New("enough")
	for name, work := range map[string]func(func() error) error{
		"train": func(progress func() error) error {
			_, err := s.Train(Train{Round: 1, From: tk.First(nil), Kept: everyone, Roster: roster}, progress)
			return err
		},
		"evaluate": func(progress func() error) error {
			_, err := s.Evaluate(Evaluate{CID: taskID, Model: modelOf(tk, 1, roster.Scaling, tk.First(nil)...)}, progress)
			return err
		},
	} {
		signs := uint64(0)
		if err := work(func() error { signs++; return nil }); err != nil || signs < 2 || name == "train" && signs != tk.LocalSteps {
			t.Errorf("%s: %d signs, %v", name, signs, err)
		}
		for _, stop := range []uint64{1, signs} {
			signs := uint64(0)
			err := work(func() error {
				if signs++; signs == stop {
					return enough
				}
				return nil
			})
			if !errors.Is(err, enough) || signs != stop {
				t.Errorf("%s: told to end at sign %d, it ended at %d: %v", name, stop, signs, err)
			}
		}
	}
}

// sitesRoster is the roster of some sites.
func sitesRoster(t testing.TB, sites ...*Site) task.Roster {
	t.Helper()
	var parts []task.Enrolled
	for i, s := range sites {
		parts = append(parts, task.Enrolled{CID: name("enrolment", i), Author: s.self, Enrolment: s.Enrolment(name("manifest", i), "HUN", "x")})
	}
	r, err := task.RosterOf(sites[0].task, parts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wide are so many rows of so many features that what takes no steps takes a while.
func wide(n int) (task.Task, dataset.Table) {
	tk, table := newTask(7), rows(1, n)
	tk.Encoding.Features = nil
	for i := range 40 {
		tk.Encoding.Features = append(tk.Encoding.Features, dataset.FeatureSpec{Name: fmt.Sprint("a", i), Kind: dataset.Numeric})
		table.Columns = append(table.Columns, fmt.Sprint("a", i))
	}
	rng := rand.New(rand.NewPCG(1, 3))
	for i := range table.Rows {
		for range 40 {
			table.Rows[i] = append(table.Rows[i], fmt.Sprint(rng.NormFloat64()))
		}
	}
	return tk, table
}
