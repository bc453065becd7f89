// Package cluster runs what package sim simulates with real nodes in one process:
// each is a whole daemon with its own keys, home, store and libp2p host. Only the
// packets between them are carried by this package, so that latency, bandwidth,
// loss and partitions are those of the configuration. Time is that of the clock.
package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"village/node/home"
	"village/protocol/member"
	"village/protocol/record"
	"village/protocol/task"
	"village/sim"
)

const (
	// degree is to how many earlier nodes a node is told to connect, so that the
	// mean node has twice as many neighbours.
	degree = 5
	// nowhere stands for the nation of a node that has none, which no home may
	// lack; the results do not show it.
	nowhere = "CHE"
	// showing is how often Config.Progress is called.
	showing = 250 * time.Millisecond
	// memory is what Go may take, in bytes, before it collects more often than it
	// would: two hundred nodes hold a little less than half of it.
	memory = 3 << 30
)

// Run runs the task of a configuration with real nodes, to its end, to the limit,
// or until ctx ends. What real nodes cannot do is refused before anything starts,
// by an error that names the key of the scenario. When it returns, no goroutine
// and no file of it is left. While it runs, the process has a memory limit of 3
// GiB, unless it has a lower one.
//
// It begins to count when all nodes run and know the task: then the faults begin,
// and operators say yes at Node.Enrols. In the result, Virtual is the time of the
// clock from then on, and Messages and Bytes are the packets that the nodes have
// put on the wire meanwhile, lost ones, repetitions and acknowledgements
// included. A round takes as long as it takes: Node.Step means nothing, where it
// is the same for all. Of a node that is down the result holds no model.
//
// No two runs have the same keys, timing or digest. But as peer IDs are in the
// order of the places, a run without faults has the parameters of the simulated
// one, to the last bit.
func Run(ctx context.Context, cfg sim.Config) (res sim.Result, err error) {
	tables, sites, err := check(cfg)
	if err != nil {
		return sim.Result{}, err
	}
	if before := debug.SetMemoryLimit(-1); before > memory {
		debug.SetMemoryLimit(memory)
		defer debug.SetMemoryLimit(before)
	}
	dir, err := os.MkdirTemp("", "village-cluster-")
	if err != nil {
		return sim.Result{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	c := &cluster{cfg: cfg, wire: newWire(cfg), trace: newTrace(cfg, sites)}
	defer func() { err = errors.Join(err, c.close()) }()

	if err := c.found(dir); err != nil {
		return sim.Result{}, err
	}
	if err := c.each(ctx, func(_ context.Context, p *peer) error { return p.start() }); err != nil {
		return sim.Result{}, err
	}
	if err := c.each(ctx, func(_ context.Context, p *peer) error {
		_, err := p.node.Datasets.Add(tables[p.place])
		return err
	}); err != nil {
		return sim.Result{}, err
	}
	if err := c.propose(ctx); err != nil {
		return sim.Result{}, err
	}
	if err := c.run(ctx); err != nil {
		return sim.Result{}, err
	}
	return c.result(ctx)
}

// cluster is a run.
type cluster struct {
	cfg   sim.Config
	wire  *wire
	peers []*peer // by place
	task  record.CID
	trace *trace

	updates  atomic.Uint64
	watching sync.Mutex // held while cfg.Watch runs
	before   sent       // until the faults began
	total    sent       // from then until the end
	ended    time.Duration
}

// sent counts packets.
type sent struct{ packets, bytes uint64 }

func (c *cluster) sent() sent {
	return sent{c.wire.packets.Load() - c.before.packets, c.wire.bytes.Load() - c.before.bytes}
}

// found makes the homes.
func (c *cluster) found(dir string) error {
	var homes []*home.Home
	federation := ""
	for i := range c.cfg.Nodes {
		h, err := home.Init(filepath.Join(dir, fmt.Sprint(i)), home.Options{
			Nation: nowhere, Name: "a node", Federation: federation, Listen: []string{listen(i)}, NoMDNS: true,
		})
		if err != nil {
			return err
		}
		federation = h.Config().Federation
		homes = append(homes, h)
	}
	slices.SortFunc(homes, func(a, b *home.Home) int { return a.ID.Compare(b.ID) })
	random := rand.New(rand.NewPCG(c.cfg.Seed, 0))
	for i, n := range c.cfg.Nodes {
		p := &peer{
			Node: n, place: i, cluster: c, home: homes[i], end: c.wire.ends[i],
			up: make(chan struct{}), lost: make(chan struct{}),
		}
		if err := p.home.Lock(); err != nil {
			return err
		}
		c.peers = append(c.peers, p) // which gives the lock back
		if err := p.home.Update(func(to *home.Config) error {
			if to.Name = n.Name; n.Nation != "" {
				to.Nation = n.Nation
			}
			to.Listen = []string{listen(i)}
			for _, j := range random.Perm(i)[:min(i, degree)] {
				to.Peers = append(to.Peers, listen(j)+"/p2p/"+homes[j].ID.String())
			}
			return nil
		}); err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
	}
	return nil
}

func listen(place int) string { return fmt.Sprintf("/ip4/%s/udp/%d/quic-v1", address(place), port) }

// each does the same at all nodes, a few at a time, and returns the first error.
func (c *cluster) each(ctx context.Context, do func(context.Context, *peer) error) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	places := make(chan struct{}, 2*runtime.GOMAXPROCS(0))
	var group sync.WaitGroup
	for _, p := range c.peers {
		group.Go(func() {
			select {
			case places <- struct{}{}:
			case <-ctx.Done():
				return
			}
			defer func() { <-places }()
			if ctx.Err() != nil {
				return
			}
			if err := do(ctx, p); err != nil {
				fail(p.named(ctx, err))
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

// propose publishes the task at the first node and waits until all know it.
func (c *cluster) propose(ctx context.Context) error {
	t := c.cfg.Task
	t.Nodes = nil
	for _, p := range c.peers {
		t.Nodes = append(t.Nodes, p.home.ID)
	}
	first := c.peers[0]
	proposed, err := first.node.Tasks.Propose(ctx, t)
	if err != nil {
		return first.named(ctx, err)
	}
	c.task = proposed.CID
	return c.each(ctx, func(ctx context.Context, p *peer) error {
		return p.node.Tasks.Follow(ctx, c.task, func(*member.Member) bool { return true })
	})
}

// run lets everything happen, until all nodes that are not lost are done.
func (c *cluster) run(ctx context.Context) error {
	within, fail := context.WithCancelCause(ctx)
	var happening, following sync.WaitGroup
	defer happening.Wait()
	defer fail(nil)
	spawn := func(group *sync.WaitGroup, p *peer, do func(context.Context) error) {
		group.Go(func() {
			if err := do(within); err != nil && within.Err() == nil {
				fail(p.named(within, err))
			}
		})
	}

	c.before = c.sent()
	c.wire.begin()
	for _, o := range c.cfg.Faults.Outages {
		p := c.peers[o.Node]
		spawn(&happening, p, func(ctx context.Context) error {
			if !c.wait(ctx, o.At) {
				return nil
			}
			return p.crash(ctx, o.For)
		})
	}
	for _, p := range c.peers {
		spawn(&happening, p, p.enrol)
		if p.Leaves > 0 {
			spawn(&happening, p, p.leave)
		}
		if c.cfg.Faults.Restarts > 0 {
			spawn(&happening, p, p.restarts)
		}
		spawn(&following, p, p.follow)
	}
	if c.cfg.Progress != nil {
		happening.Go(func() {
			for sleep(within, showing) {
				c.cfg.Progress(c.updates.Load())
			}
		})
	}
	all := make(chan struct{})
	go func() {
		following.Wait()
		close(all)
	}()
	var limit <-chan time.Time
	if c.cfg.Limit > 0 {
		timer := time.NewTimer(c.cfg.Limit)
		defer timer.Stop()
		limit = timer.C
	}
	select {
	case <-all:
	case <-limit:
	}
	c.ended, _ = c.wire.since()
	c.total = c.sent()
	err := context.Cause(within)
	fail(nil)
	<-all
	return err
}

// wait waits until a time after the beginning, and tells whether it has come.
func (c *cluster) wait(ctx context.Context, at time.Duration) bool {
	since, _ := c.wire.since()
	return sleep(ctx, at-since)
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// watch sees what the machine of a node asks for.
func (c *cluster) watch(place int, effect member.Effect) {
	now, _ := c.wire.since()
	switch e := effect.(type) {
	case member.Publish:
		u, ok := e.Body.(task.Update)
		if !ok {
			return
		}
		c.updates.Add(1)
		if c.cfg.Watch != nil {
			c.watching.Lock()
			defer c.watching.Unlock()
			c.cfg.Watch(now, place, u, e.Number)
		}
	case member.Train:
		sent := c.sent()
		c.trace.begins(place, e, now, sent.packets, sent.bytes)
	}
}

// result asks the nodes that are up for what they have come to.
func (c *cluster) result(ctx context.Context) (sim.Result, error) {
	res := sim.Result{
		Task: c.task, Messages: c.total.packets, Bytes: c.total.bytes, Updates: c.updates.Load(),
		Virtual: c.ended, Done: true,
	}
	h := sha256.New()
	for _, p := range c.peers {
		cid := record.CID{}
		if n := p.running(); n != nil {
			var model *task.Model
			var failed error
			if err := n.Tasks.Follow(ctx, c.task, func(m *member.Member) bool {
				if cid, model = m.Model(); cid.Defined() && res.Model == nil {
					res.Model, res.Content = model, m.Content()
					res.Results, failed = m.Results()
				}
				return true
			}); err != nil || failed != nil {
				return sim.Result{}, p.named(ctx, errors.Join(err, failed))
			}
		}
		if cid.Defined() && cid != res.Results.CID {
			return sim.Result{}, fmt.Errorf("%s: %w", p.Name, sim.ErrSplit)
		}
		res.Nodes, res.Models = append(res.Nodes, p.home.ID), append(res.Models, cid)
		res.Done = res.Done && (p.done.Load() || p.isLost())
		h.Write(p.home.ID[:])
		h.Write(cid.Bytes())
	}
	c.rename(&res.Results)
	res.Trace, res.Disagreement = c.trace.points()
	for _, n := range []uint64{res.Messages, res.Bytes, res.Updates, uint64(res.Virtual)} {
		h.Write(binary.BigEndian.AppendUint64(nil, n))
	}
	res.Digest = [32]byte(h.Sum(nil))
	return res, nil
}

// rename takes the nation from those that have none.
func (c *cluster) rename(r *task.Results) {
	nations := map[record.NodeID]string{}
	for _, p := range c.peers {
		nations[p.home.ID] = p.Nation
	}
	for i := range r.Nodes {
		r.Nodes[i].Nation = nations[r.Nodes[i].PeerID]
	}
	for i := range r.Contributions {
		if c := &r.Contributions[i]; c.Name != "" { // it has enrolled
			c.Nation = nations[c.PeerID]
		}
	}
}

// close ends all nodes at once. They need not take leave of each other.
func (c *cluster) close() error {
	for _, p := range c.peers {
		p.end.cut()
	}
	errs := make([]error, len(c.peers))
	var group sync.WaitGroup
	for i, p := range c.peers {
		group.Go(func() { errs[i] = errors.Join(p.stop(false), p.home.Unlock()) })
	}
	group.Wait()
	return errors.Join(errs...)
}
