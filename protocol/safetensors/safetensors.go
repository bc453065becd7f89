// Package safetensors reads and writes vectors in the safetensors format
// (https://github.com/huggingface/safetensors): a little-endian uint64 length,
// a JSON header of that length, and the raw little-endian elements. Nothing in
// it can execute. Only the element types F64 and F32 are known.
//
// [Marshal] writes the same bytes as the reference writer, so a set of tensors
// has one content address. [Unmarshal] trusts nothing: it reads what other
// writers make, in any order of tensors that leaves no hole, and bounds
// everything before it allocates. Whoever must have the one encoding, as for an
// update from a peer, asks [Canonical] afterwards.
package safetensors

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"unicode/utf8"
)

const (
	// MaxHeader is the longest header in bytes.
	MaxHeader = 1 << 20
	// MaxTensors is the largest number of tensors.
	MaxTensors = 10_000
	// MaxDims is the largest number of dimensions of a tensor.
	MaxDims = 8

	metadataKey = "__metadata__"
)

// ErrNotFinite says that an element is NaN or infinite.
var ErrNotFinite = errors.New("an element is not finite")

// DType is the type of a tensor's elements, named as in the header.
type DType string

// The element types.
const (
	F64 DType = "F64" // IEEE 754 binary64
	F32 DType = "F32" // IEEE 754 binary32
)

// size returns the bytes of one element, 0 for an unknown type. It is also the
// alignment by which tensors are ordered.
func (d DType) size() int {
	switch d {
	case F64:
		return 8
	case F32:
		return 4
	}
	return 0
}

// Tensor is a named array in row-major order. Of F64 and F32 the one that DType
// names is used; its length is the product of Shape, 1 for an empty Shape.
type Tensor struct {
	Name  string
	DType DType
	Shape []int
	F64   []float64
	F32   []float32
}

// Limits narrows what [Unmarshal] accepts. A zero field means the package's
// own limit, which a larger one does not lift.
type Limits struct {
	Header  int // bytes of the header, at most MaxHeader
	Tensors int // number of tensors, at most MaxTensors
	Dims    int // dimensions of a tensor, at most MaxDims
}

func (l Limits) within() Limits {
	narrow := func(limit, most int) int {
		if limit == 0 {
			return most
		}
		return min(limit, most)
	}
	return Limits{
		Header:  narrow(l.Header, MaxHeader),
		Tensors: narrow(l.Tensors, MaxTensors),
		Dims:    narrow(l.Dims, MaxDims),
	}
}

// Marshal returns the encoding of the tensors, whatever their order, and of
// the metadata: F64 before F32, then by name, as the reference writer does,
// and metadata sorted by key, which the reference writer leaves to chance. Nil
// metadata is left out. It refuses what [Unmarshal] would refuse.
func Marshal(tensors []Tensor, metadata map[string]string) ([]byte, error) {
	sorted, b, err := encodeHeader(tensors, metadata)
	if err != nil {
		return nil, fmt.Errorf("safetensors: write: %w", err)
	}
	size := 0
	for _, t := range sorted {
		size += t.DType.size() * t.len()
	}
	b = slices.Grow(b, size)
	for _, t := range sorted {
		for _, x := range t.F64 {
			if !finite(x) {
				return nil, fmt.Errorf("safetensors: write: tensor %q: %w", t.Name, ErrNotFinite)
			}
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(x))
		}
		for _, x := range t.F32 {
			if !finite(float64(x)) {
				return nil, fmt.Errorf("safetensors: write: tensor %q: %w", t.Name, ErrNotFinite)
			}
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
		}
	}
	return b, nil
}

// encodeHeader returns the tensors in the order of the data, and the length and
// the header.
func encodeHeader(tensors []Tensor, metadata map[string]string) ([]Tensor, []byte, error) {
	if len(tensors) > MaxTensors {
		return nil, nil, fmt.Errorf("%d tensors are more than %d", len(tensors), MaxTensors)
	}
	sorted := slices.Clone(tensors)
	slices.SortFunc(sorted, func(a, b Tensor) int {
		return cmp.Or(cmp.Compare(b.DType.size(), a.DType.size()), cmp.Compare(a.Name, b.Name))
	})

	b := make([]byte, 8, 256)
	b = append(b, '{')
	if metadata != nil {
		keys := make([]string, 0, len(metadata))
		for k, v := range metadata {
			if !utf8.ValidString(k) || !utf8.ValidString(v) {
				return nil, nil, fmt.Errorf("metadata %q is not valid UTF-8", k)
			}
			keys = append(keys, k)
		}
		slices.Sort(keys)
		b = append(appendString(b, metadataKey), ":{"...)
		for i, k := range keys {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, k), ':')
			b = appendString(b, metadata[k])
		}
		b = append(b, '}')
	}
	offset := 0
	seen := make(map[string]bool, len(sorted))
	for i, t := range sorted {
		if err := t.check(); err != nil {
			return nil, nil, fmt.Errorf("tensor %q: %w", t.Name, err)
		}
		if seen[t.Name] {
			return nil, nil, fmt.Errorf("two tensors are named %q", t.Name)
		}
		seen[t.Name] = true
		if i > 0 || metadata != nil {
			b = append(b, ',')
		}
		b = append(appendString(b, t.Name), `:{"dtype":"`...)
		b = append(append(b, t.DType...), `","shape":[`...)
		for j, d := range t.Shape {
			if j > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, int64(d), 10)
		}
		b = append(b, `],"data_offsets":[`...)
		b = strconv.AppendInt(b, int64(offset), 10)
		offset += t.DType.size() * t.len()
		b = append(b, ',')
		b = strconv.AppendInt(b, int64(offset), 10)
		b = append(b, "]}"...)
	}
	b = append(b, '}')
	for len(b)%8 != 0 {
		b = append(b, ' ')
	}
	if len(b)-8 > MaxHeader {
		return nil, nil, fmt.Errorf("a header of %d bytes is longer than %d", len(b)-8, MaxHeader)
	}
	binary.LittleEndian.PutUint64(b, uint64(len(b)-8))
	return sorted, b, nil
}

// len returns the number of elements that the tensor holds.
func (t Tensor) len() int { return len(t.F64) + len(t.F32) }

// check refuses a tensor that is not whole; its elements are looked at when
// they are written.
func (t Tensor) check() error {
	switch {
	case t.Name == metadataKey:
		return errors.New("the name is reserved")
	case !utf8.ValidString(t.Name):
		return errors.New("the name is not valid UTF-8")
	case t.DType.size() == 0:
		return fmt.Errorf("element type %q is not known", t.DType)
	case t.DType == F64 && t.F32 != nil, t.DType == F32 && t.F64 != nil:
		return fmt.Errorf("it holds elements of another type than %s", t.DType)
	case len(t.Shape) > MaxDims:
		return fmt.Errorf("%d dimensions are more than %d", len(t.Shape), MaxDims)
	}
	n, err := elements(t.Shape)
	if err != nil {
		return err
	}
	if n != uint64(t.len()) {
		return fmt.Errorf("its shape asks for %d elements, it holds %d", n, t.len())
	}
	return nil
}

// elements returns the product of a shape.
func elements(shape []int) (uint64, error) {
	n := uint64(1)
	for _, d := range shape {
		if d < 0 {
			return 0, errors.New("a dimension is negative")
		}
		hi, lo := bits.Mul64(n, uint64(d))
		if hi != 0 {
			return 0, errors.New("the product of its shape overflows")
		}
		n = lo
	}
	return n, nil
}

// finite is false for NaN and the infinities, whose difference with themselves
// is NaN.
func finite(x float64) bool { return x-x == 0 }

// Unmarshal reads a whole file. The tensors come in the order of their data;
// metadata is nil where there is none. Every element is finite, else the error
// is [ErrNotFinite]. What is returned does not share memory with b.
func Unmarshal(b []byte, limit Limits) ([]Tensor, map[string]string, error) {
	tensors, metadata, err := unmarshal(b, limit.within())
	if err != nil {
		return nil, nil, fmt.Errorf("safetensors: read: %w", err)
	}
	return tensors, metadata, nil
}

func unmarshal(b []byte, limit Limits) ([]Tensor, map[string]string, error) {
	if len(b) < 8 {
		return nil, nil, errors.New("the file is shorter than its length field")
	}
	n := binary.LittleEndian.Uint64(b)
	if n > uint64(limit.Header) {
		return nil, nil, fmt.Errorf("a header of %d bytes is longer than %d", n, limit.Header)
	}
	if n > uint64(len(b)-8) {
		return nil, nil, errors.New("the file is shorter than its header")
	}
	entries, metadata, err := parseHeader(b[8:8+n], limit)
	if err != nil {
		return nil, nil, fmt.Errorf("header: %w", err)
	}
	data := b[8+n:]

	// A tensor of no elements begins where the next one does, hence the end.
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end), cmp.Compare(a.name, b.name))
	})
	// All is checked before the first tensor is allocated.
	at := uint64(0)
	for _, e := range entries {
		if e.begin != at || e.end < e.begin || e.end > uint64(len(data)) {
			return nil, nil, fmt.Errorf("tensor %q: its offsets leave a hole, overlap or pass the end", e.name)
		}
		count, err := elements(e.shape)
		if err != nil {
			return nil, nil, fmt.Errorf("tensor %q: %w", e.name, err)
		}
		size := uint64(e.dtype.size())
		if length := e.end - e.begin; length%size != 0 || length/size != count {
			return nil, nil, fmt.Errorf("tensor %q: %d bytes do not hold its %d elements", e.name, length, count)
		}
		at = e.end
	}
	if at != uint64(len(data)) {
		return nil, nil, fmt.Errorf("%d bytes follow the last tensor", uint64(len(data))-at)
	}

	tensors := make([]Tensor, len(entries))
	for i, e := range entries {
		t := Tensor{Name: e.name, DType: e.dtype, Shape: e.shape}
		ok := true
		raw := data[e.begin:e.end]
		if e.dtype == F64 {
			t.F64 = make([]float64, len(raw)/8)
			for j := range t.F64 {
				t.F64[j] = math.Float64frombits(binary.LittleEndian.Uint64(raw[8*j:]))
				ok = ok && finite(t.F64[j])
			}
		} else {
			t.F32 = make([]float32, len(raw)/4)
			for j := range t.F32 {
				t.F32[j] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*j:]))
				ok = ok && finite(float64(t.F32[j]))
			}
		}
		if !ok {
			return nil, nil, fmt.Errorf("tensor %q: %w", e.name, ErrNotFinite)
		}
		tensors[i] = t
	}
	return tensors, metadata, nil
}
