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
	fmt.Fprintf(w, "Heart disease at %d hospitals: one model after %d rounds, no row has left its hospital.\n\n", len(r.Nodes), r.Rounds)
	const layout = "%-14s %7s  %14s  %14s  %14s  %9s\n"
	fmt.Fprintf(w, layout, "", "rows", "local only    ", "federated     ", "pool of all   ", "bytes")
	fmt.Fprintf(w, layout, "", "train test", "acc   F1  AUC", "acc   F1  AUC", "acc   F1  AUC", "sent")
	line := func(name, rows string, f Figures, sent string) {
		fmt.Fprintf(w, layout, name, rows, three(f.Local), three(f.Federated), three(f.Pooled), sent)
	}
	var training uint64
	for _, n := range r.Nodes {
		training += n.TrainRows
		line(n.Nation+" "+n.Name, fmt.Sprintf("%d %4d", n.TrainRows, n.TestRows), n.Figures, table.Bytes(n.BytesSent))
	}
	line("all rows", fmt.Sprintf("%d %4d", training, r.TestRows), r.AllRows, table.Bytes(r.BytesSent))
	line("mean of nodes", "", r.Mean, "")
	fmt.Fprintf(w, "\nmodel   %s, the same at every node\n", r.ModelCID)
	fmt.Fprintf(w, "report  %s\n", r.report.Report)
	fmt.Fprintf(w, "%d of %d test predictions differ from those of a model trained on all rows in one place.\n", r.Differences, r.TestRows)
	fmt.Fprintf(w, "%.1f seconds\n", r.Elapsed)
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
