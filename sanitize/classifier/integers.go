package classifier

import (
	"errors"
	"strings"

	"grindstone/sanitize/onnx"
)

var errOperators = errors.New("it computes with integers; of quantized models only those in the QDQ form (QuantizeLinear and DequantizeLinear around " +
	"operators on floats) can be trained: quantize again in that form (ONNX Runtime: quant_format=QuantFormat.QDQ), or push the model in floats")

// computesIntegers tells the operators of the other forms of quantized models: those that take and make integers with their scales (the standard's
// QLinear operators and ONNX Runtime's own), and those that find scales when they run.
func computesIntegers(n *onnx.Node) bool {
	switch n.Op {
	case "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "QGemm", "QAttention", "DynamicQuantizeMatMul", "MatMulIntegerToFloat":
		return n.Domain == "" || n.Domain == "com.microsoft"
	}
	return strings.HasPrefix(n.Op, "QLinear") && (n.Domain == "" || n.Domain == "com.microsoft")
}
