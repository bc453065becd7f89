package evidence_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"village/node/api"
	"village/node/evidence"
	"village/protocol/dataset"
	"village/protocol/record"
	"village/protocol/task"
	"village/storage"
)

// sealing is a task of four nodes: two are its roster, one has joined late, one
// never came. Three are a quorum.
type sealing struct {
	keys    []ed25519.PrivateKey // in peer-ID order; the last one is nobody's
	task    task.Task
	id      record.CID
	in      task.Inputs
	content task.FinalContent
	model   []byte
	signers []int // that sign what it comes to
}

func idOf(key ed25519.PrivateKey) record.NodeID {
	return record.NodeIDOf(key.Public().(ed25519.PublicKey))
}

func signed(t testing.TB, key ed25519.PrivateKey, kind record.Kind, subject string, number uint64, payload any) record.Record {
	t.Helper()
	r, err := record.Sign(key, "test", kind, subject, number, payload)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func encoded(t testing.TB, v any) []byte {
	t.Helper()
	b, err := record.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func artifactCID(t testing.TB, b []byte) record.CID {
	t.Helper()
	c, err := storage.ArtifactCID(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newSealing(t testing.TB, name string) *sealing {
	t.Helper()
	return newSealingOf(t, name, 2, 2)
}

// newSealingOf has a model of so many numeric features and classes.
func newSealingOf(t testing.TB, name string, features, classes int) *sealing {
	t.Helper()
	e := dataset.Encoding{Target: "sick", Classes: []string{"no", "yes"}, Positive: "yes"}
	for i := range features {
		e.Features = append(e.Features, dataset.FeatureSpec{Name: fmt.Sprintf("size%04d", i), Kind: dataset.Numeric})
	}
	if classes > 2 {
		e.Positive, e.Classes = "", nil
		for i := range classes {
			e.Classes = append(e.Classes, fmt.Sprintf("class%04d", i))
		}
	}
	s := &sealing{signers: []int{0, 1, 2}}
	for i := range byte(5) {
		s.keys = append(s.keys, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{i + 1}, ed25519.SeedSize)))
	}
	slices.SortFunc(s.keys[:4], func(a, b ed25519.PrivateKey) int { return idOf(a).Compare(idOf(b)) })
	var nodes []record.NodeID
	for _, key := range s.keys[:4] {
		nodes = append(nodes, idOf(key))
	}
	s.task = task.New(name, e, nodes)
	subject, err := s.task.Subject()
	if err != nil {
		t.Fatal(err)
	}
	proposed := signed(t, s.keys[4], record.KindTask, subject, 0, s.task)
	s.id, s.in.Task = proposed.CID, proposed.Bytes

	var enrolled []task.Enrolled
	for i, key := range s.keys[:3] {
		e := task.Enrolment{
			Task: s.id, Manifest: record.CIDOf([]byte("manifest")), Nation: "HUN", Node: fmt.Sprintf("node %d", i),
			Moments: dataset.Moments{Count: uint64(10 + i), Mean: make([]float64, features), M2: make([]float64, features)},
		}
		r := signed(t, key, record.KindEnrolment, s.id.String(), 0, e)
		enrolled = append(enrolled, task.Enrolled{CID: r.CID, Author: r.Author, Enrolment: e})
		s.in.Enrolments = append(s.in.Enrolments, r.Bytes)
	}
	slices.SortFunc(s.in.Enrolments, func(a, b []byte) int {
		return strings.Compare(record.CIDOf(a).KeyString(), record.CIDOf(b).KeyString())
	})
	roster, err := task.RosterOf(s.task, enrolled[:2])
	if err != nil {
		t.Fatal(err)
	}
	s.in.Roster = task.ContentOf(enrolled[:2]).Enrolments
	s.content = task.FinalContent{Round: 9, Roster: roster.CID, Out: []task.Out{{Node: nodes[3], Why: task.Absent}}}
	var params [][]float64
	for i, e := range enrolled {
		p := make([]float64, s.task.SpecOf(0).Params())
		for j := range p {
			p[j] = float64(i*j) / 7
		}
		u, vector, err := task.NewUpdate(task.Update{
			Task: s.id, Roster: roster.CID, Weight: e.Moments.Count, Previous: 8, Params: p,
		}, s.task)
		if err != nil {
			t.Fatal(err)
		}
		if len(u.Vector) == 0 {
			s.in.Vectors = append(s.in.Vectors, vector)
		}
		r := signed(t, s.keys[i], record.KindUpdate, s.id.String(), 9, u)
		s.in.Updates = append(s.in.Updates, r.Bytes)
		params = append(params, p)
		s.content.Parts = append(s.content.Parts, task.Part{
			Node: e.Author, Enrolment: e.CID, Update: r.CID, Round: 9, Weight: e.Moments.Count,
		})
	}
	m, err := task.ModelOf(s.id, s.task, roster, s.content, params)
	if err != nil {
		t.Fatal(err)
	}
	if s.model, err = m.Marshal(); err != nil {
		t.Fatal(err)
	}
	if got, most := len(encoded(t, s.in)), s.task.MaxInputs(); int64(got) > most {
		t.Errorf("inputs of %d bytes, where %d are the most", got, most)
	}
	s.content.Inputs, s.content.Model = artifactCID(t, encoded(t, s.in)), artifactCID(t, s.model)
	return s
}

// seal is the certificate over the content as it stands.
func (s *sealing) seal(t testing.TB) record.Record {
	t.Helper()
	content := encoded(t, s.content)
	subject := task.TopicFinal.Subject(s.id)
	var precommits [][]byte
	for _, i := range s.signers {
		precommits = append(precommits, signed(t, s.keys[i], record.KindPrecommit, subject, 1, task.Vote{Value: record.CIDOf(content).Bytes()}).Bytes)
	}
	return signed(t, s.keys[0], record.KindSeal, subject, 0, task.Seal{Content: content, Precommits: precommits})
}

func (s *sealing) evidence(t testing.TB) api.Evidence {
	t.Helper()
	return api.Evidence{Seal: s.seal(t).Bytes, Inputs: encoded(t, s.in), Model: s.model}
}

// written is the evidence as a directory.
func (s *sealing) written(t testing.TB) string {
	t.Helper()
	dir, err := evidence.Write(filepath.Join(t.TempDir(), "evidence"), s.evidence(t))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// filesOf are the contents of a directory's files by name.
func filesOf(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files[name], err = os.ReadFile(filepath.Join(dir, name))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestEvidence: what is written can be checked, and says who did what.
func TestEvidence(t *testing.T) {
	s := newSealing(t, "a task")
	dir := s.written(t)
	v, err := evidence.Check(dir)
	if err != nil {
		t.Fatal(err)
	}
	ids := func(nodes []api.NamedNode) (list []int) {
		for _, n := range nodes {
			i := slices.Index(s.task.Nodes, n.PeerID)
			if n.Nation != "HUN" || n.Name != fmt.Sprintf("node %d", i) {
				t.Errorf("node %d is called %q %q", i, n.Nation, n.Name)
			}
			list = append(list, i)
		}
		return list
	}
	if v.CID != s.content.Model || v.Task != s.id || v.Name != "a task" || v.Federation != "test" || !v.Valid || v.Inputs != s.content.Inputs ||
		v.Named != 4 || v.Quorum != 3 || v.RosterCID != s.content.Roster || v.Round != 9 || v.Parameters != 3 || v.Bytes != uint64(len(s.model)) {
		t.Errorf("%+v", v)
	}
	if signers, roster := ids(v.Signers), ids(v.Roster); !slices.Equal(signers, []int{0, 1, 2}) || !slices.Equal(roster, []int{0, 1}) {
		t.Errorf("signed by %v, roster %v", signers, roster)
	}
	for i, p := range v.Parts {
		if ids([]api.NamedNode{p.NamedNode})[0] != i || p.Round != 9 || p.Weight != uint64(10+i) || p.Late != (i == 2) {
			t.Errorf("part %+v", p)
		}
	}
	if len(v.Parts) != 3 || len(v.Out) != 1 || v.Out[0].PeerID != s.task.Nodes[3] || v.Out[0].Why != task.Absent || v.Out[0].Name != "" {
		t.Errorf("%d parts, out %+v", len(v.Parts), v.Out)
	}

	files := filesOf(t, dir)
	if len(files) != 5+3+3 || !bytes.Equal(files["model.safetensors"], s.model) || !bytes.Equal(files["task.record"], s.in.Task) {
		t.Errorf("files %q", slices.Sorted(maps.Keys(files)))
	}
	if text := string(files["README.txt"]); strings.Count(text, "\n") != 3 || !strings.Contains(text, v.CID.String()) {
		t.Errorf("it explains itself so:\n%s", text)
	}

	// The same evidence is the same files; it goes into an empty directory and
	// over nothing else.
	empty := t.TempDir()
	if _, err := evidence.Write(empty, s.evidence(t)); err != nil {
		t.Fatal(err)
	}
	if !maps.EqualFunc(filesOf(t, empty), files, bytes.Equal) {
		t.Error("written twice, it is not the same")
	}
	file, link := filepath.Join(t.TempDir(), "file"), filepath.Join(t.TempDir(), "link")
	if err := errors.Join(os.WriteFile(file, []byte("mine"), 0o600), os.Symlink(t.TempDir(), link)); err != nil {
		t.Fatal(err)
	}
	for _, taken := range []string{dir, file, link} {
		if _, err := evidence.Write(taken, s.evidence(t)); err == nil || api.AsError(err).Next == "" {
			t.Errorf("written over %s: %v", taken, err)
		}
	}
	bad := s.evidence(t)
	bad.Model = bytes.Replace(bad.Model, []byte("size0001"), []byte("Size0001"), 1)
	parent := t.TempDir()
	if _, err := evidence.Write(filepath.Join(parent, "bad"), bad); err == nil {
		t.Error("what does not hold was written")
	}
	if _, err := evidence.Write(filepath.Join(parent, "none", "at", "all"), s.evidence(t)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("written to nowhere: %v", err)
	}
	for _, dir := range []string{parent, filepath.Dir(file)} {
		if left := filesOf(t, dir); len(left) > 1 {
			t.Errorf("left behind: %q", slices.Sorted(maps.Keys(left)))
		}
	}
}

// TestEveryChangedByteIsNamed: a byte changed anywhere is found, and the message
// names its file.
func TestEveryChangedByteIsNamed(t *testing.T) {
	if testing.Short() {
		t.Skip("seconds")
	}
	dir := newSealing(t, "a task").written(t)
	flips := 0
	for name, b := range filesOf(t, dir) {
		path := filepath.Join(dir, name)
		for i := 0; i < len(b); i += 3 {
			changed := bytes.Clone(b)
			changed[i] ^= 1 << (i % 8)
			if err := os.WriteFile(path, changed, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := evidence.Check(dir); err == nil || !strings.Contains(err.Error(), name+":") && !strings.Contains(err.Error(), name+" is changed") {
				t.Fatalf("byte %d of %s: %v", i, name, err)
			}
			flips++
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := evidence.Check(dir); err != nil {
		t.Error(err)
	}
	t.Logf("%d bytes changed", flips)
}

// TestEvidenceThatIsNotWhole: what is missing, extra, exchanged or of another
// form is named.
func TestEvidenceThatIsNotWhole(t *testing.T) {
	s, other := newSealing(t, "a task"), newSealing(t, "another")
	another := other.written(t)
	names := slices.Sorted(maps.Keys(filesOf(t, s.written(t))))
	var updates []string
	for _, b := range s.in.Updates {
		updates = append(updates, "updates/"+record.CIDOf(b).String()+".record")
	}
	enrolment := "enrolments/" + s.content.Parts[2].Enrolment.String() + ".record"
	move := func(from, to string) func(string) error {
		return func(dir string) error { return os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)) }
	}
	put := func(name string, content []byte) func(string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), content, 0o600) }
	}
	link := func(name, to string) func(string) error {
		return func(dir string) error {
			return errors.Join(os.RemoveAll(filepath.Join(dir, name)), os.Symlink(to, filepath.Join(dir, name)))
		}
	}
	copied := func(name string) func(string) error {
		return put(name, filesOf(t, another)[name])
	}
	type broken struct {
		what  string
		do    func(dir string) error
		words []string
	}
	all := []broken{
		{"an extra file", put("notes.txt", []byte("x")), []string{`"notes.txt" is not part of it`}},
		{"an extra record", put("updates/x.record", []byte("x")), []string{`"updates/x.record" is not part of it`}},
		{"a name that forges lines", put("a\nvalid\x1b[2J", []byte("x")), []string{`"a\nvalid\x1b[2J" is not part of it`}},
		{"an extra directory", func(dir string) error { return os.Mkdir(filepath.Join(dir, "more"), 0o700) }, []string{`"more" is not part`}},
		{"two updates exchanged", func(dir string) error {
			return errors.Join(move(updates[0], "x")(dir), move(updates[1], updates[0])(dir), move("x", updates[1])(dir))
		}, []string{updates[0] + " is changed", updates[1] + " is changed"}},
		{"an update under another name", move(updates[0], "updates/"+s.id.String()+".record"), []string{updates[0] + " is missing", s.id.String()}},
		{"another's seal", copied("seal.record"), []string{"seal.record", "roster.cbor is changed"}},
		{"another's task", copied("task.record"), []string{"task.record is changed"}},
		{"another's model", copied("model.safetensors"), []string{"model.safetensors is changed", other.content.Model.String()}},
		{"another's readme", copied("README.txt"), []string{"README.txt is changed"}},
		{"a seal of something else", put("seal.record", s.in.Updates[0]), []string{"seal.record: it is not the seal of a model"}},
		{"a link out of it", link("model.safetensors", filepath.Join(another, "model.safetensors")), []string{"model.safetensors is not a plain file"}},
		{"a link within it", link(updates[0], filepath.Base(updates[1])), []string{updates[0] + " is not a plain file"}},
		{"a link for the seal", link("seal.record", filepath.Join(another, "seal.record")), []string{"seal.record is not a plain file"}},
		{"a directory that is a link", link("updates", filepath.Join(another, "updates")), []string{"updates is not a directory"}},
		{"a directory that is a file", func(dir string) error {
			return errors.Join(os.RemoveAll(filepath.Join(dir, "enrolments")), put("enrolments", []byte("x"))(dir))
		}, []string{"enrolments is not a directory"}},
		{"a file that is a directory", func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "task.record")), os.Mkdir(filepath.Join(dir, "task.record"), 0o700))
		}, []string{"task.record is not a plain file"}},
		{"too long a record", put(enrolment, make([]byte, record.MaxBytes+1)), []string{enrolment + " is changed", "longer than"}},
		{"a model that goes on and on", func(dir string) error {
			return os.Truncate(filepath.Join(dir, "model.safetensors"), 1<<40)
		}, []string{"model.safetensors is changed", "longer than"}},
		{"no files at all", func(dir string) error {
			return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700))
		}, []string{"seal.record is missing"}},
		{"files without end", func(dir string) error {
			for i := range evidence.MaxEntries + 1 {
				if err := put(fmt.Sprint("updates/", i), nil)(dir); err != nil {
					return err
				}
			}
			return nil
		}, []string{"more than"}},
		{"more problems than a line holds", func(dir string) error {
			for i := range 30 {
				if err := put(fmt.Sprint("updates/", i), nil)(dir); err != nil {
					return err
				}
			}
			return nil
		}, []string{"and 20 more"}},
	}
	for _, name := range names {
		all = append(all,
			broken{"no " + name, func(dir string) error { return os.Remove(filepath.Join(dir, name)) }, []string{name + " is missing"}},
			broken{"an empty " + name, func(dir string) error { return os.Truncate(filepath.Join(dir, name), 0) }, []string{name + " is changed", "empty"}})
	}
	for _, b := range all {
		t.Run(b.what, func(t *testing.T) {
			dir := s.written(t)
			if err := b.do(dir); err != nil {
				t.Fatal(err)
			}
			_, err := evidence.Check(dir)
			if err == nil {
				t.Fatal("it is said to hold")
			}
			for _, word := range b.words {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%v: does not say %q", err, word)
				}
			}
		})
	}
	if _, err := evidence.Check(filepath.Join(t.TempDir(), "nothing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

// TestEvidenceOfLargeVectors: vectors that do not fit into an update are files of
// their own.
func TestEvidenceOfLargeVectors(t *testing.T) {
	s := newSealingOf(t, "a large task", 340, task.MaxClasses)
	dir := s.written(t)
	v, err := evidence.Check(dir)
	if err != nil {
		t.Fatal(err)
	}
	if v.Parameters != 341*task.MaxClasses {
		t.Errorf("%d parameters", v.Parameters)
	}
	var vectors []string
	for name := range filesOf(t, dir) {
		if strings.HasPrefix(name, "vectors/") {
			vectors = append(vectors, name)
		}
	}
	if len(vectors) != 3 {
		t.Fatalf("vectors %q", vectors)
	}
	fails := func(dir string, words ...string) {
		t.Helper()
		_, err := evidence.Check(dir)
		for _, word := range words {
			if err == nil || !strings.Contains(err.Error(), word) {
				t.Errorf("%v: does not say %q", err, word)
			}
		}
	}
	put := func(dir, name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, b := range filesOf(t, dir) {
		for i := 0; i < len(b); i += 1 + len(b)/5 {
			changed := bytes.Clone(b)
			changed[i] ^= 1
			put(dir, name, changed)
			fails(dir, name)
		}
		put(dir, name, append(bytes.Clone(b), 0))
		fails(dir, name)
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		fails(dir, name+" is missing")
		put(dir, name, b)
	}
	first := filesOf(t, dir)[vectors[0]]
	put(dir, vectors[1], first)
	fails(dir, vectors[1]+" is changed")
	put(dir, "vectors/more", nil)
	fails(dir, `"vectors/more" is not part of it`)
	if err := os.RemoveAll(filepath.Join(dir, "vectors")); err != nil {
		t.Fatal(err)
	}
	fails(dir, vectors[0]+" is missing", vectors[1]+" is missing")

	// Where vectors ride inside of the updates, there are none beside them.
	small := newSealing(t, "a task")
	dir = small.written(t)
	if err := os.Mkdir(filepath.Join(dir, "vectors"), 0o700); err != nil {
		t.Fatal(err)
	}
	fails(dir, `"vectors" is not part of it`)
	beside := evidence.VectorFile(small.content.Parts[0].Update)
	put(dir, beside, first)
	fails(dir, fmt.Sprintf("%q is not part of it", beside))
}

// TestEvidenceThatWasForged: names and hashes that fit are not enough.
func TestEvidenceThatWasForged(t *testing.T) {
	for _, c := range []struct {
		what  string
		forge func(*sealing)
		want  string
	}{
		{"too few signatures", func(s *sealing) { s.signers = s.signers[:2] }, "no quorum"},
		{"one signs twice", func(s *sealing) { s.signers = []int{0, 1, 1} }, "not of a node of its own"},
		{"a stranger signs", func(s *sealing) { s.signers[2] = 4 }, "not of a node of its own"},
		{"another weight", func(s *sealing) { s.content.Parts[1].Weight++ }, "but 11 training rows were enrolled"},
		{"another round", func(s *sealing) { s.content.Parts[1].Round-- }, "not the one that was decided on"},
		{"another node", func(s *sealing) { s.content.Parts[1].Node = s.task.Nodes[3] }, "not the one that was decided on"},
		{"one node less", func(s *sealing) { s.content.Parts = s.content.Parts[:2] }, "3 updates for 2 parts"},
		{"another model", func(s *sealing) {
			s.model = bytes.Replace(s.model, []byte("size0001"), []byte("Size0001"), 1)
			s.content.Model = artifactCID(t, s.model)
		}, "not what the updates come to"},
		{"the CID of another model", func(s *sealing) { s.content.Model = artifactCID(t, nil) }, "the model: " + artifactCID(t, nil).String()},
		{"the CID of other inputs", func(s *sealing) { s.content.Inputs = artifactCID(t, nil) }, "the inputs: " + artifactCID(t, nil).String()},
		{"another roster", func(s *sealing) { s.in.Roster = s.in.Roster[:1] }, "the roster is not the one"},
	} {
		s := newSealing(t, "a task")
		c.forge(s)
		if _, err := evidence.Verify(s.evidence(t)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	e := newSealing(t, "a task").evidence(t)
	e.Inputs = append(e.Inputs, 0)
	if _, err := evidence.Verify(e); err == nil || !strings.Contains(err.Error(), "the inputs: ") {
		t.Errorf("inputs with more behind them: %v", err)
	}
}

// FuzzCheck: whatever stands in a file, nothing else holds.
func FuzzCheck(f *testing.F) {
	s := newSealing(f, "a task")
	dir := s.written(f)
	files := filesOf(f, dir)
	names := slices.Sorted(maps.Keys(files))
	other := filesOf(f, newSealing(f, "another").written(f))
	for i, name := range names {
		f.Add(uint8(i), files[name])
		f.Add(uint8(i), other[name])
		f.Add(uint8(i), files[name][:len(files[name])/2])
	}
	f.Fuzz(func(t *testing.T, i uint8, content []byte) {
		name := names[int(i)%len(names)]
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := evidence.Check(dir)
		if same := bytes.Equal(content, files[name]); same != (err == nil) {
			t.Errorf("%s: the same %v, error %v", name, same, err)
		}
		if err := os.WriteFile(path, files[name], 0o600); err != nil {
			t.Fatal(err)
		}
	})
}
