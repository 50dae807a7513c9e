package grad

import "grindstone/sanitize/onnx"

// Operators that pick or place elements by index. Gradients are added up where an index occurs more than once, by ScatterElements:
// ScatterND loses additions on the CPU provider, whose threads race.

// scatterAdd adds updates to data at the indices along an axis.
func (t *Tape) scatterAdd(data, indices, updates string, axis int64) string {
	return t.B.Op("ScatterElements", []string{data, indices, updates}, onnx.I("axis", axis), onnx.S("reduction", "add"))
}

// maxSelection is the largest product of sizes up to which constant indices become a selection matrix, whose product runs on all threads.
const maxSelection = 1 << 18

// gatherGrad views x as [outer, n, inner], of which m rows were picked.
func gatherGrad(t *Tape, n *onnx.Node, dy []string) []string {
	in, at := t.Shape(n.Inputs[0]), t.Shape(n.Inputs[1])
	a := int(axis(n.Int("axis", 0), len(in)))
	outer, rows, inner, m := size(in[:a]), in[a], size(in[a+1:]), size(at)
	constant := t.Ints(n.Inputs[1])
	for i, k := range constant {
		constant[i] = axis(k, int(rows))
	}
	var g string
	switch {
	case outer*rows*inner*m == 0:
		g = t.zeros(in...)
	case len(constant) == 1:
		pads := make([]int64, 2*len(in))
		pads[a], pads[len(in)+a] = constant[0], rows-1-constant[0]
		if g = t.reshape(dy[0], with(in, a, 1)...); t.current == Plain {
			t.returnPart(n.Inputs[0], g, pads)
			return []string{"", ""}
		}
		g = t.pad(g, pads...)
	case constant != nil && rows*m <= maxSelection:
		selection := make([]float32, rows*m)
		for i, k := range constant {
			selection[k*m+int64(i)] = 1
		}
		g = t.along(t.reshape(dy[0], outer, m, inner), []int64{outer, m, inner}, 1, t.B.Floats([]int64{rows, m}, selection), rows)
	default:
		where := t.expand(t.reshape(t.Ref(n.Inputs[1]), 1, m, 1), outer, m, inner)
		g = t.scatterAdd(t.zeros(outer, rows, inner), where, t.reshape(dy[0], outer, m, inner), 1)
	}
	return []string{t.reshape(g, in...), ""}
}

func gatherElementsGrad(t *Tape, n *onnx.Node, dy []string) []string {
	return []string{t.scatterAdd(t.zeros(t.Shape(n.Inputs[0])...), t.Ref(n.Inputs[1]), dy[0], n.Int("axis", 0)), ""}
}

// gatherNDGrad numbers the slices that the last axis of the indices names, and adds them up in [slices, inner].
func gatherNDGrad(t *Tape, n *onnx.Node, dy []string) []string {
	in, at := t.Shape(n.Inputs[0]), t.Shape(n.Inputs[1])
	batch, depth := n.Int("batch_dims", 0), at[len(at)-1]
	rows, inner := size(in[:batch+depth]), size(in[batch+depth:])
	if size(in) == 0 || size(at) == 0 {
		return []string{t.zeros(in...), ""}
	}
	indexed := in[batch : batch+depth]
	step := make([]int64, depth)
	for i := range step {
		step[i] = size(indexed[i+1:])
	}
	index := t.Ref(n.Inputs[1]) // negative ones count from the end
	index = t.where(t.op("Less", index, t.B.Int64(0)), t.add(index, t.B.Int64s(indexed...)), index)
	number := t.sum(t.mul(index, t.B.Int64s(step...)), false, -1)
	if batch > 0 { // slices of earlier images come first
		images, each := size(at[:batch]), size(indexed)
		first := make([]int64, images)
		for i := range first {
			first[i] = int64(i) * each
		}
		number = t.add(t.reshape(number, images, -1), t.reshape(t.B.Int64s(first...), images, 1))
	}
	m := size(at) / depth
	where := t.expand(t.reshape(number, m, 1), m, inner)
	return []string{t.reshape(t.scatterAdd(t.zeros(rows, inner), where, t.reshape(dy[0], m, inner), 0), in...), ""}
}

// scatterElementsGrad: what was overwritten gets no gradient; what was added to, its own. The updates' gradient is what they left.
func scatterElementsGrad(t *Tape, n *onnx.Node, dy []string) []string {
	index, a := t.Ref(n.Inputs[1]), onnx.I("axis", n.Int("axis", 0))
	return []string{
		t.lazy(n, 0, func() string {
			if n.String("reduction", "none") == "add" {
				return dy[0]
			}
			return t.B.Op("ScatterElements", []string{dy[0], index, t.zeros(t.Shape(n.Inputs[2])...)}, a)
		}),
		"",
		t.lazy(n, 2, func() string { return t.B.Op("GatherElements", []string{dy[0], index}, a) }),
	}
}

func scatterNDGrad(t *Tape, n *onnx.Node, dy []string) []string {
	index := t.Ref(n.Inputs[1])
	return []string{
		t.lazy(n, 0, func() string {
			if n.String("reduction", "none") == "add" {
				return dy[0]
			}
			return t.op("ScatterND", dy[0], index, t.zeros(t.Shape(n.Inputs[2])...))
		}),
		"",
		t.lazy(n, 2, func() string { return t.op("GatherND", dy[0], index) }),
	}
}

// otherReduction refuses the reductions by product and extreme.
func otherReduction(n *onnx.Node) string {
	if r := n.String("reduction", "none"); r != "none" && r != "add" {
		return "reduction=" + r
	}
	return ""
}

// topKForward keeps the indices.
func topKForward(t *Tape, n *onnx.Node) { t.Save(n.Outputs[0], t.Copy(n, 2)[1]) }

func topKGrad(t *Tape, n *onnx.Node, dy []string) []string {
	g := t.scatterAdd(t.zeros(t.Shape(n.Inputs[0])...), t.Saved(n.Outputs[0])[0], dy[0], n.Int("axis", -1))
	return []string{g, ""}
}

// oneHotGrad: the values [off, on] get the sums of dy where they stand.
func oneHotGrad(t *Tape, n *onnx.Node, dy []string) []string {
	return []string{"", "", t.lazy(n, 2, func() string {
		hot := t.B.Op("OneHot", []string{t.Ref(n.Inputs[0]), t.Ref(n.Inputs[1]), t.B.Floats([]int64{2}, []float32{0, 1})}, onnx.I("axis", n.Int("axis", -1)))
		all := sequence(len(t.Shape(n.Outputs[0])))
		on := t.reshape(t.sum(t.mul(dy[0], hot), false, all...), 1)
		off := t.sub(t.reshape(t.sum(dy[0], false, all...), 1), on)
		return t.B.Op("Concat", []string{off, on}, onnx.I("axis", 0))
	})}
}

// compressGrad: Compress is GatherElements of the places where the condition holds.
func compressGrad(t *Tape, n *onnx.Node, dy []string) []string {
	in, out := t.Shape(n.Inputs[0]), t.Shape(n.Outputs[0])
	kept := t.op("NonZero", t.Ref(n.Inputs[1])) // [1, k]
	if n.Attr("axis") == nil {
		flat := t.scatterAdd(t.zeros(size(in)), t.reshape(kept, -1), dy[0], 0)
		return []string{t.reshape(flat, in...), ""}
	}
	a := axis(n.Int("axis", 0), len(in))
	along := make([]int64, len(in))
	for i := range along {
		along[i] = 1
	}
	along[a] = out[a]
	return []string{t.scatterAdd(t.zeros(in...), t.expand(t.reshape(kept, along...), out...), dy[0], a), ""}
}
