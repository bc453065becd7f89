package node

import (
	"slices"
	"testing"

	"village/node/p2p"
)

// TestNoNodeIsNeededByTheOthers: three nodes know one address, that of a fourth.
// They find each other through it, and it may vanish: also one that is restarted
// then finds the others, by what it has stored.
func TestNoNodeIsNeededByTheOthers(t *testing.T) {
	hub := start(t, newHome(t, "hub"))
	homes := []string{"a", "b", "c"}
	var nodes []*Node
	last := newHome(t, homes[2])
	for _, name := range homes[:2] {
		nodes = append(nodes, start(t, newHome(t, name)))
	}
	nodes = append(nodes, start(t, last))
	for _, n := range nodes {
		connect(t, n, hub)
	}
	knows := func(n, other *Node) bool {
		return slices.ContainsFunc(n.network.Peers(), func(p p2p.PeerInfo) bool { return p.Connected && p.ID == other.network.ID() })
	}
	mesh := func() bool {
		for _, n := range nodes {
			for _, other := range nodes {
				if n != other && !knows(n, other) {
					return false
				}
			}
		}
		return true
	}
	eventually(t, "each is connected to each", mesh)
	stop(t, hub)
	stop(t, nodes[2])
	nodes[2] = start(t, last)
	eventually(t, "each is connected to each again", mesh)
	names := nodes[2].Datasets.Names()
	if len(names) != 4 || names[hub.network.ID()].Name != "hub" {
		t.Errorf("known are %v", names)
	}
	// One that the operator has hung up on is not found again.
	nodes[0].network.Forget(nodes[1].network.ID())
	nodes[1].network.Forget(nodes[0].network.ID())
	eventually(t, "two have parted", func() bool { return !knows(nodes[0], nodes[1]) })
	nodes[0].network.Find(nodes[1].network.Addrs()...)
	if knows(nodes[0], nodes[1]) {
		t.Error("a forgotten node was found again")
	}
	for _, n := range nodes {
		stop(t, n)
	}
}
