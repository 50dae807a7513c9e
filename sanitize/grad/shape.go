package grad

import "grindstone/sanitize/onnx"

// Operators that move whole blocks of elements, or nothing at all.

// reshapeGrad serves Reshape, Flatten, Squeeze and Unsqueeze.
// reshapeForward writes the static shape, which is known, whatever way the node computes it.
func reshapeForward(t *Tape, n *onnx.Node) {
	out := n.Outputs[0]
	t.Bind(out, t.reshape(t.Ref(n.Inputs[0]), t.Shape(out)...))
}

func reshapeGrad(t *Tape, n *onnx.Node, dy []string) []string {
	g := make([]string, len(n.Inputs))
	g[0] = t.reshapeLike(dy[0], n.Inputs[0])
	return g
}

// castGrad serves Cast and CastLike between floating-point types.
func castGrad(t *Tape, n *onnx.Node, dy []string) []string {
	g := make([]string, len(n.Inputs))
	g[0] = t.op("CastLike", dy[0], t.Ref(n.Inputs[0]))
	return g
}

// toDiscrete: a Cast to integers or bools has steps only.
func toDiscrete(n *onnx.Node) bool { return !onnx.DataType(n.Int("to", 0)).IsFloat() }

func transposeGrad(t *Tape, n *onnx.Node, dy []string) []string {
	rank := len(t.Shape(n.Inputs[0]))
	perm := n.Ints("perm")
	inverse := make([]int64, rank)
	for i := range inverse {
		if perm == nil { // the default reverses the axes
			inverse[i] = int64(rank - 1 - i)
		} else {
			inverse[perm[i]] = int64(i)
		}
	}
	return []string{t.transpose(dy[0], inverse...)}
}

func concatGrad(t *Tape, n *onnx.Node, dy []string) []string {
	a := axis(n.Int("axis", 0), len(t.Shape(n.Outputs[0])))
	g := make([]string, len(n.Inputs))
	at := int64(0)
	for i, in := range n.Inputs {
		width := t.Shape(in)[a]
		g[i] = t.lazy(n, i, func() string { return t.slice(dy[0], a, at, at+width) })
		at += width
	}
	return g
}

// splitGrad joins what came back; a part that the loss does not depend on gets zeros.
func splitGrad(t *Tape, n *onnx.Node, dy []string) []string {
	parts := make([]string, len(dy))
	for i, g := range dy {
		parts[i] = g
		if g == "" {
			parts[i] = t.zeros(t.Shape(n.Outputs[i])...)
		}
	}
	g := make([]string, len(n.Inputs))
	g[0] = t.B.Op("Concat", parts, onnx.I("axis", n.Int("axis", 0)))
	return g
}

func expandGrad(t *Tape, n *onnx.Node, dy []string) []string {
	return []string{t.unbroadcast(dy[0], t.Shape(n.Outputs[0]), t.Shape(n.Inputs[0])), ""}
}

// tileGrad sums over the copies: an axis of size s repeated r times is [r, s].
func tileGrad(t *Tape, n *onnx.Node, dy []string) []string {
	in, out := t.Shape(n.Inputs[0]), t.Shape(n.Outputs[0])
	var copies, axes []int64
	for i, s := range in {
		r := int64(1)
		if s > 0 {
			r = out[i] / s
		}
		axes = append(axes, int64(len(copies)))
		copies = append(copies, r, s)
	}
	if len(axes) == 0 || size(out) == 0 {
		return []string{t.zeros(in...), ""}
	}
	return []string{t.sum(t.reshape(dy[0], copies...), false, axes...), ""}
}

// depthToSpaceGrad: the opposite move. SpaceToDepth orders blocks as mode DCR does; for CRD it is spelled out.
func depthToSpaceGrad(t *Tape, n *onnx.Node, dy []string) []string {
	block := n.Int("blocksize", 1)
	if n.String("mode", "DCR") == "DCR" {
		return []string{t.B.Op("SpaceToDepth", []string{dy[0]}, onnx.I("blocksize", block))}
	}
	in := t.Shape(n.Inputs[0])
	c, h, w := in[1]/(block*block), in[2], in[3]
	blocks := t.transpose(t.reshape(dy[0], in[0], c, h, block, w, block), 0, 1, 3, 5, 2, 4)
	return []string{t.reshape(blocks, in...)}
}

func spaceToDepthGrad(t *Tape, n *onnx.Node, dy []string) []string {
	return []string{t.B.Op("DepthToSpace", []string{dy[0]}, onnx.I("blocksize", n.Int("blocksize", 1)), onnx.S("mode", "DCR"))}
}

// again is the rule of operators that are their own transpose: the same node, reading dy.
func again(t *Tape, n *onnx.Node, dy []string) []string {
	g := make([]string, len(n.Inputs))
	in := append([]string{dy[0]}, t.refsOf(n.Inputs[1:])...)
	g[0] = t.B.Op(n.Op, in, n.Attrs...)
	return g
}

// cumSumGrad sums from the other end.
func cumSumGrad(t *Tape, n *onnx.Node, dy []string) []string {
	return []string{t.B.Op("CumSum", []string{dy[0], t.Ref(n.Inputs[1])},
		onnx.I("exclusive", n.Int("exclusive", 0)), onnx.I("reverse", 1-n.Int("reverse", 0))), ""}
}
