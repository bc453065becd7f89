package chart

import (
	"fmt"
	"math"

	"village/protocol/task"
)

// Stat is a mean over runs, or over the nodes of runs.
type Stat struct {
	N    int     `json:"n"` // values; 0 = there is none, and the mean is undefined
	Mean float64 `json:"mean"`
	SD   float64 `json:"sd"` // that of a sample, and 0 for a single value
}

// Format writes the mean, and from two values on ± the standard deviation, in
// the given way; an undefined mean is a dash.
func (s Stat) Format(number func(float64) string) string {
	switch s.N {
	case 0:
		return "–"
	case 1:
		return number(s.Mean)
	}
	return number(s.Mean) + " ± " + number(s.SD)
}

// statOf leaves out what is no finite number.
func statOf(values []float64) Stat {
	var s Stat
	// A power of two takes the largest to about 1, so that no square overflows.
	exponent := math.MinInt
	for _, v := range values {
		if finite(&v) != nil && v != 0 {
			exponent = max(exponent, math.Ilogb(v))
		}
	}
	if exponent == math.MinInt {
		exponent = 0
	}
	for _, v := range values {
		if finite(&v) == nil {
			continue
		}
		// Welford's way: the squares of large numbers do not swallow the rest.
		v = math.Ldexp(v, -exponent)
		s.N++
		d := v - s.Mean
		s.Mean += d / float64(s.N)
		s.SD += float64(d * (v - s.Mean))
	}
	s.Mean = math.Ldexp(s.Mean, exponent)
	if s.N > 1 {
		s.SD = min(math.Ldexp(math.Sqrt(s.SD/float64(s.N-1)), exponent), math.MaxFloat64)
	} else {
		s.SD = 0
	}
	return s
}

// MetricStats are the three headline figures over runs.
type MetricStats struct {
	Accuracy Stat `json:"accuracy"`
	F1       Stat `json:"f1"`
	ROCAUC   Stat `json:"roc_auc"`
}

// Compare sets what nodes reach alone beside what the federation reaches.
type Compare struct {
	Local     MetricStats `json:"local"`
	Federated MetricStats `json:"federated"`
}

// Summary is a setting over all its runs.
type Summary struct {
	Label string `json:"label"`
	Runs  int    `json:"runs"`
	Done  int    `json:"done"` // runs that came to their end
	Nodes Stat   `json:"nodes"`
	// AllRows is over the test rows of all nodes together, Mean the mean of the
	// nodes, Worst the lowest value that any node has.
	AllRows        Compare `json:"all_rows"`
	Mean           Compare `json:"mean_of_nodes"`
	Worst          Compare `json:"worst_node"`
	Rounds         Stat    `json:"rounds"`
	Messages       Stat    `json:"messages"` // sent by all nodes together
	Bytes          Stat    `json:"bytes_sent"`
	VirtualSeconds Stat    `json:"virtual_seconds"`
	Disagreement   Stat    `json:"disagreement"`
	// Better, Worse and Equal count the nodes of all runs by whether the
	// federation's model has a higher accuracy on the node's own test rows than
	// the node's own model; Unknown are those without test rows or a result.
	Better  int `json:"nodes_better"`
	Worse   int `json:"nodes_worse"`
	Equal   int `json:"nodes_equal"`
	Unknown int `json:"nodes_unknown"`
}

// Summarise sums up runs by label, in the order in which the labels came.
func Summarise(runs []Run) []Summary {
	var list []Summary
	for _, s := range settingsOf(runs) {
		list = append(list, s.summary())
	}
	return list
}

func (s setting) summary() Summary {
	sum := Summary{Label: s.label, Runs: len(s.runs)}
	var nodes, rounds, messages, bytes, seconds, disagreement []float64
	var local, federated [3][3][]float64 // by scope, by metric
	for _, r := range s.runs {
		res := r.Result
		if res.Done {
			sum.Done++
		}
		nodes = append(nodes, float64(len(res.Nodes)))
		messages = append(messages, float64(res.Messages))
		bytes = append(bytes, float64(res.Bytes))
		seconds = append(seconds, res.Virtual.Seconds())
		disagreement = append(disagreement, res.Disagreement)
		sum.Unknown += max(0, len(res.Nodes)-len(res.Results.Nodes))
		if res.Model == nil && len(res.Results.Nodes) == 0 {
			continue // no model, hence no results
		}
		rounds = append(rounds, float64(res.Results.Rounds))
		for i, p := range []task.MeanPair{
			{Local: metricsOf(res.Results.AllRows.Local), Federated: metricsOf(res.Results.AllRows.Federated)}, res.Results.Mean, res.Results.Worst,
		} {
			collect(&local[i], p.Local)
			collect(&federated[i], p.Federated)
		}
		for _, n := range res.Results.Nodes {
			switch gain, ok := gainOf(n.Pair); {
			case !ok:
				sum.Unknown++
			case gain > 0:
				sum.Better++
			case gain < 0:
				sum.Worse++
			default:
				sum.Equal++
			}
		}
	}
	sum.Nodes, sum.Rounds, sum.Messages, sum.Bytes = statOf(nodes), statOf(rounds), statOf(messages), statOf(bytes)
	sum.VirtualSeconds, sum.Disagreement = statOf(seconds), statOf(disagreement)
	for i, c := range []*Compare{&sum.AllRows, &sum.Mean, &sum.Worst} {
		c.Local, c.Federated = metricStats(local[i]), metricStats(federated[i])
	}
	return sum
}

// collect appends the defined ones of a run's metrics.
func collect(to *[3][]float64, m task.Metrics) {
	for i, v := range []*float64{m.Accuracy, m.F1, m.ROCAUC} {
		if v != nil {
			to[i] = append(to[i], *v)
		}
	}
}

func metricStats(of [3][]float64) MetricStats {
	return MetricStats{Accuracy: statOf(of[0]), F1: statOf(of[1]), ROCAUC: statOf(of[2])}
}

// Verdict says in one sentence who gains and who does not.
func (s Summary) Verdict() string {
	n := s.Better + s.Worse + s.Equal
	if n == 0 {
		return "Whether any node gains is unknown, for none has a result of its own."
	}
	of := "Of " + plural(n, "node")
	if s.Runs > 1 {
		of += fmt.Sprintf(" in %d runs", s.Runs)
	}
	end := "."
	if s.Unknown > 0 {
		end = fmt.Sprintf("; of %s more it is unknown.", count(float64(s.Unknown)))
	}
	do := func(some int) string {
		switch {
		case some == 0:
			return "none does"
		case some == 1:
			return "1 does"
		case some == n:
			return "all do"
		}
		return count(float64(some)) + " do"
	}
	return fmt.Sprintf("%s, %s better with the federation's model than alone, %s worse, and %s the same, by accuracy on the node's own test rows%s",
		of, do(s.Better), do(s.Worse), do(s.Equal), end)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return count(float64(n)) + " " + what + "s"
}
