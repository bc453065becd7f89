package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"village/node/api"
	"village/protocol/record"
)

// hospitals makes four connected sites with a dataset each, which know of each
// other's.
func hospitals(t *testing.T) []*site {
	t.Helper()
	s := federation(t, "budapest", "zurich", "cleveland", "bern")
	connect(s...)
	var datasets []string
	for i, site := range s {
		datasets = append(datasets, site.add("ward", patients(t, uint64(i), 60+20*i), "--target", "sick"))
	}
	for _, site := range s {
		site.sees(datasets...)
	}
	return s
}

// under asks how a task stands at a site, and checks that it is not over.
func (s *site) under(task string) api.ShownTask {
	s.t.Helper()
	v := s.follow(task, func(api.ShownTask) bool { return true })
	if v.Stage != api.StageTraining || v.Round >= v.Rounds {
		s.t.Fatalf("%s was too fast for this test: stage %s, round %d of %d", s.home, v.Stage, v.Round, v.Rounds)
	}
	return v
}

// contributions checks that all sites report the same, and returns what each
// node gave, by peer ID.
func contributions(t *testing.T, model string, sites ...*site) map[string]api.Contribution {
	t.Helper()
	given := map[string]api.Contribution{}
	for i, s := range sites {
		var r api.Report
		s.json(&r, "model", "report", model)
		for _, c := range r.Contributions {
			id := c.PeerID.String()
			if i > 0 && given[id] != c {
				t.Errorf("%s reports %+v,\n%s %+v", sites[0].home, given[id], s.home, c)
			}
			given[id] = c
		}
	}
	return given
}

func nodeOf(v api.ShownTask, s *site) api.TaskNode {
	return v.Nodes[slices.IndexFunc(v.Nodes, func(n api.TaskNode) bool { return n.PeerID.String() == s.id })]
}

func is(ids []record.NodeID, sites ...*site) bool {
	return len(ids) == len(sites) && !slices.ContainsFunc(sites, func(s *site) bool {
		return !slices.ContainsFunc(ids, func(id record.NodeID) bool { return id.String() == s.id })
	})
}

// TestLeave: a node that leaves while the task trains is not waited for and not
// in the model. What is sealed cannot be left.
func TestLeave(t *testing.T) {
	t.Parallel()
	const rounds = 400
	s := hospitals(t)
	id := s[0].propose(s, "--target", "sick", "--rounds", fmt.Sprint(rounds))
	for _, site := range s {
		site.join(id)
	}
	leaver, others := s[3], s[:3]
	leaver.round(id, 20)
	leaver.under(id)
	leaver.ok("task", "leave", id)
	leaver.refused(1, []string{"left the task already"}, "task", "leave", id)
	leaver.refused(1, []string{"already"}, "task", "join", id)
	cid := model(t, id, s...)
	if v := s[0].follow(id, func(api.ShownTask) bool { return true }); !nodeOf(v, leaver).Left || nodeOf(v, others[1]).Left {
		t.Errorf("who has left: %+v", v.Nodes)
	}
	given := contributions(t, cid, s...)
	if c := given[leaver.id]; c.InFinal || c.Round == 0 || c.Round >= rounds || !strings.HasPrefix(c.Why, "left after round ") {
		t.Errorf("of the one who left: %+v", c)
	}
	for _, site := range others {
		if c := given[site.id]; !c.InFinal || c.Round != rounds {
			t.Errorf("of one who stayed: %+v", c)
		}
	}
	if text := s[0].ok("task", "show", id); !strings.Contains(text, "  left  ") {
		t.Errorf("task show\n%s", text)
	}
	if text := s[0].ok("model", "report", cid); !strings.Contains(text, "  no            left after round ") {
		t.Errorf("report\n%s", text)
	}
	for _, site := range s {
		site.refused(1, []string{"sealed", "cannot be taken back"}, "task", "leave", id)
	}
	unharmed(t, s...)
}

// TestLateJoiner: a quorum of the named nodes starts without the last one, which
// takes part from when it joins.
func TestLateJoiner(t *testing.T) {
	t.Parallel()
	const rounds = 500
	s := hospitals(t)
	id := s[0].propose(s, "--target", "sick", "--rounds", fmt.Sprint(rounds))
	late := s[3]
	late.hears(id)
	for _, site := range s[:3] {
		site.join(id)
	}
	s[0].follow(id, func(v api.ShownTask) bool { return is(v.WaitingFor, late) })
	if text := s[0].ok("task", "show", id); !strings.Contains(text, "enrolling, waiting for HUN bern") {
		t.Errorf("nobody waits for one who is named but has not joined\n%s", text)
	}
	late.follow(id, func(v api.ShownTask) bool { return v.Stage != api.StageEnrolling })
	late.under(id)
	late.ok("task", "join", id)
	cid := model(t, id, s...)
	for _, site := range s {
		v := site.follow(id, func(api.ShownTask) bool { return true })
		if !nodeOf(v, late).Late || nodeOf(v, s[0]).Late {
			t.Errorf("%s: who is late: %+v", site.home, v.Nodes)
		}
	}
	given := contributions(t, cid, s...)
	for _, site := range s {
		if c := given[site.id]; !c.InFinal || c.Round != rounds || c.Late != (site == late) || c.TrainRows == 0 {
			t.Errorf("%s gave %+v", site.home, c)
		}
	}
	if text := late.ok("model", "report", cid); !strings.Contains(text, "trained to the last round; joined late") {
		t.Errorf("report\n%s", text)
	}
	unharmed(t, s...)
}

// TestLostForGood: a node that dies in the middle costs the others one wait, in
// which they say for whom. They seal without it and name it.
func TestLostForGood(t *testing.T) {
	t.Parallel()
	const rounds = 400
	s := hospitals(t)
	id := s[0].propose(s, "--target", "sick", "--rounds", fmt.Sprint(rounds))
	for _, site := range s {
		site.join(id)
	}
	lost, others := s[3], s[:3]
	lost.round(id, 20)
	lost.kill()
	for _, site := range others {
		site.under(id)
	}
	others[0].follow(id, func(v api.ShownTask) bool { return is(v.WaitingFor, lost) })
	// Others wait at the same time, so that these are answered within the wait.
	for command, text := range map[string]string{
		"status": others[0].ok("status"), "task show": others[0].ok("task", "show", id), "task list": others[0].ok("task", "list"),
	} {
		if !strings.Contains(text, ", waiting for HUN bern") {
			t.Errorf("%s does not say for whom the task waits\n%s", command, text)
		}
	}
	cid := model(t, id, others...)
	given := contributions(t, cid, others...)
	if c := given[lost.id]; c.InFinal || c.Name != "bern" || c.Round == 0 || c.Round >= rounds || !strings.HasPrefix(c.Why, "fell silent after round ") {
		t.Errorf("of the lost one: %+v", c)
	}
	for _, site := range others {
		if c := given[site.id]; !c.InFinal || c.Round != rounds {
			t.Errorf("of one that lives: %+v", c)
		}
	}
	unharmed(t, others...)
}

// TestNoQuorum: without a quorum nothing is sealed, and whoever asks is told who
// is missing. With the first of these that is back, there is a model.
func TestNoQuorum(t *testing.T) {
	t.Parallel()
	s := hospitals(t)
	id := s[0].propose(s, "--target", "sick", "--rounds", "400")
	for _, site := range s {
		site.join(id)
	}
	alive, back, lost := s[:2], s[2], s[3]
	lost.round(id, 20)
	back.kill()
	lost.kill()
	for _, site := range alive {
		site.under(id)
	}
	for _, site := range alive {
		v := site.follow(id, func(v api.ShownTask) bool { return is(v.Undecided, back, lost) })
		if v.Quorum != 3 || v.Voters != 4 || v.ModelCID.Defined() || !nodeOf(v, back).Silent || nodeOf(v, site).Silent {
			t.Errorf("%s: %+v", site.home, v)
		}
		for command, text := range map[string]string{"status": site.ok("status"), "task show": site.ok("task", "show", id)} {
			if _, missing, _ := strings.Cut(text, ", decides when 3 of 4 have spoken; missing: HUN "); !strings.Contains(missing, "bern") || !strings.Contains(missing, "cleveland") {
				t.Errorf("%s does not say what is missing\n%s", command, text)
			}
		}
	}
	back.start()
	cid := model(t, id, s[:3]...)
	given := contributions(t, cid, s[:3]...)
	if c := given[back.id]; !c.InFinal {
		t.Errorf("of the one that is back: %+v", c)
	}
	if c := given[lost.id]; c.InFinal || !strings.HasPrefix(c.Why, "fell silent") {
		t.Errorf("of the lost one: %+v", c)
	}
	unharmed(t, s[:3]...)
}
