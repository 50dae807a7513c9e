package reference

import "slices"

// window is how a kernel moves over the spatial dimensions of its input [N, C, spatial...].
type window struct {
	kernel, stride, dilation, begin, end []int64 // per spatial dimension; begin and end are paddings
}

// windowOf reads the attributes of convolutions and pools, with auto_pad resolved for an input of these spatial sizes. Where a stride
// exceeds the kernel, SAME means negative padding for a pool, by the standard's formula, and none for a convolution (which has no
// formula there; this is what ONNX Runtime and TensorFlow do).
func windowOf(c *call, kernel, in []int64) window {
	ones := slices.Repeat([]int64{1}, len(in))
	pads := c.Ints("pads", make([]int64, 2*len(in))...)
	w := window{
		kernel: c.Ints("kernel_shape", kernel...), stride: c.Ints("strides", ones...), dilation: c.Ints("dilations", ones...),
		begin: slices.Clone(pads[:len(in)]), end: slices.Clone(pads[len(in):]),
	}
	mode := c.String("auto_pad", "NOTSET")
	for i := range in {
		switch mode {
		case "VALID":
			w.begin[i], w.end[i] = 0, 0
		case "SAME_UPPER", "SAME_LOWER":
			out := (in[i] + w.stride[i] - 1) / w.stride[i]
			total := (out-1)*w.stride[i] + w.extent(i) - in[i]
			if total < 0 && (c.Op == "Conv" || c.Op == "ConvTranspose") {
				total = 0
			}
			w.begin[i], w.end[i] = total/2, total-total/2
			if mode == "SAME_LOWER" {
				w.begin[i], w.end[i] = w.end[i], w.begin[i]
			}
		}
	}
	return w
}

// extent is how far the kernel reaches along dimension i.
func (w window) extent(i int) int64 { return (w.kernel[i]-1)*w.dilation[i] + 1 }

// outputs are the spatial sizes that result. With ceil, a last window that begins inside of the input or its first padding counts
// though it ends beyond.
func (w window) outputs(in []int64, ceil bool) []int64 {
	out := make([]int64, len(in))
	for i := range in {
		span := in[i] + w.begin[i] + w.end[i] - w.extent(i)
		if span < 0 {
			fail("a window of %d is larger than the padded input of %d", w.extent(i), in[i]+w.begin[i]+w.end[i])
		}
		out[i] = span/w.stride[i] + 1
		if ceil && span%w.stride[i] != 0 && out[i]*w.stride[i] < in[i]+w.begin[i] {
			out[i]++
		}
	}
	return out
}

// place is the input position below kernel position k of the window at output position o, per dimension; inside tells whether it is in
// the input rather than in the padding.
func (w window) place(o, k, in, position []int64) (inside bool) {
	inside = true
	for i := range in {
		position[i] = o[i]*w.stride[i] - w.begin[i] + k[i]*w.dilation[i]
		inside = inside && position[i] >= 0 && position[i] < in[i]
	}
	return inside
}
