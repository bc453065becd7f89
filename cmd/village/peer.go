package main

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"village/node/api"
	"village/node/home"
	"village/node/table"
	"village/protocol/record"
)

func newPeer(a *app) *cobra.Command {
	return group("peer", "Nodes that this one is connected to",
		&cobra.Command{
			Use: "list", Short: "List the nodes that this one knows", Args: need(),
			RunE: listing(a, api.ListPeers.Ask, table.Peers),
		},
		&cobra.Command{
			Use: "add MULTIADDR", Short: "Connect to a node now and after every start", Args: need("a MULTIADDR"),
			ValidArgsFunction: cobra.NoFileCompletions,
			RunE: changing(a, func(cmd *cobra.Command, args []string) (api.AddPeer, error) {
				if err := home.CheckPeer(args[0]); err != nil {
					return api.AddPeer{}, usage(cmd, "%v", err)
				}
				return api.AddPeer{Address: args[0]}, nil
			}, api.ConnectPeer.Ask, func(_ record.NodeID, c *home.Config, q api.AddPeer) (api.Peers, error) {
				if !slices.Contains(c.Peers, q.Address) {
					c.Peers = append(c.Peers, q.Address)
				}
				return configured(c), nil
			}, table.Peers),
		},
		&cobra.Command{
			Use: "remove PEER-ID", Short: "Forget the addresses of a node and hang up on it", Args: need("a PEER-ID"),
			ValidArgsFunction: cobra.NoFileCompletions,
			RunE: changing(a, onlyNodeID, api.RemovePeer.Ask, func(_ record.NodeID, c *home.Config, id record.NodeID) (api.Peers, error) {
				before := len(c.Peers)
				c.Peers = slices.DeleteFunc(c.Peers, func(address string) bool {
					of, err := home.PeerOf(address)
					return err == nil && of == id
				})
				if len(c.Peers) == before {
					return api.Peers{}, api.Fail(api.CodeFailed, "village peer list", "%s is not a peer that this node connects to", id)
				}
				return configured(c), nil
			}, table.Peers),
		})
}

// configured are the peers of a config, of which nothing but their addresses is
// known.
func configured(c *home.Config) api.Peers {
	v := api.Peers{Peers: make([]api.Peer, len(c.Peers))}
	for i, address := range c.Peers {
		v.Peers[i].Addresses = []string{address}
		v.Peers[i].PeerID, _ = home.PeerOf(address) // or it was edited by hand
	}
	return v
}

func onlyNodeID(cmd *cobra.Command, args []string) (record.NodeID, error) {
	return parseNodeID(cmd, args[0])
}

func newMember(a *app) *cobra.Command {
	return group("member", "Nodes that may take part in the federation",
		&cobra.Command{
			Use: "list", Short: "List the members of a closed federation", Args: need(),
			RunE: listing(a, api.ListMembers.Ask, table.Members),
		},
		memberChange(a, "add", "Admit a node; the first one closes the federation",
			func(ctx context.Context, client *api.Client, id record.NodeID) (api.Members, error) {
				return api.AdmitMember.Ask(ctx, client, api.AddMember{PeerID: id})
			},
			func(members []record.NodeID, id record.NodeID) ([]record.NodeID, error) {
				if !slices.Contains(members, id) {
					members = append(members, id)
				}
				return members, nil
			}),
		memberChange(a, "remove", "Take a node off the member list and disconnect it", api.RemoveMember.Ask,
			func(members []record.NodeID, id record.NodeID) ([]record.NodeID, error) {
				i := slices.Index(members, id)
				if i < 0 {
					return nil, api.Fail(api.CodeFailed, "village member list", "%s is not on the member list", id)
				}
				return slices.Delete(members, i, i+1), nil
			}))
}

func memberChange(a *app, verb, short string,
	ask func(context.Context, *api.Client, record.NodeID) (api.Members, error),
	edit func([]record.NodeID, record.NodeID) ([]record.NodeID, error),
) *cobra.Command {
	return &cobra.Command{
		Use: verb + " PEER-ID", Short: short, Args: need("a PEER-ID"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: changing(a, onlyNodeID, ask, func(self record.NodeID, c *home.Config, id record.NodeID) (v api.Members, err error) {
			if c.Members, err = edit(c.Members, id); err != nil {
				return v, err
			}
			v.Closed = true
			for _, m := range append([]record.NodeID{self}, c.Members...) {
				v.Members = append(v.Members, api.Member{PeerID: m, Self: m == self})
			}
			return v, nil
		}, table.Members),
	}
}

// changing is asking the daemon to change the config, or, while none runs, changing
// it and saying so.
func changing[Q, A any](a *app, read func(*cobra.Command, []string) (Q, error), ask func(context.Context, *api.Client, Q) (A, error),
	edit func(self record.NodeID, c *home.Config, q Q) (A, error), people func(io.Writer, A) error,
) func(*cobra.Command, []string) error {
	return answering(a, func(cmd *cobra.Command, args []string) (v A, err error) {
		q, err := read(cmd, args)
		if err != nil {
			return v, err
		}
		client, err := a.client()
		if err == nil {
			return ask(cmd.Context(), client, q)
		}
		if api.AsError(err).Code != api.CodeNotRunning {
			return v, err
		}
		h, err := a.load()
		if err != nil {
			return v, err
		}
		if err := h.Lock(); err != nil {
			return v, err
		}
		defer h.Unlock()
		if err = h.Update(func(c *home.Config) (err error) {
			v, err = edit(h.ID, c, q)
			return err
		}); err == nil {
			fmt.Fprintln(cmd.ErrOrStderr(), "the daemon is not running; the config is changed and counts from its next start")
		}
		return v, err
	}, people)
}
