// Package chart makes of finished simulator runs what a paper needs: tables as
// CSV, plots as SVG and PNG, and one page that holds it all.
package chart

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"village/sim"
)

// Run is one finished run.
type Run struct {
	// Label names the setting, for example by the keys that are varied. All
	// seeds of one setting have the same.
	Label string
	Seed  uint64
	// Scenario is what was run, in TOML. Of a setting the first run's is written,
	// and --seed makes the others of it.
	Scenario string
	Real     bool // with real nodes, which are not the same twice
	Result   sim.Result
}

// Write puts into a directory, which it makes where there is none:
//
//	report.html                       everything below on one page
//	rounds.csv, nodes.csv, summary.csv
//	scenario.toml, or scenario-N.toml where there are several settings
//	accuracy-rounds, auc-rounds, accuracy-bytes, accuracy-time,
//	disagreement-rounds, gain-nodes, roc, calibration
//	                                  each as .svg and .png, where the runs
//	                                  have something to show
//	rmse-rounds, r2-rounds, rmse-bytes, rmse-time, rmse-gain-nodes
//	                                  the same of numeric targets
//
// Each file is complete or absent, whatever happens meanwhile, and equal runs
// make equal bytes. Notes say what a reader must know, such as which runs are
// missing. The error is that of the file system, or that there is no run.
func Write(dir, title string, runs []Run, notes []string) error {
	if len(runs) == 0 {
		return errors.New("there is no finished run to write about")
	}
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return fmt.Errorf("%s is not a directory; name another one for the results", dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	all := settingsOf(runs)
	if err := writeTables(dir, all); err != nil {
		return err
	}
	for i, s := range all {
		err := writeFile(dir, scenarioFile(i, len(all)), func(w io.Writer) error {
			_, err := io.WriteString(w, s.runs[0].Scenario)
			return err
		})
		if err != nil {
			return err
		}
	}
	figures, err := writeFigures(dir, all)
	if err != nil {
		return err
	}
	return writeFile(dir, "report.html", func(w io.Writer) error {
		return writeReport(w, title, all, figures, notes)
	})
}

// writeFigures draws what the runs have to show, and takes away what an earlier
// call has left of the others, which would pass for these runs'.
func writeFigures(dir string, all []setting) ([]drawing, error) {
	var drawn []drawing
	for _, f := range plots(all) {
		svg, png := f.name+".svg", f.name+".png"
		if f.plot == nil {
			for _, name := range []string{svg, png} {
				if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return nil, err
				}
			}
			continue
		}
		d := drawing{chart: f, svg: f.drawSVG()}
		err := writeFile(dir, svg, func(w io.Writer) error {
			_, err := io.WriteString(w, d.svg)
			return err
		})
		if err != nil {
			return nil, err
		}
		if err := writeFile(dir, png, f.drawPNG); err != nil {
			return nil, err
		}
		drawn = append(drawn, d)
	}
	return drawn, nil
}

func scenarioFile(i, n int) string {
	if n == 1 {
		return "scenario.toml"
	}
	return fmt.Sprintf("scenario-%d.toml", i+1)
}

// writeFile makes a file appear at once and complete.
func writeFile(dir, name string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(dir, "."+name+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	b := bufio.NewWriter(f)
	if err := write(b); err != nil {
		return err
	}
	if err := b.Flush(); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), filepath.Join(dir, name))
}

// plain is text from elsewhere on one line: what would break the line, steer a
// terminal, turn the direction of writing or be no XML becomes U+FFFD.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || strings.ContainsRune("\u2028\u2029\ufffe\uffff", r) {
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(s, string(unicode.ReplacementChar)))
}

// plainLines is the same for text of several lines.
func plainLines(s string) string {
	lines := strings.Split(strings.ReplaceAll(s, "\t", "    "), "\n")
	for i, l := range lines {
		lines[i] = plain(strings.TrimSuffix(l, "\r"))
	}
	return strings.Join(lines, "\n")
}
