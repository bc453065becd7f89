package task

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"village/protocol/dataset"
	"village/protocol/record"
)

func TestRosterOf(t *testing.T) {
	parts := []Enrolled{
		{CID: record.CIDOf([]byte("b")), Author: idOf(keys[1]), Enrolment: Enrolment{Moments: dataset.Moments{Count: 3, Mean: []float64{2}, M2: []float64{2}}}},   // 1 2 3
		{CID: record.CIDOf([]byte("a")), Author: idOf(keys[0]), Enrolment: Enrolment{Moments: dataset.Moments{Count: 2, Mean: []float64{15}, M2: []float64{50}}}}, // 10 20
	}
	r, err := RosterOf(good(), parts)
	if err != nil {
		t.Fatal(err)
	}
	// The links sorted by their bytes, by hand.
	links := [][]byte{parts[0].CID.Bytes(), parts[1].CID.Bytes()}
	slices.SortFunc(links, bytes.Compare)
	want := append([]byte{0xa1, 0x6a}, "enrolments\x82"...)
	for _, link := range links {
		want = append(append(want, 0xd8, 42, 0x58, 37, 0), link...)
	}
	if r.CID != record.CIDOf(want) {
		t.Errorf("CID %s, by hand %s", r.CID, record.CIDOf(want))
	}
	mean, variance := 36./5, 0.
	for _, x := range []float64{1, 2, 3, 10, 20} {
		variance += (x - mean) * (x - mean) / 5
	}
	if d := math.Abs(r.Scaling.Mean[0] - mean); d > 1e-15 {
		t.Errorf("mean %g, want %g", r.Scaling.Mean[0], mean)
	}
	if d := math.Abs(r.Scaling.SD[0] - math.Sqrt(variance)); d > 1e-14 {
		t.Errorf("standard deviation %g, want %g", r.Scaling.SD[0], math.Sqrt(variance))
	}
	if r.Index(idOf(keys[0])) != 0 || r.Index(idOf(keys[1])) != 1 || r.Index(idOf(keys[3])) != -1 || r.Members[0].Moments.Count != 2 || r.Members[1].Moments.Count != 3 {
		t.Errorf("members %+v", r.Members)
	}
	if parts[0].Author != idOf(keys[1]) {
		t.Error("the argument was sorted")
	}
	if _, err := RosterOf(good(), nil); err == nil {
		t.Error("a roster of nobody")
	}
}

func TestRostersAreTheSameInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, width := rapid.IntRange(1, 9).Draw(t, "nodes"), rapid.IntRange(1, 4).Draw(t, "width")
		number := rapid.Float64Range(-1e6, 1e6)
		var parts []Enrolled
		for i := range n {
			m := dataset.Moments{Count: rapid.Uint64Range(1, MaxRows).Draw(t, "count")}
			for range width {
				m.Mean = append(m.Mean, number.Draw(t, "mean"))
				m.M2 = append(m.M2, math.Abs(number.Draw(t, "m2")))
			}
			parts = append(parts, Enrolled{CID: record.CIDOf([]byte{byte(i)}), Author: record.NodeID{byte(i)}, Enrolment: Enrolment{Moments: m}})
		}
		a, err := RosterOf(good(), parts)
		if err != nil {
			t.Fatal(err)
		}
		b, err := RosterOf(good(), rapid.Permutation(parts).Draw(t, "order"))
		if err != nil {
			t.Fatal(err)
		}
		bits := func(r Roster) string { return fmt.Sprintf("%b %v", r.Scaling, r) }
		if bits(a) != bits(b) {
			t.Fatalf("%v in another order is %v", a, b)
		}
		// Another enrolment of one node is another roster.
		i := rapid.IntRange(0, n-1).Draw(t, "other")
		other := slices.Clone(parts)
		other[i].CID = record.CIDOf([]byte("other"))
		if c, err := RosterOf(good(), other); err != nil || c.CID == a.CID {
			t.Fatalf("another enrolment gives the same roster, %v", err)
		}
		if !bytes.Equal(a.CID.Bytes(), b.CID.Bytes()) {
			t.Fatal("CIDs differ")
		}
	})
}
