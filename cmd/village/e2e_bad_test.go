package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	golibp2p "github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"

	"village/node/api"
	"village/node/home"
	"village/protocol/record"
)

// unknownCID names nothing, nobody an Ed25519 key of a node that is nowhere.
const (
	unknownCID = "bafyreibnoelefnzgwbcacyt4vh52ymxvzbjq7mmqhtcnwarfq4lzegsiqe"
	nobody     = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"
)

// tableOf makes a CSV file of n rows, the columns being functions of the row.
func tableOf(t *testing.T, header string, n int, row func(i int) string) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(header + "\n")
	for i := range n {
		b.WriteString(row(i) + "\n")
	}
	return file(t, b.String())
}

// TestPortTaken: a daemon whose port another program has says where to name another.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	s := newSite(t, t.TempDir(), federationOf(t), "budapest")
	b, err := os.ReadFile(filepath.Join(s.home, home.ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(string(b), "/tcp/")
	port, _, _ = strings.Cut(port, "\"")
	other, err := net.Listen("tcp4", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	e := s.refused(1, []string{"port " + port + " is in use"}, "daemon")
	if !strings.Contains(e.Next, "listen") || !strings.Contains(e.Next, filepath.Join(s.home, home.ConfigFile)) {
		t.Errorf("next: %s", e.Next)
	}
}

// TestInterruptedAdd: Ctrl-C of a command ends what the daemon does for it.
func TestInterruptedAdd(t *testing.T) {
	t.Parallel()
	s := newSite(t, t.TempDir(), federationOf(t), "budapest")
	s.start()
	rows := file(t, "x,y,z\n"+strings.Repeat("1.25,red,0\n1.75,green,1\n", 3<<20))
	add := exec.Command("village", "dataset", "add", rows, "--name", "large", "--target", "z", "--home", s.home)
	if err := add.Start(); err != nil {
		t.Fatal(err)
	}
	adding := func() bool {
		p, err := api.TellAdding.Ask(context.Background(), s.client(), api.None{})
		return err == nil && p.Doing != ""
	}
	eventually(t, "the daemon reads the file", adding)
	if err := add.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if add.Wait(); add.ProcessState.ExitCode() != api.CodeInterrupted {
		t.Errorf("exit code %d", add.ProcessState.ExitCode())
	}
	eventually(t, "the daemon stops", func() bool { return !adding() })
	if v, err := api.ListDatasets.Ask(context.Background(), s.client(), url.Values{"mine": {"1"}}); err != nil || len(v.Datasets) > 0 {
		t.Errorf("%d datasets, %v", len(v.Datasets), err)
	}
}

// TestBadInput: whatever a daemon is asked that makes no sense, it says why and
// what to do next, and loses nothing.
func TestBadInput(t *testing.T) {
	t.Parallel()
	s := federation(t, "budapest", "zurich")
	here, there := s[0], s[1]
	connect(s...)
	dataset := here.add("ward", patients(t, 1, 60), "--target", "sick")
	far := there.add("ward", patients(t, 2, 80), "--target", "sick")
	here.sees(dataset, far)
	task := here.propose([]*site{here}, "--target", "sick", "--rounds", "5")
	here.join(task)
	cid := model(t, task, here)
	theirs := here.propose([]*site{there}, "--target", "sick")

	exists := filepath.Join(t.TempDir(), "not-written")
	rows := patients(t, 3, 20)
	twoLevels := func(i int) string { return fmt.Sprintf("%d,%d", i, i%2) }
	add := func(path string, flags ...string) []string {
		return append([]string{"dataset", "add", path, "--name", "bad"}, flags...)
	}
	type refusal struct {
		code  int
		words []string // of the message
		args  []string
	}
	refusals := map[string]refusal{
		"no target column":     {1, []string{`"ill"`, "--target", "age", "sick"}, add(rows, "--target", "ill")},
		"no target named":      {2, []string{"target"}, add(rows)},
		"target nearly right":  {1, []string{`did you mean "sick"`}, add(rows, "--target", "sik")},
		"no file":              {1, []string{"no such file"}, add(exists, "--target", "sick")},
		"a directory":          {1, []string{"is a directory"}, add(t.TempDir(), "--target", "sick")},
		"an empty file":        {1, []string{"empty"}, add(file(t, ""), "--target", "sick")},
		"a header alone":       {1, []string{"no rows"}, add(file(t, "a,b\n"), "--target", "b")},
		"a ragged file":        {1, []string{"line 3", "1 cells", "2 columns"}, add(file(t, "a,b\n1,2\n3\n"), "--target", "b")},
		"an open quote":        {1, []string{"quote"}, add(file(t, "a,b\n\"1,2\n"), "--target", "b")},
		"a picture":            {1, []string{"zero byte"}, add(file(t, "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"), "--target", "b")},
		"two columns alike":    {1, []string{`both named "a"`}, add(file(t, "a,a\n1,2\n"), "--target", "a")},
		"only the target":      {1, []string{"no feature"}, add(tableOf(t, "a,b", 20, twoLevels), "--target", "b", "--ignore", "a")},
		"no level like that":   {1, []string{`"maybe"`}, add(rows, "--target", "sick", "--positive", "maybe")},
		"split of other words": {1, []string{"train", "test"}, add(rows, "--target", "sick", "--split", "sex")},
		"a name too long":      {1, []string{"1 to 64"}, []string{"dataset", "add", rows, "--name", strings.Repeat("n", 65), "--target", "sick"}},

		"an unknown flag":     {2, []string{"unknown flag", "--target"}, []string{"dataset", "add", rows, "--targt", "sick"}},
		"an unknown command":  {2, []string{"list"}, []string{"dataset", "lst"}},
		"an argument too few": {2, []string{"CID"}, []string{"task", "show"}},

		"a task of nobody":           {2, []string{"--nodes"}, []string{"task", "propose", "--name", "x", "--target", "sick"}},
		"a node that is none":        {2, []string{`"me"`}, []string{"task", "propose", "--name", "x", "--target", "sick", "--nodes", "me"}},
		"an unknown node":            {1, []string{nobody, "no dataset"}, []string{"task", "propose", "--name", "x", "--target", "sick", "--nodes", nobody + "," + here.id}},
		"a target that none has":     {1, []string{"lacks ill"}, []string{"task", "propose", "--name", "x", "--target", "ill", "--nodes", here.id}},
		"a feature that one lacks":   {1, []string{"lacks weight", "age"}, []string{"task", "propose", "--name", "x", "--target", "sick", "--features", "age,weight", "--nodes", here.id + "," + there.id}},
		"the target as feature":      {1, []string{"sick"}, []string{"task", "propose", "--name", "x", "--target", "sick", "--features", "age,sick", "--nodes", here.id}},
		"an unknown model":           {2, []string{"forest"}, []string{"task", "propose", "--name", "x", "--target", "sick", "--model", "forest", "--nodes", here.id}},
		"an unknown mixing":          {2, []string{"gossip"}, []string{"task", "propose", "--name", "x", "--target", "sick", "--mixing", "gossip", "--nodes", here.id}},
		"too many rounds":            {2, []string{"rounds"}, []string{"task", "propose", "--name", "x", "--target", "sick", "--rounds", "2000000", "--nodes", here.id}},
		"a negative learning rate":   {2, []string{"learning rate"}, []string{"task", "propose", "--name", "x", "--target", "sick", "--learning-rate", "-1", "--nodes", here.id}},
		"join what is not one's own": {13, []string{"does not name this node"}, []string{"task", "join", theirs}},
		"join twice":                 {1, []string{"already"}, []string{"task", "join", task}},
		"join with another's data":   {13, []string{"does not name"}, []string{"task", "join", theirs, "--dataset", far}},

		"predict without features": {1, []string{"age"}, []string{"model", "predict", cid, "--in", file(t, "sex\nfemale\n")}},
		"predict another level":    {1, []string{`"x"`}, []string{"model", "predict", cid, "--in", file(t, "age,\"pressure, systolic\",sex\n30,120,x\n")}},
		"predict text for numbers": {1, []string{"numeric", "old"}, []string{"model", "predict", cid, "--in", file(t, "age,\"pressure, systolic\",sex\nold,120,female\n")}},
		"predict nothing":          {1, []string{"no such file"}, []string{"model", "predict", cid, "--in", exists}},
		"export to nowhere":        {1, []string{"no such file"}, []string{"model", "export", cid, "--out", filepath.Join(exists, "m")}},

		"a peer that is none":   {2, []string{"/p2p/"}, []string{"peer", "add", "127.0.0.1:4811"}},
		"this node as its peer": {1, []string{"this node itself"}, []string{"peer", "add", here.address}},
		"nobody as a member":    {2, []string{`"me"`}, []string{"member", "add", "me"}},
		"remove who is none":    {1, []string{"not on the member list"}, []string{"member", "remove", nobody}},
		"a home that is there":  {1, []string{here.home}, []string{"init", "--nation", "HUN", "--name", "again"}},
		"a second daemon":       {11, []string{"in use"}, []string{"daemon"}},
	}
	// Every command that takes a CID, with what is none, one of nothing, and
	// one of something else.
	others := map[string][]string{"dataset": {task, cid}, "task": {dataset, cid}, "model": {dataset, task}}
	for _, command := range [][]string{
		{"dataset", "show", ""}, {"task", "show", ""}, {"task", "join", ""}, {"task", "watch", ""},
		{"model", "show", ""}, {"model", "report", ""}, {"model", "verify", ""}, {"model", "predict", "", "--in", rows},
		{"model", "export", "", "--evidence", exists},
	} {
		with := func(cid string) []string {
			args := append([]string{}, command...)
			args[2] = cid
			return args
		}
		name := strings.Join(command[:2], " ")
		refusals[name+" of garbage"] = refusal{2, []string{`"garbage" is not a CID`}, with("garbage")}
		refusals[name+" of an unknown CID"] = refusal{1, []string{unknownCID, "here"}, with(unknownCID)}
		for i, other := range others[command[0]] {
			refusals[fmt.Sprintf("%s of another kind %d", name, i)] = refusal{1, []string{other}, with(other)}
		}
	}
	for name, r := range refusals {
		t.Run(name, func(t *testing.T) {
			at := *here
			at.t = t
			at.refused(r.code, r.words, r.args...)
		})
	}
	if _, err := os.Lstat(exists); !os.IsNotExist(err) {
		t.Errorf("a command that failed has left %s behind", exists)
	}

	// Join without a dataset that fits, and with one of too few rows.
	few := here.add("few", tableOf(t, "size,big", 9, twoLevels), "--target", "big", "--levels", "big=0,1")
	small := here.propose([]*site{here}, "--target", "big")
	here.refused(13, []string{"9 rows", "fewer than 10"}, "task", "join", small)
	here.refused(1, []string{unknownCID}, "task", "join", small, "--dataset", unknownCID)
	one := here.add("one", file(t, "length,long\n1,1\n"), "--target", "long")
	here.refused(1, []string{"fewer than two levels", `"long"`}, "task", "propose", "--name", "x", "--target", "long", "--nodes", here.id)
	same := here.add("same", tableOf(t, "width,wide", 40, func(i int) string { return fmt.Sprintf("%d,yes", i) }), "--target", "wide")
	here.refused(1, []string{"fewer than two levels", `"wide"`}, "task", "propose", "--name", "x", "--target", "wide", "--nodes", here.id)

	// Infinite values are no numbers; the dataset says what it has made of them.
	infinite := here.add("infinite", tableOf(t, "depth,deep", 40, func(i int) string {
		return fmt.Sprintf("%s,%d", []string{"inf", "1e999", "-Infinity", "3"}[i%4], i%2)
	}), "--target", "deep")
	var shown api.ShownDataset
	here.json(&shown, "dataset", "show", infinite)
	if shown.Columns[0].Kind != "categorical" {
		t.Errorf("a column with infinite values is %s", shown.Columns[0].Kind)
	}

	// Two datasets fit: the error says how to name one.
	again := here.add("again", patients(t, 5, 30), "--target", "sick")
	both := here.propose([]*site{here}, "--target", "sick", "--rounds", "2")
	if e := here.refused(2, []string{"2 own datasets"}, "task", "join", both); !strings.Contains(e.Next, "--dataset ") {
		t.Errorf("next: %s", e.Next)
	}
	here.ok("task", "join", both, "--dataset", again)
	for _, id := range []string{task, both} {
		model(t, id, here, there) // before the one that the other would fetch from is stopped
	}

	// Nothing is lost: not now, not after a restart, and the rest goes on.
	all := []string{dataset, far, few, one, same, infinite, again}
	here.sees(all...)
	if code := here.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	here.refused(12, []string{"not running"}, "status")
	here.refused(12, []string{"not running"}, "dataset", "add", rows, "--name", "bad", "--target", "sick")
	config := filepath.Join(here.home, "config.toml")
	good, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, append([]byte("natoin = \"HUN\"\n"), good...), 0o600); err != nil {
		t.Fatal(err)
	}
	here.refused(1, []string{"natoin", "nation"}, "daemon")
	if err := os.WriteFile(config, good, 0o600); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(here.home, "foreign")
	if err := os.WriteFile(foreign, []byte("not of the program"), 0o600); err != nil {
		t.Fatal(err)
	}
	here.start()
	here.sees(all...)
	var v api.ShownTask
	here.json(&v, "task", "show", task)
	if v.Stage != api.StageDone || v.ModelCID.String() != cid {
		t.Errorf("the task is in stage %s with model %s", v.Stage, v.ModelCID)
	}
	if b, err := os.ReadFile(foreign); err != nil || string(b) != "not of the program" {
		t.Errorf("the foreign file: %q, %v", b, err)
	}
	unharmed(t, there)
	if s := here.status(); s.LastError != "" {
		t.Errorf("last error %q", s.LastError)
	}

	empty := &site{t: t, home: filepath.Join(t.TempDir(), "nothing")}
	for _, args := range [][]string{{"id"}, {"status"}, {"daemon"}, {"dataset", "list"}, {"peer", "add", here.address}} {
		empty.refused(10, []string{empty.home}, args...)
	}
}

// TestDivergence: a task that cannot work says so at every node, does nobody
// harm, and can be proposed again.
func TestDivergence(t *testing.T) {
	t.Parallel()
	s := federation(t, "budapest", "zurich")
	connect(s...)
	a := s[0].add("ward", patients(t, 1, 60), "--target", "sick")
	b := s[1].add("ward", patients(t, 2, 80), "--target", "sick")
	s[0].sees(a, b)
	diverged := func(v api.ShownTask) bool { return v.Error != "" }
	both := s[0].propose(s, "--target", "sick", "--learning-rate", "1e5")
	alone := s[0].propose(s[:1], "--target", "sick", "--learning-rate", "1e5")
	s[0].join(alone)
	for _, site := range s {
		site.join(both)
	}
	const why = "learning rate"
	check := func(site *site, task string) {
		t.Helper()
		v := site.follow(task, diverged)
		if !strings.Contains(v.Error, why) {
			t.Errorf("%s: %s", site.home, v.Error)
		}
		if text := site.ok("task", "show", task); !strings.Contains(text, v.Error) {
			t.Errorf("the people's answer does not say it:\n%s", text)
		}
		if e := site.status().LastError; !strings.Contains(e, why) {
			t.Errorf("%s: last error %q", site.home, e)
		}
	}
	check(s[0], alone)
	check(s[0], both)
	check(s[1], both)
	s[0].kill()
	s[0].start()
	check(s[0], alone)
	check(s[0], both)

	better := s[0].propose(s, "--target", "sick", "--rounds", "5")
	for _, site := range s {
		site.join(better)
	}
	model(t, better, s...)
	for _, site := range s {
		if v := site.status(); v.MessagesRefused != 0 {
			t.Errorf("%s has refused %d messages of honest nodes", site.home, v.MessagesRefused)
		}
	}
}

// TestLongHome: the path of a home may be longer than that of a socket.
func TestLongHome(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	s := newSite(t, filepath.Join(dir, strings.Repeat("d", 150)), "f", "far")
	s.start()
	cid := s.add("ward", patients(t, 1, 40), "--target", "sick")
	s.kill()
	s.start()
	s.sees(cid)
	s.refused(11, []string{"in use"}, "daemon")
	if code := s.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	s.refused(12, []string{"not running"}, "status")
}

// TestGarbageOnTheTopic: what a stranger says on the topic is counted as
// refused, and that is all.
func TestGarbageOnTheTopic(t *testing.T) {
	t.Parallel()
	s := federation(t, "budapest", "zurich")
	connect(s...)
	cid := s[0].add("ward", patients(t, 1, 40), "--target", "sick")
	s[1].sees(cid)

	topic := stranger(t, s...)
	ctx := context.Background()
	for i, garbage := range [][]byte{
		[]byte("garbage"),
		make([]byte, record.MaxGossip+1),
		{0xa1, 0x67, 'v', 'e', 'r', 's', 'i', 'o', 'n', 0x01},
	} {
		if err := topic.Publish(ctx, garbage); err != nil {
			t.Fatal(err)
		}
		for _, site := range s {
			eventually(t, fmt.Sprintf("%s has refused message %d", site.home, i), func() bool {
				return site.status().MessagesRefused > uint64(i)
			})
		}
	}
	for _, site := range s {
		v := site.status()
		if v.MessagesRefused != 3 || v.MessagesDropped != 0 || v.LastError != "" || v.Datasets != 1 || len(v.Tasks) != 0 {
			t.Errorf("%s: %d refused, %d dropped, last error %q, %d datasets, %d tasks", site.home,
				v.MessagesRefused, v.MessagesDropped, v.LastError, v.Datasets, len(v.Tasks))
		}
	}
	next := s[1].add("next", patients(t, 2, 40), "--target", "sick")
	s[0].sees(cid, next)
}

// stranger joins the topic of the sites' federation with a host of its own, and
// is listened to by all of them when it returns.
func stranger(t *testing.T, sites ...*site) *pubsub.Topic {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	host, err := golibp2p.New(golibp2p.NoListenAddrs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	ps, err := pubsub.NewGossipSub(ctx, host,
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithNoAuthor(),
		pubsub.WithMessageIdFn(func(m *pb.Message) string {
			sum := sha256.Sum256(m.GetData())
			return string(sum[:])
		}),
		pubsub.WithFloodPublish(true))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("village federation\x00" + federationOf(t)))
	topic, err := ps.Join("village/" + hex.EncodeToString(sum[:16]) + "/records")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sites {
		info, err := peer.AddrInfoFromString(s.address)
		if err != nil {
			t.Fatal(err)
		}
		dial, cancel := context.WithTimeout(ctx, 10*time.Second)
		err = host.Connect(dial, *info)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "every node is on the topic", func() bool { return len(topic.ListPeers()) == len(sites) })
	return topic
}
