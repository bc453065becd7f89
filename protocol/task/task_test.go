package task

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/mixing"
	"village/protocol/record"
)

const fed = "blue-heron"

// keys are those of four nodes; the first three, in peer-ID order, are named in
// a task, the last is not.
var keys = func() (keys []ed25519.PrivateKey) {
	for i := range byte(4) {
		keys = append(keys, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{i}, ed25519.SeedSize)))
	}
	slices.SortFunc(keys[:3], func(a, b ed25519.PrivateKey) int { return idOf(a).Compare(idOf(b)) })
	return keys
}()

func idOf(key ed25519.PrivateKey) record.NodeID {
	return record.NodeIDOf(key.Public().(ed25519.PublicKey))
}

// good is a task with three inputs: a and two levels of c.
func good() Task {
	return New("heart", dataset.Encoding{
		Target: "sick", Classes: []string{"no", "yes"}, Positive: "yes",
		Features: []dataset.FeatureSpec{
			{Name: "a", Kind: dataset.Numeric},
			{Name: "c", Kind: dataset.Categorical, Levels: []string{"x", "y", "z"}},
		},
	}, []record.NodeID{idOf(keys[0]), idOf(keys[1]), idOf(keys[2])})
}

// inputs gives a task n numeric features.
func inputs(t *Task, n int) {
	t.Encoding.Features = nil
	for i := range n {
		t.Encoding.Features = append(t.Encoding.Features, dataset.FeatureSpec{Name: fmt.Sprint("f", i), Kind: dataset.Numeric})
	}
}

func classes(t *Task, n int) {
	t.Model, t.Encoding.Positive, t.Encoding.Classes = learn.Softmax, "", nil
	for i := range n {
		t.Encoding.Classes = append(t.Encoding.Classes, fmt.Sprintf("c%03d", i))
	}
}

func TestDefaultsPass(t *testing.T) {
	tk := good()
	if err := tk.Check(); err != nil {
		t.Fatal(err)
	}
	if tk.Model != learn.Logistic || tk.LearningRate*float64(tk.LocalSteps) > 1 {
		t.Errorf("defaults %+v", tk)
	}
	three := tk.Encoding
	three.Classes, three.Positive = []string{"a", "b", "c"}, ""
	if tk := New("x", three, tk.Nodes); tk.Model != learn.Softmax || tk.Check() != nil {
		t.Errorf("three classes: %s, %v", tk.Model, tk.Check())
	}
}

func TestTaskCheck(t *testing.T) {
	many := func(n int) (nodes []record.NodeID) {
		for i := range n {
			nodes = append(nodes, record.NodeID{byte(i >> 8), byte(i)})
		}
		return nodes
	}
	for _, c := range []struct {
		name string
		edit func(*Task)
		want string // part of the error; "" = passes
	}{
		{"no name", func(t *Task) { t.Name = "" }, "1 to 64 characters"},
		{"a name of two lines", func(t *Task) { t.Name = "a\nb" }, "control"},
		{"the longest description", func(t *Task) { t.Description = strings.Repeat("x", 4096) }, ""},
		{"a longer description", func(t *Task) { t.Description = strings.Repeat("x", 4097) }, "4096"},
		{"a description of bytes", func(t *Task) { t.Description = "\xff" }, "UTF-8"},
		{"no features", func(t *Task) { t.Encoding.Features = nil }, "features"},
		{"one class", func(t *Task) { t.Encoding.Classes = []string{"no"} }, "class"},
		{"three classes of logistic", func(t *Task) { classes(t, 3); t.Model = learn.Logistic }, "softmax"},
		{"an unknown model", func(t *Task) { t.Model = "forest" }, "forest"},
		{"softmax of two classes", func(t *Task) { t.Model = learn.Softmax }, ""},
		{"the most classes", func(t *Task) { classes(t, MaxClasses) }, ""},
		{"more classes", func(t *Task) { classes(t, MaxClasses+1) }, "classes"},
		{"the widest", func(t *Task) { inputs(t, MaxVector/8-1) }, ""},
		{"a vector that does not ride inside", func(t *Task) { inputs(t, MaxVector/8) }, ""},
		{"as much as can be mixed", func(t *Task) { t.Nodes = many(200); inputs(t, MaxMixed/8/200/16-1); classes(t, 16) }, ""},
		{"more than can be mixed", func(t *Task) { t.Nodes = many(200); inputs(t, MaxMixed/8/200/16); classes(t, 16) }, "to mix in a round"},
		{"a wide model of one node", func(t *Task) { t.Nodes = many(1); inputs(t, 5000); classes(t, 16) }, ""},
		{"too long levels", func(t *Task) {
			for i := range t.Encoding.Features {
				t.Encoding.Features[i] = dataset.FeatureSpec{Name: fmt.Sprint("f", i), Kind: dataset.Categorical}
				for j := range 1000 {
					t.Encoding.Features[i].Levels = append(t.Encoding.Features[i].Levels, fmt.Sprintf("l%s%04d", strings.Repeat("x", 200), j))
				}
			}
		}, "encoding"},
		{"no nodes", func(t *Task) { t.Nodes = nil }, "nodes"},
		{"one node", func(t *Task) { t.Nodes = t.Nodes[:1] }, ""},
		{"the most nodes", func(t *Task) { t.Nodes = many(MaxNodes) }, ""},
		{"more nodes", func(t *Task) { t.Nodes = many(MaxNodes + 1) }, "nodes"},
		{"a node twice", func(t *Task) { t.Nodes[1] = t.Nodes[0] }, "order"},
		{"nodes in another order", func(t *Task) { slices.Reverse(t.Nodes) }, "order"},
		{"no rounds", func(t *Task) { t.Rounds = 0 }, "rounds"},
		{"the most rounds", func(t *Task) { t.Rounds = MaxRounds }, ""},
		{"more rounds", func(t *Task) { t.Rounds = MaxRounds + 1 }, "rounds"},
		{"rounds beyond int64", func(t *Task) { t.Rounds = math.MaxUint64 }, "rounds"},
		{"no local steps", func(t *Task) { t.LocalSteps = 0 }, "local steps"},
		{"the most local steps", func(t *Task) { t.LocalSteps, t.Rounds = MaxLocalSteps, MaxSteps/MaxLocalSteps }, ""},
		{"more local steps", func(t *Task) { t.LocalSteps = MaxLocalSteps + 1 }, "local steps"},
		{"local steps beyond int64", func(t *Task) { t.LocalSteps = math.MaxUint64 }, "local steps"},
		{"the most steps", func(t *Task) { t.Rounds, t.LocalSteps = MaxRounds, MaxSteps/MaxRounds }, ""},
		{"more steps", func(t *Task) { t.Rounds, t.LocalSteps = MaxRounds, MaxSteps/MaxRounds+1 }, "together"},
		{"most rounds of most steps", func(t *Task) { t.Rounds, t.LocalSteps = MaxRounds, MaxLocalSteps }, "together"},
		{"no learning rate", func(t *Task) { t.LearningRate = 0 }, "learning rate"},
		{"a negative learning rate", func(t *Task) { t.LearningRate = -1 }, "learning rate"},
		{"a learning rate that is NaN", func(t *Task) { t.LearningRate = math.NaN() }, "learning rate"},
		{"an infinite learning rate", func(t *Task) { t.LearningRate = math.Inf(1) }, "learning rate"},
		{"the largest learning rate", func(t *Task) { t.LearningRate = 1e6 }, ""},
		{"all rows", func(t *Task) { t.Batch = 0 }, ""},
		{"the largest batch", func(t *Task) { t.Batch = math.MaxInt32 }, ""},
		{"a larger batch", func(t *Task) { t.Batch = math.MaxInt32 + 1 }, "batch"},
		{"a batch beyond int64", func(t *Task) { t.Batch = 1 << 63 }, "batch"},
		{"no l2", func(t *Task) { t.L2 = 0 }, ""},
		{"a negative l2", func(t *Task) { t.L2 = -1e-9 }, "l2"},
		{"an l2 that is NaN", func(t *Task) { t.L2 = math.NaN() }, "l2"},
		{"an infinite l2", func(t *Task) { t.L2 = math.Inf(1) }, "l2"},
		{"a negative tolerance", func(t *Task) { t.Tolerance = -1 }, "tolerance"},
		{"a tolerance that is NaN", func(t *Task) { t.Tolerance = math.NaN() }, "tolerance"},
		{"an infinite tolerance", func(t *Task) { t.Tolerance = math.Inf(1) }, "tolerance"},
		{"a tolerance with a graph", func(t *Task) { t.Mixing, t.Tolerance = "ring", .1 }, "tolerance"},
		{"an unknown mixing", func(t *Task) { t.Mixing = "star" }, "ring"},
	} {
		tk := good()
		c.edit(&tk)
		err := tk.Check()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if err == nil && (int64(int32(tk.Rounds*tk.LocalSteps)) != int64(tk.Rounds*tk.LocalSteps) || int64(int32(tk.Batch)) != int64(tk.Batch)) {
			t.Errorf("%s: steps or batch do not fit an int of 32 bits", c.name)
		}
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"Budapest": true, "São Paulo, 3": true, "東京": true, "a": true, strings.Repeat("é", 64): true, "\u200d": true,
		"": false, strings.Repeat("é", 65): false, "\xff": false, "a\xc3": false, "a\xed\xa0\x80": false,
		"a\nb": false, "a\rb": false, "\tb": false, "\x00": false, "\x1b[2J": false, "\x7f": false, "\u0080": false, "\u009b2J": false, "\u009f": false,
		"a\u200e": false, "a\u200f": false, "a\u2028": false, "a\u2029": false, "\u202a": false, "\u202b": false, "\u202c": false,
		"\u202d": false, "a\u202eb": false, "\u2066": false, "\u2067": false, "\u2068": false, "\u2069": false, "\u061c": false,
		"\u00a0": true, "\u2030": true, "\u2065": true, "\u200b": true,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// sign makes a record as a hostile node may: of any payload in any slot.
func sign(t testing.TB, key ed25519.PrivateKey, kind record.Kind, subject string, number uint64, payload any) record.Record {
	t.Helper()
	r, err := record.Sign(key, fed, kind, subject, number, payload)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func taskRecord(t testing.TB, tk Task) record.Record {
	subject, err := tk.Subject()
	if err != nil {
		t.Fatal(err)
	}
	return sign(t, keys[3], record.KindTask, subject, 0, tk)
}

// withField returns a record with an unknown field in its payload.
func withField(t testing.TB, r record.Record) record.Record {
	r.Payload = append([]byte{r.Payload[0] + 1, 0x61, 'a', 1}, r.Payload[1:]...)
	return r
}

func TestTaskOf(t *testing.T) {
	tk := good()
	r := taskRecord(t, tk)
	got, err := TaskOf(r)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := record.Encode(tk)
	b, _ := record.Encode(got)
	if !bytes.Equal(a, b) {
		t.Errorf("%+v came back as %+v", tk, got)
	}
	if text, err := json.Marshal(got); err != nil || strings.Contains(string(text), "null") {
		t.Errorf("JSON %s, %v", text, err)
	}
	subject := r.Subject
	bad := tk
	bad.Rounds = 0
	for name, r := range map[string]record.Record{
		"another subject":         sign(t, keys[3], record.KindTask, subject[1:], 0, tk),
		"the subject in capitals": sign(t, keys[3], record.KindTask, strings.ToUpper(subject), 0, tk),
		"a number":                sign(t, keys[3], record.KindTask, subject, 1, tk),
		"another kind":            sign(t, keys[3], record.KindUpdate, subject, 0, tk),
		"another payload":         sign(t, keys[3], record.KindTask, subject, 0, "x"),
		"a task without rounds":   taskRecord(t, bad),
		"an unknown field":        withField(t, r),
	} {
		if _, err := TaskOf(r); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// taskID is the CID of the good task, which all the records below are of.
func taskID(t testing.TB) record.CID { return taskRecord(t, good()).CID }

func enrolment(t testing.TB, count uint64) Enrolment {
	return Enrolment{
		Task: taskID(t), Manifest: record.CIDOf([]byte("manifest")), Nation: "HUN", Node: "Budapest",
		Moments: dataset.Moments{Count: count, Mean: []float64{float64(count), .25, .5}, M2: []float64{10, 2, 0}},
	}
}

// refused checks that a record is refused as invalid, and as foreign only where
// its author alone is at fault.
func refused(t *testing.T, name string, err error, foreign bool) {
	t.Helper()
	if !errors.Is(err, ErrInvalid) || errors.Is(err, ErrForeign) != foreign {
		t.Errorf("%s: %v", name, err)
	}
}

func TestEnrolmentOf(t *testing.T) {
	tk, id := good(), taskID(t).String()
	e := enrolment(t, 100)
	got, err := EnrolmentOf(sign(t, keys[1], record.KindEnrolment, id, 0, e), tk)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(e) {
		t.Fatalf("%+v came back as %+v, %v", e, got, err)
	}
	capitals, _ := taskID(t).StringOfBase('B')
	for name, r := range map[string]record.Record{
		"another kind":            sign(t, keys[1], record.KindEvaluation, id, 0, e),
		"another task":            sign(t, keys[1], record.KindEnrolment, record.CIDOf(nil).String(), 0, e),
		"the subject in capitals": sign(t, keys[1], record.KindEnrolment, capitals, 0, e),
		"no subject":              sign(t, keys[1], record.KindEnrolment, "", 0, e),
		"a number":                sign(t, keys[1], record.KindEnrolment, id, 1, e),
		"a payload of text":       sign(t, keys[1], record.KindEnrolment, id, 0, "x"),
		"an unknown field":        withField(t, sign(t, keys[1], record.KindEnrolment, id, 0, e)),
	} {
		_, err := EnrolmentOf(r, tk)
		refused(t, name, err, false)
	}
	_, err = EnrolmentOf(sign(t, keys[3], record.KindEnrolment, id, 0, e), tk)
	refused(t, "a node that is not named", err, true)
	for name, edit := range map[string]func(*Enrolment){
		"no rows":                 func(e *Enrolment) { e.Moments.Count = 0 },
		"too many rows":           func(e *Enrolment) { e.Moments.Count = MaxRows + 1 },
		"2^64-1 rows":             func(e *Enrolment) { e.Moments.Count = math.MaxUint64 },
		"too few columns":         func(e *Enrolment) { e.Moments.Mean = e.Moments.Mean[:2]; e.Moments.M2 = e.Moments.M2[:2] },
		"too many columns":        func(e *Enrolment) { e.Moments.Mean = make([]float64, 4); e.Moments.M2 = make([]float64, 4) },
		"more means":              func(e *Enrolment) { e.Moments.Mean = make([]float64, 4) },
		"no deviations":           func(e *Enrolment) { e.Moments.M2 = nil },
		"negative deviations":     func(e *Enrolment) { e.Moments.M2[1] = -1e-300 },
		"a mean beyond all rows":  func(e *Enrolment) { e.Moments.Mean[0] = -1e101 },
		"the largest mean":        func(e *Enrolment) { e.Moments.Mean[0] = math.MaxFloat64 },
		"deviations beyond all":   func(e *Enrolment) { e.Moments.M2[0] = 1e211 },
		"a name of two lines":     func(e *Enrolment) { e.Node = "a\nb" },
		"no name":                 func(e *Enrolment) { e.Node = "" },
		"no nation":               func(e *Enrolment) { e.Nation = "" },
		"a nation of two letters": func(e *Enrolment) { e.Nation = "HU" },
		"a nation in small":       func(e *Enrolment) { e.Nation = "hun" },
		"a nation of signs":       func(e *Enrolment) { e.Nation = "H 1" },
		"a nation of bytes":       func(e *Enrolment) { e.Nation = "Hé" },
	} {
		e := enrolment(t, 100)
		edit(&e)
		_, err := EnrolmentOf(sign(t, keys[1], record.KindEnrolment, id, 0, e), tk)
		refused(t, name, err, false)
	}
	// What cannot be encoded is put into the bytes.
	r := sign(t, keys[1], record.KindEnrolment, id, 0, e)
	for _, x := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		bad := r
		bad.Payload = bytes.Replace(r.Payload, float(.25), float(x), 1)
		if bytes.Equal(bad.Payload, r.Payload) {
			t.Fatal("the mean is not where it was thought to be")
		}
		_, err := EnrolmentOf(bad, tk)
		refused(t, fmt.Sprint("a mean of ", x), err, false)
	}
}

// float is a number in dag-cbor.
func float(x float64) []byte {
	return binary.BigEndian.AppendUint64([]byte{0xfb}, math.Float64bits(x))
}

// Whatever moments pass, in whatever company, make a roster: a machine relies
// on it.
func TestCheckedMomentsMerge(t *testing.T) {
	means, m2s := []float64{1.001e100, -1.001e100, 0}, []float64{1e210, 0}
	var parts []Enrolled
	for i := range MaxNodes {
		m := dataset.Moments{Count: MaxRows, Mean: []float64{means[i%3], means[(i+1)%2], 5e-324}, M2: []float64{m2s[0], m2s[i%2], 5e-324}}
		if err := CheckMoments(m, 3); err != nil {
			t.Fatal(err)
		}
		parts = append(parts, Enrolled{CID: record.CIDOf([]byte{byte(i)}), Author: record.NodeID{byte(i)}, Enrolment: Enrolment{Moments: m}})
		r, err := RosterOf(good(), parts)
		if err != nil {
			t.Fatalf("%d nodes: %v", i+1, err)
		}
		for j, sd := range r.Scaling.SD {
			if !(sd > 0) || math.IsInf(sd, 0) || r.Scaling.Mean[j]-r.Scaling.Mean[j] != 0 {
				t.Fatalf("%d nodes: column %d is scaled by %g, %g", i+1, j, r.Scaling.Mean[j], sd)
			}
		}
	}
}

func update(t testing.TB, params []float64) Update {
	t.Helper()
	u, b, err := NewUpdate(Update{Task: taskID(t), Roster: record.CIDOf([]byte("roster")), Weight: 100, Params: params}, good())
	if err != nil || !bytes.Equal(b, u.Vector) {
		t.Fatalf("a vector of %d bytes, inside %d, %v", len(b), len(u.Vector), err)
	}
	return u
}

// file is a safetensors file of a header, padded as the writer does, and
// numbers.
func file(header string, numbers ...float64) []byte {
	for len(header)%8 != 0 {
		header += " "
	}
	b := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
	for _, x := range numbers {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(x))
	}
	return b
}

const header = `{"bias":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"weight":{"dtype":"F64","shape":[1,3],"data_offsets":[8,32]}}`

func TestUpdateOf(t *testing.T) {
	tk, id := good(), taskID(t).String()
	params := []float64{1, -2, 5e-324, 0x1p30 - 1}
	u := update(t, params)
	if want := file(header, 0x1p30-1, 1, -2, 5e-324); !bytes.Equal(u.Vector, want) {
		t.Fatalf("vector %q, by hand %q", u.Vector, want)
	}
	for _, round := range []uint64{1, tk.Rounds} {
		got, err := UpdateOf(sign(t, keys[1], record.KindUpdate, id, round, u), tk)
		if err != nil || !slices.Equal(got.Params, params) || got.Weight != 100 || got.Roster != u.Roster || got.Settled {
			t.Fatalf("round %d: %+v, %v", round, got, err)
		}
	}
	for name, r := range map[string]record.Record{
		"another kind":     sign(t, keys[1], record.KindEnrolment, id, 1, u),
		"another task":     sign(t, keys[1], record.KindUpdate, record.CIDOf(nil).String(), 1, u),
		"round 0":          sign(t, keys[1], record.KindUpdate, id, 0, u),
		"a round too many": sign(t, keys[1], record.KindUpdate, id, tk.Rounds+1, u),
		"round 2^64-1":     sign(t, keys[1], record.KindUpdate, id, math.MaxUint64, u),
		"an unknown field": withField(t, sign(t, keys[1], record.KindUpdate, id, 1, u)),
	} {
		_, err := UpdateOf(r, tk)
		refused(t, name, err, false)
	}
	_, err := UpdateOf(sign(t, keys[3], record.KindUpdate, id, 1, u), tk)
	refused(t, "a node that is not named", err, true)
	for name, edit := range map[string]func(*Update){
		"no weight":            func(u *Update) { u.Weight = 0 },
		"too large a weight":   func(u *Update) { u.Weight = MaxRows + 1 },
		"a weight of 2^64-1":   func(u *Update) { u.Weight = math.MaxUint64 },
		"no vector":            func(u *Update) { u.Vector = nil },
		"NaN":                  func(u *Update) { u.Vector = file(header, 0, math.NaN(), 0, 0) },
		"+Inf":                 func(u *Update) { u.Vector = file(header, math.Inf(1), 0, 0, 0) },
		"-Inf":                 func(u *Update) { u.Vector = file(header, 0, 0, 0, math.Inf(-1)) },
		"2^30":                 func(u *Update) { u.Vector = file(header, 0, 0, 0, 0x1p30) },
		"-2^30":                func(u *Update) { u.Vector = file(header, -0x1p30, 0, 0, 0) },
		"the largest number":   func(u *Update) { u.Vector = file(header, 0, 0, math.MaxFloat64, 0) },
		"one number less":      func(u *Update) { u.Vector = file(header, 0, 0, 0) },
		"one number more":      func(u *Update) { u.Vector = file(header, 0, 0, 0, 0, 0) },
		"a trailing byte":      func(u *Update) { u.Vector = append(u.Vector, 0) },
		"no header":            func(u *Update) { u.Vector = file("{}") },
		"a header without end": func(u *Update) { u.Vector = append(bytes.Repeat([]byte{0xff}, 7), 0x7f) },
		"metadata": func(u *Update) {
			u.Vector = file(strings.Replace(header, `{`, `{"__metadata__":{"a":"b"},`, 1), 0, 0, 0, 0)
		},
		"empty metadata": func(u *Update) {
			u.Vector = file(strings.Replace(header, `{`, `{"__metadata__":{},`, 1), 0, 0, 0, 0)
		},
		"white space":        func(u *Update) { u.Vector = file(header+strings.Repeat(" ", 8), 0, 0, 0, 0) },
		"a space in between": func(u *Update) { u.Vector = file(strings.Replace(header, ":", ": ", 1), 0, 0, 0, 0) },
		"other order of data": func(u *Update) {
			u.Vector = file(`{"bias":{"dtype":"F64","shape":[1],"data_offsets":[24,32]},"weight":{"dtype":"F64","shape":[1,3],"data_offsets":[0,24]}}`, 0, 0, 0, 0)
		},
		"other order of names": func(u *Update) {
			u.Vector = file(`{"weight":{"dtype":"F64","shape":[1,3],"data_offsets":[8,32]},"bias":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}`, 0, 0, 0, 0)
		},
		"a flat weight": func(u *Update) { u.Vector = file(strings.Replace(header, "[1,3]", "[3]", 1), 0, 0, 0, 0) },
		"a turned weight": func(u *Update) {
			u.Vector = file(strings.Replace(header, "[1,3]", "[3,1]", 1), 0, 0, 0, 0)
		},
		"a deeper weight": func(u *Update) { u.Vector = file(strings.Replace(header, "[1,3]", "[1,3,1]", 1), 0, 0, 0, 0) },
		"a wider weight": func(u *Update) {
			u.Vector = file(strings.Replace(strings.Replace(header, "[1,3]", "[1,4]", 1), "32]", "40]", 1), 0, 0, 0, 0, 0)
		},
		"another name": func(u *Update) { u.Vector = file(strings.Replace(header, "bias", "bies", 1), 0, 0, 0, 0) },
		"a third tensor": func(u *Update) {
			u.Vector = file(strings.Replace(header, "}}", `},"x":{"dtype":"F64","shape":[0],"data_offsets":[32,32]}}`, 1), 0, 0, 0, 0)
		},
		"other element type": func(u *Update) {
			u.Vector = file(strings.NewReplacer("F64", "F32", "[1]", "[2]", "[1,3]", "[1,6]").Replace(header), 0, 0, 0, 0)
		},
		"a vector beyond the bound":             func(u *Update) { u.Vector = file(header, make([]float64, MaxVector)...) },
		"an announcement beside the vector":     func(u *Update) { u.Size, u.Chunks = uint64(len(u.Vector)), hashes(u.Vector) },
		"an announcement instead of the vector": func(u *Update) { u.Size, u.Chunks, u.Vector = uint64(len(u.Vector)), hashes(u.Vector), nil },
		"a size beside the vector":              func(u *Update) { u.Size = 1 },
		"a hash beside the vector":              func(u *Update) { u.Chunks = make([]byte, 32) },
	} {
		u := update(t, params)
		edit(&u)
		_, err := UpdateOf(sign(t, keys[1], record.KindUpdate, id, 1, u), tk)
		refused(t, name, err, false)
	}
	// -0 and subnormal numbers are numbers, and keep their bits.
	odd := []float64{math.Copysign(0, -1), -5e-324, 0x1p-1022, 0}
	got, err := UpdateOf(sign(t, keys[1], record.KindUpdate, id, 1, update(t, odd)), tk)
	if err != nil || fmt.Sprintf("%b", got.Params) != fmt.Sprintf("%b", odd) {
		t.Errorf("%v came back as %v, %v", odd, got.Params, err)
	}
	for _, x := range []float64{math.NaN(), math.Inf(1)} {
		if _, _, err := NewUpdate(Update{Params: []float64{0, x, 0, 0}}, tk); err == nil {
			t.Errorf("an own vector with %g is encoded", x)
		}
	}
}

func TestTheLargestUpdateIsGossiped(t *testing.T) {
	tk := good()
	inputs(&tk, MaxVector/8-1)
	params := make([]float64, tk.SpecOf(0).Params())
	for i := range params {
		params[i] = -0x1.fffffffffffffp29
	}
	u, _, err := NewUpdate(Update{Task: taskID(t), Roster: taskID(t), Weight: MaxRows, Settled: true, Params: params}, tk)
	if err != nil {
		t.Fatal(err)
	}
	r := sign(t, keys[1], record.KindUpdate, taskID(t).String(), MaxRounds, u)
	if len(r.Bytes) > record.MaxGossip {
		t.Errorf("%d bytes", len(r.Bytes))
	}
	tk.Rounds = MaxRounds
	if _, err := UpdateOf(r, tk); err != nil {
		t.Error(err)
	}
}

// A vector too large to ride inside is announced by its size and the hashes of
// its chunks, and is only what was announced.
func TestAnnouncedVectors(t *testing.T) {
	tk := good()
	inputs(&tk, 4500)
	classes(&tk, 32) // 1.1 MiB
	spec, id := tk.SpecOf(0), taskID(t).String()
	params := make([]float64, spec.Params())
	for i := range params {
		params[i] = math.Sin(float64(i))
	}
	u, b, err := NewUpdate(Update{Task: taskID(t), Roster: taskID(t), Weight: 100, Params: params}, tk)
	if err != nil {
		t.Fatal(err)
	}
	first, second := sha256.Sum256(b[:1<<20]), sha256.Sum256(b[1<<20:])
	if len(u.Vector) != 0 || u.Size != uint64(len(b)) || !bytes.Equal(u.Chunks, append(first[:], second[:]...)) {
		t.Errorf("%d bytes are announced as %d in %x, with %d inside", len(b), u.Size, u.Chunks, len(u.Vector))
	}
	got, err := UpdateOf(sign(t, keys[1], record.KindUpdate, id, 1, u), tk)
	if err != nil || got.Params != nil || got.Size != u.Size {
		t.Fatalf("%d parameters of %d bytes before they are here, %v", len(got.Params), got.Size, err)
	}
	if full, err := got.Fill(b, tk); err != nil || !slices.Equal(full.Params, params) {
		t.Errorf("%d parameters, %v", len(full.Params), err)
	}
	flipped := func(at int) []byte {
		b := bytes.Clone(b)
		b[at] ^= 1
		return b
	}
	for name, vector := range map[string][]byte{
		"nothing": nil, "the first byte": flipped(0), "the last of a chunk": flipped(1<<20 - 1), "the first of a chunk": flipped(1 << 20), "the last byte": flipped(len(b) - 1),
		"one byte less": b[:len(b)-1], "one byte more": append(bytes.Clone(b), 0), "one chunk": b[:1<<20], "the other order": append(bytes.Clone(b[1<<20:]), b[:1<<20]...),
	} {
		full, err := got.Fill(vector, tk)
		refused(t, name, err, false)
		if full.Params != nil {
			t.Errorf("%s has parameters", name)
		}
	}
	// What was announced is checked as what rides inside is.
	for name, x := range map[string]float64{"NaN": math.NaN(), "+Inf": math.Inf(1), "2^30": 0x1p30} {
		bad := bytes.Clone(b)
		binary.LittleEndian.PutUint64(bad[len(bad)-8:], math.Float64bits(x))
		u := got
		u.Chunks = hashes(bad)
		full, err := u.Fill(bad, tk)
		refused(t, name, err, false)
		if full.Params != nil {
			t.Errorf("%s has parameters", name)
		}
	}
	least := uint64(8 * spec.Params())
	for name, edit := range map[string]func(*Update){
		"no announcement":       func(u *Update) { u.Size, u.Chunks = 0, nil },
		"no size":               func(u *Update) { u.Size = 0 },
		"no hashes":             func(u *Update) { u.Chunks = nil },
		"a hash less":           func(u *Update) { u.Chunks = u.Chunks[:32] },
		"a hash more":           func(u *Update) { u.Chunks = append(slices.Clone(u.Chunks), u.Chunks[:32]...) },
		"half a hash":           func(u *Update) { u.Chunks = u.Chunks[:48] },
		"too few bytes":         func(u *Update) { u.Size = least - 1 },
		"too many bytes":        func(u *Update) { u.Size = least + 4097 },
		"2^64-1 bytes":          func(u *Update) { u.Size = math.MaxUint64 },
		"2^64-1 bytes, no hash": func(u *Update) { u.Size, u.Chunks = math.MaxUint64, nil },
		"the vector inside":     func(u *Update) { u.Vector, u.Size, u.Chunks = b[:1000], 0, nil },
		"a vector beside it":    func(u *Update) { u.Vector = []byte{0} },
	} {
		u := u
		edit(&u)
		_, err := UpdateOf(sign(t, keys[1], record.KindUpdate, id, 1, u), tk)
		refused(t, name, err, false)
	}
}

// counts are those of a model that gives each row of xs its number as the
// log-odds of class 1; the row's class is 1 for yes.
func counts(rows ...string) learn.Counts {
	s := dataset.Samples{N: len(rows), D: 1}
	for _, row := range rows {
		var x float64
		var class string
		if _, err := fmt.Sscan(row, &x, &class); err != nil {
			panic(err)
		}
		s.X = append(s.X, x)
		s.Y = append(s.Y, map[string]int{"no": 0, "yes": 1}[class])
	}
	return learn.Spec{Kind: learn.Logistic, Inputs: 1, Classes: 2}.Count([]float64{1, 0}, s)
}

func TestEvaluationOf(t *testing.T) {
	tk, id := good(), taskID(t).String()
	evaluation := func() Evaluation {
		return Evaluation{
			Task: taskID(t), Model: record.CIDOf([]byte("model")),
			Local: counts("-1 no", "2 no", "1 yes"), Federated: counts("-1 no", "-2 no", "1 yes"), Personal: counts("1 no", "-2 no", "1 yes"),
			Better: 1, Worse: 2,
		}
	}
	e := evaluation()
	got, err := EvaluationOf(sign(t, keys[1], record.KindEvaluation, id, 0, e), tk)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(e) {
		t.Fatalf("%+v came back as %+v, %v", e, got, err)
	}
	none := e
	none.Local, none.Federated, none.Personal, none.Better, none.Worse = counts(), counts(), counts(), 0, 0
	if _, err := EvaluationOf(sign(t, keys[1], record.KindEvaluation, id, 0, none), tk); err != nil {
		t.Errorf("without test rows: %v", err)
	}
	for name, r := range map[string]record.Record{
		"another kind":     sign(t, keys[1], record.KindUpdate, id, 0, e),
		"another task":     sign(t, keys[1], record.KindEvaluation, record.CIDOf(nil).String(), 0, e),
		"a number":         sign(t, keys[1], record.KindEvaluation, id, 1, e),
		"an unknown field": withField(t, sign(t, keys[1], record.KindEvaluation, id, 0, e)),
	} {
		_, err := EvaluationOf(r, tk)
		refused(t, name, err, false)
	}
	_, err = EvaluationOf(sign(t, keys[3], record.KindEvaluation, id, 0, e), tk)
	refused(t, "a node that is not named", err, true)
	// many is n rows of which the model is sure.
	many := func(n uint64) learn.Counts {
		return learn.Counts{Rows: n, Confusion: []uint64{n, 0, 0, 0}, Positives: []byte{}, Negatives: binary.AppendUvarint([]byte{0}, n)}
	}
	for name, edit := range map[string]func(*Evaluation){
		"other rows":                 func(e *Evaluation) { e.Local = counts("1 yes") },
		"other rows of the own part": func(e *Evaluation) { e.Personal = counts("1 yes") },
		"no own part":                func(e *Evaluation) { e.Personal = learn.Counts{} },
		"more better than rows":      func(e *Evaluation) { e.Better, e.Worse = 4, 0 },
		"more worse than rows":       func(e *Evaluation) { e.Better, e.Worse = 0, 4 },
		"more either than rows":      func(e *Evaluation) { e.Better, e.Worse = 2, 2 },
		"either that overflow":       func(e *Evaluation) { e.Better, e.Worse = 2, math.MaxUint64 },
		"a parent of no parent":      func(e *Evaluation) { c := e.Local; e.Parent = &c },
		"errors of no number":        func(e *Evaluation) { e.Local.Errors = &learn.Errors{} },
		"groups of no column":        func(e *Evaluation) { e.Local.Groups = make([]uint64, 4) },
		"wrong rows":                 func(e *Evaluation) { e.Local.Rows++; e.Federated.Rows++; e.Personal.Rows++ },
		"too few counts":             func(e *Evaluation) { e.Federated.Confusion = e.Federated.Confusion[:3] },
		"no counts":                  func(e *Evaluation) { e.Local.Confusion = nil },
		"counts of three classes":    func(e *Evaluation) { e.Local.Confusion = make([]uint64, 9) },
		"counts that overflow":       func(e *Evaluation) { e.Local.Confusion = []uint64{1 << 63, 1 << 63, 0, 3} },
		"a histogram of other rows":  func(e *Evaluation) { e.Federated.Positives = e.Federated.Negatives },
		"an unpacked histogram":      func(e *Evaluation) { e.Federated.Positives = []byte{0xff} },
		"a histogram beyond its end": func(e *Evaluation) { e.Local.Negatives = binary.AppendUvarint(nil, learn.Bins) },
		"too many rows": func(e *Evaluation) {
			e.Local, e.Federated, e.Personal = many(MaxRows+1), many(MaxRows+1), many(MaxRows+1)
		},
		"2^63 rows": func(e *Evaluation) { e.Local, e.Federated, e.Personal = many(1<<63), many(1<<63), many(1<<63) },
	} {
		e := evaluation()
		edit(&e)
		_, err := EvaluationOf(sign(t, keys[1], record.KindEvaluation, id, 0, e), tk)
		refused(t, name, err, false)
	}
	most := e
	most.Local, most.Federated, most.Personal, most.Better, most.Worse = many(MaxRows), many(MaxRows), many(MaxRows), 1, MaxRows-1
	if _, err := EvaluationOf(sign(t, keys[1], record.KindEvaluation, id, 0, most), tk); err != nil {
		t.Errorf("with the most test rows: %v", err)
	}
}

// The largest evaluation of a task that passes is a record: else training would
// end in nothing.
func TestTheLargestEvaluationIsARecord(t *testing.T) {
	for name, edit := range map[string]func(*Task){
		"the most classes": func(tk *Task) { classes(tk, MaxClasses) },
		"two classes":      func(*Task) {},
		"a number":         func(tk *Task) { tk.Encoding.Classes, tk.Encoding.Positive, tk.Model = nil, "", learn.Linear },
	} {
		tk := good()
		edit(&tk)
		k := len(tk.Encoding.Classes)
		if k > 0 {
			tk.Encoding.Sensitive = "group"
			for i := range min(MaxGroupCells/k/k, 64) {
				tk.Encoding.Groups = append(tk.Encoding.Groups, fmt.Sprintf("g%04d", i))
			}
		}
		if err := tk.Check(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		// Each histogram has every bin; as many bins as the rows allow take three
		// bytes, the others two.
		histogram := func(histograms int) (b []byte) {
			big := int((MaxRows - 2*learn.Bins*128) / (1<<14 - 128) / 2)
			for i := range histograms * learn.Bins {
				n := uint64(128)
				if i%learn.Bins < big {
					n = 1 << 14
				}
				b = binary.AppendUvarint(append(b, 0), n)
			}
			return b
		}
		c := learn.Counts{Rows: MaxRows}
		if k == 0 {
			c.Errors = &learn.Errors{Unit: math.Pi, Absolute: math.MaxUint64, Squared: math.MaxUint64, Target: math.MinInt64, Spread: math.MaxUint64, Histogram: histogram(1)}
		} else {
			pairs := k
			if k == 2 {
				pairs = 1
			}
			c.Positives, c.Negatives = histogram(pairs), histogram(pairs)
			for range k * k {
				c.Confusion = append(c.Confusion, MaxRows)
			}
			for range len(tk.Encoding.Groups) * k * k {
				c.Groups = append(c.Groups, MaxRows)
			}
		}
		r, err := record.Sign(keys[1], strings.Repeat("x", record.MaxName), record.KindEvaluation, taskID(t).String(), 0,
			Evaluation{Task: taskID(t), Model: taskID(t), Local: c, Federated: c, Personal: c, Better: MaxRows / 2, Worse: MaxRows / 2, Parent: &c})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Logf("%s: %d of %d bytes", name, len(r.Bytes), record.MaxBytes)
	}
}

func TestWeightsOfARosterCanBeSummed(t *testing.T) {
	s := mixing.NewSum(1)
	for range MaxNodes {
		if err := s.Add(MaxRows, []float64{-0x1.fffffffffffffp29}); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Mean()[0]; got != -0x1.fffffffffffffp29 {
		t.Errorf("mean %g", got)
	}
}
