package grad

import (
	"math"

	"grindstone/sanitize/onnx"
)

// Activations. Most are given by their derivative alone; at a kink either side's slope is taken.

// step is 1 where its argument is positive and 0 where it is zero. It takes numbers that are not negative. A HardSigmoid that is steep enough
// does that in one pass, where a comparison and a cast take two slower ones.
func (t *Tape) step(a string) string {
	return t.B.Op("HardSigmoid", []string{a}, onnx.F("alpha", math.MaxFloat32), onnx.F("beta", 0))
}

// reluGrad masks by the output, which is positive exactly where the input is.
func reluGrad(t *Tape, n *onnx.Node, dy []string) []string {
	y := t.Ref(n.Outputs[0])
	if t.masksAgain(n) {
		y = t.reluAgain(n)
	}
	return []string{t.mul(dy[0], t.step(y))}
}

func leakyReluGrad(t *Tape, n *onnx.Node, dy []string) []string {
	return []string{t.where(t.positive(t.Ref(n.Inputs[0])), dy[0], t.scale(dy[0], float64(n.Float("alpha", 0.01))))}
}

// preluGrad: y = slope*x below zero; the slope broadcasts to x.
func preluGrad(t *Tape, n *onnx.Node, dy []string) []string {
	x, slope := t.Ref(n.Inputs[0]), t.Ref(n.Inputs[1])
	positive := t.positive(x)
	return t.broadcasting(n,
		func() string { return t.where(positive, dy[0], t.mul(dy[0], slope)) },
		func() string { return t.where(positive, t.float(0), t.mul(dy[0], x)) })
}

// eluSlope: y = alpha*(exp(x) - 1) below zero, so that alpha*exp(x) is y + alpha.
func eluSlope(t *Tape, n *onnx.Node, x, y string) string {
	return t.where(t.positive(x), t.float(1), t.add(y, t.float(float64(n.Float("alpha", 1)))))
}

// seluSlope: gamma times that of Elu.
func seluSlope(t *Tape, n *onnx.Node, x, y string) string {
	alpha, gamma := float64(n.Float("alpha", 1.67326319217681884765625)), float64(n.Float("gamma", 1.05070102214813232421875))
	return t.where(t.positive(x), t.float(gamma), t.add(y, t.float(alpha*gamma)))
}

// celuSlope: y = alpha*(exp(x/alpha) - 1) below zero.
func celuSlope(t *Tape, n *onnx.Node, x, y string) string {
	return t.where(t.positive(x), t.float(1), t.add(t.scale(y, 1/float64(n.Float("alpha", 1))), t.float(1)))
}

func thresholdedReluSlope(t *Tape, n *onnx.Node, x, _ string) string {
	return t.indicator(t.op("Greater", x, t.float(float64(n.Float("alpha", 1)))))
}

// shrinkSlope: y is zero within lambd of zero, and x moved by bias outside.
func shrinkSlope(t *Tape, n *onnx.Node, x, _ string) string {
	return t.indicator(t.op("Greater", t.op("Abs", x), t.float(float64(n.Float("lambd", 0.5)))))
}

func sigmoidSlope(t *Tape, _ *onnx.Node, _, y string) string { return t.mul(y, t.sub(t.float(1), y)) }

func tanhSlope(t *Tape, _ *onnx.Node, _, y string) string { return t.sub(t.float(1), t.mul(y, y)) }

// softplusSlope: the derivative of log(1 + exp(x)) is the sigmoid.
func softplusSlope(t *Tape, _ *onnx.Node, x, _ string) string { return t.op("Sigmoid", x) }

// softsignSlope: y = x/(1 + |x|).
func softsignSlope(t *Tape, _ *onnx.Node, x, _ string) string {
	d := t.add(t.op("Abs", x), t.float(1))
	return t.op("Reciprocal", t.mul(d, d))
}

// hardSigmoidSlope: alpha where alpha*x + beta lies strictly between 0 and 1.
func hardSigmoidSlope(t *Tape, n *onnx.Node, _, y string) string {
	inside := t.op("And", t.positive(y), t.op("Less", y, t.float(1)))
	return t.scale(t.indicator(inside), float64(n.Float("alpha", 0.2)))
}

// hardSwishSlope: y = x*max(0, min(1, x/6 + 1/2)).
func hardSwishSlope(t *Tape, _ *onnx.Node, x, _ string) string {
	middle := t.add(t.scale(x, 1.0/3), t.float(0.5))
	return t.where(t.op("Less", x, t.float(3)), t.where(t.op("Greater", x, t.float(-3)), middle, t.float(0)), t.float(1))
}

// clipGrad passes the gradient where the output lies strictly between the bounds, which is where its distances from both have a positive
// product. A bound gets the gradient of the elements that it holds.
func clipGrad(t *Tape, n *onnx.Node, dy []string) []string {
	g := make([]string, len(n.Inputs))
	y, room := t.Ref(n.Outputs[0]), ""
	for i := 1; i < len(n.Inputs); i++ {
		bound := n.Inputs[i]
		if bound == "" || t.unbounded(bound) {
			continue
		}
		distance := t.sub(t.Ref(bound), y)
		if i == 1 {
			distance = t.above(y, bound)
		}
		if room == "" {
			room = distance
		} else {
			room = t.mul(room, distance)
		}
		g[i] = t.lazy(n, i, func() string {
			held := t.sub(t.float(1), t.step(distance))
			return t.unbroadcast(t.mul(dy[0], held), t.Shape(n.Inputs[0]), t.Shape(bound))
		})
	}
	g[0] = dy[0]
	if room != "" {
		g[0] = t.mul(dy[0], t.step(room))
	}
	return g
}

// above is a value's distance from its lower bound.
func (t *Tape) above(y, bound string) string {
	if c := t.constants[bound]; c != nil && !t.Needs(bound) && c.Doubles()[0] == 0 {
		return y
	}
	return t.sub(y, t.Ref(bound))
}

// unbounded: exporters write the largest numbers for bounds that there are not.
func (t *Tape) unbounded(bound string) bool {
	c := t.constants[bound]
	return c != nil && !t.Needs(bound) && math.Abs(c.Doubles()[0]) >= math.MaxFloat32
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
