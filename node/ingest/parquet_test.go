package ingest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

var codecs = []compress.Codec{&parquet.Uncompressed, &parquet.Snappy, &parquet.Gzip, &parquet.Zstd, &parquet.Brotli, &parquet.Lz4Raw}

type small struct {
	N int64
	S string
}

// wide has a column of each type that is read, in each encoding that the
// library writes.
type wide struct {
	Bool   *bool     `parquet:"bool,optional"`
	I8     int8      `parquet:"i8"`
	U32    uint32    `parquet:"u32"`
	U64    uint64    `parquet:"u64"`
	I64    *int64    `parquet:"i64,optional"`
	Delta  int64     `parquet:"delta,delta"`
	Delta4 int32     `parquet:"delta4,delta"`
	Float  float32   `parquet:"float"`
	Double *float64  `parquet:"double,optional"`
	Split  float64   `parquet:"split,split"`
	Plain  string    `parquet:"plain,plain"`
	Words  *string   `parquet:"words,optional,dict"`
	Length string    `parquet:"length,delta"`
	Enum   string    `parquet:"enum,enum"`
	Bytes  []byte    `parquet:"bytes"`
	Date   int32     `parquet:"date,date"`
	Milli  int64     `parquet:"milli,timestamp(millisecond)"`
	Micro  time.Time `parquet:"micro,timestamp(microsecond:local)"`
}

func wideRow(i int) (w wide, cells string) {
	even := i%2 == 0
	w = wide{
		I8: int8(i), U32: math.MaxUint32 - uint32(i), U64: math.MaxUint64 - uint64(i), Delta: int64(i) * -1_000_003, Delta4: int32(i * i),
		Float: float32(i) / 7, Split: float64(i) / 7, Plain: fmt.Sprintf("näme %d", i), Length: fmt.Sprintf("prefix %d", i),
		Enum: "one", Bytes: []byte(" spaced "), Date: int32(i - 10), Milli: int64(i) * 250,
		Micro: time.Unix(int64(i), 1000).UTC(),
	}
	text := []string{"", fmt.Sprint(w.I8), fmt.Sprint(w.U32), fmt.Sprint(w.U64), "", fmt.Sprint(w.Delta), fmt.Sprint(w.Delta4),
		floatText(float64(w.Float), 32), "", floatText(w.Split, 64), w.Plain, "", w.Length, "one", "spaced",
		time.Unix(int64(i-10)*secondsADay, 0).UTC().Format("2006-01-02"),
		time.UnixMilli(w.Milli).UTC().Format("2006-01-02T15:04:05.999Z"),
		w.Micro.Format("2006-01-02T15:04:05.999999")}
	if even {
		v, f, s := int64(-i), math.NaN(), fmt.Sprintf("word %d", i%3)
		w.Bool, w.I64, w.Double, w.Words = &even, &v, &f, &s
		text[0], text[4], text[11] = "true", fmt.Sprint(v), s
	}
	return w, fmt.Sprintf("%q", text)
}

func parquetOf[T any](t testing.TB, rows []T, options ...parquet.WriterOption) []byte {
	t.Helper()
	var b bytes.Buffer
	w := parquet.NewGenericWriter[T](&b, options...)
	if _, err := w.Write(rows); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// samples are small files of all types, encodings, page versions and codecs.
func samples(t testing.TB) (files [][]byte) {
	rows := make([]wide, 12)
	for i := range rows {
		rows[i], _ = wideRow(i)
	}
	for _, codec := range codecs {
		for version := 1; version <= 2; version++ {
			files = append(files, parquetOf(t, rows, parquet.Compression(codec), parquet.DataPageVersion(version), parquet.MaxRowsPerRowGroup(7)))
		}
	}
	return files
}

func TestParquet(t *testing.T) {
	const n = 1000
	rows, want := make([]wide, n), make([]string, n)
	for i := range rows {
		rows[i], want[i] = wideRow(i)
	}
	for _, codec := range codecs {
		for version := 1; version <= 2; version++ {
			for _, size := range []int{100, 1 << 20} { // of pages
				name := fmt.Sprintf("%v, pages of version %d and %d bytes", codec, version, size)
				file := parquetOf(t, rows, parquet.Compression(codec), parquet.DataPageVersion(version),
					parquet.PageBufferSize(size), parquet.MaxRowsPerRowGroup(300))
				table, hints, err := readBytes(file, Options{}, MaxTable)
				if err != nil || len(table.Rows) != n || len(hints) != 0 {
					t.Fatalf("%s: %d rows, hints %q, %v", name, len(table.Rows), hints, err)
				}
				if got := strings.Join(table.Columns, " "); got != "bool i8 u32 u64 i64 delta delta4 float double split plain words length enum bytes date milli micro" {
					t.Errorf("%s: columns %s", name, got)
				}
				for i, row := range table.Rows {
					if got := fmt.Sprintf("%q", row); got != want[i] {
						t.Fatalf("%s: row %d is\n%s, want\n%s", name, i, got, want[i])
					}
				}
			}
		}
	}
}

func TestParquetRefusesTypes(t *testing.T) {
	type inner struct{ X, Y int64 }
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"nested", parquetOf(t, []struct {
			A int64
			L []int64
			M map[string]int64
			P inner
			Z string
		}{{L: []int64{1}}}), `lists, maps or structures are not read: "L", "M", "P"; write`},
		{"decimal", parquetOf(t, []struct {
			D int64 `parquet:"d,decimal(2:10)"`
		}{{1}}), `column "d" is of type DECIMAL(10,2), which is not read`},
		{"uuid", parquetOf(t, []struct {
			U [16]byte `parquet:"u,uuid"`
		}{{}}), `column "u" is of type UUID`},
		{"fixed length", parquetOf(t, []struct{ U [5]byte }{{}}), `column "U" is of type FIXED_LEN_BYTE_ARRAY`},
		{"time", parquetOf(t, []struct {
			T int32 `parquet:"t,time(millisecond)"`
		}{{}}), `column "t" is of type TIME`},
		{"bytes that are no text", parquetOf(t, []struct{ B []byte }{{[]byte("ok")}, {[]byte{0xff}}}), `row group 1: column "B": row 2: the text is not UTF-8`},
		{"no rows", parquetOf(t, []small{}), "the file has no rows"},
		{"a year out of sight", parquetOf(t, []struct {
			D int32 `parquet:"d,date"`
		}{{math.MaxInt32}}), "year"},
	} {
		_, _, err := readBytes(c.file, Options{}, MaxTable)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
}

// forged is a file of one required column, whose pages and metadata say what a
// test wants them to.
type forged struct {
	kind  format.Type
	codec format.CompressionCodec
	rows  int64
	pages []forgedPage
	meta  func(*format.FileMetaData)
}

type forgedPage struct {
	header format.PageHeader
	data   []byte
}

// plainPage is a data page whose sizes are true.
func plainPage(e format.Encoding, values int32, data []byte) forgedPage {
	return forgedPage{format.PageHeader{
		Type: format.DataPage, UncompressedPageSize: int32(len(data)), CompressedPageSize: int32(len(data)),
		DataPageHeader: thrift.New(format.DataPageHeader{NumValues: values, Encoding: e, DefinitionLevelEncoding: format.RLE, RepetitionLevelEncoding: format.RLE}),
	}, data}
}

func dictionaryPage(values int32, data []byte) forgedPage {
	return forgedPage{format.PageHeader{
		Type: format.DictionaryPage, UncompressedPageSize: int32(len(data)), CompressedPageSize: int32(len(data)),
		DictionaryPageHeader: thrift.New(format.DictionaryPageHeader{NumValues: values}),
	}, data}
}

func (f forged) bytes(t *testing.T) []byte {
	t.Helper()
	marshal := func(v any) []byte {
		b, err := thrift.Marshal(&thrift.CompactProtocol{}, v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := []byte(magic)
	for _, p := range f.pages {
		b = append(append(b, marshal(&p.header)...), p.data...)
	}
	m := format.FileMetaData{
		NumRows: f.rows,
		Schema: []format.SchemaElement{
			{Name: "root", NumChildren: thrift.New(int32(1))},
			{Name: "x", Type: thrift.New(f.kind), RepetitionType: thrift.New(format.Required)},
		},
		RowGroups: []format.RowGroup{{NumRows: f.rows, Columns: []format.ColumnChunk{{MetaData: format.ColumnMetaData{
			Type: f.kind, Codec: f.codec, PathInSchema: []string{"x"}, Encoding: []format.Encoding{format.Plain},
			DataPageOffset: 4, TotalCompressedSize: int64(len(b) - 4),
		}}}}},
	}
	if f.meta != nil {
		f.meta(&m)
	}
	return closed(b, marshal(&m))
}

func encoded(t *testing.T, codec compress.Codec, data []byte) []byte {
	t.Helper()
	b, err := codec.Encode(nil, data)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// closed ends a file with its metadata.
func closed(b, meta []byte) []byte {
	b = append(b, meta...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(meta)))
	return append(b, magic...)
}

func le64(values ...uint64) (b []byte) {
	for _, v := range values {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

// allocated returns how many bytes do allocates.
func allocated(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestHostileParquet(t *testing.T) {
	good := forged{kind: format.Int64, rows: 2, pages: []forgedPage{plainPage(format.Plain, 2, le64(7, 8))}}
	if table, _, err := readBytes(good.bytes(t), Options{}, MaxTable); err != nil || fmt.Sprint(table.Rows) != "[[7] [8]]" {
		t.Fatalf("%v, %v", table, err)
	}
	zeros := make([]byte, 64<<20)
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	bomb := func(codec format.CompressionCodec, data []byte, says int32) []byte {
		p := plainPage(format.Plain, 1, data)
		p.header.UncompressedPageSize = says
		return forged{kind: format.Int64, codec: codec, rows: 1, pages: []forgedPage{p}}.bytes(t)
	}
	with := func(change func(*forged)) []byte {
		f := good
		f.pages = []forgedPage{good.pages[0]}
		change(&f)
		return f.bytes(t)
	}
	chunk := func(change func(*format.ColumnChunk)) []byte {
		return with(func(f *forged) {
			f.meta = func(m *format.FileMetaData) { change(&m.RowGroups[0].Columns[0]) }
		})
	}
	run := binary.AppendUvarint(nil, 1<<40) // of 2^39 values
	lengths := func(n uint64, first int64) []byte {
		b := binary.AppendUvarint(nil, 128)
		b = binary.AppendUvarint(b, 4)
		b = binary.AppendUvarint(b, n)
		return binary.AppendVarint(b, first)
	}
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"magic alone", []byte(magic), "not whole"},
		{"cut off", good.bytes(t)[:30], "not whole"},
		{"encrypted", append([]byte("PARE........"), 0, 0, 0, 0, 'P', 'A', 'R', 'E'), "is encrypted"},
		{"metadata longer than the file", closed([]byte("PAR1"), nil)[:4:4], "not whole"},
		{"a list of two thousand million", closed([]byte(magic), []byte{0x15, 2, 0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07}), "damaged"},
		{"a text of two thousand million", closed([]byte(magic), []byte{0x15, 2, 0x48, 0xff, 0xff, 0xff, 0xff, 0x07}), "damaged"},
		{"two million row groups of nothing", closed([]byte(magic), append(binary.AppendUvarint([]byte{0x15, 2, 0x39, 0xfc}, 2<<20), make([]byte, 2<<20+1)...)), "damaged"},
		{"deep metadata", closed([]byte(magic), bytes.Repeat([]byte{0x1c}, 16<<20)), "damaged"},
		{"deep lists", closed([]byte(magic), append([]byte{0x19}, bytes.Repeat([]byte{0x19}, 16<<20)...)), "damaged"},
		{"a million million rows", with(func(f *forged) { f.rows = 1 << 40 }), "GiB of memory"},
		{"more rows than can be multiplied", with(func(f *forged) { f.rows = 1 << 60 }), "GiB of memory"},
		{"fewer rows than none", with(func(f *forged) { f.rows = -1 }), "GiB of memory"},
		{"more rows than values", with(func(f *forged) { f.rows = 3 }), "2 values for 3 rows"},
		{"more values than rows", with(func(f *forged) { f.rows = 1 }), "2 values for 1 rows"},
		{"no row group's columns", with(func(f *forged) {
			f.meta = func(m *format.FileMetaData) { m.RowGroups[0].Columns = nil }
		}), "it has 0 columns, the schema 1"},
		{"no columns", with(func(f *forged) {
			f.meta = func(m *format.FileMetaData) { m.Schema = m.Schema[:1] }
		}), "no columns"},
		{"another type than the schema's", chunk(func(c *format.ColumnChunk) { c.MetaData.Type = format.Int32 }), "differs from the schema's"},
		{"pages in another file", chunk(func(c *format.ColumnChunk) { c.FilePath = "/etc/passwd" }), "in another file"},
		{"pages before the file", chunk(func(c *format.ColumnChunk) { c.MetaData.DataPageOffset = -5 }), "outside of the file"},
		{"pages behind the file", chunk(func(c *format.ColumnChunk) { c.MetaData.TotalCompressedSize = math.MaxInt64 }), "outside of the file"},
		{"a page larger than its column", with(func(f *forged) { f.pages[0].header.CompressedPageSize = 1 << 20 }), "a page is damaged"},
		{"a page of less than nothing", with(func(f *forged) { f.pages[0].header.UncompressedPageSize = -1 }), "a page is damaged"},
		{"a page of 1 GiB", with(func(f *forged) { f.pages[0].header.UncompressedPageSize = 1 << 30 }), "more than 256 MiB"},
		{"fewer values than none", with(func(f *forged) { f.pages[0].header.DataPageHeader.V.NumValues = -2 }), "a page is damaged"},
		{"fewer bytes than values", with(func(f *forged) { f.pages[0].data = f.pages[0].data[:9]; f.pages[0].header.CompressedPageSize = 9 }), "a page is damaged"},
		{"a wrong checksum", with(func(f *forged) { f.pages[0].header.CRC = 1 }), "checksum"},
		{"an unknown encoding", with(func(f *forged) { f.pages[0].header.DataPageHeader.V.Encoding = 77 }), "encoding is not known"},
		{"an unknown codec", with(func(f *forged) { f.codec = 77 }), "is not known"},
		{"bomb of snappy", bomb(format.Snappy, snappy.Encode(nil, zeros), 8), "a page is damaged"},
		{"bomb of gzip", bomb(format.Gzip, zipped(zeros), 8), "a page is damaged"},
		{"bomb of zstd", bomb(format.Zstd, encoder.EncodeAll(zeros, nil), 8), "a page is damaged"},
		{"bomb of brotli", bomb(format.Brotli, encoded(t, &parquet.Brotli, zeros), 8), "a page is damaged"},
		{"bomb of LZ4", bomb(format.Lz4Raw, encoded(t, &parquet.Lz4Raw, zeros), 8), "a page is damaged"},
		{"LZ4 that is none", bomb(format.Lz4Raw, []byte{0xff, 0xff, 0xff}, 8), "a page is damaged"},
		{"the LZ4 of old, in frames", bomb(format.Lz4, []byte{0}, 8), "compression, LZ4, is not known"},
		{"snappy that says 4 GiB", bomb(format.Snappy, []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0}, 8), "a page is damaged"},
		{"a word that is not in the dictionary", forged{kind: format.Int64, rows: 1, pages: []forgedPage{
			dictionaryPage(1, le64(7)), plainPage(format.RLEDictionary, 1, []byte{8, 2, 1})}}.bytes(t), "a page is damaged"},
		{"no dictionary", forged{kind: format.Int64, rows: 1, pages: []forgedPage{plainPage(format.RLEDictionary, 1, []byte{8, 2, 0})}}.bytes(t), "a page is damaged"},
		{"a dictionary of a thousand million words", forged{kind: format.Int64, rows: 1, pages: []forgedPage{
			dictionaryPage(1<<30, le64(7)), plainPage(format.RLEDictionary, 1, []byte{8, 2, 0})}}.bytes(t), "a page is damaged"},
		{"33 bits", forged{kind: format.Int64, rows: 1, pages: []forgedPage{plainPage(format.RLEDictionary, 1, []byte{33, 2, 0})}}.bytes(t), "a page is damaged"},
		{"a text longer than its page", forged{kind: format.ByteArray, rows: 1, pages: []forgedPage{plainPage(format.Plain, 1, []byte{255, 255, 255, 255, 'x'})}}.bytes(t), "a page is damaged"},
		{"differences of other numbers than there are", forged{kind: format.Int64, rows: 1, pages: []forgedPage{plainPage(format.DeltaBinaryPacked, 1, lengths(1<<40, 0))}}.bytes(t), "a page is damaged"},
		{"a prefix of nothing", forged{kind: format.ByteArray, rows: 1, pages: []forgedPage{
			plainPage(format.DeltaByteArray, 1, append(append(lengths(1, 9), lengths(1, 1)...), 'x'))}}.bytes(t), "a page is damaged"},
	} {
		var err error
		grown := allocated(func() { _, _, err = readBytes(c.file, Options{}, MaxTable) })
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
		if grown > 40<<20+2*uint64(len(c.file)) {
			t.Errorf("%s: %d bytes were allocated for %d", c.name, grown, len(c.file))
		}
	}

	// A run longer than the page is cut where the page ends.
	long := forged{kind: format.Int64, rows: 3, pages: []forgedPage{
		dictionaryPage(1, le64(7)), plainPage(format.RLEDictionary, 3, append(append([]byte{8}, run...), 0))}}
	if table, _, err := readBytes(long.bytes(t), Options{}, MaxTable); err != nil || fmt.Sprint(table.Rows) != "[[7] [7] [7]]" {
		t.Errorf("%v, %v", table, err)
	}
}

// Some programs write the difference of two numbers of 32 bits in 33.
func TestParquetWideDifferences(t *testing.T) {
	data, err := parquet.DeltaBinaryPacked.EncodeInt64(nil, []int64{math.MinInt32, math.MaxInt32, -1})
	if err != nil {
		t.Fatal(err)
	}
	file := forged{kind: format.Int32, rows: 3, pages: []forgedPage{plainPage(format.DeltaBinaryPacked, 3, data)}}
	if table, _, err := readBytes(file.bytes(t), Options{}, MaxTable); err != nil || fmt.Sprint(table.Rows) != "[[-2147483648] [2147483647] [-1]]" {
		t.Errorf("%v, %v", table, err)
	}
}

// A few bytes can stand for very many rows or very long texts. They are refused
// before there is room for them.
func TestParquetBombs(t *testing.T) {
	const most = 1 << 20
	// Each text repeats all of the one before it.
	var prefixes, suffixes bytes.Buffer
	delta := func(b *bytes.Buffer, n uint64, first, step int64) {
		b.Write(binary.AppendUvarint(binary.AppendUvarint(binary.AppendUvarint(nil, 128), 4), n))
		b.Write(binary.AppendVarint(nil, first))
		for left := int64(n) - 1; left > 0; left -= 128 {
			b.Write(binary.AppendVarint(nil, step))
			b.Write(make([]byte, 4)) // each difference is the least one
		}
	}
	const texts = 10_000
	delta(&prefixes, texts, 0, 1)
	delta(&suffixes, texts, 1, 0)
	suffixes.Write(bytes.Repeat([]byte("x"), texts))

	for _, c := range []struct {
		name string
		file forged
	}{
		{"rows", forged{kind: format.Int64, rows: 1 << 30, pages: []forgedPage{
			dictionaryPage(1, le64(7)), plainPage(format.RLEDictionary, 1<<30, append(append([]byte{8}, binary.AppendUvarint(nil, 1<<31)...), 0))}}},
		{"texts", forged{kind: format.ByteArray, rows: texts, pages: []forgedPage{
			plainPage(format.DeltaByteArray, texts, append(prefixes.Bytes(), suffixes.Bytes()...))}}},
	} {
		file := c.file.bytes(t)
		var err error
		grown := allocated(func() { _, _, err = readBytes(file, Options{}, most) })
		if !errors.Is(err, errTooLarge) {
			t.Errorf("%s: %v", c.name, err)
		}
		if grown > 16<<20 {
			t.Errorf("%s: %d bytes were allocated for %d", c.name, grown, len(file))
		}
	}
	texts64 := forged{kind: format.ByteArray, rows: texts, pages: []forgedPage{
		plainPage(format.DeltaByteArray, texts, append(prefixes.Bytes(), suffixes.Bytes()...))}}
	table, _, err := readBytes(texts64.bytes(t), Options{}, MaxTable)
	if err != nil || len(table.Rows[texts-1][0]) != texts {
		t.Errorf("with room enough: %d rows, %v", len(table.Rows), err)
	}
}
