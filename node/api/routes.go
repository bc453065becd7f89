package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"village/protocol/record"
)

// Route is a question that the daemon answers, for its client and its server
// alike. The type Q decides how the question travels: [None] not at all, a CID or
// a node's ID in the path, [url.Values] as the query, all else as a JSON body.
type Route[Q, A any] struct{ method, path string }

// None is the question of a route that asks nothing more than it does.
type None struct{}

// What can be asked for an answer in one piece of JSON.
var (
	GetID          = Route[None, Identity]{"GET", "/v1/id"}
	GetStatus      = Route[None, Status]{"GET", "/v1/status"}
	ListPeers      = Route[None, Peers]{"GET", "/v1/peers"}
	ConnectPeer    = Route[AddPeer, Peers]{"POST", "/v1/peers"}
	RemovePeer     = Route[record.NodeID, Peers]{"DELETE", "/v1/peers/{id}"}
	ListMembers    = Route[None, Members]{"GET", "/v1/members"}
	AdmitMember    = Route[AddMember, Members]{"POST", "/v1/members"}
	RemoveMember   = Route[record.NodeID, Members]{"DELETE", "/v1/members/{id}"}
	ListDatasets   = Route[url.Values, Datasets]{"GET", "/v1/datasets"} // mine=1, domain=D
	PublishDataset = Route[AddDataset, AddedDataset]{"POST", "/v1/datasets"}
	TellAdding     = Route[None, Progress]{"GET", "/v1/datasets/adding"}
	ListNames      = Route[None, Names]{"GET", "/v1/names"}
	MeasureDrift   = Route[Drift, Drifted]{"POST", "/v1/datasets/drift"}
	ShowDataset    = Route[record.CID, ShownDataset]{"GET", "/v1/datasets/{id}"}
	ExportDataset  = Route[record.CID, Rows]{"GET", "/v1/datasets/{id}/rows"}
	ListTasks      = Route[None, Tasks]{"GET", "/v1/tasks"}
	ProposeTask    = Route[Propose, Proposed]{"POST", "/v1/tasks"}
	ContinueTask   = Route[Continue, Proposed]{"POST", "/v1/tasks/continue"}
	JoinTask       = Route[Join, Joined]{"POST", "/v1/tasks/join"}
	ShowTask       = Route[record.CID, ShownTask]{"GET", "/v1/tasks/{id}"}
	LeaveTask      = Route[record.CID, Left]{"POST", "/v1/tasks/{id}/leave"}
	ListModels     = Route[None, Models]{"GET", "/v1/models"}
	ShowModel      = Route[record.CID, ShownModel]{"GET", "/v1/models/{id}"}
	ReportModel    = Route[record.CID, Report]{"GET", "/v1/models/{id}/report"}
	VerifyModel    = Route[record.CID, Verified]{"GET", "/v1/models/{id}/verify"}
	ProveModel     = Route[record.CID, Evidence]{"GET", "/v1/models/{id}/evidence"}
	PredictRows    = Route[Predict, Predictions]{"POST", "/v1/predict"}
)

// The paths of what is answered otherwise.
const (
	PathWatch = "/v1/tasks/{id}/watch"  // GET, a ShownTask a line until it is done
	PathBytes = "/v1/models/{id}/bytes" // GET ?form=F, the artifact itself
)

// Pattern is the route's, for [http.ServeMux].
func (r Route[Q, A]) Pattern() string { return r.method + " " + r.path }

// Ask puts a question to the daemon.
func (r Route[Q, A]) Ask(ctx context.Context, c *Client, q Q) (answer A, err error) {
	path, send := r.path, any(q)
	switch q := send.(type) {
	case None:
		send = nil
	case record.CID, record.NodeID:
		path, send = at(path, q), nil
	case url.Values:
		path, send = (&url.URL{Path: path, RawQuery: q.Encode()}).String(), nil
	}
	body, err := c.open(ctx, r.method, path, send)
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

// Read finds in a request the question that Ask has put there.
func (r Route[Q, A]) Read(req *http.Request) (q Q, err error) {
	next := "village --help"
	switch q := any(&q).(type) {
	case *None:
	case *record.CID:
		next = "village task list"
		*q, err = record.ParseCID(req.PathValue("id"))
	case *record.NodeID:
		next = "village " + strings.TrimSuffix(strings.Split(r.path, "/")[2], "s") + " list" // of peers or members
		*q, err = record.ParseNodeID(req.PathValue("id"))
	case *url.Values:
		*q = req.URL.Query()
	default:
		d := json.NewDecoder(req.Body)
		d.DisallowUnknownFields()
		if err = d.Decode(q); err != nil {
			err = fmt.Errorf("the request is not understood: %w", err)
		}
	}
	if err != nil {
		return q, Fail(CodeUsage, next, "%v", err)
	}
	return q, nil
}

// at is the path of the thing that id names.
func at(path string, id any) string { return strings.Replace(path, "{id}", fmt.Sprint(id), 1) }
