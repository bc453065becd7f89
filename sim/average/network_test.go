package average

import (
	"flag"
	"math/rand/v2"
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
