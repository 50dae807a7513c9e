package grad

import "grindstone/sanitize/onnx"

// convTransposeGrad: ConvTranspose is what a Conv that reads its output and makes its input does backwards. So its input's gradient is that
// Conv of dy, and its weight's gradient is the Conv's, with dy as what the Conv reads. Paddings must have been resolved.
func convTransposeGrad(t *Tape, n *onnx.Node, dy []string) []string {
	image := t.B.Fresh("convtranspose_dy")
	t.shapes[image] = t.Shape(n.Outputs[0])
	t.Bind(image, dy[0])
	conv := &onnx.Node{Op: "Conv", Inputs: []string{image, n.Inputs[1]}, Outputs: n.Inputs[:1]}
	for _, a := range n.Attrs {
		if a.Name != "output_padding" && a.Name != "output_shape" {
			conv.Attrs = append(conv.Attrs, a)
		}
	}
	g := make([]string, len(n.Inputs))
	g[0] = t.lazy(n, 0, func() string { return t.B.Op("Conv", []string{dy[0], t.Ref(n.Inputs[1])}, conv.Attrs...) })
	g[1] = t.lazy(n, 1, func() string { return t.convWeightGrad(conv, t.convGeometry(conv), t.Ref(n.Inputs[0])) })
	if len(n.Inputs) > 2 {
		g[2] = t.lazy(n, 2, func() string { return t.channelSum(dy[0], n.Outputs[0]) })
	}
	return g
}
