package record

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"pgregory.net/rapid"
)

var nan, inf = math.NaN(), math.Inf(1)

// doc has a field of every type that payloads are made of.
type doc struct {
	F    float64  `cbor:"f"`
	N    uint64   `cbor:"n"`
	I    int      `cbor:"i"`
	B    bool     `cbor:"b"`
	Text string   `cbor:"text"`
	Data []byte   `cbor:"data"`
	Link CID      `cbor:"link"`
	Node NodeID   `cbor:"node"`
	Many []doc2   `cbor:"many"`
	Sums []uint64 `cbor:"sums"`
	Skip string   `cbor:"-"`
}

type doc2 struct {
	Names []string `cbor:"names"`
	X     float64  `cbor:"x"`
}

func aDoc() doc {
	return doc{
		F: 1.5, N: 1 << 40, I: -3, B: true, Text: "né", Data: []byte{1, 2}, Link: CIDOf([]byte("x")), Node: NodeID{1, 2},
		Many: []doc2{{Names: []string{"a", "b"}, X: math.Copysign(0, -1)}, {}}, Sums: []uint64{0, math.MaxUint64},
	}
}

// docFields are those of aDoc in canonical order, written by hand.
func docFields() []field {
	d := aDoc()
	return []field{
		{"b", []byte{0xf5}},
		{"f", []byte{0xfb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0}},
		{"i", item(1, 2)},
		{"n", number(1 << 40)},
		{"data", data([]byte{1, 2})},
		{"link", item(6, 42, data(append([]byte{0}, d.Link.Bytes()...))...)},
		{"many", append(append([]byte{0x82},
			dict(field{"x", []byte{0xfb, 0x80, 0, 0, 0, 0, 0, 0, 0}}, field{"names", append([]byte{0x82}, append(text("a"), text("b")...)...)})...),
			dict(field{"x", []byte{0xfb, 0, 0, 0, 0, 0, 0, 0, 0}}, field{"names", []byte{0x80}})...)},
		{"node", data(d.Node[:])},
		{"sums", append([]byte{0x82, 0}, number(math.MaxUint64)...)},
		{"text", text("né")},
	}
}

func TestEncodeIsDagCBOR(t *testing.T) {
	b, err := Encode(aDoc())
	if err != nil {
		t.Fatal(err)
	}
	if want := dict(docFields()...); !bytes.Equal(b, want) {
		t.Fatalf("%x, by hand %x", b, want)
	}
	var back doc
	if err := Decode(b, &back); err != nil {
		t.Fatal(err)
	}
	if again, err := Encode(back); err != nil || !bytes.Equal(again, b) {
		t.Fatalf("%+v, %v", back, err)
	}
	if !math.Signbit(back.Many[0].X) {
		t.Error("the sign of -0 is lost")
	}
}

// other reads b as another implementation does and writes it again.
func other(b []byte) (datamodel.Node, []byte, error) {
	builder := basicnode.Prototype.Any.NewBuilder()
	if err := dagcbor.Decode(builder, bytes.NewReader(b)); err != nil {
		return nil, nil, err
	}
	var out bytes.Buffer
	err := dagcbor.Encode(builder.Build(), &out)
	return builder.Build(), out.Bytes(), err
}

func TestAnotherImplementationAgrees(t *testing.T) {
	for _, v := range []any{aDoc(), sign(t, aDoc()).Bytes} {
		b, ok := v.([]byte)
		if !ok {
			b, _ = Encode(v)
		}
		_, again, err := other(b)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("go-ipld-prime writes %x as %x, %v", b, again, err)
		}
	}
	b, _ := Encode(aDoc())
	n, _, err := other(b)
	if err != nil {
		t.Fatal(err)
	}
	get := func(key string) datamodel.Node {
		v, err := n.LookupByString(key)
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		return v
	}
	f, _ := get("f").AsFloat()
	i, _ := get("i").AsInt()
	s, _ := get("text").AsString()
	d, _ := get("data").AsBytes()
	link, err := get("link").AsLink()
	if f != 1.5 || i != -3 || s != "né" || !bytes.Equal(d, []byte{1, 2}) || get("many").Length() != 2 || n.Length() != 10 {
		t.Errorf("read as %v %v %v %v", f, i, s, d)
	}
	if err != nil || link.(cidlink.Link).Cid != aDoc().Link.Cid {
		t.Errorf("link read as %v, %v", link, err)
	}
	rapid.Check(t, func(t *rapid.T) {
		d := aDoc()
		d.F = rapid.Float64().Filter(func(x float64) bool { return x-x == 0 }).Draw(t, "f")
		d.N = rapid.Uint64().Draw(t, "n")
		d.I = rapid.Int().Draw(t, "i")
		d.Text = rapid.String().Draw(t, "text")
		d.Data = rapid.SliceOf(rapid.Byte()).Draw(t, "data")
		d.Sums = rapid.SliceOf(rapid.Uint64()).Draw(t, "sums")
		b, err := Encode(d)
		if err != nil {
			t.Fatal(err)
		}
		if _, again, err := other(b); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("go-ipld-prime writes %x as %x, %v", b, again, err)
		}
		var back doc
		if err := Decode(b, &back); err != nil {
			t.Fatal(err)
		}
	})
}

func TestEncodeRefusesWhatIsNotANumber(t *testing.T) {
	for _, v := range []any{nan, inf, -inf, []float64{0, nan}, doc2{X: inf}, map[string]any{"a": inf}, struct{ C CID }{}, []CID{{}}} {
		if b, err := Encode(v); err == nil {
			t.Errorf("%v is encoded as %x", v, b)
		}
	}
}

func TestDecodeRefusesAllButTheOneEncoding(t *testing.T) {
	good := docFields()
	if err := Decode(dict(good...), new(doc)); err != nil {
		t.Fatal(err)
	}
	with := func(key string, value ...byte) []byte { return dict(replaced(good, key, value)...) }
	swapped := slices.Clone(good)
	swapped[0], swapped[1] = swapped[1], swapped[0]
	byName := slices.Clone(good)
	slices.SortFunc(byName, func(a, b field) int { return strings.Compare(a.key, b.key) })
	renamed := func(from, to string) []byte {
		fs := slices.Clone(good)
		for i := range fs {
			if fs[i].key == from {
				fs[i].key = to
			}
		}
		return dict(fs...)
	}
	link := aDoc().Link.Bytes()
	for name, b := range map[string][]byte{
		"nothing":                         nil,
		"trailing byte":                   append(dict(good...), 0),
		"the document twice":              append(dict(good...), dict(good...)...),
		"missing key":                     dict(good[1:]...),
		"missing last key":                dict(good[:len(good)-1]...),
		"unknown key":                     dict(append([]field{{"a", number(1)}}, good...)...),
		"unknown key at the end":          dict(append(slices.Clone(good), field{"zzzzz", number(1)})...),
		"a key that is not encoded":       dict(append(slices.Clone(good), field{"Skip", text("")})...),
		"duplicate key":                   dict(append([]field{good[0]}, good...)...),
		"duplicate key, other value":      dict(append([]field{{"b", []byte{0xf4}}}, good...)...),
		"key in capitals":                 renamed("text", "TEXT"),
		"swapped keys":                    dict(swapped...),
		"bytewise order of keys":          dict(byName...),
		"key as bytes":                    append(item(5, 10), bytes.Replace(dict(good...)[1:], text("b"), data([]byte("b")), 1)...),
		"key as number":                   append(item(5, 11), append([]byte{1, 1}, dict(good...)[1:]...)...),
		"length of the map in two bytes":  append([]byte{0xb8, 10}, dict(good...)[1:]...),
		"float of 16 bits":                with("f", 0xf9, 0x3e, 0),
		"float of 32 bits":                with("f", 0xfa, 0x3f, 0xc0, 0, 0),
		"integer as float":                with("f", 1),
		"float as integer":                with("n", 0xfb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0),
		"NaN of 64 bits":                  with("f", 0xfb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0),
		"NaN of 16 bits":                  with("f", 0xf9, 0x7e, 0),
		"signalling NaN":                  with("f", 0xfb, 0x7f, 0xf0, 0, 0, 0, 0, 0, 1),
		"+Inf":                            with("f", 0xfb, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0),
		"-Inf of 32 bits":                 with("f", 0xfa, 0xff, 0x80, 0, 0),
		"integer in two bytes":            with("n", 0x18, 1),
		"integer in three bytes":          with("n", 0x19, 0, 200),
		"integer in nine bytes":           with("n", 0x1b, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff),
		"big integer":                     with("n", 0xc2, 0x41, 1),
		"integer beyond 64 bits":          with("n", 0xc2, 0x49, 1, 0, 0, 0, 0, 0, 0, 0, 0),
		"negative where it cannot be":     with("n", 0x20),
		"negative beyond 64 bits":         with("i", 0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"null for a number":               with("n", 0xf6),
		"undefined for a number":          with("n", 0xf7),
		"null for a list":                 with("sums", 0xf6),
		"null for bytes":                  with("data", 0xf6),
		"null for a link":                 with("link", 0xf6),
		"null for a node":                 with("node", 0xf6),
		"null for a map":                  with("many", 0x81, 0xf6),
		"undefined for a text":            with("text", 0xf7),
		"number for a boolean":            with("b", 1),
		"simple value":                    with("b", 0xe0),
		"simple value in two bytes":       with("b", 0xf8, 0xff),
		"false in two bytes":              with("b", 0xf8, 20),
		"break":                           with("b", 0xff),
		"reserved additional information": with("n", 0x1c),
		"indefinite bytes":                with("data", 0x5f, 0x41, 1, 0x41, 2, 0xff),
		"indefinite text":                 with("text", 0x7f, 0x61, 'a', 0xff),
		"indefinite list":                 with("sums", 0x9f, 0, 0xff),
		"indefinite map":                  append(append([]byte{0xbf}, dict(good...)[1:]...), 0xff),
		"text that is not UTF-8":          with("text", 0x61, 0xff),
		"text as bytes":                   with("text", 0x41, 'a'),
		"bytes as text":                   with("data", 0x61, 'a'),
		"bytes as list of numbers":        with("data", 0x82, 1, 2),
		"bytes with the tag of base64":    with("data", 0xd6, 0x42, 1, 2),
		"the tag of CBOR itself":          append([]byte{0xd9, 0xd9, 0xf7}, dict(good...)...),
		"the tag of encoded CBOR":         with("data", 0xd8, 24, 0x42, 1, 2),
		"a time":                          with("n", 0xc1, 1),
		"a link where none is due":        with("data", item(6, 42, data([]byte{0, 1})...)...),
		"link with another tag":           with("link", item(6, 43, data(append([]byte{0}, link...))...)...),
		"link with its tag in three":      with("link", append([]byte{0xd9, 0, 42}, data(append([]byte{0}, link...))...)...),
		"link with two tags":              with("link", item(6, 42, item(6, 42, data(append([]byte{0}, link...))...)...)...),
		"link without a tag":              with("link", data(append([]byte{0}, link...))...),
		"link without the prefix":         with("link", item(6, 42, data(link)...)...),
		"link with another prefix":        with("link", item(6, 42, data(append([]byte{1}, link...))...)...),
		"link as text":                    with("link", item(6, 42, text(aDoc().Link.String())...)...),
		"link that is too short":          with("link", item(6, 42, data(append([]byte{0}, link[:20]...))...)...),
		"link that is too long":           with("link", item(6, 42, data(append(append([]byte{0}, link...), 0))...)...),
		"empty link":                      with("link", item(6, 42, data([]byte{0})...)...),
		"link of nothing":                 with("link", item(6, 42, data(nil)...)...),
		"key of 31 bytes":                 with("node", data(make([]byte, 31))...),
		"key of 33 bytes":                 with("node", data(make([]byte, 33))...),
		"key as text":                     with("node", text(strings.Repeat("a", 32))...),
		"nested too deeply":               bytes.Repeat([]byte{0x81}, 1<<20),
		"tags nested too deeply":          with("link", bytes.Repeat([]byte{0xd8, 42}, 1<<19)...),
		"nested deeply in a field":        with("sums", append(bytes.Repeat([]byte{0x81}, 40), 0)...),
		"list longer than its bytes":      with("sums", 0x9b, 0, 0, 1, 0, 0, 0, 0, 0),
		"map longer than its bytes":       append([]byte{0xbb, 0, 0, 1, 0, 0, 0, 0, 0}, dict(good...)[1:]...),
		"text longer than its bytes":      with("text", 0x7b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"bytes longer than 2^63":          with("data", 0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
	} {
		if err := Decode(b, new(doc)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(dict(docFields()...))
	f.Add(dict(docFields()[1:]...))
	f.Add(dict(replaced(docFields(), "link", item(6, 42, data([]byte{0, 1, 0x55, 0, 0})...))...))
	f.Add(dict(replaced(docFields(), "f", []byte{0xf9, 0x7e, 0})...))
	f.Add([]byte{0xbf, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		var d doc
		if err := Decode(b, &d); err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		again, err := Encode(d)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x is written as %x, %v", b, again, err)
		}
		if _, again, err := other(b); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("go-ipld-prime writes %x as %x, %v", b, again, err)
		}
	})
}
