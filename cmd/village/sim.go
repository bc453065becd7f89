package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"village/node/api"
	"village/node/ingest"
	"village/node/ingest/sets"
	"village/node/table"
	"village/protocol/dataset"
	"village/sim"
	"village/sim/cluster"
	"village/sim/scenario"
	"village/sim/study"
)

func newSim(a *app) *cobra.Command {
	return group("sim", "Simulate a federation on this machine", newSimRun(a), newSimList(a), newSimAverage(a))
}

func newSimList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the scenarios and the data sets that come with the program", Args: need(),
		RunE: answering(a, func(*cobra.Command, []string) (v api.SimList, _ error) {
			for _, s := range scenario.Shipped() {
				v.Scenarios = append(v.Scenarios, api.Shipped{Name: s.Name, About: s.About})
			}
			for _, s := range sets.Names() {
				v.Data = append(v.Data, api.Shipped{Name: s.Name, About: s.About, Citation: s.Citation})
			}
			return v, nil
		}, table.SimList),
	}
}

func newSimRun(a *app) *cobra.Command {
	var vary []string
	var seeds int
	var out string
	var real bool
	cmd := &cobra.Command{
		Use: "run [NAME|FILE]...", Short: "Run the machine of the daemon for many nodes on a virtual clock",
		Long: `Run the machine of the daemon for many nodes on a virtual clock.

A scenario is one that comes with the program ("village sim list"), or a TOML file
with the keys below, or just flags, which also change a named scenario. With
--vary, --seeds or several scenarios one call compares them.`,
		Example: `  village sim run four-hospitals
  village sim run --data patients.csv --target sick --nodes 8 --out plots
  village sim run mixing-graphs --vary mixing=all,ring,base:1 --seeds 5 --out plots`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: completeScenarios,
		RunE: action(func(cmd *cobra.Command, args []string) error {
			scenarios, err := chosen(cmd, args)
			if err != nil {
				return usage(cmd, "%v", err)
			}
			var all []scenario.Scenario
			for _, s := range scenarios {
				varied, err := scenario.Vary(s, vary, seeds)
				if err != nil {
					return usage(cmd, "%v", err)
				}
				all = append(all, varied...)
			}
			var check func(sim.Config) error
			if real {
				check = cluster.Check
			}
			st, err := study.New(all, open, check)
			if err != nil {
				return usage(cmd, "%v", err)
			}
			if real {
				st.Run, st.Real = cluster.Run, true
			}
			progress := table.NewCounter(cmd.ErrOrStderr(), "updates")
			st.Progress = progress.Show
			v, failed := st.Do(cmd.Context())
			progress.Done()
			v.Schema = schema(cmd)
			if len(v.Runs) == 0 {
				return failed
			}
			if out != "" {
				title := "Village: " + filepath.Base(all[0].Data)
				if len(args) > 0 {
					title = "Village: " + args[0]
				}
				if err := v.Write(out, title); err != nil {
					return errors.Join(err, failed)
				}
			}
			return errors.Join(tell(a, cmd, v, printStudy), failed)
		}),
	}
	f := cmd.Flags()
	f.StringArrayVar(&vary, "vary", nil, "compare these values of a key, as mixing=all,ring")
	f.IntVar(&seeds, "seeds", 1, "run each with so many seeds, and give means and standard deviations")
	f.StringVar(&out, "out", "", "directory for report.html, plots (SVG, PNG) and tables (CSV)")
	f.BoolVar(&real, "real", false, "run real nodes in this process, on its own clock, up to 200")
	for _, k := range scenario.Keys() {
		f.String(k.Name, k.Default, k.Help)
	}
	return cmd
}

// chosen are the scenarios that the arguments name, or else the flags alone make.
func chosen(cmd *cobra.Command, args []string) ([]scenario.Scenario, error) {
	var list []scenario.Scenario
	for _, arg := range args {
		s, near, ok := scenario.Named(arg)
		if !ok {
			b, err := os.ReadFile(arg)
			switch {
			case errors.Is(err, fs.ErrNotExist) && near != "":
				return nil, fmt.Errorf("there is no scenario and no file %q; did you mean %q?", arg, near)
			case errors.Is(err, fs.ErrNotExist):
				return nil, fmt.Errorf("there is no scenario and no file %q; village sim list shows the scenarios", arg)
			case err != nil:
				return nil, err
			}
			if s, err = scenario.Decode(arg, b); err != nil {
				return nil, err
			}
			s.Data = located(s.Data, filepath.Dir(arg))
		}
		list = append(list, s)
	}
	if len(args) == 0 {
		if !cmd.Flags().Changed("data") {
			return nil, errors.New("a simulation needs a scenario (village sim list shows some) or rows (--data)")
		}
		list = []scenario.Scenario{scenario.New()}
	}
	for _, k := range scenario.Keys() {
		f := cmd.Flags().Lookup(k.Name)
		for i := range list {
			if f.Changed {
				if err := list[i].Set(k.Name, f.Value.String()); err != nil {
					return nil, fmt.Errorf("--%w", err)
				}
			}
		}
	}
	for i := range list {
		list[i].Data = located(list[i].Data, "")
	}
	return list, nil
}

// located is the absolute path of data that is a file, so that a scenario that is
// written down can be run from anywhere.
func located(data, from string) string {
	if data == "" || shipped(data) || strings.HasPrefix(data, "synthetic:") {
		return data
	}
	if !filepath.IsAbs(data) {
		data = filepath.Join(from, data)
	}
	if path, err := filepath.Abs(data); err == nil {
		return path
	}
	return data
}

// shipped tells whether data is a set that comes with the program.
func shipped(data string) bool {
	return slices.ContainsFunc(sets.Names(), func(s sets.Set) bool { return s.Name == data })
}

// open reads a set that comes with the program, or a file.
func open(data string, columns []string) (dataset.Table, scenario.Defaults, error) {
	if shipped(data) {
		t, set, err := sets.Open(data)
		return t, scenario.Defaults(set.Defaults), err
	}
	packed, _, err := ingest.File(data, ingest.Options{Columns: columns})
	return packed.Table(), scenario.Defaults{}, err
}

func completeScenarios(*cobra.Command, []string, string) (all []cobra.Completion, _ cobra.ShellCompDirective) {
	for _, s := range scenario.Shipped() {
		all = append(all, cobra.CompletionWithDesc(s.Name, s.About))
	}
	return all, cobra.ShellCompDirectiveDefault // a file will do as well
}

func printStudy(w io.Writer, v study.Result) error {
	if v.Run != nil {
		if err := table.SimRun(w, v.Facts(), api.ReportOf(v.Results)); err != nil {
			return err
		}
	} else {
		for i, t := range v.Tables() {
			fmt.Fprint(w, strings.Repeat("\n", min(i, 1)), t.Caption, "\n\n")
			if err := table.Rows(w, t.Rows); err != nil {
				return err
			}
		}
	}
	if len(v.Missing) > 0 {
		fmt.Fprintln(w)
	}
	for _, m := range v.Missing {
		fmt.Fprintln(w, "missing: "+table.Text(m))
	}
	if v.Out != "" {
		fmt.Fprintln(w, "\nsee "+v.Out+"/report.html")
	}
	return nil
}
