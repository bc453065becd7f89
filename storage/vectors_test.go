package storage

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"testing"

	blocks "github.com/ipfs/go-block-format"
)

// TestVectorsStandApart: a chunk that is an artifact's block as well is deleted
// as a chunk, and stays as a block.
func TestVectorsStandApart(t *testing.T) {
	s := open(t, t.TempDir())
	b := bytes.Repeat([]byte("chunk"), 20_000)
	hash := sha256.Sum256(b)
	v := s.Vectors()
	if err := v.PutChunk(hash, b); err != nil {
		t.Fatal(err)
	}
	cid, _, err := s.AddArtifact(t.Context(), bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := v.Chunk(hash); err != nil || !bytes.Equal(got, b) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := v.DeleteChunks(hash); err != nil {
		t.Fatal(err)
	}
	if has, err := s.has(vectorKey(hash)); has || err != nil {
		t.Errorf("deleted, and there: %v, %v", has, err)
	}
	r, _, err := s.Artifact(t.Context(), cid)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, b) {
		t.Errorf("the artifact: %d bytes, %v", len(got), err)
	}
	for name, bad := range map[string][]byte{"others": b[1:], "none": {}, "too many": make([]byte, maxValue+1)} {
		if v.PutChunk(sha256.Sum256(bad), bad) == nil && name != "others" || v.PutChunk(hash, bad) == nil {
			t.Errorf("%s: stored", name)
		}
	}
}

// TestVectorsOfOldStores: those kept their chunks among the artifacts.
func TestVectorsOfOldStores(t *testing.T) {
	s := open(t, t.TempDir())
	b := []byte("a chunk of before")
	hash := sha256.Sum256(b)
	if err := s.Blockstore().Put(t.Context(), blocks.NewBlock(b)); err != nil {
		t.Fatal(err)
	}
	v := s.Vectors()
	if got, err := v.Chunk(hash); !v.HasChunk(hash) || err != nil || !bytes.Equal(got, b) {
		t.Errorf("%q, %v", got, err)
	}
	if err := v.DeleteChunks(hash); err != nil {
		t.Fatal(err)
	}
	if !v.HasChunk(hash) {
		t.Error("a block of the artifacts was deleted")
	}
}

// TestVectorsAreSwept: what nobody needs goes, and damage is named until the chunk
// is stored again.
func TestVectorsAreSwept(t *testing.T) {
	s := open(t, t.TempDir())
	v := s.Vectors()
	var hashes [][32]byte
	for i := range 600 { // more than a page of keys
		b := []byte{byte(i), byte(i >> 8)}
		hashes = append(hashes, sha256.Sum256(b))
		if err := v.PutChunk(hashes[i], b); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Sweep(func(hash [32]byte) bool { return hash == hashes[7] }); err != nil {
		t.Fatal(err)
	}
	for i, hash := range hashes {
		if v.HasChunk(hash) != (i == 7) {
			t.Errorf("chunk %d: held %v", i, i != 7)
		}
	}
	if err := s.commit(op{vectorKey(hashes[7]), []byte("damage")}); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Chunk(hashes[7]); !errors.Is(err, ErrDamaged) || len(s.Damaged()) != 1 {
		t.Errorf("%v, damaged: %q", err, s.Damaged())
	}
	if err := s.Reclaim(); !errors.Is(err, ErrDamaged) {
		t.Errorf("reclaimed beside damage: %v", err)
	}
	if err := v.PutChunk(hashes[7], []byte{7, 0}); err != nil || len(s.Damaged()) != 0 {
		t.Errorf("%v, damaged: %q", err, s.Damaged())
	}
}
