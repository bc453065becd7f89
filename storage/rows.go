package storage

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/ipfs/go-cid"

	"village/protocol/record"
	"village/storage/journal"
)

// maxName is the longest CID of a dataset, and the longest name of a private
// fact, in bytes.
const maxName = 1024

// rowsHeader is the value at spaceRows. It is written after all chunks, so that
// rows are there in whole or not at all.
type rowsHeader struct {
	size uint64
	hash [sha256.Size]byte
}

func (h rowsHeader) bytes() []byte {
	return append(binary.BigEndian.AppendUint64(nil, h.size), h.hash[:]...)
}

func parseRowsHeader(key, sealed []byte) (rowsHeader, error) {
	b, err := unseal(key, sealed)
	if err != nil || len(b) != 8+sha256.Size {
		return rowsHeader{}, ErrDamaged
	}
	return rowsHeader{binary.BigEndian.Uint64(b), [sha256.Size]byte(b[8:])}, nil
}

func rowsKey(dataset []byte) []byte { return append([]byte{spaceRows}, dataset...) }

func chunkPrefix(dataset []byte, h rowsHeader) []byte {
	return append(append([]byte{spaceChunk}, dataset...), h.hash[:]...)
}

func chunkKey(dataset []byte, h rowsHeader, i uint32) []byte {
	return binary.BigEndian.AppendUint32(chunkPrefix(dataset, h), i)
}

// PutRows stores the rows of a dataset, which stay at home: nothing that serves
// peers can see them. They are durable when it returns, and take the place of
// rows put before; a crash leaves those or these. They may come in pieces.
func (s *Store) PutRows(dataset record.CID, rows ...[]byte) error {
	name := dataset.Bytes()
	if !dataset.Defined() || len(name) > maxName {
		return errors.New("rows need the CID of their dataset")
	}
	s.rowing.Lock()
	defer s.rowing.Unlock()
	var h rowsHeader
	hash := sha256.New()
	var chunks [][]byte
	for _, piece := range rows {
		h.size += uint64(len(piece))
		hash.Write(piece)
		chunks = slices.AppendSeq(chunks, slices.Chunk(piece, maxValue))
	}
	hash.Sum(h.hash[:0])
	var ops []op
	for i, chunk := range chunks {
		key := chunkKey(name, h, uint32(i))
		sealed := seal(key, chunk)
		if stored, err := s.get(key); err == nil && bytes.Equal(stored, sealed) {
			continue // of an earlier or an interrupted PutRows
		}
		ops = append(ops, op{key, sealed})
		if len(ops)*maxValue >= batchLog { // sealing copies
			if err := s.commitAll(ops); err != nil {
				return fmt.Errorf("put rows of %s: %w", dataset, err)
			}
			ops = nil
		}
	}
	if err := s.putSealed(rowsKey(name), h.bytes(), ops...); err != nil {
		return fmt.Errorf("put rows of %s: %w", dataset, err)
	}
	s.repaired("rows of " + dataset.String())
	return s.sweepChunks(append([]byte{spaceChunk}, name...))
}

// DropRows deletes the rows of a dataset, and private facts beside them. They are
// gone from the disk after the next [Store.Reclaim].
func (s *Store) DropRows(dataset record.CID, private ...string) error {
	s.rowing.Lock()
	defer s.rowing.Unlock()
	keys := [][]byte{rowsKey(dataset.Bytes())}
	for _, name := range private {
		keys = append(keys, append([]byte{spacePrivate}, name...))
	}
	if err := s.unclaim(keys...); err != nil {
		return fmt.Errorf("drop rows of %s: %w", dataset, err)
	}
	var gone []op
	for _, key := range keys {
		gone = append(gone, op{key: key})
	}
	if err := s.commit(gone...); err != nil {
		return fmt.Errorf("drop rows of %s: %w", dataset, err)
	}
	return s.sweepChunks(append([]byte{spaceChunk}, dataset.Bytes()...))
}

// putSealed puts a value under a name, behind what it refers to, and claims it.
func (s *Store) putSealed(key, value []byte, before ...op) error {
	sealed := seal(key, value)
	if err := s.unclaim(key); err != nil {
		return err
	}
	if err := s.commitAll(append(before, op{key, sealed})); err != nil {
		return err
	}
	return s.journal.Append(claimValue(key, sealed))
}

// unclaim withdraws the claims to the values that stand at keys, ahead of other
// values.
func (s *Store) unclaim(keys ...[]byte) error {
	var gone []journal.Entry
	for _, key := range keys {
		there, err := s.has(key)
		if err != nil {
			return err
		}
		if there {
			gone = append(gone, unclaimValue(key))
		}
	}
	return s.journal.Append(gone...)
}

// Rows returns the rows of a dataset, [ErrNotFound], or [ErrDamaged] where they
// are not, to the last byte, what was put.
func (s *Store) Rows(dataset record.CID) ([]byte, error) {
	rows, err := s.readRows(dataset.Bytes())
	if errors.Is(err, ErrDamaged) || errors.Is(err, ErrNotFound) && s.isDamaged("rows of "+dataset.String()) {
		s.markDamaged("rows of " + dataset.String())
		return nil, fmt.Errorf("rows of %s: %w; add the dataset again", dataset, err)
	}
	if err != nil {
		return nil, fmt.Errorf("rows of %s: %w", dataset, err)
	}
	return rows, nil
}

func (s *Store) readRows(name []byte) ([]byte, error) {
	for {
		key := rowsKey(name)
		sealed, err := s.get(key)
		if err != nil {
			return nil, err
		}
		h, err := parseRowsHeader(key, sealed)
		if err != nil {
			return nil, err
		}
		rows, err := s.readChunks(name, h)
		if err == nil {
			return rows, nil
		}
		// Another PutRows may have taken the chunks away meanwhile.
		if again, e := s.get(key); e != nil || bytes.Equal(again, sealed) {
			return nil, err
		}
	}
}

func (s *Store) readChunks(name []byte, h rowsHeader) ([]byte, error) {
	rows := []byte{}
	for i := uint32(0); uint64(len(rows)) < h.size; i++ {
		chunk, err := s.getSealed(chunkKey(name, h, i))
		if errors.Is(err, ErrNotFound) || err == nil && len(chunk) == 0 {
			return nil, ErrDamaged
		}
		if err != nil {
			return nil, err
		}
		rows = append(rows, chunk...)
	}
	if sha256.Sum256(rows) != h.hash {
		return nil, ErrDamaged
	}
	return rows, nil
}

// sweepRows removes the chunks that an interrupted PutRows has left.
func (s *Store) sweepRows() error { return s.sweepChunks([]byte{spaceChunk}) }

// sweepChunks removes the chunks with prefix that no rows refer to; of a dataset
// whose header is damaged it keeps all.
func (s *Store) sweepChunks(prefix []byte) error {
	var keys [][]byte
	err := s.scan(prefix, false, func(key, _ []byte) error {
		keys = append(keys, key)
		return nil
	})
	if err != nil {
		return err
	}
	var stale []op
	var dataset, live []byte // live is the prefix of the chunks of dataset that count
	for _, key := range keys {
		n, _, err := cid.CidFromBytes(key[1:])
		if err != nil {
			continue
		}
		if name := key[1 : 1+n]; !bytes.Equal(name, dataset) {
			dataset = name
			head := rowsKey(name)
			sealed, err := s.get(head)
			if errors.Is(err, ErrNotFound) && !s.isDamaged(nameOf(head)) {
				live = nil
			} else if errors.Is(err, ErrNotFound) {
				live = key[:1+n]
			} else if err != nil {
				return err
			} else if h, err := parseRowsHeader(head, sealed); err != nil {
				live = key[:1+n]
			} else {
				live = chunkPrefix(name, h)
			}
		}
		if live == nil || !bytes.HasPrefix(key, live) {
			stale = append(stale, op{key: key})
		}
	}
	return s.commitAll(stale)
}

// PutPrivate stores a small fact that this node alone keeps, in place of an
// earlier one with that key. Key: 1 to 1024 bytes; value: at most 1 MiB.
func (s *Store) PutPrivate(key string, value []byte) error {
	if len(key) == 0 || len(key) > maxName {
		return fmt.Errorf("private key of %d bytes; it has 1 to %d", len(key), maxName)
	}
	if len(value) > maxValue {
		return fmt.Errorf("private %q: %d bytes, at most %d", key, len(value), maxValue)
	}
	if err := s.putSealed(append([]byte{spacePrivate}, key...), value); err != nil {
		return fmt.Errorf("private %q: %w", key, err)
	}
	s.repaired("private " + key)
	return nil
}

// Private returns a private fact, [ErrNotFound] or [ErrDamaged].
func (s *Store) Private(key string) ([]byte, error) {
	value, err := s.getSealed(append([]byte{spacePrivate}, key...))
	if errors.Is(err, ErrNotFound) && s.isDamaged("private "+key) {
		err = ErrDamaged
	}
	if errors.Is(err, ErrDamaged) {
		s.markDamaged("private " + key)
	}
	if err != nil {
		return nil, fmt.Errorf("private %q: %w", key, err)
	}
	return value, nil
}

// PrivateKeys returns the keys of the private facts that begin with prefix, sorted.
func (s *Store) PrivateKeys(prefix string) ([]string, error) {
	var keys []string
	err := s.scan(append([]byte{spacePrivate}, prefix...), false, func(key, _ []byte) error {
		keys = append(keys, string(key[1:]))
		return nil
	})
	return keys, err
}
