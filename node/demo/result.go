package demo

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"village/node/api"
	"village/node/table"
	"village/protocol/figure"
	"village/protocol/learn"
	"village/protocol/record"
	"village/protocol/task"
)

// Result is the answer of village demo. Metrics of nodes are those of the
// nodes' own report; only the pooled ones are computed by the demo.
type Result struct {
	Schema      string     `json:"schema"`
	Federation  string     `json:"federation"`
	Dir         string     `json:"dir"` // where the homes are kept; "" where they are gone
	Task        record.CID `json:"task"`
	ModelCID    record.CID `json:"model_cid"`
	Rounds      uint64     `json:"rounds"`
	Nodes       []Node     `json:"nodes"`
	AllRows     Figures    `json:"all_rows"`
	Mean        Figures    `json:"mean_of_nodes"`
	TestRows    int        `json:"test_rows"`
	Differences int        `json:"prediction_differences"` // test rows that the pooled and the federated model class differently
	BytesSent   uint64     `json:"bytes_sent"`
	Elapsed     float64    `json:"elapsed_seconds"` // of the demo; with faults from the first round to the seal
	Recomputed  bool       `json:"recomputed"`      // the model's very bytes, from the signed updates: always true
	Citation    string     `json:"citation"`
	*Story

	report   api.Report
	verified api.Verified
	model    task.Model
}

// Story is the part of a [Result] that only a run with faults has.
type Story struct {
	Faults []Fault `json:"faults"` // in the order of time
	// Survivors is how well the model does on the test rows of the nodes that
	// were not lost.
	Survivors Scored    `json:"survivors"`
	FaultFree FaultFree `json:"fault_free"`
	Extra     float64   `json:"extra_ratio"` // of elapsed time, over that without faults: 0.1 is a tenth more
}

// Fault is something that happened to the training.
type Fault struct {
	At    float64  `json:"at_seconds"` // since the first round
	Kind  Kind     `json:"kind"`
	Nodes []string `json:"nodes"` // names
	What  string   `json:"what"`
}

// Kind is a kind of [Fault], or of its end.
type Kind string

// The kinds.
const (
	JoinedLate Kind = "late"      // a named node joined after training had begun
	Cut        Kind = "cut"       // two nodes were cut off from each other
	Reunited   Kind = "reunited"  // they are connected again
	Killed     Kind = "killed"    // a daemon was ended without warning
	Restarted  Kind = "restarted" // it serves again
	Gone       Kind = "lost"      // a daemon was ended without warning, for good
)

// FaultFree is the training of the same nodes without faults. Its figures are
// those on the test rows of the nodes that were not lost with faults.
type FaultFree struct {
	Elapsed  float64    `json:"elapsed_seconds"` // from the first round to the seal
	ModelCID record.CID `json:"model_cid"`
	Scored
}

// Scored is how well a model does on some test rows.
type Scored struct {
	TestRows uint64 `json:"test_rows"`
	api.Metrics
}

// State is what became of a node.
type State string

// The states.
const (
	Contributed State = "contributed" // its update is in the model
	Late        State = "late"        // the same, of a node that joined after training had begun
	Lost        State = "lost"        // it fell silent
	Left        State = "left"        // it ended its part
	Absent      State = "absent"      // it never joined
)

// Node is one hospital of a [Result].
type Node struct {
	Nation    string        `json:"nation"`
	Name      string        `json:"name"`
	PeerID    record.NodeID `json:"peer_id"`
	PID       int           `json:"pid"`
	Rows      uint64        `json:"rows"` // training and test
	TrainRows uint64        `json:"train_rows"`
	TestRows  uint64        `json:"test_rows"`
	ModelCID  *record.CID   `json:"model_cid"` // null where the node was lost
	BytesSent uint64        `json:"bytes_sent"`
	State     State         `json:"state"`
	Rounds    uint64        `json:"rounds"`   // its newest; with faults, how many of them gave an update
	InModel   bool          `json:"in_model"` // whether an update of it is part of the model
	Why       string        `json:"why"`
	Figures
}

// Figures sets what a node reaches alone beside what the federation reaches and
// what one model reaches that was trained on all rows in one place.
type Figures struct {
	Local     api.Metrics `json:"local"`
	Federated api.Metrics `json:"federated"`
	Pooled    api.Metrics `json:"pooled"`
}

func headline(r learn.Report) api.Metrics {
	return api.Metrics{Accuracy: r.Accuracy, F1: r.F1, ROCAUC: r.ROCAUC}
}

// Write shows the result to people, in 80 columns.
func (r Result) Write(out io.Writer) error {
	w := bufio.NewWriter(out)
	if r.Story == nil {
		fmt.Fprintf(w, "Heart disease at %d hospitals: one model in %d rounds; the rows stayed at home.\n\n", len(r.Nodes), r.Rounds)
	} else {
		r.tell(w)
	}
	const layout = "%-14s %7s  %-14s  %-14s  %-14s %9s\n"
	fmt.Fprintf(w, layout, "", "train/", "local only", "federated", "pool of all", "bytes")
	fmt.Fprintf(w, layout, "", "test", " acc   F1  AUC", " acc   F1  AUC", " acc   F1  AUC", "sent")
	var training uint64
	for _, n := range r.Nodes {
		training += n.TrainRows
		name := n.Nation + " " + n.Name
		if r.Story != nil {
			name = n.Name // which is longer, and has been introduced
		}
		fmt.Fprintf(w, layout, name, fmt.Sprintf("%d/%d", n.TrainRows, n.TestRows),
			three(n.Local), three(n.Federated), three(n.Pooled), figure.Bytes(n.BytesSent))
	}
	fmt.Fprintf(w, layout, "all rows", fmt.Sprintf("%d/%d", training, r.TestRows),
		three(r.AllRows.Local), three(r.AllRows.Federated), three(r.AllRows.Pooled), figure.Bytes(r.BytesSent))
	fmt.Fprintf(w, "%-14s %7s  %s  %s  %s\n\n", "mean of nodes", "", three(r.Mean.Local), three(r.Mean.Federated), three(r.Mean.Pooled))
	fmt.Fprintf(w, "%d of %d test predictions differ from those of the pooled model.\n", r.Differences, r.TestRows)
	if r.Story == nil {
		fmt.Fprintf(w, "At every node the same model and report, after %.1f seconds:\n", r.Elapsed)
	} else {
		fmt.Fprintln(w, "At every node that was not lost the same model and report:")
	}
	fmt.Fprintf(w, "model   %s\nreport  %s\n", r.ModelCID, r.report.Report)
	fmt.Fprintf(w, "recomputed byte for byte: yes, as %d of the %d nodes have signed\n", len(r.verified.Signers), r.verified.Named)
	if err := table.Classification(w, fmt.Sprintf("all rows (%s: 1 = disease)", r.report.Target), r.report.AllRows); err != nil {
		return err
	}
	fmt.Fprintf(w, "\ndata: %s\n", r.Citation)
	return w.Flush()
}

// tell shows what happened, and what each node gave to the model all the same.
func (r Result) tell(w io.Writer) {
	fmt.Fprintf(w, "Heart disease at %d hospitals: one model in %d rounds, whatever happened:\n\n", len(r.Nodes), r.Rounds)
	for _, f := range r.Faults {
		fmt.Fprintf(w, "%6.1f s  %s\n", f.At, f.What)
	}
	const layout = "%-16s %-11s  %6s  %-8s  %s\n"
	fmt.Fprintf(w, "\n"+layout, "", "", "rounds", "in model", "")
	for _, n := range r.Nodes {
		in := "no"
		if n.InModel {
			in = "yes"
		}
		why, _, _ := strings.Cut(n.Why, ";")
		fmt.Fprintf(w, layout, n.Nation+" "+n.Name, n.State, fmt.Sprint(n.Rounds), in, why)
	}
	fmt.Fprintf(w, "\n%-16s %12s %12s\n", "", "with faults", "without")
	fmt.Fprintf(w, "%-16s %10.1f s %10.1f s   (%+.1f %%)\n", "training took", r.Elapsed, r.FaultFree.Elapsed, 100*r.Extra)
	fmt.Fprintf(w, "%-16s %12s %12s   (%d test rows of those not lost)\n\n", "accuracy",
		short(r.Survivors.Accuracy), short(r.FaultFree.Accuracy), r.Survivors.TestRows)
}

func three(m api.Metrics) string {
	return fmt.Sprintf("%4s %4s %4s", short(m.Accuracy), short(m.F1), short(m.ROCAUC))
}

// short writes a share in four characters: .795, 1.00.
func short(x *float64) string {
	if x == nil {
		return figure.None
	}
	if s := fmt.Sprintf("%.3f", *x); strings.HasPrefix(s, "0") {
		return s[1:]
	}
	return "1.00"
}
