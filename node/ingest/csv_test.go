package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCSV(t *testing.T) {
	for _, c := range []struct {
		name, file, columns, want string
	}{
		{"header", "a,b\n1,2\n3,4\n", "", "[a b] [[1 2] [3 4]]"},
		{"no last newline, CRLF", "a,b\r\n1,2\r\n3,4", "", "[a b] [[1 2] [3 4]]"},
		{"no header", "1,2\n3,4\n", "a b", "[a b] [[1 2] [3 4]]"},
		{"byte order mark", "\xef\xbb\xbfa,b\n1,2\n", "", "[a b] [[1 2]]"},
		{"quotes", "\"a\",\"b,\"\"x\"\"\"\n\"1\n2\",3\n", "", "[a b,\"x\"] [[1\n2 3]]"},
		{"outer spaces", " a ,b\n 1 , 2\t\n", "", "[a b] [[1 2]]"},
		{"missing", "a,b,c,d\n?,NA,N/A,NaN\nnull,,  ,\" NULL \"\n", "", "[a b c d] [[   ] [   ]]"},
		{"not missing", "a,b,c,d\nNAM,none,0,-\n", "", "[a b c d] [[NAM none 0 -]]"},
		{"NA alone", "iso2,y\nNA,1\n\"NA\",1\n", "", "[iso2 y] [[ 1] [ 1]]"},
		{"NA beside too few countries", "sure,y\nNO,1\nNA,1\nSI,1\n", "", "[sure y] [[NO 1] [ 1] [SI 1]]"},
		{"NA beside codes that are not all of countries", "state,y\nAL,1\nAR,1\nCA,1\nTX,1\nNA,1\n", "", "[state y] [[AL 1] [AR 1] [CA 1] [TX 1] [ 1]]"},
		{"a header may say NA", "NA,?\n1,2\n", "", "[NA ?] [[1 2]]"},
		{"semicolons", "a;b,c;d\n1,5;2;3\n", "", "[a b,c d] [[1,5 2 3]]"},
		{"tabs", "a\tb\n1\t2\n", "", "[a b] [[1 2]]"},
		{"delimiters in quotes", "\"a;b;c\",d\n1,2\n", "", "[a;b;c d] [[1 2]]"},
		{"decimal commas without a header", "1,5;2,5;3\n", "a b c", "[a b c] [[1,5 2,5 3]]"},
		{"one column", "a\n1\n2\n", "", "[a] [[1] [2]]"},
		{"empty lines", "a,b\n\n1,2\n\n", "", "[a b] [[1 2]]"},
		{"Latin-1", "a,b\n1,2\n\xe9t\xe9,\x80 5\n", "", "[a b] [[1 2] [été € 5]]"},
		{"Latin-1 names", "Temperature(\xb0C),Hour\n-5.2,0\n", "", "[Temperature(°C) Hour] [[-5.2 0]]"},
		{"Latin-1 after UTF-8", "a\ncaf\xc3\xa9\ncaf\xe9\n", "", "[a] [[cafÃ©] [café]]"},
		{"Latin-1 under given names", "\xe9,2\n", "caf\u00e9 b", "[café b] [[é 2]]"},
		{"UTF-8", "név,y\nŐri,1\n", "", "[név y] [[Őri 1]]"},
	} {
		packed, _, err := CSV(strings.NewReader(c.file), Options{Columns: strings.Fields(c.columns)})
		table := packed.Table()
		if got := fmt.Sprintf("%v %v", table.Columns, table.Rows); err != nil || got != c.want {
			t.Errorf("%s: %q, %v, want %q", c.name, got, err, c.want)
		}
	}
}

func TestCSVRefuses(t *testing.T) {
	long := strings.Repeat("x", MaxRow)
	for _, c := range []struct{ name, file, columns, want string }{
		{"empty file", "", "", "the file is empty"},
		{"only a header", "a,b\n", "", "no rows"},
		{"nothing under given names", "", "a b", "no rows"},
		{"short row", "a,b\n1,2\n3\n", "", "line 3: the row has 1 cells, but there are 2 columns"},
		{"long row", "a,b\n\"1\n\",2\n3,4,5\n", "", "line 4: the row has 3 cells"},
		{"names that do not fit", "1,2\n", "a b c", "line 1: the row has 2 cells, but there are 3 columns"},
		{"duplicate names", "a,b,a\n1,2,3\n", "", `columns 1 and 3 are both named "a"`},
		{"duplicate names given", "1,2\n", "a a", `columns 1 and 2 are both named "a"`},
		{"nameless column", "a,,c\n1,2,3\n", "", "column 2 has no name"},
		{"too many columns", strings.Repeat("a,", MaxColumns) + "a\n1\n", "", "10001 columns"},
		{"UTF-8 by its mark, Latin-1 in truth", "\xef\xbb\xbfa,b\n1,2\n\xe9,2\n", "", "line 3: the text is not UTF-8"},
		{"Latin-1 names that are one", "a,a\xa0\n1,2\n", "", `columns 1 and 2 are both named "a"`},
		{"UTF-16", "\xff\xfea\x00,\x00b\x00\n\x00", "", "the text is UTF-16 or UTF-32; save the file as UTF-8"},
		{"UTF-16, big end first", "\xfe\xff\x00a\x00,\x00b\x00\n", "", "the text is UTF-16 or UTF-32"},
		{"UTF-32", "\x00\x00\xfe\xff\x00\x00\x00a", "", "the text is UTF-16 or UTF-32"},
		{"UTF-16 without a mark", "a\x00,\x00b\x00\n\x001\x00,\x002\x00", "", "line 1: the text holds a zero byte"},
		{"bare quote", "a,b\n1,2\n3,4\"5\n", "", "line 3, byte 4"},
		{"open quote", "a,b\n1,2\n3,\"4\n5", "", "line 4"},
		{"row over the limit", "a,b\n1,2\n" + long + ",2\n", "", "the row after line 2 is longer than 1048576 bytes"},
		{"header over the limit", long + ",b\n", "", "longer than 1048576 bytes"},
		{"last row over the limit", "a,b\n1,2\n3," + long, "", "the row after line 2 is longer"},
		{"quoted row over the limit", "a,b\n\"" + strings.Repeat("x\n", MaxRow/2) + "\",2\n", "", "the row after line 1 is longer"},
	} {
		_, _, err := CSV(strings.NewReader(c.file), Options{Columns: strings.Fields(c.columns)})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
}

// The longest row is read, wherever it stands in the window read ahead.
func TestLongestRow(t *testing.T) {
	for _, before := range []int{0, 1, 1000, 20_000} {
		row := strings.Repeat("x", MaxRow-4) + ",22\n"
		file := "\xef\xbb\xbfa,b\n" + strings.Repeat("1,2\n", before) + row + row + "1,2\n" + strings.TrimSuffix(row, "\n")
		table, _, err := CSV(strings.NewReader(file), Options{})
		if err != nil || table.Rows() != before+4 {
			t.Errorf("after %d rows: %d rows, %v", before, table.Rows(), err)
		}
	}
}

// endless is a line without an end.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = "ab,"[(e.read+i)%3]
	}
	e.read += len(p)
	return len(p), nil
}

func TestEndlessLineIsNotRead(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	source := &endless{}
	_, _, err := CSV(source, Options{})
	runtime.ReadMemStats(&after)
	if err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Fatalf("error %v", err)
	}
	if source.read > 2*MaxRow {
		t.Errorf("%d bytes were read", source.read)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 128<<20 {
		t.Errorf("%d bytes were allocated", grown)
	}
	quoted := &endless{}
	if _, _, err := CSV(io.MultiReader(strings.NewReader("a,b\n1,2\n\""), quoted), Options{}); err == nil || quoted.read > 2*MaxRow {
		t.Errorf("of an endless quoted cell %d bytes were read, error %v", quoted.read, err)
	}
}

func TestReadErrorIsReported(t *testing.T) {
	broken := errors.New("disk on fire")
	for _, file := range []string{"", "a,b\n1,2\n", "a,b\n1,2\n3", strings.Repeat("a,b\n", 100_000)} {
		_, _, err := CSV(io.MultiReader(strings.NewReader(file), &failing{broken}), Options{})
		if !errors.Is(err, broken) {
			t.Errorf("after %d bytes: %v", len(file), err)
		}
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

// Whatever the bytes, reading ends without a panic in an error or in a
// rectangular table of named columns.
func FuzzCSV(f *testing.F) {
	for _, seed := range []string{"a,b\n1,2\n", "\xef\xbb\xbfa;b\n?;NA\n", "a\tb\n\"x\ny\"\t2\n", "\"a,b\n", "\xff\xfea", ",\n1,2", "a,a\n1,2\n", "\n\n\r\n"} {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	f.Fuzz(func(t *testing.T, file []byte, named bool) {
		var columns []string
		if named {
			columns = []string{"x", "y"}
		}
		packed, _, err := CSV(bytes.NewReader(file), Options{Columns: columns})
		if err != nil {
			return
		}
		table := packed.Table()
		if len(table.Rows) == 0 || len(table.Columns) == 0 || named && !slices.Equal(table.Columns, columns) {
			t.Fatalf("%d rows of %q", len(table.Rows), table.Columns)
		}
		seen := map[string]bool{}
		for _, name := range table.Columns {
			if name == "" || seen[name] {
				t.Fatalf("columns %q", table.Columns)
			}
			seen[name] = true
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
