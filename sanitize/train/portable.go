package train

import (
	"math"

	"grindstone/sanitize/onnx"
)

// portable replaces the HardSigmoid by which the gradient of a ReLU tells positive elements from zeros (steep, beta 0) by Sign, which is slower on
// CPUs. OpenVINO (2025.4) joins such a HardSigmoid with the ReLU before it, and then has 0.5 for 0: every gradient below would be wrong.
func portable(g *onnx.Graph) {
	for _, n := range g.Nodes {
		if n.Op == "HardSigmoid" && n.Float("alpha", 0.2) == math.MaxFloat32 {
			n.Op, n.Attrs = "Sign", nil
		}
		for _, a := range n.Attrs {
			if a.Graph != nil {
				portable(a.Graph)
			}
		}
	}
}
