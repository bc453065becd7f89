package ingest

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"village/protocol/dataset"
)

func zipped(parts ...[]byte) []byte {
	var b bytes.Buffer
	for _, part := range parts { // members of one file, as cat makes them
		w := gzip.NewWriter(&b)
		w.Write(part)
		w.Close()
	}
	return b.Bytes()
}

func readBytes(b []byte, o Options, most int64) (dataset.Table, []string, error) {
	t, hints, err := read(bytes.NewReader(b), int64(len(b)), o, most)
	return t.Table(), hints, err
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "rows.csv")
	if err := os.WriteFile(path, zipped([]byte("a,b\n1,2\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	table, _, err := File(path, Options{})
	if err != nil || !slices.Equal(table.Columns, []string{"a", "b"}) {
		t.Fatalf("%v, %v", table, err)
	}
	if err := os.WriteFile(path, []byte("a,b\n1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, want string }{
		{path, path + ": line 2"},
		{path + ".gone", "there is no file " + path + ".gone"},
		{dir, "is a directory"},
		{os.DevNull, "not a regular file"},
	} {
		if _, _, err := File(c.path, Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.path, err, c.want)
		}
	}
}

// What a file is is told by its bytes.
func TestForms(t *testing.T) {
	text := []byte("a,b\n1,2\n")
	for _, c := range []struct {
		name, columns string
		file          []byte
		want          string
	}{
		{"text", "", text, "[a b] [[1 2]]"},
		{"gzip", "", zipped(text), "[a b] [[1 2]]"},
		{"gzip of two members", "", zipped(text, []byte("3,4\n")), "[a b] [[1 2] [3 4]]"},
		{"gzip without a header", "x y", zipped([]byte("1,2\n")), "[x y] [[1 2]]"},
		{"gzip of Latin-1", "", zipped([]byte("a\n\xe9\n")), "[a] [[é]]"},
		{"Parquet", "", parquetOf(t, []small{{1, "x"}}), "[N S] [[1 x]]"},
	} {
		table, _, err := readBytes(c.file, Options{Columns: strings.Fields(c.columns)}, MaxTable)
		if got := fmt.Sprintf("%v %v", table.Columns, table.Rows); err != nil || got != c.want {
			t.Errorf("%s: %q, %v, want %q", c.name, got, err, c.want)
		}
	}
	whole := zipped(bytes.Repeat(text, 1000))
	for _, c := range []struct {
		name, columns string
		file          []byte
		want          string
	}{
		{"nothing", "", nil, "the file is empty"},
		{"gzip of nothing", "", zipped(nil), "the file is empty"},
		{"gzip of gzip", "", zipped(zipped(text)), "is not text; decompress it with gunzip first"},
		{"gzip of Parquet", "", zipped(parquetOf(t, []small{{1, "x"}})), "is not text; decompress it with gunzip first"},
		{"gzip that is cut off", "", whole[:len(whole)-9], "damaged or not whole"},
		{"gzip with a wrong checksum", "", append(whole[:len(whole)-8:len(whole)-8], make([]byte, 8)...), "damaged or not whole"},
		{"gzip without a beginning", "", []byte("\x1f\x8bnonsense"), "cannot decompress"},
		{"spreadsheet", "", []byte("PK\x03\x04..."), "save it as CSV"},
		{"Parquet with names", "a b", parquetOf(t, []small{{1, "x"}}), "leave --columns out"},
	} {
		_, _, err := readBytes(c.file, Options{Columns: strings.Fields(c.columns)}, MaxTable)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
}

// Namibia keeps its code where that can be known, and the owner is told when it
// was a guess.
func TestNamibia(t *testing.T) {
	const europe = "iso2,y\nDE,1\nHU,NA\nCH,1\nNA,2\n"
	for _, c := range []struct {
		name   string
		file   []byte
		levels map[string][]string
		want   string
		hint   bool
	}{
		{"beside other countries", []byte(europe), nil, "[[DE 1] [HU ] [CH 1] [NA 2]]", true},
		{"declared", []byte("iso2,y\nNA,NA\n"), map[string][]string{"iso2": {"DE", "NA"}}, "[[NA ]]", false},
		{"another word declared", []byte("a,b\nnull,null\n"), map[string][]string{"a": {"null"}}, "[[null ]]", false},
		{"in Parquet", parquetOf(t, []small{{1, "NA"}, {2, "?"}}), nil, "[[1 NA] [2 ?]]", false},
	} {
		table, hints, err := readBytes(c.file, Options{Levels: c.levels}, MaxTable)
		if got := fmt.Sprint(table.Rows); err != nil || got != c.want || (len(hints) > 0) != c.hint {
			t.Errorf("%s: %q, hints %q, %v, want %q", c.name, got, hints, err, c.want)
		}
	}
}

func TestLatin1IsSaid(t *testing.T) {
	_, hints, err := readBytes([]byte("a\nx\n\xe9\n"), Options{}, MaxTable)
	if err != nil || len(hints) != 1 || !strings.Contains(hints[0], "read as Latin-1, because line 3 is not UTF-8") {
		t.Errorf("hints %q, %v", hints, err)
	}
	if _, hints, err = readBytes([]byte("a\né\n"), Options{}, MaxTable); err != nil || len(hints) != 0 {
		t.Errorf("of UTF-8: hints %q, %v", hints, err)
	}
}

// A small file that becomes a large table is refused before it has.
func TestBombs(t *testing.T) {
	const most = 1 << 20
	for _, c := range []struct {
		name string
		file []byte
	}{
		{"rows", zipped([]byte("a,b\n"), bytes.Repeat([]byte("1,2\n"), 1<<20))},
		{"empty lines", zipped([]byte("a,b\n"), bytes.Repeat([]byte("\n"), 16<<20))},
		{"cells", zipped([]byte(strings.Repeat(",", 9_000)), []byte("\n"), bytes.Repeat([]byte(strings.Repeat(",", 9_000)+"\n"), 100))},
		{"text without gzip", bytes.Repeat([]byte("1,2\n"), 1<<20)},
	} {
		o := Options{Columns: []string{"a", "b"}}
		if c.name == "cells" {
			o.Columns = nil
			for i := range 9_001 {
				o.Columns = append(o.Columns, fmt.Sprint(i))
			}
		}
		if _, _, err := readBytes(c.file, o, most); !errors.Is(err, errTooLarge) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, _, err := readBytes(zipped(bytes.Repeat([]byte("x"), 2*MaxRow)), Options{}, MaxTable); err == nil || !strings.Contains(err.Error(), "is longer than") {
		t.Errorf("one long row: %v", err)
	}
}

type badDisk struct{}

func (badDisk) ReadAt([]byte, int64) (int, error) { return 0, io.ErrClosedPipe }

func TestReadAtErrorIsReported(t *testing.T) {
	if _, _, err := Read(badDisk{}, 10, Options{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

// Whatever the bytes, reading ends without a panic in an error or in a
// rectangular table of named columns that keeps to its room.
func FuzzRead(f *testing.F) {
	for _, seed := range [][]byte{
		[]byte("a,b\n1,2\n"), []byte("a\n\xe9\n"), zipped([]byte("a,b\n1,2\n")), []byte("PAR1PAR1"),
	} {
		f.Add(seed)
	}
	for _, file := range samples(f) {
		f.Add(file)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		const most = 1 << 20
		table, _, err := readBytes(file, Options{}, most)
		if err != nil {
			return
		}
		if len(table.Rows) == 0 || len(table.Columns) == 0 {
			t.Fatalf("%d rows of %q", len(table.Rows), table.Columns)
		}
		for _, row := range append(table.Rows, table.Columns) {
			if len(row) != len(table.Columns) {
				t.Fatalf("row %q under %q", row, table.Columns)
			}
			for _, cell := range row {
				if !utf8.ValidString(cell) || strings.TrimSpace(cell) != cell {
					t.Fatalf("cell %q", cell)
				}
			}
		}
	})
}
