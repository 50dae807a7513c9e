package reference

import "math"

var comparisons = map[string]kernel{
	"Equal":          compare(func(a, b float64) bool { return a == b }, func(a, b int64) bool { return a == b }),
	"Greater":        compare(func(a, b float64) bool { return a > b }, func(a, b int64) bool { return a > b }),
	"Less":           compare(func(a, b float64) bool { return a < b }, func(a, b int64) bool { return a < b }),
	"GreaterOrEqual": compare(func(a, b float64) bool { return a >= b }, func(a, b int64) bool { return a >= b }),
	"LessOrEqual":    compare(func(a, b float64) bool { return a <= b }, func(a, b int64) bool { return a <= b }),
	"And":            compare(nil, func(a, b int64) bool { return a != 0 && b != 0 }),
	"Or":             compare(nil, func(a, b int64) bool { return a != 0 || b != 0 }),
	"Xor":            compare(nil, func(a, b int64) bool { return (a != 0) != (b != 0) }),
	"Not":            func(c *call) []*Tensor { return one(mapInts(c.in[0], func(x int64) int64 { return truth(x == 0) })) },
	"IsNaN":          test(math.IsNaN),
	"IsInf":          test(func(x float64) bool { return math.IsInf(x, 0) }),
}

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func compare(f func(a, b float64) bool, g func(a, b int64) bool) kernel {
	return func(c *call) []*Tensor {
		a, b := c.in[0], c.in[1]
		out := newInts(broadcast(a.Shape, b.Shape))
		i := 0
		each(out.Shape, func(index []int64) {
			p, q := offset(a.Shape, index), offset(b.Shape, index)
			if a.F != nil {
				out.I[i] = truth(f(a.F[p], b.F[q]))
			} else {
				out.I[i] = truth(g(a.I[p], b.I[q]))
			}
			i++
		})
		return one(out)
	}
}

func test(f func(float64) bool) kernel {
	return func(c *call) []*Tensor {
		out := newInts(c.in[0].Shape)
		for i, x := range c.in[0].F {
			out.I[i] = truth(f(x))
		}
		return one(out)
	}
}
