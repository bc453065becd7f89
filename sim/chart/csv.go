package chart

import (
	"encoding/csv"
	"io"
	"strconv"

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

// cell is a number in full, or empty where it is undefined.
func cell(v *float64) string {
	if v = finite(v); v == nil {
		return ""
	}
	return strconv.FormatFloat(*v, 'g', -1, 64)
}

func cells(m task.Metrics) []string {
	return []string{cell(m.Accuracy), cell(m.F1), cell(m.ROCAUC)}
}

func writeRounds(w *csv.Writer, all []setting) error {
	err := w.Write([]string{
		"label", "seed", "round", "virtual_seconds", "messages", "bytes_sent", "accuracy", "f1", "roc_auc",
		"mean_of_nodes_accuracy", "mean_of_nodes_f1", "mean_of_nodes_roc_auc", "disagreement",
	})
	for _, s := range all {
		for _, r := range s.runs {
			for _, p := range r.Result.Trace {
				seconds := p.Virtual.Seconds()
				row := []string{s.label, whole(r.Seed), whole(p.Round), cell(&seconds), whole(p.Messages), whole(p.Bytes)}
				row = append(append(row, cells(metricsOf(p.AllRows))...), cells(p.Mean)...)
				if err := w.Write(append(row, cell(&p.Disagreement))); err != nil {
					return err
				}
			}
		}
	}
	return err
}

func writeNodes(w *csv.Writer, all []setting) error {
	err := w.Write([]string{
		"label", "seed", "nation", "name", "train_rows", "rows", "local_accuracy", "federated_accuracy",
		"local_f1", "federated_f1", "local_roc_auc", "federated_roc_auc",
	})
	for _, s := range all {
		for _, r := range s.runs {
			for _, n := range nodeResults(r.Result) {
				err := w.Write([]string{
					s.label, whole(r.Seed), n.Nation, n.Name, whole(n.TrainRows), whole(n.TestRows),
					cell(n.Local.Accuracy), cell(n.Federated.Accuracy), cell(n.Local.F1), cell(n.Federated.F1),
					cell(n.Local.ROCAUC), cell(n.Federated.ROCAUC),
				})
				if err != nil {
					return err
				}
			}
		}
	}
	return err
}

// writeSummary gives every figure two columns, NAME and NAME_sd.
func writeSummary(w *csv.Writer, all []setting) error {
	for i, s := range all {
		sum := s.summary()
		names := []string{"label", "runs", "nodes_better", "nodes_worse", "nodes_equal", "nodes_unknown"}
		row := []string{s.label}
		for _, n := range []int{sum.Runs, sum.Better, sum.Worse, sum.Equal, sum.Unknown} {
			row = append(row, strconv.Itoa(n))
		}
		add := func(name string, s Stat) {
			mean, sd := "", ""
			if s.N > 0 {
				mean = cell(&s.Mean)
			}
			if s.N > 1 {
				sd = cell(&s.SD)
			}
			names, row = append(names, name, name+"_sd"), append(row, mean, sd)
		}
		add("nodes", sum.Nodes)
		add("rounds", sum.Rounds)
		add("messages", sum.Messages)
		add("bytes_sent", sum.Bytes)
		add("virtual_seconds", sum.VirtualSeconds)
		add("disagreement", sum.Disagreement)
		for _, scope := range []struct {
			name string
			Compare
		}{{"all_rows", sum.AllRows}, {"mean_of_nodes", sum.Mean}, {"worst_node", sum.Worst}} {
			for _, side := range []struct {
				name string
				MetricStats
			}{{"_local", scope.Local}, {"_federated", scope.Federated}} {
				add(scope.name+side.name+"_accuracy", side.Accuracy)
				add(scope.name+side.name+"_f1", side.F1)
				add(scope.name+side.name+"_roc_auc", side.ROCAUC)
			}
		}
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
