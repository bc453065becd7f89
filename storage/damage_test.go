package storage

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"village/protocol/record"
)

var places = flag.Int("places", 30, "in how many places TestDamagedFiles damages a store")

// thing is what was written to a store, and acknowledged.
type thing struct {
	name string // in Damaged; of an artifact, see blockNames
	late bool   // written after the store was opened again
	read func(*Store) ([]byte, error)
	want []byte
}

// kept is a store that was killed, with tables, logs and values of all kinds.
type kept struct {
	dir    string
	things []thing
}

func keep(t *testing.T) kept {
	t.Helper()
	k := kept{dir: filepath.Join(t.TempDir(), "kept")}
	live := filepath.Join(t.TempDir(), "live")
	n := uint64(0)
	add := func(s *Store, late bool, size int) {
		t.Helper()
		n++
		r := signed(t, 1+int(n%2), record.KindManifest, fmt.Sprint(n), 1, random(n, size/4))
		rows, secret, artifact := random(n+1000, size), random(n+2000, 40), random(n+3000, size/2)
		key := fmt.Sprint("salt/", n)
		if _, err := s.PutRecord(r); err != nil {
			t.Fatal(err)
		}
		cid, _, err := s.AddArtifact(context.Background(), bytes.NewReader(artifact))
		if err := errors.Join(err, s.PutRows(r.CID, rows), s.PutPrivate(key, secret)); err != nil {
			t.Fatal(err)
		}
		k.things = append(k.things,
			thing{"record " + r.CID.String(), late, func(s *Store) ([]byte, error) { r, err := s.Record(r.CID); return r.Bytes, err }, r.Bytes},
			thing{"rows of " + r.CID.String(), late, func(s *Store) ([]byte, error) { return s.Rows(r.CID) }, rows},
			thing{"private " + key, late, func(s *Store) ([]byte, error) { return s.Private(key) }, secret},
			thing{cid.String(), late, func(s *Store) ([]byte, error) { return readArtifact(s, cid) }, artifact},
		)
	}
	s, err := OpenLight(live) // its tables are small
	if err != nil {
		t.Fatal(err)
	}
	for i := range 90 {
		add(s, false, 1000+500*(i%40))
	}
	add(s, false, 150<<10)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = OpenLight(live); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		add(s, true, 500+400*i)
	}
	add(s, true, 140<<10)
	if err := os.Mkdir(k.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range contents(t, live) { // as a kill would leave it
		// Logs are long, and empty behind the last entry.
		b = b[:min(len(b), len(bytes.TrimRight(b, "\x00"))+100)]
		if err := os.WriteFile(filepath.Join(k.dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return k
}

func contents(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, e := range entries {
		if all[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// lostIn reads everything, and returns what is lost. It fails where bytes are wrong
// or gone without a word.
func (k kept) lostIn(s *Store) (lost []thing, err error) {
	if err := s.VerifyRows(context.Background()); err != nil { // as the daemon does
		return nil, err
	}
	for _, th := range k.things {
		got, err := th.read(s)
		if err == nil && bytes.Equal(got, th.want) {
			continue
		}
		if err == nil {
			return nil, fmt.Errorf("%s: wrong bytes", th.name)
		}
		lost = append(lost, th)
		if strings.Contains(th.name, " ") && !s.isDamaged(th.name) ||
			!slices.ContainsFunc(s.Damaged(), func(name string) bool { return strings.Contains(name, th.name) || strings.HasPrefix(name, "block ") }) && !strings.Contains(th.name, " ") {
			return nil, fmt.Errorf("%s is lost (%w), and not named: %q", th.name, err, s.Damaged())
		}
		if strings.HasPrefix(th.name, "record ") && !s.Unsure(record.NodeIDOf(author(1).Public().(ed25519.PublicKey))) && !s.Unsure(record.NodeIDOf(author(2).Public().(ed25519.PublicKey))) {
			return nil, fmt.Errorf("%s is lost, and no author is unsure", th.name)
		}
	}
	return lost, nil
}

// damage is one change of one file.
type damage struct {
	file string
	kind string // flip, cut, delete
	at   int
}

func (d damage) String() string { return fmt.Sprintf("%s %s at %d", d.kind, d.file, d.at) }

func (d damage) do(dir string) error {
	path := filepath.Join(dir, d.file)
	switch d.kind {
	case "delete":
		return os.Remove(path)
	case "cut":
		return os.Truncate(path, int64(d.at))
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[d.at] ^= 1 << (d.at % 8)
	return os.WriteFile(path, b, 0o600)
}

// damages spreads changes over all files: each is deleted, cut and flipped.
func (k kept) damages(t *testing.T, n int) (all []damage) {
	rng := rand.New(rand.NewPCG(7, 7))
	files := contents(t, k.dir)
	names := slices.Sorted(maps.Keys(files))
	for _, name := range names {
		all = append(all, damage{name, "delete", 0}, damage{name, "cut", 0}, damage{name, "cut", len(files[name]) / 2})
	}
	for i := 0; len(all) < n; i++ {
		name := names[i%len(names)]
		if size := len(files[name]); size > 0 {
			kind := "flip"
			if i/len(names)%3 == 2 {
				kind = "cut"
			}
			all = append(all, damage{name, kind, rng.IntN(size)})
		}
	}
	return all
}

// TestDamagedFiles flips, cuts and deletes the files of a store that was killed, one
// at a time. What is lost then is named, or the store refuses to open and says why;
// no byte is wrong, and what can be read of the others can be salvaged.
func TestDamagedFiles(t *testing.T) {
	n := *places
	if testing.Short() {
		n = 18
	}
	k := keep(t)
	damages := make(chan damage)
	var workers sync.WaitGroup
	var mu sync.Mutex
	counts := map[string]int{}
	base := t.TempDir()
	for range 2 {
		workers.Go(func() {
			for d := range damages {
				dir := filepath.Join(base, strings.ReplaceAll(d.String(), " ", "-"))
				outcome, err := k.suffer(d, dir)
				if err != nil {
					t.Errorf("%s: %v", d, err)
				}
				os.RemoveAll(dir)
				mu.Lock()
				counts[fmt.Sprintf("%s %s: %s", d.kind, filepath.Ext(d.file), outcome)]++
				mu.Unlock()
			}
		})
	}
	for _, d := range k.damages(t, n) {
		damages <- d
	}
	close(damages)
	workers.Wait()
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("%4d %s", counts[what], what)
	}
}

// suffer damages a copy of the store and reads what is left.
func (k kept) suffer(d damage, dir string) (outcome string, err error) {
	wrecked, opened, salvaged := filepath.Join(dir, "wrecked"), filepath.Join(dir, "opened"), filepath.Join(dir, "salvaged")
	for _, to := range []string{wrecked, opened} {
		if err := os.CopyFS(to, os.DirFS(k.dir)); err != nil {
			return "", err
		}
		if err := d.do(to); err != nil {
			return "", err
		}
	}
	report, err := Check(wrecked)
	if err != nil {
		return "", fmt.Errorf("check: %w", err)
	}
	if _, err := Salvage(wrecked, salvaged); err != nil {
		return "", fmt.Errorf("salvage: %w", err)
	}
	s, err := Open(salvaged)
	if err != nil {
		return "", fmt.Errorf("open what was salvaged: %w", err)
	}
	lost, err := k.lostIn(s)
	if err := errors.Join(err, s.Close()); err != nil {
		return "", fmt.Errorf("salvaged: %w", err)
	}
	if len(lost) > 0 && len(report.Lost) == 0 {
		return "", fmt.Errorf("check finds nothing lost, and %d things are", len(lost))
	}
	early, late := 0, 0
	for _, th := range lost {
		if th.late {
			late++
		} else {
			early++
		}
	}
	ext := filepath.Ext(d.file)
	switch {
	case ext == ".mem" && early > 0, ext == ".sst" && late > 0, ext != ".mem" && ext != ".sst" && ext != ".vlog" && len(lost) > 0:
		return "", fmt.Errorf("salvage has lost what stood in other files: %d early and %d late", early, late)
	case d.kind == "flip" && ext != ".sst" && len(lost) > 1:
		return "", fmt.Errorf("one byte has cost %d things", len(lost))
	}

	s, err = Open(opened)
	if err != nil {
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), opened) {
			return "", fmt.Errorf("refused without a word: %w", err)
		}
		return "refused", nil
	}
	found, err := k.lostIn(s)
	if err := errors.Join(err, s.Close()); err != nil {
		return "", err
	}
	// What Badger cuts off or removes at its start was set aside.
	if d.kind == "flip" && len(found) > 1 || ext == "" && len(found) > 0 {
		return "", fmt.Errorf("opening has cost %d things", len(found))
	}
	if len(found) > 0 {
		return "named", nil
	}
	return "intact", nil
}
