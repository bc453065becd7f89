package chart

import (
	"slices"

	"village/protocol/figure"
	"village/protocol/learn"
	"village/protocol/record"
	"village/protocol/task"
	"village/sim"
)

// setting is the runs of one label, in the order in which they came.
type setting struct {
	label string
	runs  []Run
	kind  figure.Kind
	nodes []nodeStat // over all runs, by place
}

// settingsOf sorts runs by label, in the order in which the labels came.
func settingsOf(runs []Run) []setting {
	var all []setting
	places := map[string]int{}
	for _, r := range runs {
		label := plain(r.Label)
		i, ok := places[label]
		if !ok {
			i = len(all)
			places[label] = i
			all = append(all, setting{label: label})
		}
		all[i].runs = append(all[i].runs, r)
	}
	for i := range all {
		all[i].kind = kindOf(all[i].runs)
		all[i].nodes = all[i].nodeStats()
	}
	return all
}

// kindOf is that of the target of runs, which is a number if any error is known.
func kindOf(runs []Run) figure.Kind {
	for _, r := range runs {
		if r.Result.Results.AllRows.Federated.RMSE != nil || slices.ContainsFunc(r.Result.Trace, func(p sim.Point) bool { return p.AllRows.RMSE != nil }) {
			return figure.OfNumbers
		}
	}
	return figure.OfClasses
}

// numeric tells whether the target is a number.
func (s setting) numeric() bool { return s.kind.Numeric() }

// own is what each node has for itself, or "" where that is not known of any
// model.
func (s setting) own() string {
	name := ""
	for _, r := range s.runs {
		if r.Result.Results.AllRows.Personal.Rows == 0 {
			continue
		}
		part := figure.PartName(r.Result.Results.Personal)
		if name != "" && name != part {
			return "own part"
		}
		name = part
	}
	return name
}

// models names those that the setting has figures of.
func (s setting) models() []string {
	names := []string{"alone", "federated"}
	if part := s.own(); part != "" {
		names = append(names, part)
	}
	return names
}

// nodeResults are a run's nodes by place; those that have no result, for they
// did not come to the end, with what is known of them.
func nodeResults(r sim.Result) []task.NodeResult {
	places := make(map[record.NodeID]int, len(r.Nodes))
	for i, id := range r.Nodes {
		places[id] = i
	}
	list := slices.Clone(r.Results.Nodes)
	has := make(map[record.NodeID]bool, len(list))
	for _, n := range list {
		has[n.PeerID] = true
	}
	for _, c := range r.Results.Contributions {
		if !has[c.PeerID] {
			list = append(list, task.NodeResult{PeerID: c.PeerID, Nation: c.Nation, Name: c.Name, TrainRows: c.TrainRows})
		}
	}
	slices.SortStableFunc(list, func(a, b task.NodeResult) int { return places[a.PeerID] - places[b.PeerID] })
	for i := range list {
		list[i].Nation, list[i].Name = plain(list[i].Nation), plain(list[i].Name)
	}
	return list
}

// nodeStat is a node over all runs of a setting.
type nodeStat struct {
	nation, name        string
	trainRows, testRows Stat
	figures             [models]MetricStats
	gains               [models]Stat    // over training alone
	interval            *learn.Interval // of a single run's federated gain
}

// title is how a plot or a sentence calls the node.
func (n nodeStat) title() string {
	switch {
	case n.name == "" && n.nation == "":
		return "unnamed"
	case n.name == "":
		return n.nation
	case n.nation == "" || n.nation == n.name:
		return n.name
	}
	return n.name + " · " + n.nation
}

func (s setting) nodeStats() []nodeStat {
	// Peer IDs differ from seed to seed, so a node is the same if its name is,
	// or of several with one name its place among them.
	type key struct {
		nation, name string
		nth          int
	}
	type samples struct {
		train, test []float64
		figures     [models]values
		gains       [models][]float64
	}
	places := map[key]int{}
	var stats []nodeStat
	var all []samples
	for _, r := range s.runs {
		seen := map[key]int{}
		for _, n := range nodeResults(r.Result) {
			k := key{nation: n.Nation, name: n.Name}
			seen[k]++
			k.nth = seen[key{nation: n.Nation, name: n.Name}]
			i, ok := places[k]
			if !ok {
				i = len(stats)
				places[k] = i
				stats = append(stats, nodeStat{nation: n.Nation, name: n.Name})
				all = append(all, samples{})
			}
			v := &all[i]
			v.train = append(v.train, float64(n.TrainRows))
			v.test = append(v.test, float64(n.TestRows))
			for m, report := range reports(n.Pair) {
				v.figures[m].collect(figure.MetricsOf(report))
				if gain := s.kind.Gain(n.Local, report); gain != nil && model(m) != alone {
					v.gains[m] = append(v.gains[m], *gain)
				}
			}
			if len(s.runs) == 1 {
				_, stats[i].interval = s.kind.Gained(n.Pair)
			}
		}
	}
	for i, v := range all {
		stats[i].trainRows, stats[i].testRows = statOf(v.train), statOf(v.test)
		for m := range models {
			stats[i].figures[m], stats[i].gains[m] = v.figures[m].stats(), statOf(v.gains[m])
		}
	}
	return stats
}

// segment is a part of a line without a gap.
type segment []point

// point is a mean over seeds with the span that its band shows.
type point struct{ x, y, low, high float64 }

// line follows a setting over the sampled rounds that all its runs have: x and
// y are taken of each run's point, x is averaged, and spread makes of all y
// what is drawn. Where y is undefined in a run there is a gap.
func (s setting) line(x func(sim.Point) float64, y func(sim.Point) *float64, spread func([]float64) point) []segment {
	var traces []map[uint64]sim.Point
	var rounds []uint64
	for _, r := range s.runs {
		if len(r.Result.Trace) == 0 {
			continue
		}
		trace := make(map[uint64]sim.Point, len(r.Result.Trace))
		for _, p := range r.Result.Trace {
			trace[p.Round] = p
			if len(traces) == 0 {
				rounds = append(rounds, p.Round)
			}
		}
		traces = append(traces, trace)
	}
	slices.Sort(rounds)
	var line []segment
	gap := true
	for _, round := range slices.Compact(rounds) {
		var xs, ys []float64
		everywhere := true
		for _, t := range traces {
			p, ok := t[round]
			everywhere = everywhere && ok
			if v := y(p); ok && figure.Finite(v) {
				xs, ys = append(xs, x(p)), append(ys, *v)
			}
		}
		if !everywhere {
			continue
		}
		if len(ys) < len(traces) {
			gap = true
			continue
		}
		if gap {
			line, gap = append(line, nil), false
		}
		p := spread(ys)
		p.x = statOf(xs).Mean
		line[len(line)-1] = append(line[len(line)-1], p)
	}
	return line
}

// cut tells the last round that all traced runs have, if some run has a later one.
func (s setting) cut() (round uint64, cut bool) {
	var last []uint64
	for _, r := range s.runs {
		if n := len(r.Result.Trace); n > 0 {
			last = append(last, r.Result.Trace[n-1].Round)
		}
	}
	if len(last) == 0 {
		return 0, false
	}
	return slices.Min(last), slices.Min(last) < slices.Max(last)
}

// meanSD is the mean with a band of a standard deviation on both sides.
func meanSD(v []float64) point {
	s := statOf(v)
	return point{y: s.Mean, low: s.Mean - s.SD, high: s.Mean + s.SD}
}

// meanRange is the mean with a band from the least to the greatest.
func meanRange(v []float64) point {
	return point{y: statOf(v).Mean, low: slices.Min(v), high: slices.Max(v)}
}
