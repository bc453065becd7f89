package p2p

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/x/rate"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	// Connections are trimmed to the low mark when they pass the high one.
	connsLow, connsHigh = 128, 192

	// Several nodes may stand behind one address (a laboratory, a NAT, a
	// cluster); libp2p's own limit of 8 connections would refuse them.
	connsPerAddress = 64

	dialTimeout = 10 * time.Second
)

// newHost makes a host that does not listen yet.
//
// Yamux keeps libp2p's windows: they grow by themselves to 16 MiB where a
// stream needs it, and what they hold is booked with the resource manager. A
// larger initial window is not booked, so that any peer could fill it on every
// stream, and records of at most 1 MiB gain nothing by it.
func newHost(cfg Config, names names, gater gater, traffic *traffic) (host.Host, error) {
	key, err := crypto.UnmarshalEd25519PrivateKey(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("the node's key: %w", err)
	}
	announce := make([]multiaddr.Multiaddr, len(cfg.Announce))
	for i, s := range cfg.Announce {
		if announce[i], err = multiaddr.NewMultiaddr(s); err != nil {
			return nil, fmt.Errorf("--announce %q is not a multiaddr such as /ip4/203.0.113.7/tcp/4811: %w", s, err)
		}
	}
	limits, err := newLimits(names)
	if err != nil {
		return nil, err
	}
	conns, err := connmgr.NewConnManager(connsLow, connsHigh)
	if err != nil {
		return nil, errors.Join(err, limits.Close())
	}
	h, err := libp2p.New(
		libp2p.Identity(key),
		libp2p.UserAgent("village"),
		libp2p.NoListenAddrs,
		// With SO_REUSEPORT two nodes could share one port and each would get
		// half of the other's connections.
		libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()),
		libp2p.Transport(quic.NewTransport),
		libp2p.Security(noise.ID, noise.New),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.ConnectionGater(gater),
		libp2p.ConnectionManager(conns),
		libp2p.ResourceManager(limits),
		libp2p.BandwidthReporter(traffic),
		libp2p.SwarmOpts(swarm.WithDialRanker(tcpFirst)),
		libp2p.WithDialTimeout(dialTimeout),
		libp2p.AddrsFactory(func(addrs []multiaddr.Multiaddr) []multiaddr.Multiaddr {
			if len(announce) > 0 {
				return announce
			}
			return addrs
		}),
		libp2p.DisableRelay(),
		libp2p.ForceReachabilityPublic(), // nobody is asked to dial back
		libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.DisableMetrics(),
		libp2p.Ping(false),
		libp2p.ChainOptions(cfg.Host...),
	)
	if err != nil {
		return nil, fmt.Errorf("starting the libp2p host: %w", errors.Join(err, conns.Close(), limits.Close()))
	}
	return h, nil
}

// newLimits bounds what all peers and each peer may hold of this node. The
// limits are those of a node with 1 GiB of memory for libp2p on every machine.
func newLimits(names names) (network.ResourceManager, error) {
	limits := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&limits)
	streams := func(id protocol.ID, total, each int) {
		limits.AddProtocolLimit(id, rcmgr.BaseLimit{
			StreamsInbound: total, StreamsOutbound: total, Streams: 2 * total, Memory: 64 << 20,
		}, rcmgr.BaseLimitIncrease{})
		limits.AddProtocolPeerLimit(id, rcmgr.BaseLimit{
			StreamsInbound: each, StreamsOutbound: each, Streams: 2 * each, Memory: 16 << 20,
		}, rcmgr.BaseLimitIncrease{})
	}
	streams(names.pull, 4*pullSeats, pullSeatsEach) // of the seats who has most gives up one
	streams(names.push, 256, 32)

	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	var loopbackConns [2][]rcmgr.NetworkPrefixLimit
	var loopbackRate []rate.PrefixLimit
	for i, p := range loopback {
		loopbackConns[i] = []rcmgr.NetworkPrefixLimit{{Network: p, ConnCount: math.MaxInt}}
		loopbackRate = append(loopbackRate, rate.PrefixLimit{Prefix: p})
	}
	perAddress := rate.Limit{RPS: 2, Burst: connsPerAddress}
	return rcmgr.NewResourceManager(
		rcmgr.NewFixedLimiter(limits.Scale(1<<30, 1024)),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithNetworkPrefixLimit(loopbackConns[0], loopbackConns[1]),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: connsPerAddress}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: connsPerAddress}, {PrefixLength: 48, ConnCount: 4 * connsPerAddress}},
		),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			NetworkPrefixLimits: loopbackRate,
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: perAddress}},
				IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: perAddress}},
				GracePeriod:      time.Minute,
			},
		}),
	)
}

// traffic counts the bytes of all streams at once, where libp2p's own counter is
// up to a second behind, and none per peer and protocol: strangers could make
// those grow.
type traffic struct {
	metrics.BandwidthCounter // for the methods that nobody calls
	sent, received           atomic.Int64
}

func (t *traffic) LogSentMessage(n int64) { t.sent.Add(n) }
func (t *traffic) LogRecvMessage(n int64) { t.received.Add(n) }

func (*traffic) LogSentMessageStream(int64, protocol.ID, peer.ID) {}
func (*traffic) LogRecvMessageStream(int64, protocol.ID, peer.ID) {}

// tcpFirst dials TCP at once and the rest a little later: QUIC costs about
// twice the CPU per byte.
func tcpFirst(addrs []multiaddr.Multiaddr) []network.AddrDelay {
	var later time.Duration
	for _, a := range addrs {
		if isTCP(a) {
			later = 250 * time.Millisecond
		}
	}
	out := make([]network.AddrDelay, len(addrs))
	for i, a := range addrs {
		out[i].Addr = a
		if !isTCP(a) {
			out[i].Delay = later
		}
	}
	return out
}

func isTCP(a multiaddr.Multiaddr) bool {
	_, err := a.ValueForProtocol(multiaddr.P_TCP)
	return err == nil
}

func addrRank(a multiaddr.Multiaddr) (rank int) {
	if !isTCP(a) {
		rank += 4
	}
	if manet.IsIPLoopback(a) {
		rank += 2
	}
	if _, err := a.ValueForProtocol(multiaddr.P_IP6); err == nil {
		rank++
	}
	return rank
}

// listen opens the addresses one by one, because libp2p's own call is content
// when any of them works.
func (n *Network) listen(addrs []string) error {
	var tcpAddrs, others []multiaddr.Multiaddr
	for _, s := range addrs {
		a, err := multiaddr.NewMultiaddr(s)
		if err != nil {
			return fmt.Errorf("listen: %q is not a multiaddr such as /ip4/0.0.0.0/tcp/4811: %w", s, err)
		}
		if isTCP(a) {
			tcpAddrs = append(tcpAddrs, a)
		} else {
			others = append(others, a)
		}
	}
	for _, a := range tcpAddrs {
		if err := n.host.Network().Listen(a); err != nil {
			return listenError(a, err)
		}
	}
	if len(others) == 0 {
		for _, a := range n.host.Network().ListenAddresses() {
			q, err := multiaddr.NewMultiaddr(strings.Replace(a.String(), "/tcp/", "/udp/", 1) + "/quic-v1")
			if err != nil {
				return fmt.Errorf("the QUIC address beside %s: %w", a, err)
			}
			others = append(others, q)
		}
	}
	for _, a := range others {
		err := n.host.Network().Listen(a)
		switch {
		case err == nil:
		case len(tcpAddrs) == 0:
			return listenError(a, err)
		default:
			n.log.Warn("QUIC is off, TCP serves", "address", a, "error", err)
		}
	}
	return nil
}

// ErrListen is that an address of the config is not to be had.
var ErrListen = errors.New("cannot listen")

func listenError(a multiaddr.Multiaddr, err error) error {
	if strings.Contains(err.Error(), syscall.EADDRINUSE.Error()) { // libp2p keeps the text alone
		port, perr := a.ValueForProtocol(multiaddr.P_TCP)
		if perr != nil {
			port, _ = a.ValueForProtocol(multiaddr.P_UDP)
		}
		return fmt.Errorf("%w on %s: port %s is in use", ErrListen, a, port)
	}
	return fmt.Errorf("%w on %s: %w", ErrListen, a, err)
}
