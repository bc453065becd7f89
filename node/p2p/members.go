package p2p

import (
	"crypto/ed25519"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"village/protocol/record"
)

// nodeID is false for peers whose key is not Ed25519: they are no nodes.
func nodeID(p peer.ID) (record.NodeID, bool) {
	key, err := p.ExtractPublicKey()
	if err != nil || key.Type() != crypto.Ed25519 {
		return record.NodeID{}, false
	}
	raw, err := key.Raw()
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return record.NodeID{}, false
	}
	return record.NodeID(raw), true
}

// peerID turns a node's ID into libp2p's.
func peerID(id record.NodeID) (peer.ID, error) { return peer.Decode(id.String()) }

// members is the list that closes a federation.
type members struct {
	self    record.NodeID
	list    atomic.Pointer[map[record.NodeID]bool] // empty: everybody
	refused *atomic.Uint64
}

func newMembers(self record.NodeID, ids []record.NodeID, refused *atomic.Uint64) *members {
	m := &members{self: self, refused: refused}
	m.set(ids)
	return m
}

func (m *members) set(ids []record.NodeID) {
	list := make(map[record.NodeID]bool, len(ids)+1)
	for _, id := range ids {
		list[id] = true
	}
	if len(list) > 0 {
		list[m.self] = true
	}
	m.list.Store(&list)
}

func (m *members) has(id record.NodeID) bool {
	list := *m.list.Load()
	return len(list) == 0 || list[id]
}

func (m *members) hasPeer(p peer.ID) bool {
	id, ok := nodeID(p)
	return ok && m.has(id)
}

// gater holds out those who are no members, and lets the node dial none but
// the peers that it keeps. Pubsub and Bitswap would dial whomever they want a
// stream to, and so bring back a connection that was closed on purpose.
type gater struct {
	members *members
	keepers *keepers
}

var _ connmgr.ConnectionGater = gater{}

func (g gater) InterceptPeerDial(p peer.ID) bool {
	return g.members.hasPeer(p) && g.keepers.has(p)
}

func (gater) InterceptAddrDial(peer.ID, multiaddr.Multiaddr) bool             { return true }
func (gater) InterceptAccept(network.ConnMultiaddrs) bool                     { return true }
func (gater) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

// InterceptSecured is the first moment at which the other's key is proven.
func (g gater) InterceptSecured(_ network.Direction, p peer.ID, _ network.ConnMultiaddrs) bool {
	if g.members.hasPeer(p) {
		return true
	}
	g.members.refused.Add(1)
	return false
}

// SetMembers replaces the member list and hangs up on those no longer on it.
// Empty opens the federation. The node itself is always a member.
func (n *Network) SetMembers(ids []record.NodeID) {
	n.members.set(ids)
	n.protect(ids)
	for _, p := range n.host.Network().Peers() {
		if !n.members.hasPeer(p) {
			n.hangUp(p)
		}
	}
	n.keepers.retry()
}

// protect keeps the connection manager from trimming members.
func (n *Network) protect(ids []record.NodeID) {
	for _, id := range ids {
		if p, err := peerID(id); err == nil {
			n.host.ConnManager().Protect(p, "member")
		}
	}
}

func (n *Network) hangUp(p peer.ID) {
	n.host.ConnManager().Unprotect(p, "member")
	if err := n.host.Network().ClosePeer(p); err != nil {
		n.log.Debug("closing a connection", "peer", p, "error", err)
	}
}

// connected closes what slipped in between the gate's check and a change of
// the list, or a peer's being forgotten: libp2p may finish a dial whose context
// has ended. It calls this under a lock of the connection, so closing is
// another goroutine's work.
func (n *Network) connected(_ network.Network, c network.Conn) {
	switch p := c.RemotePeer(); {
	case !n.members.hasPeer(p):
		n.spawn(func() { n.hangUp(p) })
	case c.Stat().Direction == network.DirOutbound && !n.keepers.has(p):
		n.spawn(func() { c.Close() })
	}
}

func (n *Network) disconnected(_ network.Network, c network.Conn) { n.keepers.gone(c.RemotePeer()) }
