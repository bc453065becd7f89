package datasets

import (
	"bytes"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"fmt"

	"village/protocol/dataset"
)

// rowsForm begins the rows at home. No CSV begins so, for it is not UTF-8:
// earlier versions kept the rows as CSV.
const rowsForm = "\xffrows\x01"

// pieceBytes is about how large a piece of encoded rows is.
const pieceBytes = 1 << 20

var errRows = errors.New("the rows at home are damaged")

// encodeRows writes the numbers of columns and rows, then column after column:
// its name and its cells. A cell is 0 and a text that is new in its column, or
// the number of an earlier text, counted from 1. A text is its length and its
// bytes; numbers are uvarints. All of it together is in pieces, and the cells of t are
// taken, so that nothing of a large table need be there twice.
func encodeRows(t dataset.Packed) (pieces [][]byte) {
	b := binary.AppendUvarint([]byte(rowsForm), uint64(len(t.Columns)))
	rows := t.Rows()
	b = binary.AppendUvarint(b, uint64(rows))
	text := func(s string) { b = append(binary.AppendUvarint(b, uint64(len(s))), s...) }
	numbers := map[string]uint64{} // of the texts of a column
	for j, name := range t.Columns {
		text(name)
		clear(numbers)
		next := t.Cells[j].Read()
		t.Cells[j] = nil
		for range rows {
			if len(b) > pieceBytes-binary.MaxVarintLen64 {
				pieces, b = append(pieces, b), make([]byte, 0, pieceBytes)
			}
			cell := next()
			number := numbers[cell]
			b = binary.AppendUvarint(b, number)
			if number == 0 {
				numbers[cell] = uint64(len(numbers) + 1)
				text(cell)
			}
		}
	}
	return append(pieces, b)
}

// DecodeRows reads rows at home as they are stored.
func DecodeRows(b []byte) (t dataset.Table, err error) {
	if !bytes.HasPrefix(b, []byte(rowsForm)) {
		rows, err := csv.NewReader(bytes.NewReader(b)).ReadAll()
		if err != nil || len(rows) == 0 {
			return t, fmt.Errorf("%w: %w", errRows, err)
		}
		return dataset.Table{Columns: rows[0], Rows: rows[1:]}, nil
	}
	b = b[len(rowsForm):]
	all := string(b) // of which the cells are parts
	number := func() (v uint64) {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			err, n = errRows, len(b)
		}
		b = b[n:]
		return v
	}
	text := func() string {
		size := number()
		if size > uint64(len(b)) {
			err, size = errRows, 0
		}
		start := len(all) - len(b)
		b = b[size:]
		return all[start : start+int(size)]
	}
	width, rows := number(), number()
	// A cell takes a byte at least.
	if width == 0 || width > uint64(len(b)) || rows > uint64(len(b))/width {
		return t, errRows
	}
	t.Columns, t.Rows = make([]string, width), make([][]string, rows)
	cells := make([]string, width*rows)
	for i := range t.Rows {
		t.Rows[i], cells = cells[:width:width], cells[width:]
	}
	var words []string // of a column, by number
	for j := range t.Columns {
		t.Columns[j], words = text(), words[:0]
		for _, row := range t.Rows {
			switch v := number(); {
			case v == 0:
				words = append(words, text())
				row[j] = words[len(words)-1]
			case v <= uint64(len(words)):
				row[j] = words[v-1]
			default:
				err = errRows
			}
			if err != nil {
				return dataset.Table{}, err
			}
		}
	}
	if len(b) > 0 {
		err = errRows
	}
	return t, err
}
