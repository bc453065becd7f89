package table

import (
	"encoding/csv"
	"io"
	"strconv"

	"github.com/parquet-go/parquet-go"

	"village/node/api"
	"village/protocol/dataset"
)

// PredictionsParquet writes predictions as Parquet: the class as text, or the
// value of a numeric target as a double, and the probability of each class as a
// double; nulls where a row has no prediction. The columns are those of
// [PredictionsCSV].
func PredictionsParquet(w io.Writer, v api.Predictions) error {
	names, numbers := []string{"prediction"}, []bool{len(v.Classes) == 0}
	for _, class := range v.Classes {
		names, numbers = append(names, "probability_"+class), append(numbers, true)
	}
	return writeParquet(w, "predictions", names, numbers, len(v.Predictions), func(i, j int) string {
		switch {
		case j == 0:
			return v.Predictions[i]
		case i < len(v.Probabilities) && j <= len(v.Probabilities[i]):
			return strconv.FormatFloat(v.Probabilities[i][j-1], 'g', -1, 64)
		}
		return ""
	})
}

// RowsParquet writes the rows of a dataset as Parquet: numeric columns as doubles,
// others as text, nulls for missing cells.
func RowsParquet(w io.Writer, v api.Rows) error {
	names, numbers := make([]string, len(v.Columns)), make([]bool, len(v.Columns))
	for j, c := range v.Columns {
		names[j], numbers[j] = c.Name, c.Kind == dataset.Numeric
	}
	return writeParquet(w, "rows", names, numbers, len(v.Rows), func(i, j int) string { return v.Rows[i][j] })
}

// RowsCSV writes the rows of a dataset as CSV, missing cells empty.
func RowsCSV(w io.Writer, v api.Rows) error {
	c := csv.NewWriter(w)
	head := make([]string, len(v.Columns))
	for j, column := range v.Columns {
		head[j] = column.Name
	}
	if err := c.Write(head); err != nil {
		return err
	}
	return c.WriteAll(v.Rows)
}

// writeParquet writes columns of numbers and of texts; an empty cell is null.
func writeParquet(w io.Writer, name string, names []string, numbers []bool, rows int, cell func(i, j int) string) error {
	columns := ordered{parquet.Group{}, names}
	for j, name := range names {
		columns.Group[name] = parquet.Optional(parquet.String())
		if numbers[j] {
			columns.Group[name] = parquet.Optional(parquet.Leaf(parquet.DoubleType))
		}
	}
	out := parquet.NewWriter(w, parquet.NewSchema(name, columns), parquet.Compression(&parquet.Snappy))
	row := make(parquet.Row, len(names))
	for i := range rows {
		for j := range row {
			row[j] = parquet.NullValue().Level(0, 0, j)
			text := cell(i, j)
			if text == "" {
				continue
			}
			if !numbers[j] {
				row[j] = parquet.ByteArrayValue([]byte(text)).Level(0, 1, j)
			} else if x, err := strconv.ParseFloat(text, 64); err == nil {
				row[j] = parquet.DoubleValue(x).Level(0, 1, j)
			}
		}
		if _, err := out.WriteRows([]parquet.Row{row}); err != nil {
			return err
		}
	}
	return out.Close()
}

// ordered is a group whose columns stand in an order of their own, not in that
// of their names.
type ordered struct {
	parquet.Group
	order []string
}

func (o ordered) Fields() []parquet.Field {
	byName := map[string]parquet.Field{}
	for _, f := range o.Group.Fields() {
		byName[f.Name()] = f
	}
	fields := make([]parquet.Field, len(o.order))
	for i, name := range o.order {
		fields[i] = byName[name]
	}
	return fields
}
