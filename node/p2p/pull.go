package p2p

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"village/protocol/record"
)

const (
	// One random peer is asked so often: the short time after something has
	// changed, then twice as long every time.
	pullSoon, pullIdle = time.Second, 15 * time.Second
	// SyncSoon asks so many random peers, and not more often than this.
	syncPeers, syncPause = 8, 200 * time.Millisecond

	pullWorkers = 4
	pullQueue   = 256
	pullTime    = time.Minute
	maxPull     = 64 << 20 // bytes of records in one conversation; the rest comes with the next
	// So many pulls are served at a time, and so many of each peer.
	pullSeats, pullSeatsEach = 64, 4
	maxAsks                  = 1 << 14 // in one conversation

	// When pull has brought so few records, a gap was healed that nodes behind
	// this one may have too, and gossip tells them. A node that catches up
	// after an absence stays silent.
	passOn = 16
)

// pulls is the queue of the peers to pull from. A peer stands in it once, and
// is pulled from by one worker at a time, so that one that hangs holds up no
// other.
type pulls struct {
	soon, stirred chan struct{}
	queue         chan peer.ID

	mu    sync.Mutex
	state map[peer.ID]pullState
}

type pullState int

const (
	pullQueued pullState = iota + 1
	pullRunning
	pullAgain // running, and to be queued again
)

func newPulls() *pulls {
	return &pulls{
		soon: make(chan struct{}, 1), stirred: make(chan struct{}, 1),
		queue: make(chan peer.ID, pullQueue), state: make(map[peer.ID]pullState),
	}
}

func (q *pulls) enqueue(p peer.ID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.put(p)
}

func (q *pulls) put(p peer.ID) {
	if q.state[p] != 0 {
		if q.state[p] == pullRunning {
			q.state[p] = pullAgain
		}
		return
	}
	select {
	case q.queue <- p:
		q.state[p] = pullQueued
	default: // the next round finds it
	}
}

func (q *pulls) begin(p peer.ID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.state[p] = pullRunning
}

func (q *pulls) end(p peer.ID, again bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	again = again || q.state[p] == pullAgain
	delete(q.state, p)
	if again {
		q.put(p)
	}
}

// SyncSoon asks for a round of pulls now. Calls in quick succession are one.
func (n *Network) SyncSoon() { signal(n.pulls.soon) }

// Asked is closed once a peer has given all that it holds and this node lacked.
func (n *Network) Asked() <-chan struct{} { return n.asked }

// stir says that something has changed, so that more is to be expected.
func (n *Network) stir() { signal(n.pulls.stirred) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// jitter spreads a time over three quarters to five quarters of it.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2)
}

func (n *Network) schedulePulls() {
	wait := pullSoon
	timer := time.NewTimer(jitter(wait))
	defer timer.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.pulls.stirred:
			if wait > pullSoon {
				wait = pullSoon
				timer.Reset(jitter(wait))
			}
		case <-timer.C:
			n.pullRandom(1)
			wait = min(2*wait, pullIdle)
			timer.Reset(jitter(wait))
		case <-n.pulls.soon:
			n.pullRandom(syncPeers)
			select {
			case <-n.ctx.Done():
			case <-time.After(syncPause):
			}
		}
	}
}

func (n *Network) pullRandom(count int) {
	peers := slices.DeleteFunc(n.host.Network().Peers(), func(p peer.ID) bool {
		known, err := n.host.Peerstore().SupportsProtocols(p, n.names.pull)
		return err != nil || len(known) == 0 || n.accounts.shunned(p)
	})
	rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
	for _, p := range peers[:min(count, len(peers))] {
		n.pulls.enqueue(p)
	}
}

func (n *Network) pullWorker() {
	for {
		select {
		case <-n.ctx.Done():
			return
		case p := <-n.pulls.queue:
			n.pulls.begin(p)
			more := n.pullFrom(p)
			n.pulls.end(p, more)
		}
	}
}

// pullFrom fetches what p holds and this node lacks. It is true when there is
// more to fetch at once.
func (n *Network) pullFrom(p peer.ID) bool {
	if n.accounts.shunned(p) || !n.isConnected(p) {
		return false
	}
	ctx, cancel := context.WithTimeout(n.ctx, pullTime)
	defer cancel()
	s, err := n.open(ctx, p, n.names.pull)
	if err != nil {
		n.log.Debug("opening a pull", "peer", p, "error", err)
		return false
	}
	defer s.done()
	c := &pullConversation{n: n, s: s, ctx: ctx, from: p, asked: make(map[record.CID]bool)}
	err = c.run()
	for _, r := range c.fresh {
		if err := n.Publish(r); err != nil {
			n.log.Debug("passing a record on", "cid", r.CID, "error", err)
		}
	}
	var timeout interface{ Timeout() bool }
	switch {
	case err == nil:
		n.accounts.forgive(p)
		n.askOnce.Do(func() { close(n.asked) })
	case errors.Is(err, errEnough):
		n.accounts.forgive(p)
		s.failed = true // the peer need not wait for another ask
	case n.ctx.Err() != nil || !n.isConnected(p):
	case ctx.Err() != nil || errors.As(err, &timeout) && timeout.Timeout():
		// Slow is fine as long as something arrives.
		if c.stored == 0 {
			n.accounts.punish(p)
		}
		s.failed = true
	default:
		n.log.Debug("a pull ended early", "peer", p, "error", err)
		n.blame(p, err)
		s.failed = true
	}
	return c.stored > 0 && (errors.Is(err, errEnough) || ctx.Err() != nil)
}

// errEnough ends a conversation that has brought its share.
var errEnough = errors.New("enough for one conversation")

// pullConversation is the puller's side.
type pullConversation struct {
	n     *Network
	s     *stream
	ctx   context.Context
	from  peer.ID
	asks  int
	bytes int
	asked map[record.CID]bool

	stored int
	fresh  []record.Record // what was stored, while it is few
}

func (c *pullConversation) run() error {
	mine, theirs, err := c.n.compare(c.s)
	if err != nil {
		return err
	}
	differ := differing(mine, theirs)
	for len(differ) > 0 {
		// The catalogue comes alone and first: all else refers to it.
		count := min(maxAskGroups, len(differ))
		if differ[0] == record.Catalogue {
			count = 1
		}
		if err := c.groups(differ[:count]); err != nil {
			return err
		}
		differ = differ[count:]
	}
	return c.end()
}

// compare opens a pull: it returns what this node holds and what the peer does.
func (n *Network) compare(s io.ReadWriter) (mine, theirs summary, err error) {
	mine = n.summary()
	own, err := record.Encode(mine)
	if err != nil {
		return mine, theirs, err
	}
	root := sha256.Sum256(own)
	if err := writeFrame(s, root[:]); err != nil {
		return mine, theirs, err
	}
	b, err := readFrame(s, maxSummary)
	if err != nil {
		return mine, theirs, midway(err)
	}
	if len(b) == 0 { // the same
		return mine, mine, nil
	}
	theirs, err = decodeSummary(b)
	return mine, theirs, err
}

// end makes sure that the peer has nothing more to say.
func (c *pullConversation) end() error {
	if err := c.s.CloseWrite(); err != nil {
		return err
	}
	var b [1]byte
	switch n, err := c.s.Read(b[:]); {
	case n > 0:
		return fmt.Errorf("%w: it sent what was not asked for", errGarbage)
	case errors.Is(err, io.EOF):
		return nil
	default:
		return err
	}
}

// differing returns the groups that may bring something: the catalogue first,
// the others in random order, so that none is last every time.
func differing(mine, theirs summary) []string {
	have := make(map[string][32]byte, len(mine.Groups))
	for _, g := range mine.Groups {
		have[g.Name] = g.Digest
	}
	var out []string
	for _, g := range theirs.Groups {
		if d, ok := have[g.Name]; !ok || d != g.Digest {
			out = append(out, g.Name)
		}
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	if i := slices.Index(out, record.Catalogue); i > 0 {
		out[0], out[i] = out[i], out[0]
	}
	return out
}

func (c *pullConversation) ask(m ask) error {
	if c.asks++; c.asks > maxAsks {
		return errEnough
	}
	return writeMessage(c.s, m)
}

func (c *pullConversation) groups(names []string) error {
	if err := c.ask(ask{Groups: names}); err != nil {
		return err
	}
	b, err := readFrame(c.s, maxListing)
	if err != nil {
		return midway(err)
	}
	listed, err := decodeListing(b)
	if err != nil {
		return err
	}
	now := time.Now()
	lacking := slices.DeleteFunc(listed.Records, func(r record.CID) bool {
		return c.asked[r] || c.n.cat.Has(r) || c.n.ignored.has(r, now)
	})
	for chunk := range slices.Chunk(lacking, maxAskCIDs) {
		if err := c.records(chunk); err != nil {
			return err
		}
	}
	return nil
}

func (c *pullConversation) records(cids []record.CID) error {
	if err := c.ask(ask{Records: cids}); err != nil {
		return err
	}
	for _, want := range cids {
		c.asked[want] = true
		b, err := readFrame(c.s, record.MaxBytes)
		if err != nil {
			return midway(err)
		}
		if len(b) == 0 {
			continue
		}
		if got := record.CIDOf(b); got != want {
			return fmt.Errorf("%w: asked for %s, got %s", errGarbage, want, got)
		}
		r, j := c.n.inspect(c.ctx, c.from, b)
		switch j {
		case stored:
			if c.stored++; c.stored <= passOn {
				c.fresh = append(c.fresh, r)
			} else {
				c.fresh = nil
			}
		case passed, rejected:
			c.n.ignored.add(want, time.Now())
		case garbage:
			// judge has counted it; what p holds it has never checked.
			c.n.accounts.punish(c.from)
			return errors.New("the peer holds what is not a record")
		}
		if c.bytes += len(b); c.bytes >= maxPull {
			return errEnough
		}
	}
	return nil
}

// midway is a read error where an answer was due.
func midway(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// summary says what this node holds.
func (n *Network) summary() summary {
	held := n.cat.Groups()
	m := summary{Groups: make([]groupDigest, 0, len(held))}
	for name, digest := range held {
		m.Groups = append(m.Groups, groupDigest{Name: name, Digest: digest})
	}
	if len(m.Groups) > maxGroups {
		rand.Shuffle(len(m.Groups), func(i, j int) { m.Groups[i], m.Groups[j] = m.Groups[j], m.Groups[i] })
		m.Groups = m.Groups[:maxGroups]
	}
	slices.SortFunc(m.Groups, func(a, b groupDigest) int { return cmp.Compare(a.Name, b.Name) })
	return m
}

// servePull is the other side of a pull.
func (n *Network) servePull(raw network.Stream) {
	if !n.work.enter() {
		_ = raw.Reset()
		return
	}
	defer n.work.leave()
	ctx, cancel := context.WithTimeout(n.ctx, pullTime)
	defer cancel()
	s := newStream(ctx, raw)
	defer s.done()

	from := raw.Conn().RemotePeer()
	leave, seated := n.seats.Take(from, func() { _ = raw.Reset() })
	if seated {
		defer leave()
	}
	if !seated || !n.members.hasPeer(from) || !n.accounts.spend(from, costPull) {
		n.dropped.Add(1)
		s.failed = true
		return
	}
	if err := n.answerPull(metered{s, n.accounts.served(from), ctx}); err != nil {
		n.log.Debug("serving a pull", "peer", from, "error", err)
		n.blame(from, err)
		s.failed = true
	}
}

// metered is a stream on which a peer is served no faster than it may be: a few
// bytes can ask for many.
type metered struct {
	io.ReadWriter
	bytes *rate.Limiter
	ctx   context.Context
}

func (m metered) Write(b []byte) (int, error) {
	if err := m.bytes.WaitN(m.ctx, len(b)); err != nil {
		return 0, err
	}
	return m.ReadWriter.Write(b)
}

func (n *Network) answerPull(s io.ReadWriter) error {
	root, err := readFrame(s, sha256.Size)
	if err != nil {
		return err
	}
	own, err := record.Encode(n.summary())
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(own); bytes.Equal(sum[:], root) {
		return writeFrame(s, nil)
	}
	if err := writeFrame(s, own); err != nil {
		return err
	}
	// One record more than the puller takes.
	for asks, sent := 0, 0; asks < maxAsks && sent < maxPull+record.MaxBytes; asks++ {
		b, err := readFrame(s, maxAsk)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		m, err := decodeAsk(b)
		if err != nil {
			return err
		}
		if len(m.Groups) > 0 {
			l := n.listing(m.Groups)
			if err := writeMessage(s, l); err != nil {
				return err
			}
			sent += 64 * len(l.Records)
			continue
		}
		for _, c := range m.Records {
			r, err := n.cat.Record(c)
			if err != nil {
				n.log.Debug("a record that was asked for is not held", "cid", c, "error", err)
			}
			if err := writeFrame(s, r.Bytes); err != nil {
				return err
			}
			sent += len(r.Bytes)
		}
	}
	return nil
}

func (n *Network) listing(groups []string) listing {
	var m listing
	for _, g := range groups {
		m.Records = append(m.Records, n.cat.Group(g)...)
	}
	if len(m.Records) > maxListed {
		rand.Shuffle(len(m.Records), func(i, j int) { m.Records[i], m.Records[j] = m.Records[j], m.Records[i] })
		m.Records = m.Records[:maxListed]
	}
	return m
}

const (
	ignoredMin, ignoredMax = time.Second, 16 * time.Second
	maxIgnored             = 1 << 14
)

// ignored remembers records that were fetched and not kept, so that they are
// not fetched in every round. One that could not be judged yet may be judged
// later, so none is remembered for long.
type ignored struct {
	mu      sync.Mutex
	records map[record.CID]ignoredRecord
}

type ignoredRecord struct {
	wait  time.Duration
	until time.Time
}

func newIgnored() *ignored { return &ignored{records: make(map[record.CID]ignoredRecord)} }

func (g *ignored) has(c record.CID, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return now.Before(g.records[c].until)
}

func (g *ignored) add(c record.CID, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.records) >= maxIgnored {
		maps.DeleteFunc(g.records, func(_ record.CID, r ignoredRecord) bool { return now.After(r.until) })
		if len(g.records) >= maxIgnored {
			clear(g.records)
		}
	}
	wait := min(max(2*g.records[c].wait, ignoredMin), ignoredMax)
	g.records[c] = ignoredRecord{wait: wait, until: now.Add(wait)}
}
