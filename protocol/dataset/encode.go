package dataset

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// DropNumber is the reason for which [Encoding.Complete] leaves out a row whose
// target should be a number and is none.
const DropNumber = "target is no number"

// Complete returns the rows of t that can be encoded, where in t they stand, and
// how many are left out for which reason: a feature that is missing and that the
// encoding does not fill, or, where the target is asked for, a target that is
// missing or is no finite number. What is wrong otherwise is left to [Encoding.Encode].
func (e Encoding) Complete(t Table, target bool) (rows Table, at []int, left map[string]int) {
	type need struct {
		at     int
		spec   *FeatureSpec
		reason string
	}
	where := make(map[string]int, len(t.Columns))
	for i, name := range t.Columns {
		where[name] = i
	}
	var needs []need
	for i := range e.Features {
		f := &e.Features[i]
		if column, ok := where[f.Name]; ok && f.Fill == "" {
			needs = append(needs, need{column, f, "missing " + f.Name})
		}
	}
	y, asked := where[e.Target]
	asked = asked && target
	rows.Columns, left = t.Columns, map[string]int{}
next:
	for i, row := range t.Rows {
		if len(row) == len(t.Columns) {
			if asked {
				if row[y] == "" {
					left[DropTarget]++
					continue
				}
				if _, ok := decimal(row[y]); len(e.Classes) == 0 && !ok {
					left[DropNumber]++
					continue
				}
			}
			for _, n := range needs {
				if n.spec.missing(row[n.at]) {
					left[n.reason]++
					continue next
				}
			}
		}
		rows.Rows, at = append(rows.Rows, row), append(at, i)
	}
	return rows, at, left
}

// Encode turns a table's rows into features and class indices, or, where the
// target is numeric, its values; and into indices of groups, where there is a
// sensitive column. The encoding must have passed [Encoding.Check]. A missing cell
// that the encoding does not fill (see [Encoding.Complete]), one that is not a
// number where it should be, a number of which a recipe makes none, and a level
// that the encoding does not know are errors, for the owner of the table: they may
// quote cells.
func (e Encoding) Encode(t Table) (Samples, error) {
	columns := []string{e.Target}
	if e.Sensitive != "" {
		columns = append(columns, e.Sensitive)
	}
	at, err := e.find(t, append(e.featureColumns(), columns...))
	if err != nil {
		return Samples{}, err
	}
	s, err := e.encodeFeatures(t, at)
	if err != nil {
		return Samples{}, err
	}
	rest := at[len(e.Features):]
	if len(e.Classes) == 0 {
		s.T, err = values(t, rest[0], e.Target)
	} else {
		s.Y, err = indices(t, rest[0], e.Target, e.Classes)
	}
	if err != nil {
		return Samples{}, err
	}
	if e.Sensitive != "" {
		s.G = groups(t, rest[1], e.Groups)
	}
	return s, nil
}

// EncodeFeatures is Encode for rows of which target and group are not known: Y, T
// and G are nil.
func (e Encoding) EncodeFeatures(t Table) (Samples, error) {
	at, err := e.find(t, e.featureColumns())
	if err != nil {
		return Samples{}, err
	}
	return e.encodeFeatures(t, at)
}

// featureColumns is the column of each feature.
func (e Encoding) featureColumns() []string {
	names := make([]string, len(e.Features))
	for i, f := range e.Features {
		names[i] = f.Name
	}
	return names
}

// needed are the columns that a table must have: those of the target, of the
// groups, and of features with a missing cell that is not filled.
func (e Encoding) needed() []string {
	names := []string{e.Target, e.Sensitive}
	for _, f := range e.Features {
		if f.Fill == "" {
			names = append(names, f.Name)
		}
	}
	return names
}

// cellAt is the cell of a column, missing where there is no such column.
func cellAt(row []string, at int) string {
	if at < 0 {
		return ""
	}
	return row[at]
}

// find returns where in t the columns stand, -1 for one that t lacks and every
// feature of it fills: all its cells are missing. It refuses rows of another length.
func (e Encoding) find(t Table, columns []string) (at []int, err error) {
	where := make(map[string]int, len(t.Columns))
	for i, name := range t.Columns {
		where[name] = i
	}
	needed := make(map[string]bool, len(columns))
	for _, name := range e.needed() {
		needed[name] = true
	}
	var lacks []string
	for _, name := range columns {
		i, ok := where[name]
		if !ok {
			i = -1
			if needed[name] {
				lacks = append(lacks, name)
				needed[name] = false // it is named once
			}
		}
		at = append(at, i)
	}
	if len(lacks) > 0 {
		return nil, fmt.Errorf("the rows lack %s, which the task needs unless it fills such a column (%s|fill VALUE); their columns are %s", listed(lacks), lacks[0], listed(t.Columns))
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
	readers := make([]*reader, len(e.Features))
	for k, f := range e.Features {
		var err error
		if readers[k], err = f.reader(); err != nil {
			return Samples{}, err
		}
	}
	s := Samples{N: n, D: d, X: make([]float64, n*d)}
	unknown := make([]strangers, len(readers))
	for i, row := range t.Rows {
		out := s.X[i*d : (i+1)*d]
		for k, r := range readers {
			cell := cellAt(row, at[k])
			if r.missing(cell) {
				if r.fill == nil {
					return Samples{}, notFilled(r.Name, cell, i)
				}
				copy(out, r.fill)
			} else if r.Kind == Categorical {
				if level := r.level(cell); level >= 0 {
					r.putLevel(level, out)
				} else {
					unknown[k].add(cell)
				}
			} else {
				v, ok := number(cell)
				if !ok {
					return Samples{}, notNumber(r.Name, cell, i)
				}
				if problem := r.putNumber(v, out); problem != "" {
					return Samples{}, fmt.Errorf("column %q holds %.40s in row %d, which %s; bound it first, as in '%s|clip LOW HIGH|...', or leave that row out",
						r.Name, cell, i+1, problem, r.Name)
				}
			}
			out = out[r.width:]
		}
	}
	for k, r := range readers {
		if err := unknown[k].refuse(r.Name, true); err != nil {
			return Samples{}, err
		}
	}
	return s, nil
}

func notFilled(name, cell string, row int) error {
	holds := "is empty"
	if cell != "" {
		holds = fmt.Sprintf("holds %.40q, which stands for a missing cell,", cell)
	}
	return fmt.Errorf("column %q %s in row %d; leave that row out, or let the task fill such cells: '%s|fill VALUE'", name, holds, row+1, name)
}

func notNumber(name, cell string, row int) error {
	if cell == "" {
		return fmt.Errorf("column %q is empty in row %d; leave that row out", name, row+1)
	}
	return fmt.Errorf("column %q should be numeric, but holds %.40q in row %d; correct or empty that cell", name, cell, row+1)
}

// strangers are levels that an encoding does not know.
type strangers struct {
	rows   int
	levels map[string]bool
}

func (s *strangers) add(cell string) {
	if s.levels == nil {
		s.levels = map[string]bool{}
	}
	s.rows++
	s.levels[canonical(cell)] = true
}

// refuse names the strangers, if there are any, and what a feature's owner or
// task can do.
func (s *strangers) refuse(name string, feature bool) error {
	if s.rows == 0 {
		return nil
	}
	named := make([]string, 0, len(s.levels))
	for level := range s.levels {
		named = append(named, fmt.Sprintf("%.40q", level))
	}
	slices.Sort(named)
	or := ""
	if feature {
		or = fmt.Sprintf("; or the task must say what they count as: '%s|other LEVEL'", name)
	}
	return fmt.Errorf("column %q has %d levels in %d rows that the task does not know (%s); their owner must declare them with --levels %s=... when adding the dataset, before the task is proposed%s",
		name, len(s.levels), s.rows, listed(named), name, or)
}

// values returns the numbers of a column.
func values(t Table, at int, name string) ([]float64, error) {
	v := make([]float64, len(t.Rows))
	for i, row := range t.Rows {
		var ok bool
		if v[i], ok = number(row[at]); !ok {
			return nil, notNumber(name, row[at], i)
		}
	}
	return v, nil
}

// indices returns the place of each cell of a column among the classes.
func indices(t Table, at int, name string, classes []string) ([]int, error) {
	place := make(map[string]int, len(classes))
	for i, level := range classes {
		place[level] = i
	}
	index := make([]int, len(t.Rows))
	var unknown strangers
	for i, row := range t.Rows {
		if row[at] == "" {
			return nil, notNumber(name, "", i)
		}
		p, ok := place[row[at]]
		if !ok {
			if p, ok = place[canonical(row[at])]; !ok {
				unknown.add(row[at])
			}
		}
		index[i] = p
	}
	return index, unknown.refuse(name, false)
}

// groups returns the place of each cell of a column among the groups, or -1.
func groups(t Table, at int, levels []string) []int {
	place := make(map[string]int, len(levels))
	for i, level := range levels {
		place[level] = i
	}
	index := make([]int, len(t.Rows))
	for i, row := range t.Rows {
		p, ok := place[canonical(row[at])]
		if !ok {
			p = -1
		}
		index[i] = p
	}
	return index
}

// Divide parts rows into those to train on and those to test on: as the column
// split says, or, where split is "", a row is for testing when SHA-256(seed,
// canonical row) mod 100 < 25. A row is the columns of its features in the
// encoding's order, each once, and the target, so it falls on the same side in
// every file that holds it.
func (e Encoding) Divide(t Table, split string, seed uint64) (training, testing Table, err error) {
	at, err := e.find(t, append(e.Columns(), e.Target))
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
				key = appendCell(key, canonical(cellAt(row, a)))
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
