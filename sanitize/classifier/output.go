package classifier

import (
	"fmt"
	"slices"

	"grindstone/sanitize/onnx"
)

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

// flattenLogits reads class scores of shape [N, classes, 1, 1], in which networks end that pool instead of flattening, as rows. The file
// keeps its output.
func (c *Classifier) flattenLogits() {
	shape := c.shapes[c.Logits]
	if len(shape) < 3 || shape[0] != 2 || elements(shape[1:]) != slices.Max(shape[1:]) {
		return
	}
	rows := c.Logits + "/rows"
	n := &onnx.Node{Name: rows, Op: "Flatten", Inputs: []string{c.Logits}, Outputs: []string{rows}}
	c.Nodes, c.Head = append(c.Nodes, n), append(c.Head, n)
	c.explain("logits %s: %v for two images, read as rows", c.Logits, shape)
	c.Logits, c.shapes[rows] = rows, []int64{shape[0], elements(shape[1:])}
}
