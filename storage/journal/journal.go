// Package journal keeps a file that only ever grows at its end: entries that are
// durable when [Journal.Append] returns, each bound to the one before it, so that
// what the disk has torn, changed or cut out is told from what never was there.
//
// An entry is
//
//	length    4 bytes, big endian: of kind and body, at most 4096
//	checksum  4 bytes, big endian: CRC32C of the length and of all that follows
//	before    SHA-256 of the entry before; in the first entry of a file, of the
//	          last one of the file whose place it has taken, or zeros
//	kind      1 byte
//	body
//
// The first entry of a file has kind 0 and says "village journal" and the version
// of this format, 2 bytes, big endian. What the other kinds mean is the matter of
// whoever opens the journal.
package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"sync"
)

// MaxBody is the size in bytes of the largest body of an entry.
const MaxBody = 4096 - 1

const (
	headKind = 0
	version  = 1
	frame    = 4 + 4 + sha256.Size // bytes before an entry's kind

)

var (
	// A file is written anew without what is dead once it has this many bytes
	// more than twice what was alive in it the last time.
	slack = int64(256 << 10)

	head       = binary.BigEndian.AppendUint16([]byte("village journal"), version)
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	// ErrNewer refuses a journal of a newer program.
	ErrNewer = errors.New("the journal was written by a newer program")
)

// Entry is one line of a journal. Kind 0 is the journal's own.
type Entry struct {
	Kind byte
	Body []byte
}

// Found is what a journal held when it was opened.
type Found struct {
	Entries []Entry
	New     bool     // there was none
	Torn    int      // bytes at the end that were no entry, and have been cut off
	Damaged []string // what the disk has changed: the entries there are lost
}

// Journal is an open journal. Its methods may be called at the same time from many
// goroutines.
type Journal struct {
	fs   FS
	name string
	live func([]Entry) []Entry

	// syncing is taken before mu.
	syncing sync.Mutex
	synced  int64 // of written

	mu      sync.Mutex
	file    File
	size    int64 // of the file in bytes
	base    int64 // its size when it was last written anew
	written int64 // bytes since Open, of all files
	last    [sha256.Size]byte
	failed  error // what keeps the journal from taking more
}

// Open opens the journal called name, and makes one where there is none. Live
// returns those of a file's entries that still count, in their order; now and then
// the file is written anew with these alone.
func Open(fsys FS, name string, live func([]Entry) []Entry) (*Journal, Found, error) {
	j := &Journal{fs: fsys, name: name, live: live}
	b, err := fsys.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return j, Found{New: true}, j.rewrite(nil)
	}
	if err != nil {
		return nil, Found{}, fmt.Errorf("read journal: %w", err)
	}
	entries, end, last, damaged, err := parse(b)
	if err != nil {
		return nil, Found{}, err
	}
	found := Found{Entries: entries, Torn: len(b) - end, Damaged: damaged}
	if end == 0 { // not even its head is there
		found.Damaged = append(found.Damaged, "all of it")
		return j, found, j.rewrite(nil)
	}
	if j.file, err = fsys.Append(name); err != nil {
		return nil, Found{}, fmt.Errorf("open journal: %w", err)
	}
	if found.Torn > 0 { // the next entry's sync makes that durable, too
		if err := j.file.Truncate(int64(end)); err != nil {
			return nil, Found{}, errors.Join(fmt.Errorf("cut a torn entry off the journal: %w", err), j.file.Close())
		}
	}
	j.size, j.base, j.last = int64(end), int64(end), last
	return j, found, nil
}

// Read returns what the journal called name holds, and changes nothing.
func Read(fsys FS, name string) (Found, error) {
	b, err := fsys.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Found{New: true}, nil
	}
	if err != nil {
		return Found{}, fmt.Errorf("read journal: %w", err)
	}
	entries, end, _, damaged, err := parse(b)
	return Found{Entries: entries, Torn: len(b) - end, Damaged: damaged}, err
}

// Append adds entries. They are durable when it returns, all or, after a crash
// within it, the first few. After a failed sync nothing more is taken: the system
// may count lost pages as written.
func (j *Journal) Append(entries ...Entry) error {
	if len(entries) == 0 {
		return nil
	}
	end, err := j.write(entries)
	if err == nil {
		err = j.sync(end)
	}
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

func (j *Journal) write(entries []Entry) (end int64, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failed != nil {
		return 0, j.failed
	}
	b, last, err := encode(j.last, entries)
	if err != nil {
		return 0, err
	}
	if _, err := j.file.Write(b); err != nil {
		// Half an entry would hide those behind it.
		if undo := j.file.Truncate(j.size); undo != nil {
			j.failed = errors.Join(err, undo)
		}
		return 0, err
	}
	j.last = last
	j.size += int64(len(b))
	j.written += int64(len(b))
	return j.written, nil
}

// sync makes durable what was written up to end. Those who wait meanwhile share
// the next one.
func (j *Journal) sync(end int64) error {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	if j.synced >= end {
		return nil
	}
	j.mu.Lock()
	file, written, failed := j.file, j.written, j.failed
	grown := j.live != nil && j.size > 2*j.base+slack
	j.mu.Unlock()
	if failed != nil {
		return failed
	}
	if grown {
		if err := j.compact(); err == nil {
			return nil
		}
		// The old file goes on, if it can, and is tried again when it has grown.
		j.mu.Lock()
		j.base, failed = j.size, j.failed
		j.mu.Unlock()
		if failed != nil {
			return failed
		}
	}
	if err := file.Sync(); err != nil {
		j.fail(err)
		return err
	}
	j.synced = written
	return nil
}

func (j *Journal) fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.failed = err
}

// Compact writes the file anew, without what is dead and what is damaged.
func (j *Journal) Compact() error {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	return j.compact()
}

// compact is Compact; syncing is held.
func (j *Journal) compact() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failed != nil {
		return j.failed
	}
	b, err := j.fs.Read(j.name)
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	entries, _, _, _, err := parse(b)
	if err != nil {
		return err
	}
	return j.rewrite(j.live(entries))
}

// rewrite puts a file with these entries in the journal's place; the locks are held
// or not yet needed. The old file stays until the new one is durable.
func (j *Journal) rewrite(entries []Entry) error {
	b, last, err := encode(j.last, append([]Entry{{headKind, head}}, entries...))
	if err != nil {
		return err
	}
	next := j.name + ".new"
	file, err := j.fs.Create(next)
	if err != nil {
		return fmt.Errorf("rewrite journal: %w", err)
	}
	if _, err = file.Write(b); err == nil {
		err = file.Sync()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("rewrite journal: %w", err), file.Close())
	}
	// From here on, a crash leaves the old file or the new one, and until the
	// directory is durable nobody knows which: nothing may be added to either.
	if err = j.fs.Rename(next, j.name); err == nil {
		err = j.fs.Sync()
	}
	if j.file != nil {
		j.file.Close()
	}
	j.file, j.last, j.failed = file, last, err
	j.size, j.base, j.synced = int64(len(b)), int64(len(b)), j.written
	if err != nil {
		return fmt.Errorf("rewrite journal: %w", err)
	}
	return nil
}

// Close closes the file. All that was appended is durable.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file, j.failed = nil, errors.New("the journal is closed")
	return err
}

// encode returns entries as they follow the entry with hash before, and the hash of
// the last one.
func encode(before [sha256.Size]byte, entries []Entry) (b []byte, last [sha256.Size]byte, err error) {
	for _, e := range entries {
		if len(e.Body) > MaxBody {
			return nil, last, fmt.Errorf("an entry of %d bytes, at most %d", len(e.Body), MaxBody)
		}
		start := len(b)
		b = binary.BigEndian.AppendUint32(b, uint32(1+len(e.Body)))
		b = append(b, 0, 0, 0, 0)
		b = append(b, before[:]...)
		b = append(b, e.Kind)
		b = append(b, e.Body...)
		binary.BigEndian.PutUint32(b[start+4:], checksum(b[start:]))
		before = sha256.Sum256(b[start:])
	}
	return b, before, nil
}

// checksum is that of an entry's bytes.
func checksum(entry []byte) uint32 {
	return crc32.Update(crc32.Checksum(entry[:4], castagnoli), castagnoli, entry[8:])
}

// first returns the bytes of the entry that b begins with, nil where it begins with
// none.
func first(b []byte) []byte {
	if len(b) < frame+1 {
		return nil
	}
	length := binary.BigEndian.Uint32(b)
	if length == 0 || length > 1+MaxBody || int(length) > len(b)-frame {
		return nil
	}
	b = b[:frame+int(length)]
	if binary.BigEndian.Uint32(b[4:]) != checksum(b) {
		return nil
	}
	return b
}

// parse reads a file. End is where its last entry ends: what follows was never
// acknowledged. What is no entry ahead of that is damage, and so is an entry that
// does not follow the one before it.
func parse(b []byte) (entries []Entry, end int, last [sha256.Size]byte, damaged []string, err error) {
	for at := 0; at < len(b); {
		entry := first(b[at:])
		if entry == nil {
			at++
			continue
		}
		before := [sha256.Size]byte(entry[8:])
		kind, body := entry[frame], entry[frame+1:]
		switch {
		case at > end:
			damaged = append(damaged, fmt.Sprintf("bytes %d to %d", end, at-1))
		case at == 0 && kind != headKind:
			damaged = append(damaged, "its beginning")
		case at > 0 && before != last:
			damaged = append(damaged, fmt.Sprintf("what stood before byte %d", at))
		}
		if kind == headKind {
			if name := head[:len(head)-2]; !bytes.HasPrefix(body, name) || len(body) < len(head) {
				damaged = append(damaged, "its head")
			} else if v := binary.BigEndian.Uint16(body[len(name):]); v > version {
				return nil, 0, last, nil, ErrNewer
			}
		} else {
			entries = append(entries, Entry{kind, bytes.Clone(body)})
		}
		last = sha256.Sum256(entry)
		at += len(entry)
		end = at
	}
	return entries, end, last, damaged, nil
}
