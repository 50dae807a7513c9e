package grad_test

import (
	"pgregory.net/rapid"

	"grindstone/sanitize/onnx"
)

// windows draws the attributes of a convolution or pooling over d spatial dimensions.
func windows(t *rapid.T, d int) (in, kernel, strides, dilations, pads []int64) {
	pads = make([]int64, 2*d)
	for i := range d {
		k := rapid.Int64Range(1, 3).Draw(t, "kernel")
		s := rapid.Int64Range(1, 3).Draw(t, "stride")
		e := rapid.Int64Range(1, 2).Draw(t, "dilation")
		reach := e*(k-1) + 1
		pads[i], pads[d+i] = rapid.Int64Range(0, k-1).Draw(t, "begin"), rapid.Int64Range(0, k-1).Draw(t, "end")
		in = append(in, max(1, reach-pads[i]-pads[d+i])+rapid.Int64Range(0, 7-2*int64(d)).Draw(t, "more"))
		kernel, strides, dilations = append(kernel, k), append(strides, s), append(dilations, e)
	}
	return in, kernel, strides, dilations, pads
}

// padding draws pads or auto_pad.
func padding(t *rapid.T, pads []int64) *onnx.Attr {
	if rapid.IntRange(0, 2).Draw(t, "auto") == 2 {
		return onnx.S("auto_pad", rapid.SampledFrom([]string{"SAME_UPPER", "SAME_LOWER", "VALID"}).Draw(t, "mode"))
	}
	return onnx.Is("pads", pads...)
}

// grow makes the input large enough for the kernel without any padding.
func grow(in, kernel, dilations []int64) {
	for i := range in {
		in[i] = max(in[i], (kernel[i]-1)*dilations[i]+1)
	}
}

func drawConv(t *rapid.T) sample {
	d := rapid.IntRange(1, 3).Draw(t, "dimensions")
	in, kernel, strides, dilations, pads := windows(t, d)
	group, cg, kg := rapid.Int64Range(1, 2).Draw(t, "group"), rapid.Int64Range(1, 2).Draw(t, "channels"), rapid.Int64Range(1, 2).Draw(t, "filters")
	if rapid.IntRange(0, 3).Draw(t, "wide") == 0 { // many channels of tiny images have a form of their own
		group, cg, kg = 1, 5, 6
		for i := range in {
			kernel[i], in[i] = 1, min(in[i], 2)
			if i > 0 {
				in[i] = 1
			}
		}
		clear(pads)
	}
	attrs := []*onnx.Attr{onnx.I("group", group), onnx.Is("strides", strides...), onnx.Is("kernel_shape", kernel...), padding(t, pads)}
	if attrs[3].Name == "auto_pad" { // ONNX Runtime refuses it together with dilation
		for i := range dilations {
			dilations[i] = 1
		}
		grow(in, kernel, dilations)
	}
	s := sample{
		node:   node("Conv", 1, []string{"x", "w"}, append(attrs, onnx.Is("dilations", dilations...))...),
		inputs: map[string][]int64{"x": append([]int64{2, group * cg}, in...), "w": append([]int64{group * kg, cg}, kernel...)},
		wrt:    []string{"x", "w"},
	}
	if rapid.Bool().Draw(t, "bias") {
		s.node.Inputs = append(s.node.Inputs, "b")
		s.inputs["b"] = []int64{group * kg}
		s.wrt = append(s.wrt, "b")
	}
	return s
}

func drawConvTranspose(t *rapid.T) sample {
	d := rapid.IntRange(1, 3).Draw(t, "dimensions")
	in, kernel, strides, dilations, pads := windows(t, d)
	group, cg, kg := rapid.Int64Range(1, 2).Draw(t, "group"), rapid.Int64Range(1, 2).Draw(t, "channels"), rapid.Int64Range(1, 2).Draw(t, "filters")
	attrs := []*onnx.Attr{onnx.I("group", group), onnx.Is("strides", strides...), onnx.Is("dilations", dilations...), onnx.Is("kernel_shape", kernel...)}
	var extra, asked []int64
	for i := range d {
		in[i] = min(in[i], 5-int64(d))
		reach := (kernel[i]-1)*dilations[i] + 1
		full := strides[i]*(in[i]-1) + reach
		if full-pads[i]-pads[d+i] < 1 {
			pads[i], pads[d+i] = 0, 0
		}
		extra = append(extra, rapid.Int64Range(0, strides[i]-1).Draw(t, "extra"))
		asked = append(asked, max(1, full-rapid.Int64Range(0, kernel[i]-1).Draw(t, "less")+extra[i]))
	}
	switch rapid.IntRange(0, 3).Draw(t, "padding") {
	case 0:
		attrs = append(attrs, onnx.Is("output_shape", asked...))
		if rapid.Bool().Draw(t, "auto") {
			attrs = append(attrs, onnx.S("auto_pad", rapid.SampledFrom([]string{"SAME_UPPER", "SAME_LOWER"}).Draw(t, "mode")))
		}
	case 1:
		covers := true // the runtime wants a window that covers the stride
		for i := range d {
			covers = covers && (kernel[i]-1)*dilations[i]+1 >= strides[i]
		}
		if covers {
			attrs = append(attrs, onnx.S("auto_pad", rapid.SampledFrom([]string{"SAME_UPPER", "SAME_LOWER", "VALID"}).Draw(t, "mode")))
		}
	default:
		attrs = append(attrs, onnx.Is("pads", pads...), onnx.Is("output_padding", extra...))
	}
	s := sample{node: node("ConvTranspose", 1, []string{"x", "w"}, attrs...),
		inputs: map[string][]int64{"x": append([]int64{2, group * cg}, in...), "w": append([]int64{group * cg, kg}, kernel...)}, wrt: []string{"x", "w"}}
	if rapid.Bool().Draw(t, "bias") {
		s.node.Inputs = append(s.node.Inputs, "b")
		s.inputs["b"], s.wrt = []int64{group * kg}, append(s.wrt, "b")
	}
	return s
}

func drawBatchNorm(t *rapid.T) sample {
	x := append([]int64{rapid.Int64Range(3, 5).Draw(t, "batch"), rapid.Int64Range(1, 3).Draw(t, "channels")}, shape(t, rapid.IntRange(0, 2).Draw(t, "dimensions"))...)
	c := []int64{x[1]}
	s := sample{node: node("BatchNormalization", 1, []string{"x", "scale", "shift", "mean", "variance"}, onnx.F("epsilon", 1e-2)),
		inputs: map[string][]int64{"x": x, "scale": c, "shift": c}, wrt: []string{"x", "scale", "shift"}, train: rapid.Bool().Draw(t, "training")}
	mean, variance := make([]float64, c[0]), make([]float64, c[0]) // in training they are there and not used
	for i := range mean {
		mean[i], variance[i] = rapid.Float64Range(-1, 1).Draw(t, "mean"), rapid.Float64Range(0.5, 2).Draw(t, "variance")
	}
	s.constants = []*onnx.Tensor{onnx.NewDouble("mean", c, mean), onnx.NewDouble("variance", c, variance)}
	return s
}

func drawPool(op string) func(*rapid.T) sample {
	return func(t *rapid.T) sample {
		d := rapid.IntRange(1, 3).Draw(t, "dimensions")
		in, kernel, strides, dilations, pads := windows(t, d)
		attrs := []*onnx.Attr{onnx.Is("kernel_shape", kernel...), padding(t, pads)}
		auto := attrs[1].Name == "auto_pad"
		if op != "MaxPool" || auto {
			for i := range dilations {
				dilations[i] = 1
			}
		}
		grow(in, kernel, dilations)
		if auto { // longer strides would mean negative padding
			for i := range strides {
				strides[i] = min(strides[i], kernel[i])
			}
		}
		attrs = append(attrs, onnx.Is("strides", strides...))
		switch op {
		case "MaxPool":
			attrs = append(attrs, onnx.Is("dilations", dilations...), onnx.I("ceil_mode", rapid.Int64Range(0, 1).Draw(t, "ceil")))
		case "AveragePool":
			switch rapid.IntRange(0, 2).Draw(t, "mode") { // together they mean different things to different runtimes
			case 1:
				attrs = append(attrs, onnx.I("count_include_pad", 1))
			case 2:
				attrs = append(attrs, onnx.I("ceil_mode", 1))
			}
		case "LpPool":
			attrs = append(attrs, onnx.I("p", rapid.Int64Range(1, 3).Draw(t, "p")))
		}
		if op != "LpPool" && rapid.Bool().Draw(t, "tiles") { // windows that touch and do not overlap
			attrs = []*onnx.Attr{onnx.Is("kernel_shape", kernel...), onnx.Is("strides", kernel...)}
		}
		return sample{node: node(op, 1, []string{"x"}, attrs...), inputs: map[string][]int64{"x": append([]int64{1, 2}, in...)}, wrt: []string{"x"}, kinks: true}
	}
}

func drawGlobal(op string) func(*rapid.T) sample {
	return func(t *rapid.T) sample {
		s := sample{node: node(op, 1, []string{"x"}), inputs: map[string][]int64{"x": append(shape(t, 2), shape(t, rapid.IntRange(1, 3).Draw(t, "dimensions"))...)}, wrt: []string{"x"}, kinks: true}
		if op == "GlobalLpPool" {
			s.node.Attrs = append(s.node.Attrs, onnx.I("p", rapid.Int64Range(1, 3).Draw(t, "p")))
		}
		return s
	}
}

func drawGemm(t *rapid.T) sample {
	m, k, n := dim(t), dim(t), dim(t)
	a, b := []int64{m, k}, []int64{k, n}
	ta, tb := rapid.Int64Range(0, 1).Draw(t, "transA"), rapid.Int64Range(0, 1).Draw(t, "transB")
	if ta == 1 {
		a = []int64{k, m}
	}
	if tb == 1 {
		b = []int64{n, k}
	}
	s := sample{node: node("Gemm", 1, []string{"a", "b"}, onnx.I("transA", ta), onnx.I("transB", tb), onnx.F("alpha", 1.5), onnx.F("beta", 0.5)),
		inputs: map[string][]int64{"a": a, "b": b}, wrt: []string{"a", "b"}}
	if rapid.Bool().Draw(t, "bias") {
		s.node.Inputs = append(s.node.Inputs, "c")
		s.wrt = append(s.wrt, "c")
		s.inputs["c"] = rapid.SampledFrom([][]int64{{m, n}, {n}, {1, n}, {m, 1}, {1}}).Draw(t, "bias shape")
	}
	return s
}

func drawMatMul(t *rapid.T) sample {
	m, k, n, p, q := dim(t), dim(t), dim(t), dim(t), dim(t)
	pair := rapid.SampledFrom([][2][]int64{
		{{m, k}, {k, n}}, {{p, m, k}, {k, n}}, {{p, m, k}, {p, k, n}}, {{q, p, m, k}, {p, k, n}}, {{1, m, k}, {p, k, n}}, {{m, k}, {p, k, n}},
		{{q, 1, m, k}, {1, p, k, n}}, {{k}, {k, n}}, {{m, k}, {k}}, {{p, m, k}, {k}}, {{k}, {p, k, n}}, {{k}, {k}},
	}).Draw(t, "shapes")
	return sample{node: node("MatMul", 1, []string{"a", "b"}), inputs: map[string][]int64{"a": pair[0], "b": pair[1]}, wrt: []string{"a", "b"}}
}

func drawEinsum(t *rapid.T) sample {
	m, k, n, p := dim(t), dim(t), dim(t), dim(t)
	e := rapid.SampledFrom([]struct {
		equation string
		a, b     []int64 // b nil: one operand
	}{
		{"ij,jk->ik", []int64{m, k}, []int64{k, n}}, {"bij,bjk->bik", []int64{p, m, k}, []int64{p, k, n}}, {"ij->ji", []int64{m, k}, nil}, {"ii->i", []int64{m, m}, nil},
		{"ij->", []int64{m, k}, nil}, {"bhid,bhjd->bhij", []int64{p, n, m, k}, []int64{p, n, 3, k}}, {"...ij,...jk->...ik", []int64{p, 1, m, k}, []int64{p, n, k, 2}},
		{"ij,jk", []int64{m, k}, []int64{k, n}}, {"ij,ij->i", []int64{m, k}, []int64{m, k}}, {"i,j->ij", []int64{m}, []int64{n}}, {"nchw,c->nchw", []int64{p, m, k, n}, []int64{m}},
		{"ij,kl->ik", []int64{m, k}, []int64{n, p}}, {"...i->...", []int64{p, m, k}, nil}, {"bhqk,bkhc->bqhc", []int64{2, p, m, k}, []int64{2, k, p, n}},
	}).Draw(t, "equation")
	s := sample{node: node("Einsum", 1, []string{"a"}, onnx.S("equation", e.equation)), inputs: map[string][]int64{"a": e.a}, wrt: []string{"a"}}
	if e.b != nil {
		s.node.Inputs, s.wrt = []string{"a", "b"}, []string{"a", "b"}
		s.inputs["b"] = e.b
	}
	return s
}
