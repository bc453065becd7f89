package api

// SimAverage is the answer of village sim average (made without a daemon).
type SimAverage struct {
	Schema    string          `json:"schema"`
	Nodes     int             `json:"nodes"`
	Dim       int             `json:"dim"` // parameters of each vector
	Seed      uint64          `json:"seed"`
	Target    float64         `json:"target_error"`
	Rounds    int             `json:"max_rounds"`
	Loss      float64         `json:"loss"`
	Duplicate float64         `json:"duplicate"`
	Restart   float64         `json:"restart"`
	Apart     int             `json:"apart_rounds"`
	Rules     []AveragingRule `json:"rules"`
	Missing   []string        `json:"missing,omitempty"` // rules that were interrupted
}

// AveragingRule is what one rule came to. Errors are ratios of Euclidean norms:
// how far the estimates of all nodes are from the mean, over how far their
// vectors are.
type AveragingRule struct {
	Rule     string           `json:"rule"`
	Rounds   int              `json:"rounds"`
	Messages float64          `json:"messages_per_node"`
	Vectors  float64          `json:"vectors_per_node"` // sent
	Error    float64          `json:"error"`            // at the end
	Reached  bool             `json:"reached"`          // the target
	Curve    []AveragingPoint `json:"curve"`            // at most 100 points, from the start to the end
}

// AveragingPoint is the error after so many vectors sent by a node on average.
type AveragingPoint struct {
	Vectors float64 `json:"vectors"`
	Error   float64 `json:"error"`
}
