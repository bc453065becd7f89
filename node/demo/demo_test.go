package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"village/node/api"
	"village/node/datasets"
	"village/node/home"
)

// program is the real program, which the demo runs again for its daemons.
var program string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "demo")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "village")
		build := exec.Command("go", "build", "-o", program, "village/cmd/village")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			panic(err)
		}
		return m.Run()
	}())
}

// command is a run of the program, whose temporary files go to a directory of
// their own, and which a hanging test does not outlive.
func command(t *testing.T, args ...string) (cmd *exec.Cmd, temp string) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs daemons")
	}
	// Short, so that the daemons' sockets fit into their homes.
	temp, err := os.MkdirTemp("", "d")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(temp) })
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	cmd = exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+temp, "XDG_RUNTIME_DIR="+temp)
	return cmd, temp
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("%s: %v, %v", dir, entries, err)
	}
}

// The figures that a federation of these hospitals reaches on the fixed split,
// and what a home that was kept holds.
func TestDemo(t *testing.T) {
	t.Parallel()
	cmd, temp := command(t, "demo", "--json", "--keep", "--dir", "kept")
	cmd.Dir = temp
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &errs)
	}
	var res Result
	lines := json.NewDecoder(bytes.NewReader(out))
	lines.DisallowUnknownFields()
	if err := lines.Decode(&res); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var raw map[string]json.RawMessage
	var nodes []map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(out, &raw), json.Unmarshal(raw["nodes"], &nodes)); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"schema", "nodes", "all_rows", "mean_of_nodes", "prediction_differences", "test_rows", "rounds",
		"bytes_sent", "elapsed_seconds", "recomputed", "task", "model_cid", "federation", "citation", "dir"} {
		if raw[k] == nil {
			t.Errorf("no %q in %s", k, out)
		}
	}
	for _, k := range []string{"nation", "name", "peer_id", "pid", "rows", "train_rows", "test_rows", "model_cid", "bytes_sent",
		"state", "rounds", "in_model", "why", "local", "federated", "pooled"} {
		if nodes[0][k] == nil {
			t.Errorf("no %q in the nodes of %s", k, out)
		}
	}
	if lines.More() {
		t.Errorf("more than one object: %s", out)
	}
	if strings.Contains(errs.String(), "\x1b") {
		t.Errorf("what is no terminal is steered as one: %q", &errs)
	}

	if !res.Recomputed || res.Story != nil {
		t.Errorf("%+v", res)
	}
	if res.Schema != "village.demo/v1" || res.Rounds != 100 || res.TestRows != 254 || !strings.Contains(res.Citation, "10.24432/C52P4X") {
		t.Errorf("%+v", res)
	}
	if res.Differences > 4 {
		t.Errorf("%d of %d predictions differ from the pooled model", res.Differences, res.TestRows)
	}
	within := func(what string, got *float64, low, high float64) {
		t.Helper()
		if got == nil || !(*got >= low && *got <= high) {
			t.Errorf("%s is %v, not within %g and %g", what, short(got), low, high)
		}
	}
	within("accuracy of all rows", res.AllRows.Federated.Accuracy, .785, .81)
	within("ROC-AUC of all rows", res.AllRows.Federated.ROCAUC, .875, .89)
	within("F1 of all rows", res.AllRows.Federated.F1, .79, .82)
	within("mean accuracy", res.Mean.Federated.Accuracy, .785, .81)
	// scikit-learn on the pool: .795, .802, .881; mean accuracy .803.
	within("pooled accuracy", res.AllRows.Pooled.Accuracy, .785, .805)
	within("pooled F1", res.AllRows.Pooled.F1, .792, .812)
	within("pooled ROC-AUC", res.AllRows.Pooled.ROCAUC, .878, .884)
	within("pooled mean accuracy", res.Mean.Pooled.Accuracy, .793, .813)
	within("local accuracy", res.AllRows.Local.Accuracy, .7, .78)

	want := []struct {
		nation, name string
		train, test  uint64
	}{{"USA", "cleveland", 199, 104}, {"HUN", "budapest", 172, 89}, {"CHE", "zurich", 30, 16}, {"USA", "long-beach", 85, 45}}
	if len(res.Nodes) != len(want) {
		t.Fatalf("%d nodes", len(res.Nodes))
	}
	var sent, mean float64
	for i, n := range res.Nodes {
		w := want[i]
		if n.Nation != w.nation || n.Name != w.name || n.TrainRows != w.train || n.TestRows != w.test || n.Rows != w.train+w.test {
			t.Errorf("node %d: %+v", i, n)
		}
		if n.ModelCID == nil || !n.ModelCID.Defined() || *n.ModelCID != res.ModelCID {
			t.Errorf("%s has the model %s, not %s", n.Name, n.ModelCID, res.ModelCID)
		}
		if n.State != Contributed || n.Rounds != 100 || !n.InModel || n.Why == "" {
			t.Errorf("%s: %+v", n.Name, n)
		}
		if n.PID == 0 || n.BytesSent == 0 || n.Local.Accuracy == nil || n.Federated.ROCAUC == nil || n.Pooled.F1 == nil {
			t.Errorf("node %d: %+v", i, n)
		}
		sent += float64(n.BytesSent)
		mean += *n.Federated.Accuracy / 4
	}
	if float64(res.BytesSent) != sent {
		t.Errorf("%d bytes sent, not the sum %g", res.BytesSent, sent)
	}
	within("the mean of the nodes", res.Mean.Federated.Accuracy, mean-1e-12, mean+1e-12)

	// Rows are only in their own hospital's home.
	hospitals, err := hospitals()
	if err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(temp, "kept")
	content := map[string][]byte{}
	for _, h := range hospitals {
		content[h.name] = read(t, filepath.Join(kept, h.name))
		if bytes.Contains(content[h.name], []byte("cleveland,")) {
			t.Errorf("%s has the table of all", h.name)
		}
	}
	for _, owner := range hospitals {
		canaries := canaries(owner, hospitals)
		if len(canaries) < len(owner.rows.Rows)*9/10 {
			t.Fatalf("%d of the %d rows of %s are distinctive", len(canaries), len(owner.rows.Rows), owner.name)
		}
		for _, holder := range hospitals {
			found := 0
			for _, c := range canaries {
				if bytes.Contains(content[holder.name], []byte(c)) {
					found++
				}
			}
			if holder == owner && found != len(canaries) || holder != owner && found > 0 {
				t.Errorf("%s holds %d of %d rows of %s", holder.name, found, len(canaries), owner.name)
			}
		}
	}

	// The homes start again, find each other and know the model.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, h := range hospitals {
		dir := filepath.Join(kept, h.name)
		if h.daemon, err = start(ctx, program, h.name, dir, func(err error) { t.Error(err) }); err != nil {
			t.Fatal(err)
		}
		<-h.daemon.ready
		if h.client, err = api.Dial(dir); err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		cancel()
		if err := stop(hospitals); err != nil {
			t.Error(err)
		}
	}()
	for _, h := range hospitals {
		if err := until(ctx, func() (bool, error) {
			s, err := api.GetStatus.Ask(ctx, h.client, api.None{})
			return s.Peers == 3, err
		}); err != nil {
			t.Fatalf("%s: %v", h.name, err)
		}
		report, err := api.ReportModel.Ask(ctx, h.client, res.ModelCID)
		if err != nil || *report.AllRows.Federated.Accuracy != *res.AllRows.Federated.Accuracy {
			t.Errorf("%s: %+v, %v", h.name, report, err)
		}
		s, err := api.ListMembers.Ask(ctx, h.client, api.None{})
		if err != nil || !s.Closed || len(s.Members) < 3 {
			t.Errorf("%s: %+v, %v", h.name, s, err)
		}
	}
}

// canaries are the rows of a hospital, as CSV, of which no other hospital has
// the like.
func canaries(owner *hospital, all []*hospital) (lines []string) {
	line := func(row []string) string { return "," + strings.Join(row[1:len(row)-1], ",") + "," }
	others := map[string]bool{}
	for _, h := range all {
		for _, row := range h.rows.Rows {
			if h != owner {
				others[line(row)] = true
			}
		}
	}
	for _, row := range owner.rows.Rows {
		if !others[line(row)] {
			lines = append(lines, line(row))
		}
	}
	return lines
}

// storeFormat is how the store marks its database.
const storeFormat = 0x5601

// rowsForm begins rows as a home keeps them.
const rowsForm = "\xffrows\x01"

// read returns all that a home holds: every version of every value in its
// store, which compresses them, rows also as lines, and its files as they are.
func read(t *testing.T, dir string) (all []byte) {
	t.Helper()
	db, err := badger.Open(badger.DefaultOptions(filepath.Join(dir, "store")).WithLogger(nil).WithExternalMagic(storeFormat))
	if err != nil {
		t.Fatal(err)
	}
	o := badger.DefaultIteratorOptions
	o.AllVersions = true
	err = db.View(func(txn *badger.Txn) error {
		values := txn.NewIterator(o)
		defer values.Close()
		for values.Rewind(); values.Valid(); values.Next() {
			err := values.Item().Value(func(v []byte) error {
				all = append(all, v...)
				_, rows, ok := bytes.Cut(v, []byte(rowsForm))
				if !ok {
					return nil
				}
				table, err := datasets.DecodeRows(append([]byte(rowsForm), rows...))
				for _, row := range table.Rows {
					all = append(all, strings.Join(row, ",")+"\n"...)
				}
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all = append(all, b...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// What people see, and that nothing is left behind.
func TestDemoForPeople(t *testing.T) {
	t.Parallel()
	cmd, temp := command(t, "demo")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &errs)
	}
	for _, want := range []string{
		`(?m)^USA cleveland +199/104 ( +[.1]\d\d+){9} +[\d.]+ kB$`,
		`(?m)^CHE zurich +30/16 ( +[.1]\d\d+){9} `,
		`(?m)^all rows +486/254 ( +\.\d{3}){9} `,
		`(?m)^mean of nodes ( +\.\d{3}){9}$`,
		`(?m)^[0-4] of 254 test predictions differ`,
		`(?m)^weighted avg `,
		`(?m)^data: Janosi, A\., Steinbrunn, W\., Pfisterer, M\. and Detrano, R\. .*10\.24432/C52P4X\. CC BY 4\.0$`,
	} {
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
	for _, want := range []string{"starting", "lists 4 of 4 datasets", "joined", "training, round 50 of 100", "done, round 100 of 100"} {
		if !strings.Contains(errs.String(), want) {
			t.Errorf("no %q in\n%s", want, &errs)
		}
	}
	wantEmpty(t, temp)
}

// However a run is broken off, no daemon survives it.
func TestBrokenOff(t *testing.T) {
	t.Parallel()
	demo := func(demo *os.Process, _ int) int { return demo.Pid }
	daemon := func(_ *os.Process, daemon int) int { return daemon }
	for _, k := range []struct {
		name   string
		signal syscall.Signal
		to     func(demo *os.Process, daemon int) int
		code   int // -1: ended by the signal
		says   string
	}{
		{"interrupted", syscall.SIGINT, demo, api.CodeInterrupted, "interrupted"},
		{"terminated", syscall.SIGTERM, demo, api.CodeInterrupted, "interrupted"},
		{"a daemon is lost", syscall.SIGKILL, daemon, api.CodeFailed, "the daemon of budapest ended (signal: killed)"},
		{"killed", syscall.SIGKILL, demo, -1, ""},
	} {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			if k.code < 0 && runtime.GOOS != "linux" {
				t.Skip("this system does not tell children of their parent's death")
			}
			cmd, temp := command(t, "demo", "--json")
			var out bytes.Buffer
			cmd.Stdout = &out
			errs, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			said := bufio.NewReader(errs)
			for line := ""; !strings.Contains(line, "proposes"); {
				if line, err = said.ReadString('\n'); err != nil {
					t.Fatal(err)
				}
			}
			// Opened here, a home can be looked at when it is gone from its place.
			var locks []*os.File
			pids := map[string]int{}
			for _, name := range []string{"cleveland", "budapest", "zurich", "long-beach"} {
				paths, err := filepath.Glob(filepath.Join(temp, "village-demo-*", name, "lock"))
				if err != nil || len(paths) != 1 {
					t.Fatal(paths, err)
				}
				lock, err := os.Open(paths[0])
				if err != nil {
					t.Fatal(err)
				}
				defer lock.Close()
				b, err := io.ReadAll(lock)
				if err != nil {
					t.Fatal(err)
				}
				if pids[name], err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
					t.Fatal(err)
				}
				if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
					t.Fatalf("%s does not run: %v", name, err)
				}
				locks = append(locks, lock)
			}
			if err := syscall.Kill(k.to(cmd.Process, pids["budapest"]), k.signal); err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(said)
			if err != nil {
				t.Fatal(err)
			}
			cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != k.code || out.Len() > 0 {
				t.Errorf("exit code %d, output %q, want %d and none; said %s", code, &out, k.code, rest)
			}
			// A lock that is free belonged to a process that is gone. The demo
			// waits for its daemons; where it cannot, the kernel needs a moment.
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for i, lock := range locks {
				err := until(ctx, func() (bool, error) {
					err := syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
					if k.code < 0 && errors.Is(err, syscall.EWOULDBLOCK) {
						return false, nil
					}
					return true, err
				})
				if err != nil {
					t.Errorf("daemon %d is still there: %v", i, err)
				}
			}
			if k.code < 0 {
				return
			}
			lines := strings.Split(strings.TrimSpace(string(rest)), "\n")
			var e api.Error
			if err := json.Unmarshal([]byte(lines[len(lines)-1]), &e); err != nil || e.Code != k.code || !strings.Contains(e.Message, k.says) {
				t.Errorf("%v: %s", err, rest)
			}
			wantEmpty(t, temp)
		})
	}
}

// Another's files are left alone.
func TestDirInUse(t *testing.T) {
	t.Parallel()
	cmd, temp := command(t, "demo", "--dir", ".")
	cmd.Dir = temp
	mine := filepath.Join(temp, "mine")
	if err := os.WriteFile(mine, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != api.CodeFailed || !bytes.Contains(out, []byte(`holds other files, such as "mine"`)) {
		t.Errorf("%v: %s", err, out)
	}
	entries, err := os.ReadDir(temp)
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

// A daemon that cannot start says why.
func TestDaemonThatFails(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs daemons")
	}
	dir := t.TempDir()
	h, err := home.Init(dir, home.Options{Nation: "HUN", Name: "x", Listen: []string{"/ip4/192.0.2.1/tcp/1"}, NoMDNS: true})
	if err != nil {
		t.Fatal(err)
	}
	lost := make(chan error, 1)
	d, err := start(t.Context(), program, "budapest", h.Dir, func(err error) { lost <- err })
	if err != nil {
		t.Fatal(err)
	}
	err = <-lost
	if !strings.Contains(err.Error(), "the daemon of budapest ended (exit status 1); its last words: ") || !strings.Contains(err.Error(), "192.0.2.1") {
		t.Error(err)
	}
	if err := stop([]*hospital{{daemon: d}}); err == nil {
		t.Error("stop forgets it")
	}
}

// On a terminal the table is redrawn in its place, and no line wraps.
func TestTerminal(t *testing.T) {
	var b bytes.Buffer
	p := newProgress(&b, []*hospital{{nation: "HUN", name: "budapest"}, {nation: "CHE", name: "zurich"}})
	p.width = 30
	p.say("training")
	p.task(1, api.ShownTask{TaskSummary: api.TaskSummary{Joined: true, Stage: "training", Round: 3, Rounds: 100}})
	p.set(0, "–") // no change
	p.end()
	want := "\r\x1b[2Ktraining\n\r\x1b[2K  HUN budapest      0 rows  –\n\r\x1b[2K  CHE zurich        0 rows  –\n" +
		"\x1b[3A" + "\r\x1b[2Ktraining\n\r\x1b[2K  HUN budapest      0 rows  –\n\r\x1b[2K  CHE zurich        0 rows  t\n\n"
	if b.String() != want {
		t.Errorf("%q", b.String())
	}
}

func TestShort(t *testing.T) {
	x := func(v float64) *float64 { return &v }
	for want, v := range map[string]*float64{"–": nil, ".795": x(.7949), "1.00": x(1), ".000": x(0), ".999": x(.9994)} {
		if got := short(v); got != want {
			t.Errorf("%s, not %s", got, want)
		}
	}
}
