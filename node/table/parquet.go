package table

import (
	"io"

	"github.com/parquet-go/parquet-go"

	"village/node/api"
)

// PredictionsParquet writes predictions as Parquet: the class as text and the
// probability of each class as a double, nulls where a row has no prediction.
// The columns are those of [PredictionsCSV].
func PredictionsParquet(w io.Writer, v api.Predictions) error {
	columns := ordered{parquet.Group{"prediction": parquet.Optional(parquet.String())}, []string{"prediction"}}
	for _, class := range v.Classes {
		name := "probability_" + class
		columns.Group[name] = parquet.Optional(parquet.Leaf(parquet.DoubleType))
		columns.order = append(columns.order, name)
	}
	out := parquet.NewWriter(w, parquet.NewSchema("predictions", columns), parquet.Compression(&parquet.Snappy))
	for i, p := range v.Predictions {
		row := make(parquet.Row, len(columns.order))
		for j := range row {
			row[j] = parquet.NullValue().Level(0, 0, j)
		}
		if p != "" {
			row[0] = parquet.ByteArrayValue([]byte(p)).Level(0, 1, 0)
		}
		if i < len(v.Probabilities) {
			for j, x := range v.Probabilities[i][:min(len(v.Probabilities[i]), len(v.Classes))] {
				row[1+j] = parquet.DoubleValue(x).Level(0, 1, 1+j)
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
