package storage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/ipld/merkledag"
	unixfs "github.com/ipfs/boxo/ipld/unixfs/io"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/multiformats/go-multihash"

	"village/protocol/record"
	"village/storage/journal"
)

const (
	chunkBytes   = 1 << 20 // of an artifact in one leaf
	linksPerNode = 1024
)

// AddArtifact stores the bytes of r and returns their CID and number. They are
// durable when it returns. The same bytes have the same CID everywhere, that of
// `ipfs add --cid-version=1 --raw-leaves --chunker=size-1048576
// --max-file-links=1024`.
func (s *Store) AddArtifact(ctx context.Context, r io.Reader) (record.CID, int64, error) {
	in := &input{ctx: ctx, r: r}
	sink := &importer{dag: dag{s.Blockstore()}}
	root, err := layout(in, sink)
	if err != nil {
		return record.CID{}, 0, fmt.Errorf("add artifact: %w", err)
	}
	if err := sink.flush(ctx); err != nil {
		return record.CID{}, 0, fmt.Errorf("add artifact: %w", err)
	}
	if err := s.journal.Append(journal.Entry{Kind: claimArtifact, Body: root.Bytes()}); err != nil {
		return record.CID{}, 0, fmt.Errorf("add artifact: %w", err)
	}
	return root, in.n, nil
}

// input counts what is read and stops when its context ends.
type input struct {
	ctx context.Context
	r   io.Reader
	n   int64
}

func (in *input) Read(b []byte) (int, error) {
	if err := in.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := in.r.Read(b)
	in.n += int64(n)
	return n, err
}

// Artifact opens the artifact named c for reading, while ctx lasts, and returns
// its size in bytes. Where it is not here in whole, this or a later Read gives
// [ErrNotFound]; a block that the disk has changed gives [ErrDamaged] and is
// named. A reader returns exactly size bytes or an error.
func (s *Store) Artifact(ctx context.Context, c record.CID) (io.ReadSeekCloser, int64, error) {
	service := dag{s.Blockstore()}
	root, err := service.Get(ctx, c.Cid)
	if err != nil {
		return nil, 0, artifactError(c, err)
	}
	r, err := unixfs.NewDagReader(ctx, root, service)
	if err != nil {
		return nil, 0, artifactError(c, err)
	}
	if r.Size() > math.MaxInt64 {
		r.Close()
		return nil, 0, fmt.Errorf("artifact %s: it claims to hold %d bytes", c, r.Size())
	}
	return &artifact{cid: c, r: r, size: int64(r.Size())}, int64(r.Size()), nil
}

func artifactError(c record.CID, err error) error {
	if ipld.IsNotFound(err) && !errors.Is(err, ErrDamaged) {
		return fmt.Errorf("artifact %s: %w", c, ErrNotFound)
	}
	return fmt.Errorf("artifact %s: %w", c, err)
}

// artifact holds a DAG to the size that its root states: the DAG may be a peer's
// work, and repeat a block without end.
type artifact struct {
	cid  record.CID
	r    unixfs.DagReader
	at   int64 // where the next Read reads
	size int64
}

func (a *artifact) Read(b []byte) (int, error) {
	if a.at >= a.size {
		return 0, io.EOF
	}
	if int64(len(b)) > a.size-a.at {
		b = b[:a.size-a.at]
	}
	n, err := a.r.Read(b)
	a.at += int64(n)
	switch {
	case err == nil || err == io.EOF && a.at == a.size:
		return n, nil
	case err == io.EOF:
		return n, fmt.Errorf("artifact %s holds less than it claims: %w", a.cid, io.ErrUnexpectedEOF)
	default:
		return n, artifactError(a.cid, err)
	}
}

func (a *artifact) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += a.at
	case io.SeekEnd:
		offset += a.size
	}
	if offset < 0 || whence < io.SeekStart || whence > io.SeekEnd {
		return a.at, errors.New("seek outside the artifact")
	}
	if offset < a.size {
		if _, err := a.r.Seek(offset, io.SeekStart); err != nil {
			return a.at, artifactError(a.cid, err)
		}
	}
	a.at = offset
	return offset, nil
}

func (a *artifact) Close() error { return a.r.Close() }

// dag reads and writes blocks as the nodes that boxo's UnixFS works with. boxo's
// own service takes every failure to read for a block to be fetched elsewhere.
type dag struct{ blocks blockstore.Blockstore }

func (d dag) Get(ctx context.Context, c cid.Cid) (ipld.Node, error) {
	b, err := d.blocks.Get(ctx, c)
	if err != nil {
		return nil, err
	}
	switch c.Prefix().Codec {
	case cid.Raw:
		return merkledag.DecodeRawBlock(b)
	case cid.DagProtobuf:
		return merkledag.DecodeProtobufBlock(b)
	}
	return nil, fmt.Errorf("block %s is no part of a file", c)
}

func (d dag) GetMany(ctx context.Context, cids []cid.Cid) <-chan *ipld.NodeOption {
	nodes := make(chan *ipld.NodeOption, len(cids))
	go func() {
		defer close(nodes)
		for _, c := range cids {
			n, err := d.Get(ctx, c)
			nodes <- &ipld.NodeOption{Node: n, Err: err}
			if err != nil {
				return
			}
		}
	}()
	return nodes
}

func (d dag) Add(ctx context.Context, n ipld.Node) error { return d.blocks.Put(ctx, n) }

func (d dag) AddMany(ctx context.Context, nodes []ipld.Node) error {
	for _, n := range nodes {
		if err := d.Add(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (d dag) Remove(ctx context.Context, c cid.Cid) error { return d.blocks.DeleteBlock(ctx, c) }

func (d dag) RemoveMany(ctx context.Context, cids []cid.Cid) error {
	for _, c := range cids {
		if err := d.Remove(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// importer gathers the nodes of a new file, so that many share one sync. Their
// order is kept: children are durable before their parents.
type importer struct {
	dag
	pending []blocks.Block
	size    int
}

func (i *importer) Add(ctx context.Context, n ipld.Node) error {
	i.pending = append(i.pending, n)
	i.size += len(n.RawData())
	if i.size < batchLog {
		return nil
	}
	return i.flush(ctx)
}

func (i *importer) flush(ctx context.Context) error {
	err := i.blocks.PutMany(ctx, i.pending)
	i.pending, i.size = nil, 0
	return err
}

// Blockstore returns the blocks of artifacts, and nothing else of the store, in
// the form that boxo's exchanges serve and fill. It takes blocks of at most
// 1 MiB that hash, by sha2-256, to their CID.
func (s *Store) Blockstore() blockstore.Blockstore { return blockSpace{s} }

type blockSpace struct{ s *Store }

// damagedBlock is as good as a missing block to an exchange, which then fetches
// it again; putting it repairs it.
type damagedBlock struct{ cid cid.Cid }

func (e damagedBlock) Error() string {
	return fmt.Sprintf("block %s: %v; a peer may serve it again", e.cid, ErrDamaged)
}

func (e damagedBlock) Is(target error) bool {
	_, missing := target.(ipld.ErrNotFound)
	return missing || target == ErrDamaged
}

// digest returns the sha2-256 digest in c, nil where it names bytes otherwise.
func digest(c cid.Cid) []byte {
	if !c.Defined() {
		return nil
	}
	mh, err := multihash.Decode(c.Hash())
	if err != nil || mh.Code != multihash.SHA2_256 || len(mh.Digest) != sha256.Size {
		return nil
	}
	return mh.Digest
}

func blockKey(c cid.Cid) []byte { return append([]byte{spaceBlock}, c.Hash()...) }

// Get returns the block named c, ipld.ErrNotFound, or an error that is [ErrDamaged].
func (b blockSpace) Get(_ context.Context, c cid.Cid) (blocks.Block, error) {
	want := digest(c)
	if want == nil {
		return nil, ipld.ErrNotFound{Cid: c}
	}
	data, err := b.s.get(blockKey(c))
	if errors.Is(err, ErrNotFound) {
		return nil, ipld.ErrNotFound{Cid: c}
	}
	if err != nil {
		return nil, err
	}
	if got := sha256.Sum256(data); !bytes.Equal(got[:], want) {
		b.s.markDamaged(blockName(c))
		return nil, damagedBlock{c}
	}
	return blocks.NewBlockWithCid(data, c)
}

// blockName is the same for every CID of a block.
func blockName(c cid.Cid) string { return "block " + cid.NewCidV1(cid.Raw, c.Hash()).String() }

// Has says whether a block is held, without reading it.
func (b blockSpace) Has(_ context.Context, c cid.Cid) (bool, error) {
	if digest(c) == nil {
		return false, nil
	}
	return b.s.has(blockKey(c))
}

func (b blockSpace) GetSize(ctx context.Context, c cid.Cid) (int, error) {
	block, err := b.Get(ctx, c)
	if err != nil {
		return -1, err
	}
	return len(block.RawData()), nil
}

func (b blockSpace) Put(ctx context.Context, block blocks.Block) error {
	return b.PutMany(ctx, []blocks.Block{block})
}

// PutMany stores blocks in order. One that is held intact is not written again.
func (b blockSpace) PutMany(ctx context.Context, bs []blocks.Block) error {
	var ops []op
	for _, block := range bs {
		c, data := block.Cid(), block.RawData()
		want := digest(c)
		if want == nil {
			return fmt.Errorf("block %s: only sha2-256 is stored", c)
		}
		if len(data) > maxValue {
			return fmt.Errorf("block %s: %d bytes, at most %d", c, len(data), maxValue)
		}
		if got := sha256.Sum256(data); !bytes.Equal(got[:], want) {
			return fmt.Errorf("block %s: %w", c, blockstore.ErrHashMismatch)
		}
		switch _, err := b.Get(ctx, c); {
		case err == nil:
		case ipld.IsNotFound(err):
			if data == nil {
				data = []byte{} // nil deletes
			}
			ops = append(ops, op{blockKey(c), data})
		default:
			return err
		}
	}
	if err := b.s.commitAll(ops); err != nil {
		return err
	}
	for _, block := range bs {
		b.s.repaired(blockName(block.Cid()))
	}
	return b.s.regained()
}

func (b blockSpace) DeleteBlock(_ context.Context, c cid.Cid) error {
	if digest(c) == nil {
		return nil
	}
	if err := b.s.commit(op{key: blockKey(c)}); err != nil {
		return err
	}
	b.s.repaired(blockName(c))
	return nil
}

// AllKeysChan sends the CID, with the raw codec, of every block. The channel
// closes at the end, when ctx ends or when the store is closed.
func (b blockSpace) AllKeysChan(ctx context.Context) (<-chan cid.Cid, error) {
	cids := make(chan cid.Cid)
	go func() {
		defer close(cids)
		var after []byte
		for {
			var found []cid.Cid
			last, err := b.s.page([]byte{spaceBlock}, after, false, func(key, _ []byte) error {
				found = append(found, cid.NewCidV1(cid.Raw, multihash.Multihash(key[1:])))
				return nil
			})
			if err != nil {
				return
			}
			for _, c := range found {
				select {
				case cids <- c:
				case <-ctx.Done():
					return
				}
			}
			if last == nil {
				return
			}
			after = last
		}
	}()
	return cids, nil
}
