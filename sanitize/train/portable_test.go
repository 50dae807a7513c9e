package train

import (
	"math"
	"testing"

	"grindstone/sanitize/onnx"
)

// TestPortable: the mask of a ReLU becomes a Sign, also inside a Scan; a HardSigmoid of the network stays.
func TestPortable(t *testing.T) {
	mask := func() *onnx.Node {
		return &onnx.Node{Op: "HardSigmoid", Inputs: []string{"x"}, Outputs: []string{"m"}, Attrs: []*onnx.Attr{onnx.F("alpha", math.MaxFloat32), onnx.F("beta", 0)}}
	}
	own := &onnx.Node{Op: "HardSigmoid", Inputs: []string{"x"}, Outputs: []string{"h"}, Attrs: []*onnx.Attr{onnx.F("alpha", 1./6), onnx.F("beta", .5)}}
	plain := &onnx.Node{Op: "HardSigmoid", Inputs: []string{"x"}, Outputs: []string{"d"}}
	outside, inside := mask(), mask()
	portable(&onnx.Graph{Nodes: []*onnx.Node{outside, own, plain,
		{Op: "Scan", Attrs: []*onnx.Attr{onnx.G("body", &onnx.Graph{Nodes: []*onnx.Node{inside}})}}}})
	for _, n := range []*onnx.Node{outside, inside} {
		if n.Op != "Sign" || len(n.Attrs) != 0 || n.Inputs[0] != "x" || n.Outputs[0] != "m" {
			t.Errorf("a mask became %s with %d attributes", n.Op, len(n.Attrs))
		}
	}
	if own.Op != "HardSigmoid" || own.Float("beta", 0) != .5 || plain.Op != "HardSigmoid" {
		t.Errorf("the network's own became %s and %s", own.Op, plain.Op)
	}
}
