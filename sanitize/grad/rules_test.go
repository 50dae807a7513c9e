package grad_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"grindstone/sanitize/grad"
	"grindstone/sanitize/onnx"
)

// draw makes a random sample of an operator. There must be one for every rule in the table.
var draw = map[string]func(t *rapid.T) sample{
	"Abs": unary("Abs", true), "Exp": unary("Exp", false), "Identity": unary("Identity", false), "LeakyRelu": unary("LeakyRelu", true),
	"Neg": unary("Neg", false), "Relu": unary("Relu", true), "Sigmoid": unary("Sigmoid", false), "Softplus": unary("Softplus", false), "Tanh": unary("Tanh", false),
	"Log": positive("Log"), "Sqrt": positive("Sqrt"),
	"Add": binary("Add"), "Sub": binary("Sub"), "Mul": binary("Mul"), "Div": binary("Div"),
	"Softmax": alongAxis("Softmax"), "LogSoftmax": alongAxis("LogSoftmax"),
	"ReduceMean": drawReduceMean, "ReduceSum": drawReduceSum,
	"Clip": drawClip, "Gemm": drawGemm, "MatMul": drawMatMul, "Conv": drawConv, "BatchNormalization": drawBatchNorm,
	"MaxPool": drawPool("MaxPool"), "AveragePool": drawPool("AveragePool"), "GlobalAveragePool": drawGlobalAverage,
	"Concat": drawConcat, "Flatten": drawFlatten, "Pad": drawPad, "Reshape": drawReshape, "Squeeze": drawSqueeze,
	"Transpose": drawTranspose, "Unsqueeze": drawUnsqueeze,
}

// tolerance is the relative error that finite differences in float64 allow.
const tolerance = 1e-6

func TestRules(t *testing.T) {
	for op := range grad.Rules {
		t.Run(op, func(t *testing.T) {
			d := draw[op]
			if d == nil {
				t.Fatalf("no sample of %s: a rule without a check", op)
			}
			rapid.Check(t, func(rt *rapid.T) {
				s := d(rt)
				rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "numbers"), 0))
				e, err := worst(t, s, rng)
				if err != nil {
					rt.Fatalf("%v %v: %v", s.node, s.inputs, err)
				}
				if e > tolerance {
					rt.Fatalf("relative error %.2g; inputs %v ints %v attributes %v", e, s.inputs, s.ints, describe(s.node))
				}
			})
		})
	}
}

// TestBrokenRulesAreCaught breaks every rule in turn, by 1 % of each gradient it returns, and expects the check to fail.
func TestBrokenRulesAreCaught(t *testing.T) {
	for op, rule := range grad.Rules {
		t.Run(op, func(t *testing.T) {
			broken := rule
			broken.Backward = func(t *grad.Tape, n *onnx.Node, dy []string) []string {
				g := rule.Backward(t, n, dy)
				g = slices.Clone(g)
				for i := range g {
					if g[i] != "" {
						g[i] = t.B.Op("Mul", []string{g[i], t.B.Float(1.01)})
					}
				}
				return g
			}
			grad.Rules[op] = broken
			defer func() { grad.Rules[op] = rule }()
			caught := 0
			for seed := range 10 { // the true gradient of a single sample may happen to be zero
				s := rapid.Custom(draw[op]).Example(seed)
				e, err := worst(t, s, rand.New(rand.NewPCG(1, 0)))
				if err != nil {
					t.Fatal(err)
				}
				if e > tolerance {
					caught++
				}
			}
			if caught < 5 {
				t.Errorf("a rule that is wrong by 1 %% passes on %d of 10 samples", 10-caught)
			}
		})
	}
}

func describe(n *onnx.Node) (list []any) {
	for _, a := range n.Attrs {
		list = append(list, a.Name, a.I, a.F, a.Ints)
	}
	return list
}

func shape(t *rapid.T, rank int) []int64 {
	s := make([]int64, rank)
	for i := range s {
		s[i] = rapid.Int64Range(1, 4).Draw(t, "size")
	}
	return s
}

func anyShape(t *rapid.T) []int64 { return shape(t, rapid.IntRange(1, 4).Draw(t, "rank")) }

func drawAxis(t *rapid.T, rank int) int64 {
	return int64(rapid.IntRange(-rank, rank-1).Draw(t, "axis"))
}

func unary(op string, kinks bool) func(*rapid.T) sample {
	return func(t *rapid.T) sample {
		return sample{node: node(op, 1, []string{"x"}), inputs: map[string][]int64{"x": anyShape(t)}, wrt: []string{"x"}, kinks: kinks}
	}
}

// positive feeds an operator that wants positive numbers.
func positive(op string) func(*rapid.T) sample {
	return func(t *rapid.T) sample {
		s := unary(op, false)(t)
		s.positive = true
		return s
	}
}

func binary(op string) func(*rapid.T) sample {
	return func(t *rapid.T) sample {
		a := anyShape(t)
		b := slices.Clone(a)
		for i := range a { // broadcast either way
			switch rapid.IntRange(0, 3).Draw(t, "broadcast") {
			case 0:
				a[i] = 1
			case 1:
				b[i] = 1
			}
		}
		b = b[rapid.IntRange(0, len(b)).Draw(t, "drop"):]
		in := []string{"a", "b"}
		if rapid.Bool().Draw(t, "swap") {
			in = []string{"b", "a"}
		}
		return sample{node: node(op, 1, in), inputs: map[string][]int64{"a": a, "b": b}, wrt: in, kinks: true}
	}
}

func alongAxis(op string) func(*rapid.T) sample {
	return func(t *rapid.T) sample {
		x := anyShape(t)
		return sample{node: node(op, 1, []string{"x"}, onnx.I("axis", drawAxis(t, len(x)))), inputs: map[string][]int64{"x": x}, wrt: []string{"x"}}
	}
}

// axes draws a non-empty set of axes, some of them negative.
func axes(t *rapid.T, rank int) []int64 {
	var list []int64
	for i := range rank {
		if rapid.Bool().Draw(t, "reduce") {
			a := int64(i)
			if rapid.Bool().Draw(t, "negative") {
				a -= int64(rank)
			}
			list = append(list, a)
		}
	}
	if len(list) == 0 {
		list = []int64{-1}
	}
	return list
}

func drawReduceMean(t *rapid.T) sample {
	x := anyShape(t)
	attrs := []*onnx.Attr{onnx.I("keepdims", rapid.Int64Range(0, 1).Draw(t, "keepdims"))}
	if rapid.Bool().Draw(t, "some") {
		attrs = append(attrs, onnx.Is("axes", axes(t, len(x))...))
	}
	return sample{node: node("ReduceMean", 1, []string{"x"}, attrs...), inputs: map[string][]int64{"x": x}, wrt: []string{"x"}}
}

func drawReduceSum(t *rapid.T) sample {
	x := anyShape(t)
	keep := onnx.I("keepdims", rapid.Int64Range(0, 1).Draw(t, "keepdims"))
	s := sample{node: node("ReduceSum", 1, []string{"x"}, keep), inputs: map[string][]int64{"x": x}, wrt: []string{"x"}}
	if rapid.Bool().Draw(t, "some") {
		s.node.Inputs = append(s.node.Inputs, "axes")
		s.ints = map[string][]int64{"axes": axes(t, len(x))}
	}
	return s
}

func drawClip(t *rapid.T) sample {
	s := sample{node: node("Clip", 1, []string{"x", "low", "high"}), inputs: map[string][]int64{"x": anyShape(t)}, wrt: []string{"x"}, kinks: true,
		floats: map[string][]float64{"low": {-0.05}, "high": {0.05}}}
	s.floats["low"][0] *= float64(rapid.IntRange(1, 30).Draw(t, "low"))
	s.floats["high"][0] *= float64(rapid.IntRange(1, 30).Draw(t, "high"))
	switch rapid.IntRange(0, 2).Draw(t, "bounds") {
	case 0:
		s.node.Inputs[1] = ""
	case 1:
		s.node.Inputs = s.node.Inputs[:2]
	}
	return s
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

func dim(t *rapid.T) int64 { return rapid.Int64Range(1, 4).Draw(t, "size") }

func drawMatMul(t *rapid.T) sample {
	m, k, n, p, q := dim(t), dim(t), dim(t), dim(t), dim(t)
	pair := rapid.SampledFrom([][2][]int64{
		{{m, k}, {k, n}}, {{p, m, k}, {k, n}}, {{p, m, k}, {p, k, n}}, {{q, p, m, k}, {p, k, n}}, {{1, m, k}, {p, k, n}}, {{m, k}, {p, k, n}},
		{{q, 1, m, k}, {1, p, k, n}}, {{k}, {k, n}}, {{m, k}, {k}}, {{p, m, k}, {k}}, {{k}, {p, k, n}}, {{k}, {k}},
	}).Draw(t, "shapes")
	return sample{node: node("MatMul", 1, []string{"a", "b"}), inputs: map[string][]int64{"a": pair[0], "b": pair[1]}, wrt: []string{"a", "b"}}
}

// windows draws the attributes of a convolution or pooling over d spatial dimensions.
func windows(t *rapid.T, d int) (in, kernel, strides, dilations, pads []int64) {
	pads = make([]int64, 2*d)
	for i := range d {
		k := rapid.Int64Range(1, 3).Draw(t, "kernel")
		s := rapid.Int64Range(1, 3).Draw(t, "stride")
		e := rapid.Int64Range(1, 2).Draw(t, "dilation")
		reach := e*(k-1) + 1
		pads[i], pads[d+i] = rapid.Int64Range(0, k-1).Draw(t, "begin"), rapid.Int64Range(0, k-1).Draw(t, "end")
		in = append(in, max(1, reach-pads[i]-pads[d+i])+rapid.Int64Range(0, 4).Draw(t, "more"))
		kernel, strides, dilations = append(kernel, k), append(strides, s), append(dilations, e)
	}
	return in, kernel, strides, dilations, pads
}

func drawConv(t *rapid.T) sample {
	d := rapid.IntRange(1, 2).Draw(t, "dimensions")
	in, kernel, strides, dilations, pads := windows(t, d)
	group, cg, kg := rapid.Int64Range(1, 2).Draw(t, "group"), rapid.Int64Range(1, 2).Draw(t, "channels"), rapid.Int64Range(1, 2).Draw(t, "filters")
	s := sample{
		node: node("Conv", 1, []string{"x", "w"}, onnx.I("group", group), onnx.Is("strides", strides...), onnx.Is("dilations", dilations...),
			onnx.Is("pads", pads...), onnx.Is("kernel_shape", kernel...)),
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

func drawBatchNorm(t *rapid.T) sample {
	x := append([]int64{rapid.Int64Range(3, 5).Draw(t, "batch"), rapid.Int64Range(1, 3).Draw(t, "channels")}, shape(t, rapid.IntRange(0, 2).Draw(t, "dimensions"))...)
	c := []int64{x[1]}
	s := sample{node: node("BatchNormalization", 1, []string{"x", "scale", "shift", "mean", "variance"}, onnx.F("epsilon", 1e-2)),
		inputs: map[string][]int64{"x": x, "scale": c, "shift": c}, wrt: []string{"x", "scale", "shift"}, train: rapid.Bool().Draw(t, "training")}
	if !s.train {
		s.floats = map[string][]float64{}
		for range c[0] {
			s.floats["mean"] = append(s.floats["mean"], rapid.Float64Range(-1, 1).Draw(t, "mean"))
			s.floats["variance"] = append(s.floats["variance"], rapid.Float64Range(0.5, 2).Draw(t, "variance"))
		}
	}
	return s
}

func drawPool(op string) func(*rapid.T) sample {
	return func(t *rapid.T) sample {
		d := rapid.IntRange(1, 2).Draw(t, "dimensions")
		in, kernel, strides, dilations, pads := windows(t, d)
		attrs := []*onnx.Attr{onnx.Is("kernel_shape", kernel...), onnx.Is("strides", strides...), onnx.Is("pads", pads...)}
		if op == "MaxPool" {
			attrs = append(attrs, onnx.Is("dilations", dilations...))
		} else {
			attrs = append(attrs, onnx.I("count_include_pad", rapid.Int64Range(0, 1).Draw(t, "count pad")))
		}
		if rapid.Bool().Draw(t, "tiles") { // windows that touch and do not overlap
			attrs = []*onnx.Attr{onnx.Is("kernel_shape", kernel...), onnx.Is("strides", kernel...)}
			for i := range in {
				in[i] = max(in[i], kernel[i])
			}
		}
		return sample{node: node(op, 1, []string{"x"}, attrs...), inputs: map[string][]int64{"x": append([]int64{2, 2}, in...)}, wrt: []string{"x"}, kinks: true}
	}
}

func drawGlobalAverage(t *rapid.T) sample {
	return sample{node: node("GlobalAveragePool", 1, []string{"x"}), inputs: map[string][]int64{"x": append(shape(t, 2), shape(t, 2)...)}, wrt: []string{"x"}}
}

func drawConcat(t *rapid.T) sample {
	x := anyShape(t)
	a := drawAxis(t, len(x))
	s := sample{node: node("Concat", 1, nil, onnx.I("axis", a)), inputs: map[string][]int64{}}
	for _, name := range []string{"a", "b", "c"}[:rapid.IntRange(1, 3).Draw(t, "inputs")] {
		one := slices.Clone(x)
		at := a
		if at < 0 {
			at += int64(len(x))
		}
		one[at] = dim(t)
		s.node.Inputs = append(s.node.Inputs, name)
		s.inputs[name] = one
		s.wrt = append(s.wrt, name)
	}
	return s
}

func drawFlatten(t *rapid.T) sample {
	x := anyShape(t)
	return sample{node: node("Flatten", 1, []string{"x"}, onnx.I("axis", int64(rapid.IntRange(0, len(x)).Draw(t, "axis")))), inputs: map[string][]int64{"x": x}, wrt: []string{"x"}}
}

func drawPad(t *rapid.T) sample {
	x := anyShape(t)
	pads := make([]int64, 2*len(x))
	for i := range x {
		pads[i], pads[len(x)+i] = rapid.Int64Range(-(x[i]-1)/2, 2).Draw(t, "begin"), rapid.Int64Range(-(x[i]-1)/2, 2).Draw(t, "end")
	}
	return sample{node: node("Pad", 1, []string{"x", "pads"}), inputs: map[string][]int64{"x": x}, ints: map[string][]int64{"pads": pads}, wrt: []string{"x"}}
}

func drawReshape(t *rapid.T) sample {
	x := anyShape(t)
	to := rapid.SampledFrom([][]int64{{-1}, {1, -1}, {0, -1}, {-1, x[len(x)-1]}}).Draw(t, "to")
	return sample{node: node("Reshape", 1, []string{"x", "to"}), inputs: map[string][]int64{"x": x}, ints: map[string][]int64{"to": to}, wrt: []string{"x"}}
}

func drawSqueeze(t *rapid.T) sample {
	x := anyShape(t)
	at := rapid.IntRange(0, len(x)).Draw(t, "at")
	return sample{node: node("Squeeze", 1, []string{"x", "axes"}), inputs: map[string][]int64{"x": slices.Insert(x, at, 1)}, ints: map[string][]int64{"axes": {int64(at)}}, wrt: []string{"x"}}
}

func drawUnsqueeze(t *rapid.T) sample {
	x := anyShape(t)
	at := int64(rapid.IntRange(-len(x)-1, len(x)).Draw(t, "at"))
	return sample{node: node("Unsqueeze", 1, []string{"x", "axes"}), inputs: map[string][]int64{"x": x}, ints: map[string][]int64{"axes": {at}}, wrt: []string{"x"}}
}

func drawTranspose(t *rapid.T) sample {
	x := anyShape(t)
	s := sample{node: node("Transpose", 1, []string{"x"}), inputs: map[string][]int64{"x": x}, wrt: []string{"x"}}
	if rapid.Bool().Draw(t, "given") {
		perm := make([]int64, len(x))
		for i := range perm {
			perm[i] = int64(i)
		}
		s.node.Attrs = append(s.node.Attrs, onnx.Is("perm", rapid.Permutation(perm).Draw(t, "perm")...))
	}
	return s
}
