package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
)

// wreck is what can be read of a store's files, one by one and without Badger, which
// opens all of them or none and cuts off what stands behind damage.
//
// A value is where a table or a memtable's log (.mem) says, which for a long one is
// the value log (.vlog) with the same key and version. Of a key the newest version
// counts, which may be that it was deleted.
type wreck struct {
	files   []FileReport
	newest  map[string][]place // by key; of one version, with all copies of it
	logged  map[string][]place // in value logs, by key and version
	release []func()
}

// storeFiles are the endings of the files that hold values.
var storeFiles = []string{".sst", ".mem", ".vlog"}

// place is where a version of a value stands.
type place struct {
	version uint64
	meta    byte
	value   func() []byte
}

// The meta bits of Badger's entries that matter here.
const (
	metaDeleted = 1 << 0
	metaPointer = 1 << 1
	metaTxn     = 1 << 6 // one of several that hold together
	metaEnd     = 1 << 7 // the last of them

	logHeader = 20 // bytes before the first entry of a log
)

// FileReport is what became of a file of a store.
type FileReport struct {
	Name    string
	Bytes   int64
	Problem string // empty where all of it can be read
}

func newWreck() *wreck {
	return &wreck{newest: map[string][]place{}, logged: map[string][]place{}}
}

// addDir reads the files of a directory that end so; none where it is missing.
// Nobody may change them.
func (w *wreck) addDir(dir string, extensions ...string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if err == nil && slices.Contains(extensions, filepath.Ext(e.Name())) {
			err = w.add(filepath.Join(dir, e.Name()))
		}
	}
	if err != nil {
		return fmt.Errorf("read store: %w", err)
	}
	return nil
}

// adopt takes long values that no other file knows: a table is gone, or they were
// deleted long ago. Claimed are keys that must be there.
func (w *wreck) adopt(claimed map[string]bool) {
	var orphans []string
	for versioned := range w.logged {
		key := y.ParseKey([]byte(versioned))
		if _, known := w.newest[string(key)]; !known && (key[0] == spaceChunk || key[0] == spaceBlock || claimed[string(key)]) {
			orphans = append(orphans, versioned)
		}
	}
	for _, versioned := range orphans {
		for _, p := range w.logged[versioned] {
			w.noteAt([]byte(versioned), p)
		}
	}
}

func (w *wreck) close() {
	for _, release := range w.release {
		release()
	}
}

func (w *wreck) add(path string) error {
	ext := filepath.Ext(path)
	b, unmap, err := mapped(path)
	if err != nil {
		return err
	}
	w.release = append(w.release, unmap)
	report := FileReport{Name: filepath.Base(path), Bytes: int64(len(b))}
	if ext == ".sst" {
		report.Problem = w.addTable(b)
	} else {
		report.Problem = w.addLog(b, ext == ".vlog").problem()
	}
	w.files = append(w.files, report)
	return nil
}

// dataEnd is where the data of a file ends, and a hole begins that goes to its end.
// Logs are made as long as they may become. A file system in memory fills a hole
// that is read through a map, and so the disk.
func dataEnd(f *os.File, size int64) int64 {
	const seekData, seekHole = 3, 4
	if runtime.GOOS != "linux" {
		return size
	}
	for end := int64(0); ; {
		data, err := f.Seek(end, seekData)
		if errors.Is(err, syscall.ENXIO) {
			return end
		}
		if err == nil {
			end, err = f.Seek(data, seekHole)
		}
		if err != nil {
			return size
		}
	}
}

// mapped returns the content of a file, which nobody writes to, without a hole at its
// end.
func mapped(path string) (b []byte, unmap func(), err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, func() {}, err
	}
	size := dataEnd(f, info.Size())
	if size == 0 {
		return nil, func() {}, nil
	}
	b, err = syscall.Mmap(int(f.Fd()), 0, int(size), syscall.PROT_READ, syscall.MAP_PRIVATE)
	return b, func() { _ = syscall.Munmap(b) }, err
}

// logState is how a log was found.
type logState struct {
	cut     bool // not even its header is there
	damaged int  // bytes that are no entry and have entries behind them
	torn    int  // bytes that are no entry, at the end
}

func (s logState) problem() string {
	switch {
	case s.cut:
		return "cut short"
	case s.damaged > 0:
		return fmt.Sprintf("%d bytes are damaged", s.damaged)
	case s.torn > 0:
		return fmt.Sprintf("its last %d bytes are torn or damaged", s.torn)
	}
	return ""
}

// logged is an entry of a log: a header (meta, user's meta, and as varints the
// lengths of key and value and when it expires), the key with its version, the
// value, and CRC32C of all that, 4 bytes, big endian.
type logged struct {
	meta       byte
	key, value []byte // the key with its version
	size       int
}

// entryAt returns the entry that b begins with. The store writes none that expires,
// and no user's meta.
func entryAt(b []byte) (e logged, ok bool) {
	if len(b) < 3 || b[1] != 0 {
		return e, false
	}
	e.meta = b[0]
	at := 2
	var fields [3]uint64
	for i := range fields {
		v, n := binary.Uvarint(b[at:min(len(b), at+binary.MaxVarintLen32)])
		if n <= 0 {
			return e, false
		}
		fields[i] = v
		at += n
	}
	const versionBytes = 8
	klen, vlen := fields[0], fields[1]
	if klen <= versionBytes || klen > 1<<16 || vlen > 1<<21 || fields[2] != 0 || klen+vlen+crc32.Size > uint64(len(b)-at) {
		return e, false
	}
	end := at + int(klen+vlen)
	if binary.BigEndian.Uint32(b[end:]) != crc32.Checksum(b[:end], y.CastagnoliCrcTable) {
		return e, false
	}
	e.key, e.value, e.size = b[at:at+int(klen)], b[at+int(klen):end], end+crc32.Size
	return e, true
}

// eachLogged calls fn for every entry of a log, also for those behind damage. Gap
// says that something may be missing between this entry and the one before.
func eachLogged(b []byte, fn func(e logged, gap bool)) (s logState) {
	if len(b) < logHeader {
		s.cut = len(b) > 0
		return s
	}
	gap := false
	for at := logHeader; at < len(b); {
		if e, ok := entryAt(b[at:]); ok {
			s.damaged += s.torn
			s.torn = 0
			fn(e, gap)
			gap = false
			at += e.size
			continue
		}
		gap = true
		if b[at] != 0 {
			s.torn++
			at++
			continue
		}
		// Logs are long and mostly empty. An entry may begin with two zeros.
		rest := bytes.TrimLeft(b[at:], "\x00")
		at = max(at+1, len(b)-len(rest)-2)
	}
	return s
}

func (w *wreck) addLog(b []byte, values bool) logState {
	var deleted []logged // of a transaction of which the end is not seen yet
	return eachLogged(b, func(e logged, gap bool) {
		if gap {
			deleted = nil // what was put in their place may be lost
		}
		switch {
		case e.meta&metaEnd != 0:
			for _, d := range deleted {
				w.note(d.key, d.meta, nil)
			}
			deleted = nil
		case values:
			w.logged[string(e.key)] = append(w.logged[string(e.key)], placeOf(e.key, e.meta, e.value))
		case e.meta&metaDeleted != 0 && e.meta&metaTxn != 0:
			deleted = append(deleted, e)
		default:
			w.note(e.key, e.meta, e.value)
		}
	})
}

func placeOf(versioned []byte, meta byte, value []byte) place {
	return place{y.ParseTs(versioned), meta, func() []byte { return value }}
}

// note takes in a version of a value.
func (w *wreck) note(versioned []byte, meta byte, value []byte) {
	w.noteAt(versioned, placeOf(versioned, meta, value))
}

func (w *wreck) noteAt(versioned []byte, p place) {
	key := string(y.ParseKey(versioned))
	if key == "" || strings.HasPrefix(key, "!badger!") {
		return
	}
	switch known := w.newest[key]; {
	case len(known) == 0 || known[0].version < p.version:
		w.newest[key] = []place{p}
	case known[0].version == p.version:
		w.newest[key] = append(known, p)
	}
}

// addTable reads a table from both ends, up to a damaged block.
func (w *wreck) addTable(b []byte) (problem string) {
	o := &table.Options{Compression: badger.DefaultOptions("").Compression, BlockSize: badger.DefaultOptions("").BlockSize}
	t, err := openTable(b, 0, o)
	if err != nil {
		return "it cannot be read"
	}
	o.ChkMode = options.OnBlockRead
	seen := map[string]bool{}
	for _, direction := range []int{0, table.REVERSED} {
		whole := walk(t, direction|table.NOCACHE, func(versioned []byte, v y.ValueStruct) bool {
			if direction != 0 && seen[string(versioned)] {
				return false
			}
			seen[string(versioned)] = true
			at := bytes.Clone(versioned)
			w.noteAt(at, place{y.ParseTs(at), v.Meta, func() []byte { return valueIn(t, at) }})
			return true
		})
		if whole {
			return ""
		}
	}
	return "blocks of it are damaged"
}

// walk calls fn for the entries of a table, until it returns false, and says whether
// it came to the end.
func walk(t *table.Table, direction int, fn func(versioned []byte, v y.ValueStruct) bool) (end bool) {
	defer func() {
		if recover() != nil {
			end = false
		}
	}()
	it := t.NewIterator(direction)
	entries := 0
	for it.Rewind(); it.Valid(); it.Next() {
		entries++
		if !fn(it.Key(), it.Value()) {
			return false
		}
	}
	return entries == int(t.KeyCount())
}

// valueIn reads a value from a table.
func valueIn(t *table.Table, versioned []byte) (value []byte) {
	defer func() {
		if recover() != nil {
			value = nil
		}
	}()
	it := t.NewIterator(table.NOCACHE)
	if it.Seek(versioned); it.Valid() && bytes.Equal(it.Key(), versioned) {
		return it.ValueCopy().Value
	}
	return nil
}

// keys are those of the values that are not known to be deleted, sorted.
func (w *wreck) keys() [][]byte {
	var keys [][]byte
	for key, at := range w.newest {
		if at[0].meta&metaDeleted == 0 {
			keys = append(keys, []byte(key))
		}
	}
	slices.SortFunc(keys, bytes.Compare)
	return keys
}

// get returns an intact value, [ErrNotFound] or [ErrDamaged].
func (w *wreck) get(key []byte) ([]byte, error) {
	known := w.newest[string(key)]
	if len(known) == 0 || known[0].meta&metaDeleted != 0 {
		return nil, ErrNotFound
	}
	for _, p := range known {
		copies := []place{p}
		if p.meta&metaPointer != 0 {
			copies = w.logged[string(y.KeyWithTs(key, p.version))]
		}
		for _, c := range copies {
			if value := c.value(); damagedName(key, value) == "" {
				return value, nil
			}
		}
	}
	return nil, ErrDamaged
}

func (w *wreck) has(key []byte) (bool, error) {
	_, err := w.get(key)
	return err == nil, nil
}
