package datasets

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"village/protocol/dataset"
)

var tables = map[string]dataset.Table{
	"all kinds of cells": {Columns: []string{"näme", "a,b", "\"q\"", " "}, Rows: [][]string{
		{"", "", "", ""},
		{"\"", "a\nb", "c\r\nd", ","},
		{"Ωμέγα", " spaced ", "\x00", "日本"},
		{"", "a\nb", "\"", "Ωμέγα"},
	}},
	"one empty column": {Columns: []string{"x"}, Rows: [][]string{{""}, {""}, {""}}},
	"no rows":          {Columns: []string{"x", "y"}, Rows: [][]string{}},
	"more than 127 words": {Columns: []string{"x"}, Rows: func() (rows [][]string) {
		for i := range 1000 {
			rows = append(rows, []string{fmt.Sprint(i * i % 777)})
		}
		return rows
	}()},
}

func TestRowsComeBackAsTheyWere(t *testing.T) {
	for name, want := range tables {
		got, err := DecodeRows(slices.Concat(encodeRows(dataset.Pack(want))...))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %q, want %q", name, err, got, want)
		}
	}
}

// asCSV is what earlier versions kept.
func asCSV(t testing.TB, table dataset.Table) []byte {
	t.Helper()
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	w.Write(table.Columns)
	if err := w.WriteAll(table.Rows); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRowsOfEarlierVersions(t *testing.T) {
	want := dataset.Table{Columns: []string{"näme", "b"}, Rows: [][]string{{"", "x,y"}, {"\"", "a\nb"}}}
	got, err := DecodeRows(asCSV(t, want))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %q, want %q", err, got, want)
	}
}

func TestDamagedRows(t *testing.T) {
	whole := string(slices.Concat(encodeRows(dataset.Pack(tables["all kinds of cells"]))...))
	damaged := []string{"", "a,b\n1\n", whole + "x",
		rowsForm + "\xff\xff\xff\xff\x7f\x01", rowsForm + "\x01\xff\xff\xff\xff\x7f", rowsForm + "\x00\x05",
		rowsForm + "\x01\x01\x01x\x07", rowsForm + "\x01\x01\x01x\x00\x7f" + strings.Repeat("x", 9)}
	for i := len(rowsForm); i < len(whole); i++ {
		damaged = append(damaged, whole[:i])
	}
	for _, b := range damaged {
		if got, err := DecodeRows([]byte(b)); !errors.Is(err, errRows) {
			t.Errorf("%q: %q, %v", b, got, err)
		}
	}
}

// Half of the columns are numbers that hardly repeat, the other half levels.
func benchTable() dataset.Table {
	const rows, width = 60_000, 50
	t := dataset.Table{}
	for j := range width {
		t.Columns = append(t.Columns, fmt.Sprint("column ", j))
	}
	for i := range rows {
		row := make([]string, width)
		for j := range row {
			if row[j] = fmt.Sprint("level ", i*j%7); j%2 == 0 {
				row[j] = fmt.Sprint(float64(i*7919%rows) / float64(j+3))
			}
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func BenchmarkDecodeRows(b *testing.B) {
	table := benchTable()
	for name, rows := range map[string][]byte{"columns": slices.Concat(encodeRows(dataset.Pack(table))...), "CSV": asCSV(b, table)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(rows)))
			for b.Loop() {
				if _, err := DecodeRows(rows); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(rows)), "bytes")
		})
	}
}
