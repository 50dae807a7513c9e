package classifier

import (
	"fmt"
	"slices"
	"strings"

	"grindstone/sanitize/grad"
	"grindstone/sanitize/onnx"
)

// producers maps each value to the node that makes it.
func producers(nodes []*onnx.Node) map[string]*onnx.Node {
	return (&onnx.Graph{Nodes: nodes}).Producer()
}

// ancestors returns the nodes that values depend on, in graph order.
func ancestors(nodes []*onnx.Node, values ...string) []*onnx.Node {
	want := map[string]bool{}
	for _, v := range values {
		want[v] = true
	}
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

// passes lists the operators that may stand between the last layers with weights and the logits.
var passes = map[string]bool{
	"Add": true, "Sub": true, "Sum": true, "Mean": true, "Mul": true, "Div": true, "BatchNormalization": true, "Relu": true, "Clip": true, "Dropout": true,
	"Identity": true, "Flatten": true, "Reshape": true, "Squeeze": true, "Unsqueeze": true, "Transpose": true, "Concat": true, "Slice": true, "Gather": true,
	"GlobalAveragePool": true, "AveragePool": true, "ReduceMean": true, "ReduceSum": true, "GlobalMaxPool": true, "MaxPool": true, "ReduceMax": true,
	"QuantizeLinear": true, "DequantizeLinear": true,
}

// merges are those of them that put several activations together, as where two heads are averaged. All others pass on their first input.
var merges = map[string]bool{"Add": true, "Sub": true, "Sum": true, "Mean": true, "Mul": true, "Concat": true}

// findHead finds the last layers with weights; what they read is the feature layer, and all above it is the head. A named tensor overrides
// the search. Heads that stand beside it are part of the head nevertheless: each of them knows the classes.
func (c *Classifier) findHead(feature string) error {
	c.findReach()
	by := producers(c.Nodes)
	layers, obstacle := c.lastLayers(by, c.Logits)
	switch {
	case feature != "" && by[feature] == nil:
		return fmt.Errorf("%w: no tensor is called %q between input and logits", ErrNoHead, feature)
	case feature != "":
		above, below := grad.Reach(c.Nodes, []string{feature}), setOf(ancestors(c.Nodes, feature))
		beside := slices.DeleteFunc(layers, func(n *onnx.Node) bool { return above[n.Outputs[0]] || below[n] })
		c.Feature = feature
		c.splitAt(append(c.readBy(beside), feature))
		c.explain("feature layer %s: as asked", feature)
	case len(layers) == 0:
		return c.noHead(obstacle)
	default:
		read := c.readBy(layers)
		c.Feature = c.joinFeatures(read)
		c.splitAt(read)
		c.explain("feature layer %s: what %s", c.Feature, lastRead(layers))
	}
	return nil
}

// lastLayers returns the last layers with weights on the ways to a value, in graph order. Where there is none, it returns the node at which the
// first of these ways ends, if it does not end at the image.
func (c *Classifier) lastLayers(by map[string]*onnx.Node, value string) (layers []*onnx.Node, obstacle *onnx.Node) {
	seen, read := map[string]bool{}, []string(nil)
	found := map[*onnx.Node]bool{}
	var down func(value string)
	down = func(value string) {
		n := by[value]
		if n == nil || seen[value] || !c.live[value] {
			return
		}
		seen[value] = true
		switch {
		case c.isLinear(by, n):
			found[n] = true
			read = append(read, n.Inputs...)
		case n.Domain != "" && !rounds(n) || !passes[n.Op] && !(c.mixture && (n.Op == "Softmax" || n.Op == "Log")):
			if obstacle == nil {
				obstacle = n
			}
		case merges[n.Op]:
			for _, in := range n.Inputs {
				down(in)
			}
		default:
			down(n.Inputs[0])
		}
	}
	down(value)
	below := setOf(ancestors(c.Nodes, read...)) // a layer that another one of them stands above, as in residual blocks, is not the last
	for _, n := range c.Nodes {
		if found[n] && !below[n] {
			layers = append(layers, n)
		}
	}
	return layers, obstacle
}

// readBy returns what layers read, each value once.
func (c *Classifier) readBy(layers []*onnx.Node) []string {
	var read []string
	for _, n := range layers {
		in := n.Inputs[slices.IndexFunc(n.Inputs, func(in string) bool { return c.live[in] })]
		if !slices.Contains(read, in) {
			read = append(read, in)
		}
	}
	return read
}

// joinFeatures makes one feature layer of what several heads read, an image's numbers behind one another. The heads go on reading their own. One
// that reads the image adds nothing, since training cannot change that.
func (c *Classifier) joinFeatures(read []string) string {
	features := slices.DeleteFunc(slices.Clone(read), func(in string) bool { return !c.learned[in] })
	switch len(features) {
	case 0:
		return read[0]
	case 1:
		return features[0]
	}
	joint := &onnx.Node{Name: c.Logits + "/features", Op: "Concat", Outputs: []string{c.Logits + "/features"}, Attrs: []*onnx.Attr{onnx.I("axis", 1)}}
	for i, in := range features {
		row := fmt.Sprintf("%s/%d", joint.Name, i)
		c.Nodes = append(c.Nodes, &onnx.Node{Name: row, Op: "Flatten", Inputs: []string{in}, Outputs: []string{row}})
		joint.Inputs = append(joint.Inputs, row)
	}
	c.Nodes = append(c.Nodes, joint)
	return joint.Name
}

// splitAt makes a head of all that lies above the given values and below none of them.
func (c *Classifier) splitAt(features []string) {
	above, body := grad.Reach(c.Nodes, features), setOf(ancestors(c.Nodes, append(features, c.Feature)...))
	for _, n := range c.Nodes {
		if !body[n] && slices.ContainsFunc(n.Reads(), func(in string) bool { return above[in] }) {
			c.Head = append(c.Head, n)
		}
	}
}

// noHead says what stands between the output and a layer with weights. It may be such a layer, whose weight the file computes.
func (c *Classifier) noHead(obstacle *onnx.Node) error {
	if obstacle == nil {
		return fmt.Errorf("%w: no layer with weights stands between input and output", ErrNoHead)
	}
	switch obstacle.Op {
	case "Gemm", "MatMul", "Conv":
		for _, in := range obstacle.Inputs[:2] {
			if !c.live[in] {
				return &onnx.Error{Node: obstacle.Label(), What: fmt.Sprintf("%s: weight %q", obstacle.Op, in), Err: ErrFrozen}
			}
		}
	}
	return &onnx.Error{Node: obstacle.Label(), What: obstacle.Op, Err: fmt.Errorf(
		"%w: it stands between the output and the last layer with weights; --feature-tensor names the tensor that this layer reads", ErrNoHead)}
}

// lastRead says in words which layers are the last.
func lastRead(layers []*onnx.Node) string {
	names := make([]string, len(layers))
	for i, n := range layers {
		names[i] = n.Op + " " + n.Label()
	}
	if len(names) == 1 {
		return names[0] + ", the last layer with weights, reads"
	}
	return strings.Join(names, " and ") + ", the last layers with weights, read"
}

// isLinear reports whether a node multiplies its data by a constant weight, a moved copy of one, or one that is composed of constants.
func (c *Classifier) isLinear(by map[string]*onnx.Node, n *onnx.Node) bool {
	constant := func(i int) bool { return c.Constants[c.Sources(by, n.Inputs[i])[0]] != nil }
	switch n.Op {
	case "Gemm", "Conv":
		return constant(1)
	case "MatMul":
		return constant(0) || constant(1)
	}
	return false
}

func setOf(nodes []*onnx.Node) map[*onnx.Node]bool {
	set := map[*onnx.Node]bool{}
	for _, n := range nodes {
		set[n] = true
	}
	return set
}
