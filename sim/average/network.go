package average

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"

	"village/protocol/average"
	"village/protocol/mixing"
	"village/sim/pushsum"
)

// Network is what happens to messages and nodes. The zero value is a network
// without faults, where all messages of a step come in that step.
type Network struct {
	Loss      float64 // probability that a message is lost
	Duplicate float64 // probability that it comes twice
	Delay     int     // a message comes up to so many steps later, and so after later ones
	// Apart tells whether messages between two nodes (by place) are cut off in a
	// step; nil = never.
	Apart func(step, from, to int) bool
	// Restart is the probability that a node goes back to its last saved state in
	// a step. It saves before it sends, and fails as often between the two as
	// after it has received.
	Restart float64
	Seed    uint64
}

// Check refuses a network in which no averaging can come to an end.
func (n Network) Check() error {
	switch {
	case !(n.Loss >= 0 && n.Loss < 1):
		return fmt.Errorf("a loss of %g cannot be: it is a probability below 1", n.Loss)
	case !(n.Duplicate >= 0 && n.Duplicate <= 1):
		return fmt.Errorf("duplicates of %g cannot be: it is a probability", n.Duplicate)
	case !(n.Restart >= 0 && n.Restart < 1):
		return fmt.Errorf("restarts of %g cannot be: it is a probability below 1", n.Restart)
	case n.Delay < 0 || n.Delay > 1<<20:
		return fmt.Errorf("a delay of %d steps cannot be: it is from 0 to %d", n.Delay, 1<<20)
	}
	return nil
}

// Stop says when an averaging ends: after so many steps, or sooner if the error
// is at most Error.
type Stop struct {
	Steps int
	Error float64
}

// Point is what an averaging had come to after a step.
type Point struct {
	Messages uint64 // sent until then, lost ones included, by all nodes together
	Error    float64
}

// Outcome is how an averaging went.
type Outcome struct {
	Steps    int
	Messages uint64 // sent by all nodes together, lost ones included; each carries a vector
	// Error is how far the estimates of all nodes together are from the mean, over
	// how far the contributions are: a ratio of Euclidean norms.
	Error float64
	// Violations is how often, after a step, what a node held, had given and had
	// received did not add up to its contribution.
	Violations int
	Curve      []Point // after each step
}

// PushSum runs push-sum over a network. In each step every node gives shares to
// its neighbours of that round of the graph, and takes what comes. The weights
// are those of the vectors.
func PushSum(ctx context.Context, network Network, graph *mixing.Graph, vectors [][]float64, weights []uint64, stop Stop) (Outcome, error) {
	r, err := newPush(network, vectors, weights)
	if err != nil {
		return Outcome{}, err
	}
	var edges []mixing.Edge
	var shares []pushsum.Share
	for r.out.Steps < stop.Steps {
		if err := ctx.Err(); err != nil {
			return r.out, err
		}
		r.out.Steps++
		for i := range r.nodes {
			edges = graph.Edges(uint64(r.out.Steps), i, edges[:0])
			shares = pushsum.Shares(edges, shares[:0])
			if err := r.send(i, shares); err != nil {
				return r.out, err
			}
		}
		if err := r.deliver(); err != nil {
			return r.out, err
		}
		r.observe()
		if r.out.Error <= stop.Error {
			break
		}
	}
	return r.out, nil
}

// push is an averaging under way.
type push struct {
	Network
	shape  average.Shape
	random *rand.Rand
	nodes  []*pushsum.Node
	saved  [][]byte
	fails  []bool       // after this step
	due    [][]delivery // by step, modulo the longest delay
	mean   []float64
	spread float64 // squared distance of all contributions from the mean
	out    Outcome
}

type delivery struct {
	from, to int
	message  pushsum.Message
}

func newPush(network Network, vectors [][]float64, weights []uint64) (*push, error) {
	if err := network.Check(); err != nil {
		return nil, err
	}
	n := len(vectors)
	if n == 0 || len(weights) != n {
		return nil, fmt.Errorf("%d vectors and %d weights: there is one of each for every node, and at least one node", n, len(weights))
	}
	r := &push{
		Network: network,
		shape:   average.Shape{Nodes: n, Length: len(vectors[0])},
		random:  rand.New(rand.NewPCG(network.Seed, 0x6176657261676500)),
		nodes:   make([]*pushsum.Node, n),
		saved:   make([][]byte, n),
		fails:   make([]bool, n),
		due:     make([][]delivery, network.Delay+1),
	}
	sum := mixing.NewSum(r.shape.Length)
	for i, x := range vectors {
		if err := sum.Add(weights[i], x); err != nil {
			return nil, fmt.Errorf("node %d: %w", i, err)
		}
		for _, v := range x {
			r.shape.Bound = max(r.shape.Bound, math.Abs(v))
		}
	}
	r.shape.Weight, r.mean = sum.Weight(), sum.Mean()
	if r.shape.Bound == 0 {
		r.shape.Bound = 1
	}
	for i, x := range vectors {
		p, err := pushsum.New(r.shape, i, weights[i], x)
		if err != nil {
			return nil, fmt.Errorf("node %d: %w", i, err)
		}
		r.nodes[i], r.saved[i] = p, p.Append(nil)
		r.spread += distance(x, r.mean)
	}
	return r, nil
}

// distance is the squared Euclidean distance of two vectors.
func distance(a, b []float64) (sum float64) {
	for k, x := range a {
		d := x - b[k]
		sum += float64(d * d)
	}
	return sum
}

// ratio is that of two Euclidean norms, given their squares. Where the first one
// is 0, because all contributions are the same, it is the other norm.
func ratio(now, first float64) float64 {
	if first == 0 {
		first = 1
	}
	return math.Sqrt(now / first)
}

// send gives away what node i gives in this step.
func (r *push) send(i int, shares []pushsum.Share) error {
	messages, err := r.nodes[i].Send(shares)
	if err != nil {
		return fmt.Errorf("node %d: %w", i, err)
	}
	if r.Restart > 0 {
		r.saved[i] = r.nodes[i].Append(r.saved[i][:0])
		switch u := r.random.Float64(); {
		case u < r.Restart/2:
			return r.restart(i) // nothing was sent
		case u < r.Restart:
			r.fails[i] = true
		}
	}
	for k, m := range messages {
		r.out.Messages++
		d := delivery{i, shares[k].Node, m}
		if r.Apart != nil && r.Apart(r.out.Steps, d.from, d.to) || r.Loss > 0 && r.random.Float64() < r.Loss {
			continue
		}
		r.later(d)
		if r.Duplicate > 0 && r.random.Float64() < r.Duplicate {
			r.later(d)
		}
	}
	return nil
}

func (r *push) later(d delivery) {
	at := r.out.Steps
	if r.Delay > 0 {
		at += r.random.IntN(r.Delay + 1)
	}
	at %= len(r.due)
	r.due[at] = append(r.due[at], d)
}

// deliver hands over what comes in this step, and ends the nodes that fail in it.
func (r *push) deliver() error {
	due := &r.due[r.out.Steps%len(r.due)]
	for _, d := range *due {
		if _, err := r.nodes[d.to].Receive(d.from, d.message); err != nil {
			return fmt.Errorf("node %d: %w", d.to, err)
		}
	}
	*due = (*due)[:0]
	for i, fails := range r.fails {
		if fails {
			r.fails[i] = false
			if err := r.restart(i); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *push) restart(i int) (err error) {
	if r.nodes[i], err = pushsum.Restore(r.shape, i, r.saved[i]); err != nil {
		return fmt.Errorf("node %d: %w", i, err)
	}
	return nil
}

// observe writes down how far it has come.
func (r *push) observe() {
	off := 0.0
	for _, p := range r.nodes {
		if p.Ledger() != nil {
			r.out.Violations++
		}
		estimate, _ := p.Estimate()
		off += distance(estimate, r.mean)
	}
	r.out.Error = ratio(off, r.spread)
	r.out.Curve = append(r.out.Curve, Point{r.out.Messages, r.out.Error})
}
