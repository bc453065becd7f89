package dataset

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// published is the manifest of a dataset with columns like "age", "cp:1,2" or,
// the target, "y!0,1".
func published(name, columns string) Manifest {
	m := Manifest{Name: name, Nation: "HUN", Node: "node of " + name, Rows: 100, Commitment: make([]byte, 32)}
	for _, text := range strings.Fields(columns) {
		c := Column{Name: text, Kind: Numeric, Role: Feature}
		if at := strings.IndexAny(text, ":!"); at >= 0 {
			c = Column{Name: text[:at], Kind: Categorical, Role: Feature}
			if text[at+1:] != "" {
				c.Levels = strings.Split(text[at+1:], ",")
			}
			if text[at] == '!' {
				c.Role, m.Target = Target, c.Name
			}
		}
		m.Columns = append(m.Columns, c)
	}
	return m
}

func positively(m Manifest, level string) Manifest {
	m.Positive = level
	return m
}

func TestNewEncoding(t *testing.T) {
	e, err := NewEncoding("y", []string{"cp", "age"}, "", []Manifest{
		published("a", "age cp:1,2 extra y!0"), published("b", "cp:2,10 y!1 age"),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Encoding{Target: "y", Classes: []string{"0", "1"}, Positive: "1", Features: []FeatureSpec{
		{Name: "cp", Kind: Categorical, Levels: []string{"1", "2", "10"}}, {Name: "age", Kind: Numeric},
	}}
	if !reflect.DeepEqual(e, want) {
		t.Errorf("encoding %#v", e)
	}
	if e.Width() != 3 || !slices.Equal(e.Names(), []string{"cp=2", "cp=10", "age"}) {
		t.Errorf("%d columns %v", e.Width(), e.Names())
	}
	if err := e.Check(); err != nil {
		t.Error(err)
	}
}

func TestNewEncodingOfSharedFeatures(t *testing.T) {
	e, err := NewEncoding("y", nil, "", []Manifest{
		published("a", "only-a site:A one:x age cp:1,2 y!no,yes"), published("b", "cp:1,2 one:x age site:B y!no,yes only-b"),
	})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range e.Features {
		names = append(names, f.Name)
	}
	if !slices.Equal(names, []string{"site", "age", "cp"}) || e.Positive != "yes" {
		t.Errorf("features %v, positive %q", names, e.Positive)
	}
}

func TestPositiveClass(t *testing.T) {
	for _, c := range []struct {
		manifests []Manifest
		want      string
	}{
		{[]Manifest{published("a", "x y!no,yes")}, "yes"},
		{[]Manifest{published("a", "x y!9,10")}, "10"},
		{[]Manifest{published("a", "x y!no,yes"), positively(published("b", "x y!no,yes"), "no")}, "no"},
		{[]Manifest{positively(published("a", "x y!a,b,c"), "a")}, ""},
	} {
		e, err := NewEncoding("y", []string{"x"}, "", c.manifests)
		if err != nil || e.Positive != c.want {
			t.Errorf("positive %q (%v), want %q", e.Positive, err, c.want)
		}
	}
}

func TestNewEncodingRefuses(t *testing.T) {
	a := published("a", "age cp:1,2 one:x y!0,1")
	split := published("s", "age y!0,1")
	split.Columns = append(split.Columns, Column{Name: "cp", Kind: Categorical, Role: Split, Levels: []string{"test", "train"}})
	for _, c := range []struct {
		name      string
		features  string
		manifests []Manifest
		want      []string
	}{
		{"no dataset", "age", nil, []string{"village dataset list"}},
		{"lacks features", "age cp", []Manifest{a, published("b", "bmi y!0,1")}, []string{`dataset "b" of "node of b" (HUN) lacks age, cp`, "bmi, y"}},
		{"lacks the target", "age", []Manifest{a, published("b", "age z!0,1")}, []string{`"b"`, "lacks y", "age, z"}},
		{"split is no feature", "cp", []Manifest{a, split}, []string{`"s"`, "lacks cp"}},
		{"kinds differ", "cp", []Manifest{a, published("b", "cp y!0,1")}, []string{`"cp" is categorical in dataset "a"`, `numeric in dataset "b"`, "--categorical cp"}},
		{"feature as target", "cp", []Manifest{a, published("b", "cp:1,2 y:0,1 z!0,1")}, []string{`"y" is a categorical feature of dataset "b"`, "--target y"}},
		{"one class", "age", []Manifest{published("b", "age y!1")}, []string{"fewer than two levels of target", "--levels y=a,b"}},
		{"one level", "one", []Manifest{a, a}, []string{`feature "one" (x)`, "--levels one=a,b"}},
		{"nothing shared", "", []Manifest{a, published("b", "bmi y!0,1")}, []string{"share no feature"}},
		{"only constants shared", "", []Manifest{published("b", "one:x y!0,1")}, []string{"--levels"}},
		{"positives differ", "age", []Manifest{positively(a, "0"), positively(published("b", "age y!0,1"), "1")}, []string{`"0" in dataset "a"`, `"1" in dataset "b"`, "--positive"}},
		{"feature twice", "age age", []Manifest{a}, []string{`"age" is used twice`}},
		{"target as feature", "y", []Manifest{a}, []string{`"y" is used twice`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := NewEncoding("y", strings.Fields(c.features), "", c.manifests)
			wantError(t, err, c.want...)
		})
	}
}

var heart = Encoding{
	Target: "y", Classes: []string{"0", "1"}, Positive: "1",
	Features: []FeatureSpec{{Name: "age", Kind: Numeric}, {Name: "cp", Kind: Categorical, Levels: []string{"1", "2", "3"}}},
}

func TestHostileEncoding(t *testing.T) {
	many := func(n int) []string {
		levels := make([]string, n)
		for i := range levels {
			levels[i] = fmt.Sprint(i)
		}
		return levels
	}
	if err := heart.Check(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Encoding){
		"no target":            func(e *Encoding) { e.Target = "" },
		"long target":          func(e *Encoding) { e.Target = strings.Repeat("x", 257) },
		"bidi target":          func(e *Encoding) { e.Target = "a\u2066" },
		"one class":            func(e *Encoding) { e.Classes = e.Classes[1:] },
		"classes unsorted":     func(e *Encoding) { e.Classes = []string{"1", "0"} },
		"positive unknown":     func(e *Encoding) { e.Positive = "2" },
		"positive missing":     func(e *Encoding) { e.Positive = "" },
		"positive of three":    func(e *Encoding) { e.Classes = []string{"0", "1", "2"} },
		"no features":          func(e *Encoding) { e.Features = nil },
		"too many features":    func(e *Encoding) { e.Features = make([]FeatureSpec, 10_001) },
		"unknown kind":         func(e *Encoding) { e.Features[0].Kind = "text" },
		"nameless feature":     func(e *Encoding) { e.Features[0].Name = "" },
		"feature twice":        func(e *Encoding) { e.Features[0].Name = "cp" },
		"target as feature":    func(e *Encoding) { e.Features[0].Name = "y" },
		"numeric with levels":  func(e *Encoding) { e.Features[0].Levels = []string{"1", "2"} },
		"one level":            func(e *Encoding) { e.Features[1].Levels = []string{"1"} },
		"levels unsorted":      func(e *Encoding) { e.Features[1].Levels = []string{"10", "9"} },
		"levels rotated":       func(e *Encoding) { e.Features[1].Levels = []string{"2", "3", "1"} },
		"levels twice":         func(e *Encoding) { e.Features[1].Levels = []string{"1", "1"} },
		"levels not canonical": func(e *Encoding) { e.Features[1].Levels = []string{"1.0", "2"} },
		"empty level":          func(e *Encoding) { e.Features[1].Levels = []string{"", "2"} },
		"not UTF-8":            func(e *Encoding) { e.Features[1].Levels = []string{"a", "\xff"} },
		"too many levels":      func(e *Encoding) { e.Features[1].Levels = many(1001) },
		"too wide": func(e *Encoding) {
			e.Features = nil
			for i := range 1002 {
				e.Features = append(e.Features, FeatureSpec{Name: fmt.Sprint(i), Kind: Categorical, Levels: many(1000)})
			}
		},
	} {
		e := heart
		e.Features = slices.Clone(heart.Features)
		spoil(&e)
		if e.Check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestEncode(t *testing.T) {
	table := tableFrom("y unused cp age", "1 ? 1.0 50", "0 ? 3 -4.5", "1.0 ? 2 1e2")
	s, err := heart.Encode(table)
	if err != nil {
		t.Fatal(err)
	}
	want := Samples{N: 3, D: 3, X: []float64{50, 0, 0, -4.5, 0, 1, 100, 1, 0}, Y: []int{1, 0, 1}}
	if fmt.Sprint(s) != fmt.Sprint(want) {
		t.Errorf("samples %v, want %v", s, want)
	}
	s, err = heart.EncodeFeatures(tableFrom("age cp", "1 2"))
	if err != nil || s.Y != nil || !slices.Equal(s.X, []float64{1, 1, 0}) {
		t.Errorf("features alone: %v, %v", s, err)
	}
	for _, c := range []struct {
		table Table
		want  []string
	}{
		{tableFrom("y bmi", "1 2"), []string{"lack age, cp", "y, bmi"}},
		{tableFrom("age cp", "1 2"), []string{"lack y"}},
		{tableFrom("age cp y", "1 1 1", "x 1 1"), []string{`"age" should be numeric`, `"x" in row 2`}},
		{tableFrom("age cp y", "inf 1 1"), []string{`"age" should be numeric`}},
		{tableFrom("age cp y", "_ 1 1"), []string{`"age" is empty in row 1`}},
		{tableFrom("age cp y", "1 _ 1"), []string{`"cp" is empty in row 1`}},
		{tableFrom("age cp y", "1 1 _"), []string{`"y" is empty in row 1`}},
		{tableFrom("age cp y", "1 4 1", "1 5 1", "1 4 1", "1 1 1"), []string{`"cp" has 2 levels in 3 rows`, "--levels cp="}},
		{tableFrom("age cp y", "1 1 2"), []string{`"y" has 1 levels in 1 rows`, "--levels y="}},
		{Table{Columns: []string{"age", "cp", "y"}, Rows: [][]string{{"1"}}}, []string{"row 1 has 1 cells"}},
	} {
		_, err := heart.Encode(c.table)
		wantError(t, err, c.want...)
	}
	wide := Encoding{Features: []FeatureSpec{{Name: "c", Kind: Categorical, Levels: make([]string, 1000)}}, Target: "y"}
	_, err = wide.EncodeFeatures(Table{Columns: []string{"c"}, Rows: slices.Repeat([][]string{{"1"}}, 140_000)})
	wantError(t, err, "more than fit in memory")
}

// What Clean keeps, the encoding of its own manifest encodes, finite.
func TestCleanedRowsEncode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(20, 60).Draw(t, "rows")
		table := Table{Columns: []string{"x", "c", "y"}}
		for i := range n {
			table.Rows = append(table.Rows, []string{
				fmt.Sprint(rapid.Float64Range(-1e99, 1e99).Draw(t, "x")), fmt.Sprintf("level %d", rapid.IntRange(0, 3).Draw(t, "c")), fmt.Sprint(i % 2),
			})
		}
		c, err := Clean(table, Options{Name: "d", Target: "y", Levels: map[string][]string{
			"c": {"level 0", "level 1", "level 2", "level 3"}, "y": {"0", "1"},
		}})
		if err != nil {
			t.Fatal(err)
		}
		e, err := NewEncoding("y", nil, "", []Manifest{c.Manifest})
		if err != nil {
			t.Fatal(err)
		}
		s, err := e.Encode(c.Table())
		if err != nil {
			t.Fatal(err)
		}
		m := MomentsOf(s)
		if err := m.Check(e.Width()); err != nil {
			t.Fatal(err)
		}
		m.Scaling().Apply(s)
		for _, x := range s.X {
			if math.IsNaN(x) || math.IsInf(x, 0) {
				t.Fatalf("scaled to %v", x)
			}
		}
	})
}

func TestDivideByColumn(t *testing.T) {
	table := tableFrom("age cp y part", "1 1 0 train", "2 1 0 test", "3 1 1 TRAIN")
	training, testing, err := heart.Divide(table, "part", 1)
	if err != nil || len(training.Rows) != 2 || len(testing.Rows) != 1 || testing.Rows[0][0] != "2" {
		t.Errorf("%v, %v, %v", training.Rows, testing.Rows, err)
	}
	_, _, err = heart.Divide(table, "fold", 1)
	wantError(t, err, `split column "fold"`)
	_, _, err = heart.Divide(table, "cp", 1)
	wantError(t, err, `"1" in row 1`, "only train and test")
	_, _, err = heart.Divide(tableFrom("age cp y part", "1 1 0 test"), "part", 1)
	wantError(t, err, "no row is for training")
	_, _, err = heart.Divide(tableFrom("age y", "1 1"), "", 1)
	wantError(t, err, "lack cp")
}

// The rows that the definition puts to the test side, worked out apart from
// this program.
func TestDivideByHash(t *testing.T) {
	e := Encoding{Target: "y", Features: []FeatureSpec{{Name: "i"}, {Name: "c"}}}
	sides := func(table Table, seed uint64) string {
		_, testing, err := e.Divide(table, "", seed)
		if err != nil {
			t.Fatal(err)
		}
		var rows []string
		at := slices.Index(table.Columns, "i")
		for _, row := range testing.Rows {
			rows = append(rows, strings.TrimSuffix(row[at], ".0"))
		}
		slices.Sort(rows)
		return strings.Join(rows, " ")
	}
	table := numbered("i c y", 12, func(i int) string { return fmt.Sprintf("%d %s %d", i, []string{"b", "a"}[i%2], i%2) })
	// Another file: other columns, order, spelling and rows.
	other := numbered("note y c i", 12, func(i int) string {
		return fmt.Sprintf("n%d %d.0 %s %d.0", i, (11-i)%2, []string{"b", "a"}[(11-i)%2], 11-i)
	})
	for _, c := range []struct {
		seed uint64
		want string
	}{{7, "0 2 3 4 9"}, {65, "1 2 4"}} {
		if got := sides(table, c.seed); got != c.want {
			t.Errorf("seed %d: rows %s are for testing, want %s", c.seed, got, c.want)
		}
		if got := sides(other, c.seed); got != c.want {
			t.Errorf("seed %d: in the other file rows %s are for testing, want %s", c.seed, got, c.want)
		}
	}
	large := numbered("i c y", 10_000, func(i int) string { return fmt.Sprintf("%d a 1", i) })
	if _, testing, _ := e.Divide(large, "", 1); len(testing.Rows) < 2300 || len(testing.Rows) > 2700 {
		t.Errorf("%d of 10,000 rows are for testing, want about a quarter", len(testing.Rows))
	}
}
