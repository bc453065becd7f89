package record_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"village/protocol/agree"
	"village/protocol/contact"
	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/record"
	"village/protocol/safetensors"
	"village/protocol/task"
)

// The tests of this file hold the program to the document that says what its
// bytes are, and the document to the program.

var document = filepath.Join("..", "..", ".github", "docs", "format.md")

// example is one of the document: bytes, their name, and what they say.
type example struct {
	form, name, cid, meaning string
	bytes                    []byte
}

var exampleForm = regexp.MustCompile("(?s)\n#### (record|dag-cbor|safetensors|signed): ([^\n]+)\n\n(?:`([a-z0-9]+)`\n\n)?(?:```json\n(.*?)\n```\n\n)?```hex\n(.*?)\n```\n")

func examples(t *testing.T) (text string, list []example) {
	t.Helper()
	b, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range exampleForm.FindAllStringSubmatch(string(b), -1) {
		e := example{form: m[1], name: m[2], cid: m[3], meaning: m[4]}
		if e.bytes, err = hex.DecodeString(strings.ReplaceAll(m[5], "\n", "")); err != nil {
			t.Fatalf("%s: %v", e.name, err)
		}
		list = append(list, e)
	}
	if headings := strings.Count(string(b), "\n#### "); len(list) < 15 || len(list)+2 != headings { // and those of the store and its journal
		t.Fatalf("%d examples under %d headings", len(list), headings)
	}
	return string(b), list
}

func named(t *testing.T, list []example, name string) example {
	t.Helper()
	i := slices.IndexFunc(list, func(e example) bool { return e.name == name })
	if i < 0 {
		t.Fatalf("the document has no example %q", name)
	}
	return list[i]
}

// key is that of a node of the examples: its seed is 32 equal bytes.
func key(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func keyOf(t *testing.T, author record.NodeID) ed25519.PrivateKey {
	t.Helper()
	for seed := range byte(3) {
		if k := key(seed); record.NodeIDOf(k.Public().(ed25519.PublicKey)) == author {
			return k
		}
	}
	t.Fatalf("no example node is %s", author)
	return nil
}

// rawCID names a file of at most 1 MiB, as every IPFS tool does.
func rawCID(b []byte) string {
	mh, err := multihash.Sum(b, multihash.SHA2_256, -1)
	if err != nil {
		panic(err)
	}
	return cid.NewCidV1(cid.Raw, mh).String()
}

// meaning spells data as the document does: bytes that are an example of their
// own are called by its name.
func meaning(v any, names map[string]string) any {
	switch v := v.(type) {
	case map[any]any:
		var o object
		for k, value := range v {
			o = append(o, member{k.(string), meaning(value, names)})
		}
		slices.SortFunc(o, func(a, b member) int {
			if d := len(a.key) - len(b.key); d != 0 {
				return d
			}
			return strings.Compare(a.key, b.key)
		})
		return o
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = meaning(v[i], names)
		}
		return list
	case cbor.Tag:
		c, err := cid.Cast(v.Content.([]byte)[1:])
		if err != nil {
			panic(err)
		}
		return object{{"/", c.String()}}
	case []byte:
		if name, ok := names[string(v)]; ok && len(v) > 0 {
			return object{{"example", name}}
		}
		return object{{"/", object{{"bytes", base64.RawStdEncoding.EncodeToString(v)}}}}
	}
	return v
}

// object is a JSON object whose keys have an order.
type object []member

type member struct {
	key   string
	value any
}

// spell writes JSON with as few lines as fit, and floats as such.
func spell(v any, indent string) string {
	line := spellLine(v)
	if len(indent)+len(line) <= 92 {
		return line
	}
	var parts []string
	inner := indent + "  "
	brackets := "[]"
	switch v := v.(type) {
	case object:
		brackets = "{}"
		for _, m := range v {
			parts = append(parts, spellLine(m.key)+": "+spell(m.value, inner))
		}
	case []any:
		for _, e := range v {
			parts = append(parts, spell(e, inner))
		}
	default:
		return line
	}
	return brackets[:1] + "\n" + inner + strings.Join(parts, ",\n"+inner) + "\n" + indent + brackets[1:]
}

func spellLine(v any) string {
	var parts []string
	switch v := v.(type) {
	case object:
		for _, m := range v {
			parts = append(parts, spellLine(m.key)+": "+spellLine(m.value))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case []any:
		for _, e := range v {
			parts = append(parts, spellLine(e))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case float64:
		s := strconv.FormatFloat(v, 'g', -1, 64)
		if !strings.ContainsAny(s, ".e") {
			s += ".0"
		}
		return s
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// spelled is what the document says that the bytes of an example mean.
func spelled(t *testing.T, e example, names map[string]string) string {
	t.Helper()
	decode := func(b []byte) any {
		var v any
		if err := record.Decode(b, &v); err != nil {
			t.Fatalf("%s: %v", e.name, err)
		}
		return v
	}
	if e.form == "safetensors" {
		return spell(tensors(t, e), "")
	}
	v := decode(e.bytes)
	if e.form == "record" {
		envelope := v.(map[any]any)
		envelope["payload"] = decode(envelope["payload"].([]byte))
	}
	return spell(meaning(v, names), "")
}

func tensors(t *testing.T, e example) object {
	t.Helper()
	ts, metadata, err := safetensors.Unmarshal(e.bytes, safetensors.Limits{})
	if err != nil {
		t.Fatalf("%s: %v", e.name, err)
	}
	if again, err := safetensors.Marshal(ts, metadata); err != nil || !bytes.Equal(e.bytes, again) {
		t.Fatalf("%s is not what is written: %v", e.name, err)
	}
	var o object
	for k, v := range metadata {
		o = append(o, member{"__metadata__", object{{k, v}}})
	}
	for _, tensor := range ts {
		shape, numbers := []any{}, []any{}
		for _, d := range tensor.Shape {
			shape = append(shape, d)
		}
		for _, x := range tensor.F64 {
			numbers = append(numbers, x)
		}
		o = append(o, member{tensor.Name, object{{"shape", shape}, {"numbers", numbers}}})
	}
	return o
}

func namesOf(list []example) map[string]string {
	names := map[string]string{}
	for _, e := range list {
		names[string(e.bytes)] = e.name
	}
	return names
}

func TestTheExamplesOfTheFormatSayWhatTheyMean(t *testing.T) {
	_, list := examples(t)
	names := namesOf(list)
	for _, e := range list {
		switch e.form {
		case "signed":
			continue
		case "safetensors":
			if got := rawCID(e.bytes); got != e.cid {
				t.Errorf("%s: CID %s, the document says %s", e.name, got, e.cid)
			}
		default:
			if got := record.CIDOf(e.bytes).String(); got != e.cid {
				t.Errorf("%s: CID %s, the document says %s", e.name, got, e.cid)
			}
		}
		if got := spelled(t, e, names); got != e.meaning {
			t.Errorf("%s: the bytes mean\n%s\nand the document says\n%s", e.name, got, e.meaning)
		}
	}
}

// Every kind of record is there; each example passes the checks that a peer's
// record has to pass, and signing what it says gives its bytes again.
func TestTheRecordsOfTheFormat(t *testing.T) {
	_, list := examples(t)
	tasks := map[record.CID]task.Task{}
	seen := map[record.Kind]bool{}
	for _, e := range list {
		if e.form != "record" {
			continue
		}
		r, err := record.Open(e.bytes, "blue-heron")
		if err != nil {
			t.Fatalf("%s: %v", e.name, err)
		}
		name, _, _ := strings.Cut(r.Subject, "/")
		id, _ := record.ParseCID(name)
		tk := tasks[id]
		var payload any
		switch r.Kind {
		case record.KindContact:
			payload, err = contact.Of(r)
		case record.KindManifest:
			payload, err = dataset.ManifestOf(r)
		case record.KindTask:
			tk, err = task.TaskOf(r)
			payload, tasks[r.CID] = tk, tk
		case record.KindEnrolment:
			payload, err = task.EnrolmentOf(r, tk)
		case record.KindUpdate:
			payload, err = task.UpdateOf(r, tk)
		case record.KindEvaluation:
			payload, err = task.EvaluationOf(r, tk)
		case record.KindLeave:
			payload, err = task.LeaveOf(r, tk)
		case record.KindBeacon:
			payload, err = task.BeaconOf(r, tk)
		case record.KindProposal:
			_, _, err = task.VoteOf(r, id, tk)
			var p task.Proposal
			_ = record.Decode(r.Payload, &p)
			payload = p
		case record.KindPrevote, record.KindPrecommit:
			var vote agree.Vote
			_, vote, err = task.VoteOf(r, id, tk)
			payload = task.Vote{Value: vote.Value.Bytes()}
		case record.KindSeal:
			_, payload, err = task.SealOf(r, id, tk)
		}
		if err != nil {
			t.Errorf("%s: %v", e.name, err)
			continue
		}
		again, err := record.Sign(keyOf(t, r.Author), r.Federation, r.Kind, r.Subject, r.Number, payload)
		if err != nil || !bytes.Equal(again.Bytes, e.bytes) {
			t.Errorf("%s: signed again it is %x, %v", e.name, again.Bytes, err)
		}
		seen[r.Kind] = true
	}
	for _, kind := range []record.Kind{
		record.KindContact, record.KindManifest, record.KindTask, record.KindEnrolment, record.KindUpdate, record.KindEvaluation, record.KindLeave,
		record.KindBeacon, record.KindProposal, record.KindPrevote, record.KindPrecommit, record.KindSeal,
	} {
		if !seen[kind] {
			t.Errorf("no example of kind %s", kind)
		}
	}
}

// The bytes under a signature, put together by hand.
func TestTheSignedBytesOfTheFormat(t *testing.T) {
	_, list := examples(t)
	e := named(t, list, "what the signature of the leave covers")
	r, err := record.Open(named(t, list, "leave of node 2").bytes, "")
	if err != nil {
		t.Fatal(err)
	}
	signed := []byte("village record v1\x00")
	for _, field := range [][]byte{[]byte(r.Federation), []byte(r.Kind), []byte(r.Subject), r.Author[:], r.Payload} {
		signed = append(binary.BigEndian.AppendUint64(signed, uint64(len(field))), field...)
	}
	signed = binary.BigEndian.AppendUint64(signed, r.Number)
	if !bytes.Equal(signed, e.bytes) {
		t.Errorf("by hand %x", signed)
	}
	var envelope struct {
		Signature []byte `cbor:"signature"`
	}
	if err := cbor.Unmarshal(r.Bytes, &envelope); err != nil || !ed25519.Verify(r.Author[:], e.bytes, envelope.Signature) {
		t.Errorf("they do not verify: %v", err)
	}
}

// The examples are one task from its proposal to its model, which anyone can
// check from them alone.
func TestTheModelOfTheFormat(t *testing.T) {
	_, list := examples(t)
	of := func(name string) []byte { return named(t, list, name).bytes }
	var roster task.RosterContent
	if err := record.Decode(of("roster"), &roster); err != nil {
		t.Fatal(err)
	}
	in := task.Inputs{
		Task: of("task"), Roster: roster.Enrolments, Updates: [][]byte{of("update of node 1"), of("update of node 2")},
		Vectors: [][]byte{},
	}
	for _, c := range roster.Enrolments { // sorted by CID
		for _, name := range []string{"enrolment of node 1", "enrolment of node 2"} {
			if record.CIDOf(of(name)) == c {
				in.Enrolments = append(in.Enrolments, of(name))
			}
		}
	}
	v, err := task.Verify(of("seal"), in, of("model"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := record.Encode(in)
	if err != nil {
		t.Fatal(err)
	}
	if got := rawCID(b); got != v.Content.Inputs.String() || rawCID(of("model")) != v.Content.Model.String() || v.Signers != 2 {
		t.Errorf("inputs are %s, the final set says %s; signers %d", got, v.Content.Inputs, v.Signers)
	}
	if record.CIDOf(of("roster")) != v.Content.Roster {
		t.Error("another roster")
	}
	// An announced vector is named by the hashes of its chunks.
	u, err := record.Open(of("announced update"), "")
	if err != nil {
		t.Fatal(err)
	}
	wide, err := record.Open(of("wide task"), "")
	if err != nil {
		t.Fatal(err)
	}
	tk, err := task.TaskOf(wide)
	if err != nil {
		t.Fatal(err)
	}
	announced, err := task.UpdateOf(u, tk)
	if err != nil || announced.Params != nil {
		t.Fatalf("parameters %v, %v", announced.Params, err)
	}
	zeros := task.Update{Params: make([]float64, tk.Length(tk.Everyone()))}
	if zeros, vector, err := task.NewUpdate(zeros, tk); err != nil || !bytes.Equal(zeros.Chunks, announced.Chunks) || uint64(len(vector)) != announced.Size {
		t.Errorf("zeros are announced by %x, %v", zeros.Chunks, err)
	}
}

// What the document lists as refused is refused, and what it lists as the one
// way is taken.
func TestTheRefusalsOfTheFormat(t *testing.T) {
	text, _ := examples(t)
	rows := regexp.MustCompile("(?m)^\\| `([0-9a-f]+)` \\| (.*) \\|$").FindAllStringSubmatch(text, -1)
	if len(rows) < 10 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, row := range rows {
		b, err := hex.DecodeString(row[1])
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := record.Decode(b, &v); (err == nil) != strings.HasPrefix(row[2], "taken") {
			t.Errorf("%s, %s: %v", row[1], row[2], err)
		}
	}
}

// A field that is added to the wire has to be told in the document.
func TestTheFormatNamesEveryField(t *testing.T) {
	text, _ := examples(t)
	var walk func(reflect.Type)
	seen := map[reflect.Type]bool{}
	walk = func(of reflect.Type) {
		for of.Kind() == reflect.Slice || of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		if of.Kind() != reflect.Struct || seen[of] {
			return
		}
		seen[of] = true
		for i := range of.NumField() {
			f := of.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("cbor"), ",")
			if name == "-" || name == "" && !f.Anonymous {
				continue
			}
			if name != "" && !strings.Contains(text, "`"+name+"`") {
				t.Errorf("%s of %s is not in the document", name, of)
			}
			walk(f.Type)
		}
	}
	for _, v := range []any{
		contact.Contact{}, dataset.Manifest{}, task.Task{}, task.Enrolment{}, task.Update{}, task.Evaluation{}, task.Leave{}, task.Beacon{},
		task.Proposal{}, task.Vote{}, task.Seal{}, task.RosterContent{}, task.RungContent{}, task.FinalContent{}, task.Inputs{},
		learn.Errors{},
	} {
		walk(reflect.TypeOf(v))
	}
}

// Another language reads the examples too, with nothing but its standard library.
func TestAnOutsiderReadsTheFormat(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("SKIPPED: nobody from outside reads the format document, for there is no python3")
	}
	out, err := exec.Command(python, filepath.Join("testdata", "format.py"), document).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, list := examples(t)
	if want := fmt.Sprintf("%d examples", len(list)); !strings.HasPrefix(string(out), want) {
		t.Errorf("it read %q, want %s", out, want)
	}
	t.Logf("%s", out)
}
