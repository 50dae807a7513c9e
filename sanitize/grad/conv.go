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

// pointwise: every output element reads one input position only, and all of them are read.
func (g convGeometry) pointwise() bool {
	return g.all(g.kernel, 1) && g.all(g.stride, 1) && g.all(g.before, 0) && g.all(g.after, 0)
}

func convGrad(t *Tape, n *onnx.Node, dy []string) []string {
	g := t.convGeometry(n)
	out := []string{
		t.lazy(n, 0, func() string { return t.convInputGrad(n, g, dy[0]) }),
		t.lazy(n, 1, func() string { return t.convWeightGrad(n, g, dy[0]) }),
	}
	if len(n.Inputs) > 2 {
		out = append(out, t.lazy(n, 2, func() string { return t.channelSum(dy[0], t.Shape(n.Outputs[0])) }))
	}
	return out
}

// convInputGrad: dX. At stride 1 it is a convolution of dY with the flipped kernel, channels exchanged; else a transposed one.
func (t *Tape) convInputGrad(n *onnx.Node, g convGeometry, dy string) string {
	w := t.Ref(n.Inputs[1])
	d := len(g.in)
	if g.group == 1 && g.all(g.stride, 1) {
		pads, ok := make([]int64, 2*d), true
		for i := range d {
			reach := g.dilation[i] * (g.kernel[i] - 1)
			pads[i], pads[d+i] = reach-g.before[i], reach-g.after[i]
			ok = ok && pads[i] >= 0 && pads[d+i] >= 0
		}
		if ok {
			perm := sequence(d + 2)
			perm[0], perm[1] = 1, 0
			wt := t.transpose(w, perm...)
			if !g.all(g.kernel, 1) {
				wt = t.flip(wt, sequence(d + 2)[2:]...)
			}
			return t.B.Op("Conv", []string{dy, wt}, onnx.Is("kernel_shape", g.kernel...), onnx.Is("pads", pads...),
				onnx.Is("dilations", g.dilation...))
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

// channelSum sums a gradient of shape [N, C, ...] over all but the channels: over space first, whose elements lie together.
func (t *Tape) channelSum(x string, shape []int64) string {
	if len(shape) > 2 {
		x = t.sum(t.reshape(x, shape[0], shape[1], -1), false, 2)
	}
	return t.sum(x, false, 0)
}
