package grad

import "grindstone/sanitize/onnx"

// The direct form, for few channels: an ordinary Conv over one image of height H and width W*N, whose kernel is dilated by N along the
// width. Its rows are long, which makes the kernel's own unfolding cheap. Layout Outer.

// direct: kernel 3x3 at stride 1 with a padding of one.
func (g convGeometry) direct() bool {
	return g.all(g.kernel, 3) && g.all(g.stride, 1) && g.all(g.before, 1) && g.all(g.after, 1)
}

func (t *Tape) directForward(n *onnx.Node, g convGeometry) string {
	return t.directConv(t.Ref(n.Inputs[0]), t.refIn(n.Inputs[1], Plain), g.c, g.k, g)
}

func (t *Tape) directConv(x, w string, in, out int64, g convGeometry) string {
	attrs := []*onnx.Attr{onnx.Is("kernel_shape", 3, 3), onnx.Is("dilations", 1, g.n), onnx.Is("pads", 1, g.n, 1, g.n)}
	x = t.reshape(x, 1, in, g.in[0], g.in[1]*g.n)
	if !t.inBlocks(in, out) {
		return t.reshape(t.B.Op("Conv", []string{x, w}, attrs...), 1, out, -1)
	}
	y := t.B.Own(onnx.NCHWc, "Conv", []string{t.B.Own(onnx.NCHWc, "ReorderInput", []string{x}), t.filters(w, in, out)}, attrs...)
	return t.reshape(t.B.Own(onnx.NCHWc, "ReorderOutput", []string{y}, onnx.I("channels", out)), 1, out, -1)
}

func (t *Tape) directGrad(n *onnx.Node, g convGeometry, dy string) []string {
	return []string{
		t.lazy(n, 0, func() string {
			return t.directConv(dy, t.turn(t.refIn(n.Inputs[1], Plain), g), g.k, g.c, g)
		}),
		t.lazy(n, 1, func() string { return t.directWeightGrad(n, g, dy) }),
	}
}

// directWeightGrad unfolds the input along the width, three shifts, and moves dY by a row up and down, which a Pad does that adds a row
// and cuts another: one matrix product for each row of the kernel.
func (t *Tape) directWeightGrad(n *onnx.Node, g convGeometry, dy string) string {
	high, wide := g.in[0], g.in[1]
	x := t.pad(t.reshape(t.Ref(n.Inputs[0]), g.c, high, wide, g.n), 0, 0, 1, 0, 0, 0, 1, 0)
	var at []int64
	for s := range int64(3) {
		for y := range high {
			for x := range wide {
				at = append(at, y*(wide+2)+x+s)
			}
		}
	}
	u := t.B.Op("Gather", []string{t.reshape(x, g.c, high*(wide+2), g.n), t.B.Int64s(at...)}, onnx.I("axis", 1))
	u = t.reshape(u, g.c*3, high*wide*g.n) // [(C, s), pixels]
	dy = t.reshape(dy, g.k, high, wide*g.n)
	var rows []string
	for r := range int64(3) { // the kernel's row r reads the input r-1 rows further down: dY moves the other way
		v := t.pad(dy, 0, r-1, 0, 0, 1-r, 0)
		d := t.op("MatMul", u, t.transpose(t.reshape(v, g.k, -1), 1, 0)) // [(C, s), K]
		rows = append(rows, t.reshape(d, 1, g.c, 3, g.k))
	}
	d := t.reshape(t.B.Op("Concat", rows, onnx.I("axis", 0)), 3*g.c*3, g.k) // [(R, C, S), K]
	d = t.reshape(t.transpose(d, 1, 0), g.k, 3, g.c, 3)                     // in two steps, of which the runtime knows the first well
	return t.transpose(d, 0, 2, 1, 3)
}
