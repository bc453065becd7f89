//go:build unix

package sim

import (
	"runtime"
	"runtime/debug"
	"syscall"
	"testing"
	"time"

	"village/protocol/dataset"
	"village/protocol/mixing"
	"village/protocol/task"
)

// BenchmarkMessage is a federation of 1,000 nodes with 4 rows and 58 parameters
// each, in which every update goes to one random partner, run event by event on
// one thread: a message with its place in the queue, its receiver's machine, the
// mixing and the local pass. Beside it, in the same run, a loop that does the
// arithmetic alone.
func BenchmarkMessage(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	nodes, t := many(1000, 4, 57, 1)
	t.Rounds, t.Mixing = 200, "random"
	var simulated, alone took
	var messages uint64
	for b.Loop() {
		d, r := timed(b, Config{Nodes: nodes, Task: t, Seed: 1})
		simulated.add(d)
		messages += r.Messages
		alone.add(arithmetic(b, nodes, t, 1))
	}
	b.ReportMetric(float64(simulated.wall.Nanoseconds())/float64(messages), "ns/message")
	b.ReportMetric(float64(alone.wall.Nanoseconds())/float64(messages), "ns/message-alone")
	simulated.against(b, alone)
}

// BenchmarkRound is a synchronous round of 10,000 nodes with 20 neighbours each,
// on all cores: all messages take as long. Beside it a loop on as many cores that
// does the arithmetic alone.
func BenchmarkRound(b *testing.B) {
	nodes, t := many(10_000, 4, 57, 1)
	t.Rounds, t.Mixing = 20, "regular:20"
	same := Delay{Min: 50 * time.Millisecond, Max: 50 * time.Millisecond}
	var simulated, alone took
	for b.Loop() {
		d, _ := timed(b, Config{Nodes: nodes, Task: t, Seed: 1, Delay: same})
		simulated.add(d)
		alone.add(arithmetic(b, nodes, t, runtime.GOMAXPROCS(0)))
	}
	rounds := float64(b.N) * float64(t.Rounds)
	b.ReportMetric(simulated.wall.Seconds()*1e3/rounds, "ms/round")
	b.ReportMetric(alone.wall.Seconds()*1e3/rounds, "ms/round-alone")
	simulated.against(b, alone)
}

// BenchmarkAllWithAll is how many messages a second fifty nodes exchange that
// agree on a roster and a model.
func BenchmarkAllWithAll(b *testing.B) {
	nodes, t := many(50, 4, 57, 1)
	t.Rounds = 50
	var simulated took
	var messages uint64
	for b.Loop() {
		d, r := timed(b, Config{Nodes: nodes, Task: t, Seed: 1})
		simulated.add(d)
		messages += r.Messages
	}
	b.ReportMetric(float64(messages)/simulated.wall.Seconds(), "messages/s")
}

// took is how long something took, on the wall's clock and of the processors.
type took struct{ wall, cpu time.Duration }

// watch begins to measure.
func watch(b *testing.B) (stop func() took) {
	cpu := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	start, used := time.Now(), cpu()
	return func() took { return took{time.Since(start), cpu() - used} }
}

func (t *took) add(u took) { t.wall, t.cpu = t.wall+u.wall, t.cpu+u.cpu }

// against reports the ratio to what the arithmetic alone took. That of the
// processors stays the same where other programs keep them busy.
func (t took) against(b *testing.B, alone took) {
	b.ReportMetric(float64(t.wall)/float64(alone.wall), "times-alone")
	b.ReportMetric(float64(t.cpu)/float64(alone.cpu), "times-alone-cpu")
}

// timed runs the events of a run, and says how long that took without what
// comes before and after.
func timed(b *testing.B, cfg Config) (took, Result) {
	b.Helper()
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // as in a study
	w, err := newWorld(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	stop := watch(b)
	if err := w.run(); err != nil {
		b.Fatal(err)
	}
	took := stop()
	r, err := w.result()
	if err != nil || !r.Done {
		b.Fatal(err, r.Done)
	}
	return took, r
}

// arithmetic does what the nodes compute, without nodes: gradient, step and mix,
// round after round.
func arithmetic(b *testing.B, nodes []Node, t task.Task, threads int) took {
	b.Helper()
	sites := make([]dataset.Samples, len(nodes))
	for i, n := range nodes {
		train, _, err := t.Encoding.Divide(n.Rows, n.Split, t.Seed)
		if err == nil {
			sites[i], err = t.Encoding.Encode(train)
		}
		if err != nil {
			b.Fatal(err)
		}
		dataset.MomentsOf(sites[i]).Scaling().Apply(sites[i])
	}
	graph, err := mixing.New(t.Mixing, len(nodes), t.Seed)
	if err != nil {
		b.Fatal(err)
	}
	spec := t.SpecOf(0)
	width := spec.Params()
	mixes, updates := make([]float64, len(nodes)*width), make([]float64, len(nodes)*width)
	type space struct {
		grad  []float64
		edges []mixing.Edge
	}
	spaces := make([]space, threads)
	for i := range spaces {
		spaces[i].grad = make([]float64, width)
	}
	each := func(do func(s *space, i int)) {
		beside(threads, func(k int) {
			for i := k * len(nodes) / threads; i < (k+1)*len(nodes)/threads; i++ {
				do(&spaces[k], i)
			}
		})
	}
	stop := watch(b)
	for round := uint64(1); round <= t.Rounds; round++ {
		each(func(s *space, i int) {
			x, u := mixes[i*width:(i+1)*width], updates[i*width:(i+1)*width]
			spec.Gradient(x, sites[i], t.L2, s.grad)
			for j, g := range s.grad {
				u[j] = x[j] - t.LearningRate*g
			}
		})
		each(func(s *space, i int) {
			x, u := mixes[i*width:(i+1)*width], updates[i*width:(i+1)*width]
			s.edges = graph.Edges(round, i, s.edges[:0])
			copy(x, u)
			for _, e := range s.edges {
				share, v := e.Share(4, 4), updates[e.Node*width:(e.Node+1)*width]
				for j := range x {
					x[j] += share * (v[j] - u[j])
				}
			}
		})
	}
	return stop()
}
