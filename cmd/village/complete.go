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

// complete offers what a running daemon lists; without one it offers nothing.
func (a *app) complete(ask func(context.Context, *api.Client) []cobra.Completion) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		client, err := a.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return ask(ctx, client), cobra.ShellCompDirectiveNoFileComp
	}
}

func named(cid record.CID, name string) cobra.Completion {
	return cobra.CompletionWithDesc(cid.String(), table.Text(name))
}

func taskCIDs(ctx context.Context, client *api.Client) (all []cobra.Completion) {
	v, _ := api.ListTasks.Ask(ctx, client, api.None{})
	for _, t := range v.Tasks {
		all = append(all, named(t.CID, t.Name))
	}
	return all
}

func datasetCIDs(ctx context.Context, client *api.Client) []cobra.Completion {
	return datasets(ctx, client, nil)
}

func ownDatasetCIDs(ctx context.Context, client *api.Client) []cobra.Completion {
	return datasets(ctx, client, url.Values{"mine": {"1"}})
}

func datasets(ctx context.Context, client *api.Client, q url.Values) (all []cobra.Completion) {
	v, _ := api.ListDatasets.Ask(ctx, client, q)
	for _, d := range v.Datasets {
		all = append(all, named(d.CID, d.Name))
	}
	return all
}

func modelCIDs(ctx context.Context, client *api.Client) (all []cobra.Completion) {
	v, _ := api.ListModels.Ask(ctx, client, api.None{})
	for _, m := range v.Models {
		all = append(all, named(m.CID, m.Name))
	}
	return all
}
