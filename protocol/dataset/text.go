package dataset

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxColumns = 10_000 // columns of a table
	maxLevels  = 1_000  // levels of a column
	maxTitle   = 64     // runes of a display name
	maxProse   = 1_000  // runes of a description
	maxBytes   = 256    // bytes of a column name or a level
)

// checkClear refuses text that a terminal would not show as it is: invalid
// UTF-8, control characters, and the bidirectional ones, with which a name can
// pass for another.
func checkClear(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("is not UTF-8")
	}
	for _, r := range s {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
			return errors.New("holds a control or bidirectional character")
		}
	}
	return nil
}

// checkTitle checks text that is shown to people, of least to most runes.
func checkTitle(what, s string, least, most int) error {
	if n := utf8.RuneCountInString(s); n < least || n > most {
		return fmt.Errorf("%s has %d characters; %d to %d are allowed", what, n, least, most)
	}
	if err := checkClear(s); err != nil {
		return fmt.Errorf("%s %.64q %w", what, s, err)
	}
	return nil
}

// checkName checks a column name or a level.
func checkName(what, s string) error {
	if len(s) == 0 || len(s) > maxBytes {
		return fmt.Errorf("%s %.64q has %d bytes; 1 to %d are allowed", what, s, len(s), maxBytes)
	}
	if err := checkClear(s); err != nil {
		return fmt.Errorf("%s %.64q %w", what, s, err)
	}
	return nil
}

// checkLevels checks that levels are named well, canonical, sorted and unique.
func checkLevels(what string, levels []string) error {
	if len(levels) > maxLevels {
		return fmt.Errorf("%s has %d levels; at most %d are allowed", what, len(levels), maxLevels)
	}
	sorted := make([]string, len(levels))
	copy(sorted, levels)
	sortLevels(sorted)
	for i, level := range levels {
		if err := checkName(what+": level", level); err != nil {
			return err
		}
		if canonical(level) != level {
			return fmt.Errorf("%s: level %q is not written canonically", what, level)
		}
		if level != sorted[i] || i > 0 && level == sorted[i-1] {
			return fmt.Errorf("%s: the levels are not sorted and unique", what)
		}
	}
	return nil
}

// listed joins names for an error, the first few of them.
func listed(names []string) string {
	const most = 20
	if len(names) == 0 {
		return "none"
	}
	var b strings.Builder
	for i, name := range names {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(names)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(name)
	}
	return b.String()
}

// thousands writes 2878 as 2,878.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// nearest returns the name that a mistyped one was most likely meant to be, or "".
func nearest(typed string, names []string) string {
	a := []rune(strings.ToLower(typed))
	best, found := max(2, len(a)/3)+1, ""
	for _, name := range names {
		b := []rune(strings.ToLower(name))
		if max(len(a)-len(b), len(b)-len(a)) >= best {
			continue
		}
		if d := distance(a, b); d < best {
			best, found = d, name
		}
	}
	return found
}

// distance is Levenshtein's: the fewest insertions, deletions and replacements
// that turn a into b.
func distance(a, b []rune) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range a {
		diagonal := row[0]
		row[0] = i + 1
		for j := range b {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
