package grad

import "grindstone/sanitize/onnx"

// Reductions. kept and spread bring what belongs to the output back to the reduced axes.

// reducedAxes are the axes that a node reduces, from its attribute or constant input; without any, all of them.
func (t *Tape) reducedAxes(n *onnx.Node) []int64 {
	rank := len(t.Shape(n.Inputs[0]))
	axes := n.Ints("axes")
	if n.Input(1) != "" {
		axes = t.Ints(n.Inputs[1])
	}
	if len(axes) == 0 {
		if n.Int("noop_with_empty_axes", 0) != 0 {
			return nil
		}
		return sequence(rank)
	}
	resolved := make([]int64, len(axes))
	for i, a := range axes {
		resolved[i] = axis(a, rank)
	}
	return resolved
}

// kept gives something of the output's shape the reduced axes back, with size 1.
func (t *Tape) kept(n *onnx.Node, g string) string {
	shape := dims(t.Shape(n.Inputs[0]))
	for _, a := range t.reducedAxes(n) {
		shape[a] = 1
	}
	return t.reshape(g, shape...)
}

// spread copies something of the output's shape along the reduced axes.
func (t *Tape) spread(n *onnx.Node, g string) string {
	return t.expand(t.kept(n, g), t.Shape(n.Inputs[0])...)
}

// reduction is the rule of an operator that folds axes, given dx by its input x and, with the reduced axes kept, its output y and dy.
func reduction(dx func(t *Tape, n *onnx.Node, x, y, dy string) string) Rule {
	return Rule{Backward: func(t *Tape, n *onnx.Node, dy []string) []string {
		g := make([]string, len(n.Inputs))
		g[0] = dx(t, n, t.Ref(n.Inputs[0]), t.kept(n, t.Ref(n.Outputs[0])), t.kept(n, dy[0]))
		return g
	}}
}

func reduceSumGrad(t *Tape, n *onnx.Node, dy []string) []string {
	return []string{t.spread(n, dy[0]), ""}[:len(n.Inputs)]
}

func reduceMeanGrad(t *Tape, n *onnx.Node, dy []string) []string {
	in, out := t.Shape(n.Inputs[0]), t.Shape(n.Outputs[0])
	return []string{t.spread(n, t.scale(dy[0], float64(size(out))/float64(size(in)))), ""}[:len(n.Inputs)]
}

// reduceExtreme serves ReduceMax and ReduceMin: the gradient goes to the elements that are the extreme, in equal parts where several are.
func reduceExtreme(t *Tape, n *onnx.Node, x, y, dy string) string {
	return t.share(x, y, dy, t.reducedAxes(n))
}

// share divides dy among the elements of x that equal y, which broadcasts along the axes.
func (t *Tape) share(x, y, dy string, axes []int64) string {
	mask := t.indicator(t.op("Equal", x, y))
	return t.mul(mask, t.div(dy, t.sum(mask, true, axes...)))
}

// reduceProd: the derivative by an element is the product of the others. It stays exact where some are zero: zeros count as one in the
// product, and where another element is zero the derivative vanishes.
func reduceProd(t *Tape, n *onnx.Node, x, _, dy string) string {
	axes := t.reducedAxes(n)
	zero := t.op("Equal", x, t.float(0))
	count := t.indicator(zero)
	rest := t.where(zero, t.float(1), x)
	product := t.B.Op("ReduceProd", []string{rest}, onnx.Is("axes", axes...))
	others := t.sub(t.sum(count, true, axes...), count)
	return t.mul(dy, t.where(t.positive(others), t.float(0), t.div(product, rest)))
}

func reduceL1(t *Tape, _ *onnx.Node, x, _, dy string) string { return t.mul(dy, t.op("Sign", x)) }

// reduceL2: x/y, zero at the origin.
func reduceL2(t *Tape, _ *onnx.Node, x, y, dy string) string {
	return t.mul(t.quotient(dy, y), x)
}

// quotient divides by something that is not negative; where that is zero, the result is zero.
func (t *Tape) quotient(a, by string) string {
	positive := t.positive(by)
	return t.where(positive, t.div(a, t.where(positive, by, t.float(1))), t.float(0))
}

func reduceSumSquare(t *Tape, _ *onnx.Node, x, _, dy string) string { return t.mul(t.scale(dy, 2), x) }

// reduceLogSum: y = log(sum x), whose derivative is one over the sum.
func reduceLogSum(t *Tape, n *onnx.Node, _, y, dy string) string {
	return t.expand(t.mul(dy, t.op("Exp", t.neg(y))), t.Shape(n.Inputs[0])...)
}

func reduceLogSumExp(t *Tape, _ *onnx.Node, x, y, dy string) string {
	return t.mul(dy, t.op("Exp", t.sub(x, y)))
}
