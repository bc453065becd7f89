package chart

import (
	"cmp"
	"fmt"
	"image/color"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"village/protocol/figure"
	"village/sim"
)

// plots are all that there can be, those without anything to show as well.
func plots(all []setting) []chart {
	round := func(p sim.Point) float64 { return float64(p.Round) }
	bytes := func(p sim.Point) float64 { return float64(p.Bytes) }
	seconds := func(p sim.Point) float64 { return p.Virtual.Seconds() }
	var list []chart
	for _, k := range []figure.Kind{figure.OfClasses, figure.OfNumbers} {
		list = append(list,
			metricFigure("rounds", "rounds", all, inRounds, round, k.Lead),
			metricFigure("rounds", "rounds", all, inRounds, round, k.Second),
			metricFigure("bytes", "bytes sent", all, inBytes, bytes, k.Lead),
			metricFigure("time", "virtual time", all, inTime, seconds, k.Lead),
		)
	}
	return append(list, disagreementFigure(all, round), gainFigure(all, figure.OfClasses), gainFigure(all, figure.OfNumbers), rocFigure(all), calibrationFigure(all))
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
	c.A = bandAlpha
	return c
}

// level is a horizontal line across the plot.
type level struct {
	y     float64
	style draw.LineStyle
	text  string // in the legend, "" = none
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

var shade = color.NRGBA{muted.R, muted.G, muted.B, bandAlpha}

// metricFigure follows a metric, beside what nodes reach alone and, where there
// is one setting, what they reach in the end with a part of their own.
func metricFigure(against, words string, all []setting, q quantity, x func(sim.Point) float64, m figure.Metric) chart {
	f := chart{name: strings.TrimPrefix(m.Key, "roc_") + "-" + against, caption: figure.Title(m.Name) + " against " + words, height: lineHeight}
	lines := make([][]segment, len(all))
	for i, s := range all {
		lines[i] = s.line(x, func(p sim.Point) *float64 { return m.Of(p.AllRows) }, meanSD)
	}
	levels := baseline(all, lines, m, alone, "each node alone", []vg.Length{4, 3})
	if len(all) == 1 && all[0].own() != "" {
		levels = append(levels, baseline(all, lines, m, own, "with "+all[0].own()+", in the end", []vg.Length{1, 2.5})...)
	}
	lo, hi, beyond := math.Inf(1), math.Inf(-1), false
	within := func(v *float64) {
		beyond = beyond || *v < m.Least
		*v = min(m.Most, max(m.Least, *v))
		lo, hi = min(lo, *v), max(hi, *v)
	}
	for i := range lines {
		for _, s := range lines[i] {
			for j := range s {
				for _, v := range []*float64{&s[j].y, &s[j].low, &s[j].high} {
					within(v)
				}
			}
		}
	}
	if lo > hi {
		return f
	}
	for i := range levels {
		within(&levels[i].y)
	}
	xAxis := along(q, lines)
	banded, note := bands(all, "± standard deviation")
	f.legend = legendOf(all, lines)
	for _, l := range levels {
		if l.text != "" {
			style := l.style
			style.Color = muted
			f.legend = append(f.legend, entry{text: l.text, line: &style})
		}
	}
	f.legend = append(f.legend, note...)
	yTitle := figure.Title(m.Name) + ", all test rows"
	if m.Lower {
		yTitle += " (lower is better)"
	}
	var yAxis axis
	switch {
	case m.Most == 1 && m.Least == 0:
		yAxis = share(yTitle, lo, hi)
	case m.Lower && hi > farApart*lo:
		yAxis = logarithmic(yTitle, lines, levels)
	default:
		yAxis = around(yTitle, lo, hi, m.Least, m.Most)
	}
	if beyond && m.Least < 0 {
		f.legend = append(f.legend, entry{text: fmt.Sprintf("what is below %s is drawn there", figure.Count(m.Least))})
	}
	f.plot = newPlot(xAxis, yAxis)
	for _, l := range levels {
		f.plot.Add(l)
	}
	f.plot.Add(curves{lines: lines, banded: banded, markers: len(all) > 1, width: lineWidth})
	return f
}

// farApart is the ratio of the largest error to the smallest from which on they
// need a logarithmic axis.
const farApart = 20

// logarithmic makes a y axis of decades for errors, and turns lines and levels
// into its numbers. What is 0 or lower is drawn at its lower end.
func logarithmic(title string, lines [][]segment, levels []level) axis {
	var all []*float64
	for _, l := range lines {
		for _, s := range l {
			for j := range s {
				all = append(all, &s[j].y, &s[j].low, &s[j].high)
			}
		}
	}
	for i := range levels {
		all = append(all, &levels[i].y)
	}
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, l := range lines { // a band may come down to 0
		for _, s := range l {
			for _, p := range s {
				if p.y > 0 {
					lo, hi = min(lo, p.y), max(hi, p.high)
				}
			}
		}
	}
	for _, l := range levels {
		if l.y > 0 {
			lo, hi = min(lo, l.y), max(hi, l.y)
		}
	}
	a, _ := decades(title, lo, hi, false)
	for _, v := range all {
		*v = math.Log10(max(*v, math.Pow(10, a.min)))
	}
	return a
}

// baseline is what a model reaches in the end, such as nodes alone: one line where
// it is the same for all settings, else one for each, as long as that does not
// fill the plot. The first line has the text for the legend.
func baseline(all []setting, lines [][]segment, m figure.Metric, of model, text string, dashes []vg.Length) (levels []level) {
	lo, hi := math.Inf(1), math.Inf(-1)
	for i, s := range all {
		rows := s.summary().AllRows
		if v := rows.models()[of].Of(m); len(lines[i]) > 0 && v.N > 0 {
			levels = append(levels, level{y: v.Mean, style: draw.LineStyle{Color: paletteOf(i), Width: 1.1, Dashes: dashes}})
			lo, hi = min(lo, v.Mean), max(hi, v.Mean)
		}
	}
	if len(levels) == 0 {
		return nil
	}
	style := draw.LineStyle{Color: muted, Width: 1.1, Dashes: dashes}
	if hi-lo < 0.001*max(1, math.Abs(hi)) {
		return []level{{y: lo + (hi-lo)/2, style: style, text: text}}
	}
	if len(levels) > 4 {
		return nil
	}
	levels[0].text = text + ", in the same colour"
	return levels
}

// disagreementFigure has a line of its own for exact agreement, which a
// logarithmic axis cannot show.
func disagreementFigure(all []setting, x func(sim.Point) float64) chart {
	f := chart{name: "disagreement-rounds", caption: "Disagreement between the nodes against rounds", height: lineHeight}
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
		f.plot.Add(level{y: zero, style: draw.LineStyle{Color: muted, Width: 0.8, Dashes: []vg.Length{2, 2}}})
	}
	f.plot.Add(curves{lines: lines, banded: banded, markers: len(all) > 1, width: lineWidth})
	f.legend = append(legendOf(all, lines), note...)
	if zeros {
		f.legend = append(f.legend, entry{text: "0 (exact): the parameters of all nodes are the same"})
	}
	return f
}
