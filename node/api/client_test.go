package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
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

// Every method asks what its path constant says.
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
		{"GET /v1/id", "", func() error { _, err := c.ID(ctx); return err }},
		{"GET /v1/status", "", func() error { _, err := c.Status(ctx); return err }},
		{"GET /v1/peers", "", func() error { _, err := c.Peers(ctx); return err }},
		{"POST /v1/peers", `{"address":"/a"}`, func() error { _, err := c.AddPeer(ctx, "/a"); return err }},
		{"GET /v1/members", "", func() error { _, err := c.Members(ctx); return err }},
		{"POST /v1/members", `{"peer_id":"` + id + `"}`, func() error { _, err := c.AddMember(ctx, someNode); return err }},
		{"DELETE /v1/members/" + id, "", func() error { _, err := c.RemoveMember(ctx, someNode); return err }},
		{"GET /v1/datasets", "", func() error { _, err := c.Datasets(ctx, false, ""); return err }},
		{"GET /v1/datasets?domain=a%26b&mine=1", "", func() error { _, err := c.Datasets(ctx, true, "a&b"); return err }},
		{"POST /v1/datasets", `"path":"/f"`, func() error { _, err := c.AddDataset(ctx, AddDataset{Path: "/f"}); return err }},
		{"GET /v1/datasets/" + cid, "", func() error { _, err := c.Dataset(ctx, someCID); return err }},
		{"GET /v1/tasks", "", func() error { _, err := c.Tasks(ctx); return err }},
		{"POST /v1/tasks", `"name":"n"`, func() error { _, err := c.Propose(ctx, Propose{Name: "n"}); return err }},
		{"GET /v1/tasks/" + cid, "", func() error { _, err := c.Task(ctx, someCID); return err }},
		{"POST /v1/tasks/" + cid + "/join", `"dataset":""`, func() error { _, err := c.Join(ctx, Join{Task: someCID}); return err }},
		{"GET /v1/models", "", func() error { _, err := c.Models(ctx); return err }},
		{"GET /v1/models/" + cid, "", func() error { _, err := c.Model(ctx, someCID); return err }},
		{"GET /v1/models/" + cid + "/report", "", func() error { _, err := c.Report(ctx, someCID); return err }},
		{"POST /v1/predict", `"path":"/f"`, func() error { _, err := c.Predict(ctx, Predict{Model: someCID, Path: "/f"}); return err }},
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
		_, err := c.Status(ctx)
		var e *Error
		if !errors.As(err, &e) || e.Code != k.want.Code || !strings.Contains(e.Message, k.want.Message) || k.want.Next != "" && e.Next != k.want.Next {
			t.Errorf("status %d, %.40s: got %#v", k.status, k.body, err)
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := c.Status(cancelled); AsError(err).Code != CodeInterrupted {
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
