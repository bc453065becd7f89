package dataset

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

const (
	maxCodes = 32    // codes of one feature that stand for a missing cell
	largest  = 1e100 // magnitude of an encoded number
)

// Recipe is a feature as it is spelled, before it is made for certain datasets:
// its kind and unit are not known, nor its levels unless it is ordinal.
type Recipe struct {
	FeatureSpec
	// By says which published figure is to become Fill: "mean", "median" or
	// "level", the most common one; "" where Fill is given, or none.
	By     string
	oneHot bool // the column must be categorical
}

// steps are what a feature may be spelled with, and how.
var steps = []struct{ name, usage string }{
	{"drop", "drop"}, {"fill", "fill VALUE"}, {"mean", "mean"}, {"median", "median"}, {"level", "level"},
	{"indicator", "indicator"}, {"missing", "missing CODE"}, {"other", "other LEVEL"},
	{"clip", "clip LOW HIGH"}, {"times", "times FACTOR"}, {"abs", "abs"}, {"log1p", "log1p"}, {"cyclic", "cyclic PERIOD"},
	{"ordinal", "ordinal A < B < C"}, {"one-hot", "one-hot"},
}

var (
	// gapSteps say what becomes of a missing cell; a feature has one of them.
	gapSteps = []string{"drop", "fill", "mean", "median", "level"}
	// stages are the steps that are applied one after another. The place of
	// the others in a spelling does not matter.
	stages = [][]string{{"missing"}, gapSteps, {"clip"}, {"times"}, {"abs"}, {"log1p"}, {"cyclic"}}
)

// ParseFeature reads a feature that is spelled COLUMN|STEP|STEP, such as
// "chol|missing 0|median|indicator" or "book|ordinal few < some < many". The
// steps, which [FeatureSpec] describes, are: drop (the default: rows with a
// missing cell are left out), fill VALUE, mean, median, level; indicator; missing
// CODE, as often as needed; other LEVEL; clip LOW HIGH; times FACTOR; abs; log1p;
// cyclic PERIOD; ordinal A < B < C; one-hot (the default of a categorical column).
// Steps that would be applied in another order than they stand in are refused.
// The name of a column that holds "|" cannot be spelled.
func ParseFeature(s string) (Recipe, error) {
	name, rest, more := strings.Cut(s, "|")
	r := Recipe{FeatureSpec: FeatureSpec{Name: strings.TrimSpace(name)}}
	if err := checkName("the column of a feature", r.Name); err != nil {
		return Recipe{}, err
	}
	done := map[string]bool{}
	stage, before := 0, ""
	for more {
		var step string
		step, rest, more = strings.Cut(rest, "|")
		step = strings.TrimSpace(step)
		refuse := func(err error) (Recipe, error) {
			return Recipe{}, fmt.Errorf("feature %.64q, step %.64q: %w", s, step, err)
		}
		verb, value, _ := strings.Cut(step, " ")
		if err := r.add(verb, strings.TrimSpace(value)); err != nil {
			return refuse(err)
		}
		at := slices.IndexFunc(stages, func(s []string) bool { return slices.Contains(s, verb) })
		switch {
		case done[verb] && verb != "missing":
			return refuse(errors.New("it comes twice"))
		case at >= 0 && at < stage:
			return refuse(fmt.Errorf("it is applied before %s, so it must stand before it", before))
		case at == 1 && stage == 1 && before != "":
			return refuse(fmt.Errorf("%s says already what becomes of a missing cell", before))
		}
		done[verb] = true
		if at >= 0 {
			stage, before = at, verb
		}
	}
	switch {
	case r.Indicator && r.Fill == "" && r.By == "":
		return Recipe{}, fmt.Errorf("feature %.64q: an indicator needs to know what else a missing cell becomes; add mean, median, level or fill VALUE", s)
	case r.Ordinal && r.oneHot:
		return Recipe{}, fmt.Errorf("feature %.64q is either ordinal or one-hot", s)
	}
	return r, nil
}

// add takes one step into the recipe.
func (r *Recipe) add(verb, value string) error {
	at := -1
	names := make([]string, len(steps))
	for i, s := range steps {
		if names[i] = s.name; s.name == verb {
			at = i
		}
	}
	if at < 0 {
		if near := nearest(verb, names); near != "" {
			return fmt.Errorf("it is unknown; did you mean %q? The steps are %s", near, listed(names))
		}
		return fmt.Errorf("it is unknown; the steps are %s", listed(names))
	}
	usage := steps[at].usage
	if takes := usage != verb; takes != (value != "") {
		if takes {
			return fmt.Errorf("it takes a value: %s", usage)
		}
		return errors.New("it takes no value")
	}
	numbers := func(n int) ([]float64, error) {
		cells := strings.Fields(value)
		values := make([]float64, len(cells))
		for i, cell := range cells {
			v, ok := number(cell)
			if !ok {
				return nil, fmt.Errorf("%.40q is not a number: %s", cell, usage)
			}
			values[i] = v
		}
		if len(values) != n {
			return nil, fmt.Errorf("it takes %d numbers, not %d: %s", n, len(values), usage)
		}
		return values, nil
	}
	var err error
	var v []float64
	switch verb {
	case "mean", "median", "level":
		r.By = verb
	case "indicator":
		r.Indicator = true
	case "abs":
		r.Abs = true
	case "log1p":
		r.Log = true
	case "one-hot":
		r.oneHot = true
	case "fill":
		r.Fill = canonical(value)
		err = checkName("the value", r.Fill)
	case "other":
		r.Other = canonical(value)
		err = checkName("the level", r.Other)
	case "missing":
		code := canonical(value)
		switch {
		case slices.Contains(r.Absent, code):
			return fmt.Errorf("code %q comes twice", code)
		case len(r.Absent) == maxCodes:
			return fmt.Errorf("at most %d codes are allowed", maxCodes)
		}
		r.Absent = append(r.Absent, code)
		err = checkName("the code", code)
	case "clip":
		if r.Clip, err = numbers(2); err == nil && r.Clip[0] >= r.Clip[1] {
			err = fmt.Errorf("the lower bound %s is not below %s", text(r.Clip[0]), text(r.Clip[1]))
		}
	case "times":
		if v, err = numbers(1); err == nil {
			if r.Times = v[0]; r.Times == 0 {
				err = errors.New("a factor of 0 leaves nothing of the column")
			}
		}
	case "cyclic":
		if v, err = numbers(1); err == nil {
			if r.Period = v[0]; r.Period <= 0 {
				err = errors.New("a period is above 0")
			}
		}
	case "ordinal":
		r.Ordinal = true
		r.Levels, err = ordered(value)
	}
	return err
}

// ordered reads the levels of an ordinal feature.
func ordered(s string) ([]string, error) {
	levels := strings.Split(s, " < ")
	for i, level := range levels {
		levels[i] = canonical(strings.TrimSpace(level))
	}
	if len(levels) < 2 {
		return nil, errors.New("it orders two levels at least: ordinal A < B < C, with a space on each side of <")
	}
	return levels, checkOrder(levels)
}

// checkOrder checks that levels are named well, canonical and unique.
func checkOrder(levels []string) error {
	if len(levels) > maxLevels {
		return fmt.Errorf("it has %d levels; at most %d are allowed", len(levels), maxLevels)
	}
	seen := make(map[string]bool, len(levels))
	for _, level := range levels {
		if err := checkName("level", level); err != nil {
			return err
		}
		if canonical(level) != level {
			return fmt.Errorf("level %q is not written canonically", level)
		}
		if seen[level] {
			return fmt.Errorf("level %q comes twice", level)
		}
		seen[level] = true
	}
	return nil
}

// Columns returns the names of the columns that features, as they are spelled,
// are made of, each once.
func Columns(features []string) ([]string, error) { return columnsOf(features, false) }

// Needed is [Columns] without those whose missing cells are filled: a dataset may
// lack them.
func Needed(features []string) ([]string, error) { return columnsOf(features, true) }

func columnsOf(features []string, needed bool) ([]string, error) {
	var names []string
	seen := map[string]bool{}
	for _, s := range features {
		r, err := ParseFeature(s)
		if err != nil {
			return nil, err
		}
		if needed && r.fills() || seen[r.Name] {
			continue
		}
		seen[r.Name] = true
		names = append(names, r.Name)
	}
	return names, nil
}

// fills tells whether a missing cell becomes something.
func (r Recipe) fills() bool { return r.Fill != "" || r.By != "" }

// text writes a number as a cell.
func text(v float64) string { return canonical(strconv.FormatFloat(v, 'g', -1, 64)) }

// String is the spelling of a feature, in which figures are constants. The levels
// of a one-hot feature are not part of it.
func (f FeatureSpec) String() string {
	var b strings.Builder
	b.WriteString(f.Name)
	step := func(verb string, values ...string) {
		b.WriteString("|" + verb)
		for _, v := range values {
			b.WriteString(" " + v)
		}
	}
	for _, code := range f.Absent {
		step("missing", code)
	}
	if f.Fill != "" {
		step("fill", f.Fill)
	}
	if f.Indicator {
		step("indicator")
	}
	if f.Other != "" {
		step("other", f.Other)
	}
	if len(f.Clip) > 0 {
		bounds := make([]string, len(f.Clip))
		for i, v := range f.Clip {
			bounds[i] = text(v)
		}
		step("clip", bounds...)
	}
	if f.Times != 0 {
		step("times", text(f.Times))
	}
	if f.Abs {
		step("abs")
	}
	if f.Log {
		step("log1p")
	}
	if f.Period != 0 {
		step("cyclic", text(f.Period))
	}
	if f.Ordinal {
		step("ordinal", strings.Join(f.Levels, " < "))
	}
	return b.String()
}

// plain says that a feature has no recipe.
func (f FeatureSpec) plain() bool {
	return len(f.Absent) == 0 && f.Fill == "" && !f.Indicator && f.Other == "" && !f.transformed() && !f.Ordinal
}

// transformed says that a recipe calculates.
func (f FeatureSpec) transformed() bool {
	return len(f.Clip) > 0 || f.Times != 0 || f.Abs || f.Log || f.Period != 0
}

// respelled says that two features have the same column and recipe.
func (f FeatureSpec) respelled(g FeatureSpec) bool {
	return f.Name == g.Name && slices.Equal(f.Absent, g.Absent) && f.Fill == g.Fill && f.Indicator == g.Indicator &&
		f.Other == g.Other && slices.Equal(f.Clip, g.Clip) && f.Times == g.Times && f.Abs == g.Abs && f.Log == g.Log &&
		f.Period == g.Period && f.Ordinal == g.Ordinal && (!f.Ordinal || slices.Equal(f.Levels, g.Levels))
}

// check bounds a feature that a peer proposes. A recipe must be one that can be
// spelled, so that what [ParseFeature] refuses is refused here, too.
func (f FeatureSpec) check() error {
	if err := checkName("feature", f.Name); err != nil {
		return err
	}
	if len(f.Absent) > maxCodes || len(f.Levels) > maxLevels || len(f.Clip) > 2 {
		return fmt.Errorf("feature %q has %d codes, %d levels and %d bounds; at most %d, %s and 2 are allowed",
			f.Name, len(f.Absent), len(f.Levels), len(f.Clip), maxCodes, thousands(maxLevels))
	}
	if !f.plain() {
		r, err := ParseFeature(f.String())
		if err != nil {
			return err
		}
		if !f.respelled(r.FeatureSpec) {
			return fmt.Errorf("feature %.64q cannot be spelled", f.String())
		}
	}
	if err := checkTitle(fmt.Sprintf("the unit of feature %q", f.Name), f.Unit, 0, maxTitle); err != nil {
		return err
	}
	switch f.Kind {
	case Numeric:
		if err := f.checkNumeric(); err != nil {
			return err
		}
		if len(f.Levels) > 0 {
			return fmt.Errorf("feature %q is numeric and has levels", f.Name)
		}
	case Categorical:
		if err := f.checkCategorical(); err != nil {
			return err
		}
	default:
		return fmt.Errorf("feature %q is of the unknown kind %.16q", f.Name, f.Kind)
	}
	_, err := f.reader()
	return err
}

// checkNumeric refuses what a recipe cannot do with numbers.
func (f FeatureSpec) checkNumeric() error {
	switch {
	case f.Ordinal:
		return fmt.Errorf("feature %.64q: column %q is numeric, and numbers are in order without ordinal; where they are codes, the datasets must be added with --categorical %s", f.String(), f.Name, f.Name)
	case f.Other != "":
		return fmt.Errorf("feature %.64q: column %q is numeric and has no levels that other could mean; to bound it write clip LOW HIGH", f.String(), f.Name)
	}
	for _, code := range f.Absent {
		if _, ok := number(code); !ok {
			return fmt.Errorf("feature %.64q: column %q is numeric, and the code %q is not a number", f.String(), f.Name, code)
		}
	}
	if _, ok := number(f.Fill); !ok && f.Fill != "" {
		return fmt.Errorf("feature %.64q: column %q is numeric, and %q, which is to fill it, is not a number", f.String(), f.Name, f.Fill)
	}
	return nil
}

// checkCategorical refuses what a recipe cannot do with levels.
func (f FeatureSpec) checkCategorical() error {
	switch {
	case f.transformed():
		return fmt.Errorf("feature %.64q: column %q is categorical; clip, times, abs, log1p and cyclic are for numbers, as which a column is read that is added without --categorical and --levels",
			f.String(), f.Name)
	case f.Unit != "":
		return fmt.Errorf("feature %q is categorical and has a unit", f.Name)
	case len(f.Levels) < 2:
		return fmt.Errorf("feature %q has %d levels; it needs two", f.Name, len(f.Levels))
	}
	what := fmt.Sprintf("feature %q", f.Name)
	if f.Ordinal {
		if err := checkOrder(f.Levels); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	} else if err := checkLevels(what, f.Levels); err != nil {
		return err
	}
	for _, use := range []struct{ step, level string }{{"fill", f.Fill}, {"other", f.Other}} {
		if use.level != "" && !slices.Contains(f.Levels, use.level) {
			return fmt.Errorf("feature %.64q: %s means %q, which is not one of the levels %s", f.String(), use.step, use.level, listed(f.Levels))
		}
	}
	return nil
}

// names are those of the encoded columns, after the calculation or, where long is
// set, after the whole spelling.
func (f FeatureSpec) names(long bool) []string {
	base := f.Name
	if long {
		base = f.String()
	} else {
		if f.Times != 0 {
			base = text(f.Times) + "*" + base
		}
		if f.Abs {
			base = "abs(" + base + ")"
		}
		if f.Log {
			base = "log(1+" + base + ")"
		}
	}
	var names []string
	switch {
	case f.Period != 0:
		names = []string{"sin(" + base + ")", "cos(" + base + ")"}
	case f.Kind == Categorical && !f.Ordinal:
		for _, level := range f.Levels[1:] {
			names = append(names, base+"="+level)
		}
	default:
		names = []string{base}
	}
	if f.Indicator {
		if !long {
			base = f.Name
		}
		names = append(names, base+" missing")
	}
	return names
}

// Width is the number of encoded columns of the feature.
func (f FeatureSpec) Width() int {
	w := 1
	switch {
	case f.Period != 0:
		w = 2
	case f.OneHot() > 0:
		w = f.OneHot()
	}
	if f.Indicator {
		w++
	}
	return w
}

// OneHot is the number of its columns, the first ones, that stand for a level each;
// 0 where none do.
func (f FeatureSpec) OneHot() int {
	if f.Kind != Categorical || f.Ordinal {
		return 0
	}
	return len(f.Levels) - 1
}

// reader turns the cells of one feature into numbers.
type reader struct {
	FeatureSpec
	width int
	place map[string]int // of each level
	other int            // place of what an unknown level counts as; -1 = it is refused
	fill  []float64      // what a missing cell becomes; nil = its row is left out
}

func (f FeatureSpec) reader() (*reader, error) {
	r := &reader{FeatureSpec: f, width: f.Width(), other: -1}
	if f.Kind == Categorical {
		r.place = make(map[string]int, len(f.Levels))
		for i, level := range f.Levels {
			r.place[level] = i
		}
		if f.Other != "" {
			r.other = r.place[f.Other]
		}
	}
	if f.Fill == "" {
		return r, nil
	}
	r.fill = make([]float64, r.width)
	if f.Kind == Categorical {
		r.putLevel(r.place[f.Fill], r.fill)
	} else {
		v, _ := number(f.Fill)
		if problem := r.putNumber(v, r.fill); problem != "" {
			return nil, fmt.Errorf("feature %.64q: %s, which is to fill it, %s", f.String(), f.Fill, problem)
		}
	}
	if f.Indicator {
		r.fill[r.width-1] = 1
	}
	return r, nil
}

// missing says whether a cell stands for a missing one.
func (f *FeatureSpec) missing(cell string) bool {
	return cell == "" || len(f.Absent) > 0 && slices.Contains(f.Absent, canonical(cell))
}

// level returns the place of a cell's level, or -1 where it is unknown.
func (r *reader) level(cell string) int {
	at, ok := r.place[cell]
	if !ok {
		if at, ok = r.place[canonical(cell)]; !ok {
			at = r.other
		}
	}
	return at
}

func (r *reader) putLevel(at int, out []float64) {
	if r.Ordinal {
		out[0] = float64(at)
	} else if at > 0 {
		out[at-1] = 1
	}
}

// putNumber writes what becomes of a number, or says why that is not possible.
func (r *reader) putNumber(v float64, out []float64) (problem string) {
	if len(r.Clip) > 0 {
		v = min(max(v, r.Clip[0]), r.Clip[1])
	}
	if r.Times != 0 {
		v *= r.Times
	}
	if r.Abs {
		v = math.Abs(v)
	}
	if r.Log {
		if v <= -1 {
			return "has no log1p, which is of numbers above -1"
		}
		v = math.Log1p(v)
	}
	if !(math.Abs(v) <= largest) {
		return "is too large"
	}
	if r.Period != 0 {
		// The remainder first: it is exact, so that a whole period is 0.
		out[0], out[1] = math.Sincos(2 * math.Pi * (math.Mod(v, r.Period) / r.Period))
	} else {
		out[0] = v
	}
	return ""
}
