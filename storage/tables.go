package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
)

// inspect makes sure that Badger can open what is in a directory, and returns the
// tables that the manifest names. Badger trusts
// the lengths in a table ahead of its checksums: where the disk has changed one,
// it ends the process, after a moment in which the table's keys seem not to be
// there. And it takes a record of its manifest that reaches past the end for one
// that a crash has cut short, and deletes the tables that it named.
func inspect(o badger.Options) (named map[uint64]badger.TableManifest, err error) {
	path := filepath.Join(o.Dir, badger.ManifestFilename)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // of a new store
	}
	if err == nil {
		err = inspectManifest(b)
	}
	if err != nil {
		return nil, fmt.Errorf("MANIFEST: %w", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	manifest, _, err := badger.ReplayManifestFile(f, format, o)
	if err != nil {
		return nil, fmt.Errorf("MANIFEST: %w", ErrDamaged)
	}
	for id, known := range manifest.Tables {
		name := table.IDToFilename(id)
		b, err := os.ReadFile(filepath.Join(o.Dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("missing: %w", ErrDamaged)
		}
		if err == nil {
			err = inspectTable(b, id, table.Options{
				BlockSize: o.BlockSize, Compression: known.Compression, ChkMode: o.ChecksumVerificationMode,
			})
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return manifest.Tables, nil
}

// inspectManifest looks for a record, length and checksum before its bytes, of
// which the length alone was changed.
func inspectManifest(b []byte) error {
	for b = b[min(8, len(b)):]; len(b) >= 8; {
		length, sum := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
		b = b[8:]
		if uint64(length) <= uint64(len(b)) {
			b = b[length:] // Badger compares the checksum
			continue
		}
		crc := uint32(0)
		for i := range b {
			if crc = crc32.Update(crc, y.CastagnoliCrcTable, b[i:i+1]); crc == sum {
				return ErrDamaged
			}
		}
		return nil // cut short, indeed
	}
	return nil
}

// inspectTable verifies a table.
func inspectTable(b []byte, id uint64, o table.Options) (err error) {
	defer func() {
		if recover() != nil {
			err = ErrDamaged
		}
	}()
	t, err := openTable(b, id, &o)
	if err != nil || t.VerifyChecksum() != nil {
		return ErrDamaged
	}
	return nil
}

// openTable reads the index of a table: blocks, index, and behind them the length of
// the index (4 bytes), its checksum, the length of the checksum (4 bytes).
func openTable(b []byte, id uint64, o *table.Options) (t *table.Table, err error) {
	defer func() {
		if recover() != nil {
			err = ErrDamaged
		}
	}()
	// Badger exits where these reach beyond the file; slices panic.
	rest := b
	for range 2 {
		at := len(rest) - 4
		rest = rest[:at-int(binary.BigEndian.Uint32(rest[at:]))]
	}
	return table.OpenInMemoryTable(b, id, o)
}
