package classifier

import (
	"cmp"
	"fmt"
	"slices"

	"grindstone/sanitize/onnx"
)

// scores are what an output of the model is made of.
type scores struct {
	output, logits string
	closing, nodes []*onnx.Node // between these two, and all that make the logits
	mixture        bool         // it is made of several networks' probabilities, or of smoothed ones
	depth          int          // nodes that make the last layers with weights, and these; 0 if no head is found
}

// findLogits finds the class scores: what an output is made of, before a closing Softmax, LogSoftmax or ArgMax. Of several outputs (auxiliary
// heads, features or confidences beside scores, labels beside probabilities) it takes the likeliest, unless one is asked for. What lies
// behind the logits, or beside the way to them, is dropped.
func (c *Classifier) findLogits(g *onnx.Graph, output string) error {
	if len(g.Outputs) == 0 {
		return fmt.Errorf("%w: the graph has no output", ErrOutput)
	}
	c.findReach()
	by := producers(c.Nodes)
	var best *scores
	var names []string
	for _, out := range g.Outputs {
		names = append(names, out.Name)
		if output != "" && out.Name != output {
			continue
		}
		if s := c.scoresOf(by, out.Name); by[s.logits] != nil && (best == nil || s.likelier(best)) {
			best = s
		}
	}
	switch {
	case best != nil:
	case output == "" || slices.Contains(names, output):
		name := cmp.Or(output, names[0])
		return &onnx.Error{What: "output " + name, Err: fmt.Errorf("%w: no node makes %q", ErrOutput, name)}
	default:
		return fmt.Errorf("%w: no output is called %q; the model has %q", ErrOutput, output, names)
	}
	c.Output, c.Logits, c.Closing, c.Nodes = best.output, best.logits, best.closing, best.nodes
	if c.mixture = best.mixture; c.mixture {
		c.takeLogarithm()
	}
	switch {
	case output != "":
		c.explain("output %s: as asked", c.Output)
	case len(names) > 1:
		c.explain("output %s: of %d outputs, most of the network leads to its head; --output-tensor names another", c.Output, len(names))
	}
	return nil
}

// likelier reports whether s are the classes rather than t: the head is deeper in the network, or as deep with less behind it, as logits are beside
// their maximum. Where no head is found, that of which more of the network is a part.
func (s *scores) likelier(t *scores) bool {
	if s.depth != t.depth {
		return s.depth > t.depth
	}
	if s.depth > 0 && len(s.nodes) == len(t.nodes) {
		return len(s.closing) < len(t.closing)
	}
	if s.depth > 0 {
		return len(s.nodes) < len(t.nodes)
	}
	return len(s.nodes) > len(t.nodes)
}

func (c *Classifier) scoresOf(by map[string]*onnx.Node, output string) *scores {
	s := &scores{output: output}
	s.logits, s.closing = c.unclosed(by, output)
	s.nodes = ancestors(c.Nodes, s.logits)
	var made []string
	layers, _ := c.lastLayers(by, s.logits)
	if len(layers) == 0 && c.mixes(by, s.logits, map[string]bool{}) {
		c.mixture = true
		layers, _ = c.lastLayers(by, s.logits)
		c.mixture, s.mixture = false, len(layers) > 0
	}
	for _, n := range layers {
		made = append(made, n.Outputs...)
	}
	s.depth = len(ancestors(c.Nodes, made...))
	return s
}

// mixes reports whether a value is a sum of probabilities, with factors and summands that are not negative.
func (c *Classifier) mixes(by map[string]*onnx.Node, value string, known map[string]bool) bool {
	if t := c.Constants[value]; t != nil {
		return t.Type == onnx.Float && !slices.ContainsFunc(t.Floats(), func(v float32) bool { return !(v >= 0) })
	}
	is, seen := known[value]
	n := by[value]
	if seen || n == nil || n.Domain != "" {
		return is
	}
	each := func(in string) bool { return c.mixes(by, in, known) }
	number := func(in string) bool {
		t := c.Constants[in]
		return t != nil && t.Type == onnx.Float && single(t.Shape) && t.Floats()[0] > 0
	}
	switch n.Op {
	case "Softmax":
		is = true
	case "Add", "Sum", "Mean", "Concat":
		is = !slices.ContainsFunc(n.Inputs, func(in string) bool { return !each(in) })
	case "Mul":
		is = number(n.Inputs[0]) && each(n.Inputs[1]) || number(n.Inputs[1]) && each(n.Inputs[0])
	case "Div":
		is = number(n.Inputs[1]) && each(n.Inputs[0])
	case "Identity", "Reshape", "Squeeze", "Unsqueeze", "ReduceMean", "ReduceSum":
		is = each(n.Inputs[0])
	}
	known[value] = is
	return is
}

// takeLogarithm makes scores of a mixture of probabilities (an average of several networks', or label smoothing): those whose Softmax it is. The file keeps
// its output.
func (c *Classifier) takeLogarithm() {
	least, positive, scores := c.Logits+"/least", c.Logits+"/positive", c.Logits+"/logarithm"
	c.Constants[least] = onnx.NewFloat(least, nil, []float32{1e-30})
	c.Nodes = append(c.Nodes,
		&onnx.Node{Name: positive, Op: "Clip", Inputs: []string{c.Logits, least}, Outputs: []string{positive}},
		&onnx.Node{Name: scores, Op: "Log", Inputs: []string{positive}, Outputs: []string{scores}})
	c.Closing = append([]*onnx.Node{{Name: scores + "/back", Op: "Exp", Inputs: []string{scores}, Outputs: []string{c.Logits}}}, c.Closing...)
	c.explain("logits %s: the logarithm of probabilities that are added up", scores)
	c.Logits = scores
}

// flattenLogits reads class scores of shape [N, classes, 1, 1], in which networks end that pool instead of flattening, as rows. The file
// keeps its output.
func (c *Classifier) flattenLogits() {
	shape := c.shapes[c.Logits]
	if len(shape) < 3 || elements(shape[1:]) != slices.Max(shape[1:]) {
		return
	}
	rows := c.Logits + "/rows"
	n := &onnx.Node{Name: rows, Op: "Flatten", Inputs: []string{c.Logits}, Outputs: []string{rows}}
	c.Nodes, c.Head = append(c.Nodes, n), append(c.Head, n)
	c.explain("logits %s: %v for %d images, read as rows", c.Logits, shape, shape[0])
	c.Logits, c.shapes[rows] = rows, []int64{shape[0], elements(shape[1:])}
}
