package portable

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/record"
	"village/protocol/task"
)

// everyStep is a recipe of each kind, and all together.
func everyStep() []dataset.FeatureSpec {
	num, cat := dataset.Numeric, dataset.Categorical
	return []dataset.FeatureSpec{
		{Name: "age", Kind: num, Unit: "year"},
		{Name: "year", Kind: num},
		{Name: "pressure", Kind: num, Unit: "Pa", Fill: "101325"},
		{Name: "chol", Kind: num, Absent: []string{"-9", "0"}, Fill: "210.5", Indicator: true},
		{Name: "wind", Kind: num, Clip: []float64{-2, 12.5}},
		{Name: "rain", Kind: num, Fill: "-30", Clip: []float64{0, 1e6}, Times: 10, Log: true},
		{Name: "snow", Kind: num, Log: true},
		{Name: "lat", Kind: num},
		{Name: "lat", Kind: num, Times: -.5, Abs: true},
		{Name: "hour", Kind: num, Period: 24},
		{Name: "month", Kind: num, Absent: []string{"99"}, Fill: "6", Indicator: true, Period: 12},
		{Name: "all steps", Kind: num, Absent: []string{"-1"}, Fill: "3", Indicator: true, Clip: []float64{-100, 90}, Times: .1, Abs: true, Log: true, Period: 7},
		{Name: "cp", Kind: cat, Levels: []string{"1", "2", "3", "4"}},
		{Name: "region", Kind: cat, Levels: []string{"east", "rest", "west"}, Other: "rest"},
		{Name: "school", Kind: cat, Levels: []string{"high", "none", "öst <&>"}, Absent: []string{"?", "9"}, Fill: "none", Indicator: true},
		{Name: "books", Kind: cat, Levels: []string{"0-10", "11-25", "26-100"}, Ordinal: true},
		{Name: "tier", Kind: cat, Levels: []string{"low", "mid", "top"}, Ordinal: true, Absent: []string{"x"}, Fill: "mid", Indicator: true, Other: "low"},
	}
}

// model is one of random parameters.
func model(kind learn.Kind, classes, hidden []int, features []dataset.FeatureSpec, seed uint64) task.Model {
	r := rand.New(rand.NewPCG(seed, 1))
	m := task.Model{
		Task: record.CIDOf([]byte("task")), Name: "a model", Round: 30, Roster: record.CIDOf([]byte("roster")),
		Encoding: dataset.Encoding{Target: "target", Features: features},
	}
	for _, c := range classes {
		m.Encoding.Classes = append(m.Encoding.Classes, strconv.Itoa(c))
	}
	if len(classes) == 2 {
		m.Encoding.Positive = m.Encoding.Classes[1]
	}
	m.Spec = learn.Spec{Kind: kind, Inputs: m.Encoding.Width(), Classes: len(classes), Hidden: hidden}
	samples, err := m.Encoding.EncodeFeatures(rawRows(m.Encoding, 300, 0, r))
	if err != nil {
		panic(err)
	}
	m.Scaling = dataset.MomentsOf(samples).Scaling()
	if len(classes) == 0 {
		m.Scaling.Mean, m.Scaling.SD = append(m.Scaling.Mean, 1_986.5), append(m.Scaling.SD, 12)
	}
	m.Params = make([]float64, m.Spec.Params())
	for i := range m.Params {
		m.Params[i] = r.NormFloat64() / 2
	}
	return m
}

// models are the kinds, all with every step, and one whose columns have the names
// that a graph uses itself.
func models() map[string]task.Model {
	awkward := []dataset.FeatureSpec{
		{Name: Label, Kind: dataset.Categorical, Levels: []string{"a", "b"}},
		{Name: Probabilities, Kind: dataset.Numeric},
		{Name: Prediction, Kind: dataset.Numeric, Fill: "0"},
		{Name: "Concat/1", Kind: dataset.Numeric},
		{Name: "constant/1", Kind: dataset.Numeric, Abs: true},
		{Name: `"quoted", 名前`, Kind: dataset.Numeric, Log: true, Clip: []float64{0, 10}},
	}
	return map[string]task.Model{
		"logistic":        model(learn.Logistic, []int{0, 1}, nil, everyStep(), 1),
		"softmax of two":  model(learn.Softmax, []int{0, 1}, nil, everyStep(), 2),
		"softmax":         model(learn.Softmax, []int{0, 1, 2, 3, 4}, nil, everyStep(), 3),
		"linear":          model(learn.Linear, nil, nil, everyStep(), 4),
		"mlp of two":      model(learn.MLP, []int{0, 1}, []int{8}, everyStep(), 5),
		"mlp":             model(learn.MLP, []int{0, 1, 2}, []int{16, 5, 4}, everyStep(), 6),
		"mlp of a number": model(learn.MLP, nil, []int{32}, everyStep(), 7),
		"awkward names":   model(learn.Logistic, []int{0, 1}, nil, awkward, 8),
		"one column":      model(learn.Linear, nil, nil, []dataset.FeatureSpec{{Name: "x", Kind: dataset.Numeric}}, 9),
	}
}

// rawRows are cells as files have them, some of which stand for missing ones. Each
// of the first bad rows has one more that is missing, or that nothing can be made of.
func rawRows(e dataset.Encoding, n, bad int, r *rand.Rand) dataset.Table {
	var t dataset.Table
	specs := map[string]dataset.FeatureSpec{}
	for _, f := range e.Features {
		if _, there := specs[f.Name]; !there {
			t.Columns = append(t.Columns, f.Name)
			specs[f.Name] = f
		}
	}
	for i := range n {
		row := make([]string, len(t.Columns))
		spoilt := r.IntN(len(row))
		for j, name := range t.Columns {
			f := specs[name]
			switch pick := r.IntN(60); {
			case i < bad && j == spoilt && pick < 20:
				row[j] = ""
			case i < bad && j == spoilt && f.Kind == dataset.Categorical:
				row[j] = "never seen"
			case i < bad && j == spoilt && pick < 40:
				row[j] = "-Infinity"
			case i < bad && j == spoilt && f.Log:
				row[j] = "-1" // of which there may be no logarithm
			case pick < 20 && len(f.Absent) > 0:
				row[j] = f.Absent[r.IntN(len(f.Absent))]
			case f.Kind == dataset.Categorical:
				row[j] = f.Levels[r.IntN(len(f.Levels))]
			case name == "year":
				row[j] = strconv.Itoa(2000 + r.IntN(20))
			case name == "snow":
				row[j] = strconv.Itoa(pick)
			case name == "pressure":
				row[j] = strconv.FormatFloat(101_325+300*r.NormFloat64(), 'f', 3, 64)
			default:
				row[j] = strconv.FormatFloat(20*r.NormFloat64(), 'f', r.IntN(5), 64)
			}
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

type column struct {
	Type  string `json:"type"`
	Cells []any  `json:"cells"`
}

type onnxCase struct {
	Path    string            `json:"path"`
	Columns map[string]column `json:"columns"`
}

type tensor struct {
	Type   string `json:"type"`
	Dims   []int  `json:"dims"`
	Values []any  `json:"values"` // null is NaN
}

func (x tensor) number(i int) float64 {
	if x.Values[i] == nil {
		return math.NaN()
	}
	return x.Values[i].(float64)
}

// TestONNXRuntimeAgrees holds that an independent reader predicts the same, from
// raw cells, as the model itself.
func TestONNXRuntimeAgrees(t *testing.T) {
	dir := installed(t, onnxruntime, func(dir string) *exec.Cmd {
		return command(t, "npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--prefix", dir, onnxruntime)
	})
	var names []string
	var cases []onnxCase
	tables := map[string]dataset.Table{}
	all := models()
	files := t.TempDir()
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		m := all[name]
		b, err := ONNX(m)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c := onnxCase{Path: filepath.Join(files, fmt.Sprintf("%d.onnx", i)), Columns: map[string]column{}}
		if err := os.WriteFile(c.Path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		rows := rawRows(m.Encoding, 300, 200, rand.New(rand.NewPCG(uint64(i), 2)))
		tables[name] = rows
		for j, of := range rows.Columns {
			f := m.Encoding.Features[slices.IndexFunc(m.Encoding.Features, func(f dataset.FeatureSpec) bool { return f.Name == of })]
			col := column{Type: "string"}
			if f.Kind == dataset.Numeric {
				col.Type = "float64"
			}
			for _, row := range rows.Rows {
				v, err := strconv.ParseFloat(row[j], 64)
				switch {
				case f.Kind == dataset.Categorical:
					col.Cells = append(col.Cells, row[j])
				case err != nil:
					col.Cells = append(col.Cells, nil)
				case math.IsInf(v, 0):
					col.Cells = append(col.Cells, row[j])
				default:
					col.Cells = append(col.Cells, v)
				}
			}
			if of == Label || of == Probabilities || of == Prediction {
				of += "_"
			}
			c.Columns[of] = col
		}
		cases = append(cases, c)
	}
	in, err := json.Marshal(cases)
	if err != nil {
		t.Fatal(err)
	}
	node := command(t, "node", filepath.Join("testdata", "onnx.js"))
	node.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(dir, "node_modules"))
	node.Stdin = bytes.NewReader(in)
	var got []map[string]tensor
	if err := json.Unmarshal(output(t, node), &got); err != nil || len(got) != len(cases) {
		t.Fatalf("%d answers, %v", len(got), err)
	}
	for i, name := range names {
		t.Run(name, func(t *testing.T) { agrees(t, all[name], tables[name], got[i]) })
	}
}

// agrees compares with the model's own predictions, a row at a time, as those
// that it refuses fail alone.
func agrees(t *testing.T, m task.Model, rows dataset.Table, got map[string]tensor) {
	n, k := len(rows.Rows), len(m.Encoding.Classes)
	refused, worst := 0, 0.0
	defer func() { t.Logf("%d of %d rows refused; largest difference %.1e", refused, n, worst) }()
	for i, row := range rows.Rows {
		want, err := m.Predict(dataset.Table{Columns: rows.Columns, Rows: [][]string{row}})
		if err != nil {
			refused++
		}
		if k == 0 {
			y := got[Prediction]
			if y.Type != "float64" || !slices.Equal(y.Dims, []int{n, 1}) {
				t.Fatalf("%s of %s, shape %v", Prediction, y.Type, y.Dims)
			}
			last := len(m.Scaling.SD) - 1
			value := y.number(i)
			if err != nil {
				if !math.IsNaN(value) {
					t.Fatalf("row %q: %v, but the model says: %v", row, value, err)
				}
				continue
			}
			// A standard deviation is what a probability is to a class; the rows,
			// drawn at random, may lie many from the mean.
			difference := math.Abs(value-want[0][0]) / max(m.Scaling.SD[last], math.Abs(want[0][0]-m.Scaling.Mean[last]))
			if worst = max(worst, difference); !(difference <= 1e-5) {
				t.Fatalf("row %q: %v, want %v", row, value, want[0][0])
			}
			continue
		}
		p, label := got[Probabilities], got[Label]
		if p.Type != "float32" || !slices.Equal(p.Dims, []int{n, k}) || label.Type != "string" || !slices.Equal(label.Dims, []int{n}) {
			t.Fatalf("%s of %s, shape %v; %s of %s, shape %v", Probabilities, p.Type, p.Dims, Label, label.Type, label.Dims)
		}
		if err != nil {
			if !math.IsNaN(p.number(i*k)) || !math.IsNaN(p.number(i*k+k-1)) || label.Values[i] != "" {
				t.Fatalf("row %q: %v, %q, but the model says: %v", row, p.Values[i*k:(i+1)*k], label.Values[i], err)
			}
			continue
		}
		sorted := slices.Sorted(slices.Values(want[0]))
		for c := range k {
			difference := math.Abs(p.number(i*k+c) - want[0][c])
			if worst = max(worst, difference); !(difference <= 1e-5) {
				t.Fatalf("row %q: probabilities %v, want %v", row, p.Values[i*k:(i+1)*k], want[0])
			}
		}
		if class := m.Encoding.Classes[m.Class(want[0])]; label.Values[i] != class && sorted[k-1]-sorted[k-2] > 1e-5 {
			t.Fatalf("row %q: label %q, want %q", row, label.Values[i], class)
		}
	}
	if refused == n || len(m.Encoding.Features) > 1 && refused == 0 {
		t.Errorf("%d of %d rows are refused: the rows do not test what they should", refused, n)
	}
}

// TestSafetensorsReferenceAgrees holds that the reference implementation reads
// the parameters of a model's file, and writes the same bytes of them.
func TestSafetensorsReferenceAgrees(t *testing.T) {
	dir := installed(t, safetensors, func(dir string) *exec.Cmd {
		return command(t, "python3", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "--target", dir, safetensors)
	})
	args := []string{filepath.Join("testdata", "safetensors_read.py")}
	var written []task.Model
	files := t.TempDir()
	for _, m := range models() {
		m.Spec.Hidden = slices.Repeat(m.Spec.Hidden, 12/max(1, len(m.Spec.Hidden))) // ten layers and more are not sorted by number
		m.Params = make([]float64, m.Spec.Params())
		for i := range m.Params {
			m.Params[i] = rand.NormFloat64()
		}
		b, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(files, strconv.Itoa(len(written)))
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		args, written = append(args, path), append(written, m)
	}
	python := command(t, "python3", args...)
	python.Env = append(os.Environ(), "PYTHONPATH="+dir)
	var got []struct {
		Tensors map[string]struct {
			DType string
			Shape []int
			Bits  string
		}
		Same bool
	}
	if err := json.Unmarshal(output(t, python), &got); err != nil || len(got) != len(written) {
		t.Fatalf("%d answers, %v", len(got), err)
	}
	for i, m := range written {
		if !got[i].Same {
			t.Errorf("%s %v: the reference writes other bytes", m.Spec.Kind, m.Spec.Hidden)
		}
		want := m.Spec.Tensors(m.Params)
		if len(got[i].Tensors) != len(want) {
			t.Errorf("%d tensors, want %d", len(got[i].Tensors), len(want))
		}
		for _, w := range want {
			var data []byte
			for _, x := range w.F64 {
				data = binary.LittleEndian.AppendUint64(data, math.Float64bits(x))
			}
			if g := got[i].Tensors[w.Name]; g.DType != "F64" || !slices.Equal(g.Shape, w.Shape) || g.Bits != hex.EncodeToString(data) {
				t.Errorf("tensor %s came back as %s %v, other than it was", w.Name, g.DType, g.Shape)
			}
		}
	}
}

// fields returns the values of a protobuf message by their numbers.
func fields(t *testing.T, b []byte) map[protowire.Number][][]byte {
	t.Helper()
	out := map[protowire.Number][][]byte{}
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		b = b[n:]
		n = protowire.ConsumeFieldValue(number, kind, b)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		value := b[:n]
		if kind == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(b)
		}
		out[number] = append(out[number], value)
		b = b[n:]
	}
	return out
}

// TestGraph holds what onnx.proto asks of a graph, where no reader is at hand:
// every value has one name, and stands before those that are computed from it.
func TestGraph(t *testing.T) {
	for name, m := range models() {
		b, err := ONNX(m)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if again, err := ONNX(m); err != nil || !bytes.Equal(b, again) {
			t.Errorf("%s: the same model gives other bytes", name)
		}
		known := map[string]bool{}
		define := func(value []byte) {
			if len(value) == 0 || known[string(value)] {
				t.Errorf("%s: %q is named twice, or not at all", name, value)
			}
			known[string(value)] = true
		}
		graph := fields(t, fields(t, b)[7][0])
		var columns []string
		for _, in := range graph[11] {
			value := fields(t, in)[1][0]
			define(value)
			columns = append(columns, string(value))
		}
		for _, constant := range graph[5] {
			define(fields(t, constant)[8][0])
		}
		for _, node := range graph[1] {
			n := fields(t, node)
			for _, in := range n[1] {
				if !known[string(in)] {
					t.Errorf("%s: %s uses %q before it is there", name, n[4][0], in)
				}
			}
			define(n[2][0])
		}
		var outputs []string
		for _, out := range graph[12] {
			value := string(fields(t, out)[1][0])
			if outputs = append(outputs, value); !known[value] {
				t.Errorf("%s: the output %s is not computed", name, value)
			}
		}
		want := []string{Probabilities, Label}
		if len(m.Encoding.Classes) == 0 {
			want = []string{Prediction}
		}
		if !slices.Equal(outputs, want) {
			t.Errorf("%s: outputs %q", name, outputs)
		}
		if name == "awkward names" && !slices.Equal(columns, []string{"label_", "probabilities_", "prediction_", "Concat/1", "constant/1", `"quoted", 名前`}) {
			t.Errorf("inputs %q", columns)
		}
	}
}

func TestModelsThatDoNotFitAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(*task.Model){
		"no features":       func(m *task.Model) { m.Encoding.Features = nil },
		"other inputs":      func(m *task.Model) { m.Spec.Inputs++ },
		"other classes":     func(m *task.Model) { m.Spec.Kind, m.Spec.Classes = learn.Softmax, 3 },
		"fewer parameters":  func(m *task.Model) { m.Params = m.Params[1:] },
		"fewer means":       func(m *task.Model) { m.Scaling.Mean = m.Scaling.Mean[1:] },
		"fewer deviations":  func(m *task.Model) { m.Scaling.SD = nil },
		"a level not known": func(m *task.Model) { m.Encoding.Features[14].Fill = "elsewhere" },
		"a word":            func(m *task.Model) { m.Encoding.Features[3].Fill = "many" },
	} {
		m := model(learn.Logistic, []int{0, 1}, nil, everyStep(), 1)
		spoil(&m)
		if b, err := ONNX(m); err == nil || b != nil {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
}
