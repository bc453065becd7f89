package exchange

import (
	"encoding/binary"
	"iter"
	"math/bits"
)

// bitmap is a set of chunks.
type bitmap [maxChunks / 64]uint64

const bitmapLen = maxChunks / 8 // bytes on the wire: chunk i is bit i%8 of byte i/8

func (b *bitmap) add(i int)     { b[i/64] |= 1 << (i % 64) }
func (b *bitmap) remove(i int)  { b[i/64] &^= 1 << (i % 64) }
func (b bitmap) has(i int) bool { return b[i/64]&(1<<(i%64)) != 0 }
func (b bitmap) empty() bool    { return b == bitmap{} }

func (b bitmap) and(o bitmap) bitmap {
	for i := range b {
		b[i] &= o[i]
	}
	return b
}

func (b bitmap) without(o bitmap) bitmap {
	for i := range b {
		b[i] &^= o[i]
	}
	return b
}

func (b bitmap) or(o bitmap) bitmap {
	for i := range b {
		b[i] |= o[i]
	}
	return b
}

func (b bitmap) count() (n int) {
	for _, w := range b {
		n += bits.OnesCount64(w)
	}
	return n
}

// all yields the members in ascending order.
func (b bitmap) all() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i, w := range b {
			for ; w != 0; w &= w - 1 {
				if !yield(64*i + bits.TrailingZeros64(w)) {
					return
				}
			}
		}
	}
}

func (b bitmap) append(to []byte) []byte {
	for _, w := range b {
		to = binary.LittleEndian.AppendUint64(to, w)
	}
	return to
}

func decodeBitmap(p [bitmapLen]byte) (b bitmap) {
	for i := range b {
		b[i] = binary.LittleEndian.Uint64(p[8*i:])
	}
	return b
}
