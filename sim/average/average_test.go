package average

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func outcomes(t *testing.T, e Experiment) map[string]Result {
	t.Helper()
	results, err := e.Run(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	byRule := map[string]Result{}
	for _, r := range results {
		byRule[r.Rule] = r
		t.Logf("%-15s %6d rounds %10.2f messages %10.2f vectors, error %.2g", r.Rule, r.Rounds, r.Messages, r.Vectors, r.Error)
	}
	return byRule
}

// TestRanking is what it costs 193 nodes to come to the mean: the rules that
// come to it in the end in their known order, and those that are exact within
// what they are made for.
func TestRanking(t *testing.T) {
	e := Experiment{Nodes: 193, Length: 8, Rules: Default, Network: Network{Seed: 1}, Stop: Stop{Steps: 100_000, Error: 1e-6}}
	got := outcomes(t, e)
	for _, rule := range Default {
		if r := got[rule]; !r.Reached || r.Error > 1e-6 {
			t.Errorf("%s: error %g", rule, r.Error)
		}
	}
	ranking := []string{"ring", "regular:4", "exponential", "regular:8", "pairwise", "base:1", "reduce-scatter"}
	for i, rule := range ranking[1:] {
		if a, b := got[ranking[i]].Vectors, got[rule].Vectors; a <= b {
			t.Errorf("%s takes %.1f vectors, %s %.1f", ranking[i], a, rule, b)
		}
	}
	for rule, most := range map[string]float64{"base:1": 15, "exact": 15, "reduce-scatter": 2.2} {
		if r := got[rule]; r.Error > 1e-12 || r.Vectors > most {
			t.Errorf("%s: error %g after %.2f vectors, want at most 1e-12 after %g", rule, r.Error, r.Vectors, most)
		}
	}
	for k := 2; k <= 4; k++ {
		if r := got[fmt.Sprintf("base:%d", k)]; r.Error > 1e-12 {
			t.Errorf("%s: error %g", r.Rule, r.Error)
		}
	}
}

// TestFaults: over a network that loses, repeats, falls apart and restarts
// nodes, the rules with running totals come to the mean, and those without to
// something else.
func TestFaults(t *testing.T) {
	e := Experiment{
		Nodes: 50, Length: 4, Rules: []string{"push-sum", "exact", "naive-push-sum", "pairwise", "base:1", "regular:4"},
		Network: Network{
			Loss: .3, Duplicate: .1, Restart: .02, Seed: 3,
			Apart: Halves(50, 20),
		},
		Stop: Stop{Steps: 5000, Error: 1e-9},
	}
	for rule, r := range outcomes(t, e) {
		switch right := rule == "push-sum" || rule == "exact"; {
		case right && !(r.Error <= 1e-9):
			t.Errorf("%s: error %g", rule, r.Error)
		case !right && !(r.Error > 1e-4):
			t.Errorf("%s comes to the mean, error %g; then there is no need for running totals", rule, r.Error)
		}
	}
}

// TestScatterWaits: what is lost is sent again, and a node that fails leaves
// all with what they had.
func TestScatterWaits(t *testing.T) {
	e := Experiment{Nodes: 40, Length: 100, Rules: []string{ruleScatter}, Network: Network{Loss: .3, Seed: 1}, Stop: Stop{Steps: 100, Error: 1e-9}}
	if r := outcomes(t, e)[ruleScatter]; r.Error > 1e-12 || r.Vectors < 2 || r.Vectors > 4 {
		t.Errorf("error %g after %.2f vectors", r.Error, r.Vectors)
	}
	e.Network.Restart = .5
	if r := outcomes(t, e)[ruleScatter]; math.Abs(r.Error-1) > 1e-12 || r.Reached {
		t.Errorf("error %g of those who have nothing but their own", r.Error)
	}
}

// TestOneSeedOneOutcome: on any number of processors.
func TestOneSeedOneOutcome(t *testing.T) {
	e := Experiment{
		Nodes: 20, Length: 3, Rules: append([]string{"random", "torus", "all"}, Default...),
		Network: Network{Loss: .1, Restart: .01, Seed: 5}, Stop: Stop{Steps: 300, Error: 1e-6},
	}
	first := outcomes(t, e)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	if second := outcomes(t, e); !reflect.DeepEqual(first, second) {
		t.Error("another outcome with one processor")
	}
	e.Network.Seed++
	if third := outcomes(t, e); reflect.DeepEqual(first, third) {
		t.Error("the same outcome with another seed")
	}
}

func TestCurves(t *testing.T) {
	e := Experiment{Nodes: 30, Length: 2, Rules: []string{"ring", "exact", "reduce-scatter", "naive-push-sum"}, Network: Network{Seed: 1}, Stop: Stop{Steps: 10_000, Error: 1e-6}}
	for rule, r := range outcomes(t, e) {
		c := r.Curve
		if len(c) > samples || c[0] != (Sample{0, 1}) || c[len(c)-1] != (Sample{r.Vectors, r.Error}) {
			t.Errorf("%s: %d points from %v to %v", rule, len(c), c[0], c[len(c)-1])
		}
		if !slices.IsSortedFunc(c, func(a, b Sample) int {
			if a.Vectors < b.Vectors {
				return -1
			}
			return 1
		}) {
			t.Errorf("%s: the vectors of the curve do not grow: %v", rule, c)
		}
		for _, s := range c {
			if math.IsNaN(s.Error) || math.IsInf(s.Error, 0) {
				t.Errorf("%s: %v", rule, s)
			}
		}
	}
	for _, n := range []int{1, 99, 100, 101, 150, 1000, 54321} {
		curve := make([]Sample, n)
		for i := range curve {
			curve[i].Vectors = float64(i)
		}
		if kept := thin(curve); len(kept) > samples || len(kept) < min(n, 50) || kept[0] != curve[0] || kept[len(kept)-1] != curve[n-1] {
			t.Errorf("%d of %d points, to %v", len(kept), n, kept[len(kept)-1])
		}
	}
}

func TestNaivePushSumMayLoseNearlyAll(t *testing.T) {
	e := Experiment{Nodes: 10, Length: 1, Rules: []string{ruleNaive}, Network: Network{Loss: .999, Seed: 1}, Stop: Stop{Steps: 100_000, Error: 1e-6}}
	if r := outcomes(t, e)[ruleNaive]; r.Reached || math.IsNaN(r.Error) || math.IsInf(r.Error, 0) {
		t.Errorf("error %g", r.Error)
	}
}

func TestRefuses(t *testing.T) {
	good := Experiment{Nodes: 10, Length: 1, Rules: []string{"ring"}, Stop: Stop{Steps: 10, Error: 1e-6}}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Experiment){
		"between 2 and":      func(e *Experiment) { e.Nodes = 1 },
		"parameters":         func(e *Experiment) { e.Length = 0 },
		"from 1 to 6710886 ": func(e *Experiment) { e.Length = maxNumbers },
		"an error of":        func(e *Experiment) { e.Stop.Error = math.NaN() },
		"at least one":       func(e *Experiment) { e.Stop.Steps = 0 },
		"no rule":            func(e *Experiment) { e.Rules = nil },
		"reduce-scatter":     func(e *Experiment) { e.Rules = []string{"star"} },
		"more than 10":       func(e *Experiment) { e.Rules = []string{"regular:10"} },
		"needs a number":     func(e *Experiment) { e.Rules = []string{"base:x"} },
		"a loss of 1":        func(e *Experiment) { e.Network.Loss = 1 },
	} {
		e := good
		change(&e)
		if _, err := e.Run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want an error with %q", err, want)
		}
	}
}

// TestInterrupt: what has been found stays, and what is missing is named.
func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	e := Experiment{Nodes: 1000, Length: 1, Rules: []string{"base:1", "ring"}, Stop: Stop{Steps: 1 << 30, Error: 1e-9}}
	results, err := e.Run(ctx, func(rule string) {
		if rule == "base:1" {
			cancel()
		}
	})
	if len(results) != 1 || results[0].Rule != "base:1" || !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "ring") {
		t.Errorf("%v, %v", results, err)
	}
}
