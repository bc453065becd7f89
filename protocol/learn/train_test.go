package learn

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"village/protocol/dataset"
)

// near says whether a and b differ by at most tolerance everywhere.
func near(a, b []float64, tolerance float64) bool {
	return slices.EqualFunc(a, b, func(x, y float64) bool { return math.Abs(x-y) <= tolerance })
}

// plain is a step as in a textbook: the reference for both results and speed.
func plain(s Spec, params []float64, data dataset.Samples, rate, l2 float64) []float64 {
	k, d := s.outputs(), s.Inputs
	grad := make([]float64, len(params))
	for i := 0; i < data.N; i++ {
		z := make([]float64, k)
		for c := 0; c < k; c++ {
			z[c] = params[k*d+c]
			for j := 0; j < d; j++ {
				z[c] += params[c*d+j] * data.X[i*d+j]
			}
		}
		sum := 0.0
		for c := 0; c < k; c++ {
			sum += math.Exp(z[c])
		}
		for c := 0; c < k; c++ {
			p := math.Exp(z[c]) / sum
			if s.Kind == Logistic {
				p = math.Exp(z[0]) / (1 + math.Exp(z[0])) // of class 1
			}
			if s.Kind == Logistic && data.Y[i] == 1 || s.Kind == Softmax && data.Y[i] == c {
				p--
			}
			for j := 0; j < d; j++ {
				grad[c*d+j] += p * data.X[i*d+j] / float64(data.N)
			}
			grad[k*d+c] += p / float64(data.N)
		}
	}
	next := make([]float64, len(params))
	for i := range params {
		g := grad[i]
		if i < k*d {
			g += l2 * params[i]
		}
		next[i] = params[i] - rate*g
	}
	return next
}

var specs = []Spec{{Kind: Logistic, Inputs: 7, Classes: 2}, {Kind: Softmax, Inputs: 7, Classes: 2}, {Kind: Softmax, Inputs: 5, Classes: 4}}

func TestTrainIsTheTextbook(t *testing.T) {
	for _, s := range specs {
		start, data := random(s, 50, 1, 1, .01)
		kept := slices.Clone(start)
		want := start
		for range 200 {
			want = plain(s, want, data, .3, .01)
		}
		got, _, err := s.Train(start, data, Training{Steps: 200, Rate: .3, L2: .01})
		if err != nil || !near(got, want, 1e-12) {
			t.Errorf("%v: %v\n%v, want\n%v", s, err, got, want)
		}
		if !slices.Equal(start, kept) {
			t.Errorf("%v: the argument was changed", s)
		}
	}
}

func TestGradientIsThatOfLoss(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := specs[rapid.IntRange(0, len(specs)-1).Draw(t, "spec")]
		params, data := random(s, rapid.IntRange(0, 20).Draw(t, "rows"), rapid.Uint64().Draw(t, "seed"), 1, 1)
		l2 := rapid.Float64Range(0, 1).Draw(t, "l2")
		grad := make([]float64, len(params))
		s.Gradient(params, data, l2, grad)
		const h = 1e-5
		for i, p := range params {
			params[i] = p + h
			up := s.Loss(params, data, l2)
			params[i] = p - h
			down := s.Loss(params, data, l2)
			params[i] = p
			if d := (up - down) / (2 * h); math.Abs(d-grad[i]) > 1e-8 {
				t.Fatalf("derivative %d is %v, by differences %v", i, grad[i], d)
			}
		}
	})
}

// The optimum as scikit-learn 1.9.1 finds it: LogisticRegression, C = 1/(.1·12),
// solver newton-cg, tol 1e-14.
func TestConvergesToTheOptimum(t *testing.T) {
	x := []float64{.13, -1.54, 1.25, 1.44, -.07, -.27, -.16, -.98, 1.1, -.54, -.05, -.79, -.63, -1.28, 1.26, -.15, .97, .01, -.69, -.33, -.56, .01, -.38, -.3}
	for _, c := range []struct {
		spec                Spec
		y                   []int
		params, probability []float64 // of the first two rows
	}{
		{Spec{Kind: Logistic, Inputs: 2, Classes: 2}, []int{0, 0, 1, 0, 1, 1, 1, 0, 1, 0, 0, 1},
			[]float64{.028518580423207908, -.299403839021863, -.12348314309206547},
			[]float64{.415492224176, .584507775824, .626908393966, .373091606034}},
		{Spec{Kind: Softmax, Inputs: 2, Classes: 3}, []int{1, 2, 0, 1, 2, 1, 0, 1, 2, 0, 1, 1},
			[]float64{-.7570075209562203, -.15709850839542422, -.11486267572720558, -.3233668031223359, .8718701966834256, .48046531151776006,
				-.13248057834280522, .5016937988700205, -.3692132205272133},
			[]float64{.249182905892, .659771504382, .091045589726, .051405025577, .170232479771, .778362494652}},
	} {
		data := dataset.Samples{N: 12, D: 2, X: x, Y: c.y}
		got, _, err := c.spec.Train(make([]float64, c.spec.Params()), data, Training{Steps: 2000, Rate: .5, L2: .1})
		if err != nil || !near(got, c.params, 1e-8) {
			t.Errorf("%v: %v, want %v (%v)", c.spec, got, c.params, err)
		}
		p := c.spec.Predict(got, dataset.Samples{N: 2, D: 2, X: x[:4]})
		if !near(p, c.probability, 1e-8) {
			t.Errorf("%v: probabilities %v, want %v", c.spec, p, c.probability)
		}
	}
}

func TestSameBytesWhereverTheMemoryLies(t *testing.T) {
	for _, s := range specs {
		from, data := random(s, 40, 3, 1, .01)
		var want []float64
		for offset := range 8 {
			x := append(make([]float64, offset), data.X...)[offset:]
			start := append(make([]float64, offset), from...)[offset:]
			got, _, err := s.Train(start, dataset.Samples{N: data.N, D: data.D, X: x, Y: data.Y}, Training{Steps: 20, Rate: .1, Batch: 7})
			if err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want = got
			}
			if !slices.Equal(got, want) {
				t.Errorf("%v: other bits at offset %d", s, offset)
			}
		}
	}
}

func TestBatches(t *testing.T) {
	// Row i is the i-th unit vector, so that its weight tells how often it
	// was used.
	const n = 10
	s := Spec{Kind: Logistic, Inputs: n, Classes: 2}
	data := dataset.Samples{N: n, D: n, X: make([]float64, n*n), Y: make([]int, n)}
	for i := range n {
		data.X[i*n+i] = 1
	}
	start := make([]float64, s.Params())
	used := func(steps, batch int, seed byte) (rows []int) {
		t.Helper()
		got, _, err := s.Train(start, data, Training{Steps: steps, Rate: 1e-9, Batch: batch, Seed: [32]byte{seed}})
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			// A use moves the weight by rate/(2 x rows of the batch).
			rows = append(rows, int(math.Round(-got[i]*2e9*float64(batch))))
		}
		return rows
	}
	sum := func(rows []int) (total int) {
		for _, r := range rows {
			total += r
		}
		return total
	}
	if rows := used(2, 3, 1); sum(rows) != 6 || slices.Max(rows) != 1 {
		t.Errorf("two batches of 3: %v", rows)
	}
	// The fourth batch is the row that is left, with three times the weight.
	if rows := used(4, 3, 1); sum(rows) != 12 || slices.Min(rows) != 1 || slices.Max(rows) != 3 {
		t.Errorf("a pass in batches of 3: %v", rows)
	}
	if rows := used(4, 5, 1); slices.Min(rows) != 2 || slices.Max(rows) != 2 {
		t.Errorf("two passes in batches of 5: %v", rows)
	}
	if slices.Equal(used(1, 5, 1), used(1, 5, 2)) {
		t.Error("another seed uses the same rows")
	}
	if !slices.Equal(used(7, 3, 1), used(7, 3, 1)) {
		t.Error("the same seed uses other rows")
	}

	_, data = random(s, 30, 1, 1, 0)
	whole, _, err1 := s.Train(start, data, Training{Steps: 5, Rate: 1})
	for _, batch := range []int{30, 31} {
		got, _, err2 := s.Train(start, data, Training{Steps: 5, Rate: 1, Batch: batch, Seed: [32]byte{4}})
		if err1 != nil || err2 != nil || !slices.Equal(got, whole) {
			t.Errorf("a batch of %d is not the whole: %v %v", batch, err1, err2)
		}
	}
}

// Every order of four rows is as likely as any other.
func TestShuffleIsFair(t *testing.T) {
	stream := rand.NewChaCha8([32]byte{})
	seen := map[[4]int]int{}
	for range 24000 {
		order := []int{0, 1, 2, 3}
		shuffle(order, stream)
		seen[[4]int(order)]++
	}
	for order, n := range seen {
		if n < 850 || n > 1150 {
			t.Errorf("%v came %d times of 24000", order, n)
		}
	}
	if len(seen) != 24 {
		t.Errorf("%d orders", len(seen))
	}
}

func TestTrainRefuses(t *testing.T) {
	s := Spec{Kind: Softmax, Inputs: 2, Classes: 3}
	params := make([]float64, 9)
	data := dataset.Samples{N: 2, D: 2, X: make([]float64, 4), Y: []int{0, 2}}
	good := Training{Steps: 1, Rate: 1}
	with := func(f func(*Training)) Training {
		t := good
		f(&t)
		return t
	}
	if _, _, err := s.Train(params, data, good); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		spec     Spec
		params   []float64
		data     dataset.Samples
		training Training
	}{
		"spec":           {Spec{}, params, data, good},
		"params":         {s, params[:8], data, good},
		"params NaN":     {s, append([]float64{math.NaN()}, params[1:]...), data, good},
		"width":          {s, params, dataset.Samples{N: 2, D: 3, X: make([]float64, 6), Y: []int{0, 1}}, good},
		"short X":        {s, params, dataset.Samples{N: 2, D: 2, X: make([]float64, 3), Y: []int{0, 1}}, good},
		"long X":         {s, params, dataset.Samples{N: 2, D: 2, X: make([]float64, 5), Y: []int{0, 1}}, good},
		"no Y":           {s, params, dataset.Samples{N: 2, D: 2, X: make([]float64, 4)}, good},
		"class":          {s, params, dataset.Samples{N: 2, D: 2, X: make([]float64, 4), Y: []int{0, 3}}, good},
		"negative class": {s, params, dataset.Samples{N: 2, D: 2, X: make([]float64, 4), Y: []int{0, -1}}, good},
		"no rows":        {s, params, dataset.Samples{D: 2}, good},
		"steps":          {s, params, data, with(func(t *Training) { t.Steps = -1 })},
		"batch":          {s, params, data, with(func(t *Training) { t.Batch = -1 })},
		"rate 0":         {s, params, data, with(func(t *Training) { t.Rate = 0 })},
		"rate NaN":       {s, params, data, with(func(t *Training) { t.Rate = math.NaN() })},
		"rate Inf":       {s, params, data, with(func(t *Training) { t.Rate = math.Inf(1) })},
		"l2":             {s, params, data, with(func(t *Training) { t.L2 = -1 })},
		"l2 NaN":         {s, params, data, with(func(t *Training) { t.L2 = math.NaN() })},
		"l2 Inf":         {s, params, data, with(func(t *Training) { t.L2 = math.Inf(1) })},
		"prox":           {s, params, data, with(func(t *Training) { t.Prox = -1 })},
		"prox NaN":       {s, params, data, with(func(t *Training) { t.Prox = math.NaN() })},
		"optimizer":      {s, params, data, with(func(t *Training) { t.Optimizer = "newton" })},
		"shift":          {s, params, data, with(func(t *Training) { t.Shift = params[:8] })},
		"no T":           {Spec{Kind: Linear, Inputs: 2}, params[:3], data, good},
		"Y for T":        {Spec{Kind: Linear, Inputs: 2}, params[:3], dataset.Samples{N: 2, D: 2, X: data.X, Y: data.Y, T: []float64{1}}, good},
	} {
		if got, _, err := c.spec.Train(c.params, c.data, c.training); err == nil {
			t.Errorf("%s: gave %v", name, got)
		}
	}
}

func TestDivergenceNamesTheStep(t *testing.T) {
	s := Spec{Kind: Logistic, Inputs: 1, Classes: 2}
	data := dataset.Samples{N: 1, D: 1, X: []float64{1}, Y: []int{1}}
	// Each step multiplies the weight by 1 - 1e150: 1e150, 1e300, overflow.
	_, _, err := s.Train([]float64{1, 0}, data, Training{Steps: 9, Rate: 1e150, L2: 1})
	if err == nil || !strings.Contains(err.Error(), "after step 3 of 9: lower the learning rate") {
		t.Errorf("error %v", err)
	}
	data.X[0] = math.NaN()
	if _, _, err := s.Train([]float64{1, 0}, data, Training{Steps: 9, Rate: 1}); err == nil || !strings.Contains(err.Error(), "after step 1 of 9") {
		t.Errorf("NaN in a row: error %v", err)
	}
}

func TestLossDoesNotOverflow(t *testing.T) {
	for _, c := range []struct {
		spec   Spec
		params []float64
		y      int
		want   float64
	}{
		{Spec{Kind: Logistic, Inputs: 1, Classes: 2}, []float64{0, 1e4}, 0, 1e4},
		{Spec{Kind: Logistic, Inputs: 1, Classes: 2}, []float64{0, 1e4}, 1, 0},
		{Spec{Kind: Logistic, Inputs: 1, Classes: 2}, []float64{0, -1e4}, 1, 1e4},
		{Spec{Kind: Logistic, Inputs: 1, Classes: 2}, []float64{0, 0}, 1, math.Ln2},
		{Spec{Kind: Softmax, Inputs: 1, Classes: 3}, []float64{0, 0, 0, 1e4, 0, 0}, 0, 0},
		{Spec{Kind: Softmax, Inputs: 1, Classes: 3}, []float64{0, 0, 0, 1e4, 0, 0}, 2, 1e4},
		{Spec{Kind: Softmax, Inputs: 1, Classes: 3}, []float64{0, 0, 0, -1e4, -1e4, -1e4}, 2, math.Log(3)},
	} {
		got := c.spec.Loss(c.params, dataset.Samples{N: 1, D: 1, X: []float64{1}, Y: []int{c.y}}, 0)
		if math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%v %v class %d: loss %v, want %v", c.spec, c.params, c.y, got, c.want)
		}
	}
	s := Spec{Kind: Logistic, Inputs: 2, Classes: 2}
	if got := s.Loss([]float64{3, 4, 5}, dataset.Samples{D: 2}, .5); got != .25*25 {
		t.Errorf("without rows the loss is %v, want the penalty of the weights", got)
	}
}

func TestPredictIsAlwaysAProbability(t *testing.T) {
	huge := rapid.OneOf(
		rapid.Float64Range(-math.MaxFloat64, math.MaxFloat64),
		rapid.SampledFrom([]float64{0, 1, -1, math.MaxFloat64, -math.MaxFloat64, 800, -800}),
	)
	rapid.Check(t, func(t *rapid.T) {
		s := Spec{Kind: Softmax, Inputs: 2, Classes: rapid.IntRange(2, 4).Draw(t, "classes")}
		if rapid.Bool().Draw(t, "logistic") {
			s = Spec{Kind: Logistic, Inputs: 2, Classes: 2}
		}
		params := rapid.SliceOfN(huge, s.Params(), s.Params()).Draw(t, "params")
		x := rapid.SliceOfN(huge, 2, 2).Draw(t, "x")
		sum := 0.0
		for _, p := range s.Predict(params, dataset.Samples{N: 1, D: 2, X: x}) {
			if !(p >= 0 && p <= 1) {
				t.Fatalf("probability %v", p)
			}
			sum += p
		}
		if math.Abs(sum-1) > 1e-12 {
			t.Fatalf("they add up to %v", sum)
		}
	})
}

func TestStepDoesNotAllocate(t *testing.T) {
	for _, s := range specs {
		_, data := random(s, 50, 1, 1, 0)
		params := make([]float64, s.Params())
		allocs := func(steps int) float64 {
			return testing.AllocsPerRun(10, func() {
				if _, _, err := s.Train(params, data, Training{Steps: steps, Rate: .1, Batch: 4}); err != nil {
					t.Fatal(err)
				}
			})
		}
		if one, many := allocs(1), allocs(100); many > one {
			t.Errorf("%v: %v allocations for a step, %v for 100", s, one, many)
		}
	}
}

// One step of a simulated node: 4 rows of 57 features.
func BenchmarkStep(b *testing.B) {
	for _, s := range []Spec{{Kind: Logistic, Inputs: 57, Classes: 2}, {Kind: Softmax, Inputs: 57, Classes: 3}} {
		_, data := random(s, 4, 1, .1, 0)
		b.Run(fmt.Sprintf("%s-%d", s.Kind, s.Classes), func(b *testing.B) {
			b.ReportAllocs()
			if _, _, err := s.Train(make([]float64, s.Params()), data, Training{Steps: b.N, Rate: .01}); err != nil {
				b.Fatal(err)
			}
		})
		b.Run(fmt.Sprintf("%s-%d-textbook", s.Kind, s.Classes), func(b *testing.B) {
			params := make([]float64, s.Params())
			for range b.N {
				params = plain(s, params, data, .01, 0)
			}
		})
	}
}

// The optimum of ridge regression is where its normal equations hold.
func TestLinearRegression(t *testing.T) {
	s := Spec{Kind: Linear, Inputs: 3}
	data := numbers(s, 40, 1)
	for i := range data.T {
		data.T[i] = .1*data.T[i] + 2*data.X[3*i] - data.X[3*i+1] + 5
	}
	got, _, err := s.Train(s.Init(1), data, Training{Steps: 3000, Rate: .2})
	if err != nil || !near(got, []float64{2, -1, 0, 5}, .05) {
		t.Fatalf("%v, want about 2, -1, 0, 5 (%v)", got, err)
	}
	residual := s.Predict(got, data)
	if len(residual) != data.N {
		t.Fatalf("%d predictions for %d rows", len(residual), data.N)
	}
	axpy(-1, data.T, residual)
	if mean := s.Loss(got, data, 0); math.Abs(mean-dot(residual, residual)/80) > 1e-12 {
		t.Errorf("loss %v of residuals %v", mean, residual)
	}
	for j := range 4 {
		normal := 0.0
		for i, e := range residual {
			if j == 3 {
				normal += e
			} else {
				normal += e * data.X[3*i+j]
			}
		}
		if math.Abs(normal) > 1e-9 {
			t.Errorf("normal equation %d: %v", j, normal)
		}
	}
	if p := s.Predict([]float64{math.MaxFloat64, math.MaxFloat64, -math.MaxFloat64, 0}, dataset.Samples{N: 1, D: 3, X: []float64{9, 9, 9}}); !allFinite(p) {
		t.Errorf("prediction %v", p)
	}
}
