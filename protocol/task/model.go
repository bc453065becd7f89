package task

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/record"
	"village/protocol/safetensors"
)

// modelKey is the metadata key under which a model file says what it needs to
// predict from raw columns.
const modelKey = "village.model/v1"

// Model is a sealed model: all that predicting from raw columns needs, and the
// updates that it is the weighted mean of.
type Model struct {
	Task     record.CID       `json:"task"`
	Name     string           `json:"name"`
	Round    uint64           `json:"round"` // of the final set
	Roster   record.CID       `json:"roster"`
	Encoding dataset.Encoding `json:"encoding"`
	Scaling  dataset.Scaling  `json:"scaling"`
	Spec     learn.Spec       `json:"spec"`
	Parts    []Part           `json:"parts"` // the final set
	Out      []Out            `json:"out"`   // the named nodes that are not in it, and why
	Params   []float64        `json:"-"`
}

// Marshal writes the model as one safetensors file: the tensors "bias" [outputs]
// and "weight" [outputs, inputs], float64, and in the metadata a JSON document
// with everything else. The same model gives the same bytes.
func (m Model) Marshal() ([]byte, error) {
	document, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return safetensors.Marshal(m.Spec.Tensors(m.Params), map[string]string{modelKey: string(document)})
}

// UnmarshalModel reads what [Model.Marshal] wrote and refuses anything else.
func UnmarshalModel(b []byte) (Model, error) {
	tensors, metadata, err := safetensors.Unmarshal(b, safetensors.Limits{Tensors: 2, Dims: 2})
	if err != nil {
		return Model{}, err
	}
	document, ok := metadata[modelKey]
	if !ok || len(metadata) != 1 {
		return Model{}, errors.New("a safetensors file that is not a Village model")
	}
	var m Model
	if err := json.Unmarshal([]byte(document), &m); err != nil {
		return Model{}, fmt.Errorf("model: %w", err)
	}
	if err := m.check(); err != nil {
		return Model{}, fmt.Errorf("model: %w", err)
	}
	if m.Params, err = m.Spec.FromTensors(tensors); err != nil {
		return Model{}, fmt.Errorf("model: %w", err)
	}
	if again, err := m.Marshal(); err != nil || !bytes.Equal(again, b) {
		return Model{}, errors.New("model: not in canonical form")
	}
	return m, nil
}

func (m Model) check() error {
	if err := CheckName(m.Name); err != nil {
		return err
	}
	if err := m.Encoding.Check(); err != nil {
		return err
	}
	if err := m.Spec.Check(); err != nil {
		return err
	}
	width := m.Encoding.Width()
	if m.Spec.Inputs != width || m.Spec.Classes != len(m.Encoding.Classes) {
		return fmt.Errorf("the model has %d inputs, its encoding %d columns", m.Spec.Inputs, width)
	}
	if len(m.Scaling.Mean) != width || len(m.Scaling.SD) != width {
		return fmt.Errorf("the scaling has %d columns, not %d", len(m.Scaling.Mean), width)
	}
	for _, sd := range m.Scaling.SD {
		if !(sd > 0) {
			return fmt.Errorf("a standard deviation of %g", sd)
		}
	}
	return nil
}

// Predict returns the probability of every class for each row of a table of raw
// cells, shape rows x classes. The target's column is not needed.
func (m Model) Predict(t dataset.Table) ([][]float64, error) {
	samples, err := m.Encoding.EncodeFeatures(t)
	if err != nil {
		return nil, err
	}
	m.Scaling.Apply(samples)
	flat := m.Spec.Predict(m.Params, samples)
	rows := make([][]float64, samples.N)
	for i := range rows {
		rows[i] = flat[i*m.Spec.Classes : (i+1)*m.Spec.Classes]
	}
	return rows, nil
}

// Class is the index of the class that a row of probabilities predicts; of
// equal ones the first.
func (m Model) Class(probabilities []float64) int {
	best := 0
	for c, p := range probabilities {
		if p > probabilities[best] {
			best = c
		}
	}
	return best
}

// Weights returns the weights, shape outputs x encoded columns, and the biases.
// They are for scaled features.
func (m Model) Weights() (weight [][]float64, bias []float64) {
	outputs := len(m.Params) / (m.Spec.Inputs + 1)
	for o := range outputs {
		weight = append(weight, m.Params[o*m.Spec.Inputs:(o+1)*m.Spec.Inputs])
	}
	return weight, m.Params[outputs*m.Spec.Inputs:]
}
