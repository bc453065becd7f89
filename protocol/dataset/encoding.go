package dataset

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	maxWidth   = 1_000_000 // encoded columns
	maxNumbers = 1 << 27   // numbers that encoded rows may take: 1 GiB
)

// NewEncoding makes the encoding of a task over the datasets described: levels
// and classes are the union over the manifests. Without features it takes every
// feature that all the datasets have, save categorical ones of which fewer than
// two levels are published.
func NewEncoding(target string, features []string, sensitive string, manifests []Manifest) (Encoding, error) {
	if len(manifests) == 0 {
		return Encoding{}, errors.New("a task needs at least one dataset; see 'village dataset list'")
	}
	chosen := len(features) > 0
	if !chosen {
		if features = shared(target, manifests); len(features) == 0 {
			return Encoding{}, fmt.Errorf("the datasets share no feature column beside %q; those of %s are %s",
				target, manifests[0].title(), listed(manifests[0].names()))
		}
	}
	if err := lacking(append([]string{target}, features...), manifests); err != nil {
		return Encoding{}, err
	}

	e := Encoding{Target: target}
	kind, classes, err := union(target, manifests)
	if err != nil {
		return Encoding{}, err
	}
	if kind == Numeric {
		return Encoding{}, fmt.Errorf("target %q is numeric, and a classifier needs classes; add the datasets again with --categorical %s, or as their own --target", target, target)
	}
	if e.Classes = classes; len(classes) < 2 {
		return Encoding{}, fmt.Errorf("the datasets publish fewer than two levels of target %q (%s); an owner must declare them: add a dataset again with --levels %s=a,b",
			target, listed(classes), target)
	}
	if e.Positive, err = positive(target, classes, manifests); err != nil {
		return Encoding{}, err
	}
	for _, name := range features {
		kind, levels, err := union(name, manifests)
		if err != nil {
			return Encoding{}, err
		}
		if kind == Categorical && len(levels) < 2 {
			if !chosen {
				continue
			}
			return Encoding{}, fmt.Errorf("the datasets publish fewer than two levels of feature %q (%s); leave it out, or have an owner declare them: add a dataset again with --levels %s=a,b",
				name, listed(levels), name)
		}
		e.Features = append(e.Features, FeatureSpec{Name: name, Kind: kind, Levels: levels})
	}
	if len(e.Features) == 0 {
		return Encoding{}, errors.New("the datasets share only categorical features of which fewer than two levels are published; declare them with --levels COL=a,b when adding a dataset")
	}
	return e, e.Check()
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
			return "", nil, fmt.Errorf("column %q is %s in %s but %s in %s; one of them must be added again, with --categorical %s where its numbers are codes",
				name, first.Kind, manifests[0].title(), c.Kind, m.title(), name)
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
	switch n := len(e.Classes); {
	case n < 2:
		return fmt.Errorf("%d classes; a task needs two", n)
	case n == 2 && !slices.Contains(e.Classes, e.Positive):
		return fmt.Errorf("the positive class %.64q is not one of %s", e.Positive, listed(e.Classes))
	case n > 2 && e.Positive != "":
		return errors.New("of more than two classes none is positive")
	}
	if len(e.Features) == 0 || len(e.Features) > maxColumns {
		return fmt.Errorf("%d features; 1 to %d are allowed", len(e.Features), maxColumns)
	}
	seen := map[string]bool{e.Target: true}
	for _, f := range e.Features {
		if err := checkName("feature", f.Name); err != nil {
			return err
		}
		if seen[f.Name] {
			return fmt.Errorf("column %q is used twice", f.Name)
		}
		seen[f.Name] = true
		switch f.Kind {
		case Numeric:
			if len(f.Levels) > 0 {
				return fmt.Errorf("feature %q is numeric and has levels", f.Name)
			}
		case Categorical:
			if len(f.Levels) < 2 {
				return fmt.Errorf("feature %q has %d levels; it needs two", f.Name, len(f.Levels))
			}
			if err := checkLevels(fmt.Sprintf("feature %q", f.Name), f.Levels); err != nil {
				return err
			}
		default:
			return fmt.Errorf("feature %q is of the unknown kind %.16q", f.Name, f.Kind)
		}
	}
	if w := e.Width(); w > maxWidth {
		return fmt.Errorf("%d encoded columns; at most %d are allowed", w, maxWidth)
	}
	return nil
}

// Width is the number of encoded columns.
func (e Encoding) Width() int {
	w := 0
	for _, f := range e.Features {
		w += f.width()
	}
	return w
}

func (f FeatureSpec) width() int {
	if f.Kind == Categorical {
		return len(f.Levels) - 1
	}
	return 1
}

// Names returns the names of the encoded columns, such as "age" and "cp=2".
func (e Encoding) Names() []string {
	names := make([]string, 0, e.Width())
	for _, f := range e.Features {
		if f.Kind == Numeric {
			names = append(names, f.Name)
			continue
		}
		for _, level := range f.Levels[1:] {
			names = append(names, f.Name+"="+level)
		}
	}
	return names
}

// Encode turns a table's rows into features and class indices. The encoding
// must have passed [Encoding.Check]. A cell that is missing, not a number where
// it should be one, or a level that the encoding does not know is an error, for
// the owner of the table: it may quote cells.
func (e Encoding) Encode(t Table) (Samples, error) {
	at, err := e.columnsOf(t, true)
	if err != nil {
		return Samples{}, err
	}
	s, err := e.encodeFeatures(t, at)
	if err != nil {
		return Samples{}, err
	}
	s.Y, err = indices(t, at[len(e.Features)], e.Target, e.Classes)
	return s, err
}

// EncodeFeatures is Encode for rows whose target is not known: Y is nil.
func (e Encoding) EncodeFeatures(t Table) (Samples, error) {
	at, err := e.columnsOf(t, false)
	if err != nil {
		return Samples{}, err
	}
	return e.encodeFeatures(t, at)
}

// columnsOf returns where in t the features, and then the target, stand.
func (e Encoding) columnsOf(t Table, target bool) (at []int, err error) {
	where := make(map[string]int, len(t.Columns))
	for i, name := range t.Columns {
		where[name] = i
	}
	var lacks []string
	find := func(name string) {
		i, ok := where[name]
		if !ok {
			lacks = append(lacks, name)
		}
		at = append(at, i)
	}
	for _, f := range e.Features {
		find(f.Name)
	}
	if target {
		find(e.Target)
	}
	if len(lacks) > 0 {
		return nil, fmt.Errorf("the rows lack %s, which the task needs; their columns are %s", listed(lacks), listed(t.Columns))
	}
	for i, row := range t.Rows {
		if len(row) != len(t.Columns) {
			return nil, fmt.Errorf("row %d has %d cells, the table %d columns", i+1, len(row), len(t.Columns))
		}
	}
	return at, nil
}

func (e Encoding) encodeFeatures(t Table, at []int) (Samples, error) {
	n, d := len(t.Rows), e.Width()
	if d > 0 && n > maxNumbers/d {
		return Samples{}, fmt.Errorf("%d rows of %d encoded columns are more than fit in memory; name fewer features", n, d)
	}
	s := Samples{N: n, D: d, X: make([]float64, n*d)}
	j := 0
	for k, f := range e.Features {
		if f.Kind == Numeric {
			for i, row := range t.Rows {
				v, ok := number(row[at[k]])
				if !ok {
					return Samples{}, notEncoded(f.Name, row[at[k]], i)
				}
				s.X[i*d+j] = v
			}
		} else {
			index, err := indices(t, at[k], f.Name, f.Levels)
			if err != nil {
				return Samples{}, err
			}
			for i, level := range index {
				if level > 0 {
					s.X[i*d+j+level-1] = 1
				}
			}
		}
		j += f.width()
	}
	return s, nil
}

func notEncoded(name, cell string, row int) error {
	if cell == "" {
		return fmt.Errorf("column %q is empty in row %d; leave that row out", name, row+1)
	}
	return fmt.Errorf("column %q should be numeric, but holds %.40q in row %d", name, cell, row+1)
}

// indices returns the place of each cell of a column among the levels.
func indices(t Table, at int, name string, levels []string) ([]int, error) {
	place := make(map[string]int, len(levels))
	for i, level := range levels {
		place[level] = i
	}
	index := make([]int, len(t.Rows))
	unknown, rows := map[string]bool{}, 0
	for i, row := range t.Rows {
		if row[at] == "" {
			return nil, notEncoded(name, "", i)
		}
		cell := canonical(row[at])
		p, ok := place[cell]
		if !ok {
			unknown[cell] = true
			rows++
		}
		index[i] = p
	}
	if rows == 0 {
		return index, nil
	}
	named := make([]string, 0, len(unknown))
	for level := range unknown {
		named = append(named, fmt.Sprintf("%.40q", level))
	}
	slices.Sort(named)
	return nil, fmt.Errorf("column %q has %d levels in %d rows that the task does not know (%s); their owner must declare them with --levels %s=... when adding the dataset, before the task is proposed",
		name, len(unknown), rows, listed(named), name)
}

// Divide parts rows into those to train on and those to test on: as the column
// split says, or, where split is "", a row is for testing when SHA-256(seed,
// canonical row) mod 100 < 25. A row is its features in the encoding's order
// and the target, so it falls on the same side in every file that holds it.
func (e Encoding) Divide(t Table, split string, seed uint64) (training, testing Table, err error) {
	at, err := e.columnsOf(t, true)
	if err != nil {
		return Table{}, Table{}, err
	}
	column := -1
	if split != "" {
		if column = slices.Index(t.Columns, split); column < 0 {
			return Table{}, Table{}, fmt.Errorf("the rows lack the split column %q; their columns are %s", split, listed(t.Columns))
		}
	}
	training.Columns, testing.Columns = t.Columns, t.Columns
	var key []byte
	for i, row := range t.Rows {
		side := ""
		if column >= 0 {
			side = strings.ToLower(row[column])
		} else {
			key = binary.BigEndian.AppendUint64(key[:0], seed)
			for _, a := range at {
				key = appendCell(key, canonical(row[a]))
			}
			digest := sha256.Sum256(key)
			if side = train; binary.BigEndian.Uint64(digest[:8])%100 < 25 {
				side = test
			}
		}
		switch side {
		case train:
			training.Rows = append(training.Rows, row)
		case test:
			testing.Rows = append(testing.Rows, row)
		default:
			return Table{}, Table{}, fmt.Errorf("the split column %q holds %.40q in row %d; it may hold only train and test", split, row[column], i+1)
		}
	}
	if len(training.Rows) == 0 {
		return Table{}, Table{}, errors.New("no row is for training; a dataset needs more rows, or another split")
	}
	return training, testing, nil
}
