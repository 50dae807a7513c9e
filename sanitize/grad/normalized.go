package grad

import "grindstone/sanitize/onnx"

// A 1x1 convolution to many channels and the BatchNormalization behind it, as one. The convolution's output x = W*u + bias is never computed: its
// mean is W*mean(u), its variance the diagonal of W*cov(u)*W', and what is left is one convolution with scaled weights. With the gradient dz of
// the normalized output and M = sum of dz*(u-mean(u))' over all positions, dgamma is r times the diagonal of W*M', and
//
//	dx = a*dz - a*dbeta/P - e*(x-mean), a = gamma*r, e = a*r*dgamma/P
//	dW = a*M - e*P*W*cov(u)
//	du = W'*dx = (a*W)'*dz - W'*(e*W)*u + W'*(e*W*mean(u) - a*dbeta/P)
//
// so that all that touches the many channels are the matrix products with dz. A bias in front has no effect and no gradient.

// minExpansion is how many times its input channels a convolution must make for the products of channels with each other to pay.
const minExpansion = 2

// pairUp finds the convolutions to join with their BatchNormalization.
func (t *Tape) pairUp(nodes []*onnx.Node) {
	t.pairs, t.absorbed, t.centered = map[*onnx.Node]*onnx.Node{}, map[*onnx.Node]bool{}, map[string]bool{}
	if !t.Forms.Join {
		return
	}
	uses, producer := map[string]int{}, map[string]*onnx.Node{}
	for _, n := range nodes {
		for _, in := range n.Reads() {
			uses[in]++
		}
		for _, out := range n.Outputs {
			producer[out] = n
		}
	}
	for _, n := range nodes {
		if n.Op != "BatchNormalization" || n.Domain != "" || !t.Training[n.Outputs[0]] || uses[n.Inputs[0]] != 1 || t.Kept[n.Inputs[0]] {
			continue
		}
		t.centered[n.Inputs[0]] = true
		conv := producer[n.Inputs[0]]
		if conv == nil || conv.Op != "Conv" || conv.Domain != "" || t.layout[conv] != t.layout[n] || t.layout[n] == Inner {
			continue
		}
		if g := t.convGeometry(conv); g.group == 1 && g.pointwise() && g.all(g.stride, 1) && g.k >= minExpansion*g.c && t.native[conv.Inputs[1]] == Plain {
			t.pairs[n], t.absorbed[conv] = conv, true
		}
	}
}

// joined are the values that forward and backward pass of a pair share, all emitted names: u, its channels' mean m [C], the weights w [K, C], w*cov(u)
// [K, C], and per output channel w*m, 1/deviation and scale.
type joined struct{ u, m, w, wcov, wm, r, a string }

func (t *Tape) joinedForward(conv, n *onnx.Node) {
	g := t.convGeometry(conv)
	j := joined{u: t.Ref(conv.Inputs[0]), w: t.reshape(t.refIn(conv.Inputs[1], Plain), g.k, g.c)}
	p := t.float(float64(g.n * size(g.in)))
	j.m = t.div(t.channelSum(j.u, conv.Inputs[0]), p)
	square := t.div(t.channelProducts(j.u, g.c, j.u, g.c, g), p)
	cov := t.sub(square, t.mul(t.reshape(j.m, g.c, 1), t.reshape(j.m, 1, g.c)))
	j.wcov = t.op("MatMul", j.w, cov)
	j.wm = t.reshape(t.op("MatMul", j.w, t.reshape(j.m, g.c, 1)), g.k)
	variance := t.op("Max", t.sum(t.mul(j.wcov, j.w), false, 1), t.B.Float(0)) // rounding must not make it negative
	j.r = t.rstd(n, variance)
	j.a = t.mul(t.Ref(n.Inputs[1]), j.r)
	shift := t.sub(t.Ref(n.Inputs[2]), t.mul(j.a, j.wm))
	t.Bind(n.Outputs[0], t.mix(j.u, t.mul(j.w, t.reshape(j.a, g.k, 1)), shift, g.k, g.c))
	t.Save(n.Outputs[0], j.u, j.m, j.w, j.wcov, j.wm, j.r, j.a)

	mean, count := j.wm, float64(g.n*size(g.in))
	if len(conv.Inputs) > 2 && conv.Inputs[2] != "" {
		mean = t.add(mean, t.Ref(conv.Inputs[2]))
	}
	t.Statistics = append(t.Statistics, BatchStatistics{Node: n, Mean: mean, Variance: t.scale(variance, count/(count-1))})
}

// joinedGrad returns the gradients of the convolution's inputs and those of the BatchNormalization's.
func (t *Tape) joinedGrad(conv, n *onnx.Node, dz string) (ofConv, ofNorm []string) {
	g := t.convGeometry(conv)
	s := t.Saved(n.Outputs[0])
	j := joined{u: s[0], m: s[1], w: s[2], wcov: s[3], wm: s[4], r: s[5], a: s[6]}
	column := func(v string) string { return t.reshape(v, g.k, 1) }

	dbeta := t.channelSum(dz, n.Outputs[0])
	products := t.sub(t.channelProducts(dz, g.k, j.u, g.c, g), t.mul(column(dbeta), t.reshape(j.m, 1, g.c)))
	dgamma := t.mul(j.r, t.sum(t.mul(j.w, products), false, 1))
	steep := t.mul(t.mul(j.a, j.r), dgamma) // e*P
	ofNorm = []string{"", dgamma, dbeta, "", ""}

	p := t.float(float64(g.n * size(g.in)))
	ofConv = []string{
		t.lazy(conv, 0, func() string {
			e := t.div(steep, p)
			transposed := t.transpose(j.w, 1, 0)
			from := t.transpose(t.mul(j.w, column(j.a)), 1, 0)
			back := t.neg(t.op("MatMul", transposed, t.mul(j.w, column(e))))
			shift := t.op("MatMul", transposed, column(t.sub(t.mul(e, j.wm), t.div(t.mul(j.a, dbeta), p))))
			return t.add(t.mix(dz, from, t.reshape(shift, g.c), g.c, g.k), t.mix(j.u, back, "", g.c, g.c))
		}),
		t.lazy(conv, 1, func() string {
			dw := t.sub(t.mul(column(j.a), products), t.mul(column(steep), j.wcov))
			return t.reshape(dw, t.shapes[conv.Inputs[1]]...)
		}),
	}
	if len(conv.Inputs) > 2 {
		ofConv = append(ofConv, t.lazy(conv, 2, func() string { return t.zeros(g.k) }))
	}
	return ofConv, ofNorm
}

// mix is the product of a matrix [out, in] with an activation's channels, plus a shift per channel: a 1x1 convolution.
func (t *Tape) mix(x, matrix, shift string, out, in int64) string {
	kernel := []int64{1, 1}
	if t.current == Outer {
		kernel = kernel[:1]
	}
	inputs := []string{x, t.reshape(matrix, append([]int64{out, in}, kernel...)...)}
	if shift != "" {
		inputs = append(inputs, shift)
	}
	return t.B.Op("Conv", inputs, onnx.Is("kernel_shape", kernel...))
}

// channelProducts sums x*y' over all positions of all images: [channels of x, channels of y].
func (t *Tape) channelProducts(x string, a int64, y string, b int64, g convGeometry) string {
	if t.current == Outer {
		return t.op("MatMul", t.reshape(x, a, -1), t.transpose(t.reshape(y, b, -1), 1, 0))
	}
	area := size(g.in)
	return t.sum(t.op("MatMul", t.reshape(x, g.n, a, area), t.transpose(t.reshape(y, g.n, b, area), 0, 2, 1)), false, 0)
}
