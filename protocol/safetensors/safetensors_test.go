package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The bytes of the reference writer, safetensors 0.8.0 for Python, for the
// tensors and the metadata of TestReferenceBytes.
const reference = "" +
	"70010000000000007b225f5f6d657461646174615f5f223a7b22646f63223a227b5c22615c223a5b312c5c22c3a95c5c6e5c225d7d227d2c" +
	"2262696173223a7b226474797065223a22463634222c227368617065223a5b325d2c22646174615f6f666673657473223a5b302c31365d7d" +
	"2c226e6f6e65223a7b226474797065223a22463634222c227368617065223a5b302c345d2c22646174615f6f666673657473223a5b31362c" +
	"31365d7d2c2273223a7b226474797065223a22463634222c227368617065223a5b5d2c22646174615f6f666673657473223a5b31362c3234" +
	"5d7d2c22776569676874223a7b226474797065223a22463634222c227368617065223a5b322c335d2c22646174615f6f666673657473223a" +
	"5b32342c37325d7d2c22622f5c22715c5ce280a8c3a95c75303030317f5c6e3c263e223a7b226474797065223a22463332222c2273686170" +
	"65223a5b312c325d2c22646174615f6f666673657473223a5b37322c38305d7d7d20202020202020000000000000f03f0000000000000040" +
	"0000000000000a409a9999999999b93f00000000000000c0355800662deb517e0000000000000000000000000000f03f0100000000000000" +
	"0000c03f00000080"

func TestReferenceBytes(t *testing.T) {
	want, err := hex.DecodeString(reference)
	if err != nil {
		t.Fatal(err)
	}
	metadata := map[string]string{"doc": `{"a":[1,"é\n"]}`}
	tensors := []Tensor{
		{Name: "weight", DType: F64, Shape: []int{2, 3}, F64: []float64{.1, -2, 3e300, 0, 1, 5e-324}},
		{Name: "b/\"q\\\u2028é\x01\x7f\n<&>", DType: F32, Shape: []int{1, 2}, F32: []float32{1.5, float32(math.Copysign(0, -1))}},
		{Name: "bias", DType: F64, Shape: []int{2}, F64: []float64{1, 2}},
		{Name: "s", DType: F64, F64: []float64{3.25}},
		{Name: "none", DType: F64, Shape: []int{0, 4}, F64: []float64{}},
	}
	got, err := Marshal(tensors, metadata)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("wrote\n%q, the reference writes\n%q", got, want)
	}
	back, meta, err := Unmarshal(want, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	order := []Tensor{tensors[2], tensors[4], tensors[3], tensors[0], tensors[1]}
	if !reflect.DeepEqual(back, order) || !reflect.DeepEqual(meta, metadata) {
		t.Fatalf("read %v %v", back, meta)
	}
	if !canonical(want, back, meta) {
		t.Fatal("the reference's bytes are not canonical")
	}

	got, err = Marshal(nil, nil)
	if err != nil || string(got) != "\x08\x00\x00\x00\x00\x00\x00\x00{}      " {
		t.Fatalf("no tensors: %q %v", got, err)
	}
}

// The header that the same writer gives the tensors of a perceptron of more than
// ten layers, by
//
//	save({"half": float32 1 x 2, "layers.10.weight": float64 1 x 1, "layers.10.bias": float64 1, "layers.2...": as layer 10})
//
// Names are in the order of their bytes, not of the numbers in them, behind their
// types: of 8 bytes, then of 4.
const layersHeader = `{"layers.10.bias":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},` +
	`"layers.10.weight":{"dtype":"F64","shape":[1,1],"data_offsets":[8,16]},` +
	`"layers.2.bias":{"dtype":"F64","shape":[1],"data_offsets":[16,24]},` +
	`"layers.2.weight":{"dtype":"F64","shape":[1,1],"data_offsets":[24,32]},` +
	`"half":{"dtype":"F32","shape":[1,2],"data_offsets":[32,40]}}`

func TestReferenceOrder(t *testing.T) {
	got, err := Marshal([]Tensor{
		{Name: "half", DType: F32, Shape: []int{1, 2}, F32: []float32{.25, -1}},
		{Name: "layers.2.weight", DType: F64, Shape: []int{1, 1}, F64: []float64{2.5}},
		{Name: "layers.2.bias", DType: F64, Shape: []int{1}, F64: []float64{-2}},
		{Name: "layers.10.weight", DType: F64, Shape: []int{1, 1}, F64: []float64{10.5}},
		{Name: "layers.10.bias", DType: F64, Shape: []int{1}, F64: []float64{-10}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	const data = "00000000000024c0" + "0000000000002540" + "00000000000000c0" + "0000000000000440" + "0000803e" + "000080bf"
	raw, err := hex.DecodeString(data)
	if err != nil {
		t.Fatal(err)
	}
	if want := append(file(layersHeader), raw...); !bytes.Equal(got, want) {
		t.Fatalf("wrote\n%q, the reference writes\n%q", got, want)
	}
}

// file is a file of a header and data.
func file(header string, data ...float64) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	b = append(b, header...)
	for _, x := range data {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(x))
	}
	return b
}

var foreign = map[string][]byte{
	"no padding":     file(`{"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}`, 1),
	"white space":    file("{ \"a\" : {\"dtype\":\t\"F64\",\n\"shape\":[ 1 ] ,\"data_offsets\":[0, 8]} }  ", 1),
	"key order":      file(`{"a":{"shape":[1],"data_offsets":[0,8],"dtype":"F64"}}  `, 1),
	"tensor order":   file(`{"b":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"a":{"dtype":"F64","shape":[1],"data_offsets":[8,16]}}`, 1, 2),
	"header order":   file(`{"b":{"dtype":"F64","shape":[1],"data_offsets":[8,16]},"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}`, 1, 2),
	"escapes":        file(`{"\u0061\ud83d\ude00\/":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}`, 1),
	"metadata order": file(`{"__metadata__":{"b":"","a":""},"x":{"dtype":"F64","shape":[],"data_offsets":[0,8]}}`, 1),
	"late metadata":  file(`{"x":{"dtype":"F64","shape":[],"data_offsets":[0,8]},"__metadata__":{}}`, 1),
}

// canonical says whether b is what Marshal makes of what Unmarshal read in it.
func canonical(b []byte, tensors []Tensor, metadata map[string]string) bool {
	again, err := Marshal(tensors, metadata)
	return err == nil && bytes.Equal(b, again)
}

func TestOtherWritersAreReadButNotCanonical(t *testing.T) {
	for name, b := range foreign {
		tensors, metadata, err := Unmarshal(b, Limits{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if canonical(b, tensors, metadata) {
			t.Errorf("%s: called canonical", name)
		}
	}
	tensors, _, _ := Unmarshal(foreign["escapes"], Limits{})
	if tensors[0].Name != "a😀/" {
		t.Errorf("escapes: %q", tensors[0].Name)
	}
	tensors, _, _ = Unmarshal(foreign["header order"], Limits{})
	if tensors[0].Name != "a" || tensors[0].F64[0] != 1 || tensors[1].F64[0] != 2 {
		t.Errorf("header order: %v", tensors)
	}
}

var hostile = map[string]struct {
	b    []byte
	want string
}{
	"empty":              {nil, "shorter than its length"},
	"no header":          {binary.LittleEndian.AppendUint64(nil, 2), "shorter than its header"},
	"huge header":        {binary.LittleEndian.AppendUint64(nil, math.MaxUint64), "longer than"},
	"zero header":        {file(``), "start with an object"},
	"leading space":      {file(` {}`), "start with an object"},
	"not utf-8":          {file("{\"\xff\":{}}"), "UTF-8"},
	"cut":                {file(`{"a":{"dtype":"F64"`), "missing"},
	"trailing comma":     {file(`{"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},}`, 1), "missing"},
	"trailing object":    {file(`{}{}`), "follows the object"},
	"trailing newline":   {file("{}\n"), "follows the object"},
	"trailing data":      {file(`{}`, 1), "follow the last tensor"},
	"duplicate tensor":   {file(`{"a":{"dtype":"F64","shape":[0],"data_offsets":[0,0]},"\u0061":{"dtype":"F64","shape":[0],"data_offsets":[0,0]}}`), "twice"},
	"duplicate key":      {file(`{"a":{"dtype":"F64","dtype":"F64","shape":[0],"data_offsets":[0,0]}}`), "twice"},
	"duplicate metadata": {file(`{"__metadata__":{"a":"","a":""}}`), "twice"},
	"two metadata":       {file(`{"__metadata__":{},"__metadata__":{}}`), "twice"},
	"metadata number":    {file(`{"__metadata__":{"a":1}}`), "missing"},
	"metadata null":      {file(`{"__metadata__":null}`), "missing"},
	"unknown key":        {file(`{"a":{"dtype":"F64","shape":[0],"data_offsets":[0,0],"x":1}}`), "not known"},
	"missing key":        {file(`{"a":{"dtype":"F64","shape":[0]}}`), "needs"},
	"one offset":         {file(`{"a":{"dtype":"F64","shape":[0],"data_offsets":[0]}}`), "two data_offsets"},
	"three offsets":      {file(`{"a":{"dtype":"F64","shape":[0],"data_offsets":[0,0,0]}}`), "longer than 2"},
	"unknown type":       {file(`{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}`, 1), "element type"},
	"negative dimension": {file(`{"a":{"dtype":"F64","shape":[-1],"data_offsets":[0,8]}}`, 1), "unsigned"},
	"fraction":           {file(`{"a":{"dtype":"F64","shape":[1.0],"data_offsets":[0,8]}}`, 1), "missing"},
	"leading zero":       {file(`{"a":{"dtype":"F64","shape":[01],"data_offsets":[0,8]}}`, 1), "unsigned"},
	"huge number":        {file(`{"a":{"dtype":"F64","shape":[18446744073709551616],"data_offsets":[0,8]}}`, 1), "unsigned"},
	"huge dimension":     {file(`{"a":{"dtype":"F64","shape":[18446744073709551615],"data_offsets":[0,8]}}`, 1), "too large"},
	"shape overflow":     {file(`{"a":{"dtype":"F64","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}}`), "overflows"},
	"size overflow":      {file(`{"a":{"dtype":"F64","shape":[2305843009213693953],"data_offsets":[0,8]}}`, 1), "do not hold"},
	"too few elements":   {file(`{"a":{"dtype":"F64","shape":[2],"data_offsets":[0,8]}}`, 1), "do not hold"},
	"half an element":    {file(`{"a":{"dtype":"F64","shape":[0],"data_offsets":[0,4]}}`, 1), "do not hold"},
	"nine dimensions":    {file(`{"a":{"dtype":"F64","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,8]}}`, 1), "longer than 8"},
	"hole":               {file(`{"a":{"dtype":"F64","shape":[1],"data_offsets":[8,16]}}`, 1, 2), "hole"},
	"overlap":            {file(`{"a":{"dtype":"F64","shape":[2],"data_offsets":[0,16]},"b":{"dtype":"F64","shape":[1],"data_offsets":[8,16]}}`, 1, 2), "overlap"},
	"backwards":          {file(`{"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"b":{"dtype":"F64","shape":[1],"data_offsets":[8,0]}}`, 1), "overlap"},
	"eight gigabytes":    {file(`{"a":{"dtype":"F64","shape":[1000000000],"data_offsets":[0,8000000000]}}`), "pass the end"},
	"past the end":       {file(`{"a":{"dtype":"F64","shape":[2],"data_offsets":[0,16]}}`, 1), "pass the end"},
	"control character":  {file("{\"a\n\":{}}"), "control character"},
	"lone surrogate":     {file(`{"\ud800":{}}`), "broken escape"},
	"two high":           {file(`{"\ud800\ud800":{}}`), "broken escape"},
	"bad escape":         {file(`{"\x":{}}`), "broken escape"},
	"open string":        {file(`{"a`), "does not end"},
	"NaN":                {file(`{"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}`, math.NaN()), "finite"},
	"deep":               {file(`{"a":` + strings.Repeat("[", 1000)), "missing"},
}

func TestHostileFilesAreRefused(t *testing.T) {
	for name, c := range hostile {
		tensors, metadata, err := Unmarshal(c.b, Limits{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
		if tensors != nil || metadata != nil {
			t.Errorf("%s: something was returned beside the error", name)
		}
	}
}

func TestNotFinite(t *testing.T) {
	for _, x := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		b := file(`{"a":{"dtype":"F64","shape":[2],"data_offsets":[0,16]}}`, x, 0)
		if _, _, err := Unmarshal(b, Limits{}); !errors.Is(err, ErrNotFinite) {
			t.Errorf("read %v: %v", x, err)
		}
		b = file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`)
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(x)))
		b = binary.LittleEndian.AppendUint32(b, 0)
		if _, _, err := Unmarshal(b, Limits{}); !errors.Is(err, ErrNotFinite) {
			t.Errorf("read 32-bit %v: %v", x, err)
		}
		if _, err := Marshal([]Tensor{{DType: F64, F64: []float64{x}}}, nil); !errors.Is(err, ErrNotFinite) {
			t.Errorf("write %v: %v", x, err)
		}
		if _, err := Marshal([]Tensor{{DType: F32, F32: []float32{float32(x)}}}, nil); !errors.Is(err, ErrNotFinite) {
			t.Errorf("write 32-bit %v: %v", x, err)
		}
	}
}

func TestMarshalRefusesWhatIsNotWhole(t *testing.T) {
	one := []float64{1}
	for name, c := range map[string]struct {
		tensors  []Tensor
		metadata map[string]string
		want     string
	}{
		"twice":            {[]Tensor{{Name: "a", DType: F64, F64: one}, {Name: "a", DType: F32, F32: []float32{1}}}, nil, "two tensors"},
		"reserved":         {[]Tensor{{Name: "__metadata__", DType: F64, F64: one}}, nil, "reserved"},
		"name not utf-8":   {[]Tensor{{Name: "\xff", DType: F64, F64: one}}, nil, "UTF-8"},
		"metadata utf-8":   {nil, map[string]string{"a": "\xff"}, "UTF-8"},
		"unknown type":     {[]Tensor{{DType: "I8"}}, nil, "element type"},
		"other data":       {[]Tensor{{DType: F64, F32: []float32{1}}}, nil, "another type"},
		"both data":        {[]Tensor{{DType: F32, Shape: []int{2}, F64: one, F32: []float32{1}}}, nil, "another type"},
		"shape":            {[]Tensor{{DType: F64, Shape: []int{2}, F64: one}}, nil, "2 elements"},
		"negative":         {[]Tensor{{DType: F64, Shape: []int{-1}, F64: one}}, nil, "negative"},
		"overflow":         {[]Tensor{{DType: F64, Shape: []int{math.MaxInt, math.MaxInt}, F64: one}}, nil, "overflows"},
		"dimensions":       {[]Tensor{{DType: F64, Shape: make([]int, 9), F64: nil}}, nil, "dimensions"},
		"too many tensors": {make([]Tensor, MaxTensors+1), nil, "more than"},
		"long header":      {nil, map[string]string{"a": strings.Repeat("a", MaxHeader)}, "longer than"},
	} {
		if _, err := Marshal(c.tensors, c.metadata); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
}

func TestLimitsNarrow(t *testing.T) {
	b, err := Marshal([]Tensor{{Name: "a", DType: F64, Shape: []int{1, 1}, F64: []float64{1}}, {Name: "b", DType: F64, F64: []float64{1}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []Limits{{Header: 64}, {Tensors: 1}, {Dims: 1}} {
		if _, _, err := Unmarshal(b, l); err == nil {
			t.Errorf("%+v let the file pass", l)
		}
	}
	for _, l := range []Limits{{}, {Header: len(b), Tensors: 2, Dims: 2}} {
		if _, _, err := Unmarshal(b, l); err != nil {
			t.Errorf("%+v: %v", l, err)
		}
	}
	long := file(`{}` + strings.Repeat(" ", MaxHeader))
	if _, _, err := Unmarshal(long, Limits{Header: math.MaxInt}); err == nil {
		t.Error("a limit lifted the package's own")
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tensors []Tensor
		names := rapid.SliceOfNDistinct(rapid.String().Filter(func(s string) bool { return s != metadataKey }), 0, 6, rapid.ID[string]).Draw(t, "names")
		for _, name := range names {
			shape := rapid.SliceOfN(rapid.IntRange(0, 3), 0, 4).Draw(t, "shape")
			n := 1
			for _, d := range shape {
				n *= d
			}
			if len(shape) == 0 {
				shape = nil
			}
			x := Tensor{Name: name, Shape: shape}
			if rapid.Bool().Draw(t, "wide") {
				x.DType, x.F64 = F64, make([]float64, n)
				for i := range x.F64 {
					x.F64[i] = rapid.Float64Range(-math.MaxFloat64, math.MaxFloat64).Draw(t, "x")
				}
			} else {
				x.DType, x.F32 = F32, make([]float32, n)
				for i := range x.F32 {
					x.F32[i] = rapid.Float32Range(-math.MaxFloat32, math.MaxFloat32).Draw(t, "x")
				}
			}
			tensors = append(tensors, x)
		}
		var metadata map[string]string
		if rapid.Bool().Draw(t, "metadata") {
			metadata = rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "map")
		}
		b, err := Marshal(tensors, metadata)
		if err != nil {
			t.Fatal(err)
		}
		shuffled, err := Marshal(rapid.Permutation(tensors).Draw(t, "order"), metadata)
		if err != nil || !bytes.Equal(b, shuffled) {
			t.Fatal("the bytes depend on the order of the arguments")
		}
		back, meta, err := Unmarshal(b, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(meta, metadata) || len(back) != len(tensors) || !canonical(b, back, meta) {
			t.Fatalf("came back as %v %v", back, meta)
		}
		for _, x := range tensors {
			found := false
			for _, y := range back {
				found = found || reflect.DeepEqual(x, y)
			}
			if !found {
				t.Fatalf("%v is not among %v", x, back)
			}
		}
	})
}

func FuzzUnmarshal(f *testing.F) {
	b, err := hex.DecodeString(reference)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	for _, b := range foreign {
		f.Add(b)
	}
	for _, c := range hostile {
		f.Add(c.b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		tensors, metadata, err := Unmarshal(b, Limits{})
		if err != nil {
			return
		}
		again, err := Marshal(tensors, metadata)
		if err != nil {
			t.Fatalf("read but not written: %v", err)
		}
		tensors, metadata, err = Unmarshal(again, Limits{})
		if err != nil || !canonical(again, tensors, metadata) {
			t.Fatalf("what Marshal writes is not canonical: %v", err)
		}
	})
}
