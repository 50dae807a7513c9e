package classifier

import (
	"fmt"
	"slices"

	"grindstone/sanitize/grad"
	"grindstone/sanitize/onnx"
)

// resolvePadding replaces auto_pad by the pads that it means at the model's image size, which is what gradient rules are written for.
func (c *Classifier) resolvePadding() {
	for i, n := range c.Nodes {
		c.Nodes[i] = grad.ResolvePadding(n, c.shapes)
		if h := slices.Index(c.Head, n); h >= 0 {
			c.Head[h] = c.Nodes[i]
		}
	}
}

// resolveOutputShapes replaces the output_shape of each ConvTranspose by what it means in padding, before the runtime sees it: one that is too
// large for the input makes the runtime read beyond its buffer, as output_padding does (onnx.Hazard). The shape of the input comes from
// running what lies in front of the node.
func (c *Classifier) resolveOutputShapes() error {
	for i, n := range c.Nodes {
		if n.Op != "ConvTranspose" || n.Domain != "" || n.Attr("output_shape") == nil {
			continue
		}
		before := *c
		before.Nodes = c.Nodes[:i]
		shapes, err := before.Shapes(max(c.FixedBatch, 1))
		if err != nil {
			return err
		}
		if err = checkWindow(n, len(shapes[n.Input(0)])-2, len(shapes[n.Input(1)])-2); err == nil {
			c.Nodes[i] = grad.ResolvePadding(n, shapes)
			if hazard := onnx.Hazard(c.Nodes[i]); hazard != "" {
				err = fmt.Errorf("%w: output_shape %v, which means %s", onnx.ErrUnsupported, n.Ints("output_shape"), hazard)
			}
		}
		if err != nil {
			return &onnx.Error{Node: n.Label(), What: n.Op, Err: err}
		}
	}
	return nil
}

// checkWindow: the runtime, which would have checked it, has not seen the node yet.
func checkWindow(n *onnx.Node, dimensions, kernel int) error {
	wrong := dimensions < 1 || dimensions != kernel || len(n.Ints("output_shape")) < dimensions
	for _, name := range []string{"strides", "dilations", "output_padding"} {
		wrong = wrong || n.Attr(name) != nil && len(n.Ints(name)) != dimensions
	}
	if wrong {
		return fmt.Errorf("%w: attributes and shapes have different numbers of dimensions", onnx.ErrMalformed)
	}
	return nil
}
