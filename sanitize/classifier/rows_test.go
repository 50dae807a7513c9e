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

// TestReshapedRows: where the network itself makes images of rows, the rows are those images.
func TestReshapedRows(t *testing.T) {
	for name, tt := range map[string]struct {
		shape  []int64
		layout classifier.Layout
		image  []int64
	}{
		"channels first":          {[]int64{-1, 3, 5, 5}, classifier.NCHW, []int64{1, 3, 5, 5}},
		"channels first, oblong":  {[]int64{-1, 3, 1, 25}, classifier.NCHW, []int64{1, 3, 1, 25}},
		"channels last":           {[]int64{-1, 5, 5, 3}, classifier.NHWC, []int64{1, 5, 5, 3}},
		"a size that is inferred": {[]int64{0, 5, -1, 3}, classifier.NHWC, []int64{1, 5, 5, 3}}, // as without a Reshape
	} {
		n := newNet()
		n.Input("x", onnx.Float, -1, 75)
		y := n.Op("Reshape", []string{n.Op("Mul", []string{"x", n.Float(2)}), n.Int64s(tt.shape...)})
		if tt.layout == classifier.NHWC {
			y = n.Op("Transpose", []string{y}, onnx.Is("perm", 0, 3, 1, 2))
		}
		y = n.Op("Relu", []string{n.Op("Conv", []string{y, n.weight("w", 4, 3, 1, 1)})})
		c := read(t, n.model(t, 17, n.dense(n.pooled(y), 4, 5)), classifier.Options{})
		if c.Layout != tt.layout || !slices.Equal(c.ImageShape(1), tt.image) {
			t.Errorf("%s: %s %v", name, c.Layout, c.ImageShape(1))
		}
	}
	// Behind a layer, a Reshape says nothing of the image.
	n := newNet()
	n.Input("x", onnx.Float, -1, 75)
	y := n.Op("Relu", []string{n.Op("Gemm", []string{"x", n.weight("w", 75, 75), n.weight("b", 75)})})
	y = n.Op("Relu", []string{n.Op("Conv", []string{n.Op("Reshape", []string{y, n.Int64s(-1, 3, 5, 5)}), n.weight("v", 4, 3, 1, 1)})})
	if c := read(t, n.model(t, 17, n.dense(n.pooled(y), 4, 5)), classifier.Options{}); c.Layout != classifier.NHWC {
		t.Errorf("%s behind a layer", c.Layout)
	}
}
