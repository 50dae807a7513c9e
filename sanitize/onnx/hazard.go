package onnx

import (
	"fmt"
	"slices"
)

// checkHazards refuses nodes for which ONNX Runtime's CPU provider would touch memory that is not theirs. They are refused wherever they
// are, since a model is run to learn its shapes before anything is known about it. Subgraphs are looked into as well.
func checkHazards(nodes []*Node) error {
	for _, n := range nodes {
		if reason := Hazard(n); reason != "" {
			return &Error{Node: n.Label(), What: n.Op, Err: fmt.Errorf("%w: %s", ErrUnsupported, reason)}
		}
		for _, a := range n.Attrs {
			if a.Graph == nil {
				continue
			}
			for _, inner := range a.Graph.Nodes {
				if inner.Op == "ConvTranspose" && inner.Attr("output_shape") != nil {
					return &Error{Node: inner.Label(), What: inner.Op, Err: fmt.Errorf("%w: output_shape within control flow", ErrUnsupported)}
				}
			}
			if err := checkHazards(a.Graph.Nodes); err != nil {
				return err
			}
		}
	}
	return nil
}

// Hazard says what is dangerous about a node, "" if nothing is:
//   - output_padding of a ConvTranspose that reaches the stride: the kernel reads beyond its buffer (1.27; output_shape can ask for
//     the same, which shows only with the shape of the input, see grad.ResolvePadding);
//   - negative pads, which the standard rules out and kernels do not expect.
func Hazard(n *Node) string {
	if n.Domain != "" && n.Domain != "ai.onnx" {
		return ""
	}
	switch n.Op {
	case "Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool":
		if pads := n.Ints("pads"); slices.ContainsFunc(pads, func(p int64) bool { return p < 0 }) {
			return fmt.Sprintf("negative pads %v", pads)
		}
	}
	if n.Op != "ConvTranspose" {
		return ""
	}
	strides := n.Ints("strides")
	for i, extra := range n.Ints("output_padding") {
		stride := int64(1)
		if i < len(strides) {
			stride = strides[i]
		}
		if extra < 0 || extra >= stride {
			return fmt.Sprintf("output_padding %d at stride %d (ONNX Runtime reads beyond its buffer there)", extra, stride)
		}
	}
	return ""
}
