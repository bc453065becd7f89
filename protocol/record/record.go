// Package record is the only thing that crosses a border: a signed,
// content-addressed statement of one author. It knows bytes, keys and sizes,
// and nothing of what a record says.
//
// A record is a dag-cbor map (https://ipld.io/specs/codecs/dag-cbor/spec/) with
// the keys author, federation, kind, number, payload, signature, subject and
// version. It is named by the CIDv1 (dag-cbor, sha2-256) of exactly those bytes.
//
// Every record stands in a [Slot]: its kind, its subject and its author. In a
// slot the record with the highest number counts; two different records with
// one number in one slot prove that the author equivocated.
package record

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Kind says what a record's payload is.
type Kind string

// The kinds of records, each with what its subject and its number are.
const (
	KindContact    Kind = "contact"    // subject: none; number: version, from 1
	KindManifest   Kind = "manifest"   // subject: dataset name; number: version, from 1
	KindTask       Kind = "task"       // subject: SHA-256 of the payload in hex; number: 0
	KindEnrolment  Kind = "enrolment"  // subject: task CID; number: 0
	KindUpdate     Kind = "update"     // subject: task CID; number: round, from 1
	KindEvaluation Kind = "evaluation" // subject: task CID; number: 0
	KindLeave      Kind = "leave"      // subject: task CID; number: 0
	KindBeacon     Kind = "beacon"     // subject: task CID; number: grows; never stored
	KindProposal   Kind = "proposal"   // subject: task CID/topic; number: ballot, from 0
	KindPrevote    Kind = "prevote"    // subject: task CID/topic; number: ballot, from 0
	KindPrecommit  Kind = "precommit"  // subject: task CID/topic; number: ballot, from 0
	KindSeal       Kind = "seal"       // subject: task CID/topic; number: 0
)

const (
	// Version is the version of the envelope.
	Version = 1
	// MaxGossip is the largest record, in bytes, that gossip carries. A larger
	// one travels by pull alone, because pubsub drops too large messages in
	// silence.
	MaxGossip = 60 << 10
	// MaxBytes is the largest record in bytes that a node accepts at all.
	MaxBytes = 1 << 20
	// MaxBallots bounds how many ballots a decision by quorum may take.
	MaxBallots = 1 << 10
	// MaxName is the longest federation name and the longest subject in bytes.
	MaxName = 256

	domain = "village record v1\x00"
)

// Errors that [Open] wraps. Each but ErrVersion holds for every honest node
// that sees the same bytes, so that a peer who forwards them may be blamed.
var (
	ErrTooLarge   = errors.New("record is too large")
	ErrMalformed  = errors.New("record is malformed")
	ErrVersion    = errors.New("record has a newer version than this program knows")
	ErrFederation = errors.New("record is of another federation")
	ErrSignature  = errors.New("record's signature does not verify")
)

// Slot is the place of a record, in which only its newest one counts.
type Slot struct {
	Kind    Kind
	Subject string
	Author  NodeID
}

// Record is a signed statement. Its fields are those of the envelope; CID and
// Bytes are set by [Sign] and [Open] and name and hold the exact signed bytes.
type Record struct {
	Slot
	Federation string
	Number     uint64
	Payload    []byte // dag-cbor of what the kind says

	CID   CID
	Bytes []byte
}

// envelope is a record as it stands on the wire.
type envelope struct {
	Author     NodeID `cbor:"author"`
	Federation string `cbor:"federation"`
	Kind       Kind   `cbor:"kind"`
	Number     uint64 `cbor:"number"`
	Payload    []byte `cbor:"payload"`
	Signature  []byte `cbor:"signature"`
	Subject    string `cbor:"subject"`
	Version    uint64 `cbor:"version"`
}

// signed returns the bytes that the signature covers: a domain, then every
// field of the envelope behind its length, so that no two records share them.
func (e *envelope) signed() []byte {
	b := make([]byte, 0, len(domain)+len(e.Payload)+128)
	b = append(b, domain...)
	for _, field := range [][]byte{[]byte(e.Federation), []byte(e.Kind), []byte(e.Subject), e.Author[:], e.Payload} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(field)))
		b = append(b, field...)
	}
	return binary.BigEndian.AppendUint64(b, e.Number)
}

func (e *envelope) check() error {
	switch {
	case e.Version > Version:
		return ErrVersion
	case e.Version != Version:
		return fmt.Errorf("%w: version %d", ErrMalformed, e.Version)
	case len(e.Kind) == 0 || len(e.Kind) > 32 || !utf8.ValidString(string(e.Kind)):
		return fmt.Errorf("%w: kind of %d bytes", ErrMalformed, len(e.Kind))
	case len(e.Federation) == 0 || len(e.Federation) > MaxName || !utf8.ValidString(e.Federation):
		return fmt.Errorf("%w: federation name of %d bytes", ErrMalformed, len(e.Federation))
	case len(e.Subject) > MaxName || !utf8.ValidString(e.Subject):
		return fmt.Errorf("%w: subject of %d bytes", ErrMalformed, len(e.Subject))
	case len(e.Signature) != ed25519.SignatureSize:
		return fmt.Errorf("%w: signature of %d bytes", ErrMalformed, len(e.Signature))
	case len(e.Payload) == 0:
		return fmt.Errorf("%w: no payload", ErrMalformed)
	}
	return nil
}

// Sign makes a record of payload, any value that [Encode] takes.
func Sign(key ed25519.PrivateKey, federation string, kind Kind, subject string, number uint64, payload any) (Record, error) {
	body, err := Encode(payload)
	if err != nil {
		return Record{}, err
	}
	e := envelope{
		Author: NodeIDOf(key.Public().(ed25519.PublicKey)), Federation: federation, Kind: kind,
		Number: number, Payload: body, Subject: subject, Version: Version,
	}
	e.Signature = ed25519.Sign(key, e.signed())
	if err := e.check(); err != nil {
		return Record{}, err
	}
	b, err := Encode(&e)
	if err != nil {
		return Record{}, err
	}
	if len(b) > MaxBytes {
		return Record{}, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(b), MaxBytes)
	}
	return e.record(b), nil
}

// Open checks the bytes of a record in the order size, form, version,
// federation, signature (the payload is not looked at) and returns it.
// The record keeps b. An empty federation accepts any.
func Open(b []byte, federation string) (Record, error) {
	if len(b) > MaxBytes {
		return Record{}, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(b), MaxBytes)
	}
	var e envelope
	if err := Decode(b, &e); err != nil {
		// A newer program may add fields, so its version is looked for first.
		var v struct {
			Version uint64 `cbor:"version"`
		}
		if lenient.Unmarshal(b, &v) == nil && v.Version > Version {
			return Record{}, ErrVersion
		}
		return Record{}, err
	}
	if err := e.check(); err != nil {
		return Record{}, err
	}
	if federation != "" && e.Federation != federation {
		return Record{}, fmt.Errorf("%w: %q", ErrFederation, e.Federation)
	}
	if !ed25519.Verify(ed25519.PublicKey(e.Author[:]), e.signed(), e.Signature) {
		return Record{}, ErrSignature
	}
	return e.record(b), nil
}

func (e *envelope) record(b []byte) Record {
	return Record{
		Slot:       Slot{Kind: e.Kind, Subject: e.Subject, Author: e.Author},
		Federation: e.Federation, Number: e.Number, Payload: e.Payload,
		CID: CIDOf(b), Bytes: b,
	}
}

// Trusted reads bytes that were opened before, as a store holds them: it
// checks that they hash to c, and leaves the signature unchecked.
func Trusted(b []byte, c CID) (Record, error) {
	if got := CIDOf(b); got != c {
		return Record{}, fmt.Errorf("%w: bytes of %s hash to %s", ErrMalformed, c, got)
	}
	var e envelope
	if err := Decode(b, &e); err != nil {
		return Record{}, err
	}
	return e.record(b), nil
}

// Keep is how many records of a slot a node holds on to, newest first.
func (k Kind) Keep() int {
	switch k {
	case KindUpdate:
		// A node that is one round behind mixes the round that it is in, not
		// the one that its peers have reached.
		return 2
	case KindProposal, KindPrevote, KindPrecommit:
		// What a node has said in any ballot binds it, also after a restart.
		return MaxBallots
	}
	return 1
}

// Catalogue is the group of the records that are not part of one task.
const Catalogue = "catalogue"

// Group is the set that a record is exchanged in when nodes compare what they
// hold: its task's CID, or [Catalogue] for contacts, manifests and tasks themselves.
func (s Slot) Group() string {
	switch s.Kind {
	case KindContact, KindManifest, KindTask:
		return Catalogue
	}
	group, _, _ := strings.Cut(s.Subject, "/")
	return group
}
