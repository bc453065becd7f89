package main

import (
	"context"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"village/node/api"
	"village/node/table"
	"village/protocol/record"
)

// completing offers what a running daemon lists; without one it offers nothing.
func completing[Q, A, T any](a *app, list api.Route[Q, A], q Q, items func(A) []T, named func(T) (record.CID, string)) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) (all []cobra.Completion, _ cobra.ShellCompDirective) {
		if client, err := a.client(); err == nil {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			v, _ := list.Ask(ctx, client, q)
			for _, item := range items(v) {
				cid, name := named(item)
				all = append(all, cobra.CompletionWithDesc(cid.String(), table.Text(name)))
			}
		}
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}

// own asks for this node's own datasets alone.
var own = url.Values{"mine": {"1"}}

func (a *app) taskCIDs() cobra.CompletionFunc {
	return completing(a, api.ListTasks, api.None{}, func(v api.Tasks) []api.TaskSummary { return v.Tasks },
		func(t api.TaskSummary) (record.CID, string) { return t.CID, t.Name })
}

func (a *app) datasetCIDs(q url.Values) cobra.CompletionFunc {
	return completing(a, api.ListDatasets, q, func(v api.Datasets) []api.Dataset { return v.Datasets },
		func(d api.Dataset) (record.CID, string) { return d.CID, d.Name })
}

func (a *app) modelCIDs() cobra.CompletionFunc {
	return completing(a, api.ListModels, api.None{}, func(v api.Models) []api.ModelSummary { return v.Models },
		func(m api.ModelSummary) (record.CID, string) { return m.CID, m.Name })
}
