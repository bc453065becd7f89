package evidence_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"village/node/api"
	"village/node/artifacts"
	"village/node/log"
	"village/node/models"
	"village/protocol/record"
	"village/protocol/task"
	"village/storage"
)

// place is a store and a host, with the models that both have.
type place struct {
	store  *storage.Store
	host   host.Host
	models *models.Models
}

func newPlace(t *testing.T) *place {
	t.Helper()
	store, err := storage.OpenLight(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
	if err != nil {
		t.Fatal(err)
	}
	anyone := func(peer.ID) bool { return true }
	peers := artifacts.New(h, store.Blockstore(), anyone, anyone)
	t.Cleanup(func() {
		for _, close := range []func() error{peers.Close, h.Close, store.Close} {
			if err := close(); err != nil {
				t.Error(err)
			}
		}
	})
	return &place{store, h, models.New(store, peers, log.New(slog.New(slog.DiscardHandler)))}
}

func (p *place) add(t *testing.T, b []byte) record.CID {
	t.Helper()
	c, _, err := p.models.Add(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestModelsAreVerified: a daemon that has a task's seal checks the model from
// its store and from its peers, and says what is lacking.
func TestModelsAreVerified(t *testing.T) {
	a, b := newPlace(t), newPlace(t)
	ctx := context.Background()
	s := newSealing(t, "a task")
	refused := func(n *place, cid record.CID, words ...string) {
		t.Helper()
		_, _, err := n.models.Evidence(ctx, cid)
		for _, word := range words {
			if err == nil || !strings.Contains(err.Error(), word) || api.AsError(err).Next == "" {
				t.Errorf("%v: does not say %q", err, word)
			}
		}
	}
	put := func(n *place, r record.Record) {
		t.Helper()
		if _, err := n.store.PutRecord(r); err != nil {
			t.Fatal(err)
		}
	}
	cid := s.content.Model
	refused(a, cid, "is not stored here")
	a.add(t, s.model)
	refused(a, cid, "no certificate of task "+s.id.String())
	few := s.seal(t)
	s.signers = []int{0, 1, 2, 3}
	many := signed(t, s.keys[1], record.KindSeal, few.Subject, 0, func() (seal task.Seal) {
		if err := record.Decode(s.seal(t).Payload, &seal); err != nil {
			t.Fatal(err)
		}
		return seal
	}())
	put(a, few)
	refused(a, cid, "the records that model", "cannot be fetched")
	a.add(t, encoded(t, s.in))
	put(a, many)
	_, v, err := a.models.Evidence(ctx, cid)
	if err != nil {
		t.Fatal(err)
	}
	if v.CID != cid || len(v.Signers) != 4 || v.Signers[3].Name != "" || len(v.Parts) != 3 {
		t.Errorf("%+v", v)
	}

	// Another node has the seal alone.
	put(b, few)
	if err := b.host.Connect(ctx, peer.AddrInfo{ID: a.host.ID(), Addrs: a.host.Addrs()}); err != nil {
		t.Fatal(err)
	}
	got, _, err := b.models.Evidence(ctx, cid)
	if err != nil {
		t.Fatal(err)
	}
	if want := s.evidence(t); !bytes.Equal(got.Seal, few.Bytes) || !bytes.Equal(got.Inputs, want.Inputs) || !bytes.Equal(got.Model, want.Model) {
		t.Error("the evidence is not what the other node has")
	}

	// A file that says that it is this task's model.
	claimed := bytes.Replace(s.model, []byte("a task"), []byte("A task"), 1)
	refused(a, a.add(t, claimed), "is not the model that the nodes of its task have signed", cid.String())

	// A quorum that has signed what does not add up.
	liars := newSealing(t, "lies")
	liars.model = bytes.Replace(liars.model, []byte("lies"), []byte("LIES"), 1)
	liars.content.Model = a.add(t, liars.model)
	a.add(t, encoded(t, liars.in))
	put(a, liars.seal(t))
	refused(a, liars.content.Model, "does not hold", "not what the updates come to")
}
