package learn

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"village/protocol/dataset"
)

// off counts rows whose targets and predictions are in units of their deviation.
func off(unit float64, targets, predictions []float64) Counts {
	t := NewTally(Spec{Kind: Linear, Inputs: 1})
	t.Unit = unit
	t.Count([]float64{1, 0}, dataset.Samples{N: len(targets), D: 1, X: predictions, T: targets})
	return t.Counts()
}

// The expected numbers are those of scikit-learn's documentation of
// mean_absolute_error, mean_squared_error and r2_score.
func TestErrorsAreScikitLearns(t *testing.T) {
	const mean, unit = 3, 2
	scaled := func(xs ...float64) []float64 {
		for i := range xs {
			xs[i] = (xs[i] - mean) / unit
		}
		return xs
	}
	c := off(unit, scaled(3, -.5, 2, 7), scaled(2.5, 0, 2, 8))
	if err := c.Check(0, 0); err != nil {
		t.Fatal(err)
	}
	r := c.Report(nil, "")
	if got, want := []float64{*r.MAE, *r.RMSE, *r.R2}, []float64{.5, math.Sqrt(.375), .9486081370449679}; !near(got, want, 1e-15) {
		t.Errorf("%v, want %v", got, want)
	}
	if r.Rows != 4 || r.Accuracy != nil || r.F1 != nil || r.ROCAUC != nil || len(r.Classes) != 0 {
		t.Errorf("a numeric target has figures of classes: %+v", r)
	}
	if c = off(1, []float64{2, 2}, []float64{1, 3}); c.Report(nil, "").R2 != nil {
		t.Error("a constant target has an R2")
	}
	if r = off(1, nil, nil).Report(nil, ""); r.MAE != nil || r.RMSE != nil || r.R2 != nil {
		t.Error("no rows have errors")
	}
}

func TestErrorsAreRoundedAndBounded(t *testing.T) {
	e := off(1, []float64{1. / (1 << 15), -3. / (1 << 15), 1e300, -1e300, -200}, []float64{0, 0, 0, 0, math.Inf(1)}).Errors
	// Of ties the even one; the last three are the largest.
	if e.Absolute != 0+2+3*largest || e.Squared != 4+3*largest*largest || e.Target != 0-2-largest || e.Spread != 4+3*largest*largest {
		t.Errorf("%+v", e)
	}
	for _, x := range []float64{math.NaN(), math.Inf(1), 128} {
		if fixed(x) != largest {
			t.Errorf("%v is %d", x, fixed(x))
		}
	}
}

func TestErrorBins(t *testing.T) {
	last := -1
	for size := uint64(0); size <= largest; size++ {
		b := errorBin(size)
		if from, to := errorSizes(b); size < from || size > to || b < last || b > last+1 || float64(to-from) > float64(from)/128 {
			t.Fatalf("size %d is in bin %d of %d to %d", size, b, from, to)
		}
		last = b
	}
	if last >= Bins {
		t.Errorf("bin %d", last)
	}
}

// Sums of squares do not fit where four million errors are the largest; then they
// are the largest number, in whatever order they were added.
func TestErrorsAreSummedInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var parts []Counts
		for range rapid.IntRange(1, 6).Draw(t, "parts") {
			n := rapid.Uint64Range(1, 1<<40).Draw(t, "rows")
			size := rapid.Uint64Range(0, largest).Draw(t, "size")
			square := product(n, size*size)
			if square.high > 0 {
				square.low = saturated
			}
			hist := make([]uint64, Bins)
			hist[errorBin(size)] = n
			parts = append(parts, Counts{Rows: n, Errors: &Errors{
				Unit: 2, Absolute: n * size, Squared: square.low, Target: -int64(n * size), Spread: square.low, Histogram: pack(hist),
			}})
		}
		sum := func(parts ...Counts) Counts {
			s, err := Sum(parts)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Check(0, 0); err != nil {
				t.Fatal(err)
			}
			return s
		}
		all := sum(parts...)
		other := slices.Clone(parts)
		slices.Reverse(other)
		if got := sum(other...); !reflect.DeepEqual(got, all) {
			t.Fatalf("%+v in another order is %+v", all, got)
		}
		if len(parts) > 1 {
			if got := sum(parts[0], sum(other[:len(other)-1]...)); !reflect.DeepEqual(got, all) {
				t.Fatalf("%+v grouped is %+v", all, got)
			}
		}
		if _, err := json.Marshal(all.Detailed(nil, "", "", nil)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestATallyOfErrorsIsTheSumOfCounts(t *testing.T) {
	x := []float64{.5, -1, 2.25, 130, 0, .001}
	y := []float64{0, 1, 2.5, -130, 0, 0}
	all := off(3, y, x)
	sum, err := Sum([]Counts{off(3, y[4:], x[4:]), off(3, y[:4], x[:4]), off(3, nil, nil)})
	if err != nil || !reflect.DeepEqual(sum, all) {
		t.Errorf("%+v is not %+v: %v", sum, all, err)
	}
	total, scratch := NewTally(Spec{Kind: Linear, Inputs: 1}), NewTally(Spec{Kind: Linear, Inputs: 1})
	scratch.Unit = 3
	for i := range x {
		scratch.Reset()
		scratch.Count([]float64{1, 0}, dataset.Samples{N: 1, D: 1, X: x[i : i+1], T: y[i : i+1]})
		total.Add(scratch)
	}
	if got := total.Counts(); !reflect.DeepEqual(got, all) {
		t.Errorf("the tally is %+v, not %+v", got, all)
	}
}

func TestSumRefusesOtherErrors(t *testing.T) {
	few := off(1, []float64{1}, []float64{2})
	for name, other := range map[string]Counts{
		"another unit": off(2, []float64{1}, []float64{2}),
		"classes":      tally(2, []int{1}, binary2(.3)),
		"none":         {},
		"many rows": {Rows: maxValues, Errors: &Errors{
			Unit: 1, Histogram: pack([]uint64{maxValues}),
		}},
	} {
		for _, parts := range [][]Counts{{few, other}, {other, few}} {
			if sum, err := Sum(parts); err == nil {
				t.Errorf("%s: gave %+v", name, sum)
			}
		}
	}
}

func TestCheckRefusesErrors(t *testing.T) {
	good := func() Counts { return off(2, []float64{1, -1, .5}, []float64{0, 0, 2}) }
	if err := good().Check(0, 3); err != nil {
		t.Fatal(err)
	}
	const most = math.MaxUint64
	for name, c := range map[string]struct {
		change func(*Counts, *Errors)
		want   string
	}{
		"rows":           {func(c *Counts, e *Errors) { c.Rows++ }, "histogram"},
		"all rows":       {func(c *Counts, e *Errors) { c.Rows = most }, "rows"},
		"no errors":      {func(c *Counts, e *Errors) { c.Errors = nil }, "without"},
		"a matrix":       {func(c *Counts, e *Errors) { c.Confusion = []uint64{3} }, "classes"},
		"groups":         {func(c *Counts, e *Errors) { c.Groups = []uint64{0} }, "classes"},
		"a histogram":    {func(c *Counts, e *Errors) { c.Negatives = e.Histogram }, "classes"},
		"unit 0":         {func(c *Counts, e *Errors) { e.Unit = 0 }, "unit"},
		"unit below 0":   {func(c *Counts, e *Errors) { e.Unit = -1 }, "unit"},
		"unit NaN":       {func(c *Counts, e *Errors) { e.Unit = math.NaN() }, "unit"},
		"unit infinite":  {func(c *Counts, e *Errors) { e.Unit = math.Inf(1) }, "unit"},
		"unit too large": {func(c *Counts, e *Errors) { e.Unit = 1e301 }, "unit"},
		"error of bin":   {func(c *Counts, e *Errors) { e.Absolute += 1 << 9 }, "histogram"},
		"smaller error":  {func(c *Counts, e *Errors) { e.Absolute -= 1 << 9 }, "histogram"},
		"all errors":     {func(c *Counts, e *Errors) { e.Absolute = most }, "histogram"},
		"few squares":    {func(c *Counts, e *Errors) { e.Squared = e.Absolute * e.Absolute / 3 }, "squared"},
		"no squares":     {func(c *Counts, e *Errors) { e.Squared = 0 }, "squared"},
		"many squares":   {func(c *Counts, e *Errors) { e.Squared = e.Absolute*largest + 1 }, "squared"},
		"small squares": {func(c *Counts, e *Errors) {
			c.Rows, *e = 4, Errors{Unit: 1, Absolute: 2, Squared: 1, Histogram: pack([]uint64{2, 2})}
		}, "squared"},
		"all squares":    {func(c *Counts, e *Errors) { e.Squared = most }, "squared"},
		"target":         {func(c *Counts, e *Errors) { e.Target = 3*largest + 1; e.Spread = most }, "targets"},
		"least target":   {func(c *Counts, e *Errors) { e.Target = math.MinInt64; e.Spread = most }, "targets"},
		"no spread":      {func(c *Counts, e *Errors) { e.Spread = 0 }, "targets"},
		"all spread":     {func(c *Counts, e *Errors) { e.Spread = most }, "targets"},
		"two histograms": {func(c *Counts, e *Errors) { e.Histogram = slices.Concat(e.Histogram, e.Histogram) }, "histogram"},
		"overflow":       {func(c *Counts, e *Errors) { e.Histogram = pack([]uint64{2, most, 2}) }, "histogram"},
		"no histogram":   {func(c *Counts, e *Errors) { e.Histogram = nil }, "histogram"},
		"a cut one":      {func(c *Counts, e *Errors) { e.Histogram = []byte{0x80} }, "packed"},
	} {
		counts := good()
		c.change(&counts, counts.Errors)
		if err := counts.Check(0, 0); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
		if r := counts.Report(nil, ""); r.Rows != 0 || r.MAE != nil {
			t.Errorf("%s is reported: %+v", name, r)
		}
	}
	if err := good().Check(2, 0); err == nil {
		t.Error("errors passed for two classes")
	}
	mixed := tally(2, []int{1}, binary2(.5))
	mixed.Errors = good().Errors
	if err := mixed.Check(2, 0); err == nil {
		t.Error("errors beside a confusion matrix passed")
	}
}

// Counts as they may come from anybody are refused, or are of some rows.
func FuzzErrors(f *testing.F) {
	c := off(2, []float64{1, -1, .5, .25, 0, 3}, []float64{0, 0, 2, 1, 5, -.75})
	f.Add(c.Rows, c.Errors.Unit, c.Errors.Absolute, c.Errors.Squared, c.Errors.Target, c.Errors.Spread, c.Errors.Histogram)
	f.Add(uint64(1<<30), 1e-320, uint64(1<<51), uint64(math.MaxUint64), int64(-1<<51), uint64(math.MaxUint64), pack(append(make([]uint64, 1920), 1<<30)))
	f.Fuzz(func(t *testing.T, rows uint64, unit float64, absolute, squared uint64, target int64, spread uint64, histogram []byte) {
		c := Counts{Rows: rows, Errors: &Errors{
			Unit: unit, Absolute: absolute, Squared: squared, Target: target, Spread: spread, Histogram: histogram,
		}}
		if c.Check(0, 0) != nil {
			return
		}
		sum, err := Sum([]Counts{c})
		if err != nil || !reflect.DeepEqual(*sum.Errors, *c.Errors) && len(histogram) > 0 {
			t.Fatalf("the sum of one is %+v: %v", sum.Errors, err)
		}
		r := c.Detailed(nil, "", "", nil)
		if _, err := json.Marshal(r); err != nil {
			t.Fatal(err)
		}
		if v := r.Intervals; r.Rows >= minErrors && (r.MAE == nil || v.MAE[0] > *r.MAE || v.MAE[1] < *r.MAE || v.RMSE[0] > *r.RMSE || v.RMSE[1] < *r.RMSE) {
			t.Fatalf("%+v %+v", r, v)
		}
	})
}
