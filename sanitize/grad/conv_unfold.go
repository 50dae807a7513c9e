package grad

import "grindstone/sanitize/onnx"

// Unfolding lays a convolution's kernel windows out once, shared by the forward pass and the weight gradient, each of which is then one
// matrix product.

// unfolds: stems, and convolutions at stride 2 in Outer, or of few channels, where the bilinear algorithm saves little; in Outer also those at
// stride 1 whose windows are small beside the weight, which the direct form takes apart, turns and puts together again.
func (t *Tape) unfolds(n *onnx.Node, g convGeometry) bool {
	switch {
	case t.stem(n, g):
		return true
	case g.kernel[0] != 3:
		return false
	case t.current == Outer:
		return g.stride[0] == 2 || g.n*size(g.out) <= t.Forms.UnfoldPositions*g.k
	}
	return g.stride[0] == 2 && g.c <= t.Forms.MaxUnfold
}

// stem: few channels, and an input that needs no gradient.
func (t *Tape) stem(n *onnx.Node, g convGeometry) bool { return g.c <= 4 && !t.Needs(n.Inputs[0]) }

// unfoldForward works in Inner, where a window is [H*W, R*S*C, N], and in Outer, where it is [C*R*S, H*W*N].
func (t *Tape) unfoldForward(n *onnx.Node, g convGeometry) string {
	wide, high := g.in[1]+g.before[1]+g.after[1], g.in[0]+g.before[0]+g.after[0]
	if t.current == Outer {
		x := t.pad(t.reshape(t.Ref(n.Inputs[0]), g.c, g.in[0], g.in[1], g.n), 0, g.before[0], g.before[1], 0, 0, g.after[0], g.after[1], 0)
		var at []int64
		for tap := range size(g.kernel) {
			for o := range size(g.out) {
				at = append(at, windowPosition(g, wide, o, tap))
			}
		}
		x = t.B.Op("Gather", []string{t.reshape(x, g.c, high*wide, g.n), t.B.Int64s(at...)}, onnx.I("axis", 1))
		x = t.reshape(x, g.c*size(g.kernel), size(g.out)*g.n)
		t.Save(n.Outputs[0], x)
		w := t.reshape(t.refIn(n.Inputs[1], Plain), g.k, g.c*size(g.kernel))
		return t.reshape(t.op("MatMul", w, x), 1, g.k, -1)
	}
	x := t.reshape(t.Ref(n.Inputs[0]), g.in[0], g.in[1], g.c*g.n)
	x = t.reshape(t.pad(x, g.before[0], g.before[1], 0, g.after[0], g.after[1], 0), high*wide, g.c*g.n)
	var at []int64
	for o := range size(g.out) {
		for tap := range size(g.kernel) {
			at = append(at, windowPosition(g, wide, o, tap))
		}
	}
	x = t.B.Op("Gather", []string{x, t.B.Int64s(at...)}, onnx.I("axis", 0))
	x = t.reshape(x, size(g.out), size(g.kernel)*g.c, g.n)
	t.Save(n.Outputs[0], x)
	w := t.transpose(t.refIn(n.Inputs[1], Taps), 2, 0, 1, 3) // [K, R, S, C]
	return t.op("MatMul", t.reshape(w, g.k, size(g.kernel)*g.c), x)
}

// windowPosition is the flat position in the padded image that a kernel tap reads for an output.
func windowPosition(g convGeometry, wide, output, tap int64) int64 {
	y, x := output/g.out[1], output%g.out[1]
	r, s := tap/g.kernel[1], tap%g.kernel[1]
	return (y*g.stride[0]+r)*wide + x*g.stride[1] + s
}

func (t *Tape) unfoldGrad(n *onnx.Node, g convGeometry, dy string) []string {
	return []string{
		t.lazy(n, 0, func() string { return t.unfoldInputGrad(n, g, dy) }),
		t.lazy(n, 1, func() string {
			x := t.Saved(n.Outputs[0])[0]
			if t.current == Outer {
				dw := t.op("MatMul", t.reshape(dy, g.k, -1), t.transpose(x, 1, 0))
				return t.convert(t.reshape(dw, t.shapes[n.Inputs[1]]...), t.shapes[n.Inputs[1]], Plain, t.layoutOf(n.Inputs[1]))
			}
			dw := t.sum(t.op("MatMul", dy, t.transpose(x, 0, 2, 1)), false, 0)
			dw = t.transpose(t.reshape(dw, g.k, g.kernel[0], g.kernel[1], g.c), 1, 2, 0, 3) // [R, S, K, C]
			return t.convert(dw, t.shapes[n.Inputs[1]], Taps, t.layoutOf(n.Inputs[1]))
		}),
	}
}

// unfoldInputGrad: the gradients of all windows, folded back. An input position gathers those of the windows that read it, and zeros where
// fewer do than elsewhere: they come from one more tap, whose weights are zero, or in Outer from one more output, whose gradient is.
func (t *Tape) unfoldInputGrad(n *onnx.Node, g convGeometry, dy string) string {
	taps, outputs := size(g.kernel), size(g.out)
	var windows string
	var at func(output, tap int64) int64 // position in windows
	var zero int64
	if t.current == Outer { // [C, tap and output, N]
		w := t.transpose(t.reshape(t.refIn(n.Inputs[1], Plain), g.k, g.c*taps), 1, 0)
		y := t.reshape(t.pad(t.reshape(dy, g.k, outputs, g.n), 0, 0, 0, 0, 1, 0), g.k, (outputs+1)*g.n)
		windows = t.reshape(t.op("MatMul", w, y), g.c, taps*(outputs+1), g.n)
		at = func(output, tap int64) int64 { return tap*(outputs+1) + output }
		zero = at(outputs, 0)
	} else { // [output and tap, C, N]
		w := t.transpose(t.reshape(t.refIn(n.Inputs[1], Taps), taps, g.k, g.c), 0, 2, 1)
		w = t.reshape(t.pad(w, 0, 0, 0, 1, 0, 0), (taps+1)*g.c, g.k)
		windows = t.reshape(t.op("MatMul", w, dy), outputs*(taps+1), g.c, g.n)
		at = func(output, tap int64) int64 { return output*(taps+1) + tap }
		zero = at(0, taps)
	}

	readers := make([][]int64, size(g.in))
	most := 0
	for o := range outputs {
		for tap := range taps {
			y := o/g.out[1]*g.stride[0] + tap/g.kernel[1] - g.before[0]
			x := o%g.out[1]*g.stride[1] + tap%g.kernel[1] - g.before[1]
			if y >= 0 && y < g.in[0] && x >= 0 && x < g.in[1] {
				p := y*g.in[1] + x
				readers[p] = append(readers[p], at(o, tap))
				most = max(most, len(readers[p]))
			}
		}
	}
	dx := ""
	for i := range most {
		from := make([]int64, len(readers))
		for p, r := range readers {
			from[p] = zero
			if i < len(r) {
				from[p] = r[i]
			}
		}
		part := t.B.Op("Gather", []string{windows, t.B.Int64s(from...)}, onnx.I("axis", t.positionAxis()))
		if dx == "" {
			dx = part
		} else {
			dx = t.add(dx, part)
		}
	}
	return t.activation(dx, g.c)
}
