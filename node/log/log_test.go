package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// TestALogIsBounded: no peer, no crowd of them and no error that comes again and again
// fills the log, and none keeps others out of it.
func TestALogIsBounded(t *testing.T) {
	var b bytes.Buffer
	h := New(slog.New(slog.NewTextHandler(&b, nil))).Handler()
	start := time.Unix(1, 0)
	say := func(after time.Duration, message string, attrs ...any) {
		r := slog.NewRecord(start.Add(after), slog.LevelWarn, message, 0)
		r.Add(attrs...)
		if err := h.Handle(context.Background(), r); err != nil {
			t.Error(err)
		}
	}
	lines := func() int { defer b.Reset(); return strings.Count(b.String(), "\n") }

	for i := range 1000 {
		say(time.Duration(i)*time.Millisecond, fmt.Sprint("refused ", i), "peer", "one")
	}
	if n := lines(); n != burst {
		t.Errorf("%d lines of one peer", n)
	}
	say(time.Second, "refused", "author", "other")
	if n := lines(); n != 1 {
		t.Errorf("%d lines of another", n)
	}
	say(time.Second+every, "refused", "peer", "one")
	if s := b.String(); !strings.Contains(s, fmt.Sprint("left_out_before=", 1000-burst)) {
		t.Errorf("%q does not say what was left out", s)
	}
	lines()
	for i := range 10_000 {
		say(time.Minute, "refused", "peer", fmt.Sprint(i))
	}
	if n := lines(); n != allBurst {
		t.Errorf("%d lines of ten thousand peers", n)
	}
	for i := range 100 {
		say(time.Minute, fmt.Sprint("something else ", i))
		say(time.Minute, "the disk is full")
	}
	if n := lines(); n != 100+burst {
		t.Errorf("%d lines of the node's own", n)
	}
}

func TestLast(t *testing.T) {
	l := New(slog.New(slog.DiscardHandler))
	if l.Last() != "" {
		t.Error(l.Last())
	}
	for i := range 100 { // most of which the log leaves out
		l.Fail(errors.New("the same"), "peer", i%2)
	}
	l.Fail(errors.New("the last"))
	if l.Last() != "the last" {
		t.Error(l.Last())
	}
}
