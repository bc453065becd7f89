package demo

import (
	_ "embed"
	"encoding/csv"
	"fmt"
	"strings"

	"village/node/api"
	"village/node/home"
	"village/protocol/dataset"
)

// Citation names the authors and the licence of the embedded rows, which the
// licence asks to be shown with them.
const Citation = "Janosi, A., Steinbrunn, W., Pfisterer, M. and Detrano, R. (1988). Heart Disease. " +
	"UCI Machine Learning Repository. https://doi.org/10.24432/C52P4X. CC BY 4.0"

// heart holds the rows of all hospitals; heart.md says where they are from.
//
//go:embed heart.csv
var heart string

// What the rows are called and how they are to be read.
const (
	target = "label"
	split  = "split"
)

var (
	features = []string{"age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak"}
	options  = dataset.Options{
		Name:        "heart disease",
		Target:      target,
		Categorical: []string{"cp", "restecg"},
		// The same levels at every hospital, also those that one of them lacks.
		Levels:      map[string][]string{"cp": {"1", "2", "3", "4"}, "restecg": {"0", "1", "2"}, target: {"0", "1"}},
		Split:       split,
		Positive:    "1",
		Domain:      "health",
		Licence:     "CC-BY-4.0",
		Description: "Patients examined for coronary heart disease. " + Citation,
	}
)

// hospital is one node of the demo.
type hospital struct {
	nation, name string
	center       string        // in the embedded rows
	rows         dataset.Table // its own, raw
	home         *home.Home
	daemon       *daemon
	client       *api.Client
}

func (h *hospital) label() string { return h.nation + " " + h.name }

// hospitals returns the four, each with its own rows.
func hospitals() ([]*hospital, error) {
	all := []*hospital{
		{nation: "USA", name: "cleveland", center: "cleveland"},
		{nation: "HUN", name: "budapest", center: "hungarian"},
		{nation: "CHE", name: "zurich", center: "switzerland"},
		{nation: "USA", name: "long-beach", center: "va"},
	}
	lines, err := csv.NewReader(strings.NewReader(heart)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("the embedded rows: %w", err)
	}
	for _, h := range all {
		h.rows.Columns = lines[0][1:]
		for _, line := range lines[1:] {
			if line[0] == h.center {
				h.rows.Rows = append(h.rows.Rows, line[1:])
			}
		}
	}
	return all, nil
}
