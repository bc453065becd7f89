package study

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"village/protocol/dataset"
	"village/sim"
	"village/sim/chart"
	"village/sim/scenario"
)

func noData(string, []string) (dataset.Table, scenario.Defaults, error) {
	return dataset.Table{}, scenario.Defaults{}, errors.New("no such data")
}

// small are three runs of a small synthetic federation.
func small(t *testing.T) []scenario.Scenario {
	t.Helper()
	s := scenario.New()
	s.Name, s.Data, s.Nodes, s.Rounds, s.Partition = "small", "synthetic:300x3", 5, 6, "iid"
	list, err := scenario.Vary(s, []string{"mixing=all,ring,random"}, 1)
	if err != nil || len(list) != 3 {
		t.Fatalf("%d runs: %v", len(list), err)
	}
	return list
}

func TestAStudyRunsEverything(t *testing.T) {
	st, err := New(small(t), noData, nil)
	if err != nil {
		t.Fatal(err)
	}
	last := 0
	st.Progress = func(done, of int) {
		if done < last || of != 3*5*6 {
			t.Errorf("progress from %d to %d of %d", last, done, of)
		}
		last = done
	}
	r, err := st.Do(t.Context())
	if err != nil || len(r.Runs) != 3 || len(r.Settings) != 3 || len(r.Missing) != 0 || r.Run != nil {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, run := range r.Runs {
		if run.Nodes != 5 || run.Rounds != 6 || run.Messages == 0 || run.BytesSent == 0 || run.WallSeconds <= 0 || len(run.Digest) != 64 || *run.AllRows.Federated.Accuracy < .5 {
			t.Errorf("%+v", run)
		}
	}
	if r.Runs[0].Digest == r.Runs[1].Digest {
		t.Error("two ways to mix are one run")
	}
	for _, table := range r.Tables() {
		if len(table.Rows) != 1+3 || table.Rows[2][0] != "mixing=ring" {
			t.Errorf("%q", table)
		}
	}
	dir := t.TempDir()
	if err := r.Write(dir, "title"); err != nil || r.Out != dir {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "report.html")); err != nil {
		t.Error(err)
	}
}

// The fields of a single run stand at the top of the JSON.
func TestOneRun(t *testing.T) {
	st, err := New(small(t)[:1], noData, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := st.Do(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(b, &fields); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{
		"schema", "nodes", "rounds", "seed", "all_rows", "mean_of_nodes", "worst_node", "disagreement", "messages", "bytes_sent",
		"virtual_seconds", "wall_seconds", "cpu_seconds", "peak_rss_bytes", "digest", "runs", "settings", "missing",
	} {
		if _, ok := fields[key]; !ok {
			t.Errorf("%s is missing", key)
		}
	}
	if facts := r.Facts(); facts[1][1] != "5" {
		t.Errorf("%q", facts)
	}
}

// What had come to its end stays when the rest is interrupted, and the rest is
// named.
func TestAnInterruptedStudy(t *testing.T) {
	st, err := New(small(t), noData, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	runs := 0
	st.Run = func(ctx context.Context, cfg sim.Config) (sim.Result, error) {
		if runs++; runs == 2 {
			interrupt() // in the middle of the second
		}
		return sim.Run(ctx, cfg)
	}
	r, err := st.Do(ctx)
	if !errors.Is(err, context.Canceled) || len(r.Runs) != 1 || len(r.Settings) != 1 {
		t.Fatalf("%d runs, %v", len(r.Runs), err)
	}
	if want := []string{"mixing=ring, seed 1: interrupted", "mixing=random, seed 1: interrupted"}; !slices.Equal(r.Missing, want) {
		t.Errorf("missing are %q", r.Missing)
	}
	dir := t.TempDir()
	if err := r.Write(dir, "title"); err != nil {
		t.Fatal(err)
	}
	if page, err := os.ReadFile(filepath.Join(dir, "report.html")); err != nil || !strings.Contains(string(page), "mixing=random, seed 1: interrupted") {
		t.Errorf("the page does not say what is missing: %v", err)
	}
}

// A run that fails does not take the others with it.
func TestAFailingRun(t *testing.T) {
	st, err := New(small(t), noData, nil)
	if err != nil {
		t.Fatal(err)
	}
	runs := 0
	st.Run = func(ctx context.Context, cfg sim.Config) (sim.Result, error) {
		if runs++; runs == 2 {
			return sim.Result{}, errors.New("broken")
		}
		return sim.Run(ctx, cfg)
	}
	r, err := st.Do(t.Context())
	if !errors.Is(err, ErrUnfinished) || !strings.Contains(err.Error(), "mixing=ring, seed 1: broken") || len(r.Runs) != 2 {
		t.Errorf("%d runs, %v", len(r.Runs), err)
	}
}

func TestWhatCannotBeIsRefusedBeforeAnyRun(t *testing.T) {
	list := small(t)
	not := func(cfg sim.Config) error {
		if cfg.Task.Mixing == "random" {
			return errors.New("not that")
		}
		return nil
	}
	if _, err := New(list, noData, not); err == nil || err.Error() != "mixing=random, seed 1: not that" {
		t.Errorf("%v", err)
	}
	list[2].Nodes = 301
	if _, err := New(list, noData, nil); err == nil || !strings.Contains(err.Error(), "mixing=random, seed 1: nodes = 301") {
		t.Errorf("%v", err)
	}
}

// Settings that predict numbers stand in a table of their own.
func TestTablesByKind(t *testing.T) {
	stat := func(mean, sd float64) chart.Stat { return chart.Stat{N: 2, Mean: mean, SD: sd} }
	accuracies := func(x float64) chart.MetricStats {
		return chart.MetricStats{Accuracy: stat(x, .01), ROCAUC: stat(x+.1, .02)}
	}
	errors := func(x float64) chart.MetricStats { return chart.MetricStats{RMSE: stat(x, 3.14159), R2: stat(-.5, .1)} }
	tables := Result{Settings: []chart.Summary{
		{
			Label: "a", Runs: 2, Worst: chart.Compare{Federated: accuracies(.5)},
			AllRows: chart.Compare{Local: accuracies(.6), Federated: accuracies(.7), Personal: accuracies(.8)},
		},
		{
			Label: "b", Runs: 2, Worst: chart.Compare{Federated: errors(990)},
			AllRows: chart.Compare{Local: errors(300), Federated: errors(200), Personal: errors(100)},
		},
	}}.Tables()
	want := [][][]string{
		{{"SETTING", "LOCAL ONLY", "FEDERATED", "OWN PART", "WORST NODE", "ROC-AUC"}, {"a", "0.600 ± 0.010", "0.700 ± 0.010", "0.800 ± 0.010", "0.500 ± 0.010", "0.800 ± 0.020"}},
		{{"SETTING", "LOCAL ONLY", "FEDERATED", "OWN PART", "WORST NODE", "R²"}, {"b", "300.0 ± 3.1", "200.0 ± 3.1", "100.0 ± 3.1", "990.0 ± 3.1", "−0.500 ± 0.100"}},
	}
	if len(tables) != 3 {
		t.Fatalf("%d tables", len(tables))
	}
	for i, rows := range want {
		if !slices.EqualFunc(tables[i].Rows, rows, slices.Equal[[]string]) {
			t.Errorf("table %d is %q", i, tables[i].Rows)
		}
	}
}

// A setting is called what tells it from the others.
func TestLabels(t *testing.T) {
	one := scenario.Scenario{Data: "/home/me/rows.csv"}
	a, b := scenario.Scenario{Name: "a", Label: "loss=0"}, scenario.Scenario{Name: "b", Label: "loss=0"}
	for _, c := range []struct {
		all  []scenario.Scenario
		want []string
	}{
		{[]scenario.Scenario{one}, []string{"rows.csv"}},
		{[]scenario.Scenario{a, a}, []string{"loss=0", "loss=0"}},
		{[]scenario.Scenario{a, b}, []string{"a loss=0", "b loss=0"}},
		{[]scenario.Scenario{{Name: "a"}}, []string{"a"}},
	} {
		if got := labels(c.all); !slices.Equal(got, c.want) {
			t.Errorf("%q, not %q", got, c.want)
		}
	}
}
