package table

import (
	"io"

	"village/protocol/dataset"
)

// Drift prints how far rows are from what a manifest says, a line a column.
func Drift(w io.Writer, columns []dataset.ColumnDrift) error {
	rows := [][]string{}
	for _, c := range columns {
		rows = append(rows, []string{Text(c.Column), metric(c.PSI), metric(c.KS), Or(c.Level)})
	}
	return list(w, "no column to compare", []string{"COLUMN", "PSI", "KS", "DRIFT"}, rows)
}
