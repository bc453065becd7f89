package chart

import (
	"fmt"
	"math"

	"village/protocol/figure"
	"village/protocol/learn"
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
		return figure.None
	case 1:
		return number(s.Mean)
	}
	return number(s.Mean) + " ± " + number(s.SD)
}

// inUnitOf writes the mean and the deviation in the unit that suits the mean.
func (s Stat) inUnitOf(units []figure.Unit) string {
	if s.N == 0 {
		return figure.None
	}
	u := figure.UnitFor(units, s.Mean)
	return s.Format(func(v float64) string { return figure.Digits(v / u.Size) }) + " " + u.Name
}

// Bytes writes a mean of bytes and its deviation.
func (s Stat) Bytes() string { return s.inUnitOf(figure.ByteUnits) }

// Seconds writes a mean of seconds and its deviation.
func (s Stat) Seconds() string { return s.inUnitOf(figure.TimeUnits) }

// statOf leaves out what is no finite number.
func statOf(values []float64) Stat {
	var s Stat
	// A power of two takes the largest to about 1, so that no square overflows.
	exponent := math.MinInt
	for _, v := range values {
		if figure.Finite(&v) && v != 0 {
			exponent = max(exponent, math.Ilogb(v))
		}
	}
	if exponent == math.MinInt {
		exponent = 0
	}
	for _, v := range values {
		if !figure.Finite(&v) {
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

// Compare sets what nodes reach alone beside what the federation reaches, and
// beside that with a part of each node's own.
type Compare struct {
	Local     MetricStats `json:"local"`
	Federated MetricStats `json:"federated"`
	Personal  MetricStats `json:"personal"`
}

// models are the figures, by model.
func (c *Compare) models() [models]*MetricStats {
	return [models]*MetricStats{&c.Local, &c.Federated, &c.Personal}
}

// Summary is a setting over all its runs.
type Summary struct {
	Label string `json:"label"`
	Runs  int    `json:"runs"`
	Done  int    `json:"done"` // runs that came to their end
	Nodes Stat   `json:"nodes"`
	// AllRows is over the test rows of all nodes together, Mean the mean of the
	// nodes, Worst the worst value that any node has.
	AllRows        Compare `json:"all_rows"`
	Mean           Compare `json:"mean_of_nodes"`
	Worst          Compare `json:"worst_node"`
	Rounds         Stat    `json:"rounds"`
	Messages       Stat    `json:"messages"` // sent by all nodes together
	Bytes          Stat    `json:"bytes_sent"`
	VirtualSeconds Stat    `json:"virtual_seconds"`
	Disagreement   Stat    `json:"disagreement"`
	// Better, Worse and Equal count the nodes of all runs by whether the
	// federation's model has a higher accuracy, or a lower RMSE, on the node's
	// own test rows than the model that it trains alone; Unknown are those
	// without test rows or a result.
	Better  int `json:"nodes_better"`
	Worse   int `json:"nodes_worse"`
	Equal   int `json:"nodes_equal"`
	Unknown int `json:"nodes_unknown"`
	// The same of the federation's model with a part of the node's own.
	OwnBetter  int `json:"nodes_own_better"`
	OwnWorse   int `json:"nodes_own_worse"`
	OwnEqual   int `json:"nodes_own_equal"`
	OwnUnknown int `json:"nodes_own_unknown"`
}

// Numeric tells whether the target is a number and not a class.
func (s Summary) Numeric() bool {
	for _, c := range []Compare{s.AllRows, s.Mean} {
		for _, m := range c.models() {
			if m.RMSE.N > 0 {
				return true
			}
		}
	}
	return false
}

// kind is that of the target.
func (s Summary) kind() figure.Kind { return figure.KindOf(s.Numeric()) }

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
	var figures [3][models]values // by scope
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
		without := max(0, len(res.Nodes)-len(res.Results.Nodes))
		sum.Unknown, sum.OwnUnknown = sum.Unknown+without, sum.OwnUnknown+without
		if res.Model == nil && len(res.Results.Nodes) == 0 {
			continue // no model, hence no results
		}
		rounds = append(rounds, float64(res.Results.Rounds))
		for m, report := range reports(res.Results.AllRows) {
			figures[0][m].collect(figure.MetricsOf(report))
		}
		for i, p := range []task.MeanPair{res.Results.Mean, res.Results.Worst} {
			for m, v := range means(p) {
				figures[1+i][m].collect(v)
			}
		}
		for _, n := range res.Results.Nodes {
			tell(s.kind, n.Local, n.Federated, &sum.Better, &sum.Worse, &sum.Equal, &sum.Unknown)
			tell(s.kind, n.Local, n.Personal, &sum.OwnBetter, &sum.OwnWorse, &sum.OwnEqual, &sum.OwnUnknown)
		}
	}
	sum.Nodes, sum.Rounds, sum.Messages, sum.Bytes = statOf(nodes), statOf(rounds), statOf(messages), statOf(bytes)
	sum.VirtualSeconds, sum.Disagreement = statOf(seconds), statOf(disagreement)
	for i, c := range []*Compare{&sum.AllRows, &sum.Mean, &sum.Worst} {
		for m, to := range c.models() {
			*to = figures[i][m].stats()
		}
	}
	return sum
}

// tell counts a node by whether a model does better than the node alone.
func tell(k figure.Kind, local, with learn.Report, better, worse, equal, unknown *int) {
	switch gain := k.Gain(local, with); {
	case gain == nil:
		*unknown++
	case *gain > 0:
		*better++
	case *gain < 0:
		*worse++
	default:
		*equal++
	}
}

// Verdict says who gains and who does not.
func (s Summary) Verdict() string {
	n := s.Better + s.Worse + s.Equal
	if n == 0 {
		return "Whether any node gains is unknown, for none has a result of its own."
	}
	of := "Of " + figure.Plural(n, "node")
	if s.Runs > 1 {
		of += fmt.Sprintf(" in %d runs", s.Runs)
	}
	end := "."
	if s.Unknown > 0 {
		end = fmt.Sprintf("; of %s more it is unknown.", figure.Count(s.Unknown))
	}
	do := func(some, of int) string {
		switch {
		case some == 0:
			return "none does"
		case some == 1:
			return "1 does"
		case some == of:
			return "all do"
		}
		return figure.Count(some) + " do"
	}
	sentence := fmt.Sprintf("%s, %s better with the federation's model than alone, %s worse, and %s the same, by %s on the node's own test rows%s",
		of, do(s.Better, n), do(s.Worse, n), do(s.Equal, n), s.kind().Lead.Name, end)
	if n := s.OwnBetter + s.OwnWorse + s.OwnEqual; n > 0 {
		sentence += fmt.Sprintf(" With a part of its own in that model, %s better than alone, %s worse, and %s the same.",
			do(s.OwnBetter, n), do(s.OwnWorse, n), do(s.OwnEqual, n))
	}
	return sentence
}
