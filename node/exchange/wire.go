package exchange

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A conversation is a stream of frames: four bytes of length (big endian), one
// byte of kind, and the rest. The fetcher opens with hello and may then ask, one
// ask at a time. The holder tells what it has, first and whenever that changes,
// and answers each ask by a promise of some of the chunks asked for, or of none
// for now; then the bytes of the promised chunks follow in ascending order, in
// pieces between which other frames may stand. The fetcher says what it got, as
// soon as others can have it from there.
const (
	kindHello   = 1 // fetcher: the ID of an announcement
	kindAsk     = 2 // fetcher: at most how many, whether it can wait, out of which chunks
	kindHave    = 3 // holder: all chunks that it has; differs from the one before
	kindPromise = 4 // holder: the chunks that it will send
	kindPiece   = 5 // holder: the next bytes of the chunk in turn
	kindGot     = 6 // fetcher: all chunks that this holder sent and that it now has itself

	headLen = 5
	askLen  = 2 + bitmapLen
	// With the heads of this protocol and of yamux, a piece fills a message of
	// Noise (65519 bytes).
	maxPiece = 65519 - 12 - headLen

	// So many chunks may be asked for and not got on one stream.
	maxWindow = 8
)

// errGarbage is what an honest node never sends.
var errGarbage = errors.New("the peer broke the protocol")

func appendHead(b []byte, kind byte, n int) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(n+1)), kind)
}

// readHead returns the kind of a frame and the number of bytes that follow,
// which is one that the kind can have. io.EOF: the stream ended between frames.
func readHead(r io.Reader) (kind byte, n int, err error) {
	var head [headLen]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, 0, err
	}
	kind = head[4]
	length := int64(binary.BigEndian.Uint32(head[:])) - 1
	least, most := int64(0), int64(-1)
	switch kind {
	case kindHello:
		least, most = 32, 32
	case kindAsk:
		least, most = askLen, askLen
	case kindHave, kindPromise, kindGot:
		least, most = bitmapLen, bitmapLen
	case kindPiece:
		least, most = 1, maxPiece
	}
	if length < least || length > most {
		return 0, 0, fmt.Errorf("%w: frame of kind %d with %d bytes", errGarbage, kind, length)
	}
	return kind, int(length), nil
}

// readBody reads the n bytes of a frame into b, which they must fit.
func readBody(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func readBitmap(r io.Reader) (bitmap, error) {
	var b [bitmapLen]byte
	if err := readBody(r, b[:]); err != nil {
		return bitmap{}, err
	}
	return decodeBitmap(b), nil
}

func readHello(r io.Reader) (id [32]byte, err error) {
	kind, _, err := readHead(r)
	if err != nil {
		return id, err
	}
	if kind != kindHello {
		return id, fmt.Errorf("%w: frame of kind %d instead of a hello", errGarbage, kind)
	}
	return id, readBody(r, id[:])
}

// ask is a wish for at most count chunks of a set, whichever the holder likes.
type ask struct {
	count int
	// patient: nobody else that the fetcher knows has them, but somebody may soon.
	patient bool
	set     bitmap
}

func (a ask) append(b []byte) []byte {
	b = append(appendHead(b, kindAsk, askLen), byte(a.count), 0)
	if a.patient {
		b[len(b)-1] = 1
	}
	return a.set.append(b)
}

func readAsk(r io.Reader) (ask, error) {
	var b [askLen]byte
	if err := readBody(r, b[:]); err != nil {
		return ask{}, err
	}
	a := ask{count: int(b[0]), patient: b[1] == 1, set: decodeBitmap([bitmapLen]byte(b[2:]))}
	if a.count < 1 || a.count > maxWindow || b[1] > 1 || a.set.empty() {
		return ask{}, fmt.Errorf("%w: ask for %d of %d chunks", errGarbage, a.count, a.set.count())
	}
	return a, nil
}

func appendBitmap(b []byte, kind byte, set bitmap) []byte {
	return set.append(appendHead(b, kind, bitmapLen))
}
