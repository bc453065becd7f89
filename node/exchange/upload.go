package exchange

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// maxSlots chunks are sent at the same time, and one to each peer.
const maxSlots = 8

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
	defer s.Reset()
	u := &upload{x: x, peer: s.Conn().RemotePeer(), wake: make(chan struct{}, 1)}
	if !x.allow(u.peer) || x.fetchers.shunned(u.peer) || !x.enter() {
		return
	}
	defer x.wg.Done()
	ctx, cancel := context.WithCancel(x.ctx)
	defer cancel()
	leave, ok := x.seats.Take(u.peer, cancel)
	if !ok {
		return
	}
	defer leave()
	defer tether(ctx, s)()

	_ = s.SetReadDeadline(time.Now().Add(moveTime))
	var err error
	if u.id, err = readHello(s); err == nil {
		// From here on the fetcher may be silent for as long as nobody else needs
		// its seat.
		_ = s.SetReadDeadline(time.Time{})
		x.subscribe(u)
		written := make(chan struct{})
		go func() {
			defer close(written)
			if err := u.write(ctx, s); err != nil && ctx.Err() == nil {
				x.log.Debug("serving a vector", "peer", u.peer, "error", err)
				_ = s.Reset()
			}
		}()
		err = u.read(ctx, s)
		cancel()
		<-written
		x.unsubscribe(u)
	}
	if errors.Is(err, errGarbage) {
		x.blame(u.peer, &x.fetchers, err)
	}
}

// enter counts a stream that is served, unless the exchange is closed.
func (x *Exchange) enter() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.closed {
		x.wg.Add(1)
	}
	return !x.closed
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
	for _, p := range u.promise {
		p.v.credit(u.peer, time.Now()).bytes += int64(p.v.announcement.chunkLen(p.chunk))
	}
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
		credit := v.credit(u.peer, now)
		for _, i := range v.pick(a, now) {
			size := int64(v.announcement.chunkLen(i))
			if credit.bytes < size {
				break
			}
			credit.bytes -= size
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

// credit is what a peer may still be sent of a vector: maxDraws times the whole, to
// which creditTime adds it once more. Without it, a few bytes of asks would have
// the same chunks sent for as long as the peer likes.
type credit struct {
	bytes int64
	at    time.Time // when the last bytes were added
}

const (
	maxDraws   = 3
	creditTime = 10 * time.Minute
	maxCredits = 1024
)

// credit returns a peer's. The exchange's mutex is held.
func (v *vector) credit(p peer.ID, now time.Time) *credit {
	size := int64(v.announcement.Size)
	c := v.credits[p]
	if c == nil {
		if len(v.credits) >= maxCredits {
			for old := range v.credits { // any
				delete(v.credits, old)
				break
			}
		}
		c = &credit{maxDraws * size, now}
		v.credits[p] = c
	}
	if more := int64(float64(size) * float64(now.Sub(c.at)) / float64(creditTime)); more > 0 {
		c.bytes, c.at = min(c.bytes+more, maxDraws*size), now
	}
	return c
}

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
// A peer that is too slow gives its slot to others until it is its turn again; then
// the chunk is read anew, since many that wait would fill the memory.
func (u *upload) write(ctx context.Context, s network.Stream) error {
	slots := u.x.slots
	var (
		t           *ticket[peer.ID] // for the chunk in turn
		next        promised
		due         bool
		chunk       []byte // that of next, while it has a slot
		frame       []byte
		start, done int           // where in the chunk the frame begins, and what of the frame is sent
		stuck       time.Duration // that nothing could be sent for
	)
	defer func() { slots.release(t, true) }()
	for {
		if done == 0 {
			var control []byte
			control, next, due = u.news(nil)
			if len(control) > 0 {
				if err := writeMoving(s, control); err != nil {
					return err
				}
			}
		}
		if due && t == nil {
			t = slots.request(u.peer)
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
			frame = make([]byte, 0, headLen+maxPiece)
		}
		piece := chunk[start:min(start+maxPiece, len(chunk))]
		frame = append(appendHead(frame[:0], kindPiece, len(piece)), piece...)
		_ = s.SetWriteDeadline(time.Now().Add(slotTime))
		n, err := s.Write(frame[done:])
		if done += n; n > 0 {
			stuck = 0
		}
		switch {
		case done == len(frame):
			start, done = start+len(piece), 0
			u.x.sent.Add(uint64(len(piece)))
		case !isTimeout(err):
			return err
		case stuck >= moveTime:
			u.x.fetchers.punish(u.peer, forFailing)
			return err
		default:
			stuck += slotTime
			slots.release(t, false)
			t, chunk, frame = slots.request(u.peer), nil, nil
			continue
		}
		if start == len(chunk) {
			slots.release(t, true)
			t, chunk, frame, start = nil, nil, nil, 0
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
