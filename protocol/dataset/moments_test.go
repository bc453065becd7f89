package dataset

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// near compares to 1e-12 of the given size.
func near(a, b, size float64) bool { return math.Abs(a-b) <= 1e-12*size }

var samples = rapid.Custom(func(t *rapid.T) Samples {
	n, d := rapid.IntRange(1, 60).Draw(t, "rows"), rapid.IntRange(1, 4).Draw(t, "columns")
	offset := rapid.Float64Range(-1e4, 1e4).Draw(t, "offset")
	s := Samples{N: n, D: d, X: make([]float64, n*d)}
	for i := range s.X {
		s.X[i] = offset + rapid.Float64Range(-1e3, 1e3).Draw(t, "x")
	}
	return s
})

func rows(s Samples, from, to int) Samples {
	return Samples{N: to - from, D: s.D, X: s.X[from*s.D : to*s.D]}
}

func TestMomentsOfTheDefinition(t *testing.T) {
	m := MomentsOf(Samples{N: 4, D: 2, X: []float64{1, 0.1, 2, 0.1, 3, 0.1, 6, 0.1}})
	if m.Count != 4 || !slices.Equal(m.Mean, []float64{3, 0.1}) || !slices.Equal(m.M2, []float64{14, 0}) {
		t.Errorf("%+v", m)
	}
	s := m.Scaling()
	if !slices.Equal(s.SD, []float64{math.Sqrt(3.5), 1}) {
		t.Errorf("standard deviations %v: population, and 1 for a constant column", s.SD)
	}
	if m := MomentsOf(Samples{D: 2}); m.Count != 0 || m.Check(2) == nil {
		t.Errorf("moments of no rows %+v pass as a peer's", m)
	}
	// The textbook formula loses every digit here.
	m = MomentsOf(Samples{N: 3, D: 1, X: []float64{1e9, 1e9 + 1, 1e9 + 2}})
	if m.Mean[0] != 1e9+1 || m.M2[0] != 2 {
		t.Errorf("%+v", m)
	}
}

func TestMergingAnyPartitionEqualsTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := samples.Draw(t, "samples")
		whole := MomentsOf(s)
		var parts []Moments
		for from := 0; from < s.N; {
			to := rapid.IntRange(from+1, s.N).Draw(t, "to")
			parts = append(parts, MomentsOf(rows(s, from, to)))
			from = to
		}
		merged, err := Merge(parts)
		if err != nil {
			t.Fatal(err)
		}
		if merged.Count != whole.Count {
			t.Fatalf("%d rows, want %d", merged.Count, whole.Count)
		}
		for j := range whole.Mean {
			// The square of a column is what its moments are rounded from.
			square := whole.M2[j] + float64(s.N)*whole.Mean[j]*whole.Mean[j]
			if !near(merged.Mean[j], whole.Mean[j], math.Sqrt(square)) || !near(merged.M2[j], whole.M2[j], square) {
				t.Fatalf("column %d: %v %v, want %v %v", j, merged.Mean[j], merged.M2[j], whole.Mean[j], whole.M2[j])
			}
		}
	})
}

func TestScaledPoolHasMean0AndSD1(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := samples.Draw(t, "samples")
		cut := rapid.IntRange(1, s.N).Draw(t, "cut")
		parts := []Moments{MomentsOf(rows(s, 0, cut))}
		if cut < s.N {
			parts = append(parts, MomentsOf(rows(s, cut, s.N)))
		}
		m, err := Merge(parts)
		if err != nil {
			t.Fatal(err)
		}
		for j := range m.M2 {
			if sd := math.Sqrt(m.M2[j] / float64(s.N)); sd > 0 && sd < 1 {
				t.Skip("too close to constant for its digits")
			}
		}
		m.Scaling().Apply(s)
		after := MomentsOf(s)
		for j := range after.Mean {
			if math.Abs(after.Mean[j]) > 1e-9 {
				t.Fatalf("mean %v", after.Mean[j])
			}
			if sd := math.Sqrt(after.M2[j] / float64(s.N)); m.M2[j] > 0 && math.Abs(sd-1) > 1e-9 {
				t.Fatalf("standard deviation %v", sd)
			}
		}
	})
}

// The same bits on every machine: fused multiply-adds would change them.
func TestMomentsBits(t *testing.T) {
	var parts []Moments
	x := 0.1
	for n := range 5 {
		s := Samples{N: 7 + n, D: 1}
		for range s.N {
			x = float64(3.9*x) * (1 - x) // the logistic map
			s.X = append(s.X, 100*x)
		}
		parts = append(parts, MomentsOf(s))
	}
	m, err := Merge(parts)
	if err != nil {
		t.Fatal(err)
	}
	got := []uint64{math.Float64bits(m.Mean[0]), math.Float64bits(m.M2[0]), math.Float64bits(m.Scaling().SD[0])}
	want := []uint64{0x404ddef8f273ddbf, 0x40e2fd1c6a4e5908, 0x403d65b149a3835c}
	if !slices.Equal(got, want) {
		t.Errorf("bits %#x, want %#x", got, want)
	}
}

func TestHostileMoments(t *testing.T) {
	good := func() Moments { return Moments{Count: 10, Mean: []float64{1, 2}, M2: []float64{3, 0}} }
	if err := good().Check(2); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Moments){
		"no rows":        func(m *Moments) { m.Count = 0 },
		"too many rows":  func(m *Moments) { m.Count = 1<<40 + 1 },
		"narrow mean":    func(m *Moments) { m.Mean = m.Mean[:1] },
		"narrow M2":      func(m *Moments) { m.M2 = nil },
		"negative M2":    func(m *Moments) { m.M2[0] = -1e-300 },
		"NaN mean":       func(m *Moments) { m.Mean[1] = math.NaN() },
		"infinite mean":  func(m *Moments) { m.Mean[1] = math.Inf(-1) },
		"NaN M2":         func(m *Moments) { m.M2[1] = math.NaN() },
		"infinite M2":    func(m *Moments) { m.M2[1] = math.Inf(1) },
		"overflows when": func(m *Moments) { m.Mean[0] = -math.MaxFloat64 },
	} {
		m := good()
		spoil(&m)
		if name != "overflows when" && m.Check(2) == nil {
			t.Errorf("%s: accepted", name)
		}
		if _, err := Merge([]Moments{good(), m}); err == nil {
			t.Errorf("%s: merged", name)
		}
	}
	if _, err := Merge(nil); err == nil {
		t.Error("nothing was merged")
	}
	m, err := Merge([]Moments{good()})
	if err != nil || !slices.Equal(m.Mean, good().Mean) || !slices.Equal(m.M2, good().M2) {
		t.Errorf("one part alone gives %+v, %v", m, err)
	}
}
