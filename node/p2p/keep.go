package p2p

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"

	"village/protocol/record"
)

const (
	redialMin, redialMax = time.Second, time.Minute
	// A connection that lasted so long was a good one, and the next attempt
	// after it is soon.
	redialSteady = 10 * time.Second
	// Peers that were found and not configured are given up after so many
	// failures, and at most so many are kept.
	foundFailures, maxFound = 8, 64
	// A peer that has been dialled may take so long to answer the first pull,
	// and is asked so often.
	greetTime, greetPause = 5 * time.Second, 100 * time.Millisecond
)

// Errors that [Network.Connect] wraps.
var (
	// ErrUnreachable: nobody answers. The node goes on trying.
	ErrUnreachable = errors.New("no answer")
	// ErrShut: the peer hangs up, as the nodes of a closed federation do on
	// those that they do not list. The node goes on trying.
	ErrShut = errors.New("it hangs up")
	// ErrForeign: somebody answers who is no node of this federation.
	ErrForeign = errors.New("it is not a node of this federation")
)

// keepers are the peers that the node redials for as long as it runs. It dials
// nobody else (see [gater]).
type keepers struct {
	mu    sync.Mutex
	peers map[peer.ID]*keeper
	found int // of these, not configured
	// forgotten are peers that the operator does not want to be found again.
	forgotten map[peer.ID]bool
}

type keeper struct {
	id         peer.ID
	addrs      []multiaddr.Multiaddr // under keepers.mu
	configured bool                  // under keepers.mu
	lost       chan struct{}         // the connection ended
	now        chan struct{}         // do not wait any longer
	ctx        context.Context       // ends when nobody wants it any more
	cancel     context.CancelFunc
}

func newKeepers() *keepers {
	return &keepers{peers: make(map[peer.ID]*keeper), forgotten: make(map[peer.ID]bool)}
}

// add returns the keeper of a peer, nil where there are too many, and whether it
// is new, so that the caller must start it.
func (k *keepers) add(ctx context.Context, info peer.AddrInfo, configured bool) (t *keeper, fresh bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if configured {
		delete(k.forgotten, info.ID)
	} else if k.forgotten[info.ID] {
		return nil, false
	}
	if t := k.peers[info.ID]; t != nil {
		if configured {
			for _, a := range info.Addrs {
				if !slices.ContainsFunc(t.addrs, a.Equal) {
					t.addrs = append(slices.Clip(t.addrs), a)
				}
			}
			if !t.configured {
				k.found--
			}
			t.configured = true
			signal(t.now)
		} else if !t.configured {
			t.addrs = info.Addrs
		}
		return t, false
	}
	if !configured {
		if k.found >= maxFound {
			return nil, false
		}
		k.found++
	}
	t = &keeper{
		id: info.ID, addrs: info.Addrs, configured: configured,
		lost: make(chan struct{}, 1), now: make(chan struct{}, 1),
	}
	t.ctx, t.cancel = context.WithCancel(ctx)
	k.peers[info.ID] = t
	return t, true
}

func (k *keepers) has(p peer.ID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.peers[p] != nil
}

// remove tells whether there was a keeper to stop. For good is until the peer is
// configured again.
func (k *keepers) remove(p peer.ID, forGood bool) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if forGood {
		k.forgotten[p] = true
	}
	t := k.peers[p]
	if t != nil {
		k.drop(t)
	}
	return t != nil
}

func (k *keepers) drop(t *keeper) {
	delete(k.peers, t.id)
	if !t.configured {
		k.found--
	}
	t.cancel()
}

// giveUp forgets a peer that was only found.
func (k *keepers) giveUp(t *keeper) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if t.configured || k.peers[t.id] != t {
		return false
	}
	k.drop(t)
	return true
}

func (k *keepers) addrsOf(t *keeper) []multiaddr.Multiaddr {
	k.mu.Lock()
	defer k.mu.Unlock()
	return t.addrs
}

// list returns the configured peers.
func (k *keepers) list() map[peer.ID][]multiaddr.Multiaddr {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make(map[peer.ID][]multiaddr.Multiaddr)
	for id, t := range k.peers {
		if t.configured {
			out[id] = slices.Clone(t.addrs)
		}
	}
	return out
}

func (k *keepers) gone(p peer.ID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if t := k.peers[p]; t != nil {
		signal(t.lost)
	}
}

// retry ends the waiting of all.
func (k *keepers) retry() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, t := range k.peers {
		signal(t.now)
	}
}

func parsePeer(s string) (peer.AddrInfo, error) {
	info, err := peer.AddrInfoFromString(s)
	if err != nil || len(info.Addrs) == 0 {
		return peer.AddrInfo{}, fmt.Errorf("%q is not a peer's address: it looks like /ip4/203.0.113.7/tcp/4811/p2p/12D3KooW..., as that peer's 'village id' prints it", s)
	}
	if _, ok := nodeID(info.ID); !ok {
		return peer.AddrInfo{}, fmt.Errorf("%q is not a node: its peer ID is not that of an Ed25519 key", s)
	}
	return *info, nil
}

// Connect connects to a peer, given as a multiaddr that ends in /p2p/ and its
// ID, and returns when that has answered a pull. It keeps connected from then
// on, also where it says that the first attempt failed (see [ErrUnreachable]
// and [ErrShut]).
func (n *Network) Connect(ctx context.Context, addr string) error {
	info, err := parsePeer(addr)
	if err != nil {
		return err
	}
	if info.ID == n.host.ID() {
		return fmt.Errorf("%q is this node itself", addr)
	}
	if !n.members.hasPeer(info.ID) {
		return fmt.Errorf("%s is not a member of this federation: add it with 'village member add %s'", info.ID, info.ID)
	}
	if !n.work.enter() {
		return errors.New("the node is stopping")
	}
	defer n.work.leave()
	t, fresh := n.keeper(info, true)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)() // forgotten, or the node is stopping
	if err = n.dial(ctx, info); err != nil {
		err = fmt.Errorf("%w: %w", ErrUnreachable, err)
	} else {
		err = n.greet(ctx, info.ID)
	}
	switch {
	case t.ctx.Err() != nil && n.ctx.Err() == nil:
		return fmt.Errorf("%s was removed while it was dialled", info.ID)
	case errors.Is(err, ErrForeign) && fresh:
		n.forget(info.ID, false)
	case errors.Is(err, ErrForeign):
		n.hangUp(info.ID)
	case fresh:
		n.spawn(func() { n.redial(t) })
	}
	return err
}

// Forget hangs up on a peer and does not redial it, nor when it is found again, and
// ends a [Network.Connect] to it. It tells whether the peer was one to redial.
func (n *Network) Forget(id record.NodeID) bool {
	p, err := peerID(id)
	return err == nil && n.forget(p, true)
}

func (n *Network) forget(p peer.ID, forGood bool) bool {
	kept := n.keepers.remove(p, forGood)
	n.host.ConnManager().Unprotect(p, "configured")
	if err := n.host.Network().ClosePeer(p); err != nil {
		n.log.Debug("closing a connection", "peer", p, "error", err)
	}
	return kept
}

// greet begins to pull from a peer, and is content with the first answer. A
// connection alone says little: it stands before the other side has looked at
// its member list, and between nodes of two federations.
func (n *Network) greet(ctx context.Context, p peer.ID) error {
	ctx, cancel := context.WithTimeout(ctx, greetTime)
	defer cancel()
	for {
		err := n.hello(ctx, p)
		if err == nil {
			return nil
		}
		var foreign multistream.ErrNotSupported[protocol.ID] // another federation's protocol has another name
		switch {
		case errors.Is(err, errGarbage), errors.As(err, &foreign):
			return fmt.Errorf("%w: %w", ErrForeign, err)
		case !n.isConnected(p):
			return fmt.Errorf("%w: %w", ErrShut, err)
		}
		select {
		case <-time.After(greetPause): // it may only be busy
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
	}
}

func (n *Network) hello(ctx context.Context, p peer.ID) error {
	s, err := n.open(ctx, p, n.names.pull)
	if err != nil {
		return err
	}
	defer s.done()
	_, _, err = n.compare(s)
	s.failed = err != nil
	return err
}

func (n *Network) dial(ctx context.Context, info peer.AddrInfo) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	// libp2p has a backoff of its own, which would make ours fail unseen.
	if s, ok := n.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(info.ID)
	}
	return n.host.Connect(ctx, info)
}

// keep redials a peer from now on.
func (n *Network) keep(info peer.AddrInfo, configured bool) {
	if info.ID == n.host.ID() {
		return
	}
	if t, fresh := n.keeper(info, configured); fresh {
		n.spawn(func() { n.redial(t) })
	}
}

func (n *Network) keeper(info peer.AddrInfo, configured bool) (t *keeper, fresh bool) {
	if configured {
		n.host.ConnManager().Protect(info.ID, "configured")
	}
	return n.keepers.add(n.ctx, info, configured)
}

func (n *Network) redial(t *keeper) {
	defer t.cancel()
	delay, failures := redialMin, 0
	for {
		start := time.Now()
		err := n.dial(t.ctx, peer.AddrInfo{ID: t.id, Addrs: n.keepers.addrsOf(t)})
		if err == nil {
			failures = 0
			for n.isConnected(t.id) {
				select {
				case <-t.ctx.Done():
					return
				case <-t.lost:
				}
			}
			if time.Since(start) > redialSteady {
				delay = redialMin
			}
		} else {
			n.log.Debug("dialling a peer", "peer", t.id, "error", err)
			if failures++; failures >= foundFailures && n.keepers.giveUp(t) {
				return
			}
		}
		timer := time.NewTimer(jitter(delay))
		select {
		case <-t.ctx.Done():
			timer.Stop()
			return
		case <-t.now:
			timer.Stop()
			delay = redialMin
		case <-timer.C:
			delay = min(2*delay, redialMax)
		}
	}
}

// startMDNS looks for nodes of the federation on the local network. A network
// that has no multicast is no reason not to run.
func (n *Network) startMDNS() {
	s := mdns.NewMdnsService(n.host, n.names.mdns, found{n})
	if err := s.Start(); err != nil {
		n.log.Warn("nodes on the local network will not be found: name them with 'village peer add'", "error", err)
		return
	}
	n.mdns = s
}

// found hears of nodes that mDNS finds.
type found struct{ n *Network }

func (f found) HandlePeerFound(info peer.AddrInfo) { f.n.find(info) }

func (n *Network) find(info peer.AddrInfo) {
	if n.members.hasPeer(info.ID) {
		n.keep(info, false)
	}
}

// Find connects to a peer, given by multiaddrs that end in /p2p/ and its ID, for as
// long as it can be reached. What is no address is passed over.
func (n *Network) Find(addrs ...string) {
	var found peer.AddrInfo
	for _, a := range addrs {
		info, err := parsePeer(a)
		if err != nil || found.ID != "" && info.ID != found.ID {
			continue
		}
		found.ID, found.Addrs = info.ID, append(found.Addrs, info.Addrs...)
	}
	if len(found.Addrs) > 0 {
		n.find(found)
	}
}
