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

	"village/protocol/agree"
	"village/protocol/dataset"
	"village/protocol/learn"
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
	Enrols time.Duration // when the operator says yes
	Leaves time.Duration // when the operator ends the node's part; 0 = never
	Attack Attack        // what a hostile node does; "" = nothing
}

// Attack is what a hostile node does to its updates.
type Attack string

// The attacks.
const (
	SignFlip  Attack = "sign-flip"  // the opposite of what it has learnt in the round
	Scaled    Attack = "scaled"     // ten times what it has learnt in the round
	LabelFlip Attack = "label-flip" // trains on the next class instead of the true one
	// ALittle is "a little is enough" (Baruch et al. 2019): the mean of the
	// updates that it holds less 1.5 of their standard deviations.
	ALittle Attack = "a-little-is-enough"
	NaN     Attack = "nan" // parameters that are no numbers
)

// Attacks lists them.
var Attacks = []Attack{SignFlip, Scaled, LabelFlip, ALittle, NaN}

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
	// Torn is the probability that a node crashes while it publishes: as often
	// before the record is durable as after, and always before it is sent.
	Torn float64
	// Outages are crashes at a set time.
	Outages []Outage
	// Liars tell every second node something else, by place.
	Liars []int
}

// Outage is a node that is down for a while, or for good where For is 0.
type Outage struct {
	Node    int
	At, For time.Duration
}

// Config describes a run.
type Config struct {
	Nodes  []Node
	Task   task.Task // its Nodes are filled in by Run
	Seed   uint64
	Faults Faults
	Delay  Delay
	// Bandwidth is what a node sends at most, in bytes a second; 0 = any amount.
	Bandwidth float64
	// Pull is how often a node compares what it holds with one other; 0 = 2 s.
	Pull time.Duration
	// Limit ends a run that does not come to an end, in virtual time; 0 = 30 days.
	Limit time.Duration
	// Watch, if set, is called at every update that a node publishes.
	Watch func(now time.Duration, node int, u task.Update, round uint64)
	// Samples is how many rounds, evenly over the run, Result.Trace shows.
	Samples int

	// split, if set, is told of two nodes that decide otherwise, and the run
	// goes on: for tests with more liars than can be tolerated.
	split func(error)
}

// Delay is how long a message is under way: what Between says of the two nodes
// (by place; nil = nothing), and a time uniform in [Min, Max] on top. A wide span
// reorders. Both 0 mean 5 ms to 50 ms.
type Delay struct {
	Min, Max time.Duration
	Between  func(from, to int) time.Duration
}

// Point is what a run had come to when the nodes began the round after Round.
type Point struct {
	Round    uint64
	Virtual  time.Duration // when the last of them did
	Messages uint64        // sent until then, by all nodes together
	Bytes    uint64
	// AllRows is how every node's own mix did on that node's own test rows,
	// together, and Mean the mean of the nodes.
	AllRows learn.Report
	Mean    task.Metrics
	// Disagreement is how far the nodes' mixes are apart: the root of the mean
	// square of their distance to the mean of all.
	Disagreement float64
}

// Result is the outcome of a run.
type Result struct {
	Task     record.CID
	Nodes    []record.NodeID // by place in Config.Nodes
	Models   []record.CID    // of each node; undefined where it did not seal
	Model    *task.Model     // of the first node that sealed
	Results  task.Results    // as that node sees them
	Content  task.FinalContent
	Done     bool            // every node that is up has come to the end
	Proofs   []record.NodeID // nodes that are proven to have signed two things for one place
	Messages uint64          // sent, lost ones included
	Bytes    uint64          // of them
	Updates  uint64          // published by all nodes together
	Virtual  time.Duration
	Trace    []Point
	// Disagreement is that of the last mixes.
	Disagreement float64
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
	model    record.CID // that was sealed
	roster   record.CID
	inputs   map[record.CID][]member.Received
	proofs   map[record.NodeID]bool
}

// node is a simulated node: what a crash leaves (held, site) and what it takes.
type node struct {
	Node
	id     record.NodeID
	place  int
	site   *member.Site
	held   map[slot][]member.Received // durable, newest first
	slots  []slot                     // of held, in the order in which they came
	member *member.Member
	life   int  // counts restarts, so that what a past life began goes nowhere
	up     bool // not down
	gone   bool // down for good
	lies   bool
	done   bool // has come to the end
	wake   time.Duration
}

// slot is a record.Slot of the one task.
type slot struct {
	kind   record.Kind
	topic  task.Topic
	author record.NodeID
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
	if cfg.Delay.Max == 0 {
		cfg.Delay.Min, cfg.Delay.Max = 5*time.Millisecond, 50*time.Millisecond
	}
	if cfg.Pull == 0 {
		cfg.Pull = 2 * time.Second
	}
	w := &world{cfg: cfg, inputs: map[record.CID][]member.Received{}, proofs: map[record.NodeID]bool{}}
	w.rng = rand.New(rand.NewChaCha8(digest("rng", cfg.Seed)))
	for i, n := range cfg.Nodes {
		if n.Step == 0 {
			n.Step = 100 * time.Millisecond
		}
		id := record.NodeID(digest("node", cfg.Seed, uint64(i)))
		w.nodes = append(w.nodes, &node{Node: n, id: id, place: i, up: true, held: map[slot][]member.Received{}})
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
		w.after(n.Enrols, func() error { return w.enrol(i) })
		if n.Leaves > 0 {
			w.after(n.Leaves, func() error { return w.step(i, member.Leave{}) })
		}
		w.after(w.jitter(cfg.Pull), func() error { return w.pull(i) })
		w.scheduleRestart(i)
	}
	for _, o := range cfg.Faults.Outages {
		w.after(o.At, func() error { return w.crash(o.Node, o.For, func() {}) })
	}
	for _, i := range cfg.Faults.Liars {
		w.nodes[i].lies = true
		w.undone-- // nobody waits for it
	}
	return w, nil
}

// enrol is the operator's yes. One that a crash swallowed is said again.
func (w *world) enrol(i int) error {
	n := w.nodes[i]
	if !n.up && !n.gone {
		w.after(time.Second, func() error { return w.enrol(i) })
		return nil
	}
	return w.step(i, member.Enrol{Enrolment: n.site.Enrolment(record.CIDOf(n.id[:]), n.Nation, n.Name)})
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
		if !n.up {
			break // it crashed at the one before
		}
		if err := w.perform(i, effect); err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
	}
	return w.check(n)
}

// check holds what must be true of a node after every step.
func (w *world) check(n *node) error {
	if n.lies {
		return nil
	}
	if err := w.agrees(n); err != nil {
		if w.cfg.split == nil {
			return err
		}
		w.cfg.split(err)
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

// agrees holds that no two nodes decide otherwise.
func (w *world) agrees(n *node) error {
	if roster := n.member.Roster(); roster.Defined() {
		if w.roster.Defined() && w.roster != roster {
			return fmt.Errorf("%s: %w: two rosters", n.Name, ErrSplit)
		}
		w.roster = roster
	}
	if model := n.member.Content().Model; model.Defined() {
		if w.model.Defined() && w.model != model {
			return fmt.Errorf("%s: %w", n.Name, ErrSplit)
		}
		w.model = model
	}
	if n.member.Disputed() {
		return fmt.Errorf("%s: %w: it recomputes another model", n.Name, ErrSplit)
	}
	return nil
}

func (w *world) perform(i int, effect member.Effect) error {
	n := w.nodes[i]
	switch e := effect.(type) {
	case member.Publish:
		if u, ok := e.Body.(task.Update); ok && w.cfg.Watch != nil {
			w.cfg.Watch(w.now, i, u, e.Number)
		}
		return w.publish(i, member.Received{Number: e.Number, Body: e.Body})
	case member.Cast:
		v := e.Vote
		return w.publish(i, member.Received{Number: v.Ballot, Body: member.Ballot{Topic: e.Topic, Vote: v}})
	case member.Certify:
		return w.publish(i, member.Received{Body: member.Certificate{Topic: e.Topic, Content: e.Content}})
	case member.Train:
		params, err := n.site.Train(e, nil)
		if err != nil {
			return err
		}
		w.work(i, e.Round, member.Trained{Round: e.Round, Params: params})
	case member.Make:
		return w.make(i, e)
	case member.Fetch:
		w.fetch(i, e.Inputs)
	case member.Evaluate:
		evaluation, err := n.site.Evaluate(e, nil)
		if err != nil {
			return err
		}
		w.work(i, e.Model.Round, member.Evaluated{Evaluation: evaluation})
	case member.Wake:
		n.wake = e.At
		w.later(i, e.At-w.now, func() error {
			if n.wake != e.At {
				return nil // a newer one has replaced it
			}
			n.wake = 0
			return w.step(i, member.Tick{})
		})
	}
	return nil
}

// later does something at a node after a while, if it still lives then.
func (w *world) later(i int, d time.Duration, do func() error) {
	n, life := w.nodes[i], w.nodes[i].life
	w.after(d, func() error {
		if n.life != life {
			return nil
		}
		return do()
	})
}

// work lets time pass, with a beacon now and then, before what came out.
func (w *world) work(i int, round uint64, out member.Event) {
	n := w.nodes[i]
	for at := member.BeaconInterval; at < n.Step; at += member.BeaconInterval {
		w.later(i, at, func() error {
			beacon := member.Received{Author: n.id, Number: uint64(w.now), Body: task.Beacon{Task: w.id, Round: round}}
			for j := range w.nodes {
				if j != i {
					w.transmit(i, j, func() error { return w.step(j, beacon) })
				}
			}
			return nil
		})
	}
	w.later(i, n.Step, func() error { return w.step(i, out) })
}

// publish makes a record durable, gives it to its author's machine, and sends
// it to all others.
func (w *world) publish(i int, r member.Received) error {
	n := w.nodes[i]
	r.Author = n.id
	r = named(r)
	if w.tears() {
		return w.crash(i, w.cfg.Faults.Down, func() {})
	}
	w.keep(n, r)
	if w.tears() {
		return w.crash(i, w.cfg.Faults.Down, func() {})
	}
	lie, lies := w.lie(n, r)
	for j := range w.nodes {
		switch {
		case j == i:
		case lies && j%2 == 0:
			w.send(i, j, lie)
		default:
			w.send(i, j, r)
		}
	}
	return w.step(i, r)
}

func (w *world) tears() bool {
	return w.cfg.Faults.Torn > 0 && w.rng.Float64() < w.cfg.Faults.Torn/2
}

// lie is what a liar tells every second node in the place of r.
func (w *world) lie(n *node, r member.Received) (member.Received, bool) {
	b, ok := r.Body.(member.Ballot)
	if !ok || !n.lies {
		return r, false
	}
	if b.Vote.Phase == agree.Proposal {
		b.Vote.Content = []byte("a lie")
		b.Vote.Value = record.CIDOf(b.Vote.Content)
		b.Vote.Valid, b.Vote.Proof = 0, nil
	} else if b.Vote.Value.Defined() {
		b.Vote.Value = record.CID{}
	} else {
		b.Vote.Value = record.CIDOf([]byte("a lie"))
	}
	r.Body = b
	return named(r), true
}

// named gives a record a CID that stands for all that tells it from another.
func named(r member.Received) member.Received {
	s := slotOf(r)
	b := append([]byte(s.kind+"/"+record.Kind(s.topic)), r.Author[:]...)
	b = binary.BigEndian.AppendUint64(b, r.Number)
	switch body := r.Body.(type) {
	case task.Update:
		for _, x := range body.Params {
			b = binary.BigEndian.AppendUint64(b, math.Float64bits(x))
		}
	case member.Ballot:
		b = append(append(b, body.Vote.Value.Bytes()...), byte(body.Vote.Valid))
	case member.Certificate:
		b = append(b, body.Content...)
	}
	r.CID = record.CIDOf(b)
	if body, ok := r.Body.(member.Ballot); ok {
		body.Vote.CID, body.Vote.Author = r.CID, r.Author
		r.Body = body
	}
	return r
}

// make stores what a set of updates comes to.
func (w *world) make(i int, e member.Make) error {
	n := w.nodes[i]
	b, err := e.Model.Marshal()
	if err != nil {
		return err
	}
	inputs := sha256.New()
	var updates []member.Received
	for _, p := range e.Model.Parts {
		for _, r := range n.held[slot{kind: record.KindUpdate, author: p.Node}] {
			if r.CID == p.Update {
				updates = append(updates, r)
			}
		}
		inputs.Write(p.Enrolment.Bytes())
		inputs.Write(p.Update.Bytes())
	}
	made := member.Made{Set: e.Set}
	made.Inputs = record.CIDOf(inputs.Sum(nil))
	if len(updates) == len(e.Model.Parts) {
		w.inputs[made.Inputs] = updates
	}
	if w.inputs[made.Inputs] != nil {
		made.Model = record.CIDOf(b)
	}
	w.later(i, 0, func() error { return w.step(i, made) })
	return nil
}

// fetch brings the inputs of a model from whoever has them.
func (w *world) fetch(i int, inputs record.CID) {
	w.later(i, 2*w.cfg.Delay.Max, func() error {
		if updates := w.inputs[inputs]; updates != nil {
			return w.step(i, member.Fetched{Updates: updates})
		}
		w.fetch(i, inputs)
		return nil
	})
}

// keep makes a record durable as a store does: of a slot the newest that its
// kind keeps, and a proof where there are two for one number. It tells whether
// the record was taken.
func (w *world) keep(n *node, r member.Received) bool {
	s := slotOf(r)
	held, known := n.held[s]
	at := 0
	for at < len(held) && held[at].Number > r.Number {
		at++
	}
	if at < len(held) && held[at].Number == r.Number {
		if held[at].CID != r.CID {
			w.proofs[r.Author] = true
		}
		return false
	}
	if at == s.kind.Keep() {
		return false
	}
	if !known {
		n.slots = append(n.slots, s)
	}
	held = slices.Insert(held, at, r)
	n.held[s] = held[:min(len(held), s.kind.Keep())]
	return true
}

func slotOf(r member.Received) slot {
	s := slot{author: r.Author}
	switch body := r.Body.(type) {
	case task.Enrolment:
		s.kind = record.KindEnrolment
	case task.Update:
		s.kind = record.KindUpdate
	case task.Evaluation:
		s.kind = record.KindEvaluation
	case task.Leave:
		s.kind = record.KindLeave
	case member.Certificate:
		s.kind, s.topic = record.KindSeal, body.Topic
	case member.Ballot:
		s.kind, s.topic = voteKinds[body.Vote.Phase], body.Topic
	}
	return s
}

var voteKinds = map[agree.Phase]record.Kind{
	agree.Proposal: record.KindProposal, agree.Prevote: record.KindPrevote, agree.Precommit: record.KindPrecommit,
}

// all returns the durable records, in a fixed order.
func (n *node) all() []member.Received {
	var all []member.Received
	for _, s := range n.slots {
		all = append(all, n.held[s]...)
	}
	return all
}

// send puts a record on the virtual wire.
func (w *world) send(from, to int, r member.Received) {
	w.transmit(from, to, func() error {
		if w.keep(w.nodes[to], r) {
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
		latency := w.cfg.Delay.Min + w.jitter(w.cfg.Delay.Max-w.cfg.Delay.Min+1)
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
	w.transmit(i, j, func() error {
		for _, s := range w.nodes[j].slots {
			for _, r := range w.nodes[j].held[s] {
				if !w.nodes[i].has(s, r.CID) {
					w.send(j, i, r)
				}
			}
		}
		return nil
	})
	return nil
}

func (n *node) has(s slot, cid record.CID) bool {
	return slices.ContainsFunc(n.held[s], func(r member.Received) bool { return r.CID == cid })
}

// scheduleRestart lets a node crash at a random time and come back with what
// it had made durable.
func (w *world) scheduleRestart(i int) {
	if w.cfg.Faults.Restarts == 0 {
		return
	}
	wait := time.Duration(w.rng.ExpFloat64() / w.cfg.Faults.Restarts * float64(time.Hour))
	w.after(wait, func() error {
		return w.crash(i, w.cfg.Faults.Down, func() { w.scheduleRestart(i) })
	})
}

// crash takes a node down; it comes back after a while with what it had made
// durable, or never where that is 0.
func (w *world) crash(i int, down time.Duration, back func()) error {
	n := w.nodes[i]
	if !n.up {
		back()
		return nil
	}
	n.up = false
	n.life++
	if down == 0 {
		n.gone = true
		if !n.done && !n.lies {
			w.undone--
		}
		return nil
	}
	w.after(down, func() error {
		n.up = true
		n.wake = 0
		n.member = member.New(n.id, w.id, w.cfg.Task)
		n.member.Restore(w.now, n.all())
		back()
		return w.step(i, member.Tick{})
	})
	return nil
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
			res.Model, res.Results, res.Content = model, results, n.member.Content()
		}
	}
	for _, id := range w.cfg.Task.Nodes {
		if w.proofs[id] {
			res.Proofs = append(res.Proofs, id)
		}
	}
	h.Write(binary.BigEndian.AppendUint64(nil, w.messages))
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(w.now)))
	res.Digest = [32]byte(h.Sum(nil))
	return res, nil
}
