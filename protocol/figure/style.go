package figure

import (
	_ "embed"
	"fmt"
	"strings"
)

// Colour is one of the pages and plots, 0xRRGGBB: what it is on paper, and on a
// dark screen.
type Colour struct {
	Name        string // of its variable in the style sheet, without --
	Light, Dark uint32
}

// The colours of lines and text.
var (
	Ink   = Colour{"ink", 0x1b1b1d, 0xececf0}
	Muted = Colour{"muted", 0x5f5f66, 0xa9a9b2}
	Grid  = Colour{"grid", 0xe2e2e6, 0x37373d}
	Paper = Colour{"paper", 0xffffff, 0x1d1d21}
)

// Palette is the colours of Okabe and Ito, which the colour-blind tell apart,
// ordered so that the first few also differ in grey; yellow, hard to see on white,
// is left out.
var Palette = [...]Colour{
	{"c0", 0x0072b2, 0x4aa8e8}, // blue
	{"c1", 0xd55e00, 0xf07c2c}, // vermillion
	{"c2", 0x009e73, 0x2fc597}, // green
	{"c3", 0xcc79a7, 0xdf9cc1}, // purple
	{"c4", 0xe69f00, 0xf0b53a}, // orange
	{"c5", 0x56b4e9, 0x8fd0f5}, // sky
	{"c6", 0x000001, 0xf4f4f6}, // black
}

//go:embed style.css
var rules string

// Style is the style sheet that the pages share: the colours as variables, and the
// rules for text, tables and plots.
func Style() string {
	all := append([]Colour{
		Ink, Muted, Grid, Paper,
		{"page", 0xf6f6f8, 0x141417}, {"up", 0x006a4d, 0x4fd1a5}, {"down", 0xa84a00, 0xff9d57}, {"note", 0xfff6e0, 0x33290f},
	}, Palette[:]...)
	for i, model := range []string{"federated", "local", "own"} { // in the order of the plots' lines
		all = append(all, Colour{model, Palette[i].Light, Palette[i].Dark})
	}
	var light, dark strings.Builder
	for _, c := range all {
		fmt.Fprintf(&light, " --%s: #%06x;", c.Name, c.Light)
		fmt.Fprintf(&dark, " --%s: #%06x;", c.Name, c.Dark)
	}
	return fmt.Sprintf(":root {%s }\n@media screen and (prefers-color-scheme: dark) { :root {%s } }\n%s", &light, &dark, rules)
}
