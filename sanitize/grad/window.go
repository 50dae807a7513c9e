package grad

import (
	"slices"

	"grindstone/sanitize/onnx"
)

// ResolvePadding returns a convolution or pooling node with the pads that its auto_pad (or, for ConvTranspose, output_shape) means at these
// shapes, which is what gradient rules are written for; any other node is returned as it is, and so is a pool with strides so much longer than its
// kernel that SAME stands for negative padding, which no pads can say.
// An output_shape beyond what the windows reach becomes output_padding.
// (https://onnx.ai/onnx/operators/onnx__Conv.html: with SAME the output is the input's size divided by the stride, rounded up.)
func ResolvePadding(n *onnx.Node, shapes map[string][]int64) *onnx.Node {
	var kernel []int64
	switch {
	case n.Domain != "":
		return n
	case n.Op == "Conv", n.Op == "ConvTranspose":
		kernel = shapes[n.Inputs[1]][2:]
	case n.Op == "AveragePool", n.Op == "MaxPool", n.Op == "LpPool":
		kernel = n.Ints("kernel_shape")
	default:
		return n
	}
	n = withoutCeil(n, shapes)
	mode, asked := n.String("auto_pad", "NOTSET"), n.Ints("output_shape")
	if mode == "NOTSET" && asked == nil {
		return n
	}
	in, d := shapes[n.Inputs[0]][2:], len(kernel)
	stride, dilation, extra := orOnes(n.Ints("strides"), d), orOnes(n.Ints("dilations"), d), slices.Clone(n.Ints("output_padding", make([]int64, d)...))
	pads := make([]int64, 2*d)
	for k := range d {
		reach := (kernel[k]-1)*dilation[k] + 1
		var total int64
		switch {
		case n.Op == "ConvTranspose" && (asked != nil || mode != "VALID"):
			out := in[k] * stride[k]
			if asked != nil {
				out = asked[len(asked)-d+k]
			}
			total = stride[k]*(in[k]-1) + extra[k] + reach - out
		case mode == "SAME_UPPER" || mode == "SAME_LOWER":
			out := (in[k] + stride[k] - 1) / stride[k]
			if total = (out-1)*stride[k] + reach - in[k]; total <= -2 && n.Op != "Conv" {
				return n // the runtime moves such windows, as negative padding would
			}
		}
		if asked != nil && total < 0 {
			extra[k] -= total
		}
		total = max(total, 0)
		pads[k], pads[d+k] = total/2, total-total/2 // the odd element goes to the end with SAME_UPPER
		lower := mode == "SAME_LOWER"
		if n.Op == "ConvTranspose" { // for an output it is removed from the begin with all but SAME_UPPER
			lower = mode != "SAME_UPPER"
		}
		if lower {
			pads[k], pads[d+k] = pads[d+k], pads[k]
		}
	}
	changed := *n
	changed.Attrs = slices.DeleteFunc(slices.Clone(n.Attrs), func(a *onnx.Attr) bool {
		return a.Name == "auto_pad" || a.Name == "pads" || a.Name == "output_shape" || a.Name == "output_padding"
	})
	changed.Attrs = append(changed.Attrs, onnx.Is("pads", pads...))
	if n.Op == "ConvTranspose" {
		changed.Attrs = append(changed.Attrs, onnx.Is("output_padding", extra...))
	}
	return &changed
}

// withoutCeil drops an AveragePool's ceil_mode where all windows end within the padding.
func withoutCeil(n *onnx.Node, shapes map[string][]int64) *onnx.Node {
	if n.Op != "AveragePool" || n.Int("ceil_mode", 0) == 0 || n.String("auto_pad", "NOTSET") != "NOTSET" {
		return n
	}
	in, out, kernel := shapes[n.Inputs[0]][2:], shapes[n.Outputs[0]][2:], n.Ints("kernel_shape")
	d := len(kernel)
	stride, pads := orOnes(n.Ints("strides"), d), n.Ints("pads", make([]int64, 2*d)...)
	for i := range d {
		if (out[i]-1)*stride[i]+kernel[i] > in[i]+pads[i]+pads[d+i] {
			return n
		}
	}
	changed := *n
	changed.Attrs = slices.DeleteFunc(slices.Clone(n.Attrs), func(a *onnx.Attr) bool { return a.Name == "ceil_mode" })
	return &changed
}

// overhang refuses windows that end beyond padding that counts: runtimes divide by different numbers.
func overhang(n *onnx.Node) string {
	if n.Int("ceil_mode", 0) != 0 && n.Int("count_include_pad", 0) != 0 {
		return "ceil_mode, count_include_pad and windows that end beyond the padding"
	}
	return ""
}

// unresolved refuses padding that ResolvePadding has left.
func unresolved(n *onnx.Node) string {
	if mode := n.String("auto_pad", "NOTSET"); mode != "NOTSET" {
		return "auto_pad=" + mode + " and strides longer than the kernel"
	}
	if n.Attr("output_shape") != nil {
		return "output_shape"
	}
	return ""
}

// either joins reasons to refuse a node: the first that there is.
func either(reasons ...func(*onnx.Node) string) func(*onnx.Node) string {
	return func(n *onnx.Node) string {
		for _, reason := range reasons {
			if r := reason(n); r != "" {
				return r
			}
		}
		return ""
	}
}
