package dataset

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"village/protocol/record"
)

func goodManifest(t testing.TB) Manifest {
	rows := make([][]string, 40)
	for i := range rows {
		rows[i] = []string{fmt.Sprint(i), []string{"a", "b"}[i%2], fmt.Sprint(i % 2), "train"}
	}
	rows = append(rows, slices.Repeat([][]string{{"", "", "", ""}}, 12)...)
	c, err := Clean(Table{Columns: []string{"x", "c", "y", "part"}, Rows: rows}, Options{Name: "wards", Target: "y", Split: "part", Positive: "1"})
	if err != nil {
		t.Fatal(err)
	}
	m := c.Manifest
	m.Nation, m.Node, m.Commitment = "HUN", "Budapest", make([]byte, 32)
	return m
}

func sign(t testing.TB, m Manifest, subject string, number uint64) record.Record {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	r, err := record.Sign(key, "fed", record.KindManifest, subject, number, m)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestManifestOf(t *testing.T) {
	m := goodManifest(t)
	r := sign(t, m, "wards", 1)
	got, err := ManifestOf(r)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := record.Encode(m)
	b, _ := record.Encode(got)
	if !bytes.Equal(a, b) {
		t.Errorf("%+v came back as %+v", m, got)
	}
	text, err := json.Marshal(got)
	if err != nil || strings.Contains(string(text), "null") {
		t.Errorf("as JSON %s, %v", text, err)
	}
	other := r
	other.Kind = record.KindTask
	trailing := r
	trailing.Payload = append(slices.Clone(r.Payload), 0)
	for name, bad := range map[string]record.Record{
		"other subject": sign(t, m, "ward", 1), "version 0": sign(t, m, "wards", 0), "other kind": other, "trailing byte": trailing,
	} {
		if _, err := ManifestOf(bad); !errors.Is(err, record.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHostileManifest(t *testing.T) {
	const x, c, y, part = 0, 1, 2, 3 // columns
	for name, spoil := range map[string]func(*Manifest){
		"no name":               func(m *Manifest) { m.Name = "" },
		"long name":             func(m *Manifest) { m.Name = strings.Repeat("é", 65) },
		"escape in the name":    func(m *Manifest) { m.Name = "\x1b[2Jx" },
		"bidi node":             func(m *Manifest) { m.Node = "a\u202e" },
		"line in description":   func(m *Manifest) { m.Description = "a\nb" },
		"long description":      func(m *Manifest) { m.Description = strings.Repeat("x", 1001) },
		"long domain":           func(m *Manifest) { m.Domain = strings.Repeat("x", 65) },
		"bidi licence":          func(m *Manifest) { m.Licence = "\u200f" },
		"small nation":          func(m *Manifest) { m.Nation = "hun" },
		"no nation":             func(m *Manifest) { m.Nation = "" },
		"nine rows":             func(m *Manifest) { m.Rows = 9 },
		"too many rows":         func(m *Manifest) { m.Rows = math.MaxUint64 },
		"short commitment":      func(m *Manifest) { m.Commitment = m.Commitment[1:] },
		"no columns":            func(m *Manifest) { m.Columns = nil },
		"too many columns":      func(m *Manifest) { m.Columns = make([]Column, 10_001) },
		"no target":             func(m *Manifest) { m.Columns = slices.Delete(m.Columns, y, y+1) },
		"no feature":            func(m *Manifest) { m.Columns = m.Columns[y:] },
		"two targets":           func(m *Manifest) { m.Columns[c].Role = Target },
		"two splits":            func(m *Manifest) { m.Columns[c].Role = Split },
		"numeric split":         func(m *Manifest) { m.Columns[part] = Column{Name: "part", Kind: Numeric, Role: Split} },
		"target of other name":  func(m *Manifest) { m.Target = "x" },
		"column twice":          func(m *Manifest) { m.Columns[c].Name = "x" },
		"nameless column":       func(m *Manifest) { m.Columns[x].Name = "" },
		"long column name":      func(m *Manifest) { m.Columns[x].Name = strings.Repeat("x", 257) },
		"unknown role":          func(m *Manifest) { m.Columns[x].Role = "weight" },
		"unknown kind":          func(m *Manifest) { m.Columns[x].Kind = "date" },
		"numeric with levels":   func(m *Manifest) { m.Columns[x].Levels = []string{"1"} },
		"numeric hides":         func(m *Manifest) { m.Columns[x].Hidden = true },
		"three statistics":      func(m *Manifest) { m.Columns[x].Statistics = []float64{1, 1, 1} },
		"infinite mean":         func(m *Manifest) { m.Columns[x].Statistics = []float64{math.Inf(1), 1} },
		"NaN deviation":         func(m *Manifest) { m.Columns[x].Statistics = []float64{1, math.NaN()} },
		"negative deviation":    func(m *Manifest) { m.Columns[x].Statistics = []float64{1, -1} },
		"percentiles crossed":   func(m *Manifest) { m.Columns[x].Statistics = []float64{1, 1, 3, 2} },
		"categorical mean":      func(m *Manifest) { m.Columns[c].Statistics = []float64{1, 1} },
		"levels unsorted":       func(m *Manifest) { m.Columns[c].Levels = []string{"b", "a"} },
		"levels twice":          func(m *Manifest) { m.Columns[c].Levels = []string{"a", "a"} },
		"numbers as text":       func(m *Manifest) { m.Columns[c].Levels = []string{"10", "9"} },
		"level not canonical":   func(m *Manifest) { m.Columns[c].Levels = []string{"1.0"} },
		"control in a level":    func(m *Manifest) { m.Columns[c].Levels = []string{"a\x00"} },
		"level not UTF-8":       func(m *Manifest) { m.Columns[c].Levels = []string{"\xff"} },
		"too many levels":       func(m *Manifest) { m.Columns[c].Levels = make([]string, 1001) },
		"positive unknown":      func(m *Manifest) { m.Positive = "2" },
		"too many steps":        func(m *Manifest) { m.Recipe = slices.Repeat([]string{"x"}, 33) },
		"long step":             func(m *Manifest) { m.Recipe[0] = strings.Repeat("x", 257) },
		"drop of nine":          func(m *Manifest) { m.Dropped[0] = Drop{Reason: "r", Rows: 9} },
		"drop of none":          func(m *Manifest) { m.Dropped[0] = Drop{Reason: "r"} },
		"drop of few and many":  func(m *Manifest) { m.Dropped[0] = Drop{Reason: "r", Rows: 20, Few: true} },
		"drop without a reason": func(m *Manifest) { m.Dropped[0].Reason = "" },
		"drop twice":            func(m *Manifest) { m.Dropped = append(m.Dropped, m.Dropped[0]) },
	} {
		m := goodManifest(t)
		if err := m.Check(); err != nil {
			t.Fatal(err)
		}
		spoil(&m)
		if m.Check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzManifestOf(f *testing.F) {
	f.Add(sign(f, goodManifest(f), "wards", 1).Payload)
	small := published("wards", "x c:a,b y!0,1")
	f.Add(sign(f, small, "wards", 1).Payload)
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, payload []byte) {
		r := record.Record{Slot: record.Slot{Kind: record.KindManifest, Subject: "wards"}, Number: 1, Payload: payload}
		m, err := ManifestOf(r)
		if err != nil {
			if !errors.Is(err, record.ErrMalformed) {
				t.Fatalf("error %v is not ErrMalformed", err)
			}
			return
		}
		if again, err := record.Encode(m); err != nil || !bytes.Equal(again, payload) {
			t.Fatalf("%x reads as %x, %v", payload, again, err)
		}
		if _, err := json.Marshal(m); err != nil {
			t.Fatal(err)
		}
		if e, err := NewEncoding(m.Target, nil, "", []Manifest{m, m}); err == nil && e.Check() != nil {
			t.Fatal("an encoding of accepted manifests is refused")
		}
	})
}
