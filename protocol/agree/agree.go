// Package agree takes one decision by quorum among named nodes that may crash,
// be cut off, or (a third of them at most) lie. It is Tendermint for a single
// height (Buchman, Kwon, Milosevic 2018, "The latest gossip on BFT consensus",
// algorithm 1) over votes that are signed records: a proposer that rotates by
// ballot, a lock, and timeouts that grow until they fit.
//
// A [Machine] has neither clock nor network: votes go in through [Machine.Take],
// those to publish come out of [Machine.Advance]. What a node has said is held
// only once it comes back through Take, so that the records of a store are the
// whole state: a node that restarts cannot contradict itself.
package agree

import (
	"maps"
	"slices"
	"time"

	"village/protocol/record"
)

// Faults is how many of n members may lie without harm to the decision.
func Faults(n int) int { return (n - 1) / 3 }

// Quorum is how many of n members must say the same: any two quorums share more
// than Faults(n) members.
func Quorum(n int) int { return (n + Faults(n) + 2) / 2 }

// Phase is what a vote is about.
type Phase uint8

// The phases of a ballot.
const (
	Proposal  Phase = iota // the ballot's proposer names a value
	Prevote                // I could decide this
	Precommit              // I saw a quorum of prevotes for this, and lock it
)

// Vote is one signed statement in one ballot. Of each author, ballot and phase
// the first counts; a second one proves a lie.
type Vote struct {
	CID    record.CID // of its record; for [Machine.Certificate] alone
	Author record.NodeID
	Phase  Phase
	Ballot uint64
	Value  record.CID // undefined: none of them; never so in a proposal
	// Of a proposal: what Value is the CID of.
	Content []byte
	// Of a proposal for a value that won a quorum of prevotes before: one more
	// than the ballot in which it did, and the prevotes that prove it. The proof
	// travels with the proposal, because a liar may have sent others other votes.
	Valid uint64
	Proof []record.CID
}

// Verdict is what an application says of a proposed value.
type Verdict uint8

// The verdicts.
const (
	Pending Verdict = iota // what is needed to judge is not here yet
	Good
	Bad
)

// Application is what the decision is about.
type Application struct {
	// Propose returns the content that this node would decide on, and false as
	// long as it would rather wait. A node takes part from then on.
	Propose func() (content []byte, ok bool)
	// Judge says whether a content may be decided on. Good may turn into Pending as
	// time goes on, but neither into Bad: a quorum of prevotes is the word of more
	// members than can lie that a content was good, and outweighs a Pending.
	Judge func(content []byte) Verdict
}

// The first timeout of a phase, and how often it may double. What is too short
// for a network is learnt by doubling with every ballot.
const (
	firstTimeout = time.Second
	maxDoublings = 8
)

// Machine is one node's part in one decision.
type Machine struct {
	self    record.NodeID
	members []record.NodeID // in peer-ID order
	first   int             // who proposes in ballot 0

	started bool
	ballot  uint64
	step    Phase // the last phase that this node has voted in, Proposal before it has
	timer   timer

	locked, valid stance
	ballots       map[uint64]*tally
	contents      map[record.CID][]byte
	highest       uint64         // ballot of which anything is held
	won           record.CID     // value with a quorum of precommits
	proof         *votes         // those
	decided       record.CID     // won or adopted, and its content is known
	said          map[place]bool // what was handed out for publishing, or is held
}

// stance is a value with the ballot in which it won prevotes, plus one.
type stance struct {
	ballot uint64
	value  record.CID
	proof  []record.CID
}

type place struct {
	phase  Phase
	ballot uint64
}

// timer ends the wait in one phase of the own ballot.
type timer struct {
	set   bool
	phase Phase
	at    time.Duration
}

// tally is what is held of a ballot.
type tally struct {
	proposal   *Vote
	prevotes   votes
	precommits votes
}

// votes are what members have voted for in one phase of a ballot.
type votes struct {
	papers map[record.NodeID]ballotPaper
	counts map[record.CID]int // by value
}

type ballotPaper struct{ value, cid record.CID }

// add holds a vote and returns how many there are now for its value. Of each
// author the first counts.
func (v *votes) add(vote Vote) int {
	if _, held := v.papers[vote.Author]; held {
		return 0
	}
	if v.papers == nil {
		v.papers, v.counts = map[record.NodeID]ballotPaper{}, map[record.CID]int{}
	}
	v.papers[vote.Author] = ballotPaper{vote.Value, vote.CID}
	v.counts[vote.Value]++
	return v.counts[vote.Value]
}

// New returns the part of a node among the members, which are in peer-ID order.
// Where self is not a member it only follows. Members with the same seed rotate
// alike.
func New(self record.NodeID, members []record.NodeID, seed uint64) *Machine {
	return &Machine{
		self: self, members: members, first: int(seed % uint64(len(members))),
		ballots: map[uint64]*tally{}, contents: map[record.CID][]byte{}, said: map[place]bool{},
	}
}

// Proposer is who proposes in a ballot.
func (m *Machine) Proposer(ballot uint64) record.NodeID {
	return Proposer(m.members, uint64(m.first), ballot)
}

// Proposer is who of the members, with this seed, proposes in a ballot.
func Proposer(members []record.NodeID, seed, ballot uint64) record.NodeID {
	n := uint64(len(members))
	return members[(seed%n+ballot%n)%n]
}

// Decided returns the value that was decided on, with its content.
func (m *Machine) Decided() (value record.CID, content []byte, ok bool) {
	return m.decided, m.contents[m.decided], m.decided.Defined()
}

// Certificate names the precommits that prove the decision, in the order of
// their authors; it is empty where the decision was adopted.
func (m *Machine) Certificate() []record.CID {
	if m.proof == nil || m.won != m.decided {
		return nil
	}
	return m.cast(m.proof, m.decided)
}

// cast names the votes for a value, in the order of their authors.
func (m *Machine) cast(v *votes, value record.CID) []record.CID {
	var cast []record.CID
	for _, id := range m.members {
		if paper, voted := v.papers[id]; voted && paper.value == value {
			cast = append(cast, paper.cid)
		}
	}
	return cast
}

// Adopt takes over a decision that another node's certificate proves. It is how
// a node learns of a decision whose votes it cannot have: a liar may have sent
// it others than the quorum that decided.
func (m *Machine) Adopt(value record.CID, content []byte) {
	if !m.decided.Defined() {
		m.decided, m.contents[value] = value, content
	}
}

// Ballot is the ballot that this node is in, and whether it takes part yet.
func (m *Machine) Ballot() (ballot uint64, started bool) { return m.ballot, m.started }

// Quorum is how many members decide.
func (m *Machine) Quorum() int { return Quorum(len(m.members)) }

// Missing returns, in peer-ID order, the members that have not spoken in the
// own ballot; without a quorum of them nothing can be decided.
func (m *Machine) Missing() []record.NodeID {
	t := m.at(m.ballot)
	var missing []record.NodeID
	for _, id := range m.members {
		_, prevoted := t.prevotes.papers[id]
		_, precommitted := t.precommits.papers[id]
		if !prevoted && !precommitted {
			missing = append(missing, id)
		}
	}
	return missing
}

func (m *Machine) isMember(id record.NodeID) bool {
	_, found := slices.BinarySearchFunc(m.members, id, record.NodeID.Compare)
	return found
}

func (m *Machine) at(ballot uint64) *tally {
	t := m.ballots[ballot]
	if t == nil {
		t = &tally{}
		m.ballots[ballot] = t
		m.highest = max(m.highest, ballot)
	}
	return t
}

// Take holds a vote whose signature and proof were checked, the own ones once
// they are durable.
func (m *Machine) Take(v Vote) {
	if !m.isMember(v.Author) || v.Ballot >= record.MaxBallots || v.Phase > Precommit {
		return
	}
	t := m.at(v.Ballot)
	switch v.Phase {
	case Proposal:
		if t.proposal != nil || v.Author != m.Proposer(v.Ballot) || !v.Value.Defined() || v.Valid > v.Ballot {
			return
		}
		if v.Valid > 0 && len(v.Proof) < Quorum(len(m.members)) {
			return
		}
		t.proposal = &v
		m.contents[v.Value] = v.Content
	case Prevote:
		t.prevotes.add(v)
	case Precommit:
		// Two quorums for two values cannot be while no more than Faults lie.
		if t.precommits.add(v) >= m.Quorum() && v.Value.Defined() && !m.won.Defined() {
			m.won, m.proof = v.Value, &t.precommits
		}
	}
	if _, known := m.contents[m.won]; known && !m.decided.Defined() {
		m.decided = m.won
	}
	if v.Author == m.self {
		m.remember(v)
	}
}

// remember takes up where an own vote stands.
func (m *Machine) remember(v Vote) {
	m.started = true
	m.said[place{v.Phase, v.Ballot}] = true
	if v.Phase == Precommit && v.Value.Defined() && v.Ballot+1 > m.locked.ballot {
		m.locked = stance{ballot: v.Ballot + 1, value: v.Value}
	}
	if v.Ballot > m.ballot || v.Ballot == m.ballot && v.Phase > m.step {
		m.enter(v.Ballot, v.Phase)
	}
}

func (m *Machine) enter(ballot uint64, step Phase) {
	if ballot != m.ballot || step != m.step {
		m.timer = timer{}
	}
	m.ballot, m.step = ballot, step
}

// Advance returns the votes to publish now, and the time at which to call again
// if nothing comes before, 0 for never.
func (m *Machine) Advance(now time.Duration, app Application) (publish []Vote, wake time.Duration) {
	say := func(v Vote) {
		v.Author, v.Ballot = m.self, m.ballot
		if p := (place{v.Phase, v.Ballot}); !m.said[p] {
			m.said[p] = true
			publish = append(publish, v)
		}
	}
	if m.decided.Defined() || !m.isMember(m.self) {
		return nil, 0
	}
	if !m.started {
		if _, ready := app.Propose(); !ready {
			return nil, 0
		}
		m.started = true
	}
	m.skip()
	m.observe(app)
	t := m.at(m.ballot)
	quorum := Quorum(len(m.members))

	if m.step == Proposal {
		if m.Proposer(m.ballot) == m.self && t.proposal == nil {
			if v, ok := m.propose(app); ok {
				say(v)
			}
		}
		if value, judged := m.judge(t, app); judged {
			say(Vote{Phase: Prevote, Value: value})
		} else if m.expired(now, Proposal) {
			say(Vote{Phase: Prevote})
		}
	}
	if m.step == Prevote {
		switch value := m.valid.value; {
		case m.valid.ballot == m.ballot+1:
			say(Vote{Phase: Precommit, Value: value})
		case t.prevotes.counts[record.CID{}] >= quorum:
			say(Vote{Phase: Precommit})
		case len(t.prevotes.papers) >= quorum && m.expired(now, Prevote):
			say(Vote{Phase: Precommit})
		}
	}
	if len(t.precommits.papers) >= quorum && m.expired(now, Precommit) {
		if m.ballot+1 == record.MaxBallots {
			return publish, 0
		}
		m.enter(m.ballot+1, Proposal)
		more, wake := m.Advance(now, app)
		return append(publish, more...), wake
	}
	if m.timer.set {
		wake = m.timer.at
	}
	return publish, wake
}

// skip enters the highest ballot that more members than can lie have reached.
func (m *Machine) skip() {
	if m.highest <= m.ballot {
		return
	}
	reached := map[record.NodeID]uint64{}
	for ballot, t := range m.ballots {
		if ballot <= m.ballot {
			continue
		}
		note := func(id record.NodeID) { reached[id] = max(reached[id], ballot) }
		if t.proposal != nil {
			note(t.proposal.Author)
		}
		for id := range t.prevotes.papers {
			note(id)
		}
		for id := range t.precommits.papers {
			note(id)
		}
	}
	f := Faults(len(m.members))
	if len(reached) <= f {
		return
	}
	ballots := make([]uint64, 0, len(reached))
	for _, b := range reached {
		ballots = append(ballots, b)
	}
	slices.Sort(ballots)
	m.enter(ballots[len(ballots)-1-f], Proposal)
}

// observe notes the newest value that won a quorum of prevotes, which is what
// this node proposes from then on and, in its own ballot, locks. What an
// application does to judge is done in the order of the ballots. Tendermint's
// predicate (line 36) never changes; here it does, and a lock that its own holder
// cannot judge any more would hold for ever.
func (m *Machine) observe(app Application) {
	for _, ballot := range slices.Backward(slices.Sorted(maps.Keys(m.ballots))) {
		t := m.ballots[ballot]
		if ballot+1 <= m.valid.ballot {
			return
		}
		if t.proposal == nil || ballot > m.ballot {
			continue
		}
		value := t.proposal.Value
		if t.prevotes.counts[value] >= Quorum(len(m.members)) && app.Judge(t.proposal.Content) != Bad {
			m.valid = stance{ballot + 1, value, m.cast(&t.prevotes, value)}
			return
		}
	}
}

// propose is this node's proposal for its ballot.
func (m *Machine) propose(app Application) (Vote, bool) {
	if m.valid.value.Defined() {
		return Vote{
			Phase: Proposal, Value: m.valid.value, Content: m.contents[m.valid.value],
			Valid: m.valid.ballot, Proof: m.valid.proof,
		}, true
	}
	content, ok := app.Propose()
	if !ok {
		return Vote{}, false
	}
	return Vote{Phase: Proposal, Value: record.CIDOf(content), Content: content}, true
}

// judge says what to prevote on the ballot's proposal, and false where that
// cannot be said yet. The lock: a node that precommitted a value prevotes for
// another only when that has won a quorum of prevotes since, and whoever cannot
// judge a value goes by those.
func (m *Machine) judge(t *tally, app Application) (record.CID, bool) {
	p := t.proposal
	if p == nil {
		return record.CID{}, false
	}
	if m.locked.value.Defined() && m.locked.value != p.Value && m.locked.ballot > p.Valid {
		return record.CID{}, true
	}
	switch app.Judge(p.Content) {
	case Pending:
		return p.Value, p.Valid > 0
	case Bad:
		return record.CID{}, true
	}
	return p.Value, true
}

// expired starts the phase's timer of the own ballot, and tells whether it has
// run out.
func (m *Machine) expired(now time.Duration, phase Phase) bool {
	if !m.timer.set || m.timer.phase != phase {
		if m.timer.set && m.timer.phase > phase {
			return true
		}
		m.timer = timer{true, phase, now + firstTimeout<<min(m.ballot, maxDoublings)}
	}
	return now >= m.timer.at
}
