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
	"village/protocol/mixing"
	"village/protocol/task"
)

// line is a task that predicts y from a: a numeric target, two parameters.
func line(rounds uint64) task.Task {
	t := newTask(rounds)
	t.Encoding.Classes, t.Encoding.Positive, t.Model, t.L2 = nil, "", learn.Linear, 0
	return t
}

// slopes are rows of a numeric target: y = slope·a + shift and some noise, with a
// around a middle of its own.
func slopes(seed uint64, n int, middle, slope, shift float64) dataset.Table {
	rng := rand.New(rand.NewPCG(seed, 4))
	t := dataset.Table{Columns: []string{"a", "y", "split"}}
	for i := range n {
		a := middle + rng.NormFloat64()
		t.Rows = append(t.Rows, []string{fmt.Sprintf("%.4f", a), fmt.Sprintf("%.4f", slope*a+shift+rng.NormFloat64()/4), []string{"train", "train", "train", "test"}[i%4]})
	}
	return t
}

// unequal are three sites of a task whose rows say something else each.
func unequal(t testing.TB, tk task.Task) []*Site {
	return []*Site{
		newSite(t, 0, tk, slopes(1, 80, 0, 2, 1)),
		newSite(t, 1, tk, slopes(2, 24, 3, -1, 0)),
		newSite(t, 2, tk, slopes(3, 40, -2, .5, -4)),
	}
}

// federate runs rounds of sites that mix everything, and returns what the next one
// would set out from. Each site's progress may end its steps early.
func federate(t testing.TB, tk task.Task, sites []*Site, rounds int, progress ...func() func() error) task.State {
	t.Helper()
	roster := sitesRoster(t, sites...)
	mix := tk.First(nil)
	own := make([][]float64, len(sites))
	for round := range rounds {
		sum := mixing.NewSum(len(mix))
		for i, s := range sites {
			var p func() error
			if len(progress) > 0 && progress[i] != nil {
				p = progress[i]()
			}
			before := slices.Clone(mix)
			out, err := s.Train(Train{Round: uint64(round + 1), From: mix, Own: own[i], Kept: everyone, Roster: roster}, p)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(mix, before) {
				t.Fatal("training changes the mix")
			}
			own[i] = out.Params
			if err := sum.Add(s.moments.Count, out.Params); err != nil {
				t.Fatal(err)
			}
		}
		mix = sum.Mean()
	}
	return tk.Advance(everyone, mix)[0]
}

// pooled are the parameters that fit the rows of all sites together best, under the
// scaling of their roster, by least squares.
func pooled(t testing.TB, sites ...*Site) []float64 {
	t.Helper()
	roster := sitesRoster(t, sites...)
	var n, x, y, xx, xy float64
	for _, s := range sites {
		rows := scaledBy(s.train, roster.Scaling)
		for i := range rows.N {
			n, x, y, xx, xy = n+1, x+rows.X[i], y+rows.T[i], xx+rows.X[i]*rows.X[i], xy+rows.X[i]*rows.T[i]
		}
	}
	slope := (n*xy - x*y) / (n*xx - x*x)
	return []float64{slope, (y - slope*x) / n}
}

func apart(a, b []float64) (d float64) {
	for i := range a {
		d = max(d, math.Abs(a[i]-b[i]))
	}
	return d
}

// Many local steps at unequal nodes take plain averaging to where nobody wants to be;
// with control variates it is the optimum of all rows.
func TestScaffoldReachesTheOptimumOfAllRows(t *testing.T) {
	tk := line(20)
	tk.LocalSteps, tk.LearningRate = 50, .05
	best := pooled(t, unequal(t, tk)...)
	plain := federate(t, tk, unequal(t, tk), 400)
	if d := apart(plain.Params, best); d < .05 {
		t.Fatalf("plain steps come to %v, %g from the optimum %v", plain.Params, d, best)
	}
	tk.Scaffold = true
	got := federate(t, tk, unequal(t, tk), 400)
	if d := apart(got.Params, best); d > 1e-6 {
		t.Errorf("with control variates they come to %v, %g from the optimum %v", got.Params, d, best)
	}
	// Each node's variate is its gradient there, and all together are none.
	for _, x := range got.Control {
		if math.Abs(x) > 1e-6 {
			t.Errorf("the variates come to %v, not to the gradient of all rows", got.Control)
		}
	}
}

// Algorithm 1 of Karimireddy et al. 2020 with option II, written down plainly, comes
// to the same in every round.
func TestScaffoldStepByStep(t *testing.T) {
	tk := line(20)
	tk.Scaffold, tk.LocalSteps, tk.LearningRate, tk.L2 = true, 7, .1, .05
	sites := unequal(t, tk)
	roster := sitesRoster(t, sites...)
	var rows []dataset.Samples
	total := 0.0
	for _, s := range sites {
		rows = append(rows, scaledBy(s.train, roster.Scaling))
		total += float64(s.train.N)
	}
	x, c := []float64{0, 0}, []float64{0, 0}
	variates := [][]float64{{0, 0}, {0, 0}, {0, 0}}
	for round := 1; round <= 6; round++ {
		next, nextC := make([]float64, 2), make([]float64, 2)
		for i, data := range rows {
			y := slices.Clone(x)
			for range tk.LocalSteps {
				grad := []float64{tk.L2 * y[0], 0}
				for r := range data.N {
					e := (y[0]*data.X[r] + y[1] - data.T[r]) / float64(data.N)
					grad[0], grad[1] = grad[0]+e*data.X[r], grad[1]+e
				}
				for j := range y {
					y[j] -= tk.LearningRate * (grad[j] - variates[i][j] + c[j])
				}
			}
			share := float64(data.N) / total
			for j := range y {
				variates[i][j] += -c[j] + (x[j]-y[j])/(float64(tk.LocalSteps)*tk.LearningRate)
				next[j] += share * y[j]
				nextC[j] += share * variates[i][j]
			}
		}
		x, c = next, nextC
		got := federate(t, tk, unequal(t, tk), round)
		if apart(got.Params, x) > 1e-9 || apart(got.Control, c) > 1e-9 {
			t.Fatalf("round %d: %v with variates %v, by hand %v with %v", round, got.Params, got.Control, x, c)
		}
	}
}

// after ends local steps after so many.
func after(steps int) func() func() error {
	return func() func() error {
		made := 0
		return func() error {
			if made++; made == steps {
				return learn.ErrEnough
			}
			return nil
		}
	}
}

// A node that makes a part of its steps sends the same direction, as far as all steps
// would go: FedNova.
func TestStepsThatAreCutShort(t *testing.T) {
	for _, made := range []int{1, 4, 8, 9, 20} {
		tk := line(20)
		tk.LocalSteps, tk.LearningRate = 20, .05
		s := unequal(t, tk)[0]
		e := Train{Round: 1, From: []float64{.5, -.5}, Kept: everyone, Roster: sitesRoster(t, unequal(t, tk)...)}
		got, err := s.Train(e, after(made)())
		if err != nil {
			t.Fatal(err)
		}
		tk.LocalSteps = uint64(made)
		few, err := unequal(t, tk)[0].Train(e, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, from := range e.From {
			if want := from + 20/float64(made)*(few.Params[i]-from); math.Abs(got.Params[i]-want) > 1e-12 {
				t.Errorf("after %d of 20 steps parameter %d is %g, want %g", made, i, got.Params[i], want)
			}
		}
	}
	// Anything else that ends the steps is an error.
	tk, stop := line(20), errors.New("stop")
	if _, err := unequal(t, tk)[0].Train(Train{Round: 1, From: []float64{0, 0}, Kept: everyone, Roster: sitesRoster(t, unequal(t, tk)...)}, func() error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}

// That some nodes make few steps does not move where training ends.
func TestSlowNodesDoNotBiasTheFixedPoint(t *testing.T) {
	tk := line(20)
	tk.LocalSteps, tk.LearningRate = 10, .002
	best := pooled(t, unequal(t, tk)...)
	cut := federate(t, tk, unequal(t, tk), 3000, nil, after(2), after(5))
	if d := apart(cut.Params, best); d > .01 {
		t.Errorf("with two that are slow it comes to %v, %g from the optimum %v", cut.Params, d, best)
	}
	// Were their changes taken as they are, it would be somewhere else.
	x := []float64{0, 0}
	sites := unequal(t, tk)
	roster := sitesRoster(t, sites...)
	for range 3000 {
		sum := mixing.NewSum(2)
		for i, s := range sites {
			s.task.LocalSteps = []uint64{10, 2, 5}[i]
			if err := sum.Add(s.moments.Count, params(t, s, Train{Round: 1, From: x, Roster: roster})); err != nil {
				t.Fatal(err)
			}
		}
		x = sum.Mean()
	}
	if d := apart(x, best); d < .1 {
		t.Errorf("the example says nothing: taken as they are, the changes lead to %v, %g from the optimum", x, d)
	}
}

// FedProx pulls each local step to where the round set out from.
func TestProx(t *testing.T) {
	tk := line(20)
	tk.Prox, tk.LearningRate = .7, .1
	if err := tk.Check(); err != nil {
		t.Fatal(err)
	}
	s := unequal(t, tk)[1]
	roster := sitesRoster(t, unequal(t, tk)...)
	data := scaledBy(s.train, roster.Scaling)
	from := []float64{.5, -.25}
	y := slices.Clone(from)
	for range tk.LocalSteps {
		grad := []float64{tk.Prox * (y[0] - from[0]), tk.Prox * (y[1] - from[1])}
		for r := range data.N {
			e := (y[0]*data.X[r] + y[1] - data.T[r]) / float64(data.N)
			grad[0], grad[1] = grad[0]+e*data.X[r], grad[1]+e
		}
		y[0], y[1] = y[0]-tk.LearningRate*grad[0], y[1]-tk.LearningRate*grad[1]
	}
	if got := params(t, s, Train{Round: 1, From: from, Roster: roster}); apart(got, y) > 1e-12 {
		t.Errorf("%v, by hand %v", got, y)
	}
}

// skewed are sites whose classes depend on a alike, but are not as frequent.
func skewed(t testing.TB, tk task.Task) (sites []*Site) {
	for i, shift := range []float64{-1.5, 0, 2} {
		rng := rand.New(rand.NewPCG(uint64(i), 5))
		table := dataset.Table{Columns: []string{"a", "y", "split"}}
		for r := range 200 {
			a, y := rng.NormFloat64(), "no"
			if a+shift+rng.NormFloat64()/3 > 0 {
				y = "yes"
			}
			table.Rows = append(table.Rows, []string{fmt.Sprintf("%.4f", a), y, []string{"train", "test"}[r%2]})
		}
		sites = append(sites, newSite(t, i, tk, table))
	}
	return sites
}

// A node's own part never leaves it, and makes the model better where nodes differ in
// just that.
func TestOwnPartsStayAtHome(t *testing.T) {
	for _, own := range []learn.Part{learn.Bias, learn.LastLayer} {
		for name, edit := range map[string]func(*task.Task){
			"logistic":   func(*task.Task) {},
			"perceptron": func(tk *task.Task) { tk.Model, tk.Hidden, tk.LearningRate = learn.MLP, []int{4, 3}, .1 },
			"outer":      func(tk *task.Task) { tk.SetOuter(learn.OuterAdam, 0) },
			"prox":       func(tk *task.Task) { tk.Prox = .1 },
			"cut short":  func(tk *task.Task) { tk.RoundTime = 1 },
			"adam": func(tk *task.Task) {
				tk.Model, tk.Hidden, tk.Optimizer, tk.LearningRate = learn.MLP, []int{3}, learn.Adam, .01
			},
		} {
			tk := newTask(20)
			tk.Personal = own
			edit(&tk)
			if err := tk.Check(); err != nil {
				t.Fatal(err)
			}
			var progress []func() func() error
			if name == "cut short" {
				progress = []func() func() error{after(1), after(2), nil}
			}
			sites := skewed(t, tk)
			roster := sitesRoster(t, sites...)
			from, to := tk.SpecOf(0).Span(own)
			for i, s := range sites {
				var p func() error
				if progress != nil && progress[i] != nil {
					p = progress[i]()
				}
				out, err := s.Train(Train{Round: 1, From: tk.First(nil), Kept: everyone, Roster: roster}, p)
				if err != nil {
					t.Fatal(err)
				}
				for _, state := range tk.States(everyone, out.Params) {
					for j := from; j < to; j++ {
						leaves := state.Params[j] != 0
						if state.Start != nil { // its second moment is what it was before anybody has trained
							leaves = leaves || state.Start[j] != 0 || state.Moments[0][j] != 0 || state.Moments[1][j] != .99*tk.Outer.Begin(1)
						}
						if leaves {
							t.Errorf("%s, %s: of node %d's own part number %d leaves: %+v", name, own, i, j-from, state)
						}
					}
				}
			}
			state := federate(t, tk, sites, 30, progress...)
			for j, x := range state.Params[from:to] {
				if x != 0 {
					t.Errorf("%s, %s: the model has %g in number %d of an own part", name, own, x, j)
				}
			}
			model := modelOf(tk, 30, roster.Scaling, state.Params...)
			var shared, personal, all float64
			for _, s := range sites {
				e, err := s.Evaluate(Evaluate{CID: name1, Model: model}, nil)
				if err != nil {
					t.Fatal(err)
				}
				shared += float64(e.Federated.Confusion[0] + e.Federated.Confusion[3])
				personal += float64(e.Personal.Confusion[0] + e.Personal.Confusion[3])
				all += float64(e.Federated.Rows)
			}
			if personal < .8*all || personal < shared+.1*all {
				t.Errorf("%s, %s: of %g rows %g are right, %g with the own part", name, own, all, shared, personal)
			}
		}
	}
}

var name1 = name("model")

// What a site sees of its own part it fits whole, however short its steps are.
func TestOwnPartsAreFittedWhole(t *testing.T) {
	tk := newTask(20)
	tk.Personal, tk.LocalSteps = learn.Bias, 4
	s := skewed(t, tk)[2]
	roster := sitesRoster(t, skewed(t, tk)...)
	e := Train{Round: 1, From: []float64{.5, 0}, Kept: everyone, Roster: roster}
	cut, err := s.Train(e, func() error { return learn.ErrEnough })
	if err != nil {
		t.Fatal(err)
	}
	// One step by hand from the bias that fits best, counted four times.
	data := scaledBy(s.train, roster.Scaling)
	fitted, err := tk.SpecOf(0).Fit(e.From, data, learn.Bias, nil)
	if err != nil || fitted[1] == 0 {
		t.Fatal(fitted, err)
	}
	grad := tk.L2 * fitted[0]
	for i := range data.N {
		grad += (1/(1+math.Exp(-fitted[0]*data.X[i]-fitted[1])) - float64(data.Y[i])) * data.X[i] / float64(data.N)
	}
	if want := .5 - 4*tk.LearningRate*grad; math.Abs(cut.Params[0]-want) > 1e-9 || cut.Params[1] != 0 {
		t.Errorf("%v, by hand %g", cut.Params, want)
	}
}

// Fitting takes the time that it needs, when the time for steps is up.
func TestFittingTheOwnPartIsNotCutShort(t *testing.T) {
	tk, table := wide(10_000)
	tk.Personal = learn.LastLayer
	s := newSite(t, 0, tk, table)
	signs := 0
	out, err := s.Train(Train{Round: 1, From: tk.First(nil), Kept: everyone, Roster: sitesRoster(t, s)}, func() error {
		signs++
		return learn.ErrEnough
	})
	if err != nil || signs < 2 {
		t.Errorf("after %d signs: %+v, %v", signs, out, err)
	}
	stop := errors.New("stop")
	if _, err := s.Train(Train{Round: 1, From: tk.First(nil), Kept: everyone, Roster: sitesRoster(t, s)}, func() error { return stop }); !errors.Is(err, stop) {
		t.Errorf("told to stop: %v", err)
	}
}

// A numeric target is scaled as the roster's rows are, and its errors are counted in
// its own unit, of whatever model.
func TestNumericTargets(t *testing.T) {
	tk := line(20)
	tk.LocalSteps, tk.LearningRate = 5, .2
	var sites []*Site
	var tables []dataset.Table
	for i, table := range []dataset.Table{slopes(1, 80, 0, 2, 1), slopes(2, 24, 3, 2, 0), slopes(3, 40, -2, 2, -4)} {
		for _, row := range table.Rows { // in another unit
			var y float64
			fmt.Sscan(row[1], &y)
			row[1] = fmt.Sprint(1000*y + 50_000)
		}
		tables = append(tables, table)
		sites = append(sites, newSite(t, i, tk, table))
	}
	e := sites[0].Enrolment(name("manifest"), "HUN", "x")
	if err := task.CheckMoments(e.Moments, tk.Columns()); err != nil || len(e.Moments.Mean) != 2 {
		t.Fatalf("%+v, %v", e.Moments, err)
	}
	// Moments of the target by hand, of the first site.
	n, mean, m2 := 0., 0., 0.
	for _, row := range tables[0].Rows {
		var y float64
		if fmt.Sscan(row[1], &y); row[2] == "train" {
			n++
			d := y - mean
			mean += d / n
			m2 += d * (y - mean)
		}
	}
	if math.Abs(e.Moments.Mean[1]-mean) > 1e-9*mean || math.Abs(e.Moments.M2[1]-m2) > 1e-9*m2 || float64(e.Moments.Count) != n {
		t.Errorf("moments %+v, by hand mean %g, m2 %g", e.Moments, mean, m2)
	}
	roster := sitesRoster(t, sites...)
	state := federate(t, tk, sites, 200)
	model := modelOf(tk, 200, roster.Scaling, state.Params...)
	model.Encoding = tk.Encoding
	for i, s := range sites {
		got, err := s.Evaluate(Evaluate{CID: name1, Model: model}, nil)
		if err != nil {
			t.Fatal(err)
		}
		squared, absolute, rows := 0., 0., 0.
		for _, row := range tables[i].Rows {
			if row[2] != "test" {
				continue
			}
			var y float64
			fmt.Sscan(row[1], &y)
			p, err := model.Predict(dataset.Table{Columns: []string{"a"}, Rows: [][]string{row[:1]}})
			if err != nil {
				t.Fatal(err)
			}
			rows++
			squared += (p[0][0] - y) * (p[0][0] - y)
			absolute += math.Abs(p[0][0] - y)
		}
		r := got.Federated.Report(nil, "")
		if r.RMSE == nil || math.Abs(*r.RMSE-math.Sqrt(squared/rows)) > 1 || math.Abs(*r.MAE-absolute/rows) > 1 {
			t.Errorf("site %d: RMSE %g and MAE %g, by hand %g and %g", i, *r.RMSE, *r.MAE, math.Sqrt(squared/rows), absolute/rows)
		}
		// Noise has a deviation of 250 in this unit.
		personal, local := got.Personal.Report(nil, ""), got.Local.Report(nil, "")
		if *personal.RMSE > *r.RMSE || *local.RMSE > 400 || *local.R2 < .9 {
			t.Errorf("site %d: RMSE %g alone, %g in the federation, %g with its own part", i, *local.RMSE, *r.RMSE, *personal.RMSE)
		}
		for _, c := range []learn.Counts{got.Local, got.Federated, got.Personal} {
			if c.Errors.Unit != roster.Scaling.SD[1] || c.Check(0, 0) != nil {
				t.Errorf("site %d counts in units of %g", i, c.Errors.Unit)
			}
		}
		// One target, from one mean: else sums over nodes would say nothing.
		for _, e := range []*learn.Errors{got.Local.Errors, got.Personal.Errors} {
			if e.Target != got.Federated.Errors.Target || e.Spread != got.Federated.Errors.Spread {
				t.Errorf("site %d sees the target as %d and %d, and as %d and %d", i, e.Target, e.Spread, got.Federated.Errors.Target, got.Federated.Errors.Spread)
			}
		}
		if got.Better != 0 || got.Worse != 0 {
			t.Errorf("numbers are right: %d better, %d worse", got.Better, got.Worse)
		}
		tally := learn.NewTally(tk.SpecOf(0))
		s.Tally(tally, Train{From: state.Params, Kept: everyone, Roster: roster})
		if again := tally.Counts(); !reflect.DeepEqual(again, got.Federated) {
			t.Errorf("a tally of the mix counts %+v, an evaluation %+v", again.Errors, got.Federated.Errors)
		}
	}
}

// choosing is a task of three candidates, and of sites that can be trained for it.
func choosing() task.Task {
	t := searching()
	t.Search.Candidates[1].LearningRate = .1
	return t
}

// trainings are what a fresh site of these rows comes to in rounds 1 to 3 of a search
// and, where only one is left, in round 7.
func trainings(t testing.TB, tk task.Task, table dataset.Table, roster task.Roster) (searched []Trained, chosen Trained, s *Site) {
	t.Helper()
	s = newSite(t, 0, tk, table)
	from := tk.First(nil)
	for round := range uint64(3) {
		out, err := s.Train(Train{Round: round + 1, From: from, Kept: three, Roster: roster}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(out.Kept, three) || (out.Losses != nil) != (round == 2) || len(out.Params) != len(from) {
			t.Fatalf("round %d: %+v", round+1, out)
		}
		searched = append(searched, out)
		from = out.Params
	}
	only, _ := tk.Project(from, three, []int{0})
	chosen, err := s.Train(Train{Round: 7, From: only, Kept: []int{0}, Roster: roster}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return searched, chosen, s
}

// Rows are held back to judge candidates on: the same in every round and after a
// restart, a fifth, and nothing is learnt from them until one candidate is left.
func TestRowsAreHeldBack(t *testing.T) {
	tk := choosing()
	table := rows(7, 80) // 60 for training
	roster := task.Roster{CID: name("roster"), Scaling: dataset.Scaling{Mean: []float64{50}, SD: []float64{10}}}
	searched, chosen, s := trainings(t, tk, table, roster)
	if s.judge.N != 12 || s.fit.N != 48 || searched[2].Rows != 12 {
		t.Fatalf("%d rows held back, %d not, losses over %d", s.judge.N, s.fit.N, searched[2].Rows)
	}
	whole := scaledBy(s.train, roster.Scaling)
	parted := append(slices.Clone(s.fit.X), s.judge.X...)
	slices.Sort(parted)
	slices.Sort(whole.X)
	if !slices.Equal(parted, whole.X) {
		t.Error("the two parts are not all rows")
	}
	again, _, _ := trainings(t, tk, table, roster)
	if !reflect.DeepEqual(again, searched) {
		t.Error("after a restart other rows are held back")
	}
	held := func(row []string) bool {
		var a float64
		fmt.Sscan(row[0], &a)
		return row[2] == "train" && slices.ContainsFunc(s.judge.X, func(x float64) bool { return math.Abs(x-(a-50)/10) < 1e-9 })
	}
	changed := func(change func(row []string) bool) dataset.Table {
		d := dataset.Table{Columns: table.Columns}
		for _, row := range table.Rows {
			if row = slices.Clone(row); change(row) {
				row[1] = map[string]string{"no": "yes", "yes": "no"}[row[1]]
			}
			d.Rows = append(d.Rows, row)
		}
		return d
	}
	lied, after, _ := trainings(t, tk, changed(held), roster)
	for round := range searched {
		if !slices.Equal(lied[round].Params, searched[round].Params) {
			t.Errorf("round %d learns from rows that are held back", round+1)
		}
	}
	if slices.Equal(lied[2].Losses, searched[2].Losses) {
		t.Error("the losses are not of the rows held back")
	}
	if slices.Equal(after.Params, chosen.Params) {
		t.Error("once one is left it does not learn from the rows held back")
	}
	lied, _, _ = trainings(t, tk, changed(func(row []string) bool { return row[2] == "train" && !held(row) }), roster)
	if slices.Equal(lied[0].Params, searched[0].Params) {
		t.Error("it does not learn from the others")
	}
	// The losses are those of the averaged models, before the round's steps.
	for i, state := range tk.Advance(three, slices.Clone(searched[1].Params)) {
		if want := tk.SpecOf(i).Loss(state.Params, s.judge, 0); searched[2].Losses[i] != want {
			t.Errorf("candidate %d has a loss of %g, want %g", i, searched[2].Losses[i], want)
		}
	}
	for n, want := range map[int]int{1: 0, 2: 1, 4: 1, 9: 1, 10: 2, 14: 2, 15: 3} {
		d := dataset.Table{Columns: table.Columns, Rows: slices.Clone(table.Rows[:n])}
		for i, row := range d.Rows {
			d.Rows[i] = []string{row[0], row[1], "train"}
		}
		s := newSite(t, 0, tk, d)
		if s.holdBack(s.train); s.judge.N != want || s.fit.N != n-want {
			t.Errorf("%d of %d rows are held back, want %d", s.judge.N, n, want)
		}
		out, err := s.Train(Train{Round: 3, From: tk.First(nil), Kept: three, Roster: roster}, nil)
		if err != nil || out.Rows != uint64(want) || !usable(out) {
			t.Errorf("with %d rows held back: losses %v over %d, %v", want, out.Losses, out.Rows, err)
		}
	}
}

// usable tells whether others would take what a site has come to.
func usable(out Trained) bool {
	for _, l := range out.Losses {
		if !(l >= 0 && l <= task.MaxLoss) {
			return false
		}
	}
	return mixing.NewSum(len(out.Params)).Add(1, out.Params) == nil
}

// A laggard may come to the last round of a rung when one candidate is left, and
// before it has held any rows back.
func TestTheLastRoundOfARungWithOneCandidate(t *testing.T) {
	tk := choosing()
	s := newSite(t, 0, tk, rows(7, 80))
	roster := task.Roster{CID: name("roster"), Scaling: dataset.Scaling{Mean: []float64{50}, SD: []float64{10}}}
	for i := range three {
		from, _ := tk.Project(tk.First(nil), three, []int{i})
		out, err := s.Train(Train{Round: 6, From: from, Kept: []int{i}, Roster: roster}, nil)
		if err != nil || len(out.Losses) != 1 || !usable(out) {
			t.Errorf("candidate %d: %+v, %v", i, out, err)
		}
	}
}

// Whatever the parameters, a loss is one that others take.
func TestLossesAreBounded(t *testing.T) {
	tk := choosing()
	s := newSite(t, 0, tk, rows(7, 80))
	s.holdBack(scaledBy(s.train, dataset.Scaling{Mean: []float64{50}, SD: []float64{10}}))
	for i := range three {
		for _, x := range []float64{1e7, -1e9, math.MaxFloat64} {
			if l := s.loss(i, slices.Repeat([]float64{x}, tk.SpecOf(i).Params())); l != task.MaxLoss {
				t.Errorf("candidate %d with parameters of %g has a loss of %g", i, x, l)
			}
		}
	}
}

// A candidate that diverges loses, however it does, and its vector can be mixed all
// the same, round after round, with those of the others.
func TestACandidateThatDiverges(t *testing.T) {
	for name, edit := range map[string]func(*task.Candidate){
		"by its rate":       func(c *task.Candidate) { c.LearningRate, c.L2 = 1e6, 1e6 },
		"by its rate, slow": func(c *task.Candidate) { c.LearningRate, c.L2 = 3, 2 },
		"by its momentum":   func(c *task.Candidate) { c.LearningRate, c.L2, c.Optimizer = 1e5, 1e3, learn.Momentum },
		"by its outer rate": func(c *task.Candidate) { c.Outer, c.OuterRate = learn.Nesterov, 1e3 },
		"by Adam outside":   func(c *task.Candidate) { c.Outer, c.OuterRate, c.L2 = learn.OuterAdam, 1e3, 100 },
		"both ways":         func(c *task.Candidate) { c.Outer, c.OuterRate, c.LearningRate, c.L2 = learn.OuterYogi, 1e3, 1e6, 1e6 },
		"a perceptron":      func(c *task.Candidate) { c.Model, c.Hidden, c.LearningRate, c.L2 = learn.MLP, []int{3}, 1e6, 1e6 },
		"a perceptron, Adam": func(c *task.Candidate) {
			c.Model, c.Hidden, c.Outer, c.OuterRate = learn.MLP, []int{3}, learn.OuterAdam, 1e3
		},
	} {
		for _, scaffold := range []bool{false, true} {
			tk := choosing()
			tk.Scaffold = scaffold
			edit(&tk.Search.Candidates[2])
			if scaffold {
				tk.Search.Candidates[2].Optimizer = learn.SGD
			}
			tk.Search.Rungs = []task.Rung{{Round: 15, Keep: 2}, {Round: 16, Keep: 1}}
			if err := tk.Check(); err != nil {
				t.Fatal(err)
			}
			var sites []*Site
			for i := range nodes {
				sites = append(sites, newSite(t, i, tk, rows(uint64(i), 60)))
			}
			roster := sitesRoster(t, sites...)
			mix := tk.First(nil)
			own := make([][]float64, len(sites))
			var updates []task.Update
			for round := uint64(1); round <= 15; round++ {
				sum := mixing.NewSum(len(mix))
				for i, s := range sites {
					out, err := s.Train(Train{Round: round, From: mix, Own: own[i], Kept: three, Roster: roster}, nil)
					if err != nil {
						t.Fatalf("%s: round %d: %v", name, round, err)
					}
					own[i] = out.Params
					if err := sum.Add(1, out.Params); err != nil {
						t.Fatalf("%s, scaffold %v: round %d: nobody takes the update: %v", name, scaffold, round, err)
					}
					if round == 15 {
						updates = append(updates, task.Update{Losses: out.Losses, Rows: out.Rows})
						if !usable(out) || name == "by its rate" && out.Losses[2] != task.MaxLoss {
							t.Errorf("%s: losses %v", name, out.Losses)
						}
					}
				}
				mix = sum.Mean()
			}
			if end := tk.End(0, three, updates); !slices.Equal(end.Kept, []int{0, 1}) {
				t.Errorf("%s, scaffold %v: losses %v, keeps %v", name, scaffold, end.Losses, end.Kept)
			}
			// Alone, it is an error that names what to do.
			only, _ := tk.Project(mix, three, []int{2})
			if _, err := sites[0].Train(Train{Round: 17, From: only, Kept: []int{2}, Roster: roster}, nil); err != nil && !strings.Contains(err.Error(), "too high") && !errors.Is(err, learn.ErrDiverged) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// A task that goes on is trained from the parent's parameters under its scaling, and
// counts the parent beside the model.
func TestGoingOnFromAModel(t *testing.T) {
	tk := newTask(20)
	parent := modelOf(tk, 3, dataset.Scaling{Mean: []float64{48}, SD: []float64{7}}, 1.5, -.25)
	tk.Parent = &task.Parent{Model: name1, Scaling: parent.Scaling}
	table := rows(9, 120)
	if _, err := NewSite(nodes[0], taskID, tk, table, "split", nil); err == nil {
		t.Error("a site without the model that its task goes on from")
	}
	if _, err := NewSite(nodes[0], taskID, newTask(5), table, "split", &parent); err == nil {
		t.Error("a site with a model that its task does not go on from")
	}
	s, err := NewSite(nodes[0], taskID, tk, table, "split", &parent)
	if err != nil {
		t.Fatal(err)
	}
	roster := sitesRoster(t, s)
	if !reflect.DeepEqual(roster.Scaling, parent.Scaling) {
		t.Fatalf("scaling %v", roster.Scaling)
	}
	m := New(nodes[0], taskID, tk)
	m.From(parent.Params)
	m.Restore(second, []Received{opened(t, 0, 1, 2), enrolled(0), enrolled(1), enrolled(2)})
	train := only[Train](t, m.Step(second, Tick{}))
	if !slices.Equal(train.From, parent.Params) || !reflect.DeepEqual(train.Roster.Scaling, parent.Scaling) {
		t.Fatalf("trains from %v under %v", train.From, train.Roster.Scaling)
	}
	// By hand, from there.
	data := columns(t, table, "train")
	w, b := parent.Params[0], parent.Params[1]
	for range tk.LocalSteps {
		dw, db := tk.L2*w, 0.
		for i := range data.N {
			x := (data.X[i] - 48) / 7
			e := 1/(1+math.Exp(-w*x-b)) - float64(data.Y[i])
			dw, db = dw+e*x/float64(data.N), db+e/float64(data.N)
		}
		w, b = w-tk.LearningRate*dw, b-tk.LearningRate*db
	}
	got := params(t, s, Train{Round: 1, From: train.From, Roster: train.Roster})
	if apart(got, []float64{w, b}) > 1e-12 {
		t.Errorf("%v, by hand %g %g", got, w, b)
	}
	e, err := s.Evaluate(Evaluate{CID: name("new"), Model: modelOf(tk, 1, roster.Scaling, got...)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	test := columns(t, table, "test")
	for i := range test.X {
		test.X[i] = (test.X[i] - 48) / 7
	}
	if want := tk.SpecOf(0).Count(parent.Params, test); e.Parent == nil || !reflect.DeepEqual(*e.Parent, want) {
		t.Errorf("the parent is counted as %+v, by hand %+v", e.Parent, want)
	}
	if want := tk.SpecOf(0).Count(got, test); !reflect.DeepEqual(e.Federated, want) {
		t.Errorf("the model is counted as %+v, by hand %+v", e.Federated, want)
	}
}

// What a round sets out from is shown as the outer rule takes it, and left alone.
func TestLead(t *testing.T) {
	tk := choosing()
	s := newSite(t, 0, tk, rows(7, 80))
	roster := task.Roster{CID: name("roster"), Scaling: dataset.Scaling{Mean: []float64{50}, SD: []float64{10}}}
	mix := tk.First(nil)
	for i := range mix {
		mix[i] += float64(i) / 16
	}
	for _, kept := range [][]int{three, {1, 2}, {2}} {
		from, _ := tk.Project(mix, three, kept)
		before := slices.Clone(from)
		spec, lead := s.Lead(Train{Round: 4, From: from, Kept: kept, Roster: roster})
		want := tk.Advance(kept, slices.Clone(from))[0].Params
		if !spec.Equal(tk.SpecOf(kept[0])) || !slices.Equal(lead, want) || !slices.Equal(from, before) {
			t.Errorf("candidates %v: %v, want %v", kept, lead, want)
		}
		tally := learn.NewTally(tk.SpecOf(0))
		s.Tally(tally, Train{Round: 4, From: from, Kept: kept, Roster: roster})
		if c := tally.Counts(); c.Rows != 20 || !reflect.DeepEqual(c, spec.Count(want, scaledBy(s.test, roster.Scaling))) {
			t.Errorf("candidates %v: counts %+v", kept, c)
		}
	}
}

// A level that a node has never trained on is to its own model the average of those
// that it has: alone, nobody is worse for a level that others have.
func TestLevelsThatANodeHasNeverSeen(t *testing.T) {
	tk := newTask(20)
	tk.Encoding.Features = append(tk.Encoding.Features, dataset.FeatureSpec{Name: "c", Kind: dataset.Categorical, Levels: []string{"x", "y", "z"}})
	table := rows(3, 120)
	table.Columns = append(table.Columns, "c")
	for i, row := range table.Rows {
		level := []string{"y", "z"}[i%2] // x is the level without a column, and is not here
		if row[2] == "test" && i%8 == 3 {
			level = "x"
		}
		table.Rows[i] = append(row, level)
	}
	s := newSite(t, 0, tk, table)
	model := modelOf(tk, 1, sitesRoster(t, s).Scaling, make([]float64, 4)...)
	got, err := s.Evaluate(Evaluate{CID: name1, Model: model}, nil)
	if err != nil {
		t.Fatal(err)
	}
	own := s.moments.Scaling()
	spec, params, err := tk.SpecOf(0).Alone(scaledBy(s.train, own), tk.Seed, nil)
	if err != nil {
		t.Fatal(err)
	}
	test := scaledBy(s.test, own)
	unseen := 0
	for i := range test.N {
		if s.test.X[i*3+1] == 0 && s.test.X[i*3+2] == 0 {
			test.X[i*3+1], test.X[i*3+2] = 0, 0 // in scaled rows, the mean
			unseen++
		}
	}
	if want := spec.Count(params, test); unseen != 15 || !reflect.DeepEqual(got.Local, want) {
		t.Errorf("%d rows of a level that it has never seen: alone %+v, by hand %+v", unseen, got.Local.Confusion, want.Confusion)
	}
}
