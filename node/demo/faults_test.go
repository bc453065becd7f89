package demo

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"village/node/api"
)

// The same story as for people, in shorter rounds. How much longer the faults
// make it then says nothing: a dead node costs the same wait, however short the
// rounds are.
func TestFaults(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs daemons")
	}
	dir, err := os.MkdirTemp("", "f") // short, so that the sockets fit into the homes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var said bytes.Buffer
	res, err := Run(t.Context(), Options{
		Dir: dir, Faults: true, Progress: &said,
		program: program, pace: pace{rounds: 14, round: 300 * time.Millisecond},
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, &said)
	}
	wantEmpty(t, dir)

	// Every node is accounted for.
	for _, n := range res.Nodes {
		state, in := Contributed, true
		switch n.Name {
		case lateNode:
			state = Late
		case lostNode:
			state, in = Lost, false
		}
		if n.State != state || n.InModel != in || (n.ModelCID != nil) != in || in && *n.ModelCID != res.ModelCID {
			t.Errorf("%s: %q, in the model %t, which is %v; %s", n.Name, n.State, n.InModel, n.ModelCID, n.Why)
		}
		if in != (n.Federated.Accuracy != nil) || in != (n.Local.Accuracy != nil) || in != (n.Pooled.Accuracy != nil) {
			t.Errorf("%s: figures %+v", n.Name, n.Figures)
		}
		if n.Rounds < 1 || n.Rounds > res.Rounds || n.Name == "cleveland-a" && n.Rounds != res.Rounds || !in && n.Rounds == res.Rounds {
			t.Errorf("%s gave %d rounds", n.Name, n.Rounds)
		}
		if n.TrainRows == 0 || n.TestRows == 0 || n.Rows != n.TrainRows+n.TestRows || n.Why == "" {
			t.Errorf("%s: %+v", n.Name, n)
		}
		if !in && !strings.HasPrefix(n.Why, "fell silent after round ") {
			t.Errorf("%s: %q", n.Name, n.Why)
		}
	}
	if len(res.Nodes) != 8 || res.Rounds != 14 || !res.Recomputed || len(res.verified.Signers) < res.verified.Quorum || res.verified.Quorum != 6 {
		t.Errorf("%+v", res)
	}

	// Every fault has happened, and ended where it was to end.
	happened := map[Kind][]string{}
	at := 0.0
	for _, f := range res.Faults {
		if f.At < at || f.What == "" {
			t.Errorf("fault %+v after %g", f, at)
		}
		at = f.At
		happened[f.Kind] = append(happened[f.Kind], strings.Join(f.Nodes, "–"))
	}
	var links []string
	for _, l := range slices.Concat(cutEarly, cutLate) {
		links = append(links, l[0]+"–"+l[1])
	}
	slices.Sort(links)
	slices.Sort(happened[Cut])
	slices.Sort(happened[Reunited])
	for kind, want := range map[Kind][]string{
		JoinedLate: {lateNode}, Cut: links, Reunited: links, Killed: {killedNode}, Restarted: {killedNode}, Gone: {lostNode},
	} {
		if !slices.Equal(happened[kind], want) {
			t.Errorf("%s: %v, not %v", kind, happened[kind], want)
		}
	}

	// The figures of those that were not lost are what their own report says.
	if res.Survivors.TestRows != 247 || res.FaultFree.TestRows != 247 || res.TestRows != 247 ||
		*res.Survivors.Accuracy != *res.AllRows.Federated.Accuracy || *res.Survivors.ROCAUC != *res.AllRows.Federated.ROCAUC {
		t.Errorf("%+v, but the nodes report %+v", res.Survivors, res.AllRows)
	}
	if d := *res.Survivors.Accuracy - *res.FaultFree.Accuracy; d < -mostDifference || d > mostDifference || *res.FaultFree.Accuracy < .77 {
		t.Errorf("accuracy %g, without faults %g", *res.Survivors.Accuracy, *res.FaultFree.Accuracy)
	}
	if res.ModelCID == res.FaultFree.ModelCID || res.Elapsed <= 0 || res.FaultFree.Elapsed <= 0 || res.Extra != res.Elapsed/res.FaultFree.Elapsed-1 {
		t.Errorf("%+v", res)
	}

	b, err := json.Marshal(res)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"schema":"village.demo/v1"`, `"recomputed":true`, `"faults":\[\{"at_seconds":[\d.]+,"kind":"\w+","nodes":\["`, `"extra_ratio":`,
		`"fault_free":\{"elapsed_seconds":[\d.]+,"model_cid":"baf\w+","test_rows":247,"accuracy":0\.`, `"survivors":\{"test_rows":247,"accuracy":0\.`,
		`"name":"zurich-b",[^{}]*"model_cid":null,[^{}]*"state":"lost","rounds":\d+,"in_model":false,"why":"`,
		`"name":"cleveland-b",[^{}]*"state":"late",`,
	} {
		if !regexp.MustCompile(want).Match(b) {
			t.Errorf("no %s in %s", want, b)
		}
	}
	var shown bytes.Buffer
	if err := res.Write(&shown); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`(?m)^ +[\d.]+ s  link zurich-a – budapest-b cut$`, `(?m)^ +[\d.]+ s  zurich-b is killed, for good$`,
		`(?m)^USA cleveland-b +late +\d+  yes +trained to the last round$`,
		`(?m)^CHE zurich-b +lost +\d+  no +fell silent after round \d+$`,
		`(?m)^training took +[\d.]+ s +[\d.]+ s +\([+-][\d.]+ %\)$`, `(?m)^accuracy +\.\d{3} +\.\d{3} +\(247 test rows of those not lost\)$`,
		`(?m)^recomputed byte for byte: yes`, `(?m)^zurich-b +15/7 ( +–){3} `,
	} {
		if !regexp.MustCompile(want).Match(shown.Bytes()) {
			t.Errorf("no %s in\n%s", want, &shown)
		}
	}
	for _, line := range strings.Split(shown.String(), "\n") {
		if len([]rune(line)) > 120 && !strings.HasPrefix(line, "data:") { // a terminal may be narrower, a file is not
			t.Errorf("%q is wider than 120 columns", line)
		}
	}
	if want := regexp.MustCompile(`(?m)^ +[\d.]+ s  \S+ goes on without zurich-b, which is silent$`); !want.Match(said.Bytes()) {
		t.Errorf("no %s in\n%s", want, &said)
	}
}

// Halves are of one size and alike.
func TestHalves(t *testing.T) {
	whole, err := hospitals()
	if err != nil {
		t.Fatal(err)
	}
	all := halves(whole)
	if len(all) != 8 {
		t.Fatalf("%d halves", len(all))
	}
	for i, h := range whole {
		a, b := all[2*i], all[2*i+1]
		if a.name != h.name+"-a" || b.name != h.name+"-b" || a.nation != h.nation {
			t.Errorf("%s: %s and %s", h.name, a.name, b.name)
		}
		count := func(of *hospital) map[string]int {
			n := map[string]int{}
			for _, row := range of.rows.Rows {
				n[row[0]+row[len(row)-1]]++
			}
			return n
		}
		in, inA, inB := count(h), count(a), count(b)
		for like, n := range in {
			if inA[like]+inB[like] != n || inA[like]-inB[like] < 0 || inA[like]-inB[like] > 1 {
				t.Errorf("%s: %d and %d of %d rows %q", h.name, inA[like], inB[like], n, like)
			}
		}
	}
}

// What is lost, or said wrongly, ends the demo.
func TestExpect(t *testing.T) {
	good := func() Result {
		return Result{Nodes: []Node{
			{Name: "zurich-a", State: Contributed, InModel: true, Rounds: 9}, {Name: lateNode, State: Late, InModel: true, Rounds: 7},
			{Name: lostNode, State: Lost, Rounds: 3}, {Name: killedNode, State: Contributed, InModel: true, Rounds: 8},
		}}
	}
	if r := good(); r.expect() != nil {
		t.Error(r.expect())
	}
	for what, spoil := range map[string]func(*Result){
		"dropped":            func(r *Result) { r.Nodes[0].State, r.Nodes[0].InModel = Lost, false },
		"not late":           func(r *Result) { r.Nodes[1].State = Contributed },
		"lost but counted":   func(r *Result) { r.Nodes[2].InModel = true },
		"nothing of the one": func(r *Result) { r.Nodes[3].Rounds = 0 },
	} {
		r := good()
		if spoil(&r); r.expect() == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

// A link carries bytes both ways until it is cut, and again once it is mended.
func TestLink(t *testing.T) {
	far, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	go func() {
		for {
			c, err := far.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	l, err := newLink(far.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	dial := func() net.Conn {
		c, err := net.Dial("tcp4", l.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(10 * time.Second)) // a broken link must not hang
		t.Cleanup(func() { c.Close() })
		return c
	}
	echo := func(c net.Conn) error {
		if _, err := io.WriteString(c, "hello"); err != nil {
			return err
		}
		b := make([]byte, 5)
		_, err := io.ReadFull(c, b)
		if err == nil && string(b) != "hello" {
			t.Errorf("%q came back", b)
		}
		return err
	}
	c := dial()
	if err := echo(c); err != nil {
		t.Fatal(err)
	}
	l.sever()
	if echo(c) == nil {
		t.Error("a connection outlives the cut")
	}
	if echo(dial()) == nil {
		t.Error("a cut link takes a new connection")
	}
	l.mend()
	if err := echo(dial()); err != nil {
		t.Errorf("a mended link: %v", err)
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
}

// On a terminal an event stays above the table.
func TestEvent(t *testing.T) {
	var b bytes.Buffer
	p := newProgress(&b, []*hospital{{nation: "HUN", name: "budapest"}})
	p.width = 30
	p.say("training")
	p.event(12340*time.Millisecond, "link a – b cut")
	p.task(0, api.ShownTask{TaskSummary: api.TaskSummary{Stage: "training", Round: 3, Rounds: 20}})
	table := "\r\x1b[2Ktraining\n\r\x1b[2K  HUN budapest      0 rows  –\n"
	want := table + "\x1b[2A" + "\r\x1b[2K  12.3 s  link a – b cut\n" + table +
		"\x1b[2A" + "\r\x1b[2Ktraining\n\r\x1b[2K  HUN budapest      0 rows  h\n"
	if b.String() != want {
		t.Errorf("%q", b.String())
	}
}
