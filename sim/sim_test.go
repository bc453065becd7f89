package sim

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/task"
)

// hospitals returns four tables of unequal size and unlike distribution, the
// case in which a wrong weight moves the result.
func hospitals(seed uint64) []Node {
	rng := rand.New(rand.NewPCG(seed, 1))
	nodes := make([]Node, 0, 4)
	for i, rows := range []int{200, 170, 30, 85} {
		t := dataset.Table{Columns: []string{"a", "b", "c", "sick"}}
		for range rows {
			a, b, c := rng.NormFloat64()+float64(i)/2, rng.NormFloat64()*float64(i+1), rng.NormFloat64()
			y := "no"
			if a-b/2+float64(i)*c/3+rng.NormFloat64()*(1+float64(i)/2) > 0.8-float64(i)/2 {
				y = "yes"
			}
			t.Rows = append(t.Rows, []string{number(a), number(b), number(c), y})
		}
		nodes = append(nodes, Node{Name: fmt.Sprint("hospital ", i), Nation: "HUN", Rows: t})
	}
	return nodes
}

func number(x float64) string { return fmt.Sprintf("%.6f", x) }

func hospitalTask(rounds, steps uint64) task.Task {
	t := task.New("test", dataset.Encoding{
		Target: "sick", Classes: []string{"no", "yes"}, Positive: "yes",
		Features: []dataset.FeatureSpec{{Name: "a", Kind: dataset.Numeric}, {Name: "b", Kind: dataset.Numeric}, {Name: "c", Kind: dataset.Numeric}},
	}, nil)
	t.Rounds, t.LocalSteps, t.LearningRate = rounds, steps, 0.2
	return t
}

// fedAvg is McMahan et al. 2017, algorithm 1, with every client in every round,
// written down plainly: own scaling, own gradient, own mean. It shares with the
// product the encoding of rows to numbers and the split into train and test.
func fedAvg(t *testing.T, nodes []Node, tk task.Task, start []float64, rounds int, equalWeights bool) []float64 {
	t.Helper()
	var sites []dataset.Samples
	total := 0.0
	for _, n := range nodes {
		train, _, err := tk.Encoding.Divide(n.Rows, n.Split, tk.Seed)
		if err != nil {
			t.Fatal(err)
		}
		s, err := tk.Encoding.Encode(train)
		if err != nil {
			t.Fatal(err)
		}
		sites = append(sites, s)
		total += float64(s.N)
	}
	d := sites[0].D
	for j := range d {
		mean, ss := 0.0, 0.0
		for _, s := range sites {
			for i := range s.N {
				mean += s.X[i*d+j] / total
			}
		}
		for _, s := range sites {
			for i := range s.N {
				ss += (s.X[i*d+j] - mean) * (s.X[i*d+j] - mean)
			}
		}
		for _, s := range sites {
			for i := range s.N {
				s.X[i*d+j] = (s.X[i*d+j] - mean) / math.Sqrt(ss/total)
			}
		}
	}
	x := append([]float64(nil), start...)
	for range rounds {
		next := make([]float64, d+1)
		for _, s := range sites {
			w := append([]float64(nil), x...)
			for range tk.LocalSteps {
				grad := make([]float64, d+1)
				for i := range s.N {
					z := w[d]
					for j := range d {
						z += w[j] * s.X[i*d+j]
					}
					e := 1/(1+math.Exp(-z)) - float64(s.Y[i])
					for j := range d {
						grad[j] += e * s.X[i*d+j] / float64(s.N)
					}
					grad[d] += e / float64(s.N)
				}
				for j := range d {
					w[j] -= tk.LearningRate * (grad[j] + tk.L2*w[j])
				}
				w[d] -= tk.LearningRate * grad[d]
			}
			share := float64(s.N) / total
			if equalWeights {
				share = 1 / float64(len(sites))
			}
			for j := range next {
				next[j] += share * w[j]
			}
		}
		x = next
	}
	return x
}

func run(t *testing.T, cfg Config) Result {
	t.Helper()
	r, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Done {
		t.Fatalf("the run did not come to its end in %v of virtual time, %d messages", r.Virtual, r.Messages)
	}
	for i, m := range r.Models {
		if m.Defined() && m != r.Content.Model {
			t.Fatalf("node %d sealed %s, not %s", i, m, r.Content.Model)
		}
	}
	return r
}

func far(a, b []float64) float64 {
	d := 0.0
	for i := range a {
		d = math.Max(d, math.Abs(a[i]-b[i]))
	}
	return d
}

func TestWithoutFaultsItIsFedAvg(t *testing.T) {
	for _, rounds := range []uint64{1, 7, 60} {
		nodes, tk := hospitals(1), hospitalTask(rounds, 5)
		// Updates may overtake each other by many of the fastest rounds.
		r := run(t, Config{Nodes: nodes, Task: tk, Seed: 3, Delay: Delay{Min: time.Millisecond, Max: 2 * time.Second}})
		want := fedAvg(t, nodes, tk, tk.First(nil), int(rounds), false)
		if d := far(r.Model.Params, want); d > 1e-12 {
			t.Errorf("%d rounds: %g from the reference FedAvg, more than 1e-12", rounds, d)
		}
		if d := far(r.Model.Params, fedAvg(t, nodes, tk, tk.First(nil), int(rounds), true)); d < 1e-3 {
			t.Errorf("%d rounds: equal weights come as near as %g, so that this test cannot tell them apart", rounds, d)
		}
	}
}

func TestLossAndSlownessDoNotMoveTheFixedPoint(t *testing.T) {
	const rounds = 400
	nodes, tk := hospitals(2), hospitalTask(rounds, 5)
	nodes[1].Step = time.Second // ten times slower
	r := run(t, Config{Nodes: nodes, Task: tk, Seed: 5, Faults: Faults{Loss: 0.3, Duplicate: 0.1}})
	fixed := fedAvg(t, nodes, tk, tk.First(nil), 4000, false)
	if d := far(r.Model.Params, fixed); d > 1e-3 {
		t.Errorf("%g from FedAvg's fixed point, more than 1e-3", d)
	}
	if d := far(fixed, fedAvg(t, nodes, tk, tk.First(nil), 4000, true)); d < 1e-2 {
		t.Errorf("the fixed point of equal weights is as near as %g, so that this test cannot tell them apart", d)
	}
}

func TestFaultsNeverSplitOrStopARun(t *testing.T) {
	seeds := uint64(40)
	if testing.Short() {
		seeds = 8
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 7))
		cut, heal := time.Duration(rng.IntN(20))*time.Second, time.Duration(20+rng.IntN(60))*time.Second
		lonely := rng.IntN(4)
		published := map[string]string{}
		var twice error
		r, err := Run(t.Context(), Config{
			Nodes: hospitals(seed), Task: hospitalTask(25, 3), Seed: seed,
			Delay: Delay{Min: time.Millisecond, Max: 3 * time.Second},
			Faults: Faults{
				Loss: 0.3, Duplicate: 0.1, Restarts: 60, Down: 3 * time.Second,
				Apart: func(now time.Duration, from, to int) bool {
					return now > cut && now < heal && (from == lonely) != (to == lonely)
				},
			},
			Watch: func(_ time.Duration, node int, u task.Update, round uint64) {
				key, value := fmt.Sprint(node, " ", round), fmt.Sprint(u.Params)
				if before, ok := published[key]; ok && before != value {
					twice = fmt.Errorf("node %d published two updates for round %d", node, round)
				}
				published[key] = value
			},
			Limit: 6 * time.Hour,
		})
		if err := errors.Join(err, twice); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if !r.Done {
			t.Fatalf("seed %d: not at the end after %v", seed, r.Virtual)
		}
		for _, m := range r.Models {
			if m != r.Models[0] {
				t.Fatalf("seed %d: two models", seed)
			}
		}
	}
}

// trained is how long after its start a run had its last update.
func trained(t *testing.T, cfg Config) (Result, time.Duration) {
	t.Helper()
	var last time.Duration
	cfg.Watch = func(now time.Duration, _ int, _ task.Update, _ uint64) { last = now }
	return run(t, cfg), last
}

func TestADeadNodeCostsOneWait(t *testing.T) {
	cfg := Config{Nodes: hospitals(4), Task: hospitalTask(50, 2), Seed: 9}
	_, whole := trained(t, cfg)
	cfg.Faults.Outages = []Outage{{Node: 3, At: 3 * time.Second}}
	r, without := trained(t, cfg)
	// A round takes .15 s here, so that the wait learnt for it is the least one.
	if extra := without - whole; extra > 3500*time.Millisecond {
		t.Errorf("the dead node cost %v", extra)
	}
	if len(r.Content.Out) != 1 || r.Content.Out[0].Node != r.Nodes[3] || r.Content.Out[0].Why != task.Silent || r.Content.Out[0].Round == 0 {
		t.Errorf("left out: %+v", r.Content.Out)
	}
}

func TestASlowNodeIsWaitedFor(t *testing.T) {
	nodes := hospitals(4)
	nodes[3].Step = 2 * time.Minute
	published := make([]int, 4)
	r := run(t, Config{
		Nodes: nodes, Task: hospitalTask(10, 2), Seed: 9,
		Watch: func(_ time.Duration, node int, _ task.Update, _ uint64) { published[node]++ },
	})
	if published[0] != 10 || published[3] != 10 || len(r.Content.Out) != 0 {
		t.Errorf("the fast node published %d updates, the slow one %d; left out: %v", published[0], published[3], r.Content.Out)
	}
}

func TestANodeThatComesBackJumpsToTheOthers(t *testing.T) {
	published, highest := make([]int, 4), make([]uint64, 4)
	r := run(t, Config{
		Nodes: hospitals(4), Task: hospitalTask(300, 2), Seed: 9,
		Faults: Faults{Outages: []Outage{{Node: 3, At: 3 * time.Second, For: 20 * time.Second}}},
		Watch: func(_ time.Duration, node int, _ task.Update, round uint64) {
			published[node]++
			highest[node] = round
		},
	})
	if published[0] != 300 || published[3] > 290 || highest[3] != 300 || len(r.Content.Out) != 0 {
		t.Errorf("the others published %d updates, the one that was down %d, the last for round %d; it should leave rounds out and still end at 300",
			published[0], published[3], highest[3])
	}
}

func TestALateNodeContributes(t *testing.T) {
	nodes := hospitals(4)
	nodes[1].Enrols = 20 * time.Second
	r := run(t, Config{Nodes: nodes, Task: hospitalTask(200, 2), Seed: 10})
	for _, c := range r.Results.Contributions {
		if late := c.PeerID == r.Nodes[1]; c.Late != late || !c.InFinal || c.Round != 200 {
			t.Errorf("contribution %+v", c)
		}
	}
	if len(r.Results.Nodes) != 4 {
		t.Errorf("%d nodes evaluated", len(r.Results.Nodes))
	}
}

func TestANamedNodeThatNeverEnrolsIsNamed(t *testing.T) {
	nodes := hospitals(4)
	nodes[2].Enrols = 1000 * time.Hour
	r, err := Run(t.Context(), Config{Nodes: nodes, Task: hospitalTask(20, 2), Seed: 10, Limit: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Content.Parts) != 3 || len(r.Content.Out) != 1 || r.Content.Out[0].Why != task.Absent {
		t.Errorf("parts %d, left out %+v", len(r.Content.Parts), r.Content.Out)
	}
	// It follows and recomputes the model all the same.
	for i, m := range r.Models {
		if m != r.Models[0] || !m.Defined() {
			t.Errorf("node %d has the model %s", i, m)
		}
	}
}

func TestNodesMayLeave(t *testing.T) {
	nodes := hospitals(4)
	nodes[1].Leaves, nodes[2].Leaves = 5*time.Second, 8*time.Second
	r := run(t, Config{Nodes: nodes, Task: hospitalTask(200, 2), Seed: 10})
	for _, c := range r.Results.Contributions {
		left := c.PeerID == r.Nodes[1] || c.PeerID == r.Nodes[2]
		if c.InFinal == left || c.Round == 0 {
			t.Errorf("contribution %+v", c)
		}
	}
	if len(r.Content.Parts) != 2 || len(r.Content.Out) != 2 {
		t.Errorf("%d parts, left out %+v", len(r.Content.Parts), r.Content.Out)
	}
}

func TestPartitions(t *testing.T) {
	const cut, heal = 3 * time.Second, 2 * time.Minute
	eight := func() []Node { return append(hospitals(20), hospitals(21)...) }
	sides := func(n int) Faults {
		return Faults{Apart: func(now time.Duration, a, b int) bool { return now > cut && now < heal && (a < n) != (b < n) }}
	}
	t.Run("halves", func(t *testing.T) {
		highest := make([]uint64, 8)
		r := run(t, Config{Nodes: eight(), Task: hospitalTask(100, 2), Seed: 1, Faults: sides(4),
			Watch: func(now time.Duration, node int, _ task.Update, round uint64) {
				if now < heal {
					highest[node] = round
				}
			}})
		if r.Virtual < heal {
			t.Errorf("half of the nodes sealed after %v", r.Virtual)
		}
		for i, round := range highest {
			if round != 90 { // the last tenth is for a quorum
				t.Errorf("node %d had come to round %d when the cut healed; both sides should train", i, round)
			}
		}
		if len(r.Content.Parts) != 8 {
			t.Errorf("%d parts after the cut was healed", len(r.Content.Parts))
		}
	})
	t.Run("six and two", func(t *testing.T) {
		r := run(t, Config{Nodes: eight(), Task: hospitalTask(100, 2), Seed: 2, Faults: sides(6)})
		for _, o := range r.Content.Out {
			if o.Why != task.Silent {
				t.Errorf("left out: %+v", o)
			}
		}
		if len(r.Content.Parts) != 6 || len(r.Content.Out) != 2 {
			t.Errorf("%d parts, %d left out; the six are a quorum", len(r.Content.Parts), len(r.Content.Out))
		}
	})
}

func TestTheSameSeedIsTheSameRun(t *testing.T) {
	digests := map[[32]byte]bool{}
	for range 2 {
		r := run(t, Config{Nodes: hospitals(6), Task: hospitalTask(20, 2), Seed: 11, Faults: Faults{Loss: 0.2, Restarts: 30, Down: time.Second}})
		digests[r.Digest] = true
	}
	other := run(t, Config{Nodes: hospitals(6), Task: hospitalTask(20, 2), Seed: 12, Faults: Faults{Loss: 0.2, Restarts: 30, Down: time.Second}})
	if len(digests) != 1 || digests[other.Digest] {
		t.Errorf("%d digests of one seed; another seed gives the same: %v", len(digests), digests[other.Digest])
	}
}

func TestToleranceEndsARunEarly(t *testing.T) {
	tk := hospitalTask(5000, 5)
	tk.Tolerance = 1e-4
	nodes := hospitals(8)
	r := run(t, Config{Nodes: nodes, Task: tk, Seed: 13})
	if r.Model.Round >= 1000 {
		t.Errorf("still training in round %d", r.Model.Round)
	}
	lossy := run(t, Config{Nodes: nodes, Task: tk, Seed: 14, Faults: Faults{Loss: 0.3}})
	if d := far(r.Model.Params, lossy.Model.Params); d > 0.05 {
		t.Errorf("with loss it settles %g away", d)
	}
}

func TestSoftmaxAndOneNode(t *testing.T) {
	tk := hospitalTask(40, 5)
	tk.Encoding.Classes, tk.Encoding.Positive = []string{"maybe", "no", "yes"}, ""
	tk.Model = learn.Softmax
	nodes := hospitals(15)[:1]
	for i := range nodes[0].Rows.Rows {
		if i%5 == 0 {
			nodes[0].Rows.Rows[i][3] = "maybe"
		}
	}
	r := run(t, Config{Nodes: nodes, Task: tk, Seed: 15})
	if a := r.Results.AllRows.Federated.Accuracy; a == nil || *a < 0.5 {
		t.Errorf("accuracy %v", a)
	}
}
