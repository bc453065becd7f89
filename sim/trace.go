package sim

import (
	"math"
	"slices"

	"village/protocol/learn"
	"village/protocol/member"
	"village/protocol/task"
)

// curve draws Result.Trace: at some rounds, how the nodes do and how far they
// are apart.
type curve struct {
	task    task.Task
	nodes   int
	rounds  []uint64 // that are sampled
	samples []sample
	next    int // of samples that is not folded
	trace   []Point
}

// sample adds up what the nodes had come to when they went on from a round.
type sample struct {
	Spread
	point  Point
	counts *learn.Tally // nil before the first node, and once it is folded
	means  Means
	absent int // nodes that will never pass
}

// passage is a node that goes on from a sampled round.
type passage struct {
	stamp
	sample          int
	mix             []float64
	messages, bytes uint64
	report          learn.Report // on its own test rows
}

func newCurve(t task.Task, nodes, samples int) *curve {
	c := &curve{task: t, nodes: nodes, rounds: Sampled(t.Rounds, samples)}
	c.samples = make([]sample, len(c.rounds))
	return c
}

// Sampled returns the rounds that a trace of so many samples shows: evenly, up to
// the last one that a node goes on from, which is the one before the end.
func Sampled(rounds uint64, samples int) []uint64 {
	var list []uint64
	for k := 1; k <= samples; k++ {
		share := float64(k) / float64(samples)
		round := min(uint64(math.Round(share*float64(rounds))), rounds-1)
		if round > 0 && (len(list) == 0 || round > list[len(list)-1]) {
			list = append(list, round)
		}
	}
	return list
}

// pass notes, at a node that begins a round, that it goes on from those before.
func (c *curve) pass(n *node, e member.Train) {
	for ; n.sampled < len(c.rounds) && c.rounds[n.sampled] < e.Round; n.sampled++ {
		s := n.shard
		if s.tally == nil {
			s.tally = learn.NewTally(c.task.SpecOf(0))
		}
		s.tally.Reset()
		n.site.Tally(s.tally, e)
		s.news.tallied(n.sampled, s.tally, c.task.SpecOf(0))
		s.news.passed = append(s.news.passed, passage{
			stamp: stamp{n.now, n.place}, sample: n.sampled, mix: lead(n.site, e),
			messages: n.messages, bytes: n.bytes,
			report: s.tally.Counts().Report(c.task.Encoding.Classes, c.task.Encoding.Positive),
		})
	}
}

// lead copies the parameters that a round sets out from.
func lead(site *member.Site, e member.Train) []float64 {
	_, params := site.Lead(e)
	return slices.Clone(params)
}

// count takes in what a shard has counted in a window.
func (c *curve) count(counts []tallied) {
	for _, t := range counts {
		if s := &c.samples[t.sample]; s.counts == nil {
			s.counts = t.counts
		} else {
			s.counts.Add(t.counts)
		}
	}
}

// add takes in who has passed in a window, and finishes the samples that all
// nodes have passed that ever will.
func (c *curve) add(passed []passage) {
	for _, p := range passed {
		s := &c.samples[p.sample]
		s.Add(p.mix)
		s.point.Virtual = max(s.point.Virtual, p.at)
		s.point.Messages += p.messages
		s.point.Bytes += p.bytes
		s.means.Add(p.report)
	}
	for c.next < len(c.samples) && c.samples[c.next].n+c.samples[c.next].absent == c.nodes {
		c.finish()
	}
}

// without notes that a node will pass no sample from this one on.
func (c *curve) without(sample int) {
	for k := sample; k < len(c.samples); k++ {
		c.samples[k].absent++
	}
}

// finish folds the next sample, whoever has passed it.
func (c *curve) finish() {
	s := &c.samples[c.next]
	if s.n > 0 {
		s.point.Round = c.rounds[c.next]
		s.point.AllRows = s.counts.Counts().Report(c.task.Encoding.Classes, c.task.Encoding.Positive)
		s.point.Mean = s.means.Metrics()
		s.point.Disagreement = s.Distance()
		c.trace = append(c.trace, s.point)
	}
	*s = sample{}
	c.next++
}

// tallied is what a shard's nodes that have passed a sample in a window count
// together.
type tallied struct {
	sample int
	counts *learn.Tally
}

// tallied adds what a node counts.
func (s *news) tallied(sample int, t *learn.Tally, spec learn.Spec) {
	i := slices.IndexFunc(s.counts, func(t tallied) bool { return t.sample == sample })
	if i < 0 {
		i = len(s.counts)
		s.counts = append(s.counts, tallied{sample, learn.NewTally(spec)})
	}
	s.counts[i].counts.Unit = t.Unit
	s.counts[i].counts.Add(t)
}

// Spread is how far vectors are from their mean, computed one by one (Welford).
type Spread struct {
	n       int
	mean    []float64
	squares float64
}

// Add takes a vector in, unless its length is not that of the first: it is of a
// candidate that others have dropped from a search.
func (s *Spread) Add(x []float64) {
	if s.mean == nil {
		s.mean = make([]float64, len(x))
	}
	if len(x) != len(s.mean) {
		return
	}
	s.n++
	for i, v := range x {
		d := v - s.mean[i]
		s.mean[i] += d / float64(s.n)
		s.squares += d * (v - s.mean[i])
	}
}

// Count is the number of vectors.
func (s *Spread) Count() int { return s.n }

// Distance is the root of the mean square of the vectors' distance to their mean.
func (s *Spread) Distance() float64 { return math.Sqrt(s.squares / float64(max(s.n, 1))) }

// Means are the plain means of the headline figures over nodes.
type Means struct{ accuracy, f1, rocAUC, mae, rmse, r2 mean }

// Add takes a node's figures in, as far as they are defined.
func (m *Means) Add(r learn.Report) {
	m.accuracy.add(r.Accuracy)
	m.f1.add(r.F1)
	m.rocAUC.add(r.ROCAUC)
	m.mae.add(r.MAE)
	m.rmse.add(r.RMSE)
	m.r2.add(r.R2)
}

// Metrics are the means.
func (m *Means) Metrics() task.Metrics {
	return task.Metrics{
		Accuracy: m.accuracy.value(), F1: m.f1.value(), ROCAUC: m.rocAUC.value(),
		MAE: m.mae.value(), RMSE: m.rmse.value(), R2: m.r2.value(),
	}
}

// mean is of the values that are defined.
type mean struct {
	sum float64
	n   int
}

func (m *mean) add(x *float64) {
	if x != nil {
		m.sum += *x
		m.n++
	}
}

func (m *mean) value() *float64 {
	if m.n == 0 {
		return nil
	}
	v := m.sum / float64(m.n)
	return &v
}
