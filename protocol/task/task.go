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
	"slices"
	"unicode/utf8"

	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/mixing"
	"village/protocol/record"
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
	Name        string           `cbor:"name" json:"name"`
	Description string           `cbor:"description" json:"description"`
	Created     uint64           `cbor:"created" json:"created"` // Unix seconds, for display only
	Encoding    dataset.Encoding `cbor:"encoding" json:"encoding"`
	Nodes       []record.NodeID  `cbor:"nodes" json:"nodes"` // those that may take part, in peer-ID order
	Settings
	// RoundTime ends a node's local steps after so many milliseconds, at least one
	// step; its change then counts as if it had made all (FedNova, Wang et al.
	// 2020). 0 = never.
	RoundTime uint64 `cbor:"round_time,omitempty" json:"round_time,omitempty"`
	// Search, if set, has the nodes choose the model and how it is trained.
	Search *Search `cbor:"search,omitempty" json:"search,omitempty"`
	// Parent, if set, is the model that the training starts from.
	Parent *Parent `cbor:"parent,omitempty" json:"parent,omitempty"`
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
	if t.RoundTime > 24*3600*1000 {
		return fmt.Errorf("a round's local steps end after at most a day, not %d ms", t.RoundTime)
	}
	if t.Tolerance > 0 && t.Mixing != mixing.All {
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

func (t Task) checkCandidate(i int) error {
	c, s := t.Candidate(i), t.Settings
	s.Candidate = c
	if err := cmp.Or(t.SpecOf(i).Check(), s.check()); err != nil {
		return err
	}
	switch {
	case t.Rounds*c.LocalSteps > MaxSteps:
		return fmt.Errorf("all rounds together have at most %d local steps, not %d", MaxSteps, t.Rounds*c.LocalSteps)
	case c.Outer == learn.Plain && c.OuterRate != 0:
		return errors.New("an outer rate needs an outer optimizer: nesterov, adam or yogi")
	case c.Outer != learn.Plain && c.OuterRate == 0:
		return fmt.Errorf("an outer rate of 0 stands still beside the outer optimizer %s", c.Outer)
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
