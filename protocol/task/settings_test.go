package task

import (
	"testing"

	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/record"
)

// The bytes of a task are what its CID and its subject are of, and stored homes are
// full of them: however its fields are grouped in Go, they stay the same. The CIDs
// were written down when every setting was a field of Task.
func TestATaskKeepsItsBytes(t *testing.T) {
	all := func() Task {
		tk := good()
		tk.Description, tk.Created = "every setting", 1_700_000_000
		tk.Model, tk.Hidden, tk.Rounds, tk.LocalSteps, tk.LearningRate = learn.MLP, []int{8, 3}, 40, 7, .25
		tk.Batch, tk.L2, tk.Mixing, tk.Seed, tk.Tolerance = 32, .5, "ring", 1<<63+1, 1e-9
		tk.Optimizer, tk.Prox, tk.Outer, tk.OuterRate = learn.Adam, .1, learn.OuterYogi, .3
		tk.Scaffold, tk.Personal, tk.RoundTime = true, learn.LastLayer, 1500
		return tk
	}
	for name, c := range map[string]struct {
		task func() Task
		want string
	}{
		"the defaults":  {good, "bafyreihliiokdpymdi5b3wicphbhreujejw5enncmbtm3g4qgdicf6tzwq"},
		"every setting": {all, "bafyreibg6gg44tz7zyahe26n5bt2hcu2oth26gu5v5akxyfohijzrgxssi"},
		"no setting":    {func() Task { return Task{Name: "bare"} }, "bafyreichuq3yj5drr7djmfxd5qyzdojs4w3wgu42bhlpgdg7kph6efwbwm"},
		"a search": {func() Task {
			tk := all()
			tk.Search = &Search{Candidates: []Candidate{tk.Candidate(0), good().Candidate(0)}, Rungs: []Rung{{Round: 5, Keep: 1}}}
			return tk
		}, "bafyreic63p2a4tpec6coo7qhwppczy3vl224qq247j6uz77xipegizwnum"},
		"a parent": {func() Task {
			tk := good()
			tk.Parent = &Parent{Model: record.CIDOf([]byte("a model")), Scaling: dataset.Scaling{Mean: []float64{1, 2, 3}, SD: []float64{1, 1, 2}}}
			return tk
		}, "bafyreid5fmoovcad6xo3p7l25lylbsbqydditn6gptnr3wosza22bknw5q"},
	} {
		b, err := record.Encode(c.task())
		if err != nil {
			t.Fatal(err)
		}
		if got := record.CIDOf(b).String(); got != c.want {
			t.Errorf("%s: %q", name, got)
		}
		var back Task
		if err := record.Decode(b, &back); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
