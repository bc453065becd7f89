package journal

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
)

var (
	errCrashed = errors.New("the machine is off")
	errFault   = errors.New("the disk has failed")
)

// The places that a disk may be deaf in.
const (
	syncOfNew    = "sync of a file that has no name yet"
	syncOfFile   = "sync of the journal"
	syncOfNames  = "sync of the directory"
	deafNowhere  = ""
	faultNowhere = -1
)

// disk is a directory that fails, tears writes, and forgets in a crash what was not
// synced: bytes of files, and names.
type disk struct {
	rng  *rand.Rand
	deaf string // the kind of sync that it acknowledges and leaves out

	ops     int // done so far
	crashAt int // the operation in which the machine goes off
	faultAt int // the operation that fails

	names   map[string]*inode
	durable []map[string]*inode // the names as they may be found after a crash, newest last
}

type inode struct {
	data, synced []byte
	named        bool // was renamed
}

func newDisk(seed uint64) *disk {
	return &disk{
		rng: rand.New(rand.NewPCG(seed, 1)), crashAt: faultNowhere, faultAt: faultNowhere,
		names: map[string]*inode{}, durable: []map[string]*inode{{}},
	}
}

// op is called before every operation that changes something.
func (d *disk) op() error {
	d.ops++
	switch {
	case d.crashAt >= 0 && d.ops > d.crashAt:
		return errCrashed
	case d.ops == d.faultAt:
		return errFault
	}
	return nil
}

// crashed is the disk as the next start finds it.
func (d *disk) crashed() *disk {
	next := newDisk(d.rng.Uint64())
	next.deaf = d.deaf
	for name, i := range d.durable[d.rng.IntN(len(d.durable))] {
		data := bytes.Clone(i.synced)
		if bytes.HasPrefix(i.data, i.synced) { // some of the rest may have come to the disk
			rest := bytes.Clone(i.data[len(i.synced):])
			rest = rest[:d.rng.IntN(len(rest)+1)]
			if len(rest) > 0 && d.rng.IntN(4) == 0 { // its length has, and its bytes have not
				clear(rest[d.rng.IntN(len(rest)):])
			}
			data = append(data, rest...)
		}
		next.names[name] = &inode{data: data, synced: data, named: i.named}
	}
	next.durable = []map[string]*inode{maps.Clone(next.names)}
	return next
}

func (d *disk) Read(name string) ([]byte, error) {
	if i := d.names[name]; i != nil {
		return bytes.Clone(i.data), nil
	}
	return nil, fs.ErrNotExist
}

func (d *disk) changed() { d.durable = append(d.durable, maps.Clone(d.names)) }

func (d *disk) Create(name string) (File, error) {
	if err := d.op(); err != nil {
		return nil, err
	}
	i := &inode{}
	d.names[name] = i
	d.changed()
	return &handle{d, i}, nil
}

func (d *disk) Append(name string) (File, error) {
	if d.names[name] == nil {
		return nil, fs.ErrNotExist
	}
	return &handle{d, d.names[name]}, nil
}

func (d *disk) Rename(from, to string) error {
	if err := d.op(); err != nil {
		return err
	}
	d.names[to] = d.names[from]
	d.names[to].named = true
	delete(d.names, from)
	d.changed()
	return nil
}

func (d *disk) Sync() error {
	if err := d.op(); err != nil {
		return err
	}
	if d.deaf != syncOfNames {
		d.durable = []map[string]*inode{maps.Clone(d.names)}
	}
	return nil
}

type handle struct {
	d *disk
	i *inode
}

func (h *handle) Write(b []byte) (int, error) {
	err := h.d.op()
	if err != nil { // half of it has come through
		b = b[:h.d.rng.IntN(len(b)+1)]
	}
	if !errors.Is(err, errCrashed) || h.d.ops == h.d.crashAt+1 {
		h.i.data = append(h.i.data, b...)
	}
	return len(b), err
}

func (h *handle) Truncate(size int64) error {
	if err := h.d.op(); err != nil {
		return err
	}
	h.i.data = h.i.data[:size:size]
	return nil
}

func (h *handle) Sync() error {
	if err := h.d.op(); err != nil {
		return err
	}
	if what := map[bool]string{false: syncOfNew, true: syncOfFile}[h.i.named]; h.d.deaf != what {
		h.i.synced = bytes.Clone(h.i.data)
	}
	return nil
}

func (h *handle) Close() error { return nil }
