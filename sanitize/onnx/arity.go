package onnx

import "strings"

// fewest says how many inputs an operator of the standard has at least, where that is not one.
var fewest = map[string]int{}

func init() {
	for n, ops := range map[int]string{
		0: "Constant Optional OptionalHasElement RandomNormal RandomUniform SequenceEmpty",
		2: `Add AffineGrid And BitShift BitwiseAnd BitwiseOr BitwiseXor CastLike CausalConvWithState CenterCropPad Compress Conv ConvInteger ConvTranspose CumProd CumSum
			DequantizeLinear Div Equal Expand Gather GatherElements GatherND Gemm Greater GreaterOrEqual GridSample LayerNormalization Less LessOrEqual Loop MatMul
			MatMulInteger MaxRoiPool MaxUnpool Mod Mul NegativeLogLikelihoodLoss NonMaxSuppression Or PRelu Pow QuantizeLinear RMSNormalization Reshape ReverseSequence
			STFT SequenceAt SequenceInsert SoftmaxCrossEntropyLoss StringConcat Sub SwiGLU TensorScatter Tile Xor`,
		3: "Attention Col2Im DeformConv GRU GroupNormalization InstanceNormalization LSTM LinearAttention OneHot RNN Range RoiAlign RotaryEmbedding Scatter ScatterElements ScatterND Where",
		5: "BatchNormalization MelWeightMatrix",
		8: "QLinearConv QLinearMatMul",
	} {
		for _, op := range strings.Fields(ops) {
			fewest[op] = n
		}
	}
}

// checkArity refuses a node with too few inputs, or without an output, on which whoever reads it relies.
func checkArity(n *Node) error {
	least, known := 1, n.Domain == "" && versions[n.Op] != nil
	if own, is := contributed[n.Op]; is && n.Domain == Contrib {
		least, known = own.fewest, true
	} else if other, is := fewest[n.Op]; is {
		least = other
	}
	switch {
	case len(n.Outputs) == 0:
		return malformed("it has no output")
	case known && len(n.Inputs) < least:
		return malformed("%d inputs, it needs %d", len(n.Inputs), least)
	}
	return nil
}
