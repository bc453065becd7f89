package member

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
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
	parent      *task.Model     // that the task goes on from
	left        map[string]int
	simple      bool // vectors are the parameters of one model, and nothing else

	shared, tested scaledRows // train and test under a roster's scaling, once they were needed
	fit, judge     dataset.Samples
	scratch        *learn.Scratch
	labels         []int // that are trained on instead of the true ones, if not nil
}

// scaledRows are samples under the scaling of a roster.
type scaledRows struct {
	dataset.Samples
	roster record.CID
}

// under returns the samples s under the roster's scaling, which it keeps, and
// whether it had not.
func (r *scaledRows) under(roster task.Roster, s dataset.Samples) (scaled dataset.Samples, fresh bool) {
	if fresh = r.roster != roster.CID; fresh {
		r.roster, r.Samples = roster.CID, scaledBy(s, roster.Scaling)
	}
	return r.Samples, fresh
}

// NewSite encodes the rows of a table under a task. The split column may be "".
// A task that goes on from a model needs it; others have none.
func NewSite(self record.NodeID, id record.CID, t task.Task, table dataset.Table, split string, parent *task.Model) (*Site, error) {
	table, _, left := t.Encoding.Complete(table, true)
	if len(table.Rows) == 0 {
		return nil, fmt.Errorf("no row is left to train on: %s", reasons(left))
	}
	train, test, err := t.Encoding.Divide(table, split, t.Seed)
	if err != nil {
		return nil, err
	}
	if (parent != nil) != (t.Parent != nil) {
		return nil, errors.New("the model that the task goes on from is not here")
	}
	s := &Site{
		scratch: new(learn.Scratch), self: self, id: id, task: t, parent: parent, left: left,
		simple: t.Search == nil && t.Outer == learn.Plain && !t.Scaffold,
	}
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
	if t.Columns() > s.train.D { // the target is numeric
		target := dataset.MomentsOf(dataset.Samples{N: s.train.N, D: 1, X: s.train.T})
		s.moments.Mean = append(s.moments.Mean, target.Mean...)
		s.moments.M2 = append(s.moments.M2, target.M2...)
	}
	if err := task.CheckMoments(s.moments, t.Columns()); err != nil {
		return nil, fmt.Errorf("the rows cannot be trained on: %w", err)
	}
	return s, nil
}

// reasons lists why rows are left out, in the order of the alphabet.
func reasons(left map[string]int) string {
	if len(left) == 0 {
		return "the dataset is empty"
	}
	var list []string
	for why, n := range left {
		list = append(list, fmt.Sprintf("%s in %d rows", why, n))
	}
	slices.Sort(list)
	text := list[0]
	for _, more := range list[1:min(len(list), 5)] {
		text += ", " + more
	}
	return text + "; the task may fill such cells (COL|median), or do without the column"
}

// Rows are the numbers of training and of test rows.
func (s *Site) Rows() (train, test int) { return s.train.N, s.test.N }

// LeftOut counts the rows that the task's recipe leaves out, by reason.
func (s *Site) LeftOut() map[string]int { return s.left }

// Enrolment is what the node tells of its training rows.
func (s *Site) Enrolment(manifest record.CID, nation, name string) task.Enrolment {
	return task.Enrolment{Task: s.id, Manifest: manifest, Nation: nation, Node: name, Moments: s.moments}
}

// Train runs the local steps of a round. Parameters that grow too large to be
// mixed are an error, unless a search has other candidates: then the one loses.
// Progress may be nil; see [learn.Training].
func (s *Site) Train(e Train, progress func() error) (Trained, error) {
	rows, fresh := s.shared.under(e.Roster, s.train)
	if s.labels != nil {
		rows.Y = s.labels
	}
	if s.simple {
		params, err := s.steps(0, task.State{Params: e.From}, nil, rows, e.Round, progress)
		return Trained{Round: e.Round, Params: params}, err
	}
	out := Trained{Round: e.Round, Params: slices.Clone(e.From)}
	due := false // losses
	if search := s.task.Search; search != nil {
		out.Kept = e.Kept
		if len(e.Kept) > 1 {
			if fresh || s.fit.N+s.judge.N == 0 {
				s.holdBack(rows)
			}
			rows = s.fit
		}
		due = slices.ContainsFunc(search.Rungs, func(r task.Rung) bool { return r.Round == e.Round })
	}
	var own []task.State
	if e.Own != nil && s.task.Scaffold {
		own = s.task.States(e.Kept, e.Own)
	}
	before := s.task.States(e.Kept, e.From)
	for i, state := range s.task.Advance(e.Kept, out.Params) {
		candidate := e.Kept[i]
		loss := 0.0
		if due {
			loss = s.loss(candidate, state.Params)
		}
		var mine []float64
		if own != nil {
			mine = own[i].Control
		}
		switch params, err := s.steps(candidate, state, mine, rows, e.Round, progress); {
		case err == nil:
			copy(state.Params, params)
		case errors.Is(err, learn.ErrDiverged) && len(e.Kept) > 1:
			state.Set(before[i]) // what it is now nobody could mix
			loss = task.MaxLoss
		default:
			return Trained{}, err
		}
		if due {
			out.Losses = append(out.Losses, loss)
		}
	}
	if due {
		out.Rows = uint64(s.judge.N)
	}
	return out, nil
}

// steps takes a candidate's local steps from state.Params, which it leaves alone,
// and returns what they come to. Mine is the node's control variate, nil for zero;
// the others' mean is in state, where the new one takes its place.
func (s *Site) steps(candidate int, state task.State, mine []float64, rows dataset.Samples, round uint64, progress func() error) ([]float64, error) {
	c, spec := s.task.Candidate(candidate), s.task.SpecOf(candidate)
	from := state.Params
	if s.task.Personal != learn.NoPart {
		// The node's own part is what fits its rows best; the rest is trained
		// beside it.
		var err error
		if from, err = spec.Fit(from, rows, s.task.Personal, unhurried(progress)); err != nil {
			return nil, err
		}
	}
	training := s.training(c, round, progress)
	if state.Control != nil {
		training.Shift = make([]float64, len(from))
		for i, all := range state.Control {
			if mine != nil {
				all -= mine[i]
			}
			training.Shift[i] = all
		}
	}
	params, made, err := spec.Train(from, rows, training)
	if err != nil {
		return nil, err
	}
	if state.Control != nil && made > 0 {
		// Option II: c_i - c + (x - y)/(K eta).
		for i, shift := range training.Shift {
			state.Control[i] = (from[i]-params[i])/(float64(made)*c.LearningRate) - shift
		}
	}
	if made > 0 && made < training.Steps {
		for i, p := range params {
			params[i] = from[i] + float64(float64(training.Steps)/float64(made)*(p-from[i]))
		}
	}
	if s.task.Personal != learn.NoPart {
		first, end := spec.Span(s.task.Personal)
		clear(params[first:end])
	}
	for _, list := range [][]float64{params, state.Control} {
		for i, x := range list {
			if !(math.Abs(x) < mixing.MaxParameter) {
				return nil, fmt.Errorf("round %d: %w (%w): parameter %d is %g: the task's learning rate or l2 is too high", round, mixing.ErrRange, learn.ErrDiverged, i, x)
			}
		}
	}
	for _, list := range state.Moments {
		for i, x := range list {
			if !(math.Abs(x) < mixing.MaxParameter) {
				return nil, fmt.Errorf("round %d: %w (%w): moment %d is %g: the task's outer rate is too high", round, mixing.ErrRange, learn.ErrDiverged, i, x)
			}
		}
	}
	return params, nil
}

// unhurried is progress that does not end early.
func unhurried(progress func() error) func() error {
	if progress == nil {
		return nil
	}
	return func() error {
		if err := progress(); err != learn.ErrEnough {
			return err
		}
		return nil
	}
}

// holdBack parts the training rows, one in five, at least one, to judge the
// candidates of a search on.
func (s *Site) holdBack(rows dataset.Samples) {
	order := rand.New(rand.NewChaCha8(sha256.Sum256(binary.BigEndian.AppendUint64([]byte("village rows held back"), s.task.Seed)))).Perm(rows.N)
	held := rows.N / 5
	if held == 0 && rows.N > 1 {
		held = 1
	}
	s.judge, s.fit = pick(rows, order[:held]), pick(rows, order[held:])
}

// pick copies some of the rows.
func pick(s dataset.Samples, rows []int) dataset.Samples {
	p := dataset.Samples{N: len(rows), D: s.D, X: make([]float64, 0, len(rows)*s.D)}
	for _, i := range rows {
		p.X = append(p.X, s.X[i*s.D:(i+1)*s.D]...)
		if s.T != nil {
			p.T = append(p.T, s.T[i])
		} else {
			p.Y = append(p.Y, s.Y[i])
		}
	}
	return p
}

// loss is that of an averaged model on the rows held back, with the node's own part
// where the task has one.
func (s *Site) loss(candidate int, params []float64) float64 {
	spec := s.task.SpecOf(candidate)
	if s.task.Personal != learn.NoPart {
		if fitted, err := spec.Fit(params, s.fit, s.task.Personal, nil); err == nil {
			params = fitted
		}
	}
	loss := spec.Loss(params, s.judge, 0)
	if !(loss >= 0 && loss < task.MaxLoss) {
		return task.MaxLoss
	}
	return loss
}

// Share makes the site work in a space that other sites use, too, one after
// another.
func (s *Site) Share(space *learn.Scratch) { s.scratch = space }

// FlipLabels makes [Site.Train] take every row for one of the next class, as a
// hostile node does. Evaluations stay honest.
func (s *Site) FlipLabels() {
	s.labels = make([]int, len(s.train.Y))
	for i, y := range s.train.Y {
		s.labels[i] = (y + 1) % len(s.task.Encoding.Classes)
	}
}

// Lead returns the model that the round of e sets out from, of the first
// candidate that is still in the search.
func (s *Site) Lead(e Train) (learn.Spec, []float64) {
	candidate := e.Kept[0]
	mix, _ := s.task.Project(e.From, e.Kept, []int{candidate})
	if s.task.Candidate(candidate).Outer != learn.Plain {
		mix = s.task.Advance([]int{candidate}, slices.Clone(mix))[0].Params
	}
	spec := s.task.SpecOf(candidate)
	return spec, mix[:spec.Params()]
}

// Tally counts, on the node's test rows, the model that the round of e sets out
// from: see [Site.Lead].
func (s *Site) Tally(t *learn.Tally, e Train) {
	rows, _ := s.tested.under(e.Roster, s.test)
	spec, params := s.Lead(e)
	t.Of(spec)
	t.Unit = s.unit(e.Roster.Scaling)
	t.Count(params, rows)
}

// Evaluate counts, on the node's test rows, the model, the model with a part of the
// node's own, and what the node reaches alone.
func (s *Site) Evaluate(e Evaluate, progress func() error) (task.Evaluation, error) {
	model := e.Model
	test := scaledBy(s.test, model.Scaling)
	count := func(spec learn.Spec, params []float64, rows dataset.Samples) learn.Counts {
		if spec.Classes > 0 && len(s.task.Encoding.Groups) == 0 {
			return spec.Count(params, rows)
		}
		t := learn.NewTally(spec)
		t.Groups(len(s.task.Encoding.Groups))
		t.Unit = s.unit(model.Scaling)
		t.Count(params, rows)
		return t.Counts()
	}

	personal, err := s.Own(model, progress)
	if err != nil {
		return task.Evaluation{}, err
	}
	alone := scaledBy(s.train, s.alone(model.Scaling))
	aloneTest := scaledBy(s.test, s.alone(model.Scaling))
	s.average(aloneTest)
	spec, params, err := s.families(model.Spec).Alone(alone, s.task.Seed, progress)
	if err != nil {
		return task.Evaluation{}, fmt.Errorf("training on the own rows alone: %w", err)
	}
	evaluation := task.Evaluation{
		Task: s.id, Model: e.CID,
		Local:     count(spec, params, aloneTest),
		Federated: count(model.Spec, model.Params, test),
		Personal:  count(model.Spec, personal.Params, test),
	}
	evaluation.Better, evaluation.Worse = model.Spec.Compare(spec, params, model.Params, aloneTest, test)
	if p := s.parent; p != nil {
		counts := count(p.Spec, p.Params, scaledBy(s.test, p.Scaling))
		evaluation.Parent = &counts
	}
	return evaluation, nil
}

// Own is a model with a part that is fitted to the node's training rows: the
// task's, else the bias.
func (s *Site) Own(m task.Model, progress func() error) (task.Model, error) {
	var err error
	m.Params, err = m.Spec.Fit(m.Params, scaledBy(s.train, m.Scaling), cmp.Or(s.task.Personal, learn.Bias), progress)
	if err != nil {
		return m, fmt.Errorf("fitting the node's own part: %w", err)
	}
	return m, nil
}

// average makes a level that the node has never trained on count as the average of
// those that it has, in test rows under its own scaling. Else it would count as
// the level that has no column of its own, and what the node reaches alone look
// worse than it is.
func (s *Site) average(test dataset.Samples) {
	first := 0
	for _, f := range s.task.Encoding.Features {
		levels := f.OneHot()
		for i := 0; levels > 0 && i < test.N; i++ {
			if level := levelOf(s.test, i, first, levels); !s.trainsOn(level, first, levels) {
				clear(test.X[i*test.D+first : i*test.D+first+levels])
			}
		}
		first += f.Width()
	}
}

// levelOf is the one of the columns of levels, from first on, in which a row has a
// 1; -1 where it has none: the level without a column.
func levelOf(rows dataset.Samples, i, first, levels int) int {
	return slices.Index(rows.X[i*rows.D+first:i*rows.D+first+levels], 1)
}

// trainsOn tells whether some training row has a level: the mean of its column is
// not 0, or, of the level without a column, those of the others do not come to 1.
func (s *Site) trainsOn(level, first, levels int) bool {
	means := s.moments.Mean[first : first+levels]
	if level >= 0 {
		return means[level] > 0
	}
	rest := 1.0
	for _, m := range means {
		rest -= m
	}
	return rest*float64(s.train.N) > 0.5
}

// families is the model whose family, with the simpler ones, the node tries alone:
// that of the model, or, where a search had perceptrons to choose from, the first of
// these.
func (s *Site) families(of learn.Spec) learn.Spec {
	if s.task.Search != nil && of.Kind != learn.MLP {
		for i, c := range s.task.Search.Candidates {
			if c.Model == learn.MLP {
				return s.task.SpecOf(i)
			}
		}
	}
	return of
}

// unit is what a numeric target was divided by.
func (s *Site) unit(by dataset.Scaling) float64 {
	if s.task.Columns() == s.train.D {
		return 1
	}
	return by.SD[s.train.D]
}

// alone is the scaling of the node's own rows; a numeric target stays in the
// roster's, so that errors are counted in one unit.
func (s *Site) alone(roster dataset.Scaling) dataset.Scaling {
	own, d := s.moments.Scaling(), s.train.D
	copy(own.Mean[d:], roster.Mean[d:])
	copy(own.SD[d:], roster.SD[d:])
	return own
}

func (s *Site) training(c task.Candidate, round uint64, progress func() error) learn.Training {
	t := learn.Training{
		Steps: int(c.LocalSteps), Rate: c.LearningRate, L2: c.L2, Batch: int(s.task.Batch),
		Optimizer: c.Optimizer, Prox: s.task.Prox, Progress: progress, Scratch: s.scratch,
	}
	if t.Batch > 0 { // else nothing is shuffled
		t.Seed = seed(s.id, s.self[:], binary.BigEndian.AppendUint64(nil, round))
	}
	return t
}

// scaledBy returns scaled copies of samples: of the features, and of a numeric
// target.
func scaledBy(s dataset.Samples, by dataset.Scaling) dataset.Samples {
	s.X = slices.Clone(s.X)
	by.Apply(s)
	if s.T != nil {
		s.T = slices.Clone(s.T)
		for i := range s.T {
			s.T[i] = (s.T[i] - by.Mean[s.D]) / by.SD[s.D]
		}
	}
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
