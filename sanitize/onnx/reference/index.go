package reference

import "slices"

func size(shape []int64) int64 {
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	return n
}

// newFloats and newInts make zero tensors; newLike one with elements of the same kind as t.
func newFloats(shape []int64) *Tensor {
	return Floats(slices.Clone(shape), make([]float64, size(shape)))
}

func newInts(shape []int64) *Tensor { return Ints(slices.Clone(shape), make([]int64, size(shape))) }

func newLike(t *Tensor, shape []int64) *Tensor {
	if t.F != nil {
		return newFloats(shape)
	}
	return newInts(shape)
}

// reshaped is the same elements under another shape.
func (t *Tensor) reshaped(shape ...int64) *Tensor {
	if size(shape) != size(t.Shape) {
		fail("shape %v does not hold the elements of shape %v", shape, t.Shape)
	}
	return &Tensor{Shape: shape, F: t.F, I: t.I}
}

// set copies element j of src to element i.
func (t *Tensor) set(i int64, src *Tensor, j int64) {
	if t.F != nil {
		t.F[i] = src.F[j]
	} else {
		t.I[i] = src.I[j]
	}
}

// ints are the elements of an integer tensor, def where it is omitted.
func (t *Tensor) ints(def ...int64) []int64 {
	if t == nil {
		return def
	}
	return t.I
}

func strides(shape []int64) []int64 {
	s := make([]int64, len(shape))
	step := int64(1)
	for i := len(shape) - 1; i >= 0; i-- {
		s[i] = step
		step *= shape[i]
	}
	return s
}

// each visits all indices of a shape in row-major order. The visitor must not keep or change the index.
func each(shape []int64, visit func(index []int64)) {
	if size(shape) == 0 {
		return
	}
	index := make([]int64, len(shape))
	for {
		visit(index)
		i := len(shape) - 1
		for ; i >= 0; i-- {
			if index[i]++; index[i] < shape[i] {
				break
			}
			index[i] = 0
		}
		if i < 0 {
			return
		}
	}
}

// offset is the position of an index, whose last dimensions are matched with shape's as broadcasting does: a dimension of 1 is repeated.
func offset(shape, index []int64) int64 {
	at, step := int64(0), int64(1)
	shift := len(index) - len(shape)
	for i := len(shape) - 1; i >= 0; i-- {
		if shape[i] != 1 {
			at += index[i+shift] * step
		}
		step *= shape[i]
	}
	return at
}

// broadcast is the common shape of several (https://onnx.ai/onnx/repo-docs/Broadcasting.html).
func broadcast(shapes ...[]int64) []int64 {
	rank := 0
	for _, s := range shapes {
		rank = max(rank, len(s))
	}
	out := slices.Repeat([]int64{1}, rank)
	for _, s := range shapes {
		for i, d := range s {
			at := &out[rank-len(s)+i]
			switch {
			case *at == 1:
				*at = d
			case d != 1 && d != *at:
				fail("shapes %v do not broadcast", shapes)
			}
		}
	}
	return out
}

// axisOf counts a negative axis from the end.
func axisOf(axis int64, rank int) int {
	if axis < 0 {
		axis += int64(rank)
	}
	if axis < 0 || axis >= int64(rank) {
		fail("axis %d of rank %d", axis, rank)
	}
	return int(axis)
}

func axesOf(axes []int64, rank int) []int {
	out := make([]int, len(axes))
	for i, a := range axes {
		out[i] = axisOf(a, rank)
	}
	return out
}

// split3 views a shape as [before the axis, the axis, after it].
func split3(shape []int64, axis int) (outer, n, inner int64) {
	return size(shape[:axis]), shape[axis], size(shape[axis+1:])
}

// with is shape with one dimension changed.
func with(shape []int64, axis int, n int64) []int64 {
	s := slices.Clone(shape)
	s[axis] = n
	return s
}
