package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"village/node/api"
)

// offline runs a command where there is no home and no daemon.
func offline(args ...string) answer {
	var stdout, stderr bytes.Buffer
	code := run(context.Background(), args, &stdout, &stderr)
	return answer{stdout.String(), stderr.String(), code}
}

// proven checks that what a site exports of a model proves it elsewhere.
func proven(s *site, cid string) (v api.Verified) {
	s.t.Helper()
	dir := filepath.Join(s.t.TempDir(), "evidence")
	s.ok("model", "export", cid, "--evidence", dir)
	a := offline("model", "verify", cid, "--evidence", dir, "--json")
	if err := json.Unmarshal([]byte(a.stdout), &v); err != nil || a.code != 0 {
		s.t.Errorf("exit code %d, %v: %s", a.code, err, a.stderr)
	}
	return v
}

// TestEvidence: every node can prove a model, and what one of them exports
// proves it where none of them is.
func TestEvidence(t *testing.T) {
	t.Parallel()
	s := federation(t, "budapest", "zurich", "cleveland", "bern")
	connect(s...)
	proposer, trainers := s[3], s[:3]
	var datasets []string
	for i, site := range trainers {
		datasets = append(datasets, site.add("ward", patients(t, uint64(i), 60+40*i), "--target", "sick"))
	}
	proposer.sees(datasets...)
	var tasks, cids []string
	for _, rounds := range []string{"5", "6"} {
		id := proposer.propose(trainers, "--target", "sick", "--rounds", rounds)
		for _, site := range trainers {
			site.join(id)
		}
		tasks, cids = append(tasks, id), append(cids, model(t, id, s...))
	}
	task, cid := tasks[0], cids[0]
	var report api.Report
	trainers[0].json(&report, "model", "report", cid)

	proves := func(v api.Verified) {
		t.Helper()
		if !v.Valid || v.CID.String() != cid || v.Task.String() != task || v.Federation != federationOf(t) ||
			v.Named != 3 || v.Quorum != 2 || len(v.Signers) < v.Quorum || len(v.Roster) != 3 || v.Parameters != 4 || v.Round != 5 {
			t.Errorf("%+v", v)
		}
		weights := map[string]uint64{}
		for _, p := range v.Parts {
			weights[p.Name] = p.Weight
		}
		for _, n := range report.Nodes {
			if weights[n.Name] != n.TrainRows {
				t.Errorf("%s trained on %d rows, verified is a weight of %d", n.Name, n.TrainRows, weights[n.Name])
			}
		}
	}
	var dirs []string
	for _, site := range s {
		var v api.Verified
		site.json(&v, "model", "verify", cid)
		proves(v)
		dir := filepath.Join(t.TempDir(), "evidence")
		var e api.Exported
		site.json(&e, "model", "export", cid, "--evidence", dir)
		if e.Evidence != dir || e.Path != "" || e.Bytes != v.Bytes {
			t.Errorf("%+v", e)
		}
		dirs = append(dirs, dir)
	}
	dir, other := dirs[0], filepath.Join(t.TempDir(), "other")
	out := filepath.Join(t.TempDir(), "model.safetensors")
	if printed := s[0].ok("model", "export", cids[1], "--evidence", other, "--out", out); printed != out+"\n"+other+"\n" {
		t.Errorf("printed %q", printed)
	}
	if b, err := os.ReadFile(out); err != nil || !bytes.Equal(b, contentOf(t, filepath.Join(other, "model.safetensors"))) {
		t.Errorf("the model is not the one in the evidence: %v", err)
	}
	s[0].refused(1, []string{"not empty"}, "model", "export", cid, "--evidence", dir)
	s[0].refused(1, []string{out, "exists"}, "model", "export", cid, "--out", out, "--evidence", filepath.Join(t.TempDir(), "unwritten"))
	s[0].refused(2, []string{"out", "evidence"}, "model", "export", cid)
	if table := s[1].ok("model", "verify", cid); !strings.Contains(table, "4 parameters") || !strings.Contains(table, "HUN zurich") || !strings.Contains(table, s[1].id) {
		t.Errorf("printed\n%s", table)
	}

	// On a machine that never had a node.
	for _, site := range s {
		site.kill()
	}
	cmd := exec.Command("village", "model", "verify", "--evidence", dir, "--json")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(t.TempDir(), "none")}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	printed, err := cmd.Output()
	var v api.Verified
	if err := errors.Join(err, json.Unmarshal(printed, &v)); err != nil || v.Schema != "village.model.verify/v1" {
		t.Fatalf("%v\n%s%s", err, printed, &stderr)
	}
	proves(v)
	for _, dir := range dirs {
		if a := offline("model", "verify", cid, "--evidence", dir); a.code != 0 || !strings.Contains(a.stdout, cid) {
			t.Errorf("exit code %d\n%s%s", a.code, a.stdout, a.stderr)
		}
	}

	// What was changed since.
	fails := func(dir string, words ...string) {
		t.Helper()
		a := offline("model", "verify", "--evidence", dir, "--json")
		var e api.Error
		if err := json.Unmarshal([]byte(a.stderr), &e); err != nil || a.code != 1 || e.Next == "" || a.stdout != "" {
			t.Fatalf("exit code %d, %v\n%s%s", a.code, err, a.stdout, a.stderr)
		}
		for _, word := range words {
			if !strings.Contains(e.Message, word) {
				t.Errorf("%s: does not name %s", e.Message, word)
			}
		}
	}
	if a := offline("model", "verify", cids[1], "--evidence", dir); a.code != 1 || !strings.Contains(a.stderr, "not of "+cids[1]) {
		t.Errorf("another model's: exit code %d, %s", a.code, a.stderr)
	}
	var names []string
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, entry fs.DirEntry, err error) error {
		if !entry.IsDir() {
			names = append(names, name)
		}
		return err
	})
	if err != nil || len(names) != 5+3+3 {
		t.Fatalf("%q, %v", names, err)
	}
	flips := 0
	for _, name := range names {
		path := filepath.Join(dir, name)
		b := contentOf(t, path)
		for i := 0; i < len(b); i += 13 {
			changed := bytes.Clone(b)
			changed[i] ^= 1 << (i % 8)
			put(t, path, changed)
			fails(dir, name)
			flips++
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		fails(dir, name)
		if err := os.Symlink(filepath.Join(dirs[1], name), path); err != nil {
			t.Fatal(err)
		}
		fails(dir, name)
		os.Remove(path)
		put(t, path, b)
		if from := filepath.Join(other, name); !strings.Contains(name, "/") {
			put(t, path, contentOf(t, from))
			fails(dir, name)
			put(t, path, b)
		}
	}
	t.Logf("%d bytes changed, each of them named", flips)
	put(t, filepath.Join(dir, "updates", "more.record"), contentOf(t, filepath.Join(dir, "seal.record")))
	fails(dir, "updates/more.record")
	os.Remove(filepath.Join(dir, "updates", "more.record"))
	if a := offline("model", "verify", "--evidence", dir); a.code != 0 {
		t.Errorf("as it was, but %s", a.stderr)
	}
}

func contentOf(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
