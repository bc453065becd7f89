package exchange

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"

	"village/protocol/record"
)

// The same vector between the same two hosts, by turns over a bare stream and
// by the exchange, into memory in both cases: the fetcher's store keeps nothing.
// ratio is the median of the bare times over that of the exchange's.
func BenchmarkTwoHosts(b *testing.B) {
	for _, size := range []int{4 << 20, 40 << 20} {
		b.Run(fmt.Sprintf("%dMiB", size>>20), func(b *testing.B) {
			from, to := newHost(b), newHost(b)
			connect(b, to, from)
			v := vectorOf(1, size)
			from.SetStreamHandler("/bare", func(s network.Stream) {
				defer s.Reset()
				var one [1]byte
				if _, err := io.ReadFull(s, one[:]); err == nil {
					s.Write(v)
					io.Copy(io.Discard, s)
				}
			})
			first := &node{Exchange: New(from, "bench", newMemory(), anybody, nobody, nil)}
			defer first.Close()
			a, err := first.Provide(v)
			if err != nil {
				b.Fatal(err)
			}
			var plain, ours []float64
			b.SetBytes(int64(2 * size))
			for b.Loop() {
				plain = append(plain, seconds(b, func() error { return bare(b.Context(), to, from, size) }))
				b.StopTimer()
				x := &node{Exchange: New(to, "bench", nothing{}, anybody, nobody, nil)}
				b.StartTimer()
				ours = append(ours, seconds(b, func() error {
					_, err := x.Fetch(b.Context(), a)
					return err
				}))
				b.StopTimer()
				x.Close()
				first.mu.Lock()
				clear(first.vectors[a.ID()].credits) // else the fourth time would have to wait
				first.mu.Unlock()
				runtime.GC()
				b.StartTimer()
			}
			slices.Sort(plain)
			slices.Sort(ours)
			p, o := plain[len(plain)/2], ours[len(ours)/2]
			b.ReportMetric(float64(size)/p/1e6, "bare-MB/s")
			b.ReportMetric(float64(size)/o/1e6, "exchange-MB/s")
			b.ReportMetric(p/o, "ratio")
		})
	}
}

func seconds(b *testing.B, f func() error) float64 {
	start := time.Now()
	if err := f(); err != nil {
		b.Fatal(err)
	}
	return time.Since(start).Seconds()
}

func bare(ctx context.Context, to, from host.Host, size int) error {
	s, err := to.NewStream(ctx, from.ID(), "/bare")
	if err != nil {
		return err
	}
	defer s.Reset()
	if _, err := s.Write([]byte{1}); err != nil {
		return err
	}
	_, err = io.ReadFull(s, make([]byte, size))
	return err
}

// Each of eight nodes has a vector of ten million float32 and sums up all eight,
// chunk by chunk. Their stores are files, so that what must be held in memory is
// each node's own vector and its sum.
func BenchmarkEightNodes(b *testing.B) {
	const nodes, floats = 8, 10_000_000
	const size = 4 * floats
	for b.Loop() {
		b.StopTimer()
		var all []*node
		var vectors [][]byte
		var announced []Announcement
		var hosts []host.Host
		for i := range nodes {
			h := newHost(b)
			for _, other := range hosts {
				connect(b, h, other)
			}
			hosts = append(hosts, h)
			x := &node{Exchange: New(h, "bench", newFile(b), anybody, nobody, nil)}
			v := make([]byte, size)
			for j := range floats {
				binary.LittleEndian.PutUint32(v[4*j:], math.Float32bits(float32((i+1)*(j%1000))))
			}
			a, err := x.Provide(v)
			if err != nil {
				b.Fatal(err)
			}
			all, vectors, announced = append(all, x), append(vectors, v), append(announced, a)
		}
		sums := make([][]float32, nodes)
		for i := range sums {
			sums[i] = make([]float32, floats)
		}
		runtime.GC()
		held, _ := heap()
		peak := watchHeap()
		b.StartTimer()
		start := time.Now()
		var wg sync.WaitGroup
		for i, x := range all {
			var mu sync.Mutex // of a sum
			for j, a := range announced {
				add := func(offset int, chunk []byte) error {
					mu.Lock()
					defer mu.Unlock()
					sum := sums[i][offset/4:]
					for k := range len(chunk) / 4 {
						sum[k] += math.Float32frombits(binary.LittleEndian.Uint32(chunk[4*k:]))
					}
					return nil
				}
				wg.Go(func() {
					if i == j {
						_ = add(0, vectors[i])
						return
					}
					h, err := x.Hold(record.NodeID{byte(j)}, a)
					if err == nil {
						err = h.FetchTo(b.Context(), add)
					}
					if err != nil {
						b.Error(err)
					}
				})
			}
		}
		wg.Wait()
		took := time.Since(start)
		b.StopTimer()
		live, top := peak()
		for i, s := range sums {
			for j, got := range s {
				if want := float32(nodes * (nodes + 1) / 2 * (j % 1000)); got != want {
					b.Fatalf("node %d: element %d is %v instead of %v", i, j, got, want)
				}
			}
		}
		var sent []float64
		total := 0.0
		for _, x := range all {
			s := float64(x.Stats().BytesSent) / size
			sent = append(sent, s)
			total += s
			x.Close()
		}
		for _, h := range hosts {
			h.Close()
		}
		b.ReportMetric(nodes-1, "schedule-vectors/node")
		b.ReportMetric(total/nodes, "sent-vectors/node")
		b.ReportMetric(slices.Max(sent), "sent-most")
		b.ReportMetric(slices.Min(sent), "sent-least")
		b.ReportMetric(took.Seconds(), "exchange-s")
		b.ReportMetric(float64(held)/1e6, "held-MB")
		b.ReportMetric(float64(live)/float64(held), "live/held")
		b.ReportMetric(float64(top)/float64(held), "heap/held")
		b.StartTimer()
	}
}

// heap returns the bytes of memory that were found in use by the last garbage
// collection, and those taken up now, with garbage.
func heap() (live, all uint64) {
	m := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(m)
	return m[0].Value.Uint64(), m[1].Value.Uint64()
}

// watchHeap returns the largest heap between now and its call.
func watchHeap() func() (live, all uint64) {
	stop, done := make(chan struct{}), make(chan struct{})
	var live, all uint64
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			l, a := heap()
			live, all = max(live, l), max(all, a)
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
	return func() (uint64, uint64) {
		close(stop)
		<-done
		return live, all
	}
}

// nothing is a store that keeps nothing.
type nothing struct{}

func (nothing) PutChunk([32]byte, []byte) error { return nil }
func (nothing) Chunk([32]byte) ([]byte, error)  { return nil, errors.New("not held") }
func (nothing) HasChunk([32]byte) bool          { return false }
func (nothing) DeleteChunks(...[32]byte) error  { return nil }

// file is a store in a temporary file.
type file struct {
	f *os.File

	mu  sync.Mutex
	end int64
	at  map[[32]byte][2]int64 // offset and length
}

func newFile(b *testing.B) *file {
	f, err := os.CreateTemp(b.TempDir(), "chunks")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	return &file{f: f, at: make(map[[32]byte][2]int64)}
}

func (s *file) PutChunk(hash [32]byte, p []byte) error {
	s.mu.Lock()
	at := s.end
	s.end += int64(len(p))
	s.mu.Unlock()
	if _, err := s.f.WriteAt(p, at); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at[hash] = [2]int64{at, int64(len(p))}
	return nil
}

func (s *file) Chunk(hash [32]byte) ([]byte, error) {
	s.mu.Lock()
	at, ok := s.at[hash]
	s.mu.Unlock()
	if !ok {
		return nil, errors.New("not held")
	}
	p := make([]byte, at[1])
	_, err := s.f.ReadAt(p, at[0])
	return p, err
}

func (s *file) DeleteChunks(...[32]byte) error { return nil }

func (s *file) HasChunk(hash [32]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.at[hash]
	return ok
}
