package grad_test

import (
	"math"
	"slices"

	"pgregory.net/rapid"

	"grindstone/sanitize/onnx"
)

// Samples of element-wise operators, reductions and normalizations along an axis.

// dim is a size; full sizes are never zero.
func dim(t *rapid.T) int64 { return rapid.Int64Range(1, 4).Draw(t, "size") }

func shape(t *rapid.T, rank int) []int64 {
	s := make([]int64, rank)
	for i := range s {
		s[i] = dim(t)
	}
	return s
}

func fullShape(t *rapid.T) []int64 { return shape(t, rapid.IntRange(1, 4).Draw(t, "rank")) }

// anyShape has now and then an axis without elements.
func anyShape(t *rapid.T) []int64 {
	s := fullShape(t)
	if rapid.IntRange(0, 15).Draw(t, "empty") == 15 {
		s[rapid.IntRange(0, len(s)-1).Draw(t, "which")] = 0
	}
	return s
}

func drawAxis(t *rapid.T, rank int) int64 {
	return int64(rapid.IntRange(-rank, rank-1).Draw(t, "axis"))
}

// numbers says which inputs suit an operator.
type numbers func(s *sample)

func smooth(*sample)  {}
func kinks(s *sample) { s.kinks = true }

func above0(s *sample) { s.domain = func(v float64) float64 { return 0.1 + math.Abs(v) } }

func above1(s *sample) { s.domain = func(v float64) float64 { return 1.1 + math.Abs(v) } }

func within1(s *sample) { s.domain = func(v float64) float64 { return 0.9 * math.Tanh(v) } }

// offGrid keeps away from integers and halves.
func offGrid(s *sample) {
	s.domain = func(v float64) float64 { return math.Floor(4*v)/2 + 0.1 + 0.3*math.Abs(math.Sin(v)) }
}

// withZeros makes a quarter of the numbers zero.
func withZeros(s *sample) {
	s.domain = func(v float64) float64 {
		if math.Abs(v) < 0.32 {
			return 0
		}
		return v
	}
}

// unary draws an operator of one input, with some of the named float attributes.
func unary(op string, suit numbers, attrs ...string) func(*rapid.T) sample {
	return func(t *rapid.T) sample {
		s := sample{node: node(op, 1, []string{"x"}), inputs: map[string][]int64{"x": anyShape(t)}, wrt: []string{"x"}}
		for _, a := range attrs {
			if rapid.Bool().Draw(t, a) {
				s.node.Attrs = append(s.node.Attrs, onnx.F(a, float32(rapid.IntRange(1, 5).Draw(t, "value"))/4))
			}
		}
		suit(&s)
		return s
	}
}

// pair draws two shapes that broadcast, either way.
func pair(t *rapid.T) (a, b []int64) {
	a = anyShape(t)
	b = slices.Clone(a)
	for i := range a {
		switch rapid.IntRange(0, 3).Draw(t, "broadcast") {
		case 0:
			a[i] = 1
		case 1:
			b[i] = 1
		}
	}
	return a, b[rapid.IntRange(0, len(b)).Draw(t, "drop"):]
}

func binary(op string, attrs ...*onnx.Attr) func(*rapid.T) sample {
	return func(t *rapid.T) sample {
		a, b := pair(t)
		in := []string{"a", "b"}
		if rapid.Bool().Draw(t, "swap") {
			in = []string{"b", "a"}
		}
		return sample{node: node(op, 1, in, attrs...), inputs: map[string][]int64{"a": a, "b": b}, wrt: in, kinks: true}
	}
}

func variadic(op string) func(*rapid.T) sample {
	return func(t *rapid.T) sample {
		a, b := pair(t)
		names := []string{"a", "b", "c"}[:rapid.IntRange(1, 3).Draw(t, "operands")]
		s := sample{node: node(op, 1, names), inputs: map[string][]int64{"a": a, "b": b, "c": {1}}, wrt: names, kinks: true}
		if rapid.Bool().Draw(t, "one") {
			s.wrt = names[:1]
		}
		return s
	}
}

func drawPRelu(t *rapid.T) sample {
	x := anyShape(t)
	slope := slices.Clone(x[rapid.IntRange(0, len(x)).Draw(t, "drop"):])
	for i := range slope {
		if rapid.Bool().Draw(t, "broadcast") {
			slope[i] = 1
		}
	}
	return sample{node: node("PRelu", 1, []string{"x", "slope"}), inputs: map[string][]int64{"x": x, "slope": slope}, wrt: []string{"x", "slope"}, kinks: true}
}

func drawPow(t *rapid.T) sample {
	if rapid.Bool().Draw(t, "constant") {
		e := rapid.SampledFrom([]float64{0, 1, 2, 3, -1}).Draw(t, "exponent")
		s := sample{node: node("Pow", 1, []string{"x", "e"}), inputs: map[string][]int64{"x": anyShape(t)}, constants: []*onnx.Tensor{scalar("e", e)}, wrt: []string{"x"}, kinks: true}
		if rapid.Bool().Draw(t, "integer") {
			s.constants[0] = ints("e", []int64{int64(e)})
		}
		return s
	}
	s := binary("Pow")(t)
	above0(&s)
	return s
}

func drawWhere(t *rapid.T) sample {
	a, b := pair(t)
	c := slices.Clone(a)
	if rapid.Bool().Draw(t, "short") {
		c = c[rapid.IntRange(0, len(c)).Draw(t, "drop"):]
	}
	v := make([]bool, count(c))
	for i := range v {
		v[i] = rapid.Bool().Draw(t, "condition")
	}
	return sample{node: node("Where", 1, []string{"c", "a", "b"}), inputs: map[string][]int64{"a": a, "b": b}, constants: []*onnx.Tensor{onnx.NewBool("c", c, v)}, wrt: []string{"a", "b"}}
}

func drawClip(t *rapid.T) sample {
	s := sample{node: node("Clip", 1, []string{"x", "low", "high"}), inputs: map[string][]int64{"x": anyShape(t)}, wrt: []string{"x"}, kinks: true}
	bound := func(name string, value float64) {
		value *= 0.05 * float64(rapid.IntRange(0, 30).Draw(t, name))
		if rapid.IntRange(0, 7).Draw(t, "none") == 7 {
			value *= math.Inf(1)
		}
		if math.IsNaN(value) {
			value = 0
		}
		s.constants = append(s.constants, scalar(name, value))
	}
	trained := func(name string) { s.inputs[name], s.wrt = []int64{}, append(s.wrt, name) }
	switch rapid.IntRange(0, 4).Draw(t, "bounds") {
	case 0:
		s.node.Inputs[1] = ""
		bound("high", 1)
	case 1:
		s.node.Inputs = s.node.Inputs[:2]
		bound("low", -1)
	case 2:
		s.node.Inputs = s.node.Inputs[:2]
		trained("low")
	case 3:
		s.node.Inputs[1] = ""
		trained("high")
	case 4:
		bound("low", -1)
		bound("high", 1)
	}
	return s
}

func alongAxis(op string, suit numbers) func(*rapid.T) sample {
	return func(t *rapid.T) sample {
		x := fullShape(t)
		s := sample{node: node(op, 1, []string{"x"}, onnx.I("axis", drawAxis(t, len(x)))), inputs: map[string][]int64{"x": x}, wrt: []string{"x"}}
		suit(&s)
		return s
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

func reduce(op string, suit numbers) func(*rapid.T) sample {
	return func(t *rapid.T) sample {
		x := fullShape(t)
		attrs := []*onnx.Attr{onnx.I("keepdims", rapid.Int64Range(0, 1).Draw(t, "keepdims"))}
		if rapid.Bool().Draw(t, "some") {
			attrs = append(attrs, onnx.Is("axes", axes(t, len(x))...))
		}
		s := sample{node: node(op, 1, []string{"x"}, attrs...), inputs: map[string][]int64{"x": x}, wrt: []string{"x"}}
		suit(&s)
		return s
	}
}

func drawReduceSum(t *rapid.T) sample {
	x := anyShape(t)
	keep := onnx.I("keepdims", rapid.Int64Range(0, 1).Draw(t, "keepdims"))
	s := sample{node: node("ReduceSum", 1, []string{"x"}, keep), inputs: map[string][]int64{"x": x}, wrt: []string{"x"}}
	switch rapid.IntRange(0, 2).Draw(t, "axes") {
	case 0:
		s.node.Inputs = append(s.node.Inputs, "axes")
		s.constants = []*onnx.Tensor{ints("axes", axes(t, len(x)))}
	case 1:
		s.node.Attrs = append(s.node.Attrs, onnx.I("noop_with_empty_axes", 1))
	}
	return s
}

func drawInstanceNorm(t *rapid.T) sample {
	x := append(shape(t, 2), shape(t, rapid.IntRange(1, 3).Draw(t, "dimensions"))...)
	x[2]++ // a single element has no variance
	return sample{node: node("InstanceNormalization", 1, []string{"x", "scale", "shift"}, onnx.F("epsilon", 1e-2)),
		inputs: map[string][]int64{"x": x, "scale": {x[1]}, "shift": {x[1]}}, wrt: []string{"x", "scale", "shift"}}
}

func drawLayerNorm(t *rapid.T) sample {
	x := fullShape(t)
	x[len(x)-1]++
	a := drawAxis(t, len(x))
	s := sample{node: node("LayerNormalization", 1, []string{"x", "scale"}, onnx.I("axis", a), onnx.F("epsilon", 1e-2)), inputs: map[string][]int64{"x": x}, wrt: []string{"x", "scale"}}
	if a < 0 {
		a += int64(len(x))
	}
	s.inputs["scale"] = x[a:]
	if rapid.Bool().Draw(t, "bias") {
		s.node.Inputs = append(s.node.Inputs, "shift")
		s.inputs["shift"], s.wrt = x[a:], append(s.wrt, "shift")
	}
	return s
}

func drawLRN(t *rapid.T) sample {
	x := []int64{dim(t), rapid.Int64Range(1, 6).Draw(t, "channels"), dim(t), dim(t)}
	return sample{node: node("LRN", 1, []string{"x"}, onnx.I("size", 2*rapid.Int64Range(0, 2).Draw(t, "size")+1), onnx.F("alpha", 0.5), onnx.F("beta", 0.75), onnx.F("bias", 2)),
		inputs: map[string][]int64{"x": x}, wrt: []string{"x"}}
}

func drawLpNormalization(t *rapid.T) sample {
	s := alongAxis("LpNormalization", kinks)(t)
	s.node.Attrs = append(s.node.Attrs, onnx.I("p", rapid.Int64Range(1, 2).Draw(t, "p")))
	s.inputs["x"][len(s.inputs["x"])-1]++ // a vector of one is only its sign
	return s
}

func drawMeanVariance(t *rapid.T) sample {
	x := []int64{rapid.Int64Range(1, 2).Draw(t, "batch"), rapid.Int64Range(1, 2).Draw(t, "channels"), dim(t) + 2, rapid.Int64Range(1, 2).Draw(t, "width")}
	s := sample{node: node("MeanVarianceNormalization", 1, []string{"x"}), inputs: map[string][]int64{"x": x}, wrt: []string{"x"}}
	if rapid.Bool().Draw(t, "some") {
		s.node.Attrs = append(s.node.Attrs, onnx.Is("axes", rapid.SampledFrom([][]int64{{2}, {2, 3}, {0, 1, 2, 3}, {-2, -1}}).Draw(t, "axes")...))
	}
	return s
}
