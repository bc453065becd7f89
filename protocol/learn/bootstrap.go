package learn

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
)

// draws is how often rows are drawn anew.
const draws = 1000

// stream gives the random numbers of one set of draws. All that is computed from
// them is integers, sums, quotients and square roots: bits that are the same on
// every machine.
type stream struct {
	words  *rand.ChaCha8
	coins  uint64 // that are left of a word
	unused int    // their number
}

// streamOf is keyed by what is drawn from.
func streamOf(c Counts) *stream {
	b := []byte("village bootstrap")
	for _, part := range [][]uint64{{c.Rows}, c.Confusion, c.Groups} {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(part)))
		for _, n := range part {
			b = binary.LittleEndian.AppendUint64(b, n)
		}
	}
	for _, packed := range [][]byte{c.Positives, c.Negatives} {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(packed)))
		b = append(b, packed...)
	}
	if e := c.Errors; e != nil {
		for _, n := range []uint64{math.Float64bits(e.Unit), e.Absolute, e.Squared, uint64(e.Target), e.Spread} {
			b = binary.LittleEndian.AppendUint64(b, n)
		}
		b = append(b, e.Histogram...)
	}
	return &stream{words: rand.NewChaCha8(sha256.Sum256(b))}
}

// heads tosses n fair coins. Of more than 256 the number is that of 256, spread
// evenly between two outcomes and stretched to the same mean and variance, which
// is as normal as theirs.
func (s *stream) heads(n uint64) uint64 {
	if n > 256 {
		ones := 0
		for range 4 {
			ones += bits.OnesCount64(s.words.Uint64())
		}
		z := float64(ones-128) + (float64(s.words.Uint64()>>11)*0x1p-53 - .5)
		around := float64(math.Sqrt(float64(n)/256.33333333333334) * z)
		return uint64(max(min(float64(n)/2+around+.5, float64(n)), 0))
	}
	ones := 0
	for ; n >= 64; n -= 64 {
		ones += bits.OnesCount64(s.words.Uint64())
	}
	if s.unused < int(n) {
		s.coins, s.unused = s.words.Uint64(), 64
	}
	ones += bits.OnesCount64(s.coins & (1<<n - 1))
	s.coins >>= n
	s.unused -= int(n)
	return uint64(ones)
}

// binomial draws how many of n rows fall to a share of a/b; b is below 2^63.
// Each row has a uniform number in [0, 1), of whose bits, from the first on, it
// tosses as many as tell whether it is below the share.
func (s *stream) binomial(n, a, b uint64) uint64 {
	if a >= b {
		return n
	}
	below := uint64(0)
	for n > 0 && a > 0 {
		ones := s.heads(n)
		if a <<= 1; a >= b { // the share's bit is 1
			a -= b
			below += n - ones
			n = ones
		} else {
			n -= ones
		}
	}
	return below
}

// cells are what rows are drawn from, each with a weight. Their sum is below 2^63.
type cells []uint64 // cumulative: cell i has the weight from [i] to [i+1]

func cellsOf(weights []uint64) cells {
	c := make(cells, 1, len(weights)+1)
	for _, w := range weights {
		c = append(c, c[len(c)-1]+w)
	}
	return c
}

// draw puts the rows of each cell into counts: a draw from the multinomial
// distribution, by halves of halves of the cells.
func (c cells) draw(s *stream, n uint64, counts []uint64) {
	if n == 0 || len(counts) == 1 {
		clear(counts)
		counts[0] = n
		return
	}
	half := len(counts) / 2
	first := s.binomial(n, c[half]-c[0], c[len(counts)]-c[0])
	c[:half+1].draw(s, first, counts[:half])
	c[half:].draw(s, n-first, counts[half:])
}

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
// then, for as many rows of each class as that has, their scores.
//
// A row is added to those that rows are drawn from: half of it right and half
// wrong, spread evenly over the cells of the classes that have rows. Else, where
// sixteen rows of sixteen are right, the interval would have no width, and it
// would be too narrow wherever few rows are right, or few are wrong: this is
// Jeffreys' prior for the accuracy. The scores of each side of a pair of
// histograms have half a row added likewise, which lies as the scores of both.
func (c Counts) classIntervals(r Report, positive string, v *Intervals) {
	k := len(r.Classes)
	confusion := confusionCells(c.Confusion, k)
	pairs, first := scored(k)
	scores := make([]pair, 0, pairs)
	ones, zeros := runsOf(c.Positives), runsOf(c.Negatives)
	for h := range pairs {
		scores = append(scores, pairOf(&ones, &zeros, h, min(max(maxGroups*4/pairs, minGroups), maxGroups)))
	}
	at := slices.IndexFunc(r.Classes, func(c ClassReport) bool { return k == 2 && c.Label == positive })

	s := streamOf(c)
	drawn := make([]uint64, k*k)
	accuracy, f1, auc := make([]float64, draws), make([]float64, draws), make([]float64, 0, draws)
	for i := range draws {
		confusion.draw(s, c.Rows, drawn)
		correct := uint64(0)
		for y := range k {
			correct += drawn[y*k+y]
		}
		accuracy[i] = float64(correct) / float64(c.Rows)
		f1[i] = f1Of(drawn, k, at)
		sum, defined := 0.0, 0
		for h := range scores {
			of := uint64(0)
			for _, n := range drawn[(first+h)*k : (first+h+1)*k] {
				of += n
			}
			if a, ok := scores[h].draw(s, of, c.Rows-of); ok {
				sum += a
				defined++
			}
		}
		if defined > 0 {
			auc = append(auc, sum/float64(defined))
		}
	}
	v.Accuracy = percentiles(accuracy, *r.Accuracy, 0, 0, 1)
	v.F1 = percentiles(f1, *r.F1, 0, 0, 1)
	if r.ROCAUC != nil {
		coarse, defined := 0.0, 0
		for h := range scores {
			if scores[h].defined {
				coarse += scores[h].area
				defined++
			}
		}
		v.ROCAUC = percentiles(auc, *r.ROCAUC, *r.ROCAUC-coarse/float64(defined), 0, 1)
	}
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

// f1Of is F1 of the class with this index, or the macro average where that is
// negative.
func f1Of(confusion []uint64, k, class int) float64 {
	of := func(class int) float64 {
		marked := uint64(0) // rows of the class, and rows predicted as it
		for i := range k {
			marked += confusion[class*k+i] + confusion[i*k+class]
		}
		return quotient(2*float64(confusion[class*k+class]), float64(marked))
	}
	if class >= 0 {
		return of(class)
	}
	sum := 0.0
	for class := range k {
		sum += of(class)
	}
	return sum / float64(k)
}

// Scores of a pair of histograms are drawn in groups of bins, between minGroups
// and maxGroups by how many pairs there are: more would take longer, and change
// nothing that can be seen.
const minGroups, maxGroups = 16, 64

// pair is a pair of histograms of one class, as groups of bins.
type pair struct {
	positives, negatives cells
	drawn                [2][]uint64
	area                 float64 // under the curve of the groups
	defined              bool
}

// pairOf takes pair h. Each group holds about the same part of both sides.
func pairOf(ones, zeros *runs, h, groups int) pair {
	var bins [][2]uint64 // that are not empty
	var all [2]uint64
	for {
		at := min(ones.at, zeros.at)
		if at >= (h+1)*Bins {
			break
		}
		b := [2]uint64{ones.take(at), zeros.take(at)}
		bins = append(bins, b)
		all[0], all[1] = all[0]+b[0], all[1]+b[1]
	}
	var merged [2][]uint64
	filled := 0.0
	for i, b := range bins {
		if i == 0 || filled >= 1 {
			merged[0], merged[1] = append(merged[0], 0), append(merged[1], 0)
			filled = 0
		}
		last := len(merged[0]) - 1
		merged[0][last] += b[0]
		merged[1][last] += b[1]
		filled += float64(groups) / 2 * (quotient(float64(b[0]), float64(all[0])) + quotient(float64(b[1]), float64(all[1])))
	}
	p := pair{}
	p.area, p.defined = areaOf(merged[0], merged[1])
	// 2·all rows weigh as much as a row, so that half a row is one for each of
	// all rows. They are fewer than 2^30 for this, or all are halved until so.
	shift := max(bits.Len64(all[0]+all[1])-30, 0)
	rows := (all[0] + all[1]) >> shift
	for side, of := range merged {
		weights := make([]uint64, len(of))
		for i := range of {
			weights[i] = 2*rows*(of[i]>>shift) + (merged[0][i]+merged[1][i])>>shift
		}
		p.drawn[side] = make([]uint64, len(of))
		if side == 0 {
			p.positives = cellsOf(weights)
		} else {
			p.negatives = cellsOf(weights)
		}
	}
	return p
}

// draw redraws so many positives and negatives and returns the area under their
// curve, if there is one.
func (p *pair) draw(s *stream, positives, negatives uint64) (float64, bool) {
	if !p.defined || positives == 0 || negatives == 0 {
		return 0, false
	}
	p.positives.draw(s, positives, p.drawn[0])
	p.negatives.draw(s, negatives, p.drawn[1])
	return areaOf(p.drawn[0], p.drawn[1])
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

// errorIntervals redraws the sizes of errors, four bins of their histogram as
// one. The spread of the target, by which R² is measured, is held fixed. With n
// rows the deviations are widened as those of Student's t of n-1 degrees of
// freedom are: of few rows the percentiles are too narrow (Hesterberg 2015). One
// row has no interval.
func (c Counts) errorIntervals(r Report, v *Intervals) {
	if c.Rows < 2 {
		return
	}
	const merged = 4
	var rows [Bins / merged]uint64
	var sums, squares [Bins / merged]float64
	absolute, squared := 0.0, 0.0
	for run := runsOf(c.Errors.Histogram); run.at < Bins; run.next() {
		n, size := float64(run.n), errorSize(run.at)
		rows[run.at/merged] += run.n
		sums[run.at/merged] += float64(n * size)
		squares[run.at/merged] += float64(n * size * size)
	}
	var weights []uint64
	var size, square []float64 // means of the groups that are not empty
	for i, n := range rows {
		if n > 0 {
			weights = append(weights, n)
			size = append(size, sums[i]/float64(n))
			square = append(square, squares[i]/float64(n))
			absolute += sums[i]
			squared += squares[i]
		}
	}
	from, s := cellsOf(weights), streamOf(c)
	drawn := make([]uint64, len(weights))
	mae, rmse, r2 := make([]float64, draws), make([]float64, draws), make([]float64, draws)
	df := float64(c.Rows - 1)
	wider := (1 + 1.21/df) * math.Sqrt(float64(c.Rows)/df)
	for i := range draws {
		from.draw(s, c.Rows, drawn)
		a, q := 0.0, 0.0
		for j, n := range drawn {
			a += float64(float64(n) * size[j])
			q += float64(float64(n) * square[j])
		}
		// By how much of itself a sum has changed.
		a = 1 + float64(wider*(quotient(a, absolute)-1))
		q = max(1+float64(wider*(quotient(q, squared)-1)), 0)
		mae[i] = *r.MAE * a
		rmse[i] = *r.RMSE * math.Sqrt(q)
		if r.R2 != nil {
			r2[i] = 1 - float64((1-*r.R2)*q)
		}
	}
	v.MAE = percentiles(mae, *r.MAE, 0, 0, math.MaxFloat64)
	v.RMSE = percentiles(rmse, *r.RMSE, 0, 0, math.MaxFloat64)
	if r.R2 != nil {
		v.R2 = percentiles(r2, *r.R2, 0, -math.MaxFloat64, 1)
	}
}

// percentiles returns the interval that leaves out 24 of 1,000 values, moved by a
// number, on either side. It holds the metric itself, and stays within bounds. It
// is nil where no value is defined.
func percentiles(values []float64, metric, by, least, most float64) *Interval {
	if len(values) == 0 {
		return nil
	}
	slices.Sort(values)
	out := len(values) * 24 / draws
	from, to := values[out]+by, values[len(values)-1-out]+by
	return &Interval{max(min(from, metric), least), min(max(to, metric), most)}
}

// GainOf sets two models beside each other of which only the new one got better
// of the rows right, and only the old one worse of them. Where there are no rows,
// or fewer than these two numbers, it has no figures.
//
// Its rows are drawn anew as those of [Intervals]. What is added to them is half
// a row that is better, half a row that is worse and one that is neither (Agresti
// and Min 2005).
func GainOf(rows, better, worse uint64) Gain {
	g := Gain{Rows: rows, Better: better, Worse: worse}
	if rows == 0 || better > rows || worse > rows-better {
		return g
	}
	gain := func(better, worse uint64) float64 {
		if worse > better {
			return -float64(worse-better) / float64(rows)
		}
		return float64(better-worse) / float64(rows)
	}
	accuracy := gain(better, worse)
	s := streamOf(Counts{Rows: rows, Confusion: []uint64{better, worse}})
	shift := max(bits.Len64(rows)-60, 0)
	from := cellsOf([]uint64{
		better>>shift*2 + 1, worse>>shift*2 + 1, (rows-better-worse)>>shift*2 + 2,
	})
	drawn := make([]uint64, 3)
	gains := make([]float64, draws)
	for i := range draws {
		from.draw(s, rows, drawn)
		gains[i] = gain(drawn[0], drawn[1])
	}
	g.Accuracy, g.Interval = &accuracy, percentiles(gains, accuracy, 0, -1, 1)
	return g
}
