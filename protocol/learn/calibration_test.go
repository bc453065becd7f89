package learn

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// scikit-learn's example of roc_curve with drop_intermediate=False.
func TestROCIsScikitLearns(t *testing.T) {
	c := tally(2, []int{0, 0, 1, 1}, binary2(.1, .4, .35, .8))
	r := c.Detailed([]string{"a", "b"}, "b", "", nil)
	if want := []ROCPoint{{0, 0}, {0, .5}, {.5, .5}, {.5, 1}, {1, 1}}; !slices.Equal(r.ROC, want) {
		t.Errorf("%v, want %v", r.ROC, want)
	}
	// For the other class both answers and scores are the other way round.
	r = c.Detailed([]string{"a", "b"}, "a", "", nil)
	if want := []ROCPoint{{0, 0}, {0, .5}, {.5, .5}, {.5, 1}, {1, 1}}; !slices.Equal(r.ROC, want) {
		t.Errorf("of class 0: %v, want %v", r.ROC, want)
	}
	for name, c := range map[string]Counts{"no rows": tally(2, nil, nil), "one class": tally(2, []int{1}, binary2(.3)), "three classes": tally(3, []int{1}, []float64{.1, .2, .7})} {
		labels := []string{"a", "b", "c"}
		if name != "three classes" {
			labels = labels[:2]
		}
		if r := c.Detailed(labels, "b", "", nil); r.ROC != nil {
			t.Errorf("%s: %v", name, r.ROC)
		}
	}
}

// The curve goes up and to the right, and what lies under it is the reported area.
func TestROC(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		n := rapid.SampledFrom([]int{2, 20, 100, 5000}).Draw(t, "rows")
		c := scored2(rng, n, rapid.Float64Range(0, 4).Draw(t, "apart"), .3)
		r := c.Detailed([]string{"a", "b"}, rapid.SampledFrom([]string{"a", "b"}).Draw(t, "positive"), "", nil)
		if r.ROCAUC == nil {
			return
		}
		last := len(r.ROC) - 1
		if len(r.ROC) > 101 || r.ROC[0] != (ROCPoint{}) || r.ROC[last] != (ROCPoint{1, 1}) {
			t.Fatalf("%d points from %v to %v", len(r.ROC), r.ROC[0], r.ROC[last])
		}
		area := 0.0
		for i := range last {
			p, q := r.ROC[i], r.ROC[i+1]
			if p.FPR > q.FPR || p.TPR > q.TPR {
				t.Fatalf("from %v to %v", p, q)
			}
			area += (q.FPR - p.FPR) * (p.TPR + q.TPR) / 2
		}
		if math.Abs(area-*r.ROCAUC) > .003 {
			t.Fatalf("the area is %v, not %v", area, *r.ROCAUC)
		}
	})
}

func TestCalibration(t *testing.T) {
	// Of four rows at .3 one is positive, of two at .92 one.
	c := tally(2, []int{0, 0, 1, 0, 1, 0}, binary2(.3+1e-3, .3+1e-3, .3+1e-3, .3+1e-3, .92, .92))
	r := c.Detailed([]string{"a", "b"}, "b", "", nil)
	if len(r.Calibration) != 2 {
		t.Fatalf("%+v", r.Calibration)
	}
	low, high := r.Calibration[0], r.Calibration[1]
	if low.From != .3 || low.To != .4 || low.Rows != 4 || low.Observed != .25 || math.Abs(low.Predicted-.301) > 1e-3 {
		t.Errorf("%+v", low)
	}
	if high.From != .9 || high.To != 1 || high.Rows != 2 || high.Observed != .5 || math.Abs(high.Predicted-.92) > 1e-3 {
		t.Errorf("%+v", high)
	}
	if want := (4*.051 + 2*.42) / 6; math.Abs(*r.CalibrationError-want) > 1e-3 {
		t.Errorf("the error is %v, not %v", *r.CalibrationError, want)
	}
	other := c.Detailed([]string{"a", "b"}, "a", "", nil)
	if math.Abs(*other.CalibrationError-*r.CalibrationError) > 1e-12 || other.Calibration[0].Observed != .5 || other.Calibration[0].Rows != 2 {
		t.Errorf("of class 0: %+v", other.Calibration)
	}
	if r = tally(2, nil, nil).Detailed([]string{"a", "b"}, "b", "", nil); r.Calibration != nil || r.CalibrationError != nil {
		t.Errorf("no rows: %+v", r.Calibration)
	}
}

// The middle of a bin lies in it, and bins are as fine as the doc of Bins says.
func TestProbabilityIsTheInverseOfBin(t *testing.T) {
	for at := range Bins {
		p := probability(at)
		if bin(p) != at || math.Abs(p+probability(Bins-1-at)-1) > 1e-15 {
			t.Errorf("bin %d: %v is in bin %d", at, p, bin(p))
		}
	}
}
