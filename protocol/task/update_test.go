package task

import (
	"errors"
	"testing"

	"village/protocol/record"
)

// Previous is the round before, so that it is below the own one. An update that
// names itself would have its readers wait for a round that they hold.
func TestAnUpdateFollowsAnEarlierRound(t *testing.T) {
	tk := good()
	id := record.CIDOf([]byte("task"))
	for _, c := range []struct {
		round, previous uint64
		fits            bool
	}{
		{1, 0, true}, {1, 1, false}, {3, 2, true}, {3, 1, true}, {3, 0, true}, {3, 3, false}, {3, 4, false},
	} {
		u := Update{Task: id, Roster: record.CIDOf([]byte("roster")), Weight: 1, Previous: c.previous, Params: make([]float64, tk.Length(tk.Everyone()))}
		u, _, err := NewUpdate(u, tk)
		if err != nil {
			t.Fatal(err)
		}
		r, err := record.Sign(keys[0], fed, record.KindUpdate, id.String(), c.round, u)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := UpdateOf(r, tk); (err == nil) != c.fits || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("round %d after round %d: %v", c.round, c.previous, err)
		}
	}
}
