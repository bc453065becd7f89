package mixing

import "slices"

// schedule is the Base-(k+1) graph (Takezawa et al. 2023, "Beyond Exponential
// Graph", algorithm 3): n = groups x size, where groups has only prime factors
// up to k+1. First the members of each group average, by algorithm 2, then
// those that hold the same place in all groups, by algorithm 1. Where
// algorithm 2 on all nodes takes fewer rounds, groups is 1.
type schedule struct {
	simple
	groups []int // factors of the number of groups
	period int
}

// simple is the simple Base-(k+1) graph (algorithm 2). The nodes are divided
// as the digits of their number in base k+1 say: block l has its digit times a
// power of k+1 of them. Then
//
//  1. each block averages,
//  2. one block after the other exchanges with all smaller ones, so that these
//     hold the mean of it and themselves, and each part of the block has the
//     mean of all as its own mean,
//  3. each part of a block averages.
type simple struct {
	n, k   int
	blocks []block
	first  int // rounds of the first step
	rounds int
}

type block struct {
	start, size int
	part        int     // size of a part, a power of k+1
	whole       []int   // factors of size
	within      []int   // factors of part
	rest        int     // nodes of all smaller blocks
	share       float64 // of a smaller block's node in the exchange, over all its neighbours
}

func newSchedule(n, k int) schedule {
	all := schedule{simple: newSimple(n, k)}
	all.period = all.rounds
	size := n
	for p := 2; p <= k+1; p++ {
		for size%p == 0 {
			size /= p
		}
	}
	groups := schedule{simple: newSimple(size, k), groups: factors(n/size, k+1)}
	groups.period = groups.rounds + len(groups.groups)
	if all.period < groups.period {
		return all
	}
	return groups
}

func newSimple(n, k int) simple {
	s := simple{n: n, k: k}
	if f := factors(n, k+1); f != nil { // a hyper-hypercube alone
		s.blocks = []block{{size: n, part: n, whole: f, within: f}}
		s.first, s.rounds = len(f), len(f)
		return s
	}
	power := 1
	for power*(k+1) <= n {
		power *= k + 1
	}
	for start := 0; start < n; power /= k + 1 {
		size := (n - start) / power * power
		if size == 0 {
			continue
		}
		s.blocks = append(s.blocks, block{
			start: start, size: size, part: power, whole: factors(size, k+1), within: factors(power, k+1),
			rest: n - start - size, share: float64(size) / float64(n-start),
		})
		start += size
	}
	s.first = len(s.blocks[0].whole)
	s.rounds = s.first + 1 + len(s.blocks[0].within)
	return s
}

// factors returns the fewest numbers from 2 to most whose product is n, smallest
// first; none for 1, and nil where there are none.
func factors(n, most int) []int {
	known := map[int][]int{1: {}}
	var find func(n int) []int
	find = func(n int) []int {
		best, ok := known[n]
		if ok {
			return best
		}
		for f := min(n, most); f >= 2; f-- {
			if n%f != 0 {
				continue
			}
			if rest := find(n / f); rest != nil && (best == nil || len(rest)+1 < len(best)) {
				best = append(slices.Clone(rest), f)
			}
		}
		known[n] = best
		return best
	}
	found := slices.Clone(find(n))
	slices.Sort(found)
	return found
}

func (s schedule) edges(round uint64, i int, buf []Edge) []Edge {
	if s.period == 0 {
		return buf // of a single node
	}
	m := int((round - 1) % uint64(s.period))
	group, place := i/s.n, i%s.n
	if m < s.rounds {
		return s.simple.edges(m, place, i-place, buf)
	}
	return cube(s.groups, m-s.rounds, group, place, s.n, buf)
}

// edges appends those of place i in round m, counted from 0; all places move by
// start.
func (s *simple) edges(m, i, start int, buf []Edge) []Edge {
	l := 0
	for i >= s.blocks[l].start+s.blocks[l].size {
		l++
	}
	b := &s.blocks[l]
	at := i - b.start
	if m < s.first {
		return cube(b.whole, m, at, start+b.start, 1, buf)
	}
	m -= s.first
	last := len(s.blocks) - 1
	switch {
	case m < l: // with the larger block m
		o := &s.blocks[m]
		parts := o.size / o.part
		w := o.share / float64(parts)
		for p := range parts {
			j := o.start + p*o.part + i - (o.start + o.size)
			buf = append(buf, Edge{start + j, w, w})
		}
		return buf
	case m == l && l < last: // with the smaller ones
		parts := b.size / b.part
		if t := at % b.part; t < b.rest {
			w := b.share / float64(parts)
			return append(buf, Edge{start + b.start + b.size + t, w, w})
		}
		// Those left alone hold the same; where there is training between the
		// rounds, it helps that they mix, too.
		alone := b.part - b.rest // of each part
		rank := at/b.part*alone + at%b.part - b.rest
		from := rank - rank%(s.k+1)
		size := min(s.k+1, parts*alone-from)
		w := 1 / float64(size)
		for r := from; r < from+size; r++ {
			if r != rank {
				j := b.start + r/alone*b.part + b.rest + r%alone
				buf = append(buf, Edge{start + j, w, w})
			}
		}
		return buf
	}
	m -= l
	if l < last {
		m--
	}
	if b.part == 1 {
		return cube(b.whole, m, at, start+b.start, 1, buf)
	}
	in := at % b.part
	return cube(b.within, m, in, start+i-in, 1, buf)
}

// cube is the hyper-hypercube (algorithm 1): places are numbers with digits to
// mixed bases, and in round m, counted from 0, those average that differ in
// digit m alone. When the digits end they come again. Place x stands for the
// node start + x*stride.
func cube(bases []int, m, x, start, stride int, buf []Edge) []Edge {
	if len(bases) == 0 {
		return buf
	}
	m %= len(bases)
	step := 1
	for _, f := range bases[:m] {
		step *= f
	}
	f := bases[m]
	digit := x / step % f
	w := 1 / float64(f)
	for d := range f {
		if d != digit {
			buf = append(buf, Edge{start + (x+(d-digit)*step)*stride, w, w})
		}
	}
	return buf
}
