package storage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/multiformats/go-multihash"

	"village/protocol/record"
)

func cidOf(codec uint64, b []byte) record.CID {
	sum := sha256.Sum256(b)
	return record.CID{Cid: cid.NewCidV1(codec, append(multihash.Multihash{0x12, 0x20}, sum[:]...))}
}

func rawCID(b []byte) record.CID { return cidOf(cid.Raw, b) }

func block(c record.CID, b []byte) blocks.Block {
	made, err := blocks.NewBlockWithCid(b, c.Cid)
	if err != nil {
		panic(err)
	}
	return made
}

// field is a length-delimited protobuf field.
func field(number int, b []byte) []byte {
	return append(binary.AppendUvarint([]byte{byte(number<<3 | 2)}, uint64(len(b))), b...)
}

func varint(number int, v uint64) []byte {
	return binary.AppendUvarint([]byte{byte(number << 3)}, v)
}

// handBuiltNode is the dag-pb node over children of the given sizes, made from
// the specifications of dag-pb and UnixFS alone: links (hash, name, size), then
// data (type file, file size, block sizes).
func handBuiltNode(children []record.CID, sizes []uint64) []byte {
	var node []byte
	data := varint(1, 2)
	var total uint64
	for _, n := range sizes {
		total += n
	}
	data = append(data, varint(3, total)...)
	for i, c := range children {
		link := slices.Concat(field(1, c.Bytes()), field(2, nil), varint(3, sizes[i]))
		node = append(node, field(2, link)...)
		data = append(data, varint(4, sizes[i])...)
	}
	return append(node, field(1, data)...)
}

func handBuiltRoot(b []byte) blocks.Block {
	var children []record.CID
	var sizes []uint64
	for leaf := range slices.Chunk(b, 1<<20) {
		children = append(children, rawCID(leaf))
		sizes = append(sizes, uint64(len(leaf)))
	}
	node := handBuiltNode(children, sizes)
	return block(cidOf(cid.DagProtobuf, node), node)
}

func TestArtifactCIDs(t *testing.T) {
	s := open(t, t.TempDir())
	for _, c := range []struct {
		name string
		data []byte
		want record.CID
	}{
		{"empty", nil, rawCID(nil)},
		{"hello", []byte("hello world"), mustCID("bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e")}, // as ipfs prints it
		{"one chunk", random(1, 1<<20), rawCID(random(1, 1<<20))},
		{"a byte more", random(1, 1<<20+1), record.CID{Cid: handBuiltRoot(random(1, 1<<20+1)).Cid()}},
		{"3 MiB", random(2, 3<<20), record.CID{Cid: handBuiltRoot(random(2, 3<<20)).Cid()}},
		{"many", random(3, 40<<20+7), record.CID{Cid: handBuiltRoot(random(3, 40<<20+7)).Cid()}},
	} {
		got, n, err := s.AddArtifact(context.Background(), bytes.NewReader(c.data))
		if err != nil || got != c.want || n != int64(len(c.data)) {
			t.Errorf("%s: %s, %d bytes, %v; want %s", c.name, got, n, err, c.want)
		}
		if again, _, err := s.AddArtifact(context.Background(), io.MultiReader(strings.NewReader(""), bytes.NewReader(c.data))); err != nil || again != got {
			t.Errorf("%s again: %s, %v", c.name, again, err)
		}
		if alone, err := ArtifactCID(bytes.NewReader(c.data)); err != nil || alone != got {
			t.Errorf("%s without a store: %s, %v", c.name, alone, err)
		}
		if back, err := readArtifact(s, got); err != nil || !bytes.Equal(back, c.data) {
			t.Errorf("%s: read %d bytes, %v", c.name, len(back), err)
		}
	}
	broken := errors.New("broken")
	if c, err := ArtifactCID(io.MultiReader(strings.NewReader("hello"), iotest.ErrReader(broken))); !errors.Is(err, broken) || c.Defined() {
		t.Errorf("of what breaks off: %s, %v", c, err)
	}
	s = reopen(t, s)
	if back, err := readArtifact(s, rawCID(nil)); err != nil || len(back) != 0 {
		t.Errorf("empty after a restart: %v", err)
	}
}

func mustCID(text string) record.CID {
	c, err := record.ParseCID(text)
	if err != nil {
		panic(err)
	}
	return c
}

func TestArtifactSeek(t *testing.T) {
	s := open(t, t.TempDir())
	data := random(1, 3<<20+99)
	c, _, err := s.AddArtifact(context.Background(), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	r, size, err := s.Artifact(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	at := int64(0)
	for _, step := range []struct {
		offset int64
		whence int
		want   int64
	}{
		{1<<20 - 5, io.SeekStart, 1<<20 - 5}, {3, io.SeekCurrent, 1<<20 + 8}, {-99, io.SeekEnd, size - 99},
		{10, io.SeekEnd, size + 10}, {0, io.SeekStart, 0}, {2 << 20, io.SeekStart, 2 << 20}, {-1, io.SeekStart, -1}, {0, 9, -1}, {0, -1, -1},
	} {
		got, err := r.Seek(step.offset, step.whence)
		if step.want < 0 {
			if err == nil {
				t.Errorf("%+v: no error", step)
			}
			continue
		}
		if err != nil || got != step.want {
			t.Fatalf("%+v: %d, %v", step, got, err)
		}
		at = got
		b := make([]byte, 10)
		n, err := io.ReadFull(r, b)
		if at >= size {
			if err != io.EOF {
				t.Errorf("%+v: %v behind the end", step, err)
			}
		} else if err != nil || !bytes.Equal(b, data[at:at+10]) {
			t.Errorf("%+v: %d bytes, %v", step, n, err)
		}
	}
}

func TestArtifactMissing(t *testing.T) {
	s := open(t, t.TempDir())
	ctx := context.Background()
	for _, c := range []record.CID{{}, rawCID([]byte("x")), cidOf(cid.DagProtobuf, []byte("x")), record.CIDOf([]byte("x")), mustCID("bafkqaaa")} {
		if _, _, err := s.Artifact(ctx, c); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", c, err)
		}
	}
	data := random(1, 3<<20)
	c, _, err := s.AddArtifact(ctx, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Blockstore().DeleteBlock(ctx, rawCID(data[2<<20:]).Cid); err != nil {
		t.Fatal(err)
	}
	if _, err := readArtifact(s, c); !errors.Is(err, ErrNotFound) {
		t.Errorf("a leaf is missing: %v", err)
	}
}

func TestAddArtifactFailures(t *testing.T) {
	s := open(t, t.TempDir())
	broken := errors.New("the file went away")
	if _, _, err := s.AddArtifact(context.Background(), io.MultiReader(bytes.NewReader(random(1, 2<<20)), failing{broken})); !errors.Is(err, broken) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := s.AddArtifact(ctx, bytes.NewReader(random(1, 2<<20))); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// A DAG may be a peer's work: it cannot make a reader return more or less than
// its root states, or go on without end.
func TestHostileDAGs(t *testing.T) {
	s := open(t, t.TempDir())
	ctx := context.Background()
	bs := s.Blockstore()
	put := func(codec uint64, b []byte) record.CID {
		t.Helper()
		c := cidOf(codec, b)
		if err := bs.Put(ctx, block(c, b)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	leaf := put(cid.Raw, random(1, 1<<20))
	bomb := leaf
	for size := uint64(1 << 20); size < 1<<60; size *= 32 {
		children, sizes := make([]record.CID, 32), make([]uint64, 32)
		for i := range children {
			children[i], sizes[i] = bomb, size
		}
		bomb = put(cid.DagProtobuf, handBuiltNode(children, sizes))
	}
	if r, size, err := s.Artifact(ctx, bomb); err != nil || size < 1<<60 {
		t.Errorf("bomb: %d, %v", size, err) // the caller judges the size
	} else {
		r.Close()
	}
	for name, sizes := range map[string][]uint64{"more": {1000}, "less": {2 << 20}} {
		c := put(cid.DagProtobuf, handBuiltNode([]record.CID{leaf}, sizes))
		b, err := readArtifact(s, c)
		if uint64(len(b)) > sizes[0] || (name == "less" && !errors.Is(err, io.ErrUnexpectedEOF)) {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
	loopless := map[string]record.CID{
		"garbage":     put(cid.DagProtobuf, []byte("garbage")),
		"huge size":   put(cid.DagProtobuf, field(1, slices.Concat(varint(1, 2), varint(3, 1<<63)))),
		"directory":   put(cid.DagProtobuf, field(1, varint(1, 1))),
		"symlink":     put(cid.DagProtobuf, field(1, varint(1, 4))),
		"no data":     put(cid.DagProtobuf, nil),
		"record":      put(cid.DagCBOR, []byte{0xa0}),
		"other child": put(cid.DagProtobuf, handBuiltNode([]record.CID{put(cid.DagCBOR, []byte{0xa1})}, []uint64{5})),
	}
	for name, c := range loopless {
		if _, err := readArtifact(s, c); err == nil {
			t.Errorf("%s: read", name)
		}
	}
}

func TestBlockstore(t *testing.T) {
	s := open(t, t.TempDir())
	ctx := context.Background()
	bs := s.Blockstore()
	data := []byte("a block")
	c := rawCID(data)
	if _, err := bs.Get(ctx, c.Cid); !ipld.IsNotFound(err) {
		t.Errorf("missing: %v", err)
	}
	if _, err := bs.GetSize(ctx, c.Cid); !ipld.IsNotFound(err) {
		t.Errorf("missing: %v", err)
	}
	if err := bs.Put(ctx, block(c, data)); err != nil {
		t.Fatal(err)
	}
	v0 := record.CID{Cid: cid.NewCidV0(c.Hash())} // another name of the same bytes
	for _, name := range []record.CID{c, v0} {
		got, err := bs.Get(ctx, name.Cid)
		if err != nil || !bytes.Equal(got.RawData(), data) || got.Cid() != name.Cid {
			t.Error(name, err)
		}
		if n, err := bs.GetSize(ctx, name.Cid); err != nil || n != len(data) {
			t.Error(n, err)
		}
		if ok, err := bs.Has(ctx, name.Cid); err != nil || !ok {
			t.Error(ok, err)
		}
	}
	var many []blocks.Block
	for i := range 3*pageKeys + 1 { // more than a page, and than a transaction takes
		b := random(uint64(i), 4000)
		many = append(many, block(rawCID(b), b))
	}
	if err := bs.PutMany(ctx, many); err != nil {
		t.Fatal(err)
	}
	keys, err := bs.AllKeysChan(ctx)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[cid.Cid]bool{}
	for k := range keys {
		seen[k] = true
	}
	if len(seen) != len(many)+1 || !seen[c.Cid] || !seen[many[700].Cid()] {
		t.Errorf("%d keys", len(seen))
	}
	stop, cancel := context.WithCancel(ctx)
	if keys, err = bs.AllKeysChan(stop); err != nil {
		t.Fatal(err)
	}
	<-keys
	cancel()
	for range keys { // ends
	}
	if err := bs.DeleteBlock(ctx, c.Cid); err != nil {
		t.Fatal(err)
	}
	if ok, err := bs.Has(ctx, c.Cid); err != nil || ok {
		t.Error(ok, err)
	}

	blake, err := cid.Prefix{Version: 1, Codec: cid.Raw, MhType: multihash.IDENTITY, MhLength: -1}.Sum(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := bs.Put(ctx, block(record.CID{Cid: blake}, data)); err == nil {
		t.Error("a block that is not named by sha2-256 was stored")
	}
	if err := bs.Put(ctx, block(c, []byte("other"))); !errors.Is(err, blockstore.ErrHashMismatch) {
		t.Errorf("a block that does not hash: %v", err)
	}
	if ok, _ := bs.Has(ctx, c.Cid); ok {
		t.Error("a block that does not hash is held")
	}
	big := make([]byte, maxValue+1)
	if err := bs.Put(ctx, block(rawCID(big), big)); err == nil {
		t.Error("a block of more than 1 MiB was stored")
	}
	for _, odd := range []cid.Cid{cid.Undef, blake} {
		if ok, err := bs.Has(ctx, odd); ok || err != nil {
			t.Error(odd, ok, err)
		}
		if _, err := bs.Get(ctx, odd); !ipld.IsNotFound(err) {
			t.Error(odd, err)
		}
		if err := bs.DeleteBlock(ctx, odd); err != nil {
			t.Error(odd, err)
		}
	}
}

// Rows, records and private facts are not blocks, whatever name is asked for.
func TestBlockstoreSeesArtifactsAlone(t *testing.T) {
	s := open(t, t.TempDir())
	ctx := context.Background()
	rows := []byte("canary rows")
	dataset := signed(t, 1, record.KindManifest, "m", 1, "x")
	if _, err := s.PutRecord(dataset); err != nil {
		t.Fatal(err)
	}
	if err := s.PutRows(dataset.CID, rows); err != nil {
		t.Fatal(err)
	}
	if err := s.PutPrivate("k", rows); err != nil {
		t.Fatal(err)
	}
	bs := s.Blockstore()
	for _, c := range []record.CID{dataset.CID, rawCID(rows), cidOf(cid.DagProtobuf, rows)} {
		if ok, err := bs.Has(ctx, c.Cid); ok || err != nil {
			t.Error(c, ok, err)
		}
	}
	keys, err := bs.AllKeysChan(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for c := range keys {
		t.Error(c)
	}
}

func TestDamagedBlock(t *testing.T) {
	s := open(t, t.TempDir())
	ctx := context.Background()
	data := random(1, 3<<20)
	c, _, err := s.AddArtifact(ctx, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	leaf := rawCID(data[1<<20 : 2<<20])
	rotten := bytes.Clone(data[1<<20 : 2<<20])
	rotten[77] ^= 4
	if err := s.commit(op{blockKey(leaf.Cid), rotten}); err != nil {
		t.Fatal(err)
	}
	got, err := readArtifact(s, c)
	if !errors.Is(err, ErrDamaged) || errors.Is(err, ErrNotFound) || !strings.Contains(fmt.Sprint(err), leaf.String()) {
		t.Errorf("%v", err)
	}
	if !bytes.HasPrefix(data, got) {
		t.Error("wrong bytes")
	}
	if err := s.Reclaim(); !errors.Is(err, ErrDamaged) {
		t.Errorf("reclaim: %v", err)
	}
	if d := s.Damaged(); len(d) != 1 || d[0] != "block "+leaf.String() {
		t.Error(d)
	}
	// To an exchange it is missing; what it fetches repairs the artifact.
	bs := s.Blockstore()
	if _, err := bs.Get(ctx, leaf.Cid); !ipld.IsNotFound(err) {
		t.Error(err)
	}
	if err := bs.Put(ctx, block(leaf, data[1<<20:2<<20])); err != nil {
		t.Fatal(err)
	}
	if got, err := readArtifact(s, c); err != nil || !bytes.Equal(got, data) {
		t.Error(err)
	}
	if d := s.Damaged(); len(d) != 0 {
		t.Error(d)
	}
	if err := s.Reclaim(); err != nil {
		t.Error(err)
	}
}
