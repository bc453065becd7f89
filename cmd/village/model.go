package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"village/node/api"
	"village/node/evidence"
	"village/node/home"
	"village/node/report"
	"village/node/table"
	"village/protocol/record"
)

const listModels = "village model list"

func newModel(a *app) *cobra.Command {
	return group("model", "Models: what tasks have trained",
		&cobra.Command{
			Use: "list", Short: "List the models that this node holds", Args: need(),
			RunE: listing(a, api.ListModels.Ask, table.Models),
		},
		&cobra.Command{
			Use: "show CID", Short: "Show a model's parameters", Args: need("a CID"),
			ValidArgsFunction: a.modelCIDs(),
			RunE:              showing(a, listModels, api.ShowModel.Ask, table.Model),
		},
		newModelReport(a), newModelVerify(a), newModelExport(a), newModelPredict(a))
}

func newModelReport(a *app) *cobra.Command {
	var page string
	cmd := &cobra.Command{
		Use: "report CID", Short: "Show how well a model does, beside what each node reaches alone", Args: need("a CID"),
		ValidArgsFunction: a.modelCIDs(),
	}
	cmd.RunE = showing(a, listModels, func(ctx context.Context, client *api.Client, cid record.CID) (api.Report, error) {
		v, err := api.ReportModel.Ask(ctx, client, cid)
		if err != nil || page == "" {
			return v, err
		}
		path, err := writeNew(page, func(w io.Writer) error { return report.Write(w, v) })
		if err == nil {
			fmt.Fprintln(cmd.ErrOrStderr(), "written: "+table.Text(path))
		}
		return v, err
	}, table.Report)
	cmd.Flags().StringVar(&page, "html", "", "file to write the report to as a page with plots, which must not exist")
	return cmd
}

func newModelVerify(a *app) *cobra.Command {
	var evidence string
	cmd := &cobra.Command{
		Use: "verify [CID]", Short: "Check who has signed a model, and recompute it",
		Long: `Check the certificate of a model, every signature and every weight, and recompute
the model from the updates that it was made of, byte for byte.

Without --evidence the running daemon checks a model that it holds, or fetches.
With --evidence a directory is checked that "village model export" has written.
That needs no daemon, no home and no network.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if evidence != "" && len(args) == 0 {
				return nil
			}
			return need("a CID, or --evidence")(cmd, args)
		},
		ValidArgsFunction: a.modelCIDs(),
		RunE: answering(a, func(cmd *cobra.Command, args []string) (v api.Verified, err error) {
			var cid record.CID
			if len(args) > 0 {
				if cid, err = parseCID(args[0], listModels); err != nil {
					return v, err
				}
			}
			if evidence != "" {
				return checkEvidence(evidence, cid)
			}
			client, err := a.client()
			if err != nil {
				return v, err
			}
			return api.VerifyModel.Ask(cmd.Context(), client, cid)
		}, table.Verified),
	}
	cmd.Flags().StringVar(&evidence, "evidence", "", "directory that village model export has written; no daemon is asked")
	return cmd
}

// checkEvidence checks a directory, of a certain model where cid is defined.
func checkEvidence(dir string, cid record.CID) (api.Verified, error) {
	const next = "at a node that took part in the task: village model export CID --evidence DIR"
	v, err := evidence.Check(dir)
	switch {
	case err != nil:
		return v, api.Fail(api.CodeFailed, next, "the evidence in %s does not hold: %v", dir, err)
	case cid.Defined() && v.CID != cid:
		return v, api.Fail(api.CodeFailed, next, "the evidence in %s is of model %s, not of %s", dir, v.CID, cid)
	}
	return v, nil
}

func newModelExport(a *app) *cobra.Command {
	var dir string
	files := map[string]*string{api.FormSafetensors: new(string), api.FormONNX: new(string), api.FormCard: new(string)}
	cmd := &cobra.Command{
		Use: "export CID", Short: "Write a model to files, or all that proves it to a directory",
		Long: `Write a model to files, or all that proves it to a directory.

--out writes it as safetensors, the bytes that its CID names. --onnx writes it for
other programs, from raw columns to predictions: an input a column, of shape [N,1],
NaN or an empty string for a missing cell. --card writes what a model hub shows.`,
		Args:              need("a CID"),
		ValidArgsFunction: a.modelCIDs(),
		RunE: showing(a, listModels, func(ctx context.Context, client *api.Client, cid record.CID) (v api.Exported, err error) {
			v.CID = cid
			paths := map[string]*string{api.FormSafetensors: &v.Path, api.FormONNX: &v.ONNX, api.FormCard: &v.Card}
			for _, form := range api.Forms {
				if name := *files[form]; name != "" {
					if *paths[form], err = unused(name); err != nil {
						return v, err
					}
				}
			}
			if dir != "" {
				e, err := api.ProveModel.Ask(ctx, client, cid)
				if err != nil {
					return v, err
				}
				if v.Evidence, err = evidence.Write(dir, e); err != nil {
					return v, err
				}
				v.Bytes = uint64(len(e.Model))
			}
			for _, form := range api.Forms {
				if *paths[form] == "" {
					continue
				}
				if _, err := writeNew(*files[form], func(w io.Writer) error {
					n, err := client.ModelBytes(ctx, cid, form, w)
					if form == api.FormSafetensors {
						v.Bytes = uint64(n)
					}
					return err
				}); err != nil {
					return v, err
				}
			}
			return v, nil
		}, func(w io.Writer, v api.Exported) error {
			for _, path := range []string{v.Path, v.ONNX, v.Card, v.Evidence} {
				if path != "" {
					fmt.Fprintln(w, table.Text(path))
				}
			}
			return nil
		}),
	}
	cmd.Flags().StringVar(files[api.FormSafetensors], "out", "", "file to write as safetensors, which must not exist")
	cmd.Flags().StringVar(files[api.FormONNX], "onnx", "", "file to write as ONNX, which must not exist")
	cmd.Flags().StringVar(files[api.FormCard], "card", "", "Markdown file to write the model card to, which must not exist")
	cmd.Flags().StringVar(&dir, "evidence", "", "directory to write, new or empty: what village model verify --evidence needs")
	cmd.MarkFlagsOneRequired("out", "onnx", "card", "evidence")
	return cmd
}

func newModelPredict(a *app) *cobra.Command {
	var q api.Predict
	var in, out string
	cmd := &cobra.Command{
		Use: "predict CID", Short: "Predict the target for the rows of a CSV or Parquet file", Args: need("a CID"),
		ValidArgsFunction: a.modelCIDs(),
	}
	cmd.RunE = asking(a, func(_ *cobra.Command, args []string) (_ api.Predict, err error) {
		if q.Model, err = parseCID(args[0], listModels); err == nil {
			q.Path, err = readable(in)
		}
		return q, err
	}, func(ctx context.Context, client *api.Client, q api.Predict) (api.Predictions, error) {
		v, err := api.PredictRows.Ask(ctx, client, q)
		if err != nil {
			return v, err
		}
		for _, h := range v.Hints {
			fmt.Fprintln(cmd.ErrOrStderr(), "hint: "+table.Text(h))
		}
		if v.Incomplete > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: %d of %d rows have empty cells, and no prediction\n", v.Incomplete, len(v.Predictions))
		}
		if out != "" {
			_, err = writeRows(out, v, table.PredictionsCSV, table.PredictionsParquet)
		}
		return v, err
	}, func(w io.Writer, v api.Predictions) error {
		if out != "" {
			return nil
		}
		return table.PredictionsCSV(w, v)
	})
	cmd.Flags().StringVar(&in, "in", "", "CSV or Parquet file with the model's features")
	cmd.Flags().StringSliceVar(&q.Columns, "columns", nil, "names of the columns, for a CSV file without a header")
	cmd.Flags().BoolVar(&q.Own, "own", false, "with a part of the model, such as its bias, that is fitted to this node's rows")
	cmd.Flags().StringVar(&out, "out", "", "file to write, which must not exist: Parquet where it ends in .parquet, else CSV (else CSV on standard output)")
	cmd.MarkFlagRequired("in")
	return cmd
}

// writeNew writes a whole file or none, never over another, and returns its
// absolute path.
func writeNew(name string, write func(io.Writer) error) (string, error) {
	path, err := unused(name)
	if err != nil {
		return "", err
	}
	return path, home.WriteFile(path, 0o644, write)
}

// unused is the absolute path of a file that is not there yet.
func unused(name string) (string, error) {
	path, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	switch _, err := os.Lstat(path); {
	case err == nil:
		return "", api.Fail(api.CodeFailed, "choose another name", "%s exists already", path)
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	return path, nil
}
