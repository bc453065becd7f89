package report

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strconv"
	"strings"
	"unicode"
)

// The size of a drawing's letters is textSize, and its width figureWidth, in its
// own units; the page shows it at about one unit a pixel.
const (
	figureWidth = 520.0
	textSize    = 12.0
)

// drawing is an SVG under way. Its classes are those of the page's style sheet.
// Text is the only thing in it that comes from elsewhere.
type drawing struct {
	strings.Builder
	height float64
}

// number writes a coordinate, to a hundredth.
func number(x float64) string {
	return strconv.FormatFloat(math.Round(x*100)/100, 'f', -1, 64)
}

func (d *drawing) element(name, class string, attributes ...any) {
	fmt.Fprintf(d, `<%s class="%s"`, name, class)
	for i := 0; i+1 < len(attributes); i += 2 {
		v := attributes[i+1]
		if x, ok := v.(float64); ok {
			v = number(x)
		}
		fmt.Fprintf(d, ` %s="%s"`, attributes[i], html.EscapeString(fmt.Sprint(v)))
	}
	d.WriteString("/>")
}

func (d *drawing) line(class string, x1, y1, x2, y2 float64) {
	d.element("line", class, "x1", x1, "y1", y1, "x2", x2, "y2", y2)
}

func (d *drawing) rect(class string, x, y, width, height float64) {
	d.element("rect", class, "x", x, "y", y, "width", width, "height", height)
}

type point struct{ x, y float64 }

// path connects points.
func (d *drawing) path(class string, points []point) {
	if len(points) < 2 {
		return
	}
	var b strings.Builder
	for i, p := range points {
		b.WriteString(string("ML"[min(i, 1)]) + number(p.x) + " " + number(p.y))
	}
	d.element("path", class, "d", b.String())
}

// marker draws the mark of a model, in a shape of its own.
func (d *drawing) marker(m model, class string, x, y float64) {
	const r = 4.2
	class = "mark " + m.class() + " " + class
	switch m {
	case federated:
		d.element("circle", class, "cx", x, "cy", y, "r", r)
	case personal:
		d.element("path", class, "d", fmt.Sprintf("M%s %sL%s %sL%s %sL%s %sZ", number(x), number(y-r-1), number(x+r+1), number(y), number(x), number(y+r+1), number(x-r-1), number(y)))
	default:
		d.rect(class, x-r+.5, y-r+.5, 2*r-1, 2*r-1)
	}
}

// text writes a line with its anchor: start, middle or end.
func (d *drawing) text(class, anchor string, x, y float64, s string) {
	fmt.Fprintf(d, `<text class="%s" text-anchor="%s" x="%s" y="%s">%s</text>`, class, anchor, number(x), number(y), html.EscapeString(s))
}

// turned writes a line from the bottom to the top, its middle at x, y.
func (d *drawing) turned(class string, x, y float64, s string) {
	fmt.Fprintf(d, `<text class="%s" text-anchor="middle" transform="translate(%s %s) rotate(-90)">%s</text>`, class, number(x), number(y), html.EscapeString(s))
}

// group begins a group, which a pointer that rests on it explains; end ends it.
func (d *drawing) group(title string) {
	fmt.Fprintf(d, "<g><title>%s</title>", html.EscapeString(title))
}

func (d *drawing) end() { d.WriteString("</g>") }

// svg is the drawing as part of a page. The label stands for it where it cannot
// be seen.
func (d *drawing) svg(label string) template.HTML {
	return template.HTML(fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %s %s" role="img" aria-label="%s">%s</svg>`,
		number(figureWidth), number(d.height), html.EscapeString(label), d.String()))
}

// scale maps the numbers from lo to hi to lengths from to.
type scale struct{ lo, hi, from, to float64 }

func (s scale) at(v float64) float64 {
	v = min(max(v, s.lo), s.hi)
	return s.from + (v-s.lo)/(s.hi-s.lo)*(s.to-s.from)
}

// around is a scale that holds numbers with a little room, at least least.
func around(values []float64, least float64, from, to float64) scale {
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		lo, hi = min(lo, v), max(hi, v)
	}
	if lo > hi {
		lo, hi = 0, 0
	}
	pad := max(0.04*(hi-lo), least/2, 1e-6*max(math.Abs(lo), math.Abs(hi)))
	if pad == 0 {
		pad = 1
	}
	return scale{lo - pad, hi + pad, from, to}
}

// ticks are round numbers on a scale, about n of them, or fewer where their labels
// would touch, and how many digits after the point they have.
func (s scale) ticks(n int) (at []float64, digits int) {
	for ; ; n-- {
		at, digits = s.about(n)
		touch := false
		for i := 1; i < len(at); i++ {
			touch = touch || s.at(at[i])-s.at(at[i-1]) < textWidth("+"+tick(at[i], digits))
		}
		if !touch || n <= 2 {
			return at, digits
		}
	}
}

// about is ticks whatever the width of their labels.
func (s scale) about(n int) (at []float64, digits int) {
	rough := (s.hi - s.lo) / float64(n)
	step := math.Pow(10, math.Floor(math.Log10(rough)))
	for _, f := range []float64{1, 2, 5, 10} {
		if f*step >= rough*0.999 {
			step *= f
			break
		}
	}
	digits = max(0, int(-math.Floor(math.Log10(step)+1e-9)))
	for i := math.Ceil(s.lo/step - 1e-9); i*step <= s.hi+1e-9*step && len(at) < 4*n; i++ {
		at = append(at, i*step)
	}
	return at, digits
}

// tick writes the number at a tick.
func tick(v float64, digits int) string {
	if a := math.Abs(v); a >= 1e6 || digits > 6 {
		return strings.Replace(strconv.FormatFloat(v, 'g', 3, 64), "-", "−", -1)
	}
	return strings.Replace(strconv.FormatFloat(v+0, 'f', digits, 64), "-", "−", 1)
}

// fitted shortens a text to a width, which it estimates: letters of most
// alphabets are about as wide as those of Latin, the Chinese twice.
func fitted(s string, width float64) string {
	used := 0.0
	for i, r := range s {
		used += runeWidth(r) * textSize
		if used <= width {
			continue
		}
		for used = textSize; i > 0; i-- {
			if head := strings.TrimRight(s[:i], " "); head == s[:i] && textWidth(head)+textSize <= width {
				return strings.ToValidUTF8(head, "") + "…"
			}
		}
		return "…"
	}
	return s
}

func textWidth(s string) (width float64) {
	for _, r := range s {
		width += runeWidth(r) * textSize
	}
	return width
}

func runeWidth(r rune) float64 {
	switch {
	case strings.ContainsRune("iIjl.,:;'|!ft()[] ", r):
		return 0.32
	case unicode.Is(unicode.Mn, r):
		return 0
	case r >= 0x1100:
		return 1.05
	case unicode.IsUpper(r) || r == 'm' || r == 'w' || r == '@' || r == '%':
		return 0.74
	}
	return 0.57
}
