package member

import "time"

// How long a member may be quiet before the others go on without it. Nothing
// is set by hand: what a member has needed before is what it gets, times four.
const (
	firstPatience = 30 * time.Second // before it has ever been heard
	leastPatience = 5 * time.Second  // longer than a pull takes to heal a loss
	slack         = 4
	maxDoubt      = 6
)

// pace learns how long a member takes for a round.
type pace struct {
	last  time.Duration // when it was last heard
	takes time.Duration // the longest recent round, 0 when none was seen
	doubt int           // how often of late it was held silent and was not
}

// start begins to listen.
func (p *pace) start(now time.Duration) { p.last = now }

// heard notes a new update; since is from when on it was waited for.
func (p *pace) heard(now, since time.Duration) {
	if now >= p.silentAt(since) {
		// It was only slow, or was cut off. The pause says nothing about how
		// long its rounds take, but more patience is due.
		p.doubt = min(p.doubt+1, maxDoubt)
	} else {
		p.takes = max(now-p.last, p.takes*7/8)
		p.doubt = max(p.doubt-1, 0)
	}
	p.last = now
}

// silentAt is the time from which on the member counts as silent if it is not
// heard before, when it has been waited for since then.
func (p *pace) silentAt(since time.Duration) time.Duration {
	patience := firstPatience
	if p.takes > 0 {
		patience = max(leastPatience, slack*p.takes)
	}
	return max(p.last, since) + patience<<p.doubt
}
