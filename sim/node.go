package sim

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"village/protocol/learn"
	"village/protocol/member"
	"village/protocol/member/drive"
	"village/protocol/mixing"
	"village/protocol/record"
	"village/protocol/task"
)

// node is a simulated node: a machine, what a crash leaves of it, and what its
// driver does.
type node struct {
	Node
	world *world
	shard *shard
	place int32
	id    record.NodeID
	rng   *rand.Rand // all chance at this node
	now   time.Duration
	seq   uint64 // events that it has caused

	machine machine
	site    *member.Site
	life    uint32        // counts restarts, from 1
	up      bool          // not down
	gone    bool          // down for good
	liar    bool          // tells every second node something else
	lies    bool          // or attacks: nobody waits for it, and what it comes to is not checked
	bad     bool          // what it sends as its updates does not pass the check
	done    bool          // has come to the end
	wake    time.Duration // when the machine wants a tick, 0 = never
	alarm   time.Duration // when the next alarm rings, 0 = never
	edges   []mixing.Edge

	// What a crash leaves.
	shelves  []shelf // of records, in the order in which they came
	index    map[slot]int
	inputs   map[record.CID][]member.Received // of models, as artifacts
	update   *parcel                          // its newest own one
	mix      []float64                        // what its newest round started from
	proofs   []proof                          // one a slot
	sampled  int                              // samples of the trace that it has passed
	uplink   time.Duration                    // when it will have sent what it is sending
	messages uint64                           // sent
	bytes    uint64
	updates  uint64 // published
	refused  uint64 // received, that did not pass the check
}

// machine is what a node runs of package member, with the part of the driver
// that differs: all of it, or the rounds alone.
type machine interface {
	// take gives it a record that was kept, or need not be.
	take(n *node, p *parcel) error
	// step gives it anything else that has happened.
	step(n *node, e member.Event) error
	// keep makes a record durable, and tells whether it was news, as it is or as the
	// proof that it is a part of.
	keep(n *node, p *parcel) (*parcel, bool)
	// start makes it anew, with what is durable, and sets it going.
	start(n *node) error
	// stop ends it in the middle of whatever it does.
	stop()
	// ask names a node to ask for what is missing, -1 for none, and what to say
	// that is held; offers is the answer.
	ask(n *node) (to int32, held []*parcel)
	offers(n *node, held []*parcel) []*parcel
	// others are the newest updates that are held of others.
	others(n *node) [][]float64
}

// after schedules an action at the node itself, in this life or, for 0, in any.
func (n *node) after(d time.Duration, life uint32, what action) {
	n.seq++
	n.shard.own(event{at: n.now + d, seq: n.seq, what: what, from: n.place, node: n.place, life: life})
}

// jitter is a time in (0, d].
func (n *node) jitter(d time.Duration) time.Duration {
	return time.Duration(n.rng.Int64N(int64(d))) + 1
}

// other is any other node, -1 where there is none.
func (n *node) other() int32 {
	if len(n.world.nodes) == 1 {
		return -1
	}
	j := n.rng.Int32N(int32(len(n.world.nodes)) - 1)
	if j >= n.place {
		j++
	}
	return j
}

// neighbours are those that the update of a round is mixed with.
func (n *node) neighbours(round uint64) []mixing.Edge {
	n.edges = n.world.graph.Edges(round, int(n.place), n.edges[:0])
	return n.edges
}

// enrol is the operator's yes. One that a crash swallowed is said again.
type enrol struct{}

func (enrol) happen(n *node) error {
	switch {
	case n.up:
		return n.machine.step(n, member.Enrol{Enrolment: n.site.Enrolment(record.CIDOf(n.id[:]), n.Nation, n.Name)})
	case !n.gone:
		n.after(time.Second, 0, enrol{})
	}
	return nil
}

// leave is the operator's end to the node's part.
type leave struct{}

func (leave) happen(n *node) error {
	if !n.up {
		return nil
	}
	return n.machine.step(n, member.Leave{})
}

// train runs the local steps of a round at once; that they take time is told to
// everyone else.
func (n *node) train(e member.Train) error {
	n.world.curve.pass(n, e)
	_, n.mix = n.site.Lead(e)
	t := n.world.cfg.Task
	takes, progress := n.Step, n.world.halted
	if within := time.Duration(t.RoundTime) * time.Millisecond; within > 0 && within < takes {
		takes, progress = within, n.until(t, within)
	}
	trained, err := n.site.Train(e, progress)
	if err != nil {
		return err
	}
	if n.Attack != "" {
		trained.Params = n.attack(e, trained.Params)
	}
	n.work(e.Round, takes, trained)
	return nil
}

// until ends local steps after as many as the node makes in some time: all take
// n.Step together.
func (n *node) until(t task.Task, within time.Duration) func() error {
	made := 0.0
	steps := float64(t.Candidate(0).LocalSteps)
	return func() error {
		if made++; made*float64(n.Step) >= steps*float64(within) {
			return cmp.Or(n.world.halted(), learn.ErrEnough)
		}
		return n.world.halted()
	}
}

// work lets time pass, with a beacon now and then, before what came out.
func (n *node) work(round uint64, takes time.Duration, out member.Event) {
	w := &work{round: round, until: n.now + takes, out: out}
	n.after(min(member.BeaconInterval, takes), n.life, w)
}

type work struct {
	round uint64
	until time.Duration
	out   member.Event
}

func (w *work) happen(n *node) error {
	if n.now == w.until {
		return n.machine.step(n, w.out)
	}
	n.spread(n.parcel(w.round, task.Beacon{Task: n.world.id, Round: w.round}, 0))
	n.after(min(member.BeaconInterval, w.until-n.now), n.life, w)
	return nil
}

// store makes an own record durable, unless the node crashes before, which it
// tells.
func (n *node) store(p *parcel) bool {
	if n.tears() {
		return false
	}
	n.machine.keep(n, p)
	if p.update.Params != nil {
		p.bad = n.bad
		n.update = p
		n.updates++
		n.shard.news.updates++
	}
	return true
}

// send sends an own record that the machine has taken in, unless the node crashes
// before.
func (n *node) send(p *parcel) {
	if !n.tears() {
		n.spread(p)
	}
}

// tears crashes the node now and then.
func (n *node) tears() bool {
	torn := n.world.cfg.Faults.Torn
	if torn == 0 || n.rng.Float64() >= torn/2 {
		return false
	}
	n.crash(n.world.cfg.Faults.Down, false)
	return true
}

// wakeAt asks for a tick. Most are put off before they are due, so that only one
// alarm is kept going.
func (n *node) wakeAt(at time.Duration) {
	n.wake = max(at, n.now)
	if n.alarm == 0 || n.wake < n.alarm {
		n.alarm = n.wake
		n.after(n.wake-n.now, n.life, alarm{})
	}
}

type alarm struct{}

func (alarm) happen(n *node) error {
	if n.now != n.alarm {
		return nil // an earlier one has taken its place
	}
	n.alarm = 0
	switch {
	case n.wake > n.now:
		n.wakeAt(n.wake)
	case n.wake > 0:
		n.wake = 0
		return n.machine.step(n, member.Tick{})
	}
	return nil
}

// ended notes that a node has come to its end, or has not after all.
func (n *node) ended(done bool) {
	if done == n.done {
		return
	}
	n.done = done
	switch {
	case n.lies:
	case done:
		n.shard.news.undone--
	default:
		n.shard.news.undone++
	}
}

// restart is a crash at a random time.
type restart struct{}

func (n *node) scheduleRestart() {
	if often := n.world.cfg.Faults.Restarts; often > 0 {
		n.after(time.Duration(n.rng.ExpFloat64()/often*float64(time.Hour)), 0, restart{})
	}
}

func (restart) happen(n *node) error {
	n.crash(n.world.cfg.Faults.Down, true)
	return nil
}

func (o Outage) happen(n *node) error {
	n.crash(o.For, false)
	return nil
}

// crash takes a node down; it comes back after a while with what it had made
// durable, or never where that is 0. Random says that the next one at a random
// time follows.
func (n *node) crash(down time.Duration, random bool) {
	switch {
	case n.gone || !n.up && down > 0:
		if random {
			n.scheduleRestart()
		}
		return
	case down == 0:
		n.up, n.gone = false, true
		n.shard.news.gone = append(n.shard.news.gone, n.sampled)
		if !n.done && !n.lies {
			n.shard.news.undone--
		}
	default:
		n.up = false
		n.after(down, 0, back{random})
	}
	n.life++
	n.wake, n.alarm, n.uplink = 0, 0, 0
	n.machine.stop()
}

// back is the start after a crash.
type back struct{ random bool }

func (b back) happen(n *node) error {
	if n.gone {
		return nil
	}
	n.up = true
	if b.random {
		n.scheduleRestart()
	}
	return n.machine.start(n)
}

// whole is the machine of a node that agrees with the others on a roster and a
// model, with its driver.
type whole struct {
	drive.Driver[*parcel]
	node   *node
	failed error
	roster record.CID // that the world was told of
	model  record.CID
}

func (m *whole) take(n *node, p *parcel) error {
	err := m.step(n, p.event)
	if p.also != nil && err == nil && n.up {
		err = m.step(n, p.also)
	}
	return err
}

func (m *whole) step(n *node, e member.Event) error {
	m.Step(n.now, e)
	if m.failed != nil {
		return fmt.Errorf("%s: %w", n.Name, m.failed)
	}
	if n.up {
		m.check(n)
	}
	return nil
}

// The methods that follow are those of a drive.Performer.

// Sign makes the parcel of a record.
func (m *whole) Sign(effect member.Effect) (*parcel, bool) {
	n := m.node
	switch e := effect.(type) {
	case member.Publish:
		if u, ok := e.Body.(task.Update); ok {
			n.shard.news.publish(n, e.Number, u)
		}
		return n.parcel(e.Number, e.Body, 0), true
	case member.Cast:
		return n.parcel(e.Vote.Ballot, member.Ballot(e), 0), true
	case member.Certify:
		return n.parcel(0, member.Certificate{Topic: e.Topic, Content: e.Content}, len(e.Precommits)), true
	}
	return nil, false
}

// Store keeps a parcel, or the node crashes before it can.
func (m *whole) Store(p *parcel) drive.Outcome {
	if !m.node.store(p) {
		return drive.Refused
	}
	return drive.Stored
}

func (m *whole) Received(p *parcel) member.Received { return p.event.(member.Received) }

func (m *whole) Send(p *parcel) { m.node.send(p) }

func (m *whole) Wake(at time.Duration) { m.node.wakeAt(at) }

// Start works at once; that it takes time is told to everyone else.
func (m *whole) Start(effect member.Effect) {
	n := m.node
	var err error
	switch e := effect.(type) {
	case member.Train:
		err = n.train(e)
	case member.Make:
		var made member.Made
		if made, err = m.make(n, e); err == nil {
			n.after(0, n.life, &work{until: n.now, out: made})
		}
	case member.Fetch:
		n.after(0, n.life, &fetch{e.Inputs})
	case member.Evaluate:
		var evaluation task.Evaluation
		if evaluation, err = n.site.Evaluate(e, n.world.halted); err == nil {
			n.work(e.Model.Round, n.Step, member.Evaluated{Evaluation: evaluation})
		}
	}
	if err != nil && m.failed == nil {
		m.failed = err
		m.stop()
	}
}

// check tells the world what must be the same everywhere, and whether the node
// has come to its end.
func (m *whole) check(n *node) {
	if n.lies {
		return
	}
	roster, model := m.Roster(), m.Content().Model
	if disputed := m.Disputed(); disputed || roster != m.roster || model != m.model {
		m.roster, m.model = roster, model
		n.shard.news.decided = append(n.shard.news.decided, decision{stamp{n.now, n.place}, roster, model, disputed})
	}
	n.ended(m.Stage() == member.Done)
}

// make stores what a set of updates comes to.
func (m *whole) make(n *node, e member.Make) (member.Made, error) {
	b, err := e.Model.Marshal()
	if err != nil {
		return member.Made{}, err
	}
	var updates []member.Received
	var all []byte
	for _, p := range e.Model.Parts {
		for _, r := range n.shelf(slotOf(n.world.places[p.Node], record.KindUpdate)) {
			if r.cid == p.Update {
				updates = append(updates, r.event.(member.Received))
			}
		}
		all = append(append(all, p.Enrolment.Bytes()...), p.Update.Bytes()...)
	}
	made := member.Made{Set: e.Set, Inputs: record.CIDOf(all)}
	if len(updates) == len(e.Model.Parts) {
		n.inputs[made.Inputs] = updates
	}
	if n.inputs[made.Inputs] != nil {
		made.Model = record.CIDOf(b)
	}
	return made, nil
}

// keep holds of a slot what a store does: the newest that its kind keeps, and a
// proof where there are two for one number.
func (m *whole) keep(n *node, p *parcel) (*parcel, bool) {
	i, known := n.index[p.slot]
	if !known {
		i = len(n.shelves)
		n.index[p.slot] = i
		n.shelves = append(n.shelves, shelf{slot: p.slot})
	}
	held := n.shelves[i].parcels
	at := 0
	for at < len(held) && held[at].number > p.number {
		at++
	}
	if at < len(held) && held[at].number == p.number {
		if held[at].cid == p.cid {
			return nil, false
		}
		return n.accuse(held[at], p)
	}
	if at == p.keep {
		return nil, false
	}
	held = slices.Insert(held, at, p)
	n.shelves[i].parcels = held[:min(len(held), p.keep)]
	return p, true
}

// proof is two records of one author for one place.
type proof struct{ first, second *parcel }

// accuse keeps a proof where there is none of the slot, as the daemon's book of
// records does, and returns what the machine is to learn of it.
func (n *node) accuse(first, second *parcel) (*parcel, bool) {
	known := slices.ContainsFunc(n.proofs, func(p proof) bool { return p.first.slot == second.slot })
	other := second.kind() == record.KindEnrolment
	switch {
	case known && other:
		return second, true
	case known:
		return nil, false
	}
	n.proofs = append(n.proofs, proof{first, second})
	return n.proofs[len(n.proofs)-1].parcel(), true
}

// parcel is a proof as the machine takes it in.
func (p proof) parcel() *parcel {
	kind := p.first.kind()
	about := &parcel{event: member.Received{
		Author: p.first.event.(member.Received).Author,
		Body:   member.Equivocation{Kind: kind, Records: [2]record.CID{p.first.cid, p.second.cid}},
	}}
	if kind == record.KindEnrolment { // the others may have decided on it
		about.also = p.second.event
	}
	return about
}

func (m *whole) start(n *node) error {
	*m = whole{node: n, Driver: drive.New(member.New(n.id, n.world.id, n.world.cfg.Task), drive.Performer[*parcel](m))}
	for _, s := range n.shelves {
		for _, p := range s.parcels {
			m.Step(n.now, p.event)
		}
	}
	for _, p := range n.proofs {
		if err := m.take(n, p.parcel()); err != nil {
			return err
		}
	}
	m.Resume(n.now)
	return m.failed
}

func (m *whole) stop() { m.Stop() }

// ask is for everything, of anyone.
func (m *whole) ask(n *node) (int32, []*parcel) { return n.other(), m.all(n) }

// all are the durable records, in the order in which their slots came.
func (m *whole) all(n *node) []*parcel {
	held := make([]*parcel, 0, 2*len(n.shelves))
	for _, s := range n.shelves {
		held = append(held, s.parcels...)
	}
	for _, p := range n.proofs {
		for _, half := range []*parcel{p.first, p.second} {
			if !slices.Contains(n.shelf(half.slot), half) {
				held = append(held, half)
			}
		}
	}
	return held
}

func (m *whole) offers(n *node, held []*parcel) []*parcel {
	has := make(map[record.CID]bool, len(held))
	for _, p := range held {
		has[p.cid] = true
	}
	return slices.DeleteFunc(m.all(n), func(p *parcel) bool { return has[p.cid] })
}

// shelf holds the newest records of a slot, newest first.
type shelf struct {
	slot    slot
	parcels []*parcel
}

func (n *node) shelf(s slot) []*parcel {
	if i, ok := n.index[s]; ok {
		return n.shelves[i].parcels
	}
	return nil
}
