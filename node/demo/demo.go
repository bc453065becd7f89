// Package demo runs a federation on one machine: hospitals in three nations,
// each a daemon of its own with its own keys, store and rows, train one model of
// heart disease. It can also show what faults do to such a training.
package demo

import (
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
	"village/node/evidence"
	"village/node/home"
	"village/protocol/record"
	"village/protocol/task"
)

// Options is what the caller decides.
type Options struct {
	Dir      string    // for the homes, absent or empty; "" means a temporary one
	Keep     bool      // the homes stay
	Faults   bool      // twice as many hospitals, through faults
	Progress io.Writer // shows how far it is

	program string // of the daemons; "" is this one
	pace    pace   // of the training with faults; none is [forPeople]
}

// poll is how often a node is asked again for what has not come to it yet.
const poll = 20 * time.Millisecond

// run is one run of the demo.
type run struct {
	Options
	homes []string // directories that it has made
}

// Run runs the demo. When it returns no child process is left, and no home
// unless they are to be kept.
func Run(ctx context.Context, o Options) (res Result, err error) {
	if o.program == "" {
		if o.program, err = os.Executable(); err != nil {
			return Result{}, err
		}
	}
	dir, made, err := place(o.Dir)
	if err != nil {
		return Result{}, err
	}
	o.Dir = dir
	r := &run{Options: o}
	if made {
		r.homes = []string{dir}
	}
	defer func() {
		if o.Keep {
			if err != nil {
				fmt.Fprintln(o.Progress, "the homes are kept in "+dir)
			}
			return
		}
		for _, home := range r.homes {
			err = errors.Join(err, os.RemoveAll(home))
		}
	}()
	if o.Faults {
		res, err = r.withFaults(ctx)
	} else {
		res, err = r.withoutFaults(ctx)
	}
	if err != nil {
		return Result{}, err
	}
	if o.Keep {
		res.Dir = dir
	}
	return res, nil
}

// withoutFaults trains at the four hospitals.
func (r *run) withoutFaults(ctx context.Context) (res Result, err error) {
	begin := time.Now()
	all, err := hospitals()
	if err != nil {
		return Result{}, err
	}
	p := newProgress(r.Progress, all)
	p.say("starting %d daemons", len(all))
	if err := r.found(r.Dir, all); err != nil {
		return Result{}, err
	}
	err = r.while(ctx, all, p, func(ctx context.Context, _ func(error)) error {
		if err := publish(ctx, all, p); err != nil {
			return err
		}
		p.say("%s proposes a task, and all join", all[0].name)
		id, err := propose(ctx, all, proposal(all), nil, p)
		if err != nil {
			return err
		}
		p.say("training")
		if err := follow(ctx, all, id, p); err != nil {
			return err
		}
		p.say("comparing with a pool of all rows")
		res, err = conclude(ctx, all, id)
		return err
	})
	if err != nil {
		return Result{}, err
	}
	res.Elapsed = time.Since(begin).Seconds()
	p.say("done")
	p.end()
	return res, nil
}

// while runs the daemons of the hospitals for as long as do takes. Its context
// ends when a daemon is lost, which calls lost.
func (r *run) while(ctx context.Context, all []*hospital, p *progress, do func(ctx context.Context, lost func(error)) error) (err error) {
	children, end := context.WithCancelCause(ctx)
	defer func() {
		end(nil)
		// A lost daemon is the cause of whatever its absence led to.
		if lost := stop(all); lost != nil && err != nil && ctx.Err() == nil {
			err = api.Fail(api.CodeFailed, "village demo --keep, and see "+logFile+" in the homes", "%v", lost)
		}
	}()
	err = each(children, all, func(ctx context.Context, i int, h *hospital) error {
		p.set(i, "starting")
		// The daemon ends with the children's context, not with this step's.
		if err := h.launch(children, r.program, end); err != nil {
			return err
		}
		p.set(i, "ready")
		return nil
	})
	if err != nil {
		return err
	}
	return do(children, end)
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

// found makes the homes of a federation that is closed to all others. Their
// ports are fixed, so that the nodes find each other again after a restart.
func (r *run) found(dir string, all []*hospital) error {
	ports, err := freePorts(len(all))
	if err != nil {
		return err
	}
	federation := ""
	for i, h := range all {
		h.port = ports[i]
		path := filepath.Join(dir, h.name)
		r.homes = append(r.homes, path)
		h.home, err = home.Init(path, home.Options{
			Nation: h.nation, Name: h.name, Federation: federation, NoMDNS: true,
			Listen: []string{tcp(h.port), fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", h.port)},
		})
		if err != nil {
			return err
		}
		federation = h.home.Config().Federation
	}
	return introduce(all)
}

// introduce tells every node of all others and where they listen.
func introduce(all []*hospital) error {
	return configure(all, func(i int, c *home.Config) {
		c.Announce, c.Members, c.Peers = nil, nil, nil
		for j, other := range all {
			if j != i {
				c.Members = append(c.Members, other.home.ID)
				c.Peers = append(c.Peers, other.address(other.port))
			}
		}
	})
}

// configure changes the configs of nodes that do not run.
func configure(all []*hospital, change func(i int, c *home.Config)) error {
	for i, h := range all {
		if err := h.home.Lock(); err != nil {
			return err
		}
		err := h.home.Update(func(c *home.Config) error {
			change(i, c)
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

// publish adds to every node its own hospital's rows, and waits until every
// node has the manifests of all.
func publish(ctx context.Context, all []*hospital, p *progress) error {
	p.say("every hospital takes in its own rows and publishes a manifest of them")
	return each(ctx, all, func(ctx context.Context, i int, h *hospital) error {
		if err := addRows(ctx, h); err != nil {
			return fmt.Errorf("%s: %w", h.name, err)
		}
		return until(ctx, func() (bool, error) {
			d, err := api.ListDatasets.Ask(ctx, h.client, nil)
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
	_, err = api.PublishDataset.Ask(ctx, h.client, api.AddDataset{Path: path, Options: options})
	return err
}

// proposal is the task, with the default training.
func proposal(all []*hospital) api.Propose {
	q := api.Propose{Name: "heart disease", Description: "Coronary heart disease, from " + Citation, Target: target, Features: features}
	for _, h := range all {
		q.Nodes = append(q.Nodes, h.home.ID)
	}
	return q
}

// propose publishes the task at the first node and joins it at all but the late
// one, which only hears of it.
func propose(ctx context.Context, all []*hospital, q api.Propose, late *hospital, p *progress) (record.CID, error) {
	proposed, err := api.ProposeTask.Ask(ctx, all[0].client, q)
	if err != nil {
		return record.CID{}, err
	}
	return proposed.CID, each(ctx, all, func(ctx context.Context, i int, h *hospital) error {
		err := until(ctx, func() (bool, error) {
			known, err := api.ListTasks.Ask(ctx, h.client, api.None{})
			return len(known.Tasks) > 0, err
		})
		if err != nil || h == late {
			return err
		}
		if _, err = api.JoinTask.Ask(ctx, h.client, api.Join{Task: proposed.CID}); err == nil {
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

// certified waits until every node that was not lost has the certificate of the model:
// it may come after the model.
func certified(ctx context.Context, all []*hospital, id record.CID) error {
	return each(ctx, all, func(ctx context.Context, _ int, h *hospital) error {
		if h.lost {
			return nil
		}
		return until(ctx, func() (bool, error) {
			t, err := api.ShowTask.Ask(ctx, h.client, id)
			return t.Certified, err
		})
	})
}

// conclude gathers every node's model and report, which must be the same, and
// sets them beside the pooled model. Of a lost node nothing can be gathered.
func conclude(ctx context.Context, all []*hospital, id record.CID) (Result, error) {
	if err := certified(ctx, all, id); err != nil {
		return Result{}, err
	}
	shown, err := api.ShowTask.Ask(ctx, all[0].client, id)
	if err != nil {
		return Result{}, err
	}
	report, err := api.ReportModel.Ask(ctx, all[0].client, shown.ModelCID)
	if err != nil {
		return Result{}, err
	}
	if len(report.Contributions) != len(all) {
		return Result{}, fmt.Errorf("the report accounts for %d of %d nodes", len(report.Contributions), len(all))
	}
	if len(report.Missing) > 0 {
		return Result{}, fmt.Errorf("the report lacks the evaluations of %d nodes", len(report.Missing))
	}
	res := Result{
		Schema: "village.demo/v1", Federation: all[0].home.Config().Federation, Task: id, ModelCID: shown.ModelCID,
		Rounds: report.Rounds, Citation: Citation, report: report,
	}
	for _, h := range all {
		n := Node{Nation: h.nation, Name: h.name, PeerID: h.home.ID, PID: h.daemon.cmd.Process.Pid}
		if !h.lost {
			if err := n.ask(ctx, h, id, report); err != nil {
				return Result{}, err
			}
		}
		res.BytesSent += n.BytesSent
		res.Nodes = append(res.Nodes, n)
	}
	verified, federated, err := recompute(ctx, all[0], res.ModelCID)
	if err != nil {
		return Result{}, err
	}
	res.Recomputed, res.verified, res.model = true, verified, federated
	pooled, err := pool(all, shown, federated)
	if err != nil {
		return Result{}, err
	}
	return res, res.fill(report, verified, pooled)
}

// ask asks a node for its model and report, which must be those of the first, and
// has it recompute the model.
func (n *Node) ask(ctx context.Context, h *hospital, id record.CID, report api.Report) error {
	t, err := api.ShowTask.Ask(ctx, h.client, id)
	if err != nil {
		return err
	}
	if n.ModelCID = &t.ModelCID; t.ModelCID != report.CID {
		return fmt.Errorf("%s has the model %s, not %s", h.name, t.ModelCID, report.CID)
	}
	own, err := api.ReportModel.Ask(ctx, h.client, report.CID)
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(own, report) {
		return fmt.Errorf("%s has another report of the model %s", h.name, report.CID)
	}
	if _, err := api.VerifyModel.Ask(ctx, h.client, report.CID); err != nil {
		return err
	}
	status, err := api.GetStatus.Ask(ctx, h.client, api.None{})
	n.BytesSent = status.BytesSent
	return err
}

// recompute asks a node for what proves a model, and checks it here: signatures,
// weights, and that the updates come to the model's very bytes.
func recompute(ctx context.Context, h *hospital, cid record.CID) (api.Verified, task.Model, error) {
	proof, err := api.ProveModel.Ask(ctx, h.client, cid)
	if err != nil {
		return api.Verified{}, task.Model{}, err
	}
	verified, err := evidence.Verify(proof)
	if err == nil && verified.CID != cid {
		err = fmt.Errorf("the evidence is of %s", verified.CID)
	}
	if err != nil {
		return api.Verified{}, task.Model{}, fmt.Errorf("the model %s of %s does not hold: %w", cid, h.name, err)
	}
	model, err := task.UnmarshalModel(proof.Model)
	return verified, model, err
}

// fill takes the figures from the nodes' report and those of the pool. A node
// that was lost has not evaluated the model.
func (r *Result) fill(report api.Report, v api.Verified, p pooled) error {
	r.TestRows, r.Differences = p.testRows, p.differences
	pair := func(p, pooled api.Pair) Figures {
		return Figures{Local: headline(p.Local), Federated: headline(p.Federated), Pooled: headline(pooled.Federated)}
	}
	for i := range r.Nodes {
		n := &r.Nodes[i]
		given := slices.IndexFunc(report.Contributions, func(c api.Contribution) bool { return c.PeerID == n.PeerID })
		if given < 0 {
			return fmt.Errorf("the report does not account for %s", n.Name)
		}
		n.account(report.Contributions[given], v)
		n.TestRows = uint64(p.tests[i])
		n.Rows = n.TrainRows + n.TestRows
		find := func(nodes []api.NodeReport) api.Pair {
			at := slices.IndexFunc(nodes, func(m api.NodeReport) bool { return m.PeerID == n.PeerID })
			if at < 0 {
				return api.Pair{}
			}
			return nodes[at].Pair
		}
		n.Figures = pair(find(report.Nodes), find(p.results.Nodes))
	}
	r.AllRows = pair(report.AllRows, p.results.AllRows)
	r.Mean = Figures{Local: report.Mean.Local, Federated: report.Mean.Federated, Pooled: p.results.Mean.Federated}
	return nil
}

// account notes what the node gave to the model, and what became of it.
func (n *Node) account(c api.Contribution, v api.Verified) {
	n.TrainRows, n.Rounds, n.InModel, n.Why = c.TrainRows, c.Round, c.InFinal, c.Why
	n.State = Contributed
	if c.Late {
		n.State = Late
	}
	for _, out := range v.Out {
		if out.PeerID == n.PeerID {
			n.State = map[task.Why]State{task.Absent: Absent, task.Left: Left, task.Silent: Lost, task.Equivocated: Lost}[out.Why]
		}
	}
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
