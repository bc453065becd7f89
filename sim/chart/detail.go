package chart

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"village/protocol/learn"
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

// groupFigures are those of a group. The last three are of two classes alone.
var groupFigures = [...]struct {
	name string
	of   func(learn.GroupReport) *float64
}{
	{"accuracy", func(g learn.GroupReport) *float64 { return g.Accuracy }},
	{"selection rate", func(g learn.GroupReport) *float64 { return g.Selection }},
	{"TPR", func(g learn.GroupReport) *float64 { return g.TPR }},
	{"FPR", func(g learn.GroupReport) *float64 { return g.FPR }},
}

// fairness is over all runs of the setting; nil where no groups were told apart.
func (s setting) fairness() *reportFairness {
	type samples struct {
		name    string
		rows    []float64
		figures [len(groupFigures)][models][]float64
	}
	f := &reportFairness{}
	var groups []*samples
	var parity, odds [models][]float64
	hidden := 0
	for _, r := range s.runs {
		for m, report := range reports(r.Result.Results.AllRows) {
			of := report.Fairness
			if of == nil {
				continue
			}
			f.Column, hidden = plain(of.Column), max(hidden, of.Hidden)
			parity[m], odds[m] = appendDefined(parity[m], of.DemographicParity), appendDefined(odds[m], of.EqualisedOdds)
			for _, g := range of.Groups {
				i := slices.IndexFunc(groups, func(o *samples) bool { return o.name == g.Group })
				if i < 0 {
					i = len(groups)
					groups = append(groups, &samples{name: g.Group})
				}
				groups[i].rows = append(groups[i].rows, float64(g.Rows))
				for k, figure := range groupFigures {
					groups[i].figures[k][m] = appendDefined(groups[i].figures[k][m], figure.of(g))
				}
			}
		}
	}
	if f.Column == "" {
		return nil
	}
	n := len(s.models())
	var shown []int // figures that are defined
	for k, figure := range groupFigures {
		if slices.ContainsFunc(groups, func(g *samples) bool { return len(g.figures[k][federated]) > 0 }) {
			f.Figures, shown = append(f.Figures, figure.name), append(shown, k)
		}
	}
	for _, g := range groups {
		row := reportGroup{Name: plain(g.name), Rows: rowsCell(statOf(g.rows))}
		for _, k := range shown {
			row.Figures = append(row.Figures, statCells(g.figures[k], n))
		}
		f.Groups = append(f.Groups, row)
	}
	if len(parity[federated]) > 0 {
		f.Apart = []reportScope{
			{"demographic parity: selection rates", [][]cell{statCells(parity, n)}},
			{"equalised odds: TPR or FPR, the larger", [][]cell{statCells(odds, n)}},
		}
	}
	if hidden > 0 {
		f.Hidden = plural(hidden, "group") + " of fewer than ten rows"
	}
	return f
}

func appendDefined(to []float64, v *float64) []float64 {
	if v = finite(v); v == nil {
		return to
	}
	return append(to, *v)
}

func statCells(values [models][]float64, n int) (row []cell) {
	for _, v := range values[:n] {
		row = append(row, statOf(v).cell(Ratio))
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
			run.Seed, candidateName(c), setByHand(c.LearningRate), plural(int(c.LocalSteps), "local step"), setByHand(c.L2)))
	}
	return r
}

func searchOf(t task.Trail) *reportSearch {
	r := &reportSearch{}
	for _, rung := range t.Rungs {
		r.Rungs = append(r.Rungs, fmt.Sprintf("round %d", rung.Round))
	}
	loss := func(rung, candidate int) *float64 {
		if losses := t.Rungs[rung].Losses; candidate < len(losses) {
			return finite(losses[candidate])
		}
		return nil
	}
	last := func(candidate int) int { // rung in which it was
		at := len(t.Rungs) - 1
		for at >= 0 && loss(at, candidate) == nil {
			at--
		}
		return at
	}
	order := make([]int, len(t.Candidates))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case a == t.Chosen:
			return -1
		case b == t.Chosen:
			return 1
		case last(a) != last(b):
			return last(b) - last(a)
		case last(a) < 0:
			return 0
		}
		return cmp.Compare(*loss(last(a), a), *loss(last(b), b))
	})
	for _, i := range order {
		c := t.Candidates[i]
		row := reportCandidate{
			Name: candidateName(c), Rate: setByHand(c.LearningRate), Steps: whole(c.LocalSteps), L2: setByHand(c.L2), Chosen: i == t.Chosen,
		}
		for at, rung := range t.Rungs {
			x := cell{Value: "–"}
			if v := loss(at, i); v != nil {
				x.Value = Quantity(*v)
				if slices.Contains(rung.Kept, i) {
					x.Class = "f"
				}
			}
			row.Losses = append(row.Losses, x)
		}
		switch at := last(i); {
		case row.Chosen:
			row.Fate = "chosen"
		case at >= 0:
			row.Fate = "dropped"
		}
		r.Candidates = append(r.Candidates, row)
	}
	return r
}

// candidateName says what model a candidate is, and what is special about its
// training.
func candidateName(c task.Candidate) string {
	name := plain(string(c.Model))
	var widths []string
	for _, w := range c.Hidden {
		widths = append(widths, strconv.Itoa(w))
	}
	if len(widths) > 0 {
		name += " " + strings.Join(widths, "-")
	}
	if c.Optimizer != learn.SGD {
		name += ", " + plain(string(c.Optimizer))
	}
	if c.Outer != learn.Plain {
		name += ", outer " + plain(string(c.Outer)) + " " + setByHand(c.OuterRate)
	}
	return name
}

// setByHand writes a number such as a learning rate.
func setByHand(v float64) string {
	if finite(&v) == nil {
		return "–"
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}
