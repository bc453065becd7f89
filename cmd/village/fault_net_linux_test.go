package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"village/node/api"
	"village/node/home"
)

// TestNoInterface: a daemon on a machine without a network says so.
func TestNoInterface(t *testing.T) {
	s := newSite(t, t.TempDir(), federationOf(t), "budapest")
	config := filepath.Join(s.home, home.ConfigFile)
	b, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	b = regexp.MustCompile(`(?m)^listen = .*$`).ReplaceAll(b, []byte(`listen = ["/ip4/0.0.0.0/tcp/0"]`))
	if err := os.WriteFile(config, b, 0o600); err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command("village", "daemon", "--home", s.home)
	daemon.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}},
	}
	out, err := daemon.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Skipf("SKIPPED: a machine without a network is not tested, for this user may not make one: %v", err)
	}
	if daemon.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "error: no network interface") || strings.Contains(string(out), "panic") {
		t.Errorf("exit code %d\n%s", daemon.ProcessState.ExitCode(), out)
	}
}

// lab is a network of its own: a bridge, and for each of its sites a network
// namespace behind it, in which the site's daemon has the address 10.77.0.1 and
// so on. Nothing of it is seen from outside.
type lab struct {
	t     *testing.T
	names []string // of the sites' namespaces
}

var labs atomic.Uint32

// newLab makes the network. It takes the programs ip and nft, and the right to
// use them.
func newLab(t *testing.T, sites int) *lab {
	t.Helper()
	for _, program := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIPPED: packet loss and partitions between real daemons are not tested, for the program %s is missing; install iproute2 and nftables", program)
		}
	}
	sweepLabs()
	prefix := fmt.Sprintf("village-%d-%d", os.Getpid(), labs.Add(1))
	bridge := prefix + "-bridge"
	l := &lab{t: t}
	made := func(name string) error {
		out, err := exec.Command("ip", "netns", "add", name).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip netns add: %w: %s", err, out)
		}
		t.Cleanup(func() { l.ip("netns", "del", name) })
		return nil
	}
	err := made(bridge)
	if err == nil {
		// What the rules below need of the kernel.
		var out []byte
		out, err = exec.Command("ip", "netns", "exec", bridge, "nft",
			"add table inet probe; add chain inet probe c; add rule inet probe c numgen random mod 100 < 30 drop").CombinedOutput()
		if err != nil {
			err = fmt.Errorf("nft: %w: %s", err, out)
		}
	}
	if err != nil {
		t.Skipf("SKIPPED: packet loss and partitions between real daemons are not tested, for this machine has no network namespaces with nftables for this user: %v; run the test as root", err)
	}
	l.ip("-n", bridge, "link", "add", "br0", "type", "bridge")
	l.ip("-n", bridge, "link", "set", "br0", "up")
	for i := range sites {
		name := fmt.Sprint(prefix, "-", i)
		if err := made(name); err != nil {
			t.Fatal(err)
		}
		l.names = append(l.names, name)
		port := fmt.Sprint("port", i)
		l.ip("-n", bridge, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
		l.ip("-n", bridge, "link", "set", port, "master", "br0", "up")
		l.ip("-n", name, "address", "add", l.address(i)+"/24", "dev", "eth0")
		l.ip("-n", name, "link", "set", "eth0", "up")
		l.ip("-n", name, "link", "set", "lo", "up")
		l.nft(i, "add table inet faults; "+
			"add chain inet faults loss { type filter hook input priority 0; }; "+
			"add chain inet faults in { type filter hook input priority 1; }; "+
			"add chain inet faults out { type filter hook output priority 1; }")
	}
	return l
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// sweepLabs removes the namespaces of tests that were killed.
func sweepLabs() {
	names, _ := filepath.Glob("/run/netns/village-*")
	for _, path := range names {
		name := filepath.Base(path)
		if pid := strings.Split(name, "-")[1]; !exists("/proc/" + pid) {
			_ = exec.Command("ip", "netns", "del", name).Run()
		}
	}
}

func (l *lab) ip(args ...string) {
	l.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		l.t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (l *lab) nft(i int, rules string) string {
	l.t.Helper()
	out, err := exec.Command("ip", "netns", "exec", l.names[i], "nft", rules).CombinedOutput()
	if err != nil {
		l.t.Fatalf("nft %s: %v\n%s", rules, err, out)
	}
	return string(out)
}

func (l *lab) address(i int) string { return fmt.Sprint("10.77.0.", i+1) }

// lose drops so many of 100 packets that come to a site.
func (l *lab) lose(i, percent int) {
	l.t.Helper()
	l.nft(i, fmt.Sprintf("flush chain inet faults loss; add rule inet faults loss iifname eth0 numgen random mod 100 < %d counter drop", percent))
}

// isolate drops all packets from and to a site.
func (l *lab) isolate(i int) {
	l.t.Helper()
	l.nft(i, "add rule inet faults in iifname eth0 counter drop; add rule inet faults out oifname eth0 counter drop")
}

// heal ends what isolate did.
func (l *lab) heal(i int) {
	l.t.Helper()
	l.nft(i, "flush chain inet faults in; flush chain inet faults out")
}

// start makes a site in a namespace and starts its daemon.
func (l *lab) start(i int, name string) *site {
	l.t.Helper()
	s := newSite(l.t, l.t.TempDir(), federationOf(l.t), name)
	config := filepath.Join(s.home, "config.toml")
	b, err := os.ReadFile(config)
	if err != nil {
		l.t.Fatal(err)
	}
	text := strings.Replace(string(b), "/ip4/127.0.0.1/", "/ip4/"+l.address(i)+"/", 1)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
	l.within(i, s.start)
	if !strings.HasPrefix(s.address, "/ip4/"+l.address(i)+"/") {
		l.t.Fatalf("%s listens at %s", s.home, s.address)
	}
	return s
}

// within runs f, whose processes come to be in a site's namespace: a process
// has that of the thread that starts it.
func (l *lab) within(i int, f func()) {
	l.t.Helper()
	open := func(path string) *os.File {
		ns, err := os.Open(path)
		if err != nil {
			l.t.Fatal(err)
		}
		return ns
	}
	enter := func(ns *os.File) {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			l.t.Fatal(err)
		}
	}
	runtime.LockOSThread() // the thread ends with its goroutine unless it is unlocked
	own, other := open("/proc/thread-self/ns/net"), open(filepath.Join("/run/netns", l.names[i]))
	defer own.Close()
	defer other.Close()
	enter(other)
	f()
	enter(own)
	runtime.UnlockOSThread()
}

// TestLossAndPartition: three daemons of which each loses three of ten packets
// that come to it train one model, while one of them is cut off for some
// seconds.
func TestLossAndPartition(t *testing.T) {
	t.Parallel()
	l := newLab(t, 3)
	var s []*site
	for i, name := range []string{"budapest", "zurich", "cleveland"} {
		s = append(s, l.start(i, name))
	}
	connect(s...)
	var datasets []string
	for i, site := range s {
		datasets = append(datasets, site.add("ward", patients(t, uint64(i), 60+30*i), "--target", "sick"))
		l.lose(i, 30)
	}
	begun := time.Now()
	s[0].sees(datasets...)
	id := s[0].propose(s, "--target", "sick", "--rounds", "20")
	for _, site := range s {
		site.join(id)
	}
	s[2].round(id, 2)

	l.isolate(2)
	cut := time.Now()
	before := s[2].shows(id).Round
	s[0].round(id, before+3)
	s[1].round(id, before+3)
	t.Logf("the other two went on from round %d within %v", before, time.Since(cut).Round(time.Millisecond))
	for _, n := range s[2].shows(id).Nodes {
		if n.PeerID.String() != s[2].id && n.Round >= before+3 {
			t.Errorf("the node that is cut off has round %d of %s", n.Round, n.Name)
		}
	}
	time.Sleep(5*time.Second - time.Since(cut)) // the fault's length
	l.heal(2)

	model(t, id, s...)
	unharmed(t, s...)
	t.Logf("one model after %v; %s", time.Since(begun).Round(time.Millisecond), strings.Join(strings.Fields(l.nft(0, "list chain inet faults loss")), " "))
}

// shows asks for a task.
func (s *site) shows(task string) api.ShownTask {
	s.t.Helper()
	v, err := api.ShowTask.Ask(context.Background(), s.client(), cidOf(s.t, task))
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}
