package table

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"village/protocol/task"
)

// A comparison has its last columns where there is room.
func TestRowsFit(t *testing.T) {
	rows := [][]string{
		{"SETTING", "LOCAL ONLY", "FEDERATED", "OWN PART", "WORST NODE", "ROC-AUC"},
		{"hidden=32 mixing=exponential", "0.768 ± 0.000", "0.807 ± 0.011", "0.815 ± 0.000", "0.788 ± 0.013", "0.885 ± 0.003"},
	}
	for width, last := range map[int]string{80: "WORST NODE", 100: "ROC-AUC", 120: "ROC-AUC"} {
		var b bytes.Buffer
		if err := fitted(&b, rows, width); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		if len(lines) != 2 || !strings.HasSuffix(lines[0], last) || !strings.Contains(lines[1], "0.815") {
			t.Errorf("%d columns:\n%s", width, b.String())
		}
		for _, l := range lines {
			if n := utf8.RuneCountInString(l); n > width {
				t.Errorf("%d of %d columns: %s", n, width, l)
			}
		}
	}
	if len(rows[1]) != 6 || rows[1][0] != "hidden=32 mixing=exponential" {
		t.Error("the rows of the caller have changed")
	}
	show := func(w *bytes.Buffer, cell string) error {
		return fitted(w, [][]string{{"SETTING", "A"}, {cell, cell}}, minWidth)
	}
	if got := render(t, show, "a\x1b[2Jb"); strings.Contains(got, "\x1b") {
		t.Errorf("a cell steers the terminal: %q", got)
	}
}

// A run has the table of classes where its target has any.
func TestSimRun(t *testing.T) {
	facts := [][]string{{"scenario", "hospitals"}}
	var b bytes.Buffer
	if err := SimRun(&b, facts, hospitals()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"scenario  hospitals", "precision", "weighted avg", "Budapest"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("it lacks %q:\n%s", want, b.String())
		}
	}
	r := numbers()
	r.Search = &task.Trail{Candidates: []task.Candidate{{Model: "linear"}}}
	b.Reset()
	if err := SimRun(&b, facts, r); err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{"precision", "weighted avg"} {
		if strings.Contains(b.String(), other) {
			t.Errorf("a numeric target has %q:\n%s", other, b.String())
		}
	}
	if !strings.Contains(b.String(), "RMSE") || !strings.Contains(b.String(), "chosen among 1 candidate") {
		t.Errorf("it lacks something:\n%s", b.String())
	}
}
