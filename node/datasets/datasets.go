// Package datasets keeps the node's own rows at home, publishes manifests of
// them, and lists the manifests of all nodes.
package datasets

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"village/node/api"
	"village/node/contacts"
	"village/node/home"
	"village/node/ingest"
	"village/node/records"
	"village/protocol/dataset"
	"village/protocol/record"
	"village/protocol/task"
	"village/storage"
)

// Datasets are the own and the others' datasets.
type Datasets struct {
	home   *home.Home
	book   *records.Book
	adding sync.Mutex // one at a time: two would take twice the memory, and number two versions alike

	progress atomic.Pointer[api.Progress] // of a file that is being added

	naming sync.Mutex
	signed map[record.CID]signature

	using   sync.Mutex
	used    map[record.CID]bool // own datasets that a task has read since the start
	dropped chan struct{}       // holds one where rows have been dropped
}

// New returns the datasets of a node.
func New(h *home.Home, b *records.Book) *Datasets {
	return &Datasets{home: h, book: b, used: map[record.CID]bool{}, dropped: make(chan struct{}, 1)}
}

// AddFile cleans a file's rows and adds them. It stops when ctx ends, without a trace.
func (d *Datasets) AddFile(ctx context.Context, a api.AddDataset) (api.AddedDataset, error) {
	return d.addFile(ctx, a, func(api.Progress) {})
}

// Adding tells how far AddFile is.
func (d *Datasets) Adding() api.Progress {
	if p := d.progress.Load(); p != nil {
		return *p
	}
	return api.Progress{}
}

func (d *Datasets) addFile(ctx context.Context, a api.AddDataset, told func(api.Progress)) (api.AddedDataset, error) {
	if !filepath.IsAbs(a.Path) {
		return api.AddedDataset{}, api.Fail(api.CodeUsage, "village dataset add FILE", "the path %q is not absolute", a.Path)
	}
	d.adding.Lock()
	defer d.adding.Unlock()
	// Else the garbage of a large table would take as much as the table.
	defer debug.SetGCPercent(debug.SetGCPercent(25))
	defer d.progress.Store(nil)
	tell := func(doing string, done, all int64) error {
		p := api.Progress{Doing: doing, Share: float64(done) / float64(max(1, all))}
		d.progress.Store(&p)
		told(p)
		return ctx.Err()
	}
	table, hints, err := ingest.File(a.Path, ingest.Options{
		Columns: a.Columns, Levels: a.Options.Levels,
		Tell: func(read, size int64) error { return tell("reading", read, size) },
	})
	if err != nil {
		return api.AddedDataset{}, api.Fail(api.CodeFailed, "village dataset add --help", "%v", err)
	}
	cleaned, err := dataset.CleanPacked(table, a.Options, func(done, all int) error { return tell("cleaning", int64(done), int64(all)) })
	if err != nil {
		return api.AddedDataset{}, api.Fail(api.CodeFailed, "village dataset add --help", "%s: %v", filepath.Base(a.Path), err)
	}
	cleaned.Hints = append(hints, cleaned.Hints...)
	if err := tell("storing", 0, 1); err != nil {
		return api.AddedDataset{}, err
	}
	return d.add(cleaned)
}

// Add keeps cleaned rows at home, of which it takes the cells, and publishes their
// manifest.
func (d *Datasets) Add(cleaned dataset.Cleaned) (api.AddedDataset, error) {
	d.adding.Lock()
	defer d.adding.Unlock()
	return d.add(cleaned)
}

func (d *Datasets) add(cleaned dataset.Cleaned) (api.AddedDataset, error) {
	slot := record.Slot{Kind: record.KindManifest, Subject: cleaned.Manifest.Name, Author: d.home.ID}
	version := d.book.Store.Highest(slot) + 1
	var drift []dataset.ColumnDrift
	if held := d.book.Store.Newest(slot); len(held) > 0 {
		if before, err := d.Manifest(held[0].CID); err == nil {
			drift = dataset.Drift(before, cleaned.Rows)
		}
	}
	kept := cleaned.Rows.Rows()
	rows := encodeRows(cleaned.Rows)
	config, store := d.home.Config(), d.book.Store
	manifest := cleaned.Manifest
	manifest.Nation, manifest.Node = config.Nation, config.Name
	manifest.Created = uint64(time.Now().Unix())
	salt := make([]byte, 32)
	rand.Read(salt)
	commitment := sha256.New()
	commitment.Write(salt)
	for _, piece := range rows {
		commitment.Write(piece)
	}
	manifest.Commitment = commitment.Sum(nil)

	r, content, err := d.book.Sign(record.KindManifest, manifest.Name, version, manifest)
	if errors.Is(err, records.ErrListening) {
		return api.AddedDataset{}, err
	}
	if err != nil {
		return api.AddedDataset{}, api.Fail(api.CodeFailed, "village dataset add --help", "peers would refuse this dataset: %v", err)
	}
	// Rows and salt first: a manifest that stands has its rows behind it.
	if err := store.PutRows(r.CID, rows...); err != nil {
		return api.AddedDataset{}, fmt.Errorf("cannot keep the rows: %w", err)
	}
	if err := store.PutPrivate("salt/"+r.CID.String(), salt); err != nil {
		return api.AddedDataset{}, fmt.Errorf("cannot keep the salt: %w", err)
	}
	// A newer version will replace this record, but not the tasks that it joined.
	if err := store.PutPrivate("manifest/"+r.CID.String(), r.Bytes); err != nil {
		return api.AddedDataset{}, fmt.Errorf("cannot keep the manifest: %w", err)
	}
	if err := d.book.Announce(r, content); err != nil {
		return api.AddedDataset{}, err
	}
	if err := d.supersede(); err != nil {
		d.book.Log.Fail(fmt.Errorf("rows that newer ones have replaced stay on the disk: %w", err))
	}
	return api.AddedDataset{
		Schema: "village.dataset.add/v1", CID: r.CID, Name: manifest.Name,
		Read: cleaned.Read, Rows: uint64(kept), Dropped: cleaned.Dropped, LeftOut: cleaned.LeftOut,
		Hints: append([]string{}, cleaned.Hints...), // never null
		Drift: drift,
	}, nil
}

// supersede drops the rows of versions that newer ones have replaced, but for those
// with which the node has joined a task.
func (d *Datasets) supersede() error {
	store := d.book.Store
	d.using.Lock()
	defer d.using.Unlock()
	keep := maps.Clone(d.used)
	for _, cid := range store.CIDs(record.KindManifest) {
		keep[cid] = true
	}
	for _, r := range store.Records(record.KindEnrolment, d.home.ID) {
		var e task.Enrolment
		if err := record.Decode(r.Payload, &e); err != nil {
			return err
		}
		keep[e.Manifest] = true
	}
	const prefix = "manifest/"
	names, err := store.PrivateKeys(prefix)
	if err != nil {
		return err
	}
	for _, name := range names {
		cid, err := record.ParseCID(strings.TrimPrefix(name, prefix))
		if err != nil || keep[cid] {
			continue
		}
		if err := store.DropRows(cid, name, "salt/"+cid.String()); err != nil {
			return err
		}
		select {
		case d.dropped <- struct{}{}:
		default:
		}
	}
	return nil
}

// Shrink gives the space of dropped rows back to the disk, until ctx ends.
func (d *Datasets) Shrink(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.dropped:
		}
		if err := d.book.Store.Reclaim(); err != nil && ctx.Err() == nil {
			d.book.Log.Fail(fmt.Errorf("the space of rows that newer ones have replaced is not free yet: %w", err))
		}
	}
}

// Drift tells how far a file's rows are from what a manifest says of others.
func (d *Datasets) Drift(q api.Drift) (api.Drifted, error) {
	next := "village dataset show " + q.Dataset.String()
	m, err := d.Manifest(q.Dataset)
	if err != nil {
		return api.Drifted{}, api.Fail(api.CodeFailed, "village dataset list", "%v", err)
	}
	levels := map[string][]string{} // NA may be one
	for _, c := range m.Columns {
		levels[c.Name] = c.Levels
	}
	table, _, err := ingest.File(q.Path, ingest.Options{Columns: q.Columns, Levels: levels})
	if err != nil {
		return api.Drifted{}, api.Fail(api.CodeFailed, next, "%v", err)
	}
	return api.Drifted{Schema: "village.dataset.drift/v1", CID: q.Dataset, Columns: dataset.Drift(m, table)}, nil
}

// Table reads an own dataset.
func (d *Datasets) Table(cid record.CID) (m dataset.Manifest, rows dataset.Table, err error) {
	d.using.Lock()
	d.used[cid] = true
	d.using.Unlock()
	if m, err = d.Manifest(cid); err != nil {
		return m, rows, err
	}
	b, err := d.book.Store.Rows(cid)
	if err != nil {
		return m, rows, fmt.Errorf("cannot read the rows of dataset %q: %w", m.Name, err)
	}
	rows, err = DecodeRows(b)
	return m, rows, err
}

// Rows are the rows of an own dataset, for its owner.
func (d *Datasets) Rows(cid record.CID) (api.Rows, error) {
	m, rows, err := d.Table(cid)
	if errors.Is(err, storage.ErrNotFound) {
		err = fmt.Errorf("%s is not a dataset of this node, and the rows of others stay with them", cid)
	}
	if err != nil {
		return api.Rows{}, api.Fail(api.CodeFailed, "village dataset list --mine", "%v", err)
	}
	return api.Rows{Schema: "village.dataset.export/v1", CID: cid, Columns: m.Columns, Rows: rows.Rows}, nil
}

// Manifest reads a manifest, also an own one that a newer version has replaced.
func (d *Datasets) Manifest(cid record.CID) (dataset.Manifest, error) {
	r, err := d.book.Store.Record(cid)
	if errors.Is(err, storage.ErrNotFound) {
		var b []byte
		if b, err = d.book.Store.Private("manifest/" + cid.String()); err == nil {
			r, err = record.Trusted(b, cid)
		}
	}
	if err != nil {
		return dataset.Manifest{}, fmt.Errorf("dataset %s: %w", cid, err)
	}
	return dataset.ManifestOf(r)
}

// List is the manifests in the store, of certain nodes alone where any are named.
func (d *Datasets) List(of ...record.NodeID) []api.Dataset {
	list := []api.Dataset{}
	for _, r := range d.book.Store.Records(record.KindManifest, of...) {
		if is, err := d.describe(r); err == nil {
			list = append(list, is)
		}
	}
	return list
}

// Show describes one dataset.
func (d *Datasets) Show(cid record.CID) (api.ShownDataset, error) {
	r, err := d.book.Store.Record(cid)
	if err != nil || r.Kind != record.KindManifest {
		return api.ShownDataset{}, api.Fail(api.CodeFailed, "village dataset list", "no dataset %s is known here", cid)
	}
	is, err := d.describe(r)
	return api.ShownDataset{Schema: "village.dataset.show/v1", Dataset: is}, err
}

func (d *Datasets) describe(r record.Record) (api.Dataset, error) {
	m, err := dataset.ManifestOf(r)
	if err != nil {
		return api.Dataset{}, err
	}
	return api.Dataset{CID: r.CID, PeerID: r.Author, Mine: r.Author == d.home.ID, Features: m.Features(), Manifest: m}, nil
}

// Names tells what nodes call themselves: in their contact, else in their newest
// manifest.
func (d *Datasets) Names() map[record.NodeID]api.NamedNode {
	d.naming.Lock()
	defer d.naming.Unlock()
	held := d.book.Store.CIDs(record.KindManifest)
	signed := make(map[record.CID]signature, len(held))
	for _, cid := range held {
		by, known := d.signed[cid]
		if !known {
			if by, known = d.signature(cid); !known {
				continue
			}
		}
		signed[cid] = by
	}
	d.signed = signed // without those that are no longer held

	newest := map[record.NodeID]signature{}
	for _, by := range signed {
		if before, ok := newest[by.PeerID]; !ok || by.newer(before) {
			newest[by.PeerID] = by
		}
	}
	names := make(map[record.NodeID]api.NamedNode, len(newest))
	for id, by := range newest {
		names[id] = by.NamedNode
	}
	for id, c := range contacts.All(d.book) {
		names[id] = api.NamedNode{PeerID: id, Nation: c.Nation, Name: c.Name}
	}
	return names
}

// signature is who has published a manifest, and when: what is kept of each in
// memory, because to decode a thousand takes a second.
type signature struct {
	api.NamedNode
	created uint64
}

// newer orders the signatures of one node; of two of one second it always prefers
// the same.
func (a signature) newer(b signature) bool {
	return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(a.Name, b.Name)) > 0
}

func (d *Datasets) signature(cid record.CID) (by signature, ok bool) {
	r, err := d.book.Store.Record(cid)
	if err != nil {
		return by, false
	}
	m, err := dataset.ManifestOf(r)
	return signature{api.NamedNode{PeerID: r.Author, Nation: m.Nation, Name: m.Node}, m.Created}, err == nil
}

// Newest finds of each of the nodes the newest dataset that has a target and columns.
func (d *Datasets) Newest(nodes []record.NodeID, target string, columns []string) ([]dataset.Manifest, error) {
	newest, lack := map[record.NodeID]dataset.Manifest{}, map[record.NodeID]error{}
	for _, is := range d.List(nodes...) {
		if err := is.Lacks(target, columns); err != nil {
			if lack[is.PeerID] == nil || is.Target == target {
				lack[is.PeerID] = err
			}
		} else if before, ok := newest[is.PeerID]; !ok || is.Created >= before.Created {
			newest[is.PeerID] = is.Manifest
		}
	}
	var manifests []dataset.Manifest
	for _, id := range nodes {
		m, ok := newest[id]
		switch {
		case ok:
			manifests = append(manifests, m)
		case lack[id] != nil:
			return nil, lack[id]
		default:
			return nil, fmt.Errorf("no dataset of node %s is known here; it may not have added one, or this node has not been connected to it", id)
		}
	}
	return manifests, nil
}

// Choose checks the dataset that was named for a task, or finds the only own one
// that fits.
func (d *Datasets) Choose(t task.Task, j api.Join) (record.CID, error) {
	var fit []api.Dataset
	var lack error
	for _, is := range d.List(d.home.ID) {
		if j.Dataset.Defined() && is.CID != j.Dataset {
			continue
		}
		if err := is.Fits(t.Encoding); err != nil {
			if lack == nil || is.Target == t.Encoding.Target {
				lack = err
			}
		} else {
			fit = append(fit, is)
		}
	}
	const next = "village dataset list --mine"
	switch {
	case len(fit) == 1:
		return fit[0].CID, nil
	case len(fit) > 1:
		return record.CID{}, api.Fail(api.CodeUsage, fmt.Sprintf("village task join %s --dataset %s", j.Task, fit[0].CID),
			"%d own datasets fit the task; name the one to use", len(fit))
	case lack != nil:
		return record.CID{}, api.Fail(api.CodeFailed, next, "%v", lack)
	case j.Dataset.Defined():
		return record.CID{}, api.Fail(api.CodeFailed, next, "%s is not a dataset of this node", j.Dataset)
	}
	return record.CID{}, api.Fail(api.CodeFailed, "village dataset add FILE --name N --target "+t.Encoding.Target, "this node has no dataset")
}
