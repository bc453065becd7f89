package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/net/html"

	"village/node/api"
	"village/node/table"
	"village/protocol/learn"
	"village/protocol/record"
)

func write(t interface{ Fatal(...any) }, r api.Report) string {
	var b bytes.Buffer
	if err := Write(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// void are the elements of HTML without an end.
var void = []string{"meta", "br"}

// check holds the page to what every page has to be.
func check(t *testing.T, page string) *html.Node {
	t.Helper()
	if i := strings.Index(page, "NaN"); i >= 0 {
		t.Errorf("NaN in %.200q", page[max(0, i-100):])
	}
	for _, bad := range []string{"Inf<", "Inf ", "%!", "ZgotmplZ", "<nil>", "0x"} {
		if i := strings.Index(page, bad); i >= 0 {
			t.Errorf("%q in %.200q", bad, page[max(0, i-100):])
		}
	}
	for _, r := range page {
		if unicode.IsControl(r) && r != '\n' || unicode.Is(unicode.Bidi_Control, r) {
			t.Fatalf("%U in the page", r)
		}
	}
	// Every element ends, in order.
	var open []string
	z := html.NewTokenizer(strings.NewReader(page))
	for {
		kind := z.Next()
		if kind == html.ErrorToken {
			if !errors.Is(z.Err(), io.EOF) {
				t.Fatal(z.Err())
			}
			break
		}
		token := z.Token()
		switch {
		case kind == html.StartTagToken && !slices.Contains(void, token.Data):
			open = append(open, token.Data)
		case kind == html.EndTagToken:
			if len(open) == 0 || open[len(open)-1] != token.Data {
				t.Fatalf("</%s> ends %v", token.Data, open)
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		t.Errorf("%v do not end", open)
	}
	for _, svg := range regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(page, -1) {
		checkSVG(t, svg)
	}
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	for n := range root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		switch n.Data {
		case "script", "link", "img", "iframe", "object", "a", "form", "base":
			t.Errorf("the page has <%s>", n.Data)
		case "table":
			checkTable(t, n)
		}
		for _, a := range n.Attr {
			if strings.HasPrefix(a.Key, "on") || a.Key == "src" || a.Key == "href" || a.Key == "style" {
				t.Errorf("<%s> has %s=%q", n.Data, a.Key, a.Val)
			}
		}
	}
	return root
}

// checkSVG holds a drawing to XML, within its bounds and with words for it.
func checkSVG(t *testing.T, svg string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(svg))
	var height float64
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%v in %.300s", err, svg)
		}
		e, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		attr := map[string]string{}
		for _, a := range e.Attr {
			attr[a.Name.Local] = a.Value
		}
		if e.Name.Local == "svg" {
			if attr["aria-label"] == "" || attr["role"] != "img" {
				t.Errorf("nothing stands for a drawing: %v", attr)
			}
			if _, err := fmt.Sscanf(attr["viewBox"], "0 0 520 %g", &height); err != nil {
				t.Errorf("viewBox %q", attr["viewBox"])
			}
		}
		for key, most := range map[string]float64{"x": 520, "x1": 520, "x2": 520, "cx": 520, "y": height, "y1": height, "y2": height, "cy": height, "width": 520, "height": height} {
			v, there := attr[key]
			if x, err := strconv.ParseFloat(v, 64); there && (err != nil || x < -1e-9 || x > most+1e-9) {
				t.Errorf("<%s %s=%q> is not within %g", e.Name.Local, key, v, most)
			}
		}
		if e.Name.Local == "path" && !regexp.MustCompile(`^(M[0-9.]+ [0-9.]+)(L[0-9.]+ [0-9.]+)+Z?$`).MatchString(attr["d"]) {
			t.Errorf("path %q", attr["d"])
		}
	}
}

// checkTable sees that all lines of a table are as long as its head.
func checkTable(t *testing.T, n *html.Node) {
	t.Helper()
	want, hanging := -1, []int{} // rows that a cell of each column still has below
	for tr := range n.Descendants() {
		if tr.Type != html.ElementNode || tr.Data != "tr" {
			continue
		}
		at, next := 0, slices.Clone(hanging)
		for td := range tr.ChildNodes() {
			if td.Type != html.ElementNode {
				continue
			}
			columns, rows := 1, 1
			for _, a := range td.Attr {
				switch a.Key {
				case "colspan":
					columns, _ = strconv.Atoi(a.Val)
				case "rowspan":
					rows, _ = strconv.Atoi(a.Val)
				}
			}
			for range columns {
				for at < len(hanging) && hanging[at] > 0 {
					next[at], at = hanging[at]-1, at+1
				}
				for len(next) <= at {
					next = append(next, 0)
				}
				next[at], at = rows-1, at+1
			}
		}
		for at < len(hanging) && hanging[at] > 0 {
			next[at], at = hanging[at]-1, at+1
		}
		hanging = next
		if want < 0 {
			want = at
		}
		if at != want || want == 0 {
			var b strings.Builder
			html.Render(&b, tr)
			t.Errorf("a line of %d cells in a table of %d: %.400s", at, want, b.String())
		}
	}
}

// words are all that can be read in the page, with one blank between.
func words(root *html.Node) string {
	var b strings.Builder
	for n := range root.Descendants() {
		if n.Type == html.TextNode && n.Parent.Data != "style" {
			b.WriteString(n.Data + " ")
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func TestPage(t *testing.T) {
	for _, nodes := range []int{1, 4, 41, 200} {
		for _, numeric := range []bool{false, true} {
			r := example(nodes, numeric)
			t.Run(describe(r), func(t *testing.T) {
				page := write(t, r)
				text := words(check(t, page))
				for _, n := range r.Nodes {
					if !strings.Contains(text, n.Nation) || !strings.Contains(text, strings.TrimSpace(n.Name)) {
						t.Errorf("no word of %s %s", n.Nation, n.Name)
					}
				}
				for _, c := range r.Contributions {
					if !strings.Contains(page, c.PeerID.String()) {
						t.Errorf("no word of %s", c.PeerID)
					}
				}
				want := []string{
					"Alone against federated", "Plots", "Nodes", "Contributions", "How the model was chosen", "dropped after round 10",
					"mlp 64-16, adam, outer yogi 0.1", "What it goes on from", "It is promoted", "Check it yourself", "village model verify " + r.CID.String(),
					r.Report.String(), r.Task.String(), r.Lineage[0].String(), r.Lineage[1].String(), "with own bias", strings.Join(table.Verdict(r), " "),
				}
				if numeric {
					want = append(want, "MAE", "RMSE", "R²", "RMSE of each node")
				} else {
					want = append(want, "ROC", "Calibration", "calibration error", "Classes", "Groups by gender", "demographic parity", "2 groups of fewer than ten rows are hidden",
						"a line for each true class", "Accuracy gained over local only")
				}
				for _, w := range want {
					if !strings.Contains(text, strings.Join(strings.Fields(w), " ")) {
						t.Errorf("no %q", w)
					}
				}
				figures := (len(r.Nodes) + perFigure - 1) / perFigure
				if !numeric {
					figures += 2
				}
				if n := strings.Count(page, "<svg"); n != figures {
					t.Errorf("%d drawings, want %d", n, figures)
				}
				if size := len(page); size > 20_000+10_000*max(10, nodes) {
					t.Errorf("%d bytes for %d nodes", size, nodes)
				}
			})
		}
	}
}

// What the report has nothing on is left out.
func TestAbsent(t *testing.T) {
	whole := words(check(t, write(t, example(4, false))))
	for title, without := range map[string]func(*api.Report){
		"Groups by": func(r *api.Report) { r.AllRows.Federated.Fairness = nil },
		"How the model was chosen": func(r *api.Report) {
			r.Search = nil
		},
		"What it goes on from": func(r *api.Report) { r.Lineage, r.Promoted = nil, nil },
		"the model before":     func(r *api.Report) { r.AllRows.Parent = nil },
		"false positive rate": func(r *api.Report) {
			r.AllRows.Local.ROC, r.AllRows.Federated.ROC, r.AllRows.Personal.ROC = nil, nil, nil
		},
		"observed share": func(r *api.Report) {
			r.AllRows.Local.Calibration, r.AllRows.Federated.Calibration, r.AllRows.Personal.Calibration = nil, nil, nil
		},
		"own bias": func(r *api.Report) { r.AllRows.Personal = learn.Report{} },
		"are hidden": func(r *api.Report) {
			r.AllRows.Federated.Fairness.Hidden = 0
		},
		"Contributions": func(r *api.Report) { r.Contributions = nil },
		"calibration error": func(r *api.Report) {
			r.AllRows.Local.CalibrationError, r.AllRows.Federated.CalibrationError, r.AllRows.Personal.CalibrationError = nil, nil, nil
		},
		"Smaller figures": func(r *api.Report) {
			for _, p := range append([]*api.Pair{&r.AllRows}, pairs(r)...) {
				p.Local.Intervals, p.Federated.Intervals, p.Personal.Intervals = nil, nil, nil
			}
		},
	} {
		r := example(4, false)
		without(&r)
		if text := words(check(t, write(t, r))); strings.Contains(text, title) || !strings.Contains(whole, title) {
			t.Errorf("%q is in the page without it, or not in the whole one", title)
		}
	}
	number := words(check(t, write(t, example(4, true))))
	for _, title := range []string{"Classes", "true positive rate", "Calibration", "accuracy", "F1", "percentage points"} {
		if strings.Contains(number, title) {
			t.Errorf("%q of a numeric target", title)
		}
	}
}

func pairs(r *api.Report) (list []*api.Pair) {
	for i := range r.Nodes {
		list = append(list, &r.Nodes[i].Pair)
	}
	return list
}

// A report of many classes has no rates of a positive one.
func TestManyClasses(t *testing.T) {
	r := example(4, false)
	r.Positive = ""
	for _, report := range []*learn.Report{&r.AllRows.Local, &r.AllRows.Federated, &r.AllRows.Personal} {
		report.ROC, report.Calibration, report.CalibrationError = nil, nil, nil
		report.Classes, report.Confusion = nil, nil
		for i := range 10 {
			report.Classes = append(report.Classes, learn.ClassReport{Label: strconv.Itoa(i), Support: 10, Precision: .5, Recall: .5, F1: .5})
			report.Confusion = append(report.Confusion, make([]uint64, 10))
			report.Confusion[i][i] = 10
		}
		report.Fairness.DemographicParity, report.Fairness.EqualisedOdds = nil, nil
		for i := range report.Fairness.Groups {
			g := &report.Fairness.Groups[i]
			g.Selection, g.TPR, g.FPR = nil, nil, nil
		}
	}
	text := words(check(t, write(t, r)))
	for _, w := range []string{"selection rate", "TPR", "positive class", "demographic"} {
		if strings.Contains(text, w) {
			t.Errorf("%q", w)
		}
	}
	if !strings.Contains(text, "Groups by gender") {
		t.Error("no groups")
	}
}

// fill sets all that is in v: strings to s, floats to x, integers to n.
func fill(v reflect.Value, s string, x float64, n uint64) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[record.CID]() {
			v.Set(reflect.ValueOf(record.CIDOf([]byte("x"))))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), s, x, n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), s, x, n)
		fill(v.Index(1), s, x, n)
	case reflect.Array:
		if v.Type() == reflect.TypeFor[learn.Interval]() {
			fill(v.Index(0), s, x, n)
			fill(v.Index(1), s, x, n)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), s, x, n)
	case reflect.Bool:
		v.SetBool(n%2 == 0)
	case reflect.Uint64, reflect.Uint8:
		v.SetUint(n)
	case reflect.Int:
		v.SetInt(int64(n))
	case reflect.Float64:
		v.SetFloat(x)
	default:
		panic(v.Kind())
	}
}

// Text of a peer stays text, and no figure breaks the page.
func TestHostile(t *testing.T) {
	check := func(s string, x float64, n uint64) {
		var r api.Report
		fill(reflect.ValueOf(&r).Elem(), s, x, n)
		check(t, write(t, r))
		for i := range r.Nodes {
			r.Nodes[i].Local, r.Nodes[i].Personal = learn.Report{}, learn.Report{}
		}
		r.AllRows.Local.Classes, r.AllRows.Federated.Classes = nil, nil
		check(t, write(t, r))
		if t.Failed() {
			t.Fatalf("with %q, %g, %d", s, x, n)
		}
	}
	for _, s := range []string{
		`</title></text></svg></style><script>alert(1)</script><!-- {{.}} ]]>`, `" onload="alert(1)" x='<img src=x onerror=alert(1)>`,
		"\x00\x1b[2J\u202egpj.\xff\ufffe\uffff", "", strings.Repeat("長い名前", 60), strings.Repeat("\u0301", 50), "javascript:alert(1)",
	} {
		check(s, .5, 7)
	}
	for _, x := range []float64{0, 1, -1, 1e-300, 1e99, -1e99, math.MaxFloat64, -math.MaxFloat64, math.NaN(), math.Inf(1), math.Inf(-1)} {
		for _, n := range []uint64{0, 1, math.MaxUint64} {
			check("<b>", x, n)
		}
	}
}

func TestEmpty(t *testing.T) {
	text := words(check(t, write(t, api.Report{})))
	if !strings.Contains(text, "nothing can be said") {
		t.Error(text)
	}
	// Named nodes, but no evaluation.
	r := example(4, false)
	r.Missing = nil
	for _, n := range r.Nodes {
		r.Missing = append(r.Missing, n.PeerID)
	}
	r.Nodes, r.Promoted, r.Report = nil, nil, record.CID{}
	r.AllRows = api.Pair{Federated: learn.Report{Classes: r.AllRows.Federated.Classes}}
	r.Mean, r.Worst = api.MeanPair{}, api.MeanPair{}
	text = words(check(t, write(t, r)))
	for _, w := range []string{"nothing can be said", "Without an evaluation: ALB Tirana, ARE Abu Dhabi", "not known while evaluations are missing", "not an artifact"} {
		if !strings.Contains(text, w) {
			t.Errorf("no %q", w)
		}
	}
}

// Nodes come in the order of what they gain, and the colour says so.
func TestOrderAndDirection(t *testing.T) {
	p := newPage(example(41, false))
	last := math.Inf(1)
	for _, n := range p.byGain() {
		gain, _ := p.kind.Gained(n.Pair)
		if *gain > last {
			t.Fatalf("%g after %g", *gain, last)
		}
		last = *gain
	}
	for _, row := range p.Nodes {
		sign := map[string]string{"+": "up", "−": "down"}[strings.TrimRight(row.Gain.Value, "0123456789.")]
		if row.Gain.Class != sign {
			t.Errorf("%s is %q", row.Gain.Value, row.Gain.Class)
		}
	}
}
