package task

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/record"
	"village/protocol/safetensors"
)

func model(t testing.TB) Model {
	tk := good()
	return Model{
		Task: taskID(t), Name: "hé <b>", Round: 7, Roster: record.CIDOf([]byte("roster")), Encoding: tk.Encoding,
		Scaling: dataset.Scaling{Mean: []float64{50, .5, .25}, SD: []float64{10, .5, .1}}, Spec: tk.SpecOf(0),
		Parts: []Part{
			{Node: idOf(keys[0]), Enrolment: record.CIDOf([]byte("e")), Update: record.CIDOf([]byte("u")), Round: 7, Weight: 3},
			{Node: idOf(keys[1]), Enrolment: record.CIDOf([]byte("f")), Update: record.CIDOf([]byte("v")), Round: 6, Weight: 4},
		},
		Out:    []Out{{Node: idOf(keys[2]), Round: 2, Why: Silent}},
		Params: []float64{2, -1, .125, .5},
	}
}

func marshal(t testing.TB, m Model) []byte {
	t.Helper()
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestModelsComeBack(t *testing.T) {
	m := model(t)
	b := marshal(t, m)
	if !bytes.Equal(b, marshal(t, model(t))) {
		t.Error("one model gives two files")
	}
	got, err := UnmarshalModel(b)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", m) {
		t.Errorf("%+v came back as %+v", m, got)
	}
	if !bytes.Equal(marshal(t, got), b) {
		t.Error("what came back is written differently")
	}
	// Any tool that reads safetensors sees the tensors.
	tensors, _, err := safetensors.Unmarshal(b, safetensors.Limits{})
	if err != nil || len(tensors) != 2 || tensors[0].Name != "bias" || tensors[0].F64[0] != .5 || !slices.Equal(tensors[1].Shape, []int{1, 3}) {
		t.Errorf("tensors %+v, %v", tensors, err)
	}
}

// Sealing must not fail after all the training: the largest model of a task
// that passes has a file.
func TestTheLargestModelHasAFile(t *testing.T) {
	tk := good()
	// Levels of the characters that take most when they are quoted twice.
	tk.Encoding.Features = nil
	for tk.Check() == nil || len(tk.Encoding.Features) == 0 {
		f := dataset.FeatureSpec{Name: strings.Repeat(`"`, 255) + string(rune('A'+len(tk.Encoding.Features))), Kind: dataset.Categorical}
		for i := range 64 {
			f.Levels = append(f.Levels, fmt.Sprintf("%s%03d", strings.Repeat(`"`, 253), i))
		}
		tk.Encoding.Features = append(tk.Encoding.Features, f)
	}
	tk.Encoding.Features = tk.Encoding.Features[:len(tk.Encoding.Features)-1]
	// The rest is filled with the numbers that take most.
	text := tk.Encoding.Features
	for n := 0; tk.Check() == nil; n += 100 {
		text = tk.Encoding.Features
		for i := range 100 {
			tk.Encoding.Features = append(tk.Encoding.Features, dataset.FeatureSpec{Name: fmt.Sprint("n", n+i), Kind: dataset.Numeric})
		}
	}
	tk.Encoding.Features = text
	if err := tk.Check(); err != nil {
		t.Fatal(err)
	}
	spec := tk.SpecOf(0)
	m := Model{Task: taskID(t), Name: strings.Repeat(`"`, 64), Round: MaxRounds, Roster: taskID(t), Encoding: tk.Encoding, Spec: spec, Params: make([]float64, spec.Params())}
	for range spec.Inputs {
		m.Scaling.Mean = append(m.Scaling.Mean, -2.2250738585072014e-308)
		m.Scaling.SD = append(m.Scaling.SD, 2.2250738585072014e-308)
	}
	for i := range MaxNodes {
		m.Parts = append(m.Parts, Part{Node: record.NodeID{byte(i)}, Enrolment: taskID(t), Update: taskID(t), Round: MaxRounds, Weight: MaxRows})
	}
	b := marshal(t, m)
	if _, err := UnmarshalModel(b); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d inputs, a header of %d of %d bytes", spec.Inputs, binary.LittleEndian.Uint64(b), safetensors.MaxHeader)

	inputs(&tk, MaxVector/8-1)
	m.Encoding, m.Spec, m.Params = tk.Encoding, tk.SpecOf(0), make([]float64, MaxVector/8)
	m.Scaling.Mean = slices.Repeat([]float64{-2.2250738585072014e-308}, MaxVector/8-1)
	m.Scaling.SD = slices.Repeat([]float64{2.2250738585072014e-308}, MaxVector/8-1)
	if _, err := UnmarshalModel(marshal(t, m)); err != nil {
		t.Errorf("the widest: %v", err)
	}
}

// written is a model file with any document.
func written(t testing.TB, document string, metadata map[string]string, tensors []safetensors.Tensor) []byte {
	t.Helper()
	if metadata == nil {
		metadata = map[string]string{}
	}
	if document != "" {
		metadata[modelKey] = document
	}
	b, err := safetensors.Marshal(tensors, metadata)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestUnmarshalModelRefuses(t *testing.T) {
	m := model(t)
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	doc, tensors := string(b), m.Spec.Tensors(m.Params)
	if _, err := UnmarshalModel(written(t, doc, nil, tensors)); err != nil {
		t.Fatal(err)
	}
	replace := func(from, to string) []byte {
		if !strings.Contains(doc, from) {
			t.Fatalf("%s holds no %s", doc, from)
		}
		return written(t, strings.Replace(doc, from, to, 1), nil, tensors)
	}
	for name, b := range map[string][]byte{
		"nothing":                    nil,
		"no metadata":                file(header, 0, 0, 0, 0),
		"other metadata":             written(t, "", map[string]string{"format": "pt"}, tensors),
		"further metadata":           written(t, doc, map[string]string{"format": "pt"}, tensors),
		"no document":                written(t, " ", nil, tensors),
		"a list":                     written(t, "[]", nil, tensors),
		"an empty document":          written(t, "{}", nil, tensors),
		"two documents":              written(t, doc+doc, nil, tensors),
		"white space":                written(t, doc+" ", nil, tensors),
		"an unknown key":             replace(`{"task"`, `{"x":1,"task"`),
		"a key twice":                replace(`{"task"`, `{"round":1,"task"`),
		"a key in capitals":          replace(`"round"`, `"Round"`),
		"a key less":                 replace(`"round":7,`, ``),
		"another spelling":           replace(`"round":7`, `"round":7.0`),
		"a negative round":           replace(`"round":7`, `"round":-7`),
		"an escape too many":         replace(`"sick"`, `"\u0073ick"`),
		"a name of two lines":        replace(`"hé `, `"h\n`),
		"the task in capitals":       replace(`"task":"b`, `"task":"B`),
		"no task at all":             replace(`"task":"b`, `"task":"`),
		"a node that is no node":     replace(`"node":"12D3`, `"node":"12D4`),
		"a part less":                replace(`"round":7,"weight":3`, `"weight":3`),
		"a reason of two lines":      replace(`"why":"silent"`, "\"why\":\"si\nlent\""),
		"another model":              replace(`"logistic"`, `"softmax"`),
		"an unknown model":           replace(`"logistic"`, `"forest"`),
		"more inputs":                replace(`"inputs":3`, `"inputs":4`),
		"a million inputs":           replace(`"inputs":3`, `"inputs":1000000`),
		"inputs beyond int64":        replace(`"inputs":3`, `"inputs":9223372036854775808`),
		"negative inputs":            replace(`"inputs":3`, `"inputs":-3`),
		"no inputs":                  replace(`"inputs":3`, `"inputs":0`),
		"more classes":               replace(`"classes":2`, `"classes":3`),
		"fewer scalings":             replace(`[50,0.5,0.25]`, `[50,0.5]`),
		"more scalings":              replace(`[10,0.5,0.1]`, `[10,0.5,0.1,1]`),
		"no deviation":               replace(`[10,0.5,0.1]`, `[10,0.5,0]`),
		"a negative deviation":       replace(`[10,0.5,0.1]`, `[10,0.5,-1]`),
		"an infinite deviation":      replace(`[10,0.5,0.1]`, `[10,0.5,1e999]`),
		"a mean that is not there":   replace(`[50,0.5,0.25]`, `[50,0.5,null]`),
		"no classes":                 replace(`["no","yes"]`, `[]`),
		"a positive that is unknown": replace(`"positive":"yes"`, `"positive":"no?"`),
		"fewer levels":               replace(`["x","y","z"]`, `["x","y"]`),
		"another shape":              written(t, doc, nil, learn.Spec{Kind: learn.Logistic, Inputs: 4, Classes: 2}.Tensors(make([]float64, 5))),
		"one tensor":                 written(t, doc, nil, tensors[:1]),
		"a third tensor":             written(t, doc, nil, append(slices.Clone(tensors), safetensors.Tensor{Name: "x", DType: safetensors.F64, Shape: []int{0}})),
		"a trailing byte":            append(marshal(t, m), 0),
		"cut":                        marshal(t, m)[:len(marshal(t, m))-1],
		"not finite":                 append(marshal(t, m)[:len(marshal(t, m))-8], 0, 0, 0, 0, 0, 0, 0xf8, 0x7f),
	} {
		if got, err := UnmarshalModel(b); err == nil {
			t.Errorf("%s is read as %+v", name, got)
		}
	}
}

func TestAHostileModelTakesNoMemory(t *testing.T) {
	m := model(t)
	b, _ := json.Marshal(m)
	for name, change := range map[string][2]string{
		"inputs":  {`"inputs":3`, `"inputs":1000000`},
		"classes": {`"classes":2}`, `"classes":256}`},
	} {
		hostile := written(t, strings.Replace(string(b), change[0], change[1], 1), nil, m.Spec.Tensors(m.Params))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := UnmarshalModel(hostile)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; err == nil || used > 256<<10 {
			t.Errorf("%s: %d bytes for a file of %d, %v", name, used, len(hostile), err)
		}
	}
}

func FuzzUnmarshalModel(f *testing.F) {
	b := marshal(f, model(f))
	f.Add(b)
	f.Add(bytes.Replace(b, []byte(`\"round\":7`), []byte(`\"round\":8`), 1))
	f.Add(bytes.Replace(b, []byte(`\"inputs\":3`), []byte(`\"inputs\":9`), 1))
	f.Add(b[:len(b)/2])
	f.Add(file(header, 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := UnmarshalModel(b)
		if err != nil {
			return
		}
		if again, err := m.Marshal(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("written as %q, %v", again, err)
		}
		row := make([]string, 0, len(m.Encoding.Features))
		table := dataset.Table{}
		for _, f := range m.Encoding.Features {
			table.Columns = append(table.Columns, f.Name)
			row = append(row, append(f.Levels, "1")[0])
		}
		table.Rows = [][]string{row}
		p, err := m.Predict(table)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range p[0] {
			if !(x >= 0 && x <= 1) {
				t.Fatalf("probabilities %v", p[0])
			}
		}
	})
}

func TestPredict(t *testing.T) {
	m := model(t)
	sigmoid := func(z float64) float64 { return 1 / (1 + math.Exp(-z)) }
	table := dataset.Table{ // in other order, with a column too many and without the target
		Columns: []string{"c", "note", "a"},
		Rows:    [][]string{{"x", "?", "60"}, {"y", "", "50.0"}, {"z", "", "-1e1"}},
	}
	p, err := m.Predict(table)
	if err != nil {
		t.Fatal(err)
	}
	for i, z := range []float64{
		2*1 - 1*(-1) + .125*(-2.5) + .5,
		2*0 - 1*1 + .125*(-2.5) + .5,
		2*(-6) - 1*(-1) + .125*7.5 + .5,
	} {
		if math.Abs(p[i][1]-sigmoid(z)) > 1e-15 || math.Abs(p[i][0]+p[i][1]-1) > 1e-15 || len(p[i]) != 2 {
			t.Errorf("row %d: %v, want %g", i, p[i], sigmoid(z))
		}
	}
	if len(p) != 3 || m.Class(p[0]) != 1 || m.Class(p[1]) != 0 || m.Class([]float64{.5, .5}) != 0 {
		t.Errorf("classes of %v", p)
	}
	weight, bias := m.Weights()
	if fmt.Sprint(weight, bias) != "[[2 -1 0.125]] [0.5]" {
		t.Errorf("weights %v %v", weight, bias)
	}
	if p, err := m.Predict(dataset.Table{Columns: table.Columns}); err != nil || len(p) != 0 {
		t.Errorf("no rows: %v, %v", p, err)
	}
	for name, table := range map[string]dataset.Table{
		"no feature":       {Columns: []string{"a"}, Rows: [][]string{{"1"}}},
		"an unknown level": {Columns: []string{"a", "c"}, Rows: [][]string{{"1", "w"}}},
		"an empty cell":    {Columns: []string{"a", "c"}, Rows: [][]string{{"", "x"}}},
		"no number":        {Columns: []string{"a", "c"}, Rows: [][]string{{"NaN", "x"}}},
		"a short row":      {Columns: []string{"a", "c"}, Rows: [][]string{{"1"}}},
	} {
		if p, err := m.Predict(table); err == nil {
			t.Errorf("%s: %v", name, p)
		}
	}
	// Scaling by the smallest number overflows; a probability it stays.
	m.Scaling.SD = []float64{5e-324, 5e-324, 5e-324}
	p, err = m.Predict(table)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range p {
		if !(row[0] >= 0 && row[1] >= 0 && math.Abs(row[0]+row[1]-1) < 1e-9) {
			t.Errorf("probabilities %v", row)
		}
	}
}

func TestPredictSoftmax(t *testing.T) {
	m := model(t)
	m.Encoding.Classes, m.Encoding.Positive = []string{"a", "b", "c"}, ""
	m.Spec = learn.Spec{Kind: learn.Softmax, Inputs: 3, Classes: 3}
	m.Params = []float64{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, math.Log(2)}
	p, err := m.Predict(dataset.Table{Columns: []string{"a", "c"}, Rows: [][]string{{"50", "x"}}})
	if err != nil {
		t.Fatal(err)
	}
	for c, want := range []float64{.25, .25, .5} {
		if math.Abs(p[0][c]-want) > 1e-15 {
			t.Errorf("%v", p[0])
		}
	}
	weight, bias := m.Weights()
	if len(weight) != 3 || len(bias) != 3 || m.Class(p[0]) != 2 {
		t.Errorf("weights %v %v", weight, bias)
	}
	if back, err := UnmarshalModel(marshal(t, m)); err != nil || !slices.Equal(back.Params, m.Params) {
		t.Errorf("%v, %v", back.Params, err)
	}
}
