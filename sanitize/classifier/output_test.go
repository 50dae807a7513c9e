package classifier_test

import (
	"errors"
	"strings"
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
)

// TestSecondOutput: what is derived of features or scores is no class output, however much stands before it.
func TestSecondOutput(t *testing.T) {
	for name, derive := range map[string]func(n *net, feature, logits string) string{
		"normalized features": func(n *net, feature, _ string) string {
			norm := n.Op("Max", []string{n.Op("ReduceL2", []string{feature}, onnx.Is("axes", 1)), n.Float(1e-12)})
			return n.Op("Neg", []string{n.Op("Neg", []string{n.Op("Div", []string{feature, norm})})})
		},
		"features in the way of a head": func(n *net, feature, _ string) string {
			return n.Op("Mul", []string{n.Op("Add", []string{n.Op("Mul", []string{feature, n.Float(2)}), n.Float(1)}), n.Float(3)})
		},
		"confidence": func(n *net, _, logits string) string {
			return n.Op("ReduceMax", []string{n.Op("Softmax", []string{logits}, onnx.I("axis", 1))}, onnx.Is("axes", 1))
		},
		"best score": func(n *net, _, logits string) string { return n.Op("ReduceMax", []string{logits}, onnx.Is("axes", 1)) },
		"best three": func(n *net, _, logits string) string {
			n.Add(&onnx.Node{Op: "TopK", Inputs: []string{logits, n.Int64s(3)}, Outputs: []string{"top", "index"}})
			return "top"
		},
	} {
		for _, first := range []bool{false, true} {
			n := newNet()
			x := n.pooled(n.stem(-1))
			logits := n.dense(x, 4, 5)
			second := derive(n, x, logits)
			if first {
				n.Output(second, onnx.Float, -1, -1)
			}
			n.Output(logits, onnx.Float, -1, 5)
			m := n.model(t, 17, second)
			if first {
				m.Graph.Outputs = m.Graph.Outputs[:2]
			}
			c := read(t, m, classifier.Options{})
			if c.Output != "logits" || c.Feature != "feature" || !strings.Contains(c.Choices[0], "of 2 outputs") || !strings.Contains(c.Choices[0], "--output-tensor") {
				t.Errorf("%s: output %s, feature layer %s: %s", name, c.Output, c.Feature, c.Choices)
			}
		}
	}
}

// TestNamedOutput: the output that is asked for is taken, if there is one of that name.
func TestNamedOutput(t *testing.T) {
	n := newNet()
	x := n.stem(-1)
	aux := n.Op("Flatten", []string{n.Op("GlobalAveragePool", []string{x})})
	n.Output(n.Named("early", "Gemm", []string{aux, n.weight("early.w", 4, 5)}), onnx.Float, -1, 5)
	y := n.Op("Relu", []string{n.Op("Conv", []string{x, n.weight("deep", 4, 4, 1, 1)})})
	m := n.model(t, 17, n.dense(n.pooled(y), 4, 5))
	if c := read(t, m, classifier.Options{Output: "early"}); c.Output != "early" || c.Feature != aux || c.Choices[0] != "output early: as asked" {
		t.Errorf("output %s, feature layer %s: %s", c.Output, c.Feature, c.Choices)
	}
	if c := read(t, m, classifier.Options{}); c.Output != "logits" {
		t.Errorf("output %s", c.Output)
	}
	if _, err := classifier.New(m, classifier.Options{Output: "late"}); !errors.Is(err, classifier.ErrOutput) || !strings.Contains(err.Error(), `"late"; the model has ["early" "logits"]`) {
		t.Errorf("an output that is not there: %v", err)
	}
}
