package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"village/node/exchange"
	"village/protocol/member"
	"village/protocol/record"
	"village/protocol/task"
	"village/storage"
)

// vector is one that an update announces, because it is too large to ride
// inside.
type vector struct {
	record       record.Record
	update       task.Update
	announcement exchange.Announcement
	ctx          context.Context // ends when a newer one has taken its place
	drop         context.CancelFunc
}

// chunks keeps the chunks of vectors in the store, as raw blocks.
type chunks struct{ store *storage.Store }

func chunkCID(hash [32]byte) cid.Cid {
	mh, err := multihash.Encode(hash[:], multihash.SHA2_256)
	if err != nil {
		panic(err) // a digest of 32 bytes is always encodable
	}
	return cid.NewCidV1(cid.Raw, mh)
}

func (c chunks) PutChunk(hash [32]byte, b []byte) error {
	block, err := blocks.NewBlockWithCid(b, chunkCID(hash))
	if err != nil {
		return err
	}
	return c.store.Blockstore().Put(context.Background(), block)
}

func (c chunks) Chunk(hash [32]byte) ([]byte, error) {
	block, err := c.store.Blockstore().Get(context.Background(), chunkCID(hash))
	if err != nil {
		return nil, err
	}
	return block.RawData(), nil
}

func (c chunks) HasChunk(hash [32]byte) bool {
	has, err := c.store.Blockstore().Has(context.Background(), chunkCID(hash))
	return err == nil && has
}

// whole reads a vector of which every chunk is here.
func (c chunks) whole(a exchange.Announcement) ([]byte, error) {
	var b []byte
	for _, hash := range a.Chunks {
		chunk, err := c.Chunk(hash)
		if err != nil {
			return nil, err
		}
		b = append(b, chunk...)
	}
	return b, nil
}

func announced(u task.Update) exchange.Announcement {
	a := exchange.Announcement{Size: u.Size}
	for hash := range slices.Chunk(u.Chunks, 32) {
		a.Chunks = append(a.Chunks, [32]byte(hash))
	}
	return a
}

// provide encodes the vector of an own update; one that does not ride inside is
// durable, and served, before the update is signed.
func (n *Node) provide(run *run, body any) (any, error) {
	u, ok := body.(task.Update)
	if !ok {
		return body, nil
	}
	u, b, err := task.NewUpdate(u, run.task)
	if err == nil && u.Size > 0 {
		_, err = n.exchange.Provide(b)
	}
	return u, err
}

// hold notes a vector that an update announces. Of each author the two newest
// are kept, like the updates; the chunks of older ones are deleted.
func (n *Node) hold(run *run, r record.Record, u task.Update) *vector {
	if u.Size == 0 {
		return nil
	}
	v := vector{record: r, update: u, announcement: announced(u)}
	v.ctx, v.drop = context.WithCancel(n.quit)
	if run.vectors == nil {
		run.vectors = map[record.NodeID][]vector{}
	}
	held := append(run.vectors[r.Author], v)
	slices.SortStableFunc(held, func(a, b vector) int { return int(b.record.Number) - int(a.record.Number) })
	for len(held) > record.KindUpdate.Keep() {
		last := held[len(held)-1]
		held = held[:len(held)-1]
		last.drop()
		n.forget(last, held)
	}
	run.vectors[r.Author] = held
	return &v
}

// forget deletes the chunks of a vector that no other one has.
func (n *Node) forget(v vector, others []vector) {
	if n.exchange != nil {
		n.exchange.Forget(v.announcement.ID())
	}
	for _, hash := range v.announcement.Chunks {
		if slices.ContainsFunc(others, func(o vector) bool { return slices.Contains(o.announcement.Chunks, hash) }) {
			continue
		}
		if err := n.store.Blockstore().DeleteBlock(n.quit, chunkCID(hash)); err != nil {
			n.log.Warn("cannot delete a chunk of an old vector", "error", err)
		}
	}
}

// obtain fetches a vector from whichever peers hold its chunks, and hands the
// update to its machine.
func (n *Node) obtain(run *run, v *vector) {
	n.waiting.Add(1)
	go func() {
		defer n.waiting.Done()
		for v.ctx.Err() == nil {
			b, err := n.exchange.Fetch(v.ctx, v.announcement)
			if err == nil {
				n.arrived(run, v, b)
				return
			}
			n.log.Info("a vector is not here yet", "task", run.task.Name, "author", v.record.Author, "round", v.record.Number, "error", err)
			select {
			case <-time.After(time.Second):
			case <-v.ctx.Done():
			}
		}
	}()
}

func (n *Node) arrived(run *run, v *vector, b []byte) {
	u, err := v.update.Fill(b, run.task)
	n.post(func() {
		if err != nil {
			n.fail(fmt.Errorf("task %q: the update of %s for round %d is of no use: %w", run.task.Name, v.record.Author, v.record.Number, err))
			return
		}
		n.step(run, member.Received{CID: v.record.CID, Author: v.record.Author, Number: v.record.Number, Body: u})
	})
}

// restoreVector brings an update's parameters back from the store, and false
// where they are not here: then they are fetched once there are peers.
func (n *Node) restoreVector(run *run, r record.Record, u task.Update) (any, bool) {
	if u.Params != nil {
		return u, true
	}
	v := n.hold(run, r, u)
	b, err := chunks{n.store}.whole(v.announcement)
	if err == nil {
		if u, err = u.Fill(b, run.task); err == nil {
			return u, true
		}
	}
	run.lacking = append(run.lacking, v)
	return u, false
}

// vectorOf reads the vector that an update of a final set announces, nil where
// it rides inside.
func (n *Node) vectorOf(run *run, update record.CID) ([]byte, error) {
	for _, held := range run.vectors {
		for _, v := range held {
			if v.record.CID == update {
				return chunks{n.store}.whole(v.announcement)
			}
		}
	}
	r, err := n.store.Record(update)
	if err != nil {
		return nil, err
	}
	if u, err := task.UpdateOf(r, run.task); err != nil || u.Size == 0 {
		return nil, err
	}
	return nil, errors.Join(storage.ErrNotFound, errors.New("its vector is not here"))
}
