package record

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/mr-tron/base58"
	"github.com/multiformats/go-multihash"
	"pgregory.net/rapid"
)

func TestNodeIDIsThePeerID(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.SliceOfN(rapid.Byte(), ed25519.SeedSize, ed25519.SeedSize).Draw(t, "seed")
		public := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
		id := NodeIDOf(public)
		p2pKey, err := crypto.UnmarshalEd25519PublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		want, err := peer.IDFromPublicKey(p2pKey)
		if err != nil {
			t.Fatal(err)
		}
		if id.String() != want.String() {
			t.Fatalf("%s, libp2p says %s", id, want)
		}
		back, err := ParseNodeID(want.String())
		if err != nil || back != id {
			t.Fatalf("%s is read as %s, %v", want, back, err)
		}
		if text, err := json.Marshal(id); err != nil || string(text) != `"`+want.String()+`"` {
			t.Fatalf("JSON %s, %v", text, err)
		}
		// The order of nodes is that of their peer IDs' bytes.
		o := NodeID(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "other"))
		other, _ := peer.Decode(o.String())
		if id.Compare(o) != bytes.Compare([]byte(want), []byte(other)) {
			t.Fatalf("%s and %s compare as %d", id, o, id.Compare(o))
		}
	})
}

func TestParseNodeIDTakesEd25519Alone(t *testing.T) {
	id := NodeIDOf(key(1).Public().(ed25519.PublicKey))
	bad := map[string]string{
		"empty": "", "garbage": "12D3KooWxx", "not base58": "12D3KooW0OIl", "cut": id.String()[:51], "longer": id.String() + "1",
		"leading one": "1" + id.String(), "space": id.String() + " ", "as CID": peer.ToCid(peer.ID(peerIDPrefix) + peer.ID(id[:])).String(),
		"huge": strings.Repeat("z", 1<<20), "not ASCII": "12D3KooWé",
	}
	// Of the right length, but no Ed25519 key; and a key that is too long or short.
	for at, name := range []string{"another hash", "another length", "another field", "another type of key", "another field of the key", "a shorter key"} {
		prefix := slices.Clone(peerIDPrefix)
		prefix[at]++
		bad[name] = base58.Encode(append(prefix, id[:]...))
	}
	bad["33 bytes"] = base58.Encode(slices.Concat(peerIDPrefix, id[:], []byte{1}))
	bad["31 bytes"] = base58.Encode(slices.Concat(peerIDPrefix, id[1:]))
	for name, generate := range map[string]func() (crypto.PrivKey, crypto.PubKey, error){
		"secp256k1": func() (crypto.PrivKey, crypto.PubKey, error) { return crypto.GenerateSecp256k1Key(rand.Reader) },
		"ECDSA":     func() (crypto.PrivKey, crypto.PubKey, error) { return crypto.GenerateECDSAKeyPair(rand.Reader) },
	} {
		_, public, err := generate()
		if err != nil {
			t.Fatal(err)
		}
		other, err := peer.IDFromPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		bad[name] = other.String()
	}
	for name, s := range bad {
		got, err := ParseNodeID(s)
		if err == nil || got != (NodeID{}) {
			t.Errorf("%s: %q is read as %s", name, s, got)
		} else if len(err.Error()) > 500 || !strings.Contains(err.Error(), "village id") {
			t.Errorf("%s: %v", name, err)
		}
		if err := got.UnmarshalText([]byte(s)); err == nil {
			t.Errorf("%s: unmarshalled", name)
		}
	}
}

func TestCIDAsText(t *testing.T) {
	c := CIDOf([]byte("x"))
	type doc struct {
		C CID `json:"c"`
	}
	b, err := json.Marshal(doc{c})
	if err != nil || string(b) != `{"c":"`+c.String()+`"}` {
		t.Errorf("%s, %v", b, err)
	}
	var d doc
	if err := json.Unmarshal(b, &d); err != nil || d.C != c {
		t.Errorf("%s, %v", d.C, err)
	}
	if b, err := json.Marshal(doc{}); err != nil || string(b) != `{"c":""}` {
		t.Errorf("undefined is written %s, %v", b, err)
	}
	for _, s := range []string{`{"c":""}`, `{"c":null}`} {
		d := doc{c}
		if err := json.Unmarshal([]byte(s), &d); err != nil || d.C.Defined() {
			t.Errorf("%s is read as %s, %v", s, d.C, err)
		}
	}
	for _, s := range []string{`{"c":1}`, `{"c":"x"}`, `{"c":{}}`, `{"c":["` + c.String() + `"]}`, `{"c":"` + c.String()[:20] + `"}`, `{"c":"z` + strings.Repeat("z", 1<<20) + `"}`} {
		if err := json.Unmarshal([]byte(s), &d); err == nil || len(err.Error()) > 500 {
			t.Errorf("%.100s is read as %s, %.600v", s, d.C, err)
		}
	}
	// Who calls it by hand may give what is no JSON at all.
	for _, s := range []string{``, `"`, `1`, c.String(), `"` + c.String(), c.String() + `"`, `'` + c.String() + `"`, `"` + c.String() + `'`} {
		if err := d.C.UnmarshalJSON([]byte(s)); err == nil {
			t.Errorf("%s is read as %s", s, d.C)
		}
	}
	// Another base names the same CID; it is written in the one form.
	capitals, err := c.StringOfBase('B')
	if err != nil {
		t.Fatal(err)
	}
	if same, err := ParseCID(capitals); err != nil || same != c || same.String() != c.String() {
		t.Errorf("%s is read as %s, %v", capitals, same, err)
	}
}

func TestLinksToOtherCodecsComeBack(t *testing.T) {
	sum, err := multihash.Sum([]byte("x"), multihash.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []CID{{cid.NewCidV1(cid.Raw, sum)}, {cid.NewCidV1(cid.DagProtobuf, sum)}, {cid.NewCidV0(sum)}} {
		b, err := Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		var back CID
		if err := Decode(b, &back); err != nil || back != c {
			t.Errorf("%s is read as %s, %v", c, back, err)
		}
		if _, again, err := other(b); err != nil || !slices.Equal(again, b) {
			t.Errorf("go-ipld-prime writes %x as %x, %v", b, again, err)
		}
	}
}

// A link is tag 42 over a zero byte and a binary CID, and nothing else is.
func TestWhatIsNoLink(t *testing.T) {
	c := CIDOf([]byte("x"))
	for name, v := range map[string]any{
		"another tag":     cbor.Tag{Number: 43, Content: append([]byte{0}, c.Bytes()...)},
		"another base":    cbor.Tag{Number: 42, Content: append([]byte{1}, c.Bytes()...)},
		"no base":         cbor.Tag{Number: 42, Content: c.Bytes()},
		"an empty link":   cbor.Tag{Number: 42, Content: []byte{}},
		"a base alone":    cbor.Tag{Number: 42, Content: []byte{0}},
		"a text":          cbor.Tag{Number: 42, Content: c.String()},
		"a trailing byte": cbor.Tag{Number: 42, Content: append(append([]byte{0}, c.Bytes()...), 0)},
		"no tag":          append([]byte{0}, c.Bytes()...),
	} {
		b, err := encoder.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		// By hand as well, for Decode refuses what would be written otherwise.
		var read CID
		if err := read.UnmarshalCBOR(b); err == nil || Decode(b, &read) == nil {
			t.Errorf("%s is read as %s", name, read)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(NodeID{1}.String())
	f.Add(CIDOf(nil).String())
	f.Add("QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseNodeID(s); err == nil && id.String() != s {
			t.Fatalf("%q is read as %s", s, id)
		}
		if c, err := ParseCID(s); err == nil {
			if again, err := ParseCID(c.String()); err != nil || again != c {
				t.Fatalf("%q is read as %s, then %s, %v", s, c, again, err)
			}
		}
	})
}
