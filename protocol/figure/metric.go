// Package figure says once how figures are shown, for tables in a terminal, the
// pages of a report and the charts of the simulator: which metrics there are, what
// they are called and whether lower is better; how numbers, sizes and gains are
// written; where an axis has its ticks; how an SVG is written, and the colours.
package figure

import (
	"math"

	"village/protocol/learn"
	"village/protocol/task"
)

// None stands for a figure that is undefined.
const None = "–"

// Metric is a headline figure of a report.
type Metric struct {
	Index  int    // in [Metrics]
	Name   string // in tables, sentences and plots
	Long   string // where there is room
	Key    string // in JSON, CSV and the fields of model hubs
	Lower  bool   // the lower it is, the better
	Format func(float64) string
	// What a plot shows goes from Least to Most; beyond, it is drawn there.
	Least, Most float64
}

// Metrics are those of classes, then those of numbers.
var Metrics = [...]Metric{
	{0, "accuracy", "Accuracy", "accuracy", false, Ratio, 0, 1},
	{1, "F1", "F1", "f1", false, Ratio, 0, 1},
	{2, "ROC-AUC", "ROC-AUC", "roc_auc", false, Ratio, 0, 1},
	{3, "MAE", "Mean absolute error", "mae", true, Quantity, 0, most},
	{4, "RMSE", "Root mean squared error", "rmse", true, Quantity, 0, most},
	{5, "R²", "R²", "r2", false, Ratio, -1, 1},
}

// MetricsOf are the headline figures of a report.
func MetricsOf(r learn.Report) task.Metrics {
	return task.Metrics{Accuracy: r.Accuracy, F1: r.F1, ROCAUC: r.ROCAUC, MAE: r.MAE, RMSE: r.RMSE, R2: r.R2}
}

// Across is the metric among figures across nodes.
func (m Metric) Across(f task.Metrics) *float64 {
	return [len(Metrics)]*float64{f.Accuracy, f.F1, f.ROCAUC, f.MAE, f.RMSE, f.R2}[m.Index]
}

// Of is the metric in a report.
func (m Metric) Of(r learn.Report) *float64 { return m.Across(MetricsOf(r)) }

// Interval is the 95 % interval of the metric in a report, nil where there is none.
func (m Metric) Interval(r learn.Report) *learn.Interval {
	if r.Intervals == nil || !Finite(m.Of(r)) {
		return nil
	}
	i := r.Intervals
	return defined([len(Metrics)]*learn.Interval{i.Accuracy, i.F1, i.ROCAUC, i.MAE, i.RMSE, i.R2}[m.Index])
}

// defined is an interval, or nil where an end of it is undefined.
func defined(i *learn.Interval) *learn.Interval {
	if i == nil || !Finite(&i[0]) || !Finite(&i[1]) {
		return nil
	}
	return i
}

// Better is by how much a figure is better than another, nil where that is
// undefined. It is above zero where the figure is better, also if that means
// lower.
func (m Metric) Better(than, x *float64) *float64 {
	if !Finite(than) || !Finite(x) {
		return nil
	}
	if m.Lower {
		than, x = x, than
	}
	d := *x - *than
	return &d
}

// Direction tells whether a figure is seen to be better or worse than another: up,
// down, or "" where it is written alike or undefined.
func (m Metric) Direction(than, x *float64) string {
	switch better := m.Better(than, x); {
	case better == nil || m.Show(than) == m.Show(x):
		return ""
	case *better > 0:
		return "up"
	}
	return "down"
}

// Show writes a figure, or [None].
func (m Metric) Show(x *float64) string { return Show(x, m.Format) }

// ShowInterval writes the interval of the metric in a report, "" where it has none.
func (m Metric) ShowInterval(r learn.Report) string {
	i := m.Interval(r)
	if i == nil {
		return ""
	}
	return Span(m.Format(i[0]), m.Format(i[1]))
}

// Signed writes a difference of figures.
func (m Metric) Signed(x float64) string { return Signed(m.Format(x)) }

// Beside writes figures that stand beside another, with as many digits.
func (m Metric) Beside(x float64) func(float64) string {
	if m.Lower {
		return QuantityBeside(x)
	}
	return m.Format
}

// Kind is what a target is: a class or a number.
type Kind struct {
	Metrics []Metric
	Lead    Metric // tells better from worse
	Second  Metric // the one to show beside the lead
}

// OfClasses and OfNumbers are all the kinds.
var (
	OfClasses = Kind{Metrics[:3], Metrics[0], Metrics[2]}
	OfNumbers = Kind{Metrics[3:], Metrics[4], Metrics[5]}
)

// KindOf is that of a target that is a number, or not.
func KindOf(numeric bool) Kind {
	if numeric {
		return OfNumbers
	}
	return OfClasses
}

// Numeric tells whether the lead is an error, in the target's unit.
func (k Kind) Numeric() bool { return k.Lead.Lower }

// Gain is by how much a model does better than another in the lead metric, nil
// where that is undefined.
func (k Kind) Gain(than, with learn.Report) *float64 {
	return k.Lead.Better(k.Lead.Of(than), k.Lead.Of(with))
}

// Gained is what is gained by the federation, nil where that is undefined, and its
// 95 % interval, nil where there is none.
func (k Kind) Gained(p task.Pair) (gain *float64, interval *learn.Interval) {
	if gain = k.Gain(p.Local, p.Federated); gain != nil && !k.Numeric() { // a difference of errors has none
		interval = defined(p.Gain.Interval)
	}
	return gain, interval
}

// Signed writes a gain: in percentage points, or in the target's unit.
func (k Kind) Signed(gain float64) string {
	if k.Numeric() {
		return k.Lead.Signed(gain)
	}
	return Points(gain)
}

// SignedInterval writes an interval of gains.
func (k Kind) SignedInterval(i learn.Interval) string { return Span(k.Signed(i[0]), k.Signed(i[1])) }

// most is the largest number that is shown as one: of two such numbers the
// difference is finite, and in percent.
const most = 1e300

// Finite tells whether a figure is defined.
func Finite(x *float64) bool { return x != nil && math.Abs(*x) <= most }

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
