package server

import (
	"bufio"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"village/node/api"
)

func serve(t *testing.T) *httptest.Server {
	t.Helper()
	h := httptest.NewServer(New(Config{}).http.Handler)
	t.Cleanup(h.Close)
	return h
}

// What is not there is told from what there is under another method, and both from a
// question that is wrong, as HTTP does it.
func TestStatuses(t *testing.T) {
	h := serve(t)
	for _, c := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/v1/nothing", http.StatusNotFound, ""},
		{"GET", "/", http.StatusNotFound, ""},
		{"DELETE", "/v1/tasks", http.StatusMethodNotAllowed, "GET, HEAD, POST"},
		{"POST", "/v1/status", http.StatusMethodNotAllowed, "GET, HEAD"},
		{"POST", "/v1/tasks", http.StatusBadRequest, ""},
		{"GET", "/v1/tasks/nonsense", http.StatusBadRequest, ""},
	} {
		r, err := http.NewRequest(c.method, h.URL+c.path, strings.NewReader("nonsense"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(api.Header, api.HeaderValue)
		answer, err := h.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		var e api.Error
		if err := json.NewDecoder(answer.Body).Decode(&e); err != nil || e.Schema != api.SchemaError || e.Code != api.CodeUsage || e.Next == "" {
			t.Errorf("%s %s: %+v, %v", c.method, c.path, e, err)
		}
		answer.Body.Close()
		if answer.StatusCode != c.status || answer.Header.Get("Allow") != c.allow || answer.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %d, %v", c.method, c.path, answer.StatusCode, answer.Header)
		}
	}
}

// A body that does not come ends with an error, not never.
func TestBodiesHaveToCome(t *testing.T) {
	defer func(before time.Duration) { bodyTime = before }(bodyTime)
	bodyTime = time.Millisecond
	c, err := net.Dial("tcp", serve(t).Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("POST /v1/tasks HTTP/1.1\r\nHost: village\r\n" + api.Header + ": " + api.HeaderValue + "\r\nContent-Length: 10\r\n\r\nhalf")); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var e api.Error
	if err := json.NewDecoder(answer.Body).Decode(&e); err != nil || answer.StatusCode != http.StatusBadRequest || !strings.Contains(e.Message, "timeout") {
		t.Errorf("%d, %+v, %v", answer.StatusCode, e, err)
	}
}
