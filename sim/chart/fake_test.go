package chart

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"village/protocol/learn"
	"village/protocol/record"
	"village/protocol/task"
	"village/sim"
)

// fake is a run as the simulator could have made it.
type fake struct {
	label        string
	seed         uint64
	nodes        int
	rounds       int // 0 = no trace
	speed, best  float64
	alone        float64
	bytes        float64                     // in a round
	second       float64                     // of virtual time in a round
	disagreement func(round float64) float64 // nil = none
	testRows     int
	scenario     string
}

var nations = []string{"HUN", "SVK", "CHE", "USA", "FRA", "JPN", "KEN", "BRA", "IND", "DEU", "POL", "VNM"}

var cities = []string{"Budapest", "Bratislava", "Zürich", "Long Beach", "Lyon", "Kyōto", "Nairobi", "São Paulo", "Pune", "Köln", "Gdańsk", "Đà Nẵng"}

func (f fake) run() Run {
	rng := rand.New(rand.NewPCG(f.seed, uint64(len(f.label))))
	noise := func(sd float64) float64 { return rng.NormFloat64() * sd }
	clip := func(v float64) *float64 { v = min(1, max(0, v)); return &v }
	reportOf := func(accuracy float64, rows int) learn.Report {
		return learn.Report{Rows: uint64(rows), Accuracy: clip(accuracy), F1: clip(accuracy - 0.04), ROCAUC: clip(accuracy + 0.06)}
	}
	metrics := func(r learn.Report) task.Metrics {
		return task.Metrics{Accuracy: r.Accuracy, F1: r.F1, ROCAUC: r.ROCAUC}
	}
	res := sim.Result{Done: true}
	shift := noise(0.008)
	last := 0.5
	for i := range 51 {
		round := float64(f.rounds) * float64(i) / 50
		if f.rounds == 0 {
			break
		}
		last = 0.5 + (f.best-0.5)*(1-math.Exp(-round*f.speed)) + shift + noise(0.003)
		p := sim.Point{
			Round: uint64(round), Virtual: time.Duration(round * f.second * (1 + shift) * float64(time.Second)),
			Messages: uint64(round * float64(f.nodes)), Bytes: uint64(round * f.bytes * (1 + shift)),
			AllRows: reportOf(last, 254), Mean: metrics(reportOf(last-0.01, 254)),
		}
		if f.disagreement != nil {
			p.Disagreement = f.disagreement(round) * math.Exp(noise(0.2))
		}
		res.Trace = append(res.Trace, p)
		res.Messages, res.Bytes, res.Virtual, res.Disagreement = p.Messages, p.Bytes, p.Virtual, p.Disagreement
	}
	for i := range f.nodes {
		var id record.NodeID
		rng.Uint64()
		copy(id[:], fmt.Sprintf("%08d%08d", rng.Uint32N(1e8), i))
		res.Nodes = append(res.Nodes, id)
		name := cities[i%len(cities)]
		if i >= len(cities) {
			name = fmt.Sprintf("%s %d", name, i/len(cities)+1)
		}
		quantised := func(v float64) float64 {
			if f.testRows == 0 {
				return v
			}
			return math.Round(min(1, max(0, v))*float64(f.testRows)) / float64(f.testRows)
		}
		own := float64(i%7)*0.02 - 0.06
		spread := 0.01
		if f.testRows > 0 {
			spread = 0.5 / math.Sqrt(float64(f.testRows))
		}
		alone := quantised(f.alone + own + noise(spread))
		with := quantised(last + 0.3*own + noise(spread))
		if i%9 == 5 {
			with = alone
		}
		res.Results.Nodes = append(res.Results.Nodes, task.NodeResult{
			PeerID: id, Nation: nations[i%len(nations)], Name: name, TrainRows: uint64(60 + 13*i%97), TestRows: uint64(20 + 7*i%31),
			Pair: task.Pair{Local: reportOf(alone, 20), Federated: reportOf(with, 20)},
		})
	}
	res.Results.Rounds = uint64(f.rounds)
	res.Results.AllRows = task.Pair{Local: reportOf(f.alone, 254), Federated: reportOf(last, 254)}
	res.Results.Mean = task.MeanPair{Local: metrics(reportOf(f.alone-0.01, 254)), Federated: metrics(reportOf(last-0.01, 254))}
	res.Results.Worst = task.MeanPair{Local: metrics(reportOf(f.alone-0.2, 20)), Federated: metrics(reportOf(last-0.1, 20))}
	for i := range res.Digest {
		res.Digest[i] = byte(rng.Uint32())
	}
	scenario := f.scenario
	if scenario == "" {
		scenario = fmt.Sprintf("# four hospitals\ndata = \"heart\"\ntarget = \"disease\"\npartition = \"column:hospital\"\nnodes = %d\nrounds = %d\nmixing = %q\nloss = 0.3\n", f.nodes, f.rounds, f.label)
	}
	return Run{Label: f.label, Seed: f.seed, Scenario: scenario, Result: res}
}

func one() []Run {
	return []Run{fake{label: "four-hospitals", seed: 1, nodes: 4, rounds: 100, speed: 0.06, best: 0.815, alone: 0.761, bytes: 18e3, second: 0.31,
		disagreement: func(r float64) float64 { return 0.4 * math.Exp(-r/20) }}.run()}
}

func threeByFive() (runs []Run) {
	for i, label := range []string{"loss=0", "loss=0.3", "loss=0.6"} {
		for seed := range uint64(5) {
			runs = append(runs, fake{label: label, seed: seed + 1, nodes: 12, rounds: 200, speed: 0.05 / float64(i+1), best: 0.82 - 0.01*float64(i), alone: 0.76,
				bytes: 92e3, second: 0.3 * float64(1+i), disagreement: func(r float64) float64 { return 0.3 * math.Exp(-r/float64(30*(i+1))) }}.run())
		}
	}
	return runs
}

func graphs() (runs []Run) {
	for i, label := range []string{"mixing=all", "mixing=ring", "mixing=torus", "mixing=regular:4", "mixing=exponential", "mixing=base:2", "mixing=random"} {
		for seed := range uint64(2) {
			d := func(r float64) float64 { return math.Max(1e-16, math.Exp(-r*0.02*float64(i))) }
			if i == 0 {
				d = func(float64) float64 { return 0 }
			}
			if i == 5 {
				d = func(r float64) float64 {
					if r > 40 {
						return 0
					}
					return math.Pow(10, -r/4)
				}
			}
			runs = append(runs, fake{label: label, seed: seed + 1, nodes: 193, rounds: 300, speed: 0.1 / (1 + float64(i)/2), best: 0.84, alone: 0.70 + float64(i)*0.0001,
				bytes: 3e6 / math.Pow(2.2, float64(i)), second: 0.4, disagreement: d, testRows: 20}.run())
		}
	}
	return runs
}

func large() []Run {
	return []Run{fake{label: "ten-thousand", seed: 1, nodes: 10000, rounds: 1000, speed: 0.01, best: 0.8, alone: 0.66, bytes: 4.8e6, second: 0.12, testRows: 4,
		disagreement: func(r float64) float64 { return 0.02 + math.Exp(-r/50) }}.run()}
}

// number makes of a run one whose target is a number between 0 and 1,000: an
// accuracy of 1 becomes an RMSE of 0.
func number(r Run) Run {
	turn := func(p **float64, m *task.Metrics) {
		if *p == nil {
			return
		}
		mae, rmse, r2 := 600*(1-**p), 1000*(1-**p), 2*(**p)-1
		*m = task.Metrics{MAE: &mae, RMSE: &rmse, R2: &r2}
	}
	report := func(r *learn.Report) {
		var m task.Metrics
		turn(&r.Accuracy, &m)
		*r = learn.Report{Rows: r.Rows, MAE: m.MAE, RMSE: m.RMSE, R2: m.R2}
	}
	pair := func(p *task.Pair) {
		report(&p.Local)
		report(&p.Federated)
		report(&p.Personal)
		p.Gain = learn.Gain{}
	}
	for i := range r.Result.Trace {
		p := &r.Result.Trace[i]
		report(&p.AllRows)
		turn(&p.Mean.Accuracy, &p.Mean)
	}
	res := &r.Result.Results
	pair(&res.AllRows)
	for i := range res.Nodes {
		pair(&res.Nodes[i].Pair)
	}
	for _, m := range []*task.Metrics{&res.Mean.Local, &res.Mean.Federated, &res.Mean.Personal, &res.Worst.Local, &res.Worst.Federated, &res.Worst.Personal} {
		turn(&m.Accuracy, m)
	}
	return r
}

// detailed gives a run what the report of a real one has: own parts that are two
// points better than federated, intervals, groups, curves and a search.
func detailed(r Run) Run {
	better := func(r learn.Report, by float64) learn.Report {
		accuracy := min(1, *r.Accuracy+by)
		r.Accuracy = &accuracy
		return r
	}
	detail := func(r *learn.Report) {
		a := *r.Accuracy
		r.Intervals = &learn.Intervals{Accuracy: &learn.Interval{a - .05, a + .04}}
		r.ROC = []learn.ROCPoint{{}, {FPR: .2, TPR: a}, {FPR: 1, TPR: 1}}
		r.Calibration = []learn.CalibrationBin{{From: .1, To: .2, Rows: 100, Predicted: .15, Observed: .2}, {From: .8, To: .9, Rows: 154, Predicted: .85, Observed: a}}
		off := .9 - a/2
		r.CalibrationError = &off
		high, low := a, a/2
		r.Fairness = &learn.Fairness{Column: "sex", Hidden: 1, DemographicParity: &off, EqualisedOdds: &low, Groups: []learn.GroupReport{
			{Group: "female", Rows: 100, Accuracy: &high, Selection: &low, TPR: &high, FPR: &low},
			{Group: "male", Rows: 150, Accuracy: &low, Selection: &high, TPR: &low},
		}}
	}
	res := &r.Result.Results
	res.Personal = learn.Bias
	res.AllRows.Personal = better(res.AllRows.Federated, .02)
	for _, report := range []*learn.Report{&res.AllRows.Local, &res.AllRows.Federated, &res.AllRows.Personal} {
		detail(report)
	}
	for i := range res.Nodes {
		n := &res.Nodes[i]
		n.Personal = better(n.Federated, .02)
		n.Gain.Interval = &learn.Interval{*n.Federated.Accuracy - *n.Local.Accuracy - .1, *n.Federated.Accuracy - *n.Local.Accuracy + .1}
	}
	res.Mean.Personal, res.Worst.Personal = res.Mean.Federated, res.Worst.Federated
	loss := func(v float64) *float64 { return &v }
	res.Search = &task.Trail{
		Candidates: []task.Candidate{
			{Model: learn.Linear, LearningRate: .5, LocalSteps: 5, Optimizer: learn.SGD, Outer: learn.Plain},
			{Model: learn.MLP, Hidden: []int{32, 16}, LearningRate: .02, LocalSteps: 10, L2: .001, Optimizer: learn.SGD, Outer: learn.OuterAdam, OuterRate: .03},
			{Model: learn.Linear, LearningRate: 7, LocalSteps: 5, Optimizer: learn.SGD, Outer: learn.Plain},
		},
		Rungs: []task.TrailOfRung{
			{Round: 10, Nodes: 4, Losses: []*float64{loss(.61), loss(.62), loss(.93)}, Kept: []int{0, 1}},
			{Round: 20, Nodes: 4, Losses: []*float64{loss(.54), loss(.52), nil}, Kept: []int{1}},
		},
		Chosen: 1,
	}
	return r
}
