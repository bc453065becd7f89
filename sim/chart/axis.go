package chart

import (
	"math"
	"slices"

	"gonum.org/v1/plot"

	"village/protocol/figure"
)

// axis is one of a plot, in the plot's own numbers: where it is logarithmic,
// those are decimal logarithms.
type axis struct {
	title    string
	min, max float64
	ticks    []plot.Tick
	grid     bool
}

// steps are the ticks from lo to hi, and how many decimals they have.
func steps(lo, hi float64) (at []float64, decimals int) { return figure.Steps(lo, hi, 5.5) }

// linear has ticks at round numbers of a unit.
func linear(title string, lo, hi, unit float64, label func(v float64, decimals int) string) axis {
	a := axis{title: title, min: lo, max: hi, grid: true}
	at, decimals := steps(lo/unit, hi/unit)
	for _, v := range at {
		a.ticks = append(a.ticks, plot.Tick{Value: v * unit, Label: label(v, decimals)})
	}
	return a
}

// roundUp is the next step of an axis from 0 to v, if v is close to it: the last
// round that is followed is the one before the last.
func roundUp(v float64) float64 {
	at, _ := steps(0, v)
	if len(at) < 2 {
		return v
	}
	if next := float64(len(at)) * at[1]; next <= 1.06*v {
		return next
	}
	return v
}

// quantity is what a plot's x axis shows of a point.
type quantity struct {
	title string
	units []figure.Unit // nil = a plain number
	marks []mark        // of a logarithmic axis
}

// mark is a possible tick of a logarithmic axis; a fine one is there where the
// axis spans little.
type mark struct {
	value float64
	label string
	fine  bool
}

var (
	inRounds = quantity{title: "Round"}
	inBytes  = quantity{title: "Sent by all nodes together", units: figure.ByteUnits, marks: byteMarks()}
	inTime   = quantity{title: "Virtual time", units: figure.TimeUnits, marks: timeMarks()}
)

func byteMarks() (list []mark) {
	for e := range 17 {
		for _, m := range []float64{1, 2, 5} {
			v := m * math.Pow10(e)
			u := figure.UnitFor(figure.ByteUnits, v)
			list = append(list, mark{v, figure.Count(v/u.Size) + " " + u.Name, m > 1})
		}
	}
	return list
}

func timeMarks() (list []mark) {
	for _, u := range []struct {
		figure.Unit
		at []float64
	}{
		{figure.Unit{Size: 1e-3, Name: "ms"}, []float64{1, 2, 5, 10, 20, 50, 100, 200, 500}},
		{figure.Unit{Size: 1, Name: "s"}, []float64{1, 2, 5, 10, 20, 30}},
		{figure.Unit{Size: 60, Name: "min"}, []float64{1, 2, 5, 10, 20, 30}},
		{figure.Unit{Size: 3600, Name: "h"}, []float64{1, 2, 5, 10}},
		{figure.Unit{Size: 86400, Name: "d"}, []float64{1, 2, 5, 10, 20, 50, 100, 200, 500}},
	} {
		for _, v := range u.at {
			list = append(list, mark{v * u.Size, figure.Count(v) + " " + u.Name, v != 1 && v != 10 && v != 100})
		}
	}
	return list
}

// mostMarks is how many ticks a logarithmic axis has before it goes without the
// fine ones.
const mostMarks = 8

// along makes the x axis for lines, and turns their x into the axis' numbers:
// logarithms where the lines end more than a factor of five apart, which would
// press the shorter ones into a corner. A logarithmic axis begins at the first
// point above 0.
func along(q quantity, lines [][]segment) axis {
	least, most, first := math.Inf(1), 0.0, math.Inf(1)
	for _, l := range lines {
		end := 0.0
		for _, s := range l {
			for _, p := range s {
				end = max(end, p.x)
				if p.x > 0 {
					first = min(first, p.x)
				}
			}
		}
		if end > 0 {
			least, most = min(least, end), max(most, end)
		}
	}
	if most == 0 {
		most = 1
	}
	if q.units == nil || most/least <= 5 {
		unit, title := 1.0, q.title
		if q.units != nil {
			u := figure.UnitFor(q.units, most)
			unit, title = u.Size, title+" ("+u.Name+")"
		}
		return linear(title, 0, roundUp(most/unit)*unit, unit, figure.Tick)
	}
	for _, l := range lines {
		for i, s := range l {
			l[i] = slices.DeleteFunc(s, func(p point) bool { return p.x <= 0 })
			for j := range l[i] {
				l[i][j].x = math.Log10(l[i][j].x)
			}
		}
	}
	a := axis{title: q.title, min: math.Log10(first), max: math.Log10(most), grid: true}
	marks := slices.DeleteFunc(slices.Clone(q.marks), func(m mark) bool {
		v := math.Log10(m.value)
		return v < a.min-1e-9 || v > a.max+1e-9
	})
	if len(marks) > mostMarks {
		marks = slices.DeleteFunc(marks, func(m mark) bool { return m.fine })
	}
	for _, m := range marks {
		a.ticks = append(a.ticks, plot.Tick{Value: math.Log10(m.value), Label: m.label})
	}
	return a
}

// share is the y axis for a metric between 0 and 1, close around the values.
func share(title string, lo, hi float64) axis {
	pad := max(0.005, 0.06*(hi-lo))
	return linear(title, max(0, lo-pad), min(1, hi+pad), 1, figure.Tick)
}

// around is the y axis for any other metric, between what it shows at all.
func around(title string, lo, hi, least, most float64) axis {
	pad := 0.06 * (hi - lo)
	if !(pad > 0) {
		pad = max(0.01, 0.01*math.Abs(hi))
	}
	return linear(title, max(least, lo-pad), min(most, hi+pad), 1, figure.Tick)
}

// decades is a logarithmic y axis with a line of its own for exact zeros, at
// zero, below all other values.
func decades(title string, lo, hi float64, zeros bool) (a axis, zero float64) {
	a = axis{title: title, grid: true}
	if lo > hi { // zeros alone
		a.min, a.max = -1, 1
		a.ticks = []plot.Tick{{Value: 0, Label: "0 (exact)"}}
		return a, 0
	}
	low, high := math.Floor(math.Log10(lo)), math.Ceil(math.Log10(hi))
	high = max(high, low+1)
	step := max(1, math.Ceil((high-low)/6))
	a.min, a.max = low, high
	for e := math.Ceil(low/step) * step; e <= high; e += step {
		a.ticks = append(a.ticks, plot.Tick{Value: e, Label: power10(int(e))})
	}
	if zeros {
		zero = low - max(0.6, (high-low)*0.12)
		a.min = zero
		a.ticks = append(a.ticks, plot.Tick{Value: zero, Label: "0 (exact)"})
	}
	return a, zero
}
