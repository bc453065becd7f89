package datasets

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"village/node/home"
	"village/node/log"
	"village/node/records"
	"village/protocol/dataset"
	"village/protocol/record"
	"village/storage"
)

// silence is a network with nobody in it.
type silence struct{}

func (silence) Publish(record.Record) error                { return nil }
func (silence) Deliver(context.Context, record.Record) int { return 0 }
func (silence) SyncSoon()                                  {}

// alone returns the datasets of a node without peers.
func alone(tb testing.TB) *Datasets {
	tb.Helper()
	h, err := home.Init(filepath.Join(tb.TempDir(), "home"), home.Options{Nation: "HUN", Name: "alone", Federation: "test", NoMDNS: true})
	if err != nil {
		tb.Fatal(err)
	}
	store, err := storage.OpenLight(h.StoreDir())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := store.Close(); err != nil {
			tb.Error(err)
		}
	})
	book := records.New(records.Config{Key: h.Key, Federation: "test", Store: store, Log: log.New(slog.New(slog.DiscardHandler))})
	book.Start(silence{}, func(record.Record, any) {})
	return New(h, book)
}

// cleaned is rows of so many features beside a target.
func cleaned(tb testing.TB, name, target string, features int) dataset.Cleaned {
	tb.Helper()
	table := dataset.Table{Columns: []string{target}}
	for j := range features {
		table.Columns = append(table.Columns, fmt.Sprint("x", j))
	}
	for i := range 100 {
		row := []string{[]string{"no", "yes"}[i%2]}
		for j := range features {
			row = append(row, fmt.Sprint(i*(j+3)%97))
		}
		table.Rows = append(table.Rows, row)
	}
	c, err := dataset.Clean(table, dataset.Options{Name: name, Target: target})
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// publish has a stranger publish a manifest.
func (d *Datasets) publish(tb testing.TB, stranger, version uint64, m dataset.Manifest) record.NodeID {
	tb.Helper()
	seed := binary.BigEndian.AppendUint64(make([]byte, ed25519.SeedSize-8), stranger)
	m.Nation, m.Node, m.Commitment = "CHE", fmt.Sprintf("node %d.%d", stranger, version), make([]byte, 32)
	m.Created = version
	r, err := record.Sign(ed25519.NewKeyFromSeed(seed), "test", record.KindManifest, m.Name, version, m)
	if err != nil {
		tb.Fatal(err)
	}
	if outcome, err := d.book.Store.PutRecord(r); err != nil || outcome != storage.Stored {
		tb.Fatal(outcome, err)
	}
	return r.Author
}

func TestNewestManifestsAndNames(t *testing.T) {
	d := alone(t)
	first := d.publish(t, 1, 1, cleaned(t, "a", "y", 1).Manifest)
	second := d.publish(t, 2, 1, cleaned(t, "a", "y", 3).Manifest)
	d.publish(t, 2, 2, cleaned(t, "b", "z", 1).Manifest)
	if names := d.Names(); len(names) != 2 || names[first].Name != "node 1.1" || names[second].Name != "node 2.2" {
		t.Errorf("%v", names)
	}
	d.publish(t, 1, 3, cleaned(t, "a", "y", 2).Manifest) // in place of the first
	if names := d.Names(); len(names) != 2 || names[first].Name != "node 1.3" {
		t.Errorf("%v", names)
	}
	found, err := d.Newest([]record.NodeID{second, first}, "y", []string{"x0", "x1"})
	if err != nil || len(found) != 2 || len(found[0].Features()) != 3 || len(found[1].Features()) != 2 {
		t.Errorf("%v, %v", found, err)
	}
	for want, q := range map[string]struct {
		node   record.NodeID
		target string
	}{
		`lacks`:               {second, "w"},
		`no dataset of node `: {d.home.ID, "y"},
	} {
		if _, err := d.Newest([]record.NodeID{first, q.node}, q.target, nil); err == nil {
			t.Error(want, "is not an error")
		}
	}
}

// What a proposal to 200 nodes asks, and what `village status` does, of a thousand
// manifests.
func BenchmarkThousandManifests(b *testing.B) {
	d := alone(b)
	m := cleaned(b, "rows", "y", 50).Manifest
	var ids []record.NodeID
	for stranger := range uint64(200) {
		for i := range uint64(5) {
			m.Name = fmt.Sprint("rows ", i)
			id := d.publish(b, stranger, 1, m)
			if i == 0 {
				ids = append(ids, id)
			}
		}
	}
	b.Run("propose", func(b *testing.B) {
		for b.Loop() {
			found, err := d.Newest(ids, "y", []string{"x1"})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := dataset.NewEncoding("y", nil, "", found); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("names", func(b *testing.B) {
		for b.Loop() {
			if len(d.Names()) != 200 {
				b.Fatal("names are missing")
			}
		}
	})
}
