// Package demo runs a federation on one machine: four hospitals in three
// nations, each a daemon of its own with its own keys, store and rows, train one
// model of heart disease.
package demo

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"time"

	"village/node/api"
	"village/node/home"
	"village/protocol/record"
	"village/protocol/task"
)

// Options is what the caller decides.
type Options struct {
	Dir      string    // for the homes, absent or empty; "" means a temporary one
	Keep     bool      // the homes stay
	Progress io.Writer // shows how far it is
}

// poll is how often a node is asked again for what has not come to it yet.
const poll = 20 * time.Millisecond

// Run runs the demo. When it returns no child process is left, and no home
// unless they are to be kept.
func Run(ctx context.Context, o Options) (res Result, err error) {
	begin := time.Now()
	all, err := hospitals()
	if err != nil {
		return Result{}, err
	}
	dir, made, err := place(o.Dir)
	if err != nil {
		return Result{}, err
	}
	children, end := context.WithCancelCause(ctx)
	defer func() {
		end(nil)
		// A lost daemon is the cause of whatever its absence led to.
		if lost := stop(all); lost != nil && err != nil && ctx.Err() == nil {
			err = api.Fail(api.CodeFailed, "village demo --keep, and see "+logFile+" in the homes", "%v", lost)
		}
		if o.Keep {
			if err != nil {
				fmt.Fprintln(o.Progress, "the homes are kept in "+dir)
			}
			return
		}
		err = errors.Join(err, clear(dir, made, all))
	}()

	p := newProgress(o.Progress, all)
	p.say("starting %d daemons", len(all))
	if err := found(dir, all); err != nil {
		return Result{}, err
	}
	if err := launch(children, all, p, end); err != nil {
		return Result{}, err
	}
	p.say("every hospital takes in its own rows and publishes a manifest of them")
	if err := publish(children, all, p); err != nil {
		return Result{}, err
	}
	p.say("%s proposes a task, and all join", all[0].name)
	id, err := propose(children, all, p)
	if err != nil {
		return Result{}, err
	}
	p.say("training")
	if err := follow(children, all, id, p); err != nil {
		return Result{}, err
	}
	p.say("comparing with a pool of all rows")
	if res, err = conclude(children, all, id); err != nil {
		return Result{}, err
	}
	if o.Keep {
		res.Dir = dir
	}
	res.Elapsed = time.Since(begin).Seconds()
	p.say("done")
	p.end()
	return res, nil
}

// place finds the directory for the homes. Made tells whether it is new.
func place(dir string) (path string, made bool, err error) {
	if dir == "" {
		path, err = os.MkdirTemp("", "village-demo-")
		return path, true, err
	}
	if path, err = filepath.Abs(dir); err != nil {
		return "", false, err
	}
	switch entries, err := os.ReadDir(path); {
	case errors.Is(err, fs.ErrNotExist):
		return path, true, os.MkdirAll(path, 0o700)
	case err != nil:
		return "", false, api.Fail(api.CodeFailed, "village demo --dir DIR", "cannot use %s: %v", path, err)
	case len(entries) > 0:
		return "", false, api.Fail(api.CodeFailed, "village demo --dir DIR, with a directory that is empty or does not exist",
			"%s holds other files, such as %q; nothing was changed", path, entries[0].Name())
	}
	return path, false, nil
}

// clear removes the homes, and their directory where the demo has made it.
func clear(dir string, made bool, all []*hospital) error {
	if made {
		return os.RemoveAll(dir)
	}
	var errs []error
	for _, h := range all {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, h.name)))
	}
	return errors.Join(errs...)
}

// found makes the homes of a federation that is closed to all others. Their
// ports are fixed, so that the nodes find each other again after a restart.
func found(dir string, all []*hospital) error {
	ports, err := freePorts(len(all))
	if err != nil {
		return err
	}
	federation := ""
	var ids []record.NodeID
	for i, h := range all {
		h.home, err = home.Init(filepath.Join(dir, h.name), home.Options{
			Nation: h.nation, Name: h.name, Federation: federation, NoMDNS: true,
			Listen: []string{tcp(ports[i]), fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", ports[i])},
		})
		if err != nil {
			return err
		}
		federation = h.home.Config().Federation
		ids = append(ids, h.home.ID)
	}
	for _, h := range all {
		if err := h.home.Lock(); err != nil {
			return err
		}
		err := h.home.Update(func(c *home.Config) error {
			for i, id := range ids {
				if id != h.home.ID {
					c.Members = append(c.Members, id)
					c.Peers = append(c.Peers, tcp(ports[i])+"/p2p/"+id.String())
				}
			}
			return nil
		})
		if err := errors.Join(err, h.home.Unlock()); err != nil {
			return err
		}
	}
	return nil
}

func tcp(port int) string { return fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port) }

// freePorts finds ports that are free for TCP and UDP, below those that systems
// give to outgoing connections: such a one could be taken at a restart.
func freePorts(n int) ([]int, error) {
	loopback := net.IPv4(127, 0, 0, 1)
	var ports []int
	for range 100 * n {
		port := 10_000 + rand.IntN(20_000)
		t, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: loopback, Port: port})
		if err != nil {
			continue
		}
		defer t.Close() // at the end, so that no port comes twice
		u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: loopback, Port: port})
		if err != nil {
			continue
		}
		defer u.Close()
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, errors.New("no free ports on 127.0.0.1 between 10000 and 30000")
}

// launch starts the daemons and connects to them.
func launch(ctx context.Context, all []*hospital, p *progress, lost func(error)) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	for i, h := range all {
		p.set(i, "starting")
		if h.daemon, err = start(ctx, program, h.name, h.home.Dir, lost); err != nil {
			return err
		}
	}
	for i, h := range all {
		select {
		case <-h.daemon.ready:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if h.client, err = api.Dial(h.home.Dir); err != nil {
			return err
		}
		p.set(i, "ready")
	}
	return nil
}

// publish adds to every node its own hospital's rows, and waits until every
// node has the manifests of all.
func publish(ctx context.Context, all []*hospital, p *progress) error {
	return each(ctx, all, func(ctx context.Context, i int, h *hospital) error {
		if err := addRows(ctx, h); err != nil {
			return fmt.Errorf("%s: %w", h.name, err)
		}
		return until(ctx, func() (bool, error) {
			d, err := h.client.Datasets(ctx, false, "")
			p.set(i, fmt.Sprintf("lists %d of %d datasets", len(d.Datasets), len(all)))
			return len(d.Datasets) == len(all), err
		})
	})
}

// addRows hands a hospital's rows to its node in a file in its own home, which
// then goes: the store has them.
func addRows(ctx context.Context, h *hospital) (err error) {
	path := filepath.Join(h.home.Dir, "rows.csv")
	err = home.WriteFile(path, 0o600, func(f io.Writer) error {
		w := csv.NewWriter(f)
		if err := w.Write(h.rows.Columns); err != nil {
			return err
		}
		return w.WriteAll(h.rows.Rows)
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(path)) }()
	_, err = h.client.AddDataset(ctx, api.AddDataset{Path: path, Options: options})
	return err
}

// propose publishes the task at the first node and joins it at all.
func propose(ctx context.Context, all []*hospital, p *progress) (record.CID, error) {
	q := api.Propose{Name: "heart disease", Description: "Coronary heart disease, from " + Citation, Target: target, Features: features}
	for _, h := range all {
		q.Nodes = append(q.Nodes, h.home.ID)
	}
	proposed, err := all[0].client.Propose(ctx, q)
	if err != nil {
		return record.CID{}, err
	}
	return proposed.CID, each(ctx, all, func(ctx context.Context, i int, h *hospital) error {
		err := until(ctx, func() (bool, error) {
			known, err := h.client.Tasks(ctx)
			return len(known.Tasks) > 0, err
		})
		if err != nil {
			return err
		}
		if _, err = h.client.Join(ctx, api.Join{Task: proposed.CID}); err == nil {
			p.set(i, "joined")
		}
		return err
	})
}

// follow shows every node's way until all are done.
func follow(ctx context.Context, all []*hospital, id record.CID, p *progress) error {
	return each(ctx, all, func(ctx context.Context, i int, h *hospital) error {
		return h.client.WatchTask(ctx, id, func(t api.ShownTask) error {
			p.task(i, t)
			if t.Error != "" {
				return fmt.Errorf("%s: %s", h.name, t.Error)
			}
			return nil
		})
	})
}

// conclude gathers every node's model and report, which must be the same, and
// sets them beside the pooled model.
func conclude(ctx context.Context, all []*hospital, id record.CID) (Result, error) {
	shown, err := all[0].client.Task(ctx, id)
	if err != nil {
		return Result{}, err
	}
	report, err := all[0].client.Report(ctx, shown.ModelCID)
	if err != nil {
		return Result{}, err
	}
	if len(report.Missing) > 0 || len(report.Nodes) != len(all) {
		return Result{}, fmt.Errorf("the report has %d nodes, not %d", len(report.Nodes), len(all))
	}
	res := Result{
		Schema: "village.demo/v1", Federation: all[0].home.Config().Federation, Task: id, ModelCID: shown.ModelCID,
		Rounds: report.Rounds, Citation: Citation, report: report,
	}
	for _, h := range all {
		n := Node{Nation: h.nation, Name: h.name, PeerID: h.home.ID, PID: h.daemon.cmd.Process.Pid}
		t, err := h.client.Task(ctx, id)
		if err != nil {
			return Result{}, err
		}
		if n.ModelCID = t.ModelCID; n.ModelCID != res.ModelCID {
			return Result{}, fmt.Errorf("%s has the model %s, %s has %s", all[0].name, res.ModelCID, h.name, n.ModelCID)
		}
		own, err := h.client.Report(ctx, n.ModelCID)
		if err != nil {
			return Result{}, err
		}
		if !reflect.DeepEqual(own, report) {
			return Result{}, fmt.Errorf("%s and %s have different reports of the model %s", all[0].name, h.name, n.ModelCID)
		}
		status, err := h.client.Status(ctx)
		if err != nil {
			return Result{}, err
		}
		n.BytesSent = status.BytesSent
		res.BytesSent += n.BytesSent
		res.Nodes = append(res.Nodes, n)
	}
	var b bytes.Buffer
	if _, err := all[0].client.ModelBytes(ctx, res.ModelCID, &b); err != nil {
		return Result{}, err
	}
	federated, err := task.UnmarshalModel(b.Bytes())
	if err != nil {
		return Result{}, err
	}
	pooled, err := pool(all, shown, federated)
	if err != nil {
		return Result{}, err
	}
	res.fill(report, pooled)
	return res, nil
}

// fill takes the figures from the nodes' report and those of the pool.
func (r *Result) fill(report api.Report, p pooled) {
	r.TestRows, r.Differences = p.testRows, p.differences
	pair := func(p, pooled api.Pair) Figures {
		return Figures{Local: headline(p.Local), Federated: headline(p.Federated), Pooled: headline(pooled.Federated)}
	}
	for i := range r.Nodes {
		n := &r.Nodes[i]
		same := func(m api.NodeReport) bool { return m.PeerID == n.PeerID }
		own, pool := report.Nodes[slices.IndexFunc(report.Nodes, same)], p.results.Nodes[slices.IndexFunc(p.results.Nodes, same)]
		n.TrainRows, n.TestRows = own.TrainRows, own.TestRows
		n.Rows = n.TrainRows + n.TestRows
		n.Figures = pair(own.Pair, pool.Pair)
	}
	r.AllRows = pair(report.AllRows, p.results.AllRows)
	r.Mean = Figures{Local: report.Mean.Local, Federated: report.Mean.Federated, Pooled: p.results.Mean.Federated}
}

// each does the same at all hospitals at once and returns the first error.
func each(ctx context.Context, all []*hospital, do func(context.Context, int, *hospital) error) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var group sync.WaitGroup
	for i, h := range all {
		group.Go(func() {
			if err := do(ctx, i, h); err != nil {
				fail(err)
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

// until asks again and again until the answer is yes.
func until(ctx context.Context, ask func() (bool, error)) error {
	again := time.NewTicker(poll)
	defer again.Stop()
	for {
		if yes, err := ask(); yes || err != nil {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
