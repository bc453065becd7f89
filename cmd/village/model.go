package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"village/node/api"
	"village/node/home"
	"village/node/table"
)

const listModels = "village model list"

func newModel(a *app) *cobra.Command {
	return group("model", "Models: what tasks have trained",
		&cobra.Command{
			Use: "list", Short: "List the models that this node holds", Args: need(),
			RunE: action(func(cmd *cobra.Command, _ []string) error {
				client, err := a.client()
				if err != nil {
					return err
				}
				v, err := client.Models(cmd.Context())
				if err != nil {
					return err
				}
				v.Schema = schema(cmd)
				return a.answer(cmd, v, func(w io.Writer) error { return table.Models(w, v) })
			}),
		},
		&cobra.Command{
			Use: "show CID", Short: "Show a model's parameters", Args: need("a CID"),
			ValidArgsFunction: a.complete(modelCIDs),
			RunE: action(func(cmd *cobra.Command, args []string) error {
				cid, err := parseCID(args[0], listModels)
				if err != nil {
					return err
				}
				client, err := a.client()
				if err != nil {
					return err
				}
				v, err := client.Model(cmd.Context(), cid)
				if err != nil {
					return err
				}
				v.Schema = schema(cmd)
				return a.answer(cmd, v, func(w io.Writer) error { return table.Model(w, v) })
			}),
		},
		&cobra.Command{
			Use: "report CID", Short: "Show how well a model does, beside what each node reaches alone", Args: need("a CID"),
			ValidArgsFunction: a.complete(modelCIDs),
			RunE: action(func(cmd *cobra.Command, args []string) error {
				cid, err := parseCID(args[0], listModels)
				if err != nil {
					return err
				}
				client, err := a.client()
				if err != nil {
					return err
				}
				v, err := client.Report(cmd.Context(), cid)
				if err != nil {
					return err
				}
				v.Schema = schema(cmd)
				return a.answer(cmd, v, func(w io.Writer) error { return table.Report(w, v) })
			}),
		},
		newModelExport(a), newModelPredict(a))
}

func newModelExport(a *app) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "export CID", Short: "Write a model to a file", Args: need("a CID"),
		ValidArgsFunction: a.complete(modelCIDs),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			cid, err := parseCID(args[0], listModels)
			if err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			var n int64
			path, err := writeNew(out, func(w io.Writer) (err error) {
				n, err = client.ModelBytes(cmd.Context(), cid, w)
				return err
			})
			if err != nil {
				return err
			}
			v := api.Exported{Schema: schema(cmd), CID: cid, Path: path, Bytes: uint64(n)}
			return a.answer(cmd, v, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, table.Text(path))
				return err
			})
		}),
	}
	cmd.Flags().StringVar(&out, "out", "", "file to write, which must not exist")
	cmd.MarkFlagRequired("out")
	return cmd
}

func newModelPredict(a *app) *cobra.Command {
	var in, out string
	cmd := &cobra.Command{
		Use: "predict CID", Short: "Predict the target for the rows of a CSV file", Args: need("a CID"),
		ValidArgsFunction: a.complete(modelCIDs),
		RunE: action(func(cmd *cobra.Command, args []string) (err error) {
			var q api.Predict
			if q.Model, err = parseCID(args[0], listModels); err != nil {
				return err
			}
			if q.Path, err = readable(in); err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			v, err := client.Predict(cmd.Context(), q)
			if err != nil {
				return err
			}
			v.Schema = schema(cmd)
			csv := func(w io.Writer) error { return table.PredictionsCSV(w, v) }
			if out != "" {
				if _, err := writeNew(out, csv); err != nil {
					return err
				}
				csv = func(io.Writer) error { return nil }
			}
			return a.answer(cmd, v, csv)
		}),
	}
	cmd.Flags().StringVar(&in, "in", "", "CSV file with the model's features")
	cmd.Flags().StringVar(&out, "out", "", "file to write, which must not exist (else standard output)")
	cmd.MarkFlagRequired("in")
	return cmd
}

// writeNew writes a whole file or none, never over another, and returns its
// absolute path.
func writeNew(name string, write func(io.Writer) error) (string, error) {
	path, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	switch _, err := os.Lstat(path); {
	case err == nil:
		return "", api.Fail(api.CodeFailed, "choose another name for --out", "%s exists already", path)
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	return path, home.WriteFile(path, 0o644, write)
}
