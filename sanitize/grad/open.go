package grad

import (
	"slices"

	"grindstone/sanitize/onnx"
)

// OpenBatch keeps the batch's size out of the shapes in the emitted graph, so that it is known when the graph runs, not before. n is that size, and
// name that of an int64 tensor [1] which holds it.
//
// ONNX Runtime plans beforehand to let tensors of one size that it knows use the same memory one after the other, and holds it in between
// (AllocationPlanner). In training that is long: a layer's forward and backward pass have equal sizes. What has an unknown size is allocated when
// it is needed and freed after its last use. docs/engine.md has what it gains.
func (t *Tape) OpenBatch(n int64, name string) { t.batch, t.batchName = n, name }

// openAxis is the axis of a shape that has the batch in it, -1 if none has: one of exactly its size, else of a multiple; the first such in the plain
// layout, the last in others. A mistake costs memory alone, since the tensor has the size that it has.
func (t *Tape) openAxis(shape []int64) int {
	if t.batchName == "" {
		return -1
	}
	exact, multiple := -1, -1
	for i, d := range shape {
		if d == t.batch && (exact < 0 || t.current != Plain) {
			exact = i
		}
		if d > 0 && d%t.batch == 0 && (multiple < 0 || t.current != Plain) {
			multiple = i
		}
	}
	if exact >= 0 {
		return exact
	}
	return multiple
}

// open puts a mark where the batch is in a shape.
func (t *Tape) open(shape []int64, mark int64) []int64 {
	at := t.openAxis(shape)
	if at < 0 || slices.ContainsFunc(shape, func(d int64) bool { return d <= 0 }) {
		return shape
	}
	shape = slices.Clone(shape)
	shape[at] = mark
	return shape
}

// sizes emits a shape as a tensor.
func (t *Tape) sizes(shape []int64) string {
	at := t.openAxis(shape)
	if at < 0 {
		return t.B.Int64s(shape...)
	}
	parts := []string{t.batchName}
	if k := shape[at] / t.batch; k != 1 {
		parts[0] = t.op("Mul", t.batchName, t.B.Int64s(k))
	}
	if at > 0 {
		parts = slices.Insert(parts, 0, t.B.Int64s(shape[:at]...))
	}
	if at+1 < len(shape) {
		parts = append(parts, t.B.Int64s(shape[at+1:]...))
	}
	return t.B.Op("Concat", parts, onnx.I("axis", 0))
}
