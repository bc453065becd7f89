// Package node is the daemon of one nation. It wires the rooms together: the store
// and the network below, the records that go between them, and above these the
// datasets, the models, the tasks and the local API.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"

	"village/node/api"
	"village/node/artifacts"
	"village/node/contacts"
	"village/node/datasets"
	"village/node/exchange"
	"village/node/home"
	"village/node/log"
	"village/node/models"
	"village/node/p2p"
	"village/node/records"
	"village/node/server"
	"village/node/tasks"
	"village/protocol/member"
	"village/protocol/record"
	"village/storage"
)

// recovery is how long a daemon whose store may have lost own records listens to its
// peers, at least, before it signs anything. Tests shorten it.
var recovery = 15 * time.Second

// Options is what a program decides that runs many nodes. The zero value is a
// daemon's.
type Options struct {
	Log  *slog.Logger    // nil: lines of text on standard error
	Host []libp2p.Option // of the libp2p host, such as another network under it
	// Light keeps little in memory, and nothing beyond a crash of the machine.
	Light bool
	// Watch, if set, is told of everything that the machine of a task asks for,
	// before it is done: one at a time for a task, and it must not call the node.
	Watch func(task record.CID, effect member.Effect)
}

// Node is a running daemon.
type Node struct {
	Datasets *datasets.Datasets
	Tasks    *tasks.Tasks

	store     *storage.Store
	network   *p2p.Network
	exchange  *exchange.Exchange
	artifacts *artifacts.Service
	contacts  *contacts.Contacts
	models    *models.Models
	server    *server.Server
	stop      context.CancelFunc
	healing   sync.WaitGroup
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
	if err := n.server.Listen(); err != nil {
		return err
	}
	addresses := n.network.Addrs()
	if len(addresses) == 0 {
		return api.Fail(api.CodeFailed, "ip link", "no network interface of this machine is up, so that no node could reach this one; bring one up, and start the daemon again")
	}
	ready(h.ID.String(), addresses[0])
	select {
	case <-ctx.Done():
		return nil
	case err := <-n.server.Failed():
		return fmt.Errorf("the local API stopped: %w", err)
	}
}

// New opens the store of a locked home, joins the network and restores the tasks.
func New(h *home.Home, o Options) (*Node, error) {
	config := h.Config()
	listen, err := config.ListenAddrs()
	if err != nil {
		return nil, err
	}
	l := log.New(o.Log)
	n := &Node{}

	open := storage.Open
	if o.Light {
		open = storage.OpenLight
	}
	if n.store, err = open(h.StoreDir()); err != nil {
		return nil, unopened(err)
	}
	if err := n.doubt(h, l); err != nil {
		return nil, errors.Join(err, n.store.Close())
	}
	book := records.New(records.Config{
		Key: h.Key, Federation: config.Federation, Store: n.store, Log: l, Knows: h.Knows,
		AuthorBytes: uint64(config.AuthorMiB) << 20, StrangersBytes: uint64(config.StrangersMiB) << 20,
	})

	// Nothing comes in before the book is open.
	n.network, err = p2p.New(p2p.Config{
		Key: h.Key, Federation: config.Federation,
		Listen: listen, Announce: config.Announce, Peers: config.Peers, MDNS: config.MDNS,
		Members: h.Members(), Logger: l.Logger, Host: o.Host,
	}, n.store, book.Receive)
	if errors.Is(err, p2p.ErrListen) {
		err = api.Fail(api.CodeFailed, fmt.Sprintf("village daemon, once the key listen in %s names other addresses, as listen = [\"/ip4/0.0.0.0/tcp/%d\"]",
			filepath.Join(h.Dir, home.ConfigFile), home.DefaultPort+1), "%v", err)
	}
	if err != nil {
		return nil, errors.Join(err, n.store.Close())
	}
	n.exchange = exchange.New(n.network.Host(), config.Federation, n.store.Vectors(), n.network.Admits, n.network.Favours, l.Logger)
	n.artifacts = artifacts.New(n.network.Host(), n.store.Blockstore(), n.network.Admits, n.network.Favours)

	n.Datasets = datasets.New(h, book)
	n.models = models.New(n.store, n.artifacts, l)
	var ctx context.Context
	ctx, n.stop = context.WithCancel(context.Background())
	n.Tasks = tasks.New(ctx, tasks.Config{
		Home: h, Store: n.store, Log: l, Book: book, Datasets: n.Datasets, Models: n.models, Exchange: n.exchange, Watch: o.Watch,
	})
	n.server = server.New(server.Config{
		Home: h, Store: n.store, Log: l, Network: n.network, Datasets: n.Datasets, Models: n.models, Tasks: n.Tasks,
	})
	n.contacts = contacts.New(h, book, n.network)
	unsure := n.store.Unsure(h.ID)
	if unsure {
		book.Listen()
	}
	book.Start(n.network, func(r record.Record, content any) {
		n.contacts.Deliver(r, content)
		n.Tasks.Deliver(r, content)
	})
	if unsure {
		n.healing.Go(func() { n.recover(ctx, h, book, l) })
	} else {
		n.Tasks.Resume()
	}
	n.healing.Go(func() { n.contacts.Live(ctx) })
	n.healing.Go(func() {
		if err := n.store.VerifyRows(ctx); err != nil && ctx.Err() == nil {
			l.Fail(fmt.Errorf("rows cannot be read: %w", err))
		}
	})
	n.healing.Go(func() { n.Datasets.Shrink(ctx) })
	n.healing.Go(func() { n.models.Heal(ctx, n.Tasks.Sealed()) })
	n.healing.Go(func() { n.Datasets.Names() }) // the first time takes long
	return n, nil
}

// unopened says what to do about a store that does not open.
func unopened(err error) error {
	if errors.Is(err, storage.ErrDamaged) {
		return api.Fail(api.CodeFailed, "village store salvage --to DIR", "%v", err)
	}
	return err
}

// doubt says what the disk has lost, and that an empty store beside a key that was
// used lacks all that the key has signed.
func (n *Node) doubt(h *home.Home, l *log.Log) error {
	if noted := n.store.Noted(); noted != "" {
		l.Warn(noted)
	}
	for _, name := range n.store.Damaged() {
		l.Fail(fmt.Errorf("the disk has lost, and peers are asked for it where they can have it: %s", name))
	}
	if n.store.Fresh() && !h.Unused() {
		l.Fail(errors.New("the store is gone, and a new one was made; rows have to be added again, peers are asked for all else"))
		if err := n.store.Doubt(); err != nil {
			return err
		}
	}
	return h.Use()
}

// recover has the node listen, and sign nothing, until its own records are back, or
// for a while and until a peer has been asked for them, where it knows of any.
func (n *Node) recover(ctx context.Context, h *home.Home, book *records.Book, l *log.Log) {
	l.Warn("signing nothing until peers have been asked for the own records")
	select {
	case <-time.After(recovery):
	case <-ctx.Done():
		return
	}
	if c := h.Config(); len(c.Peers) > 0 || len(c.Members) > 0 {
		select {
		case <-n.network.Asked():
		case <-ctx.Done():
			return
		}
	}
	if err := n.store.Settle(); err != nil {
		l.Fail(err)
	}
	book.Resume()
	n.Tasks.Resume()
}

// Close ends the work, leaves the network and closes the store.
func (n *Node) Close() error {
	n.server.Close()
	n.stop()
	n.exchange.Close()
	err := errors.Join(n.artifacts.Close(), n.network.Close())
	n.Tasks.Wait()
	n.healing.Wait()
	return errors.Join(err, n.store.Close())
}
