package grad

import (
	"slices"

	"grindstone/sanitize/onnx"
)

// The words that rules are written in. All take and return emitted names.

func (t *Tape) op(op string, in ...string) string { return t.B.Op(op, in) }

func (t *Tape) add(a, b string) string { return t.op("Add", a, b) }
func (t *Tape) sub(a, b string) string { return t.op("Sub", a, b) }
func (t *Tape) mul(a, b string) string { return t.op("Mul", a, b) }
func (t *Tape) div(a, b string) string { return t.op("Div", a, b) }
func (t *Tape) neg(a string) string    { return t.op("Neg", a) }

// float is a constant.
func (t *Tape) float(v float64) string { return t.B.Float(float32(v)) }

// scale multiplies by a number.
func (t *Tape) scale(a string, by float64) string {
	if by == 1 {
		return a
	}
	return t.mul(a, t.float(by))
}

func (t *Tape) where(condition, yes, no string) string { return t.op("Where", condition, yes, no) }

func (t *Tape) positive(a string) string { return t.op("Greater", a, t.float(0)) }

// indicator turns a condition into ones and zeros.
func (t *Tape) indicator(condition string) string {
	return t.B.Op("Cast", []string{condition}, onnx.I("to", int64(onnx.Float)))
}

// zeros is a tensor of a shape, without its elements in the file.
func (t *Tape) zeros(shape ...int64) string { return t.expand(t.float(0), shape...) }

// reshape takes a zero for what it is: an axis without elements.
func (t *Tape) reshape(a string, shape ...int64) string {
	if whole, ok := t.reshaped[a]; ok {
		a = whole
	}
	y := t.B.Op("Reshape", []string{a, t.B.Int64s(t.open(shape, -1)...)}, onnx.I("allowzero", flag(slices.Contains(shape, 0))))
	t.reshaped[y] = a
	return y
}

// Flat emits the elements of a tensor as a vector.
func (t *Tape) Flat(a string) string { return t.reshape(a, -1) }

// reshapeLike gives a the shape of a source value.
func (t *Tape) reshapeLike(a, value string) string { return t.reshape(a, dims(t.Shape(value))...) }

func (t *Tape) transpose(a string, perm ...int64) string {
	return t.B.Op("Transpose", []string{a}, onnx.Is("perm", perm...))
}

func (t *Tape) expand(a string, shape ...int64) string {
	return t.op("Expand", a, t.sizes(shape))
}

func (t *Tape) sum(a string, keep bool, axes ...int64) string {
	return t.B.Op("ReduceSum", []string{a, t.B.Int64s(axes...)}, onnx.I("keepdims", flag(keep)))
}

func (t *Tape) mean(a string, keep bool, axes ...int64) string {
	return t.B.Op("ReduceMean", []string{a}, onnx.Is("axes", axes...), onnx.I("keepdims", flag(keep)))
}

// slice keeps [start, end) along one axis.
func (t *Tape) slice(a string, axis, start, end int64) string {
	return t.op("Slice", a, t.B.Int64s(start), t.B.Int64s(end), t.B.Int64s(axis))
}

// flip reverses the order along the axes.
func (t *Tape) flip(a string, axes ...int64) string {
	n := len(axes)
	first, last, step := make([]int64, n), make([]int64, n), make([]int64, n)
	for i := range axes {
		first[i], last[i], step[i] = -1, -1<<31, -1
	}
	return t.op("Slice", a, t.B.Int64s(first...), t.B.Int64s(last...), t.B.Int64s(axes...), t.B.Int64s(step...))
}

// pad adds (or with negative numbers removes) elements: begins of all axes, then ends. The new elements are zero.
func (t *Tape) pad(a string, pads ...int64) string {
	if !slices.ContainsFunc(pads, func(p int64) bool { return p != 0 }) {
		return a
	}
	return t.op("Pad", a, t.B.Int64s(pads...))
}

// unbroadcast sums a gradient of shape from down to the shape of an operand that was broadcast to it.
func (t *Tape) unbroadcast(g string, from, to []int64) string {
	if slices.Equal(from, to) {
		return g
	}
	lead := len(from) - len(to)
	var axes []int64
	for i := range from {
		if i < lead || (to[i-lead] == 1 && from[i] != 1) {
			axes = append(axes, int64(i))
		}
	}
	if len(axes) > 0 {
		g = t.sum(g, false, axes...)
	}
	return t.reshape(g, dims(to)...)
}

// along multiplies by a constant matrix [rows, columns] along one axis, whose size it changes from columns to rows.
func (t *Tape) along(a string, shape []int64, axis int, matrix string, rows int64) string {
	outer, inner := size(shape[:axis]), size(shape[axis+1:])
	flat := t.op("MatMul", matrix, t.reshape(a, outer, shape[axis], inner))
	return t.reshape(flat, with(shape, axis, rows)...)
}

// with is a shape with one dimension changed.
func with(shape []int64, axis int, n int64) []int64 {
	s := slices.Clone(shape)
	s[axis] = n
	return s
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func size(shape []int64) int64 {
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	return n
}

// dims returns a shape as Reshape takes it.
func dims(shape []int64) []int64 { return slices.Clone(shape) }

// axis resolves a negative axis.
func axis(a int64, rank int) int64 {
	if a < 0 {
		return a + int64(rank)
	}
	return a
}

func sequence(n int) []int64 {
	s := make([]int64, n)
	for i := range s {
		s[i] = int64(i)
	}
	return s
}
