package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"village/node/api"
	"village/protocol/dataset"
	"village/protocol/record"
	"village/protocol/task"
	"village/storage"
)

// killsEnv sets how many daemons TestKilledUnderLoad kills.
const killsEnv = "VILLAGE_KILLS"

// acknowledged is what a site's daemon has said is done: what must be there
// after any kill.
type acknowledged struct {
	sync.Mutex
	datasets []api.AddedDataset
	tasks    []record.CID
	joined   []record.CID // tasks
}

func (a *acknowledged) newest() record.CID {
	a.Lock()
	defer a.Unlock()
	return a.datasets[len(a.datasets)-1].CID
}

// couple is two daemons, with the figures of their lives.
type couple struct {
	t      *testing.T
	sites  []*site
	acks   []*acknowledged
	files  []string
	random *rand.Rand

	added, kills, early int
	slowest             time.Duration // start
}

// TestKilledUnderLoad kills daemons with SIGKILL while datasets are added,
// tasks proposed and joined, and models trained with another daemon: 100 times,
// or as often as VILLAGE_KILLS says. Every start must succeed, and what was
// acknowledged must be there. At the end every task has one model.
func TestKilledUnderLoad(t *testing.T) {
	t.Parallel()
	kills := 100
	if s := os.Getenv(killsEnv); s != "" {
		var err error
		if kills, err = strconv.Atoi(s); err != nil {
			t.Fatalf("%s: %v", killsEnv, err)
		}
	}
	// A node publishes a thousand datasets and tasks, and no more.
	couples := max(4, kills/100)
	for i := range couples {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			killCouple(t, uint64(i), kills/couples)
		})
	}
}

func killCouple(t *testing.T, seed uint64, kills int) {
	c := &couple{t: t, random: rand.New(rand.NewPCG(seed, 1))}
	c.sites = federation(t, "budapest", "zurich")
	for _, s := range c.sites {
		s.ctx = t.Context() // as many kills as are asked for take as long as they take
	}
	c.sites[0].ok("peer", "add", c.sites[1].address)
	c.sites[1].ok("peer", "add", c.sites[0].address)
	for i := range uint64(8) {
		c.files = append(c.files, patients(t, i, 60+5*int(i)))
	}
	for i, s := range c.sites {
		c.acks = append(c.acks, &acknowledged{})
		var v api.AddedDataset
		s.json(&v, "dataset", "add", c.files[i], "--name", "first", "--target", "sick")
		c.acks[i].datasets = append(c.acks[i].datasets, v)
		c.added++
	}
	for i, s := range c.sites {
		s.sees(c.acks[1-i].newest().String())
	}
	for c.kills < kills {
		i := c.random.IntN(2)
		c.life(i)
		if c.random.IntN(8) == 0 {
			c.inspect(i)
		}
		for c.kills < kills && c.random.IntN(3) == 0 {
			c.killStarting(i)
		}
		begun := time.Now()
		c.sites[i].start()
		c.slowest = max(c.slowest, time.Since(begun))
		c.check(i)
		if t.Failed() {
			return
		}
	}
	c.finish()
	tasks := len(c.acks[0].tasks) + len(c.acks[1].tasks)
	t.Logf("%d kills, %d of them of a daemon that had not answered yet; acknowledged: %d datasets, %d tasks, %d enrolments; the slowest start took %v",
		c.kills, c.early, len(c.acks[0].datasets)+len(c.acks[1].datasets), tasks, len(c.acks[0].joined)+len(c.acks[1].joined), c.slowest.Round(time.Millisecond))
}

// life loads a site's daemon and kills it at some moment.
func (c *couple) life(i int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var killed atomic.Bool
	var load sync.WaitGroup
	here, there := c.sites[i].client(), c.sites[1-i].client()
	failed := func(err error) bool {
		// The kill ends what is under way.
		if err != nil && !killed.Load() {
			c.t.Errorf("%s: %v", c.sites[i].home, err)
		}
		return err != nil
	}
	const atMost = 6 // so that all kills together stay under what a node may publish
	first := c.added
	c.added += atMost
	load.Go(func() {
		for n := first; n < first+atMost; n++ {
			v, err := api.PublishDataset.Ask(ctx, here, api.AddDataset{
				Path: c.files[n%len(c.files)], Options: dataset.Options{Name: fmt.Sprint("ward ", n), Target: "sick"},
			})
			if failed(err) {
				return
			}
			c.acks[i].Lock()
			c.acks[i].datasets = append(c.acks[i].datasets, v)
			c.acks[i].Unlock()
		}
	})
	load.Go(func() {
		v, err := api.ProposeTask.Ask(ctx, here, api.Propose{
			Name: fmt.Sprint("task ", first), Target: "sick", Settings: task.Settings{Rounds: 30}, Nodes: []record.NodeID{c.nodeID(0), c.nodeID(1)},
		})
		if failed(err) {
			return
		}
		c.acks[i].tasks = append(c.acks[i].tasks, v.CID)
		// The newest dataset from before the last kill, or one after it: its
		// rows are read.
		if _, err := api.JoinTask.Ask(ctx, here, api.Join{Task: v.CID, Dataset: c.acks[i].newest()}); failed(err) {
			return
		}
		c.acks[i].joined = append(c.acks[i].joined, v.CID)
		for !killed.Load() { // until the other has heard of it
			if _, err := api.JoinTask.Ask(ctx, there, api.Join{Task: v.CID, Dataset: c.acks[1-i].newest()}); err == nil {
				c.acks[1-i].joined = append(c.acks[1-i].joined, v.CID)
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	time.Sleep(time.Duration(c.random.Int64N(int64(250 * time.Millisecond)))) // the fault's moment
	killed.Store(true)
	c.sites[i].kill()
	c.kills++
	load.Wait()
}

// killStarting kills a site's daemon while it starts.
func (c *couple) killStarting(i int) {
	c.t.Helper()
	cmd := exec.Command("village", "daemon", "--home", c.sites[i].home)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	time.Sleep(time.Duration(c.random.Int64N(int64(80 * time.Millisecond)))) // the fault's moment
	if err := cmd.Process.Kill(); err != nil {
		c.t.Errorf("%s: a start ended by itself: %v", c.sites[i].home, err)
	}
	cmd.Wait()
	c.kills++
	if out.Len() == 0 {
		c.early++
	}
}

func (c *couple) nodeID(i int) record.NodeID {
	c.t.Helper()
	id, err := record.ParseNodeID(c.sites[i].id)
	if err != nil {
		c.t.Fatal(err)
	}
	return id
}

// check asks a site's daemon for all that was acknowledged.
func (c *couple) check(i int) {
	c.t.Helper()
	home, acks, client, ctx := c.sites[i].home, c.acks[i], c.sites[i].client(), context.Background()
	if v, err := api.GetStatus.Ask(ctx, client, api.None{}); err != nil || len(v.Lost) > 0 || v.Listening {
		c.t.Errorf("%s: kill %d: lost: %q, recovering: %t, %v", home, c.kills, v.Lost, v.Listening, err)
	}
	datasets, err := api.ListDatasets.Ask(ctx, client, url.Values{"mine": {"1"}})
	if err != nil {
		c.t.Fatal(err)
	}
	tasks, err := api.ListTasks.Ask(ctx, client, api.None{})
	if err != nil {
		c.t.Fatal(err)
	}
	for _, want := range acks.datasets {
		if !slices.ContainsFunc(datasets.Datasets, func(d api.Dataset) bool { return d.CID == want.CID && d.Rows == want.Rows }) {
			c.t.Errorf("%s: kill %d: dataset %s is lost", home, c.kills, want.CID)
		}
	}
	find := func(cid record.CID) api.TaskSummary {
		if i := slices.IndexFunc(tasks.Tasks, func(t api.TaskSummary) bool { return t.CID == cid }); i >= 0 {
			return tasks.Tasks[i]
		}
		c.t.Errorf("%s: kill %d: task %s is lost", home, c.kills, cid)
		return api.TaskSummary{}
	}
	for _, cid := range acks.tasks {
		find(cid)
	}
	for _, cid := range acks.joined {
		if t := find(cid); !t.Joined || t.Error != "" {
			c.t.Errorf("%s: kill %d: the enrolment in task %s is lost, or does not work: %q", home, c.kills, cid, t.Error)
		}
	}
}

// inspect looks into the store of a site whose daemon does not run.
func (c *couple) inspect(i int) {
	c.t.Helper()
	home := c.sites[i].home
	s, err := storage.Open(filepath.Join(home, "store"))
	if err != nil {
		c.t.Fatalf("%s: kill %d: %v", home, c.kills, err)
	}
	defer s.Close()
	for _, want := range c.acks[i].datasets {
		if _, err := s.Record(want.CID); err != nil {
			c.t.Errorf("%s: kill %d: %v", home, c.kills, err)
		}
		// The store returns nothing but, to the last byte, what was put.
		if rows, err := s.Rows(want.CID); err != nil || len(rows) == 0 {
			c.t.Errorf("%s: kill %d: dataset of %d rows, of which the store has %d bytes, %v", home, c.kills, want.Rows, len(rows), err)
		}
	}
	// Nobody has signed two records for one place.
	if proofs, err := s.Evidence(); err != nil || len(proofs) != 0 {
		c.t.Errorf("%s: kill %d: %d proofs of equivocation, %v", home, c.kills, len(proofs), err)
	}
	if damaged := s.Damaged(); len(damaged) != 0 {
		c.t.Errorf("%s: kill %d: damaged: %v", home, c.kills, damaged)
	}
}

// finish lets every task come to its end.
func (c *couple) finish() {
	c.t.Helper()
	ctx := context.Background()
	all := slices.Concat(c.acks[0].tasks, c.acks[1].tasks)
	for _, id := range all {
		for i, s := range c.sites {
			s.hears(id.String())
			// The answer to a join may have been lost in a kill.
			if v, err := api.ShowTask.Ask(ctx, s.client(), id); err != nil {
				c.t.Fatal(err)
			} else if !v.Joined {
				if _, err := api.JoinTask.Ask(ctx, s.client(), api.Join{Task: id, Dataset: c.acks[i].newest()}); err != nil {
					c.t.Fatal(err)
				}
				c.acks[i].joined = append(c.acks[i].joined, id)
			}
		}
	}
	for _, id := range all {
		model(c.t, id.String(), c.sites...)
	}
	unharmed(c.t, c.sites...)
	for i, s := range c.sites {
		c.check(i)
		if code := s.end(syscall.SIGTERM); code != 0 {
			c.t.Errorf("%s: exit code %d", s.home, code)
		}
		c.inspect(i)
	}
}
