package portable

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"village/node/api"
	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/record"
	"village/protocol/task"
)

func of[T any](x T) *T { return &x }

// hostile is what a peer may put into a name.
const hostile = "<img src=x> [a](javascript:b) `c` | **d** \u202e# e \\|<b>"

// results are those of two nodes.
func results(m task.Model) (task.Results, CardOptions) {
	var a, b record.NodeID
	a[0], b[0] = 1, 2
	report := func(accuracy float64) learn.Report {
		return learn.Report{
			Rows: 100, Accuracy: of(accuracy), F1: of(.75), ROCAUC: of(.875),
			Intervals: &learn.Intervals{Accuracy: &learn.Interval{accuracy - .05, accuracy + .05}},
		}
	}
	pair := task.Pair{Local: report(.7), Federated: report(.8), Personal: report(.82)}
	all := pair
	all.Gain = learn.Gain{Rows: 200, Better: 30, Worse: 10, Accuracy: of(.1), Interval: &learn.Interval{.03, .17}}
	all.Federated.Calibration = []learn.CalibrationBin{{From: 0, To: .1}, {From: .1, To: .2, Rows: 40, Predicted: .15, Observed: .2}}
	all.Federated.CalibrationError = of(.05)
	all.Federated.Fairness = &learn.Fairness{
		Column: "sex", Hidden: 1, Groups: []learn.GroupReport{{Group: "f", Rows: 90, Accuracy: of(.8), Selection: of(.4)}},
		DemographicParity: of(.1), EqualisedOdds: of(.2),
	}
	worse := task.Pair{Local: report(.9), Federated: report(.6), Personal: report(.9)}
	r := task.Results{
		CID: record.CIDOf([]byte("model")), Task: m.Task, Name: m.Name, Target: m.Encoding.Target, Positive: m.Encoding.Positive,
		Rounds: 30, Personal: learn.Bias, AllRows: all, Missing: []record.NodeID{b},
		Nodes: []task.NodeResult{
			{PeerID: a, Nation: "HUN", Name: "Budapest", TrainRows: 300, TestRows: 100, Pair: pair},
			{PeerID: b, Nation: "CHE", Name: hostile, TrainRows: 50, TestRows: 100, Pair: worse},
		},
		Mean: task.MeanPair{Federated: task.Metrics{Accuracy: of(.7)}},
		Contributions: []task.Contribution{
			{PeerID: a, Nation: "HUN", Name: "Budapest", TrainRows: 300, Round: 30, InFinal: true, Why: "trained to the last round"},
			{PeerID: b, Nation: "CHE", Name: hostile, TrainRows: 50, Round: 12, Why: "left after round 12"},
		},
		Lineage: []record.CID{record.CIDOf([]byte("parent"))}, Promoted: of(true),
	}
	return r, CardOptions{
		Task: task.Task{
			Name: m.Name, Description: "Who is ill?\n\n# " + hostile, Encoding: m.Encoding,
			Settings: task.Settings{Rounds: 40, Training: task.Training{
				Candidate: task.Candidate{
					Model: m.Spec.Kind, LocalSteps: 5, LearningRate: .1, L2: .01, Optimizer: learn.Adam, Outer: learn.OuterYogi, OuterRate: .3,
				},
				Batch: 32, Mixing: "all", Prox: .5,
			}},
		},
		Datasets: []api.Dataset{
			{CID: record.CIDOf([]byte("1")), PeerID: a, Manifest: dataset.Manifest{Name: "Heart disease", Licence: "CC-BY-4.0", Domain: "health"}},
			{CID: record.CIDOf([]byte("2")), PeerID: b, Manifest: dataset.Manifest{Name: "Heart disease", Licence: "CC-BY-4.0", Domain: "yes: [no]\n- x"}},
		},
	}
}

// split parts a card into what its front matter says and the Markdown.
func split(t *testing.T, card string) (front map[string]any, body string) {
	t.Helper()
	parts := strings.SplitN(card, "---\n", 3)
	if len(parts) != 3 || parts[0] != "" {
		t.Fatalf("no front matter in\n%s", card)
	}
	if err := yaml.Unmarshal([]byte(parts[1]), &front); err != nil {
		t.Fatalf("%v in\n%s", err, parts[1])
	}
	return front, parts[2]
}

func TestCard(t *testing.T) {
	m := model(learn.Logistic, []int{0, 1}, nil, everyStep(), 1)
	r, o := results(m)
	card, err := Card(m, r, o)
	if err != nil {
		t.Fatal(err)
	}
	front, body := split(t, card)
	for key, want := range map[string]any{
		"license": "cc-by-4.0", "library_name": "village", "pipeline_tag": "tabular-classification",
	} {
		if front[key] != want {
			t.Errorf("%s is %v, want %v", key, front[key], want)
		}
	}
	for key, want := range map[string][]any{
		"tags":     {"village", "federated-learning", "tabular", "logistic", "onnx", "safetensors", "health", "yes-no-x"},
		"datasets": {"heart-disease"},
		"metrics":  {"accuracy", "f1", "roc_auc"},
	} {
		if got, _ := front[key].([]any); !slices.Equal(got, want) {
			t.Errorf("%s is %v, want %v", key, front[key], want)
		}
	}
	index := front["model-index"].([]any)[0].(map[string]any)
	result := index["results"].([]any)[0].(map[string]any)
	metric := result["metrics"].([]any)[0].(map[string]any)
	if index["name"] != "a model" || result["task"].(map[string]any)["type"] != "tabular-classification" ||
		result["dataset"].(map[string]any)["name"] != "Heart disease" || metric["type"] != "accuracy" || metric["value"] != .8 {
		t.Errorf("model-index %v", index)
	}
	for _, want := range []string{
		"# Model a model", "`chol\\|missing -9\\|missing 0\\|fill 210.5\\|indicator`", "| `öst <&>`"[2:], "`Pa`",
		"300 training rows of 1 nation.", "no: left after round 12", "30 of at most 40, each of 5 local steps at a learning rate of 0.1, 32 rows a step",
		"local optimizer: adam, L2 penalty 0.01, FedProx 0.5", "outer optimizer yogi at a rate of 0.3",
		"| **all rows** | 100 | 0.700 (0.650 to 0.750) | 0.800 (0.750 to 0.850) | 0.820 (0.770 to 0.870) |",
		"only this model gets 30 right, and only the local ones 10: accuracy +0.100 (+0.030 to +0.170)",
		"is 0.050 from the observed share", "| 0.1 to 0.2 | 40 | 0.150 | 0.200 |", "Groups of sex", "Equalised odds difference: 0.200",
		"Without an evaluation: 1 node of the model", "The node's own model does better on its test rows at 1 of 2 nodes", record.CIDOf([]byte("parent")).String(),
		"not worse than the one before", "village model verify " + r.CID.String(), `["label", "probabilities"]`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the card does not say %q", want)
		}
	}
	if t.Failed() {
		t.Log(card)
	}
}

// TestCardOfHostileNames holds that nothing that peers have named is more than
// text.
func TestCardOfHostileNames(t *testing.T) {
	features := []dataset.FeatureSpec{
		{Name: hostile, Kind: dataset.Numeric, Unit: "``"},
		{Name: "c", Kind: dataset.Categorical, Levels: []string{"# <b>", "---", "``` x"}},
	}
	m := model(learn.Logistic, []int{0, 1}, nil, features, 1)
	m.Name, m.Encoding.Target = "---\nlicense: mit", hostile
	m.Encoding.Classes, m.Encoding.Positive = []string{hostile, "{x: 'y'"}, hostile
	r, o := results(m)
	r.AllRows.Federated.Fairness.Column, r.AllRows.Federated.Fairness.Groups[0].Group = hostile, hostile
	o.Datasets[0].Name, o.Datasets[0].Licence = hostile, "'\": #\n- &a *b"
	o.Datasets[1].Name, o.Datasets[1].Licence = "\u202e心臓", o.Datasets[0].Licence
	card, err := Card(m, r, o)
	if err != nil {
		t.Fatal(err)
	}
	front, body := split(t, card)
	if front["license"] != "other" || front["license_name"] != "'\": # - &a *b" {
		t.Errorf("license %v, name %v", front["license"], front["license_name"])
	}
	if name := front["model-index"].([]any)[0].(map[string]any)["name"]; name != "--- license: mit" {
		t.Errorf("model-index names %q", name)
	}
	if got := front["datasets"].([]any); len(got) != 2 || got[0] != "img-src-x-a-javascript-b-c-d-e-b" || got[1] != o.Datasets[1].CID.String() {
		t.Errorf("datasets %v", got)
	}
	code := regexp.MustCompile("(?s)```.*?\n```|(`+)[^`].*?[^`]?`+")
	bare := code.ReplaceAllString(regexp.MustCompile(`\\.`).ReplaceAllStringFunc(body, func(s string) string {
		if s == `\|` || strings.Contains("\\`*_[]~$#!^", s[1:]) {
			return ""
		}
		return s
	}), "")
	if strings.ContainsAny(bare, "<>") || strings.Contains(bare, "](j") || strings.Contains(bare, "**d**") || strings.ContainsRune(body, '\u202e') {
		t.Errorf("something of the names is not text in\n%s", bare)
	}
	for _, line := range strings.Split(body, "\n") {
		if strings.HasPrefix(line, "# ") && line != `# Model --- license: mit` && !strings.HasPrefix(line, "# Model") || line == "---" {
			t.Errorf("a name begins the line %q", line)
		}
	}
}

func TestCell(t *testing.T) {
	for in, want := range map[string]string{
		"":             "",
		"age":          "`age`",
		" a\n b\t":     "`a b`",
		"a|b":          "`a\\|b`",
		`a\|b`:         "`a\\ \\|b`", // GFM takes \\ for an escaped backslash first, and the cell would end
		"`":            "`` ` ``",
		"a```b`":       "```` a```b` ````",
		"\u202eab\x00": "`ab`",
		"\xff":         "`\ufffd`",
	} {
		if got := cell(in); got != want {
			t.Errorf("%q becomes %s, want %s", in, got, want)
		}
	}
}

func TestCardOfANumber(t *testing.T) {
	m := model(learn.MLP, nil, []int{32, 16}, everyStep(), 1)
	m.Personal = learn.LastLayer
	r, o := results(m)
	o.Datasets[1].Licence = "ODbL-1.0"
	r.AllRows = task.Pair{Federated: learn.Report{Rows: 10, MAE: of(12.25), RMSE: of(1234.5678), R2: of(-.5)}}
	r.Nodes[0].Pair = task.Pair{Local: learn.Report{RMSE: of(1.)}, Federated: learn.Report{RMSE: of(2.)}}
	r.Nodes[1].Pair = task.Pair{Local: learn.Report{RMSE: of(2.)}, Federated: learn.Report{RMSE: of(1.)}}
	r.Promoted = nil
	card, err := Card(m, r, o)
	if err != nil {
		t.Fatal(err)
	}
	front, body := split(t, card)
	if front["license"] != nil {
		t.Errorf("license %v of datasets whose licences differ", front["license"])
	}
	if front["pipeline_tag"] != "tabular-regression" || !slices.Equal(front["metrics"].([]any), []any{"mae", "rmse", "r2"}) {
		t.Errorf("front matter %v", front)
	}
	for _, want := range []string{
		"predicts the number target", "hidden layers of 32 16 rectified linear units", "each node's own part, zero in this model: last-layer",
		"| **all rows** | 10 | 12.25 |", "1235", "−0.500", "does better on its test rows at 1 of 2 nodes: HUN Budapest.", "not known yet", `["prediction"]`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the card does not say %q", want)
		}
	}
	for _, unwanted := range []string{"Calibration", "Groups of sex", "get 0 right", "NaN", "%!"} {
		if strings.Contains(body, unwanted) {
			t.Errorf("the card says %q", unwanted)
		}
	}
	if t.Failed() {
		t.Log(card)
	}
}

func TestCardWithoutResults(t *testing.T) {
	m := model(learn.Softmax, []int{0, 1, 2}, nil, everyStep(), 1)
	card, err := Card(m, task.Results{}, CardOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if front, _ := split(t, card); front["model-index"] != nil || front["license"] != nil || front["datasets"] != nil {
		t.Errorf("front matter %v", front)
	}
}
