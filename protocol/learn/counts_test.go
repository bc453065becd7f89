package learn

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"village/protocol/dataset"
)

// tally counts rows that were given these probabilities: by a model whose
// scores are the logarithms of its inputs' probabilities.
func tally(classes int, y []int, p []float64) Counts {
	s := Spec{Kind: Softmax, Inputs: classes, Classes: classes}
	params := make([]float64, s.Params())
	for c := range classes {
		params[c*classes+c] = 1
	}
	x := make([]float64, len(p))
	for i := range p {
		x[i] = max(math.Log(p[i]), -1e6)
	}
	return s.Count(params, dataset.Samples{N: len(y), D: classes, X: x, Y: y})
}

// binary2 completes probabilities of class 1.
func binary2(p ...float64) (both []float64) {
	for _, p := range p {
		both = append(both, 1-p, p)
	}
	return both
}

// The expected numbers are scikit-learn's (1.9.1): classification_report with
// all labels and zero_division=0, confusion_matrix, roc_auc_score; with four
// classes the mean of roc_auc_score over those that have rows on both sides.
func TestReportIsScikitLearns(t *testing.T) {
	type row = [4]float64 // precision, recall, f1, support
	for name, c := range map[string]struct {
		labels          []string
		y               []int
		p               []float64
		confusion       []uint64
		classes         []row
		macro, weighted row
		accuracy, auc   float64
		f1              float64
	}{
		"binary 12": {
			labels: []string{"no", "yes"},
			y:      []int{1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1},
			p:      binary2(.9375, .625, .6875, .875, .5625, .75, .8125, .25, .0625, .3125, .3125, .875),

			confusion: []uint64{4, 5, 0, 3},
			classes:   []row{{1, .4444444444444444, .6153846153846154, 9}, {.375, 1, .5454545454545454, 3}},
			macro:     row{.6875, .7222222222222222, .5804195804195804, 12},
			weighted:  row{.84375, .5833333333333334, .5979020979020979, 12},
			accuracy:  .5833333333333334, auc: .7962962962962963, f1: .5454545454545454,
		},
		"binary 20, ties at one half": {
			labels: []string{"no", "yes"},
			y:      []int{0, 0, 0, 1, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 1},
			p: binary2(.25, .5, .375, .25, .9375, .0625, .125, .1875, .9375, .6875,
				.875, .25, .6875, .375, .5, .0625, .625, .8125, .625, .1875),
			confusion: []uint64{8, 3, 4, 5},
			classes: []row{{.6666666666666666, .7272727272727273, .6956521739130435, 11},
				{.625, .5555555555555556, .5882352941176471, 9}},
			macro:    row{.6458333333333333, .6414141414141414, .6419437340153453, 20},
			weighted: row{.6479166666666666, .65, .6473145780051152, 20},
			accuracy: .65, auc: .6414141414141414, f1: .5882352941176471,
		},
		"never positive": {
			labels:    []string{"no", "yes"},
			y:         []int{0, 1, 0, 1, 0},
			p:         binary2(.03125, .0625, .09375, .15625, .28125),
			confusion: []uint64{3, 0, 2, 0},
			classes:   []row{{.6, 1, .75, 3}, {0, 0, 0, 2}},
			macro:     row{.3, .5, .375, 5},
			weighted:  row{.36, .6, .45, 5},
			accuracy:  .6, auc: .5, f1: 0,
		},
		"four classes, one without rows": {
			labels: []string{"a", "b", "c", "d"},
			y:      []int{0, 0, 0, 0, 2, 1, 0, 0, 1, 1, 0, 2, 2, 1, 2},
			p: []float64{.1875, .5, .125, .1875, .1875, .5, .125, .1875, .3125, .25, .25, .1875, .1875, .1875, .1875, .4375,
				.3125, .3125, .25, .125, .375, .0625, .3125, .25, .125, .25, .125, .5, .3125, .25, .1875, .25,
				.4375, .1875, .1875, .1875, .375, .25, .1875, .1875, .375, .375, .1875, .0625, .5, 0, .1875, .3125,
				.375, .1875, .25, .1875, .375, .0625, .25, .3125, .375, .25, .125, .25},
			confusion: []uint64{3, 2, 0, 2, 4, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0},
			classes: []row{{.2727272727272727, .42857142857142855, .3333333333333333, 7},
				{0, 0, 0, 4}, {0, 0, 0, 4}, {0, 0, 0, 0}},
			macro:    row{.06818181818181818, .10714285714285714, .08333333333333333, 15},
			weighted: row{.12727272727272726, .2, .15555555555555553, 15},
			accuracy: .2, auc: .28436147186147187, f1: .08333333333333333,
		},
	} {
		counts := tally(len(c.labels), c.y, c.p)
		if err := counts.Check(len(c.labels), 0); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !slices.Equal(counts.Confusion, c.confusion) {
			t.Errorf("%s: confusion %v, want %v", name, counts.Confusion, c.confusion)
		}
		r := counts.Report(c.labels, "yes")
		if !slices.Equal(slices.Concat(r.Confusion...), c.confusion) {
			t.Errorf("%s: reported confusion %v", name, r.Confusion)
		}
		got := []float64{*r.Accuracy, *r.F1, *r.ROCAUC}
		want := []float64{c.accuracy, c.f1, c.auc}
		for i, class := range r.Classes {
			if class.Label != c.labels[i] {
				t.Errorf("%s: class %d is called %q", name, i, class.Label)
			}
			got = append(got, class.Precision, class.Recall, class.F1, float64(class.Support))
			want = append(want, c.classes[i][:]...)
		}
		for _, a := range []Average{r.Macro, r.Weighted, r.Micro} {
			got = append(got, a.Precision, a.Recall, a.F1, float64(a.Support))
		}
		want = slices.Concat(want, c.macro[:], c.weighted[:], []float64{c.accuracy, c.accuracy, c.accuracy, float64(len(c.y))})
		if !near(got, want, 1e-15) {
			t.Errorf("%s:\n%v, want\n%v", name, got, want)
		}
	}
}

func TestF1IsThatOfThePositiveClass(t *testing.T) {
	c := tally(2, []int{0, 0, 0, 1}, binary2(.1, .2, .9, .8))
	for positive, want := range map[string]float64{"a": .8, "b": 2. / 3, "": (.8 + 2./3) / 2} {
		if got := *c.Report([]string{"a", "b"}, positive).F1; math.Abs(got-want) > 1e-15 {
			t.Errorf("positive %q: %v, want %v", positive, got, want)
		}
	}
	r := tally(3, []int{0, 1}, []float64{1, 0, 0, 0, 0, 1}).Report([]string{"a", "b", "c"}, "a")
	if *r.F1 != r.Macro.F1 || math.Abs(*r.F1-1./3) > 1e-15 {
		t.Errorf("three classes: %v, want the macro average %v", *r.F1, r.Macro.F1)
	}
}

func TestUndefinedIsNull(t *testing.T) {
	labels := []string{"a", "b"}
	for name, c := range map[string]struct {
		counts   Counts
		rows     string
		accuracy string
	}{
		"zero":      {Counts{}, `"rows":0,`, `"accuracy":null,"f1":null,"roc_auc":null`},
		"no rows":   {tally(2, nil, nil), `"rows":0,`, `"accuracy":null,"f1":null,"roc_auc":null`},
		"malformed": {Counts{Rows: 7, Confusion: []uint64{7}}, `"rows":0,`, `"accuracy":null,"f1":null,"roc_auc":null`},
		"one class": {tally(2, []int{1, 1}, binary2(.1, .9)), `"rows":2,`, `"accuracy":0.5,"f1":0.6666666666666666,"roc_auc":null`},
	} {
		b, err := json.Marshal(c.counts.Report(labels, "b"))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), c.rows+c.accuracy) || !strings.Contains(string(b), `"label":"b"`) {
			t.Errorf("%s: %s", name, b)
		}
	}
}

func TestBinsAreInOrder(t *testing.T) {
	for p, want := range map[float64]int{
		0: 0, 5e-324: 0, 1: Bins - 1, 1 - 1e-16: Bins - 1, .5: Bins / 2, .8: Bins * 2 / 3, .1: Bins / 4, 1. / 16384: 15,
	} {
		if got := bin(p); got != want {
			t.Errorf("bin(%v) = %d, want %d", p, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.Float64Range(0, 1).Draw(t, "p")
		q := rapid.OneOf(rapid.Float64Range(0, 1), rapid.Just(math.Nextafter(p, 0))).Draw(t, "q")
		if p < q {
			p, q = q, p
		}
		if bin(p) < bin(q) {
			t.Fatalf("bin(%v) < bin(%v)", p, q)
		}
	})
}

// exactAUC compares every positive with every negative.
func exactAUC(y []int, p []float64) float64 {
	var won, pairs float64
	for i, a := range y {
		for j, b := range y {
			if a == 1 && b == 0 {
				pairs++
				if p[2*i+1] > p[2*j+1] {
					won++
				} else if p[2*i+1] == p[2*j+1] {
					won += .5
				}
			}
		}
	}
	return won / pairs
}

func TestAUCOfHistogramsIsClose(t *testing.T) {
	s := Spec{Kind: Logistic, Inputs: 60, Classes: 2} // the scores spread by scale x √60
	for name, c := range map[string]struct {
		rows, seeds        int
		scale, bias, limit float64
	}{
		"like the heart hospitals": {254, 200, .26, 0, 3e-4},
		"scores all near one half": {2000, 5, .02, 0, 3e-4},
		"scores near 0 and 1":      {2000, 5, 1, 0, 3e-4},
		"one positive in 250":      {4000, 5, .13, -6, 2e-3},
	} {
		worst := 0.0
		for seed := range c.seeds {
			truth, data := random(s, c.rows, uint64(seed), c.scale, c.bias)
			r := s.Count(truth, data).Report([]string{"0", "1"}, "1")
			if r.ROCAUC != nil {
				worst = max(worst, math.Abs(*r.ROCAUC-exactAUC(data.Y, s.Predict(truth, data))))
			}
		}
		t.Logf("%s: off by at most %.1e", name, worst)
		if worst > c.limit {
			t.Errorf("%s: off by %v", name, worst)
		}
	}
}

// drawCounts returns the counts of up to 30 rows, and the rows.
func drawCounts(t *rapid.T, classes int) (Counts, []int, []float64) {
	y := rapid.SliceOfN(rapid.IntRange(0, classes-1), 0, 30).Draw(t, "y")
	p := make([]float64, 0, len(y)*classes)
	for range y {
		row := rapid.SliceOfN(rapid.IntRange(0, 9), classes, classes).Draw(t, "p")
		row[0]++
		sum := 0
		for _, n := range row {
			sum += n
		}
		for _, n := range row {
			p = append(p, float64(n)/float64(sum))
		}
	}
	return tally(classes, y, p), y, p
}

func TestSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		classes := rapid.IntRange(2, 4).Draw(t, "classes")
		sum := func(parts ...Counts) Counts {
			s, err := Sum(parts)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Check(classes, 0); err != nil {
				t.Fatal(err)
			}
			return s
		}
		a, ya, pa := drawCounts(t, classes)
		b, yb, pb := drawCounts(t, classes)
		c, yc, pc := drawCounts(t, classes)
		all := sum(a, b, c)
		for name, other := range map[string]Counts{
			"of all rows at once": tally(classes, slices.Concat(ya, yb, yc), slices.Concat(pa, pb, pc)),
			"in another order":    sum(c, a, b),
			"grouped":             sum(a, sum(b, c)),
		} {
			if !reflect.DeepEqual(all, other) {
				t.Fatalf("%v is not the sum %s: %v", all, name, other)
			}
		}
		if _, err := json.Marshal(all.Report(make([]string, classes), "")); err != nil {
			t.Fatal(err)
		}
	})
}

func TestSumRefuses(t *testing.T) {
	few := tally(2, []int{0, 1}, binary2(.1, .9))
	most := Counts{Rows: math.MaxUint64, Confusion: []uint64{math.MaxUint64, 0, 0, 0}, Negatives: pack([]uint64{math.MaxUint64})}
	for name, parts := range map[string][]Counts{
		"overflow":      {most, few},
		"other classes": {few, tally(3, []int{0}, []float64{1, 0, 0})},
		"zero beside":   {few, {}},
		"zero":          {{}},
		"malformed":     {{Rows: 2, Confusion: few.Confusion}},
		"not square":    {{Confusion: make([]uint64, 5)}},
	} {
		if sum, err := Sum(parts); err == nil {
			t.Errorf("%s: gave %v", name, sum)
		}
	}
	if sum, err := Sum([]Counts{most}); err != nil || sum.Rows != math.MaxUint64 {
		t.Errorf("the largest: %v %v", sum, err)
	}
	if sum, err := Sum(nil); err != nil || sum.Rows != 0 {
		t.Errorf("none: %v %v", sum, err)
	}
}

func TestCheckRefuses(t *testing.T) {
	good := func() Counts { return tally(2, []int{0, 1, 1}, binary2(.1, .9, .2)) }
	if err := good().Check(2, 0); err != nil {
		t.Fatal(err)
	}
	const most = math.MaxUint64
	for name, c := range map[string]struct {
		change func(*Counts)
		want   string
	}{
		"rows":             {func(c *Counts) { c.Rows++ }, "not 4"},
		"short matrix":     {func(c *Counts) { c.Confusion = c.Confusion[:3] }, "confusion matrix of 3"},
		"moved row":        {func(c *Counts) { c.Confusion[0]--; c.Confusion[3]++ }, "histograms"},
		"matrix overflow":  {func(c *Counts) { c.Confusion = []uint64{2, 1, most, 1} }, "overflow"},
		"no positives":     {func(c *Counts) { c.Positives = nil }, "histograms"},
		"exchanged":        {func(c *Counts) { c.Positives, c.Negatives = c.Negatives, c.Positives }, "histograms"},
		"overflow":         {func(c *Counts) { c.Positives = pack([]uint64{most, 3}) }, "overflow"},
		"cut run":          {func(c *Counts) { c.Negatives = []byte{4} }, "packed"},
		"cut varint":       {func(c *Counts) { c.Negatives = []byte{0x80} }, "packed"},
		"zero count":       {func(c *Counts) { c.Negatives = []byte{0, 0, 0, 1} }, "packed"},
		"long gap":         {func(c *Counts) { c.Negatives = []byte{0x80, 0, 1} }, "packed"},
		"long count":       {func(c *Counts) { c.Negatives = []byte{0, 0x81, 0} }, "packed"},
		"past the end":     {func(c *Counts) { c.Negatives = append(binary.AppendUvarint(nil, Bins), 1) }, "packed"},
		"far past the end": {func(c *Counts) { c.Negatives = append(binary.AppendUvarint(nil, most), 1) }, "packed"},
		"second past":      {func(c *Counts) { c.Negatives = append(binary.AppendUvarint(nil, Bins-1), 1, 0, 1) }, "packed"},
		"65-bit varint":    {func(c *Counts) { c.Negatives = append(bytes.Repeat([]byte{0xff}, 9), 2, 1) }, "packed"},
	} {
		counts := good()
		c.change(&counts)
		if err := counts.Check(2, 0); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
	for _, classes := range []int{-1, 0, 1, 3, MaxClasses + 1, math.MaxInt} {
		if err := good().Check(classes, 0); err == nil {
			t.Errorf("two classes passed for %d", classes)
		}
	}
	three := tally(3, []int{0, 1}, []float64{1, 0, 0, 0, 1, 0})
	three.Positives = pack([]uint64{2: 2}) // of class 0, one for each class
	if err := three.Check(3, 0); err == nil {
		t.Error("a positive in the histogram of another class passed")
	}
}

// The counts of a hospital fit into a gossiped record many times over.
func TestCountsAreSmall(t *testing.T) {
	s := Spec{Kind: Logistic, Inputs: 4, Classes: 2}
	for rows, limit := range map[int]int{254: 700, 1_000_000: 16 << 10} {
		truth, data := random(s, rows, 1, .9, 0)
		c := s.Count(truth, data)
		if n := len(c.Positives) + len(c.Negatives); n > limit {
			t.Errorf("%d bytes for %d rows", n, rows)
		}
	}
}

func FuzzCounts(f *testing.F) {
	c := tally(3, []int{0, 1, 2, 2}, []float64{.5, .25, .25, .1, .8, .1, .3, .3, .4, 0, 0, 1})
	f.Add(byte(3), c.Positives, c.Negatives)
	c = tally(2, []int{0, 1, 1}, binary2(.1, .9, .2))
	f.Add(byte(2), c.Positives, c.Negatives)
	f.Add(byte(2), []byte{0x80, 0, 1}, []byte{0, 0x81, 0})
	f.Fuzz(func(t *testing.T, classes byte, positives, negatives []byte) {
		n, first := scored(int(classes))
		if classes < 2 {
			return
		}
		hist := make([]uint64, n*Bins)
		if unpack(positives, len(hist), func(i int, n uint64) { hist[i] = n }) != nil {
			return
		}
		if !bytes.Equal(pack(hist), positives) {
			t.Fatal("two encodings of one histogram")
		}
		// The confusion matrix that fits the positives, all predicted as 0.
		k := int(classes)
		c := Counts{Confusion: make([]uint64, k*k), Positives: positives, Negatives: negatives}
		for i, n := range hist {
			c.Confusion[(first+i/Bins)*k] += n
		}
		for _, n := range c.Confusion {
			c.Rows += n
		}
		if c.Check(k, 0) != nil {
			return
		}
		sum, err := Sum([]Counts{c})
		if err != nil || !reflect.DeepEqual(sum.Confusion, c.Confusion) || !bytes.Equal(sum.Negatives, negatives) {
			t.Fatalf("the sum of one is another: %v %v", sum, err)
		}
		if _, err := json.Marshal(c.Report(make([]string, k), "")); err != nil {
			t.Fatal(err)
		}
	})
}

func TestATallyIsTheSumOfCounts(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, spec := range []Spec{{Kind: Logistic, Inputs: 3, Classes: 2}, {Kind: Softmax, Inputs: 3, Classes: 4}} {
		var parts []Counts
		all, scratch := NewTally(spec), NewTally(spec)
		for range 5 {
			params := make([]float64, spec.Params())
			for i := range params {
				params[i] = rng.NormFloat64()
			}
			data := dataset.Samples{N: 20, D: 3}
			for range data.N {
				data.X = append(data.X, rng.NormFloat64(), rng.NormFloat64(), rng.NormFloat64())
				data.Y = append(data.Y, rng.IntN(spec.Classes))
			}
			parts = append(parts, spec.Count(params, data))
			scratch.Reset()
			scratch.Count(params, data)
			all.Add(scratch)
		}
		sum, err := Sum(parts)
		if err != nil {
			t.Fatal(err)
		}
		if got := all.Counts(); !reflect.DeepEqual(got, sum) || got.Rows != 100 {
			t.Errorf("%s: the tally is %v, the sum %v", spec.Kind, got, sum)
		}
	}
}
