package grad

import (
	"slices"

	"grindstone/sanitize/onnx"
)

// Layout is the order in which a value's elements are kept.
//
// ONNX defines image operators on [N, C, H, W]. On CPUs a training step is faster with the batch innermost: a convolution then is a
// bilinear algorithm made of matrix products over long contiguous rows (see innerConv), and sums over images, broadcasting per channel and
// residual connections work as before. Tape.Plan chooses the layout of every value; Ref converts where two layouts meet.
type Layout int

const (
	Plain Layout = iota // as the ONNX standard has it: [N, C, H, W], [K, C, R, S]
	Inner               // activations with the batch innermost: [H*W, C, N]
	Outer               // activations with the channels outermost, then as Inner: [1, C, H*W*N]
	Taps                // convolution weights with the kernel position outermost: [R, S, K, C]
)

// placed is a source value in a layout.
type placed struct {
	value  string
	layout Layout
}

// Native returns the layout in which a value is kept. Whoever binds a value before Forward binds it in this layout, and gradients that
// Backward returns have it.
func (t *Tape) Native(value string) Layout { return t.native[value] }

// ToNative emits the change of a value's tensor from the plain layout to its native one, and ToPlain the way back.
func (t *Tape) ToNative(value, emitted string) string {
	return t.convert(emitted, t.shapes[value], Plain, t.native[value])
}

// ToPlain is the inverse of ToNative.
func (t *Tape) ToPlain(value, emitted string) string {
	return t.convert(emitted, t.shapes[value], t.native[value], Plain)
}

// Plan chooses the layouts of the nodes' values. Without it all are plain. It comes before Bind and Forward; wanted are the values
// whose gradients Backward will be asked for.
func (t *Tape) Plan(nodes []*onnx.Node, wanted []string) {
	t.needs = Reach(nodes, wanted)
	t.outer = t.Forms.Inner && t.outerOnly(nodes)
	t.plain = slices.ContainsFunc(nodes, func(n *onnx.Node) bool { return n.Op == "Conv" && n.Domain == "" && t.depthwise(t.convGeometry(n)) })
	plainUse := map[string]bool{} // weights that some node reads in the plain layout
	for _, n := range nodes {
		t.plan(n)
		for _, in := range n.Reads() {
			t.readers[in] = append(t.readers[in], n)
		}
		for _, out := range n.Outputs {
			t.producer[out] = n
		}
		if n.Op == "Conv" {
			t.weight[n.Inputs[1]] = true
		}
		for _, in := range n.Captures() {
			plainUse[in] = true
		}
		for i, in := range n.Inputs {
			if t.layout[n] != Inner || n.Op != "Conv" || i != 1 { // the direct form of Outer reads plain weights
				plainUse[in] = true
			}
		}
	}
	for _, n := range nodes {
		if n.Op != "Conv" || t.layout[n] != Inner {
			continue
		}
		if w := n.Inputs[1]; !plainUse[w] && t.producer[w] == nil && size(t.shapes[w][2:]) > 1 {
			t.native[w] = Taps
		}
	}
}

func (t *Tape) plan(n *onnx.Node) {
	r, ok := Rules[n.Op]
	if !ok || n.Domain != "" {
		return
	}
	if r.Inner != nil {
		if l := r.Inner.Choose(t, n); l != Plain {
			t.layout[n] = l
			if r.Inner.KeepsLayout {
				t.native[n.Outputs[0]] = l
			}
		}
		return
	}
	first := slices.IndexFunc(n.Inputs, func(in string) bool { return t.native[in] == Inner || t.native[in] == Outer })
	if !r.AnyLayout || first < 0 {
		return
	}
	out := t.shapes[n.Outputs[0]]
	for i, in := range n.Inputs {
		s := t.shapes[in]
		vector := n.Op == "BatchNormalization" && i > 0
		if !vector && size(s) != 1 && !slices.Equal(s, out) {
			return // broadcasts by axes of the plain layout
		}
	}
	t.layout[n] = t.native[n.Inputs[first]]
	t.native[n.Outputs[0]] = t.layout[n]
}

// layoutOf is the layout in which the node being emitted reads or makes a value.
func (t *Tape) layoutOf(value string) Layout {
	switch {
	case t.current == Plain:
		return Plain
	case t.native[value] == Taps:
		return Taps
	case t.native[value] != Plain || !t.weight[value] && t.constants[value] == nil && len(t.shapes[value]) == 4 && size(t.shapes[value]) > 1:
		return t.current // an activation, whatever layout it was made in
	}
	return Plain
}

// refIn returns the emitted name of a value in a layout, converting it the first time.
func (t *Tape) refIn(value string, l Layout) string {
	if name, ok := t.refs[placed{value, l}]; ok {
		return name
	}
	native := t.native[value]
	name, ok := t.refs[placed{value, native}]
	if !ok {
		name = value
	}
	if l == native {
		return name
	}
	name = t.convert(name, t.shapes[value], native, l)
	t.refs[placed{value, l}] = name
	return name
}

// convert changes the layout of an emitted tensor; shape is the plain one.
func (t *Tape) convert(name string, shape []int64, from, to Layout) string {
	if from == to {
		return name
	}
	defer func(l Layout) { t.current = l }(t.current)
	t.current = Inner // the batch is the last axis wherever something is reshaped
	switch {
	case from == Inner && to == Outer:
		return t.reshape(t.transpose(t.reshape(name, shape[2]*shape[3], shape[1], shape[0]), 1, 0, 2), 1, shape[1], -1)
	case from == Outer && to == Inner:
		return t.transpose(t.reshape(name, shape[1], shape[2]*shape[3], shape[0]), 1, 0, 2)
	}
	switch from {
	case Outer:
		name = t.transpose(t.reshape(name, shape[1], shape[2], shape[3], shape[0]), 3, 0, 1, 2)
	case Inner:
		name = t.transpose(t.reshape(name, shape[2], shape[3], shape[1], shape[0]), 3, 2, 0, 1)
	case Taps:
		name = t.transpose(name, 2, 3, 0, 1)
	}
	switch to {
	case Outer:
		name = t.reshape(t.transpose(name, 1, 2, 3, 0), 1, shape[1], -1)
	case Inner:
		name = t.reshape(t.transpose(name, 2, 3, 1, 0), shape[2]*shape[3], shape[1], shape[0])
	case Taps:
		name = t.transpose(name, 2, 3, 0, 1)
	}
	return name
}
