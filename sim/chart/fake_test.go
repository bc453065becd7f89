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
