package grad

import "grindstone/sanitize/onnx"

// maxPoolForward keeps the indices of the maxima: flat positions in the whole input tensor.
func maxPoolForward(t *Tape, n *onnx.Node) {
	t.Save(n.Outputs[0], t.Copy(n, 2)[1])
}

// maxPoolGrad adds each output's gradient at the position of its maximum.
func maxPoolGrad(t *Tape, n *onnx.Node, dy []string) []string {
	in := t.Shape(n.Inputs[0])
	zero := t.expand(t.B.Floats([]int64{1}, []float32{0}), size(in))
	at := t.reshape(t.Saved(n.Outputs[0])[0], -1)
	flat := t.B.Op("ScatterElements", []string{zero, at, t.reshape(dy[0], -1)}, onnx.I("axis", 0), onnx.S("reduction", "add"))
	return []string{t.reshape(flat, in...)}
}

func globalAveragePoolGrad(t *Tape, n *onnx.Node, dy []string) []string {
	in := t.Shape(n.Inputs[0])
	return []string{t.expand(t.scale(dy[0], 1/float64(size(in[2:]))), in...)}
}

// averagePoolGrad spreads each output's gradient evenly over its window. Windows that do not overlap are copies; overlapping ones
// are a transposed convolution, channel by channel, with ones.
func averagePoolGrad(t *Tape, n *onnx.Node, dy []string) []string {
	in, out := t.Shape(n.Inputs[0]), t.Shape(n.Outputs[0])
	d := len(in) - 2
	kernel, stride := n.Ints("kernel_shape"), orOnes(n.Ints("strides"), d)
	pads := n.Ints("pads")
	if pads == nil {
		pads = make([]int64, 2*d)
	}
	before, after := pads[:d], pads[d:]

	tiles := true
	for i := range d {
		tiles = tiles && kernel[i] == stride[i] && before[i] == 0 && after[i] == 0 && out[2+i]*kernel[i] <= in[2+i]
	}
	if tiles {
		return []string{t.averagePoolTiles(dy[0], in, out, kernel)}
	}

	g := t.div(dy[0], t.poolCounts(in, out, kernel, stride, before, after, n.Int("count_include_pad", 0) == 1))
	// All channels as one batch of single-channel images.
	g = t.reshape(g, append([]int64{-1, 1}, out[2:]...)...)
	ones := make([]float32, size(kernel))
	for i := range ones {
		ones[i] = 1
	}
	window := t.B.Floats(append([]int64{1, 1}, kernel...), ones)
	g = t.B.Op("ConvTranspose", []string{g, window}, onnx.Is("kernel_shape", kernel...), onnx.Is("strides", stride...))
	// The transposed convolution covers the padded input up to the last window's end: cut the padding, fill what no window reached.
	fit := make([]int64, 2*(d+2))
	for i := range d {
		covered := (out[2+i]-1)*stride[i] + kernel[i]
		fit[2+i] = -before[i]
		fit[d+4+i] = in[2+i] + before[i] - covered
	}
	return []string{t.reshape(t.pad(g, fit...), in...)}
}

func (t *Tape) averagePoolTiles(dy string, in, out, kernel []int64) string {
	d := len(kernel)
	split, wide := []int64{in[0], in[1]}, []int64{in[0], in[1]}
	whole := []int64{in[0], in[1]}
	for i := range d {
		split = append(split, out[2+i], 1)
		wide = append(wide, out[2+i], kernel[i])
		whole = append(whole, out[2+i]*kernel[i])
	}
	g := t.reshape(t.expand(t.reshape(t.scale(dy, 1/float64(size(kernel))), split...), wide...), whole...)
	rest := make([]int64, 2*(d+2))
	for i := range d {
		rest[d+4+i] = in[2+i] - whole[2+i]
	}
	return t.pad(g, rest...)
}

// poolCounts is the number of elements that each output averages, shape [1, 1, out...].
func (t *Tape) poolCounts(in, out, kernel, stride, before, after []int64, includePad bool) string {
	counts := []float32{1}
	for i := range kernel {
		var next []float32
		for _, c := range counts {
			for o := range out[2+i] {
				start := o*stride[i] - before[i]
				end := start + kernel[i]
				if includePad {
					end = min(end, in[2+i]+after[i])
				} else {
					start, end = max(start, 0), min(end, in[2+i])
				}
				next = append(next, c*float32(end-start))
			}
		}
		counts = next
	}
	return t.B.Floats(append([]int64{1, 1}, out[2:]...), counts)
}
