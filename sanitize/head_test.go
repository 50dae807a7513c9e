package sanitize

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/train"
)

// TestFanIn: how many inputs an output of each kind of linear layer sums.
func TestFanIn(t *testing.T) {
	for _, tt := range []struct {
		node  onnx.Node
		i     int
		shape []int64
		want  int64
	}{
		{onnx.Node{Op: "Gemm"}, 1, []int64{256, 10}, 256},
		{onnx.Node{Op: "Gemm", Attrs: []*onnx.Attr{onnx.I("transB", 1)}}, 1, []int64{10, 64}, 64},
		{onnx.Node{Op: "Gemm"}, 2, []int64{1, 10}, 0}, // a bias, although it has two axes
		{onnx.Node{Op: "MatMul"}, 1, []int64{64, 10}, 64},
		{onnx.Node{Op: "MatMul"}, 0, []int64{10, 64}, 64},
		{onnx.Node{Op: "Conv"}, 1, []int64{10, 32, 1, 1}, 32},
		{onnx.Node{Op: "Conv"}, 2, []int64{10}, 0},
		{onnx.Node{Op: "Add"}, 1, []int64{1, 10}, 0},
	} {
		if got := fanIn(&tt.node, tt.i, tt.shape); got != tt.want {
			t.Errorf("%s, input %d, %v: %d, want %d", tt.node.Op, tt.i, tt.shape, got, tt.want)
		}
	}
}

// TestResetHead: the head starts anew, each layer within 1/sqrt(fan-in), and nothing below it changes.
func TestResetHead(t *testing.T) {
	b, weight := sevens()
	b.Input("x", onnx.Float, -1, 3, 4, 4)
	y := b.Op("Conv", []string{"x", weight("body.w", 16, 3, 4, 4), weight("body.b", 16)})
	b.Named("feature", "Flatten", []string{y})
	y = b.Op("Gemm", []string{"feature", weight("w1", 16, 100), weight("b1", 1, 100)})
	y = b.Op("BatchNormalization", []string{y, weight("scale", 100), weight("shift", 100), weight("mean", 100), weight("variance", 100)})
	y = b.Op("MatMul", []string{b.Op("Relu", []string{y}), weight("w2", 100, 10)})
	b.Output(b.Op("Add", []string{y, weight("b2", 10)}), onnx.Float, -1, 10)
	c, values := reset(t, b.Model(17), classifier.Options{Feature: "feature"})
	for name, bound := range map[string]float64{"w1": 1. / 4, "b1": 1. / 4, "w2": 1. / 10, "b2": 1. / 10} {
		v := values[name]
		isWithin(t, name, v, bound)
		square := 0.0
		for _, x := range v {
			square += float64(x) * float64(x) / float64(len(v))
		}
		if want := bound / math.Sqrt(3); len(v) >= 100 && math.Abs(math.Sqrt(square)-want) > want/4 {
			t.Errorf("%s has a root mean square of %v, want %v", name, math.Sqrt(square), want)
		}
	}
	for name, want := range map[string]float32{"scale": 1, "shift": 0, "mean": 7, "variance": 7, "body.w": 7, "body.b": 7} {
		if v := values[name]; slices.Min(v) != want || slices.Max(v) != want {
			t.Errorf("%s is not %v everywhere", name, want)
		}
	}

	again := train.Values(c)
	resetHead(c, again, rand.New(rand.NewPCG(1, 2)))
	if !slices.Equal(again["w1"], values["w1"]) {
		t.Error("the same seed gives another head")
	}
}

// TestResetMovedHeads: a weight that is turned before it is used starts anew like any other, and of several heads each within its own bound.
func TestResetMovedHeads(t *testing.T) {
	b, weight := sevens()
	b.Input("x", onnx.Float, -1, 3, 4, 4)
	y := b.Op("Flatten", []string{b.Op("Conv", []string{"x", weight("body.w", 16, 3, 4, 4)})})
	z := b.Op("Flatten", []string{b.Op("Conv", []string{"x", weight("other.w", 100, 3, 4, 4)})})
	left := b.Op("MatMul", []string{y, b.Op("Transpose", []string{weight("w1", 10, 16)})})
	right := b.Op("MatMul", []string{z, weight("w2", 100, 10)})
	left = b.Op("Add", []string{left, b.Op("Reshape", []string{weight("b1", 10, 1), b.Int64s(10)})})
	right = b.Op("Sub", []string{right, weight("b2", 10)})
	b.Output(b.Op("Div", []string{b.Op("Add", []string{left, right}), b.Float(2)}), onnx.Float, -1, 10)
	_, values := reset(t, b.Model(17), classifier.Options{})
	for name, bound := range map[string]float64{"w1": 1. / 4, "b1": 1. / 4, "w2": 1. / 10, "b2": 1. / 10} {
		isWithin(t, name, values[name], bound)
	}
	for _, name := range []string{"body.w", "other.w"} {
		if v := values[name]; slices.Min(v) != 7 || slices.Max(v) != 7 {
			t.Errorf("%s is not what it was", name)
		}
	}
}

// TestResetComposedHead: of a weight that is computed all that it is composed of starts anew.
func TestResetComposedHead(t *testing.T) {
	b, weight := sevens()
	b.Input("x", onnx.Float, -1, 3, 4, 4)
	y := b.Op("Flatten", []string{b.Op("Conv", []string{"x", weight("body.w", 16, 3, 4, 4)})})
	low := b.Op("MatMul", []string{weight("up", 10, 2), weight("down", 2, 16)})
	w := b.Op("Transpose", []string{b.Op("Add", []string{weight("w", 10, 16), low})})
	b.Output(b.Op("Add", []string{b.Op("MatMul", []string{y, w}), weight("b", 10)}), onnx.Float, -1, 10)
	_, values := reset(t, b.Model(17), classifier.Options{})
	for _, name := range []string{"w", "up", "down", "b"} {
		isWithin(t, name, values[name], 1./4)
	}
}

// sevens starts a graph whose weights are 7.
func sevens() (b *onnx.Builder, weight func(name string, shape ...int64) string) {
	b = onnx.NewBuilder()
	return b, func(name string, shape ...int64) string {
		size := int64(1)
		for _, d := range shape {
			size *= d
		}
		return b.Const(onnx.NewFloat(name, shape, slices.Repeat([]float32{7}, int(size))))
	}
}

// reset reads a model as a file would be, and returns its weights after the head was re-initialised.
func reset(t *testing.T, built *onnx.Model, o classifier.Options) (*classifier.Classifier, map[string][]float32) {
	t.Helper()
	raw, err := built.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	m, err := onnx.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	c, err := classifier.New(m, o)
	if err != nil {
		t.Fatal(err)
	}
	values := train.Values(c)
	resetHead(c, values, rand.New(rand.NewPCG(1, 2)))
	return c, values
}

// isWithin: ten numbers and more spread over more than half of the range.
func isWithin(t *testing.T, name string, v []float32, bound float64) {
	t.Helper()
	low, high := float64(slices.Min(v)), float64(slices.Max(v))
	if low < -bound || high > bound || high-low < bound {
		t.Errorf("%s lies between %v and %v, its bound is %v", name, low, high, bound)
	}
}
