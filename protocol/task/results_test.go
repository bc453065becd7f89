package task

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/record"
)

// results are those of three nodes of the good task.
func results(t *testing.T, evaluations map[record.NodeID]Evaluation) Results {
	t.Helper()
	tk := good()
	c := FinalContent{Round: 9, Model: theModel}
	var roster []Enrolled
	for i := range 3 {
		e := enrolment(t, uint64(10*(i+1)))
		e.Nation, e.Node = []string{"HUN", "CHE", "USA"}[i], []string{"a", "b", "c"}[i]
		roster = append(roster, Enrolled{CID: record.CIDOf([]byte{byte(i)}), Author: tk.Nodes[i], Enrolment: e})
		c.Parts = append(c.Parts, Part{Node: tk.Nodes[i], Round: 9})
	}
	return resultsOf(t, c, roster, roster, evaluations)
}

func resultsOf(t *testing.T, c FinalContent, members, enrolments []Enrolled, evaluations map[record.NodeID]Evaluation) Results {
	t.Helper()
	roster, err := RosterOf(good(), members)
	if err != nil {
		t.Fatal(err)
	}
	enrolled := map[record.NodeID]Enrolled{}
	for _, e := range enrolments {
		enrolled[e.Author] = e
	}
	res, err := ResultsOf(good(), taskID(t), c, roster, enrolled, evaluations)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(res)
	if err != nil || strings.Contains(string(text), `"classes":null`) || strings.Contains(string(text), `"missing":null`) || strings.Contains(string(text), `"contributions":null`) {
		t.Errorf("JSON %s, %v", text, err)
	}
	return res
}

// evaluated is what a node counts of a model that does on these rows what it
// reaches alone and with a part of its own.
func evaluated(model record.CID, rows ...string) Evaluation {
	c := counts(rows...)
	return Evaluation{Model: model, Local: c, Federated: c, Personal: c}
}

var theModel = record.CIDOf([]byte("model"))

func TestResultsOf(t *testing.T) {
	tk := good()
	local0, federated0 := []string{"-1 no", "2 no", "1 yes"}, []string{"-1 no", "-2 no", "1 yes"}
	local2, federated2 := []string{"3 yes", "-1 yes"}, []string{"3 yes", "1 yes"} // of one class: no ROC-AUC
	personal0, personal2 := []string{"-1 no", "-2 no", "-1 yes"}, []string{"3 yes", "1 yes"}
	res := results(t, map[record.NodeID]Evaluation{
		tk.Nodes[0]:   {Model: theModel, Local: counts(local0...), Federated: counts(federated0...), Personal: counts(personal0...), Better: 1},
		tk.Nodes[1]:   evaluated(record.CIDOf([]byte("another")), "1 no"),
		tk.Nodes[2]:   {Model: theModel, Local: counts(local2...), Federated: counts(federated2...), Personal: counts(personal2...), Better: 1},
		idOf(keys[3]): evaluated(theModel, "1 no"), // not named
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
	report := func(rows ...string) learn.Report {
		return counts(rows...).Detailed(tk.Encoding.Classes, "yes", "", nil)
	}
	all := Pair{
		Local:     report(append(local0, local2...)...),
		Federated: report(append(federated0, federated2...)...),
		Personal:  report(append(personal0, personal2...)...),
		Gain:      learn.GainOf(5, 2, 0),
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
	is("accuracy of all rows, with the own part", res.AllRows.Personal.Accuracy, 4./5)
	is("mean accuracy with the own part", res.Mean.Personal.Accuracy, (2./3+1)/2)
	is("worst accuracy with the own part", res.Worst.Personal.Accuracy, 2./3)
	is("gain in accuracy of all rows", res.AllRows.Gain.Accuracy, 2./5)
	is("gain in accuracy of a node", res.Nodes[1].Gain.Accuracy, 1./2)
	is("mean local accuracy", res.Mean.Local.Accuracy, (2./3+1./2)/2)
	is("mean federated accuracy", res.Mean.Federated.Accuracy, 1)
	is("worst local accuracy", res.Worst.Local.Accuracy, 1./2)
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
		"of another model": {good().Nodes[0]: evaluated(record.CIDOf(nil))},
	} {
		res := results(t, evaluations)
		if len(res.Missing) != 3 || len(res.Nodes) != 0 || res.AllRows.Local.Rows != 0 || res.AllRows.Local.Accuracy != nil || res.Mean != (MeanPair{}) || res.Worst != (MeanPair{}) {
			t.Errorf("%s: %+v", name, res)
		}
	}
	res := results(t, map[record.NodeID]Evaluation{good().Nodes[0]: evaluated(theModel)})
	if len(res.Nodes) != 1 || res.Mean.Federated.Accuracy != nil || res.AllRows.Federated.F1 != nil {
		t.Errorf("without test rows: %+v", res)
	}
}

// Every named node is accounted for, whatever became of it.
func TestContributions(t *testing.T) {
	tk := good()
	at := func(i int) Enrolled {
		e := enrolment(t, uint64(10*(i+1)))
		e.Nation, e.Node = "HUN", []string{"a", "b", "c"}[i]
		return Enrolled{CID: record.CIDOf([]byte{byte(i)}), Author: tk.Nodes[i], Enrolment: e}
	}
	e := evaluated(theModel, "1 yes")
	for _, row := range []struct {
		name string
		out  Out // of the node between the two others
		late bool
		in   *Part
		want Contribution
	}{
		{name: "to the end", in: &Part{Round: 9}, want: Contribution{Round: 9, InFinal: true, Why: "trained to the last round"}},
		{name: "late", in: &Part{Round: 9}, late: true, want: Contribution{Round: 9, InFinal: true, Late: true, Why: "trained to the last round"}},
		{name: "silent, recent", in: &Part{Round: 8}, want: Contribution{Round: 8, InFinal: true, Why: "fell silent after round 8, which is recent enough to count"}},
		{name: "silent", out: Out{Round: 4, Why: Silent}, want: Contribution{Round: 4, Why: "fell silent after round 4; a quorum had waited for it"}},
		{name: "left", out: Out{Round: 3, Why: Left}, want: Contribution{Round: 3, Why: "left after round 3"}},
		{name: "absent", out: Out{Why: Absent}, want: Contribution{Why: "did not enrol"}},
	} {
		content := FinalContent{Round: 9, Model: theModel, Parts: []Part{{Node: tk.Nodes[0], Round: 9}, {Node: tk.Nodes[2], Round: 9}}}
		row.want.PeerID = tk.Nodes[1]
		members, enrolments := []Enrolled{at(0), at(2)}, []Enrolled{at(0), at(2)}
		if row.in != nil {
			row.in.Node = tk.Nodes[1]
			content.Parts = []Part{content.Parts[0], *row.in, content.Parts[1]}
		} else {
			row.out.Node = tk.Nodes[1]
			content.Out = []Out{row.out}
		}
		if row.out.Why != Absent {
			enrolments = append(enrolments, at(1))
			row.want.Nation, row.want.Name, row.want.TrainRows = "HUN", "b", 20
			if !row.late {
				members = append(members, at(1))
			}
		}
		evaluations := map[record.NodeID]Evaluation{tk.Nodes[0]: e, tk.Nodes[2]: e}
		res := resultsOf(t, content, members, enrolments, evaluations)
		if len(res.Contributions) != 3 || res.Contributions[0].PeerID != tk.Nodes[0] || res.Contributions[2].PeerID != tk.Nodes[2] || res.Contributions[1] != row.want {
			t.Errorf("%s: %+v, want %+v", row.name, res.Contributions, row.want)
		}
		// An evaluation is owed by the nodes of the final set alone, and counts of all.
		if missing := len(res.Missing) == 1 && res.Missing[0] == tk.Nodes[1]; missing != row.want.InFinal || len(res.Missing) > 1 {
			t.Errorf("%s: missing %v", row.name, res.Missing)
		}
		evaluations[tk.Nodes[1]] = e
		if res := resultsOf(t, content, members, enrolments, evaluations); len(res.Missing) != 0 || res.AllRows.Federated.Rows != 3 {
			t.Errorf("%s: missing %v of %d rows", row.name, res.Missing, res.AllRows.Federated.Rows)
		}
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
	r, err := RosterOf(good(), parts)
	if err != nil || math.Abs(r.Scaling.Mean[0]-whole.Mean[0]) > 1e-15 || math.Abs(r.Scaling.SD[0]-whole.SD[0]) > 1e-14 {
		t.Errorf("%v, of the whole %v, %v", r.Scaling, whole, err)
	}
}

// One evaluation in another unit spoils no report: it does not count, and the
// report says whose it was.
func TestAnEvaluationInAnotherUnit(t *testing.T) {
	tk := good()
	tk.Encoding.Classes, tk.Encoding.Positive = nil, ""
	in := func(unit float64) Evaluation {
		tally := learn.NewTally(learn.Spec{Kind: learn.Linear, Inputs: 1})
		tally.Unit = unit
		tally.Count([]float64{1, 0}, dataset.Samples{N: 2, D: 1, X: []float64{1, -1}, T: []float64{1, 0}})
		c := tally.Counts()
		return Evaluation{Model: theModel, Local: c, Federated: c, Personal: c}
	}
	c := FinalContent{Round: 9, Model: theModel}
	for _, id := range tk.Nodes {
		c.Parts = append(c.Parts, Part{Node: id, Round: 9})
	}
	roster := Roster{Scaling: dataset.Scaling{SD: []float64{1, 2}}}
	res, err := ResultsOf(tk, taskID(t), c, roster, nil, map[record.NodeID]Evaluation{tk.Nodes[0]: in(3), tk.Nodes[1]: in(2), tk.Nodes[2]: in(2)})
	if err != nil || len(res.Nodes) != 2 || res.AllRows.Federated.Rows != 4 || !slices.Equal(res.Missing, tk.Nodes[:1]) {
		t.Errorf("%d nodes, missing %v, %v", len(res.Nodes), res.Missing, err)
	}
	if why := res.Contributions[0].Why; !strings.Contains(why, "its evaluation does not count: its errors are in units of 3, not 2") {
		t.Error(why)
	}
}
