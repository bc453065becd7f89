// Package server answers the local API: it reads questions, puts them to the room
// that knows, and writes the answers.
package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"time"

	"village/node/api"
	"village/node/datasets"
	"village/node/home"
	"village/node/log"
	"village/node/models"
	"village/node/p2p"
	"village/node/tasks"
	"village/protocol/record"
	"village/storage"
)

// maxRequest is the largest body of a request in bytes.
const maxRequest = 1 << 20

// bodyTime is how long the body of a request may take to come.
var bodyTime = 10 * time.Second

// Config is what the server asks to answer.
type Config struct {
	Home     *home.Home
	Store    *storage.Store
	Log      *log.Log
	Network  *p2p.Network
	Datasets *datasets.Datasets
	Models   *models.Models
	Tasks    *tasks.Tasks
}

// Server answers the local API.
type Server struct {
	Config
	started time.Time
	http    *http.Server
	failed  chan error
	quit    context.Context // ends the watchers
	stop    context.CancelFunc
}

// New returns a server that answers once it listens.
func New(c Config) *Server {
	s := &Server{Config: c, started: time.Now(), failed: make(chan error, 1)}
	s.quit, s.stop = context.WithCancel(context.Background())
	s.http = &http.Server{Handler: local(s.routes()), ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10}
	return s
}

// Listen answers on the home's socket, until Close.
func (s *Server) Listen() error {
	listener, err := s.Home.Listen()
	if err != nil {
		return err
	}
	go func() {
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	}()
	return nil
}

// Failed tells why the server no longer answers.
func (s *Server) Failed() <-chan error { return s.failed }

// Close lets requests end for a while, and then ends them.
func (s *Server) Close() {
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
		body, err := bodyOf(w, r)
		if err != nil {
			fail(w, api.Fail(api.CodeUsage, "village --help", "the request does not come in whole: %v", err))
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

// bodyOf reads the body of a request, which is small and has to come in time. The time
// is not the connection's own: that would also end the answers that take long.
func bodyOf(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	c := http.NewResponseController(w)
	if err := c.SetReadDeadline(time.Now().Add(bodyTime)); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil { // then the deadline stays, for net/http reads on
		return nil, err
	}
	return body, c.SetReadDeadline(time.Time{})
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	handle(mux, api.GetID, s.identity)
	handle(mux, api.GetStatus, s.status)
	handle(mux, api.ListPeers, func(context.Context, api.None) (api.Peers, error) { return s.peers("village.peer.list/v1"), nil })
	handle(mux, api.ConnectPeer, s.addPeer)
	handle(mux, api.RemovePeer, s.removePeer)
	handle(mux, api.ListMembers, func(context.Context, api.None) (api.Members, error) { return s.members("village.member.list/v1"), nil })
	handle(mux, api.AdmitMember, s.addMember)
	handle(mux, api.RemoveMember, s.removeMember)
	handle(mux, api.ListDatasets, s.listDatasets)
	handle(mux, api.PublishDataset, s.Datasets.AddFile)
	handle(mux, api.TellAdding, func(context.Context, api.None) (api.Progress, error) { return s.Datasets.Adding(), nil })
	handle(mux, api.ListNames, func(context.Context, api.None) (api.Names, error) {
		return api.Names{Nodes: slices.Collect(maps.Values(s.Datasets.Names()))}, nil
	})
	handle(mux, api.MeasureDrift, func(_ context.Context, d api.Drift) (api.Drifted, error) { return s.Datasets.Drift(d) })
	handle(mux, api.ExportDataset, func(_ context.Context, c record.CID) (api.Rows, error) { return s.Datasets.Rows(c) })
	handle(mux, api.ShowDataset, func(_ context.Context, c record.CID) (api.ShownDataset, error) { return s.Datasets.Show(c) })
	handle(mux, api.ListTasks, s.listTasks)
	handle(mux, api.ProposeTask, s.Tasks.Draft)
	handle(mux, api.ContinueTask, s.Tasks.Continue)
	handle(mux, api.ShowTask, func(ctx context.Context, c record.CID) (api.ShownTask, error) {
		return s.Tasks.Show(ctx, c, "village.task.show/v1")
	})
	mux.HandleFunc("GET "+api.PathWatch, s.watchTask)
	handle(mux, api.JoinTask, s.Tasks.Join)
	handle(mux, api.LeaveTask, s.Tasks.Leave)
	handle(mux, api.ListModels, s.listModels)
	handle(mux, api.ShowModel, s.showModel)
	handle(mux, api.ReportModel, s.report)
	handle(mux, api.VerifyModel, s.verifyModel)
	handle(mux, api.ProveModel, s.evidence)
	mux.HandleFunc("GET "+api.PathBytes, s.modelBytes)
	handle(mux, api.PredictRows, s.predict)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, known := mux.Handler(r); known != "" {
			mux.ServeHTTP(w, r)
			return
		}
		no := refusal{ResponseWriter: w}
		mux.ServeHTTP(&no, r) // tells which methods there are
		answer(w, no.status, api.Fail(api.CodeUsage, "village --help", "the API has no %s %s", r.Method, r.URL.Path))
	})
}

// refusal keeps the status and the header of an answer alone.
type refusal struct {
	http.ResponseWriter
	status int
}

func (r *refusal) WriteHeader(status int)      { r.status = status }
func (r *refusal) Write(b []byte) (int, error) { return len(b), nil }

// handle has f answer what a route asks.
func handle[Q, A any](mux *http.ServeMux, route api.Route[Q, A], f func(context.Context, Q) (A, error)) {
	mux.HandleFunc(route.Pattern(), func(w http.ResponseWriter, r *http.Request) {
		var answer A
		q, err := route.Read(r)
		if err == nil {
			answer, err = f(r.Context(), q)
		}
		if err != nil {
			fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(answer)
	})
}

func fail(w http.ResponseWriter, err error) {
	e := api.AsError(err)
	if errors.Is(err, storage.ErrFull) {
		e = api.Fail(e.Code, "village status, which shows how much is free", "%v", err)
	}
	answer(w, e.HTTPStatus(), e)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

// watchTask writes a line for every change of a task until it is done.
func (s *Server) watchTask(w http.ResponseWriter, r *http.Request) {
	cid, err := record.ParseCID(r.PathValue("id"))
	if err != nil {
		fail(w, api.Fail(api.CodeUsage, "village task list", "%v", err))
		return
	}
	var last api.ShownTask
	lines := json.NewEncoder(w)
	for first := true; ; first = false {
		changed := s.Tasks.Changed()
		t, err := s.Tasks.Show(r.Context(), cid, "village.task.watch/v1")
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
		case <-s.quit.Done():
			lines.Encode(api.Fail(api.CodeFailed, "village daemon", "the daemon is stopping"))
			return
		}
	}
}
