package reference

import (
	"math"

	"grindstone/sanitize/onnx"
)

var elementwise = map[string]kernel{
	"Add": arithmetic(func(a, b float64) float64 { return a + b }, func(a, b int64) int64 { return a + b }),
	"Sub": arithmetic(func(a, b float64) float64 { return a - b }, func(a, b int64) int64 { return a - b }),
	"Mul": arithmetic(func(a, b float64) float64 { return a * b }, func(a, b int64) int64 { return a * b }),
	"Div": arithmetic(func(a, b float64) float64 { return a / b }, func(a, b int64) int64 { return a / b }),
	"Pow": pow,
	"Mod": mod,
	"Max": variadic(math.Max, func(a, b int64) int64 { return max(a, b) }),
	"Min": variadic(math.Min, func(a, b int64) int64 { return min(a, b) }),
	"Sum": variadic(func(a, b float64) float64 { return a + b }, func(a, b int64) int64 { return a + b }),
	"Mean": func(c *call) []*Tensor {
		sum := kernels["Sum"](c)[0]
		return one(mapFloats(sum, func(x float64) float64 { return x / float64(len(c.in)) }))
	},

	"Neg":        unary(func(x float64) float64 { return -x }, func(x int64) int64 { return -x }),
	"Abs":        unary(math.Abs, func(x int64) int64 { return max(x, -x) }),
	"Sign":       unary(sign, func(x int64) int64 { return int64(sign(float64(x))) }),
	"Reciprocal": unary(func(x float64) float64 { return 1 / x }, nil),
	"Sqrt":       unary(math.Sqrt, nil),
	"Exp":        unary(math.Exp, nil),
	"Log":        unary(math.Log, nil),
	"Erf":        unary(math.Erf, nil),
	"Sin":        unary(math.Sin, nil),
	"Cos":        unary(math.Cos, nil),
	"Tan":        unary(math.Tan, nil),
	"Asin":       unary(math.Asin, nil),
	"Acos":       unary(math.Acos, nil),
	"Atan":       unary(math.Atan, nil),
	"Sinh":       unary(math.Sinh, nil),
	"Cosh":       unary(math.Cosh, nil),
	"Asinh":      unary(math.Asinh, nil),
	"Acosh":      unary(math.Acosh, nil),
	"Atanh":      unary(math.Atanh, nil),
	"Floor":      unary(math.Floor, nil),
	"Ceil":       unary(math.Ceil, nil),
	"Round":      unary(math.RoundToEven, nil),

	"Clip":     clip,
	"Where":    where,
	"Cast":     cast,
	"CastLike": func(c *call) []*Tensor { return one(castTo(c.in[0], c.in[1].F != nil, false)) },
	"Identity": func(c *call) []*Tensor { return one(c.in[0]) },
	"Dropout":  dropout,
}

func mapFloats(t *Tensor, f func(float64) float64) *Tensor {
	if t.F == nil {
		fail("it needs floats")
	}
	out := newFloats(t.Shape)
	for i, x := range t.F {
		out.F[i] = f(x)
	}
	return out
}

func mapInts(t *Tensor, f func(int64) int64) *Tensor {
	out := newInts(t.Shape)
	for i, x := range t.I {
		out.I[i] = f(x)
	}
	return out
}

// unary applies f to floats and g to integers; nil where the operator has no such form.
func unary(f func(float64) float64, g func(int64) int64) kernel {
	return func(c *call) []*Tensor {
		if c.in[0].F == nil && g != nil {
			return one(mapInts(c.in[0], g))
		}
		return one(mapFloats(c.in[0], f))
	}
}

// zip applies f or g to two broadcast tensors of the same kind.
func zip(a, b *Tensor, f func(a, b float64) float64, g func(a, b int64) int64) *Tensor {
	if (a.F == nil) != (b.F == nil) {
		fail("floats meet integers")
	}
	out := newLike(a, broadcast(a.Shape, b.Shape))
	i := 0
	each(out.Shape, func(index []int64) {
		p, q := offset(a.Shape, index), offset(b.Shape, index)
		if out.F != nil {
			out.F[i] = f(a.F[p], b.F[q])
		} else {
			out.I[i] = g(a.I[p], b.I[q])
		}
		i++
	})
	return out
}

func arithmetic(f func(a, b float64) float64, g func(a, b int64) int64) kernel {
	return func(c *call) []*Tensor { return one(zip(c.in[0], c.in[1], f, g)) }
}

func variadic(f func(a, b float64) float64, g func(a, b int64) int64) kernel {
	return func(c *call) []*Tensor {
		out := c.in[0]
		for _, t := range c.in[1:] {
			out = zip(out, t, f, g)
		}
		return one(out)
	}
}

// pow takes base and exponent of different kinds; the result is of the base's.
func pow(c *call) []*Tensor {
	base, exponent := castTo(c.in[0], true, false), castTo(c.in[1], true, false)
	return one(castTo(zip(base, exponent, math.Pow, nil), c.in[0].F != nil, false))
}

// mod has the sign of the divisor, or of the dividend with fmod=1.
func mod(c *call) []*Tensor {
	fmod := c.Int("fmod", 0) != 0
	return one(zip(c.in[0], c.in[1], math.Mod, func(a, b int64) int64 {
		r := a % b
		if !fmod && r != 0 && (r < 0) != (b < 0) {
			r += b
		}
		return r
	}))
}

func sign(x float64) float64 {
	switch {
	case x > 0:
		return 1
	case x < 0:
		return -1
	}
	return 0
}

func clip(c *call) []*Tensor {
	out := c.in[0]
	if low := c.arg(1); low != nil {
		out = zip(out, low, math.Max, func(a, b int64) int64 { return max(a, b) })
	}
	if high := c.arg(2); high != nil {
		out = zip(out, high, math.Min, func(a, b int64) int64 { return min(a, b) })
	}
	return one(out)
}

func where(c *call) []*Tensor {
	cond, yes, no := c.in[0], c.in[1], c.in[2]
	out := newLike(yes, broadcast(cond.Shape, yes.Shape, no.Shape))
	i := int64(0)
	each(out.Shape, func(index []int64) {
		src := no
		if cond.I[offset(cond.Shape, index)] != 0 {
			src = yes
		}
		out.set(i, src, offset(src.Shape, index))
		i++
	})
	return one(out)
}

func cast(c *call) []*Tensor {
	to := onnx.DataType(c.Int("to", 0))
	return one(castTo(c.in[0], to.IsFloat(), to == onnx.Bool))
}

// castTo converts between the kinds: floats are truncated towards zero, and everything but zero is a true bool.
func castTo(t *Tensor, float, boolean bool) *Tensor {
	switch {
	case boolean:
		out := newInts(t.Shape)
		for i := range out.I {
			if t.F != nil && t.F[i] != 0 || t.F == nil && t.I[i] != 0 {
				out.I[i] = 1
			}
		}
		return out
	case float == (t.F != nil):
		return t
	case float:
		out := newFloats(t.Shape)
		for i, v := range t.I {
			out.F[i] = float64(v)
		}
		return out
	}
	out := newInts(t.Shape)
	for i, v := range t.F {
		out.I[i] = int64(v)
	}
	return out
}

// dropout is the identity: outside of training, or with a ratio of zero.
func dropout(c *call) []*Tensor {
	if training := c.arg(2); training != nil && training.I[0] != 0 && (c.arg(1) == nil || c.arg(1).F[0] != 0) {
		fail("random dropout has no reference")
	}
	mask := newInts(c.in[0].Shape)
	for i := range mask.I {
		mask.I[i] = 1
	}
	return []*Tensor{c.in[0], mask}
}
