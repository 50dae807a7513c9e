package classifier

import (
	"slices"

	"grindstone/sanitize/onnx"
)

// findTrainable collects the constants that training changes: weights and biases of linear layers, scale and shift of normalizations.
// Constants of preprocessing, and the running statistics of BatchNormalization, are never among them.
func (c *Classifier) findTrainable() {
	by := producers(c.Nodes)
	initializer := map[string]bool{}
	for _, t := range c.Source.Graph.Initializers {
		initializer[t.Name] = true
	}
	inHead := map[*onnx.Node]bool{}
	for _, n := range c.Head {
		inHead[n] = true
	}
	for _, n := range c.Nodes {
		for _, name := range c.weightsOf(by, n) {
			t := c.Constants[name]
			if t == nil || !initializer[name] || t.Type != onnx.Float {
				continue
			}
			if !slices.Contains(c.Trainable, name) {
				c.Trainable = append(c.Trainable, name)
			}
			if inHead[n] && !slices.Contains(c.HeadWeights, name) {
				c.HeadWeights = append(c.HeadWeights, name)
			}
		}
	}
}

// weightsOf returns the inputs of a node that hold weights.
func (c *Classifier) weightsOf(by map[string]*onnx.Node, n *onnx.Node) []string {
	switch n.Op {
	case "Conv", "ConvTranspose", "Gemm":
		return n.Inputs[1:]
	case "BatchNormalization":
		return n.Inputs[1:3]
	case "LayerNormalization", "InstanceNormalization", "PRelu":
		return n.Inputs[1:]
	case "MatMul":
		return n.Inputs
	case "Add":
		if c.biasOf(by, n) != "" {
			return n.Inputs
		}
	}
	return nil
}

// biasOf returns the constant that an Add adds to the output of a MatMul or Conv, "" if it is no such Add.
func (c *Classifier) biasOf(by map[string]*onnx.Node, add *onnx.Node) string {
	for i, in := range add.Inputs {
		if c.Constants[in] == nil {
			continue
		}
		if p := by[add.Inputs[1-i]]; p != nil && (p.Op == "MatMul" || p.Op == "Conv") && c.isLinear(p) {
			return in
		}
	}
	return ""
}
