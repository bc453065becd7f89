package scenario

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"village/protocol/dataset"
	"village/sim"
)

// patients is a table with a learnable target of three levels and a column of
// sites. Every row is another.
func patients(rows int) dataset.Table {
	t := dataset.Table{Columns: []string{"site", "id", "age", "ward", "sick", "part"}}
	for i := range rows {
		part := "train"
		if i%4 == 3 {
			part = "test"
		}
		t.Rows = append(t.Rows, []string{
			[]string{"HUN", "YUG", "clinic", "CHE"}[i/3%4], strconv.Itoa(i), strconv.Itoa(20 + i%60), []string{"a", "b"}[i/2%2],
			[]string{"no", "some", "yes"}[min(i%60/20, 2)], part,
		})
	}
	return t
}

func given(t dataset.Table, d Defaults) func(string, []string) (dataset.Table, Defaults, error) {
	return func(string, []string) (dataset.Table, Defaults, error) { return t, d, nil }
}

// study is a scenario of patients.
func study(settings ...string) Scenario {
	s := New()
	for _, setting := range append([]string{"data=patients.csv", "target=sick", "ignore=id"}, settings...) {
		key, value, _ := strings.Cut(setting, "=")
		if err := s.Set(key, value); err != nil {
			panic(err)
		}
	}
	return s
}

func TestConfigRefuses(t *testing.T) {
	gap := patients(40)
	gap.Rows[7][0] = ""
	testOnly := patients(40)
	for _, row := range testOnly.Rows {
		if row[0] == "YUG" {
			row[5] = "test"
		}
	}
	loss := study()
	loss.Loss = 1
	for _, c := range []struct {
		s     Scenario
		table dataset.Table
		want  string
	}{
		{New(), patients(40), "data is not set"},
		{study("target="), patients(40), "target is not set: name the column to predict; the columns are site, id, age"},
		{loss, patients(40), "loss = 1: it is at least 0 and below 1"},
		{study("target=sik"), patients(40), `target: the data has no column "sik"; did you mean "sick"?`},
		{study("features=height"), patients(40), `features: the data has no column "height"; its columns are site, id`},
		{study("features=sick"), patients(40), `features: column "sick" is the target`},
		{study("features=part", "split=part"), patients(40), `features: column "part" is the split`},
		{study("features=id"), patients(40), `features: column "id" is ignored, too`},
		{study("categorical=aeg"), patients(40), `categorical: the data has no column "aeg"; did you mean "age"?`},
		{study("ignore=idd"), patients(40), `ignore: the data has no column "idd"`},
		{study("split=prt"), patients(40), `split: the data has no column "prt"`},
		{study("split=ward"), patients(40), "only train and test"},
		{study("partition=column:place"), patients(40), `partition: the data has no column "place"`},
		{study("partition=column:site", "ignore=id,age,ward,part"), patients(40), "no feature column is left"},
		{study("partition=column:site"), gap, "partition = column:site: the column is empty in row 8"},
		{study("partition=column:site", "split=part"), testOnly, "partition = column:site: YUG: no row is for training"},
		{study("partition=column:site", "nodes=5"), patients(40), "nodes = 5: column site has 4 values"},
		{study("nodes=31", "split=part", "ignore="), patients(40), "nodes = 31: they are more than the 30 training rows of the 40 rows"},
		{study("nodes=30", "split=part", "ignore=", "partition=shards:2"), patients(40), "30 nodes with 2 shards each need 60 training rows, and there are 30"},
		{study("nodes=25", "split=part", "ignore=", "partition=dirichlet:0.01"), patients(40), "partition = dirichlet:0.01: of 200 draws each leaves some of the 25 nodes without training rows"},
		{study("nodes=201", "ignore="), patients(400), "mixing = all: 201 nodes are more than the 200 that can mix all with all; use random, ring"},
		{study("partition=column:id", "ignore=", "split=part"), patients(201), "mixing = all: 201 nodes are more than the 200"},
		{study("nodes=3", "mixing=regular:4"), patients(40), "mixing = regular:4:"},
		{study("model=logistic"), patients(100), "logistic regression has two classes"},
		{study("nodes=4", "die=0.5@3s"), patients(40), "die = 0.5@3s: of 4 nodes 2 stay, and 3 must agree"},
		{study("nodes=4", "leave=1@3s"), patients(40), "leave = 1@3s, die = none, hostile = none: of 4 nodes none is left"},
		{study("nodes=4", "hostile=1:nan"), patients(40), "of 4 nodes none is left"},
		{study("nodes=201", "ignore=", "mixing=ring", "die=1@3s"), patients(400), "of 201 nodes none is left"},
		{study("nodes=201", "ignore=", "mixing=ring", "tolerance=0.5"), patients(400), "tolerance = 0.5: training ends early only where all mix with all"},
		{study("nodes=4", "hostile=0.5:nan"), patients(40), "hostile = 0.5:nan: of 4 nodes 2 publish what can be mixed, and a model is made of 3"},
		{study("nodes=4", "step=24h", "slow=0.1x31"), patients(40), "slow = 0.1x31: a step of 24h times longer takes more"},
		{study("nodes=1", "apart=1s-2s:0.5"), patients(40), "apart: one node alone"},
		{study("data=synthetic:100x3", "ignore=", "target=", "columns=a,b"), dataset.Table{}, "columns = a,b: synthetic data has names of its own"},
		{study("data=synthetic:100x3", "ignore="), dataset.Table{}, `target: the data has no column "sick"`},
	} {
		_, err := c.s.Config(given(c.table, Defaults{}))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want one with %q", err, c.want)
		}
	}
	missing := errors.New("there is no file")
	_, err := study().Config(func(string, []string) (dataset.Table, Defaults, error) { return dataset.Table{}, Defaults{}, missing })
	if !errors.Is(err, missing) {
		t.Errorf("error %v, want that of the opener", err)
	}
}

// Whatever the partition, every row goes to one node, and every node has rows
// to train on.
func TestPartitionsDealEveryRowOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := patients(rapid.IntRange(120, 400).Draw(t, "rows"))
		settings := []string{
			"ignore=", "seed=" + strconv.Itoa(rapid.IntRange(0, 1000).Draw(t, "seed")),
			rapid.SampledFrom([]string{
				"partition=iid", "partition=column:site", "partition=dirichlet:100", "partition=dirichlet:0.5",
				"partition=shards:1", "partition=shards:3", "partition=column:ward", "partition=column:sick",
			}).Draw(t, "partition"),
			rapid.SampledFrom([]string{"split=", "split=part"}).Draw(t, "split"),
		}
		if !strings.Contains(settings[2], "column") {
			settings = append(settings, "nodes="+strconv.Itoa(rapid.IntRange(1, 5).Draw(t, "nodes")))
		}
		s := study(settings...)
		cfg, err := s.Config(given(table, Defaults{}))
		if err != nil {
			t.Fatal(err)
		}
		if s.Nodes > 0 && len(cfg.Nodes) != s.Nodes {
			t.Fatalf("%d nodes, want %d", len(cfg.Nodes), s.Nodes)
		}
		seen := map[string]int{}
		for _, n := range cfg.Nodes {
			at := slices.Index(n.Rows.Columns, "id")
			for _, row := range n.Rows.Rows {
				seen[row[at]]++
			}
			training, _, err := cfg.Task.Encoding.Divide(n.Rows, n.Split, cfg.Task.Seed)
			if err != nil || len(training.Rows) == 0 {
				t.Fatalf("%s: %d training rows, %v", n.Name, len(training.Rows), err)
			}
		}
		for _, row := range table.Rows {
			if seen[row[1]] != 1 {
				t.Fatalf("row %s is dealt %d times", row[1], seen[row[1]])
			}
		}
		if len(seen) != len(table.Rows) {
			t.Fatalf("%d rows of %d", len(seen), len(table.Rows))
		}
	})
}

// divided returns how many training and test rows of each class a node has.
func divided(t *testing.T, cfg sim.Config, node int) (train, test map[string]int) {
	t.Helper()
	n := cfg.Nodes[node]
	training, testing, err := cfg.Task.Encoding.Divide(n.Rows, n.Split, cfg.Task.Seed)
	if err != nil {
		t.Fatal(err)
	}
	at := slices.Index(n.Rows.Columns, cfg.Task.Encoding.Target)
	count := func(rows [][]string) map[string]int {
		m := map[string]int{}
		for _, row := range rows {
			m[row[at]]++
		}
		return m
	}
	return count(training.Rows), count(testing.Rows)
}

func sum(m map[string]int) (n int) {
	for _, x := range m {
		n += x
	}
	return n
}

func config(t *testing.T, s Scenario, table dataset.Table, d Defaults) sim.Config {
	t.Helper()
	cfg, err := s.Config(given(table, d))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestEveryNodeGetsItsShareOfBothSides(t *testing.T) {
	cfg := config(t, study("nodes=10", "split=part", "ignore="), patients(200), Defaults{})
	for i := range cfg.Nodes {
		if train, test := divided(t, cfg, i); sum(train) != 15 || sum(test) != 5 {
			t.Errorf("%d training and %d test rows", sum(train), sum(test))
		}
	}
	cfg = config(t, study("data=synthetic:500x3", "target=", "ignore=", "nodes=100", "rounds=3"), dataset.Table{}, Defaults{})
	for i := range cfg.Nodes {
		if train, test := divided(t, cfg, i); sum(train) != 4 || sum(test) != 1 {
			t.Errorf("%d training and %d test rows", sum(train), sum(test))
		}
	}
}

func TestRowsLeavesTheTestsAlone(t *testing.T) {
	whole := config(t, study("partition=column:site", "ignore=id"), patients(240), Defaults{})
	few := config(t, study("partition=column:site", "ignore=id", "rows=7"), patients(240), Defaults{})
	for i := range whole.Nodes {
		train, test := divided(t, few, i)
		_, tests := divided(t, whole, i)
		if sum(train) != 7 || !reflect.DeepEqual(test, tests) {
			t.Errorf("%d training rows; tests %v of %v", sum(train), test, tests)
		}
	}
}

// A small ALPHA gives nodes of few classes, a large one nodes like each other;
// and a shard is of one class, or of two that meet in it.
func TestSkew(t *testing.T) {
	largest := func(settings ...string) (mean float64) {
		cfg := config(t, study(append(settings, "nodes=6", "ignore=", "split=part")...), patients(600), Defaults{})
		for i := range cfg.Nodes {
			train, _ := divided(t, cfg, i)
			most := 0
			for _, n := range train {
				most = max(most, n)
			}
			mean += float64(most) / float64(sum(train)) / float64(len(cfg.Nodes))
		}
		return mean
	}
	skewed, even := largest("partition=dirichlet:0.1"), largest("partition=dirichlet:1000")
	if skewed < 0.7 || even > 0.4 {
		t.Errorf("the largest of three classes has %.2f of a node's rows with ALPHA 0.1, %.2f with 1000", skewed, even)
	}
	cfg := config(t, study("partition=shards:1", "nodes=3", "ignore=", "split=part"), patients(600), Defaults{})
	for i := range cfg.Nodes {
		train, test := divided(t, cfg, i)
		if len(train) != 1 || !reflect.DeepEqual(slices.Collect(keysOf(train)), slices.Collect(keysOf(test))) {
			t.Errorf("a shard of the classes %v, tested on %v", train, test)
		}
	}
}

func keysOf(m map[string]int) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func TestColumnMakesNations(t *testing.T) {
	d := Defaults{Partition: "column:site", Nations: map[string]string{"clinic": "USA"}}
	cfg := config(t, study(), patients(120), d)
	var got []string
	for _, n := range cfg.Nodes {
		got = append(got, n.Name+" "+n.Nation)
	}
	if want := "HUN HUN,YUG YUG,clinic USA,CHE CHE"; strings.Join(got, ",") != want {
		t.Errorf("nodes %v, want %s", got, want)
	}
	if cfg = config(t, study("partition=column:ward"), patients(120), d); cfg.Nodes[0].Nation != nowhere {
		t.Errorf("ward %s has the nation %s", cfg.Nodes[0].Name, cfg.Nodes[0].Nation)
	}
	// Of a column with many values those of most rows.
	uneven := patients(120)
	for _, row := range uneven.Rows[:80] {
		row[0] = []string{"CHE", "HUN"}[len(row[1])%2]
	}
	cfg = config(t, study("partition=column:site", "nodes=2"), uneven, Defaults{})
	if len(cfg.Nodes) != 2 || cfg.Nodes[0].Name != "HUN" || cfg.Nodes[1].Name != "CHE" {
		t.Errorf("the two largest are %s and %s", cfg.Nodes[0].Name, cfg.Nodes[1].Name)
	}
	// A node may lack the positive class.
	cfg = config(t, study("partition=column:site", "target=ward", "positive=b"), oneSided(patients(120)), Defaults{})
	if len(cfg.Nodes) != 4 || cfg.Task.Encoding.Positive != "b" {
		t.Errorf("%d nodes, positive %q", len(cfg.Nodes), cfg.Task.Encoding.Positive)
	}
}

// oneSided leaves one site with one ward.
func oneSided(t dataset.Table) dataset.Table {
	for _, row := range t.Rows {
		if row[0] == "YUG" {
			row[3] = "a"
		}
	}
	return t
}

// What the data says of itself holds until the scenario says otherwise.
func TestDefaults(t *testing.T) {
	d := Defaults{
		Options: dataset.Options{
			Name: "patients", Target: "ward", Split: "part", Positive: "b", Categorical: []string{"sick"},
			Ignore: []string{"id", "site"}, Levels: map[string][]string{"sick": {"no", "some", "yes", "dead"}, "ward": {"a", "b"}},
		},
		Features: []string{"age", "sick"}, Partition: "column:site",
	}
	features := func(cfg sim.Config) string { return strings.Join(cfg.Task.Encoding.Names(), ",") }
	s := New()
	s.Data = "patients"
	cfg := config(t, s, patients(240), d)
	if e := cfg.Task.Encoding; e.Target != "ward" || e.Positive != "b" || features(cfg) != "age,sick=no,sick=some,sick=yes" ||
		len(cfg.Nodes) != 4 || cfg.Nodes[0].Split != "part" || cfg.Task.Name != "patients" {
		t.Errorf("task %+v, features %s, %d nodes", cfg.Task, features(cfg), len(cfg.Nodes))
	}
	for _, c := range []struct{ settings, want string }{
		{"features=age", "age"}, {"target=sick", "age"}, {"ignore=sick", "age"}, {"features=age,site partition=iid", "age,site=HUN,site=YUG,site=clinic"},
		{"target=site partition=iid", "age,sick=no,sick=some,sick=yes"},
	} {
		s := New()
		s.Data = "patients"
		for _, setting := range strings.Fields(c.settings) {
			key, value, _ := strings.Cut(setting, "=")
			if err := s.Set(key, value); err != nil {
				t.Fatal(err)
			}
		}
		if got := features(config(t, s, patients(240), d)); got != c.want {
			t.Errorf("%s: features %s, want %s", c.settings, got, c.want)
		}
	}
}

func TestWhatHappens(t *testing.T) {
	s := study("nodes=10", "ignore=", "late=0.2@30s", "leave=0.1@20s", "die=0.1@40s", "slow=0.3x10", "hostile=0.3:nan", "apart=1s-2s:0.3",
		"loss=0.1", "duplicate=0.2", "restarts=3", "down=4s", "bandwidth=1MB", "latency=1ms-9ms", "step=50ms",
		"rounds=7", "local-steps=3", "learning-rate=0.5", "batch=2", "l2=0.01", "mixing=ring", "seed=9", "model=softmax")
	cfg := config(t, s, patients(240), Defaults{})
	late, left, slow, hostile := 0, 0, 0, 0
	for _, n := range cfg.Nodes {
		if n.Enrols == 30*time.Second {
			late++
		}
		if n.Leaves == 20*time.Second {
			left++
		}
		if n.Step == 500*time.Millisecond {
			slow++
		} else if n.Step != 50*time.Millisecond {
			t.Errorf("a step takes %v", n.Step)
		}
		if n.Attack == sim.NaN {
			hostile++
		}
	}
	f := cfg.Faults
	if late != 2 || left != 1 || slow != 3 || hostile != 3 || len(f.Outages) != 1 || f.Outages[0].At != 40*time.Second || f.Outages[0].For != 0 {
		t.Errorf("%d late, %d left, %d slow, %d hostile, outages %v", late, left, slow, hostile, f.Outages)
	}
	if f.Loss != 0.1 || f.Duplicate != 0.2 || f.Restarts != 3 || f.Down != 4*time.Second || cfg.Bandwidth != 1e6 ||
		cfg.Delay.Min != time.Millisecond || cfg.Delay.Max != 9*time.Millisecond || cfg.Delay.Between != nil || cfg.Seed != 9 {
		t.Errorf("config %+v", cfg)
	}
	off := map[int]bool{}
	for i := range 10 {
		for j := range 10 {
			if f.Apart(time.Second, i, j) {
				if !f.Apart(time.Second, j, i) {
					t.Errorf("%d and %d are apart one way", i, j)
				}
				off[i] = true
			}
			if f.Apart(2*time.Second, i, j) || f.Apart(time.Second-1, i, j) {
				t.Errorf("%d and %d are apart at another time", i, j)
			}
		}
	}
	if pairs := len(off); pairs != 10 {
		t.Errorf("%d nodes are apart from some other, want all of both sides", pairs)
	}
	k := cfg.Task
	if k.Rounds != 7 || k.LocalSteps != 3 || k.LearningRate != 0.5 || k.Batch != 2 || k.L2 != 0.01 ||
		k.Mixing != "ring" || k.Seed != 9 || k.Model != "softmax" {
		t.Errorf("task %+v", k)
	}
	if got := config(t, study("nodes=4", "ignore=", "tolerance=1e-6"), patients(240), Defaults{}).Task.Tolerance; got != 1e-6 {
		t.Errorf("tolerance %g", got)
	}
	if a := config(t, study("nodes=4", "ignore="), patients(240), Defaults{}).Faults.Apart; a != nil {
		t.Error("nothing is apart, and a function says so")
	}
}

// More nodes than can agree mix by every rule but all.
func TestCrowdsMixByAnyGraph(t *testing.T) {
	for _, rule := range []string{"ring", "torus", "regular:4", "exponential", "base:2", "random"} {
		cfg := config(t, study("nodes=202", "ignore=", "mixing="+rule), patients(400), Defaults{})
		if len(cfg.Nodes) != 202 || cfg.Task.Mixing != rule {
			t.Errorf("%d nodes mix by %s, want 202 by %s", len(cfg.Nodes), cfg.Task.Mixing, rule)
		}
	}
}

// The same scenario is the same run, and another seed deals otherwise.
func TestSeed(t *testing.T) {
	rows := func(cfg sim.Config) string {
		all := fmt.Sprint(cfg.Faults.Outages)
		for i, n := range cfg.Nodes {
			all += fmt.Sprintln(n, cfg.Delay.Between(0, i), cfg.Faults.Apart(time.Second, 0, i))
		}
		return all
	}
	for _, partition := range []string{"iid", "dirichlet:0.5", "shards:2", "column:site"} {
		var got []string
		for _, seed := range []string{"1", "1", "2"} {
			s := study("partition="+partition, "seed="+seed, "ignore=", "latency=distance", "hostile=0.3:nan", "apart=1s-2s:0.3", "die=0.1@9s", "rows=20")
			got = append(got, rows(config(t, s, patients(200), Defaults{})))
		}
		if got[0] != got[1] {
			t.Errorf("%s: one seed gives two runs", partition)
		}
		if got[0] == got[2] {
			t.Errorf("%s: two seeds give one run", partition)
		}
	}
}

// A dataset's own order must not decide who has which rows: nodes of iid parts
// are alike.
func TestIIDMixesTheOrder(t *testing.T) {
	table := patients(400)
	slices.SortStableFunc(table.Rows, func(a, b []string) int { return strings.Compare(a[4], b[4]) })
	cfg := config(t, study("nodes=4", "ignore="), table, Defaults{})
	for i := range cfg.Nodes {
		if train, test := divided(t, cfg, i); len(train) != 3 || len(test) != 3 {
			t.Errorf("node %d trains on the classes %v, and is tested on %v", i, train, test)
		}
	}
}

func TestNations(t *testing.T) {
	w := countries()
	if len(w.all) != 199 || len(w.members) != 193 {
		t.Fatalf("%d countries, %d members", len(w.all), len(w.members))
	}
	for _, c := range w.all {
		if len(c.code) != 3 || c.name == "" || math.Abs(c.lat) > 90 || math.Abs(c.lon) > 180 {
			t.Errorf("country %+v", c)
		}
	}
	nations, names := dealNations(400, 1)
	seen, named := map[string]int{}, map[string]bool{}
	for i, n := range nations {
		seen[n]++
		if named[names[i]] {
			t.Errorf("two nodes are named %s", names[i])
		}
		named[names[i]] = true
	}
	if len(seen) != 193 || slices.Max(slices.Collect(countsOf(seen))) != 3 {
		t.Errorf("%d nations", len(seen))
	}
	delay := between([]string{"FRA", "DEU", "NZL", "FRA", "YUG", "YUG", nowhere, nowhere})
	for _, c := range []struct {
		from, to    int
		least, most time.Duration
	}{
		{0, 1, 4 * time.Millisecond, 9 * time.Millisecond},     // some 800 km
		{0, 2, 130 * time.Millisecond, 150 * time.Millisecond}, // nearly the antipodes
		{0, 3, 0, 0}, // the same nation
		{0, 4, 75 * time.Millisecond, 75100 * time.Microsecond}, // one without a place
		{4, 5, 0, 0}, // the same one without a place
		{6, 7, 75 * time.Millisecond, 75100 * time.Microsecond}, // two of which nothing is known
	} {
		if d := delay(c.from, c.to); d < c.least || d > c.most || d != delay(c.to, c.from) {
			t.Errorf("from %d to %d it takes %v, want %v to %v", c.from, c.to, d, c.least, c.most)
		}
	}
}

func countsOf(m map[string]int) func(func(int) bool) {
	return func(yield func(int) bool) {
		for _, n := range m {
			if !yield(n) {
				return
			}
		}
	}
}

// A model learns what can be learnt: all but one row of six.
func TestSyntheticIsLearnable(t *testing.T) {
	table, d := generate(5000, 4, 1)
	again, _ := generate(5000, 4, 1)
	if !reflect.DeepEqual(table, again) {
		t.Error("one seed generates two tables")
	}
	yes, tests := 0, 0
	for i, row := range table.Rows {
		if len(row) != 6 || slices.Contains(row, "") {
			t.Fatalf("row %d is %q", i, row)
		}
		if row[4] == "yes" {
			yes++
		}
		if row[5] == "test" {
			tests++
		}
	}
	if yes < 2200 || yes > 2800 || tests != 1000 {
		t.Errorf("%d of 5000 rows are yes, %d for tests", yes, tests)
	}
	cleaned, err := dataset.Clean(table, d.Options)
	if err != nil || cleaned.Rows.Rows() != 5000 {
		t.Errorf("%d rows are left, %v", cleaned.Rows.Rows(), err)
	}
	s := New()
	s.Data, s.Rounds = "synthetic:5000x4", 30
	r, err := sim.Run(t.Context(), config(t, s, dataset.Table{}, Defaults{}))
	if err != nil || r.Results.AllRows.Federated.Accuracy == nil {
		t.Fatal(err)
	}
	if a := *r.Results.AllRows.Federated.Accuracy; a < 0.8 || a > 0.87 {
		t.Errorf("the accuracy is %.3f", a)
	}
}
