package task

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/mixing"
	"village/protocol/record"
	"village/protocol/safetensors"
)

// searching is a task that searches among five candidates: three regressions and
// two perceptrons, of which the second and the last keep moments.
func searching() Task {
	t := good()
	t.Rounds = 40
	t.Search = &Search{
		Candidates: []Candidate{
			{Model: learn.Logistic, LocalSteps: 5, LearningRate: 0.2},
			{Model: learn.Logistic, LocalSteps: 5, LearningRate: 0.1, Outer: learn.OuterAdam, OuterRate: 0.1},
			{Model: learn.MLP, Hidden: []int{2}, LocalSteps: 5, LearningRate: 0.2},
			{Model: learn.Softmax, LocalSteps: 2, LearningRate: 0.2, L2: 0.1, Optimizer: learn.Momentum},
			{Model: learn.MLP, Hidden: []int{3, 2}, LocalSteps: 5, LearningRate: 0.2, Outer: learn.Nesterov, OuterRate: 0.7},
		},
		Rungs: []Rung{{4, 3}, {9, 2}, {20, 1}},
	}
	return t
}

// anyTask draws a task that passes, of whatever needs room in a vector.
func anyTask(t *rapid.T) Task {
	tk := good()
	inputs(&tk, rapid.IntRange(1, 4).Draw(t, "inputs"))
	models := []learn.Kind{learn.Logistic, learn.Softmax, learn.MLP}
	switch rapid.IntRange(0, 2).Draw(t, "target") {
	case 0:
		tk.Encoding.Classes, tk.Encoding.Positive, models = nil, "", []learn.Kind{learn.Linear, learn.MLP}
	case 1:
		classes(&tk, rapid.IntRange(3, 5).Draw(t, "classes"))
		models = []learn.Kind{learn.Softmax, learn.MLP}
	}
	tk.Scaffold = rapid.Bool().Draw(t, "scaffold")
	if !tk.Scaffold {
		tk.Personal = rapid.SampledFrom([]learn.Part{learn.NoPart, learn.Bias, learn.LastLayer}).Draw(t, "personal")
	}
	candidate := func() Candidate {
		c := Candidate{Model: rapid.SampledFrom(models).Draw(t, "model"), LocalSteps: 1, LearningRate: 0.1}
		if c.Model == learn.MLP {
			c.Hidden = rapid.SliceOfN(rapid.IntRange(1, 4), 1, 3).Draw(t, "hidden")
		}
		if c.Outer = rapid.SampledFrom([]learn.Outer{learn.Plain, learn.Nesterov, learn.OuterAdam, learn.OuterYogi}).Draw(t, "outer"); c.Outer != learn.Plain {
			c.OuterRate = 0.5
		}
		return c
	}
	if rapid.Bool().Draw(t, "search") {
		s := &Search{}
		for range rapid.IntRange(2, 6).Draw(t, "candidates") {
			s.Candidates = append(s.Candidates, candidate())
		}
		tk.Search, s.Rungs = s, Halving(len(s.Candidates), tk.Rounds)
	} else {
		c := candidate()
		tk.Model, tk.Hidden, tk.LocalSteps, tk.LearningRate, tk.Outer, tk.OuterRate = c.Model, c.Hidden, c.LocalSteps, c.LearningRate, c.Outer, c.OuterRate
	}
	if err := tk.Check(); err != nil {
		t.Fatal(err)
	}
	return tk
}

// some draws candidates of these, at least one, in their order.
func some(t *rapid.T, of []int) []int {
	kept := slices.DeleteFunc(slices.Clone(of), func(int) bool { return rapid.Bool().Draw(t, "drop") })
	if len(kept) == 0 {
		kept = of[len(of)-1:]
	}
	return kept
}

// numbers are n parameters that can be averaged.
func numbers(t *rapid.T, n int) []float64 {
	return rapid.SliceOfN(rapid.Float64Range(-1e9, 1e9), n, n).Draw(t, "vector")
}

// States are views that cover the vector once, in its order, each block as long as
// the candidate's model has parameters.
func TestStatesCoverTheVector(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tk := anyTask(t)
		kept := some(t, tk.Everyone())
		vector := make([]float64, tk.Length(kept))
		next := 0.0
		for i, s := range tk.States(kept, vector) {
			c := tk.Candidate(kept[i])
			blocks := [][]float64{s.Params}
			if c.Outer != learn.Plain {
				blocks = append(append(blocks, s.Start), s.Moments...)
			}
			if tk.Scaffold {
				blocks = append(blocks, s.Control)
			}
			if len(s.Moments) != c.Outer.Moments() || (s.Start != nil) != (c.Outer != learn.Plain) || (s.Control != nil) != tk.Scaffold {
				t.Fatalf("candidate %d has %d moments, start %v, control %v", kept[i], len(s.Moments), s.Start, s.Control)
			}
			for _, b := range blocks {
				if len(b) != tk.SpecOf(kept[i]).Params() || cap(b) != len(b) {
					t.Fatalf("candidate %d: a block of %d numbers, room for %d, for %d parameters", kept[i], len(b), cap(b), tk.SpecOf(kept[i]).Params())
				}
				for j := range b {
					b[j] = next
					next++
				}
			}
		}
		if int(next) != len(vector) {
			t.Fatalf("%g numbers of %d", next, len(vector))
		}
		for i, x := range vector {
			if x != float64(i) {
				t.Fatalf("number %d is in the place of %g", i, x)
			}
		}
	})
}

// What an update carries comes back from its bytes, for any candidates.
func TestVectorsComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tk := anyTask(t)
		u := Update{Weight: 3}
		if tk.Search != nil {
			u.Kept = some(t, tk.Everyone())
		}
		kept := tk.keptOf(u)
		u.Params = numbers(t, tk.Length(kept))
		sent, b, err := NewUpdate(u, tk)
		if err != nil || sent.Size != 0 || !bytes.Equal(sent.Vector, b) {
			t.Fatalf("%d bytes inside of %d: %v", len(sent.Vector), len(b), err)
		}
		back, err := tk.checkedVector(b, kept)
		if err != nil || !slices.Equal(back, u.Params) {
			t.Fatalf("%v came back as %v, %v", u.Params, back, err)
		}
		if most := 8*tk.Length(kept) + 4096*len(kept); len(b) > most {
			t.Fatalf("%d bytes, more than the %d that are let in", len(b), most)
		}
		// Nobody can take them for those of other candidates.
		for _, others := range [][]int{some(t, tk.Everyone()), kept[1:]} {
			if _, err := tk.vector(b, others); (err == nil) != slices.Equal(others, kept) {
				t.Fatalf("a vector of candidates %v read as one of %v: %v", kept, others, err)
			}
		}
	})
}

// One vector has one way to be written.
func TestVectorsAreCanonical(t *testing.T) {
	tk := searching()
	kept := []int{1, 3}
	vector := make([]float64, tk.Length(kept))
	for i := range vector {
		vector[i] = float64(i) / 3
	}
	b, err := safetensors.Marshal(tk.tensors(kept, vector), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tk.vector(b, kept); err != nil {
		t.Fatal(err)
	}
	head := int(binary.LittleEndian.Uint64(b))
	header, data := string(b[8:8+head]), b[8+head:]
	written := func(header string, data []byte) []byte {
		return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...), data...)
	}
	if !bytes.Equal(written(header, data), b) {
		t.Fatal("taken apart and put together it is another")
	}
	for name, b := range map[string][]byte{
		"nothing":          nil,
		"a byte less":      b[:len(b)-1],
		"a byte more":      append(bytes.Clone(b), 0),
		"spaces more":      written(header+strings.Repeat(" ", 8), data),
		"spaces less":      written(strings.TrimRight(header, " "), data),
		"metadata":         written(strings.Replace(header, "{", `{"__metadata__":{"a":"b"},`, 1), data),
		"another name":     written(strings.Replace(header, `"3/bias"`, `"4/bias"`, 1), data),
		"no prefix":        written(strings.Replace(header, `"3/bias"`, `"bias"`, 1), data),
		"another block":    written(strings.Replace(header, `"1/start/`, `"1/control/`, 1), data),
		"a number padded":  written(strings.Replace(header, `"3/bias"`, `"03/bias"`, 1), data),
		"another shape":    written(strings.Replace(header, `"shape":[2,3]`, `"shape":[3,2]`, 1), data),
		"other numbers":    written(strings.Replace(header, `"F64"`, `"I64"`, 1), data),
		"a tensor renamed": written(strings.Replace(header, `"1/moment1/bias"`, `"1/moment3/bias"`, 1), data),
	} {
		if got, err := tk.vector(b, kept); err == nil {
			t.Errorf("%s: read as %v", name, got)
		}
	}
	// Every flipped bit is another vector or none.
	for i := range b {
		for bit := range 8 {
			changed := bytes.Clone(b)
			changed[i] ^= 1 << bit
			got, err := tk.vector(changed, kept)
			if err != nil {
				continue
			}
			if i < 8+head || slices.EqualFunc(got, vector, func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) }) {
				t.Errorf("bit %d of byte %d flipped: read as the same", bit, i)
			}
		}
	}
	// Tensors in another order are refused, though they say the same.
	order := tk.tensors(kept, vector)
	slices.Reverse(order)
	if again, err := safetensors.Marshal(order, nil); err != nil || !bytes.Equal(again, b) {
		t.Errorf("the order of tensors is that of their names: %v", err)
	}
	for name, x := range map[string]float64{"NaN": math.NaN(), "infinite": math.Inf(-1), "too large": mixing.MaxParameter} {
		vector[len(vector)-1] = x
		b, err := safetensors.Marshal(tk.tensors(kept, vector), nil)
		if err == nil {
			_, err = tk.checkedVector(b, kept)
		}
		if err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// Project takes out what States shows; from more to fewer in any number of steps it
// comes to the same, and never to what is not there.
func TestProject(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tk := anyTask(t)
		a := some(t, tk.Everyone())
		b := some(t, a)
		c := some(t, b)
		vector := numbers(t, tk.Length(a))
		before := slices.Clone(vector)
		ab, ok := tk.Project(vector, a, b)
		abc, ok2 := tk.Project(ab, b, c)
		ac, ok3 := tk.Project(vector, a, c)
		if !ok || !ok2 || !ok3 || !slices.Equal(abc, ac) || len(ac) != tk.Length(c) {
			t.Fatalf("%v to %v to %v: %v, at once %v", a, b, c, abc, ac)
		}
		if !slices.Equal(vector, before) {
			t.Fatal("projecting changes the vector")
		}
		whole := tk.States(a, vector)
		for i, s := range tk.States(c, ac) {
			if from := whole[slices.Index(a, c[i])]; fmt.Sprint(s) != fmt.Sprint(from) {
				t.Fatalf("candidate %d is %v, was %v", c[i], s, from)
			}
		}
		all := tk.Everyone()
		if missing := slices.IndexFunc(all, func(i int) bool { return !slices.Contains(a, i) }); missing >= 0 {
			for _, kept := range [][]int{{missing}, all} {
				if _, ok := tk.Project(vector, a, kept); ok {
					t.Fatalf("%v out of %v", kept, a)
				}
			}
		}
	})
}

// The first vector of a task holds what each model's training starts from, with no
// part that is to be a node's own and moments as they begin.
func TestFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tk := anyTask(t)
		tk.Seed = rapid.Uint64Range(0, 5).Draw(t, "seed")
		var parent []float64
		if tk.Search == nil && rapid.Bool().Draw(t, "goes on") {
			parent = numbers(t, tk.SpecOf(0).Params())
		}
		first := tk.First(parent)
		if err := mixing.NewSum(len(first)).Add(1, first); err != nil {
			t.Fatal(err)
		}
		for i, s := range tk.States(tk.Everyone(), slices.Clone(first)) {
			spec := tk.SpecOf(i)
			want := spec.Init(tk.Seed + uint64(i))
			if parent != nil {
				want = slices.Clone(parent)
			}
			from, to := spec.Span(tk.Personal)
			clear(want[from:to])
			if !slices.Equal(s.Params, want) || s.Start != nil && !slices.Equal(s.Start, want) {
				t.Fatalf("candidate %d starts at %v, want %v", i, s, want)
			}
			for j, m := range s.Moments {
				for _, x := range m {
					if x != tk.Candidate(i).Outer.Begin(j) {
						t.Fatalf("moment %d begins with %g", j+1, x)
					}
				}
			}
			for _, x := range s.Control {
				if x != 0 {
					t.Fatalf("the control variate begins with %g", x)
				}
			}
		}
		// Nothing has been learnt yet, so that a step leads nowhere.
		for i, s := range tk.Advance(tk.Everyone(), slices.Clone(first)) {
			if want := tk.States(tk.Everyone(), first)[i].Params; !slices.Equal(s.Params, want) {
				t.Fatalf("candidate %d: round 1 sets out from %v, not %v", i, s.Params, want)
			}
		}
	})
}

// Advance takes each candidate's step, and notes where the round starts.
func TestAdvance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tk := anyTask(t)
		kept := some(t, tk.Everyone())
		mix := numbers(t, tk.Length(kept))
		before := tk.States(kept, slices.Clone(mix))
		for i, s := range tk.Advance(kept, mix) {
			c, was := tk.Candidate(kept[i]), before[i]
			if !slices.Equal(s.Control, was.Control) {
				t.Fatal("an outer rule changes the control variate")
			}
			if c.Outer == learn.Plain {
				if !slices.Equal(s.Params, was.Params) {
					t.Fatal("without an outer rule the mean is not what a round starts from")
				}
				continue
			}
			c.Outer.Advance(c.OuterRate, was.Params, was.Start, was.Moments)
			if !slices.Equal(s.Params, was.Params) || !slices.Equal(s.Start, was.Params) || fmt.Sprint(s.Moments) != fmt.Sprint(was.Moments) {
				t.Fatalf("candidate %d: %v, by its rule %v", kept[i], s, was)
			}
		}
	})
}

// The size of what may be announced covers the one form of every vector.
func TestVectorsThatAreAnnounced(t *testing.T) {
	tk := searching()
	inputs(&tk, 900)
	for i := range tk.Search.Candidates {
		if tk.Search.Candidates[i].Model == learn.MLP {
			tk.Search.Candidates[i].Hidden = []int{20, 20, 20, 20, 20, 20, 20, 20} // the longest header
			tk.Search.Candidates[i].Outer, tk.Search.Candidates[i].OuterRate = learn.OuterYogi, 0.1
		}
		tk.Search.Candidates[i].Optimizer = learn.SGD
	}
	tk.Scaffold = true
	if err := tk.Check(); err != nil {
		t.Fatal(err)
	}
	for _, kept := range [][]int{tk.Everyone(), {1, 2, 4}, {4}, {0}} {
		params := make([]float64, tk.Length(kept))
		for i := range params {
			params[i] = float64(i)
		}
		u, b, err := NewUpdate(Update{Task: taskID(t), Roster: theModel, Weight: 1, Kept: kept, Params: params}, tk)
		if err != nil {
			t.Fatal(err)
		}
		if announced := tk.Length(kept)*8 > MaxVector; (u.Size > 0) != announced || (len(u.Vector) > 0) == announced {
			t.Errorf("candidates %v: announced %d bytes, inside %d", kept, u.Size, len(u.Vector))
		}
		got, err := UpdateOf(sign(t, keys[0], record.KindUpdate, taskID(t).String(), 7, u), tk)
		if err != nil {
			t.Fatalf("candidates %v: %v", kept, err)
		}
		if u.Size > 0 {
			if got.Params != nil {
				t.Error("parameters before they are here")
			}
			if _, err := got.Fill(append(bytes.Clone(b), 0), tk); !errors.Is(err, ErrInvalid) {
				t.Errorf("another vector fills it: %v", err)
			}
			if got, err = got.Fill(b, tk); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(got.Params, params) {
			t.Errorf("candidates %v came back as others", kept)
		}
	}
}

// However many candidates there are, and however small, what rides inside an update
// is gossiped with it.
func TestUpdatesOfManyCandidatesAreGossiped(t *testing.T) {
	for _, hidden := range [][]int{nil, {1}, {1, 1, 1}} {
		for n := 2; n <= MaxCandidates; n++ {
			tk := good()
			inputs(&tk, 1)
			c := Candidate{Model: learn.Logistic, LocalSteps: 1, LearningRate: 0.1, Outer: learn.OuterAdam, OuterRate: 0.1}
			if c.Hidden = hidden; hidden != nil {
				c.Model = learn.MLP
			}
			tk.Scaffold, tk.Rounds, tk.Search = true, MaxRounds, &Search{Candidates: slices.Repeat([]Candidate{c}, n), Rungs: Halving(n, MaxRounds)}
			if err := tk.Check(); err != nil {
				t.Fatal(err)
			}
			u := Update{Task: taskID(t), Roster: theModel, Weight: MaxRows, Rows: MaxRows, Kept: tk.Everyone(), Losses: slices.Repeat([]float64{MaxLoss}, n)}
			u.Params = slices.Repeat([]float64{-0x1.fffffffffffffp29}, tk.Length(u.Kept))
			u, _, err := NewUpdate(u, tk)
			if err != nil {
				t.Fatal(err)
			}
			r := sign(t, keys[0], record.KindUpdate, taskID(t).String(), tk.Search.Rungs[0].Round, u)
			if _, err := UpdateOf(r, tk); err != nil {
				t.Fatalf("%d candidates with hidden layers %v: %v", n, hidden, err)
			}
			if len(r.Bytes) > record.MaxGossip {
				t.Fatalf("%d candidates with hidden layers %v: %d bytes", n, hidden, len(r.Bytes))
			}
			if n == 2 && u.Size > 0 || n == MaxCandidates && u.Size == 0 {
				t.Errorf("%d candidates with hidden layers %v are announced with %d bytes", n, hidden, u.Size)
			}
		}
	}
}

func FuzzVector(f *testing.F) {
	tk := searching()
	plain := good()
	scaffold := good()
	scaffold.Scaffold = true
	scaffold.SetOuter(learn.OuterYogi, 0)
	numeric := good()
	numeric.Encoding.Classes, numeric.Encoding.Positive = nil, ""
	numeric.Model, numeric.Hidden = learn.MLP, []int{2}
	tasks := []Task{tk, plain, scaffold, numeric}
	for i, tk := range tasks {
		if err := tk.Check(); err != nil {
			f.Fatal(err)
		}
		for _, kept := range [][]int{tk.Everyone(), {len(tk.Everyone()) - 1}} {
			b, err := safetensors.Marshal(tk.tensors(kept, make([]float64, tk.Length(kept))), nil)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(i), uint8(len(kept)), b)
			f.Add(uint8(i), uint8(0), b[:len(b)/2])
		}
	}
	f.Fuzz(func(t *testing.T, which, n uint8, b []byte) {
		tk := tasks[int(which)%len(tasks)]
		kept := tk.Everyone()
		kept = kept[len(kept)-1-int(n)%len(kept):]
		vector, err := tk.checkedVector(b, kept)
		if err != nil {
			return
		}
		if len(vector) != tk.Length(kept) {
			t.Fatalf("%d numbers of %d", len(vector), tk.Length(kept))
		}
		if again, err := safetensors.Marshal(tk.tensors(kept, vector), nil); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("written as %q, %v", again, err)
		}
		tk.Advance(kept, vector)
	})
}

// Of a numeric target the columns are one more than the inputs: the target's.
func TestColumns(t *testing.T) {
	tk := good()
	if tk.Columns() != 3 {
		t.Errorf("%d columns", tk.Columns())
	}
	tk.Encoding.Classes, tk.Encoding.Positive = nil, ""
	if tk.Columns() != 4 {
		t.Errorf("%d columns with a numeric target", tk.Columns())
	}
	parent := func(columns int) error {
		t := tk
		t.Model, t.Parent = learn.Linear, &Parent{Model: theModel, Scaling: dataset.Scaling{Mean: make([]float64, columns), SD: slices.Repeat([]float64{1}, columns)}}
		return t.Check()
	}
	if err := parent(4); err != nil {
		t.Error(err)
	}
	if parent(3) == nil || parent(5) == nil {
		t.Error("a parent of another width passes")
	}
}
