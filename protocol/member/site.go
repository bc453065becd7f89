package member

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/mixing"
	"village/protocol/record"
	"village/protocol/task"
)

// Site is a node's own rows under a task: what a driver needs to perform
// [Train] and [Evaluate]. It is not safe for concurrent use.
type Site struct {
	self        record.NodeID
	id          record.CID
	task        task.Task
	spec        learn.Spec
	train, test dataset.Samples // unscaled
	moments     dataset.Moments // of train

	shared, tested scaledRows // train and test under a roster's scaling, once they were needed
	scratch        *learn.Scratch
	labels         []int // that are trained on instead of the true ones, if not nil
}

// scaledRows are samples under the scaling of a roster.
type scaledRows struct {
	dataset.Samples
	roster record.CID
}

// under returns the samples s under the roster's scaling, which it keeps.
func (r *scaledRows) under(roster task.Roster, s dataset.Samples) dataset.Samples {
	if r.roster != roster.CID {
		r.roster, r.Samples = roster.CID, scaled(s, roster.Scaling)
	}
	return r.Samples
}

// NewSite encodes the rows of a table under a task. The split column may be "".
func NewSite(self record.NodeID, id record.CID, t task.Task, table dataset.Table, split string) (*Site, error) {
	train, test, err := t.Encoding.Divide(table, split, t.Seed)
	if err != nil {
		return nil, err
	}
	s := &Site{scratch: new(learn.Scratch), self: self, id: id, task: t, spec: t.Spec()}
	if s.train, err = t.Encoding.Encode(train); err != nil {
		return nil, err
	}
	if s.test, err = t.Encoding.Encode(test); err != nil {
		return nil, err
	}
	if s.train.N == 0 {
		return nil, fmt.Errorf("none of the %d rows is a training row", len(table.Rows))
	}
	if s.test.N > task.MaxRows {
		return nil, fmt.Errorf("%d test rows; at most %d are possible", s.test.N, uint64(task.MaxRows))
	}
	s.moments = dataset.MomentsOf(s.train)
	if err := task.CheckMoments(s.moments, s.train.D); err != nil {
		return nil, fmt.Errorf("the rows cannot be trained on: %w", err)
	}
	return s, nil
}

// Rows are the numbers of training and of test rows.
func (s *Site) Rows() (train, test int) { return s.train.N, s.test.N }

// Enrolment is what the node tells of its training rows.
func (s *Site) Enrolment(manifest record.CID, nation, name string) task.Enrolment {
	return task.Enrolment{Task: s.id, Manifest: manifest, Nation: nation, Node: name, Moments: s.moments}
}

// Train runs the local steps of a round. Parameters that grow too large to be
// mixed are an error. Progress may be nil; see [learn.Training].
func (s *Site) Train(e Train, progress func() error) ([]float64, error) {
	rows := s.shared.under(e.Roster, s.train)
	if s.labels != nil {
		rows.Y = s.labels
	}
	params, err := s.spec.Train(e.From, rows, s.steps(s.task.LocalSteps, e.Round, progress))
	if err != nil {
		return nil, err
	}
	for i, x := range params {
		if !(math.Abs(x) < mixing.MaxParameter) {
			return nil, fmt.Errorf("round %d: %w: parameter %d is %g: the task's learning rate or l2 is too high", e.Round, mixing.ErrRange, i, x)
		}
	}
	return params, nil
}

// Share makes the site work in a space that other sites use, too, one after
// another.
func (s *Site) Share(space *learn.Scratch) { s.scratch = space }

// FlipLabels makes [Site.Train] take every row for one of the next class, as a
// hostile node does. Evaluations stay honest.
func (s *Site) FlipLabels() {
	s.labels = make([]int, s.train.N)
	for i, y := range s.train.Y {
		s.labels[i] = (y + 1) % len(s.task.Encoding.Classes)
	}
}

// Tally counts, on the node's test rows, parameters of the roster's training.
func (s *Site) Tally(t *learn.Tally, r task.Roster, params []float64) {
	t.Count(params, s.tested.under(r, s.test))
}

// Evaluate counts, on the node's test rows, the model and what the node reaches
// alone.
func (s *Site) Evaluate(e Evaluate, progress func() error) (task.Evaluation, error) {
	spec := s.spec
	own := s.moments.Scaling()
	alone, err := s.alone(scaled(s.train, own), s.steps(e.Model.Round*s.task.LocalSteps, 0, progress))
	if err != nil {
		return task.Evaluation{}, fmt.Errorf("training on the own rows alone: %w", err)
	}
	return task.Evaluation{
		Task: s.id, Model: e.CID,
		Local:     spec.Count(alone, scaled(s.test, own)),
		Federated: spec.Count(e.Model.Params, scaled(s.test, e.Model.Scaling)),
	}, nil
}

// alone trains the same model, for as many steps, on the node's rows alone under
// their own scaling. Where the task's step size, which suits the
// federation, is too large for these rows, it is halved until it is not.
func (s *Site) alone(rows dataset.Samples, t learn.Training) (params []float64, err error) {
	spec := s.spec
	for range 60 {
		params, err = spec.Train(make([]float64, spec.Params()), rows, t)
		if err == nil || !errors.Is(err, learn.ErrDiverged) {
			return params, err
		}
		t.Rate /= 2
	}
	return params, err
}

func (s *Site) steps(n, round uint64, progress func() error) learn.Training {
	t := learn.Training{
		Steps: int(n), Rate: s.task.LearningRate, L2: s.task.L2, Batch: int(s.task.Batch),
		Progress: progress, Scratch: s.scratch,
	}
	if t.Batch > 0 { // else nothing is shuffled
		t.Seed = seed(s.id, s.self[:], binary.BigEndian.AppendUint64(nil, round))
	}
	return t
}

func scaled(s dataset.Samples, by dataset.Scaling) dataset.Samples {
	s.X = slices.Clone(s.X)
	by.Apply(s)
	return s
}

// seed keys a stream of random numbers: one for each task, node and round.
func seed(id record.CID, parts ...[]byte) [32]byte {
	h := sha256.New()
	h.Write(id.Bytes())
	for _, p := range parts {
		h.Write(p)
	}
	return [32]byte(h.Sum(nil))
}
