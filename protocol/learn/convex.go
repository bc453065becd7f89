package learn

import (
	"math"
	"slices"

	"village/protocol/dataset"
)

// pulse calls progress now and then: every few hundredths of a second.
type pulse struct {
	progress func() error // may be nil
	work     int
}

// add counts work, in products of two numbers. Its error is that of progress.
func (p *pulse) add(work int) error {
	if p.work += work; p.work < 1<<24 || p.progress == nil {
		return nil
	}
	p.work = 0
	return p.progress()
}

// convex is the search for one layer of outputs o that minimises
//
//	1/n·Σ loss(base + o·(x, 1)) + weights/2·|o's weights|² + biases/2·|o's biases|²
//
// over the rows x of some data. O is row-major with shape outputs x (D+1), a row
// the weights of an output and its bias. Both penalties are positive, so that
// there is one minimum, and it is finite.
type convex struct {
	classes, outputs int
	data             dataset.Samples // D may be 0
	base             []float64       // scores, row-major with shape N x outputs; nil = 0
	weights, biases  float64
	beat             *pulse

	row, z, grad, hessian []float64
}

const (
	newtonParams = 256  // for more, the second derivatives cost more than they save
	convexSteps  = 500  // far more than are needed
	flat         = 1e-7 // a gradient with no larger element is zero
	remembered   = 10   // steps from which L-BFGS guesses the second derivatives
)

// minimise moves o to the minimum: by Newton's method, or, for many parameters, by
// L-BFGS (Nocedal and Wright 2006, algorithms 3.2 and 7.4), each step halved until
// the loss falls. O is finite whatever the rows are.
func (c *convex) minimise(o []float64) error {
	width := c.data.D + 1
	c.row, c.z, c.grad = make([]float64, width), make([]float64, c.outputs), make([]float64, len(o))
	newton := len(o) <= newtonParams
	if newton {
		c.hessian = make([]float64, len(o)*len(o))
	}
	value, err := c.evaluate(o)
	if err != nil {
		return err
	}
	var past curvature
	step, trial, last := make([]float64, len(o)), make([]float64, len(o)), make([]float64, len(o))
	for range convexSteps {
		if !(maxAbs(c.grad) > flat) {
			return nil
		}
		copy(last, c.grad)
		length := 1.0
		if copy(step, c.grad); !newton || !solve(c.hessian, step) {
			copy(step, c.grad)
			if !past.apply(step) {
				length = 1 / max(1, math.Sqrt(dot(step, step)))
			}
		}
		slope := dot(last, step)
		for {
			for i, s := range step {
				trial[i] = o[i] - length*s
			}
			next, err := c.evaluate(trial)
			if err != nil {
				return err
			}
			if next <= value-1e-4*length*slope && next < value {
				value = next
				break
			}
			if length /= 2; length < 1e-9 {
				return nil // no better number exists
			}
		}
		past.add(trial, o, c.grad, last)
		copy(o, trial)
	}
	return nil
}

// evaluate returns the value at o, and puts its derivatives into grad and, if there
// is room for it, the upper triangle of hessian.
func (c *convex) evaluate(o []float64) (float64, error) {
	width, k := len(c.row), c.outputs
	clear(c.grad)
	clear(c.hessian)
	work := 2 * len(o)
	if c.hessian != nil {
		work += len(o) * len(o) / 2
	}
	sum, share := 0.0, 1/float64(c.data.N)
	c.row[width-1] = 1
	for i := range c.data.N {
		copy(c.row, c.data.X[i*c.data.D:(i+1)*c.data.D])
		for j := range c.z {
			c.z[j] = dot(o[j*width:(j+1)*width], c.row)
			if c.base != nil {
				c.z[j] += c.base[i*k+j]
			}
		}
		sum += loss(c.classes, &c.data, i, c.z)
		derive(c.classes, &c.data, i, c.z)
		for j, r := range c.z {
			axpy(r*share, c.row, c.grad[j*width:(j+1)*width])
		}
		if c.hessian != nil {
			c.curve(i, share)
		}
		if err := c.beat.add(work); err != nil {
			return 0, err
		}
	}
	value := sum * share
	for i, v := range o {
		penalty := c.weights
		if i%width == width-1 {
			penalty = c.biases
		}
		value += penalty / 2 * v * v
		c.grad[i] += penalty * v
		if c.hessian != nil {
			c.hessian[i*len(o)+i] += penalty
		}
	}
	return value, nil
}

// curve adds the second derivatives of the loss of row i, whose first ones by the
// scores are in z.
func (c *convex) curve(i int, share float64) {
	width, n := len(c.row), len(c.grad)
	if c.classes == 0 {
		c.outer(0, 0, share)
		return
	}
	if len(c.z) == 1 {
		p := c.z[0] + float64(c.data.Y[i])
		c.outer(0, 0, share*p*(1-p))
		return
	}
	c.z[c.data.Y[i]]++ // the probabilities again
	for a, p := range c.z {
		c.outer(a*width, a*width, share*p*(1-p))
		for b := a + 1; b < len(c.z); b++ {
			// The block off the diagonal is symmetric, too, but all of it is
			// in the upper triangle.
			factor := -share * p * c.z[b]
			for j, x := range c.row {
				at := (a*width+j)*n + b*width
				axpy(factor*x, c.row, c.hessian[at:at+width])
			}
		}
	}
}

// outer adds factor·row·rowᵀ, its upper triangle, to the block of the hessian at
// a row and a column.
func (c *convex) outer(row, column int, factor float64) {
	n := len(c.grad)
	for j, x := range c.row {
		at := (row+j)*n + column
		axpy(factor*x, c.row[j:], c.hessian[at+j:at+len(c.row)])
	}
}

// solve puts a⁻¹·b into b, by Cholesky's factors of the symmetric a, whose upper
// triangle it takes and changes. It is false if a is not positive definite.
func solve(a, b []float64) bool {
	n := len(b)
	for i := range n {
		row := a[i*n+i : (i+1)*n]
		if !(row[0] > 0) || math.IsInf(row[0], 0) {
			return false
		}
		root := math.Sqrt(row[0])
		for j := range row {
			row[j] /= root
		}
		for k := i + 1; k < n; k++ {
			axpy(-row[k-i], row[k-i:], a[k*n+k:(k+1)*n])
		}
	}
	for i := range n {
		b[i] /= a[i*n+i]
		axpy(-b[i], a[i*n+i+1:(i+1)*n], b[i+1:])
	}
	for i := n - 1; i >= 0; i-- {
		b[i] = (b[i] - dot(a[i*n+i+1:(i+1)*n], b[i+1:])) / a[i*n+i]
	}
	return allFinite(b)
}

// curvature is what L-BFGS remembers of the last steps.
type curvature struct {
	steps, changes [][]float64 // of the parameters, and of the gradient
	inverse        []float64   // 1/(step·change)
}

func (h *curvature) add(to, from, grad, gradBefore []float64) {
	var s, y []float64
	if len(h.steps) == remembered {
		s, y = h.steps[0], h.changes[0]
		h.steps, h.changes, h.inverse = h.steps[1:], h.changes[1:], h.inverse[1:]
	} else {
		s, y = make([]float64, len(to)), make([]float64, len(to))
	}
	for i := range to {
		s[i], y[i] = to[i]-from[i], grad[i]-gradBefore[i]
	}
	if sy := dot(s, y); sy > 0 && !math.IsInf(1/sy, 0) {
		h.steps, h.changes, h.inverse = append(h.steps, s), append(h.changes, y), append(h.inverse, 1/sy)
	}
}

// apply turns a gradient into a step. It is false if nothing is remembered.
func (h *curvature) apply(g []float64) bool {
	n := len(h.steps)
	if n == 0 {
		return false
	}
	factors := make([]float64, n)
	for i := n - 1; i >= 0; i-- {
		factors[i] = h.inverse[i] * dot(h.steps[i], g)
		axpy(-factors[i], h.changes[i], g)
	}
	scale := 1 / (h.inverse[n-1] * dot(h.changes[n-1], h.changes[n-1]))
	for i := range g {
		g[i] *= scale
	}
	for i := range n {
		axpy(factors[i]-h.inverse[i]*dot(h.changes[i], g), h.steps[i], g)
	}
	return true
}

// maxAbs returns the largest absolute value, NaN if there is one.
func maxAbs(xs []float64) float64 {
	top := 0.0
	for _, x := range xs {
		top = max(top, math.Abs(x))
	}
	return top
}

// tensor returns o in the order of a model's parameters: the weights, then the
// biases.
func (c *convex) tensor(o []float64) []float64 {
	width := c.data.D + 1
	params := make([]float64, 0, len(o))
	for row := range slices.Chunk(o, width) {
		params = append(params, row[:width-1]...)
	}
	for row := range slices.Chunk(o, width) {
		params = append(params, row[width-1])
	}
	return params
}
