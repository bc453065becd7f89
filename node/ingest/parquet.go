package ingest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"village/protocol/dataset"
)

// The library reads the metadata and decodes values. Pages are walked over and
// decompressed here, because the library lets a page grow to whatever its bytes
// say.
const (
	magic          = "PAR1"
	magicEncrypted = "PARE"

	plainDictionary format.Encoding = 2 // what older files say for PLAIN and RLE_DICTIONARY

	maxFooter = 64 << 20  // bytes of the metadata at the end of a file
	maxHeader = 256 << 10 // bytes of a page's header
	maxPage   = 256 << 20 // bytes of a page, before and after it is decompressed
)

// parquetFile is a file whose metadata are read.
type parquetFile struct {
	r       io.ReaderAt
	end     int64 // where the metadata begin
	meta    format.FileMetaData
	columns []parquetColumn
	codec   codec
	pages   *bufio.Reader // of one column at a time
	space   *meter
}

// parquetColumn is a flat column.
type parquetColumn struct {
	name     string
	optional bool
	kind     format.Type
	text     func(raw []byte) (string, error) // what a value is as a cell
}

// readParquet reads a table of flat columns: truth values, whole and floating
// numbers, text, dates and times. A null is an empty cell.
func readParquet(r io.ReaderAt, size int64, space *meter) (t dataset.Packed, err error) {
	defer func() {
		if p := recover(); p != nil { // of the library, on metadata
			t, err = dataset.Packed{}, fmt.Errorf("the Parquet file is damaged: %v", p)
		}
	}()
	f := &parquetFile{r: r, pages: bufio.NewReaderSize(nil, maxHeader), space: space}
	defer f.codec.close()
	if err := f.readFooter(size); err != nil {
		return dataset.Packed{}, err
	}
	if err := f.readSchema(); err != nil {
		return dataset.Packed{}, err
	}
	var names []string
	for _, c := range f.columns {
		names = append(names, c.name)
	}
	if err := checkNames(names); err != nil {
		return dataset.Packed{}, err
	}
	t = dataset.NewPacked(names)
	for i := range f.meta.RowGroups {
		if err := f.appendGroup(t, &f.meta.RowGroups[i]); err != nil {
			return dataset.Packed{}, fmt.Errorf("row group %d: %w", i+1, err)
		}
	}
	if t.Rows() == 0 {
		return dataset.Packed{}, errors.New("the file has no rows")
	}
	return t, nil
}

func (f *parquetFile) readFooter(size int64) error {
	const tail = 8 // length of the metadata, magic
	if size < int64(len(magic))+tail {
		return errors.New("the Parquet file is not whole")
	}
	var last [tail]byte
	if _, err := f.r.ReadAt(last[:], size-tail); err != nil {
		return err
	}
	n := int64(binary.LittleEndian.Uint32(last[:]))
	f.end = size - tail - n
	switch end := string(last[4:]); {
	case end == magicEncrypted:
		return errors.New("the Parquet file is encrypted; write it again without encryption")
	case end != magic || f.end < int64(len(magic)):
		return errors.New("the Parquet file is not whole")
	case n > maxFooter:
		return fmt.Errorf("the metadata of the Parquet file take %d bytes; at most %d are allowed", n, maxFooter)
	}
	b := make([]byte, n)
	if _, err := f.r.ReadAt(b, f.end); err != nil {
		return err
	}
	used, err := structSize(b)
	if err == nil {
		// A signature may follow the metadata.
		err = thrift.Unmarshal(&thrift.CompactProtocol{}, b[:used], &f.meta)
	}
	if err != nil {
		return fmt.Errorf("the Parquet file is damaged: %w", err)
	}
	return nil
}

// readSchema checks that the columns are flat and of types that can be cells.
func (f *parquetFile) readSchema() error {
	if len(f.meta.Schema) < 2 {
		return errors.New("the Parquet file has no columns")
	}
	var nested []string
	for i := 1; i < len(f.meta.Schema); {
		e := &f.meta.Schema[i]
		if e.Type.Valid && e.NumChildren.V == 0 && e.RepetitionType.V != format.Repeated {
			text, err := textOf(e)
			if err != nil {
				return fmt.Errorf("column %.64q %w", e.Name, err)
			}
			name := strings.TrimSpace(e.Name)
			if !utf8.ValidString(name) {
				return fmt.Errorf("the name of column %d is not UTF-8; rename it", len(f.columns)+1)
			}
			f.columns = append(f.columns, parquetColumn{name, e.RepetitionType.V != format.Required, e.Type.V, text})
			i++
			continue
		}
		nested = append(nested, fmt.Sprintf("%.64q", e.Name))
		for below := int64(1); below > 0 && i < len(f.meta.Schema); i++ {
			below += int64(max(0, f.meta.Schema[i].NumChildren.V)) - 1
		}
	}
	if len(nested) > 0 {
		if more := len(nested) - 8; more > 0 {
			nested = append(nested[:8], fmt.Sprintf("%d more", more))
		}
		return fmt.Errorf("columns that are lists, maps or structures are not read: %s; write their parts as columns, or leave them out of the file", strings.Join(nested, ", "))
	}
	return nil
}

// appendGroup reads a row group.
func (f *parquetFile) appendGroup(t dataset.Packed, g *format.RowGroup) error {
	if len(g.Columns) != len(f.columns) {
		return fmt.Errorf("it has %d columns, the schema %d", len(g.Columns), len(f.columns))
	}
	width := int64(len(f.columns))
	if perRow := sliceBytes + width*stringBytes; g.NumRows < 0 || g.NumRows > f.space.left/perRow {
		return errTooLarge
	} else if err := f.space.spend(g.NumRows * perRow); err != nil {
		return err
	}
	// What the columns' pages hold is counted before any is read, so that no row
	// count is believed.
	chunks := make([]*chunk, width)
	for i := range chunks {
		c, err := f.open(&f.columns[i], &g.Columns[i])
		if err == nil {
			err = c.count(g.NumRows)
		}
		if err != nil {
			return fmt.Errorf("column %q: %w", f.columns[i].name, err)
		}
		chunks[i] = c
	}
	rows := t.Rows() + int(g.NumRows)
	for i, c := range chunks {
		c.cells = t.Cells[i]
		err := c.read()
		if err == nil && c.cells.Len() != rows {
			err = errDamaged
		}
		if err != nil {
			return fmt.Errorf("column %q: %w", f.columns[i].name, err)
		}
	}
	return nil
}

// chunk is a column in a row group.
type chunk struct {
	*parquetColumn
	file     *parquetFile
	section  *io.SectionReader
	codec    format.CompressionCodec
	cells    *dataset.Cells
	words    []string // the dictionary
	pageData []byte   // reused
}

func (f *parquetFile) open(c *parquetColumn, m *format.ColumnChunk) (*chunk, error) {
	start := m.MetaData.DataPageOffset
	if at := m.MetaData.DictionaryPageOffset; at > 0 && at < start {
		start = at
	}
	size := m.MetaData.TotalCompressedSize
	switch {
	case m.FilePath != "":
		return nil, errors.New("its pages are in another file; write all into one")
	case start < int64(len(magic)) || size < 0 || start > f.end || size > f.end-start:
		return nil, errors.New("its pages lie outside of the file, which is damaged")
	case m.MetaData.Type != c.kind:
		return nil, errors.New("its type differs from the schema's; the file is damaged")
	}
	return &chunk{parquetColumn: c, file: f, section: io.NewSectionReader(f.r, start, size), codec: m.MetaData.Codec}, nil
}

// pages calls do with each page's header, and with a reader of its size bytes
// of which do need not read all.
func (c *chunk) pages(do func(h *format.PageHeader, body io.Reader) error) error {
	if _, err := c.section.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r := c.file.pages
	r.Reset(c.section)
	for left := c.section.Size(); left > 0; {
		b, err := r.Peek(int(min(left, maxHeader)))
		if err != nil {
			return err
		}
		n, err := structSize(b)
		if err != nil {
			return err
		}
		h := new(format.PageHeader)
		if err := thrift.Unmarshal(&thrift.CompactProtocol{}, b[:n], h); err != nil {
			return fmt.Errorf("the header of a page is damaged: %w", err)
		}
		r.Discard(n)
		left -= int64(n)
		size := int64(h.CompressedPageSize)
		switch {
		case size < 0 || size > left || h.UncompressedPageSize < 0:
			return errDamaged
		case size > maxPage || h.UncompressedPageSize > maxPage:
			return fmt.Errorf("a page takes more than %d MiB; write the file with smaller row groups", maxPage>>20)
		}
		body := &io.LimitedReader{R: r, N: size}
		if err := do(h, body); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, body); err != nil {
			return err
		}
		left -= size
	}
	return nil
}

// count checks that the pages' headers speak of as many rows as the group has.
func (c *chunk) count(rows int64) error {
	n := int64(0)
	err := c.pages(func(h *format.PageHeader, _ io.Reader) error {
		values, _ := dataPage(h)
		if values < 0 {
			return errDamaged
		}
		n += int64(values)
		return nil
	})
	if err == nil && n != rows {
		err = fmt.Errorf("it has %d values for %d rows; the file is damaged", n, rows)
	}
	return err
}

// dataPage returns the number of a data page's values, nulls counted, and their
// encoding; 0 where h is of another page.
func dataPage(h *format.PageHeader) (values int32, e format.Encoding) {
	switch {
	case h.Type == format.DataPage && h.DataPageHeader.Valid:
		return h.DataPageHeader.V.NumValues, h.DataPageHeader.V.Encoding
	case h.Type == format.DataPageV2 && h.DataPageHeaderV2.Valid:
		return h.DataPageHeaderV2.V.NumValues, h.DataPageHeaderV2.V.Encoding
	}
	return 0, 0
}

// read fills the cells.
func (c *chunk) read() error {
	return c.pages(func(h *format.PageHeader, body io.Reader) error {
		values, encoding := dataPage(h)
		dictionary := h.Type == format.DictionaryPage && h.DictionaryPageHeader.Valid
		if values == 0 && !dictionary {
			return nil // an index, or an empty page
		}
		var err error
		if c.pageData, err = readAll(c.pageData, body, int(h.CompressedPageSize)); err != nil {
			return err
		}
		if h.CRC != 0 && crc32.ChecksumIEEE(c.pageData) != uint32(h.CRC) {
			return errors.New("the checksum of a page is wrong; the file is damaged")
		}
		if dictionary {
			return c.readDictionary(h)
		}
		levels, data, err := c.split(h, int(values))
		if err != nil {
			return err
		}
		return c.fill(encoding, int(values), levels, data)
	})
}

// split takes a data page apart: the definition levels, nil where no value is
// null, and the encoded values.
func (c *chunk) split(h *format.PageHeader, values int) (levels []bool, data []byte, err error) {
	size := int(h.UncompressedPageSize)
	if h.Type == format.DataPage {
		if data, err = c.file.codec.decompress(c.codec, c.pageData, size); err != nil || !c.optional {
			return nil, data, err
		}
		if h.DataPageHeader.V.DefinitionLevelEncoding != format.RLE {
			return nil, nil, errEncoding
		}
		if len(data) < 4 {
			return nil, nil, errDamaged
		}
		n := binary.LittleEndian.Uint32(data)
		if data = data[4:]; uint64(n) > uint64(len(data)) {
			return nil, nil, errDamaged
		}
		levels, err = present(data[:n], values)
		return levels, data[n:], err
	}
	v2 := &h.DataPageHeaderV2.V
	repetition, definition := int(v2.RepetitionLevelsByteLength), int(v2.DefinitionLevelsByteLength)
	data = c.pageData
	if repetition < 0 || definition < 0 || repetition+definition > len(data) || repetition+definition > size {
		return nil, nil, errDamaged
	}
	packed := data[repetition : repetition+definition]
	data = data[repetition+definition:]
	if !v2.IsCompressed.Valid || v2.IsCompressed.V {
		if data, err = c.file.codec.decompress(c.codec, data, size-repetition-definition); err != nil {
			return nil, nil, err
		}
	}
	if c.optional {
		levels, err = present(packed, values)
	}
	return levels, data, err
}

// readDictionary reads the values to which data pages refer by number.
func (c *chunk) readDictionary(h *format.PageHeader) error {
	d := &h.DictionaryPageHeader.V
	if d.Encoding != format.Plain && d.Encoding != plainDictionary {
		return errEncoding
	}
	data, err := c.file.codec.decompress(c.codec, c.pageData, int(h.UncompressedPageSize))
	if err != nil {
		return err
	}
	n := int(d.NumValues)
	if n < 0 || n > 8*len(data) { // truth values are packed
		return errDamaged
	}
	if err := c.file.space.spend(int64(n) * stringBytes); err != nil {
		return err
	}
	c.words = make([]string, 0, n)
	return decodeValues(format.Plain, c.kind, data, n, c.file.space.left, func(raw []byte) error {
		word, err := c.cell(raw)
		c.words = append(c.words, word)
		return err
	})
}

// cell is the text of a value.
func (c *chunk) cell(raw []byte) (string, error) {
	if err := c.file.space.spend(int64(len(raw))); err != nil {
		return "", err
	}
	s, err := c.text(raw)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(s), nil
}

// fill appends a page's values to the cells: empty ones where they are null.
func (c *chunk) fill(encoding format.Encoding, values int, levels []bool, data []byte) error {
	full := values
	if levels != nil {
		full = 0
		for _, is := range levels {
			if is {
				full++
			}
		}
	}
	at := 0 // the next value
	put := func(cell string) {
		for ; levels != nil && !levels[at]; at++ {
			c.cells.Append("")
		}
		c.cells.Append(cell)
		at++
	}
	var err error
	switch {
	case full == 0: // then there need be no data
	case encoding == format.RLEDictionary || encoding == plainDictionary:
		if len(data) == 0 {
			return errDamaged
		}
		err = decodeHybrid(data[1:], uint(data[0]), full, func(v uint32) error {
			if uint64(v) >= uint64(len(c.words)) {
				return errDamaged
			}
			put(c.words[v])
			return c.file.space.spend(int64(len(c.words[v])))
		})
	default:
		err = decodeValues(encoding, c.kind, data, full, c.file.space.left, func(raw []byte) error {
			cell, err := c.cell(raw)
			put(cell)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("row %d: %w", max(1, c.cells.Len()), err)
	}
	for ; at < values; at++ {
		c.cells.Append("")
	}
	return nil
}

// readAll reads n bytes into b, or into new room where it is too small.
func readAll(b []byte, r io.Reader, n int) ([]byte, error) {
	if cap(b) < n {
		b = make([]byte, n)
	}
	b = b[:n]
	_, err := io.ReadFull(r, b)
	return b, err
}

var (
	errDamaged  = errors.New("a page is damaged")
	errEncoding = errors.New("a page's encoding is not known; write the file with the encodings PLAIN or RLE_DICTIONARY")
)
