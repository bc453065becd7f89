package portable

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Names and descriptions come from peers: in a card they must stay what they
// are, text. (A reader may still turn a bare address into a link to itself.)

// plain takes out what a reader would not see, and makes one line of many.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r), r == '\u2028', r == '\u2029':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
	return strings.Join(strings.Fields(s), " ")
}

var escapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;",
	`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "[", `\[`, "]", `\]`, "|", `\|`, "~", `\~`, "$", `\$`, "#", `\#`, "!", `\!`, "^", `\^`)

// prose is text within a line, wherever in it but at its start.
func prose(s string) string { return escapes.Replace(plain(s)) }

// cell is text as it is, in the cell of a table: a code span, in which nothing
// means anything but a row of backticks as long as its fence.
func cell(s string) string {
	s = plain(s)
	if s == "" {
		return ""
	}
	longest, run := 0, 0
	for _, r := range s {
		if run++; r != '`' {
			run = 0
		}
		longest = max(longest, run)
	}
	fence := strings.Repeat("`", longest+1)
	if longest > 0 {
		s = " " + s + " " // which a reader takes off
	}
	// A backslash before the one that keeps a | within the cell would undo it.
	s = strings.ReplaceAll(s, `\|`, `\ |`)
	return fence + strings.ReplaceAll(s, "|", `\|`) + fence
}

// cells are some texts in one cell of a table, the first few of them.
func cells(list []string) string {
	const most = 12
	var parts []string
	for _, s := range list[:min(len(list), most)] {
		parts = append(parts, cell(s))
	}
	if n := len(list) - most; n > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", n))
	}
	return strings.Join(parts, ", ")
}

// grid is a table in Markdown. Columns in which no row has anything are left out.
type grid struct {
	head []string
	rows [][]string
}

func (g *grid) add(row ...string) { g.rows = append(g.rows, row) }

func (g *grid) String() string {
	kept := []int{}
	for i := range g.head {
		if slices.ContainsFunc(g.rows, func(row []string) bool { return row[i] != "" }) {
			kept = append(kept, i)
		}
	}
	var b strings.Builder
	line := func(row func(int) string) {
		b.WriteString("|")
		for _, i := range kept {
			b.WriteString(" " + row(i) + " |")
		}
		b.WriteString("\n")
	}
	line(func(i int) string { return g.head[i] })
	line(func(int) string { return "---" })
	for _, row := range g.rows {
		line(func(i int) string { return row[i] })
	}
	return b.String()
}
