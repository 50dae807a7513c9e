package classifier

import (
	"errors"
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
	d := &dequantizer{Classifier: c, rounded: rounded, by: producers(c.Nodes), owner: map[string]*quantized{}}
	for _, n := range c.Nodes {
		if computesIntegers(n) {
			return &onnx.Error{Node: n.Label(), What: n.Op, Err: fmt.Errorf("%w: %w", onnx.ErrUnsupported, errOperators)}
		}
		if n.Op != "QuantizeLinear" && n.Op != "DequantizeLinear" || n.Domain != "" {
			d.nodes = append(d.nodes, n)
			continue
		}
		if err := d.node(n); err != nil {
			return &onnx.Error{Node: n.Label(), What: n.Op, Err: fmt.Errorf("%w: %w", onnx.ErrUnsupported, err)}
		}
	}
	c.Nodes = d.nodes
	return nil
}

// What stands in the way of training a quantized model.
var (
	errScales   = errors.New("scale or zero point are computed")
	errBlocks   = errors.New("scales of blocks")
	errSeveral  = errors.New("an activation with several scales")
	errSharing  = errors.New("it shares its scale or its integers with another, where sanitizing needs to choose a scale for each: quantize again with scales of their own")
	errNoFloats = errors.New("no QuantizeLinear is behind it")
)

type dequantizer struct {
	*Classifier
	rounded bool
	by      map[string]*onnx.Node
	owner   map[string]*quantized // of each scale, and of each value of integers
	nodes   []*onnx.Node
}

func (d *dequantizer) node(n *onnx.Node) error {
	in, scale := n.Inputs[0], d.Constants[n.Input(1)]
	zero, err := d.zero(n)
	switch {
	case err != nil:
		return err
	case scale == nil:
		return errScales
	case n.Int("block_size", 0) != 0:
		return errBlocks
	}
	if lo, hi := integerRange(zero.Type); lo == hi {
		return fmt.Errorf("integers of type %v", zero.Type)
	}
	q := &quantized{scales: n.Inputs[1:2], zero: zero}
	switch t := d.Constants[in]; {
	case n.Op == "DequantizeLinear" && t != nil:
		err = d.integers(n, q, t, scale.Floats())
	case n.Op == "DequantizeLinear":
		q, err = d.back(n)
	case t != nil:
		err = d.floats(n, q, t, scale.Floats())
	case scale.Len() != 1:
		err = errSeveral
	default:
		q, err = d.activation(n, q)
	}
	d.owner[n.Inputs[1]] = q
	return err
}

// zero is a node's zero point; without one it is 0, of the type of the integers: that which QuantizeLinear is told to make, or DequantizeLinear reads.
func (d *dequantizer) zero(n *onnx.Node) (*onnx.Tensor, error) {
	if n.Input(2) != "" {
		if t := d.Constants[n.Input(2)]; t != nil {
			return t, nil
		}
		return nil, errScales
	}
	kind := onnx.DataType(n.Int("output_dtype", int64(onnx.Uint8)))
	if kind == 0 { // as good as not told
		kind = onnx.Uint8
	}
	if t := d.Constants[n.Inputs[0]]; t != nil && n.Op == "DequantizeLinear" {
		kind = t.Type
	}
	if kind.Size() == 0 {
		return nil, fmt.Errorf("integers of type %v", kind)
	}
	return onnx.NewInts("", kind, nil, []int64{0}), nil
}

// integers: a weight that the file has in integers. It becomes a constant of floats.
func (d *dequantizer) integers(n *onnx.Node, q *quantized, t *onnx.Tensor, scale []float32) error {
	if d.owner[n.Inputs[1]] != nil || d.owner[n.Inputs[0]] != nil {
		return errSharing
	}
	q.axis, q.float, q.integer = axisOf(n, t), n.Outputs[0], n.Inputs[0]
	v, err := q.floats(t, scale)
	if err != nil {
		return err
	}
	d.owner[q.integer] = q
	d.quantized = append(d.quantized, q)
	d.Constants[q.float], d.changeable[q.float] = onnx.NewFloat(q.float, t.Shape, v), true
	return nil
}

// floats: a weight that the file has in floats, and rounds when it runs. The constant is rounded now.
func (d *dequantizer) floats(n *onnx.Node, q *quantized, t *onnx.Tensor, scale []float32) error {
	if d.owner[n.Inputs[1]] != nil {
		return errSharing
	}
	q.axis, q.float = axisOf(n, t), n.Inputs[0]
	v, err := q.round(t.Floats(), t.Shape, scale)
	if err != nil {
		return err
	}
	d.owner[n.Outputs[0]] = q
	d.quantized = append(d.quantized, q)
	d.Constants[q.float] = onnx.NewFloat(q.float, t.Shape, v)
	d.pass(n, "Identity")
	return nil
}

// activation: a value that is rounded. It may share its scale with others, as what a pooling reads and makes does.
func (d *dequantizer) activation(n *onnx.Node, q *quantized) (*quantized, error) {
	if o := d.owner[n.Inputs[1]]; o == nil {
		d.quantized = append(d.quantized, q)
	} else if o.float != "" || !slices.Equal(o.zero.Ints(), q.zero.Ints()) {
		return o, errSharing
	} else {
		q = o
	}
	q.values = append(q.values, n.Inputs[0])
	d.owner[n.Outputs[0]] = q
	op := "Identity"
	if lo, _ := integerRange(q.zero.Type); q.zero.Ints()[0] == lo {
		op = "Relu"
	}
	d.roundOr(n, q, op)
	return q, nil
}

// back: integers that become floats again.
func (d *dequantizer) back(n *onnx.Node) (*quantized, error) {
	q := d.owner[n.Inputs[0]]
	for p := d.by[n.Inputs[0]]; q == nil && p != nil && len(p.Inputs) > 0; p = d.by[p.Inputs[0]] { // integers may be moved in between
		q = d.owner[p.Inputs[0]]
	}
	if q == nil {
		return nil, errNoFloats
	}
	if o := d.owner[n.Inputs[1]]; o != nil && o != q {
		return o, errSharing
	}
	if !slices.Contains(q.scales, n.Inputs[1]) {
		q.scales = append(slices.Clone(q.scales), n.Inputs[1])
	}
	if q.float != "" {
		d.pass(n, "Identity")
	} else {
		q.made = append(q.made, n.Outputs[0])
		d.roundOr(n, q, "Identity")
	}
	return q, nil
}

// pass puts an operator of one input in the place of a node.
func (d *dequantizer) pass(n *onnx.Node, op string) {
	d.nodes = append(d.nodes, &onnx.Node{Name: n.Name, Op: op, Inputs: n.Inputs[:1], Outputs: n.Outputs})
}

// roundOr keeps the node in the form to evaluate, as opset 17 has it: the zero point says of what type the integers are, and those of 16 bits are for ONNX
// Runtime's own operators of the same names.
func (d *dequantizer) roundOr(n *onnx.Node, q *quantized, op string) {
	if !d.rounded {
		d.pass(n, op)
		return
	}
	zero := n.Input(2)
	if zero == "" {
		zero = n.Outputs[0] + "/zero"
		d.Constants[zero] = onnx.NewInts(zero, q.zero.Type, nil, []int64{0})
	}
	round := &onnx.Node{Name: n.Name, Op: n.Op, Inputs: []string{n.Inputs[0], n.Inputs[1], zero}, Outputs: n.Outputs}
	if q.zero.Type == onnx.Uint16 || q.zero.Type == onnx.Int16 {
		round.Domain = onnx.Contrib
	}
	d.nodes = append(d.nodes, round)
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

// channels gives, for a tensor with that many scales, the index of the scale of each element, and the zero points of the scales.
func (q *quantized) channels(shape []int64, scales int) (at func(i int) int, zero []int64, err error) {
	zero = q.zero.Ints()
	if len(zero) == 1 {
		zero = slices.Repeat(zero, scales)
	}
	switch {
	case len(zero) != scales:
		return nil, nil, fmt.Errorf("%d zero points for %d scales", len(zero), scales)
	case scales == 1:
		return func(int) int { return 0 }, zero, nil
	case q.axis < 0 || q.axis >= len(shape) || int64(scales) != shape[q.axis]:
		return nil, nil, fmt.Errorf("%d scales for axis %d of shape %v", scales, q.axis, shape)
	}
	inner := int(elements(shape[q.axis+1:]))
	return func(i int) int { return i / inner % scales }, zero, nil
}

// floats is what DequantizeLinear makes of the integers.
func (q *quantized) floats(t *onnx.Tensor, scale []float32) ([]float32, error) {
	at, zero, err := q.channels(t.Shape, len(scale))
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
	at, zero, err := q.channels(shape, len(scale))
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
