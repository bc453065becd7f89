// Package table renders the daemon's answers as plain text for people. Nothing
// in it depends on colour or on a terminal, and no text of a peer can steer one.
package table

import (
	"cmp"
	"encoding/csv"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"village/node/api"
	"village/protocol/dataset"
	"village/protocol/figure"
	"village/protocol/record"
)

// Text makes text from a peer fit for one line of a terminal: characters that
// control it, end the line or change the direction of writing are escaped.
func Text(s string) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	bad := func(r rune) bool {
		return !unicode.IsPrint(r) || unicode.Is(unicode.Bidi_Control, r)
	}
	if !strings.ContainsFunc(s, bad) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\u200d': // joins letters and emoji; harmless
			b.WriteRune(r)
		case r > 0xffff && bad(r):
			fmt.Fprintf(&b, `\U%08x`, r)
		case bad(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Or returns s fit for a terminal, or [figure.None] where it is empty.
func Or(s string) string {
	if s == "" {
		return figure.None
	}
	return Text(s)
}

// Names maps nodes to what people call them.
type Names map[record.NodeID]string

// NamesOf takes the names that nodes' records give; of two for one node the
// later.
func NamesOf(nodes []api.NamedNode) Names {
	names := Names{}
	for _, n := range nodes {
		if n.Name != "" {
			names[n.PeerID] = label(n.Nation, n.Name)
		}
	}
	return names
}

// of returns a node's name, or its peer ID.
func (n Names) of(id record.NodeID) string {
	if name := n[id]; name != "" {
		return name
	}
	return id.String()
}

// list joins the names of nodes.
func (n Names) list(ids []record.NodeID) string {
	all := make([]string, len(ids))
	for i, id := range ids {
		all[i] = n.of(id)
	}
	return strings.Join(all, ", ")
}

func label(nation, name string) string {
	return strings.TrimSpace(Text(nation) + " " + Text(name))
}

// NodeName is what people call a node, else its ID.
func NodeName(nation, name, id string) string { return cmp.Or(label(nation, name), id) }

// columns writes rows of cells as left-aligned columns, two blanks apart.
func columns(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

// list writes rows under a head, or a sentence where there are none.
func list(w io.Writer, empty string, head []string, rows [][]string) error {
	if len(rows) == 0 {
		_, err := fmt.Fprintln(w, empty)
		return err
	}
	return columns(w, append([][]string{head}, rows...))
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func count(n uint64) string { return strconv.FormatUint(n, 10) }

func number(x float64) string { return strconv.FormatFloat(x, 'g', 6, 64) }

func cidOr(c record.CID) string {
	if !c.Defined() {
		return figure.None
	}
	return c.String()
}

// Init writes what village init has made.
func Init(w io.Writer, v api.Init) error {
	rows := [][]string{
		{"home", Text(v.Home)}, {"peer id", v.PeerID.String()}, {"nation", Text(v.Nation)},
		{"name", Text(v.Name)}, {"federation", Text(v.Federation)},
	}
	for _, a := range v.Listen {
		rows = append(rows, []string{"listens on", Text(a)})
	}
	return columns(w, rows)
}

// Identity writes who a node is.
func Identity(w io.Writer, v api.Identity) error {
	rows := [][]string{
		{"peer id", v.PeerID.String()}, {"nation", Text(v.Nation)}, {"name", Text(v.Name)}, {"federation", Text(v.Federation)},
	}
	for _, a := range v.Addresses {
		rows = append(rows, []string{"address", Text(a)})
	}
	if len(v.Addresses) == 0 {
		rows = append(rows, []string{"address", "none: the daemon is not running"})
	}
	return columns(w, rows)
}

// Status writes how a node is.
func Status(w io.Writer, v api.Status, names Names) error {
	access := "open: any node that knows its name can take part"
	if v.Closed {
		access = fmt.Sprintf("closed: %d members", v.Members)
	}
	rows := [][]string{
		{"node", label(v.Nation, v.Name)},
		{"peer id", v.PeerID.String()},
		{"federation", Text(v.Federation) + ", " + access},
		{"peers", strconv.Itoa(v.Peers) + " connected"},
		{"datasets", strconv.Itoa(v.Datasets)},
		{"store", fmt.Sprintf("%s, %s free on the disk", figure.Bytes(v.StoreBytes), figure.Bytes(v.FreeBytes))},
		{"memory", figure.Bytes(v.ResidentBytes)},
		{"traffic", fmt.Sprintf("%s sent, %s received", figure.Bytes(v.BytesSent), figure.Bytes(v.BytesReceived))},
		{"messages", fmt.Sprintf("%d dropped, %d refused", v.MessagesDropped, v.MessagesRefused)},
		{"up", time.Duration(v.UptimeSeconds * float64(time.Second)).Round(time.Second).String()},
		{"last error", Or(v.LastError)},
	}
	if v.Listening {
		rows = append(rows, []string{"recovering", "signs nothing: the disk may have lost records of this node, and peers are asked for them"})
	}
	for _, name := range v.Lost {
		rows = append(rows, []string{"lost", Text(name)})
	}
	for _, t := range v.Tasks {
		rows = append(rows, []string{"task", t.CID.String() + "  " + Text(t.Name) + ": " + Progress(t, names)})
	}
	if len(v.Tasks) == 0 {
		rows = append(rows, []string{"tasks", "none under way"})
	}
	return columns(w, rows)
}

// Store writes what can be read of a store.
func Store(w io.Writer, v api.Store) error {
	rows := [][]string{
		{"store", Text(v.Path)},
		{"readable", fmt.Sprintf("%d records, rows of %d datasets, %d blocks of artifacts, %d private facts", v.Records, v.Datasets, v.Blocks, v.Facts)},
	}
	damaged := 0
	for _, f := range v.Files {
		if f.Problem != "" {
			damaged++
			rows = append(rows, []string{"damaged", Text(f.Name) + ": " + Text(f.Problem)})
		}
	}
	for _, name := range v.Lost {
		rows = append(rows, []string{"lost", Text(name)})
	}
	if damaged == 0 && len(v.Lost) == 0 {
		rows = append(rows, []string{"lost", "nothing"})
	}
	return columns(w, rows)
}

// Progress says in one line how far a task is and whom it waits for.
func Progress(t api.TaskSummary, names Names) string {
	s := Text(t.Stage)
	if t.Stage == api.StageTraining {
		s += fmt.Sprintf(", round %d of %d", t.Round, t.Rounds)
	}
	if len(t.WaitingFor) > 0 {
		s += ", waiting for " + names.list(t.WaitingFor)
	}
	if spoken := t.Voters - len(t.Undecided); spoken < t.Quorum {
		s += fmt.Sprintf(", decides when %d of %d have spoken; missing: %s", t.Quorum, t.Voters, names.list(t.Undecided))
	}
	if t.Stage == api.StageEnrolling && t.Named && !t.Joined {
		s += " (join with: village task join " + t.CID.String() + ")"
	}
	if t.ModelCID.Defined() {
		s += ", model " + t.ModelCID.String()
	}
	if t.Error != "" {
		s += ", error: " + Text(t.Error)
	}
	return s
}

// Peers writes the nodes that a node knows.
func Peers(w io.Writer, v api.Peers) error {
	var rows [][]string
	for _, p := range v.Peers {
		addresses := make([]string, len(p.Addresses))
		for i, a := range p.Addresses {
			addresses[i] = Text(a)
		}
		rows = append(rows, []string{p.PeerID.String(), Or(p.Nation), Or(p.Name), yes(p.Connected), Or(strings.Join(addresses, " "))})
	}
	return list(w, "no peers; add one with: village peer add MULTIADDR", []string{"PEER ID", "NATION", "NAME", "CONNECTED", "ADDRESSES"}, rows)
}

// Members writes a member list.
func Members(w io.Writer, v api.Members) error {
	if !v.Closed {
		_, err := fmt.Fprintln(w, "open: no member list, any node that knows the federation's name can take part")
		return err
	}
	var rows [][]string
	for _, m := range v.Members {
		connected := yes(m.Connected)
		if m.Self {
			connected = "this node"
		}
		rows = append(rows, []string{m.PeerID.String(), connected})
	}
	return list(w, "closed: the member list is empty, only this node takes part", []string{"PEER ID", "CONNECTED"}, rows)
}

// AddedDataset writes what became of a file's rows, for its owner alone.
func AddedDataset(w io.Writer, v api.AddedDataset) error {
	fmt.Fprintf(w, "%s: %d of %d rows kept\n", Text(v.Name), v.Rows, v.Read)
	var rows [][]string
	for _, reason := range slices.Sorted(maps.Keys(v.Dropped)) {
		if n := v.Dropped[reason]; n > 0 {
			rows = append(rows, []string{"  dropped", strconv.Itoa(n), Text(reason)})
		}
	}
	for _, column := range slices.Sorted(maps.Keys(v.LeftOut)) {
		rows = append(rows, []string{"  left out", Text(column), Text(v.LeftOut[column])})
	}
	if err := columns(w, rows); err != nil {
		return err
	}
	for _, h := range v.Hints {
		fmt.Fprintln(w, "hint: "+Text(h))
	}
	if len(v.Drift) > 0 {
		fmt.Fprintln(w, "\ndrift from the rows before:")
		return Drift(w, v.Drift)
	}
	return nil
}

// Datasets writes a list of manifests.
func Datasets(w io.Writer, v api.Datasets) error {
	var rows [][]string
	for _, d := range v.Datasets {
		mine := ""
		if d.Mine {
			mine = "mine"
		}
		rows = append(rows, []string{
			d.CID.String(), Or(d.Name), Or(d.Nation), Or(d.Node), Or(d.Domain), count(d.Rows),
			strconv.Itoa(len(d.Features)), Or(d.Target), mine,
		})
	}
	return list(w, "no datasets; add one with: village dataset add FILE --name NAME --target COLUMN",
		[]string{"CID", "NAME", "NATION", "NODE", "DOMAIN", "ROWS", "FEATURES", "TARGET", ""}, rows)
}

// Dataset writes everything that a manifest publishes.
func Dataset(w io.Writer, v api.ShownDataset) error {
	m := v.Manifest
	rows := [][]string{
		{"cid", v.CID.String()}, {"owner", v.PeerID.String()},
		{"nation", Or(m.Nation)}, {"node", Or(m.Node)}, {"name", Or(m.Name)}, {"description", Or(m.Description)},
		{"domain", Or(m.Domain)}, {"licence", Or(m.Licence)},
		{"created", time.Unix(int64(m.Created), 0).UTC().Format(time.RFC3339)},
		{"rows", count(m.Rows)}, {"target", Or(m.Target)}, {"positive", Or(m.Positive)},
		{"commitment", Or(hex.EncodeToString(m.Commitment))},
	}
	for i, step := range m.Recipe {
		rows = append(rows, []string{fmt.Sprintf("cleaning %d", i+1), Text(step)})
	}
	for _, d := range m.Dropped {
		n := count(d.Rows)
		if d.Few {
			n = "fewer than 10"
		}
		rows = append(rows, []string{"dropped", n + ", " + Text(d.Reason)})
	}
	if err := columns(w, rows); err != nil {
		return err
	}
	fmt.Fprintln(w)
	rows = nil
	for _, c := range m.Columns {
		rows = append(rows, []string{Or(c.Name), Text(string(c.Role)), Text(string(c.Kind)), published(c)})
	}
	return list(w, "no columns", []string{"COLUMN", "ROLE", "KIND", "PUBLISHED"}, rows)
}

// published says what a manifest tells of a column's values.
func published(c dataset.Column) string {
	var parts []string
	if c.Unit != "" {
		parts = append(parts, "in "+Text(c.Unit))
	}
	for i, x := range c.Statistics {
		name := "statistic"
		if i < 4 {
			name = [...]string{"mean", "sd", "1st percentile", "99th percentile"}[i]
		}
		parts = append(parts, name+" "+number(x))
	}
	if len(c.Deciles) > 0 {
		deciles := make([]string, len(c.Deciles))
		for i, x := range c.Deciles {
			deciles[i] = number(x)
		}
		parts = append(parts, "deciles "+strings.Join(deciles, " "))
	}
	if len(c.Levels) > 0 {
		levels := make([]string, len(c.Levels))
		for i, l := range c.Levels {
			if levels[i] = Text(l); i < len(c.Counts) && c.Counts[i] > 0 {
				levels[i] += " (" + count(c.Counts[i]) + ")"
			}
		}
		parts = append(parts, "levels "+strings.Join(levels, ", "))
	}
	if c.Hidden {
		parts = append(parts, "further levels are not named")
	}
	switch {
	case c.Missing > 0:
		parts = append(parts, count(c.Missing)+" cells are missing")
	case c.Gaps:
		parts = append(parts, "fewer than 10 cells are missing")
	}
	return Or(strings.Join(parts, ", "))
}

// Tasks writes a list of tasks.
func Tasks(w io.Writer, v api.Tasks, names Names) error {
	var rows [][]string
	for _, t := range v.Tasks {
		part := figure.None
		switch {
		case t.Joined:
			part = "joined"
		case t.Named:
			part = "named"
		}
		rows = append(rows, []string{t.CID.String(), Or(t.Name), part, Progress(t, names)})
	}
	return list(w, "no tasks; propose one with: village task propose", []string{"CID", "NAME", "THIS NODE", "STAGE"}, rows)
}

// TaskNames takes the names that a task's own nodes have.
func TaskNames(t api.ShownTask) Names {
	nodes := make([]api.NamedNode, len(t.Nodes))
	for i, n := range t.Nodes {
		nodes[i] = api.NamedNode{PeerID: n.PeerID, Nation: n.Nation, Name: n.Name}
	}
	return NamesOf(nodes)
}

// Task writes a task and how far each of its nodes is.
func Task(w io.Writer, v api.ShownTask) error {
	batch := "all rows"
	if v.Batch > 0 {
		batch = count(v.Batch) + " rows"
	}
	features := make([]string, len(v.Features))
	for i, f := range v.Features {
		features[i] = Text(f)
	}
	classes := make([]string, len(v.Encoding.Classes))
	for i, c := range v.Encoding.Classes {
		classes[i] = Text(c)
	}
	err := columns(w, append([][]string{
		{"cid", v.CID.String()}, {"name", Or(v.Name)}, {"description", Or(v.Description)},
		{"proposer", TaskNames(v).of(v.Proposer)}, {"stage", Progress(v.TaskSummary, TaskNames(v))},
		{"target", Or(v.Target)}, {"classes", Or(strings.Join(classes, ", "))}, {"positive", Or(v.Encoding.Positive)},
		{"features", Or(strings.Join(features, ", "))},
		{"model", Or(string(v.Model))}, {"rounds", count(v.Rounds)}, {"local steps", count(v.LocalSteps)},
		{"learning rate", number(v.LearningRate)}, {"batch", batch}, {"l2", number(v.L2)},
		{"mixing", Or(v.Mixing)}, {"seed", count(v.Seed)}, {"tolerance", number(v.Tolerance)},
	}, special(v)...))
	if err != nil {
		return err
	}
	fmt.Fprintln(w)
	var rows [][]string
	for _, n := range v.Nodes {
		trained := figure.None
		if n.Enrolled {
			trained = count(n.TrainRows)
		}
		rows = append(rows, []string{n.PeerID.String(), Or(label(n.Nation, n.Name)), yes(n.Enrolled), trained, count(n.Round), yes(n.Evaluated), state(n), cidOr(n.Dataset)})
	}
	return list(w, "no nodes", []string{"PEER ID", "NODE", "ENROLLED", "TRAINING ROWS", "ROUND", "EVALUATED", "STATE", "DATASET"}, rows)
}

// special are the lines of a task about what most tasks do without.
func special(v api.ShownTask) (rows [][]string) {
	add := func(name string, is bool, value string) {
		if is {
			rows = append(rows, []string{name, value})
		}
	}
	add("hidden layers", len(v.Hidden) > 0, fmt.Sprint(v.Hidden))
	add("optimizer", v.Optimizer != "", Text(string(v.Optimizer)))
	add("prox", v.Prox > 0, number(v.Prox))
	add("scaffold", v.Scaffold, "yes")
	add("outer optimizer", v.Outer != "", fmt.Sprintf("%s, rate %s", Text(string(v.Outer)), number(v.OuterRate)))
	add("each node's own", v.Personal != "", Text(string(v.Personal)))
	add("round time", v.RoundTime > 0, fmt.Sprintf("%g s", v.RoundTime))
	add("sensitive column", v.Encoding.Sensitive != "", Text(v.Encoding.Sensitive))
	add("goes on from", v.Parent.Defined(), v.Parent.String())
	if v.Search != nil {
		add("search", true, fmt.Sprintf("%d candidates, %d of them still in it", len(v.Search.Candidates), len(v.Kept)))
	}
	return rows
}

// state says what is out of the ordinary about a node of a task.
func state(n api.TaskNode) string {
	var words []string
	for _, s := range []struct {
		is   bool
		word string
	}{{n.Late, "late"}, {n.Left, "left"}, {len(n.Equivocated) > 0, "equivocated"}, {n.Silent && !n.Left, "silent"}} {
		if s.is {
			words = append(words, s.word)
		}
	}
	return Or(strings.Join(words, ", "))
}

// Models writes a list of sealed models.
func Models(w io.Writer, v api.Models) error {
	var rows [][]string
	for _, m := range v.Models {
		promoted := figure.None // goes on from no other
		switch {
		case m.Promoted != nil:
			promoted = yes(*m.Promoted)
		case m.Parent.Defined():
			promoted = "not known yet"
		}
		rows = append(rows, []string{m.CID.String(), Or(m.Name), Or(string(m.Model)), figure.Bytes(m.Bytes), promoted, cidOr(m.Task)})
	}
	return list(w, "no models; a task that has ended leaves one: village task list", []string{"CID", "NAME", "MODEL", "SIZE", "PROMOTED", "TASK"}, rows)
}

// Model writes a model's parameters, for scaled features.
func Model(w io.Writer, v api.ShownModel) error {
	facts := [][]string{
		{"cid", v.CID.String()}, {"name", Or(v.Name)}, {"task", cidOr(v.Task)}, {"model", Or(string(v.Model))},
		{"size", figure.Bytes(v.Bytes)}, {"target", Or(v.Encoding.Target)}, {"positive", Or(v.Encoding.Positive)},
	}
	if len(v.Hidden) > 0 {
		facts = append(facts, []string{"hidden layers", fmt.Sprint(v.Hidden)})
	}
	for _, parent := range v.Lineage {
		facts = append(facts, []string{"goes on from", parent.String()})
	}
	if err := columns(w, facts); err != nil {
		return err
	}
	fmt.Fprintln(w)
	head := []string{"COLUMN", "MEAN", "SD"}
	if len(v.Weight) == 1 {
		head = append(head, "WEIGHT")
	} else {
		for i := range v.Weight {
			class := strconv.Itoa(i)
			if i < len(v.Encoding.Classes) {
				class = v.Encoding.Classes[i]
			}
			head = append(head, "WEIGHT "+Text(class))
		}
	}
	at := func(x []float64, i int) string {
		if i >= len(x) {
			return figure.None
		}
		return number(x[i])
	}
	var rows [][]string
	for i, name := range v.Columns {
		row := []string{Text(name), at(v.Scaling.Mean, i), at(v.Scaling.SD, i)}
		for _, output := range v.Weight {
			row = append(row, at(output, i))
		}
		rows = append(rows, row)
	}
	bias := []string{"(bias)", figure.None, figure.None}
	for o := range v.Weight {
		bias = append(bias, at(v.Bias, o))
	}
	if len(v.Weight) > 0 {
		rows = append(rows, bias)
	}
	return list(w, "", head, rows)
}

// defused is a cell that spreadsheets show and do not run, as they do a text that
// begins like a formula. Numbers stay what they are.
func defused(cell string) string {
	if cell == "" || !strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
		return cell
	}
	if _, err := strconv.ParseFloat(cell, 64); err == nil {
		return cell
	}
	return "'" + cell
}

// PredictionsCSV writes predictions as CSV: the class, and the probability of
// each class, a line for a row. A row without a prediction has empty cells. Classes
// are what other nodes have named so, so that none is left that a spreadsheet runs.
func PredictionsCSV(w io.Writer, v api.Predictions) error {
	c := csv.NewWriter(w)
	head := []string{"prediction"}
	for _, class := range v.Classes {
		head = append(head, "probability_"+class)
	}
	c.Write(head)
	for i, p := range v.Predictions {
		row := make([]string, len(head))
		row[0] = defused(p)
		if i < len(v.Probabilities) {
			for j, x := range v.Probabilities[i][:min(len(v.Probabilities[i]), len(v.Classes))] {
				row[1+j] = strconv.FormatFloat(x, 'g', -1, 64)
			}
		}
		c.Write(row)
	}
	c.Flush()
	return c.Error()
}
