package cluster

import (
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
	spread  sim.Spread
}

func newTrace(cfg sim.Config, sites []*member.Site) *trace {
	t := &trace{task: cfg.Task, sites: sites, mixes: make([][]float64, len(sites))}
	for _, round := range sim.Sampled(t.task.Rounds, cfg.Samples) {
		t.samples = append(t.samples, &sample{
			Point: sim.Point{Round: round}, reports: make([]*learn.Report, len(sites)), counts: learn.NewTally(t.task.SpecOf(0)),
		})
	}
	return t
}

// begins notes that a node begins a round, when as many packets and bytes have
// been sent.
func (t *trace) begins(place int, e member.Train, now time.Duration, packets, bytes uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, lead := t.sites[place].Lead(e)
	t.mixes[place] = lead
	for _, s := range t.samples {
		if s.Round >= e.Round || s.reports[place] != nil {
			continue
		}
		tally := learn.NewTally(t.task.SpecOf(0))
		t.sites[place].Tally(tally, e)
		report := tally.Counts().Report(t.task.Encoding.Classes, t.task.Encoding.Positive)
		s.reports[place] = &report
		s.counts.Unit = tally.Unit
		s.counts.Add(tally)
		s.spread.Add(lead)
		s.Virtual, s.Messages, s.Bytes = now, packets, bytes
	}
}

// points returns the samples, and how far the last mixes are apart.
func (t *trace) points() (points []sim.Point, disagreement float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.samples {
		if s.spread.Count() == 0 {
			continue // the training ended before
		}
		s.AllRows = s.counts.Counts().Report(t.task.Encoding.Classes, t.task.Encoding.Positive)
		var means sim.Means
		for _, r := range s.reports {
			if r != nil {
				means.Add(*r)
			}
		}
		s.Mean = means.Metrics()
		s.Disagreement = s.spread.Distance()
		points = append(points, s.Point)
	}
	var last sim.Spread
	for _, mix := range t.mixes {
		if mix != nil {
			last.Add(mix)
		}
	}
	return points, last.Distance()
}
