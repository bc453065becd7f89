package dataset

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"slices"

	"village/protocol/record"
)

// ManifestOf reads the manifest in a peer's record and checks it. Errors wrap
// [record.ErrMalformed]: every honest node refuses the same bytes.
func ManifestOf(r record.Record) (Manifest, error) {
	refuse := func(err error) (Manifest, error) {
		return Manifest{}, fmt.Errorf("%w: manifest: %w", record.ErrMalformed, err)
	}
	if r.Kind != record.KindManifest {
		return refuse(fmt.Errorf("the record is a %q", r.Kind))
	}
	var m Manifest
	if err := record.Decode(r.Payload, &m); err != nil {
		return Manifest{}, err
	}
	if err := m.Check(); err != nil {
		return refuse(err)
	}
	if r.Subject != m.Name {
		return refuse(fmt.Errorf("the record's subject is %q, the dataset's name %q", r.Subject, m.Name))
	}
	if r.Number == 0 {
		return refuse(errors.New("versions are counted from 1"))
	}
	return m, nil
}

// Check refuses a manifest that no honest node publishes. It says nothing of
// whether the manifest is true.
func (m Manifest) Check() error {
	err := errors.Join(
		checkTitle("the dataset's name", m.Name, 1, maxTitle),
		checkTitle("the description", m.Description, 0, maxProse),
		checkTitle("the domain", m.Domain, 0, maxTitle),
		checkTitle("the licence", m.Licence, 0, maxTitle),
		checkTitle("the node's name", m.Node, 1, maxTitle),
	)
	if err != nil {
		return err
	}
	if len(m.Nation) != 3 || slices.ContainsFunc([]byte(m.Nation), func(b byte) bool { return b < 'A' || b > 'Z' }) {
		return fmt.Errorf("nation %.8q is not three capital letters", m.Nation)
	}
	if m.Rows > maxCount || 0 < m.Rows && m.Rows < minPublished {
		return fmt.Errorf("%d rows", m.Rows)
	}
	if len(m.Commitment) != sha256.Size {
		return fmt.Errorf("commitment of %d bytes", len(m.Commitment))
	}
	if err := m.checkColumns(); err != nil {
		return err
	}

	const most = 32 // steps, and reasons
	if len(m.Recipe) > most || len(m.Dropped) > most {
		return fmt.Errorf("%d cleaning steps and %d reasons", len(m.Recipe), len(m.Dropped))
	}
	for _, step := range m.Recipe {
		if err := checkName("step", step); err != nil {
			return err
		}
	}
	reasons := map[string]bool{}
	for _, d := range m.Dropped {
		if err := checkTitle("the reason", d.Reason, 1, maxTitle); err != nil {
			return err
		}
		if reasons[d.Reason] {
			return fmt.Errorf("reason %q comes twice", d.Reason)
		}
		reasons[d.Reason] = true
		if d.Rows > maxCount || d.Few != (d.Rows == 0) || 0 < d.Rows && d.Rows < minPublished {
			return fmt.Errorf("reason %q counts %d rows", d.Reason, d.Rows)
		}
	}
	return nil
}

func (m Manifest) checkColumns() error {
	if len(m.Columns) > maxColumns {
		return fmt.Errorf("%d columns; at most %d are allowed", len(m.Columns), maxColumns)
	}
	seen, roles := map[string]bool{}, map[Role]int{}
	for _, c := range m.Columns {
		if err := checkName("column name", c.Name); err != nil {
			return err
		}
		if seen[c.Name] {
			return fmt.Errorf("two columns are named %q", c.Name)
		}
		seen[c.Name] = true
		roles[c.Role]++
		if err := c.check(m.Rows); err != nil {
			return fmt.Errorf("column %q: %w", c.Name, err)
		}
		if c.Role != Target {
			continue
		}
		if c.Name != m.Target {
			return fmt.Errorf("the target is %.64q, but column %q has that role", m.Target, c.Name)
		}
		if m.Positive != "" && !slices.Contains(c.Levels, m.Positive) {
			return fmt.Errorf("the positive level %.64q is not one of the target's", m.Positive)
		}
	}
	if roles[Target] != 1 || roles[Split] > 1 || roles[Feature] == 0 {
		return fmt.Errorf("%d target, %d split and %d feature columns", roles[Target], roles[Split], roles[Feature])
	}
	return nil
}

// SplitColumn names the column that says train or test, "" where there is none.
func (m Manifest) SplitColumn() string {
	for _, c := range m.Columns {
		if c.Role == Split {
			return c.Name
		}
	}
	return ""
}

// check refuses a column that no honest node publishes of so many rows.
func (c Column) check(rows uint64) error {
	if c.Role != Feature && c.Role != Target && c.Role != Split {
		return fmt.Errorf("role %.16q is unknown", c.Role)
	}
	switch {
	case c.Gaps && c.Role != Feature:
		return errors.New("only a feature has missing cells")
	case c.Missing > 0 && (!c.Gaps || c.Missing < minPublished || c.Missing > rows || rows-c.Missing < minPublished):
		return fmt.Errorf("%d missing cells in %d rows", c.Missing, rows)
	}
	switch c.Kind {
	case Numeric:
		if len(c.Levels) > 0 || c.Hidden || len(c.Counts) > 0 || c.Role == Split {
			return errors.New("a numeric column has no levels")
		}
		if err := checkTitle("the unit", c.Unit, 0, maxTitle); err != nil {
			return err
		}
		if err := c.checkStatistics(); err != nil {
			return err
		}
		return c.checkDeciles(rows)
	case Categorical:
		if len(c.Statistics) > 0 || len(c.Deciles) > 0 || c.Unit != "" {
			return errors.New("a categorical column has neither unit nor statistics")
		}
		if err := checkLevels("it", c.Levels); err != nil {
			return err
		}
		return c.checkCounts(rows)
	}
	return fmt.Errorf("kind %.16q is unknown", c.Kind)
}

func (c Column) checkDeciles(rows uint64) error {
	if len(c.Deciles) == 0 {
		return nil
	}
	if len(c.Deciles) != 9 || len(c.Statistics) == 0 || c.filled(rows) < minDeciles {
		return fmt.Errorf("%d deciles beside %d statistics of %d rows", len(c.Deciles), len(c.Statistics), c.filled(rows))
	}
	for i, d := range c.Deciles {
		if !(math.Abs(d) <= largest) || coarse(d) != d {
			return fmt.Errorf("decile %g is not a number of three digits", d)
		}
		if i > 0 && d < c.Deciles[i-1] {
			return errors.New("the deciles are not in order")
		}
	}
	return nil
}

func (c Column) checkCounts(rows uint64) error {
	if len(c.Counts) == 0 {
		return nil
	}
	if len(c.Counts) != len(c.Levels) || rows < minCounts || c.Role == Split {
		return fmt.Errorf("%d counts of %d levels in %d rows", len(c.Counts), len(c.Levels), rows)
	}
	rest, hidden := rows-c.Missing, c.Hidden || c.Gaps && c.Missing == 0
	told := false
	for _, n := range c.Counts {
		if 0 < n && n < minPublished || n > rest {
			return fmt.Errorf("a count of %d, where %d rows are left", n, rest)
		}
		rest -= n
		hidden, told = hidden || n == 0, told || n > 0
	}
	if !told || hidden && rest < minPublished || !hidden && rest > 0 {
		return fmt.Errorf("the counts leave %d of %d rows", rest, rows)
	}
	return nil
}

func (c Column) checkStatistics() error {
	s := c.Statistics
	for _, v := range s {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return errors.New("a statistic is not finite")
		}
	}
	switch {
	case len(s) == 0, len(s) == 2 && s[1] >= 0, len(s) == 4 && s[1] >= 0 && s[2] <= s[3]:
		return nil
	}
	return errors.New("the statistics are not a mean, a standard deviation and two percentiles in order")
}

// title names a dataset in an error.
func (m Manifest) title() string {
	return fmt.Sprintf("dataset %q of %q (%s)", m.Name, m.Node, m.Nation)
}

// column returns the column of a name that the manifest has.
func (m Manifest) column(name string) Column {
	return m.Columns[slices.IndexFunc(m.Columns, func(c Column) bool { return c.Name == name })]
}

// names are those of the features and the target.
func (m Manifest) names() []string {
	var names []string
	for _, c := range m.Columns {
		if c.Role != Split {
			names = append(names, c.Name)
		}
	}
	return names
}
