package artifacts

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"golang.org/x/time/rate"

	"village/node/seats"
)

const (
	// streamsPerPeer is how many streams of one peer are read at the same time;
	// further ones wait, in windows that the resource manager has booked.
	streamsPerPeer = 8
	// Bitswap allocates up to 4 MiB for what a peer says will come. So many
	// messages above smallMessage are read at the same time, in all and of a peer,
	// whose other ones wait.
	largeMessages, largePerPeer = 16, 4
	smallMessage                = 64 << 10

	// A stream on which nothing comes for idleTime is closed; the other side opens
	// another one when it has something to say. A message comes at slowest so fast.
	idleTime    = 5 * time.Minute
	messageTime = 15 * time.Second
	slowest     = 16 << 10 // bytes a second

	// What a peer is sent: so many bytes a second, after so many at once. A node
	// needs a block once, and a model with its inputs has less than that.
	drawRate, drawBurst = 8 << 20, 256 << 20
	maxDrawers          = 4096
)

var (
	errDrawn  = errors.New("the peer has been sent as much as it may be for now")
	errLength = errors.New("the message is too large, or there are too many")
)

// limited is a host that holds each peer to a number of streams, to a pace, and to
// some bytes of answers.
type limited struct {
	host.Host
	large *seats.Seats

	mu        sync.Mutex
	protocols []protocol.ID
	reading   map[peer.ID]*reading
	drawers   map[peer.ID]*rate.Limiter
}

// reading is what a peer's streams share, while there are any.
type reading struct {
	turns   chan struct{} // has streamsPerPeer places
	large   chan struct{} // has largePerPeer
	streams int           // under limited.mu
}

func limit(h host.Host, prefer func(peer.ID) bool) *limited {
	return &limited{
		Host: h, large: seats.New(largeMessages, largePerPeer, prefer),
		reading: map[peer.ID]*reading{}, drawers: map[peer.ID]*rate.Limiter{},
	}
}

func (l *limited) SetStreamHandler(id protocol.ID, handle network.StreamHandler) {
	l.mu.Lock()
	l.protocols = append(l.protocols, id)
	l.mu.Unlock()
	l.Host.SetStreamHandler(id, func(s network.Stream) {
		p := s.Conn().RemotePeer()
		r := l.enter(p)
		defer l.leave(p, r)
		r.turns <- struct{}{}
		defer func() { <-r.turns }()
		in := &incoming{Stream: s, mine: r.large, all: l.large}
		defer in.done()
		handle(in)
	})
}

func (l *limited) enter(p peer.ID) *reading {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reading[p] == nil {
		l.reading[p] = &reading{turns: make(chan struct{}, streamsPerPeer), large: make(chan struct{}, largePerPeer)}
	}
	l.reading[p].streams++
	return l.reading[p]
}

func (l *limited) leave(p peer.ID, r *reading) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.streams--; r.streams == 0 {
		delete(l.reading, p)
	}
}

// incoming is a stream of messages, each behind its length as a varint, whose memory
// is taken before Bitswap hears of the length.
type incoming struct {
	network.Stream
	mine  chan struct{} // places for large messages, of the peer
	all   *seats.Seats  // and of all
	leave func()        // the place of the message that is read, if it is large

	length uint64 // as far as it has come
	shift  uint
	left   uint64 // of the message, to be read
}

func (s *incoming) Read(b []byte) (int, error) {
	if s.left > 0 {
		n, err := s.Stream.Read(b[:min(uint64(len(b)), s.left)])
		if s.left -= uint64(n); s.left == 0 {
			s.done()
		}
		return n, err
	}
	if s.shift == 0 {
		_ = s.SetReadDeadline(time.Now().Add(idleTime))
	}
	n, err := s.Stream.Read(b[:min(len(b), 1)])
	if n == 1 {
		if refused := s.digit(b[0]); refused != nil {
			return 0, refused // with the byte, many readers would overlook it
		}
	}
	return n, err
}

// digit takes a byte of a length in.
func (s *incoming) digit(b byte) error {
	s.length |= uint64(b&0x7f) << s.shift
	if s.shift += 7; b >= 0x80 {
		if s.shift > 28 {
			return errLength
		}
		return nil
	}
	size := s.length
	s.length, s.shift, s.left = 0, 0, size
	if size > smallMessage {
		s.mine <- struct{}{}
		leave, ok := s.all.Take(s.Conn().RemotePeer(), func() { _ = s.Reset() })
		if !ok {
			<-s.mine
			return errLength
		}
		s.leave = func() { leave(); <-s.mine }
	}
	return s.SetReadDeadline(time.Now().Add(messageTime + time.Duration(size)*time.Second/slowest))
}

func (s *incoming) done() {
	if s.leave != nil {
		s.leave()
		s.leave = nil
	}
}

// NewStream opens a stream on which what is sent is counted.
func (l *limited) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	s, err := l.Host.NewStream(ctx, p, ids...)
	if err != nil {
		return nil, err
	}
	return &outgoing{s, l, p}, nil
}

type outgoing struct {
	network.Stream
	l *limited
	p peer.ID
}

// Write writes a message, but not one with blocks for a peer that has drawn enough:
// it may have asked for them when it had not yet.
func (s *outgoing) Write(b []byte) (int, error) {
	if len(b) > smallMessage && !s.l.mayDraw(s.p) {
		return 0, errDrawn
	}
	n, err := s.Stream.Write(b)
	s.l.draw(s.p, n)
	return n, err
}

// mayDraw says whether a peer may be sent more.
func (l *limited) mayDraw(p peer.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.drawers[p]
	return d == nil || d.Tokens() > 0
}

// draw counts what a peer was sent.
func (l *limited) draw(p peer.ID, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.drawers[p]
	if d == nil {
		if len(l.drawers) >= maxDrawers {
			for old := range l.drawers { // any
				delete(l.drawers, old)
				break
			}
		}
		d = rate.NewLimiter(drawRate, drawBurst)
		l.drawers[p] = d
	}
	d.ReserveN(time.Now(), n)
}

// close takes no further streams.
func (l *limited) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range l.protocols {
		l.RemoveStreamHandler(id)
	}
}
