package table

import (
	"fmt"
	"io"
	"strconv"

	"village/node/api"
)

// SimAverage writes a line for each rule of an averaging experiment.
func SimAverage(w io.Writer, v api.SimAverage) error {
	fmt.Fprintf(w, "%d nodes, %d numbers each, seed %d; target error %g, at most %d rounds\n", v.Nodes, v.Dim, v.Seed, v.Target, v.Rounds)
	if v.Loss > 0 || v.Duplicate > 0 || v.Restart > 0 || v.Apart > 0 {
		fmt.Fprintf(w, "faults: loss %g, duplicates %g, restarts %g, two halves apart for %d rounds\n", v.Loss, v.Duplicate, v.Restart, v.Apart)
	}
	fmt.Fprintln(w)
	var rows [][]string
	for _, r := range v.Rules {
		rows = append(rows, []string{
			Text(r.Rule), strconv.Itoa(r.Rounds), fmt.Sprintf("%.2f", r.Messages), fmt.Sprintf("%.2f", r.Vectors),
			fmt.Sprintf("%.1e", r.Error), yes(r.Reached),
		})
	}
	if err := list(w, "no rule has come to its end", []string{"RULE", "ROUNDS", "MESSAGES/NODE", "VECTORS/NODE", "ERROR", "REACHED"}, rows); err != nil {
		return err
	}
	for _, m := range v.Missing {
		fmt.Fprintln(w, "missing: "+Text(m))
	}
	return nil
}
