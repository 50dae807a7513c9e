package grad

import "grindstone/sanitize/onnx"

func reduceSumGrad(t *Tape, n *onnx.Node, dy []string) []string {
	return []string{t.spread(n, dy[0]), ""}[:len(n.Inputs)]
}

func reduceMeanGrad(t *Tape, n *onnx.Node, dy []string) []string {
	in, out := t.Shape(n.Inputs[0]), t.Shape(n.Outputs[0])
	return []string{t.spread(n, t.scale(dy[0], float64(size(out))/float64(size(in)))), ""}[:len(n.Inputs)]
}

// spread copies a reduced gradient along the reduced axes. Their positions follow from the attribute or constant input.
func (t *Tape) spread(n *onnx.Node, g string) string {
	in := t.Shape(n.Inputs[0])
	keep := make([]int64, len(in))
	copy(keep, in)
	axes := n.Ints("axes")
	if len(n.Inputs) > 1 && n.Inputs[1] != "" {
		axes = t.Ints(n.Inputs[1])
	}
	if len(axes) == 0 && n.Int("noop_with_empty_axes", 0) == 0 {
		axes = sequence(len(in))
	}
	for _, a := range axes {
		keep[axis(a, len(in))] = 1
	}
	return t.expand(t.reshape(g, keep...), in...)
}
