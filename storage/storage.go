// Package storage is the Badger store of one node: signed records, public
// artifacts, rows that stay at home and small private facts. It knows no
// network; what may leave the node is decided by which part of it a caller is
// given ([Store.Blockstore] sees artifacts alone).
//
// A write is durable when its call returns. A value is verified on every read:
// a disk that returns other bytes than were written makes an [ErrDamaged], never
// a wrong answer.
//
// # Layout
//
// One Badger database; the first byte of a key is the keyspace.
//
//	r CID                       a record's bytes
//	e SHA-256(slot) 0|1         two records with one number in one slot, sealed
//	b multihash                 an artifact's block (CIDv1, sha2-256, at most 1 MiB)
//	h CID                       rows of a dataset: length and SHA-256, sealed
//	d CID SHA-256(rows) number  one chunk of those rows, sealed
//	p name                      a private fact, sealed
//	v SHA-256                   a chunk of a vector (at most 1 MiB)
//
// Every value can be checked with nothing but its key: records, blocks and chunks of
// vectors are named by their hash, the others are sealed, which is to say preceded by
// SHA-256(key ‖ value). Values are at most
// 1 MiB and a seal. Those under 64 KiB live in the
// LSM tree, so that all records that gossip carries do, the rest in the value log.
//
// Beside the database lies a journal that claims what must be there: records, rows,
// artifacts that were added here, private facts and evidence. Open names by
// [Store.Damaged] what is claimed and gone. [Check] and [Salvage] read a store that
// does not open.
package storage

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"village/protocol/record"
	"village/storage/journal"
)

// Errors that the store's methods wrap.
var (
	ErrNotFound = errors.New("not in this store")
	ErrDamaged  = errors.New("damaged on disk")
	// ErrFull refuses a write that would leave less than 256 MiB free (on a file
	// system under 1 GiB: a quarter of it, and at least 64 MiB), and an Open with
	// less than a quarter of that. Reads go on, and so do writes once there is
	// room again.
	ErrFull    = errors.New("the disk is full")
	ErrClosed  = errors.New("the store is closed")
	ErrInUse   = errors.New("the store is in use by another process")
	ErrForeign = errors.New("not a store of this program")
	ErrNewer   = errors.New("the store was written by a newer program")
)

const (
	// The free space in bytes that writes leave untouched is a quarter of the
	// file system between these bounds. Badger writes through memory maps: a full
	// disk kills the process with SIGBUS, and again at the next start. After a
	// write was accepted, Badger may still flush three memtables (16 MiB each with
	// their logs), rewrite some tens of MiB of tables and, in Reclaim, move the
	// live half of one value log of 80 MiB; where there is less in the store,
	// less of each.
	minReserve, maxReserve = 64 << 20, 256 << 20

	maxValue = 1 << 20 // bytes in one value, its seal aside
	// valueThreshold is the size from which on a value goes to the value log.
	// Below it, a failed sync is reported to the writer by Badger itself.
	valueThreshold = 64 << 10

	// A transaction holds at most batchLog bytes of values for the value log,
	// because Badger writes a transaction to a single log file and moves that
	// file's memory map under its readers when it outgrows twice its size; and at
	// most batchTree bytes for the tree, because Badger refuses more than 15 % of
	// a memtable.
	batchLog  = 16 << 20
	batchTree = 512 << 10
	batchKeys = 1024

	memtable = 8 << 20 // bytes
	// Of a light store, see [OpenLight]. The two halves of a proof of equivocation
	// are the most that is written at once whatever batchTree is.
	lightMemtable, lightBatchTree = 1 << 20, 128 << 10

	pageKeys = 256 // keys that one read transaction of a scan visits
)

// The keyspaces.
const (
	spaceRecord   = 'r'
	spaceEvidence = 'e'
	spaceBlock    = 'b'
	spaceRows     = 'h'
	spaceChunk    = 'd'
	spacePrivate  = 'p'
	spaceVector   = 'v'
)

// Store is one node's store. Its methods may be called at the same time from
// many goroutines. One process at a time can have a directory open.
type Store struct {
	dir   string
	light bool
	lock  *os.File      // the directory: locked while the store is open
	files journal.FS    // the same, synced after every write that has added a file
	fresh bool          // there was no store before this Open
	free  func() uint64 // FreeBytes, except in tests
	log   logger

	naming sync.Mutex
	names  []string // of the files that are known to be durable, sorted

	reserve uint64        // bytes that writes leave free
	pending atomic.Uint64 // bytes of the writes under way

	// life is held shared while db is in use, and alone to close or reopen it.
	life sync.RWMutex
	db   *badger.DB
	down error // why db is nil
	// abandoned is lock where the disk was too full to close the database: it
	// stays locked until the process ends.
	abandoned *os.File

	putting    sync.Mutex // one change of the records at a time, from commit to index
	rowing     sync.Mutex // one PutRows at a time
	reclaiming sync.Mutex

	index index

	journal *journal.Journal

	damage   sync.Mutex
	damaged  map[string]struct{}
	absent   map[record.CID]recordClaim // claimed and not there
	doubtful bool                       // more may be missing than is claimed
	noted    string                     // see Noted
}

// Open opens the store in dir, creating it, readable by this user alone, where
// there is none. A directory that holds something else, or a store of a newer
// program, is left untouched ([ErrForeign], [ErrNewer]); one that another
// process has open gives [ErrInUse]. Records that the disk has damaged do not
// make Open fail: they are dropped and named by [Store.Damaged], so that peers
// can serve them again.
func Open(dir string) (*Store, error) { return openAs(dir, false) }

// OpenLight is Open for a store of which hundreds are open in one process and
// which need not outlive the machine: it takes 2 MiB of memory instead of 11, and
// a write is durable, when its call returns, as long as the system runs.
func OpenLight(dir string) (*Store, error) { return openAs(dir, true) }

func openAs(dir string, light bool) (*Store, error) {
	lock, err := prepare(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{
		dir: dir, light: light, lock: lock, files: journal.Dir{File: lock, Light: light},
		damaged: map[string]struct{}{}, absent: map[record.CID]recordClaim{},
	}
	s.fresh = !hasFile(dir, badger.ManifestFilename) && !hasFile(dir, journalName)
	_, size := s.fileSystem()
	s.free, s.reserve = s.FreeBytes, reserveOf(size)
	// Replaying and flushing the memtables takes space.
	if err = enough(s.free(), s.reserve/4); err == nil {
		err = s.start()
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	if err := s.load(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// load brings the open database and its journal together.
func (s *Store) load() error {
	if err := s.loadRecords(); err != nil {
		return err
	}
	var found journal.Found
	var err error
	if s.journal, found, err = journal.Open(s.files, journalName, living); err != nil {
		return fmt.Errorf("store %s: %w", s.dir, err)
	}
	for _, part := range found.Damaged {
		s.markDamaged("journal: " + part)
	}
	switch {
	case found.Torn > 0:
		s.noted = fmt.Sprintf("the last %d bytes of the journal were no whole entry, as a crash leaves them, and are cut off", found.Torn)
	case found.New && !s.fresh:
		s.noted = "there was no journal; one was made of what is there"
	}
	if err := s.reconcile(found); err != nil {
		return err
	}
	return s.sweepRows()
}

// Noted is what Open has found that is no loss by itself, "" where that is nothing.
func (s *Store) Noted() string { return s.noted }

// Fresh says that Open has found no store, and made one.
func (s *Store) Fresh() bool { return s.fresh }

// reserveOf is what writes leave free on a file system of size bytes.
func reserveOf(size uint64) uint64 { return min(max(size/4, minReserve), maxReserve) }

// enough says whether free bytes are as many as are needed.
func enough(free, need uint64) error {
	if free < need {
		return fmt.Errorf("%w: %d MiB are free, and it takes %d MiB to go on; free some space", ErrFull, free>>20, (need+1<<20-1)>>20)
	}
	return nil
}

// Close makes everything durable and releases the directory. A second Close
// does nothing. Where less is free than [Open] takes, the directory is released
// when the process ends.
func (s *Store) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.lock == nil {
		return nil
	}
	if s.journal != nil {
		defer s.journal.Close() // all of it is durable
	}
	if s.db != nil && enough(s.free(), s.reserve/4) != nil {
		// To flush the memtables could kill the process. All that was acknowledged
		// is in their logs, which the next Open reads.
		s.db, s.down = nil, ErrClosed
		s.lock, s.abandoned = nil, s.lock
		return nil
	}
	err := s.stop()
	// Closing alone would leave the lock to a child process that another
	// goroutine is just starting: it shares the open directory until it executes.
	_ = syscall.Flock(int(s.lock.Fd()), syscall.LOCK_UN)
	s.lock.Close()
	s.lock = nil
	return err
}

// start opens the database; life is held or not yet needed.
func (s *Store) start() error {
	memory, table := int64(memtable), int64(4<<20)
	if s.light {
		memory, table = lightMemtable, lightMemtable // Badger takes twice a table to write one
	}
	o := badger.DefaultOptions(s.dir).
		WithMemTableSize(memory).WithNumMemtables(2).
		WithBlockCacheSize(memory).WithIndexCacheSize(memory).
		WithValueThreshold(valueThreshold).WithValueLogFileSize(64 << 20).
		WithNumLevelZeroTables(2).WithNumLevelZeroTablesStall(4).
		WithBaseTableSize(table).WithNumCompactors(2).
		WithMetricsEnabled(false).
		WithDetectConflicts(false). // blind writes, or serialised by the store
		WithSyncWrites(!s.light).
		WithChecksumVerificationMode(options.OnTableRead). // the only mode that neither hides damage nor crashes
		WithVerifyValueChecksum(true).                     // before Badger trusts the lengths in an entry's header
		WithCompactL0OnClose(true).                        // else Reclaim finds nothing to reclaim
		WithExternalMagic(format).
		WithBypassLockGuard(true). // the store's own lock lasts across a reopen
		WithLogger(&s.log)
	named, err := inspect(o)
	if err != nil {
		return s.unopened(err)
	}
	if err := setAside(s.dir, named); err != nil {
		return err
	}
	db, err := badger.Open(o)
	if err != nil {
		// A kill in the middle of a start can leave an empty log file that makes
		// this one fail (dgraph-io/badger#2207); a failed start has the same effect.
		if err := sweep(s.dir); err != nil {
			return err
		}
		db, err = badger.Open(o)
	}
	if err != nil {
		line, _, _ := strings.Cut(err.Error(), "\n") // the rest is a stack
		return s.unopened(errors.New(line))
	}
	s.db, s.down = db, nil
	return nil
}

// unopened says why the store does not open. Where the system does not refuse it,
// the disk has changed a file.
func (s *Store) unopened(err error) error {
	var refused *fs.PathError
	if errors.Is(err, ErrDamaged) || errors.As(err, &refused) {
		return fmt.Errorf("store %s does not open: %w", s.dir, err)
	}
	return fmt.Errorf("store %s does not open: it is %w (%v)", s.dir, ErrDamaged, err)
}

// stop closes the database; life is held alone.
func (s *Store) stop() error {
	if s.db == nil {
		return nil
	}
	err := s.db.Close()
	s.db, s.down = nil, ErrClosed
	return scrub("close", err)
}

// logger keeps Badger quiet, since its messages can hold values, and catches the
// one failure that Badger tells to its log alone: a value log that did not reach
// the disk.
type logger struct{ unsynced atomic.Bool }

func (l *logger) Errorf(format string, _ ...any) {
	if strings.HasPrefix(format, "Error while curlf sync") {
		l.unsynced.Store(true)
	}
}
func (*logger) Warningf(string, ...any) {}
func (*logger) Infof(string, ...any)    {}
func (*logger) Debugf(string, ...any)   {}

// op is one write; a nil value deletes.
type op struct{ key, value []byte }

// commit applies all ops or none and returns when they are durable. Their
// values together must fit a transaction, see batches.
func (s *Store) commit(ops ...op) error {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.db == nil {
		return s.down
	}
	var size uint64
	for _, o := range ops {
		size += uint64(len(o.value))
	}
	if size > 0 { // deletions may free space
		// Writers at the same time share what is free.
		need := s.reserve + s.pending.Add(size)
		defer s.pending.Add(-size)
		if err := enough(s.free(), need); err != nil {
			return err
		}
	}
	if s.log.unsynced.Load() {
		return errUnsynced
	}
	err := s.db.Update(func(txn *badger.Txn) error {
		for _, o := range ops {
			var err error
			if o.value == nil {
				err = txn.Delete(o.key)
			} else {
				err = txn.Set(o.key, o.value)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return scrub("write", err)
	}
	if s.log.unsynced.Load() {
		return errUnsynced
	}
	return s.syncNames()
}

// syncNames makes durable which files there are, where that has changed: Badger does
// not when it begins a new one.
func (s *Store) syncNames() error {
	if s.light {
		return nil
	}
	s.naming.Lock()
	defer s.naming.Unlock()
	dir, err := os.Open(s.dir)
	if err != nil {
		return fmt.Errorf("sync store: %w", err)
	}
	names, err := dir.Readdirnames(-1)
	dir.Close()
	if err != nil {
		return fmt.Errorf("sync store: %w", err)
	}
	slices.Sort(names)
	if slices.Equal(names, s.names) {
		return nil
	}
	if err := s.files.Sync(); err != nil {
		return fmt.Errorf("sync store: %w", err)
	}
	s.names = names
	return nil
}

// errUnsynced stays until the store is opened again: after a failed sync the
// system may count lost pages as written.
var errUnsynced = errors.New("the disk failed to write; check it and start again")

// commitAll applies ops in order, in as many transactions as their size needs.
func (s *Store) commitAll(ops []op) error {
	most := batchTree
	if s.light {
		most = lightBatchTree
	}
	for len(ops) > 0 {
		var log, tree, n int
		for n < len(ops) && n < batchKeys {
			if size := len(ops[n].value); size >= valueThreshold {
				log += size
			} else {
				tree += size
			}
			if n > 0 && (log > batchLog || tree > most) {
				break
			}
			n++
		}
		if err := s.commit(ops[:n]...); err != nil {
			return err
		}
		ops = ops[n:]
	}
	return nil
}

// view runs fn in a read transaction. fn must not call the store.
func (s *Store) view(fn func(*badger.Txn) error) error {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.db == nil {
		return s.down
	}
	return s.db.View(fn)
}

// get returns the value of key, unverified. Badger returns no error but an
// empty value where it cannot read its value log.
func (s *Store) get(key []byte) (value []byte, err error) {
	err = s.view(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if err != nil {
			return err
		}
		value, err = item.ValueCopy(nil)
		return err
	})
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, ErrNotFound
	}
	return value, scrub("read", err)
}

// has says whether key is there, whatever its value.
func (s *Store) has(key []byte) (found bool, err error) {
	err = s.view(func(txn *badger.Txn) error {
		_, err := txn.Get(key)
		found = err == nil
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		return err
	})
	return found, scrub("read", err)
}

// page calls fn for at most pageKeys keys with prefix behind the key after, in
// order, and returns the last of them, nil at the end. The value is nil unless
// asked for. fn may keep both, and must not use the store.
func (s *Store) page(prefix, after []byte, values bool, fn func(key, value []byte) error) (last []byte, err error) {
	var failed error
	err = s.view(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
		defer it.Close()
		start, n := prefix, 0
		if after != nil {
			start = after
		}
		for it.Seek(start); it.Valid() && n < pageKeys; it.Next() {
			item := it.Item()
			if bytes.Equal(item.Key(), after) {
				continue
			}
			var value []byte
			if values {
				if value, err = item.ValueCopy(nil); err != nil {
					return err
				}
			}
			last = item.KeyCopy(nil)
			if failed = fn(last, value); failed != nil {
				return nil
			}
			n++
		}
		if n < pageKeys {
			last = nil
		}
		return nil
	})
	if failed != nil {
		return nil, failed
	}
	return last, scrub("read", err)
}

// scan calls fn for every key with prefix, in order, see page. It sees changes
// that happen while it runs in part.
func (s *Store) scan(prefix []byte, values bool, fn func(key, value []byte) error) error {
	after, err := s.page(prefix, nil, values, fn)
	for err == nil && after != nil {
		after, err = s.page(prefix, after, values, fn)
	}
	return err
}

// seal returns value behind the hash that binds it to key.
func seal(key, value []byte) []byte {
	h := sha256.New()
	h.Write(key)
	h.Write(value)
	return append(h.Sum(make([]byte, 0, sha256.Size+len(value))), value...)
}

// unseal returns the value in b, which stands at key.
func unseal(key, b []byte) ([]byte, error) {
	if len(b) < sha256.Size || !bytes.Equal(seal(key, b[sha256.Size:])[:sha256.Size], b[:sha256.Size]) {
		return nil, ErrDamaged
	}
	return b[sha256.Size:], nil
}

// getSealed returns the value at key, [ErrNotFound] or [ErrDamaged].
func (s *Store) getSealed(key []byte) ([]byte, error) {
	b, err := s.get(key)
	if err != nil {
		return nil, err
	}
	return unseal(key, b)
}

// scrub names a Badger error by its cause alone, because the texts of some hold
// the bytes of the value.
func scrub(doing string, err error) error {
	if err == nil || errors.Is(err, ErrClosed) {
		return err
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return fmt.Errorf("%s store: %w", doing, errno)
	}
	for _, known := range []error{
		badger.ErrTxnTooBig, badger.ErrBlockedWrites, badger.ErrDBClosed, badger.ErrRejected, io.ErrUnexpectedEOF,
	} {
		if errors.Is(err, known) {
			return fmt.Errorf("%s store: %w", doing, known)
		}
	}
	return fmt.Errorf("%s store: the database failed (%T)", doing, err)
}
