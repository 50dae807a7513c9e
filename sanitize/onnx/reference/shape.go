package reference

import (
	"math"
	"slices"
)

var shapes = map[string]kernel{
	"Constant":        constant,
	"ConstantOfShape": constantOfShape,
	"Shape":           shapeOf,
	"Size":            func(c *call) []*Tensor { return one(Ints([]int64{}, []int64{size(c.in[0].Shape)})) },
	"Range":           rangeOf,
	"Reshape":         reshape,
	"Flatten":         flatten,
	"Squeeze":         squeeze,
	"Unsqueeze":       unsqueeze,
	"Transpose":       transpose,
	"Concat":          concat,
	"Split":           split,
	"Expand":          expand,
	"Tile":            tile,
	"Slice":           slice,
	"Pad":             pad,
	"DepthToSpace":    depthToSpace,
	"SpaceToDepth":    spaceToDepth,
	"Trilu":           trilu,
	"ReverseSequence": reverseSequence,
	"Resize":          resize,
}

func constant(c *call) []*Tensor {
	for _, a := range c.Attrs {
		switch a.Name {
		case "value":
			return one(From(a.Tensor))
		case "value_float":
			return one(Scalar(float64(a.F)))
		case "value_int":
			return one(Ints([]int64{}, []int64{a.I}))
		case "value_ints":
			return one(Ints([]int64{int64(len(a.Ints))}, a.Ints))
		case "value_floats":
			v := newFloats([]int64{int64(len(a.Floats))})
			for i, x := range a.Floats {
				v.F[i] = float64(x)
			}
			return one(v)
		}
	}
	fail("it holds nothing")
	return nil
}

func constantOfShape(c *call) []*Tensor {
	value := Floats([]int64{1}, []float64{0})
	if a := c.Attr("value"); a != nil {
		value = From(a.Tensor)
	}
	out := newLike(value, c.in[0].I)
	for i := range size(out.Shape) {
		out.set(i, value, 0)
	}
	return one(out)
}

func shapeOf(c *call) []*Tensor {
	rank := int64(len(c.in[0].Shape))
	bound := func(name string, def int64) int64 {
		v := c.Int(name, def)
		if v < 0 {
			v += rank
		}
		return min(max(v, 0), rank)
	}
	start, end := bound("start", 0), bound("end", rank)
	part := slices.Clone(c.in[0].Shape[start:max(start, end)])
	return one(Ints([]int64{int64(len(part))}, part))
}

func rangeOf(c *call) []*Tensor {
	start, limit, delta := castTo(c.in[0], true, false).F[0], castTo(c.in[1], true, false).F[0], castTo(c.in[2], true, false).F[0]
	out := newFloats([]int64{max(0, int64(math.Ceil((limit-start)/delta)))})
	for i := range out.F {
		out.F[i] = start + float64(i)*delta
	}
	return one(castTo(out, c.in[0].F != nil, false))
}

func reshape(c *call) []*Tensor {
	x := c.in[0]
	shape := slices.Clone(c.in[1].I)
	known, infer := int64(1), -1
	for i, d := range shape {
		switch {
		case d == -1:
			infer = i
			continue
		case d == 0 && c.Int("allowzero", 0) == 0:
			shape[i] = x.Shape[i]
		}
		known *= shape[i]
	}
	if infer >= 0 {
		shape[infer] = size(x.Shape) / known
	}
	return one(x.reshaped(shape...))
}

func flatten(c *call) []*Tensor {
	x := c.in[0]
	axis := c.Int("axis", 1)
	if axis < 0 {
		axis += int64(len(x.Shape))
	}
	return one(x.reshaped(size(x.Shape[:axis]), size(x.Shape[axis:])))
}

func squeeze(c *call) []*Tensor {
	x := c.in[0]
	axes := axesOf(c.arg(1).ints(c.Ints("axes")...), len(x.Shape))
	if len(axes) == 0 {
		for i, d := range x.Shape {
			if d == 1 {
				axes = append(axes, i)
			}
		}
	}
	return one(x.reshaped(drop(x.Shape, axes)...))
}

func unsqueeze(c *call) []*Tensor {
	x := c.in[0]
	axes := c.arg(1).ints(c.Ints("axes")...)
	at := axesOf(axes, len(x.Shape)+len(axes))
	shape, next := []int64{}, 0
	for i := range len(x.Shape) + len(axes) {
		if slices.Contains(at, i) {
			shape = append(shape, 1)
			continue
		}
		shape = append(shape, x.Shape[next])
		next++
	}
	return one(x.reshaped(shape...))
}
