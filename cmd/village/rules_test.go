package main

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The tests of this file hold the walls between the rooms of the source tree.

const root = "../.."

// pkg is a package of this module, as go list describes it.
type pkg struct {
	ImportPath string
	Dir        string
	Name       string
	GoFiles    []string
	Imports    []string // direct
	Deps       []string // all
	Standard   bool
}

// packages lists those of this module by their path in it, such as "node/api",
// and tells which import paths belong to the standard library.
func packages(t *testing.T) (own map[string]pkg, standard map[string]bool) {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Dir,Name,GoFiles,Imports,Deps,Standard", "./...")
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	own, standard = map[string]pkg{}, map[string]bool{}
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p pkg
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		standard[p.ImportPath] = p.Standard
		if name, ok := strings.CutPrefix(p.ImportPath, "village/"); ok {
			own[name] = p
		}
	}
	return own, standard
}

// under tells whether an import path is one of the given ones or below one.
func under(importPath string, roots ...string) bool {
	return slices.ContainsFunc(roots, func(r string) bool {
		return importPath == r || strings.HasPrefix(importPath, r+"/")
	})
}

// libp2p matches the library's modules: host, pubsub and the rest, but not the
// pool of buffers that others use, too.
var libp2p = regexp.MustCompile(`^github\.com/libp2p/(go-libp2p|zeroconf)`)

// rooms says what the packages of each room may import of this module, and
// what else they must not.
var rooms = map[string]struct {
	own    []string                               // rooms that it may import
	direct func(importPath string, std bool) bool // refused as its own import
	deps   func(p string, importPath string) bool // refused anywhere below
}{
	"protocol": {
		own: []string{"protocol"},
		direct: func(p string, _ bool) bool {
			return under(p, "net", "os", "syscall", "math/rand", "crypto/rand") && p != "math/rand/v2"
		},
		deps: func(_, p string) bool {
			return under(p, "net", "os/exec", "html/template", "github.com/libp2p", "github.com/dgraph-io", "github.com/ipfs/boxo", "github.com/parquet-go")
		},
	},
	"storage": {
		own: []string{"protocol", "storage"},
		direct: func(p string, std bool) bool {
			if std {
				return under(p, "net", "os/exec")
			}
			return !under(p, "github.com/dgraph-io/badger/v4", "github.com/multiformats",
				"github.com/ipfs/go-cid", "github.com/ipfs/go-block-format", "github.com/ipfs/go-ipld-format", "github.com/ipfs/go-datastore",
				"github.com/ipfs/boxo/blockstore", "github.com/ipfs/boxo/chunker", "github.com/ipfs/boxo/files", "github.com/ipfs/boxo/ipld")
		},
		deps: func(_, p string) bool { return libp2p.MatchString(p) },
	},
	"sim": {
		own:  []string{"protocol", "sim"},
		deps: func(name, p string) bool { return under(p, "github.com/libp2p") && !under(name, "sim/cluster") },
	},
	"node": {
		own: []string{"node", "protocol", "storage"},
	},
	"cmd": {
		own:    []string{"node", "protocol", "sim"},
		direct: func(p string, std bool) bool { return !std && !under(p, "github.com/spf13", "golang.org/x/term") },
	},
}

func TestImports(t *testing.T) {
	own, standard := packages(t)
	for name, p := range own {
		room, _, _ := strings.Cut(name, "/")
		rule, ok := rooms[room]
		if !ok {
			t.Errorf("package %s stands in no room", name)
			continue
		}
		for _, i := range p.Imports {
			if inner, ok := strings.CutPrefix(i, "village/"); ok {
				if !under(inner, rule.own...) && !under(name, "sim/cluster") {
					t.Errorf("%s imports %s", name, i)
				}
			} else if rule.direct != nil && rule.direct(i, standard[i]) {
				t.Errorf("%s imports %s", name, i)
			}
		}
		var refused []string
		for _, i := range p.Deps {
			if rule.deps != nil && rule.deps(name, i) {
				refused = append(refused, i)
			}
		}
		if len(refused) > 0 {
			t.Errorf("%s depends on %s", name, strings.Join(refused, ", "))
		}
	}
}

// floors are the rooms of the daemon, from the ground up: each imports rooms of
// floors below its own alone. So there is no circle, and no room that all reach
// into.
var floors = [][]string{
	{"seats"},
	{"api", "log", "p2p", "exchange", "artifacts"},
	{"home", "records"},
	{"ingest", "evidence", "table", "portable", "contacts"},
	{"datasets", "models", "ingest/sets", "report"},
	{"tasks"},
	{"server"},
	{""}, // the wiring
	{"demo"},
}

func TestFloorsOfTheDaemon(t *testing.T) {
	own, _ := packages(t)
	floor := map[string]int{}
	for i, names := range floors {
		for _, name := range names {
			floor[strings.TrimSuffix("node/"+name, "/")] = i
		}
	}
	for name, p := range own {
		if !under(name, "node") {
			continue
		}
		mine, ok := floor[name]
		if !ok {
			t.Errorf("%s stands on no floor", name)
		}
		for _, i := range p.Imports {
			inner := strings.TrimPrefix(i, "village/")
			if theirs, ok := floor[inner]; ok && theirs >= mine {
				t.Errorf("%s imports %s, which is not below it", name, inner)
			}
		}
	}
}

// impurities names what a file does that a pure package must not: start a
// goroutine, read the clock or wait for it, draw from the global random source.
func impurities(fset *token.FileSet, f *ast.File) (found []string) {
	names := map[string]string{} // of an import in this file -> its path
	for _, i := range f.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			panic(err) // the parser has accepted it
		}
		name := path.Base(strings.TrimSuffix(p, "/v2"))
		if i.Name != nil {
			name = i.Name.Name
		}
		if name == "." {
			found = append(found, fmt.Sprintf("%s: dot import of %s", fset.Position(i.Pos()), p))
		}
		names[name] = p
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			found = append(found, fmt.Sprintf("%s: go statement", fset.Position(n.Pos())))
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if !ok {
				return true
			}
			impure := false
			switch names[x.Name] {
			case "time":
				impure = slices.Contains([]string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}, n.Sel.Name)
			case "math/rand/v2":
				impure = !slices.Contains([]string{"New", "NewChaCha8", "NewPCG", "NewZipf", "Rand", "ChaCha8", "PCG", "Zipf", "Source"}, n.Sel.Name)
			}
			if impure {
				found = append(found, fmt.Sprintf("%s: %s.%s", fset.Position(n.Pos()), x.Name, n.Sel.Name))
			}
		}
		return true
	})
	return found
}

// TestProtocolIsPure: time, randomness and concurrency come from outside.
func TestProtocolIsPure(t *testing.T) {
	own, _ := packages(t)
	files := 0
	for name, p := range own {
		if !under(name, "protocol") {
			continue
		}
		for _, file := range p.GoFiles {
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, file), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			files++
			for _, s := range impurities(fset, f) {
				t.Error(s)
			}
		}
	}
	if files == 0 {
		t.Error("no file of protocol was read")
	}
}

// TestImpurities: what the test above looks for, it finds.
func TestImpurities(t *testing.T) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "x.go", `package x
import ("time"; clock "time"; "math/rand/v2"; . "strings")
var fine = rand.New(rand.NewPCG(1, 2)).IntN(time.Second)
func bad() { go bad(); time.Now(); clock.Since(clock.Time{}); rand.IntN(3) }
`, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range impurities(fset, f) {
		_, what, _ := strings.Cut(s, ": ")
		got = append(got, what)
	}
	want := []string{"dot import of strings", "go statement", "time.Now", "clock.Since", "rand.IntN"}
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}

// TestPackageComments: every package says once what its job is.
func TestPackageComments(t *testing.T) {
	own, _ := packages(t)
	for name, p := range own {
		start := "Package " + p.Name + " "
		if p.Name == "main" {
			start = "Command " + path.Base(name) + " "
		}
		comments := 0
		for _, file := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc == nil {
				continue
			}
			comments++
			if !strings.HasPrefix(f.Doc.Text(), start) {
				t.Errorf("%s/%s: the package comment does not start with %q", name, file, start)
			}
		}
		if comments != 1 {
			t.Errorf("%s has %d package comments", name, comments)
		}
	}
}

// TestCommandIsThin: logic belongs in the rooms behind the command line. The
// bound is a reminder, not a measure of quality.
func TestCommandIsThin(t *testing.T) {
	const most = 2000
	own, _ := packages(t)
	lines := 0
	for name, p := range own {
		if !under(name, "cmd") {
			continue
		}
		for _, file := range p.GoFiles {
			b, err := os.ReadFile(filepath.Join(p.Dir, file))
			if err != nil {
				t.Fatal(err)
			}
			lines += strings.Count(string(b), "\n")
		}
	}
	if lines == 0 || lines > most {
		t.Errorf("cmd/ has %d lines; it holds flags, printing and exit codes, at most %d", lines, most)
	}
}

// sources lists the files that git tracks.
func sources(t *testing.T) []string {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "-z")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("not a git checkout, so there is no list of its files: %v", err)
	}
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 })
}

func TestTopLevel(t *testing.T) {
	allowed := []string{"node", "cmd", "protocol", "storage", "sim", "go.mod", "go.sum", "Makefile", "README.md"}
	for _, file := range sources(t) {
		top, _, _ := strings.Cut(file, "/")
		if !strings.HasPrefix(top, ".") && !slices.Contains(allowed, top) {
			t.Errorf("%s: the top level holds %s and dot-files, nothing else", file, strings.Join(allowed, ", "))
		}
	}
}

// TestNoMachine: no file depends on where it was written.
func TestNoMachine(t *testing.T) {
	// Written in pieces, for this file is read, too.
	machine := regexp.MustCompile(`(^|[\s"'=(` + "`" + `])/(` + `work|tmp|root|home/\w|Users/\w` + `)[/"'\s]|` +
		`goproxy\.|proxy\.golang` + `\.org|sum\.golang` + `\.org|registry\.npmjs|pypi\.` + `org`)
	for _, file := range sources(t) {
		b, err := os.ReadFile(filepath.Join(root, file))
		if os.IsNotExist(err) {
			continue // deleted and not yet committed
		}
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(b), "\n") {
			if m := machine.FindString(line); m != "" {
				t.Errorf("%s:%d names a place of one machine or a package registry: %q", file, i+1, m)
			}
		}
	}
}
