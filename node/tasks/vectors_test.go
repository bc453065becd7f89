package tasks

import (
	"bytes"
	"crypto/ed25519"
	"io"
	"testing"

	"village/node/api"
	"village/node/exchange"
	"village/node/p2p"
	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/record"
	"village/protocol/task"
)

// another is somebody else, whose records this node takes in.
type another struct {
	t     *testing.T
	tasks *Tasks
	key   ed25519.PrivateKey
	id    record.NodeID
}

func newAnother(t *testing.T, tasks *Tasks, seed byte) *another {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	return &another{t, tasks, key, record.NodeIDOf(key.Public().(ed25519.PublicKey))}
}

func (a *another) says(kind record.Kind, subject string, number uint64, body any) record.Record {
	a.t.Helper()
	r, err := record.Sign(a.key, "test", kind, subject, number, body)
	if err != nil {
		a.t.Fatal(err)
	}
	if v := a.tasks.Book.Receive(a.t.Context(), a.id, r); v != p2p.Accept {
		a.t.Fatalf("%s %d: verdict %v", kind, number, v)
	}
	return r
}

// wide is a task whose vectors do not ride inside updates, of some nodes.
func wide(t *testing.T, tasks *Tasks, nodes ...record.NodeID) task.Task {
	t.Helper()
	drafted, err := tasks.draft(api.Propose{Name: "wide", Target: "y", Nodes: []record.NodeID{tasks.Home.ID}, Settings: task.Settings{Rounds: 100}})
	if err != nil {
		t.Fatal(err)
	}
	drafted.Nodes, drafted.Model, drafted.Hidden = distinct(nodes), learn.MLP, []int{60_000}
	if err := drafted.Check(); err != nil {
		t.Fatal(err)
	}
	return drafted
}

// proposes publishes a task.
func (a *another) proposes(tk task.Task) record.CID {
	a.t.Helper()
	subject, err := tk.Subject()
	if err != nil {
		a.t.Fatal(err)
	}
	return a.says(record.KindTask, subject, 0, tk).CID
}

func (a *another) enrols(id record.CID, tk task.Task) {
	a.t.Helper()
	a.says(record.KindEnrolment, id.String(), 0, task.Enrolment{
		Task: id, Nation: "CHE", Node: "other", Manifest: record.CIDOf([]byte("rows")),
		Moments: dataset.Moments{Count: 20, Mean: make([]float64, tk.Columns()), M2: make([]float64, tk.Columns())},
	})
}

// announces says that a vector of these bytes is its update of a round.
func (a *another) announces(id record.CID, round uint64, vector []byte) {
	a.t.Helper()
	announced := exchange.Announce(vector)
	u := task.Update{Task: id, Roster: record.CIDOf([]byte("roster")), Weight: 20, Size: announced.Size, Vector: []byte{}}
	for _, hash := range announced.Chunks {
		u.Chunks = append(u.Chunks, hash[:]...)
	}
	a.says(record.KindUpdate, id.String(), round, u)
}

// settle waits until a task has taken in all that was delivered.
func (t *Tasks) settle(tb testing.TB, id record.CID) {
	tb.Helper()
	if err := t.run(id).ask(tb.Context(), func() {}); err != nil {
		tb.Fatal(err)
	}
}

// TestNobodyDeletesAnArtifact: whatever vectors a node announces, and takes back by
// announcing newer ones, the artifacts stay.
func TestNobodyDeletesAnArtifact(t *testing.T) {
	for name, enrolled := range map[string]bool{"by a stranger": false, "by one who has enrolled": true} {
		t.Run(name, func(t *testing.T) {
			tasks := alone(t)
			a := newAnother(t, tasks, 1)
			tk := wide(t, tasks, a.id)
			artifact := bytes.Repeat([]byte("artifact"), tk.Length(tk.Everyone()))
			cid, _, err := tasks.Store.AddArtifact(t.Context(), bytes.NewReader(artifact))
			if err != nil {
				t.Fatal(err)
			}
			id := a.proposes(tk)
			if enrolled {
				a.enrols(id, tk)
			}
			a.announces(id, 1, artifact)
			for round := range uint64(3) {
				a.announces(id, 2+round, bytes.Repeat([]byte{byte(round)}, len(artifact)))
			}
			tasks.settle(t, id)
			r, _, err := tasks.Store.Artifact(t.Context(), cid)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, artifact) {
				t.Errorf("%d bytes of %d are left: %v", len(got), len(artifact), err)
			}
		})
	}
}
