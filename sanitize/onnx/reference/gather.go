package reference

import (
	"math"
	"slices"
)

var gathers = map[string]kernel{
	"Gather":          gather,
	"GatherElements":  gatherElements,
	"GatherND":        gatherND,
	"ScatterElements": scatterElements,
	"ScatterND":       scatterND,
	"OneHot":          oneHot,
	"NonZero":         nonZero,
	"Compress":        compress,
}

// place counts a negative index from the end of a dimension of n.
func place(i, n int64) int64 {
	if i < 0 {
		i += n
	}
	if i < 0 || i >= n {
		fail("index %d into a dimension of %d", i, n)
	}
	return i
}

// gather replaces the axis of data by the shape of indices.
func gather(c *call) []*Tensor {
	x, indices := c.in[0], c.in[1]
	axis := axisOf(c.Int("axis", 0), len(x.Shape))
	outer, n, inner := split3(x.Shape, axis)
	out := newLike(x, slices.Concat(x.Shape[:axis], indices.Shape, x.Shape[axis+1:]))
	at := int64(0)
	for o := range outer {
		for _, i := range indices.I {
			for j := range inner {
				out.set(at, x, (o*n+place(i, n))*inner+j)
				at++
			}
		}
	}
	return one(out)
}

// along visits the elements of indices with the position in shape that each names: its own, with the index put at the axis.
func along(shape []int64, indices *Tensor, axis int, visit func(i, at int64)) {
	step := strides(shape)
	i := int64(0)
	each(indices.Shape, func(index []int64) {
		at := int64(0)
		for d, k := range index {
			if d == axis {
				k = place(indices.I[i], shape[d])
			}
			at += k * step[d]
		}
		visit(i, at)
		i++
	})
}

func gatherElements(c *call) []*Tensor {
	x, indices := c.in[0], c.in[1]
	out := newLike(x, indices.Shape)
	along(x.Shape, indices, axisOf(c.Int("axis", 0), len(x.Shape)), func(i, at int64) { out.set(i, x, at) })
	return one(out)
}

func scatterElements(c *call) []*Tensor {
	x, indices, updates := c.in[0], c.in[1], c.in[2]
	out := x.Clone()
	along(x.Shape, indices, axisOf(c.Int("axis", 0), len(x.Shape)), func(i, at int64) {
		combine(c.String("reduction", "none"), out, at, updates, i)
	})
	return one(out)
}

// combine puts element j of src at element i of dst, or folds it in.
func combine(reduction string, dst *Tensor, i int64, src *Tensor, j int64) {
	if reduction == "none" {
		dst.set(i, src, j)
		return
	}
	f, known := map[string]func(a, b float64) float64{
		"add": func(a, b float64) float64 { return a + b },
		"mul": func(a, b float64) float64 { return a * b },
		"max": math.Max, "min": math.Min,
	}[reduction]
	if !known {
		fail("reduction %q", reduction)
	}
	if dst.F != nil {
		dst.F[i] = f(dst.F[i], src.F[j])
	} else {
		dst.I[i] = int64(f(float64(dst.I[i]), float64(src.I[j])))
	}
}

// rows visits the slices of a tensor that the last dimension of indices names: row i of indices is a position in the dimensions of shape
// from batchDims on (the dimensions before are shared with indices); at is where the slice of length n begins.
func rows(shape []int64, indices *Tensor, batchDims int64, visit func(i, at, n int64)) {
	rank := len(indices.Shape)
	depth := indices.Shape[rank-1]
	step := strides(shape)
	n := size(shape[batchDims+depth:])
	i := int64(0)
	each(indices.Shape[:rank-1], func(index []int64) {
		at := int64(0)
		for d := range batchDims {
			at += index[d] * step[d]
		}
		for k := range depth {
			d := batchDims + k
			at += place(indices.I[i*depth+k], shape[d]) * step[d]
		}
		visit(i, at, n)
		i++
	})
}

func gatherND(c *call) []*Tensor {
	x, indices := c.in[0], c.in[1]
	batch := c.Int("batch_dims", 0)
	last := len(indices.Shape) - 1
	out := newLike(x, slices.Concat(indices.Shape[:last], x.Shape[batch+indices.Shape[last]:]))
	rows(x.Shape, indices, batch, func(i, at, n int64) {
		for j := range n {
			out.set(i*n+j, x, at+j)
		}
	})
	return one(out)
}

func scatterND(c *call) []*Tensor {
	x, indices, updates := c.in[0], c.in[1], c.in[2]
	out := x.Clone()
	rows(x.Shape, indices, 0, func(i, at, n int64) {
		for j := range n {
			combine(c.String("reduction", "none"), out, at+j, updates, i*n+j)
		}
	})
	return one(out)
}

// oneHot inserts a dimension of the given depth that is on at the index and off elsewhere.
func oneHot(c *call) []*Tensor {
	indices, values := castTo(c.in[0], false, false), c.in[2]
	depth := castTo(c.in[1], false, false).I[0]
	axis := axisOf(c.Int("axis", -1), len(indices.Shape)+1)
	out := newLike(values, slices.Insert(slices.Clone(indices.Shape), axis, depth))
	inner := size(indices.Shape[axis:])
	for i := range size(out.Shape) {
		k := indices.I[i/(depth*inner)*inner+i%inner]
		if k < 0 {
			k += depth
		}
		out.set(i, values, truth(i/inner%depth == k))
	}
	return one(out)
}

// nonZero lists the indices of the elements that are not zero, one column each.
func nonZero(c *call) []*Tensor {
	x := castTo(c.in[0], true, false)
	var found [][]int64
	i := 0
	each(x.Shape, func(index []int64) {
		if x.F[i] != 0 {
			found = append(found, slices.Clone(index))
		}
		i++
	})
	out := newInts([]int64{int64(len(x.Shape)), int64(len(found))})
	for k, index := range found {
		for d, v := range index {
			out.I[d*len(found)+k] = v
		}
	}
	return one(out)
}

// compress keeps the slices along an axis, or without one the elements, where the condition holds.
func compress(c *call) []*Tensor {
	x := c.in[0]
	axis := 0
	if c.Attr("axis") == nil {
		x = x.reshaped(size(x.Shape))
	} else {
		axis = axisOf(c.Int("axis", 0), len(x.Shape))
	}
	var picks []int64
	for i, keep := range c.in[1].I {
		if keep != 0 {
			picks = append(picks, int64(i))
		}
	}
	outer, n, inner := split3(x.Shape, axis)
	out := newLike(x, with(x.Shape, axis, int64(len(picks))))
	at := int64(0)
	for o := range outer {
		for _, k := range picks {
			for i := range inner {
				out.set(at, x, (o*n+k)*inner+i)
				at++
			}
		}
	}
	return one(out)
}
