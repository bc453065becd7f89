package portable

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"village/node/api"
	"village/protocol/figure"
	"village/protocol/learn"
	"village/protocol/record"
	"village/protocol/task"
)

// CardOptions are what a model card tells beside the model and its results.
type CardOptions struct {
	Task task.Task // that trained the model
	// Datasets are those that the nodes of the model enrolled with, as they
	// are published; those that are not known are left out.
	Datasets []api.Dataset
}

// Card returns a model card: Markdown behind a front matter in YAML with the
// fields that model hubs read
// (https://github.com/huggingface/hub-docs/blob/main/modelcard.md).
func Card(m task.Model, r task.Results, o CardOptions) (string, error) {
	c := card{m: m, r: r, o: o}
	var front bytes.Buffer
	encoder := yaml.NewEncoder(&front)
	encoder.SetIndent(2)
	if err := encoder.Encode(c.front()); err != nil {
		return "", fmt.Errorf("model card: %w", err)
	}
	c.b.WriteString("---\n")
	c.b.Write(front.Bytes())
	c.b.WriteString("---\n\n")
	c.head()
	c.columns()
	c.training()
	c.results()
	c.calibration()
	c.groups()
	c.limits()
	c.lineage()
	c.use()
	return c.b.String(), nil
}

type card struct {
	m task.Model
	r task.Results
	o CardOptions
	b strings.Builder
}

func (c *card) printf(format string, args ...any) { fmt.Fprintf(&c.b, format, args...) }

// kind is that of the target.
func (c *card) kind() figure.Kind { return figure.KindOf(len(c.m.Encoding.Classes) == 0) }

// frontMatter is what model hubs read.
type frontMatter struct {
	License     string      `yaml:"license,omitempty"`
	LicenseName string      `yaml:"license_name,omitempty"`
	Library     string      `yaml:"library_name"`
	Pipeline    string      `yaml:"pipeline_tag"`
	Tags        []string    `yaml:"tags"`
	Datasets    []string    `yaml:"datasets,omitempty"`
	Metrics     []string    `yaml:"metrics"`
	Index       []indexItem `yaml:"model-index,omitempty"`
}

type indexItem struct {
	Name    string        `yaml:"name"`
	Results []indexResult `yaml:"results"`
}

type indexResult struct {
	Task    indexNamed    `yaml:"task"`
	Dataset indexNamed    `yaml:"dataset"`
	Metrics []indexMetric `yaml:"metrics"`
}

type indexNamed struct {
	Type string `yaml:"type"`
	Name string `yaml:"name"`
}

type indexMetric struct {
	Type  string  `yaml:"type"`
	Value float64 `yaml:"value"`
	Name  string  `yaml:"name"`
}

func (c *card) front() frontMatter {
	kind, title := "tabular-classification", "Tabular Classification"
	if c.kind().Numeric() {
		kind, title = "tabular-regression", "Tabular Regression"
	}
	f := frontMatter{
		Library: "village", Pipeline: kind,
		Tags: []string{"village", "federated-learning", "tabular", string(c.m.Spec.Kind), "onnx", "safetensors"},
	}
	f.License, f.LicenseName = licence(c.o.Datasets)
	for _, d := range c.o.Datasets {
		if tag := slug(d.Domain); tag != "" && !slices.Contains(f.Tags, tag) {
			f.Tags = append(f.Tags, tag)
		}
		if id := cmp.Or(slug(d.Name), d.CID.String()); !slices.Contains(f.Datasets, id) {
			f.Datasets = append(f.Datasets, id)
		}
	}
	result := indexResult{
		Task:    indexNamed{kind, title},
		Dataset: indexNamed{"village", "test rows of " + figure.Plural(len(c.r.Nodes), "node")},
	}
	if len(f.Datasets) == 1 {
		result.Dataset = indexNamed{f.Datasets[0], plain(c.o.Datasets[0].Name)}
	}
	for _, m := range c.kind().Metrics {
		f.Metrics = append(f.Metrics, m.Key)
		if v := m.Of(c.r.AllRows.Federated); v != nil {
			result.Metrics = append(result.Metrics, indexMetric{m.Key, *v, m.Long})
		}
	}
	if len(result.Metrics) > 0 {
		f.Index = []indexItem{{Name: plain(c.m.Name), Results: []indexResult{result}}}
	}
	return f
}

// hubLicences are the licences of data that hubs know by name, by their SPDX
// identifiers in lower case.
var hubLicences = map[string]string{
	"odbl-1.0": "odbl", "odc-by-1.0": "odc-by", "pddl-1.0": "pddl",
	"cc0-1.0": "", "cc-by-2.0": "", "cc-by-2.5": "", "cc-by-3.0": "", "cc-by-4.0": "", "cc-by-sa-3.0": "", "cc-by-sa-4.0": "",
	"cc-by-nc-2.0": "", "cc-by-nc-3.0": "", "cc-by-nc-4.0": "", "cc-by-nd-4.0": "", "cc-by-nc-nd-3.0": "", "cc-by-nc-nd-4.0": "",
	"cc-by-nc-sa-2.0": "", "cc-by-nc-sa-3.0": "", "cc-by-nc-sa-4.0": "", "cdla-sharing-1.0": "", "cdla-permissive-1.0": "",
	"cdla-permissive-2.0": "", "c-uda-1.0": "c-uda", "etalab-2.0": "", "eupl-1.1": "", "eupl-1.2": "", "mit": "", "apache-2.0": "",
	"bsd-2-clause": "", "bsd-3-clause": "", "isc": "", "mpl-2.0": "", "unlicense": "",
}

// licence is that of all the datasets, as hubs name it; nothing where they
// differ, or where some have none.
func licence(datasets []api.Dataset) (id, name string) {
	for i, d := range datasets {
		if d.Licence == "" || i > 0 && d.Licence != datasets[0].Licence {
			return "", ""
		}
	}
	if len(datasets) == 0 {
		return "", ""
	}
	spdx := strings.ToLower(datasets[0].Licence)
	if id, known := hubLicences[spdx]; known {
		return cmp.Or(id, spdx), ""
	}
	return "other", plain(datasets[0].Licence)
}

// slug is text as part of a hub's identifiers: letters, digits and hyphens.
func slug(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(s), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	}), "-")
}

func (c *card) head() {
	c.printf("# Model %s\n\n", prose(c.m.Name))
	if c.kind().Numeric() {
		c.printf("It predicts the number %s from the raw columns below.\n", prose(c.m.Encoding.Target))
	} else {
		c.printf("It predicts %s, one of %d classes, from the raw columns below.\n", prose(c.m.Encoding.Target), len(c.m.Encoding.Classes))
	}
	c.printf("Nodes of several owners have trained it together with [Village](#use), without a coordinator; no row has left its owner.\n")
	if c.o.Task.Description != "" {
		c.printf("\nAbout the task: %s\n", prose(c.o.Task.Description))
	}
	c.printf("\n- model: `%s`\n- task: `%s`\n", c.r.CID, c.m.Task)
}

func (c *card) columns() {
	const most = 100
	c.printf("\n## Columns\n\n")
	if !c.kind().Numeric() {
		g := grid{head: []string{"target", "classes", "positive class"}}
		g.add(cell(c.m.Encoding.Target), cells(c.m.Encoding.Classes), cell(c.m.Encoding.Positive))
		c.printf("%s\n", &g)
	}
	g := grid{head: []string{"column", "kind", "unit", "levels", "recipe"}}
	for _, f := range c.m.Encoding.Features[:min(len(c.m.Encoding.Features), most)] {
		recipe := f.String()
		if recipe == f.Name {
			recipe = ""
		}
		g.add(cell(f.Name), string(f.Kind), cell(f.Unit), cells(f.Levels), cell(recipe))
	}
	c.printf("%s", &g)
	if n := len(c.m.Encoding.Features) - most; n > 0 {
		c.printf("\nand %d more features, which the model's file names.\n", n)
	}
	c.printf("\nA recipe is a column and the steps by which its cells become numbers. Without steps a number is taken as it is, " +
		"levels but the first are 0/1 columns, and a missing cell leaves out its row. " +
		"Recipes and scaling are part of the model: whoever predicts gives raw cells.\n")
}

func short(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }

func (c *card) training() {
	c.printf("\n## Training\n\n")
	datasets := map[record.NodeID]api.Dataset{}
	for _, d := range c.o.Datasets {
		datasets[d.PeerID] = d
	}
	g := grid{head: []string{"nation", "node", "training rows", "dataset", "licence", "in the model"}}
	rows, nations := uint64(0), map[string]bool{}
	for _, n := range c.r.Contributions {
		why := "no: "
		if n.InFinal {
			why = "yes: "
			rows += n.TrainRows
			nations[n.Nation] = true
		}
		d := datasets[n.PeerID]
		g.add(cell(n.Nation), cell(cmp.Or(n.Name, n.PeerID.String())), strconv.FormatUint(n.TrainRows, 10), cell(d.Name), cell(d.Licence), why+prose(n.Why))
	}
	c.printf("%d training rows of %s.\n\n%s", rows, figure.Plural(len(nations), "nation"), &g)

	t := c.o.Task
	chosen := 0
	if c.r.Search != nil {
		chosen = c.r.Search.Chosen
	}
	how := t.Candidate(chosen)
	c.printf("\n- model: %s\n", shape(c.m.Spec))
	c.printf("- rounds: %d of at most %d, each of %d local steps at a learning rate of %s", c.r.Rounds, t.Rounds, how.LocalSteps, short(how.LearningRate))
	if t.Batch > 0 {
		c.printf(", %d rows a step", t.Batch)
	}
	c.printf("\n- local optimizer: %s", cmp.Or(string(how.Optimizer), "gradient descent"))
	if how.L2 > 0 {
		c.printf(", L2 penalty %s", short(how.L2))
	}
	if t.Prox > 0 {
		c.printf(", FedProx %s", short(t.Prox))
	}
	if t.Scaffold {
		c.printf(", SCAFFOLD")
	}
	c.printf("\n- mixing: %s", prose(t.Mixing))
	if how.Outer != learn.Plain {
		c.printf(", outer optimizer %s at a rate of %s", how.Outer, short(how.OuterRate))
	}
	c.printf("\n")
	if c.m.Personal != learn.NoPart {
		c.printf("- each node's own part, zero in this model: %s\n", c.m.Personal)
	}
	if c.r.Search != nil {
		c.printf("- chosen among %d candidates by their loss on rows held back from training, in %d rungs\n", len(c.r.Search.Candidates), len(c.r.Search.Rungs))
	}
}

func shape(s learn.Spec) string {
	if len(s.Hidden) == 0 {
		return fmt.Sprintf("%s, %d inputs", s.Kind, s.Inputs)
	}
	return fmt.Sprintf("%s, %d inputs, hidden layers of %s rectified linear units", s.Kind, s.Inputs, strings.Trim(fmt.Sprint(s.Hidden), "[]"))
}

func (c *card) results() {
	c.printf("\n## Results\n\n")
	c.printf("Each node has evaluated on its own test rows. *Local* is the best model that a node reaches alone on its training rows, " +
		"*federated* is this model, *personal* is this model with a part fitted to the node")
	if c.r.Personal != learn.NoPart {
		c.printf(" (%s)", c.r.Personal)
	}
	c.printf(". In parentheses is the 95 %% bootstrap interval.\n")
	for _, m := range c.kind().Metrics {
		g := grid{head: []string{m.Long, "test rows", "local", "federated", "personal"}}
		of := func(r learn.Report) string {
			s := value(m.Of(r), m.Format)
			if i := m.Interval(r); i != nil {
				s += fmt.Sprintf(" (%s to %s)", m.Format(i[0]), m.Format(i[1]))
			}
			return s
		}
		mean := func(f task.Metrics) string { return value(m.Across(f), m.Format) }
		pair := func(name string, p task.Pair) {
			g.add(name, strconv.FormatUint(p.Federated.Rows, 10), of(p.Local), of(p.Federated), of(p.Personal))
		}
		pair("**all rows**", c.r.AllRows)
		g.add("**mean of nodes**", "", mean(c.r.Mean.Local), mean(c.r.Mean.Federated), mean(c.r.Mean.Personal))
		g.add("**worst node**", "", mean(c.r.Worst.Local), mean(c.r.Worst.Federated), mean(c.r.Worst.Personal))
		for _, n := range c.r.Nodes {
			pair(cell(n.Nation)+" "+cell(cmp.Or(n.Name, n.PeerID.String())), n.Pair)
		}
		c.printf("\n%s", &g)
	}
	if gain := c.r.AllRows.Gain; gain.Rows > 0 && !c.kind().Numeric() {
		c.printf("\nOf %d test rows only this model gets %d right, and only the local ones %d", gain.Rows, gain.Better, gain.Worse)
		if gain.Accuracy != nil {
			lead := c.kind().Lead
			c.printf(": %s %s", lead.Name, lead.Signed(*gain.Accuracy))
			if i := gain.Interval; i != nil {
				c.printf(" (%s)", figure.Span(lead.Signed(i[0]), lead.Signed(i[1])))
			}
		}
		c.printf(".\n")
	}
}

// value writes a figure, nothing where it is undefined.
func value(x *float64, format func(float64) string) string {
	if !figure.Finite(x) {
		return ""
	}
	return format(*x)
}

func (c *card) calibration() {
	r := c.r.AllRows.Federated
	if r.CalibrationError == nil {
		return
	}
	c.printf("\n## Calibration\n\nOver all test rows the predicted probability of the positive class is %s from the observed share, on average.\n\n", figure.Ratio(*r.CalibrationError))
	g := grid{head: []string{"predicted", "test rows", "mean predicted", "observed"}}
	for _, bin := range r.Calibration {
		if bin.Rows > 0 {
			g.add(fmt.Sprintf("%.1f to %.1f", bin.From, bin.To), strconv.FormatUint(bin.Rows, 10), figure.Ratio(bin.Predicted), figure.Ratio(bin.Observed))
		}
	}
	c.printf("%s", &g)
}

func (c *card) groups() {
	f := c.r.AllRows.Federated.Fairness
	if f == nil {
		return
	}
	c.printf("\n## Groups of %s\n\n", prose(f.Column))
	g := grid{head: []string{"group", "test rows"}}
	for _, rate := range figure.Rates {
		g.head = append(g.head, rate.Long)
	}
	for _, group := range f.Groups {
		row := []string{cell(group.Group), strconv.FormatUint(group.Rows, 10)}
		for _, rate := range figure.Rates {
			row = append(row, value(rate.Of(group), figure.Ratio))
		}
		g.add(row...)
	}
	c.printf("%s", &g)
	if f.Hidden > 0 {
		c.printf("\nGroups of fewer than ten rows are hidden: %d.\n", f.Hidden)
	}
	for _, d := range figure.Differences {
		if x := d.Of(*f); x != nil {
			c.printf("\n%s difference: %s.\n", figure.Title(d.Name), figure.Ratio(*x))
		}
	}
}

func (c *card) limits() {
	c.printf("\n## Limits\n\n")
	c.printf("- The figures above are for the populations of the nodes named. Of any other the model knows nothing.\n")
	if n := len(c.r.Missing); n > 0 {
		c.printf("- Without an evaluation: %s of the model.\n", figure.Plural(n, "node"))
	}
	if below := c.below(); len(below) > 0 {
		c.printf("- The node's own model does better on its test rows at %d of %s: %s.\n", len(below), figure.Plural(len(c.r.Nodes), "node"), strings.Join(below, ", "))
	}
	if c.r.AllRows.Federated.Fairness == nil {
		c.printf("- Groups of people have not been told apart: whether the model treats them alike is not known.\n")
	}
	if c.m.Personal != learn.NoPart {
		c.printf("- A part of the model is each node's own and zero here. Fit it to rows of the place where the model is to be used.\n")
	}
	c.printf("- A row with a missing cell that the recipe does not fill, or with a level that the model does not know, has no prediction.\n")
	c.printf("- Verification proves how the model was computed from what the nodes have signed. It cannot prove that they trained on honest rows.\n")
	c.printf("- Nothing here shows that the model is fit to decide about people without somebody who answers for it.\n")
}

// below names the nodes at which the federated model does worse than the local
// one.
func (c *card) below() (names []string) {
	for _, n := range c.r.Nodes {
		if gain := c.kind().Gain(n.Local, n.Federated); gain != nil && *gain < 0 {
			names = append(names, prose(n.Nation)+" "+prose(cmp.Or(n.Name, n.PeerID.String())))
		}
	}
	return names
}

func (c *card) lineage() {
	if len(c.r.Lineage) == 0 {
		return
	}
	c.printf("\n## Lineage\n\nIt goes on from these models, the newest first:\n\n")
	for _, cid := range c.r.Lineage {
		c.printf("- `%s`\n", cid)
	}
	switch {
	case c.r.Promoted == nil:
		c.printf("\nWhether it is as good as the one before is not known yet.\n")
	case *c.r.Promoted:
		c.printf("\nOn all test rows it is not worse than the one before.\n")
	default:
		c.printf("\nOn all test rows it is worse than the one before, and is not meant to take its place.\n")
	}
}

func (c *card) use() {
	c.printf("\n## Use\n\nA node that holds the model checks every signature, recomputes it, and predicts the rows of a file:\n\n")
	c.printf("```sh\nvillage model verify %s\nvillage model predict %s --in rows.csv\n```\n\n", c.r.CID, c.r.CID)
	outputs := `["label", "probabilities"]`
	if c.kind().Numeric() {
		outputs = `["prediction"]`
	}
	c.printf("Without Village, from the ONNX file, which takes raw columns too (it agrees to five decimals):\n\n"+
		"```python\n"+
		"import onnxruntime, pandas\n\n"+
		"model = onnxruntime.InferenceSession(\"model.onnx\")\n"+
		"rows = pandas.read_csv(\"rows.csv\", dtype=str)\n"+
		"raw = {}\n"+
		"for column in model.get_inputs():\n"+
		"    cells = rows[[column.name]]\n"+
		"    if column.type == \"tensor(string)\":\n"+
		"        raw[column.name] = cells.fillna(\"\").to_numpy(object)\n"+
		"    else:\n"+
		"        raw[column.name] = cells.astype(\"float64\").to_numpy()\n"+
		"print(model.run(%s, raw))\n"+
		"```\n", outputs)
}
