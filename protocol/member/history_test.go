package member

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"village/protocol/agree"
	"village/protocol/record"
	"village/protocol/task"
)

// site is a node in a history: what it has made durable, and what its machine
// has asked for since it was last restarted.
type site struct {
	machine *Member
	held    []int        // places in the log
	got     map[int]bool // that were ever held
	train   *Train
	makes   []Make
	fetch   *Fetch
	wakeAt  time.Duration
}

// story is a run of all nodes over a network that delivers in any order, or
// hardly ever, with restarts.
type story struct {
	t      rapid.TB
	task   task.Task
	rng    *rand.Rand
	pause  time.Duration // between two events, on average
	leaves int           // the node whose operator ends its part at some time, or -1
	late   int           // the node that enrols once the others train, or -1
	dies   int           // the node of which nothing is heard from some time on, or -1
	lies   int           // the node whose updates are not what it was to train, or -1
	death  time.Duration // of the one that dies
	now    time.Duration
	sites  []*site
	log    []Received             // every record that was signed
	signed map[string]bool        // their places
	inputs map[record.CID]Content // that were made
}

// Content is what an inputs' artifact holds.
type Content []Received

// place is what an author signs at most one record for.
func place(r Received) string {
	switch body := r.Body.(type) {
	case Ballot:
		return fmt.Sprint(r.Author[0], "vote", body.Topic, body.Vote.Phase, r.Number)
	case Certificate:
		return fmt.Sprint(r.Author[0], "seal", body.Topic)
	default:
		return fmt.Sprintf("%d %T %d", r.Author[0], body, r.Number)
	}
}

func (s *story) publish(i int, r Received) {
	r.Author = nodes[i]
	if s.signed[place(r)] && i == s.lies {
		return // its store would refuse
	}
	if s.signed[place(r)] {
		s.t.Fatalf("node %d signs a second record for %s", i, place(r))
	}
	s.signed[place(r)] = true
	r.CID = name("record", len(s.log))
	if b, ok := r.Body.(Ballot); ok {
		b.Vote.CID, b.Vote.Author = r.CID, r.Author
		r.Body = b
	}
	if u, ok := r.Body.(task.Update); ok {
		if i == s.lies {
			u = s.lie(u, r.Number)
			r.Body = u
		}
		if r.Number > s.task.Rounds || u.Previous >= r.Number {
			s.t.Fatalf("node %d signs round %d after %d of %d", i, r.Number, u.Previous, s.task.Rounds)
		}
		if m := s.sites[i].machine; m.Content().Model.Defined() || m.HasLeft(nodes[i]) {
			s.t.Fatalf("node %d signs round %d after its end", i, r.Number)
		}
	}
	s.log = append(s.log, r)
	s.hold(i, len(s.log)-1)
}

// hold makes a record durable as a store does, and gives it to the machine.
func (s *story) hold(i, record int) {
	n, r := s.sites[i], s.log[record]
	n.got[record] = true
	n.held = append(n.held, record)
	if _, ok := r.Body.(task.Update); ok {
		oldest, updates := record, 0
		for _, h := range n.held {
			if _, ok := s.log[h].Body.(task.Update); ok && s.log[h].Author == r.Author {
				updates++
				if s.log[h].Number < s.log[oldest].Number {
					oldest = h
				}
			}
		}
		if updates > 2 {
			n.held = slices.DeleteFunc(n.held, func(h int) bool { return h == oldest })
		}
	}
	s.step(i, r)
}

func (s *story) step(i int, e Event) {
	n := s.sites[i]
	for _, effect := range n.machine.Step(s.now, e) {
		switch e := effect.(type) {
		case Publish:
			s.publish(i, Received{Number: e.Number, Body: e.Body})
		case Cast:
			s.publish(i, Received{Number: e.Vote.Ballot, Body: Ballot(e)})
		case Certify:
			if len(e.Precommits) < agree.Quorum(len(nodes)) {
				s.t.Fatalf("node %d certifies with %d precommits", i, len(e.Precommits))
			}
			s.publish(i, Received{Body: Certificate{Topic: e.Topic, Content: e.Content}})
		case Train:
			if n.train != nil && !n.machine.HasLeft(nodes[i]) && i != s.lies {
				s.t.Fatalf("node %d is asked to train twice at once", i)
			}
			s.mayTrain(i, e)
			n.train = &e
		case Make:
			n.makes = append(n.makes, e)
		case Fetch:
			n.fetch = &e
		case Evaluate:
			s.step(i, Evaluated{Evaluation: evaluated(i, e.CID).Body.(task.Evaluation)})
		case Wake:
			n.wakeAt = e.At
		}
	}
	s.check(i)
}

// check holds what must be true after every step.
func (s *story) check(i int) {
	m := s.sites[i].machine
	if m.Disputed() {
		s.t.Fatalf("node %d recomputes another model", i)
	}
	for j, other := range s.sites {
		o := other.machine
		if m.Roster().Defined() && o.Roster().Defined() && m.Roster() != o.Roster() {
			s.t.Fatalf("nodes %d and %d have two rosters", i, j)
		}
		for rung := range min(len(m.ends), len(o.ends)) {
			if a, b := m.ends[rung], o.ends[rung]; !sameEnd(a, b) {
				s.t.Fatalf("at nodes %d and %d rung %d has ended as\n%+v\n%+v", i, j, rung+1, a, b)
			}
		}
		if a, b := m.Content(), o.Content(); a.Model.Defined() && b.Model.Defined() && !reflect.DeepEqual(a, b) {
			s.t.Fatalf("nodes %d and %d have decided on two final sets:\n%+v\n%+v", i, j, a, b)
		}
	}
}

// mayTrain holds that nobody begins a round beyond a rung before it has ended, and
// that everybody trains the candidates that are left.
func (s *story) mayTrain(i int, e Train) {
	m := s.sites[i].machine
	if m.climbing() && e.Round > s.task.Search.Rungs[len(m.ends)].Round {
		s.t.Fatalf("node %d begins round %d while rung %d goes on", i, e.Round, len(m.ends)+1)
	}
	want := s.task.Everyone()
	if len(m.ends) > 0 {
		want = m.ends[len(m.ends)-1].Kept
	}
	if !slices.Equal(e.Kept, want) || len(e.From) != s.task.Length(want) || e.Own != nil && len(e.Own) != len(e.From) {
		s.t.Fatalf("node %d trains candidates %v from %d numbers and its own %d, where %v are left", i, e.Kept, len(e.From), len(e.Own), want)
	}
}

// lie makes another update of one, which passes the check all the same: of other
// candidates, with parameters and losses out of the air.
func (s *story) lie(u task.Update, round uint64) task.Update {
	if s.task.Search == nil {
		return u
	}
	if s.rng.IntN(2) == 0 {
		u.Kept = slices.DeleteFunc(s.task.Everyone(), func(int) bool { return s.rng.IntN(2) == 0 })
		if len(u.Kept) == 0 {
			u.Kept = []int{s.rng.IntN(len(s.task.Search.Candidates))}
		}
		u.Params = make([]float64, s.task.Length(u.Kept))
		for k := range u.Params {
			u.Params[k] = s.rng.NormFloat64()
		}
	}
	u.Losses, u.Rows = s.losses(round, u.Kept), 0
	if u.Losses != nil {
		u.Rows = u.Weight
	}
	return u
}

// losses are those that end a rung, none in other rounds.
func (s *story) losses(round uint64, kept []int) []float64 {
	if s.task.Search == nil || !slices.ContainsFunc(s.task.Search.Rungs, func(r task.Rung) bool { return r.Round == round }) {
		return nil
	}
	losses := make([]float64, len(kept))
	for i := range losses {
		losses[i] = s.rng.Float64()
	}
	return losses
}

// trained is what a node's local steps come to: half of the way to what it would
// have alone.
func (s *story) trained(i int, e Train) Trained {
	out := Trained{Round: e.Round, Params: slices.Clone(e.From)}
	if s.task.Search != nil {
		out.Kept, out.Losses = e.Kept, s.losses(e.Round, e.Kept)
		if out.Losses != nil {
			out.Rows = uint64(i + 1)
		}
	}
	for _, state := range s.task.Advance(e.Kept, out.Params) {
		for k, x := range state.Params {
			state.Params[k] = x + (float64(i*(k+1))-x)/2
		}
	}
	return out
}

// made stores what a machine asked for: nothing where a record of it is gone.
func (s *story) made(i int, e Make) Made {
	var updates Content
	for _, p := range e.Model.Parts {
		for _, h := range s.sites[i].held {
			if s.log[h].CID == p.Update {
				updates = append(updates, s.log[h])
			}
		}
	}
	inputs := name("inputs", e.Roster, e.Enrolments, e.Model.Parts)
	if len(updates) == len(e.Model.Parts) {
		s.inputs[inputs] = updates
	}
	if s.inputs[inputs] == nil {
		return Made{Set: e.Set}
	}
	return Made{Set: e.Set, Inputs: inputs, Model: modelName(e.Model)}
}

func modelName(m task.Model) record.CID {
	return name("model", m.Round, m.Roster, m.Parts, m.Out, fmt.Sprintf("%b", m.Params))
}

// event lets something happen at a node, or between two.
func (s *story) event() {
	i, j := s.rng.IntN(len(nodes)), s.rng.IntN(len(nodes))
	n := s.sites[i]
	s.now += time.Duration(s.rng.ExpFloat64() * float64(s.pause))
	if i == s.dies && s.now > s.death {
		return
	}
	switch s.rng.IntN(10) {
	case 0:
		if i == s.late && !slices.ContainsFunc(s.sites, func(n *site) bool { return n.machine.Round() > 0 }) {
			return
		}
		s.step(i, Enrol{Enrolment: enrolled(i).Body.(task.Enrolment)})
	case 1, 2:
		if e := n.train; e != nil {
			n.train = nil
			s.step(i, s.trained(i, *e))
		}
	case 3:
		if n.wakeAt != 0 {
			s.now, n.wakeAt = max(s.now, n.wakeAt), 0
			s.step(i, Tick{})
		}
	case 4:
		if len(n.makes) > 0 {
			e := n.makes[0]
			n.makes = n.makes[1:]
			s.step(i, s.made(i, e))
		}
		if e := n.fetch; e != nil && s.inputs[e.Inputs] != nil {
			n.fetch = nil
			s.step(i, Fetched{Updates: s.inputs[e.Inputs]})
		}
	case 5:
		if s.rng.IntN(20) == 0 { // a restart, in another order of records
			var held []Received
			for _, h := range s.rng.Perm(len(n.held)) {
				held = append(held, s.log[n.held[h]])
			}
			*n = site{machine: New(nodes[i], taskID, s.task), held: n.held, got: n.got}
			n.machine.Restore(s.now, held)
			s.step(i, Tick{})
		}
	case 6:
		if n.train != nil && i != j {
			s.step(j, beacon(i))
		}
		if s.leaves == i && s.rng.IntN(20) == 0 {
			s.step(i, Leave{})
		}
	default:
		var lacks []int
		for _, h := range s.sites[j].held {
			if !n.got[h] {
				lacks = append(lacks, h)
			}
		}
		if len(lacks) > 0 {
			s.hold(i, lacks[s.rng.IntN(len(lacks))])
		} else if len(n.held) > 0 { // comes again
			s.step(i, s.log[n.held[s.rng.IntN(len(n.held))]])
		}
	}
}

// history runs a story to its end and returns it. It fails where two rosters or final sets are decided on, a node signs twice for
// one place, or anything after its end.
func history(t rapid.TB, tk task.Task, seed uint64) *story {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 0))
	s := &story{t: t, task: tk, rng: rng, inputs: map[record.CID]Content{}, signed: map[string]bool{}, leaves: -1, late: -1, dies: -1, lies: -1}
	s.pause = []time.Duration{20 * time.Millisecond, 300 * time.Millisecond, time.Second}[rng.IntN(3)]
	if rng.IntN(4) == 0 {
		s.leaves = rng.IntN(len(nodes))
	}
	if tk.Search != nil { // where there is more to go wrong
		switch i := rng.IntN(len(nodes)); rng.IntN(4) {
		case 0:
			s.late = i
		case 1:
			s.dies, s.death = i, time.Duration(rng.Int64N(int64(30*second)))
		case 2:
			s.lies = i
		}
		if s.late >= 0 || s.dies >= 0 || s.lies >= 0 {
			s.leaves = -1 // of three nodes two are needed
		}
	}
	for i := range nodes {
		s.sites = append(s.sites, &site{machine: New(nodes[i], taskID, tk), got: map[int]bool{}})
	}
	for range 50_000 {
		s.event()
		if s.ended() {
			s.recompute()
			return s
		}
	}
	for i, n := range s.sites {
		missing, quorum := n.machine.Undecided()
		t.Errorf("node %d: %s, round %d, waits for %v, a quorum of %d for %v", i, n.machine.Stage(), n.machine.Round(), n.machine.WaitingFor(), quorum, missing)
	}
	t.Fatal("the run does not end")
	return nil
}

// ended tells whether all are at the end who keep to the protocol.
func (s *story) ended() bool {
	for i, n := range s.sites {
		if i != s.lies && (i != s.dies || s.now <= s.death) && n.machine.Stage() != Done {
			return false
		}
	}
	return true
}

// recompute checks every node's model against the plain mean of what was signed,
// and that each named node is accounted for. Somebody who has followed nothing but
// the end comes to the same.
func (s *story) recompute() {
	for i, n := range s.sites {
		c := n.machine.Content()
		_, model := n.machine.Model()
		if model == nil && (i == s.lies || i == s.dies) {
			continue
		}
		kept := []int{c.Chosen}
		want, total := make([]float64, s.task.Length(kept)), 0.0
		for _, p := range c.Parts {
			at := slices.IndexFunc(s.log, func(r Received) bool { return r.CID == p.Update })
			if at < 0 || s.log[at].Author != p.Node || s.log[at].Number != p.Round {
				s.t.Fatalf("part %+v was not signed", p)
			}
			u := s.log[at].Body.(task.Update)
			params := u.Params
			if s.task.Search != nil {
				params, _ = s.task.Project(params, u.Kept, kept)
			}
			for k, x := range params {
				want[k] += float64(p.Weight) * x
			}
			total += float64(p.Weight)
		}
		for k := range want {
			want[k] /= total
		}
		for k, x := range s.task.Advance(kept, want)[0].Params {
			if math.Abs(model.Params[k]-x) > 1e-9 {
				s.t.Fatalf("node %d: parameter %d is %g, recomputed %g", i, k, model.Params[k], x)
			}
		}
		results, err := n.machine.Results()
		if err != nil || len(results.Contributions) != len(nodes) || len(c.Parts)+len(c.Out) != len(nodes) {
			s.t.Fatalf("contributions %+v, %v", results.Contributions, err)
		}
		if s.task.Search != nil && (len(results.Search.Rungs) != len(s.task.Search.Rungs) || results.Search.Chosen != c.Chosen) {
			s.t.Fatalf("trail %+v", results.Search)
		}
		follower := New(stranger, taskID, s.task)
		for _, r := range s.log {
			cert, ok := r.Body.(Certificate)
			_, enrols := r.Body.(task.Enrolment)
			if enrols || ok && (cert.Topic == task.TopicRoster || cert.Topic == task.TopicFinal) {
				feed(follower, s.now, r, s.inputs)
			}
		}
		if cid, _ := follower.Model(); cid != c.Model || follower.Disputed() {
			s.t.Fatalf("who follows the end alone comes to model %s, not %s", cid, c.Model)
		}
	}
}

// view is all that a machine tells.
func view(t rapid.TB, m *Member) string {
	cid, model := m.Model()
	s := fmt.Sprint(m.Stage(), " kept ", m.Kept(), m.ends, " roster ", m.Roster(), " round ", m.Round(), " waits for ", m.WaitingFor(), " model ", cid, fmt.Sprintf(" of %+v", m.Content()))
	if model != nil {
		s += fmt.Sprintf(" %b", model.Params)
		results, err := m.Results()
		if err != nil {
			t.Fatal(err)
		}
		s += fmt.Sprint(results.Missing, results.Contributions)
	}
	for _, id := range append(slices.Clone(nodes), stranger) {
		e, ok := m.Enrolment(id)
		s += fmt.Sprint(" ", m.RoundOf(id), m.HasEvaluated(id), m.HasLeft(id), m.InRoster(id), e.CID, ok)
	}
	for _, seat := range m.seats {
		for _, u := range seat.updates {
			s += fmt.Sprint(" ", u.CID)
		}
	}
	return s
}

// feed gives a machine an event, makes what it asks to make, and fetches what it
// asks to fetch. It does not train.
func feed(m *Member, now time.Duration, e Event, inputs map[record.CID]Content) {
	for _, effect := range m.Step(now, e) {
		switch e := effect.(type) {
		case Make:
			feed(m, now, Made{Set: e.Set, Inputs: name("inputs", e.Roster, e.Enrolments, e.Model.Parts), Model: modelName(e.Model)}, inputs)
		case Fetch:
			feed(m, now, Fetched{Updates: inputs[e.Inputs]}, inputs)
		}
	}
}

func TestTheStateIsAFunctionOfTheRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tk := newTask(uint64(rapid.IntRange(1, 12).Draw(t, "rounds")))
		if rapid.Bool().Draw(t, "ends early") {
			tk.Rounds, tk.Tolerance = 60, .01
		} else if rapid.Bool().Draw(t, "searches") {
			tk = searching()
		}
		s := history(t, tk, rapid.Uint64().Draw(t, "history"))
		if s.lies >= 0 {
			return // which of a liar's updates are held depends on when they come
		}
		log, inputs := s.log, s.inputs
		order := make([]int, len(log))
		for i := range order {
			order[i] = i
		}
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 1))
		rng.Shuffle(len(order), func(a, b int) { order[a], order[b] = order[b], order[a] })
		if !rapid.Bool().Draw(t, "all") {
			order = order[:rapid.IntRange(0, len(log)).Draw(t, "held")]
		}
		self := append(slices.Clone(nodes), stranger)[rapid.IntRange(0, 3).Draw(t, "self")]
		records := make([]Received, 0, len(order))
		certified := func(topic task.Topic) bool {
			return slices.ContainsFunc(order, func(i int) bool {
				c, ok := log[i].Body.(Certificate)
				return ok && c.Topic == topic
			})
		}
		left := 1 // candidates, as far as is proven
		if tk.Search != nil {
			left = len(tk.Search.Candidates)
			for rung, r := range tk.Search.Rungs {
				if !certified(task.TopicOfRung(rung)) {
					break
				}
				left = int(r.Keep)
			}
		}
		for _, i := range order {
			// Of updates from beyond a rung that is not known to have ended, the two
			// newest wait for that, beside the two newest from before.
			if u, ok := log[i].Body.(task.Update); ok && tk.Search != nil && len(u.Kept) < left {
				continue
			}
			records = append(records, log[i])
		}

		live := New(self, taskID, tk)
		now := time.Duration(0)
		for _, r := range records {
			// Nobody falls silent: that is not of the records.
			now += time.Duration(rng.Int64N(int64(2*second) / int64(len(records))))
			for range 1 + rng.IntN(2) {
				feed(live, now, r, inputs)
			}
			if rng.IntN(2) == 0 {
				feed(live, now, Tick{}, inputs)
			}
		}
		feed(live, now, Tick{}, inputs)
		restored := New(self, taskID, tk)
		rng.Shuffle(len(records), func(a, b int) { records[a], records[b] = records[b], records[a] })
		restored.Restore(now, records)
		feed(restored, now, Tick{}, inputs)
		if a, b := view(t, live), view(t, restored); a != b {
			t.Fatalf("live:     %s\nrestored: %s", a, b)
		}
	})
}

func TestHistories(t *testing.T) {
	seeds := uint64(200)
	if testing.Short() {
		seeds = 40
	}
	locked := []uint64{107368, 7007577} // a value that none could judge any more
	for seed := range seeds + uint64(len(locked)) {
		if seed >= seeds {
			seed = locked[seed-seeds]
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			tk := newTask(1 + seed%12)
			switch {
			case seed%2 == 0:
				tk.Rounds, tk.Tolerance = 60, .01
			case seed%4 == 1:
				tk = searching()
			}
			history(t, tk, seed)
		})
	}
}
