package task

import (
	"errors"
	"fmt"

	"village/protocol/learn"
	"village/protocol/record"
)

// Evaluation is the payload of an evaluation record: counts over a node's own
// test rows, of the model and of what the node reaches alone.
type Evaluation struct {
	Task      record.CID   `cbor:"task" json:"task"`
	Model     record.CID   `cbor:"model" json:"model"`
	Local     learn.Counts `cbor:"local" json:"local"`
	Federated learn.Counts `cbor:"federated" json:"federated"`
	// Personal is the model with a part that the node has for itself, fitted to
	// its training rows: the task's, else the bias.
	Personal learn.Counts `cbor:"personal" json:"personal"`
	// Better and Worse count the rows that only the model, or only the node's
	// own one, gets right; both are 0 where the target is numeric.
	Better uint64 `cbor:"better" json:"better"`
	Worse  uint64 `cbor:"worse" json:"worse"`
	// Parent is the model that the task went on from.
	Parent *learn.Counts `cbor:"parent,omitempty" json:"parent,omitempty"`
}

// EvaluationOf reads an evaluation record and checks it against its task.
func EvaluationOf(r record.Record, t Task) (Evaluation, error) {
	var e Evaluation
	if err := decode(r, record.KindEvaluation, &e); err != nil {
		return Evaluation{}, err
	}
	err := check(r, t, e.Task, r.Number == 0)
	counts := []learn.Counts{e.Local, e.Federated, e.Personal}
	if e.Parent != nil {
		counts = append(counts, *e.Parent)
	}
	for _, c := range counts {
		if err == nil {
			err = c.Check(len(t.Encoding.Classes), len(t.Encoding.Groups))
		}
		if err == nil && c.Rows != e.Federated.Rows {
			err = errors.New("two models are counted on other rows")
		}
	}
	if err == nil && (e.Parent != nil) != (t.Parent != nil) {
		err = errors.New("the model that the task goes on from is counted in tasks that have one")
	}
	if err == nil && (e.Better > e.Federated.Rows || e.Worse > e.Federated.Rows-e.Better) {
		err = errors.New("more rows are better or worse than there are")
	}
	if err == nil && e.Local.Rows > MaxRows {
		err = fmt.Errorf("%d rows; a node tests on at most %d", e.Local.Rows, uint64(MaxRows))
	}
	if err != nil {
		return Evaluation{}, fmt.Errorf("%w: evaluation: %w", ErrInvalid, err)
	}
	return e, nil
}
