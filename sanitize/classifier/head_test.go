package classifier_test

import (
	"slices"
	"strings"
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
)

// twoHeads are two linear layers, each with an input of its own.
func (n *net) twoHeads(x, y string) (a, b string) {
	head := func(name, x string) string {
		return n.Op("Gemm", []string{x, n.weight(name+".w", 4, 5), n.weight(name+".b", 5)})
	}
	return head("a", x), head("b", y)
}

// TestLastLayers: the head is found behind what may stand between it and the output, and of several heads all are.
func TestLastLayers(t *testing.T) {
	product := func(n *net) string { return n.Op("MatMul", []string{n.pooled(n.stem(-1)), n.weight("w", 4, 5)}) }
	maps := func(n *net) string {
		return n.Op("Conv", []string{n.stem(-1), n.weight("w", 5, 4, 1, 1), n.weight("b", 5)})
	}
	tokens := func(n *net) (a, b string) {
		x := n.Op("Reshape", []string{n.stem(-1), n.Int64s(0, 4, 64)})
		return n.Named("token.a", "Gather", []string{x, n.Int64(0)}, onnx.I("axis", 2)), n.Named("token.b", "Gather", []string{x, n.Int64(1)}, onnx.I("axis", 2))
	}
	const image = 4 * 8 * 8
	for _, tt := range []struct {
		name    string
		build   func(n *net) string
		feature string
		width   int
		weights string // of the head
		options classifier.Options
	}{
		{name: "average of two heads", build: func(n *net) string {
			x := n.pooled(n.stem(-1))
			a, b := n.twoHeads(x, x)
			return n.Named("y", "Div", []string{n.Op("Add", []string{a, b}), n.Float(2)})
		}, feature: "feature", width: 4, weights: "a.w a.b b.w b.b"},
		{name: "average of two heads' probabilities", build: func(n *net) string {
			a, b := n.twoHeads(tokens(n))
			p, q := n.Op("Softmax", []string{a}, onnx.I("axis", 1)), n.Op("Softmax", []string{b}, onnx.I("axis", 1))
			return n.Named("y", "Div", []string{n.Op("Add", []string{p, q}), n.Float(2)})
		}, feature: "y/logarithm/features", width: 8, weights: "a.w a.b b.w b.b"},
		{name: "smoothed probabilities", build: func(n *net) string {
			p := n.Op("Softmax", []string{n.dense(n.pooled(n.stem(-1)), 4, 5)}, onnx.I("axis", 1))
			return n.Named("y", "Add", []string{n.Op("Mul", []string{p, n.Float(0.9)}), n.Float(0.02)})
		}, feature: "feature", width: 4, weights: "fc.w fc.b"},
		{name: "mean of stacked heads", build: func(n *net) string {
			x := n.pooled(n.stem(-1))
			a, b := n.twoHeads(x, x)
			all := n.Op("Concat", []string{n.Op("Unsqueeze", []string{a, n.Int64s(0)}), n.Op("Unsqueeze", []string{b, n.Int64s(0)})}, onnx.I("axis", 0))
			return n.Named("y", "ReduceMean", []string{all}, onnx.Is("axes", 0), onnx.I("keepdims", 0))
		}, feature: "feature", width: 4, weights: "a.w a.b b.w b.b"},
		{name: "a head for each of two tokens", build: func(n *net) string {
			a, b := n.twoHeads(tokens(n))
			return n.Named("y", "Mean", []string{a, b})
		}, feature: "y/features", width: 8, weights: "a.w a.b b.w b.b"},
		{name: "one of two heads is named", build: func(n *net) string {
			a, b := n.twoHeads(tokens(n))
			return n.Named("y", "Sum", []string{a, b})
		}, feature: "token.b", width: 4, weights: "a.w a.b b.w b.b", options: classifier.Options{Feature: "token.b"}},
		{name: "below both heads", build: func(n *net) string {
			a, b := n.twoHeads(tokens(n))
			return n.Named("y", "Sum", []string{a, b})
		}, feature: "stem.relu", width: image, weights: "a.w a.b b.w b.b", options: classifier.Options{Feature: "stem.relu"}},
		{name: "a head beside one that reads the image", build: func(n *net) string {
			x := n.pooled(n.stem(-1))
			direct := n.Op("MatMul", []string{n.Op("Flatten", []string{"x"}), n.weight("direct", 192, 5)})
			return n.Named("y", "Add", []string{n.dense(x, 4, 5), direct})
		}, feature: "feature", width: 4, weights: "direct fc.w fc.b"},
		{name: "a residual layer: what it goes round is not the head", build: func(n *net) string {
			x := n.Named("block", "Relu", []string{n.Op("Conv", []string{n.stem(-1), n.weight("v", 5, 4, 1, 1)})})
			y := n.Op("Add", []string{n.Op("Conv", []string{x, n.weight("w", 5, 5, 1, 1)}), x})
			return n.Named("y", "Flatten", []string{n.Op("GlobalAveragePool", []string{y})})
		}, feature: "block", width: 5 * 64, weights: "w"},
		{name: "two layers side by side, one reads what the other's features are made of", build: func(n *net) string {
			x := n.stem(-1)
			n.Named("deep", "Relu", []string{n.Op("Conv", []string{x, n.weight("v", 4, 4, 1, 1)})})
			y := n.Op("Add", []string{n.Op("Conv", []string{"deep", n.weight("w", 5, 4, 1, 1)}), n.Op("Conv", []string{x, n.weight("short", 5, 4, 1, 1)})})
			return n.Named("y", "Flatten", []string{n.Op("GlobalAveragePool", []string{y})})
		}, feature: "y/features", width: 2 * image, weights: "w short"},
		{name: "Sub", build: func(n *net) string { return n.Named("y", "Sub", []string{product(n), n.weight("b", 5)}) },
			feature: "feature", width: 4, weights: "w b"},
		{name: "Sum", build: func(n *net) string { return n.Named("y", "Sum", []string{product(n), n.weight("b", 5)}) },
			feature: "feature", width: 4, weights: "w b"},
		{name: "Clip", build: func(n *net) string { return n.Named("y", "Clip", []string{product(n), n.Float(-20), n.Float(20)}) },
			feature: "feature", width: 4, weights: "w"},
		{name: "Concat", build: func(n *net) string {
			x := n.pooled(n.stem(-1))
			return n.Named("y", "Concat", []string{n.Op("MatMul", []string{x, n.weight("a", 4, 2)}), n.Op("MatMul", []string{x, n.weight("b", 4, 3)})}, onnx.I("axis", 1))
		}, feature: "feature", width: 4, weights: "a b"},
		{name: "Slice", build: func(n *net) string {
			wide := n.Op("MatMul", []string{n.pooled(n.stem(-1)), n.weight("w", 4, 7)})
			return n.Named("y", "Slice", []string{wide, n.Int64s(0), n.Int64s(5), n.Int64s(1)})
		}, feature: "feature", width: 4, weights: "w"},
		{name: "BatchNormalization", build: func(n *net) string {
			return n.Named("y", "BatchNormalization", []string{product(n), n.weight("scale", 5), n.weight("shift", 5), n.weight("mean", 5), n.filled("variance", 1, 5)})
		}, feature: "feature", width: 4, weights: "w scale shift"},
		{name: "ReduceSum", build: func(n *net) string {
			return n.Named("y", "ReduceSum", []string{maps(n), n.Int64s(2, 3)}, onnx.I("keepdims", 0))
		},
			feature: "stem.relu", width: image, weights: "w b"},
		{name: "ReduceMax", build: func(n *net) string {
			return n.Named("y", "ReduceMax", []string{maps(n)}, onnx.Is("axes", 2, 3), onnx.I("keepdims", 0))
		},
			feature: "stem.relu", width: image, weights: "w b"},
		{name: "GlobalMaxPool", build: func(n *net) string {
			return n.Named("y", "Flatten", []string{n.Op("GlobalMaxPool", []string{maps(n)})})
		},
			feature: "stem.relu", width: image, weights: "w b"},
		{name: "MaxPool", build: func(n *net) string {
			return n.Named("y", "Flatten", []string{n.Op("MaxPool", []string{maps(n)}, onnx.Is("kernel_shape", 8, 8))})
		}, feature: "stem.relu", width: image, weights: "w b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNet()
			m := n.model(t, 17, tt.build(n))
			c := read(t, m, tt.options)
			if c.Feature != tt.feature || c.FeatureWidth != tt.width || strings.Join(c.HeadWeights, " ") != tt.weights {
				t.Errorf("features %s, %d wide, head weights %q", c.Feature, c.FeatureWidth, c.HeadWeights)
			}
			if err := c.CheckTrainable(); err != nil {
				t.Error(err)
			}
			for _, f := range c.Foldable() {
				if slices.Contains(c.HeadWeights, f.Weight) {
					t.Errorf("%s of the head gets a BatchNormalization", f.Weight)
				}
			}
			sameClasses(t, c, m)
		})
	}
}
