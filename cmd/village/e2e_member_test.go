package main

import (
	"slices"
	"testing"

	"village/node/api"
)

// TestClosedFederation: only members connect and see datasets, from the moment
// at which they are admitted to the one at which they are put out, without a
// restart.
func TestClosedFederation(t *testing.T) {
	t.Parallel()
	s := federation(t, "budapest", "zurich", "outsider")
	member, other, outsider := s[0], s[1], s[2]
	admit := func(id string) {
		for _, site := range s[:2] {
			var v api.Members
			site.json(&v, "member", "add", id)
			if !v.Closed {
				t.Errorf("%s is open with a member list", site.home)
			}
		}
	}
	admit(member.id)
	admit(other.id)
	connect(member, other)
	first := member.add("first", patients(t, 1, 40), "--target", "sick")
	other.sees(first)
	// Datasets of one who is put out later may stay, those of strangers may not come.
	strange := outsider.add("strange", patients(t, 2, 40), "--target", "sick")

	// locked waits until the door has been tried and found shut.
	locked := func() {
		t.Helper()
		before := member.status().MessagesRefused
		outsider.refused(13, []string{"hung up", "closed federation", "the address is kept"}, "peer", "add", member.address)
		eventually(t, "the member has refused the outsider", func() bool { return member.status().MessagesRefused > before })
		eventually(t, "the outsider has no peers", func() bool { return outsider.status().Peers == 0 })
		if v := member.status(); !v.Closed || v.Peers != 1 {
			t.Errorf("closed %v, %d peers", v.Closed, v.Peers)
		}
	}
	lists := func(site *site, cid string) bool {
		t.Helper()
		v, err := api.ListDatasets.Ask(site.ctx, site.client(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(v.Datasets, func(d api.Dataset) bool { return d.CID.String() == cid })
	}
	locked()
	if lists(outsider, first) {
		t.Error("an outsider sees a dataset")
	}
	if lists(member, strange) {
		t.Error("an outsider's dataset is taken in")
	}
	member.refused(1, []string{"not a member", "village member add " + outsider.id}, "peer", "add", outsider.address)

	admit(outsider.id)
	outsider.ok("peer", "add", member.address)
	outsider.sees(first)
	member.sees(strange)
	other.sees(strange)
	var v api.Members
	member.json(&v, "member", "list")
	if !slices.ContainsFunc(v.Members, func(m api.Member) bool { return m.PeerID.String() == outsider.id && m.Connected }) {
		t.Errorf("the outsider is a member and connected, but listed are %+v", v.Members)
	}

	for _, site := range s[:2] {
		site.ok("member", "remove", outsider.id)
	}
	eventually(t, "the outsider is cut off", func() bool { return outsider.status().Peers == 0 })
	locked()
	second := member.add("second", patients(t, 3, 40), "--target", "sick")
	later := outsider.add("later", patients(t, 4, 40), "--target", "sick")
	other.sees(second)
	locked()
	if lists(outsider, second) {
		t.Error("one who was put out sees a new dataset")
	}
	if lists(member, later) || lists(other, later) {
		t.Error("a new dataset of one who was put out is taken in")
	}

	// The list outlives a restart.
	member.kill()
	member.start()
	eventually(t, "the members find each other", func() bool { return member.status().Peers == 1 })
	locked()
	for _, site := range s[:2] {
		if e := site.status().LastError; e != "" {
			t.Errorf("%s: %s", site.home, e)
		}
	}
}
