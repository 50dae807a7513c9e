package classifier_test

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"grindstone/internal/shared"
	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

// thirdParty are models of other people's exporters, and what a reader of their graphs finds in them.
var thirdParty = []struct {
	file           string
	layout         classifier.Layout
	side, channels int
	batch          int64 // that the file fixes
	feature        string
	width          int
	head           int // nodes
	trainable      int // tensors
	parameters     int // numbers in them
	linear         int // layers, without the head
	foldable       int
}{
	{"nad-wrn16-badnet.onnx", classifier.NCHW, 32, 3, 0, "/Flatten_output_0", 64, 1, 37, 174842, 15, 6},
	{"nad-wrn16-teacher.onnx", classifier.NCHW, 32, 3, 0, "/Flatten_output_0", 64, 1, 37, 174842, 15, 6},
	{"nad-wrn16-erased.onnx", classifier.NCHW, 32, 3, 0, "/Flatten_output_0", 64, 1, 37, 174842, 15, 6},
	{"vnncomp-resnet_2b.onnx", classifier.NCHW, 32, 3, 1, "32", 100, 1, 16, 112006, 7, 7},
	{"vnncomp-cifar_base_kw.onnx", classifier.NCHW, 32, 3, 1, "15", 100, 1, 8, 105966, 3, 3},
	{"vnncomp-cifar10_medium_nhwc.onnx", classifier.NHWC, 32, 3, 0, "sequential_1/dense_4/Relu:0", 64, 2, 10, 165498, 4, 4},
	{"cntk-mnist.onnx", classifier.NCHW, 28, 1, 1, "Pooling160_Output_0_reshape0", 256, 1, 6, 5994, 2, 2},
}

func openShared(t testing.TB, file string) (*classifier.Classifier, *onnx.Model, string) {
	t.Helper()
	path := shared.Path(t, "models", file)
	m, err := onnx.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, m, classifier.Options{}), m, path
}

func TestThirdPartyModels(t *testing.T) {
	for _, want := range thirdParty {
		t.Run(want.file, func(t *testing.T) {
			c, _, _ := openShared(t, want.file)
			if c.Layout != want.layout || c.Height != want.side || c.Width != want.side || c.Channels != want.channels || c.FixedBatch != want.batch {
				t.Errorf("input: %s %dx%dx%d, batch %d", c.Layout, c.Height, c.Width, c.Channels, c.FixedBatch)
			}
			if c.Classes != 10 || c.Logits != c.Output {
				t.Errorf("%d classes, output %s, logits %s; none of these models ends in a Softmax", c.Classes, c.Output, c.Logits)
			}
			if c.Feature != want.feature || c.FeatureWidth != want.width || len(c.Head) != want.head {
				t.Errorf("features %s, %d wide, head of %d nodes", c.Feature, c.FeatureWidth, len(c.Head))
			}
			if len(c.HeadWeights) != 2 {
				t.Errorf("head weights %q, want a weight and a bias", c.HeadWeights)
			}
			head := 0
			for _, name := range c.HeadWeights {
				head += c.Constants[name].Len()
			}
			if head != 10*want.width+10 {
				t.Errorf("the head %q has %d numbers, a linear layer with bias has %d", c.HeadWeights, head, 10*want.width+10)
			}
			parameters := 0
			for _, name := range c.Trainable {
				parameters += c.Constants[name].Len()
			}
			if len(c.Trainable) != want.trainable || parameters != want.parameters {
				t.Errorf("%d trainable tensors of %d numbers, want %d of %d", len(c.Trainable), parameters, want.trainable, want.parameters)
			}
			linear := 0
			for _, n := range c.Body() {
				if n.Op == "Conv" || n.Op == "Gemm" || n.Op == "MatMul" {
					linear++
				}
			}
			if got := len(c.Foldable()); linear != want.linear || got != want.foldable {
				t.Errorf("%d of %d linear layers lack a BatchNormalization, want %d of %d", got, linear, want.foldable, want.linear)
			}
			if err := c.CheckTrainable(); err != nil {
				t.Error(err)
			}
			for _, n := range c.Nodes {
				if n.Op == "BatchNormalization" && (slices.Contains(c.Trainable, n.Inputs[3]) || slices.Contains(c.Trainable, n.Inputs[4])) {
					t.Errorf("%s: running statistics are among the trainable tensors", n.Label())
				}
			}
		})
	}
}

// TestThirdPartyLogits: the normalized graph computes what the file computes, for any batch.
func TestThirdPartyLogits(t *testing.T) {
	for _, model := range thirdParty {
		t.Run(model.file, func(t *testing.T) {
			c, _, path := openShared(t, model.file)
			const n = 3
			x := noise(c, n)
			got := evaluate(t, c, nil, x, c.Logits)[0]

			s, err := ort.NewSessionFile(path, ort.Options{Provider: ort.CPU})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			var want []float32
			for i := range int64(n) { // one by one: some files allow no more
				per := x.Shape[1] * x.Shape[2] * x.Shape[3]
				out := make([]*ort.Array, 1)
				if err := s.Run(t.Context(), []*ort.Array{{Shape: c.ImageShape(1), F32: x.F32[i*per : (i+1)*per]}}, out); err != nil {
					t.Fatal(err)
				}
				want = append(want, out[0].F32...)
			}
			if !slices.Equal(got.Shape, []int64{n, 10}) || difference(got.F32, want) > 1e-5 {
				t.Errorf("logits %v differ by %.2g of the largest", got.Shape, difference(got.F32, want))
			}
		})
	}
}

func TestThirdPartyShapes(t *testing.T) {
	for _, file := range []string{"nad-wrn16-badnet.onnx", "vnncomp-cifar_base_kw.onnx", "vnncomp-cifar10_medium_nhwc.onnx", "cntk-mnist.onnx"} {
		t.Run(file, func(t *testing.T) {
			c, _, _ := openShared(t, file)
			for _, n := range []int64{1, 2, 5} {
				shapes, err := c.Shapes(n)
				if err != nil {
					t.Fatal(err)
				}
				if got := shapes[c.Logits]; !slices.Equal(got, []int64{n, 10}) {
					t.Errorf("batch %d: logits %v", n, got)
				}
				if got := shapes[c.Input]; !slices.Equal(got, c.ImageShape(n)) {
					t.Errorf("batch %d: input %v", n, got)
				}
				for _, node := range c.Nodes {
					for _, name := range append(slices.Clone(node.Inputs), node.Outputs...) {
						if k := c.Constants[name]; k != nil && !slices.Equal(shapes[name], k.Shape) {
							t.Errorf("constant %s: %v, want %v", name, shapes[name], k.Shape)
						} else if k == nil && (len(shapes[name]) < 2 || shapes[name][0] != n) {
							t.Errorf("batch %d: %s has shape %v", n, name, shapes[name])
						}
					}
				}
			}
		})
	}
}

// TestSourceStaysAsItIs: everything that is done for training happens to copies.
func TestSourceStaysAsItIs(t *testing.T) {
	c, m, path := openShared(t, "vnncomp-cifar10_medium_nhwc.onnx")
	layers := c.Foldable()
	var mean, variance [][]float32
	for _, l := range layers {
		mean, variance = append(mean, make([]float32, l.Channels)), append(variance, make([]float32, l.Channels))
	}
	c.Unfold(layers, mean, variance)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := onnx.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if !onnx.Equal(m, again) {
		t.Error("reading the model as a classifier changed it")
	}
	if fmt.Sprint(read(t, m, classifier.Options{}).Foldable()) == fmt.Sprint(c.Foldable()) {
		t.Error("unfolding changed nothing")
	}
}
