package member

import (
	"slices"
	"time"

	"village/protocol/agree"
	"village/protocol/record"
	"village/protocol/task"
)

// decision is what the named nodes decide on by quorum.
type decision struct {
	topic     task.Topic
	machine   *agree.Machine
	decided   time.Duration // when it was, 0 = not yet
	certified bool          // a certificate is out
}

func (m *Member) decisionOn(topic task.Topic) *decision {
	if topic == task.TopicRoster {
		return &m.rosterVote
	}
	if rung, ok := topic.Rung(m.task); ok {
		return &m.rungVotes[rung]
	}
	return &m.finalVote
}

// decide casts the votes that are due.
func (m *Member) decide(now time.Duration, d *decision, app agree.Application) {
	votes, wake := d.machine.Advance(now, app)
	for _, v := range votes {
		m.do(Cast{Topic: d.topic, Vote: v})
	}
	if wake > 0 {
		m.wakeAt(wake)
	}
}

// One certificate serves all, and takes as many signatures as a quorum. So a few
// nodes certify at once, and a few more after each pause in which nobody has.
const (
	certifiers   = 3
	certifyPause = time.Second
)

// certify publishes the proof of what was decided on, in the node's turn.
func (m *Member) certify(now time.Duration, d *decision) {
	_, content, ok := d.machine.Decided()
	if !ok || d.certified {
		return
	}
	if d.decided == 0 {
		d.decided = max(now, 1)
	}
	if m.own >= 0 {
		turn := (uint64(m.own) + task.BallotSeed(m.id)) % uint64(len(m.seats)) / certifiers
		if at := d.decided + time.Duration(turn)*certifyPause; now < at {
			m.wakeAt(at)
			return
		}
	}
	d.certified = true
	m.do(Certify{Topic: d.topic, Content: content, Precommits: d.machine.Certificate()})
}

// How long a quorum of enrolments waits for the others: four times as long as
// the enrolments took to come, so that operators who need hours have hours.
const leastGathering = 10 * time.Second

// rosterApplication decides with which enrolments training starts.
func (m *Member) rosterApplication(now time.Duration) agree.Application {
	quorum := agree.Quorum(len(m.seats))
	return agree.Application{
		Propose: func() ([]byte, bool) {
			enrolled, missing := 0, 0
			for i := range m.seats {
				switch s := &m.seats[i]; {
				case s.part:
					enrolled++
				case !s.out():
					missing++
				}
			}
			if enrolled < quorum {
				return nil, false
			}
			if until := m.enrolling.last + max(leastGathering, slack*(m.enrolling.last-m.enrolling.first)); missing > 0 && now < until {
				m.wakeAt(until)
				return nil, false
			}
			var parts []task.Enrolled
			for i := range m.seats {
				if s := &m.seats[i]; s.part {
					parts = append(parts, *s.enrolled)
				}
			}
			return m.encode(task.ContentOf(parts)), true
		},
		Judge: func(content []byte) agree.Verdict {
			var c task.RosterContent
			if record.Decode(content, &c) != nil || len(c.Enrolments) < quorum || c.Check(m.task) != nil {
				return agree.Bad
			}
			for _, cid := range c.Enrolments {
				if e := m.enrolment(cid); e == nil || m.seats[m.seatOf(e.Author)].proof != nil {
					return agree.Pending
				}
			}
			return agree.Good
		},
	}
}

func (m *Member) enrolment(cid record.CID) *task.Enrolled {
	for i := range m.seats {
		if e := m.seats[i].enrolment(cid); e != nil {
			return e
		}
	}
	return nil
}

func (s *seat) enrolment(cid record.CID) *task.Enrolled {
	if s.enrolled != nil && s.enrolled.CID == cid {
		return s.enrolled
	}
	for j := range s.others {
		if s.others[j].CID == cid {
			return &s.others[j]
		}
	}
	return nil
}

// stand goes by the enrolment that was decided on, where its author has signed
// several.
func (m *Member) stand(cid record.CID) {
	if e := m.enrolment(cid); e != nil {
		decided := *e
		m.seats[m.seatOf(e.Author)].enrolled = &decided
	}
}

// encode encodes a content, which holds nothing that cannot be.
func (m *Member) encode(content any) []byte {
	b, err := record.Encode(content)
	if err != nil {
		panic("member: " + err.Error())
	}
	return b
}

// hasRoster says whether the roster is decided on and every enrolment of it is
// here.
func (m *Member) hasRoster() bool { return m.roster.CID.Defined() }

// adopt goes by what was decided on.
func (m *Member) adopt(now time.Duration) {
	if _, content, ok := m.rosterVote.machine.Decided(); ok && !m.hasRoster() {
		m.adoptRoster(now, content)
	}
	m.adoptRungs(now)
	if _, content, ok := m.finalVote.machine.Decided(); ok && m.hasRoster() && !m.sealed() {
		// What is decided on was judged good by a quorum, unless that is hostile.
		var c task.FinalContent
		if record.Decode(content, &c) == nil && c.Check(m.task) == nil {
			m.content, m.set, m.sealedAt = c, setOf(c), now
			for _, p := range c.Parts {
				if i := m.seatOf(p.Node); i >= 0 {
					m.seats[i].counts = true
					m.stand(p.Enrolment)
				}
			}
		}
	}
}

func (m *Member) adoptRoster(now time.Duration, content []byte) {
	if m.founders == nil {
		var c task.RosterContent
		if record.Decode(content, &c) != nil || c.Check(m.task) != nil {
			return
		}
		m.founders = c.Enrolments
	}
	var enrolled []task.Enrolled
	for _, cid := range m.founders {
		e := m.enrolment(cid)
		if e == nil {
			return
		}
		enrolled = append(enrolled, *e)
	}
	roster, err := task.RosterOf(m.task, enrolled)
	if err != nil {
		// Every enrolment was checked against the task, so that they merge.
		panic("member: checked enrolments do not make a roster: " + err.Error())
	}
	m.roster = roster
	for _, cid := range m.founders {
		m.stand(cid)
	}
	for i := range m.seats {
		m.seats[i].founder = roster.Index(m.seats[i].id) >= 0
		m.seats[i].pace.start(now)
		m.takeEarly(now, i)
	}
}

// finalSet is the set that this node would decide on: everyone's update of the
// last round, of the silent their newest if it is recent. It is not ready as
// long as somebody is still on the way there.
func (m *Member) finalSet(now time.Duration) (c task.FinalContent, ready bool) {
	if m.rounds.highest < m.task.Rounds && m.task.Tolerance == 0 || m.climbing() {
		return c, false
	}
	last := uint64(0)
	for i := range m.seats {
		if m.seats[i].part {
			last = max(last, m.seats[i].round())
		}
	}
	// A node that is not there itself waits for nobody to get there: they may be
	// held up as it is, and it would take them for silent.
	if ready = last > 0 && !m.behind(last); !ready {
		return c, false
	}
	// Nobody is waited for as long as that is not the last round: a node that is
	// not there yet may itself be waiting for others, and gives no sign then.
	for i := range m.seats {
		s := &m.seats[i]
		if u := s.at(last); s.part && u != nil && !u.Settled && last != m.task.Rounds {
			return c, false
		}
	}
	for i := range m.seats {
		if s := &m.seats[i]; s.part && s.at(last) == nil && !m.quiet(now, i) {
			ready = false
		}
	}
	if !ready {
		return c, false
	}
	c = task.FinalContent{
		Round: last, Roster: m.roster.CID, Parts: []task.Part{}, Out: []task.Out{}, Chosen: m.kept[0], Ends: m.ends,
	}
	for i := range m.seats {
		s := &m.seats[i]
		why := task.Silent
		switch {
		case s.enrolled == nil:
			why = task.Absent
		case s.left:
			why = task.Left
		case s.proof != nil:
			why = task.Equivocated
		case s.round() > 0 && s.round()+m.task.Recent() >= last:
			u := s.at(last)
			if u == nil {
				u = s.updates[0]
			}
			c.Parts = append(c.Parts, task.Part{
				Node: s.id, Enrolment: s.enrolled.CID, Update: u.CID, Round: u.Round, Weight: s.enrolled.Moments.Count,
			})
			continue
		}
		c.Out = append(c.Out, task.Out{Node: s.id, Round: s.round(), Why: why})
	}
	return c, len(c.Parts) >= m.fewestParts()
}

// behind tells whether the node still has to train to get to a round.
func (m *Member) behind(round uint64) bool {
	return m.own >= 0 && m.seats[m.own].part && m.seats[m.own].round() < round
}

// fewestParts is how many updates make a model: a quorum of the roster without
// those who take no part any more.
func (m *Member) fewestParts() int {
	staying := 0
	for i := range m.seats {
		if !m.seats[i].out() && m.seats[i].founder {
			staying++
		}
	}
	return fewest(staying)
}

func fewest(staying int) int {
	if staying == 0 {
		return 1
	}
	return agree.Quorum(staying)
}

// finalApplication decides of which updates the model is made.
func (m *Member) finalApplication(now time.Duration) agree.Application {
	return agree.Application{
		Propose: func() ([]byte, bool) {
			c, ready := m.finalSet(now)
			if !ready {
				return nil, false
			}
			made, ok := m.modelOfSet(c)
			if !ok {
				return nil, false
			}
			c.Inputs, c.Model = made.Inputs, made.Model
			return m.encode(c), true
		},
		Judge: func(content []byte) agree.Verdict {
			var c task.FinalContent
			if record.Decode(content, &c) != nil {
				return agree.Bad
			}
			if m.behind(c.Round) || m.climbing() {
				return agree.Pending
			}
			if c.Chosen != m.kept[0] || !slices.EqualFunc(c.Ends, m.ends, sameEnd) {
				return agree.Bad
			}
			verdict := m.judge(now, c)
			if verdict != agree.Good {
				return verdict
			}
			switch made, ok := m.modelOfSet(c); {
			case !ok:
				return agree.Pending
			case made.Model != c.Model || made.Inputs != c.Inputs:
				return agree.Bad
			}
			return agree.Good
		},
	}
}

// judge checks a proposed set against what this node holds. A node that this
// node has heard of lately is not left out.
func (m *Member) judge(now time.Duration, c task.FinalContent) agree.Verdict {
	staying := len(m.roster.Members)
	for _, o := range c.Out {
		if (o.Why == task.Left || o.Why == task.Equivocated) && m.roster.Index(o.Node) >= 0 {
			staying-- // which is checked below
		}
	}
	if c.Roster != m.roster.CID || c.Round == 0 || c.Round > m.task.Rounds ||
		len(c.Parts) < fewest(staying) || len(c.Parts)+len(c.Out) != len(m.seats) {
		return agree.Bad
	}
	verdict := agree.Good
	pend := func(unless bool) {
		if !unless {
			verdict = agree.Pending
		}
	}
	settled := true
	parts, outs := c.Parts, c.Out
	for i := range m.seats {
		s := &m.seats[i]
		switch {
		case len(parts) > 0 && parts[0].Node == s.id:
			p := parts[0]
			parts = parts[1:]
			if p.Round == 0 || p.Round > c.Round || p.Round+m.task.Recent() < c.Round {
				return agree.Bad
			}
			e := s.enrolment(p.Enrolment)
			if e == nil {
				e = m.enrolment(p.Enrolment)
			}
			if e == nil || s.proof != nil {
				pend(false)
				continue
			}
			if e.Author != s.id || e.Moments.Count != p.Weight {
				return agree.Bad
			}
			u := m.find(i, p.Update)
			if u == nil {
				pend(false)
				continue
			}
			if u.Round != p.Round {
				return agree.Bad
			}
			settled = settled && (u.Settled || p.Round < c.Round)
			pend(p.Round == c.Round || m.quiet(now, i))
		case len(outs) > 0 && outs[0].Node == s.id:
			why := outs[0].Why
			outs = outs[1:]
			switch why {
			case task.Absent:
				pend(s.enrolled == nil || m.quiet(now, i))
			case task.Left:
				pend(s.left)
			case task.Equivocated:
				pend(s.proof != nil)
			case task.Silent:
				pend(s.enrolled != nil && m.quiet(now, i))
			default:
				return agree.Bad
			}
		default:
			return agree.Bad
		}
	}
	if verdict == agree.Good && !settled && c.Round != m.task.Rounds {
		return agree.Bad
	}
	return verdict
}

// quiet tells whether the decision need not wait for a node, and waits else.
func (m *Member) quiet(now time.Duration, i int) bool {
	s := &m.seats[i]
	if s.out() || i == m.own {
		return s.out()
	}
	silentAt := s.pace.await(m.rounds.since)
	if now < silentAt {
		m.wakeAt(silentAt)
	}
	return now >= silentAt
}

// find returns the update of a seat by its CID.
func (m *Member) find(i int, cid record.CID) *Update {
	for j := range m.seats[i].updates {
		if u := m.seats[i].updates[j]; u.CID == cid {
			return u
		}
	}
	return m.fetched[cid]
}

// modelOfSet returns what a set of updates comes to, and asks for it where it is not
// known yet.
func (m *Member) modelOfSet(c task.FinalContent) (Made, bool) {
	set := setOf(c)
	if made, asked := m.made[set]; asked {
		return made, made.Model.Defined()
	}
	model := m.modelOf(c)
	if model == nil {
		return Made{}, false
	}
	m.made[set] = Made{Set: set}
	m.do(m.requestModel(set, *model))
	return Made{}, false
}

// setOf names a set by everything but what it comes to.
func setOf(c task.FinalContent) record.CID {
	b, err := record.Encode(struct {
		Round  uint64      `cbor:"round"`
		Roster record.CID  `cbor:"roster"`
		Parts  []task.Part `cbor:"parts"`
		Out    []task.Out  `cbor:"out"`
	}{c.Round, c.Roster, c.Parts, c.Out})
	if err != nil {
		panic("member: " + err.Error())
	}
	return record.CIDOf(b)
}

// modelOf recomputes the model of a set, or returns nil where an update of it
// is not held.
func (m *Member) modelOf(c task.FinalContent) *task.Model {
	params := make([][]float64, len(c.Parts))
	for p, part := range c.Parts {
		i := m.seatOf(part.Node)
		if i < 0 {
			return nil
		}
		u := m.find(i, part.Update)
		if u == nil {
			return nil
		}
		params[p] = u.Params
		if m.task.Search != nil {
			// A follower may not have followed the search.
			if params[p], _ = m.task.Project(u.Params, u.Kept, []int{c.Chosen}); params[p] == nil {
				return nil
			}
		}
	}
	model, err := task.ModelOf(m.id, m.task, m.roster, c, params)
	if err != nil {
		// Checked by task.UpdateOf, and the weights by task.EnrolmentOf.
		panic("member: checked updates do not make a model: " + err.Error())
	}
	return &model
}

func (m *Member) requestModel(set record.CID, model task.Model) Make {
	e := Make{Set: set, Model: model, Roster: task.ContentOf(m.roster.Members).Enrolments}
	e.Enrolments = slices.Clone(e.Roster)
	for _, p := range model.Parts {
		if !slices.Contains(e.Enrolments, p.Enrolment) {
			e.Enrolments = append(e.Enrolments, p.Enrolment)
		}
	}
	task.SortCIDs(e.Enrolments)
	return e
}

// noteModel notes what a set comes to.
func (m *Member) noteModel(e Made) {
	if !e.Model.Defined() {
		delete(m.made, e.Set) // to be asked again
		return
	}
	m.made[e.Set] = e
}

// finish goes from the decided set to the model and its evaluation.
func (m *Member) finish(now time.Duration) {
	if m.final == nil {
		if m.final = m.modelOf(m.content); m.final == nil {
			if !m.fetching {
				m.fetching = true
				m.do(Fetch{Inputs: m.content.Inputs})
			}
			return
		}
	}
	made, asked := m.made[m.set]
	if !asked {
		m.made[m.set] = Made{Set: m.set}
		m.do(m.requestModel(m.set, *m.final))
	}
	if !made.Model.Defined() {
		return
	}
	if m.own >= 0 && m.seats[m.own].part && m.seats[m.own].evaluation == nil && !m.working {
		m.working = true
		m.do(Evaluate{CID: m.content.Model, Model: *m.final})
	}
	for i := range m.seats {
		if m.awaited(i) {
			if at := m.seats[i].pace.await(m.sealedAt); now < at {
				m.wakeAt(at)
			}
		}
	}
}

// awaited tells whether a node's evaluation is due.
func (m *Member) awaited(i int) bool {
	s := &m.seats[i]
	return s.evaluation == nil && !s.out() && s.counts
}
