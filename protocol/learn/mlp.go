package learn

import (
	"unsafe"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"

	"village/protocol/dataset"
)

const (
	blockRows    = 512     // rows that a network computes at a time, at most,
	blockNumbers = 1 << 20 // and numbers of a layer
)

// network computes a perceptron in 32-bit floats, whose matrix products take half
// the time, a block of rows at a time. It is working space: all of it is set
// before it is used.
type network struct {
	classes int
	layers  []layer
	block   int // rows

	params, grad, start, shift []float32
	moments                    moments[float32]

	x       []float32   // a block's rows
	units   [][]float32 // by layer, what it gives for the block's rows
	deltas  []float32   // derivatives of the loss by what a layer gives,
	deltas2 []float32   // and by what the layer before gives
	z       []float64   // scores of a row
}

// resize makes room for a model and blocks of the given number of rows, or fewer.
func (n *network) resize(s Spec, rows int) {
	n.classes, n.layers = s.Classes, s.layers()
	widest := s.outputs()
	for _, width := range s.Hidden {
		widest = max(widest, width)
	}
	n.block = max(1, min(blockRows, rows, blockNumbers/max(widest, s.Inputs)))
	aligned(&n.x, n.block*s.Inputs)
	aligned(&n.deltas, n.block*widest)
	aligned(&n.deltas2, n.block*widest)
	for len(n.units) < len(n.layers) {
		n.units = append(n.units, nil)
	}
	for i, l := range n.layers {
		aligned(&n.units[i], n.block*l.out)
	}
	sized(&n.z, s.outputs())
}

// aligned makes a slice that is kept for reuse n long, its memory from a multiple
// of 16 bytes on: the order of the sums in gonum's inner products depends on it.
func aligned(kept *[]float32, n int) []float32 {
	if cap(*kept) < n {
		room := make([]float32, n+3)
		skip := (-uintptr(unsafe.Pointer(unsafe.SliceData(room))) & 15) / 4
		*kept = room[skip : int(skip)+n]
	}
	*kept = (*kept)[:n]
	return *kept
}

// narrow puts numbers into a slice that is kept for reuse.
func narrow(kept *[]float32, from []float64) []float32 {
	to := aligned(kept, len(from))
	for i, x := range from {
		to[i] = float32(x)
	}
	return to
}

func widen(to []float64, from []float32) {
	for i, x := range from {
		to[i] = float64(x)
	}
}

// matrix returns the first rows of a row-major one.
func matrix(rows, cols int, data []float32) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data[:rows*cols]}
}

// pick puts rows of the data into x: those of the numbers listed, or count ones
// from a number on.
func (n *network) pick(data *dataset.Samples, rows []int, from, count int) {
	d := data.D
	for k := range count {
		i := from + k
		if rows != nil {
			i = rows[k]
		}
		to := n.x[k*d : k*d+d]
		for j, v := range data.X[i*d : i*d+d] {
			to[j] = float32(v)
		}
	}
}

// forward computes what the layers give for the rows in x.
func (n *network) forward(rows int) {
	in := n.x
	for i, l := range n.layers {
		weights, biases := split(l, n.params)
		out := n.units[i][:rows*l.out]
		for r := range rows {
			copy(out[r*l.out:], biases)
		}
		blas32.Gemm(blas.NoTrans, blas.Trans, 1, matrix(rows, l.in, in), matrix(l.out, l.in, weights), 1, matrix(rows, l.out, out))
		if i < len(n.layers)-1 {
			for j, v := range out {
				out[j] = max(v, 0)
			}
		}
		in = out
	}
}

// backward adds to the gradient that of the rows in x, for which forward has
// computed the layers, given the derivatives by the outputs in deltas.
func (n *network) backward(rows int) {
	deltas, before := n.deltas, n.deltas2
	for i := len(n.layers) - 1; i >= 0; i-- {
		l := n.layers[i]
		dw, db := split(l, n.grad)
		in := n.x
		if i > 0 {
			in = n.units[i-1]
		}
		delta := matrix(rows, l.out, deltas)
		blas32.Gemm(blas.Trans, blas.NoTrans, 1, delta, matrix(rows, l.in, in), 1, matrix(l.out, l.in, dw))
		for r := range rows {
			for j, v := range delta.Data[r*l.out : (r+1)*l.out] {
				db[j] += v
			}
		}
		if i == 0 {
			break
		}
		weights, _ := split(l, n.params)
		blas32.Gemm(blas.NoTrans, blas.NoTrans, 1, delta, matrix(l.out, l.in, weights), 0, matrix(rows, l.in, before))
		for j, v := range in[:rows*l.in] {
			if v == 0 {
				before[j] = 0
			}
		}
		deltas, before = before, deltas
	}
}

// gradient computes that of the mean loss and the penalty over some rows, nil meaning
// all. Pause is called between blocks, if it is not nil.
func (n *network) gradient(data *dataset.Samples, rows []int, l2 float64, pause func() error) error {
	clear(n.grad)
	if l2 > 0 {
		for _, l := range n.layers {
			weights, _ := split(l, n.params)
			dw, _ := split(l, n.grad)
			for i, w := range weights {
				dw[i] = float32(l2) * w
			}
		}
	}
	count := len(rows)
	if rows == nil {
		count = data.N
	}
	share := 1 / float64(count)
	outputs := len(n.z)
	for from := 0; from < count; from += n.block {
		if from > 0 && pause != nil {
			if err := pause(); err != nil {
				return err
			}
		}
		size := min(n.block, count-from)
		var block []int
		if rows != nil {
			block = rows[from : from+size]
		}
		n.pick(data, block, from, size)
		n.forward(size)
		scores := n.units[len(n.layers)-1]
		for k := range size {
			i := from + k
			if rows != nil {
				i = block[k]
			}
			at := k * outputs
			widen(n.z, scores[at:at+outputs])
			derive(n.classes, data, i, n.z)
			for c, v := range n.z {
				n.deltas[at+c] = float32(v * share)
			}
		}
		n.backward(size)
	}
	return nil
}

// train is [Spec.Train] for arguments that were checked. Pause is called within
// long steps, if it is not nil.
func (n *network) train(s Spec, params []float64, data dataset.Samples, t Training, order *[]int, pause func() error) ([]float64, int, error) {
	batch := data.N
	if t.Batch > 0 {
		batch = min(batch, t.Batch)
	}
	n.resize(s, batch)
	narrow(&n.params, params)
	aligned(&n.grad, len(params))
	shift := t.Shift
	if shift != nil {
		narrow(&n.shift, shift)
	} else {
		n.shift = n.shift[:0]
	}
	d := newDescent(t, narrow(&n.start, params), n.shift, &n.moments)
	steps, err := walk(data.N, t, order, func(rows []int) (finite bool, err error) {
		if err := n.gradient(&data, rows, t.L2, pause); err != nil {
			return false, err
		}
		return d.step(n.params, n.grad), nil
	})
	if err != nil {
		return nil, steps, err
	}
	out := make([]float64, len(params))
	widen(out, n.params)
	return out, steps, nil
}

// gradientOf puts the gradient of [Spec.Loss] into grad.
func (n *network) gradientOf(s Spec, params []float64, data dataset.Samples, l2 float64, grad []float64) {
	n.resize(s, data.N)
	narrow(&n.params, params)
	aligned(&n.grad, len(params))
	n.gradient(&data, nil, l2, nil) // which nothing ends
	widen(grad, n.grad)
}

// scoreEach is [Spec.scoreEach].
func (n *network) scoreEach(s Spec, params []float64, data dataset.Samples, z []float64, do func(i int, z []float64)) {
	n.resize(s, data.N)
	narrow(&n.params, params)
	n.blocks(data, func(from, size int) error { // which nothing ends
		scores := n.units[len(n.layers)-1]
		for k := range size {
			widen(z, scores[k*len(z):(k+1)*len(z)])
			do(from+k, z)
		}
		return nil
	})
}

// blocks calls do after it has computed the layers for each block of rows. An
// error of do ends it.
func (n *network) blocks(data dataset.Samples, do func(from, size int) error) error {
	for from := 0; from < data.N; from += n.block {
		size := min(n.block, data.N-from)
		n.pick(&data, nil, from, size)
		n.forward(size)
		if err := do(from, size); err != nil {
			return err
		}
	}
	return nil
}
