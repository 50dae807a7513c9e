package reference

import (
	"math"
	"slices"
)

var reductions = map[string]kernel{
	"ReduceSum":       reduce(0, func(acc, x float64) float64 { return acc + x }, keep),
	"ReduceMean":      reduce(0, func(acc, x float64) float64 { return acc + x }, func(acc, n float64) float64 { return acc / n }),
	"ReduceMax":       reduce(math.Inf(-1), math.Max, keep),
	"ReduceMin":       reduce(math.Inf(1), math.Min, keep),
	"ReduceProd":      reduce(1, func(acc, x float64) float64 { return acc * x }, keep),
	"ReduceSumSquare": reduce(0, func(acc, x float64) float64 { return acc + x*x }, keep),
	"ReduceL1":        reduce(0, func(acc, x float64) float64 { return acc + math.Abs(x) }, keep),
	"ReduceL2":        reduce(0, func(acc, x float64) float64 { return acc + x*x }, func(acc, _ float64) float64 { return math.Sqrt(acc) }),
	"ReduceLogSum":    reduce(0, func(acc, x float64) float64 { return acc + x }, func(acc, _ float64) float64 { return math.Log(acc) }),
	"ReduceLogSumExp": reduce(0, func(acc, x float64) float64 { return acc + math.Exp(x) }, func(acc, _ float64) float64 { return math.Log(acc) }),
	"ArgMax":          argBest(func(a, b float64) bool { return a > b }),
	"ArgMin":          argBest(func(a, b float64) bool { return a < b }),
	"CumSum":          cumSum,
	"TopK":            topK,
}

func keep(acc, _ float64) float64 { return acc }

// reduce folds the axes with step, from start, and finishes with the number of elements folded. The axes are an attribute, or the
// second input (ReduceSum from opset 13, the others from 18); without them, all.
func reduce(start float64, step, finish func(acc, x float64) float64) kernel {
	return func(c *call) []*Tensor {
		x := castTo(c.in[0], true, false)
		axes := c.Ints("axes")
		if t := c.arg(1); t != nil {
			axes = t.I
		}
		if len(axes) == 0 {
			if c.Int("noop_with_empty_axes", 0) != 0 {
				return one(c.in[0])
			}
			for i := range x.Shape {
				axes = append(axes, int64(i))
			}
		}
		kept := slices.Clone(x.Shape)
		n := int64(1)
		for _, a := range axesOf(axes, len(x.Shape)) {
			n *= kept[a]
			kept[a] = 1
		}
		out := newFloats(kept)
		for i := range out.F {
			out.F[i] = start
		}
		i := 0
		each(x.Shape, func(index []int64) {
			at := offset(kept, index)
			out.F[at] = step(out.F[at], x.F[i])
			i++
		})
		for i := range out.F {
			out.F[i] = finish(out.F[i], float64(n))
		}
		out = castTo(out, c.in[0].F != nil, false)
		if c.Int("keepdims", 1) == 0 {
			out = out.reshaped(drop(kept, axesOf(axes, len(kept)))...)
		}
		return one(out)
	}
}

// drop is shape without the given dimensions.
func drop(shape []int64, axes []int) []int64 {
	out := []int64{}
	for i, d := range shape {
		if !slices.Contains(axes, i) {
			out = append(out, d)
		}
	}
	return out
}

func argBest(better func(a, b float64) bool) kernel {
	return func(c *call) []*Tensor {
		x := castTo(c.in[0], true, false)
		axis := axisOf(c.Int("axis", 0), len(x.Shape))
		last := c.Int("select_last_index", 0) != 0
		outer, n, inner := split3(x.Shape, axis)
		out := newInts(with(x.Shape, axis, 1))
		for o := range outer {
			for i := range inner {
				at := func(k int64) float64 { return x.F[(o*n+k)*inner+i] }
				best := int64(0)
				for k := int64(1); k < n; k++ {
					if better(at(k), at(best)) || last && at(k) == at(best) {
						best = k
					}
				}
				out.I[o*inner+i] = best
			}
		}
		if c.Int("keepdims", 1) == 0 {
			out = out.reshaped(drop(out.Shape, []int{axis})...)
		}
		return one(out)
	}
}

func cumSum(c *call) []*Tensor {
	x := castTo(c.in[0], true, false)
	outer, n, inner := split3(x.Shape, axisOf(c.in[1].I[0], len(x.Shape)))
	exclusive, reverse := c.Int("exclusive", 0) != 0, c.Int("reverse", 0) != 0
	out := newFloats(x.Shape)
	for o := range outer {
		for i := range inner {
			sum := 0.0
			for k := range n {
				if reverse {
					k = n - 1 - k
				}
				at := (o*n+k)*inner + i
				before := sum
				sum += x.F[at]
				if out.F[at] = sum; exclusive {
					out.F[at] = before
				}
			}
		}
	}
	return one(castTo(out, c.in[0].F != nil, false))
}

// topK returns the k largest (or smallest) elements along an axis in order, ties by lower index, and their indices.
func topK(c *call) []*Tensor {
	x, k := c.in[0], c.in[1].I[0]
	axis := axisOf(c.Int("axis", -1), len(x.Shape))
	largest := c.Int("largest", 1) != 0
	v := castTo(x, true, false).F
	outer, n, inner := split3(x.Shape, axis)
	values, indices := newLike(x, with(x.Shape, axis, k)), newInts(with(x.Shape, axis, k))
	for o := range outer {
		for i := range inner {
			order := make([]int64, n)
			for j := range order {
				order[j] = int64(j)
			}
			at := func(j int64) int64 { return (o*n+j)*inner + i }
			slices.SortStableFunc(order, func(a, b int64) int {
				d := sign(v[at(a)] - v[at(b)])
				if largest {
					d = -d
				}
				return int(d)
			})
			for j := range k {
				to := (o*k+j)*inner + i
				values.set(to, x, at(order[j]))
				indices.I[to] = order[j]
			}
		}
	}
	return []*Tensor{values, indices}
}
