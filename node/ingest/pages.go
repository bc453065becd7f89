package ingest

import (
	"encoding/binary"

	"github.com/parquet-go/parquet-go/format"
)

// Decoders of pages. Each gives n values to emit, in their order and as the
// bytes that Parquet writes plainly: little-endian numbers, one byte of a truth
// value, the bytes of a text. The bytes are emit's until it returns. Where data
// do not hold n values the page is damaged.

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

func decodeValues(e format.Encoding, kind format.Type, data []byte, n int, emit func([]byte) error) error {
	switch number := kind == format.Int32 || kind == format.Int64; {
	case e == format.Plain:
		return decodePlain(kind, data, n, emit)
	case e == format.RLE && kind == format.Boolean:
		if len(data) < 4 {
			return errDamaged
		}
		return decodeHybrid(data[4:], 1, n, func(v uint32) error { return emit([]byte{byte(v)}) })
	case e == format.DeltaBinaryPacked && number:
		raw := make([]byte, 8)
		_, err := decodeDelta(data, n, func(v int64) error {
			binary.LittleEndian.PutUint64(raw, uint64(v))
			return emit(raw[:width(kind)])
		})
		return err
	case e == format.DeltaLengthByteArray && kind == format.ByteArray:
		return decodeDeltaLength(data, n, emit)
	case e == format.DeltaByteArray && kind == format.ByteArray:
		return decodeDeltaText(data, n, emit)
	case e == format.ByteStreamSplit && width(kind) > 0:
		return decodeSplit(width(kind), data, n, emit)
	}
	return errEncoding
}

func decodePlain(kind format.Type, data []byte, n int, emit func([]byte) error) error {
	for i := range n {
		var raw []byte
		switch w := width(kind); {
		case kind == format.Boolean:
			if i/8 >= len(data) {
				return errDamaged
			}
			raw = []byte{data[i/8] >> (i % 8) & 1}
		case w > 0:
			if len(data) < w {
				return errDamaged
			}
			raw, data = data[:w], data[w:]
		default:
			if len(data) < 4 {
				return errDamaged
			}
			size := binary.LittleEndian.Uint32(data)
			if data = data[4:]; uint64(size) > uint64(len(data)) {
				return errDamaged
			}
			raw, data = data[:size], data[size:]
		}
		if err := emit(raw); err != nil {
			return err
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

// decodeDelta reads numbers as differences, and returns what follows them.
func decodeDelta(data []byte, n int, emit func(int64) error) (rest []byte, err error) {
	var head [3]uint64
	for i := range head {
		used := 0
		if head[i], used = binary.Uvarint(data); used <= 0 {
			return nil, errDamaged
		}
		data = data[used:]
	}
	value, used := binary.Varint(data)
	block, miniblocks := head[0], head[1]
	if used <= 0 || head[2] != uint64(n) || miniblocks == 0 || miniblocks > 1<<10 || block > 1<<20 || block%miniblocks != 0 || block/miniblocks%8 != 0 || block == 0 {
		return nil, errDamaged
	}
	data = data[used:]
	if n == 0 {
		return data, nil
	}
	if err := emit(value); err != nil {
		return nil, err
	}
	per := block / miniblocks
	for left := n - 1; left > 0; {
		least, used := binary.Varint(data)
		if used <= 0 || uint64(len(data)-used) < miniblocks {
			return nil, errDamaged
		}
		widths := data[used : used+int(miniblocks)]
		data = data[used+int(miniblocks):]
		for _, bits := range widths {
			if left == 0 {
				break // the other miniblocks are not written
			}
			size := per / 8 * uint64(bits)
			if bits > 64 || size > uint64(len(data)) {
				return nil, errDamaged
			}
			packed := packedBits{data: data[:size]}
			data = data[size:]
			for range min(per, uint64(left)) {
				d, _ := packed.next(uint(bits))
				value += least + int64(d) // wraps around, as the format says
				if err := emit(value); err != nil {
					return nil, err
				}
				left--
			}
		}
	}
	return data, nil
}

// lengths reads n numbers that are lengths of something in data or before it.
func lengths(data []byte, n int) (list []int, rest []byte, err error) {
	rest, err = decodeDelta(data, n, func(v int64) error {
		if v < 0 || v > maxPage {
			return errDamaged
		}
		list = append(list, int(v))
		return nil
	})
	return list, rest, err
}

func decodeDeltaLength(data []byte, n int, emit func([]byte) error) error {
	sizes, data, err := lengths(data, n)
	if err != nil {
		return err
	}
	for _, size := range sizes {
		if size > len(data) {
			return errDamaged
		}
		if err := emit(data[:size]); err != nil {
			return err
		}
		data = data[size:]
	}
	return nil
}

// decodeDeltaText reads texts of which each begins as the one before it.
func decodeDeltaText(data []byte, n int, emit func([]byte) error) error {
	prefixes, data, err := lengths(data, n)
	if err != nil {
		return err
	}
	var text []byte
	i := 0
	return decodeDeltaLength(data, n, func(suffix []byte) error {
		if prefixes[i] > len(text) {
			return errDamaged
		}
		text = append(text[:prefixes[i]], suffix...)
		i++
		return emit(text)
	})
}

// decodeSplit reads numbers whose first bytes stand together, then their second
// ones and so on.
func decodeSplit(width int, data []byte, n int, emit func([]byte) error) error {
	if len(data) < n*width {
		return errDamaged
	}
	streams := len(data) / width
	raw := make([]byte, width)
	for i := range n {
		for j := range raw {
			raw[j] = data[j*streams+i]
		}
		if err := emit(raw); err != nil {
			return err
		}
	}
	return nil
}
