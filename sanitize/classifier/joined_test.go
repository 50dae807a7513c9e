package classifier_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

// TestJoinedConstants: whatever meets an activation behind the first linear layer is trained, however exporters write it; masks, single
// numbers and preprocessing are not, and what cannot be trained is refused. The net's activation is [N, 4, 8, 8].
func TestJoinedConstants(t *testing.T) {
	mask := make([]float32, 64)
	mask[3] = -100
	tests := map[string]struct {
		build func(n *net, x string) string
		want  []string // beside those of stem and dense
	}{
		"position embedding": {func(n *net, x string) string {
			return n.Op("Add", []string{x, n.weight("position", 1, 4, 8, 8)})
		}, []string{"position"}},
		"token": {func(n *net, x string) string {
			rows := n.Op("Expand", []string{n.weight("token", 1, 4, 1, 8), n.Op("Concat", []string{
				n.Op("Shape", []string{x}, onnx.I("end", 1)), n.Int64s(4, 1, 8)}, onnx.I("axis", 0))})
			return n.Op("Concat", []string{rows, x}, onnx.I("axis", 2))
		}, []string{"token"}},
		"table": {func(n *net, x string) string {
			bias := n.Op("Gather", []string{n.weight("table", 3, 8), n.Int64s(0, 1, 2, 1, 0, 1, 2, 2)})
			return n.Op("Add", []string{x, n.Op("Unsqueeze", []string{bias, n.Int64s(0, 1)})})
		}, []string{"table"}},
		"bias with zeros put into it": {func(n *net, x string) string { // of keys, in Swin v2
			zeros := n.Op("Expand", []string{n.Const(onnx.NewFloat("zero", []int64{1}, []float32{0})), n.Int64s(3)})
			bias := n.Op("ScatterND", []string{n.weight("bias", 8), n.Const(onnx.NewInt64("at", []int64{3, 1}, []int64{2, 3, 4})), zeros})
			return n.Op("Add", []string{x, bias})
		}, []string{"bias"}},
		"scale by its logarithm": {func(n *net, x string) string {
			return n.Op("Mul", []string{n.Op("Exp", []string{n.Op("Min", []string{n.weight("logarithm", 4, 1, 1), n.Float(4)})}), x})
		}, []string{"logarithm"}},
		"divisor": {func(n *net, x string) string {
			return n.Op("Div", []string{n.Op("Sub", []string{x, n.weight("mean", 4, 1, 1)}), n.weight("deviation", 4, 1, 1)})
		}, []string{"mean", "deviation"}},
		"read on many ways": {func(n *net, x string) string { // 2^40 of them
			w := n.weight("doubled", 4, 1, 1)
			for range 40 {
				w = n.Op("Add", []string{w, w})
			}
			return n.Op("Add", []string{x, w})
		}, []string{"doubled"}},
		"mask": {func(n *net, x string) string {
			return n.Op("Add", []string{x, n.Const(onnx.NewFloat("mask", []int64{1, 1, 8, 8}, mask))})
		}, nil},
		"mask computed of numbers of windows": {func(n *net, x string) string { // -100 between pixels of different windows
			windows := n.Op("ScatterND", []string{n.Const(onnx.NewFloat("none", []int64{8}, make([]float32, 8))),
				n.Const(onnx.NewInt64("second", []int64{3, 1}, []int64{5, 6, 7})), n.Const(onnx.NewFloat("one", []int64{3}, []float32{1, 1, 1}))})
			apart := n.Op("Sub", []string{n.Op("Unsqueeze", []string{windows, n.Int64s(0)}), n.Op("Unsqueeze", []string{windows, n.Int64s(1)})})
			other := n.Op("Not", []string{n.Op("Equal", []string{apart, n.Float(0)})})
			return n.Op("Add", []string{x, n.Op("Where", []string{other, n.Float(-100), apart})})
		}, nil},
		"number": {func(n *net, x string) string {
			return n.Op("Mul", []string{x, n.Const(onnx.NewFloat("number", []int64{1, 1, 1, 1}, []float32{3}))})
		}, nil},
		"image size": {func(n *net, x string) string { // a number that no weight has a part in
			side := n.Op("Cast", []string{n.Op("Shape", []string{x}, onnx.I("start", 3))}, onnx.I("to", int64(onnx.Float)))
			return n.Op("Div", []string{x, n.Op("Sqrt", []string{side})})
		}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			c := read(t, n.model(t, 17, n.dense(n.pooled(test.build(n, n.stem(-1))), 4, 5)), classifier.Options{})
			if err := c.CheckTrainable(); err != nil {
				t.Error(err)
			}
			want := slices.Concat([]string{"stem.w", "stem.b"}, test.want, []string{"fc.w", "fc.b"})
			if !slices.Equal(c.Trainable, want) {
				t.Errorf("%q are trained, want %q", c.Trainable, want)
			}
			if !slices.Equal(c.HeadWeights, []string{"fc.w", "fc.b"}) {
				t.Errorf("%q would be re-initialised", c.HeadWeights)
			}
		})
	}

	n := newNet()
	deviation := n.Named("deviation", "Sqrt", []string{n.weight("variance", 4, 1, 1)})
	err := read(t, n.model(t, 17, n.dense(n.pooled(n.Op("Div", []string{n.stem(-1), deviation})), 4, 5)), classifier.Options{}).CheckTrainable()
	if !errors.Is(err, classifier.ErrFrozen) || !strings.Contains(err.Error(), `"deviation"`) {
		t.Errorf("behind a square root: %v", err)
	}

	n = newNet() // as the mask above, but with the differences of the numbers
	apart := n.Named("apart", "Where", []string{n.Op("Equal", []string{n.weight("windows", 8, 8), n.Float(0)}), n.Float(-100), n.weight("others", 8, 8)})
	err = read(t, n.model(t, 17, n.dense(n.pooled(n.Op("Add", []string{n.stem(-1), apart})), 4, 5)), classifier.Options{}).CheckTrainable()
	if !errors.Is(err, classifier.ErrFrozen) || !strings.Contains(err.Error(), `"apart"`) {
		t.Errorf("chosen among constants: %v", err)
	}

	n = newNet()
	n.Input("x", onnx.Float, -1, 3, 8, 8)
	y := n.Op("Conv", []string{n.Op("Sub", []string{"x", n.weight("pixels", 1, 3, 8, 8)}), n.weight("w", 4, 3, 1, 1)})
	if c := read(t, n.model(t, 17, n.dense(n.pooled(y), 4, 5)), classifier.Options{}); slices.Contains(c.Trainable, "pixels") {
		t.Error("a mean image is preprocessing")
	}
}

// TestCastLikeTheData: PyTorch's exporter, without optimization, casts what GroupNorm has learned like the data. Everything that the scores depend on is
// trained.
func TestCastLikeTheData(t *testing.T) {
	n := newNet()
	x := n.stem(-1)
	rows := n.Op("Reshape", []string{x, n.Int64s(0, 2, -1)})
	like := func(value, data string) string { return n.Op("CastLike", []string{value, data}) }
	y := n.Op("InstanceNormalization", []string{rows, like(n.filled("one", 1, 2), rows), like(n.filled("zero", 0, 2), rows)})
	y = n.Op("Reshape", []string{y, n.Op("Shape", []string{x})})
	y = n.Op("Mul", []string{y, like(n.Op("Unsqueeze", []string{n.weight("scale", 4), n.Int64s(1, 2)}), y)})
	y = n.Op("Add", []string{y, like(n.Op("Unsqueeze", []string{n.weight("shift", 4), n.Int64s(1, 2)}), y)})
	c := read(t, n.model(t, 17, n.dense(n.pooled(y), 4, 5)), classifier.Options{})
	err := c.CheckTrainable()
	for _, name := range []string{"stem.w", "stem.b", "one", "zero", "scale", "shift", "fc.w", "fc.b"} {
		if reported := err != nil && strings.Contains(err.Error(), fmt.Sprintf("%q", name)); !slices.Contains(c.Trainable, name) && !reported {
			t.Errorf("%s is neither trained nor reported (%v)", name, err)
		}
	}
	if err != nil {
		t.Error(err)
	}
}

// TestTokenOfAFixedBatch: a token that was exported for two images is given to as many as there are.
func TestTokenOfAFixedBatch(t *testing.T) {
	n := newNet()
	x := n.stem(2)
	rows := n.Op("Expand", []string{n.weight("token", 1, 4, 1, 8), n.Int64s(2, 4, 1, 8)})
	c := read(t, n.model(t, 17, n.dense(n.pooled(n.Op("Concat", []string{rows, x}, onnx.I("axis", 2))), 4, 5)), classifier.Options{})
	if !slices.Contains(c.Trainable, "token") {
		t.Errorf("%q are trained", c.Trainable)
	}
	images := noise(c, 3)
	all := evaluate(t, c, nil, images, c.Logits)[0]
	if !slices.Equal(all.Shape, []int64{3, 5}) {
		t.Fatalf("the logits of three images have shape %v", all.Shape)
	}
	size := 3 * 8 * 8
	last := evaluate(t, c, nil, &ort.Array{Shape: c.ImageShape(1), F32: images.F32[2*size:]}, c.Logits)[0].F32
	if d := difference(last, all.F32[10:]); d > 1e-5 {
		t.Errorf("the third image alone gives other logits: %.2g", d)
	}
}
