package artifacts

import (
	"sync"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// streamsPerPeer is how many streams of one peer are read at the same time. On
// each, Bitswap allocates up to 4 MiB for what the peer says will come; further
// streams wait, in windows that the resource manager has booked.
const streamsPerPeer = 16

// limited is a host that holds each peer to a number of streams.
type limited struct {
	host.Host

	mu        sync.Mutex
	protocols []protocol.ID
	peers     map[peer.ID]*seats
}

// seats are what a peer's streams share, while there are any.
type seats struct {
	taken   chan struct{} // has streamsPerPeer places
	streams int           // under limited.mu
}

func limit(h host.Host) *limited { return &limited{Host: h, peers: map[peer.ID]*seats{}} }

func (l *limited) SetStreamHandler(id protocol.ID, handle network.StreamHandler) {
	l.mu.Lock()
	l.protocols = append(l.protocols, id)
	l.mu.Unlock()
	l.Host.SetStreamHandler(id, func(s network.Stream) {
		p := s.Conn().RemotePeer()
		seats := l.enter(p)
		defer l.leave(p, seats)
		seats.taken <- struct{}{}
		defer func() { <-seats.taken }()
		handle(s)
	})
}

func (l *limited) enter(p peer.ID) *seats {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.peers[p] == nil {
		l.peers[p] = &seats{taken: make(chan struct{}, streamsPerPeer)}
	}
	l.peers[p].streams++
	return l.peers[p]
}

func (l *limited) leave(p peer.ID, s *seats) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.streams--; s.streams == 0 {
		delete(l.peers, p)
	}
}

// close takes no further streams.
func (l *limited) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range l.protocols {
		l.RemoveStreamHandler(id)
	}
}
