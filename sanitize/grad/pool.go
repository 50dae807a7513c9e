package grad

import "grindstone/sanitize/onnx"

// Pooling. auto_pad must have been resolved.

// maxPoolForward keeps the indices of the maxima: flat positions in the whole input tensor, in row-major order.
func maxPoolForward(t *Tape, n *onnx.Node) {
	t.Save(n.Outputs[0], t.Copy(n, 2)[1])
}

// maxPoolGrad adds each output's gradient at the position of its maximum.
func maxPoolGrad(t *Tape, n *onnx.Node, dy []string) []string {
	in := t.Shape(n.Inputs[0])
	flat := t.scatterAdd(t.zeros(size(in)), t.reshape(t.Saved(n.Outputs[0])[0], -1), t.reshape(dy[0], -1), 0)
	return []string{t.reshape(flat, in...)}
}

// columnMajor refuses indices that count in another order than the elements lie.
func columnMajor(n *onnx.Node) string {
	if n.Int("storage_order", 0) != 0 {
		return "storage_order=1"
	}
	return ""
}

func globalAveragePoolGrad(t *Tape, n *onnx.Node, dy []string) []string {
	in := t.Shape(n.Inputs[0])
	return []string{t.expand(t.scale(dy[0], 1/float64(size(in[2:]))), in...)}
}

// globalMaxPoolGrad: the maxima share the gradient.
func globalMaxPoolGrad(t *Tape, n *onnx.Node, dy []string) []string {
	return []string{t.share(t.Ref(n.Inputs[0]), t.Ref(n.Outputs[0]), dy[0], sequence(len(t.Shape(n.Inputs[0])))[2:])}
}

// window is how a pool's kernel moves over the spatial dimensions.
type window struct {
	in, out                       []int64 // shapes, all dimensions
	kernel, stride, before, after []int64 // per spatial dimension; before and after are the paddings
}

func (t *Tape) window(n *onnx.Node) window {
	w := window{in: t.Shape(n.Inputs[0]), out: t.Shape(n.Outputs[0]), kernel: n.Ints("kernel_shape")}
	d := len(w.kernel)
	pads := n.Ints("pads", make([]int64, 2*d)...)
	w.stride, w.before, w.after = orOnes(n.Ints("strides"), d), pads[:d], pads[d:]
	return w
}

// averagePoolGrad spreads each output's gradient evenly over its window.
func averagePoolGrad(t *Tape, n *onnx.Node, dy []string) []string {
	w := t.window(n)
	if w.tiles() {
		return []string{t.spreadTiles(t.scale(dy[0], 1/float64(size(w.kernel))), w)}
	}
	if n.Int("count_include_pad", 0) == 1 {
		return []string{t.spreadWindows(t.scale(dy[0], 1/float64(size(w.kernel))), w)}
	}
	return []string{t.spreadWindows(t.div(dy[0], t.B.Floats(append([]int64{1, 1}, w.out[2:]...), w.counts())), w)}
}

// lpPoolGrad: y = (sum |x|^p)^(1/p), so dx = sign(x)*|x|^(p-1) * dy*y^(1-p), the last factor spread over the window.
func lpPoolGrad(t *Tape, n *onnx.Node, dy []string) []string {
	w := t.window(n)
	return []string{t.lpGrad(n, dy[0], func(g string) string { return t.spreadWindows(g, w) })}
}

// globalLpPoolGrad is lpPoolGrad with a window of the whole plane.
func globalLpPoolGrad(t *Tape, n *onnx.Node, dy []string) []string {
	return []string{t.lpGrad(n, dy[0], func(g string) string { return g })}
}

func (t *Tape) lpGrad(n *onnx.Node, dy string, spread func(string) string) string {
	x, y, p := t.Ref(n.Inputs[0]), t.Ref(n.Outputs[0]), n.Int("p", 2)
	switch p {
	case 1:
		return t.mul(t.op("Sign", x), spread(dy))
	case 2:
		return t.mul(x, spread(t.quotient(dy, y)))
	}
	power := t.op("Pow", t.op("Abs", x), t.float(float64(p-1)))
	return t.mul(t.mul(t.op("Sign", x), power), spread(t.quotient(dy, t.op("Pow", y, t.float(float64(p-1))))))
}

// tiles: the windows touch and do not overlap.
func (w window) tiles() bool {
	for i, k := range w.kernel {
		if k != w.stride[i] || w.before[i] != 0 || w.after[i] != 0 || w.out[2+i]*k > w.in[2+i] {
			return false
		}
	}
	return true
}

// spreadTiles copies each output's gradient over its window, where windows are tiles.
func (t *Tape) spreadTiles(dy string, w window) string {
	d := len(w.kernel)
	split, wide := dims(w.in[:2]), dims(w.in[:2])
	whole := dims(w.in[:2])
	for i := range d {
		split = append(split, w.out[2+i], 1)
		wide = append(wide, w.out[2+i], w.kernel[i])
		whole = append(whole, w.out[2+i]*w.kernel[i])
	}
	g := t.reshape(t.expand(t.reshape(dy, split...), wide...), whole...)
	rest := make([]int64, 2*(d+2))
	for i := range d {
		rest[d+4+i] = w.in[2+i] - whole[2+i]
	}
	return t.pad(g, rest...)
}

// spreadWindows sums each output's gradient over its window: a transposed convolution with ones, where every channel is an image of its own.
func (t *Tape) spreadWindows(dy string, w window) string {
	d := len(w.kernel)
	if size(w.in) == 0 {
		return t.zeros(w.in...)
	}
	g := t.reshape(dy, append([]int64{-1, 1}, w.out[2:]...)...)
	ones := make([]float32, size(w.kernel))
	for i := range ones {
		ones[i] = 1
	}
	kernel := t.B.Floats(append([]int64{1, 1}, w.kernel...), ones)
	g = t.B.Op("ConvTranspose", []string{g, kernel}, onnx.Is("kernel_shape", w.kernel...), onnx.Is("strides", w.stride...))
	// The transposed convolution covers the padded input up to the last window's end: cut the padding, fill what no window reached.
	fit := make([]int64, 2*(d+2))
	for i := range d {
		covered := (w.out[2+i]-1)*w.stride[i] + w.kernel[i]
		fit[2+i] = -w.before[i]
		fit[d+4+i] = w.in[2+i] + w.before[i] - covered
	}
	return t.reshape(t.pad(g, fit...), w.in...)
}

// counts are the numbers of input elements below each window, of the shape of one output plane.
func (w window) counts() []float32 {
	counts := []float32{1}
	for i := range w.kernel {
		var next []float32
		for _, c := range counts {
			for o := range w.out[2+i] {
				start := o*w.stride[i] - w.before[i]
				next = append(next, c*float32(min(start+w.kernel[i], w.in[2+i])-max(start, 0)))
			}
		}
		counts = next
	}
	return counts
}
