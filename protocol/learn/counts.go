package learn

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"village/protocol/dataset"
)

// Counts is how a model did on some rows, as integers that nodes can add up.
//
// Positives and Negatives are histograms of [Bins] bins of the probability that
// the model gives to a class: over the rows of that class, and over all other
// rows. Two classes have one pair of histograms, of class 1; more have a pair a
// class, one after another. They are packed as runs of (zeros, count), each
// number a minimal unsigned varint.
type Counts struct {
	Rows      uint64   `cbor:"rows" json:"rows"`
	Confusion []uint64 `cbor:"confusion" json:"confusion"` // Classes x Classes, row-major: [true][predicted]
	Positives []byte   `cbor:"positives" json:"-"`
	Negatives []byte   `cbor:"negatives" json:"-"`
	// Groups are confusion matrices by group of the sensitive column, one after
	// another; none without such a column.
	Groups []uint64 `cbor:"groups,omitempty" json:"groups,omitempty"`
	// Errors are those of a numeric target, for which all the others but Rows
	// are empty.
	Errors *Errors `cbor:"errors,omitempty" json:"errors,omitempty"`
}

// Errors are exact sums over rows of a numeric target, in fixed point: a target
// less the roster's mean, and a prediction less its target, in units of
// Unit/2^14, each rounded to an integer of at most 2^21.
type Errors struct {
	Unit     float64 `cbor:"unit" json:"unit"`         // the roster's standard deviation of the target
	Absolute uint64  `cbor:"absolute" json:"absolute"` // sum of |error|
	Squared  uint64  `cbor:"squared" json:"squared"`   // sum of error²
	Target   int64   `cbor:"target" json:"target"`
	Spread   uint64  `cbor:"spread" json:"spread"` // sum of target²
	// Histogram counts errors by size: 2,048 bins (Bins), packed as those of
	// Counts. It is for intervals alone.
	Histogram []byte `cbor:"histogram" json:"-"`
}

// scored returns the number of classes that have a pair of histograms, and the
// first of them.
func scored(classes int) (n, first int) {
	if classes == 2 {
		return 1, 1
	}
	return classes, 0
}

// Count runs the model over rows whose classes are known. The predicted class
// is the most probable one, of equal ones the first. Params and data fit the
// spec, else it panics.
func (s Spec) Count(params []float64, data dataset.Samples) Counts {
	t, _ := spare.Get().(*Tally)
	if t == nil || !t.spec.Equal(s) {
		t = NewTally(s)
	}
	defer spare.Put(t)
	t.Reset()
	t.Count(params, data)
	return t.Counts()
}

// spare are tallies of [Spec.Count]: to make one takes longer than to count a few
// rows.
var spare sync.Pool

// Tally adds up what would be the [Counts] of one model after another.
type Tally struct {
	spec                 Spec
	confusion            []uint64
	positives, negatives []uint64
	work                 Scratch
}

// NewTally returns an empty tally of models of a shape.
func NewTally(s Spec) *Tally {
	n, _ := scored(s.Classes)
	return &Tally{
		spec: s, confusion: make([]uint64, s.Classes*s.Classes),
		positives: make([]uint64, n*Bins), negatives: make([]uint64, n*Bins),
	}
}

// Count adds what [Spec.Count] counts.
func (t *Tally) Count(params []float64, data dataset.Samples) {
	s := t.spec
	n, first := scored(s.Classes)
	s.predictEach(params, data, &t.work, func(i int, p []float64) {
		y, predicted := data.Y[i], 0
		for c := range p {
			if p[c] > p[predicted] {
				predicted = c
			}
		}
		t.confusion[y*s.Classes+predicted]++
		for h := range n {
			at := h*Bins + bin(p[first+h])
			if y == first+h {
				t.positives[at]++
			} else {
				t.negatives[at]++
			}
		}
	})
}

// Add adds the counts of another tally of the same shape.
func (t *Tally) Add(other *Tally) {
	for _, sum := range []struct{ to, of []uint64 }{
		{t.confusion, other.confusion}, {t.positives, other.positives}, {t.negatives, other.negatives},
	} {
		for i, n := range sum.of {
			sum.to[i] += n
		}
	}
}

// Reset makes the tally empty.
func (t *Tally) Reset() {
	clear(t.confusion)
	clear(t.positives)
	clear(t.negatives)
}

// Counts are those of all that was added.
func (t *Tally) Counts() Counts {
	c := Counts{Confusion: slices.Clone(t.confusion), Positives: pack(t.positives), Negatives: pack(t.negatives)}
	for _, n := range t.confusion {
		c.Rows += n
	}
	return c
}

// Check refuses counts that no model of so many classes can have given on any
// rows. Counts of a peer pass it before they are summed.
func (c Counts) Check(classes int) error {
	if classes < 2 || classes > MaxClasses {
		return fmt.Errorf("counts of %d classes", classes)
	}
	if len(c.Confusion) != classes*classes {
		return fmt.Errorf("a confusion matrix of %d counts for %d classes", len(c.Confusion), classes)
	}
	rows := uint64(0)
	support := make([]uint64, classes)
	for i, n := range c.Confusion {
		if !addTo(&rows, n) {
			return errors.New("the confusion matrix overflows")
		}
		support[i/classes] += n // no more than rows
	}
	if rows != c.Rows {
		return fmt.Errorf("the confusion matrix holds %d rows, not %d", rows, c.Rows)
	}
	positives, err := totals(c.Positives, classes)
	if err != nil {
		return err
	}
	negatives, err := totals(c.Negatives, classes)
	if err != nil {
		return err
	}
	_, first := scored(classes)
	for h := range positives {
		if of := support[first+h]; positives[h] != of || negatives[h] != rows-of {
			return fmt.Errorf("the histograms of class %d do not hold the rows of the confusion matrix", first+h)
		}
	}
	return nil
}

// totals returns the sum of each of the packed histograms.
func totals(packed []byte, classes int) ([]uint64, error) {
	n, _ := scored(classes)
	sums := make([]uint64, n)
	fits := true
	err := unpack(packed, n*Bins, func(i int, n uint64) {
		fits = addTo(&sums[i/Bins], n) && fits
	})
	if err == nil && !fits {
		err = errors.New("a histogram overflows")
	}
	return sums, err
}

// Sum adds up counts of the same classes, exactly. It refuses those that do not
// pass [Counts.Check], differ in their classes, or have more than 2^64-1 rows
// together. The sum of none is the zero Counts, whose report has no rows.
func Sum(parts []Counts) (Counts, error) {
	if len(parts) == 0 {
		return Counts{}, nil
	}
	classes := int(math.Sqrt(float64(len(parts[0].Confusion))))
	var sum Counts
	n, _ := scored(classes)
	for i, c := range parts {
		if err := c.Check(classes); err != nil {
			return Counts{}, fmt.Errorf("sum: part %d: %w", i+1, err)
		}
		if !addTo(&sum.Rows, c.Rows) {
			return Counts{}, errors.New("sum: the number of rows overflows")
		}
	}
	// Every other number is at most the rows, so nothing below overflows.
	sum.Confusion = make([]uint64, classes*classes)
	positives := make([]uint64, n*Bins)
	negatives := make([]uint64, n*Bins)
	for _, c := range parts {
		for i, n := range c.Confusion {
			sum.Confusion[i] += n
		}
		if err := errors.Join(
			unpack(c.Positives, len(positives), func(i int, n uint64) { positives[i] += n }),
			unpack(c.Negatives, len(negatives), func(i int, n uint64) { negatives[i] += n }),
		); err != nil {
			return Counts{}, err // not after Check
		}
	}
	sum.Positives, sum.Negatives = pack(positives), pack(negatives)
	return sum, nil
}
