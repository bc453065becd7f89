package storage

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// Vectors returns the chunks of the vectors that updates announce, and nothing
// else of the store. They come and go with the rounds of tasks, so they stand
// apart from the artifacts, which stay: what is deleted here is deleted nowhere
// else.
func (s *Store) Vectors() Vectors { return Vectors{s} }

// Vectors keeps chunks by their SHA-256. Its methods may be called at the same time.
type Vectors struct{ s *Store }

func vectorKey(hash [32]byte) []byte { return append([]byte{spaceVector}, hash[:]...) }

// vectorName is what a chunk is called in [Store.Damaged].
func vectorName(hash []byte) string { return fmt.Sprintf("chunk %x of a vector", hash) }

// blockOf is where stores of before this keyspace keep a chunk: among the
// artifacts, as the raw block of its bytes.
func blockOf(hash [32]byte) []byte {
	mh, err := multihash.Encode(hash[:], multihash.SHA2_256)
	if err != nil {
		panic(err) // a digest of 32 bytes is always encodable
	}
	return blockKey(cid.NewCidV1(cid.Raw, mh))
}

// PutChunk stores at most 1 MiB that hash to hash. It is durable when this returns.
func (v Vectors) PutChunk(hash [32]byte, b []byte) error {
	if len(b) == 0 || len(b) > maxValue || sha256.Sum256(b) != hash {
		return fmt.Errorf("%s: these %d bytes are none, too many or others", vectorName(hash[:]), len(b))
	}
	if held, err := v.s.get(vectorKey(hash)); err == nil && sha256.Sum256(held) == hash {
		return nil
	}
	if err := v.s.commit(op{vectorKey(hash), b}); err != nil {
		return err
	}
	v.s.repaired(vectorName(hash[:]))
	return nil
}

// Chunk returns a chunk, [ErrNotFound] or [ErrDamaged].
func (v Vectors) Chunk(hash [32]byte) ([]byte, error) {
	b, err := v.s.get(vectorKey(hash))
	if errors.Is(err, ErrNotFound) {
		if b, err := v.s.get(blockOf(hash)); err == nil && sha256.Sum256(b) == hash {
			return b, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", vectorName(hash[:]), err)
	}
	if sha256.Sum256(b) != hash {
		v.s.markDamaged(vectorName(hash[:]))
		return nil, fmt.Errorf("%s: %w", vectorName(hash[:]), ErrDamaged)
	}
	return b, nil
}

// HasChunk says whether a chunk is held, without reading it.
func (v Vectors) HasChunk(hash [32]byte) bool {
	has, err := v.s.has(vectorKey(hash))
	if err == nil && !has {
		has, err = v.s.has(blockOf(hash))
	}
	return has && err == nil
}

// DeleteChunks deletes chunks, as far as they are held.
func (v Vectors) DeleteChunks(hashes ...[32]byte) error {
	var ops []op
	for _, hash := range hashes {
		ops = append(ops, op{key: vectorKey(hash)})
	}
	if err := v.s.commitAll(ops); err != nil {
		return err
	}
	for _, hash := range hashes {
		v.s.repaired(vectorName(hash[:]))
	}
	return nil
}

// Sweep deletes the chunks that are not needed, such as those of a vector that
// came to nothing when the process died.
func (v Vectors) Sweep(needed func(hash [32]byte) bool) error {
	var stale []op
	err := v.s.scan([]byte{spaceVector}, false, func(key, _ []byte) error {
		if len(key) != 1+sha256.Size || !needed([32]byte(key[1:])) {
			stale = append(stale, op{key: key})
		}
		return nil
	})
	if err != nil {
		return err
	}
	return v.s.commitAll(stale)
}
