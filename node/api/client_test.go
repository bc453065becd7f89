package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"village/protocol/record"
)

// serve answers on the socket of a new home.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	home, err := os.MkdirTemp("", "api") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	l, err := net.Listen("unix", filepath.Join(home, "s"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, AddressFile), []byte(l.Addr().String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { s.Serve(l); close(done) }()
	t.Cleanup(func() { s.Close(); <-done })
	c, err := Dial(home)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var (
	someCID  = record.CIDOf([]byte("x"))
	someNode = record.NodeID{1}
)

// Every route asks what the table says.
func TestRequests(t *testing.T) {
	var got string
	var body bytes.Buffer
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Method + " " + r.URL.RequestURI()
		if r.Header.Get(Header) != HeaderValue || r.Header.Get("Origin") != "" {
			t.Errorf("%s: headers %v", got, r.Header)
		}
		body.Reset()
		body.ReadFrom(r.Body)
		w.Write([]byte("{}"))
	})
	ctx := context.Background()
	cid, id := someCID.String(), someNode.String()
	for _, k := range []struct {
		want, body string
		call       func() error
	}{
		{"GET /v1/id", "", func() error { _, err := GetID.Ask(ctx, c, None{}); return err }},
		{"GET /v1/status", "", func() error { _, err := GetStatus.Ask(ctx, c, None{}); return err }},
		{"GET /v1/peers", "", func() error { _, err := ListPeers.Ask(ctx, c, None{}); return err }},
		{"POST /v1/peers", `{"address":"/a"}`, func() error { _, err := ConnectPeer.Ask(ctx, c, AddPeer{"/a"}); return err }},
		{"GET /v1/members", "", func() error { _, err := ListMembers.Ask(ctx, c, None{}); return err }},
		{"POST /v1/members", `{"peer_id":"` + id + `"}`, func() error { _, err := AdmitMember.Ask(ctx, c, AddMember{someNode}); return err }},
		{"DELETE /v1/members/" + id, "", func() error { _, err := RemoveMember.Ask(ctx, c, someNode); return err }},
		{"GET /v1/datasets", "", func() error { _, err := ListDatasets.Ask(ctx, c, nil); return err }},
		{"GET /v1/datasets?domain=a%26b&mine=1", "", func() error {
			_, err := ListDatasets.Ask(ctx, c, url.Values{"mine": {"1"}, "domain": {"a&b"}})
			return err
		}},
		{"POST /v1/datasets", `"path":"/f"`, func() error { _, err := PublishDataset.Ask(ctx, c, AddDataset{Path: "/f"}); return err }},
		{"GET /v1/datasets/" + cid, "", func() error { _, err := ShowDataset.Ask(ctx, c, someCID); return err }},
		{"GET /v1/tasks", "", func() error { _, err := ListTasks.Ask(ctx, c, None{}); return err }},
		{"POST /v1/tasks", `"name":"n"`, func() error { _, err := ProposeTask.Ask(ctx, c, Propose{Name: "n"}); return err }},
		{"GET /v1/tasks/" + cid, "", func() error { _, err := ShowTask.Ask(ctx, c, someCID); return err }},
		{"POST /v1/tasks/join", `{"task":"` + cid + `","dataset":""}`, func() error { _, err := JoinTask.Ask(ctx, c, Join{Task: someCID}); return err }},
		{"POST /v1/tasks/" + cid + "/leave", "", func() error { _, err := LeaveTask.Ask(ctx, c, someCID); return err }},
		{"GET /v1/models", "", func() error { _, err := ListModels.Ask(ctx, c, None{}); return err }},
		{"GET /v1/models/" + cid, "", func() error { _, err := ShowModel.Ask(ctx, c, someCID); return err }},
		{"GET /v1/models/" + cid + "/report", "", func() error { _, err := ReportModel.Ask(ctx, c, someCID); return err }},
		{"POST /v1/predict", `"path":"/f"`, func() error { _, err := PredictRows.Ask(ctx, c, Predict{Model: someCID, Path: "/f"}); return err }},
	} {
		if err := k.call(); err != nil || got != k.want || !strings.Contains(body.String(), k.body) {
			t.Errorf("want %s %s, got %s %s %v", k.want, k.body, got, body.String(), err)
		}
	}
	var b bytes.Buffer
	if n, err := c.ModelBytes(ctx, someCID, FormSafetensors, &b); err != nil || n != 2 || b.String() != "{}" || got != "GET /v1/models/"+cid+"/bytes?form=safetensors" {
		t.Errorf("%s: %d bytes, %v", got, n, err)
	}
}

// arrives tells whether a server that goes by a route's pattern reads the question
// that was asked.
func arrives[Q, A any](t *testing.T, r Route[Q, A], want Q) {
	t.Helper()
	var got Q
	mux := http.NewServeMux()
	mux.HandleFunc(r.Pattern(), func(w http.ResponseWriter, req *http.Request) {
		var err error
		if got, err = r.Read(req); err != nil {
			t.Error(err)
		}
		w.Write([]byte("{}"))
	})
	if _, err := r.Ask(context.Background(), serve(t, mux.ServeHTTP), want); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%s: asked %+v, read %+v, %v", r.Pattern(), want, got, err)
	}
}

func TestQuestionsArrive(t *testing.T) {
	arrives(t, GetStatus, None{})
	arrives(t, RemovePeer, someNode)
	arrives(t, LeaveTask, someCID)
	arrives(t, ListDatasets, url.Values{"mine": {"1"}, "domain": {"a&b=c"}})
	arrives(t, JoinTask, Join{Task: someCID, Dataset: someCID})
	arrives(t, AdmitMember, AddMember{someNode})
}

// refused tells whether a question is refused with the words and the next command.
func refused[Q, A any](t *testing.T, r Route[Q, A], id, body, words, next string) {
	t.Helper()
	req := httptest.NewRequest("POST", "/", strings.NewReader(body))
	req.SetPathValue("id", id)
	_, err := r.Read(req)
	if e := AsError(err); err == nil || e.Code != CodeUsage || e.Next != next || !strings.Contains(e.Message, words) {
		t.Errorf("%s: %#v", r.Pattern(), err)
	}
}

func TestBadQuestions(t *testing.T) {
	refused(t, ShowModel, "x", "", "", "village task list")
	refused(t, RemovePeer, "x", "", "", "village peer list")
	refused(t, RemoveMember, "x", "", "", "village member list")
	refused(t, JoinTask, "", `{"task":1}`, "the request is not understood: ", "village --help")
	refused(t, ConnectPeer, "", `{"colour":"red"}`, `the request is not understood: json: unknown field "colour"`, "village --help")
}

func TestErrorAnswers(t *testing.T) {
	var status int
	var body string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		w.Write([]byte(body))
	})
	ctx := context.Background()
	denied := Fail(CodeDenied, "village member add X", "no %d", 1)
	b, err := json.Marshal(denied)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []struct {
		status int
		body   string
		want   Error
	}{
		{denied.HTTPStatus(), string(b), *denied},
		{http.StatusNotFound, "404 page not found", Error{Code: CodeFailed, Message: "the daemon answered 404"}},
		{http.StatusInternalServerError, `{"code":999,"schema":"` + SchemaError + `"}`, Error{Code: CodeFailed, Message: "the daemon answered 500"}},
		{http.StatusInternalServerError, `{"code":0}`, Error{Code: CodeFailed, Message: "the daemon answered 500"}},
		{http.StatusInternalServerError, strings.Repeat("x", maxError+1), Error{Code: CodeFailed, Message: "the daemon answered 500"}},
		{http.StatusOK, "not JSON", Error{Code: CodeFailed, Message: "not understood"}},
	} {
		status, body = k.status, k.body
		_, err := GetStatus.Ask(ctx, c, None{})
		var e *Error
		if !errors.As(err, &e) || e.Code != k.want.Code || !strings.Contains(e.Message, k.want.Message) || k.want.Next != "" && e.Next != k.want.Next {
			t.Errorf("status %d, %.40s: got %#v", k.status, k.body, err)
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := GetStatus.Ask(cancelled, c, None{}); AsError(err).Code != CodeInterrupted {
		t.Errorf("cancelled: %v", err)
	}
}

func TestWatchTask(t *testing.T) {
	line := func(stage string) string {
		b, err := json.Marshal(ShownTask{Schema: "village.task.watch/v1", TaskSummary: TaskSummary{Stage: stage}})
		if err != nil {
			t.Fatal(err)
		}
		return string(b) + "\n"
	}
	failure, err := json.Marshal(Fail(CodeFailed, "x", "broken"))
	if err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	for _, k := range []struct {
		body, stages, err string
		stop              error
	}{
		{line(StageTraining) + line(StageDone), "training done ", "<nil>", nil},
		{line(StageTraining), "training ", "the daemon stopped before the task was done", nil},
		{line(StageTraining) + string(failure), "training ", "broken", nil},
		{line(StageTraining) + line(StageDone), "training ", "enough", enough},
		{"nonsense\n", "", "the daemon's answer is not understood: invalid character 'o' in literal null (expecting 'u')", nil},
	} {
		c := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(k.body)) })
		stages := ""
		err := c.WatchTask(context.Background(), someCID, func(t ShownTask) error {
			stages += t.Stage + " "
			return k.stop
		})
		if stages != k.stages || fmt.Sprint(err) != k.err {
			t.Errorf("got %q, %v; want %q, %s", stages, err, k.stages, k.err)
		}
	}
}

func TestDialWithoutDaemon(t *testing.T) {
	home := t.TempDir()
	for _, file := range []string{"", filepath.Join(home, "gone"), strings.Repeat("long", 100)} {
		if file != "" {
			if err := os.WriteFile(filepath.Join(home, AddressFile), []byte(file), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, err := Dial(home)
		var e *Error
		if !errors.As(err, &e) || e.Code != CodeNotRunning || e.Next != "village daemon --home "+Quote(home) {
			t.Errorf("%q: %#v", file, err)
		}
	}
}

// The JSON of embedded structs must not hide one another's keys.
func TestDatasetJSON(t *testing.T) {
	b, err := json.Marshal(ShownDataset{Schema: "s", Dataset: Dataset{CID: someCID, PeerID: someNode, Features: []string{"age"}}})
	if err != nil {
		t.Fatal(err)
	}
	var keys map[string]any
	if err := json.Unmarshal(b, &keys); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"schema", "cid", "peer_id", "mine", "features", "name", "nation", "rows", "target", "columns"} {
		if _, ok := keys[k]; !ok {
			t.Errorf("no %q in %s", k, b)
		}
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{"/a/b": "/a/b", "a b": "'a b'", "it's": `'it'\''s'`, "": "''", "$(x)": "'$(x)'"} {
		if got := Quote(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}
