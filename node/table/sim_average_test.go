package table

import (
	"bytes"
	"testing"

	"village/node/api"
)

func TestSimAverage(t *testing.T) {
	v := api.SimAverage{Nodes: 193, Dim: 8, Seed: 1, Target: 1e-6, Rounds: 100, Rules: []api.AveragingRule{
		{Rule: "ring", Rounds: 100, Messages: 200, Vectors: 200, Error: .25},
		{Rule: "reduce-scatter", Rounds: 4, Messages: 15.917, Vectors: 1.98963, Error: 5e-18, Reached: true},
	}}
	show := func(w *bytes.Buffer, v api.SimAverage) error { return SimAverage(w, v) }
	head := "193 nodes, 8 numbers each, seed 1; target error 1e-06, at most 100 rounds\n"
	rows := `
RULE            ROUNDS  MESSAGES/NODE  VECTORS/NODE  ERROR    REACHED
ring            100     200.00         200.00        2.5e-01  no
reduce-scatter  4       15.92          1.99          5.0e-18  yes
`
	if got := render(t, show, v); got != head+rows {
		t.Errorf("got\n%s\nwant\n%s", got, head+rows)
	}
	v.Loss, v.Apart, v.Missing = .3, 20, []string{"torus"}
	if got, want := render(t, show, v), head+"faults: loss 0.3, duplicates 0, restarts 0, two halves apart for 20 rounds\n"+rows+"missing: torus\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	checkHostile(t, show)
}
