package chart

import (
	"cmp"
	"encoding/csv"
	"io"
	"slices"
	"strconv"

	"village/protocol/figure"
	"village/protocol/task"
)

func writeTables(dir string, all []setting) error {
	for _, t := range []struct {
		name  string
		write func(*csv.Writer, []setting) error
	}{{"rounds.csv", writeRounds}, {"nodes.csv", writeNodes}, {"summary.csv", writeSummary}} {
		err := writeFile(dir, t.name, func(w io.Writer) error {
			c := csv.NewWriter(w)
			if err := t.write(c, all); err != nil {
				return err
			}
			c.Flush()
			return c.Error()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func whole(v uint64) string { return strconv.FormatUint(v, 10) }

// full is a number in full, or empty where it is undefined.
func full(v *float64) string {
	if !figure.Finite(v) {
		return ""
	}
	return strconv.FormatFloat(*v, 'g', -1, 64)
}

// cells are the figures of some metrics.
func cells(from task.Metrics, of []figure.Metric) (row []string) {
	for _, m := range of {
		row = append(row, full(m.Across(from)))
	}
	return row
}

// columns are the metrics' names after a prefix.
func columns(prefix string, of []figure.Metric) (names []string) {
	for _, m := range of {
		names = append(names, prefix+m.Key)
	}
	return names
}

// The tables have the figures of numbers after all others: a column stays where
// it was.

func writeRounds(w *csv.Writer, all []setting) error {
	classes, numbers := figure.OfClasses.Metrics, figure.OfNumbers.Metrics
	err := w.Write(slices.Concat(
		[]string{"label", "seed", "round", "virtual_seconds", "messages", "bytes_sent"},
		columns("", classes), columns("mean_of_nodes_", classes), []string{"disagreement"},
		columns("", numbers), columns("mean_of_nodes_", numbers),
	))
	for _, s := range all {
		for _, r := range s.runs {
			for _, p := range r.Result.Trace {
				seconds, of := p.Virtual.Seconds(), figure.MetricsOf(p.AllRows)
				err = cmp.Or(err, w.Write(slices.Concat(
					[]string{s.label, whole(r.Seed), whole(p.Round), full(&seconds), whole(p.Messages), whole(p.Bytes)},
					cells(of, classes), cells(p.Mean, classes), []string{full(&p.Disagreement)},
					cells(of, numbers), cells(p.Mean, numbers),
				)))
			}
		}
	}
	return err
}

func writeNodes(w *csv.Writer, all []setting) error {
	head := []string{"label", "seed", "nation", "name", "train_rows", "rows"}
	for _, k := range []figure.Kind{figure.OfClasses, figure.OfNumbers} {
		for _, m := range k.Metrics {
			head = append(head, "local_"+m.Key, "federated_"+m.Key)
		}
		head = append(head, columns("own_", k.Metrics)...)
	}
	err := w.Write(append(head, "gain", "gain_low", "gain_high", "own_gain"))
	for _, s := range all {
		for _, r := range s.runs {
			for _, n := range nodeResults(r.Result) {
				row := []string{s.label, whole(r.Seed), n.Nation, n.Name, whole(n.TrainRows), whole(n.TestRows)}
				local, federated, personal := figure.MetricsOf(n.Local), figure.MetricsOf(n.Federated), figure.MetricsOf(n.Personal)
				for _, k := range []figure.Kind{figure.OfClasses, figure.OfNumbers} {
					for _, m := range k.Metrics {
						row = append(row, full(m.Across(local)), full(m.Across(federated)))
					}
					row = append(row, cells(personal, k.Metrics)...)
				}
				gain, interval := s.kind.Gained(n.Pair)
				low, high := "", ""
				if interval != nil {
					low, high = full(&interval[0]), full(&interval[1])
				}
				err = cmp.Or(err, w.Write(append(row, full(gain), low, high, full(s.kind.Gain(n.Local, n.Personal)))))
			}
		}
	}
	return err
}

// writeSummary gives every figure two columns, NAME and NAME_sd.
func writeSummary(w *csv.Writer, all []setting) error {
	for i, s := range all {
		sum := s.summary()
		var names, row []string
		number := func(name string, n int) {
			names, row = append(names, name), append(row, strconv.Itoa(n))
		}
		add := func(name string, s Stat) {
			mean, sd := "", ""
			if s.N > 0 {
				mean = full(&s.Mean)
			}
			if s.N > 1 {
				sd = full(&s.SD)
			}
			names, row = append(names, name, name+"_sd"), append(row, mean, sd)
		}
		figures := func(of []figure.Metric, which ...model) {
			for _, scope := range []struct {
				name string
				Compare
			}{{"all_rows", sum.AllRows}, {"mean_of_nodes", sum.Mean}, {"worst_node", sum.Worst}} {
				for _, model := range which {
					for _, m := range of {
						add(scope.name+[]string{"_local_", "_federated_", "_own_"}[model]+m.Key, *scope.models()[model].Of(m))
					}
				}
			}
		}
		names, row = append(names, "label"), append(row, s.label)
		number("runs", sum.Runs)
		number("nodes_better", sum.Better)
		number("nodes_worse", sum.Worse)
		number("nodes_equal", sum.Equal)
		number("nodes_unknown", sum.Unknown)
		add("nodes", sum.Nodes)
		add("rounds", sum.Rounds)
		add("messages", sum.Messages)
		add("bytes_sent", sum.Bytes)
		add("virtual_seconds", sum.VirtualSeconds)
		add("disagreement", sum.Disagreement)
		figures(figure.OfClasses.Metrics, alone, federated)
		figures(figure.OfNumbers.Metrics, alone, federated)
		figures(figure.Metrics[:], own)
		number("nodes_own_better", sum.OwnBetter)
		number("nodes_own_worse", sum.OwnWorse)
		number("nodes_own_equal", sum.OwnEqual)
		number("nodes_own_unknown", sum.OwnUnknown)
		if i == 0 {
			if err := w.Write(names); err != nil {
				return err
			}
		}
		if err := w.Write(row); err != nil {
			return err
		}
	}
	return nil
}
