package p2p

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/marcopolo/simnet"
	"github.com/quic-go/quic-go"
	"go.uber.org/fx"

	"village/protocol/record"
)

// lost is the latency of a packet that never arrives: longer than any test.
const lost = 1000 * time.Hour

// weather decides what becomes of the packets of a simulated network.
type weather struct {
	mu     sync.Mutex
	random *rand.Rand
	loss   float64                    // share of the packets that are lost
	apart  func(from, to net.IP) bool // nil: nobody is parted

	packets, dropped int
}

func (w *weather) set(loss float64, apart func(from, to net.IP) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loss, w.apart = loss, apart
}

// latency is 5 to 50 ms one way, always the same between two nodes up to a tenth.
func (w *weather) latency(p *simnet.Packet) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	from, to := p.From.(*net.UDPAddr).IP, p.To.(*net.UDPAddr).IP
	w.packets++
	if w.random.Float64() < w.loss || w.apart != nil && w.apart(from, to) {
		w.dropped++
		return lost
	}
	distance := int64(from.To4()[3]) * int64(to.To4()[3]) * 7919 % 45_000
	base := 5_000 + distance
	return time.Duration(base+w.random.Int64N(base/10)) * time.Microsecond
}

// simulated puts a simulated network under a host, as x/simlibp2p of go-libp2p
// does.
func simulated(nw *simnet.Simnet, link simnet.NodeBiDiLinkSettings) libp2p.Option {
	own := new(sourceIP)
	return libp2p.QUICReuse(
		func(l fx.Lifecycle, reset quic.StatelessResetKey, token quic.TokenGeneratorKey, options ...quicreuse.Option) (*quicreuse.ConnManager, error) {
			cm, err := quicreuse.NewConnManager(reset, token, options...)
			if err == nil {
				l.Append(fx.StopHook(cm.Close))
			}
			return cm, err
		},
		quicreuse.OverrideSourceIPSelector(func() (quicreuse.SourceIPSelector, error) { return own, nil }),
		quicreuse.OverrideListenUDP(func(_ string, addr *net.UDPAddr) (net.PacketConn, error) {
			own.ip = addr.IP
			return nw.NewEndpoint(addr, link), nil
		}))
}

type sourceIP struct{ ip net.IP }

func (s *sourceIP) PreferredSourceIPForDestination(*net.UDPAddr) (net.IP, error) { return s.ip, nil }

func simulatedIP(i int) net.IP { return net.IPv4(1, 0, 0, byte(i+1)) }

// TestLossAndPartition runs twenty nodes as they are, but for the packets and
// the clock, which are simulated: a tenth of all packets is lost, the network
// falls apart into two halves for two minutes, and both publish meanwhile. Then
// it heals, and everybody comes to hold everything.
//
// Within the bubble a sleep costs no time: it lets everything happen that would
// happen meanwhile.
func TestLossAndPartition(t *testing.T) {
	if testing.Short() {
		t.Skip("half a dozen seconds")
	}
	// The clock of the bubble stands still while a goroutine waits for a mutex
	// (golang/go#77687); with one processor few do.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	begun := time.Now()
	synctest.Test(t, lossAndPartition)
	t.Logf("%v of real time", time.Since(begun).Round(time.Millisecond))
}

func lossAndPartition(t *testing.T) {
	const (
		count     = 20
		records   = 200
		unspoken  = 20 // of these, not gossiped at all
		partition = 2 * time.Minute
		patience  = 10 * time.Minute // for everything to arrive, once healed
	)
	w := &weather{random: rand.New(rand.NewPCG(1, 2)), loss: 0.1}
	nw := &simnet.Simnet{LatencyFunc: w.latency, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	nw.Start()
	t.Cleanup(nw.Close)
	link := simnet.LinkSettings{BitsPerSecond: 20e6}

	random := rand.New(rand.NewPCG(3, 4))
	nodes := make([]*node, count)
	addr := func(i int) string {
		return fmt.Sprintf("/ip4/%s/udp/8000/quic-v1/p2p/%s", simulatedIP(i), idOf(fmt.Sprint("sim", i)))
	}
	for i := range nodes {
		name := fmt.Sprint("sim", i)
		cfg := Config{
			Key: keyOf(name), Federation: federation,
			Listen: []string{fmt.Sprintf("/ip4/%s/udp/8000/quic-v1", simulatedIP(i))},
			// A ring, and two of the others: five neighbours in the mean.
			Peers: []string{addr((i + 1) % count), addr((i + 2 + random.IntN(8)) % count), addr((i + 10 + random.IntN(8)) % count)},
			Host:  []libp2p.Option{simulated(nw, simnet.NodeBiDiLinkSettings{Uplink: link, Downlink: link})},
		}
		s := newStore()
		n, err := New(cfg, s, s.receive)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		nodes[i] = &node{n, s, name}
	}
	start := time.Now()
	time.Sleep(10 * time.Second)

	published := 0
	publish := func(by *node, size int, gossip bool) record.CID {
		r := sign(t, by.name, federation, record.KindManifest, fmt.Sprint("dataset ", published), 1, size)
		published++
		by.put(r)
		if gossip {
			if err := by.Publish(r); err != nil {
				t.Fatal(err)
			}
		}
		return r.CID
	}
	half := func(ip net.IP) bool { return int(ip.To4()[3]) <= count/2 }
	first := func(i int) bool { return i < count/2 }

	for i := range records / 2 {
		publish(nodes[i%count], 500, true)
		time.Sleep(50 * time.Millisecond)
	}
	w.set(0.1, func(from, to net.IP) bool { return half(from) != half(to) })
	parted := time.Now()
	var meanwhile []record.CID // one of each node, in the order of the nodes
	for i := range records/2 - unspoken {
		size := 500
		if i%20 == 0 {
			size = 2 * record.MaxGossip // which pull alone carries
		}
		c := publish(nodes[i%count], size, true)
		if i < count {
			meanwhile = append(meanwhile, c)
		}
		time.Sleep(partition / records)
	}
	for i := range unspoken {
		publish(nodes[i%count], 500, false)
	}
	time.Sleep(partition - time.Since(parted))
	for i, n := range nodes {
		for j, other := range nodes {
			if n.isConnected(other.host.ID()) && first(i) != first(j) {
				t.Fatalf("node %d is connected to node %d across the partition", i, j)
			}
		}
		for j, c := range meanwhile {
			if n.Has(c) && first(i) != first(j) {
				t.Fatalf("node %d has a record of node %d across the partition", i, j)
			}
		}
	}

	w.set(0.1, nil)
	healed := time.Now()
	lacking := func() int {
		return slices.IndexFunc(nodes, func(n *node) bool { return len(n.held()) < records })
	}
	for lacking() >= 0 && time.Since(healed) < patience {
		time.Sleep(time.Second)
	}
	if i := lacking(); i >= 0 {
		t.Fatalf("node %d holds %d of %d records %v after the partition", i, len(nodes[i].held()), records, time.Since(healed))
	}
	for _, n := range nodes {
		if s := n.Stats(); s.Refused != 0 {
			t.Errorf("%s has refused %d records of honest nodes", n.name, s.Refused)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	degree := 0
	for _, n := range nodes {
		degree += len(n.host.Network().Peers())
	}
	t.Logf("%d nodes of %.1f neighbours, %d packets of which %.0f %% were lost; all %d records everywhere %v after the partition, in %v of simulated time",
		count, float64(degree)/count, w.packets, 100*float64(w.dropped)/float64(w.packets), published, time.Since(healed), time.Since(start))
}
