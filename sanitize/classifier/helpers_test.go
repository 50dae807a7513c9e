package classifier_test

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

// net assembles a small classifier by hand, with random weights.
type net struct {
	*onnx.Builder
	random *rand.Rand
}

func newNet() *net {
	return &net{onnx.NewBuilder(), rand.New(rand.NewPCG(7, 7))}
}

// weight adds an initializer of normally distributed numbers, small enough to keep activations near one.
func (n *net) weight(name string, shape ...int64) string {
	size := int64(1)
	for _, d := range shape {
		size *= d
	}
	v := make([]float32, size)
	for i := range v {
		v[i] = float32(n.random.NormFloat64()) / 3
	}
	return n.Const(onnx.NewFloat(name, shape, v))
}

// filled adds an initializer of equal numbers.
func (n *net) filled(name string, v float32, size int64) string {
	values := make([]float32, size)
	for i := range values {
		values[i] = v
	}
	return n.Const(onnx.NewFloat(name, []int64{size}, values))
}

// stem is an 8x8 RGB input, a 3x3 convolution to 4 channels with a bias, and a ReLU: [batch, 4, 8, 8].
func (n *net) stem(batch int64) string {
	n.Input("x", onnx.Float, batch, 3, 8, 8)
	n.Add(&onnx.Node{Name: "stem", Op: "Conv", Inputs: []string{"x", n.weight("stem.w", 4, 3, 3, 3), n.weight("stem.b", 4)}, Outputs: []string{"stem.y"},
		Attrs: []*onnx.Attr{onnx.Is("pads", 1, 1, 1, 1)}})
	return n.Named("stem.relu", "Relu", []string{"stem.y"})
}

// pooled is the mean over the image, as the rows of a matrix.
func (n *net) pooled(x string) string {
	return n.Named("feature", "Flatten", []string{n.Op("GlobalAveragePool", []string{x})}, onnx.I("axis", 1))
}

// dense is a Gemm with its weights the other way round (transB), as PyTorch writes it.
func (n *net) dense(x string, in, out int64) string {
	n.Add(&onnx.Node{Name: "fc", Op: "Gemm", Inputs: []string{x, n.weight("fc.w", out, in), n.weight("fc.b", out)}, Outputs: []string{"logits"},
		Attrs: []*onnx.Attr{onnx.I("transB", 1)}})
	return "logits"
}

// model ends the net at an output of 5 classes and reads it back as a file would be.
func (n *net) model(t testing.TB, opset int64, output string) *onnx.Model {
	t.Helper()
	n.Output(output, onnx.Float, -1, 5)
	raw, err := n.Model(opset).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	m, err := onnx.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// read is New for models that it must accept.
func read(t testing.TB, m *onnx.Model, o classifier.Options) *classifier.Classifier {
	t.Helper()
	c, err := classifier.New(m, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// noise is a batch of n random images in the model's layout, the same for equal arguments.
func noise(c *classifier.Classifier, n int64) *ort.Array {
	shape := c.ImageShape(n)
	random := rand.New(rand.NewPCG(uint64(n), 3))
	x := &ort.Array{Shape: shape, F32: make([]float32, n*shape[1]*shape[2]*shape[3])}
	for i := range x.F32 {
		x.F32[i] = random.Float32()
	}
	return x
}

// evaluate runs the classifier's own graph, with values in place of its constants where given, and returns the named
// tensors, each as [batch, numbers per image].
func evaluate(t testing.TB, c *classifier.Classifier, values map[string][]float32, x *ort.Array, names ...string) []*ort.Array {
	t.Helper()
	b := c.NewBuilder()
	b.Input(c.Input, onnx.Float, c.ImageShape(-1)...)
	done := map[string]bool{}
	for _, n := range c.Nodes {
		for _, in := range n.Inputs {
			k := c.Constants[in]
			if k == nil || done[in] {
				continue
			}
			done[in] = true
			if v := values[in]; v != nil {
				k = onnx.NewFloat(in, k.Shape, v)
			}
			b.Const(k)
		}
		b.Add(n)
	}
	for _, name := range names {
		b.Output(b.Op("Flatten", []string{name}, onnx.I("axis", 1)), onnx.Float, -1, -1)
	}
	raw, err := b.Model(onnx.Opset).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return run(t, raw, x, len(names))
}

func run(t testing.TB, model []byte, x *ort.Array, outputs int) []*ort.Array {
	t.Helper()
	s, err := ort.NewSession(model, ort.Options{Provider: ort.CPU})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out := make([]*ort.Array, outputs)
	if err := s.Run(context.Background(), []*ort.Array{x}, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// difference is the largest difference of two vectors, relative to the largest element of b.
func difference(a, b []float32) float64 {
	if len(a) != len(b) {
		return math.Inf(1)
	}
	worst, scale := 0.0, 1e-6
	for i := range a {
		d := math.Abs(float64(a[i]) - float64(b[i]))
		if math.IsNaN(d) {
			return math.Inf(1)
		}
		worst, scale = max(worst, d), max(scale, math.Abs(float64(b[i])))
	}
	return worst / scale
}
