// Package pushsum takes the weighted mean of vectors over any graph, with no more
// than that messages come through now and then, in any order, any number of
// times.
//
// A node that is gone for good takes along the share of the mean that it held.
// How much of whose contribution that is depends on when it went, so the mean
// that the others come to is then not that of any set of contributions: they
// must agree on who is left, and start again from their contributions.
package pushsum

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"village/protocol/average"
	"village/protocol/mixing"
)

// Errors of this package, beside those of package average. What comes from
// others is refused with them, and changes nothing.
var (
	ErrLedger = errors.New("what was held, sent and received does not add up to the own contribution")
	ErrState  = errors.New("saved state cannot be read")
)

// MaxLength is the length of the longest vector for push-sum, 1 MiB of
// parameters: a node keeps two vectors for each node that it deals with.
const MaxLength = 1 << 17

// Node is one node of push-sum (Kempe, Dobra and Gehrke 2003, protocol
// Push-Vector): a node holds a share of the weighted sum of all vectors and the
// same share of the total weight, and gives parts of both away; sum over weight
// tends to the mean everywhere. It sends running totals (Hadjicostis, Vaidya and
// Domínguez-García 2016, robust ratio consensus): a message says everything
// ever given to its receiver, who adds what is new since the last message that
// came. So a later message makes good for each that was lost, and those that
// come twice or late say nothing new.
//
// Totals grow without end and wrap around; only their differences count, and
// those are shares of contributions. At any time, as an equality of integers,
//
//	held + all that was given - all that was received = own contribution.
//
// A node that is to survive its end must make [Node.Append] durable before a
// message of [Node.Send] leaves: what it had received since is lost with it,
// and comes again with the next totals.
type Node struct {
	shape  average.Shape
	self   int
	number uint64  // of the last Send
	own    []int64 // contribution: weight, then sums
	held   []int64
	links  []link // in the order of places
}

// link is what a node knows of another one.
type link struct {
	node     int
	given    []int64 // everything ever given to it, modulo 2^64
	received []int64 // its last total
	seen     uint64  // number of the message with that total
}

// Message is what one node tells another one.
type Message struct {
	Number uint64  // of the sender's call of Send, from 1 on
	Total  []int64 // everything ever given to the receiver: weight, then sums; not to be changed
}

// Share is the fraction of what a node holds that it gives to another one. A
// fraction of 0 repeats the total, for a receiver that may have missed it.
type Share struct {
	Node     int
	Fraction float64
}

// Shares appends to buf what a node gives away in a round of a graph: to each
// neighbour the share that the neighbour gives to the node's vector. The shares
// that a node receives then add up as the rows of the graph's matrix do.
func Shares(edges []mixing.Edge, buf []Share) []Share {
	for _, edge := range edges {
		buf = append(buf, Share{edge.Node, edge.Back})
	}
	return buf
}

// New returns the node at a place, with its contribution: vector x counts
// weight times.
func New(shape average.Shape, self int, weight uint64, x []float64) (*Node, error) {
	p, err := empty(shape, self)
	if err != nil {
		return nil, err
	}
	if p.own, err = shape.Contribution(weight, x); err != nil {
		return nil, err
	}
	p.held = slices.Clone(p.own)
	return p, nil
}

func empty(shape average.Shape, self int) (*Node, error) {
	if err := shape.Check(); err != nil {
		return nil, err
	}
	if shape.Length > MaxLength {
		return nil, fmt.Errorf("push-sum is for at most %d parameters, not %d; divide longer vectors", MaxLength, shape.Length)
	}
	if self < 0 || self >= shape.Nodes {
		return nil, fmt.Errorf("%w: %d of %d", average.ErrNode, self, shape.Nodes)
	}
	return &Node{shape: shape, self: self}, nil
}

// Send gives shares away and returns the messages that tell their receivers, in
// the order of the shares, which is that of places. The fractions add up to less
// than 1, and what cannot be divided stays here.
func (p *Node) Send(shares []Share) ([]Message, error) {
	// Shares go one after the other, each as a part of what the ones before have
	// left. Rounded like this, no division takes a sum beyond its weight.
	parts, left := make([]uint64, len(shares)), 1.0
	for i, s := range shares {
		if err := p.other(s.Node); err != nil {
			return nil, err
		}
		if i > 0 && s.Node <= shares[i-1].Node {
			return nil, fmt.Errorf("shares are not in the order of places: %d after %d", s.Node, shares[i-1].Node)
		}
		if !(s.Fraction >= 0 && s.Fraction < left) {
			return nil, fmt.Errorf("a share of %g for node %d leaves nothing: fractions from 0 on add up to less than 1", s.Fraction, s.Node)
		}
		parts[i] = uint64(math.Ldexp(s.Fraction/left, 64))
		left -= s.Fraction
	}
	p.number++
	messages := make([]Message, len(shares))
	for i, s := range shares {
		l := p.link(s.Node)
		for k, a := range p.held {
			sign := a >> 63
			q, _ := bits.Mul64(uint64(a^sign-sign), parts[i]) // |a| times the part, rounded down
			give := int64(q) ^ sign - sign
			p.held[k] -= give
			l.given[k] += give
		}
		messages[i] = Message{p.number, slices.Clone(l.given)}
	}
	return messages, nil
}

// Receive takes a message of another node, and tells whether it was news. One
// that came before, or before a later one, is not, and changes nothing. Nor does
// one that is refused: with [average.ErrLength], or with [average.ErrBound] if
// what it adds has a negative weight, more than all nodes can have, or a mean
// beyond the bounds.
func (p *Node) Receive(from int, m Message) (bool, error) {
	if news, err := p.check(from, m); !news {
		return false, err
	}
	l := p.link(from)
	for k, t := range m.Total {
		p.held[k] += t - l.received[k]
	}
	copy(l.received, m.Total)
	l.seen = m.Number
	return true, nil
}

// check tells whether a message is news, and refuses one that cannot be.
func (p *Node) check(from int, m Message) (bool, error) {
	if err := p.other(from); err != nil {
		return false, err
	}
	if len(m.Total) != len(p.held) {
		return false, fmt.Errorf("%w: %d numbers of node %d, not %d", average.ErrLength, len(m.Total), from, len(p.held))
	}
	before, seen := p.last(from)
	if m.Number <= seen {
		return false, nil
	}
	weight := m.Total[0] - before[0]
	if weight < 0 || weight > p.shape.Limit()-p.held[0] {
		return false, fmt.Errorf("%w: weight %g of node %d", average.ErrBound, p.weight(weight), from)
	}
	for k, t := range m.Total {
		if d := t - before[k]; d < -weight || d > weight {
			return false, fmt.Errorf("%w: parameter %d of node %d", average.ErrBound, k-1, from)
		}
	}
	return true, nil
}

// Estimate returns the mean as this node knows it, and the weight that it holds
// now, in the unit of contributions. Alone for long, a node has given nearly all
// away, and its estimate is coarse until it receives something.
func (p *Node) Estimate() (mean []float64, weight float64) {
	return p.shape.Divide(p.held[1:], p.held[0]), p.weight(p.held[0])
}

func (p *Node) weight(q int64) float64 { return math.Ldexp(float64(q), -p.shape.Point()) }

// Ledger returns [ErrLedger] if anything was lost or made.
func (p *Node) Ledger() error {
	for k, sum := range p.held {
		for _, l := range p.links {
			sum += l.given[k] - l.received[k]
		}
		if sum != p.own[k] {
			return fmt.Errorf("%w: number %d of node %d is off by %d", ErrLedger, k, p.self, sum-p.own[k])
		}
	}
	return nil
}

// other refuses what is not the place of another node.
func (p *Node) other(node int) error {
	if node < 0 || node >= p.shape.Nodes || node == p.self {
		return fmt.Errorf("%w: %d is not one of %d nodes other than %d", average.ErrNode, node, p.shape.Nodes, p.self)
	}
	return nil
}

func (p *Node) find(node int) (int, bool) {
	return slices.BinarySearchFunc(p.links, node, func(l link, node int) int { return l.node - node })
}

// link returns what is known of a node, which may be nothing yet.
func (p *Node) link(node int) *link {
	i, ok := p.find(node)
	if !ok {
		n := len(p.own)
		both := make([]int64, 2*n)
		p.links = slices.Insert(p.links, i, link{node: node, given: both[:n:n], received: both[n:]})
	}
	return &p.links[i]
}

// last returns the newest total of a node, and its number.
func (p *Node) last(node int) ([]int64, uint64) {
	if i, ok := p.find(node); ok {
		return p.links[i].received, p.links[i].seen
	}
	return make([]int64, len(p.own)), 0
}

// magic starts a saved state.
const magic = "pushsum1"

// header appends what a saved state of this shape and place starts with.
func (p *Node) header(b []byte) []byte {
	b = append(b, magic...)
	for _, v := range []uint64{
		uint64(p.shape.Nodes), uint64(p.shape.Length), p.shape.Weight, math.Float64bits(p.shape.Bound), uint64(p.self),
	} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

// Append appends the saved state to b: the word "pushsum1", and then 64-bit
// little-endian numbers: the shape (nodes, length, weight, bits of the bound),
// the own place, the number of the last Send, the contribution, what is held,
// and, of each node dealt with, in the order of places, the place, the number of
// its last message, what was given to it and what was received. Equal states
// have equal bytes.
func (p *Node) Append(b []byte) []byte {
	b = slices.Grow(b, 6*8+16*len(p.links)+8*len(p.own)*(2+2*len(p.links)))
	b = p.header(b)
	b = binary.LittleEndian.AppendUint64(b, p.number)
	b = appendAll(appendAll(b, p.own), p.held)
	for _, l := range p.links {
		b = binary.LittleEndian.AppendUint64(b, uint64(l.node))
		b = binary.LittleEndian.AppendUint64(b, l.seen)
		b = appendAll(appendAll(b, l.given), l.received)
	}
	return b
}

func appendAll(b []byte, v []int64) []byte {
	for _, x := range v {
		b = binary.LittleEndian.AppendUint64(b, uint64(x))
	}
	return b
}

// Restore returns the node whose state was saved. It refuses, with
// [ErrState], what [Node.Append] would not have written for this shape and
// place, and what no node can have come to: the ledger must be right.
func Restore(shape average.Shape, self int, saved []byte) (*Node, error) {
	p, err := empty(shape, self)
	if err != nil {
		return nil, err
	}
	header := p.header(nil)
	size := 1 + shape.Length // of a vector with its weight
	fixed, each := len(header)+8+16*size, 16+16*size
	switch {
	case len(saved) < fixed || string(saved[:len(header)]) != string(header):
		return nil, fmt.Errorf("%w: it is not one of node %d of this averaging", ErrState, self)
	case (len(saved)-fixed)%each != 0 || (len(saved)-fixed)/each > shape.Nodes-1:
		return nil, fmt.Errorf("%w: %d bytes are not those of a number of nodes", ErrState, len(saved))
	}
	next := func() uint64 {
		v := binary.LittleEndian.Uint64(saved)
		saved = saved[8:]
		return v
	}
	vector := func() []int64 {
		v := make([]int64, size)
		for k := range v {
			v[k] = int64(next())
		}
		return v
	}
	saved = saved[len(header):]
	p.number = next()
	p.own, p.held = vector(), vector()
	for _, v := range [][]int64{p.own, p.held} {
		if v[0] < 1 || v[0] > shape.Limit() || slices.ContainsFunc(v, func(x int64) bool { return x < -v[0] || x > v[0] }) {
			return nil, fmt.Errorf("%w: %w", ErrState, average.ErrBound)
		}
	}
	if p.own[0]&(1<<shape.Point()-1) != 0 {
		return nil, fmt.Errorf("%w: the own weight is not a whole number", ErrState)
	}
	p.links = make([]link, len(saved)/each)
	after := -1
	for i := range p.links {
		node := next()
		if node >= uint64(shape.Nodes) || int(node) == self || int(node) <= after {
			return nil, fmt.Errorf("%w: node %d after %d", ErrState, node, after)
		}
		after = int(node)
		p.links[i] = link{node: after, seen: next(), given: vector(), received: vector()}
	}
	if err := p.Ledger(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	return p, nil
}
