package server

import (
	"context"
	"errors"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"village/node/api"
	"village/node/home"
	"village/node/p2p"
	"village/protocol/record"
)

func (s *Server) identity(context.Context, api.None) (api.Identity, error) {
	c := s.Home.Config()
	return api.Identity{
		Schema: "village.id/v1", PeerID: s.Home.ID, Nation: c.Nation, Name: c.Name,
		Federation: c.Federation, Addresses: s.Network.Addrs(),
	}, nil
}

func (s *Server) status(context.Context, api.None) (api.Status, error) {
	c, traffic := s.Home.Config(), s.Network.Stats()
	answer := api.Status{
		Schema: "village.status/v1", PeerID: s.Home.ID, Nation: c.Nation, Name: c.Name, Federation: c.Federation,
		Closed: c.Members != nil, Members: len(s.Home.Members()),
		Datasets: len(s.Store.CIDs(record.KindManifest)), Tasks: []api.TaskSummary{},
		StoreBytes: s.Store.Bytes(), FreeBytes: s.Store.FreeBytes(), ResidentBytes: resident(),
		BytesSent: traffic.BytesSent, BytesReceived: traffic.BytesReceived,
		MessagesDropped: traffic.Dropped, MessagesRefused: traffic.Refused, Lost: s.Models.Lost(), Listening: !s.Tasks.Resumed(),
		UptimeSeconds: time.Since(s.started).Seconds(), LastError: s.Log.Last(),
	}
	if err := s.Store.Writable(); err != nil { // now, whoever has tried
		answer.LastError = err.Error()
	}
	for _, p := range s.Network.Peers() {
		if p.Connected {
			answer.Peers++
		}
	}
	for _, t := range s.Tasks.List() {
		if t.Stage != api.StageDone {
			answer.Tasks = append(answer.Tasks, t)
		}
	}
	return answer, nil
}

func (s *Server) listTasks(context.Context, api.None) (api.Tasks, error) {
	return api.Tasks{Schema: "village.task.list/v1", Tasks: s.Tasks.List()}, nil
}

func (s *Server) listDatasets(_ context.Context, q url.Values) (api.Datasets, error) {
	mine, domain := q.Get("mine") == "1", q.Get("domain")
	list := slices.DeleteFunc(s.Datasets.List(), func(d api.Dataset) bool {
		return mine && !d.Mine || domain != "" && d.Domain != domain
	})
	return api.Datasets{Schema: "village.dataset.list/v1", Datasets: list}, nil
}

// resident is the process's resident memory in bytes, 0 where the system does
// not tell.
func resident() uint64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseUint(fields[1], 10, 64)
	return pages * uint64(os.Getpagesize())
}

func (s *Server) peers(schema string) api.Peers {
	answer := api.Peers{Schema: schema, Peers: []api.Peer{}}
	called := s.Datasets.Names()
	for _, p := range s.Network.Peers() {
		is := called[p.ID]
		answer.Peers = append(answer.Peers, api.Peer{
			PeerID: p.ID, Nation: is.Nation, Name: is.Name, Addresses: p.Addrs, Connected: p.Connected,
		})
	}
	return answer
}

// addPeer connects to a peer, and stays connected for good. Where it does not
// come to that yet, the address is kept all the same.
func (s *Server) addPeer(ctx context.Context, a api.AddPeer) (none api.Peers, err error) {
	id, err := home.PeerOf(a.Address)
	if err != nil {
		return none, api.Fail(api.CodeUsage, "village id, on the other node, prints its address", "%v", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	problem := s.Network.Connect(ctx, a.Address)
	shut, unreachable := errors.Is(problem, p2p.ErrShut), errors.Is(problem, p2p.ErrUnreachable)
	switch {
	case errors.Is(problem, p2p.ErrForeign):
		return none, api.Fail(api.CodeFailed, "village id, on either node, prints the name of its federation",
			"%s is not a node of the federation %q; it is not added", id, s.Home.Config().Federation)
	case problem != nil && !shut && !unreachable:
		return none, api.Fail(api.CodeFailed, "village status", "cannot connect to %s: %v", a.Address, problem)
	}
	err = s.Home.Update(func(c *home.Config) error {
		if !slices.Contains(c.Peers, a.Address) {
			c.Peers = append(c.Peers, a.Address)
		}
		return nil
	})
	switch {
	case err != nil:
		return none, err
	case shut:
		return none, api.Fail(api.CodeDenied, "at the other node: village member add "+s.Home.ID.String(),
			"%s hung up: it is in a closed federation that does not list this node; the address is kept, for when it does", id)
	case unreachable:
		return none, api.Fail(api.CodeFailed, "village peer remove "+id.String(),
			"%s cannot be reached yet (%s); the address is kept, and the daemon goes on trying", id, strings.Join(strings.Fields(problem.Error()), " "))
	}
	return s.peers("village.peer.add/v1"), nil
}

// removePeer forgets the addresses of a peer, and hangs up on it.
func (s *Server) removePeer(_ context.Context, id record.NodeID) (api.Peers, error) {
	kept := s.Network.Forget(id)
	err := s.Home.Update(func(c *home.Config) error {
		c.Peers = slices.DeleteFunc(c.Peers, func(address string) bool {
			of, err := home.PeerOf(address)
			kept = kept || err == nil && of == id
			return err == nil && of == id
		})
		return nil
	})
	if err == nil && !kept {
		err = api.Fail(api.CodeFailed, "village peer list", "%s is not a peer that this node connects to", id)
	}
	return s.peers("village.peer.remove/v1"), err
}

func (s *Server) members(schema string) api.Members {
	c := s.Home.Config()
	connected := map[record.NodeID]bool{s.Home.ID: true}
	for _, p := range s.Network.Peers() {
		connected[p.ID] = connected[p.ID] || p.Connected
	}
	answer := api.Members{Schema: schema, Closed: c.Members != nil, Members: []api.Member{}}
	for _, id := range s.Home.Members() {
		answer.Members = append(answer.Members, api.Member{PeerID: id, Connected: connected[id], Self: id == s.Home.ID})
	}
	return answer
}

// addMember lists a node; the first one closes the federation.
func (s *Server) addMember(_ context.Context, a api.AddMember) (api.Members, error) {
	id := a.PeerID
	err := s.changeMembers(func(m []record.NodeID) []record.NodeID {
		if m == nil {
			m = []record.NodeID{}
		}
		if id != s.Home.ID && !slices.Contains(m, id) {
			m = append(m, id)
		}
		return m
	})
	return s.members("village.member.add/v1"), err
}

func (s *Server) removeMember(_ context.Context, id record.NodeID) (api.Members, error) {
	if !slices.Contains(s.Home.Config().Members, id) {
		return api.Members{}, api.Fail(api.CodeFailed, "village member list", "%s is not on the member list", id)
	}
	err := s.changeMembers(func(m []record.NodeID) []record.NodeID {
		return slices.DeleteFunc(m, func(other record.NodeID) bool { return other == id })
	})
	return s.members("village.member.remove/v1"), err
}

func (s *Server) changeMembers(change func([]record.NodeID) []record.NodeID) error {
	err := s.Home.Update(func(c *home.Config) error {
		c.Members = change(c.Members)
		return nil
	})
	if err != nil {
		return err
	}
	s.Network.SetMembers(s.Home.Members())
	return nil
}
