package ingest

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"village/protocol/dataset"
)

const (
	// MaxRow is the longest row of a CSV file in bytes.
	MaxRow = 1 << 20

	window = 64 << 10 // bytes read ahead, in which the first line's delimiter is looked for
)

// CSV reads a table of comma-separated values (RFC 4180); semicolons and tabs
// are recognised by the first line. That line names the columns, unless the
// options do. The text is UTF-8, with or without a byte order mark; where not
// all of it is, it is Latin-1 from the first byte on, and a hint says so. Outer
// spaces of cells are cut off; empty cells and ?, NA, N/A, NaN and null become
// "", but for an NA that is Namibia. An error names the line where the file is
// not so.
func CSV(r io.Reader, o Options) (dataset.Packed, []string, error) {
	return readCSV(r, o, &meter{MaxTable})
}

func readCSV(r io.Reader, o Options, space *meter) (dataset.Packed, []string, error) {
	limit := &limitReader{r: r, left: MaxRow + window, total: space.left}
	buffered := bufio.NewReaderSize(limit, window)
	first, err := buffered.Peek(window)
	if err != nil && err != io.EOF {
		return dataset.Packed{}, nil, err
	}
	for _, mark := range []string{"\xff\xfe", "\xfe\xff", "\x00\x00\xfe\xff"} {
		if bytes.HasPrefix(first, []byte(mark)) {
			return dataset.Packed{}, nil, errors.New("the text is UTF-16 or UTF-32; save the file as UTF-8")
		}
	}
	mark := []byte("\xef\xbb\xbf")
	marked := bytes.HasPrefix(first, mark)
	if marked {
		first = first[len(mark):]
		if _, err := buffered.Discard(len(mark)); err != nil {
			return dataset.Packed{}, nil, err
		}
	}
	rows := &rowReader{limit: limit, csv: csv.NewReader(buffered)}
	rows.csv.Comma = delimiter(first, len(o.Columns))
	rows.csv.FieldsPerRecord = -1 // rows are compared with the names here
	rows.csv.ReuseRecord = true

	names := o.Columns
	if len(names) == 0 {
		if names, err = rows.next(); err == io.EOF {
			return dataset.Packed{}, nil, errors.New("the file is empty")
		} else if err != nil {
			return dataset.Packed{}, nil, err
		}
		names = slices.Clone(names)
	}
	if err := checkNames(names); err != nil {
		return dataset.Packed{}, nil, err
	}
	t, cells := dataset.NewPacked(names), newCells(names, o.Levels)
	for {
		row, err := rows.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return dataset.Packed{}, nil, err
		}
		if len(row) != len(t.Columns) {
			return dataset.Packed{}, nil, fmt.Errorf("line %d: the row has %d cells, but there are %d columns", rows.line, len(row), len(t.Columns))
		}
		if err := space.spend(rowBytes(row)); err != nil {
			return dataset.Packed{}, nil, fmt.Errorf("line %d: %w", rows.line, err)
		}
		for i, cell := range row {
			t.Cells[i].Append(cells.read(i, cell))
		}
	}
	if t.Rows() == 0 {
		return dataset.Packed{}, nil, errors.New("the file has no rows below its header; name the columns with --columns if it has no header")
	}

	var hints []string
	if rows.foreign > 0 {
		if marked {
			return dataset.Packed{}, nil, fmt.Errorf("line %d: the text is not UTF-8, although the file's first bytes say so; save the file as UTF-8", rows.foreign)
		}
		hints = append(hints, fmt.Sprintf("the file was read as Latin-1, because line %d is not UTF-8; if names or levels look wrong, save it as UTF-8", rows.foreign))
		if len(o.Columns) == 0 {
			decode(t.Columns)
			if err := checkNames(t.Columns); err != nil {
				return dataset.Packed{}, nil, err
			}
		}
		for i, c := range t.Cells {
			t.Cells[i] = c.Map(func(cell string) string { return cells.read(i, strings.TrimSpace(fromLatin1(cell))) })
		}
	}
	return t, append(hints, cells.unify(t)...), nil
}

// decode turns names from Latin-1 into UTF-8.
func decode(row []string) {
	for i, cell := range row {
		row[i] = strings.TrimSpace(fromLatin1(cell))
	}
}

// rowBytes is about what a row takes in memory.
func rowBytes(row []string) int64 {
	n := int64(sliceBytes)
	for _, cell := range row {
		n += stringBytes + int64(len(cell))
	}
	return n
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

// rowReader reads rows of at most MaxRow bytes.
type rowReader struct {
	limit *limitReader
	csv   *csv.Reader
	start int64 // offset of the next row
	line  int   // where the last row began

	foreign int // first line that is not UTF-8, or 0
}

// next returns the trimmed cells of the next row, until it is called again.
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
		if strings.IndexByte(cell, 0) >= 0 {
			line, _ := r.csv.FieldPos(i)
			return nil, fmt.Errorf("line %d: the text holds a zero byte, as UTF-16 and binary files do; save the file as CSV in UTF-8", line)
		}
		if r.foreign == 0 && !utf8.ValidString(cell) {
			r.foreign, _ = r.csv.FieldPos(i)
		}
		row[i] = strings.TrimSpace(cell)
	}
	return row, nil
}

// limitReader stops after left bytes, so that a row without an end is not read
// into memory. Its user adds to left what rows have consumed. It reads total
// bytes at most, also where they make no rows.
type limitReader struct {
	r           io.Reader
	left, total int64
}

func (l *limitReader) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errors.New("row too long")
	}
	if l.total <= 0 {
		return 0, errTooLarge
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.left, l.total)])
	l.left -= int64(n)
	l.total -= int64(n)
	return n, err
}
