package task

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"village/protocol/dataset"
	"village/protocol/learn"
	"village/protocol/mixing"
	"village/protocol/record"
	"village/protocol/safetensors"
)

// ran is a task as three of four named nodes have run it: two make the roster,
// the third joined late and fell silent, the fourth is absent.
type ran struct {
	t          testing.TB
	task       record.Record
	tk         Task
	enrolments []record.Record
	updates    []record.Record
	params     [][]float64
	vectors    [][]byte // that the updates announce
	roster     Roster
	content    FinalContent // without what it comes to
}

func run(t testing.TB) *ran {
	tk, _ := votedTask(t)
	return runOf(t, tk)
}

// runWide is a run whose vectors are too large to ride inside the updates.
func runWide(t testing.TB) *ran {
	tk, _ := votedTask(t)
	inputs(&tk, MaxVector/8)
	return runOf(t, tk)
}

func runOf(t testing.TB, tk Task) *ran {
	r := &ran{t: t, tk: tk, task: taskRecord(t, tk)}
	for i, rows := range []uint64{100, 30, 7} {
		r.enrolments = append(r.enrolments, r.enrolment(i, rows))
	}
	var err error
	if r.roster, err = RosterOf(r.tk, []Enrolled{r.enrolled(0), r.enrolled(1)}); err != nil {
		t.Fatal(err)
	}
	r.params = [][]float64{{1, -2, .1, 1e-9}, {-7, 0, 1. / 3, 1e6}, {.7, .2, -1e9, -5}}
	for i, few := range r.params {
		r.params[i] = slices.Repeat(few, tk.SpecOf(0).Params()/4+1)[:tk.SpecOf(0).Params()]
	}
	r.content = FinalContent{Round: 3, Roster: r.roster.CID, Parts: []Part{}, Out: []Out{{Node: tk.Nodes[3], Why: Absent}}}
	for i, round := range []uint64{3, 3, 2} {
		u := r.update(i, round, nil)
		r.updates = append(r.updates, u)
		if tk.SpecOf(0).Params() > MaxVector/8 {
			r.vectors = append(r.vectors, vectorOf(t, tk, r.params[i]))
		}
		r.content.Parts = append(r.content.Parts, Part{
			Node: tk.Nodes[i], Enrolment: r.enrolments[i].CID, Update: r.updates[i].CID, Round: round, Weight: r.enrolled(i).Moments.Count,
		})
	}
	return r
}

func (r *ran) enrolment(i int, rows uint64) record.Record {
	e := enrolment(r.t, rows)
	e.Task = r.task.CID
	width := r.tk.Encoding.Width()
	e.Moments.Mean, e.Moments.M2 = make([]float64, width), make([]float64, width)
	e.Moments.Mean[1], e.Moments.M2[0] = float64(i), 10
	return sign(r.t, voters[i], record.KindEnrolment, r.task.CID.String(), 0, e)
}

func (r *ran) enrolled(i int) Enrolled {
	e, err := EnrolmentOf(r.enrolments[i], r.tk)
	if err != nil {
		r.t.Fatal(err)
	}
	return Enrolled{CID: r.enrolments[i].CID, Author: r.enrolments[i].Author, Enrolment: e}
}

// update is node i's signed update for a round, changed before it is signed.
func (r *ran) update(i int, round uint64, edit func(*Update)) record.Record {
	u := Update{Task: r.task.CID, Roster: r.roster.CID, Weight: r.enrolled(i).Moments.Count, Vector: vectorOf(r.t, r.tk, r.params[i])}
	if r.tk.SpecOf(0).Params() > MaxVector/8 {
		sum := sha256.Sum256(u.Vector)
		u.Size, u.Chunks, u.Vector = uint64(len(u.Vector)), sum[:], nil
	}
	if edit != nil {
		edit(&u)
	}
	return sign(r.t, voters[i], record.KindUpdate, u.Task.String(), round, u)
}

func vectorOf(t testing.TB, tk Task, params []float64) []byte {
	b, err := safetensors.Marshal(tk.SpecOf(0).Tensors(params), nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// evidence is what [Verify] is given.
type evidence struct {
	seal  []byte
	in    Inputs
	model []byte
}

func (e evidence) verify() (Verified, error) { return Verify(e.seal, e.in, e.model) }

// seal has a quorum sign what was run.
func (r *ran) seal() evidence {
	r.t.Helper()
	var e evidence
	model, err := ModelOf(r.task.CID, r.tk, r.roster, r.content, r.params)
	if err != nil {
		r.t.Fatal(err)
	}
	e.model = marshal(r.t, model)
	e.in = Inputs{Task: r.task.Bytes, Roster: ContentOf(r.roster.Members).Enrolments, Vectors: r.vectors}
	sorted := slices.Clone(r.enrolments)
	slices.SortFunc(sorted, func(a, b record.Record) int { return strings.Compare(a.CID.KeyString(), b.CID.KeyString()) })
	for _, enrolment := range sorted {
		e.in.Enrolments = append(e.in.Enrolments, enrolment.Bytes)
	}
	for _, update := range r.updates {
		e.in.Updates = append(e.in.Updates, update.Bytes)
	}
	b, err := record.Encode(e.in)
	if err != nil {
		r.t.Fatal(err)
	}
	r.content.Inputs, r.content.Model = record.CIDOf(b), record.CIDOf(e.model)
	e.seal = r.certify(TopicFinal, r.content)
	return e
}

func (r *ran) certify(topic Topic, content any) []byte {
	b, err := record.Encode(content)
	if err != nil {
		r.t.Fatal(err)
	}
	subject := topic.Subject(r.task.CID)
	return sign(r.t, voters[2], record.KindSeal, subject, 0, Seal{
		Content: b, Precommits: ballots(r.t, record.KindPrecommit, subject, 1, record.CIDOf(b).Bytes(), 0, 1, 3),
	}).Bytes
}

func TestVerify(t *testing.T) {
	r := run(t)
	v, err := r.seal().verify()
	if err != nil {
		t.Fatal(err)
	}
	if v.ID != r.task.CID || v.Task.Name != r.tk.Name || v.Signers != 3 || !reflect.DeepEqual(v.Content, r.content) || !reflect.DeepEqual(v.Model.Scaling, r.roster.Scaling) {
		t.Errorf("verified %+v", v)
	}
	for j, got := range v.Model.Params {
		want := (100*r.params[0][j] + 30*r.params[1][j] + 7*r.params[2][j]) / 137
		if math.Abs(got-want) > 1e-12*max(1, math.Abs(want)) {
			t.Errorf("parameter %d is %g, the mean of the updates is %g", j, got, want)
		}
	}
	// All four, with nobody left out: an empty list is the same bytes for those
	// who made it and those who read it.
	r = run(t)
	r.content.Out = []Out{}
	r.enrolments = append(r.enrolments, r.enrolment(3, 50))
	r.params = append(r.params, []float64{0, 0, 0, 0})
	r.updates = append(r.updates, r.update(3, 3, nil))
	r.content.Parts = append(r.content.Parts, Part{Node: r.tk.Nodes[3], Enrolment: r.enrolments[3].CID, Update: r.updates[3].CID, Round: 3, Weight: 50})
	if v, err = r.seal().verify(); err != nil || len(v.Model.Parts) != 4 {
		t.Errorf("%d parts, %v", len(v.Model.Parts), err)
	}
}

// Any changed byte is found, and named by what it is in.
func TestVerifyFindsEveryFlippedByte(t *testing.T) {
	r := run(t)
	e := r.seal()
	flip := func(name, want string, of func(*evidence) *[]byte) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found := e
			found.in.Enrolments, found.in.Updates = slices.Clone(e.in.Enrolments), slices.Clone(e.in.Updates)
			whole := *of(&found)
			for i := range whole {
				b := bytes.Clone(whole)
				b[i] ^= 1 << (i % 8)
				*of(&found) = b
				if _, err := found.verify(); err == nil || !strings.HasPrefix(err.Error(), want) {
					t.Fatalf("byte %d of %d: %v, want %q", i, len(whole), err, want)
				}
			}
			*of(&found) = whole[:len(whole)-1]
			if _, err := found.verify(); err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("cut: %v, want %q", err, want)
			}
			*of(&found) = append(bytes.Clone(whole), 0)
			if _, err := found.verify(); err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("a trailing byte: %v, want %q", err, want)
			}
		})
	}
	flip("seal", "the seal: ", func(e *evidence) *[]byte { return &e.seal })
	flip("task", "the task: ", func(e *evidence) *[]byte { return &e.in.Task })
	for i := range e.in.Enrolments {
		flip(fmt.Sprint("enrolment ", i), fmt.Sprintf("enrolment %d: ", i+1), func(e *evidence) *[]byte { return &e.in.Enrolments[i] })
	}
	for i := range e.in.Updates {
		flip(fmt.Sprint("update ", i), fmt.Sprintf("the update of %s: ", r.tk.Nodes[i]), func(e *evidence) *[]byte { return &e.in.Updates[i] })
	}
	flip("model", "the model is not what the updates come to", func(e *evidence) *[]byte { return &e.model })

	// What is between the records in the inputs' artifact.
	b, err := record.Encode(e.in)
	if err != nil {
		t.Fatal(err)
	}
	inside := make([]bool, len(b))
	for _, part := range append(append([][]byte{e.in.Task}, e.in.Enrolments...), e.in.Updates...) {
		at := bytes.Index(b, part)
		for i := range part {
			inside[at+i] = true
		}
	}
	for i := range b {
		if inside[i] {
			continue
		}
		flipped, found := bytes.Clone(b), e
		flipped[i] ^= 1 << (i % 8)
		found.in = Inputs{}
		if err := record.Decode(flipped, &found.in); err != nil {
			continue
		}
		if _, err := found.verify(); err == nil || !strings.Contains(err.Error(), "roster") {
			t.Errorf("byte %d of the inputs: %v", i, err)
		}
	}
}

func TestVerifyFindsFlippedBytesOfAnnouncedVectors(t *testing.T) {
	if testing.Short() {
		t.Skip("seconds")
	}
	r := runWide(t)
	e := r.seal()
	if v, err := e.verify(); err != nil || len(v.Model.Params) != MaxVector/8+1 {
		t.Fatalf("%d parameters, %v", len(v.Model.Params), err)
	}
	whole := e.in.Vectors
	for i := range whole {
		want := fmt.Sprintf("the update of %s: ", r.tk.Nodes[i])
		e.in.Vectors = slices.Clone(whole)
		wrong := map[string][]byte{"none": nil, "cut": whole[i][:len(whole[i])-1], "longer": append(bytes.Clone(whole[i]), 0), "another's": whole[(i+1)%3]}
		for at := 0; at < len(whole[i]); at += 997 {
			b := bytes.Clone(whole[i])
			b[at] ^= 1 << (at % 8)
			wrong[fmt.Sprint("byte ", at)] = b
		}
		for name, b := range wrong {
			e.in.Vectors[i] = b
			if _, err := e.verify(); !errors.Is(err, ErrInvalid) || !strings.HasPrefix(err.Error(), want) {
				t.Fatalf("vector %d, %s: %v, want %q", i, name, err, want)
			}
		}
	}
	for _, vectors := range [][][]byte{nil, whole[:2]} {
		e.in.Vectors = vectors
		if _, err := e.verify(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%d vectors of 3: %v", len(vectors), err)
		}
	}
}

// What is signed as it should be, and yet is not what was decided on.
func TestVerifyFindsWhatIsSwapped(t *testing.T) {
	for _, c := range []struct {
		name string
		swap func(*ran, *evidence)
		want string // %d is for the peer ID of node 0, %e for that of node 2
	}{
		{"an enrolment of the roster", func(r *ran, e *evidence) {
			i := slices.IndexFunc(e.in.Enrolments, func(b []byte) bool { return record.CIDOf(b) == r.content.Parts[1].Enrolment })
			e.in.Enrolments[i] = r.enrolment(1, 31).Bytes
		}, "of the roster is missing"},
		{"the enrolment of the late one", func(r *ran, e *evidence) {
			i := slices.IndexFunc(e.in.Enrolments, func(b []byte) bool { return record.CIDOf(b) == r.content.Parts[2].Enrolment })
			e.in.Enrolments[i] = r.enrolment(2, 8).Bytes
		}, "the update of %e: the node's enrolment is missing"},
		{"an enrolment of another task", func(r *ran, e *evidence) {
			other := enrolment(t, 9)
			e.in.Enrolments[0] = sign(t, voters[0], record.KindEnrolment, other.Task.String(), 0, other).Bytes
		}, "the enrolment of %d: it is of another task"},
		{"an enrolment of nobody named", func(r *ran, e *evidence) {
			other := enrolment(t, 9)
			other.Task = r.task.CID
			e.in.Enrolments[0] = sign(t, voters[4], record.KindEnrolment, r.task.CID.String(), 0, other).Bytes
		}, ErrForeign.Error()},
		{"an update as enrolment", func(r *ran, e *evidence) { e.in.Enrolments[0] = e.in.Updates[0] }, "the enrolment of %d: "},
		{"no enrolments", func(r *ran, e *evidence) { e.in.Enrolments = nil }, "of the roster is missing"},
		{"a smaller roster", func(r *ran, e *evidence) { e.in.Roster = e.in.Roster[:1] }, "the roster is not the one that was decided on"},
		{"a larger roster", func(r *ran, e *evidence) {
			e.in.Roster = append(slices.Clone(e.in.Roster), r.content.Parts[2].Enrolment)
			SortCIDs(e.in.Roster)
		}, "the roster is not the one that was decided on"},
		{"the late one in the roster", func(r *ran, e *evidence) { e.in.Roster[0] = r.content.Parts[2].Enrolment }, "the roster is not the one that was decided on"},
		{"no roster", func(r *ran, e *evidence) { e.in.Roster = nil }, "no moments"},
		{"an update less", func(r *ran, e *evidence) { e.in.Updates = e.in.Updates[:2] }, "2 updates for 3 parts"},
		{"an update more", func(r *ran, e *evidence) { e.in.Updates = append(e.in.Updates, e.in.Updates[0]) }, "4 updates for 3 parts"},
		{"no updates", func(r *ran, e *evidence) { e.in.Updates = nil }, "0 updates for 3 parts"},
		{"updates in another order", func(r *ran, e *evidence) {
			e.in.Updates[0], e.in.Updates[1] = e.in.Updates[1], e.in.Updates[0]
		}, "the update of %d: it is not the one that was decided on"},
		{"an update of another round", func(r *ran, e *evidence) { e.in.Updates[2] = r.update(2, 3, nil).Bytes }, "the update of %e: it is not the one that was decided on"},
		{"another update of the round", func(r *ran, e *evidence) {
			e.in.Updates[0] = r.update(0, 3, func(u *Update) { u.Vector = vectorOf(t, good(), []float64{0, 0, 0, 0}) }).Bytes
		}, "the update of %d: it is not the one that was decided on"},
		{"an update that weighs more", func(r *ran, e *evidence) {
			e.in.Updates[0] = r.update(0, 3, func(u *Update) { u.Weight++ }).Bytes
		}, "the update of %d: it is not the one that was decided on"},
		{"an update of another task", func(r *ran, e *evidence) {
			e.in.Updates[0] = r.update(0, 3, func(u *Update) { u.Task = taskID(t) }).Bytes
		}, "the update of %d: it is not the one that was decided on"},
		{"an update that no node would take", func(r *ran, e *evidence) {
			e.in.Updates[0] = r.update(0, 3, func(u *Update) { u.Vector = u.Vector[1:] }).Bytes
		}, "the update of %d: " + ErrInvalid.Error()},
		{"an enrolment as update", func(r *ran, e *evidence) { e.in.Updates[0] = e.in.Enrolments[0] }, "the update of %d: "},
		{"a record of another federation", func(r *ran, e *evidence) {
			other, err := record.Sign(voters[0], "another", record.KindUpdate, r.task.CID.String(), 3, Update{
				Task: r.task.CID, Roster: r.roster.CID, Weight: 100, Vector: vectorOf(t, r.tk, r.params[0]),
			})
			if err != nil {
				t.Fatal(err)
			}
			e.in.Updates[0] = other.Bytes
		}, "the update of %d: " + record.ErrFederation.Error()},
		{"the task signed by another", func(r *ran, e *evidence) {
			e.in.Task = sign(t, voters[0], record.KindTask, r.task.Subject, 0, r.tk).Bytes
		}, "the seal: "},
		{"another task", func(r *ran, e *evidence) {
			r.tk.Rounds++
			e.in.Task = taskRecord(t, r.tk).Bytes
		}, "the seal: "},
		{"an update as task", func(r *ran, e *evidence) { e.in.Task = e.in.Updates[0] }, "the task: "},
		{"the seal of the roster", func(r *ran, e *evidence) {
			e.seal = r.certify(TopicRoster, ContentOf(r.roster.Members))
		}, "the seal: it is of the roster"},
		{"a vote as seal", func(r *ran, e *evidence) {
			e.seal = ballots(t, record.KindPrecommit, TopicFinal.Subject(r.task.CID), 0, nil, 0)[0]
		}, "the seal: "},
		{"a seal of too few", func(r *ran, e *evidence) {
			var s Seal
			opened, err := record.Open(e.seal, fed)
			if err == nil {
				err = record.Decode(opened.Payload, &s)
			}
			if err != nil {
				t.Fatal(err)
			}
			s.Precommits = s.Precommits[:2]
			e.seal = sign(t, voters[0], record.KindSeal, opened.Subject, 0, s).Bytes
		}, "the seal: "},
		{"the model of other updates", func(r *ran, e *evidence) {
			r.params[0][0]++
			e.model = r.seal().model
		}, "the model is not what the updates come to"},
		{"the model in the last digit", func(r *ran, e *evidence) {
			m, err := UnmarshalModel(e.model)
			if err != nil {
				t.Fatal(err)
			}
			m.Params[0] = math.Nextafter(m.Params[0], 2)
			e.model = marshal(t, m)
		}, "the model is not what the updates come to"},
		{"a model that says that nobody was left out", func(r *ran, e *evidence) {
			r.content.Out = nil
			e.model = r.seal().model
		}, "the model is not what the updates come to"},
		{"no model", func(r *ran, e *evidence) { e.model = nil }, "the model is not what the updates come to"},

		// Even a quorum of signatures makes none of these right.
		{"a sealed weight that was not enrolled", func(r *ran, e *evidence) {
			r.content.Parts[0].Weight++
			*e = r.seal()
		}, "the update of %d: weight 101, in the update 100, but 100 training rows were enrolled"},
		{"a sealed update with a weight that was not enrolled", func(r *ran, e *evidence) {
			r.updates[0] = r.update(0, 3, func(u *Update) { u.Weight++ })
			r.content.Parts[0].Update = r.updates[0].CID
			*e = r.seal()
		}, "the update of %d: weight 100, in the update 101, but 100 training rows were enrolled"},
		{"a sealed round that is not the update's", func(r *ran, e *evidence) {
			r.content.Parts[2].Round = 3
			*e = r.seal()
		}, "the update of %e: it is not the one that was decided on"},
		{"a sealed update of another node", func(r *ran, e *evidence) {
			r.updates[0], r.content.Parts[0].Update = r.updates[1], r.updates[1].CID
			*e = r.seal()
		}, "the update of %d: it is not the one that was decided on"},
		{"a sealed enrolment of another node", func(r *ran, e *evidence) {
			r.content.Parts[0].Enrolment = r.content.Parts[1].Enrolment
			*e = r.seal()
		}, "the update of %d: the node's enrolment is missing"},
		{"a sealed update of another roster", func(r *ran, e *evidence) {
			r.updates[0] = r.update(0, 3, func(u *Update) { u.Roster = record.CIDOf(nil) })
			r.content.Parts[0].Update = r.updates[0].CID
			*e = r.seal()
		}, "the update of %d: it was trained with another roster"},
		{"a sealed roster that is not there", func(r *ran, e *evidence) {
			r.content.Roster = record.CIDOf(nil)
			*e = r.seal()
		}, "the roster is not the one that was decided on"},
	} {
		r := run(t)
		e := r.seal()
		c.swap(r, &e)
		want := strings.NewReplacer("%d", r.tk.Nodes[0].String(), "%e", r.tk.Nodes[2].String()).Replace(c.want)
		if _, err := e.verify(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", c.name, err, want)
		}
	}
}

func TestInputsComeBack(t *testing.T) {
	for name, in := range map[string]Inputs{"of a run": run(t).seal().in, "with vectors": runWide(t).seal().in, "empty": {}} {
		b, err := record.Encode(in)
		if err != nil {
			t.Fatal(err)
		}
		var back Inputs
		if err := record.Decode(b, &back); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		again, err := record.Encode(back)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%s is written in another way, %v", name, err)
		}
		if !bytes.Equal(back.Task, in.Task) || !slices.Equal(back.Roster, in.Roster) || !slices.EqualFunc(back.Enrolments, in.Enrolments, bytes.Equal) || !slices.EqualFunc(back.Updates, in.Updates, bytes.Equal) || !slices.EqualFunc(back.Vectors, in.Vectors, bytes.Equal) {
			t.Errorf("%s came back as something else", name)
		}
	}
}

// The model is the weighted mean, whatever the nodes and their weights.
func TestModelOf(t *testing.T) {
	tk := good()
	inputs(&tk, 3)
	rapid.Check(t, func(t *rapid.T) {
		var c FinalContent
		var params [][]float64
		for i := range rapid.IntRange(1, 20).Draw(t, "parts") {
			c.Parts = append(c.Parts, Part{Node: record.NodeID{byte(i)}, Weight: rapid.Uint64Range(1, MaxRows).Draw(t, "weight")})
			params = append(params, rapid.SliceOfN(rapid.Float64Range(-1e9, 1e9), 4, 4).Draw(t, "params"))
		}
		m, err := ModelOf(record.CIDOf(nil), tk, Roster{}, c, params)
		if err != nil {
			t.Fatal(err)
		}
		for j, got := range m.Params {
			sum, weight := new(big.Rat), new(big.Rat)
			for i, p := range c.Parts {
				w := new(big.Rat).SetInt64(int64(p.Weight))
				weight.Add(weight, w)
				sum.Add(sum, w.Mul(w, new(big.Rat).SetFloat64(params[i][j])))
			}
			want, _ := sum.Quo(sum, weight).Float64()
			if math.Abs(got-want) > 1e-12*max(1, math.Abs(want)) {
				t.Fatalf("parameter %d is %g, the mean is %g", j, got, want)
			}
		}
	})
}

func TestModelOfRefuses(t *testing.T) {
	tk := good()
	one := FinalContent{Parts: []Part{{Node: tk.Nodes[0], Weight: 1}}}
	heavy := FinalContent{Parts: []Part{{Node: tk.Nodes[0], Weight: 1}, {Node: tk.Nodes[1], Weight: math.MaxUint64}}}
	zeros := []float64{0, 0, 0, 0}
	for name, c := range map[string]struct {
		content FinalContent
		params  [][]float64
		want    error
	}{
		"an update too short": {one, [][]float64{{0, 0, 0}}, mixing.ErrShape},
		"NaN":                 {one, [][]float64{{0, 0, 0, math.NaN()}}, mixing.ErrRange},
		"too much weight":     {heavy, [][]float64{zeros, zeros}, mixing.ErrWeight},
	} {
		_, err := ModelOf(taskID(t), tk, Roster{}, c.content, c.params)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.content.Parts[len(c.params)-1].Node.String()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	m, err := ModelOf(taskID(t), tk, Roster{CID: taskID(t), Scaling: dataset.Scaling{Mean: zeros[1:], SD: []float64{1, 1, 1}}}, one, [][]float64{{1, 2, 3, 4}})
	if err != nil || m.Task != taskID(t) || m.Roster != taskID(t) || !m.Spec.Equal(learn.Spec{Kind: learn.Logistic, Inputs: 3, Classes: 2}) || !slices.Equal(m.Params, []float64{1, 2, 3, 4}) {
		t.Errorf("model %+v, %v", m, err)
	}
}
