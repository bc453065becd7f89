package average

import (
	"encoding/binary"
	"errors"
	"math"
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

// contributions returns vectors within a bound of 8, their weights, and the
// shape that fits.
func contributions(seed uint64, n, length int) (Shape, []uint64, [][]float64) {
	random := rand.New(rand.NewPCG(seed, 1))
	shape := Shape{Nodes: n, Length: length, Bound: 8}
	weights, vectors := make([]uint64, n), make([][]float64, n)
	for i := range vectors {
		weights[i] = 1 + random.Uint64N(300)
		shape.Weight += weights[i]
		vectors[i] = make([]float64, length)
		for k := range vectors[i] {
			vectors[i][k] = 16*random.Float64() - 8
		}
	}
	return shape, weights, vectors
}

// off is the largest difference of two vectors.
func off(a, b []float64) float64 {
	d := 0.0
	for k, x := range a {
		d = max(d, math.Abs(x-b[k]))
	}
	return d
}

// crowd is all nodes of a nested reduce-scatter.
type crowd struct {
	plan  *Plan
	nodes []*Scatter
	// loses tells whether a chunk does not come; nil = all come.
	loses func(from int, c Chunk) bool
	sent  []int // chunks, by node
}

func newCrowd(t testing.TB, shape Shape, weights []uint64, vectors [][]float64) *crowd {
	t.Helper()
	plan, err := NewPlan(shape)
	if err != nil {
		t.Fatal(err)
	}
	c := &crowd{plan: plan, nodes: make([]*Scatter, shape.Nodes), sent: make([]int, shape.Nodes)}
	for i := range c.nodes {
		if c.nodes[i], err = NewScatter(plan, i, name(i), weights[i], vectors[i]); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func name(i int) (n [32]byte) {
	binary.BigEndian.PutUint64(n[:], uint64(i)+1)
	return n
}

// run lets each node go on as soon as it has what it waits for, while chunks come
// in any order and twice. When nothing is under way any more, those that wait do
// so no longer. It returns what Send has refused.
func (c *crowd) run(t testing.TB, seed uint64) (refused error) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 3))
	type way struct {
		from int
		c    Chunk
	}
	var under []way
	send := func(i int) {
		chunks, err := c.nodes[i].Send()
		refused = errors.Join(refused, err)
		for _, chunk := range chunks {
			c.sent[i]++
			if c.loses == nil || !c.loses(i, chunk) {
				under = append(under, way{i, chunk}, way{i, chunk})
			}
		}
	}
	ready := func(i int) {
		for s := c.nodes[i]; s.next < Done && len(s.Missing()) == 0; {
			send(i)
		}
	}
	for i := range c.nodes {
		ready(i)
	}
	for {
		for len(under) > 0 {
			at := random.IntN(len(under))
			w := under[at]
			under[at] = under[len(under)-1]
			under = under[:len(under)-1]
			if _, err := c.nodes[w.c.Node].Receive(w.from, w.c); err != nil {
				t.Fatal(err)
			}
			ready(w.c.Node)
		}
		slowest := slices.MinFunc(c.nodes, func(a, b *Scatter) int { return int(a.next - b.next) })
		if slowest.next == Done {
			return refused
		}
		for i, s := range c.nodes {
			if s.next == slowest.next {
				send(i)
			}
		}
	}
}

// sum is the exact mean.
func sum(t testing.TB, weights []uint64, vectors [][]float64) []float64 {
	t.Helper()
	s := mixing.NewSum(len(vectors[0]))
	for i, v := range vectors {
		if err := s.Add(weights[i], v); err != nil {
			t.Fatal(err)
		}
	}
	return s.Mean()
}

func TestScatterGivesAllTheSameMean(t *testing.T) {
	for _, n := range append(sizes(), 199, 200, 257) {
		for _, length := range []int{1, 7, 400} {
			if length == 400 && n > 64 && n != 193 {
				continue
			}
			shape, weights, vectors := contributions(uint64(n), n, length)
			c := newCrowd(t, shape, weights, vectors)
			if err := c.run(t, uint64(n)); err != nil {
				t.Fatalf("%d nodes, %d parameters: %v", n, length, err)
			}
			first, parts, err := c.nodes[0].Mean()
			if err != nil {
				t.Fatalf("%d nodes, %d parameters: %v", n, length, err)
			}
			if d := off(first, sum(t, weights, vectors)); d > 1e-15*shape.Bound {
				t.Errorf("%d nodes, %d parameters: off by %g", n, length, d)
			}
			for i, p := range parts {
				if p != (Part{i, name(i), weights[i]}) {
					t.Fatalf("%d nodes: part %d is %v", n, i, p)
				}
			}
			if len(parts) != n {
				t.Fatalf("%d nodes: the mean is of %d contributions", n, len(parts))
			}
			for i, s := range c.nodes {
				got, of, err := s.Mean()
				if err != nil || !slices.Equal(got, first) || !slices.Equal(of, parts) {
					t.Fatalf("%d nodes, %d parameters: node %d has another mean: %v", n, length, i, err)
				}
				if len(s.Missing()) != 0 {
					t.Fatalf("node %d waits for %v", i, s.Missing())
				}
			}
		}
	}
}

// vectorsOf is how many vectors' worth of parameters a node sends in all.
func vectorsOf(p *Plan, node int) float64 {
	sent := 0
	for step := Reduce; step < Done; step++ {
		for _, t := range p.Transfers(step, node) {
			sent += t.To - t.From
		}
	}
	return float64(sent) / float64(p.shape.Length)
}

func TestScatterSendsLessThanTwoVectors(t *testing.T) {
	for _, n := range sizes() {
		shape := Shape{Nodes: n, Length: 100_000, Weight: 1 << 20, Bound: 1}
		plan, err := NewPlan(shape)
		if err != nil {
			t.Fatal(err)
		}
		total, most, chunks := 0.0, 0.0, 0
		for i := range n {
			v := vectorsOf(plan, i)
			total, most = total+v, max(most, v)
			count := 0
			for step := Reduce; step < Done; step++ {
				count += len(plan.Transfers(step, i))
			}
			chunks = max(chunks, count)
		}
		if least := 2 * float64(n-1) / float64(n); math.Abs(total/float64(n)-least) > 1e-12 || most >= 2 {
			t.Errorf("%d nodes: %g vectors on average and %g at most, %g are needed", n, total/float64(n), most, least)
		}
		if n == 193 {
			t.Logf("%d nodes: %g vectors on average, %g at most, in up to %d chunks", n, total/float64(n), most, chunks)
			if most > 2.2 || chunks > 80 {
				t.Errorf("%d nodes: %g vectors in %d chunks", n, most, chunks)
			}
		}
	}
}

// TestScatterNeverMixesContributions loses chunks: whatever is missing where, a
// node has the mean of the contributions that it names, or none.
func TestScatterNeverMixesContributions(t *testing.T) {
	installed, refusals := 0, 0
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 4))
		n := 2 + random.IntN(40)
		shape, weights, vectors := contributions(seed, n, 60)
		c := newCrowd(t, shape, weights, vectors)
		dead, dies := random.IntN(n), Step(random.IntN(int(Done)+1))
		left := random.IntN(3 * n) // chunks that it sends before it dies
		c.loses = func(from int, chunk Chunk) bool {
			if seed%3 == 0 { // loss
				return random.IntN(50) == 0
			}
			if from == dead && chunk.Step >= dies {
				left--
			}
			return from == dead && left < 0
		}
		if err := c.run(t, seed); err != nil && !errors.Is(err, ErrContributors) {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for i, s := range c.nodes {
			got, parts, err := s.Mean()
			if err != nil {
				if !errors.Is(err, ErrContributors) || got != nil {
					t.Fatalf("seed %d, node %d: %v", seed, i, err)
				}
				refusals++
				continue
			}
			installed++
			var w []uint64
			var v [][]float64
			for _, p := range parts {
				w, v = append(w, weights[p.Node]), append(v, vectors[p.Node])
			}
			if d := off(got, sum(t, w, v)); d > 1e-14*shape.Bound {
				t.Fatalf("seed %d, node %d: the mean of %d contributions is off by %g", seed, i, len(parts), d)
			}
		}
	}
	if installed < 500 || refusals < 500 {
		t.Errorf("%d means and %d refusals", installed, refusals)
	}
}

// TestScatterTellsTwoContributionsOfOneNode gives one member of the group another
// vector than the rest.
func TestScatterTellsTwoContributionsOfOneNode(t *testing.T) {
	shape, weights, vectors := contributions(8, 5, 20)
	c := newCrowd(t, shape, weights, vectors)
	c.loses = func(from int, chunk Chunk) bool {
		if from == 2 && chunk.Step == Reduce && chunk.Node == 4 {
			chunk.Parts[0].Name[31]++
		}
		return false
	}
	c.run(t, 1)
	for i, s := range c.nodes {
		if _, _, err := s.Mean(); !errors.Is(err, ErrContributors) {
			t.Errorf("node %d: %v", i, err)
		}
	}
}

// fresh returns node 0 of forty, which are in groups of 14, 13 and 13, and a
// chunk of each step that it would take.
func fresh(t testing.TB) (*Scatter, map[Step]Chunk, map[Step]int) {
	shape, weights, vectors := contributions(9, 40, 200)
	c := newCrowd(t, shape, weights, vectors)
	chunks, senders := map[Step]Chunk{}, map[Step]int{}
	c.loses = func(from int, chunk Chunk) bool {
		if chunk.Node == 0 {
			chunks[chunk.Step], senders[chunk.Step] = chunk, from
		}
		return false
	}
	if err := c.run(t, 2); err != nil {
		t.Fatal(err)
	}
	return newCrowd(t, shape, weights, vectors).nodes[0], chunks, senders
}

func TestScatterRefuses(t *testing.T) {
	s, chunks, senders := fresh(t)
	limit := s.plan.shape.Weight
	for step := Reduce; step < Done; step++ {
		for what, c := range map[string]struct {
			change func(*Chunk)
			want   error
		}{
			"another step":     {func(c *Chunk) { c.Step = Done }, ErrChunk},
			"step below 0":     {func(c *Chunk) { c.Step = -1 }, ErrChunk},
			"another receiver": {func(c *Chunk) { c.Node = 1 }, ErrChunk},
			"another range":    {func(c *Chunk) { c.From++; c.Sum = c.Sum[1:] }, ErrChunk},
			"longer":           {func(c *Chunk) { c.To++; c.Sum = append(slices.Clone(c.Sum), 0) }, ErrChunk},
			"far away":         {func(c *Chunk) { c.From, c.To = math.MinInt, math.MaxInt }, ErrChunk},
			"without numbers":  {func(c *Chunk) { c.Sum = nil }, ErrChunk},
			"of nobody":        {func(c *Chunk) { c.Parts = nil }, ErrChunk},
			"of a stranger":    {func(c *Chunk) { c.Parts[0].Node = -1 }, ErrChunk},
			"of one beyond":    {func(c *Chunk) { c.Parts[len(c.Parts)-1].Node = 40 }, ErrChunk},
			"of one twice":     {func(c *Chunk) { c.Parts = append(c.Parts, c.Parts[len(c.Parts)-1]) }, ErrChunk},
			"of no weight":     {func(c *Chunk) { c.Parts[0].Weight = 0 }, ErrBound},
			"of too much":      {func(c *Chunk) { c.Parts[0].Weight = limit + 1 }, ErrBound},
			"of far too much":  {func(c *Chunk) { c.Parts[0].Weight = math.MaxUint64 }, ErrBound},
			"too large":        {func(c *Chunk) { c.Sum[0] = int64(weigh(c.Parts)<<s.plan.shape.Point()) + 1 }, ErrBound},
			"too small":        {func(c *Chunk) { c.Sum[0] = math.MinInt64 }, ErrBound},
		} {
			chunk := chunks[step]
			chunk.Parts, chunk.Sum = slices.Clone(chunk.Parts), slices.Clone(chunk.Sum)
			c.change(&chunk)
			if news, err := s.Receive(senders[step], chunk); news || !errors.Is(err, c.want) {
				t.Errorf("step %d, %s: news %v, error %v, want %v", step, what, news, err, c.want)
			}
		}
		for _, from := range []int{-1, 0, 39, 40} {
			if news, err := s.Receive(from, chunks[step]); from != senders[step] && (news || !errors.Is(err, ErrChunk)) {
				t.Errorf("step %d, of node %d: news %v, error %v", step, from, news, err)
			}
		}
		if news, err := s.Receive(senders[step], chunks[step]); !news || err != nil {
			t.Errorf("step %d: news %v, error %v", step, news, err)
		}
		if news, err := s.Receive(senders[step], chunks[step]); news || err != nil {
			t.Errorf("step %d, again: news %v, error %v", step, news, err)
		}
	}
	of := chunks[Combine]
	of.Parts = slices.Clone(of.Parts)
	of.Parts[0].Node = 1 // of the receiver's own group
	s, _, _ = fresh(t)
	if news, err := s.Receive(senders[Combine], of); news || !errors.Is(err, ErrChunk) {
		t.Errorf("a sum of another group: news %v, error %v", news, err)
	}
}

// TestScatterRefusesMoreWeightThanAgreed lets contributions weigh more than all
// together may.
func TestScatterRefusesMoreWeightThanAgreed(t *testing.T) {
	shape, weights, vectors := contributions(8, 40, 90)
	shape.Weight = weights[0]
	for _, w := range weights {
		shape.Weight = max(shape.Weight, w)
	}
	plan, err := NewPlan(shape)
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewScatter(plan, 0, name(0), shape.Weight, vectors[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []int{1, 27} { // of the same group, and of another one
		b, err := NewScatter(plan, other, name(other), shape.Weight, vectors[1])
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			chunks, err := b.Send()
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range chunks {
				if c.Node != 0 {
					continue
				}
				if _, err := a.Receive(other, c); c.Step == Reduce && !errors.Is(err, ErrBound) || c.Step == Combine && err != nil {
					t.Errorf("step %d of node %d: %v", c.Step, other, err)
				}
			}
		}
	}
	var errs [3]error
	for i := range errs {
		_, errs[i] = a.Send()
	}
	if errs[0] != nil || errs[1] != nil || !errors.Is(errs[2], ErrBound) {
		t.Errorf("errors %v", errs)
	}
}

func TestNewScatterRefuses(t *testing.T) {
	shape, weights, vectors := contributions(8, 3, 5)
	if _, err := NewPlan(Shape{Nodes: 3, Length: 5, Weight: 9}); err == nil {
		t.Error("a plan without a bound")
	}
	plan, err := NewPlan(shape)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		self   int
		weight uint64
		x      []float64
		want   error
	}{
		{-1, weights[0], vectors[0], ErrNode},
		{3, weights[0], vectors[0], ErrNode},
		{0, 0, vectors[0], ErrBound},
		{0, weights[0], vectors[0][1:], ErrLength},
		{0, weights[0], []float64{0, 0, math.NaN(), 0, 0}, ErrBound},
	} {
		if _, err := NewScatter(plan, c.self, name(0), c.weight, c.x); !errors.Is(err, c.want) {
			t.Errorf("%v: error %v", c, err)
		}
	}
}

// TestScatterTakesNothingLate lets the chunk of a step come when the node has
// sent the sums that it belongs to.
func TestScatterTakesNothingLate(t *testing.T) {
	for step := Reduce; step < Gather; step++ {
		s, chunks, senders := fresh(t)
		for range step + 2 {
			s.Send()
		}
		if news, err := s.Receive(senders[step], chunks[step]); news || err != nil {
			t.Errorf("late in step %d: news %v, error %v", step, news, err)
		}
	}
}
