package classifier

import (
	"slices"

	"grindstone/sanitize/onnx"
)

// closes lists the operators that may stand between the class scores and an output of the model; TopK gives the likeliest ones.
var closes = map[string]bool{"Softmax": true, "LogSoftmax": true, "ArgMax": true, "Identity": true, "Cast": true, "TopK": true, "QuantizeLinear": true, "DequantizeLinear": true}

// rounds reports whether a node is of the QDQ form; those of 16 bits are ONNX Runtime's own (roundOr).
func rounds(n *onnx.Node) bool {
	return (n.Domain == "" || n.Domain == onnx.Contrib) && (n.Op == "QuantizeLinear" || n.Op == "DequantizeLinear")
}

// closed returns the value behind which a node closes a classifier, "" if it does nothing of the kind. Converters of scikit-learn look up the
// class's label, and pair labels with probabilities.
func closed(by map[string]*onnx.Node, n *onnx.Node) string {
	switch {
	case (n.Domain == "" || rounds(n)) && closes[n.Op]:
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

// ordered lists the operators that may stand behind a Softmax or LogSoftmax: they move probabilities, or map them so that the likeliest class
// remains it. Elsewhere they are layers like others.
var ordered = map[string]bool{
	"Reshape": true, "Flatten": true, "Squeeze": true, "Unsqueeze": true, "Transpose": true, "Clip": true, "Exp": true, "Log": true,
}

// reordered returns the value that a node moves or maps in such a way, "" if it does not.
func (c *Classifier) reordered(n *onnx.Node) string {
	switch {
	case n.Domain == "" && ordered[n.Op]:
		return n.Input(0)
	case n.Domain == "" && n.Op == "Mul": // by a positive number
		for i, in := range n.Inputs {
			if t := c.Constants[in]; t != nil && t.Type == onnx.Float && single(t.Shape) && t.Floats()[0] > 0 {
				return n.Inputs[1-i]
			}
		}
	}
	return ""
}

// unclosed follows an output back to the class scores that it is made of, and returns the nodes between the two.
func (c *Classifier) unclosed(by map[string]*onnx.Node, output string) (logits string, closing []*onnx.Node) {
	logits = output
	var way []*onnx.Node
	open := false // whether the way ends in nodes that are part of the closing only if a Softmax follows
	for at := output; by[at] != nil; {
		n := by[at]
		if at = closed(by, n); at == "" {
			at, open = c.reordered(n), true
		}
		if at == "" {
			break
		}
		way = append(way, n)
		if open = open && n.Op != "Softmax" && n.Op != "LogSoftmax"; !open {
			logits, closing = at, way
		}
	}
	slices.Reverse(closing)
	return logits, closing
}
