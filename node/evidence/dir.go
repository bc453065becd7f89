package evidence

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"village/node/api"
	"village/node/home"
	"village/protocol/record"
	"village/protocol/task"
	"village/storage"
)

// The files of a directory of evidence. Each but the seal is named, or its bytes
// are fixed, by what the seal says, and the seal is signed: so no byte of the
// directory can change unnoticed.
const (
	readmeFile    = "README.txt"
	sealFile      = "seal.record"
	taskFile      = "task.record"
	rosterFile    = "roster.cbor" // a task.RosterContent
	modelFile     = "model.safetensors"
	enrolmentsDir = "enrolments" // a record a file, named by its CID
	updatesDir    = "updates"    // likewise
	vectorsDir    = "vectors"    // what these announce, where it does not ride inside; named like them
)

const (
	// maxEntries is the largest number of entries of a directory that is read.
	maxEntries = 2*task.MaxNodes + 16
	// maxProblems is how many of them a message names.
	maxProblems = 10
)

func recordFile(dir string, cid record.CID) string { return dir + "/" + cid.String() + ".record" }

func vectorFile(update record.CID) string { return vectorsDir + "/" + update.String() + ".safetensors" }

// readmeOf is what README.txt says, to the byte.
func readmeOf(model record.CID) []byte {
	return fmt.Appendf(nil, `This directory proves how model %s was made, and by whom.
Check it with the program Village, on any computer: village model verify --evidence DIRECTORY
Then compare the CIDs and the peer IDs that it prints with those that you know.
`, model)
}

// Write writes evidence to dir, which must not exist or be empty: all of
// it, where what was written holds, or nothing. It returns the absolute path.
func Write(dir string, e api.Evidence) (_ string, err error) {
	_, content, err := sealed(e.Seal)
	if err != nil {
		return "", fmt.Errorf("the seal: %w", err)
	}
	var in task.Inputs
	if err := record.Decode(e.Inputs, &in); err != nil {
		return "", err
	}
	roster, err := record.Encode(task.RosterContent{Enrolments: in.Roster})
	if err != nil {
		return "", err
	}
	files := map[string][]byte{
		readmeFile: readmeOf(content.Model), sealFile: e.Seal, taskFile: in.Task, rosterFile: roster, modelFile: e.Model,
	}
	for _, b := range in.Enrolments {
		files[recordFile(enrolmentsDir, record.CIDOf(b))] = b
	}
	dirs := []string{"", enrolmentsDir, updatesDir}
	for i, b := range in.Updates {
		cid := record.CIDOf(b)
		files[recordFile(updatesDir, cid)] = b
		if vector := in.Vector(i); vector != nil {
			files[vectorFile(cid)] = vector
		}
	}
	if len(in.Vectors) > 0 {
		dirs = append(dirs, vectorsDir)
	}

	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	if err := vacant(dir); err != nil {
		return "", err
	}
	partial, err := os.MkdirTemp(filepath.Dir(dir), ".village-*")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(partial)
		}
	}()
	for _, sub := range dirs {
		name := filepath.Join(partial, sub)
		if err := errors.Join(os.MkdirAll(name, 0o755), os.Chmod(name, 0o755)); err != nil {
			return "", err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		err := home.WriteFile(filepath.Join(partial, name), 0o644, func(w io.Writer) error {
			_, err := w.Write(files[name])
			return err
		})
		if err != nil {
			return "", err
		}
	}
	if _, err := Check(partial); err != nil {
		return "", fmt.Errorf("the evidence does not hold: %w", err)
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err // it has been filled in between
	}
	return dir, os.Rename(partial, dir)
}

// vacant refuses a path at which there is more than an empty directory.
func vacant(dir string) error {
	const next = "choose another name for --evidence"
	switch info, err := os.Lstat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.IsDir():
		return api.Fail(api.CodeFailed, next, "%s exists already, and is no directory", dir)
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	switch _, err := f.ReadDir(1); {
	case err == nil:
		return api.Fail(api.CodeFailed, next, "%s is not empty", dir)
	case errors.Is(err, io.EOF):
		return nil
	default:
		return err
	}
}

// Check checks a model from nothing but a directory that [Write]
// has written, wherever it has been since. An error names what of it is changed,
// missing or not part of it, or what does not hold.
func Check(dir string) (api.Verified, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return api.Verified{}, err
	}
	defer root.Close()
	e, err := readDir(root)
	if err != nil {
		return api.Verified{}, err
	}
	return Verify(e)
}

// directory is a directory that may be anyone's work.
type directory struct {
	root     *os.Root
	held     map[string]fs.FileMode // types of all entries
	due      map[string]bool        // entries that the seal asks for
	problems []string
}

func readDir(root *os.Root) (api.Evidence, error) {
	var e api.Evidence
	d := directory{root: root, held: map[string]fs.FileMode{}, due: map[string]bool{}}
	if err := d.list(); err != nil {
		return e, err
	}
	d.due[enrolmentsDir], d.due[updatesDir] = true, true
	e.Seal = d.read(sealFile, record.MaxBytes)
	if err := d.result(); err != nil {
		return e, err
	}
	id, content, err := sealed(e.Seal)
	if err != nil {
		return e, fmt.Errorf("%s: %w", sealFile, err)
	}
	var roster task.RosterContent
	if b := d.named(rosterFile, content.Roster); b != nil {
		if err := record.Decode(b, &roster); err != nil || len(roster.Enrolments) > task.MaxNodes {
			d.problem("%s is no roster", rosterFile)
		}
	}
	if err := d.result(); err != nil {
		return e, err // the seal and the roster say what else is due
	}

	in := task.Inputs{Task: d.named(taskFile, id), Roster: roster.Enrolments}
	enrolments := slices.Clone(roster.Enrolments)
	for _, p := range content.Parts {
		if !slices.Contains(enrolments, p.Enrolment) {
			enrolments = append(enrolments, p.Enrolment)
		}
	}
	task.SortCIDs(enrolments)
	for _, cid := range enrolments {
		in.Enrolments = append(in.Enrolments, d.named(recordFile(enrolmentsDir, cid), cid))
	}
	for _, p := range content.Parts {
		in.Updates = append(in.Updates, d.named(recordFile(updatesDir, p.Update), p.Update))
	}
	if e.Model = d.read(modelFile, MaxModel); e.Model != nil {
		cid, err := storage.ArtifactCID(bytes.NewReader(e.Model))
		if err != nil {
			return e, err
		}
		d.compare(modelFile, cid, content.Model)
	}
	in.Vectors = d.vectors(in, content.Parts)
	readme := readmeOf(content.Model)
	if b := d.read(readmeFile, int64(len(readme))); b != nil && !bytes.Equal(b, readme) {
		d.problem("%s is changed: it does not say what it says with every evidence of this model", readmeFile)
	}
	for _, name := range slices.Sorted(maps.Keys(d.held)) {
		if !d.due[name] {
			d.problem("%q is not part of it", name)
		}
	}
	if err := d.result(); err != nil {
		return e, err
	}
	e.Inputs, err = record.Encode(in)
	return e, err
}

// vectors reads what the updates announce. As long as the task or an update is
// not right, nobody can tell what that is, and the files are not judged.
func (d *directory) vectors(in task.Inputs, parts []task.Part) (vectors [][]byte) {
	d.due[vectorsDir] = true
	for _, p := range parts {
		d.due[vectorFile(p.Update)] = true
	}
	if len(d.problems) > 0 {
		return nil
	}
	var t task.Task
	proposed, err := record.Open(in.Task, "")
	if err == nil {
		t, err = task.TaskOf(proposed)
	}
	if err != nil {
		d.problem("%s: %v", taskFile, err)
		return nil
	}
	for i, p := range parts {
		var u task.Update
		r, err := record.Open(in.Updates[i], "")
		if err == nil {
			u, err = task.UpdateOf(r, t)
		}
		if err != nil {
			d.problem("%s: %v", recordFile(updatesDir, p.Update), err)
			return nil
		}
		name := vectorFile(p.Update)
		if u.Params != nil {
			delete(d.due, name)
			continue
		}
		vector := d.read(name, int64(u.Size))
		if vector != nil {
			if _, err := u.Fill(vector, t); err != nil {
				d.problem("%s is changed: %v", name, err)
			}
		}
		vectors = append(vectors, vector)
	}
	if vectors == nil {
		delete(d.due, vectorsDir)
	}
	return vectors
}

// sealed reads what a seal record says: the task, and its final set. Whether a
// quorum has signed it is not looked at.
func sealed(b []byte) (record.CID, task.FinalContent, error) {
	var s task.Seal
	var c task.FinalContent
	r, err := record.Open(b, "")
	if err != nil {
		return record.CID{}, c, err
	}
	name, topic, _ := strings.Cut(r.Subject, "/")
	if r.Kind != record.KindSeal || task.Topic(topic) != task.TopicFinal {
		return record.CID{}, c, errors.New("it is not the seal of a model")
	}
	id, err := record.ParseCID(name)
	if err == nil {
		err = record.Decode(r.Payload, &s)
	}
	if err == nil {
		err = record.Decode(s.Content, &c)
	}
	if err == nil && len(c.Parts) > task.MaxNodes {
		err = fmt.Errorf("%d parts", len(c.Parts))
	}
	return id, c, err
}

// list takes down what the directory holds.
func (d *directory) list() error {
	for _, sub := range []string{".", enrolmentsDir, updatesDir, vectorsDir} {
		mode, ok := d.held[sub]
		switch {
		case sub == ".":
		case !ok:
			continue // each file that it should hold will be missing
		case !mode.IsDir():
			d.problem("%s is not a directory", sub)
			continue
		}
		f, err := d.root.Open(sub)
		if err != nil {
			return err
		}
		entries, err := f.ReadDir(maxEntries + 1)
		f.Close()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if len(entries) > maxEntries {
			return fmt.Errorf("there are more than %d files in it, more than any evidence has", maxEntries)
		}
		for _, entry := range entries {
			d.held[path.Join(sub, entry.Name())] = entry.Type()
		}
	}
	return nil
}

func (d *directory) problem(format string, args ...any) {
	d.problems = append(d.problems, fmt.Sprintf(format, args...))
}

// result is an error that names the problems found so far.
func (d *directory) result() error {
	if len(d.problems) == 0 {
		return nil
	}
	shown := d.problems[:min(len(d.problems), maxProblems)]
	text := strings.Join(shown, "; ")
	if more := len(d.problems) - len(shown); more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return errors.New(text)
}

// read returns the bytes of a file that the seal asks for, or nil and notes a
// problem.
func (d *directory) read(name string, limit int64) []byte {
	d.due[name] = true
	switch mode, ok := d.held[name]; {
	case !ok:
		d.problem("%s is missing", name)
		return nil
	case !mode.IsRegular():
		d.problem("%s is not a plain file", name)
		return nil
	}
	f, err := d.root.Open(name)
	if err != nil {
		d.problem("%s: %v", name, err)
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		d.problem("%s: %v", name, err)
	case int64(len(b)) > limit:
		d.problem("%s is changed: it is longer than %d bytes", name, limit)
	case len(b) == 0:
		d.problem("%s is changed: it is empty", name)
	default:
		return b
	}
	return nil
}

// named reads a record, or what is named like one, by its CID.
func (d *directory) named(name string, cid record.CID) []byte {
	b := d.read(name, record.MaxBytes)
	if b != nil {
		d.compare(name, record.CIDOf(b), cid)
	}
	return b
}

func (d *directory) compare(name string, got, want record.CID) {
	if got != want {
		d.problem("%s is changed: its bytes hash to %s, %s asks for %s", name, got, sealFile, want)
	}
}
