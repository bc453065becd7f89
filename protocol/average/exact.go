package average

import (
	"slices"

	"village/protocol/mixing"
)

// Exact takes a node of push-sum through the rounds of a graph. With base:K
// (the Base-(k+1) graph of Takezawa et al. 2023) every node has the mean after
// one period, if all messages of a round have come before the next one starts.
// Where one is lost and the node goes on without it, a later total makes good
// for it, and the rounds, which come again and again, tend to the mean as
// push-sum does.
//
// A state that is saved is that of the PushSum; a node restored from it goes on
// with the round after its last one. Messages for rounds that it had not begun
// are lost with it.
type Exact struct {
	node  *PushSum
	graph *mixing.Graph
	early []early
	edges []mixing.Edge
}

// early is a message of a round that this node has not begun.
type early struct {
	from int
	Message
}

// NewExact returns the machine that takes a node through the rounds of a graph
// of as many nodes as the node's shape has. The node must not be told to send or
// receive by anyone else.
func NewExact(node *PushSum, graph *mixing.Graph) *Exact { return &Exact{node: node, graph: graph} }

// Round is the one that the node has sent its messages of, 0 before the first.
func (e *Exact) Round() uint64 { return e.node.number }

// Shares appends to buf what a node gives away in a round of a graph: to each
// neighbour the share that the neighbour gives to the node's vector. The shares
// that a node receives then add up as the rows of the graph's matrix do.
func Shares(edges []mixing.Edge, buf []Share) []Share {
	for _, edge := range edges {
		buf = append(buf, Share{edge.Node, edge.Back})
	}
	return buf
}

// Send begins the next round. It returns the messages and whom they are for.
func (e *Exact) Send() ([]Share, []Message, error) {
	e.edges = e.graph.Edges(e.Round()+1, e.node.self, e.edges[:0])
	shares := Shares(e.edges, nil)
	messages, err := e.node.Send(shares)
	if err != nil {
		return nil, nil, err
	}
	// One that is refused now is as good as lost.
	e.early = slices.DeleteFunc(e.early, func(m early) bool {
		if m.Number > e.Round() {
			return false
		}
		e.node.Receive(m.from, m.Message)
		return true
	})
	return shares, messages, nil
}

// Receive takes a message as [PushSum.Receive] does, but keeps one of a round
// that has not begun here until it does. Of each node it keeps the newest.
func (e *Exact) Receive(from int, m Message) (bool, error) {
	if m.Number <= e.Round() {
		return e.node.Receive(from, m)
	}
	if news, err := e.node.check(from, m); !news {
		return false, err
	}
	i := slices.IndexFunc(e.early, func(held early) bool { return held.from == from })
	switch {
	case i < 0:
		e.early = append(e.early, early{from, m})
	case m.Number > e.early[i].Number:
		e.early[i].Message = m
	default:
		return false, nil
	}
	return true, nil
}

// Missing returns the nodes whose messages of this round have not come, in the
// order of their places. When there are none, the next round may begin; a node
// that does not come any more need not be waited for.
func (e *Exact) Missing() []int {
	var missing []int
	for _, edge := range e.edges {
		if _, seen := e.node.last(edge.Node); seen < e.Round() {
			missing = append(missing, edge.Node)
		}
	}
	return missing
}
