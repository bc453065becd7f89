// Package dataset turns a table of raw cells into what learning and publishing
// need: a cleaned table that stays at home, a [Manifest] that may be published,
// and, under a task's [Encoding], numbers.
package dataset

// Table is rows of raw text cells under named columns. A missing cell is "".
type Table struct {
	Columns []string
	Rows    [][]string // each as long as Columns
}

// ColumnKind is what the cells of a column are.
type ColumnKind string

const (
	Numeric     ColumnKind = "numeric"
	Categorical ColumnKind = "categorical"
)

// Role is what a column is for.
type Role string

const (
	Feature Role = "feature"
	Target  Role = "target"
	Split   Role = "split"
)

// Options is what an owner says of a file when adding it.
type Options struct {
	Name        string
	Target      string
	Categorical []string            // columns whose numbers are codes
	Levels      map[string][]string // levels to publish whatever their counts; makes the column categorical
	Ignore      []string            // columns to leave out of everything
	Split       string              // column that says train or test; may be ""
	Positive    string              // the target's positive level; may be ""
	Domain      string
	Licence     string
	Description string
}

// Manifest is the payload of a manifest record: all that others learn of a
// dataset. It holds no count under 10 and no level of fewer than 10 rows that
// its owner did not declare.
type Manifest struct {
	Name        string   `cbor:"name" json:"name"`
	Description string   `cbor:"description" json:"description"`
	Domain      string   `cbor:"domain" json:"domain"`
	Licence     string   `cbor:"licence" json:"licence"`
	Nation      string   `cbor:"nation" json:"nation"`   // ISO 3166-1 alpha-3
	Node        string   `cbor:"node" json:"node"`       // display name of the owner's node
	Created     uint64   `cbor:"created" json:"created"` // Unix seconds, for display only
	Rows        uint64   `cbor:"rows" json:"rows"`       // rows after cleaning; 0 stands for 1 to 9
	Target      string   `cbor:"target" json:"target"`
	Positive    string   `cbor:"positive" json:"positive"`
	Columns     []Column `cbor:"columns" json:"columns"` // target, features, split; in the file's order
	Recipe      []string `cbor:"recipe" json:"recipe"`   // the cleaning steps, in order
	Dropped     []Drop   `cbor:"dropped" json:"dropped"`
	// Commitment is SHA-256 over a random salt and the cleaned rows, both of
	// which stay at home. A bare hash would let anyone test guesses of rows.
	Commitment []byte `cbor:"commitment" json:"commitment"`
}

// Column describes a published column.
type Column struct {
	Name   string     `cbor:"name" json:"name"`
	Kind   ColumnKind `cbor:"kind" json:"kind"`
	Role   Role       `cbor:"role" json:"role"`
	Levels []string   `cbor:"levels" json:"levels,omitempty"` // sorted; categorical only
	// Hidden says that further levels exist whose names are not published.
	Hidden bool `cbor:"hidden" json:"hidden,omitempty"`
	// Statistics of a numeric column: mean, population standard deviation; and
	// from 1,000 rows also the 1st and 99th percentile. Empty under 10 rows, and
	// where they would give away how many rows, fewer than 10, hold a value.
	Statistics []float64 `cbor:"statistics" json:"statistics,omitempty"`
}

// Drop counts rows that a cleaning step dropped. A count of 1 to 9 is not
// published: Few is set and Rows is 0.
type Drop struct {
	Reason string `cbor:"reason" json:"reason"`
	Rows   uint64 `cbor:"rows" json:"rows"`
	Few    bool   `cbor:"few" json:"few,omitempty"`
}

// Cleaned is the outcome of [Clean]: what stays at home and what may leave.
type Cleaned struct {
	Table    Table             // the published columns of the kept rows, canonical cells
	Manifest Manifest          // Nation, Node, Created and Commitment are left to the node
	Read     int               // rows read
	Dropped  map[string]int    // exact counts by reason, for the owner alone
	LeftOut  map[string]string // column left out -> why (ignored, empty, text of many levels)
	Hints    []string          // what the owner may want to do better, a sentence each
}

// FeatureSpec is one feature of an encoding.
type FeatureSpec struct {
	Name string     `cbor:"name" json:"name"`
	Kind ColumnKind `cbor:"kind" json:"kind"`
	// Levels of a categorical feature, sorted; the first is dropped, each
	// other one is a 0/1 column.
	Levels []string `cbor:"levels" json:"levels,omitempty"`
}

// Encoding turns rows into numbers, the same at every node. A task carries it.
type Encoding struct {
	Target   string        `cbor:"target" json:"target"`
	Classes  []string      `cbor:"classes" json:"classes"`   // at least two, sorted
	Positive string        `cbor:"positive" json:"positive"` // one of two classes; "" for more
	Features []FeatureSpec `cbor:"features" json:"features"`
}

// Samples are encoded rows: X is row-major with shape N x D, Y holds N class
// indices (empty where the target is not known, as in prediction).
type Samples struct {
	N, D int
	X    []float64
	Y    []int
}

// Moments summarise columns so that nodes can merge them: a count, and per
// column the mean and the sum of squared deviations from it (Chan, Golub,
// LeVeque 1983).
type Moments struct {
	Count uint64    `cbor:"count" json:"count"`
	Mean  []float64 `cbor:"mean" json:"mean"`
	M2    []float64 `cbor:"m2" json:"m2"`
}

// Scaling maps a column x to (x-Mean)/SD. SD is never 0.
type Scaling struct {
	Mean []float64 `cbor:"mean" json:"mean"`
	SD   []float64 `cbor:"sd" json:"sd"`
}
