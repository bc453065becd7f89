package task

import (
	"fmt"
	"slices"

	"village/protocol/learn"
	"village/protocol/record"
)

// Results set, for every node and for all, what a node reaches alone beside what
// the federation reaches, over the nodes' own test rows.
type Results struct {
	CID      record.CID      `json:"cid"` // of the model
	Task     record.CID      `json:"task"`
	Name     string          `json:"name"`
	Target   string          `json:"target"`
	Positive string          `json:"positive"`
	Rounds   uint64          `json:"rounds"`
	Missing  []record.NodeID `json:"missing"` // nodes of the final set without an evaluation
	Nodes    []NodeResult    `json:"nodes"`
	// Contributions are those of every node that the task names.
	Contributions []Contribution `json:"contributions"`
	AllRows       Pair           `json:"all_rows"`
	Mean          MeanPair       `json:"mean_of_nodes"`
	// Worst is the lowest value of each metric at any node.
	Worst MeanPair `json:"worst_node"`
	// Personal names the part of the model that is each node's own under that
	// heading.
	Personal learn.Part `json:"personal"`
	// Search is how the model was chosen, if it was.
	Search *Trail `json:"search,omitempty"`
	// Lineage is the models that this one goes on from, newest first, and
	// Promoted whether it is not worse than the first of them: on all rows no
	// lower accuracy, or no larger squared error. It is null while evaluations
	// are missing, and where there is no such model.
	Lineage  []record.CID `json:"lineage,omitempty"`
	Promoted *bool        `json:"promoted,omitempty"`
}

// Trail is how a search went.
type Trail struct {
	Candidates []Candidate   `json:"candidates"`
	Rungs      []TrailOfRung `json:"rungs"`
	Chosen     int           `json:"chosen"` // index of the candidate
}

// TrailOfRung is what was decided on at the end of a rung.
type TrailOfRung struct {
	Round  uint64     `json:"round"`
	Nodes  int        `json:"nodes"`  // that gave losses
	Losses []*float64 `json:"losses"` // of the candidates, on rows held back from training; null where dropped before
	Kept   []int      `json:"kept"`   // indices of candidates
}

// NodeResult is one node's part of the results.
type NodeResult struct {
	PeerID    record.NodeID `json:"peer_id"`
	Nation    string        `json:"nation"`
	Name      string        `json:"name"`
	TrainRows uint64        `json:"train_rows"`
	TestRows  uint64        `json:"rows"`
	Pair
}

// Pair sets what a node reaches alone beside what the federation reaches. Local
// is the better of the model families, tuned on the node's training rows.
type Pair struct {
	Local     learn.Report  `json:"local"`
	Federated learn.Report  `json:"federated"`
	Personal  learn.Report  `json:"personal"`         // federated, with a part of its own at each node
	Parent    *learn.Report `json:"parent,omitempty"` // the model that the task went on from
	Gain      learn.Gain    `json:"gain"`             // of federated over local
}

// MeanPair is a Pair of figures over the nodes for which a metric is defined, all
// nodes alike.
type MeanPair struct {
	Local     Metrics `json:"local"`
	Federated Metrics `json:"federated"`
	Personal  Metrics `json:"personal"`
}

// Metrics are the headline figures; an undefined one is null. The last three are
// those of a numeric target.
type Metrics struct {
	Accuracy *float64 `json:"accuracy"`
	F1       *float64 `json:"f1"`
	ROCAUC   *float64 `json:"roc_auc"`
	MAE      *float64 `json:"mae,omitempty"`
	RMSE     *float64 `json:"rmse,omitempty"`
	R2       *float64 `json:"r2,omitempty"`
}

// Contribution says of a named node what it gave to a model, and if nothing, why.
type Contribution struct {
	PeerID    record.NodeID `json:"peer_id"`
	Nation    string        `json:"nation"` // "" where it did not enrol
	Name      string        `json:"name"`
	TrainRows uint64        `json:"train_rows"`
	Round     uint64        `json:"round"`    // of its newest update
	InFinal   bool          `json:"in_final"` // whether that is in the final set
	Late      bool          `json:"late"`     // it enrolled after the roster was decided on
	Why       string        `json:"why"`
}

func contributions(c FinalContent, roster Roster, enrolled map[record.NodeID]Enrolled) []Contribution {
	list := []Contribution{}
	add := func(id record.NodeID, round uint64, in bool, why string) {
		e := enrolled[id]
		list = append(list, Contribution{
			PeerID: id, Nation: e.Nation, Name: e.Node, TrainRows: e.Moments.Count, Round: round, InFinal: in,
			Late: e.CID.Defined() && roster.Index(id) < 0, Why: why,
		})
	}
	for _, p := range c.Parts {
		why := "trained to the last round"
		if p.Round < c.Round {
			why = fmt.Sprintf("fell silent after round %d, which is recent enough to count", p.Round)
		}
		add(p.Node, p.Round, true, why)
	}
	for _, o := range c.Out {
		why := "did not enrol"
		switch o.Why {
		case Left:
			why = fmt.Sprintf("left after round %d", o.Round)
		case Silent:
			why = fmt.Sprintf("fell silent after round %d; a quorum had waited for it", o.Round)
		}
		add(o.Node, o.Round, false, why)
	}
	slices.SortFunc(list, func(a, b Contribution) int { return a.PeerID.Compare(b.PeerID) })
	return list
}

// ResultsOf computes the results from the evaluations held, by author. Those of
// another model than the decided one do not count.
func ResultsOf(t Task, id record.CID, c FinalContent, roster Roster, enrolled map[record.NodeID]Enrolled, evaluations map[record.NodeID]Evaluation) (Results, error) {
	res := Results{
		CID: c.Model, Task: id, Name: t.Name, Target: t.Encoding.Target, Positive: t.Encoding.Positive, Rounds: c.Round,
		Contributions: contributions(c, roster, enrolled), Missing: []record.NodeID{}, Nodes: []NodeResult{},
	}
	var local, federated []learn.Counts
	report := func(c learn.Counts) learn.Report { return c.Report(t.Encoding.Classes, t.Encoding.Positive) }
	for _, given := range res.Contributions {
		e, ok := evaluations[given.PeerID]
		if !ok || e.Model != c.Model {
			if given.InFinal {
				res.Missing = append(res.Missing, given.PeerID)
			}
			continue
		}
		local, federated = append(local, e.Local), append(federated, e.Federated)
		res.Nodes = append(res.Nodes, NodeResult{
			PeerID: given.PeerID, Nation: given.Nation, Name: given.Name,
			TrainRows: given.TrainRows, TestRows: e.Federated.Rows,
			Pair: Pair{Local: report(e.Local), Federated: report(e.Federated)},
		})
	}
	sumLocal, err := learn.Sum(local)
	if err != nil {
		return Results{}, err
	}
	sumFederated, err := learn.Sum(federated)
	if err != nil {
		return Results{}, err
	}
	res.AllRows = Pair{Local: report(sumLocal), Federated: report(sumFederated)}
	res.Mean = over(res.Nodes, func(sorted []float64) float64 {
		sum := 0.0
		for _, v := range sorted {
			sum += v
		}
		return sum / float64(len(sorted))
	})
	res.Worst = over(res.Nodes, func(sorted []float64) float64 { return sorted[0] })
	return res, nil
}

// over computes a figure of each metric from its values at the nodes. They are
// sorted, so that a sum is the same whatever the nodes' IDs are.
func over(nodes []NodeResult, figure func(sorted []float64) float64) MeanPair {
	of := func(report func(NodeResult) learn.Report) Metrics {
		metric := func(metric func(learn.Report) *float64) *float64 {
			var values []float64
			for _, node := range nodes {
				if v := metric(report(node)); v != nil {
					values = append(values, *v)
				}
			}
			if len(values) == 0 {
				return nil
			}
			slices.Sort(values)
			v := figure(values)
			return &v
		}
		return Metrics{
			Accuracy: metric(func(r learn.Report) *float64 { return r.Accuracy }),
			F1:       metric(func(r learn.Report) *float64 { return r.F1 }),
			ROCAUC:   metric(func(r learn.Report) *float64 { return r.ROCAUC }),
		}
	}
	return MeanPair{
		Local:     of(func(n NodeResult) learn.Report { return n.Local }),
		Federated: of(func(n NodeResult) learn.Report { return n.Federated }),
	}
}
