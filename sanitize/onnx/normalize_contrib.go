package onnx

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Operators of ONNX Runtime's own that its optimizer leaves in models it saves (https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md),
// spelled out in those of the standard.
var contributed = map[string]struct {
	fewest int // inputs
	spell  func(u *upgrade, n *Node) (*Node, error)
}{
	"BiasGelu":               {2, (*upgrade).biasGelu},
	"FastGelu":               {1, (*upgrade).biasGelu},
	"FusedConv":              {2, (*upgrade).fusedConv},
	"FusedGemm":              {2, (*upgrade).fusedGemm},
	"FusedMatMul":            {2, (*upgrade).fusedMatMul},
	"Gelu":                   {1, (*upgrade).gelu},
	"QuickGelu":              {1, (*upgrade).quickGelu},
	"SkipLayerNormalization": {3, (*upgrade).skipLayerNormalization},
}

// Contributed returns the names of ONNX Runtime's own operators that Normalize spells out.
func Contributed() []string { return slices.Sorted(maps.Keys(contributed)) }

// biasGelu: BiasGelu adds its second input before a GELU, FastGelu does so where there is one, and approximates by the hyperbolic tangent.
func (u *upgrade) biasGelu(n *Node) (*Node, error) {
	c := *n
	if n.Input(1) != "" {
		c.Inputs = []string{u.op(n, "Add", n.Inputs[:2])}
	}
	if n.Op == "FastGelu" {
		c.Attrs = []*Attr{S("approximate", "tanh")}
	}
	return u.gelu(&c)
}

func (u *upgrade) quickGelu(n *Node) (*Node, error) {
	gate := u.op(n, "Sigmoid", []string{u.op(n, "Mul", []string{n.Inputs[0], u.scalar(n, "alpha", n.Float("alpha", 1.702))})})
	return n.last("Mul", []string{n.Inputs[0], gate})
}

// activated is the node of a fused operator's activation, with its parameters.
func (u *upgrade) activated(n *Node, x string, parameters []float32) (*Node, error) {
	need := map[string]int{"": 0, "Relu": 0, "Sigmoid": 0, "Tanh": 0, "LeakyRelu": 1, "Clip": 2, "HardSigmoid": 2}
	op := n.String("activation", "")
	count, known := need[op]
	switch {
	case !known:
		return nil, fmt.Errorf("activation %s is not supported", op)
	case len(parameters) < count:
		return nil, fmt.Errorf("%d parameters of the activation %s", len(parameters), op)
	}
	switch op {
	case "":
		return n.last("Identity", []string{x})
	case "LeakyRelu":
		return n.last(op, []string{x}, F("alpha", parameters[0]))
	case "HardSigmoid":
		return n.last(op, []string{x}, F("alpha", parameters[0]), F("beta", parameters[1]))
	case "Clip":
		return n.last(op, []string{x, u.scalar(n, "min", parameters[0]), u.scalar(n, "max", parameters[1])})
	}
	return n.last(op, []string{x})
}

// fusedConv: a convolution, plus the fourth input, then the activation.
func (u *upgrade) fusedConv(n *Node) (*Node, error) {
	y := u.op(n, "Conv", n.Inputs[:min(len(n.Inputs), 3)], n.replace(nil, "activation", "activation_params").Attrs...)
	if n.Input(3) != "" {
		y = u.op(n, "Add", []string{y, n.Inputs[3]})
	}
	var parameters []float32
	if a := n.typed("activation_params", AttrFloats); a != nil {
		parameters = a.Floats
	}
	return u.activated(n, y, parameters)
}

func (u *upgrade) fusedGemm(n *Node) (*Node, error) {
	y := u.op(n, "Gemm", n.Inputs, n.replace(nil, "activation", "activation_alpha", "activation_beta", "activation_gamma").Attrs...)
	var parameters []float32
	for _, name := range []string{"activation_alpha", "activation_beta"} {
		if a := n.typed(name, AttrFloat); a != nil {
			parameters = append(parameters, a.F)
		}
	}
	return u.activated(n, y, parameters)
}

// fusedMatMul: alpha times the product, either factor with its last two axes exchanged.
func (u *upgrade) fusedMatMul(n *Node) (*Node, error) {
	if n.Int("transBatchA", 0) != 0 || n.Int("transBatchB", 0) != 0 {
		return nil, errors.New("transBatchA and transBatchB are not supported")
	}
	in := slices.Clone(n.Inputs)
	for i, attr := range []string{"transA", "transB"} {
		if n.Int(attr, 0) == 0 {
			continue
		}
		rank := u.rank(in[i])
		if rank < 2 {
			return nil, fmt.Errorf("%s of %q, whose rank is not known", attr, in[i])
		}
		perm := make([]int64, rank)
		for k := range perm {
			perm[k] = int64(k)
		}
		perm[rank-2], perm[rank-1] = perm[rank-1], perm[rank-2]
		in[i] = u.op(n, "Transpose", []string{in[i]}, Is("perm", perm...))
	}
	if alpha := n.Float("alpha", 1); alpha != 1 {
		return n.last("Mul", []string{u.op(n, "MatMul", in), u.scalar(n, "alpha", alpha)})
	}
	return n.last("MatMul", in)
}

// skipLayerNormalization normalizes the sum of its first two inputs and the fifth, and gives the sum as its fourth output.
func (u *upgrade) skipLayerNormalization(n *Node) (*Node, error) {
	if n.Output(1) != "" || n.Output(2) != "" {
		return nil, errors.New("mean and deviation as outputs are not supported")
	}
	sum := u.op(n, "Add", n.Inputs[:2])
	if n.Input(4) != "" {
		sum = u.op(n, "Add", []string{sum, n.Inputs[4]})
	}
	if out := n.Output(3); out != "" {
		u.graph.Nodes = append(u.graph.Nodes, &Node{Name: out, Op: "Identity", Inputs: []string{sum}, Outputs: []string{out}})
	}
	in := []string{sum, n.Input(2)}
	if n.Input(3) != "" {
		in = append(in, n.Inputs[3])
	}
	return n.last("LayerNormalization", in, I("axis", -1), F("epsilon", n.Float("epsilon", 1e-12)))
}
