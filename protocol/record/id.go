package record

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
	"github.com/ipfs/go-cid"
	"github.com/mr-tron/base58"
	"github.com/multiformats/go-multihash"
)

// NodeID is a node's Ed25519 public key. Its text form is the libp2p peer ID of
// that key (base58 of the identity multihash of the key's protobuf,
// https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md).
type NodeID [ed25519.PublicKeySize]byte

// peerIDPrefix is the identity multihash header (0x00, 36 bytes) and the
// protobuf header (type Ed25519, 32 bytes of data) of every Ed25519 peer ID.
var peerIDPrefix = []byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}

// NodeIDOf returns the ID of a public key.
func NodeIDOf(key ed25519.PublicKey) NodeID { return NodeID(key) }

// maxText bounds the texts of IDs, because decoding base58 takes time that
// grows with the square of the length.
const maxText = 256

// ParseNodeID reads a libp2p peer ID of an Ed25519 key.
func ParseNodeID(s string) (NodeID, error) {
	b, err := base58.Decode(s[:min(len(s), maxText)])
	if err != nil || len(b) != len(peerIDPrefix)+ed25519.PublicKeySize || !bytes.HasPrefix(b, peerIDPrefix) {
		return NodeID{}, fmt.Errorf("%.64q is not the peer ID of an Ed25519 key (it starts with 12D3KooW; see 'village id')", s)
	}
	return NodeID(b[len(peerIDPrefix):]), nil
}

func (id NodeID) String() string {
	return base58.Encode(append(append(make([]byte, 0, 38), peerIDPrefix...), id[:]...))
}

// Compare orders nodes by the bytes of their peer IDs.
func (id NodeID) Compare(other NodeID) int { return bytes.Compare(id[:], other[:]) }

// MarshalText and UnmarshalText use the peer ID.
func (id NodeID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

func (id *NodeID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseNodeID(string(b))
	return err
}

// MarshalCBOR and UnmarshalCBOR use the 32 bytes of the key.
func (id NodeID) MarshalCBOR() ([]byte, error) { return encoder.Marshal(id[:]) }

func (id *NodeID) UnmarshalCBOR(b []byte) error {
	var key []byte
	if err := strict.Unmarshal(b, &key); err != nil {
		return err
	}
	if len(key) != len(id) {
		return fmt.Errorf("public key of %d bytes", len(key))
	}
	*id = NodeID(key)
	return nil
}

// CID names immutable bytes. In dag-cbor it is a link (tag 42), in JSON a
// string. The zero CID is undefined and cannot be encoded.
type CID struct{ cid.Cid }

// CIDOf returns the CIDv1 (dag-cbor, sha2-256) of a record's bytes.
func CIDOf(b []byte) CID {
	sum := sha256.Sum256(b)
	mh, err := multihash.Encode(sum[:], multihash.SHA2_256)
	if err != nil {
		panic(err) // a digest of 32 bytes is always encodable
	}
	return CID{cid.NewCidV1(cid.DagCBOR, mh)}
}

// ParseCID reads the text form of a CID.
func ParseCID(s string) (CID, error) {
	if len(s) > maxText {
		return CID{}, fmt.Errorf("%.64q... is not a CID: %d bytes are too many", s, len(s))
	}
	c, err := cid.Decode(s)
	if err != nil {
		return CID{}, fmt.Errorf("%q is not a CID: %w", s, err)
	}
	return CID{c}, nil
}

// CastCID reads the binary form of a CID.
func CastCID(b []byte) (CID, error) {
	c, err := cid.Cast(b)
	if err != nil {
		return CID{}, fmt.Errorf("not a CID: %w", err)
	}
	return CID{c}, nil
}

// MarshalJSON and UnmarshalJSON use the text form; undefined is the empty string.
func (c CID) MarshalJSON() ([]byte, error) {
	if !c.Defined() {
		return []byte(`""`), nil
	}
	return []byte(`"` + c.String() + `"`), nil
}

func (c *CID) UnmarshalJSON(b []byte) (err error) {
	if string(b) == `""` || string(b) == "null" {
		*c = CID{}
		return nil
	}
	if len(b) < 2 || b[0] != '"' || b[len(b)-1] != '"' {
		return errors.New("a CID is a JSON string")
	}
	*c, err = ParseCID(string(b[1 : len(b)-1]))
	return err
}

// MarshalCBOR and UnmarshalCBOR use tag 42 over the identity multibase prefix
// and the binary CID (dag-cbor spec, "Links").
func (c CID) MarshalCBOR() ([]byte, error) {
	if !c.Defined() {
		return nil, errors.New("undefined CID")
	}
	return encoder.Marshal(cbor.Tag{Number: 42, Content: append([]byte{0}, c.Bytes()...)})
}

func (c *CID) UnmarshalCBOR(b []byte) error {
	var tag cbor.RawTag
	if err := strict.Unmarshal(b, &tag); err != nil {
		return err
	}
	var link []byte
	if err := strict.Unmarshal(tag.Content, &link); err != nil {
		return err
	}
	if tag.Number != 42 || len(link) < 2 || link[0] != 0 {
		return errors.New("not a dag-cbor link")
	}
	parsed, err := cid.Cast(link[1:])
	if err != nil {
		return err
	}
	*c = CID{parsed}
	return nil
}
