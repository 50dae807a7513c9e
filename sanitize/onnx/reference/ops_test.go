package reference

import (
	"slices"

	"grindstone/sanitize/onnx"
)

// The drawing functions: for each operator an instance with random shapes, attributes and values.

func elementwiseInstances() map[string]func(*gen) instance {
	m := map[string]func(*gen) instance{}
	for _, op := range []string{"Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "PRelu", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Equal"} {
		m[op] = func(g *gen) instance {
			s := g.shape(0, 4)
			a, b := g.floats(s...), g.floats(g.broadcastable(s)...)
			if op == "Div" {
				b = g.positive(b.Shape...)
			}
			if op != "PRelu" && g.bool("swap") {
				a, b = b, a
			}
			return instance{op: op, in: []*Tensor{a, b}}
		}
	}
	for _, op := range []string{"Add", "Sub", "Mul", "Div", "Mod", "Equal", "Less", "Max"} {
		m[op+" integers"] = func(g *gen) instance {
			s := g.shape(0, 3)
			return instance{op: op, in: []*Tensor{g.ints(-9, 9, s...), g.ints(1, 5, g.broadcastable(s)...)}}
		}
	}
	for _, op := range []string{"And", "Or", "Xor"} {
		m[op] = func(g *gen) instance {
			s := g.shape(0, 3)
			return instance{op: op, in: []*Tensor{g.ints(0, 1, s...), g.ints(0, 1, g.broadcastable(s)...)}, bools: []int{0, 1}}
		}
	}
	for _, op := range []string{"Neg", "Abs", "Sign", "Exp", "Erf", "Sin", "Cos", "Tan", "Atan", "Sinh", "Cosh", "Floor", "Ceil", "Round", "Relu", "Sigmoid", "Tanh",
		"Softplus", "Softsign", "HardSwish", "Identity", "IsNaN", "IsInf"} {
		m[op] = func(g *gen) instance { return instance{op: op, in: []*Tensor{g.floats(g.shape(0, 3)...)}} }
	}
	for _, op := range []string{"Asin", "Acos", "Atanh", "Asinh"} { // halves stay inside of (-1, 1)
		m[op] = func(g *gen) instance {
			return instance{op: op, in: []*Tensor{mapFloats(g.floats(g.shape(0, 3)...), func(x float64) float64 { return x * 3 / 8 })}}
		}
	}
	m["Acosh"] = func(g *gen) instance {
		return instance{op: "Acosh", in: []*Tensor{mapFloats(g.positive(g.shape(0, 3)...), func(x float64) float64 { return 1 + x })}}
	}
	m["Shrink"] = func(g *gen) instance {
		return instance{op: "Shrink", in: []*Tensor{g.floats(g.shape(0, 3)...)}, attrs: []*onnx.Attr{onnx.F("lambd", 0.75), onnx.F("bias", float32(g.int("bias", 0, 1))/4)}}
	}
	for _, op := range []string{"Reciprocal", "Sqrt", "Log"} {
		m[op] = func(g *gen) instance { return instance{op: op, in: []*Tensor{g.positive(g.shape(0, 3)...)}} }
	}
	for _, op := range []string{"LeakyRelu", "Elu", "Celu", "Selu", "ThresholdedRelu", "HardSigmoid"} {
		m[op] = func(g *gen) instance {
			c := instance{op: op, in: []*Tensor{g.floats(g.shape(0, 3)...)}}
			if g.bool("alpha") {
				c.attrs = append(c.attrs, onnx.F("alpha", 0.75))
			}
			return c
		}
	}
	m["Gelu"] = func(g *gen) instance {
		return instance{op: "Gelu", opset: 20, in: []*Tensor{g.floats(g.shape(0, 3)...)}, attrs: []*onnx.Attr{onnx.S("approximate", pick(g, "approximate", "none", "tanh"))}}
	}
	m["Mish"] = func(g *gen) instance {
		return instance{op: "Mish", opset: 18, in: []*Tensor{g.floats(g.shape(0, 3)...)}}
	}
	m["Pow"] = func(g *gen) instance {
		s := g.shape(0, 3)
		return instance{op: "Pow", in: []*Tensor{g.positive(s...), g.floats(g.broadcastable(s)...)}}
	}
	m["Pow of integer exponent"] = func(g *gen) instance {
		s := g.shape(0, 3)
		return instance{op: "Pow", in: []*Tensor{g.floats(s...), g.ints(0, 3, g.broadcastable(s)...)}}
	}
	m["Mod"] = func(g *gen) instance {
		return instance{op: "Mod", in: []*Tensor{g.ints(-9, 9, 4), g.ints(1, 4, 4)}, attrs: []*onnx.Attr{onnx.I("fmod", g.int("fmod", 0, 1))}}
	}
	m["Not"] = func(g *gen) instance {
		return instance{op: "Not", in: []*Tensor{g.ints(0, 1, g.shape(0, 3)...)}, bools: []int{0}}
	}
	m["Clip"] = func(g *gen) instance {
		in := []*Tensor{g.floats(g.shape(0, 3)...), nil, nil}
		if g.bool("low") {
			in[1] = Scalar(-0.5)
		}
		if g.bool("high") {
			in[2] = Scalar(0.75)
		}
		return instance{op: "Clip", in: in}
	}
	m["Where"] = func(g *gen) instance {
		s := g.shape(0, 3)
		return instance{op: "Where", in: []*Tensor{g.ints(0, 1, g.broadcastable(s)...), g.floats(s...), g.floats(g.broadcastable(s)...)}, bools: []int{0}}
	}
	m["Cast"] = func(g *gen) instance {
		to := pick(g, "to", onnx.Float, onnx.Int64, onnx.Bool)
		x := pick(g, "from", g.floats(g.shape(0, 3)...), g.ints(-3, 3, 2, 3))
		return instance{op: "Cast", in: []*Tensor{x}, attrs: []*onnx.Attr{onnx.I("to", int64(to))}}
	}
	m["CastLike"] = func(g *gen) instance {
		return instance{op: "CastLike", in: []*Tensor{g.floats(g.shape(0, 3)...), pick(g, "like", g.floats(1), g.ints(0, 1, 1))}}
	}
	m["Dropout"] = func(g *gen) instance {
		return instance{op: "Dropout", in: []*Tensor{g.floats(g.shape(1, 3)...)}, outs: 2}
	}
	return m
}

func reduceInstances() map[string]func(*gen) instance {
	m := map[string]func(*gen) instance{}
	for op := range reductions {
		switch op {
		case "ArgMax", "ArgMin":
			m[op] = func(g *gen) instance {
				s := g.shape(1, 4)
				return instance{op: op, in: []*Tensor{g.floats(s...)}, attrs: []*onnx.Attr{
					onnx.I("axis", g.axis(len(s))), onnx.I("keepdims", g.int("keepdims", 0, 1)), onnx.I("select_last_index", g.int("last", 0, 1))}}
			}
		case "CumSum":
			m[op] = func(g *gen) instance {
				s := g.shape(1, 3)
				return instance{op: op, in: []*Tensor{g.floats(s...), Ints([]int64{}, []int64{g.axis(len(s))})}, attrs: []*onnx.Attr{
					onnx.I("exclusive", g.int("exclusive", 0, 1)), onnx.I("reverse", g.int("reverse", 0, 1))}}
			}
		case "TopK":
			m[op] = func(g *gen) instance {
				s := g.shape(1, 3)
				axis := g.axis(len(s))
				k := g.int("k", 1, int(s[axisOf(axis, len(s))]))
				return instance{op: op, in: []*Tensor{g.floats(s...), list(k)}, outs: 2, attrs: []*onnx.Attr{onnx.I("axis", axis), onnx.I("largest", g.int("largest", 0, 1))}}
			}
		default:
			m[op] = func(g *gen) instance {
				s := g.shape(1, 4)
				axes := g.perm(len(s))[:g.int("axes", 0, len(s))]
				c := instance{op: op, in: []*Tensor{g.positive(s...)}, attrs: []*onnx.Attr{onnx.I("keepdims", g.int("keepdims", 0, 1))}}
				switch {
				case len(axes) == 0:
				case op == "ReduceSum":
					c.in = append(c.in, list(axes...))
				default:
					c.attrs = append(c.attrs, onnx.Is("axes", axes...))
				}
				return c
			}
		}
	}
	m["ReduceSum of nothing"] = func(g *gen) instance {
		return instance{op: "ReduceSum", in: []*Tensor{g.floats(2, 3)}, attrs: []*onnx.Attr{onnx.I("noop_with_empty_axes", 1)}}
	}
	m["MatMul"] = func(g *gen) instance {
		k := g.int("k", 1, 4)
		batch := g.shape(0, 2)
		a, b := append(slices.Clone(batch), g.int("m", 1, 4), k), append(g.broadcastable(batch), k, g.int("n", 1, 4))
		if g.bool("row") {
			a = []int64{k}
		}
		if g.bool("column") {
			b = []int64{k}
		}
		return instance{op: "MatMul", in: []*Tensor{g.floats(a...), g.floats(b...)}}
	}
	m["Gemm"] = func(g *gen) instance {
		m, k, n := g.int("m", 1, 4), g.int("k", 1, 4), g.int("n", 1, 4)
		a, b := []int64{m, k}, []int64{k, n}
		ta, tb := g.int("transA", 0, 1), g.int("transB", 0, 1)
		if ta == 1 {
			slices.Reverse(a)
		}
		if tb == 1 {
			slices.Reverse(b)
		}
		c := instance{op: "Gemm", in: []*Tensor{g.floats(a...), g.floats(b...)}, attrs: []*onnx.Attr{onnx.I("transA", ta), onnx.I("transB", tb), onnx.F("alpha", 0.5), onnx.F("beta", 1.5)}}
		if g.bool("bias") {
			c.in = append(c.in, g.floats(g.broadcastable([]int64{m, n})...))
		}
		return c
	}
	m["Einsum"] = func(g *gen) instance {
		type shapes = [][]int64
		e := pick(g, "equation", "ij,jk->ik", "bij,bjk->bik", "ij->ji", "ii->i", "ij->", "bhid,bhjd->bhij", "...ij,...jk->...ik", "ij,jk", "ij,ij->i", "i,j->ij", "nchw,c->nchw")
		in := map[string]shapes{
			"ij,jk->ik": {{2, 3}, {3, 4}}, "bij,bjk->bik": {{2, 3, 4}, {2, 4, 1}}, "ij->ji": {{2, 3}}, "ii->i": {{3, 3}}, "ij->": {{2, 3}},
			"bhid,bhjd->bhij": {{2, 1, 3, 2}, {2, 1, 4, 2}}, "...ij,...jk->...ik": {{2, 1, 3, 4}, {2, 1, 4, 2}}, "ij,jk": {{2, 3}, {3, 4}}, "ij,ij->i": {{2, 3}, {2, 3}},
			"i,j->ij": {{2}, {3}}, "nchw,c->nchw": {{2, 3, 2, 2}, {3}},
		}[e]
		c := instance{op: "Einsum", attrs: []*onnx.Attr{onnx.S("equation", e)}}
		for _, s := range in {
			c.in = append(c.in, g.floats(s...))
		}
		return c
	}
	return m
}

func normalizeInstances() map[string]func(*gen) instance {
	m := map[string]func(*gen) instance{}
	for _, op := range []string{"Softmax", "LogSoftmax", "Hardmax"} {
		m[op] = func(g *gen) instance {
			s := g.shape(1, 4)
			return instance{op: op, in: []*Tensor{g.floats(s...)}, attrs: []*onnx.Attr{onnx.I("axis", g.axis(len(s)))}}
		}
	}
	m["BatchNormalization"] = func(g *gen) instance {
		s := append(g.shape(2, 2), g.shape(0, 2)...)
		c := s[1]
		return instance{op: "BatchNormalization", in: []*Tensor{g.floats(s...), g.floats(c), g.floats(c), g.floats(c), g.positive(c)}, attrs: []*onnx.Attr{onnx.F("epsilon", 1e-3)}}
	}
	m["BatchNormalization in training"] = func(g *gen) instance {
		s := append([]int64{g.int("n", 2, 4), g.int("c", 1, 3)}, g.shape(0, 2)...)
		c := s[1]
		return instance{op: "BatchNormalization", in: []*Tensor{g.floats(s...), g.floats(c), g.floats(c), g.floats(c), g.positive(c)}, outs: 3,
			attrs: []*onnx.Attr{onnx.F("epsilon", 0.1), onnx.F("momentum", 0.75), onnx.I("training_mode", 1)}}
	}
	m["InstanceNormalization"] = func(g *gen) instance {
		s := append(g.shape(2, 2), g.shape(1, 2)...)
		return instance{op: "InstanceNormalization", in: []*Tensor{g.floats(s...), g.floats(s[1]), g.floats(s[1])}, attrs: []*onnx.Attr{onnx.F("epsilon", 0.1)}}
	}
	m["LayerNormalization"] = func(g *gen) instance {
		s := g.shape(1, 3)
		axis := g.axis(len(s))
		part := s[axisOf(axis, len(s)):]
		c := instance{op: "LayerNormalization", in: []*Tensor{g.floats(s...), g.floats(part...)}, outs: 3, attrs: []*onnx.Attr{onnx.I("axis", axis), onnx.F("epsilon", 0.1)}}
		if g.bool("bias") {
			c.in = append(c.in, g.floats(part...))
		}
		return c
	}
	m["LRN"] = func(g *gen) instance {
		return instance{op: "LRN", in: []*Tensor{g.floats(2, 5, 2, 2)}, attrs: []*onnx.Attr{onnx.I("size", pick[int64](g, "size", 1, 3, 5)), onnx.F("alpha", 0.5), onnx.F("bias", 2)}}
	}
	m["MeanVarianceNormalization"] = func(g *gen) instance {
		c := instance{op: "MeanVarianceNormalization", in: []*Tensor{g.floats(2, 3, 2, 4)}}
		if g.bool("axes") {
			c.attrs = []*onnx.Attr{onnx.Is("axes", pick(g, "which", []int64{2, 3}, []int64{0, 1, 2, 3}, []int64{1, 3})...)}
		}
		return c
	}
	m["LpNormalization"] = func(g *gen) instance {
		s := g.shape(1, 3)
		return instance{op: "LpNormalization", in: []*Tensor{g.positive(s...)}, attrs: []*onnx.Attr{onnx.I("axis", g.axis(len(s))), onnx.I("p", g.int("p", 1, 2))}}
	}
	return m
}

// windowAttrs draws kernel, strides, dilations and pads for the given spatial sizes, so that the window fits.
func windowAttrs(g *gen, in []int64, dilate, pool bool) (kernel []int64, attrs []*onnx.Attr) {
	var stride, dilation, begin, end []int64
	auto := pick(g, "auto_pad", "", "", "", "SAME_UPPER", "SAME_LOWER", "VALID")
	same := auto == "SAME_UPPER" || auto == "SAME_LOWER"
	dilated := dilate && !same // together the runtime takes them for something else, or refuses
	for _, d := range in {
		k := g.int("kernel", 1, int(min(3, d)))
		dil := int64(1)
		if dilated && (k-1)*2 < d && g.bool("dilate") {
			dil = 2
		}
		reach := int((k - 1) * dil)
		step := g.int("stride", 1, 3)
		if pool && same { // the runtime rounds the negative paddings of longer strides in a way of its own
			step = min(step, k)
		}
		kernel, stride, dilation = append(kernel, k), append(stride, step), append(dilation, dil)
		begin, end = append(begin, g.int("begin", 0, min(reach, int(k-1)))), append(end, g.int("end", 0, min(reach, int(k-1))))
	}
	attrs = append(attrs, onnx.Is("strides", stride...))
	if dilate {
		attrs = append(attrs, onnx.Is("dilations", dilation...))
	}
	if auto == "" {
		attrs = append(attrs, onnx.Is("pads", append(begin, end...)...))
	} else {
		attrs = append(attrs, onnx.S("auto_pad", auto))
	}
	return kernel, attrs
}

func (g *gen) spatial(high int) []int64 {
	s := g.shape(1, high)
	for i := range s {
		s[i] += 2
	}
	return s
}

func windowInstances() map[string]func(*gen) instance {
	m := map[string]func(*gen) instance{}
	m["Conv"] = func(g *gen) instance {
		in := g.spatial(3)
		kernel, attrs := windowAttrs(g, in, true, false)
		group, perGroup := g.int("group", 1, 2), g.int("channels", 1, 2)
		maps := group * g.int("maps", 1, 2)
		c := instance{op: "Conv", in: []*Tensor{g.floats(append([]int64{g.int("n", 1, 2), group * perGroup}, in...)...), g.floats(append([]int64{maps, perGroup}, kernel...)...)},
			attrs: append(attrs, onnx.I("group", group))}
		if g.bool("bias") {
			c.in = append(c.in, g.floats(maps))
		}
		return c
	}
	m["ConvTranspose"] = func(g *gen) instance {
		in := g.spatial(2)
		kernel, attrs := windowAttrs(g, in, true, false)
		group, channels, maps := g.int("group", 1, 2), g.int("channels", 1, 2), g.int("maps", 1, 2)
		c := instance{op: "ConvTranspose", in: []*Tensor{g.floats(append([]int64{g.int("n", 1, 2), group * channels}, in...)...), g.floats(append([]int64{group * channels, maps}, kernel...)...)}}
		node := &onnx.Node{Attrs: attrs}
		stride, dilation := node.Ints("strides"), node.Ints("dilations")
		var extra, asked []int64
		for i := range in {
			extra = append(extra, g.int("extra", 0, int(stride[i]-1))) // with more, the runtime reads beyond its buffer
			asked = append(asked, stride[i]*(in[i]-1)+(kernel[i]-1)*dilation[i]+1-g.int("less", 0, int(kernel[i]-1)))
		}
		switch {
		case node.Attr("pads") == nil:
			for i := range in { // the runtime wants a window that covers the stride
				if (kernel[i]-1)*dilation[i]+1 < stride[i] {
					attrs = attrs[:2]
				}
			}
		case g.bool("output_shape"):
			attrs = append(attrs[:2], onnx.Is("output_shape", asked...))
			if g.bool("auto") {
				attrs = append(attrs, onnx.S("auto_pad", pick(g, "auto", "SAME_UPPER", "SAME_LOWER")))
			}
		default:
			attrs = append(attrs, onnx.Is("output_padding", extra...))
		}
		c.attrs = append(attrs, onnx.I("group", group))
		if g.bool("bias") {
			c.in = append(c.in, g.floats(maps*group))
		}
		return c
	}
	m["MaxPool"] = func(g *gen) instance {
		in := g.spatial(3)
		kernel, attrs := windowAttrs(g, in, true, true)
		return instance{op: "MaxPool", in: []*Tensor{g.floats(append(g.shape(2, 2), in...)...)}, outs: 2,
			attrs: append(attrs, onnx.Is("kernel_shape", kernel...), onnx.I("ceil_mode", g.int("ceil", 0, 1)), onnx.I("storage_order", g.int("order", 0, 1)))}
	}
	m["AveragePool"] = func(g *gen) instance {
		in := g.spatial(3)
		kernel, attrs := windowAttrs(g, in, false, true)
		mode := pick(g, "mode", "", "ceil_mode", "count_include_pad") // together they mean different things to different versions of the runtime
		if mode != "" {
			attrs = append(attrs, onnx.I(mode, 1))
		}
		return instance{op: "AveragePool", in: []*Tensor{g.floats(append(g.shape(2, 2), in...)...)}, attrs: append(attrs, onnx.Is("kernel_shape", kernel...))}
	}
	m["LpPool"] = func(g *gen) instance {
		in := g.spatial(3)
		kernel, attrs := windowAttrs(g, in, false, true)
		return instance{op: "LpPool", in: []*Tensor{g.floats(append(g.shape(2, 2), in...)...)}, attrs: append(attrs, onnx.Is("kernel_shape", kernel...), onnx.I("p", g.int("p", 1, 3)))}
	}
	m["GlobalLpPool"] = func(g *gen) instance {
		return instance{op: "GlobalLpPool", in: []*Tensor{g.floats(append(g.shape(2, 2), g.spatial(3)...)...)}, attrs: []*onnx.Attr{onnx.I("p", g.int("p", 1, 3))}}
	}
	for _, op := range []string{"GlobalAveragePool", "GlobalMaxPool"} {
		m[op] = func(g *gen) instance {
			return instance{op: op, in: []*Tensor{g.floats(append(g.shape(2, 2), g.spatial(3)...)...)}}
		}
	}
	return m
}
