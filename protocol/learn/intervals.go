package learn

import (
	"math"
	"math/bits"
	"slices"
)

// intervals draws the rows of the counts of a report anew.
func (c Counts) intervals(r Report, positive string) *Intervals {
	v := new(Intervals)
	switch {
	case c.Rows == 0:
	case c.Errors != nil:
		c.errorIntervals(r, v)
	default:
		c.classIntervals(r, positive, v)
	}
	return v
}

// classIntervals redraws the confusion matrix, which gives accuracy and F1, and
// then the scores of as many rows.
//
// One row is added to those that rows are drawn from: half of it right and half
// wrong, spread evenly over the cells of the classes that have rows. Else, where
// sixteen rows of sixteen are right, the interval would have no width, and it
// would be too narrow wherever few rows are right, or few are wrong. (For the
// accuracy this is Jeffreys' prior.)
func (c Counts) classIntervals(r Report, positive string, v *Intervals) {
	k := len(r.Classes)
	confusion := confusionCells(c.Confusion, k)
	n, first := scored(k)
	pairs := make([]pair, 0, n)
	positives, negatives := runsOf(c.Positives), runsOf(c.Negatives)
	for h := range n {
		_, hits, alarms := outcomes(c.Confusion, k, first+h)
		pairs = append(pairs, pairOf(&positives, &negatives, (h+1)*Bins, hits, alarms, min(max(4*maxGroups/n, minGroups), maxGroups)))
	}
	at := slices.IndexFunc(r.Classes, func(c ClassReport) bool { return k == 2 && c.Label == positive })

	s := streamOf(c)
	drawn := make([]uint64, k*k)
	accuracy, f1, auc := make([]float64, draws), make([]float64, draws), make([]float64, 0, draws)
	for i := range draws {
		confusion.draw(s, c.Rows, drawn)
		correct := uint64(0)
		sum, areas, defined := 0.0, 0.0, 0
		for class := range k {
			rows, hits, alarms := outcomes(drawn, k, class)
			correct += hits
			f := quotient(2*float64(hits), float64(rows)+float64(hits)+float64(alarms))
			sum += f
			if class == at {
				f1[i] = f
			}
			if class >= first {
				if area, ok := pairs[class-first].draw(s, rows, hits, c.Rows-rows, alarms); ok {
					areas += area
					defined++
				}
			}
		}
		accuracy[i] = float64(correct) / float64(c.Rows)
		if at < 0 {
			f1[i] = sum / float64(k)
		}
		if defined > 0 {
			auc = append(auc, areas/float64(defined))
		}
	}
	v.Accuracy = percentiles(accuracy, *r.Accuracy, 0, 0, 1)
	bias := 0.0
	if at < 0 {
		// With few rows the macro average is too low, for classes that have
		// none count as 0; and with rows drawn from them once more.
		for _, f := range f1 {
			bias += f / draws
		}
		bias -= *r.F1
	}
	v.F1 = percentiles(f1, *r.F1, -2*bias, 0, 1)
	if r.ROCAUC != nil {
		sum, defined := 0.0, 0
		for _, p := range pairs {
			if p.defined {
				sum += p.area
				defined++
			}
		}
		v.ROCAUC = percentiles(auc, *r.ROCAUC, *r.ROCAUC-sum/float64(defined), 0, 1)
	}
}

// outcomes returns the rows of a class in a confusion matrix, those of them that were
// predicted as it, and the rows of other classes that were.
func outcomes(confusion []uint64, k, class int) (rows, hits, alarms uint64) {
	for i := range k {
		rows += confusion[class*k+i]
		alarms += confusion[i*k+class]
	}
	hits = confusion[class*k+class]
	return rows, hits, alarms - hits
}

// confusionCells are those of the rows and the row that is added to them.
func confusionCells(confusion []uint64, k int) cells {
	classes, rows := uint64(0), uint64(0) // with rows
	support := make([]uint64, k)
	for i, n := range confusion {
		support[i/k] += n
		rows += n
	}
	for _, n := range support {
		if n > 0 {
			classes++
		}
	}
	shift := max(bits.Len64(rows)-44, 0) // a row weighs at most 2^17
	right, wrong := uint64(k-1), uint64(1)
	row := 2 * classes * uint64(k-1)
	weights := make([]uint64, k*k)
	for i, n := range confusion {
		if support[i/k] == 0 {
			continue
		}
		weights[i] = n >> shift * row
		if i/k == i%k {
			weights[i] += right
		} else {
			weights[i] += wrong
		}
	}
	return cellsOf(weights)
}

// Scores are drawn in groups of bins, between minGroups and maxGroups for a pair
// of histograms, by how many pairs there are: more would take longer, and change
// nothing that can be seen.
const minGroups, maxGroups = 16, 32

// pair is a pair of histograms of a class, as groups of bins.
//
// The rows of a side that were predicted as the class are taken for those of the
// highest scores. With two classes they are; with more it makes the areas of the
// classes, of which nothing else is known, go up and down together.
type pair struct {
	sides   [2]side // positives and negatives
	area    float64 // under the curve of the groups
	defined bool
}

type side struct {
	strata [2]stratum // rows that were not, and that were predicted as the class
	drawn  []uint64
}

// stratum is what rows are drawn from: groups of bins from one on.
type stratum struct {
	from  int
	cells cells
	drawn []uint64
}

// pairOf takes the bins before end. Hits of the positives, and alarms of the
// negatives, were predicted as the class. Each group holds about as much of both
// sides.
func pairOf(positives, negatives *runs, end int, hits, alarms uint64, groups int) pair {
	var bins [][2]uint64 // that are not empty
	var all [2]uint64
	for {
		at := min(positives.at, negatives.at)
		if at >= end {
			break
		}
		b := [2]uint64{positives.count(at), negatives.count(at)}
		bins = append(bins, b)
		all[0], all[1] = all[0]+b[0], all[1]+b[1]
	}
	var merged [2][]uint64
	filled := 0.0
	for i, b := range bins {
		if i == 0 || filled >= 2/float64(groups) {
			merged[0], merged[1] = append(merged[0], 0), append(merged[1], 0)
			filled = 0
		}
		last := len(merged[0]) - 1
		merged[0][last] += b[0]
		merged[1][last] += b[1]
		filled += quotient(float64(b[0]), float64(all[0])) + quotient(float64(b[1]), float64(all[1]))
	}
	p := pair{}
	p.area, p.defined = areaOf(merged[0], merged[1])
	if !p.defined {
		return p
	}
	// The rows of a side and part by group.
	var rows [2][2][]uint64
	for i, lower := range [2]uint64{all[0] - hits, all[1] - alarms} {
		for _, n := range merged[i] {
			low := min(n, lower)
			lower -= low
			rows[i][0] = append(rows[i][0], low)
			rows[i][1] = append(rows[i][1], n-low)
		}
	}
	shift := max(bits.Len64(all[0]+all[1])-30, 0)
	for i := range p.sides {
		p.sides[i].drawn = make([]uint64, len(merged[i]))
		for j := range p.sides[i].strata {
			p.sides[i].strata[j] = stratumOf(rows[i][j], rows[1-i][j], j, shift)
		}
	}
	return p
}

// stratumOf adds to the rows of a side and part a quarter of a row, which lies as
// those of both sides do. There may be none of them: then it lies at the end of
// the scores. Weights are of rows shifted, so that they fit.
func stratumOf(rows, others []uint64, upper, shift int) stratum {
	from, to, all := len(rows), 0, uint64(0)
	for i := range rows {
		if rows[i]+others[i] > 0 {
			from, to = min(from, i), i+1
			all += (rows[i] + others[i]) >> shift
		}
	}
	if all == 0 {
		return stratum{from: upper * (len(rows) - 1), cells: cells{0, 1}, drawn: make([]uint64, 1)}
	}
	weights := make([]uint64, to-from)
	for i := range weights {
		weights[i] = 4*all*(rows[from+i]>>shift) + (rows[from+i]+others[from+i])>>shift
	}
	return stratum{from: from, cells: cellsOf(weights), drawn: make([]uint64, len(weights))}
}

// draw redraws so many positives and negatives, of which so many were predicted as
// the class, and returns the area under their curve, if there is one.
func (p *pair) draw(s *stream, positives, hits, negatives, alarms uint64) (float64, bool) {
	if !p.defined || positives == 0 || negatives == 0 {
		return 0, false
	}
	p.sides[0].draw(s, positives-hits, hits)
	p.sides[1].draw(s, negatives-alarms, alarms)
	return areaOf(p.sides[0].drawn, p.sides[1].drawn)
}

func (d *side) draw(s *stream, lower, upper uint64) {
	clear(d.drawn)
	for i, n := range [2]uint64{lower, upper} {
		part := &d.strata[i]
		if n == 0 {
			continue
		}
		part.cells.draw(s, n, part.drawn)
		for i, n := range part.drawn {
			d.drawn[part.from+i] += n
		}
	}
}

// areaOf is [area] of histograms that are not packed.
func areaOf(positives, negatives []uint64) (float64, bool) {
	var below, all, won float64
	for i := range positives {
		p, n := float64(positives[i]), float64(negatives[i])
		won += float64(p * (below + n/2))
		below += n
		all += p
	}
	if all == 0 || below == 0 {
		return 0, false
	}
	return min(won/(all*below), 1), true
}

// minErrors is the number of errors below which they have no interval: it would
// say nothing.
const minErrors = 5

// errorIntervals redraws the sizes of errors, sixteen bins of their histogram as
// one. Percentiles of errors, which are skewed, hold the truth too seldom where
// rows are few: what is drawn is by how many standard errors a metric is off (the
// bootstrap-t of Efron 1981). R² follows from the squared error, for the spread of
// the target is held fixed.
func (c Counts) errorIntervals(r Report, v *Intervals) {
	if c.Rows < minErrors {
		return
	}
	const merged = 16
	var rows [Bins / merged]uint64
	var sums [Bins / merged]powers
	for run := runsOf(c.Errors.Histogram); run.at < Bins; run.next() {
		size, at := errorSize(run.at), run.at/merged
		rows[at] += run.n
		sums[at].add(float64(run.n), powers{size, size * size, size * size * size * size})
	}
	var weights []uint64 // of the groups that are not empty
	var means []powers
	for at, n := range rows {
		if n > 0 {
			weights = append(weights, n)
			means = append(means, powers{})
			means[len(means)-1].add(1/float64(n), sums[at])
		}
	}
	figures := func(counts []uint64) (mae, rmse figure) {
		var mean powers
		for i, n := range counts {
			mean.add(float64(n)/float64(c.Rows), means[i])
		}
		mae = figure{mean[0], math.Sqrt(max(mean[1]-float64(mean[0]*mean[0]), 0))}
		rmse.value = math.Sqrt(mean[1])
		rmse.deviation = quotient(math.Sqrt(max(mean[2]-float64(mean[1]*mean[1]), 0)), 2*rmse.value)
		return mae, rmse
	}
	mae, rmse := figures(weights)
	s, from := streamOf(c), cellsOf(weights)
	drawn := make([]uint64, len(weights))
	maes, rmses := make([]float64, draws), make([]float64, draws)
	for i := range draws {
		from.draw(s, c.Rows, drawn)
		m, q := figures(drawn)
		maes[i], rmses[i] = *r.MAE*mae.end(m), *r.RMSE*rmse.end(q)
	}
	v.MAE = percentiles(maes, *r.MAE, 0, 0, math.MaxFloat64)
	v.RMSE = percentiles(rmses, *r.RMSE, 0, 0, math.MaxFloat64)
	if r.R2 != nil {
		of := func(end float64) float64 {
			times := quotient(end, *r.RMSE)
			return 1 - float64((1-*r.R2)*times*times)
		}
		v.R2 = &Interval{of(v.RMSE[1]), of(v.RMSE[0])}
	}
}

// powers are the first, second and fourth of a size, or their sums.
type powers [3]float64

// add adds others by a weight.
func (p *powers) add(weight float64, others powers) {
	for i, x := range others {
		p[i] += float64(weight * x)
	}
}

// figure is a mean, with the deviation that divided by the root of the number of
// rows is its standard error.
type figure struct{ value, deviation float64 }

// end is a figure, as a part of itself, less as many of its standard errors as a
// drawn one is above it by its own. Few rows drawn may be almost alike, with hardly
// any: theirs counts as at least a tenth of it.
func (f figure) end(drawn figure) float64 {
	off := quotient(drawn.value-f.value, max(drawn.deviation, f.deviation/10))
	return 1 - quotient(float64(off*f.deviation), f.value)
}
