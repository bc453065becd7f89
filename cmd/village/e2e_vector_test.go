package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"village/node/api"
)

// TestLargeVectors trains a model whose vectors do not fit into an update: they
// are announced and travel in chunks. One node is killed on the way.
func TestLargeVectors(t *testing.T) {
	t.Parallel()
	const features, rounds = 600, 60
	s := federation(t, "budapest", "zurich", "cleveland")
	connect(s...)
	var datasets []string
	for i, site := range s {
		datasets = append(datasets, site.add("wide", wide(t, uint64(i), 120, features), "--target", "y", "--levels", "y=c0,c1,c2,c3,c4,c5,c6,c7"))
	}
	s[0].sees(datasets...)
	id := s[0].propose(s, "--target", "y", "--rounds", fmt.Sprint(rounds))
	for _, site := range s {
		site.join(id)
	}
	s[1].round(id, 5)
	s[1].kill()
	s[1].start()
	cid := model(t, id, s...)
	// Its vectors are gone with the task, and it is done all the same.
	s[2].kill()
	s[2].start()
	if again := model(t, id, s[2]); again != cid {
		t.Errorf("after a restart, the model is %s", again)
	}
	var shown api.ShownModel
	s[2].json(&shown, "model", "show", cid)
	if got := len(shown.Bias) * (1 + len(shown.Columns)); got != 8*(features+1) || got*8 <= 32<<10 {
		t.Errorf("%d parameters, which would fit into an update", got)
	}
	var r api.Report
	s[2].json(&r, "model", "report", cid)
	for _, c := range r.Contributions {
		if !c.InFinal {
			t.Errorf("left out: %+v", c)
		}
	}
	v := proven(s[2], cid)
	if v.Parameters != 8*(features+1) {
		t.Errorf("%d parameters recomputed", v.Parameters)
	}
	unharmed(t, s...)
}

// wide is a CSV file with many features and eight classes.
func wide(t *testing.T, seed uint64, rows, features int) string {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 77))
	var b strings.Builder
	for f := range features {
		fmt.Fprintf(&b, "x%d,", f)
	}
	b.WriteString("y\n")
	for range rows {
		class := rng.IntN(8)
		for f := range features {
			x := rng.NormFloat64()
			if f%8 == class {
				x++
			}
			fmt.Fprintf(&b, "%.3f,", x)
		}
		fmt.Fprintf(&b, "c%d\n", class)
	}
	return file(t, b.String())
}
