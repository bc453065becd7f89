package demo

import (
	"context"
	"slices"

	"village/node/api"
	"village/node/home"
	"village/node/ingest/sets"
	"village/protocol/dataset"
)

// Citation names the authors and the licence of the rows, which the licence asks
// to be shown with them.
var Citation = sets.Heart.Citation

// What the rows are called and how they are to be read.
var (
	target   = sets.Heart.Options.Target
	split    = sets.Heart.Options.Split
	features = sets.Heart.Features
	options  = described(sets.Heart.Options)
)

// described adds what the hospitals say of their rows.
func described(o dataset.Options) dataset.Options {
	o.Description = "Patients examined for coronary heart disease. " + Citation
	return o
}

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
	rows, err := sets.Heart.Table()
	if err != nil {
		return nil, err
	}
	for _, h := range all {
		h.rows.Columns = rows.Columns[1:]
		for _, row := range rows.Rows {
			if row[0] == h.center {
				h.rows.Rows = append(h.rows.Rows, row[1:])
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
