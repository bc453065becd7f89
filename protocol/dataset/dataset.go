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
	Numeric     []string            // columns that are numeric however few values they have
	Levels      map[string][]string // levels to publish whatever their counts; makes the column categorical
	Ignore      []string            // columns to leave out of everything
	Split       string              // column that says train or test; may be ""
	Positive    string              // the target's positive level; may be ""
	Units       map[string]string   // of numeric columns, as their owner writes them
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
	Unit   string     `cbor:"unit,omitempty" json:"unit,omitempty"` // of a numeric column; "" where its owner names none
	Levels []string   `cbor:"levels" json:"levels,omitempty"`       // sorted; categorical only
	// Hidden says that further levels exist whose names are not published.
	Hidden bool `cbor:"hidden" json:"hidden,omitempty"`
	// Statistics of a numeric column: mean, population standard deviation; and
	// from 1,000 rows also the 1st and 99th percentile. Empty under 10 rows, and
	// where they would give away how many rows, fewer than 10, hold a value.
	Statistics []float64 `cbor:"statistics" json:"statistics,omitempty"`
	// Deciles of a numeric column, nine of them, each to three significant
	// digits: from 100 rows, where Statistics are published.
	Deciles []float64 `cbor:"deciles,omitempty" json:"deciles,omitempty"`
	// Counts of rows by level, from 100 rows: 0 where a level has fewer than
	// ten, or where its count would tell that of another.
	Counts []uint64 `cbor:"counts,omitempty" json:"counts,omitempty"`
	// Missing counts the rows whose cell is missing, where they are ten or
	// more; Gaps says that there are some.
	Missing uint64 `cbor:"missing,omitempty" json:"missing,omitempty"`
	Gaps    bool   `cbor:"gaps,omitempty" json:"gaps,omitempty"`
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
	Rows     Packed            // the published columns of the kept rows, canonical cells
	Manifest Manifest          // Nation, Node, Created and Commitment are left to the node
	Read     int               // rows read
	Dropped  map[string]int    // exact counts by reason, for the owner alone
	LeftOut  map[string]string // column left out -> why (ignored, empty, text of many levels)
	Hints    []string          // what the owner may want to do better, a sentence each
}

// Table is the rows, unpacked.
func (c Cleaned) Table() Table { return c.Rows.Table() }

// FeatureSpec is one feature of an encoding: a column, and the recipe by which
// its cells become numbers. All of a recipe are constants, agreed on in the task,
// so that every node does the same. The steps are applied in the order of the
// fields.
type FeatureSpec struct {
	Name string     `cbor:"name" json:"name"` // of the column
	Kind ColumnKind `cbor:"kind" json:"kind"`
	// Levels of a categorical feature, sorted; the first is dropped, each
	// other one is a 0/1 column. Of an Ordinal one, in their order from lowest to
	// highest: they are one column that counts from 0.
	Levels  []string `cbor:"levels" json:"levels,omitempty"`
	Ordinal bool     `cbor:"ordinal,omitempty" json:"ordinal,omitempty"`
	Unit    string   `cbor:"unit,omitempty" json:"unit,omitempty"` // that datasets must have, if any

	Absent    []string `cbor:"absent,omitempty" json:"absent,omitempty"`       // codes, canonical, that stand for a missing cell
	Fill      string   `cbor:"fill,omitempty" json:"fill,omitempty"`           // what takes the place of a missing cell, a number or level; "" = the row is left out
	Indicator bool     `cbor:"indicator,omitempty" json:"indicator,omitempty"` // one more column, the last: 1 where the cell was missing
	Other     string   `cbor:"other,omitempty" json:"other,omitempty"`         // what an unknown level counts as; "" = it is refused

	Clip   []float64 `cbor:"clip,omitempty" json:"clip,omitempty"`     // lower and upper bound of a numeric feature; none = no bounds
	Times  float64   `cbor:"times,omitempty" json:"times,omitempty"`   // factor; 0 = none
	Abs    bool      `cbor:"abs,omitempty" json:"abs,omitempty"`       // absolute value
	Log    bool      `cbor:"log,omitempty" json:"log,omitempty"`       // log(1+x)
	Period float64   `cbor:"period,omitempty" json:"period,omitempty"` // two columns, sin and cos of 2πx/Period; 0 = not cyclic
}

// Encoding turns rows into numbers, the same at every node. A task carries it.
type Encoding struct {
	Target string `cbor:"target" json:"target"`
	// Classes are at least two, sorted; none where the target is numeric.
	Classes  []string      `cbor:"classes" json:"classes"`
	Unit     string        `cbor:"unit,omitempty" json:"unit,omitempty"` // of a numeric target that datasets must have, if any
	Positive string        `cbor:"positive" json:"positive"`             // one of two classes; "" for more or none
	Features []FeatureSpec `cbor:"features" json:"features"`
	// Sensitive is a categorical column by whose levels, Groups, evaluations
	// are told apart; "" = none. It is a feature only if it is among Features.
	Sensitive string   `cbor:"sensitive,omitempty" json:"sensitive,omitempty"`
	Groups    []string `cbor:"groups,omitempty" json:"groups,omitempty"`
}

// Samples are encoded rows: X is row-major with shape N x D. Y holds N class
// indices, or, where the target is numeric, T its N values; both are empty where
// the target is not known, as in prediction. G holds N indices of Groups, -1
// where a row is of none; empty without a sensitive column.
type Samples struct {
	N, D int
	X    []float64
	Y    []int
	T    []float64
	G    []int
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
