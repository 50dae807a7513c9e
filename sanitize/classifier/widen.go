package classifier

import (
	"slices"

	"grindstone/sanitize/onnx"
)

// widen turns a network of float16 or bfloat16 into one of float32, in which it is trained and evaluated: weights, casts to the narrow type
// and constants made by nodes. The file stays as it is; Rewrite rounds trained weights back to their own type.
func (c *Classifier) widen() error {
	for name, t := range c.Constants {
		if narrow(t.Type) {
			wide, err := t.Convert(onnx.Float)
			if err != nil {
				return &onnx.Error{What: "tensor " + name, Err: err}
			}
			wide.Name = name
			c.Constants[name] = wide
		}
	}
	for i, n := range c.Nodes {
		to, value := n.Attr("to"), n.Attr("value")
		switch {
		case n.Op == "Cast" && to != nil && narrow(onnx.DataType(to.I)):
			c.Nodes[i] = withAttr(n, onnx.I("to", int64(onnx.Float)))
		case n.Op == "ConstantOfShape" && value != nil && value.Tensor != nil && narrow(value.Tensor.Type):
			wide, err := value.Tensor.Convert(onnx.Float)
			if err != nil {
				return &onnx.Error{Node: n.Label(), What: "value", Err: err}
			}
			c.Nodes[i] = withAttr(n, onnx.T("value", wide))
		}
	}
	return nil
}

func narrow(t onnx.DataType) bool { return t == onnx.Float16 || t == onnx.BFloat16 }

// withAttr is a copy of a node with one attribute replaced.
func withAttr(n *onnx.Node, a *onnx.Attr) *onnx.Node {
	changed := *n
	changed.Attrs = slices.Clone(n.Attrs)
	for i, old := range changed.Attrs {
		if old.Name == a.Name {
			changed.Attrs[i] = a
		}
	}
	return &changed
}
