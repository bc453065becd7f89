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
	"net/url"
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

// The paths of the API, in the form of patterns for [http.ServeMux].
const (
	PathID            = "/v1/id"                    // GET
	PathStatus        = "/v1/status"                // GET
	PathPeers         = "/v1/peers"                 // GET; POST AddPeer
	PathMembers       = "/v1/members"               // GET; POST AddMember
	PathPeer          = "/v1/peers/{id}"            // DELETE
	PathMember        = "/v1/members/{id}"          // DELETE
	PathDatasets      = "/v1/datasets"              // GET ?mine=1&domain=D; POST AddDataset
	PathDrift         = "/v1/datasets/drift"        // POST Drift
	PathDatasetRows   = "/v1/datasets/{cid}/rows"   // GET
	PathDataset       = "/v1/datasets/{cid}"        // GET
	PathTasks         = "/v1/tasks"                 // GET; POST Propose
	PathTaskContinue  = "/v1/tasks/continue"        // POST Continue
	PathTask          = "/v1/tasks/{cid}"           // GET
	PathTaskWatch     = "/v1/tasks/{cid}/watch"     // GET, a ShownTask a line until it is done
	PathTaskJoin      = "/v1/tasks/{cid}/join"      // POST Join
	PathTaskLeave     = "/v1/tasks/{cid}/leave"     // POST
	PathModels        = "/v1/models"                // GET
	PathModel         = "/v1/models/{cid}"          // GET
	PathModelReport   = "/v1/models/{cid}/report"   // GET
	PathModelBytes    = "/v1/models/{cid}/bytes"    // GET, the artifact itself
	PathModelVerify   = "/v1/models/{cid}/verify"   // GET
	PathModelEvidence = "/v1/models/{cid}/evidence" // GET
	PathPredict       = "/v1/predict"               // POST Predict
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

// ID tells who the node is and where it listens.
func (c *Client) ID(ctx context.Context) (Identity, error) {
	return get[Identity](ctx, c, PathID)
}

// Status tells how the node is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, PathStatus)
}

// Peers lists the nodes that this one is, or wants to be, connected to.
func (c *Client) Peers(ctx context.Context) (Peers, error) {
	return get[Peers](ctx, c, PathPeers)
}

// AddPeer connects to a node now and after every start.
func (c *Client) AddPeer(ctx context.Context, address string) (Peers, error) {
	return call[Peers](ctx, c, http.MethodPost, PathPeers, AddPeer{address})
}

// RemovePeer forgets the addresses of a node, and hangs up on it.
func (c *Client) RemovePeer(ctx context.Context, id record.NodeID) (Peers, error) {
	return call[Peers](ctx, c, http.MethodDelete, fill(PathPeer, id.String()), nil)
}

// Members lists who may be part of the federation.
func (c *Client) Members(ctx context.Context) (Members, error) {
	return get[Members](ctx, c, PathMembers)
}

// AddMember admits a node. The first one closes the federation.
func (c *Client) AddMember(ctx context.Context, id record.NodeID) (Members, error) {
	return call[Members](ctx, c, http.MethodPost, PathMembers, AddMember{id})
}

// RemoveMember takes a node off the list and cuts its connections.
func (c *Client) RemoveMember(ctx context.Context, id record.NodeID) (Members, error) {
	return call[Members](ctx, c, http.MethodDelete, fill(PathMember, id.String()), nil)
}

// Datasets lists manifests: all, or only this node's own, or only of a domain.
func (c *Client) Datasets(ctx context.Context, mine bool, domain string) (Datasets, error) {
	q := url.Values{}
	if mine {
		q.Set("mine", "1")
	}
	if domain != "" {
		q.Set("domain", domain)
	}
	path := PathDatasets
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return get[Datasets](ctx, c, path)
}

// AddDataset takes the rows of a file in and publishes their manifest.
func (c *Client) AddDataset(ctx context.Context, a AddDataset) (AddedDataset, error) {
	return call[AddedDataset](ctx, c, http.MethodPost, PathDatasets, a)
}

// Dataset returns a manifest as it was published.
func (c *Client) Dataset(ctx context.Context, cid record.CID) (ShownDataset, error) {
	return get[ShownDataset](ctx, c, fill(PathDataset, cid.String()))
}

// Tasks lists the tasks of the federation.
func (c *Client) Tasks(ctx context.Context) (Tasks, error) {
	return get[Tasks](ctx, c, PathTasks)
}

// Propose publishes a task.
func (c *Client) Propose(ctx context.Context, p Propose) (Proposed, error) {
	return call[Proposed](ctx, c, http.MethodPost, PathTasks, p)
}

// Task returns a task and how far each of its nodes is.
func (c *Client) Task(ctx context.Context, cid record.CID) (ShownTask, error) {
	return get[ShownTask](ctx, c, fill(PathTask, cid.String()))
}

// WatchTask calls report with a task as it is now and after every change until
// it is done, report fails, or ctx ends.
func (c *Client) WatchTask(ctx context.Context, cid record.CID, report func(ShownTask) error) error {
	body, err := c.open(ctx, http.MethodGet, fill(PathTaskWatch, cid.String()), nil)
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

// DatasetRows returns the rows of an own dataset.
func (c *Client) DatasetRows(ctx context.Context, cid record.CID) (Rows, error) {
	return get[Rows](ctx, c, fill(PathDatasetRows, cid.String()))
}

// Drift tells how far a file's rows are from what a manifest says.
func (c *Client) Drift(ctx context.Context, q Drift) (Drifted, error) {
	return call[Drifted](ctx, c, http.MethodPost, PathDrift, q)
}

// Continue publishes a task that goes on from a model.
func (c *Client) Continue(ctx context.Context, q Continue) (Proposed, error) {
	return call[Proposed](ctx, c, http.MethodPost, PathTaskContinue, q)
}

// Join enrols this node in a task.
func (c *Client) Join(ctx context.Context, j Join) (Joined, error) {
	return call[Joined](ctx, c, http.MethodPost, fill(PathTaskJoin, j.Task.String()), j)
}

// Leave ends this node's part in a task.
func (c *Client) Leave(ctx context.Context, task record.CID) (Left, error) {
	return call[Left](ctx, c, http.MethodPost, fill(PathTaskLeave, task.String()), nil)
}

// Models lists the sealed models that this node holds.
func (c *Client) Models(ctx context.Context) (Models, error) {
	return get[Models](ctx, c, PathModels)
}

// Model returns a model's parameters and what they belong to.
func (c *Client) Model(ctx context.Context, cid record.CID) (ShownModel, error) {
	return get[ShownModel](ctx, c, fill(PathModel, cid.String()))
}

// Report returns how well a model does.
func (c *Client) Report(ctx context.Context, cid record.CID) (Report, error) {
	return get[Report](ctx, c, fill(PathModelReport, cid.String()))
}

// ModelBytes writes a model's artifact to w and returns its size in bytes.
func (c *Client) ModelBytes(ctx context.Context, cid record.CID, form string, w io.Writer) (int64, error) {
	body, err := c.open(ctx, http.MethodGet, fill(PathModelBytes, cid.String())+"?form="+form, nil)
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

// Verify has a model checked against its certificate, and recomputed.
func (c *Client) Verify(ctx context.Context, cid record.CID) (Verified, error) {
	return get[Verified](ctx, c, fill(PathModelVerify, cid.String()))
}

// Evidence returns what a model is checked from.
func (c *Client) Evidence(ctx context.Context, cid record.CID) (Evidence, error) {
	return get[Evidence](ctx, c, fill(PathModelEvidence, cid.String()))
}

// Predict applies a model to the rows of a file.
func (c *Client) Predict(ctx context.Context, p Predict) (Predictions, error) {
	return call[Predictions](ctx, c, http.MethodPost, PathPredict, p)
}

// fill puts a value in the place of a pattern's only variable.
func fill(pattern, value string) string {
	before, rest, _ := strings.Cut(pattern, "{")
	_, after, _ := strings.Cut(rest, "}")
	return before + url.PathEscape(value) + after
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	return call[T](ctx, c, http.MethodGet, path, nil)
}

// call sends question, where there is one, and reads an answer of type T.
func call[T any](ctx context.Context, c *Client, method, path string, question any) (T, error) {
	var answer T
	body, err := c.open(ctx, method, path, question)
	if err != nil {
		return answer, err
	}
	defer body.Close()
	b, err := read(body, maxAnswer)
	if err != nil {
		return answer, err
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return answer, Fail(CodeFailed, "", "the daemon's answer is not understood: %v", err)
	}
	return answer, nil
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
