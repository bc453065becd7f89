package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"village/node/home"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"village": main, "hold-lock": holdLock})
}

// holdLock is a process that has a home locked until its input ends.
func holdLock() {
	h, err := home.Load(os.Args[1])
	if err == nil {
		err = h.Lock()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ready", os.Getpid())
	io.Copy(io.Discard, os.Stdin)
}

// TestScripts runs the real program as its users do. Beside the commands that
// testscript has, the scripts know:
//
//	code N CMD...      run CMD and demand the exit code N
//	start NAME CMD...  run CMD until the script ends; wait for the line
//	                   "ready ..." on its output and put the words of it into
//	                   $NAME1, $NAME2, ...
//	term NAME          send it SIGTERM and demand the exit code 0
//	crash NAME         send it SIGKILL and wait for its end
//	until RE CMD...    run CMD until its output matches RE
//	rows FILE N SEED   write a CSV file of N rows that a model can learn from
//	first VAR FILE     put the first word of FILE ("stdout": of the last
//	                   command's output) into $VAR
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			p := processes{}
			e.Values[started{}] = p
			e.Defer(p.end)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": code, "start": start, "term": terminate, "crash": crash, "first": first, "field": field, "until": until, "rows": rows, "alike": alike,
		},
	})
}

func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N CMD...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

// alike holds that a key of two JSON answers has the same value, or the same
// parts where it has parts, as far as both have them.
func alike(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: alike KEY FILE FILE")
	}
	var values [2]any
	for i, file := range args[1:] {
		var answer map[string]any
		ts.Check(json.Unmarshal([]byte(ts.ReadFile(file)), &answer))
		values[i] = answer[args[0]]
	}
	var compare func(path string, a, b any) (shared int)
	compare = func(path string, a, b any) (shared int) {
		x, xOK := a.(map[string]any)
		y, yOK := b.(map[string]any)
		if !xOK || !yOK {
			if a == nil || !reflect.DeepEqual(a, b) {
				ts.Fatalf("%s is %v in %s and %v in %s", path, a, args[1], b, args[2])
			}
			return 1
		}
		for key := range x {
			if _, ok := y[key]; ok {
				shared += compare(path+"."+key, x[key], y[key])
			}
		}
		return shared
	}
	if compare(args[0], values[0], values[1]) == 0 {
		ts.Fatalf("%s has no part in common in %s and %s", args[0], args[1], args[2])
	}
}

func first(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: first VAR FILE")
	}
	words := strings.Fields(ts.ReadFile(args[1]))
	if len(words) == 0 {
		ts.Fatalf("%s is empty", args[1])
	}
	ts.Setenv(args[0], words[0])
}

// field puts a string of the last object of a file of JSON lines into a variable.
func field(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: field KEY VAR FILE")
	}
	lines := strings.Split(strings.TrimSpace(ts.ReadFile(args[2])), "\n")
	var answer map[string]any
	ts.Check(json.Unmarshal([]byte(lines[len(lines)-1]), &answer))
	value, ok := answer[args[0]].(string)
	if !ok || value == "" {
		ts.Fatalf("no string %s in %s", args[0], lines[len(lines)-1])
	}
	ts.Setenv(args[1], value)
}

func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until RE CMD...")
	}
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for deadline := time.Now().Add(20 * time.Second); ; {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && re.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("no output matched %q: %v", args[0], err)
		}
		time.Sleep(20 * time.Millisecond) // between two looks at another process
	}
}

func rows(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: rows FILE N SEED")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	seed, err := strconv.ParseUint(args[2], 10, 64)
	ts.Check(err)
	r := rand.New(rand.NewPCG(seed, 0))
	var b strings.Builder
	b.WriteString("age,pressure,sex,ill\n")
	for range n {
		age, pressure, sex := 30+50*r.Float64(), 90+80*r.Float64(), []string{"f", "m"}[r.IntN(2)]
		ill := "no"
		if age+pressure/2+20*r.NormFloat64() > 120 {
			ill = "yes"
		}
		fmt.Fprintf(&b, "%.2f,%.1f,%s,%s\n", age, pressure, sex, ill)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(b.String()), 0o600))
}

// processes are those that a script has started and not stopped.
type processes map[string]*process

// started is the key under which a script has its processes.
type started struct{}

type process struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	stderr lockedBuffer
	drain  chan struct{} // closed when its output has ended
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (p processes) end() {
	for _, r := range p {
		r.cmd.Process.Kill()
		r.wait()
	}
}

func (r *process) wait() error {
	r.stdin.Close()
	<-r.drain
	return r.cmd.Wait()
}

func start(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: start NAME CMD...")
	}
	path, err := exec.LookPath(args[1])
	ts.Check(err)
	r := &process{cmd: exec.Command(path, args[2:]...), drain: make(chan struct{})}
	r.cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "VILLAGE_HOME", "XDG_RUNTIME_DIR"} {
		if v := ts.Getenv(name); v != "" {
			r.cmd.Env = append(r.cmd.Env, name+"="+v)
		}
	}
	r.cmd.Stderr = &r.stderr
	r.stdin, err = r.cmd.StdinPipe()
	ts.Check(err)
	stdout, err := r.cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(r.cmd.Start())
	hangs := time.AfterFunc(patience, func() { r.cmd.Process.Kill() })
	out := bufio.NewReader(stdout)
	line, err := out.ReadString('\n')
	hangs.Stop()
	go func() {
		io.Copy(io.Discard, out)
		close(r.drain)
	}()
	words := strings.Fields(line)
	if err != nil || len(words) == 0 || words[0] != "ready" {
		r.wait()
		ts.Fatalf("%s is not ready: %q %v\n%s", args[0], line, err, r.stderr.b.String())
	}
	for i, w := range words[1:] {
		ts.Setenv(fmt.Sprintf("%s%d", args[0], i+1), w)
	}
	ts.Value(started{}).(processes)[args[0]] = r
}

// finish ends a started process with a signal.
func finish(ts *testscript.TestScript, args []string, signal os.Signal) error {
	p := ts.Value(started{}).(processes)
	if len(args) != 1 || p[args[0]] == nil {
		ts.Fatalf("usage: term|crash NAME, of a process that runs")
	}
	r := p[args[0]]
	delete(p, args[0])
	ts.Check(r.cmd.Process.Signal(signal))
	hangs := time.AfterFunc(patience, func() { r.cmd.Process.Kill() })
	err := r.wait()
	hangs.Stop()
	ts.Logf("%s wrote:\n%s", args[0], r.stderr.b.String())
	return err
}

func terminate(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(finish(ts, args, syscall.SIGTERM))
}

func crash(ts *testscript.TestScript, _ bool, args []string) {
	finish(ts, args, syscall.SIGKILL)
}

// golden compares got with a file, which -update writes.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s has changed. The command line is a contract: commands, flags and keys are only ever added.\nIf that is so, run the test with -update. Got\n%s", path, got)
	}
}
