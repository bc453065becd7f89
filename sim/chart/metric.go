package chart

import (
	"math"
	"strings"

	"village/protocol/learn"
	"village/protocol/task"
)

// metric is a headline figure.
type metric struct {
	name   string // on the page and on axes
	column string // in the tables
	file   string // in the names of plots
	of     func(task.Metrics) *float64
	stat   func(*MetricStats) *Stat
	lower  bool // the lower it is, the better
	format func(float64) string
	// What a plot shows goes from least to most; beyond, it is drawn there.
	least, most float64
}

// metrics are those of classes, then those of numbers.
var metrics = [...]metric{
	{"accuracy", "accuracy", "accuracy", func(m task.Metrics) *float64 { return m.Accuracy }, func(s *MetricStats) *Stat { return &s.Accuracy }, false, Ratio, 0, 1},
	{"F1", "f1", "f1", func(m task.Metrics) *float64 { return m.F1 }, func(s *MetricStats) *Stat { return &s.F1 }, false, Ratio, 0, 1},
	{"ROC AUC", "roc_auc", "auc", func(m task.Metrics) *float64 { return m.ROCAUC }, func(s *MetricStats) *Stat { return &s.ROCAUC }, false, Ratio, 0, 1},
	{"MAE", "mae", "mae", func(m task.Metrics) *float64 { return m.MAE }, func(s *MetricStats) *Stat { return &s.MAE }, true, Quantity, 0, 1e300},
	{"RMSE", "rmse", "rmse", func(m task.Metrics) *float64 { return m.RMSE }, func(s *MetricStats) *Stat { return &s.RMSE }, true, Quantity, 0, 1e300},
	{"R²", "r2", "r2", func(m task.Metrics) *float64 { return m.R2 }, func(s *MetricStats) *Stat { return &s.R2 }, false, Ratio, -1, 1},
}

// kind is what a target is. The lead tells better from worse; beside it, the
// second has a plot over the rounds.
type kind struct {
	metrics      []metric
	lead, second metric
}

var (
	ofClasses = kind{metrics[:3], metrics[0], metrics[2]}
	ofNumbers = kind{metrics[3:], metrics[4], metrics[5]}
)

// numeric tells whether the lead is an error, in the target's unit.
func (k kind) numeric() bool { return k.lead.lower }

// beside writes figures that stand beside another.
func (m metric) beside(v float64) func(float64) string {
	if m.lower {
		return QuantityBeside(v)
	}
	return m.format
}

// better is by how much a figure is better than another.
func (m metric) better(than, x float64) float64 {
	if m.lower {
		return than - x
	}
	return x - than
}

// direction is the class of a figure that is seen to be better or worse than
// another: up, down, or "".
func (m metric) direction(than, x float64) string {
	switch {
	case m.format(than) == m.format(x):
		return ""
	case m.better(than, x) > 0:
		return "up"
	}
	return "down"
}

// gain is by how much a model does better than another by the lead metric, on a
// node's own test rows.
func (k kind) gain(local, with learn.Report) (float64, bool) {
	than, x := finite(k.lead.of(metricsOf(local))), finite(k.lead.of(metricsOf(with)))
	if than == nil || x == nil {
		return 0, false
	}
	gain := k.lead.better(*than, *x)
	return gain, finite(&gain) != nil
}

// signed writes a gain: in percentage points, or in the target's unit.
func (k kind) signed(gain float64) string {
	if k.numeric() {
		return sign(Quantity(math.Abs(gain)), gain)
	}
	return signed(gain)
}

// spread writes the standard deviation of gains, in the same.
func (k kind) spread(s Stat) string {
	if k.numeric() {
		return QuantityBeside(s.Mean)(s.SD)
	}
	return strings.TrimPrefix(signed(s.SD), "+")
}

// unit follows a gain in a sentence.
func (k kind) unit() string {
	if k.numeric() {
		return "of RMSE"
	}
	return "percentage points"
}

func metricsOf(r learn.Report) task.Metrics {
	return task.Metrics{Accuracy: r.Accuracy, F1: r.F1, ROCAUC: r.ROCAUC, MAE: r.MAE, RMSE: r.RMSE, R2: r.R2}
}

// intervalOf is that of a metric in a report, nil where there is none.
func intervalOf(m metric, r learn.Report) *learn.Interval {
	if r.Intervals == nil {
		return nil
	}
	i := *r.Intervals
	for at, v := range []*learn.Interval{i.Accuracy, i.F1, i.ROCAUC, i.MAE, i.RMSE, i.R2} {
		if metrics[at].column == m.column {
			return proper(v)
		}
	}
	return nil
}

// proper is an interval, or nil where an end is no number.
func proper(i *learn.Interval) *learn.Interval {
	if i == nil || finite(&i[0]) == nil || finite(&i[1]) == nil {
		return nil
	}
	return i
}

// MetricStats are the headline figures over runs. The last three are those of a
// numeric target.
type MetricStats struct {
	Accuracy Stat `json:"accuracy"`
	F1       Stat `json:"f1"`
	ROCAUC   Stat `json:"roc_auc"`
	MAE      Stat `json:"mae,omitzero"`
	RMSE     Stat `json:"rmse,omitzero"`
	R2       Stat `json:"r2,omitzero"`
}

// values are those of each metric.
type values [len(metrics)][]float64

// collect appends the defined ones.
func (v *values) collect(from task.Metrics) {
	for i, m := range metrics {
		if x := m.of(from); x != nil {
			v[i] = append(v[i], *x)
		}
	}
}

func (v *values) stats() (s MetricStats) {
	for i, m := range metrics {
		*m.stat(&s) = statOf(v[i])
	}
	return s
}

// model is one of those that are set beside each other.
type model int

const (
	alone model = iota
	federated
	own // federated, with a part of its own at each node
	models
)

// reports are a pair's, by model.
func reports(p task.Pair) [models]learn.Report {
	return [models]learn.Report{p.Local, p.Federated, p.Personal}
}

// means are a pair's, by model.
func means(p task.MeanPair) [models]task.Metrics {
	return [models]task.Metrics{p.Local, p.Federated, p.Personal}
}
