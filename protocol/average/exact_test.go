package average

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"village/protocol/mixing"
)

// sizes are numbers of nodes: small ones, and those with an awkward rest.
func sizes() []int {
	all := []int{97, 100, 193}
	for n := 1; n <= 64; n++ {
		all = append(all, n)
	}
	return all
}

// packet is a message under way.
type packet struct {
	from, to int
	Message
}

// exact runs the nodes on their own, each as fast as messages come, which they
// do in any order and twice, until all have sent those of a round. It returns
// the largest difference from the mean.
func exact(t *testing.T, shape Shape, weights []uint64, vectors [][]float64, graph *mixing.Graph, rounds uint64, seed uint64) float64 {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 2))
	all := nodes(t, shape, weights, vectors)
	machines := make([]*Exact, len(all))
	for i, p := range all {
		machines[i] = NewExact(p, graph)
	}
	var under []packet
	send := func(i int) {
		for e := machines[i]; e.Round() < rounds && len(e.Missing()) == 0; {
			shares, messages, err := e.Send()
			if err != nil {
				t.Fatal(err)
			}
			for k, m := range messages {
				under = append(under, packet{i, shares[k].Node, m}, packet{i, shares[k].Node, m})
			}
		}
	}
	for i := range machines {
		send(i)
	}
	for len(under) > 0 {
		at := random.IntN(len(under))
		p := under[at]
		under[at] = under[len(under)-1]
		under = under[:len(under)-1]
		if _, err := machines[p.to].Receive(p.from, p.Message); err != nil {
			t.Fatal(err)
		}
		send(p.to)
	}
	want, most := mean(weights, vectors), 0.0
	for i, p := range all {
		if e := machines[i]; e.Round() != rounds || len(e.Missing()) != 0 || len(e.early) != 0 {
			t.Fatalf("node %d waits in round %d of %d", i, e.Round(), rounds)
		}
		if err := p.Ledger(); err != nil {
			t.Fatal(err)
		}
		got, _ := p.Estimate()
		most = max(most, off(got, want))
	}
	return most
}

func TestExactAfterOnePeriod(t *testing.T) {
	for _, n := range sizes() {
		for k := 1; k <= 4; k++ {
			graph, err := mixing.New(fmt.Sprint("base:", k), n, 0)
			if err != nil {
				t.Fatal(err)
			}
			shape, weights, vectors := contributions(uint64(n), n, 3)
			if d := exact(t, shape, weights, vectors, graph, uint64(graph.Period()), uint64(n*k)); d > 1e-12*shape.Bound {
				t.Errorf("%d nodes, base:%d: off by %g after %d rounds", n, k, d, graph.Period())
			}
		}
	}
}

// TestExactHeals loses messages of the first rounds for good, and goes on
// without them.
func TestExactHeals(t *testing.T) {
	for _, n := range []int{2, 5, 12, 25} {
		graph, err := mixing.New("base:1", n, 0)
		if err != nil {
			t.Fatal(err)
		}
		shape, weights, vectors := contributions(uint64(n), n, 2)
		all := nodes(t, shape, weights, vectors)
		machines := make([]*Exact, n)
		for i, p := range all {
			machines[i] = NewExact(p, graph)
		}
		random := rand.New(rand.NewPCG(9, uint64(n)))
		want, lost, before, after := mean(weights, vectors), 0, 0.0, 0.0
		for round := range 60 * graph.Period() {
			for i, e := range machines {
				shares, messages, err := e.Send()
				if err != nil {
					t.Fatal(err)
				}
				for k, m := range messages {
					if round < 2*graph.Period() && (lost == 0 || random.IntN(3) == 0) {
						lost++
						continue
					}
					if _, err := machines[shares[k].Node].Receive(i, m); err != nil {
						t.Fatal(err)
					}
				}
			}
			after = 0
			for i, p := range all {
				if err := p.Ledger(); err != nil {
					t.Fatalf("node %d: %v", i, err)
				}
				got, _ := p.Estimate()
				after = max(after, off(got, want))
			}
			if round == graph.Period()-1 {
				before = after
			}
		}
		if before < 1e-6 || after > 1e-12*shape.Bound {
			t.Errorf("%d nodes: %d messages lost, off by %g after one period, and by %g after sixty", n, lost, before, after)
		}
	}
}

func TestExactKeepsTheNewestOfEachNode(t *testing.T) {
	graph, err := mixing.New("all", 3, 0)
	if err != nil {
		t.Fatal(err)
	}
	shape, weights, vectors := contributions(6, 3, 2)
	all := nodes(t, shape, weights, vectors)
	a, b := NewExact(all[0], graph), NewExact(all[1], graph)
	var messages []Message
	for range 3 {
		shares, m, err := b.Send()
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, m[slices.IndexFunc(shares, func(s Share) bool { return s.Node == 0 })])
	}
	for _, c := range []struct {
		message int
		news    bool
	}{{1, true}, {0, false}, {1, false}, {2, true}, {2, false}} {
		if news, err := a.Receive(1, messages[c.message]); news != c.news || err != nil {
			t.Errorf("message %d: news %v, error %v", c.message, news, err)
		}
	}
	if _, err := a.Receive(1, Message{9, []int64{-1, 0, 0}}); err == nil || len(a.early) != 1 {
		t.Errorf("kept %d messages, error %v", len(a.early), err)
	}
	for round := range 3 {
		if _, _, err := a.Send(); err != nil {
			t.Fatal(err)
		}
		missing := []int{1, 2}
		if round == 2 {
			missing = []int{2}
		}
		if !slices.Equal(a.Missing(), missing) {
			t.Errorf("round %d: missing %v", a.Round(), a.Missing())
		}
	}
}
