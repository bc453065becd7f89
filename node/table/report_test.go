package table

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"village/node/api"
	"village/protocol/learn"
	"village/protocol/record"
	"village/protocol/task"
)

func ref(x float64) *float64 { return &x }

// reported is a report of a model with that accuracy.
func reported(accuracy float64, rows uint64) learn.Report {
	class := func(label string, p, r, f1 float64, n uint64) learn.ClassReport {
		return learn.ClassReport{Label: label, Precision: p, Recall: r, F1: f1, Support: n}
	}
	average := learn.Average{Precision: .5, Recall: .25, F1: 1. / 3}
	return learn.Report{
		Rows: rows, Accuracy: ref(accuracy), F1: ref(.761), ROCAUC: ref(.841), Micro: average, Macro: average, Weighted: average,
		Classes:          []learn.ClassReport{class("healthy", .7, .71, .72, 120), class("disease", .8, .81, .82, 134)},
		Intervals:        &learn.Intervals{Accuracy: &learn.Interval{accuracy - .05, accuracy + .05}, F1: &learn.Interval{.7, .8}},
		CalibrationError: ref(.05),
	}
}

// hospitals is a report of four nodes, of which three gain and one loses.
func hospitals() api.Report {
	r := api.Report{
		CID: record.CIDOf([]byte("model")), Name: "heart", Target: "num", Positive: "disease", Rounds: 30, Personal: learn.Bias,
		AllRows: api.Pair{
			Local: reported(.748, 254), Federated: reported(.795, 254), Personal: reported(.8, 254),
			Gain: learn.Gain{Rows: 254, Accuracy: ref(.047), Interval: &learn.Interval{.008, .083}},
		},
		Mean:    api.MeanPair{Local: api.Metrics{Accuracy: ref(.791)}},
		Missing: []record.NodeID{{1}},
		Contributions: []api.Contribution{
			{PeerID: record.NodeID{1}, Why: "did not enrol"},
			{PeerID: record.NodeID{2}, Nation: "HUN", Name: "Budapest", TrainRows: 180, Round: 30, InFinal: true, Late: true, Why: "trained to the last round"},
			{PeerID: record.NodeID{3}, Nation: "CHE", Name: "Basel and Zürich", TrainRows: 60, Round: 12, Why: "fell silent after round 12; a quorum had waited for it"},
		},
	}
	for i, name := range []string{"Budapest", "Basel and Zürich", "Cleveland", "Long Beach"} {
		gain := []float64{.05, .02, .04, -.03}[i]
		n := api.NodeReport{PeerID: record.NodeID{byte(i + 2)}, Nation: []string{"HUN", "CHE", "USA", "USA"}[i], Name: name, TrainRows: 180, TestRows: 81}
		n.Pair = api.Pair{
			Local: reported(.75, 81), Federated: reported(.75+gain, 81), Personal: reported(.76, 81),
			Gain: learn.Gain{Rows: 81, Accuracy: ref(gain), Interval: &learn.Interval{gain - .045, gain + .045}},
		}
		r.Nodes = append(r.Nodes, n)
	}
	return r
}

// numbers is the same of a numeric target.
func numbers() api.Report {
	r := hospitals()
	of := func(rmse float64) learn.Report {
		return learn.Report{Rows: 81, MAE: ref(rmse * .8), RMSE: ref(rmse), R2: ref(1 - rmse), Intervals: &learn.Intervals{RMSE: &learn.Interval{rmse - 1, rmse + 1}}}
	}
	r.Name, r.Positive = "bikes", ""
	r.AllRows = api.Pair{Local: of(120), Federated: of(110.5), Personal: of(99.25)}
	for i := range r.Nodes {
		zero := learn.Interval{} // what is no difference of accuracies
		r.Nodes[i].Pair = api.Pair{Local: of(120), Federated: of(123 - 5*float64(i)), Personal: of(100), Gain: learn.Gain{Rows: 81, Accuracy: ref(0), Interval: &zero}}
	}
	return r
}

func at(width int) func(*bytes.Buffer, api.Report) error {
	return func(w *bytes.Buffer, r api.Report) error { return report(w, r, width) }
}

func TestReport(t *testing.T) {
	r := hospitals()
	got := render(t, at(80), r)
	want := `heart: num (positive: disease), 30 rounds
model   MODEL
report  –

On all 254 test rows federated is right on 79.5 % and local only on 74.8 %: +4.7
percentage points (95 % interval +0.8 to +8.3). By accuracy federated is better
than local only at 3 of 4 nodes, worse at 1 (USA Long Beach). The 95 % interval
of the difference is above zero at 1 node and below zero at 0; at 3 it includes
zero, so those nodes' test rows cannot tell. By ROC-AUC it is better at 0 of 4
nodes, the same at 4, worse at 0. With its own bias at each node the model is
better than local only at 4 of 4 nodes, worse at 0. A node with a lower figure
may keep its own model. 1 node of the model has sent no evaluation and is in
none of these figures.

                   test  accuracy           F1                 ROC-AUC
                   rows  local  fed.   own  local  fed.   own  local  fed.   own
HUN Budapest         81  0.750 0.800 0.760  0.761 0.761 0.761  0.841 0.841 0.841
CHE Basel and Zü…    81  0.750 0.770 0.760  0.761 0.761 0.761  0.841 0.841 0.841
USA Cleveland        81  0.750 0.790 0.760  0.761 0.761 0.761  0.841 0.841 0.841
USA Long Beach       81  0.750 0.720 0.760  0.761 0.761 0.761  0.841 0.841 0.841
all rows            254  0.748 0.795 0.800  0.761 0.761 0.761  0.841 0.841 0.841
mean of nodes            0.791     –     –      –     –     –      –     –     –
worst node                   –     –     –      –     –     –      –     –     –
local: local only; fed.: federated; own: with own bias
missing: NODE

all rows (95 %)           local only            federated        with own bias
accuracy         0.748 (0.698–0.798)  0.795 (0.745–0.845)  0.800 (0.750–0.850)
F1               0.761 (0.700–0.800)  0.761 (0.700–0.800)  0.761 (0.700–0.800)
ROC-AUC                        0.841                0.841                0.841
calib. error                   0.050                0.050                0.050
`
	got = strings.NewReplacer(r.CID.String(), "MODEL", r.Missing[0].String(), "NODE").Replace(got)
	if !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, want := range []string{
		"12D3KooW…", // of a node without a name, as long as there is no room
		"CHE Basel and Zürich  60    12     no   fell silent after round 12; a quorum had\n                                        waited for it\n",
		"HUN Budapest          180   30     yes  trained to the last round; joined late\n",
		"\nall rows\n              local only                    federated\n               precision  recall  f1-score  precision  recall  f1-score  support\n\n" +
			"healthy             0.70    0.71      0.72       0.70    0.71      0.72      120\n",
		"\nweighted avg        0.50    0.25      0.33       0.50    0.25      0.33      254\n",
		"\nUSA Long Beach\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "by ") || strings.Contains(got, "chosen among") || strings.Contains(got, "promoted") {
		t.Errorf("a part without data:\n%s", got)
	}
	wide := render(t, at(140), r)
	for _, want := range []string{
		"\nUSA Long Beach             180    81  0.750 0.720 0.760  0.761 0.761 0.761  0.841 0.841 0.841    −3.0  −7.5 to +1.5\n",
		r.Missing[0].String() + "  0              0      no            did not enrol\n",
		"own part",
	} {
		if !strings.Contains(wide, want) {
			t.Errorf("no %q in\n%s", want, wide)
		}
	}
	// Without rows nothing is defined.
	r.Nodes[0].Federated, r.Nodes[0].Gain = learn.Report{Classes: make([]learn.ClassReport, 2)}, learn.Gain{}
	tail := render(t, at(80), r)
	tail = tail[strings.Index(tail, "\nHUN Budapest\n"):]
	tail = tail[:strings.Index(tail, "\nCHE ")]
	if strings.Contains(tail, "0.00") || !strings.Contains(tail, "–") {
		t.Errorf("figures of no rows:\n%s", tail)
	}
}

func TestReportOfNumbers(t *testing.T) {
	got := render(t, at(100), numbers())
	for _, want := range []string{
		"On all 81 test rows the RMSE is 110.5 federated and 120.0 local only. By RMSE federated is better\nthan local only at 3 of 4 nodes, worse at 1 (HUN Budapest). By MAE it is better at 3 of 4 nodes,\nworse at 1. With its own bias",
		"A node with a higher error may keep its own model.",
		"USA Cleveland      81  96.00 90.40 80.00  120.0 113.0 100.0  −119.000 −112.000 −99.000   112.0–114.0\n",
		"RMSE             120.0 (119.0–121.0)  110.5 (109.5–111.5)  99.25 (98.25–100.2)\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	for _, bad := range []string{"accuracy", "precision", "F1", "includes zero", "points", "calib"} {
		if strings.Contains(got, bad) {
			t.Errorf("%q in\n%s", bad, got)
		}
	}
}

// A report fits the terminal, whatever it holds.
func TestReportFits(t *testing.T) {
	for _, r := range []api.Report{hospitals(), numbers()} {
		r.Lineage, r.Search = []record.CID{r.CID}, search()
		parent := r.AllRows.Federated
		r.AllRows.Parent = &parent
		r.AllRows.Federated.Fairness = &learn.Fairness{Column: "sex", Hidden: 1, DemographicParity: ref(.1), Groups: []learn.GroupReport{{Group: strings.Repeat("long ", 20), Rows: 100}}}
		r.Nodes[0].Name = strings.Repeat("name", 16)
		r.Contributions[1].Name = r.Nodes[0].Name
		for _, width := range []int{80, 93, 100, 120, 200} {
			for line := range strings.Lines(render(t, at(width), r)) {
				if n := utf8.RuneCountInString(line) - 1; n > width {
					t.Errorf("%d characters in %d columns: %s", n, width, line)
				}
			}
		}
	}
}

// search is of three candidates, the last of which is chosen.
func search() *task.Trail {
	return &task.Trail{
		Candidates: []task.Candidate{
			{Model: learn.Logistic, LearningRate: .1, LocalSteps: 10},
			{Model: learn.Logistic, LearningRate: 1e-5, LocalSteps: 10},
			{Model: learn.MLP, Hidden: []int{32, 16}, Optimizer: learn.Adam, Outer: learn.OuterYogi, OuterRate: .1, LearningRate: .01, LocalSteps: 20, L2: .001},
		},
		Rungs: []task.TrailOfRung{
			{Round: 10, Nodes: 4, Losses: []*float64{ref(.6), ref(.7), ref(.5)}, Kept: []int{0, 2}},
			{Round: 20, Nodes: 3, Losses: []*float64{ref(.4), nil, ref(.3)}, Kept: []int{2}},
		},
		Chosen: 2,
	}
}

func TestReportSearch(t *testing.T) {
	r := hospitals()
	r.Search = search()
	want := `
chosen among 3 candidates, by the loss on rows held back from training
model                             rate  steps     L2   loss  at round  nodes
mlp 32-16, adam, outer yogi 0.1   0.01     20  0.001  0.300        20      3   chosen
logistic                           0.1     10      0  0.400        20      3  dropped
logistic                         1e-05     10      0  0.700        10      4  dropped
`
	if got := render(t, at(100), r); !strings.Contains(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// Indices from elsewhere are out of range.
	r.Search.Chosen, r.Search.Rungs[0].Kept = 99, []int{-1, 99}
	r.Search.Rungs[1].Losses = nil
	r.Search.Rungs[0].Losses[0] = ref(math.NaN())
	if got := render(t, at(80), r); strings.Contains(got, "NaN") || strings.Contains(got, "   chosen") {
		t.Error(got)
	}
}

func TestReportFairness(t *testing.T) {
	r := hospitals()
	f := &learn.Fairness{Column: "sex", Hidden: 1, DemographicParity: ref(.125), Groups: []learn.GroupReport{
		{Group: "female", Rows: 60, Accuracy: ref(.8), Selection: ref(.5), TPR: ref(.7)}, {Group: "male", Rows: 194, Accuracy: ref(.79), Selection: ref(.625)},
	}}
	r.AllRows.Federated.Fairness, r.AllRows.Local.Fairness = f, f
	got := render(t, at(80), r)
	want := `
by sex, all rows, federated
        rows  accuracy  selection rate    TPR  FPR
female    60     0.800           0.500  0.700    –
male     194     0.790           0.625      –    –
hidden: 1 group of fewer than 10 rows

difference of groups  local only  federated
demographic parity         0.125      0.125
equalised odds                 –          –
`
	if !strings.Contains(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestReportPromotion(t *testing.T) {
	for _, c := range []struct {
		promoted *bool
		want     string
	}{{nil, "is not known"}, {new(bool), "It is not promoted"}, {yesPointer(), "It is promoted"}} {
		r := hospitals()
		r.Lineage, r.Promoted = []record.CID{record.CIDOf([]byte("parent"))}, c.promoted
		got := render(t, at(200), r)
		if !strings.Contains(got, c.want) || !strings.Contains(got, "\nfrom    "+r.Lineage[0].String()+"\n") {
			t.Errorf("no %q in\n%s", c.want, got)
		}
	}
}

func yesPointer() *bool {
	b := true
	return &b
}

func TestVerdict(t *testing.T) {
	one := hospitals()
	one.Nodes, one.Missing = one.Nodes[3:], nil
	one.AllRows.Personal = learn.Report{}
	got := strings.Join(Verdict(one), " ")
	for _, want := range []string{"better than local only at 0 of 1 node, worse at 1.", "it includes zero, so that node's test rows cannot tell", "may keep its own model"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
	if strings.Contains(got, "own bias") || strings.Contains(got, "no evaluation") {
		t.Error(got)
	}
	none := hospitals()
	none.Nodes = nil
	if got := strings.Join(Verdict(none), " "); !strings.Contains(got, "nothing can be said") || !strings.Contains(got, "1 node of the model has sent no evaluation") {
		t.Error(got)
	}
	all := hospitals()
	all.Nodes = all.Nodes[:3]
	if got := strings.Join(Verdict(all), " "); strings.Contains(got, "keep its own model") {
		t.Errorf("nobody loses: %s", got)
	}
}
