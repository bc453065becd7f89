package node

import (
	"context"
	"errors"
	"fmt"

	"village/node/p2p"
	"village/protocol/dataset"
	"village/protocol/member"
	"village/protocol/record"
	"village/protocol/task"
	"village/storage"
)

// maxByAuthor is how many manifests, and how many tasks, of one author a node
// holds, so that no member can fill the others' disks.
const maxByAuthor = 1000

// errUnknownTask is a record of a task that the node does not hold yet.
var errUnknownTask = errors.New("task is not known")

// receive is the way of a record that a peer sent: p2p has checked its size,
// form, federation, signature and membership; here it is decoded, checked, made
// durable and handed to the machine of its task. It rejects only what every
// honest node must reject; what depends on the own state is ignored.
func (n *Node) receive(_ context.Context, _ record.NodeID, r record.Record) p2p.Verdict {
	if n.store.Has(r.CID) || n.isStale(r) {
		return p2p.Ignore
	}
	content, err := n.decode(r)
	switch {
	case errors.Is(err, errUnknownTask):
		n.network.SyncSoon()
		return p2p.Ignore
	case errors.Is(err, errUnknownKind):
		return p2p.Ignore
	case err != nil:
		n.log.Warn("refused a record", "kind", r.Kind, "author", r.Author, "error", err)
		return p2p.Reject
	}
	if r.Kind == record.KindBeacon { // says something of this moment alone
		n.learn(r, content)
		return p2p.Accept
	}
	if n.tooMany(r) {
		n.fail(fmt.Errorf("%s has published more than %d records of kind %q; further ones are ignored", r.Author, maxByAuthor, r.Kind))
		return p2p.Ignore
	}
	outcome, err := n.store.PutRecord(r)
	if err != nil {
		n.fail(fmt.Errorf("cannot store a record: %w", err))
		return p2p.Ignore
	}
	switch outcome {
	case storage.Stored:
		n.learn(r, content)
		return p2p.Accept
	case storage.Equivocation:
		n.fail(fmt.Errorf("%s has signed two records for one place (%s %d of %s); both are kept as proof", r.Author, r.Kind, r.Number, r.Subject))
	}
	return p2p.Ignore
}

var errUnknownKind = errors.New("kind of record is not known")

// decode reads what a record says and checks it, against its task where it has
// one.
func (n *Node) decode(r record.Record) (any, error) {
	switch r.Kind {
	case record.KindManifest:
		return dataset.ManifestOf(r)
	case record.KindTask:
		return task.TaskOf(r)
	case record.KindEnrolment, record.KindUpdate, record.KindEvaluation, record.KindLeave, record.KindBeacon,
		record.KindProposal, record.KindPrevote, record.KindPrecommit, record.KindSeal:
	default:
		return nil, errUnknownKind // of a newer program
	}
	id, err := record.ParseCID(r.Group())
	if err != nil {
		return nil, err
	}
	n.mu.RLock()
	t, known := n.tasks[id]
	n.mu.RUnlock()
	if !known {
		return nil, errUnknownTask
	}
	switch r.Kind {
	case record.KindEnrolment:
		return task.EnrolmentOf(r, t)
	case record.KindUpdate:
		return task.UpdateOf(r, t)
	case record.KindEvaluation:
		return task.EvaluationOf(r, t)
	case record.KindLeave:
		return task.LeaveOf(r, t)
	case record.KindBeacon:
		return task.BeaconOf(r, t)
	case record.KindSeal:
		topic, seal, err := task.SealOf(r, id, t)
		return member.Certificate{Topic: topic, Content: seal.Content}, err
	default:
		topic, vote, err := task.VoteOf(r, id, t)
		return member.Ballot{Topic: topic, Vote: vote}, err
	}
}

// isStale tells of what no longer says anything: a beacon before the newest one,
// and an update of a task whose model is sealed, which would push out of the
// store the update that is in it.
func (n *Node) isStale(r record.Record) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch r.Kind {
	case record.KindBeacon:
		stale := r.Number <= n.beacons[r.Slot]
		if !stale {
			n.beacons[r.Slot] = r.Number
		}
		return stale
	case record.KindUpdate:
		return n.final[r.Group()]
	}
	return false
}

func (n *Node) tooMany(r record.Record) bool {
	if r.Kind != record.KindManifest && r.Kind != record.KindTask || len(n.store.Held(r.Slot)) > 0 {
		return false
	}
	return n.store.Slots(r.Kind, r.Author) >= maxByAuthor
}

// learn hands a record that is now durable to whoever it concerns.
func (n *Node) learn(r record.Record, content any) {
	switch c := content.(type) {
	case dataset.Manifest:
	case task.Task:
		n.mu.Lock()
		n.tasks[r.CID] = c
		n.mu.Unlock()
		n.post(func() {
			n.open(r, c)
			n.notify()
		})
		n.network.SyncSoon() // what others have said of it
	default:
		id, err := record.ParseCID(r.Group())
		if err != nil {
			return // not reached: decode has parsed it
		}
		n.post(func() {
			run := n.runs[id]
			if run == nil {
				return
			}
			if u, ok := content.(task.Update); ok && u.Params == nil {
				n.obtain(run, n.hold(run, r, u))
			} else {
				n.step(run, member.Received{CID: r.CID, Author: r.Author, Number: r.Number, Body: content})
			}
		})
	}
}
