package classifier

import (
	"fmt"
	"slices"

	"grindstone/sanitize/grad"
	"grindstone/sanitize/onnx"
)

// openBatch makes a model that was exported with a fixed batch work with any: a Reshape to a constant shape that names the batch gets
// the open form, and what is concatenated to every image, as class tokens are, is repeated as often as there are images. (The input's
// own dimension is written open by whoever emits the graph.)
func (c *Classifier) openBatch(g *onnx.Graph) error {
	if c.FixedBatch == 0 {
		return nil
	}
	data := grad.Reach(c.Nodes, []string{c.Input})
	for i, n := range c.Nodes {
		if n.Op != "Reshape" || !data[n.Inputs[0]] {
			continue
		}
		shape := c.Constants[n.Inputs[1]]
		if shape == nil {
			continue
		}
		to := shape.Ints()
		if len(to) == 0 || to[0] != c.FixedBatch {
			continue
		}
		open := slices.Clone(to)
		if slices.Contains(to[1:], -1) {
			open[0] = 0 // as in the data
		} else {
			open[0] = -1
		}
		name := fmt.Sprintf("%s/open_batch", n.Inputs[1])
		c.Constants[name] = onnx.NewInt64(name, []int64{int64(len(open))}, open)
		changed := *n
		changed.Inputs = []string{n.Inputs[0], name}
		c.Nodes[i] = &changed
	}
	c.openConcats(data)
	return nil
}

// openConcats lets each Concat repeat its inputs that are no data. All of the file's rows of such an input are equal; their mean stands for
// them, so that a training step keeps them equal.
func (c *Classifier) openConcats(data map[string]bool) {
	var nodes []*onnx.Node
	for _, n := range c.Nodes {
		k := slices.IndexFunc(n.Inputs, func(in string) bool { return data[in] })
		if n.Op != "Concat" || n.Domain != "" || k < 0 || n.Int("axis", 0) == 0 {
			nodes = append(nodes, n)
			continue
		}
		changed := *n
		changed.Inputs = slices.Clone(n.Inputs)
		for i, in := range n.Inputs {
			if data[in] {
				continue
			}
			name := func(what string) string { return fmt.Sprintf("%s/open_batch/%d/%s", n.Outputs[0], i, what) }
			add := func(op, out string, inputs []string, attrs ...*onnx.Attr) string {
				nodes = append(nodes, &onnx.Node{Name: name(out), Op: op, Inputs: inputs, Outputs: []string{name(out)}, Attrs: attrs})
				return name(out)
			}
			row := add("ReduceMean", "row", []string{in}, onnx.Is("axes", 0))
			batch := add("Shape", "batch", []string{n.Inputs[k]}, onnx.I("end", 1))
			rest := add("Shape", "rest", []string{in}, onnx.I("start", 1))
			shape := add("Concat", "shape", []string{batch, rest}, onnx.I("axis", 0))
			changed.Inputs[i] = add("Expand", "rows", []string{row, shape})
		}
		nodes = append(nodes, &changed)
	}
	c.Nodes = nodes
}
