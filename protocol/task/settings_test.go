package task

import (
	"math"
	"reflect"
	"strings"
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

// Every field of the settings has a row, which is named as records name it, and is
// explained.
func TestTheTableHasEverySetting(t *testing.T) {
	var s Settings
	rows := map[uintptr]string{}
	for _, k := range Table {
		rows[reflect.ValueOf(k.At(&s)).Pointer()] = k.Name
		if k.Help == "" || strings.Contains(k.Help, "\n") {
			t.Errorf("%s: help %q", k.Name, k.Help)
		}
	}
	for _, f := range reflect.VisibleFields(reflect.TypeOf(s)) {
		if f.Anonymous {
			continue
		}
		at := reflect.ValueOf(&s).Elem().FieldByIndex(f.Index).Addr().Pointer()
		for _, tag := range []string{"cbor", "json"} {
			if key, _, _ := strings.Cut(f.Tag.Get(tag), ","); strings.ReplaceAll(rows[at], "-", "_") != key {
				t.Errorf("%s is %q in the table and %q in %s", f.Name, rows[at], key, tag)
			}
		}
		delete(rows, at)
	}
	if len(rows) > 0 {
		t.Errorf("rows of no field: %v", rows)
	}
}

// What is given stands, what is not is as the others say, and what follows from what
// is given goes before it.
func TestOver(t *testing.T) {
	usual := Defaults()
	usual.Model, usual.Outer, usual.OuterRate = learn.Logistic, learn.Nesterov, .5
	for name, c := range map[string]struct{ give, want func(*Settings) }{
		"nothing":         {func(*Settings) {}, func(*Settings) {}},
		"rounds":          {func(s *Settings) { s.Rounds = 7 }, func(s *Settings) { s.Rounds = 7 }},
		"no true number":  {func(s *Settings) { s.LearningRate = -1 }, func(s *Settings) { s.LearningRate = -1 }},
		"hidden layers":   {func(s *Settings) { s.Hidden = []int{4} }, func(s *Settings) { s.Hidden, s.Model = []int{4}, learn.MLP }},
		"layers, a model": {func(s *Settings) { s.Hidden, s.Model = []int{4}, learn.Softmax }, func(s *Settings) { s.Hidden, s.Model = []int{4}, learn.Softmax }},
		"an outer rule":   {func(s *Settings) { s.Outer = learn.OuterAdam }, func(s *Settings) { s.Outer, s.OuterRate = learn.OuterAdam, .1 }},
		"a rate":          {func(s *Settings) { s.OuterRate = .2 }, func(s *Settings) { s.OuterRate = .2 }},
		"both":            {func(s *Settings) { s.Outer, s.OuterRate = learn.OuterYogi, .2 }, func(s *Settings) { s.Outer, s.OuterRate = learn.OuterYogi, .2 }},
	} {
		given, want := Settings{}, usual
		c.give(&given)
		c.want(&want)
		if got := given.Over(usual); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	if usual.Rounds != 100 || usual.Model != learn.Logistic {
		t.Errorf("the others have changed: %+v", usual)
	}
}

// A value that cannot be is named, with what could be: as a sentence where a task is
// refused, and behind the key where somebody has typed it.
func TestWhatASettingCouldBe(t *testing.T) {
	for _, c := range []struct {
		edit        func(*Settings)
		task, wrong string
	}{
		{func(s *Settings) { s.Rounds = 0 }, "a task has 1 to 1000000 rounds, not 0", "it is 1 to 1000000"},
		{func(s *Settings) { s.LearningRate = math.Inf(1) }, "a learning rate is above 0 and at most 1e6, not +Inf", "it is above 0 and at most 1e6"},
		{func(s *Settings) { s.Batch = 1 << 31 }, "a batch has 0 to 2147483647 rows, not 2147483648", "it is 0 to 2147483647"},
		{func(s *Settings) { s.L2 = math.NaN() }, "l2 is 0 to 1e6, not NaN", "it is 0 to 1e6"},
		{func(s *Settings) { s.Outer, s.OuterRate = learn.OuterYogi, 1001 }, "an outer rate is 0 to 1000, not 1001", "it is 0 to 1000"},
		{func(s *Settings) { s.Personal = learn.Part(strings.Repeat("a", 99)) }, `a node's own part is bias or last-layer, not "aaaaaaaaaaaaaaaa"`, "it is bias or last-layer"},
		{func(s *Settings) { s.Mixing = "star" }, "", `mixing rule "star" is not known; use all, ring, torus, regular:K, exponential, base:K or random`},
	} {
		tk := good()
		c.edit(&tk.Settings)
		want := c.task
		if want == "" {
			want = c.wrong
		}
		if err := tk.Check(); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
		wrong := ""
		for _, k := range Table {
			wrong += k.Wrong(&tk.Settings)
		}
		if wrong != c.wrong {
			t.Errorf("%q, want %q", wrong, c.wrong)
		}
	}
}
