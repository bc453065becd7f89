package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"village/node/api"
	"village/protocol/task"
)

// What a flag can say of a task, a file can say, and a simulation too.
func TestEverySettingCanBeGiven(t *testing.T) {
	root := newRoot(&app{})
	propose, _, _ := root.Find([]string{"task", "propose"})
	simulate, _, _ := root.Find([]string{"sim", "run"})
	var text strings.Builder
	var want task.Settings
	for i, k := range task.Table {
		if propose.Flags().Lookup(k.Name) == nil || simulate.Flags().Lookup(k.Name) == nil {
			t.Errorf("there is no flag --%s", k.Name)
		}
		value := ""
		switch p := k.At(&want).(type) {
		case *uint64:
			*p, value = uint64(i+1), fmt.Sprint(i+1)
		case *float64:
			*p, value = float64(i)+.5, fmt.Sprint(float64(i)+.5)
		case *bool:
			*p, value = true, "true"
		case *string:
			*p, value = k.Name, fmt.Sprintf("%q", k.Name)
		case *[]int:
			*p, value = []int{8, 3}, "[8, 3]"
		}
		fmt.Fprintf(&text, "%s = %s\n", strings.ReplaceAll(k.Name, "-", "_"), value)
	}
	read := func(text string) api.Propose {
		name := filepath.Join(t.TempDir(), "task.toml")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		q, err := readTask(name)
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	q := read(text.String())
	// The penalty stands beside the others, for none is not the default.
	if q.L2 == nil || *q.L2 != want.L2 {
		t.Fatalf("l2 is %v, want %g", q.L2, want.L2)
	}
	if q.Settings.L2 = *q.L2; !reflect.DeepEqual(q.Settings, want) {
		t.Errorf("got  %+v\nwant %+v of\n%s", q.Settings, want, &text)
	}
	if q := read("l2 = 0"); q.L2 == nil || *q.L2 != 0 {
		t.Errorf("no penalty is %v", q.L2)
	}
	if q := read("rounds = 3"); q.L2 != nil || q.LearningRate != 0 {
		t.Errorf("what is left out is %v and %g", q.L2, q.LearningRate)
	}
}
