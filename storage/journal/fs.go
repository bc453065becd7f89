package journal

import (
	"io"
	"os"
	"path/filepath"
)

// FS is what a journal needs of a directory. Tests put one in its place that fails,
// tears and forgets.
type FS interface {
	// Read returns a file's content, or fs.ErrNotExist.
	Read(name string) ([]byte, error)
	// Create makes an empty file, in place of one of that name.
	Create(name string) (File, error)
	// Append opens a file to write at its end.
	Append(name string) (File, error)
	Rename(from, to string) error
	// Sync makes durable which names there are, and for which files they stand.
	Sync() error
}

// File is open for writing at its end.
type File interface {
	io.WriteCloser
	// Truncate cuts the file to so many bytes.
	Truncate(size int64) error
	// Sync makes durable what was written.
	Sync() error
}

// Dir is a directory of the system, as an [FS].
type Dir struct {
	*os.File
	// Light leaves out all syncing.
	Light bool
}

func (d Dir) path(name string) string { return filepath.Join(d.Name(), name) }

// Read is of [FS].
func (d Dir) Read(name string) ([]byte, error) { return os.ReadFile(d.path(name)) }

// Create is of [FS].
func (d Dir) Create(name string) (File, error) { return d.open(name, os.O_CREATE|os.O_TRUNC) }

// Append is of [FS].
func (d Dir) Append(name string) (File, error) { return d.open(name, 0) }

func (d Dir) open(name string, flag int) (File, error) {
	f, err := os.OpenFile(d.path(name), os.O_WRONLY|os.O_APPEND|flag, 0o600)
	if err != nil {
		return nil, err
	}
	return file{f, d.Light}, nil
}

// Rename is of [FS].
func (d Dir) Rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }

// Sync is of [FS].
func (d Dir) Sync() error {
	if d.Light {
		return nil
	}
	return d.File.Sync()
}

type file struct {
	*os.File
	light bool
}

// Sync is of [File].
func (f file) Sync() error {
	if f.light {
		return nil
	}
	return f.File.Sync()
}
