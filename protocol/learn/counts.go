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

// scored returns the number of classes that have a pair of histograms, and the
// first of them.
func scored(classes int) (n, first int) {
	if classes == 2 {
		return 1, 1
	}
	return classes, 0
}

// Count runs the model over rows whose target is known: what a new [Tally] of
// no groups and of the unit 1 counts. Params and data fit the spec, else it
// panics.
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
	// Unit is the standard deviation by which a numeric target was scaled, 1
	// in a new tally.
	Unit float64

	spec                 Spec
	confusion, groups    []uint64
	positives, negatives []uint64
	rows                 uint64
	errors               Errors   // of a numeric target, all but Unit and Histogram
	sizes                []uint64 // of errors, by bin
	work                 Scratch
}

// NewTally returns an empty tally of models of a shape.
func NewTally(s Spec) *Tally {
	t := &Tally{Unit: 1, spec: s, confusion: make([]uint64, s.Classes*s.Classes)}
	if s.Classes == 0 {
		t.sizes = make([]uint64, Bins)
		return t
	}
	n, _ := scored(s.Classes)
	t.positives, t.negatives = make([]uint64, n*Bins), make([]uint64, n*Bins)
	return t
}

// Groups makes an empty tally tell so many groups of a sensitive column apart.
// Those of a numeric target are not.
func (t *Tally) Groups(n int) { t.groups = make([]uint64, n*len(t.confusion)) }

// Of makes the tally count models of another shape, of the same outputs.
func (t *Tally) Of(s Spec) { t.spec = s }

// Count adds the rows. The predicted class is the most probable one, of equal
// ones the first.
func (t *Tally) Count(params []float64, data dataset.Samples) {
	s := t.spec
	t.rows += uint64(data.N)
	if s.Classes == 0 {
		s.predictEach(params, data, &t.work, func(i int, p []float64) {
			t.sizes[errorBin(t.errors.add(p[0], data.T[i]))]++
		})
		return
	}
	n, first := scored(s.Classes)
	s.predictEach(params, data, &t.work, func(i int, p []float64) {
		y := data.Y[i]
		cell := y*s.Classes + top(p)
		t.confusion[cell]++
		if len(t.groups) > 0 && data.G[i] >= 0 {
			t.groups[data.G[i]*len(t.confusion)+cell]++
		}
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

// top returns the index of the largest number, of equal ones the first.
func top(p []float64) int {
	best := 0
	for c := range p {
		if p[c] > p[best] {
			best = c
		}
	}
	return best
}

// Add adds the counts of another tally of the same shape and groups, and takes its
// unit, which is the same for all that are added.
func (t *Tally) Add(other *Tally) {
	for _, sum := range []struct{ to, of []uint64 }{
		{t.confusion, other.confusion}, {t.groups, other.groups}, {t.sizes, other.sizes},
		{t.positives, other.positives}, {t.negatives, other.negatives},
	} {
		for i, n := range sum.of {
			sum.to[i] += n
		}
	}
	t.Unit = other.Unit
	t.rows += other.rows
	t.errors.sum(other.errors)
}

// Reset makes the tally empty.
func (t *Tally) Reset() {
	clear(t.confusion)
	clear(t.groups)
	clear(t.positives)
	clear(t.negatives)
	clear(t.sizes)
	t.rows, t.errors = 0, Errors{}
}

// Counts are those of all that was added.
func (t *Tally) Counts() Counts {
	c := Counts{Rows: t.rows, Confusion: slices.Clone(t.confusion), Positives: pack(t.positives), Negatives: pack(t.negatives)}
	if len(t.groups) > 0 {
		c.Groups = slices.Clone(t.groups)
	}
	if t.spec.Classes == 0 {
		e := t.errors
		e.Unit, e.Histogram = t.Unit, pack(t.sizes)
		c.Errors = &e
	}
	return c
}

// Compare counts the rows whose class only the model, or only the old one, gets
// right: both are 0 where the target is numeric. The two samples are the same
// rows, as each of the models is to see them; the classes are those of data.
func (s Spec) Compare(old Spec, oldParams, params []float64, oldData, data dataset.Samples) (better, worse uint64) {
	if s.Classes == 0 {
		return 0, 0
	}
	var work Scratch
	right := make([]bool, data.N) // of the old model
	old.predictEach(oldParams, oldData, &work, func(i int, p []float64) { right[i] = top(p) == data.Y[i] })
	s.predictEach(params, data, &work, func(i int, p []float64) {
		switch now := top(p) == data.Y[i]; {
		case now && !right[i]:
			better++
		case right[i] && !now:
			worse++
		}
	})
	return better, worse
}

// Check refuses counts that no model of so many classes, 0 for a numeric target,
// can have given on any rows of so many groups, 0 without a sensitive column.
// Counts of a peer pass it before they are summed.
func (c Counts) Check(classes, groups int) error {
	if classes == 0 {
		return c.checkErrors()
	}
	if classes < 2 || classes > MaxClasses {
		return fmt.Errorf("counts of %d classes", classes)
	}
	if c.Errors != nil {
		return fmt.Errorf("errors of a numeric target for %d classes", classes)
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
	if err := c.checkGroups(groups); err != nil {
		return err
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

func (c Counts) checkErrors() error {
	switch {
	case c.Errors == nil:
		return errors.New("counts of a numeric target without its errors")
	case len(c.Confusion)+len(c.Groups)+len(c.Positives)+len(c.Negatives) > 0:
		return errors.New("counts of classes for a numeric target")
	}
	return c.Errors.check(c.Rows)
}

// checkGroups refuses groups' matrices that hold more rows of a cell than there
// are: a row is of one group, or of none. The matrix of all rows was checked.
func (c Counts) checkGroups(groups int) error {
	if len(c.Groups) == 0 && groups == 0 {
		return nil
	}
	k := len(c.Confusion)
	if len(c.Groups)/k != groups || len(c.Groups)%k != 0 {
		return fmt.Errorf("%d counts by group for %d groups", len(c.Groups), groups)
	}
	for cell, left := range c.Confusion {
		for i := cell; i < len(c.Groups); i += k {
			if c.Groups[i] > left {
				return errors.New("the groups hold more rows than the confusion matrix")
			}
			left -= c.Groups[i]
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

// shape returns the numbers of classes and groups of counts that have passed
// [Counts.Check], and with which others cannot.
func (c Counts) shape() (classes, groups int) {
	if len(c.Confusion) == 0 {
		return 0, 0
	}
	return int(math.Sqrt(float64(len(c.Confusion)))), len(c.Groups) / len(c.Confusion)
}

// Sum adds up counts of the same classes and groups, exactly. It refuses those
// that do not pass [Counts.Check], differ in their shape or unit, or have too
// many rows together. The sum of none is the zero Counts, whose report has no
// rows.
func Sum(parts []Counts) (Counts, error) {
	if len(parts) == 0 {
		return Counts{}, nil
	}
	classes, groups := parts[0].shape()
	var rows uint64
	for i, c := range parts {
		if err := c.Check(classes, groups); err != nil {
			return Counts{}, fmt.Errorf("sum: part %d: %w", i+1, err)
		}
		if !addTo(&rows, c.Rows) || classes == 0 && rows > maxValues {
			return Counts{}, errors.New("sum: the number of rows overflows")
		}
	}
	// Every other number but sums of squares is bounded by the rows, so nothing
	// below overflows.
	sum := NewTally(Spec{Classes: classes})
	sum.Groups(groups)
	sum.rows = rows
	for i, c := range parts {
		if e := c.Errors; e != nil {
			if i > 0 && e.Unit != sum.Unit {
				return Counts{}, fmt.Errorf("sum: part %d: errors in units of %g and %g", i+1, e.Unit, sum.Unit)
			}
			sum.Unit = e.Unit
			sum.errors.sum(*e)
			if err := unpack(e.Histogram, Bins, func(i int, n uint64) { sum.sizes[i] += n }); err != nil {
				return Counts{}, err // not after Check
			}
		}
		for i, n := range c.Confusion {
			sum.confusion[i] += n
		}
		for i, n := range c.Groups {
			sum.groups[i] += n
		}
		if err := errors.Join(
			unpack(c.Positives, len(sum.positives), func(i int, n uint64) { sum.positives[i] += n }),
			unpack(c.Negatives, len(sum.negatives), func(i int, n uint64) { sum.negatives[i] += n }),
		); err != nil {
			return Counts{}, err // not after Check
		}
	}
	return sum.Counts(), nil
}
