package dataset

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// publish says of a column what others may know, and hints at what they may not.
func publish(c *column, o Options) (Column, string, error) {
	p := Column{Name: c.name, Kind: c.kind, Role: c.role, Unit: o.Units[c.name]}
	if c.role == Split {
		p.Levels = []string{test, train} // what every split column holds
		return p, "", nil
	}
	rows := c.cells.Len()
	first := c.cells.Read()()
	missing, constant := 0, rows > 1
	next := c.cells.Read()
	for range rows {
		cell := next()
		if cell == "" {
			missing++
		}
		constant = constant && cell == first
	}
	// Where few rows hold a value, how many are missing would tell how few.
	if p.Gaps = missing > 0; missing >= minPublished && rows-missing >= minPublished {
		p.Missing = uint64(missing)
	}
	hint := ""
	if c.kind == Numeric {
		p.measure(c.cells, missing)
	} else {
		var err error
		if hint, err = p.name(c.cells, o); err != nil {
			return p, "", err
		}
	}
	if constant {
		hint = fmt.Sprintf("%s is the same in every row; it helps a model only where it is otherwise at other nodes", c.name)
	}
	return p, hint, nil
}

// measure publishes figures of a numeric column.
func (p *Column) measure(cells *Cells, missing int) {
	values := make([]float64, 0, cells.Len()-missing)
	next := cells.Read()
	for range cells.Len() {
		if cell := next(); cell != "" {
			v, _ := number(cell)
			values = append(values, v)
		}
	}
	if 0 < missing && missing < minPublished {
		// A mean of whole numbers tells of how many. So that it does not tell how
		// few cells are missing, the figures leave out ten rows whatever they are.
		values = values[min(len(values), minPublished-missing):]
	}
	p.Statistics = statistics(values) // sorts them
	if n := len(values); n >= minDeciles && len(p.Statistics) > 0 {
		p.Deciles = make([]float64, 9)
		for i := range p.Deciles {
			p.Deciles[i] = coarse(values[((i+1)*n+9)/10-1])
		}
	}
}

// filled is the number of rows that the figures of a numeric column are of.
func (c Column) filled(rows uint64) uint64 {
	switch {
	case c.Missing > 0:
		return rows - min(rows, c.Missing)
	case c.Gaps:
		return rows - min(rows, minPublished) // see measure
	}
	return rows
}

// coarse rounds to three significant digits.
func coarse(v float64) float64 {
	const digits = 3
	if w := math.Abs(v); w < 1000 && w == math.Trunc(w) {
		return v // as it is with most columns
	}
	r, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'e', digits-1, 64), 64)
	return r
}

// name publishes the levels of a categorical column, and hints at those that it
// must not name.
func (p *Column) name(cells *Cells, o Options) (hint string, err error) {
	counts := map[string]int{}
	next := cells.Read()
	for range cells.Len() {
		if cell := next(); cell != "" {
			counts[cell]++
		}
	}
	declared := map[string]bool{}
	for _, level := range o.Levels[p.Name] {
		declared[canonical(level)] = true
	}
	if p.Role == Target && o.Positive != "" {
		positive := canonical(o.Positive)
		if counts[positive] == 0 && !declared[positive] {
			return "", fmt.Errorf("the positive level %.64q does not occur in the target %q; give one of its levels with --positive, or declare this one with --levels %s=%s",
				o.Positive, p.Name, p.Name, positive)
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
	if err := checkLevels(fmt.Sprintf("column %q", p.Name), p.Levels); err != nil {
		return "", fmt.Errorf("%w; change it, or leave the column out with --ignore %s", err, p.Name)
	}
	if cells.Len() >= minCounts {
		p.count(counts, cells.Len())
	}
	if hidden == 0 {
		return "", nil
	}
	sortLevels(all)
	suggestion := "..."
	if len(all) <= maxClasses {
		suggestion = strings.Join(all, ",")
	}
	return fmt.Sprintf("%s has %d of its %d levels in fewer than %d rows each, so their names are not published; where no other node publishes them, --levels %s=%s declares them",
		p.Name, hidden, len(all), minPublished, p.Name, suggestion), nil
}

// count publishes how many of n rows hold each level. A count under ten is not
// told, nor may one be had by taking what is told from n: so further levels, the
// smallest first, are not told either, until what is left has room enough for
// doubt. If none would be told, Counts stays empty.
func (p *Column) count(counts map[string]int, n int) {
	told := make([]uint64, len(p.Levels))
	var order []int // of the levels that may be told, the rarest last
	var hidden doubt
	hidden.rest = n - int(p.Missing)
	for i, level := range p.Levels {
		if counts[level] >= minPublished {
			told[i] = uint64(counts[level])
			hidden.rest -= counts[level]
			order = append(order, i)
		} else {
			hidden.named++
		}
	}
	hidden.unnamed, hidden.gaps = p.Hidden, p.Gaps && p.Missing == 0
	slices.SortStableFunc(order, func(a, b int) int { return counts[p.Levels[b]] - counts[p.Levels[a]] })
	for len(order) > 0 && !hidden.enough(counts[p.Levels[order[len(order)-1]]]) {
		last := order[len(order)-1]
		order = order[:len(order)-1]
		hidden.rest += counts[p.Levels[last]]
		hidden.with++
		told[last] = 0
	}
	if len(order) > 0 {
		p.Counts = told
	}
}

// doubt is what one can work out of the rows whose counts are not told.
type doubt struct {
	rest    int  // of them together
	named   int  // levels of fewer than ten rows that are named
	unnamed bool // whether there are further levels, which are not named
	gaps    bool // whether one to nine cells are missing
	with    int  // levels of ten rows or more that are not told for their sake
}

// enough says that the counts under ten, together, may be at least five
// different numbers, even for somebody who knows which counts are under ten and
// that rarest is the smallest that is told, so that none of those hidden with them
// is larger; or that they are ten or more, and not all as large as they can be.
func (d doubt) enough(rarest int) bool {
	const numbers, most = 5, minPublished - 1
	if d.named == 0 && !d.unnamed && !d.gaps {
		return true // every row is accounted for
	}
	if d.rest < minPublished {
		return false
	}
	least, largest := 0, most*d.named
	if d.unnamed {
		least, largest = least+1, d.rest
	}
	if d.gaps {
		least, largest = least+1, min(largest, d.rest)+most
	}
	if d.with == 0 {
		return d.rest <= largest-numbers || d.unnamed
	}
	least, largest = max(least, d.rest-d.with*rarest), min(largest, d.rest-d.with*minPublished)
	return largest-least >= numbers-1
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
