package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
)

// asideName is the directory in a store's for copies of what Badger cuts off or
// removes when it opens: what stands behind damage in a memtable's log or in the
// newest value log, and tables that its manifest does not name. A crash leaves
// nothing behind damage, and in such tables nothing that is not elsewhere; a damaged
// disk may.
const asideName = "aside"

// setAside copies what Badger would destroy. The database is not open yet.
func setAside(dir string, named map[uint64]badger.TableManifest) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	var newestLog string
	for _, e := range entries { // sorted by name, which has the number
		if filepath.Ext(e.Name()) == ".vlog" {
			newestLog = e.Name()
		}
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		doomed := false
		switch filepath.Ext(path) {
		case ".sst":
			id, ok := table.ParseFileID(e.Name())
			_, known := named[id]
			doomed = ok && !known
		case ".mem", ".vlog":
			if filepath.Ext(path) == ".vlog" && e.Name() != newestLog {
				continue
			}
			b, unmap, err := mapped(path)
			if err != nil {
				return fmt.Errorf("open store: %w", err)
			}
			doomed = eachLogged(b, func(logged, bool) {}).damaged > 0
			unmap()
		}
		if doomed {
			if err := copyInto(filepath.Join(dir, asideName), path); err != nil {
				return fmt.Errorf("set aside %s: %w", e.Name(), err)
			}
		}
	}
	return nil
}

// copyInto copies a file durably into a directory.
func copyInto(dir, path string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(filepath.Join(dir, filepath.Base(path)), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	info, err := from.Stat()
	if err == nil {
		size := dataEnd(from, info.Size())
		_, err = io.Copy(to, io.NewSectionReader(from, 0, size))
	}
	return errors.Join(err, to.Sync(), to.Close(), syncDir(dir))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// rescue puts back what is lacking of the claims and was set aside, and long values
// whose keys are there. It says whether it has found anything.
func (s *Store) rescue(claims, lacking []claim) (found bool, err error) {
	w := newWreck()
	defer w.close()
	if err := w.addDir(filepath.Join(s.dir, asideName), storeFiles...); err != nil {
		return false, err
	}
	var long [][]byte
	for versioned := range w.logged {
		long = append(long, y.ParseKey([]byte(versioned)))
	}
	// What is aside points into value logs that are not.
	if err := w.addDir(s.dir, ".vlog"); err != nil {
		return false, err
	}
	w.adopt(keysOf(claims))
	r := rescuer{s, w, map[string][]byte{}}
	for _, key := range long {
		there, err := s.has(key)
		if err == nil && there {
			_, err = r.has(key)
		}
		if err != nil {
			return false, err
		}
	}
	for _, c := range lacking {
		if c.kind == claimRecord {
			if _, err := r.has(recordKey(c.record.CID)); err != nil {
				return false, err
			}
		}
	}
	if err := compare(lacking, &s.index, r, func(claim) {}); err != nil {
		return false, err
	}
	var ops []op
	for key, value := range r.found {
		ops = append(ops, op{[]byte(key), value})
	}
	return len(ops) > 0, s.commitAll(ops)
}

// rescuer are the values of a store, and where one is not there those of its files,
// which it keeps in mind.
type rescuer struct {
	s     *Store
	w     *wreck
	found map[string][]byte
}

func (r rescuer) get(key []byte) ([]byte, error) {
	value, err := r.s.get(key)
	if err == nil && damagedName(key, value) != "" {
		err = ErrDamaged
	}
	if !lost(err) {
		return value, err
	}
	if value, err = r.w.get(key); err == nil {
		value = bytes.Clone(value)
		r.found[string(key)] = value
	}
	return value, err
}

func (r rescuer) has(key []byte) (bool, error) {
	_, err := r.get(key)
	if lost(err) {
		return false, nil
	}
	return err == nil, err
}
