package grad

import "grindstone/sanitize/onnx"

// sliceGrad puts each element back where it came from, with zeros between (a step is a stretch by zeros) and around. Where the bounds are
// computed by the graph, so are the positions.
func sliceGrad(t *Tape, n *onnx.Node, dy []string) []string {
	g := make([]string, len(n.Inputs))
	g[0] = dy[0]
	in, out := t.Shape(n.Inputs[0]), t.Shape(n.Outputs[0])
	starts, axes, steps := t.Ints(n.Inputs[1]), t.Ints(n.Input(3)), t.Ints(n.Input(4))
	switch {
	case size(out) == 0:
		g[0] = t.zeros(in...)
		return g
	case starts == nil || n.Input(3) != "" && axes == nil || n.Input(4) != "" && steps == nil:
		g[0] = t.scatterBack(n, dy[0])
		return g
	case axes == nil:
		axes = sequence(len(starts))
	}
	pads := make([]int64, 2*len(in))
	shape := dims(out)
	for i, a := range axes {
		a, step := axis(a, len(in)), int64(1)
		if steps != nil {
			step = steps[i]
		}
		first := starts[i]
		if first < 0 {
			first += in[a]
		}
		first = min(max(first, 0), in[a])
		if step < 0 {
			first = min(first, in[a]-1) + (out[a]-1)*step // of the elements in ascending order
			g[0], step = t.flip(g[0], a), -step
		}
		g[0] = t.stretch(g[0], shape, int(a), step)
		shape[a] *= step
		pads[a], pads[len(in)+int(a)] = first, in[a]-first-shape[a]
	}
	if t.current != Plain {
		g[0] = t.pad(g[0], pads...)
		return g
	}
	t.returnPart(n.Inputs[0], g[0], pads)
	g[0] = ""
	return g
}

// stretch puts step-1 zeros behind every position of an axis.
func (t *Tape) stretch(g string, shape []int64, axis int, step int64) string {
	if step == 1 {
		return g
	}
	split := append(dims(shape[:axis+1]), 1)
	pads := make([]int64, 2*(len(shape)+1))
	pads[len(pads)-len(shape)+axis] = step - 1
	g = t.pad(t.reshape(g, append(split, shape[axis+1:]...)...), pads...)
	return t.reshape(g, with(shape, axis, shape[axis]*step)...)
}

// scatterBack serves any operator that only picks elements of its first input: applied to the elements' numbers, the operator says where
// each came from.
func (t *Tape) scatterBack(n *onnx.Node, dy string) string {
	in := t.Shape(n.Inputs[0])
	total := size(in)
	numbers := t.reshape(t.op("Range", t.B.Int64(0), t.B.Int64(total), t.B.Int64(1)), in...)
	from := t.B.Op(n.Op, append([]string{numbers}, t.refsOf(n.Inputs[1:])...), n.Attrs...)
	return t.reshape(t.scatterAdd(t.zeros(total), t.reshape(from, -1), t.reshape(dy, -1), 0), in...)
}

// padGrad serves constant padding, where what was added is cut and what was cut gets zero, and the other modes by linearRows.
func padGrad(t *Tape, n *onnx.Node, dy []string) []string {
	g := make([]string, len(n.Inputs))
	if n.String("mode", "constant") == "constant" {
		g[0] = t.op("Pad", dy[0], t.op("Neg", t.Ref(n.Inputs[1])))
		return g
	}
	rank := int64(len(t.Shape(n.Inputs[0])))
	pads, zero := t.Ref(n.Inputs[1]), t.B.Int64s(0)
	g[0] = t.linearRows(n, dy[0], func(a int64, eye string) string {
		around := t.B.Op("Concat", []string{zero, t.slice(pads, 0, a, a+1), zero, t.slice(pads, 0, rank+a, rank+a+1)}, onnx.I("axis", 0))
		return t.B.Op("Pad", []string{eye, around}, n.Attrs...)
	})
	return g
}

// resizeGrad serves interpolation in every mode that is linear and separable by axis.
func resizeGrad(t *Tape, n *onnx.Node, dy []string) []string {
	g := make([]string, len(n.Inputs))
	g[0] = t.linearRows(n, dy[0], func(a int64, eye string) string {
		in := []string{eye, "", "", ""}
		if n.Input(3) != "" {
			in[3] = t.B.Int64s(t.Shape(n.Inputs[0])[a], t.Shape(n.Outputs[0])[a])
		} else {
			in = in[:3]
			in[2] = t.B.Op("Concat", []string{t.B.Floats([]int64{1}, []float32{1}), t.slice(t.Ref(n.Inputs[2]), 0, a, a+1)}, onnx.I("axis", 0))
		}
		return t.B.Op("Resize", in, n.Attrs...)
	})
	return g
}

// linearRows is the gradient of an operator that is linear along each axis by itself. What it makes of the rows of the identity matrix,
// apply(axis, identity [in, in]) -> [in, out], is its transposed matrix for the axis, exactly as the runtime computes it.
func (t *Tape) linearRows(n *onnx.Node, dy string, apply func(axis int64, eye string) string) string {
	in, shape := t.Shape(n.Inputs[0]), dims(t.Shape(n.Outputs[0]))
	for a := range in {
		if in[a] == shape[a] && in[a] == 1 {
			continue
		}
		if in[a] == shape[a] && t.axisUntouched(n, int64(a)) {
			continue
		}
		dy = t.along(dy, shape, a, apply(int64(a), t.eye(in[a])), in[a])
		shape[a] = in[a]
	}
	return dy
}

// axisUntouched reports whether a Pad or Resize is known to leave an axis whose size it keeps as it is.
func (t *Tape) axisUntouched(n *onnx.Node, a int64) bool {
	if n.Op == "Pad" {
		pads := t.Ints(n.Inputs[1])
		return pads != nil && pads[a] == 0
	}
	if n.Input(3) != "" {
		return true
	}
	scales := t.constants[n.Inputs[2]]
	return scales != nil && scales.Floats()[a] == 1
}

// eye is the identity matrix of size n.
func (t *Tape) eye(n int64) string {
	v := make([]float32, n*n)
	for i := range n {
		v[i*n+i] = 1
	}
	return t.B.Floats([]int64{n, n}, v)
}
