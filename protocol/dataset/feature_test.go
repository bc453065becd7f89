package dataset

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestParseFeature(t *testing.T) {
	for _, c := range []struct {
		spelled string
		want    Recipe
	}{
		{"age", Recipe{FeatureSpec: FeatureSpec{Name: "age"}}},
		{" age |drop", Recipe{FeatureSpec: FeatureSpec{Name: "age"}}},
		{"chol|missing 0.0|missing 999|median|indicator", Recipe{FeatureSpec: FeatureSpec{Name: "chol", Absent: []string{"0", "999"}, Indicator: true}, By: "median"}},
		{"chol | indicator | mean", Recipe{FeatureSpec: FeatureSpec{Name: "chol", Indicator: true}, By: "mean"}},
		{"hour|cyclic 24", Recipe{FeatureSpec: FeatureSpec{Name: "hour", Period: 24}}},
		{"rain|times 10|log1p", Recipe{FeatureSpec: FeatureSpec{Name: "rain", Times: 10, Log: true}}},
		{"lat|abs", Recipe{FeatureSpec: FeatureSpec{Name: "lat", Abs: true}}},
		{"age|clip -1e1 120.50", Recipe{FeatureSpec: FeatureSpec{Name: "age", Clip: []float64{-10, 120.5}}}},
		{"book|ordinal 0-10 books < 11-25 <  <100", Recipe{FeatureSpec: FeatureSpec{Name: "book", Ordinal: true, Levels: []string{"0-10 books", "11-25", "<100"}}}},
		{"educ|fill none of these|other rest", Recipe{FeatureSpec: FeatureSpec{Name: "educ", Fill: "none of these", Other: "rest"}}},
		{"educ|fill mean|one-hot", Recipe{FeatureSpec: FeatureSpec{Name: "educ", Fill: "mean"}, oneHot: true}},
		{"educ|level", Recipe{FeatureSpec: FeatureSpec{Name: "educ"}, By: "level"}},
	} {
		got, err := ParseFeature(c.spelled)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %#v, %v", c.spelled, got, err)
		}
	}
}

func TestParseFeatureRefuses(t *testing.T) {
	for spelled, want := range map[string]string{
		"":                             "column",
		"|mean":                        "column",
		"a\u202eb":                     "bidirectional",
		"chol|medin":                   `step "medin": it is unknown; did you mean "median"? The steps are drop, fill`,
		"chol|winsorise":               `step "winsorise": it is unknown; the steps are drop, fill`,
		"chol|":                        `step ""`,
		"chol|mean 3":                  `step "mean 3": it takes no value`,
		"chol|fill":                    `step "fill": it takes a value: fill VALUE`,
		"chol|fill a\x07":              "control",
		"chol|mean|median":             `step "median": mean says already`,
		"chol|drop|fill 0":             `step "fill 0": drop says already`,
		"chol|mean|mean":               "twice",
		"chol|missing 0|missing 0.0":   `code "0" comes twice`,
		"chol|indicator":               "an indicator needs",
		"chol|drop|indicator":          "an indicator needs",
		"chol|log1p|times 10":          `step "times 10": it is applied before log1p`,
		"chol|mean|missing 0":          `step "missing 0": it is applied before mean`,
		"chol|clip 0 10|fill 3":        "it is applied before clip",
		"chol|clip 3":                  "it takes 2 numbers, not 1: clip LOW HIGH",
		"chol|clip 3 1":                "the lower bound 3 is not below 1",
		"chol|clip 1 1.0":              "the lower bound 1 is not below 1",
		"chol|clip a 1":                `"a" is not a number`,
		"chol|clip -inf inf":           `"-inf" is not a number`,
		"chol|times 0":                 "factor of 0",
		"chol|times 1e200":             "not a number",
		"chol|times ten":               `"ten" is not a number: times FACTOR`,
		"hour|cyclic 0":                "above 0",
		"hour|cyclic -24":              "above 0",
		"book|ordinal few":             "two levels at least",
		"book|ordinal a<b":             "with a space on each side",
		"book|ordinal a < a":           `level "a" comes twice`,
		"book|ordinal a <  < b":        "level",
		"book|ordinal a < b|one-hot":   "either ordinal or one-hot",
		"book|ordinal 1 < 1.0":         `level "1" comes twice`,
		"a|" + strings.Repeat("x", 99): "unknown",
	} {
		if _, err := ParseFeature(spelled); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", spelled, err, want)
		}
	}
	many := "a"
	for i := range 33 {
		many += fmt.Sprint("|missing ", i)
	}
	_, err := ParseFeature(many)
	wantError(t, err, "at most 32 codes")
}

func TestColumns(t *testing.T) {
	got, err := Columns([]string{"lat|abs", "age", "lat"})
	if err != nil || !slices.Equal(got, []string{"lat", "age"}) {
		t.Errorf("%v, %v", got, err)
	}
	_, err = Columns([]string{"age", "lat|ab"})
	wantError(t, err, `"abs"`)
}

// What is read is spelled back so that it reads the same, and what a peer may
// propose can be spelled.
func FuzzParseFeature(f *testing.F) {
	for _, s := range []string{
		"age", "chol|missing 0|median|indicator", "hour|cyclic 24", "rain|times 1e-3|log1p", "book|ordinal a < b < <c", "x|clip -1 1e99|abs",
		"e|fill a b|other c", "e|fill fill|missing missing", "x | mean", "x|level|one-hot", "x|missing a < b", "x|fill \u00a0a",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseFeature(s)
		if err != nil {
			return
		}
		spelled := r.FeatureSpec.String()
		if r.By != "" { // it stands for a constant
			r.By, r.Fill = "", "1"
			spelled = r.FeatureSpec.String()
		}
		again, err := ParseFeature(spelled)
		r.oneHot = false
		if err != nil || !reflect.DeepEqual(r, again) {
			t.Fatalf("%q is read as %#v, spelled %q, and read as %#v, %v", s, r, spelled, again, err)
		}
		for _, f := range []FeatureSpec{r.FeatureSpec, r.FeatureSpec} {
			if f.Kind = Numeric; f.check() != nil {
				f.Kind = Categorical
				if !f.Ordinal {
					f.Levels = slices.DeleteFunc([]string{"1", f.Fill, f.Other, "zzz"}, func(l string) bool { return l == "" })
					sortLevels(f.Levels)
					f.Levels = slices.Compact(f.Levels)
				}
				if f.check() != nil {
					continue
				}
			}
			e := Encoding{Target: "the target", Classes: []string{"0", "1"}, Positive: "1", Features: []FeatureSpec{f}}
			if f.Name == e.Target || e.Check() != nil {
				continue
			}
			if n := e.Names(); len(n) != e.Width() {
				t.Fatalf("%d names of %d columns", len(n), e.Width())
			}
			for _, cell := range []string{"", "0", "1", "-5", "1e99", "zzz"} {
				s, err := e.EncodeFeatures(Table{Columns: []string{f.Name}, Rows: [][]string{{cell}}})
				if err != nil {
					continue
				}
				for _, x := range s.X {
					if !(math.Abs(x) <= largest) {
						t.Fatalf("%q makes %v of %q", spelled, x, cell)
					}
				}
			}
		}
	})
}

func TestSpellingWithConstants(t *testing.T) {
	m := described("a", 200)
	for spelled, want := range map[string]string{
		"x":                               "x",
		"x|mean":                          "x|fill 10.5",
		"x|median|indicator":              "x|fill 10|indicator",
		"x|missing 2|median":              "x|missing 2|fill 11",
		"c|level|indicator":               "c|fill b|indicator",
		"c|missing b|level|other z":       "c|missing b|fill a|other z",
		"c|ordinal b < a < z|level":       "c|fill b|ordinal b < a < z",
		"x|indicator|fill 1.50|times 010": "",
		"x|fill 1.50|clip 0 1e3|times .1|abs|log1p|cyclic 12": "x|fill 1.5|clip 0 1000|times 0.1|abs|log1p|cyclic 12",
		"c|missing q|fill none|other rest":                    "c|missing q|fill none|other rest",
	} {
		e, err := NewEncoding("y", []string{spelled}, "", []Manifest{m})
		if want == "" {
			if err == nil {
				t.Errorf("%q: accepted as %q", spelled, e.Features[0])
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", spelled, err)
			continue
		}
		if got := e.Features[0].String(); got != want {
			t.Errorf("%q has the spelling %q, want %q", spelled, got, want)
		}
		again, err := NewEncoding("y", []string{e.Features[0].String()}, "", []Manifest{m})
		if err != nil || !reflect.DeepEqual(again, e) {
			t.Errorf("%q: spelled again it is %#v, %v, not %#v", spelled, again, err, e)
		}
	}
}

// described is a manifest of so many rows with all figures: x has the mean 10.5
// and the deciles 2, 4, ... 18, the levels a and b of c stand one to two, y is the
// target.
func described(name string, rows uint64) Manifest {
	m := published(name, "x u c:a,b y!0,1")
	m.Rows = rows
	m.Columns[0].Statistics, m.Columns[0].Unit = []float64{10.5, 6}, "mg/dl"
	for i := range 9 {
		m.Columns[0].Deciles = append(m.Columns[0].Deciles, float64(2*i+2))
	}
	m.Columns[2].Counts = []uint64{rows / 3, rows - rows/3}
	m.Columns[3].Counts = []uint64{rows / 2, rows - rows/2}
	return m
}

// shifted moves the figures of x.
func shifted(m Manifest, by float64) Manifest {
	m.Columns = slices.Clone(m.Columns)
	x := &m.Columns[0]
	x.Statistics = []float64{x.Statistics[0] + by, x.Statistics[1]}
	x.Deciles = slices.Clone(x.Deciles)
	for i := range x.Deciles {
		x.Deciles[i] += by
	}
	return m
}

// Constants are made of what all the datasets publish.
func TestConstantsOfManyDatasets(t *testing.T) {
	a, b, few := described("a", 300), shifted(described("b", 100), 100), published("few", "x u c:a,b y!0,1")
	missing := described("missing", 1100)
	missing.Columns[0].Missing, missing.Columns[0].Gaps = 1000, true
	for _, c := range []struct {
		feature   string
		manifests []Manifest
		want      string
	}{
		{"x|mean", []Manifest{a, b, few}, "35.5"},                            // (300 x 10.5 + 100 x 110.5) / 400
		{"x|mean", []Manifest{a, shifted(missing, 100)}, "35.5"},             // by the rows that have a value
		{"x|median", []Manifest{a, b, few}, "13"},                            // three quarters of the weight at 2..18
		{"x|median", []Manifest{b, shifted(b, 100)}, "160"},                  // between 118 and 202
		{"x|median", []Manifest{shifted(b, 100), b, shifted(b, 200)}, "210"}, // the middle one of three
		{"c|level", []Manifest{a, few}, "b"},
	} {
		e, err := NewEncoding("y", []string{c.feature}, "", c.manifests)
		if err != nil || e.Features[0].Fill != c.want {
			t.Errorf("%s: filled with %q, %v, want %s", c.feature, e.Features[0].Fill, err, c.want)
		}
	}
	// Of equally common levels the first.
	even := described("even", 200)
	even.Columns[2].Counts = []uint64{100, 100}
	if e, err := NewEncoding("y", []string{"c|level"}, "", []Manifest{even}); err != nil || e.Features[0].Fill != "a" {
		t.Errorf("filled with %q, %v", e.Features[0].Fill, err)
	}
	hostile := described("hostile", 200)
	hostile.Columns[0].Statistics = []float64{-math.MaxFloat64, 1}
	opposite := described("opposite", 200)
	opposite.Columns[0].Statistics = []float64{math.MaxFloat64, 1}
	for _, manifests := range [][]Manifest{{hostile}, {hostile, opposite}} {
		if _, err := NewEncoding("y", []string{"x|mean"}, "", manifests); err == nil {
			t.Error("a mean that is out of range is accepted")
		}
	}
}

func TestFeaturesThatDoNotFit(t *testing.T) {
	m := described("a", 200)
	few := published("few", "x c:a,b y!0,1")
	for spelled, want := range map[string]string{
		"c|mean":                           `column "c" is categorical; mean, median`,
		"c|median":                         "fill LEVEL",
		"c|log1p":                          "categorical",
		"c|cyclic 24":                      "--categorical and --levels",
		"x|level":                          "level is for levels",
		"x|one-hot":                        "--categorical x",
		"x|ordinal 1 < 2":                  "numbers are in order without ordinal",
		"x|other 3":                        "clip LOW HIGH",
		"x|fill none":                      `"none", which is to fill it, is not a number`,
		"x|missing NA|fill 0":              `the code "NA" is not a number`,
		"x|missing 0|mean":                 "counts as a value; fill with the median",
		"x|fill -2|log1p":                  "-2, which is to fill it, has no log1p",
		"c|ordinal a < z":                  "its order leaves out levels that the datasets publish: b",
		"c|missing a|ordinal b < z|fill q": `fill means "q", which is not one of the levels b, z`,
		"c|missing a":                      "fewer than two levels",
	} {
		_, err := NewEncoding("y", []string{spelled}, "", []Manifest{m})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", spelled, err, want)
		}
	}
	for spelled, want := range map[string]string{
		"x|mean":   "no dataset publishes the mean",
		"x|median": "no dataset publishes deciles",
		"c|level":  "no dataset publishes how common",
	} {
		_, err := NewEncoding("y", []string{spelled}, "", []Manifest{few})
		wantError(t, err, want, "'fill ")
	}
	only := described("codes", 200)
	only.Columns[0].Deciles = make([]float64, 9)
	_, err := NewEncoding("y", []string{"x|missing 0|median"}, "", []Manifest{only})
	wantError(t, err, "deciles", "'fill VALUE'")
}

func TestRecipesChooseLevels(t *testing.T) {
	m := described("a", 200)
	for spelled, want := range map[string][]string{
		"c":                                {"a", "b"},
		"c|fill none":                      {"a", "b", "none"},
		"c|fill none|other rest":           {"a", "b", "none", "rest"},
		"c|missing b|fill z":               {"a", "z"},
		"c|missing b|fill b|indicator":     {"a", "b"},
		"c|ordinal b < a":                  {"b", "a"},
		"c|ordinal z < b|other z":          {"z", "b"},
		"c|missing a|fill b|ordinal z < b": {"z", "b"},
		"c|other b|one-hot":                {"a", "b"},
	} {
		e, err := NewEncoding("y", []string{spelled}, "", []Manifest{m})
		if err != nil || !slices.Equal(e.Features[0].Levels, want) {
			t.Errorf("%q: levels %v, %v, want %v", spelled, e.Features, err, want)
		}
	}
}

func TestHostileRecipes(t *testing.T) {
	number := FeatureSpec{Name: "age", Kind: Numeric}
	levels := FeatureSpec{Name: "cp", Kind: Categorical, Levels: []string{"a", "b", "c"}}
	for name, c := range map[string]struct {
		of    FeatureSpec
		spoil func(*FeatureSpec)
	}{
		"name with a pipe and a recipe": {number, func(f *FeatureSpec) { f.Name, f.Abs = "a|b", true }},
		"spaced name with a recipe":     {number, func(f *FeatureSpec) { f.Name, f.Abs = "a ", true }},
		"fill of a step":                {number, func(f *FeatureSpec) { f.Fill = "1|abs" }},
		"fill that is no number":        {number, func(f *FeatureSpec) { f.Fill = "x" }},
		"fill not canonical":            {number, func(f *FeatureSpec) { f.Fill = "1.0" }},
		"infinite fill":                 {number, func(f *FeatureSpec) { f.Fill = "1e999" }},
		"fill out of the domain":        {number, func(f *FeatureSpec) { f.Fill, f.Log = "-1", true }},
		"fill made too large":           {number, func(f *FeatureSpec) { f.Fill, f.Times = "1e90", 1e90 }},
		"indicator alone":               {number, func(f *FeatureSpec) { f.Indicator = true }},
		"numeric other":                 {number, func(f *FeatureSpec) { f.Other = "3" }},
		"numeric ordinal":               {number, func(f *FeatureSpec) { f.Ordinal, f.Levels = true, []string{"1", "2"} }},
		"one bound":                     {number, func(f *FeatureSpec) { f.Clip = []float64{1} }},
		"three bounds":                  {number, func(f *FeatureSpec) { f.Clip = []float64{1, 2, 3} }},
		"bounds crossed":                {number, func(f *FeatureSpec) { f.Clip = []float64{2, 1} }},
		"infinite bound":                {number, func(f *FeatureSpec) { f.Clip = []float64{1, math.Inf(1)} }},
		"NaN bound":                     {number, func(f *FeatureSpec) { f.Clip = []float64{math.NaN(), 1} }},
		"NaN factor":                    {number, func(f *FeatureSpec) { f.Times = math.NaN() }},
		"infinite factor":               {number, func(f *FeatureSpec) { f.Times = math.Inf(-1) }},
		"negative period":               {number, func(f *FeatureSpec) { f.Period = -1 }},
		"NaN period":                    {number, func(f *FeatureSpec) { f.Period = math.NaN() }},
		"code twice":                    {number, func(f *FeatureSpec) { f.Absent = []string{"0", "0"} }},
		"code of steps":                 {levels, func(f *FeatureSpec) { f.Absent = []string{"0|missing 1"} }},
		"empty code":                    {levels, func(f *FeatureSpec) { f.Absent = []string{""} }},
		"many codes":                    {levels, func(f *FeatureSpec) { f.Absent = make([]string, 1_000_000) }},
		"long unit":                     {number, func(f *FeatureSpec) { f.Unit = strings.Repeat("m", 65) }},
		"unit of levels":                {levels, func(f *FeatureSpec) { f.Unit = "m" }},
		"fill of no level":              {levels, func(f *FeatureSpec) { f.Fill = "d" }},
		"other of no level":             {levels, func(f *FeatureSpec) { f.Other = "d" }},
		"logarithm of levels":           {levels, func(f *FeatureSpec) { f.Log = true }},
		"ordinal of one":                {levels, func(f *FeatureSpec) { f.Ordinal, f.Levels = true, f.Levels[:1] }},
		"ordinal twice":                 {levels, func(f *FeatureSpec) { f.Ordinal, f.Levels = true, []string{"a", "b", "a"} }},
		"ordinal unspellable":           {levels, func(f *FeatureSpec) { f.Ordinal, f.Levels = true, []string{"a", "b < c"} }},
		"ordinal control":               {levels, func(f *FeatureSpec) { f.Ordinal, f.Levels = true, []string{"a", "\x1b"} }},
		"no kind":                       {number, func(f *FeatureSpec) { f.Kind = "" }},
	} {
		f := c.of
		if err := f.check(); err != nil {
			t.Fatal(err)
		}
		c.spoil(&f)
		if f.check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
