package drive_test

import (
	"container/heap"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"village/protocol/agree"
	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/member"
	"village/protocol/member/drive"
	"village/protocol/record"
	"village/protocol/task"
)

// TestTranscripts plays the lives of tasks in testdata: what happens to the nodes
// stands above a line, what the watched ones then take in and do below it. Times
// are in seconds; a message takes .02, local steps and evaluations take 1, and
// nodes compare what they hold every 2. With -rewrite the transcripts are made
// anew; commit them only if you can explain each difference.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var w *world
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "task" {
				w = newWorld(t, d)
			}
			return w.command(t, d)
		})
	})
}

const (
	latency = 20 * time.Millisecond
	working = time.Second
	pulling = 2 * time.Second
)

// world is a few nodes on a virtual clock.
type world struct {
	task   task.Task
	id     record.CID
	nodes  []*node
	apart  map[string]bool // nodes that are cut off from the others
	now    time.Duration
	seq    int
	due    occurrences
	names  map[record.CID]string // of records and sets, for people
	models map[record.CID][]member.Received
	out    strings.Builder
}

// node is a node of the world, its driver, and what a crash leaves.
type node struct {
	drive.Driver[letter]
	world   *world
	name    string
	id      record.NodeID
	rows    uint64
	disk    []letter // in the order in which they were stored
	life    int
	up      bool
	watched bool
	full    bool // the disk refuses everything
	wake    time.Duration
	alarm   int // counts calls of Wake
}

// letter is a signed record.
type letter struct {
	member.Received
	kind record.Kind
}

type occurrence struct {
	at   time.Duration
	seq  int
	what func()
}

type occurrences []occurrence

func (o occurrences) Len() int { return len(o) }
func (o occurrences) Less(i, j int) bool {
	return o[i].at < o[j].at || o[i].at == o[j].at && o[i].seq < o[j].seq
}
func (o occurrences) Swap(i, j int) { o[i], o[j] = o[j], o[i] }
func (o *occurrences) Push(x any)   { *o = append(*o, x.(occurrence)) }
func (o *occurrences) Pop() any {
	last := (*o)[len(*o)-1]
	*o = (*o)[:len(*o)-1]
	return last
}

func newWorld(t *testing.T, d *datadriven.TestData) *world {
	w := &world{apart: map[string]bool{}, names: map[record.CID]string{}, models: map[record.CID][]member.Received{}, id: record.CIDOf([]byte("task"))}
	var ids []record.NodeID
	for _, arg := range d.CmdArgs {
		if arg.Key != "nodes" {
			continue
		}
		for i, name := range arg.Vals {
			n := &node{world: w, name: name, id: record.NodeID{byte(i + 1)}, rows: uint64(10 * (i + 1))}
			w.nodes, ids = append(w.nodes, n), append(ids, n.id)
		}
	}
	w.task = task.New("life", dataset.Encoding{
		Target: "y", Classes: []string{"no", "yes"}, Positive: "yes",
		Features: []dataset.FeatureSpec{{Name: "x", Kind: dataset.Numeric}},
	}, ids)
	d.ScanArgs(t, "rounds", &w.task.Rounds)
	for _, n := range w.nodes {
		n.start(false)
		w.after(pulling, n.pull)
	}
	return w
}

func (w *world) command(t *testing.T, d *datadriven.TestData) string {
	var named []*node
	for _, arg := range d.CmdArgs {
		for _, n := range w.nodes {
			if arg.Key == n.name {
				named = append(named, n)
			}
		}
	}
	switch d.Cmd {
	case "task":
	case "watch":
		for _, n := range w.nodes {
			n.watched = slices.Contains(named, n)
		}
	case "enrol":
		for _, n := range named {
			n.take("the operator's yes", member.Enrol{Enrolment: task.Enrolment{
				Task: w.id, Nation: "XXX", Node: n.name, Manifest: record.CIDOf([]byte(n.name)),
				Moments: dataset.Moments{Count: n.rows, Mean: []float64{0}, M2: []float64{float64(n.rows)}},
			}})
		}
	case "leave":
		for _, n := range named {
			n.take("the operator's end to its part", member.Leave{})
		}
	case "crash":
		for _, n := range named {
			n.up = false
			n.Stop()
			n.say("is killed")
		}
	case "start", "listen":
		for _, n := range named {
			n.start(d.Cmd == "listen")
		}
	case "resume":
		for _, n := range named {
			n.say("may act")
			n.Resume(w.now)
		}
	case "lose":
		for _, n := range named {
			n.disk = slices.DeleteFunc(n.disk, func(l letter) bool { return l.Author == n.id && l.kind == record.KindUpdate })
		}
	case "disk":
		for _, n := range named {
			n.full = d.HasArg("full")
		}
	case "cut":
		for _, n := range named {
			w.apart[n.name] = true
		}
	case "heal":
		clear(w.apart)
	case "run":
		var seconds string
		d.ScanArgs(t, "for", &seconds)
		span, err := strconv.ParseFloat(seconds, 64)
		if err != nil {
			t.Fatal(err)
		}
		w.run(w.now + time.Duration(span*float64(time.Second)))
	case "show":
		for _, n := range w.nodes {
			fmt.Fprintf(&w.out, "%-9s %s", n.name, n.Stage())
			if n.Stage() == member.Training {
				fmt.Fprintf(&w.out, ", round %d", n.Round())
			}
			if cid, _ := n.Model(); cid.Defined() {
				fmt.Fprintf(&w.out, ", %s", w.names[cid])
			}
			if waits := w.called(n.WaitingFor()); waits != "" && n.up {
				fmt.Fprintf(&w.out, ", waits for %s", waits)
			}
			if !n.up {
				w.out.WriteString(", down")
			}
			w.out.WriteString("\n")
		}
	default:
		t.Fatalf("no command %q", d.Cmd)
	}
	defer w.out.Reset()
	return w.out.String()
}

func (w *world) run(until time.Duration) {
	for len(w.due) > 0 && w.due[0].at <= until {
		o := heap.Pop(&w.due).(occurrence)
		w.now = o.at
		o.what()
	}
	w.now = until
}

func (w *world) after(d time.Duration, what func()) {
	w.seq++
	heap.Push(&w.due, occurrence{w.now + d, w.seq, what})
}

func (w *world) called(ids []record.NodeID) string {
	var names []string
	for _, id := range ids {
		names = append(names, w.nodes[id[0]-1].name)
	}
	return strings.Join(names, ", ")
}

// say writes a line of a watched node.
func (n *node) say(format string, args ...any) {
	if n.watched {
		fmt.Fprintf(&n.world.out, "%7.2f %-9s %s\n", n.world.now.Seconds(), n.name, fmt.Sprintf(format, args...))
	}
}

// start makes the machine anew, with what is on the disk.
func (n *node) start(listen bool) {
	n.life++
	n.up = true
	n.Driver = drive.New(member.New(n.id, n.world.id, n.world.task), drive.Performer[letter](n))
	for _, l := range n.disk {
		n.Step(n.world.now, l.Received)
	}
	if n.life > 1 {
		n.say("starts with %d records from its disk", len(n.disk))
	}
	if !listen {
		n.Resume(n.world.now)
	}
}

// take gives the node an event, unless it is down.
func (n *node) take(what string, e member.Event) {
	if n.up {
		n.say("takes in %s", what)
		n.Step(n.world.now, e)
	}
}

// later gives this life of the node an event after a while.
func (n *node) later(d time.Duration, what string, e member.Event) {
	life := n.life
	n.world.after(d, func() {
		if life == n.life {
			n.take(what, e)
		}
	})
}

// mail carries a letter to another node that can be reached.
func (n *node) mail(to *node, l letter) {
	w := n.world
	if !to.up || w.apart[n.name] != w.apart[to.name] {
		return
	}
	w.after(latency, func() {
		if to.up && to.keep(l) {
			to.take(w.describe(l), l.Received)
		}
	})
}

// keep puts a letter on the disk as a store does, and tells whether it is news: of
// each author's updates the two newest are kept.
func (n *node) keep(l letter) bool {
	if l.kind == record.KindBeacon {
		return true
	}
	if n.holds(l) {
		return false
	}
	n.disk = slices.DeleteFunc(append(n.disk, l), func(h letter) bool { return n.isOld(h) })
	return true
}

// holds says whether the disk has a letter, or newer ones in its place.
func (n *node) holds(l letter) bool {
	return n.isOld(l) || slices.ContainsFunc(n.disk, func(h letter) bool { return h.CID == l.CID })
}

// isOld says whether the disk has two newer updates.
func (n *node) isOld(l letter) bool {
	newer := 0
	for _, h := range n.disk {
		if l.kind == record.KindUpdate && h.kind == l.kind && h.Author == l.Author && h.Number > l.Number {
			newer++
		}
	}
	return newer >= 2
}

// pull has the others send what the node lacks.
func (n *node) pull() {
	n.world.after(pulling, n.pull)
	if !n.up {
		return
	}
	for _, other := range n.world.nodes {
		for _, l := range other.disk {
			if other != n && other.up && !n.holds(l) {
				other.mail(n, l)
			}
		}
	}
}

// describe names a record for people.
func (w *world) describe(l letter) string {
	author := w.nodes[l.Author[0]-1].name
	of := " of " + author
	topic := func(t task.Topic) string {
		if t == task.TopicFinal {
			return "final set"
		}
		return string(t)
	}
	switch body := l.Body.(type) {
	case task.Enrolment:
		return fmt.Sprintf("the enrolment%s (%d rows)", of, body.Moments.Count)
	case task.Update:
		return fmt.Sprintf("update %d%s", l.Number, of)
	case task.Evaluation:
		return "the evaluation" + of
	case task.Leave:
		return "the leave" + of
	case task.Beacon:
		return fmt.Sprintf("a beacon of round %d%s", body.Round, of)
	case member.Certificate:
		return fmt.Sprintf("%s's certificate of the %s", author, topic(body.Topic))
	case member.Ballot:
		return fmt.Sprintf("%s's %s %d on the %s", author, phases[body.Vote.Phase], body.Vote.Ballot, topic(body.Topic))
	}
	return "something" + of
}

var phases = map[agree.Phase]string{agree.Proposal: "proposal", agree.Prevote: "prevote", agree.Precommit: "precommit"}

// The methods of a drive.Performer.

func (n *node) Sign(effect member.Effect) (letter, bool) {
	l := letter{Received: member.Received{Author: n.id}}
	switch e := effect.(type) {
	case member.Publish:
		l.kind, l.Number, l.Body = e.Kind, e.Number, e.Body
	case member.Cast:
		l.kind, l.Number = record.KindPrevote, e.Vote.Ballot
		e.Vote.Author, e.Vote.CID = n.id, record.CIDOf(fmt.Append(nil, n.id, e.Topic, e.Vote.Phase, e.Vote.Ballot))
		l.Body = member.Ballot(e)
	case member.Certify:
		l.kind, l.Body = record.KindSeal, member.Certificate{Topic: e.Topic, Content: e.Content}
	}
	l.CID = record.CIDOf([]byte(n.world.describe(l)))
	if b, ok := l.Body.(member.Ballot); ok {
		l.CID = b.Vote.CID
	}
	return l, true
}

func (n *node) Store(l letter) drive.Outcome {
	if n.full {
		n.say("  cannot store %s", n.world.describe(l))
		return drive.Failed
	}
	n.keep(l)
	n.say("  signs and stores %s", n.world.describe(l))
	return drive.Stored
}

func (n *node) Received(l letter) member.Received { return l.Received }

func (n *node) Send(l letter) {
	n.say("takes in %s, and then sends it", n.world.describe(l))
	for _, other := range n.world.nodes {
		if other != n {
			n.mail(other, l)
		}
	}
}

func (n *node) Start(effect member.Effect) {
	w := n.world
	switch e := effect.(type) {
	case member.Train:
		n.say("  starts the local steps of round %d from %.3f", e.Round, e.From)
		params := []float64{float64(n.id[0]) + float64(e.Round)/8, e.From[1] / 2}
		n.later(working, fmt.Sprintf("the end of these steps: %.3f", params), member.Trained{Round: e.Round, Params: params})
		n.beacon(e.Round)
	case member.Make:
		name := fmt.Sprintf("the model of %d updates", len(e.Model.Parts))
		made := member.Made{Set: e.Set, Model: record.CIDOf(fmt.Append(nil, e.Model.Params)), Inputs: record.CIDOf(fmt.Append(nil, e.Model.Parts))}
		w.names[made.Model] = fmt.Sprintf("%s, %.3f", name, e.Model.Params)
		var updates []member.Received
		for _, p := range e.Model.Parts {
			for _, l := range n.disk {
				if l.CID == p.Update {
					updates = append(updates, l.Received)
				}
			}
		}
		w.models[made.Inputs] = updates
		n.say("  starts to store %s", w.names[made.Model])
		n.later(0, "that the model is stored", made)
	case member.Fetch:
		n.say("  starts to fetch the updates of the decided model")
		n.later(2*latency, "these updates", member.Fetched{Updates: w.models[e.Inputs]})
	case member.Evaluate:
		n.say("  starts to evaluate %s", w.names[e.CID])
		spec := learn.Spec{Kind: learn.Logistic, Inputs: 1, Classes: 2}
		counts := spec.Count(e.Model.Params, dataset.Samples{N: 2, D: 1, X: []float64{1, -1}, Y: []int{1, 0}})
		n.later(working, "the counts", member.Evaluated{Evaluation: task.Evaluation{
			Task: w.id, Model: e.CID, Local: counts, Federated: counts, Personal: counts,
		}})
		n.beacon(e.Model.Round)
	}
}

// beacon says to the others that the node is at work.
func (n *node) beacon(round uint64) {
	for _, other := range n.world.nodes {
		if other != n && !other.watched { // beacons say nothing to the reader
			n.mail(other, letter{member.Received{Author: n.id, Body: task.Beacon{Task: n.world.id, Round: round}}, record.KindBeacon})
		}
	}
}

func (n *node) Wake(at time.Duration) {
	if at != n.wake {
		n.say("  wants to be woken at %.2f", at.Seconds())
	}
	n.wake = at
	n.alarm++
	alarm, life := n.alarm, n.life
	n.world.after(max(at-n.world.now, 0), func() {
		if alarm == n.alarm && life == n.life {
			n.take("that it is time", member.Tick{})
		}
	})
}
