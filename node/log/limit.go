package log

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Of one peer, and of one message that concerns no peer, so many lines are written at
// once, and then one in so long. Peers cost nothing to invent, so that all of them
// together are bounded, too.
const (
	burst, every       = 10, 10 * time.Second
	allBurst, allEvery = 100, time.Second
	maxBuckets         = 1024
)

// limits counts the lines of each peer and of each message.
type limits struct {
	mu      sync.Mutex
	buckets map[string]*bucket
	all     bucket // of all peers
}

func newLimits() *limits { return &limits{buckets: map[string]*bucket{}} }

// bucket is how many lines may yet be written, and how many were left out. It fills as
// time goes by.
type bucket struct {
	left    float64
	at      time.Time
	leftOut int
}

func (b *bucket) take(now time.Time, most float64, every time.Duration) bool {
	if b.at.IsZero() {
		b.left = most
	} else if gone := now.Sub(b.at); gone > 0 {
		b.left = min(most, b.left+float64(gone)/float64(every))
	}
	b.at = now
	if b.left < 1 {
		b.leftOut++
		return false
	}
	b.left--
	return true
}

// pass says whether a line may be written, and how many like it were left out before.
func (l *limits) pass(now time.Time, peer, message string) (leftOut int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := "message " + message
	if peer != "" {
		key = "peer " + peer
	}
	b := l.buckets[key]
	if b == nil {
		if len(l.buckets) >= maxBuckets {
			clear(l.buckets)
		}
		b = &bucket{}
		l.buckets[key] = b
	}
	if !b.take(now, burst, every) || peer != "" && !l.all.take(now, allBurst, allEvery) {
		return 0, false
	}
	leftOut = b.leftOut + l.all.leftOut
	b.leftOut, l.all.leftOut = 0, 0
	return leftOut, true
}

// limited is a handler that leaves lines out.
type limited struct {
	slog.Handler
	limits *limits
}

func (h limited) Handle(ctx context.Context, r slog.Record) error {
	peer := ""
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "peer" || a.Key == "author" && peer == "" {
			peer = a.Value.String()
		}
		return true
	})
	leftOut, ok := h.limits.pass(r.Time, peer, r.Message)
	if !ok {
		return nil
	}
	if leftOut > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("left_out_before", leftOut))
	}
	return h.Handler.Handle(ctx, r)
}

func (h limited) WithAttrs(attrs []slog.Attr) slog.Handler {
	return limited{h.Handler.WithAttrs(attrs), h.limits}
}

func (h limited) WithGroup(name string) slog.Handler {
	return limited{h.Handler.WithGroup(name), h.limits}
}
