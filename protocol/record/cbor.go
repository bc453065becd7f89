package record

import (
	"bytes"
	"fmt"
	"reflect"

	"github.com/fxamacker/cbor/v2"
)

// The modes of deterministic dag-cbor: keys sorted length first, floats always
// 64 bits, no NaN or Inf, no indefinite lengths, tag 42 alone.
var (
	encoder = mustEncMode(cbor.EncOptions{
		Sort:          cbor.SortLengthFirst,
		ShortestFloat: cbor.ShortestFloatNone,
		NaNConvert:    cbor.NaNConvertReject,
		InfConvert:    cbor.InfConvertReject,
		IndefLength:   cbor.IndefLengthForbidden,
		NilContainers: cbor.NilContainerAsEmpty,
	})
	strict  = mustDecMode(decOptions(cbor.ExtraDecErrorUnknownField))
	lenient = mustDecMode(decOptions(cbor.ExtraDecErrorNone))
)

func decOptions(extra cbor.ExtraDecErrorCond) cbor.DecOptions {
	return cbor.DecOptions{
		DupMapKey:                cbor.DupMapKeyEnforcedAPF,
		IndefLength:              cbor.IndefLengthForbidden,
		ExtraReturnErrors:        extra,
		MaxNestedLevels:          16,
		MaxArrayElements:         1 << 16, // an element takes up to 100 times its bytes
		MaxMapPairs:              1 << 12,
		NaN:                      cbor.NaNDecodeForbidden,
		Inf:                      cbor.InfDecodeForbidden,
		UTF8:                     cbor.UTF8RejectInvalid,
		FieldNameMatching:        cbor.FieldNameMatchingCaseSensitive,
		ByteStringToString:       cbor.ByteStringToStringForbidden,
		FieldNameByteString:      cbor.FieldNameByteStringForbidden,
		BinaryUnmarshaler:        cbor.BinaryUnmarshalerNone,
		DefaultByteStringType:    reflect.TypeOf([]byte(nil)),
		UnrecognizedTagToAny:     cbor.UnrecognizedTagNumAndContentToAny,
		ByteStringExpectedFormat: cbor.ByteStringExpectedFormatNone,
	}
}

func mustEncMode(o cbor.EncOptions) cbor.EncMode {
	m, err := o.EncMode()
	if err != nil {
		panic(err)
	}
	return m
}

func mustDecMode(o cbor.DecOptions) cbor.DecMode {
	m, err := o.DecMode()
	if err != nil {
		panic(err)
	}
	return m
}

// Encode returns the one dag-cbor encoding of v. Struct fields are named by
// their `cbor` tag. NaN and Inf are refused.
func Encode(v any) ([]byte, error) {
	b, err := encoder.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("record: encode: %w", err)
	}
	return b, nil
}

// Decode reads b into v and refuses with [ErrMalformed] everything that
// [Encode] would not have written: unknown, duplicate or missing fields, other
// key orders, other number widths, trailing bytes.
func Decode(b []byte, v any) error {
	if err := strict.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	again, err := encoder.Marshal(v)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if !bytes.Equal(again, b) {
		return fmt.Errorf("%w: not in canonical form", ErrMalformed)
	}
	return nil
}
