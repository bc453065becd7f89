package tasks

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"io"
	"strings"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/libp2p/go-libp2p/core/peer"

	"village/node/api"
	"village/node/exchange"
	"village/node/p2p"
	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/member"
	"village/protocol/record"
	"village/protocol/task"
	"village/storage"
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

func (a *another) enrols(id record.CID, tk task.Task) record.CID {
	a.t.Helper()
	return a.says(record.KindEnrolment, id.String(), 0, task.Enrolment{
		Task: id, Nation: "CHE", Node: "other", Manifest: record.CIDOf([]byte("rows")),
		Moments: dataset.Moments{Count: 20, Mean: make([]float64, tk.Columns()), M2: make([]float64, tk.Columns())},
	}).CID
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

// is asks a run something.
func (t *Tasks) is(tb testing.TB, id record.CID, holds func(*run) bool) (answer bool) {
	tb.Helper()
	r := t.run(id)
	if err := r.ask(tb.Context(), func() { answer = holds(r) }); err != nil {
		tb.Fatal(err)
	}
	return answer
}

// chunks counts those in the store.
func (t *Tasks) chunks(tb testing.TB) (n int) {
	tb.Helper()
	if err := t.Store.Vectors().Sweep(func([32]byte) bool { n++; return true }); err != nil {
		tb.Fatal(err)
	}
	return n
}

// TestVectorsOfTheEnrolled: the vectors of a node that has not enrolled are not
// wanted, and of one that has, the two newest.
func TestVectorsOfTheEnrolled(t *testing.T) {
	tasks := alone(t)
	a := newAnother(t, tasks, 1)
	tk := wide(t, tasks, a.id)
	id := a.proposes(tk)
	vector := func(round byte) []byte { return bytes.Repeat([]byte{round}, 8*tk.Length(tk.Everyone())) }
	wanted := func(round byte) bool {
		tasks.settle(t, id)
		return tasks.Exchange.Needs(exchange.Announce(vector(round)).Chunks[0])
	}
	for round := range byte(3) {
		if a.announces(id, uint64(round)+1, vector(round)); wanted(round) {
			t.Error("a vector of nobody who has enrolled is fetched")
		}
	}
	a.enrols(id, tk)
	if wanted(0) || !wanted(1) || !wanted(2) {
		t.Error("the two newest of one who has enrolled are not wanted, or an old one is")
	}
	if a.announces(id, 9, vector(9)); wanted(1) || !wanted(2) || !wanted(9) {
		t.Error("an old one is still wanted, or the newest is not")
	}
	shown, err := tasks.Show(t.Context(), id, "x")
	if err != nil || shown.Nodes[0].Round != 9 {
		t.Errorf("%+v, %v", shown.Nodes, err)
	}
	if !tasks.is(t, id, func(r *run) bool { return r.RoundOf(a.id) == 0 && !r.works() }) {
		t.Error("a node works with the vectors of a task that does not name it")
	}
}

// TestNamedAndNotJoined: a node works with the vectors of a task that names it as
// far as there is room for those that it has not joined, and with those of one that
// it has joined in any case.
func TestNamedAndNotJoined(t *testing.T) {
	tasks := alone(t)
	a := newAnother(t, tasks, 1)
	works := func(id record.CID) bool { return tasks.is(t, id, (*run).works) }
	var ids []record.CID
	for rounds := range uint64(10) {
		tk := wide(t, tasks, a.id, tasks.Home.ID)
		tk.Rounds += rounds
		ids = append(ids, a.proposes(tk))
	}
	n := 0
	for _, id := range ids {
		if works(id) {
			n++
		}
	}
	most := tasks.run(ids[0]).most
	if n != int(maxFollowed/(2*most)) || n == 0 || n == len(ids) || works(ids[n]) {
		t.Fatalf("it works with %d tasks, each of which may have inputs of %d bytes", n, most)
	}
	if _, err := tasks.Join(t.Context(), api.Join{Task: ids[9]}); err != nil {
		t.Fatal(err)
	}
	if _, err := tasks.Join(t.Context(), api.Join{Task: ids[0]}); err != nil {
		t.Fatal(err)
	}
	if !works(ids[9]) || !works(ids[0]) || !works(ids[n]) || works(ids[n+1]) {
		t.Error("a task that was joined takes room of those that were not, or is not worked with")
	}
}

// TestVectorsOfAHome: a run goes on, after a restart, with the vectors that lie where
// they did before they had a keyspace; and once the model is made, none is left, and
// the run is still what it was.
func TestVectorsOfAHome(t *testing.T) {
	h := newHome(t)
	tasks, stop := started(t, h)
	tk := wide(t, tasks, h.ID)
	tk.Rounds, tk.Hidden = 6, []int{3000}
	proposed, err := tasks.Propose(t.Context(), tk)
	if err != nil {
		t.Fatal(err)
	}
	id := proposed.CID
	if _, err := tasks.Join(t.Context(), api.Join{Task: id}); err != nil {
		t.Fatal(err)
	}
	reached := func(what string, holds func(m *member.Member) bool) {
		t.Helper()
		if err := tasks.Follow(t.Context(), id, holds); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	reached("some rounds", func(m *member.Member) bool { return m.RoundOf(h.ID) >= 2 })
	stop()

	store, err := storage.OpenLight(h.StoreDir())
	if err != nil {
		t.Fatal(err)
	}
	var hashes [][32]byte
	if err := store.Vectors().Sweep(func(hash [32]byte) bool { hashes = append(hashes, hash); return true }); err != nil || len(hashes) == 0 {
		t.Fatalf("%d chunks, %v", len(hashes), err)
	}
	for _, hash := range hashes {
		b, err := store.Vectors().Chunk(hash)
		if err == nil {
			err = store.Blockstore().Put(t.Context(), blocks.NewBlock(b))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(store.Vectors().DeleteChunks(hashes...), store.Close()); err != nil {
		t.Fatal(err)
	}

	tasks, stop = started(t, h)
	modelled := func(m *member.Member) bool { cid, _ := m.Model(); return cid.Defined() }
	reached("the model", modelled)
	tasks.settle(t, id)
	if n := tasks.chunks(t); n != 0 || !tasks.is(t, id, func(r *run) bool { return len(r.vectors) == 0 }) {
		t.Errorf("%d chunks are left of a task that has its model", n)
	}
	cid := tasks.List()[0].ModelCID
	stop()
	tasks, stop = started(t, h)
	defer stop()
	reached("the model, again", modelled)
	tasks.settle(t, id)
	if again := tasks.List()[0]; again.ModelCID != cid || again.Error != "" || tasks.chunks(t) != 0 {
		t.Errorf("after a restart: %+v, and %d chunks", again, tasks.chunks(t))
	}
}

// TestUselessInputs: whoever is not named in a task fetches the inputs of its model
// when somebody asks to see the task, the others at once; and nobody does so again
// where they are not what they are said to be, or more than they can be.
func TestUselessInputs(t *testing.T) {
	for name, c := range map[string]struct {
		named  bool
		inputs func(task.Task) []byte
		says   string
	}{
		"not named": {false, func(task.Task) []byte { return []byte("no inputs") }, "malformed"},
		"named":     {true, func(task.Task) []byte { return []byte("no inputs") }, "malformed"},
		"too large": {true, func(tk task.Task) []byte { return make([]byte, tk.MaxInputs()+1) }, "too many"},
		"no updates": {true, func(task.Task) []byte {
			b, err := record.Encode(task.Inputs{Updates: [][]byte{[]byte("no record")}})
			if err != nil {
				t.Fatal(err)
			}
			return b
		}, "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			tasks := alone(t)
			liars := []*another{newAnother(t, tasks, 1), newAnother(t, tasks, 2), newAnother(t, tasks, 3)}
			a := liars[0]
			nodes := []record.NodeID{a.id, liars[1].id, liars[2].id}
			if c.named {
				nodes = append(nodes, tasks.Home.ID)
			}
			tk, err := tasks.draft(api.Propose{Name: "lies", Target: "y", Nodes: []record.NodeID{tasks.Home.ID}})
			if err != nil {
				t.Fatal(err)
			}
			tk.Nodes = distinct(nodes)
			inputs, _, err := tasks.Models.Add(t.Context(), c.inputs(tk))
			if err != nil {
				t.Fatal(err)
			}
			id := a.proposes(tk)
			enrolment := a.enrols(id, tk)
			seal := func(topic task.Topic, content any) {
				t.Helper()
				b, err := record.Encode(content)
				if err != nil {
					t.Fatal(err)
				}
				s := task.Seal{Content: b}
				for _, l := range liars {
					vote, err := record.Sign(l.key, "test", record.KindPrecommit, topic.Subject(id), 1, task.Vote{Value: record.CIDOf(b).Bytes()})
					if err != nil {
						t.Fatal(err)
					}
					s.Precommits = append(s.Precommits, vote.Bytes)
				}
				a.says(record.KindSeal, topic.Subject(id), 0, s)
			}
			final := task.FinalContent{Round: 1, Roster: record.CIDOf([]byte("roster")), Inputs: inputs, Model: record.CIDOf([]byte("model"))}
			for _, node := range tk.Nodes {
				if node == a.id {
					final.Parts = append(final.Parts, task.Part{Node: node, Enrolment: enrolment, Update: enrolment, Round: 1, Weight: 20})
				} else {
					final.Out = append(final.Out, task.Out{Node: node, Why: task.Absent})
				}
			}
			seal(task.TopicRoster, task.RosterContent{Enrolments: []record.CID{enrolment}})
			seal(task.TopicFinal, final)
			tasks.settle(t, id)
			if !c.named {
				if !tasks.is(t, id, func(r *run) bool { return r.unasked == inputs && r.err == "" }) {
					t.Error("inputs are fetched that nobody has asked for")
				}
				if _, err := tasks.Show(t.Context(), id, "x"); err != nil {
					t.Fatal(err)
				}
			}
			err = tasks.Follow(t.Context(), id, func(*member.Member) bool { return false })
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("the task goes on: %v", err)
			}
			if tasks.is(t, id, func(r *run) bool { return r.unasked.Defined() }) {
				t.Error("the same inputs are fetched again")
			}
		})
	}
}

// TestVectorsAreRelayed: a node that a task does not name passes its vectors on
// between those that reach each other through it alone.
func TestVectorsAreRelayed(t *testing.T) {
	tasks := alone(t)
	anyone := func(peer.ID) bool { return true }
	exchanging := func() *exchange.Exchange {
		store, err := storage.OpenLight(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		h := newHost(t)
		x := exchange.New(h, "test", store.Vectors(), anyone, anyone, nil)
		t.Cleanup(func() {
			x.Close()
			if err := errors.Join(h.Close(), store.Close()); err != nil {
				t.Error(err)
			}
		})
		between := hosts[tasks]
		if err := h.Connect(t.Context(), peer.AddrInfo{ID: between.ID(), Addrs: between.Addrs()}); err != nil {
			t.Fatal(err)
		}
		return x
	}
	author, other := exchanging(), exchanging()
	a := newAnother(t, tasks, 1)
	tk := wide(t, tasks, a.id)
	id := a.proposes(tk)
	a.enrols(id, tk)
	vector := bytes.Repeat([]byte("a vector"), tk.Length(tk.Everyone()))
	if _, err := author.Provide(a.id, vector); err != nil {
		t.Fatal(err)
	}
	a.announces(id, 1, vector)
	held, err := other.Hold(a.id, exchange.Announce(vector))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := held.Fetch(t.Context()); err != nil || !bytes.Equal(got, vector) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if tasks.is(t, id, func(r *run) bool { return r.works() }) {
		t.Error("the node between works with what it passes on")
	}
}
