// Package learn holds the models, their local steps, and the honest counting of
// how well they do. It has no state and no randomness of its own: the same
// arguments give the same bytes on one architecture, wherever their memory
// lies. (Between architectures the last bit may differ: exponentials are
// computed by other instructions, and products and sums are fused or not.)
//
// A model is a linear classifier: a row x of Inputs numbers gives each output
// the score weight·x + bias. Its parameters are one vector: the weights, row-major
// with shape outputs x Inputs, then the biases.
package learn

import (
	"errors"
	"fmt"
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
	case Logistic:
		if s.Classes != 2 {
			return fmt.Errorf("logistic regression has two classes, not %d: use softmax", s.Classes)
		}
	case Softmax:
		if s.Classes < 2 || s.Classes > MaxClasses {
			return fmt.Errorf("softmax regression has 2 to %d classes, not %d", MaxClasses, s.Classes)
		}
	default:
		return fmt.Errorf("model %q is not known: it is logistic or softmax", s.Kind)
	}
	if s.Inputs < 1 || s.Inputs > MaxInputs {
		return fmt.Errorf("a model has 1 to %d inputs, not %d", MaxInputs, s.Inputs)
	}
	if s.Inputs+1 > MaxParams/s.outputs() {
		return fmt.Errorf("a model of %d inputs and %d classes has more than %d parameters", s.Inputs, s.Classes, MaxParams)
	}
	return nil
}

func (s Spec) outputs() int {
	if s.Kind == Logistic {
		return 1
	}
	return s.Classes
}

// Params returns the length of the parameter vector.
func (s Spec) Params() int { return s.outputs() * (s.Inputs + 1) }

// Shapes returns the parts of the parameter vector in their order.
func (s Spec) Shapes() []TensorShape {
	return []TensorShape{
		{"weight", []int{s.outputs(), s.Inputs}},
		{"bias", []int{s.outputs()}},
	}
}

// Init returns the parameters that training starts from: zeros. The loss of a
// linear model is convex, so that another start would only hide what the rows say
// behind what it adds, and two runs on the same rows would differ.
func (s Spec) Init() []float64 { return make([]float64, s.Params()) }

// Tensors returns the parameters as named tensors, which share their memory.
func (s Spec) Tensors(params []float64) []safetensors.Tensor {
	tensors := make([]safetensors.Tensor, 0, 2)
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
		return nil, fmt.Errorf("a %s model has the tensors weight and bias, here are %d", s.Kind, len(ts))
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

// allFinite is false where an element is NaN or infinite: its difference with
// itself is NaN.
func allFinite(xs []float64) bool {
	for _, x := range xs {
		if x-x != 0 {
			return false
		}
	}
	return true
}
