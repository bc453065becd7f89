package pushsum

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"village/protocol/average"
)

// nodes returns one of push-sum for each vector.
func nodes(t testing.TB, shape average.Shape, weights []uint64, vectors [][]float64) []*Node {
	t.Helper()
	all := make([]*Node, shape.Nodes)
	for i := range all {
		var err error
		if all[i], err = New(shape, i, weights[i], vectors[i]); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// contributions returns vectors within a bound of 8, their weights, and the
// shape that fits.
func contributions(seed uint64, n, length int) (average.Shape, []uint64, [][]float64) {
	random := rand.New(rand.NewPCG(seed, 1))
	shape := average.Shape{Nodes: n, Length: length, Bound: 8}
	weights, vectors := make([]uint64, n), make([][]float64, n)
	for i := range vectors {
		weights[i] = 1 + random.Uint64N(300)
		shape.Weight += weights[i]
		vectors[i] = make([]float64, length)
		for k := range vectors[i] {
			vectors[i][k] = 16*random.Float64() - 8
		}
	}
	return shape, weights, vectors
}

// mean is the definition, in float64.
func mean(weights []uint64, vectors [][]float64) []float64 {
	sum, total := make([]float64, len(vectors[0])), 0.0
	for i, v := range vectors {
		total += float64(weights[i])
		for k, x := range v {
			sum[k] += float64(weights[i]) * x
		}
	}
	for k := range sum {
		sum[k] /= total
	}
	return sum
}

// off is the largest difference of two vectors.
func off(a, b []float64) float64 {
	d := 0.0
	for k, x := range a {
		d = max(d, math.Abs(x-b[k]))
	}
	return d
}

// check holds what must be so at any time of nodes that are alone in the world:
// each ledger is right, no estimate is beyond the bound, and what is held and
// under way is what was there at the beginning.
func check(t interface{ Fatalf(string, ...any) }, all []*Node) {
	for k := range all[0].own {
		var sum, own int64
		for i, p := range all {
			if err := p.Ledger(); err != nil {
				t.Fatalf("node %d: %v", i, err)
			}
			if p.held[0] < 1 || p.held[k] < -p.held[0] || p.held[k] > p.held[0] {
				t.Fatalf("node %d holds %d with weight %d", i, p.held[k], p.held[0])
			}
			sum += p.held[k]
			own += p.own[k]
			for j, q := range all {
				if i == j {
					continue
				}
				given, _ := p.lookup(j)
				_, received := q.lookup(i)
				way := given[k] - received[k]
				if k == 0 && way < 0 {
					t.Fatalf("weight %d is under way from node %d to %d", way, i, j)
				}
				sum += way
			}
		}
		if sum != own {
			t.Fatalf("number %d: %d is there, of %d", k, sum, own)
		}
	}
}

// lookup returns what was given to a node and received from it.
func (p *Node) lookup(node int) (given, received []int64) {
	if i, ok := p.find(node); ok {
		return p.links[i].given, p.links[i].received
	}
	return make([]int64, len(p.own)), make([]int64, len(p.own))
}

func TestNothingIsLostWhateverHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 6).Draw(t, "nodes")
		shape := average.Shape{Nodes: n, Length: rapid.IntRange(1, 3).Draw(t, "length"), Bound: rapid.SampledFrom([]float64{1e-9, .75, 1, 3, 1e30}).Draw(t, "bound")}
		weights, vectors := make([]uint64, n), make([][]float64, n)
		for i := range n {
			weights[i] = rapid.Uint64Range(1, 1<<20).Draw(t, "weight")
			shape.Weight += weights[i]
			vectors[i] = rapid.SliceOfN(rapid.Float64Range(-shape.Bound, shape.Bound), shape.Length, shape.Length).Draw(t, "vector")
		}
		all, saved := make([]*Node, n), make([][]byte, n)
		for i := range all {
			p, err := New(shape, i, weights[i], vectors[i])
			if err != nil {
				t.Fatal(err)
			}
			all[i], saved[i] = p, p.Append(nil)
		}
		type sent struct {
			from, to int
			m        Message
		}
		var under []sent
		send := func(i int, shares []Share) {
			messages, err := all[i].Send(shares)
			if err != nil {
				t.Fatal(err)
			}
			saved[i] = all[i].Append(nil)
			for k, m := range messages {
				under = append(under, sent{i, shares[k].Node, m})
			}
		}
		node := rapid.IntRange(0, n-1)
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0, 1:
				i := node.Draw(t, "sender")
				var shares []Share
				left := 1.0
				for j := range n {
					if j != i && rapid.Bool().Draw(t, "to") {
						f := left * rapid.Float64Range(0, .999).Draw(t, "part")
						shares = append(shares, Share{j, f})
						left -= f
					}
				}
				send(i, shares)
			case 2, 3: // any message that was ever sent
				if len(under) > 0 {
					s := under[rapid.IntRange(0, len(under)-1).Draw(t, "message")]
					if _, err := all[s.to].Receive(s.from, s.m); err != nil {
						t.Fatal(err)
					}
				}
			case 4:
				i := node.Draw(t, "fails")
				p, err := Restore(shape, i, saved[i])
				if err != nil {
					t.Fatal(err)
				}
				all[i] = p
			}
			check(t, all)
		}
		// Everyone says once more what it has given, and then nothing is under way.
		under = nil
		for i := range n {
			var shares []Share
			for j := range n {
				if j != i {
					shares = append(shares, Share{j, 0})
				}
			}
			send(i, shares)
		}
		for _, s := range under {
			if _, err := all[s.to].Receive(s.from, s.m); err != nil {
				t.Fatal(err)
			}
		}
		for k := range all[0].own {
			var held, own int64
			for _, p := range all {
				held, own = held+p.held[k], own+p.own[k]
			}
			if held != own {
				t.Fatalf("number %d: %d is held, of %d", k, held, own)
			}
		}
	})
}

func TestEstimateOfOneIsItsVector(t *testing.T) {
	for _, c := range []struct {
		total, weight uint64
		bound         float64
		x             []float64
	}{
		{1, 1, 1, []float64{0, 1, -1, 1. / 3, 1e-300}},
		{1 << 32, 1, 2, []float64{1.5, -2}},
		{1 << 32, 1 << 32, 1 << 29, []float64{1 << 29, -math.Pi}},
		{193 * 300, 7, 3.7, []float64{3.7, -.1}},
		{1000, 30, math.Ldexp(1, 500), []float64{math.Ldexp(1, 500), 1}},
		{1000, 30, math.Ldexp(1, -500), []float64{math.Ldexp(-1, -500), 0}},
	} {
		shape := average.Shape{Nodes: 3, Length: len(c.x), Weight: c.total, Bound: c.bound}
		p, err := New(shape, 1, c.weight, c.x)
		if err != nil {
			t.Fatalf("%v: %v", c, err)
		}
		got, weight := p.Estimate()
		// Half a unit, and what a float64 rounds.
		most := 2*c.bound*math.Ldexp(1, -shape.Point())/float64(c.weight) + 4e-16*c.bound
		if d := off(got, c.x); d > most || weight != float64(c.weight) {
			t.Errorf("%v: estimate %v with weight %g, off by %g of at most %g", c, got, weight, d, most)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	fine := average.Shape{Nodes: 3, Length: 2, Weight: 10, Bound: 4}
	with := func(change func(*average.Shape)) average.Shape { s := fine; change(&s); return s }
	for name, c := range map[string]struct {
		shape  average.Shape
		self   int
		weight uint64
		x      []float64
		want   error // or nil for any
	}{
		"NaN":             {fine, 0, 1, []float64{0, math.NaN()}, average.ErrBound},
		"Inf":             {fine, 0, 1, []float64{math.Inf(1), 0}, average.ErrBound},
		"too large":       {fine, 0, 1, []float64{-4.001, 0}, average.ErrBound},
		"no weight":       {fine, 0, 0, []float64{0, 0}, average.ErrBound},
		"too much weight": {fine, 0, 11, []float64{0, 0}, average.ErrBound},
		"other length":    {fine, 0, 1, []float64{0}, average.ErrLength},
		"no such place":   {fine, 3, 1, []float64{0, 0}, average.ErrNode},
		"place below 0":   {fine, -1, 1, []float64{0, 0}, average.ErrNode},
		"no nodes":        {with(func(s *average.Shape) { s.Nodes = 0 }), 0, 1, []float64{0, 0}, nil},
		"no parameters":   {with(func(s *average.Shape) { s.Length = 0 }), 0, 1, nil, nil},
		"a long vector":   {with(func(s *average.Shape) { s.Length = MaxLength + 1 }), 0, 1, nil, nil},
		"no total":        {with(func(s *average.Shape) { s.Weight = 0 }), 0, 1, []float64{0, 0}, nil},
		"a large total":   {with(func(s *average.Shape) { s.Weight = 1<<32 + 1 }), 0, 1, []float64{0, 0}, nil},
		"bound 0":         {with(func(s *average.Shape) { s.Bound = 0 }), 0, 1, []float64{0, 0}, nil},
		"bound NaN":       {with(func(s *average.Shape) { s.Bound = math.NaN() }), 0, 1, []float64{0, 0}, nil},
		"bound Inf":       {with(func(s *average.Shape) { s.Bound = math.Inf(1) }), 0, 1, []float64{0, 0}, nil},
	} {
		if _, err := New(c.shape, c.self, c.weight, c.x); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", name, err, c.want)
		}
	}
}

// TestTotalsWrapAround lets two nodes exchange until what they have ever given
// has left the range of an int64 many times.
func TestTotalsWrapAround(t *testing.T) {
	shape, weights, vectors := contributions(3, 2, 3)
	all := nodes(t, shape, weights, vectors)
	wrapped := 0
	for range 200 {
		for i, p := range all {
			before, _ := p.lookup(1 - i)
			weight := before[0]
			m, err := p.Send([]Share{{1 - i, .5}})
			if err != nil {
				t.Fatal(err)
			}
			if m[0].Total[0] < weight {
				wrapped++
			}
			if _, err := all[1-i].Receive(i, m[0]); err != nil {
				t.Fatal(err)
			}
		}
		check(t, all)
	}
	if wrapped < 10 {
		t.Errorf("the totals have wrapped %d times", wrapped)
	}
	for i, p := range all {
		got, weight := p.Estimate()
		if d := off(got, mean(weights, vectors)); d > 1e-14 {
			t.Errorf("node %d is off by %g, with weight %g", i, d, weight)
		}
	}
}

// TestLongAlone cuts a node off while it goes on giving: in the end it holds the
// least weight that there is, and it has the mean when the others are back.
func TestLongAlone(t *testing.T) {
	shape, weights, vectors := contributions(4, 2, 2)
	all := nodes(t, shape, weights, vectors)
	for range 500 {
		if _, err := all[0].Send([]Share{{1, .9}}); err != nil {
			t.Fatal(err)
		}
		check(t, all)
	}
	if all[0].held[0] != 1 {
		t.Errorf("it holds %d", all[0].held[0])
	}
	for range 60 {
		for i, p := range all {
			m, err := p.Send([]Share{{1 - i, .5}})
			if err == nil {
				_, err = all[1-i].Receive(i, m[0])
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, p := range all {
		if got, _ := p.Estimate(); off(got, mean(weights, vectors)) > 1e-14 {
			t.Errorf("node %d is off by %g", i, off(got, mean(weights, vectors)))
		}
	}
}

func TestSendRefuses(t *testing.T) {
	shape, weights, vectors := contributions(1, 4, 2)
	p := nodes(t, shape, weights, vectors)[1]
	before := p.Append(nil)
	for name, shares := range map[string][]Share{
		"itself":        {{1, .5}},
		"nobody":        {{4, .5}},
		"below 0":       {{-1, .5}},
		"twice":         {{2, .1}, {2, .1}},
		"out of order":  {{2, .1}, {0, .1}},
		"all of it":     {{0, 1}},
		"all in two":    {{0, .5}, {2, .5}},
		"less than 0":   {{0, -.1}},
		"NaN":           {{0, math.NaN()}},
		"more than all": {{0, math.Inf(1)}},
	} {
		if _, err := p.Send(shares); err == nil {
			t.Errorf("%s: sent", name)
		}
	}
	if !bytes.Equal(p.Append(nil), before) {
		t.Error("what was refused has changed the state")
	}
}

func TestReceiveRefuses(t *testing.T) {
	shape, weights, vectors := contributions(2, 3, 2)
	all := nodes(t, shape, weights, vectors)
	p := all[0]
	m, err := all[1].Send([]Share{{0, .5}})
	if err != nil {
		t.Fatal(err)
	}
	if news, err := p.Receive(1, m[0]); !news || err != nil {
		t.Fatal(news, err)
	}
	last := m[0].Total
	adds := func(number uint64, d ...int64) Message {
		total := slices.Clone(last)
		for k := range d {
			total[k] += d[k]
		}
		return Message{number, total}
	}
	before := p.Append(nil)
	for name, c := range map[string]struct {
		from int
		m    Message
		want error // nil if it is no news
	}{
		"again":               {1, m[0], nil},
		"an older one":        {1, adds(0, 1, 0, 0), nil},
		"another of one name": {1, adds(1, 1, 0, 0), nil},
		"itself":              {0, m[0], average.ErrNode},
		"nobody":              {3, m[0], average.ErrNode},
		"below 0":             {-1, m[0], average.ErrNode},
		"too short":           {1, Message{2, last[:2]}, average.ErrLength},
		"too long":            {1, Message{2, append(slices.Clone(last), 0)}, average.ErrLength},
		"nothing":             {1, Message{2, nil}, average.ErrLength},
		"negative weight":     {1, adds(2, -1, 0, 0), average.ErrBound},
		"too heavy":           {1, adds(2, shape.Limit()-p.held[0]+1, 0, 0), average.ErrBound},
		"heavier than all":    {1, adds(2, math.MaxInt64, 0, 0), average.ErrBound},
		"mean too large":      {1, adds(2, 5, 6, 0), average.ErrBound},
		"mean too small":      {1, adds(2, 5, 0, -6), average.ErrBound},
		"mean of no weight":   {1, adds(2, 0, 1, 0), average.ErrBound},
		"far beyond":          {1, adds(2, 5, math.MinInt64, 0), average.ErrBound},
		"first too heavy":     {2, Message{1, []int64{math.MaxInt64, 0, 0}}, average.ErrBound},
	} {
		news, err := p.Receive(c.from, c.m)
		if news || !errors.Is(err, c.want) {
			t.Errorf("%s: news %v, error %v, want %v", name, news, err, c.want)
		}
		if !bytes.Equal(p.Append(nil), before) {
			t.Fatalf("%s: what was refused has changed the state", name)
		}
	}
	if news, err := p.Receive(1, adds(7, 5, -5, 5)); !news || err != nil {
		t.Errorf("the message at the bound: news %v, error %v", news, err)
	}
}

func TestLedgerTellsWhatIsLost(t *testing.T) {
	shape, weights, vectors := contributions(2, 3, 2)
	p := nodes(t, shape, weights, vectors)[0]
	p.held[1]--
	if err := p.Ledger(); !errors.Is(err, ErrLedger) {
		t.Errorf("error %v", err)
	}
}

// busy returns a node that has dealt with others.
func busy(t testing.TB) (average.Shape, *Node) {
	shape, weights, vectors := contributions(5, 5, 2)
	all := nodes(t, shape, weights, vectors)
	for range 3 {
		for i, to := range []int{3, 3, 0, 2, 0} {
			m, err := all[i].Send([]Share{{to, .3}})
			if err == nil {
				_, err = all[to].Receive(i, m[0])
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return shape, all[3]
}

func TestRestoredNodeGoesOn(t *testing.T) {
	shape, p := busy(t)
	saved := p.Append(nil)
	q, err := Restore(shape, 3, saved)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(q.Append([]byte("x")), append([]byte("x"), saved...)) {
		t.Fatal("the restored state is another one")
	}
	a, err := p.Send([]Share{{0, .25}, {4, .5}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := q.Send([]Share{{0, .25}, {4, .5}})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("sends %v, restored %v", a, b)
	}
}

func TestRestoreRefuses(t *testing.T) {
	shape, p := busy(t)
	saved := p.Append(nil)
	refused := func(what string, shape average.Shape, self int, b []byte, want error) {
		t.Helper()
		if _, err := Restore(shape, self, b); !errors.Is(err, want) {
			t.Errorf("%s: error %v, want %v", what, err, want)
		}
	}
	for size := range saved {
		refused(fmt.Sprint("cut to ", size), shape, 3, saved[:size], ErrState)
	}
	refused("a byte more", shape, 3, append(slices.Clone(saved), 0), ErrState)
	refused("another node's", shape, 2, saved, ErrState)
	refused("nobody's", shape, 5, saved, average.ErrNode)
	other := shape
	other.Bound *= 2
	refused("another bound", other, 3, saved, ErrState)
	// The ledger holds every number that counts, to the last bit. What it does
	// not hold is how messages are numbered.
	const number, vector = 48, 3 * 8
	const links, link = number + 8 + 2*vector, 16 + 2*vector
	for at := range saved {
		if at >= number && at < number+8 || at >= links && (at-links)%link >= 8 && (at-links)%link < 16 {
			continue
		}
		for bit := range 8 {
			b := slices.Clone(saved)
			b[at] ^= 1 << bit
			refused(fmt.Sprintf("bit %d of byte %d", bit, at), shape, 3, b, ErrState)
		}
	}
	// Whole in itself, but nothing that a node can come to.
	for what, change := range map[string]func(*Node){
		"weight below 1":  func(p *Node) { p.own[0], p.held[0] = p.own[0]-p.held[0], 0 },
		"part of a row":   func(p *Node) { p.own[0]++; p.held[0]++ },
		"mean too large":  func(p *Node) { d := p.held[0] + 1 - p.held[1]; p.held[1] += d; p.links[0].received[1] += d },
		"links backwards": func(p *Node) { slices.Reverse(p.links) },
		"two of one node": func(p *Node) { p.links = append(p.links, emptyLink(p.links)) },
		"link to itself":  func(p *Node) { p.links[1].node = 3 },
	} {
		_, p := busy(t)
		change(p)
		if err := p.Ledger(); err != nil && what != "weight below 1" {
			t.Fatalf("%s: %v", what, err)
		}
		refused(what, shape, 3, p.Append(nil), ErrState)
	}
}

// emptyLink returns one to the last node.
func emptyLink(links []link) link {
	n := len(links[0].given)
	return link{node: links[len(links)-1].node, given: make([]int64, n), received: make([]int64, n)}
}

func FuzzRestore(f *testing.F) {
	shape, p := busy(f)
	saved := p.Append(nil)
	f.Add(saved)
	f.Add(saved[:len(saved)-40])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Restore(shape, 3, b)
		if err != nil {
			return
		}
		if !bytes.Equal(p.Append(nil), b) {
			t.Fatal("two states have the same bytes")
		}
		if _, err := p.Send([]Share{{0, .2}, {1, .3}}); err != nil {
			t.Fatal(err)
		}
		if err := p.Ledger(); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzReceive(f *testing.F) {
	f.Add(1, uint64(4), []byte{1, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Add(2, uint64(1<<63), bytes.Repeat([]byte{0xff}, 24))
	f.Add(0, uint64(9), bytes.Repeat([]byte{0x10}, 24))
	f.Fuzz(func(t *testing.T, from int, number uint64, b []byte) {
		shape, p := busy(t)
		m := Message{Number: number}
		for ; len(b) >= 8 && len(m.Total) < 8; b = b[8:] {
			m.Total = append(m.Total, int64(binary.LittleEndian.Uint64(b)))
		}
		before := p.Append(nil)
		news, err := p.Receive(from, m)
		if !news && !bytes.Equal(p.Append(nil), before) {
			t.Fatal("what was refused has changed the state")
		}
		if news && err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(shape, 3, p.Append(nil)); err != nil {
			t.Fatal("no node can have come to this state: ", err)
		}
	})
}
