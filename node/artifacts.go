package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"village/node/api"
	"village/protocol/record"
	"village/protocol/task"
	"village/storage"
)

const (
	// maxModel is the size in bytes of the largest artifact that is read, or
	// fetched, as a model: its parameters as float64, and what describes them.
	maxModel = 2*task.MaxVector + 64<<20

	// healMin and healMax are how long the daemon waits before it asks its peers
	// again for what its disk has lost.
	healMin, healMax = time.Second, time.Minute

	// fetched is what the names of the private facts begin with that tell which
	// models were brought here from peers.
	fetched = "fetched/"
)

// model reads a model, and its bytes; what of it is missing here, or damaged, is
// fetched from peers first.
func (n *Node) model(ctx context.Context, cid record.CID) (task.Model, []byte, error) {
	const next = "village model list"
	b, err := n.read(ctx, cid)
	lacking := errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrDamaged)
	if lacking && n.artifacts != nil { // which is not there yet while the daemon starts
		if lack := n.artifacts.Fetch(ctx, cid, maxModel); lack != nil {
			return task.Model{}, nil, api.Fail(api.CodeFailed, "village peer list", "model %s is not stored here in whole, and cannot be fetched: %v", cid, lack)
		}
		b, err = n.read(ctx, cid)
	}
	if err != nil {
		return task.Model{}, nil, api.Fail(api.CodeFailed, next, "%v", err)
	}
	m, err := task.UnmarshalModel(b)
	if err != nil {
		return task.Model{}, nil, api.Fail(api.CodeFailed, next, "%s is not a model: %v", cid, err)
	}
	if lacking {
		n.remember(cid)
	}
	return m, b, nil
}

// read reads an artifact of the size of a model from the store.
func (n *Node) read(ctx context.Context, cid record.CID) ([]byte, error) {
	artifact, size, err := n.store.Artifact(ctx, cid)
	if err != nil {
		return nil, err
	}
	defer artifact.Close()
	if size > maxModel {
		return nil, fmt.Errorf("%s is too large for a model", cid)
	}
	return io.ReadAll(artifact)
}

// remember keeps in mind that an artifact was fetched, so that it is looked
// after like those that were made here.
func (n *Node) remember(cid record.CID) {
	if err := n.store.PutPrivate(fetched+cid.String(), nil); err != nil {
		n.log.Warn("a fetched model will not be looked after", "model", cid, "error", err)
	}
}

// heal brings back from peers, for as long as the daemon runs, what the disk has
// lost of artifacts: those that must be here are checked once, damage that shows
// later is seen to when it does. Records come back by themselves, as those that
// the node lacks do; rows are nowhere else.
func (n *Node) heal() {
	defer n.waiting.Done()
	unsure, err := n.known()
	if err != nil {
		n.fail(fmt.Errorf("cannot tell which artifacts must be here: %w", err))
	}
	for delay := healMin; ; {
		var lost []record.CID
		for _, cid := range unsure {
			if n.artifacts.Fetch(n.quit, cid, maxModel) != nil {
				lost = append(lost, cid)
			}
		}
		unsure = lost
		n.lost.Store(&lost)
		waiting := len(lost) > 0
		for _, name := range n.store.Damaged() {
			if text, ok := strings.CutPrefix(name, "block "); ok {
				block, err := record.ParseCID(text)
				waiting = err != nil || n.artifacts.Fetch(n.quit, block, maxModel) != nil || waiting
			}
		}
		if !waiting {
			delay = healMax
		}
		select {
		case <-time.After(delay):
			delay = min(2*delay, healMax)
		case <-n.quit.Done():
			return
		}
	}
}

// known returns the artifacts that must be here: the models of the tasks, and
// those that were fetched.
func (n *Node) known() (cids []record.CID, err error) {
	err = n.ask(n.quit, func() {
		for _, run := range n.runs {
			if model, _ := run.member.Model(); model.Defined() {
				cids = append(cids, model)
			}
		}
	})
	names, keysErr := n.store.PrivateKeys(fetched)
	for _, name := range names {
		if cid, err := record.ParseCID(strings.TrimPrefix(name, fetched)); err == nil {
			cids = append(cids, cid)
		}
	}
	return cids, errors.Join(err, keysErr)
}

// missing names what the disk has lost and nobody has brought back yet.
func (n *Node) missing() []string {
	names := []string{}
	if lost := n.lost.Load(); lost != nil {
		for _, cid := range *lost {
			names = append(names, "artifact "+cid.String())
		}
	}
	return append(names, n.store.Damaged()...)
}
