package grad

import (
	"slices"

	"grindstone/sanitize/onnx"
)

// Recomputation (Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost): of what the forward pass leaves for the backward pass, some is
// computed again from what is kept anyway. With the batch innermost that is worth its time for two kinds, where activations are large (Forms.Recompute):
// outputs of a ReLU behind a BatchNormalization, whose input is kept, and transformed inputs of bilinear convolutions, 2.25 times as large as the
// inputs themselves.
//
// What is computed again is written differently from the first time, with the same result: the runtime would merge equal nodes and keep the
// first one's output.

// recomputes reports whether an activation is large enough for what depends on it to be computed again.
func (t *Tape) recomputes(value string) bool {
	return t.Forms.Recompute > 0 && t.native[value] == Inner && 4*size(t.shapes[value]) >= t.Forms.Recompute
}

// masksAgain reports whether a ReLU's output is not kept for its mask: it comes from a BatchNormalization, and no other rule keeps it.
func (t *Tape) masksAgain(relu *onnx.Node) bool {
	n := t.producer[relu.Inputs[0]]
	if n == nil || n.Op != "BatchNormalization" || !t.Training[n.Outputs[0]] || !t.recomputes(relu.Outputs[0]) {
		return false
	}
	return !slices.ContainsFunc(t.readers[relu.Outputs[0]], func(r *onnx.Node) bool {
		return r.Op != "Add" && (r.Op != "Conv" || t.layout[r] != Inner || size(t.convGeometry(r).kernel) == 1)
	})
}

// reluAgain is the output of a ReLU, from the input of the BatchNormalization in front of it.
func (t *Tape) reluAgain(relu *onnx.Node) string {
	n := t.producer[relu.Inputs[0]]
	mean, variance := t.Saved(n.Outputs[0])[0], t.Saved(n.Outputs[0])[1]
	a := t.mul(t.Ref(n.Inputs[1]), t.rstd(n, variance))
	shift := t.add(t.Ref(n.Inputs[2]), t.neg(t.mul(a, mean)))
	return t.op("Relu", t.affine(t.Ref(n.Inputs[0]), a, shift, t.Shape(n.Inputs[0])))
}

// transformsAgain reports whether the transformed input of a bilinear convolution is computed again: the input itself must be there.
func (t *Tape) transformsAgain(conv *onnx.Node) bool {
	n := t.producer[conv.Inputs[0]]
	return t.recomputes(conv.Inputs[0]) && n != nil && n.Op == "Relu" && !t.masksAgain(n)
}

// transformAgain is transform with the horizontal axis first.
func (t *Tape) transformAgain(x string, v, h matrix, channels, batch int64) string {
	x = t.reshape(x, v.cols, h.cols, channels*batch)
	x = t.reshape(t.op("MatMul", t.matrix(h), x), v.cols, h.rows*channels*batch)
	return t.reshape(t.op("MatMul", t.matrix(v), x), v.rows*h.rows, channels, batch)
}
