// Package report writes the report of a task as one page of HTML that needs
// nothing else: who gains by the federation and who does not, in words, plots and
// tables.
package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"

	"village/node/api"
	"village/node/table"
	"village/protocol/figure"
	"village/protocol/learn"
	"village/protocol/record"
)

//go:embed report.html
var source string

var pageTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"style": func() template.CSS { return template.CSS(figure.Style()) },
}).Parse(source))

// Write writes the page. A figure that is undefined is a dash, and a part that
// the report has nothing on is left out.
func Write(w io.Writer, r api.Report) error {
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, newPage(r)); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

// page is what the template shows. Its text is fit for a line; the template
// escapes it.
type page struct {
	report api.Report
	kind   figure.Kind

	Title, Lead   string
	Verdict       []string
	Missing       string
	Personal      string // what each node has for itself, "" where there is no such model
	Names         []string
	Headline      []scope
	Figures       []plot
	Metrics       []string
	Intervals     bool
	Gain          bool // there is a difference of accuracies with an interval
	Nodes         []nodeRow
	Classes       *classes
	Confusions    []confusion
	Fairness      *fairness
	Contributions []contribution
	Search        *search
	Lineage       *lineage
	CID, Report   string
	Task          string
}

// cell is a figure with its 95 % interval, and whether it is better or worse than
// that of local only: "up", "down" or "".
type cell struct{ Value, Interval, Class string }

// scope is a part of the headline table.
type scope struct {
	Name string
	Rows []scopeRow
}

type scopeRow struct {
	Metric string
	Cells  []cell
	Gain   cell // of federated over local only
}

type nodeRow struct {
	ID, Nation, Name, TrainRows, TestRows string
	Gain                                  cell
	Metrics                               [][]cell // by metric, by model
}

type classes struct {
	Rows     []classRow
	Averages []classRow
}

type classRow struct {
	Label, Support string
	Models         [][3]string // precision, recall, F1
}

type confusion struct {
	Model  string
	Labels []string
	Rows   []confusionRow
}

type confusionRow struct {
	Label string
	Cells []confusionCell
}

// confusionCell has a shade from 0 to 9, by its share of the row.
type confusionCell struct {
	Count string
	Shade int
}

type fairness struct {
	Column string
	Rates  []string
	Groups []groupRow
	Hidden string
	Apart  []apart // none without a positive class
}

// groupRow is a group under each model.
type groupRow struct {
	Group, Rows string
	Models      [][]string // its name and rates
}

type apart struct {
	Name  string
	Cells []string // by model
}

type contribution struct {
	Name, ID, TrainRows, Round, In, Why string
}

type search struct {
	Rungs      []string
	Candidates []candidate
}

type candidate struct {
	Name, Rate, Steps, L2 string
	Losses                []loss
	Fate                  string
	Chosen                bool
}

type loss struct {
	Value string
	Kept  bool
}

type lineage struct {
	Parents   []string
	Promotion string
	Compared  []parentRow
}

type parentRow struct {
	Metric, Parent, ParentInterval string
	This                           cell
}

func newPage(r api.Report) *page {
	p := &page{report: r, kind: table.Kind(r), CID: cid(r.CID), Report: cid(r.Report), Task: cid(r.Task)}
	p.Title = table.Or(r.Name) + ": " + table.Or(r.Target)
	p.Lead = "Predicts " + table.Or(r.Target)
	if p.kind.Numeric() {
		p.Lead += ", a number"
	} else {
		var labels []string
		for _, c := range r.AllRows.Federated.Classes {
			labels = append(labels, table.Or(c.Label))
		}
		p.Lead += " (" + strings.Join(labels, ", ") + ")"
		if r.Positive != "" {
			p.Lead += "; the positive class is " + p.positive()
		}
	}
	p.Lead += fmt.Sprintf(". Trained by %s in %s, without a coordinator.", figure.Plural(p.contributors(), "node"), figure.Plural(r.Rounds, "round"))
	p.Verdict = table.Verdict(r)
	p.Missing = missing(r)
	for _, m := range p.models() {
		p.Names = append(p.Names, p.names()[m])
	}
	if table.HasPersonal(r) {
		p.Personal = figure.PartName(r.Personal)
	}
	for _, m := range p.kind.Metrics {
		p.Metrics = append(p.Metrics, m.Name)
	}
	p.headline()
	p.Figures = p.gains()
	for _, f := range []*plot{p.roc(), p.calibration()} {
		if f != nil {
			p.Figures = append(p.Figures, *f)
		}
	}
	p.nodes()
	if !p.kind.Numeric() {
		p.classes()
	}
	p.fairness()
	for _, c := range r.Contributions {
		row := contribution{
			Name: table.NodeName(c.Nation, c.Name, ""), ID: c.PeerID.String(), TrainRows: figure.Count(c.TrainRows), Round: figure.Count(c.Round), In: "no", Why: table.Text(c.Why),
		}
		if c.InFinal {
			row.In = "yes"
		}
		if c.Late {
			row.Why += "; joined late"
		}
		p.Contributions = append(p.Contributions, row)
	}
	p.search()
	p.lineage()
	return p
}

// contributors counts the nodes whose update the model is made of.
func (p *page) contributors() (n int) {
	for _, c := range p.report.Contributions {
		if c.InFinal {
			n++
		}
	}
	return n
}

func (p *page) positive() string {
	if p.report.Positive == "" {
		return "the positive class"
	}
	return table.Text(p.report.Positive)
}

// cells are a metric's figures of the models.
func (p *page) cells(m figure.Metric, pair api.Pair) (cells []cell) {
	for _, model := range p.models() {
		r := model.of(pair)
		c := cell{Value: m.Show(m.Of(r)), Interval: m.ShowInterval(r)}
		p.Intervals = p.Intervals || c.Interval != ""
		if model != local {
			c.Class = m.Direction(m.Of(pair.Local), m.Of(r))
		}
		cells = append(cells, c)
	}
	return cells
}

func (p *page) headline() {
	all := scope{Name: "all " + figure.Count(p.report.AllRows.Federated.Rows) + " test rows"}
	for _, m := range p.kind.Metrics {
		row := scopeRow{Metric: m.Name, Cells: p.cells(m, p.report.AllRows), Gain: gain(m, m.Of(p.report.AllRows.Local), m.Of(p.report.AllRows.Federated))}
		if m.Index == p.kind.Lead.Index && !p.kind.Numeric() {
			if _, interval := p.kind.Gained(p.report.AllRows); interval != nil {
				row.Gain.Interval = figure.Span(m.Signed(interval[0]), m.Signed(interval[1]))
			}
		}
		all.Rows = append(all.Rows, row)
	}
	row, some := scopeRow{Metric: "calibration error", Gain: cell{Value: figure.None}}, false
	for _, m := range p.models() {
		x := m.of(p.report.AllRows).CalibrationError
		row.Cells = append(row.Cells, cell{Value: ratio(x)})
		some = some || x != nil
	}
	if some {
		lower := figure.Metric{Lower: true, Format: figure.Ratio}
		row.Gain = gain(lower, p.report.AllRows.Local.CalibrationError, p.report.AllRows.Federated.CalibrationError)
		all.Rows = append(all.Rows, row)
	}
	p.Headline = append(p.Headline, all)
	for _, s := range []struct {
		name string
		api.MeanPair
	}{{"mean of nodes", p.report.Mean}, {"worst node", p.report.Worst}} {
		part := scope{Name: s.name}
		for _, m := range p.kind.Metrics {
			row := scopeRow{Metric: m.Name, Gain: gain(m, m.Across(s.Local), m.Across(s.Federated))}
			for _, model := range p.models() {
				x := m.Across([]api.Metrics{s.Local, s.Federated, s.Personal}[model])
				c := cell{Value: m.Show(x)}
				if model != local {
					c.Class = m.Direction(m.Across(s.Local), x)
				}
				row.Cells = append(row.Cells, c)
			}
			part.Rows = append(part.Rows, row)
		}
		p.Headline = append(p.Headline, part)
	}
}

// gained is a gain with its sign.
func gained(signed string) cell { return cell{Value: signed, Class: figure.SignDirection(signed)} }

// gain is by how much federated is better than local only.
func gain(m figure.Metric, local, federated *float64) cell {
	return gained(figure.Show(m.Better(local, federated), m.Signed))
}

func (p *page) nodes() {
	for _, n := range p.byGain() {
		row := nodeRow{
			ID: n.PeerID.String(), Nation: table.Or(n.Nation), Name: table.Or(n.Name), TrainRows: figure.Count(n.TrainRows), TestRows: figure.Count(n.TestRows),
		}
		for _, m := range p.kind.Metrics {
			row.Metrics = append(row.Metrics, p.cells(m, n.Pair))
		}
		row.Gain = cell{Value: figure.None}
		if gain, interval := p.kind.Gained(n.Pair); gain != nil && !p.kind.Numeric() {
			p.Gain = true
			row.Gain = gained(p.kind.Signed(*gain))
			if interval != nil {
				row.Gain.Interval = p.kind.SignedInterval(*interval)
			}
		}
		p.Nodes = append(p.Nodes, row)
	}
}

func (p *page) classes() {
	all := p.report.AllRows
	if len(all.Federated.Classes) == 0 {
		return
	}
	c := &classes{}
	for i, class := range all.Federated.Classes {
		row := classRow{Label: table.Or(class.Label), Support: figure.Count(class.Support)}
		for _, m := range p.models() {
			r := m.of(all)
			figures := [3]string{figure.None, figure.None, figure.None}
			if i < len(r.Classes) && r.Rows > 0 {
				figures = [3]string{ratio(&r.Classes[i].Precision), ratio(&r.Classes[i].Recall), ratio(&r.Classes[i].F1)}
			}
			row.Models = append(row.Models, figures)
		}
		c.Rows = append(c.Rows, row)
	}
	for _, a := range []struct {
		name string
		of   func(learn.Report) learn.Average
	}{
		{"macro average", func(r learn.Report) learn.Average { return r.Macro }},
		{"weighted average", func(r learn.Report) learn.Average { return r.Weighted }},
	} {
		row := classRow{Label: a.name, Support: figure.Count(all.Federated.Rows)}
		for _, m := range p.models() {
			r := m.of(all)
			figures := [3]string{figure.None, figure.None, figure.None}
			if r.Rows > 0 {
				v := a.of(r)
				figures = [3]string{ratio(&v.Precision), ratio(&v.Recall), ratio(&v.F1)}
			}
			row.Models = append(row.Models, figures)
		}
		c.Averages = append(c.Averages, row)
	}
	p.Classes = c
	for _, m := range []model{federated, local, personal} {
		r := m.of(all)
		if r.Rows == 0 || len(r.Confusion) != len(r.Classes) {
			continue
		}
		matrix := confusion{Model: p.names()[m]}
		for i, class := range r.Classes {
			matrix.Labels = append(matrix.Labels, table.Or(class.Label))
			row := confusionRow{Label: table.Or(class.Label)}
			total := uint64(0)
			for _, n := range r.Confusion[i] {
				total += n
			}
			for _, n := range r.Confusion[i] {
				row.Cells = append(row.Cells, confusionCell{figure.Count(n), int(min(9, 10*float64(n)/max(1, float64(total))))})
			}
			matrix.Rows = append(matrix.Rows, row)
		}
		p.Confusions = append(p.Confusions, matrix)
	}
}

func (p *page) fairness() {
	shown := p.report.AllRows.Federated.Fairness
	if shown == nil {
		return
	}
	f := &fairness{Column: table.Or(shown.Column)}
	if shown.Hidden > 0 {
		f.Hidden = figure.Plural(shown.Hidden, "group") + " of fewer than ten rows"
		if shown.Hidden == 1 {
			f.Hidden += " is"
		} else {
			f.Hidden += " are"
		}
	}
	of := func(m model) learn.Fairness {
		if f := m.of(p.report.AllRows).Fairness; f != nil {
			return *f
		}
		return learn.Fairness{}
	}
	binary := slices.ContainsFunc(shown.Groups, func(g learn.GroupReport) bool { return g.Selection != nil })
	for _, d := range figure.Differences {
		row := apart{Name: d.Name + ": " + d.Between}
		for _, m := range p.models() {
			x := d.Of(of(m))
			row.Cells, binary = append(row.Cells, ratio(x)), binary || x != nil
		}
		f.Apart = append(f.Apart, row)
	}
	rates := figure.Rates[:]
	if !binary {
		rates, f.Apart = rates[:1], nil
	}
	for _, rate := range rates {
		f.Rates = append(f.Rates, rate.Name)
	}
	for _, g := range shown.Groups {
		row := groupRow{Group: table.Or(g.Group), Rows: figure.Count(g.Rows)}
		for _, m := range p.models() {
			cells := []string{p.names()[m]}
			var found learn.GroupReport
			groups := of(m).Groups
			if at := slices.IndexFunc(groups, func(o learn.GroupReport) bool { return o.Group == g.Group }); at >= 0 {
				found = groups[at]
			}
			for _, rate := range rates {
				cells = append(cells, ratio(rate.Of(found)))
			}
			row.Models = append(row.Models, cells)
		}
		f.Groups = append(f.Groups, row)
	}
	p.Fairness = f
}

func (p *page) search() {
	t := p.report.Search
	if t == nil {
		return
	}
	s := &search{}
	for _, rung := range t.Rungs {
		s.Rungs = append(s.Rungs, fmt.Sprintf("round %d, %s", rung.Round, figure.Plural(rung.Nodes, "node")))
	}
	for _, fate := range figure.Fates(*t) {
		c := t.Candidates[fate.Candidate]
		row := candidate{
			Name: table.Text(figure.CandidateName(c)), Rate: figure.Setting(c.LearningRate), Steps: figure.Count(c.LocalSteps), L2: figure.Setting(c.L2), Chosen: fate.Candidate == t.Chosen,
		}
		for i, x := range fate.Losses {
			row.Losses = append(row.Losses, loss{figure.Show(x, figure.Quantity), x != nil && slices.Contains(t.Rungs[i].Kept, fate.Candidate)})
		}
		switch n := fate.Rungs(); {
		case row.Chosen:
			row.Fate = "chosen"
		case fate.Dropped:
			row.Fate = fmt.Sprintf("dropped after round %d", t.Rungs[n-1].Round)
		}
		s.Candidates = append(s.Candidates, row)
	}
	p.Search = s
}

func (p *page) lineage() {
	if len(p.report.Lineage) == 0 {
		return
	}
	l := &lineage{Promotion: table.Promotion(p.report)}
	for _, c := range p.report.Lineage {
		l.Parents = append(l.Parents, cid(c))
	}
	if parent := p.report.AllRows.Parent; parent != nil {
		for _, m := range p.kind.Metrics {
			l.Compared = append(l.Compared, parentRow{
				Metric: m.Name, Parent: m.Show(m.Of(*parent)), ParentInterval: m.ShowInterval(*parent),
				This: cell{
					Value: m.Show(m.Of(p.report.AllRows.Federated)), Interval: m.ShowInterval(p.report.AllRows.Federated),
					Class: m.Direction(m.Of(*parent), m.Of(p.report.AllRows.Federated)),
				},
			})
		}
	}
	p.Lineage = l
}

func ratio(x *float64) string { return figure.Show(x, figure.Ratio) }

// missing names the nodes without an evaluation.
func missing(r api.Report) string {
	var names []string
	for _, id := range r.Missing {
		name := id.String()
		for _, c := range r.Contributions {
			if c.PeerID == id {
				name = table.NodeName(c.Nation, c.Name, name)
			}
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

func cid(c record.CID) string {
	if !c.Defined() {
		return ""
	}
	return c.String()
}
