package task

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	"village/protocol/dataset"
	"village/protocol/record"
)

// results are those of three nodes of the good task.
func results(t *testing.T, evaluations map[record.NodeID]Evaluation) Results {
	t.Helper()
	tk := good()
	var parts []Enrolled
	for i := range 3 {
		e := enrolment(t, uint64(10*(i+1)))
		e.Nation, e.Node = []string{"HUN", "CHE", "USA"}[i], []string{"a", "b", "c"}[i]
		parts = append(parts, Enrolled{CID: record.CIDOf([]byte{byte(i)}), Author: tk.Nodes[i], Enrolment: e})
	}
	roster, err := RosterOf(parts)
	if err != nil {
		t.Fatal(err)
	}
	res, err := ResultsOf(tk, taskID(t), theModel, 9, roster, evaluations)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(res)
	if err != nil || strings.Contains(string(text), `"classes":null`) || strings.Contains(string(text), `"missing":null`) {
		t.Errorf("JSON %s, %v", text, err)
	}
	return res
}

var theModel = record.CIDOf([]byte("model"))

func TestResultsOf(t *testing.T) {
	tk := good()
	local0, federated0 := []string{"-1 no", "2 no", "1 yes"}, []string{"-1 no", "-2 no", "1 yes"}
	local2, federated2 := []string{"3 yes", "-1 yes"}, []string{"3 yes", "1 yes"} // of one class: no ROC-AUC
	res := results(t, map[record.NodeID]Evaluation{
		tk.Nodes[0]:   {Model: theModel, Local: counts(local0...), Federated: counts(federated0...)},
		tk.Nodes[1]:   {Model: record.CIDOf([]byte("another")), Local: counts("1 no"), Federated: counts("1 no")},
		tk.Nodes[2]:   {Model: theModel, Local: counts(local2...), Federated: counts(federated2...)},
		idOf(keys[3]): {Model: theModel, Local: counts("1 no"), Federated: counts("1 no")}, // not in the roster
	})
	if len(res.Missing) != 1 || res.Missing[0] != tk.Nodes[1] {
		t.Errorf("missing %v", res.Missing)
	}
	if len(res.Nodes) != 2 || res.Nodes[0].PeerID != tk.Nodes[0] || res.Nodes[1].PeerID != tk.Nodes[2] ||
		res.Nodes[0].Nation != "HUN" || res.Nodes[1].Name != "c" || res.Nodes[1].TrainRows != 30 || res.Nodes[0].TestRows != 3 {
		t.Errorf("nodes %+v", res.Nodes)
	}
	if res.CID != theModel || res.Task != taskID(t) || res.Name != "heart" || res.Target != "sick" || res.Positive != "yes" || res.Rounds != 9 {
		t.Errorf("results %+v", res)
	}
	// The sums are those of all rows at once.
	all := Pair{
		Local:     counts(append(local0, local2...)...).Report(tk.Encoding.Classes, "yes"),
		Federated: counts(append(federated0, federated2...)...).Report(tk.Encoding.Classes, "yes"),
	}
	if !reflect.DeepEqual(res.AllRows, all) {
		t.Errorf("all rows %+v, want %+v", res.AllRows, all)
	}
	is := func(name string, got *float64, want float64) {
		t.Helper()
		if got == nil || math.Abs(*got-want) > 1e-12 {
			t.Errorf("%s is %v, want %g", name, got, want)
		}
	}
	is("accuracy of all rows, local", res.AllRows.Local.Accuracy, 3./5)
	is("accuracy of all rows, federated", res.AllRows.Federated.Accuracy, 1)
	is("mean local accuracy", res.Mean.Local.Accuracy, (2./3+1./2)/2)
	is("mean federated accuracy", res.Mean.Federated.Accuracy, 1)
	is("mean local F1", res.Mean.Local.F1, (2./3+2./3)/2)
	is("mean local ROC-AUC, of one node", res.Mean.Local.ROCAUC, 1./2)
	is("mean federated ROC-AUC, of one node", res.Mean.Federated.ROCAUC, 1)
	if res.Nodes[1].Local.ROCAUC != nil {
		t.Errorf("ROC-AUC of one class is %g", *res.Nodes[1].Local.ROCAUC)
	}
}

func TestResultsOfNobody(t *testing.T) {
	for name, evaluations := range map[string]map[record.NodeID]Evaluation{
		"none":             nil,
		"of another model": {good().Nodes[0]: {Model: record.CIDOf(nil), Local: counts(), Federated: counts()}},
	} {
		res := results(t, evaluations)
		if len(res.Missing) != 3 || len(res.Nodes) != 0 || res.AllRows.Local.Rows != 0 || res.AllRows.Local.Accuracy != nil || res.Mean != (MeanPair{}) {
			t.Errorf("%s: %+v", name, res)
		}
	}
	res := results(t, map[record.NodeID]Evaluation{good().Nodes[0]: {Model: theModel, Local: counts(), Federated: counts()}})
	if len(res.Nodes) != 1 || res.Mean.Federated.Accuracy != nil || res.AllRows.Federated.F1 != nil {
		t.Errorf("without test rows: %+v", res)
	}
}

func TestScalingOfManyParts(t *testing.T) {
	// Not a number of the roster depends on how the rows are parted.
	xs := []float64{3, -1, 4, 1, 5, -9, 2, 6}
	whole := dataset.MomentsOf(dataset.Samples{N: len(xs), D: 1, X: xs}).Scaling()
	var parts []Enrolled
	for i, x := range xs {
		m := dataset.MomentsOf(dataset.Samples{N: 1, D: 1, X: []float64{x}})
		parts = append(parts, Enrolled{CID: record.CIDOf([]byte{byte(i)}), Author: record.NodeID{byte(i)}, Enrolment: Enrolment{Moments: m}})
	}
	r, err := RosterOf(parts)
	if err != nil || math.Abs(r.Scaling.Mean[0]-whole.Mean[0]) > 1e-15 || math.Abs(r.Scaling.SD[0]-whole.SD[0]) > 1e-14 {
		t.Errorf("%v, of the whole %v, %v", r.Scaling, whole, err)
	}
}
