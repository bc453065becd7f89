package datasets

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"village/node/api"
	"village/protocol/dataset"
	"village/protocol/record"
)

// TestReplacedVersionsLeaveTheDisk: of twelve versions of a dataset one is kept, and
// one more that a task has read.
func TestReplacedVersionsLeaveTheDisk(t *testing.T) {
	d := alone(t)
	path := filepath.Join(t.TempDir(), "rows.csv")
	add := func(version uint64) record.CID {
		t.Helper()
		var b strings.Builder
		b.WriteString("x,y\n")
		draw := rand.New(rand.NewPCG(version, 1))
		for range 100_000 {
			fmt.Fprintf(&b, "%.9g,%d\n", draw.NormFloat64(), draw.IntN(2))
		}
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		added, err := d.AddFile(t.Context(), api.AddDataset{Path: path, Options: dataset.Options{Name: "rows", Target: "y"}})
		if err != nil {
			t.Fatal(err)
		}
		return added.CID
	}
	add(0)
	one := d.book.Store.Bytes()
	var all []record.CID
	for version := range uint64(11) {
		all = append(all, add(version+1))
		if version == 3 {
			if _, _, err := d.Table(all[3]); err != nil {
				t.Fatal(err)
			}
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	shrunk := make(chan struct{})
	go func() { d.Shrink(ctx); close(shrunk) }()
	for len(d.dropped) > 0 { // until it is at it
		runtime.Gosched()
	}
	stop()
	<-shrunk
	if got := d.book.Store.Bytes(); got > 2*one+one/2 {
		t.Errorf("%d bytes with one version, %d with twelve, of which two are kept", one, got)
	}
	for i, cid := range all {
		_, _, err := d.Table(cid)
		if kept := i == 3 || i == 10; (err == nil) != kept {
			t.Errorf("version %d: %v", i+2, err)
		}
	}
}
