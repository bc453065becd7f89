package exchange

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"village/protocol/record"
)

// Held is a vector that this node holds, until it releases it.
type Held struct {
	x        *Exchange
	v        *vector
	author   peer.ID
	relayed  bool
	released bool // under the exchange's mutex
}

// Quota of what is relayed, in bytes, in all and for each author. Half of it is kept
// for the authors that are preferred. An author's share is what a node has at most
// of a task, twice: its two newest updates.
const (
	maxRelayed     = 512 << 20
	maxRelayedEach = 128 << 20
)

// relayed counts what is relayed, in bytes.
type relayed struct {
	all  uint64
	each map[peer.ID]uint64 // by author
}

// Hold holds a vector that this node needs: it can be fetched, and what the store
// has of it is served.
func (x *Exchange) Hold(author record.NodeID, a Announcement) (*Held, error) {
	return x.hold(author, a, false)
}

// Relay holds a vector for others alone, or fails with [ErrQuota].
func (x *Exchange) Relay(author record.NodeID, a Announcement) (*Held, error) {
	return x.hold(author, a, true)
}

func (x *Exchange) hold(author record.NodeID, a Announcement, relay bool) (*Held, error) {
	if err := a.Check(); err != nil {
		return nil, err
	}
	by, err := peer.Decode(author.String())
	if err != nil {
		return nil, err
	}
	x.storing.RLock()
	defer x.storing.RUnlock()
	var have bitmap
	for i, hash := range a.Chunks {
		if x.store.HasChunk(hash) {
			have.add(i)
		}
	}
	id := a.ID()
	x.mu.Lock()
	defer x.mu.Unlock()
	if relay {
		most := uint64(maxRelayed)
		if !x.prefer(by) {
			most /= 2
		}
		if x.relayed.all+a.Size > most || x.relayed.each[by]+a.Size > maxRelayedEach {
			return nil, fmt.Errorf("%w: %d MiB, %d MiB of this author", ErrQuota, x.relayed.all>>20, x.relayed.each[by]>>20)
		}
		x.relayed.all += a.Size
		x.relayed.each[by] += a.Size
	}
	v := x.vectors[id]
	if v == nil {
		v = &vector{announcement: a, fetching: make(chan struct{}, 1), credits: make(map[peer.ID]*credit)}
		x.vectors[id] = v
		for _, hash := range a.Chunks {
			x.needed[hash]++
		}
	}
	v.holders++
	v.have = v.have.or(have)
	x.changed(id)
	return &Held{x: x, v: v, author: by, relayed: relay}, nil
}

// Provide stores a vector of this node's own and holds it. It is durable when
// Provide returns, so that the announcement may be signed.
func (x *Exchange) Provide(self record.NodeID, b []byte) (*Held, error) {
	a := Announce(b)
	h, err := x.Hold(self, a)
	if err != nil {
		return nil, err
	}
	for i, hash := range a.Chunks {
		start := i * ChunkSize
		if err := x.put(hash, b[start:start+a.chunkLen(i)]); err != nil {
			h.Release()
			return nil, fmt.Errorf("storing chunk %d of %d of a vector: %w", i+1, len(a.Chunks), err)
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	h.v.have = a.all()
	x.changed(a.ID())
	return h, nil
}

// Announcement names what is held.
func (h *Held) Announcement() Announcement { return h.v.announcement }

// Release ends this hold. With the last one of a vector, it is served no more, and
// those of its chunks are deleted that stand in no other vector that is held.
func (h *Held) Release() {
	x, a := h.x, h.v.announcement
	x.storing.Lock()
	defer x.storing.Unlock()
	stale := h.end()
	if len(stale) == 0 {
		return
	}
	if err := x.store.DeleteChunks(stale...); err != nil {
		x.log.Warn("the chunks of an old vector could not be deleted; the next start will", "bytes", a.Size, "error", err)
	}
}

// end returns the chunks that nobody needs any more.
func (h *Held) end() (stale [][32]byte) {
	x, a := h.x, h.v.announcement
	x.mu.Lock()
	defer x.mu.Unlock()
	if h.released {
		return nil
	}
	h.released = true
	if h.relayed {
		x.relayed.all -= a.Size
		if x.relayed.each[h.author] -= a.Size; x.relayed.each[h.author] == 0 {
			delete(x.relayed.each, h.author)
		}
	}
	if h.v.holders--; h.v.holders > 0 {
		return nil
	}
	id := a.ID()
	delete(x.vectors, id)
	x.changed(id)
	for _, hash := range a.Chunks {
		if x.needed[hash]--; x.needed[hash] == 0 {
			delete(x.needed, hash)
			stale = append(stale, hash)
		}
	}
	return stale
}

// Needs says whether a chunk stands in a vector that is held.
func (x *Exchange) Needs(hash [32]byte) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.needed[hash] > 0
}

// put stores a chunk of a vector that is held.
func (x *Exchange) put(hash [32]byte, b []byte) error {
	x.storing.RLock()
	defer x.storing.RUnlock()
	if !x.Needs(hash) {
		return ErrReleased
	}
	return x.store.PutChunk(hash, b)
}
