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
)

//go:embed report.html
var page string

var pageTemplate = template.Must(template.New("report").Parse(page))

// drawing is a figure that has been drawn.
type drawing struct {
	figure
	svg string
}

// How many lines the page's long tables have; the CSV files have all.
const (
	maxNodes   = 200
	maxReplays = 200
)

type reportPage struct {
	Title     string
	Lead      string
	Notes     []string
	Settings  []reportSetting
	Figures   []reportFigure
	Replays   []replay
	Unlisted  int // replays left out
	Labelled  bool
	Deviation bool // some setting has several runs
	Real      bool // some run had real nodes
}

type reportSetting struct {
	Label                                                   string
	Runs                                                    string
	Scopes                                                  []reportScope
	Rounds, Messages, Bytes, Time, Disagreement, Unfinished string
	Verdict, Extremes                                       string
	ScenarioFile, Scenario                                  string
	Nodes                                                   []reportNode
	Total                                                   int
}

type reportScope struct {
	Name    string
	Metrics []reportPair
}

// reportPair is a metric alone and with the federation.
type reportPair struct {
	Local, Federated string
	Class            string // up, down, or "" where the figures are the same or one is missing
}

type reportNode struct {
	Nation, Name, TrainRows, TestRows string
	Metrics                           []reportPair
	Gain, Class                       string
	Skipped                           string // nodes left out here, instead of a node
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
			p.Notes = append(p.Notes, fmt.Sprintf("The lines of %s end at round %s, where its shortest run has ended; rounds.csv has the rest.", s.name(), count(float64(round))))
		}
	}
	runs := 0
	for i, s := range all {
		runs += len(s.runs)
		p.Deviation = p.Deviation || len(s.runs) > 1
		p.Settings = append(p.Settings, s.report(scenarioFile(i, len(all)), max(20, maxNodes/len(all))))
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
	p.Lead = plural(runs, "run")
	if len(all) > 1 {
		p.Lead += " of " + plural(len(all), "setting")
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
		Label: s.name(), Runs: count(float64(sum.Runs)), Rounds: sum.Rounds.Format(count), Messages: sum.Messages.Format(count),
		Bytes: sum.Bytes.Bytes(), Time: sum.VirtualSeconds.Seconds(), Disagreement: sum.Disagreement.Format(power),
		Verdict: sum.Verdict(), Extremes: s.extremes(), ScenarioFile: scenarioFile, Scenario: plainLines(s.runs[0].Scenario),
	}
	if n := sum.Runs - sum.Done; n > 0 {
		r.Unfinished = fmt.Sprintf("%d of %s did not come to the end", n, plural(sum.Runs, "run"))
	}
	for _, scope := range []struct {
		name string
		Compare
	}{{"all rows", sum.AllRows}, {"mean of nodes", sum.Mean}, {"worst node", sum.Worst}} {
		r.Scopes = append(r.Scopes, reportScope{scope.name, pairs(scope.Local, scope.Federated)})
	}
	order := byGain(s.nodes)
	r.Total = len(order)
	for i, at := range order {
		if len(order) > mostNodes {
			if i == mostNodes/2 {
				r.Nodes = append(r.Nodes, reportNode{Skipped: plural(len(order)-mostNodes/2*2, "more node")})
			}
			if i >= mostNodes/2 && i < len(order)-mostNodes/2 {
				continue
			}
		}
		r.Nodes = append(r.Nodes, s.nodes[at].report())
	}
	return r
}

func (n nodeStat) report() reportNode {
	r := reportNode{
		Nation: n.nation, Name: n.name, TrainRows: n.trainRows.Format(count), TestRows: n.testRows.Format(count),
		Metrics: pairs(n.local, n.federated), Gain: n.gain.Format(signed),
	}
	if n.gain.N > 1 {
		r.Gain = signed(n.gain.Mean) + " ± " + strings.TrimPrefix(signed(n.gain.SD), "+")
	}
	r.Class = direction(n.gain.Mean)
	return r
}

func pairs(local, federated MetricStats) (list []reportPair) {
	for _, m := range [][2]Stat{{local.Accuracy, federated.Accuracy}, {local.F1, federated.F1}, {local.ROCAUC, federated.ROCAUC}} {
		p := reportPair{Local: m[0].Format(ratio), Federated: m[1].Format(ratio)}
		if m[0].N > 0 && m[1].N > 0 {
			p.Class = direction(m[1].Mean - m[0].Mean)
		}
		list = append(list, p)
	}
	return list
}

// direction is the class of a gain that can be seen in three decimals.
func direction(gain float64) string {
	switch {
	case gain >= 0.0005:
		return "up"
	case gain <= -0.0005:
		return "down"
	}
	return ""
}

// extremes names who gains most and who loses most.
func (s setting) extremes() string {
	order := slices.DeleteFunc(byGain(s.nodes), func(i int) bool { return s.nodes[i].gain.N == 0 })
	if len(order) < 2 {
		return ""
	}
	best, worst := s.nodes[order[0]], s.nodes[order[len(order)-1]]
	span := fmt.Sprintf("From the best to the worst: %s percentage points (%s) to %s (%s)",
		signed(best.gain.Mean), best.title(), signed(worst.gain.Mean), worst.title())
	if len(s.runs) > 1 {
		span += ", each the mean over its runs"
	}
	return span + "."
}
