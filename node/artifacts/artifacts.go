// Package artifacts exchanges artifacts with other nodes, and with any IPFS tool
// that the node lets connect, by the Bitswap protocol
// (https://specs.ipfs.tech/bitswap-protocol/).
//
// It serves the blocks that it is given and no others: rows at home stand in a
// part of the store that it never holds. It asks connected peers alone; nobody
// is looked up or dialled.
package artifacts

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/client"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange"
	"github.com/ipfs/boxo/ipld/merkledag"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"village/protocol/record"
)

// Errors that [Service.Fetch] wraps.
var (
	ErrAlone       = errors.New("no peer is connected")
	ErrUnavailable = errors.New("no connected peer has it")
	ErrStopped     = errors.New("the exchange of artifacts has stopped")
	ErrRefused     = errors.New("not an artifact that this node takes") // whoever sends it
)

const (
	// searchTime is how long peers have to come up with the first block, and
	// stallTime how long with each further one: a block is 1 MiB at most, so
	// that a link of 150 kbit/s carries it in that time.
	searchTime = 15 * time.Second
	stallTime  = time.Minute

	// Blocks asked for at once: one at first, more while a batch of them arrives
	// within fastBatch, fewer when it takes more than slowBatch.
	maxBatch             = 32
	fastBatch, slowBatch = time.Second, 4 * time.Second

	flushBytes = 8 << 20 // blocks that wait in memory for one sync

	// A DAG of a given size has at most baseBlocks blocks, and one more for
	// every bytesPerBlock: what is remembered of it is bounded, too.
	baseBlocks, bytesPerBlock = 1024, 16 << 10
)

// Service serves a node's artifacts and fetches those of others.
type Service struct {
	host   *limited
	blocks blockstore.Blockstore
	swap   *bitswap.Bitswap

	search, stall time.Duration // searchTime and stallTime, except in tests

	ctx  context.Context
	stop context.CancelFunc
}

// New starts to serve, over h, the blocks of artifacts to those peers that allow
// admits, and keeps room for those that prefer does. Allow is asked at every
// request, so that a peer that it no longer admits gets no further block.
func New(h host.Host, blocks blockstore.Blockstore, allow, prefer func(peer.ID) bool) *Service {
	s := &Service{host: limit(h, prefer), blocks: blocks, search: searchTime, stall: stallTime}
	s.ctx, s.stop = context.WithCancel(context.Background())
	// By default a peer counts as one that lacks a block after twice the time
	// that its last answers took; on a fast link that is 50 ms, and a moment of
	// load makes everything be asked for, and sent, twice.
	patient := client.DefaultDontHaveTimeoutConfig()
	patient.MinTimeout = patient.DontHaveTimeout
	s.swap = bitswap.New(s.ctx, bsnet.NewFromIpfsHost(s.host), nil, blocks,
		bitswap.WithPeerBlockRequestFilter(func(p peer.ID, _ cid.Cid) bool { return allow(p) && s.host.mayDraw(p) }),
		// A message to a peer that reads slowly holds a worker until it has gone.
		// So a peer may hold four of them, and 15 such peers keep nobody waiting.
		bitswap.WithTargetMessageSize(1<<20),
		bitswap.MaxOutstandingBytesPerPeer(4<<20),
		bitswap.TaskWorkerCount(64),
		bitswap.WithWantHaveReplaceSize(0),     // else every "do you have it?" reads and hashes a block
		bitswap.EngineBlockstoreWorkerCount(8), // each may hold a block in memory
		bitswap.WithoutDuplicatedBlockStats(),
		bitswap.WithClientOption(client.WithDontHaveTimeoutConfig(patient)),
	)
	return s
}

// Close ends serving and fetching. The host stays open.
func (s *Service) Close() error {
	s.stop()
	err := s.swap.Close()
	s.host.close()
	return err
}

// Fetch brings everything below root into the store, from connected peers; what
// is there and intact is not asked for again, what the disk has damaged is. When
// it returns nil, the artifact is whole and durable. Every block is checked
// against its CID; the blocks of a DAG that takes more than limit bytes are
// given up, with what of it was stored. ctx bounds the whole; without it Fetch
// goes on for as long as blocks arrive. An interrupted Fetch goes on, the next
// time, where it stopped. It fails with [ErrAlone], [ErrUnavailable],
// [ErrRefused], [ErrStopped] or what the store says.
func (s *Service) Fetch(ctx context.Context, root record.CID, limit int64) error {
	if s.ctx.Err() != nil {
		return ErrStopped
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(ErrStopped) })()
	f := fetch{s: s, limit: limit, seen: cid.NewSet(), batch: 1, wait: s.search}
	err := f.run(ctx, root.Cid)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if err != nil {
		return fmt.Errorf("artifact %s: %w", root, err)
	}
	return nil
}

// fetch is one walk through a DAG.
type fetch struct {
	s       *Service
	session exchange.Fetcher // nil until something is missing
	limit   int64            // bytes

	todo  []cid.Cid // found and not yet visited, the next one last
	seen  *cid.Set  // found
	bytes int64     // visited

	batch   int           // blocks to ask for at once
	wait    time.Duration // for the next block
	pending []blocks.Block
	waiting int // bytes of pending
}

func (f *fetch) run(ctx context.Context, root cid.Cid) error {
	if err := f.find(root); err != nil {
		return err
	}
	for len(f.todo) > 0 {
		var missing []cid.Cid
		for len(f.todo) > 0 && len(missing) < f.batch {
			if err := ctx.Err(); err != nil {
				return err
			}
			c := f.todo[len(f.todo)-1]
			f.todo = f.todo[:len(f.todo)-1]
			block, err := f.s.blocks.Get(ctx, c)
			switch {
			case err == nil:
				err = f.visit(block)
			case ipld.IsNotFound(err): // damaged ones, too
				missing, err = append(missing, c), nil
			}
			if err != nil {
				return err
			}
		}
		if len(missing) == 0 {
			continue
		}
		err := f.pull(ctx, missing)
		if errors.Is(err, ErrRefused) {
			return err
		}
		if err := errors.Join(err, f.flush(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// find notes a block to visit.
func (f *fetch) find(c cid.Cid) error {
	if codec := c.Type(); codec != cid.Raw && codec != cid.DagProtobuf {
		return fmt.Errorf("%w: block %s is no part of a file", ErrRefused, c)
	}
	if !f.seen.Visit(c) {
		return nil
	}
	if int64(f.seen.Len()) > baseBlocks+f.limit/bytesPerBlock {
		return fmt.Errorf("%w: it has more than %d blocks", ErrRefused, f.seen.Len()-1)
	}
	f.todo = append(f.todo, c)
	return nil
}

// visit takes in a block that hashes to its CID.
func (f *fetch) visit(block blocks.Block) error {
	if f.bytes += int64(len(block.RawData())); f.bytes > f.limit {
		return fmt.Errorf("%w: it has more than %d bytes", ErrRefused, f.limit)
	}
	if block.Cid().Type() == cid.Raw {
		return nil
	}
	node, err := merkledag.DecodeProtobufBlock(block)
	if err != nil {
		return fmt.Errorf("%w: block %s: %v", ErrRefused, block.Cid(), err)
	}
	links := node.Links()
	for i := range links { // the first one is to be visited first
		if err := f.find(links[len(links)-1-i].Cid); err != nil {
			return err
		}
	}
	return nil
}

// pull asks peers for blocks, which are no more than a batch, and visits them.
func (f *fetch) pull(ctx context.Context, missing []cid.Cid) error {
	if len(f.s.host.Network().Peers()) == 0 {
		return ErrAlone
	}
	if f.session == nil {
		f.session = f.s.swap.NewSession(ctx)
	}
	start := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	arriving, err := f.session.GetBlocks(ctx, missing)
	if err != nil {
		return err
	}
	timer := time.NewTimer(f.wait)
	defer timer.Stop()
	for range missing {
		select {
		case block, ok := <-arriving:
			if !ok {
				return errors.Join(ctx.Err(), ErrStopped)
			}
			f.wait = f.s.stall
			timer.Reset(f.wait)
			if err := f.visit(block); err != nil {
				return err
			}
			f.pending = append(f.pending, block)
			if f.waiting += len(block.RawData()); f.waiting < flushBytes {
				continue
			}
			if err := f.flush(ctx); err != nil {
				return err
			}
		case <-timer.C:
			return fmt.Errorf("%w (%d bytes of it are here; no block came for %s)", ErrUnavailable, f.bytes, f.wait)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	switch took := time.Since(start); {
	case took < fastBatch:
		f.batch = min(2*f.batch, maxBatch)
	case took > slowBatch:
		f.batch = max(f.batch/2, 1)
	}
	return nil
}

// flush makes durable what has arrived, and serves it to those who wait for it.
func (f *fetch) flush(ctx context.Context) error {
	if len(f.pending) == 0 {
		return nil
	}
	if err := f.s.blocks.PutMany(ctx, f.pending); err != nil {
		return err
	}
	err := f.s.swap.NotifyNewBlocks(ctx, f.pending...)
	f.pending, f.waiting = nil, 0
	return err
}
