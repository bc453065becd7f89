package ingest

import (
	"encoding/binary"
	"errors"
)

// The types of Thrift's compact protocol.
const (
	thriftStop   = 0
	thriftTrue   = 1
	thriftFalse  = 2
	thriftByte   = 3
	thriftI16    = 4
	thriftI32    = 5
	thriftI64    = 6
	thriftDouble = 7
	thriftBinary = 8
	thriftList   = 9
	thriftSet    = 10
	thriftStruct = 12
)

const (
	maxDepth = 16
	// maxElements is the most elements that all lists of a structure may have
	// together. A column has about ten in each row group.
	maxElements = 1 << 20
)

var errThrift = errors.New("the metadata are damaged")

// walker goes over a Thrift structure without decoding it, so that nothing is
// allocated for lengths that it only claims to have. The library allocates a
// list by the length that it reads.
type walker struct {
	b        []byte // what is left
	elements int    // of all lists so far
}

// structSize returns how many bytes the structure takes with which b begins.
func structSize(b []byte) (int, error) {
	w := walker{b: b}
	if err := w.skip(thriftStruct, 0); err != nil {
		return 0, err
	}
	return len(b) - len(w.b), nil
}

func (w *walker) skip(kind byte, depth int) error {
	switch kind {
	case thriftTrue, thriftFalse:
		return nil // as a field it has no bytes
	case thriftByte:
		return w.drop(1)
	case thriftI16, thriftI32, thriftI64:
		_, err := w.uvarint()
		return err
	case thriftDouble:
		return w.drop(8)
	case thriftBinary:
		n, err := w.uvarint()
		if err != nil {
			return err
		}
		return w.drop(n)
	case thriftList, thriftSet:
		return w.list(depth + 1)
	case thriftStruct:
		return w.structure(depth + 1)
	}
	return errThrift // Parquet has no maps
}

func (w *walker) structure(depth int) error {
	if depth > maxDepth {
		return errThrift
	}
	for {
		b, err := w.byte()
		if err != nil || b == thriftStop {
			return err
		}
		if b>>4 == 0 { // the field's number is given in full
			if _, err := w.uvarint(); err != nil {
				return err
			}
		}
		if err := w.skip(b&0xf, depth); err != nil {
			return err
		}
	}
}

func (w *walker) list(depth int) error {
	b, err := w.byte()
	if err != nil {
		return err
	}
	n := uint64(b >> 4)
	if n == 15 {
		if n, err = w.uvarint(); err != nil {
			return err
		}
	}
	if depth > maxDepth || n > uint64(maxElements-w.elements) {
		return errThrift
	}
	w.elements += int(n)
	kind := b & 0xf
	if kind == thriftTrue || kind == thriftFalse {
		kind = thriftByte // as an element it has one
	}
	for range n {
		if err := w.skip(kind, depth); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) byte() (byte, error) {
	if len(w.b) == 0 {
		return 0, errThrift
	}
	b := w.b[0]
	w.b = w.b[1:]
	return b, nil
}

func (w *walker) uvarint() (uint64, error) {
	v, n := binary.Uvarint(w.b)
	if n <= 0 {
		return 0, errThrift
	}
	w.b = w.b[n:]
	return v, nil
}

func (w *walker) drop(n uint64) error {
	if n > uint64(len(w.b)) {
		return errThrift
	}
	w.b = w.b[n:]
	return nil
}
