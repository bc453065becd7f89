package demo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"village/node/api"
	"village/protocol/record"
)

// observer sees how a task goes, at all nodes together.
type observer struct {
	all []*hospital
	id  record.CID
	p   *progress

	seeing sync.Mutex // guards what follows
	began  time.Time  // the first round
	sealed []time.Time
	rounds []map[uint64]bool        // by node, those that it gave an update of
	round  uint64                   // the highest
	silent map[record.NodeID]uint64 // the round after which a node was said to be
}

func newObserver(all []*hospital, id record.CID, p *progress) *observer {
	o := &observer{all: all, id: id, p: p, sealed: make([]time.Time, len(all)), silent: map[record.NodeID]uint64{}}
	for range all {
		o.rounds = append(o.rounds, map[uint64]bool{})
	}
	return o
}

// errReached ends a watch.
var errReached = errors.New("the stage is reached")

// watch follows the task at a node until it is at a stage, one with a model.
func (o *observer) watch(ctx context.Context, i int, stage string) error {
	h := o.all[i]
	err := h.client.WatchTask(ctx, o.id, func(t api.ShownTask) error {
		o.see(i, t)
		if t.Error != "" {
			return fmt.Errorf("%s: %s", h.name, t.Error)
		}
		if t.ModelCID.Defined() && (t.Stage == stage || t.Stage == api.StageDone) {
			return errReached
		}
		return nil
	})
	if errors.Is(err, errReached) {
		return nil
	}
	return err
}

// see takes in what a node shows.
func (o *observer) see(i int, t api.ShownTask) {
	o.p.task(i, t)
	o.seeing.Lock()
	defer o.seeing.Unlock()
	if t.Joined && t.Stage == api.StageTraining && o.began.IsZero() {
		o.began = time.Now()
	}
	if t.ModelCID.Defined() && o.sealed[i].IsZero() {
		o.sealed[i] = time.Now()
	}
	for _, n := range t.Nodes {
		for k, h := range o.all {
			if h.home.ID == n.PeerID && n.Round > 0 {
				o.rounds[k][n.Round] = true
				o.round = max(o.round, n.Round)
			}
		}
		if n.Silent && o.silent[n.PeerID] != n.Round && t.Stage == api.StageTraining {
			o.silent[n.PeerID] = n.Round
			o.p.event(time.Since(o.began), fmt.Sprintf("%s goes on without %s, which is silent", o.all[i].name, n.Name))
		}
	}
}

// reached is the highest round of which there is an update.
func (o *observer) reached() uint64 {
	o.seeing.Lock()
	defer o.seeing.Unlock()
	return o.round
}

// over tells whether a node has the model.
func (o *observer) over() bool {
	o.seeing.Lock()
	defer o.seeing.Unlock()
	for _, at := range o.sealed {
		if !at.IsZero() {
			return true
		}
	}
	return false
}

// since is the time since the first round.
func (o *observer) since() time.Duration {
	o.seeing.Lock()
	defer o.seeing.Unlock()
	return time.Since(o.began)
}

// elapsed is the time from the first round until all nodes that were not lost
// had the model.
func (o *observer) elapsed() time.Duration {
	o.seeing.Lock()
	defer o.seeing.Unlock()
	var last time.Time
	for _, at := range o.sealed {
		if at.After(last) {
			last = at
		}
	}
	return last.Sub(o.began)
}
