package chart

import (
	"fmt"
	"slices"

	"village/protocol/figure"
	"village/protocol/task"
)

// reportFairness is how the groups of the sensitive column fare, on all test
// rows.
type reportFairness struct {
	Column  string
	Figures []string // that are defined
	Groups  []reportGroup
	Apart   []reportScope // a difference between groups, of each model
	Hidden  string
}

type reportGroup struct {
	Name    string
	Rows    cell
	Figures [][]cell // by figure, by model
}

// fairness is over all runs of the setting; nil where no groups were told apart.
func (s setting) fairness() *reportFairness {
	type samples struct {
		name    string
		rows    []float64
		figures [len(figure.Rates)][models][]float64
	}
	f := &reportFairness{}
	var groups []*samples
	var apart [len(figure.Differences)][models][]float64
	hidden := 0
	for _, r := range s.runs {
		for m, report := range reports(r.Result.Results.AllRows) {
			of := report.Fairness
			if of == nil {
				continue
			}
			f.Column, hidden = plain(of.Column), max(hidden, of.Hidden)
			for k, d := range figure.Differences {
				apart[k][m] = appendDefined(apart[k][m], d.Of(*of))
			}
			for _, g := range of.Groups {
				i := slices.IndexFunc(groups, func(o *samples) bool { return o.name == g.Group })
				if i < 0 {
					i = len(groups)
					groups = append(groups, &samples{name: g.Group})
				}
				groups[i].rows = append(groups[i].rows, float64(g.Rows))
				for k, rate := range figure.Rates {
					groups[i].figures[k][m] = appendDefined(groups[i].figures[k][m], rate.Of(g))
				}
			}
		}
	}
	if f.Column == "" {
		return nil
	}
	n := len(s.models())
	var shown []int // figures that are defined
	for k, rate := range figure.Rates {
		if slices.ContainsFunc(groups, func(g *samples) bool { return len(g.figures[k][federated]) > 0 }) {
			f.Figures, shown = append(f.Figures, rate.Name), append(shown, k)
		}
	}
	for _, g := range groups {
		row := reportGroup{Name: plain(g.name), Rows: rowsCell(statOf(g.rows))}
		for _, k := range shown {
			row.Figures = append(row.Figures, statCells(g.figures[k], n))
		}
		f.Groups = append(f.Groups, row)
	}
	if len(apart[0][federated]) > 0 {
		for k, d := range figure.Differences {
			f.Apart = append(f.Apart, reportScope{d.Name + ": " + d.Between, [][]cell{statCells(apart[k], n)}})
		}
	}
	if hidden > 0 {
		f.Hidden = figure.Plural(hidden, "group") + " of fewer than ten rows"
	}
	return f
}

func appendDefined(to []float64, v *float64) []float64 {
	if !figure.Finite(v) {
		return to
	}
	return append(to, *v)
}

func statCells(values [models][]float64, n int) (row []cell) {
	for _, v := range values[:n] {
		row = append(row, statOf(v).cell(figure.Ratio))
	}
	return row
}

// reportSearch is how the first run that searched has chosen its model, and what
// the others have chosen.
type reportSearch struct {
	Seed       string
	Rungs      []string
	Candidates []reportCandidate
	Others     []string
}

type reportCandidate struct {
	Name, Rate, Steps, L2 string
	Losses                []cell // by rung
	Fate                  string
	Chosen                bool
}

func (s setting) search() *reportSearch {
	var r *reportSearch
	for _, run := range s.runs {
		t := run.Result.Results.Search
		if t == nil || t.Chosen < 0 || t.Chosen >= len(t.Candidates) {
			continue
		}
		if r == nil {
			r = searchOf(*t)
			r.Seed = whole(run.Seed)
			continue
		}
		c := t.Candidates[t.Chosen]
		r.Others = append(r.Others, fmt.Sprintf("seed %d: %s, learning rate %s, %s, L2 %s",
			run.Seed, plain(figure.CandidateName(c)), figure.Setting(c.LearningRate), figure.Plural(c.LocalSteps, "local step"), figure.Setting(c.L2)))
	}
	return r
}

func searchOf(t task.Trail) *reportSearch {
	r := &reportSearch{}
	for _, rung := range t.Rungs {
		r.Rungs = append(r.Rungs, fmt.Sprintf("round %d", rung.Round))
	}
	for _, fate := range figure.Fates(t) {
		c := t.Candidates[fate.Candidate]
		row := reportCandidate{
			Name: plain(figure.CandidateName(c)), Rate: figure.Setting(c.LearningRate), Steps: whole(c.LocalSteps), L2: figure.Setting(c.L2),
			Chosen: fate.Candidate == t.Chosen,
		}
		for at, loss := range fate.Losses {
			x := cell{Value: figure.Show(loss, figure.Quantity)}
			if loss != nil && slices.Contains(t.Rungs[at].Kept, fate.Candidate) {
				x.Class = "f"
			}
			row.Losses = append(row.Losses, x)
		}
		switch {
		case row.Chosen:
			row.Fate = "chosen"
		case fate.Rungs() > 0:
			row.Fate = "dropped"
		}
		r.Candidates = append(r.Candidates, row)
	}
	return r
}
