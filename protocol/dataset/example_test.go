package dataset_test

import (
	"fmt"

	"village/protocol/dataset"
)

// A table is cleaned at home; what may leave is its manifest. A task makes an
// encoding of the manifests of all, under which each node turns its rows into the
// same columns of numbers.
func Example() {
	table := dataset.Table{Columns: []string{"age", "sex", "sick"}}
	for i := range 40 {
		table.Rows = append(table.Rows, []string{fmt.Sprint(40 + i), []string{"f", "m"}[i%2], []string{"no", "yes"}[i/20]})
	}
	table.Rows = append(table.Rows, []string{"77", "m", ""})

	cleaned, err := dataset.Clean(table, dataset.Options{Name: "heart", Target: "sick", Positive: "yes"})
	if err != nil {
		panic(err)
	}
	fmt.Println(len(cleaned.Table().Rows), "of", cleaned.Read, "rows are kept")
	for _, c := range cleaned.Manifest.Columns {
		fmt.Printf("%s %s is %s %s %.1f\n", c.Role, c.Name, c.Kind, c.Levels, c.Statistics)
	}

	encoding, err := dataset.NewEncoding("sick", nil, "", []dataset.Manifest{cleaned.Manifest})
	if err != nil {
		panic(err)
	}
	rows, _, _ := encoding.Complete(cleaned.Table(), true)
	samples, err := encoding.Encode(rows)
	if err != nil {
		panic(err)
	}
	fmt.Println(encoding.Names(), samples.X[:4], samples.Y[:2])

	dataset.MomentsOf(samples).Scaling().Apply(samples)
	fmt.Printf("%.3f\n", samples.X[:4])
	// Output:
	// 40 of 41 rows are kept
	// feature age is numeric [] [59.5 11.5]
	// feature sex is categorical [f m] []
	// target sick is categorical [no yes] []
	// [age sex=m] [40 0 41 1] [0 0]
	// [-1.689 -1.000 -1.603 1.000]
}
