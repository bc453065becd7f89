package report

import (
	"cmp"
	"fmt"
	"html/template"
	"math"
	"slices"
	"strconv"

	"village/node/api"
	"village/node/table"
	"village/protocol/learn"
)

// model is one of those that a report sets beside each other.
type model int

const (
	local model = iota
	federated
	personal
)

func (m model) class() string { return []string{"local", "federated", "own"}[m] }

// of is the model's report in a pair.
func (m model) of(p api.Pair) learn.Report {
	return []learn.Report{p.Local, p.Federated, p.Personal}[m]
}

// figure is a drawing with the numbers that it is made of.
type figure struct {
	Title, Note string
	SVG         template.HTML
	Head        []string // of the table of the numbers; none where the page has them elsewhere
	Rows        [][]string
}

// names of the models in a report that has some or all of them.
func (p *page) names() map[model]string {
	return map[model]string{local: "local only", federated: "federated", personal: "with " + table.PartName(p.report.Personal)}
}

func (p *page) models() []model {
	if table.HasPersonal(p.report) {
		return []model{local, federated, personal}
	}
	return []model{local, federated}
}

// square is the plot of one share against another.
func square(d *drawing, right, bottom float64, below, beside string) (x, y scale) {
	x, y = scale{0, 1, 56, right}, scale{0, 1, bottom, 14}
	for i := range 6 {
		v := float64(i) / 5
		d.line("grid", x.at(v), y.at(0), x.at(v), y.at(1))
		d.line("grid", x.at(0), y.at(v), x.at(1), y.at(v))
		d.text("tick", "end", x.at(0)-7, y.at(v)+4, tick(v, 1))
	}
	d.line("diagonal", x.at(0), y.at(0), x.at(1), y.at(1))
	if below != "" {
		labelX(d, x, y, below)
	}
	d.turned("axis", 16, y.at(.5), beside)
	return x, y
}

// labelX puts numbers under a scale from 0 to 1, and what it is.
func labelX(d *drawing, x, y scale, what string) {
	for i := range 6 {
		v := float64(i) / 5
		d.text("tick", "middle", x.at(v), y.from+18, tick(v, 1))
	}
	d.text("axis", "middle", x.at(.5), y.from+38, what)
}

// legend names models, one below the other, from a corner on.
func legend(d *drawing, x, y float64, models []model, text func(model) string, marks bool) {
	width := 0.0
	for _, m := range models {
		width = max(width, textWidth(text(m)))
	}
	d.rect("ground", x-6, y-14, width+52, float64(len(models))*19+6)
	for i, m := range models {
		at := y + float64(i)*19
		d.path("curve "+m.class(), []point{{x, at - 4}, {x + 30, at - 4}})
		if marks {
			d.marker(m, "", x+15, at-4)
		}
		d.text("label", "start", x+38, at, text(m))
	}
}

// roc is the receiver operating characteristic of all rows, nil where there is
// none.
func (p *page) roc() *figure {
	curves, names := map[model][]learn.ROCPoint{}, p.names()
	var models []model
	for _, m := range p.models() {
		for _, at := range m.of(p.report.AllRows).ROC {
			if table.Finite(&at.FPR) && table.Finite(&at.TPR) {
				curves[m] = append(curves[m], at)
			}
		}
		if len(curves[m]) > 1 {
			models = append(models, m)
		}
	}
	if len(models) == 0 {
		return nil
	}
	d := drawing{height: 500}
	x, y := square(&d, 506, 450, "false positive rate", "true positive rate")
	label := "ROC curves of all test rows; area under the curve:"
	text := func(m model) string { return names[m] + ", AUC " + p.ratio(m.of(p.report.AllRows).ROCAUC) }
	f := &figure{Title: "ROC", Note: "All test rows. The broken line is a model that guesses.", Head: []string{"false positive rate"}}
	for _, m := range models {
		var line []point
		for _, at := range curves[m] {
			line = append(line, point{x.at(at.FPR), y.at(at.TPR)})
		}
		d.path("curve "+m.class(), line)
		label += fmt.Sprintf(" %s %s;", names[m], p.ratio(m.of(p.report.AllRows).ROCAUC))
		f.Head = append(f.Head, names[m]+": true positive rate")
	}
	legend(&d, x.at(.44), y.at(.05)-float64(len(models)-1)*19, models, text, false)
	f.SVG = d.svg(label)
	for _, fpr := range []float64{.01, .05, .1, .2, .3, .5} {
		row := []string{strconv.FormatFloat(fpr, 'f', 2, 64)}
		for _, m := range models {
			row = append(row, table.Ratio(along(curves[m], fpr)))
		}
		f.Rows = append(f.Rows, row)
	}
	return f
}

// along is the true positive rate at a false positive rate.
func along(curve []learn.ROCPoint, fpr float64) float64 {
	last := learn.ROCPoint{}
	for _, p := range curve {
		if p.FPR > fpr {
			if p.FPR-last.FPR <= 0 {
				return p.TPR
			}
			return last.TPR + (p.TPR-last.TPR)*(fpr-last.FPR)/(p.FPR-last.FPR)
		}
		last = p
	}
	return last.TPR
}

// calibration sets what was predicted beside what was observed, nil where it is
// not known.
func (p *page) calibration() *figure {
	bins, names := map[model][]learn.CalibrationBin{}, p.names()
	var models []model
	most := uint64(0)
	for _, m := range p.models() {
		for _, b := range m.of(p.report.AllRows).Calibration {
			if b.Rows > 0 && table.Finite(&b.Predicted) && table.Finite(&b.Observed) && table.Finite(&b.From) && table.Finite(&b.To) {
				bins[m], most = append(bins[m], b), max(most, b.Rows)
			}
		}
		if len(bins[m]) > 0 {
			models = append(models, m)
		}
	}
	if len(models) == 0 {
		return nil
	}
	const bottom, strip = 420.0, 90.0
	d := drawing{height: bottom + strip + 48}
	x, y := square(&d, 506, bottom, "", "observed share")
	rows := scale{0, float64(most), bottom + strip, bottom + 16}
	d.line("grid", x.at(0), rows.at(0), x.at(1), rows.at(0))
	d.text("tick", "end", x.at(0)-7, rows.to+8, count(most))
	d.text("tick", "end", x.at(0)-7, rows.from+4, "0")
	d.turned("axis", 16, (rows.from+rows.to)/2, "rows")
	labelX(&d, x, scale{from: rows.from}, "predicted probability of "+p.positive())
	label := "Calibration of all test rows; mean distance of predicted from observed:"
	f := &figure{
		Title: "Calibration", Note: "All test rows, by tenths of the predicted probability. On the broken line what is predicted is what comes true. Points of few rows (below) scatter.",
		Head: []string{"model", "predicted from", "to", "rows", "mean predicted", "observed"},
	}
	for i, m := range models {
		var line []point
		for _, b := range bins[m] {
			line = append(line, point{x.at(b.Predicted), y.at(b.Observed)})
			width := (x.at(b.To) - x.at(b.From)) * .8 / float64(len(models))
			left := x.at(b.From) + (x.at(b.To)-x.at(b.From))*.1 + float64(i)*width
			top := rows.at(float64(b.Rows))
			d.rect("bar "+m.class(), left, top, width, rows.from-top)
			f.Rows = append(f.Rows, []string{names[m], tick(b.From, 1), tick(b.To, 1), count(b.Rows), table.Ratio(b.Predicted), table.Ratio(b.Observed)})
		}
		d.path("curve "+m.class(), line)
		for _, at := range line {
			d.marker(m, "", at.x, at.y)
		}
		label += fmt.Sprintf(" %s %s;", names[m], p.ratio(m.of(p.report.AllRows).CalibrationError))
	}
	legend(&d, x.at(.03), y.at(.95), models, func(m model) string { return names[m] + ", error " + p.ratio(m.of(p.report.AllRows).CalibrationError) }, true)
	f.SVG = d.svg(label)
	return f
}

// perFigure is how many nodes a figure of gains has at most: what fits on a page.
const perFigure = 50

// layer is the order in which marks are drawn, federated over all others.
var layer = map[model]int{local: 0, personal: 1, federated: 2}

const (
	rowHeight = 18.0
	nameWidth = 158.0
)

// byGain are the nodes, those that gain most first, those of which it is not
// known last.
func (p *page) byGain() []api.NodeReport {
	nodes := slices.Clone(p.report.Nodes)
	slices.SortStableFunc(nodes, func(a, b api.NodeReport) int {
		x, _ := table.Gained(p.report, a.Pair)
		y, _ := table.Gained(p.report, b.Pair)
		switch {
		case x == nil && y == nil:
			return 0
		case x == nil:
			return 1
		case y == nil:
			return -1
		}
		return cmp.Compare(*y, *x)
	})
	return nodes
}

// gains shows what each node gains: of a class the difference of the accuracies,
// of a number the errors themselves.
func (p *page) gains() (figures []figure) {
	nodes := p.byGain()
	values := p.plotted(nodes)
	if len(values) == 0 {
		return nil
	}
	least := 2.0 // percentage points
	if p.numeric {
		least = 0
	} else {
		values = append(values, 0)
	}
	x := around(values, least, nameWidth+14, figureWidth-14)
	parts := (len(nodes) + perFigure - 1) / perFigure
	for i := range parts {
		from, to := i*len(nodes)/parts, (i+1)*len(nodes)/parts
		f := p.gainFigure(nodes[from:to], x)
		if parts > 1 {
			f.Title += fmt.Sprintf(", nodes %d to %d of %d", from+1, to, len(nodes))
		}
		figures = append(figures, f)
	}
	return figures
}

// mark is one of a node's figures in the plot of gains.
type mark struct {
	model    model
	value    float64
	interval *learn.Interval
	unsure   bool // the interval includes zero
}

// marks are what the plot of gains shows of a node, in the plot's unit.
func (p *page) marks(n api.NodeReport) (list []mark) {
	m := p.metrics[p.lead]
	if p.numeric {
		for _, model := range p.models() {
			r := model.of(n.Pair)
			if v := m.Of(r); plottable(v) {
				k := mark{model: model, value: *v}
				if r.Intervals != nil && model == federated {
					if i := m.Interval(*r.Intervals); i != nil && plottable(&i[0]) && plottable(&i[1]) {
						k.interval = i
					}
				}
				list = append(list, k)
			}
		}
		return list
	}
	if gain, interval := table.Gained(p.report, n.Pair); gain != nil {
		k := mark{model: federated, value: 100 * *gain}
		if interval != nil {
			k.interval = &learn.Interval{100 * interval[0], 100 * interval[1]}
			k.unsure = interval[0] <= 0 && interval[1] >= 0
		}
		list = append(list, k)
	}
	if gain := m.Better(m.Of(n.Local), m.Of(n.Personal)); gain != nil && table.HasPersonal(p.report) {
		list = append(list, mark{model: personal, value: 100 * *gain})
	}
	return list
}

// plottable tells whether a figure can be placed on a scale with others.
func plottable(x *float64) bool { return table.Finite(x) && math.Abs(*x) < 1e100 }

// plotted are all values and ends of intervals.
func (p *page) plotted(nodes []api.NodeReport) (values []float64) {
	for _, n := range nodes {
		for _, k := range p.marks(n) {
			values = append(values, k.value)
			if k.interval != nil {
				values = append(values, k.interval[0], k.interval[1])
			}
		}
	}
	return values
}

func (p *page) gainFigure(nodes []api.NodeReport, x scale) figure {
	metric, names := p.metrics[p.lead].Name, p.names()
	f := figure{Title: "Accuracy gained over local only"}
	note := "Those that gain most come first. A thin line is a 95 % interval over the node's test rows; a hollow mark has one that includes zero."
	what := "gain over local only, percentage points"
	entries := map[model]string{federated: "federated", personal: names[personal]}
	models := p.models()[1:]
	if p.numeric {
		f.Title, what, entries, models = metric+" of each node", metric+", lower is better", names, p.models()
		note = "Those that gain most come first. A thin line is the 95 % interval of federated over the node's test rows."
	} else if len(p.report.Nodes) >= 20 {
		note += fmt.Sprintf(" Of %d such intervals about %.0f would leave out zero by chance alone.", len(p.report.Nodes), math.Ceil(float64(len(p.report.Nodes))/20))
	}
	f.Note = note

	const top = 50.0
	bottom := top + float64(len(nodes))*rowHeight + 6
	d := drawing{height: bottom + 48}
	at := nameWidth + 14
	for _, m := range models {
		d.marker(m, "", at+5, 10)
		d.text("label", "start", at+15, 14, entries[m])
		at += 15 + textWidth(entries[m]) + 22
	}
	ticks, digits := x.ticks(6)
	for _, v := range ticks {
		class := "grid"
		if v == 0 {
			class = "zero"
		}
		s := tick(v, digits)
		if !p.numeric {
			s = table.Signed(s)
		}
		d.line(class, x.at(v), top-6, x.at(v), bottom)
		d.text("tick", "middle", x.at(v), top-12, s)
		d.text("tick", "middle", x.at(v), bottom+16, s)
	}
	d.text("axis", "middle", (x.from+x.to)/2, bottom+38, what)
	for i, n := range nodes {
		y := top + (float64(i)+.5)*rowHeight
		d.group(p.explain(n))
		d.rect("row", 0, y-rowHeight/2, figureWidth, rowHeight)
		d.text("label", "end", nameWidth, y+4, fitted(nodeName(n.Nation, n.Name, n.PeerID.String()), nameWidth-4))
		marks := p.marks(n)
		for _, k := range marks {
			if k.interval != nil {
				d.line("whisker "+k.model.class(), x.at(k.interval[0]), y, x.at(k.interval[1]), y)
			}
		}
		slices.SortStableFunc(marks, func(a, b mark) int { return layer[a.model] - layer[b.model] })
		for _, k := range marks {
			class := ""
			if k.unsure {
				class = "unsure"
			}
			d.marker(k.model, class, x.at(k.value), y)
		}
		if len(marks) == 0 {
			d.text("tick", "start", x.from, y+4, "not known")
		}
		d.end()
	}
	f.SVG = d.svg(f.Title + " at " + plural(len(nodes), "node") + ". The table of nodes has the numbers.")
	return f
}

// explain says of a node what the plot shows.
func (p *page) explain(n api.NodeReport) string {
	names, m := p.names(), p.metrics[p.lead]
	s := nodeName(n.Nation, n.Name, n.PeerID.String())
	for _, k := range p.marks(n) {
		if p.numeric {
			s += fmt.Sprintf("; %s %s", names[k.model], m.Format(k.value))
		} else {
			s += fmt.Sprintf("; %s %s points", names[k.model], table.Points(k.value/100))
		}
		if k.interval != nil {
			from, to := m.Format(k.interval[0]), m.Format(k.interval[1])
			if !p.numeric {
				from, to = table.Points(k.interval[0]/100), table.Points(k.interval[1]/100)
			}
			s += " (" + from + " to " + to + ")"
		}
	}
	return s
}
