package dataset

import (
	"encoding/binary"
	"strings"
)

// Packed is a table column by column, in little more memory than its text takes. A
// [Table] takes 16 bytes a cell beside it, which is most of it where cells are short.
type Packed struct {
	Columns []string
	Cells   []*Cells // of each column, one a row
}

// NewPacked returns a table without rows.
func NewPacked(columns []string) Packed {
	p := Packed{columns, make([]*Cells, len(columns))}
	for i := range p.Cells {
		p.Cells[i] = &Cells{}
	}
	return p
}

// Pack packs a table, of which every row must be as long as Columns.
func Pack(t Table) Packed {
	p := NewPacked(t.Columns)
	for _, row := range t.Rows {
		for i, cell := range row {
			p.Cells[i].Append(cell)
		}
	}
	return p
}

// Rows is how many rows there are.
func (p Packed) Rows() int {
	if len(p.Cells) == 0 {
		return 0
	}
	return p.Cells[0].n
}

// Table unpacks the table.
func (p Packed) Table() Table {
	t := Table{Columns: p.Columns, Rows: make([][]string, p.Rows())}
	width := len(p.Columns)
	cells := make([]string, len(t.Rows)*width)
	for i := range t.Rows {
		t.Rows[i] = cells[i*width : (i+1)*width : (i+1)*width]
	}
	for j, c := range p.Cells {
		next := c.Read()
		for _, row := range t.Rows {
			row[j] = next()
		}
	}
	return t
}

// Cells are the cells of a column. Each stands in a block of text, behind its length.
// Blocks never move, so that a column can grow without leaving garbage behind.
type Cells struct {
	full []string
	last strings.Builder
	n    int
}

// The sizes of a column's blocks in bytes: small first, for tables of many columns and
// few rows.
const firstBlock, largestBlock = 256, 32 << 10

// Append adds a cell.
func (c *Cells) Append(cell string) {
	var head [binary.MaxVarintLen64]byte
	length := binary.AppendUvarint(head[:0], uint64(len(cell)))
	if need := len(length) + len(cell); c.last.Cap()-c.last.Len() < need {
		size := min(max(2*c.last.Cap(), firstBlock), largestBlock)
		if c.last.Len() > 0 {
			c.full = append(c.full, c.last.String())
		}
		c.last = strings.Builder{}
		c.last.Grow(max(size, need))
	}
	c.last.Write(length)
	c.last.WriteString(cell)
	c.n++
}

// Len is how many cells there are.
func (c *Cells) Len() int { return c.n }

// Read returns a function that returns cell after cell, and must not be called more
// often than there are any. A cell that is kept keeps its block.
func (c *Cells) Read() func() string {
	blocks, rest := append(c.full[:len(c.full):len(c.full)], c.last.String()), ""
	return func() string {
		if rest == "" { // every cell takes a byte
			rest, blocks = blocks[0], blocks[1:]
		}
		size, used := uint64(rest[0]&0x7f), 1
		for shift := 7; rest[used-1] >= 0x80; shift += 7 {
			size |= uint64(rest[used]&0x7f) << shift
			used++
		}
		cell := rest[used : used+int(size)]
		rest = rest[used+int(size):]
		return cell
	}
}

// Map returns what f makes of each cell: c itself where f changes none.
func (c *Cells) Map(f func(string) string) *Cells {
	var changed *Cells
	next := c.Read()
	for i := range c.n {
		cell := next()
		to := f(cell)
		if changed == nil && to != cell {
			changed = &Cells{}
			again := c.Read()
			for range i {
				changed.Append(again())
			}
		}
		if changed != nil {
			changed.Append(to)
		}
	}
	if changed == nil {
		return c
	}
	return changed
}

// keep returns the cells of certain rows, in order.
func (c *Cells) keep(rows []int) *Cells {
	if len(rows) == c.n {
		return c
	}
	kept, at := &Cells{}, 0
	next := c.Read()
	for _, row := range rows {
		for ; at < row; at++ {
			next()
		}
		kept.Append(next())
		at++
	}
	return kept
}
