package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
)

// alive is how many of the newest entries count in these tests.
const alive = 8

func newest(entries []Entry) []Entry { return entries[max(0, len(entries)-alive):] }

func numbered(n int) Entry {
	return Entry{Kind: byte(1 + n%3), Body: append(binary.BigEndian.AppendUint32(nil, uint32(n)), make([]byte, n*37%100)...)}
}

func numbersOf(entries []Entry) []int {
	list := []int{}
	for _, e := range entries {
		list = append(list, int(binary.BigEndian.Uint32(e.Body)))
	}
	return list
}

// lives writes to a disk through several lives, the first of which end in a crash,
// and returns what is wrong with what the next one finds.
func lives(d *disk) error {
	last := -1 // acknowledged
	next := 0
	for life := range 4 {
		if life < 3 {
			d.crashAt = d.rng.IntN(60)
			if d.rng.IntN(2) == 0 {
				d.faultAt = 1 + d.rng.IntN(40)
			}
		}
		j, found, err := Open(d, "journal", newest)
		if err == nil {
			held := numbersOf(found.Entries)
			if !slices.IsSorted(held) {
				return fmt.Errorf("life %d finds %v", life, held)
			}
			for n := max(0, last-alive+1); n <= last; n++ { // those that count
				if _, ok := slices.BinarySearch(held, n); !ok && len(held) > 0 && n > held[len(held)-1]-alive || !ok && len(held) == 0 {
					return fmt.Errorf("life %d finds %v, and %d was acknowledged", life, held, last)
				}
			}
			if len(held) > 0 { // what was written and not acknowledged counts, too
				last = max(last, held[len(held)-1])
			}
			next = last + 1
			for err == nil && (life < 3 || next < last+30) {
				count := 1 + d.rng.IntN(3)
				var batch []Entry
				for n := range count {
					batch = append(batch, numbered(next+n))
				}
				if err = j.Append(batch...); err == nil {
					last = next + count - 1
				} else if !errors.Is(err, errCrashed) {
					err = nil // a fault: tried again, for as long as it may be
					if j.failed != nil {
						break
					}
					continue
				}
				next += count
				if life == 3 && next > 300 {
					break
				}
			}
		}
		if life == 3 && err != nil && !errors.Is(err, errFault) {
			return err
		}
		d = d.crashed()
	}
	return nil
}

// TestNothingAcknowledgedIsLost crashes a machine at every step of a journal's life,
// with writes that are torn, fail, or are forgotten. What was acknowledged is there.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	small(t)
	for seed := range uint64(1000) {
		if err := lives(newDisk(seed)); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// TestEverySyncMatters leaves out one kind of sync at a time: the test above must
// notice.
func TestEverySyncMatters(t *testing.T) {
	small(t)
	for _, deaf := range []string{syncOfNew, syncOfFile, syncOfNames} {
		noticed := false
		for seed := uint64(0); seed < 1000 && !noticed; seed++ {
			d := newDisk(seed)
			d.deaf = deaf
			noticed = lives(d) != nil
		}
		if !noticed {
			t.Errorf("without the %s, nothing is lost", deaf)
		}
	}
}

// small makes files be written anew often.
func small(t *testing.T) {
	old := slack
	slack = 500
	t.Cleanup(func() { slack = old })
}

// filled returns a journal's file with so many entries, and where each one ends.
func filled(t *testing.T, n int) (b []byte, ends []int) {
	t.Helper()
	d := newDisk(1)
	j, _, err := Open(d, "journal", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		ends = append(ends, int(j.size))
		if err := j.Append(numbered(i)); err != nil {
			t.Fatal(err)
		}
	}
	b, _ = d.Read("journal")
	return b, append(ends, len(b))
}

func openBytes(b []byte) (Found, error) {
	d := newDisk(1)
	d.names["journal"] = &inode{data: b, synced: b, named: true}
	_, found, err := Open(d, "journal", newest)
	return found, err
}

// TestFlippedBytes: of a journal in which the disk has changed a byte, all other
// entries are read, and where it is not the last one it is named.
func TestFlippedBytes(t *testing.T) {
	const n = 12
	b, ends := filled(t, n)
	for at := range b {
		for _, mask := range []byte{0x01, 0x80, 0xff} {
			flipped := bytes.Clone(b)
			flipped[at] ^= mask
			found, err := openBytes(flipped)
			if err != nil {
				t.Fatalf("byte %d: %v", at, err)
			}
			entry, _ := slices.BinarySearch(ends, at+1)
			entry-- // -1 is the head
			want := []int{}
			for i := range n {
				if i != entry {
					want = append(want, i)
				}
			}
			if got := numbersOf(found.Entries); !slices.Equal(got, want) {
				t.Fatalf("byte %d, of entry %d: found %v", at, entry, got)
			}
			if last := entry == n-1; (found.Torn > 0) != last || (len(found.Damaged) > 0) == last {
				t.Errorf("byte %d, of entry %d: %d bytes torn, damaged: %v", at, entry, found.Torn, found.Damaged)
			}
		}
	}
}

func TestCutAndMissingEntries(t *testing.T) {
	const n = 12
	b, ends := filled(t, n)
	for size := range b {
		found, err := openBytes(b[:size])
		if err != nil {
			t.Fatal(err)
		}
		held, boundary := slices.BinarySearch(ends, size)
		if !boundary {
			held--
		}
		if got := len(found.Entries); got != max(held, 0) || (found.Torn > 0) == boundary && size > 0 {
			t.Errorf("cut to %d bytes: %d entries of %d, %d bytes torn", size, got, held, found.Torn)
		}
	}
	for i := range n - 1 {
		found, err := openBytes(slices.Concat(b[:ends[i]], b[ends[i+1]:]))
		if err != nil || len(found.Entries) != n-1 || len(found.Damaged) != 1 {
			t.Errorf("without entry %d: %d entries, damaged: %v, %v", i, len(found.Entries), found.Damaged, err)
		}
	}
	if found, err := openBytes(make([]byte, 5000)); err != nil || len(found.Damaged) == 0 {
		t.Errorf("zeros: %v, %v", found, err)
	}
}

func TestNewerJournal(t *testing.T) {
	body := bytes.Clone(head)
	body[len(body)-1]++
	b, _, err := encode([32]byte{}, []Entry{{headKind, body}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openBytes(b); !errors.Is(err, ErrNewer) {
		t.Error(err)
	}
}

// A failed sync may have lost what was written before it: nothing more is taken.
func TestFailedSyncIsFinal(t *testing.T) {
	d := newDisk(1)
	j, _, err := Open(d, "journal", newest)
	if err != nil {
		t.Fatal(err)
	}
	d.faultAt = d.ops + 2
	for range 2 {
		if err := j.Append(numbered(0)); !errors.Is(err, errFault) {
			t.Errorf("%v", err)
		}
	}
}

// A full disk refuses an entry, and takes the next one.
func TestFailedWriteIsUndone(t *testing.T) {
	for seed := range uint64(20) {
		d := newDisk(seed)
		j, _, err := Open(d, "journal", newest)
		if err != nil {
			t.Fatal(err)
		}
		d.faultAt = d.ops + 1
		if err := j.Append(numbered(0)); !errors.Is(err, errFault) {
			t.Fatal(err)
		}
		if err := j.Append(numbered(1)); err != nil {
			t.Fatal(err)
		}
		b, _ := d.Read("journal")
		if found, err := openBytes(b); err != nil || len(found.Damaged) > 0 || found.Torn > 0 || len(found.Entries) != 1 {
			t.Errorf("%+v, %v", found, err)
		}
	}
	d := newDisk(1)
	j, _, err := Open(d, "journal", newest)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Append(Entry{1, make([]byte, MaxBody+1)}); err == nil {
		t.Error("an entry that is too long was taken")
	}
}

// Many write at once to a real directory; what is dead goes away.
func TestManyWriters(t *testing.T) {
	small(t)
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	fsys := Dir{File: dir}
	j, found, err := Open(fsys, "journal", newest)
	if err != nil || !found.New {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 50 {
				if err := j.Append(numbered(100*w + i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	want := newest(func() []Entry { f, _ := Read(fsys, "journal"); return f.Entries }())
	if err := j.Compact(); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := j.Append(numbered(1)); err == nil {
		t.Error("a closed journal takes entries")
	}
	j, found, err = Open(fsys, "journal", newest)
	if err != nil || found.New || len(found.Damaged) > 0 || found.Torn > 0 {
		t.Fatal(found, err)
	}
	if got := numbersOf(found.Entries); !slices.Equal(got, numbersOf(want)) {
		t.Errorf("%v, want %v", got, numbersOf(want))
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

func FuzzParse(f *testing.F) {
	b, _, _ := encode([32]byte{}, []Entry{{headKind, head}, numbered(1), numbered(2)})
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, end, _, _, err := parse(b)
		if end > len(b) || err == nil && len(entries)*frame > len(b) {
			t.Errorf("%d entries up to %d of %d bytes", len(entries), end, len(b))
		}
	})
}
