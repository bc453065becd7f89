package chart

import (
	"bytes"
	"fmt"
	"image/color"
	"io"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/font/liberation"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"village/protocol/figure"
)

var (
	ink     = nrgba(figure.Ink)
	muted   = nrgba(figure.Muted)
	grid    = nrgba(figure.Grid)
	paper   = nrgba(figure.Paper)
	palette = figure.Palette[:]
	loses   = nrgba(palette[1])
)

// nrgba is a colour as on paper; the page makes of it one that a dark screen
// brightens.
func nrgba(c figure.Colour) color.NRGBA {
	return color.NRGBA{uint8(c.Light >> 16), uint8(c.Light >> 8), uint8(c.Light), 0xff}
}

// The opacities of bands and stripes.
const (
	bandAlpha   = 0x33
	stripeAlpha = 0x55
)

// cssNames are the page's variables for the colours, in the notation of SVG.
func cssNames() []string {
	var pairs []string
	for _, named := range append([]figure.Colour{figure.Ink, figure.Muted, figure.Grid, figure.Paper}, palette...) {
		c := nrgba(named)
		for _, c.A = range []uint8{0xff, bandAlpha, stripeAlpha} {
			pairs = append(pairs, css(c), "var(--"+named.Name+")")
		}
	}
	return pairs
}

// css is how the drawing writes a colour: of one that lets through, the rest of
// which goes into its opacity, the last bit is another.
func css(c color.Color) string {
	r, g, b, a := c.RGBA()
	part := func(v uint32) int { return int(float64(v) * (255 / float64(a))) }
	return fmt.Sprintf("#%02X%02X%02X", part(r), part(g), part(b))
}

func paletteOf(i int) color.NRGBA { return nrgba(palette[i%len(palette)]) }

// Lines beyond the palette are dashed; markers tell them apart in grey.
var dashes = [][]vg.Length{nil, {6, 2.5}, {1.5, 2}, {7, 2, 1.5, 2}}

var markers = []draw.GlyphDrawer{
	draw.CircleGlyph{}, draw.BoxGlyph{}, draw.PyramidGlyph{},
	hollow{draw.CircleGlyph{}, draw.RingGlyph{}}, hollow{draw.BoxGlyph{}, draw.SquareGlyph{}}, hollow{draw.PyramidGlyph{}, draw.TriangleGlyph{}},
	draw.CrossGlyph{},
}

// hollow is a marker through which its line does not run.
type hollow struct{ inside, outline draw.GlyphDrawer }

// DrawGlyph implements draw.GlyphDrawer.
func (h hollow) DrawGlyph(c *draw.Canvas, sty draw.GlyphStyle, pt vg.Point) {
	c.SetColor(paper)
	h.inside.DrawGlyph(c, sty, pt)
	c.SetColor(sty.Color)
	h.outline.DrawGlyph(c, sty, pt)
}

func lineStyle(i int) draw.LineStyle {
	return draw.LineStyle{Color: paletteOf(i), Width: lineWidth, Dashes: dashes[i/len(palette)%len(dashes)]}
}

func markerStyle(i int) draw.GlyphStyle {
	return draw.GlyphStyle{Color: paletteOf(i), Radius: 2.7, Shape: markers[i%len(markers)]}
}

var (
	sans    = font.Font{Typeface: "Liberation", Variant: "Sans"}
	handler = raised{text.Plain{Fonts: font.NewCache(liberation.Collection())}}
)

func textStyle(size vg.Length, c color.Color) text.Style {
	return text.Style{Color: c, Font: font.From(sans, size), Handler: handler}
}

// raised writes what follows a zero byte as an exponent, for the font lacks some
// raised digits. No text from elsewhere has one: see plain.
type raised struct{ text.Plain }

const exponentSize = 0.72

func (h raised) split(txt string, f font.Font) (base, exponent string, small font.Font) {
	base, exponent, _ = strings.Cut(txt, "\x00")
	small = f
	small.Size *= exponentSize
	return base, exponent, small
}

// Box implements text.Handler.
func (h raised) Box(txt string, f font.Font) (width, height, depth vg.Length) {
	base, exponent, small := h.split(txt, f)
	width, height, depth = h.Plain.Box(base, f)
	more, _, _ := h.Plain.Box(exponent, small)
	return width + more, height, depth
}

// Draw implements text.Handler.
func (h raised) Draw(c vg.Canvas, txt string, sty text.Style, pt vg.Point) {
	base, exponent, small := h.split(txt, sty.Font)
	if exponent == "" {
		h.Plain.Draw(c, txt, sty, pt)
		return
	}
	width, _, _ := h.Box(txt, sty.Font)
	pt.X += vg.Length(sty.XAlign) * width
	sty.XAlign = draw.XLeft
	h.Plain.Draw(c, base, sty, pt)
	baseWidth, _, _ := h.Plain.Box(base, sty.Font)
	pt.X += baseWidth
	pt.Y += sty.Font.Size * 0.36
	sty.Font = small
	h.Plain.Draw(c, exponent, sty, pt)
}

// power10 is 10 to the power of e, for handler.
func power10(e int) string {
	return "10\x00" + strings.Replace(fmt.Sprint(e), "-", "−", 1)
}

// width is that of a text.
func width(txt string, s text.Style) vg.Length {
	w, _, _ := handler.Box(txt, s.Font)
	return w
}

// fit shortens a text to a width.
func fit(txt string, s text.Style, most vg.Length) string {
	if width(txt, s) <= most {
		return txt
	}
	r := []rune(txt)
	for len(r) > 1 && width(string(r)+"…", s) > most {
		r = r[:len(r)-1]
	}
	return string(r) + "…"
}

// newPlot is an empty plot in our style, with a grid at the ticks of the axes
// that are asked for.
func newPlot(x, y axis) *plot.Plot {
	p := plot.New()
	p.TextHandler, p.BackgroundColor = handler, nil
	for _, a := range []struct {
		to   *plot.Axis
		from axis
	}{{&p.X, x}, {&p.Y, y}} {
		a.to.Min, a.to.Max = a.from.min, a.from.max
		a.to.Label.Text = a.from.title
		align := a.to.Label.TextStyle
		a.to.Label.TextStyle = textStyle(10.5, ink)
		a.to.Label.TextStyle.XAlign, a.to.Label.TextStyle.YAlign = align.XAlign, align.YAlign
		a.to.Label.Padding = 5
		align = a.to.Tick.Label
		a.to.Tick.Label = textStyle(9.5, muted)
		a.to.Tick.Label.XAlign, a.to.Tick.Label.YAlign = align.XAlign, align.YAlign
		a.to.Tick.Marker = plot.ConstantTicks(a.from.ticks)
		a.to.Tick.Length = 0
		a.to.Padding = 5
		a.to.LineStyle.Width = 0
	}
	p.Add(gridLines{x: x.grid, y: y.grid})
	return p
}

// gridLines runs thin lines through the ticks.
type gridLines struct{ x, y bool }

// Plot implements plot.Plotter.
func (g gridLines) Plot(c draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&c)
	thin := draw.LineStyle{Color: grid, Width: 0.6}
	if g.y {
		for _, t := range p.Y.Tick.Marker.Ticks(p.Y.Min, p.Y.Max) {
			c.StrokeLine2(thin, c.Min.X, toY(t.Value), c.Max.X, toY(t.Value))
		}
	}
	if g.x {
		for _, t := range p.X.Tick.Marker.Ticks(p.X.Min, p.X.Max) {
			c.StrokeLine2(thin, toX(t.Value), c.Min.Y, toX(t.Value), c.Max.Y)
		}
	}
}

// chart is one plot with its legend above it.
type chart struct {
	name    string // of its files, without the ending
	caption string
	plot    *plot.Plot // nil where there is nothing to show
	height  vg.Length  // of the plot without the legend
	legend  []entry
}

// entry is a line of a legend: a stroke, a band, a marker, or text alone.
type entry struct {
	text   string
	line   *draw.LineStyle
	marker *draw.GlyphStyle
	band   color.Color
}

const (
	figureWidth = 6.5 * vg.Inch
	margin      = vg.Length(10)
	rowHeight   = vg.Length(15)
	swatch      = vg.Length(22)
	legendGap   = vg.Length(9) // for the label of a tick at the top
)

// place is where an entry of a legend stands.
type place struct {
	row int
	x   vg.Length
}

// layout deals the legend out to rows.
func (f chart) layout() (places []place, rows int) {
	style, x := textStyle(9.5, ink), vg.Length(0)
	for _, e := range f.legend {
		w := width(e.text, style) + 16
		if e.swatched() {
			w += swatch + 5
		}
		if x > 0 && x+w-16 > figureWidth-2*margin {
			x, rows = 0, rows+1
		}
		places = append(places, place{rows, x})
		x += w
	}
	if len(places) > 0 {
		rows++
	}
	return places, rows
}

func (e entry) swatched() bool { return e.line != nil || e.marker != nil || e.band != nil }

// size is that of the chart.
func (f chart) size() (w, h vg.Length) {
	_, rows := f.layout()
	return figureWidth, f.height + vg.Length(rows)*rowHeight + 2*margin + legendGap
}

func (f chart) draw(c draw.Canvas) {
	c.SetColor(paper)
	c.Fill(c.Rectangle.Path())
	c = draw.Crop(c, margin, -margin-4, margin, -margin)
	places, rows := f.layout()
	style := textStyle(9.5, ink)
	style.YAlign = draw.YCenter
	for i, e := range f.legend {
		x, y := c.Min.X+places[i].x, c.Max.Y-vg.Length(places[i].row)*rowHeight-rowHeight/2
		if e.band != nil {
			c.FillPolygon(e.band, []vg.Point{{X: x, Y: y - 4}, {X: x + swatch, Y: y - 4}, {X: x + swatch, Y: y + 4}, {X: x, Y: y + 4}})
		}
		if e.line != nil {
			c.StrokeLine2(*e.line, x, y, x+swatch, y)
		}
		if e.marker != nil {
			c.DrawGlyph(*e.marker, vg.Point{X: x + swatch/2, Y: y})
		}
		if e.swatched() {
			x += swatch + 5
			style.Color = ink
		} else {
			style.Color = muted
		}
		c.FillText(style, vg.Point{X: x, Y: y}, e.text)
	}
	f.plot.Draw(draw.Crop(c, 0, 0, 0, -vg.Length(rows)*rowHeight-legendGap))
}

// drawSVG names, beside the font that the text was measured with, those that
// are as wide.
func (f chart) drawSVG() string {
	w, h := f.size()
	c := vgsvg.New(w, h)
	f.draw(draw.New(c))
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		panic(err) // a buffer takes all
	}
	return strings.NewReplacer(
		"font-family:Liberation Sans;font-variant:normal;font-weight:normal;font-style:normal", "font-family:'Liberation Sans',Arial,Helvetica,sans-serif",
		"<!-- Generated by SVGo and Plotinum VG -->\n", "",
	).Replace(b.String())
}

// drawPNG has twice the pixels of a screen.
func (f chart) drawPNG(to io.Writer) error {
	w, h := f.size()
	c := vgimg.NewWith(vgimg.UseWH(w, h), vgimg.UseDPI(2*96))
	f.draw(draw.New(c))
	_, err := vgimg.PngCanvas{Canvas: c}.WriteTo(to)
	return err
}
