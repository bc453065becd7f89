package sim

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"village/protocol/agree"
	"village/protocol/dataset"
	"village/protocol/task"
)

// One line replays a run that failed: go test ./sim -run Storm -storm SEED
var (
	storm  = flag.Int64("storm", -1, "replay the one run of TestStorms with this seed")
	storms = flag.Uint64("storms", 30, "seeds of TestStorms")
)

// fifty is a run of many nodes with few rows, through loss, repeats, reordering,
// a partition that heals, crashes and, where liars is above 0, nodes that tell
// every second one something else, in votes and in everything else.
func fifty(seed uint64, liars int) (Config, *updates) {
	rng := rand.New(rand.NewPCG(seed, 50))
	const n = 50
	nodes := make([]Node, n)
	for i := range nodes {
		t := dataset.Table{Columns: []string{"a", "sick"}}
		for range 3 + rng.IntN(6) {
			a, y := rng.NormFloat64(), "no"
			if a+rng.NormFloat64() > 0 {
				y = "yes"
			}
			t.Rows = append(t.Rows, []string{number(a), y})
		}
		t.Columns = append(t.Columns, "part")
		for r := range t.Rows {
			t.Rows[r] = append(t.Rows[r], []string{"train", "train", "test"}[r%3])
		}
		nodes[i] = Node{Name: fmt.Sprint("node ", i), Rows: t, Split: "part", Step: time.Duration(50+rng.IntN(200)) * time.Millisecond}
	}
	tk := task.New("storm", dataset.Encoding{
		Target: "sick", Classes: []string{"no", "yes"}, Positive: "yes",
		Features: []dataset.FeatureSpec{{Name: "a", Kind: dataset.Numeric}},
	}, nil)
	tk.Rounds, tk.LocalSteps = 4, 2
	cut := time.Duration(rng.IntN(15)) * time.Second
	heal := cut + time.Duration(rng.IntN(30))*time.Second
	side := rng.IntN(n)
	f := Faults{
		Loss: 0.3, Duplicate: 0.1, Restarts: 120, Torn: 0.02, Down: 2 * time.Second,
		Apart: func(now time.Duration, a, b int) bool { return now > cut && now < heal && (a < side) != (b < side) },
	}
	for i := range liars {
		f.Liars = append(f.Liars, (int(seed)+3*i)%n)
	}
	u := &updates{params: map[string][]float64{}}
	return Config{
		Nodes: nodes, Task: tk, Seed: seed, Faults: f, Watch: u.watch, Limit: 2 * time.Hour,
		Delay: Delay{Min: time.Millisecond, Max: 400 * time.Millisecond},
	}, u
}

// updates remembers everything that was published, so that a sealed model can
// be recomputed by somebody who took no part.
type updates struct{ params map[string][]float64 }

func (u *updates) watch(_ time.Duration, node int, up task.Update, round uint64) {
	u.params[fmt.Sprint(node, " ", round)] = up.Params
}

// recompute is the plain float64 mean of a final set.
func (u *updates) recompute(r Result) []float64 {
	places := map[string]int{}
	for i, id := range r.Nodes {
		places[id.String()] = i
	}
	var mean []float64
	total := 0.0
	for _, p := range r.Content.Parts {
		params := u.params[fmt.Sprint(places[p.Node.String()], " ", p.Round)]
		if mean == nil {
			mean = make([]float64, len(params))
		}
		for i, x := range params {
			mean[i] += float64(p.Weight) * x
		}
		total += float64(p.Weight)
	}
	for i := range mean {
		mean[i] /= total
	}
	return mean
}

// TestStorms runs fifty nodes through a storm for each seed. Run holds, at every
// step, that no two nodes decide on two rosters or models, and that each
// recomputes the model that was signed.
func TestStorms(t *testing.T) {
	from, to := uint64(0), *storms
	switch {
	case *storm >= 0:
		from, to = uint64(*storm), uint64(*storm)+1
	case testing.Short():
		to = 4
	}
	defer debug.SetGCPercent(debug.SetGCPercent(800)) // the runs are small, and time is short
	var next, messages atomic.Uint64
	next.Store(from)
	start := time.Now()
	var group sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for seed := next.Add(1) - 1; seed < to && !t.Failed(); seed = next.Add(1) - 1 {
				cfg, all := fifty(seed, int(seed%4)*5) // up to 15 of 50 may lie; 16 are tolerated
				r, err := Run(t.Context(), cfg)
				messages.Add(r.Messages)
				switch {
				case err != nil:
					t.Errorf("seed %d: %v", seed, err)
				case !r.Done:
					t.Errorf("seed %d: not at the end after %v", seed, r.Virtual)
				default:
					for _, id := range r.Proofs {
						if !slices.ContainsFunc(cfg.Faults.Liars, func(i int) bool { return r.Nodes[i] == id }) {
							t.Errorf("seed %d: honest %s has signed two records for one place", seed, id)
						}
					}
					for i, x := range all.recompute(r) {
						if i == 0 && len(cfg.Faults.Liars) > 0 {
							continue // about which they tell some nodes something else
						}
						if math.Abs(x-r.Model.Params[i]) > 1e-12 {
							t.Errorf("seed %d: parameter %d is %g, recomputed %g", seed, i, r.Model.Params[i], x)
						}
					}
				}
			}
		})
	}
	group.Wait()
	if to-from >= 30 && messages.Load() < 4e6 {
		t.Errorf("only %d messages", messages.Load())
	}
	t.Logf("%d runs, %.1f million messages, %v", to-from, float64(messages.Load())/1e6, time.Since(start).Round(time.Second))
}

// TestTooManyLiarsAreNamed has more liars than a decision tolerates. It may then
// split or stall; but everyone who has told two things is proven to have.
func TestTooManyLiarsAreNamed(t *testing.T) {
	for seed := range uint64(10) {
		nodes := append(append(hospitals(seed), hospitals(seed+1)...), hospitals(seed+2)...)[:10]
		liars := []int{0, 2, 3, 5, 8} // 3 of 10 are tolerated
		cfg := Config{
			Nodes: nodes, Task: hospitalTask(5, 2), Seed: seed, Limit: 10 * time.Minute,
			Faults: Faults{Loss: 0.2, Liars: liars}, split: func(error) {},
		}
		r, err := Run(t.Context(), cfg)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		lied := map[string]bool{}
		for _, i := range liars {
			lied[r.Nodes[i].String()] = true
		}
		for _, id := range r.Proofs {
			if !lied[id.String()] {
				t.Errorf("seed %d: honest %s is proven a liar", seed, id)
			}
		}
		if len(r.Proofs) <= agree.Faults(len(nodes)) {
			t.Errorf("seed %d: %d liars are proven, no more than the %d that are tolerated", seed, len(r.Proofs), agree.Faults(len(nodes)))
		}
	}
}

// TestIsolatedForFiftyRounds has one node cut off for fifty rounds of the others
// and one ten times slower: the fixed point of FedAvg is reached all the same.
func TestIsolatedForFiftyRounds(t *testing.T) {
	nodes, tk := hospitals(2), hospitalTask(400, 5)
	nodes[1].Step = time.Second
	var cut, healed uint64
	r := run(t, Config{
		Nodes: nodes, Task: tk, Seed: 6,
		Faults: Faults{Apart: func(now time.Duration, a, b int) bool {
			return now > 20*time.Second && now < 150*time.Second && (a == 2) != (b == 2)
		}},
		Watch: func(now time.Duration, node int, _ task.Update, round uint64) {
			if node == 0 && now < 20*time.Second {
				cut = round
			}
			if node == 0 && now < 150*time.Second {
				healed = round
			}
		},
	})
	if healed-cut < 50 {
		t.Fatalf("isolated from round %d to %d only", cut, healed)
	}
	fixed := fedAvg(t, nodes, tk, tk.First(nil), 4000, false)
	if d := far(r.Model.Params, fixed); d > 1e-3 {
		t.Errorf("%g from FedAvg's fixed point, more than 1e-3", d)
	}
}

// Nodes that are held up before the last round, because updates of the one before
// are late, do not take each other for silent, which would stop all of them.
func TestManyNodesComeThroughTheLastRound(t *testing.T) {
	if testing.Short() {
		t.Skip("many messages")
	}
	for seed := range uint64(1) {
		cfg, _ := fifty(seed, 0)
		for len(cfg.Nodes) < 120 {
			n := cfg.Nodes[len(cfg.Nodes)-50]
			n.Name = fmt.Sprint("node ", len(cfg.Nodes))
			cfg.Nodes = append(cfg.Nodes, n)
		}
		cfg.Faults, cfg.Watch, cfg.Limit = Faults{Loss: 0.1}, nil, time.Hour
		if r, err := Run(t.Context(), cfg); err != nil || !r.Done {
			t.Fatalf("seed %d: done is %v after %v: %v", seed, r.Done, r.Virtual, err)
		}
	}
}
