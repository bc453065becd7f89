package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/dgraph-io/badger/v4"
)

// format is written in Badger's manifest file: 'V' marks a store of this
// program, the low byte is the version of its layout.
const format = uint16('V')<<8 | 1

// badgerFormat is the version of the manifest that Badger v4 reads and writes.
const badgerFormat = 8

// prepare creates dir where it is missing, locks it, makes sure that it is ours
// and removes what would keep Badger from opening it. The lock lasts until the
// returned directory is closed, or its process dies.
func prepare(dir string) (*os.File, error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("create store: %w", err)
		}
		parent, err := os.Open(filepath.Dir(dir))
		if err != nil {
			return nil, fmt.Errorf("create store: %w", err)
		}
		err = parent.Sync()
		parent.Close()
		if err != nil {
			return nil, fmt.Errorf("create store: %w", err)
		}
	}
	lock, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := take(lock); err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

func take(lock *os.File) error {
	dir := lock.Name()
	info, err := lock.Stat()
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is a file: %w; choose another directory", dir, ErrForeign)
	}
	if err := hold(lock); err != nil {
		return err
	}
	if err := identify(dir); err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := lock.Chmod(0o700); err != nil {
			return fmt.Errorf("close store %s to others: %w", dir, err)
		}
	}
	return sweep(dir)
}

// hold locks a directory.
func hold(lock *os.File) error {
	err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("%s: %w; stop it first", lock.Name(), ErrInUse)
	}
	if err != nil {
		return fmt.Errorf("lock store %s: %w", lock.Name(), err)
	}
	return nil
}

// identify says whether dir holds a store that this program can read, or
// nothing yet. It changes nothing.
func identify(dir string) error {
	var head [8]byte
	f, err := os.Open(filepath.Join(dir, badger.ManifestFilename))
	if err == nil {
		_, err = io.ReadFull(f, head[:])
		f.Close()
		if err != nil {
			return fmt.Errorf("%s: its MANIFEST is cut short: %w", dir, ErrDamaged)
		}
		err = identifyManifest(dir, head)
		if errors.Is(err, ErrForeign) && hasFile(dir, journalName) {
			return fmt.Errorf("%s: its MANIFEST is of something else: %w", dir, ErrDamaged)
		}
		return err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open store: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	ours := hasFile(dir, journalName)
	for _, e := range entries {
		switch name := e.Name(); {
		case name == "MANIFEST-REWRITE": // left by a kill in the very first start
		case name == journalName || name == journalName+".new":
		case ours:
			return fmt.Errorf("%s: its MANIFEST is missing: %w", dir, ErrDamaged)
		default:
			return fmt.Errorf("%s holds %q: %w; choose an empty directory", dir, name, ErrForeign)
		}
	}
	return nil
}

func hasFile(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

// identifyManifest judges the first bytes of Badger's manifest: "Bdgr", the
// program's format, Badger's format.
func identifyManifest(dir string, head [8]byte) error {
	ours, theirs := binary.BigEndian.Uint16(head[4:]), binary.BigEndian.Uint16(head[6:])
	switch {
	case string(head[:4]) != "Bdgr" || ours>>8 != format>>8:
		return fmt.Errorf("%s: %w; choose an empty directory", dir, ErrForeign)
	case ours > format || theirs > badgerFormat:
		return fmt.Errorf("%s: %w; install that version", dir, ErrNewer)
	case ours != format || theirs != badgerFormat:
		return fmt.Errorf("%s: its MANIFEST has no known version: %w", dir, ErrDamaged)
	}
	return nil
}

// sweep removes the empty log files that a kill between creating and sizing
// them leaves behind. They never held anything, and Badger does not open beside
// them. The directory is locked, so that they belong to nobody.
func sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		if !strings.HasSuffix(name, ".mem") && !strings.HasSuffix(name, ".vlog") {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return fmt.Errorf("open store: %w", err)
		}
		if info.Mode().IsRegular() && info.Size() == 0 {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return fmt.Errorf("open store: %w", err)
			}
		}
	}
	return nil
}

// Bytes returns what the store takes on disk: allocated blocks, since Badger's
// log files are much longer than what is in them.
func (s *Store) Bytes() uint64 {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return 0
	}
	var total uint64
	for _, e := range entries {
		if info, err := e.Info(); err == nil { // else removed meanwhile
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				total += uint64(stat.Blocks) * 512
			}
		}
	}
	return total
}

// FreeBytes returns what this user may still write to the store's file system,
// in bytes; 0 where the system does not say.
func (s *Store) FreeBytes() uint64 {
	free, _ := s.fileSystem()
	return free
}

// Writable says why nothing can be written: the disk is full ([ErrFull]), or became
// read-only, as Linux makes it after errors, or the directory is gone.
func (s *Store) Writable() error {
	const writing = 2 // W_OK of access(2)
	if err := syscall.Access(s.dir, writing); err != nil {
		return fmt.Errorf("the store %s cannot be written to: %w; see to its disk and start again", s.dir, err)
	}
	return enough(s.free(), s.reserve)
}

// fileSystem returns what this user may still write to the store's file system
// and how large it is, in bytes.
func (s *Store) fileSystem() (free, size uint64) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(s.dir, &stat); err != nil {
		return 0, 0
	}
	return uint64(stat.Bavail) * uint64(stat.Bsize), uint64(stat.Blocks) * uint64(stat.Bsize)
}
