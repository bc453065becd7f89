package member

import (
	"math"
	"math/bits"
	"slices"
	"time"

	"village/protocol/mixing"
	"village/protocol/record"
)

// Rounds is the half of the machine that trains: updates of the nodes that are
// mixed with go in, and out comes when the next round may begin and from what.
// A [Member] has one; a simulation of more nodes than can agree on anything runs
// it alone.
type Rounds struct {
	cfg    RoundsConfig
	peers  []*peer // in the order of their places; all nodes where cfg.All
	places []int32 // of peers
	own    *peer   // nil for a node that does not train
	free   []*peer // forgotten
	edges  []mixing.Edge
	mixers []*peer   // of edges, in their order
	at     int       // in peers, of the one that was looked for last
	space  []float64 // of the newest mix, where that is not kept

	busy    bool          // from Next until the own update is held
	mix     []float64     // what the newest round started from
	settled bool          // whether that had come to rest
	since   time.Duration // when the own newest update was held
	takes   time.Duration // how long a round takes while a quorum takes part
	limit   uint64        // the last round that may begin, 0 = that of the task
	wake    time.Duration // when Next may have another answer, 0 = when something is heard
	slowest time.Duration // the longest recent wait for anyone
	highest uint64        // the highest round seen
	blocker *peer         // one that the next round waits for
}

// RoundsConfig is what training depends on.
type RoundsConfig struct {
	Graph     *mixing.Graph // over the places of all nodes
	Nodes     int
	Own       int // place of this node, or -1 if it does not train
	Rounds    uint64
	Tolerance float64          // see task.Task
	Start     func() []float64 // what the first round starts from

	// All says that every update reaches every node, as gossip does. Else a
	// node hears of its neighbours alone.
	All bool
	// Fewest is how many nodes have to be heard of for training to run to its
	// end, and Recent how many rounds before the end it stops without them. A
	// nil Fewest asks for none.
	Fewest func() int
	Recent uint64
}

// Update is a held update.
type Update struct {
	CID      record.CID
	Round    uint64
	Previous uint64 // round of the author's update before
	Weight   uint64 // the author's training rows
	Settled  bool
	Params   []float64
	Kept     []int     // candidates of a search that Params are of
	Losses   []float64 // of these, in an update that ends a rung
	Rows     uint64    // that the losses are over
}

// peer is what is held of a node.
type peer struct {
	place   int
	part    bool      // it takes part: its updates count
	updates []*Update // at most two, newest first
	room    [2]*Update
	pace    pace
}

// NewRounds returns the machine before its first round.
func NewRounds(cfg RoundsConfig) *Rounds {
	r := &Rounds{cfg: cfg}
	switch {
	case cfg.All:
		for i := range cfg.Nodes {
			r.places = append(r.places, int32(i))
		}
	case cfg.Own >= 0:
		r.places = []int32{int32(cfg.Own)}
		if cfg.Graph.Period() == 1 {
			for _, e := range r.neighbours(1) {
				r.places = append(r.places, int32(e.Node))
			}
			slices.Sort(r.places)
		}
	}
	peers := make([]peer, len(r.places)) // beside each other in memory
	r.peers = make([]*peer, len(peers))
	for i, place := range r.places {
		r.peers[i] = &peers[i]
		peers[i].place, peers[i].part = int(place), !cfg.All
		if int(place) == cfg.Own {
			r.own = r.peers[i]
		}
	}
	return r
}

// peer returns what is held of a node.
func (r *Rounds) peer(place int) *peer {
	if r.cfg.All {
		return r.peers[place]
	}
	// What was sent at one time comes in the order of the senders.
	if next := r.at + 1; next < len(r.places) && r.places[next] == int32(place) {
		r.at = next
		return r.peers[next]
	}
	i, found := slices.BinarySearch(r.places, int32(place))
	r.at = i
	if !found {
		p := new(peer)
		if n := len(r.free); n > 0 {
			p, r.free = r.free[n-1], r.free[:n-1]
		}
		// How long the others take is the best guess for a stranger.
		*p = peer{place: place, part: true, pace: pace{takes: r.slowest}}
		r.places, r.peers = slices.Insert(r.places, i, int32(place)), slices.Insert(r.peers, i, p)
	}
	return r.peers[i]
}

// hold keeps an update at its place among the two newest.
func (p *peer) hold(at int, u *Update) {
	if p.updates == nil {
		p.updates = p.room[:0]
	}
	p.updates = p.updates[:min(len(p.updates)+1, 2)]
	copy(p.updates[at+1:], p.updates[at:])
	p.updates[at] = u
}

// round is that of the newest update, 0 without one.
func (p *peer) round() uint64 {
	if len(p.updates) == 0 {
		return 0
	}
	return p.updates[0].Round
}

// at returns the update of a round, or nil.
func (p *peer) at(round uint64) *Update {
	for _, u := range p.updates {
		if u.Round == round {
			return u
		}
	}
	return nil
}

// newest returns the update of a round where it is held, else the newest, or nil.
func (p *peer) newest(round uint64) *Update {
	if u := p.at(round); u != nil || len(p.updates) == 0 {
		return u
	}
	return p.updates[0]
}

// owes tells whether the update of a round is not held, but exists or will. An
// author keeps its two newest, so that one before these will not come any more.
func (p *peer) owes(round uint64) bool {
	if p.at(round) != nil {
		return false
	}
	return p.round() < round || p.updates[0].Previous == round
}

// Round is the node's own newest round.
func (r *Rounds) Round() uint64 {
	if r.own == nil {
		return 0
	}
	return r.own.round()
}

// Own is the newest vector of the node, nil before its first.
func (r *Rounds) Own() []float64 {
	if r.own == nil || len(r.own.updates) == 0 {
		return nil
	}
	return r.own.updates[0].Params
}

// Take holds the update of a node, which nobody changes any more, if it is among
// its two newest, and tells whether it was. The own ones come this way too, once they are durable.
func (r *Rounds) Take(now time.Duration, from int, u *Update) bool {
	p := r.peer(from)
	at := 0
	for at < len(p.updates) && p.updates[at].Round > u.Round {
		at++
	}
	if at == 2 || at < len(p.updates) && p.updates[at].Round == u.Round {
		return false
	}
	p.hold(at, u)
	if u.Round > r.highest {
		r.highest = u.Round
	}
	if at == 0 {
		r.heard(now, p)
		if p == r.own {
			r.ownUpdate(now)
		}
	}
	return true
}

// Beacon notes that a node is at work.
func (r *Rounds) Beacon(now time.Duration, from int) { r.heard(now, r.peer(from)) }

func (r *Rounds) heard(now time.Duration, p *peer) {
	p.pace.heard(now)
	r.slowest = max(p.pace.takes, r.slowest*7/8)
}

// ownUpdate notes that an own update is held, and how long the round took.
func (r *Rounds) ownUpdate(now time.Duration) {
	if took := now - r.since; r.since > 0 && !r.cutOff(now) {
		if r.takes == 0 {
			r.takes = took
		}
		// More than twice as long was a wait for one that fell silent.
		r.takes = (3*r.takes + min(took, 2*r.takes)) / 4
	}
	r.busy, r.since, r.blocker = false, now, nil
	if !r.cfg.All && r.cfg.Graph.Period() != 1 {
		r.forget()
	}
}

// forget drops the nodes that were mixed with and will not soon be again: with
// random partners that would be everyone in the end.
func (r *Rounds) forget() {
	own := r.Round()
	r.neighbours(own + 1)
	next := len(r.edges)
	r.edges = r.cfg.Graph.Edges(own, r.cfg.Own, r.edges)
	kept := 0
	for i, p := range r.peers {
		if p != r.own && p.round() <= own && !isNeighbour(r.edges[:next], p.place) && !isNeighbour(r.edges[next:], p.place) {
			*p = peer{} // what it held goes free
			r.free = append(r.free, p)
			continue
		}
		r.peers[kept], r.places[kept] = p, r.places[i]
		kept++
	}
	clear(r.peers[kept:])
	r.peers, r.places = r.peers[:kept], r.places[:kept]
}

// neighbours are those that the own update of a round is mixed with.
func (r *Rounds) neighbours(round uint64) []mixing.Edge {
	r.edges, r.mixers = r.cfg.Graph.Edges(round, r.cfg.Own, r.edges[:0]), r.mixers[:0]
	return r.edges
}

// partners are the neighbours with what is held of them, in the same order.
func (r *Rounds) partners(round uint64) ([]mixing.Edge, []*peer) {
	if r.cfg.Graph.Period() != 1 || len(r.mixers) == 0 { // else they are what they were
		for _, e := range r.neighbours(round) {
			r.mixers = append(r.mixers, r.peer(e.Node))
		}
	}
	return r.edges, r.mixers
}

func isNeighbour(edges []mixing.Edge, place int) bool {
	_, found := slices.BinarySearchFunc(edges, place, func(e mixing.Edge, place int) int { return e.Node - place })
	return found
}

// cutOff tells whether those who are not silent are too few. Training goes on
// then, but no faster than with the others, and not into the last rounds: a node
// that ran through them alone would give the model what it has learnt alone.
func (r *Rounds) cutOff(now time.Duration) bool {
	if r.cfg.Fewest == nil {
		return false
	}
	heard := 0
	for i, p := range r.peers {
		if p.part && (i == r.cfg.Own || now < p.pace.silentAt()) {
			heard++
		}
	}
	return heard < r.cfg.Fewest()
}

// reached is the round that half of the other nodes that are heard of have
// reached; of two neighbours both. One of several that is far ahead, because it was
// cut off, does not drag the others along. Where neighbours never change, they
// alone count: the others are ahead or behind by as many rounds as they are away.
func (r *Rounds) reached(own uint64) uint64 {
	var room [32]uint64
	rounds, peers := room[:0], r.peers
	if r.cfg.Graph.Period() == 1 && !r.cfg.Graph.Complete() {
		_, peers = r.partners(own)
	}
	for _, p := range peers {
		if p != r.own && p.part {
			rounds = append(rounds, p.round())
		}
	}
	if len(rounds) == 0 {
		return 0
	}
	slices.Sort(rounds)
	if r.cfg.Graph.Complete() {
		return rounds[len(rounds)/2]
	}
	return rounds[(len(rounds)-1)/2]
}

// apart is how many rounds nodes may be apart that wait for each other as they
// should: one where everyone or the same neighbours are waited for, and more where
// it takes as many rounds until each has waited for each.
func (r *Rounds) apart() uint64 {
	switch period := r.cfg.Graph.Period(); {
	case r.cfg.Graph.Complete() || period == 1:
		return 1
	case period > 1:
		return uint64(period) + 1
	}
	return uint64(2 * bits.Len(uint(r.cfg.Nodes)))
}

// Next begins the next round, once the update of the own round is held of
// everyone that it is mixed with and who is not silent, and returns what it
// starts from, until the next one begins. A node that is further behind half of
// the others than waiting explains jumps to where they are. The end of the round is an own update
// given to [Rounds.Take].
func (r *Rounds) Next(now time.Duration) (round uint64, mix []float64, ok bool) {
	r.wake = 0
	if r.own == nil || r.busy {
		return 0, nil, false
	}
	own := r.Round()
	last := r.cfg.Rounds
	if r.limit > 0 {
		last = r.limit
	}
	if own >= last {
		return 0, nil, false
	}
	round = own + 1
	if r.highest > own+r.apart() {
		// However far somebody claims to be, there is no round beyond the last.
		if reached := min(r.reached(own), last); reached > own+r.apart() {
			round = reached
		}
	}
	if round == own+1 && own > 0 && !r.mayGoOn(now, own) {
		return 0, nil, false
	}
	mix = r.mixed(round - 1)
	if r.cfg.Tolerance > 0 {
		r.settled = own > 0 && r.mix != nil && distance(mix, r.mix) <= r.cfg.Tolerance
		r.mix = mix
	}
	r.busy = true
	return round, mix, true
}

// Wake is when Next is to be asked again at the latest, 0 = once something is
// heard.
func (r *Rounds) Wake() time.Duration { return r.wake }

// mayGoOn tells whether the round after the own one may begin.
func (r *Rounds) mayGoOn(now time.Duration, own uint64) bool {
	// With many nodes, most of what comes in changes nothing: look at one of
	// those that were missing before looking at all.
	if r.blocker != nil && r.waitsFor(now, r.blocker, own) {
		return false
	}
	r.blocker = nil
	waits := false
	if r.cfg.Graph.Complete() {
		for _, p := range r.peers {
			waits = r.waitsFor(now, p, own) || waits
		}
	} else {
		_, peers := r.partners(own)
		for _, p := range peers {
			waits = r.waitsFor(now, p, own) || waits
		}
	}
	if waits || !r.cutOff(now) {
		return !waits
	}
	if own+r.cfg.Recent >= r.cfg.Rounds {
		return false
	}
	at := r.since + r.takes
	if now < at {
		r.wakeAt(at)
	}
	return now >= at
}

func (r *Rounds) waitsFor(now time.Duration, p *peer, own uint64) bool {
	if !p.part || !p.owes(own) {
		return false
	}
	silent := p.pace.await(r.since)
	if now < silent {
		r.wakeAt(silent)
		r.blocker = p
	}
	return now < silent
}

func (r *Rounds) wakeAt(at time.Duration) {
	if r.wake == 0 || at < r.wake {
		r.wake = at
	}
}

// awaits tells whether the node waits for the update that a node has not sent
// yet of a round.
func (r *Rounds) awaits(place int, round uint64) bool {
	p := r.peers[place]
	return p.part && place != r.cfg.Own && p.owes(round) &&
		(r.cfg.Own < 0 || r.cfg.Graph.Complete() || isNeighbour(r.neighbours(round), place))
}

// mixed returns the mean of the update of the round where it is held, else the
// newest one, of every node that is mixed with, weighted as the graph says; for
// round 0 the start.
func (r *Rounds) mixed(round uint64) []float64 {
	if round == 0 {
		return r.cfg.Start()
	}
	if r.cfg.Graph.Complete() {
		return r.mean(round, r.peers)
	}
	edges, peers := r.partners(round)
	own := r.own.newest(round)
	if own == nil {
		// A node that has just joined starts from where its neighbours are.
		return r.mean(round, peers)
	}
	mix := r.empty(len(own.Params))
	rest := 1.0 // what no neighbour gets stays with the own update
	for i, p := range peers {
		if u := p.newest(round); u != nil && p.part {
			share := edges[i].Share(own.Weight, u.Weight)
			rest -= share
			add(mix, share, u.Params)
		}
	}
	add(mix, rest, own.Params)
	return mix
}

// empty is where the next mix goes. Alone in a simulation that is in place of the
// newest one, which nobody needs once its round has ended, unless the next is
// compared with it.
func (r *Rounds) empty(n int) []float64 {
	if r.cfg.All || r.cfg.Tolerance > 0 || len(r.space) != n {
		r.space = make([]float64, n)
	}
	clear(r.space)
	return r.space
}

// mean returns the exact weighted mean of what these nodes have published.
func (r *Rounds) mean(round uint64, peers []*peer) []float64 {
	var sum *mixing.Sum
	for _, p := range peers {
		u := p.newest(round)
		if u == nil || !p.part {
			continue
		}
		if sum == nil {
			sum = mixing.NewSum(len(u.Params))
		}
		if err := sum.Add(u.Weight, u.Params); err != nil {
			// Checked by task.UpdateOf, and the weight by task.EnrolmentOf.
			panic("member: checked update cannot be added: " + err.Error())
		}
	}
	if sum == nil {
		return r.cfg.Start()
	}
	return sum.Mean()
}

// add adds share·v to mix: two roundings for each, on every machine.
func add(mix []float64, share float64, v []float64) {
	v = v[:len(mix)]
	for i := range mix {
		mix[i] += float64(share * v[i])
	}
}

// Finish makes the update of a round whose local steps have ended.
func (r *Rounds) Finish(round, weight uint64, params []float64) *Update {
	return &Update{Round: round, Previous: r.Round(), Weight: weight, Settled: r.settled, Params: params}
}

// Busy tells whether a round has begun whose update is not held.
func (r *Rounds) Busy() bool { return r.busy }

// distance is the largest difference of two vectors' parameters.
func distance(a, b []float64) float64 {
	d := 0.0
	for i := range a {
		d = max(d, math.Abs(a[i]-b[i]))
	}
	return d
}
