package report

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"village/node/api"
	"village/protocol/learn"
	"village/protocol/record"
	"village/protocol/task"
)

const nations = "ALB ARE ARG AUS AUT BEL BGR BRA CAN CHE CHL COL CRI CZE DEU DNK ESP EST FIN FRA GBR GRC HKG HRV HUN IDN IRL ISL ISR ITA JOR JPN KAZ KOR LTU LUX LVA MEX NLD NOR NZL"

var cities = []string{"Tirana", "Abu Dhabi", "Buenos Aires", "Canberra", "Wien", "Bruxelles-Capitale / Brussels Hoofdstedelijk Gewest", "София", "Brasília", "Ottawa", "Zürich", "", "香港特別行政區教育局"}

func f(x float64) *float64 { return &x }

// around is an interval as wide as that of a share of so many rows.
func interval(x float64, rows uint64) *learn.Interval {
	half := 1.96 * math.Sqrt(max(x*(1-x), .01)/float64(rows))
	return &learn.Interval{max(0, x-half), min(1, x+half)}
}

// classReport is that of a model with about that accuracy and skill, in detail.
func classReport(rows uint64, accuracy, skill float64, groups bool) learn.Report {
	right := uint64(math.Round(accuracy * float64(rows)))
	wrong := rows - right
	m := [][]uint64{{right * 2 / 5, wrong / 2}, {wrong - wrong/2, right - right*2/5}}
	r := learn.Report{Rows: rows, Confusion: m, ROCAUC: f(1 - 1/(2+skill)), CalibrationError: f(.02 + .05/(1+skill))}
	for i, label := range []string{"below level 2", "level 2 or above"} {
		hits := float64(m[i][i])
		c := learn.ClassReport{
			Label: label, Precision: hits / max(1, float64(m[0][i]+m[1][i])), Recall: hits / max(1, float64(m[i][0]+m[i][1])), Support: m[i][0] + m[i][1],
		}
		c.F1 = 2 * c.Precision * c.Recall / max(1e-9, c.Precision+c.Recall)
		r.Classes = append(r.Classes, c)
		r.Macro.F1, r.Macro.Precision, r.Macro.Recall = r.Macro.F1+c.F1/2, r.Macro.Precision+c.Precision/2, r.Macro.Recall+c.Recall/2
	}
	r.Weighted = r.Macro
	accuracy = float64(right) / float64(rows)
	r.Micro = learn.Average{Precision: accuracy, Recall: accuracy, F1: accuracy, Support: rows}
	r.Accuracy, r.F1 = &accuracy, &r.Classes[1].F1
	r.Intervals = &learn.Intervals{Accuracy: interval(accuracy, rows), F1: interval(*r.F1, rows), ROCAUC: interval(*r.ROCAUC, rows)}
	for i := range 101 {
		x := float64(i) / 100
		r.ROC = append(r.ROC, learn.ROCPoint{FPR: x, TPR: math.Pow(x, 1/(1+skill))})
	}
	for i := range 10 {
		x := (float64(i) + .5) / 10
		r.Calibration = append(r.Calibration, learn.CalibrationBin{
			From: float64(i) / 10, To: float64(i+1) / 10, Rows: uint64(float64(rows) * (.04 + .12*x)), Predicted: x,
			Observed: min(1, max(0, x+.07*math.Sin(7*x)/(skill+.2))),
		})
	}
	if groups {
		r.Fairness = &learn.Fairness{Column: "gender", Hidden: 2, DemographicParity: f(.051 * skill), EqualisedOdds: f(.072 / skill), Groups: []learn.GroupReport{
			{Group: "female", Rows: rows / 2, Accuracy: f(accuracy + .01), Selection: f(.61), TPR: f(.84), FPR: f(.31)},
			{Group: "male", Rows: rows - rows/2 - 12, Accuracy: f(accuracy - .01), Selection: f(.58), TPR: f(.82), FPR: f(.29)},
			{Group: "not said", Rows: 12, Accuracy: f(.75), Selection: f(.5), TPR: f(1)},
		}}
	}
	return r
}

// numberReport is that of a model of a number.
func numberReport(rows uint64, rmse float64) learn.Report {
	around := func(x float64) *learn.Interval {
		half := x / math.Sqrt(float64(rows))
		return &learn.Interval{x - half, x + half}
	}
	return learn.Report{
		Rows: rows, MAE: f(.78 * rmse), RMSE: f(rmse), R2: f(1 - rmse*rmse/40000),
		Intervals: &learn.Intervals{MAE: around(.78 * rmse), RMSE: around(rmse), R2: around(1 - rmse*rmse/40000)},
	}
}

// example is a report as of a federation of so many nodes, whole.
func example(nodes int, numeric bool) api.Report {
	rng := rand.New(rand.NewPCG(7, uint64(nodes)))
	codes := strings.Fields(nations)
	r := api.Report{
		CID: record.CIDOf([]byte("model")), Report: record.CIDOf([]byte("report")), Task: record.CIDOf([]byte("task")),
		Name: "mathematics", Target: "level2", Positive: "level 2 or above", Rounds: 60, Personal: learn.Bias,
		Lineage: []record.CID{record.CIDOf([]byte("parent")), record.CIDOf([]byte("grandparent"))}, Promoted: new(bool),
	}
	*r.Promoted = true
	if numeric {
		r.Name, r.Target, r.Positive = "rental bikes", "hourly count", ""
	}
	var all, train uint64
	var sums [3]float64
	for i := range nodes {
		id := record.NodeID{1, byte(i), byte(i >> 8)}
		c := api.Contribution{
			PeerID: id, Nation: codes[i%len(codes)], Name: cities[i%len(cities)], TrainRows: 30, Round: 60, InFinal: true, Why: "trained to the last round",
		}
		switch {
		case i == 7 || i == 20:
			c.Round, c.Why = 57, "fell silent after round 57, which is recent enough to count"
			r.Missing = append(r.Missing, id)
		case i == 9:
			c.Late = true
		case i == 14:
			c.InFinal, c.Round, c.Why = false, 31, "left after round 31"
		case i == 15:
			c = api.Contribution{PeerID: id, Why: "did not enrol"}
		}
		r.Contributions = append(r.Contributions, c)
		if !c.InFinal || i == 7 || i == 20 {
			continue
		}
		rows := uint64(90 + rng.IntN(140))
		base := .72 + .16*rng.Float64()
		gain, own := .035*rng.NormFloat64()+.012, .02*rng.NormFloat64()+.018
		all, train = all+rows, train+30
		n := api.NodeReport{PeerID: id, Nation: c.Nation, Name: c.Name, TrainRows: 30, TestRows: rows}
		if numeric {
			rmse := 60 + 90*rng.Float64()
			n.Pair = api.Pair{Local: numberReport(rows, rmse), Federated: numberReport(rows, rmse*(1-3*gain)), Personal: numberReport(rows, rmse*(1-3*own))}
			n.Gain.Rows = rows
		} else {
			n.Pair = api.Pair{Local: classReport(rows, base, .9, true), Federated: classReport(rows, base+gain, 1.4, true), Personal: classReport(rows, base+own, 1.5, true)}
			d := *n.Federated.Accuracy - *n.Local.Accuracy
			half := 1.96 * math.Sqrt(.12/float64(rows))
			n.Gain = learn.Gain{Rows: rows, Accuracy: &d, Interval: &learn.Interval{d - half, d + half}}
		}
		for m, s := range []learn.Report{n.Local, n.Federated, n.Personal} {
			if numeric {
				sums[m] += *s.RMSE * float64(rows)
			} else {
				sums[m] += *s.Accuracy * float64(rows)
			}
		}
		r.Nodes = append(r.Nodes, n)
	}
	for m := range sums {
		sums[m] /= float64(all)
	}
	if numeric {
		parent := numberReport(all, sums[1]*1.06)
		r.AllRows = api.Pair{Local: numberReport(all, sums[0]), Federated: numberReport(all, sums[1]), Personal: numberReport(all, sums[2]), Parent: &parent}
	} else {
		parent := classReport(all, sums[1]-.01, 1.3, false)
		d := sums[1] - sums[0]
		r.AllRows = api.Pair{
			Local: classReport(all, sums[0], .9, true), Federated: classReport(all, sums[1], 1.4, true), Personal: classReport(all, sums[2], 1.5, true), Parent: &parent,
			Gain: learn.Gain{Rows: all, Accuracy: &d, Interval: &learn.Interval{d - .009, d + .009}},
		}
	}
	across := func(figure func([]float64) float64) (p api.MeanPair) {
		for m, to := range []*api.Metrics{&p.Local, &p.Federated, &p.Personal} {
			of := func(metric func(learn.Report) *float64) *float64 {
				var values []float64
				for _, n := range r.Nodes {
					if v := metric([]learn.Report{n.Local, n.Federated, n.Personal}[m]); v != nil {
						values = append(values, *v)
					}
				}
				if len(values) == 0 {
					return nil
				}
				slices.Sort(values)
				return f(figure(values))
			}
			*to = api.Metrics{
				Accuracy: of(func(r learn.Report) *float64 { return r.Accuracy }), F1: of(func(r learn.Report) *float64 { return r.F1 }),
				ROCAUC: of(func(r learn.Report) *float64 { return r.ROCAUC }), MAE: of(func(r learn.Report) *float64 { return r.MAE }),
				RMSE: of(func(r learn.Report) *float64 { return r.RMSE }), R2: of(func(r learn.Report) *float64 { return r.R2 }),
			}
		}
		return p
	}
	r.Mean = across(func(v []float64) float64 {
		sum := 0.0
		for _, x := range v {
			sum += x
		}
		return sum / float64(len(v))
	})
	r.Worst = across(func(v []float64) float64 {
		if numeric {
			return v[len(v)-1]
		}
		return v[0]
	})
	r.Search = exampleSearch(nodes)
	return r
}

// exampleSearch is one of nine candidates on three rungs.
func exampleSearch(nodes int) *task.Trail {
	t := &task.Trail{Chosen: 4}
	for i := range 9 {
		c := task.Candidate{Model: learn.Logistic, LocalSteps: 10, LearningRate: []float64{.003, .1, 1}[i%3], L2: 1e-4}
		if i >= 3 {
			c.Model, c.Hidden, c.Optimizer = learn.MLP, []int{32}, learn.Momentum
		}
		if i >= 6 {
			c.Hidden, c.Optimizer, c.Outer, c.OuterRate = []int{64, 16}, learn.Adam, learn.OuterYogi, .1
		}
		t.Candidates = append(t.Candidates, c)
	}
	kept := []int{0, 1, 2, 3, 4, 5, 6, 7, 8}
	for rung, keep := range [][]int{{1, 4, 7}, {4}} {
		r := task.TrailOfRung{Round: uint64(10 * (rung + 1)), Nodes: nodes, Losses: make([]*float64, 9), Kept: keep}
		for _, i := range kept {
			r.Losses[i] = f(.5123 + .03*math.Abs(float64(i-4)) - .02*float64(rung))
		}
		t.Rungs, kept = append(t.Rungs, r), keep
	}
	return t
}

// of describes an example.
func describe(r api.Report) string { return fmt.Sprintf("%s of %d nodes", r.Name, len(r.Nodes)) }
