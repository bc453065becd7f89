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
// them is integers, sums, products, quotients and square roots: bits that are the
// same on every machine.
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

// enough is the variance from which on a binomial distribution is drawn as a
// normal one: that of 64 coins, spread evenly between two outcomes.
const enough = 16

// normal draws from the normal distribution, as a whole number of n rows.
func (s *stream) normal(n uint64, mean, variance float64) uint64 {
	z := float64(bits.OnesCount64(s.words.Uint64())-32) + (float64(s.words.Uint64()>>11)*0x1p-53 - .5)
	x := mean + float64(math.Sqrt(variance/(16+1./12))*z)
	if x += .5; x < float64(n) {
		return uint64(max(x, 0))
	}
	return n
}

// heads tosses n fair coins.
func (s *stream) heads(n uint64) uint64 {
	if n >= 4*enough {
		return s.normal(n, float64(n)/2, float64(n)/4)
	}
	if s.unused < int(n) {
		s.coins, s.unused = s.words.Uint64(), 64
	}
	ones := bits.OnesCount64(s.coins & (1<<n - 1))
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
	if n >= 4*enough {
		share := float64(a) / float64(b)
		if mean := float64(n) * share; mean*(1-share) >= enough {
			return s.normal(n, mean, mean*(1-share))
		}
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
// distribution, by halves of halves of the cells, and where rows are few in a
// part row by row.
func (c cells) draw(s *stream, n uint64, counts []uint64) {
	switch half := len(counts) / 2; {
	case half == 0:
		counts[0] = n
	case n <= 2*uint64(len(counts)):
		clear(counts)
		for range n {
			at, _ := bits.Mul64(s.words.Uint64(), c[len(counts)]-c[0])
			at += c[0]
			from, to := 0, len(counts)
			for to-from > 1 {
				if mid := (from + to) / 2; c[mid] <= at {
					from = mid
				} else {
					to = mid
				}
			}
			counts[from]++
		}
	default:
		first := s.binomial(n, c[half]-c[0], c[len(counts)]-c[0])
		c[:half+1].draw(s, first, counts[:half])
		c[half:].draw(s, n-first, counts[half:])
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
