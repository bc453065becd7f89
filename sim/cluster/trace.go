package cluster

import (
	"math"
	"sync"
	"time"

	"village/protocol/learn"
	"village/protocol/member"
	"village/protocol/task"
	"village/sim"
)

// trace gathers how the nodes' mixes do while they train.
type trace struct {
	task  task.Task
	sites []*member.Site // by place; the nodes have others

	mu      sync.Mutex
	samples []*sample   // by round
	mixes   [][]float64 // that the nodes' newest rounds started from, by place
}

// sample is what the nodes had come to when they went on from a round.
type sample struct {
	sim.Point
	reports []*learn.Report // by place; nil where the node has not gone on
	counts  *learn.Tally
	spread  spread
}

// newTrace samples rounds evenly. The last one that a node goes on from is the
// one before the end.
func newTrace(cfg sim.Config, sites []*member.Site) *trace {
	t := &trace{task: cfg.Task, sites: sites, mixes: make([][]float64, len(sites))}
	last := uint64(0)
	for k := 1; k <= cfg.Samples; k++ {
		share := float64(k) / float64(cfg.Samples)
		round := min(uint64(math.Round(share*float64(t.task.Rounds))), t.task.Rounds-1)
		if round > last {
			t.samples = append(t.samples, &sample{
				Point: sim.Point{Round: round}, reports: make([]*learn.Report, len(sites)), counts: learn.NewTally(t.task.Spec()),
			})
			last = round
		}
	}
	return t
}

// begins notes that a node begins a round, when as many packets and bytes have
// been sent.
func (t *trace) begins(place int, e member.Train, now time.Duration, packets, bytes uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mixes[place] = e.From
	for _, s := range t.samples {
		if s.Round >= e.Round || s.reports[place] != nil {
			continue
		}
		tally := learn.NewTally(t.task.Spec())
		t.sites[place].Tally(tally, e.Roster, e.From)
		report := tally.Counts().Report(t.task.Encoding.Classes, t.task.Encoding.Positive)
		s.reports[place] = &report
		s.counts.Add(tally)
		s.spread.add(e.From)
		s.Virtual, s.Messages, s.Bytes = now, packets, bytes
	}
}

// points returns the samples, and how far the last mixes are apart.
func (t *trace) points() (points []sim.Point, disagreement float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.samples {
		if s.spread.n == 0 {
			continue // the training ended before
		}
		s.AllRows = s.counts.Counts().Report(t.task.Encoding.Classes, t.task.Encoding.Positive)
		s.Mean = task.Metrics{
			Accuracy: mean(s.reports, func(r *learn.Report) *float64 { return r.Accuracy }),
			F1:       mean(s.reports, func(r *learn.Report) *float64 { return r.F1 }),
			ROCAUC:   mean(s.reports, func(r *learn.Report) *float64 { return r.ROCAUC }),
		}
		s.Disagreement = s.spread.distance()
		points = append(points, s.Point)
	}
	var last spread
	for _, mix := range t.mixes {
		if mix != nil {
			last.add(mix)
		}
	}
	return points, last.distance()
}

// mean is that of a metric over the nodes for which it is defined.
func mean(reports []*learn.Report, metric func(*learn.Report) *float64) *float64 {
	sum, n := 0.0, 0
	for _, r := range reports {
		if r == nil {
			continue
		}
		if v := metric(r); v != nil {
			sum += *v
			n++
		}
	}
	if n == 0 {
		return nil
	}
	sum /= float64(n)
	return &sum
}

// spread is how far vectors are from their mean, computed one by one (Welford).
type spread struct {
	n       int
	mean    []float64
	squares float64
}

func (s *spread) add(x []float64) {
	if s.mean == nil {
		s.mean = make([]float64, len(x))
	}
	s.n++
	for i, v := range x {
		d := v - s.mean[i]
		s.mean[i] += d / float64(s.n)
		s.squares += d * (v - s.mean[i])
	}
}

// distance is the root of the mean square of the vectors' distance to their mean.
func (s *spread) distance() float64 { return math.Sqrt(s.squares / float64(max(s.n, 1))) }
