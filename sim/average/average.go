// Package average measures what it costs a number of nodes to come to the mean
// of their vectors: rules of protocol/average, sim/pushsum and protocol/mixing, beside
// well-known ones that they are compared with, over a network that may lose and
// repeat messages, fall apart and restart nodes. One seed gives one outcome.
package average

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"

	"village/protocol/mixing"
)

// Rules that an [Experiment] knows beside those of protocol/mixing, or with
// another meaning.
const (
	rulePairwise    = "pairwise"       // gossip between random pairs
	rulePushSum     = "push-sum"       // with running totals, over regular:8
	ruleNaive       = "naive-push-sum" // the same without running totals
	ruleExact       = "exact"          // push-sum with running totals in the rounds of base:1
	ruleScatter     = "reduce-scatter" // nested
	ruleExponential = "exponential"    // in one direction
)

// Rules names every rule, for messages to people.
const Rules = "pairwise, push-sum, naive-push-sum, exact, reduce-scatter, " + mixing.Rules

// Default is what is compared where nothing else is asked for, from what costs
// most to what costs least.
var Default = []string{
	"ring", "regular:4", ruleExponential, "regular:8", rulePushSum, ruleNaive, rulePairwise,
	"base:1", "base:2", "base:3", "base:4", ruleExact, ruleScatter,
}

// maxNumbers bounds the parameters of all nodes together.
const maxNumbers = 1 << 26

// Experiment says what is averaged, by which rules and over what network.
type Experiment struct {
	Nodes   int
	Length  int // parameters of each vector, drawn from a normal distribution
	Rules   []string
	Network Network
	Stop    Stop
}

// Result is what one rule has come to.
type Result struct {
	Rule     string
	Rounds   int
	Messages float64 // sent by a node on average
	Vectors  float64 // sent by a node on average; a part of one counts as that part
	Error    float64 // as in [Outcome]
	Reached  bool    // the error that was wanted
	Curve    []Sample
}

// Sample is the error after so many vectors sent by a node on average.
type Sample struct {
	Vectors float64
	Error   float64
}

// samples is how many a curve has at most.
const samples = 100

// Check refuses an experiment that cannot be.
func (e Experiment) Check() error {
	switch {
	case e.Nodes < 2 || e.Nodes > mixing.MaxNodes:
		return fmt.Errorf("an averaging is between 2 and %d nodes, not %d", mixing.MaxNodes, e.Nodes)
	case e.Length < 1 || e.Length > maxNumbers/e.Nodes:
		return fmt.Errorf("vectors of %d nodes have from 1 to %d parameters, not %d", e.Nodes, maxNumbers/e.Nodes, e.Length)
	case !(e.Stop.Error >= 1e-15 && e.Stop.Error < 1):
		return fmt.Errorf("an error of %g cannot be: it is a number from 1e-15 to below 1, of which all vectors start", e.Stop.Error)
	case e.Stop.Steps < 1:
		return fmt.Errorf("%d steps cannot be: there is at least one", e.Stop.Steps)
	case len(e.Rules) == 0:
		return fmt.Errorf("there is no rule to try; use %s", Rules)
	}
	for _, rule := range e.Rules {
		if _, err := e.graph(rule); err != nil {
			return err
		}
	}
	return e.Network.Check()
}

// graph returns what a rule runs over, or nil where it needs no graph.
func (e Experiment) graph(rule string) (*mixing.Graph, error) {
	switch rule {
	case rulePairwise, ruleScatter:
		return nil, nil
	case rulePushSum, ruleNaive:
		// A lost total comes again with the next one between the same two nodes,
		// so these must meet often: with random partners, 193 nodes that lose three
		// messages of ten take a hundred times as many steps.
		if rule = "regular:8"; e.Nodes <= 8 {
			rule = "all"
		}
	case ruleExact:
		rule = "base:1"
	default:
		if mixing.Check(rule) != nil && !strings.Contains(rule, ":") {
			return nil, fmt.Errorf("averaging rule %q is not known; use %s", rule, Rules)
		}
	}
	return mixing.New(rule, e.Nodes, e.Network.Seed)
}

// Run tries all rules on the same vectors, several at a time, and returns the
// results in the order of the rules. It calls done, if it is set, whenever one
// has come to its end. When the context ends, so does the run, with the results
// that there are and an error that names the rules without.
func (e Experiment) Run(ctx context.Context, done func(rule string)) ([]Result, error) {
	if err := e.Check(); err != nil {
		return nil, err
	}
	random := rand.New(rand.NewPCG(e.Network.Seed, 0x766563746f727300))
	vectors := make([][]float64, e.Nodes)
	for i := range vectors {
		vectors[i] = make([]float64, e.Length)
		for k := range vectors[i] {
			vectors[i][k] = random.NormFloat64()
		}
	}
	results, errs := make([]Result, len(e.Rules)), make([]error, len(e.Rules))
	var mu sync.Mutex
	var group sync.WaitGroup
	free := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, rule := range e.Rules {
		group.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			results[i], errs[i] = e.try(ctx, rule, vectors)
			mu.Lock()
			defer mu.Unlock()
			if done != nil && errs[i] == nil {
				done(rule)
			}
		})
	}
	group.Wait()
	var finished []Result
	var missing []string
	var first error
	for i, err := range errs {
		if err == nil {
			finished = append(finished, results[i])
			continue
		}
		missing = append(missing, e.Rules[i])
		if first == nil {
			first = err
		}
	}
	if first != nil {
		return finished, fmt.Errorf("without a result: %s: %w", strings.Join(missing, ", "), first)
	}
	return finished, nil
}

func (e Experiment) try(ctx context.Context, rule string, vectors [][]float64) (Result, error) {
	graph, err := e.graph(rule)
	if err != nil {
		return Result{}, err
	}
	var out Outcome
	var sent []uint64 // parameters after each step, where messages do not carry vectors
	switch rule {
	case rulePairwise:
		out, err = pairwise(ctx, e.Network, vectors, e.Stop)
	case rulePushSum, ruleExact:
		weights := make([]uint64, e.Nodes)
		for i := range weights {
			weights[i] = 1
		}
		out, err = PushSum(ctx, e.Network, graph, vectors, weights, e.Stop)
	case ruleScatter:
		out, sent, err = scatter(ctx, e.Network, vectors, e.Stop)
	case ruleExponential:
		out, err = mix(ctx, e.Network, oneWay(e.Nodes), vectors, e.Stop, false)
	default:
		out, err = mix(ctx, e.Network, graph.Edges, vectors, e.Stop, rule == ruleNaive)
	}
	if err != nil {
		return Result{}, err
	}
	if out.Violations > 0 {
		return Result{}, fmt.Errorf("%d times a ledger did not add up", out.Violations)
	}
	n := float64(e.Nodes)
	curve := []Sample{{0, 1}}
	for i, p := range out.Curve {
		vectors := float64(p.Messages) / n
		if sent != nil {
			vectors = float64(sent[i]) / float64(e.Length) / n
		}
		curve = append(curve, Sample{vectors, p.Error})
	}
	return Result{
		Rule: rule, Rounds: out.Steps, Messages: float64(out.Messages) / n, Vectors: curve[len(curve)-1].Vectors,
		Error: out.Error, Reached: out.Error <= e.Stop.Error, Curve: thin(curve),
	}, nil
}

// Halves cuts the first half of n nodes off from the others for so many steps.
func Halves(n, steps int) func(step, from, to int) bool {
	if steps <= 0 {
		return nil
	}
	return func(step, from, to int) bool { return step <= steps && (from < n/2) != (to < n/2) }
}

// thin keeps the first and the last points of a curve, and of those between as
// many as there may be, the closer the earlier.
func thin(curve []Sample) []Sample {
	last := len(curve) - 1
	if last < samples {
		return curve
	}
	kept, before := []Sample{curve[0]}, 0
	for k := range samples - 1 {
		at := int(math.Round(math.Pow(float64(last), float64(k)/(samples-2))))
		if at > before {
			kept, before = append(kept, curve[at]), at
		}
	}
	return kept
}
