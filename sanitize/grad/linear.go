package grad

import "grindstone/sanitize/onnx"

// gemmGrad: Y = alpha*A'B' + beta*C, where ' transposes as transA and transB say.
func gemmGrad(t *Tape, n *onnx.Node, dy []string) []string {
	a, b := t.Ref(n.Inputs[0]), t.Ref(n.Inputs[1])
	transA, transB := n.Int("transA", 0), n.Int("transB", 0)
	alpha := n.Float("alpha", 1)
	gemm := func(x, y string, tx, ty int64) string {
		return t.B.Op("Gemm", []string{x, y}, onnx.F("alpha", alpha), onnx.I("transA", tx), onnx.I("transB", ty))
	}
	g := make([]string, len(n.Inputs))
	g[0] = t.lazy(n, 0, func() string {
		if transA == 0 {
			return gemm(dy[0], b, 0, 1-transB)
		}
		return gemm(b, dy[0], transB, 1)
	})
	g[1] = t.lazy(n, 1, func() string {
		if transB == 0 {
			return gemm(a, dy[0], 1-transA, 0)
		}
		return gemm(dy[0], a, 1, transA)
	})
	if len(n.Inputs) > 2 {
		g[2] = t.lazy(n, 2, func() string {
			d := t.scale(dy[0], float64(n.Float("beta", 1)))
			return t.unbroadcast(d, t.Shape(n.Outputs[0]), t.Shape(n.Inputs[2]))
		})
	}
	return g
}

// matMulGrad: batched product with broadcasting; a one-dimensional operand stands for a row (left) or a column (right).
func matMulGrad(t *Tape, n *onnx.Node, dy []string) []string {
	sa, sb, sy := t.Shape(n.Inputs[0]), t.Shape(n.Inputs[1]), t.Shape(n.Outputs[0])
	a, b, g := t.Ref(n.Inputs[0]), t.Ref(n.Inputs[1]), dy[0]

	batch := sy[:len(sy)-min(2, max(len(sa)-1, 0)+max(len(sb)-1, 0))]
	if len(sa) > 1 && len(sb) > 1 {
		batch = sy[:len(sy)-2]
	} else if len(sa) > 1 || len(sb) > 1 {
		batch = sy[:len(sy)-1]
	}
	rows, cols := int64(1), int64(1)
	if len(sa) == 1 {
		sa = []int64{1, sa[0]}
		a = t.reshape(a, sa...)
	} else {
		rows = sa[len(sa)-2]
	}
	if len(sb) == 1 {
		sb = []int64{sb[0], 1}
		b = t.reshape(b, sb...)
	} else {
		cols = sb[len(sb)-1]
	}
	full := append(append([]int64{}, batch...), rows, cols)
	if len(full) != len(sy) {
		g = t.reshape(g, full...)
	}
	return []string{
		t.lazy(n, 0, func() string {
			d := t.op("MatMul", g, t.swapLast(b, len(sb)))
			return t.reshapeLike(t.unbroadcast(d, append(dims(batch), rows, sa[len(sa)-1]), sa), n.Inputs[0])
		}),
		t.lazy(n, 1, func() string {
			if len(sb) == 2 && len(sa) > 2 { // one product over all rows instead of a batch of products and a sum
				k := sa[len(sa)-1]
				d := t.B.Op("Gemm", []string{t.reshape(a, -1, k), t.reshape(g, -1, cols)}, onnx.I("transA", 1))
				return t.reshapeLike(d, n.Inputs[1])
			}
			d := t.op("MatMul", t.swapLast(a, len(sa)), g)
			return t.reshapeLike(t.unbroadcast(d, append(dims(batch), sb[len(sb)-2], cols), sb), n.Inputs[1])
		}),
	}
}

// swapLast transposes the last two axes.
func (t *Tape) swapLast(a string, rank int) string {
	perm := sequence(rank)
	perm[rank-1], perm[rank-2] = perm[rank-2], perm[rank-1]
	return t.transpose(a, perm...)
}
