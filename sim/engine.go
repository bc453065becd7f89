package sim

import (
	"cmp"
	"container/heap"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"village/protocol/learn"
)

// The clock of a run. Nodes act on each other by messages alone, and no message
// is faster than the network's least delay. So time is cut into windows of that
// length: what is sent in one arrives in a later one, and within a window each
// node can be run to its end by itself, on any core.
//
// What happens at a node happens in the order of (time, sender, the sender's
// count), and all chance is drawn from streams that the nodes own. Neither depends
// on how the nodes are dealt out to cores: a run is the same on any number.

// action is something that happens at a node.
type action interface{ happen(n *node) error }

// event is an action with its time and its place in the order.
type event struct {
	at   time.Duration
	seq  uint64 // of the sender
	what action
	from int32  // place of the sender
	node int32  // place of the node that it happens at
	life uint32 // of that node, 0 = any: what a past life began goes nowhere
}

func (e *event) compare(f *event) int {
	switch {
	case e.at != f.at:
		return cmp.Compare(e.at, f.at)
	case e.from != f.from:
		return cmp.Compare(e.from, f.from)
	}
	return cmp.Compare(e.seq, f.seq)
}

// bucket holds the events of a window, in chunks, so that it grows without being
// copied and its space serves the next one.
type bucket struct {
	window int64
	count  int
	chunks []*chunk
}

type chunk struct {
	n      int
	events [64]event
}

// calendar holds future events by window.
type calendar struct {
	buckets map[int64]*bucket
	due     buckets
	spare   []*chunk
}

func (c *calendar) add(window int64, e event) {
	b := c.buckets[window]
	if b == nil {
		b = &bucket{window: window}
		c.buckets[window] = b
		heap.Push(&c.due, b)
	}
	b.count++
	if n := len(b.chunks); n > 0 && b.chunks[n-1].n < len(b.chunks[n-1].events) {
		last := b.chunks[n-1]
		last.events[last.n] = e
		last.n++
		return
	}
	next := new(chunk)
	if n := len(c.spare); n > 0 {
		next, c.spare = c.spare[n-1], c.spare[:n-1]
	}
	next.events[0], next.n = e, 1
	b.chunks = append(b.chunks, next)
}

// first is the earliest bucket, or nil.
func (c *calendar) first() *bucket {
	if len(c.due) == 0 {
		return nil
	}
	return c.due[0]
}

// remove removes the bucket of a window, which may be nil.
func (c *calendar) remove(window int64) *bucket {
	if b := c.first(); b == nil || b.window != window {
		return nil
	}
	b := heap.Pop(&c.due).(*bucket)
	delete(c.buckets, window)
	return b
}

// giveBack keeps an emptied bucket's space. What it points at is soon written over.
func (c *calendar) giveBack(b *bucket) { c.spare = append(c.spare, b.chunks...) }

// buckets is a heap by window.
type buckets []*bucket

func (b buckets) Len() int           { return len(b) }
func (b buckets) Less(i, j int) bool { return b[i].window < b[j].window }
func (b buckets) Swap(i, j int)      { b[i], b[j] = b[j], b[i] }
func (b *buckets) Push(x any)        { *b = append(*b, x.(*bucket)) }
func (b *buckets) Pop() any {
	last := (*b)[len(*b)-1]
	(*b)[len(*b)-1] = nil
	*b = (*b)[:len(*b)-1]
	return last
}

// shard is a range of the nodes, which one core at a time runs.
type shard struct {
	engine   *engine
	nodes    []node
	first    int // place of nodes[0]
	calendar calendar
	window   int64         // that is run
	last     time.Duration // time of the latest event that was run
	busy     time.Duration // of the processor in this window

	counts  []int32 // how many events a node has in the window
	touched []int32 // the nodes that have any
	sorted  []event // the events by node
	soon    []event // that the node that is run has given itself in the window, in order

	// out holds the messages to nodes of each other shard, while shards run
	// beside each other.
	out     [][]event
	posting bool

	tally   *learn.Tally // working space
	scratch learn.Scratch
	news    news // for the world, which reads it between windows
}

// run runs the events of a window, node by node.
func (s *shard) run(window int64) {
	b := s.calendar.remove(window)
	if b == nil {
		return
	}
	s.window = window
	for _, c := range b.chunks {
		for i := range c.events[:c.n] {
			k := c.events[i].node - int32(s.first)
			if s.counts[k] == 0 {
				s.touched = append(s.touched, k)
			}
			s.counts[k]++
		}
	}
	slices.Sort(s.touched) // as the nodes lie in memory
	s.sorted = slices.Grow(s.sorted[:0], b.count)[:b.count]
	end := int32(0)
	for _, k := range s.touched {
		s.counts[k], end = end, end+s.counts[k] // now where the node's events start
	}
	for _, c := range b.chunks {
		for i := range c.events[:c.n] {
			e := &c.events[i]
			at := &s.counts[e.node-int32(s.first)]
			s.sorted[*at] = *e
			*at++ // in the end where they end
		}
	}
	s.calendar.giveBack(b)
	start := int32(0)
	for _, k := range s.touched {
		end := s.counts[k]
		s.counts[k] = 0
		s.live(&s.nodes[k], s.sorted[start:end])
		start = end
	}
	s.touched = s.touched[:0]
}

// live runs the events of a node in their order, with those that it gives itself
// meanwhile. After an error it has none.
func (s *shard) live(n *node, events []event) {
	sortEvents(events)
	for len(events) > 0 || len(s.soon) > 0 {
		var e event
		if len(s.soon) == 0 || len(events) > 0 && events[0].compare(&s.soon[0]) < 0 {
			e, events = events[0], events[1:]
		} else {
			e = s.soon[0]
			s.soon = slices.Delete(s.soon, 0, 1)
		}
		if e.life != 0 && e.life != n.life {
			continue
		}
		n.now, s.last = e.at, max(s.last, e.at)
		if err := e.what.happen(n); err != nil {
			s.news.failed = append(s.news.failed, failure{stamp{n.now, n.place}, err})
			s.soon = s.soon[:0]
			return
		}
	}
}

// sortEvents sorts events that mostly are few, and in order.
func sortEvents(events []event) {
	if len(events) > 64 {
		slices.SortFunc(events, func(a, b event) int { return a.compare(&b) })
		return
	}
	for i := 1; i < len(events); i++ {
		if events[i].compare(&events[i-1]) > 0 {
			continue
		}
		e, at := events[i], i
		for ; at > 0 && e.compare(&events[at-1]) < 0; at-- {
			events[at] = events[at-1]
		}
		events[at] = e
	}
}

// own schedules an event of a node at itself.
func (s *shard) own(e event) {
	if window := s.engine.windowOf(e.at); window > s.window {
		s.calendar.add(window, e)
		return
	}
	at, _ := slices.BinarySearchFunc(s.soon, e, func(a, b event) int { return a.compare(&b) })
	s.soon = slices.Insert(s.soon, at, e)
}

// send schedules an event at another node, in a later window.
func (s *shard) send(e event) {
	to := int(e.node) / s.engine.each
	switch t := s.engine.shards[to]; {
	case s.posting && t != s:
		s.out[to] = append(s.out[to], e)
	default:
		t.calendar.add(s.engine.windowOf(e.at), e)
	}
}

// collect takes in what the other shards have sent.
func (s *shard) collect(own int) {
	for _, from := range s.engine.shards {
		sent := from.out[own]
		for i := range sent {
			s.calendar.add(s.engine.windowOf(sent[i].at), sent[i])
		}
		clear(sent)
		from.out[own] = sent[:0]
	}
}

// engine runs the shards, window by window.
type engine struct {
	width  time.Duration // of a window
	shards []*shard
	each   int // nodes of a shard, but for the last
	cores  int
	cost   float64 // of an event, in nanoseconds, as learnt
}

// What it costs to run shards beside each other, in nanoseconds: a window of
// less work is run by one core.
const worthwhile = 50_000

func newEngine(width time.Duration, nodes []node) *engine {
	g := &engine{width: width, cores: runtime.GOMAXPROCS(0), cost: 5_000}
	count := 1
	if g.cores > 1 {
		count = min(4*g.cores, len(nodes)) // more than cores, so that they even out
	}
	g.each = (len(nodes) + count - 1) / count
	for first := 0; first < len(nodes); first += g.each {
		s := &shard{
			engine: g, nodes: nodes[first:min(first+g.each, len(nodes))], first: first,
			calendar: calendar{buckets: map[int64]*bucket{}}, window: -1,
		}
		s.counts = make([]int32, len(s.nodes))
		for i := range s.nodes {
			s.nodes[i].shard = s
		}
		g.shards = append(g.shards, s)
	}
	for _, s := range g.shards {
		s.out = make([][]event, len(g.shards))
	}
	return g
}

func (g *engine) windowOf(at time.Duration) int64 { return int64(at / g.width) }

// next is the earliest window in which anything happens, and how many events it
// has so far.
func (g *engine) next() (window int64, events int, ok bool) {
	for _, s := range g.shards {
		b := s.calendar.first()
		switch {
		case b == nil:
		case !ok || b.window < window:
			window, events, ok = b.window, b.count, true
		case b.window == window:
			events += b.count
		}
	}
	return window, events, ok
}

// run runs a window of so many events.
func (g *engine) run(window int64, events int) {
	start := time.Now()
	busy := time.Duration(0)
	if g.cores > 1 && float64(events)*g.cost > worthwhile {
		beside(len(g.shards), func(i int) {
			s, start := g.shards[i], time.Now()
			s.posting = true
			s.run(window)
			s.posting = false
			s.busy = time.Since(start)
		})
		beside(len(g.shards), func(i int) { g.shards[i].collect(i) })
		for _, s := range g.shards {
			busy += s.busy
		}
	} else {
		for _, s := range g.shards {
			s.run(window)
		}
		busy = time.Since(start)
	}
	// What an event costs decides how the next windows are run, and nothing else.
	g.cost += (float64(busy)/float64(events) - g.cost) / 16
}

// beside calls do for 0 to n-1, on all cores.
func beside(n int, do func(i int)) {
	var next atomic.Int64
	work := func() {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			do(i)
		}
	}
	var group sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) - 1 {
		group.Go(work)
	}
	work()
	group.Wait()
}

// stamp is when and where something was noted.
type stamp struct {
	at   time.Duration
	node int32
}

func (s stamp) when() stamp { return s }

func (s stamp) compare(t stamp) int {
	return cmp.Or(cmp.Compare(s.at, t.at), cmp.Compare(s.node, t.node))
}

// gather empties what all shards have noted in a window, and returns it in the
// one order that does not depend on them.
func gather[T interface{ when() stamp }](g *engine, of func(*shard) *[]T) []T {
	var all []T
	for _, s := range g.shards {
		list := of(s)
		all = append(all, *list...)
		clear(*list)
		*list = (*list)[:0]
	}
	// What a node has noted at one time stands in the order in which it did.
	slices.SortStableFunc(all, func(a, b T) int { return a.when().compare(b.when()) })
	return all
}
