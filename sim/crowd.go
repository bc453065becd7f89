package sim

import (
	"fmt"
	"slices"

	"village/protocol/member"
	"village/protocol/mixing"
	"village/protocol/record"
	"village/protocol/task"
)

// crowd is the machine of a node among more than can agree on anything: the
// rounds alone. Everyone is enrolled from the start, and hears of its neighbours.
type crowd struct {
	*member.Rounds
	weight   uint64
	enrolled bool
	recent   []received // what is durable, the latest to come last
	room     int        // most of them
}

// received is a record with what it is looked for by.
type received struct {
	author int32
	number uint64
	parcel *parcel
}

// start makes the machine anew, with what is durable.

func (c *crowd) start(n *node) {
	w := n.world
	c.Rounds = member.NewRounds(member.RoundsConfig{
		Graph: w.graph, Nodes: len(w.nodes), Own: int(n.place),
		Rounds: w.cfg.Task.Rounds, Tolerance: w.cfg.Task.Tolerance, Start: w.cfg.Task.Spec().Init,
	})
	for _, q := range c.recent {
		c.Take(n.now, int(q.author), q.parcel.update)
	}
	n.ended(c.Round() == w.cfg.Task.Rounds)
}

func (c *crowd) take(n *node, p *parcel) error {
	if p.keep == 0 {
		c.Beacon(n.now, int(p.author))
	} else {
		c.Take(n.now, int(p.author), p.update)
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
			author: n.place, number: u.Round, update: u,
			keep: record.KindUpdate.Keep(), size: updateSize(len(u.Params)),
		}
		if !n.publish(p) {
			return nil
		}
		c.Take(n.now, int(n.place), u)
		const strangers = 2 // whose updates may come before their round
		c.room = p.keep * (1 + len(n.edges) + strangers)
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
		if err := n.train(member.Train{Round: round, From: mix, Roster: n.world.roster}); err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
	}
	if at := c.Wake(); at > 0 {
		n.wakeAt(at)
	}
	return nil
}

// keep holds the two newest updates of the authors who were heard last.
func (c *crowd) keep(n *node, p *parcel) bool {
	lowest, of := -1, 0
	for i := range c.recent {
		q := &c.recent[i]
		if q.author != p.author {
			continue
		}
		if q.number == p.number {
			return false
		}
		if of++; lowest < 0 || q.number < c.recent[lowest].number {
			lowest = i
		}
	}
	switch {
	case of == p.keep:
		if c.recent[lowest].number > p.number {
			return false
		}
		c.recent = slices.Delete(c.recent, lowest, lowest+1)
	case len(c.recent) >= c.room:
		stranger := slices.IndexFunc(c.recent, func(q received) bool { return q.author != n.place })
		c.recent = slices.Delete(c.recent, stranger, stranger+1)
	}
	c.recent = append(c.recent, received{p.author, p.number, p})
	return true
}

// ask is for the update of a neighbour that the own round waits for.
func (c *crowd) ask(n *node) (to int32, held []*parcel) {
	own := c.Round()
	if c.Busy() || n.done || own == 0 {
		return -1, nil
	}
	missing := slices.DeleteFunc(n.neighbours(own), func(e mixing.Edge) bool {
		return slices.ContainsFunc(c.recent, func(q received) bool { return q.author == int32(e.Node) && q.number >= own })
	})
	if len(missing) == 0 {
		return -1, nil
	}
	to = int32(missing[n.rng.IntN(len(missing))].Node)
	for _, q := range c.recent {
		if q.author == to {
			held = append(held, q.parcel)
		}
	}
	return to, held
}

// offers are the own updates: the others' are for their authors to give.
func (c *crowd) offers(n *node, held []*parcel) []*parcel {
	var own []*parcel
	for _, q := range c.recent {
		if q.author == n.place && !slices.Contains(held, q.parcel) {
			own = append(own, q.parcel)
		}
	}
	return own
}
