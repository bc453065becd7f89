package scenario

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"village/protocol/dataset"
)

// partition says which node has which rows. One field is set, or none for iid.
type partition struct {
	column string
	alpha  float64 // Dirichlet
	shards int     // a node
}

const partitionForm = "it is column:COL, iid, dirichlet:ALPHA with ALPHA from 0.001 to 1e6, or shards:K with K from 1 to 1000"

// parsePartition reads a partition; "" is iid.
func parsePartition(s string) (p partition, err error) {
	kind, value, _ := strings.Cut(s, ":")
	switch {
	case s == "" || s == "iid":
		return p, nil
	case kind == "column" && value != "":
		p.column = value
		return p, nil
	case kind == "dirichlet":
		if p.alpha, err = strconv.ParseFloat(value, 64); err == nil && p.alpha >= 0.001 && p.alpha <= 1e6 {
			return p, nil
		}
	case kind == "shards":
		if p.shards, err = strconv.Atoi(value); err == nil && p.shards >= 1 && p.shards <= 1000 {
			return p, nil
		}
	}
	return p, errors.New(partitionForm)
}

// dealt are the rows of a node.
type dealt struct {
	training, testing [][]string
}

// rows are what is dealt out: rows with their classes.
type rows struct {
	rows    [][]string
	classes []int
}

// deal parts rows among n nodes. Training and test rows are dealt in the same
// way, so that a node is tested on rows like those that it trains on.
func (p partition) deal(training, testing rows, classes, n int, seed uint64) ([]dealt, error) {
	r := stream("partition", seed)
	training.shuffle(r)
	testing.shuffle(r)
	switch {
	case p.alpha > 0:
		return dirichlet(training, testing, classes, n, p.alpha, r)
	case p.shards > 0:
		return shards(training, testing, n, p.shards, r)
	}
	nodes := make([]dealt, n)
	for i := range nodes {
		nodes[i] = dealt{training: piece(training.rows, i, n), testing: piece(testing.rows, i, n)}
	}
	return nodes, nil
}

func (x rows) shuffle(r *rand.Rand) {
	r.Shuffle(len(x.rows), func(i, j int) {
		x.rows[i], x.rows[j] = x.rows[j], x.rows[i]
		x.classes[i], x.classes[j] = x.classes[j], x.classes[i]
	})
}

// byClass returns the rows of each class, in their order.
func (x rows) byClass(classes int) [][][]string {
	by := make([][][]string, classes)
	for i, row := range x.rows {
		by[x.classes[i]] = append(by[x.classes[i]], row)
	}
	return by
}

// piece is the i-th of n pieces that differ by one row at most.
func piece(rows [][]string, i, n int) [][]string {
	return slices.Clip(rows[i*len(rows)/n : (i+1)*len(rows)/n])
}

// shards sorts the rows by class, cuts them into perNode pieces a node and deals
// these at random (McMahan et al. 2017, section 3).
func shards(training, testing rows, n, perNode int, r *rand.Rand) ([]dealt, error) {
	sorted := func(x rows) [][]string {
		classes := 0
		for _, c := range x.classes {
			classes = max(classes, c+1)
		}
		return slices.Concat(x.byClass(classes)...)
	}
	train, test := sorted(training), sorted(testing)
	total := n * perNode
	if total > len(train) {
		return nil, fmt.Errorf("partition = shards:%d: %d nodes with %d shards each need %d training rows, and there are %d", perNode, n, perNode, total, len(train))
	}
	nodes := make([]dealt, n)
	for at, shard := range r.Perm(total) {
		d := &nodes[at/perNode]
		d.training = append(d.training, piece(train, shard, total)...)
		d.testing = append(d.testing, piece(test, shard, total)...)
	}
	return nodes, nil
}

// attempts is how often a Dirichlet partition is drawn until every node has a
// training row.
const attempts = 200

// dirichlet parts the rows of each class by shares drawn from a symmetric
// Dirichlet distribution (Hsu, Qi, Brown 2019; as Li et al. 2022 do, again
// until no node is without rows).
func dirichlet(training, testing rows, classes, n int, alpha float64, r *rand.Rand) ([]dealt, error) {
	train, test := training.byClass(classes), testing.byClass(classes)
	for range attempts {
		nodes := make([]dealt, n)
		for c := range classes {
			ends := cumulative(n, alpha, r)
			start := 0.0
			for i, end := range ends {
				nodes[i].training = append(nodes[i].training, between01(train[c], start, end)...)
				nodes[i].testing = append(nodes[i].testing, between01(test[c], start, end)...)
				start = end
			}
		}
		if !slices.ContainsFunc(nodes, func(d dealt) bool { return len(d.training) == 0 }) {
			return nodes, nil
		}
	}
	return nil, fmt.Errorf("partition = dirichlet:%s: of %d draws each leaves some of the %d nodes without training rows; use fewer nodes, more rows or a larger ALPHA", number(alpha), attempts, n)
}

// between01 returns the rows from one share of them to another.
func between01(rows [][]string, start, end float64) [][]string {
	at := func(x float64) int { return int(math.Round(x * float64(len(rows)))) }
	return rows[at(start):at(end)]
}

// cumulative draws shares of a symmetric Dirichlet distribution and returns the
// sums of the first one, two and so on, of which the last is 1.
func cumulative(n int, alpha float64, r *rand.Rand) []float64 {
	// A gamma variate of small alpha underflows, its logarithm does not:
	// Gamma(a) is Gamma(a+1) times the a-th root of a uniform variate.
	shares := make([]float64, n)
	for i := range shares {
		shares[i] = math.Log(gamma(alpha+1, r)) + math.Log(1-r.Float64())/alpha
	}
	most, sum := slices.Max(shares), 0.0
	for i, s := range shares {
		sum += math.Exp(s - most)
		shares[i] = sum
	}
	for i := range shares {
		shares[i] /= sum
	}
	return shares
}

// gamma draws a gamma variate of shape a, at least 1, and scale 1 (Marsaglia,
// Tsang 2000).
func gamma(a float64, r *rand.Rand) float64 {
	d := a - 1.0/3
	for {
		x := r.NormFloat64()
		v := 1 + x/math.Sqrt(9*d)
		if v = v * v * v; v > 0 && math.Log(1-r.Float64()) < x*x/2+d-d*v+d*math.Log(v) {
			return d * v
		}
	}
}

// group is the rows of one value of a column.
type group struct {
	value string
	rows  dataset.Table
}

// groupBy parts a table by a column, in the order in which the values come.
func groupBy(t dataset.Table, at int) ([]group, error) {
	places := map[string]int{}
	var groups []group
	for i, row := range t.Rows {
		if row[at] == "" {
			return nil, fmt.Errorf("partition = column:%s: the column is empty in row %d, so that no node has that row; fill it in, or partition otherwise", t.Columns[at], i+1)
		}
		g, ok := places[row[at]]
		if !ok {
			if len(groups) == maxNodes {
				return nil, fmt.Errorf("partition = column:%s: the column has more than %d values", t.Columns[at], maxNodes)
			}
			g = len(groups)
			places[row[at]] = g
			groups = append(groups, group{value: row[at], rows: dataset.Table{Columns: t.Columns}})
		}
		groups[g].rows.Rows = append(groups[g].rows.Rows, row)
	}
	return groups, nil
}
