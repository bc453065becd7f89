// Package log writes the daemon's log, bounded whatever peers do, and keeps the last
// error, which "village status" shows.
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

// New returns a log over a logger; nil stands for lines of text on standard error. What
// a peer causes is logged with the attribute "peer" or "author".
func New(logger *slog.Logger) *Log {
	if logger == nil {
		logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return &Log{Logger: slog.New(limited{logger.Handler(), newLimits()})}
}

// Fail notes an error that no caller waits for, with attributes as of slog.
func (l *Log) Fail(err error, attributes ...any) {
	text := err.Error()
	l.last.Store(&text)
	l.Error(text, attributes...)
}

// Last is the text of the newest error that was noted, "" before the first.
func (l *Log) Last() string {
	if text := l.last.Load(); text != nil {
		return *text
	}
	return ""
}
