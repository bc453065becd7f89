package p2p

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"village/protocol/record"
)

const (
	pushTime    = 10 * time.Second
	pushWorkers = 16

	statusNo     = 0
	statusStored = 1
)

// Deliver pushes a record to every connected node and returns how many said
// that they hold it durably. It takes at most ten seconds.
func (n *Network) Deliver(ctx context.Context, r record.Record) int {
	if !n.work.enter() {
		return 0
	}
	defer n.work.leave()
	ctx, cancel := context.WithTimeout(ctx, pushTime)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()

	peers := n.host.Network().Peers()
	queue := make(chan peer.ID, len(peers))
	for _, p := range peers {
		queue <- p
	}
	close(queue)
	var wg sync.WaitGroup
	var count atomic.Int64
	for range min(pushWorkers, len(peers)) {
		wg.Go(func() {
			for p := range queue {
				ok, err := n.push(ctx, p, r.Bytes)
				if err != nil {
					n.log.Debug("delivering a record", "peer", p, "cid", r.CID, "error", err)
				}
				if ok {
					count.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return int(count.Load())
}

func (n *Network) push(ctx context.Context, p peer.ID, b []byte) (bool, error) {
	s, err := n.open(ctx, p, n.names.push)
	if err != nil {
		return false, err
	}
	defer s.done()
	if err := writeFrame(s, b); err != nil {
		return false, err
	}
	if err := s.CloseWrite(); err != nil {
		return false, err
	}
	var status [1]byte
	if _, err := io.ReadFull(s, status[:]); err != nil {
		return false, err
	}
	return status[0] == statusStored, nil
}

// servePush takes one record and says whether it is held now.
func (n *Network) servePush(raw network.Stream) {
	if !n.work.enter() {
		_ = raw.Reset()
		return
	}
	defer n.work.leave()
	ctx, cancel := context.WithTimeout(n.ctx, pushTime)
	defer cancel()
	s := newStream(ctx, raw)
	defer s.done()

	from := raw.Conn().RemotePeer()
	if !n.members.hasPeer(from) || !n.accounts.spend(from, costRecord) {
		n.dropped.Add(1)
		s.failed = true
		return
	}
	b, err := readFrame(s, record.MaxBytes)
	if err != nil {
		n.blame(from, err)
		s.failed = true
		return
	}
	r, j := n.inspect(ctx, from, b)
	status := byte(statusNo)
	switch j {
	case garbage:
		n.accounts.charge(from, costGarbage)
		s.failed = true
		return
	case stored:
		status = statusStored
		// The copy that gossip brings will be known here and go no further.
		if err := n.Publish(r); err != nil {
			n.log.Debug("passing a record on", "cid", r.CID, "error", err)
		}
	case held:
		status = statusStored
	}
	if _, err := s.Write([]byte{status}); err != nil {
		s.failed = true
	}
}
