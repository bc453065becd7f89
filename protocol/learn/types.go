package learn

// Kind names a family of models.
type Kind string

// Spec is the shape of a model.
type Spec struct {
	Kind    Kind `cbor:"kind" json:"kind"`
	Inputs  int  `cbor:"inputs" json:"inputs"`
	Classes int  `cbor:"classes" json:"classes"`
}

type Report struct{}
