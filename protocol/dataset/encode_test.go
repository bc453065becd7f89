package dataset

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// over makes an encoding of one feature, x or c of a manifest of all figures.
func over(t testing.TB, features ...string) Encoding {
	t.Helper()
	e, err := NewEncoding("y", features, "", []Manifest{described("a", 200)})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEncodeRecipes(t *testing.T) {
	const (
		h = math.Sqrt2 / 2
	)
	for _, c := range []struct {
		feature string
		cells   string // _ is missing
		names   []string
		want    []float64
	}{
		{"x", "1 -2.5 1e2", []string{"x"}, []float64{1, -2.5, 100}},
		{"x|fill 7", "1 _", []string{"x"}, []float64{1, 7}},
		{"x|mean|indicator", "1 _", []string{"x", "x missing"}, []float64{1, 0, 10.5, 1}},
		{"x|missing 0|missing -9|median|indicator", "0.0 -9 3 _", []string{"x", "x missing"}, []float64{10, 1, 10, 1, 3, 0, 10, 1}},
		{"x|missing 0|fill 0|indicator", "0 1", []string{"x", "x missing"}, []float64{0, 1, 1, 0}},
		{"x|clip -1 2", "-3 -1 0 5", []string{"x"}, []float64{-1, -1, 0, 2}},
		{"x|fill 9|clip 0 5", "_", []string{"x"}, []float64{5}},
		{"x|times 10|log1p", "0 0.1", []string{"log(1+10*x)"}, []float64{0, math.Log(2)}},
		{"x|abs", "-3 3", []string{"abs(x)"}, []float64{3, 3}},
		{"x|clip -1 9|times -1|abs|log1p", "-3 8", []string{"log(1+abs(-1*x))"}, []float64{math.Log(2), math.Log(9)}},
		{"x|cyclic 24", "0 3 6 24 -24 27", []string{"sin(x)", "cos(x)"}, []float64{0, 1, h, h, 1, 0, 0, 1, 0, 1, h, h}},
		{"x|fill 6|indicator|cyclic 24", "_ 0", []string{"sin(x)", "cos(x)", "x missing"}, []float64{1, 0, 1, 0, 1, 0}},
		{"c", "b a", []string{"c=b"}, []float64{1, 0}},
		{"c|fill none|other rest", "a b none _ what rest", []string{"c=b", "c=none", "c=rest"}, []float64{0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1}},
		{"c|level|indicator", "_ a b", []string{"c=b", "c missing"}, []float64{1, 1, 0, 0, 1, 0}},
		{"c|ordinal b < a < z|other z", "a b z what", []string{"c"}, []float64{1, 0, 2, 2}},
		{"c|ordinal b < a|level|indicator", "_ a", []string{"c", "c missing"}, []float64{0, 1, 1, 0}},
	} {
		e := over(t, c.feature)
		table := Table{Columns: []string{"c", "x"}}
		for _, cell := range strings.Fields(c.cells) {
			if cell == "_" {
				cell = ""
			}
			table.Rows = append(table.Rows, []string{cell, cell})
		}
		s, err := e.EncodeFeatures(table)
		if err != nil {
			t.Errorf("%s: %v", c.feature, err)
			continue
		}
		if !slices.Equal(e.Names(), c.names) || e.Width() != len(c.names) {
			t.Errorf("%s: %d columns %q, want %q", c.feature, e.Width(), e.Names(), c.names)
		}
		if s.N != len(table.Rows) || !slices.EqualFunc(s.X, c.want, func(a, b float64) bool { return math.Abs(a-b) <= 1e-15 }) {
			t.Errorf("%s: %s is encoded %v, want %v", c.feature, c.cells, s.X, c.want)
		}
	}
}

func TestEncodeRecipesRefuses(t *testing.T) {
	for _, c := range []struct {
		feature, cell string
		want          []string
	}{
		{"x", "", []string{`"x" is empty in row 2`, "'x|fill VALUE'"}},
		{"x|missing 0", "0.0", []string{`"x" holds "0.0", which stands for a missing cell, in row 2`}},
		{"x", "inf", []string{`"x" should be numeric, but holds "inf" in row 2`, "correct or empty"}},
		{"x|mean", "NaN", []string{`"x" should be numeric, but holds "NaN" in row 2`}},
		{"x", "1e400", []string{"should be numeric"}},
		{"x|log1p", "-1", []string{`"x" holds -1 in row 2, which has no log1p, which is of numbers above -1`, "'x|clip LOW HIGH|...'"}},
		{"x|times -1|log1p", "2", []string{"has no log1p"}},
		{"x|times 1e60", "1e60", []string{"is too large", "clip"}},
		{"c", "", []string{`"c" is empty in row 2`}},
		{"c|level", "what", []string{`"c" has 1 levels in 1 rows that the task does not know ("what")`, "--levels c=", "'c|other LEVEL'"}},
		{"c|ordinal a < b", "z", []string{`"c" has 1 levels`}},
	} {
		_, err := over(t, c.feature).EncodeFeatures(Table{Columns: []string{"x", "c"}, Rows: [][]string{{"1", "a"}, {c.cell, c.cell}}})
		if err == nil {
			t.Errorf("%s of %q: no error", c.feature, c.cell)
			continue
		}
		wantError(t, err, c.want...)
	}
}

// One column may be several features, and no two encoded columns share a name.
func TestNamesAreUnique(t *testing.T) {
	e := over(t, "x", "x|abs", "x|clip 0 9", "x|mean|indicator|clip 0 8", "x|fill 1|indicator", "c", "c|other b")
	want := []string{"x", "abs(x)", "x|clip 0 9", "x|fill 10.5|indicator|clip 0 8", "x|fill 10.5|indicator|clip 0 8 missing",
		"x|fill 1|indicator", "x|fill 1|indicator missing", "c=b", "c|other b=b"}
	if got := e.Names(); !slices.Equal(got, want) || e.Width() != len(want) {
		t.Errorf("names %q, want %q", got, want)
	}
	if got := e.Columns(); !slices.Equal(got, []string{"x", "c"}) {
		t.Errorf("columns %q", got)
	}
	// Even where columns are named to collide.
	hostile := Encoding{Target: "y", Classes: []string{"0", "1"}, Positive: "1", Features: []FeatureSpec{
		{Name: "abs(x)", Kind: Numeric}, {Name: "x|abs", Kind: Numeric}, {Name: "x", Kind: Numeric, Abs: true},
		{Name: "x", Kind: Numeric, Fill: "1", Indicator: true}, {Name: "x missing", Kind: Numeric}, {Name: "x missing (2)", Kind: Numeric},
	}}
	names := hostile.Names()
	sorted := slices.Clone(names)
	slices.Sort(sorted)
	if len(slices.Compact(sorted)) != hostile.Width() {
		t.Errorf("names %q", names)
	}
	if err := hostile.Check(); err == nil { // "x|abs" is the spelling of two
		t.Error("two features of one spelling are accepted")
	}
}

func TestNumericTarget(t *testing.T) {
	m := published("a", "x c:a,b y")
	m.Columns[2].Role, m.Target, m.Columns[2].Unit = Target, "y", "kg"
	e, err := NewEncoding("y", nil, "", []Manifest{m, m})
	if err != nil {
		t.Fatal(err)
	}
	if e.Classes == nil || len(e.Classes) > 0 || e.Positive != "" || e.Unit != "kg" {
		t.Errorf("classes %#v, positive %q, unit %q", e.Classes, e.Positive, e.Unit)
	}
	table := tableFrom("y x c", "1.50 1 a", "-2e3 2 b")
	s, err := e.Encode(table)
	if err != nil || !slices.Equal(s.T, []float64{1.5, -2000}) || s.Y != nil || s.N != 2 {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := e.EncodeFeatures(table); err != nil || s.T != nil {
		t.Errorf("%+v, %v", s, err)
	}
	for cell, want := range map[string]string{"inf": `"y" should be numeric`, "": `"y" is empty`} {
		_, err := e.Encode(Table{Columns: table.Columns, Rows: [][]string{{cell, "1", "a"}}})
		wantError(t, err, want)
	}
	for name, spoil := range map[string]func(*Encoding){
		"positive":            func(e *Encoding) { e.Positive = "1" },
		"classes with a unit": func(e *Encoding) { e.Classes, e.Positive = []string{"0", "1"}, "1" },
		"long unit":           func(e *Encoding) { e.Unit = strings.Repeat("k", 65) },
	} {
		bad := e
		spoil(&bad)
		if bad.Check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestSensitive(t *testing.T) {
	a, b := published("a", "x sex:f,m n y!0,1"), published("b", "x sex:f,other n y!0,1")
	e, err := NewEncoding("y", []string{"x"}, "sex", []Manifest{a, b})
	if err != nil {
		t.Fatal(err)
	}
	if e.Sensitive != "sex" || !slices.Equal(e.Groups, []string{"f", "m", "other"}) || e.Width() != 1 {
		t.Errorf("%+v", e)
	}
	s, err := e.Encode(tableFrom("x sex y", "1 m 0", "2 _ 1", "3 what 1", "4 f 0"))
	if err != nil || !slices.Equal(s.G, []int{1, -1, -1, 0}) {
		t.Errorf("%v, %v", s.G, err)
	}
	if _, err := e.EncodeFeatures(tableFrom("x", "1")); err != nil {
		t.Errorf("prediction asks for the sensitive column: %v", err)
	}
	_, err = e.Encode(tableFrom("x y", "1 0"))
	wantError(t, err, "lack sex")
	if e, err = NewEncoding("y", []string{"x", "sex"}, "sex", []Manifest{a, b}); err != nil || e.Width() != 3 {
		t.Errorf("%v, %v", e, err)
	}
	for _, c := range []struct {
		column    string
		manifests []Manifest
		want      []string
	}{
		{"gender", []Manifest{a, b}, []string{`"a"`, "lacks gender"}},
		{"n", []Manifest{a, b}, []string{`sensitive column "n" is numeric`, "--categorical n"}},
		{"y", []Manifest{a, b}, []string{`"y" is used twice`}},
		{"sex", []Manifest{published("c", "x sex:f y!0,1")}, []string{"fewer than two levels of the sensitive column", "--levels sex=a,b"}},
		{"sex", []Manifest{a, published("c", "x sex y!0,1")}, []string{`"sex" is categorical in dataset "a"`}},
	} {
		_, err := NewEncoding("y", []string{"x"}, c.column, c.manifests)
		wantError(t, err, c.want...)
	}
	for name, spoil := range map[string]func(*Encoding){
		"groups alone":   func(e *Encoding) { e.Sensitive = "" },
		"one group":      func(e *Encoding) { e.Groups = e.Groups[:1] },
		"unsorted":       func(e *Encoding) { e.Groups = []string{"m", "f"} },
		"many groups":    func(e *Encoding) { e.Groups = many(65) },
		"the target":     func(e *Encoding) { e.Sensitive = e.Target },
		"bidi name":      func(e *Encoding) { e.Sensitive = "\u202e" },
		"numeric, too":   func(e *Encoding) { e.Sensitive = "x" },
		"group of steps": func(e *Encoding) { e.Groups = []string{"", "m"} },
	} {
		bad := e
		spoil(&bad)
		if bad.Check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func many(n int) []string {
	levels := make([]string, n)
	for i := range levels {
		levels[i] = strconv.Itoa(i)
	}
	return levels
}

func TestUnits(t *testing.T) {
	mg, mmol, none := described("a", 200), described("b", 200), described("c", 200)
	mmol.Columns[0].Unit, none.Columns[0].Unit = "mmol/l", ""
	e, err := NewEncoding("y", []string{"x", "x|abs"}, "", []Manifest{none, mg, none})
	if err != nil || e.Features[0].Unit != "mg/dl" || e.Features[1].Unit != "mg/dl" {
		t.Errorf("%+v, %v", e, err)
	}
	_, err = NewEncoding("y", []string{"x|mean"}, "", []Manifest{none, mg, mmol})
	wantError(t, err, `"x" is in "mg/dl" in dataset "a"`, `"mmol/l" in dataset "b"`)
	e.Features[1].Unit = "mmol/l"
	if e.Check() == nil {
		t.Error("two units of one column are accepted")
	}
}

func TestComplete(t *testing.T) {
	e := over(t, "x", "x|mean", "c|missing q|other b")
	table := tableFrom("c x y", "a 1 0", "_ 1 0", "a _ 0", "q 1 0", "b 2 _", "b 2 1", "_ _ _")
	rows, at, left := e.Complete(table, true)
	if !slices.Equal(at, []int{0, 5}) || len(rows.Rows) != 2 || &rows.Rows[1][0] != &table.Rows[5][0] {
		t.Errorf("rows %v at %v", rows.Rows, at)
	}
	if want := map[string]int{"missing x": 1, "missing c": 2, DropTarget: 2}; !maps.Equal(left, want) {
		t.Errorf("left out %v, want %v", left, want)
	}
	if _, err := e.Encode(rows); err != nil {
		t.Error(err)
	}
	if _, at, _ := e.Complete(table, false); !slices.Equal(at, []int{0, 4, 5}) {
		t.Errorf("rows at %v without a target", at)
	}
	// Filled features leave no row out, and columns that are not there are for Encode.
	if _, at, left := over(t, "x|fill 0", "c|fill none").Complete(tableFrom("c", "_", "a"), true); len(at) != 2 || len(left) != 0 {
		t.Errorf("rows at %v, left out %v", at, left)
	}
	if _, at, _ := e.Complete(Table{Columns: []string{"x", "c"}, Rows: [][]string{{"1"}, {}}}, true); len(at) != 2 {
		t.Errorf("rows at %v", at)
	}
	e.Classes, e.Positive = nil, ""
	_, at, left = e.Complete(tableFrom("c x y", "a 1 1e3", "a 1 inf", "a 1 _"), true)
	if want := map[string]int{DropNumber: 1, DropTarget: 1}; !slices.Equal(at, []int{0}) || !maps.Equal(left, want) {
		t.Errorf("rows at %v, left out %v", at, left)
	}
}

// What Complete lets through is encoded, finite and within bounds, whatever the
// recipe; or the error says which column and row.
func TestCompleteRowsEncode(t *testing.T) {
	features := []string{
		"x", "x|mean|indicator", "x|missing 0|median", "x|clip 0 100|log1p", "x|cyclic 7", "x|times 0.5|abs|log1p", "x|fill 3|clip -1e99 1e99|times 10",
		"c|other a", "c|fill none|other rest|indicator", "c|ordinal b < a|other a", "c|level|other b",
	}
	cells := rapid.SampledFrom([]string{"", "0", "-1.5", "1e99", "-1e99", "1e-300", "a", "b", "zzz", "12345678901234567890", "inf"})
	rapid.Check(t, func(t *rapid.T) {
		chosen := rapid.SliceOfNDistinct(rapid.SampledFrom(features), 1, 6, rapid.ID[string]).Draw(t, "features")
		e, err := NewEncoding("y", chosen, "", []Manifest{described("a", 200)})
		if err != nil {
			t.Fatal(err)
		}
		table := Table{Columns: []string{"x", "c", "y"}}
		for range rapid.IntRange(0, 8).Draw(t, "rows") {
			table.Rows = append(table.Rows, []string{cells.Draw(t, "x"), cells.Draw(t, "c"), rapid.SampledFrom([]string{"0", "1", ""}).Draw(t, "y")})
		}
		rows, at, left := e.Complete(table, true)
		n := len(at)
		for _, count := range left {
			n += count
		}
		if n != len(table.Rows) || len(rows.Rows) != len(at) {
			t.Fatalf("%d rows are kept, %v left out of %d", len(at), left, len(table.Rows))
		}
		s, err := e.Encode(rows)
		if err != nil {
			if !strings.Contains(err.Error(), `should be numeric`) {
				t.Fatal(err)
			}
			return
		}
		for _, x := range s.X {
			if !(math.Abs(x) <= largest) {
				t.Fatalf("encoded %v", x)
			}
		}
	})
}

// A row falls on the side that it falls on without recipes, so that these do not
// move rows between training and test.
func TestDivideIgnoresRecipes(t *testing.T) {
	table := numbered("x c y", 500, func(i int) string { return fmt.Sprintf("%d %s %d", i, []string{"a", "b"}[i%2], i%2) })
	_, want, err := over(t, "x", "c").Divide(table, "", 3)
	if err != nil || len(want.Rows) == 0 {
		t.Fatal(err)
	}
	for _, features := range [][]string{{"x|abs", "c|level"}, {"x", "x|abs", "c", "x|cyclic 9"}} {
		if _, got, err := over(t, features...).Divide(table, "", 3); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%v: other rows are for testing, %v", features, err)
		}
	}
	if _, got, _ := over(t, "c", "x").Divide(table, "", 3); reflect.DeepEqual(got, want) {
		t.Error("the order of the features does not matter")
	}
}

// A column that is filled wherever it is used may be missing altogether.
func TestColumnThatIsNotThere(t *testing.T) {
	e := over(t, "x|mean|indicator", "x|fill 1|abs", "c")
	table := numbered("c y", 40, func(i int) string { return fmt.Sprint([]string{"a", "b"}[i%2], " ", i%2) })
	rows, at, left := e.Complete(table, true)
	if len(at) != 40 || len(left) != 0 {
		t.Errorf("%d rows are complete, left out %v", len(at), left)
	}
	training, testing, err := e.Divide(rows, "", 1)
	if err != nil || len(training.Rows)+len(testing.Rows) != 40 {
		t.Fatalf("%d + %d rows, %v", len(training.Rows), len(testing.Rows), err)
	}
	s, err := e.Encode(rows)
	if err != nil || !slices.Equal(s.X[:s.D], []float64{10.5, 1, 1, 0}) {
		t.Errorf("%v, %v", s.X, err)
	}
	// Nowhere else.
	e = over(t, "x|mean", "x", "x|abs", "c")
	_, err = e.Encode(table)
	wantError(t, err, "lack x, which")
	_, _, err = e.Divide(table, "", 1)
	wantError(t, err, "lack x, which")

	without := published("b", "c:a,b y!0,1")
	e, err = NewEncoding("y", []string{"x|median", "c"}, "", []Manifest{without, described("a", 200)})
	if err != nil || e.Features[0].Fill != "10" {
		t.Errorf("%v, %v", e, err)
	}
	if err := without.Fits(e); err != nil {
		t.Error(err)
	}
	_, err = NewEncoding("y", []string{"x|median"}, "", []Manifest{without})
	wantError(t, err, "lacks x")
	if names, err := Needed([]string{"x|mean", "c", "u|drop", "c|level"}); err != nil || !slices.Equal(names, []string{"c", "u"}) {
		t.Errorf("%v, %v", names, err)
	}
}

func TestEncodeManyRows(t *testing.T) {
	const n = 300_000
	cells := []string{"0", "17", "2.5", "", "1000"}
	levels := []string{"a", "b", "", "zzz"}
	table := Table{Columns: []string{"x", "c"}, Rows: make([][]string, n)}
	for i := range table.Rows {
		table.Rows[i] = []string{cells[i%len(cells)], levels[i%len(levels)]}
	}
	e := over(t, "x|missing 0|median|indicator", "x|fill 1|log1p", "c|fill none|other rest")
	var s Samples
	allocs := testing.AllocsPerRun(1, func() {
		var err error
		if s, err = e.EncodeFeatures(table); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 100 || len(s.X) != n*e.Width() {
		t.Errorf("%v allocations for %d rows", allocs, n)
	}
}
