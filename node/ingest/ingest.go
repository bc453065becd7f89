// Package ingest reads the files in which owners keep their rows: CSV, gzipped
// or not, and Parquet.
package ingest

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"village/protocol/dataset"
)

const (
	// MaxColumns is the most columns of a file.
	MaxColumns = 10_000
	// MaxTable is the most bytes that a file's table may take in memory, and
	// also the most text that a CSV file may have when it is decompressed.
	MaxTable = 2 << 30

	// What a row and a cell count for beside their text, which is what they take
	// where the table is unpacked.
	sliceBytes, stringBytes = 24, 16
)

// Options is what an owner says of a file's form.
type Options struct {
	// Columns names the columns of a CSV file that has no header.
	Columns []string
	// Levels are values, by column, that count as such in a CSV file even where
	// they look like a missing one, as NA does.
	Levels map[string][]string
	// Tell, if set, is told now and then how much of the file has been read. Reading
	// ends with the error that it returns.
	Tell func(read, size int64) error
}

// File reads the file at path as [Read] does.
func File(path string, o Options) (t dataset.Packed, hints []string, err error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return t, nil, fmt.Errorf("there is no file %s", path)
	case errors.Is(err, fs.ErrPermission):
		return t, nil, fmt.Errorf("the file %s may not be read by this user", path)
	case err != nil:
		return t, nil, err
	case info.IsDir():
		return t, nil, fmt.Errorf("%s is a directory; name a CSV or Parquet file in it", path)
	case !info.Mode().IsRegular():
		return t, nil, fmt.Errorf("%s is not a regular file; copy the rows into one", path)
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return t, nil, fmt.Errorf("the file %s may not be read by this user", path)
	}
	if err != nil {
		return t, nil, err
	}
	defer f.Close()
	if t, hints, err = Read(f, info.Size(), o); err != nil {
		return dataset.Packed{}, nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, hints, nil
}

// Read reads the size bytes of r, whose first ones tell what they are: Parquet
// of flat columns, or CSV (see [CSV]), or that in gzip. The hints are sentences
// for the owner about how the file was understood.
func Read(r io.ReaderAt, size int64, o Options) (dataset.Packed, []string, error) {
	return read(r, size, o, MaxTable)
}

func read(r io.ReaderAt, size int64, o Options, most int64) (dataset.Packed, []string, error) {
	if o.Tell != nil {
		r = &told{ReaderAt: r, size: size, tell: o.Tell}
	}
	start := make([]byte, 4)
	n, err := r.ReadAt(start, 0)
	if err != nil && err != io.EOF {
		return dataset.Packed{}, nil, err
	}
	space := &meter{most}
	switch formOf(start[:n]) {
	case formParquet:
		if len(o.Columns) > 0 {
			return dataset.Packed{}, nil, errors.New("a Parquet file names its columns itself; leave --columns out")
		}
		t, err := readParquet(r, size, space)
		return t, nil, err
	case formZip:
		return dataset.Packed{}, nil, errors.New("the file is a zip archive or a spreadsheet; unpack it, or save it as CSV")
	case formGzip:
		unzip, err := gzip.NewReader(bufio.NewReader(io.NewSectionReader(r, 0, size)))
		if err != nil {
			return dataset.Packed{}, nil, fmt.Errorf("cannot decompress the file: %w", err)
		}
		inner := bufio.NewReader(gunzip{unzip})
		start, _ := inner.Peek(4)
		if f := formOf(start); f != formText {
			return dataset.Packed{}, nil, errors.New("what the file holds compressed is not text; decompress it with gunzip first")
		}
		return readCSV(inner, o, space)
	}
	return readCSV(io.NewSectionReader(r, 0, size), o, space)
}

type form int

const (
	formText form = iota
	formParquet
	formGzip
	formZip
)

// formOf tells a file's form from its first bytes.
func formOf(start []byte) form {
	switch s := string(start); {
	case s == magic || s == magicEncrypted:
		return formParquet
	case len(s) >= 2 && s[:2] == "\x1f\x8b":
		return formGzip
	case s == "PK\x03\x04":
		return formZip
	}
	return formText
}

// told tells of what is read.
type told struct {
	io.ReaderAt
	size, furthest int64
	tell           func(read, size int64) error
}

func (t *told) ReadAt(p []byte, at int64) (int, error) {
	if err := t.tell(t.furthest, t.size); err != nil {
		return 0, err
	}
	n, err := t.ReaderAt.ReadAt(p, at)
	t.furthest = max(t.furthest, at+int64(n))
	return n, err
}

// gunzip says of errors where they come from.
type gunzip struct{ r *gzip.Reader }

func (g gunzip) Read(p []byte) (int, error) {
	n, err := g.r.Read(p)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("cannot decompress the file, which is damaged or not whole: %w", err)
	}
	return n, err
}

// meter counts down the bytes that a table may yet take.
type meter struct{ left int64 }

func (m *meter) spend(n int64) error {
	if n > m.left {
		return errTooLarge
	}
	m.left -= n
	return nil
}

var errTooLarge = fmt.Errorf("the table takes more than %d GiB of memory; leave out rows or columns", MaxTable>>30)

func checkNames(names []string) error {
	if len(names) > MaxColumns {
		return fmt.Errorf("there are %d columns; at most %d are allowed", len(names), MaxColumns)
	}
	at := make(map[string]int, len(names))
	for i, name := range names {
		if name == "" {
			return fmt.Errorf("column %d has no name; name it in the file", i+1)
		}
		if first, ok := at[name]; ok {
			return fmt.Errorf("columns %d and %d are both named %.64q; rename one, or name all with --columns if a CSV file has no header", first+1, i+1, name)
		}
		at[name] = i
	}
	return nil
}
