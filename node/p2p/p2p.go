// Package p2p carries records between nodes: a libp2p host, gossip for speed,
// pull for certainty.
//
// Three ways lead to the same check (size, form, federation, signature,
// author's membership, then the caller's [Receive]): gossip on one topic, a
// push over a stream that is answered, and a pull in which a node compares what
// it holds with a peer and fetches what it lacks. Gossip may lose anything;
// pull brings it back.
package p2p

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"

	"village/node/seats"
	"village/protocol/record"
)

// Config says who a node is and whom it talks to.
type Config struct {
	Key        ed25519.PrivateKey
	Federation string          // names topic, protocols and mDNS tag: federations on one network never mix
	Listen     []string        // multiaddrs; QUIC is added on the port of each TCP one unless a QUIC one is given
	Announce   []string        // multiaddrs to advertise; empty: those listened on
	Peers      []string        // multiaddrs ending in /p2p/<peer-id> to keep connected to
	MDNS       bool            // look for nodes of the federation on the local network
	Members    []record.NodeID // the only nodes to talk to and to hear from; empty: an open federation
	Logger     *slog.Logger    // nil: silent
	Host       []libp2p.Option // of the host, beside its own: such as another network under it
}

// Catalogue is what the node holds. Its methods may be called at the same time.
type Catalogue interface {
	// Groups returns for every group a digest that is equal on two nodes
	// exactly when they hold the same records of it.
	Groups() map[string][32]byte
	// Group returns what is held of a group, in any order.
	Group(group string) []record.CID
	// Record returns a record with its bytes.
	Record(c record.CID) (record.Record, error)
	Has(c record.CID) bool
}

// Verdict is what a node makes of a record.
type Verdict int

const (
	// Accept: new, durably stored, to be passed on.
	Accept Verdict = iota
	// Ignore: known, older than what is held, or not to be judged yet.
	Ignore
	// Reject: what every honest node must refuse, so that its bearer is blamed.
	Reject
)

// Receive judges and keeps a record that a peer sent, after its size, form,
// federation, signature and author's membership were checked. It may block for
// a durable write and returns early when ctx ends. It is called by several
// goroutines at the same time, and never after [Network.Close] has returned.
type Receive func(ctx context.Context, from record.NodeID, r record.Record) Verdict

// PeerInfo is a node that this one is connected to, or wants to be.
type PeerInfo struct {
	ID        record.NodeID
	Addrs     []string // multiaddrs without the peer ID
	Connected bool
}

// Stats counts since the start. Bytes are those of all streams.
type Stats struct {
	BytesSent     uint64
	BytesReceived uint64
	Dropped       uint64 // messages lost to full queues and rate limits; pull fetches them again
	Refused       uint64 // records and requests that break a rule, and connections of strangers
}

// Network is a running node on the network.
type Network struct {
	id      record.NodeID
	host    host.Host
	topic   *pubsub.Topic
	cat     Catalogue
	receive Receive
	log     *slog.Logger
	names   names

	members  *members
	accounts *accounts
	ignored  *ignored
	pulls    *pulls
	seats    *seats.Seats // of those whom pulls are served
	keepers  *keepers
	mdns     interface{ Close() error }

	traffic traffic
	dropped atomic.Uint64
	refused atomic.Uint64

	asked   chan struct{}
	askOnce sync.Once // closes asked

	ctx    context.Context
	cancel context.CancelFunc
	work   gate
}

// names are what a federation is called on the wire. Its own name may hold any
// character and need not be known to strangers, so all are made of its hash.
type names struct {
	federation string
	topic      string
	pull, push protocol.ID
	mdns       string
}

func namesOf(federation string) names {
	sum := sha256.Sum256([]byte("village federation\x00" + federation))
	h := hex.EncodeToString(sum[:16])
	return names{
		federation: federation,
		topic:      "village/" + h + "/records",
		pull:       protocol.ID("/village/" + h + "/pull/1"),
		push:       protocol.ID("/village/" + h + "/push/1"),
		mdns:       "_v-" + h[:13] + "._udp", // a DNS-SD service name has at most 15 characters (RFC 6763)
	}
}

// New starts a node: when it returns, the node listens, has joined the topic,
// serves its protocols and is looking for its peers.
func New(cfg Config, cat Catalogue, receive Receive) (*Network, error) {
	if cfg.Federation == "" {
		return nil, errors.New("no federation is named: set one with 'village init --federation NAME'")
	}
	if len(cfg.Key) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("the node's key has %d bytes, not %d", len(cfg.Key), ed25519.PrivateKeySize)
	}
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	n := &Network{
		id: record.NodeIDOf(cfg.Key.Public().(ed25519.PublicKey)), names: namesOf(cfg.Federation),
		cat: cat, receive: receive, log: log,
		accounts: newAccounts(), ignored: newIgnored(), pulls: newPulls(), keepers: newKeepers(), asked: make(chan struct{}),
	}
	n.seats = seats.New(pullSeats, pullSeatsEach, n.Favours)
	n.members = newMembers(n.id, cfg.Members, &n.refused)
	n.ctx, n.cancel = context.WithCancel(context.Background())
	if err := n.start(cfg); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

func (n *Network) start(cfg Config) error {
	peers := make([]peer.AddrInfo, len(cfg.Peers))
	for i, s := range cfg.Peers {
		var err error
		if peers[i], err = parsePeer(s); err != nil {
			return err
		}
	}
	h, err := newHost(cfg, n.names, gater{n.members, n.keepers}, &n.traffic)
	if err != nil {
		return err
	}
	n.host = h
	h.Network().Notify(&network.NotifyBundle{ConnectedF: n.connected, DisconnectedF: n.disconnected})
	n.protect(cfg.Members)
	if err := n.joinTopic(); err != nil {
		return err
	}
	h.SetStreamHandler(n.names.pull, n.servePull)
	h.SetStreamHandler(n.names.push, n.servePush)
	// Only now, so that nobody finds a node that does not serve yet.
	if err := n.listen(cfg.Listen); err != nil {
		return err
	}
	n.spawn(n.schedulePulls)
	for range pullWorkers {
		n.spawn(n.pullWorker)
	}
	for _, info := range peers {
		n.keep(info, true)
	}
	if cfg.MDNS {
		n.startMDNS()
	}
	return nil
}

// Close leaves the network. Neither the catalogue nor receive is in use when it
// returns.
func (n *Network) Close() error {
	n.cancel()
	var err error
	if n.mdns != nil {
		err = n.mdns.Close()
	}
	if n.host != nil {
		err = errors.Join(err, n.host.Close())
	}
	n.work.close()
	return err
}

// ID returns the node's own ID.
func (n *Network) ID() record.NodeID { return n.id }

// Host returns the libp2p host, for protocols beside those of this package. It
// closes with the network.
func (n *Network) Host() host.Host { return n.host }

// Admits says whether a peer may talk to this node: whether it is a node, and a
// member where the federation is closed.
func (n *Network) Admits(p peer.ID) bool { return n.members.hasPeer(p) }

// Favours says whether a peer is a member of a closed federation, or configured.
func (n *Network) Favours(p peer.ID) bool {
	conns := n.host.ConnManager()
	return conns.IsProtected(p, "member") || conns.IsProtected(p, "configured")
}

// Stats returns the counters.
func (n *Network) Stats() Stats {
	return Stats{
		BytesSent: uint64(n.traffic.sent.Load()), BytesReceived: uint64(n.traffic.received.Load()),
		Dropped: n.dropped.Load(), Refused: n.refused.Load(),
	}
}

// Addrs returns the addresses that peers can dial, each ending in /p2p/ and the
// node's ID: TCP before QUIC, those that other machines reach before loopback.
func (n *Network) Addrs() []string {
	addrs := slices.Clone(n.host.Addrs())
	slices.SortStableFunc(addrs, func(a, b multiaddr.Multiaddr) int { return addrRank(a) - addrRank(b) })
	suffix := "/p2p/" + n.id.String()
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = a.String() + suffix
	}
	return out
}

// Peers returns the nodes that are connected or kept, ordered by ID.
func (n *Network) Peers() []PeerInfo {
	addrs := n.keepers.list()
	for _, c := range n.host.Network().Conns() {
		p := c.RemotePeer()
		if c.Stat().Direction == network.DirOutbound {
			addrs[p] = append(addrs[p], c.RemoteMultiaddr())
		} else { // nobody can dial the port that it called from
			addrs[p] = append(addrs[p], n.host.Peerstore().Addrs(p)...)
		}
	}
	out := make([]PeerInfo, 0, len(addrs))
	for p, as := range addrs {
		id, ok := nodeID(p)
		if !ok {
			continue
		}
		info := PeerInfo{ID: id, Connected: n.isConnected(p)}
		for _, a := range as {
			if s := a.String(); !slices.Contains(info.Addrs, s) {
				info.Addrs = append(info.Addrs, s)
			}
		}
		out = append(out, info)
	}
	slices.SortFunc(out, func(a, b PeerInfo) int { return a.ID.Compare(b.ID) })
	return out
}

func (n *Network) isConnected(p peer.ID) bool {
	return n.host.Network().Connectedness(p) == network.Connected
}

// spawn runs f until the node closes. f returns soon after n.ctx ends.
func (n *Network) spawn(f func()) {
	if n.work.enter() {
		go func() {
			defer n.work.leave()
			f()
		}()
	}
}

// gate counts work in progress and closes to new work.
type gate struct {
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.wg.Add(1)
	return true
}

func (g *gate) leave() { g.wg.Done() }

func (g *gate) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.wg.Wait()
}
