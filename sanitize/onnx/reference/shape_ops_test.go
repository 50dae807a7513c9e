package reference

import (
	"math"
	"slices"

	"grindstone/sanitize/onnx"
)

func shapeInstances() map[string]func(*gen) instance {
	m := map[string]func(*gen) instance{}
	m["Constant"] = func(g *gen) instance {
		a := pick(g, "value", onnx.T("value", onnx.NewFloat("", []int64{2}, []float32{1, 2})), onnx.F("value_float", 3), onnx.I("value_int", -1), onnx.Is("value_ints", 1, 2), onnx.Fs("value_floats", 1, 2))
		return instance{op: "Constant", attrs: []*onnx.Attr{a}}
	}
	m["ConstantOfShape"] = func(g *gen) instance {
		c := instance{op: "ConstantOfShape", in: []*Tensor{list(g.shape(0, 3)...)}}
		if g.bool("value") {
			c.attrs = append(c.attrs, onnx.T("value", pick(g, "kind", onnx.NewFloat("", []int64{1}, []float32{0.5}), onnx.NewInt64("", []int64{1}, []int64{7}))))
		}
		return c
	}
	m["Shape"] = func(g *gen) instance {
		c := instance{op: "Shape", in: []*Tensor{g.floats(g.shape(0, 4)...)}}
		if g.bool("part") {
			c.attrs = []*onnx.Attr{onnx.I("start", g.int("start", -5, 5)), onnx.I("end", g.int("end", -5, 5))}
		}
		return c
	}
	m["Size"] = func(g *gen) instance { return instance{op: "Size", in: []*Tensor{g.floats(g.shape(0, 4)...)}} }
	m["Range"] = func(g *gen) instance {
		if g.bool("floats") {
			return instance{op: "Range", in: []*Tensor{Scalar(0.5), Scalar(float64(g.int("limit", -1, 5))), Scalar(0.75)}}
		}
		n := func(v int64) *Tensor { return Ints([]int64{}, []int64{v}) }
		return instance{op: "Range", in: []*Tensor{n(g.int("start", -3, 3)), n(g.int("limit", -5, 5)), n(pick[int64](g, "step", -2, -1, 1, 3))}}
	}
	m["Reshape"] = func(g *gen) instance {
		s := g.shape(1, 4)
		to := slices.Clone(s)
		if len(s) > 1 && g.bool("join") {
			to = append([]int64{s[0] * s[1]}, s[2:]...)
		} else if g.bool("copy") {
			to[0] = 0
		}
		if i := g.int("infer", 0, len(to)-1); g.bool("one") && to[i] != 0 {
			to[i] = -1
		}
		return instance{op: "Reshape", in: []*Tensor{g.floats(s...), list(to...)}}
	}
	m["Reshape of nothing"] = func(*gen) instance {
		return instance{op: "Reshape", in: []*Tensor{newFloats([]int64{0, 3}), list(3, 0)}, attrs: []*onnx.Attr{onnx.I("allowzero", 1)}}
	}
	m["Flatten"] = func(g *gen) instance {
		s := g.shape(1, 4)
		return instance{op: "Flatten", in: []*Tensor{g.floats(s...)}, attrs: []*onnx.Attr{onnx.I("axis", g.int("axis", -len(s), len(s)))}}
	}
	m["Squeeze"] = func(g *gen) instance {
		c := instance{op: "Squeeze", in: []*Tensor{g.floats(2, 1, 3, 1)}}
		if g.bool("axes") {
			c.in = append(c.in, list(pick(g, "which", []int64{1}, []int64{-1}, []int64{3, 1})...))
		}
		return c
	}
	m["Unsqueeze"] = func(g *gen) instance {
		return instance{op: "Unsqueeze", in: []*Tensor{g.floats(2, 3), list(pick(g, "axes", []int64{0}, []int64{-1}, []int64{2, 0}, []int64{1, -1}, []int64{-4, 1})...)}}
	}
	m["Transpose"] = func(g *gen) instance {
		s := g.shape(1, 4)
		c := instance{op: "Transpose", in: []*Tensor{g.floats(s...)}}
		if g.bool("perm") {
			c.attrs = []*onnx.Attr{onnx.Is("perm", g.perm(len(s))...)}
		}
		return c
	}
	m["Concat"] = func(g *gen) instance {
		s := g.shape(1, 3)
		axis := g.axis(len(s))
		c := instance{op: "Concat", attrs: []*onnx.Attr{onnx.I("axis", axis)}}
		for range g.int("parts", 1, 3) {
			c.in = append(c.in, g.floats(with(s, axisOf(axis, len(s)), g.int("n", 0, 3))...))
		}
		return c
	}
	m["Split"] = func(g *gen) instance {
		s := g.shape(1, 3)
		axis := g.axis(len(s))
		parts := g.int("parts", 1, 3)
		c := instance{op: "Split", outs: int(parts), attrs: []*onnx.Attr{onnx.I("axis", axis)}}
		if g.bool("equal") {
			c.in = []*Tensor{g.floats(with(s, axisOf(axis, len(s)), parts*g.int("n", 1, 3))...)}
			return c
		}
		sizes, total := []int64{}, int64(0)
		for range parts {
			sizes = append(sizes, g.int("n", 0, 3))
			total += sizes[len(sizes)-1]
		}
		c.in = []*Tensor{g.floats(with(s, axisOf(axis, len(s)), total)...), list(sizes...)}
		return c
	}
	m["Expand"] = func(g *gen) instance {
		s := g.shape(0, 3)
		return instance{op: "Expand", in: []*Tensor{g.floats(g.broadcastable(s)...), list(s...)}}
	}
	m["Expand to a smaller shape"] = func(g *gen) instance {
		s := g.shape(0, 3)
		return instance{op: "Expand", in: []*Tensor{g.floats(s...), list(g.broadcastable(s)...)}}
	}
	m["Tile"] = func(g *gen) instance {
		s := g.shape(1, 3)
		return instance{op: "Tile", in: []*Tensor{g.floats(s...), g.ints(1, 3, int64(len(s)))}}
	}
	m["Slice"] = func(g *gen) instance {
		s := g.shape(1, 4)
		axes := g.perm(len(s))[:g.int("axes", 1, len(s))]
		var starts, ends, steps []int64
		for range axes {
			starts = append(starts, pick[int64](g, "start", 0, 1, -1, -2, 9, -9))
			step, far := pick[int64](g, "step", 1, 1, 2, -1, -2), int64(math.MaxInt64)
			if step < 0 {
				far = math.MinInt64
			}
			ends = append(ends, pick(g, "end", 0, 1, 3, -1, far))
			steps = append(steps, step)
		}
		in := []*Tensor{g.floats(s...), list(starts...), list(ends...), list(axes...), list(steps...)}
		if slices.Max(steps) == 1 && slices.Min(steps) == 1 {
			in = in[:4]
		}
		return instance{op: "Slice", in: in}
	}
	m["Pad"] = func(g *gen) instance {
		s := g.shape(1, 3)
		mode := pick(g, "mode", "constant", "constant", "edge", "reflect")
		pads := make([]int64, 2*len(s))
		for i := range pads {
			low := -int(s[i%len(s)]-1) / 2
			high := 2
			if mode == "reflect" {
				low, high = 0, int(s[i%len(s)]-1)
			}
			pads[i] = g.int("pad", low, high)
		}
		c := instance{op: "Pad", in: []*Tensor{g.floats(s...), list(pads...)}, attrs: []*onnx.Attr{onnx.S("mode", mode)}}
		if mode == "constant" && g.bool("value") {
			c.in = append(c.in, Scalar(1.5))
		}
		return c
	}
	m["Resize"] = func(g *gen) instance {
		s := []int64{g.int("n", 1, 2), g.int("c", 1, 2), g.int("h", 1, 5), g.int("w", 1, 5)}
		mode := pick(g, "mode", "nearest", "linear", "cubic")
		c := instance{op: "Resize", attrs: []*onnx.Attr{onnx.S("mode", mode),
			onnx.S("coordinate_transformation_mode", pick(g, "coordinates", "half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"))}}
		if mode == "nearest" {
			c.attrs = append(c.attrs, onnx.S("nearest_mode", pick(g, "nearest", "round_prefer_floor", "round_prefer_ceil", "floor", "ceil")))
		}
		if mode == "cubic" {
			c.attrs = append(c.attrs, onnx.F("cubic_coeff_a", pick[float32](g, "a", -0.75, -0.5)), onnx.I("exclude_outside", g.int("exclude", 0, 1)))
		}
		if g.bool("sizes") {
			c.in = []*Tensor{g.floats(s...), nil, nil, list(s[0], s[1], g.int("high", 1, 7), g.int("wide", 1, 7))}
		} else {
			scale := func() float64 { return pick(g, "scale", 0.75, 1, 1.5, 2, 3) }
			if s[2] == 1 || s[3] == 1 {
				scale = func() float64 { return pick(g, "scale", 1.0, 2, 3) }
			}
			c.in = []*Tensor{g.floats(s...), nil, Floats([]int64{4}, []float64{1, 1, scale(), scale()})}
		}
		return c
	}
	m["ReverseSequence"] = func(g *gen) instance {
		s := append(g.shape(2, 2), g.shape(0, 2)...)
		batch := g.int("batch", 0, 1)
		return instance{op: "ReverseSequence", in: []*Tensor{g.floats(s...), g.ints(1, s[1-batch], s[batch])}, attrs: []*onnx.Attr{onnx.I("batch_axis", batch), onnx.I("time_axis", 1-batch)}}
	}
	m["DepthToSpace"] = func(g *gen) instance {
		return instance{op: "DepthToSpace", in: []*Tensor{g.floats(2, 8, 2, 3)}, attrs: []*onnx.Attr{onnx.I("blocksize", 2), onnx.S("mode", pick(g, "mode", "DCR", "CRD"))}}
	}
	m["SpaceToDepth"] = func(g *gen) instance {
		return instance{op: "SpaceToDepth", in: []*Tensor{g.floats(2, 3, 4, 6)}, attrs: []*onnx.Attr{onnx.I("blocksize", 2)}}
	}
	m["Trilu"] = func(g *gen) instance {
		return instance{op: "Trilu", in: []*Tensor{g.floats(append(g.shape(0, 1), 3, 4)...), Ints([]int64{}, []int64{g.int("k", -2, 3)})}, attrs: []*onnx.Attr{onnx.I("upper", g.int("upper", 0, 1))}}
	}
	return m
}

func gatherInstances() map[string]func(*gen) instance {
	m := map[string]func(*gen) instance{}
	m["Gather"] = func(g *gen) instance {
		s := g.shape(1, 3)
		axis := g.axis(len(s))
		n := s[axisOf(axis, len(s))]
		return instance{op: "Gather", in: []*Tensor{g.floats(s...), g.ints(-n, n-1, g.shape(0, 2)...)}, attrs: []*onnx.Attr{onnx.I("axis", axis)}}
	}
	m["GatherElements"] = func(g *gen) instance {
		s := g.shape(1, 3)
		axis := g.axis(len(s))
		n := s[axisOf(axis, len(s))]
		return instance{op: "GatherElements", in: []*Tensor{g.floats(s...), g.ints(-n, n-1, with(s, axisOf(axis, len(s)), g.int("k", 1, 5))...)}, attrs: []*onnx.Attr{onnx.I("axis", axis)}}
	}
	m["ScatterElements"] = func(g *gen) instance {
		s := g.shape(1, 3)
		a := axisOf(g.axis(len(s)), len(s))
		n := s[a]
		reduction := pick(g, "reduction", "none", "add", "add", "mul")
		idx := g.ints(-n, n-1, with(s, a, g.int("k", 1, 5))...)
		if reduction == "none" { // the order of repeated indices is not defined
			idx = newInts(s)
			outer, _, inner := split3(s, a)
			for o := range outer {
				for i := range inner {
					for k, p := range g.perm(int(n)) {
						idx.I[(o*n+int64(k))*inner+i] = p
					}
				}
			}
		}
		return instance{op: "ScatterElements", in: []*Tensor{g.floats(s...), idx, g.floats(idx.Shape...)}, attrs: []*onnx.Attr{onnx.I("axis", int64(a)), onnx.S("reduction", reduction)}}
	}
	m["GatherND"] = func(g *gen) instance {
		s := []int64{g.int("a", 1, 3), g.int("b", 1, 3), g.int("c", 1, 3)}
		batch := int(g.int("batch", 0, 1))
		depth := g.int("depth", 1, 3-batch)
		idx := newInts(append(slices.Clone(s[:batch]), g.int("n", 1, 3), depth))
		for i := range idx.I {
			n := s[batch+i%int(depth)]
			idx.I[i] = g.r.Int64N(2*n) - n
		}
		return instance{op: "GatherND", in: []*Tensor{g.floats(s...), idx}, attrs: []*onnx.Attr{onnx.I("batch_dims", int64(batch))}}
	}
	m["ScatterND"] = func(g *gen) instance {
		s := []int64{g.int("a", 2, 4), g.int("b", 1, 3)}
		reduction := pick(g, "reduction", "none", "add")
		if reduction == "none" {
			return instance{op: "ScatterND", in: []*Tensor{g.floats(s...), Ints([]int64{2, 1}, []int64{-1, 0}), g.floats(2, s[1])}}
		}
		depth := g.int("depth", 1, 2)
		idx := newInts([]int64{g.int("n", 1, 5), depth})
		for i := range idx.I {
			idx.I[i] = g.r.Int64N(s[i%int(depth)])
		}
		return instance{op: "ScatterND", in: []*Tensor{g.floats(s...), idx, g.floats(append([]int64{idx.Shape[0]}, s[depth:]...)...)}, attrs: []*onnx.Attr{onnx.S("reduction", reduction)}}
	}
	m["NonZero"] = func(g *gen) instance {
		return instance{op: "NonZero", in: []*Tensor{g.ints(0, 1, g.shape(1, 3)...)}}
	}
	m["Compress"] = func(g *gen) instance {
		s := g.shape(1, 3)
		c := instance{op: "Compress", in: []*Tensor{g.floats(s...), nil}, bools: []int{1}}
		n := size(s)
		if g.bool("axis") {
			axis := g.axis(len(s))
			c.attrs, n = []*onnx.Attr{onnx.I("axis", axis)}, s[axisOf(axis, len(s))]
		}
		c.in[1] = g.ints(0, 1, g.int("length", 1, int(n)))
		return c
	}
	m["OneHot"] = func(g *gen) instance {
		s := g.shape(1, 2)
		return instance{op: "OneHot", in: []*Tensor{g.ints(-4, 5, s...), list(4), Floats([]int64{2}, []float64{-1, 2})}, attrs: []*onnx.Attr{onnx.I("axis", g.axis(len(s)+1))}}
	}
	return m
}
