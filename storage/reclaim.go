package storage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"village/protocol/record"
)

// Reclaim gives the space of deleted and replaced values back to the file
// system. It closes and reopens the database, without which Badger does not know
// what is garbage; other calls wait for that moment and go on. Then it rewrites
// every value log of which half or more is garbage; the one being written and
// those below that share stay.
//
// Badger stops reading a value log at the first damaged entry and deletes the
// file all the same, intact entries behind it included. So every value is
// verified first, and where one is damaged nothing is reclaimed: the error is
// [ErrDamaged], [Store.Damaged] names it.
func (s *Store) Reclaim() error {
	s.reclaiming.Lock()
	defer s.reclaiming.Unlock()
	if err := s.reopen(); err != nil {
		return err
	}
	intact, err := s.verify(context.Background(), nil)
	if err != nil {
		return fmt.Errorf("reclaim: %w", err)
	}
	if !intact {
		return fmt.Errorf("reclaim: values are %w; fetch or add them again first", ErrDamaged)
	}
	for {
		switch err := s.collect(); {
		case errors.Is(err, badger.ErrNoRewrite):
			return nil
		case err != nil:
			return scrub("reclaim", err)
		}
	}
}

func (s *Store) reopen() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.db == nil {
		return s.down
	}
	if err := enough(s.free(), s.reserve/4); err != nil {
		return err
	}
	// Badger keeps what a transaction could still see that began before the last
	// one ended; this one comes after it.
	if err := s.db.View(func(*badger.Txn) error { return nil }); err != nil {
		return err
	}
	if err := s.stop(); err != nil {
		return err
	}
	err := sweep(s.dir)
	if err == nil {
		err = s.start()
	}
	if err != nil {
		s.down = fmt.Errorf("%w: %w", ErrClosed, err)
		return s.down
	}
	return nil
}

// collect rewrites one value log.
func (s *Store) collect() error {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.db == nil {
		return s.down
	}
	return s.db.RunValueLogGC(0.5)
}

// VerifyRows reads all rows, until ctx ends: Open looks whether long values are
// there, and not into them. [Store.Damaged] names those that are not what was put.
func (s *Store) VerifyRows(ctx context.Context) error {
	_, err := s.verify(ctx, []byte{spaceChunk})
	return err
}

// verify reads every value whose key has a prefix, and says whether all are what was
// written.
func (s *Store) verify(ctx context.Context, prefix []byte) (intact bool, err error) {
	intact = true
	err = s.scan(prefix, true, func(key, value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if name := damagedName(key, value); name != "" {
			intact = false
			s.markDamaged(name)
		}
		return nil
	})
	return intact, err
}

// damagedName returns what the value at key is called in [Store.Damaged], and
// nothing where it is intact.
func damagedName(key, value []byte) string {
	intact := false
	switch key[0] {
	case spaceRecord:
		c, err := cid.Cast(key[1:])
		intact = err == nil && record.CIDOf(value) == (record.CID{Cid: c})
	case spaceBlock:
		mh, err := multihash.Decode(key[1:])
		sum := sha256.Sum256(value)
		intact = err == nil && bytes.Equal(sum[:], mh.Digest)
	case spaceVector:
		sum := sha256.Sum256(value)
		intact = bytes.Equal(sum[:], key[1:])
	default:
		_, err := unseal(key, value)
		intact = err == nil
	}
	if intact {
		return ""
	}
	return nameOf(key)
}

// nameOf is what the value at key is called.
func nameOf(key []byte) string {
	switch key[0] {
	case spaceRecord:
		return "record " + recordName(key)
	case spaceBlock:
		return blockName(cid.NewCidV1(cid.Raw, key[1:]))
	case spaceVector:
		return vectorName(key[1:])
	case spaceRows, spaceChunk:
		if _, c, err := cid.CidFromBytes(key[1:]); err == nil {
			return "rows of " + c.String()
		}
	case spacePrivate:
		return "private " + string(key[1:])
	case spaceEvidence:
		return evidenceName(key)
	}
	return fmt.Sprintf("value %x", key)
}
