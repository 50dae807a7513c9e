package reference

import "math"

var activations = map[string]kernel{
	"Relu":     unary(func(x float64) float64 { return max(x, 0) }, func(x int64) int64 { return max(x, 0) }),
	"Sigmoid":  unary(sigmoid, nil),
	"Tanh":     unary(math.Tanh, nil),
	"Softplus": unary(softplus, nil),
	"Softsign": unary(func(x float64) float64 { return x / (1 + math.Abs(x)) }, nil),
	"Gelu":     gelu,
	"HardSwish": unary(func(x float64) float64 {
		return x * max(0, min(1, x/6+0.5))
	}, nil),
	"Mish": unary(func(x float64) float64 { return x * math.Tanh(softplus(x)) }, nil),

	"LeakyRelu": parametric(0.01, 0, func(x, alpha, _ float64) float64 {
		if x < 0 {
			return alpha * x
		}
		return x
	}),
	"Elu": parametric(1, 0, func(x, alpha, _ float64) float64 {
		if x < 0 {
			return alpha * math.Expm1(x)
		}
		return x
	}),
	"Celu": parametric(1, 0, func(x, alpha, _ float64) float64 {
		return max(0, x) + min(0, alpha*math.Expm1(x/alpha))
	}),
	"Selu": func(c *call) []*Tensor {
		alpha, gamma := float64(c.Float("alpha", 1.67326319217681884765625)), float64(c.Float("gamma", 1.05070102214813232421875))
		return one(mapFloats(c.in[0], func(x float64) float64 {
			if x <= 0 {
				return gamma * alpha * math.Expm1(x)
			}
			return gamma * x
		}))
	},
	"ThresholdedRelu": parametric(1, 0, func(x, alpha, _ float64) float64 {
		if x > alpha {
			return x
		}
		return 0
	}),
	"Shrink": func(c *call) []*Tensor {
		lambd, bias := float64(c.Float("lambd", 0.5)), float64(c.Float("bias", 0))
		return one(mapFloats(c.in[0], func(x float64) float64 {
			switch {
			case x < -lambd:
				return x + bias
			case x > lambd:
				return x - bias
			}
			return 0
		}))
	},
	"HardSigmoid": parametric(0.2, 0.5, func(x, alpha, beta float64) float64 { return max(0, min(1, alpha*x+beta)) }),
	"PRelu": func(c *call) []*Tensor {
		return one(zip(c.in[0], c.in[1], func(x, slope float64) float64 {
			if x < 0 {
				return slope * x
			}
			return x
		}, nil))
	},
}

// parametric applies f with the attributes alpha and beta.
func parametric(alpha, beta float32, f func(x, alpha, beta float64) float64) kernel {
	return func(c *call) []*Tensor {
		a, b := float64(c.Float("alpha", alpha)), float64(c.Float("beta", beta))
		return one(mapFloats(c.in[0], func(x float64) float64 { return f(x, a, b) }))
	}
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// softplus is ln(1+exp(x)), without overflow.
func softplus(x float64) float64 { return max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }

// gelu belongs to opset 20; exporters of later opsets keep it and the normalizer spells it out.
func gelu(c *call) []*Tensor {
	if c.String("approximate", "none") == "tanh" {
		return one(mapFloats(c.in[0], func(x float64) float64 {
			return x / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
		}))
	}
	return one(mapFloats(c.in[0], func(x float64) float64 { return x / 2 * (1 + math.Erf(x/math.Sqrt2)) }))
}
