package grad

import "grindstone/sanitize/onnx"

// Formulations in ONNX Runtime's NCHWc operators, whose tensors are [N, C/block, H, W, block] under the shape [N, C, H, W]: a vector register
// holds one position of a block's channels. The runtime puts them into a graph by itself where a convolution's weights are constant, which they
// are not in training. Forms.Block says how many channels a block has on the processor at hand.

// minBlockedRow is the least number of vectors in a row that blockedDot takes.
const minBlockedRow = 16

// depthwise: every channel has a kernel of its own. The runtime's ordinary Conv makes a matrix product of one row of each.
// Images and channels count alike here, each pair being a channel of its own, so that C need not be a multiple of the block.
func (t *Tape) depthwise(g convGeometry) bool {
	if t.Forms.Block == 0 || t.current != Plain || len(g.in) != 2 || g.c == 1 || g.c != g.group || g.k != g.group || g.n*g.c%t.Forms.Block != 0 {
		return false
	}
	for i := range g.in {
		if max(g.before[i], g.after[i]) > g.reach(i) {
			return false
		}
	}
	return true
}

// reach is the distance between a kernel's first and last element.
func (g convGeometry) reach(i int) int64 { return g.dilation[i] * (g.kernel[i] - 1) }

func convForward(t *Tape, n *onnx.Node) {
	g := t.convGeometry(n)
	if !t.depthwise(g) {
		t.Copy(n, 1)
		return
	}
	x := t.blocks(t.Ref(n.Inputs[0]), g, g.in)
	y := t.channels(t.blockedConv(x, t.kernels(t.Ref(n.Inputs[1]), g), g, g.kernel, g.stride, g.dilation, g.before, g.after), g, g.out)
	if len(n.Inputs) > 2 && n.Inputs[2] != "" {
		y = t.add(y, t.reshape(t.Ref(n.Inputs[2]), g.k, 1, 1))
	}
	t.Bind(n.Outputs[0], y)
}

// depthwiseGrad: all three are convolutions of each channel by itself. The input is brought into blocks once more: keeping them from the forward
// pass would take as much memory as the input itself.
func (t *Tape) depthwiseGrad(n *onnx.Node, g convGeometry, dy string) []string {
	d := t.blocks(dy, g, g.out)
	out := []string{
		t.lazy(n, 0, func() string { return t.depthwiseInputGrad(n, g, d) }),
		t.lazy(n, 1, func() string { return t.depthwiseWeightGrad(n, g, d) }),
	}
	if len(n.Inputs) > 2 {
		out = append(out, t.lazy(n, 2, func() string { return t.biasGrad(n, dy) }))
	}
	return out
}

// depthwiseInputGrad: dX is the convolution of dY, its elements stride apart with zeros between them, with the flipped kernel.
func (t *Tape) depthwiseInputGrad(n *onnx.Node, g convGeometry, d string) string {
	area := dims(g.out)
	if !g.all(g.stride, 1) {
		d, area = t.dilate(d, g)
	}
	before, after := make([]int64, 2), make([]int64, 2)
	for i := range before {
		before[i] = g.reach(i) - g.before[i]
		after[i] = g.in[i] - area[i] + g.before[i]
	}
	w := t.flip(t.Ref(n.Inputs[1]), 2, 3)
	return t.channels(t.blockedConv(d, t.kernels(w, g), g, g.kernel, []int64{1, 1}, g.dilation, before, after), g, g.in)
}

// dilate puts zeros between the elements of blocks.
func (t *Tape) dilate(d string, g convGeometry) (string, []int64) {
	area := []int64{(g.out[0]-1)*g.stride[0] + 1, (g.out[1]-1)*g.stride[1] + 1}
	zero := size(g.out) // the position behind the last
	at := make([]int64, size(area))
	for i := range at {
		y, x := int64(i)/area[1], int64(i)%area[1]
		at[i] = zero
		if y%g.stride[0] == 0 && x%g.stride[1] == 0 {
			at[i] = y/g.stride[0]*g.out[1] + x/g.stride[1]
		}
	}
	d = t.pad(t.reshape(d, g.n*g.c/t.Forms.Block, zero, t.Forms.Block), 0, 0, 0, 0, 1, 0)
	d = t.B.Op("Gather", []string{d, t.B.Int64s(at...)}, onnx.I("axis", 1))
	return t.reshape(d, -1, g.n*g.c, area[0], area[1]), area
}

// depthwiseWeightGrad: dW is the convolution of the input with dY for a kernel, where stride and dilation change places, summed over the images.
func (t *Tape) depthwiseWeightGrad(n *onnx.Node, g convGeometry, d string) string {
	x := t.blocks(t.Ref(n.Inputs[0]), g, g.in)
	w := t.blockedConv(x, t.reshape(d, g.n*g.c, 1, g.out[0], g.out[1]), g, g.out, g.dilation, g.stride, g.before, g.after)
	taps := make([]int64, 2) // more than the kernel has, where the stride leaves input elements unread at the end
	for i := range taps {
		taps[i] = (g.in[i]+g.before[i]+g.after[i]-(g.out[i]-1)*g.stride[i]-1)/g.dilation[i] + 1
	}
	b := t.Forms.Block
	if g.c%b == 0 {
		w = t.sum(t.reshape(w, g.n, g.c/b, size(taps), b), false, 0)
		w = t.reshape(t.transpose(w, 0, 2, 1), g.c, 1, taps[0], taps[1])
	} else {
		w = t.transpose(t.reshape(w, g.n*g.c/b, size(taps), b), 0, 2, 1)
		w = t.sum(t.reshape(w, g.n, g.c, 1, taps[0], taps[1]), false, 0)
	}
	for i := range taps {
		if taps[i] > g.kernel[i] {
			w = t.slice(w, int64(2+i), 0, g.kernel[i])
		}
	}
	return w
}

// blocks brings an activation [N, C, H, W] into blocks, and channels back. The first axis is left open, so that the runtime does not plan the memory
// of what comes out, see OpenBatch.
func (t *Tape) blocks(x string, g convGeometry, area []int64) string {
	return t.B.Own(onnx.NCHWc, "ReorderInput", []string{t.reshape(x, -1, g.n*g.c, area[0], area[1])})
}

func (t *Tape) channels(x string, g convGeometry, area []int64) string {
	x = t.B.Own(onnx.NCHWc, "ReorderOutput", []string{x}, onnx.I("channels", g.n*g.c))
	return t.reshape(x, g.n, g.c, area[0], area[1])
}

// kernels brings [C, 1, R, S] into blocks, for each image the same.
func (t *Tape) kernels(w string, g convGeometry) string {
	b, taps := t.Forms.Block, size(g.kernel)
	if g.c%b == 0 {
		w = t.transpose(t.reshape(w, 1, g.c/b, b, taps), 0, 1, 3, 2)
		w = t.expand(w, g.n, g.c/b, taps, b)
	} else {
		w = t.expand(t.reshape(w, 1, g.c, taps), g.n, g.c, taps)
		w = t.transpose(t.reshape(w, g.n*g.c/b, b, taps), 0, 2, 1)
	}
	return t.reshape(w, g.n*g.c, 1, g.kernel[0], g.kernel[1])
}

// maxDense is the number of channels up to which a 3x3 convolution of all channels is done in blocks. The runtime's ordinary one copies its unfolded input
// for a matrix product, which is dear where few channels use the copy; with many, bringing the kernel into blocks is.
const maxDense = 32

func (t *Tape) inBlocks(in, out int64) bool {
	b := t.Forms.Block
	return b > 0 && in%b == 0 && out%b == 0 && max(in, out) <= maxDense
}

// filters brings a kernel of all channels, [K, C, 3, 3], into blocks: [K/block, C/block, 3, 3, C's block, K's block].
func (t *Tape) filters(w string, in, out int64) string {
	b := t.Forms.Block
	w = t.transpose(t.reshape(w, out/b, b, in/b, b, 9), 0, 2, 4, 3, 1)
	return t.reshape(w, out, in, 3, 3)
}

// blockedConv convolves each channel by itself; x, w and the result are in blocks.
func (t *Tape) blockedConv(x, w string, g convGeometry, kernel, stride, dilation, before, after []int64) string {
	return t.B.Own(onnx.NCHWc, "Conv", []string{x, w}, onnx.Is("kernel_shape", kernel...), onnx.Is("strides", stride...), onnx.Is("dilations", dilation...),
		onnx.I("group", g.n*g.c), onnx.Is("pads", append(dims(before), after...)...))
}

// blockedDot is channelDot in one pass that keeps nothing: a convolution whose kernel is as large as its input, one row of an activation being
// block channels. It returns "" where rows are not a multiple of the block, or too short.
func (t *Tape) blockedDot(x, y, value string) string {
	s := t.shapes[value]
	if t.Forms.Block == 0 || len(s) != 4 {
		return ""
	}
	rows := []int64{s[0], s[1], s[2] * s[3]}
	switch t.layoutOf(value) {
	case Inner:
		rows = []int64{s[2] * s[3], s[1], s[0]}
	case Outer:
		rows = []int64{s[1], s[2], s[3] * s[0]}
		for p := s[2]; p > 0 && (rows[2]%t.Forms.Block != 0 || rows[2] < 2*minBlockedRow*t.Forms.Block); p-- {
			if s[2]%p == 0 {
				rows[1], rows[2] = p, s[2]/p*s[3]*s[0]
			}
		}
	}
	b := t.Forms.Block
	length := rows[2] / b
	if rows[2]%b != 0 || length < minBlockedRow {
		return ""
	}
	n := rows[0] * rows[1] * b
	d := t.B.Own(onnx.NCHWc, "Conv", []string{t.reshape(x, 1, n, 1, length), t.reshape(y, n, 1, 1, length)}, onnx.Is("kernel_shape", 1, length), onnx.I("group", n))
	d = t.reshape(d, rows[0], rows[1], b)
	if t.layoutOf(value) == Outer {
		return t.sum(d, false, 1, 2)
	}
	return t.sum(d, false, 0, 2)
}
