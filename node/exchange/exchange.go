// Package exchange carries large vectors between nodes: bytes that a signed
// [Announcement] names, in chunks that a node pulls from whichever neighbours
// hold them, and serves as soon as it has checked and kept them. The author
// sends each chunk about once, however many fetch at the same time: asked for
// chunks that nobody else has, it gives every fetcher different ones and leaves
// the rest to the fetchers.
//
// A node takes in and serves what it holds ([Exchange.Hold], [Exchange.Relay]) and
// nothing else. A chunk stays for as long as a vector that is held has it.
//
// Nothing has a time to be finished by. A peer is left for another when it is
// slow next to what others need for a chunk, and for a while when it hangs; a
// fetch goes on until it has everything or its context ends.
package exchange

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"village/node/seats"
)

var (
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("the vector exchange is closed")
	// ErrReleased ends a fetch of what is not held any more.
	ErrReleased = errors.New("the vector is not held any more")
	// ErrQuota refuses to relay more for an author, or for all.
	ErrQuota = errors.New("as many vectors are relayed as may be")
)

// ChunkStore keeps chunks by their SHA-256. Its methods are called by several
// goroutines at the same time. A chunk that it cannot return any more is fetched
// again, and not served until then.
type ChunkStore interface {
	// PutChunk keeps a copy of b, which hashes to hash and has at most
	// ChunkSize bytes. What it accepts from Provide must survive a crash.
	PutChunk(hash [32]byte, b []byte) error
	// Chunk returns bytes that hash to hash, which nobody changes, or an error.
	Chunk(hash [32]byte) ([]byte, error)
	HasChunk(hash [32]byte) bool
	// DeleteChunks deletes those that it has.
	DeleteChunks(hashes ...[32]byte) error
}

// Stats counts since the start.
type Stats struct {
	BytesSent     uint64 // of chunks, to peers
	BytesReceived uint64 // of chunks, from peers
	Refused       uint64 // chunks with wrong bytes, and streams that broke the protocol
}

// Exchange is a node's end of all transfers. Its methods may be called at the
// same time.
type Exchange struct {
	host     host.Host
	protocol protocol.ID
	store    ChunkStore
	allow    func(peer.ID) bool
	prefer   func(peer.ID) bool
	log      *slog.Logger

	// How long a peer that owes a chunk may send nothing: while another could
	// send it, and while nobody could.
	quiet, dead time.Duration
	// How long a fetch keeps its turn while others wait for one: while nobody has
	// anything for it, and while no chunk comes of those that have.
	search, stall time.Duration

	seats    *seats.Seats    // of streams that are served
	turns    *slots[peer.ID] // of fetches, by the author of the vector
	slots    *slots[peer.ID] // of chunks that are sent, by the fetcher
	sources  penalties       // not asked for a while
	fetchers penalties       // not served for a while

	sent, received, refused atomic.Uint64

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // streams that are served

	// storing is held shared while a chunk is stored, and alone while chunks that
	// nobody needs any more are deleted: so none comes after it was deleted.
	storing sync.RWMutex

	mu      sync.Mutex // of all below, and of what vectors, transfers, links and uploads say
	closed  bool
	vectors map[[32]byte]*vector
	needed  map[[32]byte]int                  // how often each chunk stands in these
	relayed relayed                           // bytes of these
	uploads map[[32]byte]map[*upload]struct{} // also of vectors that are not held yet
	pace    time.Duration                     // from the promise of a chunk until the fetcher has it, smoothed
}

// vector is one that is held, and served, whole or in part.
type vector struct {
	announcement Announcement
	holders      int
	have         bitmap
	given        [maxChunks]given
	credits      map[peer.ID]*credit
	fetching     chan struct{} // a token for the one fetch of it
}

// given is what has become of a chunk that this node holds.
type given struct {
	times int       // promised, and delivered or on its way
	until time.Time // when whoever got it last should have passed it on
}

const (
	// Fetches at the same time, in all and of one author's vectors; others wait.
	maxActive, maxActiveEach = 8, 2

	// Streams of fetchers, in all and each. A fetcher has one for each fetch.
	maxServed, maxServedEach = 512, 32

	// A stream moves some bytes in this time or is given up.
	moveTime = 15 * time.Second
	// A stream that takes so long for a piece leaves its slot to others meanwhile.
	slotTime = time.Second
)

// New serves vectors to, and fetches them from, the connected peers that allow
// accepts; for those that prefer accepts, places are kept free. Any goroutine may
// call these two. Exchanges of different federations have nothing to do with each
// other. A nil log is silent.
func New(h host.Host, federation string, store ChunkStore, allow, prefer func(peer.ID) bool, log *slog.Logger) *Exchange {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	// A federation's name may hold any character and need not be known to strangers.
	sum := sha256.Sum256([]byte("village federation\x00" + federation))
	x := &Exchange{
		host: h, protocol: protocol.ID("/village/" + hex.EncodeToString(sum[:16]) + "/vector/1"),
		store: store, allow: allow, prefer: prefer, log: log,
		quiet: 5 * time.Second, dead: 30 * time.Second, search: time.Second, stall: 10 * time.Second,
		seats: seats.New(maxServed, maxServedEach, prefer),
		turns: newSlots[peer.ID](maxActive, maxActiveEach), slots: newSlots[peer.ID](maxSlots, 1),
		vectors: make(map[[32]byte]*vector),
		needed:  make(map[[32]byte]int),
		relayed: relayed{each: make(map[peer.ID]uint64)},
		uploads: make(map[[32]byte]map[*upload]struct{}),
	}
	x.ctx, x.cancel = context.WithCancel(context.Background())
	h.SetStreamHandler(x.protocol, x.handle)
	return x
}

// Close ends all transfers. The store is not used by a peer's request when it
// returns, and by a fetch when that has returned too.
func (x *Exchange) Close() {
	x.host.RemoveStreamHandler(x.protocol)
	x.mu.Lock()
	x.closed = true
	x.mu.Unlock()
	x.cancel()
	x.wg.Wait()
}

// Stats returns the counters.
func (x *Exchange) Stats() Stats {
	return Stats{BytesSent: x.sent.Load(), BytesReceived: x.received.Load(), Refused: x.refused.Load()}
}

// changed tells the fetchers of a vector. x.mu is held.
func (x *Exchange) changed(id [32]byte) {
	for u := range x.uploads[id] {
		signal(u.wake)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// lost takes a chunk that the store failed to return out of what is served.
func (x *Exchange) lost(v *vector, i int, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if v.holders == 0 {
		return // it was deleted meanwhile
	}
	x.log.Warn("a chunk of a vector cannot be read and is fetched again when it is needed", "chunk", i, "error", err)
	v.have.remove(i)
	x.changed(v.announcement.ID())
}

// penalties remembers the peers to be left alone for a while.
type penalties struct {
	mu    sync.Mutex
	peers map[peer.ID]penalty
}

type penalty struct {
	wait  time.Duration
	until time.Time
}

const maxPenalties = 1024

// The least and the most that a peer is left alone for: twice as long every
// time, until it has done what it should.
var (
	forFailing = [2]time.Duration{time.Second, 15 * time.Second}
	forLying   = [2]time.Duration{time.Minute, time.Hour}
)

func (l *penalties) punish(p peer.ID, times [2]time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.peers == nil {
		l.peers = make(map[peer.ID]penalty)
	}
	if _, ok := l.peers[p]; !ok && len(l.peers) >= maxPenalties {
		for old := range l.peers { // any
			delete(l.peers, old)
			break
		}
	}
	wait := min(max(2*l.peers[p].wait, times[0]), times[1])
	l.peers[p] = penalty{wait, time.Now().Add(wait)}
}

func (l *penalties) shunned(p peer.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.peers[p]
	return ok && time.Now().Before(e.until)
}

func (l *penalties) forgive(p peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.peers, p)
}

// blame counts a peer that broke the protocol, and leaves it alone.
func (x *Exchange) blame(p peer.ID, l *penalties, err error) {
	x.refused.Add(1)
	l.punish(p, forLying)
	x.log.Warn("a peer broke the protocol of vectors", "peer", p, "error", err)
}

// tether makes a stream end with its context.
func tether(ctx context.Context, s network.Stream) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = s.Reset() })
}

// writeMoving writes b in a stream that must move.
func writeMoving(s network.Stream, b []byte) error {
	_ = s.SetWriteDeadline(time.Now().Add(moveTime)) // an ended stream says so when it is written to
	_, err := s.Write(b)
	return err
}
