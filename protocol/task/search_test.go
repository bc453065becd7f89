package task

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"village/protocol/learn"
	"village/protocol/mixing"
	"village/protocol/record"
)

// Whatever candidates and rounds there are, the rungs of Halving pass where any rungs
// of halving can, end in the first half of a task that is not short, and drop half.
func TestHalvingEndsInTime(t *testing.T) {
	rounds := []uint64{64, 65, 100, 101, 127, 128, 129, 1000, 1023, 99_999, MaxRounds - 1, MaxRounds}
	for r := range uint64(64) {
		rounds = append(rounds, r+1)
	}
	for n := 2; n <= MaxCandidates; n++ {
		stages := uint64(math.Ceil(math.Log2(float64(n))))
		for _, r := range rounds {
			tk := good()
			tk.Rounds = r
			tk.LocalSteps = 1
			tk.Search = &Search{Candidates: slices.Repeat([]Candidate{{Model: learn.Logistic, LocalSteps: 1, LearningRate: 0.1}}, n), Rungs: Halving(n, r)}
			rungs := tk.Search.Rungs
			// One rung a round, and what is recent at the end is of the chosen one.
			possible := stages < r && stages < r-tk.Recent()
			if err := tk.Check(); (err == nil) != possible {
				t.Fatalf("%d candidates, %d rounds, rungs %v: %v", n, r, rungs, err)
			}
			if !possible {
				continue
			}
			if last := rungs[len(rungs)-1].Round; last > max(r/2, stages) {
				t.Errorf("%d candidates, %d rounds: the search ends in round %d", n, r, last)
			}
			left := uint64(n)
			for i, rung := range rungs {
				if rung.Keep != (left+1)/2 {
					t.Errorf("%d candidates: rung %d keeps %d of %d", n, i+1, rung.Keep, left)
				}
				left = rung.Keep
				// Rungs of half the candidates are twice as long.
				if i > 0 && r >= 256 && stages <= 6 {
					before, this := rungs[i-1].Round, rung.Round
					if this < 2*before || this > 2*before+1 {
						t.Errorf("%d candidates, %d rounds: rungs %v", n, r, rungs)
					}
				}
			}
			if left != 1 {
				t.Errorf("%d candidates: %d are left", n, left)
			}
		}
	}
	if rungs := Halving(1, 100); len(rungs) != 0 {
		t.Errorf("one candidate needs no rungs %v", rungs)
	}
}

func TestSearchCheck(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*Task)
		want string // "" = passes
	}{
		"as it is":                   {func(*Task) {}, ""},
		"one candidate":              {func(tk *Task) { tk.Search.Candidates = tk.Search.Candidates[:1] }, "2 to 64 candidates"},
		"no candidates":              {func(tk *Task) { tk.Search.Candidates = nil }, "2 to 64 candidates"},
		"too many candidates":        {func(tk *Task) { tk.Search.Candidates = slices.Repeat(tk.Search.Candidates, 13) }, "2 to 64 candidates"},
		"no rungs":                   {func(tk *Task) { tk.Search.Rungs = nil }, "0 rungs for 5"},
		"more rungs than candidates": {func(tk *Task) { tk.Search.Rungs = []Rung{{1, 5}, {2, 4}, {3, 3}, {4, 2}, {5, 1}} }, "5 rungs for 5"},
		"as many rungs as can be":    {func(tk *Task) { tk.Search.Rungs = []Rung{{1, 4}, {2, 3}, {3, 2}, {4, 1}} }, ""},
		"one rung":                   {func(tk *Task) { tk.Search.Rungs = []Rung{{1, 1}} }, ""},
		"a rung in round 0":          {func(tk *Task) { tk.Search.Rungs[0].Round = 0 }, "later"},
		"two rungs in a round":       {func(tk *Task) { tk.Search.Rungs[1].Round = 4 }, "later"},
		"rungs in another order":     {func(tk *Task) { slices.Reverse(tk.Search.Rungs) }, "later"},
		"a rung that drops nothing":  {func(tk *Task) { tk.Search.Rungs[1].Keep = 3 }, "drops"},
		"a rung that keeps nothing":  {func(tk *Task) { tk.Search.Rungs[2].Keep = 0 }, "drops"},
		"a rung that keeps more":     {func(tk *Task) { tk.Search.Rungs[0].Keep = 9 }, "drops"},
		"two are left":               {func(tk *Task) { tk.Search.Rungs = tk.Search.Rungs[:2] }, "leaves 2"},
		"the latest end":             {func(tk *Task) { tk.Search.Rungs[2].Round = 35 }, ""},
		"an end that is too late":    {func(tk *Task) { tk.Search.Rungs[2].Round = 36 }, "the last 5 rounds"},
		"an end after the task":      {func(tk *Task) { tk.Search.Rungs[2].Round = math.MaxUint64 }, "the last 5 rounds"},
		"one round":                  {func(tk *Task) { tk.Rounds = 1 }, "the search ends"},
		"a tolerance":                {func(tk *Task) { tk.Tolerance = 1e-6 }, "tolerance"},
		"a parent":                   {func(tk *Task) { tk.Parent = &Parent{Model: theModel} }, "no search"},
		"a candidate of no model":    {func(tk *Task) { tk.Search.Candidates[3].Model = "forest" }, "candidate 4: "},
		"a candidate for a number":   {func(tk *Task) { tk.Search.Candidates[1].Model = learn.Linear }, "candidate 2: "},
		"a perceptron of no layers":  {func(tk *Task) { tk.Search.Candidates[2].Hidden = nil }, "candidate 3: "},
		"a regression of layers":     {func(tk *Task) { tk.Search.Candidates[0].Hidden = []int{4} }, "candidate 1: "},
		"no steps":                   {func(tk *Task) { tk.Search.Candidates[4].LocalSteps = 0 }, "candidate 5: a round has 1"},
		"too many steps in all":      {func(tk *Task) { tk.Search.Candidates[4].LocalSteps = MaxLocalSteps }, "candidate 5: all rounds"},
		"no rate":                    {func(tk *Task) { tk.Search.Candidates[0].LearningRate = 0 }, "candidate 1: a learning rate"},
		"a rate that is none":        {func(tk *Task) { tk.Search.Candidates[0].LearningRate = math.NaN() }, "candidate 1: a learning rate"},
		"a negative l2":              {func(tk *Task) { tk.Search.Candidates[0].L2 = -1 }, "candidate 1: l2"},
		"an unknown optimizer":       {func(tk *Task) { tk.Search.Candidates[0].Optimizer = "lion" }, "candidate 1: "},
		"an unknown outer rule":      {func(tk *Task) { tk.Search.Candidates[0].Outer = "lamb" }, "candidate 1: "},
		"an outer rule without rate": {func(tk *Task) { tk.Search.Candidates[1].OuterRate = 0 }, "candidate 2: an outer rate"},
		"an infinite outer rate":     {func(tk *Task) { tk.Search.Candidates[1].OuterRate = math.Inf(1) }, "candidate 2: an outer rate"},
		"a rate without outer rule":  {func(tk *Task) { tk.Search.Candidates[0].OuterRate = 1 }, "candidate 1: an outer rate needs"},
		"scaffold and momentum":      {func(tk *Task) { tk.Scaffold = true }, "candidate 4: scaffold"},
		"candidates too large to mix": {func(tk *Task) {
			tk.Search.Candidates = slices.Repeat([]Candidate{{Model: learn.MLP, Hidden: []int{60_000}, LocalSteps: 1, LearningRate: 0.1, Outer: learn.OuterAdam, OuterRate: 0.1}}, 5)
		}, "to mix in a round"},
		// What stands for the one model of other tasks says nothing.
		"another model beside it": {func(tk *Task) { tk.Model, tk.Hidden, tk.LocalSteps = "forest", []int{-1}, 0 }, ""},
	} {
		tk := searching()
		c.edit(&tk)
		if err := tk.Check(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// Every number and list of a space is drawn, each candidate once, for the same seed
// the same, and as many as there are.
func TestDraw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tk := good()
		tk.Seed = rapid.Uint64().Draw(t, "seed")
		if rapid.Bool().Draw(t, "number") {
			tk.Encoding.Classes, tk.Encoding.Positive, tk.Model = nil, "", learn.Linear
		}
		space := Space{}.Filled(tk.Encoding)
		n := rapid.IntRange(2, MaxCandidates).Draw(t, "candidates")
		list := space.Draw(n, tk)
		if len(list) != n || !reflect.DeepEqual(list, space.Draw(n, tk)) {
			t.Fatalf("%d of %d candidates, drawn again %v", len(list), n, space.Draw(n, tk))
		}
		other := tk
		other.Seed++
		if n > 4 && reflect.DeepEqual(list, space.Draw(n, other)) {
			t.Fatal("another seed draws the same")
		}
		// The first ones of many are those of few: a larger search is a better one.
		if few := space.Draw(2, tk); !reflect.DeepEqual(few, list[:2]) {
			t.Fatalf("two are %v, of %d the first are %v", few, n, list[:2])
		}
		for i, c := range list {
			for _, before := range list[:i] {
				if reflect.DeepEqual(before, c) {
					t.Fatalf("%+v twice", c)
				}
			}
		}
		for _, c := range list[1:] {
			rate := c.LearningRate
			if c.Optimizer != learn.SGD {
				rate *= 10 // a step of it is ten times as long
			}
			if !slices.ContainsFunc(space.LearningRates, func(r float64) bool { return math.Abs(r-rate) < 1e-12 }) ||
				!slices.Contains(space.LocalSteps, c.LocalSteps) || !slices.Contains(space.L2, c.L2) || (c.Model == learn.MLP) != (c.Hidden != nil) ||
				(c.Outer == learn.Plain) != (c.OuterRate == 0) || c.Outer != learn.Plain && c.Outer != learn.Nesterov && !slices.Contains(space.OuterRates, c.OuterRate) {
				t.Fatalf("%+v is not of the space", c)
			}
		}
		if list[0].Model != tk.Model || list[0].LearningRate != tk.LearningRate || list[0].LocalSteps != tk.LocalSteps || list[0].Outer != learn.Plain {
			t.Fatalf("the first is %+v, not the default", list[0])
		}
		tk.SearchAmong(Space{}, n)
		if !reflect.DeepEqual(tk.Search.Candidates, list) || !reflect.DeepEqual(tk.Search.Rungs, Halving(n, tk.Rounds)) {
			t.Fatal("a search is not what was drawn")
		}
		if err := tk.Check(); err != nil {
			t.Fatal(err)
		}
		if counts := byModel(list); math.Abs(float64(counts[space.Models[0]]-counts[learn.MLP])) > 1 {
			t.Fatalf("candidates of models: %v", counts)
		}
	})
}

func byModel(list []Candidate) map[learn.Kind]int {
	counts := map[learn.Kind]int{}
	for _, c := range list {
		counts[c.Model]++
	}
	return counts
}

// A space that holds little gives all that it holds, and does not draw for ever.
func TestDrawFromASmallSpace(t *testing.T) {
	tk := good()
	s := Space{
		Models: []learn.Kind{learn.MLP}, Hidden: [][]int{{3}, {4, 5}}, LocalSteps: []uint64{7}, LearningRates: []float64{0.3, 0.4},
		L2: []float64{0}, Optimizers: []learn.Optimizer{learn.SGD}, Outers: []learn.Outer{learn.Plain}, OuterRates: []float64{0.1, 0.2},
	}
	if filled := s.Filled(tk.Encoding); !reflect.DeepEqual(filled, s) {
		t.Errorf("a space without gaps is filled as %+v", filled)
	}
	list := s.Draw(64, tk)
	var seen []string
	for _, c := range list {
		seen = append(seen, fmt.Sprint(c.Hidden, c.LearningRate))
		if c.Model != learn.MLP || c.LocalSteps != 7 || c.L2 != 0 || c.Outer != learn.Plain || c.OuterRate != 0 {
			t.Errorf("%+v is not of the space", c)
		}
	}
	slices.Sort(seen)
	if want := []string{"[3] 0.3", "[3] 0.4", "[4 5] 0.3", "[4 5] 0.4"}; !slices.Equal(seen, want) {
		t.Errorf("%v, want %v", seen, want)
	}
}

// losses draws the updates that end a rung.
func losses(t *rapid.T, candidates int) []Update {
	updates := make([]Update, rapid.IntRange(1, 6).Draw(t, "nodes"))
	for i := range updates {
		updates[i] = Update{Rows: rapid.Uint64Range(0, 30).Draw(t, "rows")}
		for range candidates {
			// Few values, so that there are ties.
			updates[i].Losses = append(updates[i].Losses, float64(rapid.IntRange(0, 3).Draw(t, "loss"))/4)
		}
	}
	return updates
}

// A rung keeps those of the lowest mean loss over all rows held back, a perceptron's
// counted two per cent higher, and of equals the first.
func TestEnd(t *testing.T) {
	tk := searching()
	rapid.Check(t, func(t *rapid.T) {
		rung := rapid.IntRange(0, len(tk.Search.Rungs)-1).Draw(t, "rung")
		kept := tk.Everyone()
		for i := range rung {
			kept = kept[:tk.Search.Rungs[i].Keep]
		}
		updates := losses(t, len(kept))
		end := tk.End(rung, kept, updates)
		if err := end.check(tk, rung, kept); err != nil || end.Nodes != len(updates) {
			t.Fatalf("%+v: %v", end, err)
		}
		rows := 0.0
		for _, u := range updates {
			rows += float64(u.Rows)
		}
		type ranked struct {
			candidate int
			loss      float64
		}
		var order []ranked
		for i, c := range kept {
			mean := 0.0
			for _, u := range updates {
				if rows > 0 {
					mean += float64(u.Rows) * u.Losses[i] / rows
				}
			}
			if math.Abs(end.Losses[i]-mean) > 1e-12 {
				t.Fatalf("candidate %d has a mean loss of %g, by hand %g", c, end.Losses[i], mean)
			}
			loss := end.Losses[i]
			if tk.Candidate(c).Model == learn.MLP {
				loss *= 1.02
			}
			order = append(order, ranked{c, loss})
		}
		slices.SortStableFunc(order, func(a, b ranked) int { return cmp.Compare(a.loss, b.loss) })
		var want []int
		for _, r := range order[:tk.Search.Rungs[rung].Keep] {
			want = append(want, r.candidate)
		}
		if slices.Sort(want); !slices.Equal(end.Kept, want) {
			t.Fatalf("keeps %v of losses %v, by hand %v", end.Kept, end.Losses, want)
		}
		// The same from the same updates, and in any order but for the last bit.
		if again := tk.End(rung, kept, updates); !reflect.DeepEqual(again, end) {
			t.Fatalf("%+v, then %+v", end, again)
		}
		rand.New(rand.NewPCG(1, uint64(rung))).Shuffle(len(updates), func(i, j int) { updates[i], updates[j] = updates[j], updates[i] })
		for i, l := range tk.End(rung, kept, updates).Losses {
			if math.Abs(l-end.Losses[i]) > 1e-12 {
				t.Fatalf("in another order the loss is %g, not %g", l, end.Losses[i])
			}
		}
	})
}

func TestTiesGoToTheFirstAndTheSimpler(t *testing.T) {
	tk := searching() // logistic, logistic, mlp, softmax, mlp
	for name, c := range map[string]struct {
		losses []float64
		want   []int
	}{
		"all equal":                      {[]float64{1, 1, 1, 1, 1}, []int{0, 1, 3}},
		"no loss at all":                 {[]float64{0, 0, 0, 0, 0}, []int{0, 1, 2}},
		"a perceptron a little better":   {[]float64{1, 1, 0.985, 1, 3}, []int{0, 1, 3}},
		"a perceptron better":            {[]float64{1, 1, 0.975, 1, 3}, []int{0, 1, 2}},
		"all have diverged but the last": {[]float64{MaxLoss, MaxLoss, MaxLoss, MaxLoss, 2}, []int{0, 1, 4}},
	} {
		end := tk.End(0, tk.Everyone(), []Update{{Rows: 5, Losses: c.losses}, {Rows: 7, Losses: c.losses}})
		if !slices.Equal(end.Kept, c.want) {
			t.Errorf("%s: keeps %v, want %v", name, end.Kept, c.want)
		}
	}
	// Who holds no rows back has no say; where nobody does, the first go on.
	end := tk.End(0, tk.Everyone(), []Update{{Losses: []float64{0, 0, 0, 0, 0}}, {Rows: 1, Losses: []float64{5, 4, 3, 2, 1}}})
	if !slices.Equal(end.Kept, []int{2, 3, 4}) || !slices.Equal(end.Losses, []float64{5, 4, 3, 2, 1}) || end.Nodes != 2 {
		t.Errorf("%+v", end)
	}
	end = tk.End(0, tk.Everyone(), []Update{{Losses: []float64{5, 4, 3, 2, 1}}})
	if !slices.Equal(end.Kept, []int{0, 1, 2}) {
		t.Errorf("without rows: %+v", end)
	}
}

// choice is how the rungs of searching may have ended.
func choice() FinalContent {
	return FinalContent{Chosen: 4, Ends: []RungEnd{
		{Nodes: 3, Losses: []float64{5, 4, 3, 2, 1}, Kept: []int{1, 3, 4}},
		{Nodes: 3, Losses: []float64{4, 2, 1}, Kept: []int{3, 4}},
		{Nodes: 2, Losses: []float64{2, 1}, Kept: []int{4}},
	}}
}

func TestChecksOfChoices(t *testing.T) {
	tk := searching()
	if err := choice().checkChoice(tk); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*FinalContent){
		"another candidate":         func(c *FinalContent) { c.Chosen = 3 },
		"no candidate":              func(c *FinalContent) { c.Chosen = -1 },
		"one that there is not":     func(c *FinalContent) { c.Chosen = 5 },
		"a rung less":               func(c *FinalContent) { c.Ends = c.Ends[:2] },
		"a rung more":               func(c *FinalContent) { c.Ends = append(c.Ends, c.Ends[2]) },
		"no rungs":                  func(c *FinalContent) { c.Ends = nil },
		"rungs in another order":    func(c *FinalContent) { c.Ends[0], c.Ends[1] = c.Ends[1], c.Ends[0] },
		"a rung that keeps less":    func(c *FinalContent) { c.Ends[0].Kept = []int{3, 4} },
		"a rung that keeps more":    func(c *FinalContent) { c.Ends[1].Kept = []int{1, 3, 4} },
		"a rung that keeps nothing": func(c *FinalContent) { c.Ends[2].Kept = nil },
		"another order":             func(c *FinalContent) { c.Ends[1].Kept = []int{4, 3} },
		"one twice":                 func(c *FinalContent) { c.Ends[1].Kept = []int{4, 4} },
		"one that was dropped":      func(c *FinalContent) { c.Ends[1].Kept = []int{2, 4} },
		"one that is none":          func(c *FinalContent) { c.Ends[0].Kept = []int{3, 4, 5} },
		"one below the first":       func(c *FinalContent) { c.Ends[0].Kept = []int{-1, 3, 4} },
		"a loss less":               func(c *FinalContent) { c.Ends[1].Losses = []float64{2, 1} },
		"a loss more":               func(c *FinalContent) { c.Ends[2].Losses = []float64{4, 2, 1} },
		"no losses":                 func(c *FinalContent) { c.Ends[2].Losses = nil },
		"the last end swapped":      func(c *FinalContent) { c.Ends[2].Kept = []int{3} },
	} {
		c := choice()
		edit(&c)
		if err := c.checkChoice(tk); err == nil {
			t.Errorf("%s passes", name)
		}
	}
	plain := good()
	if err := (FinalContent{}).checkChoice(plain); err != nil {
		t.Errorf("without a search: %v", err)
	}
	for name, c := range map[string]FinalContent{"a choice": {Chosen: 1}, "ends": {Ends: choice().Ends[:1]}} {
		if c.checkChoice(plain) == nil {
			t.Errorf("%s without a search passes", name)
		}
	}
}

func TestTrailOf(t *testing.T) {
	if (good().TrailOf(FinalContent{})) != nil {
		t.Error("a task without a search has a trail")
	}
	tk := searching()
	trail := tk.TrailOf(choice())
	if trail.Chosen != 4 || !reflect.DeepEqual(trail.Candidates, tk.Search.Candidates) || len(trail.Rungs) != 3 {
		t.Fatalf("%+v", trail)
	}
	is := func(rung int, want ...float64) {
		t.Helper()
		r := trail.Rungs[rung]
		if r.Round != tk.Search.Rungs[rung].Round || r.Nodes != choice().Ends[rung].Nodes || !slices.Equal(r.Kept, choice().Ends[rung].Kept) || len(r.Losses) != len(want) {
			t.Errorf("rung %d: %+v", rung+1, r)
		}
		for i, l := range r.Losses {
			if (l == nil) != math.IsNaN(want[i]) || l != nil && *l != want[i] {
				t.Errorf("rung %d: candidate %d has %v, want %g", rung+1, i, l, want[i])
			}
		}
	}
	none := math.NaN()
	is(0, 5, 4, 3, 2, 1)
	is(1, none, 4, none, 2, 1)
	is(2, none, none, none, 2, 1)
}

// searched is a run of a search that has come to its end. The roster's nodes hold
// two candidates in their last updates, and the late one that is left.
func searched(t testing.TB) *ran {
	tk, _ := votedTask(t)
	tk.Search, tk.Rounds = searching().Search, 40
	tk.Search.Candidates[3].Optimizer = learn.SGD
	if err := tk.Check(); err != nil {
		t.Fatal(err)
	}
	r := &ran{t: t, tk: tk, task: taskRecord(t, tk)}
	for i, rows := range []uint64{100, 30, 7} {
		r.enrolments = append(r.enrolments, r.enrolment(i, rows))
	}
	var err error
	if r.roster, err = RosterOf(tk, []Enrolled{r.enrolled(0), r.enrolled(1)}); err != nil {
		t.Fatal(err)
	}
	c := choice()
	r.content = FinalContent{Round: 40, Roster: r.roster.CID, Parts: []Part{}, Out: []Out{{Node: tk.Nodes[3], Why: Absent}}, Chosen: c.Chosen, Ends: c.Ends}
	for i, kept := range [][]int{{4}, {3, 4}, {4}} {
		params := make([]float64, tk.Length(kept))
		for j := range params {
			params[j] = float64((i+1)*(j+1)) / 7
		}
		u, _, err := NewUpdate(Update{Task: r.task.CID, Roster: r.roster.CID, Weight: r.enrolled(i).Moments.Count, Kept: kept, Params: params}, tk)
		if err != nil {
			t.Fatal(err)
		}
		r.updates = append(r.updates, sign(t, voters[i], record.KindUpdate, r.task.CID.String(), 40, u))
		chosen, _ := tk.Project(params, kept, []int{4})
		r.params = append(r.params, chosen)
		r.content.Parts = append(r.content.Parts, Part{
			Node: tk.Nodes[i], Enrolment: r.enrolments[i].CID, Update: r.updates[i].CID, Round: 40, Weight: u.Weight,
		})
	}
	return r
}

// A search's model is recomputed from bytes alone: the chosen candidate's share of
// each update, averaged, and taken where the outer rule takes it.
func TestVerifyOfASearch(t *testing.T) {
	r := searched(t)
	v, err := r.seal().verify()
	if err != nil {
		t.Fatal(err)
	}
	if !v.Model.Spec.Equal(r.tk.SpecOf(4)) || v.Model.Candidate != 4 {
		t.Errorf("model %+v", v.Model)
	}
	sum := mixing.NewSum(r.tk.Length([]int{4}))
	for i, p := range r.content.Parts {
		if err := sum.Add(p.Weight, r.params[i]); err != nil {
			t.Fatal(err)
		}
	}
	mean := sum.Mean()
	n := len(mean) / 3
	learn.Nesterov.Advance(0.7, mean[:n], mean[n:2*n], [][]float64{mean[2*n:]})
	if !slices.Equal(v.Model.Params, mean[:n]) {
		t.Errorf("parameters %v, by hand %v", v.Model.Params, mean[:n])
	}
	for name, c := range map[string]struct {
		swap func(*ran, *evidence)
		want string
	}{
		"the choice": {func(r *ran, e *evidence) {
			r.content.Chosen = 3
			e.seal = r.certify(TopicFinal, r.content)
		}, "candidate 3 is not the one that is left"},
		"the last end with the choice": {func(r *ran, e *evidence) {
			r.content.Chosen, r.content.Ends[2].Kept = 3, []int{3}
			e.seal = r.certify(TopicFinal, r.content)
		}, "lacks the candidate that was chosen"},
		"a candidate that there is not": {func(r *ran, e *evidence) {
			r.content.Chosen, r.content.Ends[2].Kept = 9, []int{9}
			e.seal = r.certify(TopicFinal, r.content)
		}, "rung 3 has not ended as the task says"},
		"the ends": {func(r *ran, e *evidence) {
			r.content.Ends = nil
			e.seal = r.certify(TopicFinal, r.content)
		}, "0 rungs have ended of 3"},
		"the model of another candidate": {func(r *ran, e *evidence) {
			m, err := UnmarshalModel(e.model)
			if err != nil {
				t.Fatal(err)
			}
			m.Spec, m.Params, m.Candidate = r.tk.SpecOf(0), []float64{1, 2, 3, 4}, 0
			e.model = marshal(t, m)
		}, "the model is not what the updates come to"},
		"the mean without the outer rule": {func(r *ran, e *evidence) {
			m, err := UnmarshalModel(e.model)
			if err != nil {
				t.Fatal(err)
			}
			m.Params = sum.Mean()[:n]
			e.model = marshal(t, m)
		}, "the model is not what the updates come to"},
		"everyone": {func(r *ran, e *evidence) {
			r.content.Parts, r.content.Out = []Part{}, nil
			for _, id := range r.tk.Nodes {
				r.content.Out = append(r.content.Out, Out{Node: id, Why: Absent})
			}
			e.in.Updates = nil
			e.seal = r.certify(TopicFinal, r.content)
		}, "one update at least"},
	} {
		r := searched(t)
		e := r.seal()
		c.swap(r, &e)
		if _, err := e.verify(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s swapped: %v, want %q", name, err, c.want)
		}
	}
}

func TestChecksOfContents(t *testing.T) {
	r := searched(t)
	if err := r.content.Check(r.tk); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*FinalContent){
		"a choice":      func(c *FinalContent) { c.Chosen = 3 },
		"a node less":   func(c *FinalContent) { c.Out = nil },
		"a part less":   func(c *FinalContent) { c.Parts = c.Parts[1:] },
		"a part twice":  func(c *FinalContent) { c.Parts = append(slices.Clone(c.Parts), c.Parts[0]) },
		"no weight":     func(c *FinalContent) { c.Parts = []Part{{Node: c.Parts[0].Node}, c.Parts[1], c.Parts[2]} },
		"all weight":    func(c *FinalContent) { c.Parts = slices.Clone(c.Parts); c.Parts[1].Weight = MaxRows + 1 },
		"nothing":       func(c *FinalContent) { *c = FinalContent{} },
		"another order": func(c *FinalContent) { c.Parts = slices.Clone(c.Parts); slices.Reverse(c.Parts) },
	} {
		c := r.content
		edit(&c)
		if c.Check(r.tk) == nil {
			t.Errorf("%s passes", name)
		}
	}
	a, b := r.enrolments[0].CID, r.enrolments[1].CID
	sorted := []record.CID{a, b}
	SortCIDs(sorted)
	if err := (RosterContent{Enrolments: sorted}).Check(r.tk); err != nil {
		t.Error(err)
	}
	for name, cids := range map[string][]record.CID{
		"nobody": nil, "another order": {sorted[1], sorted[0]}, "one twice": {a, a}, "more than there are": slices.Repeat([]record.CID{a}, 5),
	} {
		if (RosterContent{Enrolments: cids}).Check(r.tk) == nil {
			t.Errorf("a roster of %s passes", name)
		}
	}
	ends := choice().Ends
	kept := r.tk.Everyone()
	for i, end := range ends {
		if err := (RungContent{End: end}).Check(r.tk, i, kept); err != nil {
			t.Error(err)
		}
		kept = end.Kept
	}
	if (RungContent{End: ends[1]}).Check(r.tk, 0, r.tk.Everyone()) == nil {
		t.Error("an end of another rung passes")
	}
}

// Losses that cannot be averaged, and candidates that there are not, are refused.
func TestUpdatesOfASearch(t *testing.T) {
	tk, id := searching(), taskID(t).String()
	made := func(kept []int, edit func(*Update)) Update {
		u, _, err := NewUpdate(Update{Task: taskID(t), Roster: theModel, Weight: 10, Kept: kept, Params: make([]float64, tk.Length(kept))}, tk)
		if err != nil {
			t.Fatal(err)
		}
		if edit != nil {
			edit(&u)
		}
		return u
	}
	ends := func(u *Update) { u.Losses, u.Rows = make([]float64, len(u.Kept)), 2 }
	for name, c := range map[string]struct {
		round uint64
		u     Update
		fine  bool
	}{
		"within a rung":             {3, made(tk.Everyone(), nil), true},
		"at its end":                {4, made(tk.Everyone(), ends), true},
		"at its end, of a laggard":  {4, made([]int{1, 3}, ends), true},
		"all rows held back":        {4, made(tk.Everyone(), func(u *Update) { ends(u); u.Rows = 10 }), true},
		"no rows held back":         {4, made(tk.Everyone(), func(u *Update) { ends(u); u.Rows = 0 }), true},
		"the largest loss":          {4, made(tk.Everyone(), func(u *Update) { ends(u); u.Losses[2] = MaxLoss }), true},
		"more rows than it has":     {4, made(tk.Everyone(), func(u *Update) { ends(u); u.Rows = 11 }), false},
		"no losses at the end":      {4, made(tk.Everyone(), nil), false},
		"a loss less":               {4, made(tk.Everyone(), func(u *Update) { ends(u); u.Losses = u.Losses[1:] }), false},
		"a loss more":               {4, made(tk.Everyone(), func(u *Update) { ends(u); u.Losses = append(u.Losses, 0) }), false},
		"a loss below 0":            {4, made(tk.Everyone(), func(u *Update) { ends(u); u.Losses[0] = -1e-9 }), false},
		"a loss above the largest":  {4, made(tk.Everyone(), func(u *Update) { ends(u); u.Losses[0] = 1.1 * MaxLoss }), false},
		"losses within a rung":      {3, made(tk.Everyone(), ends), false},
		"rows within a rung":        {3, made(tk.Everyone(), func(u *Update) { u.Rows = 1 }), false},
		"rows that overflow":        {3, made(tk.Everyone(), func(u *Update) { u.Losses, u.Rows = make([]float64, 2), math.MaxUint64-1 }), false},
		"no candidates":             {3, made(tk.Everyone(), func(u *Update) { u.Kept = nil }), false},
		"other candidates":          {3, made(tk.Everyone(), func(u *Update) { u.Kept = []int{0, 1, 2} }), false},
		"a candidate twice":         {3, made([]int{0, 1}, func(u *Update) { u.Kept = []int{0, 0} }), false},
		"another order":             {3, made([]int{0, 1}, func(u *Update) { u.Kept = []int{1, 0} }), false},
		"one that there is not":     {3, made([]int{0, 1}, func(u *Update) { u.Kept = []int{0, 5} }), false},
		"one before the first":      {3, made([]int{0, 1}, func(u *Update) { u.Kept = []int{-1, 0} }), false},
		"one of the same shape":     {3, made([]int{0}, func(u *Update) { u.Kept = []int{3} }), false},
		"more than there are names": {3, made([]int{0}, func(u *Update) { u.Kept = make([]int, 1000) }), false},
	} {
		u, err := UpdateOf(sign(t, keys[1], record.KindUpdate, id, c.round, c.u), tk)
		if (err == nil) != c.fine {
			t.Errorf("%s: %v", name, err)
		}
		if !c.fine {
			refused(t, name, err, false)
		} else if len(u.Params) != tk.Length(u.Kept) {
			t.Errorf("%s: %d parameters", name, len(u.Params))
		}
	}
	// A task without a search has neither.
	plain := update(t, []float64{1, 2, 3, 4})
	for name, edit := range map[string]func(*Update){
		"candidates": func(u *Update) { u.Kept = []int{0} }, "losses": func(u *Update) { u.Losses = []float64{0} }, "rows": func(u *Update) { u.Rows = 1 },
	} {
		u := plain
		edit(&u)
		_, err := UpdateOf(sign(t, keys[1], record.KindUpdate, id, 1, u), good())
		refused(t, name+" without a search", err, false)
	}
}

func TestRungTopics(t *testing.T) {
	tk := searching()
	for i := range 3 {
		if rung, ok := TopicOfRung(i).Rung(tk); !ok || rung != i {
			t.Errorf("%s is of rung %d, %v", TopicOfRung(i), rung, ok)
		}
		if _, ok := TopicOfRung(i).Rung(good()); ok {
			t.Errorf("%s is of a task without a search", TopicOfRung(i))
		}
	}
	for _, topic := range []Topic{"rung0", "rung4", "rung", "rung01", "rung1 ", TopicRoster, TopicFinal} {
		if _, ok := topic.Rung(tk); ok {
			t.Errorf("%q is of a rung", topic)
		}
	}
}
