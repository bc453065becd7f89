package dataset

import (
	"math"
	"slices"
)

// How far a column has drifted, by the usual bounds of its PSI (Siddiqi 2006).
const (
	DriftNone     = "none"     // below 0.1, or no more than chance alone brings about
	DriftModerate = "moderate" // below 0.25
	DriftLarge    = "large"
	DriftUnknown  = "unknown" // the manifest publishes too little
)

// ColumnDrift tells how far the cells of a column are from what a manifest says
// of it.
type ColumnDrift struct {
	Column string `json:"column"`
	Rows   int    `json:"rows"` // new rows that have a value
	// PSI is the population stability index over the ten bins between the deciles
	// of a numeric column, or over the levels of a categorical one: the sum of
	// (q-p) ln(q/p), with half a row added to each count. 0 is no difference.
	PSI *float64 `json:"psi"`
	// KS is the largest difference of the two distribution functions at the deciles
	// of a numeric column, 0 to 1: a lower bound of the Kolmogorov-Smirnov statistic.
	KS            *float64 `json:"ks"`
	MissingBefore *float64 `json:"missing_before"` // share of the rows; nil where it is not published
	MissingAfter  float64  `json:"missing_after"`
	Level         string   `json:"level"`
}

// Drift compares the rows of t with what m publishes, for each feature and the
// target that t has, in the manifest's order. Cells of a numeric column that are
// not numbers count as missing. What the manifest publishes too little for is nil.
func Drift(m Manifest, t Packed) []ColumnDrift {
	drifts := []ColumnDrift{}
	for _, c := range m.Columns {
		at := slices.Index(t.Columns, c.Name)
		if at < 0 || c.Role == Split {
			continue
		}
		drifts = append(drifts, c.drift(m.Rows, t.Cells[at]))
	}
	return drifts
}

func (c Column) drift(rows uint64, cells *Cells) ColumnDrift {
	d := ColumnDrift{Column: c.Name, Level: DriftUnknown}
	var bins []bin
	spread := 1.0 // of what chance brings about
	if c.Kind == Numeric {
		var tied bool
		if bins, d.Rows, d.KS, tied = c.binNumbers(cells); tied {
			// Where deciles lie within values of many rows, a bin may take all that
			// the distribution function is off, which has a variance of up to 1/4n
			// instead of 0.09/n.
			spread = 0.25 / 0.09
		}
	} else {
		bins, d.Rows = c.binLevels(rows, cells)
	}
	if n := cells.Len(); n > 0 {
		d.MissingAfter = float64(n-d.Rows) / float64(n)
	}
	if rows > 0 && (c.Missing > 0 || !c.Gaps) {
		share := float64(c.Missing) / float64(rows)
		d.MissingBefore = &share
	}
	if d.Rows == 0 || len(bins) == 0 {
		d.KS = nil
		return d
	}
	psi := 0.0
	for _, b := range bins {
		q := (b.rows + 0.5) / (float64(d.Rows) + 0.5*float64(len(bins)))
		psi += (q - b.share) * math.Log(q/b.share)
	}
	d.PSI = &psi
	switch chance := spread * byChance(len(bins)-1, float64(c.filled(rows)), float64(d.Rows)); {
	case psi < 0.1 || psi < chance:
		d.Level = DriftNone
	case psi < 0.25:
		d.Level = DriftModerate
	default:
		d.Level = DriftLarge
	}
	return d
}

// byChance is what the PSI of so many rows of one distribution stays below 999
// times in a thousand: over 1/before + 1/after it is distributed as chi-squared,
// with one degree of freedom less than there are bins (Yurdakul 2018). The quantile
// is that of Wilson and Hilferty (1931).
func byChance(degrees int, before, after float64) float64 {
	if degrees == 0 {
		return 0
	}
	const z = 3.0902 // of the normal distribution
	k := 2 / (9 * float64(degrees))
	root := 1 - k + z*math.Sqrt(k)
	return float64(degrees) * root * root * root * (1/before + 1/after)
}

// bin is a part of a column's values: which share of the rows it had, and how many
// new rows it has, where a row may lie in two.
type bin struct{ share, rows float64 }

// binNumbers counts rows between the deciles. A decile that is a value of many
// rows lies somewhere among these: of the new rows with that value as many as
// possible are taken to lie on the side where they make no difference. So a column
// of few values does not differ from itself. Tied says that there are such values.
func (c Column) binNumbers(cells *Cells) (bins []bin, rows int, ks *float64, tied bool) {
	below, upTo := make([]float64, len(c.Deciles)), make([]float64, len(c.Deciles))
	next := cells.Read()
	for range cells.Len() {
		v, ok := number(next())
		if !ok {
			continue
		}
		rows++
		if len(c.Deciles) > 0 {
			v = coarse(v) // as the deciles are
			i, _ := slices.BinarySearch(c.Deciles, v)
			j := i
			for j < len(c.Deciles) && c.Deciles[j] == v {
				j++
			}
			if i < len(below) {
				upTo[i]++ // the first decile that is not below v
			}
			if j < len(below) {
				below[j]++ // the first above it
			}
		}
	}
	if len(c.Deciles) == 0 || rows == 0 {
		return nil, rows, nil, false
	}
	n, cut, far := float64(rows), 0.0, 0.0
	least, most := 0.0, 0.0 // rows below, and up to, the decile
	for i, d := range c.Deciles {
		least, most = least+below[i], most+upTo[i]
		want := n * float64(i+1) / 10
		next := min(max(want, least), most)
		far = max(far, math.Abs(next-want)/n)
		tied = tied || most-least > max(1, n/50)
		if i >= 2 && c.Deciles[i-2] == d { // within one value, as the bin before
			bins[len(bins)-1].share += 0.1
			bins[len(bins)-1].rows += next - cut
		} else {
			bins = append(bins, bin{0.1, next - cut})
		}
		cut = next
	}
	return append(bins, bin{0.1, n - cut}), rows, &far, tied
}

// binLevels counts rows by the levels whose counts are published, and those of all
// others together.
func (c Column) binLevels(before uint64, cells *Cells) (bins []bin, rows int) {
	place := make(map[string]int, len(c.Counts))
	rest := float64(before - min(before, c.Missing))
	var counts []float64
	for i, n := range c.Counts {
		if n > 0 {
			place[c.Levels[i]] = len(counts)
			counts = append(counts, float64(n))
			rest -= float64(n)
		}
	}
	found := make([]float64, len(counts)+1)
	next := cells.Read()
	for range cells.Len() {
		cell := next()
		if cell == "" {
			continue
		}
		rows++
		i, ok := place[cell]
		if !ok {
			if i, ok = place[canonical(cell)]; !ok {
				i = len(counts)
			}
		}
		found[i]++
	}
	if len(counts) == 0 {
		return nil, rows
	}
	counts = append(counts, rest)
	total := 0.5 * float64(len(counts))
	for _, n := range counts {
		total += n
	}
	for i, n := range counts {
		bins = append(bins, bin{(n + 0.5) / total, found[i]})
	}
	return bins, rows
}
