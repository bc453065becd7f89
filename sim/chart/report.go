package chart

import (
	_ "embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io"
	"regexp"
	"slices"
	"strings"

	"village/protocol/figure"
)

//go:embed report.html
var page string

var pageTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"style": func() template.CSS { return template.CSS(figure.Style()) },
}).Parse(page))

// drawing is a chart that has been drawn.
type drawing struct {
	chart
	svg string
}

// How many lines the page's long tables have; the CSV files have all.
const (
	maxNodes   = 200
	maxReplays = 200
)

type reportPage struct {
	Title         string
	Lead          string
	Notes         []string
	Kinds         []reportKind
	Settings      []reportSetting
	Figures       []reportFigure
	Replays       []replay
	Unlisted      int // replays left out
	Labelled      bool
	Deviation     bool // some setting has several runs
	Intervals     bool // some figure of all rows has one
	GainIntervals bool // some gain has one
	Own           bool // some node has a part of its own
	Fair          bool // some setting tells groups apart
	Searched      bool // some setting has searched
	Real          bool // some run had real nodes
}

// reportKind is the settings whose target is of one kind, which share a table.
type reportKind struct {
	Metrics, Models []string
	Settings        []reportSetting
}

type reportSetting struct {
	Label                                                   string
	Runs                                                    string
	Metrics, Models                                         []string
	Gain                                                    string // in what it is
	Scopes                                                  []reportScope
	Rounds, Messages, Bytes, Time, Disagreement, Unfinished string
	Verdict, Extremes                                       string
	ScenarioFile, Scenario                                  string
	Nodes                                                   []reportNode
	Total, Columns                                          int
	Fairness                                                *reportFairness
	Search                                                  *reportSearch
}

// cell is a figure, what is small below it, and whether it is better or worse
// than that of training alone: up, down or "".
type cell struct{ Value, Small, Class string }

type reportScope struct {
	Name    string
	Metrics [][]cell // by metric, by model
}

type reportNode struct {
	Nation, Name              string
	TrainRows, TestRows, Gain cell
	Metrics                   [][]cell
	Skipped                   string // nodes left out here, instead of a node
}

type reportFigure struct {
	Name, Caption string
	SVG           template.HTML
}

type replay struct{ Label, Seed, Digest, Command string }

func writeReport(w io.Writer, title string, all []setting, figures []drawing, notes []string) error {
	p := reportPage{Title: plain(title), Labelled: len(all) > 1}
	for _, n := range notes {
		p.Notes = append(p.Notes, plain(n))
	}
	for _, s := range all {
		if round, cut := s.cut(); cut {
			p.Notes = append(p.Notes, fmt.Sprintf("The lines of %s end at round %s, where its shortest run has ended; rounds.csv has the rest.", s.name(), figure.Count(round)))
		}
	}
	runs := 0
	for i, s := range all {
		runs += len(s.runs)
		r := s.report(scenarioFile(i, len(all)), max(20, maxNodes/len(all)))
		p.Settings = append(p.Settings, r)
		p.Deviation = p.Deviation || len(s.runs) > 1
		p.Own = p.Own || s.own() != ""
		p.Fair = p.Fair || r.Fairness != nil
		p.Searched = p.Searched || r.Search != nil
		p.Intervals = p.Intervals || len(s.runs) == 1 && s.runs[0].Result.Results.AllRows.Federated.Intervals != nil
		p.GainIntervals = p.GainIntervals || slices.ContainsFunc(s.nodes, func(n nodeStat) bool { return n.interval != nil })
		for _, r := range s.runs {
			p.Real = p.Real || r.Real
			if len(p.Replays) == maxReplays {
				p.Unlisted++
				continue
			}
			again := replay{
				Label: s.name(), Seed: whole(r.Seed), Digest: hex.EncodeToString(r.Result.Digest[:]),
				Command: fmt.Sprintf("village sim run %s --seed %d", scenarioFile(i, len(all)), r.Seed),
			}
			if r.Real {
				again.Command += " --real"
			}
			p.Replays = append(p.Replays, again)
		}
	}
	for _, k := range []figure.Kind{figure.OfClasses, figure.OfNumbers} {
		if t := kindTable(all, k); len(t.Settings) > 0 {
			p.Kinds = append(p.Kinds, t)
		}
	}
	p.Lead = figure.Plural(runs, "run")
	if len(all) > 1 {
		p.Lead += " of " + figure.Plural(len(all), "setting")
	}
	for _, d := range figures {
		p.Figures = append(p.Figures, reportFigure{Name: d.name, Caption: d.caption, SVG: inline(d.svg)})
	}
	return pageTemplate.Execute(w, p)
}

var svgHead = regexp.MustCompile(`(?s)^.*?<svg[^>]*(viewBox="[^"]*")[^>]*>`)

// inline makes of a drawing of ours a part of the page: without what only a
// file needs, and in the page's colours. Text in it is escaped already.
func inline(svg string) template.HTML {
	svg = svgHead.ReplaceAllString(svg, `<svg $1 aria-hidden="true">`)
	return template.HTML(strings.NewReplacer(cssNames()...).Replace(svg))
}

func (s setting) report(scenarioFile string, mostNodes int) reportSetting {
	sum := s.summary()
	r := reportSetting{
		Label: s.name(), Runs: figure.Count(sum.Runs), Rounds: sum.Rounds.Format(figure.Count[float64]), Messages: sum.Messages.Format(figure.Count[float64]),
		Bytes: sum.Bytes.Bytes(), Time: sum.VirtualSeconds.Seconds(), Disagreement: sum.Disagreement.Format(figure.Power),
		Verdict: sum.Verdict(), Extremes: s.extremes(), ScenarioFile: scenarioFile, Scenario: plainLines(s.runs[0].Scenario),
	}
	if n := sum.Runs - sum.Done; n > 0 {
		r.Unfinished = fmt.Sprintf("%d of %s did not come to the end", n, figure.Plural(sum.Runs, "run"))
	}
	for _, m := range s.kind.Metrics {
		r.Metrics = append(r.Metrics, m.Name)
	}
	r.Models, r.Gain = s.models(), s.kind.Lead.Name
	r.Columns = 5 + len(r.Metrics)*len(r.Models)
	r.Fairness, r.Search = s.fairness(), s.search()
	order := byGain(s.nodes)
	r.Total = len(order)
	for i, at := range order {
		if len(order) > mostNodes {
			if i == mostNodes/2 {
				r.Nodes = append(r.Nodes, reportNode{Skipped: figure.Plural(len(order)-mostNodes/2*2, "more node")})
			}
			if i >= mostNodes/2 && i < len(order)-mostNodes/2 {
				continue
			}
		}
		r.Nodes = append(r.Nodes, s.nodes[at].report(s.kind, len(r.Models)))
	}
	return r
}

// kindTable sets alone beside federated, at the settings whose target is of a
// kind.
func kindTable(all []setting, k figure.Kind) (t reportKind) {
	for _, m := range k.Metrics {
		t.Metrics = append(t.Metrics, m.Name)
	}
	t.Models = []string{"alone", "federated"}
	var of []setting
	for _, s := range all {
		if s.numeric() != k.Numeric() {
			continue
		}
		of = append(of, s)
		switch part := s.own(); {
		case part == "":
		case len(t.Models) == 2:
			t.Models = append(t.Models, part)
		case t.Models[own] != part:
			t.Models[own] = "own part"
		}
	}
	for _, s := range of {
		sum := s.summary()
		r := reportSetting{Label: s.name()}
		for i, scope := range []struct {
			name string
			Compare
		}{{"all rows", sum.AllRows}, {"mean of nodes", sum.Mean}, {"worst node", sum.Worst}} {
			var figures [models]MetricStats
			for m, of := range scope.models() {
				figures[m] = *of
			}
			cells := figureCells(k, figures, len(t.Models))
			if i == 0 && len(s.runs) == 1 {
				for m, report := range reports(s.runs[0].Result.Results.AllRows) {
					for j, metric := range k.Metrics {
						if m < len(t.Models) {
							cells[j][m].Small = metric.ShowInterval(report)
						}
					}
				}
			}
			r.Scopes = append(r.Scopes, reportScope{scope.name, cells})
		}
		t.Settings = append(t.Settings, r)
	}
	return t
}

// figureCells are the figures by metric and by model, of the first models.
func figureCells(k figure.Kind, figures [models]MetricStats, n int) (list [][]cell) {
	for _, m := range k.Metrics {
		var row []cell
		for i := range n {
			than, s := figures[alone].Of(m), figures[i].Of(m)
			c := s.cell(m.Beside(s.Mean))
			if than.N > 0 && s.N > 0 {
				c.Class = m.Direction(&than.Mean, &s.Mean)
			}
			row = append(row, c)
		}
		list = append(list, row)
	}
	return list
}

// cell has the mean, and below it the standard deviation of several values.
func (s Stat) cell(number func(float64) string) cell {
	c := cell{Value: Stat{N: min(s.N, 1), Mean: s.Mean}.Format(number)}
	if s.N > 1 {
		c.Small = "± " + number(s.SD)
	}
	return c
}

func (n nodeStat) report(k figure.Kind, models int) reportNode {
	r := reportNode{
		Nation: n.nation, Name: n.name, TrainRows: rowsCell(n.trainRows), TestRows: rowsCell(n.testRows),
		Metrics: figureCells(k, n.figures, models), Gain: n.gains[federated].cell(k.Signed),
	}
	if n.gains[federated].N > 1 {
		r.Gain.Small = "± " + spread(k, n.gains[federated])
	}
	if i := n.interval; i != nil {
		r.Gain.Small = k.SignedInterval(*i)
	}
	r.Gain.Class = figure.SignDirection(r.Gain.Value)
	return r
}

// rowsCell counts rows; those that are the same in all runs stand alone.
func rowsCell(s Stat) cell {
	if s.SD == 0 {
		s.N = min(s.N, 1)
	}
	return s.cell(figure.Count[float64])
}

// extremes names who gains most and who loses most.
func (s setting) extremes() string {
	order := slices.DeleteFunc(byGain(s.nodes), func(i int) bool { return s.nodes[i].gains[federated].N == 0 })
	if len(order) < 2 {
		return ""
	}
	best, worst := s.nodes[order[0]], s.nodes[order[len(order)-1]]
	span := fmt.Sprintf("From the best to the worst: %s %s (%s) to %s (%s)",
		s.kind.Signed(best.gains[federated].Mean), unit(s.kind), best.title(), s.kind.Signed(worst.gains[federated].Mean), worst.title())
	if len(s.runs) > 1 {
		span += ", each the mean over its runs"
	}
	return span + "."
}
