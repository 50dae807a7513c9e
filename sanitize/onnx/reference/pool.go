package reference

import "math"

var pools = map[string]kernel{
	"MaxPool":           maxPool,
	"AveragePool":       averagePool,
	"LpPool":            lpPool,
	"GlobalLpPool":      globalLpPool,
	"GlobalAveragePool": global(func(acc, x float64, n int64) float64 { return acc + x/float64(n) }, 0),
	"GlobalMaxPool":     global(func(acc, x float64, _ int64) float64 { return math.Max(acc, x) }, math.Inf(-1)),
}

// maxPool returns the maxima of the windows and where they are: flat positions in all of x, with the spatial dimensions in column-major
// order if storage_order is 1. The first of equal maxima wins.
func maxPool(c *call) []*Tensor {
	x := c.in[0]
	in := x.Shape[2:]
	win := windowOf(c, nil, in)
	spatial := win.outputs(in, c.Int("ceil_mode", 0) != 0)
	y := newFloats(append([]int64{x.Shape[0], x.Shape[1]}, spatial...))
	indices := newInts(y.Shape)
	position := make([]int64, len(in))
	columns := c.Int("storage_order", 0) != 0
	at := 0
	for plane := range x.Shape[0] * x.Shape[1] {
		each(spatial, func(o []int64) {
			y.F[at], indices.I[at] = math.Inf(-1), -1
			each(win.kernel, func(k []int64) {
				if !win.place(o, k, in, position) {
					return
				}
				v := x.F[plane*size(in)+flat(in, position, false)]
				if v > y.F[at] || indices.I[at] < 0 {
					y.F[at], indices.I[at] = v, plane*size(in)+flat(in, position, columns)
				}
			})
			at++
		})
	}
	return []*Tensor{y, indices}
}

// flat is the number of a position, counted in row-major or column-major order.
func flat(shape, position []int64, columns bool) int64 {
	at := int64(0)
	for i := range shape {
		if columns {
			i = len(shape) - 1 - i
		}
		at = at*shape[i] + position[i]
	}
	return at
}

// averagePool divides by the number of input elements below the window or, with count_include_pad, by the size of the kernel.
// (With both count_include_pad and ceil_mode runtimes differ in what a window that ends beyond the padding is divided by.)
func averagePool(c *call) []*Tensor {
	x := c.in[0]
	in := x.Shape[2:]
	win := windowOf(c, nil, in)
	spatial := win.outputs(in, c.Int("ceil_mode", 0) != 0)
	y := newFloats(append([]int64{x.Shape[0], x.Shape[1]}, spatial...))
	position := make([]int64, len(in))
	padding := c.Int("count_include_pad", 0) != 0
	at := 0
	for plane := range x.Shape[0] * x.Shape[1] {
		each(spatial, func(o []int64) {
			sum, n := 0.0, 0.0
			each(win.kernel, func(k []int64) {
				if win.place(o, k, in, position) {
					sum += x.F[plane*size(in)+flat(in, position, false)]
					n++
				}
			})
			if padding {
				n = float64(size(win.kernel))
			}
			y.F[at] = sum / n
			at++
		})
	}
	return one(y)
}

// lpPool is the p-norm of the elements below the window.
func lpPool(c *call) []*Tensor {
	x, p := c.in[0], float64(c.Int("p", 2))
	in := x.Shape[2:]
	win := windowOf(c, nil, in)
	spatial := win.outputs(in, c.Int("ceil_mode", 0) != 0)
	y := newFloats(append([]int64{x.Shape[0], x.Shape[1]}, spatial...))
	position := make([]int64, len(in))
	at := 0
	for plane := range x.Shape[0] * x.Shape[1] {
		each(spatial, func(o []int64) {
			each(win.kernel, func(k []int64) {
				if win.place(o, k, in, position) {
					y.F[at] += math.Pow(math.Abs(x.F[plane*size(in)+flat(in, position, false)]), p)
				}
			})
			y.F[at] = math.Pow(y.F[at], 1/p)
			at++
		})
	}
	return one(y)
}

func globalLpPool(c *call) []*Tensor {
	p := float64(c.Int("p", 2))
	sum := global(func(acc, x float64, _ int64) float64 { return acc + math.Pow(math.Abs(x), p) }, 0)(c)[0]
	return one(mapFloats(sum, func(x float64) float64 { return math.Pow(x, 1/p) }))
}

func global(step func(acc, x float64, n int64) float64, start float64) kernel {
	return func(c *call) []*Tensor {
		x := c.in[0]
		shape := []int64{x.Shape[0], x.Shape[1]}
		for range x.Shape[2:] {
			shape = append(shape, 1)
		}
		y := newFloats(shape)
		n := size(x.Shape[2:])
		for i := range y.F {
			y.F[i] = start
			for _, v := range x.F[int64(i)*n : int64(i+1)*n] {
				y.F[i] = step(y.F[i], v, n)
			}
		}
		return one(y)
	}
}
