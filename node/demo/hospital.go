package demo

import (
	"context"
	_ "embed"
	"encoding/csv"
	"fmt"
	"slices"
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
	port         int           // that it listens on
	home         *home.Home
	daemon       *daemon
	client       *api.Client
	lost         bool // the daemon is gone for good
}

func (h *hospital) label() string { return h.nation + " " + h.name }

// address is where the node is to be dialled, at a port of this machine.
func (h *hospital) address(port int) string { return tcp(port) + "/p2p/" + h.home.ID.String() }

// launch starts the daemon, waits until it serves, and connects to it.
func (h *hospital) launch(ctx context.Context, program string, lost func(error)) (err error) {
	if h.daemon, err = start(ctx, program, h.name, h.home.Dir, lost); err != nil {
		return err
	}
	select {
	case <-h.daemon.ready:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	h.client, err = api.Dial(h.home.Dir)
	return err
}

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

// halves returns two hospitals for each, with half of the rows each. Row by row
// of the same label and split goes to one and the other, so that they are alike.
func halves(all []*hospital) []*hospital {
	var list []*hospital
	for _, h := range all {
		var pair [2]*hospital
		for i, letter := range []string{"-a", "-b"} {
			pair[i] = &hospital{nation: h.nation, name: h.name + letter, center: h.center, rows: dataset.Table{Columns: h.rows.Columns}}
		}
		label, divided := slices.Index(h.rows.Columns, target), slices.Index(h.rows.Columns, split)
		dealt := map[[2]string]int{}
		for _, row := range h.rows.Rows {
			like := [2]string{row[label], row[divided]}
			half := pair[dealt[like]%2]
			half.rows.Rows = append(half.rows.Rows, row)
			dealt[like]++
		}
		list = append(list, pair[:]...)
	}
	return list
}
