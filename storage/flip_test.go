package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"village/protocol/record"
)

// flipped is what the store of TestEveryByteFlipped holds.
type flipped struct {
	small, large       []byte // artifacts, in the tree and in the value log
	smallCID, largeCID record.CID
	records            []record.Record
	rows               []byte
	private            []byte
}

const privateKey = "salt"

func fillFlipped(t *testing.T, dir string) flipped {
	t.Helper()
	f := flipped{small: random(1, 1500), large: random(2, 70<<10), rows: []byte("a,b\n1,2\n"), private: []byte("secret")}
	f.records = []record.Record{
		signed(t, 1, record.KindManifest, "a", 1, "first"),
		signed(t, 2, record.KindUpdate, "b", 7, "second"),
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	var errs []error
	note := func(err error) { errs = append(errs, err) }
	f.smallCID, _, err = s.AddArtifact(ctx, bytes.NewReader(f.small))
	note(err)
	f.largeCID, _, err = s.AddArtifact(ctx, bytes.NewReader(f.large))
	note(err)
	for _, r := range f.records {
		_, err = s.PutRecord(r)
		note(err)
	}
	note(s.PutRows(f.records[0].CID, f.rows))
	note(s.PutPrivate(privateKey, f.private))
	note(s.Close())
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return f
}

// verdict reads everything back and says what became of it: "intact", "named" where
// something is lost and Damaged says what, or an error where bytes are wrong or
// vanished without a word.
func (f flipped) verdict(s *Store) (string, error) {
	lost := map[string]bool{}
	check := func(name string, got []byte, err error, want []byte) error {
		switch {
		case err == nil && bytes.Equal(got, want):
			return nil
		case err == nil:
			return fmt.Errorf("%s: wrong bytes", name)
		case errors.Is(err, ErrDamaged):
			lost[name] = true
			return nil
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	var errs []error
	for _, a := range []struct {
		cid  record.CID
		want []byte
	}{{f.smallCID, f.small}, {f.largeCID, f.large}} {
		got, err := readArtifact(s, a.cid)
		errs = append(errs, check(blockName(a.cid.Cid), got, err, a.want))
	}
	for _, want := range f.records {
		got, err := s.Record(want.CID)
		errs = append(errs, check("record "+want.CID.String(), got.Bytes, err, want.Bytes))
		if held := s.Newest(want.Slot); len(held) > 1 || len(held) == 1 && !bytes.Equal(held[0].Bytes, want.Bytes) {
			errs = append(errs, errors.New("a slot holds another record"))
		}
	}
	got, err := s.Rows(f.records[0].CID)
	errs = append(errs, check("rows of "+f.records[0].CID.String(), got, err, f.rows))
	got, err = s.Private(privateKey)
	errs = append(errs, check("private "+privateKey, got, err, f.private))
	if err := errors.Join(errs...); err != nil {
		return "", err
	}
	for name := range lost {
		if !s.isDamaged(name) {
			return "", fmt.Errorf("%s is lost, and Damaged says %q", name, s.Damaged())
		}
	}
	if len(lost) > 0 {
		return "named", nil
	}
	return "intact", nil
}

// reopen says what became of a store that was changed while it was closed.
func (f flipped) reopen(dir string) (string, error) {
	s, err := Open(dir)
	if err != nil {
		text := err.Error()
		for _, clear := range []string{"does not open", ErrDamaged.Error(), ErrForeign.Error(), ErrNewer.Error()} {
			if strings.Contains(text, clear) && strings.Contains(text, dir) {
				return "refused", nil
			}
		}
		return "", fmt.Errorf("refused without a word: %w", err)
	}
	outcome, err := f.verdict(s)
	return outcome, errors.Join(err, s.Close())
}

// TestEveryByteFlipped changes every byte of every file of a closed store, one
// at a time; of files over 8 KiB, one in a while. What is then read is right, or
// an error, and what is lost is named; or the store does not open, and says why.
func TestEveryByteFlipped(t *testing.T) {
	if testing.Short() {
		t.Skip("seconds")
	}
	base := t.TempDir()
	original := filepath.Join(base, "original")
	f := fillFlipped(t, original)
	entries, err := os.ReadDir(original)
	if err != nil {
		t.Fatal(err)
	}
	type flip struct {
		file string
		at   int
		mask byte
	}
	flips := make(chan flip)
	var workers sync.WaitGroup
	var mu sync.Mutex
	counts := map[string]int{}
	for range 4 {
		workers.Go(func() {
			for fl := range flips {
				// A directory of its own: Badger may still be at work in one
				// that it has failed to open.
				dir := filepath.Join(base, fmt.Sprintf("%s-%d-%d", fl.file, fl.at, fl.mask))
				outcome, err := f.flip(original, dir, fl.file, fl.at, fl.mask)
				if err != nil {
					t.Errorf("%s, byte %d, mask %#x: %v", fl.file, fl.at, fl.mask, err)
				}
				mu.Lock()
				counts[filepath.Ext(fl.file)+" "+outcome]++
				mu.Unlock()
			}
		})
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		size := int(info.Size())
		masks := []byte{0x01, 0x80, 0xff}
		if size < 100 {
			masks = []byte{1, 2, 4, 8, 16, 32, 64, 128, 255}
		}
		for at := 0; at < size; at++ {
			if size > 8<<10 && at >= 64 {
				at += size / 64
			}
			for i, mask := range masks {
				if at < size && (size < 100 || i == at%len(masks)) {
					flips <- flip{e.Name(), at, mask}
				}
			}
		}
	}
	close(flips)
	workers.Wait()
	for _, outcome := range []string{".vlog named", ".vlog intact", ".sst refused", " refused"} {
		if counts[outcome] == 0 {
			t.Errorf("never %q: %v", outcome, counts)
		}
	}
	t.Log(counts)
}

// flip copies a store, changes a byte of a file and opens the copy.
func (f flipped) flip(original, dir, file string, at int, mask byte) (string, error) {
	defer os.RemoveAll(dir)
	if err := os.CopyFS(dir, os.DirFS(original)); err != nil {
		return "", err
	}
	path := filepath.Join(dir, file)
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	b[at] ^= mask
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return "", err
	}
	return f.reopen(dir)
}
