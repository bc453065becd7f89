// Package ingest reads the files in which owners keep their rows.
package ingest

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode/utf8"

	"village/protocol/dataset"
)

const (
	// MaxRow is the longest row of a file in bytes, MaxColumns the most columns.
	MaxRow     = 1 << 20
	MaxColumns = 10_000

	window = 64 << 10 // bytes read ahead, in which the first line's delimiter is looked for
)

// missing are the cells that stand for no value, beside the empty one. NA is
// among them, quoted or not: Namibia needs its alpha-3 code, NAM.
var missing = map[string]bool{
	"?": true, "NA": true, "N/A": true, "n/a": true, "NaN": true, "nan": true, "null": true, "NULL": true,
}

// File reads the CSV file at path as [CSV] does.
func File(path string, columns []string) (dataset.Table, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return dataset.Table{}, fmt.Errorf("there is no file %s", path)
	case errors.Is(err, fs.ErrPermission):
		return dataset.Table{}, fmt.Errorf("the file %s may not be read by this user", path)
	case err != nil:
		return dataset.Table{}, err
	case info.IsDir():
		return dataset.Table{}, fmt.Errorf("%s is a directory; name a CSV file in it", path)
	case !info.Mode().IsRegular():
		return dataset.Table{}, fmt.Errorf("%s is not a regular file; copy the rows into one", path)
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return dataset.Table{}, fmt.Errorf("the file %s may not be read by this user", path)
	}
	if err != nil {
		return dataset.Table{}, err
	}
	defer f.Close()
	t, err := CSV(f, columns)
	if err != nil {
		return dataset.Table{}, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// CSV reads a table of comma-separated values (RFC 4180), UTF-8 with or without
// a byte order mark; semicolons and tabs are recognised by the first line. That
// line names the columns, unless columns does. Outer spaces of cells are cut
// off; empty cells and ?, NA, N/A, NaN and null become "". An error names the
// line where the file is not so.
func CSV(r io.Reader, columns []string) (dataset.Table, error) {
	limit := &limitReader{r: r, left: MaxRow + window}
	buffered := bufio.NewReaderSize(limit, window)
	first, err := buffered.Peek(window)
	if err != nil && err != io.EOF {
		return dataset.Table{}, err
	}
	if mark := []byte("\xef\xbb\xbf"); bytes.HasPrefix(first, mark) {
		first = first[len(mark):]
		if _, err := buffered.Discard(len(mark)); err != nil {
			return dataset.Table{}, err
		}
	}
	rows := &rowReader{limit: limit, csv: csv.NewReader(buffered)}
	rows.csv.Comma = delimiter(first, len(columns))
	rows.csv.FieldsPerRecord = -1 // rows are compared with the names here

	t := dataset.Table{Columns: columns}
	if len(columns) == 0 {
		if t.Columns, err = rows.next(); err == io.EOF {
			return dataset.Table{}, errors.New("the file is empty")
		} else if err != nil {
			return dataset.Table{}, err
		}
	}
	if err := checkNames(t.Columns); err != nil {
		return dataset.Table{}, err
	}
	for {
		row, err := rows.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return dataset.Table{}, err
		}
		if len(row) != len(t.Columns) {
			return dataset.Table{}, fmt.Errorf("line %d: the row has %d cells, but there are %d columns", rows.line, len(row), len(t.Columns))
		}
		for i, cell := range row {
			if missing[cell] {
				row[i] = ""
			}
		}
		t.Rows = append(t.Rows, row)
	}
	if len(t.Rows) == 0 {
		return dataset.Table{}, errors.New("the file has no rows below its header; name the columns with --columns if it has no header")
	}
	return t, nil
}

// delimiter returns the separator of a file that starts with first: of tab,
// semicolon and comma the one that makes as many cells of the first line as
// there are columns, or, where columns is 0, the most. In doubt between comma
// and semicolon a header has commas, and numbers have decimal ones.
func delimiter(first []byte, columns int) rune {
	count, quoted := map[byte]int{}, false
	for _, b := range first {
		if b == '"' {
			quoted = !quoted
		}
		if quoted {
			continue
		}
		if b == '\n' {
			break
		}
		count[b]++
	}
	best := byte(',')
	for _, b := range []byte("\t;,") {
		if columns > 0 && count[b] == columns-1 {
			return rune(b)
		}
		if columns == 0 && count[b] > count[best] {
			best = b
		}
	}
	return rune(best)
}

func checkNames(names []string) error {
	if len(names) > MaxColumns {
		return fmt.Errorf("there are %d columns; at most %d are allowed", len(names), MaxColumns)
	}
	at := make(map[string]int, len(names))
	for i, name := range names {
		if name == "" {
			return fmt.Errorf("column %d has no name; name it in the first line of the file", i+1)
		}
		if first, ok := at[name]; ok {
			return fmt.Errorf("columns %d and %d are both named %.64q; rename one", first+1, i+1, name)
		}
		at[name] = i
	}
	return nil
}

// rowReader reads rows of at most MaxRow bytes.
type rowReader struct {
	limit *limitReader
	csv   *csv.Reader
	start int64 // offset of the next row
	line  int   // where the last row began
}

// next returns the trimmed cells of the next row.
func (r *rowReader) next() ([]string, error) {
	row, err := r.csv.Read()
	if err == io.EOF {
		return nil, io.EOF
	}
	end := r.csv.InputOffset()
	if end-r.start > MaxRow { // also where limit has cut the row off
		return nil, fmt.Errorf("the row after line %d is longer than %d bytes; perhaps a quote is not closed", r.line, MaxRow)
	}
	if wrong := (*csv.ParseError)(nil); errors.As(err, &wrong) {
		return nil, fmt.Errorf("line %d, byte %d: %w", wrong.Line, wrong.Column, wrong.Err)
	}
	if err != nil {
		return nil, err
	}
	r.limit.left += end - r.start
	r.start = end
	r.line, _ = r.csv.FieldPos(0)
	for i, cell := range row {
		if !utf8.ValidString(cell) {
			line, _ := r.csv.FieldPos(i)
			return nil, fmt.Errorf("line %d: the text is not UTF-8; save the file as UTF-8", line)
		}
		row[i] = strings.TrimSpace(cell)
	}
	return row, nil
}

// limitReader stops after left bytes, so that a row without an end is not read
// into memory. Its user adds to left what rows have consumed.
type limitReader struct {
	r    io.Reader
	left int64
}

func (l *limitReader) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errors.New("row too long")
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}
