package task

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"

	"village/protocol/dataset"
	"village/protocol/learn"
)

// Search is a choice among candidates by successive halving (Jamieson and
// Talwalkar 2016): all of them are trained side by side, and at the end of each
// rung those with the higher loss are dropped, on which the nodes agree.
type Search struct {
	Candidates []Candidate `cbor:"candidates" json:"candidates"`
	Rungs      []Rung      `cbor:"rungs" json:"rungs"`
}

// Rung is a stage of a search.
type Rung struct {
	Round uint64 `cbor:"round" json:"round"` // its last one
	Keep  uint64 `cbor:"keep" json:"keep"`   // candidates that go on
}

// rungs are those of the search, none without one.
func (t Task) rungs() []Rung {
	if t.Search == nil {
		return nil
	}
	return t.Search.Rungs
}

// Decides tells whether something is decided by the updates of a round: it ends a
// rung, or the task.
func (t Task) Decides(round uint64) bool { return t.endsRung(round) || round == t.Rounds }

func (t Task) endsRung(round uint64) bool {
	return slices.ContainsFunc(t.rungs(), func(r Rung) bool { return r.Round == round })
}

// checkSearch refuses a search that does not come down to one candidate well
// before the end of the task.
func (t Task) checkSearch() error {
	s := t.Search
	switch {
	case s == nil:
		return nil
	case len(s.Candidates) < 2 || len(s.Candidates) > MaxCandidates:
		return fmt.Errorf("a search is among 2 to %d candidates, not %d", MaxCandidates, len(s.Candidates))
	case len(s.Rungs) == 0 || len(s.Rungs) >= len(s.Candidates):
		return fmt.Errorf("%d rungs for %d candidates", len(s.Rungs), len(s.Candidates))
	case t.Tolerance > 0:
		return errors.New("a search ends its rungs by rounds; it cannot stand beside a tolerance")
	}
	round, left := uint64(0), uint64(len(s.Candidates))
	for _, r := range s.Rungs {
		if r.Round <= round || r.Keep == 0 || r.Keep >= left {
			return errors.New("each rung of a search ends later than the one before, and drops some candidates")
		}
		round, left = r.Round, r.Keep
	}
	if left != 1 {
		return fmt.Errorf("the search leaves %d candidates, not one", left)
	}
	// What is recent enough to count at the end is then of the chosen one alone.
	if t.Rounds <= t.Recent() || round >= t.Rounds-t.Recent() {
		return fmt.Errorf("the search ends in round %d of %d, and the last %d rounds are for the chosen candidate alone", round, t.Rounds, t.Recent()+1)
	}
	return nil
}

// Halving returns rungs that drop half of the candidates after as many steps of
// work each, in the first half of the rounds.
func Halving(candidates int, rounds uint64) []Rung {
	stages := 0
	for n := candidates; n > 1; n = (n + 1) / 2 {
		stages++
	}
	var rungs []Rung
	for i, n := 0, candidates; n > 1; i++ {
		n = (n + 1) / 2
		// Rungs end at 1/2^k of half of the rounds: one of half as many
		// candidates is twice as long.
		rungs = append(rungs, Rung{Round: max(rounds/2>>(stages-1-i), uint64(i+1)), Keep: uint64(n)})
	}
	return rungs
}

// Space is what a search draws its candidates from: each list holds the values
// that the field of that name may have.
type Space struct {
	Models        []learn.Kind      `json:"models" toml:"models"`
	Hidden        [][]int           `json:"hidden" toml:"hidden"` // of perceptrons
	LocalSteps    []uint64          `json:"local_steps" toml:"local_steps"`
	LearningRates []float64         `json:"learning_rates" toml:"learning_rates"`
	L2            []float64         `json:"l2" toml:"l2"`
	Optimizers    []learn.Optimizer `json:"optimizers" toml:"optimizers"`
	Outers        []learn.Outer     `json:"outers" toml:"outers"`
	OuterRates    []float64         `json:"outer_rates" toml:"outer_rates"`
}

// Filled returns the space with a good range for each list that is empty.
func (s Space) Filled(e dataset.Encoding) Space {
	fill(&s.Models, Regression(e), learn.MLP)
	fill(&s.Hidden, []int{16}, []int{32})
	fill(&s.LocalSteps, 5, 10)
	fill(&s.LearningRates, 0.05, 0.1, 0.2, 0.5)
	fill(&s.L2, 1e-4, 1e-3, 1e-2, 3e-2, 0.1)
	fill(&s.Optimizers, learn.SGD, learn.Momentum)
	fill(&s.Outers, learn.Plain, learn.Plain, learn.Nesterov, learn.OuterAdam, learn.OuterYogi)
	fill(&s.OuterRates, 0.01, 0.03, 0.1)
	return s
}

func fill[T any](list *[]T, values ...T) {
	if len(*list) == 0 {
		*list = values
	}
}

// Draw draws candidates from a filled space by chance, each another one, as far
// as there are so many, and of each model as many; the same for a seed. The first
// is the task's default if the space holds its model.
func (s Space) Draw(n int, t Task) []Candidate {
	stream := rand.New(rand.NewChaCha8(sha256.Sum256(binary.BigEndian.AppendUint64([]byte("village search"), t.Seed))))
	var list []Candidate
	if usual := (Candidate{Model: t.Model, Hidden: t.Hidden, LocalSteps: t.LocalSteps, LearningRate: t.LearningRate, L2: t.L2}); slices.Contains(s.Models, usual.Model) && usual.Model != learn.MLP {
		list = append(list, usual)
	}
	for tries := 0; len(list) < n && tries < 100*n; tries++ {
		c := Candidate{
			Model: s.Models[len(list)%len(s.Models)], LocalSteps: draw(stream, s.LocalSteps), LearningRate: draw(stream, s.LearningRates),
			L2: draw(stream, s.L2), Optimizer: draw(stream, s.Optimizers), Outer: draw(stream, s.Outers),
		}
		if hidden := draw(stream, s.Hidden); c.Model == learn.MLP {
			c.Hidden = hidden
		}
		if rate := draw(stream, s.OuterRates); c.Outer != learn.Plain {
			c.OuterRate = rate
			if c.Outer == learn.Nesterov { // whose rate is of the change itself
				c.OuterRate = 0.7
			}
		}
		if c.Optimizer == learn.Momentum || c.Optimizer == learn.Adam { // whose steps are ten times as long
			c.LearningRate /= 10
		}
		if !slices.ContainsFunc(list, func(o Candidate) bool { return reflect.DeepEqual(o, c) }) {
			list = append(list, c)
		}
	}
	return list
}

func draw[T any](stream *rand.Rand, values []T) T { return values[stream.IntN(len(values))] }

// parsimony is what the loss of a perceptron is multiplied with before it is
// compared with those of regressions: losses on few rows are near each other by
// chance, and then the simpler model is the one to trust.
const parsimony = 1.02

// End computes how a rung ends by the losses of updates: the mean of each
// candidate's loss over all rows held back, in the order of the updates; those of
// the lowest losses are kept, of equal ones the first.
func (t Task) End(rung int, kept []int, updates []Update) RungEnd {
	end := RungEnd{Nodes: len(updates), Losses: make([]float64, len(kept))}
	rows := 0.0
	for _, u := range updates {
		rows += float64(u.Rows)
	}
	ranked := make([]float64, len(kept)) // losses as they are compared
	order := make([]int, len(kept))
	for i, c := range kept {
		for _, u := range updates {
			if u.Rows > 0 {
				end.Losses[i] += float64(u.Losses[i] * float64(float64(u.Rows)/rows))
			}
		}
		order[i], ranked[i] = i, end.Losses[i]
		if t.Candidate(c).Model == learn.MLP {
			ranked[i] *= parsimony
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(ranked[a], ranked[b]) })
	order = order[:min(int(t.Search.Rungs[rung].Keep), len(order))]
	slices.Sort(order)
	for _, i := range order {
		end.Kept = append(end.Kept, kept[i])
	}
	return end
}

// check refuses an end of a rung that no losses of these candidates can have.
func (e RungEnd) check(t Task, rung int, kept []int) error {
	if len(e.Losses) != len(kept) || uint64(len(e.Kept)) != t.Search.Rungs[rung].Keep || t.checkKept(e.Kept) != nil {
		return fmt.Errorf("rung %d has not ended as the task says", rung+1)
	}
	for _, c := range e.Kept {
		if !slices.Contains(kept, c) {
			return fmt.Errorf("rung %d keeps a candidate that was dropped before", rung+1)
		}
	}
	return nil
}

// checkChoice refuses a choice that does not follow from how the rungs ended.
func (c FinalContent) checkChoice(t Task) error {
	if len(c.Ends) != len(t.rungs()) {
		return fmt.Errorf("%d rungs have ended of %d", len(c.Ends), len(t.rungs()))
	}
	kept := t.Everyone()
	for i, end := range c.Ends {
		if err := end.check(t, i, kept); err != nil {
			return err
		}
		kept = end.Kept
	}
	if len(kept) != 1 || kept[0] != c.Chosen {
		return fmt.Errorf("candidate %d is not the one that is left", c.Chosen)
	}
	return nil
}

// TrailOf tells how the search went that ended so.
func (t Task) TrailOf(c FinalContent) *Trail {
	if t.Search == nil {
		return nil
	}
	trail := &Trail{Candidates: t.Search.Candidates, Rungs: []TrailOfRung{}, Chosen: c.Chosen}
	kept := t.Everyone()
	for i, end := range c.Ends {
		r := TrailOfRung{Round: t.Search.Rungs[i].Round, Nodes: end.Nodes, Losses: make([]*float64, len(t.Search.Candidates)), Kept: end.Kept}
		for j, candidate := range kept {
			r.Losses[candidate] = &end.Losses[j]
		}
		trail.Rungs, kept = append(trail.Rungs, r), end.Kept
	}
	return trail
}
