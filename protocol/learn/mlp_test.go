package learn

import (
	"cmp"
	"errors"

	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"

	"village/protocol/dataset"
)

var nets = []Spec{
	{Kind: MLP, Inputs: 5, Classes: 2, Hidden: []int{7}},
	{Kind: MLP, Inputs: 4, Classes: 3, Hidden: []int{6, 5}},
	{Kind: MLP, Inputs: 3, Classes: 0, Hidden: []int{8, 1, 4}},
}

// numbers returns rows for a spec: normal inputs, and targets at random.
func numbers(s Spec, n int, seed uint64) dataset.Samples {
	r := rand.New(rand.NewPCG(seed, 2))
	data := dataset.Samples{N: n, D: s.Inputs, X: make([]float64, n*s.Inputs)}
	for i := range data.X {
		data.X[i] = r.NormFloat64()
	}
	for range n {
		if s.Classes == 0 {
			data.T = append(data.T, r.NormFloat64())
		} else {
			data.Y = append(data.Y, r.IntN(s.Classes))
		}
	}
	return data
}

// started returns Init with biases that are not zero.
func started(s Spec, seed uint64) []float64 {
	params := s.Init(seed)
	r := rand.New(rand.NewPCG(seed, 3))
	for _, l := range s.layers() {
		weights, biases := split(l, params)
		for i := range biases {
			biases[i] = .3 * r.NormFloat64()
		}
		for i := range weights {
			weights[i] += .2 * r.NormFloat64()
		}
	}
	return params
}

// textbook returns the mean loss of a perceptron and its gradient as in a textbook, in
// 64 bits.
func textbook(s Spec, params []float64, data dataset.Samples, l2 float64) (mean float64, grad []float64) {
	grad = make([]float64, len(params))
	layers := s.layers()
	for i := range data.N {
		units := [][]float64{data.X[i*s.Inputs : (i+1)*s.Inputs]}
		for k, l := range layers {
			weights, biases := split(l, params)
			out := make([]float64, l.out)
			for o := range out {
				out[o] = biases[o]
				for j, x := range units[k] {
					out[o] += weights[o*l.in+j] * x
				}
				if k < len(layers)-1 && out[o] < 0 {
					out[o] = 0
				}
			}
			units = append(units, out)
		}
		delta := slices.Clone(units[len(layers)])
		mean += loss(s.Classes, &data, i, delta) / float64(data.N)
		derive(s.Classes, &data, i, delta)
		for k := len(layers) - 1; k >= 0; k-- {
			l := layers[k]
			weights, _ := split(l, params)
			dw, db := split(l, grad)
			before := make([]float64, l.in)
			for o, d := range delta {
				db[o] += d / float64(data.N)
				for j, x := range units[k] {
					dw[o*l.in+j] += d * x / float64(data.N)
					if x > 0 {
						before[j] += d * weights[o*l.in+j]
					}
				}
			}
			delta = before
		}
	}
	for _, l := range layers {
		weights, _ := split(l, params)
		dw, _ := split(l, grad)
		for i, w := range weights {
			mean += l2 / 2 * w * w
			dw[i] += l2 * w
		}
	}
	return mean, grad
}

func TestPerceptronIsTheTextbook(t *testing.T) {
	for _, s := range nets {
		for _, n := range []int{1, 9, 2*blockRows + 3} {
			params, data := started(s, 1), numbers(s, n, uint64(n))
			want, wantGrad := textbook(s, params, data, .1)
			if got := s.Loss(params, data, .1); math.Abs(got-want) > 1e-5 {
				t.Errorf("%v, %d rows: loss %v, want %v", s, n, got, want)
			}
			grad := make([]float64, len(params))
			s.Gradient(params, data, .1, grad)
			if !near(grad, wantGrad, 1e-5) {
				t.Errorf("%v, %d rows: gradient\n%v, want\n%v", s, n, grad, wantGrad)
			}
			// And the textbook's gradient is that of its loss, wherever no
			// unit is switched on or off between the differences.
			const h = 1e-6
			wrong := 0
			for i, p := range params {
				params[i] = p + h
				up, _ := textbook(s, params, data, .1)
				params[i] = p - h
				down, _ := textbook(s, params, data, .1)
				params[i] = p
				if math.Abs((up-down)/(2*h)-wantGrad[i]) > 1e-6 {
					wrong++
				}
			}
			if wrong > len(params)/20 {
				t.Errorf("%v, %d rows: %d of %d derivatives are not those by differences", s, n, wrong, len(params))
			}
		}
	}
}

func TestPerceptronTrainsAsTheTextbook(t *testing.T) {
	for _, s := range nets {
		params, data := started(s, 2), numbers(s, 40, 1)
		want := slices.Clone(params)
		for range 30 {
			_, grad := textbook(s, want, data, .01)
			axpy(-.1, grad, want)
		}
		got, steps, err := s.Train(params, data, Training{Steps: 30, Rate: .1, L2: .01})
		if err != nil || steps != 30 || !near(got, want, 1e-4) {
			t.Errorf("%v: %d steps, %v\n%v, want\n%v", s, steps, err, got, want)
		}
		p := s.Predict(got, data)
		if len(p) != 40*s.Width() || !allFinite(p) {
			t.Errorf("%v: predictions %v", s, p)
		}
		if s.Classes > 0 {
			for row := range slices.Chunk(p, s.Classes) {
				if sum := sum(row); math.Abs(sum-1) > 1e-12 {
					t.Errorf("%v: probabilities %v", s, row)
				}
			}
		}
	}
}

func sum(xs []float64) (total float64) {
	for _, x := range xs {
		total += x
	}
	return total
}

func TestPerceptronLearnsXOR(t *testing.T) {
	data := dataset.Samples{N: 4, D: 2, X: []float64{-1, -1, -1, 1, 1, -1, 1, 1}, Y: []int{0, 1, 1, 0}, T: []float64{0, 1, 1, 0}}
	for _, classes := range []int{0, 2} {
		s := Spec{Kind: MLP, Inputs: 2, Classes: classes, Hidden: []int{8}}
		for _, o := range []Optimizer{SGD, Momentum, Adam} {
			rate := map[Optimizer]float64{SGD: .5, Momentum: .1, Adam: .02}[o]
			params, _, err := s.Train(s.Init(3), data, Training{Steps: 1000, Rate: rate, Optimizer: o})
			if err != nil {
				t.Fatal(err)
			}
			p := s.Predict(params, data)
			for i, y := range data.Y {
				if got := p[(i+1)*s.Width()-1]; math.Abs(got-float64(y)) > .1 {
					t.Errorf("%d classes, optimizer %q: row %d is predicted %v, and is %d", classes, o, i, got, y)
				}
			}
		}
	}
}

// The bits depend neither on where the memory lies, nor on what the scratch was
// used for, nor on the number of processors.
func TestPerceptronIsRepeatable(t *testing.T) {
	s := Spec{Kind: MLP, Inputs: 67, Classes: 10, Hidden: []int{131, 33}} // blocks of several, and odd ones
	data := numbers(s, 700, 1)
	training := Training{Steps: 6, Rate: .1, Batch: 200, Optimizer: Adam, L2: 1e-3}
	var want []float64
	var predicted []float64
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	var used Scratch
	for offset, procs := range []int{1, 2, 4, 4} {
		runtime.GOMAXPROCS(procs)
		data.X = append(make([]float64, offset), data.X...)[offset:]
		if procs > 1 {
			training.Scratch = &used
		}
		got, _, err := s.Train(s.Init(1), data, training)
		if err != nil {
			t.Fatal(err)
		}
		p := s.Predict(got, data)
		if want == nil {
			want, predicted = got, p
		}
		if !slices.Equal(got, want) || !slices.Equal(p, predicted) {
			t.Errorf("other bits with %d processors", procs)
		}
		for _, other := range nets { // leaves the scratch in another shape
			if _, _, err := other.Train(other.Init(1), numbers(other, 30, 1), Training{Steps: 2, Rate: .1, Scratch: &used}); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A batch of more rows than there are is the whole.
	few := numbers(nets[0], 9, 4)
	whole, _, err1 := nets[0].Train(nets[0].Init(1), few, Training{Steps: 3, Rate: .1})
	batch, _, err2 := nets[0].Train(nets[0].Init(1), few, Training{Steps: 3, Rate: .1, Batch: 10})
	if err1 != nil || err2 != nil || !slices.Equal(whole, batch) {
		t.Errorf("a batch of all rows: %v %v", err1, err2)
	}
}

func TestPerceptronMemoryIsAligned(t *testing.T) {
	var kept []float32
	for n := range 200 {
		if b := aligned(&kept, n); len(b) != n || n > 0 && uintptr(unsafe.Pointer(&b[0]))%16 != 0 {
			t.Fatalf("%d of %d numbers, or not from a multiple of 16 on", len(b), n)
		}
		if n%3 == 0 {
			kept = nil
		}
	}
}

// A long step can be ended, too; then it does not count.
func TestPerceptronStepCanBeEnded(t *testing.T) {
	s, calls := nets[0], 0
	data := numbers(s, 3*blockRows, 1)
	enough := func() error {
		if calls++; calls == 5 { // two blocks, a step; a block and another
			return ErrEnough
		}
		return nil
	}
	got, steps, err := s.Train(s.Init(1), data, Training{Steps: 9, Rate: .1, Progress: enough})
	want, _, _ := s.Train(s.Init(1), data, Training{Steps: 1, Rate: .1})
	if err != nil || steps != 1 || !slices.Equal(got, want) {
		t.Errorf("%d steps, %v", steps, err)
	}
}

func TestPerceptronDiverges(t *testing.T) {
	s := nets[1]
	data := numbers(s, 10, 1)
	if _, _, err := s.Train(s.Init(1), data, Training{Steps: 50, Rate: 1e30}); !errors.Is(err, ErrDiverged) {
		t.Errorf("rate 1e30: %v", err)
	}
	data.X[3] = 1e300 // infinite in 32 bits
	if _, _, err := s.Train(s.Init(1), data, Training{Steps: 1, Rate: .1}); !errors.Is(err, ErrDiverged) {
		t.Errorf("a row of 1e300: %v", err)
	}
	for _, s := range nets {
		data := numbers(s, 10, 1)
		data.X[0] = math.MaxFloat64
		huge := s.Init(1)
		for i := range huge {
			huge[i] *= 1e300
		}
		if p := s.Predict(huge, data); !allFinite(p) {
			t.Errorf("%v: huge parameters predict %v", s, p)
		}
	}
}

func TestPerceptronStepDoesNotAllocate(t *testing.T) {
	var work Scratch
	s := nets[1]
	data, params := numbers(s, 50, 1), s.Init(1)
	allocs := func(steps int) float64 {
		return testing.AllocsPerRun(10, func() {
			if _, _, err := s.Train(params, data, Training{Steps: steps, Rate: .01, Batch: 8, Optimizer: Adam, Scratch: &work}); err != nil {
				t.Fatal(err)
			}
		})
	}
	if one, many := allocs(1), allocs(100); many > one {
		t.Errorf("%v allocations for a step, %v for 100", one, many)
	}
}

// An epoch of 784-128-10 on 60,000 rows. It also reports how often as long as the
// bare matrix products of the same shapes it takes.
func BenchmarkMLPEpoch(b *testing.B) {
	s := Spec{Kind: MLP, Inputs: 784, Classes: 10, Hidden: []int{128}}
	const rows, batch = 60_000, 128
	data := numbers(s, rows, 1)
	params := s.Init(1)
	work := Scratch{}
	random := func(r, c int) blas32.General {
		var data []float32
		for i := range aligned(&data, r*c) {
			data[i] = rand.Float32() - .5
		}
		return matrix(r, c, data)
	}
	x, w, h, w2, z := random(batch, 784), random(128, 784), random(batch, 128), random(10, 128), random(batch, 10)
	for _, o := range []Optimizer{SGD, Adam} {
		b.Run(string(cmp.Or(o, "sgd")), func(b *testing.B) {
			steps := (rows + batch - 1) / batch
			var bare time.Duration
			for range b.N {
				if _, _, err := s.Train(params, data, Training{Steps: steps, Rate: .001, Batch: batch, Optimizer: o, Scratch: &work}); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				begin := time.Now()
				for range steps {
					blas32.Gemm(blas.NoTrans, blas.Trans, 1, x, w, 0, h)
					blas32.Gemm(blas.NoTrans, blas.Trans, 1, h, w2, 0, z)
					blas32.Gemm(blas.Trans, blas.NoTrans, 1, z, h, 0, w2)
					blas32.Gemm(blas.NoTrans, blas.NoTrans, 1, z, w2, 0, h)
					blas32.Gemm(blas.Trans, blas.NoTrans, 1, h, x, 0, w)
				}
				bare += time.Since(begin)
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed())/float64(bare), "x-gemm")
			b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/epoch")
		})
	}
}

// A step of a node with few rows.
func BenchmarkMLPStep(b *testing.B) {
	s := Spec{Kind: MLP, Inputs: 16, Classes: 10, Hidden: []int{32}}
	data := numbers(s, 30, 1)
	b.ReportAllocs()
	if _, _, err := s.Train(s.Init(1), data, Training{Steps: b.N, Rate: .001}); err != nil {
		b.Fatal(err)
	}
}
