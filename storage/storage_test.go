package storage

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"village/protocol/record"
	"village/storage/journal"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
	}
	os.Exit(m.Run())
}

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func reopen(t testing.TB, s *Store) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, s.dir)
}

// author returns the n-th of a fixed sequence of keys.
func author(n int) ed25519.PrivateKey {
	seed := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n)))
	return ed25519.NewKeyFromSeed(seed[:])
}

func signed(t testing.TB, by int, kind record.Kind, subject string, number uint64, payload any) record.Record {
	t.Helper()
	r, err := record.Sign(author(by), "test", kind, subject, number, payload)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func random(seed uint64, n int) []byte {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

func readArtifact(s *Store, c record.CID) ([]byte, error) {
	r, size, err := s.Artifact(context.Background(), c)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err == nil && int64(len(b)) != size {
		err = errors.New("size is not the number of bytes")
	}
	return b, err
}

func TestPrivate(t *testing.T) {
	s := open(t, t.TempDir())
	if _, err := s.Private("a"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("missing: %v", err)
	}
	for _, kv := range []struct{ key, value string }{{"b/2", "two"}, {"b/1", "one"}, {"a", ""}, {"c", strings.Repeat("x", maxValue)}, {"b/1", "new"}} {
		if err := s.PutPrivate(kv.key, []byte(kv.value)); err != nil {
			t.Fatal(err)
		}
	}
	s = reopen(t, s)
	for key, want := range map[string]string{"a": "", "b/1": "new", "b/2": "two", "c": strings.Repeat("x", maxValue)} {
		if got, err := s.Private(key); err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v", key, len(got), err)
		}
	}
	keys, err := s.PrivateKeys("b/")
	if err != nil || strings.Join(keys, " ") != "b/1 b/2" {
		t.Errorf("keys %q, %v", keys, err)
	}
	for _, key := range []string{"", strings.Repeat("k", maxName+1)} {
		if s.PutPrivate(key, nil) == nil {
			t.Errorf("key of %d bytes was taken", len(key))
		}
	}
	if _, err := s.Private(""); !errors.Is(err, ErrNotFound) {
		t.Errorf("empty key: %v", err)
	}
}

func TestPrivateKeysAcrossPages(t *testing.T) {
	s := open(t, t.TempDir())
	var ops []op
	for i := range 2*pageKeys + 3 {
		k := append([]byte{spacePrivate}, binary.BigEndian.AppendUint32(nil, uint32(i))...)
		ops = append(ops, op{k, seal(k, nil)})
	}
	if err := s.commitAll(ops); err != nil {
		t.Fatal(err)
	}
	keys, err := s.PrivateKeys("")
	if err != nil || len(keys) != len(ops) {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	for i, key := range keys {
		if binary.BigEndian.Uint32([]byte(key)) != uint32(i) {
			t.Fatalf("key %d is %x", i, key)
		}
	}
}

// An error must not show what was to be written.
func TestErrorsHoldNoValues(t *testing.T) {
	s := open(t, t.TempDir())
	secret := bytes.Repeat([]byte("canary"), 20<<20) // more than a value log takes
	for name, err := range map[string]error{
		"private":   s.PutPrivate("k", secret),
		"one value": s.commit(op{[]byte("k"), secret}),
		"key":       s.commit(op{bytes.Repeat([]byte("canary"), 20_000), []byte("v")}),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		} else if text := err.Error(); strings.Contains(text, "canary") || strings.Contains(text, "63 61 6e 61") || len(text) > 200 {
			t.Errorf("%s: %.300s", name, text)
		}
	}
}

func TestFullDiskRefusesWritesAndReads(t *testing.T) {
	s := open(t, t.TempDir())
	ctx := context.Background()
	r := signed(t, 1, record.KindManifest, "m", 1, "x")
	if _, err := s.PutRecord(r); err != nil {
		t.Fatal(err)
	}
	c, _, err := s.AddArtifact(ctx, strings.NewReader("public"))
	if err != nil {
		t.Fatal(err)
	}
	s.free = func() uint64 { return s.reserve }
	for name, write := range map[string]func() error{
		"record":   func() error { _, err := s.PutRecord(signed(t, 1, record.KindManifest, "n", 1, "x")); return err },
		"artifact": func() error { _, _, err := s.AddArtifact(ctx, strings.NewReader("more")); return err },
		"rows":     func() error { return s.PutRows(r.CID, []byte("rows")) },
		"private":  func() error { return s.PutPrivate("k", []byte("v")) },
	} {
		if err := write(); !errors.Is(err, ErrFull) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := s.Record(r.CID); err != nil || !bytes.Equal(got.Bytes, r.Bytes) {
		t.Errorf("record: %v", err)
	}
	if got, err := readArtifact(s, c); err != nil || string(got) != "public" {
		t.Errorf("artifact: %v", err)
	}
	if s.Has(signed(t, 1, record.KindManifest, "n", 1, "x").CID) {
		t.Error("a refused record is held")
	}
	if err := s.Blockstore().DeleteBlock(ctx, c.Cid); err != nil {
		t.Errorf("freeing space: %v", err)
	}
	s.free = s.FreeBytes
	if err := s.PutPrivate("k", []byte("v")); err != nil {
		t.Error(err)
	}
}

// A store that cannot be closed on a full disk is as good as one that was killed.
func TestCloseOnAFullDisk(t *testing.T) {
	s := open(t, t.TempDir())
	if err := s.PutPrivate("k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	s.free = func() uint64 { return s.reserve/4 - 1 }
	if err := s.Reclaim(); !errors.Is(err, ErrFull) {
		t.Errorf("reclaim: %v", err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Private("k"); !errors.Is(err, ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if _, err := Open(s.dir); !errors.Is(err, ErrInUse) {
		t.Errorf("open: %v", err)
	}
	next := t.TempDir() // of a process that follows
	if err := os.CopyFS(next, os.DirFS(s.dir)); err != nil {
		t.Fatal(err)
	}
	if v, err := open(t, next).Private("k"); err != nil || string(v) != "v" {
		t.Errorf("%q, %v", v, err)
	}
}

// Writers at the same time share what is free.
func TestPendingWritesCount(t *testing.T) {
	s := open(t, t.TempDir())
	s.free = func() uint64 { return s.reserve + 1000 }
	s.pending.Store(900)
	if err := s.PutPrivate("k", make([]byte, 100)); !errors.Is(err, ErrFull) {
		t.Errorf("%v", err)
	}
	s.pending.Store(0)
	if err := s.PutPrivate("k", make([]byte, 100)); err != nil {
		t.Error(err)
	}
	if left := s.pending.Load(); left != 0 {
		t.Errorf("%d bytes are pending after all writes", left)
	}
}

// Badger only logs that a value log did not reach the disk.
func TestFailedSyncFailsTheWrite(t *testing.T) {
	s := open(t, t.TempDir())
	s.log.Errorf("something else")
	if err := s.PutPrivate("a", []byte("v")); err != nil {
		t.Fatal(err)
	}
	s.log.Errorf("Error while curlf sync: %v\n", errors.New("EIO"))
	if err := s.PutPrivate("b", []byte("v")); err == nil {
		t.Error("a write was acknowledged after a failed sync")
	}
	if _, err := s.Private("a"); err != nil {
		t.Error(err)
	}
}

func TestClosedStore(t *testing.T) {
	s := open(t, t.TempDir())
	r := signed(t, 1, record.KindManifest, "m", 1, "x")
	if _, err := s.PutRecord(r); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	ctx := context.Background()
	_, put := s.PutRecord(signed(t, 1, record.KindManifest, "m", 2, "x"))
	_, get := s.Record(r.CID)
	_, _, add := s.AddArtifact(ctx, strings.NewReader("x"))
	_, rows := s.Rows(r.CID)
	_, private := s.Private("k")
	_, evidence := s.Evidence()
	for name, err := range map[string]error{"put": put, "get": get, "add": add, "rows": rows, "private": private, "evidence": evidence, "reclaim": s.Reclaim()} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := s.Newest(r.Slot); len(got) != 0 {
		t.Errorf("held: %v", got)
	}
	if d := s.Damaged(); len(d) != 0 {
		t.Errorf("a closed store is not a damaged one: %v", d)
	}
	keys, err := s.Blockstore().AllKeysChan(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range keys {
		t.Error("a key of a closed store")
	}
}

func TestReclaim(t *testing.T) {
	s := open(t, t.TempDir())
	ctx := context.Background()
	var cids []record.CID
	for i := range 20 {
		c, _, err := s.AddArtifact(ctx, bytes.NewReader(random(uint64(i), 8<<20)))
		if err != nil {
			t.Fatal(err)
		}
		cids = append(cids, c)
	}
	full := s.Bytes()
	if full < 160<<20 {
		t.Fatalf("%d bytes on disk", full)
	}
	bs := s.Blockstore()
	for _, c := range cids[:16] {
		n, err := dag{bs}.Get(ctx, c.Cid)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range n.Links() {
			if err := bs.DeleteBlock(ctx, l.Cid); err != nil {
				t.Fatal(err)
			}
		}
	}
	done := make(chan error)
	go func() { done <- s.Reclaim() }()
	for i := 0; ; i++ { // others go on meanwhile
		if got, err := readArtifact(s, cids[16+i%4]); err != nil || !bytes.Equal(got, random(uint64(16+i%4), 8<<20)) {
			t.Fatalf("artifact %d while reclaiming: %v", 16+i%4, err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		default:
			continue
		}
		break
	}
	if now := s.Bytes(); now > 110<<20 {
		t.Errorf("%d MiB of %d are left after deleting four fifths", now>>20, full>>20)
	}
	for i, c := range cids[16:] {
		if got, err := readArtifact(s, c); err != nil || !bytes.Equal(got, random(uint64(16+i), 8<<20)) {
			t.Errorf("artifact %d: %v", 16+i, err)
		}
	}
}

// A light store takes whatever another one takes, and has it after a restart.
func TestLight(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenLight(dir)
	if err != nil {
		t.Fatal(err)
	}
	type put struct {
		cid  record.CID
		rows []byte
	}
	var puts []put
	for i, size := range []int{0, 1, valueThreshold - 200, valueThreshold, maxValue, 20 << 20} {
		p := put{record.CIDOf([]byte{byte(i)}), random(uint64(i), size)}
		if err := s.PutRows(p.cid, p.rows); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		puts = append(puts, p)
	}
	// The largest of what is written at once: both halves of a proof, each just
	// too small for the value log.
	long := strings.Repeat("x", valueThreshold-1000)
	first, second := signed(t, 1, record.KindManifest, "m", 1, long+"a"), signed(t, 1, record.KindManifest, "m", 1, long+"b")
	if got, err := s.PutRecord(first); err != nil || got != Stored {
		t.Fatalf("%v, %v", got, err)
	}
	if got, err := s.PutRecord(second); err != nil || got != Equivocation {
		t.Fatalf("%v, %v", got, err)
	}
	// Many small blocks: more than fit one transaction.
	artifact := random(9, 3<<20)
	cid, _, err := s.AddArtifact(context.Background(), bytes.NewReader(artifact))
	if err != nil {
		t.Fatal(err)
	}
	var small []op
	for i := range 4 * batchKeys {
		small = append(small, op{[]byte{spacePrivate, byte(i >> 8), byte(i)}, random(uint64(i), 500)})
	}
	if err := s.commitAll(small); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	for _, p := range puts {
		if got, err := s.Rows(p.cid); err != nil || !bytes.Equal(got, p.rows) {
			t.Errorf("%d bytes: %d, %v", len(p.rows), len(got), err)
		}
	}
	if got, err := readArtifact(s, cid); err != nil || !bytes.Equal(got, artifact) {
		t.Error(err)
	}
	if !s.Has(first.CID) {
		t.Error("the record is gone")
	}
	for _, o := range small {
		if got, err := s.get(o.key); err != nil || !bytes.Equal(got, o.value) {
			t.Fatal(err)
		}
	}
}

// unsyncable is a directory whose names do not come to the disk.
type unsyncable struct{ journal.FS }

func (unsyncable) Sync() error { return errors.New("EIO") }

// A write is not acknowledged before the files that it went to have their names on
// the disk, nor before it is claimed.
func TestWritesAreSynced(t *testing.T) {
	s := open(t, t.TempDir())
	files := s.files
	s.files = unsyncable{files}
	if err := s.PutPrivate("a", nil); err == nil {
		t.Error("acknowledged, and the new log has no name yet")
	}
	s.files = files
	if err := s.PutPrivate("a", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.journal.Close(); err != nil {
		t.Fatal(err)
	}
	r := signed(t, 1, record.KindManifest, "m", 1, "x")
	_, put := s.PutRecord(r)
	_, _, add := s.AddArtifact(context.Background(), strings.NewReader("x"))
	for name, err := range map[string]error{"record": put, "artifact": add, "rows": s.PutRows(r.CID, nil), "private": s.PutPrivate("b", nil)} {
		if err == nil {
			t.Errorf("%s: acknowledged, and not claimed", name)
		}
	}
	if s.Has(r.CID) {
		t.Error("a record that was not acknowledged is served")
	}
}
