package storage

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"village/protocol/record"
	"village/protocol/task"
)

func TestPutRecord(t *testing.T) {
	manifest := func(n uint64, text string) record.Record {
		return signed(t, 1, record.KindManifest, "m", n, text)
	}
	update := func(n uint64, text string) record.Record {
		return signed(t, 1, record.KindUpdate, "task", n, text)
	}
	type step struct {
		put  record.Record
		want Outcome
	}
	for name, c := range map[string]struct {
		steps    []step
		held     []uint64
		evidence int
	}{
		"newer replaces":      {[]step{{manifest(1, "a"), Stored}, {manifest(2, "b"), Stored}}, []uint64{2}, 0},
		"known":               {[]step{{manifest(1, "a"), Stored}, {manifest(1, "a"), Known}}, []uint64{1}, 0},
		"old":                 {[]step{{manifest(2, "b"), Stored}, {manifest(1, "a"), Old}}, []uint64{2}, 0},
		"replaced is old":     {[]step{{manifest(1, "a"), Stored}, {manifest(2, "b"), Stored}, {manifest(1, "a"), Old}}, []uint64{2}, 0},
		"equivocation":        {[]step{{manifest(1, "a"), Stored}, {manifest(1, "b"), Equivocation}, {manifest(1, "c"), Proven}, {manifest(1, "b"), Proven}}, []uint64{1}, 1},
		"two updates":         {[]step{{update(1, "a"), Stored}, {update(2, "b"), Stored}, {update(3, "c"), Stored}}, []uint64{3, 2}, 0},
		"late update fits":    {[]step{{update(3, "c"), Stored}, {update(1, "a"), Stored}, {update(2, "b"), Stored}, {update(1, "a"), Old}}, []uint64{3, 2}, 0},
		"older equivocation":  {[]step{{update(3, "c"), Stored}, {update(2, "b"), Stored}, {update(2, "x"), Equivocation}, {update(1, "y"), Old}}, []uint64{3, 2}, 1},
		"newer than evidence": {[]step{{update(1, "a"), Stored}, {update(1, "b"), Equivocation}, {update(2, "c"), Stored}, {update(3, "d"), Stored}}, []uint64{3, 2}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			for i, st := range c.steps {
				got, err := s.PutRecord(st.put)
				if err != nil || got != st.want {
					t.Fatalf("step %d: %v, %v; want %v", i, got, err, st.want)
				}
			}
			for range 2 { // before and after a restart
				var numbers []uint64
				for _, r := range s.Newest(c.steps[0].put.Slot) {
					numbers = append(numbers, r.Number)
					if got, err := s.Record(r.CID); err != nil || !reflect.DeepEqual(got, r) {
						t.Errorf("record %d: %v", r.Number, err)
					}
				}
				if !slices.Equal(numbers, c.held) {
					t.Errorf("held %v, want %v", numbers, c.held)
				}
				if got := s.Records(c.steps[0].put.Kind); len(got) != len(c.held) {
					t.Errorf("%d records of the kind", len(got))
				}
				pairs, err := s.Evidence()
				if err != nil || len(pairs) != c.evidence {
					t.Fatalf("%d pairs of evidence, %v", len(pairs), err)
				}
				for _, p := range pairs {
					if p[0].Slot != p[1].Slot || p[0].Number != p[1].Number || p[0].CID == p[1].CID {
						t.Error("the evidence proves nothing")
					}
				}
				s = reopen(t, s)
			}
		})
	}
}

// A proof spreads as records do: both halves are members of their group, can be
// read, and stay when the first one leaves its slot; whoever holds them the other
// way round has the same group.
func TestProofsSpread(t *testing.T) {
	a, b := signed(t, 1, record.KindUpdate, "task", 1, "a"), signed(t, 1, record.KindUpdate, "task", 1, "b")
	digests := map[[32]byte]bool{}
	for _, order := range [][]record.Record{{a, b}, {b, a}} {
		s := open(t, t.TempDir())
		for _, r := range append(order, signed(t, 1, record.KindUpdate, "task", 2, ""), signed(t, 1, record.KindUpdate, "task", 3, "")) {
			if _, err := s.PutRecord(r); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // before and after a restart
			for i, r := range order {
				other, second, ok := s.Contradicts(r.CID)
				if !ok || other != order[1-i].CID || second != (i == 1) || !s.Has(r.CID) {
					t.Errorf("%s contradicts %s: %v, came second: %v", r.CID, other, ok, second)
				}
				if got, err := s.Record(r.CID); err != nil || got.CID != r.CID {
					t.Error(err)
				}
			}
			if g := s.Group("task"); len(g) != 4 {
				t.Errorf("%d members", len(g))
			}
			digests[s.Groups()["task"]] = true
			s = reopen(t, s)
		}
		// A damaged half takes the proof with it, until it comes anew.
		if err := s.commit(op{evidenceKey(a.Slot, 1), []byte("not sealed")}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Record(order[1].CID); err == nil {
			t.Error("a damaged half is read")
		}
		if _, _, ok := s.Contradicts(order[0].CID); ok || len(s.Group("task")) != 2 {
			t.Error("a damaged proof stands")
		}
	}
	if len(digests) != 1 {
		t.Errorf("%d digests of one group", len(digests))
	}
}

func TestPutRecordRefusesWhatDoesNotHash(t *testing.T) {
	s := open(t, t.TempDir())
	r := signed(t, 1, record.KindManifest, "m", 1, "a")
	other := signed(t, 1, record.KindManifest, "m", 2, "b")
	for name, bad := range map[string]record.Record{
		"another's name": {CID: other.CID, Bytes: r.Bytes},
		"no bytes":       {CID: r.CID},
		"not a record":   {CID: record.CIDOf([]byte("x")), Bytes: []byte("x")},
	} {
		if _, err := s.PutRecord(bad); err == nil {
			t.Errorf("%s: stored", name)
		}
	}
	if _, err := s.Record(r.CID); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if _, err := s.Record(record.CID{}); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

// What a store holds depends on what was put, not on the order.
func TestHeldIsTheNewestInAnyOrder(t *testing.T) {
	var pool []record.Record
	for by := range 3 {
		for n := range uint64(4) {
			pool = append(pool,
				signed(t, by, record.KindUpdate, "task", n, "u"),
				signed(t, by, record.KindManifest, fmt.Sprintf("m%d", by%2), n, "m"))
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		s := open(t, t.TempDir())
		defer s.Close()
		order := rapid.Permutation(pool).Draw(rt, "order")
		order = order[:rapid.IntRange(0, len(order)).Draw(rt, "n")]
		want := map[record.Slot][]uint64{}
		for _, r := range order {
			if _, err := s.PutRecord(r); err != nil {
				rt.Fatal(err)
			}
			want[r.Slot] = append(want[r.Slot], r.Number)
		}
		groups := map[string][]record.CID{}
		for slot, numbers := range want {
			slices.Sort(numbers)
			slices.Reverse(numbers)
			numbers = numbers[:min(len(numbers), slot.Kind.Keep())]
			var got []uint64
			for _, r := range s.Newest(slot) {
				got = append(got, r.Number)
				groups[slot.Group()] = append(groups[slot.Group()], r.CID)
			}
			if !slices.Equal(got, numbers) {
				rt.Fatalf("%v: %v, want %v", slot, got, numbers)
			}
		}
		digests := s.Groups()
		if len(digests) != len(groups) {
			rt.Fatalf("%d groups, want %d", len(digests), len(groups))
		}
		for name, cids := range groups {
			slices.SortFunc(cids, func(a, b record.CID) int { return bytes.Compare(a.Bytes(), b.Bytes()) })
			if !slices.Equal(s.Group(name), cids) {
				rt.Fatalf("group %s", name)
			}
			h := sha256.New()
			for _, c := range cids {
				h.Write(c.Bytes())
			}
			if digest := digests[name]; !bytes.Equal(digest[:], h.Sum(nil)) {
				rt.Fatalf("digest of %s", name)
			}
		}
	})
}

func TestGroups(t *testing.T) {
	s := open(t, t.TempDir())
	put := func(r record.Record) {
		t.Helper()
		if o, err := s.PutRecord(r); err != nil || o != Stored {
			t.Fatal(o, err)
		}
	}
	if len(s.Groups()) != 0 || s.Group("nothing") != nil {
		t.Fatal("an empty store has groups")
	}
	put(signed(t, 1, record.KindManifest, "m", 1, "a"))
	put(signed(t, 1, record.KindEnrolment, "task", 0, "e"))
	first := s.Groups()
	put(signed(t, 2, record.KindUpdate, "task", 1, "u"))
	second := s.Groups()
	if len(second) != 2 || first[record.Catalogue] != second[record.Catalogue] || first["task"] == second["task"] {
		t.Error("only the group of the new record changes")
	}
	again := reopen(t, s).Groups()
	if !reflect.DeepEqual(second, again) {
		t.Error("a restart changes the digests")
	}
}

func TestRecordsAreOrdered(t *testing.T) {
	s := open(t, t.TempDir())
	for _, subject := range []string{"b", "a"} {
		for by := range 5 {
			for _, n := range []uint64{7, 5} {
				if _, err := s.PutRecord(signed(t, by, record.KindUpdate, subject, n, "u")); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	got := s.Records(record.KindUpdate)
	if len(got) != 20 || !slices.IsSortedFunc(got, func(a, b record.Record) int {
		if c := strings.Compare(a.Subject, b.Subject); c != 0 {
			return c
		}
		if c := a.Author.Compare(b.Author); c != 0 {
			return c
		}
		return int(a.Number) - int(b.Number)
	}) {
		t.Errorf("%d records out of order", len(got))
	}
	if len(s.Records(record.KindTask)) != 0 {
		t.Error("records of another kind")
	}
	own := got[0].Author
	if n, none := s.Slots(record.KindUpdate, own), s.Slots(record.KindTask, own); n != 2 || none != 0 {
		t.Errorf("%d slots of updates and %d of tasks", n, none)
	}
}

// While writers replace records, a reader always finds the slot held.
func TestHeldNeverMissesTheNewest(t *testing.T) {
	s := open(t, t.TempDir())
	slot := signed(t, 1, record.KindManifest, "m", 1, "x").Slot
	if _, err := s.PutRecord(signed(t, 1, record.KindManifest, "m", 1, "x")); err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	var records []record.Record
	for n := range uint64(60) {
		records = append(records, signed(t, 1, record.KindManifest, "m", n+2, "x"))
	}
	writers.Go(func() {
		for _, r := range records {
			if _, err := s.PutRecord(r); err != nil {
				t.Error(err)
			}
		}
	})
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for newest := uint64(0); ; {
		got := s.Newest(slot)
		if len(got) != 1 || got[0].Number < newest {
			t.Fatalf("held %d records", len(got))
		}
		newest = got[0].Number
		select {
		case <-done:
			if d := s.Damaged(); len(d) != 0 {
				t.Error(d)
			}
			return
		default:
		}
	}
}

func TestDamagedRecordsAreDroppedAndComeBack(t *testing.T) {
	for _, atOpen := range []bool{true, false} {
		s := open(t, t.TempDir())
		good := signed(t, 1, record.KindManifest, "good", 1, "x")
		bad := signed(t, 1, record.KindManifest, "bad", 1, "x")
		for _, r := range []record.Record{good, bad} {
			if _, err := s.PutRecord(r); err != nil {
				t.Fatal(err)
			}
		}
		rotten := bytes.Clone(bad.Bytes)
		rotten[len(rotten)/2] ^= 1
		if err := s.commit(op{recordKey(bad.CID), rotten}, op{[]byte("rnot a CID"), []byte("x")}); err != nil {
			t.Fatal(err)
		}
		if atOpen {
			s = reopen(t, s)
		}
		if got := s.Records(record.KindManifest); len(got) != 1 || got[0].CID != good.CID {
			t.Errorf("%d records", len(got))
		}
		if _, err := s.Record(bad.CID); !errors.Is(err, ErrDamaged) {
			t.Error(err)
		}
		if s.Has(bad.CID) || len(s.Group(record.Catalogue)) != 1 {
			t.Error("a damaged record is said to be held")
		}
		if !slices.Contains(s.Damaged(), "record "+bad.CID.String()) {
			t.Error(s.Damaged())
		}
		if o, err := s.PutRecord(bad); err != nil || o != Stored {
			t.Fatal(o, err)
		}
		if _, err := s.Record(bad.CID); err != nil || slices.Contains(s.Damaged(), "record "+bad.CID.String()) {
			t.Errorf("%v, damaged are %q", err, s.Damaged())
		}
		s = reopen(t, s)
		if len(s.Records(record.KindManifest)) != 2 {
			t.Error("the record did not come back")
		}
		s = reopen(t, s)
		if d := s.Damaged(); len(d) != 0 {
			t.Error(d)
		}
	}
}

func TestDamagedAreSorted(t *testing.T) {
	s := open(t, t.TempDir())
	want := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	for _, i := range []int{3, 7, 0, 5, 1, 6, 2, 4, 3} {
		s.markDamaged(want[i])
	}
	if got := s.Damaged(); !slices.Equal(got, want) {
		t.Errorf("damaged are %q", got)
	}
}

func TestDamagedEvidence(t *testing.T) {
	s := open(t, t.TempDir())
	equivocate := func(subject string) {
		t.Helper()
		for _, text := range []string{"a", "b"} {
			if _, err := s.PutRecord(signed(t, 1, record.KindManifest, subject, 1, text)); err != nil {
				t.Fatal(err)
			}
		}
	}
	subjects := []string{"one", "two", "three"}
	for _, subject := range subjects {
		equivocate(subject)
	}
	slot := signed(t, 1, record.KindManifest, "one", 1, "a").Slot
	for which, damage := range []op{
		{key: evidenceKey(slot, 0)},
		{evidenceKey(slot, 0), []byte("not sealed")},
		{key: evidenceKey(slot, 1)},
		{evidenceKey(slot, 1), []byte("not sealed")},
	} {
		if err := s.commit(damage); err != nil {
			t.Fatal(err)
		}
		if pairs, err := s.Evidence(); err != nil || len(pairs) != 2 {
			t.Errorf("damage %d: %d pairs, %v", which, len(pairs), err)
		}
		if d := s.Damaged(); len(d) != 1 {
			t.Error(d)
		}
		equivocate("one") // proves it anew
		if pairs, err := s.Evidence(); err != nil || len(pairs) != 3 {
			t.Errorf("repaired %d: %d pairs, %v", which, len(pairs), err)
		}
		if d := s.Damaged(); len(d) != 0 {
			t.Error(d)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	r := signed(f, 1, record.KindManifest, "m", 1, "x")
	f.Add(recordKey(r.CID), r.Bytes)
	f.Add([]byte("r"), []byte{})
	f.Add([]byte("e"), []byte("0"))
	f.Add(append([]byte("r"), 1, 0x71, 0x12, 0x20), []byte{0xa0})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		if len(key) == 0 {
			return
		}
		recordName(key)
		damagedName(key, value)
		if r, err := parseRecord(key, value); err == nil && record.CIDOf(value) != r.CID {
			t.Error("read what does not hash")
		}
	})
}

// A node that has lost its seal certifies the decision again, with other precommits:
// that proves nothing against it, and all nodes come to keep the same one.
func TestSealsOfOneDecision(t *testing.T) {
	seal := func(content, precommit string) record.Record {
		return signed(t, 1, record.KindSeal, "task/final", 0, task.Seal{Content: []byte(content), Precommits: [][]byte{[]byte(precommit)}})
	}
	one, other := seal("model", "a"), seal("model", "b")
	if byBytes(one.CID, other.CID) > 0 {
		one, other = other, one
	}
	for _, order := range [][]record.Record{{one, other}, {other, one}} {
		s := open(t, t.TempDir())
		for _, r := range order {
			if got, err := s.PutRecord(r); err != nil || got == Equivocation {
				t.Errorf("%v, %v", got, err)
			}
		}
		s = reopen(t, s)
		if held := s.Newest(one.Slot); len(held) != 1 || held[0].CID != one.CID || len(s.Damaged()) > 0 {
			t.Errorf("%d held, damaged %q", len(held), s.Damaged())
		}
		if proofs, err := s.Evidence(); err != nil || len(proofs) > 0 {
			t.Errorf("%d proofs, %v", len(proofs), err)
		}
		if got, err := s.PutRecord(seal("another model", "a")); err != nil || got != Equivocation {
			t.Errorf("of another decision: %v, %v", got, err)
		}
	}
}
