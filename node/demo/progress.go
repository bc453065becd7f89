package demo

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"village/node/api"
)

// progress shows how far the nodes are: on a terminal as a table that is
// redrawn in its place, else as a line now and then.
type progress struct {
	w     io.Writer
	width int // of the terminal; 0 where there is none

	mu    sync.Mutex // guards what follows
	step  string
	nodes []state
	drawn bool
}

type state struct {
	label         string
	rows          int
	stage         string
	round, rounds uint64
}

func newProgress(w io.Writer, all []*hospital) *progress {
	p := &progress{w: w}
	for _, h := range all {
		p.nodes = append(p.nodes, state{label: h.label(), rows: len(h.rows.Rows), stage: "–"})
	}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.width = 80
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			p.width = width
		}
	}
	return p
}

// say names the step that begins.
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.step = fmt.Sprintf(format, args...)
	if p.width == 0 {
		fmt.Fprintln(p.w, p.step)
		return
	}
	p.draw()
}

// end sets the table apart from what follows it.
func (p *progress) end() {
	if p.drawn {
		fmt.Fprintln(p.w)
	}
}

// set notes the stage of a node.
func (p *progress) set(i int, stage string) { p.update(i, stage, 0, 0) }

// task notes how far a node is with the task.
func (p *progress) task(i int, t api.ShownTask) {
	if t.Joined {
		p.update(i, t.Stage, t.Round, t.Rounds)
	} else {
		p.set(i, "has not joined")
	}
}

// event writes a line that stays, above the table.
func (p *progress) event(at time.Duration, what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	line := fmt.Sprintf("%6.1f s  %s", at.Seconds(), what)
	if p.width == 0 {
		fmt.Fprintln(p.w, line)
		return
	}
	if p.drawn {
		fmt.Fprintf(p.w, "\x1b[%dA", 1+len(p.nodes))
		p.drawn = false
	}
	io.WriteString(p.w, p.fit(line))
	p.draw()
}

func (p *progress) update(i int, stage string, round, rounds uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := &p.nodes[i]
	was := *n
	n.stage, n.round, n.rounds = stage, round, rounds
	switch {
	case *n == was:
	case p.width > 0:
		p.draw()
	case stage != was.stage || rounds > 0 && round*4/rounds > was.round*4/rounds: // at every quarter
		fmt.Fprintln(p.w, n.line())
	}
}

func (s state) line() string {
	line := fmt.Sprintf("  %-14s  %3d rows  %s", s.label, s.rows, s.stage)
	if s.rounds > 0 {
		line += fmt.Sprintf(", round %d of %d", s.round, s.rounds)
	}
	return line
}

// draw writes the table over the one before.
func (p *progress) draw() {
	var b strings.Builder
	if p.drawn {
		fmt.Fprintf(&b, "\x1b[%dA", 1+len(p.nodes))
	}
	lines := []string{p.step}
	for _, n := range p.nodes {
		lines = append(lines, n.line())
	}
	for _, line := range lines {
		b.WriteString(p.fit(line))
	}
	io.WriteString(p.w, b.String())
	p.drawn = true
}

// fit is a line over what was there, cut to the terminal's width: one that wraps
// would move the table.
func (p *progress) fit(line string) string {
	if utf8.RuneCountInString(line) >= p.width {
		line = string([]rune(line)[:p.width-1])
	}
	return "\r\x1b[2K" + line + "\n"
}
