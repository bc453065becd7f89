package contact

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"strings"
	"testing"

	"village/protocol/record"
)

var key = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

func TestOf(t *testing.T) {
	self := "/p2p/" + record.NodeIDOf(key.Public().(ed25519.PublicKey)).String()
	other := "/p2p/" + record.NodeID{1}.String()
	good := Contact{Nation: "CHE", Name: "zurich", Addresses: []string{"/ip4/203.0.113.7/tcp/4811" + self}}
	for name, c := range map[string]struct {
		subject string
		number  uint64
		edit    func(*Contact)
		ok      bool
	}{
		"good":                        {"", 1, func(*Contact) {}, true},
		"a later one":                 {"", 1 << 60, func(*Contact) {}, true},
		"nowhere":                     {"", 1, func(c *Contact) { c.Addresses = []string{} }, true},
		"as many addresses as may be": {"", 1, func(c *Contact) { c.Addresses = slices.Repeat(c.Addresses, MaxAddresses) }, true},
		"too many":                    {"", 1, func(c *Contact) { c.Addresses = slices.Repeat(c.Addresses, MaxAddresses+1) }, false},
		"a long one":                  {"", 1, func(c *Contact) { c.Addresses = []string{"/dns/" + strings.Repeat("a", maxAddress) + self} }, false},
		"another node's":              {"", 1, func(c *Contact) { c.Addresses = append(c.Addresses, "/ip4/203.0.113.7/tcp/4811"+other) }, false},
		"of no node":                  {"", 1, func(c *Contact) { c.Addresses = []string{"/ip4/203.0.113.7/tcp/4811"} }, false},
		"no name":                     {"", 1, func(c *Contact) { c.Name = "" }, false},
		"a name that steers":          {"", 1, func(c *Contact) { c.Name = "\x1b[2J" }, false},
		"no nation":                   {"", 1, func(c *Contact) { c.Nation = "ch" }, false},
		"a subject":                   {"x", 1, func(*Contact) {}, false},
		"no number":                   {"", 0, func(*Contact) {}, false},
	} {
		body := good
		c.edit(&body)
		r, err := record.Sign(key, "test", record.KindContact, c.subject, c.number, body)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Of(r)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		r.Kind = record.KindManifest
		if _, err := Of(r); err == nil {
			t.Errorf("%s: of another kind it is good", name)
		}
	}
}

func FuzzOf(f *testing.F) {
	r, err := record.Sign(key, "test", record.KindContact, "", 1, Contact{Nation: "CHE", Name: "zurich", Addresses: []string{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(r.Payload)
	f.Fuzz(func(t *testing.T, payload []byte) {
		r := r
		r.Payload = payload
		c, err := Of(r)
		if err != nil {
			return
		}
		if b, err := record.Encode(c); err != nil || !bytes.Equal(b, payload) {
			t.Errorf("%x is read as %+v, which is %x, %v", payload, c, b, err)
		}
	})
}
