package mixing

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

var sizes = func() []int {
	var n []int
	for i := 1; i <= 64; i++ {
		n = append(n, i)
	}
	return append(n, 97, 100, 193)
}()

// each calls f with every rule that fits n nodes, for a few K.
func each(t *testing.T, f func(t *testing.T, rule string, n int, g *Graph)) {
	t.Helper()
	rules := []string{All, ring, torus, exponential, random}
	for k := 1; k <= 4; k++ {
		rules = append(rules, fmt.Sprintf("base:%d", k))
	}
	for _, k := range []int{1, 2, 3, 4, 5, 8, 20} {
		rules = append(rules, fmt.Sprintf("regular:%d", k))
	}
	for _, rule := range rules {
		t.Run(rule, func(t *testing.T) {
			tried := 0
			for _, n := range sizes {
				g, err := New(rule, n, 7)
				if err != nil {
					if strings.HasPrefix(rule, regular) {
						continue // which are refused, TestNewRefuses says
					}
					t.Fatal(err)
				}
				tried++
				f(t, rule, n, g)
			}
			if tried == 0 {
				t.Error("fits no number of nodes")
			}
		})
	}
}

// rounds are those that show all that a graph does, or enough of it.
func rounds(g *Graph) uint64 {
	if g.Period() == 0 {
		return 5
	}
	return uint64(g.Period()) + 1
}

func TestMatricesAreDoublyStochastic(t *testing.T) {
	each(t, func(t *testing.T, rule string, n int, g *Graph) {
		for r := uint64(1); r <= rounds(g); r++ {
			columns := make([]float64, n)
			ends := map[[2]int]Edge{}
			for i := range n {
				row, before := 0.0, -1
				for _, e := range g.Edges(r, i, nil) {
					if e.Node <= before || e.Node >= n || e.Node == i {
						t.Fatalf("n %d, round %d: node %d has the neighbour %d after %d", n, r, i, e.Node, before)
					}
					before = e.Node
					if !(e.Weight > 0 && e.Weight < 1) {
						t.Fatalf("n %d, round %d: weight %g", n, r, e.Weight)
					}
					row += e.Weight
					columns[e.Node] += e.Weight
					ends[[2]int{i, e.Node}] = e
				}
				if row > 1+1e-12 {
					t.Fatalf("n %d, round %d: the shares of node %d add up to %g", n, r, i, row)
				}
				columns[i] += 1 - row
			}
			for i, c := range columns {
				if math.Abs(c-1) > 1e-12 {
					t.Fatalf("n %d, round %d: column %d adds up to %g", n, r, i, c)
				}
			}
			for ij, e := range ends {
				if back := ends[[2]int{ij[1], ij[0]}]; back.Weight != e.Back || back.Back != e.Weight {
					t.Fatalf("n %d, round %d: %d sees %v of %d, which sees %v", n, r, ij[0], e, ij[1], back)
				}
			}
		}
	})
}

// TestShare: rows times share is the same from both ends, and no node gives away
// more than all.
// The nodes of a task may have programs of different ages, and a task carries its
// rule by name alone: so a rule means the same edges, in order and to the last bit
// of their weights, for good. Another fingerprint is another rule, and needs
// another name.
func TestRulesMeanTheSameForGood(t *testing.T) {
	for rule, want := range map[string]string{
		All:         "7a2be5200c4df36d",
		ring:        "4e3f586d797cae0b",
		torus:       "28d6ad10c7a24e61",
		"regular:2": "4b100b75dc91ef57",
		"regular:3": "19deeebd0361374a",
		"regular:4": "2ff6de70df3eec20",
		exponential: "f8f6753111b87aa5",
		"base:1":    "842f37c322a8c433",
		"base:2":    "9666f71c3ff52ce5",
		"base:3":    "23f6dbb244d9cf5c",
		"base:7":    "a27850b70794412c",
		"base:5":    "1cfa254069280201",
		random:      "0e9b062b4fb69030",
	} {
		h := sha256.New()
		for n := 1; n <= 64; n++ {
			for seed := range uint64(2) {
				g, err := New(rule, n, seed)
				if err != nil {
					continue
				}
				b := binary.AppendUvarint(nil, uint64(n))
				for round := uint64(1); round <= rounds(g)+2; round++ {
					for i := range n {
						edges := g.Edges(round, i, nil)
						b = binary.AppendUvarint(b, uint64(len(edges)))
						for _, e := range edges {
							b = binary.AppendUvarint(b, uint64(e.Node))
							b = binary.BigEndian.AppendUint64(b, math.Float64bits(e.Weight))
							b = binary.BigEndian.AppendUint64(b, math.Float64bits(e.Back))
						}
					}
				}
				h.Write(b)
			}
		}
		if got := hex.EncodeToString(h.Sum(nil)[:8]); got != want {
			t.Errorf("%s is now %s", rule, got)
		}
	}
}

func TestShare(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	each(t, func(t *testing.T, rule string, n int, g *Graph) {
		rows := make([]uint64, n)
		for i := range rows {
			rows[i] = rng.Uint64N(1 << rng.IntN(30)) // some have none
		}
		for r := uint64(1); r <= rounds(g); r++ {
			for i := range n {
				sum := 0.0
				for _, e := range g.Edges(r, i, nil) {
					share := e.Share(rows[i], rows[e.Node])
					back := Edge{Node: i, Weight: e.Back, Back: e.Weight}.Share(rows[e.Node], rows[i])
					there, here := float64(rows[i])*share, float64(rows[e.Node])*back
					if math.Abs(there-here) > 1e-15*there || share < 0 || math.IsNaN(share) {
						t.Fatalf("n %d, round %d: %d rows x %g, but %d x %g", n, r, rows[i], share, rows[e.Node], back)
					}
					sum += share
				}
				if sum > 1+1e-12 {
					t.Fatalf("n %d, round %d: the shares of node %d add up to %g", n, r, i, sum)
				}
			}
		}
	})
	if s := (Edge{Weight: .25, Back: .5}).Share(10, 30); s != .25 {
		t.Errorf("share %g of a heavy neighbour, want .25", s)
	}
	if s := (Edge{Weight: .25, Back: .5}).Share(30, 6); s != .1 {
		t.Errorf("share %g of a light neighbour, want .1", s)
	}
}

// TestConnected: over the rounds of a period, everyone reaches everyone.
func TestConnected(t *testing.T) {
	each(t, func(t *testing.T, rule string, n int, g *Graph) {
		if g.Complete() != (rule == All) {
			t.Errorf("%s is complete: %v", rule, g.Complete())
		}
		all := make([][]int32, n)
		for r := uint64(1); r <= max(rounds(g), uint64(100-99*min(1, g.Period()))); r++ {
			for i := range n {
				for _, e := range g.Edges(r, i, nil) {
					all[i] = append(all[i], int32(e.Node))
				}
			}
		}
		if !connected(n, func(i int32) []int32 { return all[i] }) {
			t.Errorf("%d nodes are not connected", n)
		}
	})
}

func TestDegrees(t *testing.T) {
	each(t, func(t *testing.T, rule string, n int, g *Graph) {
		most, least := n-1, 1
		switch name, k, _ := parse(rule); {
		case name == ring:
			most, least = 2, min(2, n-1)
		case name == torus:
			most, least = 4, min(4, n-1)
		case name == regular:
			most, least = k, k
		case name == base:
			most, least = k, 0
		case name == random:
			most, least = 1, 1-n%2
		case name == All:
			least = n - 1
		}
		for r := uint64(1); r <= rounds(g); r++ {
			alone := 0
			for i := range n {
				d := len(g.Edges(r, i, nil))
				if n > 1 && (d > most || d < least) {
					t.Fatalf("%s, %d nodes, round %d: node %d has %d neighbours, want %d to %d", rule, n, r, i, d, least, most)
				}
				if d == 0 {
					alone++
				}
			}
			if rule == random && alone != n%2 {
				t.Fatalf("%d of %d nodes have no partner in round %d", alone, n, r)
			}
		}
	})
}

// mixed is what unit vector c becomes in some rounds.
func mixed(g *Graph, n, c int, rounds uint64) []float64 {
	x := make([]float64, n)
	x[c] = 1
	for r := uint64(1); r <= rounds; r++ {
		next := make([]float64, n)
		for i := range n {
			next[i] = x[i]
			for _, e := range g.Edges(r, i, nil) {
				next[i] += e.Weight * (x[e.Node] - x[i])
			}
		}
		x = next
	}
	return x
}

func TestBaseIsExactAfterAPeriod(t *testing.T) {
	for k := 1; k <= 6; k++ {
		for _, n := range sizes {
			g, err := New(fmt.Sprintf("base:%d", k), n, 0)
			if err != nil {
				t.Fatal(err)
			}
			for c := range n {
				for i, x := range mixed(g, n, c, uint64(g.Period())) {
					if math.Abs(x*float64(n)-1) > 1e-12 {
						t.Fatalf("base:%d, %d nodes: node %d gives %g of node %d", k, n, i, x, c)
					}
				}
			}
		}
	}
}

// TestBaseRounds compares with the program of the paper's authors.
func TestBaseRounds(t *testing.T) {
	for _, c := range []struct{ n, k, want int }{
		{25, 1, 9}, {25, 2, 6}, {25, 3, 5}, {25, 4, 2},
		{100, 1, 11}, {100, 2, 8}, {100, 3, 6}, {100, 4, 3},
		{193, 1, 15}, {6, 1, 4}, {64, 1, 6}, {1, 1, 1}, {2, 1, 1}, {7, 256, 1},
	} {
		g, err := New(fmt.Sprintf("base:%d", c.k), c.n, 0)
		if err != nil {
			t.Fatal(err)
		}
		if g.Period() != c.want {
			t.Errorf("base:%d with %d nodes takes %d rounds, want %d", c.k, c.n, g.Period(), c.want)
		}
	}
}

func TestFactors(t *testing.T) {
	for _, c := range []struct {
		n, most int
		want    string
	}{{1, 2, "[]"}, {8, 2, "[2 2 2]"}, {6, 3, "[2 3]"}, {216, 8, "[6 6 6]"}, {14, 6, "none"}, {97, 97, "[97]"}} {
		got := fmt.Sprint(factors(c.n, c.most))
		if factors(c.n, c.most) == nil {
			got = "none"
		}
		if got != c.want {
			t.Errorf("factors of %d up to %d: %s, want %s", c.n, c.most, got, c.want)
		}
	}
}

// TestRandomHalves: a round with random partners halves the expected squared
// distance from the mean, whatever the vectors are.
func TestRandomHalves(t *testing.T) {
	const n, draws = 20, 4000
	for name, value := range map[string]func(i int) float64{
		"one":     func(i int) float64 { return float64(max(0, 1-i)) },
		"by size": func(i int) float64 { return float64(i) },
	} {
		g, err := New(random, n, 3)
		if err != nil {
			t.Fatal(err)
		}
		mean, before, after := 0.0, 0.0, 0.0
		for i := range n {
			mean += value(i) / n
		}
		for r := uint64(1); r <= draws; r++ {
			for i := range n {
				x := value(i)
				before += (x - mean) * (x - mean)
				for _, e := range g.Edges(r, i, nil) {
					x += e.Weight * (value(e.Node) - x)
				}
				after += (x - mean) * (x - mean)
			}
		}
		if ratio := after / before; ratio > .55 || ratio < .42 {
			t.Errorf("%s: %.3f of the squared distance is left, want one half", name, ratio)
		}
	}
}

// TestRegularIsRandom: seeds give other graphs, one seed the same one, and the
// graph mixes as a random one does: its second eigenvalue is not far above
// 2 sqrt(k-1) (Friedman 2008).
func TestRegularIsRandom(t *testing.T) {
	edges := func(seed uint64) (all []Edge) {
		g, err := New("regular:4", 200, seed)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			all = g.Edges(1, i, all)
		}
		return all
	}
	if !slices.Equal(edges(1), edges(1)) {
		t.Error("one seed gives two graphs")
	}
	if slices.Equal(edges(1), edges(2)) {
		t.Error("two seeds give one graph")
	}
	for _, k := range []int{3, 4, 8} {
		const n = 500
		g, err := New(fmt.Sprintf("regular:%d", k), n, 1)
		if err != nil {
			t.Fatal(err)
		}
		x := mixed(g, n, 0, 40)
		y := mixed(g, n, 0, 41)
		norm := func(v []float64) (sum float64) {
			for _, e := range v {
				sum += (e - 1./n) * (e - 1./n)
			}
			return math.Sqrt(sum)
		}
		got, want := norm(y)/norm(x), (1+2*math.Sqrt(float64(k-1)))/float64(k+1)
		if got > 1.03*want {
			t.Errorf("regular:%d: the second eigenvalue is %.4f, that of a random graph about %.4f", k, got, want)
		}
	}
}

func TestTorusIsNoRing(t *testing.T) {
	for _, n := range []int{100, 101, 202, 193 * 3, 1024} {
		g, err := New(torus, n, 0)
		if err != nil {
			t.Fatal(err)
		}
		all := make([][]int, n)
		for i := range n {
			for _, e := range g.Edges(1, i, nil) {
				all[i] = append(all[i], e.Node)
			}
		}
		far := make([]int, n)
		reached := []int{0}
		for at := 0; at < len(reached); at++ {
			for _, j := range all[reached[at]] {
				if j != 0 && far[j] == 0 {
					far[j] = far[reached[at]] + 1
					reached = append(reached, j)
				}
			}
		}
		if most, root := slices.Max(far), math.Sqrt(float64(n)); float64(most) > 1.5*root {
			t.Errorf("%d nodes: %d steps from one end to the other", n, most)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	for _, rule := range []string{"", "star", "all:3", "ring:", "regular", "regular:", "regular:0", "regular:-1", "regular:+3",
		"regular:03", "base:257", "base:1:2", "base:99999999999999999999", "Ring"} {
		if err := Check(rule); err == nil {
			t.Errorf("%q is taken for a rule", rule)
		}
	}
	if err := Check("star"); err == nil || !strings.Contains(err.Error(), Rules) {
		t.Errorf("the error does not name the rules: %v", err)
	}
	for _, rule := range []string{All, ring, torus, "regular:4", exponential, "base:1", "base:256", random} {
		if err := Check(rule); err != nil {
			t.Error(err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		rule string
		n    int
		want string
	}{
		{"star", 3, "not known"},
		{ring, 0, "from 1"},
		{ring, MaxNodes + 1, "from 1"},
		{"regular:4", 4, "more than 4 nodes"},
		{"regular:3", 9, "must be even"},
		{"regular:1", 4, "never meet"},
	} {
		if _, err := New(c.rule, c.n, 0); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s with %d nodes: %v, want an error with %q", c.rule, c.n, err, c.want)
		}
	}
	if _, err := New("regular:1", 2, 0); err != nil {
		t.Error(err)
	}
}

func TestEdgesDoNotAllocate(t *testing.T) {
	for _, rule := range []string{All, ring, torus, "regular:20", exponential, "base:2", random} {
		g, err := New(rule, 1000, 0)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]Edge, 0, 1000)
		round := uint64(0)
		if a := testing.AllocsPerRun(100, func() { round++; buf = g.Edges(round, int(round), buf[:0]) }); a > 0 {
			t.Errorf("%s: %g allocations", rule, a)
		}
	}
}

func BenchmarkNew(b *testing.B) {
	for _, rule := range []string{All, torus, "regular:20", "base:2"} {
		b.Run(rule, func(b *testing.B) {
			for range b.N {
				if _, err := New(rule, 10_000, 1); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEdges(b *testing.B) {
	for _, rule := range []string{"regular:20", "base:1", random} {
		b.Run(rule, func(b *testing.B) {
			g, err := New(rule, 10_000, 1)
			if err != nil {
				b.Fatal(err)
			}
			var buf []Edge
			for i := range b.N {
				buf = g.Edges(uint64(i), i%10_000, buf[:0])
			}
		})
	}
}
