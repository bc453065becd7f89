package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"village/node/api"
	"village/protocol/record"
)

// smallDisk mounts a file system of so many MiB and returns its directory. It
// takes the right to mount.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", size)); err != nil {
		t.Skipf("SKIPPED: a full disk is not tested, for this user may not mount a tmpfs: %v; run the test as root", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill writes a file until so many bytes of its file system are free.
func fill(t *testing.T, path string, left uint64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var stat syscall.Statfs_t
	if err := syscall.Statfs(path, &stat); err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 64<<10)
	for free := stat.Bavail * uint64(stat.Bsize); free > left; free -= min(free, uint64(len(block))) {
		if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// readings writes a CSV file of about so many MiB of numbers.
func readings(t *testing.T, seed uint64, size int) string {
	t.Helper()
	const columns = 40
	r := rand.New(rand.NewPCG(seed, 2))
	var b strings.Builder
	for i := range columns {
		fmt.Fprintf(&b, "reading %d,", i)
	}
	b.WriteString("sick\n")
	for b.Len() < size<<20 {
		for range columns {
			fmt.Fprintf(&b, "%.17g,", r.Float64())
		}
		b.WriteString([]string{"no\n", "yes\n"}[r.IntN(2)])
	}
	return file(t, b.String())
}

// TestFullDisk: before the disk is full, the daemon takes nothing more in and
// says why; it goes on to answer, does not die, starts again, and takes data in
// again once there is room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	const mib, size = 1 << 20, 128
	disk := smallDisk(t, size)
	s := newSite(t, disk, federationOf(t), "budapest")
	s.start()
	rows := patients(t, 1, 60)
	kept := []string{s.add("first", rows, "--target", "sick")}
	id := s.propose([]*site{s}, "--target", "sick", "--rounds", "5")
	s.join(id)
	cid := model(t, id, s)
	later := s.propose([]*site{s}, "--target", "sick", "--rounds", "500")

	large := readings(t, 1, 8)
	refused := func(args ...string) {
		t.Helper()
		e := s.refused(1, []string{"disk is full", "free some space"}, args...)
		if !strings.Contains(e.Next, "village status") {
			t.Errorf("next: %s", e.Next)
		}
	}
	for n := 0; ; n++ {
		if n == 40 {
			t.Fatalf("40 datasets of 8 MiB fit on a disk of %d MiB", size)
		}
		name := fmt.Sprint("large ", n)
		a := s.run("dataset", "add", large, "--name", name, "--target", "sick")
		if a.code != 0 {
			refused("dataset", "add", large, "--name", name, "--target", "sick")
			break
		}
		kept = append(kept, strings.TrimSpace(a.stdout))
	}
	v := s.status()
	t.Logf("%d datasets are kept; %d of %d MiB were free when the next one was refused", len(kept), v.FreeBytes/mib, size)
	if v.FreeBytes < 48*mib || v.FreeBytes > 96*mib {
		t.Errorf("%d MiB are free", v.FreeBytes/mib)
	}
	serves := func() {
		t.Helper()
		s.sees(kept...)
		var d api.ShownDataset
		s.json(&d, "dataset", "show", kept[0])
		var p api.Predictions
		s.json(&p, "model", "predict", cid, "--in", rows)
		if d.Rows != 60 || len(p.Predictions) != 60 {
			t.Errorf("%d rows, %d predictions", d.Rows, len(p.Predictions))
		}
	}
	serves()

	// Killed and restarted, it is the same.
	s.kill()
	s.start()
	serves()
	refused("dataset", "add", large, "--name", "large", "--target", "sick")

	// Somebody else takes the rest of the disk, to the last byte.
	other := filepath.Join(disk, "other")
	for _, left := range []uint64{32 * mib, 0} {
		fill(t, other, left)
		refused("dataset", "add", rows, "--name", "small", "--target", "sick")
		refused("task", "propose", "--name", "x", "--target", "sick", "--nodes", s.id)
		if last := s.status().LastError; !strings.Contains(last, "disk is full") {
			t.Errorf("last error: %s", last)
		}
		serves()
	}
	s.refused(1, []string{"disk is full", "free some space", "tried again"}, "task", "join", later, "--dataset", kept[0])
	if code := s.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	s.refused(1, []string{"disk is full", "free some space"}, "daemon")

	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	s.start()
	serves()
	fill(t, other, 0)
	s.kill()
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	s.start()
	kept = append(kept, s.add("small", rows, "--target", "sick"))
	serves()

	// The disk fills up in the middle of a task, which then waits for room.
	s.ok("task", "join", later, "--dataset", kept[0])
	s.round(later, 5)
	fill(t, other, size/4*mib)
	eventually(t, "the status says why the task does not move", func() bool {
		return strings.Contains(s.status().LastError, "disk is full")
	})
	serves()
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	model(t, later, s)
	if v, err := api.ShowTask.Ask(context.Background(), s.client(), cidOf(t, id)); err != nil || v.ModelCID.String() != cid {
		t.Errorf("the task has model %s, %v", v.ModelCID, err)
	}
}

// TestReadOnlyDisk: a disk that becomes read-only under a daemon that has nothing to
// write is named by its status.
func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	s := newSite(t, t.TempDir(), federationOf(t), "budapest")
	s.start()
	if last := s.status().LastError; last != "" {
		t.Errorf("last error: %s", last)
	}
	store := filepath.Join(s.home, "store")
	if err := syscall.Mount("tmpfs", store, "tmpfs", syscall.MS_RDONLY, "size=1g"); err != nil {
		t.Skipf("SKIPPED: a read-only disk is not tested, for this user may not mount a tmpfs: %v; run the test as root", err)
	}
	last := s.status().LastError
	if err := syscall.Unmount(store, syscall.MNT_DETACH); err != nil {
		t.Error(err)
	}
	if !strings.Contains(last, "read-only file system") || !strings.Contains(last, store) {
		t.Errorf("last error: %s", last)
	}
	if last := s.status().LastError; last != "" {
		t.Errorf("last error: %s", last)
	}
}

func cidOf(t *testing.T, s string) record.CID {
	t.Helper()
	cid, err := record.ParseCID(s)
	if err != nil {
		t.Fatal(err)
	}
	return cid
}
