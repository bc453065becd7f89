package chart

import (
	"cmp"
	"fmt"
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// The plot of gains names nodes up to namedNodes, as long as it has no more than
// namedMarks in all, which fill a page.
const (
	namedNodes = 60
	namedMarks = 160
)

// gainFigure shows what each node gains over training alone: by name where all
// settings have the same, few nodes, else in order.
func gainFigure(all []setting) figure {
	f := figure{name: "gain-nodes", caption: "What each node gains over training alone", height: lineHeight}
	some := false
	for _, s := range all {
		some = some || slices.ContainsFunc(s.nodes, func(n nodeStat) bool { return n.gain.N > 0 })
	}
	switch {
	case !some:
		return f
	case len(all) <= len(palette) && len(all)*len(all[0].nodes) <= namedMarks && sameNodes(all):
		return namedGains(f, all)
	}
	return orderedGains(f, all)
}

func sameNodes(all []setting) bool {
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

const points = 100 // percentage points in 1

const gainTitle = "Accuracy gained over training alone (percentage points)"

// gainAxis holds 0 and all gains.
func gainAxis(title string, lo, hi float64) axis {
	lo, hi = min(lo, 0), max(hi, 0)
	pad := max(0.2, 0.04*(hi-lo))
	return linear(title, lo-pad, hi+pad, 1, func(v float64, decimals int) string {
		if math.Abs(v) < 1e-9 {
			return "0"
		}
		if v < 0 {
			return "−" + decimal(-v, decimals)
		}
		return "+" + decimal(v, decimals)
	})
}

// bars draws a row for each node, the first on top.
type bars struct {
	rows [][]Stat // by row, by setting; in percentage points
}

var stripe = color.NRGBA{grid.R, grid.G, grid.B, 0x55}

// Plot implements plot.Plotter.
func (b bars) Plot(c draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&c)
	row := toY(1) - toY(0)
	zero := toX(0)
	for i, stats := range b.rows {
		mid := toY(float64(len(b.rows) - 1 - i))
		if len(stats) > 1 && i%2 == 0 { // so that a node's marks are seen to be its own
			c.FillPolygon(stripe, []vg.Point{{X: c.Min.X, Y: mid - row/2}, {X: c.Max.X, Y: mid - row/2}, {X: c.Max.X, Y: mid + row/2}, {X: c.Min.X, Y: mid + row/2}})
		}
		for j, s := range stats {
			if s.N == 0 {
				continue
			}
			x, y, half := toX(s.Mean), mid, row*0.32
			fill := paletteOf(j)
			if len(stats) > 1 {
				y = mid + row*0.6*(0.5-(vg.Length(j)+0.5)/vg.Length(len(stats)))
			} else {
				if s.Mean < 0 {
					fill = loses
				}
				c.FillPolygon(fill, []vg.Point{{X: zero, Y: y - half}, {X: x, Y: y - half}, {X: x, Y: y + half}, {X: zero, Y: y + half}})
			}
			if s.N > 1 {
				whisker := draw.LineStyle{Color: ink, Width: 0.8}
				if len(stats) > 1 {
					whisker.Color = fill
				}
				c.StrokeLine2(whisker, toX(s.Mean-s.SD), y, toX(s.Mean+s.SD), y)
			}
			if len(stats) > 1 {
				c.DrawGlyph(markerStyle(j), vg.Point{X: x, Y: y})
			} else if math.Abs(s.Mean) < 1e-9 {
				c.StrokeLine2(draw.LineStyle{Color: muted, Width: 2.4}, zero, y-half, zero, y+half)
			}
		}
	}
	c.StrokeLine2(draw.LineStyle{Color: ink, Width: 0.8}, zero, c.Min.Y, zero, c.Max.Y)
}

func (s Stat) times(f float64) Stat { return Stat{s.N, s.Mean * f, s.SD * f} }

// namedGains has the nodes that gain most in the first setting on top.
func namedGains(f figure, all []setting) figure {
	order := byGain(all[0].nodes)
	y := axis{}
	var b bars
	lo, hi := 0.0, 0.0
	style := textStyle(9.5, muted)
	spread := false
	for row, i := range order {
		var stats []Stat
		for _, s := range all {
			gain := s.nodes[i].gain.times(points)
			if gain.N > 0 {
				lo, hi = min(lo, gain.Mean-gain.SD), max(hi, gain.Mean+gain.SD)
				spread = spread || gain.N > 1
			}
			stats = append(stats, gain)
		}
		b.rows = append(b.rows, stats)
		node := all[0].nodes[i]
		most := 1.9 * vg.Inch
		if stats[0].N == 0 {
			most = 1.3 * vg.Inch
		}
		label := node.title()
		if node.name != "" && width(label, style) > most { // the nation stays
			node.name = fit(node.name, style, most-width(" · "+node.nation, style))
			label = fit(node.title(), style, most)
		}
		label = fit(label, style, most)
		if stats[0].N == 0 {
			label += " (unknown)"
		}
		y.ticks = append(y.ticks, plot.Tick{Value: float64(len(order) - 1 - row), Label: label})
	}
	y.min, y.max = -0.6, float64(len(order))-0.4
	x := gainAxis(gainTitle, lo, hi)
	x.grid = true
	f.plot = newPlot(x, y)
	f.plot.Add(b)
	height := vg.Length(12.5)
	if len(order) <= 12 {
		height = 18
	}
	if len(all) > 1 {
		height = max(height, vg.Length(len(all))*5.5)
	}
	f.height = vg.Length(len(order))*height + 44
	note := ""
	if spread {
		note = "mean of the seeds; the thin line is ± standard deviation"
	}
	if len(all) > 1 {
		for i, s := range all {
			marker := markerStyle(i)
			f.legend = append(f.legend, entry{text: fit(s.name(), textStyle(9.5, ink), figureWidth-2*margin-swatch-5), marker: &marker})
		}
	}
	if note != "" {
		f.legend = append(f.legend, entry{text: note})
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
		x, y := nodes[a].gain, nodes[b].gain
		if (x.N == 0) != (y.N == 0) {
			return y.N - x.N
		}
		return cmp.Compare(y.Mean, x.Mean)
	})
	return order
}

// drawnPoints is how many points a curve of many nodes keeps.
const drawnPoints = 1000

// orderedGains has all nodes of all runs of a setting as one falling curve.
func orderedGains(f figure, all []setting) figure {
	lines := make([][]segment, len(all))
	lo, hi := 0.0, 0.0
	for i, s := range all {
		var values []float64
		for _, r := range s.runs {
			for _, n := range r.Result.Results.Nodes {
				if gain, ok := gainOf(n.Pair); ok {
					values = append(values, points*gain)
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
		lines[i] = []segment{thin(seg)}
		style := lineStyle(i)
		e := entry{line: &style, text: fmt.Sprintf("%s: %s %% better, %s %% worse", fit(s.name(), textStyle(9.5, ink), 4*vg.Inch),
			percent(better, len(values)), percent(worse, len(values)))}
		f.legend = append(f.legend, e)
	}
	width := lineWidth
	if len(all) > 1 {
		width = 1.1 // for they lie on each other
	}
	f.plot = newPlot(
		linear("Nodes, those that gain most first (%)", 0, 100, 1, decimal),
		gainAxis("Accuracy gained (percentage points)", lo, hi),
	)
	f.plot.Add(level{0, draw.LineStyle{Color: ink, Width: 0.8}}, curves{lines: lines, banded: make([]bool, len(all)), width: width})
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
