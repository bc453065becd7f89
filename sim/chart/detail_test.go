package chart

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"village/protocol/figure"
	"village/protocol/learn"
)

func detailedAll(runs []Run) []Run {
	for i := range runs {
		runs[i] = detailed(runs[i])
	}
	return runs
}

func numbers(runs []Run) []Run {
	for i := range runs {
		runs[i] = number(runs[i])
	}
	return runs
}

// Errors take the place of accuracies where the target is a number.
func TestNumericTargets(t *testing.T) {
	runs := numbers(detailedAll(threeByFive()))
	files := write(t, runs)
	sound(t, files)
	for name, want := range map[string]bool{
		"rmse-rounds": true, "r2-rounds": true, "rmse-bytes": true, "rmse-time": true, "rmse-gain-nodes": true, "disagreement-rounds": true,
		"accuracy-rounds": false, "auc-rounds": false, "accuracy-bytes": false, "accuracy-time": false, "gain-nodes": false, "roc": false, "calibration": false,
	} {
		if has := files[name+".svg"] != nil && files[name+".png"] != nil; has != want {
			t.Errorf("%s is there: %t", name, has)
		}
	}
	page := string(files["report.html"])
	for _, want := range []string{">MAE<", ">RMSE<", ">R²<", "by RMSE on the node", "RMSE alone less federated (right of 0 is better)"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, other := range []string{">accuracy<", ">ROC-AUC<"} {
		if strings.Contains(page, other) {
			t.Errorf("the page has %q", other)
		}
	}
	n, row := runs[0].Result.Results.Nodes[0], table(t, files["nodes.csv"])[0]
	full := func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
	for column, want := range map[string]string{
		"local_rmse": full(*n.Local.RMSE), "federated_r2": full(*n.Federated.R2), "own_mae": full(*n.Personal.MAE),
		"gain": full(*n.Local.RMSE - *n.Federated.RMSE), "own_gain": full(*n.Local.RMSE - *n.Personal.RMSE),
		"local_accuracy": "", "own_roc_auc": "", "gain_low": "",
	} {
		if got, ok := row[column]; !ok || got != want {
			t.Errorf("%s is %q, want %q", column, got, want)
		}
	}
	p, row := runs[0].Result.Trace[3], table(t, files["rounds.csv"])[3]
	if row["rmse"] != full(*p.AllRows.RMSE) || row["mean_of_nodes_mae"] != full(*p.Mean.MAE) || row["accuracy"] != "" {
		t.Errorf("the row of a round is %v", row)
	}
	sum, row := Summarise(runs)[0], table(t, files["summary.csv"])[0]
	if row["all_rows_own_rmse"] != full(sum.AllRows.Personal.RMSE.Mean) || row["worst_node_local_r2_sd"] != full(sum.Worst.Local.R2.SD) ||
		row["all_rows_local_f1"] != "" || row["nodes_own_better"] != strconv.Itoa(sum.OwnBetter) || !sum.Numeric() {
		t.Errorf("the summary is %v", row)
	}
}

// A lower error is a gain.
func TestNumericGain(t *testing.T) {
	run := func(local, federated, own float64) Run {
		r := Run{}
		n := node("x", local, federated)
		n.Personal.Accuracy = &own
		r.Result.Results.Nodes = append(r.Result.Results.Nodes, n)
		r.Result.Results.AllRows = n.Pair
		r.Result.Results.AllRows.Personal.Rows = 9
		return number(r)
	}
	s := settingsOf([]Run{run(.7, .8, .75), run(.7, .6, .9)})[0]
	sum := s.summary()
	if sum.Better != 1 || sum.Worse != 1 || sum.OwnBetter != 2 {
		t.Errorf("counts are %+v", sum)
	}
	if g := s.nodes[0].gains; math.Abs(g[federated].Mean) > 1e-9 || math.Abs(g[own].Mean-125) > 1e-9 || g[own].N != 2 {
		t.Errorf("gains are %+v", g)
	}
}

// The page of a run has all that its report has.
func TestDetails(t *testing.T) {
	files := write(t, detailedAll(one()))
	sound(t, files)
	page := string(files["report.html"])
	for _, want := range []string{
		">own bias<", "With a part of its own in that model", "<h2>Groups</h2>", "By sex", ">selection rate<", "demographic parity", "1 group of fewer than ten rows",
		"<h2>How the model was chosen</h2>", "mlp 32-16, outer adam 0.03", "round 20", "95 % interval",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, name := range []string{"roc", "calibration", "gain-nodes"} {
		if !bytes.Contains(files[name+".svg"], []byte("own bias")) {
			t.Errorf("%s has no own part", name)
		}
	}
	if !bytes.Contains(files["gain-nodes.svg"], []byte("95 % interval")) {
		t.Error("the gains have no interval")
	}
	if plain := string(write(t, one())["report.html"]); strings.Contains(plain, "own bias") || strings.Contains(plain, "<h2>Groups") || strings.Contains(plain, "was chosen") {
		t.Error("the page tells of what is not there")
	}
	row := table(t, files["nodes.csv"])[0]
	if row["own_accuracy"] == "" || row["gain_low"] == "" || row["own_rmse"] != "" {
		t.Errorf("the node is %v", row)
	}
}

// Runs that predict classes stand beside runs that predict numbers.
func TestBothKinds(t *testing.T) {
	class, num := detailed(one()[0]), number(detailed(one()[0]))
	num.Label = "another"
	files := write(t, []Run{class, num})
	sound(t, files)
	for _, name := range []string{"accuracy-rounds", "rmse-rounds", "gain-nodes", "rmse-gain-nodes", "roc"} {
		if files[name+".svg"] == nil {
			t.Errorf("%s is missing", name)
		}
	}
	page := string(files["report.html"])
	if !strings.Contains(page, ">accuracy<") || !strings.Contains(page, ">RMSE<") {
		t.Error("the page lacks a kind")
	}
	if s := string(files["gain-nodes.svg"]); strings.Contains(s, "another") {
		t.Error("errors are among the accuracies")
	}
}

// Training that diverges does not press the rest of the lines together.
func TestDivergingErrors(t *testing.T) {
	runs := numbers(detailedAll(one()))
	for i := range 5 {
		rmse, r2 := math.Pow(10, float64(300-10*i)), -math.Pow(10, float64(200-10*i))
		runs[0].Result.Trace[i].AllRows.RMSE, runs[0].Result.Trace[i].AllRows.R2 = &rmse, &r2
	}
	files := write(t, runs)
	sound(t, files)
	if !bytes.Contains(files["r2-rounds.svg"], []byte("below −1")) {
		t.Error("nothing says that the axis ends")
	}
}

func TestSearchTrail(t *testing.T) {
	runs := detailedAll(threeByFive()[:2])
	r := settingsOf(runs)[0].search()
	var names, fates []string
	for _, c := range r.Candidates {
		names, fates = append(names, c.Name+" "+c.Rate), append(fates, c.Fate)
	}
	if want := []string{"mlp 32-16, outer adam 0.03 0.02", "linear 0.5", "linear 7"}; !slices.Equal(names, want) {
		t.Errorf("candidates are %q", names)
	}
	if want := []string{"chosen", "dropped", "dropped"}; !slices.Equal(fates, want) {
		t.Errorf("fates are %q", fates)
	}
	if c := r.Candidates; c[0].Losses[1] != (cell{Value: "0.520", Class: "f"}) || c[1].Losses[1].Class != "" || c[2].Losses[1].Value != "–" {
		t.Errorf("losses are %+v", c)
	}
	if len(r.Others) != 1 || !strings.HasPrefix(r.Others[0], "seed 2: mlp 32-16") {
		t.Errorf("others are %q", r.Others)
	}
	runs[0].Result.Results.Search.Chosen = 9
	runs[1].Result.Results.Search = nil
	if settingsOf(runs)[0].search() != nil {
		t.Error("a search without a choice is shown")
	}
}

func TestROCAverages(t *testing.T) {
	a := []learn.ROCPoint{{}, {FPR: 0, TPR: .5}, {FPR: 1, TPR: 1}}
	b := []learn.ROCPoint{{}, {FPR: .5, TPR: .5}, {FPR: 1, TPR: 1}}
	line := rocLine([][]learn.ROCPoint{a, b})
	for x, want := range map[int]float64{0: .25, 50: (.75 + .5) / 2, 100: 1} {
		if p := line[1+x]; math.Abs(p.y-want) > 1e-12 || math.Abs(p.x-float64(x)/100) > 1e-12 {
			t.Errorf("at %d %% it is %+v, want %g", x, p, want)
		}
	}
	if got := rocLine([][]learn.ROCPoint{b}); len(got) != 3 || got[1].y != .5 {
		t.Errorf("a single curve is %v", got)
	}
	for _, bad := range [][]learn.ROCPoint{nil, {{}}, {{}, {FPR: 2, TPR: 1}}, {{FPR: .5, TPR: .5}, {FPR: .4, TPR: 1}}, {{}, {FPR: math.NaN()}}} {
		if rising(bad) {
			t.Errorf("%v passes for a curve", bad)
		}
	}
}

func TestPooledBins(t *testing.T) {
	bin := func(from float64, rows uint64, observed float64) learn.CalibrationBin {
		return learn.CalibrationBin{From: from, Rows: rows, Predicted: from + .05, Observed: observed}
	}
	got := pooled([]learn.Report{
		{Calibration: []learn.CalibrationBin{bin(.5, 10, 1), bin(.7, 0, 0)}},
		{Calibration: []learn.CalibrationBin{bin(.2, 4, .25), bin(.5, 30, .6), bin(.8, 5, math.NaN())}},
	})
	if len(got) != 2 || got[0].From != .2 || got[1].Rows != 40 || math.Abs(got[1].Observed-.7) > 1e-12 {
		t.Errorf("bins are %+v", got)
	}
}

func TestSpread(t *testing.T) {
	for k, want := range map[bool]string{true: "3.3", false: "326.7"} {
		if got := spread(figure.KindOf(k), Stat{2, 107.8, 3.267}); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
