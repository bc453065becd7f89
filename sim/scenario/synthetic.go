package scenario

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"village/protocol/dataset"
)

const (
	synthetic = "synthetic:"
	maxCells  = 20_000_000 // of generated data
	testEvery = 5          // of so many rows one is for tests
)

// syntheticSize reads "synthetic:ROWSxFEATURES". Rows are 0 where the data is
// something else.
func syntheticSize(data string) (rows, features int, err error) {
	size, ok := strings.CutPrefix(data, synthetic)
	if !ok {
		return 0, 0, nil
	}
	r, f, _ := strings.Cut(size, "x")
	if rows, err = strconv.Atoi(r); err == nil {
		features, err = strconv.Atoi(f)
	}
	if err != nil || rows < testEvery || features < 1 || features > 9_000 || rows > maxCells/features {
		return 0, 0, fmt.Errorf("it is synthetic:ROWSxFEATURES with at least %d rows, 1 to 9000 features and at most %d cells, as synthetic:5000x20", testEvery, maxCells)
	}
	return rows, features, nil
}

// generate draws rows of a logistic ground truth: features from the standard
// normal distribution, and a label that is yes with the probability which a
// model of random weights, of length 3, gives. So the best model errs, too: in
// one row of six. Every fifth row is for tests.
func generate(rows, features int, seed uint64) (dataset.Table, Defaults) {
	r := stream("synthetic", seed)
	t := dataset.Table{Rows: make([][]string, rows)}
	truth, length := make([]float64, features), 0.0
	for j := range truth {
		t.Columns = append(t.Columns, fmt.Sprintf("x%d", j+1))
		truth[j] = r.NormFloat64()
		length += float64(truth[j] * truth[j])
	}
	t.Columns = append(t.Columns, "label", "split")
	cells := make([]string, rows*len(t.Columns))
	var text []byte
	ends := make([]int, features)
	for i := range t.Rows {
		row := cells[i*len(t.Columns) : (i+1)*len(t.Columns)]
		margin := 0.0
		text = text[:0]
		for j := range truth {
			x := math.Round(r.NormFloat64()*1e6) / 1e6 // what the cell says
			margin += float64(x * truth[j])
			text = strconv.AppendFloat(text, x, 'f', -1, 64)
			ends[j] = len(text)
		}
		all, start := string(text), 0 // one allocation a row
		for j, end := range ends {
			row[j], start = all[start:end], end
		}
		row[features], row[features+1] = "no", "train"
		if r.Float64() < 1/(1+math.Exp(-3*margin/math.Sqrt(length))) {
			row[features] = "yes"
		}
		if i%testEvery == testEvery-1 {
			row[features+1] = "test"
		}
		t.Rows[i] = row
	}
	return t, Defaults{Options: dataset.Options{Name: "synthetic", Target: "label", Split: "split", Positive: "yes"}}
}
