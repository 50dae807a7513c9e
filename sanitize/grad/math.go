package grad

import (
	"math"

	"grindstone/sanitize/onnx"
)

// Functions of one variable, by their derivatives.

func identityGrad(_ *Tape, _ *onnx.Node, dy []string) []string { return dy[:1] }

func negGrad(t *Tape, _ *onnx.Node, dy []string) []string { return []string{t.neg(dy[0])} }

func absSlope(t *Tape, _ *onnx.Node, x, _ string) string { return t.op("Sign", x) }

func expSlope(_ *Tape, _ *onnx.Node, _, y string) string { return y }

func logSlope(t *Tape, _ *onnx.Node, x, _ string) string { return t.op("Reciprocal", x) }

func sqrtSlope(t *Tape, _ *onnx.Node, _, y string) string { return t.div(t.float(0.5), y) }

func reciprocalSlope(t *Tape, _ *onnx.Node, _, y string) string { return t.neg(t.mul(y, y)) }

// erfSlope: 2/sqrt(pi)*exp(-x*x).
func erfSlope(t *Tape, _ *onnx.Node, x, _ string) string {
	return t.scale(t.op("Exp", t.neg(t.mul(x, x))), 2/math.Sqrt(math.Pi))
}

func sinSlope(t *Tape, _ *onnx.Node, x, _ string) string { return t.op("Cos", x) }

func cosSlope(t *Tape, _ *onnx.Node, x, _ string) string { return t.neg(t.op("Sin", x)) }

func tanSlope(t *Tape, _ *onnx.Node, _, y string) string { return t.add(t.mul(y, y), t.float(1)) }

// asinSlope: 1/sqrt(1 - x*x).
func asinSlope(t *Tape, _ *onnx.Node, x, _ string) string {
	return t.op("Reciprocal", t.op("Sqrt", t.sub(t.float(1), t.mul(x, x))))
}

func acosSlope(t *Tape, n *onnx.Node, x, y string) string { return t.neg(asinSlope(t, n, x, y)) }

// atanSlope: 1/(1 + x*x).
func atanSlope(t *Tape, _ *onnx.Node, x, _ string) string {
	return t.op("Reciprocal", t.add(t.mul(x, x), t.float(1)))
}

// sinhSlope is cosh(x), written with Exp since not every provider has the hyperbolic functions.
func sinhSlope(t *Tape, _ *onnx.Node, x, _ string) string {
	return t.scale(t.add(t.op("Exp", x), t.op("Exp", t.neg(x))), 0.5)
}

func coshSlope(t *Tape, _ *onnx.Node, x, _ string) string {
	return t.scale(t.sub(t.op("Exp", x), t.op("Exp", t.neg(x))), 0.5)
}

// asinhSlope: 1/sqrt(x*x + 1).
func asinhSlope(t *Tape, _ *onnx.Node, x, _ string) string {
	return t.op("Reciprocal", t.op("Sqrt", t.add(t.mul(x, x), t.float(1))))
}

// acoshSlope: 1/sqrt(x*x - 1).
func acoshSlope(t *Tape, _ *onnx.Node, x, _ string) string {
	return t.op("Reciprocal", t.op("Sqrt", t.sub(t.mul(x, x), t.float(1))))
}

// atanhSlope: 1/(1 - x*x).
func atanhSlope(t *Tape, _ *onnx.Node, x, _ string) string {
	return t.op("Reciprocal", t.sub(t.float(1), t.mul(x, x)))
}
