package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"village/node/api"
)

// TestJSONAnswers freezes the keys of what the commands answer with --json, and
// the types behind them. TestJSONShapes has what the types promise; here is what
// is printed: every answer has its schema, and no list is null.
func TestJSONAnswers(t *testing.T) {
	t.Parallel()
	a := newSite(t, t.TempDir(), federationOf(t), "budapest")
	b := newSite(t, t.TempDir(), federationOf(t), "zurich")
	var all strings.Builder
	shape := func(name, answer string) {
		t.Helper()
		lines := strings.Split(strings.TrimSuffix(answer, "\n"), "\n")
		var found []string
		for _, line := range lines {
			var v map[string]any
			if err := json.Unmarshal([]byte(line), &v); err != nil {
				t.Fatalf("%s: %v\n%s", name, err, answer)
			}
			noun := strings.ReplaceAll(name, " ", ".")
			if v["schema"] != "village."+noun+"/v1" {
				t.Errorf("%s: schema %v", name, v["schema"])
			}
			shapeOf(v, "", &found)
		}
		if len(lines) > 1 && name != "task watch" {
			t.Errorf("%s prints %d lines", name, len(lines))
		}
		if name == "peer remove" {
			// The other node may have dialled again by then, or not yet.
			found = slices.DeleteFunc(found, func(line string) bool { return strings.HasPrefix(line, "peers[]") })
		}
		slices.Sort(found)
		fmt.Fprintf(&all, "%s\n    %s\n", name, strings.Join(slices.Compact(found), "\n    "))
	}
	noun := func(args []string) string {
		if len(args) > 1 && slices.Contains([]string{"peer", "member", "dataset", "task", "model"}, args[0]) {
			return args[0] + " " + args[1]
		}
		return args[0]
	}
	says := func(s *site, args ...string) string {
		t.Helper()
		answer := s.ok(append(args, "--json")...)
		shape(noun(args), answer)
		return answer
	}

	other := filepath.Join(t.TempDir(), "other")
	shape("init", (&site{t: t, home: other}).ok("init", "--nation", "CHE", "--name", "x", "--no-mdns", "--json"))
	says(a, "version")
	a.start()
	b.start()
	says(a, "id")
	says(a, "peer", "add", b.address)
	says(a, "member", "add", b.id)
	says(a, "member", "list")
	says(a, "member", "add", nobody)
	says(a, "member", "remove", nobody)
	says(b, "peer", "add", a.address)
	says(b, "peer", "remove", a.id)
	says(b, "peer", "add", a.address)

	// A file with all that a manifest can say, of rows enough for percentiles.
	rows := file(t, func() string {
		var text strings.Builder
		text.WriteString("size,colour,note,side,big\n")
		for i := range 1100 {
			size, colour, side := fmt.Sprint(i), "red", "train"
			switch {
			case i < 3:
				colour = "rare"
			case i < 6:
				size = "?"
			case i < 20:
				size = "20"
			}
			if i%4 == 0 {
				side = "test"
			}
			fmt.Fprintf(&text, "%s,%s,note %d,%s,%d\n", size, colour, i, side, i*7/1100%2)
		}
		return text.String()
	}())
	var added api.AddedDataset
	read(t, says(a, "dataset", "add", rows, "--name", "things", "--target", "big", "--split", "side", "--domain", "things",
		"--licence", "CC0-1.0", "--description", "Things of all sizes", "--levels", "colour=red,blue"), &added)
	if answer := b.ok("dataset", "add", rows, "--name", "things", "--target", "big", "--split", "side", "--levels", "colour=red,rare,blue", "--json"); !strings.Contains(answer, `"hints":[]`) {
		t.Errorf("without hints: %s", answer)
	}
	dataset := added.CID.String()
	a.sees(dataset)
	b.sees(dataset)
	says(a, "dataset", "list")
	says(a, "dataset", "show", dataset)
	says(a, "peer", "list")

	var proposed api.Proposed
	eventually(t, "both datasets are known", func() bool { return a.status().Datasets == 2 })
	read(t, says(a, "task", "propose", "--name", "size", "--target", "big", "--features", "size", "--nodes", a.id+","+b.id, "--rounds", "3"), &proposed)
	task := proposed.CID.String()
	b.join(task)
	says(a, "status") // with a task that waits
	says(a, "task", "join", task)
	says(a, "task", "watch", task)
	cid := model(t, task, a, b)
	says(a, "task", "list")
	says(a, "task", "show", task)
	says(a, "model", "list")
	says(a, "model", "show", cid)
	says(a, "model", "report", cid)
	says(a, "model", "export", cid, "--out", filepath.Join(t.TempDir(), "m"))
	says(a, "model", "verify", cid)
	says(a, "model", "predict", cid, "--in", file(t, "size\n3\n?\n900\n"))
	read(t, a.ok("task", "propose", "--name", "other", "--target", "big", "--features", "size", "--nodes", a.id, "--json"), &proposed)
	says(a, "task", "leave", proposed.CID.String())
	bad := a.run("task", "show", unknownCID, "--json")
	shape("error", bad.stderr)
	golden(t, "e2e/json.golden", all.String())
}

func read(t *testing.T, answer string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(answer), v); err != nil {
		t.Fatal(err)
	}
}

// byName are the objects whose keys are names of the owner's.
var byName = map[string]bool{"dropped": true, "left_out": true}

// shapeOf lists the keys of a JSON value with the types behind them, alike for
// empty and full lists of strings or numbers.
func shapeOf(v any, path string, lines *[]string) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if byName[path] {
				key = "*"
			}
			if path != "" {
				key = path + "." + key
			}
			shapeOf(value, key, lines)
		}
	case []any:
		*lines = append(*lines, path+" list")
		for _, value := range v {
			switch value.(type) {
			case map[string]any, []any:
				shapeOf(value, path+"[]", lines)
			}
		}
	case string:
		*lines = append(*lines, path+" string")
	case float64:
		*lines = append(*lines, path+" number")
	case bool:
		*lines = append(*lines, path+" bool")
	case nil:
		*lines = append(*lines, path+" null")
	}
}
