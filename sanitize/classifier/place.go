package classifier

import (
	"math"
	"slices"
	"strings"

	"grindstone/sanitize/onnx"
)

// place says where a value has the batch: in an axis of outer*batch*inner. Of [16, batch*2, 4], which attention makes of 16 positions with two heads,
// that is axis 1, outer 1 and inner 2.
type place struct {
	axis         int
	outer, inner int64
}

// follow returns where the output of a node has the batch, which its k-th input has somewhere; nothing where that cannot be told, as when images
// are mixed.
func (o *opener) follow(n *onnx.Node, k int) place {
	at, in, out := o.places[n.Inputs[k]], o.shapes[n.Inputs[k]], o.shapes[n.Outputs[0]]
	axis, rank := at.axis, len(in)
	along := int(n.Int("axis", 0))
	if along < 0 {
		along += rank
	}
	switch n.Op {
	case "Reshape", "Flatten":
		return at.reshaped(in, out, o.FixedBatch)
	case "Transpose":
		if axis = rank - 1 - axis; n.Attr("perm") != nil {
			axis = slices.Index(n.Ints("perm"), int64(at.axis))
		}
	case "Squeeze":
		axis -= before(o.axes(n, rank), axis)
	case "Unsqueeze":
		for _, a := range o.axes(n, len(out)) {
			if a <= axis {
				axis++
			}
		}
	case "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare":
		axes := o.axes(n, rank)
		if len(axes) == 0 || slices.Contains(axes, axis) {
			return place{}
		}
		if len(out) < rank {
			axis -= before(axes, axis)
		}
	case "Gather", "ArgMax", "ArgMin":
		if along == axis {
			return place{}
		}
		if along < axis {
			axis += len(out) - rank
		}
	case "Concat", "Split":
		if along == axis {
			return place{}
		}
	case "Einsum":
		terms, result, _ := strings.Cut(strings.ReplaceAll(n.String("equation", ""), " ", ""), "->")
		term := strings.Split(terms, ",")[k]
		if strings.Contains(term, ".") || axis >= len(term) {
			return place{}
		}
		axis = strings.IndexByte(result, term[axis])
	case "Gemm":
		axis = 0
	default:
		if len(out) > rank || len(out) < rank && n.Op != "MatMul" { // a MatMul with a vector loses the last axis
			axis += len(out) - rank
		}
	}
	if axis < 0 || axis >= len(out) || out[axis] != in[at.axis] {
		return place{}
	}
	return place{axis, at.outer, at.inner}
}

// count notes what depends on the number of images. Of the shape of data that is one element; exporters take others out of it, or cut it in two.
func (o *opener) count(n *onnx.Node) {
	if !slices.ContainsFunc(n.Reads(), func(in string) bool { return o.counts[in] }) {
		return
	}
	in := n.Input(0)
	size, known := o.sizes[in]
	from, to := int64(0), int64(math.MaxInt64)
	switch at := o.places[in]; {
	case n.Op == "Shape" && at != place{}:
		size, known = at.axis, true
		from, to = counted(n.Int("start", 0), len(o.shapes[in])), counted(n.Int("end", math.MaxInt64), len(o.shapes[in]))
	case n.Op == "Gather" && known && o.Constants[n.Input(1)] != nil:
		at := o.Constants[n.Inputs[1]].Ints()
		if !slices.Contains(at, int64(size)) && !slices.Contains(at, int64(size)-o.shapes[in][0]) {
			return
		}
		known = false
	case n.Op == "Slice" && known && o.one(n.Input(1)) && o.one(n.Input(2)) && n.Input(4) == "":
		length := int(o.shapes[in][0])
		from, to = counted(o.Constants[n.Inputs[1]].Ints()[0], length), counted(o.Constants[n.Inputs[2]].Ints()[0], length)
	default:
		known = n.Op == "Cast" && known || n.Op == "Identity" && known
	}
	if known && (int64(size) < from || int64(size) >= to) {
		return
	}
	for _, out := range n.Outputs {
		o.counts[out] = true
		if known {
			o.sizes[out] = size - int(from)
		}
	}
}

// one tells whether a value is a constant of one element.
func (o *opener) one(value string) bool {
	return o.Constants[value] != nil && o.Constants[value].Len() == 1
}

// counted is a position that may be counted from the end.
func counted(i int64, length int) int64 {
	if i < 0 {
		i += int64(length)
	}
	return min(max(i, 0), int64(length))
}

// axes are those that a node names, in order.
func (o *opener) axes(n *onnx.Node, rank int) []int {
	list := n.Ints("axes")
	if t := o.Constants[n.Input(1)]; t != nil {
		list = t.Ints()
	}
	axes := make([]int, len(list))
	for i, a := range list {
		if axes[i] = int(a); a < 0 {
			axes[i] += rank
		}
	}
	slices.Sort(axes)
	return axes
}

// before counts the axes in front of one.
func before(axes []int, axis int) int {
	at, _ := slices.BinarySearch(axes, axis)
	return at
}

// reshaped is where the batch is after a Reshape: with as many elements in front of it as before. Where the batch is 1, several axes may begin or
// end there. One of length 1 is the batch alone. Else the batch goes with what follows, as in batch*heads, unless that is the last axis: those are
// features, which weights count, and the batch goes with what precedes, as in positions*batch.
func (p place) reshaped(from, to []int64, batch int64) place {
	front := p.outer * elements(from[:p.axis])
	var can, alone []place
	for axis, d := range to {
		if ahead := elements(to[:axis]); front > 0 && ahead > 0 && front%ahead == 0 && d%(front/ahead*batch) == 0 {
			q := place{axis, front / ahead, d / (front / ahead * batch)}
			can = append(can, q)
			if q.outer == 1 && q.inner == 1 {
				alone = append(alone, q)
			}
		}
	}
	switch same := slices.IndexFunc(alone, func(q place) bool { return q.axis == p.axis }); {
	case len(can) == 0:
		return place{}
	case same >= 0:
		return alone[same]
	case len(alone) > 0:
		return alone[0]
	case can[len(can)-1].axis < len(to)-1:
		return can[len(can)-1]
	}
	return can[0]
}
