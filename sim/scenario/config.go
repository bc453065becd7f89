package scenario

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"village/protocol/agree"
	"village/protocol/dataset"
	"village/protocol/mixing"
	"village/protocol/record"
	"village/protocol/task"
	"village/sim"
)

// Defaults is what data says of itself. Keys that a scenario leaves out take it.
type Defaults struct {
	Options   dataset.Options
	Features  []string
	Partition string
	Nations   map[string]string // of the values of the partition's column
}

// defaultNodes are the nodes that share rows of which nobody says how many do.
const defaultNodes = 4

// Config makes the run, or says why it cannot be. Open reads the rows of data
// that is not synthetic, with the names of the columns where the scenario has
// them, and tells what they say of themselves.
func (s Scenario) Config(open func(data string, columns []string) (dataset.Table, Defaults, error)) (sim.Config, error) {
	if err := s.check(); err != nil {
		return sim.Config{}, err
	}
	if s.Data == "" {
		return sim.Config{}, errors.New("data is not set: name a shipped set, a CSV file, or synthetic:ROWSxFEATURES")
	}
	if s.Nodes > task.MaxNodes && s.Mixing == mixing.All {
		return sim.Config{}, tooMany(s.Nodes)
	}
	table, defaults, err := s.read(open)
	if err != nil {
		return sim.Config{}, err
	}
	s, options, err := s.resolve(table, defaults)
	if err != nil {
		return sim.Config{}, err
	}
	t, nodes, err := s.nodes(table, options, defaults.Nations)
	if err != nil {
		return sim.Config{}, err
	}
	cfg := sim.Config{Task: t, Nodes: nodes, Seed: s.Seed, Bandwidth: float64(s.Bandwidth)}
	return cfg, s.happen(&cfg)
}

func (s Scenario) read(open func(string, []string) (dataset.Table, Defaults, error)) (dataset.Table, Defaults, error) {
	rows, features, err := syntheticSize(s.Data)
	if err != nil {
		return dataset.Table{}, Defaults{}, err
	}
	if rows == 0 {
		return open(s.Data, s.Columns)
	}
	if len(s.Columns) > 0 {
		return dataset.Table{}, Defaults{}, fmt.Errorf("columns = %s: synthetic data has names of its own", strings.Join(s.Columns, ","))
	}
	t, d := generate(rows, features, s.Seed)
	return t, d, nil
}

// resolve gives the keys that are left out what the data says of itself, and
// refuses columns that it does not have.
func (s Scenario) resolve(t dataset.Table, d Defaults) (Scenario, dataset.Options, error) {
	o := d.Options
	if s.Target != "" && s.Target != o.Target {
		o.Positive = "" // it was said of another target
	}
	named, err := dataset.Columns(s.Features)
	if err != nil {
		return s, o, fmt.Errorf("features: %w", err)
	}
	// What the scenario says of a column replaces what the data says of it.
	chosen := slices.Concat([]string{s.Target, s.Split, s.Sensitive}, named, s.Categorical)
	ignored := without(o.Ignore, chosen)
	if len(s.Ignore) > 0 {
		ignored = s.Ignore
	}
	fill := func(value *string, or string) {
		if *value == "" {
			*value = or
		}
	}
	fills := func(value *[]string, or, but []string) {
		if len(*value) == 0 {
			*value = without(or, but)
		}
	}
	fill(&s.Target, o.Target)
	fill(&s.Split, o.Split)
	fill(&s.Positive, o.Positive)
	fill(&s.Partition, d.Partition)
	s.Ignore = ignored
	used := slices.Concat([]string{s.Target, s.Split}, ignored)
	if len(s.Features) == 0 {
		for _, f := range d.Features {
			if named, err := dataset.Columns([]string{f}); err != nil || !slices.Contains(used, named[0]) {
				s.Features = append(s.Features, f)
			}
		}
		if named, err = dataset.Columns(s.Features); err != nil {
			return s, o, fmt.Errorf("features: %w", err)
		}
	}
	fills(&s.Categorical, o.Categorical, used[1:])
	if s.Target == "" {
		return s, o, fmt.Errorf("target is not set: name the column to predict; the columns are %s", listed(t.Columns))
	}
	p, err := parsePartition(s.Partition)
	if err != nil {
		return s, o, fmt.Errorf("partition = %s: %w", s.Partition, err)
	}
	for _, use := range []struct {
		key   string
		names []string
	}{
		{"target", []string{s.Target}}, {"features", named}, {"sensitive", []string{s.Sensitive}}, {"categorical", s.Categorical}, {"numeric", s.Numeric}, {"ignore", s.Ignore},
		{"split", []string{s.Split}}, {"partition", []string{p.column}},
	} {
		for _, name := range use.names {
			if name == "" || slices.Contains(t.Columns, name) {
				continue
			}
			if near := nearest(name, t.Columns); near != "" {
				return s, o, fmt.Errorf("%s: the data has no column %.64q; did you mean %q?", use.key, name, near)
			}
			return s, o, fmt.Errorf("%s: the data has no column %.64q; its columns are %s", use.key, name, listed(t.Columns))
		}
	}
	for _, name := range named {
		switch {
		case name == s.Target:
			return s, o, fmt.Errorf("features: column %q is the target", name)
		case name == s.Split:
			return s, o, fmt.Errorf("features: column %q is the split", name)
		case slices.Contains(s.Ignore, name):
			return s, o, fmt.Errorf("features: column %q is ignored, too", name)
		}
	}
	if c := p.column; c != "" && c != s.Target && c != s.Split && c != s.Sensitive && !slices.Contains(named, c) && !slices.Contains(s.Ignore, c) {
		s.Ignore = append(slices.Clip(s.Ignore), c)
		s.Categorical = without(s.Categorical, []string{c})
	}
	o.Target, o.Split, o.Positive, o.Categorical, o.Numeric, o.Ignore = s.Target, s.Split, s.Positive, s.Categorical, s.Numeric, s.Ignore
	if o.Levels = maps.Clone(o.Levels); o.Levels == nil {
		o.Levels = map[string][]string{}
	}
	for _, name := range append(slices.Clip(s.Ignore), s.Split) {
		delete(o.Levels, name)
	}
	fill(&o.Name, "simulation")
	return s, o, nil
}

// without returns the names that are not among others.
func without(names, others []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(others, n) })
}

// listed joins names for an error, the first few of them.
func listed(names []string) string {
	const most = 20
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

func tooMany(nodes int) error {
	return fmt.Errorf("mixing = %s: %d nodes are more than the %d that can mix all with all; use random, ring, torus, regular:K, exponential or base:K",
		mixing.All, nodes, task.MaxNodes)
}

// nodes cleans the rows as the daemon does, makes the task, and gives each node
// its rows.
func (s Scenario) nodes(table dataset.Table, o dataset.Options, nations map[string]string) (task.Task, []sim.Node, error) {
	whole, err := dataset.Clean(table, o)
	if err != nil {
		return task.Task{}, nil, err
	}
	encoding, err := dataset.NewEncoding(o.Target, s.Features, s.Sensitive, []dataset.Manifest{declared(whole)})
	if err != nil {
		return task.Task{}, nil, err
	}
	t := task.New(o.Name, encoding, nil)
	usual := task.Settings{}
	usual.Model = t.Model
	t.Settings = s.Settings.Over(usual)
	if s.Within > 0 {
		t.RoundTime = uint64(max(1, s.Within.Milliseconds()/int64(t.Rounds)))
	}
	if s.Auto > 0 {
		t.SearchAmong(task.Space{}, s.Auto)
	}
	p, err := parsePartition(s.Partition)
	if err != nil {
		return task.Task{}, nil, err
	}
	var nodes []sim.Node
	if p.column != "" {
		nodes, err = s.byColumn(table, p.column, o, nations, t)
	} else {
		nodes, err = s.byChance(whole.Table(), p, t)
	}
	if err == nil {
		err = check(t, len(nodes))
	}
	return t, nodes, err
}

// check refuses a task that so many nodes cannot run.
func check(t task.Task, nodes int) error {
	if _, err := mixing.New(t.Mixing, nodes, t.Seed); err != nil {
		return fmt.Errorf("mixing = %s: %w", t.Mixing, err)
	}
	if t.Tolerance > 0 && t.Mixing != mixing.All {
		// Some are always a round ahead, and no round is everyone's last.
		return fmt.Errorf("tolerance = %s: training ends early only where all mix with all, not with mixing = %s; leave one of them out",
			number(t.Tolerance), t.Mixing)
	}
	if nodes > task.MaxNodes {
		if t.Mixing == mixing.All {
			return tooMany(nodes)
		}
		nodes, t.Mixing = 1, mixing.All // without an agreement any number will do
	}
	t.Nodes = make([]record.NodeID, nodes)
	for i := range t.Nodes {
		binary.BigEndian.PutUint64(t.Nodes[i][:], uint64(i))
	}
	return t.Check()
}

// byColumn gives each value of a column a node, or only those of most rows.
// Each node cleans its own rows.
func (s Scenario) byColumn(table dataset.Table, column string, o dataset.Options, nations map[string]string, t task.Task) ([]sim.Node, error) {
	groups, err := groupBy(table, slices.Index(table.Columns, column))
	if err != nil {
		return nil, err
	}
	if s.Nodes > len(groups) {
		return nil, fmt.Errorf("nodes = %d: column %s has %d values, each of which is one node", s.Nodes, column, len(groups))
	}
	if s.Nodes > 0 {
		most := slices.Clone(groups)
		slices.SortStableFunc(most, func(a, b group) int { return len(b.rows.Rows) - len(a.rows.Rows) })
		kept := map[string]bool{}
		for _, g := range most[:s.Nodes] {
			kept[g.value] = true
		}
		groups = slices.DeleteFunc(groups, func(g group) bool { return !kept[g.value] })
	}
	if len(groups) > task.MaxNodes && s.Mixing == mixing.All {
		return nil, tooMany(len(groups))
	}
	// A site that lacks a class declares it none the less.
	if len(t.Encoding.Classes) == 0 {
		o.Numeric = append(slices.Clip(o.Numeric), o.Target)
	} else {
		o.Levels[o.Target] = t.Encoding.Classes
	}
	var nodes []sim.Node
	for _, g := range groups {
		if err := task.CheckName(g.value); err != nil {
			return nil, fmt.Errorf("partition = column:%s: the value %.64q cannot name a node: %w", column, g.value, err)
		}
		cleaned, err := dataset.Clean(g.rows, o)
		if err != nil {
			return nil, fmt.Errorf("partition = column:%s: %s: %w", column, g.value, err)
		}
		complete, _, _ := t.Encoding.Complete(cleaned.Table(), true)
		training, testing, err := t.Encoding.Divide(complete, o.Split, t.Seed)
		if err != nil {
			return nil, fmt.Errorf("partition = column:%s: %s: %w", column, g.value, err)
		}
		nodes = append(nodes, s.node(g.value, nationOf(g.value, nations), cleaned.Rows.Columns, dealt{training.Rows, testing.Rows}))
	}
	return nodes, nil
}

// byChance deals the rows to nodes of nations of the world.
func (s Scenario) byChance(table dataset.Table, p partition, t task.Task) ([]sim.Node, error) {
	if s.Nodes == 0 {
		s.Nodes = defaultNodes
	}
	if len(t.Encoding.Classes) == 0 && (p.alpha > 0 || p.shards > 0) {
		return nil, fmt.Errorf("partition = %s: it deals by class, and the target %s is numeric; use iid or column:COL", s.Partition, t.Encoding.Target)
	}
	table, _, _ = t.Encoding.Complete(table, true)
	training, testing, err := t.Encoding.Divide(table, s.Split, t.Seed)
	if err != nil {
		return nil, err
	}
	if s.Nodes > len(training.Rows) {
		return nil, fmt.Errorf("nodes = %d: they are more than the %d training rows of the %d rows left after cleaning, and each node needs one", s.Nodes, len(training.Rows), len(table.Rows))
	}
	target := slices.Index(table.Columns, t.Encoding.Target)
	classed := func(side dataset.Table) rows {
		x := rows{rows: side.Rows, classes: make([]int, len(side.Rows))}
		for i, row := range side.Rows {
			x.classes[i] = slices.Index(t.Encoding.Classes, row[target])
		}
		return x
	}
	parts, err := p.deal(classed(training), classed(testing), len(t.Encoding.Classes), s.Nodes, s.Seed)
	if err != nil {
		return nil, err
	}
	nations, names := dealNations(s.Nodes, s.Seed)
	nodes := make([]sim.Node, s.Nodes)
	for i, d := range parts {
		nodes[i] = s.node(names[i], nations[i], table.Columns, d)
	}
	return nodes, nil
}

// node is a node with as many of its training rows as it may have.
func (s Scenario) node(name, nation string, columns []string, d dealt) sim.Node {
	if s.Rows > 0 && s.Rows < len(d.training) {
		// A draw, for rows in a file are often in some order.
		d.training = slices.Clone(d.training)
		stream("rows "+name, s.Seed).Shuffle(len(d.training), func(i, j int) {
			d.training[i], d.training[j] = d.training[j], d.training[i]
		})
		d.training = d.training[:s.Rows]
	}
	return sim.Node{
		Name: name, Nation: nation, Split: s.Split, Step: s.Step,
		Rows: dataset.Table{Columns: columns, Rows: slices.Concat(d.training, d.testing)},
	}
}

// happen writes into a run what happens to its messages and nodes.
func (s Scenario) happen(cfg *sim.Config) error {
	n := len(cfg.Nodes)
	cfg.Faults = sim.Faults{Loss: s.Loss, Duplicate: s.Duplicate, Restarts: s.Restarts, Down: s.Down}
	cfg.Delay = sim.Delay{Min: s.Latency.Min, Max: s.Latency.Max}
	if s.Latency.Distance {
		nations := make([]string, n)
		for i, node := range cfg.Nodes {
			nations[i] = node.Nation
		}
		cfg.Delay = sim.Delay{Min: leastDelay, Max: mostDelay, Between: between(nations)}
	}
	if len(s.Apart) > 0 && n < 2 {
		return errors.New("apart: one node alone cannot be cut off from others")
	}
	cfg.Faults.Apart = apart(s.Apart, n, s.Seed)
	for _, i := range draw(n, s.Late.Share, "late", s.Seed) {
		cfg.Nodes[i].Enrols = s.Late.At
	}
	ends := make([]bool, n) // before the task does, or without anybody waiting for it
	for _, i := range draw(n, s.Leave.Share, "leave", s.Seed) {
		cfg.Nodes[i].Leaves, ends[i] = s.Leave.At, true
	}
	step := float64(s.Step) * max(s.Slow.Times, 1)
	if step > float64(maxTime) {
		return fmt.Errorf("slow = %s: a step of %s times longer takes more than the 30 days after which a run ends", text(&s.Slow), short(s.Step))
	}
	for _, i := range draw(n, s.Slow.Share, "slow", s.Seed) {
		cfg.Nodes[i].Step = time.Duration(step)
	}
	hostile := draw(n, s.Hostile.Share, "hostile", s.Seed)
	for _, i := range hostile {
		cfg.Nodes[i].Attack, ends[i] = s.Hostile.Attack, true
	}
	dead := draw(n, s.Die.Share, "die", s.Seed)
	if left := n - len(dead); n <= task.MaxNodes && left < agree.Quorum(n) {
		return fmt.Errorf("die = %s: of %d nodes %d stay, and %d must agree on the model", text(&s.Die), n, left, agree.Quorum(n))
	}
	for _, i := range dead {
		cfg.Faults.Outages = append(cfg.Faults.Outages, sim.Outage{Node: i, At: s.Die.At})
		ends[i] = true
	}
	if left := n - len(hostile); s.Hostile.Attack == sim.NaN && left > 0 && n <= task.MaxNodes && left < agree.Quorum(n) {
		return fmt.Errorf("hostile = %s: of %d nodes %d publish what can be mixed, and a model is made of %d", text(&s.Hostile), n, left, agree.Quorum(n))
	}
	if !slices.Contains(ends, false) {
		return fmt.Errorf("leave = %s, die = %s, hostile = %s: of %d nodes none is left to come to an end",
			text(&s.Leave), text(&s.Die), text(&s.Hostile), n)
	}
	return nil
}

// apart tells who is cut off from whom, or returns nil where nobody ever is.
func apart(cuts []Cut, n int, seed uint64) func(time.Duration, int, int) bool {
	if len(cuts) == 0 {
		return nil
	}
	off := make([][]bool, len(cuts)) // of each cut, by place of the node
	for i, c := range cuts {
		off[i] = make([]bool, n)
		chosen := draw(n, c.Share, fmt.Sprintf("apart %d", i), seed)
		for _, j := range chosen[:min(len(chosen), n-1)] {
			off[i][j] = true
		}
	}
	return func(now time.Duration, from, to int) bool {
		for i, c := range cuts {
			if now >= c.From && now < c.To && off[i][from] != off[i][to] {
				return true
			}
		}
		return false
	}
}

// draw chooses a share of n nodes, at least one unless the share is 0, and
// returns their places in order.
func draw(n int, share float64, what string, seed uint64) []int {
	if share == 0 {
		return nil
	}
	count := max(1, int(math.Round(share*float64(n))))
	chosen := stream(what, seed).Perm(n)[:count]
	slices.Sort(chosen)
	return chosen
}

// stream is a source of random numbers for one use of a seed.
func stream(what string, seed uint64) *rand.Rand {
	b := binary.BigEndian.AppendUint64([]byte("village scenario "+what+" "), seed)
	return rand.New(rand.NewChaCha8(sha256.Sum256(b)))
}

// declared is the manifest with every level named and counted: nothing leaves this
// machine, so that rare levels need not be hidden.
func declared(c dataset.Cleaned) dataset.Manifest {
	m := c.Manifest
	m.Columns = slices.Clone(m.Columns)
	for i := range m.Columns {
		column := &m.Columns[i]
		if column.Kind != dataset.Categorical {
			continue
		}
		cells := c.Rows.Cells[slices.Index(c.Rows.Columns, column.Name)]
		rows := map[string]uint64{}
		for _, level := range column.Levels {
			rows[level] = 0
		}
		next := cells.Read()
		for range cells.Len() {
			if cell := next(); cell != "" {
				rows[cell]++
			}
		}
		column.Levels, column.Counts, column.Hidden = slices.Sorted(maps.Keys(rows)), nil, false
		for _, level := range column.Levels {
			column.Counts = append(column.Counts, rows[level])
		}
	}
	return m
}
