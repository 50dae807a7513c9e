package grad

import "grindstone/sanitize/onnx"

// Normalizations other than BatchNormalization.

// standardized is the gradient by x of (x - mean)*r, with r = 1/sqrt(variance + epsilon) over the axes, given the gradient g of that and the
// standardized values themselves: r*(g - mean(g) - xhat*mean(g*xhat)).
func (t *Tape) standardized(g, xhat, r string, axes ...int64) string {
	return t.mul(r, t.sub(t.sub(g, t.mean(g, true, axes...)), t.mul(xhat, t.mean(t.mul(g, xhat), true, axes...))))
}

// standardize computes (x - mean)*r and r = 1/sqrt(variance + epsilon) over the axes.
func (t *Tape) standardize(x string, epsilon float64, axes ...int64) (xhat, r string) {
	centered := t.sub(x, t.mean(x, true, axes...))
	variance := t.mean(t.mul(centered, centered), true, axes...)
	r = t.op("Reciprocal", t.op("Sqrt", t.add(variance, t.float(epsilon))))
	return t.mul(centered, r), r
}

// layerNormForward keeps the mean and 1/deviation, the operator's optional outputs.
func layerNormForward(t *Tape, n *onnx.Node) { t.Save(n.Outputs[0], t.Copy(n, 3)[1:]...) }

// layerNormGrad (Ba et al. 2016) over the axes from the attribute's on.
func layerNormGrad(t *Tape, n *onnx.Node, dy []string) []string {
	shape := t.Shape(n.Inputs[0])
	axes := sequence(len(shape))[axis(n.Int("axis", -1), len(shape)):]
	mean, r := t.Saved(n.Outputs[0])[0], t.Saved(n.Outputs[0])[1]
	xhat := t.mul(t.sub(t.Ref(n.Inputs[0]), mean), r)
	g := []string{
		t.lazy(n, 0, func() string { return t.standardized(t.mul(dy[0], t.Ref(n.Inputs[1])), xhat, r, axes...) }),
		t.lazy(n, 1, func() string { return t.unbroadcast(t.mul(dy[0], xhat), shape, t.Shape(n.Inputs[1])) }),
	}
	if len(n.Inputs) > 2 {
		g = append(g, t.lazy(n, 2, func() string { return t.unbroadcast(dy[0], shape, t.Shape(n.Inputs[2])) }))
	}
	return g
}

// statisticsRead refuses a LayerNormalization whose mean or deviation is an output of its own.
func statisticsRead(n *onnx.Node) string {
	if n.Output(1) != "" || n.Output(2) != "" {
		return "its mean or deviation as an output"
	}
	return ""
}

// instanceNormGrad (Ulyanov et al. 2016): every image and channel by itself.
func instanceNormGrad(t *Tape, n *onnx.Node, dy []string) []string {
	shape := t.Shape(n.Inputs[0])
	rows := []int64{shape[0], shape[1], size(shape[2:])}
	if size(shape) == 0 {
		return []string{t.zeros(shape...), t.zeros(shape[1]), t.zeros(shape[1])}
	}
	xhat, r := t.standardize(t.reshape(t.Ref(n.Inputs[0]), rows...), float64(n.Float("epsilon", 1e-5)), 2)
	d := t.reshape(dy[0], rows...)
	return []string{
		t.lazy(n, 0, func() string {
			scaled := t.mul(d, t.reshape(t.Ref(n.Inputs[1]), -1, 1))
			return t.reshape(t.standardized(scaled, xhat, r, 2), shape...)
		}),
		t.lazy(n, 1, func() string { return t.sum(t.mul(d, xhat), false, 0, 2) }),
		t.lazy(n, 2, func() string { return t.sum(d, false, 0, 2) }),
	}
}

// meanVarianceGrad: MeanVarianceNormalization has neither scale nor shift.
func meanVarianceGrad(t *Tape, n *onnx.Node, dy []string) []string {
	rank := len(t.Shape(n.Inputs[0]))
	var axes []int64
	for _, a := range n.Ints("axes", 0, 2, 3) {
		axes = append(axes, axis(a, rank))
	}
	x := t.Ref(n.Inputs[0])
	centered := t.sub(x, t.mean(x, true, axes...))
	deviation := t.op("Sqrt", t.mean(t.mul(centered, centered), true, axes...))
	r := t.op("Reciprocal", t.add(deviation, t.float(1e-9))) // as the operator's definition has it
	return []string{t.standardized(dy[0], t.mul(centered, r), r, axes...)}
}

// localResponseGrad (Krizhevsky et al. 2012): y = x*D^-beta with D = bias + alpha/size * the sum of x*x over a window of channels. An element
// acts on its own output and on those whose window holds it. Windows are a band matrix over the channels.
func localResponseGrad(t *Tape, n *onnx.Node, dy []string) []string {
	shape := t.Shape(n.Inputs[0])
	if size(shape) == 0 {
		return []string{t.zeros(shape...)}
	}
	x, y := t.Ref(n.Inputs[0]), t.Ref(n.Outputs[0])
	width, beta := n.Int("size", 1), float64(n.Float("beta", 0.75))
	share := float64(n.Float("alpha", 1e-4)) / float64(width)

	c := shape[1]
	band, transposed := make([]float32, c*c), make([]float32, c*c)
	for i := range c {
		for k := max(0, i-(width-1)/2); k <= min(c-1, i+width/2); k++ {
			band[i*c+k], transposed[k*c+i] = 1, 1
		}
	}
	squares := t.along(t.mul(x, x), shape, 1, t.B.Floats([]int64{c, c}, band), c)
	d := t.add(t.scale(squares, share), t.float(float64(n.Float("bias", 1))))
	own := t.mul(dy[0], t.op("Pow", d, t.float(-beta)))
	others := t.along(t.div(t.mul(dy[0], y), d), shape, 1, t.B.Floats([]int64{c, c}, transposed), c)
	return []string{t.sub(own, t.mul(t.scale(x, 2*beta*share), others))}
}

// lpNormalizationGrad: y = x/norm along an axis, with the sum of absolute values (p=1) or the Euclidean norm.
func lpNormalizationGrad(t *Tape, n *onnx.Node, dy []string) []string {
	x, y, a := t.Ref(n.Inputs[0]), t.Ref(n.Outputs[0]), n.Int("axis", -1)
	rank := len(t.Shape(n.Inputs[0]))
	along := axis(a, rank)
	op, direction := "ReduceL2", y // the derivative of the norm by x
	if n.Int("p", 2) == 1 {
		op, direction = "ReduceL1", t.op("Sign", x)
	}
	norm := t.B.Op(op, []string{x}, onnx.Is("axes", along))
	return []string{t.quotient(t.sub(dy[0], t.mul(direction, t.sum(t.mul(dy[0], y), true, along))), norm)}
}
