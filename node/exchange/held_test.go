package exchange

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"village/protocol/record"
)

func hold(t testing.TB, x *Exchange, by record.NodeID, a Announcement) *Held {
	t.Helper()
	h, err := x.Hold(by, a)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestSharedChunks: a chunk goes when the last vector goes that has it.
func TestSharedChunks(t *testing.T) {
	x := newNode(t, newMemory())
	one := vectorOf(1, 2*ChunkSize)
	two := slices.Concat(one[:ChunkSize], vectorOf(2, 10), nil)
	a, err := x.Exchange.Provide(author, one)
	if err != nil {
		t.Fatal(err)
	}
	again := hold(t, x.Exchange, author, a.Announcement())
	b, err := x.Exchange.Provide(record.NodeID{2}, two)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		release *Held
		left    int
	}{{a, 3}, {a, 3}, {again, 2}, {b, 0}} {
		if c.release.Release(); x.store.count() != c.left {
			t.Errorf("release %d: %d chunks are left instead of %d", i, x.store.count(), c.left)
		}
	}
	if len(x.needed)+len(x.vectors) != 0 {
		t.Errorf("%d chunks are needed, of %d vectors", len(x.needed), len(x.vectors))
	}
	if _, err := b.Fetch(t.Context()); err == nil {
		t.Error("fetched what is not held")
	}
}

// TestNothingIsStoredOfWhatIsReleased: a chunk on its way to the disk is deleted
// with its vector, and none comes after.
func TestNothingIsStoredOfWhatIsReleased(t *testing.T) {
	n := clique(t, 2)
	b := vectorOf(1, 3*ChunkSize)
	a := provide(t, n[0], b)
	h := hold(t, n[1].Exchange, author, a)
	var once sync.Once
	var releasing sync.WaitGroup
	n[1].store.put = func([32]byte, []byte) error {
		once.Do(func() { releasing.Go(h.Release) })
		return nil
	}
	// All of it may have come before the release, which another goroutine makes.
	if _, err := h.Fetch(t.Context()); err != nil && !errors.Is(err, ErrReleased) {
		t.Errorf("fetched: %v", err)
	}
	releasing.Wait()
	if got := n[1].store.count(); got != 0 {
		t.Errorf("%d chunks are left", got)
	}
}

// TestQuota: what is relayed is bounded for each author and in all, and half of it
// is left to those who are preferred; what a node needs itself is not refused.
func TestQuota(t *testing.T) {
	x := newNode(t, newMemory())
	known := record.NodeID{99}
	x.prefer = func(p peer.ID) bool { return p.String() == known.String() }
	next := byte(0)
	relay := func(by record.NodeID) (*Held, error) {
		next++
		a := Announcement{Size: 32 << 20, Chunks: make([][32]byte, 32)}
		for i := range a.Chunks {
			a.Chunks[i] = [32]byte{next, byte(i)}
		}
		return x.Relay(by, a)
	}
	var held []*Held
	fill := func(by record.NodeID) (n int) {
		for {
			h, err := relay(by)
			if errors.Is(err, ErrQuota) {
				return n
			}
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, h)
			n++
		}
	}
	for i, want := range []int{4, 4, 0} { // 128 MiB each, 256 MiB of all strangers
		if got := fill(record.NodeID{byte(i + 1)}); got != want {
			t.Errorf("author %d: %d vectors are relayed instead of %d", i, got, want)
		}
	}
	if got := fill(known); got != 4 {
		t.Errorf("%d vectors are relayed of the author that is preferred", got)
	}
	held[0].Release()
	held[0].Release()
	if got := fill(record.NodeID{3}); got != 0 {
		t.Errorf("strangers have taken %d places of the one that is preferred", got)
	}
	for _, h := range held {
		h.Release()
	}
	if x.relayed.all != 0 || len(x.relayed.each) != 0 || len(x.vectors) != 0 {
		t.Errorf("%d bytes are still counted, of %d authors", x.relayed.all, len(x.relayed.each))
	}
	for range 3 * maxRelayedEach / (32 << 20) {
		next++
		hold(t, x.Exchange, author, Announcement{Size: 32 << 20, Chunks: make([][32]byte, 32)})
	}
}

// phantoms has x fetch many vectors that nobody has, of some authors.
func phantoms(t *testing.T, x *node, authors, each int) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range authors {
		for j := range each {
			h := hold(t, x.Exchange, record.NodeID{100 + byte(i)}, Announcement{Size: ChunkSize, Chunks: [][32]byte{{byte(i), byte(j), 1}}})
			wg.Go(func() { h.Fetch(ctx) })
		}
	}
	until(t, "all turns are taken, or those of the author", func() bool {
		x.turns.mu.Lock()
		defer x.turns.mu.Unlock()
		return x.turns.free == max(0, maxActive-maxActiveEach*authors)
	})
	return func() { cancel(); wg.Wait() }
}

// TestPhantoms: vectors that are announced and that nobody has keep no turn from
// those that somebody has.
func TestPhantoms(t *testing.T) {
	for name, authors := range map[string]int{"of one author": 1, "of many": 2 * maxActive} {
		t.Run(name, func(t *testing.T) {
			n := clique(t, 2)
			stop := phantoms(t, n[1], authors, 10)
			defer stop()
			b := vectorOf(1, 3*ChunkSize)
			if err := fetch(t, n[1], provide(t, n[0], b), b); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestHoldersThatSendNothing: who claims to have many vectors and sends none of
// them keeps no turn either.
func TestHoldersThatSendNothing(t *testing.T) {
	x := newNode(t, newMemory())
	x.dead, x.stall = patience, 20*time.Millisecond
	hanging := holder(t, x, func(s network.Stream) {
		s.Write(appendBitmap(nil, kindHave, bitmap{1}))
		io.Copy(io.Discard, s)
	})
	stop := phantoms(t, x, 2*maxActive, 1)
	defer stop()
	x.sources.forgive(hanging.ID())
	honest := newNode(t, newMemory())
	connect(t, x.host, honest.host)
	b := vectorOf(1, 3*ChunkSize)
	if err := fetch(t, x, provide(t, honest, b), b); err != nil {
		t.Error(err)
	}
}

// TestSlowStreams: many streams of peers that ask and read nothing keep nobody
// waiting for a slot.
func TestSlowStreams(t *testing.T) {
	x := newNode(t, newMemory())
	big := vectorOf(1, 40*ChunkSize)
	a := provide(t, x, big)
	id := a.ID()
	for range 10 {
		h := newHost(t)
		connect(t, h, x.host)
		for range 16 {
			s, err := h.NewStream(t.Context(), x.host.ID(), x.protocol)
			if err != nil {
				t.Fatal(err)
			}
			s.Write(append(append(appendHead(nil, kindHello, 32), id[:]...), ask{count: maxWindow, set: a.all()}.append(nil)...))
		}
	}
	until(t, "all slots are taken by those who read nothing", func() bool {
		x.slots.mu.Lock()
		defer x.slots.mu.Unlock()
		return x.slots.free == 0 && len(x.slots.waiting) > 100
	})
	until(t, "they have half of them", func() bool {
		x.slots.mu.Lock()
		defer x.slots.mu.Unlock()
		return len(x.slots.idlers) == 10 && x.slots.free == maxSlots/2
	})
	b := vectorOf(2, 20*ChunkSize)
	provide(t, x, b)
	y := newNode(t, newMemory())
	connect(t, y.host, x.host)
	if err := fetch(t, y, Announce(b), b); err != nil {
		t.Error(err)
	}
}

// TestAskingAgain: a peer gets a vector a few times, and then not for a while,
// however often it asks and says that it has got it.
func TestAskingAgain(t *testing.T) {
	x := newNode(t, newMemory())
	a := provide(t, x, vectorOf(1, 2*ChunkSize))
	v := x.vectors[a.ID()]
	u := &upload{x: x.Exchange, peer: "greedy", id: a.ID(), wake: make(chan struct{}, 1)}
	promised := 0
	for i := range 20 {
		if _, err := u.admit(ask{count: 2, set: a.all()}); err != nil {
			t.Fatal(err)
		}
		promised += u.answer.count()
		u.answer, u.promise, u.unheard = nil, nil, nil // sent, and got
		if i == 10 && v.credits["greedy"].bytes >= ChunkSize {
			t.Errorf("%d bytes are left", v.credits["greedy"].bytes)
		}
	}
	if promised != 2*maxDraws {
		t.Errorf("%d chunks were promised of a vector of 2", promised)
	}
	now := time.Now()
	if got := v.credit("greedy", now.Add(creditTime)).bytes; got < int64(a.Size) {
		t.Errorf("after a while, %d bytes", got)
	}
	if got := v.credit("greedy", now.Add(100*creditTime)).bytes; got != int64(maxDraws*a.Size) {
		t.Errorf("after a long while, %d bytes", got)
	}
	for i := range 2 * maxCredits {
		v.credit(peer.ID(fmt.Sprint(i)), now)
	}
	if len(v.credits) > maxCredits {
		t.Errorf("%d peers are remembered", len(v.credits))
	}

	// What was promised and never sent is not charged.
	u = &upload{x: x.Exchange, peer: "honest", id: a.ID(), wake: make(chan struct{}, 1)}
	if _, err := u.admit(ask{count: 2, set: a.all()}); err != nil {
		t.Fatal(err)
	}
	x.unsubscribe(u)
	if got := v.credits["honest"].bytes; got != int64(maxDraws*a.Size) {
		t.Errorf("%d bytes for one who got none", got)
	}
}
