package record

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"runtime"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const fed = "blue-heron"

// key is a private key that depends on i alone.
func key(i byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{i}, ed25519.SeedSize))
}

func sign(t testing.TB, payload any) Record {
	t.Helper()
	r, err := Sign(key(1), fed, KindTask, "subject", 7, payload)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// item writes a CBOR head (RFC 8949, section 3) in its shortest form, and what
// follows it.
func item(major byte, n uint64, body ...byte) []byte {
	b := []byte{major << 5}
	switch {
	case n < 24:
		b[0] |= byte(n)
	case n < 1<<8:
		b = append(b[:0], major<<5|24, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16([]byte{major<<5 | 25}, uint16(n))
	case n < 1<<32:
		b = binary.BigEndian.AppendUint32([]byte{major<<5 | 26}, uint32(n))
	default:
		b = binary.BigEndian.AppendUint64([]byte{major<<5 | 27}, n)
	}
	return append(b, body...)
}

func number(n uint64) []byte { return item(0, n) }
func data(b []byte) []byte   { return item(2, uint64(len(b)), b...) }
func text(s string) []byte   { return item(3, uint64(len(s)), []byte(s)...) }

// field is a key of a map and its encoded value.
type field struct {
	key   string
	value []byte
}

func dict(fields ...field) []byte {
	b := item(5, uint64(len(fields)))
	for _, f := range fields {
		b = append(append(b, text(f.key)...), f.value...)
	}
	return b
}

// fields are those of an envelope in canonical order, written by hand.
func fields(r Record, version uint64, signature []byte) []field {
	return []field{
		{"kind", text(string(r.Kind))},
		{"author", data(r.Author[:])},
		{"number", number(r.Number)},
		{"payload", data(r.Payload)},
		{"subject", text(r.Subject)},
		{"version", number(version)},
		{"signature", data(signature)},
		{"federation", text(r.Federation)},
	}
}

// signature signs what the package comment of [Record] promises, written anew.
func signature(r Record, key ed25519.PrivateKey) []byte {
	b := []byte("village record v1\x00")
	for _, s := range []string{r.Federation, string(r.Kind), r.Subject, string(r.Author[:]), string(r.Payload)} {
		b = append(binary.BigEndian.AppendUint64(b, uint64(len(s))), s...)
	}
	return ed25519.Sign(key, binary.BigEndian.AppendUint64(b, r.Number))
}

func replaced(fs []field, key string, value []byte) []field {
	fs = slices.Clone(fs)
	for i := range fs {
		if fs[i].key == key {
			fs[i].value = value
		}
	}
	return fs
}

func TestKnownRecord(t *testing.T) {
	r, err := Sign(key(1), fed, KindUpdate, "s", 300, map[string]any{"b": 1.5, "aa": []uint64{1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	payload := dict(field{"b", []byte{0xfb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0}}, field{"aa", []byte{0x82, 1, 2}})
	if !bytes.Equal(r.Payload, payload) {
		t.Errorf("payload %x, by hand %x", r.Payload, payload)
	}
	want := dict(fields(r, 1, signature(r, key(1)))...)
	if !bytes.Equal(r.Bytes, want) {
		t.Fatalf("bytes %x, by hand %x", r.Bytes, want)
	}
	sum := sha256.Sum256(want)
	cid := "b" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(append([]byte{1, 0x71, 0x12, 0x20}, sum[:]...)))
	const known = "bafyreiaebuflmfpgmmzao65vncmb4pko2elxgosmzx354e4ybdjtrysqxq"
	if r.CID.String() != cid || cid != known {
		t.Errorf("CID %s, by hand %s, known %s", r.CID, cid, known)
	}
}

func TestRecordsComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := key(byte(rapid.IntRange(0, 3).Draw(t, "key")))
		federation := rapid.StringN(1, 20, MaxName).Draw(t, "federation")
		kind := rapid.SampledFrom([]Kind{KindManifest, KindTask, KindEnrolment, KindUpdate, KindEvaluation, "later"}).Draw(t, "kind")
		subject := rapid.StringN(0, 40, MaxName).Draw(t, "subject")
		n := rapid.Uint64().Draw(t, "number")
		payload := rapid.SliceOf(rapid.Byte()).Draw(t, "payload")
		r, err := Sign(k, federation, kind, subject, n, payload)
		if err != nil {
			t.Fatal(err)
		}
		want := Record{
			Slot:       Slot{Kind: kind, Subject: subject, Author: NodeIDOf(k.Public().(ed25519.PublicKey))},
			Federation: federation, Number: n, Payload: data(payload), CID: CIDOf(r.Bytes), Bytes: r.Bytes,
		}
		for _, open := range []func() (Record, error){
			func() (Record, error) { return r, nil },
			func() (Record, error) { return Open(r.Bytes, federation) },
			func() (Record, error) { return Open(r.Bytes, "") },
			func() (Record, error) { return Trusted(r.Bytes, r.CID) },
		} {
			got, err := open()
			if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("%+v came back as %+v, %v", want, got, err)
			}
		}
		if _, err := Open(r.Bytes, federation+"x"); !errors.Is(err, ErrFederation) {
			t.Fatalf("in another federation: %v", err)
		}
	})
}

func TestSignRefusesWhatOpenWould(t *testing.T) {
	long := strings.Repeat("x", MaxName+1)
	for name, c := range map[string]struct {
		federation, subject string
		kind                Kind
		payload             any
		want                error
	}{
		"no federation":         {"", "s", KindTask, 1, ErrMalformed},
		"long federation":       {long, "s", KindTask, 1, ErrMalformed},
		"federation not UTF-8":  {"\xff", "s", KindTask, 1, ErrMalformed},
		"long subject":          {fed, long, KindTask, 1, ErrMalformed},
		"subject not UTF-8":     {fed, "\xff", KindTask, 1, ErrMalformed},
		"no kind":               {fed, "s", "", 1, ErrMalformed},
		"long kind":             {fed, "s", Kind(long[:33]), 1, ErrMalformed},
		"kind not UTF-8":        {fed, "s", "\xff", 1, ErrMalformed},
		"too large":             {fed, "s", KindTask, make([]byte, MaxBytes), ErrTooLarge},
		"payload not a number":  {fed, "s", KindTask, nan, nil},
		"payload not encodable": {fed, "s", KindTask, func() {}, nil},
	} {
		if _, err := Sign(key(1), c.federation, c.kind, c.subject, 0, c.payload); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestTheLargestRecords(t *testing.T) {
	long := strings.Repeat("x", MaxName)
	r, err := Sign(key(1), long, Kind(long[:32]), long, 1, []byte{1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(r.Bytes, long); err != nil {
		t.Error(err)
	}
	rest := MaxBytes - len(sign(t, make([]byte, 1<<16)).Bytes) + 1<<16 // both take five bytes for their lengths
	r = sign(t, make([]byte, rest))
	if _, err := Open(r.Bytes, fed); err != nil || len(r.Bytes) != MaxBytes {
		t.Errorf("%d bytes: %v", len(r.Bytes), err)
	}
	if _, err := Sign(key(1), fed, KindTask, "subject", 7, make([]byte, rest+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("one more: %v", err)
	}
}

func TestOpenChecksInOrder(t *testing.T) {
	r := sign(t, "payload")
	good := signature(r, key(1))
	fs := fields(r, 1, good)
	bad := bytes.Repeat([]byte{9}, ed25519.SignatureSize)
	if _, err := Open(dict(fs...), fed); err != nil {
		t.Fatal(err)
	}
	future := append([]field{{"ext", number(1)}}, replaced(replaced(fs, "version", number(2)), "signature", data(bad))...)
	for _, c := range []struct {
		name       string
		b          []byte
		federation string
		want       error
	}{
		{"garbage of too many bytes", make([]byte, MaxBytes+1), fed, ErrTooLarge},
		{"nothing", nil, fed, ErrMalformed},
		{"garbage", []byte{0xff}, fed, ErrMalformed},
		{"a text", text("a"), fed, ErrMalformed},
		{"an empty map", dict(), fed, ErrMalformed},
		{"a signature of 63 bytes in another federation", dict(replaced(fs, "signature", bad[1:])...), "other", ErrMalformed},
		{"a signature of 65 bytes", dict(replaced(fs, "signature", append(good, 0))...), fed, ErrMalformed},
		{"a key of 31 bytes", dict(replaced(fs, "author", data(r.Author[1:]))...), fed, ErrMalformed},
		{"a key of 33 bytes", dict(replaced(fs, "author", data(append(r.Author[:], 0)))...), fed, ErrMalformed},
		{"no payload", dict(replaced(fs, "payload", data(nil))...), fed, ErrMalformed},
		{"no kind", dict(replaced(fs, "kind", text(""))...), fed, ErrMalformed},
		{"no federation", dict(replaced(fs, "federation", text(""))...), "", ErrMalformed},
		{"version 0", dict(replaced(fs, "version", number(0))...), fed, ErrMalformed},
		{"a newer version in another federation", dict(replaced(fs, "version", number(2))...), "other", ErrVersion},
		{"a newer version with a new field", dict(future...), fed, ErrVersion},
		{"a newer version without the old fields", dict(field{"version", number(9)}), fed, ErrVersion},
		{"a newer version, then more bytes", append(dict(future...), 0), fed, ErrMalformed},
		{"a newer version twice", dict(append(future, field{"version", number(3)})...), fed, ErrMalformed},
		{"a version that is no number", dict(replaced(fs, "version", text("2"))...), fed, ErrMalformed},
		{"a new field in the known version", dict(append([]field{{"ext", number(1)}}, fs...)...), fed, ErrMalformed},
		{"another federation and a wrong signature", dict(replaced(fs, "signature", data(bad))...), "other", ErrFederation},
		{"a wrong signature", dict(replaced(fs, "signature", data(bad))...), fed, ErrSignature},
		{"a wrong signature in any federation", dict(replaced(fs, "signature", data(bad))...), "", ErrSignature},
	} {
		got, err := Open(c.b, c.federation)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if got.Bytes != nil {
			t.Errorf("%s: a record beside the error", c.name)
		}
		for _, other := range []error{ErrTooLarge, ErrMalformed, ErrVersion, ErrFederation, ErrSignature} {
			if other != c.want && errors.Is(err, other) {
				t.Errorf("%s: %v is also %v", c.name, err, other)
			}
		}
	}
}

func TestEveryFieldIsSigned(t *testing.T) {
	r := sign(t, "payload")
	fs := fields(r, 1, signature(r, key(1)))
	other := key(2).Public().(ed25519.PublicKey)
	for _, c := range []field{
		{"kind", text("update")},
		{"author", data(other)},
		{"number", number(8)},
		{"payload", data(text("payloae"))},
		{"subject", text("subjecu")},
		{"federation", text(fed + "s")},
		// The end of one field as the beginning of the next.
		{"subject", text("subject" + string(r.Author[:1]))},
	} {
		if _, err := Open(dict(replaced(fs, c.key, c.value)...), ""); !errors.Is(err, ErrSignature) && !errors.Is(err, ErrMalformed) {
			t.Errorf("another %s: %v", c.key, err)
		}
	}
	// A field's bytes moved to its neighbour leave the concatenation the same.
	moved := replaced(replaced(fs, "federation", text(fed+string(r.Kind[:1]))), "kind", text(string(r.Kind[1:])))
	if _, err := Open(dict(moved...), ""); !errors.Is(err, ErrSignature) {
		t.Errorf("a byte moved from kind to federation: %v", err)
	}
}

func TestNoFlippedByteVerifies(t *testing.T) {
	r := sign(t, map[string]any{"a": 1.25, "b": []string{"x"}, "c": CIDOf(nil)})
	for i := range r.Bytes {
		for _, mask := range []byte{1, 2, 4, 8, 16, 32, 64, 128, 255} {
			b := bytes.Clone(r.Bytes)
			b[i] ^= mask
			if _, err := Open(b, ""); err == nil {
				t.Fatalf("byte %d xor %#x verifies", i, mask)
			}
			if _, err := Trusted(b, r.CID); !errors.Is(err, ErrMalformed) {
				t.Fatalf("byte %d xor %#x is trusted: %v", i, mask, err)
			}
		}
		if _, err := Open(r.Bytes[:i], ""); !errors.Is(err, ErrMalformed) {
			t.Fatalf("the first %d bytes: %v", i, err)
		}
		if _, err := Open(append(bytes.Clone(r.Bytes), byte(i)), ""); !errors.Is(err, ErrMalformed) {
			t.Fatalf("with a trailing byte: %v", err)
		}
	}
}

// A signature (R, S) also satisfies the equation as (R, S+L). Were it accepted,
// anyone could make a second record with another CID of what an author signed,
// and so a false proof of equivocation.
func TestSignaturesAreNotMalleable(t *testing.T) {
	r := sign(t, "payload")
	sig := signature(r, key(1))
	order, _ := new(big.Int).SetString("27742317777372353535851937790883648493", 10)
	order.Add(order, new(big.Int).Lsh(big.NewInt(1), 252))
	reversed := func(b []byte) []byte {
		b = bytes.Clone(b)
		slices.Reverse(b)
		return b
	}
	s := new(big.Int).SetBytes(reversed(sig[32:]))
	for range 8 {
		s.Add(s, order)
		if s.BitLen() > 256 {
			break
		}
		forged := append(bytes.Clone(sig[:32]), reversed(s.FillBytes(make([]byte, 32)))...)
		if _, err := Open(dict(fields(r, 1, forged)...), fed); !errors.Is(err, ErrSignature) {
			t.Errorf("S+%v: %v", s, err)
		}
	}
}

func TestTrusted(t *testing.T) {
	r := sign(t, "payload")
	bad := dict(fields(r, 1, bytes.Repeat([]byte{9}, 64))...)
	got, err := Trusted(bad, CIDOf(bad))
	if err != nil || got.Subject != r.Subject {
		t.Errorf("a signature that was checked before is checked again: %v", err)
	}
	if _, err := Trusted(bad, r.CID); !errors.Is(err, ErrMalformed) {
		t.Errorf("bytes of another CID: %v", err)
	}
	if _, err := Trusted([]byte("x"), CIDOf([]byte("x"))); !errors.Is(err, ErrMalformed) {
		t.Errorf("no record: %v", err)
	}
}

func TestSlots(t *testing.T) {
	for kind, keep := range map[Kind]int{
		KindContact: 1, KindManifest: 1, KindTask: 1, KindEnrolment: 1, KindUpdate: 2, KindEvaluation: 1, KindLeave: 1, KindBeacon: 1,
		KindProposal: MaxBallots, KindPrevote: MaxBallots, KindPrecommit: MaxBallots, KindSeal: 1, "later": 1,
	} {
		group := "subject"
		if kind == KindContact || kind == KindManifest || kind == KindTask {
			group = Catalogue
		}
		if s := (Slot{Kind: kind, Subject: "subject"}); s.Group() != group || kind.Keep() != keep {
			t.Errorf("%s: group %q, %d kept", kind, s.Group(), kind.Keep())
		}
		// The topic of a decision is no group of its own.
		if s := (Slot{Kind: kind, Subject: "subject/topic"}); group != Catalogue && s.Group() != group {
			t.Errorf("%s: group %q", kind, s.Group())
		}
	}
}

// spent returns the bytes that f allocates.
func spent(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestOpenAllocatesNoMoreThanTheBytesDeserve(t *testing.T) {
	r := sign(t, "payload")
	fs := fields(r, 1, signature(r, key(1)))
	for _, n := range []uint64{1 << 16, 1 << 31, 1 << 40, 1<<63 - 1, 1 << 63, 1<<64 - 1} {
		for major := byte(2); major <= 5; major++ {
			claim := item(major, n)
			for name, b := range map[string][]byte{
				"alone":      claim,
				"as payload": append(dict(fs[:3]...), append(text("payload"), claim...)...),
				"as kind":    append(item(5, 8), append(text("kind"), claim...)...),
			} {
				used := spent(func() {
					if _, err := Open(b, fed); !errors.Is(err, ErrMalformed) {
						t.Errorf("%s, major type %d with %d: %v", name, major, n, err)
					}
				})
				if used > 64<<10 {
					t.Errorf("%s, major type %d with %d: %d bytes allocated for %d", name, major, n, used, len(b))
				}
			}
		}
	}
	// An array of nulls is the most elements that so many bytes can claim.
	b := item(4, MaxBytes-5, bytes.Repeat([]byte{0xf6}, MaxBytes-5)...)
	used := spent(func() {
		var v []struct{ A, B, C, D, E, F string }
		if err := Decode(b, &v); !errors.Is(err, ErrMalformed) {
			t.Errorf("an array of a million nulls: %v", err)
		}
	})
	if used > MaxBytes {
		t.Errorf("an array of a million nulls: %d bytes allocated", used)
	}
}

func FuzzOpen(f *testing.F) {
	r := sign(f, map[string]any{"a": 1.25, "c": CIDOf(nil)})
	f.Add(r.Bytes)
	fs := fields(r, 1, signature(r, key(1)))
	f.Add(dict(fs[1:]...))
	f.Add(dict(replaced(fs, "version", number(2))...))
	f.Add(dict(replaced(fs, "payload", item(2, 1<<40))...))
	f.Add(bytes.Repeat([]byte{0x81}, 1000))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Open(b, "")
		if err != nil {
			if got.Bytes != nil {
				t.Fatal("a record beside an error")
			}
			return
		}
		if !bytes.Equal(got.Bytes, b) || got.CID != CIDOf(b) {
			t.Fatalf("opened as %s, %x", got.CID, got.Bytes)
		}
		// What is signed determines the bytes.
		e := envelope{
			Author: got.Author, Federation: got.Federation, Kind: got.Kind, Number: got.Number,
			Payload: got.Payload, Subject: got.Subject, Version: Version,
		}
		if err := Decode(b, &e); err != nil || !ed25519.Verify(got.Author[:], e.signed(), e.Signature) {
			t.Fatalf("opened though it does not verify: %v", err)
		}
	})
}

func TestKnownPeerID(t *testing.T) {
	// The Ed25519 vector of the libp2p peer ID specification.
	const public = "080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e"
	b, err := hex.DecodeString(public)
	if err != nil {
		t.Fatal(err)
	}
	if got := NodeID(b[4:]).String(); got != "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq" {
		t.Error(got)
	}
}
