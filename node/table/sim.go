package table

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"village/node/api"
)

// SimRun writes what a simulated run came to: its facts, a name and a value each,
// the figures of the nodes, a line each as long as there are few, and what the
// report has on all rows together.
func SimRun(w io.Writer, facts [][]string, r api.Report) error {
	if err := columns(w, facts); err != nil {
		return err
	}
	var b bytes.Buffer
	width := widthOf(w)
	b.WriteString("\n")
	summaryTable(&b, r, len(r.Nodes) <= 50, width)
	overallTable(&b, r, width)
	if !Kind(r).Numeric() {
		classification(&b, "all rows", r.AllRows, width)
	}
	fairness(&b, r, width)
	if r.Search != nil {
		trail(&b, *r.Search, width)
	}
	_, err := w.Write(b.Bytes())
	return err
}

// SimList writes what each scenario and each data set is.
func SimList(w io.Writer, v api.SimList) error {
	rows := shipped("SCENARIO", v.Scenarios)
	rows = append(rows, []string{""})
	return columns(w, append(rows, shipped("DATA", v.Data)...))
}

func shipped(head string, all []api.Shipped) [][]string {
	rows := [][]string{{head}}
	for _, s := range all {
		name, line := s.Name, ""
		for _, word := range strings.Fields(s.About) {
			if line != "" && len(line)+1+len(word) > 60 { // a terminal's 80 columns, without the name
				rows = append(rows, []string{name, line})
				name, line = "", ""
			}
			line = strings.TrimSpace(line + " " + word)
		}
		rows = append(rows, []string{name, line})
	}
	return rows
}

// Rows writes a head and rows of as many cells, of which none does harm to a
// terminal. Where there is no room for all it leaves out the last columns, and
// cuts the first.
func Rows(w io.Writer, rows [][]string) error { return fitted(w, rows, widthOf(w)) }

func fitted(w io.Writer, rows [][]string, width int) error {
	var g grid
	for _, row := range rows {
		var cells []string
		for _, cell := range row {
			cells = append(cells, Text(cell))
		}
		g.add(cells...)
	}
	for !g.fits(width) && len(g[0]) > 2 {
		for i, row := range g {
			g[i] = row[:len(row)-1]
		}
	}
	return g.within(w, width)
}

// Counter counts work on a terminal, and says nothing elsewhere.
type Counter struct {
	w     io.Writer
	what  string
	start time.Time
	shown time.Time
}

// NewCounter starts to count.
func NewCounter(w io.Writer, what string) *Counter {
	if f, ok := w.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
		w = nil
	}
	return &Counter{w: w, what: what, start: time.Now()}
}

// Show shows how far it is and about how long the rest takes, ten times a second
// at most.
func (p *Counter) Show(done, of int) {
	now := time.Now()
	if p.w == nil || of == 0 || now.Sub(p.shown) < 100*time.Millisecond {
		return
	}
	p.shown = now
	done = min(done, of) // rounds that were run again do not count
	left := ""
	if done > 0 {
		left = ", about " + time.Duration(float64(now.Sub(p.start))/float64(done)*float64(of-done)).Round(time.Second).String() + " left"
	}
	const width = 24
	filled := width * done / of
	fmt.Fprintf(p.w, "\r\033[K%s%s %3d %%  %d of %d %s%s",
		strings.Repeat("█", filled), strings.Repeat("░", width-filled), 100*done/of, done, of, p.what, left)
}

// Done clears the line.
func (p *Counter) Done() {
	if p.w != nil {
		fmt.Fprint(p.w, "\r\033[K")
	}
}
