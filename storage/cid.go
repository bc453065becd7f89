package storage

import (
	"context"
	"fmt"
	"io"

	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	ipld "github.com/ipfs/go-ipld-format"

	"village/protocol/record"
)

// ArtifactCID returns the CID under which [Store.AddArtifact] would store the
// bytes of r, and stores nothing.
func ArtifactCID(r io.Reader) (record.CID, error) {
	c, err := layout(r, unstored{})
	if err != nil {
		return record.CID{}, fmt.Errorf("CID of an artifact: %w", err)
	}
	return c, nil
}

// layout gives sink the nodes of the file that r holds, children before their
// parents, and returns the CID of its root. It asks sink for nothing back.
func layout(r io.Reader, sink ipld.DAGService) (record.CID, error) {
	builder, err := (&helpers.DagBuilderParams{
		Maxlinks: linksPerNode, RawLeaves: true, CidBuilder: merkledag.V1CidPrefix(), Dagserv: sink,
	}).New(chunk.NewSizeSplitter(r, chunkBytes))
	if err != nil {
		return record.CID{}, err
	}
	root, err := balanced.Layout(builder)
	if err != nil {
		return record.CID{}, err
	}
	return record.CID{Cid: root.Cid()}, nil
}

// unstored lets go of what it is given.
type unstored struct{ dag }

func (unstored) Add(context.Context, ipld.Node) error { return nil }
