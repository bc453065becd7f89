package mixing

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// Rules names every rule, for messages to people. K is a number from 1 to MaxK.
const Rules = "all, ring, torus, regular:K, exponential, base:K or random"

// Bounds of a [Graph].
const (
	MaxNodes = 1 << 20 // most nodes
	MaxK     = 256     // largest K of a rule
)

// All is the rule by which the newest update of every author counts with the
// weight of its rows. Its fixed point is that of FedAvg (McMahan et al. 2017,
// algorithm 1), whatever is lost, reordered or slow: at a fixed point a stale
// update equals a fresh one.
const All = "all"

// Names of the other rules; [regular] and [base] stand before ":K".
const (
	ring        = "ring"
	torus       = "torus"
	regular     = "regular"
	exponential = "exponential"
	base        = "base"
	random      = "random"
)

// parse splits a rule into its name and its K, which is 0 where it has none. A
// rule has one spelling.
func parse(rule string) (name string, k int, err error) {
	name, text, given := strings.Cut(rule, ":")
	switch name {
	case All, ring, torus, exponential, random:
		if !given {
			return name, 0, nil
		}
	case regular, base:
		k, err := strconv.Atoi(text)
		if err == nil && k >= 1 && k <= MaxK && strconv.Itoa(k) == text {
			return name, k, nil
		}
		return "", 0, fmt.Errorf("mixing rule %q needs a number from 1 to %d, such as %s:4", rule, MaxK, name)
	}
	return "", 0, fmt.Errorf("mixing rule %q is not known; use %s", rule, Rules)
}

// Check refuses the name of a rule that this program does not know. Whether the
// rule fits a number of nodes, [New] tells.
func Check(rule string) error {
	_, _, err := parse(rule)
	return err
}

// Graph says whom each node mixes with in each round. It does not change and
// may be shared.
type Graph struct {
	complete bool
	period   int
	edges    func(round uint64, i int, buf []Edge) []Edge
}

// Edge is what ties a node to one of its neighbours in a round. Where all weigh
// the same, the shares that a node gives to others add up to at most one, and
// the rest stays with itself.
type Edge struct {
	Node   int     // place of the neighbour
	Weight float64 // share that the node gives to the neighbour's vector
	Back   float64 // share that the neighbour gives to the node's
}

// Share returns the share that a node with own rows gives to the vector of the
// neighbour, which has other rows. Rows times share is the same from both
// ends, so that the mean weighted by rows is kept. A node without rows gives
// none.
func (e Edge) Share(own, other uint64) float64 {
	if own == 0 {
		return 0
	}
	return min(float64(own)*e.Weight, float64(other)*e.Back) / float64(own)
}

// New returns the graph that a rule gives n nodes. Every node that knows rule,
// number and seed gets the same one.
//
//   - all: everyone, weights 1/n. A mix by rows need not use them: see [All].
//   - ring: the places before and after.
//   - torus: the four neighbours in the most square r x c = n; where that is
//     narrower than three or longer than four times its width, the places 1 and
//     the rounded root of n before and after, a torus whose rows join to a spiral.
//   - regular:K: a random connected graph of K neighbours.
//   - exponential: the places 1, 2, 4, 8 ... before and after (the static
//     exponential graph of Ying et al. 2021, in both directions).
//   - base:K: the Base-(K+1) graph of Takezawa et al. 2023, at most K
//     neighbours, other ones in each round; after one period of rounds without
//     training all hold the exact mean.
//   - random: a random partner in each round, none for one node where n is odd;
//     it halves the expected squared distance from the mean.
//
// Those that do not change with the round have Metropolis weights,
// 1/(1 + neighbours).
func New(rule string, n int, seed uint64) (*Graph, error) {
	name, k, err := parse(rule)
	if err != nil {
		return nil, err
	}
	if n < 1 || n > MaxNodes {
		return nil, fmt.Errorf("a graph has from 1 to %d nodes, not %d", MaxNodes, n)
	}
	g := &Graph{period: 1}
	switch name {
	case All:
		g.complete = true
		hops := make([]int, n/2)
		for h := range hops {
			hops[h] = h + 1
		}
		g.edges = circulant(n, hops...)
	case ring:
		g.edges = circulant(n, 1)
	case torus:
		g.edges = torusEdges(n)
	case regular:
		if k >= n {
			return nil, fmt.Errorf("mixing rule %q needs more than %d nodes, not %d", rule, k, n)
		}
		if n*k%2 != 0 {
			return nil, fmt.Errorf("mixing rule %q is not possible with %d nodes: one of the two numbers must be even", rule, n)
		}
		if k == 1 && n > 2 {
			return nil, fmt.Errorf("mixing rule %q leaves %d nodes in pairs that never meet; use regular:2 or random", rule, n)
		}
		g.edges = lists(k, randomRegular(n, k, seed))
	case exponential:
		var hops []int
		for h := 1; h < n; h *= 2 {
			hops = append(hops, h)
		}
		g.edges = circulant(n, hops...)
	case base:
		b := newSchedule(n, k)
		g.period, g.edges = max(b.period, 1), b.edges
	case random:
		g.period, g.edges = 0, pairs(n, seed)
	}
	return g, nil
}

// Edges appends to buf the edges of the node at place i in a round, in the order
// of their places, and returns it. Rounds count from 1.
func (g *Graph) Edges(round uint64, i int, buf []Edge) []Edge { return g.edges(round, i, buf) }

// Complete tells whether everyone is a neighbour of everyone in every round.
func (g *Graph) Complete() bool { return g.complete }

// Period is after how many rounds the edges come again: 1 where they never
// change, 0 where they never repeat.
func (g *Graph) Period() int { return g.period }

// circulant ties each place to those that are hops before and after it.
func circulant(n int, hops ...int) func(uint64, int, []Edge) []Edge {
	var offsets []int
	for _, h := range hops {
		if h %= n; h != 0 {
			offsets = append(offsets, h, n-h)
		}
	}
	slices.Sort(offsets)
	offsets = slices.Compact(offsets)
	w := 1 / float64(len(offsets)+1)
	return func(_ uint64, i int, buf []Edge) []Edge {
		wrap, _ := slices.BinarySearch(offsets, n-i) // from here on, places start again at 0
		for _, o := range offsets[wrap:] {
			buf = append(buf, Edge{i + o - n, w, w})
		}
		for _, o := range offsets[:wrap] {
			buf = append(buf, Edge{i + o, w, w})
		}
		return buf
	}
}

// lists ties each place to the d that stand for it in all.
func lists(d int, all []int32) func(uint64, int, []Edge) []Edge {
	w := 1 / float64(d+1)
	return func(_ uint64, i int, buf []Edge) []Edge {
		for _, j := range all[i*d : i*d+d] {
			buf = append(buf, Edge{int(j), w, w})
		}
		return buf
	}
}

func torusEdges(n int) func(uint64, int, []Edge) []Edge {
	root := int(math.Round(math.Sqrt(float64(n))))
	r := root
	for r*r > n || n%r != 0 {
		r--
	}
	c := n / r
	if r < 3 || c > 4*r {
		return circulant(n, 1, root)
	}
	all := make([]int32, 0, 4*n)
	for i := range n {
		row, column := i/c, i%c
		four := []int32{
			int32((row+r-1)%r*c + column), int32((row+1)%r*c + column),
			int32(row*c + (column+c-1)%c), int32(row*c + (column+1)%c),
		}
		slices.Sort(four)
		all = append(all, four...)
	}
	return lists(4, all)
}

// below returns a number from 0 to n-1 for a draw from 64 random bits. It is
// written out, so that draws are the same with every version of the library.
func below(draw uint64, n int) int {
	hi, _ := bits.Mul64(draw, uint64(n))
	return int(hi)
}

// pairs ties place i to (c - i) mod n, with a c for each round. Where n is even,
// c is odd, so that nobody is its own partner.
func pairs(n int, seed uint64) func(uint64, int, []Edge) []Edge {
	return func(round uint64, i int, buf []Edge) []Edge {
		var random rand.PCG
		random.Seed(seed, round)
		random.Uint64() // the first draws of neighbouring seeds are alike
		var c int
		if n%2 == 0 {
			c = 2*below(random.Uint64(), n/2) + 1
		} else {
			c = below(random.Uint64(), n)
		}
		j := c - i
		if j < 0 {
			j += n
		}
		if j == i {
			return buf
		}
		return append(buf, Edge{j, 1. / 2, 1. / 2})
	}
}

// randomRegular returns the k neighbours of each of n places. It starts from a
// circulant graph and exchanges the ends of two random edges, ten times as
// often as there are edges, which keeps all degrees and in the limit makes
// every simple graph as likely as any other; k >= 3 makes it connected, as a
// rule, and it goes on until it is. For k = 2 that would take too long: those
// connected are the rings, in any order.
func randomRegular(n, k int, seed uint64) []int32 {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	random := rand.NewChaCha8(key)
	draw := func(n int) int { return below(random.Uint64(), n) }
	place := make([]int32, n)
	for i := range place {
		place[i] = int32(i)
	}
	if k == 2 {
		for i := n - 1; i > 0; i-- {
			j := draw(i + 1)
			place[i], place[j] = place[j], place[i]
		}
	}
	type edge struct{ a, b int32 }
	edges := make([]edge, 0, n*k/2)
	all := make([]int32, n*k)
	degree := make([]int, n)
	add := func(i, j int) {
		a, b := place[i], place[j%n]
		edges = append(edges, edge{a, b})
		all[int(a)*k+degree[a]], all[int(b)*k+degree[b]] = b, a
		degree[a]++
		degree[b]++
	}
	for i := range n {
		for h := 1; h <= k/2; h++ {
			add(i, i+h)
		}
		if k%2 == 1 && i < n/2 {
			add(i, i+n/2)
		}
	}
	of := func(a int32) []int32 { return all[int(a)*k : int(a)*k+k] }
	replace := func(a, old, new int32) { of(a)[slices.Index(of(a), old)] = new }
	exchange := func(times int) {
		for range times {
			e, f := &edges[draw(len(edges))], &edges[draw(len(edges))]
			if random.Uint64()&1 == 1 {
				f.a, f.b = f.b, f.a
			}
			// e = ab and f = cd become ad and cb.
			a, b, c, d := e.a, e.b, f.a, f.b
			if a == c || b == d || a == d || b == c || slices.Contains(of(a), d) || slices.Contains(of(c), b) {
				continue
			}
			replace(a, b, d)
			replace(b, a, c)
			replace(c, d, b)
			replace(d, c, a)
			e.b, f.b = d, b
		}
	}
	if k > 2 {
		for exchange(10 * len(edges)); !connected(n, of); {
			exchange(len(edges))
		}
	}
	for i := range n {
		slices.Sort(of(int32(i)))
	}
	return all
}

// connected tells whether every place is reached from the first one.
func connected(n int, of func(int32) []int32) bool {
	seen := make([]bool, n)
	seen[0] = true
	reached := []int32{0}
	for at := 0; at < len(reached); at++ {
		for _, j := range of(reached[at]) {
			if !seen[j] {
				seen[j] = true
				reached = append(reached, j)
			}
		}
	}
	return len(reached) == n
}
