package task

import (
	"cmp"
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
		case Equivocated:
			why = "signed two records for one place"
		}
		add(o.Node, o.Round, false, why)
	}
	slices.SortFunc(list, func(a, b Contribution) int { return a.PeerID.Compare(b.PeerID) })
	return list
}

// ResultsOf computes the results from the evaluations held, by author. Those that
// cannot be added to the others do not count, and their authors are told of.
func ResultsOf(t Task, id record.CID, c FinalContent, roster Roster, enrolled map[record.NodeID]Enrolled, evaluations map[record.NodeID]Evaluation) (Results, error) {
	res := Results{
		CID: c.Model, Task: id, Name: t.Name, Target: t.Encoding.Target, Positive: t.Encoding.Positive, Rounds: c.Round,
		Contributions: contributions(c, roster, enrolled), Missing: []record.NodeID{}, Nodes: []NodeResult{},
		Personal: cmp.Or(t.Personal, learn.Bias), Search: t.TrailOf(c),
	}
	var counted []Evaluation
	for i := range res.Contributions {
		given := &res.Contributions[i]
		e, ok := evaluations[given.PeerID]
		if ok {
			if why := e.misfit(c.Model, roster); why != "" {
				given.Why += "; its evaluation does not count: " + why
				ok = false
			}
		}
		if !ok {
			if given.InFinal {
				res.Missing = append(res.Missing, given.PeerID)
			}
			continue
		}
		counted = append(counted, e)
		res.Nodes = append(res.Nodes, NodeResult{
			PeerID: given.PeerID, Nation: given.Nation, Name: given.Name,
			TrainRows: given.TrainRows, TestRows: e.Federated.Rows, Pair: t.pair(e, len(res.Contributions) <= MaxNodes),
		})
	}
	all, err := sum(counted)
	if err != nil {
		return Results{}, err
	}
	res.AllRows = t.pair(all, true)
	for i := range res.Nodes {
		res.Nodes[i].Pair.few()
	}
	if t.Parent != nil {
		res.Lineage = []record.CID{t.Parent.Model}
		if len(res.Missing) == 0 && all.Parent != nil && all.Federated.Rows > 0 {
			promoted := notWorse(res.AllRows.Federated, *res.AllRows.Parent)
			res.Promoted = &promoted
		}
	}
	res.Mean = over(res.Nodes, func(sorted []float64, _ bool) float64 {
		sum := 0.0
		for _, v := range sorted {
			sum += v
		}
		return sum / float64(len(sorted))
	})
	res.Worst = over(res.Nodes, func(sorted []float64, errors bool) float64 {
		if errors { // of which more is worse
			return sorted[len(sorted)-1]
		}
		return sorted[0]
	})
	return res, nil
}

// misfit says why an evaluation that was checked cannot be added to the others.
func (e Evaluation) misfit(model record.CID, roster Roster) string {
	if e.Model != model {
		return "it is of another model"
	}
	unit := 0.0
	if n := len(roster.Scaling.SD); n > 0 {
		unit = roster.Scaling.SD[n-1] // of a numeric target, which comes last
	}
	counts := []*learn.Counts{&e.Local, &e.Federated, &e.Personal, e.Parent}
	for _, of := range counts {
		if of != nil && of.Errors != nil && unit > 0 && of.Errors.Unit != unit {
			return fmt.Sprintf("its errors are in units of %g, not %g", of.Errors.Unit, unit)
		}
	}
	return ""
}

// pair makes the reports of an evaluation, with intervals and other details where
// wanted: they take time.
func (t Task) pair(e Evaluation, detailed bool) Pair {
	report := func(c learn.Counts) learn.Report {
		if !detailed {
			return c.Report(t.Encoding.Classes, t.Encoding.Positive)
		}
		return c.Detailed(t.Encoding.Classes, t.Encoding.Positive, t.Encoding.Sensitive, t.Encoding.Groups)
	}
	p := Pair{
		Local: report(e.Local), Federated: report(e.Federated), Personal: report(e.Personal),
		Gain: learn.Gain{Rows: e.Federated.Rows, Better: e.Better, Worse: e.Worse},
	}
	if detailed {
		p.Gain = learn.GainOf(e.Federated.Rows, e.Better, e.Worse)
	}
	if e.Parent != nil {
		parent := report(*e.Parent)
		p.Parent = &parent
	}
	return p
}

// few takes out of a node's reports what says little of few rows, or too much of
// small groups.
func (p *Pair) few() {
	reports := []*learn.Report{&p.Local, &p.Federated, &p.Personal}
	if p.Parent != nil {
		reports = append(reports, p.Parent)
	}
	for _, r := range reports {
		r.Calibration, r.ROC, r.Fairness = nil, nil, nil
	}
}

// sum adds evaluations up.
func sum(evaluations []Evaluation) (all Evaluation, err error) {
	add := func(to *learn.Counts, of func(Evaluation) learn.Counts) {
		parts := make([]learn.Counts, len(evaluations))
		for i, e := range evaluations {
			parts[i] = of(e)
		}
		total, problem := learn.Sum(parts)
		*to, err = total, cmp.Or(err, problem)
	}
	add(&all.Local, func(e Evaluation) learn.Counts { return e.Local })
	add(&all.Federated, func(e Evaluation) learn.Counts { return e.Federated })
	add(&all.Personal, func(e Evaluation) learn.Counts { return e.Personal })
	for _, e := range evaluations {
		all.Better, all.Worse = all.Better+e.Better, all.Worse+e.Worse
	}
	if len(evaluations) > 0 && evaluations[0].Parent != nil {
		all.Parent = new(learn.Counts)
		add(all.Parent, func(e Evaluation) learn.Counts { return *e.Parent })
	}
	return all, err
}

// notWorse tells whether a model does at least as well as its parent: by the
// accuracy, or by the squared error.
func notWorse(model, parent learn.Report) bool {
	if model.RMSE != nil && parent.RMSE != nil {
		return *model.RMSE <= *parent.RMSE
	}
	return model.Accuracy != nil && parent.Accuracy != nil && *model.Accuracy >= *parent.Accuracy
}

// over computes a figure of each metric from its values at the nodes. They are
// sorted, so that a sum is the same whatever the nodes' IDs are.
func over(nodes []NodeResult, figure func(sorted []float64, errors bool) float64) MeanPair {
	of := func(report func(NodeResult) learn.Report) Metrics {
		metric := func(metric func(learn.Report) *float64, errors bool) *float64 {
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
			v := figure(values, errors)
			return &v
		}
		return Metrics{
			Accuracy: metric(func(r learn.Report) *float64 { return r.Accuracy }, false),
			F1:       metric(func(r learn.Report) *float64 { return r.F1 }, false),
			ROCAUC:   metric(func(r learn.Report) *float64 { return r.ROCAUC }, false),
			MAE:      metric(func(r learn.Report) *float64 { return r.MAE }, true),
			RMSE:     metric(func(r learn.Report) *float64 { return r.RMSE }, true),
			R2:       metric(func(r learn.Report) *float64 { return r.R2 }, false),
		}
	}
	return MeanPair{
		Local:     of(func(n NodeResult) learn.Report { return n.Local }),
		Federated: of(func(n NodeResult) learn.Report { return n.Federated }),
		Personal:  of(func(n NodeResult) learn.Report { return n.Personal }),
	}
}
