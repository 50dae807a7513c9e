package reference

import "grindstone/sanitize/onnx"

// ONNX Runtime's own operators, which gradients for its CPU provider use: FusedConv, and those on channels in blocks. A blocked tensor is
// [N, C/Block, H, W, Block] in memory and has the shape [N, C, H, W].

// Block is the number of channels in a block. The runtime's depends on the processor.
var Block int64 = 8

var own = map[string]map[string]kernel{
	onnx.Contrib: {"FusedConv": fusedConv},
	onnx.NCHWc:   {"ReorderInput": reorderInput, "ReorderOutput": reorderOutput, "Conv": blockedConv},
}

// fusedConv is a Conv without an activation, to which a fourth input is added.
func fusedConv(c *call) []*Tensor {
	y := conv(c)
	if sum := c.arg(3); sum != nil {
		for i, v := range sum.F {
			y[0].F[i] += v
		}
	}
	return y
}

func reorderInput(c *call) []*Tensor { return one(reorder(c.in[0], true)) }

func reorderOutput(c *call) []*Tensor {
	if got, want := c.in[0].Shape[1], c.Int("channels", 0); got != want {
		fail("%d channels of %d", want, got)
	}
	return one(reorder(c.in[0], false))
}

// blockedConv: every channel by itself, or all with all, which is what gradients use.
func blockedConv(c *call) []*Tensor {
	x, w := c.in[0], c.in[1].Clone()
	switch group := c.Int("group", 1); {
	case len(c.in) > 2:
		fail("a convolution with a bias")
	case group == 1:
		w = filters(w)
	case group == x.Shape[1] && w.Shape[0] == group:
		w.Shape = []int64{1, w.Shape[0], w.Shape[2], w.Shape[3]} // its channels are the first axis
		w = reorder(w, false)
		w.Shape = c.in[1].Shape
	default:
		fail("a convolution of %d groups of %d channels", group, x.Shape[1])
	}
	plain := &call{Node: c.Node, in: []*Tensor{reorder(x, false), w}}
	return one(reorder(conv(plain)[0], true))
}

// filters brings [K/Block, C/Block, R, S, C's block, K's block] into the order of its shape, [K, C, R, S].
func filters(x *Tensor) *Tensor {
	k, c, area := x.Shape[0], x.Shape[1], x.Shape[2]*x.Shape[3]
	if k%Block != 0 || c%Block != 0 {
		fail("shape %v cannot be divided into blocks of %d channels", x.Shape, Block)
	}
	y := newFloats(x.Shape)
	for i := range k * c * area {
		out, in, at := i/(c*area), i/area%c, i%area
		y.F[i] = x.F[(((out/Block*(c/Block)+in/Block)*area+at)*Block+in%Block)*Block+out%Block]
	}
	return y
}

// reorder brings [N, C, H, W] into blocks, or back.
func reorder(x *Tensor, in bool) *Tensor {
	if len(x.Shape) != 4 || x.Shape[1]%Block != 0 {
		fail("shape %v cannot be divided into blocks of %d channels", x.Shape, Block)
	}
	y := newFloats(x.Shape)
	area := x.Shape[2] * x.Shape[3]
	for i := range y.F {
		at, lane := int64(i)/(area*Block), int64(i)%(area*Block)
		from := at*area*Block + lane/Block + lane%Block*area // y is in blocks
		if !in {
			from = at*area*Block + lane%area*Block + lane/area
		}
		y.F[i] = x.F[from]
	}
	return y
}
