package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"village/node/api"
	"village/node/table"
	"village/protocol/record"
)

const listDatasets = "village dataset list"

func newDataset(a *app) *cobra.Command {
	return group("dataset", "Datasets: rows stay at home, manifests are published",
		newDatasetAdd(a), newDatasetList(a), newDatasetShow(a), newDatasetExport(a), newDatasetDrift(a))
}

func newDatasetAdd(a *app) *cobra.Command {
	var q api.AddDataset
	var levels, units []string
	cmd := &cobra.Command{
		Use: "add FILE", Short: "Take the rows of a CSV or Parquet file in and publish their manifest",
		Long: `Take the rows of a file in and publish their manifest. The rows stay at home.

The file is CSV in UTF-8 (else it is read as Latin-1, and a hint says so), gzipped
or not, or Parquet of flat columns. Its first bytes tell which, not its name.
Empty cells, nulls, and in CSV ?, NA, N/A, NaN and null, are missing values; NA is
one no longer where --levels names it, or beside the codes of other countries.
Reading ends with an error at 2 GiB, whatever a small file unpacks to.`, Args: need("a FILE"),
	}
	cmd.RunE = asking(a, func(cmd *cobra.Command, args []string) (_ api.AddDataset, err error) {
		if q.Path, err = readable(args[0]); err != nil {
			return q, err
		}
		if q.Options.Levels, err = parseLevels(levels); err != nil {
			return q, usage(cmd, "%v", err)
		}
		for _, s := range units {
			column, unit, ok := strings.Cut(s, "=")
			if !ok || column == "" || unit == "" {
				return q, usage(cmd, "--unit %q must have the form COL=UNIT", s)
			}
			if q.Options.Units == nil {
				q.Options.Units = map[string]string{}
			}
			q.Options.Units[column] = unit
		}
		return q, nil
	}, func(ctx context.Context, client *api.Client, q api.AddDataset) (api.AddedDataset, error) {
		if !a.json {
			defer showAdding(ctx, client, cmd.ErrOrStderr())()
		}
		return api.PublishDataset.Ask(ctx, client, q)
	}, func(w io.Writer, v api.AddedDataset) error {
		if err := table.AddedDataset(cmd.ErrOrStderr(), v); err != nil {
			return err
		}
		a.hint(cmd, "village dataset show "+v.CID.String())
		_, err := fmt.Fprintln(w, v.CID)
		return err
	})
	f := cmd.Flags()
	f.StringVar(&q.Options.Name, "name", "", "name of the dataset; a file added under the same name replaces it")
	f.StringVar(&q.Options.Target, "target", "", "column to predict")
	f.StringSliceVar(&q.Columns, "columns", nil, "names of the columns, for a CSV file without a header")
	f.StringSliceVar(&q.Options.Categorical, "categorical", nil, "columns whose numbers are codes")
	f.StringSliceVar(&q.Options.Numeric, "numeric", nil, "columns that are numeric however few values they have, as a target to be predicted as a number")
	f.StringArrayVar(&levels, "levels", nil, "COL=a,b: levels to publish whatever their number of rows, repeatable")
	f.StringArrayVar(&units, "unit", nil, "COL=UNIT: unit of a numeric column, repeatable; tasks refuse datasets of another one")
	f.StringSliceVar(&q.Options.Ignore, "ignore", nil, "columns to leave out of everything")
	f.StringVar(&q.Options.Split, "split", "", "column that says train or test")
	f.StringVar(&q.Options.Positive, "positive", "", "level of the target that counts as positive")
	f.StringVar(&q.Options.Domain, "domain", "", "field of the data, such as health")
	f.StringVar(&q.Options.Licence, "licence", "", "SPDX identifier of the data's licence")
	f.StringVar(&q.Options.Description, "description", "", "what the data are")
	cmd.MarkFlagRequired("name")
	cmd.MarkFlagRequired("target")
	return cmd
}

// showAdding shows on a terminal how far the daemon is, until the function that it
// returns is called.
func showAdding(ctx context.Context, client *api.Client, w io.Writer) (end func()) {
	live := newLiveLine(w)
	if live.width == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		again := time.NewTicker(200 * time.Millisecond)
		defer again.Stop()
		for {
			select {
			case <-again.C:
			case <-ctx.Done():
				live.set("")
				fmt.Fprint(w, "\r")
				return
			}
			if p, err := api.TellAdding.Ask(ctx, client, api.None{}); err == nil && p.Doing != "" {
				live.set(fmt.Sprintf("%s: %.0f %%", p.Doing, 100*p.Share))
			}
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

// readable returns the absolute path of a file to be read by the daemon, which
// has another working directory.
func readable(name string) (string, error) {
	info, err := os.Stat(name)
	if err != nil {
		return "", api.Fail(api.CodeFailed, "ls "+api.Quote(filepath.Dir(name)), "cannot read the file: %v", err)
	}
	if info.IsDir() {
		return "", api.Fail(api.CodeFailed, "ls "+api.Quote(name), "%s is a directory, not a file", name)
	}
	return filepath.Abs(name)
}

// parseLevels reads COL=a,b with quotes as in CSV where a level holds a comma.
func parseLevels(flags []string) (map[string][]string, error) {
	levels := map[string][]string{}
	for _, s := range flags {
		column, list, ok := strings.Cut(s, "=")
		if !ok || column == "" || list == "" {
			return nil, fmt.Errorf("--levels %q must have the form COL=a,b", s)
		}
		values, err := csv.NewReader(strings.NewReader(list)).Read()
		if err != nil {
			return nil, fmt.Errorf("--levels %q: %w", s, err)
		}
		levels[column] = append(levels[column], values...)
	}
	return levels, nil
}

func newDatasetList(a *app) *cobra.Command {
	var mine bool
	var domain string
	cmd := &cobra.Command{
		Use: "list", Short: "List the datasets of the federation", Args: need(),
		RunE: asking(a, func(*cobra.Command, []string) (url.Values, error) {
			q := url.Values{"domain": {domain}}
			if mine {
				q.Set("mine", "1")
			}
			return q, nil
		}, api.ListDatasets.Ask, table.Datasets),
	}
	cmd.Flags().BoolVar(&mine, "mine", false, "only this node's own")
	cmd.Flags().StringVar(&domain, "domain", "", "only those of this field")
	return cmd
}

func newDatasetShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show CID", Short: "Show what has been published of a dataset, literally", Args: need("a CID"),
		ValidArgsFunction: a.datasetCIDs(nil),
		RunE:              showing(a, listDatasets, api.ShowDataset.Ask, table.Dataset),
	}
}

func newDatasetExport(a *app) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "export CID", Short: "Write the cleaned rows of an own dataset to a file", Args: need("a CID"),
		ValidArgsFunction: a.datasetCIDs(own),
		RunE: showing(a, listDatasets+" --mine", func(ctx context.Context, client *api.Client, cid record.CID) (api.Rows, error) {
			v, err := api.ExportDataset.Ask(ctx, client, cid)
			if err == nil && out != "" {
				v.Path, err = writeRows(out, v, table.RowsCSV, table.RowsParquet)
				v.Rows = [][]string{} // which are in the file
			}
			return v, err
		}, func(w io.Writer, v api.Rows) error {
			if out != "" {
				return nil
			}
			return table.RowsCSV(w, v)
		}),
	}
	cmd.Flags().StringVar(&out, "out", "", "file to write, which must not exist: Parquet where it ends in .parquet, else CSV (else CSV on standard output)")
	return cmd
}

// writeRows writes rows to a new file, as Parquet where its name says so, else as
// CSV, and returns its absolute path.
func writeRows[A any](name string, rows A, csv, parquet func(io.Writer, A) error) (string, error) {
	if filepath.Ext(name) == ".parquet" {
		csv = parquet
	}
	return writeNew(name, func(w io.Writer) error { return csv(w, rows) })
}

func newDatasetDrift(a *app) *cobra.Command {
	var q api.Drift
	var in string
	cmd := &cobra.Command{
		Use: "drift CID", Short: "Tell how far new rows are from what a manifest says", Args: need("a CID"),
		Long: `Tell how far the rows of a file are from what a dataset's manifest says of its
rows: for each column the population stability index (under 0.1 next to nothing, from
0.25 a lot) and the Kolmogorov-Smirnov distance. Nothing is stored or published.`,
		ValidArgsFunction: a.datasetCIDs(nil),
		RunE: asking(a, func(_ *cobra.Command, args []string) (_ api.Drift, err error) {
			if q.Dataset, err = parseCID(args[0], listDatasets); err == nil {
				q.Path, err = readable(in)
			}
			return q, err
		}, api.MeasureDrift.Ask, func(w io.Writer, v api.Drifted) error { return table.Drift(w, v.Columns) }),
	}
	cmd.Flags().StringVar(&in, "in", "", "CSV or Parquet file with the new rows")
	cmd.Flags().StringSliceVar(&q.Columns, "columns", nil, "names of the columns, for a CSV file without a header")
	cmd.MarkFlagRequired("in")
	return cmd
}
