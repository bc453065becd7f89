package task

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"village/protocol/dataset"
	"village/protocol/record"
)

// Enrolment is the payload of an enrolment record: a node's signed yes to a task.
type Enrolment struct {
	Task     record.CID `cbor:"task" json:"task"`
	Manifest record.CID `cbor:"manifest" json:"manifest"` // of the dataset that it trains on
	Nation   string     `cbor:"nation" json:"nation"`
	Node     string     `cbor:"node" json:"node"` // display name
	// Moments of the encoded features over the training rows. Their count is
	// the node's weight.
	Moments dataset.Moments `cbor:"moments" json:"moments"`
}

// CheckMoments refuses moments that no training rows of a node have, or that
// could not be merged with those of the others. It bounds what rows below 1e100
// give, and keeps the squared differences of all means together finite.
func CheckMoments(m dataset.Moments, width int) error {
	if err := m.Check(width); err != nil {
		return err
	}
	if m.Count > MaxRows {
		return fmt.Errorf("%d rows; a node trains on at most %d", m.Count, uint64(MaxRows))
	}
	for j := range width {
		if math.Abs(m.Mean[j]) > 1.001e100 || m.M2[j] > 1e210 {
			return fmt.Errorf("the moments of encoded column %d are too large", j+1)
		}
	}
	return nil
}

// CheckNation refuses what is no code of a nation, as far as its form goes.
func CheckNation(code string) error {
	if len(code) != 3 || strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return errors.New("a nation is a code of three capital letters")
	}
	return nil
}

// EnrolmentOf reads an enrolment record and checks it against its task.
func EnrolmentOf(r record.Record, t Task) (Enrolment, error) {
	var e Enrolment
	if err := decode(r, record.KindEnrolment, &e); err != nil {
		return Enrolment{}, err
	}
	err := check(r, t, e.Task, r.Number == 0)
	if err == nil {
		err = CheckMoments(e.Moments, t.Columns())
	}
	if err == nil {
		err = CheckName(e.Node)
	}
	if err == nil {
		err = CheckNation(e.Nation)
	}
	if err != nil {
		return Enrolment{}, fmt.Errorf("%w: enrolment: %w", ErrInvalid, err)
	}
	return e, nil
}
