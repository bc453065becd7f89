package task

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"village/protocol/mixing"
	"village/protocol/record"
	"village/protocol/safetensors"
)

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
