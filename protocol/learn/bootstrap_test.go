package learn

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"village/protocol/dataset"
)

// A binomial draw has the distribution's mean, variance and, where rows are few,
// probabilities, whichever way it is drawn.
func TestBinomial(t *testing.T) {
	for _, c := range []struct{ n, a, b uint64 }{
		{1, 1, 3}, {16, 1, 33}, {16, 5, 7}, {63, 1, 2}, {64, 1, 2}, {200, 1, 50}, {200, 99, 100},
		{1000, 1, 1 << 61}, {1000, 1, 500}, {1000, 2, 5}, {1 << 40, 1, 1 << 40}, {1 << 40, 3, 7},
	} {
		const times = 20_000
		s := streamOf(Counts{Rows: c.n, Confusion: []uint64{c.a, c.b}})
		p := float64(c.a) / float64(c.b)
		mean, variance := float64(c.n)*p, float64(c.n)*p*(1-p)
		counts := map[uint64]float64{}
		sum, squares := 0.0, 0.0
		for range times {
			x := s.binomial(c.n, c.a, c.b)
			if x > c.n {
				t.Fatalf("%d of %d", x, c.n)
			}
			counts[x]++
			d := float64(x) - mean
			sum += d
			squares += d * d
		}
		if off := math.Abs(sum) / times; off > 4*math.Sqrt(variance/times)+1e-9 {
			t.Errorf("%v: the mean is off by %v", c, off)
		}
		if got := squares / times; math.Abs(got-variance) > .06*variance+1e-3 {
			t.Errorf("%v: the variance is %v, not %v", c, got, variance)
		}
		if c.n > 16 {
			continue
		}
		want := math.Pow(1-p, float64(c.n))
		for x := range c.n + 1 {
			if got := counts[x] / times; math.Abs(got-want) > 5*math.Sqrt(want/times)+1e-4 {
				t.Errorf("%v: %d has the probability %v, not %v", c, x, got, want)
			}
			want *= float64(c.n-x) / float64(x+1) * p / (1 - p)
		}
	}
}

func TestDrawsAreMultinomial(t *testing.T) {
	weights := []uint64{5, 0, 1, 30, 0, 4, 0}
	for _, n := range []uint64{0, 3, 20, 5000} {
		const times = 5000
		s := streamOf(Counts{Rows: n})
		from, counts := cellsOf(weights), make([]uint64, len(weights))
		sums := make([]float64, len(weights))
		for range times {
			from.draw(s, n, counts)
			all := uint64(0)
			for i, m := range counts {
				all += m
				sums[i] += float64(m) / times
			}
			if all != n {
				t.Fatalf("%d rows drawn of %d", all, n)
			}
		}
		for i, w := range weights {
			want := float64(n) * float64(w) / 40
			if math.Abs(sums[i]-want) > 4*math.Sqrt(want/times) {
				t.Errorf("%d rows: cell %d has %v, not %v", n, i, sums[i], want)
			}
		}
	}
}

// scored2 are rows of two classes whose scores are normal around two means.
func scored2(rng *rand.Rand, n int, apart, prevalence float64) Counts {
	y := make([]int, n)
	p := make([]float64, 0, n)
	for i := range y {
		z := rng.NormFloat64() - apart/2
		if rng.Float64() < prevalence {
			y[i] = 1
			z += apart
		}
		p = append(p, sigmoid(apart*z))
	}
	return tally(2, y, binary2(p...))
}

// Of the 95 % intervals of many samples about 95 in a hundred hold what the metric
// is over all rows there could be: with few rows, with almost all rows right, and
// with one class being rare.
func TestIntervalsHoldTheTruth(t *testing.T) {
	if testing.Short() {
		t.Skip("seconds")
	}
	below := func(x float64) float64 { return math.Erfc(-x/math.Sqrt2) / 2 }
	for _, c := range []struct {
		rows, times       int
		apart, prevalence float64
		least             float64 // share of intervals of each metric that holds it
	}{
		{16, 250, 1.5, .5, .92},
		{16, 250, 4, .5, .95},
		{30, 250, 2.5, .9, .92},
		{90, 150, 1.5, .5, .91},
		{1000, 50, 2.5, .1, .88},
	} {
		rng := rand.New(rand.NewPCG(1, uint64(c.rows)))
		tpr := below(c.apart / 2)
		truth := [3]float64{
			tpr, 2 * c.prevalence * tpr / (c.prevalence + c.prevalence*tpr + (1-c.prevalence)*(1-tpr)), below(c.apart / math.Sqrt2),
		}
		var held, of, width [3]float64
		for range c.times {
			v := scored2(rng, c.rows, c.apart, c.prevalence).Detailed([]string{"a", "b"}, "b", "", nil).Intervals
			for i, x := range []*Interval{v.Accuracy, v.F1, v.ROCAUC} {
				if x == nil {
					continue // one class alone
				}
				of[i]++
				width[i] += x[1] - x[0]
				if x[0] <= truth[i] && truth[i] <= x[1] {
					held[i]++
				}
			}
		}
		for i, name := range []string{"accuracy", "F1", "AUC"} {
			if share := held[i] / of[i]; !(share >= c.least) || width[i]/of[i] > 5/math.Sqrt(float64(c.rows)) {
				t.Errorf("%+v: %s: %.3f of intervals %.3f wide hold %.3f", c, name, share, width[i]/of[i], truth[i])
			}
		}
	}
}

func TestIntervalsOfErrorsHoldTheTruth(t *testing.T) {
	for _, c := range []struct {
		rows, times int
		least       [2]float64
	}{{8, 250, [2]float64{.92, .88}}, {16, 250, [2]float64{.92, .88}}, {300, 100, [2]float64{.9, .9}}} {
		rng := rand.New(rand.NewPCG(2, 2))
		truth := [2]float64{math.Sqrt(2 / math.Pi), 1}
		var held [2]float64
		for range c.times {
			x, y := make([]float64, c.rows), make([]float64, c.rows)
			for i := range x {
				x[i] = rng.NormFloat64()
				y[i] = x[i] + rng.NormFloat64()
			}
			v := off(1, y, x).Detailed(nil, "", "", nil).Intervals
			for i, x := range []*Interval{v.MAE, v.RMSE} {
				if x[0] <= truth[i] && truth[i] <= x[1] {
					held[i] += 1 / float64(c.times)
				}
			}
		}
		if held[0] < c.least[0] || held[1] < c.least[1] {
			t.Errorf("%+v: %v", c, held)
		}
	}
}

// With three classes, whose areas under the curve go up and down together, which
// their histograms do not say; and with so many that some have no row, which
// makes the macro average of F1 too low.
func TestIntervalsOfManyClassesHoldTheTruth(t *testing.T) {
	if testing.Short() {
		t.Skip("seconds")
	}
	for _, c := range []struct {
		classes, rows, times int
		apart                float64
		least                [3]float64
	}{
		{3, 150, 150, 1, [3]float64{.9, .9, .9}},
		{10, 16, 100, 2, [3]float64{.88, .6, .9}},
	} {
		s := Spec{Kind: Softmax, Inputs: c.classes, Classes: c.classes}
		params := make([]float64, s.Params())
		for class := range c.classes {
			params[class*c.classes+class] = c.apart
		}
		rng := rand.New(rand.NewPCG(3, 3))
		draw := func(n int) Counts {
			data := dataset.Samples{N: n, D: c.classes}
			for range n {
				y := rng.IntN(c.classes)
				data.Y = append(data.Y, y)
				for class := range c.classes {
					x := rng.NormFloat64()
					if class == y {
						x += c.apart
					}
					data.X = append(data.X, x)
				}
			}
			return s.Count(params, data)
		}
		labels := make([]string, c.classes)
		truth, held := draw(20_000).Report(labels, ""), [3]float64{}
		for range c.times {
			v := draw(c.rows).Detailed(labels, "", "", nil).Intervals
			for i, x := range []*Interval{v.Accuracy, v.F1, v.ROCAUC} {
				if truth := []float64{*truth.Accuracy, *truth.F1, *truth.ROCAUC}[i]; x[0] <= truth && truth <= x[1] {
					held[i] += 1 / float64(c.times)
				}
			}
		}
		for i, name := range []string{"accuracy", "F1", "AUC"} {
			if held[i] < c.least[i] {
				t.Errorf("%d classes: %s: %.3f of intervals", c.classes, name, held[i])
			}
		}
	}
}

// Sixteen rows that are all right do not make a model of which nothing else is to
// be feared.
func TestFewRowsHaveWideIntervals(t *testing.T) {
	y, p := []int{}, []float64{}
	for i := range 16 {
		y = append(y, i%2)
		p = append(p, .1+.8*float64(i%2))
	}
	r := tally(2, y, binary2(p...)).Detailed([]string{"a", "b"}, "b", "", nil)
	for name, x := range map[string]*Interval{"accuracy": r.Intervals.Accuracy, "F1": r.Intervals.F1, "AUC": r.Intervals.ROCAUC} {
		if x[1] != 1 || x[0] > .95 || x[0] < .5 {
			t.Errorf("%s: %v", name, *x)
		}
	}
	if g := GainOf(16, 0, 0); *g.Accuracy != 0 || !(g.Interval[0] < -.05 && g.Interval[1] > .05) {
		t.Errorf("no difference: %v", *g.Interval)
	}
	if r = off(1, []float64{1, 2, 3, 4}, []float64{1, 2, 3, 5}).Detailed(nil, "", "", nil); r.Intervals.MAE != nil {
		t.Errorf("four errors have the interval %v", *r.Intervals.MAE)
	}
}

// Everybody computes the same interval. A machine that rounds otherwise would
// come to others than these.
func TestIntervalsAreTheSameEverywhere(t *testing.T) {
	c := scored2(rand.New(rand.NewPCG(4, 4)), 300, 1.5, .4)
	labels := []string{"a", "b"}
	first, second := c.Detailed(labels, "b", "", nil), c.Detailed(labels, "b", "", nil)
	if !reflect.DeepEqual(first, second) {
		t.Error("two reports of the same counts differ")
	}
	b, err := json.Marshal(struct {
		Classes *Intervals
		Errors  *Intervals
		Gain    *Interval
	}{first.Intervals, off(2, []float64{0, 1, 2, 3, 4, 5}, []float64{.5, 1, 1.75, 3.125, 4, 4}).Detailed(nil, "", "", nil).Intervals, GainOf(100, 12, 5).Interval})
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != fixedIntervals {
		t.Errorf("%s", b)
	}
}

const fixedIntervals = `{"Classes":{"accuracy":[0.7466666666666667,0.84],"f1":[0.7063492063492064,0.8256227758007118],"roc_auc":[0.8399436506853987,0.9167208381563717]},` +
	`"Errors":{"accuracy":null,"f1":null,"roc_auc":null,"mae":[0.014013899733335694,2.355452549844182],"rmse":[0.2607750112235876,4.007287232597327],"r2":[-0.37643008267464584,0.9941711194446861]},` +
	`"Gain":[-0.01,0.14]}`

func TestGain(t *testing.T) {
	g := GainOf(200, 30, 10)
	if g.Rows != 200 || g.Better != 30 || g.Worse != 10 || *g.Accuracy != .1 {
		t.Errorf("%+v", g)
	}
	// Wald's interval with Agresti and Min's rows added: .1 ± 1.96 standard errors.
	if lower, upper := g.Interval[0], g.Interval[1]; math.Abs(lower-.038) > .015 || math.Abs(upper-.16) > .015 {
		t.Errorf("%v", *g.Interval)
	}
	back := GainOf(200, 10, 30)
	if *back.Accuracy != -.1 || math.Abs(back.Interval[0]+g.Interval[1]) > .015 {
		t.Errorf("%+v", *back.Interval)
	}
	for _, c := range [][3]uint64{{0, 0, 0}, {5, 6, 0}, {5, 0, 6}, {5, 3, 3}, {5, math.MaxUint64, 2}} {
		if g := GainOf(c[0], c[1], c[2]); g.Accuracy != nil || g.Interval != nil {
			t.Errorf("%v: %v", c, *g.Accuracy)
		}
	}
	if g := GainOf(math.MaxUint64, math.MaxUint64, 0); *g.Accuracy != 1 || g.Interval[0] < .99 {
		t.Errorf("%v", *g.Interval)
	}
	rng, held := rand.New(rand.NewPCG(5, 5)), 0.0
	const times = 300
	for range times {
		var better, worse uint64
		for range 50 {
			switch x := rng.Float64(); {
			case x < .12:
				better++
			case x < .16:
				worse++
			}
		}
		if v := GainOf(50, better, worse).Interval; v[0] <= .08 && .08 <= v[1] {
			held += 1. / times
		}
	}
	if held < .92 {
		t.Errorf("%.3f of intervals hold the truth", held)
	}
}

func TestCompare(t *testing.T) {
	logistic := Spec{Kind: Logistic, Inputs: 1, Classes: 2}
	softmax := Spec{Kind: Softmax, Inputs: 2, Classes: 2}
	// The old one, on rows of two numbers, says 1 where the second is larger, the
	// new one where its only number is positive.
	old := dataset.Samples{N: 5, D: 2, X: []float64{0, 1, 0, 1, 1, 0, 1, 0, 0, 1}}
	data := dataset.Samples{N: 5, D: 1, X: []float64{-1, -1, 1, -1, 1}, Y: []int{1, 0, 1, 0, 1}}
	better, worse := logistic.Compare(softmax, []float64{1, 0, 0, 1, 0, 0}, []float64{1, 0}, old, data)
	if better != 2 || worse != 1 {
		t.Errorf("%d better, %d worse", better, worse)
	}
	numeric := Spec{Kind: Linear, Inputs: 1}
	data.T = []float64{1, 0, 1, 0, 1}
	if better, worse = numeric.Compare(numeric, []float64{1, 0}, []float64{-1, 0}, data, data); better+worse != 0 {
		t.Errorf("a numeric target has %d rows that are better, and %d", better, worse)
	}
}

// Whatever counts pass the check have a report that can be written as JSON, and
// intervals that hold the metrics.
func FuzzDetailed(f *testing.F) {
	f.Add(uint8(2), []byte{200, 3, 4, 100, 1, 2, 3, 4})
	f.Add(uint8(2), []byte{0, 0, 0, 16})
	f.Add(uint8(3), []byte{7, 0, 1, 2, 0, 0, 0, 9, 255})
	f.Add(uint8(5), []byte{1})
	f.Fuzz(func(t *testing.T, k uint8, cells []byte) {
		classes := int(k)
		if classes < 2 || classes > 6 || len(cells) < classes*classes {
			return
		}
		n, first := scored(classes)
		c := Counts{Confusion: make([]uint64, classes*classes), Groups: make([]uint64, 2*classes*classes)}
		positives, negatives := make([]uint64, n*Bins), make([]uint64, n*Bins)
		for i := range c.Confusion {
			rows := uint64(1) << (cells[i] % 58) >> 1
			c.Confusion[i] = rows
			c.Groups[i] = rows / 2
			c.Rows += rows
			for h := range n {
				// Scores that need not fit the predicted class.
				at := h*Bins + (int(cells[i])*31+h)*17%Bins
				if i/classes == first+h {
					positives[at] += rows
				} else {
					negatives[at] += rows
				}
			}
		}
		c.Positives, c.Negatives = pack(positives), pack(negatives)
		if err := c.Check(classes, 2); err != nil {
			t.Fatal(err)
		}
		labels := []string{"a", "b", "c", "d", "e", "f"}[:classes]
		r := c.Detailed(labels, "a", "s", []string{"x", "y"})
		if _, err := json.Marshal(r); err != nil {
			t.Fatal(err)
		}
		for i, m := range []*float64{r.Accuracy, r.F1, r.ROCAUC} {
			v := []*Interval{r.Intervals.Accuracy, r.Intervals.F1, r.Intervals.ROCAUC}[i]
			if (m == nil) != (v == nil) || m != nil && !(0 <= v[0] && v[0] <= *m && *m <= v[1] && v[1] <= 1) {
				t.Fatalf("%d: %v in %v of %+v", i, m, v, c)
			}
		}
	})
}

func BenchmarkReport(b *testing.B) {
	labels := []string{"a", "b"}
	for _, n := range []int{16, 250, 100_000} {
		c := scored2(rand.New(rand.NewPCG(1, 1)), n, 1.5, .5)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				c.Report(labels, "b")
			}
		})
	}
}

func BenchmarkDetailed(b *testing.B) {
	for _, n := range []int{16, 250, 100_000} {
		rng := rand.New(rand.NewPCG(1, 1))
		x, y := make([]float64, n), make([]float64, n)
		for i := range x {
			x[i] = rng.NormFloat64()
			y[i] = x[i] + rng.NormFloat64()
		}
		for name, c := range map[string]Counts{"classes": scored2(rng, n, 1.5, .5), "number": off(1, y, x)} {
			labels := []string{"a", "b"}
			if c.Errors != nil {
				labels = nil
			}
			b.Run(fmt.Sprintf("%s %d", name, n), func(b *testing.B) {
				for b.Loop() {
					c.Detailed(labels, "b", "", nil)
				}
			})
		}
	}
}
