package p2p

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"

	"village/protocol/record"
)

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := record.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func frame(b []byte) []byte {
	var w bytes.Buffer
	_ = writeFrame(&w, b)
	return w.Bytes()
}

// connectHostile connects a hostile host that answers pulls by serve.
func connectHostile(t *testing.T, v *node, name string, serve func(s network.Stream)) host.Host {
	t.Helper()
	h, _ := hostile(t, name, "somewhere else")
	h.SetStreamHandler(v.names.pull, func(s network.Stream) {
		defer s.Reset()
		serve(s)
	})
	info, err := peer.AddrInfoFromString(v.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Connect(t.Context(), *info); err != nil {
		t.Fatal(err)
	}
	until(t, "the connection stands", func() bool { return v.isConnected(h.ID()) })
	return h
}

func TestHostilePullPeersAreBoundedAndShunned(t *testing.T) {
	valid, other := manifest(t, "x", "valid"), manifest(t, "x", "other")
	foreign := sign(t, "x", "other federation", record.KindManifest, "f", 1, 1)
	junk := []byte("no record at all")
	oneGroup := func(s network.Stream) { writeMessage(s, summary{Groups: []groupDigest{{Name: record.Catalogue}}}) }
	read := func(s network.Stream) []byte {
		b, _ := readFrame(s, maxSummary)
		return b
	}
	listed := func(cids ...record.CID) func(network.Stream) {
		return func(s network.Stream) {
			oneGroup(s)
			read(s)
			writeMessage(s, listing{Records: cids})
			read(s)
		}
	}
	for name, serve := range map[string]func(network.Stream){
		"huge length":     func(s network.Stream) { s.Write([]byte{0xff, 0xff, 0xff, 0xff, 1}) },
		"garbage summary": func(s network.Stream) { writeFrame(s, junk) },
		"names unsorted":  func(s network.Stream) { writeMessage(s, summary{Groups: []groupDigest{{Name: "b"}, {Name: "a"}}}) },
		"name twice":      func(s network.Stream) { writeMessage(s, summary{Groups: []groupDigest{{Name: "a"}, {Name: "a"}}}) },
		"long name": func(s network.Stream) {
			writeMessage(s, summary{Groups: []groupDigest{{Name: strings.Repeat("a", 300)}}})
		},
		"endless groups": func(s network.Stream) {
			var m summary
			for i := range maxGroups + 1 {
				m.Groups = append(m.Groups, groupDigest{Name: fmt.Sprintf("%06d", i)})
			}
			writeMessage(s, m)
		},
		"endless list": func(s network.Stream) {
			listed(slices.Repeat([]record.CID{valid.CID}, maxListed+1)...)(s)
		},
		"list too long for a frame": func(s network.Stream) {
			oneGroup(s)
			read(s)
			s.Write(binary.BigEndian.AppendUint32(nil, maxListing+1))
			for b := make([]byte, 1<<16); ; {
				if _, err := s.Write(b); err != nil {
					return
				}
			}
		},
		"wrong kind of CID": func(s network.Stream) {
			raw := valid
			raw.CID.Cid = rawCID(t)
			listed(raw.CID)(s)
		},
		"wrong record":       func(s network.Stream) { listed(valid.CID)(s); writeFrame(s, other.Bytes) },
		"huge record":        func(s network.Stream) { listed(valid.CID)(s); s.Write([]byte{0x7f, 0, 0, 0}) },
		"junk by its CID":    func(s network.Stream) { listed(record.CIDOf(junk))(s); writeFrame(s, junk) },
		"foreign federation": func(s network.Stream) { listed(foreign.CID)(s); writeFrame(s, foreign.Bytes) },
		"records unasked": func(s network.Stream) {
			listed(valid.CID)(s)
			writeFrame(s, nil)
			for {
				if writeFrame(s, other.Bytes) != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := startNode(t, "victim", newStore(manifest(t, "x", "held before")))
			done := make(chan struct{}, 16)
			h := connectHostile(t, v, "hostile", func(s network.Stream) {
				serve(s)
				// Whatever happens, the victim ends the conversation.
				io.Copy(io.Discard, s)
				done <- struct{}{}
			})
			p := h.ID()
			v.pullFrom(p)
			select {
			case <-done:
			case <-time.After(patience):
				t.Fatal("the conversation does not end")
			}
			if !v.accounts.shunned(p) || v.Stats().Refused == 0 {
				t.Errorf("shunned %v, refused %d; want a punished peer", v.accounts.shunned(p), v.Stats().Refused)
			}
			if got := v.held(); len(got) != 1 {
				t.Errorf("%d records are held, want the one of before", len(got))
			}
			// Honest nodes are still pulled from.
			w := startNode(t, "honest", newStore(manifest(t, "x", "good")))
			connect(t, w, v)
			until(t, "an honest node is pulled from", func() bool { return len(v.held()) == 2 })
		})
	}
}

// A record that hashes to what was asked for is kept even where its bearer is
// hostile, and one that receive rejects is not fetched in every round.
func TestRejectedRecordsAreNotFetchedAgainAtOnce(t *testing.T) {
	a := startNode(t, "a", newStore(manifest(t, "a", "r")))
	b := startNode(t, "b", newStore())
	b.verdict = Reject
	connect(t, a, b)
	until(t, "b has seen it", func() bool { return b.calls() > 0 })
	calls := b.calls()
	for range 20 {
		b.pullFrom(a.host.ID())
	}
	if got := b.calls(); got > calls+1 {
		t.Errorf("received %d times", got)
	}
	if b.accounts.shunned(a.host.ID()) {
		t.Error("the bearer is shunned: all else that it holds would be lost")
	}
}

func TestHostileAsksAreRefused(t *testing.T) {
	r := manifest(t, "x", "r")
	v := startNode(t, "victim", newStore(r))
	h := connectHostile(t, v, "hostile", func(network.Stream) {})
	root := frame(make([]byte, 32))
	for name, say := range map[string][]byte{
		"huge length":     {0xff, 0xff, 0xff, 0xff},
		"long root":       frame(make([]byte, 33)),
		"garbage":         slices.Concat(root, frame([]byte("garbage"))),
		"empty ask":       slices.Concat(root, frame(encode(t, ask{}))),
		"both":            slices.Concat(root, frame(encode(t, ask{Groups: []string{"a"}, Records: []record.CID{r.CID}}))),
		"too many":        slices.Concat(root, frame(encode(t, ask{Records: slices.Repeat([]record.CID{r.CID}, maxAskCIDs+1)}))),
		"too many groups": slices.Concat(root, frame(encode(t, ask{Groups: slices.Repeat([]string{"a"}, maxAskGroups+1)}))),
		"wrong CID":       slices.Concat(root, frame(encode(t, ask{Records: []record.CID{{Cid: rawCID(t)}}}))),
	} {
		before := v.Stats().Refused
		s, err := h.NewStream(t.Context(), v.host.ID(), v.names.pull)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(say); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, s); err == nil {
			t.Errorf("%s: the stream was closed in peace", name)
		}
		if got := v.Stats().Refused; got != before+1 {
			t.Errorf("%s: %d refused, want %d", name, got, before+1)
		}
	}
}

func TestServedPull(t *testing.T) {
	r := manifest(t, "x", "r")
	v := startNode(t, "victim", newStore(r))
	missing := manifest(t, "x", "missing")
	in := slices.Concat(frame(make([]byte, 32)),
		frame(encode(t, ask{Groups: []string{"none", record.Catalogue}})),
		frame(encode(t, ask{Records: []record.CID{missing.CID, r.CID}})))
	var out bytes.Buffer
	if err := v.answerPull(readWriter{bytes.NewReader(in), &out}); err != nil {
		t.Fatal(err)
	}
	want := slices.Concat(frame(encode(t, v.summary())),
		frame(encode(t, listing{Records: []record.CID{r.CID}})), frame(nil), frame(r.Bytes))
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("got %x\nwant %x", out.Bytes(), want)
	}
	// The same summary ends it at once.
	sum := sha256.Sum256(encode(t, v.summary()))
	out.Reset()
	if err := v.answerPull(readWriter{bytes.NewReader(frame(sum[:])), &out}); err != nil || !bytes.Equal(out.Bytes(), frame(nil)) {
		t.Errorf("got %x, %v; want an empty frame", out.Bytes(), err)
	}
}

// The bounds in entries fit into the bounds in bytes.
func TestBoundsFit(t *testing.T) {
	c := manifest(t, "x", "r").CID
	m := summary{Groups: slices.Repeat([]groupDigest{{Name: strings.Repeat("n", record.MaxName)}}, maxGroups)}
	for what, size := range map[string][2]int{
		"summary":     {len(encode(t, m)), maxSummary},
		"listing":     {len(encode(t, listing{Records: slices.Repeat([]record.CID{c}, maxListed)})), maxListing},
		"ask records": {len(encode(t, ask{Records: slices.Repeat([]record.CID{c}, maxAskCIDs)})), maxAsk},
		"ask groups":  {len(encode(t, ask{Groups: slices.Repeat([]string{strings.Repeat("n", record.MaxName)}, maxAskGroups)})), maxAsk},
	} {
		if size[0] > size[1] {
			t.Errorf("%s: %d bytes at its largest, allowed are %d", what, size[0], size[1])
		}
	}
}

func TestReadFrameDoesNotTrustTheLength(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		if _, err := readFrame(bytes.NewReader([]byte{0, 0x3f, 0xff, 0xff, 1}), maxListing); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 10<<20 {
		t.Errorf("%d bytes allocated for 100 bytes read", got)
	}
}

func TestDiffering(t *testing.T) {
	d := func(names ...string) (m summary) {
		for _, n := range names {
			m.Groups = append(m.Groups, groupDigest{Name: strings.TrimSuffix(n, "'"), Digest: sha256.Sum256([]byte(n))})
		}
		return m
	}
	for range 20 {
		got := differing(d("a", "b", "only mine"), d("a", "b'", record.Catalogue, "new"))
		if len(got) != 3 || got[0] != record.Catalogue {
			t.Fatalf("got %q, want the catalogue first, then b and new", got)
		}
	}
	if got := differing(d("a"), d("a")); len(got) != 0 {
		t.Errorf("got %q of equal summaries", got)
	}
}

func TestIgnoredIsBoundedAndForgets(t *testing.T) {
	g := newIgnored()
	now := time.Now()
	c := manifest(t, "x", "r").CID
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 16} {
		g.add(c, now)
		if !g.has(c, now.Add(want*time.Second-1)) || g.has(c, now.Add(want*time.Second+1)) {
			t.Errorf("time %d: not remembered for %d s", i, want)
		}
	}
	for i := range 2 * maxIgnored {
		g.add(record.CIDOf(fmt.Append(nil, i)), now)
	}
	if len(g.records) > maxIgnored {
		t.Errorf("%d are remembered", len(g.records))
	}
}

func TestAccounts(t *testing.T) {
	a := newAccounts()
	for i := range maxAccounts {
		if !a.spend(peer.ID(fmt.Sprint(i)), accountBurst) {
			t.Fatal("a new peer has no credit")
		}
	}
	if a.spend("one too many", 1) {
		t.Error("an account was opened beyond the bound")
	}
	a = newAccounts()
	for i := range maxAccounts {
		a.of(peer.ID(fmt.Sprint(i)), time.Now())
	}
	a.punish("0")
	if !a.spend("one more", 1) || !a.shunned("0") {
		t.Error("full accounts give way, punished ones stay")
	}
	a.punish("0")
	if got := a.peers["0"].penalty; got != 2*penaltyMin {
		t.Errorf("second penalty %v", got)
	}
	for range 20 {
		a.punish("0")
	}
	if got := a.peers["0"].penalty; got != penaltyMax {
		t.Errorf("largest penalty %v", got)
	}
	a.forgive("0")
	if a.shunned("0") {
		t.Error("shunned after it was forgiven")
	}
}

func TestTCPIsDialledFirst(t *testing.T) {
	tcp := multiaddr.StringCast("/ip4/192.0.2.1/tcp/1")
	quic := multiaddr.StringCast("/ip4/192.0.2.1/udp/1/quic-v1")
	if got := tcpFirst([]multiaddr.Multiaddr{quic, tcp}); got[0].Delay == 0 || got[1].Delay != 0 {
		t.Errorf("delays %v", got)
	}
	if got := tcpFirst([]multiaddr.Multiaddr{quic}); got[0].Delay != 0 {
		t.Errorf("QUIC alone waits: %v", got)
	}
}

// Close returns soon, with hanging peers about, and leaves no goroutine behind.
func TestCloseLeavesNothingBehind(t *testing.T) {
	round := func(t *testing.T) {
		v := startNode(t, "victim", newStore())
		served := make(chan struct{}, 1)
		h := connectHostile(t, v, "hostile", func(s network.Stream) {
			served <- struct{}{}
			io.Copy(io.Discard, s) // never answers
		})
		v.pulls.enqueue(h.ID())
		w := startNode(t, "w", newStore(), func(c *Config) { c.Peers = []string{"/ip4/127.0.0.1/tcp/1/p2p/" + idOf("nobody").String()} })
		connect(t, w, v)
		meshed(t, w, v)
		<-served
		for _, n := range []*node{v, w} {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := v.Publish(manifest(t, "victim", "late")); err == nil {
			t.Error("published after Close")
		}
		if v.Deliver(t.Context(), manifest(t, "victim", "late")) != 0 {
			t.Error("delivered after Close")
		}
		if err := v.Connect(t.Context(), "/ip4/127.0.0.1/tcp/1/p2p/"+idOf("w").String()); err == nil {
			t.Error("connected after Close")
		}
	}
	t.Run("round", round)
	running := func() int {
		buf := make([]byte, 8<<20)
		stacks, count := string(buf[:runtime.Stack(buf, true)]), 0
		for _, f := range []string{"p2p.(*Network)", "go-libp2p-pubsub.", "swarm.(*Swarm)", "yamux/v5.(*Session)", "quic-go.("} {
			count += strings.Count(stacks, f)
		}
		return count
	}
	until(t, "no goroutine of a closed node runs", func() bool { return running() == 0 })
}

func rawCID(t testing.TB) cid.Cid {
	t.Helper()
	mh, err := multihash.Sum([]byte("rows"), multihash.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	return cid.NewCidV1(cid.Raw, mh)
}

type readWriter struct {
	io.Reader
	io.Writer
}

func FuzzPullServer(f *testing.F) {
	r := manifest(f, "x", "r")
	n := &Network{cat: newStore(r), log: slog.New(slog.DiscardHandler)}
	root := frame(make([]byte, 32))
	f.Add(root)
	f.Add(slices.Concat(root, frame(encode(f, ask{Groups: []string{record.Catalogue}})), frame(encode(f, ask{Records: []record.CID{r.CID}}))))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := n.answerPull(readWriter{bytes.NewReader(b), io.Discard}); errors.Is(err, errGarbage) && len(b) < 4 {
			t.Error("blamed for less than a frame")
		}
	})
}

func FuzzMessages(f *testing.F) {
	r := manifest(f, "x", "r")
	f.Add(encode(f, summary{Groups: []groupDigest{{Name: "a"}, {Name: "b"}}}))
	f.Add(encode(f, ask{Groups: []string{"a"}}))
	f.Add(encode(f, listing{Records: []record.CID{r.CID}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		// What is taken is what would be sent, and nothing else.
		if m, err := decodeSummary(b); err == nil && !bytes.Equal(encode(t, m), b) {
			t.Errorf("summary %x", b)
		}
		if m, err := decodeAsk(b); err == nil && !bytes.Equal(encode(t, m), b) {
			t.Errorf("ask %x", b)
		}
		if m, err := decodeListing(b); err == nil && !bytes.Equal(encode(t, m), b) {
			t.Errorf("listing %x", b)
		}
	})
}
