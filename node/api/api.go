// Package api is the daemon's local HTTP API: the types of its JSON, and a Go
// client of it. The command line prints these types as they are with --json.
package api

import (
	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/record"
	"village/protocol/task"
)

// Exit codes of the command line, also carried by errors ("code").
const (
	CodeFailed         = 1
	CodeUsage          = 2
	CodeNotInitialised = 10
	CodeHomeInUse      = 11
	CodeNotRunning     = 12
	CodeDenied         = 13
	CodeInterrupted    = 130
)

// Error is an error that names the next command to try.
type Error struct {
	Schema  string `json:"schema"` // village.error/v1
	Message string `json:"error"`
	Next    string `json:"next"`
	Code    int    `json:"code"`
}

func (e *Error) Error() string { return e.Message }

// Version is the answer of village version (made without a daemon).
type Version struct {
	Schema  string `json:"schema"`
	Version string `json:"version"`
	Go      string `json:"go"`
	Commit  string `json:"commit"`
}

// Ready is what village daemon says when it serves.
type Ready struct {
	Schema  string `json:"schema"`
	PeerID  string `json:"peer_id"`
	Address string `json:"address"` // multiaddr ending in /p2p/<peer-id>
}

// Init is the answer of village init (made without a daemon).
type Init struct {
	Schema     string        `json:"schema"`
	Home       string        `json:"home"`
	PeerID     record.NodeID `json:"peer_id"`
	Nation     string        `json:"nation"`
	Name       string        `json:"name"`
	Federation string        `json:"federation"`
	Listen     []string      `json:"listen"`
}

// Identity is the answer of village id. Addresses is empty without a daemon.
type Identity struct {
	Schema     string        `json:"schema"`
	PeerID     record.NodeID `json:"peer_id"`
	Nation     string        `json:"nation"`
	Name       string        `json:"name"`
	Federation string        `json:"federation"`
	Addresses  []string      `json:"addresses"` // each ends in /p2p/<peer-id>
}

// Status is the answer of village status.
type Status struct {
	Schema          string        `json:"schema"`
	PeerID          record.NodeID `json:"peer_id"`
	Nation          string        `json:"nation"`
	Name            string        `json:"name"`
	Federation      string        `json:"federation"`
	Closed          bool          `json:"closed"` // a member list is set
	Members         int           `json:"members"`
	Peers           int           `json:"peers"`
	Datasets        int           `json:"datasets"`
	Tasks           []TaskSummary `json:"tasks"` // those not yet done
	StoreBytes      uint64        `json:"store_bytes"`
	FreeBytes       uint64        `json:"free_bytes"`
	ResidentBytes   uint64        `json:"resident_bytes"`
	BytesSent       uint64        `json:"bytes_sent"`
	BytesReceived   uint64        `json:"bytes_received"`
	MessagesDropped uint64        `json:"messages_dropped"`
	MessagesRefused uint64        `json:"messages_refused"`
	Lost            []string      `json:"lost"`      // what the disk has lost and no peer has given back yet
	Listening       bool          `json:"listening"` // signs nothing: an own record may be lost, and peers are asked for it
	LastError       string        `json:"last_error"`
	UptimeSeconds   float64       `json:"uptime_seconds"`
}

// Store is what can be read of a store.
type Store struct {
	Schema   string      `json:"schema"`
	Path     string      `json:"path"`
	Files    []StoreFile `json:"files"`
	Records  int         `json:"records"`
	Datasets int         `json:"datasets"` // with all of their rows
	Blocks   int         `json:"blocks"`   // of artifacts
	Facts    int         `json:"facts"`    // that the node keeps for itself
	Lost     []string    `json:"lost"`
}

// StoreFile is a file of a store.
type StoreFile struct {
	Name    string `json:"name"`
	Bytes   uint64 `json:"bytes"`
	Problem string `json:"problem"` // "" where all of it can be read
}

// Peer is one node that this node is, or wants to be, connected to.
type Peer struct {
	PeerID    record.NodeID `json:"peer_id"`
	Nation    string        `json:"nation"` // as its newest manifest says; "" where it has none
	Name      string        `json:"name"`
	Addresses []string      `json:"addresses"`
	Connected bool          `json:"connected"`
}

// Peers is the answer of village peer list, add and remove.
type Peers struct {
	Schema string `json:"schema"`
	Peers  []Peer `json:"peers"`
}

// Member is one node on the member list.
type Member struct {
	PeerID    record.NodeID `json:"peer_id"`
	Connected bool          `json:"connected"`
	Self      bool          `json:"self"` // it is this node
}

// Members is the answer of village member list, add and remove.
type Members struct {
	Schema  string   `json:"schema"`
	Closed  bool     `json:"closed"`
	Members []Member `json:"members"`
}

// AddDataset asks to add the rows of a file. The daemon reads the file itself;
// Path is absolute.
type AddDataset struct {
	Path    string          `json:"path"`
	Columns []string        `json:"columns"` // names of the columns where the file has no header
	Options dataset.Options `json:"options"`
}

// Progress tells how far a daemon is with what it was asked for.
type Progress struct {
	Doing string  `json:"doing"` // "" where it is not at it
	Share float64 `json:"share"` // of it that is done, 0 to 1
}

// AddedDataset is the answer of village dataset add. Dropped and LeftOut are
// exact and for the owner alone.
type AddedDataset struct {
	Schema  string            `json:"schema"`
	CID     record.CID        `json:"cid"`
	Name    string            `json:"name"`
	Read    int               `json:"rows_read"`
	Rows    uint64            `json:"rows"`
	Dropped map[string]int    `json:"dropped"`
	LeftOut map[string]string `json:"left_out"`
	Hints   []string          `json:"hints"`
	// Drift is how far the rows are from those of the dataset that this one
	// replaces; null where it replaces none.
	Drift []dataset.ColumnDrift `json:"drift"`
}

// Drift asks how far a file's rows are from what a manifest says. Path is
// absolute.
type Drift struct {
	Dataset record.CID `json:"dataset"`
	Path    string     `json:"path"`
	Columns []string   `json:"columns"` // their names, where the file has no header
}

// Drifted is the answer of village dataset drift.
type Drifted struct {
	Schema  string                `json:"schema"`
	CID     record.CID            `json:"cid"` // of the dataset
	Columns []dataset.ColumnDrift `json:"columns"`
}

// Dataset is a manifest as it was published, with who published it.
type Dataset struct {
	CID      record.CID    `json:"cid"`
	PeerID   record.NodeID `json:"peer_id"`
	Mine     bool          `json:"mine"`
	Features []string      `json:"features"` // names of the feature columns
	dataset.Manifest
}

// Datasets is the answer of village dataset list.
type Datasets struct {
	Schema   string    `json:"schema"`
	Datasets []Dataset `json:"datasets"`
}

// ShownDataset is the answer of village dataset show.
type ShownDataset struct {
	Schema string `json:"schema"`
	Dataset
}

// Rows is the answer of village dataset export: an own dataset's cleaned rows,
// which go to its owner alone. A missing cell is empty.
type Rows struct {
	Schema  string           `json:"schema"`
	CID     record.CID       `json:"cid"`
	Columns []dataset.Column `json:"columns"`
	Rows    [][]string       `json:"rows"`
	Path    string           `json:"path"` // of the file that they were written to, else ""
}

// Propose asks to publish a task. Zero values mean the defaults; Features empty
// means every feature that all the nodes' datasets share.
type Propose struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Target      string          `json:"target"`
	Features    []string        `json:"features"`
	Nodes       []record.NodeID `json:"nodes"`
	task.Settings
	L2        *float64 `json:"l2"`        // 0 is none; nil means the default
	Sensitive string   `json:"sensitive"` // column
	// Seconds bounds the time of all local steps of a node together.
	Seconds float64 `json:"seconds"`
	// Auto has the nodes choose among so many candidates of the Search space, whose
	// empty lists have defaults; 0 = none.
	Auto   int        `json:"auto"`
	Search task.Space `json:"search"`
}

// Continue asks to publish a task that goes on from a model, with new rows. Zero
// values mean those of the task that made it.
type Continue struct {
	Model        record.CID      `json:"model"`
	Name         string          `json:"name"`
	Description  string          `json:"description"`
	Nodes        []record.NodeID `json:"nodes"`
	Rounds       uint64          `json:"rounds"`
	LocalSteps   uint64          `json:"local_steps"`
	LearningRate float64         `json:"learning_rate"`
}

// Proposed is the answer of village task propose.
type Proposed struct {
	Schema   string     `json:"schema"`
	CID      record.CID `json:"cid"`
	Name     string     `json:"name"`
	StoredBy int        `json:"stored_by"` // peers that have stored the record
	Warning  string     `json:"warning"`
}

// Join asks to enrol in a task; an undefined Dataset means the only own one
// that fits.
type Join struct {
	Task    record.CID `json:"task"`
	Dataset record.CID `json:"dataset"`
}

// Joined is the answer of village task join.
type Joined struct {
	Schema    string     `json:"schema"`
	CID       record.CID `json:"cid"` // of the enrolment
	Task      record.CID `json:"task"`
	Dataset   record.CID `json:"dataset"`
	TrainRows uint64     `json:"train_rows"`
	TestRows  uint64     `json:"test_rows"`
}

// Left is the answer of village task leave.
type Left struct {
	Schema string     `json:"schema"`
	Task   record.CID `json:"task"`
}

// The stages of a task at a node.
const (
	StageEnrolling  = "enrolling"  // the roster is not decided on
	StageTraining   = "training"   // rounds are run
	StageSealing    = "sealing"    // the last round is done; the final set is not decided on
	StageEvaluating = "evaluating" // the model stands; evaluations are missing
	StageDone       = "done"
)

// TaskSummary is a task as this node sees it.
type TaskSummary struct {
	CID        record.CID      `json:"cid"`
	Name       string          `json:"name"`
	Proposer   record.NodeID   `json:"proposer"`
	Named      bool            `json:"named"`  // this node is named in it
	Joined     bool            `json:"joined"` // and has enrolled
	Stage      string          `json:"stage"`
	Round      uint64          `json:"round"` // this node's, or the highest seen where it does not take part
	Rounds     uint64          `json:"rounds"`
	WaitingFor []record.NodeID `json:"waiting_for"`
	// Undecided names the nodes that have yet to speak before the roster or the
	// final set can be decided on; Quorum is how many must, 0 where nothing is
	// due, of the Voters that the task names.
	Undecided []record.NodeID `json:"undecided"`
	Quorum    int             `json:"quorum"`
	Voters    int             `json:"voters"`
	ModelCID  record.CID      `json:"model_cid"`
	Error     string          `json:"error"`
}

// Tasks is the answer of village task list.
type Tasks struct {
	Schema string        `json:"schema"`
	Tasks  []TaskSummary `json:"tasks"`
}

// TaskNode is a named node in village task show.
type TaskNode struct {
	PeerID    record.NodeID `json:"peer_id"`
	Nation    string        `json:"nation"` // as it enrolled, else as its newest manifest says
	Name      string        `json:"name"`
	Enrolled  bool          `json:"enrolled"`
	Dataset   record.CID    `json:"dataset"`
	TrainRows uint64        `json:"train_rows"`
	Round     uint64        `json:"round"`
	Evaluated bool          `json:"evaluated"`
	Late      bool          `json:"late"`   // enrolled after the roster was decided on
	Left      bool          `json:"left"`   // has left the task
	Silent    bool          `json:"silent"` // is not waited for
	// Equivocated are two records that prove that the node has signed both for one
	// place, for which it is left out.
	Equivocated []record.CID `json:"equivocated,omitempty"`
}

// ShownTask is the answer of village task show and, an object a change, of
// task watch.
type ShownTask struct {
	Schema string `json:"schema"`
	TaskSummary
	Description string           `json:"description"`
	Encoding    dataset.Encoding `json:"encoding"`
	Target      string           `json:"target"`
	Features    []string         `json:"features"`
	task.Training
	Nodes     []TaskNode   `json:"nodes"`
	RoundTime float64      `json:"round_time_seconds,omitempty"`
	Parent    record.CID   `json:"parent,omitzero"` // model that the task goes on from
	Search    *task.Search `json:"search,omitempty"`
	Kept      []int        `json:"kept,omitempty"` // candidates that are still in the search
	// Certified says that the certificate of the model has come, without which it
	// cannot be verified: the nodes take turns in making it.
	Certified bool `json:"certified"`
}

// ModelSummary is a sealed model.
type ModelSummary struct {
	CID   record.CID `json:"cid"`
	Task  record.CID `json:"task"`
	Name  string     `json:"name"`
	Model learn.Kind `json:"model"`
	Bytes uint64     `json:"size_bytes"`
	// Parent is the model that this one goes on from, undefined where it goes on
	// from none; Promoted says whether it is not worse, null as long as that is
	// not known.
	Parent   record.CID `json:"parent,omitzero"`
	Promoted *bool      `json:"promoted,omitempty"`
}

// Models is the answer of village model list.
type Models struct {
	Schema string         `json:"schema"`
	Models []ModelSummary `json:"models"`
}

// ShownModel is the answer of village model show. Weights are for scaled
// features: weight[o][i] belongs to output o and encoded column i.
type ShownModel struct {
	Schema string `json:"schema"`
	ModelSummary
	Encoding dataset.Encoding `json:"encoding"`
	Scaling  dataset.Scaling  `json:"scaling"`
	Columns  []string         `json:"columns"` // names of the encoded columns
	Weight   [][]float64      `json:"weight"`  // of a regression; a perceptron shows its Hidden layers' widths
	Bias     []float64        `json:"bias"`
	Hidden   []int            `json:"hidden,omitempty"`
	Lineage  []record.CID     `json:"lineage,omitempty"` // models that this one goes on from, newest first, as far as they are here
}

// Report is the answer of village model report: local-only beside federated,
// for every node and for all.
type Report struct {
	Schema   string          `json:"schema"`
	CID      record.CID      `json:"cid"`    // of the model
	Report   record.CID      `json:"report"` // of this report as an artifact; undefined until complete
	Task     record.CID      `json:"task"`
	Name     string          `json:"name"`
	Target   string          `json:"target"`
	Positive string          `json:"positive"`
	Rounds   uint64          `json:"rounds"`
	Missing  []record.NodeID `json:"missing"` // named nodes without an evaluation
	Nodes    []NodeReport    `json:"nodes"`
	AllRows  Pair            `json:"all_rows"`
	Mean     MeanPair        `json:"mean_of_nodes"`
	Worst    MeanPair        `json:"worst_node"`
	// Contributions say of every named node what it gave to the model.
	Contributions []Contribution `json:"contributions"`
	// Personal is what each node has for itself under the heading of that name.
	Personal learn.Part `json:"personal"`
	// Search is how the model was chosen, if it was.
	Search *task.Trail `json:"search,omitempty"`
	// Lineage is the models that this one goes on from, newest first, and
	// Promoted whether it is not worse than the first of them; null until that
	// is known.
	Lineage  []record.CID `json:"lineage,omitempty"`
	Promoted *bool        `json:"promoted,omitempty"`
}

// The parts of a [Report] are those that every node computes.
type (
	NodeReport   = task.NodeResult
	Contribution = task.Contribution
	Pair         = task.Pair
	MeanPair     = task.MeanPair
	Metrics      = task.Metrics
)

// ReportOf makes a report of the results, without schema and artifact.
func ReportOf(r task.Results) Report {
	return Report{
		CID: r.CID, Task: r.Task, Name: r.Name, Target: r.Target, Positive: r.Positive, Rounds: r.Rounds,
		Missing: r.Missing, Nodes: r.Nodes, AllRows: r.AllRows, Mean: r.Mean, Worst: r.Worst, Contributions: r.Contributions,
		Personal: r.Personal, Search: r.Search, Lineage: r.Lineage, Promoted: r.Promoted,
	}
}

// SimList is the answer of village sim list (made without a daemon): what comes
// with the program.
type SimList struct {
	Schema    string    `json:"schema"`
	Scenarios []Shipped `json:"scenarios"`
	Data      []Shipped `json:"data"`
}

// Shipped is a scenario or a data set that comes with the program.
type Shipped struct {
	Name     string `json:"name"`
	About    string `json:"about"`
	Citation string `json:"citation,omitempty"` // of data
}

// Predict asks for predictions of a file's rows. Path is absolute.
type Predict struct {
	Model   record.CID `json:"model"`
	Path    string     `json:"path"`
	Columns []string   `json:"columns"` // their names, where the file has no header
	Own     bool       `json:"own"`     // with a part of the model that is fitted to this node's rows
}

// Predictions is the answer of village model predict. Probabilities has a row a
// prediction, a column a class; none where the target is numeric.
type Predictions struct {
	Schema        string      `json:"schema"`
	CID           record.CID  `json:"cid"`
	Classes       []string    `json:"classes"`
	Predictions   []string    `json:"predictions"`
	Probabilities [][]float64 `json:"probabilities"`
	// Incomplete counts the rows that lack a feature. Their prediction is "",
	// and they have no probabilities.
	Incomplete int `json:"incomplete"`
	// Hints are sentences about how the file was understood.
	Hints []string `json:"hints"`
}

// The forms in which a model is exported.
const (
	FormSafetensors = "safetensors" // the artifact itself
	FormONNX        = "onnx"
	FormCard        = "card" // Markdown
)

// Forms are all of them.
var Forms = []string{FormSafetensors, FormONNX, FormCard}

// Exported is the answer of village model export. A path is absolute, and empty
// where it was not asked for.
type Exported struct {
	Schema   string     `json:"schema"`
	CID      record.CID `json:"cid"`
	Path     string     `json:"path"`     // of the model's file
	Evidence string     `json:"evidence"` // of the directory
	ONNX     string     `json:"onnx"`
	Card     string     `json:"card"`
	Bytes    uint64     `json:"size_bytes"`
}

// Evidence is all that a sealed model is checked from. Whoever it comes from, it
// proves itself.
type Evidence struct {
	Schema string `json:"schema"`
	Seal   []byte `json:"seal"`   // the seal record of the final set
	Inputs []byte `json:"inputs"` // the artifact: task.Inputs as dag-cbor
	Model  []byte `json:"model"`  // the artifact
}

// NamedNode is a node with what its enrolment calls it; one that has not
// enrolled has no nation and no name.
type NamedNode struct {
	PeerID record.NodeID `json:"peer_id"`
	Nation string        `json:"nation"`
	Name   string        `json:"name"`
}

// Names are the nodes that have said what they are called.
type Names struct {
	Nodes []NamedNode `json:"nodes"`
}

// VerifiedPart is one update of the model.
type VerifiedPart struct {
	NamedNode
	Round  uint64 `json:"round"`
	Weight uint64 `json:"weight"` // training rows that the node has enrolled with
	Late   bool   `json:"late"`   // enrolled after the roster was decided on
}

// VerifiedOut is a named node that is not in the model.
type VerifiedOut struct {
	NamedNode
	Round uint64   `json:"round"` // of its newest update, 0 without one
	Why   task.Why `json:"why"`
}

// Verified is the answer of village model verify: what was found to hold, all of
// it. What does not hold is an error.
type Verified struct {
	Schema     string         `json:"schema"`
	CID        record.CID     `json:"cid"`
	Valid      bool           `json:"valid"` // always true
	Federation string         `json:"federation"`
	Task       record.CID     `json:"task"`
	Name       string         `json:"name"`
	Named      int            `json:"named"`  // nodes that the task names
	Quorum     int            `json:"quorum"` // how many of them must sign
	Signers    []NamedNode    `json:"signers"`
	RosterCID  record.CID     `json:"roster_cid"`
	Roster     []NamedNode    `json:"roster"`
	Round      uint64         `json:"round"` // the last one
	Parts      []VerifiedPart `json:"parts"`
	Out        []VerifiedOut  `json:"out"`
	Inputs     record.CID     `json:"inputs"`
	Model      learn.Kind     `json:"model"`
	Parameters int            `json:"parameters"` // recomputed and compared
	Bytes      uint64         `json:"size_bytes"`
}
