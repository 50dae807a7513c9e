package grad

import (
	"slices"

	"grindstone/sanitize/onnx"
)

// innerConv is Conv with the batch innermost, for kernels 1x1 and 3x3 at stride 1 or 2 without groups and dilation.
//
// A 3x3 convolution is a bilinear algorithm (Winograd 1980; Lavin and Gray 2016): y = A[(Gw) . (Bx)] in each direction, with constant
// matrices for the whole image side, so that each transform is one matrix product and the element-wise product in the middle becomes a
// matrix product over channels for every transformed position. Forward pass, input gradient and weight gradient share the
// transforms: they are the same bilinear form, transposed.
var innerConv = InnerRule{Choose: chooseConv, KeepsLayout: true, Forward: innerConvForward, Backward: innerConvGrad}

// minInnerBatch is the least batch for which rows of the inner layout are long enough to pay.
const minInnerBatch = 16

// chooseConv picks Outer where few channels make the transforms of the bilinear algorithm dearer than the products they save.
func chooseConv(t *Tape, n *onnx.Node) Layout {
	if !t.Forms.Inner || t.plain || len(t.shapes[n.Inputs[0]]) != 4 {
		return Plain
	}
	g := t.convGeometry(n)
	if g.group != 1 || !g.all(g.dilation, 1) || g.stride[0] != g.stride[1] || g.stride[0] > 2 || g.kernel[0] != g.kernel[1] {
		return Plain
	}
	if g.n < minInnerBatch {
		if t.outer && g.outer() {
			return Outer
		}
		return Plain
	}
	switch {
	case g.kernel[0] == 1 && g.pointwise():
		return Inner
	case g.kernel[0] == 3 && g.k <= t.Forms.MaxDirect && (t.stem(n, g) || g.c <= t.Forms.MaxDirect && g.direct()):
		return Outer
	case g.kernel[0] == 3 && g.before[0] <= 2 && g.before[1] <= 2:
		return Inner
	}
	return Plain
}

// outer: there is a form for Outer that suits any number of channels.
func (g convGeometry) outer() bool {
	return g.pointwise() || g.direct() || g.all(g.kernel, 3) && g.all(g.stride, 2)
}

// outerOnly reports whether Outer suits a network whose batch is too small for Inner: all its convolutions have a form for it but stems,
// so that activations need not change their layout back and forth.
func (t *Tape) outerOnly(nodes []*onnx.Node) bool {
	convolutions := 0
	for _, n := range nodes {
		if n.Op != "Conv" || n.Domain != "" {
			continue
		}
		if len(t.shapes[n.Inputs[0]]) != 4 {
			return false
		}
		g := t.convGeometry(n)
		if g.n >= minInnerBatch || !t.stem(n, g) && (g.group != 1 || !g.all(g.dilation, 1) || !g.outer() || g.stride[0] != g.stride[1] || g.stride[0] > 2) {
			return false
		}
		convolutions++
	}
	return convolutions > 0
}

func innerConvForward(t *Tape, n *onnx.Node) {
	g := t.convGeometry(n)
	var y string
	switch {
	case g.kernel[0] == 1:
		y = t.pointwiseForward(n, g)
	case t.unfolds(n, g):
		y = t.unfoldForward(n, g)
	case t.current == Outer:
		y = t.directForward(n, g)
	default:
		y = t.bilinearForward(n, g)
	}
	if len(n.Inputs) > 2 && n.Inputs[2] != "" {
		y = t.add(y, t.reshape(t.Ref(n.Inputs[2]), g.k, 1))
	}
	t.Bind(n.Outputs[0], y)
}

func innerConvGrad(t *Tape, n *onnx.Node, dy []string) []string {
	g := t.convGeometry(n)
	var out []string
	switch {
	case g.kernel[0] == 1:
		out = t.pointwiseGrad(n, g, dy[0])
	case t.unfolds(n, g):
		out = t.unfoldGrad(n, g, dy[0])
	case t.current == Outer:
		out = t.directGrad(n, g, dy[0])
	default:
		out = t.bilinearGrad(n, g, dy[0])
	}
	if len(n.Inputs) > 2 {
		out = append(out, t.lazy(n, 2, func() string { return t.biasGrad(n, dy[0]) }))
	}
	return out
}

// pointwise: one matrix product over the channels, in Inner for every position, in Outer for all at once; at stride 2 of every other one.
func (t *Tape) pointwiseForward(n *onnx.Node, g convGeometry) string {
	x := t.positions(t.Ref(n.Inputs[0]), g.c, size(g.in), g.n)
	if g.stride[0] > 1 {
		x = t.B.Op("Gather", []string{x, t.B.Int64s(strided(g)...)}, onnx.I("axis", t.positionAxis()))
	}
	if t.current == Outer {
		x = t.reshape(x, g.c, -1)
	}
	t.Save(n.Outputs[0], x)
	return t.activation(t.op("MatMul", t.reshape(t.refIn(n.Inputs[1], Plain), g.k, g.c), x), g.k)
}

func (t *Tape) pointwiseGrad(n *onnx.Node, g convGeometry, dy string) []string {
	if t.current == Outer {
		dy = t.reshape(dy, g.k, -1)
	}
	return []string{
		t.lazy(n, 0, func() string {
			w := t.reshape(t.refIn(n.Inputs[1], Plain), g.k, g.c)
			dx := t.op("MatMul", t.transpose(w, 1, 0), dy)
			if g.stride[0] == 1 {
				return t.activation(dx, g.c)
			}
			// Scatter to the positions that were read: gather from the outputs, with one position of zeros behind them for the rest.
			at := make([]int64, size(g.in))
			for i := range at {
				at[i] = size(g.out)
			}
			for i, p := range strided(g) {
				at[p] = int64(i)
			}
			pads := make([]int64, 6)
			pads[3+t.positionAxis()] = 1
			dx = t.pad(t.positions(dx, g.c, size(g.out), g.n), pads...)
			return t.activation(t.B.Op("Gather", []string{dx, t.B.Int64s(at...)}, onnx.I("axis", t.positionAxis())), g.c)
		}),
		t.lazy(n, 1, func() string {
			x := t.Saved(n.Outputs[0])[0]
			if t.current == Outer {
				return t.reshape(t.op("MatMul", dy, t.transpose(x, 1, 0)), t.shapes[n.Inputs[1]]...)
			}
			dw := t.sum(t.op("MatMul", dy, t.transpose(x, 0, 2, 1)), false, 0)
			return t.reshape(dw, t.shapes[n.Inputs[1]]...)
		}),
	}
}

// positions gives an activation in Outer the axes [C, H*W, N]; in Inner it has [H*W, C, N].
func (t *Tape) positions(x string, channels, area, batch int64) string {
	if t.current == Outer {
		return t.reshape(x, channels, area, batch)
	}
	return x
}

// positionAxis is that of H*W in positions.
func (t *Tape) positionAxis() int64 {
	if t.current == Outer {
		return 1
	}
	return 0
}

// activation is the inverse of positions.
func (t *Tape) activation(x string, channels int64) string {
	if t.current == Outer {
		return t.reshape(x, 1, channels, -1)
	}
	return x
}

// strided lists the flat input positions that a pointwise convolution reads.
func strided(g convGeometry) []int64 {
	var at []int64
	for y := range g.out[0] {
		for x := range g.out[1] {
			at = append(at, y*g.stride[0]*g.in[1]+x*g.stride[1])
		}
	}
	return at
}

// bilinear algorithm, both directions at once. Axes of a transformed tensor: [position a, tile, position b, tile, channels, batch].

func (t *Tape) bilinearForward(n *onnx.Node, g convGeometry) string {
	v, h := bilinearOf(g, 0), bilinearOf(g, 1)
	xh := t.transform(t.Ref(n.Inputs[0]), v.b, h.b, g.c, g.n)
	xh = t.reshape(xh, v.products, v.tiles, h.products, h.tiles, g.c, g.n)
	if !t.transformsAgain(n) {
		t.Save(n.Outputs[0], xh)
	}
	w := t.transformWeight(t.refIn(n.Inputs[1], Taps), g.k, g.c, v, h)
	return t.transform(t.op("MatMul", w, xh), v.a, h.a, g.k, g.n)
}

func (t *Tape) bilinearGrad(n *onnx.Node, g convGeometry, dy string) []string {
	v, h := bilinearOf(g, 0), bilinearOf(g, 1)
	dyh := t.transform(dy, v.a.transposed(), h.a.transposed(), g.k, g.n)
	dyh = t.reshape(dyh, v.products, v.tiles, h.products, h.tiles, g.k, g.n)
	return []string{
		t.lazy(n, 0, func() string {
			// Transposed first and transformed again: the transformed weight of the forward pass would have taken 4 times the weight's memory until
			// now, and takes longer to transpose. One more axis, since the runtime holds memory between values that it knows to have one shape.
			w := t.transformWeight(t.transpose(t.refIn(n.Inputs[1], Taps), 0, 1, 3, 2), g.c, g.k, v, h, 1)
			return t.transform(t.op("MatMul", w, dyh), v.b.transposed(), h.b.transposed(), g.c, g.n)
		}),
		t.lazy(n, 1, func() string {
			xh := ""
			if t.transformsAgain(n) {
				xh = t.transformAgain(t.Ref(n.Inputs[0]), v.b, h.b, g.c, g.n)
				xh = t.reshape(xh, v.products, v.tiles, h.products, h.tiles, g.c, g.n)
			} else {
				xh = t.Saved(n.Outputs[0])[0]
			}
			d := t.op("MatMul", dyh, t.transpose(xh, 0, 1, 2, 3, 5, 4))
			if v.tiles*h.tiles > 1 {
				d = t.sum(d, false, 1, 3) // over the tiles: [a, b, K, C]
			}
			p := v.products * h.products
			d = t.op("MatMul", t.matrix(kron(v.g, h.g).transposed()), t.reshape(d, p, g.k*g.c))
			d = t.reshape(d, g.kernel[0], g.kernel[1], g.k, g.c)
			return t.convert(d, t.shapes[n.Inputs[1]], Taps, t.layoutOf(n.Inputs[1]))
		}),
	}
}

// transformWeight takes a weight [R, S, rows, cols] to [products, 1, products, 1, rows, cols].
func (t *Tape) transformWeight(w string, rows, cols int64, v, h bilinear, lead ...int64) string {
	w = t.reshape(w, append(lead, v.g.cols*h.g.cols, rows*cols)...)
	return t.reshape(t.op("MatMul", t.matrix(kron(v.g, h.g)), w), v.products, 1, h.products, 1, rows, cols)
}

// transform multiplies the vertical and the horizontal axis of [v.cols*h.cols, C, N] by matrices: [v.rows*h.rows, C, N]
func (t *Tape) transform(x string, v, h matrix, channels, batch int64) string {
	x = t.reshape(x, v.cols, h.cols*channels*batch)
	x = t.reshape(t.op("MatMul", t.matrix(v), x), v.rows, h.cols, channels*batch)
	return t.reshape(t.op("MatMul", t.matrix(h), x), v.rows*h.rows, channels, batch)
}

func (t *Tape) matrix(m matrix) string {
	v := make([]float32, len(m.v))
	for i, x := range m.v {
		v[i] = float32(x)
	}
	return t.B.Floats([]int64{m.rows, m.cols}, v)
}

// innerGlobalAverage and innerAveragePool: the mean over all positions, [H*W, C, N] -> [N, C, 1, 1].
var (
	innerGlobalAverage = InnerRule{Choose: innerInput, Forward: innerMeanForward, Backward: innerMeanGrad}
	innerAveragePool   = InnerRule{Choose: wholeImagePool, Forward: innerMeanForward, Backward: innerMeanGrad}
)

func innerInput(t *Tape, n *onnx.Node) Layout {
	if t.native[n.Inputs[0]] != Plain {
		return Inner
	}
	return Plain
}

// wholeImagePool: an AveragePool whose one window is the whole image.
func wholeImagePool(t *Tape, n *onnx.Node) Layout {
	in, out := t.shapes[n.Inputs[0]], t.shapes[n.Outputs[0]]
	if slices.Equal(n.Ints("kernel_shape"), in[2:]) && size(out[2:]) == 1 && !slices.ContainsFunc(n.Ints("pads"), func(p int64) bool { return p != 0 }) {
		return innerInput(t, n)
	}
	return Plain
}

func innerMeanForward(t *Tape, n *onnx.Node) {
	mean := t.transpose(t.mean(t.Ref(n.Inputs[0]), false, 0), 1, 0)
	t.current = Plain // what follows is [N, C, ...]
	t.Bind(n.Outputs[0], t.reshape(mean, t.shapes[n.Outputs[0]]...))
}

func innerMeanGrad(t *Tape, n *onnx.Node, dy []string) []string {
	in := t.shapes[n.Inputs[0]]
	area := in[2] * in[3]
	g := t.scale(t.transpose(t.reshape(dy[0], in[0], in[1]), 1, 0), 1/float64(area))
	return []string{t.expand(t.reshape(g, 1, in[1], in[0]), area, in[1], in[0])}
}
