package exchange

import (
	"cmp"
	"context"
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

// upload is one stream on which this node is the holder.
type upload struct {
	x    *Exchange
	peer peer.ID
	id   [32]byte
	wake chan struct{} // what the fetcher has to be told has changed

	// Under the exchange's mutex.
	told    bitmap // the last have
	answer  *bitmap
	promise []promised // still to be sent
	unheard []promised // sent; nothing was heard of them yet
	got     bitmap     // what it said it got
}

type promised struct {
	chunk int
	v     *vector
	since time.Time
}

// handle serves a stream that a fetcher has opened.
func (x *Exchange) handle(s network.Stream) {
	p := s.Conn().RemotePeer()
	if !x.allow(p) || x.fetchers.shunned(p) || !x.admit(p) {
		_ = s.Reset()
		return
	}
	defer x.dismiss(p)
	ctx, cancel := context.WithCancel(x.ctx)
	defer cancel()
	defer tether(ctx, s)()

	_ = s.SetReadDeadline(time.Now().Add(moveTime))
	id, err := readHello(s)
	if err == nil {
		// From here on the fetcher may be silent for as long as it likes.
		_ = s.SetReadDeadline(time.Time{})
		u := &upload{x: x, peer: p, id: id, wake: make(chan struct{}, 1)}
		x.subscribe(u)
		written := make(chan struct{})
		go func() {
			defer close(written)
			if err := u.write(ctx, s); err != nil && ctx.Err() == nil {
				x.log.Debug("serving a vector", "peer", p, "error", err)
				_ = s.Reset()
			}
		}()
		err = u.read(ctx, s)
		cancel()
		<-written
		x.unsubscribe(u)
	}
	if errors.Is(err, errGarbage) {
		x.blame(p, &x.fetchers, err)
	}
	_ = s.Reset()
}

func (x *Exchange) admit(p peer.ID) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	total := 0
	for _, n := range x.served {
		total += n
	}
	if x.closed || total >= maxServed || x.served[p] >= maxServedEach {
		return false
	}
	x.served[p]++
	x.wg.Add(1)
	return true
}

func (x *Exchange) dismiss(p peer.ID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.served[p]--; x.served[p] == 0 {
		delete(x.served, p)
	}
	x.wg.Done()
}

func (x *Exchange) subscribe(u *upload) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.uploads[u.id] == nil {
		x.uploads[u.id] = make(map[*upload]struct{})
	}
	x.uploads[u.id][u] = struct{}{}
	signal(u.wake)
}

// unsubscribe also frees for others what was promised and maybe never came.
func (x *Exchange) unsubscribe(u *upload) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, p := range append(u.promise, u.unheard...) {
		p.v.given[p.chunk] = given{times: max(0, p.v.given[p.chunk].times-1)}
	}
	delete(x.uploads[u.id], u)
	if len(x.uploads[u.id]) == 0 {
		delete(x.uploads, u.id)
	}
}

// read answers asks until the stream ends.
func (u *upload) read(ctx context.Context, r io.Reader) error {
	for {
		kind, _, err := readHead(r)
		if err != nil {
			return err
		}
		switch kind {
		case kindGot:
			set, err := readBitmap(r)
			if err != nil {
				return err
			}
			if err := u.heard(set); err != nil {
				return err
			}
		case kindAsk:
			a, err := readAsk(r)
			if err != nil {
				return err
			}
			some, err := u.admit(a)
			if err != nil {
				return err
			}
			if !some {
				// It will ask again. Not more often than this.
				select {
				case <-ctx.Done():
				case <-time.After(5 * time.Millisecond):
				}
			}
		default:
			return fmt.Errorf("%w: frame of kind %d from a fetcher", errGarbage, kind)
		}
	}
}

// admit decides on an ask and has it answered.
func (u *upload) admit(a ask) (some bool, err error) {
	x := u.x
	x.mu.Lock()
	defer x.mu.Unlock()
	if u.answer != nil || len(u.promise)+len(u.unheard)+a.count > maxWindow {
		return false, fmt.Errorf("%w: it asks for more than it may", errGarbage)
	}
	var set bitmap
	if v := x.vectors[u.id]; v != nil {
		now := time.Now()
		for _, i := range v.pick(a, now) {
			set.add(i)
			g := &v.given[i]
			g.times++
			g.until = now.Add(clamp(4*x.pace, x.quiet, moveTime))
		}
		for i := range set.all() {
			u.promise = append(u.promise, promised{i, v, now})
		}
	}
	u.answer = &set
	signal(u.wake)
	return !set.empty(), nil
}

func clamp(d, least, most time.Duration) time.Duration { return min(max(d, least), most) }

// maxGiven: a chunk that was given so often is given to anybody at any time.
const maxGiven = 8

// pick chooses what to promise: what has been given least. Of a whole vector, no
// chunk goes out again to a fetcher that can wait while the one who got it last
// can be expected to pass it on, but for one that nobody ever passes on. The
// exchange's mutex is held.
func (v *vector) pick(a ask, now time.Time) []int {
	whole := v.have == v.announcement.all()
	var out []int
	for i := range v.have.and(a.set).all() {
		g := v.given[i]
		if whole && a.patient && g.times > 0 && g.times < maxGiven && now.Before(g.until) {
			continue
		}
		out = append(out, i)
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	slices.SortStableFunc(out, func(i, j int) int { return cmp.Compare(v.given[i].times, v.given[j].times) })
	return out[:min(len(out), a.count)]
}

// write tells what there is to tell and sends what was promised, until ctx ends.
func (u *upload) write(ctx context.Context, s network.Stream) error {
	var (
		t     *ticket // for the chunk in turn
		chunk []byte  // what is left of it
		frame = make([]byte, 0, headLen+maxPiece)
	)
	defer func() { u.x.slots.release(t) }()
	for {
		control, next, due := u.news(frame[:0])
		if len(control) > 0 {
			if err := writeMoving(s, control); err != nil {
				return err
			}
		}
		if due && t == nil {
			t = u.x.slots.request(u.peer)
		}
		if chunk == nil {
			var granted chan struct{}
			if t != nil {
				granted = t.granted
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-u.wake:
				continue
			case <-granted:
			}
			var err error
			if chunk, err = u.load(next); err != nil {
				return err
			}
		}
		n := min(len(chunk), maxPiece)
		frame = append(appendHead(frame[:0], kindPiece, n), chunk[:n]...)
		if err := writeMoving(s, frame); err != nil {
			if isTimeout(err) {
				u.x.fetchers.punish(u.peer, forFailing)
			}
			return err
		}
		u.x.sent.Add(uint64(n))
		if chunk = chunk[n:]; len(chunk) == 0 {
			u.x.slots.release(t)
			t, chunk = nil, nil
			u.delivered()
		}
	}
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// news appends the frames that are due, and returns the promise in turn.
func (u *upload) news(b []byte) (control []byte, next promised, due bool) {
	u.x.mu.Lock()
	defer u.x.mu.Unlock()
	var have bitmap
	if v := u.x.vectors[u.id]; v != nil {
		have = v.have
	}
	if have != u.told {
		u.told = have
		b = appendBitmap(b, kindHave, have)
	}
	if u.answer != nil {
		b = appendBitmap(b, kindPromise, *u.answer)
		u.answer = nil
	}
	if len(u.promise) > 0 {
		return b, u.promise[0], true
	}
	return b, promised{}, false
}

func (u *upload) load(p promised) ([]byte, error) {
	a := p.v.announcement
	b, err := u.x.store.Chunk(a.Chunks[p.chunk])
	if err == nil && len(b) != a.chunkLen(p.chunk) {
		err = fmt.Errorf("it has %d bytes instead of %d", len(b), a.chunkLen(p.chunk))
	}
	if err != nil {
		u.x.lost(p.v, p.chunk, err)
		return nil, err
	}
	return b, nil
}

// delivered ends the turn of a promise.
func (u *upload) delivered() {
	u.x.fetchers.forgive(u.peer)
	u.x.mu.Lock()
	defer u.x.mu.Unlock()
	u.unheard = append(u.unheard, u.promise[0])
	u.promise = u.promise[1:]
	u.finish()
}

// heard takes what the fetcher has got, and serves by now.
func (u *upload) heard(set bitmap) error {
	x := u.x
	x.mu.Lock()
	defer x.mu.Unlock()
	if set == u.got || !u.got.without(set).empty() {
		return fmt.Errorf("%w: it says that it got nothing", errGarbage)
	}
	u.got = set
	u.finish()
	return nil
}

// finish closes the books on what was sent and got. The exchange's mutex is held.
func (u *upload) finish() {
	x, now := u.x, time.Now()
	u.unheard = slices.DeleteFunc(u.unheard, func(p promised) bool {
		if !u.got.has(p.chunk) {
			return false
		}
		took := now.Sub(p.since)
		if x.pace == 0 {
			x.pace = took
		}
		x.pace += (took - x.pace) / 8
		p.v.given[p.chunk].until = now.Add(clamp(4*x.pace, 200*time.Millisecond, moveTime))
		return true
	})
}

// maxSlots chunks are sent at the same time, and one to each peer.
const maxSlots = 8

// slots hands out the right to send a chunk to one peer after the other.
type slots struct {
	mu      sync.Mutex
	free    int
	busy    map[peer.ID]bool
	waiting []*ticket // in order of arrival, but for those of a peer that had a turn
}

type ticket struct {
	peer    peer.ID
	granted chan struct{} // closed
}

func newSlots() *slots { return &slots{free: maxSlots, busy: make(map[peer.ID]bool)} }

func (s *slots) request(p peer.ID) *ticket {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &ticket{peer: p, granted: make(chan struct{})}
	s.waiting = append(s.waiting, t)
	s.grant()
	return t
}

// release gives back a ticket, granted or not. Nil is none.
func (s *slots) release(t *ticket) {
	if t == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.waiting, t); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
		return
	}
	delete(s.busy, t.peer)
	s.free++
	// It was this peer's turn: its other tickets queue up behind all others.
	var others, its []*ticket
	for _, w := range s.waiting {
		if w.peer == t.peer {
			its = append(its, w)
		} else {
			others = append(others, w)
		}
	}
	s.waiting = append(others, its...)
	s.grant()
}

func (s *slots) grant() {
	for s.free > 0 {
		i := slices.IndexFunc(s.waiting, func(t *ticket) bool { return !s.busy[t.peer] })
		if i < 0 {
			return
		}
		t := s.waiting[i]
		s.waiting = slices.Delete(s.waiting, i, i+1)
		s.busy[t.peer] = true
		s.free--
		close(t.granted)
	}
}
