package average

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// ErrChunk says that a chunk is not one that its sender sends this node.
var ErrChunk = errors.New("chunk is not part of the plan")

// MaxGroup is the size of the largest group of a [Plan].
const MaxGroup = 16

// Step is one of the four steps of a [Plan].
type Step int

// The steps.
const (
	Reduce  Step = iota // in the group: contributions to whoever adds that range
	Combine             // between groups: their sums to whoever adds these
	Return              // between groups: sums of all to those whose range it is
	Gather              // in the group: sums of all to everyone
	Done                // none of them
)

// Plan says who sends which range of the vector to whom in nested
// reduce-scatter (Thakur, Rabenseifner and Gropp 2005, in two levels). Nodes
// stand in groups of nearly the same size. Each member of a group adds up one
// range for the group; those of different groups whose ranges meet divide what
// they have in common once more, and each adds up one part of it for all. Then
// everything goes back the same way. Each of n nodes sends less than two vectors,
// and on average 2(n-1)/n, which is as few as can be; where n is 193 in at most
// 76 messages, not the 384 of a single level. A plan does not change and may be
// shared.
type Plan struct {
	shape  Shape
	groups int
	cuts   []int // where the range of a member of any group begins, and the end
}

// NewPlan returns the plan for a shape.
func NewPlan(shape Shape) (*Plan, error) {
	if err := shape.Check(); err != nil {
		return nil, err
	}
	p := &Plan{shape: shape, groups: (shape.Nodes + MaxGroup - 1) / MaxGroup}
	for g := range p.groups { // of at most two sizes
		first, size := p.group(g)
		if g > 0 && size == p.size(g-1) {
			continue
		}
		for m := range size {
			from, _ := p.own(first + m)
			p.cuts = append(p.cuts, from)
		}
	}
	slices.Sort(p.cuts)
	p.cuts = append(slices.Compact(p.cuts), shape.Length)
	return p, nil
}

// Transfer is the range [From, To) of the vector for a receiver.
type Transfer struct {
	Node     int
	From, To int
}

// cut is where part m of several, nearly equal ones begins.
func cut(length, parts, m int) int { return length * m / parts }

// size is the number of members of a group. The larger groups come first.
func (p *Plan) size(g int) int {
	size := p.shape.Nodes / p.groups
	if g < p.shape.Nodes%p.groups {
		size++
	}
	return size
}

// group returns the first place of a group and its size.
func (p *Plan) group(g int) (first, size int) {
	return g*(p.shape.Nodes/p.groups) + min(g, p.shape.Nodes%p.groups), p.size(g)
}

// of returns the group of a node.
func (p *Plan) of(node int) int {
	small, larger := p.shape.Nodes/p.groups, p.shape.Nodes%p.groups
	if end := larger * (small + 1); node >= end {
		return larger + (node-end)/small
	}
	return node / (small + 1)
}

// own is the range that a node adds up for its group.
func (p *Plan) own(node int) (from, to int) {
	first, size := p.group(p.of(node))
	return cut(p.shape.Length, size, node-first), cut(p.shape.Length, size, node-first+1)
}

// owner is the node of a group that adds up the range with position at.
func (p *Plan) owner(g, at int) int {
	first, size := p.group(g)
	m := at * size / p.shape.Length
	for cut(p.shape.Length, size, m+1) <= at {
		m++
	}
	return first + m
}

// pieces calls f for each range [from, to) of the node's own one that a member
// of the group adds up for all.
func (p *Plan) pieces(node int, f func(group, from, to int)) {
	from, end := p.own(node)
	for i, _ := slices.BinarySearch(p.cuts, from); p.cuts[i] < end; i++ {
		from, length := p.cuts[i], p.cuts[i+1]-p.cuts[i]
		for g := range p.groups {
			if a, b := from+cut(length, p.groups, g), from+cut(length, p.groups, g+1); a < b {
				f(g, a, b)
			}
		}
	}
}

// Transfers returns what a node sends in a step.
func (p *Plan) Transfers(step Step, node int) []Transfer {
	all, _ := p.transfers(step, node)
	return all
}

// transfers returns what a node sends in a step and, with the senders, what it
// receives.
func (p *Plan) transfers(step Step, node int) (sends, receives []Transfer) {
	g := p.of(node)
	switch step {
	case Reduce, Gather:
		from, to := p.own(node)
		first, size := p.group(g)
		for mate := first; mate < first+size; mate++ {
			if mate == node {
				continue
			}
			if from < to {
				sends = append(sends, Transfer{mate, from, to})
			}
			if a, b := p.own(mate); a < b {
				receives = append(receives, Transfer{mate, a, b})
			}
		}
	case Combine, Return:
		p.pieces(node, func(group, from, to int) {
			if group != g {
				receives = append(receives, Transfer{p.owner(group, from), from, to})
				return
			}
			for other := range p.groups {
				if other != g {
					sends = append(sends, Transfer{p.owner(other, from), from, to})
				}
			}
		})
	}
	if step == Reduce || step == Combine { // the same ways backwards
		sends, receives = receives, sends
	}
	return sends, receives
}

// Part is a contribution: the vector of a node that a name stands for, such as
// the digest of a signed update, and its weight.
type Part struct {
	Node   int
	Name   [32]byte
	Weight uint64
}

// weigh returns the total weight of parts.
func weigh(parts []Part) (weight uint64) {
	for _, p := range parts {
		weight += p.Weight
	}
	return weight
}

// Chunk is a sum of contributions over a range of the vector.
type Chunk struct {
	Step Step
	Transfer
	Parts []Part  // what was added, in the order of places; not to be changed
	Sum   []int64 // in the units of [Shape]; not to be changed
}

// Scatter is one node of nested reduce-scatter. The node sends the chunks of a
// step when those of the step before have come (see [Scatter.Missing]), or when
// it does not wait any longer. What has not come by then is not in its sums,
// which say so, and [Scatter.Mean] installs nothing unless all ranges are sums
// of the same contributions. As those do not change, the nodes can start again
// with those that they all have.
type Scatter struct {
	plan       *Plan
	self       int
	next       Step // to be sent
	arrivals   []arrival
	part       Part
	own        []int64 // its vector
	begin, end int     // the own range
	parts      []Part  // of sum
	sum        []int64 // of the group, over the own range
	pieces     []piece // of the own range that this node adds up for all, in order
	total      []int64 // sums of all, where installed says so
	installed  []piece // without sums
}

// arrival is a chunk that is to come.
type arrival struct {
	step Step
	Transfer
	came bool
}

// piece is a sum over a range.
type piece struct {
	from, to int
	parts    []Part
	sum      []int64
}

// NewScatter returns the node at a place, with its contribution: the vector x
// that the name stands for counts weight times.
func NewScatter(plan *Plan, self int, name [32]byte, weight uint64, x []float64) (*Scatter, error) {
	if self < 0 || self >= plan.shape.Nodes {
		return nil, fmt.Errorf("%w: %d of %d", ErrNode, self, plan.shape.Nodes)
	}
	q, err := plan.shape.Contribution(weight, x)
	if err != nil {
		return nil, err
	}
	s := &Scatter{plan: plan, self: self, part: Part{self, name, weight}, own: q[1:], total: make([]int64, len(x))}
	s.parts = []Part{s.part}
	s.begin, s.end = plan.own(self)
	s.sum = slices.Clone(s.own[s.begin:s.end])
	for step := Reduce; step < Done; step++ {
		_, receives := plan.transfers(step, self)
		for _, t := range receives {
			s.arrivals = append(s.arrivals, arrival{step: step, Transfer: t})
		}
	}
	slices.SortFunc(s.arrivals, compare)
	plan.pieces(self, func(group, from, to int) {
		if group == plan.of(self) {
			s.pieces = append(s.pieces, piece{from: from, to: to, sum: make([]int64, to-from)})
		}
	})
	return s, nil
}

func compare(a, b arrival) int {
	return cmp.Or(cmp.Compare(a.step, b.step), cmp.Compare(a.Node, b.Node), cmp.Compare(a.From, b.From))
}

// Send begins the next step, and returns its chunks; none when all four are
// done. The last step fails with [ErrContributors] where the own range is not
// of the same contributions throughout, and any with [ErrBound] where the
// weights add up to more than was agreed: then the nodes must start again.
func (s *Scatter) Send() ([]Chunk, error) {
	if s.next == Done {
		return nil, nil
	}
	step := s.next
	s.next++
	switch step {
	case Return:
		if err := s.combine(); err != nil {
			return nil, err
		}
	case Gather:
		if _, err := s.agreed(s.begin, s.end); err != nil {
			return nil, err
		}
	}
	var chunks []Chunk
	for _, t := range s.plan.Transfers(step, s.self) {
		c := Chunk{Step: step, Transfer: t, Parts: s.parts}
		switch step {
		case Reduce:
			c.Parts, c.Sum = []Part{s.part}, s.own[t.From:t.To]
		case Combine:
			c.Sum = s.sum[t.From-s.begin : t.To-s.begin]
		case Return, Gather:
			i := slices.IndexFunc(s.installed, func(p piece) bool { return p.from <= t.From && t.From < p.to })
			c.Parts, c.Sum = s.installed[i].parts, s.total[t.From:t.To]
		}
		chunks = append(chunks, c)
	}
	return chunks, nil
}

// combine adds the own group's sums to those of the others that have come.
func (s *Scatter) combine() error {
	for _, p := range s.pieces {
		parts := merge(p.parts, s.parts)
		if weigh(parts) > s.plan.shape.Weight {
			return fmt.Errorf("%w: weight %d of at most %d", ErrBound, weigh(parts), s.plan.shape.Weight)
		}
		for k, q := range p.sum {
			s.total[p.from+k] = q + s.sum[p.from-s.begin+k]
		}
		s.installed = append(s.installed, piece{from: p.from, to: p.to, parts: parts})
	}
	return nil
}

// merge returns the parts of both, in the order of places.
func merge(a, b []Part) []Part {
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(a, b Part) int { return a.Node - b.Node })
	return all
}

// Receive takes a chunk of another node, and tells whether it was news. One that
// came before, or comes after its step, is not, and changes nothing; nor does
// one that is refused: with [ErrChunk] if the sender does not send it to this
// node or it is not what its parts say it is, or with [ErrBound].
func (s *Scatter) Receive(from int, c Chunk) (bool, error) {
	wanted := Transfer{from, c.From, c.To}
	i, ok := slices.BinarySearchFunc(s.arrivals, arrival{step: c.Step, Transfer: wanted}, compare)
	if !ok || s.arrivals[i].Transfer != wanted || c.Node != s.self || len(c.Sum) != c.To-c.From {
		return false, fmt.Errorf("%w: range %d to %d of node %d in step %d", ErrChunk, c.From, c.To, from, c.Step)
	}
	if s.arrivals[i].came || c.Step+1 < s.next {
		return false, nil
	}
	if err := s.check(from, c); err != nil {
		return false, fmt.Errorf("range %d to %d of node %d in step %d: %w", c.From, c.To, from, c.Step, err)
	}
	s.arrivals[i].came = true
	switch c.Step {
	case Reduce:
		s.parts = merge(s.parts, c.Parts)
		add(s.sum, c.Sum)
	case Combine:
		p := &s.pieces[slices.IndexFunc(s.pieces, func(p piece) bool { return p.from == c.From })]
		p.parts = merge(p.parts, c.Parts)
		add(p.sum, c.Sum)
	case Return, Gather:
		copy(s.total[c.From:c.To], c.Sum)
		s.installed = append(s.installed, piece{from: c.From, to: c.To, parts: c.Parts})
	}
	return true, nil
}

func add(sum, other []int64) {
	for k, q := range other {
		sum[k] += q
	}
}

// check refuses parts that cannot be what the chunk is a sum of, and sums that
// cannot be those of the parts.
func (s *Scatter) check(from int, c Chunk) error {
	first, size := 0, s.plan.shape.Nodes
	switch c.Step {
	case Reduce:
		first, size = from, 1
	case Combine:
		first, size = s.plan.group(s.plan.of(from))
	}
	if len(c.Parts) < 1 || len(c.Parts) > size {
		return fmt.Errorf("%w: it is of %d contributions", ErrChunk, len(c.Parts))
	}
	weight, last := uint64(0), first-1
	for _, p := range c.Parts {
		if p.Node <= last || p.Node >= first+size {
			return fmt.Errorf("%w: contribution of node %d", ErrChunk, p.Node)
		}
		last = p.Node
		if p.Weight < 1 || p.Weight > s.plan.shape.Weight-weight {
			return fmt.Errorf("%w: weight %d of node %d", ErrBound, p.Weight, p.Node)
		}
		weight += p.Weight
	}
	if c.Step == Reduce && weight > s.plan.shape.Weight-weigh(s.parts) {
		return fmt.Errorf("%w: weight %d", ErrBound, weight)
	}
	limit := int64(weight << s.plan.shape.Point())
	for k, q := range c.Sum {
		if q < -limit || q > limit {
			return fmt.Errorf("%w: parameter %d", ErrBound, c.From+k)
		}
	}
	return nil
}

// Missing returns the nodes whose chunks of the step sent last have not come, in
// the order of their places.
func (s *Scatter) Missing() []int {
	var missing []int
	for _, a := range s.arrivals {
		if a.step == s.next-1 && !a.came && !slices.Contains(missing, a.Node) {
			missing = append(missing, a.Node)
		}
	}
	return missing
}

// Mean returns the mean and the contributions that it is of, in the order of
// places, when all of it is there; else [ErrContributors].
func (s *Scatter) Mean() ([]float64, []Part, error) {
	parts, err := s.agreed(0, len(s.total))
	if err != nil {
		return nil, nil, err
	}
	weight := int64(weigh(parts) << s.plan.shape.Point())
	return s.plan.shape.Divide(s.total, weight), slices.Clone(parts), nil
}

// agreed returns the contributions that every sum of a range is of.
func (s *Scatter) agreed(from, to int) ([]Part, error) {
	var parts []Part
	have := 0
	for _, p := range s.installed {
		if p.from < from || p.to > to {
			continue
		}
		if have > 0 && !slices.Equal(p.parts, parts) {
			return nil, fmt.Errorf("%w: parameters %d to %d", ErrContributors, p.from, p.to-1)
		}
		have, parts = have+p.to-p.from, p.parts
	}
	if have < to-from {
		return nil, fmt.Errorf("%w: %d of %d parameters have not come", ErrContributors, to-from-have, to-from)
	}
	return parts, nil
}
