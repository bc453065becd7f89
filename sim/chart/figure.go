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

	"village/sim"
)

// figures are all that there can be, those without anything to show as well.
func figures(all []setting) []figure {
	round := func(p sim.Point) float64 { return float64(p.Round) }
	bytes := func(p sim.Point) float64 { return float64(p.Bytes) }
	seconds := func(p sim.Point) float64 { return p.Virtual.Seconds() }
	accuracy := func(p sim.Point) *float64 { return p.AllRows.Accuracy }
	auc := func(p sim.Point) *float64 { return p.AllRows.ROCAUC }
	alone := func(s setting) Stat { return s.summary().AllRows.Local.Accuracy }
	aloneAUC := func(s setting) Stat { return s.summary().AllRows.Local.ROCAUC }
	return []figure{
		metricFigure("accuracy-rounds", "Accuracy against rounds", "Accuracy, all test rows", all, inRounds, round, accuracy, alone),
		metricFigure("auc-rounds", "Area under the ROC curve against rounds", "ROC AUC, all test rows", all, inRounds, round, auc, aloneAUC),
		metricFigure("accuracy-bytes", "Accuracy against bytes sent", "Accuracy, all test rows", all, inBytes, bytes, accuracy, alone),
		metricFigure("accuracy-time", "Accuracy against virtual time", "Accuracy, all test rows", all, inTime, seconds, accuracy, alone),
		disagreementFigure(all, round),
		gainFigure(all),
	}
}

const (
	lineHeight = 3.4 * vg.Inch // of a plot with lines
	lineWidth  = vg.Length(1.6)
)

// curves draws lines with their bands, all in the axes' numbers.
type curves struct {
	lines   [][]segment // by setting
	banded  []bool
	markers bool
	width   vg.Length // of a line
}

// Plot implements plot.Plotter.
func (l curves) Plot(c draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&c)
	for i, line := range l.lines {
		if !l.banded[i] {
			continue
		}
		for _, s := range line {
			var outline []vg.Point
			for _, p := range s {
				outline = append(outline, vg.Point{X: toX(p.x), Y: toY(p.high)})
			}
			for _, p := range slices.Backward(s) {
				outline = append(outline, vg.Point{X: toX(p.x), Y: toY(p.low)})
			}
			if len(s) > 1 {
				c.FillPolygon(bandColor(i), c.ClipPolygonXY(outline))
			}
		}
	}
	type mark struct {
		i  int
		at vg.Point
	}
	var marks []mark // above all lines
	for i, line := range l.lines {
		for _, s := range line {
			var path []vg.Point
			for _, p := range s {
				path = append(path, vg.Point{X: toX(p.x), Y: toY(p.y)})
			}
			if len(path) == 1 {
				marks = append(marks, mark{i, path[0]})
				continue
			}
			style := lineStyle(i)
			style.Width = l.width
			c.StrokeLines(style, path)
			if l.markers {
				for _, at := range spaced(path, i, len(l.lines), (c.Max.X-c.Min.X)/7) {
					marks = append(marks, mark{i, at})
				}
			}
		}
	}
	for _, m := range marks {
		c.DrawGlyph(markerStyle(m.i), m.at)
	}
}

// spaced picks points of a path about a distance apart along x, at other places
// for each of n paths.
func spaced(path []vg.Point, i, n int, distance vg.Length) (at []vg.Point) {
	next := path[0].X + distance*vg.Length(2*i+1)/vg.Length(2*n)
	for _, p := range path {
		if p.X >= next {
			at = append(at, p)
			for next <= p.X {
				next += distance
			}
		}
	}
	if len(at) == 0 {
		at = append(at, path[len(path)-1])
	}
	return at
}

func bandColor(i int) color.NRGBA {
	c := paletteOf(i)
	c.A = 0x33
	return c
}

// level is a horizontal line across the plot.
type level struct {
	y     float64
	style draw.LineStyle
}

// Plot implements plot.Plotter.
func (l level) Plot(c draw.Canvas, p *plot.Plot) {
	_, toY := p.Transforms(&c)
	c.StrokeLine2(l.style, c.Min.X, toY(l.y), c.Max.X, toY(l.y))
}

// legendOf names the settings that have a line.
func legendOf(all []setting, lines [][]segment) (list []entry) {
	for i, s := range all {
		if len(lines[i]) == 0 {
			continue
		}
		style := lineStyle(i)
		e := entry{text: s.name(), line: &style}
		if len(all) > 1 {
			marker := markerStyle(i)
			e.marker = &marker
		}
		e.text = fit(e.text, textStyle(9.5, ink), figureWidth-2*margin-swatch-5)
		list = append(list, e)
	}
	return list
}

// name is the label, or a word where there is none.
func (s setting) name() string { return cmp.Or(s.label, "federation") }

// traced counts the runs that have a trace.
func (s setting) traced() (n int) {
	for _, r := range s.runs {
		if len(r.Result.Trace) > 0 {
			n++
		}
	}
	return n
}

// bands tells which settings have one, and says in the legend what it is.
func bands(all []setting, what string) (banded []bool, note []entry) {
	least, most := math.MaxInt, 0
	for _, s := range all {
		n := s.traced()
		banded = append(banded, n > 1)
		if n > 1 {
			least, most = min(least, n), max(most, n)
		}
	}
	switch {
	case most == 0:
		return banded, nil
	case least == most:
		return banded, []entry{{text: fmt.Sprintf("%s of %d seeds", what, most), band: shade}}
	}
	return banded, []entry{{text: fmt.Sprintf("%s of %d to %d seeds", what, least, most), band: shade}}
}

var shade = color.NRGBA{muted.R, muted.G, muted.B, 0x33}

// metricFigure follows a metric, beside what nodes reach alone.
func metricFigure(name, caption, title string, all []setting, q quantity, x func(sim.Point) float64, y func(sim.Point) *float64, alone func(setting) Stat) figure {
	f := figure{name: name, caption: caption, height: lineHeight}
	lines := make([][]segment, len(all))
	lo, hi := math.Inf(1), math.Inf(-1)
	for i, s := range all {
		lines[i] = s.line(x, y, meanSD)
	}
	xAxis := along(q, lines)
	banded, note := bands(all, "± standard deviation")
	for i := range lines {
		for _, s := range lines[i] {
			for j := range s {
				s[j].low, s[j].high = max(0, s[j].low), min(1, s[j].high)
				lo, hi = min(lo, s[j].low), max(hi, s[j].high)
			}
		}
	}
	if lo > hi {
		return f
	}
	f.legend = legendOf(all, lines)
	base, levels := baseline(all, lines, alone)
	for _, l := range levels {
		lo, hi = min(lo, l.y), max(hi, l.y)
	}
	f.plot = newPlot(xAxis, share(title, lo, hi))
	for _, l := range levels {
		f.plot.Add(l)
	}
	f.plot.Add(curves{lines: lines, banded: banded, markers: len(all) > 1, width: lineWidth})
	f.legend = append(append(f.legend, base...), note...)
	return f
}

// baseline is what nodes reach alone: one line where it is the same for all
// settings, else one for each, as long as that does not fill the plot.
func baseline(all []setting, lines [][]segment, alone func(setting) Stat) (legend []entry, levels []level) {
	var at []Stat
	var of []int
	for i, s := range all {
		if v := alone(s); len(lines[i]) > 0 && v.N > 0 {
			at, of = append(at, v), append(of, i)
		}
	}
	if len(at) == 0 {
		return nil, nil
	}
	one := draw.LineStyle{Color: muted, Width: 1.1, Dashes: []vg.Length{4, 3}}
	lo := slices.MinFunc(at, func(a, b Stat) int { return cmp.Compare(a.Mean, b.Mean) }).Mean
	hi := slices.MaxFunc(at, func(a, b Stat) int { return cmp.Compare(a.Mean, b.Mean) }).Mean
	if hi-lo < 0.001 {
		return []entry{{text: "each node alone", line: &one}}, []level{{(lo + hi) / 2, one}}
	}
	if len(at) > 4 {
		return nil, nil
	}
	for j, v := range at {
		style := one
		style.Color = paletteOf(of[j])
		levels = append(levels, level{v.Mean, style})
	}
	return []entry{{text: "each node alone, in the same colour", line: &one}}, levels
}

// disagreementFigure has a line of its own for exact agreement, which a
// logarithmic axis cannot show.
func disagreementFigure(all []setting, x func(sim.Point) float64) figure {
	f := figure{name: "disagreement-rounds", caption: "Disagreement between the nodes against rounds", height: lineHeight}
	lines := make([][]segment, len(all))
	lo, hi, zeros := math.Inf(1), math.Inf(-1), false
	some := false
	for i, s := range all {
		lines[i] = s.line(x, func(p sim.Point) *float64 { return &p.Disagreement }, meanRange)
		for _, seg := range lines[i] {
			for _, p := range seg {
				some = true
				for _, v := range []float64{p.low, p.y, p.high} {
					if v > 0 {
						lo, hi = min(lo, v), max(hi, v)
					} else {
						zeros = true
					}
				}
			}
		}
	}
	if !some {
		return f
	}
	yAxis, zero := decades("Disagreement (root mean square)", lo, hi, zeros)
	toLog := func(v *float64) {
		if *v > 0 {
			*v = math.Log10(*v)
		} else {
			*v = zero
		}
	}
	xAxis := along(inRounds, lines)
	for _, line := range lines {
		for _, s := range line {
			for j := range s {
				toLog(&s[j].y)
				toLog(&s[j].low)
				toLog(&s[j].high)
			}
		}
	}
	banded, note := bands(all, "least to greatest")
	f.plot = newPlot(xAxis, yAxis)
	if zeros && lo <= hi {
		f.plot.Add(level{zero, draw.LineStyle{Color: muted, Width: 0.8, Dashes: []vg.Length{2, 2}}})
	}
	f.plot.Add(curves{lines: lines, banded: banded, markers: len(all) > 1, width: lineWidth})
	f.legend = append(legendOf(all, lines), note...)
	if zeros {
		f.legend = append(f.legend, entry{text: "0 (exact): the parameters of all nodes are the same"})
	}
	return f
}
