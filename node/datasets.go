package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/csv"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"village/node/api"
	"village/node/ingest"
	"village/protocol/dataset"
	"village/protocol/member"
	"village/protocol/record"
	"village/protocol/task"
	"village/storage"
)

// addDataset cleans a file's rows, keeps them at home, and publishes the
// manifest.
func (n *Node) addDataset(a api.AddDataset) (api.AddedDataset, error) {
	if !filepath.IsAbs(a.Path) {
		return api.AddedDataset{}, api.Fail(api.CodeUsage, "village dataset add FILE", "the path %q is not absolute", a.Path)
	}
	table, hints, err := ingest.File(a.Path, ingest.Options{Columns: a.Columns, Levels: a.Options.Levels})
	if err != nil {
		return api.AddedDataset{}, api.Fail(api.CodeFailed, "village dataset add --help", "%v", err)
	}
	cleaned, err := dataset.Clean(table, a.Options)
	if err != nil {
		return api.AddedDataset{}, api.Fail(api.CodeFailed, "village dataset add --help", "%s: %v", filepath.Base(a.Path), err)
	}
	cleaned.Hints = append(hints, cleaned.Hints...)
	return n.AddDataset(cleaned)
}

// AddDataset keeps cleaned rows at home and publishes their manifest.
func (n *Node) AddDataset(cleaned dataset.Cleaned) (api.AddedDataset, error) {
	rows, err := encodeRows(cleaned.Table)
	if err != nil {
		return api.AddedDataset{}, err
	}
	config := n.home.Config()
	manifest := cleaned.Manifest
	manifest.Nation, manifest.Node = config.Nation, config.Name
	manifest.Created = uint64(time.Now().Unix())
	salt := make([]byte, 32)
	rand.Read(salt)
	commitment := sha256.Sum256(append(slices.Clone(salt), rows...))
	manifest.Commitment = commitment[:]

	n.adding.Lock()
	defer n.adding.Unlock()
	slot := record.Slot{Kind: record.KindManifest, Subject: manifest.Name, Author: n.home.ID}
	version := uint64(1)
	var drift []dataset.ColumnDrift
	if held := n.store.Held(slot); len(held) > 0 {
		version = held[0].Number + 1
		if before, err := n.manifest(held[0].CID); err == nil {
			drift = dataset.Drift(before, cleaned.Table)
		}
	}
	r, err := record.Sign(n.home.Key, config.Federation, record.KindManifest, manifest.Name, version, manifest)
	if err != nil {
		return api.AddedDataset{}, err
	}
	if _, err := dataset.ManifestOf(r); err != nil {
		return api.AddedDataset{}, api.Fail(api.CodeFailed, "village dataset add --help", "peers would refuse this dataset: %v", err)
	}
	// Rows and salt first: a manifest that stands has its rows behind it.
	if err := n.store.PutRows(r.CID, rows); err != nil {
		return api.AddedDataset{}, fmt.Errorf("cannot keep the rows: %w", err)
	}
	if err := n.store.PutPrivate("salt/"+r.CID.String(), salt); err != nil {
		return api.AddedDataset{}, fmt.Errorf("cannot keep the salt: %w", err)
	}
	// A newer version will replace this record, but not the tasks that it joined.
	if err := n.store.PutPrivate("manifest/"+r.CID.String(), r.Bytes); err != nil {
		return api.AddedDataset{}, fmt.Errorf("cannot keep the manifest: %w", err)
	}
	if err := n.announce(r); err != nil {
		return api.AddedDataset{}, err
	}
	return api.AddedDataset{
		Schema: "village.dataset.add/v1", CID: r.CID, Name: manifest.Name,
		Read: cleaned.Read, Rows: uint64(len(cleaned.Table.Rows)), Dropped: cleaned.Dropped, LeftOut: cleaned.LeftOut,
		Hints: append([]string{}, cleaned.Hints...), // never null
		Drift: drift,
	}, nil
}

// drift tells how far a file's rows are from what a manifest says of others.
func (n *Node) drift(d api.Drift) (api.Drifted, error) {
	next := "village dataset show " + d.Dataset.String()
	m, err := n.manifest(d.Dataset)
	if err != nil {
		return api.Drifted{}, api.Fail(api.CodeFailed, "village dataset list", "%v", err)
	}
	levels := map[string][]string{} // NA may be one
	for _, c := range m.Columns {
		levels[c.Name] = c.Levels
	}
	table, _, err := ingest.File(d.Path, ingest.Options{Columns: d.Columns, Levels: levels})
	if err != nil {
		return api.Drifted{}, api.Fail(api.CodeFailed, next, "%v", err)
	}
	return api.Drifted{Schema: "village.dataset.drift/v1", CID: d.Dataset, Columns: dataset.Drift(m, table)}, nil
}

// announce makes an own record durable and then tells the others.
func (n *Node) announce(r record.Record) error {
	content, err := n.decode(r)
	if err != nil {
		return err
	}
	if _, err := n.store.PutRecord(r); err != nil {
		return fmt.Errorf("cannot store the record: %w", err)
	}
	n.learn(r, content)
	if err := n.network.Publish(r); err != nil {
		n.log.Warn("gossip refused a record; peers will pull it", "error", err)
	}
	return nil
}

// encodeRows and decodeRows keep a cleaned table as CSV.
func encodeRows(t dataset.Table) ([]byte, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	if err := w.Write(t.Columns); err != nil {
		return nil, err
	}
	if err := w.WriteAll(t.Rows); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func decodeRows(b []byte) (dataset.Table, error) {
	rows, err := csv.NewReader(bytes.NewReader(b)).ReadAll()
	if err != nil || len(rows) == 0 {
		return dataset.Table{}, fmt.Errorf("the rows at home are damaged: %w", err)
	}
	return dataset.Table{Columns: rows[0], Rows: rows[1:]}, nil
}

// site reads the rows of an own dataset for a task, and the model that the task
// goes on from.
func (n *Node) site(ctx context.Context, id record.CID, t task.Task, manifest record.CID) (*member.Site, *task.Model, error) {
	parent, err := n.parent(ctx, t)
	if err != nil {
		return nil, nil, err
	}
	site, err := n.rows(id, t, manifest, parent)
	return site, parent, err
}

func (n *Node) rows(id record.CID, t task.Task, manifest record.CID, parent *task.Model) (*member.Site, error) {
	m, rows, err := n.table(manifest)
	if err != nil {
		return nil, err
	}
	split := ""
	for _, c := range m.Columns {
		if c.Role == dataset.Split {
			split = c.Name
		}
	}
	return member.NewSite(n.home.ID, id, t, rows, split, parent)
}

// table reads an own dataset.
func (n *Node) table(cid record.CID) (m dataset.Manifest, rows dataset.Table, err error) {
	if m, err = n.manifest(cid); err != nil {
		return m, rows, err
	}
	b, err := n.store.Rows(cid)
	if err != nil {
		return m, rows, fmt.Errorf("cannot read the rows of dataset %q: %w", m.Name, err)
	}
	rows, err = decodeRows(b)
	return m, rows, err
}

// ownRows are the rows of an own dataset, for its owner.
func (n *Node) ownRows(cid record.CID) (api.Rows, error) {
	m, rows, err := n.table(cid)
	if errors.Is(err, storage.ErrNotFound) {
		err = fmt.Errorf("%s is not a dataset of this node, and the rows of others stay with them", cid)
	}
	if err != nil {
		return api.Rows{}, api.Fail(api.CodeFailed, "village dataset list --mine", "%v", err)
	}
	return api.Rows{Schema: "village.dataset.export/v1", CID: cid, Columns: m.Columns, Rows: rows.Rows}, nil
}

// manifest reads a manifest, also an own one that a newer version has replaced.
func (n *Node) manifest(cid record.CID) (dataset.Manifest, error) {
	r, err := n.store.Record(cid)
	if errors.Is(err, storage.ErrNotFound) {
		var b []byte
		if b, err = n.store.Private("manifest/" + cid.String()); err == nil {
			r, err = record.Trusted(b, cid)
		}
	}
	if err != nil {
		return dataset.Manifest{}, fmt.Errorf("dataset %s: %w", cid, err)
	}
	return dataset.ManifestOf(r)
}

// datasets lists the manifests held.
func (n *Node) datasets() []api.Dataset {
	list := []api.Dataset{}
	for _, r := range n.store.Records(record.KindManifest) {
		if d, err := n.describe(r); err == nil {
			list = append(list, d)
		}
	}
	return list
}

// called tells what nodes call themselves in their newest manifests.
func (n *Node) called() map[record.NodeID]api.NamedNode {
	names := map[record.NodeID]api.NamedNode{}
	newest := map[record.NodeID]uint64{}
	for _, d := range n.datasets() {
		if d.Created >= newest[d.PeerID] {
			newest[d.PeerID] = d.Created
			names[d.PeerID] = api.NamedNode{PeerID: d.PeerID, Nation: d.Nation, Name: d.Node}
		}
	}
	return names
}

func (n *Node) describe(r record.Record) (api.Dataset, error) {
	m, err := dataset.ManifestOf(r)
	if err != nil {
		return api.Dataset{}, err
	}
	return api.Dataset{CID: r.CID, PeerID: r.Author, Mine: r.Author == n.home.ID, Features: m.Features(), Manifest: m}, nil
}
