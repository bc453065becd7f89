package learn

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
)

// Errors are exact sums over rows of a numeric target, in fixed point: a target
// less the roster's mean, and a prediction less its target, in units of
// Unit/2^14, each rounded to an integer of at most 2^21. A sum of squares that
// does not fit is 2^64-1, which takes four million errors of 128 Units.
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

const (
	fraction  = 1 << 14 // of a Unit
	largest   = 1 << 21 // error or target in fixed point
	maxUnit   = 1e300   // so that no figure overflows
	maxValues = 1 << 42 // rows of a numeric target, so that no sum but of squares overflows
	saturated = math.MaxUint64
)

// fixed is a number of Units in fixed point. The product is exact, and what is
// too large, or no number, is the largest.
func fixed(x float64) int64 {
	x *= fraction
	if !(x < largest) {
		return largest
	}
	return int64(math.RoundToEven(max(x, -largest)))
}

// errorBin returns the bin of the size of an error: sizes below 256 have one each,
// and each octave above has 128.
func errorBin(size uint64) int {
	shift := max(bits.Len64(size)-8, 0)
	return min(shift<<7+int(size>>shift), Bins-1)
}

// errorSize is the middle of the sizes that fall into a bin.
func errorSize(bin int) float64 {
	from, to := errorSizes(bin)
	return float64(from+to) / 2
}

// errorSizes returns the smallest and the largest size that fall into a bin.
func errorSizes(bin int) (from, to uint64) {
	shift := max(bin>>7-1, 0)
	from = uint64(bin-shift<<7) << shift
	return from, from + 1<<shift - 1
}

// add adds the error of a row: prediction and target are in Units.
func (e *Errors) add(prediction, target float64) (size uint64) {
	t, d := fixed(target), fixed(prediction-target)
	size = uint64(max(d, -d))
	e.Absolute += size
	e.Squared = saturate(e.Squared, size*size)
	e.Target += t
	e.Spread = saturate(e.Spread, uint64(t*t))
	return size
}

// sum adds the sums of others of the same unit.
func (e *Errors) sum(o Errors) {
	e.Absolute += o.Absolute
	e.Squared = saturate(e.Squared, o.Squared)
	e.Target += o.Target
	e.Spread = saturate(e.Spread, o.Spread)
}

// saturate adds two sums of squares. The sum of many is the same in any order.
func saturate(a, b uint64) uint64 {
	if !addTo(&a, b) {
		return saturated
	}
	return a
}

// check refuses errors that no so many rows have.
func (e Errors) check(rows uint64) error {
	if !(e.Unit > 0 && e.Unit <= maxUnit) {
		return fmt.Errorf("the unit of errors is %g", e.Unit)
	}
	if rows > maxValues {
		return fmt.Errorf("%d rows of a numeric target; at most %d are possible", rows, uint64(maxValues))
	}
	// All rows are in the histogram, and between the ends of their bins.
	var total, least, most uint64
	err := unpack(e.Histogram, Bins, func(bin int, n uint64) {
		if !addTo(&total, n) || total > rows {
			total = math.MaxUint64
			return
		}
		from, to := errorSizes(bin)
		least += n * min(from, largest)
		most += n * min(to, largest)
	})
	switch {
	case err != nil:
		return err
	case total != rows:
		return fmt.Errorf("the histogram of errors does not hold %d rows", rows)
	case e.Absolute < least || e.Absolute > most:
		return errors.New("the sum of errors does not fit their histogram")
	case !squaresOf(e.Squared, e.Absolute, rows) || product(e.Absolute, largest).less(number{0, e.Squared}):
		return errors.New("the sum of squared errors does not fit that of errors")
	}
	target := uint64(max(e.Target, -e.Target))
	if e.Target == math.MinInt64 || target > rows*largest ||
		!squaresOf(e.Spread, target, rows) || product(rows, largest*largest).less(number{0, e.Spread}) {
		return errors.New("the sums of targets do not fit")
	}
	return nil
}

// squaresOf says whether so many integers with that sum can have that sum of
// squares: it is at least the sum, and, by Cauchy and Schwarz, at least the
// square of the sum over their number.
func squaresOf(squares, sum, n uint64) bool {
	return squares == saturated || squares >= sum && !product(n, squares).less(product(sum, sum))
}

// number is an unsigned integer of 128 bits.
type number struct{ high, low uint64 }

func product(a, b uint64) number {
	high, low := bits.Mul64(a, b)
	return number{high, low}
}

func (a number) less(b number) bool {
	return a.high < b.high || a.high == b.high && a.low < b.low
}

// minus returns a-b, which is not negative.
func (a number) minus(b number) number {
	low, borrow := bits.Sub64(a.low, b.low, 0)
	return number{a.high - b.high - borrow, low}
}

func (a number) float() float64 { return float64(a.high)*0x1p64 + float64(a.low) } // the product is exact

// report returns mean absolute error, root of the mean squared error and R²,
// which is nil where the target is constant. The errors have passed check, and
// there are rows.
func (e Errors) report(rows uint64) (mae, rmse float64, r2 *float64) {
	mae = float64(e.Absolute) / float64(rows) / fraction * e.Unit
	rmse = math.Sqrt(float64(e.Squared)/float64(rows)) / fraction * e.Unit
	if e.Spread == saturated || e.Squared == saturated {
		return mae, rmse, nil
	}
	target := uint64(max(e.Target, -e.Target))
	around := product(rows, e.Spread).minus(product(target, target)) // rows times the sum of squares around the mean
	if around == (number{}) {
		return mae, rmse, nil
	}
	v := 1 - product(rows, e.Squared).float()/around.float()
	return mae, rmse, &v
}
