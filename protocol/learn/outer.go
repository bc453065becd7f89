package learn

// Outer is a rule by which the averaged change of a round becomes the next
// start: an optimizer whose gradient is that change (Reddi et al. 2021).
type Outer string

// The rules.
const (
	Plain     Outer = ""         // the change as it is: FedAvg
	Nesterov  Outer = "nesterov" // momentum 0.9
	OuterAdam Outer = "adam"     // FedAdam: 0.9, 0.99, 1e-3
	OuterYogi Outer = "yogi"     // FedYogi, as FedAdam
)
