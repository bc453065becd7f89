package member_test

import (
	"fmt"

	"village/protocol/dataset"
	"village/protocol/member"
	"village/protocol/record"
	"village/protocol/task"
)

// Three nodes train one model. A driver gives each machine its events and performs
// the effects that come back. This one has a list for a network and takes no time;
// a node's own record is stepped before the others get it.
func Example() {
	nodes := []record.NodeID{{1}, {2}, {3}} // in peer-ID order
	t := task.New("heart", dataset.Encoding{
		Target: "sick", Classes: []string{"no", "yes"}, Positive: "yes",
		Features: []dataset.FeatureSpec{{Name: "age", Kind: dataset.Numeric}},
	}, nodes)
	t.Rounds = 3
	id := record.CIDOf([]byte("heart"))

	type delivery struct {
		to    int
		event member.Event
	}
	var queue []delivery
	name := func(v any) record.CID { return record.CIDOf(fmt.Append(nil, v)) }
	publish := func(from int, number uint64, body any) {
		r := member.Received{CID: name([]any{from, number, body}), Author: nodes[from], Number: number, Body: body}
		queue = append(queue, delivery{from, r})
		for to := range nodes {
			if to != from {
				queue = append(queue, delivery{to, r})
			}
		}
	}
	perform := func(i int, effect member.Effect) {
		switch e := effect.(type) {
		case member.Publish: // signed and durable in a real driver
			publish(i, e.Number, e.Body)
		case member.Cast:
			e.Vote.CID = name(e)
			publish(i, e.Vote.Ballot, member.Ballot(e))
		case member.Certify:
			publish(i, 0, member.Certificate{Topic: e.Topic, Content: e.Content})
		case member.Train: // half of the way to what is best for the own rows
			best := float64(i)
			params := []float64{(e.From[0] + best) / 2, (e.From[1] - best) / 2}
			queue = append(queue, delivery{i, member.Trained{Round: e.Round, Params: params}})
			if i == 0 {
				fmt.Printf("round %d from %.3f\n", e.Round, e.From)
			}
		case member.Make:
			queue = append(queue, delivery{i, member.Made{Set: e.Set, Model: name(e.Model.Params), Inputs: name(e.Model.Parts)}})
		case member.Evaluate:
			queue = append(queue, delivery{i, member.Evaluated{Evaluation: task.Evaluation{Task: id, Model: e.CID}}})
		case member.Wake: // a Tick at that time, if nothing comes before
		}
	}

	var machines []*member.Member
	for i, node := range nodes {
		machines = append(machines, member.New(node, id, t))
		queue = append(queue, delivery{i, member.Enrol{Enrolment: task.Enrolment{
			Task: id, Moments: dataset.Moments{Count: uint64(10 * (i + 1)), Mean: []float64{50}, M2: []float64{100}},
		}}})
	}
	stage := member.Stage("")
	for len(queue) > 0 {
		next := queue[0]
		queue = queue[1:]
		effects := machines[next.to].Step(0, next.event)
		if now := machines[0].Stage(); now != stage {
			stage = now
			fmt.Println(stage)
		}
		for _, effect := range effects {
			perform(next.to, effect)
		}
	}
	for _, m := range machines {
		_, model := m.Model()
		fmt.Printf("%s with %.3f of %d updates\n", m.Stage(), model.Params, len(model.Parts))
	}
	// Output:
	// enrolling
	// training
	// round 1 from [0.000 0.000]
	// round 2 from [0.667 -0.667]
	// round 3 from [1.000 -1.000]
	// sealing
	// evaluating
	// done
	// done with [1.167 -1.167] of 3 updates
	// done with [1.167 -1.167] of 3 updates
	// done with [1.167 -1.167] of 3 updates
}
