package task

import (
	"fmt"

	"village/protocol/record"
)

// Beacon is the payload of a beacon record: a sign that a node is at work.
type Beacon struct {
	Task  record.CID `cbor:"task"`
	Round uint64     `cbor:"round"` // that it trains for
}

// BeaconOf reads a beacon record and checks it against its task.
func BeaconOf(r record.Record, t Task) (Beacon, error) {
	var b Beacon
	if err := decode(r, record.KindBeacon, &b); err != nil {
		return Beacon{}, err
	}
	if err := check(r, t, b.Task, b.Round <= t.Rounds); err != nil {
		return Beacon{}, fmt.Errorf("%w: beacon: %w", ErrInvalid, err)
	}
	return b, nil
}
