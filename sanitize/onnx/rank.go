package onnx

import (
	"slices"
	"strings"
)

// likeFirst lists operators whose outputs have as many axes as their first input.
var likeFirst = setOf(`Abs AveragePool BatchNormalization Cast CastLike Ceil Celu Clip Concat Conv ConvTranspose CumSum DepthToSpace DequantizeLinear Elu Erf Exp Floor
	GlobalAveragePool GlobalLpPool GlobalMaxPool HardSigmoid HardSwish Hardmax Identity InstanceNormalization LRN LayerNormalization LeakyRelu Log LogSoftmax LpNormalization
	LpPool MaxPool Neg Pad QuantizeLinear Reciprocal Relu Resize Round Selu Sigmoid Sign Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Tanh ThresholdedRelu Tile TopK
	Transpose Trilu`)

// broadcasts lists operators whose output has as many axes as that of their inputs which has the most.
var broadcasts = setOf("Add And Div Equal Greater Less Max Mean Min Mod Mul Or PRelu Pow Sub Sum Where")

func setOf(words string) map[string]bool {
	set := map[string]bool{}
	for _, w := range strings.Fields(words) {
		set[w] = true
	}
	return set
}

// rank of a value: what the file says, or what follows from the nodes so far; -1 if neither tells.
func (u *upgrade) rank(value string) int {
	u.note()
	return u.known(value)
}

// fixed reports whether a value is computed of the file's constants alone.
func (u *upgrade) fixed(value string) bool {
	u.note()
	return u.initializer(value) != nil || u.computed[value]
}

// note notes ranks, and what is computed of constants, of what the nodes so far make.
func (u *upgrade) note() {
	for ; u.noted < len(u.graph.Nodes); u.noted++ {
		n := u.graph.Nodes[u.noted]
		rank := u.rankOf(n)
		varies := slices.ContainsFunc(n.Reads(), func(in string) bool { return in != "" && u.initializer(in) == nil && !u.computed[in] })
		for _, out := range n.Outputs {
			u.ranks[out], u.computed[out] = rank, !varies
		}
	}
}

// known is the rank of a value, once those of the nodes so far have been noted.
func (u *upgrade) known(value string) int {
	if t := u.initializer(value); t != nil {
		return len(t.Shape)
	}
	if v := u.said[value]; v != nil {
		return len(v.Shape)
	}
	if rank, made := u.ranks[value]; made {
		return rank
	}
	if u.outer != nil && !u.own[value] {
		return u.outer.rank(value)
	}
	return -1
}

// rankOf is the rank of a node's outputs, given those of its inputs; -1 if it is not known.
func (u *upgrade) rankOf(n *Node) int {
	if n.Domain != "" || len(n.Inputs) == 0 {
		return -1
	}
	first := u.known(n.Inputs[0])
	less := func(axes int) int {
		if first < axes {
			return -1
		}
		return first - axes
	}
	switch {
	case likeFirst[n.Op]:
		return first
	case broadcasts[n.Op], n.Op == "MatMul":
		most := first
		for _, in := range n.Inputs {
			r := u.known(in)
			if r < 0 || n.Op == "MatMul" && r < 2 {
				return -1
			}
			most = max(most, r)
		}
		return most
	}
	axes := len(n.Ints("axes"))
	if t := u.initializer(n.Input(1)); t != nil {
		axes = t.Len()
	}
	switch n.Op {
	case "Flatten", "Gemm":
		return 2
	case "Shape":
		return 1
	case "Reshape":
		if u.initializer(n.Inputs[1]) != nil {
			return axes
		}
	case "Unsqueeze":
		if first >= 0 && axes > 0 {
			return first + axes
		}
	case "Squeeze":
		if axes > 0 {
			return less(axes)
		}
	case "Gather":
		if indices := u.known(n.Inputs[1]); first >= 1 && indices >= 0 {
			return first + indices - 1
		}
	case "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare":
		switch {
		case n.Int("keepdims", 1) != 0:
			return first
		case axes > 0:
			return less(axes)
		}
	}
	return -1
}
