package learn

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"village/protocol/dataset"
)

// grouped counts rows of two classes and groups: a row a digit pair of the truth
// and the prediction, -1 being no group.
func grouped(groups int, rows map[int]string) Counts {
	t := NewTally(Spec{Kind: Logistic, Inputs: 1, Classes: 2})
	t.Groups(groups)
	var data dataset.Samples
	for g := -1; g < groups; g++ {
		for _, row := range strings.Fields(rows[g]) {
			data.N, data.D = data.N+1, 1
			data.Y = append(data.Y, int(row[0]-'0'))
			data.X = append(data.X, float64(row[1]-'0')-.5)
			data.G = append(data.G, g)
		}
	}
	t.Count([]float64{1, 0}, data)
	return t.Counts()
}

// By Fairlearn's definitions: the rates are those of MetricFrame by group, the
// differences demographic_parity_difference and equalized_odds_difference with
// method="between_groups".
func TestFairnessIsFairlearns(t *testing.T) {
	c := grouped(4, map[int]string{
		0:  "11 11 11 10 00 00 00 01 01 00",       // 5 selected, TPR 3/4, FPR 2/6
		1:  "11 10 10 10 00 00 00 00 00 01 00 00", // 2 of 12, TPR 1/4, FPR 1/8
		2:  "11 11 11 11 11 11 11 11 11",          // too few
		-1: "10 10",
	})
	if err := c.Check(2, 4); err != nil {
		t.Fatal(err)
	}
	r := c.Detailed([]string{"no", "yes"}, "yes", "sex", []string{"a", "b", "c", "d"})
	f := r.Fairness
	if f.Column != "sex" || f.Hidden != 2 || len(f.Groups) != 2 {
		t.Fatalf("%+v", f)
	}
	a, b := f.Groups[0], f.Groups[1]
	got := []float64{float64(a.Rows), *a.Accuracy, *a.Selection, *a.TPR, *a.FPR, float64(b.Rows), *b.Accuracy, *b.Selection, *b.TPR, *b.FPR, *f.DemographicParity, *f.EqualisedOdds}
	want := []float64{10, .7, .5, .75, 1. / 3, 12, 8. / 12, 2. / 12, .25, .125, .5 - 2./12, .5}
	if a.Group != "a" || b.Group != "b" || !near(got, want, 1e-15) {
		t.Errorf("%v, want %v", got, want)
	}
	// Of the other class: who is not selected.
	f = c.Detailed([]string{"no", "yes"}, "no", "sex", []string{"a", "b", "c", "d"}).Fairness
	if g := f.Groups[0]; *g.Selection != .5 || *g.TPR != 4./6 || *g.FPR != .25 {
		t.Errorf("of class 0: %v %v %v", *g.Selection, *g.TPR, *g.FPR)
	}
	if math.Abs(*f.EqualisedOdds-.5) > 1e-15 {
		t.Errorf("of class 0: %v", *f.EqualisedOdds)
	}
}

func TestUndefinedFairnessIsNull(t *testing.T) {
	labels := []string{"no", "yes"}
	ten := "00 00 00 00 00 00 00 00 00 01"
	for name, c := range map[string]struct {
		counts Counts
		want   string
	}{
		"no positives": {grouped(2, map[int]string{0: ten, 1: ten + " 11"}), `"tpr":null,"fpr":0.1},{"group":"b","rows":11,"accuracy":0.9090909090909091,"selection_rate":0.18181818181818182,"tpr":1,"fpr":0.1}],` +
			`"demographic_parity_difference":0.08181818181818182,"equalised_odds_difference":null`},
		"one group": {grouped(2, map[int]string{0: ten}), `"hidden":1,"groups":[{"group":"a","rows":10,"accuracy":0.9,"selection_rate":0.1,"tpr":null,"fpr":0.1}],` +
			`"demographic_parity_difference":null,"equalised_odds_difference":null`},
		"no rows": {grouped(2, nil), `"hidden":2,"groups":[],"demographic_parity_difference":null`},
	} {
		b, err := json.Marshal(c.counts.Detailed(labels, "yes", "sex", []string{"a", "b"}).Fairness)
		if err != nil || !strings.Contains(string(b), c.want) {
			t.Errorf("%s: %s %v", name, b, err)
		}
	}
	c := grouped(2, map[int]string{0: ten})
	if f := c.Detailed(labels, "yes", "sex", []string{"a"}).Fairness; f != nil {
		t.Errorf("one name for two groups: %+v", f)
	}
	if f := c.Detailed(labels, "yes", "", nil).Fairness; f != nil {
		t.Errorf("no sensitive column: %+v", f)
	}
	if f := tally(2, []int{1}, binary2(.4)).Detailed(labels, "yes", "sex", []string{"a"}).Fairness; f != nil {
		t.Errorf("no groups counted: %+v", f)
	}
	// More classes have accuracies alone.
	three := tally(3, []int{0, 1, 2, 0, 0, 0, 0, 0, 0, 0}, slices.Repeat([]float64{.8, .1, .1}, 10))
	three.Groups = three.Confusion
	f := three.Detailed([]string{"a", "b", "c"}, "", "sex", []string{"x"}).Fairness
	if g := f.Groups[0]; *g.Accuracy != .8 || g.Selection != nil || g.TPR != nil || g.FPR != nil {
		t.Errorf("three classes: %+v", g)
	}
}

func TestGroupsAreSummed(t *testing.T) {
	one, other := map[int]string{0: "11 10 00", 1: "01 01", -1: "11"}, map[int]string{0: "00", 1: "11 00 01"}
	both := map[int]string{0: one[0] + " " + other[0], 1: one[1] + " " + other[1], -1: one[-1]}
	all := grouped(2, both)
	sum, err := Sum([]Counts{grouped(2, other), grouped(2, one)})
	if err != nil || !reflect.DeepEqual(sum, all) {
		t.Errorf("%+v is not %+v: %v", sum, all, err)
	}
	total := NewTally(Spec{Kind: Logistic, Inputs: 1, Classes: 2})
	total.Groups(2)
	for _, x := range []float64{-.5, .5} {
		part := NewTally(Spec{Kind: Logistic, Inputs: 1, Classes: 2})
		part.Groups(2)
		part.Count([]float64{1, 0}, dataset.Samples{N: 1, D: 1, X: []float64{x}, Y: []int{1}, G: []int{1}})
		total.Add(part)
	}
	if got := total.Counts(); !reflect.DeepEqual(got, grouped(2, map[int]string{1: "10 11"})) {
		t.Errorf("the tally is %+v", got)
	}
	total.Reset()
	if got := total.Counts(); !reflect.DeepEqual(got, grouped(2, nil)) {
		t.Errorf("an empty tally is %+v", got)
	}
	for name, parts := range map[string][]Counts{
		"other groups": {all, grouped(3, one)},
		"no groups":    {all, grouped(0, one)},
		"groups":       {grouped(0, one), all},
	} {
		if sum, err := Sum(parts); err == nil {
			t.Errorf("%s: gave %+v", name, sum)
		}
	}
}

func TestCheckRefusesGroups(t *testing.T) {
	good := func() Counts { return grouped(2, map[int]string{0: "11 10 00", 1: "01 01", -1: "11"}) }
	if err := good().Check(2, 2); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Counts){
		"none":           func(c *Counts) { c.Groups = nil },
		"one":            func(c *Counts) { c.Groups = c.Groups[:4] },
		"part of one":    func(c *Counts) { c.Groups = c.Groups[:7] },
		"more":           func(c *Counts) { c.Groups = append(c.Groups, 0) },
		"a row too many": func(c *Counts) { c.Groups[3] += 2 },
		"a row of both":  func(c *Counts) { c.Groups[3], c.Groups[7] = 2, 1 },
		"an overflow":    func(c *Counts) { c.Groups[3], c.Groups[7] = 2, math.MaxUint64 },
		"another cell":   func(c *Counts) { c.Groups[5]++ },
	} {
		c := good()
		change(&c)
		if err := c.Check(2, 2); err == nil || !strings.Contains(err.Error(), "groups") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, groups := range []int{-1, 0, 1, 3, math.MaxInt} {
		if good().Check(2, groups) == nil {
			t.Errorf("two groups passed for %d", groups)
		}
	}
}
