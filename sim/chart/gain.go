package chart

import (
	"cmp"
	"fmt"
	"image/color"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"village/protocol/figure"
)

// The plot of gains names nodes up to namedNodes, as long as it has no more than
// namedMarks in all, which fill a page.
const (
	namedNodes = 60
	namedMarks = 160
)

// gainSeries is what the plot of gains shows in one colour.
type gainSeries struct {
	setting
	name  string
	of    model
	color int // place in the palette
}

// gainFigure shows what each node gains over training alone, at the settings
// whose target is of a kind: by name where all have the same, few nodes, else in
// order. One setting has a second series, of what nodes gain with a part of
// their own.
func gainFigure(all []setting, k figure.Kind) chart {
	f := chart{name: "gain-nodes", caption: "What each node gains over training alone", height: lineHeight}
	if k.Numeric() {
		f.name = k.Lead.Key + "-" + f.name
	}
	var series []gainSeries
	for _, s := range all {
		if s.numeric() == k.Numeric() && slices.ContainsFunc(s.nodes, func(n nodeStat) bool { return n.gains[federated].N > 0 }) {
			series = append(series, gainSeries{s, s.name(), federated, len(series)})
		}
	}
	if len(series) == 0 {
		return f
	}
	first := series[0].setting
	single := len(all) == 1
	if single {
		series[0].name = "federated"
		if part := first.own(); part != "" {
			series = append(series, gainSeries{first, "with " + part, own, int(own)})
		}
	} else {
		f.caption += ", federated"
	}
	if len(series) <= len(palette) && len(series)*len(first.nodes) <= namedMarks && sameNodes(series) {
		return namedGains(f, series, k, single)
	}
	return orderedGains(f, series, k)
}

func sameNodes(all []gainSeries) bool {
	first := all[0].nodes
	for _, s := range all {
		if len(s.nodes) > namedNodes || !slices.EqualFunc(first, s.nodes, func(a, b nodeStat) bool {
			return a.name == b.name && a.nation == b.nation
		}) {
			return false
		}
	}
	return true
}

// scale is what a gain is multiplied with to be plotted: a share is plotted in
// percentage points.
func scale(k figure.Kind) float64 {
	if k.Numeric() {
		return 1
	}
	return 100
}

// gained is the title of an axis of gains, on which it is better to be on that
// side of 0.
func gained(k figure.Kind, side string) string {
	if k.Numeric() {
		return k.Lead.Name + " alone less federated (" + side + " 0 is better)"
	}
	return figure.Title(k.Lead.Name) + " gained (percentage points)"
}

// gainAxis holds 0 and all gains.
func gainAxis(title string, lo, hi float64) axis {
	lo, hi = min(lo, 0), max(hi, 0)
	pad := 0.04 * (hi - lo)
	if !(pad > 0) {
		pad = 0.2
	}
	return linear(title, lo-pad, hi+pad, 1, func(v float64, decimals int) string {
		return figure.Signed(figure.Tick(v, decimals))
	})
}

// gainMark is a gain with what its thin line spans, in the plot's unit.
type gainMark struct {
	Stat
	low, high float64
}

// bars draws a row for each node, the first on top: a bar and a mark below it,
// or a mark for each setting.
type bars struct {
	series []gainSeries
	rows   [][]gainMark // by row, by series
	single bool         // all series are of one setting
}

var stripe = color.NRGBA{grid.R, grid.G, grid.B, stripeAlpha}

// Plot implements plot.Plotter.
func (b bars) Plot(c draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&c)
	row := toY(1) - toY(0)
	zero := toX(0)
	for i, marks := range b.rows {
		mid := toY(float64(len(b.rows) - 1 - i))
		if len(marks) > 1 && i%2 == 0 { // so that a node's marks are seen to be its own
			c.FillPolygon(stripe, rectangle(c.Min.X, mid-row/2, c.Max.X, mid+row/2))
		}
		for j, m := range marks {
			if m.N == 0 {
				continue
			}
			x, y := toX(m.Mean), mid+row*0.8*(0.5-(vg.Length(j)+0.5)/vg.Length(len(marks)))
			bar, whisker := b.single && j == 0, ink
			if bar {
				half, fill := row*0.32, paletteOf(0)
				if len(marks) > 1 {
					half = row * 0.18
				}
				if m.Mean < 0 {
					fill = loses
				}
				c.FillPolygon(fill, rectangle(zero, y-half, x, y+half))
				if x == zero {
					c.StrokeLine2(draw.LineStyle{Color: muted, Width: 2.4}, zero, y-half, zero, y+half)
				}
			} else {
				whisker = paletteOf(b.series[j].color)
			}
			if m.low < m.high {
				c.StrokeLine2(draw.LineStyle{Color: whisker, Width: 0.8}, toX(m.low), y, toX(m.high), y)
			}
			if !bar {
				c.DrawGlyph(markerStyle(b.series[j].color), vg.Point{X: x, Y: y})
			}
		}
	}
	c.StrokeLine2(draw.LineStyle{Color: ink, Width: 0.8}, zero, c.Min.Y, zero, c.Max.Y)
}

func rectangle(left, bottom, right, top vg.Length) []vg.Point {
	return []vg.Point{{X: left, Y: bottom}, {X: right, Y: bottom}, {X: right, Y: top}, {X: left, Y: top}}
}

// mark is a node's gain in a series.
func (s gainSeries) mark(n nodeStat) gainMark {
	g, by := n.gains[s.of], scale(s.kind)
	m := gainMark{Stat: Stat{g.N, g.Mean * by, g.SD * by}}
	m.low, m.high = m.Mean-m.SD, m.Mean+m.SD
	if s.of == federated && n.interval != nil {
		m.low, m.high = by*n.interval[0], by*n.interval[1]
	}
	return m
}

// namedGains has the nodes that gain most in the first series on top.
func namedGains(f chart, series []gainSeries, k figure.Kind, single bool) chart {
	nodes := series[0].nodes
	order := byGain(nodes)
	y := axis{}
	b := bars{series: series, single: single}
	lo, hi := 0.0, 0.0
	style := textStyle(9.5, muted)
	var notes []string
	note := func(some bool, text string) {
		if some && !slices.Contains(notes, text) {
			notes = append(notes, text)
		}
	}
	for row, i := range order {
		var marks []gainMark
		for _, s := range series {
			m := s.mark(s.nodes[i])
			if m.N > 0 {
				lo, hi = min(lo, m.Mean, m.low), max(hi, m.Mean, m.high)
				note(m.N > 1, "mean of the seeds; a thin line is ± standard deviation")
				note(m.N == 1 && m.low < m.high, "a thin line is the 95 % interval")
			}
			marks = append(marks, m)
		}
		b.rows = append(b.rows, marks)
		node := nodes[i]
		most := 1.9 * vg.Inch
		if marks[0].N == 0 {
			most = 1.3 * vg.Inch
		}
		label := node.title()
		if node.name != "" && width(label, style) > most { // the nation stays
			node.name = fit(node.name, style, most-width(" · "+node.nation, style))
			label = fit(node.title(), style, most)
		}
		label = fit(label, style, most)
		if marks[0].N == 0 {
			label += " (unknown)"
		}
		y.ticks = append(y.ticks, plot.Tick{Value: float64(len(order) - 1 - row), Label: label})
	}
	y.min, y.max = -0.6, float64(len(order))-0.4
	f.plot = newPlot(gainAxis(gained(k, "right of"), lo, hi), y)
	f.plot.Add(b)
	height := vg.Length(12.5)
	if len(order) <= 12 {
		height = 18
	}
	if len(series) > 1 {
		height = max(height+2, vg.Length(len(series))*5.5)
	}
	f.height = vg.Length(len(order))*height + 44
	for i, s := range series {
		e := entry{text: fit(s.name, textStyle(9.5, ink), figureWidth-2*margin-swatch-5)}
		switch marker := markerStyle(s.color); {
		case len(series) == 1:
			continue // says itself what it is
		case single && i == 0:
			e.band = paletteOf(0)
		default:
			e.marker = &marker
		}
		f.legend = append(f.legend, e)
	}
	for _, n := range notes {
		f.legend = append(f.legend, entry{text: n})
	}
	return f
}

// byGain orders nodes from the greatest gain to the least, the unknown last.
func byGain(nodes []nodeStat) []int {
	order := make([]int, len(nodes))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := nodes[a].gains[federated], nodes[b].gains[federated]
		if (x.N == 0) != (y.N == 0) {
			return y.N - x.N
		}
		return cmp.Compare(y.Mean, x.Mean)
	})
	return order
}

// drawnPoints is how many points a curve of many nodes keeps.
const drawnPoints = 1000

// orderedGains has all nodes of all runs of a series as one falling curve.
func orderedGains(f chart, series []gainSeries, k figure.Kind) chart {
	lines := make([][]segment, series[len(series)-1].color+1) // by colour
	lo, hi := 0.0, 0.0
	for _, s := range series {
		var values []float64
		for _, r := range s.runs {
			for _, n := range r.Result.Results.Nodes {
				if gain := k.Gain(n.Local, reports(n.Pair)[s.of]); gain != nil {
					values = append(values, scale(k)**gain)
				}
			}
		}
		if len(values) == 0 {
			continue
		}
		slices.SortFunc(values, func(a, b float64) int { return cmp.Compare(b, a) })
		better := len(values) - len(slices.DeleteFunc(slices.Clone(values), func(v float64) bool { return v > 0 }))
		worse := len(values) - len(slices.DeleteFunc(slices.Clone(values), func(v float64) bool { return v < 0 }))
		lo, hi = min(lo, values[len(values)-1]), max(hi, values[0])
		// A step for each node; where there are more than can be seen, for each
		// of evenly many.
		n := min(len(values), drawnPoints)
		var seg segment
		for k := range n {
			v := values[k*len(values)/n]
			if k == n-1 {
				v = values[len(values)-1]
			}
			seg = append(seg, point{x: 100 * float64(k) / float64(n), y: v}, point{x: 100 * float64(k+1) / float64(n), y: v})
		}
		lines[s.color] = []segment{thin(seg)}
		style := lineStyle(s.color)
		e := entry{line: &style, text: fmt.Sprintf("%s: %s %% better, %s %% worse", fit(s.name, textStyle(9.5, ink), 4*vg.Inch),
			percent(better, len(values)), percent(worse, len(values)))}
		f.legend = append(f.legend, e)
	}
	width := lineWidth
	if len(series) > 1 {
		width = 1.1 // for they lie on each other
	}
	f.plot = newPlot(
		linear("Nodes, those that gain most first (%)", 0, 100, 1, figure.Tick),
		gainAxis(gained(k, "above"), lo, hi),
	)
	f.plot.Add(level{y: 0, style: draw.LineStyle{Color: ink, Width: 0.8}}, curves{lines: lines, banded: make([]bool, len(lines)), width: width})
	return f
}

// thin leaves out what lies between two points of the same height.
func thin(s segment) segment {
	var out segment
	for i, p := range s {
		if i > 0 && i < len(s)-1 && s[i-1].y == p.y && s[i+1].y == p.y {
			continue
		}
		out = append(out, p)
	}
	return out
}

func percent(n, of int) string { return fmt.Sprintf("%.0f", 100*float64(n)/float64(of)) }
