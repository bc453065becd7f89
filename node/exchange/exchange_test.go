package exchange

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"

	"village/node/p2p"
	"village/protocol/record"
)

const patience = 60 * time.Second

// memory is a store in memory.
type memory struct {
	mu     sync.Mutex
	chunks map[[32]byte][]byte
	put    func([32]byte, []byte) error // called first, where there is one
	get    func([32]byte, []byte) ([]byte, error)
}

func newMemory() *memory { return &memory{chunks: make(map[[32]byte][]byte)} }

func (m *memory) PutChunk(hash [32]byte, b []byte) error {
	if m.put != nil {
		if err := m.put(hash, b); err != nil {
			return err
		}
	}
	c := bytes.Clone(b)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.chunks[hash] = c
	return nil
}

func (m *memory) Chunk(hash [32]byte) ([]byte, error) {
	m.mu.Lock()
	b, ok := m.chunks[hash]
	m.mu.Unlock()
	if !ok {
		return nil, errors.New("not held")
	}
	if m.get != nil {
		return m.get(hash, b)
	}
	return b, nil
}

func (m *memory) HasChunk(hash [32]byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.chunks[hash] != nil
}

func (m *memory) DeleteChunks(hashes ...[32]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, hash := range hashes {
		delete(m.chunks, hash)
	}
	return nil
}

func (m *memory) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.chunks)
}

func newHost(t testing.TB) host.Host {
	t.Helper()
	h, err := libp2p.New(
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"),
		libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()),
		libp2p.Security(noise.ID, noise.New),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.Ping(false),
		libp2p.ForceReachabilityPublic(), libp2p.DisableIdentifyAddressDiscovery(),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func connect(t testing.TB, a, b host.Host) {
	t.Helper()
	if err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}); err != nil {
		t.Fatal(err)
	}
}

type node struct {
	*Exchange
	host  host.Host
	store *memory
}

func anybody(peer.ID) bool { return true }
func nobody(peer.ID) bool  { return false }

// author is who all vectors are of where that makes no difference.
var author = record.NodeID{1}

// Provide, Fetch and FetchTo are those of what a node holds from then on.
func (n *node) Provide(b []byte) (Announcement, error) {
	h, err := n.Exchange.Provide(author, b)
	if err != nil {
		return Announcement{}, err
	}
	return h.Announcement(), nil
}

func (n *node) Fetch(ctx context.Context, a Announcement) ([]byte, error) {
	h, err := n.Hold(author, a)
	if err != nil {
		return nil, err
	}
	return h.Fetch(ctx)
}

func (n *node) FetchTo(ctx context.Context, a Announcement, sink func(int, []byte) error) error {
	h, err := n.Hold(author, a)
	if err != nil {
		return err
	}
	return h.FetchTo(ctx, sink)
}

func newNode(t testing.TB, store *memory) *node {
	t.Helper()
	h := newHost(t)
	x := New(h, "test", store, anybody, nobody, nil)
	t.Cleanup(x.Close)
	return &node{x, h, store}
}

// clique returns n nodes that are all connected.
func clique(t testing.TB, n int) []*node {
	t.Helper()
	var nodes []*node
	for range n {
		x := newNode(t, newMemory())
		for _, y := range nodes {
			connect(t, x.host, y.host)
		}
		nodes = append(nodes, x)
	}
	return nodes
}

func vectorOf(seed uint64, size int) []byte {
	b := make([]byte, size)
	var key [32]byte
	key[0] = byte(seed)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

func provide(t testing.TB, n *node, b []byte) Announcement {
	t.Helper()
	a, err := n.Provide(b)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// fetch has n fetch the vector b.
func fetch(t testing.TB, n *node, a Announcement, b []byte) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got, err := n.Fetch(ctx, a)
	if err == nil && !bytes.Equal(got, b) {
		err = errors.New("other bytes were fetched")
	}
	return err
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("never: %s", what)
		}
	}
}

func TestTwoNodes(t *testing.T) {
	n := clique(t, 2)
	for i, size := range []int{1, ChunkSize - 1, ChunkSize, ChunkSize + 1, 20*ChunkSize + 3} {
		b := vectorOf(uint64(i), size)
		a := provide(t, n[0], b)
		before := n[1].Stats().BytesReceived
		if err := fetch(t, n[1], a, b); err != nil {
			t.Fatal(size, err)
		}
		if got := n[1].Stats().BytesReceived - before; got != uint64(size) {
			t.Errorf("%d bytes came for a vector of %d", got, size)
		}
		if err := fetch(t, n[1], a, b); err != nil { // from the store
			t.Fatal(err)
		}
		if got := n[1].Stats().BytesReceived - before; got != uint64(size) {
			t.Errorf("fetched again what the store holds")
		}
	}
}

// Under the limits and settings of a real node.
func TestOnTheNodesHost(t *testing.T) {
	var nodes []*p2p.Network
	for i := range 2 {
		seed := sha256.Sum256([]byte{byte(i)})
		n, err := p2p.New(p2p.Config{
			Key: ed25519.NewKeyFromSeed(seed[:]), Federation: "test", Listen: []string{"/ip4/127.0.0.1/tcp/0"},
		}, noRecords{}, func(context.Context, record.NodeID, record.Record) p2p.Verdict { return p2p.Ignore })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		nodes = append(nodes, n)
	}
	first := &node{Exchange: New(nodes[0].Host(), "test", newMemory(), anybody, nobody, nil)}
	defer first.Close()
	if err := nodes[1].Connect(t.Context(), nodes[0].Addrs()[0]); err != nil {
		t.Fatal(err)
	}
	x := New(nodes[1].Host(), "test", newMemory(), anybody, nobody, nil)
	defer x.Close()
	var wg sync.WaitGroup
	for i := range 2 * maxActive { // more at once than one peer may
		wg.Go(func() {
			b := vectorOf(uint64(i), 3*ChunkSize)
			a, err := first.Provide(b)
			if err != nil {
				t.Error(err)
				return
			}
			if err := fetch(t, &node{Exchange: x}, a, b); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

type noRecords struct{}

func (noRecords) Groups() map[string][32]byte { return nil }
func (noRecords) Group(string) []record.CID   { return nil }
func (noRecords) Has(record.CID) bool         { return false }
func (noRecords) Record(record.CID) (record.Record, error) {
	return record.Record{}, errors.New("none")
}

func TestFetchToIsInOrder(t *testing.T) {
	n := clique(t, 3)
	b := vectorOf(1, 12*ChunkSize+5)
	a := provide(t, n[0], b)
	provide(t, n[1], b)
	var got []byte
	err := n[2].FetchTo(t.Context(), a, func(offset int, chunk []byte) error {
		if offset != len(got) {
			return fmt.Errorf("offset %d after %d bytes", offset, len(got))
		}
		got = append(got, chunk...)
		return nil
	})
	if err != nil || !bytes.Equal(got, b) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	enough := errors.New("enough")
	if err := n[2].FetchTo(t.Context(), a, func(int, []byte) error { return enough }); err != enough {
		t.Errorf("the sink's error became %v", err)
	}
}

// Seven fetch at once. Each of the eight sends the vector about once, and nobody
// is sent anything twice.
func TestSwarm(t *testing.T) {
	n := clique(t, 8)
	b := vectorOf(1, 32*ChunkSize)
	a := provide(t, n[0], b)
	var wg sync.WaitGroup
	for _, x := range n[1:] {
		wg.Go(func() {
			if err := fetch(t, x, a, b); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i, x := range n {
		s := x.Stats()
		copies := float64(s.BytesSent) / float64(len(b))
		t.Logf("node %d sent %.2f copies", i, copies)
		if copies > 1.6 {
			t.Errorf("node %d sent %.2f copies", i, copies)
		}
		if i > 0 && s.BytesReceived != uint64(len(b)) {
			t.Errorf("node %d received %d bytes of %d", i, s.BytesReceived, len(b))
		}
	}
}

// The author leaves as soon as every chunk is with one node or other: they
// complete one another.
func TestTheAuthorLeaves(t *testing.T) {
	n := clique(t, 8)
	b := vectorOf(1, 16*ChunkSize+7)
	n[0].pace = time.Hour // it is in no hurry to give anything twice
	a := provide(t, n[0], b)
	var wg sync.WaitGroup
	for _, x := range n[1:] {
		wg.Go(func() {
			if err := fetch(t, x, a, b); err != nil {
				t.Error(err)
			}
		})
	}
	until(t, "every chunk is held by somebody else", func() bool {
		return !slices.ContainsFunc(a.Chunks, func(c [32]byte) bool {
			return !slices.ContainsFunc(n[1:], func(x *node) bool { return x.store.HasChunk(c) })
		})
	})
	n[0].host.Close()
	wg.Wait()
	if sent := n[0].Stats().BytesSent; sent > 2*uint64(len(b)) {
		t.Errorf("the author sent %d bytes", sent)
	}
}

func TestResumeAfterACrash(t *testing.T) {
	author := newNode(t, newMemory())
	b := vectorOf(1, 10*ChunkSize)
	a := provide(t, author, b)

	// The disk is full after six chunks.
	store := newMemory()
	full := errors.New("the disk is full")
	store.put = func([32]byte, []byte) error {
		if store.count() >= 6 {
			return full
		}
		return nil
	}
	first := newNode(t, store)
	connect(t, first.host, author.host)
	if err := fetch(t, first, a, b); !errors.Is(err, full) {
		t.Fatalf("the store's failure became %v", err)
	}
	first.Close()
	first.host.Close()

	store.put = nil
	kept := store.count()
	second := newNode(t, store)
	connect(t, second.host, author.host)
	if err := fetch(t, second, a, b); err != nil {
		t.Fatal(err)
	}
	if got, want := second.Stats().BytesReceived, uint64((10-kept)*ChunkSize); kept < 6 || got != want {
		t.Errorf("%d chunks were kept, then %d bytes came instead of %d", kept, got, want)
	}
}

// A chunk that the disk has damaged is fetched again, by Fetch and by FetchTo.
func TestDamagedChunk(t *testing.T) {
	n := clique(t, 2)
	b := vectorOf(1, 3*ChunkSize)
	a := provide(t, n[0], b)
	for _, to := range []bool{false, true} {
		provide(t, n[1], b)
		n[1].store.chunks[a.Chunks[1]] = make([]byte, ChunkSize)
		before := n[1].Stats().BytesReceived
		var err error
		if to {
			var got []byte
			err = n[1].FetchTo(t.Context(), a, func(_ int, c []byte) error { got = append(got, c...); return nil })
			if !bytes.Equal(got, b) {
				t.Error("other bytes")
			}
		} else {
			err = fetch(t, n[1], a, b)
		}
		if got := n[1].Stats().BytesReceived - before; err != nil || got != ChunkSize {
			t.Errorf("%v, %d bytes came", err, got)
		}
	}
	n[1].store.get = func([32]byte, []byte) ([]byte, error) { return nil, errors.New("the disk is gone") }
	if err := n[1].FetchTo(t.Context(), a, func(int, []byte) error { return nil }); err == nil {
		t.Error("a store that returns nothing is no error")
	}
}

// Asked before anybody holds it, a vector comes once somebody does.
func TestFetchedBeforeItIsProvided(t *testing.T) {
	n := clique(t, 3)
	b := vectorOf(1, 4*ChunkSize)
	var wg sync.WaitGroup
	for _, x := range n[1:] {
		wg.Go(func() {
			if err := fetch(t, x, Announce(b), b); err != nil {
				t.Error(err)
			}
		})
	}
	until(t, "both have asked", func() bool {
		n[0].mu.Lock()
		defer n[0].mu.Unlock()
		return len(n[0].Exchange.uploads[Announce(b).ID()]) == 2
	})
	provide(t, n[0], b)
	wg.Wait()
}

func TestServeAfterARestartAndRelease(t *testing.T) {
	store := newMemory()
	b := vectorOf(1, 2*ChunkSize)
	a := provide(t, newNode(t, store), b)
	again, x := newNode(t, store), newNode(t, newMemory())
	connect(t, again.host, x.host)
	served, err := again.Hold(author, a)
	if err != nil {
		t.Fatal(err)
	}
	if err := fetch(t, x, a, b); err != nil {
		t.Fatal(err)
	}
	served.Release()
	connect(t, x.host, again.host)
	x.Close()
	late := newNode(t, newMemory())
	connect(t, late.host, again.host)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := late.Fetch(ctx, a); !errors.Is(err, context.Canceled) {
			t.Errorf("a forgotten vector: %v", err)
		}
	})
	until(t, "it has asked", func() bool {
		again.mu.Lock()
		defer again.mu.Unlock()
		return len(again.Exchange.uploads) == 1
	})
	cancel()
	wg.Wait()
}

func TestLyingPeer(t *testing.T) {
	n := clique(t, 2)
	liar, x := n[0], n[1]
	liar.store.get = func(_ [32]byte, b []byte) ([]byte, error) {
		b = bytes.Clone(b)
		b[len(b)-1] ^= 1
		return b, nil
	}
	honest := newNode(t, newMemory())
	b := vectorOf(1, 5*ChunkSize)
	a := provide(t, honest, b)
	provide(t, liar, b)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := fetch(t, x, a, b); err != nil {
			t.Error(err)
		}
	})
	until(t, "the liar is found out", func() bool { return x.Stats().Refused > 0 })
	if x.store.count() != 0 || !x.sources.shunned(liar.host.ID()) {
		t.Error("a liar is believed")
	}
	connect(t, x.host, honest.host)
	wg.Wait()
}

// firstAsk reads the first ask.
func firstAsk(r io.Reader) (ask, error) {
	if kind, _, err := readHead(r); err != nil || kind != kindAsk {
		return ask{}, errors.New("no ask")
	}
	return readAsk(r)
}

// holder answers every stream by a script in place of an exchange.
func holder(t *testing.T, x *node, script func(network.Stream)) host.Host {
	h := newHost(t)
	h.SetStreamHandler(x.protocol, func(s network.Stream) {
		if _, err := readHello(s); err == nil {
			script(s)
		}
		s.Reset()
	})
	connect(t, x.host, h)
	return h
}

// A peer that owes something and sends nothing is left as soon as another could
// send it.
func TestPeerThatHangs(t *testing.T) {
	for name, promises := range map[string]bool{"before the promise": false, "after the promise": true} {
		t.Run(name, func(t *testing.T) {
			b := vectorOf(1, 3*ChunkSize)
			a := Announce(b)
			x := newNode(t, newMemory())
			x.quiet = 100 * time.Millisecond
			hanging := make(chan struct{}, 10)
			h := holder(t, x, func(s network.Stream) {
				s.Write(appendBitmap(nil, kindHave, a.all()))
				asked, err := firstAsk(s)
				if err != nil {
					return
				}
				if promises {
					var set bitmap
					for i := range asked.set.all() {
						set.add(i)
						break
					}
					s.Write(appendBitmap(nil, kindPromise, set))
					s.Write(append(appendHead(nil, kindPiece, 1000), b[:1000]...))
				}
				hanging <- struct{}{}
				io.Copy(io.Discard, s)
			})
			var wg sync.WaitGroup
			wg.Go(func() {
				if err := fetch(t, x, a, b); err != nil {
					t.Error(err)
				}
			})
			<-hanging
			honest := newNode(t, newMemory())
			provide(t, honest, b)
			connect(t, x.host, honest.host)
			wg.Wait()
			if got := honest.Stats().BytesSent; got != uint64(len(b)) {
				t.Errorf("the other sent %d bytes", got)
			}
			if x.Stats().Refused != 0 || !x.sources.shunned(h.ID()) {
				t.Error("hanging is no lie, but not to be waited for again either")
			}
		})
	}
}

// With nobody else about, a peer that hangs is tried anew.
func TestPeerThatHangsAlone(t *testing.T) {
	b := vectorOf(1, 2*ChunkSize)
	a := Announce(b)
	x := newNode(t, newMemory())
	x.dead = 20 * time.Millisecond
	h := holder(t, x, func(s network.Stream) {
		s.Write(appendBitmap(nil, kindHave, a.all()))
		io.Copy(io.Discard, s)
	})
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	wg.Go(func() { x.Fetch(ctx, a) })
	until(t, "it is left alone for a while", func() bool { return x.sources.shunned(h.ID()) })
	cancel()
	wg.Wait()
}

func TestHostileHolders(t *testing.T) {
	b := vectorOf(1, 2*ChunkSize)
	a := Announce(b)
	have := appendBitmap(nil, kindHave, a.all())
	promise := func(chunks ...int) []byte {
		var set bitmap
		for _, i := range chunks {
			set.add(i)
		}
		return appendBitmap(nil, kindPromise, set)
	}
	data := func(n int) []byte { return append(appendHead(nil, kindPiece, n), b[:n]...) }
	for name, bad := range map[string][]byte{
		"the same have twice":    have,
		"impossible chunk":       appendBitmap(nil, kindHave, bitmap{1: 1}),
		"promise of other chunk": promise(2),
		"promise twice":          slices.Concat(promise(0), promise(0)),
		"unpromised bytes":       data(10),
		"too many bytes":         slices.Concat(promise(0), bytes.Repeat(data(maxPiece), 17)),
		"empty piece":            slices.Concat(promise(0), appendHead(nil, kindPiece, 0)),
		"huge frame":             {0xff, 0xff, 0xff, 0xff, kindPiece},
		"empty frame":            {0, 0, 0, 0, kindHave},
		"unknown frame":          {0, 0, 0, 1, 99},
		"a fetcher's frame":      ask{count: 1, set: a.all()}.append(nil),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newNode(t, newMemory())
			h := holder(t, x, func(s network.Stream) {
				s.Write(have)
				if _, err := firstAsk(s); err != nil {
					return
				}
				s.Write(bad)
				io.Copy(io.Discard, s)
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var wg sync.WaitGroup
			wg.Go(func() { x.Fetch(ctx, a) })
			until(t, "it is blamed", func() bool { return x.Stats().Refused == 1 && x.sources.shunned(h.ID()) })
			cancel()
			wg.Wait()
		})
	}
}

func TestHostileFetchers(t *testing.T) {
	b := vectorOf(1, 20*ChunkSize)
	a := Announce(b)
	id := a.ID()
	hello := append(appendHead(nil, kindHello, 32), id[:]...)
	one := ask{count: maxWindow, set: a.all()}.append(nil)
	for name, bad := range map[string][]byte{
		"no hello":         one,
		"hello twice":      slices.Concat(hello, hello),
		"nothing asked":    slices.Concat(hello, ask{count: 1}.append(nil)),
		"none asked":       slices.Concat(hello, ask{set: a.all()}.append(nil)),
		"too many asked":   slices.Concat(hello, ask{count: maxWindow + 1, set: a.all()}.append(nil)),
		"asked in advance": slices.Concat(hello, one, one),
		"nothing got":      slices.Concat(hello, appendBitmap(nil, kindGot, bitmap{})),
		"got back":         slices.Concat(hello, appendBitmap(nil, kindGot, bitmap{1}), appendBitmap(nil, kindGot, bitmap{2})),
		"huge frame":       {0xff, 0xff, 0xff, 0xff, kindAsk},
		"a holder's frame": slices.Concat(hello, appendBitmap(nil, kindHave, a.all())),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newNode(t, newMemory())
			provide(t, x, b)
			h := newHost(t)
			connect(t, h, x.host)
			s, err := h.NewStream(t.Context(), x.host.ID(), x.protocol)
			if err != nil {
				t.Fatal(err)
			}
			s.Write(bad)
			until(t, "it is blamed", func() bool { return x.Stats().Refused == 1 })
			io.Copy(io.Discard, s) // ends
			s, err = h.NewStream(t.Context(), x.host.ID(), x.protocol)
			if err == nil {
				s.Write(hello)
				if n, _ := io.Copy(io.Discard, s); n > 0 {
					t.Error("it is served again at once")
				}
			}
			until(t, "nothing is left", func() bool {
				x.mu.Lock()
				defer x.mu.Unlock()
				return x.seats.Taken() == 0 && len(x.Exchange.uploads) == 0
			})
		})
	}
}

func TestStreamsAreBounded(t *testing.T) {
	x := newNode(t, newMemory())
	h := newHost(t)
	connect(t, h, x.host)
	var id [32]byte
	for i := range 2 * maxServedEach {
		if s, err := h.NewStream(t.Context(), x.host.ID(), x.protocol); err == nil {
			id[0] = byte(i)
			s.Write(append(appendHead(nil, kindHello, 32), id[:]...))
		}
	}
	until(t, "as many as may be are served", func() bool {
		if x.seats.Of(h.ID()) > maxServedEach {
			t.Fatal("more than may be are served")
		}
		x.mu.Lock()
		defer x.mu.Unlock()
		return x.seats.Of(h.ID()) == maxServedEach && len(x.Exchange.uploads) == maxServedEach
	})
}

func TestStrangers(t *testing.T) {
	n := clique(t, 2)
	b := vectorOf(1, ChunkSize)
	a := provide(t, n[0], b)
	n[0].allow = func(peer.ID) bool { return false }
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { n[1].Fetch(ctx, a) })
	until(t, "it is refused", func() bool { return n[1].sources.shunned(n[0].host.ID()) })
	cancel()
	wg.Wait()
	if n[0].Stats().BytesSent != 0 {
		t.Error("a stranger was served")
	}
}

// A fetch that is called off leaves no goroutine, stream, slot or turn behind.
func TestCancelFreesEverything(t *testing.T) {
	n := clique(t, 2)
	b := vectorOf(1, 8*ChunkSize)
	ctx, cancel := context.WithCancel(t.Context())
	n[1].store.put = func([32]byte, []byte) error { cancel(); return nil }
	a := provide(t, n[0], b)
	if _, err := n[1].Fetch(ctx, a); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	until(t, "no goroutine of the fetch runs", func() bool { return running("exchange.(*link)") == 0 })
	until(t, "the other side has ended too", func() bool {
		n[0].mu.Lock()
		defer n[0].mu.Unlock()
		n[0].slots.mu.Lock()
		defer n[0].slots.mu.Unlock()
		return n[0].seats.Taken() == 0 && n[0].slots.free == maxSlots && len(n[0].slots.waiting) == 0
	})
	for _, g := range n[0].vectors[a.ID()].given {
		if g.times > 1 {
			t.Error("given twice")
		}
	}
	n[1].store.put = nil
	if err := fetch(t, n[1], a, b); err != nil {
		t.Fatal(err)
	}
	n[0].Close()
	n[1].Close()
	until(t, "no goroutine runs after Close", func() bool { return running("exchange.(*") == 0 })
	if _, err := n[1].Fetch(t.Context(), Announce([]byte("x"))); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func running(f string) int {
	buf := make([]byte, 8<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), f)
}

func TestAnnouncement(t *testing.T) {
	b := vectorOf(1, 2*ChunkSize+2)
	a := Announce(b)
	if err := a.Check(); err != nil || len(a.Chunks) != 3 || a.Size != uint64(len(b)) {
		t.Fatalf("%d chunks, %v", len(a.Chunks), err)
	}
	enc, err := record.Encode(a)
	if err != nil {
		t.Fatal(err)
	}
	var back Announcement
	if err := record.Decode(enc, &back); err != nil || back.ID() != a.ID() {
		t.Errorf("%v", err)
	}
	for _, other := range []Announcement{
		{Size: a.Size - 1, Chunks: a.Chunks},
		{Size: a.Size, Chunks: append(slices.Clone(a.Chunks[:2]), [32]byte{})},
	} {
		if err := other.Check(); err != nil || other.ID() == a.ID() {
			t.Errorf("%v, the same ID: %v", err, other.ID() == a.ID())
		}
	}
	for _, bad := range []Announcement{
		{}, {Size: 1}, {Chunks: make([][32]byte, 1)}, {Size: 1, Chunks: make([][32]byte, 2)},
		{Size: MaxSize + 1, Chunks: make([][32]byte, maxChunks+1)}, {Size: 1 << 63}, {Size: ^uint64(0)},
	} {
		x := newNode(t, newMemory())
		if _, err := x.Hold(author, bad); bad.Check() == nil || err == nil {
			t.Errorf("size %d with %d chunks passes", bad.Size, len(bad.Chunks))
		}
	}
	largest := Announcement{Size: MaxSize, Chunks: make([][32]byte, maxChunks)}
	if err := largest.Check(); err != nil || largest.all().count() != maxChunks {
		t.Errorf("the largest: %v", err)
	}
}

func TestPick(t *testing.T) {
	a := Announcement{Size: 4 * ChunkSize, Chunks: make([][32]byte, 4)}
	now := time.Now()
	v := &vector{announcement: a, have: a.all()}
	v.given[0] = given{1, now.Add(time.Second)} // on its way round
	v.given[1] = given{1, now}                  // should have come round by now
	v.given[2] = given{maxGiven, now.Add(time.Second)}
	sorted := func(count int, patient bool) []int {
		out := v.pick(ask{count, patient, a.all()}, now)
		slices.Sort(out)
		return out
	}
	for i, c := range []struct{ got, want []int }{
		{sorted(1, true), []int{3}},
		{sorted(2, true), []int{1, 3}},
		{sorted(8, true), []int{1, 2, 3}},
		{sorted(8, false), []int{0, 1, 2, 3}},
		{v.pick(ask{8, true, bitmap{1}}, now), []int{}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("case %d: %v instead of %v", i, c.got, c.want)
		}
	}
	v.have.remove(3) // who has not all sends what it has
	if got := sorted(8, true); !slices.Equal(got, []int{0, 1, 2}) {
		t.Errorf("of a part: %v", got)
	}
}

func TestSlots(t *testing.T) {
	s := newSlots[string](maxSlots, 1)
	is := func(ticket *ticket[string]) bool {
		select {
		case <-ticket.granted:
			return true
		default:
			return false
		}
	}
	var hold []*ticket[string]
	for i := range maxSlots - 1 {
		hold = append(hold, s.request(fmt.Sprint(i)))
	}
	a1, a2, a3 := s.request("a"), s.request("a"), s.request("a")
	b1, b2, c1 := s.request("b"), s.request("b"), s.request("c")
	if !is(a1) || is(a2) || is(b1) {
		t.Fatal("one to a peer, and no more than there are")
	}
	if !s.wanted(a1) || !s.wanted(hold[0]) {
		t.Error("others wait, and no place is wanted")
	}
	s.release(c1, true) // while it waits
	s.release(a1, true)
	if !is(b1) || is(a2) {
		t.Error("a had a turn, now it is b's")
	}
	s.release(b1, true)
	if !is(a2) || is(b2) {
		t.Error("b had a turn, now it is a's")
	}
	s.release(b2, true)
	if !s.wanted(a2) || s.wanted(hold[0]) {
		t.Error("a waits, and may have no other place but its own")
	}
	for _, ticket := range append(hold, a2, a3) {
		s.release(ticket, true)
	}
	if s.free != maxSlots || len(s.waiting) > 0 || len(s.busy) > 0 {
		t.Errorf("%d free, %d waiting, %d busy", s.free, len(s.waiting), len(s.busy))
	}
	// Who made nothing of a place gets half of them, until it makes something of one.
	s = newSlots[string](8, 8)
	s.release(s.request("idler"), false)
	var idle []*ticket[string]
	for range 6 {
		idle = append(idle, s.request("idler"))
	}
	if !is(idle[3]) || is(idle[4]) || !is(s.request("d")) {
		t.Error("an idler has not half of the places")
	}
	if s.release(idle[0], false); !is(idle[4]) || is(idle[5]) {
		t.Error("an idler gets no place for one, or two")
	}
	if s.release(idle[1], true); !is(idle[5]) {
		t.Error("who makes something of a place is still an idler")
	}
}

func TestPenalties(t *testing.T) {
	var l penalties
	for i := range 2 * maxPenalties {
		l.punish(peer.ID(fmt.Sprint(i)), forFailing)
	}
	if len(l.peers) > maxPenalties {
		t.Errorf("%d are remembered", len(l.peers))
	}
	for range 20 {
		l.punish("a", forLying)
	}
	if got := l.peers["a"].wait; got != forLying[1] {
		t.Errorf("longest %v", got)
	}
	if l.forgive("a"); l.shunned("a") {
		t.Error("forgiven and shunned")
	}
}

// More peers than links: those with nothing make room.
func TestMakeRoom(t *testing.T) {
	x := newNode(t, newMemory())
	b := vectorOf(1, ChunkSize)
	a := provide(t, x, b)
	tr := &transfer{x: x.Exchange, links: make(map[peer.ID]*link), missing: a.all()}
	for i := range maxLinks {
		ctx, stop := context.WithCancelCause(t.Context())
		l := &link{t: tr, open: true, stop: stop}
		if i > 0 {
			l.have = a.all()
		}
		tr.links[peer.ID(fmt.Sprint(i))] = l
		if i == 0 {
			defer func() {
				if context.Cause(ctx) != errNoUse {
					t.Error("the one with nothing stays")
				}
			}()
		}
	}
	tr.makeRoom()
}

func FuzzFetchersFrames(f *testing.F) {
	a := Announcement{Size: 100, Chunks: make([][32]byte, 1)}
	good := ask{count: 1, patient: true, set: a.all()}.append(nil)
	f.Add(good)
	f.Add(slices.Concat(good, good))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		readHello(bytes.NewReader(b))
		if got, err := firstAsk(bytes.NewReader(b)); err == nil && !bytes.Equal(got.append(nil), b[:len(good)]) {
			t.Errorf("%x is read as %+v", b, got)
		}
		v := &vector{announcement: a, have: a.all(), credits: make(map[peer.ID]*credit)}
		x := &Exchange{vectors: map[[32]byte]*vector{{}: v}}
		u := &upload{x: x, wake: make(chan struct{}, 1)}
		u.read(t.Context(), bytes.NewReader(b))
		if len(u.promise)+len(u.unheard) > maxWindow {
			t.Errorf("%d chunks are promised", len(u.promise))
		}
	})
}

func FuzzHoldersFrames(f *testing.F) {
	body := []byte("the bytes of a vector")
	a := Announce(body)
	have, promise := appendBitmap(nil, kindHave, a.all()), appendBitmap(nil, kindPromise, a.all())
	data := append(appendHead(nil, kindPiece, len(body)), body...)
	f.Add(slices.Concat(have, promise, data))
	f.Add(slices.Concat(have, promise, data[:9]))
	f.Add(slices.Concat(have, promise, data, data))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 5})
	f.Fuzz(func(t *testing.T, b []byte) {
		x := &Exchange{
			store: newMemory(), log: slog.New(slog.DiscardHandler),
			uploads: make(map[[32]byte]map[*upload]struct{}), needed: map[[32]byte]int{a.Chunks[0]: 1},
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		places := 0
		tr := &transfer{
			x: x, v: &vector{announcement: a}, ctx: ctx, cancel: cancel, news: make(chan struct{}, 1),
			place:   func(i int) []byte { places++; return make([]byte, a.chunkLen(i)) },
			drop:    func([]byte) { places-- },
			missing: a.all(),
		}
		l := &link{t: tr, wake: make(chan struct{}, 1), stop: cancel, window: 2, open: true}
		tr.links = map[peer.ID]*link{"p": l}
		pieces := make(chan piece, 1)
		done := make(chan struct{})
		go func() { l.verify(pieces); close(done) }()
		written := make(chan struct{})
		go func() {
			defer close(written)
			for range l.wake {
				l.words()
			}
		}()
		l.read(bytes.NewReader(b), pieces)
		close(pieces)
		<-done
		tr.wg.Wait()
		close(l.wake)
		<-written
		if places != 0 {
			t.Errorf("%d places are lost", places)
		}
		if tr.kept.has(0) {
			if got, err := x.store.Chunk(a.Chunks[0]); err != nil || !bytes.Equal(got, body) {
				t.Errorf("kept %q, %v", got, err)
			}
		}
	})
}
