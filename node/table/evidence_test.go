package table

import (
	"bytes"
	"testing"

	"village/node/api"
	"village/protocol/record"
	"village/protocol/task"
)

// TestVerified: every named node has a line, whether or not it has a name.
func TestVerified(t *testing.T) {
	a := api.NamedNode{PeerID: record.NodeID{1}, Nation: "HUN", Name: "Budapest"}
	b := api.NamedNode{PeerID: record.NodeID{2}, Nation: "CHE", Name: "Zurich"}
	c := api.NamedNode{PeerID: record.NodeID{3}}
	cid := record.CIDOf(nil)
	got := render(t, func(w *bytes.Buffer, v api.Verified) error { return Verified(w, v) }, api.Verified{
		CID: cid, Task: cid, RosterCID: cid, Inputs: cid, Name: "risk", Federation: "f", Named: 3, Quorum: 2, Signers: []api.NamedNode{a, c},
		Roster: []api.NamedNode{a}, Round: 9, Parameters: 1234, Bytes: 2048,
		Parts: []api.VerifiedPart{{NamedNode: a, Round: 9, Weight: 70}, {NamedNode: b, Round: 8, Weight: 5, Late: true}},
		Out:   []api.VerifiedOut{{NamedNode: c, Why: task.Absent}},
	})
	text := cid.String()
	want := `valid       ` + text + `
name        risk
task        ` + text + `
federation  f
signed      by 2 of 3 nodes; 2 are a quorum
roster      ` + text + `, 1 nodes
inputs      ` + text + `
model       recomputed from 2 updates, up to round 9: 1234 parameters, 2.05 kB, byte for byte

PEER ID                                               NODE          SIGNED  IN ROSTER  ROUND  WEIGHT  PART
` +
		a.PeerID.String() + "  HUN Budapest  yes     yes        9      70      in the model\n" +
		b.PeerID.String() + "  CHE Zurich    no      no         8      5       in the model, joined late\n" +
		c.PeerID.String() + "  –             yes     no         –      –       out: absent\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
