package onnx

import (
	"errors"
	"fmt"
	"math"
)

// attention (Vaswani et al. 2017; https://onnx.ai/onnx/operators/onnx__Attention.html): softmax(Q K'*scale + mask) V, for queries, keys and
// values of shape [batch, heads, length, size], or [batch, length, heads*size] with the number of heads as an attribute.
func (u *upgrade) attention(n *Node) (*Node, error) {
	for i := 4; i < len(n.Inputs); i++ {
		if n.Inputs[i] != "" {
			return nil, errors.New("a key-value cache is not supported")
		}
	}
	for i := 1; i < len(n.Outputs); i++ {
		if n.Outputs[i] != "" {
			return nil, errors.New("outputs other than the first are not supported")
		}
	}
	heads, kvHeads := n.Int("q_num_heads", 0), n.Int("kv_num_heads", 0)
	if heads != kvHeads {
		return nil, fmt.Errorf("%d query heads with %d key heads are not supported", heads, kvHeads)
	}
	if n.Int("left_window_size", -1) >= 0 || n.Int("right_window_size", -1) >= 0 {
		return nil, errors.New("windows are not supported")
	}
	q, k, v := n.Inputs[0], n.Inputs[1], n.Inputs[2]
	if heads > 0 { // [batch, length, heads*size] -> [batch, heads, length, size]
		split := u.ints(n, "heads", []int64{0, 0, heads, -1})
		apart := func(x string) string {
			return u.op(n, "Transpose", []string{u.op(n, "Reshape", []string{x, split})}, Is("perm", 0, 2, 1, 3))
		}
		q, k, v = apart(q), apart(k), apart(v)
	}
	scores := u.op(n, "MatMul", []string{q, u.op(n, "Transpose", []string{k}, Is("perm", 0, 1, 3, 2))})
	if s := n.Float("scale", 0); s != 0 {
		scores = u.op(n, "Mul", []string{scores, u.scalar(n, "scale", s)})
	} else { // by default one over the root of the size
		size := u.op(n, "Cast", []string{u.op(n, "Shape", []string{q}, I("start", -1))}, I("to", int64(Float)))
		scores = u.op(n, "Div", []string{scores, u.op(n, "Sqrt", []string{size})})
	}
	if c := n.Float("softcap", 0); c != 0 {
		cap := u.scalar(n, "softcap", c)
		scores = u.op(n, "Mul", []string{u.op(n, "Tanh", []string{u.op(n, "Div", []string{scores, cap})}), cap})
	}
	never := func() string { return u.scalar(n, "never", float32(math.Inf(-1))) }
	if mask := n.Input(3); mask != "" {
		switch u.elements(mask) {
		case Bool:
			scores = u.op(n, "Where", []string{mask, scores, never()})
		case Float:
			scores = u.op(n, "Add", []string{scores, mask})
		default:
			return nil, fmt.Errorf("the element type of the mask %q is not known", mask)
		}
	}
	if n.Int("is_causal", 0) != 0 { // a query sees keys up to its own position
		lengths := u.op(n, "Shape", []string{scores}, I("start", -2))
		ones := u.op(n, "ConstantOfShape", []string{lengths}, T("value", NewFloat("", []int64{1}, []float32{1})))
		seen := u.op(n, "Cast", []string{u.op(n, "Trilu", []string{ones}, I("upper", 0))}, I("to", int64(Bool)))
		scores = u.op(n, "Where", []string{seen, scores, never()})
	}
	y := []string{u.op(n, "Softmax", []string{scores}, I("axis", -1)), v}
	if heads == 0 {
		return n.last("MatMul", y)
	}
	together := u.op(n, "Transpose", []string{u.op(n, "MatMul", y)}, Is("perm", 0, 2, 1, 3))
	return n.last("Reshape", []string{together, u.ints(n, "joined", []int64{0, 0, -1})})
}

// elements is the element type of a value, as far as the file says it.
func (u *upgrade) elements(value string) DataType {
	if t := u.initializer(value); t != nil {
		return t.Type
	}
	if v := u.graph.Value(value); v != nil {
		return v.Type
	}
	return Undefined
}
