// Package contact is a node's signed word of who it is and where it can be reached.
// Contacts spread as manifests do, so that after a first one any node may vanish
// and the others still find each other.
package contact

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"village/protocol/record"
	"village/protocol/task"
)

// What a contact holds at most.
const (
	MaxAddresses = 16
	maxAddress   = 256 // bytes
)

// ErrInvalid is wrapped by every refusal of a contact.
var ErrInvalid = errors.New("contact is not valid")

// Contact is the payload of a contact record. Each node has one, and signs a new
// one when something of it changes.
type Contact struct {
	Nation    string   `cbor:"nation" json:"nation"` // ISO 3166-1 alpha-3
	Name      string   `cbor:"name" json:"name"`
	Addresses []string `cbor:"addresses" json:"addresses"` // multiaddrs that end in /p2p/ and its ID, the best first
}

// Of reads a contact record and checks it.
func Of(r record.Record) (Contact, error) {
	var c Contact
	err := record.Decode(r.Payload, &c)
	switch {
	case err != nil:
	case r.Kind != record.KindContact || r.Subject != "" || r.Number == 0:
		err = errors.New("it stands in another place")
	case len(c.Addresses) > MaxAddresses:
		err = fmt.Errorf("%d addresses, at most %d", len(c.Addresses), MaxAddresses)
	default:
		err = cmp.Or(task.CheckNation(c.Nation), task.CheckName(c.Name))
	}
	suffix := "/p2p/" + r.Author.String()
	for _, a := range c.Addresses {
		if err == nil && (len(a) > maxAddress || !strings.HasSuffix(a, suffix)) {
			err = fmt.Errorf("an address of at most %d bytes ends in %s", maxAddress, suffix)
		}
	}
	if err != nil {
		return Contact{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return c, nil
}
