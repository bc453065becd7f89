package figure

import (
	"cmp"
	"slices"
	"strconv"

	"village/protocol/learn"
	"village/protocol/task"
)

// CandidateName says what model a candidate of a search is, and what is special
// about its training.
func CandidateName(c task.Candidate) string {
	name := cmp.Or(string(c.Model), None)
	for i, width := range c.Hidden {
		if i == 0 {
			name += " "
		} else {
			name += "-"
		}
		name += strconv.Itoa(width)
	}
	if c.Optimizer != learn.SGD {
		name += ", " + string(c.Optimizer)
	}
	if c.Outer != learn.Plain {
		name += ", outer " + string(c.Outer) + " " + Setting(c.OuterRate)
	}
	return name
}

// Fate is what became of a candidate of a search.
type Fate struct {
	Candidate int
	Losses    []*float64 // by rung; nil where it had been dropped
	Dropped   bool       // at its last rung
}

// Rungs is how many rungs it was in.
func (f Fate) Rungs() int {
	n := 0
	for i, loss := range f.Losses {
		if loss != nil {
			n = i + 1
		}
	}
	return n
}

// Fates are what became of the candidates: the chosen one first, then those that
// were kept longest, of these the ones with the lower loss.
func Fates(t task.Trail) []Fate {
	list := make([]Fate, len(t.Candidates))
	for i := range list {
		f := Fate{Candidate: i}
		for _, rung := range t.Rungs {
			var loss *float64
			if i < len(rung.Losses) && Finite(rung.Losses[i]) {
				loss = rung.Losses[i]
			}
			f.Losses = append(f.Losses, loss)
			if loss != nil {
				f.Dropped = !slices.Contains(rung.Kept, i)
			}
		}
		list[i] = f
	}
	slices.SortStableFunc(list, func(a, b Fate) int {
		if (a.Candidate == t.Chosen) != (b.Candidate == t.Chosen) {
			if a.Candidate == t.Chosen {
				return -1
			}
			return 1
		}
		if n := a.Rungs(); n != b.Rungs() || n == 0 {
			return b.Rungs() - n
		}
		return cmp.Compare(*a.Losses[a.Rungs()-1], *b.Losses[a.Rungs()-1])
	})
	return list
}
