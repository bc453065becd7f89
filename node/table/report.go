package table

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"village/node/api"
	"village/protocol/figure"
	"village/protocol/learn"
	"village/protocol/task"
)

// The widths that tables are made for: at least that of a plain terminal, and
// half as much again where there is no terminal. Text is narrower.
const (
	minWidth  = 80
	fileWidth = 120
	textWidth = 100
	minName   = 8 // of a column of names that is cut to fit
)

// widthOf is how many columns are to be had.
func widthOf(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return fileWidth
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return minWidth
	}
	return max(width, minWidth)
}

// Report writes a whole report: who gains, the figures of all nodes, what each
// gave to the model, the classification report of all rows and of each node, how
// groups fare, and how the model came about.
func Report(w io.Writer, r api.Report) error { return report(w, r, widthOf(w)) }

func report(w io.Writer, r api.Report, width int) error {
	var b bytes.Buffer
	title := fmt.Sprintf("%s: %s", Or(r.Name), Or(r.Target))
	if r.Positive != "" {
		title += " (positive: " + Text(r.Positive) + ")"
	}
	fmt.Fprintf(&b, "%s, %d rounds\nmodel   %s\nreport  %s\n", title, r.Rounds, cidOr(r.CID), cidOr(r.Report))
	for _, c := range r.Lineage {
		fmt.Fprintf(&b, "from    %s\n", cidOr(c))
	}
	b.WriteString("\n")
	sentences := Verdict(r)
	if len(r.Lineage) > 0 {
		sentences = append(sentences, Promotion(r))
	}
	for _, line := range wrap(strings.Join(sentences, " "), min(width, textWidth)) {
		b.WriteString(line + "\n")
	}
	b.WriteString("\n")
	summaryTable(&b, r, true, width)
	overallTable(&b, r, width)
	contributionTable(&b, r.Contributions, width)
	if !Kind(r).Numeric() {
		classification(&b, "all rows", r.AllRows, width)
		for _, n := range r.Nodes {
			classification(&b, label(n.Nation, n.Name), n.Pair, width)
		}
	}
	fairness(&b, r, width)
	if r.Search != nil {
		trail(&b, *r.Search, width)
	}
	_, err := w.Write(b.Bytes())
	return err
}

// Promotion says whether a model is to take the place of the one that it goes on
// from.
func Promotion(r api.Report) string {
	switch {
	case r.Promoted == nil:
		return "Whether this model takes the place of the one that it goes on from is not known while evaluations are missing."
	case *r.Promoted:
		return "It is promoted: on all rows it is not worse than the model that it goes on from."
	}
	return "It is not promoted: on all rows it is worse than the model that it goes on from, which stays the better choice."
}

// summaryLine is a line of a summary.
type summaryLine struct {
	name, trained, tested string
	figures               [][]string // by metric, by model
	gain, interval        string
}

// summaryTable writes a line a node, where those are asked for, then all rows,
// the mean of the nodes and the worst of each figure: what each reaches alone
// beside what the federation reaches, and beside that with a part of its own.
func summaryTable(w io.Writer, r api.Report, nodes bool, width int) {
	kind := Kind(r)
	models := []string{"local", "fed."}
	if HasPersonal(r) {
		models = append(models, "own")
	}
	var lines []summaryLine
	add := func(name, trained, tested string, value func(m figure.Metric, model int) *float64) *summaryLine {
		l := summaryLine{name: name, trained: trained, tested: tested}
		for _, m := range kind.Metrics {
			var row []string
			for i := range models {
				row = append(row, m.Show(value(m, i)))
			}
			l.figures = append(l.figures, row)
		}
		lines = append(lines, l)
		return &lines[len(lines)-1]
	}
	pair := func(name string, trained uint64, p api.Pair) {
		l := add(name, count(trained), count(p.Federated.Rows), func(m figure.Metric, model int) *float64 {
			return m.Of([]learn.Report{p.Local, p.Federated, p.Personal}[model])
		})
		if Kind(r).Numeric() {
			l.interval = kind.Lead.ShowInterval(p.Federated)
			return
		}
		gain, interval := kind.Gained(p)
		l.gain = figure.Show(gain, kind.Signed)
		if interval != nil {
			l.interval = kind.SignedInterval(*interval)
		}
	}
	across := func(name string, p api.MeanPair) {
		add(name, "", "", func(m figure.Metric, model int) *float64 {
			return m.Across([]api.Metrics{p.Local, p.Federated, p.Personal}[model])
		})
	}
	var trained uint64
	for _, n := range r.Nodes {
		trained += n.TrainRows
		if nodes {
			pair(label(n.Nation, n.Name), n.TrainRows, n.Pair)
		}
	}
	pair("all rows", trained, r.AllRows)
	across("mean of nodes", r.Mean)
	across("worst node", r.Worst)

	var g grid
	var show shown
	for _, show = range []shown{{true, true, true}, {false, true, true}, {false, true, false}, {}} {
		g = summaryGrid(r, lines, models, show)
		if g.fits(width) {
			break
		}
	}
	g.within(w, width)
	s := "local: local only; fed.: federated"
	if HasPersonal(r) {
		s += "; own: with " + figure.PartName(r.Personal)
	}
	if show.gain && !Kind(r).Numeric() {
		s += "; gain: accuracy of fed. less local, in percentage points"
	}
	for _, line := range wrap(s, min(width, textWidth)) {
		fmt.Fprintln(w, line)
	}
	if len(r.Missing) > 0 {
		fmt.Fprintln(w, "missing: "+namesOf(r).list(r.Missing))
	}
}

// shown are the columns of a summary that a narrow terminal does without.
type shown struct{ trained, gain, interval bool }

func summaryGrid(r api.Report, lines []summaryLine, models []string, show shown) grid {
	kind := Kind(r)
	some := func(of func(summaryLine) string) bool {
		return slices.ContainsFunc(lines, func(l summaryLine) bool { return of(l) != "" })
	}
	gains := show.gain && some(func(l summaryLine) string { return l.gain })
	intervals := show.interval && some(func(l summaryLine) string { return l.interval })
	// The models' figures of one metric are one cell, under one head.
	widths := make([][]int, len(kind.Metrics))
	for i := range kind.Metrics {
		for j, head := range models {
			width := utf8.RuneCountInString(head)
			for _, l := range lines {
				width = max(width, utf8.RuneCountInString(l.figures[i][j]))
			}
			widths[i] = append(widths[i], width)
		}
	}
	cell := func(i int, figures []string) string {
		padded := make([]string, len(figures))
		for j, f := range figures {
			padded[j] = padLeft(widths[i][j], f)
		}
		return strings.Join(padded, " ")
	}
	top, head := []string{""}, []string{""}
	if show.trained {
		top, head = append(top, "training"), append(head, "rows")
	}
	top, head = append(top, "test"), append(head, "rows")
	for i, m := range kind.Metrics {
		c := cell(i, models)
		top, head = append(top, m.Name+strings.Repeat(" ", max(0, utf8.RuneCountInString(c)-utf8.RuneCountInString(m.Name)))), append(head, c)
	}
	if gains {
		top, head = append(top, "gain"), append(head, "points")
	}
	if intervals {
		top, head = append(top, "95 %"), append(head, "")
		if Kind(r).Numeric() {
			head[len(head)-1] = "of fed. " + kind.Lead.Name
		}
	}
	g := grid{top, head}
	for _, l := range lines {
		row := []string{l.name}
		if show.trained {
			row = append(row, l.trained)
		}
		row = append(row, l.tested)
		for i := range kind.Metrics {
			row = append(row, cell(i, l.figures[i]))
		}
		if gains {
			row = append(row, l.gain)
		}
		if intervals {
			row = append(row, l.interval)
		}
		g.add(row...)
	}
	return g
}

// overallTable writes the figures of all rows with their intervals, as far as the
// width allows.
func overallTable(w io.Writer, r api.Report, width int) {
	type model struct {
		name string
		learn.Report
	}
	models := []model{{"local only", r.AllRows.Local}}
	if p := r.AllRows.Parent; p != nil {
		models = append(models, model{"parent model", *p})
	}
	models = append(models, model{"federated", r.AllRows.Federated})
	if HasPersonal(r) {
		models = append(models, model{"with " + figure.PartName(r.Personal), r.AllRows.Personal})
	}
	metrics := Kind(r).Metrics
	table := func(intervals bool) grid {
		head := []string{"all rows"}
		if intervals {
			head[0] += " (95 %)"
		}
		for _, m := range models {
			head = append(head, m.name)
		}
		g := grid{head}
		for _, m := range metrics {
			row := []string{m.Name}
			for _, model := range models {
				s := m.Show(m.Of(model.Report))
				if i := m.ShowInterval(model.Report); intervals && i != "" {
					s += " (" + i + ")"
				}
				row = append(row, s)
			}
			g.add(row...)
		}
		row, some := []string{"calib. error"}, false
		for _, model := range models {
			row = append(row, metric(model.CalibrationError))
			some = some || model.CalibrationError != nil
		}
		if some {
			g.add(row...)
		}
		return g
	}
	some := slices.ContainsFunc(models, func(m model) bool { return m.Intervals != nil || m.CalibrationError != nil })
	if !some && r.AllRows.Parent == nil {
		return // the summary has it all
	}
	g := table(true)
	if !g.fits(width) {
		g = table(false)
	}
	fmt.Fprintln(w)
	g.within(w, width)
}

func namesOf(r api.Report) Names {
	var nodes []api.NamedNode
	for _, c := range r.Contributions {
		nodes = append(nodes, api.NamedNode{PeerID: c.PeerID, Nation: c.Nation, Name: c.Name})
	}
	return NamesOf(nodes)
}

// contributionTable writes a line for every node that the task names: what it
// gave to the model, and why not more.
func contributionTable(w io.Writer, list []api.Contribution, width int) {
	if len(list) == 0 {
		return
	}
	const whole = 58 // of a why: "fell silent after round N; a quorum had waited for it"
	head := []string{"CONTRIBUTION", "TRAINING ROWS", "ROUND", "IN THE MODEL", "WHY"}
	if width < textWidth {
		head = []string{"CONTRIBUTION", "ROWS", "ROUND", "IN", "WHY"}
	}
	most := width - whole/2 - 8
	for _, h := range head[1:4] {
		most -= max(utf8.RuneCountInString(h), 5)
	}
	rows := [][]string{head}
	names := 0
	for _, c := range list {
		name := label(c.Nation, c.Name)
		if name == "" {
			name = c.PeerID.String()
			if len(name) > most { // its ends tell it from others
				name = name[:8] + "…" + name[max(8, len(name)-8):]
			}
		}
		name = cut(name, most)
		names = max(names, utf8.RuneCountInString(name))
		why := Text(c.Why)
		if c.Late {
			why += "; joined late"
		}
		rows = append(rows, []string{name, count(c.TrainRows), count(c.Round), yes(c.InFinal), why})
	}
	rest := width - 8
	for i := range 4 {
		column := 0
		for _, row := range rows {
			column = max(column, utf8.RuneCountInString(row[i]))
		}
		rest -= column
	}
	var wrapped [][]string
	for _, row := range rows {
		for i, line := range wrap(row[4], max(rest, whole/2)) {
			if i == 0 {
				wrapped = append(wrapped, append(row[:4:4], line))
			} else {
				wrapped = append(wrapped, []string{"", "", "", "", line})
			}
		}
	}
	fmt.Fprintln(w)
	columns(w, wrapped)
}

// Classification writes a report per class in the layout that users of
// scikit-learn know, local only beside federated and, where there is room, the
// model with a part of each node's own. The support, being the same for all,
// stands once.
func Classification(w io.Writer, title string, p api.Pair) error {
	var b bytes.Buffer
	classification(&b, title, p, widthOf(w))
	_, err := w.Write(b.Bytes())
	return err
}

func classification(w io.Writer, title string, p api.Pair, width int) {
	models := []learn.Report{p.Local, p.Federated}
	if p.Personal.Rows > 0 {
		models = append(models, p.Personal)
	}
	g := classGrid(p.Federated, models)
	if len(models) > 2 && !g.fits(width) {
		g = classGrid(p.Federated, models[:2])
	}
	fmt.Fprintf(w, "\n%s\n", title)
	g.within(w, width)
}

func classGrid(of learn.Report, models []learn.Report) grid {
	top, head := []string{""}, []string{""}
	for _, name := range []string{"local only", "federated", "own part"}[:len(models)] {
		top, head = append(top, name, "", ""), append(head, "precision", "recall", "f1-score")
	}
	g := grid{append(top, ""), append(head, "support"), nil}
	for i, c := range of.Classes {
		row := []string{Text(c.Label)}
		for _, m := range models {
			if i < len(m.Classes) {
				row = append(row, two(m, m.Classes[i].Precision), two(m, m.Classes[i].Recall), two(m, m.Classes[i].F1))
			} else {
				row = append(row, figure.None, figure.None, figure.None)
			}
		}
		g.add(append(row, count(c.Support))...)
	}
	g.add()
	one := func(name, support string, of func(learn.Report) *float64) {
		row := []string{name}
		for _, m := range models {
			row = append(row, "", "", metric2(of(m)))
		}
		g.add(append(row, support)...)
	}
	one("accuracy", count(of.Rows), func(r learn.Report) *float64 { return r.Accuracy })
	for _, a := range []struct {
		name string
		of   func(learn.Report) learn.Average
	}{
		{"micro avg", func(r learn.Report) learn.Average { return r.Micro }},
		{"macro avg", func(r learn.Report) learn.Average { return r.Macro }},
		{"weighted avg", func(r learn.Report) learn.Average { return r.Weighted }},
	} {
		row := []string{a.name}
		for _, m := range models {
			v := a.of(m)
			row = append(row, two(m, v.Precision), two(m, v.Recall), two(m, v.F1))
		}
		g.add(append(row, count(of.Rows))...)
	}
	one("ROC-AUC", "", func(r learn.Report) *float64 { return r.ROCAUC })
	return g
}

// fairness writes how the groups of the sensitive column fare, and how far apart
// they are under each model.
func fairness(w io.Writer, r api.Report, width int) {
	f := r.AllRows.Federated.Fairness
	if f == nil {
		return
	}
	fmt.Fprintf(w, "\nby %s, all rows, federated\n", Or(f.Column))
	head := []string{"", "rows"}
	for _, rate := range figure.Rates {
		head = append(head, rate.Name)
	}
	g := grid{head}
	for _, group := range f.Groups {
		row := []string{Or(group.Group), count(group.Rows)}
		for _, rate := range figure.Rates {
			row = append(row, metric(rate.Of(group)))
		}
		g.add(row...)
	}
	g.within(w, width)
	if f.Hidden > 0 {
		fmt.Fprintf(w, "hidden: %s of fewer than 10 rows\n", figure.Plural(f.Hidden, "group"))
	}
	if f.DemographicParity == nil && f.EqualisedOdds == nil {
		return
	}
	g = grid{{"difference of groups"}}
	for _, d := range figure.Differences {
		g.add(d.Name)
	}
	add := func(name string, f *learn.Fairness) {
		if f == nil {
			return
		}
		g[0] = append(g[0], name)
		for i, d := range figure.Differences {
			g[1+i] = append(g[1+i], metric(d.Of(*f)))
		}
	}
	add("local only", r.AllRows.Local.Fairness)
	add("federated", f)
	if HasPersonal(r) {
		add("with "+figure.PartName(r.Personal), r.AllRows.Personal.Fairness)
	}
	fmt.Fprintln(w)
	g.within(w, width)
}

// maxTrail is how many candidates of a search are shown.
const maxTrail = 10

// trail writes how the model was chosen.
func trail(w io.Writer, t task.Trail, width int) {
	fmt.Fprintf(w, "\nchosen among %s, by the loss on rows held back from training\n", figure.Plural(len(t.Candidates), "candidate"))
	g := grid{{"model", "rate", "steps", "L2", "loss", "at round", "nodes", ""}}
	fates := figure.Fates(t)
	for _, f := range fates[:min(len(fates), maxTrail)] {
		c := t.Candidates[f.Candidate]
		row := []string{Text(figure.CandidateName(c)), figure.Setting(c.LearningRate), count(c.LocalSteps), figure.Setting(c.L2), figure.None, figure.None, figure.None}
		if n := f.Rungs(); n > 0 {
			rung := t.Rungs[n-1]
			row = append(row[:4], metric(f.Losses[n-1]), count(rung.Round), strconv.Itoa(rung.Nodes))
		}
		switch {
		case f.Candidate == t.Chosen:
			row = append(row, "chosen")
		case f.Dropped:
			row = append(row, "dropped")
		default:
			row = append(row, "")
		}
		g.add(row...)
	}
	g.within(w, width)
	if n := len(fates) - maxTrail; n > 0 {
		fmt.Fprintf(w, "and %s dropped before\n", figure.Plural(n, "more candidate"))
	}
}

func metric(x *float64) string { return figure.Show(x, figure.Ratio) }

func metric2(x *float64) string {
	return figure.Show(x, func(x float64) string { return strconv.FormatFloat(x, 'f', 2, 64) })
}

// two writes a figure of a report; without rows it is undefined.
func two(r learn.Report, x float64) string {
	if r.Rows == 0 {
		return figure.None
	}
	return metric2(&x)
}

// wrap breaks text into lines of at most width characters, as long as its words
// allow.
func wrap(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return append(lines, line)
}

// cut shortens a name to a number of characters.
func cut(name string, most int) string {
	if utf8.RuneCountInString(name) <= most {
		return name
	}
	return string([]rune(name)[:max(1, most-1)]) + "…"
}

// padLeft pads a cell on the left.
func padLeft(width int, cell string) string {
	return strings.Repeat(" ", max(0, width-utf8.RuneCountInString(cell))) + cell
}

// grid is a table whose first column is aligned left and the others right.
type grid [][]string

func (g *grid) add(cells ...string) { *g = append(*g, cells) }

// widths are those of the columns.
func (g grid) widths() (width []int) {
	for _, row := range g {
		for i, cell := range row {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	return width
}

// fits tells whether the grid has room, if long names are cut a little.
func (g grid) fits(width int) bool {
	const name = 12
	total := 0
	for i, w := range g.widths() {
		if i == 0 {
			w = min(w, name) - 2
		}
		total += 2 + w
	}
	return total <= width
}

// write writes the grid.
func (g grid) write(w io.Writer) error {
	width := g.widths()
	for _, row := range g {
		var b strings.Builder
		for i, cell := range row {
			if i == 0 {
				b.WriteString(cell + strings.Repeat(" ", width[0]-utf8.RuneCountInString(cell)))
			} else {
				b.WriteString("  " + padLeft(width[i], cell))
			}
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(b.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

// within writes the grid, its names cut where it would be wider than that.
func (g grid) within(w io.Writer, most int) error {
	for _, column := range g.widths()[1:] {
		most -= 2 + column
	}
	cuts := make(grid, len(g))
	for i, row := range g {
		if len(row) > 0 {
			cuts[i] = append([]string{cut(row[0], max(most, minName))}, row[1:]...)
		}
	}
	return cuts.write(w)
}
