package storage

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"village/protocol/record"
)

// TestReplacedRowsLeaveTheDisk: what was dropped takes no space after Reclaim, and
// cannot be read from the store's files.
func TestReplacedRowsLeaveTheDisk(t *testing.T) {
	for _, size := range []int{2 << 10, 3700 << 10} {
		s := open(t, t.TempDir())
		var last record.CID
		rows := func(i int) []byte {
			return bytes.Repeat(fmt.Appendf(nil, "row of version %02d, ", i), size/19)
		}
		for i := range 12 {
			c := record.CIDOf(fmt.Append(nil, i))
			if err := s.PutRows(c, rows(i)); err != nil {
				t.Fatal(err)
			}
			if i > 0 {
				if err := s.DropRows(last, "salt"); err != nil {
					t.Fatal(err)
				}
			}
			last = c
		}
		before := s.Bytes()
		if err := s.Reclaim(); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d bytes of rows: %d bytes before, %d after", size, before, s.Bytes())
		if got, err := s.Rows(last); err != nil || !bytes.Equal(got, rows(11)) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		files, err := filepath.Glob(filepath.Join(s.dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				continue
			}
			for i := range 11 {
				if bytes.Contains(b, fmt.Appendf(nil, "version %02d", i)) {
					t.Errorf("%s of %d bytes holds version %d", filepath.Base(file), len(b), i)
				}
			}
		}
	}
}
