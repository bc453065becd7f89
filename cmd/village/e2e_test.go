package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"village/node/api"
	"village/protocol/record"
)

// patience is how long a test waits for what other processes are to bring
// about. It is met in a small part of this unless something is broken.
const patience = 90 * time.Second

// site is a home and, while it runs, its daemon, a process of its own.
type site struct {
	t       *testing.T
	home    string
	id      string // peer ID
	address string // of the daemon
	log     string // file with all that its daemons wrote to stderr
	process *exec.Cmd
	ended   chan struct{}   // closed when the process has ended
	ctx     context.Context // bounds what is asked of the daemons in all of the test
}

// federation makes homes that know the federation's name and nothing of each
// other, and starts their daemons.
func federation(t *testing.T, names ...string) []*site {
	t.Helper()
	sites := make([]*site, len(names))
	for i, name := range names {
		sites[i] = newSite(t, t.TempDir(), federationOf(t), name)
		sites[i].start()
	}
	return sites
}

// federationOf is the name of a test's federation.
func federationOf(t *testing.T) string {
	return strings.NewReplacer("/", "-", "=", "-", " ", "-").Replace(t.Name())
}

// newSite makes a home in dir. Its port stays the same over restarts.
func newSite(t *testing.T, dir, federation, name string) *site {
	t.Helper()
	if testing.Short() {
		t.Skip("runs daemons")
	}
	s := &site{t: t, home: filepath.Join(dir, name), log: filepath.Join(t.TempDir(), name+".log")}
	var cancel context.CancelFunc
	s.ctx, cancel = context.WithTimeout(context.Background(), 2*patience)
	t.Cleanup(cancel)
	var v api.Init
	s.json(&v, "init", "--nation", "HUN", "--name", name, "--federation", federation,
		"--listen", fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", freePort(t)), "--no-mdns")
	s.id = v.PeerID.String()
	t.Cleanup(func() {
		if s.process != nil {
			s.end(syscall.SIGKILL)
		}
		if t.Failed() {
			b, _ := os.ReadFile(s.log)
			t.Logf("%s wrote:\n%s", name, b[max(0, len(b)-4000):])
		}
	})
	return s
}

var lastPort atomic.Uint32

// freePort finds a port below those that the system gives to clients, so that
// a daemon that was killed finds it free again.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := 20000 + (os.Getpid()*97+int(lastPort.Add(1)))%12000
		tcp, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		tcp.Close()
		return port
	}
	t.Fatal("no free port")
	return 0
}

// start starts the daemon and waits until it is ready.
func (s *site) start() {
	s.t.Helper()
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.process = exec.Command("village", "daemon", "--home", s.home)
	s.process.Stderr = log
	stdout, err := s.process.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	ready, ended, process := make(chan string, 1), make(chan struct{}), s.process
	s.ended = ended
	go func() {
		out := bufio.NewReader(stdout)
		line, _ := out.ReadString('\n')
		ready <- line
		io.Copy(io.Discard, out)
		process.Wait()
		close(ended)
	}()
	select {
	case line := <-ready:
		words := strings.Fields(line)
		if len(words) != 3 || words[0] != "ready" || words[1] != s.id || !strings.HasSuffix(words[2], "/p2p/"+s.id) {
			s.t.Fatalf("the daemon of %s says %q, not that it is ready", s.home, line)
		}
		s.address = words[2]
	case <-time.After(patience):
		s.t.Fatalf("the daemon of %s is not ready", s.home)
	}
}

// end sends the daemon a signal, waits for its end and returns its exit code,
// -1 where the signal killed it.
func (s *site) end(signal syscall.Signal) int {
	s.t.Helper()
	process := s.process
	s.process = nil
	if err := process.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Fatal(err)
	}
	select {
	case <-s.ended:
	case <-time.After(patience):
		process.Process.Kill()
		s.t.Fatalf("the daemon of %s goes on after %v", s.home, signal)
	}
	return process.ProcessState.ExitCode()
}

func (s *site) kill() {
	s.t.Helper()
	s.end(syscall.SIGKILL)
}

// answer is what a command printed, and its exit code.
type answer struct {
	stdout, stderr string
	code           int
}

// run runs a command for the home.
func (s *site) run(args ...string) answer {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "village", append(args, "--home", s.home)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		s.t.Fatalf("village %s: %v %v\n%s", strings.Join(args, " "), err, ctx.Err(), &stderr)
	}
	return answer{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// ok runs a command that must succeed and returns what it printed.
func (s *site) ok(args ...string) string {
	s.t.Helper()
	a := s.run(args...)
	if a.code != 0 {
		s.t.Fatalf("village %s: exit code %d\n%s%s", strings.Join(args, " "), a.code, a.stdout, a.stderr)
	}
	return a.stdout
}

// json runs a command with --json and reads its answer into v.
func (s *site) json(v any, args ...string) {
	s.t.Helper()
	out := s.ok(append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		s.t.Fatalf("village %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// refused runs a command that must fail with an exit code and a message that
// holds all of the words, and checks that the error names what to do next.
func (s *site) refused(code int, words []string, args ...string) *api.Error {
	s.t.Helper()
	line := "village " + strings.Join(args, " ")
	a := s.run(append(args, "--json")...)
	lines := strings.Split(strings.TrimSpace(a.stderr), "\n")
	var e api.Error
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &e); err != nil {
		s.t.Errorf("%s: exit code %d, and the last line on stderr is no error: %v\n%s", line, a.code, err, a.stderr)
		return &e
	}
	if a.code != code || e.Code != code {
		s.t.Errorf("%s: exit code %d (%d in the error), want %d: %s", line, a.code, e.Code, code, e.Message)
	}
	if e.Next == "" {
		s.t.Errorf("%s: the error does not say what to do next: %s", line, e.Message)
	}
	if a.stdout != "" {
		s.t.Errorf("%s: an error on stdout: %s", line, a.stdout)
	}
	for _, word := range words {
		if !strings.Contains(e.Message, word) {
			s.t.Errorf("%s: the error does not hold %q: %s", line, word, e.Message)
		}
	}
	return &e
}

// client asks the daemon without a process between, for conditions that are
// looked at often.
func (s *site) client() *api.Client {
	s.t.Helper()
	c, err := api.Dial(s.home)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// eventually waits for a condition that other processes bring about.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	end := time.Now().Add(patience)
	for pause := time.Millisecond; !holds(); pause = min(2*pause, 100*time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never came about that %s", what)
		}
		time.Sleep(pause)
	}
}

// connect connects every site with every other one, for good.
func connect(sites ...*site) {
	for i, s := range sites {
		s.t.Helper()
		for _, other := range sites[:i] {
			s.ok("peer", "add", other.address)
		}
	}
}

// status asks for the status.
func (s *site) status() api.Status {
	s.t.Helper()
	v, err := api.GetStatus.Ask(s.ctx, s.client(), api.None{})
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}

// add adds a file as a dataset and returns its CID.
func (s *site) add(name, file string, flags ...string) string {
	s.t.Helper()
	return strings.TrimSpace(s.ok(append([]string{"dataset", "add", file, "--name", name}, flags...)...))
}

// sees waits until a site lists the datasets.
func (s *site) sees(cids ...string) {
	s.t.Helper()
	eventually(s.t, s.home+" lists every dataset", func() bool {
		v, err := api.ListDatasets.Ask(s.ctx, s.client(), nil)
		if err != nil {
			s.t.Fatal(err)
		}
		return !slices.ContainsFunc(cids, func(cid string) bool {
			return !slices.ContainsFunc(v.Datasets, func(d api.Dataset) bool { return d.CID.String() == cid })
		})
	})
}

// propose proposes a task for sites and returns its CID.
func (s *site) propose(sites []*site, flags ...string) string {
	s.t.Helper()
	ids := make([]string, len(sites))
	for i, named := range sites {
		ids[i] = named.id
	}
	return strings.TrimSpace(s.ok(append([]string{"task", "propose", "--name", "a task", "--nodes", strings.Join(ids, ",")}, flags...)...))
}

// hears waits until a site has heard of a task.
func (s *site) hears(task string) {
	s.t.Helper()
	eventually(s.t, s.home+" has heard of the task", func() bool {
		v, err := api.ListTasks.Ask(s.ctx, s.client(), api.None{})
		if err != nil {
			s.t.Fatal(err)
		}
		return slices.ContainsFunc(v.Tasks, func(t api.TaskSummary) bool { return t.CID.String() == task })
	})
}

// join joins a task as soon as the site has heard of it.
func (s *site) join(task string) {
	s.t.Helper()
	s.hears(task)
	s.ok("task", "join", task)
}

var errEnough = errors.New("seen enough")

// follow watches a task until it is as wanted, and returns how it is then.
func (s *site) follow(task string, wanted func(api.ShownTask) bool) api.ShownTask {
	s.t.Helper()
	cid, err := record.ParseCID(task)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	var last api.ShownTask
	err = s.client().WatchTask(ctx, cid, func(t api.ShownTask) error {
		last = t
		if wanted(t) {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		s.t.Fatalf("%s: %v; the task is in stage %q, round %d, waits for %v, error %q", s.home, err, last.Stage, last.Round, last.WaitingFor, last.Error)
	}
	return last
}

// round watches a task until the site has reached a round.
func (s *site) round(task string, least uint64) {
	s.t.Helper()
	s.follow(task, func(t api.ShownTask) bool { return t.Round >= least })
}

// model waits until a task is done everywhere, checks that all sites have the
// same model, and returns its CID.
func model(t *testing.T, task string, sites ...*site) string {
	t.Helper()
	cid := ""
	for _, s := range sites {
		v := s.follow(task, func(v api.ShownTask) bool { return v.Stage == api.StageDone })
		if !v.ModelCID.Defined() {
			t.Fatalf("%s: done without a model", s.home)
		}
		if cid == "" {
			cid = v.ModelCID.String()
		}
		if v.ModelCID.String() != cid {
			t.Fatalf("%s has model %s, %s has %s", sites[0].home, cid, s.home, v.ModelCID)
		}
	}
	return cid
}

// unharmed checks that nothing was refused and nothing went wrong.
func unharmed(t *testing.T, sites ...*site) {
	t.Helper()
	for _, s := range sites {
		if v := s.status(); v.MessagesRefused != 0 || v.LastError != "" {
			t.Errorf("%s: %d messages refused, last error %q", s.home, v.MessagesRefused, v.LastError)
		}
	}
}

// patients writes a CSV file of rows that look like a hospital's, the same for
// a seed, and returns its path. The target is "sick".
func patients(t *testing.T, seed uint64, rows int) string {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	var b strings.Builder
	b.WriteString("age,\"pressure, systolic\",sex,sick\n")
	for range rows {
		age, pressure := 20+r.IntN(70), 130+15*r.NormFloat64()
		sex := []string{"female", "\"male, \"\"m\"\"\""}[r.IntN(2)]
		sick := "no"
		if r.Float64() < 1/(1+math.Exp(-float64(age-55)/10-(pressure-130)/15)) {
			sick = "yes"
		}
		fmt.Fprintf(&b, "%d,%.3f,%s,%s\n", age, pressure, sex, sick)
	}
	return file(t, b.String())
}

// file writes a file and returns its path.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rows.csv")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
