package table

import (
	"fmt"
	"strings"

	"village/node/api"
	"village/protocol/figure"
	"village/protocol/learn"
)

// namedLosers is how many nodes that do worse are named in a sentence.
const namedLosers = 5

// Verdict says in sentences who gains by the federation and who does not.
func Verdict(r api.Report) []string {
	var missing []string
	if n := len(r.Missing); n > 0 {
		missing = []string{fmt.Sprintf("%s of the model %s sent no evaluation and %s in none of these figures.",
			figure.Plural(n, "node"), verb(n, "has", "have"), verb(n, "is", "are"))}
	}
	if len(r.Nodes) == 0 {
		return append([]string{"No node has evaluated the model, so nothing can be said about it."}, missing...)
	}
	kind := Kind(r)
	m := kind.Lead
	sentences := overall(r, kind)

	federated := tallyOf(r, m, func(p api.Pair) learn.Report { return p.Federated })
	s := fmt.Sprintf("By %s federated is %s", m.Name, federated.versus())
	if len(federated.losers) > 0 && len(federated.losers) <= namedLosers && len(r.Nodes) > 1 {
		s += " (" + strings.Join(federated.losers, ", ") + ")"
	}
	sentences = append(sentences, s+".")

	above, below, around := 0, 0, 0
	for _, n := range r.Nodes {
		if _, i := kind.Gained(n.Pair); i != nil {
			switch {
			case i[0] > 0:
				above++
			case i[1] < 0:
				below++
			default:
				around++
			}
		}
	}
	if total := above + below + around; total > 0 {
		s := fmt.Sprintf("The 95 %% interval of the difference is above zero at %s and below zero at %d", figure.Plural(above, "node"), below)
		if around > 0 {
			s += fmt.Sprintf("; at %d it includes zero, so %s test rows cannot tell", around, verb(around, "that node's", "those nodes'"))
		}
		sentences = append(sentences, s+".")
	}
	for _, other := range kind.Metrics {
		if other.Name != "ROC-AUC" && other.Name != "MAE" { // F1 follows the accuracy, R² the RMSE
			continue
		}
		t := tallyOf(r, other, func(p api.Pair) learn.Report { return p.Federated })
		if t.better+t.worse+t.same > 0 {
			sentences = append(sentences, fmt.Sprintf("By %s it is %s.", other.Name, t.counts()))
		}
	}
	if HasPersonal(r) {
		t := tallyOf(r, m, func(p api.Pair) learn.Report { return p.Personal })
		sentences = append(sentences, fmt.Sprintf("With its %s at each node the model is %s.", figure.PartName(r.Personal), t.versus()))
	}
	if federated.worse > 0 {
		sentences = append(sentences, "A node with a lower figure may keep its own model.")
		if m.Lower {
			sentences[len(sentences)-1] = "A node with a higher error may keep its own model."
		}
	}
	return append(sentences, missing...)
}

// overall compares the models on all rows.
func overall(r api.Report, kind figure.Kind) []string {
	m := kind.Lead
	local, federated := m.Of(r.AllRows.Local), m.Of(r.AllRows.Federated)
	rows := "On all " + figure.Plural(r.AllRows.Federated.Rows, "test row")
	if !figure.Finite(local) || !figure.Finite(federated) {
		return nil
	}
	if m.Lower {
		return []string{fmt.Sprintf("%s the %s is %s federated and %s local only.", rows, m.Name, m.Format(*federated), m.Format(*local))}
	}
	gain, interval := kind.Gained(r.AllRows)
	s := fmt.Sprintf("%s federated is right on %s %% and local only on %s %%: %s percentage points", rows, figure.Percent(*federated), figure.Percent(*local), kind.Signed(*gain))
	if interval != nil {
		s += " (95 % interval " + kind.SignedInterval(*interval) + ")"
	}
	return []string{s + "."}
}

// tally counts the nodes at which a model is better or worse than another.
type tally struct {
	better, worse, same int
	losers              []string
}

func tallyOf(r api.Report, m figure.Metric, model func(api.Pair) learn.Report) (t tally) {
	for _, n := range r.Nodes {
		switch d := m.Better(m.Of(n.Local), m.Of(model(n.Pair))); {
		case d == nil:
		case *d > 0:
			t.better++
		case *d < 0:
			t.worse++
			t.losers = append(t.losers, NodeName(n.Nation, n.Name, n.PeerID.String()))
		default:
			t.same++
		}
	}
	return t
}

// versus says how a model compares with local only.
func (t tally) versus() string {
	return strings.Replace(t.counts(), "better ", "better than local only ", 1)
}

func (t tally) counts() string {
	s := fmt.Sprintf("better at %d of %s, ", t.better, figure.Plural(t.better+t.worse+t.same, "node"))
	if t.same > 0 {
		s += fmt.Sprintf("the same at %d, ", t.same)
	}
	return s + fmt.Sprintf("worse at %d", t.worse)
}

func verb(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
