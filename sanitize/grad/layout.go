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
	plainUse := map[string]bool{} // weights that some node reads in the plain layout
	for _, n := range nodes {
		t.plan(n)
		for i, in := range n.Inputs {
			if t.layout[n] != Inner || n.Op != "Conv" || i != 1 {
				plainUse[in] = true
			}
		}
	}
	for _, n := range nodes {
		if n.Op != "Conv" || t.layout[n] != Inner {
			continue
		}
		if w := n.Inputs[1]; !plainUse[w] && size(t.shapes[w][2:]) > 1 {
			t.native[w] = Taps
		}
	}
}

func (t *Tape) plan(n *onnx.Node) {
	r, ok := Rules[n.Op]
	if !ok || n.Domain != "" {
		return
	}
	if r.Inner != nil && r.Inner.Fits(t, n) {
		t.layout[n] = Inner
		if r.Inner.KeepsLayout {
			t.native[n.Outputs[0]] = Inner
		}
		return
	}
	if !r.AnyLayout || !slices.ContainsFunc(n.Inputs, func(in string) bool { return t.native[in] == Inner }) {
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
	t.layout[n], t.native[n.Outputs[0]] = Inner, Inner
}

// layoutOf is the layout in which the node being emitted reads or makes a value.
func (t *Tape) layoutOf(value string) Layout {
	switch {
	case t.current != Inner:
		return Plain
	case t.native[value] != Plain:
		return t.native[value]
	case t.constants[value] == nil && len(t.shapes[value]) == 4 && size(t.shapes[value][2:]) > 1:
		return Inner // an activation that was made in the plain layout
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
	switch from {
	case Inner:
		name = t.transpose(t.reshape(name, shape[2], shape[3], shape[1], shape[0]), 3, 2, 0, 1)
	case Taps:
		name = t.transpose(name, 2, 3, 0, 1)
	}
	switch to {
	case Inner:
		name = t.reshape(t.transpose(name, 2, 3, 1, 0), shape[2]*shape[3], shape[1], shape[0])
	case Taps:
		name = t.transpose(name, 2, 3, 0, 1)
	}
	return name
}
