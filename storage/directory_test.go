package storage

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"village/protocol/record"
)

func TestOpenCreatesPrivately(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "home", "store")
	s := open(t, dir)
	for _, d := range []string{filepath.Dir(dir), dir} {
		if info, err := os.Stat(d); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", d, info.Mode(), err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestOpenTwice(t *testing.T) {
	s := open(t, t.TempDir())
	if _, err := Open(s.dir); !errors.Is(err, ErrInUse) {
		t.Errorf("%v", err)
	}
	if err := s.PutPrivate("k", []byte("v")); err != nil {
		t.Errorf("the first store is disturbed: %v", err)
	}
	s = reopen(t, s)
	if _, err := s.Private("k"); err != nil {
		t.Error(err)
	}
}

// files returns the name, mode and content of everything in dir.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		all[path] = info.Mode().String()
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			all[path] += string(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestOpenLeavesForeignDirectoriesAlone(t *testing.T) {
	write := func(name string, b []byte) func(string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), b, 0o644) }
	}
	for name, c := range map[string]struct {
		make func(dir string) error
		want error
	}{
		"a file":        {write("thesis.txt", []byte("x")), ErrForeign},
		"an empty log":  {write("00001.mem", nil), ErrForeign},
		"another store": {otherBadger, ErrForeign},
		"newer":         {write(badger.ManifestFilename, []byte{'B', 'd', 'g', 'r', 'V', 2, 0, 8}), ErrNewer},
		"newer Badger":  {write(badger.ManifestFilename, []byte{'B', 'd', 'g', 'r', 'V', 1, 0, 9}), ErrNewer},
		"older Badger":  {write(badger.ManifestFilename, []byte{'B', 'd', 'g', 'r', 'V', 1, 0, 7}), ErrDamaged},
		"cut short":     {write(badger.ManifestFilename, []byte("Bdgr")), ErrDamaged},
		"other magic":   {write(badger.ManifestFilename, []byte("manifest")), ErrForeign},
	} {
		dir := t.TempDir()
		if err := c.make(dir); err != nil {
			t.Fatal(err)
		}
		before := files(t, dir)
		if _, err := Open(dir); !errors.Is(err, c.want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", name, err)
		}
		after := files(t, dir)
		if len(before) != len(after) {
			t.Errorf("%s: files came or went", name)
		}
		for path := range before {
			if before[path] != after[path] {
				t.Errorf("%s: %s was changed", name, path)
			}
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file); !errors.Is(err, ErrForeign) {
		t.Error(err)
	}
	if _, err := Open(filepath.Join(file, "store")); err == nil {
		t.Error("a store inside a file")
	}
}

func otherBadger(dir string) error {
	db, err := badger.Open(badger.DefaultOptions(dir).WithLogger(nil))
	if err != nil {
		return err
	}
	return db.Close()
}

// The empty files that a kill leaves while Badger creates them.
func TestOpenAfterKillInCreation(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if err := s.PutPrivate("k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"00007.mem", "00099.mem", "000098.vlog"} {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s = open(t, dir)
		if v, err := s.Private("k"); err != nil || string(v) != "v" {
			t.Error(err)
		}
		if err := s.Reclaim(); err != nil {
			t.Error(err)
		}
	}
	first := t.TempDir() // killed in the very first start
	if err := os.WriteFile(filepath.Join(first, "MANIFEST-REWRITE"), []byte("Bd"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, first)
}

func TestOpenOnAFullDisk(t *testing.T) {
	for size, want := range map[uint64]uint64{0: 64, 100: 64, 256: 64, 300: 75, 1000: 250, 1024: 256, 1 << 20: 256} {
		if got := reserveOf(size << 20); got != want<<20 {
			t.Errorf("%d MiB are left free of %d, want %d", got>>20, size, want)
		}
	}
	if err := enough(minReserve/4-1, minReserve/4); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	if err := enough(minReserve/4, minReserve/4); err != nil {
		t.Error(err)
	}
}

func TestSizes(t *testing.T) {
	s := open(t, t.TempDir())
	before := s.Bytes()
	if before > 4<<20 {
		t.Errorf("an empty store takes %d bytes", before)
	}
	if _, _, err := s.AddArtifact(context.Background(), bytes.NewReader(random(1, 8<<20))); err != nil {
		t.Fatal(err)
	}
	if grown := s.Bytes() - before; grown < 8<<20 || grown > 12<<20 {
		t.Errorf("8 MiB take %d bytes", grown)
	}
	if s.FreeBytes() < s.reserve {
		t.Errorf("%d bytes free", s.FreeBytes())
	}
}

// Whatever byte of a closed store the disk changes: it does not open, or a value
// is gone or damaged, but no read returns other bytes than were written.
func TestFlippedBytesAreNeverReturned(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	ctx := context.Background()
	small, large := signed(t, 1, record.KindManifest, "small", 1, "x"), signed(t, 1, record.KindManifest, "large", 1, random(1, 70<<10))
	for _, r := range []record.Record{small, large} {
		if _, err := s.PutRecord(r); err != nil {
			t.Fatal(err)
		}
	}
	data, rows := random(2, 200<<10), random(3, 200<<10)
	c, _, err := s.AddArtifact(ctx, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.PutRows(small.CID, rows); err != nil {
		t.Fatal(err)
	}
	if err := s.PutPrivate("k", rows[:500]); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	flips := 40
	if testing.Short() {
		flips = 20
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, pattern := range []string{"*.vlog", "*.sst"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(paths) == 0 {
			t.Fatal(paths, err)
		}
		failures := 0
		for range flips {
			broken := t.TempDir()
			if err := os.CopyFS(broken, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(broken, filepath.Base(paths[rng.IntN(len(paths))]))
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if len(b) == 0 {
				continue
			}
			at := rng.IntN(len(b))
			b[at] ^= 1 << rng.IntN(8)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Open(broken)
			if err != nil {
				failures++
				continue
			}
			check := func(what string, got, want []byte, err error) {
				if err != nil {
					failures++
				} else if !bytes.Equal(got, want) {
					t.Errorf("%s: wrong bytes after a flip at %d of %s", what, at, filepath.Base(path))
				}
			}
			for _, r := range []record.Record{small, large} {
				got, err := s.Record(r.CID)
				check("record", got.Bytes, r.Bytes, err)
			}
			got, err := readArtifact(s, c)
			check("artifact", got, data, err)
			got, err = s.Rows(small.CID)
			check("rows", got, rows, err)
			got, err = s.Private("k")
			check("private", got, rows[:500], err)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
		if failures < flips/2 {
			t.Errorf("%s: only %d failures in %d flips", pattern, failures, flips)
		}
	}
}

func FuzzIdentifyManifest(f *testing.F) {
	f.Add([]byte{'B', 'd', 'g', 'r', 'V', 1, 0, 8})
	f.Add([]byte("manifest"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) != 8 {
			return
		}
		ok := bytes.Equal(b, []byte{'B', 'd', 'g', 'r', 'V', 1, 0, 8})
		if err := identifyManifest("dir", [8]byte(b)); (err == nil) != ok {
			t.Errorf("%x: %v", b, err)
		}
	})
}
