// Package study runs scenarios one after another, keeps what has come to its end
// when it is interrupted, and says what it came to.
package study

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"village/protocol/dataset"
	"village/protocol/figure"
	"village/protocol/task"
	"village/sim"
	"village/sim/chart"
	"village/sim/scenario"
)

// samples is how many rounds of a run the curves show.
const samples = 60

// Study is what is to be run, and how.
type Study struct {
	// Run is [sim.Run], or does the same with real nodes.
	Run  func(context.Context, sim.Config) (sim.Result, error)
	Real bool // Run runs real nodes, so that no two runs are the same
	// Progress, if set, is told how many of how many updates are published.
	Progress func(done, of int)

	scenarios []scenario.Scenario
	labels    []string // of each
	open      Open
	updates   []int // of each scenario
}

// Open reads data; see [scenario.Scenario.Config].
type Open func(data string, columns []string) (dataset.Table, scenario.Defaults, error)

// New returns a study of scenarios, or says why one of them cannot be. Check may
// refuse more runs; it may be nil.
func New(scenarios []scenario.Scenario, open Open, check func(sim.Config) error) (*Study, error) {
	s := &Study{Run: sim.Run, scenarios: scenarios, open: open, labels: labels(scenarios)}
	for i, c := range scenarios {
		cfg, err := c.Config(open)
		if err == nil && check != nil {
			err = check(cfg)
		}
		if err != nil {
			if len(scenarios) > 1 {
				err = fmt.Errorf("%s: %w", s.title(i), err)
			}
			return nil, err
		}
		s.updates = append(s.updates, len(cfg.Nodes)*int(cfg.Task.Rounds))
	}
	return s, nil
}

// ErrUnfinished says that not all runs of a study came to their end.
var ErrUnfinished = errors.New("not every run came to its end")

// Result is what a study came to: the answer of village sim run. Where there was
// one run, its fields stand at the top as well.
type Result struct {
	Schema string `json:"schema"`
	*Run
	Runs     []Run           `json:"runs"`
	Settings []chart.Summary `json:"settings"`
	Missing  []string        `json:"missing"` // runs that did not come to their end, and why
	Out      string          `json:"out"`     // directory with plots and tables, or ""

	charts []chart.Run
}

// Run is what one run came to.
type Run struct {
	Label          string        `json:"label"`
	Nodes          int           `json:"nodes"`
	Rounds         uint64        `json:"rounds"`
	Seed           uint64        `json:"seed"`
	AllRows        task.Pair     `json:"all_rows"`
	Mean           task.MeanPair `json:"mean_of_nodes"`
	Worst          task.MeanPair `json:"worst_node"`
	Disagreement   float64       `json:"disagreement"`
	Messages       uint64        `json:"messages"`
	BytesSent      uint64        `json:"bytes_sent"`
	VirtualSeconds float64       `json:"virtual_seconds"`
	WallSeconds    float64       `json:"wall_seconds"`
	CPUSeconds     float64       `json:"cpu_seconds"`
	PeakRSSBytes   uint64        `json:"peak_rss_bytes"` // of the whole process so far
	Digest         string        `json:"digest"`         // SHA-256 over all final parameters and counters

	Results task.Results `json:"-"`
}

// Do runs the scenarios. On an error, [ErrUnfinished] among them, the result
// holds the runs that came to their end, and names the others.
func (s *Study) Do(ctx context.Context) (Result, error) {
	// A run makes much garbage beside little that stays.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	r := Result{Runs: []Run{}, Missing: []string{}}
	total, done := 0, 0
	for _, n := range s.updates {
		total += n
	}
	for i := range s.scenarios {
		err := ctx.Err()
		if err == nil {
			err = s.run(ctx, &r, i, func(n uint64) {
				if s.Progress != nil {
					s.Progress(done+int(n), total)
				}
			})
		}
		switch {
		case ctx.Err() != nil && err != nil:
			r.Missing = append(r.Missing, s.title(i)+": interrupted")
		case err != nil:
			r.Missing = append(r.Missing, s.title(i)+": "+err.Error())
		}
		done += s.updates[i]
	}
	if len(r.Runs) == 1 && len(s.scenarios) == 1 {
		r.Run = &r.Runs[0]
	}
	r.Settings = chart.Summarise(r.charts)
	switch {
	case len(r.Missing) == 0:
		return r, nil
	case ctx.Err() != nil:
		return r, ctx.Err()
	}
	return r, fmt.Errorf("%w: %s", ErrUnfinished, strings.Join(r.Missing, "; "))
}

// title names a run among the others.
func (s *Study) title(i int) string {
	return fmt.Sprintf("%s, seed %d", s.labels[i], s.scenarios[i].Seed)
}

// labels name the settings by what tells them apart: the scenario only where it
// is not the same for all.
func labels(all []scenario.Scenario) (list []string) {
	for _, c := range all {
		label := strings.TrimSpace(c.Name + " " + c.Label)
		if c.Label != "" && !slices.ContainsFunc(all, func(o scenario.Scenario) bool { return o.Name != c.Name }) {
			label = c.Label
		}
		if label == "" {
			label = filepath.Base(c.Data)
		}
		list = append(list, label)
	}
	return list
}

func (s *Study) run(ctx context.Context, r *Result, i int, progress func(uint64)) error {
	c, label := s.scenarios[i], s.labels[i]
	cfg, err := c.Config(s.open)
	if err != nil {
		return err
	}
	cfg.Samples, cfg.Progress = samples, progress
	text, err := c.Encode()
	if err != nil {
		return err
	}
	nodes := len(cfg.Nodes) // the rows are let go while it runs
	start, cpu := time.Now(), cpuTime()
	res, err := s.Run(ctx, cfg)
	if err != nil {
		return err
	}
	if !res.Done {
		return fmt.Errorf("it did not come to its end in %v of virtual time", res.Virtual.Round(time.Second))
	}
	r.charts = append(r.charts, chart.Run{Label: label, Seed: c.Seed, Scenario: string(text), Real: s.Real, Result: res})
	r.Runs = append(r.Runs, Run{
		Label: label, Nodes: nodes, Rounds: res.Results.Rounds, Seed: c.Seed,
		AllRows: res.Results.AllRows, Mean: res.Results.Mean, Worst: res.Results.Worst,
		Disagreement: res.Disagreement, Messages: res.Messages, BytesSent: res.Bytes,
		VirtualSeconds: res.Virtual.Seconds(), WallSeconds: time.Since(start).Seconds(),
		CPUSeconds: (cpuTime() - cpu).Seconds(), PeakRSSBytes: peakRSS(),
		Digest: hex.EncodeToString(res.Digest[:]), Results: res.Results,
	})
	return nil
}

// Write puts the tables, the plots and the page into a directory.
func (r *Result) Write(dir, title string) error {
	var notes []string
	for _, m := range r.Missing {
		notes = append(notes, "Missing: "+m+".")
	}
	if err := chart.Write(dir, title, r.charts, notes); err != nil {
		return err
	}
	r.Out = dir
	return nil
}

// Facts are what a person wants to know of the only run, a name and a value each.
func (r Result) Facts() [][]string {
	one := r.Run
	nodes, clock := strconv.Itoa(one.Nodes), "virtual time"
	if r.charts[0].Real {
		nodes, clock = nodes+" real ones", "training" // by the clock on the wall
	}
	return [][]string{
		{"scenario", one.Label},
		{"nodes", nodes},
		{"rounds", strconv.FormatUint(one.Rounds, 10)},
		{"seed", strconv.FormatUint(one.Seed, 10)},
		{clock, fmt.Sprintf("%.1f s", one.VirtualSeconds)},
		{"real time", fmt.Sprintf("%.2f s, %.2f s of all cores, at most %s of memory", one.WallSeconds, one.CPUSeconds, figure.Bytes(one.PeakRSSBytes))},
		{"sent", fmt.Sprintf("%d messages, %s", one.Messages, figure.Bytes(one.BytesSent))},
		{"disagreement", figure.Power(one.Disagreement)},
		{"digest", one.Digest},
	}
}

// Table is rows of cells under a head.
type Table struct {
	Caption string
	Rows    [][]string
}

// Tables set the settings beside one another, means and standard deviations over
// the seeds: what they reach, those that predict classes apart from those that
// predict numbers, and what it takes. The last columns matter least.
func (r Result) Tables() (tables []Table) {
	least, most := math.MaxInt, 0
	for _, s := range r.Settings {
		least, most = min(least, s.Runs), max(most, s.Runs)
	}
	of := ""
	switch {
	case most > least:
		of = fmt.Sprintf("; mean ± standard deviation of %d to %d runs", least, most)
	case most > 1:
		of = fmt.Sprintf("; mean ± standard deviation of %d runs", most)
	}
	for _, k := range []figure.Kind{figure.OfClasses, figure.OfNumbers} {
		rows := [][]string{{"SETTING", "LOCAL ONLY", "FEDERATED", "OWN PART", "WORST NODE", k.Second.Name}}
		for _, s := range r.Settings {
			if s.Numeric() != k.Numeric() {
				continue
			}
			row := []string{s.Label}
			for _, m := range []chart.MetricStats{s.AllRows.Local, s.AllRows.Federated, s.AllRows.Personal, s.Worst.Federated} {
				lead := m.Of(k.Lead)
				row = append(row, lead.Format(k.Lead.Beside(lead.Mean)))
			}
			rows = append(rows, append(row, s.AllRows.Federated.Of(k.Second).Format(k.Second.Format)))
		}
		if len(rows) > 1 {
			tables = append(tables, Table{k.Lead.Name + " on all test rows, and at the worst node federated" + of, rows})
		}
	}
	taken := [][]string{{"SETTING", "DISAGREEMENT", "MESSAGES", "SENT", "VIRTUAL TIME"}}
	for _, s := range r.Settings {
		taken = append(taken, []string{
			s.Label, s.Disagreement.Format(figure.Power),
			s.Messages.Format(func(x float64) string { return fmt.Sprintf("%.0f", x) }), s.Bytes.Bytes(), s.VirtualSeconds.Seconds(),
		})
	}
	return append(tables, Table{"how far the nodes are apart in the end, and what all of them sent", taken})
}
