package dataset

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// draws are distributions that a column may have.
var draws = map[string]func(r *rand.Rand) string{
	"normal":      func(r *rand.Rand) string { return fmt.Sprint(r.NormFloat64()) },
	"log-normal":  func(r *rand.Rand) string { return fmt.Sprint(1e5 * math.Exp(2*r.NormFloat64())) },
	"uniform":     func(r *rand.Rand) string { return fmt.Sprint(-50 + 100*r.Float64()) },
	"years":       func(r *rand.Rand) string { return strconv.Itoa(2000 + r.IntN(10)) }, // three digits tell few apart
	"dice":        func(r *rand.Rand) string { return strconv.Itoa(1 + r.IntN(6)) },
	"coin":        func(r *rand.Rand) string { return strconv.Itoa(r.IntN(2)) },
	"mostly 0":    func(r *rand.Rand) string { return fmt.Sprint(max(0, r.NormFloat64()-0.5)) },
	"constant":    func(*rand.Rand) string { return "7" },
	"gaps":        func(r *rand.Rand) string { return []string{"", fmt.Sprint(r.NormFloat64())}[min(1, r.IntN(3))] },
	"levels":      func(r *rand.Rand) string { return string(rune('a' + min(r.IntN(6), r.IntN(6)))) },
	"rare levels": func(r *rand.Rand) string { return string(rune('a' + min(20, int(r.ExpFloat64())))) },
	"few gaps":    func(r *rand.Rand) string { return []string{"", "a", "b", "c"}[min(r.IntN(100), 1+r.IntN(3))] },
}

func drift(m Manifest, t Table) []ColumnDrift { return Drift(m, Pack(t)) }

// drawn is a table of n rows of every distribution, after a change of each cell.
func drawn(r *rand.Rand, n int, change func(cell string) string) Table {
	names := make([]string, 0, len(draws))
	for name := range draws {
		names = append(names, name)
	}
	slices.Sort(names)
	t := Table{Columns: append(slices.Clip(names), "y", "row")}
	for i := range n {
		row := make([]string, 0, len(names)+2)
		for _, name := range names {
			row = append(row, change(draws[name](r)))
		}
		t.Rows = append(t.Rows, append(row, strconv.Itoa(i%2), strconv.Itoa(i)))
	}
	return t
}

func same(cell string) string { return cell }

func manifestFor(t *testing.T, table Table) Manifest {
	t.Helper()
	return clean(t, table, Options{Target: "y"}).Manifest
}

// Rows of the same distribution raise no alarm, and the very same rows none at all.
func TestNoFalseAlarm(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	alarms, columns := 0, 0
	for _, n := range []int{100, 300, 2000} {
		for range 4 {
			table := drawn(r, n, same)
			m := manifestFor(t, table)
			for _, d := range drift(m, table) {
				if d.PSI == nil {
					continue
				}
				if *d.PSI > 0.03 || d.Level != DriftNone || d.KS != nil && *d.KS > 0.03 {
					t.Errorf("%d rows: column %s differs from itself: PSI %v, KS %v", n, d.Column, *d.PSI, d.KS)
				}
			}
			for _, after := range []int{30, 100, 1000} {
				for _, d := range drift(m, drawn(r, after, same)) {
					if d.Column == "row" { // it counts from 0
						continue
					}
					columns++
					if d.Level != DriftNone && d.Level != DriftUnknown {
						alarms++
						t.Logf("%d rows, then %d: column %s: %s, PSI %v", n, after, d.Column, d.Level, *d.PSI)
					}
				}
			}
		}
	}
	if alarms > columns/400 {
		t.Errorf("%d false alarms of %d columns", alarms, columns)
	}
}

// A change that matters is found in columns of every kind.
func TestShiftIsFound(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	m := manifestFor(t, drawn(r, 2000, same))
	changed := drawn(r, 1000, func(cell string) string {
		v, ok := number(cell)
		switch {
		case ok && math.Abs(v) >= 1990 && v == math.Trunc(v):
			return fmt.Sprint(v + 10)
		case ok && v == math.Trunc(v):
			return fmt.Sprint(min(6, v+2))
		case ok && math.Abs(v) < 60:
			return fmt.Sprint(1.5*v + 1)
		case ok:
			return fmt.Sprint(4 * v)
		case cell == "":
			return cell
		}
		return string(rune(min('f', cell[0]+2)))
	})
	for _, d := range drift(m, changed) {
		if d.Column == "y" || d.Column == "row" {
			continue
		}
		if d.Level != DriftLarge || d.PSI == nil || *d.PSI < 0.25 {
			t.Errorf("column %s: %s, PSI %v", d.Column, d.Level, d.PSI)
		}
		if d.KS != nil && !(*d.KS > 0.1 && *d.KS <= 1) {
			t.Errorf("column %s: KS %v", d.Column, *d.KS)
		}
	}
}

func one(t *testing.T, drifts []ColumnDrift, column string) ColumnDrift {
	t.Helper()
	i := slices.IndexFunc(drifts, func(d ColumnDrift) bool { return d.Column == column })
	if i < 0 {
		t.Fatalf("no drift of %s in %v", column, drifts)
	}
	return drifts[i]
}

// Figures worked out by hand.
func TestDriftFigures(t *testing.T) {
	m := described("a", 1000) // x has deciles at 2, 4, ... 18; a stands one to two with b
	m.Columns[0].Missing, m.Columns[0].Gaps = 250, true
	m.Columns[2].Counts = []uint64{250, 750}
	// Of ten new rows, one is in each bin but the first, whose row is above all.
	x := []string{"3", "5", "7", "9", "11", "13", "15", "17", "19", "100", "", "inf"}
	var table Table
	table.Columns = []string{"y", "c", "x"}
	for i, cell := range x {
		table.Rows = append(table.Rows, []string{"0", []string{"a", "b", "z"}[i%3], cell})
	}
	drifts := drift(m, table)
	if len(drifts) != 3 || drifts[0].Column != "x" || drifts[1].Column != "c" || drifts[2].Column != "y" {
		t.Fatalf("%+v", drifts)
	}
	close := func(what string, got *float64, want float64) {
		t.Helper()
		if got == nil || math.Abs(*got-want) > 1e-12 {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	d := drifts[0]
	share := func(n float64) float64 { return (n + 0.5) / 15 }
	term := func(p, q float64) float64 { return (q - p) * math.Log(q/p) }
	close("PSI of x", d.PSI, 8*term(0.1, share(1))+term(0.1, share(0))+term(0.1, share(2)))
	close("KS of x", d.KS, 0.1)
	close("missing before", d.MissingBefore, 0.25)
	if d.Rows != 10 || d.MissingAfter != 2.0/12 {
		t.Errorf("%+v", d)
	}
	d = drifts[1] // four rows each of a, b and a level that is not known
	p := func(n float64) float64 { return (n + 0.5) / 1001.5 }
	q := 4.5 / 13.5
	close("PSI of c", d.PSI, term(p(250), q)+term(p(750), q)+term(p(0), q))
	close("missing before", d.MissingBefore, 0)
	if d.KS != nil || d.Rows != 12 || d.Level != DriftLarge {
		t.Errorf("%+v", d)
	}
}

// A decile within the rows of one value is where these make least difference.
func TestDriftOfTies(t *testing.T) {
	m := described("a", 1000)
	m.Columns[0].Deciles = []float64{0, 0, 0, 0, 0, 0, 0, 1, 1} // 70 to 80 % are 0
	ks := func(zeros int) float64 {
		rows := slices.Concat(slices.Repeat([][]string{{"0"}}, zeros), slices.Repeat([][]string{{"1"}}, 1000-zeros))
		return *one(t, drift(m, Table{Columns: []string{"x"}, Rows: rows}), "x").KS
	}
	for zeros, want := range map[int]float64{700: 0, 750: 0, 800: 0, 600: 0.1, 900: 0.1, 1000: 0.2, 0: 0.7} {
		if got := ks(zeros); math.Abs(got-want) > 1e-12 {
			t.Errorf("KS of %d zeros is %v, want %v", zeros, got, want)
		}
	}
}

func TestDriftOfLittle(t *testing.T) {
	few := published("few", "x c:a,b gap y!0,1")
	few.Columns[2].Gaps = true
	drifts := drift(few, tableFrom("gap c x y", "1 a 1 0", "_ b 2 1"))
	for _, d := range drifts {
		if d.PSI != nil || d.KS != nil || d.Level != DriftUnknown {
			t.Errorf("%+v", d)
		}
	}
	if d := one(t, drifts, "gap"); d.MissingBefore != nil || d.MissingAfter != 0.5 || d.Rows != 1 {
		t.Errorf("%+v", d)
	}
	m := described("a", 200)
	for _, table := range []Table{{Columns: []string{"x", "c", "y"}}, tableFrom("x c y", "_ _ _", "inf _ _")} {
		for _, d := range drift(m, table) {
			if d.PSI != nil || d.KS != nil || d.Level != DriftUnknown || d.Rows != 0 {
				t.Errorf("%+v", d)
			}
		}
	}
	if got := drift(m, tableFrom("other", "1")); got == nil || len(got) != 0 {
		t.Errorf("%v", got)
	}
	// Too few rows to tell from chance are no alarm.
	if d := one(t, drift(m, tableFrom("x", "3", "4", "5")), "x"); d.Level != DriftNone || *d.PSI < 0.25 {
		t.Errorf("%+v", d)
	}
	text, err := json.Marshal(drift(m, tableFrom("x c", "1 a")))
	if err != nil || strings.Contains(string(text), "NaN") || !strings.Contains(string(text), `"ks":null`) {
		t.Errorf("%s, %v", text, err)
	}
}

// exactKS is the largest difference of the distribution functions of a and b.
func exactKS(a, b []float64) (far float64) {
	below := func(s []float64, x float64) float64 {
		n := 0
		for _, y := range s {
			if y <= x {
				n++
			}
		}
		return float64(n) / float64(len(s))
	}
	for _, x := range slices.Concat(a, b) {
		far = max(far, math.Abs(below(a, x)-below(b, x)))
	}
	return far
}

// At the deciles the statistic from a manifest is the exact one, and never above it.
func TestKSOfDeciles(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 20 {
		before, after := make([]float64, 1000), make([]float64, 500)
		cells := Table{Columns: []string{"x", "y"}}
		for i := range before {
			before[i] = float64(r.IntN(900))
			cells.Rows = append(cells.Rows, []string{text(before[i]), strconv.Itoa(i % 2)})
		}
		news := Table{Columns: []string{"x"}}
		for i := range after {
			after[i] = float64(r.IntN(900)) * 0.8
			news.Rows = append(news.Rows, []string{text(after[i])})
		}
		exact := exactKS(before, after)
		got := *one(t, drift(manifestFor(t, cells), news), "x").KS
		if got > exact+0.01 || got < exact-0.1 {
			t.Errorf("KS at the deciles %v, the exact one %v", got, exact)
		}
	}
}
