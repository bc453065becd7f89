package dataset

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// columnOf publishes a column x of these cells, "" for a missing one, beside a
// column that keeps the rows apart.
func columnOf(t testing.TB, cells []string, o Options) Column {
	t.Helper()
	table := Table{Columns: []string{"x", "row", "y"}}
	for i, cell := range cells {
		table.Rows = append(table.Rows, []string{cell, strconv.Itoa(i), strconv.Itoa(i % 2)})
	}
	o.Name, o.Target = "d", "y"
	c, err := Clean(table, o)
	if err != nil {
		t.Fatal(err)
	}
	m := c.Manifest
	m.Nation, m.Node, m.Commitment = "HUN", "Budapest", make([]byte, 32)
	if err := m.Check(); err != nil {
		t.Fatalf("a peer refuses the manifest: %v", err)
	}
	return m.column("x")
}

func ramp(n, missing int) []string {
	cells := make([]string, n)
	for i := missing; i < n; i++ {
		cells[i] = strconv.Itoa(i - missing + 1)
	}
	return cells
}

func TestMissingCellsArePublished(t *testing.T) {
	for _, c := range []struct {
		rows, missing int
		want          uint64
	}{{120, 0, 0}, {120, 1, 0}, {120, 9, 0}, {120, 10, 10}, {120, 110, 110}, {120, 111, 0}, {120, 119, 0}, {15, 10, 0}, {9, 3, 0}} {
		got := columnOf(t, ramp(c.rows, c.missing), Options{})
		if got.Missing != c.want || got.Gaps != (c.missing > 0) {
			t.Errorf("%d of %d cells missing: published as %d, %v", c.missing, c.rows, got.Missing, got.Gaps)
		}
		if few := c.rows-c.missing < minPublished; few && len(got.Statistics) > 0 {
			t.Errorf("%d of %d cells missing: statistics %v", c.missing, c.rows, got.Statistics)
		}
	}
}

func TestStatisticsAreOfTheCellsThereAre(t *testing.T) {
	if got := columnOf(t, ramp(70, 50), Options{}); !slices.Equal(got.Statistics, []float64{10.5, 5.766281297335398}) {
		t.Errorf("statistics %v", got.Statistics)
	}
	if got := columnOf(t, ramp(150, 51), Options{}); len(got.Deciles) != 0 {
		t.Errorf("deciles of 99 cells: %v", got.Deciles)
	}
	got := columnOf(t, ramp(150, 50), Options{Units: map[string]string{"x": "cm"}})
	if want := []float64{10, 20, 30, 40, 50, 60, 70, 80, 90}; !slices.Equal(got.Deciles, want) || got.Unit != "cm" {
		t.Errorf("deciles %v in %q", got.Deciles, got.Unit)
	}
	wide := ramp(200, 0)
	for i := range wide {
		wide[i] = fmt.Sprintf("%d.5", 123456*(i+1))
	}
	if got := columnOf(t, wide, Options{}); !slices.Equal(got.Deciles[:2], []float64{2.47e6, 4.94e6}) {
		t.Errorf("deciles %v", got.Deciles)
	}
	// Where a mean must not be told, nor are deciles.
	rare := slices.Repeat([]string{"0"}, 115)
	if got := columnOf(t, append(rare, "1", "2", "3", "4", "5"), Options{}); len(got.Deciles)+len(got.Statistics) > 0 {
		t.Errorf("%+v", got)
	}
}

// Whether one or nine cells are missing, what is published of the others says
// nothing of how many: it leaves out ten rows.
func TestFewMissingCellsAreNotCounted(t *testing.T) {
	whole := ramp(150, 0)
	var first Column
	for missing := 1; missing <= 9; missing++ {
		cells := slices.Clone(whole)
		for i := range missing {
			cells[i] = ""
		}
		got := columnOf(t, cells, Options{})
		if missing == 1 {
			first = got
		}
		if !reflect.DeepEqual(got, first) || len(got.Deciles) != 9 {
			t.Errorf("%d missing cells are published as %+v, one as %+v", missing, got, first)
		}
	}
	if first.Statistics[0] != 80.5 { // of 11 to 150
		t.Errorf("statistics %v", first.Statistics)
	}
	cells := slices.Repeat([]string{"0", "1"}, 10)
	cells[3] = ""
	if got := columnOf(t, cells, Options{}); len(got.Statistics) > 0 {
		t.Errorf("statistics %v of 19 cells with two values", got.Statistics)
	}
}

func TestCountsOfLevels(t *testing.T) {
	cells := func(counts ...int) (c []string) { // the first are missing, then a, b, ...
		for i, n := range counts {
			level := ""
			if i > 0 {
				level = string(rune('a' + i - 1))
			}
			c = append(c, slices.Repeat([]string{level}, n)...)
		}
		return c
	}
	all := Options{Levels: map[string][]string{"x": {"a", "b", "c", "d"}}}
	for _, c := range []struct {
		name  string
		cells []string
		o     Options
		want  []uint64
	}{
		{"all common", cells(0, 30, 30, 40), Options{}, []uint64{30, 30, 40}},
		{"under a hundred rows", cells(0, 30, 30, 39), Options{}, nil},
		{"constant", cells(0, 100), Options{}, []uint64{100}},
		{"many missing", cells(50, 30, 70), Options{}, []uint64{30, 70}},
		{"one rare", cells(0, 5, 30, 60, 200), all, []uint64{0, 0, 60, 200}},
		{"one rare and unnamed", cells(0, 5, 30, 60, 200), Options{}, []uint64{0, 60, 200}},
		{"few missing", cells(5, 30, 60, 200), Options{}, []uint64{0, 60, 200}},
		{"one that does not occur", cells(0, 30, 60, 200), all, []uint64{0, 60, 200, 0}},
		{"next to no doubt", cells(0, 5, 10, 60, 200), all, []uint64{0, 0, 60, 200}},
		{"only two", cells(0, 5, 200), Options{}, nil},
		{"two rare", cells(0, 5, 6, 60, 200), all, []uint64{0, 0, 60, 200}},
		{"two rare and certain", cells(0, 9, 9, 60, 200), all, []uint64{0, 0, 0, 200}},
		{"all rare", slices.Repeat(many(20), 5), Options{Categorical: []string{"x"}}, nil},
		{"text of many levels", slices.Repeat(many(20), 30), Options{Categorical: []string{"x"}}, slices.Repeat([]uint64{30}, 20)},
	} {
		if got := columnOf(t, c.cells, c.o); !slices.Equal(got.Counts, c.want) {
			t.Errorf("%s: counts %v of %v, want %v", c.name, got.Counts, got.Levels, c.want)
		}
	}
}

// Nobody can work out a count under ten from what is published: another table, in
// which that count is another one, is published alike.
func TestNoSmallCountIsDerivable(t *testing.T) {
	names := []string{"a", "b", "c", "d", "e", "f"}
	told := func(counts []int, declared bool) Column {
		by := map[string]int{}
		p := Column{Kind: Categorical, Role: Feature}
		n := counts[0]
		for i, k := range counts[1:] {
			n += k
			by[names[i]] = k
			if k >= minPublished || declared {
				p.Levels = append(p.Levels, names[i])
			} else if k > 0 {
				p.Hidden = true
			}
		}
		missing := counts[0]
		if p.Gaps = missing > 0; missing >= minPublished && n-missing >= minPublished {
			p.Missing = uint64(missing)
		}
		p.count(by, n)
		return p
	}
	rapid.Check(t, func(t *rapid.T) {
		// counts[0] is that of missing cells.
		counts := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(0, 12), rapid.IntRange(0, 60), rapid.Just(0)), 3, 6).Draw(t, "counts")
		counts = append(counts, 0) // there may always be one more
		declared := rapid.Bool().Draw(t, "declared")
		p := told(counts, declared)
		if len(p.Counts) == 0 {
			return
		}
		sum := 0
		for _, n := range counts {
			sum += n
		}
		rest := uint64(sum) - p.Missing
		for _, n := range p.Counts {
			if 0 < n && n < minPublished {
				t.Fatalf("a count of %d", n)
			}
			rest -= n
		}
		if 0 < rest && rest < minPublished {
			t.Fatalf("%v: %d rows are left", counts, rest)
		}
		for i, n := range counts {
			if n == 0 && (i == 0 || !declared) || n >= minPublished {
				continue
			}
			// Another small count, made up for by one or two other columns.
			alike := func(other, j, k, part int) bool {
				changed := slices.Clone(counts)
				changed[i] = other
				changed[j] += n - other - part
				changed[k] += part
				return j != i && k != i && changed[j] >= 0 && changed[k] >= 0 && reflect.DeepEqual(told(changed, declared), p)
			}
			found := false
			for other := range minPublished {
				for j := range counts {
					for k := range counts {
						for part := 0; part < minPublished && !found && other != n; part++ {
							found = alike(other, j, k, part)
						}
					}
				}
			}
			if !found {
				t.Fatalf("%v (declared: %v) are published as %v: column %d can have no other count", counts, declared, p, i)
			}
		}
	})
}

func TestCoarse(t *testing.T) {
	for v, want := range map[float64]float64{
		0: 0, 7: 7, -999: -999, 1000: 1000, 1234: 1230, 1235: 1240, -98765: -98800, 0.0012345: 0.00123, 99.96: 100, 1e100: 1e100, 9.999e99: 1e100, 5e-324: 5e-324,
	} {
		if got := coarse(v); got != want {
			t.Errorf("coarse(%v) = %v, want %v", v, got, want)
		}
		if got := coarse(coarse(v)); got != want {
			t.Errorf("coarse of coarse(%v) is %v", v, got)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	before := math.Inf(-1)
	values := make([]float64, 10_000)
	for i := range values {
		values[i] = r.NormFloat64() * math.Pow(10, float64(r.IntN(9)-4))
	}
	slices.Sort(values)
	for _, v := range values {
		if coarse(v) < before || coarse(-v) != -coarse(v) {
			t.Fatalf("rounding %v changes the order", v)
		}
		before = coarse(v)
	}
}
