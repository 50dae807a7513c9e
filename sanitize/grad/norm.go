package grad

import "grindstone/sanitize/onnx"

// BatchNormalization. In training (Tape.Training) it normalizes by the batch's own mean and biased variance (Ioffe and Szegedy 2015,
// algorithm 1), written in ordinary operators because the CUDA provider of inference builds refuses training_mode. Otherwise it is
// the affine function of its running statistics.

func batchNormForward(t *Tape, n *onnx.Node) {
	if !t.Training[n.Outputs[0]] {
		t.Copy(n, 1)
		return
	}
	x, shape := t.Ref(n.Inputs[0]), t.Shape(n.Inputs[0])
	count := float64(size(shape)) / float64(shape[1])

	m := t.B.Float(float32(count)) // a division, since 1/count is no float: its rounding would show in the variance
	mean := t.div(t.channelSum(x, n.Inputs[0]), m)
	square := t.div(t.channelSumSquare(x, n.Inputs[0]), m)
	variance := t.op("Max", t.sub(square, t.mul(mean, mean)), t.B.Float(0)) // rounding must not make it negative

	a := t.mul(t.Ref(n.Inputs[1]), t.rstd(n, variance))
	t.Bind(n.Outputs[0], t.affine(x, a, t.sub(t.Ref(n.Inputs[2]), t.mul(a, mean)), shape))
	t.Save(n.Outputs[0], mean, variance)
	t.Statistics = append(t.Statistics, BatchStatistics{Node: n, Mean: mean, Variance: t.scale(variance, count/(count-1))})
}

func batchNormGrad(t *Tape, n *onnx.Node, dy []string) []string {
	x, gamma, shape := t.Ref(n.Inputs[0]), t.Ref(n.Inputs[1]), t.Shape(n.Inputs[0])
	count := float64(size(shape)) / float64(shape[1])
	mean, variance := t.Ref(n.Inputs[3]), t.Ref(n.Inputs[4])
	training := t.Training[n.Outputs[0]]
	if training {
		mean, variance = t.Saved(n.Outputs[0])[0], t.Saved(n.Outputs[0])[1]
	}
	// r = 1/sqrt(var+eps); dbeta = sum dy; dgamma = sum dy*xhat = r*(sum dy*x - mean*sum dy)
	r := t.rstd(n, variance)
	dbeta := t.channelSum(dy[0], n.Inputs[0])
	dgamma := t.mul(r, t.sub(t.channelDot(dy[0], x, n.Inputs[0]), t.mul(mean, dbeta)))

	g := []string{"", dgamma, dbeta, "", ""}
	g[0] = t.lazy(n, 0, func() string {
		a := t.mul(gamma, r)
		if !training {
			return t.mul(dy[0], t.perChannel(a, shape))
		}
		// dx = gamma*r*(dy - dbeta/m - xhat*dgamma/m), as a*dy + (b*x + c)
		m := t.B.Float(float32(-count))
		b := t.div(t.mul(t.mul(a, r), dgamma), m)
		c := t.sub(t.div(t.mul(a, dbeta), m), t.mul(b, mean))
		return t.affineSum(dy[0], a, x, b, c, shape)
	})
	return g
}

// perChannel shapes a vector [C] so that it broadcasts along the channels of an activation.
func (t *Tape) perChannel(v string, shape []int64) string {
	to := []int64{shape[1]}
	for range shape[2:] {
		to = append(to, 1)
	}
	return t.reshape(v, to...)
}

// rstd is 1/sqrt(variance+epsilon).
func (t *Tape) rstd(n *onnx.Node, variance string) string {
	return t.op("Reciprocal", t.op("Sqrt", t.add(variance, t.B.Float(n.Float("epsilon", 1e-5)))))
}

// affine is scale*x + shift per channel, in one pass over memory: a convolution of each channel by itself with a kernel of one, or, where
// Forms has it otherwise or there are rows instead of images, a BatchNormalization with mean 0 and variance 1.
func (t *Tape) affine(x, scale, shift string, shape []int64) string {
	channels := shape[1]
	if t.Forms.AffineConv && len(shape) > 2 {
		kernel := orOnes(nil, len(shape)-2)
		w := t.reshape(scale, append([]int64{channels, 1}, kernel...)...)
		return t.B.Op("Conv", []string{x, w, shift}, onnx.Is("kernel_shape", kernel...), onnx.I("group", channels))
	}
	zeros, ones := make([]float32, channels), make([]float32, channels)
	for i := range ones {
		ones[i] = 1
	}
	return t.B.Op("BatchNormalization", []string{x, scale, shift, t.B.Floats([]int64{channels}, zeros), t.B.Floats([]int64{channels}, ones)}, onnx.F("epsilon", 0))
}

// affineSum is scale*x + other*y + shift per channel, the second half in one pass that adds to what the first has left.
func (t *Tape) affineSum(x, scale, y, other, shift string, shape []int64) string {
	first := t.mul(x, t.perChannel(scale, shape))
	if t.Forms.Block == 0 || !t.Forms.AffineConv || len(shape) <= 2 {
		return t.add(first, t.affine(y, other, shift, shape))
	}
	kernel := orOnes(nil, len(shape)-2)
	w := t.reshape(other, append([]int64{shape[1], 1}, kernel...)...)
	return t.B.Own(onnx.Contrib, "FusedConv", []string{y, w, shift, first}, onnx.Is("kernel_shape", kernel...), onnx.I("group", shape[1]))
}
