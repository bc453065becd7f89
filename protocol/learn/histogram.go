package learn

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
)

// Bins is the number of bins of a histogram of scores.
//
// A probability p falls into bin ⌊Bins·σ(logit(p)/2)⌋, where σ(logit(p)/2) is
// 1/(1+√((1-p)/p)). In the middle the bins are as fine as 1,024 even ones, and
// towards 0 and 1 ever finer, because a rare class has all its scores there:
// at one positive in a thousand rows even bins get the area under the curve
// wrong by .08. All nodes must bin alike.
const Bins = 2048

// bin returns the bin of a probability. Each operation is monotone and rounded
// alike everywhere: a higher score never falls into a lower bin, and a score
// into the same bin on every architecture.
func bin(p float64) int {
	return min(int(Bins/(1+math.Sqrt((1-p)/p))), Bins-1)
}

// pack encodes counts as runs: for each count that is not zero the number of
// zeros since the last one and the count, both as minimal unsigned varints
// (LEB128). So a record grows with the rows that were scored, up to a bound.
func pack(counts []uint64) []byte {
	b := []byte{}
	gap := uint64(0)
	for _, n := range counts {
		if n == 0 {
			gap++
			continue
		}
		b = binary.AppendUvarint(b, gap)
		b = binary.AppendUvarint(b, n)
		gap = 0
	}
	return b
}

var errPacked = errors.New("a histogram is not packed as runs within its bins")

// unpack calls add for each count that is not zero of so many. It allocates
// nothing and refuses all bytes that pack would not have written.
func unpack(b []byte, counts int, add func(i int, n uint64)) error {
	for i := 0; len(b) > 0; i++ {
		gap, n, ok := uint64(0), uint64(0), false
		if gap, b, ok = uvarint(b); !ok || gap >= uint64(counts-i) {
			return errPacked
		}
		if n, b, ok = uvarint(b); !ok || n == 0 {
			return errPacked
		}
		i += int(gap)
		add(i, n)
	}
	return nil
}

// runs walks the counts that are not zero of packed ones that were checked.
type runs struct {
	at   int // index of the count, math.MaxInt after the last
	n    uint64
	rest []byte
}

func runsOf(packed []byte) runs {
	r := runs{at: -1, rest: packed}
	r.next()
	return r
}

func (r *runs) next() {
	gap, rest, ok := uvarint(r.rest)
	if !ok {
		r.at = math.MaxInt
		return
	}
	r.n, r.rest, _ = uvarint(rest)
	r.at += 1 + int(gap)
}

// count returns the count at an index, which is not after the current one, and
// goes on to the next.
func (r *runs) count(at int) uint64 {
	if r.at != at {
		return 0
	}
	n := r.n
	r.next()
	return n
}

// uvarint reads one minimal varint and returns what follows it.
func uvarint(b []byte) (n uint64, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || size > 1 && b[size-1] == 0 {
		return 0, nil, false
	}
	return n, b[size:], true
}

// addTo adds n to *sum and says whether it still fits.
func addTo(sum *uint64, n uint64) bool {
	s, carry := bits.Add64(*sum, n, 0)
	*sum = s
	return carry == 0
}
