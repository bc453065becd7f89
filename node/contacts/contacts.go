// Package contacts makes nodes findable without each other's help: it publishes
// who the node is and where it listens, keeps what the others have published, and
// has the network dial them.
package contacts

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"village/node/home"
	"village/node/records"
	"village/protocol/contact"
	"village/protocol/record"
)

// Network is what finds nodes; it is a [p2p.Network].
type Network interface {
	// Addrs returns the own addresses, those that most others reach first.
	Addrs() []string
	// Find connects to a peer for as long as it can be reached.
	Find(address ...string)
}

// interval is the time between two looks at what has changed.
const interval = time.Minute

// Contacts are the node's own contact and the others'.
type Contacts struct {
	home    *home.Home
	book    *records.Book
	network Network
	news    chan struct{} // holds one where a contact has come
}

// New returns the contacts of a node.
func New(h *home.Home, b *records.Book, n Network) *Contacts {
	return &Contacts{home: h, book: b, network: n, news: make(chan struct{}, 1)}
}

// Deliver takes in a record that is durable, with its decoded body.
func (c *Contacts) Deliver(_ record.Record, content any) {
	if _, ok := content.(contact.Contact); ok {
		select {
		case c.news <- struct{}{}:
		default:
		}
	}
}

// Live publishes the own contact and looks for the others until ctx ends.
func (c *Contacts) Live(ctx context.Context) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if !c.book.Listening() {
			if err := c.announce(); err != nil {
				c.book.Log.Fail(fmt.Errorf("the others are not told where this node is: %w", err))
			}
		}
		c.find()
		select {
		case <-ctx.Done():
			return
		case <-c.news:
		case <-tick.C:
		}
	}
}

// announce publishes the own contact, where it is not what was published.
func (c *Contacts) announce() error {
	config := c.home.Config()
	own := contact.Contact{Nation: config.Nation, Name: config.Name, Addresses: []string{}}
	addresses := c.network.Addrs()
	local := func(a string) bool { return strings.HasPrefix(a, "/ip4/127.") || strings.HasPrefix(a, "/ip6/::1/") }
	alone := !slices.ContainsFunc(addresses, func(a string) bool { return !local(a) })
	for _, a := range addresses {
		if (alone || !local(a)) && len(own.Addresses) < contact.MaxAddresses {
			own.Addresses = append(own.Addresses, a)
		}
	}
	slot := record.Slot{Kind: record.KindContact, Author: c.home.ID}
	if held := c.book.Store.Newest(slot); len(held) > 0 {
		if was, err := contact.Of(held[0]); err == nil && was.Nation == own.Nation && was.Name == own.Name && slices.Equal(was.Addresses, own.Addresses) {
			return nil
		}
	}
	r, content, err := c.book.Sign(record.KindContact, "", c.book.Store.Highest(slot)+1, own)
	if err != nil {
		return err
	}
	return c.book.Announce(r, content)
}

// find has the network dial the others, in another order every time: it keeps no
// more than it has room for.
func (c *Contacts) find() {
	all := All(c.book)
	delete(all, c.home.ID)
	ids := make([]record.NodeID, 0, len(all))
	for id := range all {
		ids = append(ids, id)
	}
	rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	for _, id := range ids {
		c.network.Find(all[id].Addresses...)
	}
}

// All returns the contacts that a book holds.
func All(b *records.Book) map[record.NodeID]contact.Contact {
	all := map[record.NodeID]contact.Contact{}
	for _, r := range b.Store.Records(record.KindContact) {
		if is, err := contact.Of(r); err == nil {
			all[r.Author] = is
		}
	}
	return all
}
