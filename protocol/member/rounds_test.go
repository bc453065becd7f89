package member

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"village/protocol/mixing"
)

// flock is many machines that hear of their neighbours alone.
type flock struct {
	t        *testing.T
	graph    *mixing.Graph
	machines []*Rounds
	weights  []uint64
	now      time.Duration
}

func newFlock(t *testing.T, rule string, weights []uint64, rounds uint64) *flock {
	t.Helper()
	graph, err := mixing.New(rule, len(weights), 7)
	if err != nil {
		t.Fatal(err)
	}
	f := &flock{t: t, graph: graph, weights: weights, now: 1}
	for i := range weights {
		f.machines = append(f.machines, NewRounds(RoundsConfig{
			Graph: graph, Nodes: len(weights), Own: i, Rounds: rounds,
			Start: func() []float64 { return []float64{float64(i), 1} },
		}))
	}
	return f
}

// publish ends a round at a node and tells those who mix its update.
func (f *flock) publish(i int, round uint64, params []float64, lost func(to int) bool) {
	u := f.machines[i].Finish(round, f.weights[i], params)
	f.machines[i].Take(f.now, i, u)
	for _, e := range f.graph.Edges(round, i, nil) {
		if !lost(e.Node) {
			f.machines[e.Node].Take(f.now, i, u)
		}
	}
}

// step begins every round that may begin; local steps add 1 to the second
// parameter. It returns whether one did.
func (f *flock) step(order []int, lost func(to int) bool) bool {
	moved := false
	for _, i := range order {
		if round, mix, ok := f.machines[i].Next(f.now); ok {
			moved = true
			f.publish(i, round, []float64{mix[0], mix[1] + 1}, lost)
		}
	}
	return moved
}

func lossless(int) bool { return false }

// Without loss, nodes that run in any order come to what multiplying by the
// graph's matrices does.
func TestRoundsMixAsTheGraphSays(t *testing.T) {
	for _, rule := range []string{"ring", "torus", "regular:4", "exponential", "base:1", "base:2", "random"} {
		t.Run(rule, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			const n, rounds = 30, 40
			weights := make([]uint64, n)
			for i := range weights {
				weights[i] = 1 + rng.Uint64N(50)
			}
			f := newFlock(t, rule, weights, rounds)
			for f.step(rng.Perm(n), lossless) {
				f.now += time.Millisecond
			}
			want := make([]float64, n)
			for i := range want {
				want[i] = float64(i)
			}
			for r := uint64(1); r < rounds; r++ {
				next := make([]float64, n)
				for i := range n {
					rest := 1.0
					for _, e := range f.graph.Edges(r, i, nil) {
						share := e.Share(weights[i], weights[e.Node])
						rest -= share
						next[i] += share * want[e.Node]
					}
					next[i] += rest * want[i]
				}
				want = next
			}
			mass := 0.0
			for i, m := range f.machines {
				u := m.peer(i).updates[0]
				if u.Round != rounds || math.Abs(u.Params[0]-want[i]) > 1e-12 || math.Abs(u.Params[1]-(1+rounds)) > 1e-12 {
					t.Fatalf("node %d has round %d and %v, not %v", i, u.Round, u.Params, want[i])
				}
				mass += float64(weights[i]) * (u.Params[0] - float64(i))
			}
			if math.Abs(mass) > 1e-9 {
				t.Errorf("mixing changed the weighted sum by %g", mass)
			}
		})
	}
}

// A lost update delays by the patience for its author and no longer.
func TestRoundsGoOnThroughLoss(t *testing.T) {
	for _, rule := range []string{"ring", "regular:4", "random"} {
		t.Run(rule, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(3, 4))
			const n, rounds = 20, 60
			f := newFlock(t, rule, slices.Repeat([]uint64{5}, n), rounds)
			lossy := func(int) bool { return rng.Float64() < .3 }
			for range 1_000_000 {
				if !f.step(rng.Perm(n), lossy) {
					wake := time.Duration(0)
					for _, m := range f.machines {
						if at := m.Wake(); at > 0 && (wake == 0 || at < wake) {
							wake = at
						}
					}
					if wake == 0 {
						break
					}
					f.now = max(f.now+1, wake)
				}
			}
			for i, m := range f.machines {
				if m.Round() != rounds {
					t.Errorf("node %d stands at round %d", i, m.Round())
				}
				if len(m.peers) > 8 {
					t.Errorf("node %d remembers %d nodes", i, len(m.peers))
				}
			}
		})
	}
}

// A node that comes back far behind jumps to where its neighbours are.
func TestRoundsJump(t *testing.T) {
	f := newFlock(t, "ring", []uint64{1, 1, 1, 1}, 100)
	m := f.machines[0]
	for _, from := range []int{1, 3} {
		m.Take(1, from, &Update{Round: 50, Previous: 49, Weight: 1, Params: []float64{float64(from), 0}})
	}
	round, mix, ok := m.Next(2)
	if !ok || round != 50 || !slices.Equal(mix, []float64{2, 0}) {
		t.Errorf("round %d from %v, %v", round, mix, ok)
	}
}

// Nodes of a ring are as many rounds apart as places. Who is far away and ahead is
// no reason to leave rounds out, nor is, with neighbours that change, who is ahead
// by less than a period.
func TestRoundsDoNotJumpWithoutNeed(t *testing.T) {
	for rule, ahead := range map[string]uint64{"ring": 30, "base:1": 3} {
		graph, err := mixing.New(rule, 8, 7)
		if err != nil {
			t.Fatal(err)
		}
		m := NewRounds(RoundsConfig{Graph: graph, Nodes: 8, Own: 0, Rounds: 100, All: true, Start: func() []float64 { return []float64{1} }})
		for _, p := range m.peers {
			p.part = true
		}
		next := graph.Edges(5, 0, nil)
		for i := range 8 {
			round := 5 + ahead
			if i == 0 || isNeighbour(next, i) {
				round = 5
			}
			m.Take(1, i, &Update{Round: round, Previous: round - 1, Weight: 1, Params: []float64{1}})
		}
		if round, _, ok := m.Next(2); !ok || round != 6 {
			t.Errorf("%s: round %d, %v", rule, round, ok)
		}
	}
}
