package sim

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"testing"
	"time"

	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/mixing"
	"village/protocol/task"
)

// many returns nodes with so many training rows each, and half as many to test
// on, of a target that depends on the features.
func many(n, rows, features int, seed uint64) ([]Node, task.Task) {
	rng := rand.New(rand.NewPCG(seed, 77))
	encoding := dataset.Encoding{Target: "y", Classes: []string{"no", "yes"}, Positive: "yes"}
	columns := []string{"part", "y"}
	for j := range features {
		name := fmt.Sprintf("x%02d", j)
		columns = append(columns, name)
		encoding.Features = append(encoding.Features, dataset.FeatureSpec{Name: name, Kind: dataset.Numeric})
	}
	nodes := make([]Node, n)
	for i := range nodes {
		t := dataset.Table{Columns: columns}
		for r := range rows + rows/2 {
			row, score := []string{"train", "no"}, rng.NormFloat64()
			if r >= rows {
				row[0] = "test"
			}
			for j := range features {
				x := rng.NormFloat64() + float64(i%5)/5
				score += x * float64(j%3-1)
				row = append(row, fmt.Sprintf("%.3f", x))
			}
			if score > 0 {
				row[1] = "yes"
			}
			t.Rows = append(t.Rows, row)
		}
		nodes[i] = Node{Name: fmt.Sprint("node ", i), Rows: t, Split: "part"}
	}
	t := task.New("many", encoding, nil)
	t.LocalSteps, t.LearningRate = 1, .2
	return nodes, t
}

// rough is a network with everything that can happen to a node.
func rough(nodes []Node, t task.Task, seed uint64) Config {
	for i, attack := range Attacks {
		nodes[3*i+1].Attack = attack
	}
	nodes[2].Step = 1200 * time.Millisecond
	nodes[5].Leaves = 3 * time.Second
	nodes[6].Enrols = 2 * time.Second
	return Config{
		Nodes: nodes, Task: t, Seed: seed, Limit: time.Hour, Samples: 5, Bandwidth: 100_000,
		Faults: Faults{
			Loss: .1, Duplicate: .05, Restarts: 60, Down: time.Second, Torn: .01,
			Outages: []Outage{{Node: 8, At: 2 * time.Second}, {Node: 9, At: time.Second, For: 2 * time.Second}},
		},
		Delay: Delay{Min: 5 * time.Millisecond, Max: 80 * time.Millisecond, Between: func(from, to int) time.Duration {
			return time.Duration((from+to)%7) * time.Millisecond
		}},
	}
}

func TestARunIsTheSameOnAnyNumberOfCores(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for name, config := range map[string]func() Config{
		"agreeing": func() Config {
			nodes, tk := many(40, 8, 5, 1)
			tk.Rounds, tk.Mixing = 12, "regular:4"
			cfg := rough(nodes, tk, 1)
			cfg.Faults.Liars = []int{11, 20}
			return cfg
		},
		"all with all": func() Config {
			nodes, tk := many(40, 8, 5, 2)
			tk.Rounds = 8
			return rough(nodes, tk, 2)
		},
		"in step": func() Config { // much happens at the same time
			nodes, tk := many(40, 8, 5, 2)
			tk.Rounds, tk.Mixing = 8, "exponential"
			cfg := rough(nodes, tk, 2)
			cfg.Bandwidth, cfg.Delay = 0, Delay{Min: 20 * time.Millisecond, Max: 20 * time.Millisecond}
			return cfg
		},
		"crowd": func() Config {
			nodes, tk := many(400, 4, 5, 3)
			tk.Rounds, tk.Mixing = 15, "random"
			return rough(nodes, tk, 3)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var first Result
			var firstWatched [32]byte
			counts := []int{1, 2, 8}
			if testing.Short() {
				counts = []int{1, 8} // the race detector finds no more with two
			}
			for _, cores := range counts {
				runtime.GOMAXPROCS(cores)
				cfg := config()
				watched := sha256.New()
				cfg.Watch = func(now time.Duration, node int, u task.Update, round uint64) {
					_ = binary.Write(watched, binary.BigEndian, []uint64{uint64(now), uint64(node), round, math.Float64bits(u.Params[0])})
				}
				r := run(t, cfg)
				sum := [32]byte(watched.Sum(nil))
				if cores == 1 {
					first, firstWatched = r, sum
					continue
				}
				if r.Digest != first.Digest || sum != firstWatched {
					t.Errorf("%d cores: another run than on one", cores)
				}
				if !reflect.DeepEqual(r, first) {
					t.Errorf("%d cores: the digest is the same and the result is not", cores)
				}
			}
			if first.Refused == 0 || len(first.Trace) != 5 {
				t.Errorf("%d updates refused, %d points", first.Refused, len(first.Trace))
			}
		})
	}
}

func TestTheDigestCoversWhatARunComesTo(t *testing.T) {
	nodes, tk := many(6, 8, 3, 1)
	tk.Rounds = 3
	base := run(t, Config{Nodes: nodes, Task: tk, Seed: 1}).Digest
	if run(t, Config{Nodes: nodes, Task: tk, Seed: 1}).Digest != base {
		t.Error("the same run has two digests")
	}
	slower := append([]Node{}, nodes...)
	slower[3].Step = 101 * time.Millisecond
	tk.LearningRate += 1e-15
	for name, cfg := range map[string]Config{
		"learning rate": {Nodes: nodes, Task: tk, Seed: 1},
		"pace":          {Nodes: slower, Task: tk, Seed: 1},
	} {
		if run(t, cfg).Digest == base {
			t.Errorf("another %s has the same digest", name)
		}
	}
}

// TestACrowdMixesAsTheGraphSays holds the crowd, node by node and event by event,
// against plain loops over rounds.
func TestACrowdMixesAsTheGraphSays(t *testing.T) {
	const n, rounds = 210, 12
	for _, rule := range []string{"ring", "regular:4", "random", "base:1"} {
		nodes, tk := many(n, 4, 3, 4)
		nodes[7].Rows.Rows = nodes[7].Rows.Rows[1:] // other weights
		nodes[9].Rows.Rows = nodes[9].Rows.Rows[2:]
		tk.Rounds, tk.Mixing = rounds, rule
		got := make([][]float64, n)
		r := run(t, Config{Nodes: nodes, Task: tk, Seed: 4, Watch: func(_ time.Duration, node int, u task.Update, round uint64) {
			if round == rounds {
				got[node] = u.Params
			}
		}})
		want, weights := plain(t, nodes, tk, rounds)
		mean, total := make([]float64, len(want[0])), 0.0
		for i := range want {
			if d := far(got[i], want[i]); d > 1e-12 {
				t.Fatalf("%s: node %d is %g from the plain loop", rule, i, d)
			}
			total += weights[i]
			for j := range mean {
				mean[j] += weights[i] * want[i][j]
			}
		}
		for j := range mean {
			mean[j] /= total
		}
		if d := far(r.Model.Params, mean); d > 1e-12 {
			t.Errorf("%s: the model is %g from the mean of the last updates", rule, d)
		}
		if len(r.Results.Nodes) != n || *r.Results.AllRows.Federated.Accuracy < .6 {
			t.Errorf("%s: %d nodes, accuracy %v", rule, len(r.Results.Nodes), *r.Results.AllRows.Federated.Accuracy)
		}
	}
}

// plain trains and mixes round by round, with nothing but loops.
func plain(t testing.TB, nodes []Node, tk task.Task, rounds uint64) (updates [][]float64, weights []float64) {
	t.Helper()
	sites, moments := make([]dataset.Samples, len(nodes)), make([]dataset.Moments, len(nodes))
	for i, n := range nodes {
		train, _, err := tk.Encoding.Divide(n.Rows, n.Split, tk.Seed)
		if err == nil {
			sites[i], err = tk.Encoding.Encode(train)
		}
		if err != nil {
			t.Fatal(err)
		}
		moments[i] = dataset.MomentsOf(sites[i])
		weights = append(weights, float64(sites[i].N))
	}
	all, err := dataset.Merge(moments)
	if err != nil {
		t.Fatal(err)
	}
	graph, err := mixing.New(tk.Mixing, len(nodes), tk.Seed)
	if err != nil {
		t.Fatal(err)
	}
	spec := tk.SpecOf(0)
	mixes := make([][]float64, len(nodes))
	updates = make([][]float64, len(nodes))
	for i := range sites {
		all.Scaling().Apply(sites[i])
		mixes[i] = spec.Init(0)
	}
	for round := range rounds {
		for i := range sites {
			updates[i], _, err = spec.Train(mixes[i], sites[i], learn.Training{Steps: int(tk.LocalSteps), Rate: tk.LearningRate, L2: tk.L2})
			if err != nil {
				t.Fatal(err)
			}
		}
		for i := range sites {
			mixes[i] = append([]float64{}, updates[i]...)
			for _, e := range graph.Edges(round+1, i, nil) {
				share := e.Share(uint64(weights[i]), uint64(weights[e.Node]))
				for j := range mixes[i] {
					mixes[i][j] += share * (updates[e.Node][j] - updates[i][j])
				}
			}
		}
	}
	return updates, weights
}

func TestACrowdSurvivesFaults(t *testing.T) {
	for seed := range uint64(6) {
		nodes, tk := many(220, 4, 3, seed)
		tk.Rounds, tk.Mixing = 20, []string{"random", "regular:4", "base:2"}[seed%3]
		nodes[3].Leaves = 2 * time.Second
		r := run(t, Config{
			Nodes: nodes, Task: tk, Seed: seed, Limit: 2 * time.Hour,
			Faults: Faults{Loss: .3, Duplicate: .1, Restarts: 60, Down: 3 * time.Second, Outages: []Outage{{Node: 5, At: time.Second}}},
		})
		last := 0
		for _, p := range r.Content.Parts {
			if p.Round == tk.Rounds {
				last++
			}
		}
		if last < 218 || len(r.Results.Nodes) < 218 || len(r.Results.Nodes) == 220 {
			t.Errorf("seed %d: %d nodes came to the last round, %d counted", seed, last, len(r.Results.Nodes))
		}
	}
}

func TestTheTraceShowsHowNodesDrawTogether(t *testing.T) {
	for rule, apart := range map[string]bool{"all": false, "ring": true} {
		nodes, tk := many(20, 8, 3, 5)
		tk.Rounds, tk.Mixing = 40, rule
		r := run(t, Config{Nodes: nodes, Task: tk, Seed: 5, Samples: 4})
		if len(r.Trace) != 4 {
			t.Fatalf("%d points", len(r.Trace))
		}
		for k, p := range r.Trace {
			if want := []uint64{10, 20, 30, 39}[k]; p.Round != want {
				t.Errorf("%s: point %d is of round %d, not %d", rule, k, p.Round, want)
			}
			if k > 0 && (p.Messages <= r.Trace[k-1].Messages || p.Bytes <= r.Trace[k-1].Bytes || p.Virtual <= r.Trace[k-1].Virtual) {
				t.Errorf("%s: the trace does not grow: %+v after %+v", rule, p, r.Trace[k-1])
			}
			if (p.Disagreement > 1e-6) != apart {
				t.Errorf("%s: disagreement %g", rule, p.Disagreement)
			}
			if p.AllRows.Rows != 80 || p.AllRows.Accuracy == nil || p.Mean.Accuracy == nil || math.Abs(*p.Mean.Accuracy-*p.AllRows.Accuracy) > 1e-12 {
				t.Errorf("%s: %d rows counted", rule, p.AllRows.Rows)
			}
		}
		if last := r.Trace[3]; last.Messages > r.Messages || last.Bytes > r.Bytes || (r.Disagreement > 1e-6) != apart {
			t.Errorf("%s: at the end %d messages, %d bytes, disagreement %g", rule, r.Messages, r.Bytes, r.Disagreement)
		}
	}
}

func TestAThinUplinkTakesItsTime(t *testing.T) {
	nodes, tk := many(10, 8, 20, 6)
	tk.Rounds = 10
	cfg := Config{Nodes: nodes, Task: tk, Seed: 6}
	wide := run(t, cfg)
	cfg.Bandwidth = 10_000 // nine updates of about half a kilobyte a round
	thin := run(t, cfg)
	if thin.Virtual < wide.Virtual+4*time.Second {
		t.Errorf("%v, and %v with 10 kB a second", wide.Virtual, thin.Virtual)
	}
	if far(wide.Model.Params, thin.Model.Params) != 0 {
		t.Error("the model depends on the bandwidth")
	}
}

func TestAttacks(t *testing.T) {
	honest, tk := many(20, 20, 4, 7)
	tk.Rounds = 30
	clean := run(t, Config{Nodes: honest, Task: tk, Seed: 7})
	for _, attack := range Attacks {
		nodes := append([]Node{}, honest...)
		for i := range 4 {
			nodes[5*i].Attack = attack
		}
		r := run(t, Config{Nodes: nodes, Task: tk, Seed: 7})
		d := far(r.Model.Params, clean.Model.Params)
		if d < .01 {
			t.Errorf("%s moves the model by %g only", attack, d)
		}
		if attack == NaN {
			if r.Refused == 0 || len(r.Content.Parts) != 16 {
				t.Errorf("%d NaN updates refused, %d in the model", r.Refused, len(r.Content.Parts))
			}
		} else if r.Refused != 0 || len(r.Content.Parts) != 20 {
			t.Errorf("%s: %d updates refused, %d in the model", attack, r.Refused, len(r.Content.Parts))
		}
		for i, n := range r.Results.Nodes {
			if attack == LabelFlip && *n.Local.Accuracy != *clean.Results.Nodes[i].Local.Accuracy {
				t.Errorf("%s does not count honestly what it reaches alone", n.Name)
			}
		}
	}
}

func TestARunThatIsInterrupted(t *testing.T) {
	nodes, tk := many(300, 4, 3, 8)
	tk.Rounds, tk.Mixing = 1000, "random"
	ctx, cancel := context.WithCancel(t.Context())
	published, told := 0, uint64(0)
	_, err := Run(ctx, Config{Nodes: nodes, Task: tk, Seed: 8,
		Watch: func(time.Duration, int, task.Update, uint64) {
			if published++; published == 5000 {
				cancel()
			}
		},
		Progress: func(updates uint64) { told = updates },
	})
	if !errors.Is(err, context.Canceled) || published > 20_000 || told > uint64(published) {
		t.Errorf("%v after %d updates, of which %d were told", err, published, told)
	}
}

func TestACrowdCannotMixAllWithAll(t *testing.T) {
	nodes, tk := many(201, 1, 1, 9)
	if _, err := Run(t.Context(), Config{Nodes: nodes, Task: tk}); err == nil {
		t.Error("201 nodes mix all with all")
	}
}
