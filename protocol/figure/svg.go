package figure

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
	"unicode"
)

// TextSize is the size of a drawing's letters, in its own units, of which a page
// shows about one a pixel.
const TextSize = 12.0

// Drawing is an SVG under way. Its classes are those of a page's style sheet; text
// is escaped.
type Drawing struct {
	Width, Height float64
	b             strings.Builder
}

// length writes a coordinate, to a hundredth.
func length(x float64) string { return strconv.FormatFloat(math.Round(x*100)/100, 'f', -1, 64) }

// element writes one without content; attributes are names and values in turn.
func (d *Drawing) element(name, class string, attributes ...any) {
	fmt.Fprintf(&d.b, `<%s class="%s"`, name, class)
	for i := 0; i+1 < len(attributes); i += 2 {
		v := attributes[i+1]
		if x, ok := v.(float64); ok {
			v = length(x)
		}
		fmt.Fprintf(&d.b, ` %s="%s"`, attributes[i], v)
	}
	d.b.WriteString("/>")
}

// Line draws a straight line.
func (d *Drawing) Line(class string, x1, y1, x2, y2 float64) {
	d.element("line", class, "x1", x1, "y1", y1, "x2", x2, "y2", y2)
}

// Rect draws a rectangle from its upper left corner.
func (d *Drawing) Rect(class string, x, y, width, height float64) {
	d.element("rect", class, "x", x, "y", y, "width", width, "height", height)
}

// Circle draws a circle.
func (d *Drawing) Circle(class string, x, y, r float64) {
	d.element("circle", class, "cx", x, "cy", y, "r", r)
}

// Diamond draws a square that stands on a corner.
func (d *Drawing) Diamond(class string, x, y, r float64) {
	d.element("path", class, "d", outline([]Point{{x, y - r}, {x + r, y}, {x, y + r}, {x - r, y}})+"Z")
}

// Point is a place in a drawing.
type Point struct{ X, Y float64 }

// Path connects points.
func (d *Drawing) Path(class string, points []Point) {
	if len(points) > 1 {
		d.element("path", class, "d", outline(points))
	}
}

func outline(points []Point) string {
	var b strings.Builder
	for i, p := range points {
		b.WriteString(string("ML"[min(i, 1)]) + length(p.X) + " " + length(p.Y))
	}
	return b.String()
}

// Text writes a line with its anchor: start, middle or end.
func (d *Drawing) Text(class, anchor string, x, y float64, s string) {
	fmt.Fprintf(&d.b, `<text class="%s" text-anchor="%s" x="%s" y="%s">%s</text>`, class, anchor, length(x), length(y), html.EscapeString(s))
}

// Turned writes a line from the bottom to the top, its middle at x, y.
func (d *Drawing) Turned(class string, x, y float64, s string) {
	fmt.Fprintf(&d.b, `<text class="%s" text-anchor="middle" transform="translate(%s %s) rotate(-90)">%s</text>`, class, length(x), length(y), html.EscapeString(s))
}

// Group begins a group, which a pointer that rests on it explains; End ends it.
func (d *Drawing) Group(title string) {
	fmt.Fprintf(&d.b, "<g><title>%s</title>", html.EscapeString(title))
}

// End ends a group.
func (d *Drawing) End() { d.b.WriteString("</g>") }

// SVG is the drawing as part of a page. The label stands for it where it cannot be
// seen.
func (d *Drawing) SVG(label string) string {
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %s %s" role="img" aria-label="%s">%s</svg>`,
		length(d.Width), length(d.Height), html.EscapeString(label), d.b.String())
}

// Fitted shortens a text to a width, which it estimates: letters of most alphabets
// are about as wide as those of Latin, the Chinese twice.
func Fitted(s string, width float64) string {
	used := 0.0
	for i, r := range s {
		used += runeWidth(r) * TextSize
		if used <= width {
			continue
		}
		for used = TextSize; i > 0; i-- {
			if head := strings.TrimRight(s[:i], " "); head == s[:i] && TextWidth(head)+TextSize <= width {
				return strings.ToValidUTF8(head, "") + "…"
			}
		}
		return "…"
	}
	return s
}

// TextWidth estimates how wide a text is.
func TextWidth(s string) (width float64) {
	for _, r := range s {
		width += runeWidth(r) * TextSize
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
