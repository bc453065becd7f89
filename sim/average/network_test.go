package average

import (
	"context"
	"errors"
	"flag"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"village/protocol/mixing"
)

// One line replays a run that failed: go test ./sim/average -run Storm -storm SEED
var (
	storm  = flag.Int64("storm", -1, "replay the one run of TestStorms with this seed")
	storms = flag.Uint64("storms", 50, "seeds of TestStorms")
)

// contributions are vectors of any size and weights of any ratio.
func contributions(random *rand.Rand, n, length int) ([][]float64, []uint64) {
	vectors, weights := make([][]float64, n), make([]uint64, n)
	for i := range vectors {
		vectors[i], weights[i] = make([]float64, length), 1+random.Uint64N(500)
		for k := range vectors[i] {
			vectors[i][k] = random.NormFloat64() + float64(i%7)
		}
	}
	return vectors, weights
}

// tempest is a network that loses three messages of ten, repeats one, mixes up
// their order, falls apart twice and restarts nodes.
func tempest(random *rand.Rand, n int, seed uint64) Network {
	side, cut, heal := 1+random.IntN(n-1), random.IntN(60), 20+random.IntN(60)
	return Network{
		Loss: .3, Duplicate: .1, Delay: random.IntN(5), Restart: .03, Seed: seed,
		Apart: func(step, a, b int) bool {
			s := step % 150
			return step < 300 && s >= cut && s < cut+heal && (a < side) != (b < side)
		},
	}
}

// TestStorms takes the mean of fifty vectors through a storm for each seed, over
// a graph of each kind.
func TestStorms(t *testing.T) {
	from, to := uint64(0), *storms
	switch {
	case *storm >= 0:
		from, to = uint64(*storm), uint64(*storm)+1
	case testing.Short():
		to = 4
	}
	rules := []string{"random", "regular:4", "exponential", "base:2", "all"}
	const n = 50
	var next, messages, steps atomic.Uint64
	next.Store(from)
	var group sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for seed := next.Add(1) - 1; seed < to && !t.Failed(); seed = next.Add(1) - 1 {
				random := rand.New(rand.NewPCG(seed, 0))
				rule := rules[seed%uint64(len(rules))]
				graph, err := mixing.New(rule, n, seed)
				if err != nil {
					t.Error(err)
					return
				}
				vectors, weights := contributions(random, n, 4)
				out, err := PushSum(t.Context(), tempest(random, n, seed), graph, vectors, weights, Stop{Steps: 2000, Error: 1e-9})
				messages.Add(out.Messages)
				steps.Add(uint64(out.Steps))
				if err != nil || out.Error > 1e-9 || out.Violations != 0 {
					t.Errorf("seed %d, %s: error %g and %d ledger violations after %d steps: %v", seed, rule, out.Error, out.Violations, out.Steps, err)
				}
			}
		})
	}
	group.Wait()
	t.Logf("%d runs, %d steps, %d messages", to-from, steps.Load(), messages.Load())
}

func graphOf(t *testing.T, rule string, n int) *mixing.Graph {
	t.Helper()
	g, err := mixing.New(rule, n, 0)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestWithoutFaultsBaseIsExact holds that every node has the mean after one
// period of the Base-(k+1) graph.
func TestWithoutFaultsBaseIsExact(t *testing.T) {
	sizes := []int{97, 100, 193}
	for n := 1; n <= 64; n++ {
		sizes = append(sizes, n)
	}
	for _, n := range sizes {
		for _, rule := range []string{"base:1", "base:2", "base:3"} {
			g := graphOf(t, rule, n)
			vectors, weights := contributions(rand.New(rand.NewPCG(uint64(n), 1)), n, 3)
			out, err := PushSum(t.Context(), Network{}, g, vectors, weights, Stop{Steps: g.Period()})
			if err != nil || out.Error > 1e-12 || out.Violations != 0 {
				t.Errorf("%d nodes, %s: error %g after %d steps: %v", n, rule, out.Error, out.Steps, err)
			}
			if sent := float64(out.Messages) / float64(n); n == 193 && rule == "base:1" && sent > 15 {
				t.Errorf("%d nodes, %s: %g vectors sent per node", n, rule, sent)
			}
		}
	}
}

func TestOneSeedIsOneRun(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	vectors, weights := contributions(random, 20, 2)
	network, g := tempest(random, 20, 5), graphOf(t, "random", 20)
	run := func() Outcome {
		out, err := PushSum(t.Context(), network, g, vectors, weights, Stop{Steps: 200})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	a, b := run(), run()
	if !reflect.DeepEqual(a, b) {
		t.Errorf("%+v and %+v", a, b)
	}
	if len(a.Curve) != a.Steps || a.Steps != 200 || a.Curve[199] != (Point{a.Messages, a.Error}) {
		t.Errorf("%d steps, a curve of %d", a.Steps, len(a.Curve))
	}
	network.Seed++
	if c := run(); c.Error == a.Error {
		t.Error("another seed is the same run")
	}
}

func TestPushSumEndsWithItsContext(t *testing.T) {
	vectors, weights := contributions(rand.New(rand.NewPCG(1, 2)), 4, 2)
	ctx, cancel := context.WithCancel(t.Context())
	network := Network{Apart: func(step, _, _ int) bool {
		if step == 3 {
			cancel()
		}
		return true
	}}
	out, err := PushSum(ctx, network, graphOf(t, "ring", 4), vectors, weights, Stop{Steps: 1000})
	if !errors.Is(err, context.Canceled) || out.Steps != 3 || len(out.Curve) != 3 {
		t.Errorf("%d steps, a curve of %d, error %v", out.Steps, len(out.Curve), err)
	}
}

func TestPushSumRefuses(t *testing.T) {
	vectors, weights := [][]float64{{1, 2}, {3, 4}}, []uint64{1, 2}
	for name, c := range map[string]struct {
		network Network
		vectors [][]float64
		weights []uint64
	}{
		"loss of 1":        {Network{Loss: 1}, vectors, weights},
		"negative loss":    {Network{Loss: -.1}, vectors, weights},
		"loss NaN":         {Network{Loss: math.NaN()}, vectors, weights},
		"duplicates":       {Network{Duplicate: 1.1}, vectors, weights},
		"restarts always":  {Network{Restart: 1}, vectors, weights},
		"negative delay":   {Network{Delay: -1}, vectors, weights},
		"endless delay":    {Network{Delay: math.MaxInt}, vectors, weights},
		"no vectors":       {Network{}, nil, nil},
		"a weight missing": {Network{}, vectors, weights[:1]},
		"weight 0":         {Network{}, vectors, []uint64{1, 0}},
		"other length":     {Network{}, [][]float64{{1, 2}, {3}}, weights},
		"no parameters":    {Network{}, [][]float64{{}, {}}, weights},
		"NaN":              {Network{}, [][]float64{{1, 2}, {3, math.NaN()}}, weights},
	} {
		if out, err := PushSum(t.Context(), c.network, graphOf(t, "ring", 2), c.vectors, c.weights, Stop{Steps: 5}); err == nil {
			t.Errorf("%s: %+v", name, out)
		}
	}
}
