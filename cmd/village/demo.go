package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"village/node/api"
	"village/node/demo"
)

func newDemo(a *app) *cobra.Command {
	var o demo.Options
	cmd := &cobra.Command{
		Use: "demo", Short: "Run hospitals on this machine that train one model of heart disease", Args: need(),
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			o.Progress = cmd.ErrOrStderr()
			v, err := demo.Run(cmd.Context(), o)
			if err != nil {
				return err
			}
			return tell(a, cmd, v, func(w io.Writer, v demo.Result) error {
				if err := v.Write(w); err != nil || !o.Keep {
					return err
				}
				e := cmd.ErrOrStderr()
				fmt.Fprintln(e, "\nThe homes are kept. Start their daemons again, each in a terminal of its own:")
				first := ""
				for _, n := range v.Nodes {
					dir := api.Quote(filepath.Join(v.Dir, n.Name))
					if first == "" {
						first = dir
					}
					fmt.Fprintln(e, "    village daemon --home", dir)
				}
				fmt.Fprintln(e, "and ask, for example:")
				for _, ask := range []string{"status", "dataset list", "task show " + v.Task.String(), "model report " + v.ModelCID.String()} {
					fmt.Fprintln(e, "    village", ask, "--home", first)
				}
				return nil
			})
		}),
	}
	cmd.Flags().StringVar(&o.Dir, "dir", "", "directory for the homes, empty or not existing (else a temporary one)")
	cmd.Flags().BoolVar(&o.Faults, "faults", false, "train at eight hospitals, first without faults and then through cut links, killed daemons and a late start")
	cmd.Flags().BoolVar(&o.Keep, "keep", false, "keep the homes and say how to start them again")
	return cmd
}
