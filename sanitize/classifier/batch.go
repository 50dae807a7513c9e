package classifier

import (
	"fmt"
	"slices"

	"grindstone/sanitize/grad"
	"grindstone/sanitize/onnx"
)

// openBatch makes a model that was exported with a fixed batch work with any: a Reshape to a constant shape that names the batch gets
// the open form. (The input's own dimension is written open by whoever emits the graph.)
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
	return nil
}
