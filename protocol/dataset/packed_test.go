package dataset

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Cells come back as they were put, mapped and left out, whatever their lengths.
func TestPacked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Table{Columns: []string{"a", "b"}, Rows: [][]string{}}
		var kept, mapped []string
		var keep []int
		for i, n := range rapid.SliceOfN(rapid.SampledFrom([]int{0, 1, 5, 126, 127, 128, 300, 16_383, 16_384, largestBlock}), 1, 60).Draw(t, "lengths") {
			cell := strings.Repeat(string(rune('a'+i%26)), n)
			want.Rows = append(want.Rows, []string{cell, strings.ToUpper(cell)})
			mapped = append(mapped, strings.ReplaceAll(cell, "c", ""))
			if rapid.Bool().Draw(t, "keep") {
				keep, kept = append(keep, i), append(kept, cell)
			}
		}
		p := Pack(want)
		if got := p.Table(); !reflect.DeepEqual(got, want) {
			t.Fatalf("%d rows, want %d", len(got.Rows), len(want.Rows))
		}
		all := func(c *Cells) (cells []string) {
			next := c.Read()
			for range c.Len() {
				cells = append(cells, next())
			}
			return cells
		}
		if got := all(p.Cells[0].keep(keep)); !slices.Equal(got, kept) {
			t.Fatalf("kept %d cells, want %d", len(got), len(kept))
		}
		if got := all(p.Cells[0].Map(func(cell string) string { return strings.ReplaceAll(cell, "c", "") })); !slices.Equal(got, mapped) {
			t.Fatalf("mapped %d cells, want %d", len(got), len(mapped))
		}
		if c := p.Cells[1]; c.Map(func(cell string) string { return cell }) != c {
			t.Fatal("cells that do not change were copied")
		}
	})
}
