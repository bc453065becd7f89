package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/mixing"
	"village/protocol/task"
)

// eight is a run of eight nodes that search among some candidates, one of which
// diverges.
func eight(seed uint64, candidates int) Config {
	nodes := append(hospitals(seed), hospitals(seed+100)...)
	for i := range nodes {
		nodes[i].Name = fmt.Sprint("hospital ", i)
		nodes[i].Rows.Rows = nodes[i].Rows.Rows[:30]
		nodes[i].Step = time.Duration(50+20*i) * time.Millisecond
	}
	tk := hospitalTask(20, 5)
	tk.Seed = seed
	tk.SearchAmong(task.Space{Hidden: [][]int{{3}}}, candidates)
	last := &tk.Search.Candidates[candidates-1]
	last.Outer, last.OuterRate, last.LearningRate, last.L2 = learn.Nesterov, 1e3, 1e6, 1e6
	return Config{Nodes: nodes, Task: tk, Seed: seed, Limit: 4 * time.Hour}
}

// ascent remembers what was published in a search.
type ascent struct {
	task    task.Task
	updates map[string]task.Update
}

func (a *ascent) watch(_ time.Duration, node int, u task.Update, round uint64) {
	a.updates[fmt.Sprint(node, " ", round)] = u
}

// check holds that nobody went beyond a rung with a candidate that was dropped there,
// and that the model is the mean of what was published, and returns what is wrong.
func (a *ascent) check(r Result) error {
	if len(r.Content.Ends) != len(a.task.Search.Rungs) || r.Results.Search == nil || len(r.Results.Search.Rungs) != len(a.task.Search.Rungs) {
		return fmt.Errorf("%d rungs have ended of %d", len(r.Content.Ends), len(a.task.Search.Rungs))
	}
	if err := r.Content.Check(a.task); err != nil {
		return err
	}
	for who, u := range a.updates {
		var node int
		var round uint64
		fmt.Sscan(who, &node, &round)
		for i, rung := range a.task.Search.Rungs {
			beyond := slices.ContainsFunc(u.Kept, func(c int) bool { return !slices.Contains(r.Content.Ends[i].Kept, c) })
			if round > rung.Round && beyond {
				return fmt.Errorf("node %d trains candidates %v in round %d, where rung %d has left %v", node, u.Kept, round, i+1, r.Content.Ends[i].Kept)
			}
		}
	}
	kept := []int{r.Content.Chosen}
	sum := mixing.NewSum(a.task.Length(kept))
	for _, p := range r.Content.Parts {
		u, ok := a.updates[fmt.Sprint(slices.Index(r.Nodes, p.Node), " ", p.Round)]
		if !ok {
			return fmt.Errorf("%s has published nothing in round %d", p.Node, p.Round)
		}
		params, _ := a.task.Project(u.Params, u.Kept, kept)
		if err := sum.Add(p.Weight, params); err != nil {
			return err
		}
	}
	if want := a.task.Advance(kept, sum.Mean())[0].Params; !slices.Equal(want, r.Model.Params) {
		return fmt.Errorf("the model is %v, recomputed %v", r.Model.Params, want)
	}
	return nil
}

// TestSearchStorms has eight nodes search through loss, repeats, reordering, a
// partition, crashes at any time, a node that is late and one that goes for good. At
// the end they have chosen alike, and nobody has signed two things for one place.
func TestSearchStorms(t *testing.T) {
	seeds := uint64(24)
	if testing.Short() {
		seeds = 4
	}
	var next atomic.Uint64
	var group sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for seed := next.Add(1) - 1; seed < seeds; seed = next.Add(1) - 1 {
				rng := rand.New(rand.NewPCG(seed, 6))
				cfg := eight(seed, 2+int(seed%7))
				cut := time.Duration(rng.IntN(20)) * time.Second
				side := 1 + rng.IntN(6)
				cfg.Delay = Delay{Min: time.Millisecond, Max: 400 * time.Millisecond}
				cfg.Faults = Faults{
					Loss: .3, Duplicate: .1, Restarts: 120, Torn: .02, Down: 2 * time.Second,
					Apart: func(now time.Duration, a, b int) bool {
						return now > cut && now < cut+20*time.Second && (a < side) != (b < side)
					},
				}
				if seed%2 == 0 {
					cfg.Nodes[rng.IntN(8)].Enrols = time.Duration(rng.IntN(60)) * time.Second
				}
				if seed%3 == 0 {
					cfg.Faults.Outages = []Outage{{Node: rng.IntN(8), At: time.Duration(rng.IntN(60)) * time.Second}}
				}
				switch seed % 8 {
				case 1:
					cfg.Nodes[rng.IntN(8)].Attack = ALittle
				case 5:
					cfg.Nodes[rng.IntN(8)].Attack = NaN
				case 3:
					cfg.Faults.Liars = []int{rng.IntN(8)}
				}
				a := &ascent{updates: map[string]task.Update{}}
				cfg.Watch = a.watch
				r, err := Run(t.Context(), cfg)
				if err != nil {
					t.Errorf("seed %d: %v", seed, err)
					continue
				}
				a.task = cfg.Task
				a.task.Nodes = r.Nodes
				if !r.Done {
					t.Errorf("seed %d: not at the end after %v", seed, r.Virtual)
				} else if err := a.check(r); err != nil {
					t.Errorf("seed %d: %v", seed, err)
				} else if diverges := len(cfg.Task.Search.Candidates) - 1; r.Content.Chosen == diverges {
					t.Errorf("seed %d: the one that diverges is chosen", seed)
				}
				for _, id := range r.Proofs {
					if !slices.ContainsFunc(cfg.Faults.Liars, func(i int) bool { return r.Nodes[i] == id }) {
						t.Errorf("seed %d: honest %s has signed two records for one place", seed, id)
					}
				}
			}
		})
	}
	group.Wait()
}

// A search takes no longer where nodes mix with their neighbours alone: what ends a
// rung is told to all.
func TestSearchesOverGraphs(t *testing.T) {
	took := map[string]time.Duration{}
	for _, rule := range []string{mixing.All, "ring", "regular:4", "random"} {
		cfg := eight(3, 4)
		cfg.Task.Mixing = rule
		a := &ascent{updates: map[string]task.Update{}}
		cfg.Watch = a.watch
		r := run(t, cfg)
		a.task = cfg.Task
		a.task.Nodes = r.Nodes
		if err := a.check(r); err != nil {
			t.Errorf("%s: %v", rule, err)
		}
		for i, end := range r.Content.Ends {
			if end.Nodes != 8 {
				t.Errorf("%s: %d nodes have a say in rung %d", rule, end.Nodes, i+1)
			}
		}
		took[rule] = r.Virtual
	}
	for rule, t1 := range took {
		if t1 > took[mixing.All]*3/2 {
			t.Errorf("%s takes %v, mixing all %v", rule, t1, took[mixing.All])
		}
	}
}

// A run of a search is the same on any number of cores, and shows how it went.
func TestASearchIsRepeatable(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	var first Result
	for _, cores := range []int{1, 4} {
		runtime.GOMAXPROCS(cores)
		cfg := eight(5, 6)
		cfg.Samples, cfg.Faults = 5, Faults{Loss: .1, Restarts: 60, Down: time.Second}
		r := run(t, cfg)
		if cores == 1 {
			first = r
		} else if r.Digest != first.Digest || fmt.Sprint(r.Results.Search) == "" || r.Content.Chosen != first.Content.Chosen {
			t.Errorf("%d cores: another run than on one", cores)
		}
	}
	if len(first.Trace) != 5 || first.Results.Search == nil || first.Results.Search.Chosen != first.Content.Chosen {
		t.Errorf("%d points, trail %+v", len(first.Trace), first.Results.Search)
	}
	for _, p := range first.Trace {
		if p.AllRows.Rows == 0 || p.AllRows.Accuracy == nil {
			t.Errorf("round %d: %+v", p.Round, p.AllRows)
		}
	}
}

// A trace of a numeric target is in the target's unit, as the results are.
func TestATraceOfNumbers(t *testing.T) {
	nodes := hospitals(4)
	for _, n := range nodes {
		for _, row := range n.Rows.Rows {
			var a, b float64
			fmt.Sscan(row[0]+" "+row[1], &a, &b)
			row[3] = number(1000*(a-b) + 70_000)
		}
	}
	tk := task.New("numbers", dataset.Encoding{
		Target: "sick", Features: []dataset.FeatureSpec{{Name: "a", Kind: dataset.Numeric}, {Name: "c", Kind: dataset.Numeric}},
	}, nil)
	tk.Rounds = 30
	for name, cfg := range map[string]Config{
		"agreeing": {Nodes: nodes, Task: tk, Seed: 1, Samples: 3},
		"with an outer rule": func() Config {
			tk := tk
			tk.SetOuter(learn.Nesterov, 0)
			return Config{Nodes: nodes, Task: tk, Seed: 1, Samples: 3}
		}(),
	} {
		r := run(t, cfg)
		last := r.Trace[len(r.Trace)-1]
		got, want := last.AllRows, r.Results.AllRows.Federated
		if got.RMSE == nil || math.Abs(*got.RMSE-*want.RMSE) > .01**want.RMSE || math.Abs(*got.MAE-*want.MAE) > .01**want.MAE || math.Abs(*got.R2-*want.R2) > .01 || *want.RMSE < 100 {
			t.Errorf("%s: after round %d RMSE %g, MAE %g, R² %g; of the model %g, %g, %g", name, last.Round, *got.RMSE, *got.MAE, *got.R2, *want.RMSE, *want.MAE, *want.R2)
		}
		if m := last.Mean.RMSE; m == nil || math.Abs(*m-*r.Results.Mean.Federated.RMSE) > .02**m {
			t.Errorf("%s: mean RMSE of the nodes %v, of the model %g", name, m, *r.Results.Mean.Federated.RMSE)
		}
	}
}

// Nodes whose time for steps is short come to the same place as all others, in less
// time.
func TestStepsWithinATime(t *testing.T) {
	nodes := hospitals(2)
	for i := range nodes {
		nodes[i].Step = []time.Duration{time.Second, 4 * time.Second, 100 * time.Millisecond, 2 * time.Second}[i]
	}
	tk := hospitalTask(150, 10)
	tk.LearningRate = .05
	full := run(t, Config{Nodes: nodes, Task: tk, Seed: 3})
	tk.RoundTime = 1000
	short := run(t, Config{Nodes: nodes, Task: tk, Seed: 3})
	if short.Virtual > full.Virtual/2 {
		t.Errorf("with a second for each round it takes %v, without %v", short.Virtual, full.Virtual)
	}
	if d := far(short.Model.Params, full.Model.Params); d > .05 {
		t.Errorf("with a second for each round it comes to %v, without to %v", short.Model.Params, full.Model.Params)
	}
}

// Local steps that drift apart do not move where SCAFFOLD ends, through faults as
// well: its control variates are of the records.
func TestScaffoldThroughFaults(t *testing.T) {
	nodes, tk := hospitals(2), hospitalTask(400, 40)
	best := fedAvg(t, nodes, hospitalTask(1, 1), []float64{0, 0, 0, 0}, 6000, false)
	plain := run(t, Config{Nodes: nodes, Task: tk, Seed: 3})
	tk.Scaffold = true
	for name, f := range map[string]Faults{
		"none": {},
		"loss": {Loss: .2, Duplicate: .1},
		"all":  {Loss: .1, Restarts: 60, Torn: .01, Down: time.Second},
	} {
		r := run(t, Config{Nodes: nodes, Task: tk, Seed: 3, Faults: f})
		if d, p := far(r.Model.Params, best), far(plain.Model.Params, best); d > .02 || p < 5*d {
			t.Errorf("faults %s: %g from the optimum, %g without control variates", name, d, p)
		}
	}
}
