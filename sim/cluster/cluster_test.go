package cluster

import (
	"context"
	"errors"
	"math"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"village/node/ingest/sets"
	"village/protocol/dataset"
	"village/protocol/record"
	"village/protocol/task"
	"village/sim"
	"village/sim/scenario"
)

// config is a run of a shipped scenario with changes.
func config(t testing.TB, name string, change func(*scenario.Scenario)) sim.Config {
	t.Helper()
	s, _, ok := scenario.Named(name)
	if !ok {
		t.Fatalf("there is no scenario %s", name)
	}
	if s.Vary = nil; change != nil {
		change(&s)
	}
	cfg, err := s.Config(func(data string, _ []string) (dataset.Table, scenario.Defaults, error) {
		table, set, err := sets.Open(data)
		return table, scenario.Defaults(set.Defaults), err
	})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func near(s *scenario.Scenario) {
	s.Rounds, s.Latency = 20, scenario.Latency{Min: time.Millisecond, Max: 3 * time.Millisecond}
}

// leaks tells of goroutines and files that a test leaves.
func leaks(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%d files are left, %v", len(left), err)
		}
		// A goroutine that has ended may still be counted for a moment.
		for range 500 {
			if runtime.NumGoroutine() <= before {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		stacks := make([]byte, 1<<20)
		t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
	})
}

func run(t *testing.T, cfg sim.Config) sim.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	res, err := Run(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// TestSameAsSimulated: real nodes come to what simulated ones do, to the last bit
// of the model, in the same rounds.
func TestSameAsSimulated(t *testing.T) {
	leaks(t)
	cfg := config(t, "four-hospitals", near)
	cfg.Samples = 5
	var watched, shown atomic.Uint64
	cfg.Watch = func(_ time.Duration, node int, u task.Update, round uint64) {
		if node < 0 || node >= 4 || round < 1 || round > 20 || u.Params == nil {
			t.Errorf("an update of node %d for round %d", node, round)
		}
		watched.Add(1)
	}
	cfg.Progress = func(updates uint64) { shown.Store(updates) }
	got := run(t, cfg)
	cfg.Watch, cfg.Progress = nil, nil
	want, err := sim.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v, %d packets, %d bytes", got.Virtual, got.Messages, got.Bytes)
	if !got.Done || got.Updates != 80 || watched.Load() != 80 || shown.Load() > 80 {
		t.Errorf("done %v, %d updates, %d seen, %d shown", got.Done, got.Updates, watched.Load(), shown.Load())
	}
	if !slices.Equal(got.Model.Params, want.Model.Params) {
		t.Errorf("parameters %v, simulated %v", got.Model.Params, want.Model.Params)
	}
	if a, b := comparable(got.Results), comparable(want.Results); !reflect.DeepEqual(a, b) {
		t.Errorf("results\n%+v\nsimulated\n%+v", a, b)
	}
	if len(got.Trace) != len(want.Trace) || got.Disagreement != want.Disagreement {
		t.Fatalf("%d points, disagreement %g; simulated %d, %g", len(got.Trace), got.Disagreement, len(want.Trace), want.Disagreement)
	}
	for i, p := range got.Trace {
		q := want.Trace[i]
		if p.Virtual <= 0 || p.Messages == 0 || p.Bytes == 0 || p.Virtual > got.Virtual || p.Bytes > got.Bytes {
			t.Errorf("point %d: %v, %d packets of %d bytes", i, p.Virtual, p.Messages, p.Bytes)
		}
		// The mean is summed up in another order.
		if p.Round != q.Round || p.Disagreement != q.Disagreement || !reflect.DeepEqual(p.AllRows, q.AllRows) ||
			math.Abs(*p.Mean.Accuracy-*q.Mean.Accuracy) > 1e-12 || math.Abs(*p.Mean.ROCAUC-*q.Mean.ROCAUC) > 1e-12 {
			t.Errorf("point %d\n%+v\nsimulated\n%+v", i, p, q)
		}
	}
	for i, m := range got.Models {
		if m != got.Results.CID || got.Nodes[i] != got.Results.Nodes[i].PeerID {
			t.Errorf("node %d: model %s of %s", i, m, got.Nodes[i])
		}
	}
}

// comparable takes from results what is another one at every node.
func comparable(r task.Results) task.Results {
	r.CID, r.Task, r.Nodes, r.Contributions = record.CID{}, record.CID{}, slices.Clone(r.Nodes), slices.Clone(r.Contributions)
	for i := range r.Nodes {
		r.Nodes[i].PeerID = record.NodeID{}
	}
	for i := range r.Contributions {
		r.Contributions[i].PeerID = record.NodeID{}
	}
	return r
}

// TestThroughFaults: of twelve nodes one is killed and comes back, one is killed
// for good, one joins late and one leaves, while packets are lost and the network
// falls apart.
func TestThroughFaults(t *testing.T) {
	leaks(t)
	cfg := config(t, "four-hospitals", func(s *scenario.Scenario) {
		near(s)
		s.Partition, s.Nodes, s.Rounds, s.Loss, s.Duplicate = "iid", 12, 40, 0.05, 0.05
	})
	cfg.Nodes[3].Leaves = 500 * time.Millisecond
	cfg.Nodes[5].Enrols = 300 * time.Millisecond
	cfg.Faults.Outages = []sim.Outage{{Node: 1, At: 600 * time.Millisecond, For: time.Second}, {Node: 7, At: 900 * time.Millisecond}}
	cfg.Faults.Apart = func(now time.Duration, from, to int) bool {
		return now > 700*time.Millisecond && now < 1200*time.Millisecond && (from < 4) != (to < 4)
	}
	res := run(t, cfg)
	t.Logf("%v, %d packets, %d bytes, %d updates", res.Virtual, res.Messages, res.Bytes, res.Updates)
	if !res.Done || res.Model == nil {
		t.Fatal("no model")
	}
	for i, m := range res.Models {
		if m != res.Results.CID && i != 7 || i == 7 && m.Defined() {
			t.Errorf("%s has the model %s", cfg.Nodes[i].Name, m)
		}
	}
	if accuracy := *res.Results.AllRows.Federated.Accuracy; accuracy < 0.75 {
		t.Errorf("accuracy %.3f", accuracy)
	}
}

// TestCancel: whenever it ends, a run ends soon and leaves nothing.
func TestCancel(t *testing.T) {
	cfg := config(t, "four-hospitals", near)
	cfg.Task.Rounds = task.MaxRounds
	for _, after := range []time.Duration{0, 20 * time.Millisecond, 200 * time.Millisecond, 700 * time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) {
			leaks(t)
			enough := errors.New("enough")
			ctx, cancel := context.WithCancelCause(t.Context())
			timer := time.AfterFunc(after, func() { cancel(enough) })
			defer timer.Stop()
			if _, err := Run(ctx, cfg); !errors.Is(err, enough) {
				t.Error(err)
			}
		})
	}
}

// TestLimit: a run that takes too long has no model, and is not done.
func TestLimit(t *testing.T) {
	leaks(t)
	cfg := config(t, "four-hospitals", near)
	cfg.Task.Rounds, cfg.Limit = task.MaxRounds, 300*time.Millisecond
	if res := run(t, cfg); res.Done || res.Model != nil || res.Virtual < cfg.Limit {
		t.Errorf("done %v after %v", res.Done, res.Virtual)
	}
}

// TestRefused: what real nodes cannot do is refused before anything starts.
func TestRefused(t *testing.T) {
	for key, change := range map[string]func(*sim.Config){
		"nodes = 201":   func(c *sim.Config) { c.Nodes = make([]sim.Node, 201) },
		"at least one":  func(c *sim.Config) { c.Nodes = nil },
		"hostile: ":     func(c *sim.Config) { c.Nodes[1].Attack = sim.SignFlip },
		"slow: ":        func(c *sim.Config) { c.Nodes[1].Step *= 10 },
		"torn: ":        func(c *sim.Config) { c.Faults.Torn = 0.1 },
		"pull: ":        func(c *sim.Config) { c.Pull = time.Second },
		"latency: ":     func(c *sim.Config) { c.Delay.Min = time.Hour },
		"node 5 of 4":   func(c *sim.Config) { c.Faults.Outages = []sim.Outage{{Node: 4}} },
		"not lie":       func(c *sim.Config) { c.Faults.Liars = []int{0} },
		"it has 9 rows": func(c *sim.Config) { c.Nodes[2].Rows.Rows = c.Nodes[2].Rows.Rows[:9] },
		"duplicate row": func(c *sim.Config) { r := &c.Nodes[2].Rows.Rows; *r = append(slices.Clone(*r), (*r)[0]) },
		"lack age": func(c *sim.Config) {
			c.Nodes[2].Rows.Columns = slices.Clone(c.Nodes[2].Rows.Columns)
			c.Nodes[2].Rows.Columns[1] = "x"
		},
		`"ATLANTIS"`:       func(c *sim.Config) { c.Nodes[0].Nation = "ATLANTIS" },
		`the name ""`:      func(c *sim.Config) { c.Nodes[0].Name = "" },
		"a learning rate ": func(c *sim.Config) { c.Task.LearningRate = 0 },
	} {
		cfg := config(t, "four-hospitals", nil)
		cfg.Nodes = slices.Clone(cfg.Nodes)
		change(&cfg)
		dir := t.TempDir()
		t.Setenv("TMPDIR", dir)
		_, err := Run(t.Context(), cfg)
		if err == nil || !strings.Contains(err.Error(), strings.TrimSpace(key)) {
			t.Errorf("%s: %v", key, err)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s: %d files are left", key, len(left))
		}
	}
}
