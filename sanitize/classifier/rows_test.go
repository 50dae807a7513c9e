package classifier_test

import (
	"errors"
	"slices"
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
)

// perceptron is what skl2onnx makes of an MLPClassifier: rows of numbers, probabilities, and the label looked up in a table.
func perceptron(t *testing.T, width int64) *onnx.Model {
	n := newNet()
	n.Input("x", onnx.Float, -1, width)
	hidden := n.Op("Relu", []string{n.Op("Add", []string{n.Op("MatMul", []string{n.Op("Cast", []string{"x"}, onnx.I("to", 1)), n.weight("w1", width, 6)}), n.weight("b1", 1, 6)})})
	n.Named("scores", "Add", []string{n.Op("MatMul", []string{hidden, n.weight("w2", 6, 5)}), n.weight("b2", 1, 5)})
	n.Named("probabilities", "Identity", []string{n.Op("Softmax", []string{"scores"})})
	n.Named("best", "ArgMax", []string{"probabilities"}, onnx.I("axis", 1))
	classes := n.Const(onnx.NewInt64("classes", []int64{5}, []int64{7, 5, 3, 1, 0}))
	n.Add(&onnx.Node{Op: "ArrayFeatureExtractor", Domain: "ai.onnx.ml", Inputs: []string{classes, "best"}, Outputs: []string{"found"}})
	n.Named("label", "Cast", []string{n.Op("Reshape", []string{"found", n.Int64s(-1)})}, onnx.I("to", 7))
	n.Output("label", onnx.Int64, -1)
	n.Output("probabilities", onnx.Float, -1, 5)
	m := n.Model(17)
	m.Opsets["ai.onnx.ml"] = 1
	return m
}

func TestRows(t *testing.T) {
	for width, want := range map[int64]struct {
		layout classifier.Layout
		shape  []int64
	}{
		49: {classifier.NCHW, []int64{2, 1, 7, 7}},
		75: {classifier.NHWC, []int64{2, 5, 5, 3}},
		36: {classifier.NCHW, []int64{2, 1, 6, 6}}, // not 3x3 pixels of four numbers
	} {
		c, err := classifier.New(perceptron(t, width), classifier.Options{})
		if err != nil {
			t.Fatalf("rows of %d: %v", width, err)
		}
		if c.Layout != want.layout || !slices.Equal(c.ImageShape(2), want.shape) || c.Logits != "scores" || c.Classes != 5 || c.FeatureWidth != 6 {
			t.Errorf("rows of %d: %s %v, logits %s, %d classes, feature layer %d wide", width, c.Layout, c.ImageShape(2), c.Logits, c.Classes, c.FeatureWidth)
		}
		if !slices.Equal(c.Trainable, []string{"w1", "b1", "w2", "b2"}) || c.CheckTrainable() != nil {
			t.Errorf("rows of %d: trains %v: %v", width, c.Trainable, c.CheckTrainable())
		}
	}
	if _, err := classifier.New(perceptron(t, 50), classifier.Options{}); !errors.Is(err, classifier.ErrInput) {
		t.Errorf("rows of 50: %v", err)
	}
	c, err := classifier.New(perceptron(t, 50), classifier.Options{Height: 5, Width: 10})
	if err != nil || !slices.Equal(c.ImageShape(1), []int64{1, 1, 5, 10}) {
		t.Errorf("rows of 50 with a size: %v", err)
	}
}
