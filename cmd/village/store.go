package main

import (
	"github.com/spf13/cobra"

	"village/node"
	"village/node/api"
	"village/node/table"
)

func newStore(a *app) *cobra.Command {
	var to string
	check := &cobra.Command{
		Use: "check", Short: "Tell what can be read of this node's store, and change nothing", Args: need(),
		RunE: answering(a, func(*cobra.Command, []string) (v api.Store, err error) {
			h, err := a.load()
			if err != nil {
				return v, err
			}
			return node.CheckStore(h)
		}, table.Store),
	}
	salvage := &cobra.Command{
		Use: "salvage", Short: "Make a good store of what can be read of a damaged one",
		Long: `Make a good store of what can be read of a damaged one, which stays as it is.

It works where the daemon refuses to start: each file is read by itself. Put the new
store in the place of the old one, and start the daemon. It brings back from peers
what they have; rows that are lost have to be added again.`,
		Args: need(),
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			h, err := a.load()
			if err != nil {
				return err
			}
			v, err := node.SalvageStore(h, to)
			if err != nil {
				return err
			}
			if err := tell(a, cmd, v, table.Store); err != nil {
				return err
			}
			old := h.StoreDir()
			a.hint(cmd, "mv "+api.Quote(old)+" "+api.Quote(old+".damaged")+" && mv "+api.Quote(v.Path)+" "+api.Quote(old))
			return nil
		}),
	}
	salvage.Flags().StringVar(&to, "to", "", "directory for the new store, which is empty or does not exist")
	salvage.MarkFlagRequired("to")
	return group("store", "The store of this node, while its daemon does not run", check, salvage)
}
