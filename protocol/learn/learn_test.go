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
