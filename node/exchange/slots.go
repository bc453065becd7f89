package exchange

import (
	"slices"
	"sync"
)

// slots hands out a number of places, so many to each who asks at most, and to one
// after the other: those with more to do wait behind those who had no turn yet. They
// who made nothing of their last place share half of the places.
type slots[K comparable] struct {
	mu         sync.Mutex
	free, half int
	each       int
	busy       map[K]int
	idlers     map[K]bool   // who made nothing of their last place
	waiting    []*ticket[K] // in order of arrival, but for those of one that had a turn
}

type ticket[K comparable] struct {
	of      K
	idler   bool          // when it was granted
	granted chan struct{} // closed
}

const maxIdlers = 4096

func newSlots[K comparable](all, each int) *slots[K] {
	return &slots[K]{free: all, half: all / 2, each: each, busy: make(map[K]int), idlers: make(map[K]bool)}
}

func (s *slots[K]) request(of K) *ticket[K] {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &ticket[K]{of: of, granted: make(chan struct{})}
	s.waiting = append(s.waiting, t)
	s.grant()
	return t
}

// release gives back a ticket, granted or not, and says whether something came of
// the place. Nil is none.
func (s *slots[K]) release(t *ticket[K], useful bool) {
	if t == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.waiting, t); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
		return
	}
	s.move(t, -1)
	if useful {
		delete(s.idlers, t.of)
	} else {
		if len(s.idlers) >= maxIdlers {
			clear(s.idlers)
		}
		s.idlers[t.of] = true
	}
	// It was its turn: its other tickets queue up behind all others.
	var others, its []*ticket[K]
	for _, w := range s.waiting {
		if w.of == t.of {
			its = append(its, w)
		} else {
			others = append(others, w)
		}
	}
	s.waiting = append(others, its...)
	s.grant()
}

// wanted says whether somebody would get the place of a granted ticket.
func (s *slots[K]) wanted(t *ticket[K]) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.move(t, -1)
	defer s.move(t, 1)
	return slices.ContainsFunc(s.waiting, s.may)
}

// may says whether a ticket may be granted now.
func (s *slots[K]) may(t *ticket[K]) bool {
	return s.free > 0 && s.busy[t.of] < s.each && (!s.idlers[t.of] || s.half > 0)
}

// move counts a place as taken by a ticket, or as given back.
func (s *slots[K]) move(t *ticket[K], n int) {
	s.free -= n
	if t.idler {
		s.half -= n
	}
	if s.busy[t.of] += n; s.busy[t.of] == 0 {
		delete(s.busy, t.of)
	}
}

func (s *slots[K]) grant() {
	for {
		i := slices.IndexFunc(s.waiting, s.may)
		if i < 0 {
			return
		}
		t := s.waiting[i]
		s.waiting = slices.Delete(s.waiting, i, i+1)
		t.idler = s.idlers[t.of]
		s.move(t, 1)
		close(t.granted)
	}
}
