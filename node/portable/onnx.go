// Package portable writes models in forms that other tools read: as ONNX, with
// the whole way from raw columns to predictions in the graph, and as a model card
// in Markdown with the metadata that model hubs read.
package portable

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/task"
)

// largest is the magnitude of the numbers that a table may hold.
const largest = 1e100

// The outputs of an ONNX model.
const (
	Probabilities = "probabilities"
	Label         = "label"
	Prediction    = "prediction"
)

// ONNX returns the model as an ONNX file that predicts from raw columns.
//
// Every column is an input of shape N x 1 with the column's name (and _ behind
// it, should an output be called so): tensor(double) where it is numeric, with NaN
// for a missing cell; tensor(string) where it is categorical, with "" for a missing
// cell and numbers among the levels written in their shortest form: 1, not 1.0.
//
// The outputs of a classifier are "probabilities", tensor(float) of shape N x
// classes in the encoding's order, and "label", tensor(string) of shape N. That of
// a regression is "prediction", tensor(double) of shape N x 1 in the target's own
// unit. A row that the model cannot predict, as one with a missing cell that nothing
// fills, or with a level that is not known, is NaN and has the label "".
//
// What comes before the scaled features is computed in double precision, so that
// columns far from 0, such as years, lose nothing; the model itself in single. The
// graph needs the operators of ai.onnx 17 and ai.onnx.ml 3.
func ONNX(m task.Model) ([]byte, error) {
	if err := check(m); err != nil {
		return nil, fmt.Errorf("onnx: %w", err)
	}
	g := newGraph(Probabilities, Label, Prediction)
	inputs := inputsOf(g, m.Encoding)
	var columns []string
	for _, f := range m.Encoding.Features {
		values, err := g.feature(f, inputs[f.Name])
		if err != nil {
			return nil, fmt.Errorf("onnx: column %q: %w", f.Name, err)
		}
		columns = append(columns, values...)
	}
	x := g.op("Concat", columns, integer("axis", 1))
	// Units of a hidden layer may swallow a NaN, so that refused rows are marked
	// here.
	refused := g.op("ReduceMax", []string{g.cast(g.op("IsNaN", []string{x}), float32s)},
		integerList("axes", 1), integer("keepdims", 1))
	refused = g.cast(refused, bools)

	width := m.Encoding.Width()
	x = g.op("Sub", []string{x, g.doubles([]int{1, width}, m.Scaling.Mean[:width]...)})
	x = g.op("Div", []string{x, g.doubles([]int{1, width}, m.Scaling.SD[:width]...)})
	switch scores, outputs := g.layers(g.cast(x, float32s), m.Spec, m.Params); {
	case len(m.Encoding.Classes) == 0:
		g.value(scores, refused, m.Scaling.Mean[width], m.Scaling.SD[width], m.Encoding.Target)
	case outputs == 1:
		p := g.op("Sigmoid", []string{scores})
		q := g.op("Sub", []string{g.floats(nil, []float64{1}), p})
		g.classes(g.op("Concat", []string{q, p}, integer("axis", 1)), refused, m.Encoding)
	default:
		g.classes(g.op("Softmax", []string{scores}, integer("axis", 1)), refused, m.Encoding)
	}

	encoding, err := json.Marshal(m.Encoding)
	if err != nil {
		return nil, fmt.Errorf("onnx: %w", err)
	}
	return g.model("village", about(m), []property{
		{"village.task", m.Task.String()},
		{"village.name", m.Name},
		{"village.round", strconv.FormatUint(m.Round, 10)},
		{"village.model", string(m.Spec.Kind)},
		{"village.encoding", string(encoding)},
	}), nil
}

// check refuses a model of which not all parts fit, as those do that
// [task.UnmarshalModel] reads.
func check(m task.Model) error {
	if err := cmp.Or(m.Encoding.Check(), m.Spec.Check()); err != nil {
		return err
	}
	width := m.Encoding.Width()
	columns := width
	if len(m.Encoding.Classes) == 0 {
		columns++ // the target
	}
	if m.Spec.Inputs != width || m.Spec.Classes != len(m.Encoding.Classes) || len(m.Params) != m.Spec.Params() ||
		len(m.Scaling.Mean) != columns || len(m.Scaling.SD) != columns {
		return errors.New("the encoding, the scaling and the parameters are not of one model")
	}
	return nil
}

// about is a sentence about the model.
func about(m task.Model) string {
	what := fmt.Sprintf("the probabilities of the classes %s of %s", strings.Join(m.Encoding.Classes, ", "), m.Encoding.Target)
	if len(m.Encoding.Classes) == 0 {
		what = m.Encoding.Target
	}
	return fmt.Sprintf("%s: predicts %s from raw columns. A model of the Village task %s.", m.Name, what, m.Task)
}

// inputsOf declares the raw columns, each once, and returns the inputs' names by
// column.
func inputsOf(g *graph, e dataset.Encoding) map[string]string {
	inputs := map[string]string{}
	for _, f := range e.Features {
		if inputs[f.Name] != "" {
			continue
		}
		name := g.named(f.Name)
		inputs[f.Name] = name
		if f.Kind == dataset.Numeric {
			doc := "column " + f.Name
			if f.Unit != "" {
				doc += ", in " + f.Unit
			}
			g.input(name, float64s, doc+"; NaN where missing")
		} else {
			g.input(name, texts, "column "+f.Name+"; empty where missing")
		}
	}
	return inputs
}

// feature adds the recipe of a feature and returns the names of its columns,
// doubles of shape N x any, in the order of the encoding.
func (g *graph) feature(f dataset.FeatureSpec, cells string) ([]string, error) {
	if f.Kind == dataset.Categorical {
		return g.categorical(f, cells)
	}
	return g.numeric(f, cells)
}

func (g *graph) numeric(f dataset.FeatureSpec, x string) ([]string, error) {
	nan := g.scalar(math.NaN())
	for _, code := range f.Absent {
		v, err := strconv.ParseFloat(code, 64)
		if err != nil {
			continue // a word, which is no number of the input
		}
		x = g.op("Where", []string{g.op("Equal", []string{x, g.scalar(v)}), nan, x})
	}
	missing := ""
	if f.Fill != "" || f.Indicator {
		missing = g.op("IsNaN", []string{x})
	}
	if f.Fill != "" {
		v, err := strconv.ParseFloat(f.Fill, 64)
		if err != nil {
			return nil, fmt.Errorf("it is filled with %.40q, which is no number", f.Fill)
		}
		x = g.op("Where", []string{missing, g.scalar(v), x})
	}
	// What no table can hold is refused. A comparison with NaN is false.
	x = g.op("Where", []string{g.op("LessOrEqual", []string{g.op("Abs", []string{x}), g.scalar(largest)}), x, nan})
	// These keep a NaN, as Clip need not.
	if len(f.Clip) == 2 {
		low, high := g.scalar(f.Clip[0]), g.scalar(f.Clip[1])
		x = g.op("Where", []string{g.op("Less", []string{x, low}), low, x})
		x = g.op("Where", []string{g.op("Greater", []string{x, high}), high, x})
	}
	if f.Times != 0 {
		x = g.op("Mul", []string{x, g.scalar(f.Times)})
	}
	if f.Abs {
		x = g.op("Abs", []string{x})
	}
	if f.Log {
		log := g.op("Log", []string{g.op("Add", []string{x, g.scalar(1)})})
		x = g.op("Where", []string{g.op("Greater", []string{x, g.scalar(-1)}), log, nan})
	}
	columns := []string{x}
	if f.Period != 0 {
		rest := g.op("Mod", []string{x, g.scalar(f.Period)}, integer("fmod", 1))
		angle := g.op("Mul", []string{g.op("Div", []string{rest, g.scalar(f.Period)}), g.scalar(2 * math.Pi)})
		// Runtimes have the cosine of single precision alone.
		quarter := g.op("Add", []string{angle, g.scalar(math.Pi / 2)})
		columns = []string{g.op("Sin", []string{angle}), g.op("Sin", []string{quarter})}
	}
	if f.Indicator {
		columns = append(columns, g.cast(missing, float64s))
	}
	return columns, nil
}

func (g *graph) categorical(f dataset.FeatureSpec, cells string) ([]string, error) {
	// The place of a level, -1 for what is refused.
	place := func(level string) (int64, error) {
		if level == "" {
			return -1, nil
		}
		i := slices.Index(f.Levels, level)
		if i < 0 {
			return 0, fmt.Errorf("%.40q is not one of its levels", level)
		}
		return int64(i), nil
	}
	fill, err := place(f.Fill)
	if err != nil {
		return nil, err
	}
	other, err := place(f.Other)
	if err != nil {
		return nil, err
	}
	absent := append([]string{""}, f.Absent...)
	keys, values := slices.Clone(absent), []int64{}
	for range absent {
		values = append(values, fill)
	}
	for i, level := range f.Levels {
		if !slices.Contains(absent, level) {
			keys, values = append(keys, level), append(values, int64(i))
		}
	}
	code := g.lookUp(cells, keys, values, other)

	x := code
	if !f.Ordinal {
		numbers := make([]int64, len(f.Levels)-1)
		for i := range numbers {
			numbers[i] = int64(i + 1)
		}
		x = g.op("Equal", []string{code, g.integers([]int{1, len(numbers)}, numbers...)})
	}
	x = g.cast(x, float64s)
	if fill < 0 || other < 0 {
		unknown := g.op("Less", []string{code, g.integers(nil, 0)})
		x = g.op("Where", []string{unknown, g.scalar(math.NaN()), x})
	}
	if !f.Indicator {
		return []string{x}, nil
	}
	ones := make([]int64, len(absent))
	for i := range ones {
		ones[i] = 1
	}
	return []string{x, g.cast(g.lookUp(cells, absent, ones, 0), float64s)}, nil
}

// lookUp maps strings to integers.
func (g *graph) lookUp(cells string, keys []string, values []int64, otherwise int64) string {
	return g.op("LabelEncoder", []string{cells},
		textList("keys_strings", keys), integerList("values_int64s", values...), integer("default_int64", int(otherwise)))
}

// layers adds the model's layers, with rectified linear units between them, and
// returns the name of the scores and how many there are.
func (g *graph) layers(x string, spec learn.Spec, params []float64) (scores string, outputs int) {
	tensors := spec.Tensors(params)
	for i := 0; i < len(tensors); i += 2 {
		weight, bias := tensors[i], tensors[i+1]
		if i > 0 {
			x = g.op("Relu", []string{x})
		}
		x = g.op("Gemm", []string{x, g.floats(weight.Shape, weight.F64), g.floats(bias.Shape, bias.F64)}, integer("transB", 1))
		outputs = bias.Shape[0]
	}
	return x, outputs
}

// classes adds the outputs of a classifier.
func (g *graph) classes(p, refused string, e dataset.Encoding) {
	nan := g.floats(nil, []float64{math.NaN()})
	g.opTo(Probabilities, "Where", []string{refused, nan, p})
	g.output(Probabilities, float32s, len(e.Classes), "of the classes "+strings.Join(e.Classes, ", ")+"; NaN where a row is refused")

	best := g.op("ArgMax", []string{p}, integer("axis", 1), integer("keepdims", 1))
	best = g.op("Where", []string{refused, g.integers(nil, -1), best})
	best = g.op("Squeeze", []string{best, g.integers([]int{1}, 1)})
	places := make([]int64, len(e.Classes))
	for i := range places {
		places[i] = int64(i)
	}
	g.opTo(Label, "LabelEncoder", []string{best},
		integerList("keys_int64s", places...), textList("values_strings", e.Classes), text("default_string", ""))
	g.output(Label, texts, 0, "the most probable class, of equal ones the first; empty where a row is refused")
}

// value adds the output of a regression, whose scores are for a target that was
// scaled.
func (g *graph) value(scores, refused string, mean, sd float64, target string) {
	y := g.op("Mul", []string{g.cast(scores, float64s), g.scalar(sd)})
	y = g.op("Add", []string{y, g.scalar(mean)})
	g.opTo(Prediction, "Where", []string{refused, g.scalar(math.NaN()), y})
	g.output(Prediction, float64s, 1, target+", in its own unit; NaN where a row is refused")
}
