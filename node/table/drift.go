package table

import (
	"fmt"
	"io"

	"village/protocol/dataset"
)

// Drift prints how far rows are from what a manifest says, a line a column.
func Drift(w io.Writer, columns []dataset.ColumnDrift) error {
	rows := [][]string{}
	figure := func(x *float64) string {
		if x == nil {
			return "–"
		}
		return fmt.Sprintf("%.3f", *x)
	}
	for _, c := range columns {
		rows = append(rows, []string{Text(c.Column), figure(c.PSI), figure(c.KS), or(c.Level)})
	}
	return list(w, "no column to compare", []string{"COLUMN", "PSI", "KS", "DRIFT"}, rows)
}
