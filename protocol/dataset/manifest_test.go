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

// A manifest with all figures, each of which a peer may have made up.
func TestHostileFigures(t *testing.T) {
	const x, u, c, y = 0, 1, 2, 3 // columns
	good := func() Manifest {
		m := described("a", 200)
		m.Columns[u].Missing, m.Columns[u].Gaps = 40, true
		return m
	}
	m := good()
	if err := m.Check(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Manifest){
		"long unit":                 func(m *Manifest) { m.Columns[x].Unit = strings.Repeat("m", 65) },
		"bidi unit":                 func(m *Manifest) { m.Columns[x].Unit = "\u202e" },
		"unit of levels":            func(m *Manifest) { m.Columns[c].Unit = "m" },
		"eight deciles":             func(m *Manifest) { m.Columns[x].Deciles = m.Columns[x].Deciles[1:] },
		"a million deciles":         func(m *Manifest) { m.Columns[x].Deciles = make([]float64, 1_000_000) },
		"deciles out of order":      func(m *Manifest) { m.Columns[x].Deciles[3] = 100 },
		"NaN decile":                func(m *Manifest) { m.Columns[x].Deciles[3] = math.NaN() },
		"infinite decile":           func(m *Manifest) { m.Columns[x].Deciles[8] = math.Inf(1) },
		"huge decile":               func(m *Manifest) { m.Columns[x].Deciles[8] = 1e101 },
		"exact decile":              func(m *Manifest) { m.Columns[x].Deciles[3] = 8.001 },
		"deciles alone":             func(m *Manifest) { m.Columns[x].Statistics = nil },
		"deciles of few rows":       func(m *Manifest) { m.Columns[x].Missing, m.Columns[x].Gaps = 101, true },
		"deciles of levels":         func(m *Manifest) { m.Columns[c].Deciles = make([]float64, 9) },
		"counts of numbers":         func(m *Manifest) { m.Columns[x].Counts = []uint64{200} },
		"one count too few":         func(m *Manifest) { m.Columns[c].Counts = m.Columns[c].Counts[1:] },
		"count of nine":             func(m *Manifest) { m.Columns[c].Counts = []uint64{191, 9} },
		"count of more than all":    func(m *Manifest) { m.Columns[c].Counts = []uint64{201, 0} },
		"counts that overflow":      func(m *Manifest) { m.Columns[c].Counts = []uint64{math.MaxUint64, 201} },
		"counts with a rest":        func(m *Manifest) { m.Columns[c].Counts = []uint64{100, 90} },
		"counts of none":            func(m *Manifest) { m.Columns[c].Counts = []uint64{0, 0} },
		"a count told by the rest":  func(m *Manifest) { m.Columns[c].Counts = []uint64{195, 0} },
		"a level that is not there": func(m *Manifest) { m.Columns[c].Counts = []uint64{200, 0} },
		"hidden levels of no row":   func(m *Manifest) { m.Columns[c].Hidden = true },
		"few gaps of no row":        func(m *Manifest) { m.Columns[c].Gaps = true },
		"counts without missing":    func(m *Manifest) { m.Columns[c].Gaps, m.Columns[c].Missing = true, 30 },
		"counts of few rows":        func(m *Manifest) { m.Rows = 99; m.Columns[c].Counts = []uint64{50, 49} },
		"missing without gaps":      func(m *Manifest) { m.Columns[u].Gaps = false },
		"nine missing":              func(m *Manifest) { m.Columns[u].Missing = 9 },
		"nine present":              func(m *Manifest) { m.Columns[u].Missing = 191 },
		"more missing than rows":    func(m *Manifest) { m.Columns[u].Missing = math.MaxUint64 },
		"gaps of the target":        func(m *Manifest) { m.Columns[y].Counts, m.Columns[y].Gaps = nil, true },
	} {
		m := good()
		spoil(&m)
		if m.Check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, change := range map[string]func(*Manifest){
		"hidden counts": func(m *Manifest) { m.Columns[c].Counts = []uint64{150, 0} },
		"rest unnamed":  func(m *Manifest) { m.Columns[c].Counts, m.Columns[c].Hidden = []uint64{100, 90}, true },
		"few gaps":      func(m *Manifest) { m.Columns[c].Counts, m.Columns[c].Gaps = []uint64{100, 0}, true },
		"no counts":     func(m *Manifest) { m.Columns[c].Counts = nil },
	} {
		m := good()
		change(&m)
		if err := m.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzManifestOf(f *testing.F) {
	f.Add(sign(f, goodManifest(f), "wards", 1).Payload)
	small := published("wards", "x c:a,b y!0,1")
	f.Add(sign(f, small, "wards", 1).Payload)
	f.Add(sign(f, described("wards", 200), "wards", 1).Payload)
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
		rows := Table{Columns: m.names(), Rows: [][]string{make([]string, len(m.names())), slices.Repeat([]string{"1"}, len(m.names()))}}
		for _, d := range Drift(m, Pack(rows)) {
			if d.PSI != nil && (math.IsNaN(*d.PSI) || math.IsInf(*d.PSI, 0)) || d.KS != nil && !(*d.KS >= 0 && *d.KS <= 1) {
				t.Fatalf("drift %+v", d)
			}
		}
		for _, c := range m.Columns {
			for _, step := range []string{"|mean", "|median|indicator", "|level", "|fill 1"} {
				if e, err := NewEncoding(m.Target, []string{c.Name + step}, "", []Manifest{m}); err == nil && e.Check() != nil {
					t.Fatalf("%s%s: an encoding of accepted manifests is refused", c.Name, step)
				}
			}
		}
	})
}
