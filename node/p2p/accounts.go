package p2p

import (
	"maps"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

const (
	// A peer may have so many records judged per second, after so many at once.
	// One costs about a tenth of a millisecond; pull brings what is above.
	accountRate, accountBurst = 1000, 4000
	costRecord, costPull      = 1, 50
	costGarbage               = 400

	// No pull goes to a peer that sent garbage or hung for this long, and twice
	// as long every further time.
	penaltyMin, penaltyMax = 5 * time.Second, 10 * time.Minute

	maxAccounts = 4096

	// A peer is served so many bytes of records per second, after so many at once.
	servedRate, servedBurst = 4 << 20, 16 << 20
)

// accounts holds what each peer has cost lately.
type accounts struct {
	mu    sync.Mutex
	peers map[peer.ID]*account
}

type account struct {
	bucket  *rate.Limiter
	served  *rate.Limiter // bytes
	penalty time.Duration
	until   time.Time
}

func newAccounts() *accounts { return &accounts{peers: make(map[peer.ID]*account)} }

// of returns the account of a peer, nil when there are too many.
func (a *accounts) of(p peer.ID, now time.Time) *account {
	if acc := a.peers[p]; acc != nil {
		return acc
	}
	if len(a.peers) >= maxAccounts {
		// An account that has filled up again is the same as none.
		maps.DeleteFunc(a.peers, func(_ peer.ID, acc *account) bool {
			return acc.bucket.TokensAt(now) >= accountBurst && acc.served.TokensAt(now) >= servedBurst && now.After(acc.until.Add(acc.penalty))
		})
		if len(a.peers) >= maxAccounts {
			return nil
		}
	}
	acc := &account{bucket: rate.NewLimiter(accountRate, accountBurst), served: rate.NewLimiter(servedRate, servedBurst)}
	a.peers[p] = acc
	return acc
}

// spend counts a cost against p, and is true where p may cost so much now.
func (a *accounts) spend(p peer.ID, cost int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	acc := a.of(p, now)
	return acc != nil && acc.bucket.AllowN(now, cost)
}

// charge makes p pay for what it has cost already, on credit if need be: until
// the debt is paid off, take is false.
func (a *accounts) charge(p peer.ID, cost int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if acc := a.of(p, now); acc != nil {
		acc.bucket.ReserveN(now, cost)
	}
}

// served counts the bytes that p is served.
func (a *accounts) served(p peer.ID) *rate.Limiter {
	a.mu.Lock()
	defer a.mu.Unlock()
	if acc := a.of(p, time.Now()); acc != nil {
		return acc.served
	}
	return rate.NewLimiter(0, 0) // too many peers
}

// shunned is true while p is not pulled from.
func (a *accounts) shunned(p peer.ID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	acc := a.peers[p]
	return acc != nil && time.Now().Before(acc.until)
}

// punish shuns p for a while.
func (a *accounts) punish(p peer.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if acc := a.of(p, now); acc != nil {
		acc.penalty = min(max(2*acc.penalty, penaltyMin), penaltyMax)
		acc.until = now.Add(acc.penalty)
	}
}

// forgive forgets what p did before it behaved.
func (a *accounts) forgive(p peer.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if acc := a.peers[p]; acc != nil {
		acc.penalty, acc.until = 0, time.Time{}
	}
}
