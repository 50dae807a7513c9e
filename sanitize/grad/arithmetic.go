package grad

import "grindstone/sanitize/onnx"

// Arithmetic of two or more operands, which broadcast as NumPy does.

// broadcasting returns the gradients of a node's operands, each emitted only if it is asked for, and brings them from the output's shape to
// the operands' own. A nil function stands for an operand without gradient.
func (t *Tape) broadcasting(n *onnx.Node, emit ...func() string) []string {
	g := make([]string, len(n.Inputs))
	for i := range n.Inputs {
		if emit[i] == nil {
			continue
		}
		g[i] = t.lazy(n, i, func() string { return t.unbroadcast(emit[i](), t.Shape(n.Outputs[0]), t.Shape(n.Inputs[i])) })
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

func same(g string) func() string { return func() string { return g } }

func addGrad(t *Tape, n *onnx.Node, dy []string) []string {
	return t.broadcasting(n, same(dy[0]), same(dy[0]))
}

func subGrad(t *Tape, n *onnx.Node, dy []string) []string {
	return t.broadcasting(n, same(dy[0]), func() string { return t.neg(dy[0]) })
}

func mulGrad(t *Tape, n *onnx.Node, dy []string) []string {
	a, b := t.Ref(n.Inputs[0]), t.Ref(n.Inputs[1])
	return t.broadcasting(n, func() string { return t.mul(dy[0], b) }, func() string { return t.mul(dy[0], a) })
}

func divGrad(t *Tape, n *onnx.Node, dy []string) []string {
	q := t.div(dy[0], t.Ref(n.Inputs[1]))
	return t.broadcasting(n, same(q), func() string { return t.neg(t.mul(q, t.Ref(n.Outputs[0]))) })
}

// powGrad: d(x^e) = e*x^(e-1) dx + x^e*log(x) de. The exponent may be of another type. A zero exponent makes a constant, whatever x is, and
// the logarithm is left out where x is not positive.
func powGrad(t *Tape, n *onnx.Node, dy []string) []string {
	x, y := t.Ref(n.Inputs[0]), t.Ref(n.Outputs[0])
	e := func() string { return t.op("CastLike", t.Ref(n.Inputs[1]), x) }
	return t.broadcasting(n,
		func() string {
			if c := t.constants[n.Inputs[1]]; c != nil && size(c.Shape) == 1 {
				switch v := c.Doubles()[0]; v {
				case 0:
					return t.scale(dy[0], 0)
				case 1:
					return dy[0]
				case 2:
					return t.mul(dy[0], t.scale(x, 2))
				default:
					return t.mul(dy[0], t.scale(t.op("Pow", x, t.float(v-1)), v))
				}
			}
			e := e()
			slope := t.mul(e, t.op("Pow", x, t.sub(e, t.float(1))))
			return t.mul(dy[0], t.where(t.op("Equal", e, t.float(0)), t.float(0), slope))
		},
		func() string {
			positive := t.positive(x)
			return t.mul(dy[0], t.where(positive, t.mul(y, t.op("Log", t.where(positive, x, t.float(1)))), t.float(0)))
		})
}

// modGrad: with fmod=1, the only form for floats, y = a - b*trunc(a/b).
func modGrad(t *Tape, n *onnx.Node, dy []string) []string {
	return t.broadcasting(n, same(dy[0]), func() string {
		a, b := t.Ref(n.Inputs[0]), t.Ref(n.Inputs[1])
		whole := t.op("Round", t.div(t.sub(a, t.Ref(n.Outputs[0])), b))
		return t.neg(t.mul(dy[0], whole))
	})
}

func sumGrad(t *Tape, n *onnx.Node, dy []string) []string {
	return t.broadcasting(n, repeat(len(n.Inputs), same(dy[0]))...)
}

func meanGrad(t *Tape, n *onnx.Node, dy []string) []string {
	return t.broadcasting(n, repeat(len(n.Inputs), same(t.scale(dy[0], 1/float64(len(n.Inputs)))))...)
}

func repeat(n int, emit func() string) []func() string {
	all := make([]func() string, n)
	for i := range all {
		all[i] = emit
	}
	return all
}

// extremeGrad serves Max and Min: the gradient goes to the operands that are the extreme, in equal parts where several are.
func extremeGrad(t *Tape, n *onnx.Node, dy []string) []string {
	if len(n.Inputs) == 1 {
		return dy[:1]
	}
	y := t.Ref(n.Outputs[0])
	masks, count := make([]string, len(n.Inputs)), ""
	for i, in := range n.Inputs {
		masks[i] = t.indicator(t.op("Equal", t.Ref(in), y))
		if i == 0 {
			count = masks[i]
		} else {
			count = t.add(count, masks[i])
		}
	}
	share := t.div(dy[0], count)
	emit := make([]func() string, len(n.Inputs))
	for i := range emit {
		emit[i] = func() string { return t.mul(share, masks[i]) }
	}
	return t.broadcasting(n, emit...)
}

// whereGrad: the condition gets none.
func whereGrad(t *Tape, n *onnx.Node, dy []string) []string {
	c := t.Ref(n.Inputs[0])
	return t.broadcasting(n, nil,
		func() string { return t.where(c, dy[0], t.float(0)) },
		func() string { return t.where(c, t.float(0), dy[0]) })
}
