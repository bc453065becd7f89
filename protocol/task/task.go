// Package task holds what the nodes say to each other while they train one
// model: the task itself, enrolments, updates and evaluations, the roster that
// the enrolments make, and the model and results that anyone computes from them.
//
// Everything that a peer sent is checked here, against bounds alone or against
// the task, before it reaches a machine.
package task

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/mixing"
	"village/protocol/record"
	"village/protocol/safetensors"
)

// Bounds of a task.
const (
	MaxNodes      = 200
	MaxRounds     = 1_000_000
	MaxLocalSteps = 10_000_000
	// MaxSteps is the largest number of local steps of all rounds together: what
	// a node takes to learn what it reaches alone.
	MaxSteps = 100_000_000
	// MaxRows is the largest number of training rows, and of test rows, of a node.
	MaxRows = mixing.MaxWeight / MaxNodes
	// MaxClasses keeps an evaluation, which has histograms of each class, within
	// a record whatever it counts.
	MaxClasses = 16
	// MaxGroupCells bounds the confusion matrices of all groups for the same
	// reason.
	MaxGroupCells = 4096
	// MaxEncoding is the largest encoding in bytes of JSON. It keeps a model's
	// description within the header of its file.
	MaxEncoding = 256 << 10
	// MaxVector is the largest vector, in bytes of its parameters, that rides
	// inside an update. A larger one is announced in it and travels in chunks.
	MaxVector = 32 << 10
	// ChunkSize is the size in bytes of every chunk of a vector but the last.
	ChunkSize = 1 << 20
	// MaxMixed is how many bytes of parameters all nodes together may have, where
	// everybody mixes everybody's.
	MaxMixed = 64 << 20
	// MaxCandidates is the largest number of candidates of a search.
	MaxCandidates = 64
	// MaxLoss is the largest loss that is told of a candidate: that of one whose
	// training diverges.
	MaxLoss = 1e6
)

// Errors that the checks wrap.
var (
	// ErrInvalid is a record that every node must refuse.
	ErrInvalid = errors.New("invalid record")
	// ErrForeign is a record of a node that the task does not name.
	ErrForeign = errors.New("author is not named in the task")
)

// Task is the payload of a task record. It carries everything that training
// needs to be the same at every node; the proposer has no further role.
type Task struct {
	Name         string           `cbor:"name" json:"name"`
	Description  string           `cbor:"description" json:"description"`
	Created      uint64           `cbor:"created" json:"created"` // Unix seconds, for display only
	Encoding     dataset.Encoding `cbor:"encoding" json:"encoding"`
	Nodes        []record.NodeID  `cbor:"nodes" json:"nodes"` // those that may take part, in peer-ID order
	Model        learn.Kind       `cbor:"model" json:"model"`
	Rounds       uint64           `cbor:"rounds" json:"rounds"`
	LocalSteps   uint64           `cbor:"local_steps" json:"local_steps"`
	LearningRate float64          `cbor:"learning_rate" json:"learning_rate"`
	Batch        uint64           `cbor:"batch" json:"batch"` // rows a step; 0 = all
	L2           float64          `cbor:"l2" json:"l2"`
	Mixing       string           `cbor:"mixing" json:"mixing"` // a rule of mixing.New, over the places of Nodes
	Seed         uint64           `cbor:"seed" json:"seed"`
	// Tolerance ends the training early, at the first round that every node
	// entered with a mix no further than this (in any parameter) from its mix
	// before. 0 = never.
	Tolerance float64 `cbor:"tolerance" json:"tolerance"`

	Hidden    []int           `cbor:"hidden,omitempty" json:"hidden,omitempty"`       // see learn.Spec
	Optimizer learn.Optimizer `cbor:"optimizer,omitempty" json:"optimizer,omitempty"` // of the local steps
	Prox      float64         `cbor:"prox,omitempty" json:"prox,omitempty"`           // see learn.Training
	// Outer is the rule by which the averaged change of a round is taken, OuterRate
	// its step; "" takes the change as it is.
	Outer     learn.Outer `cbor:"outer,omitempty" json:"outer,omitempty"`
	OuterRate float64     `cbor:"outer_rate,omitempty" json:"outer_rate,omitempty"`
	// Scaffold corrects local steps for what the nodes' rows differ in, with
	// control variates that travel in the update (Karimireddy et al. 2020).
	Scaffold bool `cbor:"scaffold,omitempty" json:"scaffold,omitempty"`
	// Personal is the part of the model that every node has for itself: it is
	// trained, but never leaves the node, and is zero in the model.
	Personal learn.Part `cbor:"personal,omitempty" json:"personal,omitempty"`
	// RoundTime ends a node's local steps after so many milliseconds, at least one
	// step; its change then counts as if it had made all (FedNova, Wang et al.
	// 2020). 0 = never.
	RoundTime uint64 `cbor:"round_time,omitempty" json:"round_time,omitempty"`
	// Search, if set, has the nodes choose the model and how it is trained.
	Search *Search `cbor:"search,omitempty" json:"search,omitempty"`
	// Parent, if set, is the model that the training starts from.
	Parent *Parent `cbor:"parent,omitempty" json:"parent,omitempty"`
}

// Search is a choice among candidates by successive halving (Jamieson and
// Talwalkar 2016): all of them are trained side by side, and at the end of each
// rung those with the higher loss are dropped, on which the nodes agree.
type Search struct {
	Candidates []Candidate `cbor:"candidates" json:"candidates"`
	Rungs      []Rung      `cbor:"rungs" json:"rungs"`
}

// Candidate is what is searched for: it stands for the fields of a task of the
// same names.
type Candidate struct {
	Model        learn.Kind      `cbor:"model" json:"model"`
	Hidden       []int           `cbor:"hidden,omitempty" json:"hidden,omitempty"`
	LocalSteps   uint64          `cbor:"local_steps" json:"local_steps"`
	LearningRate float64         `cbor:"learning_rate" json:"learning_rate"`
	L2           float64         `cbor:"l2" json:"l2"`
	Optimizer    learn.Optimizer `cbor:"optimizer,omitempty" json:"optimizer,omitempty"`
	Outer        learn.Outer     `cbor:"outer,omitempty" json:"outer,omitempty"`
	OuterRate    float64         `cbor:"outer_rate,omitempty" json:"outer_rate,omitempty"`
}

// Rung is a stage of a search.
type Rung struct {
	Round uint64 `cbor:"round" json:"round"` // its last one
	Keep  uint64 `cbor:"keep" json:"keep"`   // candidates that go on
}

// Parent is a sealed model that a task goes on from. Its scaling is the task's,
// for its parameters are for rows so scaled.
type Parent struct {
	Model   record.CID      `cbor:"model" json:"model"`
	Scaling dataset.Scaling `cbor:"scaling" json:"scaling"`
}

// Columns is the number of columns that moments and scaling are of: those of the
// encoding, and last the target where it is numeric.
func (t Task) Columns() int {
	if len(t.Encoding.Classes) == 0 {
		return t.Encoding.Width() + 1
	}
	return t.Encoding.Width()
}

// Named tells whether a node may take part.
func (t Task) Named(id record.NodeID) bool {
	_, found := slices.BinarySearchFunc(t.Nodes, id, record.NodeID.Compare)
	return found
}

// Check refuses a task that no node could or should run.
func (t Task) Check() error {
	if err := CheckName(t.Name); err != nil {
		return err
	}
	if len(t.Description) > 4096 || !utf8.ValidString(t.Description) {
		return fmt.Errorf("a description is at most 4096 bytes of UTF-8")
	}
	if err := t.Encoding.Check(); err != nil {
		return err
	}
	if n := len(t.Encoding.Classes); n > MaxClasses {
		return fmt.Errorf("the target has %d classes; at most %d are possible", n, MaxClasses)
	}
	if n, k := len(t.Encoding.Groups), len(t.Encoding.Classes); n*k*k > MaxGroupCells {
		return fmt.Errorf("the sensitive column has %d levels; with %d classes at most %d are possible", n, k, MaxGroupCells/k/k)
	}
	if b, err := json.Marshal(t.Encoding); err != nil || len(b) > MaxEncoding {
		return fmt.Errorf("the encoding takes %d bytes; at most %d are possible, so use fewer features or levels", len(b), MaxEncoding)
	}
	if err := t.checkModels(); err != nil {
		return err
	}
	if len(t.Nodes) == 0 || len(t.Nodes) > MaxNodes {
		return fmt.Errorf("a task names 1 to %d nodes, not %d", MaxNodes, len(t.Nodes))
	}
	if size := 8 * t.Length(t.Everyone()) * len(t.Nodes); size > MaxMixed {
		return fmt.Errorf("%d nodes with vectors of %d numbers each are %d MiB to mix in a round; at most %d are possible, so use fewer features, classes, hidden units or candidates",
			len(t.Nodes), t.Length(t.Everyone()), size>>20, MaxMixed>>20)
	}
	for i := 1; i < len(t.Nodes); i++ {
		if t.Nodes[i-1].Compare(t.Nodes[i]) >= 0 {
			return errors.New("a task's nodes are in peer-ID order and named once")
		}
	}
	switch {
	case t.Rounds < 1 || t.Rounds > MaxRounds:
		return fmt.Errorf("a task has 1 to %d rounds, not %d", MaxRounds, t.Rounds)
	case t.Batch > math.MaxInt32:
		return fmt.Errorf("a batch of %d rows is too large", t.Batch)
	case !(t.Prox >= 0) || t.Prox > 1e6:
		return fmt.Errorf("prox is 0 to 1e6, not %g", t.Prox)
	case t.RoundTime > 24*3600*1000:
		return fmt.Errorf("a round's local steps end after at most a day, not %d ms", t.RoundTime)
	case !(t.Tolerance >= 0) || math.IsInf(t.Tolerance, 0):
		return fmt.Errorf("a tolerance is 0 or above, not %g", t.Tolerance)
	case t.Tolerance > 0 && t.Mixing != mixing.All:
		// With a graph somebody is always a round ahead, and it would never end.
		return fmt.Errorf("a tolerance ends a task that mixes %s; mixing %s trains all rounds", mixing.All, t.Mixing)
	}
	_, err := mixing.New(t.Mixing, len(t.Nodes), t.Seed)
	return err
}

// checkModels refuses models that cannot be trained, and ways to train them that
// exclude each other.
func (t Task) checkModels() error {
	if err := t.checkSearch(); err != nil {
		return err
	}
	for _, i := range t.Everyone() {
		if err := t.checkCandidate(i); err != nil {
			if t.Search != nil {
				return fmt.Errorf("candidate %d: %w", i+1, err)
			}
			return err
		}
	}
	switch t.Personal {
	case learn.NoPart, learn.Bias, learn.LastLayer:
	default:
		return fmt.Errorf("a node's own part is bias or last-layer, not %.16q", string(t.Personal))
	}
	if p := t.Parent; p != nil {
		if t.Search != nil {
			return errors.New("a task that goes on from a model has no search: the model is what it is")
		}
		if !p.Model.Defined() || !fits(p.Scaling, t.Columns()) {
			return errors.New("a task that goes on from a model names it, and has its scaling")
		}
	}
	return nil
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

func (t Task) checkCandidate(i int) error {
	c := t.Candidate(i)
	if err := cmp.Or(t.SpecOf(i).Check(), c.Outer.Check(), c.Optimizer.Check()); err != nil {
		return err
	}
	switch {
	case c.LocalSteps < 1 || c.LocalSteps > MaxLocalSteps:
		return fmt.Errorf("a round has 1 to %d local steps, not %d", MaxLocalSteps, c.LocalSteps)
	case t.Rounds <= MaxRounds && t.Rounds*c.LocalSteps > MaxSteps:
		return fmt.Errorf("all rounds together have at most %d local steps, not %d", MaxSteps, t.Rounds*c.LocalSteps)
	case !(c.LearningRate > 0) || c.LearningRate > 1e6:
		return fmt.Errorf("a learning rate is above 0 and at most 1e6, not %g", c.LearningRate)
	case !(c.L2 >= 0) || c.L2 > 1e6:
		return fmt.Errorf("l2 is 0 to 1e6, not %g", c.L2)
	case c.Outer == learn.Plain && c.OuterRate != 0:
		return errors.New("an outer rate needs an outer optimizer: nesterov, adam or yogi")
	case c.Outer != learn.Plain && (!(c.OuterRate > 0) || c.OuterRate > 1e3):
		return fmt.Errorf("an outer rate is above 0 and at most 1e3, not %g", c.OuterRate)
	case t.Scaffold && c.Optimizer != learn.SGD:
		return fmt.Errorf("scaffold corrects plain gradient steps; it cannot stand beside the optimizer %s", c.Optimizer)
	case t.Scaffold && t.Personal != learn.NoPart:
		return errors.New("scaffold corrects all parameters; it cannot stand beside a part that is each node's own")
	}
	return nil
}

// CheckName refuses what cannot be a display name: UTF-8 of 1 to 64 characters
// without control or bidirectional ones, which could forge lines of a terminal.
func CheckName(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("a name is UTF-8 text")
	}
	if n := utf8.RuneCountInString(s); n < 1 || n > 64 {
		return fmt.Errorf("a name has 1 to 64 characters, not %d", n)
	}
	for _, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x200e && r <= 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0x61c {
			return fmt.Errorf("a name has no control or bidirectional characters, such as %U", r)
		}
	}
	return nil
}

// Subject is the subject of a task's record: it makes each task a slot of its own.
func (t Task) Subject() (string, error) {
	b, err := record.Encode(t)
	if err != nil {
		return "", err
	}
	return subject(b), nil
}

func subject(payload []byte) string {
	sum := sha256.Sum256(payload)
	return hex.EncodeToString(sum[:])
}

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

// Update is the payload of an update record: a node's parameters after the
// local steps of a round, the number of the record.
type Update struct {
	Task   record.CID `cbor:"task" json:"task"`
	Roster record.CID `cbor:"roster" json:"roster"` // that it was trained with
	Weight uint64     `cbor:"weight" json:"weight"`
	// Previous is the round of the author's update before, 0 without one. It
	// tells those who wait for a round that the author has left out.
	Previous uint64 `cbor:"previous" json:"previous"`
	// Settled says that the mix it was trained from had come to rest: see
	// Task.Tolerance.
	Settled bool `cbor:"settled" json:"settled"`
	// Kept are the candidates of a search that the vector holds; Losses, in an
	// update that ends a rung, the loss of each, averaged as the round found
	// it, over Rows of the author's rows that it does not train on.
	Kept   []int     `cbor:"kept,omitempty" json:"kept,omitempty"`
	Losses []float64 `cbor:"losses,omitempty" json:"losses,omitempty"`
	Rows   uint64    `cbor:"rows,omitempty" json:"rows,omitempty"`
	// Vector is a safetensors file with "bias" and "weight", F64; empty where it
	// is announced by Size, in bytes, and Chunks: the SHA-256 of each ChunkSize
	// bytes of it, end to end.
	Vector []byte `cbor:"vector" json:"-"`
	Size   uint64 `cbor:"size" json:"-"`
	Chunks []byte `cbor:"chunks" json:"-"`

	Params []float64 `cbor:"-" json:"-"` // the vector decoded; nil until it is here
}

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

// NewUpdate encodes the parameters as the update's vector, inside of it or
// announced by it, and returns the vector as well.
func NewUpdate(u Update, t Task) (Update, []byte, error) {
	kept := t.keptOf(u)
	b, err := safetensors.Marshal(t.tensors(kept, u.Params), nil)
	if err != nil {
		return u, nil, err
	}
	if t.inline(kept) {
		u.Vector = b
	} else {
		u.Size, u.Chunks = uint64(len(b)), hashes(b)
	}
	return u, b, nil
}

// keptOf are the candidates whose parameters an update holds.
func (t Task) keptOf(u Update) []int {
	if t.Search == nil {
		return t.Everyone()
	}
	return u.Kept
}

// inline tells whether the vector of some candidates rides inside an update. With
// many small tensors, what says where they are takes more room than they do.
func (t Task) inline(kept []int) bool {
	return 8*t.Length(kept) <= MaxVector && t.header(kept) <= MaxVector/2
}

// hashes returns the SHA-256 of each chunk, end to end.
func hashes(b []byte) []byte {
	var sums []byte
	for start := 0; start < len(b); start += ChunkSize {
		sum := sha256.Sum256(b[start:min(start+ChunkSize, len(b))])
		sums = append(sums, sum[:]...)
	}
	return sums
}

// Fill reads the vector that an update announced.
func (u Update) Fill(b []byte, t Task) (Update, error) {
	if uint64(len(b)) != u.Size || !slices.Equal(hashes(b), u.Chunks) {
		return u, fmt.Errorf("%w: the vector is not the one that was announced", ErrInvalid)
	}
	var err error
	if u.Params, err = t.checkedVector(b, t.keptOf(u)); err != nil {
		return u, fmt.Errorf("%w: update: %w", ErrInvalid, err)
	}
	return u, nil
}

// TaskOf reads and checks a task record.
func TaskOf(r record.Record) (Task, error) {
	var t Task
	if err := decode(r, record.KindTask, &t); err != nil {
		return Task{}, err
	}
	if r.Subject != subject(r.Payload) || r.Number != 0 {
		return Task{}, fmt.Errorf("%w: a task's subject is its payload's hash", ErrInvalid)
	}
	if err := t.Check(); err != nil {
		return Task{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return t, nil
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
	if err == nil && (len(e.Nation) != 3 || strings.Trim(e.Nation, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "") {
		err = errors.New("a nation is a code of three capital letters")
	}
	if err != nil {
		return Enrolment{}, fmt.Errorf("%w: enrolment: %w", ErrInvalid, err)
	}
	return e, nil
}

// UpdateOf reads an update record and checks it against its task: the number of
// its round, the shape of its vector and that every parameter can be averaged.
func UpdateOf(r record.Record, t Task) (Update, error) {
	var u Update
	if err := decode(r, record.KindUpdate, &u); err != nil {
		return Update{}, err
	}
	err := check(r, t, u.Task, r.Number >= 1 && r.Number <= t.Rounds)
	if err == nil && u.Previous >= r.Number {
		err = fmt.Errorf("round %d after round %d", r.Number, u.Previous)
	}
	if err == nil && (u.Weight == 0 || u.Weight > MaxRows) {
		err = fmt.Errorf("weight %d", u.Weight)
	}
	if err == nil {
		err = t.checkKept(u.Kept)
	}
	if err == nil {
		err = t.checkLosses(u, r.Number)
	}
	if err == nil {
		err = u.readVector(t)
	}
	if err != nil {
		return Update{}, fmt.Errorf("%w: update: %w", ErrInvalid, err)
	}
	return u, nil
}

// checkLosses refuses losses that could not be averaged.
func (t Task) checkLosses(u Update, round uint64) error {
	due := t.endsRung(round)
	switch {
	case due && len(u.Losses) != len(u.Kept), !due && len(u.Losses)+int(u.Rows) != 0:
		return fmt.Errorf("%d losses of %d candidates", len(u.Losses), len(u.Kept))
	case u.Rows > u.Weight:
		return fmt.Errorf("losses over %d rows of %d", u.Rows, u.Weight)
	}
	for _, l := range u.Losses {
		if !(l >= 0 && l <= MaxLoss) {
			return fmt.Errorf("a loss of %g", l)
		}
	}
	return nil
}

// readVector reads a vector that rides inside, or checks the announcement of one
// that does not.
func (u *Update) readVector(t Task) (err error) {
	kept := t.keptOf(*u)
	least := uint64(8 * t.Length(kept))
	most := least + uint64(t.header(kept)) // the exact size follows from the form
	if !t.inline(kept) {
		if len(u.Vector) != 0 || u.Size < least || u.Size > most || uint64(len(u.Chunks)) != (u.Size+ChunkSize-1)/ChunkSize*sha256.Size {
			return errors.New("announcement of a vector that does not fit the model")
		}
		return nil
	}
	if u.Size != 0 || len(u.Chunks) != 0 || uint64(len(u.Vector)) > most {
		return errors.New("a small vector rides inside the update")
	}
	u.Params, err = t.checkedVector(u.Vector, kept)
	return err
}

// checkedVector reads parameters that can be averaged.
func (t Task) checkedVector(b []byte, kept []int) ([]float64, error) {
	params, err := t.vector(b, kept)
	if err == nil {
		err = mixing.NewSum(len(params)).Add(1, params)
	}
	if err != nil {
		return nil, err
	}
	return params, nil
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

func decode(r record.Record, kind record.Kind, v any) error {
	if r.Kind != kind {
		return fmt.Errorf("%w: a record of kind %q, not %q", ErrInvalid, r.Kind, kind)
	}
	if err := record.Decode(r.Payload, v); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

func check(r record.Record, t Task, named record.CID, numberFits bool) error {
	switch {
	case named.String() != r.Subject:
		return errors.New("subject and payload name two tasks")
	case !numberFits:
		return fmt.Errorf("number %d", r.Number)
	case !t.Named(r.Author):
		return ErrForeign
	}
	return nil
}
