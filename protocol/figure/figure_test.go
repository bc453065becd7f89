package figure

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"village/protocol/learn"
	"village/protocol/task"
)

func of(x float64) *float64 { return &x }

func TestNumbers(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Ratio(.5), "0.500"}, {Ratio(-11.652), "−11.652"}, {Ratio(-1e5), "−100000"},
		{Quantity(0), "0.000"}, {Quantity(.12345), "0.123"}, {Quantity(12.345), "12.35"}, {Quantity(123.45), "123.5"}, {Quantity(99999), "99999"},
		{Quantity(1234567), "1.235e+06"}, {Quantity(.00001), "1e-05"}, {Quantity(-3.2), "−3.200"}, {QuantityBeside(310.9)(25.314), "25.3"},
		{Setting(.1), "0.1"}, {Setting(12345.678), "1.235e+04"}, {Setting(math.NaN()), None},
		{Percent(.7951), "79.5"}, {Percent(0), "0.0"},
		{Show(nil, Ratio), None}, {Show(of(math.Inf(1)), Ratio), None}, {Show(of(.25), Ratio), "0.250"},
		{Count(0), "0"}, {Count(999), "999"}, {Count(-1234567.), "−1,234,567"}, {Count(-0.2), "0"}, {Count(uint64(1000)), "1,000"},
		{Title("demographic parity"), "Demographic parity"}, {Title("R²"), "R²"}, {Plural(1, "node"), "1 node"}, {Plural(0, "node"), "0 nodes"}, {Plural(9800, "node"), "9,800 nodes"},
		{Digits(0), "0"}, {Digits(5), "5.00"}, {Digits(9.996), "10.0"}, {Digits(12.345), "12.3"}, {Digits(99.96), "100"}, {Digits(1234), "1,234"}, {Digits(-.126), "−0.13"},
		{Power(0), "0"}, {Power(1.234e-16), "1.2e-16"}, {Power(5e-5), "5.0e-5"}, {Power(.0123), "0.0123"}, {Power(1e7), "1.0e+7"},
		{Tick(0, 2), "0"}, {Tick(.25, 2), "0.25"}, {Tick(-.5, 1), "−0.5"}, {Tick(12000, 0), "12,000"}, {Tick(-2e12, 0), "−2e+12"}, {Tick(1e-8, 8), "1e-08"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}

func TestSizes(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 5: "5 B", 999: "999 B", 1000: "1.00 kB", 1024: "1.02 kB", 12_345: "12.3 kB", 999_499: "999 kB", 999_500: "1.00 MB", 5.5e9: "5.50 GB", 7e12: "7.00 TB", 2e18: "2,000 PB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("%d is %s, not %s", n, got, want)
		}
	}
	for seconds, want := range map[float64]string{0: "ms", .5: "ms", 1: "s", 59: "s", 60: "min", 7200: "h", 1e6: "d"} {
		if got := UnitFor(TimeUnits, seconds).Name; got != want {
			t.Errorf("%g seconds are in %s, not %s", seconds, got, want)
		}
	}
}

// One rule for signs: a plus or a minus, neither of what is written as zero.
func TestSigns(t *testing.T) {
	for _, c := range []struct{ got, want, direction string }{
		{Points(.0123), "+1.2", "up"}, {Points(-.0123), "−1.2", "down"}, {Points(.0001), "0.0", ""}, {Points(-.0001), "0.0", ""}, {Points(.1), "+10.0", "up"},
		{OfNumbers.Signed(-107.82), "−107.8", "down"}, {OfNumbers.Signed(3), "+3.000", "up"}, {OfNumbers.Signed(0), "0.000", ""},
		{OfClasses.Signed(.0312), "+3.1", "up"}, {OfClasses.Lead.Signed(.0312), "+0.031", "up"}, {Signed(Tick(1000, 0)), "+1,000", "up"},
		{None, None, ""},
	} {
		if c.got != c.want || SignDirection(c.got) != c.direction {
			t.Errorf("%q, %q; want %q, %q", c.got, SignDirection(c.got), c.want, c.direction)
		}
	}
	for _, c := range []struct{ got, want string }{
		{Span("0.7", "0.8"), "0.7–0.8"}, {Span("−1", "+2"), "−1 to +2"}, {Span("1e-05", "2e-05"), "1e-05 to 2e-05"},
		{OfClasses.SignedInterval(learn.Interval{-.01, .02}), "−1.0 to +2.0"}, {OfClasses.SignedInterval(learn.Interval{0, .02}), "0.0 to +2.0"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}

// Each metric reads its own figure, interval and key.
func TestMetrics(t *testing.T) {
	r := learn.Report{Accuracy: of(.1), F1: of(.2), ROCAUC: of(.3), MAE: of(4), RMSE: of(5), R2: of(.6), Intervals: &learn.Intervals{
		Accuracy: &learn.Interval{.1, .2}, F1: &learn.Interval{.2, .3}, ROCAUC: &learn.Interval{.3, .4}, MAE: &learn.Interval{4, 5}, RMSE: &learn.Interval{5, 16}, R2: &learn.Interval{-.6, .7},
	}}
	want := []struct{ name, key, value, interval, direction string }{
		{"accuracy", "accuracy", "0.100", "0.100–0.200", "up"}, {"F1", "f1", "0.200", "0.200–0.300", "up"}, {"ROC-AUC", "roc_auc", "0.300", "0.300–0.400", "up"},
		{"MAE", "mae", "4.000", "4.000–5.000", "down"}, {"RMSE", "rmse", "5.000", "5.000–16.00", "down"}, {"R²", "r2", "0.600", "−0.600 to 0.700", "up"},
	}
	for i, m := range slices.Concat(OfClasses.Metrics, OfNumbers.Metrics) {
		w := want[i]
		if m.Index != i || m.Name != w.name || m.Key != w.key || m.Show(m.Of(r)) != w.value || m.ShowInterval(r) != w.interval || m.Direction(of(1), of(2)) != w.direction {
			t.Errorf("%s is %s %s, key %s, and up is %s", m.Name, m.Show(m.Of(r)), m.ShowInterval(r), m.Key, m.Direction(of(1), of(2)))
		}
		if m.ShowInterval(learn.Report{Intervals: r.Intervals}) != "" || m.ShowInterval(learn.Report{Accuracy: of(1)}) != "" {
			t.Errorf("%s has an interval of nothing", m.Name)
		}
	}
	if OfClasses.Numeric() || !OfNumbers.Numeric() || KindOf(true).Lead.Name != "RMSE" || KindOf(false).Second.Name != "ROC-AUC" {
		t.Error("kinds are mixed up")
	}
}

// What is better is a gain, also if it is lower; what is undefined is none.
func TestGains(t *testing.T) {
	rmse := OfNumbers.Lead
	for _, c := range []struct {
		than, x *float64
		better  string
		want    string
	}{
		{of(2), of(1), "+1.000", "up"}, {of(1), of(2), "−1.000", "down"}, {of(1e-5), of(2e-5), "−1e-05", "down"}, {of(1), of(1.00001), "−1e-05", ""}, {of(100), of(100.001), "−0.001", ""},
		{nil, of(1), None, ""}, {of(1), of(math.NaN()), None, ""}, {of(math.MaxFloat64), of(1), None, ""},
	} {
		if got := rmse.Direction(c.than, c.x); got != c.want {
			t.Errorf("%v after %v is %q", c.x, c.than, got)
		}
		if got := Show(rmse.Better(c.than, c.x), rmse.Signed); got != c.better {
			t.Errorf("%v after %v is better by %s", c.x, c.than, got)
		}
	}
	if zero := rmse.Better(of(1), of(1)); math.Signbit(*zero) {
		t.Error("no gain has a sign")
	}
	p := task.Pair{
		Local: learn.Report{Accuracy: of(.5), RMSE: of(7)}, Federated: learn.Report{Accuracy: of(.75), RMSE: of(9)},
		Gain: learn.Gain{Interval: &learn.Interval{.1, .4}},
	}
	if gain, interval := OfClasses.Gained(p); *gain != .25 || interval == nil {
		t.Errorf("a gain of %v, %v", gain, interval)
	}
	if gain, interval := OfNumbers.Gained(p); *gain != -2 || interval != nil {
		t.Errorf("a gain of %v, %v", gain, interval)
	}
	p.Gain.Interval[1] = math.Inf(1)
	if _, interval := OfClasses.Gained(p); interval != nil {
		t.Errorf("an interval to %g", interval[1])
	}
	p.Local.Accuracy = nil
	if gain, _ := OfClasses.Gained(p); gain != nil {
		t.Errorf("a gain of %g over nothing", *gain)
	}
}

func TestPartName(t *testing.T) {
	for part, want := range map[learn.Part]string{learn.Bias: "own bias", learn.LastLayer: "own last layer", learn.NoPart: "own part"} {
		if got := PartName(part); got != want {
			t.Errorf("%q is %q", part, got)
		}
	}
}

func TestCandidates(t *testing.T) {
	for want, c := range map[string]task.Candidate{
		"logistic": {Model: learn.Logistic}, None: {},
		"mlp 64-16, adam, outer yogi 0.1": {Model: learn.MLP, Hidden: []int{64, 16}, Optimizer: learn.Adam, Outer: learn.OuterYogi, OuterRate: .1},
	} {
		if got := CandidateName(c); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	fates := Fates(task.Trail{Chosen: 2, Candidates: make([]task.Candidate, 5), Rungs: []task.TrailOfRung{
		{Losses: []*float64{of(.1), of(.9), of(.8), of(math.NaN())}, Kept: []int{1, 2}},
		{Losses: []*float64{nil, of(.3), of(.4)}, Kept: []int{2}},
	}})
	var order, rungs []int
	var dropped []bool
	for _, f := range fates {
		order, rungs, dropped = append(order, f.Candidate), append(rungs, f.Rungs()), append(dropped, f.Dropped)
	}
	if !slices.Equal(order, []int{2, 1, 0, 3, 4}) || !slices.Equal(rungs, []int{2, 2, 1, 0, 0}) || !slices.Equal(dropped, []bool{false, true, true, false, false}) {
		t.Errorf("candidates %v were in %v rungs, dropped %v", order, rungs, dropped)
	}
}

func TestTPR(t *testing.T) {
	curve := []learn.ROCPoint{{FPR: 0, TPR: 0}, {FPR: 0, TPR: .4}, {FPR: .5, TPR: .8}, {FPR: 1, TPR: 1}}
	for fpr, want := range map[float64]float64{0: .4, .25: .6, .5: .8, .75: .9, 1: 1} {
		if got := TPR(curve, fpr); math.Abs(got-want) > 1e-12 {
			t.Errorf("at %g %g, want %g", fpr, got, want)
		}
	}
	if got := TPR([]learn.ROCPoint{{FPR: -1, TPR: .3}}, -2); got != .3 { // as a hostile report has it
		t.Errorf("%g before the curve", got)
	}
}

// Each rate and difference reads its own figure.
func TestGroups(t *testing.T) {
	g := learn.GroupReport{Accuracy: of(1), Selection: of(2), TPR: of(3), FPR: of(4)}
	for i, rate := range Rates {
		if *rate.Of(g) != float64(i+1) {
			t.Errorf("%s is %g", rate.Name, *rate.Of(g))
		}
	}
	f := learn.Fairness{DemographicParity: of(1), EqualisedOdds: of(2)}
	for i, d := range Differences {
		if *d.Of(f) != float64(i+1) {
			t.Errorf("%s is %g", d.Name, *d.Of(f))
		}
	}
}

func TestStepsAreInRangeAndFew(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lo := rapid.Float64Range(-1e9, 1e9).Draw(t, "lo")
		span := math.Pow(10, rapid.Float64Range(-3, 12).Draw(t, "span"))
		at, _ := Steps(lo, lo+span, 5.5)
		if len(at) < 2 || len(at) > 7 {
			t.Fatalf("%d ticks", len(at))
		}
		for _, v := range at {
			if v < lo-span*1e-6 || v > lo+span*(1+1e-6) {
				t.Fatalf("%g is not from %g to %g", v, lo, lo+span)
			}
		}
	})
	if at, _ := Steps(1e17, 1e17+16, 5.5); len(at) > 22 {
		t.Errorf("%d ticks of which a float64 cannot tell one from the next", len(at))
	}
	for _, bad := range [][2]float64{{3, 3}, {3, 2}, {0, math.Inf(1)}, {math.NaN(), 1}, {1e300, 1e300 + 1}} {
		if at, _ := Steps(bad[0], bad[1], 5.5); len(at) != 1 {
			t.Errorf("from %g to %g there are %v", bad[0], bad[1], at)
		}
	}
}

// The labels of a scale do not touch, and are the numbers that they stand at.
func TestTicks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.Float64Range(-1e3, 1e3).Draw(t, "a")
		b := a + math.Pow(10, rapid.Float64Range(-3, 3).Draw(t, "span"))
		s := Around([]float64{a, b}, 0, 172, 506)
		at, digits := s.Ticks(6)
		if len(at) < 2 {
			t.Fatalf("%d ticks from %g to %g", len(at), a, b)
		}
		for i, v := range at {
			label := Tick(v, digits)
			shown, err := strconv.ParseFloat(strings.NewReplacer("−", "-", ",", "").Replace(label), 64)
			if err != nil || math.Abs(shown-v) > 1e-3*(s.Hi-s.Lo) {
				t.Fatalf("%s at %g: %v", label, v, err)
			}
			if i > 0 && s.At(v)-s.At(at[i-1]) < TextWidth("+"+label)*.9 {
				t.Fatalf("%s and %s touch", Tick(at[i-1], digits), label)
			}
		}
	})
}

func TestScale(t *testing.T) {
	s := Scale{Lo: 10, Hi: 20, From: 100, To: 0}
	for x, want := range map[float64]float64{10: 100, 15: 50, 20: 0, 5: 100, 99: 0} {
		if got := s.At(x); got != want {
			t.Errorf("%g is at %g, want %g", x, got, want)
		}
	}
	for _, values := range [][]float64{nil, {0}, {3, 3}, {-1, 5}, {1e99, -1e99}} {
		s := Around(values, 0, 0, 1)
		if !(s.Hi > s.Lo) {
			t.Errorf("a scale from %g to %g", s.Lo, s.Hi)
		}
		for _, v := range values {
			if v < s.Lo || v > s.Hi {
				t.Errorf("%g is beyond %g to %g", v, s.Lo, s.Hi)
			}
		}
	}
}

// A drawing is well-formed, and text in it stays text.
func TestDrawing(t *testing.T) {
	const hostile = `</text><script>"'&`
	d := Drawing{Width: 520, Height: 100.005}
	d.Group(hostile)
	d.Line("grid", 0, 1./3, 2, 3)
	d.Rect("row", 0, 0, 10, 10)
	d.Circle("mark", 5, 5, 4)
	d.Diamond("mark", 5, 6, 2)
	d.Path("curve", []Point{{0, 0}, {1, .5}})
	d.Path("curve", []Point{{0, 0}}) // connects nothing
	d.Text("label", "end", 1, 2, hostile)
	d.Turned("axis", 1, 2, hostile)
	d.End()
	svg := d.SVG(hostile)
	for _, want := range []string{
		`viewBox="0 0 520 100.01"`, `<line class="grid" x1="0" y1="0.33" x2="2" y2="3"/>`, `<circle class="mark" cx="5" cy="5" r="4"/>`, `d="M5 4L7 6L5 8L3 6Z"`, `d="M0 0L1 0.5"`,
	} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %s in %s", want, svg)
		}
	}
	if n := strings.Count(svg, "<path"); n != 2 {
		t.Errorf("%d paths", n)
	}
	texts := 0
	for decoder := xml.NewDecoder(bytes.NewReader([]byte(svg))); ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in %s", err, svg)
		}
		switch e := token.(type) {
		case xml.StartElement:
			if e.Name.Local == "script" {
				t.Fatalf("text has become an element in %s", svg)
			}
			for _, a := range e.Attr {
				if a.Name.Local == "aria-label" && a.Value == hostile {
					texts++
				}
			}
		case xml.CharData:
			if string(e) == hostile {
				texts++
			}
		}
	}
	if texts != 4 {
		t.Errorf("%d of 4 texts are in %s", texts, svg)
	}
}

func TestFitted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "s")
		width := rapid.Float64Range(20, 300).Draw(t, "width")
		got := Fitted(s, width)
		if TextWidth(s) <= width && got != s || TextWidth(got) > width+TextSize {
			t.Fatalf("%q in %g: %q", s, width, got)
		}
	})
	if got := Fitted("Bruxelles-Capitale / Brussels Hoofdstedelijk Gewest", 150); !strings.HasPrefix(got, "Bruxelles") || !strings.HasSuffix(got, "…") {
		t.Error(got)
	}
}

// Every variable that the rules use has a value, on paper and on a dark screen.
func TestStyle(t *testing.T) {
	css := Style()
	for _, use := range regexp.MustCompile(`var\((--\w+)\)`).FindAllStringSubmatch(css, -1) {
		if n := len(regexp.MustCompile(use[1]+": #[0-9a-f]{6};").FindAllString(css, -1)); n != 2 {
			t.Errorf("%s has %d values", use[1], n)
		}
	}
	if !strings.Contains(css, "--c0: #0072b2;") || !strings.Contains(css, "--federated: #4aa8e8;") || strings.Count(css, "{") != strings.Count(css, "}") {
		t.Error(css)
	}
}
