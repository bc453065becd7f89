package demo

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	logFile = "daemon.log" // in a home: what its daemon says
	grace   = 5 * time.Second
)

// daemon is a child process that runs a home.
type daemon struct {
	log   string
	cmd   *exec.Cmd
	ready chan struct{} // closed once it serves
	ended chan struct{} // closed once it is gone
	err   error         // why it ended unasked; to be read after ended
	shot  atomic.Bool   // by kill
}

// start runs the daemon of a home until ctx ends. One that ends before then
// calls lost.
func start(ctx context.Context, program, name, dir string, lost func(error)) (*daemon, error) {
	d := &daemon{log: filepath.Join(dir, logFile), ready: make(chan struct{}), ended: make(chan struct{})}
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	d.cmd = exec.CommandContext(ctx, program, "daemon", "--home", dir)
	d.cmd.Stderr = log
	d.cmd.SysProcAttr = attributes()
	d.cmd.Cancel = func() error { return d.cmd.Process.Signal(syscall.SIGTERM) }
	d.cmd.WaitDelay = grace
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		log.Close()
		return nil, err
	}
	started := make(chan error)
	go func() {
		defer close(d.ended)
		defer log.Close()
		// The kernel ends a child when the thread that started it ends; see
		// attributes. So this thread stays for as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := d.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		if line, _ := bufio.NewReader(out).ReadString('\n'); strings.HasPrefix(line, "ready ") {
			close(d.ready)
		}
		d.cmd.Wait()
		if state := d.cmd.ProcessState; !d.shot.Load() && (ctx.Err() == nil || !state.Success()) {
			d.err = fmt.Errorf("the daemon of %s ended (%v)%s", name, state, d.tail())
			lost(d.err)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("cannot start the daemon of %s: %w", name, err)
	}
	return d, nil
}

// kill ends the daemon as a failure of power would, and waits until it is gone.
func (d *daemon) kill() error {
	d.shot.Store(true)
	err := d.cmd.Process.Kill()
	<-d.ended
	return err
}

// tail is the end of what the daemon has said.
func (d *daemon) tail() string {
	f, err := os.Open(d.log)
	if err != nil {
		return ""
	}
	defer f.Close()
	const size = 1000
	if info, err := f.Stat(); err == nil && info.Size() > size {
		f.Seek(-size, io.SeekEnd)
	}
	b, err := io.ReadAll(io.LimitReader(f, size))
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if err != nil || lines[0] == "" {
		return ""
	}
	return "; its last words: " + strings.Join(lines[max(0, len(lines)-4):], " | ")
}

// stop waits until all daemons, whose context has ended, are gone, and returns
// why one of them had ended before.
func stop(all []*hospital) (err error) {
	for _, h := range all {
		if h.daemon != nil {
			<-h.daemon.ended
			if err == nil {
				err = h.daemon.err
			}
		}
	}
	return err
}
