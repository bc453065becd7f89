package task

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"

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
	// Personal is the part that is each node's own, and zero here.
	Personal learn.Part `json:"personal,omitempty"`
	// Parent is the model that this one goes on from.
	Parent *record.CID `json:"parent,omitempty"`
	// Candidate is the one that a search has chosen.
	Candidate int `json:"candidate,omitempty"`
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
	tensors, metadata, err := safetensors.Unmarshal(b, safetensors.Limits{Tensors: 2 * (learn.MaxLayers + 1), Dims: 2})
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
	if columns := (Task{Encoding: m.Encoding}).Columns(); !fits(m.Scaling, columns) {
		return fmt.Errorf("the scaling is not one of %d columns", columns)
	}
	return nil
}

// Predict returns the probability of every class for each row of a table of raw
// cells, shape rows x classes, or, where the target is numeric, its value, shape
// rows x 1. The target's column is not needed.
func (m Model) Predict(t dataset.Table) ([][]float64, error) {
	samples, err := m.Encoding.EncodeFeatures(t)
	if err != nil {
		return nil, err
	}
	m.Scaling.Apply(samples)
	width := m.Spec.Width()
	flat := m.Spec.Predict(m.Params, samples)
	if m.Spec.Classes == 0 {
		mean, sd := m.Scaling.Mean[samples.D], m.Scaling.SD[samples.D]
		for i, v := range flat {
			flat[i] = min(max(v*sd+mean, -math.MaxFloat64), math.MaxFloat64)
		}
	}
	rows := make([][]float64, samples.N)
	for i := range rows {
		rows[i] = flat[i*width : (i+1)*width]
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

// Weights returns the weights of a regression, shape outputs x encoded columns, and
// its biases. They are for scaled features. A perceptron has none such.
func (m Model) Weights() (weight [][]float64, bias []float64) {
	if m.Spec.Kind == learn.MLP {
		return nil, nil
	}
	outputs := len(m.Params) / (m.Spec.Inputs + 1)
	for o := range outputs {
		weight = append(weight, m.Params[o*m.Spec.Inputs:(o+1)*m.Spec.Inputs])
	}
	return weight, m.Params[outputs*m.Spec.Inputs:]
}
