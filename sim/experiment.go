package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"village/protocol/dataset"
	"village/protocol/task"
)

// Experiment is a federation cut out of one table.
type Experiment struct {
	Table   dataset.Table
	Options dataset.Options // how the table is cleaned; Name may be empty
	// Features of the model; none means all that are left.
	Features []string
	// Partition says which node has which rows: "iid" deals them out at random
	// to Nodes nodes, "column:COL" gives each value of a column a node.
	Partition string
	Nodes     int
	Seed      uint64
	Faults    Faults
	// Tune changes the task from its defaults; may be nil.
	Tune func(*task.Task)
}

// The partitions.
const (
	IID      = "iid"
	ByColumn = "column:"
)

// Config makes a run of the experiment, or says why it cannot be.
func (e Experiment) Config() (Config, error) {
	if e.Faults.Loss < 0 || e.Faults.Loss >= 1 {
		return Config{}, fmt.Errorf("a loss of %g cannot be; it is at least 0 and below 1", e.Faults.Loss)
	}
	options := e.Options
	column, byColumn := strings.CutPrefix(e.Partition, ByColumn)
	if !byColumn && e.Partition != IID {
		return Config{}, fmt.Errorf("partition %q is not known; use %s or %sCOL", e.Partition, IID, ByColumn)
	}
	if options.Name == "" {
		options.Name = "simulated"
	}
	var parts []part
	if byColumn {
		at := slices.Index(e.Table.Columns, column)
		if at < 0 {
			return Config{}, fmt.Errorf("the data has no column %q to partition by; its columns are %s", column, strings.Join(e.Table.Columns, ", "))
		}
		parts = partsBy(e.Table, at)
		options.Ignore = append(slices.Clone(options.Ignore), column)
	}
	whole, err := dataset.Clean(e.Table, options)
	if err != nil {
		return Config{}, err
	}
	encoding, err := dataset.NewEncoding(options.Target, e.Features, []dataset.Manifest{declared(whole)})
	if err != nil {
		return Config{}, err
	}
	t := task.New(options.Name, encoding, nil)
	t.Seed = e.Seed
	if e.Tune != nil {
		e.Tune(&t)
	}
	cfg := Config{Task: t, Seed: e.Seed, Faults: e.Faults}
	if byColumn {
		for _, p := range parts {
			cleaned, err := dataset.Clean(p.rows, options)
			if err != nil {
				return Config{}, fmt.Errorf("%s %s: %w", column, p.name, err)
			}
			cfg.Nodes = append(cfg.Nodes, Node{Name: p.name, Rows: cleaned.Table, Split: options.Split})
		}
	} else if cfg.Nodes, err = deal(whole.Table, e.Nodes, e.Seed, options.Split); err != nil {
		return Config{}, err
	}
	if len(cfg.Nodes) > task.MaxNodes {
		return Config{}, fmt.Errorf("%d nodes are more than the %d that mix all with all", len(cfg.Nodes), task.MaxNodes)
	}
	return cfg, nil
}

// part is the rows of one value of a column.
type part struct {
	name string
	rows dataset.Table
}

func partsBy(t dataset.Table, at int) []part {
	places := map[string]int{}
	var parts []part
	for _, row := range t.Rows {
		i, ok := places[row[at]]
		if !ok {
			i = len(parts)
			places[row[at]] = i
			parts = append(parts, part{name: row[at], rows: dataset.Table{Columns: t.Columns}})
		}
		parts[i].rows.Rows = append(parts[i].rows.Rows, row)
	}
	return parts
}

// deal shuffles the rows and gives each node as many, but for one.
func deal(t dataset.Table, nodes int, seed uint64, split string) ([]Node, error) {
	if nodes < 1 {
		return nil, errors.New("a run needs at least one node")
	}
	if nodes > len(t.Rows) {
		return nil, fmt.Errorf("%d nodes cannot share %d rows", nodes, len(t.Rows))
	}
	rows := slices.Clone(t.Rows)
	rand.New(rand.NewChaCha8(digest("deal", seed))).Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	list := make([]Node, nodes)
	for i := range list {
		list[i] = Node{
			Name: fmt.Sprintf("node %d", i+1), Split: split,
			Rows: dataset.Table{Columns: t.Columns, Rows: rows[i*len(rows)/nodes : (i+1)*len(rows)/nodes]},
		}
	}
	return list, nil
}

// declared is the manifest with every level named: nothing leaves this machine,
// so that rare levels need not be hidden.
func declared(c dataset.Cleaned) dataset.Manifest {
	m := c.Manifest
	m.Columns = slices.Clone(m.Columns)
	for i := range m.Columns {
		if m.Columns[i].Kind != dataset.Categorical {
			continue
		}
		at := slices.Index(c.Table.Columns, m.Columns[i].Name)
		levels := map[string]bool{}
		for _, l := range m.Columns[i].Levels {
			levels[l] = true
		}
		for _, row := range c.Table.Rows {
			if l := row[at]; !levels[l] {
				levels[l] = true
				m.Columns[i].Levels = append(slices.Clip(m.Columns[i].Levels), l)
			}
		}
		m.Columns[i].Hidden = false
	}
	return m
}
