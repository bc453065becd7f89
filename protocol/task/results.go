package task

import (
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
	Missing  []record.NodeID `json:"missing"` // members of the roster without an evaluation
	Nodes    []NodeResult    `json:"nodes"`
	AllRows  Pair            `json:"all_rows"`
	Mean     MeanPair        `json:"mean_of_nodes"`
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

// Pair sets what a node reaches alone beside what the federation reaches.
type Pair struct {
	Local     learn.Report `json:"local"`
	Federated learn.Report `json:"federated"`
}

// MeanPair is a Pair of plain means over the nodes for which a metric is defined.
type MeanPair struct {
	Local     Metrics `json:"local"`
	Federated Metrics `json:"federated"`
}

// Metrics are the three headline figures; an undefined one is null.
type Metrics struct {
	Accuracy *float64 `json:"accuracy"`
	F1       *float64 `json:"f1"`
	ROCAUC   *float64 `json:"roc_auc"`
}

// ResultsOf computes the results from the evaluations held, by author. Those of
// another model than cid do not count.
func ResultsOf(t Task, cid, model record.CID, round uint64, roster Roster, evaluations map[record.NodeID]Evaluation) (Results, error) {
	res := Results{
		CID: model, Task: cid, Name: t.Name, Target: t.Encoding.Target, Positive: t.Encoding.Positive, Rounds: round,
		Missing: []record.NodeID{}, Nodes: []NodeResult{},
	}
	var local, federated []learn.Counts
	report := func(c learn.Counts) learn.Report { return c.Report(t.Encoding.Classes, t.Encoding.Positive) }
	for i, m := range roster.Members {
		e, ok := evaluations[m.Author]
		if !ok || e.Model != model {
			res.Missing = append(res.Missing, m.Author)
			continue
		}
		local, federated = append(local, e.Local), append(federated, e.Federated)
		res.Nodes = append(res.Nodes, NodeResult{
			PeerID: m.Author, Nation: m.Nation, Name: m.Node,
			TrainRows: roster.Weight(i), TestRows: e.Federated.Rows,
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
	res.Mean = MeanPair{
		Local:     meanOf(res.Nodes, func(n NodeResult) learn.Report { return n.Local }),
		Federated: meanOf(res.Nodes, func(n NodeResult) learn.Report { return n.Federated }),
	}
	return res, nil
}

func meanOf(nodes []NodeResult, of func(NodeResult) learn.Report) Metrics {
	mean := func(metric func(learn.Report) *float64) *float64 {
		sum, n := 0.0, 0
		for _, node := range nodes {
			if v := metric(of(node)); v != nil {
				sum += *v
				n++
			}
		}
		if n == 0 {
			return nil
		}
		sum /= float64(n)
		return &sum
	}
	return Metrics{
		Accuracy: mean(func(r learn.Report) *float64 { return r.Accuracy }),
		F1:       mean(func(r learn.Report) *float64 { return r.F1 }),
		ROCAUC:   mean(func(r learn.Report) *float64 { return r.ROCAUC }),
	}
}
