package main

import (
	"context"
	"encoding/json"
	"io"
	"reflect"
	"strings"

	"github.com/spf13/cobra"

	"village/node/api"
	"village/node/table"
	"village/protocol/record"
)

// answering is what a command does: it finds its answer and prints it.
func answering[A any](a *app, find func(*cobra.Command, []string) (A, error), people func(io.Writer, A) error) func(*cobra.Command, []string) error {
	return action(func(cmd *cobra.Command, args []string) error {
		v, err := find(cmd, args)
		if err != nil {
			return err
		}
		return tell(a, cmd, v, people)
	})
}

// asking is what a command does whose answer the daemon knows. It reads all of its
// question from the command line before it looks for the daemon.
func asking[Q, A any](a *app, read func(*cobra.Command, []string) (Q, error),
	ask func(context.Context, *api.Client, Q) (A, error), people func(io.Writer, A) error,
) func(*cobra.Command, []string) error {
	return answering(a, func(cmd *cobra.Command, args []string) (none A, err error) {
		q, err := read(cmd, args)
		if err != nil {
			return none, err
		}
		client, err := a.client()
		if err != nil {
			return none, err
		}
		return ask(cmd.Context(), client, q)
	}, people)
}

// showing is asking about the thing whose CID is the only argument, and which the
// command in list lists.
func showing[A any](a *app, list string, ask func(context.Context, *api.Client, record.CID) (A, error), people func(io.Writer, A) error) func(*cobra.Command, []string) error {
	return asking(a, func(_ *cobra.Command, args []string) (record.CID, error) { return parseCID(args[0], list) }, ask, people)
}

// listing is asking without a question.
func listing[A any](a *app, ask func(context.Context, *api.Client, api.None) (A, error), people func(io.Writer, A) error) func(*cobra.Command, []string) error {
	return asking(a, func(*cobra.Command, []string) (none api.None, err error) { return }, ask, people)
}

// listingNamed is listing where people read the nodes' names instead of their IDs.
func listingNamed[A any](a *app, ask func(context.Context, *api.Client, api.None) (A, error), people func(io.Writer, A, table.Names) error) func(*cobra.Command, []string) error {
	var known table.Names
	return listing(a, func(ctx context.Context, client *api.Client, q api.None) (A, error) {
		v, err := ask(ctx, client, q)
		if err == nil && !a.json {
			known = names(ctx, client)
		}
		return v, err
	}, func(w io.Writer, v A) error { return people(w, v, known) })
}

// tell prints v with the command's schema: as JSON where that was asked for, else
// as people prints it.
func tell[A any](a *app, cmd *cobra.Command, v A, people func(io.Writer, A) error) error {
	reflect.ValueOf(&v).Elem().FieldByName("Schema").SetString(schema(cmd))
	if a.json {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(v)
	}
	return people(cmd.OutOrStdout(), v)
}

// schema is the schema of a command's answer.
func schema(cmd *cobra.Command) string {
	return strings.ReplaceAll(cmd.CommandPath(), " ", ".") + "/v1"
}

// parseCID reads the CID of a thing that the command in next lists.
func parseCID(s, next string) (record.CID, error) {
	c, err := record.ParseCID(s)
	if err != nil {
		return c, api.Fail(api.CodeUsage, next, "%q is not a CID", s)
	}
	return c, nil
}

func parseNodeID(cmd *cobra.Command, s string) (record.NodeID, error) {
	id, err := record.ParseNodeID(s)
	if err != nil {
		return id, usage(cmd, "%v", err)
	}
	return id, nil
}

func parseNodeIDs(cmd *cobra.Command, list []string) ([]record.NodeID, error) {
	var ids []record.NodeID
	for _, s := range list {
		id, err := parseNodeID(cmd, s)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}
