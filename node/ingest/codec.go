package ingest

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/format"
	"github.com/pierrec/lz4/v4"
)

// codec decompresses pages, each to the size that its header says, which the
// caller has bounded.
type codec struct{ zstd *zstd.Decoder }

func (c *codec) close() {
	if c.zstd != nil {
		c.zstd.Close()
	}
}

func (c *codec) decompress(how format.CompressionCodec, data []byte, size int) (out []byte, err error) {
	switch {
	case how == format.Uncompressed || len(data) == 0: // nulls alone have no data
		out = data
	case how == format.Snappy:
		n, e := snappy.DecodedLen(data)
		if e != nil || n != size {
			return nil, errDamaged
		}
		out, err = snappy.Decode(nil, data)
	case how == format.Lz4Raw:
		out = make([]byte, size)
		var n int
		if n, err = lz4.UncompressBlock(data, out); err == nil {
			out = out[:n]
		}
	case how == format.Gzip, how == format.Brotli:
		var r io.Reader = brotli.NewReader(bytes.NewReader(data))
		if how == format.Gzip {
			if r, err = gzip.NewReader(bytes.NewReader(data)); err != nil {
				return nil, errDamaged
			}
		}
		// Room grows with what comes, not with what was said.
		var b bytes.Buffer
		_, err = io.Copy(&b, io.LimitReader(r, int64(size)+1))
		out = b.Bytes()
	case how == format.Zstd:
		if c.zstd == nil {
			if c.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true)); err != nil {
				return nil, err
			}
		}
		out, err = c.zstd.DecodeAll(data, make([]byte, 0, size))
	default:
		return nil, fmt.Errorf("its compression, %v, is not known; write the file with snappy, gzip or zstd", how)
	}
	if err != nil || len(out) != size {
		return nil, errDamaged
	}
	return out, nil
}
