// Package node is the daemon of one nation: it wires the home, the store, the
// network and the machines of the tasks together, performs what the machines
// ask for, and serves the local API.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"

	"village/node/artifacts"
	"village/node/exchange"
	"village/node/home"
	"village/node/p2p"
	"village/protocol/member"
	"village/protocol/record"
	"village/protocol/task"
	"village/storage"
)

// recovery is how long a daemon whose store had lost records listens to its
// peers before it goes on with its tasks.
const recovery = 15 * time.Second

// Options is what a program decides that runs many nodes. The zero value is a
// daemon's.
type Options struct {
	Log  *slog.Logger    // nil: lines of text on standard error
	Host []libp2p.Option // of the libp2p host, such as another network under it
	// Light keeps little in memory, and nothing beyond a crash of the machine.
	Light bool
	// Watch, if set, is told of everything that the machine of a task asks for,
	// before it is done: one at a time, and it must not call the node.
	Watch func(task record.CID, effect member.Effect)
}

// Node is a running daemon.
type Node struct {
	home      *home.Home
	observe   func(record.CID, member.Effect) // Options.Watch
	log       *slog.Logger
	started   time.Time
	store     *storage.Store
	network   *p2p.Network
	artifacts *artifacts.Service
	exchange  *exchange.Exchange

	// What the network's goroutines read to judge a record.
	mu      sync.RWMutex
	tasks   map[record.CID]task.Task
	final   map[string]bool        // tasks whose final set is decided on, by group
	beacons map[record.Slot]uint64 // newest numbers

	adding sync.Mutex // keeps two versions of one dataset from being numbered alike

	loop       chan func() // what the one goroutine that owns runs does next
	runs       map[record.CID]*run
	recovering bool          // machines listen and do nothing
	work       chan struct{} // a place for each piece of training at a time
	quit       context.Context
	stop       context.CancelFunc
	waiting    sync.WaitGroup // goroutines of this node
	changed    chan struct{}  // closed and replaced when a task has moved
	changedMu  sync.Mutex
	lastError  atomic.Pointer[string]
	lost       atomic.Pointer[[]record.CID] // artifacts that no peer could give back
}

// Run runs the daemon of a home until ctx ends, and calls ready once it serves
// with the address that peers can dial.
func Run(ctx context.Context, h *home.Home, ready func(peerID, address string)) (err error) {
	if err := h.Lock(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Unlock()) }()
	n, err := New(h, Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	server, err := n.serve()
	if err != nil {
		return err
	}
	defer server.close()
	ready(h.ID.String(), n.network.Addrs()[0])
	select {
	case <-ctx.Done():
		return nil
	case err := <-server.failed:
		return fmt.Errorf("the local API stopped: %w", err)
	}
}

// New opens the store of a locked home, restores the tasks from it and joins
// the network.
func New(h *home.Home, o Options) (*Node, error) {
	config := h.Config()
	listen, err := config.ListenAddrs()
	if err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	open := storage.Open
	if o.Light {
		open = storage.OpenLight
	}
	n := &Node{
		home: h, started: time.Now(), log: o.Log, observe: o.Watch,
		tasks:   map[record.CID]task.Task{},
		final:   map[string]bool{},
		beacons: map[record.Slot]uint64{},
		loop:    make(chan func(), 1024),
		runs:    map[record.CID]*run{},
		work:    make(chan struct{}, max(1, runtime.NumCPU()-1)),
		changed: make(chan struct{}),
	}
	n.quit, n.stop = context.WithCancel(context.Background())
	if n.store, err = open(h.StoreDir()); err != nil {
		return nil, err
	}
	damaged := n.store.Damaged()
	for _, name := range damaged {
		n.fail(fmt.Errorf("the store is damaged, and peers will be asked for what is lost: %s", name))
	}
	n.restore()
	joined := make(chan struct{}) // closed when n.network is there for receive
	n.network, err = p2p.New(p2p.Config{
		Key: h.Key, Federation: config.Federation,
		Listen: listen, Announce: config.Announce, Peers: config.Peers, MDNS: config.MDNS,
		Members: members(config, h.ID), Logger: n.log, Host: o.Host,
	}, n.store, func(ctx context.Context, from record.NodeID, r record.Record) p2p.Verdict {
		select {
		case <-joined:
			return n.receive(ctx, from, r)
		case <-ctx.Done():
			return p2p.Ignore
		}
	})
	if err != nil {
		return nil, errors.Join(err, n.store.Close())
	}
	close(joined)
	n.exchange = exchange.New(n.network.Host(), config.Federation, chunks{n.store}, n.network.Admits, n.log)
	n.artifacts = artifacts.New(n.network.Host(), n.store.Blockstore(), n.network.Admits)
	n.waiting.Add(2)
	if slices.ContainsFunc(damaged, func(name string) bool { return strings.HasPrefix(name, "record ") }) {
		// It may be one that this node has signed itself. Peers give it back
		// before the node signs another one in its place.
		n.recovering = true
		n.later(recovery, n.resume)
	} else {
		n.post(n.resume)
	}
	go n.drive()
	go n.heal()
	return n, nil
}

// Close leaves the network, ends the work and closes the store.
func (n *Node) Close() error {
	n.stop()
	n.exchange.Close()
	err := errors.Join(n.artifacts.Close(), n.network.Close())
	n.waiting.Wait()
	return errors.Join(err, n.store.Close())
}

// members is the allow-list that a config stands for: nil where it is open.
func members(c home.Config, self record.NodeID) []record.NodeID {
	if c.Members == nil {
		return nil
	}
	return append([]record.NodeID{self}, c.Members...)
}

// drive is the loop: the one goroutine that touches the machines.
func (n *Node) drive() {
	defer n.waiting.Done()
	for {
		select {
		case do := <-n.loop:
			do()
		case <-n.quit.Done():
			return
		}
	}
}

// post hands something to the loop, and waits while it is full.
func (n *Node) post(do func()) {
	select {
	case n.loop <- do:
	case <-n.quit.Done():
	}
}

// ask has the loop do something and waits until it is done.
func (n *Node) ask(ctx context.Context, do func()) error {
	done := make(chan struct{})
	n.post(func() { do(); close(done) })
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-n.quit.Done():
		return errors.New("the daemon is stopping")
	}
}

// now is the time that the machines see: monotonic, from the daemon's start.
func (n *Node) now() time.Duration { return time.Since(n.started) }

// fail notes an error that no caller waits for.
func (n *Node) fail(err error) {
	text := err.Error()
	n.lastError.Store(&text)
	n.log.Error(text)
}

// notify wakes everyone who watches a task.
func (n *Node) notify() {
	n.changedMu.Lock()
	defer n.changedMu.Unlock()
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *Node) watch() <-chan struct{} {
	n.changedMu.Lock()
	defer n.changedMu.Unlock()
	return n.changed
}
