package agree_test

import (
	"fmt"

	"village/protocol/agree"
	"village/protocol/record"
)

// Four members decide on one value, though one of them is down. A machine has no
// network: whoever drives it makes its votes durable, gives them back to it, and
// takes them to the others.
func Example() {
	members := []record.NodeID{{1}, {2}, {3}, {4}} // in peer-ID order
	up := members[:3]
	app := agree.Application{
		Propose: func() ([]byte, bool) { return []byte("begin with 1, 2 and 3"), true },
		Judge:   func([]byte) agree.Verdict { return agree.Good },
	}
	var machines []*agree.Machine
	for _, id := range up {
		machines = append(machines, agree.New(id, members, 0))
	}
	for more := true; more; {
		more = false
		for _, m := range machines {
			votes, _ := m.Advance(0, app) // and again at the time that it asks for
			for _, v := range votes {
				for _, other := range machines {
					other.Take(v)
				}
				more = true
			}
		}
	}
	for i, m := range machines {
		_, content, ok := m.Decided()
		fmt.Printf("member %d: %v, %s\n", i+1, ok, content)
	}
	fmt.Println("a quorum is", agree.Quorum(len(members)), "of 4, and", agree.Faults(len(members)), "may lie")
	// Output:
	// member 1: true, begin with 1, 2 and 3
	// member 2: true, begin with 1, 2 and 3
	// member 3: true, begin with 1, 2 and 3
	// a quorum is 3 of 4, and 1 may lie
}
