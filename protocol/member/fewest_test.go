package member

import (
	"testing"

	"village/protocol/agree"
	"village/protocol/task"
)

// A model needs a quorum of the roster. Who joined later adds to it, but is not
// of those who are counted on: one that enrols and falls silent would stop those
// who can end the task without it.
func TestLateJoinersAreNotCountedOn(t *testing.T) {
	m := New(nodes[0], taskID, newTask(7))
	m.Restore(second, []Received{
		opened(t, 0, 1), enrolled(0), enrolled(1), enrolled(2), lateUpdate(t, 0, 7), left(1),
	})
	m.Step(second, Tick{})
	m.finalSet(second) // whom it waits for from now on
	got, ready := m.finalSet(never)
	if !ready || len(got.Parts) != 1 || got.Parts[0].Node != nodes[0] {
		t.Fatalf("ready is %v with %+v, want the one of the roster who has stayed", ready, got.Parts)
	}
	if len(got.Out) != 2 || got.Out[0].Why != task.Left || got.Out[1] != (task.Out{Node: nodes[2], Why: task.Silent}) {
		t.Errorf("left out are %+v", got.Out)
	}
	if v := m.judge(never, got); v != agree.Good {
		t.Errorf("verdict %d", v)
	}
}
