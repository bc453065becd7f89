package ingest

import (
	"encoding/binary"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

// The library decodes values, after what it would believe of their number and
// length is checked: it makes room for whatever a page says. Runs, in which the
// numbers of words and the definition levels are written, are decoded here,
// because nothing but the count that is due bounds them.

// width is how many bytes a value of a kind takes, or 0 where that differs.
func width(kind format.Type) int {
	switch kind {
	case format.Int32, format.Float:
		return 4
	case format.Int64, format.Double:
		return 8
	case format.Int96:
		return 12
	}
	return 0
}

// typeOf is the library's type of a kind.
var typeOf = map[format.Type]parquet.Type{
	format.Boolean: parquet.BooleanType, format.Int32: parquet.Int32Type, format.Int64: parquet.Int64Type,
	format.Int96: parquet.Int96Type, format.Float: parquet.FloatType, format.Double: parquet.DoubleType,
	format.ByteArray: parquet.ByteArrayType,
}

// decodeValues gives n values to emit, in their order and as the bytes that
// Parquet writes plainly: little-endian numbers, one byte of a truth value, the
// bytes of a text. Texts may take so much room together. Where data do not hold
// n values the page is damaged.
func decodeValues(e format.Encoding, kind format.Type, data []byte, n int, room int64, emit func([]byte) error) error {
	var err error
	w := width(kind)
	stride, as := w, typeOf[kind]
	switch number := kind == format.Int32 || kind == format.Int64; {
	case e == format.RLE && kind == format.Boolean:
		if len(data) < 4 {
			return errDamaged
		}
		return decodeHybrid(data[4:], 1, n, func(v uint32) error { return emit([]byte{byte(v)}) })
	case e == format.Plain && w > 0:
		data = data[:min(len(data), n*w)]
	case e == format.Plain, e == format.ByteStreamSplit && w > 0:
	case e == format.DeltaBinaryPacked && number:
		// The difference of two numbers of 32 bits may take 33.
		stride, as = 8, parquet.Int64Type
		_, err = deltaSize(data, n, 64)
	case e == format.DeltaLengthByteArray && kind == format.ByteArray:
		_, err = deltaSize(data, n, 32)
	case e == format.DeltaByteArray && kind == format.ByteArray:
		err = boundTexts(data, n, room)
	default:
		return errEncoding
	}
	if err != nil {
		return err
	}
	values, err := as.Decode(as.NewValues(nil, nil), data, parquet.LookupEncoding(e))
	raw, offsets := values.Data()
	if err != nil || len(raw) < n*stride || kind == format.Boolean && 8*len(raw) < n || kind == format.ByteArray && len(offsets) <= n && n > 0 {
		return errDamaged
	}
	for i := range n {
		var value []byte
		switch kind {
		case format.Boolean:
			value = []byte{raw[i/8] >> (i % 8) & 1}
		case format.ByteArray:
			value = raw[offsets[i]:offsets[i+1]]
		default:
			value = raw[i*stride : i*stride+w]
		}
		if err := emit(value); err != nil {
			return err
		}
	}
	return nil
}

// deltaSize returns how many bytes n numbers take that are written as
// differences of so many bits at most.
func deltaSize(data []byte, n, most int) (int, error) {
	w := walker{b: data}
	var head [4]uint64 // numbers in a block, its parts, all numbers, the first of them
	for i := range head {
		var err error
		if head[i], err = w.uvarint(); err != nil {
			return 0, errDamaged
		}
	}
	block, parts := head[0], head[1]
	if head[2] != uint64(n) || parts == 0 || parts > 1<<10 || block > 1<<16 || block%parts != 0 || block/parts%32 != 0 || block == 0 {
		return 0, errDamaged
	}
	for left := n - 1; left > 0; {
		_, err := w.uvarint()
		if err != nil || uint64(len(w.b)) < parts {
			return 0, errDamaged
		}
		bits := w.b[:parts]
		w.b = w.b[parts:]
		for i := 0; i < len(bits) && left > 0; i++ { // parts beyond the last number are not written
			if int(bits[i]) > most || w.drop(block/parts/8*uint64(bits[i])) != nil {
				return 0, errDamaged
			}
			left -= int(block / parts)
		}
	}
	return len(data) - len(w.b), nil
}

// boundTexts checks texts of which each begins as the one before it: a few
// bytes can stand for very many.
func boundTexts(data []byte, n int, room int64) error {
	size, err := deltaSize(data, n, 32)
	if err != nil {
		return err
	}
	if _, err := deltaSize(data[size:], n, 32); err != nil {
		return err
	}
	prefixes, err := parquet.DeltaBinaryPacked.DecodeInt32(nil, data[:size:size])
	if err != nil {
		return errDamaged
	}
	room -= int64(len(data))
	for _, p := range prefixes {
		if room -= int64(max(0, p)); room < 0 {
			return errTooLarge
		}
	}
	return nil
}

// decodeHybrid reads runs of equal numbers and groups of packed ones.
func decodeHybrid(data []byte, bits uint, n int, emit func(uint32) error) error {
	if bits > 32 {
		return errDamaged
	}
	for n > 0 {
		head, used := binary.Uvarint(data)
		if used <= 0 {
			return errDamaged
		}
		data = data[used:]
		if head&1 == 0 { // a run
			bytes := int(bits+7) / 8
			if len(data) < bytes {
				return errDamaged
			}
			var word [4]byte
			copy(word[:], data[:bytes])
			data = data[bytes:]
			v := binary.LittleEndian.Uint32(word[:])
			for range min(head>>1, uint64(n)) {
				if err := emit(v); err != nil {
					return err
				}
				n--
			}
			continue
		}
		count := min(head>>1, uint64(n/8+1)) * 8
		packed := packedBits{data: data}
		for range min(count, uint64(n)) {
			v, ok := packed.next(bits)
			if !ok {
				return errDamaged
			}
			if err := emit(uint32(v)); err != nil {
				return err
			}
			n--
		}
		// Only the last group may be cut off.
		data = data[min(uint64(len(data)), count/8*uint64(bits)):]
	}
	return nil
}

// present tells of n definition levels which are not null.
func present(data []byte, n int) ([]bool, error) {
	levels := make([]bool, 0, n)
	err := decodeHybrid(data, 1, n, func(v uint32) error {
		levels = append(levels, v != 0)
		return nil
	})
	return levels, err
}

// packedBits reads numbers of up to 64 bits, the lowest bit first.
type packedBits struct {
	data []byte
	at   uint64 // bit
}

func (p *packedBits) next(bits uint) (v uint64, ok bool) {
	if p.at+uint64(bits) > 8*uint64(len(p.data)) {
		return 0, false
	}
	for got := uint(0); got < bits; {
		offset := uint(p.at % 8)
		take := min(8-offset, bits-got)
		v |= uint64(p.data[p.at/8]>>offset&(1<<take-1)) << got
		got += take
		p.at += uint64(take)
	}
	return v, true
}
