package dataset

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"village/protocol/record"
)

const (
	minPublished   = 10    // no count below it is published, and no level of fewer rows
	minPercentiles = 1_000 // rows from which percentiles are published
	maxTextLevels  = 64    // a text column of more is left out unless declared
	maxClasses     = 20    // a numeric target of more values is not taken for classes
	maxExamples    = 3     // cells that a hint quotes
	maxManifest    = record.MaxBytes - 4<<10
)

// Reasons for which [Clean] drops rows, in the order of its steps.
const (
	DropTarget    = "missing target"
	DropFeature   = "missing feature"
	DropSplit     = "missing split"
	DropDuplicate = "duplicate row"
)

// The two values of a split column.
const (
	train = "train"
	test  = "test"
)

// column is a column of the file on its way to being published.
type column struct {
	name    string
	role    Role
	kind    ColumnKind
	cells   []string       // canonical, one a row
	missing int            // empty cells
	odd     int            // others that are not numbers
	oddOnes []string       // some of these, each once
	counts  map[string]int // rows by cell, up to maxLevels+1 different cells
}

// Clean turns a file's table into rows fit for learning and a manifest fit for
// publishing. It leaves out ignored and empty columns and undeclared text of
// more than 64 levels; takes a column for numeric when every cell is a decimal
// number, and the target for categorical when it has at most 20 values; then
// drops the rows without a target, those without a feature or split, and exact
// duplicates over the columns that are left. Errors are for the owner and may
// quote cells.
func Clean(t Table, o Options) (Cleaned, error) {
	if err := o.check(t); err != nil {
		return Cleaned{}, err
	}
	columns, leftOut, hints, err := choose(t, o)
	if err != nil {
		return Cleaned{}, err
	}
	kept, dropped := sift(columns, len(t.Rows))
	gaps := gapsOf(columns, len(t.Rows))
	if len(kept) == 0 {
		return Cleaned{}, errNoRow(columns, gaps)
	}

	c := Cleaned{Table: tableOf(columns, kept), Read: len(t.Rows), Dropped: dropped, LeftOut: leftOut}
	if hint := gaps.advice(); hint != "" {
		c.Hints = append(c.Hints, hint)
	}
	c.Hints = append(c.Hints, hints...)
	m := Manifest{
		Name: o.Name, Description: o.Description, Domain: o.Domain, Licence: o.Licence,
		Target: o.Target, Positive: canonical(o.Positive),
		Rows: uint64(len(kept)), Recipe: recipe(o), Dropped: []Drop{},
	}
	if len(kept) < minPublished {
		m.Rows = 0
	}
	for _, reason := range []string{DropTarget, DropFeature, DropSplit, DropDuplicate} {
		if n := dropped[reason]; n >= minPublished {
			m.Dropped = append(m.Dropped, Drop{Reason: reason, Rows: uint64(n)})
		} else if n > 0 {
			m.Dropped = append(m.Dropped, Drop{Reason: reason, Few: true})
		}
	}
	for i, col := range columns {
		published, hint, err := publish(col, i, c.Table.Rows, o)
		if err != nil {
			return Cleaned{}, err
		}
		m.Columns = append(m.Columns, published)
		if hint != "" {
			c.Hints = append(c.Hints, hint)
		}
	}
	body, err := record.Encode(m)
	if err != nil {
		return Cleaned{}, err
	}
	if len(body) > maxManifest {
		return Cleaned{}, fmt.Errorf("the description of the %d columns takes %s bytes, at most %s are allowed; leave columns out with --ignore",
			len(m.Columns), thousands(len(body)), thousands(maxManifest))
	}
	c.Manifest = m
	return c, nil
}

// check refuses a table that is not one, and options that do not fit it.
func (o Options) check(t Table) error {
	if len(t.Columns) > maxColumns {
		return fmt.Errorf("the table has %d columns; at most %d are allowed", len(t.Columns), maxColumns)
	}
	if len(t.Rows) == 0 {
		return errors.New("the table has no rows")
	}
	seen := make(map[string]bool, len(t.Columns))
	for _, name := range t.Columns {
		if seen[name] {
			return fmt.Errorf("two columns are named %.64q", name)
		}
		seen[name] = true
		if slices.Contains(o.Ignore, name) {
			continue
		}
		if err := checkName("column name", name); err != nil {
			return err
		}
	}
	for i, row := range t.Rows {
		if len(row) != len(t.Columns) {
			return fmt.Errorf("row %d has %d cells, the table %d columns", i+1, len(row), len(t.Columns))
		}
	}

	if err := errors.Join(
		checkTitle("the dataset's name", o.Name, 1, maxTitle),
		checkTitle("the domain", o.Domain, 0, maxTitle),
		checkTitle("the licence", o.Licence, 0, maxTitle),
		checkTitle("the description", o.Description, 0, maxProse),
	); err != nil {
		return err
	}
	if o.Target == "" {
		return fmt.Errorf("no target column is named; give one of %s with --target", listed(t.Columns))
	}
	declared := make([]string, 0, len(o.Levels))
	for name := range o.Levels {
		declared = append(declared, name)
	}
	slices.Sort(declared)
	for _, use := range []struct {
		flag  string
		names []string
	}{
		{"--target", []string{o.Target}}, {"--split", []string{o.Split}}, {"--ignore", o.Ignore},
		{"--categorical", o.Categorical}, {"--levels", declared},
	} {
		for _, name := range use.names {
			if name == "" && use.flag == "--split" {
				continue
			}
			if !seen[name] {
				if near := nearest(name, t.Columns); near != "" {
					return fmt.Errorf("there is no column %.64q (%s); did you mean %q?", name, use.flag, near)
				}
				return fmt.Errorf("there is no column %.64q (%s); the columns are %s", name, use.flag, listed(t.Columns))
			}
			if use.flag != "--ignore" && slices.Contains(o.Ignore, name) {
				return fmt.Errorf("column %q is named by %s and by --ignore; name it once", name, use.flag)
			}
		}
	}
	if o.Split == o.Target {
		return fmt.Errorf("column %q cannot be both target and split", o.Target)
	}
	if o.Split != "" && (slices.Contains(o.Categorical, o.Split) || o.Levels[o.Split] != nil) {
		return fmt.Errorf("column %q is the split, which holds train or test; --categorical and --levels are for others", o.Split)
	}
	return nil
}

// choose reads the columns that are used, in the file's order, and says why the
// others are not. It hints at what looks like an oversight.
func choose(t Table, o Options) (used []*column, leftOut map[string]string, hints []string, err error) {
	leftOut = map[string]string{}
	features, ignored := 0, make(map[string]bool, len(o.Ignore))
	for _, name := range o.Ignore {
		ignored[name] = true
	}
	for i, name := range t.Columns {
		if ignored[name] {
			leftOut[name] = "ignored"
			continue
		}
		c := survey(t, i)
		switch name {
		case o.Split:
			c.role, c.kind = Split, Categorical
			if err := c.readSplit(); err != nil {
				return nil, nil, nil, err
			}
			used = append(used, c)
			continue
		case o.Target:
			c.role = Target
			if c.missing == len(t.Rows) {
				return nil, nil, nil, fmt.Errorf("the target column %q is empty", name)
			}
		default:
			c.role = Feature
			if c.missing == len(t.Rows) {
				leftOut[name] = "empty"
				continue
			}
		}
		declared := slices.Contains(o.Categorical, name) || o.Levels[name] != nil || c.role == Target && o.Positive != ""
		c.kind = Categorical
		if !declared && (c.role == Feature || len(c.counts) > maxClasses) {
			if c.odd == 0 {
				c.kind = Numeric
			} else if hint := c.nearlyNumeric(); hint != "" {
				hints = append(hints, hint)
			}
		}
		if c.kind == Categorical && len(c.counts) > maxTextLevels {
			if !declared && c.role == Feature {
				leftOut[name] = fmt.Sprintf("text of more than %d levels", maxTextLevels)
				continue
			}
			if len(c.counts) > maxLevels {
				return nil, nil, nil, fmt.Errorf("column %q has more than %s levels, too many for a categorical column; leave it out with --ignore %s",
					name, thousands(maxLevels), name)
			}
		}
		if c.role == Feature {
			features++
		}
		used = append(used, c)
	}
	if features == 0 {
		return nil, nil, nil, errors.New("no feature column is left beside the target; " + strings.Join(append(hints, "ignore fewer columns"), "; "))
	}
	return used, leftOut, hints, nil
}

// survey reads one column of a table.
func survey(t Table, at int) *column {
	c := &column{name: t.Columns[at], cells: make([]string, len(t.Rows)), counts: map[string]int{}}
	for i, row := range t.Rows {
		cell := row[at]
		if cell == "" {
			c.missing++
			continue
		}
		text, ok := decimal(cell)
		if ok {
			cell = text
		} else {
			c.odd++
			if len(c.oddOnes) < maxExamples && !slices.Contains(c.oddOnes, cell) {
				c.oddOnes = append(c.oddOnes, cell)
			}
		}
		c.cells[i] = cell
		if len(c.counts) <= maxLevels {
			c.counts[cell]++
		}
	}
	return c
}

// nearlyNumeric names what keeps a column from being numeric where that is a
// tenth of its cells at most, or returns "".
func (c *column) nearlyNumeric() string {
	filled := len(c.cells) - c.missing
	if 10*c.odd > filled {
		return ""
	}
	cells := make([]string, len(c.oddOnes))
	for i, cell := range c.oddOnes {
		cells[i] = fmt.Sprintf("%.40s", cell)
	}
	becomes := "categorical"
	if c.role == Feature && len(c.counts) > maxTextLevels {
		becomes = "text and is left out"
	}
	return fmt.Sprintf("column %s: %s of %s cells are not numbers (%s), so it counts as %s; correct or empty them if it is meant to be numeric",
		c.name, thousands(c.odd), thousands(filled), strings.Join(cells, ", "), becomes)
}

// readSplit turns the cells of a split column into train, test and missing.
func (c *column) readSplit() error {
	for i, cell := range c.cells {
		switch lower := strings.ToLower(cell); lower {
		case "", train, test:
			c.cells[i] = lower
		default:
			return fmt.Errorf("the split column %q holds %.40q in row %d; it may hold only train and test", c.name, cell, i+1)
		}
	}
	if c.missing == len(c.cells) {
		return fmt.Errorf("the split column %q is empty", c.name)
	}
	return nil
}

// sift returns the rows to keep and how many it drops for which reason.
func sift(columns []*column, rows int) (kept []int, dropped map[string]int) {
	dropped = map[string]int{}
	seen := make(map[[sha256.Size]byte]bool, rows)
	var key []byte
	for r := range rows {
		reason := ""
		key = key[:0]
		for _, c := range columns {
			key = appendCell(key, c.cells[r])
			if c.cells[r] == "" && (reason == "" || c.role == Target || c.role == Feature && reason == DropSplit) {
				reason = map[Role]string{Target: DropTarget, Feature: DropFeature, Split: DropSplit}[c.role]
			}
		}
		if reason == "" {
			// The digest stands for the row: two rows never share one.
			digest := sha256.Sum256(key)
			if !seen[digest] {
				seen[digest] = true
				kept = append(kept, r)
				continue
			}
			reason = DropDuplicate
		}
		dropped[reason]++
	}
	return kept, dropped
}

// appendCell appends a cell behind its length, so that no two rows of cells
// give the same bytes.
func appendCell(b []byte, cell string) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(len(cell)))
	return append(b, cell...)
}

// tableOf copies the kept rows.
func tableOf(columns []*column, kept []int) Table {
	t := Table{Rows: make([][]string, len(kept))}
	cells := make([]string, len(kept)*len(columns))
	for i, r := range kept {
		row := cells[i*len(columns) : (i+1)*len(columns) : (i+1)*len(columns)]
		for j, c := range columns {
			row[j] = c.cells[r]
		}
		t.Rows[i] = row
	}
	for _, c := range columns {
		t.Columns = append(t.Columns, c.name)
	}
	return t
}

// gaps tells what empty cells cost.
type gaps struct {
	rows, full int       // rows read; those without a gap
	worst      []*column // features to ignore, those with most gaps first
	without    int       // rows without a gap when the worst are ignored
}

// gapsOf names the features that are empty in more than a fifth of the rows,
// and, where no row is without a gap, as many more as it takes to have one.
func gapsOf(columns []*column, rows int) gaps {
	g := gaps{rows: rows}
	holes := make([]int, rows) // empty cells of each row
	fill := func(c *column, by int) (full int) {
		for r, cell := range c.cells {
			if cell == "" {
				holes[r] += by
			}
			if holes[r] == 0 {
				full++
			}
		}
		return full
	}
	var gappy []*column
	for _, c := range columns {
		g.full = fill(c, 1)
		if c.role == Feature && c.missing > 0 {
			gappy = append(gappy, c)
		}
	}
	slices.SortStableFunc(gappy, func(a, b *column) int { return b.missing - a.missing })
	g.without = g.full
	for _, c := range gappy {
		if 5*c.missing <= rows && g.without > 0 {
			break
		}
		g.worst = append(g.worst, c)
		g.without = fill(c, -1)
	}
	return g
}

// advice says what to ignore, or "" where that saves no row.
func (g gaps) advice() string {
	if g.without == g.full {
		return ""
	}
	var empty, names []string
	for _, c := range g.worst {
		empty = append(empty, c.emptiness(g.rows))
		names = append(names, c.name)
	}
	return fmt.Sprintf("%s; --ignore %s keeps %s rows instead of %s",
		listed(empty), strings.Join(names, ","), thousands(g.without), thousands(g.full))
}

func (c *column) emptiness(rows int) string {
	return fmt.Sprintf("%s is empty in %s of %s rows", c.name, thousands(c.missing), thousands(rows))
}

// errNoRow explains why every row was dropped.
func errNoRow(columns []*column, g gaps) error {
	advice := g.advice()
	if advice == "" { // then the target, or the split, is never there where the features are
		var empty []string
		for _, c := range columns {
			if c.missing > 0 {
				empty = append(empty, c.emptiness(g.rows))
			}
		}
		advice = listed(empty) + "; fill cells in, or leave columns out with --ignore COL"
	}
	return errors.New("no row has every cell that is used: " + advice)
}

// recipe tells the cleaning steps without naming a column that is left out.
func recipe(o Options) []string {
	var steps []string
	if len(o.Ignore) > 0 {
		steps = append(steps, "leave out the columns that the owner ignores")
	}
	steps = append(steps,
		fmt.Sprintf("leave out empty columns and undeclared text of more than %d levels", maxTextLevels),
		"write equal decimal numbers alike")
	if len(o.Categorical)+len(o.Levels) > 0 {
		steps = append(steps, "take the numbers of declared columns for codes")
	}
	steps = append(steps, "drop rows with a "+DropTarget)
	if o.Split == "" {
		steps = append(steps, "drop rows with a "+DropFeature)
	} else {
		steps = append(steps, "drop rows with a "+DropFeature+" or a "+DropSplit)
	}
	return append(steps, "drop exact duplicates over the columns listed")
}

// publish says of column at of the kept rows what others may know, and hints
// at what they may not.
func publish(c *column, at int, rows [][]string, o Options) (Column, string, error) {
	p := Column{Name: c.name, Kind: c.kind, Role: c.role}
	switch {
	case c.role == Split:
		p.Levels = []string{test, train} // what every split column holds
		return p, "", nil
	case c.kind == Numeric:
		values := make([]float64, len(rows))
		for i, row := range rows {
			values[i], _ = number(row[at])
		}
		p.Statistics = statistics(values)
		return p, "", nil
	}

	counts := map[string]int{}
	for _, row := range rows {
		counts[row[at]]++
	}
	declared := map[string]bool{}
	for _, level := range o.Levels[c.name] {
		declared[canonical(level)] = true
	}
	if c.role == Target && o.Positive != "" {
		positive := canonical(o.Positive)
		if counts[positive] == 0 && !declared[positive] {
			return p, "", fmt.Errorf("the positive level %.64q does not occur in the target %q; give one of its levels with --positive, or declare this one with --levels %s=%s",
				o.Positive, c.name, c.name, positive)
		}
		declared[positive] = true
	}
	var all []string
	hidden := 0
	for level, n := range counts {
		all = append(all, level)
		if n < minPublished && !declared[level] {
			p.Hidden = true
			hidden++
		} else {
			p.Levels = append(p.Levels, level)
		}
	}
	for level := range declared {
		if counts[level] == 0 {
			p.Levels = append(p.Levels, level)
		}
	}
	sortLevels(p.Levels)
	if err := checkLevels(fmt.Sprintf("column %q", c.name), p.Levels); err != nil {
		return p, "", fmt.Errorf("%w; change it, or leave the column out with --ignore %s", err, c.name)
	}
	if hidden == 0 {
		return p, "", nil
	}
	sortLevels(all)
	suggestion := "..."
	if len(all) <= maxClasses {
		suggestion = strings.Join(all, ",")
	}
	return p, fmt.Sprintf("%s has %d of its %d levels in fewer than %d rows each, so their names are not published; where no other node publishes them, --levels %s=%s declares them",
		c.name, hidden, len(all), minPublished, c.name, suggestion), nil
}

// statistics are what may be published of a numeric column (see [Column]), or
// nil. With the number of rows, mean and standard deviation are three equations:
// they give away the rows of each of up to three values, and what the few rows
// hold that differ from all others.
func statistics(values []float64) []float64 {
	n := len(values)
	if n < minPublished {
		return nil
	}
	slices.Sort(values)
	distinct, rarest, commonest := 0, n, 0
	for i := 0; i < n; {
		j := i
		for j < n && values[j] == values[i] {
			j++
		}
		distinct, rarest, commonest = distinct+1, min(rarest, j-i), max(commonest, j-i)
		i = j
	}
	if distinct <= 3 && rarest < minPublished || distinct > 1 && commonest >= minPublished && n-commonest < minPublished {
		return nil
	}
	m := MomentsOf(Samples{N: n, D: 1, X: values})
	s := []float64{m.Mean[0], math.Sqrt(m.M2[0] / float64(n))}
	if n >= minPercentiles {
		beyond := n / 100 // rows below the one and above the other
		s = append(s, values[beyond], values[n-1-beyond])
	}
	return s
}
