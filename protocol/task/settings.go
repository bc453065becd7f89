package task

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	"village/protocol/learn"
	"village/protocol/mixing"
)

// Settings are what a task leaves to whoever proposes it. A new one is a field here
// and a row of [Table]; flags, files, scenarios, records and answers follow.
type Settings struct {
	Rounds uint64 `cbor:"rounds" json:"rounds"`
	Training
}

// Training is how a round goes.
type Training struct {
	Candidate
	Batch  uint64 `cbor:"batch" json:"batch"`   // rows a step; 0 = all
	Mixing string `cbor:"mixing" json:"mixing"` // a rule of mixing.New, over the places of Nodes
	Seed   uint64 `cbor:"seed" json:"seed"`
	// Tolerance ends the training early, at the first round that every node
	// entered with a mix no further than this (in any parameter) from its mix
	// before. 0 = never.
	Tolerance float64 `cbor:"tolerance" json:"tolerance"`
	Prox      float64 `cbor:"prox,omitempty" json:"prox,omitempty"` // see learn.Training
	// Scaffold corrects local steps for what the nodes' rows differ in, with
	// control variates that travel in the update (Karimireddy et al. 2020).
	Scaffold bool `cbor:"scaffold,omitempty" json:"scaffold,omitempty"`
	// Personal is the part of the model that every node has for itself: it is
	// trained, but never leaves the node, and is zero in the model.
	Personal learn.Part `cbor:"personal,omitempty" json:"personal,omitempty"`
}

// Candidate is the part of the settings that a search chooses.
type Candidate struct {
	Model        learn.Kind      `cbor:"model" json:"model"`
	Hidden       []int           `cbor:"hidden,omitempty" json:"hidden,omitempty"` // see learn.Spec
	LocalSteps   uint64          `cbor:"local_steps" json:"local_steps"`
	LearningRate float64         `cbor:"learning_rate" json:"learning_rate"`
	L2           float64         `cbor:"l2" json:"l2"`
	Optimizer    learn.Optimizer `cbor:"optimizer,omitempty" json:"optimizer,omitempty"` // of the local steps
	// Outer is the rule by which the averaged change of a round is taken, OuterRate
	// its step; "" takes the change as it is.
	Outer     learn.Outer `cbor:"outer,omitempty" json:"outer,omitempty"`
	OuterRate float64     `cbor:"outer_rate,omitempty" json:"outer_rate,omitempty"`
}

// Defaults are the settings of a task of which nothing is said. Local steps times
// learning rate stay at 1: more makes the local drift between unequal nodes visible
// in the ranking (ROC-AUC). The model depends on the target; see [Regression].
func Defaults() Settings {
	return Settings{Rounds: 100, Training: Training{
		Candidate: Candidate{LocalSteps: 5, LearningRate: 0.2, L2: 0.001},
		Mixing:    mixing.All,
	}}
}

// Setting is a row of the table.
type Setting struct {
	Name string              // as a flag; a key of a file or a record has _ for -
	Help string              // one line
	At   func(*Settings) any // pointer to the value: *uint64, *float64, *bool, *string or *[]int
	says string              // what is possible, as a sentence around it; "" = possible is one
	// possible returns what is possible where the value is not, else "".
	possible func(*Settings) string
}

// Table lists the settings.
var Table = []Setting{
	{"rounds", "number of rounds", func(s *Settings) any { return &s.Rounds },
		"a task has %s rounds", func(s *Settings) string { return between(s.Rounds, 1, MaxRounds) }},
	{"local-steps", "steps of each node in a round", func(s *Settings) any { return &s.LocalSteps },
		"a round has %s local steps", func(s *Settings) string { return between(s.LocalSteps, 1, MaxLocalSteps) }},
	{"learning-rate", "length of a step", func(s *Settings) any { return &s.LearningRate },
		"a learning rate is %s", func(s *Settings) string {
			return unless(s.LearningRate > 0 && s.LearningRate <= 1e6, "above 0 and at most 1e6")
		}},
	{"batch", "rows in a step (0 = all)", func(s *Settings) any { return &s.Batch },
		"a batch has %s rows", func(s *Settings) string { return between(s.Batch, 0, math.MaxInt32) }},
	{"l2", "penalty on squared weights", func(s *Settings) any { return &s.L2 },
		"l2 is %s", func(s *Settings) string { return between(s.L2, 0, 1e6) }},
	{"tolerance", "stop when no parameter changes by more, where all mix with all (0 = run all rounds)", func(s *Settings) any { return &s.Tolerance },
		"a tolerance is %s", func(s *Settings) string {
			return unless(s.Tolerance >= 0 && s.Tolerance <= math.MaxFloat64, "0 or above")
		}},
	{"mixing", "who mixes with whom: all, ring, torus, regular:K, exponential, base:K or random", func(s *Settings) any { return &s.Mixing },
		"", func(s *Settings) string { return said(mixing.Check(s.Mixing)) }},
	{"model", "linear, logistic, softmax or mlp (else as the target asks for)", func(s *Settings) any { return (*string)(&s.Model) },
		"a model is %s", func(s *Settings) string {
			return unless(slices.Contains([]learn.Kind{"", learn.Linear, learn.Logistic, learn.Softmax, learn.MLP}, s.Model), "linear, logistic, softmax or mlp")
		}},
	{"hidden", "widths of the hidden layers of a perceptron (mlp), as 64 or 64,32", func(s *Settings) any { return &s.Hidden }, "", anything},
	{"optimizer", "of the local steps: momentum or adam (else plain gradient steps)", func(s *Settings) any { return (*string)(&s.Optimizer) },
		"", func(s *Settings) string { return said(s.Optimizer.Check()) }},
	{"prox", "FedProx: pull of local steps to where they set out from", func(s *Settings) any { return &s.Prox },
		"prox is %s", func(s *Settings) string { return between(s.Prox, 0, 1e6) }},
	{"scaffold", "correct local steps for what the nodes' rows differ in", func(s *Settings) any { return &s.Scaffold }, "", anything},
	{"outer", "how the averaged change is taken: nesterov, adam or yogi (else as it is)", func(s *Settings) any { return (*string)(&s.Outer) },
		"", func(s *Settings) string { return said(s.Outer.Check()) }},
	{"outer-rate", "step of the outer optimizer (0 = its usual one)", func(s *Settings) any { return &s.OuterRate },
		"an outer rate is %s", func(s *Settings) string { return between(s.OuterRate, 0, 1e3) }},
	{"personal", "what every node has for itself, and never sends: bias or last-layer", func(s *Settings) any { return (*string)(&s.Personal) },
		"a node's own part is %s", func(s *Settings) string {
			return unless(slices.Contains([]learn.Part{learn.NoPart, learn.Bias, learn.LastLayer}, s.Personal), "bias or last-layer")
		}},
	{"seed", "seed of everything random", func(s *Settings) any { return &s.Seed }, "", anything},
}

// anything is possible, as far as the table knows.
func anything(*Settings) string { return "" }

func between[T uint64 | float64](x, from, to T) string {
	return unless(from <= x && x <= to, strings.ReplaceAll(fmt.Sprintf("%v to %v", from, to), "e+0", "e"))
}

func unless(ok bool, words string) string {
	if ok {
		return ""
	}
	return words
}

func said(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Wrong says what would be possible where the value is not, else nothing.
func (k Setting) Wrong(s *Settings) string {
	words := k.possible(s)
	if words != "" && k.says != "" {
		return "it is " + words
	}
	return words
}

// check refuses a value that cannot be.
func (s Settings) check() error {
	for _, k := range Table {
		words := k.possible(&s)
		switch {
		case words == "":
		case k.says == "":
			return errors.New(words)
		default:
			value := fmt.Sprint(reflect.ValueOf(k.At(&s)).Elem())
			if text, ok := k.At(&s).(*string); ok {
				value = fmt.Sprintf("%.16q", *text)
			}
			return fmt.Errorf(k.says+", not %s", words, value)
		}
	}
	return nil
}

// Over returns the settings that are given, with what follows from them, and for
// those that are zero the others.
func (s Settings) Over(others Settings) Settings {
	if s.Model == "" && len(s.Hidden) > 0 {
		s.Model = learn.MLP
	}
	s.SetOuter(s.Outer, s.OuterRate)
	for _, k := range Table {
		if given := reflect.ValueOf(k.At(&s)).Elem(); given.IsZero() {
			given.Set(reflect.ValueOf(k.At(&others)).Elem())
		}
	}
	return s
}

// SetOuter chooses an outer rule, and its usual rate where that is 0.
func (s *Settings) SetOuter(o learn.Outer, rate float64) {
	if rate == 0 {
		switch o {
		case learn.Nesterov:
			rate = 0.7
		case learn.OuterAdam, learn.OuterYogi:
			rate = 0.1
		}
	}
	s.Outer, s.OuterRate = o, rate
}
