package table

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"village/node/api"
)

// SimRun writes the outcome of a simulated run.
func SimRun(w io.Writer, v api.SimRun, r api.Report) error {
	fmt.Fprintf(w, "%d nodes, %d rounds, seed %d: %.1f s of virtual time in %.2f s, %d messages\ndigest %s\n\n",
		v.Nodes, v.Rounds, v.Seed, v.VirtualSeconds, v.WallSeconds, v.Messages, v.Digest)
	if err := Summary(w, r); err != nil {
		return err
	}
	return Classification(w, "all rows", r.AllRows)
}

// Counter counts work on a terminal, and says nothing elsewhere.
type Counter struct {
	w        io.Writer
	done, of int
	what     string
	start    time.Time
	shown    time.Time
}

// NewCounter starts to count up to of.
func NewCounter(w io.Writer, of int, what string) *Counter {
	if f, ok := w.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
		w = nil
	}
	return &Counter{w: w, of: of, what: what, start: time.Now()}
}

// Add counts n more, and shows how far that is, ten times a second at most.
func (p *Counter) Add(n int) {
	p.done += n
	now := time.Now()
	if p.w == nil || p.done == 0 || now.Sub(p.shown) < 100*time.Millisecond {
		return
	}
	p.shown = now
	left := time.Duration(float64(now.Sub(p.start)) / float64(p.done) * float64(max(p.of-p.done, 0)))
	fmt.Fprintf(p.w, "\r\033[K%3d %%  %d of %d %s, about %v left", 100*p.done/max(p.of, p.done), p.done, p.of, p.what, left.Round(time.Second))
}

// Done clears the line.
func (p *Counter) Done() {
	if p.w != nil {
		fmt.Fprint(p.w, "\r\033[K")
	}
}
