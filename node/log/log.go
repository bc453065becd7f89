// Package log writes the daemon's log and keeps the last error, which
// "village status" shows.
package log

import (
	"log/slog"
	"os"
	"sync/atomic"
)

// Log is a logger that every room of the daemon shares.
type Log struct {
	*slog.Logger
	last atomic.Pointer[string]
}

// New returns a log over a logger; nil stands for lines of text on standard error.
func New(logger *slog.Logger) *Log {
	if logger == nil {
		logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return &Log{Logger: logger}
}

// Fail notes an error that no caller waits for.
func (l *Log) Fail(err error) {
	text := err.Error()
	l.last.Store(&text)
	l.Error(text)
}

// Last is the text of the newest error that was noted, "" before the first.
func (l *Log) Last() string {
	if text := l.last.Load(); text != nil {
		return *text
	}
	return ""
}
