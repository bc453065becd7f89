package demo

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"village/node/api"
	"village/node/table"
	"village/protocol/learn"
	"village/protocol/record"
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
	Elapsed     float64    `json:"elapsed_seconds"`
	Citation    string     `json:"citation"`

	report api.Report
}

// Node is one hospital of a [Result].
type Node struct {
	Nation    string        `json:"nation"`
	Name      string        `json:"name"`
	PeerID    record.NodeID `json:"peer_id"`
	PID       int           `json:"pid"`
	Rows      uint64        `json:"rows"` // training and test
	TrainRows uint64        `json:"train_rows"`
	TestRows  uint64        `json:"test_rows"`
	ModelCID  record.CID    `json:"model_cid"`
	BytesSent uint64        `json:"bytes_sent"`
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
	fmt.Fprintf(w, "Heart disease at %d hospitals: one model in %d rounds; the rows stayed at home.\n\n", len(r.Nodes), r.Rounds)
	const layout = "%-14s %7s  %-14s  %-14s  %-14s %9s\n"
	fmt.Fprintf(w, layout, "", "train/", "local only", "federated", "pool of all", "bytes")
	fmt.Fprintf(w, layout, "", "test", " acc   F1  AUC", " acc   F1  AUC", " acc   F1  AUC", "sent")
	var training uint64
	for _, n := range r.Nodes {
		training += n.TrainRows
		fmt.Fprintf(w, layout, n.Nation+" "+n.Name, fmt.Sprintf("%d/%d", n.TrainRows, n.TestRows),
			three(n.Local), three(n.Federated), three(n.Pooled), table.Bytes(n.BytesSent))
	}
	fmt.Fprintf(w, layout, "all rows", fmt.Sprintf("%d/%d", training, r.TestRows),
		three(r.AllRows.Local), three(r.AllRows.Federated), three(r.AllRows.Pooled), table.Bytes(r.BytesSent))
	fmt.Fprintf(w, "%-14s %7s  %s  %s  %s\n\n", "mean of nodes", "", three(r.Mean.Local), three(r.Mean.Federated), three(r.Mean.Pooled))
	fmt.Fprintf(w, "%d of %d test predictions differ from those of the pooled model.\n", r.Differences, r.TestRows)
	fmt.Fprintf(w, "At every node the same model and report, after %.1f seconds:\n", r.Elapsed)
	fmt.Fprintf(w, "model   %s\nreport  %s\n", r.ModelCID, r.report.Report)
	if err := table.Classification(w, fmt.Sprintf("all rows (%s: 1 = disease)", r.report.Target), r.report.AllRows); err != nil {
		return err
	}
	fmt.Fprintf(w, "\ndata: %s\n", r.Citation)
	return w.Flush()
}

func three(m api.Metrics) string {
	return fmt.Sprintf("%4s %4s %4s", short(m.Accuracy), short(m.F1), short(m.ROCAUC))
}

// short writes a share in four characters: .795, 1.00.
func short(x *float64) string {
	if x == nil {
		return table.None
	}
	if s := fmt.Sprintf("%.3f", *x); strings.HasPrefix(s, "0") {
		return s[1:]
	}
	return "1.00"
}
