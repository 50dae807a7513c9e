package reference

import (
	"slices"
	"strings"
)

var products = map[string]kernel{
	"MatMul": matMul,
	"Gemm":   gemm,
	"Einsum": einsum,
}

// matMul is numpy.matmul: batches broadcast; a vector is a row on the left and a column on the right, and that dimension disappears.
func matMul(c *call) []*Tensor {
	a, b := castTo(c.in[0], true, false), castTo(c.in[1], true, false)
	row, column := len(a.Shape) == 1, len(b.Shape) == 1
	if row {
		a = a.reshaped(1, a.Shape[0])
	}
	if column {
		b = b.reshaped(b.Shape[0], 1)
	}
	ra, rb := len(a.Shape), len(b.Shape)
	m, k, n := a.Shape[ra-2], a.Shape[ra-1], b.Shape[rb-1]
	if b.Shape[rb-2] != k {
		fail("shapes %v and %v do not multiply", a.Shape, b.Shape)
	}
	batch := broadcast(a.Shape[:ra-2], b.Shape[:rb-2])
	out := newFloats(append(slices.Clone(batch), m, n))
	at := int64(0)
	each(batch, func(index []int64) {
		p, q := offset(a.Shape[:ra-2], index)*m*k, offset(b.Shape[:rb-2], index)*k*n
		for i := range m {
			for j := range n {
				for l := range k {
					out.F[at] += a.F[p+i*k+l] * b.F[q+l*n+j]
				}
				at++
			}
		}
	})
	shape := batch
	if !row {
		shape = append(shape, m)
	}
	if !column {
		shape = append(shape, n)
	}
	return one(castTo(out.reshaped(shape...), c.in[0].F != nil, false))
}

// gemm is alpha*A'*B' + beta*C for matrices, transposed where transA and transB say so.
func gemm(c *call) []*Tensor {
	a, b := c.in[0], c.in[1]
	if c.Int("transA", 0) != 0 {
		a = transposed(a, []int64{1, 0})
	}
	if c.Int("transB", 0) != 0 {
		b = transposed(b, []int64{1, 0})
	}
	out := matMul(&call{in: []*Tensor{a, b}})[0]
	alpha, beta := float64(c.Float("alpha", 1)), float64(c.Float("beta", 1))
	out = mapFloats(out, func(x float64) float64 { return alpha * x })
	if bias := c.arg(2); bias != nil {
		out = zip(out, bias, func(x, b float64) float64 { return x + beta*b }, nil)
	}
	return one(out)
}

// einsum sums the products over all indices that the right side does not name. An ellipsis stands for broadcast dimensions, which
// get names of their own here.
func einsum(c *call) []*Tensor {
	equation := strings.ReplaceAll(c.String("equation", ""), " ", "")
	left, right, explicit := strings.Cut(equation, "->")
	terms := strings.Split(left, ",")
	if len(terms) != len(c.in) {
		fail("equation %q has %d terms for %d inputs", equation, len(terms), len(c.in))
	}
	const dots = "αβγδεζηθικλμ" // names of ellipsis dimensions, aligned at the end
	widest := 0
	labels := make([][]rune, len(terms))
	for i, term := range terms {
		extra := len(c.in[i].Shape) - len(strings.ReplaceAll(term, "...", ""))
		widest = max(widest, extra)
		labels[i] = []rune(strings.ReplaceAll(term, "...", string([]rune(dots)[12-extra:])))
	}
	var output []rune
	if explicit {
		output = []rune(strings.ReplaceAll(right, "...", string([]rune(dots)[12-widest:])))
	} else {
		output = implicitOutput(labels, string([]rune(dots)[12-widest:]))
	}
	sizes := map[rune]int64{}
	all := slices.Clone(output)
	for i, t := range c.in {
		for j, l := range labels[i] {
			if !slices.Contains(all, l) {
				all = append(all, l)
			}
			if d := t.Shape[j]; sizes[l] <= 1 {
				sizes[l] = d
			} else if d != 1 && d != sizes[l] {
				fail("equation %q: %c is %d and %d", equation, l, sizes[l], d)
			}
		}
	}
	dims := func(ls []rune) (shape []int64) {
		shape = []int64{}
		for _, l := range ls {
			shape = append(shape, sizes[l])
		}
		return shape
	}
	out := newFloats(dims(output))
	each(dims(all), func(index []int64) {
		at := func(shape []int64, ls []rune) int64 {
			own := make([]int64, len(ls))
			for j, l := range ls {
				own[j] = index[slices.Index(all, l)]
			}
			return offset(shape, own)
		}
		p := 1.0
		for i, t := range c.in {
			p *= t.F[at(t.Shape, labels[i])]
		}
		out.F[at(out.Shape, output)] += p
	})
	return one(out)
}

// implicitOutput holds the ellipsis and then the letters that occur once, in alphabetical order.
func implicitOutput(labels [][]rune, dots string) []rune {
	count := map[rune]int{}
	for _, ls := range labels {
		for _, l := range ls {
			count[l]++
		}
	}
	var once []rune
	for l, n := range count {
		if n == 1 && l < 0x80 {
			once = append(once, l)
		}
	}
	slices.Sort(once)
	return append([]rune(dots), once...)
}
