package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"village/node/api"
	"village/node/artifacts"
	"village/node/home"
	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/record"
	"village/protocol/task"
)

func newHome(t *testing.T, name string) *home.Home {
	t.Helper()
	h, err := home.Init(filepath.Join(t.TempDir(), name), home.Options{
		Nation: "HUN", Name: name, Federation: "test", Listen: []string{"/ip4/127.0.0.1/tcp/0"}, NoMDNS: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func start(t *testing.T, h *home.Home) *Node {
	t.Helper()
	n, err := New(h, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func stop(t *testing.T, n *Node) {
	t.Helper()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

func connect(t *testing.T, a, b *Node) {
	t.Helper()
	if err := a.network.Connect(context.Background(), b.network.Addrs()[0]); err != nil {
		t.Fatal(err)
	}
}

// bigModel is a model whose file is long enough to stand in the value log.
func bigModel(t *testing.T) (task.Model, []byte) {
	t.Helper()
	m := task.Model{
		Task: record.CIDOf([]byte("task")), Name: "big", Round: 3, Roster: record.CIDOf([]byte("roster")),
		Encoding: dataset.Encoding{Target: "ill", Classes: []string{"no", "yes"}, Positive: "yes"},
	}
	for i := range 300 {
		m.Encoding.Features = append(m.Encoding.Features, dataset.FeatureSpec{
			Name: fmt.Sprintf("%s%03d", strings.Repeat("x", 250), i), Kind: dataset.Numeric,
		})
		m.Scaling.Mean, m.Scaling.SD = append(m.Scaling.Mean, 0), append(m.Scaling.SD, 1)
		m.Params = append(m.Params, float64(i))
	}
	m.Params = append(m.Params, 0)
	m.Spec = learn.Spec{Kind: learn.Logistic, Inputs: 300, Classes: 2}
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return m, b
}

func store(t *testing.T, n *Node, b []byte) record.CID {
	t.Helper()
	c, _, err := n.store.AddArtifact(context.Background(), bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// serving starts the node's local API, and returns a client of it.
func serving(t *testing.T, h *home.Home, n *Node) *api.Client {
	t.Helper()
	if err := n.server.Listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.server.Close)
	c, err := api.Dial(h.Dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// export asks for a model's bytes as the command does.
func export(c *api.Client, cid record.CID) ([]byte, error) {
	var b bytes.Buffer
	_, err := c.ModelBytes(context.Background(), cid, "", &b)
	return b.Bytes(), err
}

// TestModelsAreFetched: a model of a task that this node knows nothing of.
func TestModelsAreFetched(t *testing.T) {
	h := newHome(t, "b")
	a, b := start(t, newHome(t, "a")), start(t, h)
	defer stop(t, a)
	defer stop(t, b)
	client := serving(t, h, b)
	ctx := context.Background()
	m, data := bigModel(t)
	c := store(t, a, data)

	_, err := api.ShowModel.Ask(ctx, client, c)
	if e := api.AsError(err); err == nil || !strings.Contains(e.Message, artifacts.ErrAlone.Error()) || e.Next == "" {
		t.Errorf("alone: %v", err)
	}
	if _, err := export(client, c); err == nil {
		t.Error("what is not there was exported")
	}
	connect(t, b, a)
	shown, err := api.ShowModel.Ask(ctx, client, c)
	if err != nil {
		t.Fatal(err)
	}
	if shown.CID != c || shown.Name != "big" || shown.Task != m.Task || shown.Bytes != uint64(len(data)) || len(shown.Weight[0]) != 300 {
		t.Errorf("shown: %s %q of task %s, %d bytes", shown.CID, shown.Name, shown.Task, shown.Bytes)
	}
	if got, err := export(client, c); err != nil || !bytes.Equal(got, data) {
		t.Errorf("exported: %d bytes, %v", len(got), err)
	}
	rows := filepath.Join(t.TempDir(), "rows.csv")
	var head, row []string
	for _, f := range m.Encoding.Features {
		head, row = append(head, f.Name), append(row, "1")
	}
	if err := os.WriteFile(rows, []byte(strings.Join(head, ",")+"\n"+strings.Join(row, ",")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if v, err := api.PredictRows.Ask(ctx, client, api.Predict{Model: c, Path: rows}); err != nil || v.Predictions[0] != "yes" {
		t.Errorf("predicted: %v, %v", v, err)
	}
	_, err = api.ReportModel.Ask(ctx, client, c)
	if err == nil || !strings.Contains(err.Error(), "no task whose records are here") {
		t.Errorf("report: %v", err)
	}
	if s, err := api.GetStatus.Ask(ctx, client, api.None{}); err != nil || len(s.Lost) != 0 || s.Lost == nil {
		t.Errorf("lost %q, %v", s.Lost, err)
	}

	// What is fetched and is no model says so.
	_, err = api.ShowModel.Ask(ctx, client, store(t, a, []byte("no model")))
	if err == nil || !strings.Contains(err.Error(), "is not a model") {
		t.Errorf("no model: %v", err)
	}
}

// TestDamageIsHealed: a node starts on a disk that has changed its models, names
// what it has lost, and has it back once a peer that holds it is connected.
func TestDamageIsHealed(t *testing.T) {
	others := newHome(t, "a")
	a := start(t, others)
	ctx := context.Background()
	_, data := bigModel(t)
	c := store(t, a, data)
	h := newHome(t, "b")
	b := start(t, h)
	connect(t, b, a)
	if _, _, err := b.models.Get(ctx, c); err != nil {
		t.Fatal(err)
	}
	stop(t, b)
	stop(t, a) // which it would find again at once

	damage(t, h.StoreDir(), data[1000:1100])
	b = start(t, h)
	defer stop(t, b)
	client := serving(t, h, b)
	lost := func() []string {
		s, err := api.GetStatus.Ask(ctx, client, api.None{})
		if err != nil {
			t.Fatal(err)
		}
		return s.Lost
	}
	eventually(t, "the loss is named", func() bool { return slices.Contains(lost(), "artifact "+c.String()) })
	a = start(t, others)
	defer stop(t, a)
	connect(t, b, a)
	eventually(t, "the loss is healed", func() bool { return len(lost()) == 0 })
	if _, got, err := b.models.Get(ctx, c); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}

	// Damage that shows while the daemon runs is healed by whoever meets it.
	if err := b.store.Blockstore().DeleteBlock(ctx, c.Cid); err != nil {
		t.Fatal(err)
	}
	if got, err := export(client, c); err != nil || !bytes.Equal(got, data) {
		t.Errorf("exported: %d bytes, %v", len(got), err)
	}
}

// TestALostStoreComesBack: a node whose store is gone signs nothing until a peer has
// given its records back, and then goes on from them.
func TestALostStoreComesBack(t *testing.T) {
	old := recovery
	recovery = time.Second
	defer func() { recovery = old }()
	a := start(t, newHome(t, "a"))
	defer stop(t, a)
	h := newHome(t, "b")
	b := start(t, h)
	if b.Tasks.Resumed() != true {
		t.Error("a new node listens")
	}
	add := func(n *Node) (api.AddedDataset, error) {
		table := dataset.Table{Columns: []string{"x", "y"}}
		for i := range 40 {
			table.Rows = append(table.Rows, []string{fmt.Sprint(i), []string{"no", "yes"}[i%2]})
		}
		cleaned, err := dataset.Clean(table, dataset.Options{Name: "rows", Target: "y"})
		if err != nil {
			t.Fatal(err)
		}
		return n.Datasets.Add(cleaned)
	}
	first, err := add(b)
	if err != nil {
		t.Fatal(err)
	}
	connect(t, b, a)
	eventually(t, "the peer has the manifest", func() bool { return a.store.Has(first.CID) })
	if err := h.Update(func(c *home.Config) error {
		c.Peers = []string{a.network.Addrs()[0]}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	stop(t, b)
	if err := os.RemoveAll(h.StoreDir()); err != nil {
		t.Fatal(err)
	}

	for range 2 { // also when it is stopped before it has recovered
		b = start(t, h)
		if b.Tasks.Resumed() || !b.store.Unsure(h.ID) {
			t.Error("a node without a store does not listen")
		}
		if _, err := add(b); err == nil || !strings.Contains(err.Error(), "may have lost") {
			t.Errorf("a node that may have lost records has signed one: %v", err)
		}
		if !strings.Contains(b.server.Log.Last(), "the store is gone") && b.store.Fresh() {
			t.Errorf("last error: %q", b.server.Log.Last())
		}
		stop(t, b)
	}
	b = start(t, h)
	defer stop(t, b)
	eventually(t, "the node has recovered", b.Tasks.Resumed)
	if !b.store.Has(first.CID) {
		t.Error("its manifest did not come back")
	}
	again, err := add(b)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := b.store.Record(again.CID); err != nil || r.Number != 2 {
		t.Errorf("version %d, %v", r.Number, err)
	}
}

// damage flips a byte of a closed store, where a piece of a value stands.
func damage(t *testing.T, dir string, piece []byte) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.vlog"))
	for _, name := range names {
		b, readErr := os.ReadFile(name)
		if i := bytes.Index(b, piece); i >= 0 {
			b[i] ^= 1
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
			return
		}
		err = errors.Join(err, readErr)
	}
	t.Fatalf("the store's files do not hold the value: %v", err)
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); {
		if time.Now().After(end) {
			t.Fatal(what + ": not in 30 seconds")
		}
		time.Sleep(10 * time.Millisecond) // polls what nobody announces
	}
}
