package cluster

import (
	"container/heap"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/quic-go/quic-go"
	"go.uber.org/fx"

	"village/sim"
)

const (
	// port is the same at every node, which has an address of its own.
	port = 4811
	// A node that is behind with reading holds so many packets; a sender that is
	// behind its bandwidth, those of so long. What comes on top is lost, as it is
	// at a socket and at a router.
	maxWaiting = 4096
	maxBehind  = 250 * time.Millisecond
	leastBurst = 64 << 10 // bytes, whatever the bandwidth
)

// wire carries the packets between the nodes of a cluster: it delays and loses
// them and cuts nodes off as a [sim.Config] says. Packets from one node to
// another keep their order, as they mostly do on a path of the Internet.
type wire struct {
	faults    sim.Faults
	delay     sim.Delay
	bandwidth float64
	begun     time.Time
	zero      atomic.Int64 // when the faults begin, since begun; 0 = not yet
	ends      []*end       // by place

	packets, bytes atomic.Uint64
}

func newWire(cfg sim.Config) *wire {
	w := &wire{faults: cfg.Faults, delay: cfg.Delay, bandwidth: cfg.Bandwidth, begun: time.Now()}
	if w.delay.Max == 0 {
		w.delay.Min, w.delay.Max = 5*time.Millisecond, 50*time.Millisecond
	}
	for i := range cfg.Nodes {
		w.ends = append(w.ends, &end{
			wire: w, place: i,
			random: rand.New(rand.NewPCG(cfg.Seed, uint64(i))),
			newest: make([]time.Duration, len(cfg.Nodes)),
		})
	}
	return w
}

// begin makes the faults begin.
func (w *wire) begin() { w.zero.Store(int64(time.Since(w.begun))) }

// since is the time since the faults began, and whether they have.
func (w *wire) since() (time.Duration, bool) {
	zero := time.Duration(w.zero.Load())
	return time.Since(w.begun) - zero, zero > 0
}

// address is one of those that are set aside for measurements (RFC 2544), so that
// nothing else has it.
func address(place int) net.IP { return net.IPv4(198, 18, byte(place>>8), byte(place)).To4() }

// at returns where an address is, or nil.
func (w *wire) at(addr net.Addr) *end {
	udp, ok := addr.(*net.UDPAddr)
	if !ok {
		return nil
	}
	ip := udp.IP.To4()
	if ip == nil || ip[0] != 198 || ip[1] != 18 || udp.Port != port {
		return nil
	}
	place := int(ip[2])<<8 | int(ip[3])
	if place >= len(w.ends) {
		return nil
	}
	return w.ends[place]
}

// end is where a node stands on the wire.
type end struct {
	wire  *wire
	place int

	sending   sync.Mutex
	random    *rand.Rand
	departure time.Time // of the last packet, given the bandwidth

	mu     sync.Mutex
	conn   *conn           // open, or nil
	due    packets         // by the time at which they come
	newest []time.Duration // when the last packet of each node comes, since wire.begun
	count  uint64
}

type packet struct {
	at    time.Duration // since wire.begun
	order uint64
	from  *net.UDPAddr
	data  []byte
}

// packets is a heap.
type packets []packet

func (p packets) Len() int { return len(p) }
func (p packets) Less(i, j int) bool {
	if p[i].at != p[j].at {
		return p[i].at < p[j].at
	}
	return p[i].order < p[j].order
}
func (p packets) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *packets) Push(x any)   { *p = append(*p, x.(packet)) }
func (p *packets) Pop() any {
	last := (*p)[len(*p)-1]
	(*p)[len(*p)-1] = packet{}
	*p = (*p)[:len(*p)-1]
	return last
}

// cut takes the node off the wire at once: what it sends from now on, its
// farewells too, reaches nobody.
func (e *end) cut() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conn != nil {
		e.conn.cut.Store(true)
	}
	e.conn, e.due = nil, nil
}

// send puts a packet on the wire.
func (e *end) send(to *end, from *net.UDPAddr, b []byte) {
	w := e.wire
	w.packets.Add(1)
	w.bytes.Add(uint64(len(b)))
	now := time.Now()

	e.sending.Lock()
	if w.bandwidth > 0 {
		depart := e.departure
		if depart.Before(now) {
			depart = now
		}
		behind := depart.Sub(now)
		if behind > maxBehind && behind.Seconds()*w.bandwidth > leastBurst {
			e.sending.Unlock()
			return
		}
		depart = depart.Add(time.Duration(float64(len(b)) / w.bandwidth * float64(time.Second)))
		e.departure, now = depart, depart
	}
	copies := 1
	if since, begun := w.since(); begun {
		switch {
		case w.faults.Apart != nil && w.faults.Apart(since, e.place, to.place),
			w.faults.Loss > 0 && e.random.Float64() < w.faults.Loss:
			copies = 0
		case w.faults.Duplicate > 0 && e.random.Float64() < w.faults.Duplicate:
			copies = 2
		}
	}
	latency := w.delay.Min + time.Duration(e.random.Int64N(int64(w.delay.Max-w.delay.Min)+1))
	e.sending.Unlock()

	if w.delay.Between != nil {
		latency += w.delay.Between(e.place, to.place)
	}
	for range copies {
		to.deliver(e.place, packet{at: now.Add(latency).Sub(w.begun), from: from, data: append([]byte(nil), b...)})
	}
}

// deliver lets a packet come to the node in its time.
func (e *end) deliver(from int, p packet) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conn == nil || len(e.due) >= maxWaiting {
		return
	}
	p.at = max(p.at, e.newest[from])
	e.newest[from] = p.at
	e.count++
	p.order = e.count
	heap.Push(&e.due, p)
	if e.due[0].order == p.order {
		e.conn.look()
	}
}

// listen makes a socket at the end.
func (e *end) listen() net.PacketConn {
	c := &conn{
		end: e, addr: &net.UDPAddr{IP: address(e.place), Port: port},
		wake: make(chan struct{}, 1), timer: time.NewTimer(0), closed: make(chan struct{}),
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.conn, e.due = c, nil
	return c
}

// conn is the socket of one life of a node. One goroutine reads, that of QUIC.
type conn struct {
	end      *end
	addr     *net.UDPAddr
	cut      atomic.Bool
	wake     chan struct{} // what ReadFrom waits for may have changed
	timer    *time.Timer   // of ReadFrom
	close    sync.Once
	closed   chan struct{}
	deadline atomic.Int64 // of reading, Unix nanoseconds; 0 = none
}

func (c *conn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		select {
		case <-c.closed:
			return 0, nil, net.ErrClosed
		default:
		}
		now, wait := time.Now(), time.Hour
		if deadline := c.deadline.Load(); deadline != 0 {
			if wait = time.Unix(0, deadline).Sub(now); wait <= 0 {
				return 0, nil, os.ErrDeadlineExceeded
			}
		}
		e := c.end
		e.mu.Lock()
		if e.conn == c && len(e.due) > 0 {
			left := e.due[0].at - now.Sub(e.wire.begun)
			if left <= 0 {
				p := heap.Pop(&e.due).(packet)
				e.mu.Unlock()
				return copy(b, p.data), p.from, nil
			}
			wait = min(wait, left)
		}
		e.mu.Unlock()
		c.timer.Reset(wait)
		select {
		case <-c.timer.C:
		case <-c.wake:
		case <-c.closed:
		}
	}
}

// look has ReadFrom look again.
func (c *conn) look() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *conn) WriteTo(b []byte, addr net.Addr) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
	}
	if to := c.end.wire.at(addr); to != nil && !c.cut.Load() {
		c.end.send(to, c.addr, b)
	}
	return len(b), nil
}

func (c *conn) Close() error {
	c.close.Do(func() {
		close(c.closed)
		e := c.end
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.conn == c {
			e.conn, e.due = nil, nil
		}
	})
	return nil
}

func (c *conn) LocalAddr() net.Addr { return c.addr }

func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

func (c *conn) SetReadDeadline(t time.Time) error {
	at := int64(0)
	if !t.IsZero() {
		at = t.UnixNano()
	}
	c.deadline.Store(at)
	c.look()
	return nil
}

// SetWriteDeadline does nothing: writing does not wait.
func (*conn) SetWriteDeadline(time.Time) error { return nil }

// SetReadBuffer and SetWriteBuffer are what QUIC asks of a socket, and warns
// where it cannot.
func (*conn) SetReadBuffer(int) error  { return nil }
func (*conn) SetWriteBuffer(int) error { return nil }

// host puts the wire under a libp2p host.
func (e *end) host() libp2p.Option {
	return libp2p.QUICReuse(
		func(l fx.Lifecycle, reset quic.StatelessResetKey, token quic.TokenGeneratorKey, options ...quicreuse.Option) (*quicreuse.ConnManager, error) {
			m, err := quicreuse.NewConnManager(reset, token, options...)
			if err == nil {
				l.Append(fx.StopHook(m.Close))
			}
			return m, err
		},
		quicreuse.OverrideSourceIPSelector(func() (quicreuse.SourceIPSelector, error) { return source{e.place}, nil }),
		quicreuse.OverrideListenUDP(func(string, *net.UDPAddr) (net.PacketConn, error) { return e.listen(), nil }),
	)
}

// source says from where a node dials.
type source struct{ place int }

func (s source) PreferredSourceIPForDestination(*net.UDPAddr) (net.IP, error) {
	return address(s.place), nil
}
