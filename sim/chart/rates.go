package chart

import (
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"village/protocol/figure"
	"village/protocol/learn"
)

// squareHeight makes the plot of one share against another about square.
const squareHeight = 5.4 * vg.Inch

// rateSeries is one model on all test rows, over the runs of a setting.
type rateSeries struct {
	name    string
	reports []learn.Report // of the runs
}

// ratesOf are the models of a single setting, the federation's first, or of
// several that of each.
func ratesOf(all []setting) (list []rateSeries) {
	of := func(s setting, m model) (list []learn.Report) {
		for _, r := range s.runs {
			list = append(list, reports(r.Result.Results.AllRows)[m])
		}
		return list
	}
	if len(all) > 1 {
		for _, s := range all {
			list = append(list, rateSeries{s.name(), of(s, federated)})
		}
		return list
	}
	list = []rateSeries{{"federated", of(all[0], federated)}, {"each node alone", of(all[0], alone)}}
	if part := all[0].own(); part != "" {
		list = append(list, rateSeries{"with " + part, of(all[0], own)})
	}
	return list
}

// rocFigure has the receiver operating characteristic: of several runs the mean
// true positive rate at each false positive rate.
func rocFigure(all []setting) chart {
	f := chart{name: "roc", caption: "ROC, all test rows", height: squareHeight}
	series := ratesOf(all)
	lines := make([][]segment, len(series))
	banded := make([]bool, len(series))
	for i, s := range series {
		var curves [][]learn.ROCPoint
		var areas []float64
		for _, r := range s.reports {
			if rising(r.ROC) {
				curves = append(curves, r.ROC)
				if r.ROCAUC != nil {
					areas = append(areas, *r.ROCAUC)
				}
			}
		}
		if len(curves) == 0 {
			continue
		}
		banded[i] = len(curves) > 1
		lines[i] = []segment{rocLine(curves)}
		f.legend = append(f.legend, rateEntry(i, s.name+", area "+statOf(areas).Format(figure.Ratio), len(all) > 1))
	}
	if len(f.legend) == 0 {
		return f
	}
	if slices.Contains(banded, true) {
		f.legend = append(f.legend, entry{text: "± standard deviation of the seeds", band: shade})
	}
	f.plot = newPlot(linear("False positive rate", 0, 1, 1, figure.Tick), linear("True positive rate", 0, 1, 1, figure.Tick))
	f.plot.Add(diagonal{}, curves{lines: lines, banded: banded, markers: len(all) > 1, width: lineWidth})
	return f
}

// rising tells whether a curve goes from left to right, between 0 and 1.
func rising(curve []learn.ROCPoint) bool {
	last := learn.ROCPoint{}
	for _, p := range curve {
		if !(p.FPR >= last.FPR && p.TPR >= last.TPR && p.FPR <= 1 && p.TPR <= 1) {
			return false
		}
		last = p
	}
	return len(curve) > 1
}

// rocLine is one curve as it is, or the mean of several (vertical averaging,
// Fawcett 2006) in steps of a hundredth.
func rocLine(curves [][]learn.ROCPoint) (s segment) {
	if len(curves) == 1 {
		for _, p := range curves[0] {
			s = append(s, point{p.FPR, p.TPR, p.TPR, p.TPR})
		}
		return s
	}
	s = segment{{}}
	for i := range 101 {
		x := float64(i) / 100
		var rates []float64
		for _, c := range curves {
			rates = append(rates, figure.TPR(c, x))
		}
		p := meanSD(rates)
		s = append(s, point{x, p.y, max(0, p.low), min(1, p.high)})
	}
	return s
}

// calibrationFigure sets what was predicted beside what came true, the rows of
// all runs together.
func calibrationFigure(all []setting) chart {
	f := chart{name: "calibration", caption: "Calibration, all test rows", height: squareHeight}
	series := ratesOf(all)
	lines := make([][]segment, len(series))
	dots := bubbles{rows: make([][]float64, len(series)), lines: lines}
	for i, s := range series {
		bins := pooled(s.reports)
		if len(bins) == 0 {
			continue
		}
		var errors []float64
		for _, r := range s.reports {
			if r.CalibrationError != nil {
				errors = append(errors, *r.CalibrationError)
			}
		}
		var line segment
		for _, b := range bins {
			line = append(line, point{x: b.Predicted, y: b.Observed})
			dots.rows[i] = append(dots.rows[i], float64(b.Rows))
		}
		lines[i] = []segment{line}
		f.legend = append(f.legend, rateEntry(i, s.name+", error "+statOf(errors).Format(figure.Ratio), true))
	}
	if len(f.legend) == 0 {
		return f
	}
	f.legend = append(f.legend, entry{text: "the larger a mark, the more rows it stands for"})
	f.plot = newPlot(linear("Mean predicted probability, by tenths", 0, 1, 1, figure.Tick), linear("Observed share", 0, 1, 1, figure.Tick))
	f.plot.Add(diagonal{}, curves{lines: lines, banded: make([]bool, len(lines)), width: 1.1}, dots)
	return f
}

// pooled are the bins of several reports, their rows together.
func pooled(reports []learn.Report) (bins []learn.CalibrationBin) {
	for _, r := range reports {
		for _, b := range r.Calibration {
			if b.Rows == 0 || !(b.Predicted >= 0 && b.Predicted <= 1 && b.Observed >= 0 && b.Observed <= 1) {
				continue
			}
			i := slices.IndexFunc(bins, func(o learn.CalibrationBin) bool { return o.From == b.From })
			if i < 0 {
				bins = append(bins, b)
				continue
			}
			o := &bins[i]
			n, m := float64(o.Rows), float64(b.Rows)
			o.Predicted = (n*o.Predicted + m*b.Predicted) / (n + m)
			o.Observed = (n*o.Observed + m*b.Observed) / (n + m)
			o.Rows += b.Rows
		}
	}
	slices.SortFunc(bins, func(a, b learn.CalibrationBin) int {
		if a.Predicted < b.Predicted {
			return -1
		}
		return 1
	})
	return bins
}

func rateEntry(i int, text string, marked bool) entry {
	style := lineStyle(i)
	e := entry{text: fit(text, textStyle(9.5, ink), figureWidth-2*margin-swatch-5), line: &style}
	if marked {
		marker := markerStyle(i)
		e.marker = &marker
	}
	return e
}

// diagonal is what a model that guesses is on, or one that is calibrated.
type diagonal struct{}

// Plot implements plot.Plotter.
func (diagonal) Plot(c draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&c)
	c.StrokeLine2(draw.LineStyle{Color: muted, Width: 1, Dashes: []vg.Length{2, 3}}, toX(0), toY(0), toX(1), toY(1))
}

// bubbles are marks on lines, their area as large as the share of the rows.
type bubbles struct {
	lines [][]segment
	rows  [][]float64 // by line, of each point
}

// Plot implements plot.Plotter.
func (b bubbles) Plot(c draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&c)
	for i, rows := range b.rows {
		for j, n := range rows {
			style := markerStyle(i)
			style.Radius = vg.Length(1.6 + 5*math.Sqrt(n/slices.Max(rows)))
			at := b.lines[i][0][j]
			c.DrawGlyph(style, vg.Point{X: toX(at.x), Y: toY(at.y)})
		}
	}
}
