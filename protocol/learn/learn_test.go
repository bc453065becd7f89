package learn

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"village/protocol/dataset"
	"village/protocol/safetensors"
)

// random returns rows with normal features, and classes that follow a random
// model of steepness scale and with a lower bias for the later classes.
func random(s Spec, n int, seed uint64, scale, bias float64) (truth []float64, data dataset.Samples) {
	r := rand.New(rand.NewPCG(seed, 1))
	truth = make([]float64, s.Params())
	for i := range truth {
		truth[i] = scale * r.NormFloat64()
	}
	o := s.outputs()
	for c := range o {
		truth[o*s.Inputs+c] = bias * float64(c+2-o)
	}
	data = dataset.Samples{N: n, D: s.Inputs, X: make([]float64, n*s.Inputs), Y: make([]int, n)}
	for i := range data.X {
		data.X[i] = r.NormFloat64()
	}
	p := s.Predict(truth, data)
	for i := range data.Y {
		u := r.Float64()
		for c := range s.Classes {
			u -= p[i*s.Classes+c]
			if u < 0 {
				data.Y[i] = c
				break
			}
		}
	}
	return truth, data
}

func TestSpecCheck(t *testing.T) {
	for _, c := range []struct {
		spec Spec
		want string // "" where it passes
	}{
		{Spec{Kind: Logistic, Inputs: 1, Classes: 2}, ""},
		{Spec{Kind: Logistic, Inputs: MaxInputs, Classes: 2}, ""},
		{Spec{Kind: Softmax, Inputs: 10, Classes: 2}, ""},
		{Spec{Kind: Softmax, Inputs: 10, Classes: MaxClasses}, ""},
		{Spec{Kind: Softmax, Inputs: 999_999, Classes: 100}, ""},
		{Spec{Kind: Softmax, Inputs: 1_000_000, Classes: 100}, "parameters"},
		{Spec{Kind: Logistic, Inputs: 3, Classes: 3}, "use softmax"},
		{Spec{Kind: Softmax, Inputs: 3, Classes: 1}, "classes"},
		{Spec{Kind: Softmax, Inputs: 3, Classes: MaxClasses + 1}, "classes"},
		{Spec{Kind: Softmax, Inputs: math.MaxInt, Classes: math.MaxInt}, "classes"},
		{Spec{Kind: Softmax, Inputs: math.MaxInt, Classes: 2}, "inputs"},
		{Spec{Kind: Logistic, Inputs: 0, Classes: 2}, "inputs"},
		{Spec{Kind: Logistic, Inputs: -1, Classes: 2}, "inputs"},
		{Spec{Kind: "tree", Inputs: 3, Classes: 2}, "not known"},
		{Spec{Kind: Linear, Inputs: 3}, ""},
		{Spec{Kind: Linear, Inputs: 3, Classes: 2}, "numeric target"},
		{Spec{Kind: Logistic, Inputs: 3}, "linear for a numeric"},
		{Spec{Kind: Logistic, Inputs: 3, Classes: 2, Hidden: []int{2}}, "use mlp"},
		{Spec{Kind: MLP, Inputs: 3, Hidden: []int{1}}, ""},
		{Spec{Kind: MLP, Inputs: 3, Classes: 2, Hidden: slices.Repeat([]int{9}, MaxLayers)}, ""},
		{Spec{Kind: MLP, Inputs: 3, Classes: MaxClasses, Hidden: []int{MaxWidth}}, ""},
		{Spec{Kind: MLP, Inputs: 3, Classes: 2}, "hidden layers"},
		{Spec{Kind: MLP, Inputs: 3, Classes: 2, Hidden: slices.Repeat([]int{9}, MaxLayers+1)}, "hidden layers"},
		{Spec{Kind: MLP, Inputs: 3, Classes: 2, Hidden: []int{3, 0}}, "units"},
		{Spec{Kind: MLP, Inputs: 3, Classes: 2, Hidden: []int{MaxWidth + 1}}, "units"},
		{Spec{Kind: MLP, Inputs: 3, Classes: 1, Hidden: []int{3}}, "classes"},
		{Spec{Kind: MLP, Inputs: 3, Classes: -2, Hidden: []int{3}}, "classes"},
		{Spec{Kind: MLP, Inputs: 3, Classes: MaxClasses + 1, Hidden: []int{3}}, "classes"},
		{Spec{Kind: MLP, Inputs: 3, Classes: 2, Hidden: []int{9999, 9999, 9999}}, "parameters"},
		{Spec{Kind: MLP, Inputs: MaxInputs, Classes: 2, Hidden: slices.Repeat([]int{MaxWidth}, MaxLayers)}, "parameters"},
	} {
		err := c.spec.Check()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v: %v, want %q", c.spec, err, c.want)
		}
	}
}

func TestTensors(t *testing.T) {
	s := Spec{Kind: Softmax, Inputs: 2, Classes: 3}
	params := []float64{1, 2, 3, 4, 5, 6, 7, 8, 9}
	b, err := safetensors.Marshal(s.Tensors(params), nil)
	if err != nil {
		t.Fatal(err)
	}
	ts, _, err := safetensors.Unmarshal(b, safetensors.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if ts[0].Name != "bias" || !slices.Equal(ts[0].F64, params[6:]) || !slices.Equal(ts[0].Shape, []int{3}) ||
		ts[1].Name != "weight" || !slices.Equal(ts[1].F64, params[:6]) || !slices.Equal(ts[1].Shape, []int{3, 2}) {
		t.Fatalf("in the file: %v", ts)
	}
	got, err := s.FromTensors(ts)
	if err != nil || !slices.Equal(got, params) {
		t.Fatalf("back: %v %v", got, err)
	}
	got[0] = 100
	if ts[1].F64[0] != 1 {
		t.Error("FromTensors did not copy")
	}

	weight, bias := ts[1], ts[0]
	change := func(f func(*safetensors.Tensor)) []safetensors.Tensor {
		w := weight
		w.F64 = slices.Clone(w.F64)
		f(&w)
		return []safetensors.Tensor{w, bias}
	}
	for name, ts := range map[string][]safetensors.Tensor{
		"none":        nil,
		"one":         {weight},
		"twice":       {weight, weight},
		"three":       {weight, bias, bias},
		"name":        change(func(w *safetensors.Tensor) { w.Name = "weights" }),
		"transposed":  change(func(w *safetensors.Tensor) { w.Shape = []int{2, 3} }),
		"flat":        change(func(w *safetensors.Tensor) { w.Shape = []int{6} }),
		"type":        change(func(w *safetensors.Tensor) { w.DType = safetensors.F32 }),
		"short":       change(func(w *safetensors.Tensor) { w.F64 = w.F64[:5] }),
		"not finite":  change(func(w *safetensors.Tensor) { w.F64[3] = math.NaN() }),
		"other model": Spec{Kind: Softmax, Inputs: 3, Classes: 3}.Tensors(make([]float64, 12)),
	} {
		if got, err := s.FromTensors(ts); err == nil {
			t.Errorf("%s: gave %v", name, got)
		}
	}
}

func TestTensorsOfAPerceptron(t *testing.T) {
	s := Spec{Kind: MLP, Inputs: 2, Classes: 3, Hidden: []int{4, 5}}
	params := make([]float64, s.Params())
	for i := range params {
		params[i] = float64(i)
	}
	b, err := safetensors.Marshal(s.Tensors(params), nil)
	if err != nil {
		t.Fatal(err)
	}
	ts, _, err := safetensors.Unmarshal(b, safetensors.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	at := 0.0
	for _, want := range []TensorShape{
		{"layers.0.weight", []int{4, 2}}, {"layers.0.bias", []int{4}}, {"layers.1.weight", []int{5, 4}},
		{"layers.1.bias", []int{5}}, {"layers.2.weight", []int{3, 5}}, {"layers.2.bias", []int{3}},
	} {
		i := slices.IndexFunc(ts, func(t safetensors.Tensor) bool { return t.Name == want.Name })
		if i < 0 || !slices.Equal(ts[i].Shape, want.Shape) || ts[i].F64[0] != at {
			t.Fatalf("%s in %v", want.Name, ts)
		}
		at += float64(len(ts[i].F64))
	}
	if got, err := s.FromTensors(ts); err != nil || !slices.Equal(got, params) {
		t.Errorf("back: %v %v", got, err)
	}
	if got, err := s.FromTensors(ts[1:]); err == nil {
		t.Errorf("without a tensor: %v", got)
	}
}

func TestSpan(t *testing.T) {
	for _, c := range []struct {
		spec       Spec
		bias, last int // where they begin; they end with the vector
	}{
		{Spec{Kind: Linear, Inputs: 3}, 3, 0},
		{Spec{Kind: Logistic, Inputs: 3, Classes: 2}, 3, 0},
		{Spec{Kind: Softmax, Inputs: 3, Classes: 2}, 6, 0},
		{Spec{Kind: MLP, Inputs: 3, Classes: 2, Hidden: []int{4}}, 20, 16},
		{Spec{Kind: MLP, Inputs: 3, Classes: 5, Hidden: []int{4, 2}}, 16 + 10 + 10, 16 + 10},
	} {
		n := c.spec.Params()
		for p, want := range map[Part]int{Bias: c.bias, LastLayer: c.last} {
			if from, to := c.spec.Span(p); from != want || to != n {
				t.Errorf("%v: %s from %d to %d, want %d to %d", c.spec, p, from, to, want, n)
			}
		}
		if from, to := c.spec.Span(NoPart); from != 0 || to != 0 {
			t.Errorf("%v: no part from %d to %d", c.spec, from, to)
		}
	}
}

func TestInit(t *testing.T) {
	for _, s := range []Spec{{Kind: Linear, Inputs: 3}, {Kind: Softmax, Inputs: 3, Classes: 4}} {
		if got := s.Init(7); !slices.Equal(got, make([]float64, s.Params())) {
			t.Errorf("%v starts from %v", s, got)
		}
	}
	s := Spec{Kind: MLP, Inputs: 50, Classes: 4, Hidden: []int{400, 100}}
	params := s.Init(7)
	for i, l := range s.layers() {
		weights, biases := split(l, params)
		want := 2 / float64(l.in)
		if i == 2 {
			want /= 100
		}
		mean, variance := sum(weights)/float64(len(weights)), dot(weights, weights)/float64(len(weights))
		if math.Abs(mean) > .1*math.Sqrt(want) || math.Abs(variance/want-1) > .2 {
			t.Errorf("layer %d: mean %v, variance %v, want 0, %v", i, mean, variance, want)
		}
		if !slices.Equal(biases, make([]float64, l.out)) {
			t.Errorf("layer %d: biases %v", i, biases)
		}
	}
	if !slices.Equal(params, s.Init(7)) || slices.Equal(params, s.Init(8)) {
		t.Error("the seed does not decide")
	}
	// Nodes of all architectures start alike.
	if want := []float64{-0.25372778582386674, -0.12523988825269045}; !slices.Equal(params[:2], want) {
		t.Errorf("starts with %v, want %v", params[:2], want)
	}
}
