package task

import (
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/record"
)

// going is a task that goes on from a model.
func going() Task {
	t := good()
	t.Parent = &Parent{Model: theModel, Scaling: dataset.Scaling{Mean: []float64{50, .5, .25}, SD: []float64{10, .5, .1}}}
	return t
}

func TestParentCheck(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*Task)
		want string
	}{
		"as it is":               {func(*Task) {}, ""},
		"an own part":            {func(tk *Task) { tk.Personal = learn.Bias }, ""},
		"an outer rule":          {func(tk *Task) { tk.SetOuter(learn.OuterAdam, 0) }, ""},
		"no model":               {func(tk *Task) { tk.Parent.Model = record.CID{} }, "names it"},
		"no scaling":             {func(tk *Task) { tk.Parent.Scaling = dataset.Scaling{} }, "has its scaling"},
		"a mean less":            {func(tk *Task) { tk.Parent.Scaling.Mean = []float64{1, 2} }, "has its scaling"},
		"a deviation more":       {func(tk *Task) { tk.Parent.Scaling.SD = []float64{1, 2, 3, 4} }, "has its scaling"},
		"a deviation of 0":       {func(tk *Task) { tk.Parent.Scaling.SD = []float64{1, 0, 3} }, "has its scaling"},
		"a negative deviation":   {func(tk *Task) { tk.Parent.Scaling.SD = []float64{1, -1, 3} }, "has its scaling"},
		"an infinite deviation":  {func(tk *Task) { tk.Parent.Scaling.SD = []float64{1, math.Inf(1), 3} }, "has its scaling"},
		"a mean that is none":    {func(tk *Task) { tk.Parent.Scaling.Mean = []float64{1, math.NaN(), 3} }, "has its scaling"},
		"an infinite mean":       {func(tk *Task) { tk.Parent.Scaling.Mean = []float64{1, math.Inf(-1), 3} }, "has its scaling"},
		"a numeric target":       {func(tk *Task) { tk.Encoding.Classes, tk.Encoding.Positive, tk.Model = nil, "", learn.Linear }, "has its scaling"},
		"the wrong personal one": {func(tk *Task) { tk.Personal = "head" }, "own part"},
	} {
		tk := going()
		c.edit(&tk)
		if err := tk.Check(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// Training goes on from the parent's parameters, under its scaling, whatever rows
// the nodes have now.
func TestGoingOn(t *testing.T) {
	tk := going()
	parts := []Enrolled{
		{CID: record.CIDOf([]byte{1}), Author: tk.Nodes[1], Enrolment: enrolment(t, 10)},
		{CID: record.CIDOf([]byte{0}), Author: tk.Nodes[0], Enrolment: enrolment(t, 20)},
	}
	r, err := RosterOf(tk, parts)
	if err != nil || !reflect.DeepEqual(r.Scaling, tk.Parent.Scaling) || len(r.Members) != 2 || r.Members[0].Author != tk.Nodes[0] {
		t.Errorf("%+v, %v", r, err)
	}
	plain, err := RosterOf(good(), parts)
	if err != nil || plain.CID != r.CID || reflect.DeepEqual(plain.Scaling, r.Scaling) {
		t.Errorf("a task from the start has the roster %+v, %v", plain, err)
	}
	parent := []float64{2, -1, .125, .5}
	if first := tk.First(parent); !slices.Equal(first, parent) || &first[0] == &parent[0] {
		t.Errorf("starts at %v", first)
	}
	tk.Personal = learn.Bias
	if first := tk.First(parent); !slices.Equal(first, []float64{2, -1, .125, 0}) {
		t.Errorf("with an own bias it starts at %v", first)
	}
	m, err := ModelOf(taskID(t), tk, r, FinalContent{Parts: []Part{{Node: tk.Nodes[0], Weight: 1}}}, [][]float64{parent})
	if err != nil || m.Parent == nil || *m.Parent != theModel || m.Personal != learn.Bias || !reflect.DeepEqual(m.Scaling, tk.Parent.Scaling) {
		t.Errorf("model %+v, %v", m, err)
	}
	if m, err := ModelOf(taskID(t), good(), plain, FinalContent{Parts: []Part{{Node: tk.Nodes[0], Weight: 1}}}, [][]float64{parent}); err != nil || m.Parent != nil {
		t.Errorf("model %+v, %v", m, err)
	}
}

// A model is promoted where it is not worse than its parent on all rows, by accuracy
// or by squared error, and once all evaluations are here that are to come.
func TestPromotion(t *testing.T) {
	right, wrong := []string{"-1 no", "1 yes"}, []string{"1 no", "-1 yes"}
	half := []string{"-1 no", "-1 yes"}
	numeric := good()
	numeric.Encoding.Classes, numeric.Encoding.Positive, numeric.Model = nil, "", learn.Linear
	errors := func(off float64) *learn.Counts {
		spec := learn.Spec{Kind: learn.Linear, Inputs: 1}
		c := spec.Count([]float64{1, off}, dataset.Samples{N: 2, D: 1, X: []float64{1, 2}, T: []float64{1, 2}})
		return &c
	}
	of := func(rows []string) *learn.Counts { c := counts(rows...); return &c }
	for name, c := range map[string]struct {
		task          Task
		model, parent [2]*learn.Counts // at two nodes; nil where there is no evaluation
		want          string
	}{
		"better":                    {going(), [2]*learn.Counts{of(right), of(right)}, [2]*learn.Counts{of(half), of(right)}, "true"},
		"as good":                   {going(), [2]*learn.Counts{of(half), of(right)}, [2]*learn.Counts{of(right), of(half)}, "true"},
		"worse":                     {going(), [2]*learn.Counts{of(half), of(right)}, [2]*learn.Counts{of(right), of(right)}, "false"},
		"worse at one, better else": {going(), [2]*learn.Counts{of(half), of(right)}, [2]*learn.Counts{of(right), of(wrong)}, "true"},
		"one is missing":            {going(), [2]*learn.Counts{of(right), nil}, [2]*learn.Counts{of(half), nil}, "null"},
		"both are missing":          {going(), [2]*learn.Counts{}, [2]*learn.Counts{}, "null"},
		"no rows":                   {going(), [2]*learn.Counts{of(nil), of(nil)}, [2]*learn.Counts{of(nil), of(nil)}, "null"},
		"no parent":                 {good(), [2]*learn.Counts{of(right), of(right)}, [2]*learn.Counts{}, "null"},
		"a smaller error":           {numeric, [2]*learn.Counts{errors(.1), errors(.1)}, [2]*learn.Counts{errors(.2), errors(.1)}, "true"},
		"the same error":            {numeric, [2]*learn.Counts{errors(.1), errors(-.1)}, [2]*learn.Counts{errors(-.1), errors(.1)}, "true"},
		"a larger error":            {numeric, [2]*learn.Counts{errors(.1), errors(.3)}, [2]*learn.Counts{errors(.2), errors(.1)}, "false"},
	} {
		tk := c.task
		if tk.Encoding.Classes == nil {
			tk.Parent = &Parent{Model: theModel, Scaling: dataset.Scaling{Mean: make([]float64, 4), SD: slices.Repeat([]float64{1}, 4)}}
		}
		if err := tk.Check(); err != nil {
			t.Fatal(err)
		}
		cid := record.CIDOf([]byte("the new model"))
		content := FinalContent{Round: 9, Model: cid, Parts: []Part{{Node: tk.Nodes[0], Round: 9, Weight: 1}, {Node: tk.Nodes[1], Round: 9, Weight: 1}}}
		evaluations := map[record.NodeID]Evaluation{}
		for i, counts := range c.model {
			if counts != nil {
				evaluations[tk.Nodes[i]] = Evaluation{Model: cid, Local: *counts, Federated: *counts, Personal: *counts, Parent: c.parent[i]}
			}
		}
		res, err := ResultsOf(tk, taskID(t), content, Roster{}, nil, evaluations)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := "null"
		if res.Promoted != nil {
			got = map[bool]string{true: "true", false: "false"}[*res.Promoted]
		}
		if got != c.want {
			t.Errorf("%s: promoted %s, want %s", name, got, c.want)
		}
		if want := tk.Parent != nil; want != (len(res.Lineage) == 1 && res.Lineage[0] == theModel) || want && len(evaluations) > 0 != (res.AllRows.Parent != nil) {
			t.Errorf("%s: lineage %v, parent %v", name, res.Lineage, res.AllRows.Parent)
		}
	}
}

// Who counts the parent where there is one, and nowhere else, is taken.
func TestEvaluationsOfAParent(t *testing.T) {
	tk, id := going(), taskID(t).String()
	c, other := counts("1 yes"), counts("1 yes", "1 no")
	e := Evaluation{Task: taskID(t), Model: theModel, Local: c, Federated: c, Personal: c, Parent: &c}
	if got, err := EvaluationOf(sign(t, keys[1], record.KindEvaluation, id, 0, e), tk); err != nil || !reflect.DeepEqual(*got.Parent, c) {
		t.Errorf("%+v, %v", got.Parent, err)
	}
	for name, parent := range map[string]*learn.Counts{"none": nil, "of other rows": &other, "of nothing": {}} {
		e := e
		e.Parent = parent
		_, err := EvaluationOf(sign(t, keys[1], record.KindEvaluation, id, 0, e), tk)
		refused(t, name, err, false)
	}
}
