package storage

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"

	"village/protocol/record"
)

func chunks(t *testing.T, s *Store) (n int) {
	t.Helper()
	if err := s.scan([]byte{spaceChunk}, false, func(_, _ []byte) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestRows(t *testing.T) {
	s := open(t, t.TempDir())
	a, b := record.CIDOf([]byte("a")), record.CIDOf([]byte("b"))
	if _, err := s.Rows(a); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	if _, err := s.Rows(record.CID{}); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	if s.PutRows(record.CID{}, []byte("x")) == nil {
		t.Error("rows of nothing")
	}
	if err := s.PutRows(b, []byte("others")); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{10, maxValue, maxValue + 1, 20<<20 + 5, 0, 7} {
		rows := random(uint64(size), size)
		for range 2 {
			if err := s.PutRows(a, rows); err != nil {
				t.Fatal(err)
			}
			if got, err := s.Rows(a); err != nil || !bytes.Equal(got, rows) {
				t.Errorf("%d bytes: %d, %v", size, len(got), err)
			}
		}
		if n := chunks(t, s); n != 1+(size+maxValue-1)/maxValue {
			t.Errorf("%d chunks for %d bytes", n, size)
		}
		s = reopen(t, s)
		if got, err := s.Rows(a); err != nil || !bytes.Equal(got, rows) {
			t.Errorf("%d bytes after a restart: %d, %v", size, len(got), err)
		}
	}
	if got, err := s.Rows(b); err != nil || string(got) != "others" {
		t.Error(err)
	}
}

// Of rows whose PutRows was interrupted nothing is seen, and nothing stays.
func TestInterruptedRows(t *testing.T) {
	s := open(t, t.TempDir())
	dataset, fresh := record.CIDOf([]byte("a")), record.CIDOf([]byte("b"))
	if err := s.PutRows(dataset, []byte("first")); err != nil {
		t.Fatal(err)
	}
	other := rowsHeader{size: 6, hash: [32]byte{1}}
	for _, c := range []record.CID{dataset, fresh} {
		key := chunkKey(c.Bytes(), other, 0)
		if err := s.commit(op{key, seal(key, []byte("second"))}); err != nil {
			t.Fatal(err)
		}
	}
	s = reopen(t, s)
	if got, err := s.Rows(dataset); err != nil || string(got) != "first" {
		t.Error(string(got), err)
	}
	if _, err := s.Rows(fresh); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if n := chunks(t, s); n != 1 {
		t.Errorf("%d chunks", n)
	}
}

func TestDamagedRows(t *testing.T) {
	rows := random(1, 2<<20)
	dataset := record.CIDOf([]byte("a"))
	name := dataset.Bytes()
	s := open(t, t.TempDir())
	for what, damage := range map[string]func(h rowsHeader) op{
		"a bit": func(h rowsHeader) op {
			key := chunkKey(name, h, 1)
			b, err := s.get(key)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)-1] ^= 1
			return op{key, b}
		},
		"a chunk for another": func(h rowsHeader) op {
			b, err := s.get(chunkKey(name, h, 0))
			if err != nil {
				t.Fatal(err)
			}
			return op{chunkKey(name, h, 1), b}
		},
		"shorter": func(h rowsHeader) op { key := chunkKey(name, h, 1); return op{key, seal(key, rows[1<<20:2<<20-1])} },
		"other bytes": func(h rowsHeader) op {
			key := chunkKey(name, h, 1)
			return op{key, seal(key, rows[:1<<20])}
		},
		"empty":     func(h rowsHeader) op { key := chunkKey(name, h, 1); return op{key, seal(key, nil)} },
		"no seal":   func(h rowsHeader) op { return op{rowsKey(name), h.bytes()} },
		"no header": func(h rowsHeader) op { key := rowsKey(name); return op{key, seal(key, []byte("x"))} },
		"too much":  func(h rowsHeader) op { key := rowsKey(name); h.size = 1 << 62; return op{key, seal(key, h.bytes())} },
	} {
		if err := s.PutRows(dataset, rows); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Rows(dataset); err != nil || !bytes.Equal(got, rows) {
			t.Fatalf("before %s: %v", what, err)
		}
		sealed, err := s.get(rowsKey(name))
		if err != nil {
			t.Fatal(err)
		}
		h, err := parseRowsHeader(rowsKey(name), sealed)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.commit(damage(h)); err != nil {
			t.Fatal(err)
		}
		s = reopen(t, s)
		if got, err := s.Rows(dataset); !errors.Is(err, ErrDamaged) || got != nil {
			t.Errorf("%s: %d bytes, %v", what, len(got), err)
		}
		if d := s.Damaged(); len(d) != 1 || d[0] != "rows of "+dataset.String() {
			t.Errorf("%s: %v", what, d)
		}
	}
}

// What is claimed and stands in a value log still is put back.
func TestRowsComeBackFromTheValueLog(t *testing.T) {
	dataset, rows := record.CIDOf([]byte("a")), random(1, 100<<10)
	s := open(t, t.TempDir())
	if err := s.PutRows(dataset, rows); err != nil {
		t.Fatal(err)
	}
	h := rowsHeader{uint64(len(rows)), sha256.Sum256(rows)}
	if err := s.commit(op{key: chunkKey(dataset.Bytes(), h, 0)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Rows(dataset); !errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
	s = reopen(t, s)
	if got, err := s.Rows(dataset); err != nil || !bytes.Equal(got, rows) || len(s.Damaged()) > 0 {
		t.Errorf("%v, damaged: %q", err, s.Damaged())
	}
}

func FuzzParseRowsHeader(f *testing.F) {
	key := rowsKey(record.CIDOf([]byte("a")).Bytes())
	f.Add(key, seal(key, rowsHeader{5, [32]byte{1}}.bytes()))
	f.Add(key, []byte{})
	f.Add([]byte{}, make([]byte, 72))
	f.Fuzz(func(t *testing.T, key, sealed []byte) {
		if h, err := parseRowsHeader(key, sealed); err == nil && !bytes.Equal(seal(key, h.bytes()), sealed) {
			t.Error("not what was sealed")
		}
	})
}
