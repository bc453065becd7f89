package sim

import (
	"encoding/binary"
	"math"
	"slices"
	"time"

	"village/protocol/agree"
	"village/protocol/member"
	"village/protocol/record"
	"village/protocol/task"
)

// leastDelay is what a message takes at least, whatever the configuration says.
const leastDelay = time.Millisecond

// What an uplink lets wait, at least: so long, and so many bytes. The rest is lost.
const (
	uplinkQueue = 250 * time.Millisecond
	uplinkRoom  = 64 << 10
)

// parcel is a record as all who get it share it.
type parcel struct {
	author int32 // place
	slot   slot
	keep   int // how many of its slot a node keeps; 0 = none, as of beacons
	number uint64
	cid    record.CID
	size   int           // on the wire
	event  member.Event  // the member.Received, for the machines that take it
	also   member.Event  // that they take then
	update member.Update // where it is one
	bad    bool          // fails the check of those who receive it
}

// slot is a record.Slot of the one task, by the place of its author.
type slot uint32

func slotOf(author int32, kind record.Kind) slot {
	return slot(author)<<4 | slot(slices.Index(kinds[:], kind))<<1
}

// kind is the kind of a parcel that is kept.
func (p *parcel) kind() record.Kind { return kinds[p.slot>>1&7] }

// about is the slot of a decision's records.
func (s slot) about(topic task.Topic, t task.Task) slot {
	if rung, ok := topic.Rung(t); ok {
		return s | slot(rung+1)<<24 // above all authors
	}
	if topic == task.TopicFinal {
		s |= 1
	}
	return s
}

var kinds = [8]record.Kind{
	record.KindEnrolment, record.KindUpdate, record.KindEvaluation, record.KindLeave,
	record.KindSeal, record.KindProposal, record.KindPrevote, record.KindPrecommit,
}

// Sizes on the wire, in bytes, of what a daemon sends. They are near: an
// envelope has a signature, a key, the task's name and a frame of gossip.
const (
	envelope = 250
	float    = 8
	link     = 36 // a CID
)

func updateSize(params int) int { return envelope + 2*link + float*params }

// parcel makes what a node sends of a record's body. Precommits are how many a
// certificate holds.
func (n *node) parcel(num uint64, body any, precommits int) *parcel {
	p := &parcel{author: n.place, number: num, size: envelope}
	var kind record.Kind
	var topic task.Topic
	switch b := body.(type) {
	case task.Enrolment:
		kind = record.KindEnrolment
		p.size += 3*link + 2*float*len(b.Moments.Mean)
	case task.Update:
		kind = record.KindUpdate
		p.size = updateSize(len(b.Params))
	case task.Evaluation:
		kind = record.KindEvaluation
		p.size += 2 * link
		for _, c := range []*[]byte{&b.Local.Positives, &b.Local.Negatives, &b.Federated.Positives, &b.Federated.Negatives} {
			p.size += len(*c)
		}
		p.size += 2 * 2 * len(b.Local.Confusion)
	case task.Leave:
		kind = record.KindLeave
	case member.Certificate:
		kind, topic = record.KindSeal, b.Topic
		p.size += len(b.Content) + precommits*envelope
	case member.Ballot:
		kind, topic = voteKinds[b.Vote.Phase], b.Topic
		p.size += link + len(b.Vote.Content) + len(b.Vote.Proof)*envelope
	case task.Beacon:
		p.event = member.Received{Author: n.id, Number: uint64(n.now), Body: body}
		return p
	}
	p.slot, p.keep = slotOf(n.place, kind).about(topic, n.world.cfg.Task), kind.Keep()
	p.cid = nameOf(p.slot, num, body)
	if b, ok := body.(member.Ballot); ok {
		b.Vote.CID, b.Vote.Author = p.cid, n.id
		body = b
	}
	if u, ok := body.(task.Update); ok {
		p.update = member.Update{CID: p.cid, Round: num, Previous: u.Previous, Weight: u.Weight, Settled: u.Settled, Params: u.Params}
	}
	p.event = member.Received{CID: p.cid, Author: n.id, Number: num, Body: body}
	return p
}

var voteKinds = map[agree.Phase]record.Kind{
	agree.Proposal: record.KindProposal, agree.Prevote: record.KindPrevote, agree.Precommit: record.KindPrecommit,
}

// nameOf gives a record a CID that stands for all that tells it from another.
func nameOf(s slot, number uint64, body any) record.CID {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 64), uint32(s))
	b = binary.BigEndian.AppendUint64(b, number)
	switch body := body.(type) {
	case task.Update:
		b = slices.Grow(b, 8*len(body.Params))
		for _, x := range body.Params {
			b = binary.BigEndian.AppendUint64(b, math.Float64bits(x))
		}
	case member.Ballot:
		b = append(append(b, body.Vote.Value.Bytes()...), byte(body.Vote.Valid))
	case member.Certificate:
		b = append(b, body.Content...)
	}
	return record.CIDOf(b)
}

// happen is the arrival of a record.
func (p *parcel) happen(n *node) error {
	switch {
	case !n.up:
		return nil
	case p.bad:
		n.refused++
		return nil
	case p.keep > 0:
		var news bool
		if p, news = n.machine.keep(n, p); !news {
			return nil
		}
	}
	return n.machine.take(n, p)
}

// transmit puts a message on the virtual wire.
func (n *node) transmit(to int32, size int, what action) {
	w := n.world
	f := &w.cfg.Faults
	copies := 1
	if f.Duplicate > 0 && n.rng.Float64() < f.Duplicate {
		copies = 2
	}
	for range copies {
		n.messages++
		n.bytes += uint64(size)
		sent := n.now
		if w.cfg.Bandwidth > 0 {
			// The uplink sends one message after another, and has room for so much.
			if behind := n.uplink - n.now; behind > uplinkQueue && behind.Seconds()*w.cfg.Bandwidth > uplinkRoom {
				continue
			}
			n.uplink = max(n.uplink, n.now) + time.Duration(float64(size)/w.cfg.Bandwidth*float64(time.Second))
			sent = n.uplink
		}
		lost := f.Loss > 0 && n.rng.Float64() < f.Loss || f.Apart != nil && f.Apart(n.now, int(n.place), int(to))
		delay := w.cfg.Delay.Min
		if span := w.cfg.Delay.Max - delay; span > 0 {
			delay += n.jitter(span)
		}
		if between := w.cfg.Delay.Between; between != nil {
			delay += max(between(int(n.place), int(to)), 0)
		}
		if !lost {
			n.seq++
			n.shard.send(event{at: sent + max(delay, leastDelay), seq: n.seq, what: what, from: n.place, node: to})
		}
	}
}

// spread sends a record to those whom it concerns: an update that is mixed with
// by neighbours alone to the neighbours of its round, everything else to all. By the
// updates of the last round of a rung, and of the task, everyone decides.
func (n *node) spread(p *parcel) {
	w := n.world
	if w.graph.Complete() || w.agrees && (p.update.Params == nil || w.cfg.Task.Decides(p.number)) {
		lie := n.lie(p)
		for j := range int32(len(w.nodes)) {
			switch {
			case j == n.place:
			case lie != nil && j%2 == 0:
				n.transmit(j, lie.size, lie)
			default:
				n.transmit(j, p.size, p)
			}
		}
		return
	}
	for _, e := range n.neighbours(p.number) {
		n.transmit(int32(e.Node), p.size, p)
	}
}

// pull asks one other node, now and then, for the records that this one lacks.
type pull struct{}

func (pull) happen(n *node) error {
	period := n.world.cfg.Pull
	n.after(period/2+n.jitter(period), 0, pull{})
	if !n.up {
		return nil
	}
	if to, held := n.machine.ask(n); to >= 0 {
		n.transmit(to, envelope+link*len(held), &request{n.place, held})
	}
	return nil
}

// request is for everything but what the asker holds.
type request struct {
	from int32
	held []*parcel
}

func (r *request) happen(n *node) error {
	if !n.up {
		return nil
	}
	for _, p := range n.machine.offers(n, r.held) {
		n.transmit(r.from, p.size, p)
	}
	return nil
}

// fetch looks for the inputs of a model until it has them.
type fetch struct{ inputs record.CID }

func (f *fetch) happen(n *node) error {
	if updates := n.inputs[f.inputs]; updates != nil {
		return n.machine.step(n, member.Fetched{Updates: updates})
	}
	if to := n.other(); to >= 0 {
		n.transmit(to, envelope, &wish{n.place, f.inputs})
	}
	n.after(4*n.world.cfg.Delay.Max, n.life, f)
	return nil
}

// wish is for the inputs of a model.
type wish struct {
	from   int32
	inputs record.CID
}

func (r *wish) happen(n *node) error {
	updates := n.inputs[r.inputs]
	if !n.up || updates == nil {
		return nil
	}
	size := envelope * (1 + len(n.world.nodes)) // the task and the enrolments
	for _, u := range updates {
		size += envelope + float*len(u.Body.(task.Update).Params)
	}
	n.transmit(r.from, size, &artifact{r.inputs, updates})
	return nil
}

// artifact is the answer to a wish.
type artifact struct {
	inputs  record.CID
	updates []member.Received
}

func (a *artifact) happen(n *node) error {
	if !n.up || n.inputs[a.inputs] != nil {
		return nil
	}
	n.inputs[a.inputs] = a.updates
	return n.machine.step(n, member.Fetched{Updates: a.updates})
}
