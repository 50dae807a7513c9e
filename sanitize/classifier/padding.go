package classifier

import (
	"slices"

	"grindstone/sanitize/onnx"
)

// resolvePadding replaces auto_pad by the pads that it means at the model's image size, which is what gradient rules are written for.
// (https://onnx.ai/onnx/operators/onnx__Conv.html: with SAME the output is the input's size divided by the stride, rounded up.)
func (c *Classifier) resolvePadding() {
	for i, n := range c.Nodes {
		var kernel []int64
		switch n.Op {
		case "Conv":
			kernel = c.shapes[n.Inputs[1]][2:]
		case "AveragePool", "MaxPool":
			kernel = n.Ints("kernel_shape")
		default:
			continue
		}
		mode := n.String("auto_pad", "NOTSET")
		if mode == "NOTSET" {
			continue
		}
		in, d := c.shapes[n.Inputs[0]][2:], len(kernel)
		pads := make([]int64, 2*d)
		for k := range d {
			if mode == "VALID" {
				break
			}
			stride, dilation := at(n.Ints("strides"), k), at(n.Ints("dilations"), k)
			out := (in[k] + stride - 1) / stride
			total := max((out-1)*stride+(kernel[k]-1)*dilation+1-in[k], 0)
			pads[k], pads[d+k] = total/2, total-total/2
			if mode == "SAME_LOWER" {
				pads[k], pads[d+k] = pads[d+k], pads[k]
			}
		}
		changed := *n
		changed.Attrs = slices.DeleteFunc(slices.Clone(n.Attrs), func(a *onnx.Attr) bool { return a.Name == "auto_pad" || a.Name == "pads" })
		changed.Attrs = append(changed.Attrs, onnx.Is("pads", pads...))
		c.Nodes[i] = &changed
		if h := slices.Index(c.Head, n); h >= 0 {
			c.Head[h] = &changed
		}
	}
}

// at is an element of an optional list of strides or dilations.
func at(list []int64, i int) int64 {
	if list == nil {
		return 1
	}
	return list[i]
}
