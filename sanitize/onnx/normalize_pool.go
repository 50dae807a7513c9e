package onnx

import (
	"errors"
	"fmt"
	"slices"
)

// nothing is what a Pad is filled with that must stay: one filled with 0 would be made a part of the pool by ONNX Runtime, which then divides as it does.
const nothing = 1e-37

// averagePool: in ceil mode a window may end beyond the padding. With count_include_pad it divides by what it covers of the padded input, as
// PyTorch does, opset 19 says, and ONNX Runtime 1.32 computes at any opset; 1.27 divided by the whole window until opset 18, and by too little since. Without padding the
// attribute is dropped, after which all agree; with padding, a Pad comes first.
func (u *upgrade) averagePool(n *Node) (*Node, error) {
	if err := onlyOnes(n, "dilations"); err != nil {
		return nil, err
	}
	c := n.replace(n.Inputs, "dilations")
	if n.Int("ceil_mode", 0) == 0 || n.Int("count_include_pad", 0) == 0 {
		return c, nil
	}
	explicit := n.String("auto_pad", "NOTSET") == "NOTSET"
	padded := slices.ContainsFunc(n.Ints("pads"), func(p int64) bool { return p != 0 }) || !explicit && n.String("auto_pad", "") != "VALID"
	switch {
	case !padded:
		return c.replace(c.Inputs, "count_include_pad"), nil
	case explicit && len(n.Ints("pads")) == 2*len(n.Ints("kernel_shape")):
		d := len(n.Ints("kernel_shape"))
		pads := slices.Concat(make([]int64, 2), n.Ints("pads")[:d], make([]int64, 2), n.Ints("pads")[d:])
		padded := u.op(n, "Pad", []string{n.Inputs[0], u.ints(n, "pads", pads), u.scalar(n, "nothing", nothing)})
		c = c.replace([]string{padded}, "count_include_pad", "pads")
		if !beginInside(n) {
			return u.beginning(n, c)
		}
	case u.version >= 19:
		return nil, errors.New("ceil_mode with count_include_pad and auto_pad")
	}
	return c, nil
}

// beginning keeps of a pool over the padded input the windows that begin in the input or in the padding before it.
func (u *upgrade) beginning(n, pool *Node) (*Node, error) {
	d := len(n.Ints("kernel_shape"))
	strides := n.Ints("strides", slices.Repeat([]int64{1}, d)...)
	if len(strides) != d {
		return nil, fmt.Errorf("%d strides for %d dimensions", len(strides), d)
	}
	last, axes := slices.Clone(n.Ints("pads")[:d]), make([]int64, d)
	for i := range d {
		last[i]--
		axes[i] = int64(i) + 2
	}
	lengths := u.op(n, "Shape", n.Inputs[:1], I("start", 2))
	windows := u.op(n, "Div", []string{u.op(n, "Add", []string{lengths, u.ints(n, "last", last)}), u.ints(n, "strides", strides)})
	ends := u.op(n, "Add", []string{windows, u.ints(n, "one", []int64{1})})
	y := u.op(n, "AveragePool", pool.Inputs, pool.Attrs...)
	return n.last("Slice", []string{y, u.ints(n, "from", make([]int64, d)), ends, u.ints(n, "axes", axes)})
}

// beginInside reports whether no window of a pool begins in the padding behind the input, whatever its size. Such a window is left out; but not where
// the padding is part of the input. The last one begins less than a stride behind the last that fits.
func beginInside(n *Node) bool {
	kernel, pads := n.Ints("kernel_shape"), n.Ints("pads")
	strides := n.Ints("strides", slices.Repeat([]int64{1}, len(kernel))...)
	if len(pads) != 2*len(kernel) || len(strides) != len(kernel) {
		return false
	}
	for i, k := range kernel {
		if strides[i]+pads[len(kernel)+i] > k {
			return false
		}
	}
	return true
}
