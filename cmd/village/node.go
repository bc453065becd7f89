package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"

	"github.com/spf13/cobra"

	"village/node"
	"village/node/api"
	"village/node/home"
	"village/node/table"
)

// version may be set at link time; otherwise the build information tells it.
var version string

func newInit(a *app) *cobra.Command {
	var o home.Options
	cmd := &cobra.Command{
		Use: "init", Short: "Make a node: its key, its config and its home", Args: need(),
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			dir, err := a.dir()
			if err != nil {
				return err
			}
			h, err := home.Init(dir, o)
			if err != nil {
				return err
			}
			c := h.Config()
			listen, err := c.ListenAddrs()
			if err != nil {
				return err
			}
			v := api.Init{
				Home: h.Dir, PeerID: h.ID, Nation: c.Nation, Name: c.Name,
				Federation: c.Federation, Listen: listen,
			}
			if o.Federation == "" && !a.json {
				fmt.Fprintln(cmd.ErrOrStderr(), "a new federation; others join it with: village init --federation "+c.Federation)
			}
			if err := tell(a, cmd, v, table.Init); err != nil {
				return err
			}
			a.hint(cmd, "village daemon --home "+api.Quote(h.Dir))
			return nil
		}),
	}
	f := cmd.Flags()
	f.StringVar(&o.Nation, "nation", "", "country of the node, ISO 3166-1 alpha-3, such as HUN")
	f.StringVar(&o.Name, "name", "", "name to show to others, 1 to 64 characters")
	f.StringVar(&o.Federation, "federation", "", "name of the federation to join (else a new one is made)")
	f.StringArrayVar(&o.Listen, "listen", nil, "multiaddr to listen on, repeatable (else TCP and QUIC at port 4811 or the next free one)")
	f.StringArrayVar(&o.Announce, "announce", nil, "multiaddr to tell others instead of the own ones, repeatable")
	f.StringArrayVar(&o.Peers, "peer", nil, "multiaddr of a node to connect to, ending in /p2p/PEER-ID, repeatable")
	f.BoolVar(&o.NoMDNS, "no-mdns", false, "do not look for nodes on the local network")
	cmd.MarkFlagRequired("nation")
	cmd.MarkFlagRequired("name")
	cmd.RegisterFlagCompletionFunc("nation", func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var codes []cobra.Completion
		for _, n := range home.Nations() {
			codes = append(codes, cobra.CompletionWithDesc(n.Code, n.Name))
		}
		return codes, cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

func newDaemon(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "daemon", Short: "Run the node in the foreground until SIGTERM", Args: need(),
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			h, err := a.load()
			if err != nil {
				return err
			}
			var logs slog.Handler = slog.NewTextHandler(cmd.ErrOrStderr(), nil)
			if a.json {
				logs = slog.NewJSONHandler(cmd.ErrOrStderr(), nil)
			}
			slog.SetDefault(slog.New(logs))
			err = node.Run(cmd.Context(), h, func(id, address string) {
				tell(a, cmd, api.Ready{PeerID: id, Address: address}, func(w io.Writer, v api.Ready) error {
					_, err := fmt.Fprintf(w, "ready %s %s\n", v.PeerID, v.Address)
					return err
				})
			})
			if errors.Is(err, context.Canceled) {
				return nil // stopped as asked
			}
			return err
		}),
	}
}

func newID(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "id", Short: "Show who this node is", Args: need(),
		RunE: answering(a, func(cmd *cobra.Command, _ []string) (v api.Identity, err error) {
			h, err := a.load()
			if err != nil {
				return v, err
			}
			c := h.Config()
			v = api.Identity{PeerID: h.ID, Nation: c.Nation, Name: c.Name, Federation: c.Federation}
			// The key tells who the node is; only its daemon knows where.
			if client, err := api.Dial(h.Dir); err == nil {
				if v, err = api.GetID.Ask(cmd.Context(), client, api.None{}); err != nil {
					return v, err
				}
			}
			if v.Addresses == nil {
				v.Addresses = []string{}
			}
			return v, nil
		}, table.Identity),
	}
}

func newStatus(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show how the node is, what it does and whom it waits for", Args: need(),
		RunE: listingNamed(a, api.GetStatus.Ask, table.Status),
	}
}

// names asks what the nodes are called, also those that are down. Those without an
// answer have peer IDs.
func names(ctx context.Context, client *api.Client) table.Names {
	var known []api.NamedNode
	if v, err := api.ListNames.Ask(ctx, client, api.None{}); err == nil {
		known = v.Nodes
	}
	if self, err := api.GetID.Ask(ctx, client, api.None{}); err == nil {
		known = append(known, api.NamedNode{PeerID: self.PeerID, Nation: self.Nation, Name: self.Name})
	}
	return table.NamesOf(known)
}

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version of this program", Args: need(),
		RunE: answering(a, func(*cobra.Command, []string) (api.Version, error) {
			v := api.Version{Version: version}
			if info, ok := debug.ReadBuildInfo(); ok {
				v.Go = info.GoVersion
				if v.Version == "" {
					v.Version = info.Main.Version
				}
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						v.Commit = s.Value
					}
				}
			}
			return v, nil
		}, func(w io.Writer, v api.Version) error {
			commit := ""
			if v.Commit != "" {
				commit = ", commit " + v.Commit
			}
			_, err := fmt.Fprintf(w, "village %s (%s%s)\n", v.Version, v.Go, commit)
			return err
		}),
	}
}
