package classifier

import (
	"fmt"
	"math"
	"slices"

	"grindstone/sanitize/onnx"
)

// Quantized models in the QDQ form (pairs of QuantizeLinear and DequantizeLinear) are trained in floats: weights are what DequantizeLinear
// makes of the file's integers, and activations are not rounded. Afterwards Requantize finds new scales for both and rounds the
// weights. Zero points stay as they are. A zero point at the end of the integers' range cuts off all that is below zero: quantizers
// remove the ReLU in front of it, so training puts one in its place.

// quantized is a tensor that the file keeps in integers, or rounds to them.
type quantized struct {
	scales []string     // constants with the scale: of QuantizeLinear, of DequantizeLinear, or of both
	zero   *onnx.Tensor // its type is that of the integers; one element, or one per channel
	axis   int          // of the channels, where there are several scales

	float   string // weights: the constant that is trained
	integer string // the file's tensor of integers; "" where the file has floats, and rounds them when it runs

	values []string // activations: what QuantizeLinear reads; all of them share the scale
	made   []string // what DequantizeLinear makes of them
}

// Quantized reports whether the file holds integers in place of weights, or rounds activations.
func (c *Classifier) Quantized() bool { return len(c.quantized) > 0 }

// RoundedActivations are the values whose range Requantize needs.
func (c *Classifier) RoundedActivations() []string {
	var names []string
	for _, q := range c.quantized {
		names = append(names, q.values...)
	}
	return names
}

// dequantize replaces the nodes of the QDQ form. With rounded, activations stay rounded as in the file: that is the form to evaluate.
func (c *Classifier) dequantize(rounded bool) error {
	by := producers(c.Nodes)
	owner := map[string]*quantized{} // of each scale, and of each value of integers
	var nodes []*onnx.Node
	for _, n := range c.Nodes {
		if n.Op != "QuantizeLinear" && n.Op != "DequantizeLinear" || n.Domain != "" {
			nodes = append(nodes, n)
			continue
		}
		fail := func(what string) error {
			return &onnx.Error{Node: n.Label(), What: n.Op, Err: fmt.Errorf("%w: %s", onnx.ErrUnsupported, what)}
		}
		scale, zero := c.Constants[n.Input(1)], c.Constants[n.Input(2)]
		switch {
		case scale == nil || n.Input(2) != "" && zero == nil:
			return fail("scale or zero point are computed")
		case n.Int("block_size", 0) != 0:
			return fail("scales of blocks")
		case zero == nil:
			zero = onnx.NewUint8("", nil, []uint8{0})
			if t := c.Constants[n.Inputs[0]]; t != nil && t.Type == onnx.Int32 {
				zero = onnx.NewInt32("", nil, []int32{0})
			} else if t != nil && t.Type == onnx.Int8 {
				zero = &onnx.Tensor{Type: onnx.Int8, Raw: []byte{0}}
			}
		}
		if lo, hi := integerRange(zero.Type); lo == hi {
			return fail(fmt.Sprintf("integers of type %v", zero.Type))
		}
		in, out := n.Inputs[0], n.Outputs[0]
		t, q := c.Constants[in], owner[in]
		switch {
		case n.Op == "DequantizeLinear" && t != nil: // a weight in integers
			if owner[n.Inputs[1]] != nil || owner[in] != nil {
				return fail("it shares its scale or its integers with another")
			}
			q = &quantized{scales: n.Inputs[1:2], zero: zero, axis: axisOf(n, t), float: out, integer: in}
			owner[in] = q
			c.quantized = append(c.quantized, q)
			v, err := q.floats(t, scale.Floats())
			if err != nil {
				return fail(err.Error())
			}
			c.Constants[out], c.changeable[out] = onnx.NewFloat(out, t.Shape, v), true
		case n.Op == "QuantizeLinear" && t != nil: // a weight in floats
			if owner[n.Inputs[1]] != nil {
				return fail("it shares its scale with another")
			}
			q = &quantized{scales: n.Inputs[1:2], zero: zero, axis: axisOf(n, t), float: in}
			c.quantized = append(c.quantized, q)
			v, err := q.round(t.Floats(), t.Shape, scale.Floats())
			if err != nil {
				return fail(err.Error())
			}
			c.Constants[in] = onnx.NewFloat(in, t.Shape, v)
			owner[out] = q
			nodes = append(nodes, &onnx.Node{Name: n.Name, Op: "Identity", Inputs: []string{in}, Outputs: n.Outputs})
		case n.Op == "QuantizeLinear": // an activation
			if scale.Len() != 1 {
				return fail("an activation with several scales")
			}
			if q = owner[n.Inputs[1]]; q == nil {
				q = &quantized{scales: n.Inputs[1:2], zero: zero}
				c.quantized = append(c.quantized, q)
			} else if q.float != "" || !slices.Equal(q.zero.Ints(), zero.Ints()) {
				return fail("it shares its scale with another")
			}
			q.values = append(q.values, in)
			owner[out] = q
			op := "Identity"
			if lo, _ := integerRange(zero.Type); zero.Ints()[0] == lo {
				op = "Relu"
			}
			nodes = append(nodes, either(rounded, n, &onnx.Node{Name: n.Name, Op: op, Inputs: []string{in}, Outputs: n.Outputs}))
		default: // back to floats
			for p := by[in]; q == nil && p != nil && len(p.Inputs) > 0; p = by[p.Inputs[0]] { // integers may be moved in between
				q = owner[p.Inputs[0]]
			}
			if q == nil {
				return fail("no QuantizeLinear is behind it")
			}
			if q.float != "" {
				nodes = append(nodes, &onnx.Node{Name: n.Name, Op: "Identity", Inputs: []string{in}, Outputs: n.Outputs})
			} else {
				q.made = append(q.made, out)
				nodes = append(nodes, either(rounded, n, &onnx.Node{Name: n.Name, Op: "Identity", Inputs: []string{in}, Outputs: n.Outputs}))
			}
			if o := owner[n.Inputs[1]]; o != nil && o != q {
				return fail("it shares its scale with another")
			}
			if !slices.Contains(q.scales, n.Inputs[1]) {
				q.scales = append(slices.Clone(q.scales), n.Inputs[1])
			}
		}
		owner[n.Inputs[1]] = q
	}
	c.Nodes = nodes
	return nil
}

func either(first bool, a, b *onnx.Node) *onnx.Node {
	if first {
		return a
	}
	return b
}

// axisOf is the axis along which scales differ.
func axisOf(n *onnx.Node, t *onnx.Tensor) int {
	axis := int(n.Int("axis", 1))
	if axis < 0 {
		axis += len(t.Shape)
	}
	return axis
}

// integerRange is the least and the largest integer of a type; both are 0 for a type that is not served.
func integerRange(t onnx.DataType) (lo, hi int64) {
	switch t {
	case onnx.Uint8:
		return 0, math.MaxUint8
	case onnx.Int8:
		return math.MinInt8, math.MaxInt8
	case onnx.Uint16:
		return 0, math.MaxUint16
	case onnx.Int16:
		return math.MinInt16, math.MaxInt16
	case onnx.Int32:
		return math.MinInt32, math.MaxInt32
	}
	return 0, 0
}

// channel gives the index of the scale of each element: a function of the element's index.
func (q *quantized) channel(shape []int64, scales int) (func(i int) int, error) {
	if scales == 1 {
		return func(int) int { return 0 }, nil
	}
	if q.axis < 0 || q.axis >= len(shape) || int64(scales) != shape[q.axis] {
		return nil, fmt.Errorf("%d scales for axis %d of shape %v", scales, q.axis, shape)
	}
	inner := int(elements(shape[q.axis+1:]))
	return func(i int) int { return i / inner % scales }, nil
}

// zeros are the zero points of all channels.
func (q *quantized) zeros(n int) ([]int64, error) {
	z := q.zero.Ints()
	if len(z) == 1 {
		return slices.Repeat(z, n), nil
	}
	if len(z) != n {
		return nil, fmt.Errorf("%d zero points for %d scales", len(z), n)
	}
	return z, nil
}

// floats is what DequantizeLinear makes of the integers.
func (q *quantized) floats(t *onnx.Tensor, scale []float32) ([]float32, error) {
	at, err := q.channel(t.Shape, len(scale))
	if err != nil {
		return nil, err
	}
	zero, err := q.zeros(len(scale))
	if err != nil {
		return nil, err
	}
	ints := t.Ints()
	if ints == nil {
		return nil, fmt.Errorf("elements of type %v", t.Type)
	}
	v := make([]float32, len(ints))
	for i, x := range ints {
		v[i] = float32(x-zero[at(i)]) * scale[at(i)]
	}
	return v, nil
}

// integers is what QuantizeLinear makes of floats: rounded to even, saturated.
func (q *quantized) integers(v []float32, shape []int64, scale []float32) ([]int64, error) {
	at, err := q.channel(shape, len(scale))
	if err != nil {
		return nil, err
	}
	zero, err := q.zeros(len(scale))
	if err != nil {
		return nil, err
	}
	lo, hi := integerRange(q.zero.Type)
	out := make([]int64, len(v))
	for i, x := range v {
		k := at(i)
		out[i] = min(max(int64(math.RoundToEven(float64(x)/float64(scale[k])))+zero[k], lo), hi)
	}
	return out, nil
}

func (q *quantized) round(v []float32, shape []int64, scale []float32) ([]float32, error) {
	ints, err := q.integers(v, shape, scale)
	if err != nil {
		return nil, err
	}
	return q.floats(onnx.NewInt64("", shape, ints), scale)
}

// scaleFor is the least scale with which lo and hi, which lie on both sides of 0, are integers' values; 0 if both are 0.
func (q *quantized) scaleFor(lo, hi float64, zero int64) float32 {
	least, most := integerRange(q.zero.Type)
	if q.float != "" && least < 0 && zero == 0 {
		least = -most // weights are symmetric
	}
	s := 0.0
	if most > zero {
		s = max(s, hi/float64(most-zero))
	}
	if least < zero {
		s = max(s, -lo/float64(zero-least))
	}
	return float32(s)
}

// Requantize finds scales for trained weights and for the activations' ranges over clean images (by name: least and largest value), puts
// them among the values, and rounds the weights there. It returns the file's integers. Biases in 32 bits have the product of the
// scales of their layer's input and weight, as the operators that runtimes fuse take for granted (ONNX, QLinearConv).
func (c *Classifier) Requantize(values map[string][]float32, ranges map[string][2]float32) (map[string]*onnx.Tensor, error) {
	scaleOf := map[string][]float32{} // of what layers read
	set := func(q *quantized, s []float32) {
		for _, name := range q.scales {
			values[name] = s
		}
		for _, name := range append(q.made, q.float) {
			scaleOf[name] = s
		}
	}
	for _, q := range c.quantized {
		switch {
		case q.float == "":
			lo, hi := 0.0, 0.0
			for _, name := range q.values {
				lo, hi = min(lo, float64(ranges[name][0])), max(hi, float64(ranges[name][1]))
			}
			s := []float32{q.scaleFor(lo, hi, q.zero.Ints()[0])}
			if s[0] == 0 {
				s = values[q.scales[0]]
			}
			set(q, s)
		case q.zero.Type != onnx.Int32:
			s, err := q.weightScales(values[q.float], c.Constants[q.float].Shape, values[q.scales[0]])
			if err != nil {
				return nil, err
			}
			set(q, s)
		}
	}
	for _, n := range c.Nodes {
		in, w := scaleOf[n.Input(0)], scaleOf[n.Input(1)]
		i := slices.IndexFunc(c.quantized, func(q *quantized) bool { return q.float != "" && q.float == n.Input(2) && q.zero.Type == onnx.Int32 })
		if i < 0 || n.Op != "Conv" && n.Op != "Gemm" || len(in) != 1 || w == nil {
			continue
		}
		q := c.quantized[i]
		s := make([]float32, len(values[q.scales[0]]))
		if len(w) != 1 && len(w) != len(s) {
			return nil, &onnx.Error{Node: n.Label(), What: "bias", Err: fmt.Errorf("%w: %d scales where the weight has %d", onnx.ErrUnsupported, len(s), len(w))}
		}
		for k := range s {
			s[k] = in[0] * w[min(k, len(w)-1)]
		}
		set(q, s)
	}
	integers := map[string]*onnx.Tensor{}
	for _, q := range c.quantized {
		if q.float == "" {
			continue
		}
		shape, s := c.Constants[q.float].Shape, values[q.scales[0]]
		ints, err := q.integers(values[q.float], shape, s)
		if err != nil {
			return nil, err
		}
		t := onnx.NewInts(q.integer, q.zero.Type, shape, ints)
		if values[q.float], err = q.floats(t, s); err != nil {
			return nil, err
		}
		if q.integer != "" {
			integers[q.integer] = t
		}
	}
	return integers, nil
}

// weightScales are the scales of a weight's channels; a channel of zeros keeps its own.
func (q *quantized) weightScales(v []float32, shape []int64, old []float32) ([]float32, error) {
	at, err := q.channel(shape, len(old))
	if err != nil {
		return nil, err
	}
	zero, err := q.zeros(len(old))
	if err != nil {
		return nil, err
	}
	lo, hi, s := make([]float64, len(old)), make([]float64, len(old)), make([]float32, len(old))
	for i, x := range v {
		lo[at(i)], hi[at(i)] = min(lo[at(i)], float64(x)), max(hi[at(i)], float64(x))
	}
	for k := range s {
		if s[k] = q.scaleFor(lo[k], hi[k], zero[k]); s[k] == 0 {
			s[k] = old[k]
		}
	}
	return s, nil
}

// Integers reports whether a constant is kept in integers by the file, so that it is not written as it is.
func (c *Classifier) Integers(name string) bool {
	return slices.ContainsFunc(c.quantized, func(q *quantized) bool { return q.float == name && q.integer != "" })
}
