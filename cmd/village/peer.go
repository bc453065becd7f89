package main

import (
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
			RunE: action(func(cmd *cobra.Command, _ []string) error {
				client, err := a.client()
				if err != nil {
					return err
				}
				v, err := client.Peers(cmd.Context())
				if err != nil {
					return err
				}
				v.Schema = schema(cmd)
				return a.answer(cmd, v, func(w io.Writer) error { return table.Peers(w, v) })
			}),
		},
		&cobra.Command{
			Use: "add MULTIADDR", Short: "Connect to a node now and after every start", Args: need("a MULTIADDR"),
			ValidArgsFunction: cobra.NoFileCompletions,
			RunE: action(func(cmd *cobra.Command, args []string) error {
				if err := home.CheckPeer(args[0]); err != nil {
					return usage(cmd, "%v", err)
				}
				var v api.Peers
				err := a.change(cmd,
					func(client *api.Client) (err error) {
						v, err = client.AddPeer(cmd.Context(), args[0])
						return err
					},
					func(_ record.NodeID, c *home.Config) error {
						if !slices.Contains(c.Peers, args[0]) {
							c.Peers = append(c.Peers, args[0])
						}
						v.Peers = allConfigured(c)
						return nil
					})
				if err != nil {
					return err
				}
				v.Schema = schema(cmd)
				return a.answer(cmd, v, func(w io.Writer) error { return table.Peers(w, v) })
			}),
		},
		&cobra.Command{
			Use: "remove PEER-ID", Short: "Forget the addresses of a node and hang up on it", Args: need("a PEER-ID"),
			ValidArgsFunction: cobra.NoFileCompletions,
			RunE: action(func(cmd *cobra.Command, args []string) error {
				id, err := parseNodeID(cmd, args[0])
				if err != nil {
					return err
				}
				var v api.Peers
				err = a.change(cmd,
					func(client *api.Client) (err error) {
						v, err = client.RemovePeer(cmd.Context(), id)
						return err
					},
					func(_ record.NodeID, c *home.Config) error {
						before := len(c.Peers)
						c.Peers = slices.DeleteFunc(c.Peers, func(address string) bool { return configured(address).PeerID == id })
						if len(c.Peers) == before {
							return api.Fail(api.CodeFailed, "village peer list", "%s is not a peer that this node connects to", id)
						}
						v.Peers = allConfigured(c)
						return nil
					})
				if err != nil {
					return err
				}
				v.Schema = schema(cmd)
				return a.answer(cmd, v, func(w io.Writer) error { return table.Peers(w, v) })
			}),
		})
}

func allConfigured(c *home.Config) []api.Peer {
	peers := make([]api.Peer, len(c.Peers))
	for i, address := range c.Peers {
		peers[i] = configured(address)
	}
	return peers
}

// configured is a peer of which nothing but its checked address is known.
func configured(address string) api.Peer {
	p := api.Peer{Addresses: []string{address}}
	if id, err := home.PeerOf(address); err == nil {
		p.PeerID = id
	}
	return p
}

func newMember(a *app) *cobra.Command {
	return group("member", "Nodes that may take part in the federation",
		&cobra.Command{
			Use: "list", Short: "List the members of a closed federation", Args: need(),
			RunE: action(func(cmd *cobra.Command, _ []string) error {
				client, err := a.client()
				if err != nil {
					return err
				}
				v, err := client.Members(cmd.Context())
				if err != nil {
					return err
				}
				v.Schema = schema(cmd)
				return a.answer(cmd, v, func(w io.Writer) error { return table.Members(w, v) })
			}),
		},
		a.memberChange("add", "Admit a node; the first one closes the federation",
			func(client *api.Client, cmd *cobra.Command, id record.NodeID) (api.Members, error) {
				return client.AddMember(cmd.Context(), id)
			},
			func(members []record.NodeID, id record.NodeID) ([]record.NodeID, error) {
				if !slices.Contains(members, id) {
					members = append(members, id)
				}
				return members, nil
			}),
		a.memberChange("remove", "Take a node off the member list and disconnect it",
			func(client *api.Client, cmd *cobra.Command, id record.NodeID) (api.Members, error) {
				return client.RemoveMember(cmd.Context(), id)
			},
			func(members []record.NodeID, id record.NodeID) ([]record.NodeID, error) {
				i := slices.Index(members, id)
				if i < 0 {
					return nil, api.Fail(api.CodeFailed, "village member list", "%s is not on the member list", id)
				}
				return slices.Delete(members, i, i+1), nil
			}))
}

// memberChange makes a command that changes the member list, through the daemon
// or, while none runs, in the config.
func (a *app) memberChange(verb, short string,
	ask func(*api.Client, *cobra.Command, record.NodeID) (api.Members, error),
	edit func([]record.NodeID, record.NodeID) ([]record.NodeID, error),
) *cobra.Command {
	return &cobra.Command{
		Use: verb + " PEER-ID", Short: short, Args: need("a PEER-ID"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: action(func(cmd *cobra.Command, args []string) error {
			id, err := parseNodeID(cmd, args[0])
			if err != nil {
				return err
			}
			var v api.Members
			err = a.change(cmd,
				func(client *api.Client) (err error) {
					v, err = ask(client, cmd, id)
					return err
				},
				func(self record.NodeID, c *home.Config) (err error) {
					if c.Members, err = edit(c.Members, id); err != nil {
						return err
					}
					v.Closed = true
					for _, m := range append([]record.NodeID{self}, c.Members...) {
						v.Members = append(v.Members, api.Member{PeerID: m, Self: m == self})
					}
					return nil
				})
			if err != nil {
				return err
			}
			v.Schema = schema(cmd)
			return a.answer(cmd, v, func(w io.Writer) error { return table.Members(w, v) })
		}),
	}
}

// change has the daemon change the config, or does it while none runs, and
// says so.
func (a *app) change(cmd *cobra.Command, ask func(*api.Client) error, edit func(self record.NodeID, c *home.Config) error) error {
	client, err := a.client()
	if err == nil {
		return ask(client)
	}
	if api.AsError(err).Code != api.CodeNotRunning {
		return err
	}
	h, err := a.load()
	if err != nil {
		return err
	}
	if err := h.Lock(); err != nil {
		return err
	}
	defer h.Unlock()
	if err := h.Update(func(c *home.Config) error { return edit(h.ID, c) }); err != nil {
		return err
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "the daemon is not running; the config is changed and counts from its next start")
	return nil
}
