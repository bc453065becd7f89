// Package scenario describes what the simulator is to run, as a flat list of
// keys that are the same in a TOML file, on the command line and in a
// comparison, and makes a [sim.Config] of it, or says why there cannot be one.
package scenario

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"village/protocol/task"
	"village/sim"
)

// Scenario is one run. Each field but the first two is a key; see [Keys].
type Scenario struct {
	Name  string // of the shipped scenario or the file
	Label string // what [Vary] has changed, such as "mixing=ring"; not the seed

	About string

	Data        string
	Columns     []string
	Target      string
	Features    []string
	Categorical []string
	Numeric     []string
	Ignore      []string
	Split       string
	Positive    string

	Partition string
	Nodes     int
	Rows      int

	task.Settings
	Sensitive string
	Auto      int
	Within    time.Duration

	Latency   Latency
	Bandwidth Bandwidth
	Loss      float64
	Duplicate float64
	Apart     []Cut
	Restarts  float64
	Down      time.Duration
	Late      Share
	Leave     Share
	Die       Share
	Slow      Slow
	Step      time.Duration
	Hostile   Hostile

	Vary []string
}

// New returns a scenario with every key at its default, and no data.
func New() Scenario {
	s := Scenario{
		Settings: task.Defaults(),
		Latency:  Latency{Min: 5 * time.Millisecond, Max: 50 * time.Millisecond},
		Down:     10 * time.Second, Step: 100 * time.Millisecond,
	}
	s.Seed = 1
	return s
}

// Key is a key of a scenario.
type Key struct {
	Name    string
	Help    string // one line
	Default string // as it is written on the command line; "" where it is none
}

// Keys lists the keys that are flags: all but about and vary.
func Keys() []Key {
	var list []Key
	unset := New()
	for _, k := range keys {
		if k.name != "about" && k.name != "vary" {
			list = append(list, Key{Name: k.name, Help: k.help, Default: text(k.at(&unset))})
		}
	}
	return list
}

// key is a key: what it means, where its value is, and which values are possible.
type key struct {
	name  string
	help  string
	at    func(*Scenario) any    // pointer to the value
	wrong func(*Scenario) string // what would be possible; "" = the value is
}

var keys = slices.Concat([]key{
	{"about", "what the scenario shows, in one line", func(s *Scenario) any { return &s.About }, nil},

	{"data", "a shipped set, a CSV file, or synthetic:ROWSxFEATURES", func(s *Scenario) any { return &s.Data }, func(s *Scenario) string {
		if _, _, err := syntheticSize(s.Data); err != nil {
			return err.Error()
		}
		return ""
	}},
	{"columns", "names of the columns, where the file has no header", func(s *Scenario) any { return &s.Columns }, nil},
	{"target", "column to predict", func(s *Scenario) any { return &s.Target }, nil},
	{"features", "columns to predict from (default: all others)", func(s *Scenario) any { return &s.Features }, nil},
	{"categorical", "columns whose numbers are codes", func(s *Scenario) any { return &s.Categorical }, nil},
	{"numeric", "columns that are numeric however few values they have, as a target to be predicted as a number", func(s *Scenario) any { return &s.Numeric }, nil},
	{"ignore", "columns to leave out", func(s *Scenario) any { return &s.Ignore }, nil},
	{"split", "column that says train or test (default: a quarter of the rows is for tests)", func(s *Scenario) any { return &s.Split }, nil},
	{"positive", "level of the target that counts as positive", func(s *Scenario) any { return &s.Positive }, nil},

	{"partition", "which node has which rows: column:COL, iid, dirichlet:ALPHA or shards:K", func(s *Scenario) any { return &s.Partition }, func(s *Scenario) string {
		if _, err := parsePartition(s.Partition); err != nil {
			return err.Error()
		}
		return ""
	}},
	{"nodes", "number of nodes; with column:COL those of most rows (default: all of the column, else 4)", func(s *Scenario) any { return &s.Nodes }, func(s *Scenario) string {
		return unless(s.Nodes >= 0 && s.Nodes <= maxNodes, "it is 1 to %d", maxNodes)
	}},
	{"rows", "training rows that a node has at most; its test rows stay (default: all)", func(s *Scenario) any { return &s.Rows }, func(s *Scenario) string {
		return unless(s.Rows >= 0, "it is 1 or more, or 0 for all")
	}},
}, settings(), []key{
	{"sensitive", "column by whose levels the results tell groups apart", func(s *Scenario) any { return &s.Sensitive }, nil},
	{"auto", "candidates among which the nodes choose the model and its training; 0 = none", func(s *Scenario) any { return &s.Auto }, func(s *Scenario) string {
		return unless(s.Auto == 0 || s.Auto >= 2 && s.Auto <= task.MaxCandidates, "it is 2 to %d, or 0", task.MaxCandidates)
	}},
	{"within", "time that a node's local steps may take in all; slow nodes make fewer", func(s *Scenario) any { return &s.Within }, func(s *Scenario) string {
		return unless(s.Within >= 0 && s.Within <= maxTime, "it is at most 30 days, as 10m")
	}},
	{"seed", "the same seed gives the same run", func(s *Scenario) any { return &s.Seed }, func(s *Scenario) string {
		return unless(s.Seed < 1<<63, "it is below 2^63") // a file has no larger numbers
	}},

	{"latency", "how long a message is under way: distance (between the nodes' nations), or as 5ms-50ms", func(s *Scenario) any { return &s.Latency }, func(s *Scenario) string {
		l := s.Latency
		return unless(l.Distance && l.Min == 0 && l.Max == 0 || !l.Distance && l.Min >= 0 && l.Min <= l.Max && l.Max > 0 && l.Max <= maxTime, latencyForm)
	}},
	{"bandwidth", "what a node sends at most in a second, as 10MB; 0 = any amount", func(s *Scenario) any { return &s.Bandwidth }, func(s *Scenario) string {
		return unless(s.Bandwidth == 0 || s.Bandwidth >= 1 && s.Bandwidth <= 1e15, bandwidthForm)
	}},
	{"loss", "probability that a message is lost", func(s *Scenario) any { return &s.Loss }, func(s *Scenario) string {
		return unless(s.Loss >= 0 && s.Loss < 1, "it is at least 0 and below 1, for with 1 nothing ever arrives")
	}},
	{"duplicate", "probability that a message comes twice", func(s *Scenario) any { return &s.Duplicate }, func(s *Scenario) string {
		return unless(s.Duplicate >= 0 && s.Duplicate <= 1, "it is 0 to 1")
	}},
	{"apart", "when which share of the nodes is cut off from the others, as 2m-5m:0.4,...", func(s *Scenario) any { return &s.Apart }, func(s *Scenario) string {
		return unless(!slices.ContainsFunc(s.Apart, func(c Cut) bool {
			return !(c.From >= 0 && c.From < c.To && c.To <= maxTime && c.Share > 0 && c.Share < 1)
		}), cutForm)
	}},
	{"restarts", "crashes of a node in an hour, on average", func(s *Scenario) any { return &s.Restarts }, func(s *Scenario) string {
		return unless(s.Restarts == 0 || s.Restarts >= 1e-3 && s.Restarts <= 3600, "it is 0, or 0.001 to 3600")
	}},
	{"down", "how long a node that has crashed is down", func(s *Scenario) any { return &s.Down }, func(s *Scenario) string {
		return unless(s.Down > 0 && s.Down <= maxTime, "it is above 0 and at most 30 days, as 10s")
	}},
	{"late", "share of the nodes that enrol so late, as 0.2@30s", func(s *Scenario) any { return &s.Late }, func(s *Scenario) string { return s.Late.wrong() }},
	{"leave", "share of the nodes that leave at a time, as 0.1@20s", func(s *Scenario) any { return &s.Leave }, func(s *Scenario) string { return s.Leave.wrong() }},
	{"die", "share of the nodes that crash at a time and never come back, as 0.1@20s", func(s *Scenario) any { return &s.Die }, func(s *Scenario) string { return s.Die.wrong() }},
	{"slow", "share of the nodes that take longer, and how many times, as 0.1x10", func(s *Scenario) any { return &s.Slow }, func(s *Scenario) string {
		return unless(s.Slow == Slow{} || portion(s.Slow.Share) && s.Slow.Times > 1 && s.Slow.Times <= 1e6, slowForm)
	}},
	{"step", "how long the local steps of a round take", func(s *Scenario) any { return &s.Step }, func(s *Scenario) string {
		return unless(s.Step > 0 && s.Step <= 24*time.Hour, "it is above 0 and at most 24h, as 100ms")
	}},
	{"hostile", "share of the nodes that are hostile, and what they do, as 0.2:sign-flip", func(s *Scenario) any { return &s.Hostile }, func(s *Scenario) string {
		return unless(s.Hostile == Hostile{} || portion(s.Hostile.Share) && slices.Contains(sim.Attacks, s.Hostile.Attack), "%s", hostileForm())
	}},

	{"vary", "keys with the values to compare, as mixing=all,ring", func(s *Scenario) any { return &s.Vary }, nil},
})

// settings are the keys that a task has as its settings, but the seed, which here is
// of everything else, too.
func settings() (list []key) {
	for _, k := range task.Table {
		if k.Name != "seed" {
			list = append(list, key{k.Name, k.Help,
				func(s *Scenario) any { return k.At(&s.Settings) },
				func(s *Scenario) string { return k.Wrong(&s.Settings) }})
		}
	}
	return list
}

const (
	maxNodes = 100_000
	maxTime  = 30 * 24 * time.Hour // after which a run ends anyway
)

// unless returns what would be possible where the value is not.
func unless(ok bool, format string, args ...any) string {
	if ok {
		return ""
	}
	return fmt.Sprintf(format, args...)
}

// find returns the key of a name; an error names the nearest.
func find(name string) (key, error) {
	names := make([]string, len(keys))
	for i, k := range keys {
		if k.name == name {
			return k, nil
		}
		names[i] = k.name
	}
	if near := nearest(name, names); near != "" {
		return key{}, fmt.Errorf("unknown key %.64q; did you mean %q?", name, near)
	}
	return key{}, fmt.Errorf("unknown key %.64q; the keys are %s", name, strings.Join(names, ", "))
}

// Set gives a key a value as it is written on the command line: a list is
// separated by commas, and a cell with a comma stands in double quotes. The
// value is the only one from then on, also where the scenario varied the key.
func (s *Scenario) Set(name, value string) error {
	k, err := find(name)
	if err != nil {
		return err
	}
	words := []string{value}
	if k.list(s) && name != "vary" { // of which each value is a list itself
		if words, err = split(value); err != nil {
			return fmt.Errorf("%s = %.64s: %w", name, value, err)
		}
	}
	if err := s.set(k, words); err != nil {
		return err
	}
	s.Vary = slices.DeleteFunc(slices.Clone(s.Vary), func(v string) bool {
		varied, _, _ := strings.Cut(v, "=")
		return varied == name
	})
	return nil
}

func (k key) list(s *Scenario) bool {
	return reflect.TypeOf(k.at(s)).Elem().Kind() == reflect.Slice
}

// split parts a list at its commas.
func split(value string) ([]string, error) {
	if value == "" {
		return nil, nil
	}
	r := csv.NewReader(strings.NewReader(value))
	r.TrimLeadingSpace = true
	words, err := r.Read()
	if err != nil {
		return nil, errors.New("it is a list such as a,b, and a name with a comma in it stands in double quotes")
	}
	return words, nil
}

// set gives a key one value, or the values of a list. On an error the scenario
// is unchanged.
func (s *Scenario) set(k key, words []string) error {
	given := strings.Join(words, ",")
	if !k.list(s) && len(words) != 1 {
		return fmt.Errorf("%s takes one value, not the list %.64s", k.name, given)
	}
	changed := *s
	if err := parse(k.at(&changed), words); err != nil {
		return fmt.Errorf("%s = %.64s: %w", k.name, given, err)
	}
	if err := k.check(&changed); err != nil {
		return err
	}
	*s = changed
	return nil
}

// check refuses a value that cannot be.
func (k key) check(s *Scenario) error {
	if k.wrong == nil {
		return nil
	}
	if why := k.wrong(s); why != "" {
		return fmt.Errorf("%s = %.64s: %s", k.name, text(k.at(s)), why)
	}
	return nil
}

// check refuses values that cannot be, however they came into the scenario.
func (s Scenario) check() error {
	for _, k := range keys {
		if err := k.check(&s); err != nil {
			return err
		}
	}
	return nil
}

const maxFile = 64 << 10 // bytes of a scenario file

// Decode reads a scenario from a TOML file's text. An error names the file, the
// line, and the nearest valid key or what is possible.
func Decode(file string, data []byte) (Scenario, error) {
	if len(data) > maxFile {
		return Scenario{}, fmt.Errorf("%s: a scenario has at most %d bytes, not %d", file, maxFile, len(data))
	}
	if strings.Count(string(data), "{") > 64 {
		// The parser would take hours for many, one in another.
		return Scenario{}, fmt.Errorf("%s: a scenario has keys and values, and no tables", file)
	}
	var values map[string]toml.Primitive
	meta, err := toml.Decode(string(data), &values)
	if err != nil {
		if bad := (toml.ParseError{}); errors.As(err, &bad) {
			return Scenario{}, fmt.Errorf("%s, line %d: %s", file, bad.Position.Line, bad.Message)
		}
		return Scenario{}, fmt.Errorf("%s: %s", file, strings.TrimPrefix(err.Error(), "toml: "))
	}
	s := New()
	s.Name = strings.TrimSuffix(filepath.Base(file), ".toml")
	varied := 0 // line of vary
	for _, name := range meta.Keys() {
		if len(name) > 1 {
			continue // part of a table, whose own key comes too
		}
		var v value
		// The value fails to decode, on purpose: the error carries its place,
		// which the library tells in no other way.
		var place toml.ParseError
		errors.As(meta.PrimitiveDecode(values[name[0]], &v), &place)
		k, err := find(name[0])
		if err == nil {
			switch {
			case v.bad:
				err = fmt.Errorf("%s is a number, a text or a list of texts", k.name)
			case v.list:
				err = s.set(k, v.words)
			default:
				vary := s.Vary // whichever of vary and the key comes first
				err = s.Set(k.name, v.words[0])
				if k.name != "vary" {
					s.Vary = vary
				}
			}
		}
		if err != nil {
			return Scenario{}, fmt.Errorf("%s, line %d: %w", file, place.Position.Line, err)
		}
		if k.name == "vary" {
			varied = place.Position.Line
		}
	}
	if _, err := Vary(s, nil, 1); err != nil {
		return Scenario{}, fmt.Errorf("%s, line %d: %w", file, varied, err)
	}
	return s, nil
}

// value is a value of a TOML file.
type value struct {
	words []string
	list  bool
	bad   bool
}

// UnmarshalTOML always fails; see its use.
func (v *value) UnmarshalTOML(x any) error {
	switch x := x.(type) {
	case string, int64, float64, bool:
		v.words = []string{fmt.Sprint(x)}
	case []any:
		v.list = true
		for _, element := range x {
			switch element.(type) {
			case string, int64, float64:
				v.words = append(v.words, fmt.Sprint(element))
			default:
				v.bad = true
			}
		}
	default:
		v.bad = true
	}
	return errors.New("here")
}

// Encode writes the scenario as a TOML file that replays it: the data, the seed
// and what differs from the defaults.
func (s Scenario) Encode() ([]byte, error) {
	var b bytes.Buffer
	unset := New()
	for _, k := range keys {
		v := k.at(&s)
		if reflect.DeepEqual(v, k.at(&unset)) && k.name != "data" && k.name != "seed" {
			continue
		}
		if err := toml.NewEncoder(&b).Encode(map[string]any{k.name: plain(v)}); err != nil {
			return nil, fmt.Errorf("%s: %w", k.name, err)
		}
	}
	return b.Bytes(), nil
}

// maxRuns is how many runs a comparison has at most.
const maxRuns = 1_000

// Vary returns the runs of a comparison: every combination of the values that
// the scenario and more give to keys, as "mixing=all,ring", each with seeds
// seeds, counted up from the scenario's. A key in more replaces that of the
// scenario.
func Vary(s Scenario, more []string, seeds int) ([]Scenario, error) {
	if seeds < 1 {
		return nil, fmt.Errorf("seeds = %d: it is 1 or more", seeds)
	}
	axes, err := axesOf(more)
	if err != nil {
		return nil, err
	}
	own, err := axesOf(s.Vary)
	if err != nil {
		return nil, err
	}
	own = slices.DeleteFunc(own, func(a axis) bool {
		return slices.ContainsFunc(axes, func(b axis) bool { return a.key.name == b.key.name })
	})
	s.Vary = nil
	runs := []Scenario{s}
	for _, a := range append(own, axes...) {
		if len(runs)*len(a.values)*seeds > maxRuns {
			return nil, fmt.Errorf("vary = %s: there are more than %d runs to compare; vary less", a.key.name, maxRuns)
		}
		var next []Scenario
		for _, run := range runs {
			for _, v := range a.values {
				r := run
				if err := r.set(a.key, []string{v}); err != nil {
					return nil, fmt.Errorf("vary: %w", err)
				}
				r.Label = strings.TrimSpace(r.Label + " " + a.key.name + "=" + v)
				next = append(next, r)
			}
		}
		runs = next
	}
	if len(runs)*seeds > maxRuns {
		return nil, fmt.Errorf("seeds = %d: there are more than %d runs to compare", seeds, maxRuns)
	}
	var all []Scenario
	for _, run := range runs {
		for i := range seeds {
			r := run
			r.Seed += uint64(i)
			all = append(all, r)
		}
	}
	return all, nil
}

// axis is a key and the values that a comparison gives to it.
type axis struct {
	key    key
	values []string
}

func axesOf(vary []string) ([]axis, error) {
	var axes []axis
	for _, v := range vary {
		name, values, ok := strings.Cut(v, "=")
		if !ok {
			return nil, fmt.Errorf("vary = %.64s: it is a key with values, as mixing=all,ring", v)
		}
		k, err := find(name)
		if err != nil {
			return nil, fmt.Errorf("vary = %.64s: %w", v, err)
		}
		a := axis{key: k}
		if a.values, err = split(values); err != nil {
			return nil, fmt.Errorf("vary = %.64s: %w", v, err)
		}
		switch {
		case name == "vary" || name == "about":
			return nil, fmt.Errorf("vary = %.64s: %s cannot be varied", v, name)
		case len(a.values) == 0:
			return nil, fmt.Errorf("vary = %.64s: %s has no values to compare", v, name)
		case slices.ContainsFunc(axes, func(b axis) bool { return b.key.name == name }):
			return nil, fmt.Errorf("vary = %.64s: %s is varied twice", v, name)
		}
		for i, value := range a.values {
			if slices.Contains(a.values[:i], value) {
				return nil, fmt.Errorf("vary = %.64s: %s stands there twice", v, value)
			}
		}
		axes = append(axes, a)
	}
	return axes, nil
}
