package main

import (
	"encoding/hex"
	"io"
	"time"

	"github.com/spf13/cobra"

	"village/node/api"
	"village/node/ingest"
	"village/node/table"
	"village/protocol/task"
	"village/sim"
)

func newSim(a *app) *cobra.Command {
	return group("sim", "Simulate a federation on this machine", newSimRun(a))
}

func newSimRun(a *app) *cobra.Command {
	e := sim.Experiment{Partition: sim.IID}
	var file string
	var columns []string
	var rounds, steps uint64
	var rate float64
	cmd := &cobra.Command{
		Use: "run", Short: "Run the machine of the daemon for many nodes on a virtual clock", Args: need(),
		Example: "  village sim run --data patients.csv --target sick --nodes 8 --rounds 100 --seed 1 --partition iid",
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			if file == "" || e.Options.Target == "" {
				return usage(cmd, "a simulation needs a CSV file (--data) and the column to predict (--target)")
			}
			var err error
			if e.Table, _, err = ingest.File(file, ingest.Options{Columns: columns}); err != nil {
				return api.Fail(api.CodeFailed, cmd.CommandPath()+" --help", "%v", err)
			}
			e.Tune = func(t *task.Task) {
				t.Rounds, t.LocalSteps, t.LearningRate = rounds, steps, rate
			}
			cfg, err := e.Config()
			if err != nil {
				return usage(cmd, "%v", err)
			}
			progress := table.NewCounter(cmd.ErrOrStderr(), len(cfg.Nodes)*int(rounds), "updates")
			cfg.Watch = func(time.Duration, int, task.Update, uint64) { progress.Add(1) }
			start := time.Now()
			r, err := sim.Run(cmd.Context(), cfg)
			progress.Done()
			if err != nil {
				return err
			}
			if !r.Done {
				return api.Fail(api.CodeFailed, cmd.CommandPath()+" --help", "the run did not come to its end in %v of virtual time", r.Virtual)
			}
			v := api.SimRun{
				Schema: schema(cmd), Nodes: len(cfg.Nodes), Rounds: r.Model.Round, Seed: e.Seed,
				Messages: r.Messages, VirtualSeconds: r.Virtual.Seconds(), WallSeconds: time.Since(start).Seconds(),
				Digest: hex.EncodeToString(r.Digest[:]), AllRows: r.Results.AllRows, Mean: r.Results.Mean,
			}
			return a.answer(cmd, v, func(w io.Writer) error { return table.SimRun(w, v, api.ReportOf(r.Results)) })
		}),
	}
	f := cmd.Flags()
	f.StringVar(&file, "data", "", "CSV file with the rows of all nodes")
	f.StringSliceVar(&columns, "columns", nil, "names of the columns, where the file has no header")
	f.StringVar(&e.Options.Target, "target", "", "column to predict")
	f.StringSliceVar(&e.Features, "features", nil, "columns to predict from (default: all others)")
	f.StringSliceVar(&e.Options.Categorical, "categorical", nil, "columns whose numbers are codes")
	f.StringSliceVar(&e.Options.Ignore, "ignore", nil, "columns to leave out")
	f.StringVar(&e.Options.Split, "split", "", "column that says train or test")
	f.StringVar(&e.Options.Positive, "positive", "", "level of the target that counts as positive")
	f.StringVar(&e.Partition, "partition", e.Partition, "which node has which rows: iid, or column:COL for a node a value")
	f.IntVar(&e.Nodes, "nodes", 4, "number of nodes, where the partition is iid")
	f.Uint64Var(&rounds, "rounds", 100, "rounds to train")
	f.Uint64Var(&steps, "local-steps", 5, "steps that a node makes on its own in a round")
	f.Float64Var(&rate, "learning-rate", 0.2, "size of a step")
	f.Uint64Var(&e.Seed, "seed", 1, "the same seed gives the same run")
	f.Float64Var(&e.Faults.Loss, "loss", 0, "probability that a message is lost, below 1")
	f.Float64Var(&e.Faults.Duplicate, "duplicate", 0, "probability that a message comes twice")
	return cmd
}
