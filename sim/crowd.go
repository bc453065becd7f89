package sim

import (
	"fmt"
	"slices"

	"village/protocol/member"
	"village/protocol/record"
	"village/protocol/task"
)

// crowd is the machine of a node among more than can agree on anything: the
// rounds alone. Everyone is enrolled from the start, and hears of its neighbours.
type crowd struct {
	*member.Rounds
	weight   uint64
	enrolled bool
	own      []*parcel // its two newest updates, newest first
	owing    []int
}

// start makes the machine anew, with what it held, which was durable.
func (c *crowd) start(n *node) error {
	w, before := n.world, c.Rounds
	c.Rounds = member.NewRounds(member.RoundsConfig{
		Graph: w.graph, Nodes: len(w.nodes), Own: int(n.place),
		Rounds: w.cfg.Task.Rounds, Tolerance: w.cfg.Task.Tolerance, Start: func() []float64 { return w.cfg.Task.First(nil) },
	})
	if before != nil {
		before.Updates(func(from int, u *member.Update) { c.Take(n.now, from, u) })
	}
	for _, p := range slices.Backward(c.own) {
		c.Take(n.now, int(n.place), &p.update)
	}
	n.ended(c.Round() == w.cfg.Task.Rounds)
	return c.advance(n)
}

// stop has nothing to do: a crash ends none of its steps but the last.
func (c *crowd) stop() {}

func (c *crowd) take(n *node, p *parcel) error {
	if p.keep == 0 {
		c.Beacon(n.now, int(p.author))
	} else if !c.Take(n.now, int(p.author), &p.update) {
		return nil // it is old
	}
	return c.advance(n)
}

func (c *crowd) step(n *node, e member.Event) error {
	switch e := e.(type) {
	case member.Enrol:
		c.enrolled = true
	case member.Trained:
		u := c.Finish(e.Round, c.weight, e.Params)
		if watch := n.world.cfg.Watch; watch != nil {
			n.shard.news.publish(n, u.Round, task.Update{
				Task: n.world.id, Roster: n.world.roster.CID, Weight: u.Weight, Previous: u.Previous, Settled: u.Settled, Params: u.Params,
			})
		}
		p := &parcel{
			author: n.place, number: u.Round, update: *u,
			keep: record.KindUpdate.Keep(), size: updateSize(len(u.Params)),
		}
		if !n.store(p) {
			return nil
		}
		c.Take(n.now, int(n.place), &p.update)
		if n.send(p); !n.up {
			return nil
		}
		n.ended(u.Round == n.world.cfg.Task.Rounds)
	case member.Leave:
		n.crash(0, false)
		return nil
	}
	return c.advance(n)
}

// advance does what the state now allows.
func (c *crowd) advance(n *node) error {
	if !c.enrolled {
		return nil
	}
	if round, mix, ok := c.Next(n.now); ok {
		if err := n.train(member.Train{Round: round, From: mix, Own: c.Own(), Kept: n.world.everyone, Roster: n.world.roster}); err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
	}
	if at := c.Wake(); at > 0 {
		n.wakeAt(at)
	}
	return nil
}

// keep leaves the others' updates to the machine, which knows which it needs.
func (c *crowd) keep(n *node, p *parcel) (*parcel, bool) {
	if p.author == n.place {
		c.own = slices.Insert(c.own, 0, p)
		c.own = c.own[:min(len(c.own), p.keep)]
	}
	return p, true
}

// ask is for the update of a neighbour that the next round waits for.
func (c *crowd) ask(n *node) (to int32, held []*parcel) {
	c.owing = c.Owing(c.owing[:0])
	if len(c.owing) == 0 {
		return -1, nil
	}
	return int32(c.owing[n.rng.IntN(len(c.owing))]), nil
}

// offers are the own updates: the others' are for their authors to give.
func (c *crowd) offers(n *node, held []*parcel) []*parcel { return c.own }
