package task

import (
	"fmt"

	"village/protocol/record"
)

// Leave is the payload of a leave record: a node's signed end to its part.
type Leave struct {
	Task record.CID `cbor:"task"`
}

// LeaveOf reads a leave record and checks it against its task.
func LeaveOf(r record.Record, t Task) (Leave, error) {
	var l Leave
	if err := decode(r, record.KindLeave, &l); err != nil {
		return Leave{}, err
	}
	if err := check(r, t, l.Task, r.Number == 0); err != nil {
		return Leave{}, fmt.Errorf("%w: leave: %w", ErrInvalid, err)
	}
	return l, nil
}
