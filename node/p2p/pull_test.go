package p2p

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"village/protocol/record"
)

// sinner has n shun p three times, and the last penalty run out.
func sinner(n *node, p peer.ID) {
	for range 3 {
		n.accounts.punish(p)
	}
	n.accounts.mu.Lock()
	defer n.accounts.mu.Unlock()
	n.accounts.peers[p].until = time.Now()
}

func penalty(n *node, p peer.ID) time.Duration {
	n.accounts.mu.Lock()
	defer n.accounts.mu.Unlock()
	return n.accounts.peers[p].penalty
}

// A peer that has served a pull as it should starts anew: penalties double for
// those who fail time after time, and not for one that fails now and then.
func TestPullForgives(t *testing.T) {
	a, b := startNode(t, "a", newStore(manifest(t, "a", "r"))), startNode(t, "b", newStore())
	b.pulls.begin(a.host.ID()) // no other pull comes between
	dial(t, b, a)
	sinner(b, a.host.ID())
	if got := penalty(b, a.host.ID()); got != 4*penaltyMin {
		t.Fatalf("a penalty of %v after three", got)
	}
	b.pullFrom(a.host.ID())
	if got := penalty(b, a.host.ID()); got != 0 {
		t.Errorf("still a penalty of %v after a good pull", got)
	}
	// Nor does it matter that there was too much for one conversation.
	for i := range maxPull/(record.MaxBytes-1000) + 2 {
		a.put(sign(t, "a", federation, record.KindManifest, fmt.Sprint("large ", i), 1, record.MaxBytes-1000))
	}
	sinner(b, a.host.ID())
	if more := b.pullFrom(a.host.ID()); !more || penalty(b, a.host.ID()) != 0 {
		t.Errorf("more to fetch: %v, a penalty of %v", more, penalty(b, a.host.ID()))
	}
	// One that breaks the protocol is not forgiven.
	sinner(b, a.host.ID())
	a.host.SetStreamHandler(a.names.pull, func(s network.Stream) {
		_ = writeFrame(s, []byte("garbage"))
		_ = s.Close()
	})
	if b.pullFrom(a.host.ID()); !b.accounts.shunned(a.host.ID()) || penalty(b, a.host.ID()) != 8*penaltyMin {
		t.Errorf("a penalty of %v after garbage", penalty(b, a.host.ID()))
	}
}

// All else refers to the catalogue, so that it is asked for alone and first,
// wherever its name stands: a peer need not list what it was asked for in order.
func TestTheCatalogueIsAskedForFirst(t *testing.T) {
	a, b := startNode(t, "a", newStore()), startNode(t, "b", newStore())
	offer := summary{Groups: []groupDigest{{Name: "a task"}, {Name: "b task"}, {Name: record.Catalogue}, {Name: "d task"}}}
	var mu sync.Mutex
	var asked [][]string
	a.host.SetStreamHandler(a.names.pull, func(s network.Stream) {
		defer s.Close()
		if _, err := readFrame(s, maxSummary); err != nil {
			return
		}
		_ = writeMessage(s, offer)
		var groups []string
		for {
			b, err := readFrame(s, maxAsk)
			if err != nil {
				break
			}
			m, _ := decodeAsk(b)
			groups = append(groups, fmt.Sprint(m.Groups))
			_ = writeMessage(s, listing{})
		}
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, groups)
	})
	b.pulls.begin(a.host.ID()) // no other pull comes between
	dial(t, b, a)
	for range 10 { // the others come in random order
		b.pullFrom(a.host.ID())
	}
	until(t, "the peer knows that ten pulls are over", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(asked) == 10
	})
	mu.Lock()
	defer mu.Unlock()
	for _, groups := range asked {
		if len(groups) != 2 || groups[0] != fmt.Sprint([]string{record.Catalogue}) {
			t.Fatalf("asked for %q", groups)
		}
	}
	// What is held alike is not asked for.
	differ := differing(summary{Groups: offer.Groups[1:3]}, offer)
	if slices.Sort(differ); !slices.Equal(differ, []string{"a task", "d task"}) {
		t.Errorf("asks for %q", differ)
	}
}

// A peer that asks for much is served at its pace, and holds up nobody for longer
// than a conversation may last.
func TestServedAtAPace(t *testing.T) {
	a := newAccounts()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	m := metered{&out, a.served("p"), ctx}
	frame := make([]byte, record.MaxBytes)
	for range servedBurst / len(frame) {
		if _, err := m.Write(frame); err != nil {
			t.Fatal(err)
		}
	}
	a.served("p").ReserveN(time.Now(), servedBurst)
	for range 60 * servedRate / servedBurst {
		a.served("p").ReserveN(time.Now(), servedBurst)
	}
	if _, err := m.Write(frame); err == nil || out.Len() != servedBurst {
		t.Errorf("%d bytes were served, %v", out.Len(), err)
	}
	if _, err := (metered{&out, a.served("another"), ctx}).Write(frame); err != nil {
		t.Errorf("another peer is held up: %v", err)
	}
}
