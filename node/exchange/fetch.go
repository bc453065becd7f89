package exchange

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// Chunks on their way, of one vector. What they take in memory when they are
	// not fetched into a buffer of the caller's.
	maxFlight = 8
	// Chunks that a peer is asked for at the same time, until it runs dry.
	firstWindow = 3
	// Peers that one vector is fetched from at the same time.
	maxLinks = 32

	// How often a fetch looks for new peers and for slow ones.
	lookTime = 500 * time.Millisecond
	tickTime = 20 * time.Millisecond

	// A holder that had nothing to promise is asked again after a pause.
	pauseMin, pauseMax = 20 * time.Millisecond, 320 * time.Millisecond

	// A chunk is taken from a peer that needs more than slowFactor times as long
	// for it as is usual, and longer than slowMin, when another could send it.
	slowFactor, slowMin = 4, 2 * time.Second

	openTime = 15 * time.Second
	maxHaves = 4096 // updates on one stream

	// A fetch whose turn came to nothing has twice as long the next time, up to
	// maxStall times the first.
	maxStall = 8
)

// Fetch returns the bytes that are held, from the store or from whichever peers
// have them. It needs no more memory than the vector and what the store takes.
// It ends early when ctx does and when the store fails; what the store has by
// then is not fetched again, and is served.
func (h *Held) Fetch(ctx context.Context) ([]byte, error) {
	a := h.v.announcement
	var b []byte
	err := h.fetch(ctx, func(t *transfer) error {
		if b == nil {
			b = make([]byte, a.Size)
		}
		t.place = func(i int) []byte { start := i * ChunkSize; return b[start : start+a.chunkLen(i)] }
		t.drop = func([]byte) {}
		for i := range t.had.all() {
			if held, err := t.read(i); err != nil {
				t.miss(i, err)
			} else {
				copy(t.place(i), held)
			}
		}
		return t.run(nil)
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// FetchTo is [Held.Fetch] for those who need not have the vector in memory: it gives
// sink, where there is one, the chunks in order, while later ones still arrive. The
// bytes are sink's to read until it returns. Besides what the store takes, it needs
// eight chunks of memory. An error of sink ends it.
func (h *Held) FetchTo(ctx context.Context, sink func(offset int, chunk []byte) error) error {
	a := h.v.announcement
	next := 0
	return h.fetch(ctx, func(t *transfer) error {
		free := make(chan []byte, maxFlight)
		t.place = func(i int) []byte {
			select {
			case b := <-free:
				return b[:a.chunkLen(i)]
			default:
				return make([]byte, a.chunkLen(i), ChunkSize)
			}
		}
		t.drop = func(b []byte) {
			select {
			case free <- b:
			default:
			}
		}
		t.next = &next
		return t.run(sink)
	})
}

// fetch runs transfers, alone for the vector, until one has all: what the store
// lacks is brought here in turns, which are given back where nothing comes of them
// while others wait.
func (h *Held) fetch(ctx context.Context, run func(*transfer) error) error {
	x, v := h.x, h.v
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(x.ctx, func() { cancel(ErrClosed) })()
	select {
	case v.fetching <- struct{}{}:
		defer func() { <-v.fetching }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	all := v.announcement.all()
	for stall := x.stall; ; stall = min(2*stall, maxStall*x.stall) {
		x.mu.Lock()
		if v.holders == 0 {
			x.mu.Unlock()
			return ErrReleased
		}
		t := &transfer{
			x: x, v: v, author: h.author, id: v.announcement.ID(),
			news: make(chan struct{}, 1), links: make(map[peer.ID]*link), quiet: x.quiet, stall: stall,
			had: v.have, kept: v.have, missing: all.without(v.have),
		}
		x.mu.Unlock()
		if !t.missing.empty() {
			t.turn = x.turns.request(h.author)
			select {
			case <-t.turn.granted:
			case <-ctx.Done():
				x.turns.release(t.turn, false)
				return context.Cause(ctx)
			}
		}
		t.ticked = time.Now()
		t.progress = t.ticked
		t.ctx, t.cancel = context.WithCancelCause(ctx)
		err := run(t)
		x.turns.release(t.turn, !errors.Is(err, errTurn))
		if !errors.Is(err, errTurn) {
			return err
		}
	}
}

// errTurn ends a turn, not the fetch.
var errTurn = errors.New("it is somebody else's turn")

// transfer is one vector on its way in.
type transfer struct {
	x      *Exchange
	v      *vector
	author peer.ID
	id     [32]byte
	turn   *ticket[peer.ID] // nil where nothing was missing
	stall  time.Duration    // that it may take until a chunk comes
	next   *int             // that the sink wants
	ctx    context.Context
	cancel context.CancelCauseFunc
	place  func(i int) []byte // where chunk i goes
	drop   func([]byte)       // takes a place back, when its chunk is stored or lost
	had    bitmap             // at the start
	wg     sync.WaitGroup     // links and chunks that are being stored
	news   chan struct{}      // kept has changed

	// Under the exchange's mutex. A chunk that is neither kept nor missing is
	// on its way.
	kept, missing bitmap
	links         map[peer.ID]*link
	usual         time.Duration // that a chunk takes once it is its turn, smoothed
	quiet         time.Duration // the exchange's, and more each time that it was too short
	arrived       time.Time     // when the last chunk did
	progress      time.Time     // when the last chunk was kept, or the turn began
	ticked        time.Time
	over          bool
}

// link is one stream on which a peer is the holder.
type link struct {
	t    *transfer
	peer peer.ID
	wake chan struct{} // there is something to write
	stop context.CancelCauseFunc

	// Under the exchange's mutex.
	open     bool
	have     bitmap
	asked    ask  // count 0: none is to be answered
	unsent   bool // asked is still to be written
	got      bitmap
	told     bitmap // the last got
	promised []int
	window   int       // how many it may be asked for at the same time
	given    int       // chunks that it has delivered
	moved    time.Time // when a byte came last, or began to be due
	turn     time.Time // when the first of promised began to be due
	pause    time.Duration
	resume   time.Time // of asking, after a pause
}

// run fetches what is missing and calls sink, where there is one, for each
// chunk. When it returns, nothing of it is left behind.
func (t *transfer) run(sink func(offset int, chunk []byte) error) error {
	defer func() {
		t.cancel(nil)
		t.x.mu.Lock()
		t.over = true
		t.x.mu.Unlock()
		t.wg.Wait()
	}()
	tick := time.NewTicker(tickTime)
	defer tick.Stop()
	var looked time.Time
	all := t.v.announcement.all()
	again := make(map[int]bool)
	for {
		t.x.mu.Lock()
		kept, idle := t.kept, t.idle(time.Now())
		t.x.mu.Unlock()
		switch {
		case t.ctx.Err() != nil:
			return context.Cause(t.ctx)
		case sink != nil && kept.has(*t.next):
			b, err := t.read(*t.next)
			if err != nil {
				if again[*t.next] {
					return fmt.Errorf("reading back chunk %d of a vector: %w", *t.next, err)
				}
				again[*t.next] = true
				t.miss(*t.next, err)
				continue
			}
			if err := sink(*t.next*ChunkSize, b); err != nil {
				return err
			}
			if *t.next++; *t.next == len(t.v.announcement.Chunks) {
				return nil
			}
			continue
		case sink == nil && kept == all:
			return nil
		case t.turn == nil, idle && t.x.turns.wanted(t.turn):
			return errTurn
		}
		if now := time.Now(); kept != all && now.Sub(looked) >= lookTime {
			looked = now
			t.look()
		}
		select {
		case <-t.ctx.Done():
		case <-t.news:
		case <-tick.C:
			t.x.mu.Lock()
			t.dropSlow(time.Now())
			t.schedule()
			t.x.mu.Unlock()
		}
	}
}

// idle says whether the turn comes to nothing: nobody has what is missing, or who
// has it does not send it. The exchange's mutex is held.
func (t *transfer) idle(now time.Time) bool {
	patience := t.x.search
	for _, l := range t.links {
		if l.due() || !l.have.and(t.missing).empty() {
			patience = t.stall
		}
	}
	return now.Sub(t.progress) > patience
}

// read returns a chunk of the store.
func (t *transfer) read(i int) ([]byte, error) {
	want := t.v.announcement.Chunks[i]
	b, err := t.x.store.Chunk(want)
	if err == nil && sha256.Sum256(b) != want {
		err = errors.New("the store returned other bytes")
	}
	return b, err
}

// miss has a chunk fetched that the store failed to return.
func (t *transfer) miss(i int, err error) {
	t.x.lost(t.v, i, err)
	t.x.mu.Lock()
	defer t.x.mu.Unlock()
	t.kept.remove(i)
	t.missing.add(i)
}

// look opens links to connected peers.
func (t *transfer) look() {
	peers := slices.DeleteFunc(t.x.host.Network().Peers(), func(p peer.ID) bool {
		return !t.x.allow(p) || t.x.sources.shunned(p)
	})
	rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
	// First whoever has it for sure, and who is known.
	slices.SortStableFunc(peers, func(a, b peer.ID) int { return t.rank(a) - t.rank(b) })
	t.x.mu.Lock()
	defer t.x.mu.Unlock()
	for _, p := range peers {
		if t.links[p] != nil {
			continue
		}
		if len(t.links) >= maxLinks {
			t.makeRoom()
			return
		}
		ctx, stop := context.WithCancelCause(t.ctx)
		l := &link{t: t, peer: p, wake: make(chan struct{}, 1), stop: stop, window: firstWindow}
		t.links[p] = l
		t.wg.Go(func() { l.run(ctx) })
	}
}

func (t *transfer) rank(p peer.ID) int {
	switch {
	case p == t.author:
		return 0
	case t.x.prefer(p):
		return 1
	}
	return 2
}

// makeRoom ends a link that is of no use, so that another peer has its turn.
func (t *transfer) makeRoom() {
	for _, l := range t.links {
		if l.open && !l.due() && l.have.and(t.missing).empty() {
			l.stop(errNoUse)
			return
		}
	}
}

var (
	errNoUse = errors.New("the peer has nothing that is needed")
	errSlow  = errors.New("the peer is slow")
	errHangs = errors.New("the peer hangs")
)

// due says whether the peer has something to send.
func (l *link) due() bool { return l.asked.count > 0 || len(l.promised) > 0 }

// dropSlow ends the links that hold chunks up. Each that it ends makes it more
// patient, so that where all are slow, all come to an end. The exchange's mutex
// is held.
func (t *transfer) dropSlow(now time.Time) {
	// The time for which this node itself stood still is nobody's fault.
	stood := now.Sub(t.ticked)
	if t.ticked = now; stood < 10*tickTime {
		stood = 0
	}
	for _, l := range t.links {
		l.moved, l.turn = l.moved.Add(stood), l.turn.Add(stood)
		if !l.due() {
			continue
		}
		silent := now.Sub(l.moved)
		owes := l.asked.set
		var late time.Duration // with the chunk in turn
		if len(l.promised) > 0 {
			owes = bitmap{}
			owes.add(l.promised[0])
			late = now.Sub(l.turn)
		}
		switch {
		case silent > t.x.dead:
			l.stop(errHangs)
		case silent > t.quiet && t.elsewhere(l, owes):
			t.quiet = min(2*t.quiet, t.x.dead)
			l.stop(errHangs)
		case t.usual > 0 && late > max(slowMin, slowFactor*t.usual) && t.elsewhere(l, owes):
			t.usual = late
			l.stop(errSlow)
		}
	}
}

// elsewhere says whether another peer has time for any of a set.
func (t *transfer) elsewhere(not *link, set bitmap) bool {
	for _, l := range t.links {
		if l != not && len(l.promised)+l.asked.count < l.window && !l.have.and(set).empty() {
			return true
		}
	}
	return false
}

// schedule asks every peer that has time for something that it has. The
// exchange's mutex is held.
//
// First come the chunks that a single peer has: it is asked for any of them, so
// that it can give every fetcher others. Of the rest, those that few have come
// first, and those are asked first who still fetch themselves, and have given
// least. One who has the whole, and may be the author, is not asked for much more
// than its share.
func (t *transfer) schedule() {
	if t.over || t.missing.empty() {
		return
	}
	var links []*link
	var asked, once, twice bitmap // once, twice: what at least so many have
	var holders [maxChunks]int
	all := t.v.announcement.all()
	flight, sources := all.without(t.missing).without(t.kept).count(), 0
	relays := false // is there anybody who may have more soon?
	now := time.Now()
	for _, l := range t.links {
		have := l.have.and(t.missing)
		for i := range have.all() {
			holders[i]++
		}
		once, twice = once.or(have), twice.or(once.and(have))
		asked = asked.or(l.asked.set)
		flight += l.asked.count
		if !l.have.empty() {
			sources++
		}
		relays = relays || l.open && l.have != all
		if l.open && l.asked.count == 0 && !now.Before(l.resume) {
			links = append(links, l)
		}
	}
	request := func(l *link, set bitmap, alone bool) {
		count := min(l.window-len(l.promised), maxFlight-flight)
		if l.asked.count > 0 || count <= 0 || set.empty() {
			return
		}
		if !alone {
			some := slices.Collect(set.all())
			rand.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
			slices.SortStableFunc(some, func(i, j int) int { return cmp.Compare(holders[i], holders[j]) })
			set = bitmap{}
			for _, i := range some[:min(len(some), 2*count)] { // the rest is for others
				set.add(i)
			}
		}
		if !l.due() {
			l.moved = now
		}
		l.asked = ask{min(count, set.count()), alone && relays, set}
		l.unsent = true
		signal(l.wake)
		asked = asked.or(set)
		flight += l.asked.count
	}
	for _, l := range links {
		request(l, l.have.and(t.missing).without(twice), true)
	}
	slices.SortFunc(links, func(a, b *link) int {
		if aw, bw := a.have == all, b.have == all; aw != bw {
			if aw {
				return 1
			}
			return -1
		}
		return cmp.Compare(a.given+len(a.promised), b.given+len(b.promised))
	})
	share := len(t.v.announcement.Chunks) * 3 / 2 / max(1, sources)
	for _, l := range links {
		if l.have == all && l.given+len(l.promised) >= share && now.Sub(t.arrived) < t.usual {
			continue // enough of it, while the others deliver
		}
		request(l, l.have.and(t.missing).without(asked), false)
	}
}

// run is the life of a link.
func (l *link) run(ctx context.Context) {
	x := l.t.x
	err := l.converse(ctx)
	x.mu.Lock()
	for _, i := range l.promised {
		l.t.missing.add(i)
	}
	delete(l.t.links, l.peer)
	l.t.schedule()
	x.mu.Unlock()
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, errGarbage) {
		err = cause
	}
	switch {
	case errors.Is(err, errGarbage):
		x.blame(l.peer, &x.sources, err)
	case l.t.ctx.Err() != nil || errors.Is(err, errNoUse):
	default:
		x.log.Debug("fetching a vector", "peer", l.peer, "error", err)
		x.sources.punish(l.peer, forFailing)
	}
	l.stop(nil)
}

func (l *link) converse(ctx context.Context) error {
	x := l.t.x
	opening, cancel := context.WithTimeout(network.WithNoDial(ctx, "a vector"), openTime)
	defer cancel()
	s, err := x.host.NewStream(opening, l.peer, x.protocol)
	if err != nil {
		return err
	}
	defer tether(ctx, s)()
	if err := writeMoving(s, append(appendHead(nil, kindHello, 32), l.t.id[:]...)); err != nil {
		_ = s.Reset()
		return err
	}
	x.mu.Lock()
	l.open = true
	x.mu.Unlock()

	var helpers sync.WaitGroup
	defer helpers.Wait()
	ctx, done := context.WithCancel(ctx)
	defer done()
	helpers.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-l.wake:
				if err := writeMoving(s, l.words()); err != nil {
					l.stop(err)
					return
				}
			}
		}
	})
	// The pieces of two chunks, so that reading seldom waits for hashing.
	pieces := make(chan piece, 2*ChunkSize/maxPiece)
	defer close(pieces)
	helpers.Go(func() { l.verify(pieces) })
	err = l.read(s, pieces)
	_ = s.Reset() // frees the one who writes
	return err
}

// words are the frames to be written: what was got before what is asked for.
func (l *link) words() (b []byte) {
	l.t.x.mu.Lock()
	defer l.t.x.mu.Unlock()
	if l.got != l.told {
		l.told = l.got
		b = appendBitmap(b, kindGot, l.got)
	}
	if l.unsent {
		l.unsent = false
		b = l.asked.append(b)
	}
	return b
}

// piece is some bytes of a chunk in their place.
type piece struct {
	chunk int
	b     []byte
	whole []byte // with the last piece: the chunk
}

// read takes what the peer sends until the stream ends.
func (l *link) read(r io.Reader, pieces chan<- piece) error {
	x := l.t.x
	var (
		b     []byte // the place of the chunk in turn
		n     int    // bytes of it that have come
		haves int
	)
	defer func() {
		if b != nil {
			pieces <- piece{chunk: -1, whole: b}
		}
	}()
	for {
		kind, size, err := readHead(r)
		if err != nil {
			return err
		}
		switch kind {
		case kindHave:
			set, err := readBitmap(r)
			if err != nil {
				return err
			}
			if haves++; haves > maxHaves {
				return errNoUse
			}
			if err := l.haves(set); err != nil {
				return err
			}
		case kindPromise:
			set, err := readBitmap(r)
			if err != nil {
				return err
			}
			if err := l.answered(set); err != nil {
				return err
			}
		case kindPiece:
			i := l.inTurn()
			if i < 0 {
				return fmt.Errorf("%w: bytes of a chunk that was not promised", errGarbage)
			}
			if b == nil {
				b, n = l.t.place(i), 0
			}
			if size > len(b)-n {
				return fmt.Errorf("%w: more bytes than a chunk has", errGarbage)
			}
			if err := readBody(r, b[n:n+size]); err != nil {
				return err
			}
			x.received.Add(uint64(size))
			p := piece{chunk: i, b: b[n : n+size]}
			if n += size; n == len(b) {
				p.whole, b = b, nil
				l.arrived()
			}
			pieces <- p
		default:
			return fmt.Errorf("%w: frame of kind %d from a holder", errGarbage, kind)
		}
	}
}

func (l *link) haves(set bitmap) error {
	l.t.x.mu.Lock()
	defer l.t.x.mu.Unlock()
	if set == l.have || !set.without(l.t.v.announcement.all()).empty() {
		return fmt.Errorf("%w: it tells of chunks what is not new or cannot be", errGarbage)
	}
	l.have = set
	l.t.schedule()
	return nil
}

func (l *link) answered(set bitmap) error {
	l.t.x.mu.Lock()
	defer l.t.x.mu.Unlock()
	a, now := l.asked, time.Now()
	if a.count == 0 || l.unsent || set.count() > a.count || !set.without(a.set).empty() {
		return fmt.Errorf("%w: it promises what was not asked for", errGarbage)
	}
	l.asked = ask{}
	l.moved = now
	if set.empty() {
		l.pause = clamp(2*l.pause, pauseMin, pauseMax)
		l.resume = now.Add(l.pause)
		l.t.schedule()
		return nil
	}
	l.pause = 0
	if len(l.promised) == 0 {
		l.turn = now
	}
	for i := range set.all() {
		l.promised = append(l.promised, i)
		l.t.missing.remove(i)
	}
	l.t.schedule()
	return nil
}

// inTurn returns the chunk that bytes which come now belong to, -1 for none.
func (l *link) inTurn() int {
	l.t.x.mu.Lock()
	defer l.t.x.mu.Unlock()
	if len(l.promised) == 0 {
		return -1
	}
	l.moved = time.Now()
	return l.promised[0]
}

// arrived is called when all bytes of the chunk in turn are here.
func (l *link) arrived() {
	l.t.x.mu.Lock()
	defer l.t.x.mu.Unlock()
	now := time.Now()
	took := now.Sub(l.turn)
	if l.t.usual == 0 {
		l.t.usual = took
	}
	l.t.usual += (took - l.t.usual) / 8
	l.turn, l.t.arrived = now, now
	l.promised = l.promised[1:]
	if len(l.promised) == 0 && l.asked.count > 0 {
		// The peer had to wait for an ask: have more under way next time.
		l.window = min(l.window+1, maxWindow)
	}
	l.t.schedule()
}

// verify hashes pieces as they come and has the chunks stored that are right.
func (l *link) verify(pieces <-chan piece) {
	h := sha256.New()
	for p := range pieces {
		if p.chunk < 0 { // it broke off
			l.t.drop(p.whole)
			continue
		}
		h.Write(p.b)
		if p.whole == nil {
			continue
		}
		sum := [32]byte(h.Sum(nil))
		h.Reset()
		if sum == l.t.v.announcement.Chunks[p.chunk] {
			l.t.wg.Go(func() { l.keep(p.chunk, p.whole) })
			continue
		}
		l.t.drop(p.whole)
		l.stop(fmt.Errorf("%w: chunk %d has wrong bytes", errGarbage, p.chunk))
		l.t.x.mu.Lock()
		l.t.missing.add(p.chunk)
		l.t.x.mu.Unlock()
	}
}

// keep stores a chunk and from then on serves it.
func (l *link) keep(i int, b []byte) {
	t := l.t
	err := t.x.put(t.v.announcement.Chunks[i], b)
	t.drop(b)
	if err != nil {
		t.cancel(fmt.Errorf("storing a chunk of a vector: %w", err))
		return
	}
	t.x.sources.forgive(l.peer)
	t.x.mu.Lock()
	defer t.x.mu.Unlock()
	l.given++
	l.got.add(i)
	signal(l.wake)
	t.progress = time.Now()
	t.kept.add(i)
	t.v.have.add(i)
	t.x.changed(t.id)
	t.schedule()
	signal(t.news)
}
