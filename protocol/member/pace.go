package member

import (
	"math"
	"time"
)

// How long a member may give no sign, neither an update nor a beacon, before
// the others go on without it. Nothing is set by hand: as long as they have had
// to wait for a sign of it before, they wait again, times four.
const (
	firstPatience = 10 * time.Second // before it has ever been heard
	leastPatience = 3 * time.Second  // longer than a pull takes to heal a loss
	slack         = 4
	maxDoubt      = 6
)

// BeaconInterval is how often a node that is at work says so.
const BeaconInterval = 500 * time.Millisecond

// pace learns how long a member makes the others wait.
type pace struct {
	last  time.Duration // when it was last heard
	since time.Duration // from when on it has been waited for, 0 while it is not
	takes time.Duration // the longest recent wait for a sign, 0 when none was seen
	doubt int           // how often of late it was held silent and was not
}

// start begins to listen.
func (p *pace) start(now time.Duration) { p.last, p.since = now, 0 }

// await says that the member is waited for since a time, unless it was heard
// later, and returns when it counts as silent. Silence lasts until it is heard,
// so that a dead member costs one wait and not one in every round.
func (p *pace) await(since time.Duration) (silentAt time.Duration) {
	if p.since == 0 {
		p.since = max(p.last, since, 1)
	}
	return p.silentAt()
}

// silentAt is the time from which on the member counts as silent if it is not
// heard before: never, while nobody waits for it.
func (p *pace) silentAt() time.Duration {
	if p.since == 0 {
		return math.MaxInt64
	}
	patience := firstPatience
	if p.takes > 0 {
		patience = max(leastPatience, slack*p.takes)
	}
	return p.since + patience<<p.doubt
}

// heard notes a sign.
func (p *pace) heard(now time.Duration) {
	wait := time.Duration(1)
	if p.since > 0 {
		wait = max(now-p.since, 1)
	}
	if now >= p.silentAt() {
		// It was only slow, or was cut off. The pause says nothing about how
		// often it gives signs, but more patience is due.
		p.doubt = min(p.doubt+1, maxDoubt)
	} else {
		p.takes = max(wait, p.takes*7/8)
		p.doubt = max(p.doubt-1, 0)
	}
	p.last, p.since = now, 0
}
