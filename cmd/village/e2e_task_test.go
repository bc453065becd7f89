package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"village/node/api"
	"village/protocol/task"
)

// TestDatasetShowsOnTheOther: what one node adds, another one lists.
func TestDatasetShowsOnTheOther(t *testing.T) {
	t.Parallel()
	s := federation(t, "budapest", "zurich")
	connect(s...)
	begun := time.Now()
	cid := s[0].add("ward", patients(t, 1, 60), "--target", "sick", "--domain", "health", "--licence", "CC-BY-4.0")
	s[1].sees(cid)
	t.Logf("the manifest took %v to the other node", time.Since(begun).Round(time.Millisecond))

	var here, there api.ShownDataset
	s[0].json(&here, "dataset", "show", cid)
	s[1].json(&there, "dataset", "show", cid)
	if !here.Mine || there.Mine || there.PeerID.String() != s[0].id {
		t.Errorf("mine here %v, there %v; of %s", here.Mine, there.Mine, there.PeerID)
	}
	there.Mine = true
	if !reflect.DeepEqual(here, there) {
		t.Errorf("the owner shows %+v,\nthe other %+v", here, there)
	}
	if want := []string{"age", "pressure, systolic", "sex"}; !reflect.DeepEqual(there.Features, want) || there.Rows != 60 {
		t.Errorf("%d rows, features %q", there.Rows, there.Features)
	}
	if sex := there.Columns[2]; !reflect.DeepEqual(sex.Levels, []string{"female", `male, "m"`}) {
		t.Errorf("levels %q", sex.Levels)
	}
	if table := s[1].ok("dataset", "list", "--domain", "health"); !strings.Contains(table, cid) {
		t.Errorf("the list lacks %s:\n%s", cid, table)
	}
	if table := s[1].ok("dataset", "list", "--mine"); strings.Contains(table, cid) {
		t.Errorf("not its own, but listed so:\n%s", table)
	}
	unharmed(t, s...)
}

// TestTaskOverThreeNodes: unequal nodes end with one model and one report, and
// the model can be used.
func TestTaskOverThreeNodes(t *testing.T) {
	t.Parallel()
	s := federation(t, "budapest", "zurich", "cleveland")
	connect(s...)
	rows := patients(t, 1, 40)
	datasets := []string{
		s[0].add("ward", rows, "--target", "sick"),
		s[1].add("ward", patients(t, 2, 150), "--target", "sick"),
		s[2].add("ward", patients(t, 3, 700), "--target", "sick"),
	}
	s[0].sees(datasets...)
	id := s[0].propose(s, "--target", "sick", "--rounds", "20")
	for _, site := range s {
		site.join(id)
	}
	cid := model(t, id, s...)
	unharmed(t, s...)

	var report api.Report
	for i, site := range s {
		var r api.Report
		site.json(&r, "model", "report", cid)
		if i == 0 {
			report = r
		} else if !reflect.DeepEqual(r, report) {
			t.Errorf("%s reports %+v,\n%s %+v", s[0].home, report, site.home, r)
		}
		var shown api.ShownModel
		site.json(&shown, "model", "show", cid)
		if len(shown.Weight) != 1 || len(shown.Weight[0]) != 3 || len(shown.Columns) != 3 {
			t.Errorf("weights %v of columns %q", shown.Weight, shown.Columns)
		}
	}
	if !report.Report.Defined() || len(report.Missing) != 0 || len(report.Nodes) != 3 || report.Rounds != 20 {
		t.Fatalf("report %s, missing %v, %d nodes, %d rounds", report.Report, report.Missing, len(report.Nodes), report.Rounds)
	}
	total := uint64(0)
	for _, n := range report.Nodes {
		total += n.TrainRows + n.TestRows
		if n.Federated.Accuracy == nil || n.Local.ROCAUC == nil {
			t.Errorf("%s: no figures", n.Name)
		}
	}
	if total != 40+150+700 {
		t.Errorf("%d rows in the report", total)
	}
	if auc := report.AllRows.Federated.ROCAUC; auc == nil || *auc < 0.8 {
		t.Errorf("ROC-AUC over all rows is %v; the rows hold more", auc)
	}
	if table := s[2].ok("model", "report", cid); !strings.Contains(table, "local only") || !strings.Contains(table, "HUN zurich") {
		t.Errorf("report\n%s", table)
	}

	// The artifact is the same file everywhere, and holds what it says.
	var bytesOf [][]byte
	for _, site := range s {
		out := filepath.Join(t.TempDir(), "model.safetensors")
		var v api.Exported
		site.json(&v, "model", "export", cid, "--out", out)
		b, err := os.ReadFile(out)
		if err != nil || v.Path != out || v.Bytes != uint64(len(b)) || v.CID.String() != cid {
			t.Fatalf("%+v: %d bytes, %v", v, len(b), err)
		}
		bytesOf = append(bytesOf, b)
		site.refused(1, []string{out, "exists"}, "model", "export", cid, "--out", out)
		if again, err := os.ReadFile(out); err != nil || !bytes.Equal(again, b) {
			t.Errorf("a refused export has changed the file: %v", err)
		}
	}
	for _, b := range bytesOf[1:] {
		if !bytes.Equal(b, bytesOf[0]) {
			t.Error("one CID, but other bytes")
		}
	}
	var models api.Models
	s[1].json(&models, "model", "list")
	if len(models.Models) != 1 || models.Models[0].Bytes != uint64(len(bytesOf[0])) {
		t.Errorf("the list says %+v of %d bytes", models.Models, len(bytesOf[0]))
	}
	m, err := task.UnmarshalModel(bytesOf[0])
	if err != nil {
		t.Fatal(err)
	}
	weights := map[string]uint64{}
	for _, p := range m.Parts {
		weights[p.Node.String()] = p.Weight
	}
	for _, n := range report.Nodes {
		if weights[n.PeerID.String()] != n.TrainRows {
			t.Errorf("%s weighs %d with %d rows", n.Name, weights[n.PeerID.String()], n.TrainRows)
		}
	}

	// Predictions of raw rows, as JSON and as a CSV file.
	var p api.Predictions
	s[1].json(&p, "model", "predict", cid, "--in", rows)
	if len(p.Predictions) != 40 || len(p.Probabilities) != 40 || !reflect.DeepEqual(p.Classes, []string{"no", "yes"}) {
		t.Fatalf("%d predictions of classes %q", len(p.Predictions), p.Classes)
	}
	out := filepath.Join(t.TempDir(), "predictions.csv")
	s[2].ok("model", "predict", cid, "--in", rows, "--out", out)
	s[2].refused(1, []string{"exists"}, "model", "predict", cid, "--in", rows, "--out", out)
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(bytes.NewReader(b)).ReadAll()
	if err != nil || len(lines) != 41 {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	for i, line := range lines[1:] {
		if line[0] != p.Predictions[i] {
			t.Errorf("row %d: one node predicts %s, another %s", i+1, p.Predictions[i], line[0])
		}
	}
	if printed := s[2].ok("model", "predict", cid, "--in", rows); printed != string(b) {
		t.Error("standard output and --out differ")
	}
	s[0].refused(1, []string{"age", "pressure, systolic"}, "model", "predict", cid, "--in", file(t, "sex\nfemale\n"))
}

// TestSoftmax: more than two classes train too, beside a column that says
// nothing.
func TestSoftmax(t *testing.T) {
	t.Parallel()
	s := federation(t, "budapest")[0]
	var b strings.Builder
	b.WriteString("a,b,same,class\n")
	for i := range 150 {
		class := i % 3
		b.WriteString(strings.Join([]string{
			[]string{"1", "5", "9"}[class] + "." + string(rune('0'+i%10)),
			[]string{"7", "2", "7"}[class] + "." + string(rune('0'+i/15)),
			"3", []string{"red", "green", "blue"}[class],
		}, ",") + "\n")
	}
	s.add("colours", file(t, b.String()), "--target", "class")
	id := s.propose([]*site{s}, "--target", "class", "--rounds", "30")
	s.join(id)
	cid := model(t, id, s)
	var r api.Report
	s.json(&r, "model", "report", cid)
	if a := r.AllRows.Federated.Accuracy; a == nil || *a < 0.99 {
		t.Errorf("accuracy %v on classes that a line parts", a)
	}
	if len(r.AllRows.Federated.Classes) != 3 {
		t.Errorf("%d classes", len(r.AllRows.Federated.Classes))
	}
	unharmed(t, s)
}

// TestBackAfterAll: a node that was down while the others published and
// enrolled has it all when it is back, and the task, which had no quorum without
// it, runs to its end.
func TestBackAfterAll(t *testing.T) {
	t.Parallel()
	s := federation(t, "budapest", "zurich", "cleveland")
	connect(s...)
	late := s[2]
	lateRows := late.add("ward", patients(t, 3, 60), "--target", "sick")
	s[0].sees(lateRows)
	if code := late.end(syscall.SIGTERM); code != 0 {
		t.Fatalf("exit code %d", code)
	}

	missed := []string{
		s[0].add("ward", patients(t, 1, 50), "--target", "sick"),
		s[1].add("ward", patients(t, 2, 80), "--target", "sick"),
	}
	s[1].sees(missed[0])
	s[0].sees(missed[1])
	id := s[1].propose([]*site{s[0], late}, "--target", "sick", "--rounds", "10")
	s[0].join(id)
	for _, site := range s[:2] {
		v := site.follow(id, func(v api.ShownTask) bool { return len(v.WaitingFor) == 1 })
		if v.Stage != api.StageEnrolling || v.WaitingFor[0].String() != late.id {
			t.Errorf("stage %s, waiting for %s, not for the node that is down", v.Stage, v.WaitingFor)
		}
		// It is down and has not enrolled, but its manifest is here.
		for _, command := range [][]string{{"status"}, {"task", "list"}, {"task", "show", id}} {
			if text := site.ok(command...); !strings.Contains(text, "enrolling, waiting for HUN cleveland") {
				t.Errorf("%s does not call the node that is down by its name\n%s", command, text)
			}
		}
	}
	if v := s[1].status(); len(v.Tasks) != 1 || len(v.Tasks[0].WaitingFor) != 1 || v.Tasks[0].WaitingFor[0].String() != late.id {
		t.Errorf("the status does not say for whom the task waits: %+v", v.Tasks)
	}

	late.start()
	late.sees(append(missed, lateRows)...)
	late.hears(id)
	late.follow(id, func(v api.ShownTask) bool { return nodeOf(v, s[0]).Enrolled })
	late.join(id)
	model(t, id, s...)
	unharmed(t, s...)
}

// TestProposerIsNotNeeded: a proposer that takes no part may die as soon as the
// task is proposed.
func TestProposerIsNotNeeded(t *testing.T) {
	t.Parallel()
	s := federation(t, "budapest", "zurich", "cleveland", "bern")
	connect(s...)
	proposer, trainers := s[3], s[:3]
	var datasets []string
	for i, site := range trainers {
		datasets = append(datasets, site.add("ward", patients(t, uint64(i), 50+30*i), "--target", "sick"))
	}
	proposer.sees(datasets...)
	id := proposer.propose(trainers, "--target", "sick", "--rounds", "15")
	proposer.kill()
	for _, site := range trainers {
		site.join(id)
	}
	model(t, id, trainers...)
	unharmed(t, trainers...)
}

// TestKilledWhileTraining: kill -9 of one node, and then of all at once, delays
// a task and changes nothing.
func TestKilledWhileTraining(t *testing.T) {
	t.Parallel()
	const rounds = 400
	s := federation(t, "budapest", "zurich", "cleveland")
	connect(s...)
	var datasets []string
	for i, site := range s {
		datasets = append(datasets, site.add("ward", patients(t, uint64(i), 50+30*i), "--target", "sick"))
	}
	s[0].sees(datasets...)
	id := s[0].propose(s, "--target", "sick", "--rounds", "400")
	for _, site := range s {
		site.join(id)
	}
	unfinished := func(sites ...*site) {
		t.Helper()
		for _, site := range sites {
			if v := site.follow(id, func(api.ShownTask) bool { return true }); v.Round >= rounds {
				t.Fatalf("%s was too fast to be killed in the middle", site.home)
			}
		}
	}

	s[1].round(id, 40)
	s[1].kill()
	unfinished(s[0], s[2])
	s[1].refused(12, []string{"not running"}, "status")
	s[1].start()
	s[1].round(id, 120)

	for _, site := range s {
		site.process.Process.Signal(syscall.SIGKILL)
	}
	for _, site := range s {
		site.kill()
	}
	s[0].start()
	s[1].start()
	unfinished(s[0], s[1])
	s[2].start()
	cid := model(t, id, s...)
	var r api.Report
	s[2].json(&r, "model", "report", cid)
	if r.Rounds != rounds || len(r.Missing) != 0 {
		t.Errorf("%d rounds, missing %v", r.Rounds, r.Missing)
	}
	unharmed(t, s...) // nobody has signed two updates for one round
}

// TestStop: SIGTERM ends a daemon cleanly, and the next one goes on.
func TestStop(t *testing.T) {
	t.Parallel()
	s := federation(t, "budapest")[0]
	cid := s.add("ward", patients(t, 1, 60), "--target", "sick")
	socket, err := os.ReadFile(filepath.Join(s.home, api.AddressFile))
	if err != nil {
		t.Fatal(err)
	}
	// One who watches must not hold it up.
	id := s.propose([]*site{s}, "--target", "sick")
	watching, watched := make(chan struct{}), make(chan error, 1)
	client := s.client()
	var shown api.ShownTask
	s.json(&shown, "task", "show", id)
	go func() {
		watched <- client.WatchTask(s.ctx, shown.CID, func(api.ShownTask) error {
			close(watching)
			return nil
		})
	}()
	select {
	case <-watching:
	case err := <-watched:
		t.Fatalf("watching: %v", err)
	}
	begun := time.Now()
	if code := s.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	t.Logf("stopped within %v", time.Since(begun).Round(time.Millisecond))
	if err := <-watched; err == nil {
		t.Error("the watcher thinks that the task is done")
	}
	for _, path := range []string{filepath.Join(s.home, api.AddressFile), strings.TrimSpace(string(socket))} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is left behind: %v", path, err)
		}
	}
	s.refused(12, []string{"not running"}, "status")
	s.start()
	s.sees(cid)
	s.join(id)
	model(t, id, s)

	raw := map[string]json.RawMessage{}
	s.json(&raw, "status")
	for _, key := range []string{
		"federation", "closed", "peers", "tasks", "store_bytes", "free_bytes", "messages_dropped", "messages_refused", "last_error", "uptime_seconds",
	} {
		if _, ok := raw[key]; !ok {
			t.Errorf("the status lacks %q", key)
		}
	}
}
