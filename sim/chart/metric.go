package chart

import (
	"village/protocol/figure"
	"village/protocol/learn"
	"village/protocol/task"
)

// spread writes the standard deviation of gains, as the gains are written.
func spread(k figure.Kind, s Stat) string {
	if k.Numeric() {
		return figure.QuantityBeside(s.Mean)(s.SD)
	}
	return figure.Percent(s.SD)
}

// unit follows a gain in a sentence.
func unit(k figure.Kind) string {
	if k.Numeric() {
		return "of " + k.Lead.Name
	}
	return "percentage points"
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

// Of is the figure of a metric.
func (s *MetricStats) Of(m figure.Metric) *Stat {
	return [len(figure.Metrics)]*Stat{&s.Accuracy, &s.F1, &s.ROCAUC, &s.MAE, &s.RMSE, &s.R2}[m.Index]
}

// values are those of each metric.
type values [len(figure.Metrics)][]float64

// collect appends the defined ones.
func (v *values) collect(from task.Metrics) {
	for i, m := range figure.Metrics {
		if x := m.Across(from); x != nil {
			v[i] = append(v[i], *x)
		}
	}
}

func (v *values) stats() (s MetricStats) {
	for i, m := range figure.Metrics {
		*s.Of(m) = statOf(v[i])
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
