package home

import (
	"bytes"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"village/protocol/record"
)

// DefaultPort is where a node listens unless its config says otherwise.
const DefaultPort = 4811

// Config is what config.toml says. A key that is absent has its default.
type Config struct {
	Nation     string   `toml:"nation"`     // ISO 3166-1 alpha-3
	Name       string   `toml:"name"`       // for display only
	Federation string   `toml:"federation"` // see [CheckFederation]
	Listen     []string `toml:"listen"`     // multiaddrs; empty means DefaultPort, see [Config.ListenAddrs]
	Announce   []string `toml:"announce"`   // multiaddrs to tell others instead of those listened on
	Peers      []string `toml:"peers"`      // multiaddrs with /p2p/PEER-ID to keep connected to
	MDNS       bool     `toml:"mdns"`       // find peers on the local network; default true
	// Members closes the federation to the nodes that it lists, and this one.
	// Nil leaves it open; an empty list admits nobody else.
	Members []record.NodeID `toml:"members"`
	// AuthorMiB and StrangersMiB are the MiB of records that the node holds of each
	// other author, and of all whom it does not know (see [Home.Knows]) together.
	AuthorMiB    uint32 `toml:"author_mib"`
	StrangersMiB uint32 `toml:"strangers_mib"`
}

// Default returns a config in which everything that has a default is set to it.
func Default() Config { return Config{MDNS: true, AuthorMiB: 256, StrangersMiB: 256} }

// ParseConfig reads and checks config.toml.
func ParseConfig(data []byte) (Config, error) {
	c := Default()
	if err := DecodeTOML(data, ConfigFile, &c); err != nil {
		return Config{}, err
	}
	if err := c.Check(); err != nil {
		return Config{}, fmt.Errorf("%s: %w", ConfigFile, err)
	}
	return c, nil
}

// Check says what is wrong with a config.
func (c Config) Check() error {
	if code, err := CheckNation(c.Nation); err != nil {
		return err
	} else if code != c.Nation {
		return fmt.Errorf("nation %q must be written %q", c.Nation, code)
	}
	if err := CheckName(c.Name); err != nil {
		return err
	}
	if err := CheckFederation(c.Federation); err != nil {
		return err
	}
	for _, a := range append(append([]string{}, c.Listen...), c.Announce...) {
		if _, err := multiaddr.NewMultiaddr(a); err != nil {
			return fmt.Errorf("%q is not a multiaddr such as /ip4/0.0.0.0/tcp/%d", a, DefaultPort)
		}
	}
	for _, a := range c.Peers {
		if err := CheckPeer(a); err != nil {
			return err
		}
	}
	return nil
}

// CheckPeer accepts the multiaddr of a node: with an address, and ending in the
// peer ID of an Ed25519 key.
func CheckPeer(address string) error {
	_, err := PeerOf(address)
	return err
}

// PeerOf returns the node that an address accepted by [CheckPeer] is of.
func PeerOf(address string) (record.NodeID, error) {
	info, err := peer.AddrInfoFromString(address)
	if err != nil || len(info.Addrs) != 1 {
		return record.NodeID{}, fmt.Errorf("%q is not a peer's address such as /ip4/192.0.2.1/tcp/%d/p2p/12D3KooW…; the other node's 'village id' shows its own", address, DefaultPort)
	}
	return record.ParseNodeID(info.ID.String())
}

// encode writes the keys that differ from the default.
func (c Config) encode() ([]byte, error) {
	b := bytes.NewBufferString("# A Village node. Commands that change this file do not keep comments.\n")
	for _, f := range []struct {
		key   string
		value any
		write bool
	}{
		{"nation", c.Nation, true},
		{"name", c.Name, true},
		{"federation", c.Federation, true},
		{"listen", c.Listen, len(c.Listen) > 0},
		{"announce", c.Announce, len(c.Announce) > 0},
		{"peers", c.Peers, len(c.Peers) > 0},
		{"mdns", c.MDNS, !c.MDNS},
		{"members", c.Members, c.Members != nil},
		{"author_mib", c.AuthorMiB, c.AuthorMiB != Default().AuthorMiB},
		{"strangers_mib", c.StrangersMiB, c.StrangersMiB != Default().StrangersMiB},
	} {
		if !f.write {
			continue
		}
		if err := toml.NewEncoder(b).Encode(map[string]any{f.key: f.value}); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// CheckName accepts a display name: UTF-8, 1 to 64 characters, none of them a
// control character, a line separator or one that changes the direction of
// text, which could make a terminal show something else.
func CheckName(s string) error {
	if !utf8.ValidString(s) || strings.TrimSpace(s) == "" || utf8.RuneCountInString(s) > 64 {
		return fmt.Errorf("the name %q must have 1 to 64 characters of UTF-8", s)
	}
	for _, r := range s {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' || r == '\ufeff' {
			return fmt.Errorf("the name %q holds the character %U, which is not for display", s, r)
		}
	}
	return nil
}

var federationName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// CheckFederation accepts a federation name: 1 to 64 ASCII letters, digits,
// dots, hyphens and underscores, the first a letter or digit. The name is part
// of topics and protocol IDs.
func CheckFederation(s string) error {
	if !federationName.MatchString(s) {
		return fmt.Errorf("the federation name %q must have 1 to 64 letters, digits, dots, hyphens or underscores, and start with a letter or digit", s)
	}
	return nil
}

// randomFederation makes a name that nobody else has: 50 random bits.
func randomFederation() string {
	b := make([]byte, 7)
	rand.Read(b) // never fails
	return "village-" + strings.ToLower(base32.StdEncoding.EncodeToString(b)[:10])
}

// ListenAddrs returns the multiaddrs to listen on: those configured, else TCP
// and QUIC on all IPv4 interfaces at DefaultPort or the next port that is free.
func (c Config) ListenAddrs() ([]string, error) {
	if len(c.Listen) > 0 {
		return c.Listen, nil
	}
	for port := DefaultPort; port < DefaultPort+1000; port++ {
		if free(port) {
			return listenOn(port), nil
		}
	}
	return nil, fmt.Errorf("no free port from %d to %d", DefaultPort, DefaultPort+999)
}

func listenOn(port int) []string {
	return []string{
		fmt.Sprintf("/ip4/0.0.0.0/tcp/%d", port),
		fmt.Sprintf("/ip4/0.0.0.0/udp/%d/quic-v1", port),
	}
}

// free reports whether both TCP and UDP can listen on the port now.
func free(port int) bool {
	t, err := net.ListenTCP("tcp4", &net.TCPAddr{Port: port})
	if err != nil {
		return false
	}
	u, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port})
	if err == nil {
		err = u.Close()
	}
	return errors.Join(err, t.Close()) == nil
}
