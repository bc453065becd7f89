package cluster

import (
	"context"
	"encoding/csv"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"testing"
	"time"

	"village/protocol/dataset"
	"village/protocol/task"
	"village/sim"
)

var features = []string{"age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak"}

// hearts is a federation of four hospitals, or of so many nodes for each of them.
func hearts(t testing.TB, each int) sim.Config {
	t.Helper()
	f, err := os.Open("../../node/demo/heart.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	options := dataset.Options{
		Name: "heart disease", Target: "label", Split: "split", Positive: "1",
		Levels: map[string][]string{"cp": {"1", "2", "3", "4"}, "restecg": {"0", "1", "2"}, "label": {"0", "1"}},
	}
	cfg := sim.Config{Seed: 1}
	cfg.Delay.Min, cfg.Delay.Max = time.Millisecond, 3*time.Millisecond
	var manifests []dataset.Manifest
	for _, h := range []struct{ center, nation string }{{"cleveland", "USA"}, {"hungarian", "HUN"}, {"switzerland", "CHE"}, {"va", ""}} {
		rows := dataset.Table{Columns: lines[0][1:]}
		for _, l := range lines[1:] {
			if l[0] == h.center {
				rows.Rows = append(rows.Rows, l[1:])
			}
		}
		c, err := dataset.Clean(rows, options)
		if err != nil {
			t.Fatal(err)
		}
		manifests = append(manifests, c.Manifest)
		for i := range each {
			part := dataset.Table{Columns: c.Table.Columns}
			for j := i; j < len(c.Table.Rows); j += each {
				part.Rows = append(part.Rows, c.Table.Rows[j])
			}
			cfg.Nodes = append(cfg.Nodes, sim.Node{Name: fmt.Sprint(h.center, " ", i+1), Nation: h.nation, Rows: part, Split: "split"})
		}
	}
	e, err := dataset.NewEncoding("label", features, manifests)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Task = task.New("heart disease", e, nil)
	cfg.Task.Rounds = 20
	return cfg
}

func TestSameAsSimulated(t *testing.T) {
	before := runtime.NumGoroutine()
	cfg := hearts(t, 1)
	cfg.Samples = 5
	start := time.Now()
	res, err := Run(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(time.Since(start), res.Virtual, res.Messages, res.Bytes, res.Done, res.Updates)
	want, err := sim.Run(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(res.Results.AllRows, want.Results.AllRows) || !reflect.DeepEqual(res.Results.Mean, want.Results.Mean) {
		t.Errorf("%+v\n%+v", res.Results.Mean, want.Results.Mean)
	}
	if !reflect.DeepEqual(res.Model.Params, want.Model.Params) {
		t.Error(res.Model.Params, want.Model.Params)
	}
	for i, p := range res.Trace {
		t.Log(p.Round, p.Virtual, p.Messages, p.Bytes, *p.AllRows.ROCAUC, *want.Trace[i].AllRows.ROCAUC, *p.Mean.Accuracy, *want.Trace[i].Mean.Accuracy, p.Disagreement)
	}
	for i := 0; runtime.NumGoroutine() > before && i < 100; i++ {
		time.Sleep(20 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before {
		b := make([]byte, 1<<20)
		b = b[:runtime.Stack(b, true)]
		t.Errorf("%d goroutines, %d before\n%s", n, before, b)
	}
}
