package report

import (
	"cmp"
	"fmt"
	"html/template"
	"math"
	"slices"

	"village/node/api"
	"village/node/table"
	"village/protocol/figure"
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

// plotWidth is that of all drawings.
const plotWidth = 520.0

// plot is a drawing with the numbers that it is made of.
type plot struct {
	Title, Note string
	SVG         template.HTML
	Head        []string // of the table of the numbers; none where the page has them elsewhere
	Rows        [][]string
}

// names of the models in a report that has some or all of them.
func (p *page) names() map[model]string {
	return map[model]string{local: "local only", federated: "federated", personal: "with " + figure.PartName(p.report.Personal)}
}

func (p *page) models() []model {
	if table.HasPersonal(p.report) {
		return []model{local, federated, personal}
	}
	return []model{local, federated}
}

// square is the plot of one share against another.
func square(d *figure.Drawing, right, bottom float64, below, beside string) (x, y figure.Scale) {
	x, y = figure.Scale{Hi: 1, From: 56, To: right}, figure.Scale{Hi: 1, From: bottom, To: 14}
	for i := range 6 {
		v := float64(i) / 5
		d.Line("grid", x.At(v), y.At(0), x.At(v), y.At(1))
		d.Line("grid", x.At(0), y.At(v), x.At(1), y.At(v))
		d.Text("tick", "end", x.At(0)-7, y.At(v)+4, figure.Tick(v, 1))
	}
	d.Line("diagonal", x.At(0), y.At(0), x.At(1), y.At(1))
	if below != "" {
		labelX(d, x, y, below)
	}
	d.Turned("axis", 16, y.At(.5), beside)
	return x, y
}

// labelX puts numbers under a scale from 0 to 1, and what it is.
func labelX(d *figure.Drawing, x, y figure.Scale, what string) {
	for i := range 6 {
		v := float64(i) / 5
		d.Text("tick", "middle", x.At(v), y.From+18, figure.Tick(v, 1))
	}
	d.Text("axis", "middle", x.At(.5), y.From+38, what)
}

// legend names models, one below the other, from a corner on.
func legend(d *figure.Drawing, x, y float64, models []model, text func(model) string, marks bool) {
	widest := 0.0
	for _, m := range models {
		widest = max(widest, figure.TextWidth(text(m)))
	}
	d.Rect("ground", x-6, y-14, widest+52, float64(len(models))*19+6)
	for i, m := range models {
		at := y + float64(i)*19
		d.Path("curve "+m.class(), []figure.Point{{X: x, Y: at - 4}, {X: x + 30, Y: at - 4}})
		if marks {
			marker(d, m, "", x+15, at-4)
		}
		d.Text("label", "start", x+38, at, text(m))
	}
}

// marker draws the mark of a model, in a shape of its own.
func marker(d *figure.Drawing, m model, class string, x, y float64) {
	const r = 4.2
	class = "mark " + m.class() + " " + class
	switch m {
	case federated:
		d.Circle(class, x, y, r)
	case personal:
		d.Diamond(class, x, y, r+1)
	default:
		d.Rect(class, x-r+.5, y-r+.5, 2*r-1, 2*r-1)
	}
}

// roc is the receiver operating characteristic of all rows, nil where there is
// none.
func (p *page) roc() *plot {
	curves, names := map[model][]learn.ROCPoint{}, p.names()
	var models []model
	for _, m := range p.models() {
		for _, at := range m.of(p.report.AllRows).ROC {
			if figure.Finite(&at.FPR) && figure.Finite(&at.TPR) {
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
	d := figure.Drawing{Width: plotWidth, Height: 500}
	x, y := square(&d, 506, 450, "false positive rate", "true positive rate")
	label := "ROC curves of all test rows; area under the curve:"
	text := func(m model) string { return names[m] + ", AUC " + ratio(m.of(p.report.AllRows).ROCAUC) }
	f := &plot{Title: "ROC", Note: "All test rows. The broken line is a model that guesses.", Head: []string{"false positive rate"}}
	for _, m := range models {
		var line []figure.Point
		for _, at := range curves[m] {
			line = append(line, figure.Point{X: x.At(at.FPR), Y: y.At(at.TPR)})
		}
		d.Path("curve "+m.class(), line)
		label += fmt.Sprintf(" %s %s;", names[m], ratio(m.of(p.report.AllRows).ROCAUC))
		f.Head = append(f.Head, names[m]+": true positive rate")
	}
	legend(&d, x.At(.44), y.At(.05)-float64(len(models)-1)*19, models, text, false)
	f.SVG = template.HTML(d.SVG(label))
	for _, fpr := range []float64{.01, .05, .1, .2, .3, .5} {
		row := []string{figure.Tick(fpr, 2)}
		for _, m := range models {
			row = append(row, figure.Ratio(figure.TPR(curves[m], fpr)))
		}
		f.Rows = append(f.Rows, row)
	}
	return f
}

// calibration sets what was predicted beside what was observed, nil where it is
// not known.
func (p *page) calibration() *plot {
	bins, names := map[model][]learn.CalibrationBin{}, p.names()
	var models []model
	most := uint64(0)
	for _, m := range p.models() {
		for _, b := range m.of(p.report.AllRows).Calibration {
			if b.Rows > 0 && figure.Finite(&b.Predicted) && figure.Finite(&b.Observed) && figure.Finite(&b.From) && figure.Finite(&b.To) {
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
	d := figure.Drawing{Width: plotWidth, Height: bottom + strip + 48}
	x, y := square(&d, 506, bottom, "", "observed share")
	rows := figure.Scale{Hi: float64(most), From: bottom + strip, To: bottom + 16}
	d.Line("grid", x.At(0), rows.At(0), x.At(1), rows.At(0))
	d.Text("tick", "end", x.At(0)-7, rows.To+8, figure.Count(most))
	d.Text("tick", "end", x.At(0)-7, rows.From+4, "0")
	d.Turned("axis", 16, (rows.From+rows.To)/2, "rows")
	labelX(&d, x, figure.Scale{From: rows.From}, "predicted probability of "+p.positive())
	label := "Calibration of all test rows; mean distance of predicted from observed:"
	f := &plot{
		Title: "Calibration", Note: "All test rows, by tenths of the predicted probability. On the broken line what is predicted is what comes true. Points of few rows (below) scatter.",
		Head: []string{"model", "predicted from", "to", "rows", "mean predicted", "observed"},
	}
	for i, m := range models {
		var line []figure.Point
		for _, b := range bins[m] {
			line = append(line, figure.Point{X: x.At(b.Predicted), Y: y.At(b.Observed)})
			width := (x.At(b.To) - x.At(b.From)) * .8 / float64(len(models))
			left := x.At(b.From) + (x.At(b.To)-x.At(b.From))*.1 + float64(i)*width
			top := rows.At(float64(b.Rows))
			d.Rect("bar "+m.class(), left, top, width, rows.From-top)
			f.Rows = append(f.Rows, []string{names[m], figure.Tick(b.From, 1), figure.Tick(b.To, 1), figure.Count(b.Rows), figure.Ratio(b.Predicted), figure.Ratio(b.Observed)})
		}
		d.Path("curve "+m.class(), line)
		for _, at := range line {
			marker(&d, m, "", at.X, at.Y)
		}
		label += fmt.Sprintf(" %s %s;", names[m], ratio(m.of(p.report.AllRows).CalibrationError))
	}
	legend(&d, x.At(.03), y.At(.95), models, func(m model) string { return names[m] + ", error " + ratio(m.of(p.report.AllRows).CalibrationError) }, true)
	f.SVG = template.HTML(d.SVG(label))
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
		x, _ := p.kind.Gained(a.Pair)
		y, _ := p.kind.Gained(b.Pair)
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
func (p *page) gains() (plots []plot) {
	nodes := p.byGain()
	values := p.plotted(nodes)
	if len(values) == 0 {
		return nil
	}
	least := 2.0 // percentage points
	if p.kind.Numeric() {
		least = 0
	} else {
		values = append(values, 0)
	}
	x := figure.Around(values, least, nameWidth+14, plotWidth-14)
	parts := (len(nodes) + perFigure - 1) / perFigure
	for i := range parts {
		from, to := i*len(nodes)/parts, (i+1)*len(nodes)/parts
		f := p.gainFigure(nodes[from:to], x)
		if parts > 1 {
			f.Title += fmt.Sprintf(", nodes %d to %d of %d", from+1, to, len(nodes))
		}
		plots = append(plots, f)
	}
	return plots
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
	m := p.kind.Lead
	if p.kind.Numeric() {
		for _, model := range p.models() {
			r := model.of(n.Pair)
			if v := m.Of(r); plottable(v) {
				k := mark{model: model, value: *v}
				if i := m.Interval(r); model == federated && i != nil && plottable(&i[0]) && plottable(&i[1]) {
					k.interval = i
				}
				list = append(list, k)
			}
		}
		return list
	}
	if gain, interval := p.kind.Gained(n.Pair); gain != nil {
		k := mark{model: federated, value: 100 * *gain}
		if interval != nil {
			k.interval = &learn.Interval{100 * interval[0], 100 * interval[1]}
			k.unsure = interval[0] <= 0 && interval[1] >= 0
		}
		list = append(list, k)
	}
	if gain := p.kind.Gain(n.Local, n.Personal); gain != nil && table.HasPersonal(p.report) {
		list = append(list, mark{model: personal, value: 100 * *gain})
	}
	return list
}

// plottable tells whether a figure can be placed on a scale with others.
func plottable(x *float64) bool { return figure.Finite(x) && math.Abs(*x) < 1e100 }

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

func (p *page) gainFigure(nodes []api.NodeReport, x figure.Scale) plot {
	metric, names := p.kind.Lead.Name, p.names()
	f := plot{Title: "Accuracy gained over local only"}
	note := "Those that gain most come first. A thin line is a 95 % interval over the node's test rows; a hollow mark has one that includes zero."
	what := "gain over local only, percentage points"
	entries := map[model]string{federated: "federated", personal: names[personal]}
	models := p.models()[1:]
	if p.kind.Numeric() {
		f.Title, what, entries, models = metric+" of each node", metric+", lower is better", names, p.models()
		note = "Those that gain most come first. A thin line is the 95 % interval of federated over the node's test rows."
	} else if len(p.report.Nodes) >= 20 {
		note += fmt.Sprintf(" Of %d such intervals about %.0f would leave out zero by chance alone.", len(p.report.Nodes), math.Ceil(float64(len(p.report.Nodes))/20))
	}
	f.Note = note

	const top = 50.0
	bottom := top + float64(len(nodes))*rowHeight + 6
	d := figure.Drawing{Width: plotWidth, Height: bottom + 48}
	at := nameWidth + 14
	for _, m := range models {
		marker(&d, m, "", at+5, 10)
		d.Text("label", "start", at+15, 14, entries[m])
		at += 15 + figure.TextWidth(entries[m]) + 22
	}
	ticks, digits := x.Ticks(6)
	for _, v := range ticks {
		class := "grid"
		if v == 0 {
			class = "zero"
		}
		s := figure.Tick(v, digits)
		if !p.kind.Numeric() {
			s = figure.Signed(s)
		}
		d.Line(class, x.At(v), top-6, x.At(v), bottom)
		d.Text("tick", "middle", x.At(v), top-12, s)
		d.Text("tick", "middle", x.At(v), bottom+16, s)
	}
	d.Text("axis", "middle", (x.From+x.To)/2, bottom+38, what)
	for i, n := range nodes {
		y := top + (float64(i)+.5)*rowHeight
		d.Group(p.explain(n))
		d.Rect("row", 0, y-rowHeight/2, plotWidth, rowHeight)
		d.Text("label", "end", nameWidth, y+4, figure.Fitted(table.NodeName(n.Nation, n.Name, n.PeerID.String()), nameWidth-4))
		marks := p.marks(n)
		for _, k := range marks {
			if k.interval != nil {
				d.Line("whisker "+k.model.class(), x.At(k.interval[0]), y, x.At(k.interval[1]), y)
			}
		}
		slices.SortStableFunc(marks, func(a, b mark) int { return layer[a.model] - layer[b.model] })
		for _, k := range marks {
			class := ""
			if k.unsure {
				class = "unsure"
			}
			marker(&d, k.model, class, x.At(k.value), y)
		}
		if len(marks) == 0 {
			d.Text("tick", "start", x.From, y+4, "not known")
		}
		d.End()
	}
	f.SVG = template.HTML(d.SVG(f.Title + " at " + figure.Plural(len(nodes), "node") + ". The table of nodes has the numbers."))
	return f
}

// explain says of a node what the plot shows.
func (p *page) explain(n api.NodeReport) string {
	names, s := p.names(), table.NodeName(n.Nation, n.Name, n.PeerID.String())
	show, unit := p.kind.Lead.Format, ""
	if !p.kind.Numeric() {
		show, unit = func(x float64) string { return figure.Points(x / 100) }, " points"
	}
	for _, k := range p.marks(n) {
		s += fmt.Sprintf("; %s %s%s", names[k.model], show(k.value), unit)
		if k.interval != nil {
			s += " (" + figure.Span(show(k.interval[0]), show(k.interval[1])) + ")"
		}
	}
	return s
}
