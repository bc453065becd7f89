// Package sim runs the machine of protocol/member for many nodes at once, on a
// virtual clock and over a virtual network that loses, delays, repeats and
// reorders messages and restarts nodes. One seed gives one run.
package sim

import (
	"container/heap"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"village/protocol/dataset"
	"village/protocol/member"
	"village/protocol/record"
	"village/protocol/task"
)

// Node is one simulated node.
type Node struct {
	Name   string
	Nation string
	Rows   dataset.Table
	Split  string        // column that says train or test, or ""
	Step   time.Duration // how long a round's local steps take; 0 = 100 ms
}

// Faults are what happens to messages and nodes. The zero value is a network
// without faults.
type Faults struct {
	Loss      float64       // probability that a message is lost
	Duplicate float64       // probability that it comes twice
	Restarts  float64       // restarts of a node in an hour, on average
	Down      time.Duration // how long a restart takes
	// Apart tells whether a message between two nodes (by place) is cut off at
	// a time; nil = never.
	Apart func(now time.Duration, from, to int) bool
}

// Config describes a run.
type Config struct {
	Nodes  []Node
	Task   task.Task // its Nodes are filled in by Run
	Seed   uint64
	Faults Faults
	// Latency of a message is uniform in [LatencyMin, LatencyMax]; both 0 mean
	// 5 ms to 50 ms. A wide span reorders.
	LatencyMin, LatencyMax time.Duration
	// Pull is how often a node compares what it holds with one other; 0 = 2 s.
	Pull time.Duration
	// Limit ends a run that does not come to an end, in virtual time; 0 = 30 days.
	Limit time.Duration
	// Watch, if set, is called at every update that a node publishes.
	Watch func(now time.Duration, node int, u task.Update, round uint64)
}

// Result is the outcome of a run.
type Result struct {
	Task     record.CID
	Nodes    []record.NodeID // by place in Config.Nodes
	Models   []record.CID    // of each node; undefined where it did not seal
	Model    *task.Model     // of the first node that sealed
	Results  task.Results    // as that node sees them
	Done     bool            // every node has come to the end
	Messages uint64          // sent, lost ones included
	Virtual  time.Duration
	// Digest is SHA-256 over every node's model and the counters.
	Digest [32]byte
}

// ErrSplit says that two nodes hold two models of one task, which must never be.
var ErrSplit = errors.New("two nodes sealed two models")

// Run runs a task to its end, to the limit, or until ctx ends.
func Run(ctx context.Context, cfg Config) (Result, error) {
	w, err := newWorld(cfg)
	if err != nil {
		return Result{}, err
	}
	for w.undone > 0 && len(w.events) > 0 && w.events[0].at <= cfg.limit() {
		if err := ctx.Err(); err != nil {
			return Result{}, err
		}
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		if err := e.do(); err != nil {
			return Result{}, err
		}
	}
	return w.result()
}

func (c Config) limit() time.Duration {
	if c.Limit == 0 {
		return 30 * 24 * time.Hour
	}
	return c.Limit
}

// world is the state of a run.
type world struct {
	cfg      Config
	id       record.CID
	rng      *rand.Rand
	now      time.Duration
	events   events
	sequence uint64
	nodes    []*node
	undone   int // nodes that have not come to the end
	messages uint64
	model    record.CID
}

// node is a simulated node: what a crash leaves (held, site) and what it takes.
type node struct {
	Node
	id     record.NodeID
	site   *member.Site
	held   []member.Received // durable
	member *member.Member
	life   int  // counts restarts, so that what a past life began goes nowhere
	up     bool // not restarting
	done   bool // has come to the end
}

type event struct {
	at       time.Duration
	sequence uint64
	do       func() error
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	if e[i].at != e[j].at {
		return e[i].at < e[j].at
	}
	return e[i].sequence < e[j].sequence
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	(*e)[len(*e)-1] = event{}
	*e = (*e)[:len(*e)-1]
	return last
}

func newWorld(cfg Config) (*world, error) {
	if len(cfg.Nodes) == 0 {
		return nil, errors.New("a run needs at least one node")
	}
	if cfg.LatencyMax == 0 {
		cfg.LatencyMin, cfg.LatencyMax = 5*time.Millisecond, 50*time.Millisecond
	}
	if cfg.Pull == 0 {
		cfg.Pull = 2 * time.Second
	}
	w := &world{cfg: cfg}
	w.rng = rand.New(rand.NewChaCha8(digest("rng", cfg.Seed)))
	for i, n := range cfg.Nodes {
		if n.Step == 0 {
			n.Step = 100 * time.Millisecond
		}
		id := record.NodeID(digest("node", cfg.Seed, uint64(i)))
		w.nodes = append(w.nodes, &node{Node: n, id: id, up: true})
		w.undone++
	}
	t := cfg.Task
	t.Nodes = nil
	for _, n := range w.nodes {
		t.Nodes = append(t.Nodes, n.id)
	}
	slices.SortFunc(t.Nodes, record.NodeID.Compare)
	if err := t.Check(); err != nil {
		return nil, err
	}
	b, err := record.Encode(t)
	if err != nil {
		return nil, err
	}
	w.cfg.Task, w.id = t, record.CIDOf(b)
	for i, n := range w.nodes {
		if n.site, err = member.NewSite(n.id, w.id, t, n.Rows, n.Split); err != nil {
			return nil, fmt.Errorf("%s: %w", n.Name, err)
		}
		n.member = member.New(n.id, w.id, t)
		manifest := record.CIDOf(n.id[:])
		w.after(0, func() error {
			return w.step(i, member.Enrol{Enrolment: n.site.Enrolment(manifest, n.Nation, n.Name)})
		})
		w.after(w.jitter(cfg.Pull), func() error { return w.pull(i) })
		w.scheduleRestart(i)
	}
	return w, nil
}

func digest(domain string, parts ...uint64) [32]byte {
	b := []byte("village sim " + domain)
	for _, p := range parts {
		b = binary.BigEndian.AppendUint64(b, p)
	}
	return sha256.Sum256(b)
}

func (w *world) after(d time.Duration, do func() error) {
	w.sequence++
	heap.Push(&w.events, event{at: w.now + d, sequence: w.sequence, do: do})
}

func (w *world) jitter(d time.Duration) time.Duration {
	return time.Duration(w.rng.Int64N(int64(d))) + 1
}

// step gives a node an event and performs the effects.
func (w *world) step(i int, e member.Event) error {
	n := w.nodes[i]
	if !n.up {
		return nil
	}
	for _, effect := range n.member.Step(w.now, e) {
		if err := w.perform(i, effect); err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
	}
	if done := n.member.Stage() == member.Done; done != n.done {
		n.done = done
		if done {
			w.undone--
		} else {
			w.undone++
		}
	}
	return nil
}

func (w *world) perform(i int, effect member.Effect) error {
	n, life := w.nodes[i], w.nodes[i].life
	// later steps the node with what a long effect came to, if it still lives.
	later := func(d time.Duration, e member.Event) {
		w.after(d, func() error {
			if n.life != life {
				return nil
			}
			return w.step(i, e)
		})
	}
	switch e := effect.(type) {
	case member.Publish:
		r := member.Received{CID: nameOf(n.id, e), Author: n.id, Number: e.Number, Body: e.Body}
		if u, ok := e.Body.(task.Update); ok && w.cfg.Watch != nil {
			w.cfg.Watch(w.now, i, u, e.Number)
		}
		n.keep(r)
		for j := range w.nodes {
			if j != i {
				w.send(i, j, r)
			}
		}
		return w.step(i, r)
	case member.Train:
		params, err := n.site.Train(e)
		if err != nil {
			return err
		}
		later(n.Step, member.Trained{Round: e.Round, Params: params})
	case member.Seal:
		b, err := e.Model.Marshal()
		if err != nil {
			return err
		}
		cid := record.CIDOf(b)
		if w.model.Defined() && w.model != cid {
			return ErrSplit
		}
		w.model = cid
		return w.step(i, member.Sealed{Model: cid})
	case member.Evaluate:
		evaluation, err := n.site.Evaluate(e)
		if err != nil {
			return err
		}
		later(n.Step, member.Evaluated{Evaluation: evaluation})
	case member.Wake:
		later(e.At-w.now, member.Tick{})
	}
	return nil
}

// nameOf names a published record by all that tells it from another.
func nameOf(author record.NodeID, p member.Publish) record.CID {
	b := append([]byte(p.Kind), author[:]...)
	b = binary.BigEndian.AppendUint64(b, p.Number)
	if u, ok := p.Body.(task.Update); ok {
		for _, x := range u.Params {
			b = binary.BigEndian.AppendUint64(b, math.Float64bits(x))
		}
	}
	return record.CIDOf(b)
}

// keep makes a record durable as a store does: of a slot the newest that its
// kind keeps. It tells whether the record was new.
func (n *node) keep(r member.Received) bool {
	kind := kindOf(r.Body)
	same := func(h member.Received) bool { return h.Author == r.Author && kindOf(h.Body) == kind }
	oldest, count := -1, 0
	for i, h := range n.held {
		if !same(h) {
			continue
		}
		if h.Number == r.Number {
			return false
		}
		count++
		if oldest < 0 || h.Number < n.held[oldest].Number {
			oldest = i
		}
	}
	if count < kind.Keep() {
		n.held = append(n.held, r)
		return true
	}
	if r.Number < n.held[oldest].Number {
		return false
	}
	n.held[oldest] = r
	return true
}

func kindOf(body any) record.Kind {
	switch body.(type) {
	case task.Enrolment:
		return record.KindEnrolment
	case task.Update:
		return record.KindUpdate
	}
	return record.KindEvaluation
}

// send puts a record on the virtual wire.
func (w *world) send(from, to int, r member.Received) {
	w.transmit(from, to, func() error {
		if w.nodes[to].keep(r) {
			return w.step(to, r)
		}
		return nil
	})
}

// transmit does at the receiver what a message asks for, unless it is lost.
func (w *world) transmit(from, to int, do func() error) {
	f := w.cfg.Faults
	copies := 1
	if f.Duplicate > 0 && w.rng.Float64() < f.Duplicate {
		copies = 2
	}
	for range copies {
		w.messages++
		lost := f.Loss > 0 && w.rng.Float64() < f.Loss || f.Apart != nil && f.Apart(w.now, from, to)
		latency := w.cfg.LatencyMin + w.jitter(w.cfg.LatencyMax-w.cfg.LatencyMin+1)
		if lost {
			continue
		}
		w.after(latency, func() error {
			if !w.nodes[to].up {
				return nil
			}
			return do()
		})
	}
}

// pull asks one other node for the records that this one lacks.
func (w *world) pull(i int) error {
	w.after(w.cfg.Pull/2+w.jitter(w.cfg.Pull), func() error { return w.pull(i) })
	if len(w.nodes) == 1 || !w.nodes[i].up {
		return nil
	}
	j := w.rng.IntN(len(w.nodes) - 1)
	if j >= i {
		j++
	}
	has := make(map[record.CID]bool, len(w.nodes[i].held))
	for _, r := range w.nodes[i].held {
		has[r.CID] = true
	}
	w.transmit(i, j, func() error {
		for _, r := range w.nodes[j].held {
			if !has[r.CID] {
				w.send(j, i, r)
			}
		}
		return nil
	})
	return nil
}

// scheduleRestart lets a node crash at a random time and come back with what
// it had made durable.
func (w *world) scheduleRestart(i int) {
	if w.cfg.Faults.Restarts == 0 {
		return
	}
	wait := time.Duration(w.rng.ExpFloat64() / w.cfg.Faults.Restarts * float64(time.Hour))
	w.after(wait, func() error {
		n := w.nodes[i]
		n.up = false
		n.life++
		w.after(w.cfg.Faults.Down, func() error {
			n.up = true
			n.member = member.New(n.id, w.id, w.cfg.Task)
			n.member.Restore(w.now, n.held)
			w.scheduleRestart(i)
			if err := w.step(i, member.Tick{}); err != nil {
				return err
			}
			// An operator's yes that a crash swallowed is said again.
			return w.step(i, member.Enrol{Enrolment: n.site.Enrolment(record.CIDOf(n.id[:]), n.Nation, n.Name)})
		})
		return nil
	})
}

func (w *world) result() (Result, error) {
	res := Result{Task: w.id, Messages: w.messages, Virtual: w.now, Done: w.undone == 0}
	h := sha256.New()
	for _, n := range w.nodes {
		cid, model := n.member.Model()
		res.Nodes, res.Models = append(res.Nodes, n.id), append(res.Models, cid)
		h.Write(n.id[:])
		h.Write(cid.Bytes())
		if cid.Defined() && res.Model == nil {
			results, err := n.member.Results()
			if err != nil {
				return Result{}, err
			}
			res.Model, res.Results = model, results
		}
	}
	h.Write(binary.BigEndian.AppendUint64(nil, w.messages))
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(w.now)))
	res.Digest = [32]byte(h.Sum(nil))
	return res, nil
}
