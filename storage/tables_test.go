package storage

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"testing"

	"github.com/dgraph-io/badger/v4/y"
)

// TestManifestCutShort: what a crash leaves of the manifest is no damage, a
// record whose length was changed is.
func TestManifestCutShort(t *testing.T) {
	b := []byte("Bdgr\x56\x01\x00\x08")
	var lengths []int
	for i := range 5 {
		body := random(uint64(i), 30+i)
		lengths = append(lengths, len(b))
		b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
		b = binary.BigEndian.AppendUint32(b, crc32.Checksum(body, y.CastagnoliCrcTable))
		b = append(b, body...)
	}
	for cut := range len(b) + 1 {
		if err := inspectManifest(b[:cut]); err != nil {
			t.Errorf("cut after %d bytes: %v", cut, err)
		}
	}
	for _, at := range lengths {
		for bit := range 32 {
			damaged := slices.Clone(b)
			length := binary.BigEndian.Uint32(damaged[at:]) ^ 1<<bit
			binary.BigEndian.PutUint32(damaged[at:], length)
			// Where it still ends within the file, Badger finds the checksum wrong.
			if err := inspectManifest(damaged); int(length) > len(b)-at-8 && !errors.Is(err, ErrDamaged) {
				t.Errorf("record at %d, bit %d: %v", at, bit, err)
			}
		}
	}
}
