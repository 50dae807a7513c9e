package classifier

import (
	"fmt"
	"math"
	"slices"

	"grindstone/sanitize/onnx"
)

// widen turns a network of float16, bfloat16 or double into one of float32, in which it is trained and evaluated: weights, casts to the other type
// and constants made by nodes. The file stays as it is; Rewrite rounds trained weights back to their own type.
func (c *Classifier) widen() error {
	for name, t := range c.Constants {
		if otherFloat(t.Type) {
			single, err := toSingle(t)
			if err != nil {
				return &onnx.Error{What: "tensor " + name, Err: err}
			}
			single.Name = name
			c.Constants[name] = single
		}
	}
	for i, n := range c.Nodes {
		to, value := n.Attr("to"), n.Attr("value")
		switch {
		case n.Op == "Cast" && to != nil && otherFloat(onnx.DataType(to.I)):
			c.Nodes[i] = withAttr(n, onnx.I("to", int64(onnx.Float)))
		case n.Op == "ConstantOfShape" && value != nil && value.Tensor != nil && otherFloat(value.Tensor.Type):
			single, err := toSingle(value.Tensor)
			if err != nil {
				return &onnx.Error{Node: n.Label(), What: "value", Err: err}
			}
			c.Nodes[i] = withAttr(n, onnx.T("value", single))
		}
	}
	return nil
}

func otherFloat(t onnx.DataType) bool {
	return t == onnx.Float16 || t == onnx.BFloat16 || t == onnx.Double
}

// toSingle: bounds that mean "none", such as the largest double, become the largest float32.
func toSingle(t *onnx.Tensor) (*onnx.Tensor, error) {
	if t.Type != onnx.Double {
		return t.Convert(onnx.Float)
	}
	v := t.Doubles()
	for i, x := range v {
		if !math.IsInf(x, 0) {
			v[i] = min(max(x, -math.MaxFloat32), math.MaxFloat32)
		}
	}
	return onnx.NewDouble(t.Name, t.Shape, v).Convert(onnx.Float)
}

// movesBytes are the operators that pass on bytes as they are.
var movesBytes = map[string]bool{
	"Transpose": true, "Reshape": true, "Squeeze": true, "Unsqueeze": true, "Flatten": true, "Identity": true, "Slice": true, "Gather": true, "Split": true, "Concat": true,
}

// readBytes serves a network that takes the bytes of an image and makes floats of them itself: it is read as one that takes these floats. Whatever computes
// with bytes would give other numbers with floats.
func (c *Classifier) readBytes(input string) error {
	bytes := map[string]bool{input: true}
	for _, n := range c.Nodes {
		i := slices.IndexFunc(n.Reads(), func(in string) bool { return bytes[in] })
		switch {
		case i < 0, n.Domain == "" && (n.Op == "Shape" || n.Op == "Size" || n.Op == "Cast" && n.Int("to", 0) == int64(onnx.Float)):
		case n.Domain == "" && movesBytes[n.Op]:
			for _, out := range n.Outputs {
				bytes[out] = true
			}
		default:
			return &onnx.Error{Node: n.Label(), What: n.Op, Err: fmt.Errorf("%w: it computes with the bytes of the input %q; cast them to floats first", ErrInput, input)}
		}
	}
	c.Bytes = true
	return nil
}

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
