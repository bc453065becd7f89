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

// missing are the other cells that stand for no value, beside the empty one.
var missing = map[string]bool{
	"?": true, "N/A": true, "n/a": true, "NaN": true, "nan": true, "null": true, "NULL": true,
}

// unify decides what the cells of a column mean that say NA. They are a value
// where levels has it, or where the other cells are the two-letter codes of at
// least three countries; that is then said, since it is a guess. Otherwise they
// become "".
func unify(t dataset.Table, column int, levels []string) (hint string) {
	if slices.Contains(levels, notApplicable) {
		return ""
	}
	others, countries := map[string]bool{}, alpha2()
	for _, row := range t.Rows {
		if cell := row[column]; cell != "" && cell != notApplicable {
			if !countries[cell] {
				clear(others)
				break
			}
			others[cell] = true
		}
	}
	if len(others) >= 3 {
		return fmt.Sprintf("column %s: NA was read as Namibia, because the other cells are codes of countries", t.Columns[column])
	}
	for _, row := range t.Rows {
		if row[column] == notApplicable {
			row[column] = ""
		}
	}
	return ""
}

// alpha2 returns the two-letter codes of countries.
var alpha2 = sync.OnceValue(func() map[string]bool {
	codes := map[string]bool{}
	for _, n := range home.Nations() {
		codes[n.Alpha2] = true
	}
	return codes
})
