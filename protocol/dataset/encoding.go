package dataset

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
)

const (
	maxWidth   = 1_000_000 // encoded columns
	maxNumbers = 1 << 27   // numbers that encoded rows may take: 1 GiB
	maxGroups  = 64        // levels of a sensitive column
)

// NewEncoding makes the encoding of a task over the datasets described. Features
// are spelled as [ParseFeature] reads them; without any it takes every feature
// that all the datasets have, save categorical ones of which fewer than two levels
// are published. Levels, classes and groups are the union over the manifests, and
// a mean, median or most common level that is to fill missing cells is made of
// the figures that they publish: the mean of means weighted by rows, the median of
// all deciles together, the level of the largest sum of counts. A numeric target
// has no classes. The sensitive column may be "". Errors say what to do.
func NewEncoding(target string, features []string, sensitive string, manifests []Manifest) (Encoding, error) {
	if len(manifests) == 0 {
		return Encoding{}, errors.New("a task needs at least one dataset; see 'village dataset list'")
	}
	var recipes []Recipe
	columns := []string{target}
	for _, s := range features {
		r, err := ParseFeature(s)
		if err != nil {
			return Encoding{}, err
		}
		if !r.fills() && !slices.Contains(columns[1:], r.Name) {
			columns = append(columns, r.Name)
		}
		recipes = append(recipes, r)
	}
	if sensitive != "" {
		columns = append(columns, sensitive)
	}
	chosen := len(features) > 0
	if !chosen {
		for _, name := range shared(target, manifests) {
			recipes = append(recipes, Recipe{FeatureSpec: FeatureSpec{Name: name}})
		}
		if len(recipes) == 0 {
			return Encoding{}, fmt.Errorf("the datasets share no feature column beside %q; those of %s are %s",
				target, manifests[0].title(), listed(manifests[0].names()))
		}
	}
	if err := lacking(columns, manifests); err != nil {
		return Encoding{}, err
	}

	e := Encoding{Target: target, Sensitive: sensitive}
	if err := e.setTarget(manifests); err != nil {
		return Encoding{}, err
	}
	if err := e.setGroups(manifests); err != nil {
		return Encoding{}, err
	}
	for _, r := range recipes {
		holders := slices.DeleteFunc(slices.Clone(manifests), func(m Manifest) bool { return !slices.Contains(m.names(), r.Name) })
		if len(holders) == 0 {
			return Encoding{}, lacking([]string{r.Name}, manifests)
		}
		f, err := r.over(holders)
		if err != nil {
			return Encoding{}, err
		}
		if f.Kind == Categorical && len(f.Levels) < 2 {
			if !chosen {
				continue
			}
			return Encoding{}, fmt.Errorf("the datasets publish fewer than two levels of feature %q (%s); leave it out, or have an owner declare them: add a dataset again with --levels %s=a,b",
				f.Name, listed(f.Levels), f.Name)
		}
		e.Features = append(e.Features, f)
	}
	if len(e.Features) == 0 {
		return Encoding{}, errors.New("the datasets share only categorical features of which fewer than two levels are published; declare them with --levels COL=a,b when adding a dataset")
	}
	return e, e.Check()
}

// setTarget finds classes, or the unit of a numeric target.
func (e *Encoding) setTarget(manifests []Manifest) error {
	kind, classes, err := union(e.Target, manifests)
	if err != nil {
		return err
	}
	e.Classes = []string{} // never null
	if kind == Numeric {
		e.Unit, err = unit(e.Target, manifests)
		return err
	}
	for _, m := range manifests {
		if m.column(e.Target).Role != Target {
			return fmt.Errorf("column %q is a categorical feature of %s, not its target; its owner must add it again with --target %s", e.Target, m.title(), e.Target)
		}
	}
	if e.Classes = classes; len(classes) < 2 {
		return fmt.Errorf("the datasets publish fewer than two levels of target %q (%s); an owner must declare them: add a dataset again with --levels %s=a,b",
			e.Target, listed(classes), e.Target)
	}
	e.Positive, err = positive(e.Target, classes, manifests)
	return err
}

// setGroups finds the groups of the sensitive column, if there is one.
func (e *Encoding) setGroups(manifests []Manifest) error {
	if e.Sensitive == "" {
		return nil
	}
	kind, groups, err := union(e.Sensitive, manifests)
	switch {
	case err != nil:
		return err
	case kind == Numeric:
		return fmt.Errorf("the sensitive column %q is numeric and has no groups; add the datasets again with --categorical %s, or with a column of groups", e.Sensitive, e.Sensitive)
	case len(groups) < 2:
		return fmt.Errorf("the datasets publish fewer than two levels of the sensitive column %q (%s); an owner must declare them: add a dataset again with --levels %s=a,b",
			e.Sensitive, listed(groups), e.Sensitive)
	}
	e.Groups = groups
	return nil
}

// over makes a recipe's feature for the datasets described.
func (r Recipe) over(manifests []Manifest) (FeatureSpec, error) {
	f := r.FeatureSpec
	kind, levels, err := union(f.Name, manifests)
	if err != nil {
		return f, err
	}
	f.Kind = kind
	if kind == Numeric {
		if r.oneHot || r.By == "level" {
			step := "one-hot"
			if !r.oneHot {
				step = "level"
			}
			return f, fmt.Errorf("feature %q: column %q is numeric, and %s is for levels; where its numbers are codes, the datasets must be added with --categorical %s", f.Name, f.Name, step, f.Name)
		}
		if f.Unit, err = unit(f.Name, manifests); err != nil {
			return f, err
		}
		if err := f.checkNumeric(); err != nil {
			return f, err
		}
	} else if f.transformed() || r.By == "mean" || r.By == "median" {
		return f, fmt.Errorf("feature %q: column %q is categorical; mean, median, clip, times, abs, log1p and cyclic are for numbers. Fill its missing cells with level or fill LEVEL, or have the datasets added without --categorical and --levels for it",
			f.Name, f.Name)
	}
	switch r.By {
	case "mean":
		f.Fill, err = meanOf(f, manifests)
	case "median":
		f.Fill, err = medianOf(f, manifests)
	case "level":
		f.Fill, err = commonestOf(f, manifests)
	}
	if err != nil || kind == Numeric {
		return f, err
	}
	if f.Ordinal {
		unordered := slices.DeleteFunc(levels, func(l string) bool { return slices.Contains(f.Levels, l) || f.missing(l) })
		if len(unordered) > 0 && f.Other == "" {
			return f, fmt.Errorf("feature %q is to be ordinal, but its order leaves out levels that the datasets publish: %s; order them, too, or say what they are: missing LEVEL, or other LEVEL", f.Name, listed(unordered))
		}
		return f, nil
	}
	f.Levels = slices.DeleteFunc(levels, f.missing)
	for _, level := range []string{f.Fill, f.Other} {
		if level != "" && !slices.Contains(f.Levels, level) {
			f.Levels = append(f.Levels, level)
		}
	}
	sortLevels(f.Levels)
	return f, nil
}

// meanOf is the mean of a column's rows in all the datasets that publish one.
func meanOf(f FeatureSpec, manifests []Manifest) (string, error) {
	if len(f.Absent) > 0 {
		return "", fmt.Errorf("feature %q: in the means that are published the code %s counts as a value; fill with the median, or write a constant: 'fill VALUE'", f.Name, f.Absent[0])
	}
	var mean, rows float64
	for _, m := range manifests {
		if c := m.column(f.Name); len(c.Statistics) > 0 {
			n := float64(max(1, c.filled(m.Rows)))
			rows += n
			mean += (c.Statistics[0] - mean) * (n / rows)
		}
	}
	if rows == 0 {
		return "", fmt.Errorf("no dataset publishes the mean of %q, for which it takes ten rows that have a value; write a constant: 'fill VALUE'", f.Name)
	}
	return figure(f, "mean", mean)
}

// medianOf is the median of the published deciles, each of which stands for as
// many rows. Codes for a missing cell do not count.
func medianOf(f FeatureSpec, manifests []Manifest) (string, error) {
	type point struct{ x, rows float64 }
	var points []point
	var rows float64
	for _, m := range manifests {
		c := m.column(f.Name)
		for _, x := range c.Deciles {
			if !f.missing(text(x)) {
				n := float64(max(1, c.filled(m.Rows)))
				points = append(points, point{x, n})
				rows += n
			}
		}
	}
	if len(points) == 0 {
		return "", fmt.Errorf("no dataset publishes deciles of %q, for which it takes %d rows that have a value; fill with the mean, or write a constant: 'fill VALUE'", f.Name, minDeciles)
	}
	slices.SortStableFunc(points, func(a, b point) int {
		switch {
		case a.x < b.x:
			return -1
		case a.x > b.x:
			return 1
		}
		return 0
	})
	below := 0.0 // rows, whole numbers that a float64 holds
	for i, p := range points {
		below += p.rows
		if 2*below > rows || i == len(points)-1 {
			return figure(f, "median", p.x)
		}
		if 2*below == rows {
			return figure(f, "median", p.x/2+points[i+1].x/2)
		}
	}
	panic("unreachable: the last point has all rows below it")
}

// figure writes a published figure as a constant.
func figure(f FeatureSpec, what string, v float64) (string, error) {
	const digits = 6 // enough to fill a gap with
	cell, ok := decimal(strconv.FormatFloat(v, 'g', digits, 64))
	if !ok || !(math.Abs(v) <= largest) {
		return "", fmt.Errorf("the datasets publish a %s of %q, %g, that is out of range; write a constant: 'fill VALUE'", what, f.Name, v)
	}
	return cell, nil
}

// commonestOf is the level that has most rows in all the datasets that publish
// counts; of equal ones the first.
func commonestOf(f FeatureSpec, manifests []Manifest) (string, error) {
	rows := map[string]uint64{}
	var levels []string
	for _, m := range manifests {
		c := m.column(f.Name)
		for i, n := range c.Counts {
			level := c.Levels[i]
			if n == 0 || f.missing(level) || f.Ordinal && !slices.Contains(f.Levels, level) {
				continue
			}
			if rows[level] == 0 {
				levels = append(levels, level)
			}
			rows[level] += n
		}
	}
	if len(levels) == 0 {
		return "", fmt.Errorf("no dataset publishes how common the levels of %q are, for which it takes %d rows; name a level: 'fill LEVEL'", f.Name, minCounts)
	}
	sortLevels(levels)
	commonest := levels[0]
	for _, level := range levels {
		if rows[level] > rows[commonest] {
			commonest = level
		}
	}
	return commonest, nil
}

// shared returns the columns that are features in all the manifests, in the
// order of the first.
func shared(target string, manifests []Manifest) []string {
	holders := map[string]int{}
	for _, m := range manifests {
		for _, c := range m.Columns {
			if c.Role == Feature && c.Name != target {
				holders[c.Name]++
			}
		}
	}
	var names []string
	for _, c := range manifests[0].Columns {
		if holders[c.Name] == len(manifests) {
			names = append(names, c.Name)
		}
	}
	return names
}

// lacking refuses the first dataset that lacks some of the columns.
func lacking(names []string, manifests []Manifest) error {
	for _, m := range manifests {
		has := map[string]bool{}
		for _, name := range m.names() {
			has[name] = true
		}
		var lacks []string
		for _, name := range names {
			if !has[name] {
				lacks = append(lacks, name)
			}
		}
		if len(lacks) > 0 {
			return fmt.Errorf("%s lacks %s; its columns are %s", m.title(), listed(lacks), listed(m.names()))
		}
	}
	return nil
}

// union returns the kind of a column that all the manifests have, on which they
// must agree, and all its levels.
func union(name string, manifests []Manifest) (ColumnKind, []string, error) {
	first := manifests[0].column(name)
	levels := map[string]bool{}
	for _, m := range manifests {
		c := m.column(name)
		if c.Kind != first.Kind {
			return "", nil, fmt.Errorf("column %q is %s in %s but %s in %s; one of them must be added again, with --categorical %s where its numbers are codes, else with --numeric %s",
				name, first.Kind, manifests[0].title(), c.Kind, m.title(), name, name)
		}
		for _, level := range c.Levels {
			levels[level] = true
		}
	}
	all := make([]string, 0, len(levels))
	for level := range levels {
		all = append(all, level)
	}
	sortLevels(all)
	return first.Kind, all, nil
}

// unit returns the unit of a numeric column, on which all the manifests that name
// one must agree, or "".
func unit(name string, manifests []Manifest) (string, error) {
	found, by := "", ""
	for _, m := range manifests {
		switch u := m.column(name).Unit; {
		case u == "" || u == found:
		case found == "":
			found, by = u, m.title()
		default:
			return "", fmt.Errorf("column %q is in %q in %s but in %q in %s; one of them must be added again with the same unit", name, found, by, u, m.title())
		}
	}
	return found, nil
}

// positive returns the class that precision, recall and ROC are about: the one
// that owners declare, else the last of two.
func positive(target string, classes []string, manifests []Manifest) (string, error) {
	if len(classes) > 2 {
		return "", nil
	}
	declared, by := "", ""
	for _, m := range manifests {
		switch {
		case m.Positive == "" || m.Target != target || m.Positive == declared:
		case declared == "":
			declared, by = m.Positive, m.title()
		default:
			return "", fmt.Errorf("the positive level of %q is %q in %s but %q in %s; one of them must be added again with another --positive",
				target, declared, by, m.Positive, m.title())
		}
	}
	if declared == "" {
		return classes[1], nil
	}
	return declared, nil
}

// Check bounds an encoding that a peer proposes and refuses one that is not
// canonical.
func (e Encoding) Check() error {
	if err := checkName("target", e.Target); err != nil {
		return err
	}
	if err := checkLevels("the target", e.Classes); err != nil {
		return err
	}
	if err := checkTitle("the target's unit", e.Unit, 0, maxTitle); err != nil {
		return err
	}
	switch n := len(e.Classes); {
	case n == 1:
		return errors.New("1 class; a task needs two, or none where the target is numeric")
	case n == 2 && !slices.Contains(e.Classes, e.Positive):
		return fmt.Errorf("the positive class %.64q is not one of %s", e.Positive, listed(e.Classes))
	case n != 2 && e.Positive != "":
		return errors.New("only one of two classes can be positive")
	case n > 0 && e.Unit != "":
		return errors.New("a target of classes has no unit")
	}
	if err := e.checkGroups(); err != nil {
		return err
	}
	if len(e.Features) == 0 || len(e.Features) > maxColumns {
		return fmt.Errorf("%d features; 1 to %d are allowed", len(e.Features), maxColumns)
	}
	seen := make(map[string]bool, len(e.Features))
	width := 0
	for _, f := range e.Features {
		if err := f.check(); err != nil {
			return err
		}
		if f.Name == e.Target {
			return fmt.Errorf("column %q is used twice, as the target and as a feature", f.Name)
		}
		spelling := f.String()
		if seen[spelling] {
			return fmt.Errorf("feature %.64q is used twice", spelling)
		}
		seen[spelling] = true
		if width += f.Width(); width > maxWidth {
			return fmt.Errorf("more than %s encoded columns", thousands(maxWidth))
		}
	}
	return e.checkKinds()
}

// checkGroups refuses a sensitive column that nothing can be told apart by.
func (e Encoding) checkGroups() error {
	if e.Sensitive == "" {
		if len(e.Groups) > 0 {
			return errors.New("groups without a sensitive column")
		}
		return nil
	}
	if err := checkName("the sensitive column", e.Sensitive); err != nil {
		return err
	}
	switch n := len(e.Groups); {
	case e.Sensitive == e.Target:
		return fmt.Errorf("column %q is used twice, as the target and as the sensitive column", e.Target)
	case n < 2 || n > maxGroups:
		return fmt.Errorf("the sensitive column %q has %d groups; 2 to %d are allowed", e.Sensitive, n, maxGroups)
	}
	return checkLevels("the sensitive column", e.Groups)
}

// checkKinds refuses features that take one column for different things.
func (e Encoding) checkKinds() error {
	first := make(map[string]FeatureSpec, len(e.Features))
	if e.Sensitive != "" {
		first[e.Sensitive] = FeatureSpec{Kind: Categorical}
	}
	for _, f := range e.Features {
		if g, ok := first[f.Name]; ok && (g.Kind != f.Kind || g.Unit != f.Unit) {
			return fmt.Errorf("column %q is %s in %q and %s in %q", f.Name, g.Kind, g.Unit, f.Kind, f.Unit)
		}
		first[f.Name] = f
	}
	return nil
}

// Width is the number of encoded columns.
func (e Encoding) Width() int {
	w := 0
	for _, f := range e.Features {
		w += f.Width()
	}
	return w
}

// Columns are the columns that the features are made of, each once, in the
// order of the features.
func (e Encoding) Columns() []string {
	names := make([]string, 0, len(e.Features))
	seen := make(map[string]bool, len(e.Features))
	for _, f := range e.Features {
		if !seen[f.Name] {
			seen[f.Name] = true
			names = append(names, f.Name)
		}
	}
	return names
}

// Names returns the names of the encoded columns, such as "age", "cp=2",
// "log(1+depth)", "sin(hour)" and "chol missing", no two of them the same: where
// two features would have the same names, the second has its spelling for one.
func (e Encoding) Names() []string {
	names := make([]string, 0, e.Width())
	taken := make(map[string]bool, cap(names))
	for _, f := range e.Features {
		own := f.names(false)
		if slices.ContainsFunc(own, func(n string) bool { return taken[n] }) {
			own = f.names(true)
		}
		for _, name := range own {
			unique := name
			for k := 2; taken[unique]; k++ {
				unique = fmt.Sprintf("%s (%d)", name, k)
			}
			taken[unique] = true
			names = append(names, unique)
		}
	}
	return names
}
