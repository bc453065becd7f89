package table

import (
	"fmt"
	"io"

	"village/node/api"
	"village/protocol/figure"
	"village/protocol/record"
)

// Verified writes what of a model was found to hold, and a line for each node
// that its task names.
func Verified(w io.Writer, v api.Verified) error {
	signed, rostered := map[record.NodeID]bool{}, map[record.NodeID]bool{}
	for _, n := range v.Signers {
		signed[n.PeerID] = true
	}
	for _, n := range v.Roster {
		rostered[n.PeerID] = true
	}
	err := columns(w, [][]string{
		{"valid", v.CID.String()},
		{"name", Or(v.Name)},
		{"task", v.Task.String()},
		{"federation", Or(v.Federation)},
		{"signed", fmt.Sprintf("by %d of %d nodes; %d are a quorum", len(v.Signers), v.Named, v.Quorum)},
		{"roster", fmt.Sprintf("%s, %d nodes", v.RosterCID, len(v.Roster))},
		{"inputs", v.Inputs.String()},
		{"model", fmt.Sprintf("recomputed from %d updates, up to round %d: %d parameters, %s, byte for byte",
			len(v.Parts), v.Round, v.Parameters, figure.Bytes(v.Bytes))},
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(w)
	var rows [][]string
	add := func(n api.NamedNode, round, weight, part string) {
		rows = append(rows, []string{n.PeerID.String(), Or(label(n.Nation, n.Name)), yes(signed[n.PeerID]), yes(rostered[n.PeerID]), round, weight, part})
	}
	for _, p := range v.Parts {
		part := "in the model"
		if p.Late {
			part += ", joined late"
		}
		add(p.NamedNode, count(p.Round), count(p.Weight), part)
	}
	for _, o := range v.Out {
		round := figure.None
		if o.Round > 0 {
			round = count(o.Round)
		}
		add(o.NamedNode, round, figure.None, "out: "+Text(string(o.Why)))
	}
	return list(w, "no nodes", []string{"PEER ID", "NODE", "SIGNED", "IN ROSTER", "ROUND", "WEIGHT", "PART"}, rows)
}
