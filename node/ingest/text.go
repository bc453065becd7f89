package ingest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"village/node/home"
	"village/protocol/dataset"
)

// windows are the characters 0x80 to 0x9F of windows-1252, in which what calls
// itself Latin-1 is written; Latin-1 proper has control characters there. The
// five that are not given away stay such.
const windows = "€\u0081‚ƒ„…†‡ˆ‰Š‹Œ\u008dŽ\u008f\u0090‘’“”•–—˜™š›œ\u009džŸ"

var latin = func() (table [256]string) {
	for i := range table {
		table[i] = string(rune(i))
	}
	for i, r := range []rune(windows) {
		table[0x80+i] = string(r)
	}
	return table
}()

// fromLatin1 returns as UTF-8 what s says in Latin-1.
func fromLatin1(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0 {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		b.WriteString(latin[s[i]])
	}
	return b.String()
}

// notApplicable is missing, or Namibia.
const notApplicable = "NA"

// isMissing says of the other cells whether they stand for no value.
func isMissing(cell string) bool {
	switch cell {
	case "", "?", "N/A", "n/a", "NaN", "nan", "null", "NULL":
		return true
	}
	return false
}

// cells reads the cells of columns: those become empty that stand for no value.
type cells struct {
	declared [][]string // levels of each column that are values all the same
	doubtful []bool     // columns with a cell that says NA
}

func newCells(columns []string, levels map[string][]string) cells {
	c := cells{make([][]string, len(columns)), make([]bool, len(columns))}
	for i, name := range columns {
		c.declared[i] = levels[name]
	}
	return c
}

// read returns what a cell of a column says.
func (c cells) read(column int, cell string) string {
	if cell == notApplicable {
		c.doubtful[column] = true
	} else if isMissing(cell) && !slices.Contains(c.declared[column], cell) {
		return ""
	}
	return cell
}

// unify decides what the cells of a column mean that say NA. They are a value
// where levels has it, or where the other cells are the two-letter codes of at
// least three countries; that is then said, since it is a guess. Otherwise they
// become "".
func (c cells) unify(t dataset.Packed) (hints []string) {
	for i, doubtful := range c.doubtful {
		switch {
		case !doubtful || slices.Contains(c.declared[i], notApplicable):
		case areCountries(t.Cells[i]):
			hints = append(hints, fmt.Sprintf("column %s: NA was read as Namibia, because the other cells are codes of countries", t.Columns[i]))
		default:
			t.Cells[i] = t.Cells[i].Map(func(cell string) string {
				if cell == notApplicable {
					return ""
				}
				return cell
			})
		}
	}
	return hints
}

// areCountries says that cells, beside those that say NA, are codes of countries.
func areCountries(c *dataset.Cells) bool {
	others, countries := map[string]bool{}, alpha2()
	next := c.Read()
	for range c.Len() {
		if cell := next(); cell != "" && cell != notApplicable {
			if !countries[cell] {
				return false
			}
			others[cell] = true
		}
	}
	return len(others) >= 3
}

// alpha2 returns the two-letter codes of countries.
var alpha2 = sync.OnceValue(func() map[string]bool {
	codes := map[string]bool{}
	for _, n := range home.Nations() {
		codes[n.Alpha2] = true
	}
	return codes
})
