package main

import (
	"slices"

	"github.com/spf13/cobra"

	"village/node/api"
	"village/node/table"
	"village/sim/average"
)

func newSimAverage(a *app) *cobra.Command {
	e := average.Experiment{}
	v := api.SimAverage{}
	cmd := &cobra.Command{
		Use: "average", Short: "Compare what rules of averaging cost: error against messages and vectors sent", Args: need(),
		Example: "  village sim average\n  village sim average --nodes 50 --rule push-sum,naive-push-sum --loss 0.3 --error 1e-9",
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			e.Network.Apart = average.Halves(e.Nodes, v.Apart)
			if err := e.Check(); err != nil {
				return usage(cmd, "%v", err)
			}
			progress := table.NewCounter(cmd.ErrOrStderr(), "rules")
			done := 0
			results, err := e.Run(cmd.Context(), func(string) {
				done++
				progress.Show(done, len(e.Rules))
			})
			progress.Done()
			v.Nodes, v.Dim, v.Seed, v.Target, v.Rounds = e.Nodes, e.Length, e.Network.Seed, e.Stop.Error, e.Stop.Steps
			v.Loss, v.Duplicate, v.Restart = e.Network.Loss, e.Network.Duplicate, e.Network.Restart
			v.Rules, v.Missing = []api.AveragingRule{}, slices.Clone(e.Rules)
			for _, r := range results {
				v.Missing = slices.DeleteFunc(v.Missing, func(rule string) bool { return rule == r.Rule })
				rule := api.AveragingRule{Rule: r.Rule, Rounds: r.Rounds, Messages: r.Messages, Vectors: r.Vectors, Error: r.Error, Reached: r.Reached}
				for _, s := range r.Curve {
					rule.Curve = append(rule.Curve, api.AveragingPoint(s))
				}
				v.Rules = append(v.Rules, rule)
			}
			if err != nil && len(results) == 0 {
				return err
			}
			if shown := tell(a, cmd, v, table.SimAverage); shown != nil {
				return shown
			}
			return err
		}),
	}
	f := cmd.Flags()
	f.IntVar(&e.Nodes, "nodes", 193, "number of nodes")
	f.IntVar(&e.Length, "dim", 8, "numbers of each node's vector")
	f.StringSliceVar(&e.Rules, "rule", average.Default, "rules to compare: "+average.Rules)
	f.Float64Var(&e.Stop.Error, "error", 1e-6, "error at which a rule has come to its end, relative to the one at the start")
	f.IntVar(&e.Stop.Steps, "rounds", 100_000, "rounds after which a rule ends without")
	f.Uint64Var(&e.Network.Seed, "seed", 1, "the same seed gives the same run")
	f.Float64Var(&e.Network.Loss, "loss", 0, "probability that a message is lost, below 1")
	f.Float64Var(&e.Network.Duplicate, "duplicate", 0, "probability that a message comes twice")
	f.Float64Var(&e.Network.Restart, "restart", 0, "probability that a node restarts in a round, below 1")
	f.IntVar(&v.Apart, "apart", 0, "first rounds in which the two halves of the nodes do not hear each other")
	return cmd
}
