package task

import (
	"math"

	"village/protocol/dataset"
	"village/protocol/record"
)

// Parent is a sealed model that a task goes on from. Its scaling is the task's,
// for its parameters are for rows so scaled.
type Parent struct {
	Model   record.CID      `cbor:"model" json:"model"`
	Scaling dataset.Scaling `cbor:"scaling" json:"scaling"`
}

// fits tells whether rows of so many columns can be scaled by s.
func fits(s dataset.Scaling, columns int) bool {
	if len(s.Mean) != columns || len(s.SD) != columns {
		return false
	}
	for j, sd := range s.SD {
		if !(sd > 0) || math.IsInf(sd, 0) || !(math.Abs(s.Mean[j]) < math.MaxFloat64) {
			return false
		}
	}
	return true
}
