package sim

import (
	"fmt"
	"strings"
	"testing"

	"village/protocol/dataset"
	"village/protocol/task"
)

// patients is a table with a learnable target and a column of sites.
func patients(rows int) dataset.Table {
	t := dataset.Table{Columns: []string{"site", "age", "smoker", "sick"}}
	for i := range rows {
		age, smoker, sick := 20+i%60, "no", "no"
		if i%3 == 0 {
			smoker = "yes"
		}
		if i%60+20*(i%3) < 30 {
			sick = "yes"
		}
		t.Rows = append(t.Rows, []string{string(rune('a' + i%4)), fmt.Sprint(age), smoker, sick})
	}
	return t
}

func experiment() Experiment {
	return Experiment{
		// The rows of patients repeat, and duplicates are dropped.
		Table: patients(240), Options: dataset.Options{Target: "sick"},
		Partition: "column:site", Nodes: 4, Seed: 1, Tune: func(t *task.Task) { t.Rounds = 10 },
	}
}

func TestExperimentRuns(t *testing.T) {
	for partition, nodes := range map[string]int{"column:site": 4, "iid": 3} {
		e := experiment()
		e.Partition, e.Nodes = partition, nodes
		cfg, err := e.Config()
		if err != nil {
			t.Fatal(err)
		}
		r := run(t, cfg)
		if len(r.Results.Nodes) != nodes || r.Results.AllRows.Federated.Accuracy == nil {
			t.Errorf("%s: %d nodes, accuracy %v", partition, len(r.Results.Nodes), r.Results.AllRows.Federated.Accuracy)
		}
	}
}

func TestExperimentDealsEveryRowOnce(t *testing.T) {
	e := experiment()
	e.Partition, e.Nodes = IID, 7
	cfg, err := e.Config()
	if err != nil {
		t.Fatal(err)
	}
	whole, err := dataset.Clean(e.Table, dataset.Options{Name: "n", Target: "sick"})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, n := range cfg.Nodes {
		for _, row := range n.Rows.Rows {
			seen[strings.Join(row, ",")]++
		}
	}
	for _, row := range whole.Table.Rows {
		seen[strings.Join(row, ",")]--
	}
	for row, n := range seen {
		if n != 0 {
			t.Errorf("row %s is dealt %d times too often", row, n)
		}
	}
}

func TestExperimentsThatCannotBe(t *testing.T) {
	for want, change := range map[string]func(*Experiment){
		"a loss of 1 cannot be": func(e *Experiment) { e.Faults.Loss = 1 },
		"no column \"place\"":   func(e *Experiment) { e.Partition = "column:place" },
		"partition \"by site\"": func(e *Experiment) { e.Partition = "by site" },
		"nodes cannot share":    func(e *Experiment) { e.Partition, e.Nodes = IID, 1000 },
		"at least one node":     func(e *Experiment) { e.Partition, e.Nodes = IID, 0 },
		"there is no column":    func(e *Experiment) { e.Options.Target = "sickness" },
		"more than the 200": func(e *Experiment) {
			e.Partition, e.Nodes, e.Table = IID, 201, unlike(patients(2400))
			e.Options.Ignore = nil
		},
		"lacks height": func(e *Experiment) { e.Features = []string{"height"} },
	} {
		e := experiment()
		change(&e)
		if _, err := e.Config(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

// unlike makes every row another.
func unlike(t dataset.Table) dataset.Table {
	for i, row := range t.Rows {
		row[1] = fmt.Sprintf("%d.%04d", 20+i%60, i)
	}
	return t
}
