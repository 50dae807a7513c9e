package grad

import "grindstone/sanitize/onnx"

// Conv, in any number of spatial dimensions, with groups, strides, dilations and asymmetric padding. auto_pad must have been resolved.

// convGeometry is what the attributes and shapes of a Conv say.
type convGeometry struct {
	n, c, k, group                  int64   // batch, input channels, output channels, groups
	in, out, kernel                 []int64 // spatial sizes
	stride, dilation, before, after []int64 // after: end padding
}

func (t *Tape) convGeometry(n *onnx.Node) convGeometry {
	x, w, y := t.shapes[n.Inputs[0]], t.shapes[n.Inputs[1]], t.shapes[n.Outputs[0]]
	d := len(x) - 2
	g := convGeometry{n: x[0], c: x[1], k: w[0], group: n.Int("group", 1), in: x[2:], out: y[2:], kernel: w[2:]}
	g.stride, g.dilation = orOnes(n.Ints("strides"), d), orOnes(n.Ints("dilations"), d)
	pads := n.Ints("pads")
	if pads == nil {
		pads = make([]int64, 2*d)
	}
	g.before, g.after = pads[:d], pads[d:]
	return g
}

func orOnes(v []int64, n int) []int64 {
	if v != nil {
		return v
	}
	v = make([]int64, n)
	for i := range v {
		v[i] = 1
	}
	return v
}

func (g convGeometry) all(v []int64, want int64) bool {
	for _, x := range v {
		if x != want {
			return false
		}
	}
	return true
}

// pointwise: every output element reads one input position only. At stride 1 all of them are read.
func (g convGeometry) pointwise() bool {
	return g.all(g.kernel, 1) && g.all(g.before, 0) && g.all(g.after, 0)
}

func convGrad(t *Tape, n *onnx.Node, dy []string) []string {
	g := t.convGeometry(n)
	if t.depthwise(g) {
		return t.depthwiseGrad(n, g, dy[0])
	}
	out := []string{
		t.lazy(n, 0, func() string { return t.convInputGrad(n, g, dy[0]) }),
		t.lazy(n, 1, func() string { return t.convWeightGrad(n, g, dy[0]) }),
	}
	if len(n.Inputs) > 2 {
		out = append(out, t.lazy(n, 2, func() string { return t.biasGrad(n, dy[0]) }))
	}
	return out
}

// biasGrad is zero where a BatchNormalization behind the convolution takes the bias out again with the mean.
func (t *Tape) biasGrad(n *onnx.Node, dy string) string {
	if t.centered[n.Outputs[0]] {
		return t.zeros(t.shapes[n.Outputs[0]][1])
	}
	return t.channelSum(dy, n.Outputs[0])
}

// convInputGrad: dX. At stride 1 it is a convolution of dY with the flipped kernel, channels exchanged; else a transposed one.
func (t *Tape) convInputGrad(n *onnx.Node, g convGeometry, dy string) string {
	w := t.Ref(n.Inputs[1])
	d := len(g.in)
	if g.all(g.stride, 1) {
		pads, ok := make([]int64, 2*d), true
		for i := range d {
			reach := g.dilation[i] * (g.kernel[i] - 1)
			pads[i], pads[d+i] = reach-g.before[i], reach-g.after[i]
			ok = ok && pads[i] >= 0 && pads[d+i] >= 0
		}
		if ok {
			return t.B.Op("Conv", []string{dy, t.turn(w, g)}, onnx.Is("kernel_shape", g.kernel...), onnx.Is("pads", pads...),
				onnx.Is("dilations", g.dilation...), onnx.I("group", g.group))
		}
	}
	extra := make([]int64, d)
	for i := range d {
		full := (g.out[i]-1)*g.stride[i] + g.dilation[i]*(g.kernel[i]-1) + 1 - g.before[i] - g.after[i]
		extra[i] = g.in[i] - full
	}
	return t.B.Op("ConvTranspose", []string{dy, w}, onnx.Is("kernel_shape", g.kernel...), onnx.Is("strides", g.stride...),
		onnx.Is("dilations", g.dilation...), onnx.I("group", g.group),
		onnx.Is("pads", append(dims(g.before), g.after...)...), onnx.Is("output_padding", extra...))
}

// turn lets input and output channels of a kernel change places, and reverses its taps: [K, C/group, ...] becomes [C, K/group, ...]. A Transpose and a
// product with the matrix that reverses take half the time of a Slice that reverses, on one thread, and a Transpose.
func (t *Tape) turn(w string, g convGeometry) string {
	in, out, taps := g.c/g.group, g.k/g.group, size(g.kernel)
	if in > 1 || out > 1 {
		if g.group == 1 {
			w = t.transpose(t.reshape(w, out, in, taps), 1, 0, 2)
		} else {
			w = t.transpose(t.reshape(w, g.group, out, in, taps), 0, 2, 1, 3)
		}
	}
	if taps > 1 {
		w = t.op("MatMul", t.reshape(w, g.c, out, taps), t.matrix(reversal(taps)))
	}
	return t.reshape(w, append([]int64{g.c, out}, g.kernel...)...)
}

// reversal is the matrix that reverses a row of n.
func reversal(n int64) matrix {
	m := newMatrix(n, n)
	for i := range n {
		m.v[i*n+n-1-i] = 1
	}
	return m
}

// channelSum sums an activation, or something of its shape and layout, over all but the channels. It works in two stages, over what
// lies together first: faster and more exact than one sum over everything.
func (t *Tape) channelSum(x, value string) string {
	rows, axis := t.channelRows(x, value)
	if axis >= 0 {
		return t.sum(t.sum(rows, false, 2), false, axis)
	}
	return t.sum(x, false, 0)
}

// channelSumSquare is channelSum of the squares.
func (t *Tape) channelSumSquare(x, value string) string {
	if s := t.blockedDot(x, x, value); s != "" {
		return s
	}
	rows, axis := t.channelRows(x, value)
	if axis >= 0 {
		return t.sum(t.B.Op("ReduceSumSquare", []string{rows}, onnx.Is("axes", 2), onnx.I("keepdims", 0)), false, axis)
	}
	return t.sum(t.mul(x, x), false, 0)
}

// channelDot is channelSum of the products.
func (t *Tape) channelDot(x, y, value string) string {
	if s := t.blockedDot(x, y, value); s != "" {
		return s
	}
	return t.channelSum(t.mul(x, y), value)
}

// channelRows gives an activation three axes, of which the last can be summed first; axis is the other one that is not the channels,
// -1 where there are but two.
func (t *Tape) channelRows(x, value string) (rows string, axis int64) {
	s := t.shapes[value]
	switch {
	case t.layoutOf(value) == Outer && s[0] < minInnerBatch:
		return t.reshape(x, s[1], s[2], s[3]*s[0]), 1
	case t.layoutOf(value) == Outer:
		return t.reshape(x, s[1], s[2]*s[3], s[0]), 1
	case t.layoutOf(value) == Inner:
		return x, 0
	case len(s) > 2:
		return t.reshape(x, s[0], s[1], -1), 0
	}
	return x, -1
}
