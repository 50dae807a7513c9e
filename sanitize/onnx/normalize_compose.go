package onnx

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Operators that opset 17 does not know, spelled out in those that it knows.

var compositions = map[string]step{
	"Attention":          {(*upgrade).attention, "since 23: two MatMuls around Softmax; no key-value cache, no grouped heads"},
	"Col2Im":             {(*upgrade).col2Im, "since 18: ConvTranspose with unit filters"},
	"Gelu":               {(*upgrade).gelu, "since 20: by Erf or Tanh"},
	"GroupNormalization": {(*upgrade).groupNormalization, "since 18: by InstanceNormalization of the groups, or what it is made of"},
	"Hardmax":            {(*upgrade).softmax, "flattened to two dimensions until 12"},
	"LogSoftmax":         {(*upgrade).softmax, "flattened to two dimensions until 12"},
	"Mish":               {(*upgrade).mish, "since 18: by Softplus and Tanh"},
	"RMSNormalization":   {(*upgrade).rmsNormalization, "since 23: by ReduceMean and Sqrt"},
	"SequenceAt":         {(*upgrade).sequenceAt, "of SplitToSequence, at a constant position: Slice"},
	"Softmax":            {(*upgrade).softmax, "flattened to two dimensions until 12"},
	"SplitToSequence":    {(*upgrade).splitToSequence, "read by SequenceAt alone"},
	"SwiGLU":             {(*upgrade).swish, "since 28: Swish and Mul"},
	"Swish":              {(*upgrade).swish, "since 24: by Sigmoid"},
}

// softmax: until opset 12 the input was flattened to two dimensions at the axis, which defaulted to 1. That is spelled out, except for
// the Softmax that closes a classifier, whose input has two dimensions.
func (u *upgrade) softmax(n *Node) (*Node, error) {
	if u.version >= 13 {
		return n, nil
	}
	axis := n.Int("axis", 1)
	c := n.replace(n.Inputs, "axis")
	if u.closes(n.Output(0)) {
		if axis != 1 && axis != -1 {
			return nil, fmt.Errorf("axis %d at opset %d is not supported", axis, u.version)
		}
		c.Attrs = append(c.Attrs, I("axis", axis))
		return c, nil
	}
	x, out := n.Inputs[0], n.Output(0)
	flat, rows, shape := u.fresh(out, "flat"), u.fresh(out, "rows"), u.fresh(out, "shape")
	c.Inputs, c.Outputs, c.Attrs = []string{flat}, []string{rows}, append(c.Attrs, I("axis", 1))
	u.graph.Nodes = append(u.graph.Nodes,
		&Node{Name: n.Name + "/flatten", Op: "Flatten", Inputs: []string{x}, Outputs: []string{flat}, Attrs: []*Attr{I("axis", axis)}},
		&Node{Name: n.Name + "/shape", Op: "Shape", Inputs: []string{x}, Outputs: []string{shape}}, c)
	return &Node{Name: n.Name + "/restore", Op: "Reshape", Inputs: []string{rows, shape}, Outputs: n.Outputs[:1]}, nil
}

// gelu: x*P(z <= x) for a standard normal z, or its approximation by the hyperbolic tangent (Hendrycks and Gimpel 2016).
func (u *upgrade) gelu(n *Node) (*Node, error) {
	x := n.Inputs[0]
	half := u.op(n, "Mul", []string{x, u.scalar(n, "half", 0.5)})
	var bend string
	if n.String("approximate", "none") == "tanh" {
		cube := u.op(n, "Mul", []string{u.op(n, "Mul", []string{x, x}), u.op(n, "Mul", []string{x, u.scalar(n, "cubic", 0.044715)})})
		bend = u.op(n, "Tanh", []string{u.op(n, "Mul", []string{u.op(n, "Add", []string{x, cube}), u.scalar(n, "scale", float32(math.Sqrt(2/math.Pi)))})})
	} else {
		bend = u.op(n, "Erf", []string{u.op(n, "Mul", []string{x, u.scalar(n, "scale", float32(math.Sqrt2/2))})})
	}
	return n.last("Mul", []string{half, u.op(n, "Add", []string{bend, u.scalar(n, "one", 1)})})
}

// mish: x*tanh(softplus(x)) (Misra 2019).
func (u *upgrade) mish(n *Node) (*Node, error) {
	return n.last("Mul", []string{n.Inputs[0], u.op(n, "Tanh", []string{u.op(n, "Softplus", n.Inputs[:1])})})
}

// swish: x*sigmoid(alpha*x) (Ramachandran et al. 2017); SwiGLU multiplies that by its second input.
func (u *upgrade) swish(n *Node) (*Node, error) {
	x := n.Inputs[0]
	gate := x
	if alpha := n.Float("alpha", 1); alpha != 1 {
		gate = u.op(n, "Mul", []string{x, u.scalar(n, "alpha", alpha)})
	}
	gate = u.op(n, "Sigmoid", []string{gate})
	if n.Op == "SwiGLU" {
		return n.last("Mul", []string{u.op(n, "Mul", []string{x, gate}), n.Inputs[1]})
	}
	return n.last("Mul", []string{x, gate})
}

// groupNormalization (Wu and He 2018). At opset 18 scale and shift are per group: InstanceNormalization, where groups stand for channels.
// Since 21 they are per channel and are applied with the channels last, where they broadcast as they are.
func (u *upgrade) groupNormalization(n *Node) (*Node, error) {
	groups, x := n.Int("num_groups", 0), n.Inputs[0]
	if groups <= 0 {
		return nil, errors.New("num_groups is missing")
	}
	shape := u.op(n, "Shape", []string{x})
	rows := u.op(n, "Reshape", []string{x, u.ints(n, "groups", []int64{0, groups, -1})})
	epsilon := n.Float("epsilon", 1e-5)
	if u.version < 21 {
		y := u.op(n, "InstanceNormalization", []string{rows, n.Input(1), n.Input(2)}, F("epsilon", epsilon))
		return n.last("Reshape", []string{y, shape})
	}
	centered := u.op(n, "Sub", []string{rows, u.op(n, "ReduceMean", []string{rows}, Is("axes", 2))})
	y := u.op(n, "Div", []string{centered, u.rootMeanSquare(n, centered, epsilon, 2)})
	channels := u.op(n, "Concat", []string{u.ints(n, "batch", []int64{0}), u.op(n, "Shape", []string{n.Input(1)}), u.ints(n, "rest", []int64{-1})}, I("axis", 0))
	y = u.op(n, "Transpose", []string{u.op(n, "Reshape", []string{y, channels})}, Is("perm", 0, 2, 1))
	y = u.op(n, "Add", []string{u.op(n, "Mul", []string{y, n.Input(1)}), n.Input(2)})
	return n.last("Reshape", []string{u.op(n, "Transpose", []string{y}, Is("perm", 0, 2, 1)), shape})
}

// rootMeanSquare is sqrt(mean(x*x) + epsilon) over the axes, which stay with size 1.
func (u *upgrade) rootMeanSquare(n *Node, x string, epsilon float32, axes ...int64) string {
	mean := u.op(n, "ReduceMean", []string{u.op(n, "Mul", []string{x, x})}, Is("axes", axes...))
	return u.op(n, "Sqrt", []string{u.op(n, "Add", []string{mean, u.scalar(n, "epsilon", epsilon)})})
}

// rmsNormalization (Zhang and Sennrich 2019): x/sqrt(mean(x*x) + epsilon)*scale over the axes from the attribute's on.
func (u *upgrade) rmsNormalization(n *Node) (*Node, error) {
	x, axis := n.Inputs[0], n.Int("axis", -1)
	rank := int64(u.rank(x))
	if axis >= 0 {
		if rank < 0 {
			return nil, fmt.Errorf("axis %d of an input of unknown rank", axis)
		}
		axis -= rank
	}
	var axes []int64
	for a := axis; a < 0; a++ {
		axes = append(axes, a)
	}
	return n.last("Mul", []string{u.op(n, "Div", []string{x, u.rootMeanSquare(n, x, n.Float("epsilon", 1e-5), axes...)}), n.Input(1)})
}

// col2Im adds blocks up into images: [N, C*block, L] to [N, C, image]. A ConvTranspose does that whose filter for each position of the block is
// one there and zero elsewhere, with every channel as an image of its own.
func (u *upgrade) col2Im(n *Node) (*Node, error) {
	imageShape, blockShape := u.initializer(n.Input(1)), u.initializer(n.Input(2))
	if imageShape == nil || blockShape == nil {
		return nil, errors.New("image or block shape is not constant")
	}
	image, block := imageShape.Ints(), blockShape.Ints()
	d := len(block)
	ones := slices.Repeat([]int64{1}, d)
	strides, dilations, pads := n.Ints("strides", ones...), n.Ints("dilations", ones...), n.Ints("pads", make([]int64, 2*d)...)
	if len(image) != d || len(strides) != d || len(dilations) != d || len(pads) != 2*d {
		return nil, fmt.Errorf("image %v and block %v do not fit the attributes", image, block)
	}
	size := int64(1)
	for _, b := range block {
		size *= b
	}
	columns, extra := []int64{-1, size}, make([]int64, d)
	for i := range d {
		reach := (block[i]-1)*dilations[i] + 1
		free := image[i] + pads[i] + pads[d+i] - reach
		if free < 0 {
			return nil, fmt.Errorf("block %v does not fit image %v", block, image)
		}
		columns, extra[i] = append(columns, free/strides[i]+1), free%strides[i]
	}
	unit := u.constant(n, "unit", func(name string) *Tensor {
		v := make([]float32, size*size)
		for i := range size {
			v[i*size+i] = 1
		}
		return NewFloat(name, append([]int64{size, 1}, block...), v)
	})
	apart := u.op(n, "Reshape", []string{n.Inputs[0], u.ints(n, "columns", columns)})
	images := u.op(n, "ConvTranspose", []string{apart, unit}, Is("strides", strides...), Is("dilations", dilations...), Is("pads", pads...), Is("output_padding", extra...))
	batch := u.op(n, "Shape", []string{n.Inputs[0]}, I("end", 1))
	return n.last("Reshape", []string{images, u.op(n, "Concat", []string{batch, u.ints(n, "image", append([]int64{-1}, image...))}, I("axis", 0))})
}
