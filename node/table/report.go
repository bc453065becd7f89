package table

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"village/node/api"
	"village/protocol/learn"
)

// Report writes a whole report: the summary of all nodes, what each gave to the
// model, then the classification report of all rows and of each node.
func Report(w io.Writer, r api.Report) error {
	title := fmt.Sprintf("%s: %s", or(r.Name), or(r.Target))
	if r.Positive != "" {
		title += " (positive: " + Text(r.Positive) + ")"
	}
	fmt.Fprintf(w, "%s, %d rounds\nmodel   %s\n", title, r.Rounds, r.CID)
	fmt.Fprintf(w, "report  %s\n\n", cidOr(r.Report))
	if err := Summary(w, r); err != nil {
		return err
	}
	if err := Contributions(w, r.Contributions); err != nil {
		return err
	}
	if err := Classification(w, "all rows", r.AllRows); err != nil {
		return err
	}
	for _, n := range r.Nodes {
		if err := Classification(w, label(n.Nation, n.Name), n.Pair); err != nil {
			return err
		}
	}
	return nil
}

// Summary writes a line a node, then all rows, the mean of the nodes and the
// lowest of each figure: what
// each reaches alone beside what the federation reaches.
func Summary(w io.Writer, r api.Report) error { return summary(w, r, true) }

func summary(w io.Writer, r api.Report, nodes bool) error {
	var g grid
	g.add("", "training", "test", "local only", "", "", "federated", "", "")
	g.add("", "rows", "rows", "accuracy", "F1", "ROC-AUC", "accuracy", "F1", "ROC-AUC")
	three := func(m api.Metrics) []string {
		return []string{metric(m.Accuracy), metric(m.F1), metric(m.ROCAUC)}
	}
	figures := func(p api.Pair) []string {
		return append(three(headline(p.Local)), three(headline(p.Federated))...)
	}
	var trained uint64
	for _, n := range r.Nodes {
		trained += n.TrainRows
		if !nodes {
			continue
		}
		g.add(append([]string{label(n.Nation, n.Name), count(n.TrainRows), count(n.TestRows)}, figures(n.Pair)...)...)
	}
	g.add(append([]string{"all rows", count(trained), count(r.AllRows.Federated.Rows)}, figures(r.AllRows)...)...)
	g.add(append([]string{"mean of nodes", "", ""}, append(three(r.Mean.Local), three(r.Mean.Federated)...)...)...)
	g.add(append([]string{"worst node", "", ""}, append(three(r.Worst.Local), three(r.Worst.Federated)...)...)...)
	if err := g.write(w); err != nil {
		return err
	}
	if len(r.Missing) > 0 {
		fmt.Fprintln(w, "missing: "+Names{}.list(r.Missing))
	}
	return nil
}

// Contributions writes a line for every node that the task names: what it gave
// to the model, and why not more.
func Contributions(w io.Writer, list []api.Contribution) error {
	rows := [][]string{{"CONTRIBUTION", "TRAINING ROWS", "ROUND", "IN THE MODEL", "WHY"}}
	for _, c := range list {
		name := label(c.Nation, c.Name)
		if name == "" {
			name = c.PeerID.String()
		}
		why := Text(c.Why)
		if c.Late {
			why += "; joined late"
		}
		rows = append(rows, []string{name, count(c.TrainRows), count(c.Round), yes(c.InFinal), why})
	}
	fmt.Fprintln(w)
	return columns(w, rows)
}

// Classification writes a report per class in the layout that users of
// scikit-learn know, local only beside federated. The support, being the same
// for both, stands once.
func Classification(w io.Writer, title string, p api.Pair) error {
	fmt.Fprintf(w, "\n%s\n", title)
	var g grid
	g.add("", "local only", "", "", "federated", "", "", "")
	g.add("", "precision", "recall", "f1-score", "precision", "recall", "f1-score", "support")
	g.add()
	for i, c := range p.Federated.Classes {
		row := []string{Text(c.Label)}
		if i < len(p.Local.Classes) {
			l := p.Local.Classes[i]
			row = append(row, two(p.Local, l.Precision), two(p.Local, l.Recall), two(p.Local, l.F1))
		} else {
			row = append(row, None, None, None)
		}
		g.add(append(row, two(p.Federated, c.Precision), two(p.Federated, c.Recall), two(p.Federated, c.F1), count(c.Support))...)
	}
	g.add()
	rows := count(p.Federated.Rows)
	g.add("accuracy", "", "", metric2(p.Local.Accuracy), "", "", metric2(p.Federated.Accuracy), rows)
	for _, a := range []struct {
		name             string
		local, federated learn.Average
	}{
		{"micro avg", p.Local.Micro, p.Federated.Micro},
		{"macro avg", p.Local.Macro, p.Federated.Macro},
		{"weighted avg", p.Local.Weighted, p.Federated.Weighted},
	} {
		l, f := a.local, a.federated
		g.add(a.name, two(p.Local, l.Precision), two(p.Local, l.Recall), two(p.Local, l.F1),
			two(p.Federated, f.Precision), two(p.Federated, f.Recall), two(p.Federated, f.F1), rows)
	}
	g.add("ROC-AUC", "", "", metric2(p.Local.ROCAUC), "", "", metric2(p.Federated.ROCAUC), "")
	return g.write(w)
}

func headline(r learn.Report) api.Metrics {
	return api.Metrics{Accuracy: r.Accuracy, F1: r.F1, ROCAUC: r.ROCAUC}
}

func metric(x *float64) string {
	if x == nil {
		return None
	}
	return strconv.FormatFloat(*x, 'f', 3, 64)
}

func metric2(x *float64) string {
	if x == nil {
		return None
	}
	return strconv.FormatFloat(*x, 'f', 2, 64)
}

// two writes a figure of a report; without rows it is undefined.
func two(r learn.Report, x float64) string {
	if r.Rows == 0 {
		return None
	}
	return strconv.FormatFloat(x, 'f', 2, 64)
}

// grid is a table whose first column is aligned left and the others right.
type grid [][]string

func (g *grid) add(cells ...string) { *g = append(*g, cells) }

func (g grid) write(w io.Writer) error {
	var width []int
	for _, row := range g {
		for i, cell := range row {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range g {
		var b strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				b.WriteString(cell + pad)
			} else {
				b.WriteString("  " + pad + cell)
			}
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(b.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}
