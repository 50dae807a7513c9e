package grad

import (
	"math"

	"grindstone/sanitize/onnx"
)

// Element-wise operators; the binary ones broadcast as NumPy does.

func addGrad(t *Tape, n *onnx.Node, dy []string) []string {
	return t.binary(n, dy[0], dy[0])
}

func subGrad(t *Tape, n *onnx.Node, dy []string) []string {
	return t.binary(n, dy[0], t.lazy(n, 1, func() string { return t.neg(dy[0]) }))
}

func mulGrad(t *Tape, n *onnx.Node, dy []string) []string {
	a, b := t.Ref(n.Inputs[0]), t.Ref(n.Inputs[1])
	return t.binary(n,
		t.lazy(n, 0, func() string { return t.mul(dy[0], b) }),
		t.lazy(n, 1, func() string { return t.mul(dy[0], a) }))
}

func divGrad(t *Tape, n *onnx.Node, dy []string) []string {
	b, y := t.Ref(n.Inputs[1]), t.Ref(n.Outputs[0])
	q := t.div(dy[0], b)
	return t.binary(n, q, t.lazy(n, 1, func() string { return t.neg(t.mul(q, y)) }))
}

// binary brings the gradients of a broadcasting operator to its operands' shapes.
func (t *Tape) binary(n *onnx.Node, da, db string) []string {
	out := t.Shape(n.Outputs[0])
	g := []string{da, db}
	for i, in := range n.Inputs {
		if t.Needs(in) {
			g[i] = t.unbroadcast(g[i], out, t.Shape(in))
		} else {
			g[i] = ""
		}
	}
	return g
}

// lazy emits only if the gradient of the node's i-th input is asked for.
func (t *Tape) lazy(n *onnx.Node, i int, emit func() string) string {
	if i >= len(n.Inputs) || n.Inputs[i] == "" || !t.Needs(n.Inputs[i]) {
		return ""
	}
	return emit()
}

func identityGrad(_ *Tape, _ *onnx.Node, dy []string) []string { return dy[:1] }

func negGrad(t *Tape, _ *onnx.Node, dy []string) []string { return []string{t.neg(dy[0])} }

func absGrad(t *Tape, n *onnx.Node, dy []string) []string {
	return []string{t.mul(dy[0], t.op("Sign", t.Ref(n.Inputs[0])))}
}

func expGrad(t *Tape, n *onnx.Node, dy []string) []string {
	return []string{t.mul(dy[0], t.Ref(n.Outputs[0]))}
}

func logGrad(t *Tape, n *onnx.Node, dy []string) []string {
	return []string{t.div(dy[0], t.Ref(n.Inputs[0]))}
}

func sqrtGrad(t *Tape, n *onnx.Node, dy []string) []string {
	return []string{t.div(t.scale(dy[0], 0.5), t.Ref(n.Outputs[0]))}
}

// reluGrad masks by the output, which is positive exactly where the input is. A HardSigmoid that is steep enough is 0 at zero and 1 at every
// positive number, in one pass where a comparison and a cast take two slower ones.
func reluGrad(t *Tape, n *onnx.Node, dy []string) []string {
	mask := t.B.Op("HardSigmoid", []string{t.Ref(n.Outputs[0])}, onnx.F("alpha", math.MaxFloat32), onnx.F("beta", 0))
	return []string{t.mul(dy[0], mask)}
}

func leakyReluGrad(t *Tape, n *onnx.Node, dy []string) []string {
	positive := t.op("Greater", t.Ref(n.Inputs[0]), t.B.Float(0))
	return []string{t.op("Where", positive, dy[0], t.scale(dy[0], float64(n.Float("alpha", 0.01))))}
}

func sigmoidGrad(t *Tape, n *onnx.Node, dy []string) []string {
	y := t.Ref(n.Outputs[0])
	return []string{t.mul(dy[0], t.mul(y, t.sub(t.B.Float(1), y)))}
}

// softplusGrad: the derivative of log(1 + exp(x)) is the sigmoid.
func softplusGrad(t *Tape, n *onnx.Node, dy []string) []string {
	return []string{t.mul(dy[0], t.op("Sigmoid", t.Ref(n.Inputs[0])))}
}

func tanhGrad(t *Tape, n *onnx.Node, dy []string) []string {
	y := t.Ref(n.Outputs[0])
	return []string{t.mul(dy[0], t.sub(t.B.Float(1), t.mul(y, y)))}
}

// clipGrad passes the gradient where the input is strictly inside the bounds.
func clipGrad(t *Tape, n *onnx.Node, dy []string) []string {
	g := make([]string, len(n.Inputs))
	x := t.Ref(n.Inputs[0])
	g[0] = dy[0]
	for i, compare := range []string{1: "Greater", 2: "Less"} {
		if i > 0 && i < len(n.Inputs) && n.Inputs[i] != "" {
			inside := t.op(compare, x, t.Ref(n.Inputs[i]))
			g[0] = t.op("Where", inside, g[0], t.B.Float(0))
		}
	}
	return g
}

// softmaxGrad: dx = y*(dy - sum(dy*y)) along the axis.
func softmaxGrad(t *Tape, n *onnx.Node, dy []string) []string {
	y := t.Ref(n.Outputs[0])
	s := t.sum(t.mul(dy[0], y), true, n.Int("axis", -1))
	return []string{t.mul(y, t.sub(dy[0], s))}
}

// logSoftmaxGrad: dx = dy - softmax(x)*sum(dy) along the axis.
func logSoftmaxGrad(t *Tape, n *onnx.Node, dy []string) []string {
	p := t.op("Exp", t.Ref(n.Outputs[0]))
	return []string{t.sub(dy[0], t.mul(p, t.sum(dy[0], true, n.Int("axis", -1))))}
}
