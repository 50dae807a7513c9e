package classifier

import "grindstone/sanitize/onnx"

// closes lists the operators that may stand between the class scores and an output of the model.
var closes = map[string]bool{"Softmax": true, "LogSoftmax": true, "ArgMax": true, "Identity": true, "Cast": true, "QuantizeLinear": true, "DequantizeLinear": true}

// closed returns the value behind which a node closes a classifier, "" if it does nothing of the kind. Converters of scikit-learn look up the
// class's label, and pair labels with probabilities.
func closed(by map[string]*onnx.Node, n *onnx.Node) string {
	switch {
	case n.Domain == "" && closes[n.Op]:
		return n.Input(0)
	case n.Domain == "ai.onnx.ml" && (n.Op == "ZipMap" || n.Op == "LabelEncoder"):
		return n.Input(0)
	case n.Domain == "ai.onnx.ml" && n.Op == "ArrayFeatureExtractor":
		return n.Input(1)
	case n.Domain == "" && n.Op == "Reshape": // of a label
		if label := by[n.Input(0)]; label != nil && label.Domain == "ai.onnx.ml" {
			return n.Input(0)
		}
	}
	return ""
}
