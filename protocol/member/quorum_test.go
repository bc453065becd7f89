package member

import (
	"fmt"
	"testing"
	"time"

	"village/protocol/learn"
	"village/protocol/record"
	"village/protocol/task"
)

// searching is a task of three rounds' search among three candidates.
func searching() task.Task {
	t := newTask(20)
	t.Search = &task.Search{
		Candidates: []task.Candidate{
			{Model: learn.Logistic, LocalSteps: 5, LearningRate: 0.2},
			{Model: learn.MLP, Hidden: []int{2}, LocalSteps: 5, LearningRate: 0.2},
			{Model: learn.Logistic, LocalSteps: 5, LearningRate: 0.1, Outer: learn.OuterAdam, OuterRate: 0.1},
		},
		Rungs: []task.Rung{{Round: 3, Keep: 2}, {Round: 6, Keep: 1}},
	}
	return t
}

// Nodes that follow a task go by what a quorum of its nodes has signed. A task whose
// nodes are all hostile must not stop anybody else by signing what no node would.
func TestAQuorumThatSignsGarbage(t *testing.T) {
	fine := task.FinalContent{Round: 20, Roster: theRoster(t).CID, Parts: []task.Part{}, Out: []task.Out{}, Inputs: name("inputs"), Model: name("model")}
	for i := range nodes {
		fine.Parts = append(fine.Parts, task.Part{Node: nodes[i], Enrolment: enrolled(i).CID, Update: name("update", i, 20), Round: 20, Weight: weight(i)})
	}
	chosen := fine
	chosen.Ends = []task.RungEnd{{Nodes: 3, Losses: []float64{1, 2, 3}, Kept: []int{0, 1}}, {Nodes: 3, Losses: []float64{1, 2}, Kept: []int{1}}}
	chosen.Chosen = 1
	finals := map[string]task.FinalContent{}
	change := func(name string, edit func(*task.FinalContent)) {
		for search, c := range map[string]task.FinalContent{"": fine, " of a search": chosen} {
			c.Parts, c.Ends = append([]task.Part(nil), c.Parts...), append([]task.RungEnd(nil), c.Ends...)
			edit(&c)
			finals[name+search] = c
		}
	}
	change("as it should be", func(*task.FinalContent) {})
	change("nobody", func(c *task.FinalContent) {
		c.Parts = nil
		for _, id := range nodes {
			c.Out = append(c.Out, task.Out{Node: id, Why: task.Absent})
		}
	})
	change("nothing", func(c *task.FinalContent) { c.Parts = nil })
	change("no weight", func(c *task.FinalContent) { c.Parts[0].Weight = 0 })
	change("too much weight", func(c *task.FinalContent) { c.Parts[0].Weight = 1 << 63 })
	change("one node twice", func(c *task.FinalContent) { c.Parts[1] = c.Parts[0] })
	change("a stranger", func(c *task.FinalContent) { c.Parts[0].Node = stranger })
	change("a candidate that there is not", func(c *task.FinalContent) { c.Chosen = 3 })
	change("a candidate before the first", func(c *task.FinalContent) { c.Chosen = -1 })
	change("a candidate that was dropped", func(c *task.FinalContent) { c.Chosen = 2 })
	change("no ends", func(c *task.FinalContent) { c.Ends = nil })
	change("an end of nothing", func(c *task.FinalContent) { c.Ends = append([]task.RungEnd{{}}, c.Ends[:min(1, len(c.Ends))]...) })
	change("an end without losses", func(c *task.FinalContent) {
		if len(c.Ends) > 0 {
			c.Ends[1].Losses = nil
		}
	})
	change("an end that keeps what there is not", func(c *task.FinalContent) {
		if len(c.Ends) > 0 {
			c.Ends[1].Kept, c.Chosen = []int{7}, 7
		}
	})
	rungs := map[string]task.RungEnd{
		"nothing": {}, "all": {Losses: []float64{1, 2, 3}, Kept: []int{0, 1, 2}}, "what there is not": {Losses: []float64{1, 2, 3}, Kept: []int{0, 9}},
		"before the first": {Losses: []float64{1, 2, 3}, Kept: []int{-1, 0}}, "one twice": {Losses: []float64{1, 2, 3}, Kept: []int{1, 1}},
		"no losses": {Kept: []int{0, 1}}, "too many losses": {Losses: make([]float64, 4), Kept: []int{0, 1}},
	}
	rosters := map[string][]record.CID{
		"nobody": nil, "one twice": {enrolled(0).CID, enrolled(0).CID}, "more than there are": {name(1), name(2), name(3), name(4)},
	}
	var contents []Received
	for _, c := range finals {
		contents = append(contents, certificate(t, task.TopicFinal, c))
	}
	for _, end := range rungs {
		for rung := range 2 {
			contents = append(contents, certificate(t, task.TopicOfRung(rung), task.RungContent{Roster: theRoster(t).CID, End: end}))
		}
	}
	for _, cids := range rosters {
		contents = append(contents, certificate(t, task.TopicRoster, task.RosterContent{Enrolments: cids}))
	}
	plain := newTask(20)
	for i, tk := range []task.Task{plain, searching()} {
		for _, self := range []record.NodeID{stranger, nodes[0]} {
			for at, garbage := range contents {
				b := garbage.Body.(Certificate)
				if _, isRung := b.Topic.Rung(tk); b.Topic != task.TopicRoster && b.Topic != task.TopicFinal && !isRung {
					continue
				}
				m := New(self, taskID, tk)
				records := []Received{garbage, enrolled(0), enrolled(1), enrolled(2)}
				if b.Topic != task.TopicRoster {
					records = append(records, opened(t, 0, 1, 2))
				}
				var updates []Received
				for i := range nodes {
					updates = append(updates, Received{CID: name("update", i, 20), Author: nodes[i], Number: 20, Body: task.Update{
						Task: taskID, Roster: theRoster(t).CID, Weight: weight(i), Params: tk.First(nil), Kept: keptOf(tk),
					}})
				}
				now := second
				for _, r := range append(records, updates...) {
					now += time.Millisecond
					for _, e := range m.Step(now, r) {
						if f, ok := e.(Fetch); ok && f.Inputs == fine.Inputs {
							m.Step(now, Fetched{Updates: updates})
						}
					}
				}
				m.Step(now, Tick{})
				m.WaitingFor()
				m.Undecided()
				if _, model := m.Model(); model != nil {
					if len(model.Params) != tk.SpecOf(model.Candidate).Params() {
						t.Errorf("task %d, content %d: a model of %d parameters", i, at, len(model.Params))
					}
					if _, err := m.Results(); err != nil {
						t.Errorf("task %d, content %d: %v", i, at, err)
					}
				}
				if tk.Search != nil {
					if _, ok := tk.Project(tk.First(nil), tk.Everyone(), m.Kept()); !ok {
						t.Errorf("candidates %v are left", m.Kept())
					}
				}
			}
		}
	}
	// What is as it should be makes a model, also at who has not followed.
	for name, tk := range map[string]task.Task{"as it should be": plain, "as it should be of a search": searching()} {
		m := New(stranger, taskID, tk)
		for _, r := range []Received{certificate(t, task.TopicFinal, finals[name]), enrolled(0), enrolled(1), enrolled(2), opened(t, 0, 1, 2)} {
			m.Step(second, r)
		}
		if got := fmt.Sprint(m.Content()); got != fmt.Sprint(finals[name]) {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// keptOf are the candidates that an update names before a search has dropped any.
func keptOf(tk task.Task) []int {
	if tk.Search == nil {
		return nil
	}
	return tk.Everyone()
}
