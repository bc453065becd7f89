// Package sim runs the machine of protocol/member for many nodes at once, on a
// virtual clock and over a virtual network that loses, delays, repeats and
// reorders messages and restarts nodes. One seed gives one run, on any number of
// cores.
//
// A federation of more than [task.MaxNodes] nodes agrees on nothing: everyone is
// enrolled from the start, the rounds of the machine run alone, and the model is
// the weighted mean of everyone's last update, which nobody seals.
package sim

import (
	"cmp"
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
	"village/protocol/learn"
	"village/protocol/member"
	"village/protocol/mixing"
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
	// a time; nil = never. It is called from several goroutines.
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
	Nodes []Node
	// Task says what is trained. Its Nodes are filled in by Run, in the order of
	// the places in Nodes.
	Task   task.Task
	Seed   uint64
	Faults Faults
	Delay  Delay
	// Bandwidth is what a node sends at most, in bytes a second; 0 = any amount.
	Bandwidth float64
	// Pull is how often a node compares what it holds with one other; 0 = 2 s.
	Pull time.Duration
	// Limit ends a run that does not come to an end, in virtual time; 0 = 30 days.
	Limit time.Duration
	// Watch, if set, is called at every update that a node publishes, in the
	// order of time and, at one time, of places.
	Watch func(now time.Duration, node int, u task.Update, round uint64)
	// Progress, if set, is called a few times a second with the number of
	// updates that all nodes have published so far.
	Progress func(updates uint64)
	// Samples is how many rounds, evenly over the run, Result.Trace shows.
	Samples int

	// split, if set, is told of two nodes that decide otherwise, and the run
	// goes on: for tests with more liars than can be tolerated.
	split func(error)
}

// Delay is how long a message is under way: what Between says of the two nodes
// (by place; nil = nothing; called from several goroutines), and a time uniform
// in [Min, Max] on top, but a millisecond at least. A wide span reorders. Both 0
// mean 5 ms to 50 ms. The larger Min is, the more of a run can go on at once.
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
	Refused  uint64          // updates that came and did not pass the check
	Virtual  time.Duration
	Trace    []Point
	// Disagreement is that of the mixes from which the nodes' last rounds started.
	Disagreement float64
	// Digest is SHA-256 over all final parameters and counters.
	Digest [32]byte
}

// ErrSplit says that two nodes hold two models of one task, which must never be.
var ErrSplit = errors.New("two nodes sealed two models")

// Run runs a task to its end, to the limit, or until ctx ends.
func Run(ctx context.Context, cfg Config) (Result, error) {
	w, err := newWorld(ctx, cfg)
	if err != nil {
		return Result{}, err
	}
	if err := w.run(); err != nil {
		return Result{}, err
	}
	return w.result()
}

// world is the state of a run. While a window runs, nodes read it alone.
type world struct {
	cfg    Config
	id     record.CID
	agrees bool                    // the nodes agree on a roster and a model
	graph  *mixing.Graph           // by place
	places map[record.NodeID]int32 // where they agree
	nodes  []node
	roster task.Roster // where they do not agree
	curve  *curve
	// everyone is the list of the task's candidates, where nobody drops any.
	everyone []int
	halted   func() error // the error of a run whose context has ended

	engine  *engine
	undone  int // nodes that have not come to the end
	updates uint64
	told    time.Time  // when Progress was called
	first   record.CID // roster that was decided on
	sealed  record.CID // model that was
}

// run runs windows until the nodes have come to the end.
func (w *world) run() error {
	for w.undone > 0 {
		window, events, ok := w.engine.next()
		if !ok || time.Duration(window)*w.engine.width > w.cfg.Limit {
			break
		}
		w.engine.run(window, events)
		if err := w.collect(); err != nil {
			return err
		}
	}
	return nil
}

func newWorld(ctx context.Context, cfg Config) (*world, error) {
	if len(cfg.Nodes) == 0 {
		return nil, errors.New("a run needs at least one node")
	}
	if cfg.Delay.Max == 0 {
		cfg.Delay.Min, cfg.Delay.Max = 5*time.Millisecond, 50*time.Millisecond
	}
	if cfg.Pull == 0 {
		cfg.Pull = 2 * time.Second
	}
	if cfg.Limit == 0 {
		cfg.Limit = 30 * 24 * time.Hour
	}
	w := &world{cfg: cfg, agrees: len(cfg.Nodes) <= task.MaxNodes, undone: len(cfg.Nodes)}
	w.halted = func() error {
		select {
		case <-ctx.Done(): // which takes no lock, as ctx.Err does
			return ctx.Err()
		default:
			return nil
		}
	}
	if err := w.propose(); err != nil {
		return nil, err
	}
	if err := w.assignRows(); err != nil {
		return nil, err
	}
	for i := range w.nodes {
		n := &w.nodes[i]
		if err := n.machine.start(n); err != nil {
			return nil, err
		}
		n.after(n.Enrols, 0, enrol{})
		if n.Leaves > 0 {
			n.after(n.Leaves, 0, leave{})
		}
		n.after(n.jitter(cfg.Pull), 0, pull{})
		n.scheduleRestart()
	}
	for _, o := range cfg.Faults.Outages {
		w.nodes[o.Node].after(o.At, 0, o)
	}
	return w, nil
}

// propose makes the task, with the nodes' IDs in the order of their places.
func (w *world) propose() error {
	ids := make([]record.NodeID, len(w.cfg.Nodes))
	for i := range ids {
		ids[i] = record.NodeID(digest("node", w.cfg.Seed, uint64(i)))
	}
	slices.SortFunc(ids, record.NodeID.Compare)
	t := w.cfg.Task
	t.Nodes = ids
	checked := t
	if !w.agrees { // and there are more than a task can name
		t.Nodes, checked.Nodes, checked.Mixing = ids[:1], ids[:1], mixing.All
	}
	if err := checked.Check(); err != nil {
		return err
	}
	b, err := record.Encode(t)
	if err != nil {
		return err
	}
	w.cfg.Task, w.id, w.everyone = t, record.CIDOf(b), t.Everyone()
	if w.graph, err = mixing.New(t.Mixing, len(ids), t.Seed); err != nil {
		return err
	}
	if !w.agrees && w.graph.Complete() {
		return fmt.Errorf("%d nodes are more than the %d that mix all with all", len(ids), task.MaxNodes)
	}
	w.nodes = make([]node, len(ids))
	w.places = make(map[record.NodeID]int32, len(ids))
	for i, id := range ids {
		w.nodes[i] = node{Node: w.cfg.Nodes[i], world: w, place: int32(i), id: id, up: true, life: 1}
		w.places[id] = int32(i)
	}
	for _, i := range w.cfg.Faults.Liars {
		w.nodes[i].liar = true
	}
	return nil
}

// assignRows gives the nodes their rows, and where they cannot agree on one, their
// roster.
func (w *world) assignRows() error {
	w.engine = newEngine(max(w.cfg.Delay.Min, leastDelay), w.nodes)
	w.curve = newCurve(w.cfg.Task, len(w.nodes), w.cfg.Samples)
	errs := make([]error, len(w.nodes))
	enrolled := make([]task.Enrolled, len(w.nodes))
	beside(len(w.nodes), func(i int) {
		n := &w.nodes[i]
		if errs[i] = w.halted(); errs[i] != nil {
			return
		}
		if n.site, errs[i] = member.NewSite(n.id, w.id, w.cfg.Task, n.Rows, n.Split, nil); errs[i] != nil {
			errs[i] = fmt.Errorf("%s: %w", n.Name, errs[i])
			return
		}
		n.Rows = dataset.Table{} // which the site has taken
		n.site.Share(&n.shard.scratch)
		n.rng = rand.New(rand.NewChaCha8(digest("rng", w.cfg.Seed, uint64(i))))
		if n.Step == 0 {
			n.Step = 100 * time.Millisecond
		}
		if n.Attack == LabelFlip {
			n.site.FlipLabels()
		}
		e := n.site.Enrolment(record.CIDOf(n.id[:]), n.Nation, n.Name)
		if w.agrees {
			n.index, n.inputs = map[slot]int{}, map[record.CID][]member.Received{}
			n.machine = &whole{}
		} else {
			n.machine = &crowd{weight: e.Moments.Count}
			enrolled[i] = task.Enrolled{CID: nameOf(slotOf(n.place, record.KindEnrolment), 0, e), Author: n.id, Enrolment: e}
		}
	})
	for i, err := range errs {
		if err != nil {
			return err
		}
		if n := &w.nodes[i]; n.liar || n.Attack != "" {
			n.lies = true
			w.undone-- // nobody waits for it
		}
	}
	w.cfg.Nodes = nil // the rows may be many, and are not needed any more
	var err error
	if !w.agrees {
		w.roster, err = task.RosterOf(w.cfg.Task, enrolled)
	}
	return err
}

func digest(domain string, parts ...uint64) [32]byte {
	b := []byte("village sim " + domain)
	for _, p := range parts {
		b = binary.BigEndian.AppendUint64(b, p)
	}
	return sha256.Sum256(b)
}

// news is what a shard notes for the world in a window.
type news struct {
	undone    int   // change of how many nodes have not come to the end
	gone      []int // samples that nodes which have gone for good had passed
	updates   uint64
	published []published
	decided   []decision
	failed    []failure
	passed    []passage
	counts    []tallied
}

type published struct {
	stamp
	round  uint64
	update task.Update
}

type decision struct {
	stamp
	roster, model record.CID
	disputed      bool
}

type failure struct {
	stamp
	err error
}

// publish notes an update for Config.Watch.
func (s *news) publish(n *node, round uint64, u task.Update) {
	if n.world.cfg.Watch != nil {
		s.published = append(s.published, published{stamp{n.now, n.place}, round, u})
	}
}

// collect takes in what the shards have noted in a window.
func (w *world) collect() error {
	if err := w.halted(); err != nil {
		return err
	}
	for _, s := range w.engine.shards {
		w.undone += s.news.undone
		w.updates += s.news.updates
		s.news.undone, s.news.updates = 0, 0
		for _, sample := range s.news.gone {
			w.curve.without(sample)
		}
		s.news.gone = s.news.gone[:0]
		w.curve.count(s.news.counts)
		clear(s.news.counts)
		s.news.counts = s.news.counts[:0]
	}
	for _, p := range gather(w.engine, func(s *shard) *[]published { return &s.news.published }) {
		w.cfg.Watch(p.at, int(p.node), p.update, p.round)
	}
	w.curve.add(gather(w.engine, func(s *shard) *[]passage { return &s.news.passed }))
	for _, d := range gather(w.engine, func(s *shard) *[]decision { return &s.news.decided }) {
		if err := w.agree(d); err != nil {
			if w.cfg.split == nil {
				return err
			}
			w.cfg.split(err)
		}
	}
	for _, f := range gather(w.engine, func(s *shard) *[]failure { return &s.news.failed }) {
		return f.err
	}
	if w.cfg.Progress != nil && time.Since(w.told) > 50*time.Millisecond {
		w.told = time.Now()
		w.cfg.Progress(w.updates)
	}
	return nil
}

// agree holds that no two nodes decide otherwise.
func (w *world) agree(d decision) error {
	name := w.nodes[d.node].Name
	if d.roster.Defined() {
		if w.first.Defined() && w.first != d.roster {
			return fmt.Errorf("%s: %w: two rosters", name, ErrSplit)
		}
		w.first = d.roster
	}
	if d.model.Defined() {
		if w.sealed.Defined() && w.sealed != d.model {
			return fmt.Errorf("%s: %w", name, ErrSplit)
		}
		w.sealed = d.model
	}
	if d.disputed {
		return fmt.Errorf("%s: %w: it recomputes another model", name, ErrSplit)
	}
	return nil
}

func (w *world) result() (Result, error) {
	res := Result{Task: w.id, Done: w.undone == 0, Models: make([]record.CID, len(w.nodes))}
	for _, s := range w.engine.shards {
		res.Virtual = max(res.Virtual, s.last)
	}
	accused := map[int32]bool{}
	var apart Spread
	for i := range w.nodes {
		n := &w.nodes[i]
		res.Nodes = append(res.Nodes, n.id)
		res.Messages += n.messages
		res.Bytes += n.bytes
		res.Updates += n.updates
		res.Refused += n.refused
		if n.mix != nil {
			apart.Add(n.mix)
		}
		for _, p := range n.proofs {
			accused[p.first.author] = true
		}
	}
	for i := range w.nodes {
		if accused[int32(i)] {
			res.Proofs = append(res.Proofs, w.nodes[i].id)
		}
	}
	for w.curve.next < len(w.curve.samples) {
		w.curve.finish()
	}
	res.Trace, res.Disagreement = w.curve.trace, apart.Distance()
	var err error
	if w.agrees {
		err = w.sealedResult(&res)
	} else {
		err = w.meanResult(&res)
	}
	res.Digest = w.digest(res)
	return res, err
}

// sealedResult fills in the model that the nodes have agreed on.
func (w *world) sealedResult(res *Result) (err error) {
	for i := range w.nodes {
		m := w.nodes[i].machine.(*whole)
		cid, model := m.Model()
		res.Models[i] = cid
		if cid.Defined() && res.Model == nil {
			res.Model, res.Content = model, m.Content()
			if res.Results, err = m.Results(); err != nil {
				return err
			}
		}
	}
	return nil
}

// meanResult fills in the model of everyone's last update, where that is as recent
// as it must be with an agreement, which every node that is not gone counts on its
// own test rows.
func (w *world) meanResult(res *Result) error {
	c := task.FinalContent{Round: 0, Roster: w.roster.CID, Parts: []task.Part{}, Out: []task.Out{}}
	var params [][]float64
	for i := range w.nodes {
		if u := w.nodes[i].update; u != nil && !u.bad {
			c.Round = max(c.Round, u.number)
		}
	}
	for i := range w.nodes {
		n := &w.nodes[i]
		if n.update == nil || n.update.bad || n.update.number+w.cfg.Task.Recent() < c.Round {
			c.Out = append(c.Out, task.Out{Node: n.id, Why: task.Silent})
			continue
		}
		e, u := &w.roster.Members[i], n.update.update
		c.Parts = append(c.Parts, task.Part{
			Node: n.id, Enrolment: e.CID, Update: nameOf(slotOf(n.place, record.KindUpdate), u.Round, task.Update{Params: u.Params}),
			Round: u.Round, Weight: u.Weight,
		})
		params = append(params, u.Params)
	}
	if len(params) == 0 {
		return nil
	}
	model, err := task.ModelOf(w.id, w.cfg.Task, w.roster, c, params)
	if err != nil {
		return err
	}
	// So many parts are more than fit in the head of a model's file.
	model.Parts, model.Out = []task.Part{}, []task.Out{}
	b, err := model.Marshal()
	if err != nil {
		return err
	}
	c.Model = record.CIDOf(b)
	counted := make([]task.Evaluation, len(w.nodes))
	errs := make([]error, len(w.nodes))
	beside(len(w.engine.shards), func(k int) {
		s := w.engine.shards[k] // whose nodes share working space
		for i := range s.nodes {
			if n := &s.nodes[i]; !n.gone {
				counted[n.place], errs[n.place] = n.site.Evaluate(member.Evaluate{CID: c.Model, Model: model}, w.halted)
			}
		}
	})
	if err := cmp.Or(errs...); err != nil {
		return err
	}
	enrolled := make(map[record.NodeID]task.Enrolled, len(w.nodes))
	evaluations := make(map[record.NodeID]task.Evaluation, len(w.nodes))
	for i, e := range w.roster.Members {
		enrolled[e.Author] = e
		if !w.nodes[i].gone {
			evaluations[e.Author] = counted[i]
		}
	}
	res.Model, res.Content = &model, c
	res.Results, err = task.ResultsOf(w.cfg.Task, w.id, c, w.roster, enrolled, evaluations)
	return err
}

// digest covers what every node has come to and has counted.
func (w *world) digest(res Result) [32]byte {
	h := sha256.New()
	var b []byte
	numbers := func(xs ...uint64) {
		for _, x := range xs {
			b = binary.BigEndian.AppendUint64(b, x)
		}
	}
	params := func(xs []float64) {
		numbers(uint64(len(xs)))
		for _, x := range xs {
			numbers(math.Float64bits(x))
		}
	}
	for i := range w.nodes {
		n := &w.nodes[i]
		b = append(append(b[:0], n.id[:]...), res.Models[i].Bytes()...)
		numbers(n.messages, n.bytes, n.updates, n.refused)
		params(n.mix)
		if n.update != nil {
			numbers(n.update.number)
			params(n.update.update.Params)
		}
		h.Write(b)
	}
	b = b[:0]
	if res.Model != nil {
		params(res.Model.Params)
	}
	numbers(uint64(res.Virtual))
	h.Write(b)
	return [32]byte(h.Sum(nil))
}
