package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"village/node/api"
	"village/node/home"
	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/record"
	"village/protocol/task"
)

// pace is how long the training with faults takes.
type pace struct {
	rounds uint64
	round  time.Duration
}

// forPeople has rounds in which a wait of a few seconds is little, and in which
// there is something to see.
var forPeople = pace{rounds: 20, round: 3 * time.Second}

// Who meets with what. The node that is lost for good is a small one, because
// what its rows would have taught is lost to any training; the rest of what a
// loss could do to the model would show all the same.
const (
	lateNode   = "cleveland-b"
	killedNode = "long-beach-b"
	lostNode   = "zurich-b"
)

// The links that are cut, one after the other, early and late in the training.
var (
	cutEarly = [][2]string{{"zurich-a", "budapest-b"}, {"cleveland-a", "long-beach-a"}, {"budapest-a", "cleveland-b"}, {"cleveland-a", "budapest-a"}}
	cutLate  = [][2]string{{"long-beach-a", "zurich-a"}, {"cleveland-a", "cleveland-b"}}
)

// What the run promises.
const (
	mostExtra      = .1   // of elapsed time; a busy machine may break it
	mostDifference = .005 // of accuracy
)

// calibration is how long the machine's own step is measured.
const calibration = 200 * time.Millisecond

// nowhere is what the nodes announce as their address, so that they do not find
// each other around the links.
const nowhere = "/ip4/127.0.0.1/tcp/1"

// withFaults trains twice at twice as many hospitals, with the same task:
// undisturbed, and through faults.
func (r *run) withFaults(ctx context.Context) (Result, error) {
	if r.pace == (pace{}) {
		r.pace = forPeople
	}
	whole, err := hospitals()
	if err != nil {
		return Result{}, err
	}
	steps, err := r.calibrate(halves(whole))
	if err != nil {
		return Result{}, err
	}

	var free trained
	undisturbed := filepath.Join(r.Dir, "without-faults")
	r.homes = append(r.homes, undisturbed)
	first := halves(whole)
	p := newProgress(r.Progress, first)
	p.say("first without faults: starting %d daemons", len(first))
	err = r.linked(ctx, undisturbed, first, p, func(ctx context.Context, lost func(error), links map[pair]*link) error {
		free, err = r.undisturbed(ctx, first, steps, p)
		return err
	})
	p.end()
	if err := errors.Join(err, os.RemoveAll(undisturbed)); err != nil {
		return Result{}, err
	}

	var res Result
	all := halves(whole)
	p = newProgress(r.Progress, all)
	p.say("now with faults: starting %d daemons", len(all))
	err = r.linked(ctx, r.Dir, all, p, func(ctx context.Context, lost func(error), links map[pair]*link) error {
		res, err = r.disturbed(ctx, all, steps, links, lost, p)
		if err != nil {
			return err
		}
		return res.compare(all, free)
	})
	if err != nil {
		return Result{}, err
	}
	if r.Keep {
		if err := introduce(all); err != nil { // the links end with the demo
			return Result{}, err
		}
	}
	p.say("done")
	p.end()
	if res.Extra > mostExtra {
		fmt.Fprintf(r.Progress, "warning: with faults the training took %.0f %% longer, which is more than %.0f %%; was this machine busy?\n", 100*res.Extra, 100*mostExtra)
	}
	return res, nil
}

// calibrate finds the number of local steps with which a round takes as long as
// it should, when all hospitals train on this machine at once.
func (r *run) calibrate(all []*hospital) (steps uint64, err error) {
	var manifests []dataset.Manifest
	for _, h := range all {
		cleaned, err := dataset.Clean(h.rows, options)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", h.name, err)
		}
		manifests = append(manifests, cleaned.Manifest)
	}
	encoding, err := dataset.NewEncoding(target, features, "", manifests)
	if err != nil {
		return 0, err
	}
	t := task.New("", encoding, nil)
	spec := t.SpecOf(0)
	samples := make([]dataset.Samples, len(all))
	for i, h := range all {
		train, _, err := h.divide(encoding)
		if err == nil {
			samples[i], err = encoding.Encode(train)
		}
		if err != nil {
			return 0, err
		}
		dataset.MomentsOf(samples[i]).Scaling().Apply(samples[i])
	}
	// Measured in time of the processor, so that it does not matter what else
	// the machine does now. It can be no faster than the largest hospital.
	var rows, most int
	for _, s := range samples {
		rows, most = rows+s.N, max(most, s.N)
	}
	share := max(float64(most)/float64(rows), 1/float64(runtime.GOMAXPROCS(0)))
	for steps = 1000; ; steps *= 2 {
		begin := cpuTime()
		for _, s := range samples {
			_, _, err := spec.Train(spec.Init(t.Seed), s, learn.Training{Steps: int(steps), Rate: 1 / float64(steps), L2: t.L2})
			if err != nil {
				return 0, err
			}
		}
		if took := cpuTime() - begin; took > calibration {
			fit := float64(steps) * float64(r.pace.round) / (float64(took) * share)
			return uint64(min(fit, task.MaxLocalSteps, task.MaxSteps/float64(r.pace.rounds))), nil
		}
	}
}

// cpuTime is the time that this process has had of a processor.
func cpuTime() time.Duration {
	var used syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &used) != nil {
		return 0 // not reached: the arguments are right
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// pair names a link: its second node dials the first.
type pair [2]int

// linked runs the daemons with a link between any two of them as the only way
// from one to the other.
func (r *run) linked(ctx context.Context, dir string, all []*hospital, p *progress, do func(context.Context, func(error), map[pair]*link) error) error {
	if err := r.found(dir, all); err != nil {
		return err
	}
	links := map[pair]*link{}
	defer func() {
		for _, l := range links {
			l.close()
		}
	}()
	for i, h := range all {
		for j := i + 1; j < len(all); j++ {
			l, err := newLink(fmt.Sprintf("127.0.0.1:%d", h.port))
			if err != nil {
				return err
			}
			links[pair{i, j}] = l
		}
	}
	err := configure(all, func(j int, c *home.Config) {
		c.Announce, c.Peers = []string{nowhere}, nil
		for i := range j {
			c.Peers = append(c.Peers, all[i].address(links[pair{i, j}].port()))
		}
	})
	if err != nil {
		return err
	}
	return r.while(ctx, all, p, func(ctx context.Context, lost func(error)) error {
		if err := publish(ctx, all, p); err != nil {
			return err
		}
		return do(ctx, lost, links)
	})
}

// proposal is the task of both trainings. Its rounds go as far as with the
// default steps, in many more and smaller ones.
func (r *run) proposal(all []*hospital, steps uint64) api.Propose {
	q := proposal(all)
	q.Rounds, q.LocalSteps, q.LearningRate = r.pace.rounds, steps, 1/float64(steps)
	return q
}

// trained is the end of the training without faults.
type trained struct {
	elapsed time.Duration
	cid     record.CID
	model   task.Model
}

// undisturbed trains to the seal. What the nodes reach alone is not asked for.
func (r *run) undisturbed(ctx context.Context, all []*hospital, steps uint64, p *progress) (trained, error) {
	p.say("%s proposes a task, and all join", all[0].name)
	id, err := propose(ctx, all, r.proposal(all, steps), nil, p)
	if err != nil {
		return trained{}, err
	}
	p.say("training without faults: %d rounds of %d local steps", r.pace.rounds, steps)
	o := newObserver(all, id, p)
	if err := each(ctx, all, func(ctx context.Context, i int, _ *hospital) error { return o.watch(ctx, i, api.StageEvaluating) }); err != nil {
		return trained{}, err
	}
	if err := certified(ctx, all, id); err != nil {
		return trained{}, err
	}
	shown, err := api.ShowTask.Ask(ctx, all[0].client, id)
	if err != nil {
		return trained{}, err
	}
	_, model, err := recompute(ctx, all[0], shown.ModelCID)
	return trained{elapsed: o.elapsed(), cid: shown.ModelCID, model: model}, err
}

// story is the training with faults.
type story struct {
	*run
	*observer
	links map[pair]*link
	ctx   context.Context // ends with fail
	fail  context.CancelCauseFunc

	daemons context.Context // ends when one is lost unasked
	lost    func(error)

	watches []chan struct{} // by node; closed when its watch has ended
	mending sync.WaitGroup  // waits for links that come back

	mu     sync.Mutex // guards what follows
	faults []Fault
}

// disturbed trains through the faults to the end.
func (r *run) disturbed(ctx context.Context, all []*hospital, steps uint64, links map[pair]*link, lost func(error), p *progress) (Result, error) {
	p.say("%s proposes a task, and all but %s join", all[0].name, lateNode)
	id, err := propose(ctx, all, r.proposal(all, steps), all[index(all, lateNode)], p)
	if err != nil {
		return Result{}, err
	}
	p.say("a quorum has joined; for ten seconds it waits for %s", lateNode)
	s := &story{run: r, observer: newObserver(all, id, p), links: links, daemons: ctx, lost: lost, watches: make([]chan struct{}, len(all))}
	s.ctx, s.fail = context.WithCancelCause(ctx)
	defer s.fail(nil)
	for i := range all {
		s.follow(i)
	}
	if err := s.tell(); err != nil {
		s.fail(err)
	}
	for _, watch := range s.watches {
		<-watch
	}
	s.mending.Wait()
	if err := context.Cause(s.ctx); err != nil {
		return Result{}, err
	}
	p.say("recomputing the model, and comparing with a pool of all rows")
	res, err := conclude(ctx, all, id)
	if err != nil {
		return Result{}, err
	}
	res.Elapsed = s.elapsed().Seconds()
	slices.SortStableFunc(s.faults, func(a, b Fault) int { return cmp.Compare(a.At, b.At) })
	res.Story = &Story{Faults: s.faults}
	for i := range res.Nodes {
		res.Nodes[i].Rounds = uint64(len(s.rounds[i]))
	}
	return res, res.expect()
}

// tell makes the faults happen.
func (s *story) tell() error {
	for _, chapter := range []struct {
		share float64 // of the rounds that have begun by then
		do    func() error
	}{
		{.2, s.join},
		{.25, func() error { return s.cut(cutEarly) }},
		{.45, s.restart},
		{.6, s.lose},
		{.7, func() error { return s.cut(cutLate) }},
	} {
		round := uint64(chapter.share * float64(s.pace.rounds))
		err := until(s.ctx, func() (bool, error) { return s.reached() >= round, nil })
		if err == nil {
			err = chapter.do()
		}
		if err != nil {
			return err
		}
	}
	if s.over() {
		return errors.New("the training was over before all faults had happened")
	}
	return nil
}

// join has the late node join.
func (s *story) join() error {
	h := s.all[index(s.all, lateNode)]
	_, err := api.JoinTask.Ask(s.ctx, h.client, api.Join{Task: s.id})
	s.note(JoinedLate, lateNode+" joins late", lateNode)
	return err
}

// cut cuts links, one after the other, for the time of a round each.
func (s *story) cut(links [][2]string) error {
	for _, names := range links {
		i, j := index(s.all, names[0]), index(s.all, names[1])
		l := s.links[pair{min(i, j), max(i, j)}]
		l.sever()
		mend := time.After(s.pace.round)
		s.note(Cut, fmt.Sprintf("link %s – %s cut", names[0], names[1]), names[:]...)
		if err := s.await(i, j, false); err != nil {
			return fmt.Errorf("%s and %s are still connected after their link was cut: %w", names[0], names[1], err)
		}
		select {
		case <-mend:
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		}
		l.mend()
		s.mending.Go(func() {
			if err := s.await(i, j, true); err != nil {
				s.fail(fmt.Errorf("%s and %s do not find each other again: %w", names[0], names[1], err))
				return
			}
			s.note(Reunited, fmt.Sprintf("link %s – %s back", names[0], names[1]), names[:]...)
		})
	}
	return nil
}

// await waits until two nodes both say that they are connected, or are not: for as
// long as it takes, since a busy machine may take any time.
func (s *story) await(i, j int, connected bool) error {
	return until(s.ctx, func() (bool, error) {
		for _, ends := range [][2]int{{i, j}, {j, i}} {
			answer, err := api.ListPeers.Ask(s.ctx, s.all[ends[0]].client, api.None{})
			if err != nil {
				return false, err
			}
			other := s.all[ends[1]].home.ID
			if connected != slices.ContainsFunc(answer.Peers, func(p api.Peer) bool { return p.PeerID == other && p.Connected }) {
				return false, nil
			}
		}
		return true, nil
	})
}

// restart kills a node and starts it again.
func (s *story) restart() error {
	i, err := s.kill(Killed, killedNode, " is killed")
	if err != nil {
		return err
	}
	if err := s.all[i].launch(s.daemons, s.program, s.lost); err != nil {
		return err
	}
	s.note(Restarted, killedNode+" is back", killedNode)
	s.follow(i)
	return nil
}

// lose kills a node for good.
func (s *story) lose() error {
	i, err := s.kill(Gone, lostNode, " is killed, for good")
	s.all[i].lost = true
	s.p.set(i, "lost")
	return err
}

func (s *story) kill(kind Kind, name, what string) (int, error) {
	i := index(s.all, name)
	err := s.all[i].daemon.kill()
	<-s.watches[i]
	s.p.set(i, "killed")
	s.note(kind, name+what, name)
	return i, err
}

// follow watches the task at a node until it is done, or the node is killed.
func (s *story) follow(i int) {
	ended := make(chan struct{})
	s.watches[i] = ended
	daemon := s.all[i].daemon
	go func() {
		defer close(ended)
		if err := s.watch(s.ctx, i, api.StageDone); err != nil && !daemon.shot.Load() {
			s.fail(err)
		}
	}()
}

// note keeps and shows what has happened.
func (s *story) note(kind Kind, what string, names ...string) {
	at := s.since()
	s.p.event(at, what)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, Fault{At: at.Seconds(), Kind: kind, Nodes: names, What: what})
}

// expect checks that the nodes' own report says of each of them what is true.
func (r *Result) expect() error {
	for _, n := range r.Nodes {
		want := Contributed
		switch n.Name {
		case lateNode:
			want = Late
		case lostNode:
			want = Lost
		}
		if n.State != want || n.InModel != (want != Lost) || n.Rounds == 0 {
			return fmt.Errorf("%s counts as %q after %d rounds (%s), not as %q", n.Name, n.State, n.Rounds, n.Why, want)
		}
	}
	return nil
}

// compare sets the training beside the one without faults.
func (r *Result) compare(all []*hospital, free trained) (err error) {
	survivors := slices.DeleteFunc(slices.Clone(all), func(h *hospital) bool { return h.lost })
	if r.FaultFree.Scored, err = score(free.model, survivors); err != nil {
		return err
	}
	if r.Survivors, err = score(r.model, survivors); err != nil {
		return err
	}
	r.FaultFree.Elapsed, r.FaultFree.ModelCID = free.elapsed.Seconds(), free.cid
	r.Extra = r.Elapsed/r.FaultFree.Elapsed - 1
	with, without := *r.Survivors.Accuracy, *r.FaultFree.Accuracy
	if math.Abs(with-without) > mostDifference {
		return fmt.Errorf("the accuracy on the rows of the nodes that were not lost is %.3f with faults and %.3f without", with, without)
	}
	return nil
}

// score is how well a model does on the test rows of hospitals.
func score(m task.Model, all []*hospital) (Scored, error) {
	var counts []learn.Counts
	for _, h := range all {
		_, test, err := h.divide(m.Encoding)
		if err != nil {
			return Scored{}, err
		}
		c, err := count(m, test)
		if err != nil {
			return Scored{}, err
		}
		counts = append(counts, c)
	}
	sum, err := learn.Sum(counts)
	return Scored{TestRows: sum.Rows, Metrics: headline(sum.Report(m.Encoding.Classes, m.Encoding.Positive))}, err
}

func index(all []*hospital, name string) int {
	return slices.IndexFunc(all, func(h *hospital) bool { return h.name == name })
}
