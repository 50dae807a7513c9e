package grad

import "grindstone/sanitize/onnx"

// Operators that move elements without changing them.

// reshapeGrad serves Reshape, Flatten, Squeeze and Unsqueeze.
func reshapeGrad(t *Tape, n *onnx.Node, dy []string) []string {
	g := make([]string, len(n.Inputs))
	g[0] = t.reshapeLike(dy[0], n.Inputs[0])
	return g
}

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

// padGrad serves constant padding: what was added is cut, what was cut gets zero.
func padGrad(t *Tape, n *onnx.Node, dy []string) []string {
	g := make([]string, len(n.Inputs))
	g[0] = t.op("Pad", dy[0], t.op("Neg", t.Ref(n.Inputs[1])))
	return g
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
