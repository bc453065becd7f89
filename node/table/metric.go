package table

import (
	"math"
	"strconv"
	"strings"

	"village/node/api"
	"village/protocol/learn"
)

// Metric is a headline figure of a report.
type Metric struct {
	Name     string
	Of       func(learn.Report) *float64
	Interval func(learn.Intervals) *learn.Interval
	Across   func(api.Metrics) *float64 // of figures across nodes
	Lower    bool                       // the lower it is, the better
	Format   func(float64) string
}

// Numeric tells whether the target of a report is a number and not a class.
func Numeric(r api.Report) bool { return len(r.AllRows.Federated.Classes) == 0 }

// Metrics are those that a report's target asks for. The lead is the index of the
// one by which models are told better from worse.
func Metrics(r api.Report) (metrics []Metric, lead int) {
	if Numeric(r) {
		return []Metric{
			{"MAE", func(r learn.Report) *float64 { return r.MAE }, func(i learn.Intervals) *learn.Interval { return i.MAE },
				func(m api.Metrics) *float64 { return m.MAE }, true, Quantity},
			{"RMSE", func(r learn.Report) *float64 { return r.RMSE }, func(i learn.Intervals) *learn.Interval { return i.RMSE },
				func(m api.Metrics) *float64 { return m.RMSE }, true, Quantity},
			{"R²", func(r learn.Report) *float64 { return r.R2 }, func(i learn.Intervals) *learn.Interval { return i.R2 },
				func(m api.Metrics) *float64 { return m.R2 }, false, Ratio},
		}, 1
	}
	return []Metric{
		{"accuracy", func(r learn.Report) *float64 { return r.Accuracy }, func(i learn.Intervals) *learn.Interval { return i.Accuracy },
			func(m api.Metrics) *float64 { return m.Accuracy }, false, Ratio},
		{"F1", func(r learn.Report) *float64 { return r.F1 }, func(i learn.Intervals) *learn.Interval { return i.F1 },
			func(m api.Metrics) *float64 { return m.F1 }, false, Ratio},
		{"ROC-AUC", func(r learn.Report) *float64 { return r.ROCAUC }, func(i learn.Intervals) *learn.Interval { return i.ROCAUC },
			func(m api.Metrics) *float64 { return m.ROCAUC }, false, Ratio},
	}, 0
}

// Better is by how much a figure is better than another, nil where that is
// undefined.
func (m Metric) Better(than, x *float64) *float64 {
	if !Finite(than) || !Finite(x) {
		return nil
	}
	d := *x - *than
	if m.Lower {
		d = -d
	}
	return &d
}

// Show writes a figure, or [None].
func (m Metric) Show(x *float64) string {
	if !Finite(x) {
		return None
	}
	return m.Format(*x)
}

// ShowInterval writes the interval of a report's figure, "" where it has none.
func (m Metric) ShowInterval(r learn.Report) string {
	if r.Intervals == nil || !Finite(m.Of(r)) {
		return ""
	}
	i := m.Interval(*r.Intervals)
	if i == nil || !Finite(&i[0]) || !Finite(&i[1]) {
		return ""
	}
	return span(m.Format(i[0]), m.Format(i[1]))
}

// span joins the ends of an interval. A dash between numbers of which one is
// negative would be read as another sign.
func span(from, to string) string {
	if strings.HasPrefix(from, "−") || strings.HasPrefix(to, "−") || strings.HasPrefix(to, "+") {
		return from + " to " + to
	}
	return from + "–" + to
}

// Gained is what a node gains by the federation in the lead metric, nil where
// that is undefined, and its 95 % interval, nil where there is none.
func Gained(r api.Report, p api.Pair) (gain *float64, interval *learn.Interval) {
	metrics, lead := Metrics(r)
	gain = metrics[lead].Better(metrics[lead].Of(p.Local), metrics[lead].Of(p.Federated))
	if i := p.Gain.Interval; gain != nil && !Numeric(r) && i != nil && Finite(&i[0]) && Finite(&i[1]) {
		interval = i
	}
	return gain, interval
}

// Finite tells whether a figure is defined. What is beyond it is none: of two such
// figures the difference is finite, and in percent.
func Finite(x *float64) bool { return x != nil && math.Abs(*x) <= 1e300 }

// PartName names what each node has for itself.
func PartName(p learn.Part) string {
	switch p {
	case learn.Bias:
		return "own bias"
	case learn.LastLayer:
		return "own last layer"
	}
	return "own part"
}

// HasPersonal tells whether any node has evaluated a model with a part of its own.
func HasPersonal(r api.Report) bool { return r.AllRows.Personal.Rows > 0 }

// Ratio writes an accuracy and the like with three digits after the point.
func Ratio(x float64) string {
	if math.Abs(x) >= 1000 { // R² of a model that is nowhere near
		return Quantity(x)
	}
	return minus(strconv.FormatFloat(x, 'f', 3, 64))
}

// Quantity writes a number with a unit, in four digits that count.
func Quantity(x float64) string {
	a := math.Abs(x)
	if a != 0 && (a < 1e-3 || a >= 1e6) {
		return minus(strconv.FormatFloat(x, 'g', 4, 64))
	}
	digits := 3
	if a >= 1 {
		digits -= int(math.Log10(a))
	}
	return minus(strconv.FormatFloat(x, 'f', max(0, digits), 64))
}

// Setting writes a number that somebody has chosen, such as a learning rate, as a
// flag takes it.
func Setting(x float64) string {
	if !Finite(&x) {
		return None
	}
	return strconv.FormatFloat(x, 'g', 4, 64)
}

// Points writes a difference of shares in percentage points, with its sign.
func Points(x float64) string { return Signed(strconv.FormatFloat(100*x, 'f', 1, 64)) }

// PointsInterval writes an interval of such differences.
func PointsInterval(i learn.Interval) string { return span(Points(i[0]), Points(i[1])) }

// Signed puts a sign before a formatted number that is not zero.
func Signed(s string) string {
	s = minus(s)
	switch {
	case strings.Trim(s, "−0.") == "":
		return strings.TrimPrefix(s, "−")
	case strings.HasPrefix(s, "−"):
		return s
	}
	return "+" + s
}

// minus replaces the hyphen that stands for a sign.
func minus(s string) string {
	if strings.HasPrefix(s, "-") {
		return "−" + s[1:]
	}
	return s
}
