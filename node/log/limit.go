package log

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"
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
	all     *bucket // of all peers
}

func newLimits() *limits {
	return &limits{buckets: map[string]*bucket{}, all: newBucket(allBurst, allEvery)}
}

// bucket is how many lines may yet be written, and how many were left out.
type bucket struct {
	limit   *rate.Limiter
	leftOut int
}

func newBucket(most int, every time.Duration) *bucket {
	return &bucket{limit: rate.NewLimiter(rate.Every(every), most)}
}

func (b *bucket) take(now time.Time) bool {
	ok := b.limit.AllowN(now, 1)
	if !ok {
		b.leftOut++
	}
	return ok
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
		b = newBucket(burst, every)
		l.buckets[key] = b
	}
	if !b.take(now) || peer != "" && !l.all.take(now) {
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
