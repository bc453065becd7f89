package portable

import (
	"encoding/binary"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// The numbers of fields and enumerations below are those of onnx.proto,
// https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.

const (
	irVersion = 8
	opset     = 17 // of ai.onnx
	mlOpset   = 3  // of ai.onnx.ml

	mlDomain = "ai.onnx.ml"
)

// elem is TensorProto.DataType.
type elem int

const (
	float32s elem = 1
	int64s   elem = 7
	texts    elem = 8
	bools    elem = 9
	float64s elem = 11
)

// graph is a GraphProto in the making: a list of nodes in the order in which
// they compute, each value named once.
type graph struct {
	nodes, constants, inputs, outputs []byte

	names   map[string]bool   // in use
	shared  map[string]string // constants by their encoding
	counted int
}

func newGraph(reserved ...string) *graph {
	g := &graph{names: map[string]bool{}, shared: map[string]string{}}
	for _, name := range reserved {
		g.names[name] = true
	}
	return g
}

// named takes a name, with _ behind it until it is not in use.
func (g *graph) named(name string) string {
	for g.names[name] {
		name += "_"
	}
	g.names[name] = true
	return name
}

// input declares a column of raw cells, shape N x 1.
func (g *graph) input(name string, of elem, doc string) {
	g.inputs = appendMessage(g.inputs, 11, valueInfo(name, of, 1, doc))
}

// output declares a result of shape N x columns, or N where columns is 0.
func (g *graph) output(name string, of elem, columns int, doc string) {
	g.outputs = appendMessage(g.outputs, 12, valueInfo(name, of, columns, doc))
}

// op adds a node with one output, and returns the output's name.
func (g *graph) op(kind string, inputs []string, attributes ...[]byte) string {
	g.counted++
	out := g.named(fmt.Sprintf("%s/%d", kind, g.counted))
	g.opTo(out, kind, inputs, attributes...)
	return out
}

// opTo is op with an output that is named already.
func (g *graph) opTo(out, kind string, inputs []string, attributes ...[]byte) {
	var node []byte
	for _, in := range inputs {
		node = appendText(node, 1, in)
	}
	node = appendText(node, 2, out)
	node = appendText(node, 3, out)
	node = appendText(node, 4, kind)
	for _, a := range attributes {
		node = appendMessage(node, 5, a)
	}
	if kind == "LabelEncoder" {
		node = appendText(node, 7, mlDomain)
	}
	g.nodes = appendMessage(g.nodes, 1, node)
}

func (g *graph) cast(x string, to elem) string {
	return g.op("Cast", []string{x}, integer("to", int(to)))
}

// constant returns the name of a tensor; the same one is there once.
func (g *graph) constant(of elem, shape []int, raw []byte) string {
	var t []byte
	for _, d := range shape {
		t = appendInt(t, 1, d)
	}
	t = appendInt(t, 2, int(of))
	t = appendMessage(t, 9, raw)
	if name, ok := g.shared[string(t)]; ok {
		return name
	}
	name := g.named(fmt.Sprintf("constant/%d", len(g.shared)+1))
	g.shared[string(t)] = name
	g.constants = appendMessage(g.constants, 5, appendText(t, 8, name))
	return name
}

// scalar is a double of no dimensions.
func (g *graph) scalar(x float64) string { return g.doubles(nil, x) }

func (g *graph) doubles(shape []int, xs ...float64) string {
	raw := make([]byte, 0, 8*len(xs))
	for _, x := range xs {
		raw = binary.LittleEndian.AppendUint64(raw, math.Float64bits(x))
	}
	return g.constant(float64s, shape, raw)
}

// floats rounds to single precision.
func (g *graph) floats(shape []int, xs []float64) string {
	raw := make([]byte, 0, 4*len(xs))
	for _, x := range xs {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(float32(x)))
	}
	return g.constant(float32s, shape, raw)
}

func (g *graph) integers(shape []int, xs ...int64) string {
	raw := make([]byte, 0, 8*len(xs))
	for _, x := range xs {
		raw = binary.LittleEndian.AppendUint64(raw, uint64(x))
	}
	return g.constant(int64s, shape, raw)
}

// property is an entry of metadata_props.
type property struct{ key, value string }

// model returns the whole ModelProto.
func (g *graph) model(name, doc string, properties []property) []byte {
	m := appendInt(nil, 1, irVersion)
	m = appendText(m, 2, "village")
	m = appendText(m, 6, doc)
	for _, set := range []struct {
		domain  string
		version int
	}{{"", opset}, {mlDomain, mlOpset}} {
		m = appendMessage(m, 8, appendInt(appendText(nil, 1, set.domain), 2, set.version))
	}
	for _, p := range properties {
		m = appendMessage(m, 14, appendText(appendText(nil, 1, p.key), 2, p.value))
	}
	head := appendText(nil, 2, name)
	size := len(head) + len(g.nodes) + len(g.constants) + len(g.inputs) + len(g.outputs)
	m = protowire.AppendTag(m, 7, protowire.BytesType)
	m = protowire.AppendVarint(m, uint64(size))
	for _, part := range [][]byte{g.nodes, head, g.constants, g.inputs, g.outputs} {
		m = append(m, part...)
	}
	return m
}

// valueInfo is a ValueInfoProto of shape N x columns, or N where columns is 0.
func valueInfo(name string, of elem, columns int, doc string) []byte {
	shape := appendMessage(nil, 1, appendText(nil, 2, "N"))
	if columns > 0 {
		shape = appendMessage(shape, 1, appendInt(nil, 1, columns))
	}
	tensor := appendMessage(appendInt(nil, 1, int(of)), 2, shape)
	v := appendText(nil, 1, name)
	v = appendMessage(v, 2, appendMessage(nil, 1, tensor))
	return appendText(v, 3, doc)
}

// The attributes of nodes, each an AttributeProto: its name, value and type.

func integer(name string, x int) []byte {
	return appendInt(appendInt(appendText(nil, 1, name), 3, x), 20, 2)
}

func text(name, s string) []byte {
	return appendInt(appendText(appendText(nil, 1, name), 4, s), 20, 3)
}

func integerList(name string, xs ...int64) []byte {
	a := appendText(nil, 1, name)
	for _, x := range xs {
		a = protowire.AppendTag(a, 8, protowire.VarintType)
		a = protowire.AppendVarint(a, uint64(x))
	}
	return appendInt(a, 20, 7)
}

func textList(name string, list []string) []byte {
	a := appendText(nil, 1, name)
	for _, s := range list {
		a = appendText(a, 9, s)
	}
	return appendInt(a, 20, 8)
}

func appendInt(b []byte, field protowire.Number, x int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), uint64(x))
}

func appendText(b []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

func appendMessage(b []byte, field protowire.Number, m []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), m)
}
