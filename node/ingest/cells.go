package ingest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/format"
)

// textOf tells how the values of a Parquet column are written as cells. The
// error completes a sentence that begins with the column.
func textOf(e *format.SchemaElement) (func(raw []byte) (string, error), error) {
	kind := e.Type.V
	logical := e.LogicalType.Value
	if logical == nil && e.ConvertedType.Valid {
		logical = modern(e.ConvertedType.V)
	}
	switch l := logical.(type) {
	case nil:
		switch kind {
		case format.Boolean:
			return func(raw []byte) (string, error) { return strconv.FormatBool(raw[0] != 0), nil }, nil
		case format.Int32, format.Int64:
			return func(raw []byte) (string, error) { return strconv.FormatInt(signed(raw), 10), nil }, nil
		case format.Float:
			return func(raw []byte) (string, error) {
				return floatText(float64(math.Float32frombits(binary.LittleEndian.Uint32(raw))), 32), nil
			}, nil
		case format.Double:
			return func(raw []byte) (string, error) {
				return floatText(math.Float64frombits(binary.LittleEndian.Uint64(raw)), 64), nil
			}, nil
		case format.Int96:
			return julianText, nil
		case format.ByteArray:
			return utf8Text, nil
		}
	case *format.NullType: // nothing but nulls
		return func([]byte) (string, error) { return "", nil }, nil
	case *format.IntType:
		if (kind == format.Int32 || kind == format.Int64) && !l.IsSigned {
			return func(raw []byte) (string, error) { return strconv.FormatUint(unsigned(raw), 10), nil }, nil
		}
		if kind == format.Int32 || kind == format.Int64 {
			return func(raw []byte) (string, error) { return strconv.FormatInt(signed(raw), 10), nil }, nil
		}
	case *format.DateType:
		if kind == format.Int32 {
			return func(raw []byte) (string, error) {
				return timeText(time.Unix(signed(raw)*secondsADay, 0), time.DateOnly)
			}, nil
		}
	case *format.TimestampType:
		if kind == format.Int64 {
			return instant(l)
		}
	case *format.StringType, *format.EnumType, *format.JsonType:
		if kind == format.ByteArray {
			return utf8Text, nil
		}
	}
	name := kind.String()
	if logical != nil {
		name = logical.String()
	}
	return nil, fmt.Errorf("is of type %s, which is not read; write it as a number, text, a date or a timestamp, or leave it out of the file", name)
}

// modern returns the logical type of an old annotation.
func modern(t deprecated.ConvertedType) format.LogicalTypeValue {
	switch t {
	case deprecated.UTF8:
		return new(format.StringType)
	case deprecated.Enum:
		return new(format.EnumType)
	case deprecated.Json:
		return new(format.JsonType)
	case deprecated.Date:
		return new(format.DateType)
	case deprecated.TimestampMillis:
		return &format.TimestampType{IsAdjustedToUTC: true, Unit: format.TimeUnit{Value: new(format.MilliSeconds)}}
	case deprecated.TimestampMicros:
		return &format.TimestampType{IsAdjustedToUTC: true, Unit: format.TimeUnit{Value: new(format.MicroSeconds)}}
	case deprecated.Uint8, deprecated.Uint16, deprecated.Uint32, deprecated.Uint64:
		return &format.IntType{}
	case deprecated.Int8, deprecated.Int16, deprecated.Int32, deprecated.Int64:
		return &format.IntType{IsSigned: true}
	case deprecated.Decimal:
		return new(format.DecimalType)
	case deprecated.TimeMillis, deprecated.TimeMicros:
		return new(format.TimeType)
	}
	return new(format.BsonType) // and Interval: neither is read
}

const (
	secondsADay = 24 * 60 * 60
	// firstJulian is the Julian day on which Unix time begins.
	firstJulian = 2_440_588

	utcLayout   = "2006-01-02T15:04:05.999999999Z"
	localLayout = "2006-01-02T15:04:05.999999999"
)

// instant writes a count of units since 1970, with a Z where it is that of UTC
// and not of a clock on the wall.
func instant(t *format.TimestampType) (func([]byte) (string, error), error) {
	layout := localLayout
	if t.IsAdjustedToUTC {
		layout = utcLayout
	}
	if t.Unit.Value == nil {
		return nil, errors.New("is a timestamp without a unit; the file is damaged")
	}
	unit := int64(t.Unit.Value.Duration())
	perSecond := int64(time.Second) / unit
	return func(raw []byte) (string, error) {
		v := signed(raw)
		seconds, rest := v/perSecond, v%perSecond
		return timeText(time.Unix(seconds, rest*unit), layout)
	}, nil
}

// julianText writes nanoseconds of a day and its Julian number, which is how
// older programs keep timestamps, of whatever zone.
func julianText(raw []byte) (string, error) {
	day := int64(binary.LittleEndian.Uint32(raw[8:])) - firstJulian
	nanoseconds := int64(binary.LittleEndian.Uint64(raw))
	return timeText(time.Unix(day*secondsADay, nanoseconds), localLayout)
}

func timeText(t time.Time, layout string) (string, error) {
	t = t.UTC()
	if year := t.Year(); year < 0 || year > 9999 {
		return "", fmt.Errorf("the date is in the year %d; only 0 to 9999 can be written", year)
	}
	return t.Format(layout), nil
}

// floatText writes the shortest decimal that reads back the same. What is not a
// number is missing.
func floatText(x float64, bits int) string {
	if math.IsNaN(x) {
		return ""
	}
	return strconv.FormatFloat(x, 'g', -1, bits)
}

func utf8Text(raw []byte) (string, error) {
	if !utf8.Valid(raw) {
		return "", errors.New("the text is not UTF-8; write it as UTF-8, or leave the column out of the file")
	}
	return string(raw), nil
}

// signed and unsigned read 4 or 8 bytes.
func signed(raw []byte) int64 {
	if len(raw) == 4 {
		return int64(int32(binary.LittleEndian.Uint32(raw)))
	}
	return int64(binary.LittleEndian.Uint64(raw))
}

func unsigned(raw []byte) uint64 {
	if len(raw) == 4 {
		return uint64(binary.LittleEndian.Uint32(raw))
	}
	return binary.LittleEndian.Uint64(raw)
}
