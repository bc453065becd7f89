package chart

import (
	"bytes"
	"encoding/csv"
	"encoding/xml"
	"fmt"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"village/protocol/figure"
	"village/protocol/learn"
	"village/protocol/task"
	"village/sim"
)

// write makes a report and returns its files by name.
func write(t *testing.T, runs []Run, notes ...string) map[string][]byte {
	t.Helper()
	if testing.Short() {
		t.Skip("drawing takes long under the race detector, and nothing of it runs beside anything")
	}
	dir := t.TempDir()
	if err := Write(dir, "A federation", runs, notes); err != nil {
		t.Fatal(err)
	}
	return read(t, dir)
}

func read(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, e := range entries {
		if files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func table(t *testing.T, b []byte) []map[string]string {
	t.Helper()
	lines, err := csv.NewReader(bytes.NewReader(b)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]string
	for _, l := range lines[1:] {
		row := map[string]string{}
		for i, name := range lines[0] {
			row[name] = l[i]
		}
		rows = append(rows, row)
	}
	return rows
}

// sound holds what must be true of all files, whatever the runs are.
func sound(t *testing.T, files map[string][]byte) {
	t.Helper()
	for name, b := range files {
		switch filepath.Ext(name) {
		case ".svg":
			wellFormed(t, name, b)
		case ".png":
			if _, err := png.Decode(bytes.NewReader(b)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		case ".csv":
			table(t, b)
		case ".html":
			selfContained(t, b)
		case ".toml":
			continue
		default:
			t.Errorf("%s was left over", name)
		}
		if bytes.Contains(b, []byte("NaN")) || bytes.Contains(b, []byte("Inf")) {
			t.Errorf("%s has what is no number", name)
		}
		if bytes.Contains(b, []byte("%!")) || bytes.Contains(b, []byte("ZgotmplZ")) {
			t.Errorf("%s has a value that could not be written", name)
		}
	}
}

func wellFormed(t *testing.T, name string, b []byte) {
	t.Helper()
	for d := xml.NewDecoder(bytes.NewReader(b)); ; {
		_, err := d.Token()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
	}
}

// selfContained holds that a page has no script and asks nobody for anything.
func selfContained(t *testing.T, b []byte) {
	t.Helper()
	style, _, _ := bytes.Cut(b, []byte("</style>"))
	if m := regexp.MustCompile(`(?i)//|@import|url\(`).Find(style); m != nil {
		t.Errorf("the page's style refers to %q", m)
	}
	d := xml.NewDecoder(bytes.NewReader(b))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	for {
		token, err := d.Token()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatalf("the page: %v", err)
		}
		e, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		switch e.Name.Local {
		case "script", "img", "image", "link", "iframe", "object", "embed", "base", "form", "a", "use":
			t.Errorf("the page has <%s>", e.Name.Local)
		}
		for _, a := range e.Attr {
			if n := strings.ToLower(a.Name.Local); n == "src" || n == "href" || strings.HasPrefix(n, "on") || strings.Contains(a.Value, "://") || strings.Contains(a.Value, "url(") {
				t.Errorf("the page has %s=%q", n, a.Value)
			}
		}
	}
}

func TestWrite(t *testing.T) {
	for name, runs := range map[string][]Run{"one": one(), "three settings": threeByFive(), "graphs": graphs(), "large": large()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := write(t, runs, "run 7 was interrupted")
			sound(t, files)
			for _, name := range []string{"accuracy-rounds", "auc-rounds", "accuracy-bytes", "accuracy-time", "disagreement-rounds", "gain-nodes"} {
				if files[name+".svg"] == nil || files[name+".png"] == nil {
					t.Errorf("%s is missing", name)
				}
			}
			if !bytes.Contains(files["report.html"], []byte("run 7 was interrupted")) {
				t.Error("the report has no note")
			}
			for _, r := range runs {
				if !bytes.Contains(files["report.html"], fmt.Appendf(nil, "%x", r.Result.Digest)) {
					t.Errorf("the report lacks the digest of %s, seed %d", r.Label, r.Seed)
				}
			}
			if n := len(files["report.html"]); n > 1<<20 {
				t.Errorf("the report has %d bytes", n)
			}
		})
	}
}

func TestEqualRunsMakeEqualBytes(t *testing.T) {
	t.Parallel()
	files, again := write(t, graphs()), write(t, graphs())
	for name, b := range files {
		if !bytes.Equal(b, again[name]) {
			t.Errorf("%s differs from one call to the next", name)
		}
	}
}

func TestTablesHoldTheRuns(t *testing.T) {
	runs := threeByFive()
	files := write(t, runs)
	rounds, nodes := table(t, files["rounds.csv"]), table(t, files["nodes.csv"])
	number := func(row map[string]string, column string) float64 {
		v, err := strconv.ParseFloat(row[column], 64)
		if err != nil {
			t.Fatalf("%s: %v", column, err)
		}
		return v
	}
	i, j := 0, 0
	for _, r := range runs {
		for _, p := range r.Result.Trace {
			row := rounds[i]
			i++
			if row["label"] != r.Label || row["seed"] != whole(r.Seed) || row["round"] != whole(p.Round) || row["messages"] != whole(p.Messages) || row["bytes_sent"] != whole(p.Bytes) {
				t.Fatalf("row %d is %v", i, row)
			}
			if number(row, "accuracy") != *p.AllRows.Accuracy || number(row, "roc_auc") != *p.AllRows.ROCAUC ||
				number(row, "mean_of_nodes_f1") != *p.Mean.F1 || number(row, "disagreement") != p.Disagreement || number(row, "virtual_seconds") != p.Virtual.Seconds() {
				t.Fatalf("row %d is %v", i, row)
			}
		}
		for _, n := range r.Result.Results.Nodes {
			row := nodes[j]
			j++
			if row["nation"] != n.Nation || row["name"] != n.Name || row["rows"] != whole(n.TestRows) || row["train_rows"] != whole(n.TrainRows) ||
				number(row, "local_accuracy") != *n.Local.Accuracy || number(row, "federated_roc_auc") != *n.Federated.ROCAUC {
				t.Fatalf("node %d is %v", j, row)
			}
		}
	}
	if i != len(rounds) || j != len(nodes) {
		t.Errorf("%d and %d rows, want %d and %d", len(rounds), len(nodes), i, j)
	}
	summary := table(t, files["summary.csv"])
	for i, s := range Summarise(runs) {
		row := summary[i]
		if row["label"] != s.Label || row["runs"] != "5" || number(row, "all_rows_federated_accuracy") != s.AllRows.Federated.Accuracy.Mean ||
			number(row, "all_rows_federated_accuracy_sd") != s.AllRows.Federated.Accuracy.SD || number(row, "worst_node_local_f1") != s.Worst.Local.F1.Mean {
			t.Errorf("summary %d is %v", i, row)
		}
	}
}

func TestHostileText(t *testing.T) {
	t.Parallel()
	nasty := []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `</text></svg><iframe src="https://evil.example">`, "a\x00b\x1b[31m\u202e\ufffe\xff", `{{.Title}}`,
		"--></style>", strings.Repeat("wide ", 60), "a,b\"c\nd", "",
	}
	runs := threeByFive()[:len(nasty)]
	for i := range runs {
		runs[i].Label, runs[i].Scenario = nasty[i], "# "+nasty[i]
		for j := range runs[i].Result.Results.Nodes {
			n := &runs[i].Result.Results.Nodes[j]
			n.Name, n.Nation = nasty[j%len(nasty)], nasty[(i+j)%len(nasty)]
		}
	}
	for _, few := range [][]Run{runs[:1], runs} {
		dir := t.TempDir()
		if err := Write(dir, nasty[0]+nasty[1], few, nasty); err != nil {
			t.Fatal(err)
		}
		files := read(t, dir)
		sound(t, files)
		if got := table(t, files["summary.csv"])[0]["label"]; got != plain(few[0].Label) {
			t.Errorf("the label came back as %q", got)
		}
		for name, b := range files {
			if text := filepath.Ext(name) != ".png" && filepath.Ext(name) != ".toml"; text && bytes.ContainsAny(b, "\x00\x1b\u202e") {
				t.Errorf("%s has a control character", name)
			}
		}
	}
}

func TestUndefined(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	bare := sim.Result{Messages: 3, Virtual: time.Second}
	bad := threeByFive()[0]
	for i := range bad.Result.Trace {
		p := &bad.Result.Trace[i]
		switch i % 4 {
		case 1:
			p.AllRows, p.Mean = learn.Report{}, task.Metrics{}
		case 2:
			p.AllRows.Accuracy, p.Mean.F1, p.Disagreement = &nan, &inf, nan
		case 3:
			p.Disagreement = inf
		}
	}
	bad.Result.Disagreement = nan
	for i := range bad.Result.Results.Nodes {
		n := &bad.Result.Results.Nodes[i]
		if n.Local.Accuracy = &nan; i%2 == 0 {
			n.Local, n.Federated = learn.Report{}, learn.Report{ROCAUC: &inf}
		}
	}
	bad.Result.Results.AllRows.Local.Accuracy = &inf
	point := threeByFive()[1]
	point.Result.Trace = point.Result.Trace[:1]
	zero := graphs()[:2]
	huge := threeByFive()[:2] // training that blows up
	for i := range huge {
		r := &huge[i].Result
		r.Disagreement = 1e200 * float64(i+1)
		for j := range r.Trace {
			r.Trace[j].Disagreement = math.Pow(10, float64(12*j-290))
		}
		r.Trace[50].Disagreement = math.MaxFloat64 / float64(i+1)
	}
	for name, runs := range map[string][]Run{
		"no result":          {{Result: bare}},
		"no result, settled": {{Label: "a", Result: bare}, {Label: "b", Result: bare}},
		"numbers that are none": {
			bad,
		},
		"some undefined": {bad, {Label: bad.Label, Seed: 9, Result: bare}, threeByFive()[2], {Label: "c", Result: bare}},
		"a point":        {point},
		"zeros":          zero,
		"huge":           huge,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sound(t, write(t, runs))
		})
	}
	rows := table(t, write(t, []Run{bad})["rounds.csv"])
	if rows[1]["accuracy"] != "" || rows[2]["accuracy"] != "" || rows[2]["disagreement"] != "" || rows[3]["disagreement"] != "" || rows[3]["accuracy"] == "" {
		t.Errorf("rows are %v", rows[1:4])
	}
}

func TestStalePlotsGo(t *testing.T) {
	dir := t.TempDir()
	if err := Write(dir, "first", one(), nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "mine.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, "second", []Run{{Label: "x"}}, nil); err != nil {
		t.Fatal(err)
	}
	files := read(t, dir)
	if files["accuracy-rounds.svg"] != nil || files["gain-nodes.png"] != nil {
		t.Error("plots of other runs are left")
	}
	if _, ok := files["mine.txt"]; !ok {
		t.Error("a file of the user's is gone")
	}
}

func TestRefuses(t *testing.T) {
	if err := Write(t.TempDir(), "t", nil, nil); err == nil {
		t.Error("no run makes a report")
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "below")} {
		if err := Write(dir, "t", one(), nil); err == nil {
			t.Errorf("%s was written into", dir)
		}
	}
	if b, _ := os.ReadFile(file); string(b) != "kept" {
		t.Error("the file has changed")
	}
	deep := filepath.Join(t.TempDir(), "a", "b")
	if err := Write(deep, "t", one(), nil); err != nil {
		t.Error(err)
	}
}

func TestFailedWriteLeavesTheOld(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := writeFile(dir, "f", func(w io.Writer) error {
		if _, err := w.Write(make([]byte, 1<<16)); err != nil {
			return err
		}
		return io.ErrClosedPipe
	})
	if err == nil {
		t.Error("the failure is not told")
	}
	if files := read(t, dir); len(files) != 1 || string(files["f"]) != "old" {
		t.Errorf("left are %d files", len(files))
	}
}

// node has these accuracies alone and with the federation; below 0 = undefined.
func node(name string, local, federated float64) task.NodeResult {
	n := task.NodeResult{Name: name}
	if local >= 0 {
		n.Local.Accuracy = &local
	}
	if federated >= 0 {
		n.Federated.Accuracy = &federated
	}
	return n
}

func TestSummarise(t *testing.T) {
	result := func(all float64, nodes ...task.NodeResult) sim.Result {
		r := sim.Result{Done: true, Messages: uint64(1000 * all), Disagreement: all / 10}
		r.Results.Nodes = nodes
		r.Results.AllRows.Federated.Accuracy = &all
		low := all / 2
		r.Results.Worst.Federated.Accuracy = &low
		for range nodes {
			r.Nodes = append(r.Nodes, [32]byte{byte(len(r.Nodes))})
		}
		return r
	}
	list := Summarise([]Run{
		{Label: "a", Seed: 1, Result: result(0.8, node("x", 0.5, 0.7), node("y", 0.9, 0.6), node("z", 0.4, 0.4))},
		{Label: "b", Seed: 1, Result: result(0.5, node("x", 0.5, 0.7))},
		{Label: "a", Seed: 2, Result: result(0.6, node("x", 0.7, 0.8), node("y", -1, 0.6), node("z", 0.6, 0.7))},
		{Label: "a", Seed: 3, Result: sim.Result{Messages: 700, Nodes: result(0, node("x", 0, 0)).Nodes}},
	})
	if len(list) != 2 || list[0].Label != "a" || list[1].Label != "b" {
		t.Fatalf("settings are %v", list)
	}
	a := list[0]
	near := func(what string, s Stat, n int, mean, sd float64) {
		t.Helper()
		if s.N != n || math.Abs(s.Mean-mean) > 1e-12 || math.Abs(s.SD-sd) > 1e-12 {
			t.Errorf("%s is %+v, want %d, %g ± %g", what, s, n, mean, sd)
		}
	}
	near("accuracy", a.AllRows.Federated.Accuracy, 2, 0.7, math.Sqrt(0.02))
	near("accuracy alone", a.AllRows.Local.Accuracy, 0, 0, 0)
	near("worst", a.Worst.Federated.Accuracy, 2, 0.35, math.Sqrt(0.005))
	near("messages", a.Messages, 3, 700, 100)
	if a.Runs != 3 || a.Done != 2 || a.Better != 3 || a.Worse != 1 || a.Equal != 1 || a.Unknown != 2 {
		t.Errorf("counts are %+v", a)
	}
	for _, c := range []struct {
		s    Summary
		want string
	}{
		{a, "Of 5 nodes in 3 runs, 3 do better with the federation's model than alone, 1 does worse, and 1 does the same, by accuracy on the node's own test rows; of 2 more it is unknown."},
		{list[1], "Of 1 node, 1 does better with the federation's model than alone, none does worse, and none does the same, by accuracy on the node's own test rows."},
		{Summary{Runs: 1, Better: 4}, "Of 4 nodes, all do better with the federation's model than alone, none does worse, and none does the same, by accuracy on the node's own test rows."},
		{Summary{Runs: 1, Unknown: 4}, "Whether any node gains is unknown, for none has a result of its own."},
	} {
		if got := c.s.Verdict(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestStatIsMeanAndDeviation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64Range(-1e6, 1e6), 2, 20).Draw(t, "values")
		mean, squares := 0.0, 0.0
		for _, v := range values {
			mean += v / float64(len(values))
		}
		for _, v := range values {
			squares += (v - mean) * (v - mean)
		}
		sd := math.Sqrt(squares / float64(len(values)-1))
		s := statOf(append(slices.Clone(values), math.NaN(), math.Inf(-1)))
		if s.N != len(values) || math.Abs(s.Mean-mean) > 1e-6 || math.Abs(s.SD-sd) > 1e-6*(1+sd) {
			t.Fatalf("%+v, want %g ± %g", s, mean, sd)
		}
	})
}

func TestLineAverages(t *testing.T) {
	run := func(rounds []uint64, accuracy ...float64) Run {
		var r Run
		for i, round := range rounds {
			p := sim.Point{Round: round, Bytes: round * 10}
			if accuracy[i] >= 0 {
				p.AllRows.Accuracy = &accuracy[i]
			}
			r.Result.Trace = append(r.Result.Trace, p)
		}
		return r
	}
	s := setting{runs: []Run{
		run([]uint64{1, 2, 3, 4, 5, 6}, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
		run([]uint64{1, 3, 4, 5, 6, 7}, 0.3, 0.4, -1, 0.7, 0.8, 0.9),
		{}, // without a trace
	}}
	got := s.line(func(p sim.Point) float64 { return float64(p.Bytes) }, func(p sim.Point) *float64 { return p.AllRows.Accuracy }, meanRange)
	want := []segment{{{10, 0.2, 0.1, 0.3}, {30, 0.35, 0.3, 0.4}}, {{50, 0.6, 0.5, 0.7}, {60, 0.7, 0.6, 0.8}}}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if !slices.EqualFunc(got[i], want[i], func(a, b point) bool {
			return a.x == b.x && math.Abs(a.y-b.y) < 1e-12 && a.low == b.low && a.high == b.high
		}) {
			t.Errorf("segment %d is %v, want %v", i, got[i], want[i])
		}
	}
	if round, cut := s.cut(); !cut || round != 6 {
		t.Errorf("cut at %d, %t", round, cut)
	}
}

func TestAxes(t *testing.T) {
	line := func(xs ...float64) []segment {
		var s segment
		for _, x := range xs {
			s = append(s, point{x: x})
		}
		return []segment{s}
	}
	labels := func(a axis) (list []string) {
		for _, t := range a.ticks {
			list = append(list, t.Label)
		}
		return list
	}
	check := func(a axis, title string, want ...string) {
		t.Helper()
		if a.title != title || !slices.Equal(labels(a), want) {
			t.Errorf("the axis is %q %q, want %q %q", a.title, labels(a), title, want)
		}
	}
	check(along(inRounds, [][]segment{line(0, 1000)}), "Round", "0", "200", "400", "600", "800", "1,000")
	check(along(inBytes, [][]segment{line(0, 2.5e6), line(0, 1e6)}), "Sent by all nodes together (MB)", "0", "0.5", "1.0", "1.5", "2.0", "2.5")
	check(along(inTime, [][]segment{line(0, 7200)}), "Virtual time (h)", "0", "0.5", "1.0", "1.5", "2.0")
	far := [][]segment{line(0, 500, 2e6), line(0, 2e4)}
	check(along(inBytes, far), "Sent by all nodes together", "1 kB", "10 kB", "100 kB", "1 MB")
	if len(far[0][0]) != 2 || far[0][0][0].x != math.Log10(500) {
		t.Errorf("the line is %v", far[0])
	}
	check(along(inBytes, [][]segment{nil, {}}), "Sent by all nodes together (B)", "0", "0.2", "0.4", "0.6", "0.8", "1.0")

	a, zero := decades("d", 2e-16, 0.9, true)
	if a.min != zero || zero >= -16 || a.max != 0 {
		t.Errorf("from %g to %g, zero at %g", a.min, a.max, zero)
	}
	check(a, "d", power10(-15), power10(-12), power10(-9), power10(-6), power10(-3), power10(0), "0 (exact)")
	a, _ = decades("d", math.Inf(1), math.Inf(-1), true)
	check(a, "d", "0 (exact)")
	check(share("s", 0.9, 1), "s", "0.90", "0.92", "0.94", "0.96", "0.98", "1.00")
	check(share("s", 0.8, 0.8), "s", "0.796", "0.798", "0.800", "0.802", "0.804")
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Stat{}.Format(figure.Ratio), "–"},
		{Stat{N: 1, Mean: 0.5}.Format(figure.Ratio), "0.500"},
		{Stat{N: 2, Mean: 0.5, SD: 0.0126}.Format(figure.Ratio), "0.500 ± 0.013"},
		{Stat{N: 2, Mean: 18.4e6, SD: 130e3}.Bytes(), "18.4 ± 0.13 MB"},
		{Stat{N: 1}.Bytes(), "0 B"},
		{Stat{N: 1, Mean: 90}.Seconds(), "1.50 min"},
		{Stat{}.Seconds(), "–"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}

func TestLongTableIsCut(t *testing.T) {
	runs := large()
	html := string(write(t, runs)["report.html"])
	// Two lines of head and one that says what is left out.
	nodes := html[strings.Index(html, "<h2>Nodes"):strings.Index(html, "<h2>What was run")]
	if n := strings.Count(nodes, "<tr>"); n != maxNodes+3 {
		t.Errorf("the table of nodes has %d lines", n)
	}
	if !strings.Contains(nodes, "9,800 more nodes in between; nodes.csv has them all") {
		t.Error("it does not say what is left out")
	}
}

// Nodes that did not come to the end are listed, without figures.
func TestNodesWithoutResultAreListed(t *testing.T) {
	runs := one()
	r := &runs[0].Result
	gone := r.Results.Nodes[1]
	r.Results.Nodes = slices.Delete(r.Results.Nodes, 1, 2)
	r.Results.Contributions = []task.Contribution{{PeerID: gone.PeerID, Nation: gone.Nation, Name: gone.Name, TrainRows: gone.TrainRows}}
	files := write(t, runs)
	sound(t, files)
	row := table(t, files["nodes.csv"])[1]
	if row["name"] != gone.Name || row["local_accuracy"] != "" || row["train_rows"] != whole(gone.TrainRows) {
		t.Errorf("its row is %v", row)
	}
	if !bytes.Contains(files["gain-nodes.svg"], []byte(gone.Name)) {
		t.Error("the plot does not name it")
	}
}

func TestPNGHasTwiceThePixels(t *testing.T) {
	img, err := png.DecodeConfig(bytes.NewReader(write(t, one())["accuracy-rounds.png"]))
	if err != nil || img.Width != int(figureWidth.Dots(2*96)) {
		t.Errorf("%d wide, %v", img.Width, err)
	}
}

func TestReplay(t *testing.T) {
	runs := threeByFive()
	runs[7].Real = true
	html := string(write(t, runs)["report.html"])
	for _, want := range []string{">village sim run scenario-1.toml --seed 5<", ">village sim run scenario-2.toml --seed 3 --real<", "of real nodes (--real) has not"} {
		if !strings.Contains(html, want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	if html = string(write(t, one())["report.html"]); !strings.Contains(html, ">village sim run scenario.toml --seed 1<") || strings.Contains(html, "--real") {
		t.Error("the command of a single run is another")
	}
}
