package storage

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"village/protocol/record"
)

// The kill test runs this test binary again as a child that writes without end
// and prints a line after each write that the store has acknowledged. Each of
// its lanes writes a sequence that is known beforehand, so that the parent can
// tell what must be there.
const (
	childEnv  = "VILLAGE_STORAGE_TEST_DIR"
	childNext = "VILLAGE_STORAGE_TEST_NEXT"
)

type lane struct {
	write  func(s *Store, i int) error
	verify func(s *Store, i, last int) error // last: of the acknowledged
}

var errWrong = errors.New("wrong bytes")

func number(v int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(v)) }

func killRecord(kind record.Kind, subject string, n int) record.Record {
	// Now and then one for the value log.
	size := 200
	if n%16 == 15 {
		size = 80 << 10
	}
	r, err := record.Sign(author(1), "test", kind, subject, uint64(n), random(uint64(n), size))
	if err != nil {
		panic(err)
	}
	return r
}

func killArtifact(i int) []byte {
	size := 20_000
	if i%20 == 10 {
		size = 3 << 20
	}
	return random(uint64(i), size+i)
}

func killArtifactCID(i int) record.CID {
	b := killArtifact(i)
	if len(b) > chunkBytes {
		return record.CID{Cid: handBuiltRoot(b).Cid()}
	}
	return rawCID(b)
}

func killDataset(i int) record.CID { return record.CIDOf(number(i)) }

func killRows(i int) []byte {
	size := 5_000
	if i%20 == 5 {
		size = 2 << 20
	}
	return random(^uint64(i), size+i)
}

var lanes = []lane{
	{ // records that stay
		func(s *Store, i int) error {
			_, err := s.PutRecord(killRecord(record.KindManifest, strconv.Itoa(i), i))
			return err
		},
		func(s *Store, i, _ int) error {
			want := killRecord(record.KindManifest, strconv.Itoa(i), i)
			if held := s.Newest(want.Slot); len(held) != 1 || !bytes.Equal(held[0].Bytes, want.Bytes) {
				return errWrong
			}
			return nil
		},
	},
	{ // records that replace each other
		func(s *Store, i int) error {
			_, err := s.PutRecord(killRecord(record.KindUpdate, "task", i))
			return err
		},
		func(s *Store, i, last int) error {
			if i < last {
				return nil
			}
			held := s.Newest(killRecord(record.KindUpdate, "task", i).Slot)
			if len(held) != min(2, int(held[0].Number)+1) || int(held[0].Number) < last {
				return fmt.Errorf("%d updates, newest %d", len(held), held[0].Number)
			}
			for k, r := range held {
				if int(r.Number) != int(held[0].Number)-k || !bytes.Equal(r.Bytes, killRecord(record.KindUpdate, "task", int(r.Number)).Bytes) {
					return errWrong
				}
			}
			return nil
		},
	},
	{ // artifacts
		func(s *Store, i int) error {
			_, _, err := s.AddArtifact(context.Background(), bytes.NewReader(killArtifact(i)))
			return err
		},
		func(s *Store, i, _ int) error {
			b, err := readArtifact(s, killArtifactCID(i))
			if err == nil && !bytes.Equal(b, killArtifact(i)) {
				err = errWrong
			}
			return err
		},
	},
	{ // rows and private facts
		func(s *Store, i int) error {
			if i%2 == 0 {
				return s.PutPrivate(strconv.Itoa(i), number(i))
			}
			return s.PutRows(killDataset(i), killRows(i))
		},
		func(s *Store, i, _ int) error {
			want := number(i)
			got, err := s.Private(strconv.Itoa(i))
			if i%2 == 1 {
				want = killRows(i)
				got, err = s.Rows(killDataset(i))
			}
			if err == nil && !bytes.Equal(got, want) {
				err = errWrong
			}
			return err
		},
	},
}

// child writes until it is killed.
func child(dir string) {
	fmt.Println("start")
	s, err := Open(dir)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var lines sync.Mutex
	var writers sync.WaitGroup
	for l, next := range strings.Fields(os.Getenv(childNext)) {
		writers.Go(func() {
			for i, _ := strconv.Atoi(next); ; i++ {
				err := lanes[l].write(s, i)
				lines.Lock()
				if err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				fmt.Println("ack", l, i)
				lines.Unlock()
			}
		})
	}
	writers.Wait()
}

func TestKillLosesNothingAcknowledged(t *testing.T) {
	kills := 100
	if testing.Short() {
		kills = 10
	}
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	next := make([]int, len(lanes))     // the first write of each lane that is not acknowledged
	verified := make([]int, len(lanes)) // the first that is not verified yet
	for kill := range kills {
		// After no line at all the kill hits Open.
		runAndKill(t, dir, next, rng.IntN(40))
		if kill%3 == 0 && kill < kills-1 {
			continue // the next child opens what this one has left behind
		}
		s, err := Open(dir)
		if err != nil {
			t.Fatalf("kill %d: %v", kill, err)
		}
		for l, lane := range lanes {
			if kill%20 == 19 || kill == kills-1 { // all since the beginning
				verified[l] = 0
			}
			for i := verified[l]; i < next[l]; i++ {
				if err := lane.verify(s, i, next[l]-1); err != nil {
					t.Errorf("kill %d: lane %d, write %d: %v", kill, l, i, err)
				}
			}
		}
		copy(verified, next)
		if d := s.Damaged(); len(d) != 0 {
			t.Errorf("kill %d: damaged: %v", kill, d)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d kills, %v writes acknowledged", kills, next)
}

// runAndKill starts a child, kills it after it has printed so many lines behind
// the first, and takes all that it has acknowledged into next.
func runAndKill(t *testing.T, dir string, next []int, lines int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir, childNext+"="+strings.Trim(fmt.Sprint(next), "[]"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	scanner := bufio.NewScanner(out)
	for n := 0; scanner.Scan(); n++ {
		var l, i int
		if _, err := fmt.Sscanf(scanner.Text(), "ack %d %d", &l, &i); err == nil {
			if i != next[l] {
				t.Errorf("lane %d acknowledged %d, not %d", l, i, next[l])
			}
			next[l] = i + 1
		} else if scanner.Text() != "start" {
			t.Errorf("child: %s", scanner.Text())
		}
		if n == lines {
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the child ended by itself")
	}
}
