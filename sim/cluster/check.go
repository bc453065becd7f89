package cluster

import (
	"errors"
	"fmt"
	"slices"

	"village/node/home"
	"village/node/tasks"
	"village/protocol/dataset"
	"village/protocol/member"
	"village/protocol/record"
	"village/protocol/task"
	"village/sim"
)

// Check says what real nodes cannot do of a run.
func Check(cfg sim.Config) error {
	_, _, err := check(cfg)
	return err
}

// check refuses what real nodes cannot do, and takes in every node's rows as its
// daemon will.
func check(cfg sim.Config) ([]dataset.Cleaned, []*member.Site, error) {
	switch n := len(cfg.Nodes); {
	case n == 0:
		return nil, nil, errors.New("a run needs at least one node")
	case n > task.MaxNodes:
		return nil, nil, fmt.Errorf("nodes = %d: at most %d real nodes run in one process; simulate more", n, task.MaxNodes)
	}
	t := cfg.Task
	t.Nodes = make([]record.NodeID, len(cfg.Nodes)) // as many as there will be
	for i := range t.Nodes {
		t.Nodes[i][0], t.Nodes[i][1] = byte(i>>8), byte(i)
	}
	if err := t.Check(); err != nil {
		return nil, nil, err
	}
	f := cfg.Faults
	switch {
	case len(f.Liars) > 0:
		return nil, nil, errors.New("hostile: real nodes do not lie; simulate those that do")
	case f.Torn > 0:
		return nil, nil, errors.New("torn: a real node cannot be made to crash while it publishes; simulate that, or let nodes crash at any time with restarts")
	case cfg.Pull > 0:
		return nil, nil, errors.New("pull: real nodes choose themselves when to compare what they hold; simulate that, or leave it out")
	case cfg.Delay.Min < 0 || cfg.Delay.Max != 0 && cfg.Delay.Max < cfg.Delay.Min:
		return nil, nil, fmt.Errorf("latency: %v to %v is no span of time", cfg.Delay.Min, cfg.Delay.Max)
	}
	for _, o := range f.Outages {
		if o.Node < 0 || o.Node >= len(cfg.Nodes) {
			return nil, nil, fmt.Errorf("an outage is at node %d of %d", o.Node+1, len(cfg.Nodes))
		}
	}
	tables := make([]dataset.Cleaned, len(cfg.Nodes))
	sites := make([]*member.Site, len(cfg.Nodes))
	for i, n := range cfg.Nodes {
		switch {
		case n.Attack != "":
			return nil, nil, fmt.Errorf("hostile: real nodes attack nobody, and %s would (%s); simulate that", n.Name, n.Attack)
		case n.Step != cfg.Nodes[0].Step:
			return nil, nil, fmt.Errorf("slow: real nodes take as long as they take, and %s would take %v for its local steps, not %v as %s; simulate that",
				n.Name, n.Step, cfg.Nodes[0].Step, cfg.Nodes[0].Name)
		}
		var err error
		if tables[i], sites[i], err = clean(n, t); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", n.Name, err)
		}
	}
	return tables, sites, nil
}

// clean cleans a node's rows as its daemon does when they are added.
func clean(n sim.Node, t task.Task) (dataset.Cleaned, *member.Site, error) {
	var none dataset.Cleaned
	if err := home.CheckName(n.Name); err != nil {
		return none, nil, err
	}
	if n.Nation != "" {
		if _, err := home.CheckNation(n.Nation); err != nil {
			return none, nil, err
		}
	}
	o := dataset.Options{
		Name: t.Name, Target: t.Encoding.Target, Split: n.Split, Positive: t.Encoding.Positive,
		Levels: map[string][]string{},
	}
	if len(t.Encoding.Classes) == 0 {
		o.Numeric = []string{t.Encoding.Target}
	} else {
		o.Levels[t.Encoding.Target] = t.Encoding.Classes
	}
	if t.Encoding.Sensitive != "" {
		o.Levels[t.Encoding.Sensitive] = slices.Clone(t.Encoding.Groups)
	}
	for _, f := range t.Encoding.Features {
		if f.Kind == dataset.Categorical { // of which one may have several features
			o.Levels[f.Name] = slices.Concat(o.Levels[f.Name], f.Levels)
		}
	}
	cleaned, err := dataset.Clean(n.Rows, o)
	if err != nil {
		return none, nil, err
	}
	kept := cleaned.Rows.Rows()
	switch {
	case kept < len(n.Rows.Rows):
		return none, nil, fmt.Errorf("a daemon would keep %d of its %d rows (%s); clean them first, or simulate the run",
			kept, len(n.Rows.Rows), reasons(cleaned.Dropped))
	case kept < tasks.FewestRows:
		return none, nil, fmt.Errorf("it has %d rows, and a daemon takes part with %d at least, for the statistics of fewer would tell the rows; use fewer nodes or more rows, or simulate the run",
			kept, tasks.FewestRows)
	}
	site, err := member.NewSite(record.NodeID{}, record.CID{}, t, cleaned.Table(), n.Split, nil)
	return cleaned, site, err
}

func reasons(dropped map[string]int) string {
	var list []string
	for reason, n := range dropped {
		list = append(list, fmt.Sprintf("%s: %d", reason, n))
	}
	slices.Sort(list)
	return fmt.Sprint(list)
}
