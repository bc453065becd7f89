package member

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
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
	train, test dataset.Samples // unscaled
	moments     dataset.Moments // of train

	roster record.CID      // whose scaling shared has
	shared dataset.Samples // train under the roster's scaling
}

// NewSite encodes the rows of a table under a task. The split column may be "".
func NewSite(self record.NodeID, id record.CID, t task.Task, rows dataset.Table, split string) (*Site, error) {
	train, test, err := t.Encoding.Divide(rows, split, t.Seed)
	if err != nil {
		return nil, err
	}
	s := &Site{self: self, id: id, task: t}
	if s.train, err = t.Encoding.Encode(train); err != nil {
		return nil, err
	}
	if s.test, err = t.Encoding.Encode(test); err != nil {
		return nil, err
	}
	if s.train.N == 0 {
		return nil, fmt.Errorf("none of the %d rows is a training row", len(rows.Rows))
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
	if s.roster != e.Roster.CID {
		s.roster, s.shared = e.Roster.CID, scaled(s.train, e.Roster.Scaling)
	}
	params, err := s.task.Spec().Train(e.From, s.shared, s.steps(s.task.LocalSteps, e.Round, progress))
	if err != nil {
		return nil, err
	}
	if err := mixing.NewSum(len(params)).Add(1, params); err != nil {
		return nil, fmt.Errorf("round %d: %w: the task's learning rate or l2 is too high", e.Round, err)
	}
	return params, nil
}

// Evaluate counts, on the node's test rows, the model and what the node reaches
// alone: as many steps of the same size with the same model on its own training
// rows, under their own scaling.
func (s *Site) Evaluate(e Evaluate, progress func() error) (task.Evaluation, error) {
	spec := s.task.Spec()
	own := s.moments.Scaling()
	alone, err := spec.Train(Start(s.id, s.task), scaled(s.train, own), s.steps(e.Model.Round*s.task.LocalSteps, 0, progress))
	if err != nil {
		return task.Evaluation{}, fmt.Errorf("training on the own rows alone: %w", err)
	}
	return task.Evaluation{
		Task: s.id, Model: e.CID,
		Local:     spec.Count(alone, scaled(s.test, own)),
		Federated: spec.Count(e.Model.Params, scaled(s.test, e.Model.Scaling)),
	}, nil
}

func (s *Site) steps(n, round uint64, progress func() error) learn.Training {
	return learn.Training{
		Steps: int(n), Rate: s.task.LearningRate, L2: s.task.L2, Batch: int(s.task.Batch),
		Seed:     seed(s.id, s.self[:], binary.BigEndian.AppendUint64(nil, round)),
		Progress: progress,
	}
}

func scaled(s dataset.Samples, by dataset.Scaling) dataset.Samples {
	s.X = slices.Clone(s.X)
	by.Apply(s)
	return s
}

// Start returns the parameters from which a task's training starts.
func Start(id record.CID, t task.Task) []float64 { return t.Spec().Init(seed(id)) }

// seed keys a stream of random numbers: one for the task's first parameters,
// and one for each node and round.
func seed(id record.CID, parts ...[]byte) [32]byte {
	h := sha256.New()
	h.Write(id.Bytes())
	for _, p := range parts {
		h.Write(p)
	}
	return [32]byte(h.Sum(nil))
}
