package table

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/parquet-go/parquet-go"

	"village/node/api"
	"village/node/ingest"
)

// What is written as Parquet has the types that others expect, and reads back as
// the same cells as what is written as CSV.
func TestPredictionsParquet(t *testing.T) {
	v := api.Predictions{
		Classes: []string{"yes, sure", "10", "9"}, Predictions: []string{"10", "", "yes, sure"},
		Probabilities: [][]float64{{.25, .5, .25}, {}, {1, 0, 1e-300}}, Incomplete: 1,
	}
	read := func(f func(w *bytes.Buffer, v api.Predictions) error) ([]byte, string) {
		file := []byte(render(t, f, v))
		table, hints, err := ingest.Read(bytes.NewReader(file), int64(len(file)), ingest.Options{})
		if err != nil || len(hints) > 0 {
			t.Fatal(hints, err)
		}
		return file, fmt.Sprintf("%q", table.Table())
	}
	_, want := read(func(w *bytes.Buffer, v api.Predictions) error { return PredictionsCSV(w, v) })
	file, got := read(func(w *bytes.Buffer, v api.Predictions) error { return PredictionsParquet(w, v) })
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	opened, err := parquet.OpenFile(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	const schema = `message predictions {
	optional binary prediction (STRING);
	optional double probability_yes, sure;
	optional double probability_10;
	optional double probability_9;
}`
	if got := opened.Schema().String(); got != schema {
		t.Errorf("schema %s, want %s", got, schema)
	}
}
