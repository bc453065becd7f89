package dataset

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"village/protocol/record"
)

// tableFrom reads a table from rows of space-separated cells; _ is missing.
func tableFrom(columns string, rows ...string) Table {
	t := Table{Columns: strings.Fields(columns)}
	for _, row := range rows {
		cells := strings.Fields(row)
		for i := range cells {
			if cells[i] == "_" {
				cells[i] = ""
			}
		}
		t.Rows = append(t.Rows, cells)
	}
	return t
}

// numbered makes n rows, each what row says of its index.
func numbered(columns string, n int, row func(i int) string) Table {
	rows := make([]string, n)
	for i := range rows {
		rows[i] = row(i)
	}
	return tableFrom(columns, rows...)
}

func clean(t *testing.T, table Table, o Options) Cleaned {
	t.Helper()
	o.Name = "d"
	c, err := Clean(table, o)
	if err != nil {
		t.Fatal(err)
	}
	checkAsPeer(t, c.Manifest)
	return c
}

// checkAsPeer holds a manifest to what a peer asks of it once the node has
// filled in its part.
func checkAsPeer(t *testing.T, m Manifest) Manifest {
	t.Helper()
	m.Nation, m.Node, m.Commitment = "HUN", "Budapest", make([]byte, 32)
	if err := m.Check(); err != nil {
		t.Fatalf("a peer refuses the manifest: %v", err)
	}
	return m
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}

func TestCleanKinds(t *testing.T) {
	table := numbered("id age code blood empty zip y", 100, func(i int) string {
		return fmt.Sprintf("text%d %d.50 %d %s _ 0%d %d", i, i, i%3, []string{"A", "B"}[i%2], i%5, i%2)
	})
	c := clean(t, table, Options{Target: "y", Categorical: []string{"code"}})
	want := map[string]ColumnKind{"age": Numeric, "code": Categorical, "blood": Categorical, "zip": Categorical, "y": Categorical}
	got := map[string]ColumnKind{}
	for _, col := range c.Manifest.Columns {
		got[col.Name] = col.Kind
	}
	if !maps.Equal(got, want) {
		t.Errorf("kinds %v, want %v", got, want)
	}
	if !maps.Equal(c.LeftOut, map[string]string{"id": "text of more than 64 levels", "empty": "empty"}) {
		t.Errorf("left out %v", c.LeftOut)
	}
	if !slices.Equal(c.Rows.Columns, []string{"age", "code", "blood", "zip", "y"}) || !slices.Equal(c.Table().Rows[1], []string{"1.5", "1", "B", "01", "1"}) {
		t.Errorf("table %v, second row %v", c.Rows.Columns, c.Table().Rows[1])
	}
	if c.Manifest.Rows != 100 || c.Read != 100 || len(c.Hints) != 0 {
		t.Errorf("%d rows of %d, hints %q", c.Manifest.Rows, c.Read, c.Hints)
	}
}

func TestCleanTarget(t *testing.T) {
	table := numbered("x few many y", 60, func(i int) string { return fmt.Sprintf("%d %d %d a", i, i%20, i%21) })
	if k := clean(t, table, Options{Target: "few", Numeric: []string{"few"}}).Manifest.column("few").Kind; k != Numeric {
		t.Errorf("a target of 20 numbers that is declared numeric is %s", k)
	}
	if c := clean(t, table, Options{Target: "few", Units: map[string]string{"few": "kg"}}).Manifest.column("few"); c.Kind != Numeric || c.Unit != "kg" {
		t.Errorf("a target of 20 numbers that has a unit is %+v", c)
	}
	if k := clean(t, table, Options{Target: "few"}).Manifest.column("few").Kind; k != Categorical {
		t.Errorf("a target of 20 numbers is %s", k)
	}
	if k := clean(t, table, Options{Target: "many"}).Manifest.column("many").Kind; k != Numeric {
		t.Errorf("a target of 21 numbers is %s", k)
	}
	for _, o := range []Options{
		{Target: "many", Categorical: []string{"many"}}, {Target: "many", Positive: "20"}, {Target: "many", Levels: map[string][]string{"many": {"1"}}},
	} {
		if k := clean(t, table, o).Manifest.column("many").Kind; k != Categorical {
			t.Errorf("%+v: the target is %s", o, k)
		}
	}
}

func TestCleanDrops(t *testing.T) {
	rows := []string{"train _ 1", "_ _ 1", "_ _ _", "test 1 _", "_ 2 1"}
	for i := range 30 { // of every three rows two are the same
		rows = append(rows, fmt.Sprintf("Train %d.0 %d", 100+i/3*2+i%3/2, i%3/2))
	}
	c := clean(t, tableFrom("part x y", rows...), Options{Target: "y", Split: "part"})
	want := map[string]int{DropTarget: 2, DropSplit: 2, DropDuplicate: 10}
	if !maps.Equal(c.Dropped, want) {
		t.Errorf("dropped %v, want %v", c.Dropped, want)
	}
	if want := []Drop{{DropTarget, 0, true}, {DropSplit, 0, true}, {DropDuplicate, 10, false}}; !slices.Equal(c.Manifest.Dropped, want) {
		t.Errorf("published drops %v, want %v", c.Manifest.Dropped, want)
	}
	if c.Read != 35 || c.Manifest.Rows != 21 || c.Rows.Rows() != 21 || !slices.Equal(c.Table().Rows[0], []string{"train", "", "1"}) {
		t.Errorf("%d of %d rows, the first is %v", c.Manifest.Rows, c.Read, c.Table().Rows[0])
	}
}

// Rows that the split tells apart are no duplicates, and 1.0 is 1.
func TestCleanDuplicates(t *testing.T) {
	c := clean(t, tableFrom("x y part", "1 a train", "1.0 a train", "1 a test", "01 a train"), Options{Target: "y", Split: "part"})
	if c.Dropped[DropDuplicate] != 1 || c.Rows.Rows() != 3 {
		t.Errorf("%d duplicates dropped, %v kept", c.Dropped[DropDuplicate], c.Table().Rows)
	}
	// Cells run together are another row.
	c = clean(t, tableFrom("a b y", "ab c 1", "a bc 1"), Options{Target: "y"})
	if c.Rows.Rows() != 2 {
		t.Errorf("%v kept", c.Table().Rows)
	}
}

func TestFewRowsAreNotCounted(t *testing.T) {
	c := clean(t, numbered("x y", 9, func(i int) string { return fmt.Sprintf("%d %d", i, i%2) }), Options{Target: "y"})
	if c.Manifest.Rows != 0 || c.Rows.Rows() != 9 {
		t.Errorf("a manifest of %d rows for %d", c.Manifest.Rows, c.Rows.Rows())
	}
	if s := c.Manifest.column("x").Statistics; len(s) != 0 {
		t.Errorf("statistics %v of nine rows", s)
	}
}

func TestLevels(t *testing.T) {
	// c: a in 20 rows, b in 10, rare in 9, shy in 1.
	table := numbered("x c y", 40, func(i int) string {
		c := "a"
		switch {
		case i < 10:
			c = "b"
		case i < 19:
			c = "rare"
		case i == 19:
			c = "shy"
		}
		return fmt.Sprintf("%d %s %d", i, c, i/35)
	})
	c := clean(t, table, Options{Target: "y"})
	if col := c.Manifest.column("c"); !slices.Equal(col.Levels, []string{"a", "b"}) || !col.Hidden {
		t.Errorf("levels %q, hidden %v", col.Levels, col.Hidden)
	}
	if col := c.Manifest.column("y"); !slices.Equal(col.Levels, []string{"0"}) || !col.Hidden {
		t.Errorf("classes %q, hidden %v", col.Levels, col.Hidden)
	}
	if len(c.Hints) != 2 || !strings.Contains(c.Hints[0], "2 of its 4 levels") || !strings.Contains(c.Hints[0], "--levels c=a,b,rare,shy") {
		t.Errorf("hints %q", c.Hints)
	}
	c = clean(t, table, Options{Target: "y", Positive: "1.0", Levels: map[string][]string{"c": {"shy", "never", "rare"}}})
	if col := c.Manifest.column("c"); !slices.Equal(col.Levels, []string{"a", "b", "never", "rare", "shy"}) || col.Hidden {
		t.Errorf("levels %q, hidden %v", col.Levels, col.Hidden)
	}
	if col := c.Manifest.column("y"); !slices.Equal(col.Levels, []string{"0", "1"}) || col.Hidden || c.Manifest.Positive != "1" {
		t.Errorf("classes %q, positive %q", col.Levels, c.Manifest.Positive)
	}
	// A level that never occurs is positive only if it is declared.
	_, err := Clean(table, Options{Name: "d", Target: "y", Positive: "yes"})
	wantError(t, err, `"yes"`, "--positive", "--levels y=yes")
	if c := clean(t, table, Options{Target: "y", Positive: "2", Levels: map[string][]string{"y": {"2"}}}); !slices.Equal(c.Manifest.column("y").Levels, []string{"0", "2"}) {
		t.Errorf("classes %q", c.Manifest.column("y").Levels)
	}
}

func TestStatistics(t *testing.T) {
	ramp := func(n int) []float64 {
		v := make([]float64, n)
		for i := range v {
			v[(i*7)%n] = float64(i + 1)
		}
		return v
	}
	mix := func(counts ...int) (v []float64) {
		for value, n := range counts {
			v = append(v, slices.Repeat([]float64{float64(value)}, n)...)
		}
		return v
	}
	for _, c := range []struct {
		name   string
		values []float64
		want   []float64
	}{
		{"nine rows", ramp(9), nil},
		{"ten rows", ramp(10), []float64{5.5, 2.8722813232690143}},
		{"under a thousand", ramp(999), []float64{500, 288.38631497813253}},
		{"a thousand", ramp(1000), []float64{500.5, 288.6749902572095, 11, 990}},
		{"constant", mix(0, 20), []float64{1, 0}},
		{"two values", mix(30, 10), []float64{0.25, 0.4330127018922193}},
		{"a value of nine rows", mix(30, 9), nil},
		{"a third value of nine rows", mix(30, 30, 9), nil},
		{"one outlier among many values", append(mix(40), 7, 8, 9, 10), nil},
	} {
		if got := statistics(c.values); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// Nothing of an ignored column, of a left-out one or of a rare level is in the
// manifest's bytes.
func TestNothingLeaks(t *testing.T) {
	table := numbered("canary-ignored-name name note age y", 80, func(i int) string {
		note := "common"
		if i == 3 {
			note = "canary-note"
		}
		return fmt.Sprintf("canary-ignored-%d canary-name-%d %s %d %d", i, i, note, 40+i, i%2)
	})
	c := clean(t, table, Options{Target: "y", Ignore: []string{"canary-ignored-name"}})
	body, err := record.Encode(c.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(body, []byte("canary")) {
		t.Errorf("the manifest holds a canary: %q", body)
	}
	for _, row := range append(c.Table().Rows, c.Rows.Columns) {
		if strings.Contains(strings.Join(row, " "), "canary-ignored") {
			t.Fatalf("the cleaned rows hold an ignored cell: %q", row)
		}
	}
	if len(c.Manifest.Columns) != 3 {
		t.Errorf("columns %v", c.Manifest.Columns)
	}
}

func TestHints(t *testing.T) {
	// deaths is empty in 60 of 100 rows, damage in 21, the target in one of the rest.
	table := numbered("x deaths damage y", 100, func(i int) string {
		cells := []string{strconv.Itoa(i), "1", "2", strconv.Itoa(i % 2)}
		if i < 60 {
			cells[1] = "_"
		}
		if i >= 79 {
			cells[2] = "_"
		}
		if i == 99 {
			cells[3] = "_"
		}
		return strings.Join(cells, " ")
	})
	c := clean(t, table, Options{Target: "y"})
	want := "deaths is empty in 60 of 99 rows, damage is empty in 20 of 99 rows: a task that uses every column is left with 19 rows, unless it fills such cells, as with 'deaths|mean|indicator'"
	if !slices.Contains(c.Hints, want) {
		t.Errorf("hints %q, want %q", c.Hints, want)
	}
	c = clean(t, table, Options{Target: "y", Ignore: []string{"deaths", "damage"}})
	if len(c.Hints) != 0 || c.Rows.Rows() != 99 {
		t.Errorf("hints %q, %d rows", c.Hints, c.Rows.Rows())
	}
}

// A column of numbers in which a few cells are none changes its kind, which
// must not happen in silence.
func TestNearlyNumericColumnsAreNamed(t *testing.T) {
	table := func(odd int, wrong ...string) Table {
		return numbered("x a y", 100, func(i int) string {
			x := strconv.Itoa(i % 50)
			if i < odd {
				x = wrong[i%len(wrong)]
			}
			return fmt.Sprint(x, " ", i, " ", i%2)
		})
	}
	of := func(c Cleaned) (hints []string) {
		for _, h := range c.Hints {
			if strings.HasPrefix(h, "column ") {
				hints = append(hints, h)
			}
		}
		return hints
	}
	for _, test := range []struct {
		table Table
		o     Options
		want  string
	}{
		{table: table(0)},
		{table(3, "inf", "1e999"), Options{}, "column x: 3 of 100 cells are not numbers (inf, 1e999), so it counts as categorical; correct or empty them if it is meant to be numeric"},
		{table(10, "a", "b", "c", "d"), Options{}, "column x: 10 of 100 cells are not numbers (a, b, c), so"},
		{table: table(11, "a")},
		{table: table(3, "inf"), o: Options{Categorical: []string{"x"}}},
		{table: table(3, "inf"), o: Options{Levels: map[string][]string{"x": {"inf"}}}},
		{table: table(3, "inf"), o: Options{Ignore: []string{"x"}}},
		// Of an almost numeric column the levels are often too many to be kept.
		{numbered("x a y", 100, func(i int) string {
			return fmt.Sprint([]string{"nan", strconv.Itoa(i)}[min(i, 1)], " ", i, " ", i%2)
		}), Options{}, "column x: 1 of 100 cells are not numbers (nan), so it counts as text and is left out; "},
		{numbered("x a y", 100, func(i int) string {
			return fmt.Sprint([]string{"_", strings.Repeat("z", 50), strconv.Itoa(i % 40)}[min(i, 2)], " ", i, " ", i%2)
		}), Options{}, "column x: 1 of 99 cells are not numbers (" + strings.Repeat("z", 40) + "), so it counts as categorical; "},
		// Few classes are classes, whatever they are called.
		{table: numbered("a y", 100, func(i int) string { return fmt.Sprint(i, " ", []string{"inf", "0", "1"}[min(i, 1+i%2)]) })},
	} {
		test.o.Target = "y"
		switch hints := of(clean(t, test.table, test.o)); {
		case test.want == "" && len(hints) > 0, test.want != "" && (len(hints) != 1 || !strings.HasPrefix(hints[0], test.want)):
			t.Errorf("hints %q, want %q", hints, test.want)
		}
	}
	_, err := Clean(numbered("x y", 100, func(i int) string {
		return fmt.Sprint([]string{"inf", strconv.Itoa(i)}[min(i, 1)], " ", i%2)
	}), Options{Name: "d", Target: "y"})
	wantError(t, err, "no feature column", "1 of 100 cells are not numbers (inf)")
}

func TestHintOfOneColumn(t *testing.T) {
	for _, c := range []struct {
		rows int
		x    func(i int) string
		want string
	}{
		{90, func(i int) string { return []string{"_", strconv.Itoa(i)}[min(i/30, 1)] }, "x is empty in 30 of 90 rows: a task that uses it leaves these rows out, or fills them, as with 'x|mean|indicator'"},
		{900, func(i int) string { return []string{"_", strconv.Itoa(i)}[min(i/300, 1)] }, "x is empty in 300 of 900 rows: a task that uses it leaves these rows out, or fills them, as with 'x|median|indicator'"},
		{90, func(i int) string { return []string{"_", "a", "b"}[min(i/30, 2)] }, "x is empty in 30 of 90 rows: a task that uses it leaves these rows out, or fills them, as with 'x|fill missing|indicator'"},
		{15, func(i int) string { return []string{"_", strconv.Itoa(i)}[min(i/10, 1)] }, "x is empty in 10 of 15 rows: a task that uses it leaves these rows out, or fills them, as with 'x|fill 0|indicator'"},
	} {
		h := clean(t, numbered("x a y", c.rows, func(i int) string { return fmt.Sprint(c.x(i), " ", i, " ", i%2) }), Options{Target: "y", Levels: map[string][]string{"y": {"0", "1"}}}).Hints
		if !slices.Equal(h, []string{c.want}) {
			t.Errorf("hints %q, want %q", h, c.want)
		}
	}
	// A fifth of the rows at most is nothing to speak of.
	if h := clean(t, numbered("x a y", 100, func(i int) string { return fmt.Sprint([]string{"_", strconv.Itoa(i)}[min(i/20, 1)], " ", i, " ", i%2) }), Options{Target: "y"}).Hints; len(h) > 0 {
		t.Errorf("hints %q", h)
	}
	// Where no row has everything, any gap is.
	h := clean(t, numbered("a b y", 40, func(i int) string {
		if i < 36 {
			return fmt.Sprint("_ ", i, " ", i%2)
		}
		return fmt.Sprint(i, " _ ", i%2)
	}), Options{Target: "y"}).Hints
	if len(h) != 1 || !strings.Contains(h[0], "a is empty in 36 of 40 rows") {
		t.Errorf("hints %q", h)
	}
}

func TestConstantColumn(t *testing.T) {
	c := clean(t, numbered("x c a y", 120, func(i int) string { return fmt.Sprint("5 v ", i, " 1") }), Options{Target: "y"})
	for _, name := range []string{"x", "c", "y"} {
		if !slices.Contains(c.Hints, name+" is the same in every row; it helps a model only where it is otherwise at other nodes") {
			t.Errorf("hints %q say nothing of %s", c.Hints, name)
		}
	}
	if x := c.Manifest.column("x"); !slices.Equal(x.Statistics, []float64{5, 0}) || !slices.Equal(x.Deciles, slices.Repeat([]float64{5}, 9)) {
		t.Errorf("%+v", x)
	}
	other := published("other", "x a c:v,w y!0")
	e, err := NewEncoding("y", []string{"x", "c|level"}, "", []Manifest{c.Manifest, other})
	if err != nil {
		t.Fatal(err)
	}
	s, err := e.Encode(c.Table())
	if err != nil {
		t.Fatal(err)
	}
	MomentsOf(s).Scaling().Apply(s)
	for _, x := range s.X {
		if x != 0 {
			t.Fatalf("a constant column is scaled to %v", s.X[:4])
		}
	}
}

// A feature that has values only in rows that are dropped is an empty one.
func TestFeatureEmptyAfterCleaning(t *testing.T) {
	c := clean(t, tableFrom("x a y", "1 1 _", "_ 2 0", "_ 3 1"), Options{Target: "y"})
	if c.LeftOut["x"] != "empty" || !slices.Equal(c.Rows.Columns, []string{"a", "y"}) || c.Rows.Rows() != 2 {
		t.Errorf("left out %v, kept %v", c.LeftOut, c.Table())
	}
}

func TestMillionLevels(t *testing.T) {
	const n = 1_000_000
	table := Table{Columns: []string{"id", "x", "y"}, Rows: make([][]string, n)}
	cells := make([]string, 3*n)
	for i := range table.Rows {
		row := cells[3*i : 3*i+3 : 3*i+3]
		row[0], row[1], row[2] = "patient "+strconv.Itoa(i), strconv.Itoa(i%977), []string{"no", "yes"}[i%2]
		table.Rows[i] = row
	}
	c := clean(t, table, Options{Target: "y"})
	if c.LeftOut["id"] != "text of more than 64 levels" || len(c.Manifest.Columns) != 2 {
		t.Errorf("left out %v, columns %v", c.LeftOut, c.Manifest.Columns)
	}
	_, err := Clean(table, Options{Name: "d", Target: "y", Categorical: []string{"id"}})
	wantError(t, err, `"id" has more than 1,000 levels`, "--ignore id")
	_, err = Clean(table, Options{Name: "d", Target: "id"})
	wantError(t, err, `"id" has more than 1,000 levels`)
}

// What a task can do without gives way where a manifest would be too large.
func TestManyColumns(t *testing.T) {
	const n, width = 200, 7_000
	table := Table{Columns: make([]string, width), Rows: make([][]string, n)}
	for j := range width {
		table.Columns[j] = "x" + strconv.Itoa(j)
	}
	for i := range n {
		table.Rows[i] = slices.Repeat([]string{strconv.Itoa(i)}, width)
		table.Rows[i][0] = strconv.Itoa(i % 2)
	}
	c := clean(t, table, Options{Target: "x0"})
	if x := c.Manifest.column("x5"); len(x.Deciles) > 0 || len(x.Statistics) != 2 {
		t.Errorf("%+v", x)
	}
	if len(c.Hints) != 1 || !strings.Contains(c.Hints[0], "7000 columns are too many to publish deciles") {
		t.Errorf("hints %q", c.Hints)
	}
}

func TestEveryRowDropped(t *testing.T) {
	_, err := Clean(tableFrom("a b y", "1 2 _", "_ _ 1"), Options{Name: "d", Target: "y"})
	wantError(t, err, "every feature column is empty in the 1 rows that have a target")
	_, err = Clean(tableFrom("x y part", "1 _ train", "2 1 _"), Options{Name: "d", Target: "y", Split: "part"})
	wantError(t, err, "y is empty in 1 of 2 rows", "part is empty in 1 of 2 rows")
}

func TestCleanRefuses(t *testing.T) {
	good := tableFrom("age sex label part", "1 f 0 train", "2 m 1 test")
	wide := numbered("x c y", 1001, func(i int) string { return fmt.Sprintf("%d c%d %d", i, i, i%2) })
	broad := Table{Rows: [][]string{slices.Repeat([]string{"1"}, 5000)}}
	for i := range 5000 {
		broad.Columns = append(broad.Columns, fmt.Sprintf("%0250d", i))
	}
	for _, c := range []struct {
		name  string
		table Table
		o     Options
		want  []string
	}{
		{"no name", good, Options{Target: "label", Name: "-"}, []string{"name", "0 characters"}},
		{"bidi name", good, Options{Target: "label", Name: "a\u202eb"}, []string{"bidirectional"}},
		{"no target", good, Options{}, []string{"--target", "age, sex, label, part"}},
		{"mistyped target", good, Options{Target: "lable"}, []string{"--target", `did you mean "label"`}},
		{"foreign target", good, Options{Target: "temperature"}, []string{"the columns are age, sex, label, part"}},
		{"mistyped ignore", good, Options{Target: "label", Ignore: []string{"Sex"}}, []string{"--ignore", `"sex"`}},
		{"mistyped categorical", good, Options{Target: "label", Categorical: []string{"aeg"}}, []string{"--categorical", `"age"`}},
		{"mistyped levels", good, Options{Target: "label", Levels: map[string][]string{"ag": {"1"}}}, []string{"--levels", `"age"`}},
		{"mistyped split", good, Options{Target: "label", Split: "prt"}, []string{"--split", `"part"`}},
		{"target ignored", good, Options{Target: "label", Ignore: []string{"label"}}, []string{"--target", "--ignore"}},
		{"split is target", good, Options{Target: "label", Split: "label"}, []string{"both target and split"}},
		{"split is categorical", good, Options{Target: "label", Split: "part", Categorical: []string{"part"}}, []string{"part"}},
		{"split of other words", good, Options{Target: "label", Split: "sex"}, []string{`"sex"`, `"f"`, "only train and test"}},
		{"no feature", good, Options{Target: "label", Split: "part", Ignore: []string{"age", "sex"}}, []string{"no feature"}},
		{"mistyped numeric", good, Options{Target: "label", Numeric: []string{"aeg"}}, []string{"--numeric", `"age"`}},
		{"numeric text", good, Options{Target: "label", Numeric: []string{"sex"}}, []string{`"sex" is numeric by --numeric`, "2 of its 2 cells are not numbers (f, m)"}},
		{"infinite", tableFrom("a y", "1 0", "inf 1", "NaN 1"), Options{Target: "y", Numeric: []string{"a"}}, []string{"2 of its 3 cells are not numbers (inf, NaN); correct or empty them"}},
		{"numeric and categorical", good, Options{Target: "label", Numeric: []string{"age"}, Categorical: []string{"age"}}, []string{"categorical by --categorical", "name it once"}},
		{"numeric and positive", good, Options{Target: "label", Numeric: []string{"label"}, Positive: "1"}, []string{"categorical by --positive"}},
		{"unit of no column", good, Options{Target: "label", Units: map[string]string{"ag": "years"}}, []string{"--unit", `"age"`}},
		{"unit of an ignored column", good, Options{Target: "label", Ignore: []string{"age"}, Units: map[string]string{"age": "years"}}, []string{"--unit and by --ignore"}},
		{"unit of text", good, Options{Target: "label", Units: map[string]string{"sex": "m"}}, []string{`"sex" is numeric by --unit`}},
		{"unit of levels", good, Options{Target: "label", Levels: map[string][]string{"age": {"1"}}, Units: map[string]string{"age": "years"}}, []string{"categorical by --levels"}},
		{"unit of the split", good, Options{Target: "label", Split: "part", Units: map[string]string{"part": "years"}}, []string{"--unit is for others"}},
		{"long unit", good, Options{Target: "label", Units: map[string]string{"age": strings.Repeat("m", 65)}}, []string{`unit of column "age"`, "65 characters"}},
		{"bidi unit", good, Options{Target: "label", Units: map[string]string{"age": "\u202e"}}, []string{"bidirectional"}},
		{"no rows", Table{Columns: good.Columns}, Options{Target: "label"}, []string{"no rows"}},
		{"ragged", Table{Columns: good.Columns, Rows: [][]string{{"1"}}}, Options{Target: "label"}, []string{"row 1 has 1 cells"}},
		{"twice", tableFrom("a a", "1 2"), Options{Target: "a"}, []string{`two columns are named "a"`}},
		{"control in a column name", Table{Columns: []string{"a\x1b[2J", "y"}, Rows: [][]string{{"1", "2"}}}, Options{Target: "y"}, []string{"control"}},
		{"empty target", tableFrom("a y", "1 _"), Options{Target: "y"}, []string{`"y" is empty`}},
		{"empty split", tableFrom("a y s", "1 1 _"), Options{Target: "y", Split: "s"}, []string{`"s" is empty`}},
		{"too many levels declared", wide, Options{Target: "y", Categorical: []string{"c"}}, []string{"more than 1,000 levels", "--ignore c"}},
		{"too many classes", wide, Options{Target: "c"}, []string{"more than 1,000 levels"}},
		{"a manifest over the limit", broad, Options{Target: broad.Columns[0]}, []string{"5000 columns", "--ignore"}},
		{"control in a level", tableFrom("a y", slices.Repeat([]string{"x\x07 1"}, 1)...), Options{Target: "y", Levels: map[string][]string{"a": {"x\x07"}}}, []string{`"a"`, "control", "--ignore a"}},
	} {
		if c.o.Name == "" {
			c.o.Name = "d"
		} else if c.o.Name == "-" {
			c.o.Name = ""
		}
		_, err := Clean(c.table, c.o)
		if err == nil {
			t.Errorf("%s: no error", c.name)
			continue
		}
		t.Run(c.name, func(t *testing.T) { wantError(t, err, c.want...) })
	}
}

// Whatever the table, cleaning ends without a panic, publishes what a peer
// accepts, and names no undeclared level of fewer than ten rows.
func FuzzClean(f *testing.F) {
	f.Add("a b y\n1 2 0\n1.0 2 1\n_ 3 1", "y", "", "a", "b", "x", "1")
	f.Add("a y s\n1 0 train\n2 1 test\n3 1 TEST", "y", "s", "", "a", "1", "")
	f.Add("a b y\n"+strings.Repeat("1 _ 0\n2 p 1\n3 q 2.5\n4 _ 7\n", 40), "y", "", "", "b", "p", "")
	f.Add(strings.Repeat("u v w\n", 1)+strings.Repeat("1 x p\n2 x q\n", 12)+"3 rare p\n", "w", "", "", "v", "z", "p")
	f.Fuzz(func(t *testing.T, text, target, split, ignore, levels, level, positive string) {
		lines := strings.Split(text, "\n")
		table := tableFrom(lines[0], lines[1:]...)
		o := Options{Name: "d", Target: target, Split: split, Positive: positive}
		if ignore != "" {
			o.Ignore = []string{ignore}
		}
		if levels != "" {
			o.Levels = map[string][]string{levels: {level}}
		}
		c, err := Clean(table, o)
		if err != nil {
			return
		}
		m := checkAsPeer(t, c.Manifest)
		at := map[string]int{}
		for i, name := range c.Rows.Columns {
			at[name] = i
		}
		if _, ok := at[ignore]; ok {
			t.Fatalf("ignored column %q is in the table", ignore)
		}
		for _, col := range m.Columns {
			counts := map[string]int{}
			for _, row := range c.Table().Rows {
				cell := row[at[col.Name]]
				if cell == "" && col.Role != Feature {
					t.Fatalf("a row misses %q", col.Name)
				}
				counts[cell]++
			}
			if missing := counts[""]; col.Gaps != (missing > 0) || col.Missing > 0 && col.Missing != uint64(missing) {
				t.Fatalf("%d missing cells are published as %d, %v", missing, col.Missing, col.Gaps)
			}
			if len(col.Statistics) > 0 && c.Rows.Rows() < minPublished {
				t.Fatalf("statistics of %d rows", c.Rows.Rows())
			}
			for _, l := range col.Levels {
				declared := col.Name == levels && l == canonical(level) || col.Role == Target && l == canonical(positive) || col.Role == Split
				if counts[l] < minPublished && !declared {
					t.Fatalf("level %q of column %q is published with %d rows", l, col.Name, counts[l])
				}
			}
		}
		for _, d := range Drift(m, c.Rows) {
			if d.Level == DriftModerate || d.Level == DriftLarge {
				t.Fatalf("column %q has drifted from itself: %+v", d.Column, d)
			}
		}
		e, err := NewEncoding(target, nil, "", []Manifest{m})
		if err != nil {
			return
		}
		if err := m.Fits(e); err != nil {
			t.Fatalf("a dataset does not fit its own encoding: %v", err)
		}
		rows, where, left := e.Complete(c.Table(), true)
		for _, n := range left {
			where = append(where, make([]int, n)...)
		}
		if len(where) != c.Rows.Rows() {
			t.Fatalf("%d rows of %d are complete or left out (%v)", len(where), c.Rows.Rows(), left)
		}
		training, testing, err := e.Divide(rows, split, 1)
		if err == nil && len(training.Rows)+len(testing.Rows) != len(rows.Rows) {
			t.Fatalf("%d + %d rows of %d", len(training.Rows), len(testing.Rows), len(rows.Rows))
		}
		s, err := e.Encode(rows)
		if err == nil && (len(s.X) != s.N*s.D || len(s.Y)+len(s.T) != s.N) {
			t.Fatalf("samples of %d x %d hold %d, %d and %d", s.N, s.D, len(s.X), len(s.Y), len(s.T))
		}
		if err != nil && !strings.Contains(err.Error(), "levels in") {
			t.Fatalf("complete rows are not encoded: %v", err)
		}
	})
}
