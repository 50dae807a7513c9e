package onnx_test

import (
	"errors"
	"strings"
	"testing"

	"grindstone/sanitize/onnx"
)

// TestHazards: dangerous nodes are found wherever they hide.
func TestHazards(t *testing.T) {
	dangerous := func(attrs ...*onnx.Attr) *onnx.Node {
		return &onnx.Node{Name: "culprit", Op: "ConvTranspose", Inputs: []string{"x", "x"}, Outputs: []string{"y"}, Attrs: attrs}
	}
	wide := dangerous(onnx.Is("strides", 2, 2), onnx.Is("dilations", 5, 5), onnx.Is("output_padding", 1, 3))
	branch := func(n *onnx.Node) *onnx.Node {
		return &onnx.Node{Op: "If", Inputs: []string{"x"}, Outputs: []string{"y"}, Attrs: []*onnx.Attr{{Name: "then_branch", Type: onnx.AttrGraph, Graph: &onnx.Graph{Nodes: []*onnx.Node{n}}}}}
	}
	for says, n := range map[string]*onnx.Node{
		"output_padding 3 at stride 2": wide,
		"output_padding 1 at stride 1": dangerous(onnx.Is("output_padding", 1)),
		"beyond its buffer":            branch(branch(wide)),
		"output_shape within control":  branch(dangerous(onnx.Is("output_shape", 9))),
		"negative pads":                branch(&onnx.Node{Name: "culprit", Op: "MaxPool", Domain: "ai.onnx", Attrs: []*onnx.Attr{onnx.Is("pads", 0, -1)}}),
		"node \"y/culprit\"":           call("F", nil, []string{"y"}),
	} {
		m := &onnx.Model{Opsets: map[string]int64{"": 17}, Graph: &onnx.Graph{Nodes: []*onnx.Node{n}},
			Functions: []*onnx.Function{{Name: "F", Domain: "local", Outputs: []string{"y"}, Nodes: []*onnx.Node{wide}}}}
		if _, err := onnx.Normalize(m); !errors.Is(err, onnx.ErrUnsupported) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "culprit") {
			t.Errorf("error %v, want one about %q", err, says)
		}
	}
}
