package seats

import (
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

func TestSeats(t *testing.T) {
	const all, each = 512, 32
	var s *Seats
	ended := map[peer.ID]int{}
	take := func(p peer.ID) bool {
		_, ok := s.Take(p, func() { ended[p]++ })
		return ok
	}
	prefer := func(p peer.ID) bool { return p == "member" || p == "other member" }
	s = New(all, each, prefer)
	for i := range all {
		if !take(peer.ID(fmt.Sprint(i % (all / each)))) {
			t.Fatalf("seat %d is not given", i)
		}
	}
	if take("0") || len(ended) > 0 {
		t.Error("who has most gets more")
	}
	for _, p := range []peer.ID{"new", "member"} {
		for i := range each / 2 {
			if !take(p) {
				t.Errorf("seat %d of %s is not given", i, p)
			}
		}
	}
	if ended["new"] > 0 || ended["member"] > 0 || len(ended) < all/each/2 {
		t.Errorf("those have to go: %v", ended)
	}
	if s.Of("member") != each/2 || s.Taken() != all {
		t.Errorf("%d seats of the member, %d in all", s.Of("member"), s.Taken())
	}

	// Strangers with one seat each leave none, but to members.
	s = New(all, each, prefer)
	for i := range all {
		take(peer.ID(fmt.Sprint(i)))
	}
	if take("new") {
		t.Error("a stranger takes the only seat of another")
	}
	for range 3 {
		if !take("member") || !take("other member") {
			t.Error("a member gets none")
		}
	}
	if s.Taken() != all {
		t.Errorf("%d seats are taken", s.Taken())
	}
}

// TestLeaving: a seat is freed once, whether it was left or given up.
func TestLeaving(t *testing.T) {
	s := New(2, 2, func(peer.ID) bool { return false })
	ups := 0
	first, _ := s.Take("a", func() { ups++ })
	second, _ := s.Take("a", func() { ups++ })
	if _, ok := s.Take("a", nil); ok {
		t.Error("more than each may have")
	}
	third, ok := s.Take("b", nil)
	if !ok || ups != 1 || s.Of("a") != 1 {
		t.Errorf("given: %v, %d have to go, %d stay", ok, ups, s.Of("a"))
	}
	for range 2 {
		first()
		second()
		third()
	}
	if s.Taken() != 0 || len(s.of) != 0 {
		t.Errorf("%d seats are taken by %d", s.Taken(), len(s.of))
	}
}
