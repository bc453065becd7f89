package artifacts

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	bsmsg "github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/boxo/bitswap/network"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/ipld/merkledag"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	lpnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"

	"village/protocol/record"
	"village/storage"
)

const patience = 30 * time.Second

func anyone(peer.ID) bool { return true }

func newHost(t testing.TB) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(), libp2p.Ping(false))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func openStore(t testing.TB, dir string) *storage.Store {
	t.Helper()
	s, err := storage.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// node is a service with a store of its own.
type node struct {
	*Service
	host  host.Host
	store *storage.Store
}

func newNode(t testing.TB, peers ...host.Host) node {
	t.Helper()
	n := node{host: newHost(t), store: openStore(t, t.TempDir())}
	n.Service = New(n.host, n.store.Blockstore(), anyone, anyone)
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, p := range peers {
		connect(t, n.host, p)
	}
	return n
}

// serve serves blocks that no store of ours would take.
func serve(t testing.TB, bs blockstore.Blockstore) host.Host {
	t.Helper()
	h := newHost(t)
	s := New(h, bs, anyone, anyone)
	t.Cleanup(func() { s.Close() })
	return h
}

func memory() blockstore.Blockstore {
	return blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
}

func connect(t testing.TB, a, b host.Host) {
	t.Helper()
	if err := a.Connect(context.Background(), peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}); err != nil {
		t.Fatal(err)
	}
}

func random(seed uint64, n int) []byte {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

func add(t testing.TB, s *storage.Store, b []byte) record.CID {
	t.Helper()
	c, _, err := s.AddArtifact(context.Background(), bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func read(s *storage.Store, c record.CID) ([]byte, error) {
	r, _, err := s.Artifact(context.Background(), c)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func cidOf(codec uint64, b []byte) cid.Cid {
	sum := sha256.Sum256(b)
	return cid.NewCidV1(codec, append(multihash.Multihash{0x12, 0x20}, sum[:]...))
}

func blockOf(t testing.TB, c cid.Cid, b []byte) blocks.Block {
	t.Helper()
	block, err := blocks.NewBlockWithCid(b, c)
	if err != nil {
		t.Fatal(err)
	}
	return block
}

func keys(t testing.TB, bs blockstore.Blockstore) []cid.Cid {
	t.Helper()
	all, err := bs.AllKeysChan(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var cids []cid.Cid
	for c := range all {
		cids = append(cids, c)
	}
	return cids
}

// within gives a test's fetches an end.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestFetch(t *testing.T) {
	a := newNode(t)
	b := newNode(t, a.host)
	for i, size := range []int{1, 3000, 1 << 20, 1<<20 + 1, 70<<20 + 5} {
		data := random(uint64(i), size)
		c := add(t, a.store, data)
		if err := b.Fetch(within(t), c, 100<<20); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if got, err := read(b.store, c); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes: read %d, %v", size, len(got), err)
		}
	}
	// What is here needs nobody.
	c := keys(t, a.store.Blockstore())[0]
	a.host.Close()
	if err := b.Fetch(within(t), record.CID{Cid: c}, 100<<20); err != nil {
		t.Errorf("a block that is held: %v", err)
	}
}

func TestFetchedIsDurable(t *testing.T) {
	a := newNode(t)
	data := random(1, 2<<20)
	c := add(t, a.store, data)
	h, dir := newHost(t), t.TempDir()
	s := openStore(t, dir)
	b := New(h, s.Blockstore(), anyone, anyone)
	connect(t, h, a.host)
	if err := b.Fetch(within(t), c, 100<<20); err != nil {
		t.Fatal(err)
	}
	// The copy of a store that is still open is what a kill leaves.
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if got, err := read(openStore(t, copied), c); err != nil || !bytes.Equal(got, data) {
		t.Errorf("after a kill: %d bytes, %v", len(got), err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// TestFetchFromSeveral has no peer that holds the whole.
func TestFetchFromSeveral(t *testing.T) {
	data := random(1, 20<<20)
	var holders []host.Host
	var c record.CID
	for i := range 3 {
		n := newNode(t)
		c = add(t, n.store, data)
		bs := n.store.Blockstore()
		for j, k := range keys(t, bs) {
			if j%3 != i {
				if err := bs.DeleteBlock(context.Background(), k); err != nil {
					t.Fatal(err)
				}
			}
		}
		holders = append(holders, n.host)
	}
	b := newNode(t, holders...)
	if err := b.Fetch(within(t), c, 100<<20); err != nil {
		t.Fatal(err)
	}
	if got, err := read(b.store, c); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestFetchHealsDamage(t *testing.T) {
	a := newNode(t)
	data := random(1, 3<<20)
	c := add(t, a.store, data)
	dir := t.TempDir()
	s := openStore(t, dir)
	add(t, s, data)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	flip(t, dir, data[1<<20+7:][:64])
	s = openStore(t, dir)
	if _, err := read(s, c); !errors.Is(err, storage.ErrDamaged) || len(s.Damaged()) != 1 {
		t.Fatalf("before: %v, %q", err, s.Damaged())
	}
	h := newHost(t)
	b := New(h, s.Blockstore(), anyone, anyone)
	defer b.Close()
	if err := b.Fetch(within(t), c, 100<<20); !errors.Is(err, ErrAlone) {
		t.Errorf("alone: %v", err)
	}
	connect(t, h, a.host)
	if err := b.Fetch(within(t), c, 100<<20); err != nil {
		t.Fatal(err)
	}
	if got, err := read(s, c); err != nil || !bytes.Equal(got, data) || len(s.Damaged()) != 0 {
		t.Errorf("after: %d bytes, %v, %q", len(got), err, s.Damaged())
	}
}

// flip changes the byte of a closed store at which a piece of a value begins.
func flip(t testing.TB, dir string, piece []byte) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.vlog"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if i := bytes.Index(b, piece); i >= 0 {
			b[i] ^= 1
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("the store's files do not hold the value")
}

func TestFetchFails(t *testing.T) {
	a := newNode(t)
	b := newNode(t, a.host)
	b.search = 200 * time.Millisecond
	unknown := record.CID{Cid: cidOf(cid.Raw, []byte("nobody has this"))}
	if err := b.Fetch(within(t), unknown, 1<<20); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), unknown.String()) {
		t.Errorf("unknown: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.search = patience
	done := make(chan error, 1)
	go func() { done <- b.Fetch(ctx, unknown, 1<<20) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	go func() { done <- b.Fetch(context.Background(), unknown, 1<<20) }()
	b.Close()
	if err := <-done; !errors.Is(err, ErrStopped) {
		t.Errorf("closed meanwhile: %v", err)
	}
	if err := b.Fetch(within(t), unknown, 1<<20); !errors.Is(err, ErrStopped) {
		t.Errorf("closed before: %v", err)
	}
}

// TestFetchWaitsForAPeer: who has it may connect while it is sought.
func TestFetchWaitsForAPeer(t *testing.T) {
	a, other := newNode(t), newNode(t)
	data := random(1, 5000)
	c := add(t, a.store, data)
	b := newNode(t, other.host)
	done := make(chan error, 1)
	go func() { done <- b.Fetch(within(t), c, 1<<20) }()
	connect(t, a.host, b.host)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// stalling is a blockstore that gives some blocks away only when it is let go.
type stalling struct {
	blockstore.Blockstore
	but   cid.Cid
	go_   chan struct{}
	reads sync.Map // multihash to *atomic.Int64
}

func (s *stalling) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	n, _ := s.reads.LoadOrStore(string(c.Hash()), new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
	if !c.Equals(s.but) {
		select {
		case <-s.go_:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return s.Blockstore.Get(ctx, c)
}

// TestFetchGoesOn: what an interrupted fetch has got is not asked for again.
func TestFetchGoesOn(t *testing.T) {
	store := openStore(t, t.TempDir())
	data := random(1, 2<<20)
	c := add(t, store, data)
	slow := &stalling{Blockstore: store.Blockstore(), but: c.Cid, go_: make(chan struct{})}
	b := newNode(t, serve(t, slow))
	b.stall = 200 * time.Millisecond
	err := b.Fetch(within(t), c, 100<<20)
	if !errors.Is(err, ErrUnavailable) {
		t.Fatalf("stalled: %v", err)
	}
	if held := keys(t, b.store.Blockstore()); len(held) != 1 {
		t.Errorf("%d blocks are kept, not the root alone", len(held))
	}
	close(slow.go_)
	b.stall = patience
	if err := b.Fetch(within(t), c, 100<<20); err != nil {
		t.Fatal(err)
	}
	if got, err := read(b.store, c); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if n, _ := slow.reads.Load(string(c.Hash())); n.(*atomic.Int64).Load() != 1 {
		t.Errorf("the root was sent %d times", n.(*atomic.Int64).Load())
	}
}

func TestFetchRefuses(t *testing.T) {
	if testing.Short() {
		t.Skip("seconds")
	}
	bs := memory()
	put := func(codec uint64, b []byte) cid.Cid {
		c := cidOf(codec, b)
		if err := bs.Put(context.Background(), blockOf(t, c, b)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	parent := func(children ...cid.Cid) cid.Cid {
		n := merkledag.NodeWithData(nil)
		n.SetCidBuilder(merkledag.V1CidPrefix())
		for _, c := range children {
			if err := n.AddRawLink("", &ipld.Link{Cid: c}); err != nil {
				t.Fatal(err)
			}
		}
		return put(cid.DagProtobuf, n.RawData())
	}
	var large, many []cid.Cid
	for i := range 8 {
		large = append(large, put(cid.Raw, random(uint64(i), 400<<10)))
	}
	for i := range 3000 {
		many = append(many, cidOf(cid.Raw, []byte{byte(i), byte(i >> 8)}))
	}
	deep := put(cid.Raw, []byte("bottom"))
	for i := range 40 {
		below := []cid.Cid{deep}
		for j := range 30 {
			below = append(below, put(cid.Raw, []byte{1, byte(i), byte(j)}))
		}
		deep = parent(below...)
	}
	identity := cid.NewCidV1(cid.Raw, multihash.Multihash{0, 1, 'x'})
	h := serve(t, bs)
	const limit = 1 << 20
	for _, c := range []struct {
		name string
		root cid.Cid
		want string
	}{
		{"too many bytes", parent(large...), "more than 1048576 bytes"},
		{"too many blocks", parent(many...), "blocks"},
		{"a DAG without end", deep, "blocks"},
		{"a record", put(cid.DagCBOR, []byte{0xa0}), "no part of a file"},
		{"a link to a record", parent(cidOf(cid.DagCBOR, []byte{0xa0})), "no part of a file"},
		{"no DAG", put(cid.DagProtobuf, []byte("nonsense")), "not an artifact"},
		{"a block too large", put(cid.Raw, random(1, limit+1)), "more than 1048576 bytes"},
		{"a CID that is the content", identity, ""},
	} {
		b := newNode(t, h)
		b.search = time.Second
		err := b.Fetch(within(t), record.CID{Cid: c.root}, limit)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		var stored int
		for _, k := range keys(t, b.store.Blockstore()) {
			size, err := b.store.Blockstore().GetSize(context.Background(), k)
			if err != nil {
				t.Fatal(err)
			}
			stored += size
		}
		if stored > limit {
			t.Errorf("%s: %d bytes were stored", c.name, stored)
		}
	}
	// The store's own bound holds, too.
	b := newNode(t, h)
	if err := b.Fetch(within(t), record.CID{Cid: put(cid.Raw, random(1, limit+1))}, 10*limit); err == nil || !strings.Contains(err.Error(), "at most 1048576") {
		t.Errorf("a block that the store does not take: %v", err)
	}
}

// asker is a Bitswap client without manners: it sends what wants it likes and
// keeps every answer.
type asker struct {
	network.Receiver
	net     network.BitSwapNetwork
	answers chan bsmsg.BitSwapMessage
}

func newAsker(t testing.TB, server host.Host) *asker {
	h := newHost(t)
	a := &asker{net: bsnet.NewFromIpfsHost(h), answers: make(chan bsmsg.BitSwapMessage, 100)}
	a.net.Start(a)
	t.Cleanup(a.net.Stop)
	connect(t, h, server)
	return a
}

func (a *asker) ReceiveMessage(_ context.Context, _ peer.ID, m bsmsg.BitSwapMessage) { a.answers <- m }
func (a *asker) ReceiveError(error)                                                  {}
func (a *asker) PeerConnected(peer.ID)                                               {}
func (a *asker) PeerDisconnected(peer.ID)                                            {}

// ask asks for blocks, 100 at a time, and returns those that came; every other
// one was denied.
func (a *asker) ask(t testing.TB, server host.Host, kind pb.Message_Wantlist_WantType, cids []cid.Cid) (got [][]byte, has []cid.Cid) {
	t.Helper()
	timeout := time.After(patience)
	for some := range slices.Chunk(cids, 100) {
		m := bsmsg.New(false)
		open := cid.NewSet()
		for _, c := range some {
			m.AddEntry(c, 1, kind, true)
			open.Add(c)
		}
		if err := a.net.SendMessage(context.Background(), server.ID(), m); err != nil {
			t.Fatal(err)
		}
		for open.Len() > 0 {
			select {
			case m := <-a.answers:
				for _, b := range m.Blocks() {
					got = append(got, b.RawData())
					open.Remove(b.Cid())
				}
				for _, c := range m.Haves() {
					has = append(has, c)
					open.Remove(c)
				}
				for _, c := range m.DontHaves() {
					open.Remove(c)
				}
			case <-timeout:
				t.Fatalf("no answer for %d blocks", open.Len())
			}
		}
	}
	return got, has
}

// TestRowsAreOutOfReach asks a node for everything that its store holds, under
// every name that it could have there.
func TestRowsAreOutOfReach(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	artifact := random(1, 1<<20+100)
	root := add(t, s, artifact)
	public := len(keys(t, s.Blockstore()))
	r, err := record.Sign(ed25519.NewKeyFromSeed(random(2, 32)), "test", record.KindManifest, "name", 1, "payload")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutRecord(r); err != nil {
		t.Fatal(err)
	}
	rows := []byte(strings.Repeat("secret,row\n", 300_000)) // several chunks
	if err := s.PutRows(r.CID, rows); err != nil {
		t.Fatal(err)
	}
	if err := s.PutPrivate("salt/"+r.CID.String(), []byte("secret salt")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	// Every CID that can be made of the rows, and of every key and value.
	codecs := []uint64{cid.Raw, cid.DagProtobuf, cid.DagCBOR}
	all := cid.NewSet()
	name := func(b []byte) {
		for _, codec := range codecs {
			all.Add(cidOf(codec, b))
		}
		if len(b) == 32 {
			all.Add(cid.NewCidV1(cid.Raw, append(multihash.Multihash{0x12, 0x20}, b...)))
		}
	}
	name(rows)
	for _, size := range []int{1 << 20, 256 << 10, 1 << 18, 4096} {
		for chunk := range slices.Chunk(rows, size) {
			name(chunk)
		}
	}
	db, err := badger.Open(badger.DefaultOptions(dir).WithLogger(nil).WithExternalMagic(uint16('V')<<8 | 1))
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	err = db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			count++
			key := it.Item().KeyCopy(nil)
			value, err := it.Item().ValueCopy(nil)
			if err != nil {
				return err
			}
			name(key)
			name(value)
			if len(value) > 32 {
				name(value[32:]) // behind the seal
			}
			for i := range key { // CIDs, multihashes and digests within
				if n, c, err := cid.CidFromBytes(key[i:]); err == nil && n > 0 {
					for _, codec := range codecs {
						all.Add(cid.NewCidV1(codec, c.Hash()))
					}
				}
				if n, mh, err := multihash.MHFromBytes(key[i:]); err == nil && n > 0 {
					all.Add(cid.NewCidV1(cid.Raw, mh))
				}
				if len(key)-i >= 32 {
					name(key[i : i+32])
				}
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if count < 2+public+3+2 { // record, header of the rows, blocks, chunks, salt
		t.Fatalf("the store has %d keys only", count)
	}
	asked := slices.DeleteFunc(all.Keys(), func(c cid.Cid) bool { return c.Prefix().MhType == multihash.IDENTITY })
	if !slices.ContainsFunc(asked, root.Equals) {
		t.Fatal("the artifact is not among what is asked for")
	}

	s = openStore(t, dir)
	h := newHost(t)
	b := New(h, s.Blockstore(), anyone, anyone)
	defer b.Close()
	a := newAsker(t, h)
	blockOf := map[string]bool{}
	got, _ := a.ask(t, h, pb.Message_Wantlist_Block, asked)
	for _, data := range got {
		blockOf[string(data)] = true
		if bytes.Contains(data, []byte("secret")) {
			t.Fatal("rows left the node")
		}
		if bytes.Equal(data, r.Bytes) {
			t.Error("a record was served as a block")
		}
	}
	if len(blockOf) != public {
		t.Errorf("%d different blocks came, of %d that are public", len(blockOf), public)
	}
	_, has := a.ask(t, h, pb.Message_Wantlist_Have, asked)
	for _, c := range has {
		if in, err := s.Blockstore().Has(context.Background(), c); err != nil || !in {
			t.Errorf("the node says that it has %s", c)
		}
	}
	t.Logf("asked for %d CIDs", len(asked))
}

func TestOnlyTheAdmitted(t *testing.T) {
	h, s := newHost(t), openStore(t, t.TempDir())
	data := random(1, 5000)
	c := add(t, s, data).Cid
	var admitted atomic.Pointer[peer.ID]
	b := New(h, s.Blockstore(), func(p peer.ID) bool {
		who := admitted.Load()
		return who != nil && *who == p
	}, anyone)
	defer b.Close()
	a := newAsker(t, h)
	for _, kind := range []pb.Message_Wantlist_WantType{pb.Message_Wantlist_Block, pb.Message_Wantlist_Have} {
		if got, has := a.ask(t, h, kind, []cid.Cid{c}); len(got)+len(has) != 0 {
			t.Errorf("a stranger got %d blocks and knows of %d", len(got), len(has))
		}
	}
	id := a.net.Self()
	admitted.Store(&id)
	if got, _ := a.ask(t, h, pb.Message_Wantlist_Block, []cid.Cid{c}); len(got) != 1 || !bytes.Equal(got[0], data) {
		t.Errorf("a member got %d blocks", len(got))
	}
	admitted.Store(nil)
	if got, _ := a.ask(t, h, pb.Message_Wantlist_Block, []cid.Cid{c}); len(got) != 0 {
		t.Error("a former member got a block")
	}
}

// TestSlowPeers: peers that ask for much and read nothing keep nobody waiting.
func TestSlowPeers(t *testing.T) {
	a := newNode(t)
	data := random(1, 40<<20)
	c := add(t, a.store, data)
	sent := make(chan struct{}, 1000)
	for range 3 {
		h := newHost(t)
		for _, id := range a.Service.host.protocols {
			h.SetStreamHandler(id, func(lpnet.Stream) { sent <- struct{}{} })
		}
		connect(t, h, a.host)
		m := bsmsg.New(false)
		for _, k := range keys(t, a.store.Blockstore()) {
			m.AddEntry(k, 1, pb.Message_Wantlist_Block, true)
		}
		if err := bsnet.NewFromIpfsHost(h).SendMessage(context.Background(), a.host.ID(), m); err != nil {
			t.Fatal(err)
		}
	}
	for range 8 {
		<-sent
	}
	b := newNode(t, a.host)
	if err := b.Fetch(within(t), c, 100<<20); err != nil {
		t.Error(err)
	}
}

func TestStreamsPerPeer(t *testing.T) {
	h := newHost(t)
	l := limit(h, anyone)
	var mu sync.Mutex
	running, most, total := map[peer.ID]int{}, 0, 0
	entered, done, release := make(chan peer.ID, 100), make(chan struct{}, 100), make(chan struct{})
	l.SetStreamHandler("/test", func(s lpnet.Stream) {
		p := s.Conn().RemotePeer()
		mu.Lock()
		running[p]++
		total++
		most = max(most, running[p])
		mu.Unlock()
		entered <- p
		<-release
		mu.Lock()
		running[p]--
		mu.Unlock()
		s.Close()
		done <- struct{}{}
	})
	open := func(n int) peer.ID {
		from := newHost(t)
		connect(t, from, h)
		for range n {
			s, err := from.NewStream(context.Background(), h.ID(), "/test")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write([]byte("x")); err != nil { // else the handler may not hear of it
				t.Fatal(err)
			}
		}
		return from.ID()
	}
	const streams = streamsPerPeer + 9
	greedy := open(streams)
	for range streamsPerPeer {
		<-entered
	}
	if modest := open(1); <-entered != modest { // the greedy peer keeps nobody out
		t.Fatalf("a stream too many of %s is read", greedy)
	}
	close(release)
	for range streams + 1 {
		<-done
	}
	if most != streamsPerPeer || total != streams+1 {
		t.Errorf("%d at once, %d in all", most, total)
	}
	l.close()
	if slices.Contains(h.Mux().Protocols(), "/test") {
		t.Error("the protocol is still served")
	}
}

// TestLargeMessages: a peer that says that much will come, and sends nothing, has
// memory taken for a few messages alone, and is interrupted where others need it.
func TestLargeMessages(t *testing.T) {
	h := newHost(t)
	l := limit(h, func(peer.ID) bool { return false })
	entered := make(chan struct{}, 100)
	var full atomic.Bool
	l.SetStreamHandler("/test", func(s lpnet.Stream) {
		if _, err := binary.ReadUvarint(byteReader{s}); err == nil {
			entered <- struct{}{}
			io.Copy(io.Discard, s)
		} else if errors.Is(err, errLength) && !full.Load() {
			t.Error("a message is refused that could wait")
		}
		s.Reset()
	})
	for i := range largeMessages / largePerPeer {
		from := newHost(t)
		connect(t, from, h)
		for range streamsPerPeer {
			s, err := from.NewStream(context.Background(), h.ID(), "/test")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write(binary.AppendUvarint(nil, 4<<20)); err != nil {
				t.Fatal(err)
			}
		}
		for range largePerPeer {
			<-entered
		}
		if got := l.large.Taken(); got != (i+1)*largePerPeer {
			t.Errorf("%d large messages are read", got)
		}
	}
	full.Store(true)
	other := newHost(t)
	connect(t, other, h)
	s, err := other.NewStream(context.Background(), h.ID(), "/test")
	if err != nil {
		t.Fatal(err)
	}
	body := random(1, 1<<20)
	if _, err := s.Write(append(binary.AppendUvarint(nil, uint64(len(body))), body...)); err != nil {
		t.Fatal(err)
	}
	<-entered
}

type byteReader struct{ io.Reader }

func (r byteReader) ReadByte() (byte, error) {
	var b [1]byte
	_, err := io.ReadFull(r, b[:])
	return b[0], err
}

// TestLengths: whatever is read, in whatever pieces, is what has come.
func TestLengths(t *testing.T) {
	h := newHost(t)
	l := limit(h, anyone)
	var sent []byte
	for _, size := range []int{0, 1, 127, 128, smallMessage, smallMessage + 1, 1 << 20} {
		sent = append(binary.AppendUvarint(sent, uint64(size)), random(uint64(size), size)...)
	}
	got := make(chan []byte)
	l.SetStreamHandler("/test", func(s lpnet.Stream) {
		b, _ := io.ReadAll(s)
		got <- b
	})
	from := newHost(t)
	connect(t, from, h)
	for name, c := range map[string]struct{ send, want []byte }{
		"messages": {sent, sent}, "endless length": {bytes.Repeat([]byte{0xff}, 20), bytes.Repeat([]byte{0xff}, 4)},
	} {
		s, err := from.NewStream(context.Background(), h.ID(), "/test")
		if err != nil {
			t.Fatal(err)
		}
		go func() { s.Write(c.send); s.CloseWrite() }()
		if b := <-got; !bytes.Equal(b, c.want) {
			t.Errorf("%s: %d bytes of %d", name, len(b), len(c.want))
		}
	}
	if l.large.Taken() != 0 {
		t.Errorf("%d places are still taken", l.large.Taken())
	}
}

// TestDrawing: who asks for the same again and again gets it until it has drawn
// what it may, and others are served meanwhile.
func TestDrawing(t *testing.T) {
	a := newNode(t)
	data := random(1, 1<<20)
	c := add(t, a.store, data)
	greedy, modest := newAsker(t, a.host), newAsker(t, a.host)
	ask := func(n *asker) int {
		got, _ := n.ask(t, a.host, pb.Message_Wantlist_Block, []cid.Cid{c.Cid})
		return len(got)
	}
	for range 2 {
		if ask(greedy) != 1 {
			t.Fatal("a block does not come")
		}
	}
	a.Service.host.draw(greedy.net.Self(), 0)
	for range 10 {
		a.Service.host.drawers[greedy.net.Self()].ReserveN(time.Now(), drawBurst)
	}
	if ask(greedy) != 0 {
		t.Error("who has drawn enough gets more")
	}
	if ask(modest) != 1 {
		t.Error("the other one gets nothing")
	}
	s, err := a.Service.host.NewStream(context.Background(), greedy.net.Self(), a.Service.host.protocols...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(make([]byte, smallMessage)); err != nil {
		t.Errorf("what this node asks for is not sent: %v", err)
	}
	if _, err := s.Write(make([]byte, smallMessage+1)); !errors.Is(err, errDrawn) {
		t.Errorf("what was asked for before is sent: %v", err)
	}
	for i := range 2 * maxDrawers {
		a.Service.host.draw(peer.ID(fmt.Sprint(i)), 1)
	}
	if n := len(a.Service.host.drawers); n > maxDrawers {
		t.Errorf("%d peers are remembered", n)
	}
}

func BenchmarkFetch(b *testing.B) {
	const size = 64 << 20
	a := newNode(b)
	b.SetBytes(size)
	for i := range b.N {
		b.StopTimer()
		c := add(b, a.store, random(uint64(i), size))
		n := newNode(b, a.host)
		b.StartTimer()
		if err := n.Fetch(context.Background(), c, 1<<30); err != nil {
			b.Fatal(err)
		}
	}
}
