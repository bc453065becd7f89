package dataset

import "testing"

func TestFits(t *testing.T) {
	m := described("a", 200)
	e, err := NewEncoding("y", []string{"x", "c|missing q", "u|fill 0"}, "c", []Manifest{m})
	if err != nil {
		t.Fatal(err)
	}
	numeric := e
	numeric.Classes, numeric.Positive, numeric.Unit = []string{}, "", "kg"
	for _, fit := range []Manifest{m, published("b", "x c:a u y!0,1"), published("b", "extra c:a,b,q y!0 x"), published("b", "c y!0,1 x u")} {
		if fit.column("c").Kind == Numeric {
			fit.Columns[0].Kind = Categorical
		}
		if err := fit.Fits(e); err != nil {
			t.Errorf("%v does not fit: %v", fit.Columns, err)
		}
	}
	mmol := described("b", 200)
	mmol.Columns[0].Unit = "mmol/l"
	pounds := published("b", "x c:a u y")
	pounds.Columns[3].Role, pounds.Columns[3].Unit, pounds.Target = Target, "lb", "y"
	for _, c := range []struct {
		name string
		m    Manifest
		e    Encoding
		want []string
	}{
		{"no target", published("b", "x c:a z!0,1"), e, []string{`dataset "b" of "node of b" (HUN) lacks y; its columns are x, c, z`}},
		{"no feature", published("b", "c:a u y!0,1"), e, []string{"lacks x"}},
		{"numbers for levels", published("b", "x c u y!0,1"), e, []string{`column "c" is numeric in dataset "b" of "node of b" (HUN), but categorical in the task`, "--categorical c"}},
		{"levels for numbers", published("b", "x:a c:a u y!0,1"), e, []string{`column "x" is categorical in`, "numeric in the task", "--numeric x"}},
		{"other unit", mmol, e, []string{`column "x" is in "mmol/l" in dataset "b" of "node of b" (HUN), but in "mg/dl" in the task`, "--unit x=mg/dl"}},
		{"other levels", published("b", "x c:a,d,f u y!0,1"), e, []string{`column "c" of dataset "b" of "node of b" (HUN) has levels that the task does not know: d, f; it knows a, b; `, "'c|other LEVEL'"}},
		{"other classes", published("b", "x c:a u y!0,2"), e, []string{`column "y" of`, "does not know: 2; it knows 0, 1"}},
		{"classes for a numeric target", published("b", "x c:a u y!0,1"), numeric, []string{`column "y" is categorical in`, "--numeric y"}},
		{"numeric target", pounds, e, []string{`column "y" is numeric in`, "--categorical y"}},
		{"other unit of the target", pounds, numeric, []string{`column "y" is in "lb"`, `"kg" in the task`}},
	} {
		err := c.m.Fits(c.e)
		if err == nil {
			t.Errorf("%s: it fits", c.name)
			continue
		}
		t.Run(c.name, func(t *testing.T) { wantError(t, err, c.want...) })
	}
	// What the task has another level for, it takes.
	other, err := NewEncoding("y", []string{"x", "c|other a"}, "", []Manifest{m})
	if err != nil {
		t.Fatal(err)
	}
	if err := published("b", "x c:a,d,f u y!0,1").Fits(other); err != nil {
		t.Error(err)
	}
	// The sensitive column must have groups, if not the same.
	sensitive, err := NewEncoding("y", []string{"x"}, "c", []Manifest{m})
	if err != nil {
		t.Fatal(err)
	}
	if err := published("b", "x c:d y!0,1").Fits(sensitive); err != nil {
		t.Error(err)
	}
	wantError(t, published("b", "x c y!0,1").Fits(sensitive), `"c" is numeric in`, "--categorical c")
	wantError(t, published("b", "x y!0,1").Fits(sensitive), "lacks c")
}

func TestLacks(t *testing.T) {
	m := described("a", 200)
	if err := m.Lacks("y", []string{"x", "c"}); err != nil {
		t.Error(err)
	}
	wantError(t, m.Lacks("z", []string{"x", "w"}), `dataset "a" of "node of a" (HUN) lacks z, w; its columns are x, u, c, y`)
}
