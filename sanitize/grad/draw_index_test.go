package grad_test

import (
	"slices"

	"pgregory.net/rapid"

	"grindstone/sanitize/onnx"
	"grindstone/sanitize/onnx/reference"
)

// Samples of operators that read indices.

// indices draws numbers from -n to n-1.
func indices(t *rapid.T, n int64, shape ...int64) *onnx.Tensor {
	v := make([]int64, count(shape))
	for i := range v {
		v[i] = rapid.Int64Range(-n, n-1).Draw(t, "index")
	}
	return onnx.NewInt64("index", shape, v)
}

// computed lets the sample's indices be an input of the graph now and then.
func computed(t *rapid.T, s sample) sample {
	if rapid.Bool().Draw(t, "computed") {
		c := s.constants[0]
		s.constants, s.fed = s.constants[1:], map[string]*reference.Tensor{c.Name: reference.Ints(c.Shape, c.Ints())}
	}
	return s
}

// resolved is a shape, an axis of it, possibly negative, and the same axis counted from the beginning.
func resolved(t *rapid.T) (x []int64, a int64, at int) {
	x = fullShape(t)
	a = drawAxis(t, len(x))
	at = int(a)
	if at < 0 {
		at += len(x)
	}
	return x, a, at
}

func drawGather(t *rapid.T) sample {
	x, a, at := resolved(t)
	return computed(t, move("Gather", x, []*onnx.Tensor{indices(t, x[at], shape(t, rapid.IntRange(0, 2).Draw(t, "rank"))...)}, onnx.I("axis", a)))
}

func drawGatherElements(t *rapid.T) sample {
	x, a, at := resolved(t)
	picks := slices.Clone(x)
	picks[at] = dim(t)
	return computed(t, move("GatherElements", x, []*onnx.Tensor{indices(t, x[at], picks...)}, onnx.I("axis", a)))
}

func drawGatherND(t *rapid.T) sample {
	x := shape(t, 3)
	batch := rapid.IntRange(0, 1).Draw(t, "batch")
	depth := rapid.IntRange(1, 3-batch).Draw(t, "depth")
	at := append(slices.Clone(x[:batch]), dim(t), int64(depth))
	v := make([]int64, count(at))
	for i := range v {
		n := x[batch+i%depth]
		v[i] = rapid.Int64Range(-n, n-1).Draw(t, "index")
	}
	return computed(t, move("GatherND", x, []*onnx.Tensor{onnx.NewInt64("index", at, v)}, onnx.I("batch_dims", int64(batch))))
}

// permutation is a list of some of 0 to n-1, none of them twice.
func permutation(t *rapid.T, n, k int64) []int64 {
	p := make([]int64, n)
	for i := range p {
		p[i] = int64(i)
	}
	return rapid.Permutation(p).Draw(t, "permutation")[:k]
}

func drawScatterElements(t *rapid.T) sample {
	x, a, at := resolved(t)
	reduction := rapid.SampledFrom([]string{"none", "add"}).Draw(t, "reduction")
	picks := slices.Clone(x)
	var index *onnx.Tensor
	if reduction == "add" {
		picks[at] = dim(t)
		index = indices(t, x[at], picks...)
	} else { // the order of repeated indices is not defined
		picks[at] = rapid.Int64Range(1, x[at]).Draw(t, "picks")
		order := permutation(t, x[at], picks[at])
		v := make([]int64, count(picks))
		inner := count(picks[at+1:])
		for i := range v {
			v[i] = order[int64(i)/inner%picks[at]]
		}
		index = onnx.NewInt64("index", picks, v)
	}
	s := move("ScatterElements", x, []*onnx.Tensor{index}, onnx.I("axis", a), onnx.S("reduction", reduction))
	s.node.Inputs = append(s.node.Inputs, "updates")
	s.inputs["updates"], s.wrt = picks, append(s.wrt, "updates")
	return computed(t, s)
}

func drawScatterND(t *rapid.T) sample {
	x := append([]int64{dim(t), dim(t)}, shape(t, rapid.IntRange(0, 1).Draw(t, "more"))...)
	reduction := rapid.SampledFrom([]string{"none", "add"}).Draw(t, "reduction")
	depth := rapid.Int64Range(1, 2).Draw(t, "depth")
	total := count(x[:depth])
	k := rapid.Int64Range(1, total).Draw(t, "picks")
	var v []int64
	for _, p := range permutation(t, total, k) {
		if reduction == "add" && rapid.Bool().Draw(t, "again") {
			p = 0
		}
		if depth == 2 {
			v = append(v, p/x[1])
			p %= x[1]
		}
		v = append(v, p)
	}
	s := move("ScatterND", x, []*onnx.Tensor{onnx.NewInt64("index", []int64{k, depth}, v)}, onnx.S("reduction", reduction))
	s.node.Inputs = append(s.node.Inputs, "updates")
	s.inputs["updates"], s.wrt = append([]int64{k}, x[depth:]...), append(s.wrt, "updates")
	return computed(t, s)
}

func drawTopK(t *rapid.T) sample {
	x, a, at := resolved(t)
	s := move("TopK", x, []*onnx.Tensor{ints("k", []int64{rapid.Int64Range(1, x[at]).Draw(t, "k")})}, onnx.I("axis", a), onnx.I("largest", rapid.Int64Range(0, 1).Draw(t, "largest")))
	s.node.Outputs = []string{"y0", "y1"}[:rapid.IntRange(1, 2).Draw(t, "outputs")]
	kinks(&s)
	return s
}

func drawOneHot(t *rapid.T) sample {
	at := shape(t, rapid.IntRange(1, 2).Draw(t, "rank"))
	s := sample{node: node("OneHot", 1, []string{"index", "depth", "values"}, onnx.I("axis", drawAxis(t, len(at)+1))), inputs: map[string][]int64{"values": {2}}, wrt: []string{"values"}}
	s.constants = []*onnx.Tensor{indices(t, 4, at...), ints("depth", []int64{4})}
	return s
}

func drawCompress(t *rapid.T) sample {
	x, a, at := resolved(t)
	n := x[at]
	s := move("Compress", x, nil)
	if rapid.Bool().Draw(t, "axis") {
		s.node.Attrs = append(s.node.Attrs, onnx.I("axis", a))
	} else {
		n = count(x)
	}
	keep := make([]bool, rapid.Int64Range(1, n).Draw(t, "length"))
	for i := range keep {
		keep[i] = i == 0 || rapid.Bool().Draw(t, "keep")
	}
	s.node.Inputs, s.constants = append(s.node.Inputs, "keep"), []*onnx.Tensor{onnx.NewBool("keep", []int64{int64(len(keep))}, keep)}
	return s
}
