package scenario_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"village/node/ingest/sets"
	"village/protocol/dataset"
	"village/sim"
	"village/sim/scenario"
)

func open(name string, _ []string) (dataset.Table, scenario.Defaults, error) {
	t, set, err := sets.Open(name)
	return t, scenario.Defaults(set.Defaults), err
}

func TestShippedScenariosCanBe(t *testing.T) {
	nodes := map[string]int{
		"four-hospitals": 4, "pisa-41-nations": 41, "pen-digits": 10, "un-193": 193, "lossy-30": 4, "partition-and-heal": 20,
		"byzantine-20": 20, "mixing-graphs": 40, "ten-thousand": 10_000,
	}
	shipped := scenario.Shipped()
	if len(shipped) != len(nodes) {
		t.Errorf("%d scenarios are shipped, %d tested", len(shipped), len(nodes))
	}
	for _, s := range shipped {
		if s.About == "" || len(s.About) > 100 || strings.Contains(s.About, "\n") {
			t.Errorf("%s: about %q", s.Name, s.About)
		}
		runs, err := scenario.Vary(s, nil, 1)
		if err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
		if s.Name == "ten-thousand" && testing.Short() {
			continue
		}
		for _, run := range runs {
			cfg, err := run.Config(open)
			if err != nil || len(cfg.Nodes) != nodes[s.Name] {
				t.Errorf("%s %s: %d nodes, %v", s.Name, run.Label, len(cfg.Nodes), err)
			}
			if s.Name == "ten-thousand" {
				checkTenThousand(t, cfg)
			}
		}
	}
	if _, near, ok := scenario.Named("four-hospital"); ok || near != "four-hospitals" {
		t.Errorf("four-hospital is found (%t), or rather %q", ok, near)
	}
}

func checkTenThousand(t *testing.T, cfg sim.Config) {
	for _, n := range cfg.Nodes {
		training, testing, err := cfg.Task.Encoding.Divide(n.Rows, n.Split, cfg.Task.Seed)
		if err != nil || len(training.Rows) != 4 || len(testing.Rows) != 1 {
			t.Fatalf("%s: %d training and %d test rows, %v", n.Name, len(training.Rows), len(testing.Rows), err)
		}
	}
}

// The four hospitals come to the figures of the demo, which are those of the
// same rows, steps and rates.
func TestFourHospitalsAreTheDemo(t *testing.T) {
	s, _, ok := scenario.Named("four-hospitals")
	if !ok {
		t.Fatal("four-hospitals is not shipped")
	}
	cfg, err := s.Config(open)
	if err != nil {
		t.Fatal(err)
	}
	if names := strings.Join(cfg.Task.Encoding.Names(), ","); names != "age,sex,cp=2,cp=3,cp=4,trestbps,chol,fbs,restecg=1,restecg=2,thalach,exang,oldpeak" {
		t.Errorf("features %s", names)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := sim.Run(ctx, cfg)
	if err != nil || !r.Done {
		t.Fatalf("done %t, %v", r.Done, err)
	}
	for what, pair := range map[string][2]*float64{
		"accuracy":                {r.Results.AllRows.Federated.Accuracy, new(202.0 / 254)},
		"f1":                      {r.Results.AllRows.Federated.F1, new(0.8)},
		"accuracy of nodes alone": {r.Results.AllRows.Local.Accuracy, new(195.0 / 254)},
	} {
		if pair[0] == nil {
			t.Errorf("no %s of all rows", what)
		} else if *pair[0] != *pair[1] {
			t.Errorf("%s of all rows: %g, want %g", what, *pair[0], *pair[1])
		}
	}
}
