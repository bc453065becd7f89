package tasks

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"village/node/api"
	"village/node/artifacts"
	"village/node/datasets"
	"village/node/exchange"
	"village/node/home"
	"village/node/log"
	"village/node/models"
	"village/node/p2p"
	"village/node/records"
	"village/protocol/dataset"
	"village/protocol/member"
	"village/protocol/record"
	"village/protocol/task"
	"village/storage"
)

// silence is a network with nobody in it.
type silence struct{}

func (silence) Publish(record.Record) error                { return nil }
func (silence) Deliver(context.Context, record.Record) int { return 0 }
func (silence) SyncSoon()                                  {}

// hosts are those of the nodes that run.
var hosts = map[*Tasks]host.Host{}

// alone returns the tasks of a node without peers, with a dataset of its own.
func alone(t *testing.T) *Tasks {
	t.Helper()
	tasks, stop := started(t, newHome(t))
	t.Cleanup(stop)
	return tasks
}

func newHome(t *testing.T) *home.Home {
	t.Helper()
	h, err := home.Init(filepath.Join(t.TempDir(), "home"), home.Options{Nation: "HUN", Name: "alone", Federation: "test", NoMDNS: true})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func newHost(t *testing.T) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(), libp2p.Ping(false))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// started returns the tasks of a home, which must be stopped.
func started(t *testing.T, h *home.Home) (tasks *Tasks, stop func()) {
	t.Helper()
	store, err := storage.OpenLight(h.StoreDir())
	if err != nil {
		t.Fatal(err)
	}
	l := log.New(slog.New(slog.DiscardHandler))
	book := records.New(records.Config{Key: h.Key, Federation: "test", Store: store, Log: l, Knows: h.Knows, AuthorBytes: 1 << 30, StrangersBytes: 1 << 30})
	own := newHost(t)
	anyone := func(peer.ID) bool { return true }
	vectors := exchange.New(own, "test", store.Vectors(), anyone, anyone, nil)
	inputs := artifacts.New(own, store.Blockstore(), anyone, anyone)
	ctx, quit := context.WithCancel(context.Background())
	tasks = New(ctx, Config{
		Home: h, Store: store, Log: l, Book: book, Datasets: datasets.New(h, book), Models: models.New(store, inputs, l), Exchange: vectors,
	})
	hosts[tasks] = own
	book.Start(silence{}, tasks.Deliver)
	tasks.Resume()
	stop = func() {
		quit()
		tasks.Wait()
		vectors.Close()
		delete(hosts, tasks)
		if err := errors.Join(inputs.Close(), own.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	}
	if len(store.Records(record.KindManifest)) > 0 {
		return tasks, stop
	}
	table := dataset.Table{Columns: []string{"x", "y"}}
	for i := range 40 {
		table.Rows = append(table.Rows, []string{fmt.Sprint(i), []string{"no", "yes"}[i%2]})
	}
	cleaned, err := dataset.Clean(table, dataset.Options{Name: "rows", Target: "y"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tasks.Datasets.Add(cleaned); err != nil {
		t.Fatal(err)
	}
	return tasks, stop
}

// propose proposes a task of the node alone.
func (t *Tasks) proposed(tb testing.TB, name string, rounds uint64) record.CID {
	tb.Helper()
	p, err := t.Draft(tb.Context(), api.Propose{Name: name, Target: "y", Nodes: []record.NodeID{t.Home.ID}, Settings: task.Settings{Rounds: rounds}})
	if err != nil {
		tb.Fatal(err)
	}
	return p.CID
}

// TestATaskStallsNoOther: while one task cannot move, another one goes from its
// proposal to its model.
func TestATaskStallsNoOther(t *testing.T) {
	tasks := alone(t)
	ctx := t.Context()
	stalled, other := tasks.proposed(t, "stalled", 1), tasks.proposed(t, "other", 3)
	release := make(chan struct{})
	defer close(release)
	tasks.run(stalled).post(func(*run) { <-release })
	if _, err := tasks.Join(ctx, api.Join{Task: other}); err != nil {
		t.Fatal(err)
	}
	if err := tasks.Follow(ctx, other, func(m *member.Member) bool { return m.Stage() == member.Done }); err != nil {
		t.Fatal(err)
	}
	shown, err := tasks.Show(ctx, other, "x")
	if err != nil || shown.Stage != api.StageDone || !shown.ModelCID.Defined() {
		t.Errorf("%+v, %v", shown, err)
	}
	if list := tasks.List(); len(list) != 2 || list[0].CID != stalled && list[1].CID != stalled {
		t.Errorf("%+v", list)
	}
	// A question about the task that cannot move ends with whoever asks.
	impatient, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := tasks.Show(impatient, stalled, "x"); err == nil {
		t.Error("a task that cannot move was shown")
	}
}

// TestAFullQueueHoldsUpNobody: records of a task that cannot move are taken in by
// the network all the same, and reach the task once it moves.
func TestAFullQueueHoldsUpNobody(t *testing.T) {
	tasks := alone(t)
	other := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	otherID := record.NodeID(other.Public().(ed25519.PublicKey))
	drafted, err := tasks.draft(api.Propose{Name: "two", Target: "y", Nodes: []record.NodeID{tasks.Home.ID}})
	if err != nil {
		t.Fatal(err)
	}
	drafted.Nodes = distinct([]record.NodeID{tasks.Home.ID, otherID})
	p, err := tasks.Propose(t.Context(), drafted)
	if err != nil {
		t.Fatal(err)
	}
	stuck := tasks.run(p.CID)
	release := make(chan struct{})
	stuck.post(func(*run) { <-release })
	receive := func(kind record.Kind, number uint64, body any) {
		t.Helper()
		r, err := record.Sign(other, "test", kind, p.CID.String(), number, body)
		if err != nil {
			t.Fatal(err)
		}
		if v := tasks.Book.Receive(t.Context(), otherID, r); v != p2p.Accept {
			t.Fatalf("%s %d: verdict %v", kind, number, v)
		}
	}
	for i := range 2 * cap(stuck.queue) {
		receive(record.KindBeacon, uint64(i+1), task.Beacon{Task: p.CID, Round: 1})
	}
	receive(record.KindEnrolment, 0, task.Enrolment{
		Task: p.CID, Nation: "CHE", Node: "other", Manifest: record.CIDOf([]byte("rows")),
		Moments: dataset.Moments{Count: 20, Mean: make([]float64, drafted.Encoding.Width()), M2: make([]float64, drafted.Encoding.Width())},
	})
	close(release)
	if err := tasks.Follow(t.Context(), p.CID, func(m *member.Member) bool {
		_, enrolled := m.Enrolment(otherID)
		return enrolled
	}); err != nil {
		t.Fatal(err)
	}
}

// TestNoTaskActsWhileTheNodeListens: a node whose disk has lost records signs
// nothing, not even for a task that is among what was lost and comes back.
func TestNoTaskActsWhileTheNodeListens(t *testing.T) {
	tasks := alone(t)
	tasks.resumed = false
	id := tasks.proposed(t, "comes back", 1)
	_, err := tasks.Join(t.Context(), api.Join{Task: id})
	if err == nil || !strings.Contains(err.Error(), "lost records") {
		t.Errorf("joined: %v", err)
	}
	if n := tasks.Store.Slots(record.KindEnrolment, tasks.Home.ID); n != 0 {
		t.Errorf("%d enrolments are signed", n)
	}
}
