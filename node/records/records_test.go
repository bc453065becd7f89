package records

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"village/node/log"
	"village/node/p2p"
	"village/protocol/dataset"
	"village/protocol/member"
	"village/protocol/record"
	"village/protocol/task"
	"village/storage"
)

// wire counts what is asked of a network.
type wire struct{ published, syncs int }

func (w *wire) Publish(record.Record) error                { w.published++; return nil }
func (w *wire) Deliver(context.Context, record.Record) int { return 1 }
func (w *wire) SyncSoon()                                  { w.syncs++ }

func keyOf(name string) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	copy(seed, name)
	return ed25519.NewKeyFromSeed(seed)
}

func idOf(name string) record.NodeID {
	return record.NodeIDOf(keyOf(name).Public().(ed25519.PublicKey))
}

// desk is an open book, what it hands on, and its network.
type desk struct {
	*Book
	wire
	handed []any
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	store, err := storage.OpenLight(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	d := &desk{}
	d.Book = New(Config{Key: keyOf("self"), Federation: "test", Store: store, Log: log.New(slog.New(slog.DiscardHandler)), Knows: func(id record.NodeID) bool { return id == idOf("friend") }, AuthorBytes: 1 << 20, StrangersBytes: 3 << 19})
	d.Start(&d.wire, func(_ record.Record, content any) { d.handed = append(d.handed, content) })
	return d
}

func (d *desk) receive(t *testing.T, r record.Record, want p2p.Verdict) {
	t.Helper()
	if got := d.Receive(t.Context(), record.NodeID{}, r); got != want {
		t.Errorf("%s %d of %s: verdict %v, want %v", r.Kind, r.Number, r.Subject, got, want)
	}
}

func signed(t *testing.T, author string, kind record.Kind, subject string, number uint64, body any) record.Record {
	t.Helper()
	r, err := record.Sign(keyOf(author), "test", kind, subject, number, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func manifest(t *testing.T, name string) dataset.Manifest {
	t.Helper()
	table := dataset.Table{Columns: []string{"x", "y"}}
	for i := range 20 {
		table.Rows = append(table.Rows, []string{fmt.Sprint(i), []string{"no", "yes"}[i%2]})
	}
	cleaned, err := dataset.Clean(table, dataset.Options{Name: name, Target: "y"})
	if err != nil {
		t.Fatal(err)
	}
	m := cleaned.Manifest
	m.Nation, m.Node, m.Created, m.Commitment = "HUN", "somebody", 1, make([]byte, 32)
	return m
}

// TestReceive: what becomes of a record that a peer has sent.
func TestReceive(t *testing.T) {
	d := newDesk(t)
	m := manifest(t, "rows")
	first := signed(t, "peer", record.KindManifest, "rows", 1, m)
	d.receive(t, first, p2p.Accept)
	d.receive(t, first, p2p.Ignore) // has it
	m.Description = "another"
	second := signed(t, "peer", record.KindManifest, "rows", 1, m)
	d.receive(t, second, p2p.Accept) // whoever has the first one is to learn of it
	d.receive(t, second, p2p.Ignore)
	if len(d.handed) != 2 || d.handed[1] != (any)(member.Equivocation{Kind: record.KindManifest, Records: [2]record.CID{second.CID, first.CID}}) {
		t.Errorf("handed on: %v", d.handed[1:])
	}
	if last := d.Log.Last(); !strings.Contains(last, "has signed two records for one place") {
		t.Errorf("the log says %q", last)
	}
	m.Target = "z"
	d.receive(t, signed(t, "peer", record.KindManifest, "rows", 2, m), p2p.Reject)
	d.receive(t, signed(t, "peer", "something new", "rows", 2, m), p2p.Ignore)
	if len(d.handed) != 2 {
		t.Errorf("%d records were handed on", len(d.handed))
	}

	// A beacon of a task that nobody has told of, then of one that is known.
	tk := task.New("a task", dataset.Encoding{
		Target: "y", Classes: []string{"no", "yes"}, Positive: "yes",
		Features: []dataset.FeatureSpec{{Name: "x", Kind: dataset.Numeric}},
	}, []record.NodeID{record.NodeID(keyOf("peer").Public().(ed25519.PublicKey))})
	tk.Created = 1
	subject, err := tk.Subject()
	if err != nil {
		t.Fatal(err)
	}
	proposed := signed(t, "proposer", record.KindTask, subject, 0, tk)
	beacon := func(number uint64) record.Record {
		return signed(t, "peer", record.KindBeacon, proposed.CID.String(), number, task.Beacon{Task: proposed.CID, Round: 1})
	}
	d.receive(t, beacon(5), p2p.Ignore)
	if d.syncs != 1 || len(d.beacons) != 0 {
		t.Errorf("%d syncs after a record of an unknown task, %d beacons are remembered", d.syncs, len(d.beacons))
	}
	d.receive(t, proposed, p2p.Accept)
	if known, ok := d.Task(proposed.CID); !ok || known.Name != "a task" || d.syncs != 2 {
		t.Errorf("task %q, %d syncs", known.Name, d.syncs)
	}
	d.receive(t, beacon(6), p2p.Accept)
	d.receive(t, beacon(6), p2p.Ignore)
	d.receive(t, beacon(5), p2p.Ignore)
	if d.Store.Has(beacon(6).CID) {
		t.Error("a beacon was stored")
	}
	d.receive(t, signed(t, "stranger", record.KindBeacon, proposed.CID.String(), 7, task.Beacon{Task: proposed.CID, Round: 1}), p2p.Reject)

	// Once its final set is decided on, a task takes no updates.
	update := signed(t, "peer", record.KindUpdate, proposed.CID.String(), 1, "not an update")
	d.receive(t, update, p2p.Reject)
	d.Close(proposed.CID)
	d.receive(t, update, p2p.Ignore)
}

// TestReceiveWaits: nothing comes in before the rooms above are there.
func TestReceiveWaits(t *testing.T) {
	d := newDesk(t)
	b := New(d.Config)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := signed(t, "peer", record.KindManifest, "rows", 1, manifest(t, "rows"))
	if v := b.Receive(ctx, record.NodeID{}, r); v != p2p.Ignore || d.Store.Has(r.CID) {
		t.Errorf("verdict %v of a closed book", v)
	}
}

// TestOneAuthorCannotFillTheDisk: of one author's datasets so many are held.
func TestOneAuthorCannotFillTheDisk(t *testing.T) {
	d := newDesk(t)
	m := manifest(t, "rows")
	for i := range maxByAuthor {
		m.Name = fmt.Sprint("rows ", i)
		d.receive(t, signed(t, "peer", record.KindManifest, m.Name, 1, m), p2p.Accept)
	}
	m.Name = "one more"
	d.receive(t, signed(t, "peer", record.KindManifest, m.Name, 1, m), p2p.Ignore)
	m.Name = "rows 0" // a newer version takes the place of the old one
	d.receive(t, signed(t, "peer", record.KindManifest, m.Name, 2, m), p2p.Accept)
	m.Name = "one more"
	d.receive(t, signed(t, "another", record.KindManifest, m.Name, 1, m), p2p.Accept)
}

// TestQuotas: of one author so many bytes are held, of all strangers together so
// many, and whom the operator has named, or has enrolled in a task with, has a quota
// of its own.
func TestQuotas(t *testing.T) {
	d := newDesk(t)
	m := manifest(t, "rows")
	size := uint64(len(signed(t, "peer", record.KindManifest, "rows 99", 1, m).Bytes))
	d.AuthorBytes, d.StrangersBytes = 10*size+size/2, 15*size+size/2
	sent := 0
	send := func(author string, want p2p.Verdict) {
		t.Helper()
		sent++
		m.Name = fmt.Sprint("rows ", sent)
		d.receive(t, signed(t, author, record.KindManifest, m.Name, 1, m), want)
	}
	for range 10 {
		send("peer", p2p.Accept)
	}
	send("peer", p2p.Ignore)
	if last := d.Log.Last(); !strings.Contains(last, "author_mib") {
		t.Errorf("the log says %q", last)
	}
	for range 5 {
		send("another", p2p.Accept)
	}
	send("another", p2p.Ignore)
	send("a third", p2p.Ignore)
	if last := d.Log.Last(); !strings.Contains(last, "village member add") {
		t.Errorf("the log says %q", last)
	}
	send("friend", p2p.Accept)
	for range 11 {
		send("self", p2p.Accept)
	}

	tk := task.New("a task", dataset.Encoding{
		Target: "y", Classes: []string{"no", "yes"}, Positive: "yes",
		Features: []dataset.FeatureSpec{{Name: "x", Kind: dataset.Numeric}},
	}, []record.NodeID{idOf("a third"), idOf("self")})
	tk.Created = 1
	subject, err := tk.Subject()
	if err != nil {
		t.Fatal(err)
	}
	proposed := signed(t, "friend", record.KindTask, subject, 0, tk)
	d.receive(t, proposed, p2p.Accept)
	send("a third", p2p.Ignore)
	r, content, err := d.Sign(record.KindEnrolment, proposed.CID.String(), 0, task.Enrolment{
		Task: proposed.CID, Manifest: proposed.CID, Nation: "HUN", Node: "self", Moments: dataset.Moments{Count: 2, Mean: []float64{0}, M2: []float64{1}},
	})
	if err == nil {
		err = d.Announce(r, content)
	}
	if err != nil {
		t.Fatal(err)
	}
	send("a third", p2p.Accept)
	again := New(d.Config) // after a restart
	if !again.knows(idOf("a third")) || again.knows(idOf("another")) {
		t.Error("a restart changes who is known")
	}
}

// TestOwnRecords: what peers would refuse is not signed; what is announced is
// durable, handed on and sent.
func TestOwnRecords(t *testing.T) {
	d := newDesk(t)
	m := manifest(t, "rows")
	if _, _, err := d.Sign(record.KindManifest, "another name", 1, m); err == nil {
		t.Error("a manifest that peers refuse was signed")
	}
	r, content, err := d.Sign(record.KindManifest, "rows", 1, m)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Announce(r, content); err != nil || !d.Store.Has(r.CID) || len(d.handed) != 1 || d.published != 1 {
		t.Errorf("%v; %d handed on, %d sent", err, len(d.handed), d.published)
	}
}

// A book that listens signs nothing, and takes in what comes.
func TestListeningBookSignsNothing(t *testing.T) {
	d := newDesk(t)
	d.Listen()
	if _, _, err := d.Sign(record.KindManifest, "own", 1, manifest(t, "own")); err == nil || !strings.Contains(err.Error(), "may have lost") {
		t.Error(err)
	}
	d.receive(t, signed(t, "other", record.KindManifest, "m", 1, manifest(t, "m")), p2p.Accept)
	d.Resume()
	if _, _, err := d.Sign(record.KindManifest, "own", 1, manifest(t, "own")); err != nil {
		t.Error(err)
	}
}

// Beside a record of its own that the disk has lost, a book signs nothing until it
// is back; elsewhere it does.
func TestLostOwnRecordIsNotContradicted(t *testing.T) {
	live := filepath.Join(t.TempDir(), "live")
	store, err := storage.OpenLight(live)
	if err != nil {
		t.Fatal(err)
	}
	before := New(Config{Key: keyOf("self"), Federation: "test", Store: store, Log: log.New(slog.New(slog.DiscardHandler))})
	sign := func(b *Book, name string) (record.Record, error) {
		r, _, err := b.Sign(record.KindManifest, name, 1, manifest(t, name))
		return r, err
	}
	r, err := sign(before, "a")
	if err != nil {
		t.Fatal(err)
	}
	vote, err := record.Sign(keyOf("self"), "test", record.KindPrecommit, "task/final", 0, "vote")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []record.Record{r, vote} {
		if _, err := store.PutRecord(r); err != nil {
			t.Fatal(err)
		}
	}
	wrecked := filepath.Join(t.TempDir(), "wrecked")
	if err := os.CopyFS(wrecked, os.DirFS(live)); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	logs, err := filepath.Glob(filepath.Join(wrecked, "*.mem"))
	if err != nil || len(logs) != 1 {
		t.Fatal(logs, err)
	}
	if err := os.Remove(logs[0]); err != nil {
		t.Fatal(err)
	}
	if store, err = storage.OpenLight(wrecked); err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	after := New(Config{Key: keyOf("self"), Federation: "test", Store: store, Log: log.New(slog.New(slog.DiscardHandler))})
	if !store.Unsure(r.Author) || store.Highest(r.Slot) != 1 || store.Has(r.CID) {
		t.Fatalf("unsure: %t, highest version: %d", store.Unsure(r.Author), store.Highest(r.Slot))
	}
	other := func() error {
		_, _, err := after.Sign(record.KindPrevote, "task/final", 1, task.Vote{Value: []byte("x")})
		return err
	}
	if err := other(); !errors.Is(err, ErrLost) {
		t.Errorf("voted beside a lost vote: %v", err)
	}
	if _, err := sign(after, "b"); err != nil {
		t.Error(err)
	}
	if _, err := store.PutRecord(vote); err != nil {
		t.Fatal(err)
	}
	if err := other(); errors.Is(err, ErrLost) {
		t.Errorf("the vote is back: %v", err)
	}
	if lost := store.Damaged(); len(lost) != 1 || lost[0] != "record "+r.CID.String() {
		t.Errorf("lost: %q", lost)
	}
}
