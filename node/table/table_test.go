package table

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"village/node/api"
	"village/protocol/record"
)

func render[T any](t *testing.T, f func(w *bytes.Buffer, v T) error, v T) string {
	t.Helper()
	var b bytes.Buffer
	if err := f(&b, v); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"Zürich 村":     "Zürich 村",
		"a\x1b[2Jb":    `a\u001b[2Jb`,
		"a\nb\tc":      `a\u000ab\u0009c`,
		"abc\u202egpj": `abc\u202egpj`,
		"a\xffb":       "a\ufffdb",
		"\u200fx":      `\u200fx`,
	} {
		if got := Text(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// hostile fills every string of v, however deep, with a marker behind a
// character that would steer a terminal, and returns the markers.
func hostile(v reflect.Value, markers *[]string) {
	switch v.Kind() {
	case reflect.String:
		m := fmt.Sprintf("mark%03d", len(*markers))
		*markers = append(*markers, m)
		v.SetString("\x1b" + m)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[record.CID]() {
			v.Set(reflect.ValueOf(record.CIDOf([]byte("x"))))
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				hostile(v.Field(i), markers)
			}
		}
	case reflect.Slice:
		n := 2
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			hostile(v.Index(i), markers)
		}
	case reflect.Array:
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint64, reflect.Uint8:
		v.SetUint(7)
	case reflect.Int:
		v.SetInt(7)
	case reflect.Float64:
		v.SetFloat(0.5)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		hostile(v.Elem(), markers)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		hostile(key, markers)
		hostile(value, markers)
		v.SetMapIndex(key, value)
	default:
		panic(v.Kind())
	}
}

func checkHostile[T any](t *testing.T, f func(w *bytes.Buffer, v T) error) {
	t.Helper()
	var v T
	hostile(reflect.ValueOf(&v).Elem(), new([]string))
	out := render(t, f, v)
	for _, r := range out {
		if unicode.IsControl(r) && r != '\n' {
			t.Fatalf("%T: %U reaches the terminal:\n%s", v, r, out)
		}
	}
}

// No string of any answer reaches the terminal unescaped.
func TestPeersCannotSteerTheTerminal(t *testing.T) {
	checkHostile(t, func(w *bytes.Buffer, v api.Init) error {
		v.Nation, v.Federation, v.Listen = "", "", nil
		return Init(w, v)
	})
	checkHostile(t, func(w *bytes.Buffer, v api.Identity) error { return Identity(w, v) })
	checkHostile(t, func(w *bytes.Buffer, v api.Status) error { return Status(w, v, nil) })
	checkHostile(t, func(w *bytes.Buffer, v api.Peers) error { return Peers(w, v) })
	checkHostile(t, func(w *bytes.Buffer, v api.Members) error { return Members(w, v) })
	checkHostile(t, func(w *bytes.Buffer, v api.AddedDataset) error { return AddedDataset(w, v) })
	checkHostile(t, func(w *bytes.Buffer, v api.Datasets) error { return Datasets(w, v) })
	checkHostile(t, func(w *bytes.Buffer, v api.Tasks) error { return Tasks(w, v, nil) })
	checkHostile(t, func(w *bytes.Buffer, v api.ShownTask) error { return Task(w, v) })
	checkHostile(t, func(w *bytes.Buffer, v api.Models) error { return Models(w, v) })
	checkHostile(t, func(w *bytes.Buffer, v api.ShownModel) error { return Model(w, v) })
	checkHostile(t, func(w *bytes.Buffer, v api.Report) error { return Report(w, v) })
	checkHostile(t, func(w *bytes.Buffer, v api.Verified) error { return Verified(w, v) })
}

// What a manifest publishes is shown, all of it: a field that is added to
// manifests and not to the table fails here.
func TestDatasetShowsEverythingPublished(t *testing.T) {
	var v api.ShownDataset
	var markers []string
	hostile(reflect.ValueOf(&v.Manifest).Elem(), &markers)
	out := render(t, func(w *bytes.Buffer, v api.ShownDataset) error { return Dataset(w, v) }, v)
	if len(markers) < 15 {
		t.Fatalf("only %d strings", len(markers))
	}
	for _, m := range markers {
		if !strings.Contains(out, `\u001b`+m) {
			t.Errorf("%s is not shown in\n%s", m, out)
		}
	}
	if fields := reflect.TypeOf(v.Manifest).NumField(); fields != 14 {
		t.Errorf("a manifest has %d fields; see that Dataset shows them all", fields)
	}
}

func TestPredictionsCSV(t *testing.T) {
	got := render(t, func(w *bytes.Buffer, v api.Predictions) error { return PredictionsCSV(w, v) }, api.Predictions{
		Classes: []string{"no", "yes, sure"}, Predictions: []string{"no", "", "yes, sure"}, Probabilities: [][]float64{{.75, .25}, {}, {.1, .9}}, Incomplete: 1,
	})
	want := "prediction,probability_no,\"probability_yes, sure\"\nno,0.75,0.25\n,,\n\"yes, sure\",0.1,0.9\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestProgress(t *testing.T) {
	a, b := record.NodeID{1}, record.NodeID{2}
	names := NamesOf([]api.NamedNode{{PeerID: a, Nation: "HUN", Name: "old"}, {PeerID: b}, {PeerID: a, Nation: "HUN", Name: "Budapest"}})
	for want, v := range map[string]api.TaskSummary{
		"enrolling, waiting for HUN Budapest, " + b.String(): {Stage: api.StageEnrolling, WaitingFor: []record.NodeID{a, b}, Voters: 4},
		"training, round 3 of 20":                            {Stage: api.StageTraining, Round: 3, Rounds: 20, Voters: 4},
		"sealing, decides when 3 of 4 have spoken; missing: HUN Budapest, " + b.String(): {
			Stage: api.StageSealing, Undecided: []record.NodeID{a, b}, Quorum: 3, Voters: 4},
		"sealing": {Stage: api.StageSealing, Undecided: []record.NodeID{a}, Quorum: 3, Voters: 4}, // a quorum speaks
	} {
		if got := Progress(v, names); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestTaskShowsStates(t *testing.T) {
	out := render(t, func(w *bytes.Buffer, v api.ShownTask) error { return Task(w, v) }, api.ShownTask{Nodes: []api.TaskNode{
		{Name: "A", Enrolled: true, Silent: true, Late: true}, {Name: "B", Silent: true, Left: true}, {Name: "C"},
	}})
	for _, want := range []string{"  late, silent  ", "  left  ", "  –  "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestMembersNameThisNode(t *testing.T) {
	out := render(t, func(w *bytes.Buffer, v api.Members) error { return Members(w, v) }, api.Members{
		Closed: true, Members: []api.Member{{Self: true}, {PeerID: record.NodeID{1}, Connected: true}},
	})
	if !strings.Contains(out, "  this node\n") || !strings.Contains(out, "  yes\n") {
		t.Error(out)
	}
}

// Classes come from other nodes; a spreadsheet must not run one.
func TestPredictionsAreDefused(t *testing.T) {
	v := api.Predictions{Predictions: []string{"=1+1", "+cmd", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "-1", "+1.5e3", "-0.25", "", "a=b", "'"}}
	want := "prediction\n'=1+1\n'+cmd\n'-2+3\n'@SUM(A1)\n'\t=1\n\"'\r=1\"\n-1\n+1.5e3\n-0.25\n\na=b\n'\n"
	if got := render(t, func(w *bytes.Buffer, v api.Predictions) error { return PredictionsCSV(w, v) }, v); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
