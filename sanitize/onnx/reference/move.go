package reference

import "slices"

// The operators that move elements: transposing, joining, cutting, repeating, padding.

func transpose(c *call) []*Tensor {
	var reversed []int64
	for i := range c.in[0].Shape {
		reversed = append([]int64{int64(i)}, reversed...)
	}
	return one(transposed(c.in[0], c.Ints("perm", reversed...)))
}

// transposed moves dimension perm[i] to place i.
func transposed(x *Tensor, perm []int64) *Tensor {
	step := strides(x.Shape)
	shape := make([]int64, len(perm))
	for i, p := range perm {
		shape[i] = x.Shape[p]
	}
	out := newLike(x, shape)
	at := int64(0)
	each(shape, func(index []int64) {
		from := int64(0)
		for i, p := range perm {
			from += index[i] * step[p]
		}
		out.set(at, x, from)
		at++
	})
	return out
}

func concat(c *call) []*Tensor {
	axis := axisOf(c.Int("axis", 0), len(c.in[0].Shape))
	total := int64(0)
	for _, t := range c.in {
		total += t.Shape[axis]
	}
	out := newLike(c.in[0], with(c.in[0].Shape, axis, total))
	outer, _, inner := split3(out.Shape, axis)
	begin := int64(0)
	for _, t := range c.in {
		n := t.Shape[axis]
		if !slices.Equal(with(t.Shape, axis, total), out.Shape) {
			fail("shape %v does not fit %v", t.Shape, out.Shape)
		}
		for o := range outer {
			for i := range n * inner {
				out.set((o*total+begin)*inner+i, t, o*n*inner+i)
			}
		}
		begin += n
	}
	return one(out)
}

func split(c *call) []*Tensor {
	x := c.in[0]
	axis := axisOf(c.Int("axis", 0), len(x.Shape))
	outer, total, inner := split3(x.Shape, axis)
	sizes := c.arg(1).ints(c.Ints("split")...)
	if len(sizes) == 0 { // equal parts; from opset 18 the last may be smaller
		parts := int64(len(c.Outputs))
		each := (total + parts - 1) / parts
		for i := range parts {
			sizes = append(sizes, min(each, total-i*each))
		}
	}
	var out []*Tensor
	begin := int64(0)
	for _, n := range sizes {
		part := newLike(x, with(x.Shape, axis, n))
		for o := range outer {
			for i := range n * inner {
				part.set(o*n*inner+i, x, (o*total+begin)*inner+i)
			}
		}
		out = append(out, part)
		begin += n
	}
	if begin != total {
		fail("parts %v of a dimension of %d", sizes, total)
	}
	return out
}

func expand(c *call) []*Tensor {
	x := c.in[0]
	out := newLike(x, broadcast(x.Shape, c.in[1].I))
	at := int64(0)
	each(out.Shape, func(index []int64) {
		out.set(at, x, offset(x.Shape, index))
		at++
	})
	return one(out)
}

func tile(c *call) []*Tensor {
	x := c.in[0]
	shape := slices.Clone(x.Shape)
	for i, n := range c.in[1].I {
		shape[i] *= n
	}
	out := newLike(x, shape)
	step := strides(x.Shape)
	at := int64(0)
	each(shape, func(index []int64) {
		from := int64(0)
		for i, k := range index {
			from += k % x.Shape[i] * step[i]
		}
		out.set(at, x, from)
		at++
	})
	return one(out)
}

func slice(c *call) []*Tensor {
	x := c.in[0]
	starts, ends := c.in[1].I, c.in[2].I
	var axes, steps []int64
	for i := range starts {
		axes, steps = append(axes, int64(i)), append(steps, 1)
	}
	axes, steps = c.arg(3).ints(axes...), c.arg(4).ints(steps...)
	first, step := make([]int64, len(x.Shape)), slices.Repeat([]int64{1}, len(x.Shape))
	shape := slices.Clone(x.Shape)
	for i, axis := range axesOf(axes, len(x.Shape)) {
		d := x.Shape[axis]
		low, high := int64(0), d
		if steps[i] < 0 {
			low, high = -1, d-1
		}
		from, to := bound(starts[i], d, max(low, 0), high), bound(ends[i], d, low, high)
		count := (to - from + steps[i] - int64(sign(float64(steps[i])))) / steps[i]
		first[axis], step[axis], shape[axis] = from, steps[i], max(0, count)
	}
	out := newLike(x, shape)
	stride := strides(x.Shape)
	at := int64(0)
	each(shape, func(index []int64) {
		from := int64(0)
		for i, k := range index {
			from += (first[i] + k*step[i]) * stride[i]
		}
		out.set(at, x, from)
		at++
	})
	return one(out)
}

// bound counts a negative position from the end d and clamps it.
func bound(v, d, low, high int64) int64 {
	if v < 0 {
		v += d
	}
	return min(max(v, low), high)
}

func pad(c *call) []*Tensor {
	x := c.in[0]
	rank := len(x.Shape)
	pads := c.arg(1).ints(c.Ints("pads")...)
	begin, shape := make([]int64, rank), slices.Clone(x.Shape)
	var all []int64
	for i := range x.Shape {
		all = append(all, int64(i))
	}
	axes := axesOf(c.arg(3).ints(all...), rank)
	for i, axis := range axes {
		begin[axis] = pads[i]
		shape[axis] += pads[i] + pads[len(axes)+i]
	}
	out := newLike(x, shape)
	mode := c.String("mode", "constant")
	stride := strides(x.Shape)
	at := int64(-1)
	each(shape, func(index []int64) {
		at++
		from := int64(0)
		for i, k := range index {
			p, d := k-begin[i], x.Shape[i]
			switch {
			case p >= 0 && p < d:
			case mode == "edge":
				p = min(max(p, 0), d-1)
			case mode == "reflect":
				for p < 0 || p >= d {
					if p < 0 {
						p = -p
					} else {
						p = 2*(d-1) - p
					}
				}
			default:
				if value := c.arg(2); value != nil {
					out.set(at, value, 0)
				}
				return
			}
			from += p * stride[i]
		}
		out.set(at, x, from)
	})
	return one(out)
}

// depthToSpace moves blocks of channels into the plane; in mode DCR the block is the outer part of the channel.
func depthToSpace(c *call) []*Tensor {
	x, b := c.in[0], c.Int("blocksize", 1)
	n, ch, h, w := x.Shape[0], x.Shape[1]/(b*b), x.Shape[2], x.Shape[3]
	if c.String("mode", "DCR") == "DCR" {
		x = transposed(x.reshaped(n, b, b, ch, h, w), []int64{0, 3, 4, 1, 5, 2})
	} else {
		x = transposed(x.reshaped(n, ch, b, b, h, w), []int64{0, 1, 4, 2, 5, 3})
	}
	return one(x.reshaped(n, ch, h*b, w*b))
}

func spaceToDepth(c *call) []*Tensor {
	x, b := c.in[0], c.Int("blocksize", 1)
	n, ch, h, w := x.Shape[0], x.Shape[1], x.Shape[2]/b, x.Shape[3]/b
	x = transposed(x.reshaped(n, ch, h, b, w, b), []int64{0, 3, 5, 1, 2, 4})
	return one(x.reshaped(n, ch*b*b, h, w))
}

// reverseSequence reverses the first elements along the time axis, as many as the sequence is long.
func reverseSequence(c *call) []*Tensor {
	x, lengths := c.in[0], c.in[1].I
	batch, time := axisOf(c.Int("batch_axis", 1), len(x.Shape)), axisOf(c.Int("time_axis", 0), len(x.Shape))
	step := strides(x.Shape)
	out := newLike(x, x.Shape)
	at := int64(0)
	each(x.Shape, func(index []int64) {
		from, k, n := at, index[time], lengths[index[batch]]
		if k < n {
			from += (n - 1 - 2*k) * step[time]
		}
		out.set(at, x, from)
		at++
	})
	return one(out)
}

// trilu keeps one triangle of each matrix, from the k-th diagonal on.
func trilu(c *call) []*Tensor {
	x := c.in[0]
	rank := len(x.Shape)
	k := int64(0)
	if t := c.arg(1); t != nil {
		k = t.I[0]
	}
	upper := c.Int("upper", 1) != 0
	out := newLike(x, x.Shape)
	at := int64(0)
	each(x.Shape, func(index []int64) {
		d := index[rank-1] - index[rank-2]
		if upper && d >= k || !upper && d <= k {
			out.set(at, x, at)
		}
		at++
	})
	return one(out)
}
