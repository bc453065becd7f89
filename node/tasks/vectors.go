package tasks

import (
	"context"
	"fmt"
	"slices"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"village/node/exchange"
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

// Chunks is where an exchange keeps the chunks of vectors.
func Chunks(s *storage.Store) exchange.ChunkStore { return chunks{s} }

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

func announcementOf(u task.Update) exchange.Announcement {
	a := exchange.Announcement{Size: u.Size}
	for hash := range slices.Chunk(u.Chunks, 32) {
		a.Chunks = append(a.Chunks, [32]byte(hash))
	}
	return a
}

// signUpdate signs an own update with its parameters. A vector that does not ride
// inside is durable, and served, before the update is signed.
func (r *run) signUpdate(round uint64, u task.Update) (own, bool) {
	u, b, err := task.NewUpdate(u, r.task)
	if err == nil && u.Size > 0 {
		_, err = r.tasks.Exchange.Provide(b)
	}
	if err != nil {
		r.halt(err)
		return own{}, false
	}
	o, ok := r.sign(record.KindUpdate, r.id.String(), round, u)
	o.body = u // with its parameters, which the record may only announce
	return o, ok
}

// announced notes a vector that an update announces, and returns it, or nil where
// there is none or it is known. Of each author the two newest are kept, like the
// updates; the chunks of older ones are deleted.
func (r *run) announced(rec record.Record, u task.Update) *vector {
	if u.Size == 0 || slices.ContainsFunc(r.vectors[rec.Author], func(v *vector) bool { return v.record.CID == rec.CID }) {
		return nil
	}
	v := &vector{record: rec, update: u, announcement: announcementOf(u)}
	v.ctx, v.drop = context.WithCancel(r.tasks.quit)
	list := append(r.vectors[rec.Author], v)
	slices.SortStableFunc(list, func(a, b *vector) int { return int(b.record.Number) - int(a.record.Number) })
	for len(list) > record.KindUpdate.Keep() {
		last := list[len(list)-1]
		list = list[:len(list)-1]
		last.drop()
		r.forget(last, list)
	}
	r.vectors[rec.Author] = list
	return v
}

// forget deletes the chunks of a vector that no other one has.
func (r *run) forget(v *vector, others []*vector) {
	t := r.tasks
	t.Exchange.Forget(v.announcement.ID())
	for _, hash := range v.announcement.Chunks {
		if slices.ContainsFunc(others, func(o *vector) bool { return slices.Contains(o.announcement.Chunks, hash) }) {
			continue
		}
		if err := t.Store.Blockstore().DeleteBlock(t.quit, chunkCID(hash)); err != nil {
			t.Log.Warn("cannot delete a chunk of an old vector", "error", err)
		}
	}
}

// obtain fetches a vector from whichever peers hold its chunks, and gives the
// update to the machine.
func (r *run) obtain(v *vector) {
	t := r.tasks
	t.spawn(func() {
		for v.ctx.Err() == nil {
			b, err := t.Exchange.Fetch(v.ctx, v.announcement)
			if err == nil {
				r.arrived(v, b)
				return
			}
			t.Log.Info("a vector is not here yet", "task", r.task.Name, "author", v.record.Author, "round", v.record.Number, "error", err)
			select {
			case <-time.After(time.Second):
			case <-v.ctx.Done():
			}
		}
	})
}

func (r *run) arrived(v *vector, b []byte) {
	u, err := v.update.Fill(b, r.task)
	r.post(func(r *run) {
		if err != nil {
			r.tasks.Log.Fail(fmt.Errorf("task %q: the update of %s for round %d is of no use: %w", r.task.Name, v.record.Author, v.record.Number, err), "author", v.record.Author)
			return
		}
		r.step(received(v.record, u))
	})
}

// read reads an announced update's parameters from the store.
func (v *vector) read(s *storage.Store, t task.Task) (task.Update, error) {
	b, err := chunks{s}.whole(v.announcement)
	if err != nil {
		return v.update, err
	}
	return v.update.Fill(b, t)
}
