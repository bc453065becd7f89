// Package seats shares out what a node has few of, such as streams that it serves,
// among its peers: however many seats others have taken, and however slow they are,
// a peer that has few gets one.
package seats

import (
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Seats are a number of seats. Their methods may be called at the same time.
type Seats struct {
	all, each int
	prefer    func(peer.ID) bool

	mu    sync.Mutex
	taken int
	of    map[peer.ID][]*seat // oldest first
}

type seat struct{ up func() }

// New returns so many seats, and so many for each peer at most. The seats of those
// that prefer accepts, which any goroutine may call, weigh less than others'.
func New(all, each int, prefer func(peer.ID) bool) *Seats {
	return &Seats{all: all, each: each, prefer: prefer, of: make(map[peer.ID][]*seat)}
}

// Take gives a peer a seat, until it leaves it or up is called: where all are
// taken, the peer whose seats weigh most gives up its oldest one, if they weigh more
// than those of this peer then do.
func (s *Seats) Take(p peer.ID, up func()) (leave func(), ok bool) {
	mine := &seat{up}
	last, ok := s.take(p, mine)
	if !ok {
		return nil, false
	}
	if last != nil {
		last.up()
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.free(p, mine)
	}, true
}

func (s *Seats) take(p peer.ID, mine *seat) (last *seat, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.of[p]) >= s.each {
		return nil, false
	}
	if s.taken >= s.all {
		heaviest, weight := p, s.weight(p, 1)
		for other := range s.of {
			if w := s.weight(other, 0); w > weight {
				heaviest, weight = other, w
			}
		}
		if heaviest == p {
			return nil, false
		}
		last = s.of[heaviest][0]
		s.free(heaviest, last)
	}
	s.of[p] = append(s.of[p], mine)
	s.taken++
	return last, true
}

// weight is what a peer's seats weigh, with so many more of them.
func (s *Seats) weight(p peer.ID, more int) int {
	n := len(s.of[p]) + more
	if !s.prefer(p) {
		n *= 4
	}
	return n
}

// free frees a seat, unless it is free already.
func (s *Seats) free(p peer.ID, mine *seat) {
	i := slices.Index(s.of[p], mine)
	if i < 0 {
		return
	}
	s.taken--
	if s.of[p] = slices.Delete(s.of[p], i, i+1); len(s.of[p]) == 0 {
		delete(s.of, p)
	}
}

// Of is how many seats a peer has.
func (s *Seats) Of(p peer.ID) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.of[p])
}

// Taken is how many seats all have.
func (s *Seats) Taken() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}
