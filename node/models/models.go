// Package models reads sealed models and the records that prove how they were
// made. What of them is not in the store, or is damaged there, it brings back from
// peers.
package models

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"village/node/api"
	"village/node/artifacts"
	"village/node/evidence"
	"village/node/log"
	"village/protocol/dataset"
	"village/protocol/record"
	"village/protocol/task"
	"village/storage"
)

const (
	// maxInputs is the size in bytes of the largest inputs of a model whose task is
	// not known here: an enrolment and an update of each of a task's nodes.
	maxInputs = task.MaxNodes * 2 * record.MaxBytes
	// inner is what the inner blocks of an artifact of that size take at most.
	inner = 64 << 10

	// healMin and healMax are how long the daemon waits before it asks its peers
	// again for what its disk has lost.
	healMin, healMax = time.Second, time.Minute

	// fetched is what the names of the private facts begin with that tell which
	// models were brought here from peers.
	fetched = "fetched/"
)

// ErrUseless is of inputs that no honest node has sealed. To fetch them again would
// change nothing.
var ErrUseless = errors.New("its inputs are not those of a model of the task")

// Models are the sealed models that a node can read.
type Models struct {
	store *storage.Store
	peers *artifacts.Service
	log   *log.Log
	lost  atomic.Pointer[[]record.CID] // artifacts that no peer could give back
}

// New returns the models in a store, and those that peers have.
func New(s *storage.Store, peers *artifacts.Service, l *log.Log) *Models {
	return &Models{store: s, peers: peers, log: l}
}

// lacks says whether an error is of something that peers may bring back.
func lacks(err error) bool {
	return errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrDamaged)
}

// Get reads a model, and its bytes; what of it is missing here, or damaged, is
// fetched from peers first.
func (m *Models) Get(ctx context.Context, cid record.CID) (task.Model, []byte, error) {
	const next = "village model list"
	b, err := m.read(ctx, cid, evidence.MaxModel)
	lacking := lacks(err)
	if lacking {
		if lack := m.peers.Fetch(ctx, cid, evidence.MaxModel); lack != nil {
			return task.Model{}, nil, api.Fail(api.CodeFailed, "village peer list", "model %s is not stored here in whole, and cannot be fetched: %v", cid, lack)
		}
		b, err = m.read(ctx, cid, evidence.MaxModel)
	}
	if err != nil {
		return task.Model{}, nil, api.Fail(api.CodeFailed, next, "%v", err)
	}
	model, err := task.UnmarshalModel(b)
	if err != nil {
		return task.Model{}, nil, api.Fail(api.CodeFailed, next, "%s is not a model: %v", cid, err)
	}
	if lacking {
		m.remember(cid)
	}
	return model, b, nil
}

// Stored reads a model from the store alone.
func (m *Models) Stored(ctx context.Context, cid record.CID) (task.Model, error) {
	b, err := m.read(ctx, cid, evidence.MaxModel)
	if err != nil {
		return task.Model{}, err
	}
	return task.UnmarshalModel(b)
}

var errTooLarge = errors.New("too many for what it is said to be")

// read reads an artifact of at most so many bytes from the store.
func (m *Models) read(ctx context.Context, cid record.CID, limit int64) ([]byte, error) {
	artifact, size, err := m.store.Artifact(ctx, cid)
	if err != nil {
		return nil, err
	}
	defer artifact.Close()
	if size > limit {
		return nil, fmt.Errorf("%s has %d bytes: %w", cid, size, errTooLarge)
	}
	return io.ReadAll(artifact)
}

// remember keeps in mind that an artifact was fetched, so that it is looked
// after like those that were made here.
func (m *Models) remember(cid record.CID) {
	if err := m.store.PutPrivate(fetched+cid.String(), nil); err != nil {
		m.log.Warn("a fetched model will not be looked after", "model", cid, "error", err)
	}
}

// Add stores a model or its inputs, and returns its CID and size.
func (m *Models) Add(ctx context.Context, b []byte) (record.CID, int64, error) {
	return m.store.AddArtifact(ctx, bytes.NewReader(b))
}

// Has says whether an artifact is in the store.
func (m *Models) Has(ctx context.Context, cid record.CID) bool {
	artifact, _, err := m.store.Artifact(ctx, cid)
	return err == nil && artifact.Close() == nil
}

// Lineage is the models that a model goes on from, newest first, as far as they
// are in the store.
func (m *Models) Lineage(ctx context.Context, model task.Model) []record.CID {
	const most = 100
	var list []record.CID
	for model.Parent != nil && len(list) < most {
		list = append(list, *model.Parent)
		var err error
		if model, err = m.Stored(ctx, *model.Parent); err != nil {
			break
		}
	}
	return list
}

// CheckParent refuses a model that a task cannot go on from.
func CheckParent(t task.Task, parent task.Model) error {
	of := func(e dataset.Encoding, s dataset.Scaling) []byte {
		b, _ := record.Encode([]any{e, s}) // was encoded before
		return b
	}
	if !parent.Spec.Equal(t.SpecOf(0)) || !bytes.Equal(of(parent.Encoding, parent.Scaling), of(t.Encoding, t.Parent.Scaling)) {
		return fmt.Errorf("the task goes on from model %s, but has another encoding, scaling or shape", t.Parent.Model)
	}
	return nil
}

// Inputs brings the inputs of a model here, for as long as it takes peers to give
// them, and reads them. Limit is the size in bytes of the largest that the model's
// task can have.
func (m *Models) Inputs(ctx context.Context, cid record.CID, limit int64) (task.Inputs, error) {
	var in task.Inputs
	b, err := m.read(ctx, cid, limit)
	if lacks(err) {
		if err = m.peers.Fetch(ctx, cid, limit+inner); err == nil {
			b, err = m.read(ctx, cid, limit)
		}
	}
	if errors.Is(err, artifacts.ErrRefused) || errors.Is(err, errTooLarge) {
		return in, fmt.Errorf("%w: %w", ErrUseless, err)
	}
	if err == nil {
		if err = record.Decode(b, &in); err != nil {
			err = fmt.Errorf("%w: %w", ErrUseless, err)
		}
	}
	return in, err
}

// Evidence gathers, from the store and else from peers, what a model is checked
// from, and checks it.
func (m *Models) Evidence(ctx context.Context, cid record.CID) (api.Evidence, api.Verified, error) {
	e := api.Evidence{Schema: "village.model.evidence/v1"}
	bad := func(next, format string, args ...any) (api.Evidence, api.Verified, error) {
		return api.Evidence{}, api.Verified{}, api.Fail(api.CodeFailed, next, format, args...)
	}
	model, b, err := m.Get(ctx, cid)
	if err != nil {
		return api.Evidence{}, api.Verified{}, err
	}
	e.Model = b
	content, seal := m.certificate(model.Task)
	if seal == nil {
		return bad("village peer list", "no certificate of task %s, which %s is said to be the model of, is here; nodes that took part in the task have it", model.Task, cid)
	}
	e.Seal = seal
	if content.Model != cid {
		return bad("village model verify "+content.Model.String(), "%s is not the model that the nodes of its task have signed; that is %s", cid, content.Model)
	}
	limit := int64(maxInputs)
	if r, err := m.store.Record(model.Task); err == nil {
		if t, err := task.TaskOf(r); err == nil {
			limit = t.MaxInputs()
		}
	}
	in, err := m.Inputs(ctx, content.Inputs, limit)
	if err != nil && !m.Has(ctx, content.Inputs) {
		return bad("village peer list", "the records that model %s is recomputed from are not stored here in whole, and cannot be fetched: %v", cid, err)
	}
	if err == nil {
		e.Inputs, err = record.Encode(in)
	}
	var v api.Verified
	if err == nil {
		v, err = evidence.Verify(e)
	}
	if err != nil {
		return bad("at another node: village model verify "+cid.String(), "model %s does not hold: %v", cid, err)
	}
	return e, v, nil
}

// certificate returns, of the seals of a task's final set in the store, the one
// that most nodes have signed, with what it says; nil where there is none.
func (m *Models) certificate(id record.CID) (content task.FinalContent, seal []byte) {
	most := 0
	for _, r := range m.store.Records(record.KindSeal) {
		var s task.Seal
		var c task.FinalContent
		if r.Subject != task.TopicFinal.Subject(id) || record.Decode(r.Payload, &s) != nil || record.Decode(s.Content, &c) != nil {
			continue
		}
		if len(s.Precommits) > most {
			most, content, seal = len(s.Precommits), c, r.Bytes
		}
	}
	return content, seal
}

// Heal brings back from peers, until ctx ends, what the disk has lost of
// artifacts: the models of the tasks and those that were fetched are checked once,
// damage that shows later is seen to when it does. Records come back by themselves,
// as those that the node lacks do; rows are nowhere else.
func (m *Models) Heal(ctx context.Context, ofTasks []record.CID) {
	unsure := ofTasks
	names, err := m.store.PrivateKeys(fetched)
	if err != nil {
		m.log.Fail(fmt.Errorf("cannot tell which artifacts must be here: %w", err))
	}
	for _, name := range names {
		if cid, err := record.ParseCID(strings.TrimPrefix(name, fetched)); err == nil {
			unsure = append(unsure, cid)
		}
	}
	for delay := healMin; ; {
		var lost []record.CID
		for _, cid := range unsure {
			if m.peers.Fetch(ctx, cid, evidence.MaxModel) != nil {
				lost = append(lost, cid)
			}
		}
		unsure = lost
		m.lost.Store(&lost)
		waiting := len(lost) > 0
		for _, name := range m.store.Damaged() {
			if kind, text, _ := strings.Cut(name, " "); kind == "block" || kind == "artifact" {
				cid, err := record.ParseCID(text)
				waiting = err != nil || m.peers.Fetch(ctx, cid, evidence.MaxModel) != nil || waiting
			}
		}
		if !waiting {
			delay = healMax
		}
		select {
		case <-time.After(delay):
			delay = min(2*delay, healMax)
		case <-ctx.Done():
			return
		}
	}
}

// Lost names what the disk has lost and nobody has brought back yet.
func (m *Models) Lost() []string {
	names := []string{}
	if lost := m.lost.Load(); lost != nil {
		for _, cid := range *lost {
			names = append(names, "artifact "+cid.String())
		}
	}
	return append(names, m.store.Damaged()...)
}
