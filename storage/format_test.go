package storage

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"village/protocol/record"
)

// entry is a key with its value, as the format document writes them: a value that
// is one of the document's examples is called by its name.
type entry struct {
	Key   string `json:"key"`
	Seal  string `json:"seal,omitempty"`
	Value string `json:"value"`
}

// TestTheStoreOfTheFormat does six writes and compares every key and value in the
// database with those in the format document.
func TestTheStoreOfTheFormat(t *testing.T) {
	document, err := os.ReadFile(filepath.Join("..", ".github", "docs", "format.md"))
	if err != nil {
		t.Fatal(err)
	}
	name := map[string]string{} // of an example, by its bytes
	example := map[string][]byte{}
	for _, m := range regexp.MustCompile("(?s)\n#### [a-z-]+: ([^\n]+)\n[^#]*?```hex\n(.*?)\n```\n").FindAllStringSubmatch(string(document), -1) {
		b, err := hex.DecodeString(strings.ReplaceAll(m[2], "\n", ""))
		if err != nil {
			t.Fatal(err)
		}
		name[string(b)], example[m[1]] = m[1], b
	}
	block := regexp.MustCompile("(?s)\n#### store: [^\n]+\n\n```json\n(.*?)\n```\n").FindSubmatch(document)
	var want []entry
	if block == nil {
		t.Fatal("the document shows no store")
	}
	if err := json.Unmarshal(block[1], &want); err != nil {
		t.Fatal(err)
	}

	s := open(t, t.TempDir())
	put := func(name string, want Outcome) record.Record {
		t.Helper()
		r, err := record.Open(example[name], "")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := s.PutRecord(r); err != nil || got != want {
			t.Fatalf("%s: %v, %v", name, got, err)
		}
		return r
	}
	manifest := put("manifest of node 1", Stored)
	put("update of node 2", Stored)
	put("other update of node 2", Equivocation)
	if _, _, err := s.AddArtifact(context.Background(), bytes.NewReader(example["model"])); err != nil {
		t.Fatal(err)
	}
	if err := s.PutRows(manifest.CID, []byte("age,sick\n61,yes\n")); err != nil {
		t.Fatal(err)
	}
	if err := s.PutPrivate("salt/"+manifest.CID.String(), bytes.Repeat([]byte{7}, 32)); err != nil {
		t.Fatal(err)
	}

	var got []entry
	err = s.scan(nil, true, func(key, value []byte) error {
		e := entry{Key: hex.EncodeToString(key)}
		if key[0] != spaceRecord && key[0] != spaceBlock {
			e.Seal, value = hex.EncodeToString(value[:32]), value[32:]
		}
		if e.Value = name[string(value)]; e.Value == "" {
			e.Value = hex.EncodeToString(value)
		}
		got = append(got, e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	claims, err := os.ReadFile(filepath.Join(s.dir, journalName))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(claims, example["of that store"]) {
		t.Errorf("the journal holds\n%s\nand the document says otherwise", strings.Join(wrapped(hex.EncodeToString(claims)), "\n"))
	}
	a, _ := json.MarshalIndent(got, "", "  ")
	b, _ := json.MarshalIndent(want, "", "  ")
	if !bytes.Equal(a, b) {
		t.Errorf("the store holds\n%s\nand the document says\n%s", a, b)
	}
}

func wrapped(s string) (lines []string) {
	for len(s) > 96 {
		lines, s = append(lines, s[:96]), s[96:]
	}
	return append(lines, s)
}
