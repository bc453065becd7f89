package member

import "testing"

// One node that is ahead is no reason to listen for the others: they may be
// waiting for somebody, and give no sign meanwhile.
func TestNobodyIsSilentForBeingBehindOneNode(t *testing.T) {
	m := started(t, 1, newTask(5))
	for _, r := range []Received{updated(t, 0, 1), updated(t, 2, 1), updated(t, 2, 2)} {
		m.Step(2*second, r)
	}
	if train := only[Train](t, m.Step(3*second, updated(t, 1, 1))); train.Round != 2 {
		t.Fatalf("trains for round %d", train.Round)
	}
	m.Step(1000*second, Tick{})
	if m.IsSilent(nodes[0]) {
		t.Error("a node counts as silent that nobody has waited for")
	}
}
