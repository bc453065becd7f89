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
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
)

// The same vector between the same two hosts, by turns over a bare stream and
// by the exchange. ratio is the median of bare time over exchange time.
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
			author := New(from, "bench", newMemory(), anybody, nil)
			defer author.Close()
			a, err := author.Provide(v)
			if err != nil {
				b.Fatal(err)
			}
			var plain, ours []float64
			b.SetBytes(int64(2 * size))
			for b.Loop() {
				plain = append(plain, seconds(b, func() error { return bare(b.Context(), to, from, size) }))
				b.StopTimer()
				x := New(to, "bench", newMemory(), anybody, nil)
				b.StartTimer()
				ours = append(ours, seconds(b, func() error {
					_, err := x.Fetch(b.Context(), a)
					return err
				}))
				b.StopTimer()
				x.Close()
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
		var all []*Exchange
		var vectors [][]byte
		var announced []Announcement
		var hosts []host.Host
		for i := range nodes {
			h := newHost(b)
			for _, other := range hosts {
				connect(b, h, other)
			}
			hosts = append(hosts, h)
			x := New(h, "bench", newFile(b), anybody, nil)
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
		before := heap()
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
					if err := x.FetchTo(b.Context(), a, add); err != nil {
						b.Error(err)
					}
				})
			}
		}
		wg.Wait()
		took := time.Since(start)
		b.StopTimer()
		top := peak()
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
		b.ReportMetric(float64(top)/float64(before), "peak/held")
		b.ReportMetric(float64(before)/1e6, "held-MB")
		b.StartTimer()
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// watchHeap returns the largest heap between now and its call.
func watchHeap() func() uint64 {
	stop, top := make(chan struct{}), make(chan uint64)
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		most := heap()
		for {
			select {
			case <-tick.C:
				most = max(most, heap())
			case <-stop:
				top <- max(most, heap())
				return
			}
		}
	}()
	return func() uint64 {
		close(stop)
		return <-top
	}
}

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

func (s *file) HasChunk(hash [32]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.at[hash]
	return ok
}
