package portable

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Independent readers of what this package and safetensors write.
const (
	onnxruntime = "onnxruntime-node@1.30.0" // npm; the runtime for Linux, macOS and Windows is in the package
	safetensors = "safetensors==0.8.0"      // PyPI; the reference implementation
)

// installed returns a directory in which install has put a package once, below
// the user's cache directory. Where that cannot be, the test is skipped.
func installed(t *testing.T, name string, install func(dir string) *exec.Cmd) string {
	t.Helper()
	if testing.Short() {
		t.Skip("an independent reader is installed and run; not with -short")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skipf("there is no cache directory for %s: %v", name, err)
	}
	dir := filepath.Join(cache, "village-onnx", name)
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Skipf("no place for %s: %v", name, err)
	}
	// What is half installed never has the name.
	part, err := os.MkdirTemp(filepath.Dir(dir), "part-")
	if err != nil {
		t.Skipf("no place for %s: %v", name, err)
	}
	defer os.RemoveAll(part)
	if out, err := install(part).CombinedOutput(); err != nil {
		t.Skipf("%s cannot be installed: %v\n%.1000s", name, err, out)
	}
	if err := os.Rename(part, dir); err != nil {
		if _, there := os.Stat(dir); there != nil {
			t.Skipf("%s cannot be kept: %v", name, err)
		}
	}
	return dir
}

// command is one of a program that need not be there; it ends with the test at
// the latest.
func command(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not there", name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	return exec.CommandContext(ctx, path, args...)
}

// output runs a command, and skips where it says by its exit code 3 that it
// cannot be run here.
func output(t *testing.T, cmd *exec.Cmd) []byte {
	t.Helper()
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %.2000s", err, exit.Stderr)
		if exit.ExitCode() == 3 {
			t.Skip(err)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}
