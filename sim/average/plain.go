package average

import (
	"context"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"

	"village/protocol/average"
	"village/protocol/mixing"
)

// plain is an averaging under way whose nodes hold no more than their vectors:
// the rules that push-sum is compared with. Nothing makes good for what they
// lose, so over a network with faults they agree, if they do, on another value
// than the mean. What comes late has come too late.
type plain struct {
	Network
	random *rand.Rand
	stop   Stop
	n, d   int
	mean   []float64
	spread float64
	x      []float64 // n rows of d
	weight []float64 // of naive push-sum: x is weight times the estimate
	mute   []bool    // fails before it sends in this step
	fails  []bool    // fails after it has received
	least  []float64 // of each parameter, the smallest estimate of any node
	most   []float64
	out    Outcome
}

func newPlain(network Network, vectors [][]float64, stop Stop) (*plain, error) {
	if err := network.Check(); err != nil {
		return nil, err
	}
	n, d := len(vectors), len(vectors[0])
	p := &plain{
		Network: network, random: rand.New(rand.NewPCG(network.Seed, 0x706c61696e000000)), stop: stop, n: n, d: d,
		mute: make([]bool, n), fails: make([]bool, n), least: make([]float64, d), most: make([]float64, d),
	}
	sum := mixing.NewSum(d)
	for _, v := range vectors {
		if err := sum.Add(1, v); err != nil {
			return nil, err
		}
		p.x = append(p.x, v...)
	}
	p.mean = sum.Mean()
	for _, v := range vectors {
		p.spread += distance(v, p.mean)
	}
	return p, nil
}

// row is what node i holds.
func (p *plain) row(i int) []float64 { return p.x[i*p.d : i*p.d+p.d] }

// arrives tells whether a message of this step does.
func (p *plain) arrives(from, to int) bool {
	return !p.mute[from] &&
		(p.Apart == nil || !p.Apart(p.out.Steps, from, to)) &&
		(p.Loss == 0 || p.random.Float64() >= p.Loss) &&
		(p.Delay == 0 || p.random.IntN(p.Delay+1) == 0)
}

// begin starts a step, and decides who fails in it.
func (p *plain) begin() {
	p.out.Steps++
	if p.Restart == 0 {
		return
	}
	for i := range p.n {
		u := p.random.Float64()
		p.mute[i], p.fails[i] = u < p.Restart/2, u >= p.Restart/2 && u < p.Restart
	}
}

// end writes down how far it has come, and tells whether to stop: at the error
// wanted, after the last step, or when all nodes hold one value that is not the
// mean, from which they would never come away.
func (p *plain) end() bool {
	sum := 0.
	for i := range p.n {
		row, scale := p.row(i), 1.
		if p.weight != nil {
			if p.weight[i] < 1e-290 {
				return true // nearly all is lost, and soon numbers will not tell it from nothing
			}
			scale = 1 / p.weight[i]
		}
		for k, v := range row {
			v *= scale
			if i == 0 || v < p.least[k] {
				p.least[k] = v
			}
			if i == 0 || v > p.most[k] {
				p.most[k] = v
			}
			d := v - p.mean[k]
			sum += float64(d * d)
		}
	}
	apart, off := 0., 0.
	for k, m := range p.mean {
		apart = max(apart, p.most[k]-p.least[k])
		off = max(off, math.Abs(p.most[k]-m), math.Abs(p.least[k]-m))
	}
	p.out.Error = ratio(sum, p.spread)
	p.out.Curve = append(p.out.Curve, Point{p.out.Messages, p.out.Error})
	return p.out.Error <= p.stop.Error || apart <= off/1000 || p.out.Steps >= p.stop.Steps
}

// edges appends the edges of a node in a round, as those of a graph do.
type edges func(round uint64, i int, buf []mixing.Edge) []mixing.Edge

// oneWay are the edges of the static exponential graph (Ying et al. 2021): a
// node receives from the places 1, 2, 4, 8 ... before it. For training the graph
// has them in both directions, because weights by rows must be the same from
// both ends; where all weigh the same, one direction keeps the mean, too, and
// is cheaper.
func oneWay(n int) edges {
	weight := 1 / float64(1+bits.Len(uint(n-1)))
	return func(_ uint64, i int, buf []mixing.Edge) []mixing.Edge {
		for hop := 1; hop < n; hop *= 2 {
			buf = append(buf, mixing.Edge{Node: (i - hop + n) % n, Weight: weight})
		}
		return buf
	}
}

// mix runs plain averaging over a graph: in each step every node takes the
// shares of its neighbours' vectors that the graph says, and keeps the rest of
// its own. A share that does not come stays with its own vector.
//
// With naive it is push-sum without running totals (Kempe, Dobra and Gehrke
// 2003): every node gives the same shares of a vector and a weight away, and
// what does not come is gone.
func mix(ctx context.Context, network Network, of edges, vectors [][]float64, stop Stop, naive bool) (Outcome, error) {
	p, err := newPlain(network, vectors, stop)
	if err != nil {
		return Outcome{}, err
	}
	next := make([]float64, len(p.x))
	var weights []float64
	if naive {
		p.weight, weights = make([]float64, p.n), make([]float64, p.n)
		for i := range p.weight {
			p.weight[i] = 1
		}
	}
	var buf []mixing.Edge
	for ctx.Err() == nil {
		p.begin()
		for i := range p.n {
			buf = of(uint64(p.out.Steps), i, buf[:0])
			p.out.Messages += uint64(len(buf))
			to, keep, weight := next[i*p.d:i*p.d+p.d], 1., 0.
			clear(to)
			for _, e := range buf {
				if naive {
					keep -= e.Back
				}
				if p.fails[i] || !p.arrives(e.Node, i) {
					continue
				}
				if naive {
					weight += float64(e.Weight * p.weight[e.Node])
				} else {
					keep -= e.Weight
				}
				for k, v := range p.row(e.Node) {
					to[k] += float64(e.Weight * v)
				}
			}
			for k, v := range p.row(i) {
				to[k] += float64(keep * v)
			}
			if naive {
				weights[i] = weight + float64(keep*p.weight[i])
			}
		}
		p.x, next = next, p.x
		p.weight, weights = weights, p.weight
		if p.end() {
			return p.out, nil
		}
	}
	return p.out, ctx.Err()
}

// pairwise runs gossip between random pairs (Boyd et al. 2006): one node sends
// its vector to another, which takes the mean of both and sends back its own,
// so that the first one does, too. A step is as many exchanges as let every node
// send one vector on average.
func pairwise(ctx context.Context, network Network, vectors [][]float64, stop Stop) (Outcome, error) {
	p, err := newPlain(network, vectors, stop)
	if err != nil {
		return Outcome{}, err
	}
	for ctx.Err() == nil {
		p.begin()
		for range p.n / 2 {
			i, j := p.random.IntN(p.n), p.random.IntN(p.n-1)
			if j >= i {
				j++
			}
			p.out.Messages++
			if !p.arrives(i, j) {
				continue
			}
			p.out.Messages++
			answered := p.arrives(j, i)
			a, b := p.row(i), p.row(j)
			for k := range a {
				half := (a[k] + b[k]) / 2
				if answered && !p.fails[i] {
					a[k] = half
				}
				if !p.fails[j] {
					b[k] = half
				}
			}
		}
		if p.end() {
			return p.out, nil
		}
	}
	return p.out, ctx.Err()
}

// scatter runs nested reduce-scatter, and returns beside the outcome how many
// parameters all nodes had sent after each step. What does not come is sent
// again in the next step. A node that fails has lost its sums: nobody gets the
// mean, and all stay with their own vectors.
func scatter(ctx context.Context, network Network, vectors [][]float64, stop Stop) (Outcome, []uint64, error) {
	p, err := newPlain(network, vectors, stop)
	if err != nil {
		return Outcome{}, nil, err
	}
	shape := average.Shape{Nodes: p.n, Length: p.d, Weight: uint64(p.n), Bound: slices.Max(p.x)}
	if shape.Bound = max(shape.Bound, -slices.Min(p.x)); shape.Bound == 0 {
		shape.Bound = 1
	}
	plan, err := average.NewPlan(shape)
	if err != nil {
		return Outcome{}, nil, err
	}
	nodes, steps := make([]*average.Scatter, p.n), make([]average.Step, p.n)
	for i, v := range vectors {
		if nodes[i], err = average.NewScatter(plan, i, [32]byte{}, 1, v); err != nil {
			return Outcome{}, nil, err
		}
	}
	type message struct {
		from  int
		chunk average.Chunk
	}
	var waiting []message
	var sent []uint64
	numbers, left := uint64(0), p.n
	for ctx.Err() == nil {
		p.begin()
		if slices.Contains(p.mute, true) || slices.Contains(p.fails, true) {
			p.end()
			return p.out, append(sent, numbers), nil
		}
		for i, node := range nodes {
			if steps[i] == average.Done || len(node.Missing()) > 0 {
				continue
			}
			chunks, err := node.Send()
			if err != nil {
				return p.out, sent, err
			}
			for _, c := range chunks {
				waiting = append(waiting, message{i, c})
			}
			steps[i]++
		}
		lost := waiting[:0]
		for _, m := range waiting {
			p.out.Messages++
			numbers += uint64(len(m.chunk.Sum))
			if !p.arrives(m.from, m.chunk.Node) {
				lost = append(lost, m)
				continue
			}
			if _, err := nodes[m.chunk.Node].Receive(m.from, m.chunk); err != nil {
				return p.out, sent, err
			}
		}
		waiting = lost
		for i, node := range nodes {
			if steps[i] != average.Done || len(node.Missing()) > 0 {
				continue
			}
			steps[i]++ // past the end: it has the mean
			mean, _, err := node.Mean()
			if err != nil {
				return p.out, sent, err
			}
			copy(p.row(i), mean)
			left--
		}
		sent = append(sent, numbers)
		if p.end() || left == 0 {
			return p.out, sent, nil
		}
	}
	return p.out, sent, ctx.Err()
}
