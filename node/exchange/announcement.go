package exchange

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

const (
	// ChunkSize is the size in bytes of every chunk but the last.
	ChunkSize = 1 << 20
	// MaxSize is the size in bytes of the largest vector.
	MaxSize = maxChunks * ChunkSize

	maxChunks = 256
)

// Announcement names the bytes of a vector by the SHA-256 of each chunk. Whoever
// has a genuine one can take the chunks from anybody.
type Announcement struct {
	Size   uint64     `cbor:"size"`   // bytes, 1 to MaxSize
	Chunks [][32]byte `cbor:"chunks"` // SHA-256 of each chunk
}

// Announce makes the announcement of a vector.
func Announce(b []byte) Announcement {
	a := Announcement{Size: uint64(len(b))}
	for start := 0; start < len(b); start += ChunkSize {
		a.Chunks = append(a.Chunks, sha256.Sum256(b[start:min(start+ChunkSize, len(b))]))
	}
	return a
}

// Check says what is wrong with an announcement that came from elsewhere. The
// other methods want one that passes.
func (a Announcement) Check() error {
	if a.Size < 1 || a.Size > MaxSize {
		return fmt.Errorf("a vector of %d bytes is announced; 1 to %d are allowed", a.Size, MaxSize)
	}
	if want := int((a.Size + ChunkSize - 1) / ChunkSize); len(a.Chunks) != want {
		return fmt.Errorf("a vector of %d bytes is announced with %d chunks instead of %d", a.Size, len(a.Chunks), want)
	}
	return nil
}

// ID names an announcement: SHA-256 of a domain, the size and the chunks' hashes.
func (a Announcement) ID() [32]byte {
	h := sha256.New()
	h.Write([]byte("village vector\x00"))
	h.Write(binary.BigEndian.AppendUint64(nil, a.Size))
	for i := range a.Chunks {
		h.Write(a.Chunks[i][:])
	}
	return [32]byte(h.Sum(nil))
}

// chunkLen is the number of bytes of chunk i.
func (a Announcement) chunkLen(i int) int {
	return int(min(ChunkSize, a.Size-uint64(i)*ChunkSize))
}

// all is the set of every chunk.
func (a Announcement) all() (b bitmap) {
	for i := range a.Chunks {
		b.add(i)
	}
	return b
}
