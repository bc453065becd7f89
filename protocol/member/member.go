// Package member is one node's part in one task, as a state machine without
// clock, network, disk or goroutine: events go in through [Member.Step], effects
// come out. The daemon performs the effects for real, the simulator on a virtual
// clock; both run this code.
//
// The state is a function of the records held and of the time. So a restart is
// nothing but [Member.Restore] with the records of the store, and a lost,
// repeated, late or reordered record can only delay, never bias.
package member

import (
	"slices"
	"time"

	"village/protocol/agree"
	"village/protocol/mixing"
	"village/protocol/record"
	"village/protocol/task"
)

// Event is something that happened.
type Event interface{ event() }

// Received is a record of the task, checked against it; the node's own ones come
// this way too, once they are durable. Body is a task.Enrolment, task.Update
// (Params set), task.Evaluation, task.Leave, task.Beacon, [Ballot],
// [Certificate] or [Equivocation].
type Received struct {
	CID    record.CID
	Author record.NodeID
	Number uint64
	Body   any
}

// Ballot is the body of a vote's record.
type Ballot struct {
	Topic task.Topic
	Vote  agree.Vote
}

// Certificate is the body of a seal's record, whose certificate was checked.
type Certificate struct {
	Topic   task.Topic
	Content []byte
}

// Equivocation is the proof that an author has signed two records for one place.
// Two votes are for package agree to bear.
type Equivocation struct {
	Kind    record.Kind
	Records [2]record.CID
}

// Enrol is the operator's yes, with the statistics of the rows.
type Enrol struct{ Enrolment task.Enrolment }

// Leave is the operator's end to the node's part.
type Leave struct{}

// Trained is the end of a [Train].
type Trained struct {
	Round  uint64
	Params []float64
	Kept   []int     // candidates of a search that Params are of
	Losses []float64 // see task.Update
	Rows   uint64
}

// Made is the end of a [Make]: the CIDs of the stored model and of its inputs.
// Both are undefined where the store lacked a record, which will then come anew.
type Made struct {
	Set           record.CID
	Model, Inputs record.CID
}

// Fetched is the end of a [Fetch]: the updates of the inputs, checked.
type Fetched struct{ Updates []Received }

// Evaluated is the end of an [Evaluate].
type Evaluated struct{ Evaluation task.Evaluation }

// Tick says that nothing happened but time.
type Tick struct{}

func (Received) event()  {}
func (Enrol) event()     {}
func (Leave) event()     {}
func (Trained) event()   {}
func (Made) event()      {}
func (Fetched) event()   {}
func (Evaluated) event() {}
func (Tick) event()      {}

// Effect is something for the driver to do.
type Effect interface{ effect() }

// Publish asks to sign the record, make it durable, give it back as [Received],
// and only then send it. Body is a task.Enrolment, task.Update (Params set,
// Vector not), task.Evaluation or task.Leave.
type Publish struct {
	Kind   record.Kind
	Number uint64
	Body   any
}

// Cast asks to publish a vote in the same way, as a [Ballot].
type Cast Ballot

// Certify asks to publish a seal in the same way, as a [Certificate]: the content,
// with the precommits that prove that it was decided on.
type Certify struct {
	Topic      task.Topic
	Content    []byte
	Precommits []record.CID
}

// Train asks for the local steps of a round from the mix, and for [Trained].
// While it lasts, the driver sends beacons.
type Train struct {
	Round  uint64
	From   []float64 // the mix of vectors, which nobody changes
	Own    []float64 // the node's own newest vector, nil before its first
	Kept   []int     // candidates that both are of
	Roster task.Roster
}

// Make asks to store a model and its inputs as artifacts, and for [Made].
type Make struct {
	Set   record.CID
	Model task.Model
	// Roster and Enrolments name the records of the inputs beside the updates
	// of Model.Parts.
	Roster     []record.CID
	Enrolments []record.CID
}

// Fetch asks for the inputs of the decided model, from any node that has them,
// and for [Fetched].
type Fetch struct{ Inputs record.CID }

// Evaluate asks to count the model and the node's own one on the node's test
// rows, and for [Evaluated]. While it lasts, the driver sends beacons.
type Evaluate struct {
	CID   record.CID
	Model task.Model
}

// Wake asks for a [Tick] at this time at the latest. A newer one replaces it.
type Wake struct{ At time.Duration }

func (Publish) effect()  {}
func (Cast) effect()     {}
func (Certify) effect()  {}
func (Train) effect()    {}
func (Make) effect()     {}
func (Fetch) effect()    {}
func (Evaluate) effect() {}
func (Wake) effect()     {}

// Stage is how far a task is at this node.
type Stage string

// The stages, in order.
const (
	Enrolling  Stage = "enrolling"  // the roster is not decided on
	Training   Stage = "training"   // rounds are run
	Sealing    Stage = "sealing"    // the last round is done, the final set is not decided on
	Evaluating Stage = "evaluating" // the model stands, evaluations are missing
	Done       Stage = "done"
)

// Member is one node's part in one task. A node that the task does not name
// has one too: it follows, and recomputes the model.
type Member struct {
	self record.NodeID
	id   record.CID
	task task.Task

	seats []seat // of the task's nodes, in their order
	own   int    // the seat of self, or -1

	rosterVote decision
	enrolling  struct{ first, last time.Duration } // when enrolments came
	founders   []record.CID                        // enrolments of the decided roster
	roster     task.Roster                         // its CID is defined once it is open

	rounds    *Rounds
	parent    []float64      // parameters of the model that the task goes on from
	rungVotes []decision     // of a search
	ends      []task.RungEnd // of the rungs that have ended
	kept      []int          // candidates that are still in the search
	finalVote decision
	made      map[record.CID]Made    // what sets of updates come to, by set; undefined CIDs while asked for
	fetched   map[record.CID]*Update // of the decided model's inputs
	fetching  bool
	content   task.FinalContent // its Model is defined once it is decided on
	set       record.CID        // of content
	final     *task.Model       // recomputed from it
	sealedAt  time.Duration
	working   bool          // an Evaluate was asked for
	results   *task.Results // of the evaluations held, once they were asked for

	now   time.Duration // of this Step
	queue []Effect      // of this Step
	wake  time.Duration // the earliest that this Step wants, 0 for never
}

// seat is what is held of a named node.
type seat struct {
	id         record.NodeID
	enrolled   *task.Enrolled
	others     []task.Enrolled // enrolments that contradict it
	proof      []record.CID    // that it has signed two records for one place
	left       bool
	founder    bool       // it is in the roster
	early      []Received // updates that came before the roster or the enrolment
	counts     bool       // it has a part in the decided set
	evaluation *task.Evaluation
	*peer
}

// out tells whether a node takes no part any more.
func (s *seat) out() bool { return s.left || s.proof != nil }

// New returns the part of node self in a task that was checked.
func New(self record.NodeID, id record.CID, t task.Task) *Member {
	m := &Member{
		self: self, id: id, task: t, own: -1,
		seats: make([]seat, len(t.Nodes)),
		made:  map[record.CID]Made{}, fetched: map[record.CID]*Update{},
	}
	graph, err := mixing.New(t.Mixing, len(t.Nodes), t.Seed)
	if err != nil {
		panic("member: checked task has no graph: " + err.Error())
	}
	for i, node := range t.Nodes {
		m.seats[i].id = node
		if node == self {
			m.own = i
		}
	}
	m.rounds = NewRounds(RoundsConfig{
		Graph: graph, Nodes: len(t.Nodes), Own: m.own, Rounds: t.Rounds, Tolerance: t.Tolerance,
		Start: func() []float64 { return m.first() }, All: true, Fewest: m.fewestParts, Recent: t.Recent(),
	})
	for i := range m.seats {
		m.seats[i].peer = m.rounds.peer(i)
	}
	ballots := task.BallotSeed(id)
	m.rosterVote = decision{topic: task.TopicRoster, machine: agree.New(self, t.Nodes, ballots)}
	m.finalVote = decision{topic: task.TopicFinal, machine: agree.New(self, t.Nodes, ballots)}
	m.kept = t.Everyone()
	if t.Search != nil {
		for i := range t.Search.Rungs {
			m.rungVotes = append(m.rungVotes, decision{topic: task.TopicOfRung(i), machine: agree.New(self, t.Nodes, ballots)})
		}
	}
	m.limit()
	return m
}

// From gives a task that goes on from a model that model's parameters, before the
// node enrols. Who only follows needs none.
func (m *Member) From(params []float64) { m.parent = params }

// first is what training starts from, as far as the search has come.
func (m *Member) first() []float64 {
	vector, _ := m.task.Project(m.task.First(m.parent), m.task.Everyone(), m.kept)
	return vector
}

// Restore takes in the records that a store held, before the first Step, without
// acting on them. A Tick then sets the machine going.
func (m *Member) Restore(now time.Duration, records []Received) {
	for _, r := range records {
		m.take(now, r)
	}
}

// Step takes one event in and returns what is to be done, in order. Time never
// runs backwards.
func (m *Member) Step(now time.Duration, event Event) []Effect {
	switch e := event.(type) {
	case Received:
		m.take(now, e)
	case Enrol:
		if m.own >= 0 && m.seats[m.own].enrolled == nil && !m.seats[m.own].left && !m.sealed() {
			return []Effect{Publish{Kind: record.KindEnrolment, Body: e.Enrolment}}
		}
	case Leave:
		if m.own >= 0 && !m.seats[m.own].left {
			return []Effect{Publish{Kind: record.KindLeave, Body: task.Leave{Task: m.id}}}
		}
	case Trained:
		if m.rounds.Busy() && !m.sealed() && e.Round > m.Round() {
			return []Effect{m.update(e)}
		}
	case Made:
		m.noteModel(e)
	case Fetched:
		for _, r := range e.Updates {
			m.fetched[r.CID] = updateOf(r, r.Body.(task.Update))
		}
	case Evaluated:
		if m.seats[m.own].evaluation == nil {
			return []Effect{Publish{Kind: record.KindEvaluation, Body: e.Evaluation}}
		}
	}
	return m.advance(now)
}

// take holds a record. Of each author the enrolment and the evaluation that
// came first count, and the two newest updates.
func (m *Member) take(now time.Duration, r Received) {
	if body, ok := r.Body.(Certificate); ok {
		d := m.decisionOn(body.Topic)
		d.machine.Adopt(record.CIDOf(body.Content), body.Content)
		d.certified = true
		return
	}
	i := m.seatOf(r.Author)
	if i < 0 {
		return
	}
	s := &m.seats[i]
	switch body := r.Body.(type) {
	case task.Enrolment:
		e := task.Enrolled{CID: r.CID, Author: r.Author, Enrolment: body}
		if s.enrolled == nil {
			s.enrolled = &e
			m.results = nil
			s.part = !s.out()
			s.pace.start(now)
			if m.enrolling.first == 0 {
				m.enrolling.first = max(now, 1)
			}
			m.enrolling.last = now
			m.takeEarly(now, i)
		} else if m.enrolment(r.CID) == nil && (len(s.others) == 0 || slices.Contains(m.founders, r.CID)) {
			s.others = append(s.others, e)
		}
	case task.Update:
		if s.enrolled == nil || !m.hasRoster() { // or see takeUpdate
			s.early = keepTwo(s.early, r)
		} else {
			m.takeUpdate(now, i, r, body)
		}
	case task.Evaluation:
		if s.evaluation == nil {
			s.evaluation = &body
			m.results = nil
		}
	case task.Leave:
		s.left, s.part = true, false
		if i == m.own {
			m.rounds.busy = false // what it comes to is not published any more
		}
	case Equivocation:
		// What such a node says counts no longer: others may have been told otherwise.
		switch body.Kind {
		case record.KindEnrolment, record.KindUpdate, record.KindEvaluation:
			s.proof, s.part, m.results = body.Records[:], false, nil
		}
	case task.Beacon:
		m.rounds.Beacon(now, i)
	case Ballot:
		m.decisionOn(body.Topic).machine.Take(body.Vote)
	}
}

// keepTwo keeps the two newest of an author's updates.
func keepTwo(early []Received, r Received) []Received {
	at := 0
	for at < len(early) && early[at].Number > r.Number {
		at++
	}
	if at < len(early) && early[at].Number == r.Number {
		return early
	}
	early = slices.Insert(early, at, r)
	return early[:min(len(early), 2)]
}

// takeEarly takes the updates that waited for the enrolment or the roster.
func (m *Member) takeEarly(now time.Duration, i int) {
	s := &m.seats[i]
	if s.enrolled == nil || !m.hasRoster() {
		return
	}
	early := s.early
	s.early = nil
	for _, r := range early {
		m.takeUpdate(now, i, r, r.Body.(task.Update))
	}
}

// takeUpdate holds an update that was trained with this roster. One of a search
// that has come further than this node knows waits until it knows.
func (m *Member) takeUpdate(now time.Duration, i int, r Received, body task.Update) {
	s := &m.seats[i]
	if body.Roster != m.roster.CID || body.Weight != s.enrolled.Moments.Count {
		return
	}
	u := updateOf(r, body)
	if !m.narrow(u) {
		s.early = keepTwo(s.early, r)
		return
	}
	m.rounds.Take(now, i, u)
}

// narrow brings an update down to the candidates that are still in the search, or
// returns false where some of these are not in it.
func (m *Member) narrow(u *Update) (ok bool) {
	if m.task.Search == nil || slices.Equal(u.Kept, m.kept) {
		return true
	}
	params, ok := m.task.Project(u.Params, u.Kept, m.kept)
	if ok {
		u.Params, u.Kept, u.Losses = params, m.kept, nil
	}
	return ok
}

func updateOf(r Received, u task.Update) *Update {
	return &Update{
		CID: r.CID, Round: r.Number, Previous: u.Previous, Weight: u.Weight, Settled: u.Settled, Params: u.Params,
		Kept: u.Kept, Losses: u.Losses, Rows: u.Rows,
	}
}

// update is the record of a finished round.
func (m *Member) update(e Trained) Publish {
	u := m.rounds.Finish(e.Round, m.seats[m.own].enrolled.Moments.Count, e.Params)
	return Publish{Kind: record.KindUpdate, Number: u.Round, Body: task.Update{
		Task: m.id, Roster: m.roster.CID, Weight: u.Weight, Previous: u.Previous, Settled: u.Settled, Params: u.Params,
		Kept: e.Kept, Losses: e.Losses, Rows: e.Rows,
	}}
}

// train starts the next round where it may begin.
func (m *Member) train(now time.Duration) {
	if m.own < 0 || !m.seats[m.own].part || m.rounds.Busy() {
		return
	}
	if len(m.seats[m.own].early) > 0 {
		// Its store has lost how a rung ended that it was beyond, and it signs no
		// round a second time.
		return
	}
	if _, last := m.finalSet(now); last {
		return
	}
	if round, mix, ok := m.rounds.Next(now); ok {
		m.do(Train{Round: round, From: mix, Own: m.rounds.Own(), Kept: m.kept, Roster: m.roster})
	}
	if at := m.rounds.Wake(); at > 0 {
		m.wakeAt(at)
	}
}

func (m *Member) seatOf(id record.NodeID) int {
	i, found := slices.BinarySearchFunc(m.task.Nodes, id, record.NodeID.Compare)
	if !found {
		return -1
	}
	return i
}

// sealed tells whether the final set is decided on.
func (m *Member) sealed() bool { return m.content.Model.Defined() }

// advance does what the state now allows.
func (m *Member) advance(now time.Duration) []Effect {
	m.now, m.wake, m.queue = now, 0, nil
	if m.adopt(now); !m.hasRoster() {
		m.decide(now, &m.rosterVote, m.rosterApplication(now))
		m.adopt(now)
	}
	if m.hasRoster() && !m.sealed() {
		// Training goes on until a final set is decided on.
		m.train(now)
		if !m.rounds.Busy() {
			m.vote(now)
		}
	}
	m.certify(now, &m.rosterVote)
	for i := range m.rungVotes {
		m.certify(now, &m.rungVotes[i])
	}
	m.certify(now, &m.finalVote)
	if m.sealed() {
		m.finish(now)
	}
	if m.wake > 0 {
		m.queue = append(m.queue, Wake{At: m.wake})
	}
	return m.queue
}

// do asks the driver for something.
func (m *Member) do(e Effect) { m.queue = append(m.queue, e) }

// wakeAt asks the driver for a Tick.
func (m *Member) wakeAt(at time.Duration) {
	if m.wake == 0 || at < m.wake {
		m.wake = at
	}
}
