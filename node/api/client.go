package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"village/protocol/record"
)

// AddressFile is the file in a home that names the running daemon's socket.
const AddressFile = "api"

// Every request carries this header, which no web page can set on its own; the
// server refuses requests without it, and those with an Origin header.
const (
	Header      = "X-Village"
	HeaderValue = "1"
)

// What the client reads at most, in bytes.
const (
	maxAnswer   = 256 << 20
	maxError    = 1 << 20
	maxLine     = 16 << 20
	maxArtifact = 1 << 30
)

// AddPeer asks to connect to a node now and after every start.
type AddPeer struct {
	Address string `json:"address"` // multiaddr ending in /p2p/PEER-ID
}

// AddMember asks to put a node on the member list.
type AddMember struct {
	PeerID record.NodeID `json:"peer_id"`
}

// Client talks to a running daemon.
type Client struct {
	http *http.Client
	home string
}

// Dial finds the daemon of a home and connects to it. Where none runs it fails
// with code 12.
func Dial(home string) (*Client, error) {
	home, err := filepath.Abs(home)
	if err != nil {
		return nil, err
	}
	c := &Client{home: home}
	f, err := os.Open(filepath.Join(home, AddressFile))
	if err != nil {
		return nil, c.notRunning()
	}
	defer f.Close()
	address, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return nil, c.notRunning()
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", strings.TrimSpace(string(address)))
		if err != nil && ctx.Err() == nil {
			return nil, c.notRunning()
		}
		return conn, err
	}
	// A daemon that was killed leaves its address file behind.
	conn, err := dial(context.Background(), "", "")
	if err != nil {
		return nil, err
	}
	conn.Close()
	c.http = &http.Client{Transport: &http.Transport{DialContext: dial, DisableCompression: true}}
	return c, nil
}

func (c *Client) notRunning() error {
	return Fail(CodeNotRunning, c.command("daemon"), "the daemon of %s is not running", c.home)
}

// command is a village command for this client's home.
func (c *Client) command(s string) string {
	return "village " + s + " --home " + Quote(c.home)
}

// WatchTask calls report with a task as it is now and after every change until
// it is done, report fails, or ctx ends.
func (c *Client) WatchTask(ctx context.Context, cid record.CID, report func(ShownTask) error) error {
	body, err := c.open(ctx, http.MethodGet, at(PathWatch, cid), nil)
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, 1<<16), maxLine)
	done := false
	for lines.Scan() {
		var t ShownTask
		if err := json.Unmarshal(lines.Bytes(), &t); err != nil {
			return Fail(CodeFailed, "", "the daemon's answer is not understood: %v", err)
		}
		if t.Schema == SchemaError {
			e := new(Error)
			if err := json.Unmarshal(lines.Bytes(), e); err != nil {
				return err
			}
			return e
		}
		if err := report(t); err != nil {
			return err
		}
		done = t.Stage == StageDone
	}
	switch {
	case done:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(lines.Err(), bufio.ErrTooLong):
		return Fail(CodeFailed, "", "the daemon's answer has a line of more than %d bytes", maxLine)
	default:
		return Fail(CodeFailed, c.command("task watch "+cid.String()), "the daemon stopped before the task was done")
	}
}

// ModelBytes writes a model's artifact to w and returns its size in bytes.
func (c *Client) ModelBytes(ctx context.Context, cid record.CID, form string, w io.Writer) (int64, error) {
	body, err := c.open(ctx, http.MethodGet, at(PathBytes, cid)+"?form="+form, nil)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	n, err := io.Copy(w, io.LimitReader(body, maxArtifact+1))
	if err == nil && n > maxArtifact {
		err = Fail(CodeFailed, "", "the model is larger than %d bytes", maxArtifact)
	}
	return n, err
}

// open sends a request and returns the body of a good answer, which the caller
// closes; any other answer becomes an [Error].
func (c *Client) open(ctx context.Context, method, path string, question any) (io.ReadCloser, error) {
	var send io.Reader
	if question != nil {
		b, err := json.Marshal(question)
		if err != nil {
			return nil, err
		}
		send = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://village"+path, send)
	if err != nil {
		return nil, err
	}
	req.Header.Set(Header, HeaderValue)
	if send != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		var e *Error
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.As(err, &e):
			return nil, e
		default:
			return nil, Fail(CodeFailed, c.command("status"), "the daemon did not answer: %v", errors.Unwrap(err))
		}
	}
	if res.StatusCode/100 == 2 {
		return res.Body, nil
	}
	defer res.Body.Close()
	b, err := read(res.Body, maxError)
	e := new(Error)
	if err != nil || json.Unmarshal(b, e) != nil || e.Schema != SchemaError || e.Code <= 0 || e.Code > 255 {
		return nil, Fail(CodeFailed, c.command("status"), "the daemon answered %s", res.Status)
	}
	return nil, e
}

func read(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("the daemon's answer broke off: %w", err)
	}
	if int64(len(b)) > limit {
		return nil, Fail(CodeFailed, "", "the daemon's answer is larger than %d bytes", limit)
	}
	return b, nil
}
