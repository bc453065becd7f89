package home

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"village/node/api"
	"village/protocol/record"
)

// TestMain lets the test binary be a second process that holds a lock: told a
// home, it locks it, says so, and keeps it until its standard input closes.
func TestMain(m *testing.M) {
	if dir := os.Getenv("HOLD_LOCK"); dir != "" {
		h, err := Load(dir)
		if err == nil {
			err = h.Lock()
		}
		fmt.Println("locked", os.Getpid(), err)
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func mustInit(t *testing.T) *Home {
	t.Helper()
	h, err := Init(filepath.Join(t.TempDir(), "home"), Options{
		Nation: "hun", Name: "Budapest", Listen: []string{"/ip4/127.0.0.1/tcp/0"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func wantCode(t *testing.T, err error, code int, text string) {
	t.Helper()
	var e *api.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Message, text) || e.Next == "" {
		t.Fatalf("got %#v, want code %d, %q and a next step", err, code, text)
	}
}

func TestInitThenLoad(t *testing.T) {
	h := mustInit(t)
	got, err := Load(h.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Key.Equal(h.Key) || got.ID != h.ID || !reflect.DeepEqual(got.Config(), h.Config()) {
		t.Fatalf("loaded %+v %+v, made %+v %+v", got.ID, got.Config(), h.ID, h.Config())
	}
	if c := got.Config(); c.Nation != "HUN" || !c.MDNS || c.Members != nil || CheckFederation(c.Federation) != nil {
		t.Fatalf("config %+v", c)
	}
	for name, mode := range map[string]fs.FileMode{".": 0o700, keyFile: 0o600, ConfigFile: 0o600} {
		info, err := os.Stat(filepath.Join(h.Dir, name))
		if err != nil || info.Mode().Perm() != mode {
			t.Fatalf("%s: mode %v, %v", name, info.Mode(), err)
		}
	}
	b, err := os.ReadFile(filepath.Join(h.Dir, ConfigFile))
	if err != nil || strings.Contains(string(b), "mdns") || strings.Contains(string(b), "peers") {
		t.Fatalf("defaults are in the file: %s %v", b, err)
	}
	_, err = Init(h.Dir, Options{Nation: "HUN", Name: "again"})
	wantCode(t, err, api.CodeFailed, "is a node's home already")
	again, err := Load(h.Dir)
	if err != nil || again.ID != h.ID {
		t.Fatal("a refused init changed the home")
	}
}

func TestInitRefuses(t *testing.T) {
	for name, o := range map[string]Options{
		"nation":     {Nation: "HUX", Name: "x"},
		"empty name": {Nation: "HUN", Name: " "},
		"long name":  {Nation: "HUN", Name: strings.Repeat("é", 65)},
		"control":    {Nation: "HUN", Name: "a\x1bb"},
		"bidi":       {Nation: "HUN", Name: "a\u202eb"},
		"not UTF-8":  {Nation: "HUN", Name: "a\xff"},
		"federation": {Nation: "HUN", Name: "x", Federation: "a/b"},
		"listen":     {Nation: "HUN", Name: "x", Listen: []string{"0.0.0.0:1"}},
		"peer":       {Nation: "HUN", Name: "x", Peers: []string{"/ip4/127.0.0.1/tcp/1"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "home")
			_, err := Init(dir, o)
			wantCode(t, err, api.CodeUsage, "")
			if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("a refused init left %s behind: %v", dir, err)
			}
		})
	}
	if _, err := Init(filepath.Join(t.TempDir(), "h"), Options{Nation: "HUN", Name: strings.Repeat("é", 64), Listen: []string{"/ip4/127.0.0.1/tcp/0"}}); err != nil {
		t.Fatalf("64 characters: %v", err)
	}
}

func TestForeignDirectory(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "thesis.txt")
	if err := os.WriteFile(file, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Init(dir, Options{Nation: "HUN", Name: "x"})
	wantCode(t, err, api.CodeFailed, "thesis.txt")
	entries, _ := os.ReadDir(dir)
	if b, _ := os.ReadFile(file); len(entries) != 1 || string(b) != "mine" {
		t.Fatal("the foreign directory was touched")
	}
	_, err = Load(dir)
	wantCode(t, err, api.CodeNotInitialised, "not initialised")
	_, err = Load(filepath.Join(dir, "absent"))
	wantCode(t, err, api.CodeNotInitialised, "not initialised")
}

func TestLoadRefuses(t *testing.T) {
	for _, c := range []struct {
		name, file, content string
		mode                fs.FileMode
		code                int
		text                string
	}{
		{"newer format", versionFile, "2\n", 0o600, api.CodeFailed, "newer than this program"},
		{"foreign version file", versionFile, "v1.2.3\n", 0o600, api.CodeNotInitialised, "not initialised"},
		{"key for others", keyFile, "", 0o640, api.CodeFailed, "mode 0640"},
		{"key of something else", keyFile, "-----BEGIN X-----\n-----END X-----\n", 0o600, api.CodeFailed, "not an Ed25519 key"},
		{"unknown key", ConfigFile, "nation = \"HUN\"\nname = \"x\"\nfederation = \"f\"\npears = []\n", 0o600, api.CodeFailed, `config.toml, line 4: unknown key "pears"; did you mean "peers"?`},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := mustInit(t)
			path := filepath.Join(h.Dir, c.file)
			if err := os.WriteFile(path, []byte(c.content), c.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			_, err := Load(h.Dir)
			wantCode(t, err, c.code, c.text)
		})
	}
}

func TestLock(t *testing.T) {
	h := mustInit(t)
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "HOLD_LOCK="+h.Dir)
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if want := fmt.Sprintf("locked %d <nil>\n", child.Process.Pid); err != nil || line != want {
		t.Fatalf("the child says %q, %v", line, err)
	}
	wantCode(t, h.Lock(), api.CodeHomeInUse, fmt.Sprintf("in use by process %d", child.Process.Pid))

	// The kernel takes the lock back from a killed process.
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	child.Wait()
	stdin.Close()
	for range 2 { // locking twice is locking once
		if err := h.Lock(); err != nil {
			t.Fatal(err)
		}
	}
	other, err := Load(h.Dir)
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, other.Lock(), api.CodeHomeInUse, fmt.Sprint(os.Getpid()))
	if err := h.Unlock(); err != nil {
		t.Fatal(err)
	}
	if err := other.Lock(); err != nil {
		t.Fatal(err)
	}
}

func TestLockReadsTheConfigAgain(t *testing.T) {
	first := mustInit(t)
	second, err := Load(first.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Lock(); err != nil {
		t.Fatal(err)
	}
	if err := first.Update(func(c *Config) error { c.Members = []record.NodeID{first.ID}; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := first.Unlock(); err != nil {
		t.Fatal(err)
	}
	if err := second.Lock(); err != nil {
		t.Fatal(err)
	}
	if got := second.Config().Members; !slices.Equal(got, []record.NodeID{first.ID}) {
		t.Fatalf("the change was not seen: %v", got)
	}
}

func TestUpdate(t *testing.T) {
	h := mustInit(t)
	before, err := os.ReadFile(filepath.Join(h.Dir, ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(*Config) error{
		func(c *Config) error { c.Listen[0] = "x"; return errors.New("no") },
		func(c *Config) error { c.Name = "\x00"; return nil },
	} {
		if err := h.Update(change); err == nil {
			t.Fatal("a bad change was accepted")
		}
	}
	after, _ := os.ReadFile(filepath.Join(h.Dir, ConfigFile))
	if string(before) != string(after) || h.Config().Listen[0] == "x" || h.Config().Name != "Budapest" {
		t.Fatal("a refused change was kept")
	}
	// An empty member list is not the same as none: it closes the federation.
	if err := h.Update(func(c *Config) error { c.Members = []record.NodeID{}; c.MDNS = false; return nil }); err != nil {
		t.Fatal(err)
	}
	again, err := Load(h.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if c := again.Config(); c.Members == nil || len(c.Members) != 0 || c.MDNS {
		t.Fatalf("saved %+v", c)
	}
}

// A write that fails half way leaves the old file and nothing else.
func TestWriteFileIsAtomic(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := writeString(path, 0o600, "old"); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	err := WriteFile(path, 0o600, func(w io.Writer) error {
		io.WriteString(w, strings.Repeat("new", 10_000))
		return broken
	})
	if !errors.Is(err, broken) {
		t.Fatal(err)
	}
	entries, _ := os.ReadDir(dir)
	if b, _ := os.ReadFile(path); string(b) != "old" || len(entries) != 1 {
		t.Fatalf("%q and %d entries remain", b, len(entries))
	}
}

func TestListen(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("d", 150))
	for name, dir := range map[string]string{"short": "", "150 characters": long} {
		t.Run(name, func(t *testing.T) {
			if dir == "" {
				short, err := os.MkdirTemp("", "v")
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { os.RemoveAll(short) })
				dir = short
			}
			runtime, err := os.MkdirTemp("", "r")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(runtime) })
			t.Setenv("XDG_RUNTIME_DIR", runtime)
			h, err := Init(dir, Options{Nation: "HUN", Name: "x", Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
			if err != nil {
				t.Fatal(err)
			}
			_, err = api.Dial(h.Dir)
			wantCode(t, err, api.CodeNotRunning, "not running")
			path, err := h.SocketPath()
			if err != nil {
				t.Fatal(err)
			}
			// What a killed daemon leaves behind is in nobody's way.
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := writeString(filepath.Join(h.Dir, api.AddressFile), 0o600, path); err != nil {
				t.Fatal(err)
			}
			_, err = api.Dial(h.Dir)
			wantCode(t, err, api.CodeNotRunning, "not running")

			l, err := h.Listen()
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Fatalf("socket: %v %v", info, err)
			}
			server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get(api.Header) != api.HeaderValue || r.Method+" "+r.URL.Path != api.GetStatus.Pattern() {
					t.Errorf("request %s %v", r.URL, r.Header)
				}
				io.WriteString(w, `{"name":"here"}`)
			})}
			done := make(chan error)
			go func() { done <- server.Serve(l) }()
			c, err := api.Dial(h.Dir)
			if err != nil {
				t.Fatal(err)
			}
			if s, err := api.GetStatus.Ask(context.Background(), c, api.None{}); err != nil || s.Name != "here" {
				t.Fatalf("%+v %v", s, err)
			}
			server.Close()
			<-done
			if _, err := os.Stat(filepath.Join(h.Dir, api.AddressFile)); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("the address file is still there: %v", err)
			}
			if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("the socket is still there: %v", err)
			}
		})
	}
}

// Somebody who guesses the name of the runtime directory gains nothing.
func TestSocketDirectoryOfOthers(t *testing.T) {
	runtime, err := os.MkdirTemp("", "r")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(runtime) })
	t.Setenv("XDG_RUNTIME_DIR", runtime)
	h := &Home{Dir: "/" + strings.Repeat("d", 150)}
	path, err := h.SocketPath()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = h.SocketPath()
	wantCode(t, err, api.CodeFailed, "not a private directory")
}
