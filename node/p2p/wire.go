package p2p

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multihash"

	"village/protocol/record"
)

// The bounds of messages, in entries and bytes. What a node holds beyond them
// it offers in random parts, so that repeated pulls bring all of it.
const (
	maxGroups    = 1 << 14
	maxListed    = 1 << 16
	maxAskGroups = 64
	maxAskCIDs   = 256

	maxSummary = 6 << 20
	maxListing = 4 << 20
	maxAsk     = 64 << 10

	// A stream on which nothing moves for so long is given up.
	idleTime = 15 * time.Second
)

// errGarbage is what an honest node never sends.
var errGarbage = errors.New("the peer broke the protocol")

// A pull is a conversation of frames: four bytes of length (big endian), then
// so many bytes. The puller opens with the SHA-256 of its own summary's frame.
// The server answers with an empty frame where its summary is the same, else
// with its summary. Then the puller asks, any number of times, for the listing
// of some groups (one frame) or for records (one frame each, in the order in
// which they were asked for; empty for one that is not held any more), and
// closes; nothing follows. All but the opening and the records themselves is dag-cbor.
type (
	summary struct {
		Groups []groupDigest `cbor:"groups"` // by name, ascending
	}
	groupDigest struct {
		Name   string   `cbor:"name"`
		Digest [32]byte `cbor:"digest"`
	}
	ask struct {
		Groups  []string     `cbor:"groups"`
		Records []record.CID `cbor:"records"`
	}
	listing struct {
		Records []record.CID `cbor:"records"`
	}
)

func decodeSummary(b []byte) (summary, error) {
	var m summary
	if err := record.Decode(b, &m); err != nil {
		return summary{}, fmt.Errorf("%w: summary: %w", errGarbage, err)
	}
	if len(m.Groups) > maxGroups {
		return summary{}, fmt.Errorf("%w: summary of %d groups", errGarbage, len(m.Groups))
	}
	for i, g := range m.Groups {
		if len(g.Name) > record.MaxName || i > 0 && m.Groups[i-1].Name >= g.Name {
			return summary{}, fmt.Errorf("%w: summary has a wrong group name", errGarbage)
		}
	}
	return m, nil
}

func decodeAsk(b []byte) (ask, error) {
	var m ask
	if err := record.Decode(b, &m); err != nil {
		return ask{}, fmt.Errorf("%w: ask: %w", errGarbage, err)
	}
	if len(m.Groups) > maxAskGroups || len(m.Records) > maxAskCIDs || (len(m.Groups) == 0) == (len(m.Records) == 0) {
		return ask{}, fmt.Errorf("%w: ask for %d groups and %d records", errGarbage, len(m.Groups), len(m.Records))
	}
	if err := checkCIDs(m.Records); err != nil {
		return ask{}, err
	}
	return m, nil
}

func decodeListing(b []byte) (listing, error) {
	var m listing
	if err := record.Decode(b, &m); err != nil {
		return listing{}, fmt.Errorf("%w: listing: %w", errGarbage, err)
	}
	if len(m.Records) > maxListed {
		return listing{}, fmt.Errorf("%w: listing of %d records", errGarbage, len(m.Records))
	}
	if err := checkCIDs(m.Records); err != nil {
		return listing{}, err
	}
	return m, nil
}

var recordPrefix = cid.Prefix{Version: 1, Codec: cid.DagCBOR, MhType: multihash.SHA2_256, MhLength: 32}

func checkCIDs(cids []record.CID) error {
	for _, c := range cids {
		if c.Prefix() != recordPrefix {
			return fmt.Errorf("%w: %s is not the CID of a record", errGarbage, c)
		}
	}
	return nil
}

func writeFrame(w io.Writer, b []byte) error {
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b)))
	_, err := w.Write(append(frame, b...))
	return err
}

func writeMessage(w io.Writer, v any) error {
	b, err := record.Encode(v)
	if err != nil {
		return err
	}
	return writeFrame(w, b)
}

// readFrame reads a frame of at most limit bytes. Memory grows with the bytes
// that arrive, not with what the length claims. io.EOF means that the other
// side closed between two frames.
func readFrame(r io.Reader, limit int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if int64(n) > int64(limit) {
		return nil, fmt.Errorf("%w: frame of %d bytes, at most %d", errGarbage, n, limit)
	}
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r, int64(n)); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return b.Bytes(), nil
}

// stream is a libp2p stream that ends with its context and whenever nothing
// moves for idleTime.
type stream struct {
	network.Stream
	stop   func() bool
	failed bool // reset instead of closed at the end
}

func newStream(ctx context.Context, s network.Stream) *stream {
	return &stream{Stream: s, stop: context.AfterFunc(ctx, func() { _ = s.Reset() })}
}

// open opens a stream to a connected peer.
func (n *Network) open(ctx context.Context, p peer.ID, id protocol.ID) (*stream, error) {
	s, err := n.host.NewStream(network.WithNoDial(ctx, string(id)), p, id)
	if err != nil {
		return nil, err
	}
	return newStream(ctx, s), nil
}

func (s *stream) Read(b []byte) (int, error) {
	_ = s.SetReadDeadline(time.Now().Add(idleTime)) // an ended stream says so when it is read
	return s.Stream.Read(b)
}

func (s *stream) Write(b []byte) (int, error) {
	_ = s.SetWriteDeadline(time.Now().Add(idleTime))
	return s.Stream.Write(b)
}

func (s *stream) done() {
	s.stop()
	if s.failed || s.Close() != nil {
		_ = s.Reset()
	}
}

// blame counts and punishes a peer that broke the protocol. A connection that
// ended is nobody's fault.
func (n *Network) blame(p peer.ID, err error) {
	if errors.Is(err, errGarbage) {
		n.refused.Add(1)
		n.accounts.punish(p)
		n.accounts.charge(p, costGarbage)
		n.log.Warn("a peer broke the protocol", "peer", p, "error", err)
	}
}
