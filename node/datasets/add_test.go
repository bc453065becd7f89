package datasets

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"village/node/api"
	"village/protocol/dataset"
)

// Whoever asks may give up at any time, and then nothing was added.
func TestAddIsGivenUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rows.csv")
	if err := os.WriteFile(path, []byte("x,y\n"+strings.Repeat("1,a\n2,b\n", 50_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	d := alone(t)
	add := func(during string) (before api.Progress, err error) {
		ctx, giveUp := context.WithCancel(t.Context())
		defer giveUp()
		_, err = d.addFile(ctx, api.AddDataset{Path: path, Options: dataset.Options{Name: "rows", Target: "y"}}, func(p api.Progress) {
			if p.Share < before.Share && p.Doing == before.Doing || p.Share > 1 {
				t.Errorf("%+v after %+v", p, before)
			}
			if d.Adding() != p {
				t.Errorf("%+v is shown, not %+v", d.Adding(), p)
			}
			if before = p; p.Doing == during {
				giveUp()
			}
		})
		return before, err
	}
	for _, during := range []string{"reading", "cleaning", "storing"} {
		if last, err := add(during); err == nil || !strings.Contains(err.Error(), "canceled") || last.Doing != during {
			t.Errorf("given up while %s, after %+v: %v", during, last, err)
		}
		if held := d.List(); len(held) > 0 || d.Adding() != (api.Progress{}) {
			t.Errorf("given up while %s: %v, %+v", during, held, d.Adding())
		}
	}
	if _, err := add("never"); err != nil || len(d.List()) != 1 {
		t.Error(err)
	}
}

// pictures writes a CSV file of rows of 784 cells and a label: grey levels, most of
// them 0, or else numbers that hardly repeat.
func pictures(b *testing.B, rows int, levels bool) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "pictures.csv")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	w, draw := bufio.NewWriter(f), rand.New(rand.NewPCG(1, 2))
	fmt.Fprint(w, "label")
	for j := range 784 {
		fmt.Fprintf(w, ",pixel%d", j)
	}
	for range rows {
		fmt.Fprintf(w, "\n%d", draw.IntN(10))
		for range 784 {
			switch {
			case !levels:
				fmt.Fprintf(w, ",%.6g", draw.NormFloat64())
			case draw.IntN(5) > 0:
				w.WriteString(",0")
			default:
				fmt.Fprintf(w, ",%d", draw.IntN(256))
			}
		}
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	return path
}

// peak is the most memory that the process has had since the last call, in bytes, 0
// where the system does not tell.
func peak() (bytes float64) {
	status, _ := os.ReadFile("/proc/self/status")
	_, hwm, _ := strings.Cut(string(status), "VmHWM:")
	fmt.Sscan(hwm, &bytes)
	os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
	return bytes * 1024
}

// What it takes to add 60,000 rows of 784 cells, beside the same as numbers of eight
// bytes: Peak is all memory of the process.
func BenchmarkAdd(b *testing.B) {
	const rows = 60_000
	for _, levels := range []bool{true, false} {
		b.Run(map[bool]string{true: "levels", false: "numbers"}[levels], func(b *testing.B) {
			path := pictures(b, rows, levels)
			d := alone(b)
			most := 0.0
			for b.Loop() {
				peak()
				if _, err := d.AddFile(b.Context(), api.AddDataset{Path: path, Options: dataset.Options{Name: "pictures", Target: "label"}}); err != nil {
					b.Fatal(err)
				}
				most = max(most, peak())
			}
			b.ReportMetric(most/(1<<20), "peak-MiB")
			b.ReportMetric(most/(8*784*rows), "peak/encoded")
		})
	}
}
