package dataset

import (
	"fmt"
	"slices"
)

// Features are the names of the published feature columns.
func (m Manifest) Features() []string {
	features := []string{}
	for _, c := range m.Columns {
		if c.Role == Feature {
			features = append(features, c.Name)
		}
	}
	return features
}

// Lacks says which of the columns that a task is to be over a dataset does not
// have, or nil. It looks at names alone; see [Manifest.Fits].
func (m Manifest) Lacks(target string, columns []string) error {
	return lacking(append([]string{target}, columns...), []Manifest{m})
}

// Fits says, in a sentence, what keeps a dataset from a task with an encoding that
// has passed [Encoding.Check]: a column that is missing, of another kind or in
// another unit, or levels that the task does not know and has no other for. A
// dataset that names no unit fits any. Levels that the manifest does not publish
// come to light when the rows are encoded.
func (m Manifest) Fits(e Encoding) error {
	needed := slices.DeleteFunc(e.needed(), func(name string) bool { return name == "" })
	if err := lacking(needed, []Manifest{m}); err != nil {
		return err
	}
	by := make(map[string]*Column, len(m.Columns))
	for i := range m.Columns {
		by[m.Columns[i].Name] = &m.Columns[i]
	}

	target := FeatureSpec{Name: e.Target, Kind: Categorical, Levels: e.Classes, Unit: e.Unit}
	if len(e.Classes) == 0 {
		target.Kind = Numeric
	}
	if err := m.fits(by[e.Target], target, "correct these rows, or have the task proposed again when this dataset is known"); err != nil {
		return err
	}
	for _, f := range e.Features {
		if by[f.Name] == nil {
			continue // the recipe fills it
		}
		remedy := fmt.Sprintf("have the task proposed again when this dataset is known, or with '%s|other LEVEL'", f.Name)
		if err := m.fits(by[f.Name], f, remedy); err != nil {
			return err
		}
	}
	if e.Sensitive != "" && by[e.Sensitive].Kind != Categorical {
		return m.otherKind(e.Sensitive, Numeric, Categorical)
	}
	return nil
}

// fits compares one column with what a task takes it for.
func (m Manifest) fits(c *Column, f FeatureSpec, remedy string) error {
	switch {
	case c.Kind != f.Kind:
		return m.otherKind(f.Name, c.Kind, f.Kind)
	case c.Unit != "" && f.Unit != "" && c.Unit != f.Unit:
		return fmt.Errorf("column %q is in %q in %s, but in %q in the task; convert the values and add the dataset again with --unit %s=%s",
			f.Name, c.Unit, m.title(), f.Unit, f.Name, f.Unit)
	case f.Kind == Numeric || f.Other != "":
		return nil
	}
	known := make(map[string]bool, len(f.Levels))
	for _, level := range f.Levels {
		known[level] = true
	}
	unknown := slices.DeleteFunc(slices.Clone(c.Levels), func(level string) bool { return known[level] || f.missing(level) })
	if len(unknown) > 0 {
		return fmt.Errorf("column %q of %s has levels that the task does not know: %s; it knows %s; %s",
			f.Name, m.title(), listed(unknown), listed(f.Levels), remedy)
	}
	return nil
}

func (m Manifest) otherKind(name string, kind, wanted ColumnKind) error {
	return fmt.Errorf("column %q is %s in %s, but %s in the task; correct the column and add the dataset again with --%s %s",
		name, kind, m.title(), wanted, wanted, name)
}
