package dataset

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"village/protocol/record"
)

const (
	minPublished   = 10    // no count below it is published, and no level of fewer rows
	minPercentiles = 1_000 // rows from which percentiles are published
	minDeciles     = 100   // rows with a value from which deciles are published
	minCounts      = 100   // rows from which counts of levels are published
	maxTextLevels  = 64    // a text column of more is left out unless declared
	maxClasses     = 20    // a numeric target of more values is not taken for classes
	maxExamples    = 3     // cells that a hint quotes
	maxManifest    = record.MaxBytes - 4<<10
)

// Reasons for which [Clean] drops rows, in the order of its steps.
const (
	DropTarget    = "missing target"
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
	cells   *Cells         // canonical, one a row
	missing int            // empty cells
	odd     int            // others that are not numbers
	oddOnes []string       // some of these, each once
	counts  map[string]int // rows by cell, up to maxLevels+1 different cells
}

// Clean turns a file's table into rows fit for learning and a manifest fit for
// publishing. It leaves out ignored and empty columns and undeclared text of
// more than 64 levels; takes a column for numeric when every cell is a decimal
// number, and the target for categorical when it has at most 20 values, unless
// the options say otherwise; then drops the rows without a target or split, and
// exact duplicates over the columns that are left. Missing cells of features stay
// as they are: what becomes of them is said by a task. Errors are for the owner
// and may quote cells.
func Clean(t Table, o Options) (Cleaned, error) {
	for i, row := range t.Rows {
		if len(row) != len(t.Columns) {
			return Cleaned{}, fmt.Errorf("row %d has %d cells, the table %d columns", i+1, len(row), len(t.Columns))
		}
	}
	return CleanPacked(Pack(t), o, func(int, int) error { return nil })
}

// CleanPacked is Clean for a table that may be large. It takes the cells of t, so that
// they need not be there twice. Of all it has to do it tells now and then how much is
// done, and ends with the error that it is answered.
func CleanPacked(t Packed, o Options, tell func(done, all int) error) (Cleaned, error) {
	if err := o.check(t); err != nil {
		return Cleaned{}, err
	}
	read, all := t.Rows(), 2*len(t.Columns)
	columns, leftOut, hints, err := choose(t, o, func(i int) error { return tell(i, all) })
	if err != nil {
		return Cleaned{}, err
	}
	kept, dropped, err := sift(columns, read, func() error { return tell(all/2, all) })
	if err != nil {
		return Cleaned{}, err
	}
	if len(kept) == 0 {
		return Cleaned{}, errNoRow(columns, read)
	}
	for _, c := range columns {
		c.cells = c.cells.keep(kept)
	}
	if columns = filled(columns, leftOut); !slices.ContainsFunc(columns, func(c *column) bool { return c.role == Feature }) {
		return Cleaned{}, fmt.Errorf("every feature column is empty in the %s rows that have a target; fill cells in", thousands(len(kept)))
	}

	c := Cleaned{Read: read, Dropped: dropped, LeftOut: leftOut, Hints: hints}
	m := Manifest{
		Name: o.Name, Description: o.Description, Domain: o.Domain, Licence: o.Licence,
		Target: o.Target, Positive: canonical(o.Positive),
		Rows: uint64(len(kept)), Recipe: recipe(o), Dropped: []Drop{},
	}
	if len(kept) < minPublished {
		m.Rows = 0
	}
	for _, reason := range []string{DropTarget, DropSplit, DropDuplicate} {
		if n := dropped[reason]; n >= minPublished {
			m.Dropped = append(m.Dropped, Drop{Reason: reason, Rows: uint64(n)})
		} else if n > 0 {
			m.Dropped = append(m.Dropped, Drop{Reason: reason, Few: true})
		}
	}
	for i, col := range columns {
		if err := tell(all/2+i, all); err != nil {
			return Cleaned{}, err
		}
		published, hint, err := publish(col, o)
		if err != nil {
			return Cleaned{}, err
		}
		c.Rows.Columns, c.Rows.Cells = append(c.Rows.Columns, col.name), append(c.Rows.Cells, col.cells)
		m.Columns = append(m.Columns, published)
		if hint != "" {
			c.Hints = append(c.Hints, hint)
		}
	}
	if hint := gaps(c.Rows, m); hint != "" {
		c.Hints = append(c.Hints, hint)
	}
	body, err := record.Encode(m)
	if err != nil {
		return Cleaned{}, err
	}
	if len(body) > maxManifest { // most of it may be what a task can do without
		for i := range m.Columns {
			m.Columns[i].Deciles, m.Columns[i].Counts = nil, nil
		}
		if body, err = record.Encode(m); err != nil {
			return Cleaned{}, err
		}
		c.Hints = append(c.Hints, fmt.Sprintf("the %d columns are too many to publish deciles and counts of levels: a task cannot fill missing cells with a median or level, nor new rows be compared with these", len(m.Columns)))
	}
	if len(body) > maxManifest {
		return Cleaned{}, fmt.Errorf("the description of the %d columns takes %s bytes, at most %s are allowed; leave columns out with --ignore",
			len(m.Columns), thousands(len(body)), thousands(maxManifest))
	}
	c.Manifest = m
	return c, nil
}

// check refuses a table that is not one, and options that do not fit it.
func (o Options) check(t Packed) error {
	if len(t.Columns) > maxColumns {
		return fmt.Errorf("the table has %d columns; at most %d are allowed", len(t.Columns), maxColumns)
	}
	if t.Rows() == 0 {
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
	declared, measured := sortedKeys(o.Levels), sortedKeys(o.Units)
	for _, use := range []struct {
		flag  string
		names []string
	}{
		{"--target", []string{o.Target}}, {"--split", []string{o.Split}}, {"--ignore", o.Ignore},
		{"--categorical", o.Categorical}, {"--levels", declared}, {"--numeric", o.Numeric}, {"--unit", measured},
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
	if _, of := o.kind(o.Split); of != "" {
		return fmt.Errorf("column %q is the split, which holds train or test; %s is for others", o.Split, of)
	}
	for _, name := range slices.Concat(o.Numeric, measured) {
		if kind, of := o.kind(name); kind == Categorical {
			return fmt.Errorf("column %q is categorical by %s, and numeric by --numeric or --unit; name it once", name, of)
		}
	}
	for _, name := range measured {
		if err := checkTitle(fmt.Sprintf("the unit of column %q", name), o.Units[name], 1, maxTitle); err != nil {
			return err
		}
	}
	return nil
}

// kind is what the owner says that a column is, and by which option; "" where
// nothing is said.
func (o Options) kind(name string) (kind ColumnKind, by string) {
	switch {
	case name == "":
		return "", ""
	case slices.Contains(o.Categorical, name):
		return Categorical, "--categorical"
	case o.Levels[name] != nil:
		return Categorical, "--levels"
	case name == o.Target && o.Positive != "":
		return Categorical, "--positive"
	case slices.Contains(o.Numeric, name):
		return Numeric, "--numeric"
	case o.Units[name] != "":
		return Numeric, "--unit"
	}
	return "", ""
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// choose reads the columns that are used, in the file's order, and says why the
// others are not. It hints at what looks like an oversight.
func choose(t Packed, o Options, tell func(column int) error) (used []*column, leftOut map[string]string, hints []string, err error) {
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
		if err := tell(i); err != nil {
			return nil, nil, nil, err
		}
		c := survey(name, t.Cells[i])
		t.Cells[i] = nil // they may have been written anew
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
			if c.missing == c.cells.Len() {
				return nil, nil, nil, fmt.Errorf("the target column %q is empty", name)
			}
		default:
			c.role = Feature
			if c.missing == c.cells.Len() {
				leftOut[name] = "empty"
				continue
			}
		}
		declared, by := o.kind(name)
		c.kind = Categorical
		switch {
		case declared == Numeric && c.odd > 0:
			return nil, nil, nil, fmt.Errorf("column %q is numeric by %s, but %s of its %s cells are not numbers (%s); correct or empty them",
				name, by, thousands(c.odd), thousands(c.cells.Len()-c.missing), c.oddCells())
		case declared == Numeric:
			c.kind = Numeric
		case declared == "" && (c.role == Feature || len(c.counts) > maxClasses):
			if c.odd == 0 {
				c.kind = Numeric
			} else if hint := c.nearlyNumeric(); hint != "" {
				hints = append(hints, hint)
			}
		}
		if c.kind == Categorical && len(c.counts) > maxTextLevels {
			if declared == "" && c.role == Feature {
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
		c.counts = nil // of many columns they take a lot
		used = append(used, c)
	}
	if features == 0 {
		return nil, nil, nil, errors.New("no feature column is left beside the target; " + strings.Join(append(hints, "ignore fewer columns"), "; "))
	}
	return used, leftOut, hints, nil
}

// survey reads one column of a table.
func survey(name string, cells *Cells) *column {
	c := &column{name: name, counts: map[string]int{}}
	c.cells = cells.Map(func(cell string) string {
		if cell == "" {
			c.missing++
			return cell
		}
		text, ok := decimal(cell)
		if ok {
			cell = text
		} else {
			c.odd++
			if len(c.oddOnes) < maxExamples && !slices.Contains(c.oddOnes, cell) {
				c.oddOnes = append(c.oddOnes, strings.Clone(cell))
			}
		}
		if n, ok := c.counts[cell]; ok {
			c.counts[cell] = n + 1
		} else if len(c.counts) <= maxLevels {
			c.counts[strings.Clone(cell)] = 1
		}
		return cell
	})
	return c
}

// nearlyNumeric names what keeps a column from being numeric where that is a
// tenth of its cells at most, or returns "".
func (c *column) nearlyNumeric() string {
	filled := c.cells.Len() - c.missing
	if 10*c.odd > filled {
		return ""
	}
	becomes := "categorical"
	if c.role == Feature && len(c.counts) > maxTextLevels {
		becomes = "text and is left out"
	}
	return fmt.Sprintf("column %s: %s of %s cells are not numbers (%s), so it counts as %s; correct or empty them if it is meant to be numeric",
		c.name, thousands(c.odd), thousands(filled), c.oddCells(), becomes)
}

// oddCells quotes a few cells that are not numbers.
func (c *column) oddCells() string {
	cells := make([]string, len(c.oddOnes))
	for i, cell := range c.oddOnes {
		cells[i] = fmt.Sprintf("%.40s", cell)
	}
	return strings.Join(cells, ", ")
}

// readSplit turns the cells of a split column into train, test and missing.
func (c *column) readSplit() (err error) {
	row := 0
	c.cells = c.cells.Map(func(cell string) string {
		row++
		lower := strings.ToLower(cell)
		if lower != "" && lower != train && lower != test && err == nil {
			err = fmt.Errorf("the split column %q holds %.40q in row %d; it may hold only train and test", c.name, cell, row)
		}
		return lower
	})
	if err == nil && c.missing == c.cells.Len() {
		err = fmt.Errorf("the split column %q is empty", c.name)
	}
	return err
}

// sift returns the rows to keep and how many it drops for which reason. Now and then
// it asks whether to go on.
func sift(columns []*column, rows int, goOn func() error) (kept []int, dropped map[string]int, err error) {
	dropped = map[string]int{}
	seen := make(map[[sha256.Size]byte]bool, rows)
	next := make([]func() string, len(columns))
	for i, c := range columns {
		next[i] = c.cells.Read()
	}
	var key []byte
	for r := range rows {
		if r%1024 == 0 {
			if err := goOn(); err != nil {
				return nil, nil, err
			}
		}
		reason := ""
		key = key[:0]
		for i, c := range columns {
			cell := next[i]()
			key = appendCell(key, cell)
			switch {
			case cell != "" || c.role == Feature:
			case c.role == Target:
				reason = DropTarget
			case reason == "":
				reason = DropSplit
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
	return kept, dropped, nil
}

// appendCell appends a cell behind its length, so that no two rows of cells
// give the same bytes.
func appendCell(b []byte, cell string) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(len(cell)))
	return append(b, cell...)
}

// filled returns the columns without features that are empty in all rows, of which
// it says so.
func filled(columns []*column, leftOut map[string]string) []*column {
	return slices.DeleteFunc(columns, func(c *column) bool {
		next := c.cells.Read()
		for range c.cells.Len() {
			if c.role != Feature || next() != "" {
				return false
			}
		}
		leftOut[c.name] = "empty"
		return true
	})
}

// gaps names the features that are missing in more than a fifth of the rows and
// says what a task can do, or returns "". Where no row has every feature, it
// names all that are missing anywhere.
func gaps(p Packed, m Manifest) string {
	rows := p.Rows()
	missing, holed, full := make([]int, len(p.Cells)), make([]bool, rows), rows
	for j, c := range p.Cells {
		next := c.Read()
		for i := range rows {
			if next() != "" {
				continue
			}
			missing[j]++
			if !holed[i] {
				holed[i] = true
				full--
			}
		}
	}
	var empty []string
	example := ""
	for j, name := range p.Columns {
		if missing[j] == 0 || 5*missing[j] <= rows && full > 0 {
			continue
		}
		empty = append(empty, fmt.Sprintf("%s is empty in %s of %s rows", name, thousands(missing[j]), thousands(rows)))
		if example == "" {
			fill := "fill missing"
			switch p := m.Columns[j]; {
			case len(p.Deciles) > 0:
				fill = "median"
			case len(p.Statistics) > 0:
				fill = "mean"
			case p.Kind == Numeric:
				fill = "fill 0"
			}
			example = fmt.Sprintf("'%s|%s|indicator'", name, fill)
		}
	}
	switch len(empty) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("%s: a task that uses it leaves these rows out, or fills them, as with %s", empty[0], example)
	}
	return fmt.Sprintf("%s: a task that uses every column is left with %s rows, unless it fills such cells, as with %s", listed(empty), thousands(full), example)
}

// errNoRow explains why every row was dropped.
func errNoRow(columns []*column, rows int) error {
	var empty []string
	for _, c := range columns {
		if c.missing > 0 && c.role != Feature {
			empty = append(empty, fmt.Sprintf("%s is empty in %s of %s rows", c.name, thousands(c.missing), thousands(rows)))
		}
	}
	return errors.New("no row has both a target and a split: " + listed(empty) + "; fill cells in, or leave out --split")
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
	if o.Split != "" {
		steps = append(steps, "drop rows with a "+DropSplit)
	}
	return append(steps, "drop exact duplicates over the columns listed")
}
