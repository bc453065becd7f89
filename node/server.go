package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"village/node/api"
	"village/node/home"
	"village/node/ingest"
	"village/node/p2p"
	"village/node/portable"
	"village/protocol/agree"
	"village/protocol/learn"
	"village/protocol/member"
	"village/protocol/record"
	"village/protocol/task"
	"village/storage"
)

// maxRequest is the largest body of a request in bytes.
const maxRequest = 1 << 20

// server answers the local API.
type server struct {
	http   *http.Server
	failed chan error
	stop   context.CancelFunc // ends the watchers
}

// serve listens on the home's socket.
func (n *Node) serve() (*server, error) {
	listener, err := n.home.Listen()
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(n.quit)
	s := &server{failed: make(chan error, 1), stop: stop}
	s.http = &http.Server{
		Handler:           local(n.routes(ctx)),
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    16 << 10,
	}
	go func() {
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	}()
	return s, nil
}

// close lets requests end for a while, and then ends them.
func (s *server) close() {
	s.stop()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		s.http.Close()
	}
}

// local refuses what does not come from our own client: a browser cannot set
// the header without asking, and sends an Origin.
func local(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(api.Header) != api.HeaderValue || r.Header.Get("Origin") != "" || r.Header.Get("Referer") != "" {
			fail(w, api.Fail(api.CodeDenied, "village status", "the local API answers the village command alone"))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
		next.ServeHTTP(w, r)
	})
}

func (n *Node) routes(ctx context.Context) http.Handler {
	mux := http.NewServeMux()
	handle(mux, "GET "+api.PathID, func(*http.Request) (any, error) { return n.identity(), nil })
	handle(mux, "GET "+api.PathStatus, func(r *http.Request) (any, error) { return n.status(r.Context()) })
	handle(mux, "GET "+api.PathPeers, func(*http.Request) (any, error) { return n.peers("village.peer.list/v1"), nil })
	handle(mux, "POST "+api.PathPeers, with(n.addPeer))
	handle(mux, "DELETE "+api.PathPeer, func(r *http.Request) (any, error) {
		id, err := record.ParseNodeID(r.PathValue("id"))
		if err != nil {
			return nil, api.Fail(api.CodeUsage, "village peer list", "%v", err)
		}
		return n.removePeer(id)
	})
	handle(mux, "GET "+api.PathMembers, func(*http.Request) (any, error) { return n.memberList("village.member.list/v1"), nil })
	handle(mux, "POST "+api.PathMembers, with(func(_ context.Context, a api.AddMember) (any, error) { return n.addMember(a.PeerID) }))
	handle(mux, "DELETE "+api.PathMember, func(r *http.Request) (any, error) {
		id, err := record.ParseNodeID(r.PathValue("id"))
		if err != nil {
			return nil, api.Fail(api.CodeUsage, "village member list", "%v", err)
		}
		return n.removeMember(id)
	})
	handle(mux, "GET "+api.PathDatasets, func(r *http.Request) (any, error) { return n.listDatasets(r), nil })
	handle(mux, "POST "+api.PathDatasets, with(func(_ context.Context, a api.AddDataset) (any, error) { return n.addDataset(a) }))
	handle(mux, "POST "+api.PathDrift, with(func(_ context.Context, d api.Drift) (any, error) { return n.drift(d) }))
	handle(mux, "GET "+api.PathDatasetRows, byCID(func(_ context.Context, c record.CID) (any, error) { return n.ownRows(c) }))
	handle(mux, "GET "+api.PathDataset, byCID(n.showDataset))
	handle(mux, "GET "+api.PathTasks, func(r *http.Request) (any, error) { return n.listTasks(r.Context()) })
	handle(mux, "POST "+api.PathTasks, with(func(ctx context.Context, p api.Propose) (any, error) { return n.propose(ctx, p) }))
	handle(mux, "POST "+api.PathTaskContinue, with(func(ctx context.Context, c api.Continue) (any, error) { return n.goOn(ctx, c) }))
	handle(mux, "GET "+api.PathTask, byCID(func(ctx context.Context, c record.CID) (any, error) {
		return n.showTask(ctx, c, "village.task.show/v1")
	}))
	mux.HandleFunc("GET "+api.PathTaskWatch, func(w http.ResponseWriter, r *http.Request) { n.watchTask(ctx, w, r) })
	handle(mux, "POST "+api.PathTaskJoin, with(func(ctx context.Context, j api.Join) (any, error) { return n.Join(ctx, j) }))
	handle(mux, "POST "+api.PathTaskLeave, byCID(func(ctx context.Context, c record.CID) (any, error) { return n.Leave(ctx, c) }))
	handle(mux, "GET "+api.PathModels, func(r *http.Request) (any, error) { return n.listModels(r.Context()) })
	handle(mux, "GET "+api.PathModel, byCID(n.showModel))
	handle(mux, "GET "+api.PathModelReport, byCID(n.report))
	handle(mux, "GET "+api.PathModelVerify, byCID(n.verifyModel))
	handle(mux, "GET "+api.PathModelEvidence, byCID(n.modelEvidence))
	mux.HandleFunc("GET "+api.PathModelBytes, n.modelBytes)
	handle(mux, "POST "+api.PathPredict, with(n.predict))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, api.Fail(api.CodeUsage, "village --help", "the API has no %s %s", r.Method, r.URL.Path))
	})
	return mux
}

// handle writes what f returns as JSON.
func handle(mux *http.ServeMux, pattern string, f func(*http.Request) (any, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		answer, err := f(r)
		if err != nil {
			fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(answer)
	})
}

// with reads the JSON body that f wants.
func with[T any](f func(context.Context, T) (any, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		var question T
		d := json.NewDecoder(r.Body)
		d.DisallowUnknownFields()
		if err := d.Decode(&question); err != nil {
			return nil, api.Fail(api.CodeUsage, "village --help", "the request is not understood: %v", err)
		}
		return f(r.Context(), question)
	}
}

func byCID(f func(context.Context, record.CID) (any, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		cid, err := record.ParseCID(r.PathValue("cid"))
		if err != nil {
			return nil, api.Fail(api.CodeUsage, "village task list", "%v", err)
		}
		return f(r.Context(), cid)
	}
}

func fail(w http.ResponseWriter, err error) {
	e := api.AsError(err)
	if errors.Is(err, storage.ErrFull) {
		e = api.Fail(e.Code, "village status, which shows how much is free", "%v", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.HTTPStatus())
	json.NewEncoder(w).Encode(e)
}

func (n *Node) identity() api.Identity {
	c := n.home.Config()
	return api.Identity{
		Schema: "village.id/v1", PeerID: n.home.ID, Nation: c.Nation, Name: c.Name,
		Federation: c.Federation, Addresses: n.network.Addrs(),
	}
}

func (n *Node) status(ctx context.Context) (api.Status, error) {
	c, traffic := n.home.Config(), n.network.Stats()
	s := api.Status{
		Schema: "village.status/v1", PeerID: n.home.ID, Nation: c.Nation, Name: c.Name, Federation: c.Federation,
		Closed: c.Members != nil, Members: len(members(c, n.home.ID)),
		Datasets: len(n.store.Records(record.KindManifest)), Tasks: []api.TaskSummary{},
		StoreBytes: n.store.Bytes(), FreeBytes: n.store.FreeBytes(), ResidentBytes: resident(),
		BytesSent: traffic.BytesSent, BytesReceived: traffic.BytesReceived,
		MessagesDropped: traffic.Dropped, MessagesRefused: traffic.Refused, Lost: n.missing(),
		UptimeSeconds: n.now().Seconds(),
	}
	if text := n.lastError.Load(); text != nil {
		s.LastError = *text
	}
	for _, p := range n.network.Peers() {
		if p.Connected {
			s.Peers++
		}
	}
	tasks, err := n.listTasks(ctx)
	for _, t := range tasks.Tasks {
		if t.Stage != api.StageDone {
			s.Tasks = append(s.Tasks, t)
		}
	}
	return s, err
}

// resident is the process's resident memory in bytes, 0 where the system does
// not tell.
func resident() uint64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseUint(fields[1], 10, 64)
	return pages * uint64(os.Getpagesize())
}

func (n *Node) peers(schema string) api.Peers {
	answer := api.Peers{Schema: schema, Peers: []api.Peer{}}
	called := n.called()
	for _, p := range n.network.Peers() {
		is := called[p.ID]
		answer.Peers = append(answer.Peers, api.Peer{
			PeerID: p.ID, Nation: is.Nation, Name: is.Name, Addresses: p.Addrs, Connected: p.Connected,
		})
	}
	return answer
}

// addPeer connects to a peer, and stays connected for good. Where it does not
// come to that yet, the address is kept all the same.
func (n *Node) addPeer(ctx context.Context, a api.AddPeer) (any, error) {
	id, err := home.PeerOf(a.Address)
	if err != nil {
		return nil, api.Fail(api.CodeUsage, "village id, on the other node, prints its address", "%v", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	problem := n.network.Connect(ctx, a.Address)
	shut, unreachable := errors.Is(problem, p2p.ErrShut), errors.Is(problem, p2p.ErrUnreachable)
	switch {
	case errors.Is(problem, p2p.ErrForeign):
		return nil, api.Fail(api.CodeFailed, "village id, on either node, prints the name of its federation",
			"%s is not a node of the federation %q; it is not added", id, n.home.Config().Federation)
	case problem != nil && !shut && !unreachable:
		return nil, api.Fail(api.CodeFailed, "village status", "cannot connect to %s: %v", a.Address, problem)
	}
	err = n.home.Update(func(c *home.Config) error {
		if !slices.Contains(c.Peers, a.Address) {
			c.Peers = append(c.Peers, a.Address)
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case shut:
		return nil, api.Fail(api.CodeDenied, "at the other node: village member add "+n.home.ID.String(),
			"%s hung up: it is in a closed federation that does not list this node; the address is kept, for when it does", id)
	case unreachable:
		return nil, api.Fail(api.CodeFailed, "village peer remove "+id.String(),
			"%s cannot be reached yet (%s); the address is kept, and the daemon goes on trying", id, strings.Join(strings.Fields(problem.Error()), " "))
	}
	return n.peers("village.peer.add/v1"), nil
}

// removePeer forgets the addresses of a peer, and hangs up on it.
func (n *Node) removePeer(id record.NodeID) (any, error) {
	kept := n.network.Forget(id)
	err := n.home.Update(func(c *home.Config) error {
		c.Peers = slices.DeleteFunc(c.Peers, func(address string) bool {
			of, err := home.PeerOf(address)
			kept = kept || err == nil && of == id
			return err == nil && of == id
		})
		return nil
	})
	if err == nil && !kept {
		err = api.Fail(api.CodeFailed, "village peer list", "%s is not a peer that this node connects to", id)
	}
	return n.peers("village.peer.remove/v1"), err
}

func (n *Node) memberList(schema string) api.Members {
	c := n.home.Config()
	connected := map[record.NodeID]bool{n.home.ID: true}
	for _, p := range n.network.Peers() {
		connected[p.ID] = connected[p.ID] || p.Connected
	}
	answer := api.Members{Schema: schema, Closed: c.Members != nil, Members: []api.Member{}}
	for _, id := range members(c, n.home.ID) {
		answer.Members = append(answer.Members, api.Member{PeerID: id, Connected: connected[id], Self: id == n.home.ID})
	}
	return answer
}

// addMember lists a node; the first one closes the federation.
func (n *Node) addMember(id record.NodeID) (any, error) {
	err := n.changeMembers(func(m []record.NodeID) []record.NodeID {
		if m == nil {
			m = []record.NodeID{}
		}
		if id != n.home.ID && !slices.Contains(m, id) {
			m = append(m, id)
		}
		return m
	})
	return n.memberList("village.member.add/v1"), err
}

func (n *Node) removeMember(id record.NodeID) (any, error) {
	if !slices.Contains(n.home.Config().Members, id) {
		return nil, api.Fail(api.CodeFailed, "village member list", "%s is not on the member list", id)
	}
	err := n.changeMembers(func(m []record.NodeID) []record.NodeID {
		return slices.DeleteFunc(m, func(other record.NodeID) bool { return other == id })
	})
	return n.memberList("village.member.remove/v1"), err
}

func (n *Node) changeMembers(change func([]record.NodeID) []record.NodeID) error {
	err := n.home.Update(func(c *home.Config) error {
		c.Members = change(c.Members)
		return nil
	})
	if err != nil {
		return err
	}
	n.network.SetMembers(members(n.home.Config(), n.home.ID))
	return nil
}

func (n *Node) listDatasets(r *http.Request) api.Datasets {
	mine, domain := r.URL.Query().Get("mine") == "1", r.URL.Query().Get("domain")
	list := slices.DeleteFunc(n.datasets(), func(d api.Dataset) bool {
		return mine && !d.Mine || domain != "" && d.Domain != domain
	})
	return api.Datasets{Schema: "village.dataset.list/v1", Datasets: list}
}

func (n *Node) showDataset(_ context.Context, cid record.CID) (any, error) {
	r, err := n.store.Record(cid)
	if err != nil || r.Kind != record.KindManifest {
		return nil, api.Fail(api.CodeFailed, "village dataset list", "no dataset %s is known here", cid)
	}
	d, err := n.describe(r)
	return api.ShownDataset{Schema: "village.dataset.show/v1", Dataset: d}, err
}

func (n *Node) listTasks(ctx context.Context) (api.Tasks, error) {
	answer := api.Tasks{Schema: "village.task.list/v1", Tasks: []api.TaskSummary{}}
	err := n.ask(ctx, func() {
		for _, run := range n.ordered() {
			answer.Tasks = append(answer.Tasks, n.summary(run))
		}
	})
	return answer, err
}

// ordered returns the runs by age; the loop alone calls it.
func (n *Node) ordered() []*run {
	runs := make([]*run, 0, len(n.runs))
	for _, run := range n.runs {
		runs = append(runs, run)
	}
	slices.SortFunc(runs, func(a, b *run) int {
		if a.task.Created != b.task.Created {
			return int(int64(a.task.Created) - int64(b.task.Created))
		}
		return strings.Compare(a.id.KeyString(), b.id.KeyString())
	})
	return runs
}

func (n *Node) summary(run *run) api.TaskSummary {
	model, _ := run.member.Model()
	_, joined := run.member.Enrolment(n.home.ID)
	undecided, quorum := n.undecided(run)
	return api.TaskSummary{
		Undecided: undecided, Quorum: quorum, Voters: len(run.task.Nodes),
		CID: run.id, Name: run.task.Name, Proposer: run.proposer,
		Named: run.task.Named(n.home.ID), Joined: joined,
		Stage: string(run.member.Stage()), Round: run.member.Round(), Rounds: run.task.Rounds,
		WaitingFor: run.member.WaitingFor(), ModelCID: model, Error: run.err,
	}
}

// undecided names the nodes that have to speak before a decision, and how many
// are needed. Where so many are silent that there will be none, it is these.
func (n *Node) undecided(run *run) (missing []record.NodeID, quorum int) {
	missing = []record.NodeID{}
	if due, quorum := run.member.Undecided(); quorum > 0 {
		return append(missing, due...), quorum
	}
	if stage := run.member.Stage(); stage != member.Training && stage != member.Sealing {
		return missing, 0
	}
	for _, id := range run.task.Nodes {
		if _, enrolled := run.member.Enrolment(id); !enrolled || run.member.IsSilent(id) {
			missing = append(missing, id)
		}
	}
	quorum = agree.Quorum(len(run.task.Nodes))
	if len(run.task.Nodes)-len(missing) >= quorum {
		return []record.NodeID{}, 0
	}
	return missing, quorum
}

func (n *Node) showTask(ctx context.Context, cid record.CID, schema string) (api.ShownTask, error) {
	var answer api.ShownTask
	found := false
	err := n.ask(ctx, func() {
		if run := n.runs[cid]; run != nil {
			found, answer = true, n.shown(run, schema)
		}
	})
	if err == nil && !found {
		err = api.Fail(api.CodeFailed, "village task list", "no task %s is known here", cid)
	}
	return answer, err
}

func (n *Node) shown(run *run, schema string) api.ShownTask {
	t := run.task
	answer := api.ShownTask{
		Schema: schema, TaskSummary: n.summary(run),
		Description: t.Description, Encoding: t.Encoding, Target: t.Encoding.Target, Features: []string{},
		Model: t.Model, LocalSteps: t.LocalSteps, LearningRate: t.LearningRate, Batch: t.Batch, L2: t.L2,
		Mixing: t.Mixing, Seed: t.Seed, Tolerance: t.Tolerance, Nodes: []api.TaskNode{},
		Hidden: t.Hidden, Optimizer: t.Optimizer, Prox: t.Prox, Outer: t.Outer, OuterRate: t.OuterRate,
		Scaffold: t.Scaffold, Personal: t.Personal, RoundTime: float64(t.RoundTime) / 1000, Search: t.Search,
	}
	for _, f := range t.Encoding.Features {
		answer.Features = append(answer.Features, f.String())
	}
	if t.Parent != nil {
		answer.Parent = t.Parent.Model
	}
	if t.Search != nil {
		answer.Kept = run.member.Kept()
	}
	var called map[record.NodeID]api.NamedNode // only where one is needed: manifests are many
	for _, id := range t.Nodes {
		e, enrolled := run.member.Enrolment(id)
		if !enrolled {
			if called == nil {
				called = n.called()
			}
			e.Nation, e.Node = called[id].Nation, called[id].Name
		}
		answer.Nodes = append(answer.Nodes, api.TaskNode{
			PeerID: id, Nation: e.Nation, Name: e.Node, Enrolled: enrolled, Dataset: e.Manifest,
			TrainRows: e.Moments.Count, Round: run.member.RoundOf(id), Evaluated: run.member.HasEvaluated(id),
			Late: enrolled && run.member.Roster().Defined() && !run.member.InRoster(id),
			Left: run.member.HasLeft(id), Silent: run.member.IsSilent(id),
		})
	}
	return answer
}

// watchTask writes a line for every change of a task until it is done.
func (n *Node) watchTask(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	cid, err := record.ParseCID(r.PathValue("cid"))
	if err != nil {
		fail(w, api.Fail(api.CodeUsage, "village task list", "%v", err))
		return
	}
	var last api.ShownTask
	lines := json.NewEncoder(w)
	for first := true; ; first = false {
		changed := n.watch()
		t, err := n.showTask(r.Context(), cid, "village.task.watch/v1")
		switch {
		case err != nil && first:
			fail(w, err)
			return
		case err != nil:
			lines.Encode(api.AsError(err))
			return
		}
		if first || !reflect.DeepEqual(t, last) {
			if first {
				w.Header().Set("Content-Type", "application/x-ndjson")
			}
			last = t
			if lines.Encode(t) != nil || http.NewResponseController(w).Flush() != nil || t.Stage == api.StageDone {
				return
			}
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		case <-ctx.Done():
			lines.Encode(api.Fail(api.CodeFailed, "village daemon", "the daemon is stopping"))
			return
		}
	}
}

// sealed calls f in the loop with the run that has sealed a model.
func (n *Node) sealed(ctx context.Context, cid record.CID, f func(*run, *task.Model) error) error {
	var failed error = api.Fail(api.CodeFailed, "village model list",
		"no task whose records are here has made model %s; ask a node that took part in its task", cid)
	err := n.ask(ctx, func() {
		for _, run := range n.runs {
			if model, m := run.member.Model(); model == cid && model.Defined() {
				failed = f(run, m)
				return
			}
		}
	})
	return errors.Join(err, failed)
}

func (n *Node) listModels(ctx context.Context) (api.Models, error) {
	answer := api.Models{Schema: "village.model.list/v1", Models: []api.ModelSummary{}}
	err := n.ask(ctx, func() {
		for _, run := range n.ordered() {
			if model, _ := run.member.Model(); model.Defined() {
				answer.Models = append(answer.Models, n.modelSummary(ctx, run))
			}
		}
	})
	return answer, err
}

func (n *Node) modelSummary(ctx context.Context, run *run) api.ModelSummary {
	cid, m := run.member.Model()
	s := api.ModelSummary{CID: cid, Task: run.id, Name: run.task.Name, Model: m.Spec.Kind, Bytes: uint64(run.size)}
	if m.Parent != nil {
		s.Parent = *m.Parent
		if res, _, err := n.results(ctx, run); err == nil {
			s.Promoted = res.Promoted
		}
	}
	return s
}

func (n *Node) showModel(ctx context.Context, cid record.CID) (any, error) {
	m, b, err := n.model(ctx, cid)
	if err != nil {
		return nil, err
	}
	answer := api.ShownModel{
		Schema:       "village.model.show/v1",
		ModelSummary: api.ModelSummary{CID: cid, Task: m.Task, Name: m.Name, Model: m.Spec.Kind, Bytes: uint64(len(b))},
		Encoding:     m.Encoding, Scaling: m.Scaling, Columns: m.Encoding.Names(),
	}
	answer.Weight, answer.Bias = m.Weights()
	answer.Hidden, answer.Lineage = m.Spec.Hidden, n.lineage(ctx, m)
	if m.Parent != nil {
		answer.Parent = *m.Parent
	}
	return answer, nil
}

func (n *Node) report(ctx context.Context, cid record.CID) (any, error) {
	var answer api.Report
	err := n.sealed(ctx, cid, func(run *run, m *task.Model) error {
		res, artifact, err := n.results(ctx, run)
		res.Lineage = n.lineage(ctx, *m)
		answer = api.ReportOf(res)
		answer.Schema, answer.Report = "village.model.report/v1", artifact
		return err
	})
	for i := range answer.Contributions {
		// Whoever has not enrolled has told its name elsewhere.
		if c := &answer.Contributions[i]; c.Name == "" {
			is := n.called()[c.PeerID]
			c.Nation, c.Name = is.Nation, is.Name
		}
	}
	return answer, err
}

func (n *Node) modelBytes(w http.ResponseWriter, r *http.Request) {
	cid, err := record.ParseCID(r.PathValue("cid"))
	if err != nil {
		fail(w, api.Fail(api.CodeUsage, "village model list", "%v", err))
		return
	}
	b, err := n.modelIn(r.Context(), cid, r.URL.Query().Get("form"))
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.Write(b)
}

// modelIn is a model's bytes in one of the forms that it can be exported in.
func (n *Node) modelIn(ctx context.Context, cid record.CID, form string) ([]byte, error) {
	m, b, err := n.model(ctx, cid)
	if err != nil {
		return nil, err
	}
	switch form {
	case "", api.FormSafetensors:
	case api.FormONNX:
		if b, err = portable.ONNX(m); err != nil {
			err = api.Fail(api.CodeFailed, "village model show "+cid.String(), "%v", err)
		}
	case api.FormCard:
		b, err = n.card(ctx, cid, m)
	default:
		err = api.Fail(api.CodeUsage, "village model export --help", "no model can be exported as %.16q", form)
	}
	return b, err
}

// card is a model's card.
func (n *Node) card(ctx context.Context, cid record.CID, m task.Model) ([]byte, error) {
	var res task.Results
	var o portable.CardOptions
	enrolled := map[record.CID]bool{}
	err := n.sealed(ctx, cid, func(run *run, _ *task.Model) (err error) {
		res, _, err = n.results(ctx, run)
		o.Task = run.task
		for _, p := range m.Parts {
			if e, ok := run.member.Enrolment(p.Node); ok {
				enrolled[e.Manifest] = true
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	res.Lineage = n.lineage(ctx, m)
	for _, d := range n.datasets() {
		if enrolled[d.CID] {
			o.Datasets = append(o.Datasets, d)
		}
	}
	text, err := portable.Card(m, res, o)
	return []byte(text), err
}

func (n *Node) predict(ctx context.Context, p api.Predict) (any, error) {
	m, _, err := n.model(ctx, p.Model)
	if err != nil {
		return nil, err
	}
	next := "village model show " + p.Model.String()
	levels := map[string][]string{} // NA may be one that the model knows
	for _, f := range m.Encoding.Features {
		levels[f.Name] = f.Levels
	}
	table, hints, err := ingest.File(p.Path, ingest.Options{Columns: p.Columns, Levels: levels})
	if err != nil {
		return nil, api.Fail(api.CodeFailed, next, "%v", err)
	}
	complete, at, left := m.Encoding.Complete(table, false)
	answer := api.Predictions{
		Schema: "village.model.predict/v1", CID: p.Model, Classes: append([]string{}, m.Encoding.Classes...),
		Predictions: make([]string, len(table.Rows)), Probabilities: make([][]float64, len(table.Rows)),
		Incomplete: len(table.Rows) - len(at), Hints: append([]string{}, hints...), // never null
	}
	for _, why := range slices.Sorted(maps.Keys(left)) {
		answer.Hints = append(answer.Hints, fmt.Sprintf("%d rows: %s", left[why], why))
	}
	if m.Personal != learn.NoPart || p.Own {
		own, err := n.own(ctx, p.Model, m)
		switch {
		case err != nil && p.Own:
			return nil, api.Fail(api.CodeFailed, next, "%v", err)
		case err != nil:
			answer.Hints = append(answer.Hints, fmt.Sprintf("the model's %s is each node's own, and zero here: %v", m.Personal, err))
		default:
			m = own
		}
	}
	probabilities, err := m.Predict(complete)
	switch {
	case err != nil && answer.Incomplete > 0:
		return nil, api.Fail(api.CodeFailed, next, "%v (the %d rows with empty cells are not counted)", err, answer.Incomplete)
	case err != nil:
		return nil, api.Fail(api.CodeFailed, next, "%v", err)
	}
	for i := range answer.Probabilities {
		answer.Probabilities[i] = []float64{}
	}
	for i, row := range probabilities {
		if len(m.Encoding.Classes) == 0 {
			answer.Predictions[at[i]] = strconv.FormatFloat(row[0], 'g', -1, 64)
			continue
		}
		answer.Predictions[at[i]], answer.Probabilities[at[i]] = m.Encoding.Classes[m.Class(row)], row
	}
	return answer, nil
}

// own is a model with the part that this node has for itself, fitted to its rows.
func (n *Node) own(ctx context.Context, cid record.CID, m task.Model) (task.Model, error) {
	var took *run
	err := n.sealed(ctx, cid, func(run *run, _ *task.Model) error {
		if took = run; run.site == nil {
			return errors.New("this node has no rows in the model's task")
		}
		return nil
	})
	if err != nil {
		return m, err
	}
	took.working.Lock()
	defer took.working.Unlock()
	return took.site.Own(m, ctx.Err)
}
