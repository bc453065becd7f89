package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"village/protocol/record"
	"village/storage/journal"
)

// Report is what can be read of a store.
type Report struct {
	Files []FileReport
	// Of what can be read: records, datasets of which the rows are whole, blocks of
	// artifacts, and private facts.
	Records, Rows, Blocks, Private int
	// Lost names what was written and cannot be read, sorted.
	Lost []string
}

// Check tells what can be read of the store in dir, and changes nothing. Nobody may
// have it open. It works where Open does not.
func Check(dir string) (Report, error) { return examine(dir, nil) }

// Salvage makes a store in the directory to, which must be absent or empty, of all
// that can be read of the one in dir, which stays as it is. It works where Open does
// not: each file is read by itself. The new store names what is lost as the old one
// would, and is [Store.Unsure] of all authors.
func Salvage(dir, to string) (r Report, err error) {
	s, err := Open(to)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if !s.Fresh() {
		return r, fmt.Errorf("%s holds a store already; choose an empty directory", to)
	}
	return examine(dir, s)
}

// examine reads all that can be read of a store, into another one where that is
// given.
func examine(dir string, into *Store) (r Report, err error) {
	lock, err := os.Open(dir)
	if err != nil {
		return r, fmt.Errorf("open store: %w", err)
	}
	defer lock.Close()
	if err := hold(lock); err != nil {
		return r, err
	}
	found, err := journal.Read(journal.Dir{File: lock}, journalName)
	if err != nil {
		return r, err
	}
	claims := claimsOf(found.Entries)
	w := newWreck()
	defer w.close()
	if err := errors.Join(w.addDir(dir, storeFiles...), w.addDir(filepath.Join(dir, asideName), storeFiles...)); err != nil {
		return r, err
	}
	w.adopt(keysOf(claims))
	if len(w.files) == 0 && found.New {
		return r, fmt.Errorf("%s: %w; it holds no file of one", dir, ErrForeign)
	}
	r.Files = w.files
	if problem := journalProblem(found); problem != "" {
		r.Files = append(r.Files, FileReport{Name: journalName, Problem: problem})
	}

	lost := map[string]bool{}
	var x index
	x.reset()
	var ops []op
	size := 0
	flush := func() error {
		if into == nil {
			return nil
		}
		err := into.commitAll(ops)
		ops, size = nil, 0
		return err
	}
	for _, key := range w.keys() {
		value, err := w.get(key)
		if err != nil {
			lost[nameOf(key)] = true
			continue
		}
		switch key[0] {
		case spaceRecord:
			got, err := parseRecord(key, value)
			if err != nil {
				lost[nameOf(key)] = true
				continue
			}
			x.add(got.Slot, held{got.CID, got.Number, len(got.Bytes)})
			r.Records++
		case spaceBlock:
			r.Blocks++
		case spacePrivate:
			r.Private++
		case spaceRows:
			if whole, _ := hasChunks(key, value, w); whole {
				r.Rows++
			} else {
				lost[nameOf(key)] = true
			}
		}
		if into == nil {
			continue
		}
		ops = append(ops, op{key, value})
		if size += len(value); size >= batchLog {
			if err := flush(); err != nil {
				return r, err
			}
		}
	}
	if err := flush(); err != nil {
		return r, err
	}
	if err := compare(claims, &x, w, func(c claim) { lost[c.what()] = true }); err != nil {
		return r, err
	}
	for name := range lost {
		r.Lost = append(r.Lost, name)
	}
	slices.Sort(r.Lost)
	if into == nil {
		return r, nil
	}
	for chunk := range slices.Chunk(living(found.Entries), batchKeys) {
		if err := into.journal.Append(chunk...); err != nil {
			return r, err
		}
	}
	return r, into.Doubt()
}

// keysOf are the keys of claimed records and sealed values.
func keysOf(claims []claim) map[string]bool {
	keys := map[string]bool{}
	for _, c := range claims {
		switch c.kind {
		case claimRecord:
			keys[string(recordKey(c.record.CID))] = true
		case claimSealed:
			keys[string(c.key)] = true
		}
	}
	return keys
}

func journalProblem(f journal.Found) string {
	switch {
	case f.New:
		return "missing"
	case len(f.Damaged) > 0:
		return fmt.Sprintf("damaged: %s", f.Damaged[0])
	case f.Torn > 0:
		return fmt.Sprintf("its last %d bytes are torn or damaged", f.Torn)
	}
	return ""
}

// Doubt notes that records may be missing of which nothing is known, until
// [Store.Settle].
func (s *Store) Doubt() error {
	s.damage.Lock()
	s.doubtful = true
	s.damage.Unlock()
	return s.journal.Append(journal.Entry{Kind: claimDoubt})
}

// Settle says that the peers have been asked for what may be missing.
func (s *Store) Settle() error {
	s.damage.Lock()
	doubtful := s.doubtful
	s.doubtful = false
	s.damage.Unlock()
	if !doubtful {
		return nil
	}
	return s.journal.Append(journal.Entry{Kind: claimGone, Body: []byte{claimDoubt}})
}

// Unsure says whether the disk may have lost a record that author has signed: one
// that is claimed is not there, or what claimed it is damaged or gone. Whoever signs
// then may sign against a record that others hold.
func (s *Store) Unsure(author record.NodeID) bool {
	s.damage.Lock()
	defer s.damage.Unlock()
	for _, c := range s.absent {
		if c.Author == author {
			return true
		}
	}
	return s.doubtful
}
