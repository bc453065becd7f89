// Package learn holds the models, their local steps, and the honest counting of
// how well they do. It has no state and no randomness of its own: the same
// arguments give the same bytes on one architecture, wherever their memory
// lies and however many processors there are. (Between architectures the last
// bit may differ: exponentials are computed by other instructions, and products
// and sums are fused or not.)
//
// A model is layers, one after another. A layer turns a row x of numbers into
// weight·x + bias; between layers stands the rectifier max(0, ·). What the last one
// gives are the scores of the outputs. Regressions have one layer, a perceptron has
// more. The parameters are one vector: of each layer in turn the weights,
// row-major with shape outputs x inputs, then the biases.
package learn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"village/protocol/safetensors"
)

// Kind names a family of models.
type Kind string

const (
	// Logistic regression has two classes and one output: the log-odds of
	// class 1.
	Logistic Kind = "logistic"
	// Softmax, or multinomial logistic, regression has an output a class:
	// its log-probability up to a constant.
	Softmax Kind = "softmax"
	// Linear regression has one output: the value of a numeric target.
	Linear Kind = "linear"
	// MLP, a multi-layer perceptron, has hidden layers of rectified linear
	// units (ReLU), and the outputs of the regression that its target asks for.
	MLP Kind = "mlp"
)

const (
	// MaxInputs is the largest number of inputs.
	MaxInputs = 1_000_000
	// MaxClasses is the largest number of classes: a confusion matrix is
	// part of a record.
	MaxClasses = 256
	// MaxLayers is the largest number of hidden layers.
	MaxLayers = 8
	// MaxWidth is the largest number of units of a hidden layer.
	MaxWidth = 65_536
	// MaxParams is the largest number of parameters.
	MaxParams = 100_000_000
)

// Spec is the shape of a model.
type Spec struct {
	Kind    Kind `cbor:"kind" json:"kind"`
	Inputs  int  `cbor:"inputs" json:"inputs"`
	Classes int  `cbor:"classes" json:"classes"` // 0 where the target is numeric
	// Hidden are the widths of a perceptron's hidden layers, from the inputs on.
	Hidden []int `cbor:"hidden,omitempty" json:"hidden,omitempty"`
}

// Equal tells whether two specs are the same.
func (s Spec) Equal(o Spec) bool {
	return s.Kind == o.Kind && s.Inputs == o.Inputs && s.Classes == o.Classes && slices.Equal(s.Hidden, o.Hidden)
}

// Part is a part of the parameters that a node may have for itself.
type Part string

// The parts.
const (
	NoPart    Part = ""
	Bias      Part = "bias"       // of the outputs
	LastLayer Part = "last-layer" // weights and biases of the outputs
)

// TensorShape names a part of the parameters.
type TensorShape struct {
	Name  string
	Shape []int
}

// Check refuses a spec that is no model. The other methods need one that
// passes.
func (s Spec) Check() error {
	switch s.Kind {
	case Linear:
		if s.Classes != 0 {
			return fmt.Errorf("linear regression has a numeric target, not %d classes: use logistic or softmax", s.Classes)
		}
	case Logistic:
		if s.Classes != 2 {
			return fmt.Errorf("logistic regression has two classes, not %d: use softmax, or linear for a numeric target", s.Classes)
		}
	case Softmax:
		if s.Classes < 2 || s.Classes > MaxClasses {
			return fmt.Errorf("softmax regression has 2 to %d classes, not %d", MaxClasses, s.Classes)
		}
	case MLP:
		if s.Classes != 0 && (s.Classes < 2 || s.Classes > MaxClasses) {
			return fmt.Errorf("a perceptron has 2 to %d classes, or 0 for a numeric target, not %d", MaxClasses, s.Classes)
		}
	default:
		return fmt.Errorf("model %q is not known: it is linear, logistic, softmax or mlp", s.Kind)
	}
	if s.Inputs < 1 || s.Inputs > MaxInputs {
		return fmt.Errorf("a model has 1 to %d inputs, not %d", MaxInputs, s.Inputs)
	}
	if s.Kind == MLP && (len(s.Hidden) < 1 || len(s.Hidden) > MaxLayers) {
		return fmt.Errorf("a perceptron has 1 to %d hidden layers, not %d", MaxLayers, len(s.Hidden))
	}
	if s.Kind != MLP && len(s.Hidden) > 0 {
		return fmt.Errorf("a %s model has no hidden layers: use mlp", s.Kind)
	}
	for _, width := range s.Hidden {
		if width < 1 || width > MaxWidth {
			return fmt.Errorf("a hidden layer has 1 to %d units, not %d", MaxWidth, width)
		}
	}
	total := 0
	for _, l := range s.layers() {
		if total += l.params(); total > MaxParams { // a layer has at most 7e10
			return fmt.Errorf("a model of %d inputs, %d outputs and hidden layers %v has more than %d parameters", s.Inputs, s.outputs(), s.Hidden, MaxParams)
		}
	}
	return nil
}

// layer is a part of the parameter vector: weights from at on, row-major with
// shape out x in, then the biases.
type layer struct{ at, in, out int }

func (l layer) params() int { return l.out * (l.in + 1) }

// split returns the weights and the biases of the layer among the parameters,
// or whatever else has their shape.
func split[F float](l layer, params []F) (weights, biases []F) {
	params = params[l.at : l.at+l.params()]
	return params[:l.out*l.in], params[l.out*l.in:]
}

// layers are the hidden ones, then that of the outputs.
func (s Spec) layers() []layer {
	layers := make([]layer, 0, len(s.Hidden)+1)
	next := layer{in: s.Inputs}
	for _, next.out = range s.Hidden {
		layers = append(layers, next)
		next = layer{at: next.at + next.params(), in: next.out}
	}
	next.out = s.outputs()
	return append(layers, next)
}

// outputs returns the number of scores: two classes have one, the log-odds of
// class 1, except under softmax regression.
func (s Spec) outputs() int {
	if s.Kind == Softmax || s.Classes > 2 {
		return s.Classes
	}
	return 1
}

// Width returns how many numbers a prediction is: the probability of each class,
// or the one value of a numeric target.
func (s Spec) Width() int { return max(s.Classes, 1) }

// Params returns the length of the parameter vector.
func (s Spec) Params() int {
	n, in := 0, s.Inputs
	for _, out := range s.Hidden {
		n, in = n+out*(in+1), out
	}
	return n + s.outputs()*(in+1)
}

// Span returns where a part stands in the parameter vector. That of the outputs is
// the last, and its biases are at the end.
func (s Spec) Span(p Part) (from, to int) {
	layers := s.layers()
	last := layers[len(layers)-1]
	switch end := last.at + last.params(); p {
	case Bias:
		return end - last.out, end
	case LastLayer:
		return last.at, end
	default:
		return 0, 0
	}
}

// Shapes returns the parts of the parameter vector in their order.
func (s Spec) Shapes() []TensorShape {
	var shapes []TensorShape
	for i, l := range s.layers() {
		prefix := ""
		if s.Kind == MLP {
			prefix = fmt.Sprintf("layers.%d.", i)
		}
		shapes = append(shapes, TensorShape{prefix + "weight", []int{l.out, l.in}}, TensorShape{prefix + "bias", []int{l.out}})
	}
	return shapes
}

// Init returns the parameters that training starts from. For the regressions they
// are zeros: their loss is convex, so that another start would only hide what
// the rows say behind what it adds, and two runs on the same rows would differ.
// The weights of a perceptron's hidden layers are normal with variance 2/inputs
// (He et al. 2015), those of its outputs a tenth of that in size, so that it
// starts out undecided; biases are zero. They are the same on every architecture.
func (s Spec) Init(seed uint64) []float64 {
	params := make([]float64, s.Params())
	if s.Kind != MLP {
		return params
	}
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	stream := rand.NewChaCha8(key)
	layers := s.layers()
	for i, l := range layers {
		sd := math.Sqrt(2 / float64(l.in))
		if i == len(layers)-1 {
			sd /= 10
		}
		weights, _ := split(l, params)
		for j := range weights {
			weights[j] = sd * normal(stream)
		}
	}
	return params
}

// normal returns a number that is as good as normal, of mean 0 and variance 1:
// the sum of twelve uniform ones. Unlike those by logarithms it is exact, so that
// all machines draw the same.
func normal(stream *rand.ChaCha8) float64 {
	sum := int64(6) - 6<<32 // each stands for the middle of its 2^-32
	for range 6 {
		u := stream.Uint64()
		sum += int64(u>>32) + int64(u&math.MaxUint32)
	}
	return float64(sum) / (1 << 32)
}

// Tensors returns the parameters as named tensors, which share their memory.
func (s Spec) Tensors(params []float64) []safetensors.Tensor {
	var tensors []safetensors.Tensor
	for _, shape := range s.Shapes() {
		n := size(shape.Shape)
		tensors = append(tensors, safetensors.Tensor{
			Name: shape.Name, DType: safetensors.F64, Shape: shape.Shape, F64: params[:n:n],
		})
		params = params[n:]
	}
	return tensors
}

// FromTensors is the inverse of [Spec.Tensors] for tensors in any order. It
// copies, and refuses tensors that are missing, superfluous, of another shape
// or type, or not finite.
func (s Spec) FromTensors(ts []safetensors.Tensor) ([]float64, error) {
	shapes := s.Shapes()
	if len(ts) != len(shapes) {
		return nil, fmt.Errorf("a model of these layers has %d tensors, here are %d", len(shapes), len(ts))
	}
	var parts [][]float64
	for _, shape := range shapes {
		i := slices.IndexFunc(ts, func(t safetensors.Tensor) bool { return t.Name == shape.Name })
		if i < 0 {
			return nil, fmt.Errorf("the tensor %s is missing", shape.Name)
		}
		t := ts[i]
		if t.DType != safetensors.F64 || !slices.Equal(t.Shape, shape.Shape) || len(t.F64) != size(shape.Shape) {
			return nil, fmt.Errorf("the tensor %s is %s %v, the model needs F64 %v", t.Name, t.DType, t.Shape, shape.Shape)
		}
		parts = append(parts, t.F64)
	}
	params := slices.Concat(parts...)
	if !allFinite(params) {
		return nil, errNotFinite
	}
	return params, nil
}

var errNotFinite = errors.New("a parameter is not finite")

// size returns the number of elements of one of a checked spec's shapes.
func size(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// float is what parameters are: a perceptron computes with half the bits.
type float interface{ float32 | float64 }

// allFinite is false where an element is NaN or infinite: its difference with
// itself is NaN.
func allFinite[F float](xs []F) bool {
	for _, x := range xs {
		if x-x != 0 {
			return false
		}
	}
	return true
}
