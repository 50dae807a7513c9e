package grad

import "grindstone/sanitize/onnx"

// Forms chooses among exact formulations whose speed depends on shape and provider.
type Forms struct {
	// Inner lets Plan keep activations with the batch innermost.
	Inner bool

	// MaxDirect is the number of channels up to which a 3x3 convolution with the batch innermost is done directly; above, the
	// transforms of the bilinear algorithm cost less than the products that they save.
	MaxDirect int64

	// MaxUnfold is the number of input channels up to which a 3x3 convolution at stride 2 with the batch innermost is done on its
	// unfolded input.
	MaxUnfold int64

	// UnfoldPositions is the number of output positions in the batch, for each output channel, up to which a 3x3 convolution in Outer is done on
	// its unfolded input.
	UnfoldPositions int64

	// OpenBatch asks for the batch's size to be left out of the graph's shapes, see Tape.OpenBatch.
	OpenBatch bool

	// Recompute is the size in bytes from which on activations are large enough for what depends on them to be computed again in the backward
	// pass, see recompute.go. 0: nothing is.
	Recompute int64

	// AffineConv writes scale*x + shift per channel as a convolution of each channel by itself. On CPUs that has all threads, where
	// BatchNormalization has one, and the runtime joins a ReLU behind it.
	AffineConv bool

	// Block is the number of channels that the runtime's NCHWc operators take at once, 0 where it has none; see blocked.go.
	Block int64

	// Join does a BatchNormalization in training together with the 1x1 convolution to many channels before it; see normalized.go.
	Join bool

	// ConvWeight picks the formulation of a convolution's weight gradient.
	ConvWeight func(g convGeometry) convWeightForm
}

// DefaultForms suit CPUs.
var DefaultForms = Forms{Inner: true, OpenBatch: true, AffineConv: true, MaxDirect: 16, MaxUnfold: 32, UnfoldPositions: 2, Recompute: 32 << 20, ConvWeight: convWeightByKernel}

// PlainForms keep every activation in the layout of the standard, which suits other providers.
var PlainForms = Forms{ConvWeight: convWeightByKernel}

func convWeightByKernel(g convGeometry) convWeightForm {
	if g.group == 1 && g.pointwise() {
		return (*Tape).convWeightPointwise
	}
	return (*Tape).convWeightAsConv
}

type convWeightForm func(t *Tape, n *onnx.Node, g convGeometry, dy string) string

func (t *Tape) convWeightGrad(n *onnx.Node, g convGeometry, dy string) string {
	return t.Forms.ConvWeight(g)(t, n, g, dy)
}

// convWeightPointwise: with a 1x1 kernel dW is one matrix product per image, of the positions that are read, summed over the batch; or one
// of all images, with the channels outermost.
func (t *Tape) convWeightPointwise(n *onnx.Node, g convGeometry, dy string) string {
	x, area := t.Ref(n.Inputs[0]), size(g.out)
	if !g.all(g.stride, 1) {
		axes := sequence(len(g.in) + 2)[2:]
		x = t.op("Slice", x, t.B.Int64s(make([]int64, len(axes))...), t.B.Int64s(g.in...), t.B.Int64s(axes...), t.B.Int64s(g.stride...))
	}
	x, dy = t.reshape(x, g.n, g.c, area), t.reshape(dy, g.n, g.k, area)
	if area*(g.k+g.c) < g.k*g.c { // the images are smaller than what would be summed
		x, dy = t.reshape(t.transpose(x, 1, 0, 2), g.c, -1), t.reshape(t.transpose(dy, 1, 0, 2), g.k, -1)
		return t.reshapeLike(t.op("MatMul", dy, t.transpose(x, 1, 0)), n.Inputs[1])
	}
	d := t.op("MatMul", dy, t.transpose(x, 0, 2, 1))
	return t.reshapeLike(t.sum(d, false, 0), n.Inputs[1])
}

// convWeightAsConv: dW is itself a convolution, of the input with dY as the kernel, where batch and channels exchange roles and stride
// and dilation too. Input channels become one more spatial dimension, so that the product has rows k and columns c*kernel rather
// than just the kernel: X as [1, group*N, C/group, ...], dY as [K, N, 1, ...] give [1, K, C/group, kernel...].
func (t *Tape) convWeightAsConv(n *onnx.Node, g convGeometry, dy string) string {
	d := len(g.in)
	cg := g.c / g.group
	x := t.Ref(n.Inputs[0])
	if g.group > 1 {
		split := append([]int64{g.n, g.group, cg}, g.in...)
		perm := sequence(d + 3)
		perm[0], perm[1] = 1, 0
		x = t.transpose(t.reshape(x, split...), perm...)
	}
	x = t.reshape(x, append([]int64{1, g.group * g.n, cg}, g.in...)...)
	perm := sequence(d + 2)
	perm[0], perm[1] = 1, 0
	kernel := t.reshape(t.transpose(dy, perm...), append([]int64{g.k, g.n, 1}, g.out...)...)

	one := func(v []int64) []int64 { return append([]int64{1}, v...) }
	zero := func(v []int64) []int64 { return append([]int64{0}, v...) }
	w := t.B.Op("Conv", []string{x, kernel}, onnx.Is("kernel_shape", one(g.out)...), onnx.Is("strides", one(g.dilation)...),
		onnx.Is("dilations", one(g.stride)...), onnx.I("group", g.group),
		onnx.Is("pads", append(zero(g.before), zero(g.after)...)...))

	// Where the stride leaves input elements unread at the end, more positions than kernel elements come out.
	for i := range d {
		reach := g.in[i] + g.before[i] + g.after[i] - (g.out[i]-1)*g.stride[i] - 1
		if reach/g.dilation[i]+1 > g.kernel[i] {
			w = t.slice(w, int64(3+i), 0, g.kernel[i])
		}
	}
	return t.reshapeLike(w, n.Inputs[1])
}
