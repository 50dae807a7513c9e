package onnx

import "slices"

// maxFolded is the number of integers up to which fold works: axes and shapes have a handful, and a hostile file could join lists over and over.
const maxFolded = 1 << 10

// fold computes a node that moves integers which are constants, and returns what it makes; nil for any other node. Exporters that fold no
// constants write axes and shapes that way, where opset 17 wants attributes. Floats stay as they are: they are weights.
func (u *upgrade) fold(n *Node) *Tensor {
	if n.Domain != "" || len(n.Outputs) != 1 || len(n.Inputs) == 0 {
		return nil
	}
	var in [][]int64 // of each input, its elements
	for _, name := range n.Inputs {
		t := u.initializer(name)
		if t == nil || t.Type != Int64 || t.Len() > maxFolded {
			return nil
		}
		in = append(in, t.Ints())
	}
	shape, data := u.initializer(n.Inputs[0]).Shape, in[0]
	switch {
	case n.Op == "Identity":
	case n.Op == "Reshape" && len(in) == 2:
		shape = reshaped(shape, int64(len(data)), in[1], n.Int("allowzero", 0) != 0)
	case n.Op == "Squeeze":
		shape = squeezed(shape, slices.Concat(in[1:]...))
	case n.Op == "Unsqueeze" && len(in) == 2:
		shape = unsqueezed(shape, in[1])
	case n.Op == "Concat":
		if data = slices.Concat(in...); len(shape) != 1 || len(data) > maxFolded {
			return nil
		}
		shape = []int64{int64(len(data))}
	default:
		return nil
	}
	if n.Op != "Identity" && shape == nil {
		return nil
	}
	return NewInt64(n.Outputs[0], shape, data)
}

// squeezed is a shape without the axes, or without all those of length 1; nil if that cannot be.
func squeezed(from, axes []int64) []int64 {
	shape := []int64{}
	for i, d := range from {
		asked := slices.Contains(axes, int64(i)) || slices.Contains(axes, int64(i-len(from)))
		switch {
		case asked && d != 1:
			return nil
		case !asked && (len(axes) > 0 || d != 1):
			shape = append(shape, d)
		}
	}
	return shape
}

// unsqueezed is a shape with an axis of length 1 at each of the places, counted in the result; nil if that cannot be.
func unsqueezed(from, axes []int64) []int64 {
	rank := len(from) + len(axes)
	shape := make([]int64, 0, rank)
	for i := range rank {
		if slices.Contains(axes, int64(i)) || slices.Contains(axes, int64(i-rank)) {
			shape = append(shape, 1)
			continue
		}
		if len(from) == 0 {
			return nil
		}
		shape, from = append(shape, from[0]), from[1:]
	}
	if len(from) > 0 {
		return nil
	}
	return shape
}

// reshaped is the shape that Reshape gives to so many elements, nil if they do not fill it.
func reshaped(from []int64, elements int64, to []int64, allowZero bool) []int64 {
	shape, open, product := []int64{}, -1, int64(1)
	for i, d := range to {
		switch {
		case d == 0 && !allowZero && i < len(from):
			d = from[i]
		case d == -1 && open < 0:
			open, d = i, 1
		case d < 1:
			return nil
		}
		shape = append(shape, d)
		if product *= d; product < 0 || product > elements {
			return nil
		}
	}
	if open >= 0 && product > 0 {
		shape[open] = elements / product
		product *= shape[open]
	}
	if product != elements {
		return nil
	}
	return shape
}
