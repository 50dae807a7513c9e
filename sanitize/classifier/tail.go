package classifier

import (
	"fmt"
	"slices"
	"strings"

	"grindstone/sanitize/onnx"
)

// explain notes why something was chosen.
func (c *Classifier) explain(format string, a ...any) {
	c.Choices = append(c.Choices, fmt.Sprintf(format, a...))
}

// Tail draws the end of the network, a node a line: the last few nodes of the body, the head, and what closes the output. Shapes are for N
// images.
func (c *Classifier) Tail() []string {
	const before = 3
	var lines []string
	mark := func(value string) string {
		switch value {
		case c.Feature:
			return "   <- feature layer"
		case c.Logits:
			return "   <- logits"
		case c.Output:
			return "   <- output"
		}
		return ""
	}
	line := func(n *onnx.Node) {
		var in []string
		for _, name := range n.Inputs {
			if name != "" {
				in = append(in, name+c.drawShape(name))
			}
		}
		out := n.Output(0)
		lines = append(lines, fmt.Sprintf("%s = %s(%s)%s%s", out, n.Op, strings.Join(in, ", "), c.drawShape(out), mark(out)))
	}
	body := slices.DeleteFunc(ancestors(c.Nodes, c.Feature), func(n *onnx.Node) bool { return n.Op == "Shape" || n.Op == "Constant" })
	if len(body) > before {
		lines = append(lines, fmt.Sprintf("... %d nodes", len(body)-before))
		body = body[len(body)-before:]
	}
	for _, n := range slices.Concat(body, c.Head, c.Closing) {
		line(n)
	}
	return lines
}

// drawShape is a value's shape, with N for the batch of an activation.
func (c *Classifier) drawShape(value string) string {
	shape, known := c.shapes[value]
	if !known {
		return ""
	}
	words := make([]string, len(shape))
	for i, d := range shape {
		words[i] = fmt.Sprint(d)
	}
	if len(words) > 0 && c.Constants[value] == nil && shape[0] == c.measured() {
		words[0] = "N"
	}
	return " [" + strings.Join(words, " ") + "]"
}
