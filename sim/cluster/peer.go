package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"

	"village/node"
	"village/node/api"
	"village/node/home"
	"village/protocol/member"
	"village/protocol/record"
	"village/sim"
)

// peer is a node of the cluster, through all its lives.
type peer struct {
	sim.Node
	place   int
	cluster *cluster
	home    *home.Home
	end     *end
	done    atomic.Bool // has come to the end

	life sync.Mutex    // held while the node starts or stops
	lost chan struct{} // closed when it is down for good

	mu   sync.Mutex
	node *node.Node    // nil while it is down
	up   chan struct{} // closed while it runs
}

// errLost is the end of a wait for a node that is down for good.
var errLost = errors.New("the node is down for good")

// named says of an error where it was. What the end of a context has led to is
// its cause.
func (p *peer) named(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%s: %w", p.Name, err)
}

// running returns the node, or nil while it is down.
func (p *peer) running() *node.Node {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.node
}

func (p *peer) isLost() bool {
	select {
	case <-p.lost:
		return true
	default:
		return false
	}
}

// await returns the node once it runs.
func (p *peer) await(ctx context.Context) (*node.Node, error) {
	for {
		p.mu.Lock()
		n, up := p.node, p.up
		p.mu.Unlock()
		if n != nil {
			return n, nil
		}
		select {
		case <-up:
		case <-p.lost:
			return nil, errLost
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// during does something at the node, and again where the node went down
// meanwhile. At one that is down for good there is nothing to do.
func (p *peer) during(ctx context.Context, do func(*node.Node) error) error {
	for {
		n, err := p.await(ctx)
		if errors.Is(err, errLost) {
			return nil
		}
		if err != nil {
			return err
		}
		if err = do(n); err == nil || ctx.Err() != nil || p.running() == n {
			return err
		}
	}
}

func (p *peer) start() error {
	p.life.Lock()
	defer p.life.Unlock()
	if err := p.home.Lock(); err != nil {
		return err
	}
	n, err := node.New(p.home, node.Options{
		Log:   slog.New(slog.DiscardHandler), // what goes wrong, the task says
		Light: true, Host: []libp2p.Option{p.end.host()},
		Watch: func(_ record.CID, e member.Effect) { p.cluster.watch(p.place, e) },
	})
	if err != nil {
		return errors.Join(err, p.home.Unlock())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.node = n
	close(p.up)
	return nil
}

// stop closes the node, if it runs.
func (p *peer) stop(forGood bool) error {
	p.life.Lock()
	defer p.life.Unlock()
	p.mu.Lock()
	n := p.node
	if n != nil {
		p.node, p.up = nil, make(chan struct{})
	}
	p.mu.Unlock()
	if n == nil {
		return nil
	}
	if forGood {
		close(p.lost)
	}
	p.end.cut()
	return errors.Join(n.Close(), p.home.Unlock())
}

// crash takes the node off the wire, down, and back after a while; never where
// that is 0.
func (p *peer) crash(ctx context.Context, down time.Duration) error {
	begun := time.Now()
	if p.running() == nil {
		return nil
	}
	if err := p.stop(down == 0); err != nil || down == 0 {
		return err
	}
	if !sleep(ctx, down-time.Since(begun)) {
		return nil
	}
	return p.start()
}

// restarts crashes the node every now and then.
func (p *peer) restarts(ctx context.Context) error {
	f := p.cluster.cfg.Faults
	random := rand.New(rand.NewPCG(p.cluster.cfg.Seed, uint64(p.place)+1))
	for sleep(ctx, time.Duration(random.ExpFloat64()/f.Restarts*float64(time.Hour))) {
		if err := p.crash(ctx, f.Down); err != nil {
			return err
		}
		if p.isLost() {
			return nil
		}
	}
	return nil
}

// enrol is the operator's yes, unless it comes too late.
func (p *peer) enrol(ctx context.Context) error {
	if !p.cluster.wait(ctx, p.Enrols) {
		return nil
	}
	return p.during(ctx, func(n *node.Node) error {
		over, err := p.ask(ctx, n, func(m *member.Member) bool {
			_, enrolled := m.Enrolment(p.home.ID)
			return enrolled || m.Content().Model.Defined() || m.HasLeft(p.home.ID)
		})
		if over || err != nil {
			return err
		}
		_, err = n.Tasks.Join(ctx, api.Join{Task: p.cluster.task})
		return err
	})
}

// leave is the operator's end to the node's part, unless it comes too late.
func (p *peer) leave(ctx context.Context) error {
	if !p.cluster.wait(ctx, p.Leaves) {
		return nil
	}
	return p.during(ctx, func(n *node.Node) error {
		over, err := p.ask(ctx, n, func(m *member.Member) bool {
			return m.Content().Model.Defined() || m.HasLeft(p.home.ID)
		})
		if over || err != nil {
			return err
		}
		_, err = n.Tasks.Leave(ctx, p.cluster.task)
		return err
	})
}

// ask asks the machine of the task something.
func (p *peer) ask(ctx context.Context, n *node.Node, question func(*member.Member) bool) (answer bool, err error) {
	err = n.Tasks.Follow(ctx, p.cluster.task, func(m *member.Member) bool {
		answer = question(m)
		return true
	})
	return answer, err
}

// follow waits until the task has come to its end at the node.
func (p *peer) follow(ctx context.Context) error {
	return p.during(ctx, func(n *node.Node) error {
		err := n.Tasks.Follow(ctx, p.cluster.task, func(m *member.Member) bool { return m.Stage() == member.Done })
		if err == nil {
			p.done.Store(true)
		}
		return err
	})
}
