package figure

import "village/protocol/learn"

// Rate is a figure of a group of rows.
type Rate struct {
	Name, Long string
	Of         func(learn.GroupReport) *float64
}

// Rates are those of a group. All but the first are of two classes alone.
var Rates = [...]Rate{
	{"accuracy", "accuracy", func(g learn.GroupReport) *float64 { return g.Accuracy }},
	{"selection rate", "selection rate", func(g learn.GroupReport) *float64 { return g.Selection }},
	{"TPR", "true positive rate", func(g learn.GroupReport) *float64 { return g.TPR }},
	{"FPR", "false positive rate", func(g learn.GroupReport) *float64 { return g.FPR }},
}

// Difference is one between groups.
type Difference struct {
	Name, Between string
	Of            func(learn.Fairness) *float64
}

// Differences are those by which a model is told to be fair.
var Differences = [...]Difference{
	{"demographic parity", "selection rates", func(f learn.Fairness) *float64 { return f.DemographicParity }},
	{"equalised odds", "TPR or FPR, the larger", func(f learn.Fairness) *float64 { return f.EqualisedOdds }},
}

// TPR is the true positive rate of a curve at a false positive rate, the highest
// where there are several.
func TPR(curve []learn.ROCPoint, fpr float64) float64 {
	last := learn.ROCPoint{}
	for _, p := range curve {
		if p.FPR > fpr {
			if p.FPR-last.FPR <= 0 {
				return p.TPR
			}
			return last.TPR + (p.TPR-last.TPR)*(fpr-last.FPR)/(p.FPR-last.FPR)
		}
		last = p
	}
	return last.TPR
}
