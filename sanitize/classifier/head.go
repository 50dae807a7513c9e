package classifier

import (
	"fmt"
	"slices"

	"grindstone/sanitize/grad"
	"grindstone/sanitize/onnx"
)

// producers maps each value to the node that makes it.
func producers(nodes []*onnx.Node) map[string]*onnx.Node {
	return (&onnx.Graph{Nodes: nodes}).Producer()
}

// findLogits finds the class scores: what an output is made of, before a closing Softmax, LogSoftmax or ArgMax. Of several outputs (auxiliary
// heads, features beside scores, labels beside probabilities) it takes the one that most of the network leads to, the first of
// equals. What lies behind the logits, or beside the way to them, is dropped.
func (c *Classifier) findLogits(g *onnx.Graph) error {
	if len(g.Outputs) == 0 {
		return fmt.Errorf("%w: the graph has no output", ErrOutput)
	}
	by := producers(c.Nodes)
	var best []*onnx.Node
	for _, out := range g.Outputs {
		at, closing := out.Name, []*onnx.Node(nil)
		for n := by[at]; n != nil && closed(by, n) != ""; n = by[at] {
			closing = append(closing, n)
			at = closed(by, n)
		}
		if by[at] == nil {
			continue
		}
		if nodes := ancestors(c.Nodes, at); len(nodes) > len(best) {
			best, c.Output, c.Logits, c.Closing = nodes, out.Name, at, closing
		}
	}
	if best == nil {
		first := g.Outputs[0].Name
		return &onnx.Error{What: "output " + first, Err: fmt.Errorf("%w: no node makes %q", ErrOutput, first)}
	}
	slices.Reverse(c.Closing)
	if len(g.Outputs) > 1 {
		c.explain("output %s: of %d outputs, most of the network leads to it", c.Output, len(g.Outputs))
	}
	c.Nodes = best
	return nil
}

// ancestors returns the nodes that a value depends on, in graph order.
func ancestors(nodes []*onnx.Node, value string) []*onnx.Node {
	want := map[string]bool{value: true}
	var keep []*onnx.Node
	for _, n := range slices.Backward(nodes) {
		if !slices.ContainsFunc(n.Outputs, func(out string) bool { return out != "" && want[out] }) {
			continue
		}
		keep = append(keep, n)
		for _, in := range n.Reads() {
			want[in] = true
		}
	}
	slices.Reverse(keep)
	return keep
}

// passes lists the operators that may stand between the last parametric layer and the logits.
var passes = map[string]bool{
	"Add": true, "Mul": true, "Identity": true, "Flatten": true, "Reshape": true, "Squeeze": true, "Unsqueeze": true, "Transpose": true,
	"Relu": true, "Dropout": true, "GlobalAveragePool": true, "AveragePool": true, "ReduceMean": true,
	"QuantizeLinear": true, "DequantizeLinear": true,
}

// findHead finds the last parametric layer; its input is the feature layer. A named tensor overrides the search.
func (c *Classifier) findHead(feature string) error {
	by := producers(c.Nodes)
	if feature != "" {
		if by[feature] == nil {
			return fmt.Errorf("%w: no tensor is called %q between input and logits", ErrNoHead, feature)
		}
		c.Feature = feature
		c.explain("feature layer %s: as asked", feature)
	} else {
		n := by[c.Logits]
		for n != nil && !c.isLinear(n) {
			if !passes[n.Op] {
				return &onnx.Error{Node: n.Label(), What: n.Op, Err: ErrNoHead}
			}
			n = c.dataProducer(by, n)
		}
		if n == nil {
			return ErrNoHead
		}
		c.Feature = c.dataInput(n)
		if by[c.Feature] == nil {
			return fmt.Errorf("%w: the only parametric layer reads the input, so there is no feature layer", ErrNoHead)
		}
		c.explain("feature layer %s: what %s %s, the last layer with weights, reads", c.Feature, n.Op, n.Label())
	}
	above := grad.Reach(c.Nodes, []string{c.Feature})
	for _, n := range c.Nodes {
		if slices.ContainsFunc(n.Reads(), func(in string) bool { return above[in] }) {
			c.Head = append(c.Head, n)
		}
	}
	return nil
}

// isLinear reports whether a node multiplies its data by a constant weight.
func (c *Classifier) isLinear(n *onnx.Node) bool {
	switch n.Op {
	case "Gemm", "Conv":
		return c.Constants[n.Inputs[1]] != nil
	case "MatMul":
		return c.Constants[n.Inputs[0]] != nil || c.Constants[n.Inputs[1]] != nil
	}
	return false
}

// dataInput is the input that is not a constant.
func (c *Classifier) dataInput(n *onnx.Node) string {
	for _, in := range n.Inputs {
		if in != "" && c.Constants[in] == nil {
			return in
		}
	}
	return ""
}

func (c *Classifier) dataProducer(by map[string]*onnx.Node, n *onnx.Node) *onnx.Node {
	return by[c.dataInput(n)]
}
